"""LocalCluster: real processes, and nothing left of them however it ends."""

from __future__ import annotations

import gc
import os
import pickle
import re
import secrets
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.exchanges import until
from support.prepared import TextProcess
from support.processes import python

from cosco.config import parse_address
from cosco.errors import ClientClosed, InvalidArgument, ServiceUnavailable
from cosco.local import reaper
from cosco.local.cluster import LocalCluster
from cosco.observe import fetch_status

pytestmark = pytest.mark.usefixtures("fresh_interpreters")

#: The issue's bound for a cluster whose process was killed.
GONE_S = 5.0


def processes_of(directory: Path) -> list[int]:
    """Running processes, reapers included, that have a cluster below a directory as argument."""
    cluster = re.compile(re.escape(os.fsencode(directory)) + rb"/([^\0]*/)?cosco-")
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                arguments = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if cluster.search(arguments):
                found.append(int(entry.name))
    return found


def gone(base: Path) -> bool:
    return not processes_of(base) and not list(base.iterdir())


def serves(address: str) -> bool:
    try:
        socket.create_connection(parse_address(address), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


@contextmanager
def program(base: Path, code: str) -> Iterator[TextProcess]:
    """A Python program that may use `cluster`, started below `base`, once that is up."""
    start = f"""
        import os, signal, sys, time
        from cosco.local.cluster import LocalCluster
        cluster = LocalCluster(1, directory={str(base)!r})
        print("up", flush=True)
    """
    text = textwrap.dedent(start) + textwrap.dedent(code)
    with python(text, fresh=True) as run:
        assert len(processes_of(base)) == 3
        yield run


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(memory="64MiB") as cluster:
        yield cluster


# --- running ------------------------------------------------------------------------------


def test_the_services_are_as_asked_for(cluster: LocalCluster) -> None:
    status = fetch_status(cluster.metadata)
    assert {d.ref.address for d in status.daemons} == {d.address for d in cluster.daemons}
    assert {d.host_id for d in status.daemons} == {"host-0", "host-1"}
    assert all(16 << 20 < d.memory_bytes <= 64 << 20 for d in status.daemons)
    assert len({d.store_id for d in status.daemons}) == 1
    assert cluster.metadata == cluster.metadata_service.address
    pids = [cluster.metadata_service.pid, *(d.pid for d in cluster.daemons)]
    assert len(set(pids)) == 3
    # Ctrl-C in a terminal or a notebook is not for them.
    assert all(os.getsid(pid) == pid for pid in pids)


def test_a_killed_daemon_comes_back_on_its_port(cluster: LocalCluster) -> None:
    daemon = cluster.daemons[0]
    address, pid = daemon.address, daemon.pid
    daemon.kill()
    daemon.kill()
    assert not Path(f"/proc/{pid}").exists()
    assert not serves(address)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(parse_address(address))  # nobody takes the port meanwhile
    daemon.restart()
    assert daemon.address == address
    assert daemon.pid != pid
    assert serves(address)
    live = {d.ref.address: d for d in fetch_status(cluster.metadata).daemons}
    assert live[address].host_id == "host-0"
    assert live[address].store_id == live[cluster.daemons[1].address].store_id


def test_a_stopped_daemon_ends_and_comes_back(cluster: LocalCluster) -> None:
    daemon = cluster.daemons[1]
    pid = daemon.pid
    daemon.stop()
    daemon.stop()
    assert not Path(f"/proc/{pid}").exists()
    assert not serves(daemon.address)
    daemon.restart()
    second = daemon.pid
    daemon.restart()
    assert len({pid, second, daemon.pid}) == 3
    assert serves(daemon.address)


def test_the_metadata_service_comes_back_with_its_state(cluster: LocalCluster) -> None:
    service, cluster_id = cluster.metadata_service, fetch_status(cluster.metadata).cluster_id
    for end in (service.kill, service.stop):
        end()
        assert not serves(cluster.metadata)
        service.restart()
        assert fetch_status(cluster.metadata).cluster_id == cluster_id


def test_a_daemon_that_hangs_does_not_hang_stop(cluster: LocalCluster) -> None:
    daemon = cluster.daemons[0]
    os.kill(daemon.pid, signal.SIGSTOP)
    with pytest.raises(ServiceUnavailable, match=r"daemon-0 did not stop in 0.1 s"):
        daemon.stop(timeout_s=0.1)
    daemon.kill()
    daemon.restart()


def test_a_service_that_cannot_start_says_why(cluster: LocalCluster) -> None:
    daemon = cluster.daemons[0]
    identity = cluster.directory / "store" / "cosco-store.json"
    content = identity.read_text()
    daemon.stop()
    identity.write_text("{}")
    with pytest.raises(ServiceUnavailable, match=r"exit code 2.*no store identity") as caught:
        daemon.restart()
    assert "\n" not in str(caught.value)
    identity.write_text(content)
    daemon.restart()


def test_private_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nor do options in the environment reach the services.
    monkeypatch.setenv("COSCO_METADATA_DAEMON_LEASE_S", "nonsense")
    monkeypatch.setenv("COSCO_SHUFFLED_CHUNK_BYTES", "nonsense")
    with LocalCluster(2, directory=tmp_path / "a b%3f", shared_store=False) as cluster:
        daemons = fetch_status(cluster.metadata).daemons
        assert len({d.store_id for d in daemons}) == 2
        assert all(64 << 20 < d.memory_bytes <= 256 << 20 for d in daemons)
    assert gone(tmp_path)


@pytest.mark.parametrize(
    ("daemons", "memory", "reason"),
    [
        (0, "256MiB", "daemons is 0, it must be 1 to 256"),
        (-1, "256MiB", "daemons is -1, it must be 1 to 256"),
        (1, "lots", "'lots' is no size"),
        (1, "1MiB", "--memory is 1048576, it must be at least"),
    ],
)
def test_arguments_are_checked(tmp_path: Path, daemons: int, memory: str, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        LocalCluster(daemons, memory=memory, directory=tmp_path)
    assert gone(tmp_path)


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgument, match=r"no directory for a cluster in '.*/file/below'"):
        LocalCluster(1, directory=tmp_path / "file" / "below")


# --- the end ------------------------------------------------------------------------------


def test_close_leaves_nothing_and_may_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with LocalCluster(1, directory=tmp_path) as cluster:
        directory, daemon = cluster.directory, cluster.daemons[0]
        assert directory.parent == tmp_path
        assert len(processes_of(tmp_path)) == 3
        with pytest.raises(TypeError, match=r"cannot be pickled.*\.metadata"):
            pickle.dumps(cluster)
        cluster.close()
        assert processes_of(tmp_path) == []
        assert [path.name for path in tmp_path.iterdir()] == ["mine"]
        cluster.close()
    for call in (daemon.kill, daemon.stop, daemon.restart, cluster.metadata_service.restart):
        with pytest.raises(ClientClosed):
            call()


def test_a_directory_that_was_made_goes_unless_it_is_used(tmp_path: Path) -> None:
    made = tmp_path / "made"
    with LocalCluster(1, directory=made):
        pass
    assert not made.exists()
    with LocalCluster(1, directory=made):
        (made / "mine").touch()
    assert [path.name for path in made.iterdir()] == ["mine"]


def test_a_cluster_nobody_holds_ends(tmp_path: Path) -> None:
    cluster = LocalCluster(1, directory=tmp_path)
    assert not gone(tmp_path)
    del cluster
    gc.collect()
    until(lambda: gone(tmp_path), 10.0)


@pytest.mark.parametrize(
    "code",
    [
        "sys.exit(3)",
        "raise KeyboardInterrupt",
        "os._exit(3)",
        "os.kill(os.getpid(), signal.SIGTERM)",
    ],
)
def test_a_program_that_forgets_to_close(tmp_path: Path, code: str) -> None:
    with program(tmp_path, f"sys.stderr = None\nsys.stdin.readline()\n{code}") as run:
        run.communicate("go on\n", timeout=10)
        until(lambda: gone(tmp_path), GONE_S)


def test_a_killed_program_whose_children_live_on(tmp_path: Path) -> None:
    code = """
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
        print(child, flush=True)
        time.sleep(60)
    """
    made = tmp_path / "made"
    with program(made, code) as run:
        assert run.stdout is not None
        child = int(run.stdout.readline())
        try:
            run.kill()
            run.wait()
            until(lambda: gone(tmp_path), GONE_S)
            os.kill(child, 0)
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("delay_s", [0.0, 0.03, 0.1, 0.2, 0.4])
def test_a_program_killed_while_its_cluster_starts(tmp_path: Path, delay_s: float) -> None:
    code = f"import cosco\ncosco.LocalCluster(3, directory={str(tmp_path)!r})"
    with subprocess.Popen([sys.executable, "-c", code]) as run:
        # From the reaper's start on; before it there is nothing at all.
        until(lambda: bool(processes_of(tmp_path)), 20)
        time.sleep(delay_s)  # some moment of the start, whichever it is
        run.kill()
        run.wait()
        until(lambda: gone(tmp_path), GONE_S)


def test_a_forked_child_neither_ends_nor_controls_the_cluster(tmp_path: Path) -> None:
    code = """
        child = os.fork()
        if not child:
            try:
                cluster.daemons[0].kill()
            except RuntimeError:
                cluster.close()
                sys.exit(7)  # runs what is registered for the exit
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        sys.stdin.readline()
    """
    with program(tmp_path, code) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "7\n"
        assert len(processes_of(tmp_path)) == 3
        assert len(list(tmp_path.glob("*/metadata.db"))) == 1


def test_the_reaper_kills_only_what_has_its_token() -> None:
    mine, other = (f"COSCO_CLUSTER_TOKEN={secrets.token_hex(8)}" for _ in range(2))

    def sleeper(*entries: str) -> subprocess.Popen[bytes]:
        environment = dict(entry.split("=", 1) for entry in entries)
        process = subprocess.Popen(["/bin/sleep", "60"], env=environment)
        while not Path(f"/proc/{process.pid}/environ").read_bytes():
            pass  # exec has begun and is not done
        return process

    with sleeper(mine) as marked, sleeper(other, f"X={mine}") as foreign:
        try:
            assert reaper.kill_marked(mine)
            assert marked.wait(10) == -signal.SIGKILL
            assert not reaper.kill_marked(mine)
            assert foreign.poll() is None
        finally:
            foreign.kill()
            marked.kill()
