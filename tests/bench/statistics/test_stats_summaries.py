import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from madgnet_bench.bench.statistics import welch_from_summaries
from madgnet_bench.errors import BenchError


def test_agrees_with_scipy():
    random = np.random.default_rng(0)
    means, stds = random.normal(80, 3, (2, 50)), random.uniform(0.1, 3, (2, 50))
    runs = random.integers(2, 9, (2, 50))
    found = welch_from_summaries(means[0], stds[0], runs[0], means[1], stds[1], runs[1])
    expected = stats.ttest_ind_from_stats(
        means[0], stds[0], runs[0], means[1], stds[1], runs[1], equal_var=False, alternative="greater"
    )
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.pvalue == pytest.approx(expected.pvalue)
    assert "our reading" in found.reading


def test_population_deviations_are_scaled_up_and_arguments_broadcast():
    found = welch_from_summaries([90, 80], 1.0, 3, 79, [0.5, 2.0], 5, ddof=0)
    stds = np.sqrt(3 / 2), np.array([0.5, 2.0]) * np.sqrt(5 / 4)
    expected = stats.ttest_ind_from_stats(
        np.array([90, 80]), stds[0], 3, 79, stds[1], 5, equal_var=False, alternative="greater"
    )
    assert found.pvalue == pytest.approx(expected.pvalue)
    assert found.degrees[0] == pytest.approx((0.5 + 0.0625) ** 2 / (0.5**2 / 2 + 0.0625**2 / 4))


def test_without_spread_the_means_decide():
    found = welch_from_summaries([2, 1, 1], 0, 3, [1, 2, 1], 0, 3)
    assert found.statistic.tolist() == [np.inf, -np.inf, 0]
    assert found.pvalue.tolist() == [0, 1, 0.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], 1, 3, [1, 2, 3], 1, 3), "do not fit together"),
        ((np.nan, 1, 3, 1, 1, 3), "is not a number"),
        ((1, -1, 3, 1, 1, 3), "deviation is negative"),
        ((1, 1, 1, 1, 1, 3), "fewer than 2 runs"),
    ],
)
def test_what_is_no_summary_is_refused(arguments, message):
    with pytest.raises(BenchError, match=message):
        welch_from_summaries(*arguments)
    with pytest.raises(BenchError, match="ddof is 2"):
        welch_from_summaries(1, 1, 3, 1, 1, 3, ddof=2)


def test_the_one_printed_value_at_hand_fits_the_mean_over_seen_sets():
    # the P value that MADGNet's table of seen sets prints for FRCUNet is 6.6E-02
    published = Path(__file__).parents[3] / "results" / "published" / "madgnet.csv"
    with published.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if (row["table"], row["metric"]) == ("Table 1", "DSC")]
    numbers = {(row["model"], row["dataset"]): (float(row["mean"]), float(row["std"])) for row in rows}
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    ours, theirs = (np.array([numbers[model, dataset] for dataset in datasets]).T for model in ("MADGNet", "FRCUNet"))
    assert len(datasets) == 6
    found = welch_from_summaries(*ours, 3, *theirs, 3)
    assert found.mean_pvalue == pytest.approx(0.0666, abs=5e-5)
