"""What the client needs of gRPC: channels and calls on them, whoever carries them out.

Messages are bytes here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from cosco.client.rpc.scope import Scope
from cosco.process.tls.tls_files import TlsFiles

_T = TypeVar("_T")


class Call(ABC):
    """A call under way: an iterator over its replies, failing with named errors only.

    They are the CoscoError that the service meant, Unreachable where another try may help,
    ServiceUnavailable for other failures, ClientClosed once the scope of the call is closed.
    """

    def __iter__(self) -> Self:
        return self

    @abstractmethod
    def __next__(self) -> bytes:
        """Return the next reply."""

    @abstractmethod
    def cancel(self) -> None:
        """End the call. Whoever waits for it gets ClientClosed if the scope is closed."""


class TimedCall(Call):
    """A call that can be waited for for a while."""

    @abstractmethod
    def within(self, seconds: float) -> bytes | None:
        """Return the next reply, or None if there is none in that time; else as `next`."""


class Conversation(ABC, Generic[_T]):
    """A call on which much is said: an iterator over the replies, and a way to say more."""

    @abstractmethod
    def say(self, saying: _T) -> None:
        """Have something said, in order. Waits for nothing, and may be called with locks held."""

    @abstractmethod
    def end(self) -> None:
        """Say nothing further, so that the service ends the call when it has answered."""

    @abstractmethod
    def __iter__(self) -> Iterator[bytes]:
        """Yield the replies, for one thread; see `Call` for how it fails."""

    @abstractmethod
    def cancel(self) -> None:
        """End the call at once."""


class TimedConversation(Conversation[_T]):
    """One whose replies any thread can wait for, for a while; one thread at a time."""

    @abstractmethod
    def receive(self, timeout_s: float) -> bytes | None:
        """Return the next reply; None if there is none in that time, or after `wake`.

        Raises: StopIteration at the end, or as `Call` says.
        """

    @abstractmethod
    def wake(self) -> None:
        """Have whoever is in `receive`, or comes next, return at once."""

    @abstractmethod
    def idle_left_s(self) -> float:
        """Return in how long `end_if_idle` is to be called."""

    @abstractmethod
    def end_if_idle(self) -> bool:
        """End it if nothing was said for as long as its manner has it, and it is over then.

        Returns: whether it has ended.
        """


@dataclass(frozen=True, slots=True)
class Manner(Generic[_T]):
    """How a conversation is held.

    encoded: makes a message of what was said, of at most `batch` sayings at a time.
    idle_s: when nothing was said for about this time, `is_over` is asked whether to end it. Neither
    may take a lock.
    """

    encoded: Callable[[Sequence[_T]], bytes]
    batch: int
    idle_s: float
    is_over: Callable[[], bool]


class Channel(ABC):
    """A connection to one address, made at the first call and again when it was lost.

    Each call raises ClientClosed if its scope is closed, and ServiceUnavailable if there can be no
    thread for it.
    """

    @abstractmethod
    def unary(
        self, method: str, request: bytes, timeout_s: float, scope: Scope, credential: str = ""
    ) -> bytes:
        """Make a unary call, and return its reply; fails as a `Call`.

        credential: what is shown with the call; empty: none.
        """

    @abstractmethod
    def fetch_stream(self, method: str, request: bytes, scope: Scope) -> Call:
        """Start a call with one request. Iterate over it for the replies."""

    @abstractmethod
    def conversation(self, method: str, manner: Manner[_T], scope: Scope) -> Conversation[_T]:
        """Start a call on which much will be said."""

    @abstractmethod
    def close(self) -> None:
        """End all that is under way, and the connection."""


class Transport(ABC):
    """Makes channels."""

    @abstractmethod
    def channel(self, address: str, files: TlsFiles | None) -> Channel:
        """Return a channel to `host:port`, which begins without a connection.

        files: of TLS; None: without.

        Raises: RuntimeError if there can be no thread, InvalidArgument for files that cannot be
        used.
        """

    @abstractmethod
    def refusal(self) -> str:
        """Say why this process must not make calls, as it was forked; empty if it may."""

    @abstractmethod
    def install(self, *, in_child: Callable[[], None]) -> None:
        """Have every fork of this process leave a child that can make calls.

        Called once, after the first channel was made. in_child: is run there before anything else.
        """
