"""What a phase comes to whose work is done: it is over, with a bundle or results, or what was measured does not pass its gates."""

from __future__ import annotations

from videogen_api.job import Report
from videogen_api.pinned import RunArtifact
from videogen_api.training_run import PhaseStatus
from videogen_operator.kinds.training_run import attempts, objects, verdicts
from videogen_operator.kinds.training_run.step import Step, doing
from videogen_operator.kinds.training_run.waiting import Situation


def concluded(situation: Situation, recorded: PhaseStatus, report: Report, words: str = "") -> Step:
    """`recorded` has what the report says; `words` stand before all others."""
    said = doing(situation, "done")
    judged = verdicts.judged(situation.phase, recorded)
    before = [words] if words else []
    if judged.reason is not None:
        return Step(status=attempts.failed(judged.status, judged.reason, "; ".join([*before, judged.words]), situation.now), said=said)
    made = report.artifact if situation.phase.task in objects.MAKES_ARTIFACT else None
    artifact = RunArtifact(path=made.path, digest=made.digest) if made else None
    told = [judged.words] if judged.words else []
    if made or not told:
        told.insert(0, report.message or _made(report))
    return Step(status=attempts.completed(judged.status, situation.now, "; ".join([*before, *told])), said=said, artifact=artifact)


def _made(report: Report) -> str:
    if report.artifact:
        return f"bundle {report.artifact.digest} after step {report.last_step:,}"
    if report.datasets:
        return ", ".join(f"dataset {data.dataset} {data.version} with {data.clips:,} clips" for data in report.datasets)
    return f"{len(report.results)} metrics measured"
