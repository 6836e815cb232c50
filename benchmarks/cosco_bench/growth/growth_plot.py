"""The growth curves as a picture."""

from __future__ import annotations

from cosco.errors import InvalidArgument
from cosco_bench.growth.growth import Growing, GrowthResult
from cosco_bench.harness.capacity import GB

_AXES = {
    Growing.SIZE: "GB of rows",
    Growing.PARTITIONS: "partitions",
    Growing.MAPPERS: "mappers",
}


def require_matplotlib() -> None:
    """Raise InvalidArgument if there is nothing to plot with."""
    try:
        import matplotlib  # noqa: F401, ICN001, PLC0415
    except ImportError:
        raise InvalidArgument(
            "matplotlib is not installed: run pip install 'cosco[bench]', or leave --plot out"
        ) from None


def plot_growth(result: GrowthResult, path: str) -> None:
    """Write the curves to `path`; the kind of file is that of its ending."""
    # Here and not above: only who plots waits for its import.
    from matplotlib.figure import Figure  # noqa: PLC0415

    drawn = [growing for growing in Growing if result.curve(growing)]
    figure = Figure(figsize=(4 * max(1, len(drawn)), 3.2), layout="constrained")
    panels = figure.subplots(1, max(1, len(drawn)), sharey=True, squeeze=False)[0]
    for panel, growing in zip(panels, drawn, strict=False):
        curve = result.curve(growing)
        if growing is Growing.SIZE:
            values = [point["size"] / GB for point in curve]
        else:
            values = [point[growing.label] for point in curve]
        parts = (("s_per_gb", "seconds"), ("cpu_s_per_gb", "CPU seconds of all processes"))
        for key, label in parts:
            panel.plot(values, [point[key] for point in curve], marker="o", label=label)
        panel.set_xscale("log", base=2)
        panel.set_xticks(values, [f"{value:g}" for value in values])
        panel.set_xlabel(_AXES[growing])
        panel.grid(visible=True, alpha=0.3)
    panels[0].set_ylim(bottom=0)  # of all: they share the axis
    panels[0].set_ylabel("per GB of rows")
    panels[0].legend()
    figure.savefig(path)
