"""Imports that a job does without.

bitsandbytes has functions compiled when it is imported (``torch.compile``), which brings in torch's compiler: two to four
seconds of each job's start, for functions that NF4 weights never call.
"""

import functools
from contextlib import contextmanager

import torch


@contextmanager
def compilation():
    """Within it, ``torch.compile`` gives functions that are compiled when they are first called."""
    compiler = torch.compile

    def later(function=None, **options):
        if function is None:
            return functools.partial(later, **options)
        compiled = functools.cache(lambda: compiler(function, **options))

        @functools.wraps(function)
        def when_called(*values, **named):
            return compiled()(*values, **named)

        return when_called

    torch.compile = later
    try:
        yield
    finally:
        torch.compile = compiler
