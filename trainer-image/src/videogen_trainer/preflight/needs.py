"""What the phases of a run need, in their order, each with the field that asks for it and the phase's own check."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from videogen_api.emergency import CaptionFont
from videogen_api.evaluation import Extractor
from videogen_api.job import ArtifactReference, Job, PinnedData
from videogen_api.meta import ModelFamily
from videogen_api.recipe import Backbone
from videogen_api.training_run import TRAINING, WITHOUT_PODS, DataReference, Reason, Task
from videogen_models.backbone_digest import PARTS
from videogen_models.bundle_manifest import check_bundle_sizes
from videogen_trainer import tasks
from videogen_trainer.curation.new_clips import opened
from videogen_trainer.curation.sources import look_at
from videogen_trainer.dataset import check_sizes, open_dataset, resolve
from videogen_trainer.emergency.scenarios import read_scenarios
from videogen_trainer.failure import Failure
from videogen_trainer.named_files import check_backbone, check_extractor, check_header, extractor_weights
from videogen_trainer.preflight.room import check_room

MAKES_BUNDLE = (*TRAINING, Task.OPTIMIZE, Task.BUILD_TEMPLATES)
HASHED_BYTES = 1 << 30  # of one field; more would take minutes on a network volume, and the phase computes it anyway
NETWORKS = ("unet", "vae", "text_encoder")  # parts of an image model that have weights
TO_COME = ArtifactReference(path="bundles/to-come", digest="sha256:" + "0" * 64)  # what an earlier phase will make; only that it is there


@dataclass(frozen=True, slots=True)
class Need:
    """Something that a phase needs. `look` raises Failure, CorruptError or OSError if it will not do."""

    path: str  # the field
    look: Callable[[], object]


def needs(phases: list[Job], storage: Path) -> Iterator[Need]:
    """Everything that these phases need and that can be told before they begin."""
    recipe, init = phases[0].recipe, next((job.init_from or job.artifact for job in phases if job.init_from or job.artifact), None)
    if recipe.backbone:
        read = ("vae",) if phases[0].model.family is ModelFamily.VIDEOFUSION else NETWORKS
        yield Need("spec.recipe.backbone", partial(_backbone, recipe.backbone, storage, read))
    if init:
        yield Need("spec.initFrom", partial(check_bundle_sizes, storage / init.path, init.digest))
    yield Need("spec.storage", partial(check_room, phases, storage))
    made: set[tuple[str, str]] = set()
    bundle, told = False, set[str]()
    for place, job in enumerate(phases):
        path = f"spec.phases[{place}]"
        if job.task not in WITHOUT_PODS:
            yield from _rules(_with_bundle(job) if bundle else job, path, told)
        yield from (Need(f"{path}.data[{number}]", partial(_dataset, data, storage, made)) for number, data in enumerate(job.data))
        yield from _curation(job, path, storage, made)
        yield from _networks(job, path, storage)
        if job.curate:
            made = {*made, (job.curate.dataset, job.curate.version)}
        bundle = bundle or job.task in MAKES_BUNDLE


def _rules(job: Job, path: str, told: set[str]) -> Iterator[Need]:
    """The rules between fields. What is wrong with the recipe is told once, and not for each phase; `told` grows."""
    broken = [said for said in tasks.problems(job) if said not in told]
    told.update(broken)
    if not broken:
        yield Need(path, lambda: None)
    for said in broken:
        field = said.partition(" ")[0]
        yield Need(f"spec.{field}" if field.startswith("recipe.") else path, partial(_refuse, said))


def _refuse(said: str) -> None:
    raise Failure(Reason.INVALID_JOB, said)


def _with_bundle(job: Job) -> Job:
    init = TO_COME if job.task in {*TRAINING, Task.TUNE} else None
    return job.model_copy(update={"init_from": init, "artifact": None if init else TO_COME})


def _dataset(data: PinnedData, storage: Path, made: set[tuple[str, str]]) -> None:
    """The version is there with all its files in their sizes, and has clips of that split; or an earlier phase makes it."""
    reference = data.reference
    if (reference.dataset, reference.version) in made:
        return
    opened = open_dataset(storage, reference, data.digest, check=check_sizes)
    if not opened.part(reference.split):
        what = f"dataset {reference.dataset} {reference.version} has no clips of split {reference.split}"
        raise Failure(Reason.DATASET_TOO_SMALL, f"{what}, only {len(opened.records):,} others; curate a version that has some")


def _curation(job: Job, path: str, storage: Path, made: set[tuple[str, str]]) -> Iterator[Need]:
    curate = job.curate
    if curate is None:
        return
    for number, source in enumerate(curate.sources):
        yield Need(f"{path}.curate.sources[{number}]", partial(look_at, source, storage))
    if curate.parent and (curate.dataset, curate.parent) not in made:
        yield Need(f"{path}.curate.parent", partial(resolve, storage, DataReference(dataset=curate.dataset, version=curate.parent)))
    if curate.new_clips and curate.new_clips.previous and (curate.dataset, curate.new_clips.previous) not in made:
        yield Need(f"{path}.curate.newClips.previous", partial(opened, curate, job.recipe, storage, check_sizes))


def _networks(job: Job, path: str, storage: Path) -> Iterator[Need]:
    """Networks, fonts and tables that lie in the storage."""
    for number, extractor in enumerate(job.evaluate.extractors if job.evaluate else ()):
        yield Need(f"{path}.evaluate.extractors[{number}]", partial(_extractor, extractor, storage))
    filters = {
        "curate.filters": job.curate.filters.relevance if job.curate else None,
        "templates.quality": job.templates.quality.relevance if job.templates else None,
        "scenarios.quality": job.scenarios.quality.relevance if job.scenarios else None,
    }
    for field, relevance in filters.items():
        if relevance and relevance.extractor:
            yield Need(f"{path}.{field}.relevance.extractor", partial(_extractor, relevance.extractor, storage))
    if job.tune and job.tune.extractor:
        yield Need(f"{path}.tune.extractor", partial(_extractor, job.tune.extractor, storage))
    if job.templates and (font := job.templates.caption_font):
        yield Need(f"{path}.templates.captionFont", partial(_font, font, storage))
    if job.scenarios and job.scenarios.table:
        yield Need(f"{path}.scenarios.table", partial(read_scenarios, job.scenarios, storage))


def _backbone(wanted: Backbone, storage: Path, read: tuple[str, ...]) -> None:
    """`read`: the parts whose weights the model takes. However large they are, they must be there and be whole files."""
    folder = storage / wanted.path
    if _is_small([path for part in PARTS for path in (folder / part).rglob("*")]):
        check_backbone(wanted, storage)
    elif missing := [part for part in PARTS if not (folder / part).is_dir()]:
        raise Failure(Reason.ARTIFACT_INVALID, f"{folder / missing[0]} is missing; expected are {', '.join(PARTS)}")
    _refuse_zeros(wanted.digest, folder)
    for part in read:
        if not (weights := sorted((folder / part).glob("*.safetensors"))):
            raise Failure(Reason.ARTIFACT_INVALID, f"{folder / part} has no safetensors file; restore the folder or correct the path")
        for path in weights:
            check_header(path, Reason.ARTIFACT_INVALID)


def _extractor(wanted: Extractor, storage: Path) -> None:
    path, weights = storage / wanted.path, extractor_weights(wanted, storage, wanted.name)
    if _is_small([path, *path.glob("*")]):
        check_extractor(wanted, storage, wanted.name)
    _refuse_zeros(wanted.digest, path)
    check_header(weights, Reason.EXTRACTOR_MISSING)


def _font(wanted: CaptionFont, storage: Path) -> None:
    from videogen_trainer.emergency.captions import open_lettering

    open_lettering(wanted, storage)


def _is_small(paths: list[Path]) -> bool:
    """Whether their digest is computed in seconds. What is missing is."""
    return sum(path.stat().st_size for path in paths if path.is_file()) <= HASHED_BYTES


def _refuse_zeros(digest: str, path: Path) -> None:
    if not digest.removeprefix("sha256:").strip("0"):
        raise Failure(Reason.ARTIFACT_INVALID, f"the digest is 64 zeros, which nothing has; put in that of {path}")
