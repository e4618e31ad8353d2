"""Errors as RFC 9457 problem details: one shape, and a stable `code` for each thing that can be wrong.

A problem says what its caller can do about it. It never shows internals: what isn't listed here is
`internal_error` with a request id to look up in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from starlette.responses import Response

MEDIA_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of problem: its HTTP status, its title, and the field that it is always about, if there is one."""

    status: int
    title: str
    field: str | None = None


KINDS: Final[Mapping[str, Kind]] = {
    # What the request looks like.
    "malformed_json": Kind(400, "The body is not valid JSON"),
    "malformed_request": Kind(400, "The request can't be read"),
    "duplicate_key": Kind(400, "A key occurs twice in the body"),
    "unsupported_media_type": Kind(415, "The body has to be application/json"),
    "body_too_large": Kind(413, "The body is too large"),
    "headers_too_large": Kind(431, "The request's head is too large"),
    "body_timeout": Kind(408, "The body did not arrive in time"),
    "not_found": Kind(404, "There is no such resource"),
    "method_not_allowed": Kind(405, "The resource does not have this method"),
    "unknown_host": Kind(421, "The API is not known by this name"),
    "rate_limited": Kind(429, "Too many requests"),
    "head_timeout": Kind(408, "The request's head did not arrive in time"),
    "too_many_connections": Kind(503, "Too many connections"),
    "too_many_streams": Kind(429, "Too many open streams"),
    "unknown_field": Kind(422, "A field is not known"),
    "missing_field": Kind(422, "A field is missing"),
    "invalid_field": Kind(422, "A field is not valid"),
    "invalid_cursor": Kind(422, "The cursor is not valid", "cursor"),
    "invalid_idempotency_key": Kind(400, "The Idempotency-Key is not valid"),
    "idempotency_key_reused": Kind(422, "The Idempotency-Key was used for another request"),
    # What the order asks for. Where the program has an error for it, the code is that error's name.
    "unknown_market": Kind(422, "There is no such market", "market"),
    "market_inactive": Kind(422, "The market is not active", "market"),
    "order_type_not_executed": Kind(422, "The program does not execute this order type", "order_type"),
    "field_not_used": Kind(422, "The order type does not use this field"),
    "invalid_size": Kind(422, "The size is not valid", "size"),
    "position_too_large": Kind(422, "The size is above the program's limit", "size"),
    "invalid_leverage": Kind(422, "The leverage is not valid for the market", "leverage"),
    "invalid_price": Kind(422, "The limit price is not valid", "limit_price"),
    "price_too_high": Kind(422, "The limit price is too far above the oracle's", "limit_price"),
    "price_too_low": Kind(422, "The limit price is too far below the oracle's", "limit_price"),
    "invalid_stop_price": Kind(422, "The trigger price is not valid", "trigger_price"),
    "invalid_trailing_distance": Kind(422, "The trailing distance is not valid", "trailing_distance"),
    "price_stale": Kind(422, "The oracle's price is too old"),
    "order_expired": Kind(422, "The expiry is in the past", "expires_at"),
    "order_expiration_too_long": Kind(422, "The expiry is too far ahead", "expires_at"),
    "order_id_not_supported": Kind(422, "The program's revision has no order ids", "order_id"),
    "order_exists": Kind(409, "The order's address is taken"),
    # What became of an order or a preparation.
    "order_not_found": Kind(404, "The order is not known"),
    "order_not_pending": Kind(409, "The order is not pending any more"),
    "prepared_not_found": Kind(404, "Nothing was prepared under this id", "id"),
    "already_submitted": Kind(409, "Another signed transaction was submitted for this id"),
    "several_holders": Kind(409, "The orders' markets are of several keepers"),
    "blockhash_expired": Kind(409, "The prepared transaction can no longer land"),
    # What a simulation says when the program has no more particular word above.
    "simulation_failed": Kind(422, "The chain would refuse the transaction"),
    "insufficient_funds": Kind(422, "The wallet can't pay for the transaction"),
    "unauthorized": Kind(401, "A token is needed"),
    "order_not_failed": Kind(409, "The order did not fail"),
    "not_allowed": Kind(403, "The wallet may not do this"),
    "daily_limit": Kind(429, "The wallet has placed its orders for today"),
    "unauthorized_user": Kind(422, "The order belongs to another wallet"),
    # Relay checks (keeper.venue.relay_checks): the code is the check's.
    "not_base64": Kind(422, "The transaction is not base64"),
    "undecodable": Kind(422, "The transaction can't be decoded"),
    "too_large": Kind(422, "The transaction is too large"),
    "not_canonical": Kind(422, "The transaction is not in its canonical encoding"),
    "unsanitary": Kind(422, "The transaction is inconsistent"),
    "lookup_table": Kind(422, "The transaction uses a lookup table"),
    "duplicate_account": Kind(422, "The transaction lists an account twice"),
    "signers": Kind(422, "The transaction needs other signers"),
    "fee_payer": Kind(422, "The fee payer is not the user"),
    "not_signed": Kind(422, "The transaction is not signed"),
    "bad_signature": Kind(422, "The signature is wrong"),
    "keeper_account": Kind(422, "The transaction names the keeper's account"),
    "durable_nonce": Kind(422, "The transaction uses a durable nonce"),
    "blockhash_changed": Kind(422, "The blockhash was changed"),
    "foreign_instruction": Kind(422, "The transaction has an instruction of another program"),
    "instruction_count": Kind(422, "The transaction has more or fewer instructions of the program"),
    "other_instruction": Kind(422, "The transaction calls another instruction"),
    "arguments_changed": Kind(422, "The arguments were changed"),
    "accounts_changed": Kind(422, "The accounts were changed"),
    "flags_changed": Kind(422, "The accounts' flags were changed"),
    "compute_budget": Kind(422, "A compute budget instruction is not valid"),
    "unit_limit": Kind(422, "The compute unit limit is too high"),
    "priority_fee": Kind(422, "The priority fee is too high"),
    "assertion_count": Kind(422, "The transaction has too many assertions"),
    "not_an_assertion": Kind(422, "A Lighthouse instruction is no assertion"),
    "writable_account": Kind(422, "The transaction could write another account"),
    # What is the keeper's fault, or its node's.
    "internal_error": Kind(500, "The keeper made a mistake"),
    "chain_unavailable": Kind(503, "The chain can't be reached"),
    "journal_unavailable": Kind(503, "The journal can't be written"),
    "not_ready": Kind(503, "The keeper is not ready"),
    "standing_by": Kind(503, "This keeper stands by"),
    "not_holder": Kind(503, "This keeper does not work on the order's market"),
    "nobody_stands_by": Kind(409, "No other keeper stands by"),
}

BODY_PROBLEMS: Final = (
    "malformed_json",
    "duplicate_key",
    "unsupported_media_type",
    "body_too_large",
    "body_timeout",
    "unknown_field",
    "missing_field",
    "invalid_field",
)
TERMS_PROBLEMS: Final = tuple(c for c, kind in KINDS.items() if kind.status == 422 and c not in BODY_PROBLEMS)
CHAIN_PROBLEMS: Final = ("chain_unavailable", "journal_unavailable")
LANDING_PROBLEMS: Final = ("blockhash_expired", "not_ready", *CHAIN_PROBLEMS)
"""What a description lists together."""


class Problem(Exception):
    """Answer the request with this problem. `code` is one of KINDS.

    `field` names the field at fault, with dots into objects; by default the kind's own. `more` are extension members of
    the document.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.kind = KINDS[code]
        self.detail = detail
        self.field = field or self.kind.field
        self.headers = dict(headers or {})
        if self.kind.status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(retry_after_s)
        self.more = dict(more or {})

    def document(self) -> dict[str, Any]:
        """The problem details object. `type` leads to the list of codes in the API's description."""
        document: dict[str, Any] = {
            "type": f"urn:quantdesk-keeper:problem:{self.code}",
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            "code": self.code,
            **self.more,
        }
        if self.field is not None:
            document["field"] = self.field
        return document

    def response(self) -> Response:
        """The HTTP answer."""
        return Response(
            msgspec.json.encode(self.document()),
            status_code=self.kind.status,
            media_type=MEDIA_TYPE,
            headers=self.headers,
        )
