"""Daemons that register with an address that another one has: who answers there keeps it.

A daemon listens before it registers, so a question that was begun after its registration came
finds it, if its address is its own. One that was begun before may still have found who was there
earlier, and says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from cosco.protocol.records import DaemonRef

#: What was found out is known for this time, for whoever asked; then it is asked anew.
KEPT_S: Final = 2.0
#: Questions at a time. They are asked some tens at a time, and who has given up leaves his: a flood
#: of claims would pile up. One more claimant is told to come again.
MAX_QUESTIONS: Final = 1024


class Claim(Enum):
    """What becomes of a registration."""

    GRANTED = 1  # nobody else has the address, or who has it does not listen there any more
    ASKED = 2  # it is being found out who is there
    TAKEN = 3  # another daemon answers there
    UNHEARD = 4  # nobody answers, and nobody refuses either; or too much is being found out


@dataclass(slots=True)
class _Question:
    ref: DaemonRef  # of the claimant
    under_way: bool = False
    outcome: Claim = Claim.ASKED
    answered_at: float = 0.0


class Claims:
    """The questions about addresses, one for each claimant."""

    def __init__(self) -> None:
        self._questions: dict[int, _Question] = {}

    def __bool__(self) -> bool:
        """Whether `pop_all` has something to give."""
        return any(not question.under_way for question in self._questions.values())

    def claim(self, ref: DaemonRef) -> Claim:
        """Return what was found out for a claimant, once; else have its address asked."""
        if ref.incarnation not in self._questions and len(self._questions) >= MAX_QUESTIONS:
            return Claim.UNHEARD
        question = self._questions.setdefault(ref.incarnation, _Question(ref))
        if question.outcome is not Claim.ASKED:
            del self._questions[ref.incarnation]
        return question.outcome

    def forget(self, incarnation: int) -> None:
        """Forget a claimant that need not ask any more."""
        self._questions.pop(incarnation, None)

    def pop_all(self) -> list[DaemonRef]:
        """Return the claimants at whose addresses to ask now; for each, `answered` must follow."""
        begun = [one for one in self._questions.values() if not one.under_way]
        for question in begun:
            question.under_way = True
        return [question.ref for question in begun]

    def answered(self, incarnation: int, outcome: Claim, now: float) -> None:
        """Note what was found out; harmless if nobody wants to know any more."""
        question = self._questions.get(incarnation)
        if question is not None and question.under_way:
            question.outcome, question.answered_at = outcome, now

    def expire(self, now: float) -> None:
        """Forget answers that nobody came for."""
        for incarnation, question in list(self._questions.items()):
            if question.outcome is not Claim.ASKED and now - question.answered_at >= KEPT_S:
                del self._questions[incarnation]
