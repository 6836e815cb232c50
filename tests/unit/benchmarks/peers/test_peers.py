"""The pure parts of the comparison with peers: the input, the figures, what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cosco_bench.harness.bench_rows import RowTally
from cosco_bench.harness.capacity import ROW_BYTES
from cosco_bench.peers import peer_process
from cosco_bench.peers.peer_files import (
    KEY_BITS,
    file_tasks,
    make_batch,
    read_batches,
    tally_of,
    write_file,
)
from cosco_bench.peers.peer_process import PeerMissing, PeerResult, find_peer
from cosco_bench.peers.peers import PeersResult, speedup
from cosco_bench.settings import MAX_PEER_ROWS, MICRO_PEERS, PEERS, PeersSettings

from cosco.errors import CapacityExceeded

TALLY = {"rows": 10, "keys": 7, "payload_bytes": 920}


class SilentLink:
    """A worker's link whose progress nobody wants."""

    def progress(self, amount: int) -> None:
        """Nothing."""


def result(
    seconds: list[float],
    scan: list[float],
    *,
    cpu: Sequence[float] = (5.0,),
    scan_cpu: Sequence[float] = (1.0,),
    **tally: int,
) -> PeerResult:
    return PeerResult(seconds, scan, list(cpu), list(scan_cpu), {**TALLY, **tally}, {}, {})


def test_rows_are_a_key_that_sums_up_and_a_text() -> None:
    batch = make_batch(1000, np.random.default_rng(1))
    assert batch.schema.types == [pa.int64(), pa.string()]
    assert tally_of(batch).payload_bytes == 1000 * (ROW_BYTES - 8)
    assert 0 <= min(batch["key"].to_pylist()) <= max(batch["key"].to_pylist()) < 1 << KEY_BITS
    assert MAX_PEER_ROWS << KEY_BITS <= 1 << 63
    assert tally_of(make_batch(0, np.random.default_rng(1))) == RowTally()


def test_files_hold_all_rows_and_are_read_back(tmp_path: Path) -> None:
    tasks = file_tasks(tmp_path, 1001, 3)
    assert sum(rows for _, rows, _ in tasks) == 1001
    written = read = RowTally()
    for task in tasks:
        written += write_file(SilentLink(), *task)  # type: ignore[arg-type]
        for batch in read_batches(task[0]):
            read += tally_of(batch)
    assert read == written
    assert read.rows == 1001
    assert pq.ParquetFile(tasks[0][0]).metadata.num_rows == tasks[0][1]


def test_figures_are_medians_and_ratios() -> None:
    found = PeersResult(RowTally(**TALLY))
    found.add("cosco", result([2.0, 1.0, 9.0], [0.5, 0.5, 0.5]))
    found.add("cosco_replicas_2", result([4.0], [1.0]))
    found.add("dask", result([10.0], [1.0]))
    shown = found.to_json()
    assert shown["seconds"] == {"cosco": 2.0, "cosco_replicas_2": 4.0, "dask": 10.0}
    found.add("ray", result([20.0], [1.0]))
    assert found.cpu_seconds().keys() == {"cosco", "cosco_replicas_2", "dask"}
    assert shown["speedup"] == {"dask": 5.0}
    assert shown["speedup_replicas_2"] == {"dask": 2.5}
    assert shown["speedup_above_scan"] == {"dask": 6.0}
    assert shown["speedup_above_scan_replicas_2"] == {"dask": 3.0}
    assert shown["verified"]


def test_an_engine_with_cosco_is_set_beside_the_engine_alone() -> None:
    found = PeersResult(RowTally(**TALLY))
    found.add("dask", result([10.0], [2.0], cpu=[16.0], scan_cpu=[4.0]))
    found.add("dask_cosco", result([8.0], [2.0], cpu=[14.0], scan_cpu=[5.0]))
    found.add("ray_disk", result([20.0], [1.0], cpu=[1.0]))
    found.add("ray_cosco", result([10.0], [1.0], cpu=[1.0]))
    shown = found.to_json()
    assert shown["cpu_above_scan_seconds"] == {"dask": 12.0, "dask_cosco": 9.0}
    assert shown["beside_engine"] == {
        "dask_cosco": {
            "seconds": 0.8,
            "above_scan_seconds": 0.75,
            "cpu_seconds": 0.875,
            "cpu_above_scan_seconds": 0.75,
        },
        "ray_cosco": {"seconds": 0.5, "above_scan_seconds": 9 / 19},
    }
    del found.results["dask"]
    assert found.beside_engine().keys() == {"ray_cosco"}


def test_every_engine_is_measured_alone_in_the_same_environment() -> None:
    for programs in (PEERS, MICRO_PEERS):
        beside = [program for program in programs.values() if program.beside]
        assert beside
        for program in beside:
            assert program.replicas
            assert programs[program.beside].environment == program.environment


def test_other_rows_than_the_files_have_are_no_result() -> None:
    found = PeersResult(RowTally(**TALLY))
    found.add("cosco", result([1.0], [0.5]))
    found.add("ray", result([1.0], [0.5], keys=8))
    assert found.seconds().keys() == {"cosco"}
    assert "ray" in found.problems
    assert not found.verified


def test_nothing_is_compared_with_nothing() -> None:
    assert speedup({"dask": 1.0}, "cosco") == {}
    assert speedup({"cosco": 0.0, "dask": 1.0}, "cosco") == {}


def test_a_peer_is_missing_without_its_environment_or_its_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PeerMissing, match=r"run make peers, which installs dask"):
        find_peer(PEERS["dask_cosco"], str(tmp_path))
    monkeypatch.setattr(peer_process, "SCRIPTS", tmp_path)
    with pytest.raises(PeerMissing, match="source checkout"):
        find_peer(PEERS["dask_cosco"], str(tmp_path))


def test_every_peer_has_a_program_and_pinned_requirements() -> None:
    for program in PEERS.values():
        assert (peer_process.SCRIPTS / program.script).is_file()
        requirements = peer_process.SCRIPTS / "requirements" / f"{program.environment}.txt"
        lines = requirements.read_text().split()
        assert lines
        assert all("==" in line for line in lines)


def test_more_than_fits_is_refused() -> None:
    with pytest.raises(CapacityExceeded, match="rows need"):
        PeersSettings(rows=1 << 50).check()
