"""What the options of services come to."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from cosco.config import (
    DaemonConfig,
    MetadataConfig,
    insecure_warning,
    is_loopback,
    parse_address,
    parse_reserve,
    parse_size,
    parse_tiers,
)
from cosco.errors import InvalidArgument

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("memory", "limit"),
    [(24 * MIB, 2 * MIB), (240 * MIB, 20 * MIB), (GIB, 64 * MIB), (64 * GIB, 64 * MIB)],
)
def test_segments_follow_the_memory(memory: int, limit: int) -> None:
    config = DaemonConfig(memory=memory)
    config.validate()
    assert config.segment_limit_bytes == limit


def test_a_given_size_of_segments_is_kept() -> None:
    config = DaemonConfig(memory=256 * MIB, segment_bytes=64 * KIB)
    config.validate()
    assert config.segment_limit_bytes == 64 * KIB


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("segment_bytes", 63 * KIB),
        ("segment_bytes", 65 * MIB),
        ("store_idle_s", -1.0),
        ("connections", 7),
        ("peer_connections", 0),
        ("new_connections", 0),
        ("peer_calls", -1),
        ("tenant_streams", -1),
        ("tenant_memory_share", 0.0),
        ("tenant_memory_share", -0.5),
        ("tenant_memory_share", 1.01),
        ("tenant_memory_share", math.nan),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, value: float) -> None:
    options = {"memory": 256 * MIB, name: value}
    with pytest.raises(InvalidArgument, match="--" + name.replace("_", "-")):
        DaemonConfig(**options).validate()  # type: ignore[arg-type]


def test_processes_share_the_memory_and_count_ports_up() -> None:
    config = DaemonConfig(
        processes=3, memory=100 * MIB, listen="[::1]:7071", advertise="node:7071", metrics=""
    )
    config.validate()
    found = [config.of_process(index) for index in range(3)]
    assert [one.listen for one in found] == ["[::1]:7071", "[::1]:7072", "[::1]:7073"]
    assert [one.advertise for one in found] == ["node:7071", "node:7072", "node:7073"]
    assert {(one.metrics, one.memory, one.processes) for one in found} == {("", 100 * MIB // 3, 1)}
    for one in found:
        one.validate()
    free = DaemonConfig(processes=2, listen="127.0.0.1:0", metrics="127.0.0.1:9000").of_process(1)
    assert (free.listen, free.advertise, free.metrics) == ("127.0.0.1:0", "", "127.0.0.1:9001")


@pytest.mark.parametrize(
    ("listen", "metrics", "found"),
    [
        ("127.0.0.1:7070", "auto", "127.0.0.1:8070"),
        ("[::1]:7070", "auto", "[::1]:8070"),
        ("127.0.0.1:0", "auto", "127.0.0.1:0"),
        ("127.0.0.1:7070", "localhost:9", "localhost:9"),
        ("127.0.0.1:7070", "", ""),
    ],
)
def test_where_metrics_are(listen: str, metrics: str, found: str) -> None:
    daemon = DaemonConfig(listen=listen, metrics=metrics)
    daemon.validate()
    metadata = MetadataConfig(listen=listen, http=metrics)
    metadata.validate()
    assert daemon.metrics_listen == metadata.http_listen == found


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("127.0.0.1:1", True),
        ("127.1.2.3:1", True),
        ("[::1]:1", True),
        ("[::ffff:127.0.0.1]:1", True),
        ("localhost:1", True),
        ("LocalHost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("*:1", False),
        ("10.0.0.1:1", False),
        ("localhost.example.org:1", False),
        ("node:1", False),
    ],
)
def test_what_is_reached_by_nobody_else(address: str, found: bool) -> None:
    assert is_loopback(address) == found


@pytest.mark.parametrize("config_class", [MetadataConfig, DaemonConfig])
@pytest.mark.parametrize("listen", ["0.0.0.0:7070", "node:7070", "[::]:7070"])
def test_who_listens_beyond_the_loopback_has_tls_or_says_that_it_is_meant(
    config_class: type[MetadataConfig] | type[DaemonConfig], listen: str
) -> None:
    with_advertise = {"advertise": "node:7070"} if config_class is DaemonConfig else {}
    options: dict[str, Any] = {"listen": listen, **with_advertise}
    with pytest.raises(InvalidArgument, match="cosco tls init"):
        config_class(**options).validate()
    meant = config_class(insecure=True, **options)
    meant.validate()
    assert beside(meant) == f"{listen.removesuffix(':7070')}:8070"
    files = dict(TLS)
    if config_class is MetadataConfig:
        files["tokens"] = "file"
    safe = config_class(**files, **options)
    safe.validate()
    assert beside(safe) == "127.0.0.1:8070", "unless an address is given"


def beside(config: MetadataConfig | DaemonConfig) -> str:
    return config.http_listen if isinstance(config, MetadataConfig) else config.metrics_listen


def test_metrics_of_daemons_are_for_this_machine_alone() -> None:
    options: dict[str, Any] = {"metrics": "node:9", **TLS}
    with pytest.raises(InvalidArgument, match="--metrics node:9 would be served to everybody"):
        DaemonConfig(**options).validate()
    DaemonConfig(insecure=True, **options).validate()


def test_http_beyond_this_machine_needs_tls_and_tokens() -> None:
    for lacking, files in (("is no TLS", {}), ("are no tokens", TLS)):
        with pytest.raises(InvalidArgument, match=f"--http node:9 .* as there {lacking}"):
            MetadataConfig(http="node:9", **files).validate()
        meant = MetadataConfig(http="node:9", insecure=True, **files)
        meant.validate()
        assert f"there {lacking}: whoever reaches node:9 over HTTP" in insecure_warning(meant)
    safe = MetadataConfig(http="node:9", tokens="file", **TLS)
    safe.validate()
    assert not insecure_warning(safe)


@pytest.mark.parametrize("host", ["https://node", "node:80", "a/b", "a@b", "näme", "[::1", "a,b:c"])
def test_names_of_http_are_hosts(host: str) -> None:
    with pytest.raises(InvalidArgument, match="--http-host"):
        MetadataConfig(http_host=host).validate()


def test_names_of_http_are_several() -> None:
    config = MetadataConfig(http_host="cosco.example  node,[::1] fe80::1")
    config.validate()
    assert config.http_hosts == ("cosco.example", "node", "[::1]", "fe80::1")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"tls_cert": "x"}, "--tls-cert is given, and --tls-key and --tls-ca is not"),
        ({"tls_ca": "x", "tls_key": "y"}, "--tls-key and --tls-ca is given, and --tls-cert is not"),
        ({"tls_client_auth": "never"}, "must be require or optional"),
    ],
)
def test_options_of_tls_go_together(given: dict[str, Any], says: str) -> None:
    for config_class in (MetadataConfig, DaemonConfig):
        with pytest.raises(InvalidArgument, match=says):
            config_class(**given).validate()


def test_metrics_of_processes_count_up_with_their_ports() -> None:
    config = DaemonConfig(processes=2, memory=64 * MIB, listen="127.0.0.1:7071")
    found = [config.of_process(index) for index in range(2)]
    assert [one.metrics for one in found] == ["127.0.0.1:8071", "127.0.0.1:8072"]
    # A port that was picked for the daemon, over its restarts, picks none for metrics.
    free = DaemonConfig(processes=2, listen="127.0.0.1:0").of_process(1)
    assert replace(free, listen="127.0.0.1:65000").metrics_listen == "127.0.0.1:0"


@pytest.mark.parametrize("listen", ["127.0.0.1:64536", "[::1]:65535"])
def test_metrics_beyond_the_last_port_are_refused(listen: str) -> None:
    for config, name in (
        (MetadataConfig(listen=listen), "http"),
        (DaemonConfig(listen=listen), "metrics"),
    ):
        with pytest.raises(InvalidArgument, match=f"--{name} auto"):
            config.validate()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"processes": 0}, "--processes is 0"),
        ({"processes": 5, "memory": 64 * MIB}, "--memory .* for each of --processes 5"),
        ({"memory": 15 * MIB}, "--memory is 15728640, it must be at least 16777216$"),
        ({"processes": 2, "listen": "a:65535"}, "--listen a:65535: ports of 2 processes"),
        ({"processes": 2, "metrics": "a:65535"}, "--metrics"),
        ({"processes": 2, "advertise": "a:65535"}, "--advertise"),
        ({"processes": 4, "segment_bytes": 20 * MIB, "memory": 256 * MIB}, "of a process"),
    ],
)
def test_what_does_not_suit_all_processes_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        DaemonConfig(**options).validate()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("host:7070", ("host", 7070)),
        ("[::1]:0", ("::1", 0)),
        ("ü.example:65535", ("ü.example", 65535)),
    ],
)
def test_addresses(text: str, found: tuple[str, int]) -> None:
    assert parse_address(text) == found


@pytest.mark.parametrize(
    "text",
    ["", "host", "host:", ":1", "host:65536", "host:" + "9" * 5000, "host:²", "host:٣", "host:-1",
     "ho st:1", "ho\nst:1", "ho\0st:1", "\ud800:1", "host: 1", "x" * 5000],
    ids=range(15),
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"is no address: .*write host:port") as caught:
        parse_address(text)
    assert len(str(caught.value)) < 800
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), (" 1.5 KiB ", 1536), ("9" * 20, 10**20), ("2GB", 2 * 10**9)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1e9", "1 EiB", "9" * 21, "9" * 5000 + "GB", "٣x"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is no size: write for example") as caught:
        parse_size(text)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("store", "found"),
    [
        ("memory://", ("memory://",)),
        ("file:///a file:///b", ("file:///a", "file:///b")),
        ("file:///a,file:///b\n\tfile:///c", ("file:///a", "file:///b", "file:///c")),
        ("file:///a b,c ,d", ("file:///a b,c ,d",)),  # one, whose name is odd
        ("x:1", ("x:1",)),
    ],
)
def test_stores_have_blanks_or_commas_between(store: str, found: tuple[str, ...]) -> None:
    assert DaemonConfig(store=store).stores == found


@pytest.mark.parametrize(
    ("reserve", "found"),
    [("0", (0, 0.0)), ("10GiB", (10 * GIB, 0.0)), ("5%", (0, 0.05)), (" 2.5 % ", (0, 0.025))],
)
def test_a_reserve_is_a_size_or_a_share(reserve: str, found: tuple[int, float]) -> None:
    size_bytes, share = parse_reserve(reserve)
    assert (size_bytes, share) == (found[0], pytest.approx(found[1]))
    DaemonConfig(store="file:///a", store_reserve=reserve).validate()


@pytest.mark.parametrize("reserve", ["", "x", "-1", "100%", "999%", "5 % of it", "%"])
def test_a_reserve_that_makes_no_sense_is_refused(reserve: str) -> None:
    with pytest.raises(InvalidArgument):
        DaemonConfig(store="file:///a", store_reserve=reserve).validate()


def test_directories_share_the_memory_of_writes() -> None:
    one = DaemonConfig(store="file:///a", memory=240 * MIB)
    two = DaemonConfig(store="file:///a file:///b", memory=240 * MIB)
    assert (one.writers, two.writers) == (3, 6)
    assert two.segment_limit_bytes * two.writers == one.segment_limit_bytes * one.writers
    assert (one.has_directories, two.has_directories) == (False, True)


@pytest.mark.parametrize(
    ("store", "flash", "then"),
    [
        ("flash=file:///nvme,then=s3://b/p?region=x", "file:///nvme", "s3://b/p?region=x"),
        (
            " flash=file:///nvme?fsync=false, then=file:///d ",
            "file:///nvme?fsync=false",
            "file:///d",
        ),
    ],
)
def test_two_tiers(store: str, flash: str, then: str) -> None:
    config = DaemonConfig(store=store, store_reserve="5%")
    config.validate()
    assert config.tiers is not None
    assert (config.tiers.flash, config.tiers.then) == (flash, then)
    assert (config.has_directories, config.writers) == (False, 3)


@pytest.mark.parametrize("store", ["file:///a", "file:///then=x", "s3://b/flash=1", "memory://"])
def test_other_stores_are_no_tiers(store: str) -> None:
    assert parse_tiers(store) is None


def test_processes_have_a_folder_each_on_flash() -> None:
    store = "flash=file:///nvme/?fsync=false,then=file:///d"
    config = DaemonConfig(store=store, processes=2, memory=64 * MIB)
    config.validate()
    folders = [config.of_process(index).store for index in range(2)]
    assert folders == [
        f"flash=file:///nvme/daemon-{n}?fsync=false,then=file:///d" for n in range(2)
    ]
    assert DaemonConfig(store=store).of_process(0).store == store


def test_a_secret_in_the_url_of_a_tier_is_not_repeated() -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_tiers("flash=s3://user:hidden@b/p,then=file:///d")
    assert "hidden" not in str(caught.value)


TLS = {"tls_ca": "ca", "tls_cert": "cert", "tls_key": "key"}
JWTS = {"jwks": "https://issuer.example/keys", "jwt_issuer": "i", "jwt_audience": "a"}


@pytest.mark.parametrize(
    "given",
    [
        {"tokens": "/etc/cosco/tokens"},
        JWTS,
        {**JWTS, "tokens": "tokens", "jwt_tenant_claim": "team", "jwt_role_claim": "x"},
        {**JWTS, "jwks": "/etc/cosco/keys.json"},
        {**JWTS, "jwks": "http://127.0.0.1:8080/keys"},
        {**JWTS, "jwks": "http://[::1]/keys"},
        {**JWTS, "jwks": "HTTP://LocalHost/keys"},
        {**JWTS, "jwks": "https://issuer.example:8443/realms/x/certs?a=b"},
    ],
)
def test_options_of_tokens(given: dict[str, Any]) -> None:
    MetadataConfig(**given, **TLS).validate()
    with pytest.raises(InvalidArgument, match="--tokens and --jwks need TLS"):
        MetadataConfig(**given).validate()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"jwks": "keys"}, "--jwks is given, and --jwt-issuer is empty"),
        ({**JWTS, "jwt_audience": ""}, "--jwks is given, and --jwt-audience is empty"),
        ({**JWTS, "jwt_tenant_claim": ""}, "--jwt-tenant-claim is empty"),
        ({**JWTS, "jwt_role_claim": ""}, "--jwt-role-claim is empty"),
        ({**JWTS, "jwks": ""}, "--jwt-issuer is given, and --jwks is not"),
        ({"jwt_role_claim": "x"}, "--jwt-role-claim is given, and --jwks is not"),
        ({**JWTS, "jwks": "http://issuer.example/keys"}, "is to be https"),
        ({**JWTS, "jwks": "http://127.0.0.1.example/keys"}, "is to be https"),
        ({**JWTS, "jwks": "file:///etc/keys"}, "is no URL"),
        ({**JWTS, "jwks": "file://localhost/etc/keys"}, "is to be https"),
        ({**JWTS, "jwks": "ftp://localhost/keys"}, "is to be https"),
        ({**JWTS, "jwks": "https://"}, "is no URL"),
        ({**JWTS, "jwks": "https://a:b/keys"}, "is no URL"),
        ({**JWTS, "jwks": "https://[::1/keys"}, "is no URL"),
        ({**JWTS, "jwks": "https://a.example/k eys"}, "is no URL"),
        ({**JWTS, "jwks": "https://a.example/\nkeys"}, "is no URL"),
        ({**JWTS, "jwks": "https://me:hidden@a.example/keys"}, "password does not belong"),
    ],
)
def test_options_of_tokens_that_make_no_sense(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says) as caught:
        MetadataConfig(**given).validate()
    assert "hidden" not in str(caught.value)


def test_who_serves_everybody_asks_for_tokens_or_says_that_it_is_meant() -> None:
    listen: dict[str, Any] = {**TLS, "listen": "0.0.0.0:7070"}
    with pytest.raises(InvalidArgument, match="there are no tokens: `cosco tls init") as caught:
        MetadataConfig(**listen).validate()
    assert "`cosco token create --tokens FILE" in str(caught.value)
    DaemonConfig(**listen, advertise="node:7071").validate()
    asking = MetadataConfig(**listen, tokens="file")
    asking.validate()
    assert insecure_warning(asking) == ""
    meant = MetadataConfig(**listen, insecure=True)
    meant.validate()
    assert "no tokens: whoever has a certificate and reaches 0.0.0.0:7070" in insecure_warning(
        meant
    )
    nobody_asked = MetadataConfig(**listen, insecure=True, tls_client_auth="optional")
    assert "no tokens: whoever reaches 0.0.0.0:7070 may read" in insecure_warning(nobody_asked)
