"""Who may write to the claim changes a bundle between its check and its use: what was checked is what is loaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from videogen_api.bundle import MANIFEST, Manifest
from videogen_api.job import ArtifactReference, Job
from videogen_api.meta import ModelFamily, ModelIdentity
from videogen_api.recipe import Architecture, Recipe, Resolution
from videogen_models import bundle, sealed
from videogen_models.bundle import load_model, own_copy, read_model, write_bundle
from videogen_models.networks import model_config
from videogen_models.sealed import CorruptError
from videogen_models.video_model import VideoModel
from videogen_models.videofusion import VideoFusionModel
from videogen_serving.verification import take_bundle
from videogen_trainer.distributed import World
from videogen_trainer.emergency.runtime import Runtime
from videogen_trainer.families import learner_of
from videogen_trainer.optimize.task import open_source

MODEL = ModelIdentity(family=ModelFamily.VIDEOFUSION, version="1.0.0")
RECIPE = Recipe(architecture=Architecture.TINY, frames=2, resolution=Resolution(height=16, width=16), global_batch_size=1, steps=1)
WEIGHTS = "base.safetensors"


def written(storage: Path, seed: int) -> ArtifactReference:
    torch.manual_seed(seed)
    config = model_config(RECIPE)
    path, digest = write_bundle(
        storage, Manifest(model=MODEL, recipe=RECIPE, step=seed, files=[]), config, VideoFusionModel(config).state_dict()
    )
    return ArtifactReference(path=path, digest=digest)


class Attack:
    """A bundle, weights of somebody else, and a writer of the claim who swaps these in as soon as sums were looked at."""

    def __init__(self, storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.storage, self.good, other = storage, written(storage, 0), written(storage, 1)
        self.wanted = bytes_of(load_model(storage / self.good.path))
        self.foreign = storage / other.path / WEIGHTS
        self.swapped = 0
        for module, name in ((sealed, "sha256_of"), (sealed, "_copied"), (bundle, "read_model")):
            monkeypatch.setattr(
                module, name, self._before(getattr(module, name)) if name == "read_model" else self._after(getattr(module, name))
            )

    def _swap(self) -> None:
        target = self.storage / self.good.path / WEIGHTS
        target.write_bytes(self.foreign.read_bytes())  # in place, so that an open file sees it too
        self.swapped += 1

    def _after(self, check: Callable[..., str]) -> Callable[..., str]:
        def checked(path: Path, *more: object) -> str:
            found = check(path, *more)
            if path.name == WEIGHTS and path.is_relative_to(self.storage):
                self._swap()
            return found

        return checked

    def _before(self, read: Callable[[Path], VideoModel]) -> Callable[[Path], VideoModel]:
        def swapped(folder: Path) -> VideoModel:
            self._swap()
            return read(folder)

        return swapped


def bytes_of(model: torch.nn.Module) -> bytes:
    return b"".join(tensor.detach().numpy().tobytes() for _, tensor in sorted(model.state_dict().items()))


@pytest.fixture
def attack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attack:
    return Attack(tmp_path / "storage", monkeypatch)


def job(artifact: ArtifactReference) -> Job:
    return Job(
        contract="v1",
        run="demo",
        run_uid="12345678-0000",
        namespace="videos",
        phase="train",
        attempt=1,
        task="Train",
        model=MODEL,
        recipe=RECIPE,
        work_path="runs/demo",
        init_from=artifact,
    )


def evaluated(attack: Attack) -> torch.nn.Module:
    return load_model(attack.storage / attack.good.path, attack.good.digest)


def optimized(attack: Attack) -> torch.nn.Module:
    return open_source(job(attack.good), attack.good, attack.storage)[0]


def begun_from(attack: Attack) -> torch.nn.Module:
    return learner_of(job(attack.good), attack.storage, World()).model


def tried(attack: Attack) -> torch.nn.Module:
    runtime = Runtime.open(attack.good, attack.storage, MODEL, steps=1, seconds=60)
    return runtime.service._generator.model  # type: ignore[attr-defined, no-any-return]


USES = {"Evaluate": evaluated, "Optimize": optimized, "Train from it": begun_from, "TestScenarios": tried}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_the_trainer_loads_the_bytes_that_it_has_checked(attack: Attack, use: Callable[[Attack], torch.nn.Module]) -> None:
    try:
        loaded = bytes_of(use(attack))
    finally:
        assert attack.swapped
    assert loaded == attack.wanted


def test_the_server_loads_the_bytes_that_it_has_checked(attack: Attack, tmp_path: Path) -> None:
    take_bundle(attack.storage / attack.good.path, attack.good.digest, copy := tmp_path / "pod")
    assert attack.swapped
    assert bytes_of(read_model(copy)) == attack.wanted
    assert all(path.stat().st_mode & 0o222 == 0 for path in copy.rglob("*.safetensors"))


def test_a_file_that_grows_while_it_is_copied_does_not_fill_the_pod(tmp_path: Path) -> None:
    good = written(tmp_path, 0)
    with (tmp_path / good.path / WEIGHTS).open("ab") as file:
        file.truncate(1 << 30)
    with pytest.raises(CorruptError, match=rf"{WEIGHTS} has SHA-256"):
        take_bundle(tmp_path / good.path, good.digest, copy := tmp_path / "pod")
    assert sum(path.stat().st_size for path in copy.rglob("*") if path.is_file()) < 64 << 20


def test_what_an_earlier_container_of_the_pod_has_left_gives_way(tmp_path: Path) -> None:
    good, other = written(tmp_path, 0), written(tmp_path, 1)
    take_bundle(tmp_path / other.path, other.digest, copy := tmp_path / "pod")
    take_bundle(tmp_path / good.path, good.digest, copy)
    assert bytes_of(read_model(copy)) == bytes_of(load_model(tmp_path / good.path))


def test_no_copy_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, scratch = written(tmp_path, 0), tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with own_copy(tmp_path / good.path, good.digest) as (copy, manifest):
        assert copy.is_relative_to(scratch)
        assert {path.name for path in copy.iterdir()} == {MANIFEST, *(file.path for file in manifest.files)}
    shutil.rmtree(tmp_path / good.path)
    with pytest.raises(CorruptError), own_copy(tmp_path / good.path, good.digest):
        pass
    assert [path.suffix for path in scratch.iterdir()] == [".lock"]
