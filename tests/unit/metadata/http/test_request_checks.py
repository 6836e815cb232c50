"""Which requests are refused as a page of somebody else may have sent them."""

from __future__ import annotations

import pytest

from cosco.metadata.http.request_checks import (
    HostNames,
    Refused,
    check_origin,
    check_type,
    routed_path,
    segment_of,
)


def is_ours(names: HostNames, host: str | None) -> bool:
    try:
        names.check(host)
    except Refused as refused:
        assert refused.status == 421
        return False
    return True


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("127.0.0.1:8070", True),
        ("127.0.0.1", True),
        ("127.9.9.9:1", True),
        ("localhost:9000", True),
        ("LOCALHOST.:8070", True),
        ("[::1]:8070", True),
        ("[::1]", True),
        ("cosco.example:8070", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:8070", False),
        ("10.0.0.1:8070", False),
        ("0.0.0.0:8070", False),
        ("evil.example@127.0.0.1", False),
        ("127.0.0.1:8070:1", False),
        ("127.0.0.1:evil.example", False),
        ("::1", False),
        ("[::1", False),
        ("", False),
        (None, False),
        (":8070", False),
        ("2130706433", False),
    ],
)
def test_hosts_of_the_loopback(host: str | None, found: bool) -> None:
    assert is_ours(HostNames("127.0.0.1:8070", ["Cosco.Example"]), host) == found


def test_hosts_of_one_address_and_of_all() -> None:
    one = HostNames("10.1.2.3:8070", ["node", "[fe80::1]"])
    for host in ("10.1.2.3:8070", "node", "[fe80::1]:1", "127.0.0.1"):
        assert is_ours(one, host), host
    assert not is_ours(one, "10.1.2.4:8070")
    everywhere = HostNames("0.0.0.0:8070")
    assert is_ours(everywhere, "10.1.2.4:8070"), "a number: no name leads there"
    assert not is_ours(everywhere, "node:8070")


def origin_fault(
    method: str, origin: str | None, host: str = "127.0.0.1:8070", **fetch: str
) -> int | None:
    headers = {"host": host, **{f"sec-fetch-{k}": v for k, v in fetch.items()}}
    if origin is not None:
        headers["origin"] = origin
    try:
        check_origin(method, "/api/v1/x", headers.get)
    except Refused as refused:
        return int(refused.status)
    return None


@pytest.mark.parametrize(
    ("origin", "host", "found"),
    [
        (None, "127.0.0.1:8070", None),
        ("http://127.0.0.1:8070", "127.0.0.1:8070", None),
        ("http://LOCALHOST:8070", "localhost:8070", None),
        ("https://cosco.example", "cosco.example", None),
        ("https://cosco.example", "cosco.example:443", None),
        ("http://cosco.example", "cosco.example:80", None),
        ("http://[::1]:8070", "[::1]:8070", None),
        ("http://127.0.0.1:3000", "127.0.0.1:8070", 403),
        ("http://localhost:8070", "127.0.0.1:8070", 403),
        ("https://cosco.example", "cosco.example:80", 403),
        ("https://evil.example", "127.0.0.1:8070", 403),
        ("null", "127.0.0.1:8070", 403),
        ("", "127.0.0.1:8070", 403),
        ("file://", "127.0.0.1:8070", 403),
        ("http://", "", 403),
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
def test_who_may_change_something(
    method: str, origin: str | None, host: str, found: int | None
) -> None:
    assert origin_fault(method, origin, host) == found


def test_what_a_browser_says_of_its_pages() -> None:
    for site, mode, found in (
        ("same-origin", "cors", None),
        ("none", "navigate", None),
        ("cross-site", "navigate", None),
        ("cross-site", "no-cors", 403),
        ("same-site", "cors", 403),
    ):
        assert origin_fault("GET", None, site=site, mode=mode) == found, (site, mode)
    assert origin_fault("POST", None, site="cross-site", mode="navigate") == 403


@pytest.mark.parametrize(
    ("method", "given", "found"),
    [
        ("POST", "application/json", True),
        ("POST", "Application/JSON; charset=utf-8", True),
        ("POST", "text/plain", False),
        ("POST", "application/x-www-form-urlencoded", False),
        ("POST", "multipart/form-data; boundary=application/json", False),
        ("POST", "application/jsonp", False),
        ("POST", None, False),
        ("DELETE", None, True),
        ("DELETE", "text/plain", False),
        ("GET", "text/plain", True),
    ],
)
def test_bodies_are_json(method: str, given: str | None, found: bool) -> None:
    headers = {} if given is None else {"content-type": given}
    try:
        check_type(method, "/api/v1/x", headers.get)
    except Refused as refused:
        assert not found and refused.status == 415
    else:
        assert found
    check_type("POST", "/metrics", {}.get)  # which is told that there is no such method


@pytest.mark.parametrize("text", ["a", "a/b", "a%2Fb", "%", "ä/ö", "..", " ?#", "a\nb", "%25"])
def test_each_id_is_one_segment_of_a_path(text: str) -> None:
    from urllib.parse import unquote

    path = routed_path(f"/x/{segment_of(text)}/y".encode())
    before, segment, after = path.lstrip("/").split("/")
    assert (before, unquote(segment), after) == ("x", text, "y")


def test_a_path_is_utf_8() -> None:
    with pytest.raises(Refused, match="UTF-8"):
        routed_path(b"/x/%ff")
