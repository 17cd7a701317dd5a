"""Gradients are averaged over processes in every step alike, and sent while others are made."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from videogen_api.job import Job
from videogen_testing.attempted import WORK, artifact, losses
from videogen_testing.ranks import train_in
from videogen_trainer import averaging, checkpoint
from videogen_trainer.averaging import GradientAverage


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(5)))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What is sent, as it was then."""
    seen: list[Tensor] = []
    all_reduce = dist.all_reduce

    def noted(tensor: Tensor, **options: Any) -> dist.Work | None:
        seen.append(tensor.clone())
        return all_reduce(tensor, **options)

    monkeypatch.setattr(dist, "all_reduce", noted)
    monkeypatch.setattr(averaging, "BUCKET_BYTES", 2 * 64)
    return seen


@pytest.mark.parametrize("is_sent_meanwhile", [True, False])
def test_all_gradients_are_divided_and_sent_in_one_layout(sent: list[Tensor], is_sent_meanwhile: bool) -> None:
    module, expected = layers(), layers()
    average = GradientAverage(module.parameters(), 2)
    for _ in range(2):  # the first pass adds up here alone
        expected(torch.ones(3, 4)).square().sum().backward()
    module(torch.ones(3, 4)).square().sum().backward()
    if is_sent_meanwhile:
        average.begin()
    module(torch.ones(3, 4)).square().sum().backward()
    assert len(sent) == (2 if is_sent_meanwhile else 0), "the last says how the pass ended"
    assert average.finish()
    gradients = [one.grad / 2 for one in expected.parameters() if one.grad is not None]
    assert [one.tolist() for one in sent] == [
        [*torch.cat([gradients[place].flatten() for place in places]).tolist(), 0.0] for places in ((4, 3), (2, 1), (0,))
    ]
    assert [one.grad.tolist() for one in module.parameters() if one.grad is not None] == [one.tolist() for one in gradients]


def test_buckets_are_sent_in_their_order_whichever_is_ready_first(sent: list[Tensor]) -> None:
    begun, first, last = nn.Linear(4, 8, bias=False), nn.Linear(8, 8, bias=False), nn.Linear(4, 4, bias=False)
    average = GradientAverage(
        [*begun.parameters(), *last.parameters(), *first.parameters()], 1
    )  # first's bucket is sent first, and made after last's
    average.begin()
    last(first(begun(torch.ones(1, 4)))[:, :4]).sum().backward()
    assert [one.numel() for one in sent] == [65, 17]
    assert average.finish()
    assert [one.numel() for one in sent] == [65, 17, 33]


def test_what_does_not_learn_is_not_sent(sent: list[Tensor]) -> None:
    module = layers()
    module[3].requires_grad_(False)
    average = GradientAverage(module.parameters(), 1)
    module(torch.ones(3, 4)).square().sum().backward()
    assert average.finish()
    gradients = [layer.weight.grad for layer in module]  # type: ignore[union-attr]
    assert [one[:-1].tolist() for one in sent] == [
        torch.cat([gradients[place].flatten() for place in places]).tolist()  # type: ignore[union-attr,operator]
        for places in ((4, 2), (1, 0))
    ]


def test_what_has_no_gradient_is_left_without_one(sent: list[Tensor]) -> None:
    module, unused = layers(), nn.Linear(64, 2)
    average = GradientAverage([*module.parameters(), *unused.parameters()], 1)
    average.begin()
    module(torch.ones(3, 4)).sum().backward()
    assert not sent, "nobody knows yet that there will be none"
    assert average.finish()
    assert (unused.weight.grad, unused.bias.grad) == (None, None)
    assert all(one.grad is not None for one in module.parameters())


@pytest.mark.parametrize("backward", [True, False])
def test_who_gives_up_sends_what_the_others_wait_for_and_tells_them(sent: list[Tensor], backward: bool) -> None:
    module = layers()
    average = GradientAverage(module.parameters(), 1)
    average.begin()
    if backward:
        module(torch.ones(3, 4)).sum().backward()
    assert not average.finish(complete=False)
    assert [one.numel() for one in sent] == [33, 33, 17]
    module.zero_grad(set_to_none=True)
    module(torch.ones(3, 4)).sum().backward()
    assert average.finish(), "the next step is another one"


def test_a_model_is_freed_when_its_training_has_ended(sent: list[Tensor]) -> None:
    """As those of a search's trials, of which one follows the other."""
    module = layers()
    average = GradientAverage(module.parameters(), 2)
    average.begin()
    module(torch.ones(3, 4)).sum().backward()
    assert len(sent) == 2
    assert average.finish()
    weights = [weakref.ref(parameter) for parameter in module.parameters()]
    del module, average
    assert [weight() for weight in weights] == [None] * 5


@pytest.mark.parametrize("sharding", [None, "Full"])
def test_three_processes_go_on_to_the_same_weights_to_the_bit(storage: Path, make_job: Callable[..., Job], sharding: str | None) -> None:
    recipe = {"steps": 6, "globalBatchSize": 6, "sharding": sharding, "videoFusion": None, "checkpoints": {"everySteps": 3, "keepLast": 3}}
    never_stopped = train_in(3, make_job(recipe), storage)
    expected, root = losses(storage), storage / WORK / "checkpoints"
    shutil.rmtree(checkpoint.folder_of(root, 6))
    shutil.rmtree(storage / "bundles")
    resumed = train_in(3, make_job(recipe), storage)
    assert resumed.resumed_from_step == 3
    assert losses(storage) == expected
    assert artifact(resumed) == artifact(never_stopped)
