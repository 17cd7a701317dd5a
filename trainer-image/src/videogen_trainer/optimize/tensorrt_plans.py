"""TensorRT plans from ONNX files. A plan fits the GPU and the TensorRT that it was built with, and nothing else.

NVIDIA's package is not in the trainer's image; `missing` says so before any work is done. `build_plan` has never run in
this project's tests, which have no NVIDIA GPU (docs/limits.md).
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import torch

from videogen_api.training_run import Reason
from videogen_trainer.failure import Failure

LARGEST_CLIPS = 8  # of one call


def missing() -> list[str]:
    """What TensorRT needs and this pod has not, each with what to do."""
    found = []
    if not torch.cuda.is_available():
        found.append("an NVIDIA GPU (set nvidia.com/gpu in resources.limits)")
    if importlib.util.find_spec("tensorrt") is None:
        found.append("the package tensorrt (add it to the trainer's image)")
    return found


def require() -> None:
    """Raises Failure(TensorRTUnavailable) unless plans can be built here."""
    if lacking := missing():
        raise Failure(
            Reason.TENSORRT_UNAVAILABLE,
            f"optimize.formats asks for TensorRT, and this pod lacks {' and '.join(lacking)}; or leave TensorRT out of optimize.formats",
        )


def build_plan(onnx: Path, plan: Path) -> None:
    """Write the plan of an ONNX file for 1 to LARGEST_CLIPS clips. Raises Failure(ExportFailed) naming the file."""
    trt = importlib.import_module("tensorrt")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network, config, profile = builder.create_network(0), builder.create_builder_config(), builder.create_optimization_profile()
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        raise Failure(Reason.EXPORT_FAILED, f"TensorRT cannot read {onnx.name}: {parser.get_error(0)}")
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        rest = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, (1, *rest), (1, *rest), (LARGEST_CLIPS, *rest))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise Failure(Reason.EXPORT_FAILED, f"TensorRT cannot build a plan of {onnx.name}")
    plan.write_bytes(engine)
