"""C3D (Tran et al., 2015), fine-tuned on UCF-101: the customary classifier of the Inception Score of videos.

Parameter names are those of the common PyTorch ports (conv1 ... conv5b, fc6, fc7, fc8), converted to safetensors. Input:
16 frames, bilinear to 128 x 171, the middle 112 x 112, BGR in [0, 255] minus the mean colour, as those ports train it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FRAMES = 16
RESIZED, CROPPED = (128, 171), 112
MEAN_BGR = (90.0, 98.0, 102.0)


class C3D(nn.Module):
    """Clips [N, 3, 16, 112, 112] to logits [N, classes]. `width` 64 is the published network."""

    def __init__(self, classes: int = 101, *, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, width, 3, padding=1)
        self.conv2 = nn.Conv3d(width, 2 * width, 3, padding=1)
        self.conv3a = nn.Conv3d(2 * width, 4 * width, 3, padding=1)
        self.conv3b = nn.Conv3d(4 * width, 4 * width, 3, padding=1)
        self.conv4a = nn.Conv3d(4 * width, 8 * width, 3, padding=1)
        self.conv4b = nn.Conv3d(8 * width, 8 * width, 3, padding=1)
        self.conv5a = nn.Conv3d(8 * width, 8 * width, 3, padding=1)
        self.conv5b = nn.Conv3d(8 * width, 8 * width, 3, padding=1)
        self.fc6 = nn.Linear(8 * width * 16, 64 * width)
        self.fc7 = nn.Linear(64 * width, 64 * width)
        self.fc8 = nn.Linear(64 * width, classes)

    def forward(self, video: Tensor) -> Tensor:
        maps = F.max_pool3d(F.relu(self.conv1(video)), (1, 2, 2))
        maps = F.max_pool3d(F.relu(self.conv2(maps)), 2)
        maps = F.max_pool3d(F.relu(self.conv3b(F.relu(self.conv3a(maps)))), 2)
        maps = F.max_pool3d(F.relu(self.conv4b(F.relu(self.conv4a(maps)))), 2)
        maps = F.max_pool3d(F.relu(self.conv5b(F.relu(self.conv5a(maps)))), 2, padding=(0, 1, 1))
        hidden = F.relu(self.fc7(F.relu(self.fc6(maps.flatten(1)))))
        return torch.as_tensor(self.fc8(hidden))


def c3d_input(clips: Tensor) -> Tensor:
    """Clips uint8 [N, F, H, W, 3] as the network wants them; of the frames the 16 nearest to even times are taken."""
    count, frames = clips.shape[:2]
    picked = clips[:, torch.linspace(0, frames - 1, FRAMES).round().long()]
    pictures = picked.flatten(0, 1).permute(0, 3, 1, 2).float()
    pictures = F.interpolate(pictures, size=RESIZED, mode="bilinear", align_corners=False)
    top, left = (RESIZED[0] - CROPPED) // 2, (RESIZED[1] - CROPPED) // 2
    pictures = pictures[:, [2, 1, 0], top : top + CROPPED, left : left + CROPPED]
    pictures = pictures - pictures.new_tensor(MEAN_BGR)[:, None, None]
    return pictures.unflatten(0, (count, -1)).transpose(1, 2)
