"""What a preflight finds in a real storage, by the phases' own checks."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
import pytest
from pydantic import BaseModel
from safetensors.numpy import save

from videogen_api.bundle import Manifest
from videogen_api.job import Job
from videogen_api.preflight import MOST_PROBLEMS, PreflightResult
from videogen_api.training_run import Reason, TrainingRunSpec
from videogen_models.backbone_digest import PARTS, folder_sha256
from videogen_models.bundle import seal_bundle
from videogen_trainer import report, tasks
from videogen_trainer.preflight import needs, room
from videogen_trainer.progress import ProgressReporter

Look = Callable[..., PreflightResult]
ZERO = "sha256:" + "0" * 64
EVALUATE: dict[str, Any] = {
    "phase": "validate",
    "task": "Evaluate",
    "data": [{"reference": {"dataset": "squares", "version": "v1", "split": "HeldOut"}}],
}


@pytest.fixture
def look(make_job: Callable[..., Job], storage: Path, silent: ProgressReporter) -> Look:
    """`look({...}, {...})`: what is found about phases with these fields."""

    def run(*phases: dict[str, Any], recipe: dict[str, Any] | None = None) -> PreflightResult:
        jobs = [make_job(recipe, **phase) for phase in phases or ({},)]
        job = jobs[0].model_copy(update={"attempt": 0, "preflight": jobs})
        found = tasks.attempt(job, storage, {}, silent, lambda: False)
        assert found.reason is Reason.COMPLETED, found.message
        assert found.preflight
        return found.preflight

    return run


def paths(found: PreflightResult) -> list[str]:
    return [problem.path for problem in found.problems]


def test_nothing_is_found_where_all_is_there(look: Look) -> None:
    found = look({}, EVALUATE, {"phase": "release", "task": "Release", "data": []})
    assert (found.problems, found.checked) == ([], 5)


@pytest.mark.parametrize("made_by", ["another", "", None])
def test_a_version_that_another_run_has_made_is_told_with_its_bundle(
    make_job: Callable[..., Job], storage: Path, silent: ProgressReporter, made_by: str | None
) -> None:
    """`made_by`: None of a manifest that cannot be read."""
    job = make_job(None).model_copy(update={"attempt": 0, "new_version": True})

    def problems(job: Job) -> list[tuple[str, str]]:
        found = tasks.attempt(job, storage, {}, silent, lambda: False).preflight
        assert found
        return [(problem.path, problem.message) for problem in found.problems]

    manifest = Manifest(model=job.model, recipe=job.recipe, step=1, run=job.run, files=[])
    own, _ = seal_bundle(storage, manifest, lambda folder: None)
    assert problems(job) == []
    path, _ = seal_bundle(storage, manifest.model_copy(update={"run": made_by or ""}), lambda folder: None)
    if made_by is None:
        (storage / path / "manifest.json").write_text("{")
    ((field, said),) = problems(job)
    assert field == "spec.model.version"
    assert said.startswith(
        f"version {job.model.version} was made before by {'run another' if made_by else 'another run'}: {path}; delete this run"
    )
    assert own != path
    assert problems(job.model_copy(update={"new_version": None})) == []
    assert problems(job.model_copy(update={"model": job.model.model_copy(update={"version": "7.7.7"})})) == []


def test_a_missing_dataset_and_a_missing_version_are_told_with_what_there_is(look: Look) -> None:
    data = [{"reference": {"dataset": name, "version": version}} for name, version in (("squares", "v2"), ("discs", "v1"))]
    found = look({"data": data}, EVALUATE)
    assert paths(found) == ["spec.phases[0].data[0]", "spec.phases[0].data[1]"]
    assert "dataset squares has no version 'v2'; the storage has v1" in found.problems[0].message
    assert "dataset discs has no version 'v1'; the storage has none" in found.problems[1].message


def test_a_version_that_an_earlier_phase_makes_need_not_be_there(look: Look, storage: Path) -> None:
    (storage / "raw/clips").mkdir(parents=True)
    (storage / "raw/clips/a.mp4").touch()
    curate = {"dataset": "clips", "version": "new", "sources": [{"path": "raw/clips"}]}
    train = {"data": [{"reference": {"dataset": "clips", "version": "new"}}]}
    assert paths(look({"phase": "curate", "task": "Curate", "data": [], "curate": curate}, train)) == []
    assert paths(look(train, {"phase": "curate", "task": "Curate", "data": [], "curate": curate})) == ["spec.phases[0].data[0]"]


def test_a_dataset_whose_file_is_cut_or_gone_is_told(look: Look, storage: Path) -> None:
    (shard,) = storage.glob("datasets/squares/*/clips-00000.safetensors")
    shard.write_bytes(shard.read_bytes()[:-1])
    (problem,) = look().problems
    assert "bytes, the manifest says" in problem.message
    shard.unlink()
    (problem,) = look().problems
    assert "clips-00000.safetensors is missing, although the manifest lists it" in problem.message


def test_networks_that_another_family_has_and_a_batch_that_cannot_be_shared_are_told(look: Look) -> None:
    found = look({}, {"task": "FineTuneDecoder", "workers": 3}, EVALUATE, recipe={"alignYourLatents": {}})
    told = [(problem.path, problem.message.partition(";")[0]) for problem in found.problems]
    assert told == [
        ("spec.recipe.alignYourLatents", "recipe.alignYourLatents is set"),
        ("spec.phases[1]", "task is FineTuneDecoder"),
        ("spec.recipe.globalBatchSize", "recipe.globalBatchSize is 4"),
    ]


def test_a_digest_of_zeros_stops_the_run_with_its_field_and_the_right_digest(look: Look, storage: Path) -> None:
    (storage / "networks").mkdir()
    (storage / "networks/i3d.safetensors").write_bytes(b"weights")
    extractor = {"name": "i3d", "architecture": "I3D", "path": "networks/i3d.safetensors", "digest": ZERO}
    found = look({}, EVALUATE | {"evaluate": {"extractors": [extractor, extractor | {"name": "gone", "path": "networks/gone"}]}})
    assert paths(found) == ["spec.phases[1].evaluate.extractors[0]", "spec.phases[1].evaluate.extractors[1]"]
    assert f"has the digest sha256:{hashlib.sha256(b'weights').hexdigest()}" in found.problems[0].message
    assert "there is no file" in found.problems[1].message


def files_named_in(model: type[BaseModel], path: str) -> Iterator[str]:
    """Fields below `path` that name something in the storage with its digest, the first of each list."""
    fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    if {"path", "digest"} <= fields.keys():
        yield path
    for name, annotation in fields.items():
        yield from _files_in_type(annotation, f"{path}.{name}")


def _files_in_type(annotation: Any, path: str) -> Iterator[str]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from files_named_in(annotation, path)
    for part in get_args(annotation):
        yield from _files_in_type(part, f"{path}[0]" if get_origin(annotation) is list else path)


FILE = {"path": "networks/gone", "digest": ZERO}
OWN_CLIP = FILE | {"name": "own", "architecture": "CLIP"}
OWN_RELEVANCE = {"quality": {"relevance": {"minimumSimilarity": "0.2", "extractor": OWN_CLIP}}}
NAMED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # phase and recipe that name a file which is not there
    "spec.recipe.backbone": ({"model": {"family": "Text2VideoZero", "version": "1.0.0"}}, {"videoFusion": None, "backbone": FILE}),
    "spec.phases[0].curate.filters.relevance.extractor": (
        {
            "task": "Curate",
            "data": [],
            "curate": {"dataset": "a", "version": "1", "sources": [{"path": "raw"}], "filters": OWN_RELEVANCE["quality"]},
        },
        {},
    ),
    "spec.phases[0].evaluate.extractors[0]": (EVALUATE | {"evaluate": {"extractors": [OWN_CLIP]}}, {}),
    "spec.phases[0].tune.extractor": (
        {
            "task": "Tune",
            "tune": {"parameter": "BaseNoiseShare", "values": ["0.65", "0.7"], "steps": 1, "objective": "CLIPScore", "extractor": OWN_CLIP},
        },
        {},
    ),
    "spec.phases[0].templates.quality.relevance.extractor": ({"task": "BuildTemplates", "templates": OWN_RELEVANCE}, {}),
    "spec.phases[0].templates.captionFont": ({"task": "BuildTemplates", "templates": {"captionFont": FILE}}, {}),
    "spec.phases[0].scenarios.quality.relevance.extractor": ({"task": "TestScenarios", "scenarios": OWN_RELEVANCE}, {}),
}


def test_every_field_that_names_a_file_with_its_digest_has_a_row_below() -> None:
    assert set(files_named_in(TrainingRunSpec, "spec")) == NAMED.keys()


@pytest.mark.parametrize("field", NAMED)
def test_a_file_that_is_not_there_is_told_with_the_field_that_names_it(look: Look, field: str) -> None:
    phase, recipe = NAMED[field]
    (problem,) = [one for one in look(phase, recipe=recipe).problems if one.path == field]
    assert "networks/gone" in problem.message


def test_a_backbone_that_is_missing_or_has_a_digest_of_zeros_is_told(look: Look, storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = {"videoFusion": None, "backbone": {"path": "raw/image-model", "digest": ZERO}}
    model = {"model": {"family": "Text2VideoZero", "version": "1.0.0"}}
    (problem,) = look(model, recipe=recipe).problems
    assert problem.path == "spec.recipe.backbone"
    assert "image-model/scheduler is missing" in problem.message
    for part in PARTS:
        (storage / "raw/image-model" / part).mkdir(parents=True)
        (storage / "raw/image-model" / part / "config.json").write_text("{}")
    (problem,) = look(model, recipe=recipe).problems
    assert f"has sha256:{folder_sha256(storage / 'raw/image-model')}" in problem.message
    monkeypatch.setattr(needs, "HASHED_BYTES", 0)  # as if it were large
    (problem,) = look(model, recipe=recipe).problems
    assert "the digest is 64 zeros, which nothing has" in problem.message


LONG = needs.HASHED_BYTES + 1  # bytes, of a file with a hole in place of most of them


def long_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(LONG)


def test_of_a_network_that_is_not_hashed_the_file_is_looked_at_all_the_same(look: Look, storage: Path) -> None:
    some = "sha256:" + "1" * 64
    i3d = {"name": "i3d", "architecture": "I3D", "path": "networks/i3d.safetensors", "digest": some}
    clip = {"name": "own", "architecture": "CLIP", "path": "networks/clip", "digest": some}
    long_file(storage / "networks/i3d.safetensors")
    long_file(storage / "networks/clip/pytorch_model.bin")
    no_header, no_weights = look({}, EVALUATE | {"evaluate": {"extractors": [i3d, clip]}}).problems
    assert "i3d.safetensors is no whole safetensors file" in no_header.message
    assert "there is no file" in no_weights.message
    assert "networks/clip/model.safetensors" in no_weights.message
    long_file(storage / "networks/clip/model.safetensors")
    (problem,) = look({}, EVALUATE | {"evaluate": {"extractors": [clip]}}).problems
    assert "model.safetensors is no whole safetensors file" in problem.message


def test_a_network_that_is_not_hashed_passes_when_its_file_is_whole_and_not_when_it_is_cut(
    look: Look, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (storage / "networks").mkdir()
    whole = save({"fc8.bias": np.zeros(4, np.float32)})
    path = storage / "networks/c3d.safetensors"
    c3d = {"name": "c3d", "architecture": "C3D", "path": "networks/c3d.safetensors", "digest": "sha256:" + "1" * 64}
    monkeypatch.setattr(needs, "HASHED_BYTES", 0)  # as if it were large
    path.write_bytes(whole)
    assert look({}, EVALUATE | {"evaluate": {"extractors": [c3d]}}).problems == []
    path.write_bytes(whole[:-1])
    (problem,) = look({}, EVALUATE | {"evaluate": {"extractors": [c3d]}}).problems
    assert problem.path == "spec.phases[1].evaluate.extractors[0]"
    assert "c3d.safetensors is no whole safetensors file" in problem.message


@pytest.mark.parametrize("family, read", [("Text2VideoZero", ("unet", "vae", "text_encoder")), ("VideoFusion", ("vae",))])
def test_of_an_image_model_that_is_not_hashed_the_weights_that_are_read_must_be_whole(
    look: Look, storage: Path, family: str, read: tuple[str, ...]
) -> None:
    recipe: dict[str, Any] = {"backbone": {"path": "raw/image-model", "digest": "sha256:" + "1" * 64}}
    recipe["videoFusion"] = {"space": "Latent"} if family == "VideoFusion" else None
    model = {"model": {"family": family, "version": "1.0.0"}}
    for part in PARTS:
        (storage / "raw/image-model" / part).mkdir(parents=True)
    long_file(storage / "raw/image-model/scheduler/other.json")
    for part in read:
        (problem,) = look(model, recipe=recipe).problems
        assert problem.path == "spec.recipe.backbone"
        assert f"image-model/{part} has no safetensors file" in problem.message
        weights = storage / "raw/image-model" / part / "model.safetensors"
        weights.write_bytes(b"cut")
        (problem,) = look(model, recipe=recipe).problems
        assert f"{part}/model.safetensors is no whole safetensors file" in problem.message
        weights.write_bytes(save({"weight": np.zeros(4, np.float32)}))
    assert look(model, recipe=recipe).problems == []


def test_what_curation_reads_is_told_source_by_source(look: Look, storage: Path) -> None:
    (storage / "raw/empty").mkdir(parents=True)
    sources = [
        {"path": "raw/gone"},
        {"path": "raw/empty"},
        {"path": "raw/empty", "table": "videos.csv"},
        {"path": "raw/empty", "shards": "*.tar"},
    ]
    clip = {"name": "own", "architecture": "CLIP", "path": "networks/clip", "digest": ZERO}
    filters = {"relevance": {"minimumSimilarity": "0.2", "extractor": clip}}
    curate = {"dataset": "clips", "version": "2", "parent": "1", "sources": sources, "filters": filters, "newClips": {"previous": "1"}}
    found = look({"phase": "curate", "task": "Curate", "data": [], "curate": curate})
    assert paths(found) == [
        *(f"spec.phases[0].curate.sources[{number}]" for number in range(4)),
        "spec.phases[0].curate.parent",
        "spec.phases[0].curate.newClips.previous",
        "spec.phases[0].curate.filters.relevance.extractor",
    ]


def test_clips_that_cannot_be_compared_are_told_before_anything_is_curated(look: Look, storage: Path) -> None:
    (storage / "raw").mkdir(exist_ok=True)
    (storage / "raw/a.mp4").touch()
    curate = {"dataset": "squares", "version": "v2", "sources": [{"path": "raw"}], "newClips": {"previous": "v1"}}
    phase = {"phase": "curate", "task": "Curate", "data": [], "curate": curate}
    assert paths(look(phase)) == []
    (problem,) = look(phase, recipe={"frames": 8}).problems
    assert problem.path == "spec.phases[0].curate.newClips.previous"
    assert "clips of squares v1 have 4 frames of 16 x 16, the recipe asks for 8 of 16 x 16" in problem.message


def test_fonts_and_tables_of_emergency_phases_are_told(look: Look, storage: Path) -> None:
    (storage / "fonts").mkdir()
    (storage / "fonts/own.ttf").write_bytes(b"no font")
    templates = {"phase": "templates", "task": "BuildTemplates", "templates": {"captionFont": {"path": "fonts/own.ttf", "digest": ZERO}}}
    scenarios = {"phase": "scenarios", "task": "TestScenarios", "scenarios": {"table": "raw/scenarios.csv"}}
    found = look({}, templates, scenarios)
    assert paths(found) == ["spec.phases[1].templates.captionFont", "spec.phases[2].scenarios.table"]
    assert hashlib.sha256(b"no font").hexdigest() in found.problems[0].message


def test_weights_to_start_from_that_are_gone_are_told(look: Look) -> None:
    init = {"path": "bundles/pib-videogen-videofusion-v0.9.0-base/" + "a" * 64, "digest": "sha256:" + "a" * 64}
    (problem,) = look({"task": "FineTune", "initFrom": init}, EVALUATE).problems
    assert problem.path == "spec.initFrom"
    assert "is no bundle: it has no manifest.json" in problem.message


def test_a_volume_without_room_for_the_checkpoints_is_told(look: Look, storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LEAST_BYTES", shutil.disk_usage(storage).total + 1)
    (problem,) = look().problems
    assert problem.path == "spec.storage"
    assert "bytes are free, and the run needs" in problem.message


def test_however_many_problems_there_are_the_report_fits(look: Look, make_job: Callable[..., Job], storage: Path) -> None:
    data = [{"reference": {"dataset": "d" * 30, "version": "v" * 39 + str(number % 10)}} for number in range(16)]
    phases = [make_job(data=data) for _ in range(2)]
    job = phases[0].model_copy(update={"preflight": phases, "attempt": 0})
    found = tasks.attempt(job, storage, {}, ProgressReporter(None, 5, clock=lambda: 0.0, now=None), lambda: False)  # type: ignore[arg-type]
    assert len(report.to_bytes(found)) <= report.LIMIT_BYTES
    assert found.preflight
    assert (found.preflight.checked, len(found.preflight.problems)) == (35, MOST_PROBLEMS)
    assert found.preflight.problems[-1].message == "17 more problems, which are told when these are mended"


def test_the_process_looks_ends_with_0_and_never_loads_torch(make_job: Callable[..., Job], storage: Path, tmp_path: Path) -> None:
    phase = make_job(data=[{"reference": {"dataset": "gone", "version": "v1"}}])
    job = tmp_path / "job.json"
    job.write_text(json.dumps(phase.model_copy(update={"attempt": 0, "preflight": [phase]}).wire()))
    code = f"""
import os, sys
from videogen_trainer import __main__
os.environ["VIDEOGEN_TERMINATION_MESSAGE_PATH"] = {str(tmp_path / "message")!r}
sys.argv = ["trainer", "--job", {str(job)!r}, "--storage", {str(storage)!r}]
__main__._exit = lambda result: print("torch" in sys.modules, int(__main__.report.exit_code(result)))
__main__.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "False 0", done.stdout + done.stderr
    said = json.loads((tmp_path / "message").read_text())
    assert said["preflight"]["problems"][0]["path"] == "spec.phases[0].data[0]"
