"""transformers' list of its models, kept between jobs."""

import os
import subprocess
import sys

import pytest
from lorastudy.engine import model_list

IMPORT = """
import sys
opened = set()
sys.addaudithook(lambda event, values: opened.add(str(values[0])) if event == "open" else None)
import lorastudy.engine, transformers
print(sum("/transformers/models/" in file and file.endswith(".py") for file in opened))
print(sorted(transformers._class_to_module.items()), sorted(transformers.models._class_to_module.items()))
print(transformers.LlamaConfig.__module__)
"""


def imported(cache):
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True, env=environment)
    files, names, module = done.stdout.splitlines()
    return int(files), names, module


def test_the_files_of_the_models_are_read_once(tmp_path):
    first, second = imported(tmp_path / "cache"), imported(tmp_path / "cache")
    assert first[0] > 1000
    assert second[0] < 20
    assert second[1:] == first[1:]
    assert first[2] == "transformers.models.llama.configuration_llama"


def test_where_nothing_may_be_kept_all_is_as_ever(tmp_path):
    (tmp_path / "cache").write_text("no directory")
    assert imported(tmp_path / "cache")[0] > 1000


@pytest.fixture
def installation(tmp_path):
    """Directory of transformers' models."""
    models = tmp_path / "transformers" / "models"
    models.mkdir(parents=True)
    (models / "__init__.py").touch()
    (models.parent / "__init__.py").touch()
    return models


def test_another_installation_has_a_list_of_its_own(installation, tmp_path):
    finder, reads = model_list._Finder(tmp_path / "cache"), []

    def read(path):
        reads.append(path)
        return {"read": len(reads)}

    assert [finder.structure(read, path) for path in (installation, installation / "__init__.py")] == 2 * [{"read": 1}]
    os.utime(installation.parent / "__init__.py", (1, 1))
    assert finder.structure(read, installation) == {"read": 2}
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(b"half a")
    assert finder.structure(read, installation) == {"read": 3}
    assert finder.structure(read, installation) == {"read": 3}


def test_other_lists_are_not_kept(tmp_path):
    (tmp_path / "auto").mkdir()
    assert model_list._Finder(tmp_path / "cache").structure(lambda path: path, tmp_path / "auto") == tmp_path / "auto"
    assert not (tmp_path / "cache").exists()
