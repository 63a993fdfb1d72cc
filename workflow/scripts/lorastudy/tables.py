"""The paper's tables, each with the paper's values beside this study's, as CSV, Markdown and LaTeX."""

FORMATS = ("csv", "md", "tex")


def zero_shot(results, parameters):
    columns = ["id", "precision", "recall", "f1", "accuracy"]
    return results.baselines.reset_index()[columns]


# name of the table's files → what makes its data frame
TABLES = {"table5_zero_shot": zero_shot}


def write(name, results, parameters, paths):
    table = TABLES[name](results, parameters)
    table.to_csv(paths["csv"], index=False)
    table.to_markdown(paths["md"], index=False)
    table.to_latex(paths["tex"], index=False)
