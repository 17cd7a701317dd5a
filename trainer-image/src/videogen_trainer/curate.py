"""Task Curate: videos with captions become an immutable dataset version of clips, and a report that people can look at.

A video that cannot be used and a clip that a filter keeps out are rejected, counted and shown; the work goes on. At the
end the version as a whole is judged: with too few clips, or too large a rejected share, it is not published, nor is it if a
source is missing or its table cannot be read. Then the parent version takes its place if one is named; else the attempt
fails. With fewer new clips than `curate.newClips.minimum` nothing is published either, and nothing takes its place: the phase
waits for more clips, or fails.

Videos are looked at one by one, in `workers.processes` processes (`curation/examine.py`); what was found in each is sealed in
the run's work path, so that an attempt after a killed one decodes only the others. Here it is put together, in order.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from videogen_api.curation import Curate, NewClipsFound, WhenBelow
from videogen_api.job import Job, Report
from videogen_api.pinned import ResolvedDataset
from videogen_api.recipe import Recipe
from videogen_api.training_run import DataReference, Reason
from videogen_models.sealed import write_durably
from videogen_trainer.curation.duplicates import Duplicates, look_of
from videogen_trainer.curation.examine import Examined, Wanted, examine
from videogen_trainer.curation.new_clips import NewClipsCounter, TooFewNewClips
from videogen_trainer.curation.parts import remove, tidy
from videogen_trainer.curation.rejection import Cause, Rejected, Rejection
from videogen_trainer.curation.relevance import encoder_of
from videogen_trainer.curation.report_page import page
from videogen_trainer.curation.side_by_side import in_order
from videogen_trainer.curation.sources import find_videos
from videogen_trainer.curation.tally import EXAMPLES, Tally
from videogen_trainer.curation.thumbnail import thumbnail
from videogen_trainer.curation.video import Video
from videogen_trainer.dataset import Clip, open_dataset, resolve, write_dataset, writing
from videogen_trainer.failure import Failure
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.video_reading import read_frames

_LOG = logging.getLogger(__name__)
RETRIED = {Reason.STORAGE_FAILED, Reason.OUT_OF_MEMORY, Reason.PREEMPTED}  # an attempt after these goes on where they ended


COMPARED = 2  # held-out clips without which nothing can be evaluated
SOURCE_REJECTED = {Reason.VIDEO_MISSING, Reason.TABLE_INVALID}  # of a source as a whole: a check that the version fails


class VersionRejected(Failure):
    """The version as a whole is not good enough."""


def run(job: Job, storage: Path, progress: ProgressReporter) -> Report:
    """Make the dataset version of `job.curate`. A repeated attempt makes the same content and succeeds.

    The report's reason is TooFewNewClips if there are fewer than `curate.newClips.minimum`, and Completed otherwise.
    Raises Failure: DatasetNotFound if there is no such parent or previous version, DatasetCorrupt if the latter is damaged,
    ExtractorMissing, StorageFailed, OutOfMemory, InvalidJob if the version exists with other content or the previous one has clips of
    another length or size; and if the version is rejected and has no parent: VideoMissing or TableInvalid if a source
    is missing or cannot be read, DatasetTooSmall, DatasetRejected or, if everything was rejected for one of them, VideoUnreadable,
    VideoMissing, CaptionMissing or TableInvalid.
    """
    assert job.curate is not None, "a Curate job without a curate block; the CRD refuses it"
    parts = storage / job.work_path / "parts"
    try:
        report = _run(job, job.curate, Wanted(curate=job.curate, recipe=job.recipe, storage=storage, folder=parts), progress)
    except Failure as failure:
        if failure.reason not in RETRIED:
            remove(parts)
        raise
    if report.reason is Reason.COMPLETED or not _waits(job.curate):
        remove(parts)
    return report


def _waits(curate: Curate) -> bool:
    """Whether another attempt comes when there are too few new clips."""
    return curate.new_clips is not None and curate.new_clips.when_below is WhenBelow.WAIT


def _run(job: Job, curate: Curate, wanted: Wanted, progress: ProgressReporter) -> Report:
    tally, storage = Tally(), wanted.storage
    tidy(wanted.folder)
    parent = resolve(storage, DataReference(dataset=curate.dataset, version=curate.parent)) if curate.parent else None
    if curate.filters.relevance:
        encoder_of(curate.filters.relevance.extractor, storage)  # a missing one is told before any work
    counter = NewClipsCounter(curate, job.recipe, storage, wanted.folder) if curate.new_clips else None
    try:
        videos = _videos(curate, storage, tally)
        made = write_dataset(
            storage,
            curate.dataset,
            curate.version,
            Curation(wanted, tally, job.processes_per_worker, counter).clips(videos, progress),
            frames=job.recipe.frames,
            resolution=job.recipe.resolution,
            parent=parent,
            staged_in=wanted.folder,
        )
    except TooFewNewClips as few:
        return _too_few(storage, curate, few.found, tally)
    except VersionRejected as rejected:
        _write_page(storage, curate, f"Rejected. {rejected.message.replace(f'{storage}/', '')}", tally)
        return _with_parent(storage, curate, job.recipe, rejected, tally)
    message = f"{tally.clips:,} clips of {tally.videos:,} videos: {tally.train:,} Train, {tally.held_out:,} HeldOut"
    found = counter.found if counter else None
    message += f"; {found.words}" if found else ""
    message += _warning(curate, tally)
    where = _write_page(storage, curate, f"Accepted: {message}.", tally)
    message += f"; rejected {tally.in_words()}" if tally.rejected else ""
    datasets = [made.model_copy(update={"rejected": tally.rejected.total()})]
    return Report(message=f"{message[:900]}; see {where}", datasets=datasets, new_clips=found)


def _too_few(storage: Path, curate: Curate, found: NewClipsFound, tally: Tally) -> Report:
    said = f"{found.words} among {tally.clips:,} clips of {tally.videos:,} videos, {found.minimum:,} are needed"
    where = _write_page(storage, curate, f"Not published: {said}.", tally)
    said += f"; rejected {tally.in_words()}" if tally.rejected else ""
    return Report(reason=Reason.TOO_FEW_NEW_CLIPS, message=f"curate.newClips.minimum: {said[:850]}; see {where}", new_clips=found)


def _warning(curate: Curate, tally: Tally) -> str:
    """What phases after this one will lack; nothing if all is well. It rejects nothing: another dataset may have what this one lacks."""
    if curate.held_out_percent and tally.held_out < COMPARED:
        lack = f"{tally.held_out} HeldOut, and Evaluate needs {COMPARED} clips at least: add longer or more videos"
        return f"; warning: only {lack}, or raise curate.heldOutPercent ({curate.held_out_percent})"
    if not tally.train:
        return f"; warning: no clip to train with: add longer or more videos, or lower curate.heldOutPercent ({curate.held_out_percent})"
    return ""


def _videos(curate: Curate, storage: Path, tally: Tally) -> list[Video]:
    try:
        videos = find_videos(curate.sources, storage, tally.reject)
    except Failure as failure:
        if failure.reason not in SOURCE_REJECTED:
            raise
        raise VersionRejected(failure.reason, failure.message) from failure
    tally.videos = len(videos) + tally.rejected.total()
    return videos


def page_path(curate: Curate) -> str:
    """Where the report for people lies, below the storage's root."""
    return f"datasets/{curate.dataset}/reports/{curate.version}.html"


def _write_page(storage: Path, curate: Curate, verdict: str, tally: Tally) -> str:
    where = page_path(curate)
    with writing(storage / where):
        write_durably(storage / where, page(f"Dataset {curate.dataset} {curate.version}", verdict, tally).encode("utf-8", "replace"))
    return where


def _with_parent(storage: Path, curate: Curate, recipe: Recipe, rejected: VersionRejected, tally: Tally) -> Report:
    """The report of a run that goes on with the parent; raises `rejected` itself if there is none that fits the recipe."""
    if not curate.parent or (curate.new_clips and curate.new_clips.minimum):  # whose clips are not new
        raise rejected
    parent = open_dataset(storage, DataReference(dataset=curate.dataset, version=curate.parent))
    if (parent.manifest.frames, parent.manifest.resolution) != (recipe.frames, recipe.resolution):
        said = f"{rejected.message[:700]}; its parent {curate.parent} was made for other frames or another resolution than the recipe's"
        raise Failure(rejected.reason, said)
    instead = {"in_place_of": curate.version, "rejected": tally.rejected.total()}
    resolved: ResolvedDataset = parent.resolved.model_copy(update=instead)
    said = f"version {curate.version} was rejected ({rejected.reason}: {rejected.message[:800]}); its parent {curate.parent} is used"
    return Report(message=said, datasets=[resolved])


class Curation:
    """One pass over the videos, in order, with what was found in each of them on its own."""

    def __init__(self, wanted: Wanted, tally: Tally, processes: int, counter: NewClipsCounter | None = None) -> None:
        self._wanted, self._tally, self._processes, self._counter = wanted, tally, processes, counter
        duplicates = wanted.curate.filters.duplicates
        self._duplicates = Duplicates(duplicates.maximum_difference_percent) if duplicates else None

    def clips(self, videos: list[Video], progress: ProgressReporter) -> Iterator[Clip]:
        """Every clip that is kept. Raises TooFewNewClips or VersionRejected after the last one."""
        decoded = 0
        answers = in_order(partial(examine, wanted=self._wanted), videos, self._processes)
        for number, (video, examined) in enumerate(zip(videos, answers, strict=True), 1):
            decoded += examined.decoded
            yield from self._kept(video, examined)
            values = {"clips": self._tally.clips, "rejected": self._tally.rejected.total()}
            progress.report(number, len(videos), values, final=number == len(videos))
        _LOG.info("decoded %s of %s videos", decoded, len(videos))
        if self._counter:  # first: a run that waits for new clips waits for clips
            self._counter.judge()
        judge(self._wanted.curate, self._wanted.recipe, self._tally)

    def _kept(self, video: Video, examined: Examined) -> Iterator[Clip]:
        for finding in self._findings(examined):
            if isinstance(finding, Rejection):
                self._reject(video, finding)
                continue
            try:
                self._check_new(finding)
            except Rejected as rejected:
                said = {"source": finding.source, "caption": finding.caption, "why": rejected.why}
                picture = thumbnail(finding.frames[len(finding.frames) // 2])
                self._tally.reject(Rejection(cause=rejected.cause, picture=picture, **said))
                continue
            self._tally.accept(finding)
            if self._counter:
                self._counter.add(finding.frames)
            yield finding

    def _findings(self, examined: Examined) -> Iterator[Clip | Rejection]:
        if examined.rejection:
            yield examined.rejection
        if examined.part:
            if (seconds := examined.part.seconds()) is not None:
                self._tally.seconds.add(seconds)
            recipe = self._wanted.recipe
            yield from examined.part.findings((recipe.frames, recipe.resolution.height, recipe.resolution.width, 3))

    def _reject(self, video: Video, rejection: Rejection) -> None:
        if rejection.source == video.name:  # of the video as a whole
            rejection = replace(rejection, picture=self._first_picture(video, rejection.cause))
        self._tally.reject(rejection)

    def _first_picture(self, video: Video, cause: Cause) -> bytes | None:
        shown = len(self._tally.rejected_examples.get(cause, []))
        if cause in {Cause.VIDEO_MISSING, Cause.VIDEO_UNREADABLE} or shown >= EXAMPLES:
            return None
        try:
            return next((thumbnail(picture) for picture in read_frames(video.path)), None)
        except (FileNotFoundError, PermissionError):
            return None
        except Failure as failure:
            if failure.reason is not Reason.VIDEO_UNREADABLE:
                raise
            return None

    def _check_new(self, clip: Clip) -> None:
        if self._duplicates is None:
            return
        own = look_of(clip.frames)
        if found := self._duplicates.like(own):
            raise Rejected(Cause.DUPLICATE, f"{clip.source} looks like {found[0]}: they differ by {found[1]:.1f} %")
        self._duplicates.keep(own, clip.source)


def judge(curate: Curate, recipe: Recipe, tally: Tally) -> None:
    """The quality check of a whole version. Raises VersionRejected."""
    rejected = (
        f" (see {page_path(curate)}); rejected {tally.rejected.total():,} of {tally.examined:,}: {tally.in_words()}"
        if tally.rejected
        else ""
    )
    if tally.clips < curate.minimum_clips:
        raise VersionRejected(
            tally.only_reason or Reason.DATASET_TOO_SMALL,
            f"curate.minimumClips: {tally.videos:,} videos gave {tally.clips:,} clips of {recipe.frames} frames at stride"
            f" {curate.frame_stride}, {curate.minimum_clips:,} are needed{rejected}",
        )
    if tally.too_many_rejected(curate.maximum_rejected_percent):
        raise VersionRejected(
            tally.only_reason or Reason.DATASET_REJECTED,
            f"curate.maximumRejectedPercent: {100 * tally.rejected.total() / tally.examined:.1f} % were rejected,"
            f" {curate.maximum_rejected_percent} are allowed{rejected}",
        )
