"""The receiver's half of one push stream: what may come, what is answered. No IO.

Whoever moves the bytes hands requests in by `on_requests`, reads on while `may_read`, and
sends what `next_reply` gives; whatever gathers while one reply is on its way goes out as the next
one. One caller at a time. A frame is handed on unopened: only its header is looked at, for the
sequence by which it is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from cosco.errors import CoscoError, InvalidArgument
from cosco.format.frame import sequence_of
from cosco.protocol.push.answers import Answer, refusal_code
from cosco.protocol.push.credits import FrameBudget, FrameBudgets, StreamCredits
from cosco.protocol.push.messages import (
    Hello,
    PushReply,
    PushRequest,
    Refusal,
    RefusalCode,
)
from cosco.protocol.version import check_protocol

#: A stream is not read on while this many answers wait to be told on it.
MAX_UNTOLD: Final = 1024


class Intake(Protocol):
    """Where the frames of one sender go. tenant: the tag of the tenant who sends; 0: it is not
    known, or a primary."""

    @property
    def tenant(self) -> int: ...

    def take_in(self, data: memoryview, answer: Answer, now: float) -> bool:
        """Take in a frame; `answer` is called once it is in and safe, or will not be.

        Returns: False if it is still being taken in; the next one may come after
        `PushReceiver.resume`.
        """
        ...

    def settle(self, now: float) -> None:
        """See to what is due once for all frames that entered together. Repeatable."""
        ...

    def released(self, sequences: Sequence[int], now: float) -> None:
        """Let copies of these frames go; raises InvalidArgument."""
        ...

    def max_bytes(self) -> int:
        """Return how many bytes of its frames may stay held here; 0: as told before."""
        ...

    def hung_up(self, now: float) -> None:
        """Note that the stream has ended, or that another writer takes it over.

        `answer` need not be called any more. Repeatable.
        """
        ...


class PushReceiver:
    """One stream, from its first request to its end.

    open_intake: gives what takes in the frames of a sender that says hello; raises InvalidArgument
    or AccessDenied for one that there is none for.
    """

    def __init__(
        self,
        incarnation: int,
        budgets: FrameBudgets,
        open_intake: Callable[[Hello, PushReceiver, float], Intake],
    ) -> None:
        #: Called when there is something to say, or to be read again.
        self.wake: Callable[[], object] = lambda: None
        #: Called when the stream is to be ended from this side; the sender opens another one.
        self.cut_off: Callable[[], object] = lambda: None
        self._incarnation = incarnation
        self._budgets = budgets
        self._open_intake = open_intake
        self._budget: FrameBudget = budgets.writers
        self._share: StreamCredits | None = None
        self._intake: Intake | None = None
        self._under_way = 0  # frames that are not answered
        self._is_taking_in = False
        # The reply that gathers:
        self._has_news = False
        self._acknowledged: list[int] = []
        self._refused: list[Refusal] = []
        self._granted = self._eager_bytes = 0

    @property
    def may_read(self) -> bool:
        """Whether the next request may be read."""
        untold = len(self._acknowledged) + len(self._refused)
        return not self._is_taking_in and untold < MAX_UNTOLD

    @property
    def expected_bytes(self) -> int:
        """Return how many bytes of frames may come now: granted ones, and what is left to lend."""
        share = self._share
        if share is None:
            return 0
        return sum(share.granted) + share.eager_limit - share.eager_bytes

    @property
    def lent_bytes(self) -> int:
        """Return how many bytes of frames may come eagerly now."""
        share = self._share
        return 0 if share is None else share.eager_limit - share.eager_bytes

    @property
    def is_under_way(self) -> bool:
        """Whether a frame that came is not answered yet."""
        return self._under_way > 0

    @property
    def is_of_no_use(self) -> bool:
        """Whether a writer waits for nothing on it, neither an answer nor room for a frame, so that
        it may as well be ended. A primary keeps its stream as long as it has copies."""
        share = self._share
        if share is None or self._under_way:
            return False
        return self._budget is not self._budgets.primaries and not share.announced

    @property
    def rests(self) -> bool:
        """Whether nothing is announced, granted or unanswered on it."""
        return self._share is not None and self._share.is_idle and not self._under_way

    # --- requests -------------------------------------------------------------------------

    def on_requests(self, requests: Iterable[PushRequest[memoryview]], now: float) -> None:
        """Take note of what the sender says, one thing after the other, while it may be read from.

        Raises InvalidArgument if it breaks the rules, and AccessDenied or another CoscoError if it
        may not do what it wants to; what it said before that counts, and the stream is to be
        closed. What is not taken from `requests` is to be handed in again once the stream may be
        read from.
        """
        try:
            for request in requests:
                self._on_request(request, now)
                if not self.may_read:
                    break
        finally:
            if self._intake is not None:
                self._intake.settle(now)

    def _on_request(self, request: PushRequest[memoryview], now: float) -> None:
        self._budget.now = now
        if request.hello is not None:
            self._on_hello(request.hello, now)
        share, intake = self._share, self._intake
        if share is None or intake is None:
            raise InvalidArgument("a push stream that does not begin with hello")
        if request.released:
            intake.released(request.released, now)
        if request.announce:
            self._budget.announce(share, request.announce)
            self._budget.give_out()
        if request.withdrawn:
            accounted = self._budget.received(share, 0)
            self._budget.taken_in(share, now)
            self._budget.give_back(share, accounted)
        if request.frame is not None:
            self._on_frame(request.frame, request.eager, share, intake, now)
        elif not (request.hello or request.released or request.announce or request.withdrawn):
            raise InvalidArgument("a push message that says nothing")

    def _on_hello(self, hello: Hello, now: float) -> None:
        check_protocol(hello.protocol, "a primary" if hello.primary else "a writer")
        budgets = self._budgets
        budget = budgets.primaries if hello.primary else budgets.writers
        if self._share is None:
            self._budget, budget.now = budget, now
        elif budgets.primaries in {budget, self._budget}:
            raise InvalidArgument("a second hello on the stream of a primary")
        elif self._under_way or not self._share.is_idle:
            raise InvalidArgument("a second hello while frames are under way")
        elif self._intake is not None:  # another writer goes on with the stream
            self._intake.hung_up(now)
        self._intake = self._open_intake(hello, self, now)
        self._share_with(self._intake.tenant)
        if hello.incarnation != self._incarnation:
            reason = "this daemon was started again since; ask for the assignment again"
            self._refuse(Refusal(0, RefusalCode.WRONG_INCARNATION, reason))

    def _share_with(self, tenant: int) -> None:
        """Have the stream, on which nothing is under way, share the budget as a tenant's."""
        if self._share is not None:
            self._budget.now_of(self._share, tenant)
            return
        self._share = self._budget.open(self._on_grant, self.cut_off, tenant)
        if self._share.eager_limit:
            self._eager_bytes = self._share.eager_limit
            self.tell()

    def _on_frame(
        self, frame: memoryview, eager: bool, share: StreamCredits, intake: Intake, now: float
    ) -> None:
        budget, length, sequence = self._budget, len(frame), sequence_of(frame)
        if eager:
            budget.received_eagerly(share, length)
        else:
            length = budget.received(share, length)
        self._under_way += 1

        def answer(error: CoscoError | None) -> None:
            self._under_way -= 1
            if self._share is None:
                return  # the stream has ended, and gave back everything
            if error is None:
                self._acknowledged.append(sequence)
                self.tell()
            else:
                self._refuse(Refusal(sequence, refusal_code(error), str(error)))
            if eager:
                budget.give_back_eager(share, length)
            else:
                budget.give_back(share, length)

        self._is_taking_in = True
        if intake.take_in(frame, answer, now):
            self._is_taking_in = False
            budget.taken_in(share, now)

    def resume(self, now: float) -> None:
        """Read on: the frame that came last has been taken in, or refused."""
        self._is_taking_in = False
        if self._share is not None:
            self._budget.taken_in(self._share, now)
        self.wake()

    # --- replies --------------------------------------------------------------------------

    def next_reply(self) -> PushReply | None:
        """Return what to say now, None if nothing; to be asked again after `wake`."""
        if not self._has_news:
            return None
        max_bytes = 0 if self._intake is None else self._intake.max_bytes()
        reply = PushReply(
            self._acknowledged, self._granted, self._refused, max_bytes, self._eager_bytes
        )
        self._acknowledged, self._refused = [], []
        self._granted = self._eager_bytes = 0
        self._has_news = False
        if len(reply.acknowledged) + len(reply.refused) >= MAX_UNTOLD:
            self.wake()  # it may be read from again
        return reply

    def tell(self) -> None:
        """Send a reply soon, with what is true then."""
        self._has_news = True
        self.wake()

    def _refuse(self, refusal: Refusal) -> None:
        self._refused.append(refusal)
        self.tell()

    def _on_grant(self) -> None:
        self._granted += 1
        self.tell()

    # --- the end --------------------------------------------------------------------------

    def close(self, now: float, *, why: CoscoError | None = None) -> None:
        """End the stream: what it held is free again, and nothing is answered any more.

        why: which rule the sender broke, or what it may not do, to be told to it.
        """
        share, self._share = self._share, None
        if share is not None:
            self._budget.close(share)
        if self._intake is not None:
            self._intake.hung_up(now)
        if why is not None:
            self._refuse(Refusal(0, refusal_code(why), str(why)))
