"""JSON Web Tokens (RFC 7519) of an identity provider, as tokens."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt

from cosco.errors import AccessDenied, ServiceUnavailable
from cosco.metadata.access.key_sets import NO_KEYS, VerifyingKey
from cosco.metadata.access.key_sources import KeySource
from cosco.metadata.access.token_records import NAME, NAME_RULE
from cosco.protocol.peer import Principal, Role

#: Clocks of a cluster and of who issues tokens differ by less.
LEEWAY_S: Final = 10
#: Longer ones are not looked at.
MAX_CHARACTERS: Final = 8192
_MAX_KNOWN: Final = 4096
#: A refusal is remembered for this time. Refusals have a bound of their own, so that whoever is
#: refused pushes out nobody who is known.
REFUSED_S: Final = 30.0
_MAX_REFUSED: Final = 4096
_NAME_CHARACTERS: Final = 256
_NEEDED: Final = ("exp", "iss", "aud", "sub")
#: What alone passes by itself while the keys are the same.
_TOO_EARLY: Final = jwt.ImmatureSignatureError
#: What is said of each error of PyJWT, the first that fits. Its own texts may have parts of the
#: token, so they are not passed on.
_WRONG: Final[tuple[tuple[type[Exception], str], ...]] = (
    (jwt.ExpiredSignatureError, "it has expired: get a new one"),
    (_TOO_EARLY, "it is not good yet: are the clocks right?"),
    (jwt.InvalidAudienceError, "it is for others: its claim aud is not --jwt-audience"),
    (jwt.InvalidIssuerError, "it is of another issuer: its claim iss is not --jwt-issuer"),
    (jwt.MissingRequiredClaimError, f"one of its claims {', '.join(_NEEDED)} is missing"),
    (jwt.InvalidSignatureError, "its signature is wrong"),
    (jwt.PyJWTError, "it is malformed"),
)
#: What PyJWT raises for what is none of its errors: numbers out of all bounds, deep nesting.
_OTHERS: Final = (ValueError, TypeError, ArithmeticError, RecursionError, AttributeError)


@dataclass(frozen=True, slots=True)
class Claims:
    """What the claims of a JWT have to be, and which of them say whose it is."""

    issuer: str
    audience: str
    tenant_claim: str
    role_claim: str


class JsonWebTokens:
    """Checks JWTs. Who was found is remembered until his token expires, and who was refused for
    REFUSED_S, both no longer than the keys are the same.

    Not remembered is what may be right a moment later: a token that is not good yet, or of a key
    that is not known yet.
    """

    def __init__(
        self, source: KeySource, claims: Claims, now_s: Callable[[], float] = time.time
    ) -> None:
        """now_s: the Unix clock."""
        self._source = source
        self._claims = claims
        self._now_s = now_s
        #: By the hashes of tokens, so that none of them lies in memory: until when each is good.
        self._known: OrderedDict[bytes, tuple[Principal, float]] = OrderedDict()
        self._known_by = NO_KEYS
        #: By the same hashes: what is wrong with each, and when that was found.
        self._refused: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def known(self, token: str) -> Principal | None:
        """Return whom a token stands for that was checked already; None: it was not, or not now."""
        self._follow_keys()
        if not self._known or len(token) > MAX_CHARACTERS:
            return None
        found = self._known.get(digest := _digest(token))
        if found is None:
            return None
        principal, until_s = found
        if self._now_s() >= until_s:
            del self._known[digest]
            return None
        return principal

    async def principal(self, token: str) -> Principal:
        """Return whom a token stands for.

        Raises: AccessDenied, which says why; ServiceUnavailable if there never were any keys.
        """
        known = self.known(token)
        if known is not None:
            return known
        self._check_not_refused(token)
        header = _header(token)
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or not isinstance(key_id, str | None):
            raise _refusal("it is malformed")
        key = self._source.keys.find(key_id, algorithm)
        if key is None:
            await self._source.refresh()
            key = self._source.keys.find(key_id, algorithm)
        keys = self._source.keys
        if key is None:
            if not len(keys):
                raise ServiceUnavailable("the keys for JWTs cannot be fetched: see the log here")
            raise _refusal(
                "no key of --jwks is the one it is signed by, or not by that algorithm: if the key "
                "is new, try again in half a minute"
            )
        self._follow_keys()
        # Here and not in a thread: to check one takes 0.1 to 0.4 ms, once for each token.
        principal, until_s = self._checked(token, key)
        self._known[_digest(token)] = (principal, until_s)
        if len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)
        return principal

    async def watch(self) -> None:
        """Take up new keys, until this is cancelled."""
        await self._source.watch()

    def _checked(self, token: str, key: VerifyingKey) -> tuple[Principal, float]:
        """Return whom a token stands for, and until when; raises AccessDenied."""
        claims = self._claims
        try:
            found = jwt.decode(
                token,
                key.key,
                algorithms=sorted(key.algorithms),
                audience=claims.audience,
                issuer=claims.issuer,
                leeway=LEEWAY_S,
                options={"require": list(_NEEDED)},
            )
            until_s = float(found["exp"])
        except _TOO_EARLY as error:
            raise _refusal(_what_is_wrong(error)) from None
        except (jwt.PyJWTError, *_OTHERS) as error:
            raise self._refused_for(token, _what_is_wrong(error)) from None
        try:
            return self._principal_of(found), until_s
        except _Unfit as error:
            raise self._refused_for(token, str(error)) from None

    def _principal_of(self, found: Mapping[str, Any]) -> Principal:
        """Return whom claims are of; raises _Unfit."""
        name = found["sub"]
        if not isinstance(name, str) or not name.isprintable() or len(name) > _NAME_CHARACTERS:
            raise _Unfit(f"its claim sub is no text of up to {_NAME_CHARACTERS} characters")
        tenant = found.get(self._claims.tenant_claim)
        if not isinstance(tenant, str) or not NAME.fullmatch(tenant):
            raise _Unfit(
                f"its claim {self._claims.tenant_claim} (--jwt-tenant-claim) is to be the tenant, "
                f"{NAME_RULE}"
            )
        role = found.get(self._claims.role_claim)
        if not isinstance(role, str) or role not in set(Role):
            raise _Unfit(
                f"its claim {self._claims.role_claim} (--jwt-role-claim) is to be one of "
                f"{', '.join(Role)}"
            )
        return Principal(name, tenant, Role(role))

    # --- what is remembered ---------------------------------------------------------------

    def _follow_keys(self) -> None:
        """Forget what was found by other keys than those of now."""
        if self._known_by is not self._source.keys:
            self._known.clear()
            self._refused.clear()
            self._known_by = self._source.keys

    def _check_not_refused(self, token: str) -> None:
        """Raise AccessDenied for a token that was refused not long ago, by the same keys."""
        if not self._refused or len(token) > MAX_CHARACTERS:
            return
        found = self._refused.get(digest := _digest(token))
        if found is None:
            return
        what, at_s = found
        if 0 <= self._now_s() - at_s < REFUSED_S:  # a clock that was set back proves nothing
            raise _refusal(what)
        del self._refused[digest]

    def _refused_for(self, token: str, what: str) -> AccessDenied:
        """Remember what is wrong with a token, and return what its caller is told."""
        self._refused[_digest(token)] = (what, self._now_s())
        if len(self._refused) > _MAX_REFUSED:
            self._refused.popitem(last=False)
        return _refusal(what)


class _Unfit(Exception):
    """Claims that are signed, and stand for nobody here."""


def _header(token: str) -> Mapping[str, Any]:
    """Return what a token says of itself, which nobody has checked; raises AccessDenied."""
    if len(token) > MAX_CHARACTERS or not token.isascii() or token.count(".") != 2:
        raise AccessDenied(
            "what was shown is no token that is taken here: no JWT, and none of a file of tokens"
        )
    try:
        return jwt.get_unverified_header(token)
    except (jwt.PyJWTError, *_OTHERS):
        raise _refusal("it is malformed") from None


def _what_is_wrong(error: Exception) -> str:
    return next((text for kind, text in _WRONG if isinstance(error, kind)), "it is malformed")


def _refusal(what: str) -> AccessDenied:
    return AccessDenied(f"the JWT is refused: {what}")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
