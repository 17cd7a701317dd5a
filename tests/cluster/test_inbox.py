"""Progress and alerts over HTTP, with tokens that a real API server has signed."""

import json
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

from videogen_api.job import TOKEN_AUDIENCE
from videogen_testing.control_plane import Api, eventually
from videogen_testing.operator_process import OperatorProcess
from videogen_testing.runs import JOBS, RUNS, a_claim, a_run, play, running

STATUS = {
    "progressPercentage": 41,
    "estimatedRemainingSeconds": 801000,
    "metrics": [{"name": "step", "value": "41200"}, {"name": "steps", "value": "100000"}, {"name": "loss", "value": "0.083"}],
    "lastUpdatedTime": "2026-11-01T00:00:00Z",
}


def post(operator: OperatorProcess, path: str, token: str, body: object) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{operator.inbox_port}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status), json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def token_of(api: Api, namespace: str, pod: str, audience: str = TOKEN_AUDIENCE) -> str:
    """A token as the kubelet projects it into a pod."""
    uid = api.get(f"/api/v1/namespaces/{namespace}/pods/{pod}")["metadata"]["uid"]
    bound = {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid}
    spec = {"audiences": [audience], "expirationSeconds": 3600, "boundObjectRef": bound}
    answer = api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token", {"spec": spec})
    return str(answer["status"]["token"])


@pytest.fixture
def pod(api: Api, namespace: str, operator: OperatorProcess) -> str:
    operator.start()
    api.create(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", a_claim())
    api.create(RUNS.format(namespace), a_run(namespace=namespace))
    job = eventually(lambda: api.find(f"{JOBS.format(namespace)}/run-train-1"))
    name = play(api, namespace, job, running())[0]
    eventually(lambda: reason(api, namespace) == "Training")
    return name


def top(api: Api, namespace: str) -> dict[str, str]:
    conditions = api.get(f"{RUNS.format(namespace)}/run")["status"].get("conditions", [])
    return next((one for one in conditions if one["type"] == "Succeeded"), {"reason": "", "message": ""})


def reason(api: Api, namespace: str) -> str:
    return top(api, namespace)["reason"]


def test_progress_of_the_runs_own_pod_stands_in_its_status(api: Api, namespace: str, operator: OperatorProcess, pod: str) -> None:
    code, _ = post(operator, "/v1/progress", token_of(api, namespace, pod), {"trainerStatus": STATUS})
    assert code == 200
    eventually(lambda: "loss 0.083" in top(api, namespace)["message"])
    assert top(api, namespace)["message"] == "train: step 41,200 of 100,000, loss 0.083"
    summary = api.get(f"{RUNS.format(namespace)}/run")["status"]["summary"]
    assert summary == {"phase": "1/1 train", "progress": "41 %", "step": "41200/100000", "loss": "0.083", "eta": "9d6h"}
    labels = f'metric="loss",namespace="{namespace}",phase="train",run="run"'
    assert f"videogen_training_metric{{{labels}}} 0.083" in operator.metrics()


def test_progress_is_written_at_most_every_five_seconds(api: Api, namespace: str, operator: OperatorProcess, pod: str) -> None:
    token, before = token_of(api, namespace, pod), operator.requests("PATCH")
    for second in range(12):
        sent = STATUS | {"progressPercentage": second, "lastUpdatedTime": f"2026-11-01T00:00:{second:02}Z"}
        assert post(operator, "/v1/progress", token, {"trainerStatus": sent})[0] == 200
        time.sleep(0.55)
    assert operator.requests("PATCH") - before == 3


def test_nobody_else_may_report(api: Api, namespace: str, operator: OperatorProcess, pod: str) -> None:
    stranger = {"metadata": {"name": "stranger"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    api.create(f"/api/v1/namespaces/{namespace}/pods", stranger)
    refused = {
        "no token": "",
        "a made-up token": "made.up.token",
        "another audience": token_of(api, namespace, pod, "https://kubernetes.default.svc"),
        "a pod that is no trainer's": token_of(api, namespace, "stranger"),
        "an administrator's static token": "test-administrator",
    }
    answers = {name: post(operator, "/v1/progress", token, {"trainerStatus": STATUS})[0] for name, token in refused.items()}
    assert answers == dict.fromkeys(refused, 401)
    assert 'videogen_progress_reports_total{result="Unauthorized"} 5.0' in operator.metrics()


def test_malformed_and_oversized_reports_are_refused(api: Api, namespace: str, operator: OperatorProcess, pod: str) -> None:
    token = token_of(api, namespace, pod)
    bodies = [b"{", {"trainerStatus": []}, {}, {"trainerStatus": {"progressPercentage": 900}}, [1]]
    assert [post(operator, "/v1/progress", token, body)[0] for body in bodies] == [400] * 5
    assert post(operator, "/v1/progress", token, b" " * 300_000)[0] == 413
    assert post(operator, "/v1/progress", token, {"trainerStatus": STATUS})[0] == 200
    assert post(operator, "/v1/progress", token, {"trainerStatus": STATUS})[0] == 429


def alert(**labels: str) -> dict[str, Any]:
    return {
        "status": "firing",
        "labels": {"alertname": "Slow"} | labels,
        "annotations": {},
        "startsAt": "2026-11-01T00:00:00Z",
        "fingerprint": "f1",
    }


def test_alerts_need_the_token_and_a_webhook_of_version_4(operator: OperatorProcess) -> None:
    operator.start()
    body = {"version": "4", "alerts": [alert(namespace="nowhere", release="none")]}
    assert post(operator, "/v1/alerts", "", body)[0] == 401
    assert post(operator, "/v1/alerts", "alertmanager-secre", body)[0] == 401
    assert post(operator, "/v1/alerts", "alertmanager-secret", {"version": "3", "alerts": []})[0] == 400
    assert post(operator, "/v1/alerts", "alertmanager-secret", b"nonsense")[0] == 400
    assert post(operator, "/v1/alerts", "alertmanager-secret", body) == (200, {"results": ["UnknownRelease"]})
    assert post(operator, "/v1/alerts", "alertmanager-secret", {"version": "4", "alerts": [alert() | {"status": "resolved"}]})[1] == {
        "results": []
    }
    metrics = operator.metrics()
    assert 'videogen_alerts_total{result="Unauthorized"} 2.0' in metrics
    assert 'videogen_alerts_total{result="UnknownRelease"} 1.0' in metrics
