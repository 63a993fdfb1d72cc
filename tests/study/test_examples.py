"""The paper's future work, one configuration each: it loads, and holds what it is called after."""

import pytest
import yaml
from lorastudy.inputs import linear_layers
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
