"""Differences, intervals and tests in words."""

import math

LEVEL = 0.95  # of an interval that goes without saying
DIGITS = (1, 2, 3, 4)  # of percentage points


def points(value, digits=1):
    """A difference of fractions in percentage points, with a true minus and no sign on zero."""
    return signed(100 * value, digits)


def signed(value, digits):
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else f"{0:.{digits}f}"


def interval(low, high, level=LEVEL, form=points):
    """An interval in brackets; its level is said where it is not 95%."""
    if math.isnan(low):
        return "(no interval)"
    at = "" if math.isclose(level, LEVEL) else f" ({100 * level:.4g}%)"
    return f"[{form(low)}, {form(high)}]{at}"


def difference_interval(low, high, margin, level=LEVEL):
    """An interval of a difference, with as many digits as keep its ends on their side of 0 and of the margin."""
    forms = [lambda end, digits=digits: points(end, digits) for digits in DIGITS]
    shown = [lambda end, digits=digits: round(100 * end, digits) / 100 for digits in DIGITS]
    return interval(low, high, level, forms[_first_faithful(shown, (low, high), (0, margin, -margin))])


def ratio_interval(low, high, bounds):
    """An interval of a ratio, with as many digits as keep its ends on their side of the bounds."""
    forms = [f"{{:.{digits}g}}".format for digits in range(3, 7)]
    shown = [lambda end, form=form: float(form(end)) for form in forms]
    return interval(low, high, form=forms[_first_faithful(shown, (low, high), bounds)])


def _first_faithful(shown, ends, bounds):
    """Index of the first rounding under which no end moves onto or across a bound; the last if there is none."""

    def kept(rounded, end, bound):
        return (rounded - bound > 1e-12) == (end > bound) and (bound - rounded > 1e-12) == (end < bound)

    kept_by = (all(kept(form(end), end, bound) for end in ends for bound in bounds) for form in shown)
    return next((index for index, faithful in enumerate(kept_by) if faithful), len(shown) - 1)


def margin(value):
    return f"{100 * value:g} point{'' if value == 0.01 else 's'}"


def count(number, what):
    return f"{int(number)} {what}{'' if number == 1 else 's'}"


def difference(check, value, reading, of_margin):
    """What a check found: "LoRA, r = 8: α = 32 ahead of α = 64 by 0.8 points [−0.2, 1.8]"."""
    context = f"{check.context}: " if check.context else ""
    if check.number is not None:
        ends = interval(check.number + reading.low, check.number + reading.high, reading.level, "{:.4f}".format)
        return f"{context}{check.a} at {check.number + value:.4f} {ends} against {check.number:g}"
    low, high = (reading.low, reading.high) if value >= 0 else (-reading.high, -reading.low)
    way = "ahead of" if value >= 0 else "behind"
    ends = difference_interval(low, high, of_margin, reading.level)
    return f"{context}{check.a} {way} {check.b} by {points(abs(value))} points {ends}"
