"""Messages for tests/golden/messages.txt, made by what the product makes them by."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from google.protobuf import text_format
from google.protobuf.message import Message
from pyroaring import BitMap
from support.golden import Case, shown

from cosco.errors import CommitTimeout
from cosco.format.block import CODEC_NONE, encode_block
from cosco.format.frame import FrameHeader
from cosco.protocol import wire
from cosco.protocol.fetch_records import FetchPart, FetchRequest, Reference
from cosco.protocol.group_records import Follow
from cosco.protocol.pb import metadata_pb2 as mpb
from cosco.protocol.pb import shuffle_pb2 as spb
from cosco.protocol.push.messages import Hello, PushReply, PushRequest, Refusal, RefusalCode
from cosco.protocol.push.sender import OutFrame
from cosco.protocol.records import (
    AttemptSums,
    CommitRequest,
    CommitWait,
    DaemonRef,
    LossCause,
    LossReport,
    RangeSnapshot,
    RangesWait,
    ReadSnapshot,
    Source,
    pairs_array,
)

_ATTEMPT: Final = (1 << 63) + 9
_REF: Final = DaemonRef(0xFEDC_BA98_7654_3210, "daemon-1.example:7071")


class GoldenMessage(NamedTuple):
    """One case. is_exact: others make the same bytes of the same message; else the fields are in
    another order, or a message comes in two pieces, and all that must be the same is what is read.
    """

    case: str
    about: str
    kind: type[Message]
    content: bytes
    is_exact: bool = True

    def told(self) -> Case:
        """Return its lines."""
        text = text_format.MessageToString(self.kind.FromString(self.content), as_one_line=True)
        return {
            "message": self.kind.DESCRIPTOR.name,
            "exact": "yes" if self.is_exact else "no",
            "text": text or "-",
            "bytes": shown(self.content),
        }


def _u64(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array(numbers, np.uint64)


def _commit(*, partial: bool) -> bytes:
    sums = AttemptSums(
        np.array([0, 1, 70_000], np.uint32), _u64(3, 1 << 33, 7), _u64(4, 5, 300),
        _u64(80, 70, 364), _u64(1, (1 << 64) - 1, 1 << 63),
    )  # fmt: skip
    commit = CommitRequest(
        4711, 3, _ATTEMPT, 1, pairs_array([(0, 1), (0, 2), (5, 1)]), sums,
        partial, (0, 5) if partial else (),
    )  # fmt: skip
    content: bytes = wire.to_pb(commit).SerializeToString()
    return content


def _empty_commit() -> bytes:
    nothing = np.zeros(0, np.uint64)
    sums = AttemptSums(np.zeros(0, np.uint32), nothing, nothing, nothing, nothing)
    commit = CommitRequest(4711, 3, 1, 1, pairs_array([]), sums)
    content: bytes = wire.to_pb(commit).SerializeToString()
    return content


def _snapshot(rows: int, *, version: int = 12) -> ReadSnapshot:
    source = Source(2, 5, (_REF, DaemonRef(7, "daemon-2.example:7071")), sealed=True)
    return ReadSnapshot(
        version, 1, 2, np.array([0, 3, 260], np.uint32), _u64(1, _ATTEMPT, 3), rows, 4 * rows,
        (1 << 64) - 1 if rows else 0, (source, Source(2, 4, ())),
    )  # fmt: skip


def _one_partition() -> bytes:
    snapshot = _snapshot(11)
    mappers = wire.snapshot_mappers(snapshot.mappers, snapshot.attempts)
    return wire.wait_reply(CommitWait(snapshot), mappers)


def _ranges() -> bytes:
    first = _snapshot(0)
    pair = np.array([8, 11], np.uint32)
    ranges = (
        RangeSnapshot(first, pair, _u64(0, 300), _u64(0, 70_000), _u64(0, 1 << 63)),
        RangeSnapshot(first, pair + np.uint32(8), _u64(0, 0), _u64(0, 0), _u64(0, 0)),
    )
    wait = RangesWait(ranges, BitMap((40,)), BitMap((9,)), recompute=True)
    return wire.ranges_reply(wait, lambda c: wire.snapshot_mappers(c.mappers, c.attempts))


def _frame() -> OutFrame:
    header, stored, _ = encode_block(
        exchange=4711, partition=8, mapper=3, attempt=_ATTEMPT, first_row=0, rows=1,
        content=b"row", codec=CODEC_NONE,
    )  # fmt: skip
    body = header + stored
    named = FrameHeader(4711, _REF.incarnation, 1, 2, 5, len(body), 1)
    return OutFrame(named, [body])


def _hello() -> Hello:
    return Hello(4711, 3, _ATTEMPT, _REF.incarnation, capability="cosco1.example")


def _push_messages() -> list[GoldenMessage]:
    eager = PushRequest(hello=_hello(), eager=True, frame=_frame())
    refusal = Refusal(9, RefusalCode.NOT_ASSIGNED, "range 2 is sealed")
    request, reply = wire.push_request_to_bytes, wire.push_reply_to_bytes
    return [
        GoldenMessage("hello", "The first message of a writer's stream.", spb.PushRequest,
                      request(PushRequest(hello=_hello()))),
        GoldenMessage("hello-eager", "With a short frame, as the loan is known.",
                      spb.PushRequest, request(eager)),
        GoldenMessage("announce", "Lengths of frames that wait.", spb.PushRequest,
                      request(PushRequest(announce=(2_097_152, 130)))),
        GoldenMessage("frame", "A frame that was granted, alone in its message.",
                      spb.PushRequest, request(PushRequest(frame=_frame()))),
        GoldenMessage("withdrawn", "The frame that was granted does not come.",
                      spb.PushRequest, request(PushRequest(withdrawn=True))),
        GoldenMessage("push-reply", "", spb.PushReply,
                      reply(PushReply((1, 300), 2, (refusal,), eager_bytes=524_288))),
    ]  # fmt: skip


def _fetch_messages() -> list[GoldenMessage]:
    part = FetchPart(2, 5, BitMap((8, 11)), files=True)
    other = FetchPart(3, 1, BitMap((16,)))
    one = FetchRequest(4711, (FetchPart(2, 5, BitMap((11,)), files=True),), several=False)
    several = FetchRequest(4711, (part, other), BitMap((0, 3)), capability="cosco1.example")
    body = _frame().payload[0]
    section, data = wire.fetch_section(len(body), stored=False), wire.fetch_data([memoryview(body)])
    end, failure = wire.fetch_end(0, 8), wire.fetch_failure("a segment is gone")
    headers = wire.fetch_section(64, 4096, stored=True, headers=True)
    reference = Reference("file:///store/1-2", "c/4711/2-5/8-11-000000000000002a-1", 8192, 77)
    referred = wire.fetch_reference(3, 4096, reference)
    return [
        GoldenMessage("fetch-one", "One partition of one epoch.", spb.FetchRequest,
                      wire.fetch_request_to_bytes(one)),
        GoldenMessage("fetch-parts", "Several partitions, of mappers that are named.",
                      spb.FetchRequest, wire.fetch_request_to_bytes(several)),
        GoldenMessage("section", "", spb.FetchReply, section),
        GoldenMessage("section-headers", "", spb.FetchReply, headers),
        GoldenMessage("section-error", "", spb.FetchReply, failure),
        GoldenMessage("section-reference", "", spb.FetchReply, referred),
        GoldenMessage("packed", "Several replies in one message.", spb.FetchReply,
                      wire.fetch_packed([section, data, end])),
    ]  # fmt: skip


def _metadata_messages() -> list[GoldenMessage]:
    loss = LossReport(4711, 1, 2, 11, LossCause.MISSING, "everything was read")
    renewal = mpb.RenewAssignmentsRequest(
        number=4711, generation=1, stale=[mpb.RangeEpoch(range_index=2, epoch=5)],
        suspect=wire.to_pb(_REF), insist=True, wait_s=2.0,
    )  # fmt: skip
    waits = mpb.AwaitCommitsRequest(
        number=4711, mappers=BitMap((0, 3, 260)).serialize(), wait_s=20.0,
        partitions=BitMap((8, 11)).serialize(),
    )  # fmt: skip
    kind = mpb.FixRowKindRequest(number=4711, kind=mpb.ROW_KIND_OPAQUE, seen=b"")
    error = CommitTimeout("exchange 'orders': too late", shuffle_id="orders", mappers=(1, 300),
                          partition=0)  # fmt: skip
    return [
        GoldenMessage("open-attempt", "Mapper 0 is named, which is not the same as none.",
                      mpb.OpenAttemptRequest,
                      mpb.OpenAttemptRequest(shuffle_id="orders", mapper=0, protocol=2)
                      .SerializeToString()),
        GoldenMessage("fix-row-kind", "`seen` is there, and empty.", mpb.FixRowKindRequest,
                      kind.SerializeToString()),
        GoldenMessage("renew", "", mpb.RenewAssignmentsRequest, renewal.SerializeToString()),
        GoldenMessage("commit", "", mpb.CommitRequest, _commit(partial=False)),
        GoldenMessage("commit-partial", "Of a mapper that was called back for ranges 0 and 5.",
                      mpb.CommitRequest, _commit(partial=True)),
        GoldenMessage("commit-empty", "Of an attempt without rows.", mpb.CommitRequest,
                      _empty_commit()),
        GoldenMessage("await-commits", "", mpb.AwaitCommitsRequest, waits.SerializeToString()),
        GoldenMessage("snapshot", "Of one partition.", mpb.AwaitCommitsReply, _one_partition(),
                      is_exact=False),
        GoldenMessage("range-snapshots", "The mappers of the second range are those of the first.",
                      mpb.AwaitCommitsReply, _ranges(), is_exact=False),
        GoldenMessage("report-loss", "", mpb.ReportLossRequest,
                      wire.to_pb(loss).SerializeToString()),
        GoldenMessage("error", "What the trailing metadata cosco-error-bin has.", mpb.ErrorDetail,
                      wire.error_to_bytes(error)),
    ]  # fmt: skip


def _follow_messages() -> list[GoldenMessage]:
    follow = Follow(1, _REF.incarnation, 4711, 2, 5, 11, 262_144, now=False, leave=False,
                    same_build=False, capability="")  # fmt: skip
    reply = spb.FollowReply(
        id=1, outcome=spb.FOLLOW_OUTCOME_READY, rows=1, raw_bytes=3, digest=1 << 63,
        attempts=np.array([_ATTEMPT, 2], "<u8").tobytes(), data=_frame().payload[0],
    )  # fmt: skip
    return [
        GoldenMessage("follow", "", spb.FollowRequests, wire.follows_to_bytes([follow])),
        GoldenMessage("follow-reply", "", spb.FollowReplies,
                      spb.FollowReplies(replies=[reply]).SerializeToString()),
    ]  # fmt: skip


MESSAGES: Final = (
    *_metadata_messages(),
    *_push_messages(),
    *_fetch_messages(),
    *_follow_messages(),
)
