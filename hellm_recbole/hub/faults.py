"""Describe faults of requests to the Hugging Face hub, each as one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from hellm_recbole.errors import HubError, shorten, strip_controls
from hellm_recbole.hub.names import HubName


@contextmanager
def translate_errors(name: HubName, what: str, after: str = "") -> Iterator[None]:
    """Turn each fault of a request into one sentence.

    Args:
        name: the repository.
        what: what the block does, after "cannot".
        after: what holds after a fault, for the end of the sentence.

    Raises:
        HubError: a request failed.
    """
    transport = find_transport_error()
    try:
        yield
    except HubError:
        raise
    except (transport, OSError, ValueError, RuntimeError) as error:
        advice = describe_fault(error, name)
        raise HubError(f"cannot {what}: {advice}" + (f"; {after}" if after else "")) from error


def describe_fault(error: BaseException, name: HubName) -> str:
    """Describe why a request failed, and what to do."""
    from huggingface_hub import errors

    repository, endpoint = name.repository, get_endpoint()
    cause: BaseException | None = error
    known = (errors.HfHubHTTPError, errors.FileMetadataError, json.JSONDecodeError)
    while cause is not None and not isinstance(cause, known) and not is_connection_fault(cause):
        cause = cause.__cause__
    error = cause or error
    if isinstance(error, errors.FileMetadataError | json.JSONDecodeError):
        return (
            f"{endpoint} does not answer as a hub; check HF_ENDPOINT, and whether the network asks for a login in a "
            "browser"
        )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; unset it"
    if is_connection_fault(error):
        return f"{endpoint} cannot be reached; check the network (and HF_ENDPOINT), and give the same command again"
    if isinstance(error, errors.GatedRepoError):
        return f"its owner asks for a permission; ask for it at {endpoint}/{repository}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repository} has no revision {name.revision!r}; name a branch, a tag or a commit of it"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{endpoint} has no {repository}, or it is private and you may not read it; check the name, or log in with "
            "`hf auth login`"
        )
    if isinstance(error, errors.HfHubHTTPError):
        return _describe_refusal(error, repository)
    return take_text(error)


def _describe_refusal(error: Any, repository: str) -> str:
    """Describe an answer of the hub that is an error, by its status."""
    status = error.response.status_code
    said = take_text(error.server_message or error)
    if status == 401:
        return "the hub does not know your token; log in again with `hf auth login`, or set HF_TOKEN to a valid one"
    if status == 403:
        return (
            f"your token has no right to write to {repository}, or the hub refuses it ({said}); use a token that may "
            "write there, or name a repository of your own"
        )
    if status in (409, 412):
        return f"{repository} was changed at the same time ({said}); give the same command again"
    if status == 429 or status >= 500:
        return f"the hub answers {status} ({said}); give the same command again later"
    return f"the hub answers {status} ({said})"


def is_connection_fault(error: BaseException) -> bool:
    """Return whether a request got no answer."""
    from huggingface_hub import errors

    is_transport = isinstance(error, find_transport_error()) and not isinstance(error, errors.HfHubHTTPError)
    return is_transport or isinstance(error, ConnectionError | TimeoutError)


def find_transport_error() -> type[Exception]:
    """Return the `HTTPError` of the HTTP library of `huggingface_hub`, which is another one in each major release."""
    from huggingface_hub.errors import HfHubHTTPError

    found: Any = HfHubHTTPError.__mro__[1]
    return cast(type[Exception], found)


def get_endpoint() -> str:
    """Return the address of the hub."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def take_text(error: object) -> str:
    """Return the message of an error as one short line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shorten(strip_controls(" ".join(lines)) or type(error).__name__)
