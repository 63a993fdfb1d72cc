"""The paper's future work, one configuration each: it loads, and holds what it is called after."""

import subprocess
import sys

import pytest
import yaml
from lorastudy.inputs import linear_layers, sources
from lorastudy.inputs.sources import files
from lorastudy.study import architecture, grid, settings
from lorastudy.study.settings import REPOSITORY

# cells by hand: points x target sets x methods x seeds (x learning rates), and controls
COUNTS = {
    "alpha-below-r": 9 * 2 * 2 * 3,  # 6 and 4 points, of which (64, 32) is on both lines
    "five-epochs": 4 * 2 * 2 * 5,
    "target-sets": 3 * 10 * 1 * 3,
    "methods": 3 * (3 * 2 * 4 * 3 + 2 * 3),
}


@pytest.mark.parametrize("name", COUNTS)
def test_the_future_work_is_planned(name):
    study = settings.load(yaml.safe_load((REPOSITORY / "examples" / name / "config.yaml").read_text(encoding="utf-8")))
    cells = grid.cells(study.grid)
    assert len(cells) == COUNTS[name]
    linear_layers.require(architecture.named(study.model.name), cells.values())


def test_clothing_says_how_its_file_is_made(tmp_path):
    """The lines of Python in its comment, on a file with the published one's columns: no empty reviews, none twice."""
    config = (REPOSITORY / "examples" / "clothing" / "config.yaml").read_text(encoding="utf-8")
    lines = [
        line.removeprefix("#   ") for line in config.splitlines() if line.startswith(("#   import", "#   reviews"))
    ]
    published = "Womens Clothing E-Commerce Reviews.csv"
    (tmp_path / published).write_text(
        ',Clothing ID,Age,Title,Review Text,Rating\n0,767,33,,"Soft, and warm",4\n1,1080,34,,,5\n2,1,60,Fine,Too small,2\n'
        "3,1,60,Fine,Too small,2\n",
        encoding="utf-8",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, check=True)
    study = settings.load(yaml.safe_load(config))
    rows, _ = files.read(sources.Source.of(study.data), tmp_path)
    assert [row[1:3] for row in rows["any"]] == [("Soft, and warm", 4), ("Too small", 2)]


def test_clothing_without_its_file_ends_in_a_line(tmp_path):
    study = settings.load(
        yaml.safe_load((REPOSITORY / "examples" / "clothing" / "config.yaml").read_text(encoding="utf-8"))
    )
    with pytest.raises(
        sources.labels.DataError, match=r"`data.train_file` is 'clothing-reviews.csv.gz', and there is no such"
    ):
        sources.check(study.data, tmp_path)
