/* cancel_order, close_order: what a user does to end an order and to get its rent back. */
#include "instructions.h"
#include "log.h"
#include "state.h"
#include "system.h"

static u64 take_order_of_user(struct context *ctx, struct account **account, struct account **user) {
    TRY(take_order(ctx, account));
    TRY(take_account(ctx, user, "user", WRITE | SIGN));
    REQUIRE(keys_equal(&as_order(*account)->user, (*user)->key), UnauthorizedUser);
    return 0;
}

static void log_ended(const char *text, const struct account *account) {
    struct line line;
    line_begin(&line, text);
    line_key(&line, account->key);
    line_log(&line);
}

u64 cancel_order(struct context *ctx) {
    struct account *account, *user;
    TRY(take_order_of_user(ctx, &account, &user));
    struct order *order = as_order(account);
    REQUIRE(order->status == PENDING, OrderNotPending);
    order->status = CANCELLED;
    log_ended("Order cancelled: ", account);
    return 0;
}

u64 close_order(struct context *ctx) {
    struct account *account, *user;
    TRY(take_order_of_user(ctx, &account, &user));
    REQUIRE(as_order(account)->status != PENDING, OrderStillPending);
    TRY(close_account(account, user));
    log_ended("Order closed: ", account);
    return 0;
}
