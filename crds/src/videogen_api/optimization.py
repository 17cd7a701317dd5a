"""Optimisation: a trained bundle made smaller and exported, and by how much its videos get worse."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from videogen_api.evaluation import Metric, Normalization, Verdict
from videogen_api.meta import Decimal, Model, Observation, PositiveDecimal, k8s


class Quantization(StrEnum):
    """How a bundle stores the weights of linear and convolutional layers; they are 32 bits again once loaded."""

    INT8_WEIGHTS = "Int8Weights"  # w = q s: q int8, one s for each output channel
    FLOAT16_WEIGHTS = "Float16Weights"


class ExportFormat(StrEnum):
    """What a bundle's networks are written as, beside its weights."""

    ONNX = "ONNX"
    TENSORRT = "TensorRT"


# What an Optimize phase measures.
LOSSES = (
    Metric.FVD,
    Metric.INCEPTION_SCORE,
    Metric.CLIP_SCORE,
    Metric.TEMPORAL_COHERENCE,
    Metric.ARTEFACT_RATE,
    Metric.GENERATION_SECONDS,
)


class MaximumLoss(Model):
    """How much worse one metric may become."""

    metric: Metric = Field(
        description="Metric, by the trainer's default network; CLIPScore on the scale ClipScore25.",
        json_schema_extra=k8s(
            rules=[(f"self in {[str(metric) for metric in LOSSES]}", f"an Optimize phase measures {', '.join(LOSSES)}; choose one of them")]
        ),
    )
    maximum: PositiveDecimal = Field(
        description="By how much the metric may become worse, in its own units: higher for FVD, ArtefactRate and GenerationSeconds, lower"
        " for the others."
    )


class Optimize(Model):
    """How an Optimize phase makes a smaller bundle of the run's, and what that may cost."""

    model_config = ConfigDict(
        json_schema_extra=k8s(
            rules=[
                (
                    "has(self.quantization) || (has(self.formats) && size(self.formats) > 0)",
                    "without quantization and formats there is nothing to do; choose Int8Weights or Float16Weights, or name formats",
                ),
                (
                    "!has(self.formats) || !('TensorRT' in self.formats) || 'ONNX' in self.formats",
                    "TensorRT plans are built from ONNX files; name both formats",
                ),
            ]
        )
    )

    quantization: Quantization | None = Field(
        default=None,
        description="How weights of linear and convolutional layers are stored: Int8Weights (a quarter) or Float16Weights (half). Absent:"
        " with all their bits.",
    )
    formats: list[ExportFormat] = Field(
        default=[],
        max_length=2,
        description="Formats that each network is exported to: ONNX, checked against PyTorch; TensorRT, where there is an NVIDIA GPU.",
        json_schema_extra=k8s(**{"x-kubernetes-list-type": "set"}),
    )
    onnx_tolerance: PositiveDecimal = Field(
        default="1e-3", description="Largest difference that an output of ONNX Runtime may have from PyTorch's; above it the phase fails."
    )
    samples: int = Field(default=256, ge=2, le=1_000_000, description="Clips that both bundles generate, from the same captions and noise.")
    sampling_steps: int = Field(default=50, ge=1, le=1000, description="Denoising steps (DDIM) of one generation.")
    maximum_loss: list[MaximumLoss] = Field(
        default=[],
        max_length=6,
        description="Bounds of what optimisation may cost; above one the phase fails with GateFailed, and the run keeps the bundle it had.",
        json_schema_extra=k8s(list_map="metric"),
    )


class NetworkExport(Observation):
    """One network in one format."""

    network: Annotated[str, StringConstraints(max_length=63)] = Field(description="Name of the network; onnx/<name>.onnx in the bundle.")
    format: ExportFormat = Field(description="What it was written as.")
    maximum_difference: Decimal | None = Field(
        default=None, description="Largest difference of an output from PyTorch's; absent for a format that was not compared."
    )


class MetricLoss(Observation):
    """One metric before and after: both bundles on the same captions and the same noise."""

    metric: Metric = Field(description="What was measured.")
    unoptimized: Decimal = Field(description="The value of the bundle before; the one after stands in results.")
    loss: Decimal = Field(description="By how much it became worse; below 0 it became better.")
    low: Decimal = Field(description="Lower end of the paired bootstrap 95 % interval of the loss.")
    high: Decimal = Field(description="Upper end of the paired bootstrap 95 % interval of the loss.")
    normalization: Normalization | None = Field(default=None, description="Scale, for CLIPScore.")
    verdict: Verdict | None = Field(default=None, description="What the bound of maximumLoss on this metric said, if there is one.")


class Optimization(Observation):
    """What an Optimize phase has made of the bundle."""

    unoptimized_bytes: int = Field(ge=0, le=2**53, description="Size of the weights on disk before.")
    optimized_bytes: int = Field(ge=0, le=2**53, description="Size of the weights on disk after.")
    losses: list[MetricLoss] = Field(
        default=[], max_length=16, description="Each metric before and after.", json_schema_extra=k8s(atomic=True)
    )
    exports: list[NetworkExport] = Field(
        default=[], max_length=16, description="Networks that were exported.", json_schema_extra=k8s(atomic=True)
    )
