"""Write docs/paper.md from the list of assumptions and the paper's study: python docs/paper.py"""

import yaml
from lorastudy.study import assumptions, settings
from sections import tenfold

HEAD = """# The paper, and what this study assumes

R. Patil, P. Khot, V. Gudivada, *Analyzing LLAMA3 Performance on Classification Task Using LoRA and QLoRA Techniques*,
Applied Sciences 2025, 15(6), 3087, [doi 10.3390/app15063087](https://doi.org/10.3390/app15063087) (CC BY).

What the paper prints in its tables and states of its settings is in `resources/paper/`; every table of a study sets the
paper's values beside the reproduced ones and computes the difference. Each setting is *stated* by the paper, *derived*
from what it states, *contradictory* where it says one thing here and another there, or *assumed* where it says nothing:
then as the library that it used has it by default, unless the reason says otherwise. The same list with a study's own
values is `paper_tables/assumptions.md`.

This page is written from `resources/paper/assumptions.yaml` and `config.yaml` by `python docs/paper.py`.
"""
TITLES = {
    "stated": "Stated", "derived": "Derived", "contradictory": "Where the paper contradicts itself", "assumed": "Assumed",
}  # fmt: skip
TAIL = """## What the tables' numbers show

- Table 2 is 8e9 parameters times the bytes of a parameter over 2^30; fine-tuning is four times inference.
- Table 3 adds up components that are already rounded (14.9 + 0.039 + 0.078 + 0.078 = 15.095; the exact sum is 15.097)
  and cuts one off (0.00979 is printed as 0.0097). It counts no activations and no quantization constants, and takes
  the embedding as quantized, which it is not. The table here has a column with what is allocated.
- Table 4's attention column is a LoRA pair on query, key, value and output projections and a head that is trained in
  full. Its all-linear column has a LoRA pair on the head too: 2,621,440 r + 4,101 r + 20,480 fits all seven rows. PEFT
  0.8 to 0.10 built that; later versions refuse it or leave the pair out. Here the head is a target like the others and
  the linear layer inside its wrapper is trained as well, which current PEFT saves and loads like any adapter.
- Table 4's percentages are of all parameters that PEFT 0.8 to 0.10 held: 7,504,924,672 of the base without a
  language-model head, the adapters, and the head twice (the untrained original is kept), in the all-linear set each
  with its LoRA pair.
- Table 5's recall equals its accuracy, as weighted recall does always and macro recall does on balanced classes.
"""


def page():
    """The page as one string."""
    study = settings.load(yaml.safe_load((settings.REPOSITORY / "config.yaml").read_text(encoding="utf-8")))
    blocks = {name: study.block(name) for name in study.__dataclass_fields__}
    entries = assumptions.table(blocks)
    parts = [HEAD]
    for basis, title in TITLES.items():
        parts.append(f"## {title}\n")
        of_paper = [] if basis == "assumed" else ["paper"]
        heads = ["what", *of_paper, "value", "key", "reason", "what another value would change"]
        parts.append(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
        for row in entries[entries.basis.eq(basis)].itertuples():
            key = f"`{row.key}`" if row.key else "–"
            stated = [row.paper] if of_paper else []
            cells = [row.what, *stated, f"`{row.value}`" if row.key else row.value, key, row.reason, row.effect]
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append("")
    return "\n".join([*parts, TAIL, "\n\n".join(tenfold.section()), ""])


if __name__ == "__main__":
    (settings.REPOSITORY / "docs" / "paper.md").write_text(page(), encoding="utf-8")
