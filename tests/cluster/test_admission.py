"""What the API server refuses, by our CRDs alone: each refusal names the field and says what is accepted.

Everything is a dry run against the real API server, as `kubectl apply --dry-run=server --validate=strict` does it.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from videogen_api.crd import RESOURCES, definition
from videogen_testing.control_plane import BINARIES, Api, ControlPlane, Refused
from videogen_testing.edits import ABSENT, CURATE, GATE, INIT, edited, in_order, release_of, run_of
from videogen_testing.runs import RELEASE, RUNS, a_run

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
    return "spec.model.type", family


ZERO_STEPS = ("spec.recipe.steps", 0)
BACKBONE = {"path": "raw/image-model", "sha256": "0" * 64}

# Sentence: edits, the field that the message names, and what it says is accepted.
CLIP = {"architecture": "CLIP", "path": "x.safetensors", "sha256": "0" * 64}
BAD_RUNS: dict[str, tuple[list[tuple[str, Any]], str, str]] = {
    "shares of the noise that do not add up to 1": (
        [("spec.recipe.videoFusion", {"baseNoiseShare": "0.70", "residualNoiseShare": "0.40"})],
        "spec.recipe.videoFusion",
        "must add up to 1, for example 0.70 and 0.30",
    ),
    "one share alone, whose default partner does not fit": (
        [("spec.recipe.videoFusion", {"baseNoiseShare": "0.5"})],
        "spec.recipe.videoFusion",
        "must add up to 1",
    ),
    "a share greater than 1": (
        [("spec.recipe.videoFusion", {"baseNoiseShare": "1.5", "residualNoiseShare": "0"})],
        "spec.recipe.videoFusion.baseNoiseShare",
        "should match",
    ),
    "a global batch that two workers cannot share": (
        [("spec.recipe.globalBatchSize", 5), ("spec.phases.1.resources", {"workers": 2})],
        "spec.recipe.globalBatchSize",
        "divisible by workers * processes per worker * gradientAccumulationSteps",
    ),
    "a global batch that the processes of a worker cannot share": (
        [("spec.phases.1.resources", {"processesPerWorker": 3})],
        "spec.recipe.globalBatchSize",
        "divisible by",
    ),
    "a global batch that the GPUs of a worker cannot share": (
        [("spec.phases.1.resources", {"gpusPerWorker": 8})],
        "spec.recipe.globalBatchSize",
        "else gpusPerWorker, else 1",
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
    "an unknown model family": ([("spec.model.type", "sora")], "spec.model.type", 'supported values: "videofusion"'),
    "an unknown task": ([("spec.phases.1.task", "Fine-tune")], "spec.phases[1].task", '"Curate", "Train", "Evaluate", "Release"'),
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
    "a video model without steps": ([ZERO_STEPS, of("align-your-latents")], "spec.recipe.steps", "greater than or equal to 1"),
    "steps below zero": ([("spec.recipe.steps", -1), of("text2video-zero")], "spec.recipe.steps", "greater than or equal to 0"),
    "another family's block": (
        [("spec.recipe.alignYourLatents", {}), of("text2video-zero")],
        "spec.recipe.alignYourLatents",
        "is for models of type align-your-latents",
    ),
    "a block beside VideoFusion": (
        [("spec.recipe.text2VideoZero", {})],
        "spec.recipe.text2VideoZero",
        "is for models of type text2video-zero",
    ),
    "VideoFusion's block in another family": (
        [("spec.recipe.videoFusion", {"baseLearningRateScale": "0.5"}), of("text2video-zero")],
        "spec.recipe.videoFusion",
        "is for models of type videofusion",
    ),
    "an image model for VideoFusion": (
        [("spec.recipe.backbone", BACKBONE)],
        "spec.recipe.backbone",
        "is for models of type align-your-latents",
    ),
    "two image models": (
        [("spec.recipe.backbone", BACKBONE), ("spec.initFrom", INIT), of("text2video-zero")],
        "spec.recipe.backbone",
        "not beside initFrom",
    ),
    "an unknown optimiser": ([("spec.recipe.optimizer", {"name": "Adam"})], "spec.recipe.optimizer.name", '"AdamW", "AdamW8bit"'),
    "a min-SNR gamma of zero": (
        [("spec.recipe.loss", {"snrGamma": "0.0"})],
        "spec.recipe.loss.snrGamma",
        "must be greater than 0, for example 5",
    ),
    "a noise offset greater than 1": ([("spec.recipe.loss", {"noiseOffset": "1.1"})], "spec.recipe.loss.noiseOffset", "should match"),
    "a prediction type of VideoFusion": (
        [("spec.recipe.loss", {"predictionType": "VPrediction"})],
        "spec.recipe.loss.predictionType",
        "is for models of type align-your-latents and text2video-zero",
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
    "an image model with an upper-case sum": (
        [("spec.recipe.backbone", BACKBONE | {"sha256": "A" * 64}), of("text2video-zero")],
        "spec.recipe.backbone.sha256",
        "should match",
    ),
    "guidance by frames that there are not": (
        [("spec.recipe.alignYourLatents", {"contextGuidance": "2"}), of("align-your-latents")],
        "spec.recipe.alignYourLatents",
        "needs contextFrames: 1",
    ),
    "a motion that ends before it begins": (
        [("spec.recipe.text2VideoZero", {"warpAt": 942}), of("text2video-zero")],
        "spec.recipe.text2VideoZero",
        "warpAt may not be greater than resumeAt",
    ),
    "a name that is too long for pods": (
        [("spec.model", {"type": "align-your-latents", "version": "10.20.30", "specialization": "a" * 20})],
        "spec.model",
        "45 characters together",
    ),
    "too many steps": ([("spec.recipe.steps", 10_000_001)], "spec.recipe.steps", "less than or equal to 10000000"),
    "a single frame": ([("spec.recipe.frames", 1)], "spec.recipe.frames", "greater than or equal to 2"),
    "a height that is no multiple of 8": ([("spec.recipe.resolution.height", 20)], "spec.recipe.resolution.height", "multiple of 8"),
    "a frame that is too large": ([("spec.recipe.resolution.width", 2048)], "spec.recipe.resolution.width", "less than or equal to 1024"),
    "no workers": ([("spec.phases.1.resources", {"workers": 0})], "spec.phases[1].resources.workers", "greater than or equal to 1"),
    "129 workers": ([("spec.phases.1.resources", {"workers": 129})], "spec.phases[1].resources.workers", "less than or equal to 128"),
    "no attempts": ([("spec.phases.1.attempts", 0)], "spec.phases[1].attempts", "greater than or equal to 1"),
    "a quantity with an unknown unit": (
        [("spec.phases.1.resources", {"memoryPerWorker": "4GB"})],
        "spec.phases[1].resources.memoryPerWorker",
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
    "a dataset version that is its own parent": (
        [("spec.phases.0.curate.parent", "1")],
        "spec.phases[0].curate",
        "parent must be another version than the one that is made",
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
    "initFrom with nothing": ([("spec.initFrom", {})], "spec.initFrom", "set exactly one of release and run"),
    "held-out clips in a Train phase": (
        [("spec.phases.1.data.0.split", "HeldOut")],
        "spec.phases",
        "a Train phase may not read the HeldOut split",
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
    "an extractor without a digest": (
        [("spec.phases.2.evaluate", {"extractors": [{"name": "i3d", "architecture": "I3D", "path": "x.safetensors"}]})],
        "spec.phases[2].evaluate.extractors[0].sha256",
        "Required value",
    ),
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
    "ET": "the last Evaluate phase must come after the last Train phase",
    "TET": "the last Evaluate phase must come after the last Train phase",
    "ETR": "the last Evaluate phase must come after the last Train phase",
    "TETR": "the last Evaluate phase must come after the last Train phase",
    "TC": "Curate phases must come before the first Train or Evaluate phase",
    "CTCE": "Curate phases must come before the first Train or Evaluate phase",
    "TCE": "Curate phases must come before the first Train or Evaluate phase",
    "TECR": "Curate phases must come before the first Train or Evaluate phase",
    "E": "without initFrom, a run that has an Evaluate or Release phase needs a Train phase",
    "CER": "without initFrom, a run that has an Evaluate or Release phase needs a Train phase",
}
GOOD_ORDERS = ["C", "CC", "T", "TT", "CT", "TE", "CTE", "TTE", "TETE", "TER", "CTER", "CCTTEER"]

BAD_RELEASES: dict[str, tuple[list[tuple[str, Any]], str, str]] = {
    "a name of another version": (
        [("spec.model.version", "1.0.1")],
        "spec.model",
        "metadata.name must be pib-videogen-<type>-v<version>-<specialization>",
    ),
    "a name of another specialization": ([("spec.model.specialization", "news")], "spec.model", "made from spec.model"),
    "a free name": ([("metadata.name", "my-release")], "spec.model", "metadata.name must be pib-videogen-"),
    "a digest without its algorithm": ([("spec.artifact.digest", "a" * 64)], "spec.artifact.digest", "sha256:"),
    "a digest that is too short": ([("spec.artifact.digest", "sha256:abc")], "spec.artifact.digest", "should match"),
    "a service's name of 31 characters": ([("spec.service", "s" * 31)], "spec.service", "30"),
    "a service's name with an underscore": ([("spec.service", "a_b")], "spec.service", "should match"),
    "an unknown field": ([("spec.canary", True)], "spec.canary", "unknown field"),
    "a raw pod template": ([("spec.serving.podTemplate", {})], "spec.serving.podTemplate", "unknown field"),
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
    "17 GPUs for a pod": ([("spec.serving", {"gpus": 17})], "spec.serving.gpus", "less than or equal to 16"),
    "an artifact without a claim": ([("spec.artifact.claimName", ABSENT)], "spec.artifact.claimName", "Required value"),
}

IMMUTABLE_IN_A_RUN: dict[str, list[tuple[str, Any]]] = {
    "model": [("spec.model.version", "1.0.1")],
    "storage": [("spec.storage.claimName", "other")],
    "initFrom": [("spec.initFrom.release", "pib-videogen-videofusion-v0.8.0-base")],
    "initFrom, taken away": [("spec.initFrom", ABSENT)],
    "recipe": [("spec.recipe.steps", 200)],
    "phases": [("spec.phases.1.attempts", 5)],
    "phases, one more": [("spec.phases.0", {**CURATE, "name": "curate-more"})],
}
IMMUTABLE_IN_A_RELEASE: dict[str, list[tuple[str, Any]]] = {
    "service": [("spec.service", "premium")],
    "model": [("spec.model.specialization", "news")],
    "artifact": [("spec.artifact.digest", "sha256:" + "b" * 64)],
    "lineage": [("spec.lineage.run", "another")],
    "lineage, taken away": [("spec.lineage.run", ABSENT)],
}
MUTABLE: dict[str, list[tuple[str, Any]]] = {
    "suspend": [("spec.suspend", True)],
    "serving": [("spec.serving", {"replicas": 3})],
    "gates": [("spec.gates", [GATE])],
    "rollout": [("spec.rollout.failureLimit", 3)],
    "rollback": [("spec.rollback", {"onAlert": False})],
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


@pytest.mark.parametrize("tasks", BAD_ORDERS)
def test_phases_are_refused_in_the_order(api: Api, tasks: str) -> None:
    message = refusal(api, a_run(namespace="default", phases=in_order(tasks)))
    assert "spec.phases" in message
    assert BAD_ORDERS[tasks] in message


@pytest.mark.parametrize("tasks", GOOD_ORDERS)
def test_phases_are_accepted_in_the_order(api: Api, tasks: str) -> None:
    api.create(RUNS.format("default") + STRICT, a_run(namespace="default", phases=in_order(tasks)))


def test_a_family_takes_its_own_block_and_an_image_model(api: Api) -> None:
    zero = [of("text2video-zero"), ZERO_STEPS, ("spec.recipe.backbone", BACKBONE), ("spec.recipe.text2VideoZero", {"motionRight": "-1"})]
    made = api.create(RUNS.format("default") + STRICT, run_of(*zero))
    assert made["spec"]["recipe"]["text2VideoZero"]["warpAt"] == 881
    latents = [of("align-your-latents"), ("spec.recipe.alignYourLatents", {"contextFrames": 1, "contextGuidance": "2"})]
    made = api.create(RUNS.format("default") + STRICT, run_of(*latents, ("spec.initFrom", INIT)))
    assert made["spec"]["recipe"]["alignYourLatents"]["consistencyWeight"] == "0.5"


def test_how_a_recipe_is_computed_has_defaults_and_may_be_said(api: Api) -> None:
    recipe = api.create(RUNS.format("default") + STRICT, run_of())["spec"]["recipe"]
    assert (recipe["optimizer"]["name"], recipe["loss"], recipe["compile"], recipe["sharding"]) == (
        "AdamW",
        {"noiseOffset": "0"},
        False,
        "None",
    )
    assert "gradientCheckpointing" not in recipe
    said = {"snrGamma": "5", "noiseOffset": "0.1", "predictionType": "VPrediction"}
    edits = [of("text2video-zero"), ("spec.recipe.loss", said), ("spec.recipe.optimizer", {"name": "AdamW8bit"})]
    made = api.create(RUNS.format("default") + STRICT, run_of(*edits, ("spec.recipe.compile", True)))
    assert made["spec"]["recipe"]["loss"] == said
    sharded = [("spec.recipe.sharding", "Full"), ("spec.recipe.gradientCheckpointing", False), ("spec.recipe.precision", "BF16")]
    assert api.create(RUNS.format("default") + STRICT, run_of(*sharded))["spec"]["recipe"]["gradientCheckpointing"] is False


def test_filters_are_named_and_take_their_defaults(api: Api) -> None:
    named = {"resolution": {}, "length": {}, "caption": {}, "motion": {}, "darkness": {}, "duplicates": {}}
    edits = [("spec.phases.0.curate.filters", named), ("spec.phases.0.curate.sceneCuts", {}), ("spec.phases.0.curate.parent", "0")]
    made = api.create(RUNS.format("default") + STRICT, run_of(*edits))
    curate = made["spec"]["phases"][0]["curate"]
    assert curate["filters"]["motion"] == {"minimum": "0.5"}
    assert curate["filters"]["length"] == {"minimumSeconds": 1, "maximumSeconds": 3600}
    assert (curate["sceneCuts"], curate["maximumRejectedPercent"]) == ({"threshold": 30}, 20)


def test_with_weights_to_start_from_an_evaluation_needs_no_training(api: Api) -> None:
    for tasks in ("E", "ER", "CE", "CER"):
        api.create(RUNS.format("default") + STRICT, a_run(namespace="default", phases=in_order(tasks), initFrom=INIT))


@pytest.fixture(scope="module")
def kept(plane: ControlPlane) -> Iterator[Mapping[str, Mapping[str, Any]]]:
    """A run and a release that exist."""
    api = plane.api
    objects = {
        "TrainingRun": (RUNS.format("default"), run_of(("metadata.name", "kept"), ("spec.initFrom", INIT))),
        "ModelRelease": (RELEASES.format("default"), release_of(("spec.lineage", {"run": "kept"}))),
    }
    yield {kind: api.create(path, manifest) for kind, (path, manifest) in objects.items()}
    for path, manifest in objects.values():
        api.delete(f"{path}/{manifest['metadata']['name']}")


@pytest.mark.parametrize("field", IMMUTABLE_IN_A_RUN)
def test_in_a_run_cannot_be_changed(api: Api, kept: Mapping[str, Any], field: str) -> None:
    message = change_refused(api, kept["TrainingRun"], IMMUTABLE_IN_A_RUN[field])
    assert f"spec.{field.partition(',')[0]} is immutable; create a new TrainingRun instead" in message


def test_weights_to_start_from_cannot_be_added_to_a_run(api: Api, namespace: str) -> None:
    made = api.create(RUNS.format(namespace), a_run(namespace=namespace))
    message = change_refused(api, made, [("spec.initFrom", INIT)])
    assert "spec.initFrom is immutable; create a new TrainingRun instead" in message


@pytest.mark.parametrize("field", IMMUTABLE_IN_A_RELEASE)
def test_in_a_release_cannot_be_changed(api: Api, kept: Mapping[str, Any], field: str) -> None:
    message = change_refused(api, kept["ModelRelease"], IMMUTABLE_IN_A_RELEASE[field])
    assert f"spec.{field.partition(',')[0]} is immutable; release a new version instead" in message


@pytest.mark.parametrize("field", MUTABLE)
def test_can_be_changed_at_any_time(api: Api, kept: Mapping[str, Any], field: str) -> None:
    manifest = kept["TrainingRun" if field == "suspend" else "ModelRelease"]
    api.request("PUT", path_of(manifest) + STRICT, edited(manifest, *MUTABLE[field]))


def test_every_field_of_a_spec_is_known_to_be_mutable_or_immutable() -> None:
    immutable = IMMUTABLE_IN_A_RUN.keys() | IMMUTABLE_IN_A_RELEASE.keys()
    for resource in RESOURCES:
        for field in definition(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]:
            assert (field in immutable) != (field in MUTABLE), f"{resource.kind}.spec.{field}"


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
        "modelreleases.status.rollback.digest": "quarantined",
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
