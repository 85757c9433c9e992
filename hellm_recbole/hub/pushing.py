"""Push a finished run or a prepared dataset: collect the files, write the card, and upload them in one commit."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hellm_recbole.errors import HubError
from hellm_recbole.experiments.results import RunResult
from hellm_recbole.hub.client import CARD, Pushed, push_folder
from hellm_recbole.hub.manifest import ADAPTER, MANIFEST, RUNS, TABLES
from hellm_recbole.hub.model_card import CardFacts, format_model_card
from hellm_recbole.hub.names import parse_repository
from hellm_recbole.hub.repository import RunFiles, list_sizes, write_repository
from hellm_recbole.system.files import create_scratch_folder, write_text

_REPLACED = (f"{RUNS}/*", f"{TABLES}/*", f"{ADAPTER}/*")


@dataclass(frozen=True)
class PushOptions:
    """How something is pushed.

    Attributes:
        repository: id of the repository, ORG/NAME.
        private: whether a new repository is private.
        licence: licence for the card; None takes the usual one.
        data: id of the run's dataset on the hub, for the card; None leaves it out.
        dry_run: whether only the files and the card are shown.
        fresh: whether something else in the repository is replaced.
    """

    repository: str
    private: bool = False
    licence: str | None = None
    data: str | None = None
    dry_run: bool = False
    fresh: bool = False


@dataclass(frozen=True)
class Prepared:
    """A folder that is ready to be pushed.

    Attributes:
        folder: the folder.
        card: text of its card.
        sizes: file -> size in bytes.
    """

    folder: Path
    card: str
    sizes: dict[str, int]

    @property
    def n_bytes(self) -> int:
        """Size of all files."""
        return sum(self.sizes.values())


@contextmanager
def prepare_run(files: RunFiles, options: PushOptions) -> Iterator[Prepared]:
    """Yield a temporary folder with all files of the repository of a run, its card included.

    Args:
        files: what is pushed.
        options: licence and name for the card.

    Raises:
        HellmError: a file cannot be read or written, or names a folder of this machine.
    """
    with create_temporary_folder() as folder:
        write_repository(files, folder)
        facts = CardFacts(parse_repository(options.repository), options.licence, options.data, list_sizes(folder))
        card = format_model_card(files.results, facts)
        write_text(folder / CARD, card)
        yield Prepared(folder, card, list_sizes(folder))


@contextmanager
def create_temporary_folder() -> Iterator[Path]:
    """Yield an empty folder among the temporary files of the system.

    Raises:
        OutputError: its content cannot be written.
    """
    with create_scratch_folder(Path(tempfile.gettempdir()), "hellm-push", "TMPDIR") as folder:
        yield folder


def push_prepared_run(prepared: Prepared, result: RunResult, options: PushOptions) -> Pushed:
    """Upload a run.

    Args:
        prepared: its files, from `prepare_run`.
        result: its record.
        options: where it goes.

    Raises:
        HubError: see `client.push_folder`; or the repository holds something else.
    """
    run = f"{RUNS}/{result.dataset}/{result.label}/{result.seed}"

    def check(manifest: str | None, names: Sequence[str]) -> None:
        if not options.fresh:
            refuse_other_run(options.repository, manifest, names, run)

    return push_folder(
        prepared.folder,
        options.repository,
        "model",
        message=f"{result.label} on {result.dataset}, seed {result.seed}",
        private=options.private,
        replaced=_REPLACED,
        check=check,
        manifest=MANIFEST,
    )


def refuse_other_run(repository: str, manifest: str | None, names: Sequence[str], run: str) -> None:
    """Refuse to replace what is in a repository, unless it is empty or holds the same run.

    Args:
        repository: id of the repository.
        manifest: text of its manifest; None if it has none.
        names: names of its files.
        run: folder of the run in the repository.

    Raises:
        HubError: it holds another run, or files of others.
    """
    if not names:
        return
    advice = "push to another repository, or give --fresh to replace it (its history keeps it); nothing was pushed"
    if manifest is None:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise HubError(f"{repository} exists and has files that are not ours ({names[0]}{more}); {advice}")
    try:
        held = json.loads(manifest)["run"]
    except (ValueError, KeyError, TypeError, RecursionError):
        held = "something else"
    if held != run:
        raise HubError(f"{repository} holds another run ({held}); {advice}")
