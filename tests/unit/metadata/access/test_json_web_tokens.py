"""JWTs: which are taken, which are refused, and what is remembered."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.web_tokens import AUDIENCE, ISSUER, SigningKey, key_set

from cosco.errors import AccessDenied, ServiceUnavailable
from cosco.metadata.access import json_web_tokens
from cosco.metadata.access.json_web_tokens import MAX_CHARACTERS, REFUSED_S, Claims, JsonWebTokens
from cosco.metadata.access.key_sets import NO_KEYS, KeySet, parse_key_set
from cosco.protocol.peer import Principal, Role

CLAIMS = Claims(ISSUER, AUDIENCE, "tenant", "role")
ADA = Principal("ada", "analytics", Role.TENANT)
KEY = SigningKey()
RSA_KEY = SigningKey("RS256", "k2")


class Source:
    """Keys that a test changes."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = parse_key_set(key_set(*keys)) if keys else NO_KEYS
        self.next: KeySet | None = None
        self.refreshed = 0

    async def refresh(self) -> None:
        self.refreshed += 1
        self.keys = self.next or self.keys

    async def watch(self) -> None:
        """Nothing changes by itself."""


def taking(*keys: SigningKey, claims: Claims = CLAIMS) -> JsonWebTokens:
    return JsonWebTokens(Source(*(keys or (KEY,))), claims)


def ask(tokens: JsonWebTokens, token: str) -> Principal:
    return asyncio.run(tokens.principal(token))


def refusal(token: str, tokens: JsonWebTokens | None = None) -> str:
    """What is said of a JWT that is refused, in which nothing of it is."""
    tokens = tokens or taking()
    with pytest.raises(AccessDenied) as caught:
        ask(tokens, token)
    assert tokens.known(token) is None
    said = str(caught.value)
    assert not any(part in said for part in token.split(".") if len(part) > 3)
    error: BaseException | None = caught.value
    assert error is not None
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    return said


def encoded(part: dict[str, Any] | bytes) -> str:
    content = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "algorithm",
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"],
)
def test_all_that_sign_by_a_key_that_is_nowhere_else_are_taken(algorithm: str) -> None:
    key, other = SigningKey(algorithm), SigningKey(algorithm)
    tokens = taking(key)
    assert ask(tokens, key.sign()) == ADA
    assert "its signature is wrong" in refusal(other.sign(), tokens)
    named = parse_key_set(key_set({**key.public, "alg": algorithm}))
    source = Source()
    source.keys = named
    assert ask(JsonWebTokens(source, CLAIMS), key.sign()) == ADA


def test_a_jwt_is_remembered_until_it_expires() -> None:
    now_s = time.time()
    tokens = JsonWebTokens(Source(KEY), CLAIMS, lambda: now_s)
    until_s = int(now_s) + 600
    token = KEY.sign(exp=until_s)
    assert tokens.known(token) is None
    assert ask(tokens, token) == ADA
    assert tokens.known(token) == ADA
    assert tokens.known(token + "A") is None
    now_s = until_s - 0.01
    assert tokens.known(token) == ADA
    now_s = float(until_s)
    assert tokens.known(token) is None
    assert not tokens._known, "what has expired is not kept"
    assert token not in repr(vars(tokens))


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_web_tokens, "_MAX_KNOWN", 3)
    tokens = taking()
    made = [KEY.sign(jti=str(number)) for number in range(5)]
    for token in made:
        ask(tokens, token)
    assert [tokens.known(token) is not None for token in made] == [False] * 2 + [True] * 3


def test_a_key_that_is_taken_back_is_forgotten_with_all_it_signed() -> None:
    source = Source(KEY, RSA_KEY)
    tokens = JsonWebTokens(source, CLAIMS)
    token = KEY.sign()
    ask(tokens, token)
    source.keys = parse_key_set(key_set(RSA_KEY))
    assert tokens.known(token) is None
    assert "no key of --jwks" in refusal(token, tokens)
    assert ask(tokens, RSA_KEY.sign()) == ADA


def test_an_unknown_key_is_asked_for() -> None:
    source = Source(KEY)
    source.next = parse_key_set(key_set(KEY, RSA_KEY))
    tokens = JsonWebTokens(source, CLAIMS)
    assert ask(tokens, KEY.sign()) == ADA
    assert source.refreshed == 0
    assert ask(tokens, RSA_KEY.sign()) == ADA
    assert source.refreshed == 1


def test_without_any_key_nobody_is_told_that_his_token_is_wrong() -> None:
    with pytest.raises(ServiceUnavailable, match="cannot be fetched"):
        ask(JsonWebTokens(Source(), CLAIMS), KEY.sign())


def test_a_jwt_that_names_no_key_needs_one_that_can_be_meant_alone() -> None:
    key = SigningKey(key_id=None)
    assert ask(taking(key), key.sign()) == ADA
    named = SigningKey("RS256", "k2")
    assert ask(taking(key, named), key.sign()) == ADA, "the other is for another algorithm"
    assert "no key of --jwks" in refusal(key.sign(), taking(key, KEY))


NOW_S = int(time.time())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"exp": NOW_S - 60}, "it has expired: get a new one"),
        ({"exp": None}, "one of its claims exp, iss, aud, sub is missing"),
        ({"iss": None}, "is missing"),
        ({"aud": None}, "is missing"),
        ({"sub": None}, "is missing"),
        ({"exp": "soon"}, "it is malformed"),
        ({"exp": float("inf")}, "it is malformed"),
        ({"exp": [1]}, "it is malformed"),
        ({"exp": 10**400}, "it is malformed"),
        ({"nbf": NOW_S + 3600}, "it is not good yet"),
        ({"iat": NOW_S + 3600}, "it is not good yet"),
        ({"aud": "others"}, "it is for others"),
        ({"aud": ["others", "cosc"]}, "it is for others"),
        ({"aud": [1]}, "it is for others"),
        ({"aud": {"cosco": 1}}, "it is for others"),
        ({"iss": ISSUER + "/"}, "it is of another issuer"),
        ({"sub": "a" * 257}, "its claim sub is no text"),
        ({"sub": "a\nb"}, "its claim sub is no text"),
        ({"sub": "\x1b[2J"}, "its claim sub is no text"),
        ({"tenant": None}, "its claim tenant (--jwt-tenant-claim) is to be the tenant"),
        ({"tenant": ""}, "its claim tenant"),
        ({"tenant": "a/b"}, "its claim tenant"),
        ({"tenant": "a\n"}, "its claim tenant"),
        ({"tenant": "a" * 65}, "its claim tenant"),
        ({"tenant": ["analytics"]}, "its claim tenant"),
        ({"role": None}, "its claim role (--jwt-role-claim) is to be one of admin, tenant, viewer"),
        ({"role": "root"}, "its claim role"),
        ({"role": "ADMIN"}, "its claim role"),
        ({"role": ["admin"]}, "its claim role"),
        ({"role": True}, "its claim role"),
    ],
)
def test_claims_that_are_wrong(changes: dict[str, Any], says: str) -> None:
    tokens = taking()
    assert says in refusal(KEY.sign(**changes), tokens)
    assert ask(tokens, KEY.sign()) == ADA


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ["others", AUDIENCE]},
        {"exp": NOW_S + 10**9},
        {"exp": time.time() + 600.5},
        {"iat": NOW_S, "nbf": NOW_S, "jti": "x", "more": {"deep": [1]}},
    ],
)
def test_claims_that_are_right(changes: dict[str, Any]) -> None:
    assert ask(taking(), KEY.sign(**changes)) == ADA


def test_clocks_may_differ_by_some_seconds() -> None:
    tokens = taking()
    late = KEY.sign(exp=int(time.time()) - 2)
    assert ask(tokens, late) == ADA
    assert tokens.known(late) is None, "it is looked at anew each time"
    assert ask(tokens, KEY.sign(nbf=int(time.time()) + 5)) == ADA


def test_which_claims_say_whose_it_is() -> None:
    claims = replace(CLAIMS, tenant_claim="https://x.example/team", role_claim="cosco_role")
    made = {"https://x.example/team": "b", "cosco_role": "admin", "sub": "system:sa:x"}
    tokens = taking(claims=claims)
    assert ask(tokens, KEY.sign(**made)) == Principal("system:sa:x", "b", Role.ADMIN)
    assert "its claim https://x.example/team" in refusal(KEY.sign(), tokens)


def test_none_is_no_signature_and_a_public_key_is_no_secret() -> None:
    """The two ways in which JWTs have been forged most often."""
    payload = KEY.sign().split(".")[1]
    unsigned = f"{encoded({'alg': 'none', 'kid': 'k1'})}.{payload}."
    assert "or not by that algorithm" in refusal(unsigned)
    import hmac

    from cryptography.hazmat.primitives import serialization

    public = RSA_KEY.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for header in ({"alg": "HS256", "kid": "k2"}, {"alg": "HS256"}):
        signed = f"{encoded(header)}.{payload}"
        forged = f"{signed}.{encoded(hmac.digest(public, signed.encode(), 'sha256'))}"
        assert "or not by that algorithm" in refusal(forged, taking(RSA_KEY))


def test_a_key_is_for_its_own_algorithm() -> None:
    """An RSA key without `alg` may be used by all of RSA; one with it by that alone."""
    source = Source()
    source.keys = parse_key_set(key_set({**RSA_KEY.public, "alg": "PS256"}))
    tokens = JsonWebTokens(source, CLAIMS)
    assert "or not by that algorithm" in refusal(RSA_KEY.sign(), tokens)
    by_pss = SigningKey("PS256", "k2")
    by_pss.key = RSA_KEY.key
    assert ask(tokens, by_pss.sign()) == ADA
    assert ask(taking(RSA_KEY), by_pss.sign()) == ADA


def test_keys_that_a_jwt_brings_itself_are_not_looked_at() -> None:
    stranger = SigningKey("ES256", "k1")
    headers = {"jwk": stranger.public, "jku": "https://evil.example", "x5u": "https://evil.example"}
    assert "its signature is wrong" in refusal(stranger.sign(headers))
    assert ask(taking(), KEY.sign(headers)) == ADA


def test_what_must_be_understood_and_is_not_is_refused() -> None:
    assert "malformed" in refusal(KEY.sign({"crit": ["exp-2"], "exp-2": 1}))


GOOD = KEY.sign()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda _: "x", "no token that is taken here"),
        (lambda _: "a.b", "no token that is taken here"),
        (lambda _: "..", "it is malformed"),
        (lambda t: t + ".x", "no token that is taken here"),
        (lambda t: t + "é", "no token that is taken here"),
        (lambda t: t + "\ud800", "no token that is taken here"),
        (lambda t: t + "A" * MAX_CHARACTERS, "no token that is taken here"),
        (lambda t: t + " ", "it is malformed"),
        (lambda t: t.rpartition(".")[0] + ".", "its signature is wrong"),
        (lambda t: "[]." + t.partition(".")[2], "it is malformed"),
        (lambda t: f"{encoded(b'[]')}.{t.partition('.')[2]}", "it is malformed"),
        (lambda t: f"{encoded(b'[' * 2000)}.{t.partition('.')[2]}", "it is malformed"),
        (lambda t: f"{encoded({'alg': 'ES256', 'kid': 7})}.{t.partition('.')[2]}", "malformed"),
        (lambda t: f"{encoded({'kid': 'k1'})}.{t.partition('.')[2]}", "it is malformed"),
        (lambda t: f"{encoded({'alg': ['ES256']})}.{t.partition('.')[2]}", "it is malformed"),
    ],
)
def test_what_is_no_jwt(change: Callable[[str], str], says: str) -> None:
    assert says in refusal(change(GOOD))


@given(st.integers(0, len(GOOD) - 1), st.sampled_from("AZaz09-_.="))
def test_whatever_is_changed_in_a_jwt_it_is_refused(place: int, letter: str) -> None:
    changed = GOOD[:place] + letter + GOOD[place + 1 :]
    if changed != GOOD:
        with pytest.raises(AccessDenied):
            ask(taking(), changed)


@given(st.text(max_size=40).filter(lambda text: text != ""))
def test_any_text_is_refused(text: str) -> None:
    for token in (text, f"{text}.{text}.{text}", f"{encoded(text.encode(errors='replace'))}..x"):
        with pytest.raises(AccessDenied):
            ask(taking(), token)


def test_pyjwt_says_nothing_of_small_keys_as_none_is_let_in() -> None:
    """A warning of it would be in the log for each call."""
    small = SigningKey("RS256", "small", bits=1024)
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = small.sign()
    source = Source()
    source.keys = parse_key_set(key_set(small, KEY))
    assert "no key of --jwks" in refusal(token, JsonWebTokens(source, CLAIMS))


# --- refusals that are remembered -------------------------------------------------------------


class Counted:
    """JWTs with a clock, and how many were checked, which is what takes time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *keys: SigningKey) -> None:
        self.now_s = time.time()
        self.source = Source(*(keys or (KEY,)))
        self.tokens = JsonWebTokens(self.source, CLAIMS, lambda: self.now_s)
        self.checked = 0
        decode = jwt.decode

        def counting(*given: Any, **named: Any) -> Any:
            self.checked += 1
            return decode(*given, **named)

        monkeypatch.setattr(json_web_tokens.jwt, "decode", counting)

    def refused(self, token: str, times: int = 3) -> int:
        """Show a token that is refused alike each time, and return how often it was checked."""
        before = self.checked
        assert len({refusal(token, self.tokens) for _ in range(times)}) == 1
        return self.checked - before


REFUSED_FOR_GOOD = {
    "expired": {"exp": NOW_S - 100},
    "for others": {"aud": "others"},
    "of another issuer": {"iss": "others"},
    "without a claim": {"sub": None},
    "of nobody": {"sub": "a\nb"},
    "of no tenant": {"tenant": "a/b"},
    "without a role": {"role": "root"},
    "out of bounds": {"exp": 10**400},
}


@pytest.mark.parametrize("what", [*REFUSED_FOR_GOOD, "changed", "signed by another"])
def test_a_refusal_is_remembered_for_a_while(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    token = KEY.sign(**REFUSED_FOR_GOOD.get(what, {}))
    if what == "changed":
        begin, _, signature = token.rpartition(".")
        token = f"{begin}.{'AB'[signature[0] == 'A']}{signature[1:]}"
    elif what == "signed by another":
        token = SigningKey(key_id=KEY.id).sign()
    assert counted.refused(token) == 1
    counted.now_s += REFUSED_S - 0.01
    assert counted.refused(token) == 0
    counted.now_s += 0.02
    assert counted.refused(token) == 1, "from then on anew"
    counted.now_s -= 3600
    assert counted.refused(token) == 1, "the clock was set back, and says how old nothing is"
    assert ask(counted.tokens, KEY.sign(exp=int(counted.now_s) + 7200)) == ADA
    assert token not in repr(vars(counted.tokens))


def test_what_may_be_right_a_moment_later_is_asked_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted = Counted(monkeypatch)
    for early in (KEY.sign(nbf=NOW_S + 3000), KEY.sign(iat=NOW_S + 3000)):
        assert "not good yet" in refusal(early, counted.tokens)
        assert counted.refused(early) == 3
    assert "no key of --jwks" in refusal(RSA_KEY.sign(), counted.tokens)
    assert not counted.tokens._refused
    counted.source.next = parse_key_set(key_set(KEY, RSA_KEY))
    assert ask(counted.tokens, RSA_KEY.sign()) == ADA
    waiting = JsonWebTokens(source := Source(), CLAIMS)
    token = KEY.sign()
    with pytest.raises(ServiceUnavailable):
        ask(waiting, token)
    source.keys = parse_key_set(key_set(KEY))
    assert ask(waiting, token) == ADA


def test_other_keys_may_let_in_who_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that was replaced under its own id, for one."""
    successor = SigningKey(key_id=KEY.id)
    counted = Counted(monkeypatch)
    token = successor.sign()
    assert counted.refused(token) == 1
    counted.source.keys = parse_key_set(key_set(successor))
    assert ask(counted.tokens, token) == ADA
    assert counted.refused(KEY.sign()) == 1


def test_keys_that_come_while_a_token_waits_for_them_decide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was refused by the ones before is forgotten before anything is remembered by them."""
    counted = Counted(monkeypatch)
    successor = SigningKey(key_id=KEY.id)
    refused_before = successor.sign()
    assert counted.refused(refused_before) == 1
    counted.source.next = parse_key_set(key_set(successor, RSA_KEY))
    assert counted.refused(RSA_KEY.sign(aud="others")) == 1
    assert ask(counted.tokens, refused_before) == ADA


def test_refusals_are_bounded_and_push_out_nobody_who_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(json_web_tokens, "_MAX_REFUSED", 3)
    monkeypatch.setattr(json_web_tokens, "_MAX_KNOWN", 1)
    counted = Counted(monkeypatch)
    good = KEY.sign()
    ask(counted.tokens, good)
    bad = [KEY.sign(aud="others", jti=str(number)) for number in range(5)]
    for token in bad:
        counted.refused(token)
    assert [counted.refused(token, 1) for token in reversed(bad)] == [0, 0, 0, 1, 1]
    assert len(counted.tokens._refused) == 3
    assert counted.tokens.known(good) == ADA
