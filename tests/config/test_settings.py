from __future__ import annotations

import pickle
from typing import Annotated, Literal, Self

import pytest
from pydantic import Field, ValidationError, model_validator

from hellm_recbole.config.layers import Resolved, merge_layers
from hellm_recbole.config.settings import Settings, build_all_settings, build_settings, list_field_names
from hellm_recbole.errors import SettingsError


class Toy(Settings):
    width: int = Field(ge=1)
    rate: float = Field(gt=0, lt=1)
    name: Literal["a", "b"]
    flags: tuple[Annotated[int, Field(ge=1)], ...]
    heads: int | None = Field(ge=1)

    @model_validator(mode="after")
    def _check_width(self) -> Self:
        if self.width % (self.heads or 1):
            raise ValueError(f"width = {self.width} must be a multiple of heads = {self.heads}")
        return self


class Other(Settings):
    size: int = Field(ge=0)


GOOD = {"width": 4, "rate": 0.5, "name": "a", "flags": [1, 2], "heads": None}


def resolve(**changes: object) -> Resolved:
    return merge_layers([("toy.yaml", {**GOOD, **changes})])


def test_values_have_their_annotated_types() -> None:
    assert build_settings(Toy, resolve()) == Toy(width=4, rate=0.5, name="a", flags=(1, 2), heads=None)
    assert build_settings(Toy, resolve(heads=2)).heads == 2


def test_settings_do_not_change_and_can_be_sent_to_another_process() -> None:
    settings = build_settings(Toy, resolve())
    with pytest.raises(ValidationError, match="frozen"):
        settings.width = 5
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert hash(settings) == hash(settings.model_copy())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "toy.yaml: width = 0 must be >= 1"),
        ({"width": True}, "width = True must be of type int"),
        ({"width": 1.5}, "width = 1.5 must be of type int"),
        ({"width": "4"}, "width = '4' must be of type int"),
        ({"width": [4]}, "width = [4] must be of type int"),
        ({"width": None}, "width = None must be of type int"),
        ({"heads": 0}, "heads = 0 must be >= 1"),
        ({"heads": 1.0}, "heads = 1.0 must be of type int"),
        ({"rate": "fast"}, "rate = 'fast' must be of type float"),
        ({"rate": True}, "rate = True must be of type float"),
        ({"rate": 1}, "rate = 1 must be < 1"),
        ({"rate": float("nan")}, "must be a finite number"),
        ({"name": "c"}, "must be one of a, b"),
        ({"name": ["a"]}, "name = ['a'] must be one of a, b"),
        ({"flags": 3}, "flags = 3 must be a list"),
        ({"flags": {"a": 3}}, "flags = {'a': 3} must be a list"),
        ({"flags": "12"}, "flags = '12' must be a list"),
        ({"flags": [1, 0]}, "flags = [1, 0] must be >= 1"),
        ({"flags": [1, 10**23]}, "must be at most 2147483647"),
        ({"rate": float("inf")}, "must be a finite number"),
        ({"rate": 10**400}, "must be a finite number"),
        ({"width": 10**23}, "must be at most 2147483647"),
        ({"flags": [2, 2]}, "contains a value twice"),
        ({"widht": 3}, "unknown setting 'widht'; did you mean 'width'?"),
    ],
)
def test_each_error_names_key_value_origin_and_allowed_values(change: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        build_settings(Toy, resolve(**change))
    assert message in str(caught.value)


def test_all_errors_are_reported_together() -> None:
    with pytest.raises(SettingsError) as caught:
        build_settings(Toy, merge_layers([("toy.yaml", {"width": 0, "rate": 2, "other": 1})]))
    for part in ("width", "rate", "name, flags, heads are not set; add them to ", "unknown setting 'other'"):
        assert part in str(caught.value)


def test_the_errors_of_several_classes_are_reported_together() -> None:
    layers = resolve(width=5).override({"heads": 2}, "--set heads=2").override({"size": -1}, "b.yaml")
    classes: list[type[Settings]] = [Toy, Other]
    with pytest.raises(SettingsError) as caught:
        build_all_settings(classes, layers)
    assert str(caught.value) == (
        "toy.yaml and --set heads=2: width = 5 must be a multiple of heads = 2; b.yaml: size = -1 must be >= 0"
    )


def test_several_errors_of_one_key_are_one_error() -> None:
    with pytest.raises(SettingsError, match=r"^toy.yaml: flags = \[0, -1\] must be >= 1$"):
        build_settings(Toy, resolve(flags=[0, -1]))


def test_keys_are_in_the_order_of_the_class() -> None:
    assert list_field_names(Toy) == ("width", "rate", "name", "flags", "heads")


def test_a_text_of_the_command_line_that_is_none_in_yaml_is_answered_with_its_quotes() -> None:
    class Texts(Settings):
        prompt: str

    origin = "--set prompt={user}"
    with pytest.raises(SettingsError) as caught:
        build_settings(Texts, Resolved({"prompt": {"user": None}}, {"prompt": origin}))
    assert str(caught.value) == (
        f"{origin}: prompt = {{'user': None}} must be of type str; to give a text, write --set 'prompt=\"{{user}}\"'"
    )
    with pytest.raises(SettingsError, match=r"must be of type str$"):
        build_settings(Texts, Resolved({"prompt": 3}, {"prompt": "overall.yaml"}))
