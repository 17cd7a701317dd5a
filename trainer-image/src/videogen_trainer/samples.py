"""Generated videos to look at: as mp4 with their captions, and all on one contact sheet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from videogen_api.recipe import Samples
from videogen_models.sealed import write_durably
from videogen_models.video import contact_sheet, encode_mp4
from videogen_models.video_model import VideoModel
from videogen_trainer.dataset import writing
from videogen_trainer.state import TrainState

_LOG = logging.getLogger(__name__)
Clips = npt.NDArray[np.uint8]  # [frames, height, width, 3]


class _Stopped(Exception):
    """The attempt shall end."""


def write_samples(folder: Path, clips: Sequence[Clips], captions: Sequence[str], frame_rate: int) -> None:
    """`sample-<number>.mp4` with its caption in `.txt`, and `contact-sheet.png`.

    Raises Failure(StorageFailed) that names the file.
    """
    shown = [captions[number % len(captions)] for number in range(len(clips))]
    for number, (clip, caption) in enumerate(zip(clips, shown, strict=True)):
        _write(folder / f"sample-{number:02}.mp4", encode_mp4(clip, frame_rate))
        _write(folder / f"sample-{number:02}.txt", f"{caption}\n".encode())
    _write(folder / "contact-sheet.png", contact_sheet(list(clips), shown))


def _write(path: Path, data: bytes) -> None:
    with writing(path):
        write_durably(path, data)


def sample_while_training(state: TrainState, model: VideoModel, wanted: Samples, folder: Path, stop: Callable[[], bool]) -> Path | None:
    """Write the prompts' videos by the averaged weights into `folder`/step-<n>, always from the same noise -> that folder; the state
    stays to the bit.

    One after the other, so that they need no more memory than training; none is written, and None returned, once `stop` says so, or if
    a frame is not finite: what the weights are worth is for the loss to say.
    Raises Failure(StorageFailed) if the storage does not take them.
    """

    def asked(_done: int, _total: int) -> None:
        if stop():
            raise _Stopped

    parameters, modes = list(state.learned.values()), {module: module.training for module in model.modules()}
    state.ema.store(parameters)
    state.ema.copy_to(parameters)
    model.eval()
    try:
        with torch.compiler.set_stance("force_eager"):  # what is compiled is for the shapes of training
            clips = [model.generate([prompt], [number], wanted.sampling_steps, asked)[0] for number, prompt in enumerate(wanted.prompts)]
    except _Stopped:
        return None
    except FloatingPointError as error:
        _LOG.warning("no samples after step %d: %s", state.step, error)
        return None
    finally:
        state.ema.restore(parameters)
        for module, mode in modes.items():
            module.training = mode
    written = folder / f"step-{state.step:09}"
    write_samples(written, clips, wanted.prompts, model.config.frame_rate)
    return written
