"""Each task once, in one run a family, as small as it can be."""

from __future__ import annotations

from typing import Any

from videogen_api.training_run import Task
from videogen_demo.kubectl import Manifest
from videogen_testing.stories import HELD_OUT, SMALL, TRAIN, curate, release, run

STEPS, SAMPLES = 2, 4
FRAMES = 5  # two key frames and three between them, so that all phases may read the dataset that TrainInterpolation needs
SAMPLING = {"samplingSteps": 2}
CATEGORIES = ("flood", "cyclone")
VALUES = ["0.65", "0.75"]
ANY_QUALITY = {"minimumCoherence": "0", "maximumArtefactRate": "1"}  # nobody has trained these models


def _phase(task: Task, data: list[dict[str, Any]], **block: Any) -> Manifest:
    return {"name": task.lower(), "task": task.value, "data": data, "resources": SMALL, **block}


def _gate(metric: str, operator: str, threshold: str) -> Manifest:
    return {"metric": metric, "operator": operator, "threshold": threshold, "minimumSamples": 2}


def _evaluate() -> Manifest:
    gates = [_gate("GenerationSeconds", "LessThan", "600")]
    return _phase(Task.EVALUATE, HELD_OUT, evaluate={"samples": SAMPLES} | SAMPLING, gates=gates)


def _tune() -> Manifest:
    judged = {"objective": "FVD", "samples": SAMPLES} | SAMPLING
    return _phase(Task.TUNE, TRAIN + HELD_OUT, tune={"parameter": "BaseNoiseShare", "values": VALUES, "steps": 1} | judged)


def _optimize() -> Manifest:
    how = {"quantization": "Int8Weights", "formats": ["ONNX"], "samples": SAMPLES} | SAMPLING
    return _phase(Task.OPTIMIZE, HELD_OUT, optimize=how)


def _templates() -> Manifest:
    types = [{"category": name, "prompt": f"a {name}", "caption": f"A {name}"} for name in CATEGORIES]
    return _phase(Task.BUILD_TEMPLATES, HELD_OUT, templates={"types": types, "variations": 1, "quality": ANY_QUALITY} | SAMPLING)


def _scenarios() -> Manifest:
    asked = {"samples": SAMPLES, "maximumSeconds": 600, "quality": ANY_QUALITY} | SAMPLING
    return _phase(Task.TEST_SCENARIOS, HELD_OUT, scenarios=asked, gates=[_gate("ScenarioPassRatio", "GreaterThan", "0.1")])


def _run(namespace: str, family: str, name: str, *phases: Manifest, **spec: Any) -> Manifest:
    made = run(namespace, name, *phases, steps=STEPS, model={"family": family, "version": "1.0.0"}, **spec)
    made["spec"]["recipe"]["frames"] = FRAMES
    return made


def runs(namespace: str) -> list[Manifest]:
    """Of the families Text2VideoZero, AlignYourLatents and VideoFusion. The first makes the dataset of all, and the second's image model."""
    training = (Task.TRAIN, Task.ALIGN_CROSS_MODAL, Task.TRAIN_INTERPOLATION, Task.FINE_TUNE_DECODER)
    drawing = (curate(), _phase(Task.TRAIN, TRAIN), _phase(Task.ADAPT, TRAIN), _evaluate(), _templates(), _scenarios())
    latents = [_phase(task, TRAIN) for task in training]
    fusion = (_tune(), _phase(Task.TRAIN, TRAIN), _phase(Task.FINE_TUNE, TRAIN), _optimize(), _evaluate(), release())
    return [
        _run(namespace, "Text2VideoZero", "drawing", *drawing),
        _run(namespace, "AlignYourLatents", "latents", *latents, initFrom={"run": "drawing"}),
        _run(namespace, "VideoFusion", "fusion", *fusion),
    ]


def told_in() -> dict[Task, tuple[str, str]]:
    """The run and the phase that tell of each task; of a task that several runs have, the last one's."""
    found = ((one["task"], made["metadata"]["name"], one["name"]) for made in runs("") for one in made["spec"]["phases"])
    return {Task(task): (name, phase) for task, name, phase in found}
