"""Configuration of the two services: one frozen dataclass each.

Command line options, environment variables and `docs/configuration.md` are made from these
fields (`cosco.cli.options`), and a test compares them, so that none of them can rot. A
field's metadata holds its help text; its name with dashes is the option, and the prefix of
its class with its name in capitals is the variable (`--lease-s`, `COSCO_SHUFFLED_LEASE_S`).
Sizes are bytes and are given as `256MiB`, `4KiB`, `1GB` or a plain number.
"""

from __future__ import annotations

import math
import re
import socket
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

from cosco.errors import InvalidArgument

DEFAULT_METADATA: Final = "127.0.0.1:7070"
#: The environment variable that names the metadata service for every client and command.
METADATA_VARIABLE: Final = "COSCO_METADATA"

_CHUNK_MIN_BYTES: Final = 64 << 10
_CHUNK_MAX_BYTES: Final = 64 << 20
_MEMORY_MIN_BYTES: Final = 16 << 20
_PORT_MAX: Final = 65535

_UNITS: Final = {
    "": 1, "b": 1,
    "k": 1 << 10, "kib": 1 << 10, "kb": 10**3,
    "m": 1 << 20, "mib": 1 << 20, "mb": 10**6,
    "g": 1 << 30, "gib": 1 << 30, "gb": 10**9,
    "t": 1 << 40, "tib": 1 << 40, "tb": 10**12,
}  # fmt: skip
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Return the bytes of `256MiB`, `1.5GB`, `4096`, …; raises InvalidArgument."""
    match = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise InvalidArgument(f"{text!r} is no size: write for example 256MiB, 1GB or 4096")
    return int(float(match[1]) * unit)


def parse_address(text: str) -> tuple[str, int]:
    """Return (host, port) of `host:port` or `[v6]:port`; raises InvalidArgument."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > _PORT_MAX:
        raise InvalidArgument(
            f"{text!r} is no address: write host:port, for example 127.0.0.1:7070"
        )
    return host.strip("[]"), int(port)


def _count_up(address: str, count: int) -> str:
    """Return the address with its port higher by `count`; an empty one, or port 0, stays."""
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + count}" if address and int(port) else address


def option(help: str, default: Any, *, size: bool = False) -> Any:
    """Make a configuration field with its help text; `size`: it is a size in bytes."""
    return field(default=default, metadata={"help": help, "size": size})


def _at_least(config: Any, name: str, low: float) -> None:
    value = getattr(config, name)
    if not low <= value < math.inf:  # which NaN is not, either
        shown = "--" + name.replace("_", "-")
        raise InvalidArgument(f"{shown} is {value}, it must be at least {low}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataConfig:
    """Options of `cosco-metadata`."""

    env_prefix: ClassVar[str] = "COSCO_METADATA_"

    listen: str = option("host:port to serve on; port 0 picks a free one", DEFAULT_METADATA)
    store: str = option("where the state is kept, as sqlite:///PATH", "sqlite:///cosco-metadata.db")
    daemon_lease_s: float = option("seconds of silence after which a daemon is dead", 10.0)
    ranges_per_daemon: int = option("partition ranges of an exchange, per daemon", 2)
    adoption_grace_s: float = option(
        "seconds in which a dead daemon may be started again before its rows count as lost", 10.0
    )

    def validate(self) -> None:
        """Raise InvalidArgument for an option that makes no sense."""
        parse_address(self.listen)
        if not self.store.startswith("sqlite:///") or self.store == "sqlite:///":
            raise InvalidArgument(f"--store is {self.store!r}, it must be sqlite:///PATH")
        _at_least(self, "daemon_lease_s", 1.0)
        _at_least(self, "ranges_per_daemon", 1)
        _at_least(self, "adoption_grace_s", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonConfig:
    """Options of `cosco-shuffled`."""

    env_prefix: ClassVar[str] = "COSCO_SHUFFLED_"

    listen: str = option("host:port to serve on; port 0 picks a free one", "127.0.0.1:0")
    advertise: str = option("host:port as others reach it; empty: the one it listens on", "")
    metadata: str = option("host:port of the metadata service", DEFAULT_METADATA)
    store: str = option(
        "where chunks go: file:///DIR (add ?fsync=false to give up durability) or memory://",
        "memory://",
    )
    processes: int = option(
        "daemons to run on this host, in processes that share the memory evenly and the store; "
        "ports that are not 0 count up from the first one's",
        1,
    )
    memory: int = option("size of the page pool for rows, of all processes", 1 << 30, size=True)
    chunk_bytes: int = option(
        "a buffer of this size is written to the store, smaller ones when memory is short; "
        "0: a sixteenth of the memory, 64KiB to 64MiB",
        0,
        size=True,
    )
    inflight_bytes: int = option(
        "bytes of frames granted to all writers and not yet in pages", 32 << 20, size=True
    )
    flush_threads: int = option("store writes at a time", 3)
    full_store_wait_s: float = option(
        "seconds writers wait for a store that takes nothing before CapacityExceeded", 20.0
    )
    store_idle_s: float = option(
        "seconds without a row after which all buffers are written to the store; 0: never", 0.0
    )
    io_log: str = option(
        "file that a line for each read and write of the store is appended to; empty: none", ""
    )
    host_id: str = option("the machine, for placing copies apart; empty: the host name", "")
    metrics: str = option(
        "host:port of the Prometheus endpoint; port 0 picks a free one, empty serves none",
        "127.0.0.1:0",
    )
    register_timeout_s: float = option("seconds to wait for the metadata service at start", 10.0)
    heartbeat_s: float = option("seconds between two heartbeats", 1.0)
    sweep_s: float = option("seconds between two searches of the store for closed exchanges", 15.0)

    def validate(self) -> None:
        """Raise InvalidArgument for an option that makes no sense."""
        parse_address(self.listen)
        parse_address(self.metadata)
        if self.advertise:
            _, port = parse_address(self.advertise)
            if not port:
                raise InvalidArgument("--advertise has port 0: others cannot reach it there")
        if self.metrics:
            parse_address(self.metrics)
        _at_least(self, "processes", 1)
        if self.memory // self.processes < _MEMORY_MIN_BYTES:
            share = f" for each of --processes {self.processes}" if self.processes > 1 else ""
            raise InvalidArgument(
                f"--memory is {self.memory}, it must be at least {_MEMORY_MIN_BYTES}{share}"
            )
        for name in ("listen", "advertise", "metrics"):
            self._check_ports(name)
        if self.chunk_bytes:
            _at_least(self, "chunk_bytes", _CHUNK_MIN_BYTES)
        _at_least(self, "inflight_bytes", 4 << 20)
        _at_least(self, "flush_threads", 1)
        _at_least(self, "full_store_wait_s", 0)
        _at_least(self, "store_idle_s", 0)
        _at_least(self, "register_timeout_s", 0)
        _at_least(self, "heartbeat_s", 0.05)
        _at_least(self, "sweep_s", 0.05)
        memory = self.memory // self.processes
        if self.chunk_bytes > memory // 4:
            raise InvalidArgument(
                f"--chunk-bytes {self.chunk_bytes} is more than a quarter of --memory {memory}"
                + (" of a process" if self.processes > 1 else "")
            )

    def _check_ports(self, name: str) -> None:
        """Raise InvalidArgument unless there are ports for all processes."""
        address = getattr(self, name)
        if address and parse_address(address)[1] + self.processes - 1 > _PORT_MAX:
            raise InvalidArgument(
                f"--{name} {address}: ports of {self.processes} processes go beyond {_PORT_MAX}"
            )

    def of_process(self, index: int) -> DaemonConfig:
        """Return what one of `processes`, counted from 0, runs with, as a daemon of its own."""
        return replace(
            self,
            processes=1,
            memory=self.memory // self.processes,
            listen=_count_up(self.listen, index),
            advertise=_count_up(self.advertise, index),
            metrics=_count_up(self.metrics, index),
        )

    @property
    def chunk_limit_bytes(self) -> int:
        """The size at which a buffer is written, whatever memory is free.

        A sixteenth of the memory keeps what `flush_threads` have under way below a quarter;
        beyond 64 MiB a disk seeks for less than 3 % of its time, and there is nothing to gain.
        """
        share = self.memory // 16
        return self.chunk_bytes or min(max(share, _CHUNK_MIN_BYTES), _CHUNK_MAX_BYTES)

    @property
    def host(self) -> str:
        """The host id to register with."""
        return self.host_id or socket.gethostname()
