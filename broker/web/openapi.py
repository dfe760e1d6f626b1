"""The OpenAPI 3.1 document, made from the same table and the same models that serve.

Bodies and query strings have the schema of what is accepted, answers that of what is said (pydantic's *validation*
and *serialization* modes). Nothing is written twice: an operation's words are its handler's docstring, a field's words
stand beside the field, and which problems an operation can answer with follows from what it reads.
"""

import inspect
import json
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from broker.kit.durations import format_duration
from broker.kit.money import from_micros
from broker.web import examples
from broker.web.call import ANYBODY, OPEN, Signed
from broker.web.problems import CONTENT_TYPE, STATUS, leaves, name_of, status_of
from broker.web.reading import JOSE, JSON
from broker.web.routes import ROUTES
from broker.web.routing import Route
from broker.wire.base import Amount, Inbound, Problem

DESCRIPTION = """\
The broker of a federation of Kubernetes clusters that lend each other devices (GPUs, TPUs and whatever else DRA
describes). Ask for capacity, see what is offered and at which price, hold the signed lease, give it back.

**Credentials.** `Authorization: Bearer lmt_…` (people and programs) or `lmc_…` (a cluster's agent). Each operation
names the scope it needs; `admin` has all of them but `agent`. What belongs to another tenant is answered as if it
weren't there.

**Posting once.** Every POST carries an `Idempotency-Key`: repeat it with the same key and body and you get the same
answer, without a second effect.

**Lists** come in pages: pass `cursor` back until it is null. A first page also has the `revision` to watch from.

**Watching.** Streams are server-sent events. Each event's id is a revision; come back with `Last-Event-ID` or
`?after=` and you get exactly what you missed. A stream's last event is `closing`, `slow` or `refused`, with a problem
as its data; on `refused` with type `too-old`, list again.

**Units.** Durations are texts with units (`90s`, `1h30m`), amounts of money texts in US dollars (`"2.40"`), prices are
per device and hour, times are RFC 3339 in UTC. A field that isn't known is an error.

**Problems** are RFC 9457 documents (`application/problem+json`): `type` is stable, `detail` is for people, `instance`
is the request's id in the broker's log.
"""

_WHEN = {
    400: "The request can't be read: malformed JSON or HTTP, or a POST without a usable Idempotency-Key.",
    401: "No credential, or one that is not good (any more).",
    403: "The credential is good, but its scopes don't allow this.",
    404: "It isn't there, or it isn't yours.",
    408: "The body did not arrive in time.",
    409: "In conflict with how things stand.",
    413: "The body is too large.",
    415: "Another content type is needed, without Content-Encoding.",
    422: "It can be read, but not meant like that; `errors` says where.",
    500: "Something went wrong in the broker; `instance` finds it in the log.",
    503: "Not now; `Retry-After` says when.",
}


_REF = "#/components/schemas/"
_MONEY = TypeAdapter(Amount).json_schema()["pattern"]


def document(routes: Sequence[Route] = ROUTES) -> dict[str, Any]:
    """The whole document, as data."""
    models: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {}
    for route in routes:
        for kind in (route.body, route.query):
            if kind is not None and issubclass(kind, Inbound):
                models[kind, "validation"] = None
        if route.answer is not None:
            models[route.answer, "serialization"] = None
    models[Problem, "serialization"] = None
    references, definitions = models_json_schema(list(models), ref_template=_REF + "{model}")
    schemas = _tidy(definitions["$defs"])
    names = _joined(schemas)
    schemas = {names.get(name, name): _renamed(schema, names) for name, schema in schemas.items()}
    references = {key: _renamed(reference, names) for key, reference in references.items()}
    for route in routes:
        if route.query is not None:
            schemas.pop(references[route.query, "validation"]["$ref"].rsplit("/", 1)[1], None)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Lendmesh broker",
            "version": _version(),
            "summary": "Lend and borrow devices between Kubernetes clusters.",
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "Wherever this document came from"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "An API token, `lmt_…`."},
                "agent": {"type": "http", "scheme": "bearer", "description": "A cluster's own credential, `lmc_…`."},
            },
            "responses": {str(status): _problem_response(status) for status in sorted({*STATUS.values(), 500})},
        },
    }


def encode(content: dict[str, Any]) -> bytes:
    """As it is served, and as it is committed in docs/openapi.json."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _operation(route: Route, references: Any) -> dict[str, Any]:
    summary, _, description = (inspect.getdoc(route.handler) or "").partition("\n")
    operation: dict[str, Any] = {"operationId": route.name, "tags": [route.tag], "summary": summary.rstrip(".")}
    if description.strip():
        operation["description"] = description.strip()
    operation["security"] = _security(route)
    if route.needs not in (OPEN, ANYBODY):
        operation["x-scope"] = route.needs
    if parameters := list(_parameters(route)):
        operation["parameters"] = parameters
    if (body := _body(route, references)) is not None:
        operation["requestBody"] = body
    operation["responses"] = {
        str(route.status): _success(route, references),
        **{str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(statuses(route))},
    }
    return operation


def statuses(route: Route) -> set[int]:
    """Which problems this operation can answer with."""
    found = {400, 500, 503}
    if route.needs != OPEN:
        found |= {401} if route.needs == ANYBODY else {401, 403}
    if route.segments or (route.body is not None and route.needs != OPEN):
        found.add(404)  # a body names objects too
    if route.method == "POST":
        found |= {408, 413, 422}
    if route.body is not None:
        found |= {408, 413, 415, 422}
    if route.query is not None or route.watch:
        found.add(422)
    if route.method != "GET":
        found.add(409)
    if route.needs == OPEN and route.method == "POST":
        found.add(401)
    return found


def _security(route: Route) -> list[dict[str, list[str]]]:
    if route.needs == OPEN:
        return []
    if route.needs == "agent":
        return [{"agent": [route.needs]}]
    scopes = [] if route.needs == ANYBODY else [route.needs]
    tokens: list[dict[str, list[str]]] = [{"token": scopes}]
    return tokens if route.needs in ("admin", "metrics") else [*tokens, {"agent": scopes}]


def _parameters(route: Route) -> Iterator[dict[str, Any]]:
    for name in route.segments:
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "maxLength": 128}}
    if route.query is not None:
        schema = route.query.model_json_schema(ref_template=_REF + "{model}")
        definitions = schema.get("$defs", {})
        for name, each in schema["properties"].items():
            yield _query_parameter(name, _plain(each, definitions))
    if route.watch:
        text = "The revision after which to resume; without it the stream starts now."
        whole = {"type": "string", "pattern": "^[0-9]{1,18}$"}
        yield {"name": "after", "in": "query", "description": text, "schema": whole}
        yield {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "The same, as browsers send it.",
            "schema": whole,
        }
    if route.method == "POST":
        yield {
            "name": "Idempotency-Key",
            "in": "header",
            "required": True,
            "description": "A new one for every new wish, the same one for a repetition.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$"},
        }


def _query_parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    parameter = {"name": name, "in": "query", "schema": schema}
    if description := schema.pop("description", None):
        parameter["description"] = description
    return parameter


def _plain(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A query parameter's schema without «or null» (leaving it out is the null) and without references."""
    choices = [choice for choice in schema.get("anyOf", [schema]) if choice.get("type") != "null"]
    chosen = dict(choices[0])
    if "$ref" in chosen:
        chosen = dict(definitions[chosen["$ref"].rsplit("/", 1)[1]])
        chosen.pop("description", None)
    plain = {**chosen, **{key: value for key, value in schema.items() if key in ("description",)}}
    plain.pop("title", None)
    return plain


def _body(route: Route, references: Any) -> dict[str, Any] | None:
    if route.body is None:
        return None
    if issubclass(route.body, Signed):
        schema = {"type": "string", "pattern": r"^[-\w]+\.[-\w]+\.[-\w]+$"}
        return {"required": True, "content": {JOSE: {"schema": schema}}}
    content: dict[str, Any] = {"schema": references[route.body, "validation"]}
    if (example := examples.BODIES.get(route.name)) is not None:
        content["example"] = example
    return {"required": True, "content": {JSON: content}}


def _success(route: Route, references: Any) -> dict[str, Any]:
    if route.status == 204:
        return {"description": "Done."}
    if route.watch:
        schema = {"type": "string", "description": "Server-sent events; `data` is JSON of the model in `x-event`."}
        content = {"schema": schema, "x-event": references[route.answer, "serialization"]}
        return {"description": "A stream of changes.", "content": {"text/event-stream": content}}
    if route.answer is None:
        schema = {"type": "object"} if route.content_type == JSON else {"type": "string"}
        return {"description": "As it says.", "content": {route.content_type.partition(";")[0]: {"schema": schema}}}
    answer: dict[str, Any] = {"schema": references[route.answer, "serialization"]}
    if (example := examples.ANSWERS.get(route.name)) is not None:
        answer["example"] = example
    words = {201: "Made; this is how it stands."}.get(route.status, "How it stands.")
    return {"description": words, "content": {JSON: answer}}


def _problem_response(status: int) -> dict[str, Any]:
    kinds = sorted({name_of(kind) for kind in leaves() if status_of(kind) == status})
    return {
        "description": _WHEN.get(status, "A problem."),
        "x-problems": kinds,
        "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _tidy(schema: Any) -> Any:
    """Without pydantic's titles, which only repeat the names, and with defaults as they are written on the wire."""
    if isinstance(schema, list):
        return [_tidy(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    tidy = {key: _tidy(value) for key, value in schema.items() if key != "title" or isinstance(value, dict)}
    if isinstance(tidy.get("description"), str):
        tidy["description"] = tidy["description"].replace("``", "`")
    if tidy.get("type") == "string" and isinstance(tidy.get("default"), int):
        is_money = tidy.get("pattern") == _MONEY
        tidy["default"] = str(from_micros(tidy["default"])) if is_money else format_duration(tidy["default"])
    return tidy


def _joined(schemas: dict[str, Any]) -> dict[str, str]:
    """New names for schemas that pydantic holds apart (``X-Input``, ``X-Output``) though they are the same."""
    names: dict[str, str] = {}
    while True:
        seen = _renamed(schemas, names)
        pairs = {name.removesuffix("-Input") for name in schemas if name.endswith("-Input")}
        new = {
            f"{name}-{mode}": name
            for name in pairs
            if f"{name}-Input" not in names and seen[f"{name}-Input"] == seen[f"{name}-Output"]
            for mode in ("Input", "Output")
        }
        if not new:
            return names
        names |= new


def _renamed(content: Any, names: dict[str, str]) -> Any:
    """``content`` with every reference to a schema by its new name."""
    if isinstance(content, list):
        return [_renamed(each, names) for each in content]
    if not isinstance(content, dict):
        return content
    return {
        key: _REF + names.get(value.removeprefix(_REF), value.removeprefix(_REF))
        if key == "$ref" and isinstance(value, str) and value.startswith(_REF)
        else _renamed(value, names)
        for key, value in content.items()
    }


def _version() -> str:
    try:
        return version("lendmesh")
    except PackageNotFoundError:
        return "0"
