"""What an evaluation measures does not depend on how files are named: folders by class, year or ministry put like beside like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from videogen_api.bundle import Manifest
from videogen_api.evaluation import Evaluation
from videogen_api.job import ArtifactReference, Job, PinnedData
from videogen_api.meta import ModelFamily, ModelIdentity
from videogen_api.optimization import Optimize, Quantization
from videogen_api.recipe import Architecture, Recipe, Resolution
from videogen_api.training_run import DataReference, Split, Task
from videogen_models.bundle import write_bundle
from videogen_models.networks import model_config
from videogen_models.videofusion import VideoFusionModel
from videogen_testing.curation import silent
from videogen_trainer import optimize
from videogen_trainer.data import open_mixture
from videogen_trainer.dataset import Clip, write_dataset
from videogen_trainer.distributed import World
from videogen_trainer.evaluate import run
from videogen_trainer.evaluate.frechet import frechet_distance
from videogen_trainer.evaluate.inception import inception_score, split_count
from videogen_trainer.evaluate.task import References, open_references
from videogen_trainer.randomness import hash_order

CLASSES, EACH = 20, 12
CLIPS = CLASSES * EACH
MODEL = ModelIdentity(family=ModelFamily.VIDEOFUSION, version="1.0.0")
RECIPE = Recipe(architecture=Architecture.TINY, frames=2, resolution=Resolution(height=16, width=16), global_batch_size=1, steps=1, seed=7)


def by_class(storage: Path, version: str = "v1", kind: str = "class", classes: int = CLASSES) -> None:
    """Clips class after class, as a curation of one folder a class makes them."""
    random = np.random.default_rng(5)
    clips = [
        Clip(frames=random.integers(0, 256, (2, 16, 16, 3), np.uint8), caption=f"{kind} {number // EACH}", split=Split.HELD_OUT)
        for number in range(classes * EACH)
    ]
    write_dataset(storage, "sorted", version, clips, frames=2, resolution=RECIPE.resolution)


def data(version: str = "v1", samples: int | None = None) -> PinnedData:
    return PinnedData(reference=DataReference(dataset="sorted", version=version, split=Split.HELD_OUT, samples=samples))


@pytest.fixture
def references(tmp_path: Path) -> References:
    by_class(tmp_path)
    return open_references([data()], tmp_path)


def number_of(caption: str) -> int:
    return int(caption.split()[1])


def test_few_clips_are_asked_for_captions_of_nearly_all_classes(references: References) -> None:
    """The first 64 captions by path are of 6 classes."""
    assert len({number_of(caption) for caption in references.asked(64)}) > 15


def test_every_caption_is_asked_for_before_one_is_asked_for_again(references: References) -> None:
    assert sorted(references.drawn(CLIPS)) == list(range(CLIPS))
    assert references.asked(2 * CLIPS) == 2 * references.asked(CLIPS)
    assert references.asked(CLIPS) == [references.captions[place] for place in references.drawn(CLIPS)]


def features(random: np.random.Generator, classes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Features of another clip of each of these classes, which lie apart."""
    means = 10 * np.random.default_rng(0).standard_normal((CLASSES, 8))
    return np.asarray(means[classes] + random.standard_normal((len(classes), 8)))


def test_a_perfect_model_has_a_small_distance_with_fewer_clips_than_there_are(references: References) -> None:
    """Perfect: its clips are other clips of just the classes that it was asked for."""
    random, classes = np.random.default_rng(1), np.array([number_of(caption) for caption in references.captions])
    real = features(random, classes)
    asked = np.array([number_of(caption) for caption in references.asked(64)])
    by_path = frechet_distance(real, features(random, classes[:64]))
    found = frechet_distance(real, features(random, asked))
    assert by_path > 200
    assert found < by_path / 5


def test_a_perfect_model_reaches_the_inception_score_that_its_classes_allow(references: References) -> None:
    """Certain of every class: splits of clips in the order of paths have two classes each."""
    with np.errstate(divide="ignore"):
        certain = np.log(np.eye(CLASSES)[[number_of(caption) for caption in references.asked(CLIPS)]])
        by_path = np.log(np.eye(CLASSES)[np.arange(CLIPS) // EACH])
    assert (splits := split_count(CLIPS, CLASSES)) == 10
    assert inception_score(by_path, splits=splits) < 3
    assert inception_score(certain, splits=splits) > 10


def test_fewer_references_are_of_nearly_all_classes(tmp_path: Path) -> None:
    """The first 60 by path are of 5."""
    by_class(tmp_path)
    some = open_references([data(samples=60)], tmp_path)
    assert len(some.clips) == some.resolved[0].clips == 60
    assert len({number_of(caption) for caption in some.captions}) > 15
    assert some.clips == open_references([data(samples=60)], tmp_path).clips


def test_captions_of_several_datasets_are_mixed(tmp_path: Path) -> None:
    by_class(tmp_path)
    by_class(tmp_path, "v2", "kind")
    asked = open_references([data(), data("v2")], tmp_path).asked(40)
    assert {caption.split()[0] for caption in asked} == {"class", "kind"}
    assert 10 < sum(caption.startswith("class") for caption in asked) < 30


def test_fewer_clips_to_train_with_are_of_nearly_all_classes(tmp_path: Path) -> None:
    by_class(tmp_path)
    mixture = open_mixture(tmp_path, job(ArtifactReference(path="none", digest="sha256:" + "0" * 64), data(samples=60)))
    assert len({number_of(mixture.clip(number)[1]) for number in range(len(mixture))}) > 15


def test_the_order_is_the_same_on_every_machine() -> None:
    assert hash_order(8, "captions", "sha256:00") == [4, 6, 5, 0, 1, 3, 7, 2]
    assert hash_order(8, "captions", "sha256:01") != hash_order(8, "captions", "sha256:00")


def job(artifact: ArtifactReference, *entries: PinnedData, **fields: object) -> Job:
    return Job.model_validate(
        {
            "contract": "v1",
            "run": "demo",
            "run_uid": "12345678-0000",
            "namespace": "videos",
            "phase": "validation",
            "attempt": 1,
            "task": Task.EVALUATE,
            "model": MODEL,
            "recipe": RECIPE,
            "work_path": "runs/demo-12345678/validation",
            "data": list(entries) or [data()],
            "evaluate": Evaluation(samples=8, sampling_steps=1),
            "artifact": artifact,
        }
        | fields
    )


def bundle(storage: Path) -> ArtifactReference:
    torch.manual_seed(0)
    config = model_config(RECIPE)
    path, digest = write_bundle(
        storage, Manifest(model=MODEL, recipe=RECIPE, step=1, files=[]), config, VideoFusionModel(config).state_dict()
    )
    return ArtifactReference(path=path, digest=digest)


def captions_in(folder: Path) -> list[str]:
    return [path.read_text().strip() for path in sorted(folder.glob("sample-*.txt"))]


def test_evaluate_asks_the_model_for_them_in_that_order(tmp_path: Path) -> None:
    by_class(tmp_path)
    run(job(bundle(tmp_path)), tmp_path, World(), silent(), lambda: False)
    asked = captions_in(tmp_path / "runs/demo-12345678/validation/samples")
    assert asked == open_references([data()], tmp_path).asked(8)
    assert len(set(asked)) > 4


def test_optimize_asks_both_models_for_them_in_that_order(tmp_path: Path) -> None:
    by_class(tmp_path, classes=8)
    wanted = job(
        bundle(tmp_path),
        task=Task.OPTIMIZE,
        evaluate=None,
        optimize=Optimize(quantization=Quantization.INT8_WEIGHTS, samples=8, sampling_steps=1),
    )
    optimize.run(wanted, tmp_path, World(), silent(), lambda: False)
    for side in ("before", "after"):
        asked = captions_in(tmp_path / "runs/demo-12345678/validation/samples" / side)
        assert asked == open_references([data()], tmp_path).asked(8)
        assert len(set(asked)) > 4
