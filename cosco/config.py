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
from functools import lru_cache
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from cosco.errors import InvalidArgument

DEFAULT_METADATA: Final = "127.0.0.1:7070"
#: The environment variable that names the metadata service for every client and command.
METADATA_VARIABLE: Final = "COSCO_METADATA"

_SEGMENT_MIN_BYTES: Final = 64 << 10
_SEGMENT_MAX_BYTES: Final = 64 << 20
_MEMORY_MIN_BYTES: Final = 16 << 20
#: The names in certificates by which services are known, as `cosco tls init` gives them.
DAEMON_NAME: Final = "daemon.cosco.internal"
METADATA_NAME: Final = "metadata.cosco.internal"
#: Whether who connects must have a certificate.
TLS_CLIENT_AUTH: Final = ("require", "optional")
_LOOPBACK: Final = "127.0.0.1"
_TLS_CLIENT_AUTH_HELP: Final = (
    "require: who connects must have a certificate of --tls-ca; optional: it is checked if there "
    "is one, and else a token, at a daemon a capability, says who calls; that needs the native part"
)
_UNFINISHED_HELP: Final = (
    "what messages that have not come whole may hold in memory beside those that were let in; who "
    "has most of it is told to try again. With the native part alone"
)
_UNFINISHED_MIN_BYTES: Final = 1 << 20
#: What peers may have unless it is said: see --connections and those after it.
CONNECTIONS_MAX: Final = 8192
PEER_CONNECTIONS_MAX: Final = 2048
NEW_CONNECTIONS_MAX: Final = 512
PEER_CALLS_MAX: Final = 10_000
#: A quarter of what may wait in all: one tenant is not to have all of it.
TENANT_CALLS_MAX: Final = 5_000
#: Open streams of one tenant at a daemon: each process of his with writers has one.
TENANT_STREAMS_MAX: Final = 1024
IDLE_STREAM_S: Final = 600.0
#: How many daemons a cluster may have, unless it is said.
DAEMONS_MAX: Final = 4096
#: Below this a service and its own cluster would be in each other's way.
_CONNECTIONS_MIN: Final = 8
_CONNECTIONS_HELP: Final = (
    "connections of all peers together, but no more than the files that may be open allow; beyond, "
    "the host that has most gives up an idle one for a host that has fewer. With the native part "
    "alone"
)
_PEER_CONNECTIONS_HELP: Final = (
    "connections of one peer, which is a host; more are closed at once. Each process that works "
    "with rows has one or two. With the native part alone"
)
_NEW_CONNECTIONS_HELP: Final = (
    "connections on which no call was made yet, as a handshake is under way; beyond, the oldest of "
    "the host that has most is closed. With the native part alone"
)
_KEY_ROTATION_MIN_S: Final = 1.0
#: Below this some call alone would not fit that an honest client makes.
_WAITING_MIN_BYTES: Final = 16 << 20
_PORT_MAX: Final = 65535
#: What --metrics and --http say for the port of --listen and this many more.
AUTO: Final = "auto"
METRICS_PORTS_AWAY: Final = 1000
_AUTO_HELP: Final = (
    "auto: on the host of --listen (beyond the loopback: of that, but with --insecure), its port "
    f"and {METRICS_PORTS_AWAY} more; port 0 picks a free one, empty serves none"
)
_METRICS_HELP: Final = (
    f"host:port that serves /metrics, /healthz and /readyz over HTTP; {_AUTO_HELP}"
)
_HTTP_HELP: Final = (
    "host:port that serves /metrics, /healthz and /readyz over HTTP, and with the extra "
    f"cosco[http] the interface of docs/http.md; {_AUTO_HELP}. Beyond the loopback it is HTTPS, "
    "and needs TLS and tokens, or --insecure"
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


@lru_cache(maxsize=256)  # every writer and reader has the same few looked at
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


def is_loopback(address: str) -> bool:
    """Whether `host:port` is this machine's for itself: nobody else can reach it there."""
    host, _ = parse_address(address)
    if host.lower() == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def _count_up(address: str, count: int) -> str:
    """Return the address with its port higher by `count`; an empty one, or port 0, stays."""
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + count}" if address and int(port) else address


def _beside(given: str, listen: str, *, insecure: bool) -> str:
    """Return where is served over HTTP what --metrics or --http says; empty: nowhere."""
    if given != AUTO:
        return given
    parse_address(listen)
    host, _, port = listen.rpartition(":")
    if not (insecure or is_loopback(listen)):
        host = _LOOPBACK
    return f"{host}:{int(port) + METRICS_PORTS_AWAY if int(port) else 0}"


def _check_metrics(metrics: str, listen: str, processes: int = 1, *, insecure: bool) -> None:
    """Raise InvalidArgument for metrics that cannot be served so."""
    address = _beside(metrics, listen, insecure=insecure)
    if not address:
        return
    if metrics != AUTO:
        parse_address(address)
        if not (insecure or is_loopback(address)):
            raise InvalidArgument(
                f"--metrics {metrics} would be served to everybody who reaches it: name an address "
                "of the loopback, or give --insecure in a network that you trust"
            )
    _check_ports_beside("--metrics", metrics, address, listen, processes)


def _check_ports_beside(
    option: str, given: str, address: str, listen: str, processes: int = 1
) -> None:
    """Raise InvalidArgument unless there are ports for all processes."""
    if given != AUTO:
        parse_address(address)
    port = int(address.rpartition(":")[2])
    if port and port + processes - 1 > _PORT_MAX:
        what = f"{option} {given}" if given != AUTO else f"{option} auto beside {listen}"
        of = f" of {processes} processes" if processes > 1 else ""
        raise InvalidArgument(f"{what}: ports{of} go beyond {_PORT_MAX}; give {option} HOST:PORT")


def _check_http(config: MetadataConfig) -> None:
    """Raise InvalidArgument for HTTP that cannot be served, or would let in everybody."""
    for host in config.http_hosts:
        if is_no_host(host):
            raise InvalidArgument(
                f"--http-host {host[:_SHOWN_CHARACTERS]!r} is no name of a host: write it as in a "
                "URL, without scheme and port"
            )
    address = config.http_listen
    if not address:
        return
    _check_ports_beside("--http", config.http, address, config.listen)
    parse_address(address)
    if not (config.insecure or is_loopback(address)) and (lacks := _lacks(config)):
        raise InvalidArgument(
            f"--http {config.http} would let in everybody who reaches it, as there {lacks}: name "
            "an address of the loopback, give --tls-cert, --tls-key, --tls-ca and --tokens, or "
            "--insecure in a network that you trust"
        )


def is_no_host(text: str) -> bool:
    """Whether a text is neither the name of a host nor its address."""
    try:
        is_bracketed = text.startswith("[") and text.endswith("]")
        ipaddress.ip_address(text[1:-1] if is_bracketed else text)
    except ValueError:
        return not (text.isascii() and ":" not in text and _ADDRESS.fullmatch(f"{text}:0"))
    return False


def _check_tls(config: Any) -> None:
    """Check the options of TLS, which are given together or not at all."""
    given = {f"--tls-{name}": getattr(config, f"tls_{name}") for name in ("cert", "key", "ca")}
    if any(given.values()) and not all(given.values()):
        has = " and ".join(name for name, path in given.items() if path)
        lacks = " and ".join(name for name, path in given.items() if not path)
        raise InvalidArgument(f"{has} is given, and {lacks} is not: TLS needs all three")
    for name in ("daemon_san", "metadata_san"):
        if not getattr(config, name):
            raise InvalidArgument(f"--{name.replace('_', '-')} is empty, it must be a name")
    if config.tls_client_auth not in TLS_CLIENT_AUTH:
        raise InvalidArgument(
            f"--tls-client-auth is {config.tls_client_auth!r}, it must be "
            f"{' or '.join(TLS_CLIENT_AUTH)}"
        )


def _check_peers(config: ReachOptions) -> None:
    """Check the bounds of what peers may have."""
    for name in ("connections", "peer_connections", "new_connections", "peer_calls"):
        _at_least(config, name, _CONNECTIONS_MIN)


def _check_jwks(config: MetadataConfig) -> None:
    """Check the options of JWTs: none without --jwks, and with it those that have no default."""
    names = ("jwt_issuer", "jwt_audience", "jwt_tenant_claim", "jwt_role_claim")
    for name in names:
        value, shown = getattr(config, name), "--" + name.replace("_", "-")
        if config.jwks and not value:
            raise InvalidArgument(
                f"--jwks is given, and {shown} is empty: whose JWTs, and for whom?"
            )
        default = next(field.default for field in fields(config) if field.name == name)
        if not config.jwks and value != default:
            raise InvalidArgument(f"{shown} is given, and --jwks is not")
    if not is_url(config.jwks):
        return
    try:
        url = urlsplit(config.jwks)
        host, has_user = url.hostname or "", "@" in url.netloc
        _ = url.port  # raises for what is none
    except ValueError:
        host, has_user = "", False
    if not host or not config.jwks.isascii() or not config.jwks.isprintable() or " " in config.jwks:
        raise InvalidArgument("--jwks is no URL: write https://HOST/PATH, or the path of a file")
    if has_user:
        raise InvalidArgument("--jwks: a user's name or password does not belong to the URL")
    # Whoever stands between could give keys of his own.
    if url.scheme != "https" and not (url.scheme == "http" and is_loopback_url(config.jwks)):
        raise InvalidArgument("--jwks is to be https; http is for this machine alone")


def _check_tokens(config: MetadataConfig) -> None:
    """Refuse tokens that everybody between could read."""
    if config.needs_tokens and not config.tls_cert:
        raise InvalidArgument(
            "--tokens and --jwks need TLS: without it whoever is between reads tokens, and nobody "
            "knows who is a daemon. `cosco tls init DIR` makes certificates for --tls-cert, "
            "--tls-key and --tls-ca"
        )


def is_url(jwks: str) -> bool:
    """Whether `--jwks` names a URL, and no file."""
    return "://" in jwks


def is_loopback_url(url: str) -> bool:
    """Whether a URL is of this machine; it must have a host."""
    host = urlsplit(url).hostname or ""
    return is_loopback(f"[{host}]:0" if ":" in host else f"{host}:0")


def _check_reach(config: MetadataConfig | DaemonConfig, role: str) -> None:
    """Refuse to let in everybody, unless that is said to be meant."""
    if config.insecure or is_loopback(config.listen) or not (lacks := _lacks(config)):
        return
    safe = (
        "`cosco tls init DIR --host HOST` makes certificates, and --tls-ca DIR/ca.pem --tls-cert "
        f"DIR/{role}.pem --tls-key DIR/{role}-key.pem has them used"
    )
    if isinstance(config, MetadataConfig):
        safe += (
            "; `cosco token create --tokens FILE --tenant NAME --role tenant --out TOKEN` makes a "
            "token, and --tokens FILE has the service ask for one"
        )
    raise InvalidArgument(
        f"--listen {config.listen} would let in everybody who reaches it, as there {lacks}: "
        f"{safe}; or give --insecure in a network that you trust"
    )


def _lacks(config: MetadataConfig | DaemonConfig) -> str:
    """Return what is missing where a stranger can do everything, or who has a certificate; empty
    if nothing is."""
    if not config.tls_cert:
        return "is no TLS"
    if isinstance(config, MetadataConfig) and not config.needs_tokens:
        return "are no tokens"
    return ""


def insecure_warning(config: MetadataConfig | DaemonConfig) -> str:
    """Return who is let in by options that say so, to be told at every start; empty if nobody."""
    listens, found, lacks = config.listen, [], _lacks(config)
    if not is_loopback(listens) and lacks:
        has_certificate = bool(config.tls_cert) and not config.lets_in_strangers
        found.append(
            f"--insecure, and there {lacks}: whoever "
            f"{'has a certificate and ' * has_certificate}reaches {listens} may read, change and "
            "end everything"
        )
    if isinstance(config, MetadataConfig):
        http = config.http_listen
        if http and not is_loopback(http) and lacks:
            found.append(
                f"--insecure, and there {lacks}: whoever reaches {http} over HTTP may see, change "
                "and end everything"
            )
    elif (metrics := config.metrics_listen) and not is_loopback(metrics):
        found.append(f"--insecure: metrics at {metrics} are for everybody")
    return "; ".join(found)


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
class ReachOptions:
    """Options of both services: who reaches them."""

    tls_cert: str = option(
        "file with the certificate of this service, as PEM; none: without TLS", ""
    )
    tls_key: str = option("file with the key of that certificate", "")
    tls_ca: str = option("file with the authority that certificates of others must be of", "")
    tls_client_auth: str = option(_TLS_CLIENT_AUTH_HELP, "require")
    daemon_san: str = option(
        "name in the certificate of each daemon, and of nobody else", DAEMON_NAME
    )
    metadata_san: str = option(
        "name in the certificate of the metadata service, and of nobody else", METADATA_NAME
    )
    insecure: bool = option(
        "let in everybody who reaches --listen without TLS or tokens, and what is served over "
        "HTTP, beyond this machine too",
        False,
    )
    connections: int = option(_CONNECTIONS_HELP, CONNECTIONS_MAX)
    peer_connections: int = option(_PEER_CONNECTIONS_HELP, PEER_CONNECTIONS_MAX)
    new_connections: int = option(_NEW_CONNECTIONS_HELP, NEW_CONNECTIONS_MAX)
    peer_calls: int = option(
        "calls under way of one peer, which is a host; more are told to try again", PEER_CALLS_MAX
    )

    @property
    def lets_in_strangers(self) -> bool:
        """Whether who connects needs no certificate, though there is TLS."""
        return self.tls_client_auth == "optional"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataConfig(ReachOptions):
    """Options of `cosco-metadata`."""

    env_prefix: ClassVar[str] = "COSCO_METADATA_"

    listen: str = option("host:port to serve on; port 0 picks a free one", DEFAULT_METADATA)
    http: str = option(_HTTP_HELP, AUTO)
    http_host: str = option(
        "a name by which browsers and scrapers reach --http, as it is in their URLs, beside its "
        "address and localhost: requests for any other are refused. Give it once for each; in the "
        "environment with blanks or commas between",
        "",
        several=True,
    )
    store: str = option("where the state is kept, as sqlite:///PATH", "sqlite:///cosco-metadata.db")
    daemon_lease_s: float = option("seconds of silence after which a daemon is dead", 10.0)
    daemons: int = option(
        "daemons that may live at a time; one more is told to register later", DAEMONS_MAX
    )
    ranges_per_daemon: int = option("partition ranges of an exchange, per daemon", 2)
    adoption_grace_s: float = option(
        "seconds in which a dead daemon may be started again before its rows count as lost", 10.0
    )
    old_build_grace_s: float = option(
        "seconds for which rows that were lost in part, and are all written anew, are kept for who "
        "reads them still",
        900.0,
    )
    unfinished_bytes: int = option(_UNFINISHED_HELP, 64 << 20, size=True)
    waiting_bytes: int = option(
        "what calls that wait may hold in memory; more are told to try again", 256 << 20, size=True
    )
    tokens: str = option(
        "file of tokens, as cosco token create makes it; with this or --jwks whoever calls needs "
        "a token; neither: nobody does",
        "",
    )
    jwks: str = option(
        "keys of who issues JWTs, which are taken as tokens, by the extra cosco[jwt]: an https URL "
        "(http of this machine alone) or a file, a JSON Web Key Set",
        "",
    )
    tenant_exchanges: int = option(
        "open exchanges that a tenant may have, those of groups too; 0: any number", 0
    )
    history_s: float = option(
        "seconds for which exchanges that have ended can be looked at, those of groups left out; "
        "0: not at all",
        604_800.0,
    )
    history_max: int = option("exchanges that have ended and are kept, at most", 10_000)
    tenant_calls: int = option(
        "calls that a tenant may have under way, those that wait included; more are told to try "
        "again; 0: any number",
        TENANT_CALLS_MAX,
    )
    tenant_stored_bytes: int = option(
        "bytes that a tenant may have in stores, rows of lost attempts included: beyond "
        "them nothing more of its rows is taken, until it closes exchanges; 0: any number",
        0,
        size=True,
    )
    key_rotation_s: float = option(
        "seconds after which a new key makes capabilities, at least two leases of daemons; those "
        "before stay good for as long as exchanges are open that were made by then",
        86_400.0,
    )
    jwt_issuer: str = option("of --jwks: what the claim iss of JWTs has to be", "")
    jwt_audience: str = option("of --jwks: what the claim aud of JWTs has to be or to have", "")
    jwt_tenant_claim: str = option("of --jwks: the claim of a JWT that names the tenant", "tenant")
    jwt_role_claim: str = option(
        "of --jwks: the claim of a JWT that is the role: admin, tenant or viewer", "role"
    )

    def validate(self) -> None:
        """Raise InvalidArgument for an option that makes no sense."""
        parse_address(self.listen)
        _check_tls(self)
        _check_peers(self)
        _check_http(self)
        _check_reach(self, "metadata")
        if not self.store.startswith("sqlite:///") or self.store == "sqlite:///":
            raise InvalidArgument(f"--store is {self.store!r}, it must be sqlite:///PATH")
        _at_least(self, "daemon_lease_s", 1.0)
        _at_least(self, "daemons", 1)
        _at_least(self, "ranges_per_daemon", 1)
        _at_least(self, "adoption_grace_s", 0)
        _at_least(self, "old_build_grace_s", 0)
        _at_least(self, "unfinished_bytes", _UNFINISHED_MIN_BYTES)
        _at_least(self, "waiting_bytes", _WAITING_MIN_BYTES)
        _at_least(self, "tenant_exchanges", 0)
        _at_least(self, "tenant_stored_bytes", 0)
        _at_least(self, "tenant_calls", 0)
        _at_least(self, "history_s", 0)
        _at_least(self, "history_max", 0)
        _at_least(self, "key_rotation_s", _KEY_ROTATION_MIN_S)
        _check_jwks(self)
        _check_tokens(self)

    @property
    def needs_tokens(self) -> bool:
        """Whether whoever calls needs a token, or a capability in its place."""
        return bool(self.tokens or self.jwks)

    @property
    def http_listen(self) -> str:
        """Where HTTP is to be served; empty: nowhere."""
        return _beside(self.http, self.listen, insecure=self.insecure)

    @property
    def http_hosts(self) -> tuple[str, ...]:
        """The names by which HTTP is reached, beside its address."""
        return tuple(filter(None, re.split(r"[\s,]+", self.http_host)))


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonConfig(ReachOptions):
    """Options of `cosco-shuffled`."""

    env_prefix: ClassVar[str] = "COSCO_SHUFFLED_"

    listen: str = option("host:port to serve on; port 0 picks a free one", "127.0.0.1:0")
    advertise: str = option("host:port as others reach it; empty: the one it listens on", "")
    metrics: str = option(_METRICS_HELP, AUTO)
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
    tenant_memory_share: float = option(
        "how much of --memory the rows of one tenant may have before they are stored, and of "
        "--inflight-bytes what his writers may have granted: more than 0, and 1 for no bound. Who "
        "has it waits, others do not wait for him; where there are no tenants it bounds nobody",
        1.0,
    )
    tenant_streams: int = option(
        "streams of writers that one tenant may have open, and as many of readers that follow "
        "marks; one more is told to try again, or to ask elsewhere; 0: any number",
        TENANT_STREAMS_MAX,
    )
    unfinished_bytes: int = option(_UNFINISHED_HELP, 16 << 20, size=True)
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
    register_timeout_s: float = option("seconds to wait for the metadata service at start", 10.0)
    heartbeat_s: float = option("seconds between two heartbeats", 1.0)
    idle_stream_s: float = option(
        "seconds after which a stream of writers or readers is ended on which nothing was said and "
        "nothing is waited for; who needs it opens another one. With the native part alone",
        IDLE_STREAM_S,
    )
    sweep_s: float = option("seconds between two searches of the store for closed exchanges", 15.0)
    tracing: bool = option(
        "send spans of flushes to a collector of OpenTelemetry, which the variables OTEL_* name; "
        "needs the extra cosco[tracing]: see docs/tracing.md",
        False,
    )

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
        _check_tls(self)
        _check_peers(self)
        _check_metrics(self.metrics, self.listen, self.processes, insecure=self.insecure)
        _check_reach(self, "daemon")
        if self.segment_bytes:
            _at_least(self, "segment_bytes", _SEGMENT_MIN_BYTES)
        _at_least(self, "inflight_bytes", 4 << 20)
        self._check_tenants()
        _at_least(self, "unfinished_bytes", _UNFINISHED_MIN_BYTES)
        _at_least(self, "flush_threads", 1)
        self._check_stores()
        _at_least(self, "full_store_wait_s", 0)
        _at_least(self, "store_timeout_s", 0.1)
        _at_least(self, "store_idle_s", 0)
        _at_least(self, "register_timeout_s", 0)
        _at_least(self, "heartbeat_s", 0.05)
        _at_least(self, "sweep_s", 0.05)
        _at_least(self, "idle_stream_s", 1)
        _at_least(self, "tier_age_s", 0)
        memory = self.memory // self.processes
        if self.segment_bytes > memory // 4:
            raise InvalidArgument(
                f"--segment-bytes {self.segment_bytes} is more than a quarter of --memory {memory}"
                + (" of a process" if self.processes > 1 else "")
            )

    def _check_tenants(self) -> None:
        """Raise InvalidArgument for bounds of a tenant that make no sense."""
        _at_least(self, "tenant_streams", 0)
        if not 0 < self.tenant_memory_share <= 1:
            raise InvalidArgument(
                f"--tenant-memory-share is {self.tenant_memory_share}, it must be more than 0, and "
                "1 at most, which is no bound"
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
        return _beside(self.metrics, self.listen, insecure=self.insecure)

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
