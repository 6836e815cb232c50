"""What benchmarks have in common: room, quantiles, documents."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest
from cosco_bench.harness.bench_report import check_target, document, save
from cosco_bench.harness.capacity import Needs, check_room, even_parts
from cosco_bench.harness.measuring import quantiles

from cosco.errors import CapacityExceeded, InvalidArgument


def room(memory: int = 0, disk: int = 0, directory: str | None = None) -> None:
    check_room(Needs("5 rows", memory, disk, "ask for less", "go elsewhere"), directory)


def test_what_fits_passes_and_what_does_not_is_refused_with_figures(tmp_path: Path) -> None:
    room(directory=str(tmp_path))
    with pytest.raises(CapacityExceeded, match=r"5 rows need 1125899.* GB of memory .* less$"):
        room(memory=1 << 50)
    with pytest.raises(CapacityExceeded, match=rf"of disk and {tmp_path} has .* elsewhere$"):
        room(memory=psutil.virtual_memory().available // 2, disk=1 << 60, directory=str(tmp_path))


def test_quantiles_are_in_milliseconds() -> None:
    found = quantiles([i / 1000 for i in range(101)])
    assert (found.p50_ms, found.p95_ms, found.p99_ms) == pytest.approx((50, 95, 99))
    assert (found.max_ms, found.samples) == (pytest.approx(100), 101)


def test_parts_are_even_and_leave_nothing_out() -> None:
    assert even_parts(10, 4) == [range(2), range(2, 5), range(5, 7), range(7, 10)]
    assert even_parts(2, 3) == [range(0), range(1), range(1, 2)]


def test_a_document_says_what_it_was_measured_on(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    save(None, {})
    save(str(target), document("speed", {"figure": 1}, {"rows": 5}))
    shown = json.loads(target.read_text())
    assert (shown["benchmark"], shown["figure"], shown["settings"]) == ("speed", 1, {"rows": 5})
    assert shown["machine"]["cores"] >= 1
    assert {"python", "cosco", "pyarrow"} <= shown["versions"].keys()
    assert isinstance(shown["command"], str)
    assert isinstance(shown["commit"], str)


def test_a_target_that_cannot_be_written_is_refused_early(tmp_path: Path) -> None:
    check_target("--json", None)
    check_target("--json", str(tmp_path / "new.json"))
    with pytest.raises(InvalidArgument, match=r"--plot /nowhere/x\.svg"):
        check_target("--plot", "/nowhere/x.svg")
