from __future__ import annotations

from pathlib import Path

import pytest

from hellm_recbole.config.plugin_points import CALLBACKS
from hellm_recbole.errors import PluginError
from hellm_recbole.plugins.callbacks import CallbackGroup, RunEnd, RunInfo, describe_callbacks
from tests.plugin_site import use_site, write_package

CODE = """
from hellm_recbole.plugins.callbacks import Callback

CALLS = []

class Recorder(Callback):
    def on_run_begin(self, run):
        CALLS.append(("begin", run.model))
    def on_epoch_end(self, epoch, losses):
        CALLS.append(("epoch", epoch, dict(losses)))
    def on_validation(self, epoch, metrics):
        CALLS.append(("valid", epoch, dict(metrics)))
    def on_run_end(self, end):
        CALLS.append(("end", end.status, dict(end.test)))

class Failing(Callback):
    def on_epoch_end(self, epoch, losses):
        raise OSError("no network")

class Leaving(Callback):
    def on_run_begin(self, run):
        raise SystemExit(0)

class Stopped(Callback):
    def on_run_begin(self, run):
        raise KeyboardInterrupt

class Gone(Callback):
    def __init__(self):
        raise SystemExit(0)

class Needy(Callback):
    def __init__(self, name):
        pass
"""
RUN = RunInfo("SASRec", "toy", 1, "quick", {"epochs": 2})


@pytest.fixture
def site(tmp_path: Path) -> Path:
    names = {"recorder": "Recorder", "failing": "Failing", "needy": "Needy", "list": "CALLS.copy"}
    names |= {"leaving": "Leaving", "stopped": "Stopped", "gone": "Gone"}
    points = {CALLBACKS: {name: f"toy_callbacks.c:{value}" for name, value in names.items()}}
    write_package(tmp_path, "toy_callbacks", points, {"c.py": CODE})
    return tmp_path


def test_callbacks_follow_epochs_and_get_test_metrics_at_the_end_only(site: Path) -> None:
    with use_site(site):
        group = CallbackGroup(["recorder"])
        group.begin(RUN)
        group.log(1, {"loss/bpr": 0.5, "seconds/epoch": 1.0})
        group.log(2, {"loss/bpr": 0.4, "valid/N@20": 0.1, "seconds/epoch": 1.0})
        group.end(RunEnd("success", None, 2, {"N@20": 0.1}, {"N@20": 0.2}))
        import toy_callbacks.c  # type: ignore[import-not-found]

        assert toy_callbacks.c.CALLS == [
            ("begin", "SASRec"),
            ("epoch", 1, {"bpr": 0.5}),
            ("epoch", 2, {"bpr": 0.4}),
            ("valid", 2, {"N@20": 0.1}),
            ("end", "success", {"N@20": 0.2}),
        ]
        (record,) = describe_callbacks(["recorder"])
        assert record == {"kind": "callback", "name": "recorder", "package": "toy_callbacks", "version": "1.2"}


def test_a_callback_that_fails_is_named_once_and_not_called_again(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with use_site(site):
        group = CallbackGroup(["failing", "recorder"])
        for epoch in (1, 2):
            group.log(epoch, {"loss/bpr": 0.5})
        import toy_callbacks.c

        assert [call[1] for call in toy_callbacks.c.CALLS] == [1, 2]
    assert capsys.readouterr().err == (
        "warning: callback failing of toy_callbacks (toy_callbacks.c:Failing) failed in on_epoch_end (OSError: no "
        "network); the run continues without it\n"
    )


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("needy", "callback needy of .* cannot be made .TypeError: "),
        ("list", "callback list of .* is of type list; derive it from hellm_recbole.plugins.callbacks.Callback$"),
        ("recorde", r"--callbacks recorde is unknown; did you mean 'recorder'\?$"),
    ],
)
def test_a_wrong_callback_is_one_sentence(site: Path, name: str, sentence: str) -> None:
    with use_site(site), pytest.raises(PluginError, match=f"^{sentence}"):
        CallbackGroup([name])


def test_a_callback_cannot_end_the_process_but_ctrl_c_can(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with use_site(site):
        group = CallbackGroup(["leaving", "recorder"])
        group.begin(RUN)
        import toy_callbacks.c

        assert toy_callbacks.c.CALLS == [("begin", "SASRec")]
        with pytest.raises(PluginError, match=r"cannot be made \(SystemExit: 0\)$"):
            CallbackGroup(["gone"])
        with pytest.raises(KeyboardInterrupt):
            CallbackGroup(["stopped"]).begin(RUN)
    assert "failed in on_run_begin (SystemExit: 0); the run continues without it" in capsys.readouterr().err
