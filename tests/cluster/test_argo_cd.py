"""A real Argo CD over examples/gitops: waves that wait, what stays Synced, what it leaves alone, actions, and pruning that is refused.

Two nodes of the story are played: pods, as in all tests here, and, where a release is needed, the operator, whose status these tests write.
"""

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from videogen_api.meta import ANNOTATION_REQUEST
from videogen_demo.kubectl import Cluster
from videogen_testing.argo_cd import acted
from videogen_testing.argo_cd_process import ArgoCd, Repository, argo_cd, health_of
from videogen_testing.chart_rights import COLLECTIONS, bind, rendered
from videogen_testing.control_plane import ROOT, Api, ControlPlane, Refused, eventually
from videogen_testing.operator_process import OperatorProcess
from videogen_testing.runs import DIGEST, JOBS, RUNS, ended, passed, play, trained
from videogen_testing.upstream_crds import argo_cd_server_role

API = "/apis/videogen.pib.gov.in/v1alpha1/namespaces/{}"
RELEASE = "pib-videogen-videofusion-v1.0.0-base"
CURATED = '{"reason": "Completed", "datasets": [{"dataset": "pib", "version": "2026.11", "digest": "' + DIGEST + '", "clips": 200}]}'
MEASURED = (
    '{"reason": "Completed", "results": [{"metric": "FVD", "value": "100", "samples": 128},'
    ' {"metric": "TemporalCoherence", "value": "0.9", "samples": 128}]}'
)
SERVER = "system:serviceaccount:argocd:argocd-server"
SYNCS = 10


def example(name: str) -> dict[str, Any]:
    """An object of examples/gitops; the release with the digest that the run of these tests makes."""
    text = (ROOT / f"examples/gitops/{name}.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text.replace("0" * 64, DIGEST.removeprefix("sha256:")))
    return found


EXAMPLES = {name: example(name) for name in ("claim", "training-run", "model-release", "fine-tune-cycle")}


@pytest.fixture(scope="module")
def argo(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArgoCd]:
    folder = tmp_path_factory.mktemp("argo-cd")
    with argo_cd(Cluster(plane.kubeconfig), folder) as started:
        yield started
    for log in sorted(folder.glob("*.log")):
        print(log.name, log.read_text(errors="replace")[-3000:], sep="\n")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def status_of_release(state: str, weight: int, **conditions: tuple[str, str]) -> dict[str, Any]:
    """What the operator writes of a release in this state, as far as Argo CD looks at it."""
    told = [
        {"type": kind, "status": status, "reason": reason, "message": f"{reason} in words", "lastTransitionTime": "2026-11-01T00:00:00Z"}
        for kind, (status, reason) in conditions.items()
    ]
    traffic = {"weightPercent": weight, "readyReplicas": 1}
    return {"observedGeneration": 1, "conditions": told, "rollout": {"state": state}, "traffic": traffic}


CANARY = status_of_release("Canary", 10, Ready=("False", "Canary"), Reconciling=("True", "Canary"))
STABLE = status_of_release("Stable", 100, Ready=("True", "Stable"))
ROLLED_BACK = status_of_release(
    "RolledBack", 0, Ready=("False", "RolledBack"), Stalled=("True", "CheckFailed"), RolledBack=("True", "CheckFailed")
)


def tell(api: Api, namespace: str, status: dict[str, Any]) -> None:
    path = f"{API.format(namespace)}/modelreleases/{RELEASE}"
    generation = api.get(path)["metadata"]["generation"]
    api.merge(f"{path}/status", {"status": status | {"observedGeneration": generation}})


def finish(api: Api, namespace: str, phase: str, message: str) -> None:
    """The pods of a phase's first attempt, whose work is done."""
    job = eventually(lambda: api.find(f"{JOBS.format(namespace)}/videofusion-first-{phase}-1"))
    play(api, namespace, job, ended(0, message))


def test_a_commit_trains_and_each_wave_waits_for_the_one_before(
    argo: ArgoCd, api: Api, namespace: str, operator: OperatorProcess, repository: Repository
) -> None:
    operator.start()
    repository.commit({name: EXAMPLES[name] for name in ("claim", "training-run", "fine-tune-cycle")})
    argo.application(namespace, repository, namespace)
    run, cycle = f"{RUNS.format(namespace)}/videofusion-first", f"{API.format(namespace)}/finetunecycles/base-weekly"
    claim = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/pib-models"
    eventually(lambda: api.find(claim))
    api.merge(f"{claim}/status", {"status": {"phase": "Bound"}})  # as the pod of the preflight has it bound
    preflight = eventually(lambda: api.find(f"{JOBS.format(namespace)}/videofusion-first-curate-0"))
    play(api, namespace, preflight, ended(0, passed()))
    finish(api, namespace, "curate", CURATED)
    finish(api, namespace, "train", trained().model_dump_json(by_alias=True, exclude_none=True))
    job = eventually(lambda: api.find(f"{JOBS.format(namespace)}/videofusion-first-validate-1"))
    assert api.find(cycle) is None, "the wave of the run is not over"
    assert argo.compared(namespace)["operationState"]["phase"] == "Running"
    play(api, namespace, job, ended(0, MEASURED))
    eventually(lambda: api.find(cycle))
    eventually(lambda: argo.found(namespace)["status"]["operationState"]["phase"] == "Succeeded")
    assert health_of(argo.compared(namespace), "TrainingRun") == ("Synced", "Healthy")
    owned = {entry["manager"] for entry in api.get(run)["metadata"]["managedFields"] if entry.get("subresource") == "status"}
    assert owned == {"videogen-operator"}


@pytest.mark.parametrize("server_side_diff", [False, True], ids=["client-side diff", "server-side diff"])
@pytest.mark.parametrize("server_side_apply", [False, True], ids=["client-side apply", "server-side apply"])
def test_what_is_synced_stays_so(
    argo: ArgoCd, api: Api, namespace: str, repository: Repository, server_side_diff: bool, server_side_apply: bool
) -> None:
    repository.commit({"kept": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}}} | without_waves())
    options = {"syncOptions": ["ServerSideApply=true"]} if server_side_apply else {}
    argo.application(namespace, repository, namespace, server_side_diff=server_side_diff, **options)
    eventually(lambda: api.find(f"{API.format(namespace)}/modelreleases/{RELEASE}"))
    tell(api, namespace, STABLE)
    generations: set[tuple[int, ...]] = set()
    for _ in range(SYNCS):
        assert argo.synced(namespace)["phase"] == "Succeeded"
        status = argo.compared(namespace)
        assert {(one["kind"], one["status"]) for one in status["resources"]} == {
            (kind, "Synced") for kind in ("ConfigMap", "PersistentVolumeClaim", "TrainingRun", "ModelRelease", "FineTuneCycle")
        }
        generations.add(tuple(api.get(one)["metadata"]["generation"] for one in kinds(namespace)))
    assert len(generations) == 1, "a sync of the same commit changes nothing"


def without_waves() -> dict[str, Any]:
    """The examples in one wave, since nobody works on them."""
    found = deepcopy(EXAMPLES)
    for item in found.values():
        item["metadata"].get("annotations", {}).pop("argocd.argoproj.io/sync-wave", None)
    return found


def act(api: Api, path: str, action: str) -> None:
    """What a click on an action does: Argo CD's server patches the object with what the action has changed in it."""
    before = api.get(path)
    after = acted(before, action)
    annotations = after["metadata"].get("annotations", {})
    changed = {key: value for key, value in after["spec"].items() if value != before["spec"].get(key)}
    api.merge(path, {"metadata": {"annotations": annotations}, "spec": changed})


def kinds(namespace: str) -> list[str]:
    root = API.format(namespace)
    return [f"{root}/trainingruns/videofusion-first", f"{root}/modelreleases/{RELEASE}", f"{root}/finetunecycles/base-weekly"]


def test_an_action_promotes_and_nobody_fights_over_what_was_rolled_back(
    argo: ArgoCd, api: Api, namespace: str, repository: Repository
) -> None:
    repository.commit({"model-release": without_waves()["model-release"]})
    argo.application(namespace, repository, namespace)
    release = f"{API.format(namespace)}/modelreleases/{RELEASE}"
    eventually(lambda: api.find(release))
    tell(api, namespace, CANARY)
    eventually(lambda: health_of(argo.compared(namespace), "ModelRelease") == ("Synced", "Progressing"))
    act(api, release, "promote")
    token = api.get(release)["metadata"]["annotations"][ANNOTATION_REQUEST]
    assert token.startswith("promote@argo-cd-")
    tell(api, namespace, ROLLED_BACK | {"lastHandledRequest": token})
    eventually(lambda: health_of(argo.compared(namespace), "ModelRelease")[1] == "Degraded")
    before = argo.found(namespace)["status"]["history"]
    for _ in range(SYNCS):
        status = argo.compared(namespace)
        assert health_of(status, "ModelRelease") == ("Synced", "Degraded")
        assert status["history"] == before, "it does not sync again"
    assert api.get(release)["metadata"]["annotations"][ANNOTATION_REQUEST] == token, "self-heal takes no request back"
    assert api.get(release)["metadata"]["generation"] == 1


def test_the_account_of_argo_cds_server_acts_by_the_rights_of_a_role_of_the_chart(api: Api, namespace: str) -> None:
    """Its own role lets it patch everything, which is no right to ask."""
    item = without_waves()["model-release"]
    item["metadata"] |= {"namespace": namespace}
    release = f"{API.format(namespace)}/modelreleases/{RELEASE}"
    api.create(f"{API.format(namespace)}/modelreleases", item)
    tell(api, namespace, CANARY)
    for role in (argo_cd_server_role(), person_role("devops")):
        if api.find(f"{COLLECTIONS['ClusterRole']}/{role['metadata']['name']}") is None:
            api.create(COLLECTIONS["ClusterRole"], role)
    server = api.as_user(SERVER)
    bind(api, namespace, "argocd-server", SERVER)
    eventually(lambda: "needs the verb promote on modelreleases/requests" in refusal(server, release))
    bind(api, namespace, person_role("devops")["metadata"]["name"], SERVER)
    eventually(lambda: refusal(server, release) == "")


def refusal(api: Api, path: str) -> str:
    """Why `promote` by action is refused."""
    try:
        act(api, path, "promote")
    except Refused as error:
        return str(json.loads(error.body)["message"])
    return ""


def person_role(name: str) -> dict[str, Any]:
    """A ClusterRole for people, as the chart makes it."""
    found: dict[str, Any] = next(
        item for item in json.loads(rendered(("people-roles",), ())) if item["metadata"]["name"].endswith(f"-{name}")
    )
    return found


def test_what_serves_is_not_pruned_and_what_does_not_is(argo: ArgoCd, api: Api, namespace: str, repository: Repository) -> None:
    kept = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}}
    repository.commit({"kept": kept, "model-release": without_waves()["model-release"]})
    argo.application(namespace, repository, namespace)
    release = f"{API.format(namespace)}/modelreleases/{RELEASE}"
    eventually(lambda: api.find(release))
    tell(api, namespace, STABLE)
    eventually(lambda: health_of(argo.compared(namespace), "ModelRelease") == ("Synced", "Healthy"))
    repository.commit({"kept": kept})
    argo.compared(namespace)
    failed = eventually(lambda: _failed(argo.found(namespace)))
    assert "is not deleted; roll out another release first" in json.dumps(failed)
    assert api.get(release)["status"]["rollout"]["state"] == "Stable"
    tell(api, namespace, status_of_release("Superseded", 0, RolledBack=("False", "NotRolledBack")))
    assert argo.synced(namespace, prune=True)["phase"] == "Succeeded"
    eventually(lambda: api.find(release) is None)


def _failed(application: dict[str, Any]) -> dict[str, Any] | None:
    state: dict[str, Any] = application["status"].get("operationState", {})
    return state if state.get("phase") in {"Failed", "Error"} or "not deleted" in json.dumps(state) else None
