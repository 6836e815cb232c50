"""Requests of all kinds to all routes, as the document allows them and as it does not: schemathesis
makes them from it. None may fail inside the service, and each answer is as the document says.

They go to a real service that has daemons, exchanges, a group and an application.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from support.http_examples import Tried, trying

#: Of each route, of each kind.
EXAMPLES = 60
#: It goes on for ever; test_http_attacks has its bounds.
ENDLESS = "/api/v1/live"
#: A commit is waited for no longer than this, of the 30 s that there may be.
WAIT_S = 0.02
KNOWN = "orders/2026"
SCHEMA = schemathesis.openapi.from_path(Path(__file__).resolve().parents[2] / "docs/openapi.json")
OPERATIONS: dict[str, Any] = {
    operation.label: operation
    for operation in (result.ok() for result in SCHEMA.get_all_operations())
    if operation.path != ENDLESS
}
#: What may be meant of an exchange that is there: it must be there for the next test.
OF_EXCHANGES = [label for label in OPERATIONS if "{shuffle_id}" in label and "GET" in label]

load_all_checks()
CHECKED = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
    ]
)
bounded = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    with trying(tmp_path_factory.mktemp("web")) as found:
        yield found


def send_all(tried: Tried, label: str, mode: GenerationMode, shuffle_id: str = "") -> Counter[int]:
    """Send requests of one kind to a route, and check the answers.

    Returns: how many answers had each status.
    """
    found = Counter[int]()

    @bounded
    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        wait = (case.query or {}).get("wait")
        if isinstance(wait, int | float) and WAIT_S < wait <= 30:
            case.query["wait"] = WAIT_S
        if shuffle_id:
            case.path_parameters["shuffle_id"] = shuffle_id
        answer = case.call(base_url=tried.web.url)
        case.validate_response(answer, checks=CHECKED)
        found[answer.status_code] += 1

    send()
    return found


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("label", OPERATIONS)
def test_no_request_fails_inside_the_service(
    tried: Tried, label: str, mode: GenerationMode
) -> None:
    try:
        found = send_all(tried, label, mode)
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE
        pytest.skip("there is nothing that could be wrong with it")
    print(label, mode, found)
    assert found


@pytest.mark.parametrize("label", OF_EXCHANGES)
def test_none_about_an_exchange_that_is_there(tried: Tried, label: str) -> None:
    found = send_all(tried, label, GenerationMode.POSITIVE, quote(KNOWN, safe=""))
    print(label, found)
    assert found[200] > EXAMPLES // 4


def test_the_service_is_as_it_was(tried: Tried) -> None:
    assert tried.web.get(f"exchanges/{quote(KNOWN, safe='')}")["state"] == "open"
    assert tried.web.ask("/readyz").body == "ready\n"
