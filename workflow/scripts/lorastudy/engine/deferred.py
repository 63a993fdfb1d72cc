"""Imports that a job does without.

transformers, PEFT and bitsandbytes bring in torch's compiler, its distributed tensors and scipy's optimizers: with what
these import in turn a third of a job's start, for functions that it never calls. Within the contexts of this module they
are left out. What is used after all, now or in other versions of these libraries, is loaded then.
"""

import builtins
import functools
import importlib
import sys
import types
from contextlib import contextmanager

import torch

MARKS = ("allow_in_graph", "assume_constant_result", "disable")  # of functions, for torch's compiler
COMPILER = "torch._dynamo"
IMPORTERS = ("transformers", "peft")
MODULES = ("scipy.optimize", "sklearn.metrics", "torch._dynamo._trace_wrapped_higher_order_op")


@contextmanager
def compilation():
    """Within it, torch's compiler is loaded when something is compiled, and not by what is only marked for it.

    ``torch.compile`` gives functions that are compiled when they are first called. A mark says how a function is compiled
    as a part of another one; torch asks for its own when such a function is first called, its optimizers for instance.
    """
    compiler, marks = torch.compile, {name: getattr(torch.compiler, name) for name in MARKS}
    torch.compile = _later(compiler)
    for name in MARKS:
        setattr(torch.compiler, name, _unmarked)
    stand_in = _Compiler()
    if COMPILER not in sys.modules:
        torch._dynamo = stand_in  # until it is imported: that puts the module in its place
    try:
        with _imports(lambda name, wanted, _: torch if name == COMPILER and not wanted else None):
            yield
    finally:
        torch.compile = compiler
        for name in MARKS:
            setattr(torch.compiler, name, marks[name])
        if vars(torch).get("_dynamo") is stand_in:
            del torch._dynamo


def _later(compiler):
    def later(function=None, **options):
        if function is None:
            return functools.partial(later, **options)
        compiled = functools.cache(lambda: compiler(function, **options))

        @functools.wraps(function)
        def when_called(*values, **named):
            return compiled()(*values, **named)

        return when_called

    return later


def _unmarked(function=None, *_, **__):
    return _unmarked if function is None else function


class _Compiler:
    """Stands for ``torch._dynamo``."""

    def graph_break(self):
        """A mark too: where a compiled function would be cut."""

    def __getattr__(self, name):
        return _unmarked if name in MARKS else getattr(importlib.import_module(COMPILER), name)

    def __setattr__(self, name, value):
        setattr(importlib.import_module(COMPILER), name, value)


@contextmanager
def distribution():
    """Within it, libraries find a torch that was built without ``torch.distributed``, as some are."""
    available = torch.distributed.is_available
    torch.distributed.is_available = lambda: False
    try:
        yield
    finally:
        torch.distributed.is_available = available


@contextmanager
def names():
    """Within it, a name that ``IMPORTERS`` import from ``MODULES`` stands for what is imported when it is first used."""

    def stand_in(name, wanted, importer):
        if name in MODULES and wanted and importer.partition(".")[0] in IMPORTERS:
            return types.SimpleNamespace(**{each: Name(name, each) for each in wanted})
        return None

    with _imports(stand_in):
        yield


@contextmanager
def _imports(stand_in):
    """Within it, ``stand_in`` (module, names wanted of it, importer) may answer an import of what is not loaded yet."""
    load = builtins.__import__

    def import_(name, globals=None, locals=None, fromlist=(), level=0):  # as Python calls it
        if not (level or name in sys.modules):
            found = stand_in(name, fromlist, (globals or {}).get("__name__") or "")
            if found is not None:
                return found
        return load(name, globals, locals, fromlist, level)

    builtins.__import__ = import_
    try:
        yield
    finally:
        builtins.__import__ = load


class Name:
    """Stands for a function or class of a module that is imported when it is called, derived from or asked for anything."""

    def __init__(self, module, name):
        self._module, self._name = module, name

    def _meant(self):
        return getattr(importlib.import_module(self._module), self._name)

    def __call__(self, *values, **named):
        return self._meant()(*values, **named)

    def __getattr__(self, name):
        return getattr(self._meant(), name)

    def __mro_entries__(self, bases):
        return (self._meant(),)
