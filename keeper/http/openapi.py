"""The API's description, OpenAPI 3.1, from the code: paths from the routes, schemas from the bodies' types."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from keeper.http.edge import describe
from keeper.http.edge.problems import KINDS

DESCRIPTION: Final = """\
Place conditional orders on the QuantDesk perpetuals program and see what becomes of them. Your key never leaves your
wallet: `POST /v1/orders` prepares a transaction, your wallet signs it, `POST /v1/orders/execute` relays it.

Decimals travel as strings. Errors are `application/problem+json` (RFC 9457) with a stable `code`.
"""


def openapi_document() -> dict[str, Any]:
    """The whole document; no keeper has to run."""
    # Here and not above: the application serves this document, so it imports this module.
    from keeper.http.api import application

    return application().openapi()


def document(app: FastAPI) -> dict[str, Any]:
    """The document of an application, made once."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        _, schemas = msgspec.json.schema_components(
            list(dict.fromkeys(describe.described)), ref_template=describe.REF_TEMPLATE
        )
        problem = schemas.pop("ProblemDetails")
        problem["properties"]["code"]["enum"] = sorted(KINDS)
        components = made.setdefault("components", {})
        # FastAPI adds its own shape for invalid parameters, which this API never answers with.
        components["schemas"] = dict(sorted({**schemas, "Problem": problem}.items()))
        for path in made["paths"].values():
            for operation in path.values():
                _without_fastapi_error(operation["responses"])
        app.openapi_schema = made
    return app.openapi_schema


def _without_fastapi_error(responses: dict[str, Any]) -> None:
    schema = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if schema.get("$ref", "").endswith("HTTPValidationError"):
        del responses["422"]["content"]["application/json"]
        responses["422"] = {
            "description": "- `invalid_field`: A parameter is not valid",
            "content": describe.problem_content(),
        }
