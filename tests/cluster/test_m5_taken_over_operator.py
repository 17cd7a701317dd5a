"""Somebody has the operator's token. With its rights they try to run their own software, reach Secrets, catch traffic and destroy what is
others': the API server refuses each, and lets through what the operator itself writes.
"""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import timedelta
from typing import Any

import pytest

from videogen_api.meta import LABEL_RELEASE
from videogen_operator.inbound.inbox_address import slice_of
from videogen_operator.kinds.fine_tune_cycle import observed as cycles
from videogen_operator.kinds.fine_tune_cycle.plan import plan as plan_of_cycles
from videogen_operator.kinds.model_release import network, route
from videogen_operator.kinds.model_release import objects as of_release
from videogen_operator.kinds.model_release import observed as releases
from videogen_operator.kinds.training_run import objects as of_run
from videogen_operator.kinds.training_run import observed as runs
from videogen_operator.kinds.training_run import release as release_of_run
from videogen_operator.names import MANAGED_BY
from videogen_operator.plan import Inputs, Key
from videogen_operator.settings import Settings
from videogen_testing import cycle_simulation
from videogen_testing.chart_rights import install_policies, operator_kubeconfig
from videogen_testing.control_plane import Api, ControlPlane, Refused, control_plane, eventually
from videogen_testing.releases import NAMESPACE, SERVICE, START, Objects, a_release
from videogen_testing.run_simulation import Simulation
from videogen_testing.runs import EVALUATE, RELEASE, TRAIN, a_run, trained
from videogen_testing.upstream_crds import gateway_definitions, install, own_definitions, pytorch_job_definition

SETTINGS = Settings(gateway_namespace=NAMESPACE, progress_url="https://videogen-operator:8080").for_plans()
PLACES = {
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Service": "/api/v1/namespaces/{}/services",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "PyTorchJob": "/apis/kubeflow.org/v1/namespaces/{}/pytorchjobs",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "HTTPRoute": "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes",
    "BackendTrafficPolicy": "/apis/gateway.envoyproxy.io/v1alpha1/namespaces/{}/backendtrafficpolicies",
    "HTTPRouteFilter": "/apis/gateway.envoyproxy.io/v1alpha1/namespaces/{}/httproutefilters",
    "ModelRelease": "/apis/videogen.pib.gov.in/v1alpha1/namespaces/{}/modelreleases",
    "TrainingRun": "/apis/videogen.pib.gov.in/v1alpha1/namespaces/{}/trainingruns",
}
Change = Callable[[Any], Any]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server of its own, with the Gateway API and a list of priority classes for users."""
    with control_plane(tmp_path_factory.mktemp("taken-over")) as started:
        install(started.api, [*own_definitions(), pytorch_job_definition(), *gateway_definitions()])
        install_policies(started.api, "admissionPolicy.priorityClasses={videos,batch}")
        yield started


@pytest.fixture(scope="module")
def token(plane: ControlPlane) -> str:
    """The operator's own, with the chart's rights in all namespaces, once the policies hold."""
    plane.api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    kubeconfig = json.loads(operator_kubeconfig(plane, NAMESPACE, everywhere=True).read_text())
    found: str = kubeconfig["users"][0]["user"]["token"]
    for kind, change, words in PROBES:
        item = deepcopy(WRITTEN[kind])
        change(item)
        eventually(lambda: words in refusal(plane.api, item, found))  # noqa: B023 - called at once
    return found


def written() -> dict[str, Any]:
    """One object of each kind that the operator writes, as it writes them."""
    observed = runs.observe(Simulation(phases=[TRAIN, RELEASE]).world, Key("TrainingRun", "models", "run"))
    assert isinstance(observed, runs.Observed)
    phase = observed.spec.phases[0]
    job = of_run.job_of(observed, phase, observed.phase_status("train"), 1)
    template = observed.spec.phases[1].release
    artifact = trained().artifact
    assert template
    assert artifact
    service = releases.observe(Objects(a_release()), Key("ModelRelease", NAMESPACE, SERVICE))
    assert isinstance(service, releases.Observed)
    (release,) = service.releases
    cycle = cycles.observe(
        cycle_simulation.Simulation(cycle_simulation.a_cycle()), Key("FineTuneCycle", cycle_simulation.NAMESPACE, "videofusion/base")
    )
    assert cycle
    moment = cycle_simulation.START + timedelta(days=5)
    (run,) = plan_of_cycles(cycle, Inputs(now=moment)).create
    made = [
        run,
        of_run.config_map(observed, job, SETTINGS),
        of_run.pytorch_job(observed, phase, job, SETTINGS),
        release_of_run.manifest(observed, template, artifact, moment),
        network.policy(release, SETTINGS),
        *of_release.children(release, SETTINGS),
        route.route(service, route.backends([release], {release.name: 100}, [], START), (), SETTINGS),
        route.traffic_policy(service, [release], SETTINGS),
        route.refusal(service),
    ]
    return {item["kind"]: deepcopy(dict(item)) | {"metadata": item["metadata"] | {"namespace": NAMESPACE}} for item in made}


WRITTEN = written()


def refusal(api: Api, item: Any, token: str, verb: str = "POST", path: str = "") -> str:
    """What the API server says to it; "" if it would do it. Nothing is done: a dry run asks admission all the same."""
    path = path or PLACES[item["kind"]].format(NAMESPACE)
    try:
        api.request(verb, f"{path}?dryRun=All", item, token=token)
    except Refused as error:
        return str(json.loads(error.body)["message"])
    return ""


def pod_of(item: Any) -> Any:
    return (
        item["spec"]["template"]["spec"]
        if item["kind"] == "Deployment"
        else item["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    )


def template_of(item: Any) -> Any:
    return item["spec"]["template"] if item["kind"] == "Deployment" else item["spec"]["pytorchReplicaSpecs"]["Master"]["template"]


def container(**fields: Any) -> Change:
    return lambda item: pod_of(item)["containers"][0].update(fields)


def pod(**fields: Any) -> Change:
    return lambda item: pod_of(item).update(fields)


def volume(**source: Any) -> Change:
    return lambda item: pod_of(item)["volumes"].append({"name": "loot"} | source)


def another_container(item: Any) -> None:
    pod_of(item)["containers"].append(pod_of(item)["containers"][0] | {"name": "second", "image": "stranger"})


def init_container(item: Any) -> None:
    security = pod_of(item)["containers"][0]["securityContext"]
    pod_of(item)["initContainers"] = [{"name": "first", "image": "stranger", "securityContext": security}]


def security(**fields: Any) -> Change:
    return lambda item: pod_of(item)["containers"][0]["securityContext"].update(fields)


def pod_security(**fields: Any) -> Change:
    return lambda item: pod_of(item)["securityContext"].update(fields)


def variable(name: str, value: str) -> Change:
    return lambda item: pod_of(item)["containers"][0]["env"].append({"name": name, "value": value})


def mount(path: str) -> Change:
    """The volume that both have."""
    return lambda item: pod_of(item)["containers"][0]["volumeMounts"].append({"name": "storage", "mountPath": path})


def first_mount(**fields: str) -> Change:
    return lambda item: pod_of(item)["containers"][0]["volumeMounts"][0].update(fields)


def secret_key(key: str) -> Change:
    env = {"name": "VIDEOGEN_LOOT", "valueFrom": {"secretKeyRef": {"name": "any", "key": key}}}
    return lambda item: pod_of(item)["containers"][0]["env"].append(env)


def label(key: str, value: str) -> Change:
    return lambda item: template_of(item)["metadata"]["labels"].update({key: value})


def token_for(audience: str) -> dict[str, Any]:
    return {"projected": {"sources": [{"serviceAccountToken": {"audience": audience, "path": "token"}}]}}


POD_ATTACKS: dict[str, tuple[Change, str]] = {
    "another image": (container(image="stranger/miner:1"), "image stranger/miner:1 is of no repository that the chart names"),
    "an image whose name begins as ours does": (container(image="videogen-trainer/evil:1"), "is of no repository"),
    "an image of a registry named as ours": (container(image="videogen-trainer:5000/evil:1"), "is of no repository"),
    "another image in a second container": (another_container, "is of no repository"),
    "another image in an init container": (init_container, "is of no repository"),
    "a shell": (container(command=["sh", "-c", "id"]), "has a command that is not the image's own"),
    "arguments": (container(args=["--help"]), "has a command that is not the image's own"),
    "a hook that runs something": (container(lifecycle={"postStart": {"exec": {"command": ["id"]}}}), "has a command"),
    "a hook at its end that runs something": (container(lifecycle={"preStop": {"exec": {"command": ["id"]}}}), "has a command"),
    "a startup probe that runs something": (container(startupProbe={"exec": {"command": ["id"]}}), "has a command"),
    "a readiness probe that runs something": (container(readinessProbe={"exec": {"command": ["id"]}}), "has a command"),
    "a liveness probe that runs something": (container(livenessProbe={"exec": {"command": ["id"]}}), "has a command"),
    "modules from the storage": (variable("PYTHONPATH", "/storage"), "has an environment variable that is none of"),
    "a library from the storage": (variable("LD_PRELOAD", "/storage/evil.so"), "has an environment variable that is none of"),
    "a Triton with known holes": (variable("DEVELOPMENT", "1"), "has an environment variable that is none of"),
    "files over the image's": (mount("/usr/lib"), "mounts a volume where neither trainer nor server has one"),
    "files below a place of ours": (mount("/tmp/../usr/lib"), "mounts a volume where neither trainer nor server has one"),
    "a single file of a volume": (first_mount(subPath="evil"), "mounts a volume where neither trainer nor server has one"),
    "an account": (pod(serviceAccountName="administrator"), "must run as ServiceAccount default"),
    "an account under the old name": (pod(serviceAccount="administrator"), "must run as ServiceAccount default"),
    "the account's token": (pod(automountServiceAccountToken=True), "with automountServiceAccountToken false"),
    "a Secret as files": (volume(secret={"secretName": "any"}), "a volume is none of"),
    "a Secret among projected files": (volume(projected={"sources": [{"secret": {"name": "any"}}]}), "a volume is none of"),
    "a token for the API server": (volume(**token_for("https://kubernetes.default.svc")), "a volume is none of"),
    "the node's files": (volume(hostPath={"path": "/"}), "a volume is none of"),
    "a driver's volume": (volume(csi={"driver": "secrets-store.csi.k8s.io"}), "a volume is none of"),
    "a key of a Secret": (secret_key("password"), "takes a key of a Secret"),
    "a whole Secret": (container(envFrom=[{"secretRef": {"name": "any"}}]), "takes a key of a Secret"),
    "the node's network": (pod(hostNetwork=True), "asks for hostNetwork"),
    "the node's processes": (pod(hostPID=True, shareProcessNamespace=False), "asks for hostNetwork"),
    "a port of the node": (container(ports=[{"containerPort": 80, "hostPort": 80}]), "asks for hostNetwork"),
    "a node of its choice": (pod(nodeName="control-plane"), "asks for hostNetwork"),
    "root": (security(runAsUser=0), "does not meet Pod Security restricted"),
    "privileges": (security(allowPrivilegeEscalation=True), "does not meet Pod Security restricted"),
    "a capability": (security(capabilities={"drop": ["ALL"], "add": ["NET_ADMIN"]}), "does not meet Pod Security restricted"),
    "no seccomp": (security(seccompProfile={"type": "Unconfined"}), "does not meet Pod Security restricted"),
    "an SELinux role": (security(seLinuxOptions={"role": "system_r"}), "a pod sets sysctls"),
    "an account of Windows": (security(windowsOptions={"runAsUserName": "ContainerAdministrator"}), "a pod sets sysctls"),
    "its own kind of /proc": (security(procMount="Default"), "a pod sets sysctls"),
    "a setting of the kernel": (pod_security(sysctls=[{"name": "kernel.msgmax", "value": "1"}]), "a pod sets sysctls"),
    "to be before all others": (pod(priorityClassName="system-node-critical"), "a priorityClassName of Kubernetes' own"),
    "to be taken for another's pod": (label("app.kubernetes.io/name", "videogen-operator"), "the labels of a pod must be"),
    "to be nobody's": (lambda item: item["metadata"]["ownerReferences"][0].update(controller=False), "its controller must be"),
}


def metadata(**fields: Any) -> Change:
    return lambda item: item["metadata"].update(fields)


def spec(**fields: Any) -> Change:
    return lambda item: item["spec"].update(fields)


def rule(**fields: Any) -> Change:
    return lambda item: item["spec"]["rules"][0].update(fields)


def backend(**fields: Any) -> Change:
    return lambda item: item["spec"]["rules"][0]["backendRefs"][0].update(fields)


def extension(kind: str, name: str) -> dict[str, Any]:
    return {"type": "ExtensionRef", "extensionRef": {"group": "gateway.envoyproxy.io", "kind": kind, "name": name}}


def answer(**fields: Any) -> Change:
    return lambda item: item["spec"]["directResponse"].update(fields)


LOOT = {"group": "", "kind": "ConfigMap", "name": "loot"}
OTHERS = [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": "u"}]
OUTSIDE = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "loot", "port": 80}}}
ATTACKS: dict[str, tuple[str, Change, str]] = {
    "a ConfigMap without label": ("ConfigMap", metadata(labels={}), "without the label app.kubernetes.io/managed-by"),
    "a ConfigMap that nobody owns": ("ConfigMap", metadata(ownerReferences=[]), "nothing that no TrainingRun or ModelRelease owns"),
    "a Service of somebody else's": ("Service", metadata(ownerReferences=OTHERS), "nothing that no TrainingRun or ModelRelease owns"),
    "a Service outside the cluster": ("Service", spec(type="LoadBalancer"), "must be of type ClusterIP"),
    "a Service that catches an address": ("Service", spec(externalIPs=["203.0.113.7"]), "must be of type ClusterIP"),
    "a Service of another name": ("Service", spec(externalName="example.org", type="ExternalName"), "must be of type ClusterIP"),
    "a Service for others' pods": ("Service", spec(selector={"app": "payroll"}), "must select pods by the label"),
    "a budget for all pods": ("PodDisruptionBudget", spec(selector={}), "must select pods by the label"),
    "a NetworkPolicy for all pods": ("NetworkPolicy", spec(podSelector={}), "must select pods by a label that begins with"),
    "a NetworkPolicy that nobody owns": ("NetworkPolicy", metadata(ownerReferences=[]), "nothing that no TrainingRun or ModelRelease owns"),
    "another Gateway": ("HTTPRoute", spec(parentRefs=[{"name": "bank", "namespace": "bank"}]), "must belong to Gateway"),
    "another host name": ("HTTPRoute", spec(hostnames=["bank.example.org"]), "the host name of an HTTPRoute must be"),
    "every host name": ("HTTPRoute", spec(hostnames=[]), "the host name of an HTTPRoute must be"),
    "traffic to another Service": ("HTTPRoute", backend(name="loot"), "must lead to Services of releases"),
    "traffic to another namespace": ("HTTPRoute", backend(namespace="bank"), "must lead to Services of releases"),
    "a copy of the traffic": ("HTTPRoute", rule(filters=[OUTSIDE]), "must not mirror or redirect"),
    "a copy of a release's traffic": ("HTTPRoute", backend(filters=[OUTSIDE]), "must not mirror or redirect"),
    "an extension": ("HTTPRoute", rule(filters=[extension("HTTPRouteFilter", "others")]), "other than its own HTTPRouteFilter"),
    "an extension of another kind": (
        "HTTPRoute",
        rule(filters=[extension("SecurityPolicy", SERVICE)]),
        "other than its own HTTPRouteFilter",
    ),
    "an answer of its own": ("HTTPRouteFilter", answer(statusCode=200), "must only answer with 503"),
    "an answer of a ConfigMap": ("HTTPRouteFilter", answer(body={"type": "ValueRef", "valueRef": LOOT}), "must be inline"),
    "other paths": ("HTTPRouteFilter", spec(urlRewrite={"hostname": {"type": "Header", "header": "x"}}), "must only answer with 503"),
    "a policy that nobody owns": ("BackendTrafficPolicy", metadata(ownerReferences=[]), "nothing that no TrainingRun or ModelRelease owns"),
    "a release of no run": ("ModelRelease", lambda item: item["spec"].pop("lineage"), "that name their run"),
    "a release without label": ("ModelRelease", metadata(labels={}), "the operator makes only releases with the label"),
    "a run of no cycle": ("TrainingRun", metadata(labels=dict([MANAGED_BY])), "makes and deletes only runs of a cycle"),
    "a run of another name": ("TrainingRun", metadata(name="mine"), "makes and deletes only runs of a cycle"),
}
PROBES = [  # one of each policy
    ("ConfigMap", metadata(labels={}), "without the label"),
    ("Deployment", container(image="stranger"), "is of no repository"),
    ("PyTorchJob", container(image="stranger"), "is of no repository"),
    ("Service", spec(type="LoadBalancer"), "must be of type ClusterIP"),
    ("PodDisruptionBudget", spec(selector={}), "must select pods"),
    ("NetworkPolicy", spec(podSelector={}), "must select pods"),
    ("HTTPRoute", spec(hostnames=[]), "the host name"),
    ("HTTPRouteFilter", answer(statusCode=200), "503"),
    ("ModelRelease", metadata(labels={}), "only releases"),
    ("TrainingRun", metadata(labels={}), "only runs of a cycle"),
]


@pytest.mark.parametrize("kind", WRITTEN)
def test_what_the_operator_writes_is_let_through(plane: ControlPlane, token: str, kind: str) -> None:
    assert refusal(plane.api, WRITTEN[kind], token) == ""


def test_the_route_of_a_service_that_nobody_serves_is_let_through(plane: ControlPlane, token: str) -> None:
    service = releases.observe(Objects(a_release()), Key("ModelRelease", NAMESPACE, SERVICE))
    assert isinstance(service, releases.Observed)
    refusing = dict(route.route(service, (), (), SETTINGS | {"traffic_policy": "true"}, closed=True))
    assert refusing["spec"]["rules"][0]["filters"], "else it refuses by no extension"
    assert refusal(plane.api, refusing | {"metadata": refusing["metadata"] | {"namespace": NAMESPACE}}, token) == ""


@pytest.mark.parametrize("kind", ["Deployment", "PyTorchJob"])
@pytest.mark.parametrize(("change", "words"), POD_ATTACKS.values(), ids=POD_ATTACKS.keys())
def test_no_pod_gets(plane: ControlPlane, token: str, kind: str, change: Change, words: str) -> None:
    item = deepcopy(WRITTEN[kind])
    change(item)
    assert words in refusal(plane.api, item, token)


@pytest.mark.parametrize(("kind", "change", "words"), ATTACKS.values(), ids=ATTACKS.keys())
def test_nobody_gets(plane: ControlPlane, token: str, kind: str, change: Change, words: str) -> None:
    item = deepcopy(WRITTEN[kind])
    change(item)
    assert words in refusal(plane.api, item, token)


def test_an_endpoint_slice_leads_to_the_inbox_alone(plane: ControlPlane, token: str) -> None:
    """Whoever writes the slices of a Service receives what is sent to it."""
    ours = slice_of(Settings(operator_namespace=NAMESPACE, inbox_service="videogen-operator", pod_address="10.0.0.7", identity="pod"))
    path = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices/videogen-operator-leader"

    def refusal_of(service: str) -> str:
        item = deepcopy(ours)
        item["metadata"]["labels"]["kubernetes.io/service-name"] = service
        try:
            plane.api.request("PATCH", f"{path}?dryRun=All&fieldManager=f", item, "application/apply-patch+yaml", token=token)
        except Refused as error:
            return str(json.loads(error.body)["message"])
        return ""

    eventually(lambda: "an EndpointSlice must belong to Service videogen-operator" in refusal_of("payroll"))
    assert refusal_of("videogen-operator") == ""


@pytest.mark.parametrize("kind", ["Deployment", "Service", "PodDisruptionBudget"])
def test_what_others_have_made_is_neither_changed_nor_deleted(plane: ControlPlane, token: str, kind: str) -> None:
    item = deepcopy(WRITTEN[kind])
    name = f"of-others-{kind.lower()}"
    item["metadata"] = {"name": name, "namespace": NAMESPACE}
    if kind == "Deployment":  # without the label of servers, which is the operator's to give
        labels = item["spec"]["template"]["metadata"]["labels"]
        del labels[LABEL_RELEASE]
        item["spec"]["selector"] = {"matchLabels": dict(labels)}
    path = PLACES[kind].format(NAMESPACE)
    plane.api.create(path, item)
    adopted = {"metadata": {key: WRITTEN[kind]["metadata"][key] for key in ("labels", "ownerReferences")}}
    with pytest.raises(Refused, match="changes and deletes nothing that no TrainingRun or ModelRelease owns"):
        plane.api.request("PATCH", f"{path}/{name}", adopted, "application/merge-patch+json", token=token)
    with pytest.raises(Refused, match="changes and deletes nothing that no TrainingRun or ModelRelease owns"):
        plane.api.request("DELETE", f"{path}/{name}", token=token)
    assert plane.api.find(f"{path}/{name}")


def test_a_run_of_a_person_is_not_deleted(plane: ControlPlane, token: str) -> None:
    path = PLACES["TrainingRun"].format(NAMESPACE)
    plane.api.create(path, a_run("mine", NAMESPACE))
    with pytest.raises(Refused, match="makes and deletes only runs of a cycle"):
        plane.api.request("DELETE", f"{path}/mine", token=token)


def test_it_reads_neither_secrets_nor_config_maps_nor_others_leases(plane: ControlPlane, token: str) -> None:
    lease = {"metadata": {"name": "others"}, "spec": {}}
    plane.api.create(f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases", lease)
    for path in (
        f"/api/v1/namespaces/{NAMESPACE}/secrets",
        f"/api/v1/namespaces/{NAMESPACE}/configmaps/kube-root-ca.crt",
        f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/others",
    ):
        with pytest.raises(Refused) as refused:
            plane.api.request("GET", path, token=token)
        assert refused.value.code == 403


def test_users_name_only_the_priority_classes_of_the_list(plane: ControlPlane, token: str) -> None:
    place = PLACES["ModelRelease"].format(NAMESPACE)
    release = deepcopy(WRITTEN["ModelRelease"])
    release["spec"]["serving"] = {"placement": {"priorityClassName": "mine"}}
    api = plane.api
    with pytest.raises(Refused, match=r"spec\.serving\.placement\.priorityClassName must be absent or one of videos, batch"):
        api.create(place, release)
    release["spec"]["serving"] = {"placement": {"priorityClassName": "videos"}}
    api.create(place, release)
    template = RELEASE["release"] | {"serving": {"placement": {"priorityClassName": "mine"}}}
    run = a_run(namespace=NAMESPACE, phases=[TRAIN, EVALUATE, RELEASE | {"release": template}])
    with pytest.raises(
        Refused, match=r"placement\.priorityClassName of phases and of what they release must be absent or one of videos, batch"
    ):
        api.create(PLACES["TrainingRun"].format(NAMESPACE), run)
    run = a_run(namespace=NAMESPACE, phases=[TRAIN | {"placement": {"priorityClassName": "mine"}}, EVALUATE])
    with pytest.raises(
        Refused, match=r"placement\.priorityClassName of phases and of what they release must be absent or one of videos, batch"
    ):
        api.create(PLACES["TrainingRun"].format(NAMESPACE), run)
