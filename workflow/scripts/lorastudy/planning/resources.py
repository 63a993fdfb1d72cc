"""What a job asks a scheduler for: minutes, memory of the node, memory of the GPU.

Estimates from the model's shape, the texts and the cell. They are generous, because a job that asks for too little is
ended, and cells resume where they were: a request that proves too small grows with the next attempt, and only the one
that did.
"""

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

from lorastudy.inputs import linear_layers, sources
from lorastudy.jobs import attempts
from lorastudy.planning import hardware, memory
from lorastudy.study import architecture, layout
from lorastudy.study.errors import Cause
from lorastudy.study.grid import ALL_LINEAR, HEAD_ALONE

CPU = 0.02  # and a core without GPU for this
UTILISATION = 0.25  # of the peak: half of what large models reach, so that a request is not short on a slow node
QLORA = 1.2  # slower, by the expansion of NF4: 1.04 to 1.13 at the shape of Llama-3-8B, 1.3 to 1.5 with small models side by side
PEFT = 2.0  # slower, where transformers' and PEFT's layers compute; a guess on the side of caution, not measured
SLOWER = {"qlora": QLORA, "dora": PEFT, "adalora": PEFT, "full": PEFT}
CLASSES = 5  # where nothing says how many before the data is prepared; the head is the smallest part
HEADROOM = 2.0
STARTUP_MINUTES = 10  # imports, loading over a busy network file system, a last checkpoint
READ_MB_PER_MINUTE = 6000
INTERPRETER_MB = 6000  # torch, transformers and a CUDA context, in the node's memory
GROWTH_TIME, GROWTH_MEMORY = 2.0, 1.6  # for each attempt that ended for want of it


class Estimate:
    """Requests of the jobs of one study.

    Args:
        study: ``settings.Settings``.
        cells: ``grid.Cell`` by id.
        gpu: type of GPU that jobs are sent to; None where there is none, or it is not known.
        longest: minutes that the cluster grants a job; None without a limit. A cell that needs more is resumed.
    """

    def __init__(self, study, cells, gpu=None, longest=None):
        self.study = study
        self.cells = cells
        self.peak = CPU if gpu is None else hardware.peak(gpu)
        self.longest = longest

    def finetune_flop(self, cell):
        """Floating-point operations of training a cell."""
        one = self.cells[cell]
        tokens = self._tokens("train") * self.study.training.epochs
        if one.method == HEAD_ALONE:  # nothing below the head is trained: a forward pass
            return tokens * 2 * self._weights()
        # forward, backward without gradients of frozen weights, checkpointed layers' second forward: 2 FLOP a weight each
        return tokens * (6 * self._weights() + 6 * self._trainable(one)) * SLOWER.get(one.method, 1)

    def evaluate_flop(self, cell):
        flop = 2 * self._weights() * (self._tokens("test") + self._tokens("validation"))
        return flop * SLOWER.get(self.cells[cell].method, 1)

    def baseline_flop(self, baseline):
        """The prompt is longer than the text alone, by some dozen tokens."""
        return 2 * self._weights() * (self._tokens("test") + 64 * self.study.data.test_size)

    def finetune_minutes(self, cell):
        """Of training, and of predicting the texts of the evaluation while the model is at hand."""
        return self._minutes(f"finetune.{cell}", self.finetune_flop(cell) + self.evaluate_flop(cell))

    def evaluate_minutes(self, cell):
        return self._minutes(f"evaluate.{cell}", self.evaluate_flop(cell))

    def baseline_minutes(self, baseline):
        return self._minutes(f"zero_shot.{baseline}", self.baseline_flop(baseline))

    def quantize_minutes(self):
        return self._minutes("quantize_model", 0)

    def finetune_memory_mb(self, cell):
        """Of the node: the base on its way to the GPU, masters and moments on their way to a checkpoint."""
        return self._memory(f"finetune.{cell}", 12 * self._trainable(self.cells[cell]))

    def evaluate_memory_mb(self, cell):
        return self._memory(f"evaluate.{cell}", 4 * self._trainable(self.cells[cell]))

    def baseline_memory_mb(self, baseline):
        return self._memory(f"zero_shot.{baseline}", 0)

    def quantize_memory_mb(self):
        return self._memory("quantize_model", self._base_bytes())

    def gpu_memory_mb(self, cell, step):
        """Of the GPU, to ``finetune`` or ``evaluate`` a cell; without a cell (None) to evaluate the base model."""
        execution = self.study.execution
        options = {"dtype": self.study.model.dtype, "head": self.study.lora.head}
        one = self.cells.get(cell)
        one = one and self.sized(one)
        need = memory.evaluation(self.architecture, self.classes, one, execution.evaluation_tokens, **options)
        if step == "finetune":
            layers = execution.checkpointed_layers or 0
            options |= {"optimizer": self.study.training.optimizer, "graphs": execution.graphs}
            training = memory.training(self.architecture, self.classes, one, self.micro_batch_tokens, layers, **options)
            need = max(training, need, key=lambda one: one.on_gpu)  # it predicts after it has trained
        return math.ceil(need.on_gpu / 2**20 * GROWTH_MEMORY ** attempts.count(f"{step}.{cell}", Cause.GPU_MEMORY))

    @property
    def micro_batch_tokens(self):
        """Tokens of the configured micro-batch; where training chooses it by the memory at hand, the most that it can use."""
        of_a_step = memory.step_tokens(self.study.training.batch_size, self.study.data.max_length)
        return self.study.execution.micro_batch_tokens or of_a_step

    @property
    def architecture(self):
        """The base model's configuration: its own once it is there, else that of a shape that is known by name.

        The paper's where the model's linear layers cannot be looked at, as without torch.
        """
        found = architecture.of_study(self.study.model)
        return found.config if linear_layers.countable(found.config) else architecture.named(architecture.PAPER)

    def sized(self, cell):
        """The cell as it is counted: while the model is a guess, sets that only the model can tell are all of its layers."""
        guessed = cell.modules and architecture.of_study(self.study.model).assumed
        return replace(cell, targets=ALL_LINEAR, modules=None) if guessed else cell

    def _minutes(self, job, flop):
        seconds = flop / (self.peak * 1e12 * UTILISATION)
        estimate = HEADROOM * (STARTUP_MINUTES + self._base_bytes() / 2**20 / READ_MB_PER_MINUTE + seconds / 60)
        minutes = math.ceil(estimate * GROWTH_TIME ** attempts.count(job, Cause.TIME))
        return minutes if self.longest is None else min(minutes, self.longest)

    def _memory(self, job, extra):
        size = INTERPRETER_MB + 1.2 * (self._base_bytes() + extra) / 2**20
        return math.ceil(size * GROWTH_MEMORY ** attempts.count(job, Cause.MEMORY))

    def _trainable(self, cell):
        return linear_layers.trainable_parameters(
            self.architecture, self.classes, self.sized(cell), self.study.lora.head
        )

    def _weights(self):
        return self._base_bytes() / memory.NUMBER[self.study.model.dtype]

    def _base_bytes(self):
        return memory.base(self.architecture, False, self.study.model.dtype)

    @property
    def classes(self):
        """Number of classes; the paper's where only the data will tell."""
        known = self.study.data.labels or self.study.data.class_names or self.study.prompt.verbalizers
        return len(known or _card(_version(layout.CARD)).get("labels") or range(CLASSES))

    @property
    def text_tokens(self):
        """Tokens of a text before the data is prepared: the mean where it is known of the source, else the most kept."""
        return sources.expected_length(self.study.data) or self.study.data.max_length

    def _tokens(self, split):
        """Tokens of a split: counted once the data is prepared, before that by ``text_tokens``."""
        counted = _card(_version(layout.CARD)).get("splits", {}).get(split, {}).get("tokens")
        return getattr(self.study.data, f"{split}_size") * self.text_tokens if counted is None else counted


def _version(path):
    """Changes when the file does: what was read from it may be kept as long as it does not."""
    try:
        return path, Path(path).stat().st_mtime_ns
    except OSError:
        return path, None


@cache
def _card(version):
    path, time = version
    return {} if time is None else json.loads(Path(path).read_text(encoding="utf-8"))
