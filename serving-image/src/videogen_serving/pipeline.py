"""One release's model in memory: prompt and seed in, mp4 and metadata out. Knows nothing of Triton.

On the CPU the same prompt, seed and steps give the same bytes; on a GPU the same noise, and pixels up to the kernels'
rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from videogen_api.bundle import Manifest
from videogen_models.bundle import read_model, verify_bundle
from videogen_models.video import encode_mp4
from videogen_models.video_model import VideoModel
from videogen_serving.request import (
    AnsweredTemplate,
    GenerationCancelledError,
    GenerationTimeoutError,
    Metadata,
    Request,
    Result,
    check_request,
)
from videogen_serving.settings import Settings
from videogen_serving.templates import StoredVideos, read_templates


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A loaded model and the release's settings; `clock` tells seconds, `new_seed` draws one for requests without."""

    settings: Settings
    manifest: Manifest
    model: VideoModel
    clock: Callable[[], float]
    new_seed: Callable[[], int]
    templates: StoredVideos = field(default_factory=lambda: StoredVideos({}))

    @classmethod
    def load(cls, settings: Settings, *, clock: Callable[[], float], new_seed: Callable[[], int]) -> Pipeline:
        """Load the model of a bundle, to the GPU if there is one. Raises ValueError for a wrong bundle.

        The bundle must be a copy that nobody else writes to; it is verified once more.
        """
        device = "cuda" if torch.cuda.is_available() else "cpu"
        manifest = verify_bundle(settings.bundle_path, settings.bundle_digest)
        model = read_model(settings.bundle_path).eval().requires_grad_(False).to(device)
        templates = read_templates(settings.bundle_path)
        return cls(settings=settings, manifest=manifest, model=model, clock=clock, new_seed=new_seed, templates=templates)

    def warm_up(self) -> None:
        """One generation of one step: proves that the model runs, and the first user does not wait for it to warm up."""
        self.generate(Request(prompt="warm-up", seed=0, steps=1))

    def generate(self, request: Request, is_cancelled: Callable[[], bool] = lambda: False) -> Result:
        """One video.

        Raises InvalidRequestError before any work, GenerationTimeoutError after TIMEOUT_SECONDS and
        GenerationCancelledError once `is_cancelled` says so; both are looked at before every denoising step.
        """
        check_request(request, self.settings.most_steps)
        if request.template is not None:
            return self._stored(request.template, request.variation)
        started = self.clock()
        seed = self.new_seed() if request.seed is None else request.seed
        steps = request.steps or self.settings.sampling_steps

        def on_step(done: int, total: int) -> None:
            self._stop_if_late(self.clock() - started, done, total)
            if is_cancelled():
                raise GenerationCancelledError(f"the client left after {done} of {total} denoising steps")

        frames = self.model.generate([request.prompt], [seed], steps, on_step)[0]
        video = encode_mp4(frames, self.model.config.frame_rate)
        return Result(video=video, metadata=self._metadata(request.prompt, seed, steps, self.clock() - started))

    def _stored(self, category: str, variation: int | None) -> Result:
        """A video of the bundle, at once."""
        started = self.clock()
        found = self.templates.find(category, variation, self.new_seed() if variation is None else 0)
        template = found.template
        metadata = Metadata(
            release=self.settings.release,
            model=self.manifest.model,
            bundle_digest=self.settings.bundle_digest,
            prompt=template.prompt,
            seed=template.seed,
            steps=template.steps,
            frames=template.frames,
            frame_rate=template.frame_rate,
            resolution=template.resolution,
            seconds=round(self.clock() - started, 3),
            template=AnsweredTemplate(
                category=template.category, urgency=template.urgency, variation=template.variation, caption=template.caption
            ),
        )
        return Result(video=found.video, metadata=metadata)

    def _stop_if_late(self, seconds: float, done: int, total: int) -> None:
        if seconds > self.settings.timeout_seconds:
            raise GenerationTimeoutError(
                f"the generation took {seconds:.1f} s for {done} of {total} denoising steps, the release allows"
                f" {self.settings.timeout_seconds} s; ask for fewer STEPS, or raise spec.serving.timeoutSeconds"
            )

    def _metadata(self, prompt: str, seed: int, steps: int, seconds: float) -> Metadata:
        return Metadata(
            release=self.settings.release,
            model=self.manifest.model,
            bundle_digest=self.settings.bundle_digest,
            prompt=prompt,
            seed=seed,
            steps=steps,
            frames=self.model.config.frames,
            frame_rate=self.model.config.frame_rate,
            resolution=self.model.config.resolution,
            seconds=round(seconds, 3),
        )
