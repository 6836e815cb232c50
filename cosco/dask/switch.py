"""Which clients of this process shuffle through Cosco, and what is changed here for them."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import dask
from distributed import Client

from cosco import Connection, CoscoError, EngineUnavailable, InvalidArgument
from cosco.dask.dask_expression import lowered
from cosco.dask.dask_tasks import Settings
from cosco.dask.private_parts_of_dask import Patches, check, current_client, on_close, register
from cosco.dask.shuffle_plugin import ShufflePlugin

METHOD: Final = "cosco"
CONFIG: Final = "dataframe.shuffle.method"
_ADDRESS: Final = "COSCO_METADATA"
#: What must be the same wherever tasks are made, scheduled and run.
_PACKAGES: Final = ("cosco", "dask", "distributed")
_MISSING: Final = object()


@dataclass(slots=True)
class _User:
    """A client that shuffles through Cosco, or that was to and could not."""

    settings: Settings
    is_default: bool
    take_back: Callable[[], None]
    failure: CoscoError | None = None


class Switch:
    """The clients of this process that shuffle through Cosco, and what was there before them."""

    def __init__(self) -> None:
        """Begin without clients, and with nothing changed."""
        self._lock = threading.RLock()
        self._users: weakref.WeakKeyDictionary[Client, _User] = weakref.WeakKeyDictionary()
        self._patches = Patches(self._lower, lambda: self._current() is not None)
        self._method_before: Any = _MISSING
        self._stands_by = False

    def stand_by(self) -> None:
        """Have Dask do as it would by itself where the configured method is ours, and no client is.

        Does nothing where another method is configured, or where Dask is of a version that nobody
        has tried: `turn_on` says so.
        """
        if dask.config.get(CONFIG, None) != METHOD:
            return
        try:
            check()
        except EngineUnavailable:
            return
        with self._lock:
            self._stands_by = True
            self._patches.put_in()

    async def turn_on(
        self, client: Client, metadata: Any, *, replicas: int, is_default: bool
    ) -> None:
        """Have a client's shuffles go through Cosco.

        Raises: EngineUnavailable for versions that differ or were not tried, InvalidArgument.
        """
        check()
        settings = new_settings(metadata, replicas)
        check_same_versions(await client._get_versions(packages=[*_PACKAGES]))
        await register(client, ShufflePlugin())
        await client.scheduler.cosco_use(client=client.id)
        self._add(client, settings, is_default=is_default)

    async def turn_off(self, client: Client) -> None:
        """Give a client back what it had. Harmless when it is off."""
        if self._remove(client) and client.status == "running":
            await client.scheduler.cosco_leave(client=client.id)

    def refuse(self, client: Client, failure: CoscoError) -> None:
        """Have each shuffle of a client fail that was to go through Cosco and cannot."""
        settings = Settings(None, 1)
        self._add(client, settings, is_default=False, failure=failure)

    def _add(
        self,
        client: Client,
        settings: Settings,
        *,
        is_default: bool,
        failure: CoscoError | None = None,
    ) -> None:
        with self._lock:
            user = self._users.get(client)
            if user is None:
                gone = weakref.ref(client)
                take_back = on_close(client, lambda: self._forget(gone))
                user = self._users[client] = _User(settings, is_default, take_back)
            user.settings, user.is_default, user.failure = settings, is_default, failure
            self._patches.put_in()
            self._set_default()

    def _forget(self, gone: weakref.ref[Client]) -> None:
        client = gone()
        if client is not None:
            self._remove(client)

    def _remove(self, client: Client) -> bool:
        with self._lock:
            user = self._users.pop(client, None)
            if user is None:
                return False
            user.take_back()
            self._set_default()
            if not self._users and not self._stands_by:
                self._patches.take_out()
            return True

    def _set_default(self) -> None:
        """Make Cosco the method of this process, or no longer, as its clients want it."""
        wanted = any(user.is_default for user in self._users.values())
        if wanted and self._method_before is _MISSING:
            self._method_before = dask.config.get(CONFIG, None)
            dask.config.set({CONFIG: METHOD})
        elif not wanted and self._method_before is not _MISSING:
            if dask.config.get(CONFIG, None) == METHOD:  # nobody has set another one since
                dask.config.set({CONFIG: self._method_before})
            self._method_before = _MISSING

    def _current(self) -> _User | None:
        client = current_client()
        return None if client is None else self._users.get(client)

    def _lower(self, shuffle: Any) -> Any | None:
        user = self._current()
        if user is None:
            return None
        if user.failure is not None:
            raise user.failure
        return lowered(shuffle, user.settings)


SWITCH: Final = Switch()


def new_settings(metadata: Any, replicas: int) -> Settings:
    """Return checked settings; without an address, those of this process's environment.

    Raises: InvalidArgument, also for a connection with a token that would not come along: it is the
    scheduler that makes exchanges.
    """
    if isinstance(metadata, Connection) and metadata.has_given_token:
        raise InvalidArgument(
            "the metadata connection has a token=, which stays in this process, and it is Dask's "
            "scheduler that calls the metadata service: name a file that the scheduler has, by "
            "token_file= or by COSCO_TOKEN_FILE there; workers need none"
        )
    if type(replicas) is not int or replicas < 1:
        raise InvalidArgument(f"replicas is {replicas!r}, it must be a whole number from 1 on")
    return Settings(metadata or os.environ.get(_ADDRESS) or None, replicas)


def check_same_versions(found: dict[str, Any]) -> None:
    """Compare what the client, the scheduler and all workers have installed.

    Raises: EngineUnavailable, which says where which version is.
    """
    mine = found["client"]["packages"]
    others = {"the scheduler": found["scheduler"]} | {
        f"worker {address}": info for address, info in found["workers"].items()
    }
    wrong = [
        f"{place} has {name} {info['packages'].get(name) or 'not at all'}"
        for place, info in others.items()
        for name in _PACKAGES
        if info["packages"].get(name) != mine.get(name)
    ]
    if wrong:
        here = ", ".join(f"{name} {mine.get(name)}" for name in _PACKAGES)
        more = "" if len(wrong) <= 5 else f", and {len(wrong) - 5} more"
        raise EngineUnavailable(
            f"the client has {here}, but {', '.join(wrong[:5])}{more}: install the same versions"
            f" wherever tasks run"
        )
