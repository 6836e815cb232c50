"""The image: what its Containerfile says, and that its steps install what services need.

There is no registry here to take a base from, so its steps are carried out in a folder, on the
Python that is here. A whole build is `podman build`, as docs/deploying.md says.
"""

from __future__ import annotations

import fnmatch
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser
from support import container_file
from support.container_file import Builder, Stage

from cosco.config import DEFAULT_METADATA, METRICS_PORTS_AWAY

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "packaging/image"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
USER = 65532
#: With what is installed from elsewhere this may take a while.
pytestmark = pytest.mark.timeout(280)


def instructions() -> list[tuple[str, str]]:
    parser = DockerfileParser(
        fileobj=io.BytesIO((FOLDER / "Containerfile").read_bytes()), env_replace=False
    )
    return [(one["instruction"], one["value"]) for one in parser.structure
            if one["instruction"] != "COMMENT"]  # fmt: skip


INSTRUCTIONS = instructions()
ARGUMENTS = container_file.default_arguments(INSTRUCTIONS)


def found(native: str = "source") -> list[Stage]:
    return container_file.stages(INSTRUCTIONS, {**ARGUMENTS, "NATIVE": native})


LAST = found()[-1]


def one(instruction: str) -> str:
    [value] = LAST.values(instruction)
    return value


def test_it_runs_as_a_user_who_is_a_number_and_not_root() -> None:
    user, _, group = one("USER").partition(":")
    assert int(user) == int(group) == USER
    # Nothing is done as root after that.
    kinds = [kind for kind, _ in LAST.instructions]
    assert set(kinds[kinds.index("USER") + 1 :]) <= {"EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD"}


def test_signals_reach_the_program() -> None:
    """No shell is between: what is run is the list that it is started with."""
    assert json.loads(one("ENTRYPOINT")) == []
    program, *_ = json.loads(one("CMD"))
    assert program in PROJECT["scripts"]
    assert one("STOPSIGNAL") == "SIGTERM"


def test_its_ports_are_those_of_the_docs_and_the_chart() -> None:
    metadata = int(DEFAULT_METADATA.rpartition(":")[2])
    daemon = metadata + 1
    served = {metadata, daemon, metadata + METRICS_PORTS_AWAY, daemon + METRICS_PORTS_AWAY}
    assert {int(port) for port in one("EXPOSE").split()} == served


def test_the_base_is_an_argument_and_rows_have_a_volume() -> None:
    assert ARGUMENTS["BASE"].startswith("docker.io/library/python:3.")
    assert {stage.base for stage in found()} - {stage.name for stage in found()} == {
        ARGUMENTS["BASE"]
    }
    assert json.loads(one("VOLUME")) == ["/var/lib/cosco"]
    assert one("WORKDIR") == "/var/lib/cosco"
    made = json.loads(LAST.values("RUN")[-1])
    assert made[0] == "install" and made[-1] == "/var/lib/cosco"
    assert {f"--owner={USER}", f"--group={USER}"} <= set(made)


def test_what_it_copies_is_there_and_let_in() -> None:
    rules = [line for line in (FOLDER / "Containerfile.dockerignore").read_text().splitlines()
             if line and not line.startswith("#")]  # fmt: skip
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    sources = set()
    for stage in found():
        for names, _ in container_file.copied(stage):
            sources.update(names)
    assert all((ROOT / source).exists() for source in sources)
    assert sources == let_in
    kept_out = [rule for rule in rules[1:] if rule[0] != "!"]
    assert not [one for one in sources if any(fnmatch.fnmatch(one, rule) for rule in kept_out)]


def test_stages_that_are_named_exist() -> None:
    for native in ("none", "index", "source"):
        stages = found(native)
        names = [stage.name for stage in stages]
        for position, stage in enumerate(stages):
            copies = [value.split()[0] for value in stage.values("COPY") if "--from=" in value]
            assert {copy.removeprefix("--from=") for copy in copies} <= set(names[:position])
            assert stage.base == ARGUMENTS["BASE"] or stage.base in names[:position]
        line = [stage.name for stage in container_file.chain(stages, "install")]
        assert line == ["build", f"native-{native}", "install"]


def test_extras_and_versions_are_those_of_the_project() -> None:
    extras = set(ARGUMENTS["EXTRAS"].split(","))
    assert {"s3", "http", "jwt", "tls"} <= extras <= PROJECT["optional-dependencies"].keys()
    [native] = PROJECT["optional-dependencies"]["native"]
    [stage] = [one for one in found() if one.name == "native-index"]
    assert json.loads(stage.values("RUN")[0])[-1] == native


# --- what its steps make -----------------------------------------------------------------------


class Image:
    """What the steps have made, below a folder that another user may read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        arguments = {"EXTRAS": ARGUMENTS["EXTRAS"], "NATIVE": "none"}
        self.builder = Builder(root, ROOT, arguments)
        # The python3 of a base has pip; downloads of before may be used here.
        self.builder.environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        for stage in container_file.chain(found("none"), "install"):
            self.builder.build(stage)
        self.data = root / "var/lib/cosco"
        self.data.mkdir(parents=True)
        if os.geteuid() == 0:
            os.chown(self.data, USER, USER)
        subprocess.run(["chmod", "-R", "a-w", str(root / "opt")], check=True)

    def command(self, *given: str) -> list[str]:
        """What runs a program as the image's user, who may write to nothing but the volume."""
        as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        program = str(self.root / "opt/cosco/bin" / given[0])
        return [
            *(as_user if os.geteuid() == 0 else []),
            program,
            *map(self.builder.here, given[1:]),
        ]

    def run(self, *given: str) -> str:
        done = subprocess.run(
            self.command(*given), env=self.environment(), cwd=self.data, capture_output=True,
            text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def environment(self) -> dict[str, str]:
        settings = dict(part.split("=", 1) for part in one("ENV").split())
        assert settings["PATH"].startswith("/opt/cosco/bin:")
        return {name: self.builder.here(value) for name, value in settings.items()}

    @contextmanager
    def serving(self, *given: str) -> Iterator[str]:
        """A service, by the address that it says; SIGTERM ends it, and with code 0."""
        with subprocess.Popen(
            self.command(*given), env=self.environment(), cwd=self.data, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            try:
                assert process.stdout is not None
                said = process.stdout.readline()
                assert said.startswith(f"{given[0]} ready on "), said
                assert Path(f"/proc/{process.pid}").stat().st_uid == (
                    USER if os.geteuid() == 0 else os.geteuid()
                )
                yield said.split()[-1]
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 0
            finally:
                process.kill()


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    # Folders of pytest are for this user alone.
    root = Path(tempfile.mkdtemp(prefix="cosco-image-"))
    try:
        root.chmod(0o755)
        yield Image(root)
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(root)], check=False)
        shutil.rmtree(root)


def test_programs_start_in_it(image: Image) -> None:
    assert "Cosco, a disaggregated shuffle service." in image.run(*json.loads(one("CMD")))
    for program in ("cosco", "cosco-metadata", "cosco-shuffled"):
        assert image.run(program, "--version") == f"{program} {PROJECT['version']}\n"


def test_it_has_what_its_extras_promise(image: Image) -> None:
    modules = ("cosco.dfs.objects.object_store", "cosco.metadata.http.site.http_site")
    image.run("python", "-c", f"import {', '.join(modules)}, jwt, cryptography")
    assert not (image.root / "opt/cosco/bin/pip").exists()


def test_services_run_as_that_user_on_a_tree_that_is_read_only(image: Image) -> None:
    files = {path for path in (image.root / "opt").rglob("*") if path.is_file()}
    with image.serving(
        "cosco-metadata", "--listen", "127.0.0.1:0", "--store", "sqlite:////var/lib/cosco/m.db",
        "--http", "127.0.0.1:0",
    ) as metadata:  # fmt: skip
        with image.serving(
            "cosco-shuffled", "--listen", "127.0.0.1:0", "--metadata", metadata,
            "--memory", "16MiB", "--store", "file:///var/lib/cosco/rows",
        ):  # fmt: skip
            told = json.loads(image.run("cosco", "status", "--metadata", metadata, "--json"))
            [daemon] = told["daemons"]
            assert daemon["state"] == "serving"
            assert re.match(r"portable|native", daemon["mechanics"] or "portable")
    assert {path for path in (image.root / "opt").rglob("*") if path.is_file()} == files
    assert (image.data / "rows/cosco-store.json").is_file()


def test_certificates_can_be_made_in_it(image: Image) -> None:
    image.run("cosco", "tls", "init", "tls", "--host", "*.cosco-daemons.prod.svc")
    assert (image.data / "tls/daemon.pem").is_file()
