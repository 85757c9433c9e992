"""Leases in a storage: two commands do not work on the same run, on whatever machines they are.

A storage has no locks. A command writes a small file for each of its runs and renews it; a lease that was not renewed
for a while belongs to a command that was killed. Times are those of the storage, so the clocks of machines may differ.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import threading
import time
from contextlib import suppress

from hellm_recbole.system.storage import Storage, StorageError

EXPIRES_S = 240.0  # longer than a network may break, see `storage.PATIENCE_S`
RENEW_S = 20.0
_POLL_S = 5.0


class Leases:
    """The leases of this command. They are renewed until they are released, or the block ends.

    Args:
        storage: the storage.
        expires_s: after how long a lease that is not renewed counts no more.
        renew_s: how often leases are renewed.
    """

    def __init__(self, storage: Storage, expires_s: float = EXPIRES_S, renew_s: float = RENEW_S) -> None:
        self._storage, self._expires_s, self._renew_s = storage, expires_s, renew_s
        holder = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S %Z")}
        self._name, self._content = f"{os.getpid()}-{secrets.token_hex(8)}", json.dumps(holder).encode()
        self._held: set[str] = set()
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Leases:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(self._renew_s)
        for path in tuple(self._held):
            with suppress(StorageError):  # it expires
                self.release(path)

    def acquire(self, path: str, what: str) -> None:
        """Take the lease of a path; wait until one that is not renewed has expired.

        Args:
            path: path of a folder in the storage.
            what: name of the work, for messages.

        Raises:
            StorageError: another command has the lease, and renews it.
        """
        if path in self._held:
            return
        self._write(path)
        seen: dict[str, float] = {}
        while others := self._list_others(path):
            if not seen:
                seen = others
                print(
                    f"{what}: {self._describe(path, others)} may work on it; waiting to see whether it does", flush=True
                )
            elif any(renewed > seen.get(name, 0.0) for name, renewed in others.items()):
                self._storage.remove(self._locate(path))
                raise StorageError(
                    f"{what} is in use in {self._storage.uri} by {self._describe(path, others)}; wait until it ends, "
                    "or stop it"
                )
            time.sleep(min(_POLL_S, self._renew_s))
            self._write(path)
        with self._lock:
            self._held.add(path)

    def release(self, path: str) -> None:
        """Give a lease back; do nothing if it is not held.

        Raises:
            StorageError: it cannot be removed.
        """
        with self._lock:
            if path not in self._held:
                return
            self._held.remove(path)
        self._storage.remove(self._locate(path))

    def _locate(self, path: str, name: str | None = None) -> str:
        return f"{path}/lease/{name or self._name}"

    def _write(self, path: str) -> None:
        self._storage.write(self._locate(path), self._content)

    def _list_others(self, path: str) -> dict[str, float]:
        """List the leases of other commands that have not expired: name -> when it was renewed. Remove expired ones."""
        found = {name: at for name, at in self._storage.list_files(f"{path}/lease").items() if ".tmp-" not in name}
        now = found.pop(self._name, max(found.values(), default=0.0))
        others = {name: at for name, at in found.items() if now - at <= self._expires_s}
        for name in found.keys() - others.keys():
            self._storage.remove(self._locate(path, name))
        return others

    def _describe(self, path: str, others: dict[str, float]) -> str:
        """Describe the command that holds a lease."""
        content = self._storage.read(self._locate(path, next(iter(others))))
        try:
            holder = json.loads(content or b"")
            return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        except (ValueError, KeyError, TypeError):
            return "another command"

    def _renew(self) -> None:
        """Renew all leases until the block ends. One that cannot be renewed is tried again the next time."""
        while not self._ended.wait(self._renew_s):
            with self._lock:
                paths = tuple(self._held)
            for path in paths:
                with suppress(StorageError):
                    self._write(path)
                    if path not in self._held:  # it was released meanwhile
                        self._storage.remove(self._locate(path))
