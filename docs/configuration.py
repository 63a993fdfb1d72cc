"""Write docs/configuration.md from the configuration's schema: python docs/configuration.py"""

from lorastudy.study import settings

HEAD = """# Configuration

Every key of a study's `config.yaml`. An unknown key or an impossible value is refused before any job starts.
This page is written from `workflow/schemas/config.schema.yaml` by `python docs/configuration.py`.

To make a study of your own, copy a `config.yaml` into a directory and run `snakemake -d that-directory --cores all`.
The file is UTF-8, and a key that stands twice is refused with its lines. `--configfile` and `--config` of Snakemake extend
it, with values as YAML has them; the report's commands name them, and `watch.py` and `resume.py` remember them.
"""


def allowed(rule):
    """What a key may be, in words."""
    if "enum" in rule:
        return ", ".join(f"`{value}`" for value in rule["enum"])
    kinds = rule.get("type", "")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    text = " or ".join(
        {"null": "empty", "array": "list", "object": "entries by name"}.get(kind, kind) for kind in kinds
    )
    if text == "list":
        return f"list of {allowed(rule['items'])}"
    limits = [
        f"{sign} {rule[key]}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in rule
    ]
    return " ".join([text, *limits])


def default(name, rule, block):
    if name in block.get("required", []):
        return "required"
    value = rule.get("default")
    return "empty" if value is None else f"`{value!r}`".replace("\n", "\\n")


def row(key, rule, block):
    meaning = " ".join(rule["description"].split()).replace("|", "\\|")
    return f"| `{key}` | {allowed(rule)} | {default(key.rpartition('.')[2], rule, block)} | {meaning} |"


def page():
    """The page as one string."""
    parts = [HEAD]
    for name, block in settings.schema()["properties"].items():
        parts.append(f"## `{name}`\n\n{' '.join(block['description'].split())}\n")
        parts.append("| key | allowed | default | meaning |\n|---|---|---|---|")
        for key, rule in block["properties"].items():
            parts.append(row(key, rule, block))
            each = rule.get("additionalProperties") or {}
            parts += [row(f"{key}.NAME.{inner}", of, each) for inner, of in each.get("properties", {}).items()]
            if "items" in each:
                parts.append(row(f"{key}.NAME", each, block))
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    (settings.REPOSITORY / "docs" / "configuration.md").write_text(page(), encoding="utf-8")
