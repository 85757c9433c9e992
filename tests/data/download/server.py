"""A web server on 127.0.0.1 with routes that fail on purpose; it records the requests."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

Route = Callable[["Handler"], None]


@dataclass(frozen=True)
class Asked:
    """One request; `range` and `if_range` are its headers."""

    path: str
    range: str | None
    if_range: str | None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(Asked(self.path, self.headers["Range"], self.headers["If-Range"]))
        try:
            self.server.routes.get(self.path, status(404))(self)
        except ConnectionError:
            self.close_connection = True  # the client was killed or has read enough

    def do_HEAD(self) -> None:
        """Answer with the size of the path, if the server has one in `sizes`; these requests are not recorded."""
        size = self.server.sizes.get(self.path)
        if size is None:
            self.head(404, Content_Length=0)
        else:
            self.head(200, Content_Length=size)

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""

    def head(self, code: int, **headers: str | int) -> None:
        """Send status and headers; `Content_Length` stands for `Content-Length`."""
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def read_range_start(self, etag: str) -> int:
        """Return the first byte that the client asks for; 0 if it wants all or knows another version of the file."""
        wanted = self.headers["Range"]
        if wanted is None or self.headers["If-Range"] not in (None, etag):
            return 0
        return int(wanted.removeprefix("bytes=").removesuffix("-"))

    def begin(self, body: bytes, etag: str) -> bytes:
        """Send the headers of a correct response, and return the part of the body that must follow."""
        start = self.read_range_start(etag)
        rest = body[start:]
        if start:
            content_range = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self.head(206, Content_Length=len(rest), Content_Range=content_range, ETag=etag)
        else:
            self.head(200, Content_Length=len(rest), ETag=etag)
        return rest

    def close_after_body(self) -> None:
        self.wfile.flush()
        self.close_connection = True


class Server(ThreadingHTTPServer):
    """Use as `with Server() as server`; a path without a route is 404."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.routes: dict[str, Route] = {}
        self.asked: list[Asked] = []
        self.sizes: dict[str, int] = {}  # path -> size that HEAD requests are told
        self.released = threading.Event()  # lets `silent` routes end

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *arguments: object) -> None:
        """Ignore a client that has closed its connection."""

    def add(self, path: str, route: Route) -> str:
        """Serve `path` by a route, and return its address."""
        self.routes[path] = route
        return self.url(path)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def ranges(self, path: str) -> list[str | None]:
        """Return the Range header of each request for `path`, in order."""
        return [asked.range for asked in self.asked if asked.path == path]


def etag_of(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:8]}"'


def plain(body: bytes, **headers: str) -> Route:
    """A correct route with ranges and an ETag; if `headers` are given, it sends these, no ETag, and has no ranges."""

    def route(handler: Handler) -> None:
        if headers:
            handler.head(200, Content_Length=len(body), **headers)
            handler.wfile.write(body)
        else:
            handler.wfile.write(handler.begin(body, etag_of(body)))

    return route


def breaking(body: bytes, times: int, *, ranges: bool = True) -> Route:
    """A route that closes the connection half-way `times` times, then works; without `ranges` it always sends all."""
    left = [times]

    def route(handler: Handler) -> None:
        if ranges:
            rest = handler.begin(body, etag_of(body))
        else:
            handler.head(200, Content_Length=len(body), ETag=etag_of(body))
            rest = body
        if left[0]:
            left[0] -= 1
            rest = rest[: len(rest) // 2]
            handler.close_after_body()
        handler.wfile.write(rest)

    return route


def status(code: int) -> Route:
    return lambda handler: handler.head(code, Content_Length=0)


def busy(times: int, then: Route, code: int = 503) -> Route:
    """A route that answers `code`, `times` times, and then as the route `then`."""
    return in_turn([*[status(code)] * times, then])


def in_turn(routes: Sequence[Route]) -> Route:
    """A different route for each request; the last one serves all further requests."""
    left = list(routes)
    return lambda handler: (left.pop(0) if len(left) > 1 else left[0])(handler)


def redirect(target: str) -> Route:
    return lambda handler: handler.head(302, Location=target, Content_Length=0)


def short(body: bytes, declared: int, **headers: str) -> Route:
    """A route that declares more bytes than it sends, and closes the connection."""

    def route(handler: Handler) -> None:
        handler.head(200, Content_Length=declared, **headers)
        handler.wfile.write(body)
        handler.close_after_body()

    return route


def unsized(body: bytes) -> Route:
    """A route that declares no length: the end of the connection is the end of the file."""

    def route(handler: Handler) -> None:
        handler.head(200, Connection="close")
        handler.wfile.write(body)
        handler.close_after_body()

    return route


def slow(body: bytes, block_bytes: int, pause_s: float) -> Route:
    """A correct route that sends slowly."""

    def route(handler: Handler) -> None:
        rest = handler.begin(body, etag_of(body))
        for start in range(0, len(rest), block_bytes):
            handler.wfile.write(rest[start : start + block_bytes])
            handler.wfile.flush()
            time.sleep(pause_s)

    return route


def changing(old: bytes, new: bytes, *, honest: bool) -> Route:
    """A route that closes the connection half-way through `old`; then the file is `new`.

    If it is not honest, it sends the rest of the new file although If-Range names the old one.
    """

    def changed(handler: Handler) -> None:
        if honest or handler.headers["Range"] is None:
            return plain(new)(handler)
        start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        content_range = f"bytes {start}-{len(new) - 1}/{len(new)}"
        handler.head(206, Content_Length=len(new) - start, Content_Range=content_range, ETag=etag_of(new))
        handler.wfile.write(new[start:])

    return in_turn([breaking(old, 1), changed])


def silent(body: bytes = b"", declared: int = 0) -> Route:
    """A route that sends nothing, or `body` and then nothing, until the server ends."""

    def route(handler: Handler) -> None:
        if declared:
            handler.head(200, Content_Length=declared)
            handler.wfile.write(body)
            handler.wfile.flush()
        handler.server.released.wait()
        handler.close_connection = True

    return route
