"""Each route has an example in the document, and each is what a service answers."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.exchanges import until
from support.http_examples import Tried, trying

from cosco.metadata.http.document.examples import EXAMPLES, Example

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = json.loads((ROOT / "docs" / "openapi.json").read_text())
OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    with trying(tmp_path_factory.mktemp("examples")) as found:
        died = Example("GET", "/api/v1/events?severity=warning", None)
        until(lambda: bool(found.answer(died)[1]["events"]), 20.0, "the death of a daemon")
        yield found


def shape(value: Any) -> Any:
    """What a value looks like: names, types, and of a list its first element."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items()}
    if isinstance(value, list):
        return [shape(one) for one in value[:1]]
    return "number" if isinstance(value, int | float) else type(value).__name__


def test_the_document_is_that_of_the_code() -> None:
    spec = importlib.util.spec_from_file_location("made", ROOT / "tools" / "gen_openapi.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert json.loads(tool.render()) == DOCUMENT, "run `make openapi`"


def test_each_route_has_an_example() -> None:
    assert EXAMPLES.keys() == OPERATIONS.keys()
    for name, example in EXAMPLES.items():
        method, path, operation = OPERATIONS[name]
        assert example.method == method
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))
        assert re.fullmatch(pattern, example.target.partition("?")[0]), name
        assert operation["x-example"]["answer"] == example.answer
        assert operation["summary"], name
        for parameter in operation.get("parameters", ()):
            assert parameter.get("description"), (name, parameter["name"])


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_what_is_answered(tried: Tried, name: str) -> None:
    example = EXAMPLES[name]
    status, answer = tried.answer(example)
    assert status == example.status, answer
    if name == "get_metrics":
        assert "\ncosco_exchanges{" in answer
    elif name == "live":
        (kind, data), (ours, example_data) = ((text.split("\n")[:2]) for text in (
            answer, example.answer))  # fmt: skip
        assert kind == ours
        assert shape(json.loads(data[6:])) == shape(json.loads(example_data[6:]))
    elif isinstance(answer, str):
        assert answer == example.answer
    else:
        assert shape(answer) == shape(example.answer)
        is_valid(answer, OPERATIONS[name][2]["responses"]["200"])


def is_valid(answer: Any, response: Any) -> None:
    """The answer has the fields of its schema, and no others."""
    reference = response["content"]["application/json"]["schema"]["$ref"]
    schema = DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]]
    assert answer.keys() == schema["properties"].keys()
