"""The chart's promises, each on what Helm really renders."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from videogen_operator import resources
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
    "networkPolicy": {"enabled": True},
    "podDisruptionBudget": {"enabled": True},
    "podMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
}
SCENARIOS = {
    "by default": {},
    "with everything switched on": EVERYTHING,
    "in two namespaces only": {"watchNamespaces": ["one", "system"]},
    "with everything switched on in one namespace": EVERYTHING | {"watchNamespaces": ["one"], "gateway": {"namespace": "one"}},
    "with two replicas": {"replicas": 2, "strategy": "RollingUpdate"},
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
    "a window without unit": ({"alerts": {"window": "60"}}, "window"),
    "a namespace in capitals": ({"watchNamespaces": ["Models"]}, "watchNamespaces"),
    "a token secret without a key": ({"alertWebhook": {"existingSecret": "x", "keys": []}}, "keys"),
    "a Gateway that it would not see": ({"watchNamespaces": ["one"], "gateway": {"namespace": "two"}}, "gateway.namespace"),
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
    assert not re.search(r"\b(lookup|rand\w+|genCA|genSignedCert|genPrivateKey|now|uuidv4|htpasswd)\b\s*[\"(A-Z]", source)
    assert not re.search(r"helm\.sh/hook", source)


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


@scenarios
def test_every_pod_meets_pod_security_restricted(render: Render, values: Values) -> None:
    pods = [item["spec"]["template"]["spec"] for item in render(values) if "template" in item.get("spec", {})]
    assert pods
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all(set(volume) - {"name"} <= {"configMap", "emptyDir", "projected", "secret"} for volume in pod["volumes"])
        for container in pod["containers"] + pod.get("initContainers", []):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "privileged": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not any("hostPort" in port for port in container["ports"])
            assert container["resources"]["requests"]
            assert container["resources"]["limits"]["memory"]
            assert {"livenessProbe", "readinessProbe"} <= container.keys()


@scenarios
def test_the_operator_accepts_its_environment(render: Render, values: Values) -> None:
    settings = from_environment(environment(render(values)))
    assert settings.operator_namespace == "system"
    assert settings.namespaces == tuple(values.get("watchNamespaces", ()))
    assert settings.progress_url == f"http://videogen-operator.system:{settings.inbox_port}"


SETTINGS: dict[str, tuple[Values, str, Any]] = {
    "the trainer's image": ({"trainer": {"image": {"repository": "example.org/t", "tag": "2"}}}, "trainer_image", "example.org/t:2"),
    "the serving image's default tag is the chart's appVersion": ({}, "serving_image", "localhost/videogen/serving:0.1.0"),
    "the pull policy": ({"image": {"pullPolicy": "Never"}}, "image_pull_policy", "Never"),
    "the user of the pods": ({"podUser": 1000}, "pod_user", 1000),
    "the Gateway": ({"gateway": {"name": "eg"}}, "gateway_name", "eg"),
    "the Gateway's namespace": ({"gateway": {"namespace": "gw"}}, "gateway_namespace", "gw"),
    "the Gateway's namespace is the chart's by default": ({}, "gateway_namespace", "system"),
    "the Gateway's listener": ({"gateway": {"sectionName": "http"}}, "gateway_section", "http"),
    "the domain": ({"domain": "example.org"}, "domain", "example.org"),
    "Prometheus": ({"prometheus": {"url": "http://p:9090"}}, "prometheus_url", "http://p:9090"),
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
    volume = next(volume for volume in pod["volumes"] if "secret" in volume)
    mount = next(mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == volume["name"])
    assert mount["readOnly"] is True
    assert volume["secret"]["secretName"] == "tokens"
    expected = [Path(mount["mountPath"]) / item["path"] for item in volume["secret"]["items"]]
    assert list(settings.alert_token_files) == expected == [Path(mount["mountPath"]) / "new", Path(mount["mountPath"]) / "old"]


def test_a_rolling_update_does_not_wait_for_a_pod_that_waits_for_the_lease(render: Render) -> None:
    strategy = only(render({"strategy": "RollingUpdate"}), "Deployment")["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "100%"}}
    assert only(render({}), "Deployment")["spec"]["strategy"] == {"type": "Recreate"}


def test_the_kubelet_adds_no_variables_that_the_operator_would_refuse(render: Render) -> None:
    assert operator_pod(render({}))["enableServiceLinks"] is False


@scenarios
def test_ports_of_service_monitor_probes_and_settings_agree(render: Render, values: Values) -> None:
    objects = render(values)
    settings = from_environment(environment(objects))
    container = operator_pod(objects)["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"inbox": settings.inbox_port, "metrics": settings.metrics_port}
    assert {port["targetPort"] for port in only(objects, "Service")["spec"]["ports"]} == ports.keys()
    assert {container[probe]["httpGet"]["port"] for probe in ("livenessProbe", "readinessProbe")} <= ports.keys()
    for monitor in of_kind(objects, "PodMonitor"):
        assert [endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]] == ["metrics"]


@scenarios
def test_everything_selects_the_operators_pods(render: Render, values: Values) -> None:
    objects = render(values)
    deployment = only(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    selectors = [deployment["spec"]["selector"]["matchLabels"], only(objects, "Service")["spec"]["selector"]]
    selectors += [item["spec"]["selector"]["matchLabels"] for item in of_kind(objects, "PodDisruptionBudget")]
    selectors += [item["spec"]["podSelector"]["matchLabels"] for item in of_kind(objects, "NetworkPolicy")]
    assert all(selector.items() <= labels for selector in selectors)


# --- rights ---------------------------------------------------------------------------------------------------------

# `tests/cluster/test_rights.py` compares them with what the operator really asks the API server for.
READ = {"get", "list", "watch"}
SEEN = {"list", "watch"}
CHILD = READ | {"create", "patch", "delete"}
RIGHTS = {
    "videogen.pib.gov.in/trainingruns": READ,
    "videogen.pib.gov.in/trainingruns/status": {"patch"},
    "videogen.pib.gov.in/modelreleases": READ | {"create"},
    "videogen.pib.gov.in/modelreleases/status": {"patch"},
    "videogen.pib.gov.in/trainingruns/finalizers": {"update"},
    "videogen.pib.gov.in/modelreleases/finalizers": {"update"},
    "kubeflow.org/pytorchjobs": READ | {"create", "delete"},
    "/configmaps": {"get", "create"},
    "/services": CHILD,
    "apps/deployments": CHILD,
    "policy/poddisruptionbudgets": CHILD,
    "gateway.networking.k8s.io/httproutes": CHILD,
    "gateway.networking.k8s.io/gateways": SEEN,
    "gateway.envoyproxy.io/backendtrafficpolicies": CHILD,
    "/pods": SEEN,
    "/persistentvolumeclaims": SEEN,
    "events.k8s.io/events": {"create"},
}
CLUSTER_RIGHTS = {
    "/nodes": SEEN,
    "apiextensions.k8s.io/customresourcedefinitions": SEEN,
    "authentication.k8s.io/tokenreviews": {"create"},
}
LEASE_RIGHTS = {"coordination.k8s.io/leases": {"get", "create", "update"}}


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
    bindings = of_kind(objects, "RoleBinding") + of_kind(objects, "ClusterRoleBinding")
    assert all(binding["subjects"] == [account] for binding in bindings)
    bound = {(b["roleRef"]["kind"], b["metadata"].get("namespace", ""), b["roleRef"]["name"]) for b in bindings}
    roles = of_kind(objects, "Role") + of_kind(objects, "ClusterRole")
    return {
        (role["metadata"].get("namespace", ""), role["metadata"]["name"]): rights(role)
        for role in roles
        if (role["kind"], role["metadata"].get("namespace", ""), role["metadata"]["name"]) in bound
    }


def test_cluster_wide_the_operator_has_exactly_these_rights(render: Render) -> None:
    assert operator_roles(render({})) == {
        ("", "system-videogen-operator"): RIGHTS | CLUSTER_RIGHTS,
        ("system", "videogen-operator-leader"): LEASE_RIGHTS,
    }


def test_with_watched_namespaces_the_operator_has_exactly_these_rights(render: Render) -> None:
    values = {"watchNamespaces": ["one", "two"], "gateway": {"namespace": "two"}}
    assert operator_roles(render(values)) == {
        ("", "system-videogen-operator"): CLUSTER_RIGHTS | {"/namespaces": SEEN},
        ("one", "videogen-operator"): RIGHTS,
        ("two", "videogen-operator"): RIGHTS,
        ("system", "videogen-operator-leader"): LEASE_RIGHTS,
    }


@scenarios
def test_no_role_has_a_wildcard_or_a_dangerous_right(render: Render, values: Values) -> None:
    objects = render(values)
    for role in of_kind(objects, "Role") + of_kind(objects, "ClusterRole"):
        for rule in role["rules"]:
            assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]
            assert not {"bind", "escalate", "impersonate"} & set(rule["verbs"])
            assert not {"secrets", "pods/exec", "pods/attach", "serviceaccounts", "serviceaccounts/token"} & set(rule["resources"])


def test_without_rbac_create_the_chart_makes_no_rights(render: Render) -> None:
    objects = render({"rbac": {"create": False, "aggregate": False}})
    assert not [item for item in objects if "rbac" in item["apiVersion"]]


GRANTED = RIGHTS | CLUSTER_RIGHTS | LEASE_RIGHTS
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
    chart = sum(path.stat().st_size for path in CHART.rglob("*") if path.is_file())
    assert chart + len(json.dumps(render(EVERYTHING))) < 700_000
