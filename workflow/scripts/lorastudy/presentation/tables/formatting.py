"""How numbers look in tables."""

import numpy as np


def number(value, digits=3):
    """A number with so many decimals; a dash where there is none."""
    if value is None or np.isnan(float(value)):
        return "–"
    text = f"{float(value):,.{digits}f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else f"{0:.{digits}f}"


def signed(value, digits=3):
    """A difference, with its sign; 0 has none."""
    text = number(value, digits)
    return text if text == "–" or text.startswith("−") or not float(text.replace(",", "")) else f"+{text}"


def significant(value, digits=3, sign=False):
    """A positive quantity of any size with about three digits."""
    if value is None or np.isnan(value):
        return "–"
    decimals = 0 if value == 0 else max(0, digits - 1 - int(np.floor(np.log10(abs(value)))))
    return (signed if sign else number)(value, min(decimals, 6))


def whole(value):
    return "–" if value is None or np.isnan(float(value)) else f"{int(value):,}"


def interval(value, low, high, digits=3, form=number):
    """A value with its interval, ``0.512 [0.455, 0.568]``."""
    if value is None or np.isnan(float(value)):
        return "–"
    if low is None or np.isnan(float(low)):
        return form(value, digits)
    return f"{form(value, digits)} [{form(low, digits)}, {form(high, digits)}]"


def p_value(value):
    if value is None or np.isnan(float(value)):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
