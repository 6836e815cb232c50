"""The chart of `packaging/chart` as Helm renders it, with values of all kinds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click
import yaml

from cosco.cli.metadata import command as metadata_command
from cosco.cli.shuffled import command as daemon_command
from cosco.config import DaemonConfig, MetadataConfig

ROOT: Final = Path(__file__).resolve().parents[2]
CHART: Final = ROOT / "packaging/chart"
#: As `make packaging-tools` installs it.
HELM: Final = ROOT / ".packaging/bin/helm"
NO_HELM: Final = "there is no Helm: `make packaging-tools` installs it where Go is"
NAMESPACE: Final = "prod"
#: For which it renders: a Helm that was not built by its makers takes one for granted that is old.
KUBERNETES: Final = "1.37.0"
#: What Kubernetes says of a pod, by the field.
FIELDS: Final = {
    "metadata.name": "cosco-daemon-1",
    "spec.nodeName": "node-7",
    "status.podIP": "10.1.2.3",
}
_TIMEOUT_S: Final = 60.0

Manifest = dict[str, Any]
Values = Mapping[str, Any]

_REACHABLE: Final = {
    "metadata": {"httpReachable": True, "httpHosts": ["cosco.example"]},
    "daemons": {"metricsReachable": True},
}
#: What people set, each with a name.
VALUES: Final[dict[str, Values]] = {
    "defaults": {},
    "everything with TLS and tokens": {
        **_REACHABLE,
        "tls": {"clientAuth": "optional"},
        "jwt": {
            "jwks": "https://issuer.example/keys",
            "issuer": "https://issuer.example",
            "audience": "cosco",
        },
        "image": {"digest": "sha256:" + "0" * 64, "pullSecrets": ["registry"]},
        "networkPolicy": {
            "enabled": True,
            "clients": [{"namespaceSelector": {"matchLabels": {"team": "etl"}}}],
        },
        "monitoring": {"serviceMonitor": True, "tokenSecret": "scraper", "rules": True},
        "serviceAccount": {"annotations": {"role": "shuffle"}},
    },
    "JWTs alone": {
        "tokens": {"secret": ""},
        "jwt": {
            "jwks": "https://issuer.example/keys",
            "issuer": "https://issuer.example",
            "audience": "cosco",
        },
    },
    "object store": {
        "daemons": {
            "replicas": 6,
            "processes": 4,
            "memoryMiB": 16384,
            "inflightMiB": 64,
            "metricsReachable": True,
            "options": {
                "store-timeout-s": 60,
                "tenant-memory-share": 0.5,
                "tenant-streams": 1000000,
                "tracing": True,
            },
            "tolerations": [{"key": "shuffle", "operator": "Exists"}],
            "nodeSelector": {"pool": "shuffle"},
            "store": {
                "url": "s3://bucket/cosco?region=eu-central-1",
                "volume": {"kind": "none"},
                "credentials": {"secret": "bucket"},
                "env": {"AWS_REGION": "eu-central-1"},
            },
        },
        "metadata": {"options": {"daemon-lease-s": 15, "history-s": 0}},
    },
    "two tiers": {
        "daemons": {
            "servesOnS": 900,
            "store": {"url": "flash=file:///var/lib/cosco/flash,then=s3://bucket/cosco"},
        }
    },
    "a shared file system": {
        "daemons": {
            "store": {
                "url": "file:///var/lib/cosco/prod",
                "volume": {"kind": "existingClaim", "claimName": "shared"},
            }
        }
    },
    "insecure": {"insecure": True, **_REACHABLE, "networkPolicy": {"enabled": True}},
    "no HTTP": {"metadata": {"httpPort": 0}, "daemons": {"metricsPort": 0}},
    "insecure, no HTTP": {
        "insecure": True,
        "metadata": {"httpPort": 0},
        "daemons": {"metricsPort": 0, "processes": 2},
    },
    "on each node": {
        "daemons": {
            "kind": "DaemonSet",
            "hostNetwork": True,
            "store": {"volume": {"kind": "hostPath", "hostPath": "/mnt/disk1/cosco"}},
        }
    },
    "on each node, insecure": {
        "insecure": True,
        "daemons": {
            "kind": "DaemonSet",
            "fullStoreWaitS": 300,
            "store": {"volume": {"kind": "emptyDir"}},
        },
    },
    "IPv6": {
        "insecure": True,
        "listenHost": "[::]",
        **_REACHABLE,
        "daemons": {"advertiseHost": "[$(POD_IP)]"},
    },
}


def setting(values: Values, path: str) -> Any:
    """Return one value, by its full name, as it was given or is taken otherwise."""
    found: Any = values
    default: Any = yaml.safe_load((CHART / "values.yaml").read_text())
    for name in path.split("."):
        found, default = (found or {}).get(name), default[name]
    return default if found is None else found


class Refused(Exception):
    """Helm took the values not; says what it said."""


def run_helm(*arguments: str | Path, given: str = "") -> str:
    """Return what Helm prints, who reads `given`; raises Refused."""
    done = subprocess.run(
        [HELM, *arguments], input=given, capture_output=True, text=True, timeout=_TIMEOUT_S,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def _template(values: Values, chart: Path, *options: str) -> str:
    arguments = ("template", "cosco", chart, "--namespace", NAMESPACE, "--kube-version", KUBERNETES)
    return run_helm(*arguments, "--values", "-", *options, given=json.dumps(values))


def render(values: Values) -> list[Manifest]:
    """Return all manifests of the chart; raises Refused."""
    return [one for one in yaml.safe_load_all(_template(values, CHART)) if one]


def notes(values: Values, folder: Path) -> str:
    """Return what is told to who installs the chart, of which a copy is made in `folder`.

    Helm tells it only where there is a cluster, so it is made a manifest of the copy.
    """
    chart = folder / "chart"
    shutil.copytree(CHART, chart)
    text = (chart / "templates/NOTES.txt").read_text()
    template = chart / "templates/notes.yaml"
    template.write_text(
        '{{ define "notes" }}' + text + '{{ end }}notes: {{ include "notes" . | toJson }}'
    )
    made = _template(values, chart, "--show-only", "templates/notes.yaml")
    told: str = yaml.safe_load(made)["notes"]
    return told


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    """Return the manifests of some kinds."""
    return [one for one in manifests if one["kind"] in kinds]


def workloads(manifests: list[Manifest]) -> tuple[Manifest, Manifest]:
    """Return what runs the metadata service, and what runs daemons."""
    found = of_kind(manifests, "StatefulSet", "DaemonSet")
    by_name = {one["metadata"]["name"]: one for one in found}
    assert by_name.keys() == {"cosco-metadata", "cosco-daemon"}
    return by_name["cosco-metadata"], by_name["cosco-daemon"]


def pod_of(workload: Manifest) -> dict[str, Any]:
    """Return what the pods of a workload are."""
    pod: dict[str, Any] = workload["spec"]["template"]["spec"]
    return pod


def container_of(workload: Manifest) -> dict[str, Any]:
    """Return the one container in which the service runs."""
    [container] = pod_of(workload)["containers"]
    found: dict[str, Any] = container
    return found


def environment(container: Manifest) -> dict[str, str]:
    """Return the variables of a container, as Kubernetes would set them."""
    found = {}
    for one in container.get("env", []):
        assert ("value" in one) != ("valueFrom" in one)
        found[one["name"]] = one.get("value") or FIELDS[one["valueFrom"]["fieldRef"]["fieldPath"]]
    return found


def expanded(container: Manifest, texts: list[str]) -> list[str]:
    """Return arguments as Kubernetes has them; raises KeyError for a variable that is not set."""
    variables = environment(container)
    return [re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], text) for text in texts]


def arguments(workload: Manifest) -> list[str]:
    """Return what the service of a workload is given."""
    container = container_of(workload)
    return expanded(container, container["args"])


def parsed(command: click.Command, given: list[str]) -> dict[str, Any]:
    """Return the options as the real command line reads them; raises click.ClickException."""
    with command.make_context(command.name or "", list(given)) as context:
        return {name: value for name, value in context.params.items()
                if name not in ("log_level", "log_format")}  # fmt: skip


def configurations(manifests: list[Manifest]) -> tuple[MetadataConfig, DaemonConfig]:
    """Return what the two services are told, and would not refuse."""
    metadata, daemons = workloads(manifests)
    assert container_of(metadata)["command"] == ["cosco-metadata"]
    assert container_of(daemons)["command"] == ["cosco-shuffled"]
    first = MetadataConfig(**parsed(metadata_command, arguments(metadata)))
    second = DaemonConfig(**parsed(daemon_command, arguments(daemons)))
    first.validate()
    second.validate()
    return first, second


def secret_volumes(pod: Manifest) -> dict[str, dict[str, Any]]:
    """Return the volumes of a pod that are Secrets, by their names."""
    return {one["name"]: one["secret"] for one in pod["volumes"] if "secret" in one}


def probes(container: Manifest) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each probe of a container with its name."""
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        if name in container:
            yield name, container[name]
