import pytest
import yaml
from lorastudy.study import grid, settings
from lorastudy.study.settings import REPOSITORY


@pytest.fixture
def config():
    return yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8"))


def cells_of(config, **changes):
    config["grid"].update(changes)
    return grid.cells(settings.load(config).grid)


def test_the_papers_study(config):
    """13 points (10 + 4, one shared) x 2 methods x 2 target sets, as section 2.7 has them."""
    assert len(cells_of(config)) == 52
    assert len(cells_of(config, seeds=[0, 1, 2])) == 156
    points = grid.points(settings.load(config).grid)
    assert points == [
        (1, 2), (2, 4), (4, 8), (8, 16), (16, 32), (32, 64), (64, 128), (128, 256), (256, 512), (512, 1024),
        (8, 8), (8, 32), (8, 64),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "varies", "points", "held"),
    [
        ({"r": [4, 8], "alpha": 32}, "r", ((4, 32), (8, 32)), ("alpha", 32)),
        ({"r": [4, 8], "alpha_ratio": 0.5}, "r", ((4, 2), (8, 4)), ("ratio", 0.5)),
        ({"r": [3, 1], "alpha_ratio": 0.1}, "r", ((3, 0.3), (1, 0.1)), ("ratio", 0.1)),
        ({"r": 8, "alpha": [8, 0.5]}, "alpha", ((8, 8), (8, 0.5)), ("r", 8)),
        ({"r": [8], "alpha": [8]}, "both", ((8, 8),), None),
        ({"r": 8, "alpha": 8}, "r", ((8, 8),), ("alpha", 8)),
        ({"r": 8, "alpha_ratio": 2}, "r", ((8, 16),), ("alpha", 16)),
    ],
)
def test_lines(config, rule, varies, points, held):
    config["grid"]["lines"] = {"name": rule}
    (found,) = grid.lines(settings.load(config).grid)
    assert (found.name, found.varies, found.points, found.held) == ("name", varies, points, held)


def test_a_cross_product_has_a_line_at_every_value(config):
    config["grid"]["lines"] = {"all": {"r": [8, 4], "alpha": [16, 1, 2]}}
    lines = grid.lines(settings.load(config).grid)
    assert len(grid.points(settings.load(config).grid)) == 6
    assert [(part.points, part.held) for part in lines[0].along("r")] == [
        (((8, 16), (4, 16)), ("alpha", 16)),
        (((8, 1), (4, 1)), ("alpha", 1)),
        (((8, 2), (4, 2)), ("alpha", 2)),
    ]
    assert [part.held for part in lines[0].along("alpha")] == [("r", 8), ("r", 4)]
    assert grid.trend(lines, "r").held == ("alpha", 2)  # the middle one
    assert grid.trend(lines, "alpha").held == ("r", 4)  # of two the lower one


def test_a_line_of_its_own_goes_before_a_cross_product(config):
    config["grid"]["lines"] = {"all": {"r": [4, 8], "alpha": [1, 2]}, "mine": {"r": [1, 2], "alpha_ratio": 2}}
    lines = grid.lines(settings.load(config).grid)
    assert grid.trend(lines, "r").name == "mine"
    assert grid.trend(lines[1:], "alpha") is None


def test_whole_numbers_are_one_value_however_they_are_written(config):
    """The record of a cell, which reruns it when it changes, does not depend on 16 being written as 16.0."""
    config["grid"]["lines"] = {"one": {"r": 8.0, "alpha": [16.0]}, "other": {"r": [8], "alpha_ratio": 2.0}}
    assert [cell.as_dict() for cell in cells_of(config, methods=["lora"], targets=["attention"]).values()] == [
        {"method": "lora", "targets": "attention", "r": 8, "alpha": 16, "seed": 0}
    ]
    assert "lora_attention_r8_a16_s0" in cells_of(config)


def test_ids(config):
    assert "qlora_all-linear_r16_a32_s0" in cells_of(config)
    assert grid.Cell("lora", "attention", 8, 0.5, 1).id == "lora_attention_r8_a0.5_s1"
    assert grid.Cell("lora", "attention", 8, 16.0, 1).id == grid.Cell("lora", "attention", 8, 16, 1).id


def test_a_larger_grid_keeps_its_cells(config):
    before = cells_of(config)
    more = config["grid"]["lines"] | {"constant alpha": {"r": [4, 8, 12], "alpha": 16}}
    after = cells_of(config, lines=more, seeds=[0, 1])
    assert before.items() <= after.items()


def test_nearest_cells():
    known = ["lora_attention_r8_a32_s0", "lora_attention_r16_a32_s0", "qlora_all-linear_r512_a8_s0"]
    assert grid.nearest("lora_attention_r9_a32_s0", known, n=2) == known[:2]
    assert len(grid.nearest("x", known)) == 3


def test_other_methods_and_target_sets_have_names_of_their_own(config):
    found = cells_of(
        config,
        methods=["dora", "adalora"],
        targets=["mlp", "q-v"],
        target_sets={"q-v": ["q_proj", "v_proj"], "q": ["q_proj"]},
        lines={"r": {"r": [8], "alpha": 16}},
    )
    assert list(found) == [
        "dora_mlp_r8_a16_s0", "dora_q-v_r8_a16_s0", "adalora_mlp_r8_a16_s0", "adalora_q-v_r8_a16_s0",
    ]  # fmt: skip
    assert found["dora_q-v_r8_a16_s0"].modules == ("q_proj", "v_proj")
    assert found["dora_mlp_r8_a16_s0"].modules is None


def test_a_control_has_one_cell_a_seed_and_learning_rate(config):
    config["data"]["validation_size"] = 100
    found = cells_of(
        config,
        methods=["lora", "head", "full"],
        lines={"r": {"r": [8], "alpha": 16}},
        targets=["mlp"],
        seeds=[0, 1],
        scaling=["rank-stabilised", "standard"],
        learning_rates=[1e-5],
    )
    assert [name for name in found if not name.startswith("lora")] == [
        "head_s0", "full_s0", "head_s1", "full_s1", "head_lr1e-05_s0", "full_lr1e-05_s0", "head_lr1e-05_s1",
        "full_lr1e-05_s1",
    ]  # fmt: skip
    assert found["full_s0"].as_dict() == {"method": "full", "targets": None, "r": None, "alpha": None, "seed": 0}


def test_a_record_of_a_cell_makes_the_same_cell(config):
    """And a cell of before there were other target sets says what it always said."""
    import json

    cells = cells_of(config, targets=["attention", "v"], target_sets={"v": ["v_proj"]})
    for cell in cells.values():
        assert grid.Cell(**json.loads(json.dumps(cell.as_dict()))) == cell
    assert cells["lora_attention_r1_a2_s0"].as_dict() == {
        "method": "lora", "targets": "attention", "r": 1, "alpha": 2, "seed": 0,
    }  # fmt: skip
    assert cells["lora_v_r1_a2_s0"].as_dict()["modules"] == ["v_proj"]
