"""Garbage collection, which has nothing to find while modules are loaded."""

import gc
from contextlib import contextmanager


@contextmanager
def paused():
    """No collections within it, and what it made is left out of later ones.

    Loading torch, transformers and PEFT makes a million objects that stay, and Python would look through all of them again
    and again: a fifth of a job's start.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
