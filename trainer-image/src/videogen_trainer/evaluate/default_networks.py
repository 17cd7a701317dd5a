"""The small default feature networks: a video classifier and a text-video encoder for synthetic clips (`synthetic.py`).

Both see 16 frames of 32 x 32 pixels, whatever the clip's size. Not here: their training (`train_extractors.py`) and
their weights' digests (`extractors.py`).
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videogen_trainer.synthetic import COLOURS, MOTIONS, SHAPES

FRAMES, SIDE = 16, 32
FEATURES = 64
EMBEDDING = 64
WORDS = ("<unknown>", *sorted({"a", *COLOURS, *SHAPES, *" ".join(MOTIONS).split()}))


def frame_input(clips: Tensor) -> Tensor:
    """Clips uint8 [N, F, H, W, 3] as float [N, F, 3, 32, 32] in [-1, 1], resized with an anti-aliasing filter."""
    count, _, height, width, _ = clips.shape
    pictures = clips.flatten(0, 1).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    if (height, width) != (SIDE, SIDE):
        pictures = F.interpolate(pictures, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    return pictures.unflatten(0, (count, -1))


def video_input(clips: Tensor) -> Tensor:
    """Clips uint8 [N, F, H, W, 3] as float [N, 3, 16, 32, 32] in [-1, 1]; of the frames the 16 nearest to even times are taken."""
    picked = torch.linspace(0, clips.shape[1] - 1, FRAMES).round().long()
    return frame_input(clips[:, picked]).transpose(1, 2)


class VideoTrunk(nn.Module):
    """Three strided 3D convolutions and a mean over space and time: [N, 3, 16, 32, 32] -> [N, 64]."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64)
        strides = ((2, 2, 2), (2, 2, 2), (1, 2, 2))
        layers: list[nn.Module] = []
        for before, after, stride in zip(widths, widths[1:], strides, strict=False):
            layers += [nn.Conv3d(before, after, 3, stride=stride, padding=1), nn.GroupNorm(4, after), nn.GELU()]
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(widths[-1] * 2, FEATURES)

    def forward(self, video: Tensor) -> Tensor:
        maps = self.layers(video)
        pooled = torch.cat([maps.mean(dim=(2, 3, 4)), maps.amax(dim=(2, 3, 4))], dim=1)
        return F.gelu(self.out(pooled))


class VideoClassifierNetwork(nn.Module):
    """Shape, colour and motion of a synthetic clip, as independent factors: 3 x 6 x 6 = 108 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = VideoTrunk()
        self.heads = nn.ModuleList(nn.Linear(FEATURES, classes) for classes in (len(SHAPES), len(COLOURS), len(MOTIONS)))

    def forward(self, video: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Features [N, 64] and the three heads' logits."""
        features = self.trunk(video)
        return features, [head(features) for head in self.heads]


def joint_log_probabilities(logits: list[Tensor]) -> Tensor:
    """Log-probabilities [N, 108] of all combinations in float64: sums of the factors' log-softmax, in the order of COMBINATIONS."""
    shape, colour, motion = (head.double().log_softmax(dim=1) for head in logits)
    joint = shape[:, :, None, None] + colour[:, None, :, None] + motion[:, None, None, :]
    return joint.flatten(1)


class TextVideoNetwork(nn.Module):
    """Captions, whole clips and single frames as vectors; the cosine of clip and caption is the share of attributes they agree in."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(len(WORDS), EMBEDDING)
        self.text = nn.Sequential(nn.Linear(EMBEDDING, EMBEDDING), nn.GELU(), nn.Linear(EMBEDDING, EMBEDDING))
        self.trunk = VideoTrunk()
        self.video = nn.Linear(FEATURES, EMBEDDING)
        self.frame = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(32 * 8 * 8, EMBEDDING),
        )

    def encode_text(self, captions: list[str]) -> Tensor:
        """Captions as [N, 64], from the mean over their words: the order of words does not matter."""
        device = self.words.weight.device
        return torch.stack([self.text(self.words(word_indices(caption).to(device)).mean(dim=0)) for caption in captions])

    def encode_video(self, video: Tensor) -> Tensor:
        """Network input [N, 3, 16, 32, 32] as [N, 64]."""
        return self.video(self.trunk(video))

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Frames [N, F, 3, 32, 32] as [N, F, 64]."""
        return self.frame(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])


def word_indices(caption: str) -> Tensor:
    """Indices into WORDS of a caption's words; unknown ones are 0, and so is an empty caption."""
    found = [WORDS.index(word) if word in WORDS else 0 for word in re.findall(r"\w+", caption.lower())]
    return torch.tensor(found or [0])


def unknown_words(caption: str) -> bool:
    """Whether no word of the caption is in WORDS, so that its embedding says nothing; the article "a" does not count."""
    indices = word_indices(caption.lower())
    return all(WORDS[index] in ("<unknown>", "a") for index in indices.tolist())
