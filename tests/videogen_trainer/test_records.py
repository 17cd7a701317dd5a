"""Records of computed phases: written by real processes, found again, and what becomes of damaged ones. An HTTP server seals them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from videogen_api.bundle import MANIFEST, canonical_json
from videogen_api.job import ENV_RECORDS_URL, ENV_REPLICA_INDEX, ENV_SERVER_TOKEN, ExitCode, Job, PinnedData, Report
from videogen_api.pinned import ResolvedDataset
from videogen_api.preflight import PreflightResult
from videogen_api.records import RECORD_BYTES, inputs_of, key_of, record_path, told
from videogen_api.training_run import DataReference, Reason
from videogen_operator.seals import Seals
from videogen_trainer import records, tasks
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.report import to_bytes

SEALS = Seals({"key-1": b"k" * 32})
MakeJob = Callable[..., Job]


class Inbox(ThreadingHTTPServer):
    """Seals what a job's pod reports, after it has answered with `refusals`."""

    def __init__(self, job: Job) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.job = job
        self.refusals: list[int] = []
        self.tokens: list[str | None] = []

    def environment(self, folder: Path) -> dict[str, str]:
        (folder / "token").write_text("of the pod\n")
        return {ENV_RECORDS_URL: f"http://127.0.0.1:{self.server_port}/v1/records", ENV_SERVER_TOKEN: str(folder / "token")}

    def record_of(self, report: Report) -> dict[str, Any]:
        inputs = inputs_of(self.job, report.datasets)
        assert inputs is not None
        record = {"key": key_of(inputs), "run": "demo", "phase": "train", "time": "2026-11-01T00:00:00Z", "report": told(report)}
        return SEALS.sealed(record, "models")


class Answer(BaseHTTPRequestHandler):
    server: Inbox

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.tokens.append(self.headers["Authorization"])
        code = self.server.refusals.pop(0) if self.server.refusals else 200
        self.send_response(code)
        self.end_headers()
        if code == 200:
            self.wfile.write(json.dumps({"record": self.server.record_of(Report.model_validate(body["report"]))}).encode())

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def job(make_job: MakeJob) -> Job:
    return make_job({"steps": 2})


@pytest.fixture
def inbox(job: Job) -> Iterator[Inbox]:
    with Inbox(job) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def report(train: Callable[..., Report], job: Job) -> Report:
    done = train(job)
    assert done.reason is Reason.COMPLETED, done.message
    return done


@pytest.fixture
def record(inbox: Inbox, storage: Path, job: Job, report: Report) -> Path:
    """The file of a record that was kept."""
    records.keep(job, storage, report, inbox.environment(storage), sleep=lambda _: None)
    (found,) = (storage / "records").iterdir()
    return found


def test_a_process_keeps_what_it_has_computed_and_a_later_run_finds_it(
    storage: Path, job: Job, inbox: Inbox, start_trainer: Callable[..., Any]
) -> None:
    trainer = start_trainer(job, environment=inbox.environment(storage))
    code, report = trainer.wait()
    assert (code, report.reason) == (ExitCode.SUCCEEDED, Reason.COMPLETED), report.message
    assert inbox.tokens == ["Bearer of the pod"]
    later = job.model_copy(update={"run": "later", "run_uid": "fedcba98", "work_path": "runs/later-fedcba98/train"})
    found = records.find(later, storage)
    assert found is not None
    assert SEALS.problem(found, "models") == ""
    assert Report.model_validate(found["report"]).artifact == report.artifact
    whole = json.loads((storage / record_path(found["key"])).read_bytes())
    assert key_of(whole["inputs"]) == found["key"]
    assert [path.name for path in (storage / "records").iterdir()] == [f"{found['key']}.json"], "nothing half-written is left"


def test_two_processes_of_one_pod_keep_one_record(
    storage: Path, make_job: MakeJob, inbox: Inbox, start_trainer: Callable[..., Any]
) -> None:
    inbox.job = make_job({"steps": 2}, processesPerWorker=2)
    trainer = start_trainer(inbox.job, environment=inbox.environment(storage))
    assert trainer.wait()[0] == ExitCode.SUCCEEDED
    assert len(inbox.tokens) == len(list((storage / "records").iterdir())) == 1


def test_a_preflight_tells_what_was_computed_before_if_it_is_asked(record: Path, storage: Path, job: Job, silent: ProgressReporter) -> None:
    looking = job.model_copy(update={"attempt": 0, "look_up": True})
    told_so = tasks.attempt(looking, storage, {}, silent, lambda: False)
    assert told_so.record == json.loads(record.read_bytes())["record"]
    assert (told_so.reason, told_so.preflight) == (Reason.COMPLETED, PreflightResult())
    silent_job = looking.model_copy(update={"look_up": False})
    assert tasks.attempt(silent_job, storage, {}, silent, lambda: False).record is None
    missing = job.model_copy(update={"data": [PinnedData(reference=DataReference(dataset="squares", version="v2"))]})
    found = tasks.attempt(looking.model_copy(update={"preflight": [missing]}), storage, {}, silent, lambda: False)
    assert found.preflight
    assert (found.record, len(found.preflight.problems)) == (None, 1), "first what is missing"


def test_the_largest_record_fits_into_a_termination_message() -> None:
    record = {"report": {"message": "ä"}}
    record["report"]["message"] += "x" * (RECORD_BYTES - len(canonical_json(record)))
    assert len(canonical_json(record)) == RECORD_BYTES
    data = to_bytes(Report(preflight=PreflightResult(checked=10_000), record=record))
    assert json.loads(data)["record"] == record


def test_a_changed_job_finds_nothing(record: Path, storage: Path, make_job: MakeJob) -> None:
    assert records.find(make_job({"steps": 2}), storage) is not None
    assert records.find(make_job({"steps": 3}), storage) is None
    assert records.find(make_job({"steps": 2}, data=[{"reference": {"dataset": "squares", "version": "v2"}}]), storage) is None


def cut(record: Path) -> None:
    record.write_bytes(record.read_bytes()[:-40])


def nonsense(record: Path) -> None:
    record.write_text('{"record": [1]}')


def too_large(record: Path) -> None:
    whole = json.loads(record.read_bytes())
    whole["record"]["report"]["message"] = "x" * RECORD_BYTES
    record.write_text(json.dumps(whole))


def endless(record: Path) -> None:
    record.write_text(json.dumps({"record": "x" * 10**6}))


def a_folder(record: Path) -> None:
    record.unlink()
    record.mkdir()


@pytest.mark.parametrize("spoil", [cut, nonsense, too_large, endless, a_folder])
def test_a_record_that_cannot_be_read_is_none(spoil: Callable[[Path], None], record: Path, storage: Path, job: Job) -> None:
    spoil(record)
    assert records.find(job, storage) is None


def test_a_record_whose_bundle_is_damaged_or_gone_is_none(record: Path, storage: Path, job: Job, report: Report) -> None:
    assert report.artifact
    folder = storage / report.artifact.path
    weights = next(path for path in sorted(folder.iterdir()) if path.name != MANIFEST)
    whole = weights.read_bytes()
    weights.chmod(0o644)
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert records.find(job, storage) is None
    weights.write_bytes(whole)
    assert records.find(job, storage) is not None
    folder.rename(storage / "elsewhere")
    assert records.find(job, storage) is None


def test_a_record_of_a_dataset_that_is_gone_is_none(record: Path, storage: Path, job: Job, report: Report) -> None:
    (used,) = report.datasets
    (storage / "datasets" / "squares" / used.digest.removeprefix("sha256:")).rename(storage / "elsewhere")
    assert records.find(job, storage) is None


def test_a_busy_inbox_is_asked_again(inbox: Inbox, storage: Path, job: Job, report: Report) -> None:
    inbox.refusals, pauses = [503, 429], list[float]()
    records.keep(job, storage, report, inbox.environment(storage), sleep=pauses.append)
    assert (len(inbox.tokens), pauses, len(list((storage / "records").iterdir()))) == (3, [2.0, 2.0], 1)


@pytest.mark.parametrize("refusals, asked", [([401], 1), ([409], 1), ([503] * 3, 3)])
def test_an_inbox_that_refuses_costs_the_record_alone(
    refusals: list[int], asked: int, inbox: Inbox, storage: Path, job: Job, report: Report
) -> None:
    inbox.refusals = list(refusals)
    records.keep(job, storage, report, inbox.environment(storage), sleep=lambda _: None)
    assert (len(inbox.tokens), (storage / "records").exists()) == (asked, False)


def test_an_inbox_that_is_not_there_costs_the_record_alone(storage: Path, job: Job, report: Report, inbox: Inbox) -> None:
    environment = inbox.environment(storage) | {ENV_RECORDS_URL: "http://127.0.0.1:1/v1/records"}
    records.keep(job, storage, report, environment, sleep=lambda _: None)
    assert not (storage / "records").exists()


def test_a_storage_that_cannot_be_written_costs_the_record_alone(inbox: Inbox, storage: Path, job: Job, report: Report) -> None:
    (storage / "records").write_text("in the way")
    records.keep(job, storage, report, inbox.environment(storage), sleep=lambda _: None)
    assert inbox.tokens
    assert records.find(job, storage) is None


def test_a_record_of_another_job_is_not_kept(inbox: Inbox, storage: Path, job: Job, report: Report, make_job: MakeJob) -> None:
    inbox.job = make_job({"steps": 3})
    records.keep(job, storage, report, inbox.environment(storage), sleep=lambda _: None)
    assert inbox.tokens
    assert not (storage / "records").exists()


NOT_ASKED = {
    "another pod of the attempt": ({ENV_REPLICA_INDEX: "1"}, {}, {}),
    "an attempt that failed": ({}, {}, {"reason": Reason.DIVERGED}),
    "a task without a key": ({}, {"task": "TestScenarios"}, {}),
    "a dataset that the report does not tell": ({}, {}, {"datasets": list[ResolvedDataset]()}),
}


@pytest.mark.parametrize("variables, fields, told_so", NOT_ASKED.values(), ids=NOT_ASKED)
def test_these_keep_nothing(
    variables: dict[str, str], fields: dict[str, Any], told_so: dict[str, Any], inbox: Inbox, storage: Path, make_job: MakeJob
) -> None:
    resolved = ResolvedDataset(dataset="squares", version="v1", digest="sha256:" + "a" * 64)
    done = Report(datasets=[resolved]).model_copy(update=told_so)
    records.keep(make_job({"steps": 2}, **fields), storage, done, inbox.environment(storage) | variables)
    assert inbox.tokens == []
