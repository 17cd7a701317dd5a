"""Clips that do not show what their caption says, by real text-video encoders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from videogen_api.curation import Filters, RelevanceFilter
from videogen_api.evaluation import Extractor, ExtractorArchitecture
from videogen_api.training_run import Reason, Split
from videogen_models.video import encode_mp4
from videogen_testing.curation import curated, job, silent, write_video
from videogen_trainer.curate import run
from videogen_trainer.curation.relevance import encoder_of, similarity
from videogen_trainer.dataset import Clip
from videogen_trainer.failure import Failure
from videogen_trainer.named_files import clip_sha256
from videogen_trainer.synthetic import SyntheticClip, synthetic_clip


def drawn(index: int) -> SyntheticClip:
    return synthetic_clip(index, seed=77, frames=8, height=32, width=32)


def other(index: int) -> str:
    """The caption of a clip of another shape, colour and motion."""
    words = set(drawn(index).caption.split()) - {"a"}
    captions = (drawn(number).caption for number in range(index + 1, index + 108))
    return next(caption for caption in captions if not words & set(caption.split()))


def put(storage: Path, index: int, caption: str) -> None:
    (storage / "raw").mkdir(exist_ok=True)
    (storage / f"raw/{index:03}.mp4").write_bytes(encode_mp4(drawn(index).frames, 8))
    (storage / f"raw/{index:03}.txt").write_text(caption)


def test_captions_of_other_clips_are_less_similar_nine_times_in_ten(tmp_path: Path) -> None:
    """Another shape, colour and motion; by the default encoder, on clips that it was not trained on."""
    encoder = encoder_of(None, tmp_path)
    right, wrong = [], []
    for index in range(40):
        for caption, found in ((drawn(index).caption, right), (other(index), wrong)):
            found.append(similarity(Clip(frames=drawn(index).frames, caption=caption, split=Split.TRAIN), encoder))
    assert np.mean(np.array(right) > np.array(wrong)) >= 0.9
    assert np.mean(np.array(right) > 0.3) >= 0.9
    assert np.mean(np.array(wrong) > 0.3) <= 0.1


def test_a_clip_that_does_not_show_its_caption_is_rejected_with_the_similarity(tmp_path: Path) -> None:
    for index in range(6):
        put(tmp_path, index, other(2) if index == 2 else drawn(index).caption)
    put(tmp_path, 6, "ministers meet")
    wanted = Filters(relevance=RelevanceFilter(minimum_similarity="0.3"))
    dataset = curated(tmp_path, job(filters=wanted, maximum_rejected_percent=50))
    assert [record.source for record in dataset.records] == [f"raw/{index:03}.mp4:0" for index in (0, 1, 3, 4, 5)]
    page = (tmp_path / "datasets/shapes/reports/v1.html").read_text()
    assert "Rejected: Relevance (2)" in page
    assert "by text-video-encoder, filters.relevance wants 0.3" in page
    assert "text-video-encoder knows no word of the caption of raw/006.mp4:0; name a CLIP" in page


def clip_folder(folder: Path) -> str:
    """A CLIP of random weights that spells words letter by letter; the folder's SHA-256."""
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    letters = [letter + end for letter in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")]
    words = {word: number for number, word in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    text = size | {"vocab_size": len(words), "max_position_embeddings": 12, "eos_token_id": words["<|endoftext|>"]}
    torch.manual_seed(0)
    vision = size | {"image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    return clip_sha256(folder)


def own(digest: str, minimum: str) -> Filters:
    extractor = Extractor(name="clip-own", architecture=ExtractorArchitecture.CLIP, path="clip", digest=f"sha256:{digest}")
    return Filters(relevance=RelevanceFilter(minimum_similarity=minimum, extractor=extractor))


def test_a_clip_of_the_users_own_is_asked_instead(tmp_path: Path) -> None:
    digest = clip_folder(tmp_path / "clip")
    for index in range(3):
        put(tmp_path, index, "ministers meet")
    assert run(job(version="all", filters=own(digest, "-1")), tmp_path, silent()).datasets[0].clips == 3
    with pytest.raises(Failure, match=r"by clip-own, filters\.relevance wants 0\.99") as caught:
        run(job(version="none", filters=own(digest, "0.99")), tmp_path, silent())
    assert caught.value.reason is Reason.DATASET_TOO_SMALL


def test_a_missing_or_other_network_is_told_before_any_video_is_looked_at(tmp_path: Path) -> None:
    write_video(tmp_path / "raw/a.mp4", 8)
    with pytest.raises(Failure, match=r"^filters.relevance.extractor: there is no file .*clip/model.safetensors") as caught:
        run(job(filters=own("0" * 64, "0.2")), tmp_path, silent())
    assert caught.value.reason is Reason.EXTRACTOR_MISSING
    assert not (tmp_path / "runs").exists()
