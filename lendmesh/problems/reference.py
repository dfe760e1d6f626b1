"""The keys of a document and of an answer as tables for docs/solve.md, made from the models so that they stay true.

``python -m lendmesh.problems.reference docs/solve.md`` writes them between the file's marks; a test sees that it was
done.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lendmesh.problems.document import Document
from lendmesh.problems.shape import Answer

Schema = Mapping[str, Any]
_MARKS = r"(<!-- {name}: made from the code -->\n).*?(<!-- end of {name} -->)"
_TYPES = {"boolean": "`true`, `false`", "integer": "a whole number", "number": "a number", "string": "a text"}
_HEADINGS = {
    "Document": "The file",
    "LaterPrice": "A later price",
    "Later": "A later change",
    "Held": "Where a running lease is",
    "Only": "What a quota is about",
    "PlacementOut": "A placement",
    "PartOut": "A part of a placement",
    "NodeUse": "Units on a node",
    "Instead": "An offer not chosen",
    "UnplacedOut": "A request not placed",
    "BindingOut": "A limit in the way",
    "ChangeOut": "A change that would help",
    "OfferOut": "Use of an offer",
    "GoalOut": "A goal",
    "Answer": "The answer",
    "Shared": "Shared capacity",
    "Data": "Data to be brought",
    "Running": "A running lease",
}


def keys() -> str:
    """Every key that may stand in a document."""
    return "\n".join(_tables(Document.model_json_schema(), "Document", defaults=True))


def answers() -> str:
    """Every key of an answer."""
    return "\n".join(_tables(Answer.model_json_schema(), "Answer", defaults=False))


def renewed(page: str) -> str:
    """A page with the tables between its marks as they are now."""
    for name, made in (("keys", keys()), ("answers", answers())):
        marks = re.findall(_MARKS.format(name=name), page, flags=re.DOTALL)
        if len(marks) != 1:
            raise ValueError(f"the page has the marks of {name!r} {len(marks)} times")
        before, after = marks[0]
        page = f"{page[: page.index(before)]}{before}\n{made}\n{page[page.index(after) :]}"
    return page


def _tables(schema: Schema, first: str, *, defaults: bool) -> Iterator[str]:
    waiting, seen = [(first, schema)], {first}
    while waiting:
        name, part = waiting.pop(0)
        heading = _HEADINGS.get(name, f"A{'n' if name[0] in 'AEIO' else ''} {name.lower()}")
        yield f"### {heading}\n"
        if name != first:
            yield f"{part['description']}\n"
        yield "| key | written | if left out | meaning |" if defaults else "| key | is | meaning |"
        yield "|---|---|---|---|" if defaults else "|---|---|---|"
        for key, field in part["properties"].items():
            cells = [f"`{key}`", _written(field, schema)]
            if defaults:
                cells.append(_default(key, field, part))
            yield f"| {' | '.join([*cells, _one_line(field.get('description', ''))])} |"
            for inner in _references(field):
                if inner not in seen:
                    seen.add(inner)
                    waiting.append((inner, schema["$defs"][inner]))
        yield ""


def _written(field: Schema, schema: Schema) -> str:
    if "anyOf" in field:
        inner = [each for each in field["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(_written(each, schema) for each in inner))
    if "enum" in field:
        return ", ".join(f"`{each}`" for each in field["enum"])
    if "$ref" in field:
        return _link(field)
    if field.get("type") == "array":
        items = field.get("items", {})
        return f"a list: {_link(items)}" if "$ref" in items else f"a list: {_written(items, schema)}"
    if examples := field.get("examples"):
        words = field["title"]
        return words if words == "a name" else f"{words}: `{examples[0]}`"
    if field.get("type") == "object":
        return "by name"
    return _TYPES.get(field.get("type", ""), "a value")


def _link(field: Schema) -> str:
    name = str(field["$ref"]).rpartition("/")[2]
    words = _HEADINGS.get(name, f"A{'n' if name[0] in 'AEIO' else ''} {name.lower()}")
    return f"[{words[:1].lower()}{words[1:]}](#{words.lower().replace(' ', '-')})"


def _default(key: str, field: Schema, part: Schema) -> str:
    if key in part.get("required", ()):
        return "needed"
    default = field.get("default")
    if default is None or default == "" or default == [] or default == {}:
        return "–"
    if field.get("title") == "a number" and isinstance(default, int):
        return f"`{default / 1000:g}`"  # held in thousandths
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _references(field: Schema) -> Iterator[str]:
    for each in (field, field.get("items", {}), *field.get("anyOf", ())):
        if "$ref" in each:
            yield str(each["$ref"]).rpartition("/")[2]


def _one_line(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|")


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(renewed(page.read_text("utf-8")), "utf-8")
