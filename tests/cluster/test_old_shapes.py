"""Objects that were stored under an older API: after the upgrade the operator says that it cannot read them, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from videogen_testing.chart_rights import install_policies
from videogen_testing.control_plane import Api, ControlPlane, Refused, control_plane, eventually
from videogen_testing.operator_process import OperatorProcess
from videogen_testing.releases import a_release
from videogen_testing.runs import RUNS, a_run
from videogen_testing.upstream_crds import install, own_definitions, pytorch_job_definition

RELEASES = "/apis/videogen.pib.gov.in/v1alpha1/namespaces/{}/modelreleases"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
OLD_MODEL = {"type": "videofusion", "version": "1.0.0", "specialization": "base"}  # of before the family had a field of its own


def of_before(definition: dict[str, Any]) -> dict[str, Any]:
    """The definition as it was before `model.family`, and without rules."""
    old = deepcopy(definition)
    root = old["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    model = root["properties"]["spec"]["properties"]["model"]
    model["required"].remove("family")
    del model["properties"]["family"]
    _without_rules(root)
    return old


def _without_rules(node: Any) -> None:
    if isinstance(node, dict):
        if isinstance(node.get("x-kubernetes-validations"), list):
            del node["x-kubernetes-validations"]
        for one in node.values():
            _without_rules(one)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with control_plane(tmp_path_factory.mktemp("control-plane")) as started:
        now = own_definitions()
        before = [of_before(one) if one["spec"]["names"]["kind"] != "FineTuneCycle" else one for one in now]
        install(started.api, [*before, pytorch_job_definition()])
        yield started


def upgraded(api: Api, namespace: str) -> None:
    """Apply the definitions of now over those of before, and wait until they hold."""
    for definition in own_definitions():
        api.apply(f"{DEFINITIONS}/{definition['metadata']['name']}", definition)

    def holds() -> bool:
        try:
            api.create(f"{RUNS.format(namespace)}?dryRun=All", a_run("probe", namespace, model=OLD_MODEL))
        except Refused as error:
            return "spec.model.family: Required value" in error.body
        return False

    eventually(holds)


def test_what_is_stored_in_an_older_shape_becomes_unreadable(api: Api, namespace: str, operator: OperatorProcess) -> None:
    release = a_release()
    release["metadata"] = {"name": release["metadata"]["name"], "namespace": namespace}
    release["spec"] = release["spec"] | {"model": OLD_MODEL}
    run, of_release = f"{RUNS.format(namespace)}/old", f"{RELEASES.format(namespace)}/{release['metadata']['name']}"
    api.create(RUNS.format(namespace), a_run("old", namespace, model=OLD_MODEL))
    api.create(RELEASES.format(namespace), release)
    upgraded(api, namespace)
    install_policies(api)
    operator.start()
    for path, condition in ((run, "Succeeded"), (of_release, "Ready")):
        said = eventually(lambda path=path, condition=condition: _unreadable(api, path, condition))
        assert "model.family" in said["message"]
        assert "docs/upgrading.md" in said["message"]
    # Who repairs it in place may do so.
    api.merge(run, {"metadata": {"annotations": {"seen": "yes"}}})


def _unreadable(api: Api, path: str, kind: str) -> dict[str, Any] | None:
    conditions = (api.get(path).get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one["type"] == kind and one["reason"] == "Unreadable"), None)
