"""The chart's promises, each on what Helm really renders."""

import gzip
import json
import re
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcluster import scraping
from localcluster.addons import TRAINING_NAMESPACE
from videogen_operator import resources
from videogen_operator.inbound.inbox_address import slice_of
from videogen_operator.kinds import KINDS
from videogen_operator.plan import Resource
from videogen_operator.settings import Settings, from_environment

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/videogen"
Values = dict[str, Any]
Objects = list[dict[str, Any]]
Render = Callable[[Values], Objects]
Helm = Callable[[str, Values], subprocess.CompletedProcess[str]]

EVERYTHING: Values = {
    "alertWebhook": {"existingSecret": "tokens", "keys": ["new", "old"]},
    "alerts": {"configMap": True, "window": "15s", "interval": "2s"},
    "commonLabels": {"team": "video"},
    "crds": {"annotations": {"example.org/note": "x"}},
    "networkPolicy": {"enabled": True, "egressPorts": [53, 443]},
    "podDisruptionBudget": {"enabled": True},
    "podMonitor": {"enabled": True},
    "prometheus": {"url": "https://p", "existingSecret": "access", "caKey": "ca.crt", "headers": {"X-Scope-OrgID": "video"}},
    "prometheusRule": {"enabled": True},
}
SCENARIOS = {
    "by default": {},
    "with everything switched on": EVERYTHING,
    "in two namespaces only": {"watchNamespaces": ["one", "system"]},
    "with everything switched on in one namespace": EVERYTHING | {"watchNamespaces": ["one"], "gateway": {"namespace": "one"}},
    "with one replica": {"replicas": 1, "strategy": "Recreate"},
}
scenarios = pytest.mark.parametrize("values", SCENARIOS.values(), ids=SCENARIOS.keys())


def of_kind(objects: Objects, kind: str) -> Objects:
    return [item for item in objects if item["kind"] == kind]


def only(objects: Objects, kind: str, name: str | None = None) -> dict[str, Any]:
    found = [item for item in of_kind(objects, kind) if name is None or item["metadata"]["name"] == name]
    assert len(found) == 1, f"{kind} {name}: {[item['metadata']['name'] for item in found]}"
    return found[0]


def operator_pod(objects: Objects) -> dict[str, Any]:
    return dict(only(objects, "Deployment")["spec"]["template"]["spec"])


def environment(objects: Objects) -> dict[str, str]:
    variables = operator_pod(objects)["containers"][0]["env"]
    return {variable["name"]: variable.get("value", "videogen-operator-abc") for variable in variables}


# --- values ---------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Values, str]] = {
    "an unknown value": ({"replica": 2}, "replica"),
    "an unknown value below a known one": ({"gateway": {"listener": "http"}}, "listener"),
    "a negative number of replicas": ({"replicas": -1}, "replicas"),
    "a port as text": ({"service": {"inboxPort": "8080"}}, "inboxPort"),
    "a digest that is none": ({"image": {"digest": "latest"}}, "digest"),
    "a Prometheus address without scheme": ({"prometheus": {"url": "prometheus:9090"}}, "prometheus"),
    "a Prometheus Secret without a key": ({"prometheus": {"existingSecret": "x", "tokenKey": ""}}, "prometheus"),
    "a Prometheus key without its Secret": ({"prometheus": {"caKey": "ca.crt"}}, "prometheus"),
    "a token of Prometheus among the headers": ({"prometheus": {"headers": {"authorization": "Basic eA=="}}}, "authorization"),
    "a header with a line break": ({"prometheus": {"headers": {"X-Scope-OrgID": "a\nb"}}}, "X-Scope-OrgID"),
    "a pull secret in capitals": ({"imagePullSecrets": [{"name": "Registry"}]}, "imagePullSecrets"),
    "a window without unit": ({"alerts": {"window": "60"}}, "window"),
    "a namespace in capitals": ({"watchNamespaces": ["Models"]}, "watchNamespaces"),
    "a token secret without a key": ({"alertWebhook": {"existingSecret": "x", "keys": []}}, "keys"),
    "a strategy that does not exist": ({"strategy": "OnDelete"}, "strategy"),
    "an image repository with a space": ({"trainer": {"image": {"repository": "a b"}}}, "repository"),
}


@pytest.mark.parametrize(("values", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_helm_refuses(helm: Helm, values: Values, named: str) -> None:
    result = helm("template", values)
    assert result.returncode != 0
    assert named in result.stderr, result.stderr


def leaves(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The values that a user sets: what the schema describes and does not divide further."""
    if schema.get("properties"):
        for name, inner in schema["properties"].items():
            yield from leaves(inner, f"{path}.{name}" if path else name)
    elif path != "global":
        yield path, schema


def values_comments() -> dict[str, str]:
    """Path of each value in values.yaml -> its `# --` comment."""
    comments: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in (CHART / "values.yaml").read_text().splitlines():
        text = line.strip()
        if text.startswith("# -- ") or (text.startswith("# ") and comment):
            comment.append(text.removeprefix("# -- ").removeprefix("# "))
        elif match := re.match(r"( *)([A-Za-z]+):", line):
            stack = [entry for entry in stack if entry[0] < len(match[1])]
            stack.append((len(match[1]), match[2]))
            if comment:
                comments[".".join(key for _, key in stack)] = " ".join(comment)
            comment = []
    return comments


def test_every_value_has_the_same_description_in_values_schema_and_readme() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())

    def default(path: str) -> Any:
        value = defaults
        for key in path.split("."):
            value = value[key]
        return value

    described = {path: leaf["description"] for path, leaf in leaves(schema)}
    assert described == values_comments()
    rows = [f"| `{path}` | `{json.dumps(default(path))}` | {text} |" for path, text in described.items()]
    table = (CHART / "README.md").read_text().split("<!-- values -->")[1].split("<!-- /values -->")[0]
    assert table.strip().splitlines()[2:] == rows


def test_the_schema_refuses_unknown_values_at_every_level() -> None:
    def check(schema: dict[str, Any], path: str) -> None:
        if "properties" in schema:
            assert schema["additionalProperties"] is False, path
            for name, inner in schema["properties"].items():
                assert inner["description"], f"{path}.{name}"
                check(inner, f"{path}.{name}")

    check(json.loads((CHART / "values.schema.json").read_text()), "")


def test_nothing_in_the_chart_is_random_or_looked_up() -> None:
    source = "\n".join(path.read_text() for path in (CHART / "templates").iterdir())
    assert not re.search(r"(?<!-)\b(lookup|rand\w+|genCA|genSignedCert|genPrivateKey|now|uuidv4|htpasswd)\b\s*[\"(A-Z]", source)
    hooked = [path.name for path in (CHART / "templates").iterdir() if "helm.sh/hook" in path.read_text()]
    assert hooked == ["certificate.yaml"], "Argo CD knows Helm's hooks as its own, and a hook's objects are not compared with the cluster's"


@scenarios
def test_every_object_is_named_labelled_and_unique(render: Render, values: Values) -> None:
    objects = render(values)
    keys = [(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in objects]
    assert len(keys) == len(set(keys))
    for item in objects:
        assert item["metadata"]["labels"]["app.kubernetes.io/part-of"] == "videogen", item["metadata"]["name"]
        for key, value in values.get("commonLabels", {}).items():
            assert item["metadata"]["labels"][key] == value


def test_a_digest_wins_over_a_tag(render: Render) -> None:
    digest = "sha256:" + "a" * 64
    objects = render({"image": {"repository": "example.org/op", "tag": "1", "digest": digest}})
    assert operator_pod(objects)["containers"][0]["image"] == f"example.org/op@{digest}"


def test_the_notes_teach_the_next_command(helm: Helm) -> None:
    result = helm("install", {})
    assert result.returncode == 0, result.stderr
    assert "kubectl -n system rollout status deployment/videogen-operator" in result.stdout
    assert "create secret generic videogen-alert-webhook" in result.stdout
    assert "--set prometheus.url=" in result.stdout
    complete = helm("install", {"alertWebhook": {"existingSecret": "x"}, "prometheus": {"url": "http://p:9090"}})
    assert "create secret" not in complete.stdout
    assert "prometheus.url=" not in complete.stdout


# --- the operator's pod ---------------------------------------------------------------------------------------------


def all_pods(objects: Objects) -> list[dict[str, Any]]:
    specs = [item["spec"].get("jobTemplate", item)["spec"] for item in objects if item["kind"] in {"Deployment", "Job", "CronJob"}]
    return [spec["template"]["spec"] for spec in specs]


@scenarios
def test_every_pod_meets_pod_security_restricted(render: Render, values: Values) -> None:
    pods = all_pods(render(values))
    assert len(pods) == 3, "the operator, and whoever makes its certificate, once and every week"
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all(set(volume) - {"name"} <= {"configMap", "emptyDir", "projected", "secret"} for volume in pod.get("volumes", []))
        for container in pod["containers"] + pod.get("initContainers", []):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "privileged": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not any("hostPort" in port for port in container.get("ports", []))
            assert container["resources"]["requests"]
            assert container["resources"]["limits"]["memory"]
    assert {"livenessProbe", "readinessProbe"} <= operator_pod(render(values))["containers"][0].keys()


@scenarios
def test_the_operator_accepts_its_environment(render: Render, values: Values) -> None:
    settings = from_environment(environment(render(values)))
    assert settings.operator_namespace == "system"
    assert settings.namespaces == tuple(values.get("watchNamespaces", ()))
    assert settings.progress_url == f"https://videogen-operator.system:{settings.inbox_port}"


SETTINGS: dict[str, tuple[Values, str, Any]] = {
    "the trainer's image": ({"trainer": {"image": {"repository": "example.org/t", "tag": "2"}}}, "trainer_image", "example.org/t:2"),
    "the serving image's default tag is the chart's appVersion": ({}, "serving_image", "localhost/videogen/serving:0.1.0"),
    "a Triton with known holes is not started": ({}, "serving_development", ""),
    "a Triton with known holes may be started": ({"serving": {"development": True}}, "serving_development", "true"),
    "the pull policy": ({"image": {"pullPolicy": "Never"}}, "image_pull_policy", "Never"),
    "no pull secrets by default": ({}, "image_pull_secrets", "[]"),
    "pull secrets": ({"imagePullSecrets": [{"name": "registry"}]}, "image_pull_secrets", '[{"name":"registry"}]'),
    "where trainers are placed": (
        {"trainer": {"placement": {"nodeSelector": {"pool": "gpu"}}}},
        "trainer_placement",
        '{"nodeSelector":{"pool":"gpu"}}',
    ),
    "nodes that no autoscaler brings": ({}, "nodes_on_demand", ""),
    "nodes that an autoscaler brings": ({"trainer": {"nodesOnDemand": True}}, "nodes_on_demand", "true"),
    "where servers are placed": (
        {"serving": {"placement": {"priorityClassName": "video"}}},
        "serving_placement",
        '{"priorityClassName":"video"}',
    ),
    "the user of the pods": ({"podUser": 1000}, "pod_user", 1000),
    "the Gateway": ({"gateway": {"name": "eg"}}, "gateway_name", "eg"),
    "the Gateway's namespace": ({"gateway": {"namespace": "gw"}}, "gateway_namespace", "gw"),
    "the Gateway's namespace is the chart's by default": ({}, "gateway_namespace", "system"),
    "the Gateway's listener": ({"gateway": {"sectionName": "http"}}, "gateway_section", "http"),
    "the Gateway's controller": ({}, "gateway_controller", "gateway.envoyproxy.io/gatewayclass-controller"),
    "the controller of another gateway": ({"gateway": {"controllerName": "istio.io/gateway"}}, "gateway_controller", "istio.io/gateway"),
    "the domain": ({"domain": "example.org"}, "domain", "example.org"),
    "the host names": ({"hostname": "<service>.<namespace>.<domain>"}, "hostname", "<service>.<namespace>.<domain>"),
    "Prometheus": ({"prometheus": {"url": "http://p:9090"}}, "prometheus_url", "http://p:9090"),
    "no access to Prometheus by default": ({}, "prometheus_token_file", None),
    "no authority of Prometheus by default": ({}, "prometheus_ca", ""),
    "headers for Prometheus": (
        {"prometheus": {"headers": {"X-Scope-OrgID": "video"}}},
        "prometheus_headers",
        '{"X-Scope-OrgID":"video"}',
    ),
    "no tokens by default": ({}, "alert_token_files", ()),
    "the Lease's duration": ({"leaseSeconds": 30}, "lease_seconds", 30),
    "the resync": ({"resyncSeconds": 120}, "resync_seconds", 120),
    "the concurrency": ({"concurrency": 4}, "concurrency", 4),
    "the log level": ({"logLevel": "debug"}, "log_level", "DEBUG"),
}


@pytest.mark.parametrize(("values", "field", "expected"), SETTINGS.values(), ids=SETTINGS.keys())
def test_a_value_becomes_a_setting(render: Render, values: Values, field: str, expected: Any) -> None:
    assert getattr(from_environment(environment(render(values))), field) == expected


def test_token_files_lie_where_the_secret_is_mounted(render: Render) -> None:
    objects = render(EVERYTHING)
    settings: Settings = from_environment(environment(objects))
    pod = operator_pod(objects)
    volume = next(volume for volume in pod["volumes"] if volume["name"] == "alert-webhook")
    mount = next(mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == volume["name"])
    assert mount["readOnly"] is True
    assert volume["secret"]["secretName"] == "tokens"
    expected = [Path(mount["mountPath"]) / item["path"] for item in volume["secret"]["items"]]
    assert list(settings.alert_token_files) == expected == [Path(mount["mountPath"]) / "new", Path(mount["mountPath"]) / "old"]


@pytest.mark.parametrize(
    ("keys", "files"),
    [
        ({}, {"token"}),
        ({"caKey": "ca.crt"}, {"token", "ca.crt"}),
        ({"tokenKey": "", "caKey": "ca.crt"}, {"ca.crt"}),
        ({"tokenKey": "both", "caKey": "both"}, {"both"}),
    ],
    ids=("token", "authority and token", "authority", "one file"),
)
def test_what_prometheus_asks_for_lies_where_its_secret_is_mounted(render: Render, keys: Values, files: set[str]) -> None:
    objects = render({"prometheus": {"url": "https://p", "existingSecret": "access"} | keys})
    settings, pod = from_environment(environment(objects)), operator_pod(objects)
    (volume,) = [one for one in pod["volumes"] if one["name"] == "prometheus"]
    (mount,) = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "prometheus"]
    assert (volume["secret"]["secretName"], mount["readOnly"]) == ("access", True)
    assert sorted(item["path"] for item in volume["secret"]["items"]) == sorted(files), "nothing else of the Secret"
    named = {str(path) for path in (settings.prometheus_token_file, settings.prometheus_ca) if path}
    assert named == {f"{mount['mountPath']}/{file}" for file in files}


def test_two_replicas_of_which_one_may_go_and_a_rolling_update_has_always_one_that_is_ready(render: Render) -> None:
    deployment = only(render({}), "Deployment")["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert only(render({}), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert only(render({"strategy": "Recreate"}), "Deployment")["spec"]["strategy"] == {"type": "Recreate"}


@scenarios
def test_the_inbox_leads_to_the_pod_that_leads_and_to_no_other(render: Render, values: Values) -> None:
    """The Service selects no pod; the leader points it at itself, under the name that its rights have."""
    objects = render(values)
    settings, service = from_environment(environment(objects)), only(objects, "Service")
    labels = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    assert not service["spec"]["selector"].items() <= labels
    written = slice_of(settings)
    assert written["metadata"]["labels"]["kubernetes.io/service-name"] == service["metadata"]["name"]
    rules = [rule for role in of_kind(objects, "Role") for rule in role["rules"] if rule["resources"] == ["endpointslices"]]
    assert [rule["resourceNames"] for rule in rules] == [[written["metadata"]["name"]]]
    assert written["metadata"]["namespace"] == service["metadata"]["namespace"] == "system"


def test_the_kubelet_adds_no_variables_that_the_operator_would_refuse(render: Render) -> None:
    assert operator_pod(render({}))["enableServiceLinks"] is False


@scenarios
def test_ports_of_service_monitor_probes_and_settings_agree(render: Render, values: Values) -> None:
    objects = render(values)
    settings = from_environment(environment(objects))
    container = operator_pod(objects)["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"inbox": settings.inbox_port, "metrics": settings.metrics_port, "health": settings.health_port}
    offered = {port["name"]: port["port"] for port in only(objects, "Service")["spec"]["ports"]}
    assert offered == {port["name"]: port["port"] for port in slice_of(settings)["ports"]}
    assert {container[probe]["httpGet"]["port"] for probe in ("livenessProbe", "readinessProbe")} == {"health"}
    for monitor in of_kind(objects, "PodMonitor"):
        assert [endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]] == ["metrics"]


def test_a_pod_with_a_releases_labels_is_believed_only_about_its_requests(render: Render) -> None:
    """With `videogen_leader` of its own it would silence the alert about an operator that is deaf."""
    monitors = of_kind(render({"podMonitor": {"enabled": True}}), "PodMonitor")
    (releases,) = [one for one in monitors if one["metadata"]["name"].endswith("-releases")]
    (endpoint,) = releases["spec"]["podMetricsEndpoints"]
    assert endpoint["metricRelabelings"] == [{"sourceLabels": ["__name__"], "regex": scraping.RELEASE_METRICS, "action": "keep"}]
    assert releases["spec"]["sampleLimit"] == scraping.SAMPLES
    assert [one["metadata"]["name"] for one in monitors if "honorLabels" in json.dumps(one)] == ["videogen-operator"]


@scenarios
def test_everything_selects_the_operators_pods(render: Render, values: Values) -> None:
    objects = render(values)
    deployment = only(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    selectors = [deployment["spec"]["selector"]["matchLabels"]]
    selectors += [item["spec"]["selector"]["matchLabels"] for item in of_kind(objects, "PodDisruptionBudget")]
    selectors += [item["spec"]["podSelector"]["matchLabels"] for item in of_kind(objects, "NetworkPolicy")]
    assert all(selector.items() <= labels for selector in selectors)


# --- rights ---------------------------------------------------------------------------------------------------------

# `tests/cluster/test_rights.py` compares them with what the operator really asks the API server for.
READ = {"get", "list", "watch"}
SEEN = {"list", "watch"}
CHILD = READ | {"create", "patch", "delete"}
RIGHTS = {
    "videogen.pib.gov.in/trainingruns": READ | {"create", "delete"},
    "videogen.pib.gov.in/trainingruns/status": {"patch"},
    "videogen.pib.gov.in/finetunecycles": READ,
    "videogen.pib.gov.in/finetunecycles/status": {"patch"},
    "videogen.pib.gov.in/modelreleases": READ | {"create"},
    "videogen.pib.gov.in/modelreleases/status": {"patch"},
    "kubeflow.org/pytorchjobs": READ | {"create", "delete"},
    "kueue.x-k8s.io/workloads": SEEN,
    "/configmaps": {"create"},
    "/services": CHILD,
    "apps/deployments": CHILD,
    "apps/replicasets": SEEN,
    "policy/poddisruptionbudgets": CHILD,
    "networking.k8s.io/networkpolicies": CHILD,
    "gateway.networking.k8s.io/httproutes": CHILD - {"delete"},
    "gateway.envoyproxy.io/backendtrafficpolicies": CHILD - {"delete"},
    "gateway.envoyproxy.io/httproutefilters": CHILD - {"delete"},
    "/pods": SEEN,
    "/persistentvolumeclaims": SEEN,
    "events.k8s.io/events": {"create"},
}
GATEWAY_RIGHTS = {"gateway.networking.k8s.io/gateways": SEEN}
OPENSHIFT_RIGHTS = {
    "videogen.pib.gov.in/trainingruns/finalizers": {"update"},
    "videogen.pib.gov.in/modelreleases/finalizers": {"update"},
    "gateway.networking.k8s.io/httproutes": CHILD,
    "gateway.envoyproxy.io/backendtrafficpolicies": CHILD,
    "gateway.envoyproxy.io/httproutefilters": CHILD,
}
CLUSTER_RIGHTS = {
    "/nodes": SEEN,
    "apiextensions.k8s.io/customresourcedefinitions": SEEN,
    "authentication.k8s.io/tokenreviews": {"create"},
}
LEASE_RIGHTS = {"coordination.k8s.io/leases": {"get", "create", "update"}, "discovery.k8s.io/endpointslices": {"create", "patch"}}


def rights(role: dict[str, Any]) -> dict[str, set[str]]:
    granted: dict[str, set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                granted.setdefault(f"{group}/{resource}", set()).update(rule["verbs"])
    return granted


def operator_roles(objects: Objects) -> dict[tuple[str, str], dict[str, set[str]]]:
    """(namespace or "", name) -> rights, for every role that is bound to the operator."""
    account = {"kind": "ServiceAccount", "name": "videogen-operator", "namespace": "system"}
    certificates = account | {"name": "videogen-certificate"}
    all_bindings = of_kind(objects, "RoleBinding") + of_kind(objects, "ClusterRoleBinding")
    assert all(binding["subjects"] in ([account], [certificates]) for binding in all_bindings)
    bindings = [binding for binding in all_bindings if binding["subjects"] == [account]]
    bound = {(b["roleRef"]["kind"], b["metadata"].get("namespace", ""), b["roleRef"]["name"]) for b in bindings}
    roles = of_kind(objects, "Role") + of_kind(objects, "ClusterRole")
    return {
        (role["metadata"].get("namespace", ""), role["metadata"]["name"]): rights(role)
        for role in roles
        if (role["kind"], role["metadata"].get("namespace", ""), role["metadata"]["name"]) in bound
    }


def test_cluster_wide_the_operator_has_exactly_these_rights(render: Render) -> None:
    assert operator_roles(render({})) == {
        ("", "system-videogen-operator"): RIGHTS | GATEWAY_RIGHTS | CLUSTER_RIGHTS,
        ("system", "videogen-operator-leader"): LEASE_RIGHTS,
    }


def test_with_watched_namespaces_the_operator_has_exactly_these_rights(render: Render) -> None:
    values = {"watchNamespaces": ["one", "two"], "gateway": {"namespace": "gateways"}}
    assert operator_roles(render(values)) == {
        ("", "system-videogen-operator"): CLUSTER_RIGHTS | {"/namespaces": SEEN},
        ("one", "videogen-operator"): RIGHTS,
        ("two", "videogen-operator"): RIGHTS,
        ("gateways", "videogen-operator-gateway"): GATEWAY_RIGHTS,
        ("system", "videogen-operator-leader"): LEASE_RIGHTS,
    }


def test_what_openshift_demands_is_granted_on_request(render: Render) -> None:
    roles = operator_roles(render({"rbac": {"openshift": True}}))
    assert roles["", "system-videogen-operator"] == RIGHTS | GATEWAY_RIGHTS | CLUSTER_RIGHTS | OPENSHIFT_RIGHTS


def test_the_operator_reads_and_renews_its_own_lease_and_address_alone(render: Render) -> None:
    (role,) = [item for item in of_kind(render({}), "Role") if item["metadata"]["name"] == "videogen-operator-leader"]
    named = {(rule["resources"][0], verb): rule.get("resourceNames") for rule in role["rules"] for verb in rule["verbs"]}
    assert named == {
        ("leases", "get"): ["videogen-operator"],
        ("leases", "update"): ["videogen-operator"],
        ("leases", "create"): None,  # the API server knows no name yet
        ("endpointslices", "create"): ["videogen-operator-leader"],  # by an apply, which has one
        ("endpointslices", "patch"): ["videogen-operator-leader"],
    }


@scenarios
def test_no_role_has_a_wildcard_or_a_dangerous_right(render: Render, values: Values) -> None:
    objects = render(values)
    for role in of_kind(objects, "Role") + of_kind(objects, "ClusterRole"):
        for rule in role["rules"]:
            assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]
            assert not {"bind", "escalate", "impersonate"} & set(rule["verbs"])
            assert not {"pods/exec", "pods/attach", "serviceaccounts", "serviceaccounts/token"} & set(rule["resources"])
            assert "secrets" not in rule["resources"] or role["metadata"]["name"] == "videogen-certificate"


def test_without_rbac_create_the_chart_makes_no_rights(render: Render) -> None:
    objects = render({"rbac": {"create": False, "aggregate": False, "people": False}})
    assert not [item for item in objects if "rbac" in item["apiVersion"]]


# --- the inbox's certificate ----------------------------------------------------------------------------------------


def test_the_operator_mounts_its_certificate_and_the_authority_but_not_the_authoritys_key(render: Render) -> None:
    objects = render({})
    settings, pod = from_environment(environment(objects)), operator_pod(objects)
    (volume,) = [one for one in pod["volumes"] if one["name"] == "inbox"]
    (mount,) = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "inbox"]
    assert volume["secret"]["secretName"] == "videogen-inbox-tls"
    assert {f"{mount['mountPath']}/{item['path']}": item["key"] for item in volume["secret"]["items"]} == {
        str(settings.inbox_certificate): "tls.crt",
        str(settings.inbox_key): "tls.key",
        settings.inbox_ca: "ca.crt",
    }


def test_the_certificate_is_made_before_everything_else_and_looked_after_every_week(render: Render) -> None:
    objects = render({"inbox": {"tls": {"names": ["10.96.0.7", "inbox.example.org"]}}})
    job, weekly = only(objects, "Job"), only(objects, "CronJob")
    assert job["spec"]["template"] == weekly["spec"]["jobTemplate"]["spec"]["template"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade,pre-rollback"
    assert job["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    container, record_key = job["spec"]["template"]["spec"]["containers"]
    assert (container["name"], record_key["name"]) == ("certificate", "record-key")
    named = {argument.removeprefix("--name=") for argument in container["args"] if argument.startswith("--name=")}
    url = from_environment(environment(objects)).progress_url
    assert re.fullmatch(r"https://(.+):8080", url)[1] in named  # type: ignore[index]
    assert named >= {"videogen-operator.system.svc", "videogen-operator.system.svc.cluster.local", "10.96.0.7", "inbox.example.org"}
    for kind in ("ServiceAccount", "Role", "RoleBinding"):
        before = only(objects, kind, "videogen-certificate")["metadata"]["annotations"]
        assert int(before["helm.sh/hook-weight"]) < int(job["metadata"]["annotations"]["helm.sh/hook-weight"])


def test_whoever_makes_the_certificate_reads_that_secret_alone(render: Render) -> None:
    (role,) = [item for item in of_kind(render({}), "Role") if item["metadata"]["name"] == "videogen-certificate"]
    secret, authority, keys = "videogen-inbox-tls", "videogen-inbox-ca", "videogen-record-keys"
    assert named_rights(role) == {
        ("create", "secrets", ""),
        ("create", "configmaps", ""),
        ("get", "secrets", secret),
        ("update", "secrets", secret),
        ("get", "configmaps", authority),
        ("update", "configmaps", authority),
        ("get", "secrets", keys),
    }


def named_rights(role: dict[str, Any]) -> set[tuple[str, str, str]]:
    """Verb, resource and name, "" for all, of each right in a role."""
    return {
        (verb, resource, name)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
    }


def test_the_keys_of_records_are_mounted_into_the_operator_and_made_by_the_hook_alone(render: Render) -> None:
    objects = render({})
    settings, pod = from_environment(environment(objects)), operator_pod(objects)
    (volume,) = [one for one in pod["volumes"] if one["name"] == "record-keys"]
    (mount,) = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "record-keys"]
    assert volume["secret"] == {"secretName": "videogen-record-keys", "defaultMode": 0o440, "optional": True}
    assert (mount["mountPath"], mount["readOnly"]) == (str(settings.record_keys), True)
    for tls in ({"enabled": False}, {"certManager": {"enabled": True, "issuerRef": {"name": "company"}}}):
        alone = render({"inbox": {"tls": tls}})
        (container,) = only(alone, "Job")["spec"]["template"]["spec"]["containers"]
        assert container["command"] == ["python3", "-m", "videogen_operator.inbound.record_key"]
        assert container["args"] == ["--namespace=system", "--secret=videogen-record-keys"]
        assert not of_kind(alone, "CronJob")
        (role,) = [item for item in of_kind(alone, "Role") if item["metadata"]["name"] == "videogen-certificate"]
        assert named_rights(role) == {("create", "secrets", ""), ("get", "secrets", "videogen-record-keys")}


def test_nothing_is_reused_on_request(render: Render) -> None:
    objects = render({"reuse": {"enabled": False}})
    assert from_environment(environment(objects)).record_keys is None
    assert "record-keys" not in json.dumps(objects)


def test_no_service_takes_the_certificates_pods_for_the_operators(render: Render) -> None:
    objects = render({})
    selector = only(objects, "Service")["spec"]["selector"]
    assert not selector.items() <= only(objects, "Job")["spec"]["template"]["metadata"]["labels"].items()


def test_cert_manager_gives_the_certificate_on_request(helm: Helm, render: Render) -> None:
    issuer = {"name": "company", "kind": "ClusterIssuer"}
    tls = {"names": ["10.96.0.7"], "certManager": {"enabled": True, "issuerRef": issuer}}
    objects = render({"inbox": {"tls": tls}, "reuse": {"enabled": False}})
    spec = only(objects, "Certificate")["spec"]
    assert spec["issuerRef"] == issuer | {"group": "cert-manager.io"}
    assert spec["ipAddresses"] == ["10.96.0.7"]
    assert "videogen-operator.system" in spec["dnsNames"]
    assert "10.96.0.7" not in spec["dnsNames"]
    (volume,) = [one for one in operator_pod(objects)["volumes"] if one["name"] == "inbox"]
    assert volume["secret"]["secretName"] == spec["secretName"]
    assert not of_kind(objects, "Job") + of_kind(objects, "CronJob")
    refused = helm("template", {"inbox": {"tls": {"certManager": {"enabled": True}}}})
    assert "inbox.tls.certManager.issuerRef.name is empty" in refused.stderr


def test_without_tls_the_inbox_is_plain_http_and_nothing_is_made(render: Render) -> None:
    objects = render({"inbox": {"tls": {"enabled": False}}, "reuse": {"enabled": False}})
    settings = from_environment(environment(objects))
    assert settings.progress_url == "http://videogen-operator.system:8080"
    assert not settings.inbox_ca
    assert not of_kind(objects, "Job") + of_kind(objects, "CronJob")
    assert [one["name"] for one in operator_pod(objects)["volumes"]] == ["tmp"]


# --- admission policies ---------------------------------------------------------------------------------------------

APPROVALS = "system-videogen-operator-approvals"  # always: people's word must not be switched off by a value
FOR_EVERYBODY = {
    APPROVALS,
    "system-videogen-operator-requests-finetunecycles",
    "system-videogen-operator-requests-modelreleases",
    "system-videogen-operator-requests-trainingruns",
    "system-videogen-operator-serving",
    "system-videogen-operator-cycles",
    *(
        PODS := {
            f"system-videogen-operator-{name}"
            for name in (
                "trainer-pods",
                "replica-pods",
                "server-pods",
                "pod-bindings",
                "trainer-jobs",
                "server-deployments",
                "server-replicasets",
            )
        }
    ),
}


@scenarios
def test_every_policy_is_bound_and_speaks_of_the_operator_alone_or_is_known_to_be_for_everybody(render: Render, values: Values) -> None:
    objects = render(values)
    policies = {item["metadata"]["name"]: item["spec"] for item in of_kind(objects, "ValidatingAdmissionPolicy")}
    bindings = [item["spec"] for item in of_kind(objects, "ValidatingAdmissionPolicyBinding")]
    assert sorted(binding["policyName"] for binding in bindings) == sorted(policies)
    assert all(binding["validationActions"] == ["Deny"] for binding in bindings)
    for name, spec in policies.items():
        assert spec["failurePolicy"] == "Fail"
        if name not in FOR_EVERYBODY:
            (condition,) = spec["matchConditions"]
            assert condition["expression"] == 'request.userInfo.username == "system:serviceaccount:system:videogen-operator"'


def test_everything_that_the_operator_may_write_is_under_a_policy(render: Render) -> None:
    written = {resource for resource, verbs in RIGHTS.items() if {"create", "delete"} & verbs} - {"events.k8s.io/events"}
    policies = [item for item in of_kind(render({}), "ValidatingAdmissionPolicy") if item["metadata"]["name"] not in FOR_EVERYBODY]
    rules = [rule for item in policies for rule in item["spec"]["matchConstraints"]["resourceRules"]]
    covered = {f"{group}/{resource}" for rule in rules for group in rule["apiGroups"] for resource in rule["resources"]}
    assert written <= covered


def test_more_images_are_allowed_on_request_and_dots_mean_dots(render: Render) -> None:
    objects = render({"admissionPolicy": {"imageRepositories": ["registry.example.org/old"]}})
    policies = {item["metadata"]["name"]: item for item in of_kind(objects, "ValidatingAdmissionPolicy")}
    policy = policies["system-videogen-operator-deployments"]
    expression = policy["spec"]["validations"][0]["expression"]
    pattern = re.search(r"r'(.*?)'", expression)[1]  # type: ignore[index]
    digest = "sha256:" + "a" * 64
    for image in ("registry.example.org/old:1", f"localhost/videogen/serving@{digest}", f"localhost/videogen/trainer:1@{digest}"):
        assert re.fullmatch(pattern, image)
    for image in ("registryXexample.org/old:1", "registry.example.org/old/other:1", "registry.example.org/old:1/other", "stranger"):
        assert not re.fullmatch(pattern, image)


def test_policies_can_be_left_out(render: Render) -> None:
    def left(**values: bool) -> set[str]:
        return {item["metadata"]["name"] for item in of_kind(render({"admissionPolicy": values}), "ValidatingAdmissionPolicy")}

    assert left(enabled=False) == FOR_EVERYBODY
    assert left(enabled=False, pods=False) == FOR_EVERYBODY - PODS
    off = {"enabled": False, "pods": False, "requests": False}
    assert left(**off) == {APPROVALS, "system-videogen-operator-serving", "system-videogen-operator-cycles"}
    assert left(**off, deletion=False) == {APPROVALS, "system-videogen-operator-cycles"}
    assert left(**off, deletion=False, cycles=False) == {APPROVALS}


def test_training_operator_is_known_by_the_account_that_kubeflow_and_the_local_cluster_give_it() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values["admissionPolicy"]["trainingOperators"] == [f"system:serviceaccount:{TRAINING_NAMESPACE}:training-operator"]


def test_who_makes_trainers_is_a_value_and_other_namespaces_are_left_to_others(render: Render) -> None:
    accounts = ["system:serviceaccount:ml:trainer", "trainers"]
    values = {"watchNamespaces": ["films", "shorts"], "admissionPolicy": {"trainingOperators": accounts}}
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind(render(values), "ValidatingAdmissionPolicy")}
    rule = policies["system-videogen-operator-trainer-pods"]["validations"][0]
    assert re.findall(r'username == "(.*?)"', rule["expression"]) == accounts
    assert "made by system:serviceaccount:ml:trainer or trainers alone" in rule["message"]
    watched = {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["films", "shorts"]}]}
    assert [policies[name]["matchConstraints"].get("namespaceSelector") for name in sorted(PODS)] == [watched] * len(PODS)
    everywhere = {one["metadata"]["name"]: one["spec"] for one in of_kind(render({}), "ValidatingAdmissionPolicy")}
    assert not any("namespaceSelector" in everywhere[name]["matchConstraints"] for name in PODS)


GRANTED = RIGHTS | GATEWAY_RIGHTS | CLUSTER_RIGHTS | LEASE_RIGHTS
WATCHED = {f"{resource.group}/{resource.plural}" for kind in KINDS for resource in kind.resources}
NAMED = {f"{value.group}/{value.plural}" for value in vars(resources).values() if isinstance(value, Resource)}


@pytest.mark.parametrize("resource", sorted(WATCHED))
def test_what_the_operator_watches_it_may_read(resource: str) -> None:
    assert GRANTED.get(resource, set()) >= SEEN


@pytest.mark.parametrize("resource", sorted(NAMED - WATCHED))
def test_what_the_operator_only_writes_it_may_create(resource: str) -> None:
    assert "create" in GRANTED.get(resource, set())


def test_users_of_the_clusters_own_roles_may_use_our_kinds(render: Render) -> None:
    objects = of_kind(render({}), "ClusterRole")
    label = "rbac.authorization.k8s.io/aggregate-to-{}".format
    roles = {name: rights(role) for name in ("view", "edit", "admin") for role in objects if label(name) in role["metadata"]["labels"]}
    write = {"create", "update", "patch", "delete", "deletecollection"}
    for kind in ("trainingruns", "modelreleases"):
        assert roles["view"][f"videogen.pib.gov.in/{kind}"] == READ
        assert roles["edit"][f"videogen.pib.gov.in/{kind}"] == roles["admin"][f"videogen.pib.gov.in/{kind}"] == READ | write
        assert {role[f"videogen.pib.gov.in/{kind}/status"] == {"get"} for role in roles.values()} == {True}


# --- CustomResourceDefinitions --------------------------------------------------------------------------------------


def test_the_definitions_are_the_generated_ones(render: Render) -> None:
    rendered = {item["metadata"]["name"]: item for item in of_kind(render({}), "CustomResourceDefinition")}
    generated = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    assert rendered.keys() == {item["metadata"]["name"] for item in generated}
    for item in generated:
        assert rendered[item["metadata"]["name"]]["spec"] == item["spec"]


def test_the_definitions_stay_when_the_chart_goes(render: Render) -> None:
    for item in of_kind(render(EVERYTHING), "CustomResourceDefinition"):
        assert item["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep", "example.org/note": "x"}
    for item in of_kind(render({"crds": {"keep": False}}), "CustomResourceDefinition"):
        assert "annotations" not in item["metadata"]


def test_the_definitions_can_be_left_out(render: Render) -> None:
    assert not of_kind(render({"crds": {"install": False}}), "CustomResourceDefinition")


def test_a_release_fits_into_helms_secret(render: Render) -> None:
    """Helm stores chart and manifests, gzipped and twice in base64, in a Secret of at most 1 MiB."""
    files = {str(path): b64encode(path.read_bytes()).decode() for path in CHART.rglob("*") if path.is_file()}
    release = gzip.compress(json.dumps([files, render(EVERYTHING)]).encode())
    assert len(b64encode(b64encode(release))) < 1024 * 1024 // 2, "with room for as much again"


# --- who may connect ------------------------------------------------------------------------------------------------


def admitted(objects: Objects) -> dict[str, list[dict[str, Any]]]:
    """Peers by the port of the operator that they reach."""
    rules = only(objects, "NetworkPolicy")["spec"]["ingress"]
    assert all(rule["from"] and rule["ports"] for rule in rules), "a rule without one of them admits everybody, or to everything"
    return {port["port"]: rule["from"] for rule in rules for port in rule["ports"]}


def test_trainers_and_alertmanager_reach_the_inbox_and_prometheus_alone_the_metrics(render: Render) -> None:
    peers = admitted(render({}))
    values = yaml.safe_load((CHART / "values.yaml").read_text())["networkPolicy"]
    trainers = {
        "namespaceSelector": {},
        "podSelector": {"matchExpressions": [{"key": "videogen.pib.gov.in/run-uid", "operator": "Exists"}]},
    }
    assert peers == {"inbox": [trainers, *values["alerting"]], "metrics": values["monitoring"]}


def test_trainers_come_from_the_watched_namespaces_alone(render: Render) -> None:
    peers = admitted(render({"watchNamespaces": ["one", "system"]}))
    (names,) = peers["inbox"][0]["namespaceSelector"]["matchExpressions"]
    assert names == {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["one", "system"]}


def test_a_list_without_peers_admits_nobody(render: Render) -> None:
    peers = admitted(render({"networkPolicy": {"monitoring": [], "alerting": []}}))
    assert peers.keys() == {"inbox"}
    assert len(peers["inbox"]) == 1


def test_the_operator_gives_its_children_the_peers_of_the_chart(render: Render) -> None:
    block = {"ipBlock": {"cidr": "10.0.0.1/32"}}
    settings = from_environment(environment(render({"networkPolicy": {"gateway": [block], "monitoring": []}})))
    assert settings.network_policies == "true"
    assert (json.loads(settings.gateway_peers), json.loads(settings.monitoring_peers)) == ([block], [])
    defaults = from_environment(environment(render({})))
    assert json.loads(defaults.gateway_peers) == json.loads(Settings().gateway_peers)
    assert json.loads(defaults.monitoring_peers) == json.loads(Settings().monitoring_peers)


def test_policies_can_be_switched_off(render: Render) -> None:
    objects = render({"networkPolicy": {"enabled": False}})
    assert not of_kind(objects, "NetworkPolicy")
    assert from_environment(environment(objects)).network_policies == ""


def test_egress_is_restricted_only_where_ports_are_listed(render: Render) -> None:
    assert only(render({}), "NetworkPolicy")["spec"]["policyTypes"] == ["Ingress"]
    spec = only(render({"networkPolicy": {"egressPorts": [6443]}}), "NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert [(port["port"], port["protocol"]) for port in spec["egress"][0]["ports"]] == [(53, "UDP"), (6443, "TCP")]


def test_a_peer_that_names_nobody_is_refused(helm: Helm) -> None:
    result = helm("template", {"networkPolicy": {"monitoring": [{}]}})
    assert result.returncode != 0
    assert "networkPolicy" in result.stderr
