"""The benchmark of the metrics: its truths are true, and a wrong distance is noticed."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks import metrics
from benchmarks.metrics import Pair

from videogen_trainer.evaluate.frechet import distance

COUNT, SIZE = 160, 24


@pytest.mark.parametrize("pair", [metrics.commuting(COUNT, SIZE), metrics.not_commuting(COUNT, SIZE)], ids=["commuting", "not commuting"])
def test_the_closed_form_is_that_of_the_features(pair: Pair) -> None:
    """By the root of the product, which is neither our distance nor the closed form."""
    first, second = np.cov(pair.real.T), np.cov(pair.made.T)
    shift = pair.made.mean(axis=0) - pair.real.mean(axis=0)
    root = metrics.matrix_root(first @ second)
    found = shift @ shift + np.trace(first + second) - 2 * np.real(np.trace(root))
    assert found == pytest.approx(pair.truth, rel=1e-9)


def test_the_covariances_of_the_pair_do_not_commute() -> None:
    pair = metrics.not_commuting(COUNT, SIZE)
    first, second = np.cov(pair.real.T), np.cov(pair.made.T)
    assert np.linalg.norm(first @ second - second @ first) > 0.05 * np.linalg.norm(first @ second)


def test_every_aim_of_accuracy_is_met_on_small_sets() -> None:
    figures = list(metrics.accuracy(COUNT, SIZE))
    assert [figure.verdict for figure in figures].count("met") == 5
    assert "MISSED" not in [figure.verdict for figure in figures]


@pytest.mark.parametrize("wrong", [1 + 1e-5, 1 - 1e-5], ids=["too large", "too small"])
def test_a_distance_that_is_off_by_a_hundred_thousandth_misses_its_aims(monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    monkeypatch.setattr(metrics, "distance", lambda real, made: distance(real, made) * wrong)
    assert [figure.verdict for figure in metrics.accuracy(COUNT, SIZE)].count("MISSED") == 4  # 0 of identical sets stays 0


def test_one_over_n_changes_what_it_must() -> None:
    """For equal counts the trace part shrinks by (N - 1) / N and the means stay."""
    pair = metrics.drawn(COUNT, SIZE, seed=3)
    shift = float(np.square(pair.made.mean(axis=0) - pair.real.mean(axis=0)).sum())
    expected = shift + (metrics.evaluated(pair) - shift) * (COUNT - 1) / COUNT
    assert metrics.cd_fvd(pair) == pytest.approx(expected, rel=1e-9)
    assert metrics.biased(pair) == pytest.approx(expected, rel=1e-9)


def test_a_matrix_without_a_root_stops_the_peer() -> None:
    with pytest.raises((ValueError, np.linalg.LinAlgError)):
        metrics.matrix_root(np.array([[0.0, 1.0], [0.0, 0.0]]))


def test_the_bias_follows_its_theory_where_samples_are_many() -> None:
    size, count = 8, 4000
    found = np.mean([metrics.bias(count + repeat, size, 4)[0] for repeat in range(6)])
    assert found == pytest.approx(metrics.first_order_bias(metrics.spectrum(size)) / count, rel=0.25)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--samples", "32", "--features", "64"], "--samples is 32, accepted are 65 and more; a covariance"),
        (["--features", "3"], "--features is 3, accepted are 4 and more"),
        (["--clips", "0"], "--clips is 0, accepted are 1 and more"),
        (["--repeats", "0"], "--repeats is 0, accepted are 1 and more"),
        (["--sizes", "64", "1"], "--sizes is 1, accepted are 2 and more"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        metrics.main(options)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_the_least_that_is_accepted_can_be_measured() -> None:
    least = ["--features", "4", "--samples", "5", "--clips", "1", "--sizes", "2", "--repeats", "1"]
    assert metrics.main(least) in {0, 1}


def test_the_command_ends_with_1_if_an_aim_is_missed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--features", "8", "--samples", "40", "--clips", "8", "--sizes", "16", "--repeats", "1"]
    assert metrics.main(small) == 0
    assert "MISSED" not in capsys.readouterr().out
    monkeypatch.setattr(metrics, "cd_fvd", metrics.evaluated)
    assert metrics.main(small) == 1
    assert "MISSED" in capsys.readouterr().out
