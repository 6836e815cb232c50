"""The native part of Cosco; each call has a twin in `cosco` that does the same in Python.

Where a class or a call is not described here, its twin has the same name.

What a daemon decides with, and its connections, raise RuntimeError for whatever changes them,
unless the thread that made them does it: see docs/architecture/native.md.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from cosco.client.content import Decoded
from cosco.format.block import BlockHeader
from cosco.format.frame import FrameHeader
from cosco.protocol.keys import AssignmentKey, MapperAttempt
from cosco.shuffle_service.state.buffers.frame_append import Appended
from cosco.shuffle_service.state.buffers.partition_buffer import ChunkState, Layout
from cosco.shuffle_service.state.buffers.pool import Page

#: Contiguous bytes: what has them is a `collections.abc.Buffer` from Python 3.12 on.
Buffer = Any

#: Which calls there are: compared by `cosco.mechanics`.
INTERFACE: Final[int]
VERSION: Final[str]

class TlsServer:
    """What servers' connections go by that carry TLS. It is not changed, and may be shared."""

    def __init__(
        self,
        cert_pem: bytes,
        key_pem: bytes,
        client_ca_pem: bytes | None,
        requires_client_cert: bool,
    ) -> None:
        """Take the chain of the server, its own certificate first, its key, and the CA of clients.

        With a CA a certificate that a client shows is checked, and with `requires_client_cert` a
        client without one is left. Raises ValueError, in words for people.
        """

class TlsClient:
    """What clients' connections go by that carry TLS. It is not changed, and may be shared."""

    def __init__(self, ca_pem: bytes, cert_pem: bytes | None, key_pem: bytes | None) -> None:
        """Take the CA of servers, and what is shown to those that ask for a certificate.

        Raises ValueError, in words for people.
        """

class ServerConnection:
    """One connection of a gRPC server. Its socket stays the caller's, who waits for it.

    After whatever is called, `advance` must be, until it returns nothing. Calls have numbers.
    """

    def __init__(
        self, descriptor: int, streams: int, window_bytes: int, tls: TlsServer | None = None
    ) -> None:
        """Serve what comes over a connected socket.

        streams: calls at a time. window_bytes: what may come that nobody has asked for.
        """

    def advance(self, is_readable: bool) -> list[tuple[int, int, object]]:
        """Write what can be, and read if `is_readable`. Returns (kind, call, what) of what came.

        Kinds: 0 a call (its method, and what its header `authorization` has: None if there is none,
        nothing if there are several), 1 messages (a list of what one `ask` was for), 2 one begins
        that is not allowed (its length), 3 no further message, 4 gRPC was broken (how), 5 it was
        given up, 6 there is room to send again, 7 the connection is over (why).
        """

    def ask(self, call: int, more_bytes: int) -> None:
        """Ask for the next message of a call.

        more_bytes: of further messages that are there by then and come with it. They are short
        ones; a long one comes alone.
        """

    def allow(self, call: int, length: int) -> None:
        """Let messages of a call come that are up to this long."""

    def send(self, call: int, message: bytes) -> int | None:
        """Send a message.

        Returns: the bytes of the call that its peer has not taken; None if the call is over.
        """

    def finish(self, call: int, trailers: list[tuple[str, bytes]]) -> None:
        """End a call after what was sent. Raises ValueError for what HTTP does not take."""

    def ping(self) -> None:
        """Ask the peer whether it is there, unless it was asked and has not answered."""

    def stop(self) -> None:
        """Take no further calls."""

    def close(self) -> None:
        """End everything at once."""

    @property
    def wants_write(self) -> bool:
        """Whether it has something to send for which the socket has no room."""

    @property
    def has_unread(self) -> bool:
        """Whether the socket may have something that was not read, be it that it could not be."""

    @property
    def awaits_pong(self) -> bool:
        """Whether the peer was asked whether it is there, and has not answered."""

    @property
    def received_bytes(self) -> int:
        """Bytes that have come, but for those of a handshake of TLS."""

    @property
    def peer_names(self) -> list[str]:
        """Whom the verified certificate of the peer is of; known by the first call."""

    @property
    def tls_failure(self) -> str:
        """Why TLS has failed with this peer, for people; empty if it has not."""

    @property
    def kept_bytes(self) -> int:
        """What came of messages that are not whole, or not asked for, but for what was allowed."""

    def keeps_most(self) -> int | None:
        """Return the call that keeps most of them; None if there is no call."""

    def cut(self, call: int) -> None:
        """Take nothing more of a call, and forget what came of it."""

    @property
    def calls(self) -> int:
        """Calls under way."""

# --- cosco/shuffle_service/state/buffers --------------------------------------------------

class ClientRuntime:
    """What all connections of a process share: a thread that takes what comes for them."""

    def __init__(self) -> None:
        """Begin the thread. Raises RuntimeError if there can be none."""

    def connection(
        self, address: str, max_message_bytes: int, tls: TlsClient | None = None
    ) -> ClientConnection:
        """Return a connection to `host:port`, which is made when a call wants it.

        max_message_bytes: how long messages may be that come. Raises ValueError if with TLS there
        can be no certificate of this host.
        """

class ClientConnection:
    """One address: calls share its connection, which is made anew when it is lost.

    This and its calls may be used by any thread. In a forked child, all raises RuntimeError, but
    `close` and `cancel`, which do nothing.
    """

    def call(
        self,
        method: str,
        message: bytes | None,
        is_unary: bool,
        timeout_s: float | None,
        authorization: str | None = None,
    ) -> ClientCall:
        """Begin a call, to be told of by `receive`. Raises RuntimeError if there can be no thread.

        message: the only one to be sent; None: messages follow. is_unary: the one reply is told
        once its end has come. authorization: what the header of that name has, which is kept in no
        table of HTTP/2's; None: there is none.
        """

    def set_tls(self, tls: TlsClient | None) -> None:
        """Have the next connection that is made carry TLS, or not. Raises as `connection`."""

    def close(self) -> None:
        """End all calls, and the connection, for good."""

class ClientCall:
    """A call; one that is dropped is cancelled."""

    def send(self, message: bytes) -> bool:
        """Send a message, without waiting.

        Returns: whether there is room for more; if not, `receive` says when there is.
        """

    def half_close(self) -> None:
        """Send nothing further."""

    def receive(self, timeout_s: float | None = None) -> bytes | bool | None:
        """Wait for what comes next, with the interpreter's lock given up.

        Returns: a message; None if none came in this time, or after `wake`; True if there is room
        to send again; False if the call is over. Raises what a signal handler raises.
        """

    def wake(self) -> None:
        """Have whoever is in `receive`, or comes next, return at once."""

    def status(self) -> tuple[int, str, list[tuple[str, bytes]]] | None:
        """Return how it has ended: gRPC's code, details, metadata; None if it has not."""

    def cancel(self) -> None:
        """End the call, if it is under way; who waits for it is told."""

class ServiceCaller:
    """One address, for an event loop, which makes and watches the connections and ticks the clock.

    Calls and connections have numbers. After whatever is called, `advance` must be, until it
    returns nothing, and then `take_gone` and `wants_connection`. In a forked child, all raises
    RuntimeError.
    """

    def __init__(self, address: str, max_message_bytes: int, tls: TlsClient | None = None) -> None:
        """Begin without a connection.

        max_message_bytes: how long messages may be that come. Raises ValueError if with TLS there
        can be no certificate of this host.
        """

    def set_tls(self, tls: TlsClient | None) -> None:
        """Have the next connection that is made carry TLS, or not. Raises ValueError as above."""

    def begin(
        self, method: str, message: bytes | None, is_unary: bool, timeout_s: float | None
    ) -> int:
        """Begin a call, and return its number. Raises ValueError for what HTTP does not take.

        message: the only one to be sent; None: messages follow. is_unary: the one reply is told
        with its end. timeout_s: told to the service; the caller is to `forget` the call by then.
        """

    def send(self, call: int, message: bytes) -> bool:
        """Send a message. Returns whether there is room for more; if not, `advance` says when."""

    def half_close(self, call: int) -> None:
        """Send nothing further."""

    def ask(self, call: int) -> None:
        """Ask for the next message of a call, or its end."""

    def forget(self, call: int) -> None:
        """End a call, of which nothing is told any more."""

    def close(self) -> None:
        """End all calls and connections, for good."""

    def wants_connection(self) -> bool:
        """Return whether a connection is to be made: `connected` or `not_connected` must follow."""

    def connected(self, connection: int, descriptor: int) -> None:
        """Take a connection, by a new number. Raises OSError if there are no descriptors.

        Its socket stays the caller's, who closes it when `take_gone` names it.
        """

    def not_connected(self, reason: str) -> None:
        """Fail the calls that wait for a connection, as there is none."""

    def take_gone(self) -> list[int]:
        """Return the connections that are gone since this was called last."""

    def wants_write(self, connection: int) -> bool:
        """Return whether it has something to send for which its socket has no room."""

    def has_unread(self, connection: int) -> bool:
        """Return whether its socket may have something that was not read."""

    def advance(self, readable: int | None) -> list[tuple[int, int, Any]]:
        """Write what can be, and read from a connection. Returns (kind, call, what) of what came.

        Kinds: 0 a message, 1 there is room to send again, 2 the call is over (gRPC's code, details,
        metadata).
        """

    def tick(self) -> bool:
        """Look for peers that are gone without a word; to be called twice a second.

        Returns: whether that is to be done again, as calls or an answer to a ping are waited for.
        """

def close_inherited_connections() -> None:
    """Close what a forked child has of its parent's connections, which are not touched."""

class CheckedFrame:
    """Without a Python object for each run or block."""

    header: Final[FrameHeader]
    mapper_attempt: Final[MapperAttempt]
    key: Final[AssignmentKey]
    mark: Final[tuple[BlockHeader, memoryview] | None]
    run_count: Final[int]
    def partitions(self) -> list[int]: ...
    def positions(self, run: int) -> list[tuple[int, int]]: ...
    def outside(self, first: int, end: int) -> int | None: ...

def check_frame(
    data: memoryview, exchange: int | None = None, mapper_attempt: MapperAttempt | None = None
) -> CheckedFrame: ...

class PagePool:
    capacity_bytes: Final[int]
    free_bytes: Final[int]
    def __init__(self, capacity_bytes: int) -> None: ...
    def allocate(self, length: int) -> list[Page]: ...
    def free(self, pages: list[Page]) -> None: ...

class DedupeIndex:
    entries: Final[int]
    def __init__(self) -> None: ...
    def claim(
        self, mapper_attempt: MapperAttempt, partition: int, start: int, end: int
    ) -> bool: ...
    def forget(self, mapper_attempt: MapperAttempt) -> None: ...
    def clear(self) -> None: ...
    def knows(self, mapper_attempt: MapperAttempt) -> bool: ...
    def oldest(self) -> MapperAttempt | None: ...

class Chunk:
    buffer: Final[PartitionBuffer]
    state: ChunkState
    pages: list[Page]
    capacity: Final[int]
    length: int
    blocks: int
    path: str
    offset: int
    is_durable: bool
    body_bytes: Final[int]
    def __init__(self, buffer: PartitionBuffer) -> None: ...
    def is_dropped(self) -> bool: ...
    def release(self, pool: PagePool) -> None: ...
    def room_needed(self, length: int) -> int: ...
    def grow(self, pool: PagePool, need: int, extra: int) -> None: ...
    def append(self, arena: memoryview, data: memoryview) -> None: ...
    def memory(self, arena: memoryview, start: int, end: int) -> list[memoryview]: ...

class PartitionBuffer:
    key: Final[AssignmentKey]
    partition: Final[int]
    open: Chunk | None
    flushing: Chunk | None
    waiting: Final[deque[Chunk]]
    def __init__(self, key: AssignmentKey, partition: int) -> None: ...
    def chunks(self) -> list[Chunk]: ...
    def begin_flush(self) -> Chunk: ...
    def end_flush(self) -> None: ...

def append_frame(
    arena: memoryview,
    pool: PagePool,
    dedupe: DedupeIndex,
    buffers: dict[int, PartitionBuffer],
    key: AssignmentKey,
    frame: CheckedFrame,
    first_run: int,
    room: tuple[int, int],
    segment_bytes: int,
) -> Appended: ...
def lay_out(
    buffers: list[PartitionBuffer], arena: memoryview, incarnation: int, path: str
) -> Layout: ...
def end_flush(chunks: list[Chunk], pool: PagePool) -> list[PartitionBuffer]: ...

class SectionRows:
    """Of `cosco.shuffle_service.state.buffers.section_rows`."""

    def __init__(self) -> None: ...
    def feed(self, parts: Sequence[Buffer]) -> int: ...

class Attempts:
    """Of `cosco.client.read.state.block_count`."""

    def __init__(self, mappers: bytes, attempts: bytes, named: bytes) -> None: ...

class BlockCount:
    """Of `cosco.client.read.state.block_count`."""

    def __init__(self, exchange: int, partition: int, attempts: Attempts) -> None: ...
    @property
    def rows(self) -> int: ...
    @property
    def row_bytes(self) -> int: ...
    @property
    def digest(self) -> int: ...
    @property
    def intervals(self) -> int: ...
    def feed(
        self, data: memoryview, offset: int, most: int
    ) -> tuple[int, list[tuple[int, int, int, int, bytes]], list[str]]: ...
    def feed_headers(self, data: memoryview) -> list[str]: ...
    def forget_headers(self) -> None: ...

def whole_blocks(piece: memoryview, offset: int) -> tuple[int, int]:
    """Of `cosco.client.read.state.block_splitter`."""

def split_rows(decoded: Decoded) -> list[bytes]:
    """Of `cosco.client.content.byte_rows`."""

def join_rows(decoded: Sequence[Decoded]) -> tuple[bytes, bytes]:
    """Of `cosco.client.content.byte_rows`."""

class BlockWriter:
    """Its twin is `cosco.client.write.state.block_writer.BlockWriter`."""

    def __new__(
        cls, exchange: int, mapper: int, attempt: int, codec: int, partitions: int
    ) -> BlockWriter: ...
    def add(
        self, partition: int, rows: int, content: Buffer, flags: int, fragment: int
    ) -> bytes: ...
    def fill(self, rows: SortedRows, end_partition: int, room: int) -> tuple[bytes, int]: ...
    def fill_columns(
        self, rows: SortedColumns, end_partition: int, room: int
    ) -> tuple[bytes, int]: ...
    def mark(self, first: int, end: int) -> bytes: ...
    def totals(self) -> list[bytes]: ...

class RowSorter:
    """Its twin is `cosco.client.write.state.sorting.RowSorter`."""

    def __new__(cls, partitions: int, limit: int) -> RowSorter: ...
    def reset(self, partitions: int, limit: int) -> None: ...
    def append(
        self,
        row_partitions: Buffer,
        partition_bytes: int,
        offsets: Buffer,
        offset_bytes: int,
        data: Buffer,
    ) -> list[int]: ...
    def append_rows(self, row_partitions: list[int], rows: list[bytes]) -> bool: ...
    def append_sorted(
        self, partition: int, offsets: Buffer, offset_bytes: int, data: Buffer
    ) -> list[int]: ...
    def drain(self) -> SortedRows: ...
    def reuse(self, rows: SortedRows) -> None: ...

class SortedRows:
    """Its twin is `cosco.client.write.state.sorting.SortedRows`."""

    def partition(self) -> int | None: ...
    def skip_long_row(self) -> bool: ...

class ColumnSorter:
    """Its twin is `cosco.client.write.state.batch_sorting.PortableBatchSorter`."""

    def __new__(
        cls,
        partitions: int,
        limit: int,
        kinds: Sequence[int],
        template: tuple[bytes, int, int, int, int],
    ) -> ColumnSorter: ...
    def reset(self, partitions: int, limit: int) -> None: ...
    def append(
        self,
        row_partitions: Buffer,
        partition_bytes: int,
        columns: list[tuple[Buffer | None, int, Buffer | None, Buffer | None]],
    ) -> None: ...
    def append_sorted(
        self,
        partition: int,
        rows: int,
        columns: list[tuple[Buffer | None, int, Buffer | None, Buffer | None]],
    ) -> None: ...
    def drain(self, sure_bytes: int) -> SortedColumns: ...
    def reuse(self, rows: SortedColumns) -> None: ...

class SortedColumns:
    """Its twin is `cosco.client.write.state.batch_sorting.SortedBatches`."""

    def partition(self) -> int | None: ...
    def row_bytes(self) -> float: ...
    def take(self) -> tuple[int, int, int]: ...
    def encode(self, first_piece: int, pieces: int, skipped: int, rows: int) -> bytes: ...
    def plain_bytes(self, first_piece: int, pieces: int, skipped: int, rows: int) -> int: ...
