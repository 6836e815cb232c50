"""What `python -m tests.fuzz` takes for a fault: in logs, in how calls end, and in replies."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import grpc
import pytest
from fuzz.sending import bad_end, bad_reply
from fuzz.watch import bad_line, is_alive

from cosco.protocol.wire import spb


def line(**fields: object) -> str:
    return json.dumps({"level": "info", "service": "cosco-metadata", **fields})


@pytest.mark.parametrize(
    "text",
    [
        "",
        line(message="all is well"),
        line(level="warning", message="a connection cannot be taken"),
        line(level="error", event="commit_contradicted", exchange="fuzz-own-1"),
    ],
)
def test_lines_that_are_well(text: str) -> None:
    assert not bad_line(text)


@pytest.mark.parametrize(
    "text",
    [
        "Traceback (most recent call last):",
        "thread '<unnamed>' panicked at transport/src/stream.rs:7:",
        "7",
        line(level="error", message="no"),
        line(level="warning", message="no", traceback="Traceback …"),
        line(level="error", event="commit_contradicted", exchange="honest-3"),
        line(level="error", event="database_failing"),
        line(message="Commit failed inside the metadata service; its log says why"),
    ],
)
def test_lines_that_are_not(text: str) -> None:
    assert bad_line(text)


def test_how_calls_end() -> None:
    assert not bad_end(grpc.StatusCode.OK, "")
    assert not bad_end(grpc.StatusCode.INVALID_ARGUMENT, "näh: 'a\\nb'")
    assert bad_end(grpc.StatusCode.UNKNOWN, "Unexpected <class 'KeyError'>")
    assert bad_end(grpc.StatusCode.INTERNAL, "")
    assert bad_end(grpc.StatusCode.INVALID_ARGUMENT, "two\nlines")
    assert bad_end(grpc.StatusCode.FAILED_PRECONDITION, "\x1b[2J")


def test_replies_of_a_push_stream() -> None:
    refusal = spb.Refusal(sequence=1, code=spb.REFUSAL_CODE_BAD_FRAME, reason="too long")
    assert not bad_reply(spb.PushReply(acknowledged=[1], refused=[refusal]).SerializeToString())
    refusal.reason = "too\nlong"
    assert bad_reply(spb.PushReply(refused=[refusal]).SerializeToString())
    assert bad_reply(b"\xff")


def test_a_process_that_has_ended_does_not_live() -> None:
    assert is_alive(os.getpid())
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is left a zombie
        assert not is_alive(process.pid)
    assert not is_alive(process.pid)
