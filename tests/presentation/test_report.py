"""The page's content, without a browser: what is in it, that it is whole, and that nothing in it can do harm."""

import base64
import gzip
import html
import json
import re
import shutil

import pandas as pd
import pytest
import report_study
from lorastudy.analysis import details
from lorastudy.presentation import report, rule_graph, tables
from lorastudy.presentation.origin import Origin
from lorastudy.study import settings
from lorastudy.study.configuration import Configuration


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    path, results = report_study.write(tmp_path_factory.mktemp("reported") / "study")
    return path, results, path.read_text(encoding="utf-8")


def study_of(page, part="study"):
    return json.loads(re.search(rf'<script type="application/json" id="{part}">(.*?)</script>', page, re.DOTALL)[1])


def test_every_section_is_there_in_order(reported):
    wanted = [
        "verdicts", "figures", "cells", "baselines", "tables", "data", "assumptions", "cost", "environment", "workflow",
    ]  # fmt: skip
    assert re.findall(r'<h2 id="([a-z]+)">', reported[2]) == wanted


def test_every_cell_has_a_row_and_a_panel(reported):
    _, results, page = reported
    study = study_of(page)
    assert re.findall(r'<tr data-id="([^"]+)"', page) == results.summary.id.tolist()
    assert list(study["rows"]) == results.summary.id.tolist()
    done = results.summary[results.summary.status.isin(["finished", "diverged"])]
    assert list(study["details"]) == done.id.tolist()
    row = results.summary.set_index("id").loc["lora_attention_r8_a32_s0"]
    assert study["rows"]["lora_attention_r8_a32_s0"]["accuracy"] == pytest.approx(row.accuracy, rel=1e-5)
    assert study["rows"][report_study.STALE]["reason"].startswith("made with another training.batch_size")


def test_verdicts_come_first_and_are_those_of_the_table(reported):
    path, _, page = reported
    claims, questions = (pd.read_csv(path.parent / "paper_tables" / f"{name}.csv") for name in ("claims", "questions"))
    frame = pd.concat([claims, questions])
    shown = re.findall(r'<li class="claim ([\w-]+)"[^>]*>.*?<h4>(.*?)</h4>\s*<p>(.*?)</p>', page, re.DOTALL)
    found = [(kind.replace("-", " "), html.unescape(says), html.unescape(text)) for kind, says, text in shown]
    assert found == list(zip(frame.verdict, frame.statement, frame.found))
    assert len(claims) == 33
    assert "not covered" in set(claims.verdict)


def test_verdicts_say_which_learning_rate_they_are_of_where_there_are_two(reported, tmp_path):
    assert "<dt>Learning rate</dt>" not in reported[2]
    path, _ = report_study.write(tmp_path / "study", (), grid__learning_rates=[3e-3], line__r=[8, 16], line__alpha=[32])
    said = re.findall(r"<dt>Learning rate</dt><dd>(.*?)</dd>", path.read_text(encoding="utf-8"))
    views = pd.read_csv(path.parent / "paper_tables" / "questions.csv")["view"]
    words = {"configured": "the configured one for all", "tuned": "the best of each point"}
    assert said == views.map(words).tolist()
    assert set(views) == set(words)


def test_tables_are_shown_as_people_read_them(reported):
    page = reported[2]
    names = tables.names(True, ["lora", "qlora"])
    wanted = [report._title(name) for name in names if name not in report.SECTIONS]
    assert re.findall(r"<details><summary>(.*?)</summary>\s*<p>", page)[-len(wanted) :] == wanted
    assert wanted[0] == "Table 1: hardware"
    assert "Section 3.3: LoRA against QLoRA" in wanted
    assert "not measured, since no device had a meter" not in page  # half of the cells have one
    assert page.count('<td class="n">21,024,808</td>') >= 1  # Table 4 at r = 8


def test_nothing_is_fetched(reported):
    """No address of another place in anything that a browser follows or loads."""
    page = reported[2]
    assert not re.findall(r'(?:src|href|srcset|action|data)\s*=\s*"(?!data:|#)[^"]*"', page)
    assert not re.search(r"@import|url\(\s*['\"]?(?!data:|#)", page)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_the_policy_names_the_page_s_own_script_and_style(reported):
    page = reported[2]
    script = page[page.rindex("<script>") + len("<script>") : page.rindex("</script>")]
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    assert f"script-src '{report._hash(script)}'" in page
    assert f"style-src '{report._hash(style)}'" in page


def test_hostile_text_is_text(reported):
    _, _, page = reported
    held = page.count("<script")
    assert held == 3 + len(re.findall(r'<script type="application/gzip"', page))
    assert "<img src=x" not in page
    assert "<b>of</b>" not in page
    assert "<i>stars</i>" not in page
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", page)
    texts = study_of(page, "texts").values()
    assert report_study.HOSTILE[0] in texts
    assert any("\u2400 \u2407 \u241b" in text and "{{ 7 * 7 }}" in text for text in texts)
    assert any(text.endswith("characters in all)") and len(text) < details.TEXT_LENGTH + 60 for text in texts)


def test_files_are_carried_whole(reported):
    path, _, page = reported
    found = re.findall(r'<script type="application/gzip" data-file="(\d+)" data-name="([^"]+)">([^<]*)</script>', page)
    assert [int(number) for number, _, _ in found] == list(range(len(found)))
    assert {"results/summary.csv", "results/points.csv", "results/confusion.json"} <= {name for _, name, _ in found}
    for _, name, packed in found:
        assert gzip.decompress(base64.b64decode(packed)) == (path.parent / name).read_bytes()


def test_the_page_is_the_same_bytes_again(reported):
    path, results, page = reported
    path.unlink()
    report_study.page(path.parent, results)
    assert path.read_text(encoding="utf-8") == page


def test_it_reads_only_what_the_rule_declares(tmp_path):
    """Neither records of cells nor texts: the page is the same when they are gone."""
    path, results = report_study.write(tmp_path / "study")
    page = path.read_text(encoding="utf-8")
    for name in ("cells", "zero_shot", "data"):
        shutil.rmtree(path.parent / "results" / name)
    report_study.page(path.parent, results)
    assert path.read_text(encoding="utf-8") == page


def test_texts_are_in_one_place_that_a_page_without_them_has_otherwise(tmp_path):
    """The page of the same study without its test texts: what lies around that place is the same, and it says why."""
    study, pages = report_study.run(tmp_path), []
    for _ in range(2):
        pages.append(report_study.draw(tmp_path, study, ("r_trend",))[0].read_text(encoding="utf-8"))
        for name in ("figures", "paper_tables"):
            shutil.rmtree(tmp_path / name)
        (tmp_path / "results" / "data" / "test.parquet").unlink(missing_ok=True)
    parts = [re.split("<!-- (?:end of )?texts -->", page) for page in pages]
    assert parts[0][::2] == parts[1][::2]
    assert len(study_of(pages[0], "texts")) > 5
    assert study_of(pages[1], "texts") is None
    assert ["The texts are not in this page" in page for page in pages] == [False, True]
    assert report.without_texts(pages[0]) == pages[1]


def test_a_long_curve_is_thinned_and_keeps_its_end():
    rows = pd.DataFrame({"step": range(1, 1001), "loss": [1000.0 - step for step in range(1, 1001)]})
    curve = report._curve(rows)
    assert len(curve["step"]) == report.CURVE_POINTS
    assert (curve["step"][-1], curve["loss"][-1]) == (1000, 0.0)
    assert curve["step"][:2] == [5, 10]
    assert report._curve(rows.head(3)) == {"step": [1, 2, 3], "loss": [999.0, 998.0, 997.0]}


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (None, "number", "–"), (pd.NA, "whole", "–"), (float("nan"), "fraction", "–"), (21024808, "whole", "21,024,808"),
        (0.46333, "fraction", "0.463"), (2.4, "duration", "2.4 s"), (3725.2, "duration", "1:02:05"),
        (0.000123456, "number", "0.0001235"), (123456.7, "number", "123,457"), ("a\x00b", "text", "a␀b"),
    ],
)  # fmt: skip
def test_values_as_text(value, kind, text):
    assert report.show(value, kind) == text


def command(study, configured, *target):
    return Origin.of(study, configured, (report_study.DOT, None)).command(*target)


def test_the_command_can_be_typed(tmp_path):
    alone = Configuration()
    assert command(settings.REPOSITORY, alone) == "snakemake --cores 1"
    assert command(settings.REPOSITORY / "demo", alone, "figures/a.png") == (
        "snakemake -d demo --cores 1 --force figures/a.png"
    )
    assert "'" in command(settings.REPOSITORY / "a study; rm", alone, "x")


def test_the_command_says_what_configured_the_study():
    """Files relative to where it is typed, values quoted for the shell; options last, as they take all that follows."""
    configured = Configuration((str(settings.REPOSITORY / "demo" / "one.yaml"),), ("grid={r: [2]}", "study={name: x}"))
    assert command(settings.REPOSITORY / "demo", configured, "report.html") == (
        "snakemake -d demo --cores 1 --force report.html --configfile demo/one.yaml "
        "--config 'grid={r: [2]}' 'study={name: x}'"
    )


def test_backticks_become_code_and_nothing_else_becomes_markup():
    assert report.code("set `a<b`, not <i>") == "set <code>a&lt;b</code>, not &lt;i&gt;"


def test_the_page_says_where_it_came_from(reported):
    path, _, page = reported
    assert report.origin_of(page) == Origin.of(path.parent, Configuration(), (report_study.DOT, None))
    assert report.origin_of(page).rules == rule_graph.parse(report_study.DOT)


# --- the graph of rules


def test_an_edge_that_a_longer_path_implies_is_left_out():
    users = rule_graph.parse(report_study.DOT)
    assert users == {"all": [], "finetune_cell": ["all"], "prepare_data": ["all", "finetune_cell"]}
    assert rule_graph.reduced(users)["prepare_data"] == ["finetune_cell"]


def test_layers_follow_the_edges_and_boxes_do_not_overlap():
    users = {"a": ["b", "c"], "b": ["d"], "c": ["e"], "d": ["e"], "e": [], "f": ["e"]}
    drawing = rule_graph.layout(users)
    place = {name: (x, y) for name, x, y in drawing.boxes}
    assert all(place[name][1] < place[user][1] for name in users for user in users[name])
    assert len(set(place.values())) == len(users)
    for _, (x, y) in place.items():
        assert 0 <= x <= drawing.width - rule_graph.WIDTH
        assert 0 <= y <= drawing.height - rule_graph.HEIGHT
    assert place["f"][1] == place["c"][1] == place["d"][1]  # as near to their user as they can be
    bent = next(line for line in drawing.lines if len(line) > 2)  # from a to c, past the layer of b
    assert bent[0][0] == place["a"][0] + rule_graph.WIDTH / 2
    assert bent[-1] == (place["c"][0] + rule_graph.WIDTH / 2, place["c"][1])
