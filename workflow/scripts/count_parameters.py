"""Count the trainable parameters of the paper's model for each rank and target set of its Table 4."""

import json

from lorastudy import grid, logs, model, paper, settings

CLASSES = 5
HEADS = {"attention": ("plain",), "all-linear": ("paper", "plain")}


def main(output):
    """Write a row for each target set, construction of the head and rank."""
    import pandas as pd

    architecture = json.loads((settings.ARCHITECTURES / "llama-3-8b.json").read_text())
    rows = []
    for targets, heads in HEADS.items():
        for head in heads:
            for r in paper.RANKS:
                cell, lora = grid.Cell("lora", targets, r, 1, 0), settings.Lora(dropout=0.0, head=head)
                trainable, parameters = model.count_parameters(architecture, CLASSES, cell, lora)
                rows.append(
                    {
                        "targets": targets,
                        "r": r,
                        "head": head,
                        "trainable_parameters": trainable,
                        "all_parameters": parameters,
                        "trainable_percent": 100 * trainable / parameters,
                        "formula_trainable": paper.trainable_parameters(architecture, CLASSES, targets, head, r),
                    }
                )
    pd.DataFrame(rows).to_csv(output, index=False)


if __name__ == "__main__":
    with logs.to_file(snakemake.log[0]):
        main(snakemake.output[0])
