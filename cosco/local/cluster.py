"""`LocalCluster`: the real services as processes on this machine, gone without a trace.

Everything lies in one temporary directory: the metadata service's database, the stores, and
a log of each process. A cluster belongs to the process that made it. It ends with `close()`,
with `with`, when it is collected, or when that process ends, in whatever way: then
`cosco.local.reaper` clears up.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn, Self, TypeVar

from cosco import decision_thread, mechanics
from cosco.client.argument_checks import seconds, switch, whole_number
from cosco.client.rpc.known_services import SERVICES
from cosco.client.rpc.leftovers import LEFTOVERS
from cosco.config import DaemonConfig, parse_size, parse_tiers
from cosco.dfs import open_store
from cosco.errors import ClientClosed, CoscoError, InvalidArgument, ServiceUnavailable
from cosco.local import reaper
from cosco.process.tls.tls_files import CLIENT_VARIABLES
from cosco.protocol.api_limits import INT64, shown_value
from cosco.protocol.html_view import facts

_HOST: Final = "127.0.0.1"
#: Each is a process, and on one machine.
_MAX_DAEMONS: Final = 256
#: What can be an argument of a process.
_OPTION: Final = re.compile(r"[^\0\ud800-\udfff]*")
_MARK_VARIABLE: Final = "COSCO_CLUSTER_TOKEN"
#: What is no option, and holds for a cluster's processes too.
_HANDED_ON: Final = (mechanics.ENVIRONMENT, decision_thread.ENVIRONMENT)
_START_TIMEOUT_S: Final = 20.0
_STOP_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.02
_TAIL_BYTES: Final = 4096
#: Ports of a cluster are any that are free, and so are those for HTTP: none is counted up to.
_HTTP: Final = ("--http", f"{_HOST}:0")
_METRICS: Final = ("--metrics", f"{_HOST}:0")
_T = TypeVar("_T")
#: A cell of a notebook is not to hang since a service is away.
_SHOWN_IN_S: Final = 2.0


class LocalCluster:
    """A metadata service and `daemons` shuffle daemons on free ports of the loopback.

    memory: of each daemon's page pool, as `cosco-shuffled --memory` takes it, or in bytes.
    directory: where the cluster's own temporary directory goes; made if it is missing, and
        then removed at the end if that leaves it empty. None: the system's.
    shared_store: one store directory for all daemons, or one for each.
    store: the URL of one for all, in the place of a directory; what is left there stays. Of two
    tiers, as `flash=URL,then=URL`, each daemon has a folder of its own on flash.
    daemon_options, metadata_options: further options of `cosco-shuffled` and `cosco-metadata`.

    Every daemon counts as a host of its own. Options in the environment (`COSCO_*`) do not
    reach the processes, but COSCO_NATIVE and COSCO_CHECK do. Raises InvalidArgument, and
    ServiceUnavailable if a process does not come up.
    """

    def __init__(
        self,
        daemons: int = 2,
        *,
        memory: str | int = "256MiB",
        directory: str | os.PathLike[str] | None = None,
        shared_store: bool = True,
        store: str | None = None,
        daemon_options: Sequence[str] = (),
        metadata_options: Sequence[str] = (),
    ) -> None:
        daemons = whole_number("daemons", daemons, 1, _MAX_DAEMONS, "")
        memory_bytes = _memory_bytes(memory)
        tiers = parse_tiers(store) if store is not None else None
        if store is not None:
            # Which refuses a URL that makes no sense, and does no more.
            open_store(tiers.then if tiers is not None else store)
        DaemonConfig(memory=memory_bytes).validate()
        shared_store = switch("shared_store", shared_store)
        daemon_options = _options("daemon_options", daemon_options)
        metadata_options = _options("metadata_options", metadata_options)
        if (variable := next(filter(os.environ.get, CLIENT_VARIABLES), "")) and (
            "--tls-cert" not in metadata_options
        ):
            raise InvalidArgument(
                f"{variable} is set, so clients speak TLS, and a LocalCluster does not: unset it"
            )
        home = self._home = _Home(_folder(directory))
        self._finalizer = weakref.finalize(self, _drop, home)
        try:
            home.open()
            database = f"sqlite:///{home.directory}/metadata.db"
            self.metadata_service = ServiceProcess(
                home,
                "metadata",
                "cosco-metadata",
                ["cosco.cli.metadata", "--store", database, *_HTTP, *metadata_options],
            )
            self.metadata_service.wait_until_ready()
            options = ["--metadata", self.metadata, "--memory", f"{memory_bytes}"]
            options += [*_METRICS, *daemon_options]
            folders = ("store" if shared_store else f"store-{i}" for i in range(daemons))
            urls = [store or (self.directory / folder).as_uri() for folder in folders]
            if tiers is not None:
                urls = [tiers.of_daemon(i, daemons) for i in range(daemons)]
            self.daemons = tuple(self._start_daemon(i, url, options) for i, url in enumerate(urls))
            for daemon in self.daemons:
                daemon.wait_until_ready()
        except BaseException:
            self.close()
            raise

    @property
    def metadata(self) -> str:
        """host:port of the metadata service."""
        return self.metadata_service.address

    @property
    def directory(self) -> Path:
        """The cluster's own directory, with `metadata.log`, `daemon-0.log` and so on."""
        return self._home.directory

    def close(self) -> None:
        """End all processes and remove all files; repeatable. A forked child does nothing."""
        uninterrupted(self._home.close)
        self._finalizer.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _start_daemon(self, index: int, store: str, options: list[str]) -> ServiceProcess:
        # A second one would be another directory of the same store.
        place = [] if "--store" in options else ["--store", store]
        return ServiceProcess(
            self._home,
            f"daemon-{index}",
            "cosco-shuffled",
            ["cosco.cli.shuffled", *place, "--host-id", f"host-{index}", *options],
        )

    def _repr_html_(self) -> str:
        """Return what a notebook shows: its daemons, if the service says so within 2 s."""
        from cosco.observe import fetch_status  # noqa: PLC0415 - gRPC, which a cluster needs not

        try:
            return fetch_status(self.metadata, _SHOWN_IN_S)._repr_html_()
        except CoscoError as error:
            return facts("LocalCluster", {"metadata": str(error)})

    def __reduce__(self) -> NoReturn:
        raise TypeError("a LocalCluster cannot be pickled: hand over its .metadata instead")


class ServiceProcess:
    """One service of a LocalCluster, over its restarts: the same port, files and host id.

    Its methods raise ClientClosed after the cluster's end, and RuntimeError in a process
    other than the one that made the cluster.
    """

    def __init__(self, home: _Home, label: str, command: str, arguments: Sequence[str]) -> None:
        """Start it; `wait_until_ready` has to follow. `arguments` begin with the module."""
        self._home = home
        self._label = label
        self._command = command
        self._output = home.directory / f"{label}.out"
        self._log = home.directory / f"{label}.log"
        #: host:port it serves on.
        self.address = f"{_HOST}:{home.reserve_port()}"
        # -P: not whatever modules lie in the current directory.
        self._arguments = [sys.executable, "-P", "-m", *arguments, "--listen", self.address]
        self._start()

    @property
    def pid(self) -> int:
        """The pid of its latest process, which may have ended."""
        return self._process.pid

    def kill(self) -> None:
        """Kill it with SIGKILL, and return when it is dead."""
        self._home.check_usable()
        self._process.kill()
        self._process.wait()

    def stop(self, *, timeout_s: float = _STOP_TIMEOUT_S) -> None:
        """Send SIGTERM, on which a daemon drains, and return when it has ended.

        A daemon that alone has its store is needed by readers until its exchanges close:
        then this returns when it has stored everything, and it serves on and ends later.

        Raises ServiceUnavailable if it has not after `timeout_s`, or not in good order.
        """
        self._home.check_usable()
        timeout_s = seconds("timeout_s", timeout_s, 0.0, "")
        if not self._serves_on:
            self._terminate(timeout_s, may_serve_on=True)

    def restart(self) -> None:
        """Start it again, after `stop()` if it runs, and return when it serves."""
        self.stop()
        if self._serves_on:  # a second SIGTERM ends it
            self._terminate(_STOP_TIMEOUT_S, may_serve_on=False)
        self._start()
        self.wait_until_ready()

    def _terminate(self, timeout_s: float, *, may_serve_on: bool) -> None:
        deadline = time.monotonic() + timeout_s
        if self._process.poll() is not None:
            return
        self._process.terminate()
        while (code := self._process.poll()) is None:
            if may_serve_on and _tail(self._output).endswith(f"{self._command} drained\n"):
                self._serves_on = True
                return
            if time.monotonic() > deadline:
                raise ServiceUnavailable(
                    f"{self._label} did not stop in {timeout_s:g} s: give it more, or kill() it"
                )
            time.sleep(_POLL_S)
        if code:
            raise ServiceUnavailable(f"{self._ended()} when asked to stop: {self._reason()}")

    def wait_until_ready(self) -> None:
        """Return when it serves; raises ServiceUnavailable if it ends or takes too long."""
        while not (line := _tail(self._output)).endswith("\n"):
            if self._process.poll() is not None:
                raise ServiceUnavailable(f"{self._ended()} before it was ready: {self._reason()}")
            if time.monotonic() > self._deadline:
                self._process.kill()
                self._process.wait()
                raise ServiceUnavailable(
                    f"{self._label} was not ready in {_START_TIMEOUT_S:g} s: {self._reason()}"
                )
            time.sleep(_POLL_S)
        if line != f"{self._command} ready on {self.address}\n":
            raise ServiceUnavailable(f"{self._label} said {line!r} in place of being ready")

    def _start(self) -> None:
        self._deadline = time.monotonic() + _START_TIMEOUT_S
        self._serves_on = False  # drained, and running
        self._process: subprocess.Popen[bytes] = self._home.spawn(
            self._arguments, self._output, self._log
        )

    def _ended(self) -> str:
        code = self._process.returncode
        if code < 0:
            return f"{self._label} was ended by {signal.Signals(-code).name}"
        return f"{self._label} ended with exit code {code}"

    def _reason(self) -> str:
        """Return the last line it wrote to its log."""
        lines = [line for line in _tail(self._log).splitlines() if line.strip()]
        return lines[-1] if lines else "it gave no reason"


class _Home:
    """What a cluster's processes share: a directory, an environment, and their end."""

    def __init__(self, folder: Path) -> None:
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._closed = False
        self._processes: list[subprocess.Popen[bytes]] = []
        self._ports: list[socket.socket] = []
        token = secrets.token_hex(16)
        self._environment = _environment(token)
        self._made_base = not folder.exists()
        self.directory = folder / f"cosco-{token[:16]}"
        self._emptied = [str(folder)] if self._made_base else []
        self._mark = f"{_MARK_VARIABLE}={token}"
        self._reaper: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """Make the directory, once somebody watches who clears up.

        Raises: InvalidArgument.
        """
        uninterrupted(self._start_reaper)
        folder = self.directory.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.directory.mkdir(mode=0o700)
        except OSError as error:
            raise InvalidArgument(
                f"no directory for a cluster in {str(folder)!r}: {error.strerror}"
            ) from error

    def _start_reaper(self) -> None:
        self._reaper = reaper.start(self._mark, str(self.directory), *self._emptied)

    def check_usable(self) -> None:
        """Raise ClientClosed after the end, RuntimeError in another process."""
        if os.getpid() != self._owner:
            raise RuntimeError("only the process that made a LocalCluster can control it")
        if self._closed:
            raise ClientClosed("the LocalCluster is closed")

    def reserve_port(self) -> int:
        """Return a free port that stays this cluster's while nobody listens on it.

        A bound socket keeps others from it, clients' outgoing connections included, and does
        not hinder a service: with SO_REUSEADDR many may bind a port, and one may listen.
        """
        reserved = socket.socket()
        self._ports.append(reserved)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind((_HOST, 0))
        port: int = reserved.getsockname()[1]
        SERVICES.begin(f"{_HOST}:{port}")  # which may have been of a cluster that was closed
        return port

    def spawn(self, arguments: Sequence[str], output: Path, log: Path) -> subprocess.Popen[bytes]:
        """Start a process that ends with the cluster. Its output is new, its log goes on."""
        return uninterrupted(lambda: self._spawn(arguments, output, log))

    def _spawn(self, arguments: Sequence[str], output: Path, log: Path) -> subprocess.Popen[bytes]:
        with self._lock:
            self.check_usable()
            # Files, not pipes: nobody has to read them. A session of its own: Ctrl-C is for
            # the program that runs the cluster.
            with output.open("wb") as stdout, log.open("ab") as stderr:
                process = subprocess.Popen(  # noqa: S603 - our own command
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    env=self._environment,
                    start_new_session=True,
                )
            self._processes = [*(p for p in self._processes if p.poll() is None), process]
            return process

    def close(self) -> None:
        """End everything; does nothing in a forked child.

        By SIGKILL: what a service would save when it is asked to stop goes in a moment. The
        reaper is last, so that it takes over if this is interrupted.
        """
        if os.getpid() != self._owner:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._tell_end()  # before calls break off, whose makers look
            for process in self._processes:
                process.kill()
            for process in self._processes:
                process.wait()
            self._tell_end()  # a call that began in between may have been answered
            for port in self._ports:
                port.close()
            shutil.rmtree(self.directory, ignore_errors=True)
            if self._made_base:
                with suppress(OSError):  # others put files there, or removed it
                    self.directory.parent.rmdir()
            if self._reaper is not None:
                self._reaper.kill()
                self._reaper.wait()

    def _tell_end(self) -> None:
        for reserved in self._ports:
            SERVICES.end(f"{_HOST}:{reserved.getsockname()[1]}")


def _memory_bytes(memory: object) -> int:
    """Return a size that was given as text or as bytes."""
    if isinstance(memory, str):
        return parse_size(memory)
    return whole_number("memory", memory, 1, INT64, "")


def _folder(directory: object) -> Path:
    """Return the absolute path of a directory that may be there or not."""
    if directory is None:
        directory = tempfile.gettempdir()
    problem = f"directory is {shown_value(directory)}, it must be a path"
    if not isinstance(directory, str | os.PathLike):
        raise InvalidArgument(problem)
    try:
        folder = Path(directory).absolute()
        folder.exists()  # which tells of names that no file can have
        if b"\0" in os.fsencode(folder):
            raise ValueError("embedded null byte")
    except (TypeError, ValueError, OSError) as error:
        raise InvalidArgument(f"{problem}: {error}") from error
    return folder


def _options(name: str, options: object) -> list[str]:
    """Return options of a command."""
    given: Sequence[object] = [None]
    if isinstance(options, Sequence) and not isinstance(options, str | bytes | bytearray):
        given = options
    found = [option for option in given if isinstance(option, str) and _OPTION.fullmatch(option)]
    if len(found) != len(given):
        raise InvalidArgument(
            f"{name} is {shown_value(options)}, it must be a sequence of strings, as a command has"
        )
    return found


def _drop(home: _Home) -> None:
    """End a cluster that nobody holds: at once in a process that ends, else by another thread."""
    if LEFTOVERS.is_over:
        home.close()
    else:
        LEFTOVERS.add(home.close)


def uninterrupted(work: Callable[[], _T]) -> _T:
    """Have `work` done by another thread, as interrupts come to the main thread alone.

    So it is never torn. An interrupt of the wait for it is raised when it is done.
    """
    results: list[_T] = []
    failures: list[BaseException] = []
    once, done = threading.Lock(), threading.Event()

    def run() -> None:
        if once.acquire(blocking=False):
            try:
                results.append(work())
            except BaseException as error:  # noqa: BLE001  it is raised where it is waited for
                failures.append(error)
            done.set()

    interrupt: BaseException | None = None
    is_started = False
    while not done.is_set():
        try:
            if not is_started:  # or an interrupt came before it was certain
                threading.Thread(target=run, name="cosco-cluster", daemon=True).start()
                is_started = True
            done.wait()
        except RuntimeError:  # there are too many threads
            run()
        except BaseException as error:  # noqa: BLE001  whatever a handler of signals raises
            interrupt = error
    if interrupt is not None:
        raise interrupt
    if failures:
        raise failures[0]
    return results[0]


def _environment(token: str) -> dict[str, str]:
    """Return this process's environment, without options of cosco and with what a cluster needs."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("COSCO_") or name in _HANDED_ON
    }
    environment[_MARK_VARIABLE] = token
    package = str(Path(__file__).resolve().parents[2])
    if package not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        paths = [package, environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return environment


def _tail(file: Path) -> str:
    """Return the last few KiB of a file of the cluster; raises ClientClosed if it is gone."""
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, os.fstat(opened.fileno()).st_size - _TAIL_BYTES))
            return opened.read(_TAIL_BYTES).decode(errors="replace")
    except FileNotFoundError:
        raise ClientClosed("the LocalCluster was closed") from None
