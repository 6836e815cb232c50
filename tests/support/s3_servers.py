"""Servers that speak S3, as processes of the tests, each with one bucket in a folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VERSITYGW = ROOT / ".stores" / "bin" / "versitygw"
RCLONE = Path(sys.executable).with_name("rclone")

ACCESS_KEY, SECRET_KEY = "AKIATESTS", "the-secret-of-tests"
REGION = "eu-test-1"
BUCKET = "shuffle"
_START_S = 20
_STOP_S = 10
_NUMBERS = count()


@dataclass(frozen=True)
class S3Server:
    """A server that runs."""

    address: str
    #: Where the objects of the bucket lie, as files.
    folder: Path
    #: Parameters without which its stores cannot be opened.
    parameters: str = ""

    def url(self, prefix: str | None = None, *, bucket: str = BUCKET, more: str = "") -> str:
        """Return the URL of a store, by default of one that nobody has used."""
        if prefix is None:
            prefix = f"tests/{next(_NUMBERS)}"
        return url_at(self.address, prefix, bucket=bucket, more=self.parameters + more)


def url_at(address: str, prefix: str, *, bucket: str = BUCKET, more: str = "") -> str:
    """Return the URL of a store behind an address."""
    return f"s3://{bucket}/{prefix}?endpoint=http://{address}&region={REGION}{more}"


@contextmanager
def versitygw(folder: Path) -> Iterator[S3Server]:
    """Run a gateway to a folder: its objects are files, and it keeps to what S3 says."""
    command = [VERSITYGW, "--port", "{}", "--region", REGION, "--quiet", "--keep-alive"]
    keys = {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
    with _running([*command, "posix", folder], folder, keys) as address:
        yield S3Server(address, folder / BUCKET)


@contextmanager
def rclone(folder: Path) -> Iterator[S3Server]:
    """Run `rclone serve s3`: quick to install, and less exact."""
    command: list[object] = [RCLONE, "serve", "s3", "--addr", "{}", "--config", os.devnull]
    command += ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", folder]
    with _running(command, folder, {}) as address:
        yield S3Server(address, folder / BUCKET, "&exclusive=false")


@contextmanager
def _running(command: Sequence[object], folder: Path, variables: dict[str, str]) -> Iterator[str]:
    """Run a server at an address in the place of `{}`, from its first answer on."""
    (folder / BUCKET).mkdir(parents=True)
    address = f"127.0.0.1:{_free_port()}"
    arguments = [address if one == "{}" else str(one) for one in command]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            arguments, env=os.environ | variables, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    try:
        _wait_for(address, process, folder / "log")
        yield address
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    host, _, port = address.rpartition(":")
    give_up = time.monotonic() + _START_S
    while time.monotonic() < give_up:
        if process.poll() is not None:
            break
        try:
            socket.create_connection((host, int(port)), 1).close()
        except OSError:
            time.sleep(0.02)  # there is nothing that would tell
        else:
            return
    raise RuntimeError(f"a server of S3 does not serve: {log.read_text()[-2000:]}")
