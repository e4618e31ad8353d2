"""What travels: the bodies of requests and answers. The OpenAPI document is made from these.

Prices and sizes are decimal strings ("95.5"), a trailing distance is a fraction ("0.05" is 5 %), ids beyond 2**53
are strings, times are unix seconds. A field that does not apply is null.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from keeper.domain.attempts import AttemptKind, AttemptState, Fate
from keeper.domain.decimals import PATTERN
from keeper.domain.orders import OrderState
from keeper.journal.records import PreparedKind

EXAMPLE_WALLET = "7Np41oeYqPefeNQEHSv1UDhYrehxin3NStELsSKCT4K2"
EXAMPLE_ORDER = "4Nd1mYw4rJqk1zYqzH6E9YJk1nM6r3g8jV1Dq8rL9u2T"
EXAMPLE_TERMS: Final = {
    "market": "SOL/USDC",
    "order_type": "stop_loss",
    "side": "long",
    "size": "2.5",
    "trigger_price": "95.5",
    "leverage": 5,
}
_SIGNATURE = "5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnbJLgp8uirBgmQpjKhoR4tjF3ZpRzrFmBV6UjKdiSZkQUW"
BASE58 = "^[1-9A-HJ-NP-Za-km-z]+$"

Address = Annotated[
    str, Meta(min_length=32, max_length=44, description="A base58 address.", extra_json_schema={"pattern": BASE58})
]
Decimal = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=40,
        description='A decimal as a string, such as "95.5": at most 6 decimal places, no sign, no exponent.',
        extra_json_schema={"pattern": PATTERN},
    ),
]
SignedDecimal = Annotated[
    str,
    Meta(
        description='A decimal as a string, "-" before what is below 0.',
        extra_json_schema={"pattern": f"^-?{PATTERN[1:]}"},
    ),
]
# In Python `$` is also before a line's end, and only \Z is the text's; in JSON Schema it is the other way about.
OrderId = Annotated[
    str,
    Meta(
        pattern=r"^(0|[1-9][0-9]{0,19})\Z",
        description="The order's u64 id on chain, as a string.",
        extra_json_schema={"pattern": "^(0|[1-9][0-9]{0,19})$"},
    ),
]
ClientOrderId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        pattern=r"^[!-~]+\Z",
        description="Your own name for the order.",
        extra_json_schema={"pattern": "^[!-~]+$"},
    ),
]
PriorityFee = Annotated[
    int,
    Meta(
        ge=0,
        le=20_000_000,
        description="What the transaction bids for its place in a block, in micro-lamports a compute unit, as far as "
        "the keeper's settings allow. A transaction that fails pays it, too.",
        examples=[0],
    ),
]
OrderTypeWord = Literal[
    "stop_loss",
    "take_profit",
    "stop_limit",
    "limit",
    "trailing_stop",
    "market",
    "post_only",
    "ioc",
    "fok",
    "iceberg",
    "twap",
    "bracket",
]
SideWord = Literal["long", "short"]
Cursor = Annotated[str | None, Meta(description="Ask again with it for the next page; null at the end.")]
NextPage = Annotated[str | None, Meta(description="The next page's path and query; null at the end.")]


class Request(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A request's body: a field that isn't described is refused."""


class Answer(Struct, frozen=True, kw_only=True):
    """An answer's body."""


class ManagedOrder(Request, frozen=True, kw_only=True):
    """An order to place with a managed wallet."""

    market: Annotated[str, Meta(min_length=3, max_length=65, description="Base and quote.", examples=["SOL/USDC"])]
    order_type: Annotated[
        OrderTypeWord,
        Meta(description="What the program's revision doesn't execute is refused.", examples=["stop_loss"]),
    ]
    side: Annotated[SideWord, Meta(description="The side of the position that the fill opens.", examples=["long"])]
    size: Annotated[Decimal, Meta(description="Base units, up to 1000.", examples=["2.5"])]
    trigger_price: Annotated[
        Decimal | None,
        Meta(
            description="Required for stop_loss, take_profit and stop_limit. For a trailing_stop the first stop; "
            "without it the program starts one `trailing_distance` away from the oracle's price.",
            examples=["95.5"],
        ),
    ] = None
    limit_price: Annotated[
        Decimal | None,
        Meta(
            description="Required for limit, where it has to lie within 10 % of the oracle's price, and for "
            "stop_limit: the program keeps it, but only the trigger price decides its execution."
        ),
    ] = None
    trailing_distance: Annotated[
        Decimal | None,
        Meta(
            description='For trailing_stop: a fraction of the price, "0.05" is 5 %; at most "1". Exact to one part '
            "per million."
        ),
    ] = None
    leverage: Annotated[int, Meta(ge=1, le=255, description="At most the market's.", examples=[5])] = 1
    expires_at: Annotated[
        int | str | None,
        Meta(
            description="Unix seconds, or RFC 3339 with an offset; at most 30 days ahead by the chain's clock. "
            "Null or 0: never."
        ),
    ] = None
    order_id: Annotated[
        OrderId | None, Meta(description="Null: the keeper draws one. Program revision 0.1 has none.")
    ] = None
    client_order_id: ClientOrderId | None = None
    priority_fee_micro_lamports_per_unit: PriorityFee = 0


class PlaceOrder(ManagedOrder, frozen=True, kw_only=True):
    """An order to prepare."""

    user: Annotated[Address, Meta(description="The wallet that will sign and pay.", examples=[EXAMPLE_WALLET])]


class ExecuteOrder(Request, frozen=True, kw_only=True):
    """A prepared transaction, signed."""

    id: Annotated[str, Meta(min_length=1, max_length=64, description="From the answer that prepared it.")]
    signed_transaction: Annotated[
        str, Meta(min_length=1, max_length=1_644, description="The signed transaction in base64.")
    ]


class CancelOrder(Request, frozen=True, kw_only=True):
    """Nothing is needed to prepare a cancel; the body may be left out."""

    priority_fee_micro_lamports_per_unit: PriorityFee = 0


class CancelAll(CancelOrder, frozen=True, kw_only=True):
    """Which of a wallet's orders to cancel."""

    user: Annotated[Address, Meta(description="The wallet whose orders they are.", examples=[EXAMPLE_WALLET])]
    market: Annotated[str | None, Meta(description="Only this market's: a symbol or an address.")] = None
    order_type: Annotated[OrderTypeWord | None, Meta(description="Only orders of this type.")] = None


class AmendOrder(CancelOrder, frozen=True, kw_only=True):
    """What is to be different of an order; what is null or left out stays as it is. At least one term has to change."""

    size: Annotated[Decimal | None, Meta(description="Base units, up to 1000.")] = None
    trigger_price: Annotated[
        Decimal | None,
        Meta(description="Without it a trailing_stop whose `trailing_distance` changes begins at the oracle's price."),
    ] = None
    limit_price: Decimal | None = None
    trailing_distance: Decimal | None = None
    leverage: Annotated[int, Meta(ge=1, le=255, description="At most the market's.")] | None = None
    expires_at: Annotated[int | str | None, Meta(description="As for a new order; 0: never.")] = None
    order_id: Annotated[OrderId | None, Meta(description="The new order's. Null: the keeper draws one.")] = None
    client_order_id: Annotated[
        ClientOrderId | None, Meta(description="The new order's; the old one's stays its own.")
    ] = None


class OrderSummary(Answer, frozen=True, kw_only=True):
    """An order's terms."""

    user: Address
    market: str | None
    market_address: Address
    order_type: OrderTypeWord
    side: SideWord
    size: Decimal
    trigger_price: Decimal | None
    limit_price: Decimal | None
    trailing_distance: Decimal | None
    leverage: int
    expires_at: int | None
    order_id: OrderId | None
    client_order_id: Annotated[
        str | None, Meta(description="Told to who prepares the order and to who asks for orders by it; else null.")
    ]


class PreparedTransaction(Answer, frozen=True, kw_only=True):
    """An unsigned transaction for the user's wallet. Sign it and send it to `/v1/orders/execute`."""

    id: str
    kind: PreparedKind
    order: Annotated[
        Address,
        Meta(
            description="The order's account and name: of the one that is placed, else of the first that is cancelled."
        ),
    ]
    cancels: Annotated[list[Address], Meta(description="The orders that it cancels.")]
    order_id: OrderId | None
    transaction: Annotated[str, Meta(description="A legacy transaction with a zeroed signature, in base64.")]
    blockhash: str
    last_valid_block_height: int
    sign_before: Annotated[
        int, Meta(description="Unix seconds. An estimate at the chain's present pace: the block height decides.")
    ]
    notice: Annotated[str | None, Meta(description="What its user should know before signing; mostly null.")]
    summary: OrderSummary


class PreparedCancels(Answer, frozen=True, kw_only=True):
    """Cancels of a wallet's orders. Sign each and send it to `/v1/orders/execute`. Each cancels all of its orders or
    none, so an order that is being executed just now has one for itself.
    """

    user: Address
    transactions: list[PreparedTransaction]
    more: Annotated[
        bool, Meta(description="Whether there are more than these cancel: ask again when they have landed.")
    ]


class SubmittedTransaction(Answer, frozen=True, kw_only=True):
    """The signed transaction is journaled and being landed; watch the order for what becomes of it."""

    id: str
    kind: PreparedKind
    order: Address
    signature: Annotated[str, Meta(examples=[_SIGNATURE])]
    status: OrderState
    status_reason: Annotated[str, Meta(description="Why the order stands so, in a sentence.")]


class AttemptError(Answer, frozen=True, kw_only=True):
    """Why an attempt failed, by name: the program's error, Anchor's, or the runtime's."""

    name: str
    program: str | None
    detail: str | None


class PostedPrice(Answer, frozen=True, kw_only=True):
    """The price of a feed that an execution posts to its order's market first, in the same transaction."""

    feed: Annotated[Address, Meta(description="The account that the price was read from.")]
    price: Decimal | None
    slot: Annotated[int | None, Meta(description="The slot that the feed was read at.")]
    published_at: Annotated[int | None, Meta(description="Unix seconds; when its oracle published it.")]


class AttemptView(Answer, frozen=True, kw_only=True):
    """One signed transaction for the order: the user's own (relay), or one of the keeper's."""

    signature: str
    kind: AttemptKind
    number: int
    state: AttemptState
    fate: Fate | None
    error: AttemptError | None
    trigger_price: Decimal | None
    trigger_slot: int | None
    posted: Annotated[PostedPrice | None, Meta(description="Null where the market's own price met the order.")]
    signed_at: float
    sent_at: float | None
    slot: Annotated[int | None, Meta(description="Where it landed.")]
    confirmed_at: float | None
    finalized_at: float | None
    fee_lamports: int | None
    tip_lamports: Annotated[int | None, Meta(description="What it pays a sender if it lands without an error.")]


class OrderView(OrderSummary, frozen=True, kw_only=True):
    """An order and what became of it."""

    order: Annotated[Address, Meta(examples=[EXAMPLE_ORDER])]
    status: OrderState
    status_reason: Annotated[str, Meta(description="Why it stands so, in a sentence.")]
    onchain_status: Annotated[
        Literal["pending", "filled", "cancelled", "expired", "partially_filled", "rejected"] | None,
        Meta(description="What the account says; null before it was seen on chain."),
    ]
    triggered_at: Annotated[float | None, Meta(description="Unix seconds; when its condition was last met.")]
    triggered_price: Decimal | None
    triggered_slot: int | None
    position: Annotated[Address | None, Meta(description="The fill's position account.")]
    slot: Annotated[int | None, Meta(description="The slot that the account was read at.")]
    created_at: Annotated[int | None, Meta(description="Unix seconds by the chain's clock.")]
    updated_at: float
    attempts_made: int


class OrderDetail(OrderView, frozen=True, kw_only=True):
    """An order with its attempts, oldest first."""

    attempts: list[AttemptView]


class OrderPage(Answer, frozen=True, kw_only=True):
    """Some orders, newest first."""

    orders: list[OrderView]
    cursor: Cursor
    next: NextPage


class ProblemDetails(Answer, frozen=True, kw_only=True):
    """RFC 9457 problem details. `code` is stable; the sentences may change."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    field: str | msgspec.UnsetType = msgspec.UNSET
    errors: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
