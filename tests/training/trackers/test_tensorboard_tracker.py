from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from hellm_recbole.training.trackers.base import Outcome, TrackedRun
from hellm_recbole.training.trackers.tensorboard_tracker import TensorBoardTracker


def read_events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard")).Reload()


def read_sessions(events: EventAccumulator) -> dict[str, Any]:
    """Read the content of the page HParams: tag -> its content."""
    contents = events.PluginTagToContent("hparams")
    return {tag: HParamsPluginData.FromString(content) for tag, content in contents.items()}


def test_settings_and_tags_are_hyper_parameters_and_the_summary_is_logged_once(tracked: TrackedRun) -> None:
    tracker = TensorBoardTracker(tracked, 1)
    for epoch in (1, 2, 3):
        tracker.log(epoch, {"loss/bpr": epoch / 8})
    tracker.finish(Outcome("success", {"test/N@20": 0.25}, {"identity": "abc"}, 2))
    events = read_events(tracked.folder)
    assert [(event.step, event.value) for event in events.Scalars("loss/bpr")] == [(1, 0.125), (2, 0.25), (3, 0.375)]
    assert [(event.step, event.value) for event in events.Scalars("test/N@20")] == [(2, 0.25)]
    sessions = read_sessions(events)
    start = sessions["_hparams_/session_start_info"].session_start_info.hparams
    assert {name: value.string_value or value.number_value for name, value in start.items()} == {
        "dataset": "toy",
        "model": "X",
        "seed": "1",
        "dropout": 0.5,
        "cutoffs": "[5, 10]",
    }
    assert sessions["_hparams_/session_end_info"].session_end_info.status == 1  # success
    assert "_hparams_/experiment" not in sessions  # its list would hide the settings of other models
    (text,) = events.Tensors("outcome/text_summary")
    assert b"| identity | abc |" in text.tensor_proto.string_val[0]


def test_a_run_that_failed_has_no_end(tracked: TrackedRun) -> None:
    TensorBoardTracker(tracked, None).finish(Outcome("failed", {}, {"reason": "loss is nan"}))
    events = read_events(tracked.folder)
    assert "_hparams_/session_end_info" not in read_sessions(events)
    assert b"loss is nan" in events.Tensors("outcome/text_summary")[0].tensor_proto.string_val[0]
