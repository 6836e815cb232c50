"""The frame around a service: readiness line, signals, errors; in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVICE = """
import asyncio, sys
import click
from cosco.cli.options import run_command
from cosco.cli.services import run_draining_service, run_service
from cosco.errors import InvalidArgument
from cosco.process.log_output import LogSettings

async def serve(config, *, ready, stop):
    if config == "fail":
        raise InvalidArgument("cannot")
    ready("127.0.0.1:5")
    await stop.wait()
    if config == "stuck":
        print("stopping", flush=True)
        await asyncio.Event().wait()
    print("stopped", flush=True)

async def drain(config, *, ready, stop, stop_now, drained):
    ready("127.0.0.1:5")
    await stop.wait()
    drained()
    await stop_now.wait()
    print("stopping", flush=True)
    if config == "drain-stuck":
        await asyncio.Event().wait()

@click.command
@click.argument("config")
def command(config):
    if config.startswith("drain"):
        run_draining_service("svc", drain, config, LogSettings())
    else:
        run_service("svc", serve, config, LogSettings())

run_command(command, "svc")
"""


@contextmanager
def service(tmp_path: Path, config: str) -> Iterator[subprocess.Popen[str]]:
    script = tmp_path / "service.py"
    script.write_text(SERVICE)
    root = Path(__file__).resolve().parents[3]
    process = subprocess.Popen(
        [sys.executable, str(script), config],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_ready_line_then_a_clean_end_on_sigterm(tmp_path: Path) -> None:
    with service(tmp_path, "ok") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "svc ready on 127.0.0.1:5\n"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, out, err) == (0, "stopped\n", "")


def test_a_second_sigterm_kills_at_once(tmp_path: Path) -> None:
    with service(tmp_path, "stuck") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
        assert process.returncode == -signal.SIGTERM


def test_a_draining_service_says_that_it_serves_on_and_ends_at_the_second_signal(
    tmp_path: Path,
) -> None:
    with service(tmp_path, "drain") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "svc drained\n"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, out, err) == (0, "stopping\n", "")


def test_a_third_signal_kills_a_draining_service(tmp_path: Path) -> None:
    with service(tmp_path, "drain-stuck") as process:
        assert process.stdout is not None
        process.stdout.readline()
        for said in ("svc drained\n", "stopping\n"):
            process.send_signal(signal.SIGTERM)
            assert process.stdout.readline() == said
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
        assert process.returncode == -signal.SIGTERM


def test_what_fails_at_start_is_one_line_and_code_2(tmp_path: Path) -> None:
    with service(tmp_path, "fail") as process:
        out, err = process.communicate(timeout=10)
        assert (process.returncode, out, err) == (2, "", "svc: cannot\n")
