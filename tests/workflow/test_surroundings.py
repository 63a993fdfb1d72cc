"""What surrounds a study changes nothing of it: the place, the locale."""

import ast
import subprocess

from lorastudy.study.settings import REPOSITORY


def test_what_is_typed_for_a_study_in_a_place_with_spaces_is_quoted():
    for target in ("watch", "resume"):
        command = ["make", "-n", target, "STUDY=a study"]
        said = subprocess.run(command, cwd=REPOSITORY, encoding="utf-8", capture_output=True, check=True).stdout
        assert '"a study"' in said


def test_every_file_is_opened_with_its_encoding_named():
    """Ruff's PLW1514 sees what is a path by its type alone; here every call that reads or writes text is looked at."""
    lacking = []
    for path in [*REPOSITORY.glob("*/**/*.py"), *(REPOSITORY / "slurm" / "commands").iterdir()]:
        inner = path.relative_to(REPOSITORY).parts
        if inner[0] in (".venv", "tests") or path.is_symlink() or path.name == "srun":
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
