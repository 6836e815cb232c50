"""What one daemon has of some partitions, as runs of whole blocks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Final

from cosco.client.read.state.block_splitter import BlockSplitter, HeaderSplitter
from cosco.client.read.state.merge import BareHeaders
from cosco.client.rpc.channel import Call, TimedCall
from cosco.client.rpc.scope import Scope, Unreachable
from cosco.client.rpc.transport import Endpoint
from cosco.errors import DataCorrupted, InvalidArgument
from cosco.protocol import wire
from cosco.protocol.fetch_records import FetchRequest
from cosco.protocol.wire import spb

_PATH: Final = f"/{wire.SHUFFLE_SERVICE}/Fetch"
_TICK_S: Final = 0.5


class Stalled(Unreachable):
    """Nothing came for too long."""


class StallWatch:
    """Cancels the fetch of one reader when nothing of it has come for too long.

    gRPC bounds the whole of a call only, which may be long and is interrupted at will by a
    slow consumer. So a thread looks, from the first fetch until `stop`. Calls of the native part
    keep time themselves: there is a thread only if there is something else to look at.
    """

    def __init__(self, scope: Scope, looks: Callable[[], None] | None = None) -> None:
        """`looks`: called by that thread, again and again."""
        self._scope = scope
        self._looks = looks
        self._thread: threading.Thread | None = None
        self._stopped: threading.Event | None = None  # made with the thread, as most need none
        # The call whose next reply is waited for, and until when: one operation to set.
        self._awaited: tuple[Call, float] | None = None
        self._cancelled: Call | None = None

    def replies(self, call: Call, stall_s: float) -> Iterator[bytes]:
        """Return the replies of `call`.

        Raises: when they are asked for, Stalled when none came for about `stall_s`.
        """
        if isinstance(call, TimedCall):
            if self._looks is not None:
                self._start()
            return _timed(call, stall_s)
        self._start()
        return self._watched(call, stall_s)

    def _watched(self, call: Call, stall_s: float) -> Iterator[bytes]:
        try:
            while True:
                self._awaited = call, time.monotonic() + stall_s
                try:
                    reply = next(call, None)
                finally:
                    self._awaited = None
                if reply is None:
                    return
                yield reply
        except Unreachable as error:
            if self._cancelled is not call or error.for_fork:
                raise
            raise _stalled(stall_s) from None

    def stop(self) -> None:
        """End the thread."""
        if self._thread is not None and self._stopped is not None and not self._scope.inherited:
            self._stopped.set()
            self._thread.join()

    def _start(self) -> None:
        if self._thread is not None:
            return
        stopped = self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(stopped,), name="cosco-fetch", daemon=True
        )
        self._thread.start()

    def _run(self, stopped: threading.Event) -> None:
        # A reader may be closed and kept while its iterator is still under way.
        while not (stopped.wait(_TICK_S) or self._scope.is_closed):
            awaited = self._awaited
            if awaited is not None and time.monotonic() > awaited[1]:
                self._cancelled = awaited[0]
                awaited[0].cancel()
            if self._looks is not None:
                self._looks()


def _timed(call: TimedCall, stall_s: float) -> Iterator[bytes]:
    while True:
        try:
            reply = call.within(stall_s)
        except StopIteration:
            return
        if reply is None:
            raise _stalled(stall_s)
        yield reply


def _stalled(stall_s: float) -> Stalled:
    return Stalled(f"nothing came from it for {stall_s:g} s")


#: What a merge is fed.
Run = memoryview | BareHeaders
#: Is told what is bad in a reply, and so absent.
Bad = Callable[[str], None]


def open_fetch(
    endpoint: Endpoint, scope: Scope, watch: StallWatch, request: FetchRequest, stall_s: float
) -> Generator[wire.FetchReply, None, None]:
    """Yield what the daemon at `endpoint` replies to a fetch, which begins when it is asked for.

    Raises: Unreachable, or the CoscoError that the daemon meant.
    """
    call = endpoint.fetch_stream(_PATH, wire.fetch_request_to_bytes(request), scope)
    try:
        for message in watch.replies(call, stall_s):
            yield from wire.fetch_replies(message)
    except InvalidArgument as error:
        raise nonsense(endpoint.address, error) from None
    finally:
        call.cancel()


def nonsense(address: str, error: InvalidArgument) -> Unreachable:
    """Return what a daemon is that replies what it may not."""
    return Unreachable(f"the daemon at {address} sent nonsense: {error}")


def runs_of(replies: Iterator[wire.FetchReply], bad: Bad) -> Iterator[Run]:
    """Yield runs of whole blocks, or of headers, from the replies of one Fetch.

    A chunk that the daemon cannot read, or whose blocks do not parse, is told to `bad` and passed
    over.

    Raises: InvalidArgument when sections and data do not follow each other as they must.
    """
    left = 0
    splitter: BlockSplitter | HeaderSplitter | None = None  # None: the rest of it is skipped
    for reply in replies:
        if isinstance(reply, spb.Section):
            if left:
                raise InvalidArgument(f"a section begins {left} bytes before the last one ends")
            if wire.reference_of(reply) is not None:
                raise InvalidArgument("a reference that was not asked for")
            splitter = HeaderSplitter() if reply.headers else BlockSplitter()
            if reply.error:
                bad(" ".join(reply.error.split())[:300])
            else:
                left = reply.body_bytes
            continue
        if isinstance(reply, spb.PartEnd):
            raise InvalidArgument("a part ends that was not asked for")
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
