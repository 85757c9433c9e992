"""Names of combined rows: what is understood, and what is refused in one sentence."""

from __future__ import annotations

import pytest

from hellm_recbole.config.row_names import CombinedName, parse_combined_name, split_names
from hellm_recbole.errors import ModelError


def test_names_are_split_outside_parentheses_and_lose_their_spaces() -> None:
    text = " Pop,Fusion( SASRec , Fusion(A, B)-priors-directed ) ,, Priors"
    assert split_names(text) == ["Pop", "Fusion(SASRec,Fusion(A,B)-priors-directed)", "Priors"]
    assert split_names("  ") == []


@pytest.mark.parametrize("text", ["Fusion(A,B", "Fusion(A,B))", "A)(B", "Fusion((A,B)"])
def test_parentheses_that_do_not_match_are_refused(text: str) -> None:
    with pytest.raises(ModelError, match="do not match; write Fusion"):
        split_names(text)


@pytest.mark.parametrize(
    ("name", "kind", "rows", "variant"),
    [
        ("Transitions", "transitions", (), None),
        ("Transitions-directed", "transitions", (), "directed"),
        ("Priors", "priors", (), None),
        ("SASRec-priors", "priors", ("SASRec",), None),
        ("HeLLMPre-text-only-priors-directed", "priors", ("HeLLMPre-text-only",), "directed"),
        ("Fusion(A,B-priors,Transitions)", "fusion", ("A", "B-priors", "Transitions"), None),
        ("Fusion(A,Fusion(B,C))-priors", "priors", ("Fusion(A,Fusion(B,C))",), None),
    ],
)
def test_names_are_taken_apart(name: str, kind: str, rows: tuple[str, ...], variant: str | None) -> None:
    assert parse_combined_name(name) == CombinedName(name, kind, rows, variant)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["SASRec", "HeLLM-without-prefix", "SASRec-directed", "RecBole-LightGCN", "FusionNet"])
def test_other_names_are_left_alone(name: str) -> None:
    assert parse_combined_name(name) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("SASRec-priors-priors", "SASRec-priors cannot have priors added"),
        ("Priors-priors", "Priors cannot have priors added"),
        ("Transitions-priors", "Transitions cannot have priors added"),
        ("-priors", "nothing cannot have priors added"),
        ("Fusion(A)", "has 1 row;"),
        ("Fusion()", "has 0 rows;"),
        ("Fusion(A,,B)", "has a comma without a row"),
        ("Fusion(A,B,)", "has a comma without a row"),
        ("Fusion", "not understood; write Fusion"),
        ("Fusion(A,B)x", "not understood; write Fusion"),
        ("Fusion(A,B,A)", "names A twice"),
        ("Fusion(A,B)-directed", "has no transitions of its own"),
        (f"Fusion({'A' * 120},{'B' * 120})", "249 characters"),
    ],
)
def test_wrong_names_are_refused_in_one_sentence(name: str, reason: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse_combined_name(name)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
