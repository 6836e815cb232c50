"""An honest job, again and again, while others misbehave: its rows are exact, and come in time.

One exchange stands from the beginning to the end, so that messages can be about it, and is read
again in each round.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from typing import Any, Final

import pyarrow as pa

from cosco import CoscoExchange, CoscoExchangeGroup, CoscoReader, CoscoWriter
from cosco.client.groups.commit_outbox import COMMIT_OUTBOXES

from .names import HONEST

MAPPERS: Final = 3
PARTITIONS: Final = 4
_ROWS: Final = 150
_GROUP_SIZE: Final = 2
#: A round takes a second or two by itself.
ROUND_S: Final = 60.0
_WAIT_S: Final = 30.0

_Rows = list[tuple[int, bytes]]


class HonestJob:
    """Rounds of an exchange of byte rows, one of Arrow rows, and a group, on a thread of its own.

    `start`, then `stop` once. Who looks at `problem` is told what went wrong, if anything did.
    """

    def __init__(self, metadata: str) -> None:
        self._metadata = metadata
        self._stopping = threading.Event()
        self._failure = ""
        self._began_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="honest", daemon=True)
        #: Rounds that ended well.
        self.rounds = 0
        #: Set once the standing exchange has its rows, or the job has failed.
        self.has_begun = threading.Event()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Return when the present round has ended, or should have."""
        self._stopping.set()
        self._thread.join(max(0.0, self._began_s + ROUND_S - time.monotonic()))

    @property
    def problem(self) -> str:
        """What went wrong; empty: nothing has."""
        late_s = time.monotonic() - self._began_s
        if not self._failure and self._thread.is_alive() and late_s > ROUND_S:
            return f"round {self.rounds} of the honest job has not ended in {ROUND_S:g} s"
        return self._failure

    def _run(self) -> None:
        try:
            with self._exchange("standing") as standing:
                wanted = self._write(standing.shuffle_id, 0)
                self.has_begun.set()
                while not self._stopping.is_set():
                    self._began_s = time.monotonic()
                    (self._bytes, self._arrow, self._group)[self.rounds % 3](self.rounds)
                    _compare(wanted, self._read(standing.shuffle_id), standing.shuffle_id)
                    self.rounds += 1
        except Exception as error:  # noqa: BLE001  whatever it is, it is told as a failure
            self._failure = (
                f"round {self.rounds} of the honest job: {type(error).__name__}: {error}"
            )
        finally:
            self.has_begun.set()

    def _exchange(self, name: object, **options: Any) -> CoscoExchange:
        return CoscoExchange(
            f"{HONEST}{name}", PARTITIONS, replicas=2, metadata=self._metadata,
            service_timeout_s=_WAIT_S, **options,
        )  # fmt: skip

    def _bytes(self, at: int) -> None:
        with self._exchange(at) as exchange:
            wanted = self._write(exchange.shuffle_id, at)
            _compare(wanted, self._read(exchange.shuffle_id), f"exchange {at}")

    def _arrow(self, at: int) -> None:
        schema = pa.schema([("row", pa.binary())])
        wanted: Counter[tuple[int, bytes]] = Counter()
        with self._exchange(at, schema=schema) as exchange:
            for mapper in range(MAPPERS):
                rows = _rows(at, mapper)
                wanted.update(rows)
                batch = pa.record_batch([pa.array([row for _, row in rows], pa.binary())], schema)
                with self._writer(exchange.shuffle_id, mapper) as writer:
                    writer.collect_batch([partition for partition, _ in rows], batch)
            _compare(wanted, self._read(exchange.shuffle_id), f"exchange {at}, of Arrow")

    def _group(self, at: int) -> None:
        options: dict[str, Any] = {"metadata": self._metadata, "service_timeout_s": _WAIT_S}
        name = f"{HONEST}group-{at}"
        with CoscoExchangeGroup(name, PARTITIONS, _GROUP_SIZE, MAPPERS, **options) as group:
            handle = group.handle()
            for index in range(_GROUP_SIZE):
                wanted: Counter[tuple[int, bytes]] = Counter()
                for mapper in range(MAPPERS):
                    rows = _rows(at + index, mapper)
                    wanted.update(rows)
                    with handle.writer(index, mapper) as writer:
                        for partition, row in rows:
                            writer.collect(partition, row)
                found: Counter[tuple[int, bytes]] = Counter()
                for partition in range(PARTITIONS):
                    with handle.reader(index, partition, timeout_s=_WAIT_S) as reader:
                        found.update(_column(partition, reader))
                _compare(wanted, found, f"exchange {index} of {name}")
            COMMIT_OUTBOXES.of(self._metadata, _WAIT_S).flush()

    def _write(self, shuffle_id: str, at: int) -> Counter[tuple[int, bytes]]:
        """Write byte rows by all mappers. Returns: them."""
        wanted: Counter[tuple[int, bytes]] = Counter()
        for mapper in range(MAPPERS):
            rows = _rows(at, mapper)
            wanted.update(rows)
            with self._writer(shuffle_id, mapper) as writer:
                for partition, row in rows:
                    writer.collect(partition, row)
        return wanted

    def _writer(self, shuffle_id: str, mapper: int) -> CoscoWriter:
        return CoscoWriter(
            shuffle_id, mapper, buffer_bytes=64 << 10, metadata=self._metadata,
            service_timeout_s=_WAIT_S,
        )  # fmt: skip

    def _read(self, shuffle_id: str) -> Counter[tuple[int, bytes]]:
        found: Counter[tuple[int, bytes]] = Counter()
        for partition in range(PARTITIONS):
            with CoscoReader(
                shuffle_id, range(MAPPERS), partition, timeout_s=_WAIT_S,
                metadata=self._metadata, service_timeout_s=_WAIT_S,
            ) as reader:  # fmt: skip
                found.update(_column(partition, reader))
        return found


def _rows(at: int, mapper: int) -> _Rows:
    """Return rows that differ in every round; one of them is longer than a frame."""
    rng = random.Random(f"{at}/{mapper}")
    rows = [(rng.randrange(PARTITIONS), rng.randbytes(rng.randrange(2000))) for _ in range(_ROWS)]
    if mapper == 0:
        rows.append((0, rng.randbytes(1 << 20)))
    return rows


def _column(partition: int, reader: CoscoReader) -> Counter[tuple[int, bytes]]:
    return Counter((partition, row) for row in reader.read_table().column(0).to_pylist())


def _compare(
    wanted: Counter[tuple[int, bytes]], found: Counter[tuple[int, bytes]], where: str
) -> None:
    if wanted != found:
        missing, more = (wanted - found).total(), (found - wanted).total()
        raise AssertionError(f"{where} lacks {missing} rows, and has {more} that nobody wrote")
