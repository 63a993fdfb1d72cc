"""Count the trainable parameters of the paper's model for each rank that it trains and each target set of its Table 4."""

import pandas as pd
from lorastudy.engine import model
from lorastudy.jobs import running
from lorastudy.study import architecture, grid, paper, settings

CLASSES = 5
HEADS = {"attention": ("plain",), "all-linear": ("paper", "plain")}


def main(output):
    """Write a row for each target set, construction of the head and rank.

    ``trainable_percent`` is of ``all_parameters`` as the built model has them. ``paper_percent`` is of
    ``paper_all_parameters``: the paper's PEFT (0.8 to 0.10) kept the untrained head beside the trained copy with a LoRA
    pair of its own, so that its total has the pair twice.
    """
    shape = architecture.named(architecture.PAPER)
    rows = []
    for targets, heads in HEADS.items():
        for r in paper.TRAINED:
            counts = {head: _count(shape, targets, head, r) for head in heads}
            pair = counts["paper"][0] - counts["plain"][0] if "paper" in counts else 0
            for head, (trainable, everything) in counts.items():
                of_paper = everything + (pair if head == "paper" else 0)
                rows.append(
                    {
                        "targets": targets,
                        "r": r,
                        "head": head,
                        "trainable_parameters": trainable,
                        "all_parameters": everything,
                        "trainable_percent": 100 * trainable / everything,
                        "paper_all_parameters": of_paper,
                        "paper_percent": 100 * trainable / of_paper,
                        "formula_trainable": paper.trainable_parameters(shape, CLASSES, targets, head, r),
                    }
                )
    pd.DataFrame(rows).to_csv(output, index=False)


def _count(shape, targets, head, r):
    lora = settings.Lora(dropout=0.0, head=head)
    return model.count_parameters(shape, CLASSES, grid.Cell("lora", targets, r, 1, 0), lora)


if __name__ == "__main__":
    with running.job(snakemake.log[0]):
        main(snakemake.output[0])
