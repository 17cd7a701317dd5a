"""Examples in a size that runs on a laptop's cluster: numbers become smaller, and the phases stay what they are.

| of an example | becomes |
|---|---|
| steps, samples, clips, frames' size, processes | `AT_MOST`; the schedules' 16 frames 8, as the other examples have |
| architecture; resources, with GPUs in them | Tiny; `RESOURCES` |
| digests of Stable Diffusion and CLIP | those of small networks of random weights, which lie where the example says |
| I3D and C3D, which have one size | none: the trainer's own networks measure in their place |
| the day on which a phase may begin | left out |
| thresholds of gates, qualities, bounds of losses | what any model keeps: nobody has trained these |
| the usual canary, of hundreds of requests | one of few |
| TensorRT, which needs an NVIDIA GPU; MLflow, which needs a server | left out |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import cycle
from pathlib import Path
from typing import Any

import yaml

from videogen_api.evaluation import ExtractorArchitecture
from videogen_api.recipe import Architecture
from videogen_demo.kubectl import REPOSITORY, Manifest

EXAMPLES = REPOSITORY / "examples"
BACKBONE, CLIP = "raw/stable-diffusion", "networks/clip-vit-l-14"  # where the examples have them in the claim

DATASETS = ("general-pairs", "high-resolution")  # of the schedules, beside pib and emergency
VIDEOS = 40  # of each folder

AT_MOST: Mapping[str, int] = {
    "steps": 2,
    "warmupSteps": 1,
    "everySteps": 2,
    "height": 32,
    "width": 32,
    "globalBatchSize": 4,
    "processes": 1,
    "samples": 8,
    "samplingSteps": 2,
    "variations": 1,
    "minimumVariations": 1,
    "minimumClips": 8,
    "minimumSamples": 2,
    "minimumShorterSide": 32,
    "minimumRequests": 2,
    "minimumSeconds": 2,
}
INSTEAD: Mapping[str, Any] = {"minimumCoherence": "0", "maximumArtefactRate": "1", "maximumRejectedPercent": 90}
RESOURCES = {"requests": {"cpu": "200m"}, "limits": {"memory": "3Gi"}}
MISSING: Mapping[str, Manifest] = {  # what an example leaves to defaults that are too large
    "evaluate": {"samples": 8, "samplingSteps": 2},
    "templates": {"samplingSteps": 2},
    "scenarios": {"samples": 10, "samplingSteps": 2},
}
SHORT_CANARY = {"steps": [{"weightPercent": 50, "minimumRequests": 2, "minimumSeconds": 2}]}
ANY = {"LessThan": "1000000", "GreaterThan": "-1000000"}


def documents(file: str) -> list[Manifest]:
    """The objects of a file below examples/."""
    return list(yaml.safe_load_all((EXAMPLES / file).read_text()))


def small(example: Manifest, namespace: str, digests: Mapping[str, str]) -> Manifest:
    """The example, a run or a cycle, in this namespace; `digests`: of what lies in the claim, `sha256:...` by path."""
    made: Manifest = _smaller(deepcopy(example))
    made["metadata"]["namespace"] = namespace
    spec = made["spec"]["runTemplate"]["spec"] if made["kind"] == "FineTuneCycle" else made["spec"]
    spec.pop("tracking", None)
    recipe = spec["recipe"]
    recipe["architecture"] = Architecture.TINY.value
    recipe["frames"] = {16: 8}.get(recipe["frames"], recipe["frames"])
    if "backbone" in recipe:
        recipe["backbone"]["digest"] = digests[recipe["backbone"]["path"]]
    for phase in spec["phases"]:
        phase.get("window", {}).pop("notBefore", None)
        _judge_little(phase, digests)
    return made


def curation(datasets: Sequence[str]) -> Manifest:
    """A run that makes datasets of these names, as first-release makes its own."""
    (example,) = documents("first-release/training-run.yaml")
    (first, *_) = example["spec"]["phases"]
    example["metadata"]["name"] = "datasets"
    example["spec"]["phases"] = [first | {"name": name, "curate": first["curate"] | {"dataset": name}} for name in datasets]
    return example


def _smaller(value: Any) -> Any:
    """The tables applied wherever their names stand."""
    if isinstance(value, list):
        return [_smaller(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: _replaced(name, field) for name, field in value.items()}


def _replaced(name: str, field: Any) -> Any:
    if name == "resources":
        return RESOURCES
    if name in AT_MOST and isinstance(field, int):
        return min(field, AT_MOST[name])
    if name in MISSING:
        return MISSING[name] | _smaller(field)
    return INSTEAD[name] if name in INSTEAD else _smaller(field)


def _judge_little(phase: Manifest, digests: Mapping[str, str]) -> None:
    """Networks that are in the claim alone, and thresholds that any model keeps."""
    kept = set()
    for block in (phase.get("evaluate", {}), phase.get("tune", {})):
        for extractor in _extractors(block):
            if extractor["architecture"] == ExtractorArchitecture.CLIP:
                extractor["digest"] = digests[extractor["path"]]
                kept.add(extractor["name"])
        if "extractors" in block:
            block["extractors"] = [one for one in block["extractors"] if one["name"] in kept]
        if "extractor" in block and block["extractor"]["name"] not in kept:
            del block["extractor"]
    for gate in phase.get("gates", []):
        gate |= {"threshold": ANY[gate["operator"]], "minimumSamples": AT_MOST["minimumSamples"]}
        if gate.get("extractor") not in kept:
            gate.pop("extractor", None)
    if "release" in phase:
        phase["release"].setdefault("rollout", SHORT_CANARY)
    if "optimize" in phase:
        phase["optimize"]["formats"] = [one for one in phase["optimize"]["formats"] if one != "TensorRT"]
        for loss in phase["optimize"].get("maximumLoss", []):
            loss["maximum"] = "1000000"


def _extractors(block: Manifest) -> Iterator[Manifest]:
    yield from block.get("extractors", [])
    if "extractor" in block:
        yield block["extractor"]


def put_videos(folder: Path) -> None:
    """Write raw/pib, videos of 32 frames, and raw/emergency, with a table that gives each of its videos a category."""
    from videogen_trainer.emergency.catalogue import TYPES
    from videogen_trainer.synthetic import write_folder

    write_folder(folder / "raw/pib", count=VIDEOS, seed=0, frames=32, height=32, width=32)
    emergency = folder / "raw/emergency"
    write_folder(emergency, count=VIDEOS, seed=1, frames=16, height=32, width=32)
    videos = zip(sorted(emergency.glob("*.mp4")), cycle(TYPES))
    rows = [f"{video.name},a {kind.category} of water and fire,{kind.category},immediate" for video, kind in videos]
    (emergency / "videos.csv").write_text("\n".join(["path,caption,category,urgency", *rows, ""]))


def put_networks(folder: Path) -> dict[str, str]:
    """Write a small Stable Diffusion and a small CLIP where the examples have theirs -> their digests by path."""
    import torch

    from videogen_api.recipe import Resolution
    from videogen_models.backbone_digest import folder_sha256
    from videogen_models.backbone_folder import save_backbone
    from videogen_models.image_backbone import PRESETS, build_backbone
    from videogen_testing.own_clip import clip_folder

    torch.manual_seed(0)
    (folder / BACKBONE).mkdir(parents=True)
    save_backbone(build_backbone(PRESETS[Architecture.TINY], Resolution(height=32, width=32)), folder / BACKBONE)
    (folder / CLIP).mkdir(parents=True)
    return {BACKBONE: f"sha256:{folder_sha256(folder / BACKBONE)}", CLIP: f"sha256:{clip_folder(folder / CLIP)}"}
