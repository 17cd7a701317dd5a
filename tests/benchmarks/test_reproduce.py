"""What the comparison of trainings says of given numbers."""

import pytest
from benchmarks import reproduce
from benchmarks.reproduce import JobError, difference_table, mean_interval, partners, verdict

from videogen_api.evaluation import Metric


def test_the_interval_of_a_mean_is_students() -> None:
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5))


def test_the_interval_of_few_values_is_wider_than_that_of_many() -> None:
    few, many = mean_interval([1.0, 2.0]), mean_interval([1.0, 2.0] * 4)
    assert few[1] - few[0] > 10 * (many[1] - many[0])


@pytest.mark.parametrize(
    ("low", "high", "less", "better"),
    [(-2, -1, True, "λ = 0.7"), (-2, -1, False, "λ = 0"), (1, 2, True, "λ = 0"), (1, 2, False, "λ = 0.7"), (-1, 2, True, "not decided")],
)
def test_the_better_one_is_named_only_if_the_interval_leaves_out_0(low: float, high: float, less: bool, better: str) -> None:
    assert verdict(low, high, less=less) == better


def test_differences_are_taken_seed_by_seed() -> None:
    shared = [dict.fromkeys(reproduce.SHOWN, value) for value in (10.0, 20.0, 30.0)]
    independent = [dict.fromkeys(reproduce.SHOWN, value) for value in (12.0, 22.0, 32.0)]
    row = next(line for line in difference_table(shared, independent).splitlines() if Metric.FVD.value in line)
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["FVD", "-2", "-2 … -2", "λ = 0.7"]


def test_a_clip_has_a_partner_of_its_caption_and_another_one_each_round() -> None:
    assert partners(["a", "b"], ["b", "a", "a"], 4) == [1, 0, 2, 0]


def test_a_caption_without_a_partner_is_named() -> None:
    with pytest.raises(JobError, match="no training clip has the caption 'c'"):
        partners(["c"], ["a"], 1)
