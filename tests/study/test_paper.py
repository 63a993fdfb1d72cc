"""The paper's tables from its own arithmetic, to every printed digit."""

import json

import pytest
from lorastudy.study import paper, settings

ARCHITECTURE = json.loads((settings.ARCHITECTURES / "llama-3-8b.json").read_text(encoding="utf-8"))


def test_table2_every_digit():
    stated, computed = paper.table(2).set_index("use"), paper.memory_by_dtype().set_index("use")
    assert computed.to_dict() == stated.to_dict()
    assert stated.size == 8


def test_table3_every_digit():
    parameters = int(paper.table(4).set_index("r").all_linear[paper.MEMORY_RANK])
    computed = paper.memory_by_method(parameters).set_index("type")
    stated = paper.table(3).set_index("type")[computed.columns]
    assert stated.size == 15
    assert computed.to_dict() == stated.to_dict()


def test_table4_every_count():
    stated = paper.table(4)
    assert tuple(stated.r) == paper.RANKS
    for row in stated.itertuples():
        assert paper.trainable_parameters(ARCHITECTURE, 5, "all-linear", "paper", row.r) == row.all_linear
        assert paper.trainable_parameters(ARCHITECTURE, 5, "attention", "paper", row.r) == row.attention
        assert paper.trainable_parameters(ARCHITECTURE, 5, "attention", "plain", row.r) == row.attention


def test_plain_head_is_what_current_peft_counts():
    assert paper.trainable_parameters(ARCHITECTURE, 5, "all-linear", "plain", 8) == 20_992_000


@pytest.mark.parametrize(
    ("value", "decimals", "expected"), [(0.1566, 3, 0.157), (14.9012, 2, 14.9), (0.00979, 3, 0.0097), (2.5, 0, 3.0)]
)
def test_printed(value, decimals, expected):
    assert paper.printed(value, decimals) == expected
