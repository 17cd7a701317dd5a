"""A storage folder, and the trainer run on it as in a pod: one process an attempt, a job file in, a report out."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.reproduce_cases import STEPS, UNTRAINED, Case
from benchmarks.reproduce_tables import Values, values
from videogen_api.job import CONTRACT, ArtifactReference, Job, PinnedData, Report
from videogen_api.training_run import DataReference, Reason, Split
from videogen_trainer.distributed import World
from videogen_trainer.evaluate.extractors import load
from videogen_trainer.evaluate.task import Rows, batches, embed_generated, embed_references, joined, open_references, results
from videogen_trainer.synthetic import write_folder

DATASET, VERSION = "shapes", "1"
_TELL_SECONDS = 60.0  # how often a job under way is heard of


class JobError(Exception):
    """A job did not complete; the message is its report's."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that has completed, and how long its process took."""

    report: Report
    seconds: float


class Workshop:
    """Does the jobs; each of them once for a storage folder. Several threads may call it. All processes have one thread each."""

    def __init__(self, storage: Path, options: argparse.Namespace) -> None:
        self._storage, self._options = storage.resolve(), options
        self._begun = time.monotonic()
        self._given_up = threading.Event()

    def give_up(self) -> None:
        """End the processes that are still running, at their next step."""
        self._given_up.set()

    def say(self, text: str) -> None:
        """Tell it with the time since the beginning."""
        print(f"[{time.monotonic() - self._begun:7.1f} s] {text}", flush=True)

    def curate(self) -> None:
        """Make the dataset. Raises JobError, as all jobs."""
        source = self._storage / "raw"
        if not (source / "clip-000000.txt").exists():
            side = self._options.side
            write_folder(source, count=self._options.clips, seed=0, frames=self._options.frames, height=side, width=side)
        curate = {"dataset": DATASET, "version": VERSION, "sources": [{"path": "raw"}], "heldOutPercent": 30}
        self.say(self._run("curate", UNTRAINED, 0, task="Curate", curate=curate).report.message)

    def steps(self, case: Case) -> int:
        """How many a case is trained."""
        if case.steps is not None:
            return case.steps
        wanted: int | None = self._options.steps
        return STEPS[case.family] if wanted is None else wanted

    def train(self, case: Case, seed: int) -> Ended:
        """The case's training, after that of its image model."""
        begin = {"initFrom": _artifact(self.train(case.image, seed)).wire()} if case.image else {}
        return self._run(case.title, case, seed, task="Train", data=[_data(Split.TRAIN)], **begin)

    def evaluate(self, case: Case, seed: int, samples: int) -> Ended:
        """What the metrics say of the case's bundle, on held-out clips."""
        return self._run(
            f"{case.title} evaluate",
            case,
            seed,
            task="Evaluate",
            data=[_data(Split.HELD_OUT)],
            evaluate={"samples": samples, "samplingSteps": self._options.sampling_steps},
            artifact=_artifact(self.train(case, seed)).wire(),
        )

    def real(self) -> Values:
        """The metrics of clips from the other split in place of generated ones, each with the caption that it was asked for."""
        world, extractors = World(), load([], self._storage, torch.device("cpu"))
        held_out, others = (open_references([_pinned(split)], self._storage) for split in (Split.HELD_OUT, Split.TRAIN))
        numbers = partners(held_out.asked(self._options.samples), others.captions)
        rows: Rows = defaultdict(list)
        for places in batches(0, len(numbers)):
            chosen = [numbers[place] for place in places]
            clips = np.concatenate([others.frames(range(number, number + 1)) for number in chosen])
            captions = [others.captions[number] for number in chosen]
            embed_generated(rows, clips, captions, extractors)
        rows["seconds"].append(np.array([[1.0, len(numbers)]]))  # not shown
        real = embed_references(held_out, extractors, world)
        return values(results(real, joined(rows), held_out, extractors, 0, "not generated"))

    def _recipe(self, case: Case, seed: int) -> dict[str, Any]:
        side, steps = self._options.side, self.steps(case)
        return {
            "architecture": "Tiny",
            "frames": self._options.frames,
            "resolution": {"height": side, "width": side},
            "globalBatchSize": 8,
            "steps": steps,
            "optimizer": {"learningRate": "2e-3"},
            "schedule": {"type": "Cosine", "warmupSteps": min(20, steps // 10)},
            "emaDecay": "0.99",
            "checkpoints": {"everySteps": 250, "keepLast": 1},
            "seed": seed,
        } | dict(case.recipe)

    def _run(self, name: str, case: Case, seed: int, **fields: Any) -> Ended:
        """Do a job, or read the report of the one that was done."""
        name = f"{name} {seed}"
        slug = "-".join("".join(letter if letter.isascii() and letter.isalnum() else " " for letter in name).split())
        path = self._storage / "jobs" / f"{slug}.job.json"
        message, clock = path.with_name(f"{slug}.report.json"), path.with_name(f"{slug}.seconds")
        path.parent.mkdir(parents=True, exist_ok=True)
        model = {"family": case.family.value, "version": "1.0.0", "specialization": "base"}
        content = _job(slug, {"model": model, "recipe": self._recipe(case, seed)} | fields)
        if not (message.exists() and path.exists() and json.loads(path.read_text()) == content):
            path.write_text(json.dumps(content))
            begun = time.monotonic()
            self._attempt(path, message, name)
            clock.write_text(str(time.monotonic() - begun))
        report = Report.model_validate_json(message.read_bytes())
        if report.reason is not Reason.COMPLETED:
            message.unlink()
            raise JobError(f"{name}: {report.reason}: {report.message}; its log is {_log_of(path)}")
        return Ended(report, float(clock.read_text()))

    def _attempt(self, path: Path, message: Path, name: str) -> None:
        written = message.with_suffix(".new")
        command = [sys.executable, "-m", "videogen_trainer", "--job", str(path), "--storage", str(self._storage)]
        environment = {**os.environ, "VIDEOGEN_TERMINATION_MESSAGE_PATH": str(written), "OMP_NUM_THREADS": "1"}
        with _log_of(path).open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
            try:
                self._wait(process, path, name)
            finally:
                process.terminate()
                process.wait()
        if not written.exists():
            raise JobError(f"{name}: the trainer ended with {process.returncode} and no report; its log is {_log_of(path)}")
        written.rename(message)

    def _wait(self, process: subprocess.Popen[bytes], path: Path, name: str) -> None:
        told = time.monotonic()
        while process.poll() is None and not self._given_up.wait(0.2):
            if time.monotonic() - told > _TELL_SECONDS:
                told = time.monotonic()
                self.say(f"{name}: {progress_in(_log_of(path).read_text(errors='replace'))}")


def _log_of(job: Path) -> Path:
    return job.with_suffix("").with_suffix(".log")


def progress_in(log: str) -> str:
    """The newest progress in a trainer's log, as "12 of 300"."""
    found: list[str] = re.findall(r"(\d+ of \d+): (?:step|clips) ", log)
    return found[-1] if found else "starting"


def _artifact(ended: Ended) -> ArtifactReference:
    assert ended.report.artifact, "a training completed without a bundle"
    return ended.report.artifact


def _job(slug: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    content = {
        "contract": CONTRACT,
        "run": "reproduce",
        "runUid": "reproduce",
        "namespace": "reproduce",
        "phase": slug,
        "attempt": 1,
        "workPath": f"runs/{slug}",
    } | dict(fields)
    return Job.model_validate(content).wire()


def _pinned(split: Split) -> PinnedData:
    return PinnedData(reference=DataReference(dataset=DATASET, version=VERSION, split=split))


def _data(split: Split) -> dict[str, Any]:
    return _pinned(split).wire()


def partners(wanted: Sequence[str], there: Sequence[str]) -> list[int]:
    """For each generated clip, whose captions `wanted` has, the number of a clip of `there` with that caption."""
    by_caption: dict[str, list[int]] = defaultdict(list)
    for number, caption in enumerate(there):
        by_caption[caption].append(number)
    chosen = []
    for caption in wanted:
        if caption not in by_caption:
            raise JobError(f"no training clip has the caption {caption!r} of a held-out one; take more --clips")
        numbers = by_caption[caption]
        chosen.append(numbers[0])
        numbers.append(numbers.pop(0))
    return chosen
