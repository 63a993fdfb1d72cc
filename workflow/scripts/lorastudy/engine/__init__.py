"""Fine-tuning and evaluation. Imports torch; never loaded while a workflow is planned or a figure drawn."""

import logging

from lorastudy.engine import deferred

# a faster product of 4-bit weights on CPUs would be another package
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: "gemm_4bit" not in record.getMessage())
with deferred.compilation():
    import bitsandbytes  # noqa: F401 - before PEFT and transformers, which would import it
