"""Train the default extractors on synthetic clips: `python -m videogen_trainer.evaluate.train_extractors --out DIR [--steps N]`.

Writes `video-classifier.safetensors`, `text-video-encoder.safetensors` and `weights.json` (their SHA-256, how they were
trained, and how well they do on clips of another seed). Reproducible on the same machine and torch version with one thread.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from videogen_models.sealed import sha256_of
from videogen_trainer.evaluate.default_networks import (
    FRAMES,
    SIDE,
    TextVideoNetwork,
    VideoClassifierNetwork,
    frame_input,
    video_input,
)
from videogen_trainer.synthetic import COMBINATIONS, synthetic_clip

CLIPS = len(COMBINATIONS) // 2  # a batch: half a round of all combinations, so no caption occurs twice
BROKEN = 6  # clips of each kind of broken video in a batch
NO_LABEL = -1  # this attribute cannot be seen: the classifier shall say "any", the text encoder "none"
PLACE_WIDTH, SIZE_WIDTH = 0.2, 0.1  # frames are alike if the shape has moved and grown by less than this
HELD_OUT_SEED = 1_000_003
LEARNING_RATE = 2e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Clips uint8 [N, F, H, W, 3], attributes [N, 3], wanted likeness of each clip's frames [N, F, F]; captions of the first CLIPS."""

    clips: Tensor
    attributes: Tensor
    likeness: Tensor
    captions: list[str]


def training_batch(number: int, *, seed: int) -> Batch:
    """Batch `number`: intact clips, then shuffled ones (motion cannot be seen), then noise, cuts and still pictures (nothing can)."""
    random = np.random.default_rng((seed, number, 2))
    made = [synthetic_clip(number * CLIPS + place, seed=seed, frames=FRAMES, height=SIDE, width=SIDE) for place in range(CLIPS)]
    intact = np.stack([clip.frames for clip in made])
    attributes = np.array([(clip.shape, clip.colour, clip.motion) for clip in made])
    likeness = np.stack([_likeness(clip.track) for clip in made])
    order = random.permutation(FRAMES)
    some = random.choice(CLIPS, BROKEN, replace=False)
    shuffled = attributes[some] * [1, 1, 0] + [0, 0, NO_LABEL]
    flicker, still = np.eye(FRAMES)[None].repeat(2 * BROKEN, axis=0), np.ones((2 * BROKEN, FRAMES, FRAMES))
    nothing = np.full((4 * BROKEN, 3), NO_LABEL)
    return Batch(
        clips=torch.from_numpy(np.concatenate([_filmed(intact, random), intact[some][:, order], *_broken(intact, random)])),
        attributes=torch.from_numpy(np.concatenate([attributes, shuffled, nothing])),
        likeness=torch.from_numpy(np.concatenate([likeness, likeness[some][:, order][:, :, order], flicker, still]).astype(np.float32)),
        captions=[clip.caption for clip in made],
    )


def _likeness(track: NDArray[np.float64]) -> NDArray[np.float64]:
    moved = track[:, None] - track[None]
    return np.exp(-((moved[..., :2] / PLACE_WIDTH) ** 2).sum(-1) - (moved[..., 2] / SIZE_WIDTH) ** 2)


def _filmed(clips: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Some clips with noise and with the coarse colours of 4:2:0 video."""
    noise = random.uniform(0, 15, size=(len(clips), 1, 1, 1, 1)) * (random.random((len(clips), 1, 1, 1, 1)) < 0.5)
    pictures = clips + noise * random.standard_normal(clips.shape)
    coarse = pictures.reshape(*clips.shape[:2], SIDE // 2, 2, SIDE // 2, 2, 3).mean(axis=(3, 5)).repeat(2, 2).repeat(2, 3)
    shift = (coarse - coarse.mean(-1, keepdims=True)) - (pictures - pictures.mean(-1, keepdims=True))
    pictures = pictures + shift * (random.random((len(clips), 1, 1, 1, 1)) < 0.5)
    return np.rint(pictures.clip(0, 255)).astype(np.uint8)


def _broken(intact: NDArray[np.uint8], random: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Noise, then cuts to another clip at each frame, then still coarse noise, then still plain colours; BROKEN of each."""
    shape = (BROKEN, FRAMES, SIDE, SIDE, 3)
    level, spread = random.uniform(40, 210, (BROKEN, 1, 1, 1, 1)), random.uniform(20, 90, (BROKEN, 1, 1, 1, 1))
    noise = level + spread * random.standard_normal(shape)
    cuts = intact[random.integers(0, CLIPS, (BROKEN, FRAMES)), random.integers(0, FRAMES, (BROKEN, FRAMES))]
    coarse = random.uniform(0, 255, (BROKEN, 1, 8, 8, 3)).repeat(4, 2).repeat(4, 3)
    plain = random.uniform(0, 255, (BROKEN, 1, 1, 1, 3))
    still = [np.broadcast_to(picture, shape) for picture in (coarse, plain)]
    return [np.rint(np.clip(kind, 0, 255)).astype(np.uint8) for kind in (noise, cuts, *still)]


def classifier_loss(network: VideoClassifierNetwork, batch: Batch) -> Tensor:
    """Cross-entropy over shape, colour and motion, against the uniform distribution where there is no label."""
    _, logits = network(video_input(batch.clips))
    losses = []
    for factor, head in enumerate(logits):
        label = batch.attributes[:, factor]
        known = F.one_hot(label.clamp(min=0), head.shape[1]).float()
        wanted = torch.where((label == NO_LABEL)[:, None], torch.full_like(known, 1.0 / head.shape[1]), known)
        losses.append(F.cross_entropy(head, wanted))
    return torch.stack(losses).sum()


def agreement(attributes: Tensor) -> Tensor:
    """Share [N, CLIPS] of the attributes in which a clip and the caption of an intact clip agree."""
    same = attributes[:, None] == attributes[None, :CLIPS]
    return same.float().mean(dim=2)


def encoder_loss(network: TextVideoNetwork, batch: Batch) -> Tensor:
    """Squared errors of the cosines: clip with caption against agreement, frame with frame of a clip against likeness."""
    videos = F.normalize(network.encode_video(video_input(batch.clips)), dim=1)
    captions = F.normalize(network.encode_text(batch.captions), dim=1)
    frames = F.normalize(network.encode_frames(frame_input(batch.clips)), dim=2)
    matching = F.mse_loss(videos @ captions.T, agreement(batch.attributes))
    return 10.0 * matching + F.mse_loss(frames @ frames.transpose(1, 2), batch.likeness)


def train(*, steps: int, seed: int) -> tuple[VideoClassifierNetwork, TextVideoNetwork]:
    """Both networks after `steps` steps of AdamW with cosine decay."""
    torch.manual_seed(seed)
    classifier, encoder = VideoClassifierNetwork(), TextVideoNetwork()
    optimizer = torch.optim.AdamW([*classifier.parameters(), *encoder.parameters()], lr=LEARNING_RATE)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        batch = training_batch(step, seed=seed)
        losses = classifier_loss(classifier, batch), encoder_loss(encoder, batch)
        optimizer.zero_grad()
        sum(losses, torch.zeros(())).backward()
        optimizer.step()
        decay.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step}: classifier loss {losses[0].item():.3f}, encoder loss {losses[1].item():.4f}", flush=True)
    return classifier.eval(), encoder.eval()


@torch.inference_mode()
def quality(classifier: VideoClassifierNetwork, encoder: TextVideoNetwork) -> dict[str, dict[str, str]]:
    """Accuracy of each attribute, and cosines of right and of other captions, on intact clips of another seed."""
    batch = training_batch(0, seed=HELD_OUT_SEED)
    video = video_input(batch.clips[:CLIPS])
    _, logits = classifier(video)
    right = [(head.argmax(dim=1) == batch.attributes[:CLIPS, factor]).float().mean().item() for factor, head in enumerate(logits)]
    cosines = F.normalize(encoder.encode_video(video), dim=1) @ F.normalize(encoder.encode_text(batch.captions), dim=1).T
    other = (cosines.sum() - cosines.trace()) / (cosines.numel() - CLIPS)
    return {
        "video-classifier": {f"{name}Accuracy": f"{share:.3f}" for name, share in zip(("shape", "colour", "motion"), right, strict=True)},
        "text-video-encoder": {"cosineRightCaption": f"{cosines.diagonal().mean():.3f}", "cosineOtherCaption": f"{other:.3f}"},
    }


def write(out: Path, *, steps: int, seed: int) -> None:
    """Train and write weights and `weights.json`."""
    out.mkdir(parents=True, exist_ok=True)
    classifier, encoder = train(steps=steps, seed=seed)
    measured = quality(classifier, encoder)
    records = {}
    for name, network in {"video-classifier": classifier, "text-video-encoder": encoder}.items():
        path = out / f"{name}.safetensors"
        save_file(network.state_dict(), path)
        path.chmod(0o644)  # safetensors writes for the owner only
        records[name] = {
            "sha256": sha256_of(path),
            "trained": {"clips": "synthetic", "steps": steps, "seed": seed, "batch": CLIPS, "torch": torch.__version__},
            "heldOut": measured[name],
        }
    (out / "weights.json").write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(records, indent=2))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the default feature networks on synthetic clips.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--steps", type=int, default=700, help="optimiser steps")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    write(arguments.out, steps=arguments.steps, seed=arguments.seed)


if __name__ == "__main__":
    main()
