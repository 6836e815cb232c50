"""One look of one daemon at a partition, as runs of whole blocks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from google.protobuf.message import DecodeError

from cosco.client.read.state.merge import BlockSplitter
from cosco.client.read.state.read_plan import Fetch
from cosco.client.rpc.scope import Scope, Unreachable
from cosco.client.rpc.transport import Call, Endpoint
from cosco.errors import DataCorrupted, InvalidArgument
from cosco.protocol import wire
from cosco.protocol.wire import spb

_PATH: Final = f"/{wire.SHUFFLE_SERVICE}/Fetch"
_TICK_S: Final = 0.5


class Stalled(Unreachable):
    """Nothing came for too long."""


class StallWatch:
    """Cancels the fetch of one reader when nothing of it has come for too long.

    gRPC bounds the whole of a call only, which may be long and is interrupted at will by a
    slow consumer. So a thread looks, from the first fetch until `stop`.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        # The call whose next reply is waited for, and until when: one operation to set.
        self._awaited: tuple[Call, float] | None = None
        self._cancelled: Call | None = None

    def replies(self, call: Call, stall_s: float) -> Iterator[bytes]:
        """Yield the replies of `call`.

        Raises: Stalled when none came for about `stall_s`.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="cosco-fetch", daemon=True)
            self._thread.start()
        try:
            while True:
                self._awaited = call, time.monotonic() + stall_s
                reply = next(call, None)
                self._awaited = None
                if reply is None:
                    return
                yield reply
        except Unreachable as error:
            if self._cancelled is not call or error.for_fork:
                raise
            raise Stalled(f"nothing came from it for {stall_s:g} s") from None
        finally:
            self._awaited = None

    def stop(self) -> None:
        """End the thread."""
        if self._thread is not None and not self._scope.inherited:
            self._stopped.set()
            self._thread.join()

    def _run(self) -> None:
        # A reader may be closed and kept while its iterator is still under way.
        while not (self._stopped.wait(_TICK_S) or self._scope.is_closed):
            awaited = self._awaited
            if awaited is not None and time.monotonic() > awaited[1]:
                self._cancelled = awaited[0]
                awaited[0].cancel()


def fetch_blocks(
    endpoint: Endpoint,
    scope: Scope,
    watch: StallWatch,
    number: int,
    partition: int,
    fetch: Fetch,
    bad: Callable[[str], None],
) -> Iterator[memoryview]:
    """Yield what the daemon at `endpoint` has of the source of `fetch`, chunk by chunk.

    A chunk that it cannot read, or whose blocks do not parse, is told to `bad` and passed
    over.

    Raises: Unreachable, or the CoscoError that the daemon meant.
    """
    request = spb.FetchRequest(
        number=number,
        range_index=fetch.source.range_index,
        epoch=fetch.source.epoch,
        partition=partition,
        files=fetch.files,
    )
    call = endpoint.fetch_stream(_PATH, request.SerializeToString(), scope)
    try:
        yield from runs_of(map(wire.fetch_reply, watch.replies(call, fetch.stall_s)), bad)
    except (DecodeError, InvalidArgument) as error:
        raise Unreachable(f"the daemon at {endpoint.address} sent nonsense: {error}") from None
    finally:
        call.cancel()


def runs_of(
    replies: Iterator[memoryview | spb.Section], bad: Callable[[str], None]
) -> Iterator[memoryview]:
    """Yield runs of whole blocks from the replies of one Fetch.

    Raises: InvalidArgument when sections and data do not follow each other as they must.
    """
    left = 0
    splitter: BlockSplitter | None = None  # None: what is left of the section is skipped
    for reply in replies:
        if isinstance(reply, spb.Section):
            if left:
                raise InvalidArgument(f"a section begins {left} bytes before the last one ends")
            splitter = BlockSplitter()
            if reply.error:
                bad(" ".join(reply.error.split())[:300])
            else:
                left = reply.body_bytes
            continue
        if len(reply) > left:
            raise InvalidArgument(f"{len(reply)} bytes of data where {left} are left")
        left -= len(reply)
        if splitter is None:
            continue
        try:
            yield from splitter.feed(reply)
            if not left:
                splitter.finish()
        except DataCorrupted as error:
            bad(str(error))
            splitter = None
    if left:
        raise InvalidArgument(f"the stream ended {left} bytes before its section does")
