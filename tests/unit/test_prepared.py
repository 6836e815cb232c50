"""Processes forked from a prepared one begin and end as fresh interpreters do."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from support import prepared


def test_code_has_its_pipes_arguments_environment_and_end() -> None:
    code = """if True:
        import os, sys
        print(__name__, sys.argv[1:], dict(os.environ), flush=True)
        print(input())
        sys.exit(3)
    """
    with prepared.run_code(code, ["a", "b c"], {"GIVEN": "x"}) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "__main__ ['a', 'b c'] {'GIVEN': 'x'}\n"
        assert process.poll() is None
        process.stdin.write("line\n")
        process.stdin.flush()
        assert process.stdout.read() == "line\n"
        assert process.wait(20) == 3
    assert process.poll() == process.returncode == 3
    process.kill()  # which is too late, and no error


@pytest.mark.parametrize("new_session", [True, False])
def test_a_module_has_its_files_and_session(tmp_path: Path, new_session: bool) -> None:
    code = "import os, sys; print(os.getsid(0) == os.getpid()); print('said', file=sys.stderr)"
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        process = prepared.run_module(
            "timeit",
            ["-n", "1", "-r", "1", code],
            stdout=out.fileno(),
            stderr=err.fileno(),
            environment={},
            new_session=new_session,
        )
        assert process.wait(20) == 0
    assert (tmp_path / "out").read_text().startswith(f"{new_session}\n")
    assert (tmp_path / "err").read_text() == "said\n"


def test_exit_codes_signals_and_errors() -> None:
    with prepared.run_code("import time; print(1, flush=True); time.sleep(60)", [], {}) as process:
        assert process.stdout is not None and process.stdout.readline() == "1\n"
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(20) == -signal.SIGTERM
    with prepared.run_code("import atexit; atexit.register(print, 'end')", [], {}) as process:
        assert process.stdout is not None and process.stdout.read() == "end\n"
        assert process.wait(20) == 0
    with prepared.run_code("1 / 0", [], {}) as process:
        assert process.wait(20) == 1


def test_many_at_once_have_nothing_of_each_other() -> None:
    code = "import os; print(len(os.listdir('/proc/self/fd')), flush=True); input()"
    processes = [prepared.run_code(code, [], {}) for _ in range(5)]
    counts = set()
    for process in processes:
        assert process.stdout is not None
        counts.add(process.stdout.readline())
    assert len(counts) == 1, counts
    assert len({process.pid for process in processes}) == 5
    for process in reversed(processes):
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM
        with process:
            pass
