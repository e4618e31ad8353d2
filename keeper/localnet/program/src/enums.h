/* The program's enumerations: on chain, one byte that holds the index. */
#pragma once

enum order_type {
    MARKET,
    LIMIT,
    STOP_LOSS,
    TAKE_PROFIT,
    TRAILING_STOP,
    POST_ONLY,
    IMMEDIATE_OR_CANCEL,
    FILL_OR_KILL,
    ICEBERG,
    TWAP,
    STOP_LIMIT,
    BRACKET,
    ORDER_TYPE_COUNT
};
enum side { LONG, SHORT, SIDE_COUNT };
enum order_status { PENDING, FILLED, CANCELLED, EXPIRED, PARTIALLY_FILLED, REJECTED, ORDER_STATUS_COUNT };
enum { TIME_IN_FORCE_COUNT = 5 }; /* GTC, IOC, FOK, GTD, PostOnly: stored, not acted on */
enum position_status { OPEN, CLOSED, LIQUIDATED };
