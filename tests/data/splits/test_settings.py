from __future__ import annotations

import pytest

from hellm_recbole.data.splits.settings import NAMES, parse_instant, read_split_settings, write_kind
from hellm_recbole.errors import SettingsError


@pytest.mark.parametrize("name", NAMES)
def test_the_kind_of_a_split_is_what_the_option_reads(name: str) -> None:
    settings = read_split_settings(name)
    kind = write_kind(name, settings)
    assert read_split_settings(kind) == settings
    assert " " not in kind


def test_instants_replace_the_shares() -> None:
    kind = "time-line:valid_from=2014-01-01,test_from=2014-02-01T12:00+02:00"
    assert write_kind("time-line", read_split_settings(kind)) == kind


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ratio:test_shar=0.2", "unknown setting 'test_shar'; did you mean 'test_share'?"),
        ("ratio:test_share=2", r"test_share = 2 must be < 1"),
        ("ratio:test_share=yes", "test_share = .* must be of type float"),
        ("ratio:test_share=0.6,valid_share=0.4", "leaves nothing for training"),
        ("ratio:test_share", "'test_share' is not understood; write --split ratio:KEY=VALUE,KEY=VALUE"),
        ("ratio:test_share=0.1,test_share=0.2", "is given twice"),
        ("ratio:seed=3", "unknown setting 'seed'"),
        ("cold-items:seed=-1", "seed = -1 must be >= 0"),
        ("time-line:test_from=7", "valid_from and test_from belong together"),
        ("time-line:test_from=7,valid_share=0.2", "shares and instants contradict each other"),
    ],
)
def test_a_wrong_value_is_one_sentence(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as error:
        read_split_settings(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("largest", "unit"), [(1.4e9, 1), (1.4e12, 10**3), (1.4e15, 10**6), (1.4e18, 10**9)])
def test_a_date_has_the_unit_of_the_source(largest: float, unit: int) -> None:
    assert parse_instant("2014-01-01T01:00+01:00", largest) == str(1388534400 * unit)
    with pytest.raises(SettingsError, match="neither a time of the source nor a date"):
        parse_instant("tomorrow", largest)
    for text in ("nan", "inf", "1e400", "1_000", ""):
        with pytest.raises(SettingsError, match="neither a time of the source nor a date"):
            parse_instant(text, largest)
