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
    digits = next((d for d in DIGITS if all(_kept(end, bound, d) for end in (low, high) for bound in (0, margin, -margin))),
                  DIGITS[-1])  # fmt: skip
    return interval(low, high, level, lambda end: points(end, digits))


def _kept(end, bound, digits):
    shown, at = round(100 * end, digits), round(100 * bound, 9)
    return (shown > at) == (100 * end > at) and (shown < at) == (100 * end < at)


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
