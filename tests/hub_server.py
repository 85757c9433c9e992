"""A small server on this machine that speaks the part of the Hugging Face hub's API that `huggingface_hub` uses.

Repositories are held in memory. Files ending in .safetensors or .npy are large files (LFS), all others are part of the
commit, as on the hub. The real client talks to it through HF_ENDPOINT; Xet, which is another protocol, is turned off.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

OWNER, READER = "hf_owner", "hf_reader"  # tokens: of ada, who may write to ada/..., and of bob, who may write nothing
_NAMES = {OWNER: "ada", READER: "bob"}
_LARGE = (".safetensors", ".npy")


@dataclass
class Repository:
    """A repository: who may read it, and the files of each commit, the oldest first."""

    private: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes]) -> str:
        sha = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits.append((sha, dict(files)))
        return sha

    def find(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        wanted = self.tags.get(revision, revision)
        if wanted == "main":
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == wanted), None)


@dataclass
class Hub:
    """The content of the server, and the requests that it got.

    Attributes:
        repositories: kind and id -> repository.
        uploads: SHA-256 -> content of a large file.
        requests: method and path of each request.
        fault: status of every answer to a commit, if that is not to succeed.
    """

    endpoint: str = ""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    fault: int | None = None

    def add(self, repository: str, files: Mapping[str, bytes], kind: str = "models") -> Repository:
        added = self.repositories.setdefault((kind, repository), Repository())
        added.commit(files)
        return added

    def read(self, repository: str, kind: str = "models") -> dict[str, bytes]:
        return self.repositories[(kind, repository)].commits[-1][1]


class _Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    """Answers requests; the subclass of a server has its `hub`."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or self._read_chunks()
        try:
            _ = self.user  # an unknown token is refused everywhere
            for pattern, method, action in _ROUTES:
                match = re.fullmatch(pattern, path)
                if match is not None and self.command in method:
                    action(self, body, **match.groupdict())
                    return
            raise _Refusal(404, "EntryNotFound", f"no such page: {path}")
        except _Refusal as refusal:
            headers = {"X-Error-Message": refusal.message} | ({"X-Error-Code": refusal.code} if refusal.code else {})
            self._send(json.dumps({"error": refusal.message}).encode(), refusal.status, headers)

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def _read_chunks(self) -> bytes:
        parts = []
        while self.headers.get("Transfer-Encoding") == "chunked" and (size := int(self.rfile.readline(), 16)):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        return b"".join(parts)

    def _send(self, content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | dict(headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_json(self, content: Any) -> None:
        self._send(json.dumps(content).encode(), headers={"Content-Type": "application/json"})

    @property
    def user(self) -> str | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in _NAMES:
            raise _Refusal(401, None, "Invalid credentials in Authorization header")
        return _NAMES.get(token)

    def _find(self, kind: str, repository: str) -> Repository:
        found = self.hub.repositories.get((kind or "models", repository))
        if found is None or (found.private and self.user != repository.partition("/")[0]):
            raise _Refusal(404 if self.user else 401, "RepoNotFound", "Repository not found")
        return found

    def _find_files(self, kind: str, repository: str, revision: str) -> tuple[str, dict[str, bytes]]:
        commit = self._find(kind, repository).find(revision)
        if commit is None:
            raise _Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _refuse_writing(self, owner: str) -> None:
        if self.user != owner:
            raise _Refusal(403, None, f"You don't have the rights to write to {owner}")

    def who(self, body: bytes) -> None:
        if self.user is None:
            raise _Refusal(401, None, "Invalid username or password.")
        self._send_json({"type": "user", "name": self.user, "orgs": []})

    def validate(self, body: bytes) -> None:
        content = json.loads(body)["content"]
        values = yaml.safe_load(content.split("---")[1])
        wrong = not isinstance(values, dict) or values.get("license") == "my-own"
        answer = {
            "errors": [{"message": '"license" must be one of [apache-2.0, ...]'}] if wrong else [],
            "warnings": [],
        }
        self._send(json.dumps(answer).encode(), 400 if wrong else 200, {"Content-Type": "application/json"})

    def create(self, body: bytes) -> None:
        wanted = json.loads(body)
        owner = wanted["organization"] or self.user
        self._refuse_writing(owner)
        kind, name = f"{wanted.get('type') or 'model'}s", f"{owner}/{wanted['name']}"
        repository = self.hub.repositories.setdefault((kind, name), Repository())
        repository.private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        if not repository.commits:
            repository.commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        self._send_json({"url": f"{self.hub.endpoint}/{name}", "id": name})

    def describe(self, body: bytes, kind: str, repository: str, revision: str | None = None) -> None:
        sha, files = self._find_files(kind, repository, revision or "main")
        private = self.hub.repositories[(kind, repository)].private
        siblings = [{"rfilename": name} for name in files]
        self._send_json(
            {"_id": "1", "id": repository, "sha": sha, "private": private, "siblings": siblings, "tags": []}
        )

    def tree(self, body: bytes, kind: str, repository: str, revision: str) -> None:
        _, files = self._find_files(kind, repository, revision)
        self._send_json([_describe_file(name, content) for name, content in sorted(files.items())])

    def preupload(self, body: bytes, kind: str, repository: str, revision: str) -> None:
        self._refuse_writing(repository.partition("/")[0])
        _, files = self._find_files(kind, repository, revision)
        answer = []
        for file in json.loads(body)["files"]:
            name = file["path"]
            oid = _describe_file(name, files[name])["oid"] if name in files else None
            mode = "lfs" if name.endswith(_LARGE) else "regular"
            answer.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send_json({"files": answer})

    def batch(self, body: bytes, kind: str | None, repository: str) -> None:
        objects = []
        for item in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.endpoint}/upload/{item['oid']}"}}
            objects.append({**item, **({} if item["oid"] in self.hub.uploads else {"actions": upload})})
        self._send(
            json.dumps({"transfer": "basic", "objects": objects}).encode(),
            headers={"Content-Type": "application/vnd.git-lfs+json"},
        )

    def upload(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.uploads[oid] = body
        self._send(b"")

    def commit(self, body: bytes, kind: str, repository: str, revision: str) -> None:
        if self.hub.fault is not None:
            raise _Refusal(self.hub.fault, None, "the hub is out of order")
        self._refuse_writing(repository.partition("/")[0])
        files = dict(self._find(kind, repository).commits[-1][1])
        for line in body.splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        sha = self.hub.repositories[(kind, repository)].commit(files)
        self._send_json(
            {"success": True, "commitOid": sha, "commitUrl": f"{self.hub.endpoint}/{repository}/commit/{sha}"}
        )

    def resolve(self, body: bytes, kind: str | None, repository: str, revision: str, file: str) -> None:
        sha, files = self._find_files(kind or "models", repository, revision)
        if file not in files:
            raise _Refusal(404, "EntryNotFound", f"{file} does not exist")
        oid = _describe_file(file, files[file])["oid"]
        self._send(files[file], headers={"X-Repo-Commit": sha, "ETag": f'"{oid}"', "Accept-Ranges": "bytes"})


def _describe_file(name: str, content: bytes) -> dict[str, Any]:
    """Describe a file as the hub lists it: its id is its SHA-256 if it is large, else that of git."""
    git = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    described: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": git}
    if name.endswith(_LARGE):
        sha256 = hashlib.sha256(content).hexdigest()
        described |= {"oid": sha256, "lfs": {"oid": sha256, "size": len(content), "pointerSize": 130}}
    return described


_REPOSITORY = r"(?P<repository>[^/]+/[^/]+)"
_API = rf"/api/(?P<kind>models|datasets)/{_REPOSITORY}"
_ROUTES = (
    ("/api/whoami-v2", ("GET",), _Handler.who),
    ("/api/validate-yaml", ("POST",), _Handler.validate),
    ("/api/repos/create", ("POST",), _Handler.create),
    (_API, ("GET",), _Handler.describe),
    (rf"{_API}/revision/(?P<revision>.+)", ("GET",), _Handler.describe),
    (rf"{_API}/tree/(?P<revision>[^/]+)", ("GET",), _Handler.tree),
    (rf"{_API}/preupload/(?P<revision>.+)", ("POST",), _Handler.preupload),
    (rf"{_API}/commit/(?P<revision>.+)", ("POST",), _Handler.commit),
    (rf"/(?:(?P<kind>datasets)/)?{_REPOSITORY}\.git/info/lfs/objects/batch", ("POST",), _Handler.batch),
    (r"/upload/(?P<oid>[0-9a-f]{64})", ("PUT",), _Handler.upload),
    (
        rf"/(?:(?P<kind>datasets)/)?{_REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<file>.+)",
        ("GET", "HEAD"),
        _Handler.resolve,
    ),
)


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Yield a hub that answers at `endpoint` while the block runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
