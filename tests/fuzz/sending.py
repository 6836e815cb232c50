"""Makes the calls, each within a bounded time, and says what was wrong with the answer."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from cosco.protocol.wire import spb

from .messages import METHODS
from .plan import STREAMS, Case, Ending

#: An answer comes within this time if a call may ask to wait, for half a minute; else soon.
ANSWER_S: Final = 45.0
SOON_S: Final = 20.0
#: Streams that are left open are, for this time; and calls that are abandoned.
_OPEN_S: Final = 0.5
_ABANDON_S: Final = 0.005
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 1 << 20),
    ("grpc.absolute_max_metadata_size", 1 << 20),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
#: Statuses that say that the service does not know what it did.
_BAD: Final = frozenset(
    {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}
)


class Sender:
    """Calls a cluster's services, from any number of threads; to be closed.

    Not asyncio's client: it tells of an error of its own where a service ends a stream before it
    has taken all messages.
    """

    def __init__(self, metadata: str, daemons: list[str]) -> None:
        self._metadata = grpc.insecure_channel(metadata, _OPTIONS)
        self._daemons = [grpc.insecure_channel(address, _OPTIONS) for address in daemons]
        self._lock = threading.Lock()
        self._under_way: set[Any] = set()
        self._closed = False
        #: How calls ended: by the name of their method and of the status.
        self.ended: Counter[tuple[str, str]] = Counter()

    def close(self) -> None:
        """Break off what is under way: how that ends is no matter any more."""
        with self._lock:
            self._closed = True
            calls = list(self._under_way)
        for call in calls:
            call.cancel()
        for channel in (self._metadata, *self._daemons):
            channel.close()

    def send(self, case: Case) -> str:
        """Make a call. Returns what was wrong with its answer; empty: nothing was."""
        # Set when a stream need not be kept open any more.
        done = threading.Event()
        with self._lock:
            if self._closed:
                return ""
            call = self._begin(case, done)
            self._under_way.add(call)
        try:
            return self._answer(call, case)
        finally:
            done.set()
            call.cancel()
            with self._lock:
                self._under_way.discard(call)

    def _begin(self, case: Case, done: threading.Event) -> Any:
        channel: Any = self._metadata if case.daemon is None else self._daemons[case.daemon]
        may_wait = "wait_s" in METHODS[case.method].DESCRIPTOR.fields_by_name
        timeout_s = ANSWER_S if may_wait else SOON_S
        if case.ending is not Ending.WHOLE:
            timeout_s = _OPEN_S if case.ending is Ending.OPEN else _ABANDON_S
        if len(case.messages) == 1 and case.method not in STREAMS:
            # Also of one answer: then it ends as soon as it has come.
            return channel.unary_stream(case.path)(case.messages[0], timeout=timeout_s)
        return channel.stream_stream(case.path)(_said(case, done), timeout=timeout_s)

    def _answer(self, call: Any, case: Case) -> str:
        wrong, began_s = "", time.monotonic()
        try:
            for reply in call:
                if case.method == "Push":
                    wrong = wrong or bad_reply(reply)
        except grpc.RpcError:
            pass
        code, details = call.code(), call.details() or ""
        if self._closed:
            return ""
        if case.ending is not Ending.WHOLE and code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self.ended[case.method, case.ending.value] += 1
            return wrong
        self.ended[case.method, code.name] += 1
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"no answer in {time.monotonic() - began_s:.1f} s"
        return wrong or bad_end(code, details)


def _said(case: Case, done: threading.Event) -> Iterator[bytes]:
    yield from case.messages
    if case.ending is Ending.OPEN:
        done.wait(ANSWER_S)


def bad_end(code: grpc.StatusCode, details: str) -> str:
    """Return what is wrong with how a call ended; empty if nothing is."""
    if code in _BAD:
        return f"it ended with {code.name}: {details}"
    if not details.isprintable():
        return f"it ended with {code.name}, and moves a cursor or has several lines: {details!r}"
    return ""


def bad_reply(reply: bytes) -> str:
    """Return what is wrong with a reply on a push stream; empty if nothing is."""
    try:
        said = spb.PushReply.FromString(reply)
    except DecodeError as error:
        return f"a reply that is none: {error}"
    for refusal in said.refused:
        if not refusal.reason.isprintable():
            return f"a refusal that moves a cursor or has several lines: {refusal.reason!r}"
    return ""
