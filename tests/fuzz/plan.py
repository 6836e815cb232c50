"""Which messages are sent: all of it follows from a seed, an index and the names of a cluster."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from google.protobuf.message import Message

from cosco.protocol import wire
from cosco.protocol.wire import spb

from .messages import METHODS, SHUFFLE_METHODS, push_messages, valid_message
from .mutation import mutate_bytes, mutate_fields
from .names import Names, is_harmless

#: Of the daemon's methods, those whose requests are streams.
STREAMS: Final = frozenset({"Push", "Follow"})
#: A method that much is behind comes more often.
_WEIGHTS: Final = {"Push": 6, "Fetch": 3, "Follow": 3, "Commit": 3, "CommitBatch": 2}


class Ending(Enum):
    """How the fuzzer ends a call."""

    WHOLE = "whole"  # it takes all answers
    ABANDONED = "abandoned"  # it is gone before it has them
    OPEN = "open"  # of a stream: it says nothing more, and goes after a while


@dataclass(frozen=True, slots=True)
class Case:
    """One call. daemon: its index in `Names.daemons`, None for the metadata service."""

    index: int
    method: str
    daemon: int | None
    messages: tuple[bytes, ...]
    ending: Ending

    @property
    def path(self) -> str:
        """The name of the method in HTTP/2."""
        service = wire.METADATA_SERVICE if self.daemon is None else wire.SHUFFLE_SERVICE
        return f"/{service}/{self.method}"


def case(seed: int, index: int, names: Names) -> Case | None:
    """Return the call of an index; None if it would harm the honest job by being valid."""
    rng = random.Random(f"{seed}/{index}")
    methods = list(METHODS)
    method = rng.choices(methods, [_WEIGHTS.get(name, 1) for name in methods])[0]
    daemon: int | None = None
    said: list[Message]
    if method == "Push":
        daemon, said = push_messages(names, rng)
    else:
        said = [valid_message(method, names, rng) for _ in range(_count(method, rng))]
        if method in SHUFFLE_METHODS:
            daemon = rng.randrange(len(names.daemons))
    messages = _mutated(method, said, names, rng)
    if not all(is_harmless(method, METHODS[method], data, names) for data in messages):
        return None
    chance = rng.random()
    ending = Ending.WHOLE
    if chance < 0.1:
        ending = Ending.ABANDONED
    elif chance < 0.3 and method in STREAMS:
        ending = Ending.OPEN
    return Case(index, method, daemon, tuple(messages), ending)


def _count(method: str, rng: random.Random) -> int:
    if method in STREAMS:
        return rng.randint(1, 4)
    # A call that has no request, or several, is one that nobody's client makes.
    return rng.choice((0, 2)) if rng.random() < 0.03 else 1


def _mutated(method: str, said: Sequence[Message], names: Names, rng: random.Random) -> list[bytes]:
    """Return messages as they are, or with fields, bytes or their order changed."""
    if not said:
        return []
    chance = rng.random()
    if 0.35 <= chance < 0.7:
        chosen = said[rng.randrange(len(said))]
        mutate_fields(chosen, rng)
    found = [message.SerializeToString() for message in said]
    if chance >= 0.7:
        at = rng.randrange(len(found))
        other = spb.FollowRequests() if method in STREAMS else valid_message(method, names, rng)
        found[at] = mutate_bytes(found[at], rng, [*found, other.SerializeToString()])
    if method in STREAMS and rng.random() < 0.2:
        rng.shuffle(found)
    if method in STREAMS and rng.random() < 0.1:
        found.insert(rng.randrange(len(found) + 1), found[rng.randrange(len(found))])
    return found
