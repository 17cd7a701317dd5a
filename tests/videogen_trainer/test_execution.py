"""Compiled networks and recomputed activations: the same names, losses and gradients; another way to get there."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from diffusers import UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from videogen_api.job import Job, Report
from videogen_api.recipe import Architecture, Recipe, Resolution
from videogen_api.training_run import Reason
from videogen_models.align_your_latents import PRESETS, VideoUNet
from videogen_models.image_backbone import PRESETS as IMAGE_PRESETS
from videogen_models.image_backbone import build_backbone
from videogen_models.networks import PRESETS as GENERATOR_PRESETS
from videogen_models.networks import model_config
from videogen_models.videofusion import VideoFusionModel
from videogen_testing import attempted
from videogen_testing.stopping import StopAfter
from videogen_trainer import tasks
from videogen_trainer.averaging import GradientAverage
from videogen_trainer.data import Batch
from videogen_trainer.distributed import World
from videogen_trainer.execution import outermost, prepare, recompute_activations
from videogen_trainer.failure import Failure
from videogen_trainer.families import Learner, learner_of
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.state import is_same_recipe

FAMILIES = ["VideoFusion", "AlignYourLatents", "Text2VideoZero"]
CPU = torch.device("cpu")
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),  # Dynamo looks at it
]


@pytest.fixture
def learner(make_job: Callable[..., Job], storage: Path) -> Callable[..., Learner]:
    """A learner of a family whose networks run as the recipe says."""

    def make(family: str, recipe: dict[str, Any] | None = None) -> Learner:
        job = make_job({"videoFusion": None, **(recipe or {})}, model={"family": family, "version": "1.0.0"})
        found = learner_of(job, storage, World())
        prepare(found.objective, job.recipe, CPU)
        return found

    return make


def losses(learner: Learner) -> Tensor:
    frames = torch.randint(0, 255, (2, 4, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(9))
    batch = Batch(frames=frames, captions=["a square", "a disc"], positions=range(2))
    found: Tensor = learner.objective(*learner.prepare(batch))
    return found


def learnt(learner: Learner) -> tuple[list[float], dict[str, Tensor]]:
    """Losses and gradients of a pass."""
    found = losses(learner)
    found.sum().backward()
    gradients = {name: parameter.grad for name, parameter in learner.learned().items() if parameter.grad is not None}
    assert gradients.keys() == learner.learned().keys()
    return found.tolist(), gradients


def assert_same(one: tuple[list[float], dict[str, Tensor]], other: tuple[list[float], dict[str, Tensor]]) -> None:
    """To rounding."""
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    largest = max(float(gradient.abs().max()) for gradient in one[1].values())
    assert largest > 0
    assert [name for name in one[1] if (one[1][name] - other[1][name]).abs().max() > 1e-4 * largest] == []


def counted(learner: Learner) -> list[str]:
    """Gets the name of every residual block that is computed, each time."""
    calls = list[str]()
    for name, block in learner.objective.named_modules():
        if isinstance(block, ResnetBlock2D):
            block.register_forward_pre_hook(lambda _module, _inputs, name=name: calls.append(name))
    return calls


@pytest.mark.parametrize("family", FAMILIES)
def test_activations_that_are_computed_again_give_the_same_gradients(learner: Callable[..., Learner], family: str) -> None:
    keeping, saving = learner(family), learner(family, {"gradientCheckpointing": True})
    once, twice = counted(keeping), counted(saving)
    assert_same(learnt(keeping), learnt(saving))
    assert len(once) > 0
    again = Counter(twice) - Counter(once)
    assert set(again.values()) == {1}
    assert len(again) > 0.7 * len(once)  # diffusers keeps the first of the innermost block


def test_an_architecture_that_saves_memory_can_be_told_not_to() -> None:
    recipe = Recipe(architecture=Architecture.PAPER, frames=4, resolution=Resolution(height=16, width=16), global_batch_size=1, steps=1)
    tiny = model_config(recipe.model_copy(update={"architecture": Architecture.TINY}))
    size = tiny.networks.base.model_copy(update={"checkpointing": model_config(recipe).networks.base.checkpointing})
    fusion = VideoFusionModel(tiny.model_copy(update={"networks": tiny.networks.model_copy(update={"base": size})}))
    backbone = build_backbone(IMAGE_PRESETS[Architecture.TINY], Resolution(height=16, width=16))
    temporal = PRESETS[Architecture.TINY].model_copy(update={"checkpointing": PRESETS[Architecture.PAPER].checkpointing})
    video = VideoUNet(backbone.unet, temporal)
    assert (fusion.base.unet.is_gradient_checkpointing, video.checkpointing) == (True, True)
    for module in (fusion, video):
        recompute_activations(module, on=False)
    assert (fusion.base.unet.is_gradient_checkpointing, video.checkpointing) == (False, False)


@pytest.fixture
def few_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny with fewer layers, each of which takes its time to compile however small it is; VideoFusion's base has two levels."""
    tiny = Architecture.TINY
    image, generators = IMAGE_PRESETS[tiny], GENERATOR_PRESETS[tiny]
    text = {"text": image.text.model_copy(update={"layers": 1})}
    residual = generators.residual.model_copy(update={"widths": [32], "attention": [False]})
    monkeypatch.setitem(IMAGE_PRESETS, tiny, image.model_copy(update={"widths": [32], "attention": [True], **text}))
    monkeypatch.setitem(GENERATOR_PRESETS, tiny, generators.model_copy(update={"residual": residual, **text}))


@pytest.fixture
def without_code(few_layers: None) -> Iterator[None]:
    """All of torch.compile but the last step, which writes C++ and takes a minute for these networks."""
    with torch.compiler.set_stance(force_backend="aot_eager"):
        yield
    torch.compiler.reset()


NETWORKS = {
    "VideoFusion": ["text.transformer", "base.unet", "residual.unet"],
    "AlignYourLatents": ["video"],
    "Text2VideoZero": ["backbone.unet", "backbone.text"],
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("without_code")
def test_compiled_networks_have_the_same_names_losses_and_gradients(learner: Callable[..., Learner], family: str) -> None:
    plain, compiled = learner(family), learner(family, {"compile": True})
    names = {module: name for name, module in compiled.model.named_modules()}
    assert [names[network] for network in outermost(compiled.objective)] == NETWORKS[family]
    assert list(compiled.model.state_dict()) == list(plain.model.state_dict())
    assert list(compiled.learned()) == list(plain.learned())
    torch._dynamo.utils.counters.clear()
    assert_same(learnt(plain), learnt(compiled))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= len(NETWORKS[family])
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.usefixtures("without_code")
def test_compiled_networks_send_their_gradients_also_where_activations_are_recomputed(learner: Callable[..., Learner]) -> None:
    plain, compiled = learner("Text2VideoZero"), learner("Text2VideoZero", {"compile": True, "gradientCheckpointing": True})
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        average = GradientAverage(compiled.objective.parameters(), 1)
        average.begin()
        found = learnt(compiled)
        assert average.finish()
        assert_same(learnt(plain), found)
    finally:
        dist.destroy_process_group()


class Prediction(nn.Module):
    """A U-Net of one level with one residual block, whose code is written in seconds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=2,
            out_channels=2,
            block_out_channels=(8,),
            layers_per_block=0,  # and one more on the way up
            down_block_types=("DownBlock2D",),
            mid_block_type=None,
            up_block_types=("UpBlock2D",),
            cross_attention_dim=8,
            norm_num_groups=2,
        )

    def forward(self, noisy: Tensor) -> Tensor:
        found: Tensor = self.unet(noisy, torch.tensor([3, 500]), torch.zeros(2, 1, 8)).sample
        return found.square().mean()


def test_code_that_is_really_written_computes_what_the_networks_do(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # what an earlier run wrote is not written again
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # g++ by this process: others would import torch first
    monkeypatch.setattr("torch._inductor.config.cpp.vec_isa_ok", True)  # the processor's word for it, without a program for each set
    plain, compiled = Prediction(), Prediction()
    prepare(compiled, make_job({"compile": True}).recipe, CPU)
    noisy = torch.randn(2, 2, 8, 8)
    torch._dynamo.utils.counters.clear()
    found, expected = compiled(noisy), plain(noisy)
    for loss in (found, expected):
        loss.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    gradients = ({name: one.grad for name, one in module.named_parameters()} for module in (compiled, plain))
    for (name, one), (its, other) in zip(*(found.items() for found in gradients), strict=True):
        assert name == its
        assert one is not None and other is not None
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)
    assert torch._dynamo.utils.counters["inductor"]
    torch.compiler.reset()


@pytest.mark.usefixtures("without_code")
def test_a_phase_goes_on_with_or_without_compiled_networks_and_kept_activations(
    make_job: Callable[..., Job], storage: Path, silent: ProgressReporter
) -> None:
    def train(recipe: dict[str, Any], count: int = 0) -> Report:
        return tasks.attempt(make_job(recipe), storage, {}, silent, StopAfter(count) if count else lambda: False)

    samples = {"everySteps": 2, "prompts": ["a square"], "samplingSteps": 1}
    assert train({"samples": samples}).reason is Reason.COMPLETED
    plain = attempted.losses(storage)
    shutil.rmtree(storage / "runs")
    stopped = train({"samples": samples, "compile": True}, 3)
    assert (stopped.reason, stopped.last_step) == (Reason.PREEMPTED, 3), stopped.message
    resumed = train({"samples": samples, "gradientCheckpointing": True})
    assert (resumed.reason, resumed.resumed_from_step) == (Reason.COMPLETED, 3), resumed.message
    assert attempted.losses(storage) == pytest.approx(plain, rel=1e-4)


def test_how_a_recipe_is_computed_is_not_what_it_is(make_job: Callable[..., Job]) -> None:
    saved = make_job().recipe.wire()
    for how in ({"compile": True}, {"gradientCheckpointing": True}, {"gradientCheckpointing": False}, {"sharding": "Full"}):
        assert is_same_recipe(saved, make_job(how).recipe)
    assert not is_same_recipe(saved, make_job({"loss": {"snrGamma": "5"}}).recipe)


def test_without_a_compiler_the_recipe_is_refused_in_one_sentence(
    make_job: Callable[..., Job], storage: Path, silent: ProgressReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", (None, "no-such-compiler"))
    report = tasks.attempt(make_job({"compile": True}), storage, {}, silent, lambda: False)
    assert report.reason is Reason.INVALID_JOB
    assert report.message.startswith("recipe.compile is true, and this image has no C++ compiler")
    assert "no-such-compiler" in report.message


def test_a_failure_names_the_compilers_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", lambda: "g++")
    with pytest.raises(Failure, match="found none of cc, gcc, clang"):
        prepare(
            nn.Identity(),
            Recipe(resolution=Resolution(height=16, width=16), global_batch_size=1, steps=1, compile=True),
            torch.device("cuda"),
        )
