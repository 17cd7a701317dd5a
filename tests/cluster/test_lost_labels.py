"""The operator watches its children by a label; one that loses it and gets it back was never deleted."""

from typing import Any

from videogen_testing.control_plane import Api, eventually
from videogen_testing.operator_process import OperatorProcess
from videogen_testing.runs import RUNS, a_claim, a_run, first_job, play, running

LABEL = "app.kubernetes.io/managed-by"


def test_a_pod_whose_label_was_taken_off_and_put_back_is_seen_again(api: Api, namespace: str, operator: OperatorProcess) -> None:
    operator.start()
    api.create(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", a_claim())
    api.create(RUNS.format(namespace), a_run(namespace=namespace))
    job = first_job(api, namespace)
    (pod,) = play(api, namespace, job, running())
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}"

    def says(reason: str) -> bool:
        conditions: list[dict[str, Any]] = api.get(f"{RUNS.format(namespace)}/run")["status"].get("conditions", [])
        return any((one["type"], one["reason"]) == ("Succeeded", reason) for one in conditions)

    eventually(lambda: says("Training"))
    label = api.get(path)["metadata"]["labels"][LABEL]
    api.merge(path, {"metadata": {"labels": {LABEL: None}}})
    eventually(lambda: says("Starting"))
    api.merge(path, {"metadata": {"labels": {LABEL: label}}})
    eventually(lambda: says("Training"))
