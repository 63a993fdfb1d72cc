"""What surrounds a study changes nothing of it: how targets and options are written, the place, the locale, other files."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml
from lorastudy.study.settings import REPOSITORY

TRAINING = {"finetune_cell", "evaluate_cell", "fetch_data", "prepare_data"}


def rules(done):
    """Rules of the jobs that a dry run counts."""
    counted = re.search(r"^Job stats:\n.*\n-.*\n((?:.+\n)*?)total ", done.stdout + done.stderr, re.MULTILINE)
    return {line.split()[0] for line in counted[1].splitlines()} if counted else set()


def refused(done):
    """The one line that a command was refused with."""
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Traceback" not in said
    return said.strip().splitlines()[-1]


def script(name, *arguments, **options):
    """What one of the scripts that are no rules' says."""
    command = [sys.executable, REPOSITORY / "workflow" / "scripts" / name, *arguments]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        encoding="utf-8",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
        **options,
    )
    return done.stdout


# --- targets


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ("./report.html", "report.html"),
        ("./figures/r_trend.pdf", "figures/r_trend.pdf"),
        ("./figures/", "figures/"),
        ("HERE/paper_tables/claims.md", "paper_tables/claims.md"),
        ("figures/../report.html", "report.html"),
    ],
)
def test_a_target_by_another_name_trains_no_more_than_by_its_own(copy_study, snakemake, written, target):
    """A changed learning rate makes every cell out of date; a changed fingerprint of the results all that shows them."""
    path = copy_study / "config.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("5.0e-3", "6.0e-3"), encoding="utf-8")
    (copy_study / "results" / "summary.csv").touch()
    own = rules(snakemake("-n", "-d", copy_study, target))
    assert own & {"plot_figure", "make_report", "make_table"}
    assert not own & TRAINING
    other = written.replace("HERE", str(copy_study))
    assert rules(snakemake("-n", "-d", copy_study, other)) - {other} == own - {target}


def test_a_plot_by_its_whole_path_is_drawn(copy_study, snakemake):
    plot = copy_study / "figures" / "r_trend.pdf"
    before = plot.read_bytes()
    plot.unlink()
    snakemake("--cores", 1, "-d", copy_study, plot)
    assert plot.read_bytes() == before


# --- configuration


def test_a_key_that_stands_twice_is_refused_wherever_it_is_written(tmp_path, snakemake):
    for name in ("config.yaml", "reviews.csv"):
        shutil.copy(REPOSITORY / ".test" / name, tmp_path / name)
    (tmp_path / "more.json").write_text('{"training": {"epochs": 2},\n"training": {"batch_size": 4}}', encoding="utf-8")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_text("cores: 1\nset-threads: {a: 1}\ncores: 2\n", encoding="utf-8")
    said = refused(snakemake("-n", "-d", tmp_path, "--configfile", tmp_path / "more.json", check=False))
    assert said.startswith("more.json: `training` stands twice (lines 1, 2)")
    said = refused(snakemake("-n", "-d", tmp_path, "--profile", tmp_path / "mine", check=False))
    assert said.startswith("mine/config.yaml: `cores` stands twice (lines 1, 3)")
    with (tmp_path / "config.yaml").open("a", encoding="utf-8") as file:
        file.write("training: {epochs: 3}\n")
    said = refused(snakemake("-n", "-d", tmp_path, check=False))
    lines = (tmp_path / "config.yaml").read_text(encoding="utf-8").splitlines()
    both = [number for number, line in enumerate(lines, 1) if line.startswith("training:")]
    assert said.startswith(f"config.yaml: `training` stands twice (lines {both[0]}, {both[1]})")


def test_a_configuration_that_is_not_utf_8_is_refused_in_a_line(tmp_path, snakemake):
    shutil.copy(REPOSITORY / ".test" / "reviews.csv", tmp_path)
    text = (REPOSITORY / ".test" / "config.yaml").read_text(encoding="utf-8")
    (tmp_path / "config.yaml").write_bytes(text.replace("Tiny", "Kl\u00e4glich").encode("latin-1"))
    assert refused(snakemake("-n", "-d", tmp_path, check=False)).startswith("config.yaml is not UTF-8 text (line ")


def test_a_study_that_options_configure(copy_study, snakemake):
    """The report has its graph and says the options; watching and resuming need not be told them again."""
    (copy_study / "config.yaml").rename(copy_study / "one.yaml")
    config = yaml.safe_load((copy_study / "one.yaml").read_text(encoding="utf-8"))
    lines = config["grid"].pop("lines")
    (copy_study / "one.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    given = f"grid={{lines: {yaml.safe_dump(lines, default_flow_style=True).strip()}}}"
    options = ("--configfile", copy_study / "one.yaml", "--config", given, "study={paper: false}")
    (copy_study / "report.html").unlink()
    snakemake("-d", copy_study, "--cores", 1, "all", *options)
    page = (copy_study / "report.html").read_text(encoding="utf-8")
    assert "--configfile" in page
    assert "one.yaml --config" in page
    assert ">finetune_cell</text>" in page  # in the graph of the rules
    assert "8 of 8 cells" in script("watch.py", copy_study, "--once")
    assert "Nothing to be done" in script("resume.py", "-d", copy_study, "-n", "--cores", "1")


# --- Snakemake's own report, modules, profiles


def test_snakemakes_report_does_not_replace_the_studys(copy_study, snakemake):
    before = (copy_study / "report.html").read_bytes()
    assert "--report snakemake_report.html" in refused(snakemake("-d", copy_study, "--report", check=False))
    assert (copy_study / "report.html").read_bytes() == before


@pytest.mark.parametrize("rename", ["", " as mine_*"])
def test_as_a_module_it_says_that_it_must_be_cloned(tmp_path, rename):
    for name in ("config.yaml", "reviews.csv"):
        shutil.copy(REPOSITORY / ".test" / name, tmp_path / name)
    module = f"module study:\n    snakefile: {str(REPOSITORY / 'Snakefile')!r}\n    config: config\n"
    text = f'configfile: "config.yaml"\n{module}use rule * from study{rename}\n'
    (tmp_path / "Snakefile").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "-n"]
    own = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}  # Snakemake's, whose Snakefile is the user's here
    done = subprocess.run(command, cwd=tmp_path, env=own, encoding="utf-8", capture_output=True, check=False)
    assert "run from a clone of it" in refused(done)


@pytest.mark.parametrize("study", ["a study", "it's mine", 'a "quoted" `study`; and * more', "добро"])
@pytest.mark.parametrize("target", ["watch", "resume", "bundle"])
def test_what_is_typed_for_a_study_is_one_word_for_the_shell(target, study):
    command = ["make", "--no-print-directory", "-n", target, f"STUDY={study}".encode()]  # in any locale
    said = subprocess.run(command, cwd=REPOSITORY, encoding="utf-8", capture_output=True, check=True).stdout
    assert study in shlex.split(said.strip().splitlines()[-1])


# --- other files beside the study


def test_modules_beside_the_study_are_not_run(copy_study, snakemake):
    """Named like modules that Python, Snakemake, matplotlib and this library import."""
    ran, figure, page = copy_study / "ran", copy_study / "figures" / "r_trend.pdf", copy_study / "report.html"
    before = figure.read_bytes()
    for name in ("statistics", "random", "yaml", "numpy", "jinja2", "matplotlib", "lorastudy", "snakemake", "pip"):
        text = f"open({str(ran)!r}, 'a').close()\nraise SystemExit('a script of the user')\n"
        (copy_study / f"{name}.py").write_text(text, encoding="utf-8")
    page.unlink()
    snakemake("-d", copy_study, "--cores", 1, "--force", "report.html", "figures/r_trend.pdf")
    assert not ran.exists()
    assert figure.read_bytes() == before
    assert "finetune_cell</text>" in page.read_text(encoding="utf-8")  # the graph, which another process writes


def test_weights_may_be_read_by_whoever_may_read_the_other_files(finished_study):
    others = (finished_study / "results" / "data" / "card.json").stat().st_mode
    weights = [path for path in finished_study.rglob("*.safetensors") if not path.is_symlink()]
    assert len(weights) > 8
    assert {path.stat().st_mode for path in weights} == {others}


# --- locales


@pytest.fixture(scope="session")
def latin_1(tmp_path_factory):
    """Environment of a locale that is not UTF-8, made by glibc's own tool."""
    if not shutil.which("localedef"):
        pytest.skip("localedef, which makes the locale, is not on this machine")
    place = tmp_path_factory.mktemp("locales")
    subprocess.run(["localedef", "-f", "ISO-8859-1", "-i", "en_US", place / "en_US.ISO-8859-1"], check=False)
    environment = {"LOCPATH": str(place), "LC_ALL": "en_US.ISO-8859-1", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", "import locale; print(locale.getpreferredencoding(False))"]
    said = subprocess.run(
        command, env=os.environ | environment, capture_output=True, encoding="ascii", check=True
    ).stdout
    assert said.strip().lower().replace("-", "") in ("iso88591", "latin1")
    return environment


def test_in_a_locale_that_is_not_utf_8_everything_is_the_same(copy_study, snakemake, latin_1):
    """From the texts on: another name of the study, with letters of several scripts, makes all of it anew."""
    path = copy_study / "config.yaml"
    name = "Größe, добро и 很好 – a study"
    path.write_text(path.read_text(encoding="utf-8").replace("Tiny study of the tests", name), encoding="utf-8")
    made = (
        "report.html",
        "paper_tables/claims.md",
        "figures/r_trend.png",
        "figures/r_trend.txt",
        "results/summary.csv",
    )
    found = []
    for environment in ({}, latin_1):
        snakemake("-d", copy_study, "--cores", 2, "--forcerun", "aggregate_results", "--", *made, **environment)
        found.append([(copy_study / one).read_bytes() for one in made])
    assert name.encode() in found[0][0]
    assert found[0] == found[1]
    said = script("watch.py", copy_study, "--once", env=os.environ | latin_1, errors="replace")
    assert "8 of 8 cells" in said
    assert "Gr" in said
    said = script("resume.py", "-d", copy_study, "-n", "--cores", "1", env=os.environ | latin_1, errors="replace")
    assert "This was a dry-run" in said  # of tables and figures that were not made above
    assert not TRAINING & set(re.findall(r"^(\w+) +\d+$", said, re.MULTILINE))


def test_the_texts_are_the_same_in_a_locale_that_is_not_utf_8(tmp_path, snakemake, latin_1):
    found = []
    for place, environment in ((tmp_path / "a", {}), (tmp_path / "b", latin_1)):
        shutil.copytree(REPOSITORY / ".test", place)
        with (place / "reviews.csv").open("a", encoding="utf-8") as file:
            file.write("Ein großer Film – 很好,5\n")
        snakemake("-d", place, "--cores", 1, "results/data/card.json", **environment)
        done = snakemake("-d", place, "--cores", 1, "check", **environment)
        assert "configuration in order" in done.stdout
        found.append(
            [
                (place / "results" / "data" / name).read_bytes()
                for name in ("source.parquet", "card.json", "test.parquet")
            ]
        )
    assert found[0] == found[1]


def test_every_file_is_opened_with_its_encoding_named():
    """Ruff's PLW1514 sees what is a path by its type alone; here every call that reads or writes text is looked at."""
    lacking = []
    for path in [*REPOSITORY.glob("*/**/*.py"), *(REPOSITORY / "slurm" / "commands").iterdir()]:
        inner = path.relative_to(REPOSITORY).parts
        if inner[0] == ".venv" or path.is_symlink() or path.name == "srun":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _reads_or_writes_text(node):
                lacking.append(f"{path.relative_to(REPOSITORY)}:{node.lineno}")
    assert lacking == []


def _reads_or_writes_text(call):
    """Whether a call reads or writes text without ``encoding``: of files, or of another process."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    name = getattr(call.func, "attr", getattr(call.func, "id", None))
    owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else None
    if "encoding" in given or None in given:
        return False
    if name in ("run", "Popen", "check_output"):
        return bool({"text", "universal_newlines"} & set(given))
    if name == "read_text" or (name == "write_text" and len(call.args) == 1):
        return True
    if name not in ("open", "fdopen") or owner in ("Image", "tarfile", "wheel") or (owner == "os" and name == "open"):
        return False
    modes = [value for value in [*call.args, *given.values()] if isinstance(value, ast.Constant | ast.IfExp)]
    return not any(
        "b" in str(constant.value)
        for mode in modes
        for constant in ast.walk(mode)
        if isinstance(constant, ast.Constant)
    )


# --- the place, the user


def test_a_study_in_a_place_with_spaces_and_quotes(clone, finished_study, latin_1, tmp_path):
    """From its data to its report in all odd surroundings at once, the environment in the clone: the same bits as elsewhere.

    A home that cannot be written is one that cannot exist, which stops root too.
    """
    place = tmp_path / 'it\'s a "place" $HOME – добро'
    pipeline, study = place / "pipe line", place / "my study"
    shutil.copytree(clone, pipeline, symlinks=True, ignore=shutil.ignore_patterns(".venv"))
    (pipeline / ".venv").symlink_to(sys.prefix)
    python = pipeline / ".venv" / "bin" / "python"
    study.mkdir()
    shutil.copy(pipeline / ".test" / "reviews.csv", study)
    config = yaml.safe_load((pipeline / ".test" / "config.yaml").read_text(encoding="utf-8"))
    config["grid"] = {"methods": ["lora"], "targets": ["attention"], "lines": {"alpha": {"r": 2, "alpha": [4]}}}
    (study / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    done = subprocess.run(
        ["sh", "-c", 'umask 077 && exec "$@"', "sh", python, "-m", "snakemake", "-d", study, "--cores", "2"],
        cwd=pipeline,
        env=os.environ
        | latin_1
        | {
            "HOME": "/dev/null/home",
            "XDG_CACHE_HOME": "/dev/null/cache",
            "PYTHONPATH": str(pipeline / "workflow" / "scripts"),
        },
        encoding="utf-8",
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    cell = "results/cells/lora_attention_r2_a4_s0"
    for name in (
        "results/data/test.parquet",
        f"{cell}/predictions.parquet",
        f"{cell}/adapter/adapter_model.safetensors",
    ):
        assert (study / name).read_bytes() == (finished_study / name).read_bytes(), name
    assert (study / "figures" / "alpha_trend.pdf").stat().st_size > 1000
    assert "finetune_cell</text>" in (study / "report.html").read_text(encoding="utf-8")
    assert {path.stat().st_mode & 0o077 for path in (study / "results").rglob("*") if path.is_file()} == {0}
