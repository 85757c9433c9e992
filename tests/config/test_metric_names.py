"""Names of metrics on request: which are known, and what is said about others."""

from __future__ import annotations

import pytest

from hellm_recbole.config.metric_names import MetricName, find_metric_name, is_rank_metric, parse_metric_names
from hellm_recbole.errors import SettingsError


def test_all_forms_are_parsed_and_written_the_same() -> None:
    text = "MRR,MRR@5,HR@10,MAP@20,Coverage@10,Gini@10,Novelty@10,ARP@10,PopLift@10,ILD@10,ILD-text_llm@10"
    names = parse_metric_names(f" {text.replace(',', ' , ')},HR@10")
    assert [str(name) for name in names] == text.split(",")
    assert [name.reads_lists for name in names] == [False] * 4 + [True] * 7
    assert names[-1] == MetricName("ILD", 10, "text_llm")


@pytest.mark.parametrize(
    "text", ["HR", "MAP", "Gini", "MRR@0", "MRR@", "mrr", "MRR@1000001", "HR-text@10", "R@10", "", "MRR@\u0661"]
)
def test_other_texts_name_no_metric(text: str) -> None:
    assert find_metric_name(text) is None
    assert not is_rank_metric(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mrr@10", "'mrr@10' is unknown; did you mean MRR@10?"),
        ("coverge@5", "did you mean Coverage@5?"),
        ("ild-text", "did you mean ILD-text@10?"),
        ("HR", "did you mean HR@10?"),
        ("R@50", "every table has Recall and NDCG; choose their K with --cutoffs 50"),
        ("NDCG", "choose their K with --cutoffs"),
        ("MRR@1000001", "with K at most 1,000,000"),
        ("xyz@3", "it can be MRR, MRR@K, HR@K or MAP@K (from ranks), Coverage@K"),
        (" , ", "--metrics names nothing"),
        ("ILD@1", "a list of one item has no pairs"),
    ],
)
def test_a_wrong_name_gives_one_sentence_with_advice(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as error:
        parse_metric_names(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
