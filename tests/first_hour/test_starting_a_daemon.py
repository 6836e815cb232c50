"""What is given to `cosco-shuffled` that cannot be: one line and exit code 2, or a warning."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import prepared
from support.exchanges import serving, until
from support.processes import Service, Services

HERE = "127.0.0.1:0"


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with Services(tmp_path_factory.mktemp("starting")) as started:
        yield started


def refused(services: Services, *options: str, code: int = 2) -> str:
    """Start a daemon that must not start, and ends with `code`; the one line it says."""
    given = ["--listen", HERE, "--metadata", services.metadata, "--memory", "16MiB", *options]
    log = services.directory / "refused.log"
    with log.open("wb") as output:
        process = prepared.run_module(
            "cosco.cli.shuffled",
            [*given, "--register-timeout-s", "0.5"],
            stdout=output.fileno(),
            stderr=output.fileno(),
            environment={k: v for k, v in os.environ.items() if not k.startswith("COSCO_")},
        )
        assert process.wait(30) == code
    said = log.read_text().splitlines()
    lines = [line for line in said if line.startswith("cosco-shuffled: ")]
    assert len(lines) == 1, said
    assert not any("Traceback" in line for line in said)
    return lines[0]


@pytest.mark.parametrize(
    "address", ["0.0.0.0:7071", "[::]:7071", "0:7071", "*:7071", "[::ffff:0.0.0.0]:7071"]
)
def test_it_listens_on_all_addresses_and_does_not_say_which_is_its_own(
    address: str, services: Services
) -> None:
    line = refused(services, "--listen", address)
    assert line.startswith(f"cosco-shuffled: --listen is {address}, which stands for all")
    assert "--advertise host:port" in line
    line = refused(services, "--advertise", address)
    assert line.startswith(f"cosco-shuffled: --advertise is {address}, which is no address of")


@pytest.mark.parametrize("address", [":7071", "7071", "[]:7071", "http://host:7071", "a b:1"])
@pytest.mark.parametrize("option", ["--listen", "--advertise", "--metadata"])
def test_an_address_without_a_host_or_with_more_than_that(
    option: str, address: str, services: Services
) -> None:
    line = refused(services, option, address)
    assert re.search(rf"{re.escape(repr(address))} is no address: .+; write host:port", line)


def test_it_listens_on_all_addresses_and_says_by_which_it_is_reached(services: Services) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    service = Service(
        "cosco.cli.shuffled",
        ["--metadata", services.metadata, "--memory", "16MiB"],
        services.directory / "all.log",
    )
    service._arguments += ["--listen", f"0.0.0.0:{port}", "--advertise", f"localhost:{port}"]
    service._arguments += ["--insecure"]
    try:
        service.start()
        assert f"localhost:{port}" in serving(services.metadata)
        said = (services.directory / "all.log").read_text()
        assert f"is no TLS: whoever reaches 0.0.0.0:{port} may read, change and end" in said
    finally:
        service.close()


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("file://data/cosco", "names no absolute directory"),
        ("file:data", "names no absolute directory"),
        ("/data/cosco", "write file:///DIR"),
        ("data", "write file:///DIR"),
        ("file:///~/cosco", "begins with ~"),
        ("file://~/cosco", "names no absolute directory"),
        ("file:///data\n", "has a line end"),
        ("ftp://bucket/cosco", "is of an unknown kind"),
        ("s3://bucket/cosco", "needs obstore: pip install 'cosco[s3]'"),
        ("hdfs://namenode:8020/cosco", "needs hdfs_native: pip install 'cosco[hdfs]'"),
        ("file:///dev/null", "cannot be written: Not a directory"),
        ("file:///dev/null/cosco", "cannot be written: Not a directory"),
        ("file:///proc/cosco", "cannot be written: No such file or directory"),
    ],
)
def test_a_store_that_is_no_directory(store: str, said: str, services: Services) -> None:
    line = refused(services, "--store", store)
    assert repr(store) in line
    assert said in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_that_its_user_may_not_write(tmp_path: Path, services: Services) -> None:
    tmp_path.chmod(0o500)
    line = refused(services, "--store", f"file://{tmp_path}/store")
    assert "cannot be written: Permission denied: give its user a directory" in line


@pytest.mark.parametrize("written", ["a b", "a%20b"])
def test_a_store_whose_directory_has_a_space(
    written: str, tmp_path: Path, services: Services
) -> None:
    daemon = services.daemon("--memory", "16MiB", store=f"file://{tmp_path}/{written}")
    daemon.stop()
    assert [path.name for path in tmp_path.iterdir()] == ["a b"]


def test_a_port_that_is_in_use(services: Services) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        line = refused(services, "--listen", address)
    assert f"cannot listen on {address}: the port is in use" in line


def test_it_lets_in_everybody_only_if_that_is_said_to_be_meant(services: Services) -> None:
    """And says how it would be safe."""
    line = refused(services, "--listen", "192.0.2.1:7071")
    assert line.startswith("cosco-shuffled: --listen 192.0.2.1:7071 would let in everybody")
    assert "cosco tls init DIR" in line
    assert "--tls-cert DIR/daemon.pem" in line
    assert "--insecure" in line
    line = refused(services, "--metrics", "192.0.2.1:8071")
    assert line.startswith("cosco-shuffled: --metrics 192.0.2.1:8071 would be served to everybody")


def test_an_address_of_another_machine(services: Services) -> None:
    line = refused(services, "--listen", "192.0.2.1:7071", "--insecure")
    assert line.startswith("cosco-shuffled: cannot listen on 192.0.2.1:7071: ")
    assert "the host is not this machine" in line


def test_a_metadata_service_that_is_not_there(services: Services) -> None:
    # An outage, no bad option: systemd starts it again.
    line = refused(services, "--metadata", "127.0.0.1:1", code=1)
    assert "the metadata service at 127.0.0.1:1 does not answer" in line
    assert "correct --metadata" in line


def test_a_metadata_service_that_is_a_shuffle_daemon(services: Services) -> None:
    daemon = services.daemon("--memory", "16MiB")
    line = refused(services, "--metadata", daemon.address)
    assert "this is the address of a shuffle daemon, and was given as that of the metadata" in line


def test_a_name_that_nobody_knows(services: Services) -> None:
    daemon = services.daemon("--memory", "16MiB", "--advertise", "no-such-host.invalid:7071")
    try:
        said = "which cannot be looked up here"
        until(lambda: said in daemon.tail(), 20, "the look-up")
        assert "correct --advertise" in daemon.tail()
    finally:
        daemon.kill()
