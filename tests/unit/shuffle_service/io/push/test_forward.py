"""Links to replicas: what ends them is seen."""

from __future__ import annotations

import asyncio

import pytest
from support.daemon_parts import KEY, DaemonParts
from support.frame_making import INCARNATION, block

from cosco.dfs import MemoryStore
from cosco.format.frame import FrameHeader
from cosco.process.tls.service_tls import PLAIN
from cosco.protocol.records import DaemonRef
from cosco.shuffle_service.io.push.forward import Forwards


class BrokenLink:
    """Calls of the metadata service end in a way that nothing foresees."""

    tls = PLAIN

    async def call(self, _method: str, _request: object) -> object:
        raise RuntimeError("unforeseen")


def test_a_link_that_fails_ends_the_daemon_rather_than_leave_its_frames_unsent() -> None:
    async def main() -> None:
        parts = DaemonParts(MemoryStore(), link=BrokenLink())
        forwards = Forwards(parts.core, parts.link, 5.0)
        forwards.start()
        try:
            body = memoryview(block(0, 0))
            number, range_index, epoch = KEY
            header = FrameHeader(number, INCARNATION, 1, range_index, epoch, len(body), 1)
            nobody = DaemonRef(INCARNATION + 1, "127.0.0.1:1")
            parts.core.replication.forward(
                KEY, nobody, header, body, now=0.0, answer=lambda _: None
            )
            with pytest.raises(RuntimeError, match="unforeseen"):
                await asyncio.wait_for(asyncio.gather(*forwards.tasks), 20.0)
        finally:
            await forwards.stop()

    asyncio.run(main())
