from __future__ import annotations

import numpy as np
import pytest
import torch

from hellm_recbole.errors import DataError
from hellm_recbole.training.sampling import (
    PairSource,
    PrefixSource,
    SequenceSource,
    derive_epoch_seed,
    make_batch_source,
    split_micro_batches,
)
from hellm_recbole.types import Histories, HistoryBatch, TrainData, pad_recent
from tests.training.small_runs import small_config

CPU = torch.device("cpu")


def build_data(sequences: list[list[int]], n_items: int) -> TrainData:
    user = np.concatenate([np.full(len(items), u) for u, items in enumerate(sequences, 1)]).astype(np.int64)
    item = np.concatenate([np.array(items, dtype=np.int64) for items in sequences])
    return TrainData(len(sequences), n_items, Histories.from_pairs(user, item, len(sequences)), {})


def test_an_epoch_has_every_interaction_once_and_no_negative_is_observed() -> None:
    train = build_data([[1, 2, 3], [2], [4, 5, 6, 7]], n_items=8)
    source = PairSource(train, 3, "interactions", CPU)
    batches = list(source.epoch(7))
    assert len(batches) == source.count_batches() == 3
    pairs = [(int(u), int(i)) for batch in batches for u, i in zip(batch.user, batch.positive, strict=True)]
    assert sorted(pairs) == [(1, 1), (1, 2), (1, 3), (2, 2), (3, 4), (3, 5), (3, 6), (3, 7)]
    for seed in range(50):
        for batch in source.epoch(seed):
            for u, j in zip(batch.user.tolist(), batch.negative.tolist(), strict=True):
                assert 1 <= j <= 8
                assert j not in train.history.get_items(u)


def test_negatives_are_uniform_over_the_unobserved_items() -> None:
    source = PairSource(build_data([[1, 2]], n_items=6), 64, "interactions", CPU)
    drawn = source.draw_negatives(np.ones(40_000, dtype=np.int64), np.random.default_rng(0))
    counts = np.bincount(drawn, minlength=7)[1:]
    assert counts[:2].tolist() == [0, 0]
    # 4 items at 10,000 each; the standard deviation is sqrt(40000 * 1/4 * 3/4) = 87
    assert np.all(np.abs(counts[2:] - 10_000) < 5 * 87)


def test_sampling_of_users_gives_all_users_and_all_items_of_a_user_equal_shares() -> None:
    train = build_data([[1, 2, 3, 3], [], [4]], n_items=8)
    source = PairSource(train, 1000, "users", CPU)
    pairs = [
        (int(u), int(i))
        for seed in range(2000)
        for batch in source.epoch(seed)
        for u, i in zip(batch.user, batch.positive, strict=True)
    ]
    assert len(pairs) == 2000 * len(train.history.items)
    share = {pair: pairs.count(pair) / len(pairs) for pair in set(pairs)}
    # a repeated item counts as often as it occurs; standard deviations are below 0.005
    assert share == pytest.approx({(1, 1): 1 / 8, (1, 2): 1 / 8, (1, 3): 1 / 4, (3, 4): 1 / 2}, abs=0.025)


def test_the_batches_of_an_epoch_depend_on_its_seed_only() -> None:
    source = PairSource(build_data([[1, 2, 3], [4, 5]], n_items=9), 2, "interactions", CPU)
    one, same, other = (torch.cat([b.negative for b in source.epoch(seed)]) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert len({derive_epoch_seed(seed, epoch) for seed in range(20) for epoch in range(20)}) == 400


def test_a_user_who_has_seen_every_item_is_refused() -> None:
    with pytest.raises(DataError, match="every item"):
        PairSource(build_data([[1, 2]], n_items=2), 2, "interactions", CPU)


def test_sequences_are_the_most_recent_items_with_the_next_as_target() -> None:
    source = SequenceSource(build_data([[1, 2, 3, 4], [5], [6, 7]], n_items=9), 8, 2, CPU)
    (batch,) = source.epoch(0)
    rows = sorted(zip(batch.items.tolist(), batch.targets.tolist(), strict=True))
    assert rows == [([2, 3], [3, 4]), ([6, 0], [7, 0])]


def test_data_without_a_sequence_of_two_items_is_refused() -> None:
    with pytest.raises(DataError, match="two training interactions"):
        SequenceSource(build_data([[1], [2]], n_items=2), 8, 5, CPU)


def test_pad_recent_of_users_with_no_short_and_long_histories() -> None:
    history = build_data([[1, 2, 3], [4]], n_items=5).history
    got = pad_recent(history.indptr, history.items, np.array([2, 1]), 2)
    assert got.tolist() == [[4, 0], [2, 3]]
    assert pad_recent(history.indptr, history.items, np.array([1, 2]), 0).shape == (2, 0)
    empty = Histories(np.array([0, 0, 0, 1]), np.array([9]))
    assert pad_recent(empty.indptr, empty.items, np.array([1, 2]), 2).tolist() == [[0, 0], [9, 0]]


def test_an_epoch_has_every_prefix_of_the_recent_items_once() -> None:
    source = PrefixSource(build_data([[1, 2, 3, 4], [5], [6, 7]], n_items=8), 2, 2, None, CPU)
    seen = []
    batches = list(source.epoch(3))
    assert len(batches) == source.count_batches() == 2
    for batch in batches:
        for items, targets in zip(batch.items.tolist(), batch.targets.tolist(), strict=True):
            length = sum(item > 0 for item in items)
            assert [target > 0 for target in targets] == [position == length - 1 for position in range(len(targets))]
            seen.append((tuple(items[:length]), targets[length - 1]))
    assert sorted(seen) == [((1, 2), 3), ((2, 3), 4), ((6,), 7)]  # the last two items of each user are targets


def test_a_model_of_prefixes_gets_every_prefix_with_one_target() -> None:
    config = small_config("BSARec", batch_size=3, max_history=3, frequency_cutoff=3)
    assert config.spec.batches == "prefixes"
    data = build_data([[1, 2, 3, 4], [5], [6, 7]], n_items=8)
    source = make_batch_source(config.spec.batches, config.model_settings, config.train, None, None, data, CPU)
    found = [
        (*items[items != 0].tolist(), int(targets.sum()))
        for batch in source.epoch(3)
        for items, targets in zip(batch.items, batch.targets, strict=True)
    ]
    assert sorted(found) == [(1, 2), (1, 2, 3), (1, 2, 3, 4), (6, 7)]
    assert all(int((batch.targets != 0).sum(1).max()) == 1 for batch in source.epoch(3))


def test_each_epoch_draws_other_prefixes_of_a_user() -> None:
    source = PrefixSource(build_data([list(range(1, 9)), [1, 2]], n_items=8), 8, 7, 2, CPU)
    drawn = []
    for seed in range(20):
        (batch,) = source.epoch(seed)
        assert len(batch.items) == 3
        drawn.append(frozenset((batch.items != 0).sum(1).tolist()))
    assert len(set(drawn)) > 5


def test_micro_batches_contain_all_sequences_sorted_by_length() -> None:
    items = torch.tensor([[1, 2, 3], [4, 0, 0], [5, 6, 0], [7, 0, 0]])
    parts = split_micro_batches(HistoryBatch(items, items), 2)
    assert [part.items.tolist() for _, part in parts] == [[[4], [7]], [[5, 6, 0], [1, 2, 3]]]
    assert [share for share, _ in parts] == pytest.approx([2 / 7, 5 / 7])


def test_batches_of_histories_know_their_users() -> None:
    train = build_data([[1, 2, 3], [4], [5, 6, 7, 8]], n_items=8)
    owner = {1: 1, 2: 1, 3: 1, 4: 2, 5: 3, 6: 3, 7: 3, 8: 3}
    for source in (PrefixSource(train, 2, 9, None, CPU), SequenceSource(train, 1, 9, CPU)):
        for batch in source.epoch(3):
            assert batch.user is not None
            assert batch.user.tolist() == [owner[item] for item in batch.items[:, 0].tolist()]
            for _, part in split_micro_batches(batch, 1):
                assert part.user is not None
                assert part.user.tolist() == [owner[item] for item in part.items[:, 0].tolist()]


def test_prefixes_of_a_window_begin_in_it() -> None:
    """As in the released HeLLM code: the last items of a user alone, the first of which is never a target."""
    source = PrefixSource(build_data([[1, 2, 3, 4, 5], [6], [7, 8]], n_items=8), 9, 9, None, CPU, window=3)
    (batch,) = source.epoch(0)
    rows = sorted(zip(batch.items.tolist(), batch.targets.tolist(), strict=True))
    assert rows == [([3, 0], [4, 0]), ([3, 4], [0, 5]), ([7, 0], [8, 0])]


def test_a_last_batch_that_is_not_full_is_left_out_if_asked() -> None:
    train = build_data([[1, 2, 3, 4], [5, 6, 7], [8, 9]], n_items=9)
    for drop_last in (False, True):
        prefixes = PrefixSource(train, 4, 9, None, CPU, drop_last=drop_last)  # 6 examples
        users = SequenceSource(train, 2, 9, CPU, drop_last=drop_last)  # 3 users
        for source, sizes in ((prefixes, [4, 2]), (users, [2, 1])):
            found = [len(batch.items) for batch in source.epoch(1)]
            assert found == (sizes[:1] if drop_last else sizes)
            assert source.count_batches() == len(found)
    with pytest.raises(
        DataError, match="drop_last leaves no batch: batch_size is 7, and an epoch has 6 examples; lower"
    ):
        PrefixSource(train, 7, 9, None, CPU, drop_last=True)


def test_micro_batches_keep_the_width_of_the_batch_if_asked() -> None:
    items = torch.tensor([[1, 2, 3], [4, 0, 0], [5, 6, 0], [7, 0, 0]])
    parts = split_micro_batches(HistoryBatch(items, items), 2, keep_width=True)
    assert [part.items.tolist() for _, part in parts] == [[[4, 0, 0], [7, 0, 0]], [[5, 6, 0], [1, 2, 3]]]
