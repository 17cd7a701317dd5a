"""The chart's roles are what the operator asks for: nothing that it asks for is refused, and nothing is granted that it never uses.

The API server's audit log is the witness, which no client can leave anything out of. The story has each kind of write,
and the faults after which the operator reads an object again.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from videogen_testing.chart_rights import COLLECTIONS, install_policies, objects, operator_kubeconfig
from videogen_testing.control_plane import ControlPlane, Refused, control_plane, eventually
from videogen_testing.crash_story import PHASES, RELEASE_NAME, is_over, prepare
from videogen_testing.cycle_simulation import a_cycle
from videogen_testing.fault_proxy import FaultProxy, Point, ReadFault, WriteFault
from videogen_testing.other_controllers import Client, OtherControllers, View, client, condition, pass_preflight
from videogen_testing.patience import HANGS
from videogen_testing.runs import TRAIN, a_run, pods_of, running
from videogen_testing.supervision import SupervisedOperator
from videogen_testing.upstream_crds import gateway_definitions, install, kueue_definitions, own_definitions, pytorch_job_definition
from videogen_testing.webhook import post, token_of

GROUP = "/apis/videogen.pib.gov.in/v1alpha1/namespaces/{}"
POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],  # an open watch has no other stage than ResponseStarted
    "rules": [{"level": "None", "nonResourceURLs": ["*"]}, {"level": "Metadata"}],
}
# No requests: admission asks whether the operator may do this when it makes a child that blocks its owner's deletion, and when
# it changes the owners of an object. Without one of them the story comes to no end.
ASKED_BY_ADMISSION = {
    ("videogen.pib.gov.in/trainingruns/finalizers", "update"),
    ("videogen.pib.gov.in/modelreleases/finalizers", "update"),
    ("gateway.networking.k8s.io/httproutes", "delete"),
    ("gateway.envoyproxy.io/backendtrafficpolicies", "delete"),
    ("gateway.envoyproxy.io/httproutefilters", "delete"),
    ("discovery.k8s.io/endpointslices/restricted", "create"),  # by OpenShift's alone, which is not here
}
IN_A_POD = {"VIDEOGEN_INBOX_SERVICE": "videogen-operator", "VIDEOGEN_POD_ADDRESS": "10.244.0.7"}
Right = tuple[str, str]  # group/resource[/subresource], verb


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server of its own, with an audit log, that guards blockOwnerDeletion."""
    folder = tmp_path_factory.mktemp("rights")
    (folder / "policy.json").write_text(json.dumps(POLICY))
    flags = (f"--audit-policy-file={folder / 'policy.json'}", f"--audit-log-path={folder / 'audit.log'}", "--audit-log-mode=blocking")
    with control_plane(folder, *flags, "--enable-admission-plugins=OwnerReferencesPermissionEnforcement") as started:
        install(started.api, [*own_definitions(), pytorch_job_definition(), *gateway_definitions(), *kueue_definitions()])
        install_policies(started.api)
        yield started


def asked(plane: ControlPlane, namespace: str) -> tuple[set[Right], set[Right]]:
    """What the operator of this namespace has asked for: granted, and refused."""
    user = f"system:serviceaccount:{namespace}:videogen-operator"
    granted: set[Right] = set()
    refused: set[Right] = set()
    lines = (plane.folder / "audit.log").read_text().split("\n")[:-1]  # without one that is being written
    for line in lines:
        entry = json.loads(line)
        if entry["user"]["username"] == user and not entry["userAgent"].startswith("Python-urllib"):  # which is the test's own
            code = entry["responseStatus"]["code"]
            (refused if code == 403 else granted).update((_resource(entry), verb) for verb in _verbs(entry["verb"], code))
    return granted, refused


def _resource(entry: dict[str, Any]) -> str:
    about = entry["objectRef"]
    return "/".join([about.get("apiGroup", ""), about["resource"], *([about["subresource"]] if about.get("subresource") else [])])


def _verbs(verb: str, code: int) -> set[str]:
    """An apply that made the object was also asked for the right to create it."""
    return {verb, "create"} if (verb, code) == ("patch", 201) else {verb}


def granted_to(namespace: str, **chart: Any) -> set[Right]:
    """Everything that the chart's roles allow."""
    rules = [rule for item in objects(namespace, openshift=True, **chart) for rule in item.get("rules", [])]
    return {
        (f"{group}/{resource}", verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@asynccontextmanager
async def acting(
    plane: ControlPlane, api: Client, folder: Path, namespace: str
) -> AsyncIterator[tuple[FaultProxy, View, SupervisedOperator]]:
    """An operator for all namespaces, installed in this one."""
    await prepare(api, namespace)
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(FaultProxy(plane).serving())
        proxy.faults = [
            WriteFault(Point("POST", "configmaps", "run-curate-1"), "after", "lose"),
            WriteFault(Point("POST", "pytorchjobs", "run-train-1"), "after", "lose"),
            WriteFault(Point("PATCH", "trainingruns/status", "run"), "before", 409),
            WriteFault(Point("PATCH", "modelreleases/status", RELEASE_NAME), "before", 409),
            WriteFault(Point("PATCH", "finetunecycles/status", "weekly"), "before", 409),
        ]
        proxy.read_faults = [ReadFault("pytorchjobs", "watch", 503)]  # else it would know the job whose answer was lost
        kubeconfig = await asyncio.to_thread(operator_kubeconfig, plane, namespace, proxy.url, everywhere=True, openshift=True)
        view = await stack.enter_async_context(View(api, namespace).watching())
        operator = await stack.enter_async_context(SupervisedOperator(kubeconfig, namespace, folder, VIDEOGEN_NAMESPACES="", **IN_A_POD))
        try:
            yield proxy, view, operator
        except BaseException as error:
            error.add_note(operator.last_words())
            raise


async def from_a_run_to_its_stable_release(api: Client, view: View) -> None:
    await api.request("POST", f"{GROUP.format(view.namespace)}/trainingruns", a_run(namespace=view.namespace, phases=PHASES))
    await played(OtherControllers(api, view), view.until(lambda: is_over(view), HANGS, "the release is Stable and at rest"))


async def played(others: OtherControllers, story: Coroutine[Any, Any, Any]) -> None:
    """Wait for the end of a story while the other controllers act."""
    playing, ending = asyncio.create_task(others.play()), asyncio.create_task(story)
    await asyncio.wait({playing, ending}, return_when=asyncio.FIRST_COMPLETED)
    await (ending if ending.done() else playing)
    playing.cancel()
    await asyncio.gather(playing, return_exceptions=True)


async def a_release_is_aborted(api: Client, view: View) -> None:
    """Its children are made, and deleted."""
    name, child = RELEASE_NAME.replace("1.0.0", "1.1.0"), RELEASE_NAME.replace("1.0.0", "1.1.0").replace(".", "-")
    first = view.get("ModelRelease", RELEASE_NAME)["spec"]
    spec = {key: first[key] for key in ("service", "model", "artifact", "serving")}
    spec |= {"model": spec["model"] | {"version": "1.1.0"}, "artifact": spec["artifact"] | {"digest": "sha256:" + "b" * 64}}
    path = f"{GROUP.format(view.namespace)}/modelreleases"
    body = {"apiVersion": "videogen.pib.gov.in/v1alpha1", "kind": "ModelRelease", "metadata": {"name": name}, "spec": spec}
    await api.request("POST", path, body)
    await view.until(lambda: view.get("Deployment", child) and view.get("Service", child), HANGS, f"children of {name}")
    await api.merge(f"{path}/{name}", {"metadata": {"annotations": {"videogen.pib.gov.in/request": "abort@1"}}})
    await view.until(
        lambda: not view.get("Deployment", child) and not view.get("Service", child), HANGS, f"the end of the children of {name}"
    )


async def a_cycle_makes_a_run_and_deletes_it(api: Client, view: View) -> None:
    """It keeps no run that has ended."""
    path = f"{GROUP.format(view.namespace)}/finetunecycles"
    cycle = a_cycle("weekly", suspend=True, successfulRunsHistoryLimit=0, model={"family": "VideoFusion", "specialization": "hindi"})
    cycle["metadata"] |= {"namespace": view.namespace, "annotations": {"videogen.pib.gov.in/request": "run-now@1"}}
    await api.request("POST", path, cycle)

    def made() -> list[str]:
        return [one["metadata"]["name"] for one in view.all("TrainingRun") if one["metadata"]["name"].startswith("weekly-")]

    await view.until(made, HANGS, "the cycle's run")
    await view.until(lambda: not made(), HANGS, "the end of the cycle's run")


async def a_run_reports_and_is_suspended(plane: ControlPlane, api: Client, view: View, operator: SupervisedOperator) -> None:
    namespace, path = view.namespace, f"{GROUP.format(view.namespace)}/trainingruns"
    await api.request("POST", path, a_run("second", namespace, phases=[TRAIN], model={"family": "VideoFusion", "version": "2.0.0"}))
    await pass_preflight(api, view, "second")
    job = await view.until(lambda: view.get("PyTorchJob", "second-train-1"), HANGS, "the job of the second run")
    (pod,) = pods_of(job)
    await api.make_trainer(namespace, pod)
    await api.merge(f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}/status", {"status": running()})
    await view.until(lambda: condition(view.get("TrainingRun", "second"), "Succeeded").get("reason") == "Training", HANGS, "training")
    token = await asyncio.to_thread(token_of, plane.api, namespace, pod["metadata"]["name"])
    report = {"trainerStatus": {"progressPercentage": 10}}
    assert (await asyncio.to_thread(post, operator.inbox_port, "/v1/progress", token, report))[0] == 200
    await api.merge(f"{path}/second", {"spec": {"suspend": True}})
    await view.until(lambda: not view.get("PyTorchJob", "second-train-1"), HANGS, "the end of the second run's job")


async def test_the_operator_for_all_namespaces_uses_all_of_its_rights_and_needs_no_other(plane: ControlPlane, tmp_path: Path) -> None:
    async with client(plane) as api, acting(plane, api, tmp_path, "everywhere") as (proxy, view, operator):
        await from_a_run_to_its_stable_release(api, view)
        proxy.read_faults = []
        await played(OtherControllers(api, view, only_new=True), a_cycle_makes_a_run_and_deletes_it(api, view))
        await a_release_is_aborted(api, view)
        await a_run_reports_and_is_suspended(plane, api, view, operator)
        await asyncio.to_thread(eventually, lambda: proxy.hears("pytorchjobs"))
        assert set(proxy.fired) == set(proxy.faults)
    used, refused = asked(plane, "everywhere")
    assert refused == set()
    assert used | ASKED_BY_ADMISSION == granted_to("everywhere", everywhere=True)


async def test_the_operator_for_one_namespace_is_refused_nothing_though_it_sees_but_gateways_in_the_gateways_namespace(
    plane: ControlPlane, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(client(plane))
        await prepare(api, "alone")
        await api.request("POST", "/api/v1/namespaces", {"metadata": {"name": "gateways"}})
        kubeconfig = await asyncio.to_thread(operator_kubeconfig, plane, "alone", openshift=True, gateways="gateways")
        view = await stack.enter_async_context(View(api, "alone").watching())
        operator = await stack.enter_async_context(
            SupervisedOperator(kubeconfig, "alone", tmp_path, VIDEOGEN_RESYNC_SECONDS="3600", VIDEOGEN_GATEWAY_NAMESPACE="gateways")
        )
        await operator.ready()
        await api.request("POST", f"{GROUP.format('alone')}/trainingruns", a_run(namespace="alone"))
        await pass_preflight(api, view, "run")
        await view.until(lambda: view.get("PyTorchJob", "run-train-1"), HANGS, "a job, although nothing is listed again")
        namespaces = {("/namespaces", "list"), ("/namespaces", "watch")}  # kopf's own, which no job waits for
        await asyncio.to_thread(eventually, lambda: namespaces <= asked(plane, "alone")[0])
        await asyncio.to_thread(eventually, lambda: ("gateway.networking.k8s.io/gateways", "watch") in asked(plane, "alone")[0])
    used, refused = asked(plane, "alone")
    assert refused == set()
    assert used <= granted_to("alone", gateways="gateways")


def test_without_the_right_to_an_owners_finalizers_no_child_could_be_made(plane: ControlPlane) -> None:
    plane.api.create("/api/v1/namespaces", {"metadata": {"name": "lacking"}})
    account = {"metadata": {"name": "operator"}}
    role = {"metadata": {"name": "operator"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]}]}
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": "lacking"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"}
    binding = {"metadata": {"name": "operator"}, "roleRef": reference, "subjects": [subject]}
    for kind, item in {"ServiceAccount": account, "Role": role, "RoleBinding": binding}.items():
        plane.api.create(COLLECTIONS[kind].format("lacking"), item)
    path = COLLECTIONS["ServiceAccount"].format("lacking") + "/operator/token"
    token = plane.api.create(path, {"spec": {"audiences": ["https://kubernetes.default.svc"]}})["status"]["token"]
    run = {"apiVersion": "videogen.pib.gov.in/v1alpha1", "kind": "TrainingRun", "name": "run", "uid": "u"}

    def refusal(name: str, **owner: bool) -> str:
        metadata = {"name": name, "ownerReferences": [run | owner]}
        try:
            plane.api.request("POST", "/api/v1/namespaces/lacking/configmaps", {"metadata": metadata}, token=token)
        except Refused as error:
            return error.body
        return ""

    eventually(lambda: not refusal("free"))
    assert "cannot set blockOwnerDeletion" in refusal("blocking", controller=True, blockOwnerDeletion=True)
