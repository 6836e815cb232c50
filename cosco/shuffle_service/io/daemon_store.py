"""The store of a daemon, as its options say: one, several directories, or two tiers."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

from cosco.config import DaemonConfig, TierUrls, parse_reserve
from cosco.dfs import BoundedStore, IOEvent, Observer, Store, open_store
from cosco.dfs.directories.several_stores import SeveralStores, open_directories
from cosco.dfs.directories.state.directory_table import Change, Reserve
from cosco.dfs.io_log import FLASH_PREFIX, IoLog
from cosco.dfs.tiers.mover import MoveNews, TierNews
from cosco.dfs.tiers.state.tier_table import TierOptions
from cosco.dfs.tiers.tiered_store import TieredStore, open_tiers
from cosco.process.event_writer import EventWriter
from cosco.protocol.events import Event, EventKind
from cosco.shuffle_service.io.metrics import DaemonMetrics
from cosco.shuffle_service.state.core import DaemonCore

_MOVE_EVENTS: Final[dict[MoveNews, EventKind]] = {
    "failing": EventKind.MOVES_FAILING,
    "works": EventKind.MOVES_RECOVERED,
    "damaged": EventKind.FLASH_DAMAGED,
}


class DaemonStore:
    """Makes the store, still to be opened, and tells of it.

    store: what all of the daemon uses. directories, tiers: what it is over, or None.
    """

    def __init__(self, config: DaemonConfig, metrics: DaemonMetrics) -> None:
        self._config = config
        self._metrics = metrics
        self._io_log = IoLog(config.io_log) if config.io_log else None
        self._events: EventWriter | None = None
        self.directories: SeveralStores | None = None
        self.tiers: TieredStore | None = None
        self.store = BoundedStore(self._make(), config.store_timeout_s)

    def _make(self) -> Store:
        config = self._config
        if (urls := config.tiers) is not None:
            self.tiers = self._open_tiers(urls)
            return self.tiers
        if config.has_directories:
            self.directories = open_directories(
                config.stores,
                threads=config.flush_threads,
                timeout_s=config.store_timeout_s / 2,  # so that another can be tried
                reserve=self._reserve(),
                may_miss=config.store_missing,
                observer=self._observer(),
                tell=self._tell_directory,
            )
            return self.directories
        return open_store(config.store, threads=config.flush_threads + 2, observer=self._observer())

    def _open_tiers(self, urls: TierUrls) -> TieredStore:
        config = self._config
        options = TierOptions(
            age_s=config.tier_age_s,
            flash_bytes=config.tier_flash_bytes or float("inf"),
            flash_is_durable=config.tier_durable == "flash",
            timeout_s=config.store_timeout_s / 2,  # so that flash can be passed by
            reserve=self._reserve(),
        )
        return open_tiers(
            urls.flash,
            urls.then,
            options,
            threads=config.flush_threads,
            observer=self._observer(),
            flash_observer=self._flash_observer(),
            news=TierNews(self._tell_flash, self._tell_moves, self._metrics.count_tier),
        )

    def serve(self, core: DaemonCore, events: EventWriter) -> None:
        """Have a core told what becomes durable, and operators what happens."""
        self._events = events
        tiers = self.tiers
        if tiers is None:
            return

        def durable(path: str) -> None:
            core.waiting.durable(path)
            core.changed(time.monotonic())

        def lost(path: str) -> None:
            core.waiting.lost(path)
            core.changed(time.monotonic())

        tiers.on_durable, tiers.on_lost = durable, lost
        core.waiting.hurry = tiers.hurry
        core.flushes.moves = lambda: tiers.trouble

    # --- durability ------------------------------------------------------------------------

    def is_durable(self, path: str) -> bool:
        """Whether a file that was put is durable, so that its copies may go."""
        return self.tiers is None or self.tiers.is_durable(path)

    @property
    def unmoved_bytes(self) -> int:
        """Return what is on the fast one of two tiers alone, and is to move some day."""
        return self.tiers.figures.pending_bytes if self.tiers is not None else 0

    def move_all(self, on: bool) -> None:
        """Move all that there is, and what comes; or as usual again."""
        if self.tiers is not None:
            self.tiers.move_all(on)

    async def nothing_pending(self) -> None:
        """Wait until nothing is on the fast one of two tiers alone."""
        if self.tiers is not None:
            await self.tiers.nothing_pending()

    # --- for operators ---------------------------------------------------------------------

    def update_gauges(self) -> None:
        """Tell how the store is."""
        for name, state in self.directories.states().items() if self.directories else ():
            self._metrics.set_directory(name, free_bytes=state.free_bytes, is_well=state.is_well)
        if self.tiers is not None:
            figures = self.tiers.figures
            self._metrics.flash_bytes.set(figures.flash_bytes)
            self._metrics.flash_pending_bytes.set(figures.pending_bytes)
            self._metrics.flash_well.set(self.tiers.flash_is_well)

    def close_log(self) -> None:
        """Write what is left of the IO log."""
        if self._io_log is not None:
            self._io_log.close()

    def _reserve(self) -> Reserve:
        size_bytes, share = parse_reserve(self._config.store_reserve)
        return Reserve(size_bytes, share)

    def _observer(self) -> Observer:
        """Return what counts each read and write of the store, and writes it down if asked to."""
        count = self._metrics.observe_io
        if self._io_log is None:
            return count
        write = self._io_log.observe

        def observe(event: IOEvent) -> None:
            count(event)
            write(event)

        return observe

    def _flash_observer(self) -> Observer:
        """Return the same for flash, whose paths begin with a word of their own in the log."""
        count = self._metrics.observe_flash
        if self._io_log is None:
            return count
        write = self._io_log.observe

        def observe(event: IOEvent) -> None:
            count(event)
            write(replace(event, path=FLASH_PREFIX + event.path))

        return observe

    def _tell_directory(self, url: str, change: Change) -> None:
        self._tell(
            EventKind.DIRECTORY_OUT if change.is_out else EventKind.DIRECTORY_BACK, url, change
        )

    def _tell_flash(self, url: str, change: Change) -> None:
        self._tell(EventKind.FLASH_OUT if change.is_out else EventKind.FLASH_BACK, url, change)

    def _tell(self, kind: EventKind, url: str, change: Change) -> None:
        assert self._events is not None
        self._events.tell(
            Event(kind=kind, store=url, cause=change.cause, reason=change.reason or None)
        )

    def _tell_moves(self, news: MoveNews, reason: str) -> None:
        assert self._events is not None
        url = self._config.store
        self._events.tell(Event(kind=_MOVE_EVENTS[news], store=url, reason=reason or None))
