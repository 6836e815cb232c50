"""Runs the reader of the Java client, as the class ReadMain among its tests has it."""

from __future__ import annotations

import os
import struct
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

SPARK = Path(__file__).parents[2] / "spark"
_BUILT = SPARK / "target" / "scala-2.13"
_LISTED = _BUILT / "classpath.txt"


def classpath() -> str:
    """Return where the built classes and what they need are.

    Raises: FileNotFoundError where they were not built.
    """
    if not (_BUILT / "test-classes").exists():
        raise FileNotFoundError(f"{_BUILT}: run `mvn -B test-compile` in {SPARK}")
    if not _LISTED.exists():
        command = ["mvn", "-q", "-B", "dependency:build-classpath"]
        subprocess.run([*command, f"-Dmdep.outputFile={_LISTED}"], cwd=SPARK, check=True)
    return os.pathsep.join(
        [str(_BUILT / "classes"), str(_BUILT / "test-classes"), _LISTED.read_text().strip()]
    )


@dataclass
class Read:
    """What a reader gave and said at its end."""

    #: By partition, then by mapper.
    rows: dict[int, dict[int, Counter[bytes]]] = field(default_factory=dict)
    #: Partitions in the order in which they were given.
    partitions: list[int] = field(default_factory=list)
    last: str = ""

    def of(self, partition: int) -> Counter[bytes]:
        """Return the rows of a partition."""
        return sum(self.rows.get(partition, {}).values(), Counter())

    def figure(self, name: str) -> int:
        """Return a figure of the last line."""
        return int(dict(one.split("=") for one in self.last.split()[1:])[name])


class JavaReader:
    """A reader in a process of its own; it begins at once."""

    def __init__(
        self,
        metadata: str,
        number: int,
        name: str,
        mappers: tuple[int, int],
        partitions: tuple[int, int],
        *,
        wanted: tuple[int, int] | None = None,
        stop_at: int = -1,
        prefetch_bytes: int = 32 << 20,
        stall_s: float = 30.0,
        credential: str = "",
        then: str = "",
        heap: str = "256m",
    ) -> None:
        """Begin.

        stop_at: stop after so many runs, until `read`. then: as `ReadMain` says.
        """
        bounds = map(str, (*mappers, *(wanted or mappers), *partitions))
        self._process = subprocess.Popen(
            [
                *("java", f"-Xmx{heap}", "-XX:TieredStopAtLevel=1", "-cp", classpath()),
                *("cosco.client.read.ReadMain", metadata, str(number), name, *bounds),
                *(str(prefetch_bytes), str(stall_s), credential, str(stop_at)),
                *([then] if then else []),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def await_stop(self) -> None:
        """Wait until it has stopped, as was asked for."""
        assert self._process.stderr is not None
        said = b"SLF4J"
        while said.startswith(b"SLF4J"):  # that it logs nowhere
            said = self._process.stderr.readline()
        assert said == b"STOPPED\n", said

    def read(self) -> Read:
        """Let it go on to its end."""
        out, said = self._process.communicate(b"\n", timeout=60)
        read = Read(last=said.decode().strip().splitlines()[-1])
        at = 0
        while at < len(out):
            partition, mapper, length = struct.unpack_from(">iii", out, at)
            at += 12
            of_partition = read.rows.setdefault(partition, {})
            of_partition.setdefault(mapper, Counter())[out[at : at + length]] += 1
            if read.partitions[-1:] != [partition]:
                read.partitions.append(partition)
            at += length
        return read

    def close(self) -> None:
        """End it, if it goes on."""
        self._process.kill()
        self._process.communicate()
