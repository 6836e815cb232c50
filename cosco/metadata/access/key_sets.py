"""JSON Web Key Sets: the public keys by which JWTs are checked (RFC 7517)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from cosco.errors import InvalidArgument

#: By which a key of each type can sign. Never `none`, and no HMAC: whoever can check one can
#: make one, and a public key would be its secret.
_ALGORITHMS: Final[dict[tuple[str, str | None], frozenset[str]]] = {
    ("RSA", None): frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
_RSA_MIN_BITS: Final = 2048
_MAX_KEYS: Final = 256


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key. id: empty if the set gives it none. algorithms: by which it may be used."""

    id: str
    algorithms: frozenset[str]
    key: Any = field(repr=False)


class KeySet:
    """The keys that are good at present; never changed."""

    def __init__(self, keys: Iterable[VerifyingKey], source: bytes = b"") -> None:
        """source: what they were read from."""
        self._keys = tuple(keys)
        self.source: Final = source

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, key_id: str | None, algorithm: str) -> VerifyingKey | None:
        """Return the key that a JWT names; a JWT that names none fits a set that has only one."""
        fit = [
            key for key in self._keys if algorithm in key.algorithms and key_id in (None, key.id)
        ]
        if key_id is None and len(fit) > 1:
            return None
        return fit[0] if fit else None


NO_KEYS: Final = KeySet(())


def parse_key_set(content: bytes) -> KeySet:
    """Return the keys of a set with which JWTs can be checked; others in it are left out.

    Raises: InvalidArgument if it is no set, or has no such key.
    """
    try:
        found = json.loads(content)["keys"]
    except (ValueError, TypeError, KeyError, RecursionError):
        found = None
    if not isinstance(found, list) or len(found) > _MAX_KEYS:
        raise InvalidArgument(f"it is no JSON Web Key Set of up to {_MAX_KEYS} keys")
    keys = [key for one in found if (key := _verifying_key(one)) is not None]
    if not keys:
        raise InvalidArgument(
            "it has no public key by which JWTs are signed: RSA of 2048 bits or more, EC on P-256, "
            "P-384 or P-521, or Ed25519"
        )
    return KeySet(keys, content)


def _verifying_key(fields: Any) -> VerifyingKey | None:
    """Return a key of a set; None: it is none that this can use."""
    if not isinstance(fields, dict) or not (algorithms := _algorithms_of(fields)):
        return None
    try:
        key = jwt.PyJWK(fields, min(algorithms)).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, ArithmeticError):
        return None
    if isinstance(key, RSAPublicKey) and key.key_size < _RSA_MIN_BITS:
        return None
    return VerifyingKey(fields.get("kid", ""), algorithms, key)


def _algorithms_of(fields: dict[str, Any]) -> frozenset[str]:
    """Return by which algorithms a key may be used to check a JWT."""
    operations, kind = fields.get("key_ops", ["verify"]), fields.get("kty")
    is_usable = (
        "d" not in fields  # a private key has no place in what is given to others
        and fields.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        and isinstance(fields.get("kid", ""), str)
        and isinstance(fields.get("alg"), str | None)
    )
    curve = None if kind == "RSA" else fields.get("crv")
    if not is_usable or not isinstance(kind, str) or not isinstance(curve, str | None):
        return frozenset()
    algorithms = _ALGORITHMS.get((kind, curve), frozenset())
    return algorithms & {fields["alg"]} if fields.get("alg") is not None else algorithms
