"""URLs of buckets, and obstore's clients for them.

| URL                                    | parameters                                |
| -------------------------------------- | ----------------------------------------- |
| `s3://BUCKET/PREFIX`                   | `region`, `endpoint`, `virtual_hosts`     |
| `gs://BUCKET/PREFIX`                   | `endpoint`                                |
| `az://CONTAINER/PREFIX?account=NAME`   | `account`, `endpoint`                     |

and for all of them `timeout_s`, `retry_s` and `exclusive`. Credentials are never part of a URL.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from obstore.store import AzureStore, GCSStore, S3Store

from cosco.dfs.objects.aws_profiles import find_profile
from cosco.dfs.objects.object_errors import printable
from cosco.dfs.paths import check_prefix
from cosco.errors import InvalidArgument

#: How long one request may take, a put of a whole object included, and how long after the first
#: one it is repeated. A call ends within the sum of both.
TIMEOUT_S: Final = 15.0
RETRY_S: Final = 20.0
_MAX_S: Final = 600.0
_CONNECT_S: Final = 3.0
_MAX_RETRIES: Final = 6
_PARAMETERS: Final = {
    "s3": frozenset({"region", "endpoint", "virtual_hosts"}),
    "gs": frozenset({"endpoint"}),
    "az": frozenset({"account", "endpoint"}),
}
_OF_ALL: Final = frozenset({"timeout_s", "retry_s", "exclusive"})
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,221}")
_BOOLEANS: Final = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Bucket:
    """What a URL says."""

    scheme: str
    name: str
    prefix: str
    parameters: Mapping[str, str]
    timeout_s: float
    retry_s: float
    #: Whether the server creates an object only if there is none, when it is asked to.
    exclusive: bool


def parse_bucket(url: str) -> Bucket:
    """Return what a URL says; raises InvalidArgument for one that makes no sense."""
    try:
        parts = urlsplit(url)
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise InvalidArgument(f"store {url!r} is no URL: write {_shape('s3')}") from None
    scheme, parameters = parts.scheme, dict(given)
    known = _PARAMETERS[scheme] | _OF_ALL
    unknown = sorted(set(parameters) - known)
    if unknown or parts.fragment or len(parameters) != len(given):
        raise InvalidArgument(
            f"store {url!r} has an unknown or repeated parameter"
            f"{f' {unknown[0]!r}' if unknown else ''}: {', '.join(sorted(known))} are known"
        )
    prefix = unquote(parts.path).strip("/")
    try:
        check_prefix(prefix)
    except ValueError as error:
        raise InvalidArgument(f"store {url!r}: {error}") from None
    if not _BUCKET.fullmatch(parts.netloc):
        raise InvalidArgument(f"store {url!r} names no bucket: write {_shape(scheme)}")
    for name in ("exclusive", "virtual_hosts"):
        if parameters.get(name, "true") not in _BOOLEANS:
            raise InvalidArgument(f"store {url!r}: {name} must be true or false")
    endpoint = parameters.get("endpoint", "https://")
    if not endpoint.startswith(("https://", "http://")):
        raise InvalidArgument(f"store {url!r}: endpoint must be https://HOST:PORT, or http://")
    return Bucket(
        scheme,
        parts.netloc,
        prefix,
        parameters,
        timeout_s=_seconds(url, parameters, "timeout_s", TIMEOUT_S),
        retry_s=_seconds(url, parameters, "retry_s", RETRY_S),
        exclusive=_BOOLEANS[parameters.get("exclusive", "true")],
    )


def connect(url: str, bucket: Bucket, connections: int) -> Any:
    """Return obstore's client of a bucket, which has not asked anything yet.

    Raises InvalidArgument for credentials, or other things of the environment, that make no
    sense.
    """
    parameters = bucket.parameters
    options: dict[str, Any] = {
        "prefix": bucket.prefix or None,
        "client_options": {
            "connect_timeout": timedelta(seconds=min(_CONNECT_S, bucket.timeout_s)),
            "timeout": timedelta(seconds=bucket.timeout_s),
            "pool_max_idle_per_host": str(connections),
        },
        "retry_config": {
            "max_retries": _MAX_RETRIES,
            "retry_timeout": timedelta(seconds=bucket.retry_s),
            "backoff": {
                "init_backoff": timedelta(seconds=0.1),
                "max_backoff": timedelta(seconds=3),
                "base": 2,
            },
        },
    }
    endpoint = parameters.get("endpoint")
    if endpoint is not None and endpoint.startswith("http://"):
        options["client_options"]["allow_http"] = True
    try:
        if bucket.scheme == "s3":
            return S3Store(bucket.name, **_s3(parameters), **options)
        if bucket.scheme == "gs":
            given = {} if endpoint is None else {"base_url": endpoint}
            return GCSStore(bucket.name, **given, **options)
        given = {"account_name": parameters["account"]} if "account" in parameters else {}
        given |= {} if endpoint is None else {"endpoint": endpoint}
        return AzureStore(bucket.name, **given, **options)
    except InvalidArgument:
        raise
    except Exception as error:  # noqa: BLE001  obstore's are many, and all are of what was given
        why = printable(str(error).partition("\n")[0])
        raise InvalidArgument(f"store {url!r} cannot be used: {why}") from None


def _s3(parameters: Mapping[str, str]) -> dict[str, Any]:
    profile = find_profile(os.environ)
    endpoint = parameters.get("endpoint") or os.environ.get("AWS_ENDPOINT_URL", "")
    given: dict[str, Any] = {}
    if "endpoint" in parameters:
        given["endpoint"] = parameters["endpoint"]
    if "region" in parameters:
        given["region"] = parameters["region"]
    elif profile.region and not os.environ.get("AWS_REGION"):
        given["region"] = profile.region
    if profile.credentials is not None:
        given["credential_provider"] = profile.credentials
    if "virtual_hosts" in parameters:
        given["virtual_hosted_style_request"] = _BOOLEANS[parameters["virtual_hosts"]]
    # Over TLS a digest of the body would be made and checked a second time, at 0.6 s a GB or more.
    given["unsigned_payload"] = not endpoint.startswith("http://")
    return given


def _seconds(url: str, parameters: Mapping[str, str], name: str, usual: float) -> float:
    text = parameters.get(name)
    if text is None:
        return usual
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.1 <= value <= _MAX_S:
        raise InvalidArgument(f"store {url!r}: {name} must be from 0.1 to {_MAX_S:g}")
    return value


def _shape(scheme: str) -> str:
    return "az://CONTAINER/PREFIX?account=NAME" if scheme == "az" else f"{scheme}://BUCKET/PREFIX"
