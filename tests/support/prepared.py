"""Processes that are forked from one which has imported all of Cosco.

A fresh interpreter takes 0.4 s of a processor until a service begins, a fork 0.01 s. The program,
its arguments, environment, files, session, signals and end are the same. Two things differ: a
fork has the hash seed of the process it came from, and `/proc` shows that one's command line and
environment. So tests of how processes start, of `LocalCluster`'s reaper and of memory have fresh
interpreters (`fresh`).

This file is also the program of the process that forks. It runs no thread of Python's and has not
begun to use gRPC, so its children may.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from types import ModuleType, SimpleNamespace, TracebackType
from typing import IO, Any, Final, Self

#: What programs that tests start import for themselves, beside the names of `cosco`.
_IMPORTS: Final = (
    "pyarrow",
    "cosco.cli.options",
    "cosco.cli.services",
    "cosco.metadata.server",
    "cosco.shuffle_service.server",
)
_MAX_REQUEST_BYTES: Final = 128 << 10
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True)
class Program:
    """What a process runs: a module as `python -m` does, or code as `python -c` does."""

    module: str | None
    code: str
    arguments: list[str]
    environment: dict[str, str]
    new_session: bool = False


class Process:
    """The part of `subprocess.Popen` that tests use, for a process forked elsewhere."""

    def __init__(
        self,
        program: Program,
        stdin: int,
        stdout: int,
        stderr: int,
        pipes: tuple[IO[str], IO[str]] | None = None,
    ) -> None:
        """Start it. `pipes` are this process's ends of its stdin and stdout."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            fds = [theirs.fileno(), stdin, stdout, stderr]
            socket.send_fds(_forker(), [json.dumps(asdict(program)).encode()], fds)
            theirs.close()
            pid, pidfds, _, _ = socket.recv_fds(ours, 64, 1)
            if not pidfds:
                raise RuntimeError("the process that forks has ended: see its messages above")
            self.pid = int(pid)
            self.returncode: int | None = None
            self.stdin = pipes[0] if pipes else None
            self.stdout = pipes[1] if pipes else None
            self._pidfd, self._status = pidfds[0], ours.detach()
        self._lock = threading.Lock()
        for fd in (self._pidfd, self._status):
            weakref.finalize(self, os.close, fd)

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, when it has ended."""
        if self.returncode is not None:
            return self.returncode
        ended = select.poll()
        ended.register(self._status, select.POLLIN)
        if not ended.poll(None if timeout is None else timeout * 1000):
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        with self._lock:
            if self.returncode is None:
                # Nothing: the process that forks was killed, and this one with it.
                self.returncode = int(os.read(self._status, 64) or -signal.SIGKILL)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Do nothing if it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for pipe in (self.stdout, self.stdin):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self.wait()


#: One whose pipes have text.
TextProcess = Process | subprocess.Popen[str]


def run_code(code: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Process:
    """Start `python -c code arguments`, with pipes of text as its stdin and stdout."""
    program = Program(None, code, list(arguments), dict(environment))
    theirs_in, ours_in = os.pipe()
    ours_out, theirs_out = os.pipe()
    try:
        pipes = os.fdopen(ours_in, "w"), os.fdopen(ours_out)
        return Process(program, theirs_in, theirs_out, 2, pipes)
    finally:
        os.close(theirs_in)
        os.close(theirs_out)


def run_module(
    module: str,
    arguments: Sequence[str],
    *,
    stdout: int,
    stderr: int,
    environment: Mapping[str, str],
    new_session: bool = False,
) -> Process:
    """Start `python -m module arguments` with nothing to read."""
    program = Program(module, "", list(arguments), dict(environment), new_session)
    with open(os.devnull) as nothing:  # noqa: PTH123 (a descriptor is wanted)
        return Process(program, nothing.fileno(), stdout, stderr)


# --- cosco.local -------------------------------------------------------------------------------


def _popen(arguments: Sequence[str], **options: Any) -> Process | subprocess.Popen[bytes]:
    """What LocalCluster calls in place of `subprocess.Popen`: services are forked."""
    if list(arguments[:3]) != [sys.executable, "-P", "-m"]:
        return subprocess.Popen(arguments, **options)
    return run_module(
        arguments[3],
        arguments[4:],
        stdout=options["stdout"].fileno(),
        stderr=options["stderr"].fileno(),
        environment=options["env"],
        new_session=options["start_new_session"],
    )


def _context(_: str) -> BaseContext:
    """What `cosco.local.workers` starts processes with: they are forked as well."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTS))
    return context


@contextmanager
def services() -> Iterator[None]:
    """Have every LocalCluster and all worker processes of this process forked."""
    processes = SimpleNamespace(Popen=_popen, DEVNULL=subprocess.DEVNULL)
    workers = SimpleNamespace(get_context=_context, parent_process=multiprocessing.parent_process)
    with _replaced("cluster", "subprocess", processes):
        with _replaced("workers", "multiprocessing", workers):
            yield


@contextmanager
def fresh() -> Iterator[None]:
    """Have them started as users have them."""
    with _replaced("cluster", "subprocess", subprocess):
        with _replaced("workers", "multiprocessing", multiprocessing):
            yield


@contextmanager
def _replaced(file: str, name: str, by: Any) -> Iterator[None]:
    """Have a file of `cosco.local` find another module by a name."""
    module: Any = importlib.import_module(f"cosco.local.{file}")
    before = getattr(module, name)
    setattr(module, name, by)
    try:
        yield
    finally:
        setattr(module, name, before)


# --- the process that forks --------------------------------------------------------------------

_channel: socket.socket | None = None
_starting = threading.Lock()


def _forker() -> socket.socket:
    """The channel to the process that forks, which ends with this one."""
    global _channel  # noqa: PLW0603 (one a process)
    with _starting:
        if _channel is None:
            import cosco

            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            root = str(Path(cosco.__file__).parents[1])
            paths = [root, os.environ.get("PYTHONPATH", "")]
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-P", __file__, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
                    start_new_session=True,  # Ctrl-C is for the tests
                )
            _channel = ours
            atexit.register(_end, ours, process)
        return _channel


def _end(channel: socket.socket, process: subprocess.Popen[bytes]) -> None:
    channel.close()
    process.wait()


def _main(channel: socket.socket) -> Callable[[], None] | None:
    """Fork a child for each request. Returns None in the end, and in each child its program."""
    import cosco

    for name in _IMPORTS:
        importlib.import_module(name)
    with suppress(ImportError):  # where engines are tested it is not installed
        importlib.import_module("cosco.metadata.http.site.http_site")
    for name in cosco.__all__:  # which is imported when it is asked for
        getattr(cosco, name)
    gc.freeze()
    selector = selectors.DefaultSelector()
    selector.register(channel, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is not channel:
                selector.unregister(key.fileobj)
                _tell_end(key.fd, *key.data)
                continue
            request, fds, _, _ = socket.recv_fds(channel, _MAX_REQUEST_BYTES, 4)
            if not request:
                return None
            status, files = socket.socket(fileno=fds[0]), fds[1:]
            parent = os.getpid()
            pid = os.fork()
            if not pid:
                for opened in (channel, status):
                    opened.close()
                for other in selector.get_map().values():
                    if other.data is not None:
                        os.close(other.fd)
                        other.data[1].close()
                selector.close()
                return _become(Program(**json.loads(request)), parent, files)
            pidfd = os.pidfd_open(pid)
            for fd in files:
                os.close(fd)
            socket.send_fds(status, [str(pid).encode()], [pidfd])
            selector.register(pidfd, selectors.EVENT_READ, (pid, status))


def _tell_end(pidfd: int, pid: int, status: socket.socket) -> None:
    os.close(pidfd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with status, suppress(OSError):  # nobody wants to know
        status.send(str(code).encode())


def _become(program: Program, parent: int, files: list[int]) -> Callable[[], None]:
    """Make this process what a fresh interpreter would be for `program`, and give its run."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    for target, fd in enumerate(files):
        os.dup2(fd, target)
        os.close(fd)  # which is none of the first three: those are open
    if program.new_session:
        os.setsid()
    os.environ.clear()
    os.environ.update(program.environment)
    if program.module is not None:
        module = program.module
        sys.argv = [module, *program.arguments]
        return lambda: _ignore(runpy.run_module(module, run_name="__main__", alter_sys=True))
    sys.argv = ["-c", *program.arguments]
    main = sys.modules["__main__"] = ModuleType("__main__")
    return lambda: exec(program.code, main.__dict__)


def _ignore(_: object) -> None:
    pass


if __name__ == "__main__":
    run = _main(socket.socket(fileno=int(sys.argv[1])))
    if run is not None:  # in a child, from where it ends as any program does
        run()
