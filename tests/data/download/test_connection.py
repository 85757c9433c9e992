from __future__ import annotations

import socket
from io import BytesIO
from pathlib import Path

import pytest
import requests

from hellm_recbole.data.download import fetch as module
from hellm_recbole.data.download.connection import (
    FetchFailed,
    TransferFailed,
    open_session,
    repeat_transfer,
    request_url,
)
from hellm_recbole.errors import DataError
from tests.data.download.server import Handler, Server, busy, in_turn, plain, redirect, silent, status
from tests.data.download.small import BODY, SETTINGS, fetch


def test_redirects_to_other_schemes_and_loops_are_refused(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path.parent / "secret").parent.mkdir()
    (path.parent / "secret").write_bytes(BODY)
    away = server.add("/away", redirect(f"file://{path.parent / 'secret'}"))
    with pytest.raises(DataError, match="not an http or https address"):
        fetch([away], path)
    with pytest.raises(DataError, match="too many redirects"):
        fetch([server.add("/round", redirect("/round"))], path)
    answer = requests.Response()
    answer.raw = BytesIO()
    answer.status_code, answer.headers["location"] = 302, server.add("/a", plain(BODY))
    monkeypatch.setattr(requests.Session, "request", lambda *arguments, **options: answer)
    with pytest.raises(FetchFailed, match="redirected from https to http"):
        request_url(requests.Session(), "https://127.0.0.1/a", {}, 1.0)


def test_an_unknown_host_is_named_as_the_reason(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_lookup(*arguments: object) -> list[object]:
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", fail_lookup)
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(DataError, match=r"http://nowhere.invalid/x \(unknown host\)"):
        fetch(["http://nowhere.invalid/x"], path)


def test_pauses_double(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    with pytest.raises(DataError, match=r"\(HTTP 503\)"):
        fetch([server.add("/a", status(503))], path, SETTINGS.model_copy(update={"retries": 3, "backoff_s": 0.5}))
    assert pauses == [0.5, 1.0, 2.0]
    assert len(server.ranges("/a")) == 4


def test_a_busy_server_is_retried(server: Server, path: Path) -> None:
    assert fetch([server.add("/a", busy(2, plain(BODY)))], path) == BODY
    assert fetch([server.add("/b", busy(2, plain(BODY), code=429))], path.with_name("b.bin")) == BODY
    assert len(server.ranges("/a")) == len(server.ranges("/b")) == 3


def open_and_request(url: str, pauses: list[float], *, retry_unanswered: bool) -> int:
    """Request an address with two retries, and return the status; `pauses` collects the pauses."""
    with open_session(2, 0.5, pauses.append, retry_unanswered=retry_unanswered) as session:
        return request_url(session, url, {}, 0.1).status_code


def test_retry_after_is_not_followed(server: Server) -> None:
    pauses: list[float] = []

    def wait_an_hour(handler: Handler) -> None:
        handler.head(503, Content_Length=0, Retry_After=3600)

    url = server.add("/a", in_turn([wait_an_hour, plain(BODY)]))
    assert open_and_request(url, pauses, retry_unanswered=False) == 200
    assert pauses == [0.5]


def test_a_request_that_is_not_answered_is_repeated_only_on_demand(server: Server) -> None:
    pauses: list[float] = []
    url = server.add("/a", in_turn([silent(), silent(), plain(BODY)]))
    assert open_and_request(url, pauses, retry_unanswered=True) == 200
    assert pauses == [0.5, 1.0]
    with pytest.raises(FetchFailed, match="no answer in time") as caught:
        open_and_request(server.add("/b", silent()), pauses, retry_unanswered=False)
    assert caught.value.again == "later"
    assert len(server.ranges("/b")) == 1


def test_busy_and_silent_answers_share_the_retries_of_a_request(server: Server) -> None:
    url = server.add("/a", in_turn([silent(), status(503), silent(), plain(BODY)]))
    with pytest.raises(FetchFailed, match="no answer in time"):
        open_and_request(url, [], retry_unanswered=True)
    assert len(server.ranges("/a")) == 3


def test_only_failed_transfers_are_repeated() -> None:
    pauses: list[float] = []
    failures: list[FetchFailed] = [TransferFailed("connection broke", "soon"), FetchFailed("HTTP 404", "never")]

    def attempt() -> None:
        raise failures.pop(0)

    with pytest.raises(FetchFailed, match="HTTP 404"):
        repeat_transfer(attempt, 5, 0.5, pauses.append, after=["soon"])
    assert pauses == [0.5]
