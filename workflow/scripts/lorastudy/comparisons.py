"""Paired comparisons on the same test texts."""


def build(summary, statistics, study_directory="."):
    import pandas as pd

    return pd.DataFrame(columns=["family", "a", "b"])
