"""An example of each route: a request, and what was answered to it. A test makes them all again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Example:
    """A request and its answer. body: as JSON; None: none is sent."""

    method: str
    target: str
    answer: Any
    body: Any = None
    status: int = 200


#: By the ids of operations, in an order in which they can be made one after another.
EXAMPLES: Final[dict[str, Example]] = {
    "cluster": Example(
        "GET",
        "/api/v1/cluster",
        {
            "cluster_id": "874812e79e8b4f5c",
            "version": "0.1.0",
            "address": "127.0.0.1:7070",
            "started_s": 1796110536.399,
            "figures": {
                "exchanges_open": 6,
                "exchanges_closing": 0,
                "groups": 1,
                "applications": 1,
                "daemons_serving": 2,
                "daemons_draining": 0,
                "daemons_dead": 1,
                "memory_bytes": 31457280,
                "memory_free_bytes": 31432704,
                "waiting_calls": 4,
            },
            "last_event": 1796110536415,
        },
    ),
    "daemons": Example(
        "GET",
        "/api/v1/daemons?state=serving&limit=1",
        {
            "daemons": [
                {
                    "address": "127.0.0.1:7071",
                    "incarnation": "3176160197689856247",
                    "host_id": "host-0",
                    "store_id": "a6d5",
                    "state": "serving",
                    "memory_bytes": 15728640,
                    "memory_free_bytes": 15720448,
                    "assignments": 7,
                    "metrics_address": "127.0.0.1:8071",
                    "store_failing": False,
                    "store_hangs": False,
                    "mechanics": "native 0.1.0",
                    "version": "0.1.0",
                    "figures": {
                        "bytes_received": 2904,
                        "blocks_received": 8,
                        "rows_received": 8,
                        "duplicates_dropped": 0,
                        "bytes_stored": 2904,
                        "bytes_fetched": 0,
                        "rows_fetched": 0,
                        "bytes_referenced": 0,
                        "flush_failures": 0,
                        "writes": 1,
                        "write_bytes": 3210,
                        "write_s": 0.004,
                        "reads": 0,
                        "read_bytes": 0,
                        "read_s": 0.0,
                        "waited_s": 0.0,
                        "pages_used_bytes": 8192,
                        "copies_bytes": 0,
                        "waiting_bytes": 0,
                        "granted_bytes": 0,
                        "push_streams": 0,
                        "fetch_streams": 0,
                        "followers": 0,
                    },
                }
            ],
            "next": "ZGFlbW9uczozMTc2MTYwMTk3Njg5ODU2MjQ3",
        },
    ),
    "exchanges": Example(
        "GET",
        "/api/v1/exchanges?state=open&prefix=orders",
        {
            "exchanges": [
                {
                    "shuffle_id": "orders/2026",
                    "number": 1,
                    "state": "open",
                    "tenant": "",
                    "partitions": 8,
                    "mappers_committed": 1,
                    "rows": 80,
                }
            ],
            "next": None,
        },
    ),
    "groups": Example(
        "GET",
        "/api/v1/groups",
        {
            "groups": [
                {
                    "group_id": "batches",
                    "tenant": "",
                    "exchanges": 3,
                    "open": 3,
                    "partitions": 2,
                    "replicas": 1,
                    "mappers": 1,
                    "lease_s": 300.0,
                    "heard_s": 3.153,
                    "lease_left_s": 296.847,
                }
            ],
            "next": None,
        },
    ),
    "applications": Example(
        "GET",
        "/api/v1/applications",
        {
            "applications": [
                {
                    "application_id": "report-1",
                    "number": 1,
                    "tenant": "",
                    "exchanges": 1,
                    "lease_s": 300.0,
                    "heard_s": 3.152,
                    "lease_left_s": 296.848,
                }
            ],
            "next": None,
        },
    ),
    "events": Example(
        "GET",
        "/api/v1/events?severity=warning&limit=1",
        {
            "events": [
                {
                    "sequence": 1796110536408,
                    "time_s": 1796110537.917,
                    "event": "daemon_died",
                    "severity": "warning",
                    "fields": {
                        "daemon": "127.0.0.1:7073",
                        "incarnation": "3403781355541906079",
                        "host_id": "host-2",
                        "store": "3f1c",
                        "ranges": 4,
                        "cause": "lease",
                    },
                }
            ],
            "next": "ZXZlbnRzOjE3OTYxMTA1MzY0MTU",
        },
    ),
    "exchange": Example(
        "GET",
        "/api/v1/exchanges/orders%2F2026",
        {
            "shuffle_id": "orders/2026",
            "number": 1,
            "state": "open",
            "tenant": "",
            "partitions": 8,
            "mappers_committed": 1,
            "rows": 80,
            "group_id": "",
            "application_id": "",
            "replicas": 1,
            "min_replicas": 1,
            "copies": 1,
            "codec": "lz4",
            "kind": "bytes",
            "deterministic": True,
            "direct_reads": False,
            "generation": 1,
            "callback": False,
            "lease_s": 300.0,
            "heard_s": 3.259,
            "lease_left_s": 296.741,
            "mappers_opened": 1,
            "group_mappers": 0,
            "created_s": 1796110538.112,
            "closed_s": 0.0,
            "cause": "",
            "rebuilds": 0,
            "raw_bytes": 80390,
            "stored_bytes": 2904,
            "ranges": 6,
            "empty_partitions": 0,
            "largest": [
                {"partition": 0, "rows": 10, "raw_bytes": 10048},
                {"partition": 1, "rows": 10, "raw_bytes": 10048},
            ],
            "sizes": {
                "bands": [
                    {"first": 0, "count": 1, "raw_bytes": 10048, "largest_bytes": 10048},
                    {"first": 1, "count": 1, "raw_bytes": 10048, "largest_bytes": 10048},
                ],
                "smallest_bytes": 10048,
                "median_bytes": 10049,
                "p90_bytes": 10049,
                "p99_bytes": 10049,
                "largest_bytes": 10049,
                "mean_bytes": 10048.75,
                "skew": 1.0000248787162582,
            },
            "daemons": [
                {
                    "address": "127.0.0.1:7071",
                    "incarnation": "3176160197689856247",
                    "store_id": "a6d5",
                    "state": "serving",
                    "primary": 3,
                    "replica": 0,
                    "sealed": 0,
                },
                {
                    "address": "127.0.0.1:7072",
                    "incarnation": "3545791333610233417",
                    "store_id": "a6d5",
                    "state": "serving",
                    "primary": 3,
                    "replica": 0,
                    "sealed": 0,
                },
                {
                    "address": "127.0.0.1:7073",
                    "incarnation": "3403781355541906079",
                    "store_id": "3f1c",
                    "state": "dead",
                    "primary": 0,
                    "replica": 0,
                    "sealed": 2,
                },
            ],
            "unusual": [],
            "rebuilt_ranges": 0,
            "losses": [],
            "losses_count": 0,
            "failures": [],
            "contradicted": [],
            "waiting_for": [],
        },
    ),
    "partitions": Example(
        "GET",
        "/api/v1/exchanges/orders%2F2026/partitions?order=size&limit=2",
        {
            "partitions": [
                {"partition": 2, "rows": 10, "raw_bytes": 10049},
                {"partition": 3, "rows": 10, "raw_bytes": 10049},
            ],
            "next": "cGFydGl0aW9ucyBieSBzaXplOjI",
        },
    ),
    "assignments": Example(
        "GET",
        "/api/v1/exchanges/orders%2F2026/assignments?limit=1",
        {
            "assignments": [
                {
                    "range_index": 0,
                    "first": 0,
                    "count": 1,
                    "epoch": 1,
                    "build": 1,
                    "sealed": False,
                    "primary": {"address": "127.0.0.1:7071", "incarnation": "3176160197689856247"},
                    "replicas": [],
                }
            ],
            "next": "YXNzaWdubWVudHM6MA",
        },
    ),
    "commits": Example(
        "GET",
        "/api/v1/exchanges/orders%2F2026/commits?wait=10&after=0",
        {"number": 1, "committed": 1, "mappers": [{"first": 0, "last": 0}], "is_cut": False},
    ),
    "session": Example(
        "GET", "/api/v1/session", {"asks": False, "name": "", "tenant": "", "role": "admin"}
    ),
    "begin_session": Example(
        "POST",
        "/api/v1/session",
        {"asks": False, "name": "", "tenant": "", "role": "admin"},
        body={"token": "cosco-token-NAME.SECRET"},
    ),
    "end_session": Example("DELETE", "/api/v1/session", "", status=204),
    "live": Example(
        "GET",
        "/api/v1/live",
        "event: snapshot\n"
        'data: {"figures":{"exchanges_open":6,"exchanges_closing":0,"groups":1,"applications":1,'
        '"daemons_serving":2,"daemons_draining":0,"daemons_dead":1,"memory_bytes":31457280,'
        '"memory_free_bytes":31432704,"waiting_calls":4},"last_event":1796110536415,"totals":{'
        '"names":["at_s","bytes_received","blocks_received","rows_received","duplicates_dropped",'
        '"bytes_stored","bytes_fetched","rows_fetched","bytes_referenced","flush_failures","writes",'
        '"write_bytes","write_s","reads","read_bytes","read_s","waited_s","pages_used_bytes","copies_bytes",'
        '"waiting_bytes","granted_bytes","push_streams","fetch_streams","followers"],"points":[['
        "1796110541.402,2904,8,8,0,2904,0,0,0,0,1,3210,0.004,0,0,0,0,8192,0,0,0,0,0,0]]}}\n\n",
    ),
    "healthz": Example("GET", "/healthz", "alive\n"),
    "readyz": Example("GET", "/readyz", "ready\n"),
    "drain": Example(
        "POST", "/api/v1/daemons/127.0.0.1:7071/drain", {"address": "127.0.0.1:7071"}, body={}
    ),
    "undrain": Example(
        "POST",
        "/api/v1/daemons/127.0.0.1:7071/undrain",
        {"address": "127.0.0.1:7071", "was_draining": True},
        body={},
    ),
    "close": Example("POST", "/api/v1/exchanges/old/close", {"was_open": True}, body={}),
    "forget": Example(
        "POST",
        "/api/v1/stores/3f1c/forget",
        {"closed": 0, "ranges": 2, "doubtful": 0, "exchanges": 1},
        body={},
    ),
    "get_metrics": Example(
        "GET",
        "/metrics",
        "# HELP cosco_exchanges Exchanges, open or closing\n"
        "# TYPE cosco_exchanges gauge\n"
        'cosco_exchanges{state="open"} 6.0\n',
    ),
}


def with_examples(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document with the examples of its operations."""
    for operations in document["paths"].values():
        for operation in operations.values():
            example = EXAMPLES.get(operation["operationId"])
            if example is not None:
                _add(operation, example)
    return document


def _add(operation: dict[str, Any], example: Example) -> None:
    operation["x-example"] = {"request": _request(example), "answer": example.answer}
    for media in operation["responses"].get(str(example.status), {}).get("content", {}).values():
        media["example"] = example.answer
    if example.body is not None:
        for media in operation["requestBody"]["content"].values():
            media["example"] = example.body


def _request(example: Example) -> str:
    command = [f"curl -X {example.method}"] if example.method != "GET" else ["curl"]
    if example.method == "POST":
        command.append("-H 'Content-Type: application/json'")
    return " ".join([*command, f"'http://127.0.0.1:8070{example.target}'"])
