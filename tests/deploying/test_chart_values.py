"""Which values the chart takes, and what it says of those that make no sense."""

from __future__ import annotations

import json
import re
import shlex
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from support import helm_chart
from support.helm_chart import CHART, ROOT, VALUES, Refused, container_of, render, workloads

from cosco import __version__
from cosco.cli.main import command as cosco_command

needs_helm = pytest.mark.skipif(not helm_chart.HELM.exists(), reason=helm_chart.NO_HELM)
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DOCS = (ROOT / "docs/deploying.md").read_text()

#: Values that are refused, and what must be said of them.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"replica": 3}, "replica"),
    ({"daemons": {"memory": "4GiB"}}, "memory"),
    ({"daemons": {"memoryMiB": "4GiB"}}, "daemons.memoryMiB|/daemons/memoryMiB"),
    ({"daemons": {"memoryMiB": 32, "processes": 4}}, "memoryMiB is 32, it must be at least 16 for"),
    ({"daemons": {"kind": "Deployment"}}, "StatefulSet"),
    ({"daemons": {"overheadMiB": 10}}, "overheadMiB"),
    ({"metadata": {"replicas": 2}}, "replicas"),
    ({"metadata": {"port": 70700}}, "metadata/port|metadata.port"),
    ({"tls": {"daemonSecret": ""}}, "tls.daemonSecret: name Secrets .* or set insecure: true"),
    ({"tls": {"metadataSecret": "-----BEGIN CERTIFICATE-----"}}, "metadataSecret"),
    ({"tokens": {"secret": ""}}, "tokens.secret is empty, and so is jwt.jwks"),
    ({"tokens": {"secret": "cosco-token-etl.c2VjcmV0U"}}, "tokens"),
    ({"jwt": {"jwks": "http://issuer.example/keys"}}, "jwks"),
    ({"jwt": {"jwks": "https://issuer.example/keys"}}, "jwt.issuer and jwt.audience"),
    ({"metadata": {"httpReachable": True}}, "set tls.clientAuth: optional"),
    (
        {"insecure": True, "metadata": {"httpReachable": True, "httpPort": 0}},
        "metadata.httpReachable is true, and metadata.httpPort is 0",
    ),
    ({"daemons": {"metricsReachable": True, "metricsPort": 0}}, "daemons.metricsPort is 0"),
    ({"daemons": {"metricsPort": 7072, "processes": 2}}, "one of the ports of daemons.processes"),
    (
        {"daemons": {"kind": "DaemonSet", "store": {"volume": {"kind": "emptyDir"}}}},
        "set daemons.hostNetwork: true",
    ),
    ({"daemons": {"kind": "DaemonSet", "hostNetwork": True}}, "claim is for daemons.kind Stateful"),
    ({"daemons": {"options": {"tracing": False}}}, "tracing"),
    ({"daemons": {"store": {"url": "memory://"}}}, "url"),
    ({"daemons": {"store": {"url": "s3://bucket/x"}}}, "daemons.store.volume.kind: none"),
    ({"daemons": {"store": {"volume": {"kind": "none"}}}}, "its directory would be read-only"),
    ({"daemons": {"store": {"volume": {"kind": "existingClaim"}}}}, "volume.claimName"),
    ({"daemons": {"store": {"volume": {"kind": "hostPath"}}}}, "user 65532 owns"),
    ({"daemons": {"store": {"env": {"AWS_SECRET_ACCESS_KEY": "x"}}}}, "AWS_SECRET_ACCESS_KEY"),
    ({"daemons": {"store": {"env": {"COSCO_SHUFFLED_MEMORY": "1GiB"}}}}, "COSCO_SHUFFLED_MEMORY"),
    ({"daemons": {"options": {"host-id": "a"}}}, "daemons.options.host-id: the chart gives this"),
    ({"monitoring": {"serviceMonitor": True}}, "monitoring.serviceMonitor needs"),
]


@needs_helm
@pytest.mark.parametrize(("values", "said"), REFUSED, ids=lambda one: str(one)[:60])
def test_what_makes_no_sense_is_refused_and_said_why(values: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused) as refused:
        render(values)
    assert re.search(said, str(refused.value)), refused.value


@needs_helm
@pytest.mark.parametrize("index", [0, 1], ids=["metadata", "daemons"])
def test_an_option_that_the_chart_gives_is_given_once(index: int) -> None:
    """So that a limit, a port or a grace cannot say anything else than the service was told."""
    given = set()
    for values in VALUES.values():
        arguments = container_of(workloads(render(values))[index])["args"]
        given |= {one.partition("=")[0].removeprefix("--") for one in arguments}
        given -= set(values.get(("metadata", "daemons")[index], {}).get("options", {}))
    assert {"listen", "store", "tls-cert", "insecure", "unfinished-bytes"} <= given
    for name in given:
        values = {("metadata", "daemons")[index]: {"options": {name: "1"}}}
        with pytest.raises(Refused, match=rf"options\.{name}: the chart gives this option itself"):
            render(values)


def leaves(values: Any, path: str = "") -> Iterator[str]:
    """The names of all values, of which maps without names of their own are one."""
    if not isinstance(values, dict) or not values:
        yield path
        return
    for name, value in values.items():
        yield from leaves(value, f"{path}.{name}" if path else name)


def known(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """The names that a schema has."""
    if "properties" not in schema:
        yield path
        return
    assert schema["additionalProperties"] is False, path
    for name, inner in schema["properties"].items():
        yield from known(inner, f"{path}.{name}" if path else name)


def test_each_value_has_a_default_and_a_rule() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert set(known(SCHEMA)) - {"global"} == set(leaves(DEFAULTS))


def test_each_value_is_documented() -> None:
    """In the first column of the table, by its full name."""
    part = DOCS[DOCS.index("### Values") : DOCS.index("### A rolling upgrade")]
    rows = re.findall(r"^\| (`[^|]+) \|", part, re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`([\w.]+)`", row)}
    assert documented == set(leaves(DEFAULTS))


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__
    assert DEFAULTS["image"]["tag"] == ""  # that version


@needs_helm
def test_helm_has_nothing_against_it(tmp_path: Path) -> None:
    assert "0 chart(s) failed" in helm_chart.run_helm("lint", "--strict", CHART)
    helm_chart.run_helm("package", CHART, "--destination", tmp_path)
    with tarfile.open(tmp_path / f"cosco-{__version__}.tgz") as package:
        # A link in the repository, and a file where there is none.
        alerts = package.extractfile("cosco/files/cosco-alerts.yml")
        assert alerts is not None
        assert alerts.read() == (ROOT / "packaging/prometheus/cosco-alerts.yml").read_bytes()


@needs_helm
def test_the_image_is_the_one_that_was_named() -> None:
    for image, shown in (
        ({}, f"localhost/cosco:{__version__}"),
        ({"repository": "r.example/c", "tag": "1"}, "r.example/c:1"),
        ({"tag": "1", "digest": "sha256:" + "a" * 64}, "localhost/cosco@sha256:" + "a" * 64),
    ):
        for workload in workloads(render({"image": image})):
            assert container_of(workload)["image"] == shown


@needs_helm
def test_what_is_told_at_the_end_can_be_done(tmp_path: Path, monkeypatch: Any) -> None:
    """Commands of cosco are run, and make the files that those of kubectl name."""
    monkeypatch.chdir(tmp_path)
    lines = helm_chart.notes({}, tmp_path).replace("\\\n", " ").splitlines()
    words = [shlex.split(line) for line in lines if line.startswith("  ")]
    ours = [line for line in words if line[0] == "cosco"]
    assert [line[1] for line in ours] == ["tls", "token"]
    for line in ours:
        done = CliRunner().invoke(cosco_command, line[1:], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    secrets: dict[str, set[str]] = {}
    for line in words:
        if line[0] != "kubectl":
            continue
        name = line[line.index("generic") + 1]
        files = [one.removeprefix("--from-file=").split("=") for one in line if "from-file" in one]
        assert all((tmp_path / path).is_file() for _, path in files), line
        secrets[name] = {key for key, _ in files}
    of_tls = {"tls.crt", "tls.key", "ca.crt"}
    assert secrets == {
        DEFAULTS["tls"]["metadataSecret"]: of_tls,
        DEFAULTS["tls"]["daemonSecret"]: of_tls,
        DEFAULTS["tokens"]["secret"]: {DEFAULTS["tokens"]["key"]},
    }


@needs_helm
def test_who_lets_in_everybody_is_told_so(tmp_path: Path) -> None:
    told = helm_chart.notes({"insecure": True}, tmp_path)
    assert "WARNING: insecure is true" in told
    assert "kubectl" not in told
