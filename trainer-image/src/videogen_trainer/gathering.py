"""One process with everything, where the state is in shards: what videos and bundles are made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from videogen_api.job import Job
from videogen_trainer.distributed import World
from videogen_trainer.families import Learner, learner_of
from videogen_trainer.state import TrainState, new_state


def gathered(
    state: TrainState, learner: Learner, job: Job, storage: Path, world: World, device: torch.device
) -> tuple[TrainState, Learner]:
    """State and learner as they are or, with shards, in rank 0 others on `device` that have the averaged weights whole.

    The others are good for those weights alone. Every process must call it; the model must fit into one process for a while.
    """
    if not state.is_sharded:
        return state, learner
    averages = state.averaged_weights(kept=world.leads)
    return put_together(averages, state.step, job, storage, device) if world.leads else (state, learner)


def put_together(averages: Mapping[str, Tensor], step: int, job: Job, storage: Path, device: torch.device) -> tuple[TrainState, Learner]:
    """State and learner on `device` that have these averaged weights, by their names in the model; sends nothing."""
    alone = learner_of(job, storage, World(device=device))
    copy = new_state(alone.learned(), alone.slow, job.recipe, device)
    copy.ema.shadow_params = [averages[name].to(device) for name in copy.learned]
    copy.step = step
    return copy, alone
