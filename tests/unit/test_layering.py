"""Imports point one way, files stay small: docs/architecture.md, "Layers"."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "cosco"
MAX_LINES = 400

#: What pure logic must not know: event loops, the network, processes, files, the clock.
IMPURE = {
    "asyncio", "concurrent", "grpc", "http", "mmap", "multiprocessing", "os", "pathlib", "select",
    "socket", "sqlite3", "subprocess", "tempfile", "threading", "time", "urllib",
}  # fmt: skip

PURE_MODULES = {
    "bench.io_figures", "bench.spindle", "dfs.protocol",
    "errors", "intervals", "checksum", "blocks", "frames", "chunks", "records", "partitioning",
    "group_records", "group_size", "marks",
    "client.arguments", "client.arrow", "client.framing", "client.merge", "client.packing",
    "client.pending", "client.reading", "client.sorting",
    "client.rows", "client.routing", "client.trouble", "window",
    "shuffle_service.pool", "shuffle_service.buffers", "shuffle_service.dedupe",
    "shuffle_service.core", "shuffle_service.intake", "shuffle_service.credits",
    "shuffle_service.alike", "shuffle_service.answers", "shuffle_service.flush_order",
    "shuffle_service.marks",
    "shuffle_service.assignments", "shuffle_service.copies", "shuffle_service.draining",
    "shuffle_service.limits", "shuffle_service.replica", "shuffle_service.replication",
    "metadata.attempts", "metadata.builds", "metadata.epochs", "metadata.losses",
    "metadata.changes", "metadata.closing", "metadata.daemons", "metadata.exchanges",
    "metadata.leases", "metadata.placement", "metadata.restore", "metadata.rows",
    "metadata.directory", "metadata.failover", "metadata.fences", "metadata.members",
    "metadata.commits", "metadata.state", "metadata.suspicion", "metadata.validate",
    "metadata.waiting", "metadata.shunning", "metadata.groups", "metadata.group_checks",
    "metadata.group_rows", "metadata.alike", "metadata.lifecycle",
}  # fmt: skip

#: Bottom first: a module imports from its own layer and those below it.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "intervals", "allocator", "checksum"),
    ("blocks", "frames", "chunks", "records", "config", "partitioning", "window", "marks"),
    ("group_records", "group_size"),
    ("_pb",),
    ("wire", "dfs", "channels"),
    ("client", "shuffle_service", "metadata"),
    ("", "cluster", "cluster_reaper", "observe", "workers"),
    ("demo", "bench"),
    ("cli",),
)
#: Packages of one layer that are separate programs: none imports from another.
PEERS = {"client", "shuffle_service", "metadata"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


FILES = {
    module_name(path): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if not path.is_relative_to(PACKAGE / "_pb")
}


def imports_of(path: Path) -> set[str]:
    """Every module a file imports, by its full name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path.name}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                is_module = full.removeprefix("cosco.") in FILES or full == "cosco._pb"
                found.add(full if is_module else node.module)
    return found


def modules_of_ours(path: Path) -> set[str]:
    """The modules of cosco a file imports, without the leading `cosco.`."""
    return {
        name.removeprefix("cosco").lstrip(".")
        for name in imports_of(path)
        if name.split(".")[0] == "cosco"
    }


def layer_of(module: str) -> int:
    top = module.split(".", maxsplit=1)[0]
    for index, names in enumerate(LAYERS):
        if top in names:
            return index
    raise AssertionError(f"cosco.{module} is in no layer: add it to LAYERS")


@pytest.mark.parametrize("module", sorted(PURE_MODULES))
def test_pure_modules_do_no_io(module: str) -> None:
    assert module in FILES, f"cosco.{module} is gone: take it off the list"
    roots = {name.split(".")[0] for name in imports_of(FILES[module])}
    assert not roots & IMPURE


@pytest.mark.parametrize("module", sorted(PURE_MODULES))
def test_pure_modules_import_only_pure_modules(module: str) -> None:
    impure = modules_of_ours(FILES[module]) - PURE_MODULES
    packages = {name.rpartition(".")[0] for name in PURE_MODULES}  # empty __init__ files
    assert not impure - packages


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_point_down(module: str) -> None:
    own = layer_of(module)
    for imported in modules_of_ours(FILES[module]) - {module}:
        assert layer_of(imported) <= own, f"cosco.{module} imports cosco.{imported} above it"
        tops = {module.split(".", maxsplit=1)[0], imported.split(".")[0]}
        assert not (len(tops) == 2 and tops <= PEERS), f"cosco.{module} imports cosco.{imported}"


def test_generated_types_stop_at_wire() -> None:
    users = {m for m, path in FILES.items() if any("_pb" in i for i in modules_of_ours(path))}
    assert {m.partition(".")[0] for m in users} == {"wire"}


@pytest.mark.parametrize("module", sorted(FILES))
def test_files_stay_small(module: str) -> None:
    lines = len(FILES[module].read_text().splitlines())
    assert lines <= MAX_LINES, f"cosco.{module} has {lines} lines: split it by responsibility"


@pytest.mark.parametrize("module", sorted(FILES))
def test_modules_say_what_they_are_for(module: str) -> None:
    assert ast.get_docstring(ast.parse(FILES[module].read_text()))
