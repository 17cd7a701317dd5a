"""`python -m benchmarks.reproduce`: what training brings, and what VideoFusion's shared noise brings at the same compute.

Curates the synthetic captioned clips, trains each model from scratch by the trainer's own jobs, and evaluates all of them, the
untrained one and other real clips of the same captions with the same captions and seeds. `--folder` keeps everything: the same
command again goes on where it was stopped. docs/benchmarks.md says how to read the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.figures import circumstances
from videogen_api.evaluation import Metric, MetricResult, Normalization
from videogen_api.job import CONTRACT, ArtifactReference, Job, PinnedData, Report
from videogen_api.training_run import DataReference, Reason, Split
from videogen_trainer.distributed import World
from videogen_trainer.evaluate.extractors import load
from videogen_trainer.evaluate.task import Rows, batches, embed_generated, embed_references, joined, open_references, results
from videogen_trainer.synthetic import write_folder

DATASET, VERSION = "shapes", "1"
SHOWN = {  # and whether less is better
    Metric.FVD: True,
    Metric.INCEPTION_SCORE: False,
    Metric.CLIP_SCORE: False,
    Metric.TEMPORAL_COHERENCE: False,
    Metric.ARTEFACT_RATE: True,
}
# Two-sided 95 % quantiles of Student's t for n - 1 degrees of freedom, n = 2 .. 10 seeds.
STUDENT = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}

Values = dict[Metric, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to train, in the words of the table, and what its recipe has of its own."""

    name: str
    recipe: Mapping[str, Any] = field(default_factory=dict)


def shares(base: float) -> dict[str, Any]:
    """A recipe's block with this share of the noise common to all frames."""
    return {"videoFusion": {"baseNoiseShare": f"{base:.2f}", "residualNoiseShare": f"{1 - base:.2f}", "baseLearningRateScale": "1"}}


# A rate of 0 leaves the weights as they were drawn.
UNTRAINED = Case(name="untrained", recipe=shares(0.7) | {"steps": 1, "optimizer": {"learningRate": "0"}, "schedule": {"type": "Constant"}})
SHARED, INDEPENDENT = Case(name="λ = 0.7", recipe=shares(0.7)), Case(name="λ = 0", recipe=shares(0.0))
REAL = "real clips"


def main(arguments: list[str]) -> int:
    """0 when everything was trained and measured, whatever came out; 1 when a job failed."""
    options = _options(arguments)
    print(circumstances(), flush=True)
    with tempfile.TemporaryDirectory(prefix="videogen-reproduce-") as name:
        workshop = Workshop(options.folder or Path(name), options)
        try:
            measured = workshop.measure_all()
        except JobError as error:
            print(f"reproduce: {error}", file=sys.stderr)
            return 1
    print(f"\n{options.samples} generated clips each, mean over {options.seeds} seeds (their standard deviation):\n")
    print(value_table(measured))
    if options.seeds > 1:
        print(f"\nλ = 0.7 minus λ = 0, the same seeds, data, steps and networks; 95 % interval of the mean (t, {options.seeds} seeds):\n")
        print(difference_table(measured[SHARED.name], measured[INDEPENDENT.name]))
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce", description=__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="optimiser steps of each training (default: %(default)s)")
    parser.add_argument(
        "--seeds", type=int, default=3, choices=range(1, 11), metavar="1..10", help="trainings of each (default: %(default)s)"
    )
    parser.add_argument("--clips", type=int, default=1080, help="synthetic clips; 108 hold each caption once (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=256, help="clips that each model generates (default: %(default)s)")
    parser.add_argument("--sampling-steps", type=int, default=20, help="denoising steps (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=8, help="frames of a clip (default: %(default)s)")
    parser.add_argument("--side", type=int, default=32, help="rows and columns of a frame (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="keep datasets, checkpoints, bundles and sample videos there")
    return parser.parse_args(arguments)


class JobError(Exception):
    """A job did not complete; the message is its report's."""


class Workshop:
    """A storage folder, and the trainer run on it as in a pod: one process an attempt, a job file in, a report out."""

    def __init__(self, storage: Path, options: argparse.Namespace) -> None:
        self._storage, self._options = storage.resolve(), options
        self._begun = time.monotonic()

    def measure_all(self) -> dict[str, list[Values]]:
        """Metrics of each model by its name, one entry a seed."""
        self._curate()
        measured: dict[str, list[Values]] = defaultdict(list)
        for seed in range(self._options.seeds):
            for case in (UNTRAINED, INDEPENDENT, SHARED):
                artifact = self._train(case, seed)
                measured[case.name].append(values(self._evaluate(case, seed, artifact)))
            measured[REAL].append(values(self._real(seed)))
            self._say(f"seed {seed}: real clips measured")
        return measured

    def _curate(self) -> None:
        source = self._storage / "raw"
        if not (source / "clip-000000.txt").exists():
            side = self._options.side
            write_folder(source, count=self._options.clips, seed=0, frames=self._options.frames, height=side, width=side)
        curate = {"dataset": DATASET, "version": VERSION, "sources": [{"path": "raw"}], "heldOutPercent": 30}
        report = self._run("curate", task="Curate", curate=curate)
        self._say(report.message)

    def _train(self, case: Case, seed: int) -> ArtifactReference:
        name = f"{case.name} {seed}"
        report = self._run(name, task="Train", recipe=self._recipe(case, seed), data=[_data(Split.TRAIN)])
        self._say(f"seed {seed}: {case.name}: trained, {report.message}")
        assert report.artifact
        return report.artifact

    def _evaluate(self, case: Case, seed: int, artifact: ArtifactReference) -> list[MetricResult]:
        how = {"samples": self._options.samples, "samplingSteps": self._options.sampling_steps}
        report = self._run(
            f"{case.name} {seed} evaluate",
            task="Evaluate",
            recipe=self._recipe(case, seed),
            data=[_data(Split.HELD_OUT)],
            evaluate=how,
            artifact=artifact.wire(),
        )
        self._say(f"seed {seed}: {case.name}: measured")
        return report.results

    def _real(self, seed: int) -> list[MetricResult]:
        """The metrics of clips from the other split in place of generated ones, each with the caption that it was asked for."""
        world, extractors = World(), load([], self._storage, torch.device("cpu"))
        held_out, others = (open_references([_pinned(split)], self._storage) for split in (Split.HELD_OUT, Split.TRAIN))
        numbers = partners(held_out.captions, others.captions, self._options.samples)
        rows: Rows = defaultdict(list)
        for places in batches(0, len(numbers)):
            chosen = [numbers[place] for place in places]
            clips = np.concatenate([others.frames(range(number, number + 1)) for number in chosen])
            captions = [others.captions[number] for number in chosen]
            embed_generated(rows, clips, extractors, {one.name: one.caption_embeddings(captions) for one in extractors.encoders})
        rows["seconds"].append(np.array([[1.0, len(numbers)]]))  # not shown
        real = embed_references(held_out, extractors, world)
        return results(real, joined(rows), held_out.captions, extractors, seed, "not generated")

    def _recipe(self, case: Case, seed: int) -> dict[str, Any]:
        side = self._options.side
        return {
            "architecture": "Tiny",
            "frames": self._options.frames,
            "resolution": {"height": side, "width": side},
            "globalBatchSize": 8,
            "steps": self._options.steps,
            "optimizer": {"learningRate": "2e-3"},
            "schedule": {"type": "Cosine", "warmupSteps": min(20, self._options.steps // 10)},
            "emaDecay": "0.99",
            "checkpoints": {"everySteps": 250, "keepLast": 1},
            "seed": seed,
        } | dict(case.recipe)

    def _run(self, name: str, **fields: Any) -> Report:
        slug = "-".join("".join(letter if letter.isascii() and letter.isalnum() else " " for letter in name).split())
        folder = self._storage / "jobs"
        folder.mkdir(parents=True, exist_ok=True)
        message = folder / f"{slug}.report.json"
        content = _job(slug, {"recipe": self._recipe(UNTRAINED, 0)} | fields)
        path = folder / f"{slug}.job.json"
        if not (message.exists() and path.exists() and json.loads(path.read_text()) == content):
            path.write_text(json.dumps(content))
            self._attempt(path, message)
        report = Report.model_validate_json(message.read_bytes())
        if report.reason is not Reason.COMPLETED:
            message.unlink()
            raise JobError(f"{name}: {report.reason}: {report.message}; its log is {folder / slug}.log")
        return report

    def _attempt(self, path: Path, message: Path) -> None:
        written = message.with_suffix(".new")
        command = [sys.executable, "-m", "videogen_trainer", "--job", str(path), "--storage", str(self._storage)]
        environment = {**os.environ, "VIDEOGEN_TERMINATION_MESSAGE_PATH": str(written)}
        with path.with_suffix("").with_suffix(".log").open("wb") as log:
            subprocess.run(command, check=False, stdout=log, stderr=subprocess.STDOUT, env=environment)
        written.rename(message)

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._begun:7.1f} s] {text}", flush=True)


def _job(slug: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    content = {
        "contract": CONTRACT,
        "run": "reproduce",
        "runUid": "reproduce",
        "namespace": "reproduce",
        "phase": slug,
        "attempt": 1,
        "model": {"type": "videofusion", "version": "1.0.0", "specialization": "base"},
        "workPath": f"runs/{slug}",
    } | dict(fields)
    return Job.model_validate(content).wire()


def _pinned(split: Split) -> PinnedData:
    return PinnedData(reference=DataReference(dataset=DATASET, version=VERSION, split=split))


def _data(split: Split) -> dict[str, Any]:
    return _pinned(split).wire()


def partners(wanted: Sequence[str], there: Sequence[str], count: int) -> list[int]:
    """For each of `count` generated clips, whose captions go round `wanted`, the number of a clip of `there` with that caption."""
    by_caption: dict[str, list[int]] = defaultdict(list)
    for number, caption in enumerate(there):
        by_caption[caption].append(number)
    chosen = []
    for place in range(count):
        caption = wanted[place % len(wanted)]
        if caption not in by_caption:
            raise JobError(f"no training clip has the caption {caption!r} of a held-out one; take more --clips")
        numbers = by_caption[caption]
        chosen.append(numbers[0])
        numbers.append(numbers.pop(0))
    return chosen


def values(found: Sequence[MetricResult]) -> Values:
    """The metrics that are shown, with the mean cosine as CLIP score."""
    return {one.metric: float(one.value) for one in found if one.metric in SHOWN and one.normalization in (None, Normalization.RAW)}


def value_table(measured: Mapping[str, Sequence[Values]]) -> str:
    """Metrics of all models, a row a metric."""
    names = list(measured)
    rows = [["metric", *names], ["---"] * (len(names) + 1)]
    for metric, less in SHOWN.items():
        cells = [_mean_and_spread([one[metric] for one in measured[name]]) for name in names]
        rows.append([f"{metric.value} ({'less' if less else 'more'} is better)", *cells])
    return _markdown(rows)


def _mean_and_spread(found: Sequence[float]) -> str:
    mean = f"{statistics.fmean(found):.3g}"
    return mean if len(found) == 1 else f"{mean} ({statistics.stdev(found):.2g})"


def difference_table(shared: Sequence[Values], independent: Sequence[Values]) -> str:
    """By how much the shared noise changes each metric, and whether that is for the better."""
    rows = [["metric", "difference", "95 % interval", "better"], ["---"] * 4]
    for metric, less in SHOWN.items():
        differences = [one[metric] - other[metric] for one, other in zip(shared, independent, strict=True)]
        mean, (low, high) = statistics.fmean(differences), mean_interval(differences)
        rows.append([metric.value, f"{mean:+.3g}", f"{low:+.3g} … {high:+.3g}", verdict(low, high, less=less)])
    return _markdown(rows)


def mean_interval(found: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of 2 to 10 values, by Student's t."""
    half = STUDENT[len(found)] * statistics.stdev(found) / len(found) ** 0.5
    mean = statistics.fmean(found)
    return mean - half, mean + half


def verdict(low: float, high: float, *, less: bool) -> str:
    """Which of the two is better, if the interval of their difference leaves out 0."""
    if low <= 0 <= high:
        return "not decided"
    return SHARED.name if (high < 0) == less else INDEPENDENT.name


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(_lines(rows))


def _lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "| " + " | ".join(cell.ljust(width, "-" if cell == "---" else " ") for cell, width in zip(row, widths, strict=True)) + " |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
