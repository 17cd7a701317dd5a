"""TrainingRuns in a closed loop: golden transcripts of stories, and invariants under a thousand random events."""

from datetime import timedelta
from typing import Any

import pytest

from videogen_api.curation import NewClipsFound
from videogen_api.evaluation import Metric, MetricResult, Verdict
from videogen_api.job import ExitCode, Goodput, Report
from videogen_api.meta import ANNOTATION_REQUEST
from videogen_api.pinned import ResolvedDataset
from videogen_api.training_run import Reason, Split
from videogen_testing.run_simulation import RandomLife, Simulation
from videogen_testing.runs import DIGEST, EVALUATE, RELEASE, TRAIN, a_run, ended, running, trained

CURATE = {"name": "curate", "task": "Curate", "curate": {"dataset": "clips", "version": "1", "sources": [{"path": "raw/a"}]}}


def text(report: Report) -> str:
    return report.model_dump_json(by_alias=True, exclude_none=True)


@pytest.mark.parametrize("seed", range(25))
def test_whatever_happens_the_run_ends_and_the_rules_hold(seed: int) -> None:
    sim = RandomLife(seed, phases=[CURATE, TRAIN | {"attempts": 5}, EVALUATE, RELEASE]).live()
    status, reason = sim.top()
    assert (status, reason) == ("True", Reason.COMPLETED) or reason in {Reason.ATTEMPTS_EXHAUSTED, Reason.STORAGE_FAILED}
    if status == "True":
        assert sim.status().release == "pib-videogen-videofusion-v1.0.0-base"
        assert [phase.outcome for phase in sim.status().phases] == [Reason.COMPLETED] * len(sim.run()["spec"]["phases"])
        resolved = [file for file in sim.files.values() if file.phase == "train"]
        assert all(file.data[0].digest is not None for file in resolved), "the curated digest is pinned"


def test_a_preempted_run_reads_like_this() -> None:
    sim = Simulation()
    sim.settle()
    sim.set_pods(running())
    sim.settle()
    sim.set_pods(ended(ExitCode.PREEMPTED, text(Report(reason=Reason.PREEMPTED, message="SIGTERM", last_step=40))))
    sim.settle()
    assert sim.top() == ("Unknown", Reason.RETRYING)
    sim.step(3)
    sim.settle()
    sim.set_pods(ended(0, text(trained())))
    sim.settle()
    assert sim.log == [
        "PreflightPassed: 4 things that the phases need are there",
        "JobCreated: train: attempt 1 is PyTorchJob run-train-1",
        "AttemptEnded: train: attempt 1 ended with Preempted: pod run-train-1-master-0 ended with exit code 75: SIGTERM",
        "JobCreated: train: attempt 2 is PyTorchJob run-train-2",
        "PhaseCompleted: train: bundle sha256:" + "a" * 64 + " after step 100",
    ]
    assert sim.top() == ("True", Reason.COMPLETED)


def telling(productive: str, seconds: int) -> dict[str, Any]:
    told = {"productiveSeconds": productive, "dataWaitSeconds": "3", "checkpointPauseSeconds": "2", "repeatedSteps": "0"}
    metrics = [{"name": name, "value": value} for name, value in {"checkpointStep": "20", **told}.items()]
    return {"metrics": metrics, "lastUpdatedTime": f"2026-11-01T00:{seconds // 60:02}:{seconds % 60:02}Z"}


def test_the_goodput_of_a_phase_stands_at_it_while_it_runs_and_when_an_attempt_has_ended() -> None:
    sim = Simulation()
    sim.settle()
    sim.set_pods(running())
    seen = []
    for seconds, told in ((50, "30.5"), (100, "97"), (150, "7 of 8"), (200, "-1")):
        sim.step(50)
        sim.progress = {sim.pods()[0]["metadata"]["uid"]: telling(told, seconds)}
        sim.settle()
        seen.append(sim.status().phases[0].goodput)
    assert seen == ["0.61", "0.97", "0.00", "0.00"], "of what is no number nothing counts"
    spent = Goodput(wall_seconds="200", productive_seconds="180.5", data_wait_seconds="1", checkpoint_pause_seconds="2")
    sim.set_pods(ended(ExitCode.PREEMPTED, text(Report(reason=Reason.PREEMPTED, last_step=40, goodput=spent))))
    sim.settle()
    assert sim.status().phases[0].goodput == "0.90"
    sim.step(100)
    sim.settle()
    sim.set_pods(ended(0, text(trained())))  # of an image that does not measure it
    sim.settle()
    phase = sim.status().phases[0]
    assert (phase.outcome, phase.goodput, phase.progress) == (Reason.COMPLETED, "0.60", None)
    assert phase.time_spent
    assert (phase.time_spent.data_wait_seconds, phase.time_spent.checkpoint_pause_seconds) == ("1.000", "2.000")


def test_what_a_pod_told_is_not_told_by_its_namesake_in_a_run_that_was_made_anew() -> None:
    gone = Simulation()
    gone.settle()
    gone.set_pods(running())
    gone.progress = {gone.pods()[0]["metadata"]["uid"]: telling("0.9", 0)}
    gone.settle()
    assert gone.status().phases[0].checkpoint_step == 20
    sim = Simulation()
    sim.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "another"}})  # so that what follows has other UIDs
    sim.settle()
    sim.set_pods(running())
    sim.progress = gone.progress
    sim.settle()
    assert sim.pods()[0]["metadata"]["name"] == gone.pods()[0]["metadata"]["name"]
    assert (sim.status().phases[0].checkpoint_step, sim.status().phases[0].progress) == (0, None)


def test_a_run_that_waits_for_new_clips_curates_again_every_hour_and_uses_up_no_attempt() -> None:
    wanted = {"newClips": {"previous": "0.9", "minimum": 1000, "whenBelow": "Wait"}}
    sim = Simulation(phases=[CURATE | {"attempts": 1, "curate": CURATE["curate"] | wanted}, TRAIN])
    found = NewClipsFound(found=37, minimum=1000, previous="0.9")
    few = ended(ExitCode.DATA_REJECTED, text(Report(reason=Reason.TOO_FEW_NEW_CLIPS, message="too few", new_clips=found)))
    for attempt in range(1, 4):
        sim.settle()
        assert sim.status().phases[0].attempt == attempt
        assert sim.files[f"run-curate-{attempt}"].curate.new_clips.minimum == 1000  # type: ignore[union-attr]
        sim.set_pods(few)
        sim.settle()
        assert sim.top() == ("Unknown", Reason.TOO_FEW_NEW_CLIPS)
        (said,) = (one.message for one in sim.status().conditions if one.type == "Succeeded")
        assert said.startswith(
            "curate: 37 new clips since 0.9, 1,000 are needed; add videos, the sources are looked at again at 2026-11-01T"
        )
        sim.step(3590)
        sim.settle()
        phase = sim.status().phases[0]
        assert (phase.attempt, phase.new_clips, phase.counted_attempts, phase.interruptions) == (attempt, found, 0, 0)
        sim.step(20)
    sim.settle()
    enough = found.model_copy(update={"found": 1200})
    made = ResolvedDataset(dataset="clips", version="1", digest=DIGEST, clips=3000)
    sim.set_pods(ended(0, text(Report(message="made", datasets=[made], new_clips=enough))))
    sim.settle()
    assert (sim.status().phases[0].outcome, sim.status().phases[0].new_clips) == (Reason.COMPLETED, enough)


def test_a_run_that_does_not_wait_for_new_clips_ends_and_trains_nothing() -> None:
    sim = Simulation(phases=[CURATE | {"curate": CURATE["curate"] | {"newClips": {"minimum": 1000}}}, TRAIN])
    sim.settle()
    found = NewClipsFound(found=37, minimum=1000)
    sim.set_pods(ended(ExitCode.DATA_REJECTED, text(Report(reason=Reason.TOO_FEW_NEW_CLIPS, message="37 new clips", new_clips=found))))
    sim.settle()
    assert sim.top() == ("False", Reason.TOO_FEW_NEW_CLIPS)
    phase = sim.status().phases[0]
    assert (phase.new_clips, phase.message.rpartition("; ")[2]) == (found, "add videos, or lower newClips.minimum in a new run")
    assert [job["metadata"]["name"] for job in sim.jobs()] == ["run-curate-1"]


def test_a_run_goes_on_with_the_parent_of_a_rejected_dataset_version_and_says_so() -> None:
    held_out = [{"dataset": "clips", "version": "1", "split": "HeldOut"}]
    sim = Simulation(phases=[CURATE, TRAIN, EVALUATE | {"data": held_out}])
    sim.settle()
    parent = ResolvedDataset(dataset="clips", version="0.9", digest=DIGEST, clips=1200, in_place_of="1", rejected=700)
    said = "version 1 was rejected (DatasetRejected: 41.2 % were rejected, 20 are allowed); its parent 0.9 is used"
    sim.set_pods(ended(0, text(Report(message=said, datasets=[parent]))))
    sim.settle()
    curated = sim.status().phases[0]
    assert (curated.outcome, curated.message, curated.datasets) == (Reason.COMPLETED, said, [parent])
    used = sim.files["run-train-1"].data[0]
    assert (used.reference.version, used.digest) == ("0.9", DIGEST)
    assert f"PhaseCompleted: curate: {said}" in sim.log
    sim.set_pods(ended(0, text(trained())))
    sim.settle()
    used = sim.files["run-validate-1"].data[0]
    assert (used.reference.version, used.reference.split, used.digest) == ("0.9", Split.HELD_OUT, DIGEST)


def test_a_diverging_run_slows_down_and_gives_up() -> None:
    sim = Simulation()
    for attempt in range(3):
        sim.step(400)
        sim.settle()
        assert sim.files[f"run-train-{attempt + 1}"].learning_rate_scale == ("1", "0.5", "0.25")[attempt]
        sim.set_pods(ended(ExitCode.DIVERGED, text(Report(reason=Reason.DIVERGED, message="loss is nan at step 12"))))
        sim.settle()
    assert sim.top() == ("False", Reason.ATTEMPTS_EXHAUSTED)
    message = sim.status().phases[0].message
    assert message.startswith("3 of 3 attempts failed, the last one with Diverged")
    assert message.endswith("lower optimizer.learningRate or gradientClipNorm, or use FP32, in a new run")


def test_a_verdict_stands_at_the_result_that_its_gate_was_judged_by() -> None:
    gate = {"metric": "FVD", "operator": "LessThan", "threshold": "500"}
    gates = [gate, gate | {"threshold": "100"}, gate | {"threshold": "200", "extractor": "i3d"}]
    i3d = {"name": "i3d", "architecture": "I3D", "path": "networks/i3d.safetensors", "digest": DIGEST}
    sim = Simulation(phases=[TRAIN, EVALUATE | {"gates": gates, "evaluate": {"extractors": [i3d]}}])
    sim.settle()
    sim.set_pods(ended(0, text(trained())))
    sim.settle()
    fvd = {"metric": Metric.FVD, "samples": 100}
    measured = [
        MetricResult(**fvd, value="300", extractor="video-classifier"),
        MetricResult(**fvd, value="90", extractor="i3d"),
        MetricResult(**fvd, value="900", extractor="another"),
    ]
    sim.set_pods(ended(0, text(Report(results=measured))))
    sim.settle()
    assert sim.top() == ("False", Reason.GATE_FAILED)
    assert [(one.value, one.verdict, one.message) for one in sim.status().phases[1].results] == [
        ("300", Verdict.FAILED, "FVD is 300 and must be < 500; FVD is 300 and must be < 100"),
        ("90", Verdict.PASSED, "FVD is 90 and must be < 200"),
        ("900", None, ""),
    ]


def test_results_that_do_not_fit_their_report_are_not_measured_again() -> None:
    sim = Simulation(phases=[TRAIN, EVALUATE])
    sim.settle()
    sim.set_pods(ended(0, text(trained())))
    sim.settle()
    report = Report(reason=Reason.RESULTS_TOO_LARGE, message="the report has 5000 bytes")
    sim.set_pods(ended(ExitCode.INVALID_JOB, text(report)))
    sim.settle()
    assert sim.top() == ("False", Reason.RESULTS_TOO_LARGE)
    assert (
        sim.status()
        .phases[1]
        .message.endswith("5000 bytes; in a new run use fewer networks in evaluate.extractors, the others in a second Evaluate phase")
    )


def test_a_deadline_ends_the_phase_and_stops_its_pods() -> None:
    sim = Simulation(phases=[TRAIN | {"window": {"deadlineSeconds": 600}}])
    sim.settle()
    sim.set_pods(running())
    sim.settle()
    sim.spec(suspend=True)
    sim.settle()
    sim.step(5000)
    assert sim.top() == ("Unknown", Reason.SUSPENDED)
    sim.spec(suspend=False)
    sim.settle()
    sim.set_pods(running())
    sim.step(590)
    sim.settle()
    assert sim.top() == ("Unknown", Reason.TRAINING)
    sim.step(20)
    sim.settle()
    assert sim.top() == ("False", Reason.DEADLINE_EXCEEDED)
    assert sim.jobs() == ()
    sim.annotate(ANNOTATION_REQUEST, "retry@1")
    sim.settle()
    assert sim.top() == ("Unknown", Reason.STARTING)


def test_a_refused_job_is_told_and_tried_again() -> None:
    sim = Simulation()
    sim.refuse_next = 1
    sim.step()
    assert (sim.top(), sim.preflights()) == (("Unknown", Reason.API_SERVER_UNAVAILABLE), ())
    sim.step()
    sim.step()
    assert len(sim.preflights()) == 1
    sim.refuse_next = 1
    sim.step()
    assert sim.top() == ("Unknown", Reason.API_SERVER_UNAVAILABLE)
    assert (sim.status().phases[0].begun, sim.status().phases[0].attempt) == (True, 0)
    sim.settle()
    assert sim.top() == ("Unknown", Reason.STARTING)


def test_an_absent_training_operator_is_told_after_half_a_minute() -> None:
    sim = Simulation()
    sim.settle()
    sim.step(29)
    assert sim.top() == ("Unknown", Reason.STARTING)
    sim.step(2)
    assert sim.top() == ("Unknown", Reason.TRAINING_OPERATOR_UNAVAILABLE)


def test_so_is_one_that_makes_no_pods_for_a_job_that_its_queue_let_go_on() -> None:
    """As of an account that admissionPolicy.trainingOperators does not name: what it said of the suspended job stays."""
    sim = Simulation(phases=[TRAIN | {"placement": {"queueName": "research"}}])
    sim.settle()
    job = dict(sim.jobs()[0])

    def is_suspended(*, now: bool, said: str) -> None:
        told = [{"type": "Created", "status": "True"}, {"type": "Suspended", "status": said}]
        spec = job["spec"] | {"runPolicy": job["spec"]["runPolicy"] | {"suspend": now}}
        sim.put(job | {"spec": spec, "status": {"conditions": told}})

    is_suspended(now=True, said="True")
    sim.step()
    sim.step(20)
    assert sim.top()[1] != Reason.TRAINING_OPERATOR_UNAVAILABLE, "a job that is suspended has no pods"
    is_suspended(now=False, said="True")
    sim.step()
    sim.step(31)
    assert sim.top() == ("Unknown", Reason.TRAINING_OPERATOR_UNAVAILABLE)
    is_suspended(now=False, said="False")  # training-operator writes it with the pods' beginnings
    sim.step()
    assert sim.top() == ("Unknown", Reason.STARTING)


def test_the_next_attempt_waits_until_the_last_ones_pods_have_ended() -> None:
    sim = Simulation(phases=[TRAIN | {"workers": {"replicas": 2}}])
    sim.settle()
    sim.set_pods(running())
    sim.settle()
    first, second = (pod["metadata"]["name"] for pod in sim.pods())
    job = sim.jobs()[0]
    sim.put(sim.world.get("Pod", "models", first) | {"status": ended(1)})  # type: ignore[operator]
    sim.put(sim.world.get("Pod", "models", second) | {"spec": {"nodeName": "node"}}, deletionTimestamp="2026-11-01T00:00:00Z")  # type: ignore[operator]
    sim.step()
    assert sim.status().phases[0].attempts[0].reason == Reason.PREEMPTED
    kept = sim.world.get("Pod", "models", second)
    sim.step(10)
    sim.put(kept | {"metadata": kept["metadata"] | {"uid": "still-there"}})  # type: ignore[operator,index]
    sim.step(10)
    assert sim.top() == ("Unknown", Reason.RETRYING)
    assert [one["metadata"]["name"] for one in sim.jobs()] == []
    sim.world.remove(sim.world.get("Pod", "models", second))  # type: ignore[arg-type]
    sim.settle()
    assert [one["metadata"]["name"] for one in sim.jobs()] == ["run-train-2"]
    assert job["metadata"]["name"] == "run-train-1"


@pytest.mark.parametrize(
    "code, report, top",
    [
        (0, trained(), ("True", Reason.COMPLETED)),
        (ExitCode.DATA_REJECTED, Report(reason=Reason.VIDEO_UNREADABLE), ("False", Reason.VIDEO_UNREADABLE)),
        (1, Report(reason=Reason.TRAINER_FAILED, last_step=40), ("False", Reason.DEADLINE_EXCEEDED)),
    ],
    ids=["its work is done", "it cannot be helped", "it would have to be repeated"],
)
def test_an_attempt_that_ended_while_nobody_looked_is_judged_before_the_deadline(
    code: int, report: Report, top: tuple[str, Reason]
) -> None:
    sim = Simulation(phases=[TRAIN | {"window": {"deadlineSeconds": 600}}])
    sim.settle()
    sim.set_pods(running())
    sim.settle()
    sim.set_pods(ended(code, text(report)))
    sim.step(5000)
    sim.settle()
    assert sim.top() == top
    assert [record.last_step for record in sim.status().phases[0].attempts] == [report.last_step]


def test_a_job_that_was_deleted_is_told_before_the_deadline() -> None:
    sim = Simulation(phases=[TRAIN | {"window": {"deadlineSeconds": 600}}])
    sim.settle()
    sim.world.remove(sim.jobs()[0])
    sim.step(5000)
    sim.settle()
    assert sim.top() == ("False", Reason.DEADLINE_EXCEEDED)
    assert [record.reason for record in sim.status().phases[0].attempts] == [Reason.PREEMPTED]


@pytest.mark.parametrize("later", [[], [EVALUATE]], ids=["of a run that is done", "of a phase before the present one"])
def test_a_worker_that_hangs_after_anothers_success_is_stopped_and_gives_its_node_back(later: list[dict[str, Any]]) -> None:
    sim = Simulation(phases=[TRAIN | {"workers": {"replicas": 2}}, *later])
    sim.settle()
    sim.set_pods(running())
    sim.settle()
    first, second = (pod["metadata"]["name"] for pod in sim.pods())
    sim.put(sim.world.get("Pod", "models", second) | {"status": ended(0, text(trained()))})  # type: ignore[operator]
    sim.settle()
    assert sim.status().phases[0].outcome == Reason.COMPLETED
    plan = sim.step(29)
    assert plan.delete == ()
    assert plan.requeue_after is not None
    assert 0 < plan.requeue_after <= 1
    assert "run-train-1" in [job["metadata"]["name"] for job in sim.jobs()]
    sim.step(plan.requeue_after)
    assert "run-train-1" not in [job["metadata"]["name"] for job in sim.jobs()]
    assert not {first, second} & {pod["metadata"]["name"] for pod in sim.pods()}
    assert [ref.kind for ref in sim.step().delete] == ["NetworkPolicy"]
    assert sim.step().delete == ()


def test_a_job_that_the_status_does_not_know_yet_stops_when_the_run_is_suspended() -> None:
    sim = Simulation()
    before: Any = {}
    while not sim.jobs():
        before = dict(sim.run().get("status") or {})
        sim.step()
    sim.put(sim.run() | {"status": before})  # an edit came before the status could be written
    sim.set_pods(running())
    sim.spec(suspend=True)
    sim.settle()
    assert (sim.top(), sim.jobs(), sim.pods()) == (("Unknown", Reason.SUSPENDED), (), ())
    sim.spec(suspend=False)
    sim.settle()
    assert [job["metadata"]["name"] for job in sim.jobs()] == ["run-train-1"]


def test_what_was_reported_last_counts_when_the_pod_dies_at_once() -> None:
    sim = Simulation(phases=[TRAIN | {"attempts": 3}])
    sim.settle()
    sim.set_pods(running())
    sim.settle()
    for step in (10, 20):
        sim.now += timedelta(seconds=5)
        told = [{"name": "step", "value": str(step)}, {"name": "checkpointStep", "value": str(step)}]
        (pod,) = sim.pods()
        sim.progress[pod["metadata"]["uid"]] = {"lastUpdatedTime": sim.now.isoformat(), "metrics": told}
        sim.step()
    sim.set_pods(ended(137))
    sim.settle()
    assert sim.status().phases[0].checkpoint_step == 20


def test_workers_that_end_by_themselves_keep_their_job_and_their_logs() -> None:
    sim = Simulation(phases=[TRAIN | {"workers": {"replicas": 2}}])
    sim.settle()
    sim.set_pods(ended(0, text(trained())))
    sim.settle()
    assert sim.step(3600).delete == ()
    assert [job["metadata"]["name"] for job in sim.jobs()] == ["run-train-1"]


WAITS: list[tuple[str, dict[str, Any], dict[str, Any] | None]] = [
    ("for a claim", {"storage": {"claimName": "elsewhere"}}, None),
    ("for weights", {"initFrom": {"run": "another"}}, None),
    ("for a training-operator", {}, None),
    ("for a node", {}, {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}),
]


@pytest.mark.parametrize("spec, pods", [row[1:] for row in WAITS], ids=[row[0] for row in WAITS])
def test_a_run_that_waits_is_woken_by_what_it_waits_for_and_hardly_looks_by_itself(spec: Any, pods: Any) -> None:
    sim = Simulation(**spec)
    sim.settle()
    if pods:
        sim.set_pods(pods)
    sim.step(60)
    sim.settle()
    again = sim.step().requeue_after
    assert again is not None
    assert 300 <= again <= 450


def test_what_must_happen_at_a_time_is_not_put_off_by_a_long_wait() -> None:
    sim = Simulation(phases=[TRAIN | {"window": {"deadlineSeconds": 100}}])
    sim.settle()
    assert sim.step(10).requeue_after == 20  # then nobody has answered for half a minute
    assert sim.step(30).requeue_after == 60  # then the deadline is over


def test_runs_that_wait_together_do_not_look_together() -> None:
    delays = set()
    for number in range(20):
        sim = Simulation(storage={"claimName": "elsewhere"})
        sim.world.remove(sim.run())
        sim.put(a_run(storage={"claimName": "elsewhere"}), "models", generation=1, uid=f"uid-{number}")
        sim.settle()
        delays.add(sim.step().requeue_after)
    assert len(delays) == 20
