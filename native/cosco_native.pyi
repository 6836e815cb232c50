"""The native part of Cosco; each call has a twin in `cosco` that does the same in Python."""

from typing import Final

#: Which calls there are: compared by `cosco.mechanics`.
INTERFACE: Final[int]
VERSION: Final[str]

class ServerConnection:
    """One connection of a gRPC server. Its socket stays the caller's, who waits for it.

    After whatever is called, `advance` must be, until it returns nothing. Calls have numbers.
    """

    def __init__(self, descriptor: int, streams: int, window_bytes: int) -> None:
        """Serve what comes over a connected socket.

        streams: calls at a time. window_bytes: what may come that nobody has asked for.
        """

    def advance(self, is_readable: bool) -> list[tuple[int, int, object]]:
        """Write what can be, and read if `is_readable`. Returns (kind, call, what) of what came.

        Kinds: 0 a call (its method), 1 a message, 2 one begins that is not allowed (its length),
        3 no further message, 4 gRPC was broken (how), 5 it was given up, 6 there is room to send
        again, 7 the connection is over (why).
        """

    def ask(self, call: int) -> None:
        """Ask for the next message of a call."""

    def allow(self, call: int, length: int) -> None:
        """Let messages of a call come that are up to this long."""

    def send(self, call: int, message: bytes) -> int | None:
        """Send a message.

        Returns: the bytes of the call that its peer has not taken; None if the call is over.
        """

    def finish(self, call: int, trailers: list[tuple[str, bytes]]) -> None:
        """End a call after what was sent. Raises ValueError for what HTTP does not take."""

    def reset(self, call: int) -> None:
        """End a call at once."""

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
    def awaits_pong(self) -> bool:
        """Whether the peer was asked whether it is there, and has not answered."""

    @property
    def received_bytes(self) -> int:
        """Bytes that have come."""

    @property
    def calls(self) -> int:
        """Calls under way."""

def count_blocks(data: bytes | bytearray | memoryview) -> int:
    """Return how many blocks there are. Raises DataCorrupted if one is damaged."""
