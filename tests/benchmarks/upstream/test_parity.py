from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from hellm_recbole.baselines.registry import REGISTRY
from hellm_recbole.benchmarks.upstream import parity
from hellm_recbole.benchmarks.upstream.dense_graphs import make_dense
from hellm_recbole.benchmarks.upstream.hellm_parity import (
    LONGEST,
    NAME,
    SHAPE,
    make_llm_data,
    map_trained,
    save_small_llama,
)
from hellm_recbole.benchmarks.upstream.initial_values import BOUND, compute_distance
from hellm_recbole.benchmarks.upstream.parameter_names import map_parameters
from hellm_recbole.benchmarks.upstream.parity_table import MODALITIES
from hellm_recbole.benchmarks.upstream.public_hellm import interleave_rotary
from hellm_recbole.benchmarks.upstream.public_models import MMRecModel
from hellm_recbole.benchmarks.upstream.sample_data import make_data
from hellm_recbole.benchmarks.upstream.sides import CHANGED, Sides
from hellm_recbole.config.request import Override
from hellm_recbole.errors import HellmError
from hellm_recbole.experiments.resolve import resolve_own_run
from hellm_recbole.models.hellm import HeLLM
from hellm_recbole.models.llm_recommender import LLMRecommender


@pytest.mark.parametrize("name", CHANGED)
@pytest.mark.parametrize("modalities", MODALITIES, ids="+".join)
def test_all_our_parameters_are_compared_but_unused_ones(name: str, modalities: tuple[str, ...]) -> None:
    overrides = [Override(name, key, value, key) for key, value in {"emb_dim": 8, **CHANGED[name]}.items()]
    config = resolve_own_run(name, "toy", REGISTRY, "paper", overrides)
    model = config.spec.cls.build(config.model_settings, make_data(modalities, hard=True))
    own = {key for key, _ in model.named_parameters()}
    compared = {part for parts in map_parameters(name, modalities).values() for part in parts}
    assert compared <= own
    assert own - compared <= {"modality_logits"}  # unused with one modality


def test_the_second_data_set_is_the_harder_one() -> None:
    easy, hard = (make_data(("image",), hard=hard) for hard in (False, True))
    assert easy.history.count_items()[1:].min() > 0
    assert set(easy.history.items) == set(range(1, easy.n_items + 1))
    assert hard.history.count_items()[-1] == 0
    assert hard.n_items not in hard.history.items
    assert (hard.features["image"][3] == hard.features["image"][8]).all()


def make_sides(scale: float) -> Sides:
    """Make a model with a padding row, and the same model without padding and with gradients times `scale`."""
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Embedding(4, 2), nn.Linear(2, 3)).double()
    theirs = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 3)).double()
    pairs = []
    with torch.no_grad():
        for key, parameter in theirs.named_parameters():
            own = dict(ours.named_parameters())[key]
            parameter.copy_(own[1:] if key == "0.weight" else own)
            pairs.append((key, [own], parameter))
    ours(torch.tensor([1, 2])).square().sum().backward()
    (scale * theirs(torch.tensor([0, 1])).square().sum()).backward()
    return Sides("toy", ours, MMRecModel("toy", theirs), pairs, zero_idle=False)


def test_equal_sides_have_no_error_and_different_ones_do() -> None:
    assert make_sides(1.0).compute_gradient_error() < 1e-15
    assert make_sides(1.0).compute_parameter_error() == 0
    assert make_sides(0.5).compute_gradient_error() == pytest.approx(1.0)
    sides = make_sides(1.0)
    with torch.no_grad():
        sides.theirs.module.get_parameter("1.bias").mul_(2)
    assert sides.compute_parameter_error() == pytest.approx(0.5)


def test_a_gradient_without_a_counterpart_is_an_error() -> None:
    sides = make_sides(1.0)
    sides.pairs.pop()
    with pytest.raises(HellmError, match=r"toy: 1\.bias of ours has a gradient and no counterpart"):
        sides.compute_gradient_error()


def test_a_dense_operator_has_no_padding() -> None:
    matrix = torch.arange(12.0, dtype=torch.float64).view(3, 4)
    assert torch.equal(make_dense(lambda columns: matrix @ columns, 3), matrix[1:, 1:])


def test_a_missing_checkout_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parity.main(["--mmrec", str(tmp_path)]) == 2
    assert (
        "holds no src/models/lightgcn.py; pass a checkout of https://github.com/enoche/MMRec" in capsys.readouterr().err
    )
    assert parity.main(["--released", str(tmp_path)]) == 2
    assert "holds no codes/Models.py; pass a checkout of https://github.com/Xu107/MMHCL" in capsys.readouterr().err
    assert parity.main(["--bsarec", str(tmp_path)]) == 2
    assert (
        "holds no src/model/bsarec.py; pass a checkout of https://github.com/yehjin-shin/BSARec"
        in capsys.readouterr().err
    )
    assert parity.main([]) == 2
    assert "parity needs one of --mmrec, --released, --hellm, --bsarec with" in capsys.readouterr().err
    assert parity.main(["--mmrec", str(tmp_path / "nowhere")]) == 2
    assert "nowhere does not exist or is no folder; run `git clone https://github.com" in capsys.readouterr().err
    assert parity.main([]) == 2
    assert "parity needs one of --mmrec, --released, --hellm, --bsarec with" in capsys.readouterr().err
    assert parity.main(["--hellm", str(tmp_path)]) == 2
    assert "holds no llama/HeLLM.py; pass a checkout of https://github.com/Xu107/HeLLM" in capsys.readouterr().err


@pytest.fixture(scope="module")
def small_hellm(tmp_path_factory: pytest.TempPathFactory) -> LLMRecommender:
    folder = tmp_path_factory.mktemp("llama")
    config = resolve_own_run(NAME, "toy", REGISTRY, "paper", [Override(NAME, "llm", str(folder), "llm")])
    save_small_llama(folder, (config.model_settings.prompt, config.model_settings.ending))
    model = HeLLM.build(config.model_settings, make_llm_data()[1])
    assert isinstance(model, LLMRecommender)
    return model


def test_all_trained_parameters_of_hellm_are_compared(small_hellm: LLMRecommender) -> None:
    trained = {name for name, value in small_hellm.named_parameters() if value.requires_grad}
    assert sorted(map_trained(SHAPE["num_hidden_layers"]).values()) == sorted(trained)


def test_both_texts_begin_with_a_special_token(small_hellm: LLMRecommender) -> None:
    assert small_hellm.backbone is not None
    prompt, ending = small_hellm.backbone.tokens[:2]
    assert (prompt[0], ending[0]) == (1, 1)
    assert len(set(prompt)) > 20  # its words are known
    assert 0 not in (*prompt, *ending)


def test_hellm_has_a_history_that_is_cut_and_a_batch_that_is_not_full() -> None:
    sequences, data = make_llm_data()
    assert max(map(len, sequences)) > LONGEST
    n_examples = sum(min(len(items) - 2, 48) - 1 for items in sequences)
    assert n_examples % 7
    assert [len(items) - 2 for items in sequences] == data.history.count_items()[1:].tolist()


def test_reordered_rows_rotate_as_llamas_own_code_does() -> None:
    torch.manual_seed(0)
    weight, vector, angle = torch.randn(8, 5), torch.randn(5), torch.tensor([0.3, 1.1])  # two heads of width 4
    halves = (weight @ vector).view(2, 2, 2)  # head, half, dimension: the layout of transformers
    one, other = halves[:, 0], halves[:, 1]
    ours = torch.stack([one * angle.cos() - other * angle.sin(), other * angle.cos() + one * angle.sin()], dim=-1)
    pairs = torch.view_as_complex((interleave_rotary(weight, 2) @ vector).view(2, 2, 2))
    assert torch.allclose(torch.view_as_real(pairs * torch.polar(torch.ones(2), angle)), ours, atol=1e-6)


def test_distances_tell_distributions_apart() -> None:
    torch.manual_seed(0)
    n = 20_000
    normal = torch.randn(n)
    assert compute_distance(normal, torch.randn(n)) < BOUND
    assert compute_distance(normal, (torch.rand(n) - 0.5) * 12**0.5) > BOUND  # uniform, of the same deviation
    assert compute_distance(normal, 1.1 * torch.randn(n)) > BOUND
    assert compute_distance(torch.zeros(n), torch.zeros(n)) == 0
    assert compute_distance(torch.zeros(n), torch.full((n,), 1e-3)) > BOUND
