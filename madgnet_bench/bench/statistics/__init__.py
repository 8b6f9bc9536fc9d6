"""Statistics of comparisons: pure functions, arrays in, records out. No torch.

docs/statistics.md says which test answers which question, and how each behaves on simulated data.
"""

from madgnet_bench.bench.statistics.diagram import critical_difference_figure
from madgnet_bench.bench.statistics.effects import EffectSizes, effect_sizes
from madgnet_bench.bench.statistics.frames import paired_scores
from madgnet_bench.bench.statistics.multiple import Holm, holm
from madgnet_bench.bench.statistics.paired import (
    Comparison,
    compare,
    seed_permutation_test,
    seed_test,
    sign_flip_test,
    two_way_test,
    wilcoxon_test,
)
from madgnet_bench.bench.statistics.ranks import (
    Friedman,
    Nemenyi,
    RankStability,
    friedman_test,
    nemenyi_difference,
    nemenyi_test,
    rank_stability,
)
from madgnet_bench.bench.statistics.scores import PairedScores, PairedTest
from madgnet_bench.bench.statistics.summaries import WelchSummary, welch_from_summaries

__all__ = [
    "Comparison",
    "EffectSizes",
    "Friedman",
    "Holm",
    "Nemenyi",
    "PairedScores",
    "PairedTest",
    "RankStability",
    "WelchSummary",
    "compare",
    "critical_difference_figure",
    "effect_sizes",
    "friedman_test",
    "holm",
    "nemenyi_difference",
    "nemenyi_test",
    "paired_scores",
    "rank_stability",
    "seed_permutation_test",
    "seed_test",
    "sign_flip_test",
    "two_way_test",
    "welch_from_summaries",
    "wilcoxon_test",
]
