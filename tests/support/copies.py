"""Copies that a primary forwarded, without the primary."""

from __future__ import annotations

from support.daemon_mechanics import check_frame

from cosco.protocol.keys import CopyId
from cosco.protocol.push.answers import Answer
from cosco.shuffle_service.state.core import DaemonCore
from cosco.shuffle_service.state.replication.copy_log import Copy


def keep_copy(
    core: DaemonCore, data: bytes | memoryview, primary: int, answer: Answer, stream: object = None
) -> None:
    """Have a replica keep a frame; raises as `DaemonCore.keep_copy` does."""
    data = memoryview(data)
    frame = check_frame(data)
    held = core.assignment(frame.key)
    assert held is not None
    copy_id = CopyId(primary, frame.header.sequence)
    core.keep_copy(held, frame, Copy(copy_id, held.key, len(data), data, stream, 0.0, answer))
