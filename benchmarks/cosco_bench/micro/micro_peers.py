"""The same micro-batches on what others use: programs in environments of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from cosco_bench.harness.quantiles import Quantiles, quantiles
from cosco_bench.harness.scratch import Scratch
from cosco_bench.micro.micro_work import exact_sums
from cosco_bench.peers.peer_process import ENVIRONMENTS, find_peer, run_peer

#: name → its program below benchmarks/peers
MICRO_PROGRAMS: Final = {
    "ray": "ray_tasks.py",
    "dask": "dask_futures.py",
    "spark": "spark_stages.py",
}


@dataclass(frozen=True, slots=True)
class PeerFigures:
    """Of a peer's iterations, from the first task handed in to the last sum at its driver."""

    took: Quantiles
    versions: dict[str, str]
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self.took), "versions": self.versions, "settings": self.settings}


def run_micro_peer(
    name: str,
    *,
    tasks: int,
    threads: int,
    iterations: int,
    warm_ups: int,
    environments: str | None,
    directory: str | None,
    timeout_s: float,
    on_done: Callable[[], None],
) -> PeerFigures:
    """Run a peer's program for one shape; it compares all its sums with the exact ones.

    It warms up with as many iterations as count, or with `warm_ups` if that is more: a JVM is
    not at its best before. Raises PeerMissing, PeerFailed.
    """
    command = find_peer(name, Path(environments or ENVIRONMENTS), MICRO_PROGRAMS)
    warm = max(warm_ups, iterations)
    with Scratch(directory) as scratch:
        exact = scratch.directory / "exact.json"
        exact.write_text(
            json.dumps([exact_sums(i, tasks).tolist() for i in range(warm + iterations)])
        )
        options = {"--tasks": tasks, "--threads": threads, "--warm-ups": warm}
        result = run_peer(
            command,
            [*(str(part) for option in options.items() for part in option), str(exact)],
            scratch,
            timeout_s=timeout_s,
            on_done=lambda _: None,
        )
    on_done()
    return PeerFigures(quantiles(result.seconds), result.versions, result.settings)
