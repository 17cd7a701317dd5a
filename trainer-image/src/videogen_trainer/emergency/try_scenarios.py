"""Task TestScenarios: simulated emergencies, each asked of the server's own code, timed and judged.

A scenario passes if the server answers with a video within `maximumSeconds` that is good enough (`judge.py`). What became of
each is written as soon as it is known, so an attempt after a killed one asks only the others. Scenarios that fail are results,
not failures of the phase: its gates say how many may.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from videogen_api.bundle import canonical_json
from videogen_api.emergency import Scenarios
from videogen_api.evaluation import Metric, MetricResult
from videogen_api.job import Job, Report
from videogen_api.training_run import Reason
from videogen_models.sealed import write_durably
from videogen_models.video import decode_mp4
from videogen_models.video_model import ClipConfig
from videogen_trainer.curation.thumbnail import thumbnail
from videogen_trainer.dataset import writing
from videogen_trainer.distributed import World
from videogen_trainer.emergency.judge import Judge, Scores, open_judge
from videogen_trainer.emergency.outcomes import OutcomeLog, ScenarioOutcome
from videogen_trainer.emergency.runtime import CANCELLED, SEEDS, Answer, Runtime
from videogen_trainer.emergency.scenarios import Scenario, read_scenarios
from videogen_trainer.evaluate import measure
from videogen_trainer.evaluate.bootstrap import interval
from videogen_trainer.evaluate.measure import NO_NETWORK, decimal
from videogen_trainer.evaluate.page import Card, page
from videogen_trainer.evaluate.task import device_name
from videogen_trainer.failure import Failure
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.verification import together

FOLDER = "scenarios"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """All that is needed to try a scenario."""

    runtime: Runtime
    judge: Judge
    wanted: Scenarios
    seed: int
    key: str
    stop: Callable[[], bool]

    def run(self, scenario: Scenario) -> tuple[ScenarioOutcome, bytes]:
        """Ask, and judge the answer: the outcome and its mp4. Raises Failure(Preempted)."""
        seed = scenario_seed(self.seed, scenario)
        answer = self.runtime.ask(scenario.prompt, seed, self.stop)
        if answer.outcome == CANCELLED:
            raise Failure(Reason.PREEMPTED, "asked to stop; the next attempt goes on behind the last finished scenario")
        scores = self.judge.score(decode_mp4(answer.video), scenario.prompt, scenario.category) if answer.video else None
        why = self._problem(answer, scores)
        outcome = ScenarioOutcome(
            key=self.key,
            **scenario.model_dump(),
            seed=seed,
            outcome=answer.outcome,
            seconds=round(answer.seconds, 3),
            passed=not why,
            reason=why[:500],
            coherence=round(scores.coherence, 6) if scores else None,
            artefact_rate=round(scores.artefact_rate, 6) if scores else None,
            similarity=round(scores.similarity, 6) if scores and scores.similarity is not None else None,
            video=f"{scenario.id}.mp4" if answer.video else "",
            video_sha256=hashlib.sha256(answer.video).hexdigest() if answer.video else "",
        )
        return outcome, answer.video

    def _problem(self, answer: Answer, scores: Scores | None) -> str:
        if scores is None:
            return f"{answer.outcome}: {answer.message}"
        if answer.seconds > self.wanted.maximum_seconds:
            return f"it took {answer.seconds:.1f} s, scenarios.maximumSeconds is {self.wanted.maximum_seconds}"
        return self.judge.problem(scores)


def run(job: Job, storage: Path, world: World, progress: ProgressReporter, stop: Callable[[], bool]) -> Report:
    """Try the scenarios of `job.scenarios` with the bundle `job.artifact`. The same Report in all processes.

    Raises Failure: TableInvalid, ArtifactInvalid, ExtractorMissing, InvalidJob for prompts that cannot be judged, DatasetNotFound,
    DatasetCorrupt, DatasetTooSmall, Preempted, StorageFailed.
    """
    assert job.artifact is not None, "a TestScenarios job without an artifact"
    wanted = job.scenarios or Scenarios()
    scenarios = read_scenarios(wanted, storage)
    judge = together(world, lambda check: open_judge(wanted.quality, job.data, storage, world.device, check=check))
    judge.check_prompts(scenario.prompt for scenario in scenarios)
    steps, seconds = wanted.sampling_steps, wanted.maximum_seconds
    runtime = Runtime.open(job.artifact, storage, job.model, steps=steps, seconds=seconds)
    key = str(world.from_leader(_key(job, wanted, judge, device_name(world))))
    trial = Trial(runtime=runtime, judge=judge, wanted=wanted, seed=job.recipe.seed, key=key, stop=stop)
    log = OutcomeLog(storage / job.work_path / FOLDER, key, world.rank)
    known = world.from_leader(sorted(log.known(scenarios)) if world.leads else None)  # before anybody writes
    assert isinstance(known, list)
    left = [scenario for scenario in scenarios if scenario.id not in known]
    try_all(world.share(left), len(scenarios), trial, log, progress, world)
    world.any(False)  # until the last process has written its last outcome
    report = None
    if world.leads:
        report = conclude(job, log, scenarios, judge, storage, device_name(world), runtime.clips).wire()
    return Report.model_validate(world.from_leader(report))


def try_all(own: Sequence[Scenario], total: int, trial: Trial, log: OutcomeLog, progress: ProgressReporter, world: World) -> None:
    """This process' share of the scenarios that nobody has tried."""
    passed, known = 0, max(0, total - len(own) * world.size)  # the others' shares are no larger
    for number, scenario in enumerate(own, 1):
        if trial.stop():
            raise Failure(Reason.PREEMPTED, "asked to stop; the next attempt goes on behind the last finished scenario")
        passed += log.add(*trial.run(scenario)).passed
        if world.leads:
            done = min(known + number * world.size, total)
            progress.report(done, total, {"scenarios": done, "passedHere": passed}, final=number == len(own))


def conclude(
    job: Job, log: OutcomeLog, scenarios: Sequence[Scenario], judge: Judge, storage: Path, device: str, clips: ClipConfig
) -> Report:
    """Everything together: files for people, results for gates."""
    known = log.known(scenarios)
    outcomes = [known[scenario.id] for scenario in scenarios]
    log.finish(outcomes)
    passed, worst = sum(one.passed for one in outcomes), max(outcomes, key=lambda one: one.seconds)
    said = f"{passed} of {len(outcomes)} scenarios passed; the slowest, {worst.id}, took {worst.seconds:.2f} s"
    if failed := [one for one in outcomes if not one.passed]:
        said += f"; first that failed: {failed[0].id}: {failed[0].reason}"
    folder = storage / job.work_path / FOLDER
    with writing(folder / "scenarios.html"):
        write_durably(folder / "scenarios.html", page(f"Scenarios of {job.run}, phase {job.phase}", said, _sections(outcomes, folder)))
    message = f"{said[:800]}; see {FOLDER}/scenarios.html of the phase's folder"
    measured = results(outcomes, job.recipe.seed, f"worst {worst.seconds:.3f} s, as the server runs them, on {device}")
    return Report(
        message=message,
        artifact=job.artifact,
        datasets=judge.datasets,
        results=measured,
        frames=clips.frames,
        resolution=clips.resolution,
    )


def results(outcomes: Sequence[ScenarioOutcome], seed: int, how: str) -> list[MetricResult]:
    """ScenarioPassRatio, and GenerationSeconds over all scenarios, also those that were cut off at their time."""
    passed = np.array([float(one.passed) for one in outcomes])
    causes = Counter(one.reason.split(":")[0].split(" is ")[0] for one in outcomes if not one.passed)
    words = f"{int(passed.sum())} of {len(outcomes)} passed" + "".join(f"; {cause}: {count}" for cause, count in causes.most_common(3))
    bounds = np.clip(interval(lambda drawn: float(passed[drawn].mean()), len(passed), seed=seed), 0.0, 1.0).tolist()
    ratio = measure.result(
        Metric.SCENARIO_PASS_RATIO, float(passed.mean()), bounds, samples=len(passed), network=NO_NETWORK, message=words[:300]
    )
    times = np.array([[one.seconds, 1.0] for one in outcomes])
    return [ratio, measure.generation_seconds(times, seed=seed, message=how)]


def scenario_seed(seed: int, scenario: Scenario) -> int:
    """Seed of a scenario's video: its own, and the same in every attempt."""
    text = f"scenario:{seed}:{scenario.id}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") % SEEDS


def _key(job: Job, wanted: Scenarios, judge: Judge, device: str) -> str:
    assert job.artifact is not None
    decides = wanted.model_copy(update={"samples": None, "table": None}).wire()
    said = [job.artifact.digest, decides, job.recipe.seed, [data.wire() for data in judge.datasets], judge.encoder.digest, device]
    return hashlib.sha256(canonical_json(said)).hexdigest()


def _sections(outcomes: Sequence[ScenarioOutcome], folder: Path) -> list[tuple[str, list[Card]]]:
    ordered = sorted(outcomes, key=lambda one: one.passed)
    titles = {False: "Failed", True: "Passed"}
    return [(title, [_card(one, folder) for one in ordered if one.passed is state]) for state, title in titles.items()]


def _card(outcome: ScenarioOutcome, folder: Path) -> Card:
    picture = None
    if outcome.video:
        frames = decode_mp4((folder / outcome.video).read_bytes())
        picture = thumbnail(frames[len(frames) // 2])
    scores = [("coherence", outcome.coherence), ("artefact rate", outcome.artefact_rate), ("similarity", outcome.similarity)]
    measured = ", ".join(f"{name} {decimal(value)}" for name, value in scores if value is not None)
    lines = (outcome.reason, outcome.prompt, f"{outcome.urgency}, {outcome.seconds:.2f} s, seed {outcome.seed}", measured)
    return Card(title=outcome.id, lines=lines, picture=picture, well=outcome.passed, video=outcome.video)
