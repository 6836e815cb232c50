"""What is looked up while a benchmark runs: processor time, percentiles, and deletion."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import psutil

from cosco.errors import ServiceUnavailable
from cosco.local.cluster import LocalCluster
from cosco.observe import fetch_status

_TIMEOUT_S: Final = 120.0
_POLL_S: Final = 0.02


class CpuClock:
    """Processor time of services of a cluster, of the daemons alone or all."""

    def __init__(self, cluster: LocalCluster, *, daemons_only: bool = False) -> None:
        services = [] if daemons_only else [cluster.metadata_service]
        self._processes = [psutil.Process(service.pid) for service in (*services, *cluster.daemons)]

    def seconds(self) -> float:
        """Return what all of them have used so far, in user and system mode."""
        times = [process.cpu_times() for process in self._processes]
        return float(sum(t.user + t.system for t in times))


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Percentiles of samples, in milliseconds, and how many samples there were."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    samples: int

    def cells(self) -> list[str]:
        """Return the figures of a line of a table."""
        figures = (self.p50_ms, self.p95_ms, self.p99_ms, self.max_ms)
        return [f"{figure:.2f}" for figure in figures]


def quantiles(samples_s: Sequence[float]) -> Quantiles:
    """Return the percentiles of one or more samples in seconds."""
    p50, p95, p99 = np.percentile(samples_s, [50, 95, 99]) * 1e3
    return Quantiles(
        float(p50), float(p95), float(p99), float(max(samples_s)) * 1e3, len(samples_s)
    )


def wait_until_deleted(metadata: str, shuffle_id: str) -> None:
    """Wait until a closed exchange's files are gone, else the next one's clock has that, too.

    Raises ServiceUnavailable after two minutes.
    """
    deadline = time.monotonic() + _TIMEOUT_S
    while any(e.shuffle_id == shuffle_id for e in fetch_status(metadata).exchanges):
        if time.monotonic() > deadline:
            raise ServiceUnavailable(
                f"the files of {shuffle_id} are still there after {_TIMEOUT_S:g} s"
            )
        time.sleep(_POLL_S)  # nobody is told when a closed exchange is gone
