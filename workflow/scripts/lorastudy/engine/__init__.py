"""Fine-tuning and evaluation. Imports torch; never loaded while a workflow is planned or a figure drawn."""

import logging

from lorastudy.engine import collection

# a faster product of 4-bit weights on CPUs would be another package
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: "gemm_4bit" not in record.getMessage())
with collection.paused():
    from lorastudy.engine import deferred

    with deferred.compilation(), deferred.distribution(), deferred.names():
        import bitsandbytes  # noqa: F401 - before PEFT and transformers, which would import it
        import peft  # noqa: F401
