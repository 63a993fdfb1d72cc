"""transformers' list of its models, which it reads off two thousand of its own files, twice, whenever it is imported.

The list is kept in the user's cache between jobs. It belongs to one installation in one state; where it cannot be kept or
read, and in versions of transformers that make it otherwise, all is as without this module.
"""

import contextlib
import functools
import hashlib
import os
import pickle
import sys
import tempfile
from importlib.machinery import PathFinder
from pathlib import Path

READER = ("transformers.utils.import_utils", "create_import_structure_from_path")  # module and function


@contextlib.contextmanager
def kept(directory=None):
    """Within it, an import of transformers takes the list from ``directory``; from the user's cache by default."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    finder = _Finder(Path(directory or os.path.join(home, "lorastudy")))
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Finder:
    """Finds transformers' module that reads the list where Python does, and changes it once it is loaded."""

    def __init__(self, directory):
        self.directory = directory

    def find_spec(self, name, path=None, target=None):
        module_name, function = READER
        spec = PathFinder.find_spec(name, path, target) if name == module_name else None
        if spec is None:
            return None
        execute = spec.loader.exec_module

        def then(module):
            execute(module)
            if read := getattr(module, function, None):
                setattr(module, function, functools.partial(self.structure, read))

        spec.loader.exec_module = then
        return spec

    def structure(self, read, path):
        """What ``read`` finds below ``path``, a directory or a file in it."""
        path = Path(path)
        models = path if path.is_dir() else path.parent
        if models.name != "models":
            return read(path)
        with contextlib.suppress(OSError, EOFError, pickle.UnpicklingError, AttributeError, ValueError):
            return pickle.loads(self._file(models).read_bytes())
        found = read(models)
        with contextlib.suppress(OSError):
            self._keep(found, self._file(models))
        return found

    def _file(self, models):
        """Named by place and age of the installation."""
        state = [(str(each), each.stat().st_mtime_ns) for each in (models, models.parent / "__init__.py")]
        return self.directory / f"transformers-models-{hashlib.sha256(repr(state).encode()).hexdigest()[:16]}.pickle"

    def _keep(self, found, file):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as own:  # of several jobs that begin at once
            own.write(pickle.dumps(found))
        os.replace(own.name, file)
