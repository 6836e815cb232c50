"""Tokens of both kinds together, by the options of the metadata service."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import environment
from support.web_tokens import AUDIENCE, ISSUER, SigningKey, key_set, serving

from cosco.config import MetadataConfig
from cosco.errors import AccessDenied, InvalidArgument
from cosco.metadata.access import key_sources
from cosco.metadata.access.principals import Principals, principals_of
from cosco.metadata.access.token_file import add_record
from cosco.metadata.access.token_records import new_token
from cosco.process.files import watched_file
from cosco.protocol.peer import Principal, Role

KEY = SigningKey()
BOSS = Principal("boss", "ops", Role.ADMIN)
ADA = Principal("ada", "analytics", Role.TENANT)


def with_token(path: Path) -> str:
    token, record = new_token(BOSS, 1, 0)
    add_record(path, record)
    return token


def of(tokens: str = "", jwks: str = "") -> Principals:
    claims = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE} if jwks else {}
    config = MetadataConfig(
        tls_ca="ca", tls_cert="cert", tls_key="key", tokens=tokens, jwks=jwks, **claims
    )
    config.validate()
    found = principals_of(config)
    assert found is not None
    return found


def refusal(principals: Principals, token: str) -> str:
    assert principals.known(token) is None
    with pytest.raises(AccessDenied) as caught:
        asyncio.run(principals.principal(token))
    return str(caught.value)


def test_without_the_options_nobody_needs_a_token() -> None:
    assert (
        principals_of(
            MetadataConfig(
                tls_ca="ca",
                tls_cert="cert",
                tls_key="key",
            )
        )
        is None
    )


def test_tokens_of_a_file(tmp_path: Path) -> None:
    token = with_token(tmp_path / "tokens")
    principals = of(str(tmp_path / "tokens"))
    assert principals.known(token) == BOSS
    assert asyncio.run(principals.principal(token)) == BOSS
    assert refusal(principals, "") == "a token is needed here, and none was shown"
    assert "it has no --jwks" in refusal(principals, KEY.sign())


def test_jwts_of_a_server_and_tokens_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_file, "LOOK_S", 0.001)
    monkeypatch.setattr(key_sources, "_LOOK_S", 0.001)
    token = with_token(tmp_path / "tokens")

    async def run(principals: Principals) -> None:
        watching = asyncio.create_task(principals.watch())
        web_token = KEY.sign()
        assert principals.known(web_token) is None
        assert await principals.principal(web_token) == ADA
        assert principals.known(web_token) == ADA
        assert principals.known(token) == BOSS
        (tmp_path / "tokens").write_text("# nobody\n")
        while principals.known(token) is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        watching.cancel()

    with serving(key_set(KEY)) as issuer:
        asyncio.run(asyncio.wait_for(run(of(str(tmp_path / "tokens"), issuer.url)), 30))
        assert issuer.asked == 1


def test_jwts_alone_by_keys_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(key_set(KEY))
    principals = of(jwks=str(tmp_path / "keys"))
    assert asyncio.run(principals.principal(KEY.sign())) == ADA
    token = with_token(tmp_path / "tokens")
    said = refusal(principals, token)
    assert "it has no --tokens" in said
    assert token not in said


def test_files_that_cannot_be_used_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="does not exist: cosco token create"):
        of(str(tmp_path / "tokens"))
    with pytest.raises(InvalidArgument, match="cannot be read"):
        of(jwks=str(tmp_path / "keys"))
    (tmp_path / "keys").write_text("{}")
    with pytest.raises(InvalidArgument, match="is no JSON Web Key Set"):
        of(jwks=str(tmp_path / "keys"))


@pytest.mark.parametrize("missing", ["jwt", "cryptography"])
def test_tokens_need_no_package_and_jwts_say_which(tmp_path: Path, missing: str) -> None:
    with_token(tmp_path / "tokens")
    program = f"""
import sys
sys.modules[{missing!r}] = None
from cosco.config import MetadataConfig
from cosco.metadata.access.principals import principals_of
principals_of(MetadataConfig(tokens=sys.argv[1]))
try:
    principals_of(MetadataConfig(jwks="https://a.example", jwt_issuer="i", jwt_audience="a"))
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "tokens")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=environment(),
    )
    assert done.stdout.startswith("InvalidArgument --jwks needs the packages")
    assert "pip install 'cosco[jwt]'" in done.stdout
