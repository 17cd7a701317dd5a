"""Where a run's bundle comes from, as far as it is known by now: for the page of an evaluation, and for the release in the end."""

from __future__ import annotations

from videogen_api.bundle import content_digest
from videogen_api.gates import evaluation_digest
from videogen_api.job import Report, report_page
from videogen_api.lineage import MOST_DATASETS, MOST_IMAGES, Lineage, LineageDataset, LineageEvaluation, LineageWeights
from videogen_api.meta import ModelFamily
from videogen_api.training_run import Phase, PhaseStatus, Reason, Task
from videogen_api.tuning import applied
from videogen_operator.kinds.training_run.observed import Observed
from videogen_operator.kinds.training_run.waiting import Situation


def lineage_of(observed: Observed) -> Lineage:
    """What decided the run's newest bundle, and what judged it."""
    spec, status = observed.spec, observed.status
    read = [
        LineageDataset(dataset=data.dataset, version=data.version, digest=data.digest) for one in status.phases for data in one.datasets
    ]
    init, recipe = status.init_from, applied(spec.recipe, status.tuned)
    return Lineage(
        run=observed.name,
        recipe_digest=content_digest(recipe.wire()),
        base_noise_shares=recipe.fusion.shares if spec.model.family == ModelFamily.VIDEOFUSION else [],
        datasets=list(dict.fromkeys(read))[:MOST_DATASETS],
        init_from=LineageWeights(release=init.release, run=init.run, digest=init.digest) if init else None,
        images=list(dict.fromkeys(one.image_id for one in status.phases if one.image_id))[:MOST_IMAGES],
        evaluation=_evaluation(observed),
    )


def page_of(observed: Observed, phase: Phase, report: Report) -> str | None:
    """The page that the trainer of a phase says it wrote about what it measured."""
    bundle = report.artifact if phase.task == Task.OPTIMIZE else observed.artifact
    return report_page(bundle.path, observed.name, observed.uid, phase.name) if report.page and bundle else None


def with_page(situation: Situation, recorded: PhaseStatus, report: Report) -> PhaseStatus:
    """The status of a phase that has measured, with its page."""
    page = page_of(situation.observed, situation.phase, report)
    return recorded.model_copy(update={"report": page}) if page else recorded


def _evaluation(observed: Observed) -> LineageEvaluation | None:
    """Of the last phase that has measured the model, which is the one whose results a release is judged by."""
    tasks = {phase.name: phase.task for phase in observed.spec.phases}
    measured = [one for one in observed.status.phases if _counts(one, tasks.get(one.name))]
    if not measured:
        return None
    last = measured[-1]
    return LineageEvaluation(phase=last.name, digest=evaluation_digest(last.results), report=last.report)


def _counts(phase: PhaseStatus, task: Task | None) -> bool:
    return task in {Task.EVALUATE, Task.OPTIMIZE} and phase.outcome == Reason.COMPLETED and bool(phase.results)
