"""Which room may know which, by folders: docs/architecture/overview.md, "The rooms"."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = {"cosco": ROOT / "cosco", "cosco_bench": ROOT / "benchmarks" / "cosco_bench"}
GENERATED = PRODUCT["cosco"] / "protocol" / "pb"
MAX_FILES = 15
MAX_CLASS_LINES = 400
MAX_FUNCTION_LINES = 60

#: What pure code must not know: event loops, the network, processes, threads, files, the clock.
IMPURE = {
    "asyncio", "concurrent", "fcntl", "grpc", "http", "io", "mmap", "multiprocessing", "os",
    "pathlib", "queue", "random", "secrets", "select", "selectors", "shutil", "signal", "socket",
    "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "urllib", "uuid",
}  # fmt: skip
#: A file is pure if any folder above it has one of these names.
PURE_FOLDERS = {"content", "format", "protocol", "state"}
#: Of cosco itself pure code may use these beside other pure code.
PURE_FILES = {"cosco.errors", "cosco.dfs.protocol", "cosco.mechanics"}

#: Bottom first: a module imports from its own layer and those below it.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("cosco.errors", "cosco.mechanics", "cosco.decision_thread"),
    ("cosco.format", "cosco.config"),
    ("cosco.protocol",),
    ("cosco.process", "cosco.dfs"),
    ("cosco.client", "cosco.shuffle_service", "cosco.metadata"),
    (
        "cosco.local",
        "cosco.observe",
        "cosco.admin",
        "cosco.partitioning",
        "cosco.engine_exchanges",
        "cosco.engine_versions",
    ),
    ("cosco",),
    ("cosco.dask", "cosco.ray", "cosco.daft", "cosco.spark"),
    ("cosco.demo",),
    ("cosco.cli",),
    ("cosco_bench",),
)
#: Of one layer, and separate programs: none imports from another.
PROGRAMS = {"cosco.client", "cosco.shuffle_service", "cosco.metadata"}
#: Each is installed with an engine, and imports the public face alone.
ENGINES = {"cosco.dask", "cosco.ray", "cosco.daft", "cosco.spark"}
PUBLIC = {
    "cosco", "cosco.engine_exchanges", "cosco.engine_versions", "cosco.errors",
    "cosco.partitioning",
}  # fmt: skip


def module_name(package: str, path: Path) -> str:
    parts = path.relative_to(PRODUCT[package]).with_suffix("").parts
    return ".".join((package, *(part for part in parts if part != "__init__")))


FILES = {
    module_name(package, path): path
    for package, folder in PRODUCT.items()
    for path in sorted(folder.rglob("*.py"))
    if not path.is_relative_to(GENERATED)
}


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, also under TYPE_CHECKING, by its full name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path.name}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in FILES or "_pb2" in full else node.module)
    return found


def ours(module: str) -> set[str]:
    """The modules of the product that a module imports, itself apart."""
    tops = {name for name in imports_of(FILES[module]) if name.split(".")[0] in PRODUCT}
    return tops - {module}


def room_of(module: str) -> str:
    """The folder that a module is in; a package is in itself."""
    path = FILES[module]
    return module if path.name == "__init__.py" else module.rpartition(".")[0]


def is_pure(module: str) -> bool:
    return bool(PURE_FOLDERS & set(room_of(module).split(".")))


def layer_of(module: str) -> int:
    fits = [
        (len(name), index)
        for index, names in enumerate(LAYERS)
        for name in names
        if module == name or (name != "cosco" and module.startswith(f"{name}."))
    ]
    assert fits, f"{module} is in no layer: add it to LAYERS"
    return max(fits)[1]


def program_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("module", [module for module in sorted(FILES) if is_pure(module)])
def test_pure_code_does_no_io(module: str) -> None:
    roots = {name.split(".")[0] for name in imports_of(FILES[module])}
    assert not roots & IMPURE


@pytest.mark.parametrize("module", [module for module in sorted(FILES) if is_pure(module)])
def test_pure_code_imports_only_pure_code(module: str) -> None:
    generated = {name for name in ours(module) if name.startswith("cosco.protocol.pb")}
    others = {name for name in ours(module) - generated - PURE_FILES if not is_pure(name)}
    assert not others


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_point_down(module: str) -> None:
    for imported in ours(module):
        assert layer_of(imported) <= layer_of(module), f"{module} imports {imported} above it"
        programs = {program_of(module), program_of(imported)}
        assert not (len(programs) == 2 and programs <= PROGRAMS), f"{module} imports {imported}"


@pytest.mark.parametrize("module", [name for name in sorted(FILES) if program_of(name) in ENGINES])
def test_engines_import_the_public_face_and_themselves(module: str) -> None:
    """What an engine needs, other engines need: it belongs to what everybody may use."""
    assert not {name for name in ours(module) - PUBLIC if program_of(name) != program_of(module)}


def test_nobody_imports_what_is_for_an_engine() -> None:
    """`import cosco` is the same with and without an engine, and as quick."""
    users = {
        module
        for module in FILES
        if program_of(module) not in ENGINES
        and any(program_of(name) in ENGINES for name in ours(module))
    }
    assert not users


def circles(arrows: dict[str, set[str]]) -> Iterator[list[str]]:
    """Groups of two or more that reach each other (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> Iterator[list[str]]:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(arrows.get(node, ())):
            if other not in index:
                yield from visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                yield sorted(group)

    for node in sorted(arrows):
        if node not in index:
            yield from visit(node)


def test_no_files_import_each_other() -> None:
    assert not list(circles({module: ours(module) for module in FILES}))


def test_no_rooms_import_each_other() -> None:
    """Not even in a circle of folders; the package `cosco` itself is the public face."""
    arrows: dict[str, set[str]] = {}
    for module in FILES:
        room = room_of(module)
        rooms = {room_of(name) for name in ours(module) if name in FILES}
        arrows.setdefault(room, set()).update(rooms - {room, "cosco"})
    arrows.pop("cosco")
    assert not list(circles(arrows))


def test_generated_types_stop_at_wire() -> None:
    users = {room_of(module) for module in FILES if any("_pb2" in name for name in ours(module))}
    assert users == {"cosco.protocol.wire"}


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES.values()}))
def test_rooms_stay_small(folder: Path) -> None:
    files = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(files) <= MAX_FILES, f"{folder} has {len(files)} files: which room is missing?"


def test_no_two_files_of_one_name() -> None:
    names: dict[str, list[str]] = {}
    for module, path in FILES.items():
        if path.name not in {"__init__.py", "main.py", "server.py"}:  # what a program begins with
            names.setdefault(path.name, []).append(module)
    assert not {name: modules for name, modules in names.items() if len(modules) > 1}


@pytest.mark.parametrize("module", sorted(FILES))
def test_classes_and_functions_stay_small(module: str) -> None:
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            limit = MAX_CLASS_LINES if isinstance(node, ast.ClassDef) else MAX_FUNCTION_LINES
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= limit, f"{module}.{node.name} has {lines} lines"


@pytest.mark.parametrize("module", sorted(FILES))
def test_modules_say_what_they_are_for(module: str) -> None:
    assert ast.get_docstring(ast.parse(FILES[module].read_text()))
