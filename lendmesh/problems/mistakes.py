"""What is wrong with a document, in sentences: where it is, what is wrong there, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from broker.wire.mistakes import sentence
from lendmesh.problems.document import Document
from lendmesh.problems.text import Lines, Path

MOST = 20
"""So many are told at once; whoever made more has one cause for most of them."""


class BadDocument(ValueError):
    """The document says something that cannot be meant; its lines say what, and where."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


def told(found: Iterable[tuple[Path, str]], *, text: str, value: Any) -> BadDocument:
    """Mistakes with their places as ``requests[3].price_cap (r17), line 40: …``."""
    every = list(found)
    known, lines = Lines(text), []
    for path, what in every[:MOST]:
        line = known.of(path)
        where = _place(path, value)
        lines.append(f"{where}{f', line {line}' if line and path else ''}: {what}")
    if len(every) > MOST:
        lines.append(f"and {len(every) - MOST} more")
    return BadDocument(lines)


def of_shape(error: ValidationError) -> list[tuple[Path, str]]:
    """What pydantic found, as places and sentences."""
    found = [(_path(each), each) for each in error.errors(include_url=False)]
    # A list whose every entry is wrong counts as empty there; that is not what is wrong with it.
    deeper = {path[:depth] for path, _ in found for depth in range(len(path))}
    return [(path, _words(each)) for path, each in found if each["type"] != "too_short" or path not in deeper]


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` where something known is spelled alike, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _path(found: ErrorDetails) -> Path:
    """Without the marks with which pydantic says that a key rather than its value is meant."""
    return tuple(part for part in found["loc"] if part != "[key]")


def _words(found: ErrorDetails) -> str:
    kind, value = found["type"], found.get("input")
    if kind == "extra_forbidden":
        key, model = str(found["loc"][-1]), _model_at(found["loc"][:-1])
        known = _keys(model)
        return f"there is no such key here{nearest(key, known) or '; there are ' + ', '.join(known)}"
    if kind == "missing":
        return "is missing"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return "must be a mapping, such as `id: x`"
    if kind == "tuple_type":
        return "must be a list"
    if kind in ("int_type", "int_from_float", "int_parsing"):
        return f"{_shown(value)} is not a whole number"
    if kind in ("greater_than_equal", "less_than_equal"):
        return f"{_shown(value)} {sentence(found)}"
    if kind == "too_short":
        return "must not be empty"
    if kind == "literal_error":
        close = nearest(str(value), _expected(found))
        return f"{_shown(value)} {sentence(found)}{close}"
    return sentence(found)


def _expected(found: ErrorDetails) -> list[str]:
    return [word.strip(" '") for word in str(found.get("ctx", {}).get("expected", "")).replace(" or ", ",").split(",")]


def _shown(value: object) -> str:
    return repr(value)[:40] if isinstance(value, str) else str(value)[:40]


def _model_at(path: Sequence[int | str]) -> type[BaseModel]:
    model: type[BaseModel] = Document
    for part in path:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        if isinstance(part, str) and part in fields:
            model = next(_models(fields[part].annotation), model)
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _place(path: Path, value: Any) -> str:
    """``requests[3].price_cap (r17)``: the path, and the name of the thing in the list where it has one."""
    words, name = "", ""
    for part in path:
        words += f"[{part}]" if isinstance(part, int) else f"{'.' if words else ''}{part}"
        try:
            value = value[part]
        except (LookupError, TypeError):
            value = None
        if isinstance(part, int) and isinstance(value, dict):
            said = value.get("id", value.get("tenant"))
            name = str(said)[:60] if isinstance(said, str | int) and str(said).isprintable() else name
    words = "".join(letter if letter.isprintable() else "?" for letter in words)[:160]
    return f"{words or 'the document'}{f' ({name})' if name else ''}"
