"""Captions to vectors, without a download: words hashed into a fixed vocabulary, and a CLIP text transformer.

The transformer's weights are trained together with the generators, from scratch. Hashing needs no vocabulary file and
knows every word of every language; two words share an entry with a probability of 1 / vocabulary.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from videogen_api.meta import Observation

PADDING, BEGIN, END = 0, 1, 3
_FIRST_WORD = 4
_JOINING = "'\u2019"


class TextSize(Observation):
    """Size of the text encoder."""

    vocabulary: int = Field(ge=16)
    length: int = Field(ge=3)
    width: int = Field(ge=1)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)


def words(caption: str) -> list[str]:
    """The caption's words: compatibility forms unified, lower case, punctuation dropped; marks stay, Indic vowels are such."""
    kept = [_kept(letter) for letter in unicodedata.normalize("NFKC", caption).casefold()]
    stripped = (word.strip(_JOINING) for word in "".join(kept).split())
    return [word for word in stripped if word]


def _kept(letter: str) -> str:
    category = unicodedata.category(letter)
    if category == "Cf":  # invisible joiners, which writers put or leave out
        return ""
    return letter if category[0] in "LMN" or letter in _JOINING else " "


def tokenize(captions: Sequence[str], size: TextSize) -> Tensor:
    """Captions as numbers, int64 [batch, length]: BEGIN, one number a word, END, padding; what is too long is cut off."""
    return torch.tensor([_tokens(caption, size) for caption in captions], dtype=torch.int64).reshape(-1, size.length)


def _tokens(caption: str, size: TextSize) -> list[int]:
    known = [_token(word, size.vocabulary) for word in words(caption)][: size.length - 2]
    tokens = [BEGIN, *known, END]
    return tokens + [PADDING] * (size.length - len(tokens))


def _token(word: str, vocabulary: int) -> int:
    number = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
    return _FIRST_WORD + number % (vocabulary - _FIRST_WORD)


class TextEncoder(nn.Module):
    """CLIP's text transformer (Radford et al., 2021), built from its sizes alone."""

    def __init__(self, size: TextSize) -> None:
        super().__init__()
        self.transformer = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=size.vocabulary,
                hidden_size=size.width,
                intermediate_size=4 * size.width,
                num_hidden_layers=size.layers,
                num_attention_heads=size.heads,
                max_position_embeddings=size.length,
                pad_token_id=PADDING,
                bos_token_id=BEGIN,
                eos_token_id=END,
            )
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens int64 [batch, length] -> float [batch, length, width]."""
        hidden: Tensor = self.transformer(input_ids=tokens).last_hidden_state
        return hidden
