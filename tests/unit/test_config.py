"""What the daemon's options come to."""

from __future__ import annotations

import pytest

from cosco.config import DaemonConfig
from cosco.errors import InvalidArgument

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("memory", "limit"),
    [(16 * MIB, MIB), (256 * MIB, 16 * MIB), (GIB, 64 * MIB), (64 * GIB, 64 * MIB)],
)
def test_chunks_follow_the_memory(memory: int, limit: int) -> None:
    config = DaemonConfig(memory=memory)
    config.validate()
    assert config.chunk_limit_bytes == limit


def test_a_given_size_of_chunks_is_kept() -> None:
    config = DaemonConfig(memory=256 * MIB, chunk_bytes=64 * KIB)
    config.validate()
    assert config.chunk_limit_bytes == 64 * KIB


@pytest.mark.parametrize(
    ("name", "value"),
    [("chunk_bytes", 63 * KIB), ("chunk_bytes", 65 * MIB), ("store_idle_s", -1.0)],
)
def test_what_makes_no_sense_is_refused(name: str, value: float) -> None:
    options = {"memory": 256 * MIB, name: value}
    with pytest.raises(InvalidArgument, match="--" + name.replace("_", "-")):
        DaemonConfig(**options).validate()  # type: ignore[arg-type]
