"""What the chart makes is valid, says what is meant, and is what the services take.

No cluster is needed, and none is here: manifests are compared with the schemas of Kubernetes, and
with the command lines and limits of the services.
"""

from __future__ import annotations

import json
from typing import Any

import kubernetes_validate
import pytest
import yaml
from support import helm_chart
from support.helm_chart import (
    NAMESPACE,
    ROOT,
    VALUES,
    Manifest,
    configurations,
    container_of,
    of_kind,
    pod_of,
    probes,
    secret_volumes,
    setting,
    workloads,
)

from cosco.config import is_loopback, parse_address
from cosco.shuffle_service import server
from cosco.shuffle_service.state import draining

pytestmark = pytest.mark.skipif(not helm_chart.HELM.exists(), reason=helm_chart.NO_HELM)

#: The oldest one that Chart.yaml takes, and the newest one whose schemas are there.
VERSIONS = ("1.29.0", kubernetes_validate.latest_version())
#: Of the operator of Prometheus; Kubernetes has no schemas of them.
FOREIGN = {"PodMonitor", "PrometheusRule", "ServiceMonitor"}
MIB = 1 << 20
#: What a daemon was measured to have beside --memory: docs/operating.md.
BESIDE_MIB = 130
OPENAPI = json.loads((ROOT / "docs/openapi.json").read_text())


@pytest.fixture(params=VALUES, scope="module")
def values(request: pytest.FixtureRequest) -> Any:
    return VALUES[request.param]


@pytest.fixture(scope="module")
def manifests(values: Any) -> list[Manifest]:
    return helm_chart.render(values)


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def pod_labels(workload: Manifest) -> dict[str, str]:
    labels: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return labels


@pytest.mark.parametrize("version", VERSIONS)
def test_each_manifest_is_one_of_kubernetes(manifests: list[Manifest], version: str) -> None:
    own = [one for one in manifests if one["kind"] not in FOREIGN]
    assert len(own) >= 5
    for one in own:
        used = kubernetes_validate.validate(one, version, strict=True)
        assert used.startswith(version.rpartition(".")[0])


def test_what_is_no_manifest_is_noticed(manifests: list[Manifest]) -> None:
    """In each part that the chart fills."""
    daemons = json.loads(json.dumps(workloads(manifests)[1]))
    daemons["spec"]["template"]["spec"]["containers"][0]["readOnly"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(daemons, VERSIONS[1], strict=True)


def test_services_take_the_options_that_they_are_given(manifests: list[Manifest]) -> None:
    metadata, daemon = configurations(manifests)
    assert daemon.metadata == f"cosco-metadata.{NAMESPACE}.svc:7070"
    assert parse_address(metadata.listen)[1] == parse_address(daemon.metadata)[1]
    assert metadata.store == "sqlite:////var/lib/cosco/metadata.db"


def test_the_host_id_is_the_name_of_the_node(manifests: list[Manifest]) -> None:
    container = container_of(workloads(manifests)[1])
    assert "--host-id=$(NODE_NAME)" in container["args"]
    [node] = [one for one in container["env"] if one["name"] == "NODE_NAME"]
    assert node["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName"
    assert configurations(manifests)[1].host_id == helm_chart.FIELDS["spec.nodeName"]


def mib(text: str) -> int:
    assert text.endswith("Mi"), text
    return int(text.removesuffix("Mi"))


def test_memory_is_the_budget_and_what_is_beside_it(manifests: list[Manifest], values: Any) -> None:
    metadata, daemon = configurations(manifests)
    beside_mib = setting(values, "daemons.overheadMiB")
    assert beside_mib >= BESIDE_MIB
    each = beside_mib * MIB + 2 * daemon.inflight_bytes + daemon.unfinished_bytes
    if daemon.tiers is not None:  # two moves at a time: docs/architecture/tiers.md
        each += 128 * MIB
    state = setting(values, "metadata.stateMiB") * MIB
    limits = (
        state + metadata.waiting_bytes + metadata.unfinished_bytes,
        daemon.memory + daemon.processes * each,
    )
    for workload, limit in zip(workloads(manifests), limits, strict=True):
        resources = container_of(workload)["resources"]
        assert mib(resources["limits"]["memory"]) * MIB == limit
        # Else a pod is put where its memory is another one's.
        assert resources["requests"]["memory"] == resources["limits"]["memory"]
        assert "cpu" not in resources["limits"]


def test_a_daemon_has_time_to_drain(manifests: list[Manifest], values: Any) -> None:
    _, daemon = configurations(manifests)
    store_s = daemon.full_store_wait_s + server._DRAIN_MORE_S
    needs_s = store_s + draining.DROPS_S + draining._LAST_STORE_S + server._LAST_CALLS_S
    serves_on_s = setting(values, "daemons.servesOnS")
    metadata, daemons = map(pod_of, workloads(manifests))
    assert daemons["terminationGracePeriodSeconds"] >= needs_s + serves_on_s
    # As packaging/systemd/cosco-metadata.service.
    assert metadata["terminationGracePeriodSeconds"] == 30
    for pod in (metadata, daemons):  # SIGTERM is what drains, and nothing has to be called before
        assert all("lifecycle" not in one for one in pod["containers"])


def test_probes_ask_what_is_there(manifests: list[Manifest]) -> None:
    metadata, daemons = workloads(manifests)
    told = configurations(manifests)
    for workload, config, http in (
        (metadata, told[0], told[0].http_listen),
        (daemons, told[1], told[1].metrics_listen),
    ):
        found = dict(probes(container_of(workload)))
        assert {"livenessProbe", "readinessProbe"} <= found.keys()
        for name, probe in found.items():
            path = "/readyz" if name == "readinessProbe" else "/healthz"
            assert path in OPENAPI["paths"]
            if not http:
                kind = "grpc" if path == "/readyz" and not config.tls_cert else "tcpSocket"
                assert probe[kind]["port"] == parse_address(config.listen)[1]
            elif "exec" in probe:
                *_, asked, port, count = probe["exec"]["command"]
                assert (asked, int(port)) == (path, parse_address(http)[1])
                assert int(count) == getattr(config, "processes", 1)
                # It asks in plain HTTP.
                assert is_loopback(http) or not config.tls_cert or workload is daemons
            else:
                get = probe["httpGet"]
                assert getattr(config, "processes", 1) == 1  # it asks one alone
                assert not is_loopback(http)
                assert (get["path"], get["port"]) == (path, parse_address(http)[1])
                is_https = bool(config.tls_cert) and workload is metadata
                assert get["scheme"] == ("HTTPS" if is_https else "HTTP")
                assert not is_https or config.tls_client_auth == "optional"
            # The service itself says after 5 s that its event loop stands still.
            assert probe["timeoutSeconds"] > 5
    starting = container_of(metadata)["startupProbe"]
    assert starting["failureThreshold"] * starting["periodSeconds"] >= 300


def test_secrets_are_files_and_nothing_else(manifests: list[Manifest]) -> None:
    """They are named, and neither in values, variables, arguments nor ConfigMaps."""
    assert not of_kind(manifests, "Secret", "ConfigMap")
    for workload in workloads(manifests):
        pod = pod_of(workload)
        secrets = secret_volumes(pod)
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert "envFrom" not in container
            for variable in container.get("env", []):
                assert "secretKeyRef" not in variable.get("valueFrom", {})
            for mount in container.get("volumeMounts", []):
                assert "subPath" not in mount  # which is never renewed
                assert (mount["name"] in secrets) == mount["mountPath"].startswith("/etc/cosco/")
                assert mount.get("readOnly", False) == (mount["name"] in secrets)
        for secret in secrets.values():
            assert secret["defaultMode"] == 0o440  # for the group, which fsGroup makes the pod's


def test_files_that_options_name_are_mounted(manifests: list[Manifest]) -> None:
    for workload, config in zip(workloads(manifests), configurations(manifests), strict=True):
        pod, container = pod_of(workload), container_of(workload)
        volumes = {one["name"]: one for one in pod["volumes"]}
        folders = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        files = [config.tls_cert, config.tls_key, config.tls_ca, getattr(config, "tokens", "")]
        files += [text for text in helm_chart.environment(container).values() if text[0] == "/"]
        for file in filter(None, files):
            folder, _, name = file.rpartition("/")
            secret = volumes[folders[folder]]["secret"]
            kept = {one["path"] for one in secret.get("items", [])}
            # The keys of a Secret of TLS are named so by Kubernetes.
            assert name in (kept or {"tls.crt", "tls.key", "ca.crt"})
        claims = {
            one["metadata"]["name"] for one in workload["spec"].get("volumeClaimTemplates", [])
        }
        assert set(folders.values()) <= volumes.keys() | claims
        assert len(folders) == len(container["volumeMounts"])
        if "file:" in str(config.store) or "sqlite:" in config.store:
            assert "/var/lib/cosco" in folders


def test_pods_may_do_as_little_as_they_can(manifests: list[Manifest]) -> None:
    """As the profile `restricted` of Kubernetes asks, and without writing to the image."""
    for workload in workloads(manifests):
        pod = pod_of(workload)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 65532
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert "limits" in container["resources"]
    [account] = of_kind(manifests, "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    assert not of_kind(manifests, "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


def test_there_is_one_metadata_service_and_its_disk_is_its_own(manifests: list[Manifest]) -> None:
    metadata, _ = workloads(manifests)
    assert metadata["kind"] == "StatefulSet" and metadata["spec"]["replicas"] == 1
    [claim] = metadata["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    # A pod with its disk comes back later than a process does.
    assert configurations(manifests)[0].adoption_grace_s >= 60


def test_daemons_are_on_different_hosts_and_go_one_at_a_time(manifests: list[Manifest]) -> None:
    _, daemons = workloads(manifests)
    budgets = of_kind(manifests, "PodDisruptionBudget")
    if daemons["kind"] == "DaemonSet":
        assert daemons["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 1}
        assert not budgets  # Kubernetes cannot count what such a budget asks for
        return
    [budget] = budgets
    assert budget["spec"]["maxUnavailable"] == 1
    assert selects(budget["spec"]["selector"]["matchLabels"], pod_labels(daemons))
    [spread] = pod_of(daemons)["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["whenUnsatisfiable"] == "DoNotSchedule" and spread["maxSkew"] == 1
    assert selects(spread["labelSelector"]["matchLabels"], pod_labels(daemons))


def test_services_lead_to_pods(manifests: list[Manifest]) -> None:
    services = {one["metadata"]["name"]: one["spec"] for one in of_kind(manifests, "Service")}
    metadata, daemons = workloads(manifests)
    assert services.keys() == {"cosco-metadata", "cosco-daemons"}
    for name, ours, other in (
        ("cosco-metadata", metadata, daemons),
        ("cosco-daemons", daemons, metadata),
    ):
        service = services[name]
        assert selects(service["selector"], pod_labels(ours))
        assert not selects(service["selector"], pod_labels(other))
        assert ours["spec"]["selector"]["matchLabels"] == service["selector"]
        assert ours["spec"].get("serviceName", name) == name
        assert service["publishNotReadyAddresses"] is True
        ports = {one["name"]: one["containerPort"] for one in container_of(ours)["ports"]}
        for port in service["ports"]:
            assert ports[port["targetPort"]] == port["port"]
    assert services["cosco-daemons"]["clusterIP"] == "None"
    told = configurations(manifests)
    assert services["cosco-metadata"]["ports"][0]["port"] == parse_address(told[0].listen)[1]
    assert services["cosco-daemons"]["ports"][0]["port"] == parse_address(told[1].listen)[1]


def test_ports_are_those_that_are_served(manifests: list[Manifest]) -> None:
    metadata, daemon = configurations(manifests)
    served = {parse_address(metadata.listen)[1]}
    if metadata.http_listen and not is_loopback(metadata.http_listen):
        served.add(parse_address(metadata.http_listen)[1])
    each = [daemon] if daemon.processes == 1 else [
        daemon.of_process(index) for index in range(daemon.processes)
    ]  # fmt: skip
    of_daemons = {parse_address(one.listen)[1] for one in each}
    of_daemons |= {parse_address(one.metrics_listen)[1] for one in each
                   if one.metrics_listen and not is_loopback(one.metrics_listen)}  # fmt: skip
    for workload, ports in zip(workloads(manifests), (served, of_daemons), strict=True):
        assert {one["containerPort"] for one in container_of(workload)["ports"]} == ports


def test_a_daemon_is_reached_by_a_name_that_a_certificate_can_have(
    manifests: list[Manifest],
) -> None:
    metadata, daemon = configurations(manifests)
    host, _ = parse_address(daemon.advertise)
    pod = pod_of(workloads(manifests)[1])
    if pod.get("hostNetwork"):
        assert host == helm_chart.FIELDS["spec.nodeName"]
        assert pod["dnsPolicy"] == "ClusterFirstWithHostNet"
    elif daemon.tls_cert:
        assert host == f"cosco-daemon-1.cosco-daemons.{NAMESPACE}.svc"
        [waits] = pod["initContainers"]
        assert helm_chart.expanded(waits, waits["command"])[-1] == host
    else:
        assert host in (
            helm_chart.FIELDS["status.podIP"],
            f"cosco-daemon-1.cosco-daemons.{NAMESPACE}.svc",
        )
    assert bool(metadata.tls_cert) == bool(daemon.tls_cert)
    if metadata.http_listen and not is_loopback(metadata.http_listen):
        assert f"cosco-metadata.{NAMESPACE}.svc" in metadata.http_hosts


def test_policies_let_in_services_and_clients() -> None:
    clients = {"podSelector": {"matchLabels": {"app": "etl"}}}
    manifests = helm_chart.render(
        {"networkPolicy": {"enabled": True, "clients": [clients]}, "daemons": {"processes": 3}}
    )
    metadata, daemons = workloads(manifests)
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind(manifests, "NetworkPolicy")}
    for policy, workload, ports in (
        (policies["cosco-metadata"], metadata, {"port": 7070}),
        (policies["cosco-daemon"], daemons, {"port": 7071, "endPort": 7073}),
    ):
        assert selects(policy["podSelector"]["matchLabels"], pod_labels(workload))
        [rule] = policy["ingress"]
        assert rule["ports"] == [ports]
        assert clients in rule["from"]
        peers = [one["podSelector"]["matchLabels"] for one in rule["from"]]
        assert any(selects(peer, pod_labels(daemons)) for peer in peers)
    peers = [
        one["podSelector"]["matchLabels"] for one in policies["cosco-daemon"]["ingress"][0]["from"]
    ]
    assert any(selects(peer, pod_labels(metadata)) for peer in peers)


def test_alerts_are_those_of_the_repository() -> None:
    manifests = helm_chart.render(VALUES["everything with TLS and tokens"])
    [rules] = of_kind(manifests, "PrometheusRule")
    text = (ROOT / "packaging/prometheus/cosco-alerts.yml").read_text()
    assert rules["spec"] == yaml.safe_load(text)
    [metadata] = of_kind(manifests, "ServiceMonitor")
    [daemons] = of_kind(manifests, "PodMonitor")
    services = {one["metadata"]["name"]: one for one in of_kind(manifests, "Service")}
    of_service = services["cosco-metadata"]["metadata"]["labels"]
    for monitor, workload, labels, key in (
        (metadata, workloads(manifests)[0], of_service, "endpoints"),
        (
            daemons,
            workloads(manifests)[1],
            pod_labels(workloads(manifests)[1]),
            "podMetricsEndpoints",
        ),
    ):
        assert selects(monitor["spec"]["selector"]["matchLabels"], labels)
        # The jobs that the rules ask for.
        assert labels[monitor["spec"]["jobLabel"]] == container_of(workload)["command"][0]
        ports = {one["name"] for one in container_of(workload)["ports"]}
        assert {one["port"] for one in monitor["spec"][key]} <= ports
    [endpoint] = metadata["spec"]["endpoints"]
    assert endpoint["scheme"] == "https"
    assert endpoint["authorization"]["credentials"] == {"name": "scraper", "key": "token"}


def test_nothing_of_monitoring_is_made_unless_it_is_asked_for() -> None:
    assert not of_kind(helm_chart.render({}), *FOREIGN, "NetworkPolicy")
