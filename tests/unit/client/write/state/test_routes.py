"""Which frames move, what an acknowledgement means, and what a commit names."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.opening import opened_at, opened_by

from cosco.client.write.state.framing import PackedFrame
from cosco.client.write.state.routes import Lane, Routes
from cosco.format.block import CODECS, encode_block
from cosco.format.frame import FRAME_HEADER_BYTES, FrameHeader
from cosco.protocol.keys import RangeEpoch
from cosco.protocol.push.messages import PushReply
from cosco.protocol.push.sender import OutFrame, ProtocolBroken
from cosco.protocol.records import Assignment, DaemonRef

NUMBER = 7
A, B, C = (DaemonRef(10 + i, f"host-{i}:1") for i in range(3))


def assigned(range_index: int, epoch: int, primary: DaemonRef, build: int = 1) -> Assignment:
    return Assignment(range_index, epoch, build, primary)


def routes_of(*primaries: DaemonRef) -> Routes:
    """Range i is with primaries[i], in epoch 1."""
    return Routes(opened_at(*primaries))


def packed(range_index: int, content: bytes) -> PackedFrame:
    header, stored, _ = encode_block(
        exchange=NUMBER, partition=range_index, mapper=1, attempt=1, first_row=0, rows=1,
        content=content, codec=CODECS["none"],
    )  # fmt: skip
    return PackedFrame(range_index, 1, [header, stored], len(header) + len(stored))


def send_all(lane: Lane) -> list[tuple[FrameHeader, bytes]]:
    """Announce and send everything; the frames as the daemon gets them."""
    lengths = [one for request in lane.sender.requests() for one in request.announce]
    lane.sender.on_reply(PushReply(granted=len(lengths)))
    sent = []
    for request in lane.sender.requests():
        lengths += request.announce
        if request.frame is not None:
            body = b"".join(request.frame.payload)
            assert request.frame.header.body_bytes == len(body)
            sent.append((request.frame.header, body))
    return sent


def acknowledge(routes: Routes, lane: Lane, sequences: Sequence[int]) -> list[OutFrame]:
    """What of it counts."""
    return list(routes.on_reply(lane, PushReply(sequences)).acknowledged)


def test_a_frame_is_stamped_for_the_current_assignment_of_its_range() -> None:
    routes = routes_of(A, B)
    frames = [packed(0, b"zero"), packed(1, b"one"), packed(1, b"more")]
    lanes = [routes.put(frame) for frame in frames]
    assert [lane.ref for lane in lanes] == [A, B, B]
    (first,) = send_all(lanes[0])
    assert first == (
        FrameHeader(NUMBER, A.incarnation, 1, 0, 1, frames[0].body_bytes, 1),
        b"".join(frames[0].parts),
    )
    assert [header.sequence for header, _ in send_all(lanes[1])] == [1, 2]
    assert routes.frames == 3
    assert routes.frame_bytes == sum(f.body_bytes + FRAME_HEADER_BYTES for f in frames)


def test_what_is_not_acknowledged_moves_with_its_range_and_keeps_its_blocks() -> None:
    routes = routes_of(A, A)
    held, moved, other = packed(0, b"held"), packed(0, b"moved"), packed(1, b"other")
    lane = routes.put(held)
    send_all(lane)
    assert len(acknowledge(routes, lane, [1])) == 1
    routes.put(moved)
    routes.put(other)
    in_flight = routes.frame_bytes
    send_all(lane)
    assert routes.renew([assigned(0, 2, B)]) == [(0, 1)]
    assert routes.current(0).primary == B
    assert routes.frame_bytes == in_flight
    (to_b,) = (one for one in routes.lanes() if one.ref == B)
    ((header, body),) = send_all(to_b)
    assert header == FrameHeader(NUMBER, B.incarnation, 1, 0, 2, moved.body_bytes, 1)
    assert body == b"".join(moved.parts)
    assert len(acknowledge(routes, lane, [2, 3])) == 1  # A's word on the moved one counts no more
    assert routes.acknowledged() == ((0, 1), (1, 1))
    assert len(acknowledge(routes, to_b, [1])) == 1
    assert routes.acknowledged() == ((0, 1), (0, 2), (1, 1))
    assert routes.frames == routes.frame_bytes == 0


def test_a_range_is_acknowledged_when_all_its_frames_are_acknowledged() -> None:
    routes = routes_of(A, B)
    assert routes.is_acknowledged(1)
    lane, *_ = [routes.put(packed(1, content)) for content in (b"one", b"more")]
    send_all(lane)
    assert (routes.is_acknowledged(0), routes.is_acknowledged(1)) == (True, False)
    acknowledge(routes, lane, [1])
    assert not routes.is_acknowledged(1)
    assert routes.renew([assigned(1, 2, C)]) == [(1, 1)]
    assert not routes.is_acknowledged(1)  # it only moved
    (moved,) = [lane for lane in routes.lanes() if lane.ref == C]
    send_all(moved)
    acknowledge(routes, moved, [1])
    assert routes.is_acknowledged(1)


def test_a_range_that_never_acknowledged_in_an_epoch_does_not_name_it() -> None:
    routes = routes_of(A)
    send_all(routes.put(packed(0, b"x")))
    routes.renew([assigned(0, 2, B)])
    routes.renew([assigned(0, 3, C)])
    (lane,) = (one for one in routes.lanes() if len(one.sender))
    assert lane.ref == C
    send_all(lane)
    acknowledge(routes, lane, [1])
    assert routes.acknowledged() == ((0, 3),)


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_only_newer_epochs_of_known_ranges_count(epoch: int) -> None:
    routes = routes_of(A)
    routes.renew([assigned(0, 2, B)])
    routes.put(packed(0, b"x"))
    assert routes.renew([assigned(0, epoch, C), assigned(9, 5, C)]) == []
    assert routes.current(0) == assigned(0, 2, B)
    assert [lane.ref for lane in routes.lanes() if len(lane.sender)] == [B]


def test_a_range_may_stay_on_its_daemon_in_a_new_epoch() -> None:
    routes = routes_of(A, A)
    lane = routes.put(packed(0, b"x"))
    routes.put(packed(1, b"y"))
    send_all(lane)
    routes.renew([assigned(0, 2, A, build=2)])
    assert len(acknowledge(routes, lane, [1, 2])) == 1  # of the old epoch, and of range 1
    ((header, _),) = send_all(lane)
    assert (header.epoch, header.sequence) == (2, 3)
    acknowledge(routes, lane, [3])
    assert routes.acknowledged() == ((0, 2), (1, 1))


def test_pairs_that_ended_are_told_from_those_that_did_not() -> None:
    routes = routes_of(A, A, B)
    assert routes.routed_to(A) == {(0, 1), (1, 1)}
    routes.renew([assigned(0, 2, B)])
    assert routes.routed_to(A) == {(1, 1)}
    assert routes.routed_to(B) == {(0, 2), (2, 1)}
    assert routes.stale([RangeEpoch(0, 1), RangeEpoch(0, 2), RangeEpoch(1, 1)]) == {(0, 1)}


def test_a_lane_is_released_when_it_is_empty_and_nothing_leads_there() -> None:
    routes = routes_of(A, A)
    first = routes.put(packed(0, b"x"))
    routes.renew([assigned(0, 2, B)])
    assert routes.retire() == []  # range 1 is still A's
    routes.renew([assigned(1, 2, B)])
    assert routes.retire() == [first]
    assert [lane.ref for lane in routes.lanes()] == [B]
    routes.renew([assigned(0, 3, A)])
    again = next(lane for lane in routes.lanes() if lane.ref == A)
    assert again is not first  # whose stream may still be ending
    assert len(again.sender) == 1


class Cluster:
    """Daemons that hold what they are sent until their epoch is sealed, and a metadata
    service that seals and moves at any moment; streams break, answers come late or never."""

    def __init__(self, data: st.DataObject, ranges: int, daemons: int) -> None:
        self.data = data
        self.refs = [DaemonRef(100 + i, f"d{i}:1") for i in range(daemons)]
        self.newest = {i: assigned(i, 1, self.refs[i % daemons]) for i in range(ranges)}
        self.routes = Routes(opened_by(self.newest.values(), NUMBER))
        self.put = 0
        #: Pair → contents its daemon has taken.
        self.held: dict[tuple[int, int], set[bytes]] = {}
        #: Lane → sequences whose acknowledgement is on its way.
        self.replies: dict[Lane, list[int]] = {}
        self.told: dict[tuple[int, int], set[bytes]] = {}  # what the writer was told, by pair

    def choose(self, options: Sequence[Lane]) -> Lane | None:
        return self.data.draw(st.sampled_from(options)) if options else None

    def add(self) -> None:
        index = self.data.draw(st.sampled_from(sorted(self.newest)))
        self.put += 1
        self.routes.put(packed(index, b"%d" % self.put))

    def seal(self) -> None:
        index = self.data.draw(st.sampled_from(sorted(self.newest)))
        old = self.newest[index]
        primary = self.data.draw(st.sampled_from(self.refs))
        self.newest[index] = assigned(index, old.epoch + 1, primary)

    def renew(self) -> None:
        known = self.data.draw(st.lists(st.sampled_from(sorted(self.newest)), unique=True))
        self.routes.renew(self.newest[index] for index in known)
        for lane in self.routes.retire():
            self.replies.pop(lane, None)

    def send(self) -> None:
        lane = self.choose([one for one in self.routes.lanes() if len(one.sender)])
        if lane is None:
            return
        for header, body in send_all(lane):
            pair = (header.range_index, header.epoch)
            assert header.incarnation == lane.ref.incarnation
            if self.newest[header.range_index].epoch == header.epoch:  # else it is fenced
                self.held.setdefault(pair, set()).add(body)
                self.replies.setdefault(lane, []).append(header.sequence)

    def reply(self) -> None:
        lane = self.choose([lane for lane, waiting in self.replies.items() if waiting])
        if lane is None:
            return
        waiting = self.replies[lane]
        answered = self.data.draw(st.lists(st.sampled_from(waiting), min_size=1, unique=True))
        count = self.routes.frames
        acknowledged = acknowledge(self.routes, lane, answered)
        assert self.routes.frames == count - len(acknowledged)
        for sequence in answered:
            waiting.remove(sequence)
        for frame in acknowledged:
            assert self.routes.current(frame.header.range_index).epoch == frame.header.epoch
            self.told.setdefault(frame.range_epoch, set()).add(b"".join(frame.payload))

    def cut(self, lane: Lane | None = None) -> None:
        lane = lane or self.choose(self.routes.lanes())
        if lane is not None:
            lane.sender.begin_stream()
            self.replies.pop(lane, None)

    def settle(self) -> None:
        """No more failures: everything gets through."""
        self.routes.renew(self.newest.values())
        for lane in self.routes.lanes():
            self.cut(lane)
            for header, body in send_all(lane):
                pair = (header.range_index, header.epoch)
                assert self.newest[header.range_index].epoch == header.epoch
                self.held.setdefault(pair, set()).add(body)
                self.told.setdefault(pair, set()).add(body)
                acknowledge(self.routes, lane, [header.sequence])


@given(st.data())
def test_every_frame_is_acknowledged_once_by_the_epoch_that_holds_it(data: st.DataObject) -> None:
    cluster = Cluster(data, ranges=data.draw(st.integers(1, 3)), daemons=3)
    actions = ["add", "add", "seal", "renew", "send", "send", "reply", "cut"]
    for name in data.draw(st.lists(st.sampled_from(actions), max_size=60)):
        getattr(cluster, name)()
    cluster.settle()
    assert cluster.routes.frames == cluster.routes.frame_bytes == 0
    told = [body for bodies in cluster.told.values() for body in bodies]
    assert len(told) == len(set(told)) == cluster.put  # none lost, none counted twice
    for pair, bodies in cluster.told.items():
        assert bodies <= cluster.held[pair]
    assert cluster.routes.acknowledged() == tuple(sorted(cluster.told))


def test_nonsense_of_a_daemon_is_told() -> None:
    routes = routes_of(A)
    lane = routes.put(packed(0, b"x"))
    with pytest.raises(ProtocolBroken):
        acknowledge(routes, lane, [1])
