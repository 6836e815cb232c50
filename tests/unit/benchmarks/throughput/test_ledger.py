from __future__ import annotations

from pathlib import Path

import pytest
from cosco_bench.throughput.ledger import STAGES, run_ledger

from cosco.local.workers import Workers


@pytest.mark.parametrize(("partitions", "codec"), [(1, "none"), (300, "lz4")])
def test_every_stage_is_measured_and_rows_survive(
    tmp_path: Path, partitions: int, codec: str
) -> None:
    progress: list[int] = []
    task = (30_000, partitions, codec, str(tmp_path))
    with Workers("ledger", run_ledger, [task]) as workers:
        (result,) = workers.results(progress.append)
    assert tuple(stage.name for stage in result.value) == STAGES
    assert sum(progress) == len(STAGES)
    by_name = {stage.name: stage.cpu_s_per_gb for stage in result.value}
    assert by_name["pack"] > 0
    assert (by_name["compress"] == 0) == (codec == "none")
