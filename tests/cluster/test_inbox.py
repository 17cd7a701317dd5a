"""Progress and alerts over HTTP, with tokens that a real API server has signed."""

import asyncio
import base64
import json
import time
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from videogen_api.job import TOKEN_AUDIENCE
from videogen_operator.inbound.tokens import REVIEWS_PER_SECOND
from videogen_testing.control_plane import Api, eventually
from videogen_testing.inbox_client import post, token_of
from videogen_testing.operator_process import OperatorProcess
from videogen_testing.runs import RUNS, a_claim, a_run, first_job, play, running

ADDRESSES, CONNECTIONS = 8, 12  # of a flood: as many as are all served (videogen_operator.inbound.listening.Limits)
STATUS = {
    "progressPercentage": 41,
    "estimatedRemainingSeconds": 801000,
    "metrics": [{"name": "step", "value": "41200"}, {"name": "steps", "value": "100000"}, {"name": "loss", "value": "0.083"}],
    "lastUpdatedTime": "2026-11-01T00:00:00Z",
}


@pytest.fixture
def pod(api: Api, namespace: str, operator: OperatorProcess) -> str:
    operator.start()
    api.create(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", a_claim())
    api.create(RUNS.format(namespace), a_run(namespace=namespace))
    job = first_job(api, namespace)
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
    told = {"phase": "1/1 train", "progress": "41 %", "step": "41200/100000", "loss": "0.083", "eta": "9d6h"}
    assert summary == told | {"model": "pib-videogen-videofusion-v1.0.0-base", "team": ""}
    labels = f'metric="loss",namespace="{namespace}",phase="train",run="run"'
    assert f"videogen_training_metric{{{labels}}} 0.083" in operator.metrics()


def test_progress_is_written_at_most_every_fifteen_seconds_and_told_to_prometheus_at_once(
    api: Api, namespace: str, operator: OperatorProcess, pod: str
) -> None:
    """By the times in the reports. One that is not written wakes nothing."""
    token, path = token_of(api, namespace, pod), RUNS.format(namespace)
    version = api.get(path)["metadata"]["resourceVersion"]
    for second in range(0, 40, 4):
        sent = STATUS | {"progressPercentage": second, "lastUpdatedTime": f"2026-11-01T00:00:{second:02}Z"}
        before = passes(operator)
        eventually(lambda: post(operator, "/v1/progress", token, {"trainerStatus": sent})[0] == 200)  # noqa: B023 - called at once
        assert f'videogen_training_progress_percent{{namespace="{namespace}",phase="train",run="run"}} {second}.0' in operator.metrics()
        eventually(lambda: percentages(api, path, version)[-1:] == [second // 16 * 16])  # noqa: B023
        if second % 16:
            assert passes(operator) == before
        else:
            eventually(lambda: passes(operator) > before)  # noqa: B023
    assert percentages(api, path, version) == [0, 16, 32]


def passes(operator: OperatorProcess) -> float:
    """Finished passes of runs so far."""
    start = 'videogen_reconcile_total{kind="TrainingRun",result="Done"} '
    return sum(float(line.removeprefix(start)) for line in operator.metrics().splitlines() if line.startswith(start))


def percentages(api: Api, path: str, version: str) -> list[int]:
    """Each progress that was written since then, once."""
    written = [event["object"]["status"]["phases"][0].get("progress") or {} for event in api.history(path, version)]
    found = [progress["progressPercentage"] for progress in written if progress]
    return [one for one, before in zip(found, [None, *found], strict=False) if one != before]


def test_nobody_else_may_report(api: Api, namespace: str, operator: OperatorProcess, pod: str) -> None:
    stranger = {"metadata": {"name": "stranger"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    api.create(f"/api/v1/namespaces/{namespace}/pods", stranger)
    refused = {
        "no token": "",
        "a made-up token": "made.up.token",
        "another audience": token_of(api, namespace, pod, "https://kubernetes.default.svc"),
        "a pod that is no trainer's": token_of(api, namespace, "stranger"),
        "an administrator's static token": "test-administrator",
        "a token that is no text": "\xff\xfe",
        "a forged token": forged(api, namespace, pod),
    }
    answers = {name: post(operator, "/v1/progress", token, {"trainerStatus": STATUS})[0] for name, token in refused.items()}
    assert answers == dict.fromkeys(refused, 401)
    assert 'videogen_progress_reports_total{result="Unauthorized"} 7.0' in operator.metrics()


def forged(api: Api, namespace: str, pod: str, number: int = 0) -> str:
    """What somebody without the API server's key can make: all claims are right, the signature is not."""
    uid = api.get(f"/api/v1/namespaces/{namespace}/pods/{pod}")["metadata"]["uid"]
    bound = {"namespace": namespace, "pod": {"name": pod, "uid": uid}, "serviceaccount": {"name": "default", "uid": "x"}}
    claims = {"aud": [TOKEN_AUDIENCE], "exp": time.time() + 3600, "kubernetes.io": bound, "jti": str(number)}
    parts = (json.dumps(part).encode() for part in ({"alg": "RS256", "kid": "x"}, claims, "no signature"))
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


async def test_a_flood_of_forged_tokens_does_not_reach_the_api_server(
    api: Api, namespace: str, operator: OperatorProcess, pod: str
) -> None:
    """Those that claim a pod that is not there cost it nothing, those that claim one that is there only some in a second."""
    token = token_of(api, namespace, pod)
    assert await reports(operator, token) == [200]
    before, begun = reviews(operator), time.monotonic()
    template = forged(api, namespace, pod)
    assert set(await reports(operator, *(forged_elsewhere(template, number) for number in range(300)))) == {401}
    assert reviews(operator) == before
    flood = [forged(api, namespace, pod, number) for number in range(300)]
    assert set(await reports(operator, *flood)) == {401, 503}
    assert reviews(operator) - before <= REVIEWS_PER_SECOND * (1 + time.monotonic() - begun)
    assert 'videogen_progress_reports_total{result="Unreviewed"}' in operator.metrics()
    assert set(await reports(operator, token)) <= {200, 429}, "who is known already is heard in spite of the flood"


def forged_elsewhere(template: str, number: int) -> str:
    """The same with the UID of a pod that is not there."""
    head, payload, signature = template.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    claims["kubernetes.io"]["pod"]["uid"] = f"unknown-{number}"
    return f"{head}.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.{signature}"


async def reports(operator: OperatorProcess, *tokens: str) -> list[int]:
    """The answers to one report with each token, sent at once over more connections than one address may have."""
    url = f"http://127.0.0.1:{operator.inbox_port}/v1/progress"
    async with AsyncExitStack() as stack:
        connectors = [aiohttp.TCPConnector(limit=CONNECTIONS, local_addr=(f"127.0.0.{2 + number}", 0)) for number in range(ADDRESSES)]
        sessions = [await stack.enter_async_context(aiohttp.ClientSession(connector=connector)) for connector in connectors]

        async def report(number: int, token: str) -> int:
            headers = {"Authorization": f"Bearer {token}"}
            async with sessions[number % ADDRESSES].post(url, json={"trainerStatus": STATUS}, headers=headers) as answer:
                return answer.status

        return list(await asyncio.gather(*(report(number, token) for number, token in enumerate(tokens))))


def reviews(operator: OperatorProcess) -> float:
    """TokenReviews so far."""
    lines = [line for line in operator.metrics().splitlines() if line.startswith("videogen_api_requests_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if 'resource="tokenreviews"' in line)


def test_malformed_and_oversized_reports_are_refused(api: Api, namespace: str, operator: OperatorProcess, pod: str) -> None:
    token = token_of(api, namespace, pod)
    bodies = [b"{", b"[" * 60_000, b"\xff", {"trainerStatus": []}, {}, {"trainerStatus": {"progressPercentage": 900}}, [1]]
    assert [post(operator, "/v1/progress", token, body)[0] for body in bodies] == [400] * 7
    code, answer = post(operator, "/v1/progress", token, {"trainerStatus": STATUS | {"lastUpdatedTime": "yesterday"}})
    assert (code, "lastUpdatedTime: " in answer, "found yesterday" in answer) == (400, True, True), answer
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
    code, answer = post(operator, "/v1/alerts", "", body)
    assert (code, "alertWebhook.existingSecret" in answer) == (401, True), answer
    assert post(operator, "/v1/alerts", "alertmanager-secre", body)[0] == 401
    assert post(operator, "/v1/alerts", "alertmanager-secret", {"version": "3", "alerts": []})[0] == 400
    assert post(operator, "/v1/alerts", "alertmanager-secret", b"nonsense")[0] == 400
    assert post(operator, "/v1/alerts", "alertmanager-secret", body) == (200, {"results": ["UnknownRelease"]})
    assert post(operator, "/v1/alerts", "alertmanager-secret", {"version": "4", "alerts": [alert() | {"status": "resolved"}]})[1] == {
        "results": []
    }
    assert post(operator, "/v1/alerts", "\xff\xfe", body)[0] == 401
    metrics = operator.metrics()
    assert 'videogen_alerts_total{result="Unauthorized"} 3.0' in metrics
    assert 'videogen_alerts_total{result="UnknownRelease"} 1.0' in metrics


MALFORMED = {
    "alerts.0.labels: Input should be a valid dictionary": [alert() | {"labels": ["Slow"]}],
    "alerts.0.annotations: Input should be a valid dictionary": [alert() | {"annotations": ["summary"]}],
    "alerts.0.labels.release: Input should be a valid string": [alert() | {"labels": {"release": 7}}],
    "alerts.0.startsAt: Field required": [{"status": "firing", "labels": {}}],
    "alerts.0: Input should be a valid dictionary": ["firing"],
    "alerts: Input should be a valid list": {},
}


def test_a_malformed_webhook_is_answered_with_what_is_wrong_and_where(operator: OperatorProcess) -> None:
    operator.start()
    for said, alerts in MALFORMED.items():
        code, answer = post(operator, "/v1/alerts", "alertmanager-secret", {"version": "4", "alerts": alerts})
        assert (code, said in answer) == (400, True), answer
    for body in ([], b"[" * 100_000, b"\xff"):
        assert post(operator, "/v1/alerts", "alertmanager-secret", body)[0] == 400


def test_each_alert_of_a_large_webhook_is_decided(operator: OperatorProcess) -> None:
    operator.start()
    alerts = [alert(namespace="nowhere", release="none", number="x" * 200, name=str(number)) for number in range(2000)]
    code, answer = post(operator, "/v1/alerts", "alertmanager-secret", {"version": "4", "alerts": alerts})
    assert (code, answer) == (200, {"results": ["UnknownRelease"] * 2000})
