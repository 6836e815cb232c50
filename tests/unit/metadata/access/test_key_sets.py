"""JSON Web Key Sets: which keys in them are used."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.web_tokens import SigningKey, key_set

from cosco.errors import InvalidArgument
from cosco.metadata.access.key_sets import parse_key_set

KEY = SigningKey()
RSA_KEY = SigningKey("RS256", "k2")


def test_keys_are_found_by_id_and_algorithm() -> None:
    keys = parse_key_set(key_set(KEY, RSA_KEY, SigningKey("EdDSA", "k3")))
    assert len(keys) == 3
    for key_id, algorithm in (("k1", "ES256"), ("k2", "PS384"), ("k3", "EdDSA")):
        found = keys.find(key_id, algorithm)
        assert found is not None
        assert found.id == key_id
    for key_id, algorithm in (("k1", "RS256"), ("k4", "ES256"), ("", "ES256"), ("k2", "none")):
        assert keys.find(key_id, algorithm) is None
    assert KEY.public["x"] not in repr(keys.find("k1", "ES256"))


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "k1", "alg": "HS256"},
        SigningKey("RS256", "small", bits=1024).public,
        {**KEY.private, "kid": "k1"},
        {**KEY.public, "use": "enc"},
        {**KEY.public, "key_ops": ["sign"]},
        {**KEY.public, "key_ops": "verify"},
        {**KEY.public, "alg": "RS256"},
        {**KEY.public, "alg": "HS256"},
        {**KEY.public, "alg": "none"},
        {**KEY.public, "alg": 1},
        {**KEY.public, "alg": ["ES256"]},
        {**KEY.public, "crv": "secp256k1"},
        {**KEY.public, "crv": ["P-256"]},
        {**KEY.public, "x": KEY.public["y"]},
        {**KEY.public, "x": 1},
        {**KEY.public, "kty": None},
        {**KEY.public, "kid": 1},
        {**RSA_KEY.public, "n": "A"},
        {**RSA_KEY.public, "e": ""},
        {"kty": "EC", "crv": "P-256"},
        {},
        [],
        "key",
        None,
    ],
)
def test_keys_that_cannot_be_used_are_left_out(entry: Any) -> None:
    with pytest.raises(InvalidArgument, match="has no public key by which JWTs are signed"):
        parse_key_set(key_set(entry))
    assert len(parse_key_set(key_set(entry, RSA_KEY))) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"no",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": 1}',
        b"[" * 100_000,
        key_set(*[{}] * 257),
    ],
)
def test_what_is_no_set(content: bytes) -> None:
    with pytest.raises(InvalidArgument, match="is no JSON Web Key Set of up to 256 keys"):
        parse_key_set(content)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@given(st.sampled_from([KEY, RSA_KEY]), st.data())
def test_whatever_is_in_a_key_it_is_used_or_left_out(key: SigningKey, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([*key.public, "use", "alg", "key_ops", "crv"]))
    entry = {**key.public, name: data.draw(_JSON)}
    with suppress(InvalidArgument):
        assert len(parse_key_set(key_set(entry))) == 1
