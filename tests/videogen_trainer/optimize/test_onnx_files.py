"""ONNX of every network of every family, checked with ONNX Runtime; and what is said when that is not possible."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from videogen_api.optimization import ExportFormat
from videogen_api.recipe import Recipe, Resolution
from videogen_api.training_run import Reason
from videogen_models.align_your_latents import PRESETS as TEMPORAL
from videogen_models.autoencoder import latent_size
from videogen_models.image_backbone import BackboneSize, build_backbone
from videogen_models.latent_video import AlignYourLatentsModel, align_your_latents_config
from videogen_models.networks import GeneratorSize, ModelConfig, Preset
from videogen_models.temporal_layers import TemporalSize
from videogen_models.text import TextSize
from videogen_models.text2video_zero import Text2VideoZeroModel, text2video_zero_config
from videogen_models.video_model import VideoModel
from videogen_models.videofusion import VideoFusionModel
from videogen_trainer.failure import Failure
from videogen_trainer.optimize import onnx_files, tensorrt_plans
from videogen_trainer.optimize.networks import Network, networks_of
from videogen_trainer.optimize.onnx_files import export_network, largest_difference

TEXT = TextSize(vocabulary=32, length=5, width=16, layers=1, heads=2)
SIDE = Resolution(height=16, width=24)
FRAMES = 3


def recipe_of(**blocks: object) -> Recipe:
    content = {"architecture": "Tiny", "frames": FRAMES, "resolution": SIDE.wire(), "globalBatchSize": 1, "steps": 1}
    return Recipe.model_validate(content | blocks)


def backbone_size(*widths: int, attention: list[bool] | None = None) -> BackboneSize:
    """Of few layers, without attention but in the innermost block: exporting takes as long as there are any, however small they are."""
    attends = attention or [False] * len(widths)
    return BackboneSize(
        widths=list(widths), attention=attends, layers=1, heads=2, groups=4, autoencoder=[8, 8], autoencoder_layers=1, text=TEXT
    )


def videofusion() -> VideoModel:
    base = GeneratorSize(patch=2, widths=[8], attention=[False], layers=1, head_width=8, groups=4)
    residual = base.model_copy(update={"widths": [8, 16], "attention": [False, False]})
    networks = Preset(text=TEXT, base=base, residual=residual, target="Frame")
    return VideoFusionModel(ModelConfig(frames=FRAMES, resolution=SIDE, frame_rate=8, base_noise_share=0.7, networks=networks))


def align_your_latents() -> VideoModel:
    config = align_your_latents_config(recipe_of(alignYourLatents={"contextFrames": 1}))
    temporal = TemporalSize(head_width=8, groups=4, context_width=8)
    assert temporal.head_width < TEMPORAL[recipe_of().architecture].head_width
    model = AlignYourLatentsModel(build_backbone(backbone_size(8), SIDE), config.model_copy(update={"temporal": temporal}))
    for parameter in model.video.temporal.parameters():  # the last ones are zeros when new, and would hide what is before them
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return model


def text2video_zero() -> VideoModel:
    backbone = build_backbone(backbone_size(8, 16, attention=[False, True]), SIDE)
    return Text2VideoZeroModel(backbone, text2video_zero_config(recipe_of()))


def latent_videofusion() -> VideoModel:
    model = videofusion()
    assert isinstance(model, VideoFusionModel)
    vae = build_backbone(backbone_size(8), SIDE).vae
    return VideoFusionModel(model.config.model_copy(update={"latent": latent_size(vae, SIDE)}), vae)


def whole_align_your_latents() -> VideoModel:
    model = align_your_latents()
    assert isinstance(model, AlignYourLatentsModel)
    model.interpolate_by(model.video.temporal, 1)
    model.decode_by_time(model.config.temporal)
    for parameter in (*model.between.parameters(), *model.decoder.temporal.parameters()):  # type: ignore[union-attr]
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return model


FAMILIES = {"VideoFusion": videofusion, "AlignYourLatents": align_your_latents, "Text2VideoZero": text2video_zero}
FAMILIES |= {"VideoFusion in latents": latent_videofusion, "AlignYourLatents, interpolating": whole_align_your_latents}
NAMES = {
    "VideoFusion": ["text-encoder", "base-generator", "residual-generator"],
    "AlignYourLatents": ["text-encoder", "image-unet", "video-unet", "decoder"],
    "Text2VideoZero": ["text-encoder", "image-unet", "video-unet", "decoder"],
    "VideoFusion in latents": ["text-encoder", "base-generator", "residual-generator", "decoder"],
    "AlignYourLatents, interpolating": ["text-encoder", "image-unet", "video-unet", "interpolation-unet", "decoder"],
}
# The image model's networks are the same in both of its families; VideoFusion's other two are exported in test_task.py. Exports are slow, so
# networks that are a part of another are not here: AlignYourLatents' video-unet is its interpolation-unet but for the rate, and image-unet
# is Text2VideoZero's video-unet but for attention to the first frame; `make stories` has the latter.
CASES = [
    ("VideoFusion", "residual-generator"),
    ("AlignYourLatents, interpolating", "interpolation-unet"),
    ("AlignYourLatents, interpolating", "decoder"),
    ("Text2VideoZero", "text-encoder"),
    ("Text2VideoZero", "video-unet"),
    ("Text2VideoZero", "decoder"),
]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def network_of(family: str, name: str) -> Network:
    model = FAMILIES[family]().eval().requires_grad_(False)
    return next(network for network in networks_of(model) if network.name == name)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_network_of_a_generation_is_exported(family: str) -> None:
    assert [network.name for network in networks_of(FAMILIES[family]().eval())] == NAMES[family]


def test_an_image_model_that_draws_no_frame_alone_is_not_exported() -> None:
    model = AlignYourLatentsModel(build_backbone(backbone_size(8), SIDE), align_your_latents_config(recipe_of()).model_copy(
        update={"temporal": TemporalSize(head_width=8, groups=4, context_width=8)}
    ))  # fmt: skip
    assert "image-unet" not in [network.name for network in networks_of(model)]


@pytest.mark.parametrize("family, name", CASES)
def test_onnx_runtime_computes_what_pytorch_computes(
    tmp_path: Path, family: str, name: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """For other numbers of clips than that of the export; and nothing but one line reaches the log."""
    network = network_of(family, name)
    with caplog.at_level(logging.INFO):
        export = export_network(network, tmp_path, 1e-4)
    assert (export.network, export.format) == (name, ExportFormat.ONNX)
    assert float(export.maximum_difference or "nan") < 1e-4
    written = onnx.load(tmp_path / f"{name}.onnx", load_external_data=False)
    assert [one.name for one in written.graph.input] == list(network.draw(1))
    assert [one.name for one in written.graph.output] == [network.output]
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO] == [
        f"onnx/{name}.onnx: opset 20, differs from PyTorch by at most {float(export.maximum_difference or 'nan'):.2e}"
    ]
    assert capfd.readouterr() == ("", "")


class Doubling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((4,), 2.0), requires_grad=False)

    def forward(self, numbers: Tensor) -> Tensor:
        return numbers * self.factor


class Deciding(nn.Module):
    """Which way it goes depends on the numbers: no graph can say that."""

    def forward(self, numbers: Tensor) -> Tensor:
        return numbers if numbers.sum() > 0 else -numbers


class Hiding(nn.Module):
    """Computes something else than what the exporter sees of it."""

    def forward(self, numbers: Tensor) -> Tensor:
        return numbers + (0.0 if torch.compiler.is_exporting() else 0.5)


def of(module: nn.Module, name: str = "doubling") -> Network:
    return Network(name=name, module=module.eval(), draw=lambda clips: {"numbers": torch.randn(clips, 4)}, output="result")


def test_a_difference_above_the_tolerance_ends_with_the_network_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"onnxTolerance is 0.1, and ONNX Runtime's hiding differs from PyTorch's by 5.00e-01") as caught:
        export_network(of(Hiding(), "hiding"), tmp_path, 0.1)
    assert caught.value.reason is Reason.EXPORT_FAILED
    assert export_network(of(Hiding(), "hiding"), tmp_path, 0.51).maximum_difference == "0.500000"


def test_an_output_that_is_no_number_is_as_different_as_can_be(tmp_path: Path) -> None:
    network = of(Doubling())
    export_network(network, tmp_path, 1e-6)
    network.module.factor.fill_(float("nan"))  # type: ignore[union-attr, operator]
    assert largest_difference(network, tmp_path / "doubling.onnx") == float("inf")


def test_a_network_that_cannot_be_exported_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"the network deciding cannot be written as ONNX: [A-Za-z.]+: .+") as caught:
        export_network(of(Deciding(), "deciding"), tmp_path, 1e-3)
    assert caught.value.reason is Reason.EXPORT_FAILED
    assert "\n" not in caught.value.message


def test_what_an_earlier_attempt_exported_is_not_exported_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = export_network(of(Doubling()), tmp_path, 1e-6)
    written: list[Path] = []
    original = onnx_files.write_onnx
    monkeypatch.setattr(onnx_files, "write_onnx", lambda network, path: (written.append(path), original(network, path)))
    assert export_network(of(Doubling()), tmp_path, 1e-6) == first
    assert written == []
    file = tmp_path / "doubling.onnx"
    file.write_bytes(file.read_bytes()[:-1])
    assert export_network(of(Doubling()), tmp_path, 1e-6) == first
    assert written == [file]


def test_a_kept_export_is_judged_by_the_tolerance_again(tmp_path: Path) -> None:
    export_network(of(Hiding(), "hiding"), tmp_path, 1.0)
    with pytest.raises(Failure, match="hiding differs"):
        export_network(of(Hiding(), "hiding"), tmp_path, 0.1)


def test_weights_that_one_file_cannot_hold_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_files, "EXTERNAL_BYTES", 1000)
    wide = nn.Linear(4, 400).requires_grad_(False)
    export_network(of(wide, "wide"), tmp_path, 1e-5)
    path = tmp_path / "wide.onnx"
    assert [one.name for one in onnx_files.onnx_names(path)] == ["wide.onnx", "wide.onnx.data"]
    assert path.stat().st_size < 4000 < (tmp_path / "wide.onnx.data").stat().st_size
    assert largest_difference(of(wide, "wide"), path) < 1e-5
    (tmp_path / "wide.onnx.data").write_bytes(bytes((tmp_path / "wide.onnx.data").stat().st_size))
    assert largest_difference(of(wide, "wide"), path) > 0.01


@pytest.mark.parametrize(
    "gpu, lacking", [(False, "an NVIDIA GPU (set nvidia.com/gpu in resources.limits)"), (True, "the package tensorrt (add it to")]
)
def test_what_tensorrt_lacks_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch, gpu: bool, lacking: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Failure) as caught:
        tensorrt_plans.require()
    assert caught.value.reason is Reason.TENSORRT_UNAVAILABLE
    assert lacking in caught.value.message
    assert ("NVIDIA GPU" in caught.value.message) is not gpu
    assert caught.value.message.endswith("or leave TensorRT out of optimize.formats")
