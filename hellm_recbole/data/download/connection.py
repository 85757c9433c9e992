"""Send requests and read responses; failures have a short reason and say whether a further attempt may succeed.

urllib3's Retry repeats requests. It cannot continue a broken body, so transfers are repeated and resumed by own code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.exceptions import ConnectionError, RequestException, SSLError, Timeout
from urllib3.exceptions import NameResolutionError, ReadTimeoutError
from urllib3.util import Retry

T = TypeVar("T")
# When to retry. soon: the server is busy; later: it does not answer; never: a retry is useless.
Again = Literal["soon", "later", "never"]

BLOCK_BYTES = 1 << 18  # size of one read
_MAX_REDIRECTS = 10  # ends a loop of redirects; browsers allow 20
_TEMPORARY = {408, 425, 429, *range(500, 600)}  # after these statuses, a retry may succeed


class FetchFailed(Exception):
    """Error of one attempt to download from one address.

    Attributes:
        again: when a further attempt may succeed.
    """

    def __init__(self, reason: str, again: Again) -> None:
        super().__init__(reason)
        self.again = again


class TransferFailed(FetchFailed):
    """Error after the response has begun: its body broke off, or its content is faulty."""


class RequestRetry(Retry):
    """Retry of urllib3 that pauses before the first retry, too, and whose pauses can be interrupted."""

    def __init__(self, *arguments: Any, pause: Callable[[float], object] = time.sleep, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.pause = pause

    def new(self, **changes: Any) -> Self:
        """Return a copy with other values; urllib3 makes one for each retry."""
        return super().new(**changes, pause=self.pause)

    def get_backoff_time(self) -> float:
        """Return the next pause in seconds; each pause is twice as long as the one before."""
        return float(self.backoff_factor * 2 ** (len(self.history) - 1))

    def sleep(self, response: object = None) -> None:
        """Wait before the next request."""
        self.pause(self.get_backoff_time())


def open_session(
    retries: int, backoff_s: float, pause: Callable[[float], object], *, retry_unanswered: bool
) -> requests.Session:
    """Open a session that repeats a request after a temporary status, and perhaps if the server does not answer.

    Only requests are repeated here, not transfers: urllib3 sends the same request again, from its start, and sees no
    broken body of a response that is streamed. `repeat_transfer` does that.

    Args:
        retries: number of retries of each request.
        backoff_s: pause before the first retry, in seconds; each further pause is twice as long.
        pause: function that waits for a number of seconds.
        retry_unanswered: whether to repeat a request if the server does not answer.
    """
    without_answer = retries if retry_unanswered else 0
    policy = RequestRetry(
        retries,
        connect=without_answer,
        read=without_answer,
        other=without_answer,
        status_forcelist=_TEMPORARY,
        backoff_factor=backoff_s,
        raise_on_status=False,
        respect_retry_after_header=False,  # a server could stop the program for hours with it
        pause=pause,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=policy))
    return session


def request_url(
    session: requests.Session,
    url: str,
    headers: Mapping[str, str],
    timeout_s: float,
    method: Literal["GET", "HEAD"] = "GET",
) -> requests.Response:
    """Send a request and return the response, whose body is not read yet.

    Redirects are followed, except from https to http.

    Args:
        session: session of the client.
        url: address.
        headers: further request headers.
        timeout_s: longest time without a received byte, in seconds.
        method: HEAD asks for the headers alone.

    Raises:
        FetchFailed: the address is not http or https, the server does not answer, or the status is not 200. The
            statuses 206 and 416 are also valid if the request has a Range header.
    """
    # No compression: ranges and sizes then refer to the file itself, and a .gz file arrives unchanged.
    headers = {"Accept-Encoding": "identity", **headers}
    for _ in range(_MAX_REDIRECTS + 1):
        try:
            if urlsplit(url).scheme not in ("http", "https"):
                raise FetchFailed("not an http or https address", "never")
            response = session.request(
                method, url, headers=headers, timeout=timeout_s, stream=True, allow_redirects=False
            )
            target = session.get_redirect_target(response)
            if target is None:
                break
            response.close()
            target = urljoin(url, target)
            if urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http":
                raise FetchFailed("redirected from https to http", "never")
            url = target
        except (RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            raise _convert_error(error) from error
    else:
        raise FetchFailed("too many redirects", "never")
    status = response.status_code
    if status != 200 and not ("Range" in headers and status in (206, 416)):
        response.close()
        raise FetchFailed(f"HTTP {status}", "soon" if status in _TEMPORARY else "never")
    return response


def read_blocks(response: requests.Response) -> Iterator[bytes]:
    """Yield the body of a response as it was sent, in blocks, each as soon as it arrives.

    Raises:
        TransferFailed: the connection breaks before the end, or sends nothing for too long.
    """
    try:
        while block := response.raw.read1(BLOCK_BYTES, decode_content=False):
            yield block
    except ReadTimeoutError as error:
        raise TransferFailed("no answer in time", "later") from error
    except urllib3.exceptions.HTTPError as error:
        raise TransferFailed("connection broke", "soon") from error


def read_content_length(response: requests.Response) -> int | None:
    """Return the size of a response's body in bytes; None if the server does not send it."""
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def repeat_transfer(
    attempt: Callable[[], T],
    retries: int,
    backoff_s: float,
    pause: Callable[[float], object],
    *,
    after: Collection[Again],
) -> T:
    """Call `attempt` and return its result; if a transfer fails in it, call it again with growing pauses.

    Args:
        attempt: function to call; its requests are repeated by their session.
        retries: number of further calls.
        backoff_s: pause before the first further call, in seconds; each further pause is twice as long.
        pause: function that waits for a number of seconds.
        after: kinds of failures after which it is called again.

    Raises:
        FetchFailed: the failure of the last attempt.
    """
    n_retries = 0
    while True:
        try:
            return attempt()
        except TransferFailed as failure:
            if failure.again not in after or n_retries == retries:
                raise
        pause(backoff_s * 2**n_retries)
        n_retries += 1


def _convert_error(error: Exception) -> FetchFailed:
    """Convert the exception of a library into a failure with a short reason."""
    match error:
        case Timeout():
            return FetchFailed("no answer in time", "later")
        case SSLError():
            return FetchFailed("no trusted connection", "later")
        case ConnectionError():
            cause = getattr(error.args[0], "reason", None) if error.args else None
            reasons = {NameResolutionError: "unknown host", ReadTimeoutError: "no answer in time"}
            return FetchFailed(reasons.get(type(cause), "no connection"), "later")
        case ValueError():  # requests raises it for a malformed address
            return FetchFailed("not an http or https address", "never")
        case _:
            return FetchFailed(type(error).__name__, "later")
