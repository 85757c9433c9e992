"""Names and values of the splits that `--split NAME` or `--split NAME:KEY=VALUE,...` chooses.

The usual values are in `properties/splits.yaml`. The kind of a split is its name with all values that it depends on,
in the form that `--split` reads, such as `ratio:valid_share=0.1,test_share=0.1`. It stands in records and captions.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Self

from pydantic import Field, model_validator

from hellm_recbole.config.layers import Resolved
from hellm_recbole.config.settings import Settings, build_settings
from hellm_recbole.config.yaml_files import Value, find_properties, load_yaml, parse_value
from hellm_recbole.errors import SettingsError, shorten

OPTION = "--split"
FILE = "splits.yaml"
TIME_LINE, RATIO, COLD_ITEMS = NAMES = ("time-line", "ratio", "cold-items")
SHARES, INSTANTS = ("valid_share", "test_share"), ("valid_from", "test_from")
KIND = re.compile(rf"({'|'.join(NAMES)}):\S+")  # form of the kinds of these splits


class ShareSettings(Settings):
    """Shares of the validation and of the test part; the rest is for training.

    Attributes:
        valid_share: share of the validation part.
        test_share: share of the test part.
    """

    valid_share: float = Field(gt=0, lt=1)
    test_share: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _leave_training(self) -> Self:
        """Refuse shares that leave nothing for training."""
        if self.valid_share + self.test_share >= 1:
            raise ValueError(
                f"valid_share + test_share = {self.valid_share + self.test_share:g} leaves nothing for training; "
                "make their sum less than 1"
            )
        return self


class TimeLineSettings(ShareSettings):
    """Settings of the split by one time line.

    Attributes:
        valid_share: share of all interactions for validation.
        test_share: share of all interactions for test.
        valid_from: instant of the first validation interaction; None cuts by shares.
        test_from: instant of the first test interaction; None cuts by shares.
    """

    valid_from: str | int | float | None
    test_from: str | int | float | None

    @model_validator(mode="after")
    def _refuse_half_an_instant(self) -> Self:
        """Refuse one instant without the other."""
        if (self.valid_from is None) != (self.test_from is None):
            raise ValueError("valid_from and test_from belong together; give both, or neither to cut by shares")
        return self


class RatioSettings(ShareSettings):
    """Settings of the split of each user's interactions by shares."""


class ColdItemSettings(ShareSettings):
    """Settings of the split that holds items out of training.

    Attributes:
        valid_share: share of all items for validation.
        test_share: share of all items for test.
        seed: random seed of the choice of items.
    """

    seed: int = Field(ge=0)


_CLASSES: dict[str, type[ShareSettings]] = {
    TIME_LINE: TimeLineSettings,
    RATIO: RatioSettings,
    COLD_ITEMS: ColdItemSettings,
}


def split_option(text: str) -> tuple[str, str]:
    """Divide the value of `--split` into the name and the values.

    >>> split_option("ratio:test_share=0.2"), split_option("ratio")
    (('ratio', 'test_share=0.2'), ('ratio', ''))
    """
    name, _, values = text.partition(":")
    return name, values


def read_split_settings(text: str) -> ShareSettings:
    """Read the settings of one of `NAMES`: those of `properties/splits.yaml`, then those of the option.

    Args:
        text: value of `--split`, such as `ratio` or `ratio:test_share=0.2,valid_share=0.1`.

    Raises:
        SettingsError: a key is unknown, a value is wrong, or shares and instants are both given.
    """
    name, values = split_option(text)
    path = find_properties() / FILE
    sections = load_yaml(path)
    usual = sections.get(name)
    if not isinstance(usual, dict):
        raise SettingsError(f"{path} has no section {name}; restore it")
    given: dict[str, Value] = {}
    for pair in values.split(",") if values else ():
        key, equals, value = pair.partition("=")
        if not equals or not key or key in given:
            problem = "is given twice" if key in given else "is not understood"
            raise SettingsError(
                f"{OPTION} {shorten(text)}: {shorten(pair)!r} {problem}; write {OPTION} {name}:KEY=VALUE,KEY=VALUE"
            )
        given[key] = str(value) if key in INSTANTS else parse_value(value, f"{OPTION} {text}")
    if given.keys() & set(SHARES) and given.keys() & set(INSTANTS):
        raise SettingsError(f"{OPTION} {shorten(text)}: shares and instants contradict each other; give one of the two")
    resolved = Resolved(usual, dict.fromkeys(usual, f"{path} {name}")).override(given, f"{OPTION} {text}")
    return build_settings(_CLASSES[name], resolved, file=f"{path} {name}")


def write_kind(name: str, settings: ShareSettings) -> str:
    """Write the kind of a split: its name and all values that it depends on.

    >>> write_kind("ratio", RatioSettings(valid_share=0.1, test_share=0.2))
    'ratio:valid_share=0.1,test_share=0.2'
    """
    by_instants = isinstance(settings, TimeLineSettings) and settings.valid_from is not None
    left_out = SHARES if by_instants else INSTANTS
    values = {key: value for key, value in settings.model_dump().items() if key not in left_out}
    return f"{name}:{','.join(f'{key}={value}' for key, value in values.items())}"


def parse_instant(value: str | int | float, largest: float) -> str:
    """Return an instant as a time of the source: a number stays, a date is converted.

    A date is at midnight UTC unless it states a time or a zone. The unit of the source follows from the size of its
    times: seconds, milliseconds, microseconds or nanoseconds since 1970.

    Args:
        value: number, or date in the form of ISO 8601.
        largest: latest time of the source.

    Raises:
        SettingsError: it is neither, or the times of the source are no times since 1970.

    >>> parse_instant("2014-01-01", 1.4e9), parse_instant("2014-01-01", 1.4e12), parse_instant("88", 90)
    ('1388534400', '1388534400000', '88')
    """
    text = str(value)
    if re.fullmatch(r"-?[0-9]{1,20}(\.[0-9]{1,12})?", text):
        return text
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(
            f"{OPTION}: {shorten(text)!r} is neither a time of the source nor a date such as 2014-01-01"
        ) from error
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    for power, smallest in ((9, 1e17), (6, 1e14), (3, 1e11), (0, 1e8)):
        if largest >= smallest:
            return str(round(moment.timestamp() * 10**6) * 10**power // 10**6)
    raise SettingsError(
        f"{OPTION}: the date {text} cannot be compared with the times of the source, of which the latest is "
        f"{largest:g}: they are no times since 1970; give a time of the source instead"
    )


def describe_instant(time: str) -> str:
    """Describe a time of the source, with its date if it is a time since 1970.

    >>> describe_instant("1388534400"), describe_instant("7")
    ('1388534400 (2014-01-01 00:00 UTC)', '7')
    """
    value = float(time)
    for power, smallest in ((9, 1e17), (6, 1e14), (3, 1e11), (0, 1e8)):
        if value >= smallest:
            return f"{time} ({datetime.fromtimestamp(value / 10**power, UTC):%Y-%m-%d %H:%M} UTC)"
    return time
