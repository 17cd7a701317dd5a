"""A CLIP of the user's own, as small as it can be."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel

from videogen_api.evaluation import Extractor, ExtractorArchitecture
from videogen_trainer.named_files import clip_sha256


def clip_folder(folder: Path) -> str:
    """A tiny CLIP with a tokenizer of single letters; the folder's SHA-256."""
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    letters = [letter + end for letter in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")]
    words = {word: number for number, word in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    text = size | {"vocab_size": len(words), "max_position_embeddings": 12, "eos_token_id": words["<|endoftext|>"]}
    vision = size | {"image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    CLIPModel(config).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    return clip_sha256(folder)


def own_clip(digest: str) -> Extractor:
    """The network `clip-own` in the folder `clip` of the storage."""
    return Extractor(name="clip-own", architecture=ExtractorArchitecture.CLIP, path="clip", digest=f"sha256:{digest}")
