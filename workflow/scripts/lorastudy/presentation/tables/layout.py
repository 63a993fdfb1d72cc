"""A table, and how it is written as Markdown and LaTeX."""

import re
from dataclasses import dataclass, field

LINE, GAP = 118, 1.5  # characters of a line of a page in footnote size, and between two columns
LONG = 45  # rows that fit on a page


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: what it shows, one sentence.
        frame: data frame, what the CSV holds.
        shown: data frame of strings, what people read; same rows or a pivot of them.
        notes: sentences below it: units, numbers of texts and seeds, what the intervals are, holes with their reasons.
        text: columns of ``shown`` that are words, set left; the others are set right.
        bold: (row, column) positions in ``shown`` that are set in bold.
    """

    caption: str
    frame: "pd.DataFrame"  # noqa: F821
    shown: "pd.DataFrame"  # noqa: F821
    notes: list = field(default_factory=list)
    text: tuple = ()
    bold: frozenset = frozenset()


def markdown(table):
    """The table as Markdown: caption, table, notes."""
    shown = table.shown.astype(str).map(lambda cell: cell.replace("|", "\\|"))
    for row, column in table.bold:
        shown.iloc[row, column] = f"**{shown.iloc[row, column]}**"
    align = ["left" if column in table.text else "right" for column in shown]
    body = shown.to_markdown(index=False, disable_numparse=True, colalign=align if len(shown) else None)
    notes = "\n".join(f"- {note}" for note in table.notes)
    return f"**{table.caption}**\n\n{body}\n" + (f"\n{notes}\n" if notes else "")


TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_\allowbreak{}", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$", "−": "$-$",
        "–": "--", "—": "---", "×": r"$\times$", "±": r"$\pm$", "≤": r"$\leq$", "≥": r"$\geq$", "→": r"$\to$", "√": r"$\surd$",
        "α": r"$\alpha$", "·": r"$\cdot$", "†": r"\textdagger{}", "…": r"\ldots{}", "\n": " ", '"': "''", "`": "",
    }
)  # fmt: skip


def tex(text):
    """A string as LaTeX sets it literally; it may break a name after an underscore or a dot."""
    return re.sub(r"(?<=[a-z])\.(?=[a-z])", r".\\allowbreak{}", str(text).translate(TEX))


PIECES = re.compile(r"\s|(?<=[_-])|(?<=[a-z]\.)(?=[a-z])")  # where LaTeX may break a line


def latex(table, name):
    """The table as LaTeX: a float, or a ``longtable`` where text has to be broken over lines or pages."""
    shown = table.shown.astype(str)
    columns, broken = _columns(shown, table.text)
    style = shown.style.hide(axis="index").format(tex).format_index(tex, axis=1)
    if table.bold:
        marks = shown.copy()
        marks[:] = ""
        for row, column in table.bold:
            marks.iloc[row, column] = "textbf:--rwrap;"
        style = style.apply(lambda _: marks, axis=None)
    long = broken or len(shown) > LONG
    body = style.to_latex(
        column_format=f"@{{}}{columns}@{{}}",
        hrules=True,
        caption=tex(table.caption),
        label=f"tab:{name.replace('_', '-')}",
        **({"environment": "longtable"} if long else {"position_float": "centering"}),
    )
    notes = " ".join(tex(note) for note in table.notes)
    notes = f"\\par\\smallskip\\raggedright\\scriptsize {notes}\\par" if notes else ""
    size = "\\footnotesize\\setlength{\\tabcolsep}{3pt}"
    if long:
        lines = ["{" + size, body.strip(), notes, "}"]
    else:
        body = body.replace("\\centering\n", f"\\centering{size}\n", 1)
        lines = [body.replace("\\end{table}", f"{notes}\n\\end{{table}}").strip()]
    needs = "array, booktabs, longtable" if long else "booktabs"
    return "\n".join([f"% needs \\usepackage{{{needs}}}", *filter(None, lines), ""])


def _columns(shown, text):
    """LaTeX's column types, and whether any breaks its text over lines: words do where the table is wider than a line."""
    widths = {name: max(len(name), *shown[name].str.len(), 1) for name in shown}
    words = {name: max(len(word) for cell in [name, *shown[name]] for word in PIECES.split(cell)) for name in shown}
    over = sum(widths.values()) + GAP * len(widths) - LINE
    broken = [name for name in shown if name in text and widths[name] > words[name]] if over > 0 else []
    room = LINE - GAP * len(widths) - sum(widths[name] for name in shown if name not in broken)
    share = {name: max(shown[name].str.len().mean(), 1) ** 0.8 for name in broken}
    # no column is narrower than its longest word; the others share what that leaves
    for name in sorted(broken, key=lambda name: share[name] / words[name]):
        widths[name] = max(words[name] + 1, room * share[name] / sum(share.values()))
        room -= widths[name]
        del share[name]
    kinds = [
        f">{{\\raggedright\\arraybackslash}}p{{{0.95 * widths[name] / LINE:.3f}\\linewidth}}"
        if name in broken
        else ("l" if name in text else "r")
        for name in shown
    ]
    return "".join(kinds), bool(broken)
