"""`--storage` with a real S3 server: rights, buckets, credentials, and a network that breaks for a minute."""

from __future__ import annotations

import re
import select
import socket
import socketserver
import threading
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

import pytest

from hellm_recbole.experiments.stored_runs import read_state
from hellm_recbole.system.storage import Storage, StorageError, open_storage
from hellm_recbole.system.stored_folder import StoredFolder
from tests.benchmarks.run_toy import command, fail_with_sentence
from tests.s3_server import KEYS, S3Server, start_s3_server

pytestmark = pytest.mark.slow
POLICY = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"}, '
    '{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}'
)


def test_a_run_is_kept_in_a_bucket_and_found_by_another_machine(
    workplace: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--models", "LightGCN", "--jobs", "1", "--storage", server.make_uri("tests")) == 0
    (workplace / "b").mkdir()
    monkeypatch.chdir(workplace / "b")
    capsys.readouterr()
    assert command("--models", "LightGCN", "--jobs", "1", "--storage", server.make_uri("tests")) == 0
    assert "finished before, kept" in capsys.readouterr().out
    name = Path("results/toy/LightGCN/2024/record.json")
    assert name.read_bytes() == (workplace / name).read_bytes()


def test_a_bucket_that_does_not_exist_is_refused_before_anything_is_read(
    workplace: Path, server: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = server.make_uri("other")
    assert "there is no such bucket; make it" in fail_with_sentence(capsys, "--models", "Pop", "--storage", uri)
    assert not (workplace / "results").exists()


def ask_iam(server: S3Server, **values: str) -> str:
    """Call the server's user administration while it asks for no signature."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/",
        data=urlencode({"Version": "2010-05-08", **values}).encode(),
        headers={"Authorization": "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/iam/aws4_request, Signature=x"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


def test_keys_that_are_not_known_and_rights_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with start_s3_server({"INITIAL_NO_AUTH_ACTION_COUNT": "4"}) as server:  # the first is that of the bucket
        ask_iam(server, Action="CreateUser", UserName="reader")
        made = ask_iam(server, Action="CreateAccessKey", UserName="reader")
        ask_iam(server, Action="PutUserPolicy", UserName="reader", PolicyName="reads", PolicyDocument=POLICY)
        with pytest.raises(StorageError, match="the credentials of this machine are not accepted"):
            open_storage(server.make_uri("tests"))
        for name, tag in (("AWS_ACCESS_KEY_ID", "AccessKeyId"), ("AWS_SECRET_ACCESS_KEY", "SecretAccessKey")):
            found = re.search(f"<{tag}>(.+?)</{tag}>", made)
            assert found is not None, made
            monkeypatch.setenv(name, found[1])
        with pytest.raises(StorageError, match="access is denied; the credentials of this machine need the rights"):
            open_storage(server.make_uri("tests"))


class Network(socketserver.ThreadingTCPServer):
    """The way to a server, which can break: connections are then closed without an answer."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.server_port, self.breaks_until = port, 0.0
        self.n_broken = 0


class Connection(socketserver.BaseRequestHandler):
    """A connection through the `Network`."""

    server: Network

    def handle(self) -> None:
        if time.monotonic() < self.server.breaks_until:
            self.server.n_broken += 1
            return
        with socket.create_connection(("127.0.0.1", self.server.server_port)) as there:
            ends = {self.request: there, there: self.request}
            while True:
                for one in select.select([*ends], [], [], 60)[0]:
                    content = one.recv(1 << 16)
                    if not content or time.monotonic() < self.server.breaks_until:
                        return
                    ends[one].sendall(content)


def test_a_network_that_breaks_for_a_minute_ends_no_run(
    workplace: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    upload = Storage.upload
    with Network(server.port) as network:
        threading.Thread(target=network.serve_forever, daemon=True).start()

        def break_once(storage: Storage, local: Path, path: str) -> None:
            if path.startswith("runs/") and not network.breaks_until:
                network.breaks_until = time.monotonic() + 60
            upload(storage, local, path)

        monkeypatch.setattr(Storage, "upload", break_once)
        uri = S3Server(network.server_address[1], server.process).make_uri("tests")
        assert command("--models", "LightGCN", "--jobs", "1", "--storage", uri) == 0
        network.shutdown()
    assert network.n_broken > 2
    assert "does not answer" in capsys.readouterr().err
    stored = StoredFolder(Storage(server.make_uri("tests")), "runs/toy/LightGCN/2024")
    assert stored.pull(workplace / "b") is not None
    assert read_state(workplace / "b") == {"finished": True, "epoch": 3}
