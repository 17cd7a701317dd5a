"""What the API server refuses, by our CRDs alone: each refusal names the field and says what is accepted.

Everything is a dry run against the real API server, as `kubectl apply --dry-run=server --validate=strict` does it.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from videogen_api.crd import RESOURCES, definition
from videogen_api.resources import Resources, completed, number
from videogen_api.training_run import Task
from videogen_testing.control_plane import BINARIES, Api, ControlPlane, Refused
from videogen_testing.edits import ABSENT, CURATE, GATE, INIT, SCENARIOS, TEMPLATES, edited, in_order, release_of, run_of
from videogen_testing.runs import EVALUATE, OPTIMIZE, RELEASE, RUNS, TRAIN, TUNE, a_run

RELEASES = "/apis/videogen.pib.gov.in/v1alpha1/namespaces/{}/modelreleases"
STRICT = "?dryRun=All&fieldValidation=Strict"


def refusal(api: Api, manifest: Mapping[str, Any], namespace: str = "default") -> str:
    """The API server's message; AssertionError if it accepts the object."""
    path = (RUNS if manifest["kind"] == "TrainingRun" else RELEASES).format(namespace)
    with pytest.raises(Refused) as caught:
        api.create(path + STRICT, manifest)
    assert caught.value.code in {400, 422}
    return str(json.loads(caught.value.body)["message"])


def of(family: str) -> tuple[str, str]:
    """The edit that makes it a run of this family."""
    return "spec.model.family", family


def tuned_by(phase: Mapping[str, Any] | None = None, **block: Any) -> tuple[str, Any]:
    """The edit that gives it a Tune phase, number 1, with these fields and with these of its block."""
    tune = present({**TUNE, "tune": present(TUNE["tune"] | block), **(phase or {})})
    return "spec.phases", [CURATE, tune, TRAIN, EVALUATE]


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not ABSENT}


APPROVE: dict[str, Any] = {"name": "review", "task": "Approve", "approvals": [{"kind": "release", "team": "qa"}]}
TRACKING = {"mlflow": {"uri": "https://mlflow:5000"}}
ZERO_STEPS = ("spec.recipe.steps", 0)
BACKBONE = {"path": "raw/image-model", "digest": "sha256:" + "0" * 64}

FLOOD = {"category": "flood", "prompt": "a flooded street", "caption": "Flood: move to higher ground"}

# Sentence: edits, the field that the message names, and what it says is accepted.
CLIP = {"architecture": "CLIP", "path": "x.safetensors", "digest": "sha256:" + "0" * 64}
BAD_RUNS: dict[str, tuple[list[tuple[str, Any]], str, str]] = {
    "shares of the noise that do not add up to 1": (
        [("spec.recipe.videoFusion", {"baseNoiseShare": "0.70", "residualNoiseShare": "0.40"})],
        "spec.recipe.videoFusion",
        "must add up to 1, for example 0.70 and 0.30",
    ),
    "a share outside the range of Standard, without a scenario": (
        [("spec.recipe.videoFusion", {"baseNoiseShare": "0.5"})],
        "spec.recipe.videoFusion",
        "baseNoiseShare must lie in the range of baseScenario: Standard 0.65-0.75, HighDetail 0.60-0.70, TextHeavy 0.75-0.85",
    ),
    "a residual share alone whose rest is outside of it": (
        [("spec.recipe.videoFusion", {"residualNoiseShare": "0.36"})],
        "spec.recipe.videoFusion",
        "with neither scenario in that of Standard",
    ),
    "a share greater than 1": (
        [("spec.recipe.videoFusion", {"baseNoiseShare": "1.5", "residualNoiseShare": "0"})],
        "spec.recipe.videoFusion.baseNoiseShare",
        "should match",
    ),
    "a share outside the range of its scenario": (
        [("spec.recipe.videoFusion", {"baseScenario": "HighDetail", "baseNoiseShare": "0.71"})],
        "spec.recipe.videoFusion",
        "baseNoiseShare must lie in the range of baseScenario: Standard 0.65-0.75, HighDetail 0.60-0.70",
    ),
    "a scenario whose range the usual share is outside of": (
        [("spec.recipe.videoFusion", {"residualScenario": "HighMotion"})],
        "spec.recipe.videoFusion",
        "must leave a residualNoiseShare in the range of residualScenario: Standard 0.25-0.35, HighMotion 0.35-0.45, Static 0.20-0.30",
    ),
    "a share that suits one of two scenarios": (
        [("spec.recipe.videoFusion", {"baseScenario": "TextHeavy", "residualScenario": "Static", "baseNoiseShare": "0.81"})],
        "spec.recipe.videoFusion",
        "must leave a residualNoiseShare in the range of residualScenario",
    ),
    "two scenarios without a share in common": (
        [("spec.recipe.videoFusion", {"baseScenario": "TextHeavy", "residualScenario": "HighMotion", "baseNoiseShare": "0.75"})],
        "spec.recipe.videoFusion",
        "TextHeavy and residualScenario HighMotion have no share in common",
    ),
    "an unknown scenario": (
        [("spec.recipe.videoFusion", {"baseScenario": "Vivid"})],
        "spec.recipe.videoFusion.baseScenario",
        '"Standard", "HighDetail", "TextHeavy", "Experimental"',
    ),
    "a scenario of the other table": (
        [("spec.recipe.videoFusion", {"residualScenario": "TextHeavy"})],
        "spec.recipe.videoFusion.residualScenario",
        '"Standard", "HighMotion", "Static"',
    ),
    "an experiment that is released": (
        [("spec.recipe.videoFusion", {"baseScenario": "Experimental", "baseNoiseShare": "0.1"})],
        "spec.recipe.videoFusion.baseScenario",
        "a run with videoFusion.baseScenario Experimental has no Release phase",
    ),
    "fewer shares than frames": (
        [("spec.recipe.videoFusion", {"baseNoiseShares": ["0.7", "1", "0.7"]}), ("spec.recipe.frames", 4)],
        "spec.recipe.videoFusion.baseNoiseShares",
        "must have one share for each of recipe.frames",
    ),
    "a base frame with noise of its own": (
        [("spec.recipe.videoFusion", {"baseNoiseShares": ["0.7", "1", "0.7", "0.7"]}), ("spec.recipe.frames", 4)],
        "spec.recipe.videoFusion",
        "the share of the base frame, the middle one of baseNoiseShares (number frames / 2, counted from 0), must be 1",
    ),
    "a frame's share outside the range of Standard, without a scenario": (
        [("spec.recipe.videoFusion", {"baseNoiseShares": ["0.7", "0.76", "1", "0.7"]}), ("spec.recipe.frames", 4)],
        "spec.recipe.videoFusion",
        "baseNoiseShares, but for the base frame's, must lie in the range of baseScenario",
    ),
    "a frame's share outside the range of the residual scenario": (
        [
            ("spec.recipe.videoFusion", {"baseNoiseShares": ["0.7", "0.81", "1", "0.7"], "residualScenario": "Static"}),
            ("spec.recipe.frames", 4),
        ],
        "spec.recipe.videoFusion",
        "baseNoiseShares, but for the base frame's, must leave a residualNoiseShare in the range of residualScenario",
    ),
    "one share and a share for each frame": (
        [
            ("spec.recipe.videoFusion", {"baseNoiseShares": ["0.7", "1"], "baseNoiseShare": "0.70"}),
            ("spec.recipe.frames", 2),
        ],
        "spec.recipe.videoFusion",
        "leave baseNoiseShare and residualNoiseShare out",
    ),
    "a search outside the range of Standard, without a block": (
        [tuned_by(values=["0.70", "0.76"])],
        "spec.phases",
        "each of tune.values must lie in the range of baseScenario: Standard 0.65-0.75",
    ),
    "a search outside the range of the scenario": (
        [tuned_by(values=["0.70", "0.76"]), ("spec.recipe.videoFusion", {"baseScenario": "HighDetail"})],
        "spec.phases",
        "each of tune.values must lie in the range of baseScenario",
    ),
    "a search outside the range of the residual scenario": (
        [tuned_by(values=["0.70", "0.81"]), ("spec.recipe.videoFusion", {"residualScenario": "Static"})],
        "spec.phases",
        "each of tune.values must leave a residualNoiseShare in the range of residualScenario",
    ),
    "a search of one value": ([tuned_by(values=["0.70"])], "spec.phases[1].tune.values", "should have at least 2 items"),
    "a search of 17 values": (
        [tuned_by(values=[f"0.{number}" for number in range(60, 77)])],
        "spec.phases[1].tune.values",
        "must have at most 16 items",
    ),
    "a search of one value twice": ([tuned_by(values=["0.70", "0.70"])], "spec.phases[1].tune.values[1]", "Duplicate value"),
    "a search of what is no share": ([tuned_by(values=["0.70", "much"])], "spec.phases[1].tune.values[1]", "should match"),
    "a search of what is no share, with scenarios": (
        [
            tuned_by(values=["0.70", "much"]),
            ("spec.recipe.videoFusion", {"baseScenario": "Standard", "residualScenario": "Standard"}),
        ],
        "spec.phases[1].tune.values[1]",
        "should match",
    ),
    "a search by how long it takes": (
        [tuned_by(objective="GenerationSeconds")],
        "spec.phases[1].tune.objective",
        '"FVD", "InceptionScore", "CLIPScore", "TemporalCoherence", "ArtefactRate"',
    ),
    "a search judged by a network that cannot measure it": (
        [tuned_by(objective="TemporalCoherence", extractor=CLIP | {"name": "i3d", "architecture": "I3D"})],
        "spec.phases[1].tune",
        "FVD needs an extractor of architecture I3D",
    ),
    "a search without an objective": ([tuned_by(objective=ABSENT)], "spec.phases[1].tune.objective", "Required value"),
    "a search in another family": ([tuned_by(), of("Text2VideoZero")], "spec.phases", "which models of family VideoFusion alone have"),
    "a search beside a share for each frame": (
        [tuned_by(), ("spec.recipe.videoFusion", {"baseNoiseShares": ["0.7", "1"]}), ("spec.recipe.frames", 2)],
        "spec.recipe.videoFusion.baseNoiseShares",
        "a Tune phase searches one share for all frames",
    ),
    "a search without data to be judged by": (
        [tuned_by({"data": TRAIN["data"]})],
        "spec.phases",
        "needs data of both splits",
    ),
    "a search without its block": ([tuned_by({"tune": ABSENT})], "spec.phases", "a Tune phase, and no other, has a tune block"),
    "a search whose workers cannot share the batch": (
        [tuned_by({"workers": {"replicas": 3}})],
        "spec.recipe.globalBatchSize",
        "of every training or Tune phase",
    ),
    "a Train phase with a tune block": ([("spec.phases.1.tune", TUNE["tune"])], "spec.phases", "a Tune phase, and no other"),
    "a global batch that two workers cannot share": (
        [("spec.recipe.globalBatchSize", 5), ("spec.phases.1.workers", {"replicas": 2})],
        "spec.recipe.globalBatchSize",
        "divisible by workers.replicas * processes of a pod * gradientAccumulationSteps",
    ),
    "a global batch that the processes of a worker cannot share": (
        [("spec.phases.1.workers", {"processes": 3})],
        "spec.recipe.globalBatchSize",
        "divisible by",
    ),
    "a global batch that the GPUs of a worker cannot share": (
        [("spec.phases.1.resources", {"limits": {"nvidia.com/gpu": 8}})],
        "spec.recipe.globalBatchSize",
        "else the GPUs in resources.limits, else 1",
    ),
    "a global batch that the slices of GPUs of a worker cannot share": (
        [("spec.phases.1.resources", {"limits": {"nvidia.com/mig-1g.10gb": "2", "nvidia.com/gpu": 1}})],
        "spec.recipe.globalBatchSize",
        "else the GPUs in resources.limits, else 1",
    ),
    "a global batch that the accumulation does not divide": (
        [("spec.recipe.gradientAccumulationSteps", 3)],
        "spec.recipe.globalBatchSize",
        "divisible by",
    ),
    "a warm-up longer than the training": (
        [("spec.recipe.schedule", {"warmupSteps": 101})],
        "spec.recipe.schedule.warmupSteps",
        "may not be greater than recipe.steps",
    ),
    "a version with a leading v": ([("spec.model.version", "v1.0.0")], "spec.model.version", "should match"),
    "a version of two numbers": ([("spec.model.version", "1.0")], "spec.model.version", "should match"),
    "a version with a leading zero": ([("spec.model.version", "1.02.0")], "spec.model.version", "should match"),
    "an unknown model family": ([("spec.model.family", "sora")], "spec.model.family", 'supported values: "VideoFusion"'),
    "an unknown task": ([("spec.phases.1.task", "Fine-tune")], "spec.phases[1].task", ", ".join(f'"{task}"' for task in Task)),
    "an unknown metric": ([("spec.phases.2.gates.0.metric", "SSIM")], "spec.phases[2].gates[0].metric", '"TemporalCoherence"'),
    "an unknown precision": ([("spec.recipe.precision", "INT8")], "spec.recipe.precision", '"FP32", "FP16", "BF16"'),
    "an unknown field": ([("spec.recipe.epochs", 10)], "spec.recipe.epochs", "unknown field"),
    "a misspelt field of a phase": ([("spec.phases.1.dedlineSeconds", 10)], "spec.phases[1].dedlineSeconds", "unknown field"),
    "a field of training-operator": ([("spec.pytorchReplicaSpecs", {})], "spec.pytorchReplicaSpecs", "unknown field"),
    "a float where a decimal string is wanted": ([("spec.recipe.emaDecay", 0.999)], "spec.recipe.emaDecay", "must be of type string"),
    "a float as learning rate": (
        [("spec.recipe.optimizer", {"learningRate": 1e-4})],
        "spec.recipe.optimizer.learningRate",
        "must be of type string",
    ),
    "words where a number is wanted": (
        [("spec.recipe.optimizer", {"learningRate": "low"})],
        "spec.recipe.optimizer.learningRate",
        "should match",
    ),
    "a string where a whole number is wanted": ([("spec.recipe.steps", "100")], "spec.recipe.steps", "must be of type integer"),
    "a fraction of steps": ([("spec.recipe.steps", 1.5)], "spec.recipe.steps", "integer"),
    "no steps": ([("spec.recipe.steps", 0)], "spec.recipe.steps", "greater than or equal to 1"),
    "a video model without steps": ([ZERO_STEPS, of("AlignYourLatents")], "spec.recipe.steps", "greater than or equal to 1"),
    "steps below zero": ([("spec.recipe.steps", -1), of("Text2VideoZero")], "spec.recipe.steps", "greater than or equal to 0"),
    "another family's block": (
        [("spec.recipe.alignYourLatents", {}), of("Text2VideoZero")],
        "spec.recipe.alignYourLatents",
        "is for models of family AlignYourLatents",
    ),
    "a block beside VideoFusion": (
        [("spec.recipe.text2VideoZero", {})],
        "spec.recipe.text2VideoZero",
        "is for models of family Text2VideoZero",
    ),
    "a profile in another family": (
        [("spec.recipe.videoFusion", {}), of("AlignYourLatents")],
        "spec.recipe.videoFusion",
        "is for models of family VideoFusion",
    ),
    "latents without an autoencoder": (
        [("spec.recipe.videoFusion", {"space": "Latent"})],
        "spec.recipe.videoFusion.space",
        "needs an autoencoder: that of recipe.backbone, or of a run or release in initFrom",
    ),
    "latents of two image models": (
        [("spec.recipe.videoFusion", {"space": "Latent"}), ("spec.recipe.backbone", BACKBONE), ("spec.initFrom", INIT)],
        "spec.recipe.backbone",
        "not beside initFrom",
    ),
    "VideoFusion's latents in another family": (
        [("spec.recipe.videoFusion", {"space": "Latent"}), ("spec.recipe.backbone", BACKBONE), of("AlignYourLatents")],
        "spec.recipe.videoFusion",
        "is for models of family VideoFusion",
    ),
    "VideoFusion's guidance in another family": (
        [("spec.recipe.videoFusion", {"textGuidance": "2"}), of("AlignYourLatents")],
        "spec.recipe.videoFusion",
        "is for models of family VideoFusion",
    ),
    "VideoFusion's block in another family": (
        [("spec.recipe.videoFusion", {"baseLearningRateScale": "0.5"}), of("Text2VideoZero")],
        "spec.recipe.videoFusion",
        "is for models of family VideoFusion",
    ),
    "an image model for VideoFusion": (
        [("spec.recipe.backbone", BACKBONE)],
        "spec.recipe.backbone",
        "is for models of family AlignYourLatents",
    ),
    "two image models": (
        [("spec.recipe.backbone", BACKBONE), ("spec.initFrom", INIT), of("Text2VideoZero")],
        "spec.recipe.backbone",
        "not beside initFrom",
    ),
    "an unknown optimiser": ([("spec.recipe.optimizer", {"name": "Adam"})], "spec.recipe.optimizer.name", '"AdamW", "AdamW8bit"'),
    "a min-SNR gamma of zero": (
        [("spec.recipe.loss", {"snrGamma": "0.0"})],
        "spec.recipe.loss.snrGamma",
        "must be greater than 0, for example 5",
    ),
    "a divergence factor that every step exceeds": (
        [("spec.recipe.divergenceFactor", "1.5")],
        "spec.recipe.divergenceFactor",
        "must be at least 2, for example 10",
    ),
    "a noise offset greater than 1": ([("spec.recipe.loss", {"noiseOffset": "1.1"})], "spec.recipe.loss.noiseOffset", "should match"),
    "a prediction type of VideoFusion": (
        [("spec.recipe.loss", {"predictionType": "VPrediction"})],
        "spec.recipe.loss.predictionType",
        "is for models of family AlignYourLatents and Text2VideoZero",
    ),
    "shards of 8-bit states": (
        [("spec.recipe.sharding", "Full"), ("spec.recipe.optimizer", {"name": "AdamW8bit"})],
        "spec.recipe.sharding",
        "take AdamW",
    ),
    "shards of compiled networks": (
        [("spec.recipe.sharding", "Full"), ("spec.recipe.compile", True)],
        "spec.recipe.sharding",
        "leave one of them out",
    ),
    "shards with a scaled loss": (
        [("spec.recipe.sharding", "Full"), ("spec.recipe.precision", "FP16")],
        "spec.recipe.sharding",
        "take BF16 or FP32",
    ),
    "shards in a FineTuneDecoder phase": (
        [of("AlignYourLatents"), ("spec.initFrom", INIT), ("spec.phases.1.task", "FineTuneDecoder"), ("spec.recipe.sharding", "Full")],
        "spec.recipe.sharding",
        "recipe.sharding: Full is not for a FineTuneDecoder phase",
    ),
    "an image model with an upper-case sum": (
        [("spec.recipe.backbone", BACKBONE | {"digest": "sha256:" + "A" * 64}), of("Text2VideoZero")],
        "spec.recipe.backbone.digest",
        "should match",
    ),
    "interpolations that nothing teaches": (
        [("spec.recipe.alignYourLatents", {"interpolations": 1}), of("AlignYourLatents")],
        "spec.recipe.alignYourLatents.interpolations",
        "needs a TrainInterpolation phase, or initFrom a model that had one",
    ),
    "three interpolations": (
        [("spec.recipe.alignYourLatents", {"interpolations": 3}), of("AlignYourLatents"), ("spec.initFrom", INIT)],
        "spec.recipe.alignYourLatents.interpolations",
        "less than or equal to 2",
    ),
    "no frame but the context": (
        [
            ("spec.recipe.frames", 2),
            ("spec.recipe.alignYourLatents", {"contextFrames": 2}),
            of("AlignYourLatents"),
            ("spec.initFrom", INIT),
        ],
        "spec.recipe.alignYourLatents.contextFrames",
        "contextFrames: must be less than recipe.frames",
    ),
    "clips that are not longer": (
        [
            ("spec.recipe.frames", 8),
            ("spec.recipe.alignYourLatents", {"clipFrames": 8}),
            of("AlignYourLatents"),
            ("spec.initFrom", INIT),
        ],
        "spec.recipe.alignYourLatents.clipFrames",
        "clipFrames: must be more than recipe.frames",
    ),
    "three context frames": (
        [("spec.recipe.alignYourLatents", {"contextFrames": 3}), of("AlignYourLatents"), ("spec.initFrom", INIT)],
        "spec.recipe.alignYourLatents.contextFrames",
        "less than or equal to 2",
    ),
    "guidance by frames that there are not": (
        [("spec.recipe.alignYourLatents", {"contextGuidance": "2"}), of("AlignYourLatents")],
        "spec.recipe.alignYourLatents",
        "needs contextFrames: 1",
    ),
    "a motion that ends before it begins": (
        [("spec.recipe.text2VideoZero", {"warpAt": 942}), of("Text2VideoZero")],
        "spec.recipe.text2VideoZero",
        "warpAt may not be greater than resumeAt",
    ),
    "a name that is too long for pods": (
        [("spec.model", {"family": "AlignYourLatents", "version": "10.20.30", "specialization": "a" * 20})],
        "spec.model",
        "45 characters together",
    ),
    "a family in the spelling of a name": (
        [("spec.model.family", "align-your-latents")],
        "spec.model.family",
        '"VideoFusion", "AlignYourLatents", "Text2VideoZero"',
    ),
    "a type in capitals": ([("spec.model.type", "Base")], "spec.model.type", "should match"),
    "a type of 21 characters": ([("spec.model.type", "t" * 21)], "spec.model.type", "20"),
    "a type by which another family is known": (
        [("spec.model.type", "text2video-zero")],
        "spec.model",
        "type is the default of another family",
    ),
    "a type that looks like a version": (
        [("spec.model.type", "base-v1-0-0")],
        "spec.model",
        "type must not contain -v and a digit",
    ),
    "a type that makes the name too long for pods": (
        [("spec.model", {"family": "VideoFusion", "type": "t" * 20, "version": "1.0.0", "specialization": "a" * 21})],
        "spec.model.specialization",
        "20",
    ),
    "a model without a family": ([("spec.model.family", ABSENT), ("spec.model.type", "base")], "spec.model.family", "Required value"),
    "too many steps": ([("spec.recipe.steps", 10_000_001)], "spec.recipe.steps", "less than or equal to 10000000"),
    "a single frame": ([("spec.recipe.frames", 1)], "spec.recipe.frames", "greater than or equal to 2"),
    "a height that is no multiple of 8": ([("spec.recipe.resolution.height", 20)], "spec.recipe.resolution.height", "multiple of 8"),
    "a frame that is too large": ([("spec.recipe.resolution.width", 2048)], "spec.recipe.resolution.width", "less than or equal to 1024"),
    "no replicas": ([("spec.phases.1.workers", {"replicas": 0})], "spec.phases[1].workers.replicas", "greater than or equal to 1"),
    "129 replicas": ([("spec.phases.1.workers", {"replicas": 129})], "spec.phases[1].workers.replicas", "less than or equal to 128"),
    "at least more replicas than at most": (
        [("spec.phases.1.workers", {"replicas": 2, "minReplicas": 4})],
        "spec.phases[1].workers",
        "minReplicas may not be greater than replicas",
    ),
    "at least no replicas": (
        [("spec.phases.1.workers", {"replicas": 2, "minReplicas": 0})],
        "spec.phases[1].workers.minReplicas",
        "greater than or equal to 1",
    ),
    "at least three of four replicas, who cannot take the micro-batches of four": (
        [("spec.phases.1.workers", {"replicas": 4, "minReplicas": 3})],
        "spec.phases",
        "workers.minReplicas must divide workers.replicas * recipe.gradientAccumulationSteps",
    ),
    "fewer replicas to evaluate with": (
        [("spec.phases.2.workers", {"replicas": 2, "minReplicas": 1})],
        "spec.phases",
        "only a training phase, Train, FineTune, Adapt, AlignCrossModal, TrainInterpolation, FineTuneDecoder, goes on with fewer pods",
    ),
    "a deadline for all replicas where there is one": (
        [("spec.phases.1.workers", {"replicas": 1, "allReplicasDeadlineSeconds": 60})],
        "spec.phases[1].workers",
        "raise replicas, or leave it out",
    ),
    "a burst pool of the same nodes": (
        [("spec.phases.1.placement", {"burst": {"afterSeconds": 60}})],
        "spec.phases[1].placement.burst",
        "burst needs nodeSelector, tolerations or both to name other nodes",
    ),
    "a burst pool at once": (
        [("spec.phases.1.placement", {"burst": {"afterSeconds": 0, "nodeSelector": {"pool": "cloud"}}})],
        "spec.phases[1].placement.burst.afterSeconds",
        "greater than or equal to 1",
    ),
    "an Approve phase that asks nobody": (
        [("spec.phases.2", {"name": "review", "task": "Approve"})],
        "spec.phases",
        "an Approve phase, and no other, has approvals",
    ),
    "approvals of a phase that trains": (
        [("spec.phases.1.approvals", [{"kind": "release", "team": "qa"}])],
        "spec.phases",
        "an Approve phase, and no other, has approvals",
    ),
    "an Approve phase with pods": (
        [("spec.phases.2", APPROVE | {"resources": {"limits": {"memory": "1Gi"}}})],
        "spec.phases",
        "an Approve phase has no pods; leave data, workers, resources and placement out",
    ),
    "no approval": ([("spec.phases.2", APPROVE | {"approvals": []})], "spec.phases[2].approvals", "should have at least 1 items"),
    "one approval asked for twice": (
        [("spec.phases.2", APPROVE | {"approvals": 2 * APPROVE["approvals"]})],
        "spec.phases[2].approvals[1]",
        "Duplicate value",
    ),
    "an approval of a kind with a dot": (
        [("spec.phases.2", APPROVE | {"approvals": [{"kind": "a.b", "team": "qa"}]})],
        "spec.phases[2].approvals[0].kind",
        "should match",
    ),
    "a window without times": ([("spec.phases.1.window", {})], "spec.phases[1].window", "a window has notBefore, deadlineSeconds or both"),
    "a window without a time zone": (
        [("spec.phases.1.window", {"notBefore": "2026-12-07T00:00:00"})],
        "spec.phases[1].window.notBefore",
        "should match '^[0-9]{4}-",
    ),
    "a window on a day that there is not": (
        [("spec.phases.1.window", {"notBefore": "2026-02-31T00:00:00Z"})],
        "spec.phases[1].window.notBefore",
        "must be of type date-time",
    ),
    "a window before that of an earlier phase": (
        [
            ("spec.phases.0.window", {"notBefore": "2026-12-07T00:00:00Z"}),
            ("spec.phases.2.window", {"notBefore": "2026-12-06T23:59:59Z"}),
        ],
        "spec.phases",
        "window.notBefore of a phase may not be earlier than that of a phase before it",
    ),
    "windows that overlap": (
        [
            ("spec.phases.0.window", {"notBefore": "2026-12-07T00:00:00Z", "deadlineSeconds": 604801}),
            ("spec.phases.2.window", {"notBefore": "2026-12-14T00:00:00Z"}),
        ],
        "spec.phases",
        "the windows of two phases overlap",
    ),
    "no time to find room for all replicas": (
        [("spec.phases.1.workers", {"replicas": 2, "minReplicas": 1, "allReplicasDeadlineSeconds": 0})],
        "spec.phases[1].workers.allReplicasDeadlineSeconds",
        "greater than or equal to 1",
    ),
    "pods for a Release phase": (
        [("spec.phases.3.resources", {"limits": {"memory": "1Gi"}})],
        "spec.phases",
        "a Release phase has no pods; leave workers, resources and placement out",
    ),
    "a resource of no known name": (
        [("spec.phases.1.resources", {"limits": {"gpu": 1}})],
        "spec.phases[1].resources.limits",
        "or an extended one with its domain, for example nvidia.com/gpu",
    ),
    "a negative request": (
        [("spec.phases.1.resources", {"requests": {"cpu": -1}})],
        "spec.phases[1].resources.requests",
        "may not be negative",
    ),
    "half a GPU": (
        [("spec.phases.1.resources", {"limits": {"nvidia.com/gpu": "500m"}})],
        "spec.phases[1].resources.limits",
        "is counted in whole numbers",
    ),
    "more asked for than allowed": (
        [("spec.phases.1.resources", {"requests": {"memory": "2Gi"}, "limits": {"memory": "2G"}})],
        "spec.phases[1].resources",
        "a request may not be greater than the limit of the same resource",
    ),
    "a GPU that is only asked for": (
        [("spec.phases.1.resources", {"requests": {"nvidia.com/gpu": 1}})],
        "spec.phases[1].resources",
        "an extended resource such as nvidia.com/gpu stands in limits",
    ),
    "a queue in capitals": ([("spec.phases.1.placement", {"queueName": "Research"})], "spec.phases[1].placement.queueName", "should match"),
    "a label of nodes that is none": (
        [("spec.phases.1.placement", {"nodeSelector": {"a b": "c"}})],
        "spec.phases[1].placement.nodeSelector",
        "the key of a label is a name, alone or after a domain and a slash",
    ),
    "a label of nodes that is long": (
        [("spec.phases.1.placement", {"nodeSelector": {"example.org/" + "x" * 306: "c"}})],
        "spec.phases[1].placement.nodeSelector",
        "the key of a label has at most 317 characters",
    ),
    "a resource with a long name that is asked for": (
        [("spec.phases.1.resources", {"requests": {"hugepages-" + "x" * 308: 1}})],
        "spec.phases[1].resources.requests",
        "the name of a resource has at most 317 characters",
    ),
    "a resource with a long name": (
        [("spec.phases.1.resources", {"limits": {"example.org/" + "x" * 306: 1}})],
        "spec.phases[1].resources.limits",
        "the name of a resource has at most 317 characters",
    ),
    "a phase before the cluster's own pods": (
        [("spec.phases.1.placement", {"priorityClassName": "system-node-critical"})],
        "spec.phases[1].placement.priorityClassName",
        "priority classes that begin with system- are Kubernetes' own",
    ),
    "a spread of unknown kind": (
        [("spec.phases.1.placement", {"topologySpread": [{"topologyKey": "zone", "whenUnsatisfiable": "Maybe"}]})],
        "spec.phases[1].placement.topologySpread[0].whenUnsatisfiable",
        '"DoNotSchedule", "ScheduleAnyway"',
    ),
    "no attempts": ([("spec.phases.1.attempts", 0)], "spec.phases[1].attempts", "greater than or equal to 1"),
    "a quantity with an unknown unit": (
        [("spec.phases.1.resources", {"limits": {"memory": "4GB"}})],
        "spec.phases[1].resources.limits",
        "should match",
    ),
    "a gate with one sample": (
        [("spec.phases.2.gates.0.minimumSamples", 1)],
        "spec.phases[2].gates[0].minimumSamples",
        "greater than or equal to 2",
    ),
    "a path that climbs out of the storage": (
        [("spec.phases.0.curate.sources.0.path", "../../etc")],
        "spec.phases[0].curate.sources[0].path",
        "should match",
    ),
    "an absolute path": ([("spec.phases.0.curate.sources.0.path", "/etc")], "spec.phases[0].curate.sources[0].path", "should match"),
    "a table that climbs out of its folder": (
        [("spec.phases.0.curate.sources.0.table", "../videos.csv")],
        "spec.phases[0].curate.sources[0].table",
        "should match",
    ),
    "a table that is no CSV or JSONL": (
        [("spec.phases.0.curate.sources.0.table", "videos.xlsx")],
        "spec.phases[0].curate.sources[0].table",
        "should match",
    ),
    "clips that span more of a video than is held out in one piece": (
        [("spec.recipe.frames", 128), ("spec.phases.0.curate.frameStride", 9)],
        "spec.phases",
        "may span 1024 frames of a video",
    ),
    "a dataset version that is its own parent": (
        [("spec.phases.0.curate.parent", "1")],
        "spec.phases[0].curate",
        "parent must be another version than this one",
    ),
    "a shortest video that is longer than the longest": (
        [("spec.phases.0.curate.filters", {"length": {"minimumSeconds": 60, "maximumSeconds": 10}})],
        "spec.phases[0].curate.filters.length",
        "minimumSeconds may not be above maximumSeconds",
    ),
    "a shortest caption that is longer than the longest default": (
        [("spec.phases.0.curate.filters", {"caption": {"minimumCharacters": 2000}})],
        "spec.phases[0].curate.filters.caption",
        "minimumCharacters may not be above maximumCharacters",
    ),
    "more than everything rejected": (
        [("spec.phases.0.curate.maximumRejectedPercent", 101)],
        "spec.phases[0].curate.maximumRejectedPercent",
        "less than or equal to 100",
    ),
    "an unknown filter": ([("spec.phases.0.curate.filters", {"blur": {}})], "spec.phases[0].curate.filters.blur", "unknown field"),
    "a claim's name with a slash": ([("spec.storage.claimName", "a/b")], "spec.storage.claimName", "should match"),
    "no recipe": ([("spec.recipe", ABSENT)], "spec.recipe", "Required value"),
    "no phases": ([("spec.phases", [])], "spec.phases", "should have at least 1 items"),
    "17 phases": ([("spec.phases", in_order("C" * 17))], "spec.phases", "must have at most 16 items"),
    "two phases of one name": ([("spec.phases.1.name", "curate")], "spec.phases[1]", "Duplicate value"),
    "a phase's name with a capital": ([("spec.phases.1.name", "Train")], "spec.phases[1].name", "should match"),
    "a phase's name of 31 characters": ([("spec.phases.1.name", "a" * 31)], "spec.phases[1].name", "30"),
    "a run's name of 41 characters": ([("metadata.name", "a" * 41)], "<nil>", "metadata.name must have at most 40 characters"),
    "a run's name that begins with a digit": ([("metadata.name", "1-run")], "<nil>", "begin with a letter"),
    "a run's name with a dot": ([("metadata.name", "run.one")], "<nil>", "contain only a-z, 0-9 and hyphens"),
    "a run's name with a capital": ([("metadata.name", "Run")], "metadata.name", "lowercase RFC 1123"),
    "initFrom with release and run": ([("spec.initFrom", INIT | {"run": "old"})], "spec.initFrom", "set exactly one of release and run"),
    "initFrom that names the run itself": ([("spec.initFrom", {"run": "run"})], "spec.initFrom.run", "initFrom.run names the run itself"),
    "initFrom with nothing": ([("spec.initFrom", {})], "spec.initFrom", "set exactly one of release and run"),
    "held-out clips in a Train phase": (
        [("spec.phases.1.data.0.split", "HeldOut")],
        "spec.phases",
        "a training phase may not read the HeldOut split",
    ),
    "a Train phase without data": ([("spec.phases.1.data", ABSENT)], "spec.phases", "needs at least one entry in data"),
    "an Evaluate phase without data": ([("spec.phases.2.data", [])], "spec.phases", "needs at least one entry in data"),
    "a Train phase with a curate block": ([("spec.phases.1.curate", CURATE["curate"])], "spec.phases", "a Curate phase, and no other"),
    "a Curate phase without its block": ([("spec.phases.0.curate", ABSENT)], "spec.phases", "has a curate block"),
    "a Train phase with a release block": ([("spec.phases.1.release", RELEASE["release"])], "spec.phases", "a Release phase, and no other"),
    "a Release phase without its block": ([("spec.phases.3.release", ABSENT)], "spec.phases", "has a release block"),
    "a Train phase with gates": ([("spec.phases.1.gates", [GATE])], "spec.phases", "only an Evaluate phase has evaluate or gates"),
    "a Release phase with an evaluate block": (
        [("spec.phases.3.evaluate", {})],
        "spec.phases",
        "only an Evaluate phase has evaluate or gates",
    ),
    "a BuildTemplates phase without clips to compare with": (
        [("spec.phases.3", {"name": "templates", "task": "BuildTemplates"})],
        "spec.phases",
        "a BuildTemplates or TestScenarios phase needs at least one entry in data",
    ),
    "a BuildTemplates phase with gates": (
        [("spec.phases.3", TEMPLATES | {"gates": [GATE]})],
        "spec.phases",
        "only an Evaluate phase has evaluate or gates",
    ),
    "templates in an Evaluate phase": (
        [("spec.phases.2.templates", {})],
        "spec.phases",
        "only a BuildTemplates phase has a templates block",
    ),
    "scenarios in a BuildTemplates phase": (
        [("spec.phases.3", TEMPLATES | {"scenarios": {}})],
        "spec.phases",
        "only a TestScenarios phase has a scenarios block",
    ),
    "a TestScenarios phase with an evaluate block": (
        [("spec.phases.3", SCENARIOS | {"evaluate": {}})],
        "spec.phases",
        "only an Evaluate phase has evaluate or gates",
    ),
    "a gate on FVD in a TestScenarios phase": (
        [("spec.phases.3", SCENARIOS | {"gates": [GATE]})],
        "spec.phases",
        "gates of a TestScenarios phase are about ScenarioPassRatio or GenerationSeconds",
    ),
    "a gate of an Optimize phase on a network that it does not measure by": (
        [("spec.phases.4", OPTIMIZE | {"gates": [GATE | {"extractor": "i3d"}]})],
        "spec.phases",
        "an Optimize phase measures by video-classifier and text-video-encoder",
    ),
    "a gate of a TestScenarios phase on a network": (
        [("spec.phases.3", SCENARIOS | {"gates": [GATE | {"metric": "GenerationSeconds", "extractor": "video-classifier"}]})],
        "spec.phases",
        "a TestScenarios phase by none",
    ),
    "a gate on scenarios in an Evaluate phase": (
        [("spec.phases.2.gates.0.metric", "ScenarioPassRatio")],
        "spec.phases",
        "ScenarioPassRatio is measured there alone",
    ),
    "two types of one category": (
        [("spec.phases.3", TEMPLATES | {"templates": {"types": [FLOOD, FLOOD]}})],
        "spec.phases[3].templates.types[1]",
        "Duplicate value",
    ),
    "a category with a capital": (
        [("spec.phases.3", TEMPLATES | {"templates": {"types": [FLOOD | {"category": "Flood"}]}})],
        "spec.phases[3].templates.types[0].category",
        "should match",
    ),
    "a caption of two lines": (
        [("spec.phases.3", TEMPLATES | {"templates": {"types": [FLOOD | {"caption": "Flood\nnow"}]}})],
        "spec.phases[3].templates.types[0].caption",
        "should match",
    ),
    "more templates of a type than are drawn": (
        [("spec.phases.3", TEMPLATES | {"templates": {"variations": 2, "minimumVariations": 3}})],
        "spec.phases[3].templates",
        "minimumVariations may not be greater than variations",
    ),
    "a coherence above 1": (
        [("spec.phases.3", TEMPLATES | {"templates": {"quality": {"minimumCoherence": "1.5"}}})],
        "spec.phases[3].templates.quality.minimumCoherence",
        "should match",
    ),
    "scenarios without time": (
        [("spec.phases.3", SCENARIOS | {"scenarios": {"maximumSeconds": 0}})],
        "spec.phases[3].scenarios.maximumSeconds",
        "greater than or equal to 1",
    ),
    "a table of scenarios that is no CSV or JSONL": (
        [("spec.phases.3", SCENARIOS | {"scenarios": {"table": "scenarios.xlsx"}})],
        "spec.phases[3].scenarios.table",
        "should match",
    ),
    "a rollout of the Release phase that falls": (
        [("spec.phases.3.release.rollout", {"steps": [{"weightPercent": 50}, {"weightPercent": 10}]})],
        "spec.phases[3].release.rollout.steps",
        "must rise from step to step",
    ),
    "two CLIP networks": (
        [("spec.phases.2.evaluate", {"extractors": [CLIP | {"name": f"clip-{number}"} for number in range(2)]})],
        "spec.phases[2].evaluate.extractors",
        "at most 1 of the extractors may be a CLIP network",
    ),
    "an extractor with the name of one of the trainer's": (
        [("spec.phases.2.evaluate", {"extractors": [CLIP | {"name": "text-video-encoder"}]})],
        "spec.phases[2].evaluate.extractors",
        "video-classifier and text-video-encoder are the trainer's own networks",
    ),
    "a train block of a phase that does not train": (
        [("spec.phases.2.train", {})],
        "spec.phases",
        "only a training phase, Train, FineTune",
    ),
    "a phase's warm-up longer than its training": (
        [("spec.phases.1.train", {"steps": 10, "warmupSteps": 11})],
        "spec.phases",
        "may not be greater than the phase's steps",
    ),
    "the recipe's warm-up in a phase of fewer steps": (
        [("spec.recipe.schedule", {"warmupSteps": 50}), ("spec.phases.1.train", {"steps": 49})],
        "spec.phases",
        "the recipe's schedule.warmupSteps in its place",
    ),
    "a phase's warm-up longer than the recipe's training": (
        [("spec.phases.1.train", {"warmupSteps": 101})],
        "spec.phases",
        "may not be greater than the phase's steps",
    ),
    "a Train phase of no steps": ([("spec.phases.1.train", {"steps": 0})], "spec.phases", "must be greater than or equal to 1; an Adapt"),
    "a FineTune phase of an image model of no steps": (
        [ZERO_STEPS, of("Text2VideoZero"), ("spec.initFrom", INIT), ("spec.phases.1.task", "FineTune")],
        "spec.phases",
        "must be greater than or equal to 1; an Adapt",
    ),
    "a rate of a phase that is no number": (
        [("spec.phases.1.train", {"learningRate": "low"})],
        "spec.phases[1].train.learningRate",
        "should match",
    ),
    "an unknown value of a phase": ([("spec.phases.1.train", {"seed": 1})], "spec.phases[1].train.seed", "unknown field"),
    "a global batch that the processes of a FineTune phase cannot share": (
        [("spec.phases.1.task", "FineTune"), ("spec.phases.1.workers", {"processes": 3}), ("spec.initFrom", INIT)],
        "spec.recipe.globalBatchSize",
        "divisible by",
    ),
    "held-out clips in a FineTune phase": (
        [("spec.phases.1.task", "FineTune"), ("spec.phases.1.data.0.split", "HeldOut"), ("spec.initFrom", INIT)],
        "spec.phases",
        "a training phase may not read the HeldOut split",
    ),
    "a gate of an Optimize phase on a metric that needs a CLIP network": (
        [("spec.phases.4", OPTIMIZE | {"gates": [GATE | {"metric": "LanguageScore"}]})],
        "spec.phases",
        "LanguageScore is measured by an Evaluate phase alone",
    ),
    "an Optimize phase without its block": (
        [("spec.phases.4", OPTIMIZE), ("spec.phases.4.optimize", ABSENT)],
        "spec.phases",
        "an Optimize phase, and no other, has an optimize block",
    ),
    "a Train phase with an optimize block": ([("spec.phases.1.optimize", {})], "spec.phases", "an Optimize phase, and no other"),
    "an Optimize phase without data": (
        [("spec.phases.4", OPTIMIZE), ("spec.phases.4.data", [])],
        "spec.phases",
        "an Optimize phase needs at least one entry in data",
    ),
    "an Optimize phase in two pods": (
        [("spec.phases.4", OPTIMIZE), ("spec.phases.4.workers", {"replicas": 2})],
        "spec.phases",
        "a Curate, Optimize or BuildTemplates phase runs in one pod",
    ),
    "a Curate phase in two pods": ([("spec.phases.0.workers", {"replicas": 2})], "spec.phases", "phase runs in one pod"),
    "a BuildTemplates phase in two pods": (
        [("spec.phases.3", TEMPLATES | {"workers": {"replicas": 2}})],
        "spec.phases",
        "a Curate, Optimize or BuildTemplates phase runs in one pod",
    ),
    "an Optimize phase with an evaluate block": (
        [("spec.phases.4", OPTIMIZE), ("spec.phases.4.evaluate", {})],
        "spec.phases",
        "only an Evaluate phase has evaluate or gates; Optimize and TestScenarios phases have gates, too",
    ),
    "an optimisation that has nothing to do": (
        [("spec.phases.4", OPTIMIZE), ("spec.phases.4.optimize", {"maximumLoss": []})],
        "spec.phases[4].optimize",
        "choose Int8Weights or Float16Weights, or name formats",
    ),
    "TensorRT without ONNX": (
        [("spec.phases.4", OPTIMIZE), ("spec.phases.4.optimize", {"formats": ["TensorRT"]})],
        "spec.phases[4].optimize",
        "TensorRT plans are built from ONNX files; name both formats",
    ),
    "an unknown quantization": (
        [("spec.phases.4", OPTIMIZE), ("spec.phases.4.optimize", {"quantization": "Int4"})],
        "spec.phases[4].optimize.quantization",
        '"Int8Weights", "Float16Weights"',
    ),
    "a format that is named twice": (
        [("spec.phases.4", OPTIMIZE), ("spec.phases.4.optimize", {"formats": ["ONNX", "ONNX"]})],
        "spec.phases[4].optimize.formats[1]",
        "Duplicate value",
    ),
    "two bounds of one loss": (
        [
            ("spec.phases.4", OPTIMIZE),
            ("spec.phases.4.optimize", {"maximumLoss": [{"metric": "FVD", "maximum": number} for number in "12"]}),
        ],
        "spec.phases[4].optimize.maximumLoss[1]",
        "Duplicate value",
    ),
    "a bound of a metric that optimisation does not measure": (
        [
            ("spec.phases.4", OPTIMIZE),
            ("spec.phases.4.optimize", {"maximumLoss": [{"metric": "ScenarioPassRatio", "maximum": "0.1"}]}),
        ],
        "spec.phases[4].optimize.maximumLoss[0].metric",
        "an Optimize phase measures FVD, InceptionScore, CLIPScore, TemporalCoherence, ArtefactRate, GenerationSeconds; choose one of them",
    ),
    "a loss that may not even be as good": (
        [("spec.phases.4", OPTIMIZE), ("spec.phases.4.optimize", {"maximumLoss": [{"metric": "FVD", "maximum": "-1"}]})],
        "spec.phases[4].optimize.maximumLoss[0].maximum",
        "should match",
    ),
    "an extractor without a digest": (
        [("spec.phases.2.evaluate", {"extractors": [{"name": "i3d", "architecture": "I3D", "path": "x.safetensors"}]})],
        "spec.phases[2].evaluate.extractors[0].digest",
        "Required value",
    ),
    "a cache of encoders that VideoFusion does not have": (
        [("spec.recipe.cacheLatents", True)],
        "spec.recipe.cacheLatents",
        "needs encoders that do not learn",
    ),
    "a cache of encoders that learn": (
        [("spec.recipe.cacheLatents", True), of("Text2VideoZero")],
        "spec.recipe.cacheLatents",
        "Text2VideoZero with backbone or initFrom",
    ),
    "a tracking server with a password in its address": (
        [("spec.tracking", {"mlflow": {"uri": "https://me:secret@mlflow"}})],
        "spec.tracking.mlflow.uri",
        "should match",
    ),
    "a tracking server that is a folder": ([("spec.tracking", {"mlflow": {"uri": "file:///mlruns"}})], "spec.tracking.mlflow.uri", "match"),
    "a tracking server without TLS": ([("spec.tracking", {"mlflow": {"uri": "http://mlflow:5000"}})], "spec.tracking.mlflow.uri", "match"),
    "tracking by nobody": ([("spec.tracking", {})], "spec.tracking.mlflow", "Required value"),
}

BAD_ORDERS = {
    "RE": "the Release phase must be the last one",
    "TRE": "the Release phase must be the last one",
    "TERC": "the Release phase must be the last one",
    "TERR": "at most one Release phase",
    "TR": "a Release phase needs an Evaluate phase before it",
    "CTR": "a Release phase needs an Evaluate phase before it",
    "R": "a Release phase needs an Evaluate phase before it",
    "CR": "a Release phase needs an Evaluate phase before it",
    "ET": "the last Evaluate phase must come after the last training phase",
    "TET": "the last Evaluate phase must come after the last training phase",
    "ETR": "the last Evaluate phase must come after the last training phase",
    "TETR": "the last Evaluate phase must come after the last training phase",
    "TC": "Curate phases must come before the first training or Evaluate phase",
    "CTCE": "Curate phases must come before the first training or Evaluate phase",
    "TCE": "Curate phases must come before the first training or Evaluate phase",
    "TECR": "Curate phases must come before the first training or Evaluate phase",
    "U": "a Tune phase needs a Train or FineTune phase after it",
    "TU": "a Tune phase needs a Train or FineTune phase after it",
    "TUE": "a Tune phase needs a Train or FineTune phase after it",
    "UTUE": "a Tune phase needs a Train or FineTune phase after it",
    "UCTE": "Curate phases must come before the first Tune phase",
    "TEBT": "after a BuildTemplates or TestScenarios phase there may only be phases that leave the weights as they are",
    "TEST": "after a BuildTemplates or TestScenarios phase there may only be phases that leave the weights as they are",
    "TEBTE": "after a BuildTemplates or TestScenarios phase there may only be phases that leave the weights as they are",
    "TEBC": "after a BuildTemplates or TestScenarios phase there may only be phases that leave the weights as they are",
    "TEBB": "a run has at most one BuildTemplates phase",
    "TEBRS": "the Release phase must be the last one",
    "TBR": "a Release phase needs an Evaluate phase before it",
    "TB": "without initFrom, a run that has a BuildTemplates or TestScenarios phase needs an Evaluate phase",
    "S": "without initFrom, a run that has a BuildTemplates or TestScenarios phase needs an Evaluate phase",
    "O": "without initFrom, a run that has an Evaluate, Optimize or Release phase needs a training phase",
    "CO": "without initFrom, a run that has an Evaluate, Optimize or Release phase needs a training phase",
    "TOO": "a run has at most one Optimize phase",
    "OT": "the Optimize phase must come after all Curate, Tune and training phases",
    "TOTE": "the Optimize phase must come after all Curate, Tune and training phases",
    "TOC": "the Optimize phase must come after all Curate, Tune and training phases",
    "TEOR": "an Optimize phase before a Release phase needs gates, or an Evaluate phase after it",
    "TOR": "a Release phase needs an Evaluate phase before it",
    "E": "without initFrom, a run that has an Evaluate, Optimize or Release phase needs a training phase",
    "CER": "without initFrom, a run that has an Evaluate, Optimize or Release phase needs a training phase",
}
GOOD_ORDERS = [
    "C",
    "CC",
    "T",
    "TT",
    "CT",
    "TE",
    "CTE",
    "TTE",
    "TETE",
    "TER",
    "CTER",
    "CCTTEER",
    "UT",
    "CUTE",
    "TEUTER",
    "UUT",
    "TEB",
    "TES",
    "TEBSR",
    "TBESR",
    "TESBER",
    "TO",
    "CTTO",
    "TEO",
    "TOE",
    "TOER",
    "CTEOER",
    "TOEBSR",
]

# Family and phases (edits.TASKS), with initFrom or without.
FROM_SCRATCH, FROM_WEIGHTS = False, True
BAD_SCHEDULES: dict[tuple[str, str, bool], str] = {
    ("VideoFusion", "F", FROM_SCRATCH): "it needs initFrom, or a Train phase before it",
    ("VideoFusion", "FTE", FROM_SCRATCH): "it needs initFrom, or a Train phase before it",
    ("VideoFusion", "UFE", FROM_SCRATCH): "it needs initFrom, or a Train phase before it",
    ("VideoFusion", "FUE", FROM_WEIGHTS): "a Tune phase needs a Train or FineTune phase after it",
    ("VideoFusion", "A", FROM_WEIGHTS): "an Adapt phase is for models of family Text2VideoZero and AlignYourLatents",
    ("VideoFusion", "TX", FROM_SCRATCH): "phases are for models of family AlignYourLatents",
    ("VideoFusion", "TI", FROM_SCRATCH): "phases are for models of family AlignYourLatents",
    ("Text2VideoZero", "X", FROM_WEIGHTS): "phases are for models of family AlignYourLatents",
    ("Text2VideoZero", "D", FROM_WEIGHTS): "phases are for models of family AlignYourLatents",
    ("Text2VideoZero", "A", FROM_SCRATCH): "it needs initFrom, recipe.backbone, or a Train phase before it",
    ("Text2VideoZero", "AT", FROM_SCRATCH): "it needs initFrom, recipe.backbone, or a Train phase before it",
    ("Text2VideoZero", "F", FROM_SCRATCH): "for models of family Text2VideoZero also an Adapt phase",
    ("AlignYourLatents", "X", FROM_SCRATCH): "it needs initFrom, or a Train phase before it",
    ("AlignYourLatents", "XT", FROM_SCRATCH): "it needs initFrom, or a Train phase before it",
    ("AlignYourLatents", "IT", FROM_SCRATCH): "it needs initFrom, or a Train phase before it",
    ("AlignYourLatents", "A", FROM_SCRATCH): "it needs initFrom, recipe.backbone, or a Train phase before it",
    ("AlignYourLatents", "DT", FROM_SCRATCH): "it needs initFrom, recipe.backbone, or a Train phase before it",
    ("AlignYourLatents", "TA", FROM_WEIGHTS): "must come before its other training phases",
    ("AlignYourLatents", "DA", FROM_WEIGHTS): "must come before its other training phases",
    ("AlignYourLatents", "ATA", FROM_WEIGHTS): "must come before its other training phases",
    ("AlignYourLatents", "TXEF", FROM_SCRATCH): "the last Evaluate phase must come after the last training phase",
    ("AlignYourLatents", "TXCE", FROM_SCRATCH): "Curate phases must come before the first training or Evaluate phase",
}
GOOD_SCHEDULES = [
    ("VideoFusion", "CTFER", FROM_SCRATCH),
    ("VideoFusion", "FE", FROM_WEIGHTS),
    ("VideoFusion", "UFE", FROM_WEIGHTS),
    ("VideoFusion", "TUFE", FROM_SCRATCH),
    ("Text2VideoZero", "TAFE", FROM_SCRATCH),
    ("Text2VideoZero", "AER", FROM_WEIGHTS),
    ("AlignYourLatents", "TXFER", FROM_SCRATCH),
    ("AlignYourLatents", "ATXFER", FROM_WEIGHTS),
    ("AlignYourLatents", "CTDXIFER", FROM_SCRATCH),
    ("AlignYourLatents", "D", FROM_WEIGHTS),
    ("AlignYourLatents", "FXE", FROM_WEIGHTS),
]

BAD_RELEASES: dict[str, tuple[list[tuple[str, Any]], str, str]] = {
    "a name of another version": (
        [("spec.model.version", "1.0.1")],
        "spec.model",
        "metadata.name must be pib-videogen-<type>-v<version>-<specialization>",
    ),
    "a name of another specialization": ([("spec.model.specialization", "news")], "spec.model", "made from spec.model"),
    "a name of another type": ([("spec.model.type", "base")], "spec.model", "without a type it is videofusion, align-your-latents,"),
    "a name of another family": ([("spec.model.family", "Text2VideoZero")], "spec.model", "made from spec.model"),
    "a free name": ([("metadata.name", "my-release")], "spec.model", "metadata.name must be pib-videogen-"),
    "a digest without its algorithm": ([("spec.artifact.digest", "a" * 64)], "spec.artifact.digest", "sha256:"),
    "a digest that is too short": ([("spec.artifact.digest", "sha256:abc")], "spec.artifact.digest", "should match"),
    "a service's name of 31 characters": ([("spec.service", "s" * 31)], "spec.service", "30"),
    "a service's name with an underscore": ([("spec.service", "a_b")], "spec.service", "should match"),
    "an unknown field": ([("spec.canary", True)], "spec.canary", "unknown field"),
    "a raw pod template": ([("spec.serving.podTemplate", {})], "spec.serving.podTemplate", "unknown field"),
    "a priority class of Kubernetes' own": (
        [("spec.serving.placement", {"priorityClassName": "system-node-critical"})],
        "spec.serving.placement.priorityClassName",
        "priority classes that begin with system- are Kubernetes' own",
    ),
    "a toleration of the control plane's taint": (
        [("spec.serving.placement", {"tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]})],
        "spec.serving.placement.tolerations[0]",
        "taint your nodes with a key of yours",
    ),
    "a toleration of any value that names one": (
        [("spec.serving.placement", {"tolerations": [{"key": "pool", "operator": "Exists", "value": "emergency"}]})],
        "spec.serving.placement.tolerations[0]",
        "a toleration with operator Exists has no value",
    ),
    "a toleration of every taint": (
        [("spec.serving.placement", {"tolerations": [{"operator": "Exists"}]})],
        "spec.serving.placement.tolerations[0].key",
        "Required value",
    ),
    "a toleration of another effect": (
        [("spec.serving.placement", {"tolerations": [{"key": "pool", "effect": "NoRun"}]})],
        "spec.serving.placement.tolerations[0].effect",
        "NoSchedule",
    ),
    "nodes with nine labels": (
        [("spec.serving.placement", {"nodeSelector": {f"label-{number}": "x" for number in range(9)}})],
        "spec.serving.placement.nodeSelector",
        "at most 8",
    ),
    "fewer steps at most than a request without STEPS gets": (
        [("spec.serving", {"samplingSteps": 50, "maximumSteps": 49})],
        "spec.serving",
        "maximumSteps may not be less than samplingSteps",
    ),
    "more steps at most than the diffusion has": ([("spec.serving", {"maximumSteps": 1001})], "spec.serving.maximumSteps", "1000"),
    "a node's label with a blank": (
        [("spec.serving.placement", {"nodeSelector": {"pool": "a b"}})],
        "spec.serving.placement.nodeSelector",
        "should match",
    ),
    "a node's label that is long": (
        [("spec.serving.placement", {"nodeSelector": {"x" * 318: "c"}})],
        "spec.serving.placement.nodeSelector",
        "the key of a label has at most 317 characters",
    ),
    "steps that fall": (
        [("spec.rollout.steps", [{"weightPercent": 50}, {"weightPercent": 10}])],
        "spec.rollout.steps",
        "weightPercent must rise from step to step, for example 10 then 50",
    ),
    "steps that stay": (
        [("spec.rollout.steps", [{"weightPercent": 50}, {"weightPercent": 50}])],
        "spec.rollout.steps",
        "weightPercent must rise from step to step",
    ),
    "a step of 0 %": (
        [("spec.rollout.steps", [{"weightPercent": 0}])],
        "spec.rollout.steps[0].weightPercent",
        "greater than or equal to 1",
    ),
    "a step of 101 %": (
        [("spec.rollout.steps", [{"weightPercent": 101}])],
        "spec.rollout.steps[0].weightPercent",
        "less than or equal to 100",
    ),
    "eleven steps": (
        [("spec.rollout.steps", [{"weightPercent": weight} for weight in range(1, 12)])],
        "spec.rollout.steps",
        "must have at most 10 items",
    ),
    "two checks of one name": (
        [("spec.rollout.checks.1", {"name": "errors", "metric": "LatencyP95Seconds"})],
        "spec.rollout.checks[1]",
        "Duplicate value",
    ),
    "a check of an offline metric": (
        [("spec.rollout.checks.0.metric", "FVD")],
        "spec.rollout.checks[0].metric",
        '"LatencyP95Seconds", "ErrorRatio"',
    ),
    "a check whose bound is a float": (
        [("spec.rollout.checks.0.maximum", 0.01)],
        "spec.rollout.checks[0].maximum",
        "must be of type string",
    ),
    "a floor for a comparison that is not made": (
        [("spec.rollout.checks.0", {"name": "errors", "metric": "ErrorRatio", "maximum": "0.1", "minimumDifference": "0.01"})],
        "spec.rollout.checks[0]",
        "minimumDifference needs maximumRatioToStable",
    ),
    "a check with a window of one second": (
        [("spec.rollout.checks.0.windowSeconds", 1)],
        "spec.rollout.checks[0].windowSeconds",
        "greater than or equal to 5",
    ),
    "no replicas": ([("spec.serving", {"replicas": 0})], "spec.serving.replicas", "greater than or equal to 1"),
    "a negative window for rollbacks": (
        [("spec.rollback", {"windowSeconds": -1})],
        "spec.rollback.windowSeconds",
        "greater than or equal to 0",
    ),
    "a gate on scenarios": (
        [("spec.gates", [GATE | {"metric": "ScenarioPassRatio"}])],
        "spec.gates",
        "ScenarioPassRatio is judged by the gates of a TestScenarios phase",
    ),
    "more memory than its limit": (
        [("spec.serving.resources", {"requests": {"memory": "3Gi"}, "limits": {"memory": "2Gi"}})],
        "spec.serving.resources",
        "a request may not be greater than the limit of the same resource",
    ),
    "a queue, which releases do not have": (
        [("spec.serving.placement", {"queueName": "a"})],
        "spec.serving.placement.queueName",
        "unknown field",
    ),
    "two spreads over the same places": (
        [("spec.serving.placement", {"topologySpread": [{"topologyKey": "zone"}, {"topologyKey": "zone"}]})],
        "spec.serving.placement.topologySpread[1]",
        "Duplicate value",
    ),
    "an artifact without a claim": ([("spec.artifact.claimName", ABSENT)], "spec.artifact.claimName", "Required value"),
}

FIXED_WHILE_A_RUN_WORKS: dict[str, list[tuple[str, Any]]] = {
    "model": [("spec.model.version", "1.0.1")],
    "storage": [("spec.storage.claimName", "other")],
    "initFrom": [("spec.initFrom.release", "pib-videogen-videofusion-v0.8.0-base")],
    "initFrom, taken away": [("spec.initFrom", ABSENT)],
    "recipe": [("spec.recipe.steps", 200)],
    "phases": [("spec.phases.1.attempts", 5)],
    "phases, one more": [("spec.phases.0", {**CURATE, "name": "curate-more"})],
    "tracking": [("spec.tracking.mlflow.uri", "https://other:5000")],
    "tracking, taken away": [("spec.tracking", ABSENT)],
}
IMMUTABLE_IN_A_RELEASE: dict[str, list[tuple[str, Any]]] = {
    "service": [("spec.service", "premium")],
    "model": [("spec.model.specialization", "news")],
    "artifact": [("spec.artifact.digest", "sha256:" + "b" * 64)],
    "lineage": [("spec.lineage.run", "another")],
    "lineage, taken away": [("spec.lineage.run", ABSENT)],
    "gates": [("spec.gates.0.threshold", "900")],
    "gates, taken away": [("spec.gates", [])],
    "serving.samplingSteps": [("spec.serving.samplingSteps", 4)],
    "rollout.steps": [("spec.rollout.steps.0.minimumRequests", 1)],
    "rollout.steps, taken away": [("spec.rollout.steps", [])],
    "rollout.checks": [("spec.rollout.checks.0.maximum", "0.9")],
    "rollout.checks, taken away": [("spec.rollout.checks", [])],
    "rollout.failureLimit": [("spec.rollout.failureLimit", 100)],
}
MUTABLE: dict[str, list[tuple[str, Any]]] = {
    "suspend": [("spec.suspend", True)],
    "ttlSecondsAfterFinished": [("spec.ttlSecondsAfterFinished", 60)],
    "checkpointRetention": [("spec.checkpointRetention", "Always")],
    "serving.replicas": [("spec.serving.replicas", 3)],
    "serving.resources": [("spec.serving.resources", {"limits": {"memory": "3Gi"}})],
    "serving.placement": [("spec.serving.placement", {"nodeSelector": {"pool": "new"}})],
    "serving.capacity": [("spec.serving.capacity", "RequestNodes")],
    "serving.timeoutSeconds": [("spec.serving.timeoutSeconds", 90)],
    "serving.startDeadlineSeconds": [("spec.serving.startDeadlineSeconds", 1200)],
    "serving.maximumSteps": [("spec.serving.maximumSteps", 60)],
    "rollout.checkIntervalSeconds": [("spec.rollout.checkIntervalSeconds", 60)],
    "rollback": [("spec.rollback", {"onAlert": False, "windowSeconds": 60})],
}


@pytest.mark.parametrize("sentence", BAD_RUNS)
def test_a_run_is_refused_for(api: Api, sentence: str) -> None:
    edits, field, accepted = BAD_RUNS[sentence]
    message = refusal(api, run_of(*edits))
    assert field in message
    assert accepted in message
    assert "evaluating rule" not in message, "a rule must not fail on what the schema refuses"


@pytest.mark.parametrize("sentence", BAD_RELEASES)
def test_a_release_is_refused_for(api: Api, sentence: str) -> None:
    edits, field, accepted = BAD_RELEASES[sentence]
    message = refusal(api, release_of(*edits))
    assert field in message
    assert accepted in message


RELEASE_NAMES = {  # R-VER; the first one is the document's own example
    "pib-videogen-base-v1.2.3-multilingual": {
        "family": "VideoFusion",
        "type": "base",
        "version": "1.2.3",
        "specialization": "multilingual",
    },
    "pib-videogen-videofusion-v1.0.0-base": {"family": "VideoFusion", "version": "1.0.0"},
    "pib-videogen-align-your-latents-v0.10.0-base": {"family": "AlignYourLatents", "version": "0.10.0"},
    "pib-videogen-text2video-zero-v1.0.0-emergency": {"family": "Text2VideoZero", "version": "1.0.0", "specialization": "emergency"},
    "pib-videogen-basev2-v1.0.0-base": {"family": "AlignYourLatents", "type": "basev2", "version": "1.0.0"},
}


@pytest.mark.parametrize("name", RELEASE_NAMES)
def test_a_release_is_named_after_its_model(api: Api, name: str) -> None:
    api.create(RELEASES.format("default") + STRICT, release_of(("metadata.name", name), ("spec.model", RELEASE_NAMES[name])))
    api.create(RUNS.format("default") + STRICT, run_of(*_made_by(RELEASE_NAMES[name])))


def _made_by(model: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The edits that make it a run of this model, with nothing that other families do not have."""
    return [("spec.model", model), ("spec.phases", [CURATE])]


@pytest.mark.parametrize("tasks", BAD_ORDERS)
def test_phases_are_refused_in_the_order(api: Api, tasks: str) -> None:
    message = refusal(api, a_run(namespace="default", phases=in_order(tasks)))
    assert "spec.phases" in message
    assert BAD_ORDERS[tasks] in message


@pytest.mark.parametrize("tasks", GOOD_ORDERS)
def test_phases_are_accepted_in_the_order(api: Api, tasks: str) -> None:
    api.create(RUNS.format("default") + STRICT, a_run(namespace="default", phases=in_order(tasks)))


def scheduled(family: str, tasks: str, weights: bool) -> dict[str, Any]:
    more: dict[str, Any] = {"initFrom": INIT} if weights else {}
    return a_run(namespace="default", model={"family": family, "version": "1.0.0"}, phases=in_order(tasks), **more)


@pytest.mark.parametrize("family, tasks, weights", BAD_SCHEDULES)
def test_a_schedule_is_refused(api: Api, family: str, tasks: str, weights: bool) -> None:
    message = refusal(api, scheduled(family, tasks, weights))
    assert "spec.phases" in message
    assert BAD_SCHEDULES[family, tasks, weights] in message


@pytest.mark.parametrize("family, tasks, weights", GOOD_SCHEDULES)
def test_a_schedule_is_accepted(api: Api, family: str, tasks: str, weights: bool) -> None:
    api.create(RUNS.format("default") + STRICT, scheduled(family, tasks, weights))


def test_an_image_model_may_be_adapted_in_no_steps_and_a_phase_has_its_own_rate(api: Api) -> None:
    adapt = [of("Text2VideoZero"), ("spec.recipe.backbone", BACKBONE), ("spec.phases.1.task", "Adapt")]
    made = api.create(RUNS.format("default") + STRICT, run_of(*adapt, ("spec.phases.1.train", {"steps": 0})))
    assert made["spec"]["phases"][1]["train"] == {"steps": 0}
    own = {"steps": 5000, "learningRate": "1e-6", "warmupSteps": 100}
    made = api.create(RUNS.format("default") + STRICT, run_of(("spec.phases.1.train", own)))
    assert made["spec"]["phases"][1]["train"] == own


def test_people_may_be_asked_before_between_and_after_all_phases_but_the_release(api: Api) -> None:
    phases = [APPROVE | {"name": "first"}, CURATE, APPROVE | {"name": "second"}, TRAIN, EVALUATE, APPROVE | {"name": "third"}, RELEASE]
    made = api.create(RUNS.format("default") + STRICT, a_run(namespace="default", phases=phases))
    told = {one["name"]: one["approvals"] for one in made["spec"]["phases"] if "approvals" in one}
    assert told == dict.fromkeys(("first", "second", "third"), APPROVE["approvals"])


def test_a_burst_pool_and_a_time_to_find_nodes_for_a_whole_gang_are_taken(api: Api) -> None:
    pool = {"afterSeconds": 3600, "nodeSelector": {"pool": "cloud"}, "tolerations": [{"key": "cloud", "operator": "Exists"}]}
    edits = [("spec.phases.1.placement", {"burst": pool}), ("spec.phases.1.workers", {"replicas": 2, "allReplicasDeadlineSeconds": 60})]
    made = api.create(RUNS.format("default") + STRICT, run_of(*edits))
    assert made["spec"]["phases"][1]["placement"]["burst"] == pool


def test_windows_may_touch_and_are_kept_as_they_were_written(api: Api) -> None:
    first = {"notBefore": "2026-12-07T05:30:00+05:30", "deadlineSeconds": 604800}
    second = {"notBefore": "2026-12-14T00:00:00Z", "deadlineSeconds": 60}
    edits = [("spec.phases.0.window", first), ("spec.phases.1.window", {"deadlineSeconds": 9}), ("spec.phases.2.window", second)]
    made = api.create(RUNS.format("default") + STRICT, run_of(*edits, ("spec.phases.2.owner", "qa")))
    assert [one.get("window") for one in made["spec"]["phases"][:3]] == [first, {"deadlineSeconds": 9}, second]


def test_a_family_takes_its_own_block_and_an_image_model(api: Api) -> None:
    zero = [of("Text2VideoZero"), ZERO_STEPS, ("spec.recipe.backbone", BACKBONE), ("spec.recipe.text2VideoZero", {"motionRight": "-1"})]
    made = api.create(RUNS.format("default") + STRICT, run_of(*zero))
    assert made["spec"]["recipe"]["text2VideoZero"]["warpAt"] == 881
    latents = [of("AlignYourLatents"), ("spec.recipe.alignYourLatents", {"contextFrames": 2, "contextGuidance": "2"})]
    made = api.create(RUNS.format("default") + STRICT, run_of(*latents, ("spec.initFrom", INIT)))
    assert made["spec"]["recipe"]["alignYourLatents"]["consistencyWeight"] == "0.5"
    assert "videoFusion" not in made["spec"]["recipe"], "nobody's default appears in another family's object"


SHARES: dict[str, dict[str, Any]] = {  # R-LAM; both ends of each range
    "no scenario, least": {"baseNoiseShare": "0.65"},
    "no scenario, most": {"residualNoiseShare": "0.25"},
    "Standard, least": {"baseScenario": "Standard", "baseNoiseShare": "0.65"},
    "Standard, most": {"baseScenario": "Standard", "baseNoiseShare": "0.75", "residualNoiseShare": "0.25"},
    "HighDetail, least": {"baseScenario": "HighDetail", "baseNoiseShare": "0.60"},
    "HighDetail, most": {"baseScenario": "HighDetail"},
    "TextHeavy, least": {"baseScenario": "TextHeavy", "baseNoiseShare": "0.75"},
    "TextHeavy, most": {"baseScenario": "TextHeavy", "residualNoiseShare": "0.15"},
    "HighMotion, least": {"residualScenario": "HighMotion", "residualNoiseShare": "0.35"},
    "HighMotion, most": {"residualScenario": "HighMotion", "baseNoiseShare": "0.55"},
    "Static, least": {"residualScenario": "Static", "baseNoiseShare": "0.8"},
    "Static, most": {"residualScenario": "Static"},
    "TextHeavy and Static": {"baseScenario": "TextHeavy", "residualScenario": "Static", "baseNoiseShare": "0.78"},
    "HighDetail and Static": {"baseScenario": "HighDetail", "residualScenario": "Static", "baseNoiseShare": "0.70"},
    "each frame's own": {"baseNoiseShares": ["0.65", "1", "0.75"]},
    "each frame's own, HighMotion": {"baseNoiseShares": ["0.55", "1", "0.65"], "residualScenario": "HighMotion"},
}


@pytest.mark.parametrize("sentence", SHARES)
def test_shares_of_the_noise_are_taken(api: Api, sentence: str) -> None:
    edits = [("spec.recipe.videoFusion", SHARES[sentence]), ("spec.recipe.frames", 3)]
    made = api.create(RUNS.format("default") + STRICT, run_of(*edits))["spec"]["recipe"]["videoFusion"]
    assert made == {"textGuidance": "1", "space": "Pixel"} | SHARES[sentence]


def test_an_experiment_takes_any_share_and_is_not_released(api: Api) -> None:
    experiment = ("spec.recipe.videoFusion", {"baseScenario": "Experimental", "baseNoiseShare": "0"})
    run = run_of(experiment)
    run["spec"]["phases"] = run["spec"]["phases"][:-1]
    api.create(RUNS.format("default") + STRICT, run)


def test_a_search_takes_both_ends_of_its_scenario_and_all_fields_of_videofusion(api: Api) -> None:
    plain = {"baseScenario": "TextHeavy", "baseNoiseShare": "0.80", "residualNoiseShare": "0.20", "textGuidance": "2.5"}
    made = api.create(RUNS.format("default") + STRICT, run_of(tuned_by(values=["0.75", "0.85"]), ("spec.recipe.videoFusion", plain)))
    assert made["spec"]["phases"][1]["tune"] | {"samples": 256, "samplingSteps": 50} == made["spec"]["phases"][1]["tune"]
    for source in (("spec.recipe.backbone", BACKBONE), ("spec.initFrom", INIT)):
        made = api.create(RUNS.format("default") + STRICT, run_of(("spec.recipe.videoFusion", {"space": "Latent"}), source))
        assert made["spec"]["recipe"]["videoFusion"]["space"] == "Latent"


def test_an_optimisation_takes_its_defaults_and_with_gates_may_be_released_at_once(api: Api) -> None:
    phases = in_order("TEOR")
    phases[2] |= {"gates": [GATE], "optimize": {"formats": ["ONNX"]}}
    made = api.create(RUNS.format("default") + STRICT, a_run(namespace="default", phases=phases))
    assert made["spec"]["phases"][2]["optimize"] == {
        "formats": ["ONNX"],
        "onnxTolerance": "1e-3",
        "samples": 256,
        "samplingSteps": 50,
        "maximumLoss": [],
    }


def test_how_a_recipe_is_computed_has_defaults_and_may_be_said(api: Api) -> None:
    recipe = api.create(RUNS.format("default") + STRICT, run_of())["spec"]["recipe"]
    assert (recipe["optimizer"]["name"], recipe["loss"], recipe["compile"]) == ("AdamW", {"noiseOffset": "0"}, False)
    assert not {"gradientCheckpointing", "sharding"} & recipe.keys()
    said = {"snrGamma": "5", "noiseOffset": "0.1", "predictionType": "VPrediction"}
    edits = [of("Text2VideoZero"), ("spec.recipe.loss", said), ("spec.recipe.optimizer", {"name": "AdamW8bit"})]
    made = api.create(RUNS.format("default") + STRICT, run_of(*edits, ("spec.recipe.compile", True)))
    assert made["spec"]["recipe"]["loss"] == said
    sharded = [("spec.recipe.sharding", "Full"), ("spec.recipe.gradientCheckpointing", False), ("spec.recipe.precision", "BF16")]
    assert api.create(RUNS.format("default") + STRICT, run_of(*sharded))["spec"]["recipe"]["gradientCheckpointing"] is False


def test_fewer_workers_may_be_what_divides_the_micro_batches_of_all(api: Api) -> None:
    workers = {"replicas": 4, "minReplicas": 3, "allReplicasDeadlineSeconds": 60}
    edits = [("spec.recipe.globalBatchSize", 12), ("spec.recipe.gradientAccumulationSteps", 3), ("spec.phases.1.workers", workers)]
    made = api.create(RUNS.format("default") + STRICT, run_of(*edits))["spec"]["phases"]
    assert made[1]["workers"] == workers
    assert not {"workers", "resources", "placement"} & made[2].keys(), "they have no defaults in the object"
    same = {"replicas": 1, "minReplicas": 1}
    assert api.create(RUNS.format("default") + STRICT, run_of(("spec.phases.1.workers", same)))


QUANTITIES = [4, 0, "4", "500m", "1.5", ".5", "5.", "+2", "1e3", "1E3", "12e-1", "1E", "100k", "3M", "2G", "1T", "1P", "128974848000m"]
QUANTITIES += ["250u", "1n", "64Ki", "512Mi", "2Gi", "1Ti", "1Pi", "1Ei"]


@pytest.mark.parametrize("amount", QUANTITIES)
def test_every_form_of_a_quantity_is_taken_as_it_is_and_is_one_to_the_operator(api: Api, amount: int | str) -> None:
    asked = {"requests": {"memory": amount}, "limits": {"memory": amount, "hugepages-2Mi": amount}}
    edits = [("spec.phases.1.resources", asked), ("spec.phases.3.release.serving", {"resources": asked})]
    phases = api.create(RUNS.format("default") + STRICT, run_of(*edits))["spec"]["phases"]
    assert phases[1]["resources"] == phases[3]["release"]["serving"]["resources"] == asked
    assert completed(Resources.model_validate(asked), cpu="1", memory="1Gi").requests is not None
    assert number(amount) >= 0


def test_extended_resources_of_any_domain_are_taken(api: Api) -> None:
    limits = {"nvidia.com/mig-1g.10gb": 2, "rdma/hca": "1", "ephemeral-storage": "500Gi", "cpu": 8}
    placement = {"queueName": "research", "nodeSelector": {"nvidia.com/gpu.product": "A100-SXM4-80GB"}, "priorityClassName": "training"}
    edits = [("spec.phases.1.resources", {"limits": limits, "requests": {"rdma/hca": 1}}), ("spec.phases.1.placement", placement)]
    made = api.create(RUNS.format("default") + STRICT, run_of(*edits, ("spec.recipe.globalBatchSize", 8)))["spec"]["phases"][1]
    assert (made["resources"]["limits"], made["placement"]) == (limits, placement)


def test_clips_span_as_much_as_is_held_out_in_one_piece_and_more_where_nothing_is(api: Api) -> None:
    stride = "spec.phases.0.curate.frameStride"
    for edits in (
        [("spec.recipe.frames", 128), (stride, 8)],
        [("spec.recipe.frames", 32), (stride, 33)],  # 1024 frames
        [("spec.recipe.frames", 128), (stride, 60), ("spec.phases.0.curate.heldOutPercent", 0)],
    ):
        api.create(RUNS.format("default") + STRICT, run_of(*edits))


def test_filters_are_named_and_take_their_defaults(api: Api) -> None:
    named = {"resolution": {}, "length": {}, "caption": {}, "motion": {}, "darkness": {}, "duplicates": {}}
    edits = [("spec.phases.0.curate.filters", named), ("spec.phases.0.curate.sceneCuts", {}), ("spec.phases.0.curate.parent", "0")]
    made = api.create(RUNS.format("default") + STRICT, run_of(*edits))
    curate = made["spec"]["phases"][0]["curate"]
    assert curate["filters"]["motion"] == {"minimum": "0.5"}
    assert curate["filters"]["length"] == {"minimumSeconds": 1, "maximumSeconds": 3600}
    assert (curate["sceneCuts"], curate["maximumRejectedPercent"]) == ({"threshold": 30}, 20)


def test_templates_and_scenarios_take_their_defaults(api: Api) -> None:
    gates = [{"metric": "ScenarioPassRatio", "operator": "GreaterThan", "threshold": "0.95"}]
    phases = [*in_order("TE"), TEMPLATES | {"templates": {"types": [FLOOD]}}, SCENARIOS | {"scenarios": {}, "gates": gates}]
    made = api.create(RUNS.format("default") + STRICT, a_run(namespace="default", phases=phases))
    templates, scenarios = made["spec"]["phases"][2]["templates"], made["spec"]["phases"][3]["scenarios"]
    assert templates["types"] == [FLOOD | {"urgency": "immediate"}]
    assert (templates["variations"], templates["quality"]) == (5, {"minimumCoherence": "0.5", "maximumArtefactRate": "0.1"})
    assert (scenarios["maximumSeconds"], scenarios["quality"]["minimumCoherence"]) == (60, "0.5")


def test_with_weights_to_start_from_an_evaluation_needs_no_training(api: Api) -> None:
    for tasks in ("E", "ER", "CE", "CER", "B", "BS", "EBSR", "O", "CO", "OER"):
        api.create(RUNS.format("default") + STRICT, a_run(namespace="default", phases=in_order(tasks), initFrom=INIT))


def test_a_release_may_have_nodes_of_its_own_and_go_before_others(api: Api) -> None:
    pool = {"videogen.pib.gov.in/pool": "emergency", "zone": ""}
    tolerations = [{"key": "videogen.pib.gov.in/pool", "value": "emergency", "effect": "NoSchedule"}, {"key": "spot", "operator": "Exists"}]
    placement = {"priorityClassName": "videogen-emergency", "nodeSelector": pool, "tolerations": tolerations}
    serving = {"placement": placement | {"topologySpread": [{"topologyKey": "kubernetes.io/hostname"}]}}
    made = api.create(RELEASES.format("default") + STRICT, release_of(("spec.serving", serving)))["spec"]["serving"]["placement"]
    assert (made["priorityClassName"], made["nodeSelector"]) == ("videogen-emergency", pool)
    assert made["tolerations"] == tolerations, "nothing is filled in within lists"
    assert made["topologySpread"] == [{"topologyKey": "kubernetes.io/hostname", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}]
    plain = api.create(RELEASES.format("default") + STRICT, release_of())["spec"]["serving"]
    assert not plain.keys() & {"placement", "resources"}, "they have no defaults in the object"
    phases = [*in_order("TE"), {**RELEASE, "release": {"service": "emergency", "serving": serving}}]
    run = api.create(RUNS.format("default") + STRICT, a_run(namespace="default", phases=phases))
    assert run["spec"]["phases"][2]["release"]["serving"]["placement"] == made


@pytest.fixture(scope="module")
def kept(plane: ControlPlane) -> Iterator[Mapping[str, Mapping[str, Any]]]:
    """A run and a release that exist."""
    api = plane.api
    objects = {
        "TrainingRun": (RUNS.format("default"), run_of(("metadata.name", "kept"), ("spec.initFrom", INIT), ("spec.tracking", TRACKING))),
        "ModelRelease": (RELEASES.format("default"), release_of(("spec.lineage", {"run": "kept"}), ("spec.gates", [GATE]))),
    }
    yield {kind: api.create(path, manifest) for kind, (path, manifest) in objects.items()}
    for path, manifest in objects.values():
        api.delete(f"{path}/{manifest['metadata']['name']}")


@pytest.mark.parametrize("field", FIXED_WHILE_A_RUN_WORKS)
def test_in_a_run_that_works_cannot_be_changed(api: Api, kept: Mapping[str, Any], field: str) -> None:
    message = change_refused(api, kept["TrainingRun"], FIXED_WHILE_A_RUN_WORKS[field])
    assert f"spec.{field.partition(',')[0]} can only be changed while the run is suspended" in message
    assert "set spec.suspend to true, make the change, then set it to false; or create a new TrainingRun instead" in message


@pytest.mark.parametrize("field", IMMUTABLE_IN_A_RELEASE)
def test_in_a_release_cannot_be_changed(api: Api, kept: Mapping[str, Any], field: str) -> None:
    message = change_refused(api, kept["ModelRelease"], IMMUTABLE_IN_A_RELEASE[field])
    assert f"spec.{field.partition(',')[0]} is immutable; release a new version instead" in message


@pytest.mark.parametrize("field", MUTABLE)
def test_can_be_changed_at_any_time(api: Api, kept: Mapping[str, Any], field: str) -> None:
    manifest = kept["TrainingRun" if field in {"suspend", "checkpointRetention", "ttlSecondsAfterFinished"} else "ModelRelease"]
    api.request("PUT", path_of(manifest) + STRICT, edited(manifest, *MUTABLE[field]))


def test_every_field_of_a_spec_is_known_to_be_mutable_or_immutable() -> None:
    immutable = FIXED_WHILE_A_RUN_WORKS.keys() | IMMUTABLE_IN_A_RELEASE.keys()
    for resource in RESOURCES:
        if resource.kind == "FineTuneCycle":  # test_fine_tune_cycle.py edits each of its fields
            continue
        fields = definition(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        for field, schema in fields.items():
            inner = [f"{field}.{name}" for name in schema["properties"]] if field in {"serving", "rollout"} else [field]
            for name in inner:
                assert (name in immutable) != (name in MUTABLE), f"{resource.kind}.spec.{name}"


def test_a_release_is_scaled_as_a_deployment_is_and_not_beyond_what_its_replicas_may_be(api: Api, namespace: str) -> None:
    manifest = release_of(("metadata.namespace", namespace))
    path = f"{RELEASES.format(namespace)}/{manifest['metadata']['name']}"
    api.create(RELEASES.format(namespace), manifest)
    api.merge(f"{path}/scale", {"spec": {"replicas": 5}})
    assert api.get(path)["spec"]["serving"]["replicas"] == 5
    api.merge(f"{path}/status", {"status": {"replicas": 3, "selector": "videogen.pib.gov.in/release=x"}})
    assert api.get(f"{path}/scale")["status"] == {"replicas": 3, "selector": "videogen.pib.gov.in/release=x"}
    with pytest.raises(Refused) as caught:
        api.merge(f"{path}/scale", {"spec": {"replicas": 0}})
    assert "greater than or equal to 1" in str(json.loads(caught.value.body)["message"])


def change_refused(api: Api, manifest: Mapping[str, Any], edits: list[tuple[str, Any]]) -> str:
    with pytest.raises(Refused) as caught:
        api.request("PUT", path_of(manifest) + STRICT, edited(manifest, *edits))
    assert caught.value.code == 422
    return str(json.loads(caught.value.body)["message"])


def path_of(manifest: Mapping[str, Any]) -> str:
    path = RUNS if manifest["kind"] == "TrainingRun" else RELEASES
    return f"{path.format(manifest['metadata']['namespace'])}/{manifest['metadata']['name']}"


def test_an_untouched_object_has_observed_generation_minus_one(kept: Mapping[str, Any]) -> None:
    assert [manifest["status"] for manifest in kept.values()] == [{"observedGeneration": -1}] * 2


def test_kubectl_explains_every_field(plane: ControlPlane) -> None:
    for resource in RESOURCES:
        told = kubectl(plane, "explain", "--recursive", "--output=plaintext-openapiv2", resource.plural)
        schema = definition(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for name in ("spec", "status"):
            for path, description in described(schema["properties"][name], f"{resource.plural}.{name}"):
                assert description, f"kubectl explain {path} would say nothing"
                assert path.rpartition(".")[2] in told, f"kubectl explain --recursive does not show {path}"


def test_kubectl_explain_shows_our_words(plane: ControlPlane) -> None:
    for path, words in {
        "trainingruns.spec.recipe.videoFusion.baseNoiseShare": "share of the noise variance that all frames",
        "trainingruns.spec.phases.data.split": "Train or HeldOut",
        "trainingruns.status.phases.attempts.counted": "used up one of the phase's attempts",
        "modelreleases.spec.rollout.steps.weightPercent": "Share of the service's traffic",
        "modelreleases.status.rollback.quarantined": "gets no traffic again",
    }.items():
        assert words in " ".join(kubectl(plane, "explain", path).split()), path


def described(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """Every field below a schema with its description."""
    inner = schema.get("items", schema)
    for name, field in inner.get("properties", {}).items():
        yield f"{path}.{name}", field.get("description", "")
        yield from described(field, f"{path}.{name}")


def kubectl(plane: ControlPlane, *arguments: str) -> str:
    command = [str(BINARIES / "kubectl"), f"--kubeconfig={plane.kubeconfig}", f"--cache-dir={plane.folder / 'kubectl'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
