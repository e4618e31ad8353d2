"""`keeper openapi`: the API's description."""

from __future__ import annotations

import json


def openapi() -> None:
    """Print the API's description (OpenAPI 3.1, JSON)."""
    from keeper.http.routes import openapi_document

    print(json.dumps(openapi_document(), indent=2))
