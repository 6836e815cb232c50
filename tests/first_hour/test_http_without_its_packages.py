"""A metadata service without the extra `cosco[http]`: metrics and health are there, and the log
says how to get the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.exchanges import until
from support.http_client import Web
from support.with_tls import make_token, options

from cosco.process.tls.authority import make_authority
from cosco.protocol.peer import Role

#: As Python finds it where a package is not installed.
_WITHOUT = """
import sys
sys.modules["fastapi"] = None
from cosco.cli.metadata import main
main()
"""
_BOUND_S = 20.0


@contextmanager
def started(directory: Path, *more: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    log = directory / "log"
    arguments = ("--listen", "127.0.0.1:0", "--store", f"sqlite:///{directory}/m.db", *more)
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", _WITHOUT, "--log-format", "json", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    with process:
        try:
            yield process, log
        finally:
            process.terminate()


def test_metrics_and_health_are_served_all_the_same(tmp_path: Path) -> None:
    with started(tmp_path, "--http", "127.0.0.1:0") as (process, log):
        until(lambda: "service_started" in log.read_text(), _BOUND_S, "the start")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        [event] = [line for line in lines if line.get("event") == "service_started"]
        web = Web(event["http"])
        assert event["metrics"] == web.host
        assert "cosco_exchanges" in web.ask("/metrics").body
        assert web.ask("/healthz").body == "alive\n"
        assert web.ask("/readyz").body == "ready\n"
        assert web.ask("/api/v1/cluster").status == 404
        [said] = [line for line in lines if "cosco[http]" in str(line)]
        assert (said["level"], "fastapi" in said["message"]) == ("info", True)
        process.terminate()
        assert process.wait(_BOUND_S) == 0


def test_what_is_to_be_https_is_not_served_in_plain(tmp_path: Path) -> None:
    make_authority(tmp_path, [], 30)
    make_token(tmp_path, "admin", "ops", Role.ADMIN)
    secure = options(tmp_path, "metadata")
    with started(tmp_path, "--http", "0.0.0.0:0", *secure) as (process, log):
        assert process.wait(_BOUND_S) == 2
        assert "pip install 'cosco[http]'" in log.read_text().splitlines()[-1]


def test_what_is_meant_is_served_in_plain_and_told(tmp_path: Path) -> None:
    make_authority(tmp_path, [], 30)
    make_token(tmp_path, "admin", "ops", Role.ADMIN)
    secure = (*options(tmp_path, "metadata"), "--insecure")
    with started(tmp_path, "--http", "0.0.0.0:0", *secure) as (_, log):
        until(lambda: "service_started" in log.read_text(), _BOUND_S, "the start")
        assert "metrics at 0.0.0.0:0 are for everybody" in log.read_text()
