"""Networks as ONNX files, each checked against PyTorch with ONNX Runtime on the CPU.

A file is `<name>.onnx`; weights of more than 2 GB, which one file cannot hold, lie beside it in `<name>.onnx.data`.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from videogen_api.bundle import canonical_json
from videogen_api.optimization import ExportFormat, NetworkExport
from videogen_api.training_run import Reason
from videogen_models.sealed import sha256_of, write_durably
from videogen_trainer.dataset import writing
from videogen_trainer.evaluate.measure import decimal
from videogen_trainer.failure import Failure
from videogen_trainer.optimize.networks import Network

_LOG = logging.getLogger(__name__)
OPSET = 20
EXTERNAL_BYTES = 2_000_000_000  # of weights; a protobuf message ends at 2 GiB
EXAMPLE_CLIPS = 2  # torch.export takes sizes of 0 and 1 for constants
CHECKED_CLIPS = (1, 3)  # other numbers of clips than the example's, so that a baked-in one is found
_CHATTY = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")


def export_network(network: Network, folder: Path, tolerance: float) -> NetworkExport:
    """Write and check one network; what an earlier attempt has written and checked is taken as it is.

    Raises Failure(ExportFailed), naming the network, if it cannot be exported or differs by more than `tolerance`.
    """
    path = folder / f"{network.name}.onnx"
    difference = _kept(path)
    if difference is None:
        with _named(network.name), writing(path):
            folder.mkdir(parents=True, exist_ok=True)
            write_onnx(network, path)
        with _named(network.name):
            difference = largest_difference(network, path)
        with writing(path):
            write_durably(_note(path), canonical_json({"difference": repr(difference), "files": _sums(path)}))
        _LOG.info("onnx/%s: opset %d, differs from PyTorch by at most %.2e", path.name, OPSET, difference)
    if not difference <= tolerance:
        raise Failure(
            Reason.EXPORT_FAILED,
            f"optimize.onnxTolerance is {tolerance:g}, and ONNX Runtime's {network.name} differs from PyTorch's by {difference:.2e}",
        )
    return NetworkExport(network=network.name, format=ExportFormat.ONNX, maximum_difference=decimal(difference))


def write_onnx(network: Network, path: Path) -> None:
    """Export with a free number of clips, and check the file by ONNX's own rules."""
    import onnx

    inputs = network.draw(EXAMPLE_CLIPS)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network.module,
            tuple(inputs.values()),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=[network.output],
            dynamic_shapes=[{0: torch.export.Dim.DYNAMIC} for _ in inputs],
        )
        assert program is not None, "without a file to write, the exporter returns what it made"
        program.save(path, external_data=_weight_bytes(network.module) > EXTERNAL_BYTES)
    onnx.checker.check_model(str(path), full_check=True)


def largest_difference(network: Network, path: Path) -> float:
    """max |ONNX Runtime - PyTorch| over random inputs for several numbers of clips; infinite if an output is not finite."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for clips in CHECKED_CLIPS:
        inputs = network.draw(clips)
        with torch.inference_mode():
            expected = network.module(*inputs.values())
        (found,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        difference = float((torch.from_numpy(found) - expected).abs().max()) if found.shape == tuple(expected.shape) else float("inf")
        largest = max(largest, difference if difference == difference else float("inf"))  # noqa: PLR0124 - not a number
    return largest


def onnx_names(path: Path) -> list[Path]:
    """The file, and its weights if they lie beside it."""
    data = path.with_name(f"{path.name}.data")
    return [path, data] if data.is_file() else [path]


def _weight_bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


def _note(path: Path) -> Path:
    return path.with_suffix(".json")


def _sums(path: Path) -> dict[str, str]:
    return {one.name: sha256_of(one) for one in onnx_names(path)}


def _kept(path: Path) -> float | None:
    """The difference that an earlier attempt has found, if its files are still what they were."""
    try:
        note = json.loads(_note(path).read_bytes())
        return float(note["difference"]) if note["files"] == _sums(path) else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _named(network: str) -> Iterator[None]:
    """Whatever stops the exporter, the checker or the runtime is told of this network, in one line."""
    try:
        yield
    except (Failure, OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        raise Failure(Reason.EXPORT_FAILED, f"the network {network} cannot be written as ONNX: {type(error).__name__}: {said}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of its passes, of packages that are not needed and of its own deprecations: nothing for a pod's log."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
