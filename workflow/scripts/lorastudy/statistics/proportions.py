"""Counts out of totals: intervals and tests that hold for small ones."""

import math


def wilson(count, total, coverage=0.95):
    """Wilson's score interval of a proportion (1927); (0, 1) of nothing."""
    from scipy.special import ndtri

    if not total:
        return 0.0, 1.0
    z = float(ndtri((1 + coverage) / 2))
    share, more = count / total, z * z / total
    middle = (share + more / 2) / (1 + more)
    half = z / (1 + more) * math.sqrt(share * (1 - share) / total + more / total / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def fisher(count, total, other_count, other_total):
    """Two-sided p of Fisher's exact test that two proportions are equal; 1 where either is of nothing."""
    from scipy.stats import fisher_exact

    if not total or not other_total:
        return 1.0
    table = [[count, total - count], [other_count, other_total - other_count]]
    return float(fisher_exact(table).pvalue)
