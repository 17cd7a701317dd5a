"""A run that is made anew takes what the one before has computed: real API server, real operator, and no pods of training."""

from pathlib import Path
from typing import Any

import pytest

from videogen_api.job import Report
from videogen_api.pinned import ResolvedDataset
from videogen_api.preflight import PreflightResult
from videogen_testing.control_plane import Api, eventually
from videogen_testing.inbox_client import post, token_of
from videogen_testing.operator_process import OperatorProcess
from videogen_testing.runs import DIGEST, JOBS, RUNS, a_claim, a_run, ended, first_job, play, running, trained

DONE = trained().model_copy(update={"datasets": [ResolvedDataset(dataset="clips", version="1", digest=DIGEST)]})


def text(report: Report) -> str:
    return report.model_dump_json(by_alias=True, exclude_none=True)


@pytest.fixture
def record(api: Api, namespace: str, operator: OperatorProcess, tmp_path: Path) -> dict[str, Any]:
    """Of a run that has trained and is deleted."""
    (tmp_path / "record-keys").mkdir()
    (tmp_path / "record-keys" / "key-1").write_bytes(b"k" * 32)
    operator.environment["VIDEOGEN_RECORD_KEYS"] = str(tmp_path / "record-keys")
    operator.start()
    api.create(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", a_claim())
    api.create(RUNS.format(namespace), a_run(namespace=namespace))
    job = first_job(api, namespace)
    (pod,) = play(api, namespace, job, running())
    body = {"report": DONE.model_dump(mode="json", by_alias=True)}
    code, answer = eventually(lambda: _sealed(operator, token_of(api, namespace, pod), body))
    assert code == 200
    play(api, namespace, job, ended(0, text(DONE)))
    eventually(lambda: succeeded(api, namespace, "run") == "True")
    api.delete(f"{RUNS.format(namespace)}/run")
    found: dict[str, Any] = answer["record"]
    return found


def _sealed(operator: OperatorProcess, token: str, body: Any) -> tuple[int, Any] | None:
    """The answer; None as long as the operator has not seen the pod, or is asked too often."""
    code, answer = post(operator, "/v1/records", token, body)
    return None if code in {401, 409, 429} else (code, answer)


def succeeded(api: Api, namespace: str, run: str) -> str:
    conditions = api.get(f"{RUNS.format(namespace)}/{run}").get("status", {}).get("conditions", [])
    return next((str(one["status"]) for one in conditions if one["type"] == "Succeeded"), "")


def looked_up(api: Api, namespace: str, record: dict[str, Any]) -> None:
    """The run is applied again under another name, and the pod of its preflight finds the record."""
    api.create(RUNS.format(namespace), a_run("again", namespace))
    job = eventually(lambda: api.find(f"{JOBS.format(namespace)}/again-train-0"))
    play(api, namespace, job, ended(0, text(Report(preflight=PreflightResult(checked=1), record=record))))


def test_a_run_that_is_made_anew_is_done_without_training(
    api: Api, namespace: str, operator: OperatorProcess, record: dict[str, Any]
) -> None:
    looked_up(api, namespace, record)
    eventually(lambda: succeeded(api, namespace, "again") == "True")
    status = api.get(f"{RUNS.format(namespace)}/again")["status"]
    (phase,) = status["phases"]
    source = {name: record[name] for name in ("run", "phase", "time", "key")}
    assert (phase["outcome"], phase["reusedFrom"], phase.get("jobName", "")) == ("Completed", source, "")
    assert status["artifact"]["digest"] == DIGEST
    assert api.find(f"{JOBS.format(namespace)}/again-train-1") is None
    eventually(lambda: "PhaseReused" in reasons(api, namespace))


def test_a_forged_record_is_told_and_the_phase_trained(api: Api, namespace: str, operator: OperatorProcess, record: dict[str, Any]) -> None:
    forged = record | {"report": record["report"] | {"artifact": {"path": "bundles/evil/x", "digest": DIGEST}}}
    looked_up(api, namespace, forged)
    eventually(lambda: api.find(f"{JOBS.format(namespace)}/again-train-1"))
    eventually(lambda: "RecordRefused" in reasons(api, namespace))
    assert "reusedFrom" not in api.get(f"{RUNS.format(namespace)}/again")["status"]["phases"][0]


def reasons(api: Api, namespace: str) -> set[str]:
    """Of the events so far."""
    return {event["reason"] for event in api.items(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")}
