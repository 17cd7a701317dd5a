"""`python -m benchmarks.reproduce`: what training brings each family, and what VideoFusion's shared noise brings at the same compute.

Curates the synthetic captioned clips, trains each model from scratch by the trainer's own jobs, and evaluates all of them, the
untrained ones and other real clips of the same captions with the same captions and seeds. `--folder` keeps everything: the same
command again goes on where it was stopped. docs/benchmarks.md says how to read the tables.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, ThreadPoolExecutor, wait
from itertools import count
from pathlib import Path

import torch

from benchmarks.figures import circumstances
from benchmarks.reproduce_cases import COLUMNS, INDEPENDENT, SHARED, Case, chains
from benchmarks.reproduce_estimate import estimate, measured_costs
from benchmarks.reproduce_tables import Values, difference_table, value_table, values
from benchmarks.reproduce_workshop import JobError, Workshop
from videogen_api.meta import ModelFamily

REAL = "real clips"
LONGEST_HOURS = 2.0  # an aim, on 2 cores
Found = dict[ModelFamily, dict[str, list[Values]]]  # by family and column, one entry a seed


def main(arguments: list[str]) -> int:
    """0 when everything was trained and measured, whatever came out; 1 when a job failed."""
    options = _options(arguments)
    torch.set_num_threads(1)
    print(circumstances(), flush=True)
    with tempfile.TemporaryDirectory(prefix="videogen-reproduce-") as name:
        try:
            found = measured(Workshop(options.folder or Path(name), options), options)
        except JobError as error:
            print(f"reproduce: {error}", file=sys.stderr)
            return 1
    print(report(found, options.samples, options.seeds))
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce", description=__doc__)
    parser.add_argument("--families", type=ModelFamily, nargs="+", default=list(ModelFamily), help="model types (default: all)")
    parser.add_argument("--steps", type=int, help="optimiser steps of each training (default: as docs/benchmarks.md says)")
    parser.add_argument(
        "--seeds", type=int, default=3, choices=range(1, 11), metavar="1..10", help="trainings of each (default: %(default)s)"
    )
    parser.add_argument("--clips", type=int, default=1080, help="synthetic clips; 108 hold each caption once (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=256, help="clips that each model generates (default: %(default)s)")
    parser.add_argument("--sampling-steps", type=int, default=20, help="denoising steps (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=8, help="frames of a clip (default: %(default)s)")
    parser.add_argument("--side", type=int, default=32, help="rows and columns of a frame (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes at once (default: %(default)s)")
    parser.add_argument("--estimate", action="store_true", help="only say how long it would take")
    parser.add_argument("--folder", type=Path, help="keep datasets, checkpoints, bundles and sample videos there")
    return parser.parse_args(arguments)


def measured(workshop: Workshop, options: argparse.Namespace) -> Found:
    """Metrics of all models of the families; nothing with `--estimate`. Raises JobError with the first job that failed."""
    workshop.curate()
    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            costs = measured_costs(workshop, options.families, pool)

            def seconds(case: Case) -> float:
                return costs[case.family].seconds(workshop.steps(case), options.samples)

            workshop.say(expected(estimate(seconds, chains(options.families), options.seeds, options.jobs)))
            return {} if options.estimate else _measured(workshop, options, pool)
        finally:
            workshop.give_up()
            pool.shutdown(cancel_futures=True)


def expected(seconds: float) -> str:
    """The estimate in words."""
    minutes = round(seconds / 60)
    late = f": more than the {LONGEST_HOURS:g} h that are wanted" if seconds > 3600 * LONGEST_HOURS else ""
    return f"estimate, from a few steps of each family: {minutes // 60} h {minutes % 60:02} min from here, if nothing is done yet{late}"


def _measured(workshop: Workshop, options: argparse.Namespace, pool: Executor) -> Found:
    chosen, done = chains(options.families), count(1)
    total = options.seeds * sum(map(len, chosen))

    def follow(chain: Sequence[Case], seed: int) -> dict[str, Values]:
        found = {}
        for case in chain:
            trained = workshop.train(case, seed)
            workshop.say(f"seed {seed}: {case.title}: {trained.report.message}")
            found[case.title] = values(workshop.evaluate(case, seed, options.samples).report.results)
            workshop.say(f"{next(done)} of {total}: seed {seed}: {case.title}: measured")
        return found

    real = workshop.real()  # first: it fails if the clips are too few
    running = [[pool.submit(follow, chain, seed) for chain in chosen] for seed in range(options.seeds)]
    finished, _ = wait([one for seed in running for one in seed], return_when=FIRST_EXCEPTION)
    for one in finished:
        one.result()
    seeds = [{title: its for one in seed for title, its in one.result().items()} for seed in running]
    return {
        family: {case.name: [seed[case.title] for seed in seeds] for case in COLUMNS[family]} | {REAL: [real]}
        for family in options.families
    }


def report(found: Found, samples: int, seeds: int) -> str:
    """The tables as Markdown: one of each family, and how much the two noises of VideoFusion differ."""
    means = f", mean over {seeds} seeds (their standard deviation)" if seeds > 1 else ", one seed"
    lines = [f"\n{samples} generated clips each{means}"] if found else []
    for family, its in found.items():
        lines += [f"\n{family.value}:\n", value_table(its)]
    if ModelFamily.VIDEOFUSION in found and seeds > 1:
        one, other = SHARED.name, INDEPENDENT.name
        lines.append(f"\n{one} minus {other}, the same seeds, data, steps and networks; 95 % interval of the mean (t, {seeds} seeds):\n")
        lines.append(difference_table(found[ModelFamily.VIDEOFUSION], one, other))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
