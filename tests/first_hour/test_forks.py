"""A program that uses Cosco, and perhaps gRPC, starts processes in the middle of its calls."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from cosco.mechanics import NATIVE

TESTS = Path(__file__).parents[1]
#: gRPC says so in a forked child, once in a few dozen forks, of a descriptor of the parent that it
#: closes there; nothing follows from it.
OF_THE_PARENT = "epoll_ctl failed: file descriptor was created pre fork"


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process to which no setting of gRPC's is handed down."""
    environment = {name: value for name, value in os.environ.items() if "GRPC" not in name}
    return subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=TESTS,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize(
    ("modules", "variables"),
    [
        ("cosco,grpc", {}),
        ("cosco,grpc", {"COSCO_NATIVE": "off"}),
        ("grpc,cosco", {"GRPC_ENABLE_FORK_SUPPORT": "1"}),
        ("grpc,cosco", {"GRPC_ENABLE_FORK_SUPPORT": "1", "COSCO_NATIVE": "off"}),
    ],
)
def test_every_way_to_start_a_process_while_calls_are_under_way(
    modules: str, variables: dict[str, str], metadata: str
) -> None:
    ended = run("-m", "support.fork_ways", modules, metadata, **variables)
    assert (ended.returncode, ended.stdout) == (0, "ok\n"), ended
    lines = [line for line in ended.stderr.splitlines() if OF_THE_PARENT not in line]
    assert lines[0] == "os.fork"
    assert all(len(line) < 30 for line in lines), ended.stderr  # names of ways, and no warning


FORKS = """
    import os
    {imports}
    from cosco import CoscoExchange, CoscoWriter, ServiceUnavailable

    with CoscoExchange("{name}", 1, metadata="{metadata}") as exchange:
        pid = os.fork()
        if not pid:
            try:
                CoscoWriter("{name}", 0, metadata="{metadata}").abort()
            except ServiceUnavailable as error:
                print(error, flush=True)
                os._exit(0 if not error.retriable else 2)
            os._exit({worked})
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        with CoscoWriter("{name}", 0, metadata="{metadata}") as writer:
            writer.collect(0, b"row")
        assert exchange.progress().rows == 1
"""


#: What is imported how, with which variables, and why gRPC does not work in a child then.
UNFIT = [
    ("import grpc, cosco", {}, "grpc was imported before cosco and without fork support"),
    (
        "import grpc; os.environ['GRPC_ENABLE_FORK_SUPPORT'] = '1'; import cosco",
        {},
        "grpc was imported before cosco and without fork support",
    ),
    (
        "import cosco, grpc",
        {"GRPC_ENABLE_FORK_SUPPORT": "0"},
        "GRPC_ENABLE_FORK_SUPPORT is '0'",
    ),
]


@pytest.mark.parametrize(("imports", "variables", "why"), UNFIT)
def test_without_fork_support_a_child_is_told_instead_of_hanging(
    imports: str, variables: dict[str, str], why: str, name: str, metadata: str
) -> None:
    code = textwrap.dedent(FORKS).format(imports=imports, name=name, metadata=metadata, worked=1)
    ended = run("-c", code, COSCO_NATIVE="off", **variables)
    assert ended.returncode == 0, ended
    assert f"will not be able to use cosco: {why}" in ended.stderr
    assert f"cannot use it: {why}" in ended.stdout


@pytest.mark.skipif(NATIVE is None, reason="needs the native part")
@pytest.mark.parametrize(("imports", "variables", "why"), UNFIT)
def test_natively_a_child_works_without_fork_support(
    imports: str, variables: dict[str, str], why: str, name: str, metadata: str
) -> None:
    code = textwrap.dedent(FORKS).format(imports=imports, name=name, metadata=metadata, worked=0)
    ended = run("-c", code, **variables)
    assert (ended.returncode, ended.stdout, why in ended.stderr) == (0, "", False), ended


def test_importing_cosco_imports_no_grpc() -> None:
    code = """
        import os, sys
        import cosco
        assert "grpc" not in sys.modules
        assert os.environ["GRPC_ENABLE_FORK_SUPPORT"] == "1"
    """
    assert run("-c", textwrap.dedent(code)).returncode == 0
