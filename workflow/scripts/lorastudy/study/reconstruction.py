"""Why QLoRA took ten times as long in the paper: what timing the paper's own code again says.

The record is written by ``benchmarks/paper_code.py``; every number that tables and pages give is read from it.
"""

import json
from dataclasses import dataclass

from lorastudy.study.settings import REPOSITORY

RECORD = REPOSITORY / "benchmarks" / "results" / "paper_code.json"
LORA, PREPARED, AS_LOADED, TF32, BFLOAT16 = (
    "lora_bfloat16", "qlora_prepared", "qlora_as_loaded", "qlora_tf32", "qlora_bfloat16",
)  # fmt: skip
ENGINE_LORA, ENGINE_QLORA = "engine_lora", "engine_qlora"
TEXTS, BATCH = 50_000, 8  # the paper, section 2.2: one epoch
FLOAT32_PEAK = {"H100": 67, "A100": 19.5}  # TFLOP/s without TF32, NVIDIA's data sheets


@dataclass(frozen=True)
class Reconstruction:
    """A record of ``benchmarks/paper_code.py``, as a dictionary."""

    content: dict

    @classmethod
    def committed(cls):
        """The result that lies in ``benchmarks/results/``."""
        return cls(json.loads(RECORD.read_text(encoding="utf-8")))

    @property
    def rows(self):
        """Measured variants by key."""
        return {row["key"]: row for row in self.content["rows"] if "error" not in row}

    @property
    def device(self):
        return self.content["machine"]["device"]

    def ratio(self, key, over=LORA):
        """How many times as long as ``over`` a step of ``key`` takes; None where one of them was not measured."""
        rows = self.rows
        return rows[key]["seconds_a_step"] / rows[over]["seconds_a_step"] if {key, over} <= rows.keys() else None

    def minutes(self, key):
        """Minutes of the paper's 6,250 steps at the measured step."""
        return TEXTS / BATCH * self.rows[key]["seconds_a_step"] / 60

    def hours_on_a100(self, key):
        """Hours of the same on an A100, by the two cards' float32 peaks; None for a device other than the H100."""
        if "H100" not in self.device:
            return None
        return self.minutes(key) / 60 * FLOAT32_PEAK["H100"] / FLOAT32_PEAK["A100"]

    def sentence(self):
        """The finding in one sentence, without the paper's own numbers."""
        parts = [
            f"in float32, bitsandbytes' default, a step of QLoRA took {self.ratio(PREPARED):.1f} times as long as one of LoRA",
            f"with bfloat16 {self.ratio(BFLOAT16):.1f} times",
        ]
        if (engine := self.ratio(ENGINE_QLORA, ENGINE_LORA)) is not None:
            parts.append(f"on this project's engine {engine:.1f} times")
        return f"The paper's code, reconstructed and timed on one {self.device}: {', '.join(parts)} (docs/paper.md)."

    def table(self):
        """The measurements as lines of Markdown."""
        lines = [
            f"| variant | s a step | range | min for {TEXTS:,} texts | times LoRA's step | peak GiB | loss |",
            "|---|---:|---|---:|---:|---:|---|",
        ]
        for row in self.content["rows"]:
            if "error" in row:
                lines.append(f"| {row['name']} | – | {row['error'].replace('|', '/')} | – | – | – | – |")
                continue
            spread = f"{row['lowest']:.3f} to {row['highest']:.3f}" if row["repeats"] > 1 else "one run"
            peak = "–" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}"
            own = ENGINE_LORA if row["key"] == ENGINE_QLORA else LORA
            times = "–" if (ratio := self.ratio(row["key"], own)) is None else f"{ratio:.2f}"
            lines.append(
                f"| {row['name']} | {row['seconds_a_step']:.3f} | {spread} | {self.minutes(row['key']):.0f} | {times} | "
                f"{peak} | {'finite' if row['loss_is_finite'] else 'not a number'} |"
            )
        return lines

    def setting(self):
        """What was run, in a few sentences."""
        done, machine = self.content["setting"], self.content["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
        repeats = max((row["repeats"] for row in self.rows.values()), default=0)
        how = (
            f"medians of {repeats} repeats of {done['steps']} steps"
            if repeats > 1
            else f"median of {done['steps']} steps"
        )
        turns = ", the variants in turn" if done["in_turn"] else ""
        engine = (
            f" (the engine does not pad: {done['mean_tokens']:.0f} tokens a text on average)"
            if ENGINE_LORA in self.rows
            else ""
        )
        origin = f" This record is {self.content['origin']}." if self.content.get("origin") else ""
        return (
            f"Shape {self.content['shape']} with random weights, batches of {done['batch']} texts padded to "
            f"{done['max_length']} tokens{engine}, r = {done['r']}, alpha = {done['alpha']}, {done['targets']}, dropout "
            f"{done['dropout']:g}; {how}{turns}. {self.device}, {versions}.{origin}"
        )

    def page(self):
        """The record as a page."""
        head = "# The paper's own code, reconstructed and timed"
        return "\n".join([head, "", self.setting(), "", *self.table()]) + "\n"
