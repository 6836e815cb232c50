"""Probe and Seal, as the metadata service asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from support.copies import keep_copy
from support.daemon_parts import KEY, DaemonParts
from support.frame_making import EXCHANGE, INCARNATION, block, frame

from cosco.dfs import MemoryStore
from cosco.errors import AccessDenied, InvalidArgument
from cosco.protocol.capability import (
    CapabilityKey,
    Checker,
    Permit,
    Rights,
    made,
    service_capability,
)
from cosco.protocol.keys import AssignmentKey
from cosco.protocol.peer import Peer, ServiceNames
from cosco.protocol.push.answers import NotAssigned
from cosco.protocol.push.credits import FrameBudgets
from cosco.protocol.push.messages import Hello
from cosco.protocol.push.receiver import PushReceiver
from cosco.protocol.records import Assignment, DaemonRef, PartitionRange
from cosco.protocol.wire import ERROR_KEY, error_from_bytes, spb
from cosco.shuffle_service.grpc_server import MAX_SEAL_KEYS, DaemonHandlers
from cosco.shuffle_service.state.access_check import AccessCheck

COPIED = AssignmentKey(EXCHANGE, 1, 1)
SELF, PEER = DaemonRef(INCARNATION, "a"), DaemonRef(INCARNATION + 1, "b")


class Aborted(Exception):
    """The call was ended with an error."""


class Context:
    """gRPC's end of a call."""

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str,
        trailing_metadata: tuple[tuple[str, bytes], ...] = (),
    ) -> None:
        if code is grpc.StatusCode.UNAVAILABLE:
            raise Aborted(details)
        raise Aborted from error_from_bytes(dict(trailing_metadata)[ERROR_KEY])


class Rig:
    """A daemon that is the primary of KEY and the replica of COPIED, with rows of both."""

    def __init__(self, parts: DaemonParts) -> None:
        self.parts = parts
        self.core = parts.core
        self.core.admit(EXCHANGE, Assignment(1, 1, 1, PEER, (SELF,)), PartitionRange(1, 0, 9))
        self.handlers = DaemonHandlers(
            self.core, FrameBudgets(1 << 20), parts.intakes, parts.copies, parts.fetch,
            parts.lookups, parts.metrics, access=AccessCheck(INCARNATION),
        )  # fmt: skip

    async def take(self) -> None:
        await self.parts.take(block(0, 0, b"x" * 1000))

    def copy(self) -> None:
        data = frame([block(0, 0, b"x" * 1000)], range_index=1)
        keep_copy(self.core, data, PEER.incarnation, lambda _: None)

    async def seal(
        self, *keys: AssignmentKey, incarnation: int = INCARNATION, capability: str = ""
    ) -> spb.SealReply:
        request = spb.SealRequest(
            incarnation=incarnation,
            capability=capability,
            keys=[spb.AssignmentKey(**key._asdict()) for key in keys],
        )
        return await self.handlers._seal(request, Context())


def run(main: Callable[[Rig], Coroutine[Any, Any, None]]) -> None:
    async def with_rig() -> None:
        store = MemoryStore()
        await store.open()
        rig = Rig(DaemonParts(store))
        await rig.take()
        rig.copy()
        rig.parts.flusher.start()
        rig.parts.copies.start()
        async with asyncio.timeout(10):
            await main(rig)
        await rig.parts.copies.stop()
        await rig.parts.flusher.stop()
        await rig.parts.link.close()

    asyncio.run(with_rig())


def test_a_probe_tells_who_it_is() -> None:
    async def main(rig: Rig) -> None:
        reply = await rig.handlers._probe(spb.ProbeRequest(), Context())
        assert reply.incarnation == INCARNATION

    run(main)


def test_what_is_sealed_takes_nothing_more_and_is_stored_copies_as_well() -> None:
    async def main(rig: Rig) -> None:
        reply = await rig.seal(KEY, COPIED, AssignmentKey(EXCHANGE, 5, 9))
        assert reply.incarnation == INCARNATION
        assert reply.held_bytes > 2000
        with pytest.raises(NotAssigned):
            await rig.take()
        with pytest.raises(NotAssigned):
            rig.copy()
        await rig.parts.flusher.until(lambda: not rig.core.unstored_bytes)
        assert (await rig.seal(KEY, COPIED)).held_bytes == 0

    run(main)


def test_a_seal_wakes_the_flusher_where_there_is_nothing_to_absorb() -> None:
    async def main(rig: Rig) -> None:
        for _ in range(10):
            await asyncio.sleep(0)  # the flusher has found nothing to do
        assert (await rig.seal(KEY)).held_bytes > 1000
        held = rig.core.assignment(KEY)
        assert held is not None
        await rig.parts.flusher.until(lambda: not held.unstored_bytes())
        assert (await rig.seal(KEY)).held_bytes == 0

    run(main)


def test_a_seal_for_another_incarnation_changes_nothing() -> None:
    async def main(rig: Rig) -> None:
        reply = await rig.seal(KEY, COPIED, incarnation=PEER.incarnation)
        assert reply == spb.SealReply(incarnation=INCARNATION)
        await rig.take()
        rig.copy()
        assert rig.core.copies.has(COPIED)

    run(main)


def test_with_keys_nothing_is_sealed_for_strangers() -> None:
    async def main(rig: Rig) -> None:
        master = CapabilityKey(1, b"k" * 32)
        key = master.derived(Checker.DAEMON)
        rig.handlers.access.set_keys([key])
        everything = Rights.READ | Rights.WRITE | Rights.OWN
        for shown in (
            "",
            made(master, Permit(EXCHANGE, 1, everything)),
            made(master, Permit(0, 2 * INCARNATION, everything)),
        ):
            with pytest.raises(Aborted) as aborted:
                await rig.seal(KEY, COPIED, capability=shown)
            assert isinstance(aborted.value.__cause__, AccessDenied)
            assert "is for the metadata service alone" in str(aborted.value.__cause__)
        await rig.take()
        rig.copy()
        shown = service_capability(key, INCARNATION)
        assert (await rig.seal(KEY, COPIED, capability=shown)).held_bytes > 2000
        assert (await rig.handlers._probe(spb.ProbeRequest(), Context())).incarnation

    run(main)


@pytest.mark.parametrize("has_keys", [False, True])
def test_with_tls_a_primary_is_known_by_its_certificate_alone(has_keys: bool) -> None:
    async def main(rig: Rig) -> None:
        key = CapabilityKey(1, b"k" * 32).derived(Checker.DAEMON)
        handlers = replace(rig.handlers, names=ServiceNames("daemon", "metadata", is_checked=True))
        handlers.access.set_keys([key] * has_keys)
        shown = service_capability(key, INCARNATION)
        for name, is_daemon in (("daemon", True), ("metadata", False), ("client", False)):
            peer = Peer("a:1", frozenset({name}), is_encrypted=True)
            opening = handlers._opening(SimpleNamespace(peer=peer))
            for capability in ("", shown):
                hello = Hello(0, 0, 0, INCARNATION, PEER.incarnation, capability=capability)
                stream = PushReceiver(INCARNATION, handlers.budgets, opening)
                if is_daemon:
                    opening(hello, stream, 0.0)
                    continue
                with pytest.raises(AccessDenied, match="is for daemons alone"):
                    opening(hello, stream, 0.0)

    run(main)


def test_too_many_assignments_at_once_are_refused() -> None:
    async def main(rig: Rig) -> None:
        with pytest.raises(Aborted) as aborted:
            await rig.seal(*(AssignmentKey(1, n, 1) for n in range(MAX_SEAL_KEYS + 1)))
        assert isinstance(aborted.value.__cause__, InvalidArgument)
        assert f"at most {MAX_SEAL_KEYS}" in str(aborted.value.__cause__)

    run(main)


def test_before_it_is_registered_it_only_says_who_it_is() -> None:
    """Who asks the service for it must find it, and paths of files need the cluster's id."""

    async def main(rig: Rig) -> None:
        handlers, rig.core.cluster_id = rig.handlers, ""
        assert (await handlers._probe(spb.ProbeRequest(), Context())).incarnation == INCARNATION
        calls = (
            rig.seal(KEY),
            handlers._push(None, Context()),
            handlers._follow(None, Context()),
            anext(handlers._fetch(b"", Context())),
        )
        for call in calls:
            with pytest.raises(Aborted, match="the daemon is starting"):
                await call
        rig.core.cluster_id = "c"
        assert (await rig.seal(KEY)).held_bytes > 0

    run(main)
