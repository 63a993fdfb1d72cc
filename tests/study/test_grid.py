import pytest
import yaml
from lorastudy.study import grid, settings
from lorastudy.study.settings import REPOSITORY


@pytest.fixture
def config():
    return yaml.safe_load((REPOSITORY / "config.yaml").read_text())


def cells_of(config, **changes):
    config["grid"].update(changes)
    return grid.cells(settings.load(config).grid)


def test_the_papers_study(config):
    """13 points (7 + 7, one shared) x 2 methods x 2 target sets; 7 x 7 x 4 in full."""
    assert len(cells_of(config)) == 52
    assert len(cells_of(config, design="full")) == 196
    assert len(cells_of(config, design="full", seeds=[0, 1, 2, 3, 4])) == 980


def test_slices_share_the_crossing_cell(config):
    points = grid.points(settings.load(config).grid)
    assert points.count((16, 32)) == 1
    assert {r for r, alpha in points if alpha == 32} == {8, 16, 32, 64, 128, 256, 512}
    assert {alpha for r, alpha in points if r == 16} == {8, 16, 32, 64, 128, 256, 512}
    assert all(r == 16 or alpha == 32 for r, alpha in points)


def test_ids(config):
    assert "qlora_all-linear_r16_a32_s0" in cells_of(config)
    assert grid.Cell("lora", "attention", 8, 0.5, 1).id == "lora_attention_r8_a0.5_s1"
    assert grid.Cell("lora", "attention", 8, 16.0, 1).id == grid.Cell("lora", "attention", 8, 16, 1).id


def test_a_larger_grid_keeps_its_cells(config):
    before = cells_of(config)
    after = cells_of(config, r=[4, *config["grid"]["r"]], seeds=[0, 1])
    assert before.items() <= after.items()


def test_nearest_cells():
    known = ["lora_attention_r8_a32_s0", "lora_attention_r16_a32_s0", "qlora_all-linear_r512_a8_s0"]
    assert grid.nearest("lora_attention_r9_a32_s0", known, n=2) == known[:2]
    assert len(grid.nearest("x", known)) == 3
