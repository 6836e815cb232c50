"""What the chart has a node do, done here: services with its options, files and probes."""

from __future__ import annotations

import json
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support import helm_chart
from support.helm_chart import container_of, expanded, pod_of, probes, secret_volumes, workloads

from cosco.cli.main import command as cosco_command

pytestmark = pytest.mark.skipif(not helm_chart.HELM.exists(), reason=helm_chart.NO_HELM)
BIN = Path(sys.executable).parent
#: By which names and addresses services are reached here.
HERE = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody has, and that nobody is given who asks for any.

    A chart names ports, so the kernel cannot choose them as services begin to listen.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports: list[int] = []
    choice = range(max(1024, lowest - 12_000), lowest) or range(20_000, 32_000)
    for port in random.sample(choice, min(1000, len(choice))):
        with suppress(OSError), socket.create_server((HERE, port)):
            ports.append(port)
        if len(ports) == count:
            return ports
    raise AssertionError(f"there are no {count} free ports below {lowest}")


class Node:
    """Runs what a pod has, with its files below a folder, and on the loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lay_out(self, workload: Any, secrets: dict[str, dict[str, Path]]) -> None:
        """Put the files of Secrets where the pod mounts them."""
        container = container_of(workload)
        for mount in container["volumeMounts"]:
            target = self.path(workload, mount["mountPath"])
            target.mkdir(parents=True, exist_ok=True)
            volume = secret_volumes(pod_of(workload)).get(mount["name"])
            if volume is None:
                continue
            files = secrets[volume["secretName"]]
            items = volume.get("items") or [{"key": key, "path": key} for key in files]
            for item in items:
                (target / item["path"]).write_bytes(files[item["key"]].read_bytes())

    def path(self, workload: Any, path: str) -> Path:
        return self.folder / workload["metadata"]["name"] / path.lstrip("/")

    def here(self, workload: Any, text: str) -> str:
        """What is said in a pod, as it is said here."""
        root = self.path(workload, "")
        text = re.sub(r"(?<![\w.])/(etc/cosco|var/lib/cosco)", rf"{root}/\1", text)
        return re.sub(r"0\.0\.0\.0|[\w.-]+\.svc(?=:)", HERE, text)

    @contextmanager
    def running(self, workload: Any) -> Iterator[subprocess.Popen[str]]:
        """The service, once it says that it is ready; it ends as a pod does."""
        container = container_of(workload)
        [program] = container["command"]
        given = [self.here(workload, one) for one in expanded(container, container["args"])]
        log = (self.folder / f"{program}.log").open("w")
        with log, subprocess.Popen(
            [BIN / program, *given], env={"PATH": str(BIN)}, cwd="/", text=True,
            stdout=subprocess.PIPE, stderr=log,
        ) as process:  # fmt: skip
            try:
                assert process.stdout is not None
                said = process.stdout.readline()
                assert said.startswith(f"{program} ready on {HERE}:"), self.log(program)
                yield process
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(pod_of(workload)["terminationGracePeriodSeconds"])
                finally:
                    process.kill()
        assert process.returncode == 0, self.log(program)

    def log(self, program: str) -> str:
        return (self.folder / f"{program}.log").read_text()


def asked(workload: Any, name: str) -> subprocess.CompletedProcess[str]:
    """What a probe, which is a program, says now."""
    command = dict(probes(container_of(workload)))[name]["exec"]["command"]
    assert command[0] == "python3"
    return subprocess.run(
        [sys.executable, *command[1:]], capture_output=True, text=True, timeout=30, check=False
    )


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """The files of Secrets, by their keys, as docs/deploying.md has them made."""
    folder = tmp_path_factory.mktemp("secrets")
    tls, tokens = folder / "tls", folder / "tokens"
    for line in (
        ["tls", "init", str(tls), "--host", HERE],
        ["token", "create", "--tokens", str(tokens), "--tenant", "t", "--role", "admin",
         "--name", "n", "--out", str(folder / "n.token")],
    ):  # fmt: skip
        assert CliRunner().invoke(cosco_command, line, catch_exceptions=False).exit_code == 0
    found = {"cosco-tokens": {"tokens": tokens}}
    for service in ("metadata", "daemon"):
        found[f"cosco-{service}-tls"] = {
            "tls.crt": tls / f"{service}.pem",
            "tls.key": tls / f"{service}-key.pem",
            "ca.crt": tls / "ca.pem",
        }
    return found


def test_services_start_with_what_the_chart_gives_them(
    tmp_path: Path, secrets: dict[str, dict[str, Path]]
) -> None:
    ports = free_ports(4)
    values = {
        "metadata": {"port": ports[0], "httpPort": ports[1]},
        "daemons": {"port": ports[2], "metricsPort": ports[3], "memoryMiB": 64},
    }
    metadata, daemons = workloads(helm_chart.render(values))
    node = Node(tmp_path)
    for workload in (metadata, daemons):
        node.lay_out(workload, secrets)
    refused = asked(metadata, "readinessProbe")
    assert refused.returncode != 0
    with node.running(metadata):
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            done = asked(metadata, name)
            assert done.returncode == 0, done.stderr
        with node.running(daemons):
            for name in ("livenessProbe", "readinessProbe"):
                done = asked(daemons, name)
                assert done.returncode == 0, done.stderr
        assert asked(daemons, "livenessProbe").returncode != 0
    logs = [json.loads(line) for line in node.log("cosco-shuffled").splitlines()]
    events = {one["event"] for one in logs if "event" in one}
    assert {"registered", "drained", "service_stopped"} <= events


def test_a_daemon_that_waits_for_the_metadata_service_lives_and_is_not_ready(
    tmp_path: Path,
) -> None:
    ports = free_ports(3)
    values = {
        "insecure": True,
        "metadata": {"port": ports[0]},
        "daemons": {"port": ports[1], "metricsPort": ports[2], "memoryMiB": 64},
    }
    _, daemons = workloads(helm_chart.render(values))
    node = Node(tmp_path)
    node.lay_out(daemons, {})
    container = container_of(daemons)
    given = [node.here(daemons, one) for one in expanded(container, container["args"])]
    with subprocess.Popen(
        [BIN / "cosco-shuffled", *given], env={"PATH": str(BIN)}, cwd="/",
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            while asked(daemons, "livenessProbe").returncode:  # until it listens
                assert process.poll() is None
            ready = asked(daemons, "readinessProbe")
            assert ready.returncode == 1
            assert "not registered" in ready.stderr
        finally:
            process.kill()
