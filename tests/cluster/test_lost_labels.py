"""The operator watches its children by a label; one that loses it and gets it back was never deleted.

The chart's policy keeps everybody from such an edit, so the test leaves its namespace out of it, as a cluster without the policy would.
"""

from typing import Any

from videogen_testing.chart_rights import ADMISSION, PLACE
from videogen_testing.control_plane import Api, Refused, eventually
from videogen_testing.operator_process import OperatorProcess
from videogen_testing.runs import RUNS, a_claim, a_run, first_job, play, running

LABEL = "app.kubernetes.io/managed-by"
BINDING = f"{ADMISSION}/validatingadmissionpolicybindings/{PLACE}-videogen-operator-trainer-pods"


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
    elsewhere = {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [namespace]}]}
    api.merge(BINDING, {"spec": {"matchResources": {"namespaceSelector": elsewhere}}})

    def takes_off() -> bool:
        try:
            api.merge(path, {"metadata": {"labels": {LABEL: None}}})
        except Refused as refused:
            if refused.code != 403:
                raise
            return False
        return True

    label = api.get(path)["metadata"]["labels"][LABEL]
    eventually(takes_off)  # the API server reads its policies again within seconds
    eventually(lambda: says("Starting"))
    api.merge(path, {"metadata": {"labels": {LABEL: label}}})
    eventually(lambda: says("Training"))
