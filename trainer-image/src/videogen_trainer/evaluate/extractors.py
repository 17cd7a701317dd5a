"""Feature networks behind the metrics: the default ones of the package and the user's own, each verified by its SHA-256.

Weights are safetensors; nothing is unpickled and nothing is downloaded. Every extractor takes clips uint8 [N, F, H, W, 3]
(RGB) of any size and length and gives float64 arrays, or Failure(ExtractorMissing) if its weights make no finite numbers of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from videogen_api.evaluation import DEFAULT_EXTRACTORS, Extractor, ExtractorArchitecture
from videogen_api.training_run import Reason
from videogen_trainer.evaluate.c3d import C3D, c3d_input
from videogen_trainer.evaluate.clip import Clip
from videogen_trainer.evaluate.default_networks import (
    TextVideoNetwork,
    VideoClassifierNetwork,
    frame_input,
    joint_log_probabilities,
    unknown_words,
    video_input,
)
from videogen_trainer.evaluate.i3d import I3D, i3d_input
from videogen_trainer.failure import Failure, is_out_of_memory
from videogen_trainer.named_files import check_digest, check_extractor

WEIGHTS = Path(__file__).parent / "weights"
VIDEO_CLASSIFIER, TEXT_VIDEO_ENCODER = DEFAULT_EXTRACTORS

Array = NDArray[np.float64]
Clips = NDArray[np.uint8]


class VideoNetwork(Protocol):
    """Network whose features FVD compares, or whose classes the Inception Score counts; `digest` is sha256:<hex> of its weights."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    def features(self, clips: Clips) -> Array:
        """Features [N, D]."""

    def log_probabilities(self, clips: Clips) -> Array:
        """Log-softmax [N, K] over the classes."""

    def outputs(self, clips: Clips) -> tuple[Array, Array]:
        """Features and log-probabilities, of one pass."""


class TextVideoEncoder(Protocol):
    """Network that puts captions, clips and frames into one space."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    def caption_embeddings(self, captions: list[str]) -> Array:
        """Embeddings [N, E]."""

    def clip_embeddings(self, clips: Clips) -> Array:
        """Embeddings [N, M, E] that are compared with the caption: of M frames, or of the whole clip (M = 1)."""

    def frame_embeddings(self, clips: Clips) -> Array:
        """Embeddings [N, F, E] of all frames."""

    def embeddings(self, clips: Clips) -> tuple[Array, Array]:
        """Those of `clip_embeddings` and of `frame_embeddings`; of one pass where they are the same."""

    def unknown(self, caption: str) -> bool:
        """Whether the encoder knows none of the caption's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extractors:
    """All networks that one evaluation uses; the defaults come first."""

    features: tuple[VideoNetwork, ...]
    classifiers: tuple[VideoNetwork, ...]
    encoders: tuple[TextVideoEncoder, ...]

    @property
    def video_networks(self) -> list[VideoNetwork]:
        """Those of features and of classes, each once: the default one is among both."""
        return [*self.features, *(classifier for classifier in self.classifiers if classifier not in self.features)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NetworkExtractor:
    """A video network as features, classifier or both: `compute` gives features [N, D] and log-probabilities [N, K]."""

    name: str
    digest: str
    device: torch.device
    compute: Callable[[Tensor], tuple[Tensor, Tensor]]

    def features(self, clips: Clips) -> Array:
        """See VideoNetwork."""
        return self.outputs(clips)[0]

    def log_probabilities(self, clips: Clips) -> Array:
        """See VideoNetwork."""
        return self.outputs(clips)[1]

    @torch.inference_mode()
    def outputs(self, clips: Clips) -> tuple[Array, Array]:
        """See VideoNetwork."""
        features, classes = self.compute(_tensor(clips, self.device))
        return _array(features, self.name), _array(classes, self.name)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DefaultEncoder:
    """The package's text-video encoder; clips are embedded as a whole, so that captions of motion can be judged."""

    name: str
    digest: str
    device: torch.device
    network: TextVideoNetwork

    @torch.inference_mode()
    def caption_embeddings(self, captions: list[str]) -> Array:
        """See TextVideoEncoder."""
        return _array(self.network.encode_text(captions), self.name)

    @torch.inference_mode()
    def clip_embeddings(self, clips: Clips) -> Array:
        """See TextVideoEncoder."""
        return _array(self.network.encode_video(video_input(_tensor(clips, self.device))), self.name)[:, None]

    @torch.inference_mode()
    def frame_embeddings(self, clips: Clips) -> Array:
        """See TextVideoEncoder."""
        return _array(self.network.encode_frames(frame_input(_tensor(clips, self.device))), self.name)

    def embeddings(self, clips: Clips) -> tuple[Array, Array]:
        """See TextVideoEncoder."""
        return self.clip_embeddings(clips), self.frame_embeddings(clips)

    def unknown(self, caption: str) -> bool:
        """See TextVideoEncoder."""
        return unknown_words(caption)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipEncoder:
    """CLIP: frames are embedded one by one."""

    name: str
    digest: str
    device: torch.device
    clip: Clip

    @torch.inference_mode()
    def caption_embeddings(self, captions: list[str]) -> Array:
        """See TextVideoEncoder."""
        return _array(self.clip.captions(captions), self.name)

    @torch.inference_mode()
    def frame_embeddings(self, clips: Clips) -> Array:
        """See TextVideoEncoder."""
        return _array(self.clip.frames(_tensor(clips, self.device)), self.name)

    clip_embeddings = frame_embeddings

    def embeddings(self, clips: Clips) -> tuple[Array, Array]:
        """See TextVideoEncoder."""
        frames = self.frame_embeddings(clips)
        return frames, frames

    def unknown(self, caption: str) -> bool:  # noqa: ARG002 - see TextVideoEncoder
        """Never: CLIP spells words that it does not know."""
        return False


def load(wanted: list[Extractor], storage: Path, device: torch.device) -> Extractors:
    """The default extractors and the wanted ones. Raises Failure(ExtractorMissing) naming the file and what is wrong with it."""
    classifier, encoder = default_classifier(device), default_encoder(device)
    of = {kind: [extractor for extractor in wanted if extractor.architecture is kind] for kind in ExtractorArchitecture}
    return Extractors(
        features=(classifier, *(_i3d(extractor, storage, device) for extractor in of[ExtractorArchitecture.I3D])),
        classifiers=(classifier, *(_c3d(extractor, storage, device) for extractor in of[ExtractorArchitecture.C3D])),
        encoders=(encoder, *(_clip(extractor, storage, device) for extractor in of[ExtractorArchitecture.CLIP])),
    )


def default_classifier(device: torch.device, weights: Path = WEIGHTS) -> NetworkExtractor:
    """The package's video classifier: 64 features, 108 classes of synthetic clips."""
    network = VideoClassifierNetwork()
    digest = _load_default(network, VIDEO_CLASSIFIER, weights)
    network.eval().to(device)

    def compute(clips: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = network(video_input(clips))
        return features, joint_log_probabilities(logits)

    return NetworkExtractor(name=VIDEO_CLASSIFIER, digest=digest, device=device, compute=compute)


def default_encoder(device: torch.device, weights: Path = WEIGHTS) -> DefaultEncoder:
    """The package's text-video encoder."""
    network = TextVideoNetwork()
    digest = _load_default(network, TEXT_VIDEO_ENCODER, weights)
    return DefaultEncoder(name=TEXT_VIDEO_ENCODER, digest=digest, device=device, network=network.eval().to(device))


def load_weights(network: nn.Module, path: Path, sha256: str, field: str) -> None:
    """Fill `network` from a safetensors file, exactly. Raises Failure(ExtractorMissing).

    Batch norm's `num_batches_tracked` may be absent: inference does not use it.
    """
    check_digest(path, sha256, field)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise _missing(f"{field}: {path} is no safetensors file ({error}); convert the weights to safetensors") from error
    wanted = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    found = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    problems = [f"lacks {name}" for name in wanted if name not in found]
    problems += [f"has an unknown tensor {name}" for name in found if name not in wanted]
    problems += [
        f"has {name} of shape {list(found[name].shape)}, expected {list(wanted[name].shape)}"
        for name in wanted.keys() & found.keys()
        if found[name].shape != wanted[name].shape
    ]
    problems += [f"has values in {name} that are not finite" for name, tensor in found.items() if not tensor.isfinite().all()]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise _missing(
            f"{field}: {path} is no {type(network).__name__}: it {', it '.join(sorted(problems)[:3])}{more};"
            " check that the file belongs to this architecture"
        )
    network.load_state_dict(found, strict=False)


def _i3d(extractor: Extractor, storage: Path, device: torch.device) -> NetworkExtractor:
    return _video_network(extractor, storage, device, I3D, "logits.conv3d.bias", i3d_input)


def _c3d(extractor: Extractor, storage: Path, device: torch.device) -> NetworkExtractor:
    return _video_network(extractor, storage, device, C3D, "fc8.bias", c3d_input)


def _video_network(
    extractor: Extractor,
    storage: Path,
    device: torch.device,
    build: Callable[[int], nn.Module],
    bias: str,
    prepare: Callable[[Tensor], Tensor],
) -> NetworkExtractor:
    field, path = f"evaluate.extractors[{extractor.name}]", storage / extractor.path
    check_extractor(extractor, storage, field)
    network = build(_class_count(path, bias, field))
    load_weights(network, path, extractor.sha256, field)
    network.eval().to(device)

    def compute(clips: Tensor) -> tuple[Tensor, Tensor]:
        logits = network(prepare(clips)).double()
        return logits, logits.log_softmax(dim=1)

    return NetworkExtractor(name=extractor.name, digest=extractor.digest, device=device, compute=compute)


def _class_count(path: Path, bias: str, field: str) -> int:
    try:
        with safe_open(str(path), framework="pt") as file:
            shape = file.get_slice(bias).get_shape()
    except (SafetensorError, OSError) as error:
        raise _missing(f"{field}: {path} has no tensor {bias} ({error}); expected a safetensors file of this architecture") from error
    if len(shape) != 1 or shape[0] == 0:
        raise _missing(f"{field}: {path} has {bias} of shape {shape}, expected one number for each class; check that the file is whole")
    return int(shape[0])


def _clip(extractor: Extractor, storage: Path, device: torch.device) -> ClipEncoder:
    field, folder = f"evaluate.extractors[{extractor.name}]", storage / extractor.path
    check_extractor(extractor, storage, field)
    try:
        clip = Clip(folder, device)
    except Exception as error:  # whatever others' code raises: nothing but these files is in its hands
        if is_out_of_memory(error):
            raise
        said = f"{field}: {folder} is no complete CLIP model ({type(error).__name__}: {error})"
        raise _missing(f"{said}; expected config.json, model.safetensors and tokenizer files of one model") from error
    return ClipEncoder(name=extractor.name, digest=extractor.digest, device=device, clip=clip)


def _load_default(network: nn.Module, name: str, weights: Path) -> str:
    try:
        recorded = json.loads((weights / "weights.json").read_text(encoding="utf-8"))[name]["sha256"]
    except FileNotFoundError as error:
        said = f"default extractor {name}: this trainer has no {error.filename}; build its image with the default networks in it"
        raise _missing(said) from error
    load_weights(network, weights / f"{name}.safetensors", recorded, f"default extractor {name}")
    return f"sha256:{recorded}"


def _missing(message: str) -> Failure:
    return Failure(Reason.EXTRACTOR_MISSING, message)


def _tensor(clips: Clips, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(clips)).to(device)


def _array(tensor: Tensor, name: str) -> Array:
    """What a network gives. Raises Failure(ExtractorMissing) naming the network if it is not finite, as pixels and words are."""
    array = np.asarray(tensor.double().cpu().numpy(), dtype=np.float64)
    if not np.isfinite(array).all():
        raise _missing(f"feature network {name}: it gives values that are not finite, for its weights are too large; put whole ones there")
    return array
