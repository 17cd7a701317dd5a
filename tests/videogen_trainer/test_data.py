"""Which clips a step sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from videogen_api.job import Job
from videogen_api.recipe import Resolution
from videogen_api.training_run import Reason
from videogen_trainer.data import Batches, Sampler, choose, open_mixture, positions
from videogen_trainer.dataset import write_dataset
from videogen_trainer.failure import Failure


@pytest.mark.parametrize("processes, parts", [(1, 1), (2, 1), (1, 3), (4, 3), (12, 1)])
def test_all_processes_together_take_the_batch_exactly(processes: int, parts: int) -> None:
    taken = [
        position
        for part in range(parts)
        for rank in range(processes)
        for position in positions(5, part, batch=12, parts=parts, rank=rank, processes=processes)
    ]
    assert taken == list(range(60, 72))


def test_each_epoch_sees_every_clip_once_in_an_order_of_its_own() -> None:
    sampler = Sampler(10, seed=1)
    epochs = [[sampler.clip(epoch * 10 + index) for index in range(10)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_a_position_means_the_same_clip_from_wherever_one_comes() -> None:
    forward = [Sampler(7, seed=3).clip(position) for position in range(30)]
    sampler = Sampler(7, seed=3)
    assert [sampler.clip(position) for position in reversed(range(30))] == forward[::-1]
    assert [Sampler(7, seed=4).clip(position) for position in range(30)] != forward


@pytest.mark.parametrize("samples, count", [(None, 20), (5, 5), (20, 20), (99, 20)])
def test_samples_are_chosen_at_most_and_always_the_same(samples: int | None, count: int) -> None:
    available = list(range(100, 120))
    chosen = choose(available, samples, 0, "sha256:aa")
    assert len(chosen) == count
    assert set(chosen) <= set(available)
    assert list(chosen) == sorted(chosen)
    assert choose(available, samples, 0, "sha256:aa") == chosen


def test_only_the_split_that_is_asked_for_is_read(storage: Path, make_job: Callable[..., Job]) -> None:
    mixture = open_mixture(storage, make_job())
    captions = {mixture.clip(number)[1] for number in range(len(mixture))}
    assert captions == {f"square {number} moves right" for number in range(16) if number % 4 != 3}
    assert mixture.resolved[0].clips == 12


def test_datasets_are_mixed_by_their_samples(storage: Path, make_job: Callable[..., Job]) -> None:
    reference = {"dataset": "squares", "version": "v1"}
    data = [{"reference": reference | {"samples": 3}}, {"reference": reference | {"split": "HeldOut", "samples": 2}}]
    mixture = open_mixture(storage, make_job(data=data))
    assert [part.clips for part in mixture.resolved] == [3, 2]
    held_out = [int(mixture.clip(number)[1].split()[1]) % 4 == 3 for number in range(5)]
    assert held_out == [False, False, False, True, True]
    with pytest.raises(IndexError):
        mixture.clip(5)


def test_batches_are_the_same_read_ahead_or_not(storage: Path, make_job: Callable[..., Job]) -> None:
    job = make_job({"globalBatchSize": 8, "gradientAccumulationSteps": 2})
    mixture = open_mixture(storage, job)
    batches, jumping = Batches(mixture, job.recipe, 0, 1), Batches(mixture, job.recipe, 0, 1)
    in_order = {(step, part): batches.get(step, part).captions for step in range(3) for part in range(2)}
    for step, part in [(2, 1), (0, 0), (1, 1), (0, 1)]:
        assert jumping.get(step, part).captions == in_order[step, part]
    assert all(len(captions) == 4 for captions in in_order.values())
    batches.close()
    jumping.close()


@pytest.mark.parametrize(
    "recipe, reason, message",
    [
        ({"globalBatchSize": 13}, Reason.DATASET_TOO_SMALL, r"12 clips \(squares 12\), recipe.globalBatchSize is 13"),
        ({"frames": 8}, Reason.INVALID_JOB, "has 4 frames of 16 x 16, the recipe 8 of 16 x 16"),
        ({"resolution": {"height": 16, "width": 24}}, Reason.INVALID_JOB, "the recipe 4 of 16 x 24"),
    ],
)
def test_data_that_does_not_fit_the_recipe_is_refused(
    storage: Path, make_job: Callable[..., Job], recipe: dict[str, object], reason: Reason, message: str
) -> None:
    with pytest.raises(Failure, match=message) as caught:
        open_mixture(storage, make_job(recipe))
    assert caught.value.reason is reason


def test_an_empty_split_is_too_small(storage: Path, make_job: Callable[..., Job]) -> None:
    write_dataset(storage, "empty", "v1", [], frames=4, resolution=Resolution(height=16, width=16))
    with pytest.raises(Failure, match="0 clips"):
        open_mixture(storage, make_job(data=[{"reference": {"dataset": "empty", "version": "v1"}}]))
