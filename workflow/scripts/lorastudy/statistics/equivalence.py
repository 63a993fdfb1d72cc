"""What an interval says of a difference and a margin: four answers (Lakens, Scheel and Isager 2018).

They are read off one interval, so that none can contradict what is printed: a 95% interval that lies within ± the
margin is two one-sided tests (Schuirmann 1987) at 2.5% each, one that leaves 0 out a two-sided test at 5%.
"""

BEYOND = "differs beyond the margin"
WITHIN = "differs within the margin"
EQUIVALENT = "equivalent"
UNDECIDED = "undecided"


def answer(low, high, margin):
    """One of the four answers; an interval that has no ends (NaN) is undecided.

    ``UNDECIDED`` says that the data does not tell on which side of the margin the difference lies; the difference may
    be known to be one all the same (an interval that leaves 0 out and holds the margin).
    """
    if low > margin or high < -margin:
        return BEYOND
    if -margin < low and high < margin:
        return WITHIN if low > 0 or high < 0 else EQUIVALENT
    return UNDECIDED


def smallest_margin(low, high):
    """The smallest margin within which the interval shows equivalence: any larger one would do."""
    return max(abs(low), abs(high))
