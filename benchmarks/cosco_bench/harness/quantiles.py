"""Latencies in figures: percentiles of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Percentiles of samples, in milliseconds, and how many samples there were."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    samples: int


def quantiles(samples_s: Sequence[float]) -> Quantiles:
    """Of one or more samples in seconds."""
    p50, p95, p99 = np.percentile(samples_s, [50, 95, 99]) * 1e3
    return Quantiles(
        float(p50), float(p95), float(p99), float(max(samples_s)) * 1e3, len(samples_s)
    )
