"""The files of the dashboard: all are there, name what there is, and make no markup of data."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import promql_parser
import pytest

from cosco.metadata.http.site.page_files import PageFile, page_files
from cosco.metadata.service.metadata_metrics import MetadataMetrics
from cosco.protocol.daemon_figures import COUNTERS, SAMPLES
from cosco.shuffle_service.io.metrics import DaemonMetrics

FILES = page_files()
MODULES = sorted(path for path in FILES if path.endswith(".js"))
FOLDER = Path(__file__).parents[5] / "cosco/metadata/http/page"
MAX_LINES = 400
#: What makes markup, style or code of a text; the policy of the page refuses some of it, too.
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc"
    r"|DOMParser|https?://(?!www\.w3\.org/)"
)


def text(path: str) -> str:
    return FILES[path].content.decode()


def test_all_files_are_there_each_of_its_type() -> None:
    assert set(FILES) == {str(p.relative_to(FOLDER)) for p in FOLDER.rglob("*") if p.is_file()}
    assert FILES["index.html"].media_type == "text/html; charset=utf-8"
    assert FILES["main.js"].media_type == "text/javascript; charset=utf-8"
    assert len({file.tag for file in FILES.values()}) == len(FILES)


@pytest.mark.parametrize(
    ("header", "is_known"),
    [
        ('"a"', True),
        ('W/"a"', True),
        ('"b", "a"', True),
        ("*", True),
        ('"b"', False),
        (None, False),
    ],
)
def test_a_browser_that_has_a_file_is_not_sent_it_again(header: str | None, is_known: bool) -> None:
    assert PageFile(b"", "text/css", '"a"').is_known_by(header) == is_known


@pytest.mark.parametrize("path", MODULES)
def test_modules_are_small_and_make_no_markup(path: str) -> None:
    lines = text(path).splitlines()
    assert len(lines) <= MAX_LINES
    assert max(map(len, lines)) <= 100
    assert not MARKUP.search(text(path))


def test_the_page_has_neither_scripts_nor_styles_in_itself() -> None:
    index = text("index.html")
    assert not re.search(r"\bstyle=|<style|\bon\w+=|<script(?![^>]*\bsrc=)", index)
    assert not re.search(r"url\(|@import", text("style.css"))


def test_modules_import_what_is_there_and_the_page_names_all() -> None:
    for path in MODULES:
        for name, other in re.findall(r'import ([^"]+) from "([^"]+)"', text(path)):
            parts = (PurePosixPath(path).parent / other).as_posix()
            found = re.sub(r"[^/]+/\.\./", "", parts)
            assert found in FILES, (path, other)
            for one in re.findall(r"\w+", name.partition("{")[2]):
                if name.startswith("{") and " as " not in name:
                    exported = rf"^export (async )?(function|const|class) {one}\b"
                    assert re.search(exported, text(found), re.MULTILINE), (path, one)
    named = set(re.findall(r'"/page/([^"]+)"', text("index.html")))
    assert named == set(FILES) - {"index.html"}


def test_each_figure_of_daemons_is_told_with_its_sample() -> None:
    told = text("figures.js").partition("export const TOLD = {")[2].partition("\n};")[0]
    found = {}
    for name, body in re.findall(r"^  (\w+): \{\n(.*?)^  \},", told, re.DOTALL | re.MULTILINE):
        found[name] = re.findall(r'metric: "([^"]+)"', body), "rate:" in body
    assert found == {name: ([sample], name in COUNTERS) for name, sample in SAMPLES.items()}


def test_every_metric_that_is_named_is_one_and_can_be_asked_of_prometheus() -> None:
    samples = set()
    for registry in (DaemonMetrics().registry, MetadataMetrics().registry):
        for family in registry.collect():
            ends = {"counter": ("_total",), "histogram": ("_sum", "_count")}
            samples |= {family.name + end for end in ends.get(family.type, ("",))}
    asked = re.findall(r"""metric:\s*["'](.+?)["'],\n""", text("figures.js"))
    assert len(asked) > 30
    for query in asked:
        promql_parser.parse(query)
        names = set(re.findall(r"cosco_\w+", query))
        assert names and names <= samples, query
