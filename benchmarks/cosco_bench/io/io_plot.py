"""The picture of `cosco-bench io`: sizes of IOs, and service time against memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

_MIB: Final = 1 << 20
_PARTS: Final = ("reads", "writes", "spills")


def draw(document: dict[str, Any], path: Path) -> None:
    """Write the SVG of a result; raises OSError."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    sizes, times = figure.subplots(1, 2)
    _draw_sizes(sizes, document)
    _draw_times(times, document)
    figure.savefig(path, format="svg", metadata={"Date": None})


def _draw_sizes(axes: Any, document: dict[str, Any]) -> None:
    """Share of the bytes that moved in IOs of each size."""
    series = [
        (f"{label}, {kind}", document[name][kind])
        for name, label in (("sort_shuffle", "sort shuffle"), ("cosco", "cosco"))
        for kind in ("writes", "reads")
    ]
    buckets = sorted({b["up_to_bytes"] for _, one in series for b in one["histogram"]})
    width = 0.8 / len(series)
    for index, (label, one) in enumerate(series):
        shares = {b["up_to_bytes"]: 100 * b["bytes"] / one["bytes"] for b in one["histogram"]}
        axes.bar(
            [at + (index - 1.5) * width for at in range(len(buckets))],
            [shares.get(bucket, 0) for bucket in buckets],
            width,
            label=label,
        )
    axes.set_xticks(range(len(buckets)), [_size(bucket) for bucket in buckets], rotation=45)
    axes.set_xlabel("size of an IO, up to")
    axes.set_ylabel("% of the bytes")
    axes.set_title("sizes of IOs")
    axes.legend()


def _draw_times(axes: Any, document: dict[str, Any]) -> None:
    """Modelled seconds at each memory, and the sort shuffle's."""
    levels = list(reversed(document["memory_levels"]))
    names = [f"cosco\n{_size(level['buffers_bytes'])}" for level in levels] + ["sort\nshuffle"]
    results = [level["cosco"] for level in levels] + [document["sort_shuffle"]]
    bottom = [0.0] * len(results)
    for part in _PARTS:
        heights = [result["service_time_s"][part] for result in results]
        axes.bar(names, heights, bottom=bottom, label=part)
        bottom = [base + height for base, height in zip(bottom, heights, strict=True)]
    axes.set_ylabel("modelled service time of one spindle, s")
    axes.set_xlabel("memory of all buffers")
    axes.set_title("service time against memory")
    axes.legend()


def _size(length: int) -> str:
    return f"{length / _MIB:g} MiB" if length >= _MIB else f"{length / 1024:g} KiB"
