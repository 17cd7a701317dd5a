"""The page about a release: where its bundle comes from, what was measured of it, and some of its clips.

It is written by the phase that measures, beside the bundle. The verdicts are by the same code as the operator's, which alone decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from videogen_api.bundle import content_digest
from videogen_api.evaluation import Gate, MetricResult, Verdict
from videogen_api.gates import SIGNS, evaluation_digest, judge_all, measurement
from videogen_api.job import ArtifactReference, Job, Report, report_page
from videogen_api.lineage import Lineage
from videogen_api.meta import release_name
from videogen_models.sealed import write_durably
from videogen_models.video import decode_mp4
from videogen_trainer.curation.thumbnail import thumbnail
from videogen_trainer.dataset import writing
from videogen_trainer.evaluate.page import Card, Table, page

SHOWN = 8  # clips
FRAMES = 3  # of each clip, side by side
MOST_LETTERS = 2000  # of a caption
LARGEST = 2**26  # bytes of a clip's file; one of a larger clip is not shown


def with_page(job: Job, storage: Path, report: Report, samples: Path) -> Report:
    """Write the page, with the clips in the folder `samples` -> the report, which says that it is there. Raises Failure(StorageFailed)."""
    assert report.artifact is not None, "a report about no bundle"
    path = storage / report_page(report.artifact.path, job.run, job.run_uid, job.phase)
    with writing(path):
        write_durably(path, document(job, report, report.artifact, list(_cards(samples))))
    return report.model_copy(update={"page": True})


def document(job: Job, report: Report, bundle: ArtifactReference, cards: Sequence[Card]) -> bytes:
    """The page's HTML."""
    verdict, judged = judge_all(job.gates, report.results)
    passed = f"{sum(one == Verdict.PASSED for _, one, _ in judged)} of {len(judged)} gates passed: {verdict}." if judged else "No gates."
    tables = (
        Table(title="Lineage", rows=_lineage(job, report, bundle)),
        Table(title="Datasets", head=("dataset", "version", "clips read", "digest"), rows=_datasets(job, report)),
        Table(
            title="Gates",
            head=("metric", "must be", "is", "95 % interval", "samples", "verdict", "why"),
            rows=[_gate(gate, verdict, why, measurement(gate, report.results)) for gate, verdict, why in judged],
        ),
        Table(
            title="All that was measured",
            head=("metric", "value", "95 % interval", "samples", "network", "its digest", "how"),
            rows=[_measured(result) for result in report.results],
        ),
    )
    return page(release_name(job.model), f"{passed} {report.message}", [("Sample clips", cards)], tables)


def _lineage(job: Job, report: Report, bundle: ArtifactReference) -> list[tuple[str, str]]:
    known = job.lineage or Lineage()
    init = known.init_from
    source = f"{f'ModelRelease {init.release}' if init.release else f'TrainingRun {init.run}'}, {init.digest}" if init else "no weights"
    rows = [
        ("model", f"{job.model.family}, {release_name(job.model)}"),
        ("run", f"{job.namespace}/{job.run}, UID {job.run_uid}, phase {job.phase}, attempt {job.attempt}"),
        ("bundle", f"{bundle.path}, {bundle.digest}"),
        ("recipe", known.recipe_digest or content_digest(job.recipe.wire())),
        ("started from", source),
        *(("image", image) for image in known.images),
        ("evaluation", evaluation_digest(report.results)),
    ]
    optimized = report.optimization
    return rows + ([("optimised from", job.artifact.digest)] if optimized and job.artifact else [])


def _datasets(job: Job, report: Report) -> list[tuple[str, str, str, str]]:
    """Those of this phase, then what the run read before."""
    here = [(data.dataset, data.version, f"{data.clips:,} to compare with", data.digest) for data in report.datasets]
    read = {data.digest for data in report.datasets}
    before = job.lineage.datasets if job.lineage else []
    return here + [(data.dataset, data.version, "by an earlier phase", data.digest) for data in before if data.digest not in read]


def _gate(gate: Gate, verdict: Verdict, why: str, result: MetricResult | None) -> tuple[str, ...]:
    bound = f"{SIGNS[gate.operator]} {gate.threshold}, of at least {gate.minimum_samples} samples"
    found = (result.value, _interval(result), f"{result.samples:,}") if result else ("not measured", "", "")
    return (_name(gate.metric, gate.extractor or ""), bound, *found, verdict, why)


def _measured(result: MetricResult) -> tuple[str, ...]:
    name = _name(result.metric, result.normalization or "")
    return (name, result.value, _interval(result), f"{result.samples:,}", result.extractor, result.extractor_digest, result.message)


def _name(metric: str, more: str) -> str:
    return f"{metric} ({more})" if more else metric


def _interval(result: MetricResult) -> str:
    return f"{result.low} to {result.high}" if result.low is not None and result.high is not None else "not known"


def _cards(samples: Path) -> Iterator[Card]:
    """The clips that the phase has written to look at, each as frames from its beginning, middle and end."""
    for video in sorted(samples.glob("*.mp4"))[:SHOWN]:
        caption = video.with_suffix(".txt")
        words = caption.read_text(encoding="utf-8", errors="replace")[:MOST_LETTERS].strip() if caption.is_file() else ""
        picture = _picture(video)
        yield Card(title=video.stem, lines=(words,), picture=picture, well=picture is not None, strip=True)


def _picture(video: Path) -> bytes | None:
    """Some frames of a clip side by side, as JPEG; None if the storage has something else by now."""
    try:
        clip = decode_mp4(video.read_bytes()) if video.stat().st_size <= LARGEST else None
    except (OSError, ValueError):
        return None
    if clip is None:
        return None
    chosen = np.linspace(0, len(clip) - 1, min(FRAMES, len(clip))).round().astype(int)
    return thumbnail(np.concatenate([clip[number] for number in chosen], axis=1))
