"""Configuration of the two services: one frozen dataclass each.

Command line options, environment variables and `docs/configuration.md` are made from these
fields (`cosco.cli.options`), and a test compares them, so that none of them can rot. A
field's metadata holds its help text; its name with dashes is the option, and the prefix of
its class with its name in capitals is the variable (`--lease-s`, `COSCO_SHUFFLED_LEASE_S`).
Sizes are bytes and are given as `256MiB`, `4KiB`, `1GB` or a plain number.
"""

from __future__ import annotations

import ipaddress
import math
import re
import socket
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Final

from cosco.errors import InvalidArgument

DEFAULT_METADATA: Final = "127.0.0.1:7070"
#: The environment variable that names the metadata service for every client and command.
METADATA_VARIABLE: Final = "COSCO_METADATA"

_SEGMENT_MIN_BYTES: Final = 64 << 10
_SEGMENT_MAX_BYTES: Final = 64 << 20
_MEMORY_MIN_BYTES: Final = 16 << 20
_PORT_MAX: Final = 65535
#: What --metrics says for the port of --listen and this many more.
AUTO: Final = "auto"
METRICS_PORTS_AWAY: Final = 1000
_METRICS_HELP: Final = (
    "host:port that serves /metrics, /healthz and /readyz over HTTP; auto: on the host of "
    f"--listen, its port and {METRICS_PORTS_AWAY} more; port 0 picks a free one, empty serves none"
)

_UNITS: Final = {
    "": 1, "b": 1,
    "k": 1 << 10, "kib": 1 << 10, "kb": 10**3,
    "m": 1 << 20, "mib": 1 << 20, "mb": 10**6,
    "g": 1 << 30, "gib": 1 << 30, "gb": 10**9,
    "t": 1 << 40, "tib": 1 << 40, "tb": 10**12,
}  # fmt: skip
_SIZE_DIGITS: Final = 20
_SHOWN_CHARACTERS: Final = 100
#: The host in brackets or without, and the port.
_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Za-z:.%]+)\]|([^\s\[\]/@,:]+)):([0-9]{1,5})")
#: What is given instead, the first that fits.
_NO_ADDRESSES: Final = (
    (r",", "it is a list, and one address is wanted"),
    (r"://", "it is a URL, and no scheme belongs to an address"),
    (r"^\s*$", "it is empty"),
    (r"\s", "there is white space in it"),
    (r"/", "a path does not belong to it"),
    (r"@", "a user's name does not belong to it"),
    (r"^[^\[]*:.*:", "the host of an IPv6 address has brackets, as in [::1]:7070"),
    (r"^:", "the host is missing"),
    (r"^[^:]*$|\]$|:$", "the port is missing"),
    (r"", f"its port is no number from 0 to {_PORT_MAX}, or its host no name"),
)
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)

_PERCENT: Final = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)\s*%")
_TIER: Final = re.compile(r"(?:^|[\s,])(?:flash|then)=[A-Za-z0-9+.-]*(?::|$)")
_TIERS: Final = re.compile(r"flash=([^,\s]+),\s*then=([A-Za-z][A-Za-z0-9+.-]*:\S+)")
#: Where a segment of two tiers may be durable.
TIERS: Final = ("then", "flash")
#: What lies between two stores: a URL may have commas, and blanks, in it.
_BETWEEN_STORES: Final = re.compile(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+.-]*://)")


def parse_size(text: str) -> int:
    """Return the bytes of `256MiB`, `1.5GB`, `4096`, …; raises InvalidArgument."""
    match = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None or len(match[1]) > _SIZE_DIGITS:
        raise InvalidArgument(
            f"{text[:_SHOWN_CHARACTERS]!r} is no size: write for example 256MiB, 1GB or 4096"
        )
    return int(float(match[1]) * unit)


def parse_reserve(text: str) -> tuple[int, float]:
    """Return (bytes, share of a disk) of `10GiB` or `5%`, one of them zero.

    Raises InvalidArgument.
    """
    percent = _PERCENT.fullmatch(text.strip())
    if percent is None:
        return parse_size(text), 0.0
    share = float(percent[1]) / 100
    if share >= 1:
        raise InvalidArgument(f"--store-reserve is {text}, which leaves nothing to write to")
    return 0, share


@dataclass(frozen=True, slots=True)
class TierUrls:
    """The stores of two tiers: what is fast, and what it moves on to."""

    flash: str
    then: str

    def __str__(self) -> str:
        return f"flash={self.flash},then={self.then}"

    def of_daemon(self, index: int, daemons: int) -> str:
        """Return the store of one of several daemons on a host: each has a folder on flash."""
        if daemons == 1:
            return str(self)
        path, mark, query = self.flash.partition("?")
        return str(TierUrls(f"{path.rstrip('/')}/daemon-{index}{mark}{query}", self.then))


def parse_tiers(text: str) -> TierUrls | None:
    """Return the tiers of `flash=file:///DIR,then=URL`; None for any other store.

    Raises InvalidArgument.
    """
    if not _TIER.search(text):
        return None
    found = _TIERS.fullmatch(text.strip())
    if found is None or _TIER.search(found[2]) or _BETWEEN_STORES.search(found[2]):
        raise InvalidArgument(
            "--store: two tiers are flash=file:///DIR,then=URL, given once, and nothing beside them"
        )
    flash, then = found[1], found[2]
    if not flash.lower().startswith("file:///"):
        raise InvalidArgument("--store: flash is to be one directory, file:///DIR")
    if then.lower().startswith("memory:"):
        raise InvalidArgument("--store: then is memory://, which is not durable: name a slow store")
    folders = [url.partition("?")[0].rstrip("/") + "/" for url in (flash, then)]
    if folders[0].startswith(folders[1]) or folders[1].startswith(folders[0]):
        raise InvalidArgument(f"--store: of flash={flash} and then one is in the other")
    return TierUrls(flash, then)


def parse_address(text: str) -> tuple[str, int]:
    """Return (host, port) of `host:port` or `[v6]:port`; raises InvalidArgument."""
    match = _ADDRESS.fullmatch(text)
    # Control characters and halves of characters have no place in it either.
    if match is None or not text.isprintable() or int(match[3]) > _PORT_MAX:
        wrong = next(meaning for pattern, meaning in _NO_ADDRESSES if re.search(pattern, text))
        raise InvalidArgument(
            f"{text[:_SHOWN_CHARACTERS]!r} is no address: {wrong}; write host:port, for example "
            f"{DEFAULT_METADATA}"
        )
    return match[1] or match[2], int(match[3])


def parse_peer(text: str) -> tuple[str, int]:
    """Return (host, port) of an address to connect to, as `parse_address` does."""
    host, port = parse_address(text)
    if not port:
        raise InvalidArgument(
            f"{text!r} is no address to connect to: port 0 is for who listens, on a free one; "
            "write the port that the service says it is ready on"
        )
    return host, port


def is_wildcard(address: str) -> bool:
    """Whether `host:port` stands for all addresses of a machine: nobody can reach it there."""
    host, _ = parse_address(address)
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return host == "*" or _is_zero(host)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_unspecified


def _is_zero(host: str) -> bool:
    """Whether a host is another way to write 0.0.0.0, as 0 or 0x0.0."""
    try:
        return socket.inet_aton(host) == bytes(4)
    except (OSError, ValueError):
        return False


def _count_up(address: str, count: int) -> str:
    """Return the address with its port higher by `count`; an empty one, or port 0, stays."""
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + count}" if address and int(port) else address


def _metrics_listen(metrics: str, listen: str) -> str:
    """Return where metrics are served beside `listen`; empty: nowhere."""
    if metrics != AUTO:
        return metrics
    parse_address(listen)
    host, _, port = listen.rpartition(":")
    return f"{host}:{int(port) + METRICS_PORTS_AWAY if int(port) else 0}"


def _check_metrics(metrics: str, listen: str, processes: int = 1) -> None:
    """Raise InvalidArgument for metrics that cannot be served so."""
    address = _metrics_listen(metrics, listen)
    if not address:
        return
    if metrics != AUTO:
        parse_address(address)
    port = int(address.rpartition(":")[2])
    if port and port + processes - 1 > _PORT_MAX:
        what = f"--metrics {metrics}" if metrics != AUTO else f"--metrics auto beside {listen}"
        of = f" of {processes} processes" if processes > 1 else ""
        raise InvalidArgument(f"{what}: ports{of} go beyond {_PORT_MAX}; give --metrics HOST:PORT")


def option(help: str, default: Any, *, size: bool = False, several: bool = False) -> Any:
    """Make a configuration field with its help text.

    size: it is a size in bytes. `several`: it may be given more than once; the field is text with
    blanks between.
    """
    return field(default=default, metadata={"help": help, "size": size, "several": several})


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
    old_build_grace_s: float = option(
        "seconds for which rows that were lost in part, and are all written anew, are kept for who "
        "reads them still",
        900.0,
    )
    metrics: str = option(_METRICS_HELP, AUTO)

    def validate(self) -> None:
        """Raise InvalidArgument for an option that makes no sense."""
        parse_address(self.listen)
        _check_metrics(self.metrics, self.listen)
        if not self.store.startswith("sqlite:///") or self.store == "sqlite:///":
            raise InvalidArgument(f"--store is {self.store!r}, it must be sqlite:///PATH")
        _at_least(self, "daemon_lease_s", 1.0)
        _at_least(self, "ranges_per_daemon", 1)
        _at_least(self, "adoption_grace_s", 0)
        _at_least(self, "old_build_grace_s", 0)

    @property
    def metrics_listen(self) -> str:
        """Where metrics are to be served; empty: nowhere."""
        return _metrics_listen(self.metrics, self.listen)


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonConfig:
    """Options of `cosco-shuffled`."""

    env_prefix: ClassVar[str] = "COSCO_SHUFFLED_"

    listen: str = option("host:port to serve on; port 0 picks a free one", "127.0.0.1:0")
    advertise: str = option("host:port as others reach it; empty: the one it listens on", "")
    metadata: str = option("host:port of the metadata service", DEFAULT_METADATA)
    store: str = option(
        "where segments go: file:///DIR (add ?fsync=false to give up durability), memory://, or by "
        "the extra cosco[s3] s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX: see "
        "docs/stores.md. Give it once for each of several directories; in the environment with "
        "blanks or commas between. flash=file:///DIR,then=URL is a fast tier of this daemon's own "
        "before a slow one",
        "memory://",
        several=True,
    )
    store_reserve: str = option(
        "what stays free on the disk of each directory of --store: a size, or 5% of the disk", "0"
    )
    store_missing: int = option(
        "how many of several directories may be missing at the start: rows that only they hold "
        "are computed again",
        0,
    )
    tier_age_s: float = option(
        "of two tiers: seconds after which a segment moves on from flash, if it did not before",
        300.0,
    )
    tier_flash_bytes: int = option(
        "of two tiers: what flash may have at most; 0: all of its disk but --store-reserve",
        0,
        size=True,
    )
    tier_durable: str = option(
        "of two tiers: where a segment is durable, so that copies of its rows in memory may go: "
        "then, or flash, which is faster and loses them with this host",
        "then",
    )
    processes: int = option(
        "daemons to run on this host, in processes that share the memory evenly and the store; "
        "ports that are not 0 count up from the first one's",
        1,
    )
    memory: int = option("size of the page pool for rows, of all processes", 1 << 30, size=True)
    segment_bytes: int = option(
        "what is written to the store at a time: a partition of this size by itself, smaller ones "
        "together when memory is short; 0: a twelfth of the memory, by the number of directories, "
        "64KiB to 64MiB",
        0,
        size=True,
    )
    inflight_bytes: int = option(
        "bytes of frames granted to all writers and not yet in pages", 32 << 20, size=True
    )
    flush_threads: int = option("store writes at a time, in each directory of --store", 3)
    full_store_wait_s: float = option(
        "seconds writers wait for a store that takes nothing before CapacityExceeded", 20.0
    )
    store_timeout_s: float = option(
        "seconds after which a read or write of the store that is still under way counts as failed",
        30.0,
    )
    store_idle_s: float = option(
        "seconds without a row after which all buffers are written to the store; 0: never", 0.0
    )
    io_log: str = option(
        "file that a line for each read and write of the store is appended to; empty: none", ""
    )
    host_id: str = option(
        "the machine, for placing copies apart; empty: the host name, but in a pod of Kubernetes, "
        "which has a name of its own, the id of the kernel's start: set it from spec.nodeName",
        "",
    )
    metrics: str = option(_METRICS_HELP, AUTO)
    register_timeout_s: float = option("seconds to wait for the metadata service at start", 10.0)
    heartbeat_s: float = option("seconds between two heartbeats", 1.0)
    sweep_s: float = option("seconds between two searches of the store for closed exchanges", 15.0)

    def validate(self) -> None:
        """Raise InvalidArgument for an option that makes no sense."""
        parse_address(self.listen)
        parse_peer(self.metadata)
        if self.advertise:
            _, port = parse_address(self.advertise)
            if not port:
                raise InvalidArgument("--advertise has port 0: others cannot reach it there")
            if is_wildcard(self.advertise):
                raise InvalidArgument(
                    f"--advertise is {self.advertise}, which is no address of this host but "
                    "stands for all: name one by which others reach it"
                )
        elif is_wildcard(self.listen):
            raise InvalidArgument(
                f"--listen is {self.listen}, which stands for all addresses of this host: say "
                "with --advertise host:port by which of them others reach it"
            )
        _at_least(self, "processes", 1)
        if self.memory // self.processes < _MEMORY_MIN_BYTES:
            share = f" for each of --processes {self.processes}" if self.processes > 1 else ""
            raise InvalidArgument(
                f"--memory is {self.memory}, it must be at least {_MEMORY_MIN_BYTES}{share}"
            )
        for name in ("listen", "advertise"):
            self._check_ports(name)
        _check_metrics(self.metrics, self.listen, self.processes)
        if self.segment_bytes:
            _at_least(self, "segment_bytes", _SEGMENT_MIN_BYTES)
        _at_least(self, "inflight_bytes", 4 << 20)
        _at_least(self, "flush_threads", 1)
        self._check_stores()
        _at_least(self, "full_store_wait_s", 0)
        _at_least(self, "store_timeout_s", 0.1)
        _at_least(self, "store_idle_s", 0)
        _at_least(self, "register_timeout_s", 0)
        _at_least(self, "heartbeat_s", 0.05)
        _at_least(self, "sweep_s", 0.05)
        _at_least(self, "tier_age_s", 0)
        memory = self.memory // self.processes
        if self.segment_bytes > memory // 4:
            raise InvalidArgument(
                f"--segment-bytes {self.segment_bytes} is more than a quarter of --memory {memory}"
                + (" of a process" if self.processes > 1 else "")
            )

    def _check_stores(self) -> None:
        """Raise InvalidArgument for options of directories without directories."""
        parse_reserve(self.store_reserve)
        self._check_tiers()
        for store in self.stores:
            if self.has_directories and not store.lower().startswith("file:"):
                raise InvalidArgument(
                    f"--store {store}: several --store, and --store-reserve, are for file:///DIR"
                )
        if not 0 <= self.store_missing < len(self.stores):
            raise InvalidArgument(
                f"--store-missing is {self.store_missing}, and --store is given "
                f"{len(self.stores)} times: one directory at least must be there"
            )

    def _check_tiers(self) -> None:
        """Raise InvalidArgument for tiers, or options of them, that make no sense."""
        if self.tier_durable not in TIERS:
            raise InvalidArgument(f"--tier-durable is {self.tier_durable!r}: write then or flash")
        if self.tiers is not None:
            return
        defaults = {f.name: f.default for f in fields(self)}
        for name in ("tier_age_s", "tier_flash_bytes", "tier_durable"):
            if getattr(self, name) != defaults[name]:
                shown = "--" + name.replace("_", "-")
                raise InvalidArgument(f"{shown} is for --store flash=file:///DIR,then=URL alone")

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
            # Once and for all: a port that was picked for `listen` says nothing of this one.
            metrics=_count_up(self.metrics_listen, index),
            store=self.store if self.tiers is None else self.tiers.of_daemon(index, self.processes),
        )

    @property
    def metrics_listen(self) -> str:
        """Where metrics are to be served; empty: nowhere."""
        return _metrics_listen(self.metrics, self.listen)

    @property
    def stores(self) -> tuple[str, ...]:
        """The URLs of the stores; more than one are directories."""
        return tuple(_BETWEEN_STORES.split(self.store))

    @property
    def has_directories(self) -> bool:
        """Whether there are several directories, or a reserve is kept in one."""
        if self.tiers is not None:
            return False
        return len(self.stores) > 1 or any(parse_reserve(self.store_reserve))

    @property
    def tiers(self) -> TierUrls | None:
        """The fast and the slow tier, if there are two."""
        return parse_tiers(self.store)

    @property
    def writers(self) -> int:
        """How many writes of the store are under way at a time."""
        return self.flush_threads * len(self.stores)

    @property
    def segment_limit_bytes(self) -> int:
        """The size at which a buffer is written by itself, whatever memory is free.

        With a twelfth of the memory what three writers have under way is a quarter at most, and
        each directory has three; beyond 64 MiB a disk seeks for less than 3 % of its time, and
        there is nothing to gain.
        """
        share = self.memory // (12 * len(self.stores))
        return self.segment_bytes or min(max(share, _SEGMENT_MIN_BYTES), _SEGMENT_MAX_BYTES)
