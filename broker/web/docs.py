"""The OpenAPI document as a page for people: one file, no script, nothing fetched from elsewhere.

It says nothing that the document doesn't say. Every text is escaped before it becomes HTML; the only style is the file
beside this one, whose hash stands in the content security policy.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from broker.wire.base import Amount, Duration, Name

STYLE = (Path(__file__).parent / "docs.css").read_text(encoding="utf-8")
STYLE_HASH = "sha256-" + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()


def page(document: dict[str, Any]) -> bytes:
    """The whole page."""
    operations = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    info = document["info"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        f"<title>{escape(info['title'])} · API</title><style>{STYLE}</style>",
        "<a class=skip href=#content>To the content</a><div class=frame>",
        f"<nav aria-label=Contents>{''.join(_contents(document, operations))}</nav>",
        f"<main id=content><h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>",
        f"<p class=tagline>{escape(info['summary'])} Machine-readable: <a href=/openapi.json>openapi.json</a>.</p>",
        _prose(info["description"]),
    ]
    for tag in document["tags"]:
        parts.append(f"<h2 class=tag id='{_anchor(tag['name'])}'>{escape(tag['name'])}</h2>")
        parts += [
            _operation(document, method, path, each) for method, path, each in operations if tag["name"] in each["tags"]
        ]
    parts.append("<h2 class=tag id=models>Models</h2>")
    models = document["components"]["schemas"]
    parts += [_model(name, schema, models) for name, schema in sorted(models.items())]
    parts.append("<h2 class=tag id=problems>Problems</h2>")
    parts.append(_problems(document))
    parts.append("</main></div></html>")
    return "\n".join(parts).encode()


def _contents(document: dict[str, Any], operations: list[tuple[str, str, dict[str, Any]]]) -> Iterator[str]:
    for tag in document["tags"]:
        yield f"<section><h2>{escape(tag['name'])}</h2><ul>"
        for method, path, operation in operations:
            if tag["name"] in operation["tags"]:
                yield (
                    f"<li><a href='#{operation['operationId']}'><span class='method {method}'>{method.upper()}</span>"
                    f"<span class=path>{escape(path)}</span></a>"
                )
        yield "</ul></section>"
    yield "<section><h2>Reference</h2><ul><li><a href=#models>Models</a>"
    yield "<li><a href=#problems>Problems</a></ul></section>"


def _operation(document: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> str:
    models = document["components"]["schemas"]
    scope = "open" if not operation["security"] else operation.get("x-scope", "any credential")
    parts = [
        f"<article id='{operation['operationId']}'><h3><span class='method {method}'>{method.upper()}</span>",
        f"<code>{escape(path)}</code>",
        f"<span class=scope title='Scope that the credential needs'>{escape(scope)}</span></h3>",
        f"<p class=summary>{_inline(operation['summary'])}.</p>",
        _prose(operation.get("description", "")),
    ]
    if parameters := operation.get("parameters"):
        rows = [
            _row(each["name"], {"description": f"In the {each['in']}.", **each["schema"], **_described(each)},
                 required=each.get("required", False))
            for each in parameters
        ]  # fmt: skip
        parts.append(f"<h4>Parameters</h4>{_table(rows)}")
    if body := operation.get("requestBody"):
        ((content_type, content),) = body["content"].items()
        parts.append(f"<h4>Body · {escape(content_type)}</h4>")
        if "$ref" in content["schema"]:
            name = content["schema"]["$ref"].rsplit("/", 1)[1]
            parts.append(f"<p>{_type(content['schema'])}</p>")
            parts.append(_table(_fields(models[name], models)))
        else:
            parts.append("<p>A JWS in compact form, as it is signed.</p>")
        if "example" in content:
            parts.append(f"<details><summary>Example</summary>{_curl(method, path, content['example'])}</details>")
    parts.append(f"<h4>Answers</h4>{_answers(operation)}</article>")
    return "\n".join(parts)


def _described(parameter: dict[str, Any]) -> dict[str, str]:
    words = parameter.get("description")
    return {"description": f"In the {parameter['in']}. {words}"} if words else {}


def _curl(method: str, path: str, example: Any) -> str:
    lines = [
        'curl --cacert ca.crt -H "Authorization: Bearer $LENDMESH_TOKEN" \\',
        *(['  -H "Idempotency-Key: $(uuidgen)" \\'] if method == "post" else []),
        f"  -X {method.upper()} -H 'Content-Type: application/json' \\",
        f"  \"$LENDMESH_BROKER{path}\" -d @- <<'EOF'",
        json.dumps(example, indent=2, ensure_ascii=False),
        "EOF",
    ]
    return f"<pre>{escape(chr(10).join(lines))}</pre>"


def _answers(operation: dict[str, Any]) -> str:
    parts = []
    problems = []
    for status, response in operation["responses"].items():
        if "$ref" in response:
            problems.append(f"<a href='#status-{status}'>{status}</a>")
            continue
        for content_type, content in response.get("content", {"": {}}).items():
            model = content.get("x-event") or content.get("schema", {})
            what = f"events with {_type(model)}" if "x-event" in content else _type(model) if "$ref" in model else ""
            parts.append(f"<span><b>{status}</b> {what} <span class=limits>{escape(content_type)}</span></span>")
    return f"<p class=answers>{''.join(parts)} <span>Problems: {' '.join(problems)}</span></p>"


def _model(name: str, schema: dict[str, Any], models: dict[str, Any]) -> str:
    parts = [f"<article id='{_anchor('model ' + name)}'><h3><code>{escape(_shown(name))}</code></h3>"]
    parts.append(_prose(schema.get("description", "")))
    if "enum" in schema:
        parts.append("<p>" + " · ".join(f"<code>{escape(str(each))}</code>" for each in schema["enum"]) + "</p>")
    if "properties" in schema:
        parts.append(_table(_fields(schema, models)))
    return "\n".join([*parts, "</article>"])


def _fields(schema: dict[str, Any], models: dict[str, Any]) -> list[str]:
    required = schema.get("required", [])
    rows = []
    for name, each in schema.get("properties", {}).items():
        model = models.get(_model_in(each) or "", {})
        rows.append(_row(name, {"description": model.get("description", ""), **each}, required=name in required))
    return rows


def _model_in(schema: dict[str, Any]) -> str | None:
    """The name of the model that a field is, or is a list of."""
    for each in (schema, schema.get("items", {}), *schema.get("anyOf", [])):
        if "$ref" in each:
            return str(each["$ref"]).rsplit("/", 1)[1]
    return None


def _table(rows: list[str]) -> str:
    head = "<tr><th scope=col>Name<th scope=col>Type<th scope=col>Meaning</tr>"
    return f"<div class=wide><table>{head}{''.join(rows)}</table></div>"


def _row(name: str, schema: dict[str, Any], *, required: bool) -> str:
    must = "<span class=must>required</span>" if required else ""
    limits = _limits(schema)
    return (
        f"<tr><td><code>{escape(name)}</code>{must}<td>{_type(schema)}"
        f"<td>{_inline(schema.get('description', ''))}{' ' if limits else ''}<span class=limits>{limits}</span></tr>"
    )


_NAMED = {
    TypeAdapter(Duration).json_schema()["pattern"]: "duration",
    TypeAdapter(Amount).json_schema()["pattern"]: "amount in USD",
    TypeAdapter(Name).json_schema()["pattern"]: "name (DNS label)",
}


def _type(schema: dict[str, Any]) -> str:
    """A schema in a few words, with links to the models in it."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"<a href='#{_anchor('model ' + name)}'>{escape(_shown(name))}</a>"
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "const" in schema:
        return f"<code>{escape(json.dumps(schema['const']))}</code>"
    if "enum" in schema:
        return " · ".join(f"<code>{escape(str(each))}</code>" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"map of {_type(schema['additionalProperties'])}"
    if schema.get("pattern") in _NAMED:
        return _NAMED[schema["pattern"]]
    return escape(str(schema.get("format") or schema.get("type", "anything")))


_LIMITS = {
    "minimum": "≥ {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}", "minLength": "at least {} characters",
    "maxLength": "at most {} characters", "minItems": "at least {}", "maxItems": "at most {}",
    "maxProperties": "at most {}",
}  # fmt: skip


def _limits(schema: dict[str, Any]) -> str:
    """Limits, default and examples of a field; the general bound on texts is left out."""
    schema = {**next((each for each in schema.get("anyOf", []) if each.get("type") != "null"), {}), **schema}
    found = [
        words.format(f"{schema[key]:,}")
        for key, words in _LIMITS.items()
        if key in schema and (key, schema[key]) != ("maxLength", 16_384)
    ]
    if "examples" in schema:
        found.append("e.g. " + ", ".join(f"<code>{escape(str(each))}</code>" for each in schema["examples"]))
    if schema.get("default") not in (None, "", [], {}) and not isinstance(schema["default"], dict):
        found.append(f"default <code>{escape(json.dumps(schema['default']))}</code>")
    return "; ".join(found)


def _problems(document: dict[str, Any]) -> str:
    rows = [
        f"<tr id='status-{status}'><td><b>{status}</b><td>{_inline(response['description'])}"
        f"<td>{' '.join(f'<code>{escape(kind)}</code>' for kind in response['x-problems'])}</tr>"
        for status, response in document["components"]["responses"].items()
    ]
    head = "<tr><th scope=col>Status<th scope=col>Meaning<th scope=col>Last part of <code>type</code></tr>"
    return f"<div class=wide><table>{head}{''.join(rows)}</table></div>"


def _shown(name: str) -> str:
    """``Listing_LeaseView_`` → ``Listing[LeaseView]``."""
    return re.sub(r"^(\w+?)_(\w+)_$", r"\1[\2]", name)


def _anchor(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _inline(text: str) -> str:
    """Escaped, with `code` and **bold**."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    return re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", text)


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(part)}</p>" for part in text.split("\n\n") if part.strip())
