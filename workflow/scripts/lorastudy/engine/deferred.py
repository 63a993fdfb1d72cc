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
IMPORTERS = ("transformers", "peft")
MODULES = ("scipy.optimize", "torch._dynamo._trace_wrapped_higher_order_op")


@contextmanager
def compilation():
    """Within it, ``torch.compile`` gives functions that are compiled when they are first called, and marks mark nothing.

    A mark says how a function is compiled as a part of another one; no part of these libraries is compiled here.
    """
    compiler, marks = torch.compile, {name: getattr(torch.compiler, name) for name in MARKS}
    torch.compile = _later(compiler)
    for name in MARKS:
        setattr(torch.compiler, name, _unmarked)
    stand_in = _Compiler()
    if "torch._dynamo" not in sys.modules:
        torch._dynamo = stand_in  # until it is imported: that puts the module in its place
    try:
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
    """Stands for ``torch._dynamo``, which torch imports when it is first asked for anything."""

    def __getattr__(self, name):
        return _unmarked if name in MARKS else getattr(importlib.import_module("torch._dynamo"), name)


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
    load = builtins.__import__

    def later(name, globals=None, locals=None, fromlist=(), level=0):  # as Python calls it
        if name in MODULES and fromlist and name not in sys.modules and _package(globals) in IMPORTERS:
            return types.SimpleNamespace(**{wanted: Name(name, wanted) for wanted in fromlist})
        return load(name, globals, locals, fromlist, level)

    builtins.__import__ = later
    try:
        yield
    finally:
        builtins.__import__ = load


def _package(importer):
    return (importer or {}).get("__name__", "").partition(".")[0]


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
