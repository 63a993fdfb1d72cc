"""A study's settings are read as Snakemake reads them, but no key of theirs is dropped in silence."""

import argparse
import os
import re

import pytest
import yaml
from lorastudy.study import configuration, settings
from lorastudy.study.configuration import Configuration

TWICE = """\
study:
  name: Hunt
training: {batch_size: 10, learning_rate: 5.0e-3}
statistics: {resamples: 100}
training:
  epochs: 3
"""


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("config.yaml", TWICE, [r"config.yaml: `training` stands twice \(lines 3, 5\)"]),
        ("config.yaml", "data:\n  labels: [1]\n  seed: 0\n  labels: [2]\n", [r"`data.labels` stands twice \(lines 2, 4\)"]),
        ("config.yaml", "a: 1\na: 2\nb:\n- {c: 1, c: 2}\na: 3\n", [r"`a` stands 3 times \(lines 1, 2, 5\)", r"`b.0.c` stands twice \(lines 4, 4\)"]),
        ("one.json", '{\n\t"grid": {"r": [2]},\n\t"grid": {"r": [4]}\n}\n', [r"one.json: `grid` stands twice \(lines 2, 3\)"]),
        ("config.yaml", 'a: 1\n"a": 2\n', [r"`a` stands twice \(lines 1, 2\)"]),
    ],
)  # fmt: skip
def test_a_key_that_stands_twice_is_named_with_its_lines(tmp_path, monkeypatch, name, text, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(settings.ConfigError) as caught:
        configuration.require_single_keys([tmp_path / name])
    said = str(caught.value).splitlines()
    assert len(said) == len(expected)
    for wanted in expected:
        assert len([line for line in said if re.search(wanted, line)]) == 1, said


@pytest.mark.parametrize(
    "text", ["a: &x {k: 1}\nb: {<<: *x, l: 2}\nc: {<<: *x}\n", "a: &x [1]\nb: *x\nc: *x\n", "1: a\n'1': b\n", ""]
)
def test_what_only_looks_repeated_is_none(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    configuration.require_single_keys([tmp_path / "config.yaml"])


def snakemakes(directory, arguments):
    """The configuration as Snakemake itself merges it."""
    from snakemake.cli import get_argument_parser, parse_config
    from snakemake.settings.types import ConfigSettings
    from snakemake.utils import update_config

    asked = get_argument_parser().parse_args(arguments)
    given = ConfigSettings(
        config=parse_config(asked.config), configfiles=asked.configfile or (), config_args=asked.config
    )
    own = directory / "config.yaml"
    config = yaml.safe_load(own.read_text(encoding="utf-8")) if own.exists() else {}
    update_config(config, given.overwrite_config)
    return config, Configuration.of(given)


def test_files_and_values_override_as_in_snakemake(tmp_path):
    (tmp_path / "config.yaml").write_text("aa: {b: 1, c: [1, 2]}\nd: x\n", encoding="utf-8")
    (tmp_path / "one.yaml").write_text("aa: {c: [3]}\n", encoding="utf-8")
    (tmp_path / "two.json").write_text('{"aa": {"e": "y"}, "d": "z"}', encoding="utf-8")
    files = [str(tmp_path / name) for name in ("one.yaml", "two.json")]
    expected, configured = snakemakes(tmp_path, ["--configfile", *files, "--config", "dd=word", "aa={f: w}"])
    assert configured.files == tuple(files)
    assert configured.read(tmp_path) == expected
    assert expected["aa"] == {"b": 1, "c": [3], "e": "y", "f": "w"}


def test_values_of_the_command_line_have_the_types_of_yaml(tmp_path):
    """Snakemake itself makes strings of what is inside braces."""
    values = ("grid={r: [2, 4], seeds: [0]}", "study={paper: false, name: yes it is}", "data={test_file: null}")
    (tmp_path / "config.yaml").write_text("grid: {r: [8]}\n", encoding="utf-8")
    read = Configuration(values=values).read(tmp_path)
    assert read == {
        "grid": {"r": [2, 4], "seeds": [0]},
        "study": {"paper": False, "name": "yes it is"},
        "data": {"test_file": None},
    }
    with pytest.raises(settings.ConfigError, match=r"--config grid: `grid.r` stands twice"):
        Configuration(values=("grid={r: [2], r: [4]}",)).read(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "config.yaml: there is no such file; name the directory"),
        (b"- a\n", "keys at top level"),
        (b"a: [1\nb: 2\n", r"config.yaml is not YAML \(line 2: .*\); indent"),
        (b"a:\n\tb: 1\n", r"config.yaml is not YAML \(line 2: .*\); indent"),
        ("study: {name: Caf\u00e9}\n".encode("latin-1"), r"is not UTF-8 text \(line 1\); save it as UTF-8"),
        ("a: 1\n".encode("utf-16"), r"is not UTF-8 text \(line 1\); save it"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(settings.ConfigError, match=message) as caught:
        Configuration().read(tmp_path)
    assert "\n" not in str(caught.value)


def chosen(*arguments):
    parser = argparse.ArgumentParser()
    configuration.add_options(parser)
    return parser.parse_args(arguments)


def test_without_options_a_study_is_seen_as_it_was_run_last(tmp_path):
    run = Configuration((str(tmp_path / "one.yaml"),), ("a={b: 1}",), True)
    run.remember(tmp_path)
    assert Configuration.of_options(chosen()).or_last(tmp_path) == run
    given = Configuration.of_options(chosen("--config", "a=2"))
    assert given.or_last(tmp_path) == given == Configuration(values=("a=2",))
    Configuration().remember(tmp_path)
    assert Configuration().or_last(tmp_path) == Configuration()


def test_the_options_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = Configuration.of_options(
        chosen("--configfile", "a.yaml", "b.yaml", "-C", "k=v", "--replace-workflow-config")
    )
    assert given.files == (os.path.join(tmp_path, "a.yaml"), os.path.join(tmp_path, "b.yaml"))
    assert Configuration.of_options(chosen(*given.arguments())) == given
    assert given.arguments(tmp_path)[:3] == ["--configfile", "a.yaml", "b.yaml"]
