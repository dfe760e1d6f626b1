"""The document says what the server does: every route is in it, and every word of it is true of the models."""

import json
import re
from pathlib import Path

import openapi_spec_validator
import pytest
from aiohttp import web
from jsonschema import Draft202012Validator

from broker.kit.clock import new_id
from broker.settings import Settings
from broker.web import docs, examples, openapi
from broker.web.call import OPEN, Signed
from broker.web.metrics import Metrics
from broker.web.routes import ROUTES
from broker.web.routing import route
from broker.web.site import make_site
from broker.wire.access import Me
from tests.web_room import Shelf, room

DOCUMENT = openapi.document()
COMMITTED = Path(__file__).parents[1] / "docs" / "openapi.json"


def test_every_route_of_the_router_is_in_the_document_and_the_other_way_round():
    app = make_site(metrics=Metrics(), settings=Settings(), new_id=new_id)
    served = {(each.method, each.resource.canonical) for each in app.router.routes() if each.method != "HEAD"}
    described = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}

    assert served == described
    assert len(served) == len(ROUTES) > 40


def test_the_committed_document_is_the_current_one():
    assert COMMITTED.read_bytes() == openapi.encode(DOCUMENT), "run: python -m broker openapi > docs/openapi.json"


def test_the_document_is_valid_openapi_3_1():
    openapi_spec_validator.validate(DOCUMENT)


def test_every_reference_leads_somewhere():
    text = json.dumps(DOCUMENT)
    for reference in set(re.findall(r'"#(/[^"]+)"', text)):
        found = DOCUMENT
        for part in reference.strip("/").split("/"):
            found = found[part]
        assert found


def test_operations_have_ids_of_their_own_and_words_that_end():
    operations = [each for methods in DOCUMENT["paths"].values() for each in methods.values()]
    assert len({each["operationId"] for each in operations}) == len(operations)
    for each in operations:
        assert each["summary"], each["operationId"]
        assert not each["summary"].endswith((".", "``"))


def test_only_these_are_open():
    open_paths = {
        path for path, methods in DOCUMENT["paths"].items() for each in methods.values() if not each["security"]
    }
    assert open_paths == {"/healthz", "/readyz", "/openapi.json", "/docs", "/.well-known/jwks.json", "/v1/join"}


def test_every_post_asks_for_an_idempotency_key():
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            names = {each["name"] for each in operation.get("parameters", []) if each.get("required")}
            assert ("Idempotency-Key" in names) == (method == "post"), path


def test_every_body_has_an_example_that_its_model_takes_and_its_schema_allows():
    for each in ROUTES:
        if each.body is None or each.body is Signed:
            continue
        example = examples.BODIES[each.name]
        each.body.model_validate(example)
        operation = DOCUMENT["paths"][each.path][each.method.lower()]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(example)
    assert set(examples.BODIES) <= {each.name for each in ROUTES}
    for name, example in examples.ANSWERS.items():
        (answered,) = [each for each in ROUTES if each.name == name]
        answered.answer.model_validate(example)


def test_defaults_are_written_as_they_are_sent():
    terms = DOCUMENT["components"]["schemas"]["Terms"]["properties"]
    assert terms["min_duration"]["default"] == "1m"
    for schema in DOCUMENT["components"]["schemas"].values():
        for name, each in schema.get("properties", {}).items():
            assert not (each.get("type") == "string" and isinstance(each.get("default"), int)), name


def test_every_problem_type_is_listed_under_its_status():
    listed = {kind for each in DOCUMENT["components"]["responses"].values() for kind in each["x-problems"]}
    assert {"not-found", "idempotency-key-reused", "bad-json", "device-taken", "too-old"} <= listed


def test_the_page_shows_every_operation_and_every_model_and_fetches_nothing():
    page = docs.page(DOCUMENT).decode()
    for each in ROUTES:
        assert f"id='{each.name}'" in page
        assert each.path in page
    for anchor in set(re.findall(r"href='#([^']+)'", page)):
        assert f"id='{anchor}'" in page, anchor
    assert not re.search(r"<script|<link|<img|@import|url\(|src=", page)
    assert set(re.findall(r"https?://[^\s\"'<&]+", page)) <= {"https://lendmesh.dev/problems/"}


def test_nothing_in_the_document_can_become_markup():
    evil = "<script>alert('x')</script>"
    text = json.dumps(DOCUMENT)
    for harmless in ("Ask for capacity", "price_cap", "The borrower's cluster", "same_node", "prefer"):
        assert harmless in text
        text = text.replace(harmless, evil)
    page = docs.page(json.loads(text)).decode()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 10


async def test_the_page_is_allowed_its_own_style_and_nothing_else():
    async with room(Shelf()) as (session, _), session.get("/docs") as answer:
        assert answer.content_type == "text/html"
        policy = answer.headers["Content-Security-Policy"]
        style = re.search(r"<style>(.*?)</style>", await answer.text(), re.S)
    assert style is not None
    assert f"style-src '{docs.STYLE_HASH}'" in policy


def test_a_handler_whose_signature_is_not_its_path_is_refused_when_the_table_is_made():
    async def lost(call, *, lease: str) -> Me: ...

    with pytest.raises(TypeError, match="which is not what"):
        route("GET", "/v1/things/{thing}", lost, needs=OPEN, tag="x")

    async def odd(call) -> web.Response: ...

    with pytest.raises(TypeError, match="can't return"):
        route("GET", "/v1/things", odd, needs=OPEN, tag="x")
