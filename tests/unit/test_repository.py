"""What is generated is current, and what is documented exists."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from cosco.protocol.events import EventKind

ROOT = Path(__file__).resolve().parents[2]
PROTOS = sorted((ROOT / "protos").rglob("*.proto"))
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
#: Those that speak of the inside, and so of classes, calls and constants by name.
INSIDE = [path for path in DOCUMENTS if path.parent.name == "architecture"]
#: Named in documents, and not of this repository; Ray's are in docs/architecture/ray.md.
FOREIGN_NAMES = {
    "AllToAllOperator", "FetchFailed", "MapStatus", "MemoryConsumer", "SIGTERM", "ShuffleMapOp",
    "ShuffleReduceOp", "SortShuffleManager", "SortShuffleMapOp",
}  # fmt: skip
#: What speaks of modules and documents in comments and docstrings.
SOURCES = [
    *PROTOS,
    *(
        path
        for top in ("cosco", "benchmarks", "tests")
        for path in sorted((ROOT / top).rglob("*.py"))
    ),
]

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_PATH = re.compile(r"[\w.-]+(/[\w.*-]+)*/?")
_SUFFIXES = (".md", ".proto", ".py")
_NAME = re.compile(r"([A-Z]\w+)(?:\.(\w+))?")
_DRAWING = re.compile(r"^```mermaid\n(.*?)^```", re.MULTILINE | re.DOTALL)
_NAME_IN_DRAWING = re.compile(r"\b([A-Z][a-z]+[A-Z]\w*)(?:\.(\w+))?")
_MODULE = re.compile(r"`((?:cosco|cosco_bench)(?:\.\w+)+)`")
_SOURCE_PATH = re.compile(r"\b(?:cosco|docs|tests|protos)/[\w/.-]+\.(?:md|proto|py)\b")


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(document: Path) -> str:
    """What a document says beside its programs and drawings."""
    return _FENCE.sub("", document.read_text())


def anchors(document: Path) -> set[str]:
    """What headings are called in links to them, as the usual forges make it."""
    found: Counter[str] = Counter()
    names = set()
    for heading in re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        names.add(f"{words}-{found[words]}" if found[words] else words)
        found[words] += 1
    return names


@cache
def repository_paths() -> list[str]:
    """Every file and folder, each with a slash before its first name."""
    tops = ("benchmarks", "cosco", "docs", "examples", "protos", "tests", "tools")
    # Beside the crates lies what cargo makes.
    crates = [f"native/{name}" for name in ("extension", "fuzz", "mechanics", "transport")]
    found = [path for top in (*tops, *crates) for path in (ROOT / top).rglob("*")]
    found += [*ROOT.glob("*"), *ROOT.glob("native/*")]
    return [f"/{path.relative_to(ROOT).as_posix()}" for path in found]


def is_there(path: str) -> bool:
    """Whether a path, perhaps without its first folders, is one of the repository."""
    if "*" in path:
        return any(ROOT.glob(path))
    return any(name.endswith(f"/{path.rstrip('/')}") for name in repository_paths())


@cache
def product_names() -> dict[str, set[str]]:
    """The product's classes, messages, calls and constants, each with its members."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    stubs = [*(ROOT / "cosco").rglob("*.pyi"), *(ROOT / "native").glob("*.pyi")]
    for path in [*(ROOT / "cosco").rglob("*.py"), *stubs]:
        tree = ast.parse(path.read_text(), str(path))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found[node.name].update(_members(node))
        for name in _members(tree):
            found[name].update()
    for proto in PROTOS:
        for name in re.findall(r"^\s*(?:rpc|message|enum) (\w+)", proto.read_text(), re.MULTILINE):
            found[name].update()
    for path in (ROOT / "spark" / "src").rglob("*.java"):
        found[path.stem].update(re.findall(r"^  .*\b(\w+)\(", path.read_text(), re.MULTILINE))
    for members in list(found.values()):
        for name in members:
            if name.isupper():  # of an enumeration
                found[name].update()
    return found


def _members(node: ast.ClassDef | ast.Module) -> Iterator[str]:
    """Names that the body of a class or module defines, and what methods set on `self`."""
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield inner.name
        elif isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
            yield inner.target.id
        elif isinstance(inner, ast.Assign):
            yield from (one.id for target in inner.targets for one in ast.walk(target)
                        if isinstance(one, ast.Name))  # fmt: skip
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
            yield inner.attr


def load_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_configuration_is_documented() -> None:
    current = (ROOT / "docs" / "configuration.md").read_text()
    assert current == load_tool("gen_config_docs").render(), "run `make config-docs`"


def test_generated_code_says_the_lowest_protobuf_that_runs_it() -> None:
    """`make lint` compares all of it, in an environment that has the compiler."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [bound] = [one for one in project["dependencies"] if one.startswith("protobuf")]
    for path in (ROOT / "cosco" / "protocol" / "pb").glob("*_pb2.py"):
        version = re.search(r"^# Protobuf Python Version: (\S+)$", path.read_text(), re.MULTILINE)
        assert version is not None
        assert bound.startswith(f"protobuf>={version[1]},"), path


@pytest.mark.parametrize("path", PROTOS, ids=lambda path: str(path.name))
def test_proto_services_and_calls_are_commented(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("//"), f"{path.name} does not say what it is"
    assert re.search(r"^service ", text, re.MULTILINE)


def test_scripts_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for script, target in project["scripts"].items():
        module, function = target.split(":")
        loaded = importlib.import_module(module)
        assert callable(getattr(loaded, function)), script
        assert script == loaded.NAME


@pytest.mark.parametrize("document", DOCUMENTS, ids=shown)
def test_links_lead_somewhere(document: Path) -> None:
    wrong = []
    for link in _LINK.findall(prose(document)):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert not wrong


@pytest.mark.parametrize("document", DOCUMENTS, ids=shown)
def test_files_that_are_named_exist(document: Path) -> None:
    named = [code.partition("::")[0] for code in _CODE.findall(prose(document))]
    paths = [name for name in named if "/" in name.strip("/") or name.endswith(_SUFFIXES)]
    assert not [path for path in paths if _PATH.fullmatch(path) and not is_there(path)]


@pytest.mark.parametrize("document", INSIDE, ids=shown)
def test_classes_and_calls_that_are_named_exist(document: Path) -> None:
    known = product_names()
    text = document.read_text()
    named = [match for code in _CODE.findall(prose(document)) if (match := _NAME.fullmatch(code))]
    named += [
        match for drawing in _DRAWING.findall(text) for match in _NAME_IN_DRAWING.finditer(drawing)
    ]
    wrong = []
    for match in named:
        owner, member = match.groups()
        if owner not in FOREIGN_NAMES and (
            owner not in known or (member and member not in known[owner])
        ):
            wrong.append(match[0])
    assert not wrong


def test_every_event_is_documented() -> None:
    text = (ROOT / "docs" / "architecture" / "operations.md").read_text()
    rows = "\n".join(line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `"))
    named = re.findall(r"`(\w+)`", rows)
    assert sorted(named) == sorted(kind.label for kind in EventKind)


def is_module_or_name(dotted: str) -> bool:
    """Whether this is a module of the product, or a name in one."""
    root = ROOT / "benchmarks" if dotted.startswith("cosco_bench") else ROOT
    path = root.joinpath(*dotted.split("."))
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    for parent, name in (
        (path.parent.with_suffix(".py"), path.name),
        (path.parent / "__init__.py", path.name),
        (path.parent.parent.with_suffix(".py"), path.parent.name),
    ):
        if parent.is_file():
            return bool(re.search(rf"\b{name}\b", parent.read_text()))
    return False


def test_what_comments_name_exists() -> None:
    wrong = []
    for path in SOURCES:
        text = path.read_text()
        wrong += [
            (shown(path), name) for name in _MODULE.findall(text) if not is_module_or_name(name)
        ]
        wrong += [(shown(path), name) for name in _SOURCE_PATH.findall(text) if not is_there(name)]
    assert not wrong, "\n".join(map(str, wrong))


def test_each_word_is_said_once_and_has_a_file() -> None:
    text = (ROOT / "docs" / "words.md").read_text()
    rows = re.findall(r"^\| (.+?) \| .+ \| (.+?) \|$", text, re.MULTILINE)
    rows = [row for row in rows if row[0] not in {"term", "---"}]
    terms = Counter(term for row in rows for term in row[0].split(", "))
    assert len(terms) >= 30
    assert not [term for term, times in terms.items() if times > 1]
    assert not [term for term, owner in rows if not _LINK.findall(owner)]


def test_packages_lead_to_the_words() -> None:
    files = [ROOT / "benchmarks/cosco_bench/__init__.py", ROOT / "cosco/__init__.py"]
    for path in [*files, *(ROOT / "cosco").glob("*/__init__.py")]:
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        assert "docs/words.md" in text, shown(path)


def test_readme_names_commands_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake ([a-z-]+)", readme):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for command in set(re.findall(r"^(?:\$ )?(cosco[a-z-]*) ", readme, re.MULTILINE)):
        assert command in scripts, command


def test_all_tests_are_run() -> None:
    """By `make test`, or, if they need an engine or a server, by a target of their own."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    apart = ("deploying", "engines", "spark", "stores", "versions", "web")
    folders = {f"tests/{path.relative_to(ROOT / 'tests').parts[0]}"
               for path in (ROOT / "tests").rglob("test_*.py")}  # fmt: skip
    assert folders == {*options["testpaths"], *(f"tests/{name}" for name in apart)}
    for one in ("deploying", "stores", "versions", "web"):
        makefile = (ROOT / "Makefile").read_text()
        assert re.search(rf"pytest (--\S+ (\w+ )?)*tests/{one}$", makefile, re.MULTILINE)
    engines = re.search(r"^ENGINES := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert engines is not None
    found = {path.relative_to(ROOT / "tests" / "engines").parts[0]
             for path in (ROOT / "tests" / "engines").rglob("test_*.py")}  # fmt: skip
    assert found == {*engines[1].split()}


def test_no_program_is_started_by_a_fork() -> None:
    """`preexec_fn` makes Popen fork the whole process, which gRPC's threads do not survive."""
    word = "preexec" + "_fn="
    for folder in ("cosco", "benchmarks", "tests", "examples", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            assert word not in path.read_text(), path


def test_no_leftovers() -> None:
    """No marks of unfinished work."""
    mark = re.compile(r"\b(TODO|FIXME|XXX)\b")
    for folder in ("cosco", "benchmarks", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            if path != Path(__file__).resolve():
                assert not mark.search(path.read_text()), path
