"""An identity provider of tests: keys, the JWTs they sign, a server of the public ones."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://issuer.example"
AUDIENCE = "cosco"


class SigningKey:
    """A private key, what it signs by, and the entry of a key set for it."""

    def __init__(
        self, algorithm: str = "ES256", key_id: str | None = "k1", bits: int = 2048
    ) -> None:
        self.algorithm = algorithm
        self.id = key_id
        self.key: Any
        maker: Any
        if algorithm[:2] in {"RS", "PS"}:
            self.key = rsa.generate_private_key(65537, bits)
            maker = RSAAlgorithm
        elif algorithm == "EdDSA":
            self.key = ed25519.Ed25519PrivateKey.generate()
            maker = OKPAlgorithm
        else:
            curves: dict[str, Any] = {
                "ES256": ec.SECP256R1,
                "ES384": ec.SECP384R1,
                "ES512": ec.SECP521R1,
            }
            self.key = ec.generate_private_key(curves[algorithm]())
            maker = ECAlgorithm
        self.private: dict[str, Any] = maker.to_jwk(self.key, as_dict=True)
        self.public: dict[str, Any] = maker.to_jwk(self.key.public_key(), as_dict=True)
        if key_id is not None:
            self.public["kid"] = key_id
        # PyJWT says by which operations; of those a set of an issuer may say nothing.
        self.public.pop("key_ops", None)

    def sign(self, headers: dict[str, Any] | None = None, **changes: Any) -> str:
        """Make a JWT that is good, but for what is changed; a claim that is None is left out."""
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "ada",
            "exp": int(time.time()) + 600,
            "tenant": "analytics",
            "role": "tenant",
            **changes,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        named = {} if self.id is None else {"kid": self.id}
        return jwt.encode(claims, self.key, self.algorithm, headers={**named, **(headers or {})})


def key_set(*keys: SigningKey | dict[str, Any]) -> bytes:
    """What an issuer gives to others."""
    entries = [key.public if isinstance(key, SigningKey) else key for key in keys]
    return json.dumps({"keys": entries}).encode()


class Issuer:
    """What the server answers, which a test may change at any time, and how often it was asked."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked = 0
        self.paths: list[str] = []
        self.url = ""


@contextmanager
def serving(content: bytes, context: ssl.SSLContext | None = None) -> Iterator[Issuer]:
    """A server of a key set on the loopback, over HTTP, or by a context over HTTPS."""
    issuer = Issuer(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked += 1
            issuer.paths.append(self.path)
            self.send_response(issuer.status)
            for name, value in issuer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(issuer.content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    scheme = "http" if context is None else "https"
    issuer.url = f"{scheme}://127.0.0.1:{server.server_port}/keys"
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
