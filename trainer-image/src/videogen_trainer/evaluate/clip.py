"""CLIP (Radford et al., 2021) from a local folder as Hugging Face saves it: config.json, model.safetensors, tokenizer files.

Pictures are resized bicubically (anti-aliased) to cover the model's square, cropped in the middle and normalised by CLIP's
mean and standard deviation. Captions are cut at the model's context (77 tokens for the published ones).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from videogen_models.backbone_folder import copy_to_memory
from videogen_trainer.named_files import CLIP_WEIGHTS

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class Clip:
    """The model and its tokenizer. Raises ValueError, or whatever transformers raises, if the folder is not a whole CLIP model."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        model, loaded = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, output_loading_info=True)
        wrong = sorted([*loaded["missing_keys"], *loaded["unexpected_keys"]])
        if wrong:  # transformers would only log it and go on with random numbers
            raise ValueError(f"tensors that are missing or unknown: {', '.join(wrong[:3])}")
        copy_to_memory(model)
        self.model = model.eval().to(device)
        self.tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        self.device = device
        self._check()

    def _check(self) -> None:
        """What transformers takes without a word. Raises ValueError."""
        if broken := next((name for name, tensor in self.model.state_dict().items() if not tensor.isfinite().all()), None):
            raise ValueError(f"{CLIP_WEIGHTS} has values in {broken} that are not finite")
        known, largest = self.model.config.text_config.vocab_size, max(self.tokenizer.get_vocab().values())
        if largest >= known:
            raise ValueError(f"the tokenizer numbers its words up to {largest}, the text model knows {known}; they do not belong together")
        with torch.inference_mode():
            first, second = self.captions(["a cat", "two dogs"])
        if first.equal(second):
            raise ValueError("two captions have the same embedding; the tokenizer knows no word, or eos_token_id is not its own")

    def captions(self, captions: list[str]) -> Tensor:
        """Embeddings [N, E]."""
        limit = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(captions, padding=True, truncation=True, max_length=limit, return_tensors="pt").to(self.device)
        hidden = self.model.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
        return torch.as_tensor(self.model.text_projection(hidden))

    def frames(self, clips: Tensor) -> Tensor:
        """Embeddings [N, F, E] of the frames of clips uint8 [N, F, H, W, 3]."""
        pixels = clip_input(clips, self.model.config.vision_config.image_size)
        embedded = self.model.visual_projection(self.model.vision_model(pixel_values=pixels).pooler_output)
        return torch.as_tensor(embedded).unflatten(0, clips.shape[:2])


def clip_input(clips: Tensor, side: int) -> Tensor:
    """Frames of clips uint8 [N, F, H, W, 3] as float [N · F, 3, side, side]."""
    pictures = clips.flatten(0, 1).permute(0, 3, 1, 2).float() / 255.0
    height, width = pictures.shape[2:]
    scale = side / min(height, width)
    size = (max(side, round(height * scale)), max(side, round(width * scale)))
    pictures = F.interpolate(pictures, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0.0, 1.0)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    pictures = pictures[:, :, top : top + side, left : left + side]
    mean, deviation = pictures.new_tensor(MEAN)[:, None, None], pictures.new_tensor(DEVIATION)[:, None, None]
    return (pictures - mean) / deviation
