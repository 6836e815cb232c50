"""Whether a request over HTTP is one that a program or our own page has meant: no other page's.

A page of the web has any browser send requests to any address, also to the loopback of its machine.
It can let a name of its own lead there, so that the browser takes the answers for its own: so the
`Host` that a request names must be one of ours. It can have requests sent that change something: so
these must come from our own pages, or from no page, and have a body of a type that no form sends.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from cosco.config import is_loopback, is_wildcard, parse_address
from cosco.protocol.api_limits import printable

#: Gives a header by its name in small letters, as it came; None: there is none.
Header = Callable[[str], str | None]

#: What is below this is the interface; it is asked for more than metrics and health.
API: Final = "/api/"
JSON_TYPE: Final = "application/json"
#: Methods that change nothing.
READS: Final = frozenset({"GET", "HEAD"})
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
#: What a browser says of a request that its user has begun, or a page of ours.
_OWN_SITES: Final = frozenset({"same-origin", "none"})
_SHOWN_CHARACTERS: Final = 100


class Refused(Exception):
    """A request that is answered with `status` and goes no further."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class HostNames:
    """By which names HTTP may be reached that listens at `address`, host:port.

    more: further hosts, without ports.
    """

    address: str
    more: Iterable[str] = ()
    _known: frozenset[str] = field(init=False, default=frozenset())

    def __post_init__(self) -> None:
        host, _ = parse_address(self.address)
        known = {_plain(one) for one in (host, *self.more)}
        object.__setattr__(self, "_known", frozenset(known | {"localhost"}))

    def check(self, host: str | None) -> None:
        """Raise Refused unless a header `Host` names one of them. The port may be any, as a tunnel
        has one of its own."""
        name = _host_of(host or "")
        if name in self._known or (name and self._is_ours(name)):
            return
        raise Refused(
            HTTPStatus.MISDIRECTED_REQUEST,
            f"{_shown(host)} is no name of this service: start it with --http-host, if people are "
            "to reach it by that",
        )

    def _is_ours(self, name: str) -> bool:
        """Whether it is a number of the loopback, or any if it listens on all: a page that lets a
        name of its own lead here has no number in `Host`."""
        try:
            ip = ipaddress.ip_address(name)
        except ValueError:
            return False
        shown = f"[{name}]:0" if ip.version == 6 else f"{name}:0"
        return is_loopback(shown) or is_wildcard(self.address)


def check_origin(method: str, path: str, header: Header) -> None:
    """Raise Refused for a request to the interface that a page of somebody else has sent."""
    if not path.startswith(API):
        return
    origin, host = header("origin"), header("host") or ""
    if origin is not None and not _is_same(origin, host) and method not in READS:
        raise Refused(HTTPStatus.FORBIDDEN, f"a page of {_shown(origin)} may change nothing here")
    site = header("sec-fetch-site")
    navigates = method in READS and header("sec-fetch-mode") == "navigate"
    if site is not None and site not in _OWN_SITES and not navigates:
        raise Refused(HTTPStatus.FORBIDDEN, "a page of another site may ask for nothing here")


def check_type(method: str, path: str, header: Header) -> None:
    """Raise Refused for a body of a type that forms can send; what is no JSON is none of ours."""
    if method in READS or not path.startswith(API):
        return
    given = (header("content-type") or "").partition(";")[0].strip().lower()
    if given != JSON_TYPE and not (method == "DELETE" and not given):
        raise Refused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"the body is {_shown(given) if given else 'of no type'}: send it with Content-Type: "
            f"{JSON_TYPE}, also if it is empty",
        )


def routed_path(raw_path: bytes) -> str:
    """Return the path to route by, in which a slash of an id stays %2F, and so a percent sign %25.

    Raises Refused if it is no UTF-8.
    """
    try:
        segments = [unquote_to_bytes(one).decode() for one in raw_path.split(b"/")]
    except UnicodeDecodeError:
        raise Refused(HTTPStatus.BAD_REQUEST, "the path is no UTF-8") from None
    return "/".join(one.replace("%", "%25").replace("/", "%2F") for one in segments)


def segment_of(text: str) -> str:
    """Return an id as one segment of a path."""
    return quote(text, safe="")


def _is_same(origin: str, host: str) -> bool:
    scheme, mark, authority = origin.partition("://")
    port = _DEFAULT_PORTS.get(scheme.lower())
    if not mark or port is None:
        return False
    ours, theirs = (_with_port(one, port) for one in (host, authority))
    return bool(host) and ours == theirs


def _with_port(authority: str, port: str) -> str:
    name = authority.lower()
    has_port = ":" in name.rpartition("]")[2]
    return name if has_port else f"{name}:{port}"


def _host_of(authority: str) -> str:
    """Return the host of host:port, without brackets and in small letters; empty if it is none."""
    host, colon, port = authority.rpartition(":")
    if not colon or host.count("[") != host.count("]"):
        host, port = authority, ""
    if port and not (port.isascii() and port.isdigit()):
        return ""
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        return ""
    return _plain(host)


def _plain(host: str) -> str:
    return host.strip("[]").lower().removesuffix(".")


def _shown(text: str | None) -> str:
    return repr(printable((text or "")[:_SHOWN_CHARACTERS]))
