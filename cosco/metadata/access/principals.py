"""Whom a token stands for, whichever kind it is of."""

from __future__ import annotations

import asyncio
from typing import Protocol

from cosco.config import MetadataConfig, is_url
from cosco.errors import AccessDenied, InvalidArgument
from cosco.metadata.access.token_file import TokenFile
from cosco.metadata.access.token_records import PREFIX
from cosco.protocol.peer import Principal


class TokenKind(Protocol):
    """Knows the tokens of one kind."""

    def known(self, token: str) -> Principal | None:
        """Return whom a token stands for, if that is known at once."""

    async def principal(self, token: str) -> Principal:
        """Return whom a token stands for; raises AccessDenied."""

    async def watch(self) -> None:
        """Take up what changes, until this is cancelled."""


class Principals:
    """Tokens of a file, JWTs, or both. Used from one event loop."""

    def __init__(self, tokens: TokenKind | None, web_tokens: TokenKind | None) -> None:
        """tokens: those of a file. web_tokens: JWTs. None: such are refused."""
        self._tokens = tokens
        self._web_tokens = web_tokens

    def known(self, token: str) -> Principal | None:
        """Return whom a token stands for, at once; None: ask `principal`, which may be refused."""
        kind = self._kind(token)
        return kind.known(token) if kind is not None else None

    async def principal(self, token: str) -> Principal:
        """Return whom a token stands for. It may take seconds, if keys have to be fetched.

        Raises: AccessDenied, which says why, and never the token; ServiceUnavailable if there
        never were any keys for JWTs.
        """
        if not token:
            raise AccessDenied("a token is needed here, and none was shown")
        kind = self._kind(token)
        if kind is None:
            raise AccessDenied(
                "tokens of that kind are not taken here: "
                + ("it has no --tokens" if self._tokens is None else "it has no --jwks")
            )
        return await kind.principal(token)

    async def watch(self) -> None:
        """Take up tokens and keys that change, until this is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for kind in (self._tokens, self._web_tokens):
                if kind is not None:
                    tasks.create_task(kind.watch())

    def _kind(self, token: str) -> TokenKind | None:
        return self._tokens if token.startswith(PREFIX) else self._web_tokens


def principals_of(config: MetadataConfig) -> Principals | None:
    """Return who knows the tokens that the options allow; None: nobody needs one.

    Raises: InvalidArgument if a file cannot be used, or for JWTs without the packages for them.
    """
    if not config.tokens and not config.jwks:
        return None
    tokens = TokenFile(config.tokens) if config.tokens else None
    return Principals(tokens, _web_tokens(config) if config.jwks else None)


def _web_tokens(config: MetadataConfig) -> TokenKind:
    try:
        # Only who takes JWTs needs what these import.
        from cosco.metadata.access.json_web_tokens import Claims, JsonWebTokens  # noqa: PLC0415
        from cosco.metadata.access.key_sources import KeyFile, KeyUrl  # noqa: PLC0415
    except ImportError:
        raise InvalidArgument(
            "--jwks needs the packages PyJWT and cryptography: run pip install 'cosco[jwt]'"
        ) from None
    claims = Claims(
        config.jwt_issuer, config.jwt_audience, config.jwt_tenant_claim, config.jwt_role_claim
    )
    source = KeyUrl(config.jwks) if is_url(config.jwks) else KeyFile(config.jwks)
    return JsonWebTokens(source, claims)
