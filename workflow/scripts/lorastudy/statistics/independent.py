"""Estimates of two studies that were made apart from each other."""

import math


def difference(one, other):
    """Difference of two independent estimates with its interval, from the interval of each: (difference, low, high).

    The method of variance estimates recovery (Zou and Donner 2008); of Wilson's intervals it is Newcombe's (1998, his
    method 10). Its coverage is that of the two intervals.

    Args:
        one, other: (value, low, high).
    """
    (a, a_low, a_high), (b, b_low, b_high) = one, other
    return a - b, a - b - math.hypot(a - a_low, b_high - b), a - b + math.hypot(a_high - a, b - b_low)
