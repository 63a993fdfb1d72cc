"""Why QLoRA took ten times as long: the section of docs/paper.md, written from the benchmark's record."""

from lorastudy.study import paper, reconstruction
from lorastudy.study.reconstruction import (
    AS_LOADED,
    BFLOAT16,
    ENGINE_LORA,
    ENGINE_QLORA,
    FLOAT32_PEAK,
    LORA,
    PREPARED,
    TF32,
)


def section():
    """Paragraphs of the section."""
    done = reconstruction.Reconstruction.committed()
    stated = paper.table(1).set_index("method")
    minutes, memory = stated.finetune_time_min, stated.memory_gb
    yield "## Why QLoRA took ten times as long"
    yield (
        f"Table 1 gives {minutes.lora:g} minutes for LoRA and {minutes.qlora / 60:g} hours for QLoRA. Section 2.2 states "
        '`load_in_4bit=True` and `bnb_4bit_quant_type="nf4"` and no `bnb_4bit_compute_dtype`; its default is float32. '
        "So every product of QLoRA runs in float32, outside of the tensor cores, while LoRA's "
        "run in 16 bits. `benchmarks/paper_code.py` puts the paper's code together again and times it:"
    )
    yield "\n".join(done.table())
    yield done.setting()
    yield finding(done, minutes, memory)
    yield limits(done)


def finding(done, minutes, memory):
    """What the measurements say, and what they make of the paper's hours on its card."""
    hours = sorted(done.hours_on_a100(key) for key in (AS_LOADED, PREPARED)) if "H100" in done.device else None
    parts = [
        f"In float32 a step of QLoRA took {done.ratio(AS_LOADED):.1f} (as loaded) and {done.ratio(PREPARED):.1f} times (prepared) "
        f"as long as one of LoRA, with TF32 products allowed {done.ratio(TF32):.1f} times, with bfloat16 "
        f"{done.ratio(BFLOAT16):.1f} times, of which a part is checkpointing."
    ]
    if (engine := done.ratio(ENGINE_QLORA, ENGINE_LORA)) is not None:
        parts.append(f"On this project's engine it is {engine:.1f} times, at the same batch of texts.")
    if hours:
        parts.append(
            f"An A100 does {FLOAT32_PEAK['A100']:g} TFLOP/s in float32 where an H100 does {FLOAT32_PEAK['H100']:g}. In that "
            f"proportion the two float32 variants take {hours[0]:.1f} and {hours[1]:.1f} hours there; the paper says "
            f"{minutes.qlora / 60:g}. LoRA's steps take {done.minutes(LORA):.0f} minutes here; the paper says {minutes.lora:g}."
        )
    peak = done.rows[PREPARED]["peak_gib"]
    parts.append(
        f"The prepared variant's peak of {peak:.1f} GiB is near the paper's {memory.qlora:g} GB. So the tenfold time is most likely "
        "a default of the software, and not the price of NF4."
    )
    return " ".join(parts)


def limits(done):
    """What the measurements cannot say."""
    parts = [
        "Limits: no A100 was at hand, and the proportion of two data sheets is no measurement; LoRA's step at "
        "this batch waits for more than its products and need not follow it. The paper does not say whether it called `prepare_model_for_kbit_training`, "
        "which flags the Trainer had, or which versions it ran. Weights are random, which changes neither time nor memory."
    ]
    broken = [row["name"] for row in done.rows.values() if not row["loss_is_finite"]]
    if broken:
        parts.append(f"Losses were not a number in: {'; '.join(broken)}. A real run would not have been reported so.")
    return " ".join(parts)
