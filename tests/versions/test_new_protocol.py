"""A protocol that means something new comes in two steps, and who is too far is told so."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from support.versions import NEW, Build, cluster
from versions.test_side_by_side import shuffle

from cosco.protocol.version import PROTOCOL

NEXT: Final = PROTOCOL + 1


def build_that(folder: Path, *, speaks: int, understands: range) -> Build:
    """Return this build with another protocol."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(NEW.tree / "cosco", folder / "cosco", ignore=ignored)
    path = folder / "cosco" / "protocol" / "version.py"
    text = path.read_text()
    for name, value in (("PROTOCOL", speaks), ("UNDERSTOOD", understands)):
        text, count = re.subn(
            rf"^{name}: Final = .*$", f"{name}: Final = {value}", text, flags=re.MULTILINE
        )
        assert count == 1
    path.write_text(text)
    return Build(f"protocol {speaks}", folder, NEW.metrics_option)


def test_the_build_between_works_with_both(tmp_path: Path) -> None:
    """It speaks what the one before understands, and understands what the next one speaks."""
    understands = range(PROTOCOL, NEXT + 1)
    between = build_that(tmp_path / "between", speaks=PROTOCOL, understands=understands)
    after = build_that(tmp_path / "after", speaks=NEXT, understands=understands)
    for number, (one, other) in enumerate([(NEW, between), (between, after), (after, between)]):
        directory = tmp_path / f"{number}"
        directory.mkdir()
        with cluster(directory, one, one, other) as services:
            shuffle(services, one, other)


def test_a_client_that_is_too_far(tmp_path: Path) -> None:
    far = build_that(tmp_path / "far", speaks=NEXT, understands=range(PROTOCOL, NEXT + 1))
    with cluster(tmp_path, NEW, NEW) as services:
        told = services.client(far, "drive", "x", 1, 1).said()
    assert told["error"] == "IncompatibleVersion"
    assert "a client speaks protocol 3, this build understands 2: upgrade this one" in told["why"]


def test_a_daemon_that_is_too_far_ends_at_once(tmp_path: Path) -> None:
    far = build_that(tmp_path / "far", speaks=NEXT, understands=range(PROTOCOL, NEXT + 1))
    with cluster(tmp_path, NEW) as services:
        command = [sys.executable, "-P", "-m", "cosco.cli.shuffled", "--listen", "127.0.0.1:0"]
        command += ["--metadata", services.metadata, "--store", f"file://{tmp_path}/store"]
        done = subprocess.run(
            [*command, "--memory", "16MiB", "--metrics", "127.0.0.1:0"],
            env=far.environment,
            capture_output=True,
            text=True,
            timeout=60.0,
            check=False,
        )
    assert done.returncode
    assert "a daemon speaks protocol 3, this build understands 2" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_service_that_does_not_understand_its_daemons_any_more(tmp_path: Path) -> None:
    """Its daemons end with the reason, as such a service has taken the place of theirs."""
    far = build_that(tmp_path / "far", speaks=NEXT, understands=range(NEXT, NEXT + 1))
    with cluster(tmp_path, NEW, NEW) as services:
        services.service.stop()
        (tmp_path / "metadata.db").unlink()  # so that they have to register again
        services.service.start(far)
        assert services.daemons[0].wait() != 0
        text = services.daemons[0].log.read_text()
        assert "a daemon speaks protocol 2, this build understands 3: upgrade that one" in text
