"""The task Optimize: a bundle in fewer bits, its networks as ONNX and TensorRT, and what that costs in quality and time."""

from videogen_trainer.optimize.task import run

__all__ = ["run"]
