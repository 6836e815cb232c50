"""Replies of which a part is given to many calls alike, which is encoded once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from cosco.errors import CoscoError
from cosco.metadata.state.state import MetadataState
from cosco.protocol import wire
from cosco.protocol.records import CommitWait, ExchangeInfo, OpenedAttempt
from cosco.protocol.wire import mpb

#: Parts that are kept.
MAX_ENCODED_BYTES: Final = 32 << 20


class EncodedParts:
    """The encoded form of objects that never change, while it is asked for.

    They are told apart by identity: another object of equal content is encoded again.
    """

    def __init__(self, max_bytes: int) -> None:
        """Keep `max_bytes` at most, and always the latest."""
        self._max_bytes = max_bytes
        self._bytes = 0
        # By id, which stays the object's as it is kept; the latest asked for last.
        self._parts: dict[int, tuple[object, bytes]] = {}

    def get(self, whole: object, encode: Callable[[], bytes]) -> bytes:
        """What `encode` gave for `whole`."""
        kept = self._parts.pop(id(whole), None)
        if kept is None:
            kept = whole, encode()
            self._bytes += len(kept[1])
        self._parts[id(whole)] = kept
        while self._bytes > self._max_bytes and len(self._parts) > 1:
            _, part = self._parts.pop(next(iter(self._parts)))
            self._bytes -= len(part)
        return kept[1]


class Replies:
    """OpenAttemptReply and AwaitCommitsReply, serialized, and ExchangeInfoReply."""

    def __init__(self) -> None:
        self._parts = EncodedParts(MAX_ENCODED_BYTES)

    def opened(self, opened: OpenedAttempt) -> bytes:
        """To a writer; all writers are told of the same ranges and daemons."""
        info = self._parts.get(opened.info, lambda: wire.opened_info(opened.info))
        return wire.opened_reply(opened, info)

    def described(
        self,
        info: ExchangeInfo,
        reading: mpb.AwaitCommitsRequest | None,
        state: MetadataState,
        now: float,
    ) -> mpb.ExchangeInfoReply:
        """To anybody; also what a reader that begins by `reading` would be told by `waited`, if
        that is a snapshot and stays true."""
        reply = wire.info_to_pb(info)
        if reading is not None and info.spec.deterministic:
            with suppress(CoscoError):  # which the reader meets when it asks for itself
                mappers = wire.bitmap_from_bytes(reading.mappers, "mappers")
                wait = state.await_commits(info.number, mappers, reading.partition, 0, now)
                if wait.snapshot is not None:
                    reply.commits.ParseFromString(self.waited(wait))
        return reply

    def waited(self, wait: CommitWait) -> bytes:
        """To a reader; readers of a range, and often of all, are told of the same mappers."""
        snapshot = wait.snapshot
        if snapshot is None:
            return wire.wait_reply(wait, b"")
        mappers = self._parts.get(
            snapshot.mappers, lambda: wire.snapshot_mappers(snapshot.mappers, snapshot.attempts)
        )
        return wire.wait_reply(wait, mappers)
