"""Sessions: how many there are, when they end, and what a browser may do with the cookie."""

from __future__ import annotations

from cosco.metadata.http.sessions import SESSION_S, Sessions, session_in, set_cookie


def test_a_session_stands_for_its_token_until_it_is_over() -> None:
    sessions = Sessions()
    one, other = sessions.begin("t1", 0), sessions.begin("t2", 0)
    assert one != other and len(one) >= 43
    assert (sessions.credential(one, 1), sessions.credential(other, 1)) == ("t1", "t2")
    assert sessions.credential("", 1) == sessions.credential("t1", 1) == ""
    assert sessions.credential(one, SESSION_S) == ""
    sessions.end(other)
    assert sessions.credential(other, 1) == ""
    assert len(sessions) == 0


def test_the_oldest_of_a_token_gives_way() -> None:
    sessions = Sessions(10, 2)
    mine = [sessions.begin("t", at) for at in range(3)]
    assert [sessions.credential(one, 3) for one in mine] == ["", "t", "t"]


def test_who_has_most_gives_way_if_there_are_too_many() -> None:
    sessions = Sessions(4, 3)
    few = sessions.begin("few", 0)
    many = [sessions.begin("many", 1) for _ in range(3)]
    sessions.begin("new", 2)
    assert len(sessions) == 4
    assert sessions.credential(few, 3) == "few"
    assert [bool(sessions.credential(one, 3)) for one in many] == [False, True, True]


def test_those_that_are_over_take_no_place() -> None:
    sessions = Sessions(2, 2)
    for _ in range(2):
        sessions.begin("old", 0)
    sessions.begin("new", SESSION_S)
    assert len(sessions) == 1


def test_no_script_and_no_other_page_has_the_cookie() -> None:
    for is_secure in (False, True):
        parts = set_cookie("abc", is_secure=is_secure).split("; ")
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(parts)
        assert ("Secure" in parts) == parts[0].startswith("__Host-") == is_secure
        assert not any(part.startswith("Domain") for part in parts)
        assert session_in(f"a=b; {parts[0]}; c=d", is_secure=is_secure) == "abc"
        assert session_in(parts[0], is_secure=not is_secure) == ""
    assert "Max-Age=0" in set_cookie("", is_secure=False)


def test_what_is_no_cookie_is_none() -> None:
    for cookies in (None, "", "cosco_session", "=;=", "\x00", "cosco_session"):
        assert session_in(cookies, is_secure=False) == ""


def test_no_token_is_in_a_repr() -> None:
    sessions = Sessions()
    sessions.begin("secret", 0)
    assert "secret" not in repr(list(sessions._open.values()))
