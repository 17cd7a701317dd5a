"""Feature networks: the default ones order good above bad; the user's own are checked tensor by tensor before use."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from videogen_api.evaluation import Extractor, ExtractorArchitecture
from videogen_api.training_run import Reason
from videogen_models.sealed import sha256_of
from videogen_testing.own_clip import clip_folder, own_clip
from videogen_trainer.evaluate import extractors
from videogen_trainer.evaluate.c3d import C3D, c3d_input
from videogen_trainer.evaluate.clip import Clip
from videogen_trainer.evaluate.clip_score import similarities
from videogen_trainer.evaluate.coherence import coherence, motion, steadiness
from videogen_trainer.evaluate.extractors import (
    WEIGHTS,
    DefaultEncoder,
    NetworkExtractor,
    default_classifier,
    default_encoder,
    load,
    load_weights,
)
from videogen_trainer.evaluate.frechet import frechet_distance
from videogen_trainer.evaluate.i3d import I3D, Mixed, i3d_input, pad_same
from videogen_trainer.evaluate.inception import inception_score
from videogen_trainer.evaluate.train_extractors import train
from videogen_trainer.failure import Failure
from videogen_trainer.named_files import clip_sha256
from videogen_trainer.synthetic import COMBINATIONS, synthetic_clip

CPU = torch.device("cpu")
Clips = NDArray[np.uint8]


@cache
def clips(seed: int = 21, **size: int) -> Clips:
    """One clip of each combination, of seeds that the extractors were not trained on."""
    wanted = {"frames": 16, "height": 32, "width": 32} | size
    return np.stack([synthetic_clip(n, seed=seed, **wanted).frames for n in range(len(COMBINATIONS))])


@cache
def captions(seed: int = 21) -> tuple[str, ...]:
    return tuple(synthetic_clip(n, seed=seed, frames=2, height=16, width=16).caption for n in range(len(COMBINATIONS)))


@cache
def classifier() -> NetworkExtractor:
    return default_classifier(CPU)


@cache
def encoder() -> DefaultEncoder:
    return default_encoder(CPU)


def noisy(deviation: float) -> Clips:
    noise = np.random.default_rng(0).normal(0, deviation, clips().shape)
    return np.clip(clips() + noise, 0, 255).astype(np.uint8)


def shuffled() -> Clips:
    return clips()[:, np.random.default_rng(0).permutation(16)]


def frozen() -> Clips:
    return np.repeat(clips()[:, 8:9], 16, axis=1)


def blurred() -> Clips:
    return np.asarray(clips().reshape(-1, 16, 8, 4, 8, 4, 3).mean(axis=(3, 5)).repeat(4, 2).repeat(4, 3), dtype=np.uint8)


def fvd(generated: Clips) -> float:
    return frechet_distance(classifier().features(clips(seed=22)), classifier().features(generated))


def inception(generated: Clips) -> float:
    return inception_score(classifier().log_probabilities(generated), splits=1)


def clip_score(generated: Clips) -> float:
    return float(similarities(encoder().clip_embeddings(generated), encoder().caption_embeddings(list(captions()))).mean())


def coherent(generated: Clips) -> float:
    return float(coherence(steadiness(encoder().frame_embeddings(generated)), motion(generated), motion(clips())).mean())


@pytest.mark.parametrize(
    ("metric", "sign"), [(fvd, -1), (inception, 1), (clip_score, 1), (coherent, 1)], ids=["FVD", "InceptionScore", "CLIPScore", "coherence"]
)
def test_more_noise_is_worse(metric: Callable[[Clips], float], sign: int) -> None:
    values = [sign * metric(generated) for generated in (clips(), noisy(30), noisy(60), noisy(120))]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 4


@pytest.mark.parametrize("broken", [shuffled, frozen, blurred])
@pytest.mark.parametrize(("metric", "sign"), [(fvd, -1), (inception, 1), (clip_score, 1)], ids=["FVD", "InceptionScore", "CLIPScore"])
def test_real_clips_beat_broken_ones(metric: Callable[[Clips], float], sign: int, broken: Callable[[], Clips]) -> None:
    assert sign * metric(clips()) > sign * metric(broken())


@pytest.mark.parametrize("broken", [shuffled, frozen])
def test_frames_out_of_order_and_frozen_clips_are_incoherent(broken: Callable[[], Clips]) -> None:
    assert coherent(clips()) > 0.9
    assert coherent(broken()) < 0.75


def test_captions_of_other_clips_fit_less() -> None:
    videos, texts = encoder().clip_embeddings(clips()), encoder().caption_embeddings(list(captions()))
    others = np.roll(texts, 1, axis=0)
    assert similarities(videos, texts).mean() > 0.8
    assert similarities(videos, others).mean() < 0.4


@pytest.mark.parametrize(
    ("caption", "attributes"),
    [("a red square moves up", 3), ("a red square moves down", 2), ("a red circle grows", 1), ("a blue circle grows", 0)],
)
def test_the_cosine_is_about_the_share_of_matching_attributes(caption: str, attributes: int) -> None:
    video = clips()[captions().index("a red square moves up")][None]
    cosine = similarities(encoder().clip_embeddings(video), encoder().caption_embeddings([caption]))[0]
    assert cosine == pytest.approx(attributes / 3, abs=0.25)


@pytest.mark.parametrize("size", [{"frames": 8}, {"frames": 40}, {"height": 64, "width": 64}, {"height": 16, "width": 16}], ids=str)
def test_clips_of_any_size_are_recognised(size: dict[str, int]) -> None:
    best = classifier().log_probabilities(clips(**size)).argmax(axis=1)
    order = [synthetic_clip(n, seed=21, frames=2, height=16, width=16) for n in range(len(COMBINATIONS))]
    right = np.mean([COMBINATIONS[found] == (made.shape, made.colour, made.motion) for found, made in zip(best, order, strict=True)])
    assert right > 0.7
    assert encoder().frame_embeddings(clips(**size)[:2]).shape == (2, size.get("frames", 16), 64)


def test_log_probabilities_are_of_108_classes_and_add_up_to_one() -> None:
    rows = classifier().log_probabilities(clips()[:5])
    assert rows.shape == (5, 108) and rows.dtype == np.float64
    np.testing.assert_allclose(np.exp(rows).sum(axis=1), 1.0, atol=1e-12)


@pytest.mark.parametrize(
    ("caption", "unknown"),
    [
        ("a red square moves right", False),
        ("Red!", False),
        ("people ride bicycles in a park", True),
        ("", True),
        ("a", True),
        ("एक लाल वर्ग", True),
    ],
)
def test_captions_without_a_known_word_are_told(caption: str, unknown: bool) -> None:
    assert encoder().unknown(caption) is unknown
    assert np.isfinite(encoder().caption_embeddings([caption])).all()


def test_committed_weights_have_their_recorded_sums_and_are_small() -> None:
    records = json.loads((WEIGHTS / "weights.json").read_text())
    assert set(records) == {"video-classifier", "text-video-encoder"}
    for name, record in records.items():
        assert sha256_of(WEIGHTS / f"{name}.safetensors") == record["sha256"]
        assert (WEIGHTS / f"{name}.safetensors").stat().st_size < 2_000_000


def test_a_trainer_without_its_default_networks_says_so(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"default extractor video-classifier: this trainer has no .*weights.json; build its image") as caught:
        default_classifier(CPU, tmp_path)
    assert caught.value.reason is Reason.EXTRACTOR_MISSING


def test_training_again_gives_the_same_weights() -> None:
    first, second, other = (train(steps=1, seed=seed) for seed in (0, 0, 1))
    for one, two in zip(first, second, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert not torch.equal(first[0].state_dict()["heads.0.weight"], other[0].state_dict()["heads.0.weight"])


def random_weights(network: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter, generator=generator)
        else:
            nn.init.constant_(parameter, 1.0 if name.endswith("bn.weight") else 0.0)
    return {name: tensor for name, tensor in network.state_dict().items() if not name.endswith("num_batches_tracked")}


def test_i3d_has_the_published_parameters() -> None:
    """12.7 million with 400 classes (12.3 M + batch norm's scale), 57 convolutions with batch norm and the logits."""
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in I3D().state_dict().items()}
    assert shapes["Conv3d_1a_7x7.conv3d.weight"] == (64, 3, 7, 7, 7)
    assert shapes["Mixed_3b.b1b.conv3d.weight"] == (128, 96, 3, 3, 3)
    assert shapes["Mixed_5c.b3b.bn.running_var"] == (128,)
    assert shapes["logits.conv3d.weight"] == (400, 1024, 1, 1, 1)
    assert sum(name.endswith("conv3d.weight") for name in shapes) == 58
    assert sum(int(np.prod(shape)) for name, shape in shapes.items() if "running" not in name and "tracked" not in name) == 12_697_264


def test_c3d_has_the_published_parameters() -> None:
    """78.4 million with 101 classes."""
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in C3D().state_dict().items()}
    assert shapes["conv5b.weight"] == (512, 512, 3, 3, 3)
    assert shapes["fc6.weight"] == (4096, 8192)
    assert shapes["fc8.bias"] == (101,)
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 78_409_573


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (224, 7, 2, (2, 3)),
        (16, 7, 2, (2, 3)),
        (112, 3, 2, (0, 1)),
        (7, 2, 2, (0, 1)),
        (56, 3, 1, (1, 1)),
        (5, 3, 2, (1, 1)),
        (8, 1, 1, (0, 0)),
    ],
)
def test_padding_is_tensorflows_same(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    padded = pad_same(torch.ones(1, 1, size, 1, 1), (kernel, 1, 1), (stride, 1, 1))
    ones = padded.flatten().tolist()
    assert (ones.index(1.0), ones[::-1].index(1.0)) == expected
    assert (len(ones) - kernel) // stride + 1 == -(-size // stride)


def test_an_inception_module_concatenates_its_four_branches() -> None:
    module = Mixed(8, (2, 3, 4, 2, 5, 6)).eval()
    maps = torch.randn(1, 8, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        out = module(maps)
        assert out.shape == (1, 2 + 4 + 5 + 6, 4, 6, 6)
        torch.testing.assert_close(out[:, :2], module.b0(maps))


def test_i3d_from_a_file(tmp_path: Path) -> None:
    save_file(random_weights(I3D(classes=7)), tmp_path / "i3d.safetensors")
    digest = sha256_of(tmp_path / "i3d.safetensors")
    own = Extractor(name="i3d-own", architecture=ExtractorArchitecture.I3D, path="i3d.safetensors", digest=f"sha256:{digest}")
    loaded = load([own], tmp_path, CPU).features
    assert [network.name for network in loaded] == ["video-classifier", "i3d-own"]
    assert loaded[1].digest == f"sha256:{digest}"
    features = loaded[1].features(np.stack([clips()[0, ::2], 255 - clips()[0, ::2]]))
    assert features.shape == (2, 7) and np.isfinite(features).all() and not np.allclose(features[0], features[1])


def test_c3d_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thirty-second of the published width, whose file has 312 MB."""
    narrow = C3D(5, width=2)
    save_file(random_weights(narrow), tmp_path / "c3d.safetensors")
    digest = sha256_of(tmp_path / "c3d.safetensors")
    monkeypatch.setattr(extractors, "C3D", lambda classes: C3D(classes, width=2))
    own = Extractor(name="c3d-own", architecture=ExtractorArchitecture.C3D, path="c3d.safetensors", digest=f"sha256:{digest}")
    rows = load([own], tmp_path, CPU).classifiers[1].log_probabilities(clips()[:2])
    expected = narrow.eval()(c3d_input(torch.from_numpy(clips()[:2]))).double().log_softmax(dim=1)
    np.testing.assert_allclose(rows, expected.detach().numpy(), rtol=1e-5)
    assert rows.shape == (2, 5)


def test_a_network_that_overflows_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = random_weights(C3D(5, width=2))
    save_file(weights | {name: weights[name] * 1e30 for name in ("fc6.weight", "fc7.weight")}, tmp_path / "c3d.safetensors")
    monkeypatch.setattr(extractors, "C3D", lambda classes: C3D(classes, width=2))
    digest = sha256_of(tmp_path / "c3d.safetensors")
    own = Extractor(name="c3d-own", architecture=ExtractorArchitecture.C3D, path="c3d.safetensors", digest=f"sha256:{digest}")
    with pytest.raises(Failure, match="feature network c3d-own: it gives values that are not finite") as failure:
        load([own], tmp_path, CPU).classifiers[1].outputs(clips()[:2])
    assert failure.value.reason is Reason.EXTRACTOR_MISSING


def test_a_clip_that_overflows_is_named(tmp_path: Path) -> None:
    clip_folder(tmp_path / "clip")
    weights = load_file(tmp_path / "clip/model.safetensors")
    save_file(weights | {"text_projection.weight": weights["text_projection.weight"] * 3e38}, tmp_path / "clip/model.safetensors")
    with pytest.raises(Failure, match="feature network clip-own: it gives values that are not finite"):
        load([own_clip(clip_sha256(tmp_path / "clip"))], tmp_path, CPU).encoders[1].caption_embeddings(["a red square"])


def test_inputs_are_scaled_as_the_published_networks_want_them() -> None:
    white_red = np.zeros((1, 4, 20, 30, 3), np.uint8)
    white_red[..., 0] = 255
    i3d, c3d = i3d_input(torch.from_numpy(white_red)), c3d_input(torch.from_numpy(white_red))
    assert i3d.shape == (1, 3, 16, 224, 224) and c3d.shape == (1, 3, 16, 112, 112)
    np.testing.assert_allclose(i3d[0, :, 0, 5, 5], [1, -1, -1], atol=1e-4)
    np.testing.assert_allclose(c3d[0, :, 0, 5, 5], [-90, -98, 255 - 102], atol=1e-3)


def test_clip_from_a_folder(tmp_path: Path) -> None:
    loaded = load([own_clip(clip_folder(tmp_path / "clip"))], tmp_path, CPU).encoders[1]
    texts = loaded.caption_embeddings(["a red square", "a blue circle that is cut off after the twelfth token"])
    frames = loaded.frame_embeddings(clips(height=48, width=64)[:3])
    assert texts.shape == (2, 24) and frames.shape == (3, 16, 24)
    assert not np.allclose(texts[0], texts[1]) and not np.allclose(frames[0, 0], frames[1, 0])
    np.testing.assert_array_equal(loaded.clip_embeddings(clips()[:1]), loaded.frame_embeddings(clips()[:1]))
    np.testing.assert_allclose(loaded.caption_embeddings(["a red square"])[0], texts[0], atol=1e-5)


def dropped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name != "conv2.bias"}


def added(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {"module.extra": torch.zeros(3)}


def reshaped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {"fc7.bias": torch.zeros(3)}


def no_numbers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {"fc7.bias": torch.full_like(tensors["fc7.bias"], torch.nan)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(dropped, "lacks conv2.bias", id="a tensor is missing"),
        pytest.param(added, "has an unknown tensor module.extra", id="one tensor too many"),
        pytest.param(reshaped, "has fc7.bias of shape \\[3\\], expected \\[128\\]", id="a tensor of another shape"),
        pytest.param(no_numbers, "has values in fc7.bias that are not finite", id="a tensor of no numbers"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], words: str) -> None:
    path = tmp_path / "c3d.safetensors"
    save_file(change(random_weights(C3D(5, width=2))), path)
    with pytest.raises(Failure, match=f"extractors\\[mine\\].*c3d.safetensors is no C3D.*{words}") as failure:
        load_weights(C3D(5, width=2), path, sha256_of(path), "evaluate.extractors[mine]")
    assert failure.value.reason is Reason.EXTRACTOR_MISSING


def pickled(folder: Path) -> None:
    """What torch.save would have written is refused, not unpickled."""
    (folder / "weights").write_bytes(b"\x80\x04\x95" + bytes(200))


def absent(folder: Path) -> None:
    pass


def other_network(folder: Path) -> None:
    save_file({"fc.weight": torch.zeros(2, 2)}, folder / "weights")


@pytest.mark.parametrize("architecture", [ExtractorArchitecture.I3D, ExtractorArchitecture.C3D])
@pytest.mark.parametrize(
    ("prepare", "right_digest", "words"),
    [
        pytest.param(absent, True, "there is no file .*weights", id="no file"),
        pytest.param(other_network, False, "weights has the digest sha256:.*expected sha256:0000", id="another digest"),
        pytest.param(pickled, True, "weights has no tensor", id="no safetensors"),
        pytest.param(other_network, True, "weights has no tensor", id="another network's file"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    tmp_path: Path, architecture: ExtractorArchitecture, prepare: Callable[[Path], None], right_digest: bool, words: str
) -> None:
    prepare(tmp_path)
    path = tmp_path / "weights"
    digest = sha256_of(path) if right_digest and path.exists() else "0" * 64
    with pytest.raises(Failure, match=words) as failure:
        load([Extractor(name="mine", architecture=architecture, path="weights", digest=f"sha256:{digest}")], tmp_path, CPU)
    assert failure.value.reason is Reason.EXTRACTOR_MISSING
    assert "evaluate.extractors[mine]" in failure.value.message


@pytest.mark.parametrize(("lacking", "extra"), [("visual_projection.weight", None), (None, "visual_projection.bias")], ids=str)
def test_clip_weights_that_do_not_fit_are_named(tmp_path: Path, lacking: str | None, extra: str | None) -> None:
    """transformers itself would go on with random numbers."""
    clip_folder(tmp_path / "clip")
    path = tmp_path / "clip/model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(path).items() if name != lacking}
    save_file(tensors | ({extra: torch.zeros(24)} if extra else {}), path, metadata={"format": "pt"})
    with pytest.raises(Failure, match=rf"extractors\[clip-own\].*missing or unknown: {lacking or extra}"):
        load([own_clip(clip_sha256(tmp_path / "clip"))], tmp_path, CPU)


@pytest.mark.parametrize("shape", [(), (0,), (5, 1)], ids=["a scalar", "no class", "a matrix"])
def test_a_bias_that_counts_no_classes_is_named(tmp_path: Path, shape: tuple[int, ...]) -> None:
    save_file({"logits.conv3d.bias": torch.zeros(shape)}, tmp_path / "i3d")
    own = Extractor(name="mine", architecture=ExtractorArchitecture.I3D, path="i3d", digest="sha256:" + sha256_of(tmp_path / "i3d"))
    with pytest.raises(
        Failure, match=rf"extractors\[mine\]: .*i3d has logits.conv3d.bias of shape {re.escape(str(list(shape)))}"
    ) as failure:
        load([own], tmp_path, CPU)
    assert failure.value.reason is Reason.EXTRACTOR_MISSING


def with_words(**words: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        known = json.loads((folder / "vocab.json").read_text())
        (folder / "vocab.json").write_text(json.dumps(known | {word.replace("_end", "</w>"): number for word, number in words.items()}))

    return write


def with_file(name: str, content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return write


def without_words(folder: Path) -> None:
    (folder / "vocab.json").unlink()
    (folder / "merges.txt").unlink()


def with_text_config(**fields: object) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"text_config": config["text_config"] | fields}))

    return write


def with_nan(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["visual_projection.weight"][0, 0] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(with_nan, "values in visual_projection.weight that are not finite", id="weights that are no numbers"),
        pytest.param(with_file("vocab.json", b"{}"), "not found in the vocabulary", id="an empty vocabulary"),
        pytest.param(with_file("vocab.json", b'{"a": 1, "b'), "EOF while parsing", id="half a vocabulary"),
        pytest.param(with_file("merges.txt", b"\xff\xfe\x00 garbage"), "valid UTF-8", id="merges that are no text"),
        pytest.param(without_words, "two captions have the same embedding", id="no vocabulary"),
        pytest.param(with_words(a_end=10**6), "words up to 1000000, the text model knows 54", id="another model's vocabulary"),
        pytest.param(with_text_config(eos_token_id=9999), "eos_token_id is not its own", id="another model's end of text"),
        pytest.param(with_text_config(num_attention_heads=3), "not a multiple of the number of attention heads", id="a bad config"),
    ],
)
def test_a_clip_folder_that_transformers_would_take_or_stumble_over_is_named(
    tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    clip_folder(tmp_path / "clip")
    damage(tmp_path / "clip")
    with pytest.raises(Failure, match=rf"extractors\[clip-own\]: .*/clip is no complete CLIP model \((?s:.*){words}") as failure:
        load([own_clip(clip_sha256(tmp_path / "clip"))], tmp_path, CPU)
    assert failure.value.reason is Reason.EXTRACTOR_MISSING


def test_memory_that_does_not_suffice_for_a_clip_is_not_put_down_to_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = clip_folder(tmp_path / "clip")
    monkeypatch.setattr(Clip, "_check", lambda _: torch.empty(2**60, dtype=torch.uint8))
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        load([own_clip(digest)], tmp_path, CPU)


def other_specials(folder: Path) -> None:
    (folder / "special_tokens_map.json").write_text(json.dumps({"unk_token": "a</w>"}))


def swapped_words(folder: Path) -> None:
    words = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(words | {"a</w>": words["b</w>"], "b</w>": words["a</w>"]}))


def other_merges(folder: Path) -> None:
    (folder / "merges.txt").write_text("#version: 0.2\na b</w>\n")


def other_activation(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["hidden_act"] = "gelu"
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("change", [other_specials, swapped_words, other_merges, other_activation])
def test_another_tokenizer_or_config_is_another_network(tmp_path: Path, change: Callable[[Path], None]) -> None:
    digest = clip_folder(tmp_path / "clip")
    weights = sha256_of(tmp_path / "clip/model.safetensors")
    change(tmp_path / "clip")
    assert sha256_of(tmp_path / "clip/model.safetensors") == weights
    with pytest.raises(
        Failure, match=rf"extractors\[clip-own\]: .*/clip has the digest sha256:{clip_sha256(tmp_path / 'clip')} over its .*{digest}"
    ):
        load([own_clip(digest)], tmp_path, CPU)


def test_what_a_clip_folder_has_beside_its_model_does_not_count(tmp_path: Path) -> None:
    digest = clip_folder(tmp_path / "clip")
    (tmp_path / "clip/README.md").write_text("A model card.")
    (tmp_path / "clip/._config.json").write_text("what an archive of macOS leaves")
    (tmp_path / "clip/pytorch_model.bin").write_bytes(b"a pickle that nobody reads")
    assert load([own_clip(digest)], tmp_path, CPU).encoders[1].digest == f"sha256:{digest}"


def test_the_documented_command_prints_a_clip_folders_sum(tmp_path: Path) -> None:
    digest = clip_folder(tmp_path / "clip")
    (tmp_path / "clip/README.md").write_text("A model card.")
    said = Extractor.model_fields["digest"].description or ""
    command = said[said.index("ls |") :]
    assert " ".join(command.split()) in " ".join((Path(__file__).parents[3] / "docs/datasets.md").read_text().split())
    printed = subprocess.run(["bash", "-c", command], cwd=tmp_path / "clip", check=True, capture_output=True, text=True).stdout
    assert printed == f"{digest}  -\n"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_an_incomplete_clip_folder_is_named(tmp_path: Path, name: str) -> None:
    clip_folder(tmp_path / "clip")
    (tmp_path / "clip" / name).unlink()
    digest = clip_sha256(tmp_path / "clip")
    with pytest.raises(Failure, match=r"extractors\[clip-own\].*/clip") as failure:
        load([own_clip(digest)], tmp_path, CPU)
    assert failure.value.reason is Reason.EXTRACTOR_MISSING
