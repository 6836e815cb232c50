"""How a reader of several partitions learns what there is, and fetches it: for many at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from pyroaring import BitMap

from cosco.client.read.commit_watch import FIRST_WAIT_S, CommitWatch
from cosco.client.read.direct_reads import DirectReads
from cosco.client.read.fetch_call import Bad, Run, StallWatch, nonsense, open_fetch, runs_of
from cosco.client.read.state.read_plan import AwaitCommits, Fetch
from cosco.client.read.state.shared_reading import (
    PartReplies,
    Place,
    SharedPass,
    SharedReading,
)
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.client.rpc.transport import Endpoint
from cosco.errors import InvalidArgument
from cosco.process.tls.tls_files import TlsNames
from cosco.protocol.fetch_records import FetchRequest
from cosco.protocol.records import CommitWait, DaemonRef, ExchangeInfo, RangesWait

#: A stream that nobody has read for this time is ended.
IDLE_S: Final = 2.0


class SharedWatch(CommitWatch):
    """Waits for the commits of several partitions with one call, and fetches with one a daemon.

    A plan whose fetch is answered so does not notice. As soon as anything goes another way, all
    streams end, so that none takes up a daemon while another one is waited for: plans go on alone
    then, and the next partition begins with another wait.
    """

    def __init__(
        self, metadata: MetadataClient, scope: Scope, mappers: BitMap, partitions: BitMap
    ) -> None:
        """Begin without asking."""
        super().__init__(metadata, scope, mappers, partitions.min())
        self._partitions = partitions
        self._shared: SharedReading | None = None
        self._first_ranges: RangesWait | None = None  # what was said at once
        self._streams: _Streams | None = None

    def describe(self) -> ExchangeInfo:
        """See `CommitWatch`."""
        if self._info is None:
            self._info, self._first_ranges = self._metadata.begin_reading_ranges(
                self._scope.shuffle_id, self._mappers, self._partitions
            )
            self._first_until = time.monotonic() + FIRST_WAIT_S
        return self._info

    def come_to(self, partition: int) -> None:
        """See `CommitWatch`."""
        self._partition = partition
        self._reading().come_to(partition)

    def wait(self, step: AwaitCommits) -> CommitWait:
        """See `CommitWatch`."""
        shared = self._reading()
        snapshot = shared.take()
        if snapshot is not None:
            return CommitWait(snapshot)
        self.end_pass()
        return shared.told(self._ask(shared, step))

    def ahead(self, fetch: Fetch, bad: Bad) -> Iterator[Run] | None:
        """See `CommitWatch`."""
        shared_pass = self._reading().shared_pass
        place = None if shared_pass is None else shared_pass.place(fetch)
        if shared_pass is None or place is None:
            self.end_pass()
            return None
        if self._streams is None or self._streams.shared_pass is not shared_pass:
            self._end_streams()
            self._streams = _Streams(
                shared_pass, self._scope, self.direct, self._metadata.connection.tls
            )
        stream = self._streams.at(place, fetch)
        has = stream.replies.has(place.part, self._partition)
        if not has or (stream.is_direct and not fetch.direct) or not stream.begin():
            self.end_pass()
            return None
        return self._runs(stream, place, bad)

    def end_pass(self) -> None:
        """See `CommitWatch`."""
        self._reading().end_pass()
        self._end_streams()

    # --- inside ---------------------------------------------------------------------------

    def _reading(self) -> SharedReading:
        if self._shared is None:
            self._shared = SharedReading(
                self.describe(), self._partitions, self._mappers, self.troubled
            )
        return self._shared

    def _ask(self, shared: SharedReading, step: AwaitCommits) -> RangesWait:
        question = shared.question()
        first, self._first_ranges = self._first_ranges, None
        if first is not None and time.monotonic() < self._first_until:
            return first
        info = self.describe()
        return self._metadata.await_ranges(
            info.number,
            self._mappers,
            question.partitions,
            info.generation,
            wait_s=step.wait_s if question.waits else 0.0,
            outage_s=step.outage_s,
        )

    def _runs(self, stream: _Stream, place: Place, bad: Bad) -> Iterator[Run]:
        try:
            yield from runs_of(stream.replies.of(place.part, self._partition), bad)
        except InvalidArgument as error:
            self.end_pass()
            raise nonsense(place.daemon.address, error) from None
        except Exception:
            self.end_pass()
            raise
        finally:
            stream.rest()

    def _end_streams(self) -> None:
        streams, self._streams = self._streams, None
        if streams is not None:
            streams.close()


class _Streams:
    """The streams of one pass, each begun when something of it is wanted.

    A daemon serves a bounded number of readers at a time, and each stream is one of them. So one
    that is not read for IDLE_S ends, as the caller is busy with what it was given, or another
    daemon lets this reader wait: else readers could wait for each other.
    """

    def __init__(
        self, shared_pass: SharedPass, scope: Scope, direct: DirectReads, tls: TlsNames
    ) -> None:
        self.shared_pass = shared_pass
        self._tls = tls
        self._scope = scope
        self._direct = direct
        self._stalls = StallWatch(scope, self._end_idle)
        self._by_daemon: dict[DaemonRef, _Stream] = {}

    def at(self, place: Place, fetch: Fetch) -> _Stream:
        """Return the stream of a daemon, which is made as the first fetch wants it."""
        stream = self._by_daemon.get(place.daemon)
        if stream is None:
            stream = self._by_daemon[place.daemon] = _Stream(
                fetch,
                replace(self.shared_pass.requests[place.daemon], direct=fetch.direct),
                self._scope,
                self._stalls,
                self._direct,
                self._tls,
            )
        return stream

    def close(self) -> None:
        for stream in self._by_daemon.values():
            stream.close()
        self._stalls.stop()

    def _end_idle(self) -> None:
        for stream in list(self._by_daemon.values()):
            stream.end_if_idle()


class _Stream:
    """What one daemon replies to the request of a pass."""

    def __init__(
        self,
        fetch: Fetch,
        request: FetchRequest,
        scope: Scope,
        stalls: StallWatch,
        direct: DirectReads,
        tls: TlsNames,
    ) -> None:
        """Begin without a call. tls: by which files the daemon is reached."""
        scope.check()
        self._endpoint = Endpoint(fetch.daemon.address, tls)
        self.is_direct = request.direct
        self._call = open_fetch(self._endpoint, scope, stalls, request, fetch.stall_s)
        if request.direct:
            store_id = fetch.source.store_of(fetch.daemon)
            self._call = direct.replies(self._call, request, store_id)
        self.replies = PartReplies(request.parts, self._call)
        # Since when nobody has read it. Whoever pops that, the reader or the thread that looks for
        # idle streams, has the stream for itself; there is none for whoever comes too late.
        self._idle_since = [time.monotonic()]
        self._is_read = False

    def begin(self) -> bool:
        """Have the stream not be ended, until `rest`; False if it was."""
        self._is_read = self._is_read or self._pop_idle(0.0)
        return self._is_read

    def rest(self) -> None:
        """Read no more for now."""
        if self._is_read:
            self._is_read = False
            self._idle_since.append(time.monotonic())

    def end_if_idle(self) -> None:
        """End the stream if nobody has read it for IDLE_S; for another thread than the reader's."""
        if self._pop_idle(IDLE_S):
            self._call.close()

    def close(self) -> None:
        if self.begin():
            self._call.close()
        self._endpoint.close()

    def _pop_idle(self, least_s: float) -> bool:
        now = time.monotonic()
        try:
            if now - self._idle_since[0] < least_s:
                return False
            self._idle_since.pop()
        except IndexError:
            return False
        return True
