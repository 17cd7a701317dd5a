"""Generated videos to look at: as mp4 with their captions, and all on one contact sheet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from videogen_api.job import Job
from videogen_models.sealed import write_durably
from videogen_models.video import contact_sheet, encode_mp4
from videogen_models.video_model import VideoModel
from videogen_trainer.dataset import writing
from videogen_trainer.distributed import World
from videogen_trainer.failure import is_out_of_memory
from videogen_trainer.families import Learner
from videogen_trainer.gathering import put_together
from videogen_trainer.state import TrainState

_LOG = logging.getLogger(__name__)
Clips = npt.NDArray[np.uint8]  # [frames, height, width, 3]


class _Stopped(Exception):
    """The attempt shall end."""


def write_samples(folder: Path, clips: Sequence[Clips], captions: Sequence[str], frame_rate: int) -> None:
    """`sample-<number>.mp4` with its caption in `.txt`, and `contact-sheet.png`, which names each sample's files.

    Raises Failure(StorageFailed) that names the file.
    """
    shown = [captions[number % len(captions)] for number in range(len(clips))]
    for number, (clip, caption) in enumerate(zip(clips, shown, strict=True)):
        _write(folder / f"sample-{number:02}.mp4", encode_mp4(clip, frame_rate))
        _write(folder / f"sample-{number:02}.txt", f"{caption}\n".encode())
    named = [f"sample-{number:02} {caption}" for number, caption in enumerate(shown)]
    _write(folder / "contact-sheet.png", contact_sheet(list(clips), named))


def _write(path: Path, data: bytes) -> None:
    with writing(path):
        write_durably(path, data)


def sample_while_training(
    state: TrainState, learner: Learner, job: Job, storage: Path, world: World, stop: Callable[[], bool]
) -> Path | None:
    """Write the prompts' videos by the averaged weights into `samples/step-<n>` of the phase's folder, always from the same noise
    -> that folder; the state stays to the bit. With shards every process must call it, else the one that leads.

    One after the other, so that they need no more memory than training; none is written, and None returned, once `stop` says so,
    where memory does not suffice nevertheless, or if a frame is not finite: what the weights are worth is for the loss to say.
    Raises Failure(StorageFailed) if the storage does not take them.
    """
    averages = state.averaged_weights(kept=world.leads) if state.is_sharded else None
    if not world.leads:
        return None
    try:
        if averages is not None:
            return _sampled(*put_together(averages, state.step, job, storage, world.device), job, storage, stop)
        return _sampled(state, learner, job, storage, stop)
    except _Stopped:
        return None
    except FloatingPointError as error:
        _LOG.warning("no samples after step %d: %s", state.step, error)
        return None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        # Its text alone: whoever keeps the record would keep what the traceback holds.
        _LOG.warning("step %d: no sample videos, for memory does not suffice: %s; training goes on", state.step, str(error))
    torch.cuda.empty_cache()  # what they took on a GPU, in pieces of which training can make no use
    return None


def _sampled(state: TrainState, learner: Learner, job: Job, storage: Path, stop: Callable[[], bool]) -> Path:
    def asked(_done: int, _total: int) -> None:
        if stop():
            raise _Stopped

    wanted, model = job.recipe.samples, learner.model
    assert wanted is not None
    with _averaged(state, model), torch.compiler.set_stance("force_eager"):  # what is compiled is for the shapes of training
        clips = [model.generate([prompt], [number], wanted.sampling_steps, asked)[0] for number, prompt in enumerate(wanted.prompts)]
    written = storage / job.work_path / "samples" / f"step-{state.step:09}"
    write_samples(written, clips, wanted.prompts, model.config.frame_rate)
    return written


@contextmanager
def _averaged(state: TrainState, model: VideoModel) -> Iterator[None]:
    """The model as it would be released; afterwards as it was."""
    modes = {module: module.training for module in model.modules()}
    state.exchange_averages()
    model.eval()
    try:
        yield
    finally:
        state.exchange_averages()
        for module, mode in modes.items():
            module.training = mode
