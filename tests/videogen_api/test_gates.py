from typing import Any

import pytest

from videogen_api.evaluation import Gate, MetricResult, Verdict
from videogen_api.gates import judge, judge_all

FVD = {"metric": "FVD", "operator": "LessThan", "threshold": "200"}
CLIP = {"metric": "CLIPScore", "operator": "GreaterThan", "threshold": "0.8"}
GOOD = {"metric": "FVD", "value": "163.2", "samples": 1000, "extractor": "default"}
RAW = GOOD | {"metric": "CLIPScore", "value": "0.9", "normalization": "Raw"}

IS70 = {"metric": "InceptionScore", "operator": "GreaterThan", "threshold": "70"}
SCORE = {"metric": "InceptionScore", "value": "12", "extractor": "video-classifier"}

ROWS: list[tuple[str, Any, list[Any], Verdict, str]] = [
    ("below the bound", FVD, [GOOD], Verdict.PASSED, "FVD is 163.2 and must be < 200"),
    ("the bound itself is not below it", FVD, [GOOD | {"value": "200"}], Verdict.FAILED, "FVD is 200 and must be < 200"),
    ("above the bound", FVD, [GOOD | {"value": "200.1"}], Verdict.FAILED, "must be < 200"),
    ("exact decimals, no binary fractions", FVD | {"threshold": "0.3"}, [GOOD | {"value": "0.30"}], Verdict.FAILED, ""),
    ("nothing measured", FVD, [], Verdict.INCONCLUSIVE, "FVD was not measured"),
    ("another metric measured", FVD, [GOOD | {"metric": "InceptionScore"}], Verdict.INCONCLUSIVE, "FVD was not measured"),
    ("too few samples", FVD, [GOOD | {"samples": 63}], Verdict.INCONCLUSIVE, "63 samples and the gate needs 64"),
    ("too few samples is not a failure either", FVD, [GOOD | {"samples": 63, "value": "999"}], Verdict.INCONCLUSIVE, ""),
    ("just enough samples", FVD, [GOOD | {"samples": 64}], Verdict.PASSED, ""),
    (
        "more clips than are timed",
        {"metric": "GenerationSeconds", "operator": "LessThan", "threshold": "60", "minimumSamples": 1000},
        [GOOD | {"metric": "GenerationSeconds", "value": "5", "samples": 64}],
        Verdict.INCONCLUSIVE,
        "rests on 64 samples and the gate needs 1000; Evaluate and Optimize time 64 clips one at a time",
    ),
    ("another extractor", FVD | {"extractor": "i3d"}, [GOOD], Verdict.INCONCLUSIVE, "with extractor i3d; it was measured with default"),
    (
        "the right one of two extractors",
        FVD | {"extractor": "i3d"},
        [GOOD, GOOD | {"extractor": "i3d", "value": "1"}],
        Verdict.PASSED,
        "is 1 ",
    ),
    (
        "an inception score that so few samples cannot reach",
        IS70,
        [SCORE | {"samples": 64, "value": "50", "maximum": "64"}],
        Verdict.INCONCLUSIVE,
        "is 50, must be > 70 and cannot exceed 64 with 64 samples; evaluate at least 71 (evaluate.samples)",
    ),
    ("the same, measured by an older trainer", IS70, [SCORE | {"samples": 64}], Verdict.INCONCLUSIVE, "cannot exceed 64"),
    ("as much as can be is not more", IS70, [SCORE | {"samples": 70, "maximum": "70"}], Verdict.INCONCLUSIVE, "at least 71"),
    ("an inception score that can be reached", IS70, [SCORE | {"samples": 71, "maximum": "71"}], Verdict.FAILED, "is 12 and must be > 70"),
    ("and is", IS70, [SCORE | {"value": "70.5", "samples": 71, "maximum": "71"}], Verdict.PASSED, "is 70.5 and must be > 70"),
    (
        "an inception score beyond the classes",
        IS70,
        [SCORE | {"samples": 1000, "maximum": "20"}],
        Verdict.INCONCLUSIVE,
        "cannot exceed 20 with 1000 samples and a network of 20 classes; judge with an extractor of more classes",
    ),
    (
        "an inception score that must be small is always within reach",
        IS70 | {"operator": "LessThan"},
        [SCORE | {"samples": 64, "maximum": "64"}],
        Verdict.PASSED,
        "is 12 and must be < 70",
    ),
    ("CLIP score on the other scale", CLIP, [RAW], Verdict.INCONCLUSIVE, "as ClipScore25"),
    ("CLIP score on the same scale", CLIP | {"normalization": "Raw"}, [RAW], Verdict.PASSED, "0.9 and must be > 0.8"),
]


@pytest.mark.parametrize("gate, results, verdict, words", [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_judge(gate: Any, results: list[Any], verdict: Verdict, words: str) -> None:
    found, message = judge(Gate.model_validate(gate), [MetricResult.model_validate(result) for result in results])
    assert found == verdict
    assert words in message


def test_the_worst_verdict_counts_and_no_gates_pass() -> None:
    result = MetricResult.model_validate(GOOD)
    gates = [Gate.model_validate(FVD), Gate.model_validate(CLIP), Gate.model_validate(FVD | {"threshold": "1"})]
    assert judge_all(gates, [result])[0] == Verdict.FAILED
    assert judge_all(gates[:2], [result])[0] == Verdict.INCONCLUSIVE
    assert judge_all([], [])[0] == Verdict.PASSED
