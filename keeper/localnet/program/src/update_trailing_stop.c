#include "instructions.h"
#include "log.h"
#include "state.h"
#include "trigger.h"

u64 update_trailing_stop(struct context *ctx) {
    struct market market;
    struct account *account, *executor;
    TRY(take_market(ctx, &market, READ));
    TRY(take_order_of_market(ctx, &account, &market));
    TRY(take_account(ctx, &executor, "executor", SIGN));

    struct order *order = as_order(account);
    const i64 time = now();
    REQUIRE(order->order_type == TRAILING_STOP, InvalidOrderType);
    REQUIRE(order->status == PENDING, OrderNotPending);
    REQUIRE(!is_expired(order->expires_at, time), OrderExpired);
    TRY(require_tradable(&market, time));

    u64 stop;
    TRY(trailing_stop(order->side, market.fields->last_oracle_price, order->trailing_distance, &stop));
    /* Refused, not ignored: whoever pays for a ratchet must see that it did nothing. */
    const bool in_favour = order->side == LONG ? stop > order->stop_price : stop < order->stop_price;
    REQUIRE(in_favour, ConditionNotMet);

    struct line line;
    line_begin(&line, "Trailing stop updated: ");
    line_key(&line, account->key);
    line_text(&line, " from ");
    line_u64(&line, order->stop_price);
    line_text(&line, " to ");
    line_u64(&line, stop);
    line_log(&line);
    order->stop_price = stop;
    return 0;
}
