"""How many streams a tenant may have: they come, go, and make room while they rest."""

from __future__ import annotations

import pytest

from cosco.errors import ServiceUnavailable
from cosco.shuffle_service.state.tenants.tenant_streams import TenantStreams


class Stream:
    """One of a tenant's; how it makes room: not, at once, or a moment later."""

    def __init__(self, streams: TenantStreams, tenant: int = 7, *, makes_room: str = "") -> None:
        self.streams, self.tenant, self.makes_room = streams, tenant, makes_room
        self.asked: list[float] = []
        streams.enter(tenant, self, 10.0)

    def make_room(self, now: float) -> bool:
        self.asked.append(now)
        if self.makes_room == "at once":
            self.leave()
        return bool(self.makes_room)

    def leave(self) -> None:
        self.streams.leave(self.tenant, self)


def test_one_more_is_told_to_try_again_and_counted_until_one_has_ended() -> None:
    refused: list[int] = []
    streams = TenantStreams(2, lambda: refused.append(1))
    first, _ = Stream(streams), Stream(streams)
    Stream(streams, 8)
    assert first.asked == []
    with pytest.raises(ServiceUnavailable, match="--tenant-streams") as told:
        Stream(streams)
    assert told.value.retriable
    assert (len(refused), streams.of(7)) == (1, 2)
    assert first.asked == [10.0]
    first.leave()
    first.leave()
    Stream(streams)
    assert (len(refused), streams.of(7)) == (1, 2)


def test_one_that_rests_makes_room_at_once_or_for_the_next_try() -> None:
    refused: list[int] = []
    streams = TenantStreams(2, lambda: refused.append(1))
    busy, resting = Stream(streams), Stream(streams, makes_room="at once")
    Stream(streams)
    assert (streams.of(7), refused) == (2, [])
    assert (len(busy.asked), len(resting.asked)) == (1, 1)
    streams = TenantStreams(1, lambda: refused.append(1))
    ending = Stream(streams, makes_room="later")
    with pytest.raises(ServiceUnavailable):
        Stream(streams)
    ending.leave()
    Stream(streams)
    assert len(refused) == 1


def test_few_are_asked_at_a_time_and_all_in_turn() -> None:
    streams = TenantStreams(100)
    opened = [Stream(streams) for _ in range(100)]
    for _ in range(4):
        with pytest.raises(ServiceUnavailable):
            Stream(streams)
    assert {len(stream.asked) for stream in opened} == {1, 2}
    assert sum(len(stream.asked) for stream in opened) == 4 * 32


def test_those_of_nobody_and_of_who_has_no_bound_are_as_many_as_come() -> None:
    streams = TenantStreams(1)
    for _ in range(9):
        Stream(streams, 0).leave()
        Stream(streams, 0)
    assert streams.of(0) == 0
    unbounded = TenantStreams()
    for _ in range(9):
        Stream(unbounded)
    assert unbounded.of(7) == 9


def test_nothing_is_kept_of_who_has_left() -> None:
    streams = TenantStreams(1)
    for tenant in range(1, 100):
        Stream(streams, tenant).leave()
    assert not streams._open
