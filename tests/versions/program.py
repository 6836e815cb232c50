"""What a client does in tests/versions, by what both builds have of the public interface.

    program.py METADATA drive ID PARTITIONS REPLICAS
    program.py METADATA write ID MAPPER PARTITIONS PARTS ROWS
    program.py METADATA read ID MAPPERS PARTITION

It says a line of JSON for each step and waits for a line between them. The package that it imports
is that of PYTHONPATH.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import cosco
from cosco import CoscoExchange, CoscoReader, CoscoWriter


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def row(mapper: int, number: int) -> bytes:
    """A row that names itself, of 16 bytes to 1 KiB."""
    return b"%d.%d." % (mapper, number) + bytes([number % 251]) * (number * 37 % 1000)


def drive(metadata: str, name: str, partitions: str, replicas: str) -> None:
    """Have an exchange until a line comes; say which mappers were called back."""
    called: list[int] = []

    def again(mappers: list[int], _: str) -> None:
        called.extend(mappers)

    with CoscoExchange(
        name, int(partitions), again, replicas=int(replicas), metadata=metadata, codec="none"
    ):
        say(package=str(Path(cosco.__file__).parents[1]))
        sys.stdin.readline()
    say(called=called)


def write(metadata: str, name: str, mapper: str, partitions: str, parts: str, rows: str) -> None:
    """Write `parts` times `rows` rows, with a line in between, and commit."""
    number = 0
    with CoscoWriter(
        name, int(mapper), metadata=metadata, buffer_bytes=64 << 10, service_timeout_s=60.0
    ) as writer:
        for part in range(int(parts)):
            for _ in range(int(rows)):
                writer.collect(number % int(partitions), row(int(mapper), number))
                number += 1
            say(part=part)
            sys.stdin.readline()
        commit = writer.close()
    say(rows=commit.rows)


def read(metadata: str, name: str, mappers: str, partition: str) -> None:
    """Say how many rows there are, and what they are."""
    wanted = [int(one) for one in mappers.split(",")]
    with CoscoReader(
        name, wanted, int(partition), metadata=metadata, timeout_s=60.0, service_timeout_s=60.0
    ) as reader:
        say(**digest(list(reader)))


def digest(rows: list[bytes]) -> dict[str, Any]:
    """What two readers of the same rows say alike."""
    return {"rows": len(rows), "digest": hashlib.sha256(b"\n".join(sorted(rows))).hexdigest()}


if __name__ == "__main__":
    step = {"drive": drive, "write": write, "read": read}[sys.argv[2]]
    try:
        step(sys.argv[1], *sys.argv[3:])
    except cosco.CoscoError as error:
        say(error=type(error).__name__, why=str(error))
