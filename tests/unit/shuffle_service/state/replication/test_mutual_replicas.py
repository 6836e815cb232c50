"""Two daemons that are each other's replicas, with pools that are far too small."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from support.frame_making import EXCHANGE, block
from support.replica_pair import PARTITIONS, Pair, Sent, blocks_of

from cosco.errors import CoscoError
from cosco.format.frame import FRAME_HEADER_BYTES
from cosco.shuffle_service.state.replication.copy_log import PRESSED_S

FRAMES = 30


def check_safe(pair: Pair, primary: int, sent: Sent) -> None:
    """Promise 2, at the moment of the acknowledgement: it outlives either of the daemons."""
    blocks = blocks_of(sent.data[FRAME_HEADER_BYTES:])
    volatile = pair.cores[primary].replication.volatile
    missing = blocks if volatile else blocks - pair.stored_blocks(primary)
    if missing:
        replica = 3 - primary
        key = pair.key(primary)
        elsewhere = pair.copied_blocks(replica, key) | pair.buffered_blocks(replica, key)
        elsewhere |= pair.stored_blocks(replica)
        assert missing <= elsewhere, "acknowledged, and held once"


def checked_answer(pair: Pair, primary: int, sent: Sent) -> Callable[[CoscoError | None], None]:
    answer = sent.answer

    def answered(error: CoscoError | None) -> None:
        answer(error)
        if error is None:
            check_safe(pair, primary, sent)

    return answered


def random_blocks(rng: random.Random, rows: dict[int, int], mapper: int) -> list[bytes]:
    made = []
    for partition in rng.sample(range(PARTITIONS), rng.randint(1, PARTITIONS)):
        size = rng.choice([10, 5_000, 60_000])
        made.append(block(partition, rows[partition], rng.randbytes(size), mapper=mapper))
        rows[partition] += 1
    return made


def push_all(pair: Pair, rng: random.Random) -> list[Sent]:
    """Frames of a writer at each daemon, some of them twice."""
    sent: list[Sent] = []
    for primary in (1, 2):
        rows = dict.fromkeys(range(PARTITIONS), 0)
        for _ in range(FRAMES):
            blocks = random_blocks(rng, rows, mapper=primary)
            sent += [pair.push(primary, blocks) for _ in range(rng.choice([1, 1, 1, 2]))]
    for one in sent:
        assert not one.answered  # no reply was delivered, no flush ended
        one.answer = checked_answer(pair, one.checked.header.incarnation, one)
    return sent


def move(pair: Pair, rng: random.Random, *, breaks: bool) -> None:
    """One thing happens."""
    daemon = rng.choice([1, 2])

    def begin_flush() -> None:
        if len(pair.flushes) < 4:
            pair.begin_flush(daemon)

    def tick() -> None:
        pair.now += rng.choice([0.01, 0.3])
        pair.cores[daemon].replication.tick(pair.now)

    def relieve() -> None:
        copies = pair.cores[daemon].copies
        patience_s = 0.0 if pair.cores[daemon].replication.volatile else PRESSED_S
        copy = copies.oldest(None)
        if copy is not None and copies.pressed(pair.now, patience_s=patience_s):
            pair.cores[daemon].absorb_copy(copy)

    def break_link() -> None:
        if breaks and daemon in pair.links and rng.random() < 0.05:
            pair.break_link(daemon)

    rng.choice(
        [
            lambda: pair.talk(daemon),
            lambda: pair.deliver_request(daemon),
            lambda: pair.deliver_reply(daemon),
            lambda: pair.end_flush(rng.randrange(len(pair.flushes)) if pair.flushes else 0),
            lambda: pair.take_in(daemon),
            begin_flush,
            tick,
            relieve,
            break_link,
        ]
    )()


def check_shares(pair: Pair) -> None:
    for core in pair.cores.values():
        capacity = core.pool.capacity_bytes
        assert core.shares.copies <= capacity * 5 // 8
        assert capacity - core.pool.free_bytes - core.shares.copies <= capacity * 3 // 4


def finish_in_peace(pair: Pair) -> None:
    """Store everything and deliver everything: each copy is released then."""
    for daemon in (1, 2):
        pair.store_all(daemon)
    busy = True
    while busy:
        busy = False
        for daemon in (1, 2):
            pair.talk(daemon)
            busy |= pair.deliver_request(daemon)
            busy |= pair.deliver_reply(daemon)
    assert all(link.replica.is_idle for link in pair.links.values())


def drop(pair: Pair) -> None:
    for core in pair.cores.values():
        core.drop(EXCHANGE)
    while pair.end_flush():
        pass


@pytest.mark.parametrize("volatile", [False, True], ids=["durable", "volatile"])
@pytest.mark.parametrize("breaks", [False, True], ids=["links-hold", "links-break"])
@pytest.mark.parametrize("seed", range(8))
def test_full_pools_never_wait_for_each_other(seed, breaks, volatile):
    """Nothing but deliveries, local flushes and time; every frame is acknowledged in the end,
    none before it is safe, and nothing is left of them after the exchange."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    pair = Pair(pages=6, volatile=volatile)
    sent = push_all(pair, rng)
    steps = answered = 0
    while answered < len(sent):
        move(pair, rng, breaks=breaks)
        check_shares(pair)
        before, answered = answered, sum(one.answered for one in sent)
        steps = 0 if answered > before else steps + 1
        assert steps < 20_000, f"it is stuck with {len(sent) - answered} frames"
    assert all(one.error is None for one in sent)
    rng.choice([drop, drop if volatile else finish_in_peace])(pair)
    for core in pair.cores.values():
        assert core.pool.free_bytes == core.pool.capacity_bytes
        assert core.shares.copies == core.shares.flushing == len(core.copies) == 0
        assert len(core.replication) == core.copies.waiting_bytes == 0


@pytest.mark.parametrize("seed", range(4))
def test_daemons_sealed_in_the_middle_hold_what_was_acknowledged_and_take_no_more(seed):
    """Also when one of them is never heard of again."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    pair = Pair(pages=6)
    sent = push_all(pair, rng)
    while sum(one.answered for one in sent) < FRAMES // 2:
        move(pair, rng, breaks=True)
    acknowledged = [one for one in sent if one.answered]
    survivor = pair.cores[rng.choice([1, 2])]
    keys = [pair.key(1), pair.key(2)]
    assert survivor.seal(keys) > 0
    me = survivor.incarnation
    pair.take_in(me)
    assert all(one.answered for one in sent if one.checked.header.incarnation == me)
    for _ in range(10_000):
        pair.begin_flush(me)
        pair.end_flush()
        copy = survivor.copies.oldest(None)
        if copy is not None:
            survivor.absorb_copy(copy)
        if not survivor.unstored_bytes:
            break
    assert survivor.seal(keys) == survivor.unstored_bytes == 0
    stored = pair.stored_blocks(me)
    for one in acknowledged:
        blocks = blocks_of(one.data[FRAME_HEADER_BYTES:])
        primary = one.checked.header.incarnation
        assert blocks <= stored | pair.stored_blocks(primary)
    assert not survivor.takes_in
