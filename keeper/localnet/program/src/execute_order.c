/* execute_conditional_order: fills the order and creates its position, or changes nothing. */
#include "discriminators.h"
#include "instructions.h"
#include "log.h"
#include "math.h"
#include "state.h"
#include "system.h"
#include "trigger.h"

enum { UNIT = 1'000'000, BPS = 10'000 };

/* Fills draw on the user's account 0, so that an executor can derive it from the order alone. */
static const u8 FILL_ACCOUNT_INDEX[2] = {0, 0};

struct accounts {
    struct market market;
    struct account *order, *position, *user_account, *executor, *system;
    struct address position_address;
};

/* The numbers of a fill at the oracle's price. */
struct fill {
    i64 time;
    u64 price;
    u64 margin;
    u64 maintenance_margin;
    u64 liquidation_price;
};

/* What the books say after the fill, worked out before anything is written. */
struct balance {
    u64 available_margin;
    u64 initial_margin_requirement;
    u64 maintenance_margin_requirement;
};

static u64 take_accounts(struct context *ctx, struct accounts *accounts) {
    struct address user_account;
    TRY(take_market(ctx, &accounts->market, WRITE));
    TRY(take_order_of_market(ctx, &accounts->order, &accounts->market));
    const struct order *order = as_order(accounts->order);
    TRY(take_account(ctx, &accounts->position, "position", WRITE));
    position_address(&accounts->position_address, accounts->order->key);
    TRY(find_address(ctx, &accounts->position_address, accounts->position));
    TRY(take_account(ctx, &accounts->user_account, "user_account", WRITE));
    user_account_address(&user_account, &order->user, FILL_ACCOUNT_INDEX);
    TRY(find_address(ctx, &user_account, accounts->user_account));
    TRY(take_account(ctx, &accounts->executor, "executor", WRITE | SIGN));
    return take_system_program(ctx, &accounts->system);
}

/* The price at which the position's equity has shrunk to the maintenance margin: the initial margin
 * per unit less the maintenance margin per unit away from the entry. Where a market's ratios leave
 * nothing between the two, the position is liquidated at its entry, never beyond it. */
static u64 liquidation_price(const struct order *order, u64 price, u16 maintenance_bps, u64 *result) {
    const u64 initial = price / order->leverage;
    u64 maintenance, distance;
    REQUIRE(mul_div_floor(price, maintenance_bps, BPS, &maintenance), MathOverflow);
    if (!checked_sub(initial, maintenance, &distance)) distance = 0;
    const bool fits = order->side == LONG ? checked_sub(price, distance, result)
                                          : checked_add(price, distance, result);
    REQUIRE(fits, MathOverflow);
    return 0;
}

static u64 price_fill(const struct order *order, const struct market *market, struct fill *fill) {
    const u16 maintenance_bps = market->fields->maintenance_margin_ratio;
    u64 notional;
    REQUIRE(order->leverage, InvalidLeverage);
    REQUIRE(mul_div_floor(order->size, fill->price, UNIT, &notional), MathOverflow);
    fill->margin = notional / order->leverage;
    REQUIRE(mul_div_floor(notional, maintenance_bps, BPS, &fill->maintenance_margin), MathOverflow);
    if (fill->maintenance_margin > fill->margin) fill->maintenance_margin = fill->margin;
    return liquidation_price(order, fill->price, maintenance_bps, &fill->liquidation_price);
}

static u64 draw_margin(const struct user_account *user, const struct fill *fill,
                       struct balance *balance) {
    REQUIRE(user->is_active, UserAccountInactive);
    REQUIRE(user->total_positions < user->max_positions, MaxPositionsReached);
    REQUIRE(checked_sub(user->available_margin, fill->margin, &balance->available_margin),
            InsufficientCollateral);
    REQUIRE(checked_add(user->initial_margin_requirement, fill->margin,
                        &balance->initial_margin_requirement),
            MathOverflow);
    REQUIRE(checked_add(user->maintenance_margin_requirement, fill->maintenance_margin,
                        &balance->maintenance_margin_requirement),
            MathOverflow);
    return 0;
}

static void write_position(const struct accounts *accounts, const struct fill *fill) {
    const struct order *order = as_order(accounts->order);
    struct position *position = as_position(accounts->position); /* zeroed: Open, no profit yet */
    position->discriminator = ACCOUNT_POSITION;
    position->user_account = *accounts->user_account->key;
    position->user = order->user;
    position->market = order->market;
    position->position_index = as_user_account(accounts->user_account)->total_positions;
    position->side = order->side;
    position->size = order->size;
    position->entry_price = fill->price;
    position->current_price = fill->price;
    position->liquidation_price = fill->liquidation_price;
    position->last_funding_update = fill->time;
    position->initial_margin = fill->margin;
    position->maintenance_margin = fill->maintenance_margin;
    position->leverage = order->leverage;
    position->margin = fill->margin;
    position->opened_at = fill->time;
    position->last_updated = fill->time;
    position->created_at = fill->time;
    position->bump = accounts->position_address.bump;
}

static void write_books(struct user_account *user, const struct balance *balance, i64 time) {
    user->available_margin = balance->available_margin;
    user->initial_margin_requirement = balance->initial_margin_requirement;
    user->maintenance_margin_requirement = balance->maintenance_margin_requirement;
    user->total_positions++;
    user->last_activity = time;
}

struct [[gnu::packed]] order_filled {
    u64 discriminator;
    struct pubkey order;
    struct pubkey position;
    struct pubkey user;
    struct pubkey market;
    u8 side;
    u64 size;
    u64 price;
    u64 margin;
};

static void emit_filled(const struct accounts *accounts, const struct fill *fill) {
    const struct order *order = as_order(accounts->order);
    struct order_filled event;
    event.discriminator = EVENT_ORDER_FILLED;
    event.order = *accounts->order->key;
    event.position = *accounts->position->key;
    event.user = order->user;
    event.market = order->market;
    event.side = order->side;
    event.size = order->size;
    event.price = fill->price;
    event.margin = fill->margin;
    const struct slice piece = {&event, sizeof event};
    sol_log_data(&piece, 1);
}

static u64 fill_order(const struct context *ctx, struct accounts *accounts, i64 time) {
    struct order *order = as_order(accounts->order);
    struct user_account *user = as_user_account(accounts->user_account);
    struct fill fill = {.time = time, .price = accounts->market.fields->last_oracle_price};
    struct balance balance;
    REQUIRE(condition_met(order, fill.price), ConditionNotMet);
    TRY(load_user_account(ctx, accounts->user_account));
    TRY(price_fill(order, &accounts->market, &fill));
    TRY(draw_margin(user, &fill, &balance));
    TRY(create_account(ctx, accounts->executor, accounts->position, &accounts->position_address,
                       sizeof(struct position)));

    order->status = FILLED;
    order->filled_size = order->size;
    write_position(accounts, &fill);
    write_books(user, &balance, time);
    emit_filled(accounts, &fill);

    struct line line;
    line_begin(&line, "Conditional order executed: ");
    line_key(&line, accounts->order->key);
    line_text(&line, " at price ");
    line_u64(&line, fill.price);
    line_log(&line);
    return 0;
}

u64 execute_conditional_order(struct context *ctx) {
    struct accounts accounts;
    TRY(take_accounts(ctx, &accounts));
    struct order *order = as_order(accounts.order);
    const i64 time = now();

    REQUIRE(order->status == PENDING, OrderNotPending);
    /* Before anything about the market or the user: an order that is over can be put away even where
     * it could not be filled. */
    if (is_expired(order->expires_at, time)) {
        order->status = EXPIRED;
        struct line line;
        line_begin(&line, "Order expired: ");
        line_key(&line, accounts.order->key);
        line_log(&line);
        return 0;
    }
    TRY(require_tradable(&accounts.market, time));
    return fill_order(ctx, &accounts, time);
}
