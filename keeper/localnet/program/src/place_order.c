#include "discriminators.h"
#include "instructions.h"
#include "log.h"
#include "math.h"
#include "state.h"
#include "system.h"
#include "trigger.h"

enum { SIZE_MAX_UNITS = 1'000'000'000, EXPIRY_MAX_S = 30 * 86'400 };

static const char ORDER_TYPES[ORDER_TYPE_COUNT][16] = {
    "Market", "Limit", "StopLoss", "TakeProfit", "TrailingStop", "PostOnly",
    "IOC",    "FOK",   "Iceberg",  "TWAP",       "StopLimit",    "Bracket",
};
static const char SIDES[SIDE_COUNT][8] = {"Long", "Short"};

struct [[gnu::packed]] place_order_args {
    u8 order_id[8];
    u8 order_type;
    u8 side;
    u64 size;
    u64 price;
    u64 stop_price;
    u64 trailing_distance;
    u8 leverage;
    i64 expires_at;
    u64 hidden_size;
    u64 display_size;
    u8 time_in_force;
    u64 target_price;
    u64 twap_duration;
    u64 twap_interval;
};

/* A limit further than 10 % from the oracle's price is a slip of the finger. */
static u64 check_limit(u64 price, u64 oracle_price) {
    u64 highest, lowest;
    REQUIRE(mul_div_floor(oracle_price, 11, 10, &highest), MathOverflow);
    REQUIRE(mul_div_ceil(oracle_price, 9, 10, &lowest), MathOverflow);
    REQUIRE(price <= highest, PriceTooHigh);
    REQUIRE(price >= lowest, PriceTooLow);
    REQUIRE(price, InvalidPrice); /* all that passes where the market has no price yet */
    return 0;
}

/* A trailing stop starts where its user says, or where the price now puts it. The latter needs a
 * price that is one: a stop that trails the price of an hour ago may trigger at once. */
static u64 first_stop(const struct place_order_args *args, const struct market *market, i64 time,
                      u64 *stop) {
    REQUIRE(args->trailing_distance >= 1 && args->trailing_distance <= TRAILING_DISTANCE_MAX,
            InvalidTrailingDistance);
    *stop = args->stop_price;
    if (*stop) return 0;
    TRY(require_fresh_price(market, time));
    return trailing_stop(args->side, market->fields->last_oracle_price, args->trailing_distance, stop);
}

/* What the order may be, in the order in which 0.1 looks; `stop` is the stop price to keep. */
static u64 check_terms(const struct place_order_args *args, const struct market *market, i64 time,
                       u64 *stop) {
    REQUIRE(args->size, InvalidSize);
    REQUIRE(args->size <= SIZE_MAX_UNITS, PositionTooLarge);
    REQUIRE(args->leverage && args->leverage <= market->fields->max_leverage, InvalidLeverage);
    REQUIRE(market->fields->is_active, MarketInactive);

    *stop = args->stop_price;
    switch (args->order_type) {
    case LIMIT:
        TRY(check_limit(args->price, market->fields->last_oracle_price));
        break;
    case STOP_LOSS:
    case TAKE_PROFIT:
    case STOP_LIMIT:
    case BRACKET:
        REQUIRE(args->stop_price, InvalidStopPrice);
        break;
    case TRAILING_STOP:
        TRY(first_stop(args, market, time, stop));
        break;
    default: /* stored as they are; nothing executes them */
        break;
    }

    REQUIRE(!is_expired(args->expires_at, time), OrderExpired);
    /* Not expired, so not before `time`: as unsigned numbers the difference cannot overflow. */
    REQUIRE(!args->expires_at || (u64)args->expires_at - (u64)time <= EXPIRY_MAX_S,
            OrderExpirationTooLong);
    return 0;
}

static void log_placed(const struct place_order_args *args) {
    struct line line;
    line_begin(&line, "Order placed: ");
    line_text(&line, ORDER_TYPES[args->order_type]);
    line_text(&line, " ");
    line_u64(&line, args->size);
    line_text(&line, " ");
    line_text(&line, SIDES[args->side]);
    line_text(&line, " at ");
    line_u64(&line, args->leverage);
    line_text(&line, "x leverage");
    line_log(&line);
}

u64 place_order(struct context *ctx) {
    TAKE_ARGS(ctx, struct place_order_args, args);
    if (args->order_type >= ORDER_TYPE_COUNT || args->side >= SIDE_COUNT ||
        args->time_in_force >= TIME_IN_FORCE_COUNT)
        return report_occurred(&E_InstructionDidNotDeserialize);

    struct market market;
    struct account *account, *user, *system;
    TRY(take_market(ctx, &market, WRITE));
    TRY(take_account(ctx, &account, "order", WRITE));
    TRY(take_account(ctx, &user, "user", WRITE | SIGN));
    TRY(take_system_program(ctx, &system));
    struct address address;
    order_address(&address, user->key, args->order_id);
    TRY(find_address(ctx, &address, account));

    /* The account first and the terms after, as 0.1 does: an order that is both taken and wrong is
     * told the same by both revisions. */
    TRY(create_account(ctx, user, account, &address, sizeof(struct order)));
    const i64 time = now();
    u64 stop;
    TRY(check_terms(args, &market, time, &stop));

    struct order *order = as_order(account); /* zeroed: Pending, nothing filled, no parent */
    order->discriminator = ACCOUNT_ORDER;
    order->user = *user->key;
    order->market = *market.account->key;
    order->order_type = args->order_type;
    order->side = args->side;
    order->size = args->size;
    order->price = args->price;
    order->stop_price = stop;
    order->trailing_distance = args->trailing_distance;
    order->leverage = args->leverage;
    order->created_at = time;
    order->expires_at = args->expires_at;
    order->bump = address.bump;
    order->hidden_size = args->hidden_size;
    order->display_size = args->display_size;
    order->time_in_force = args->time_in_force;
    order->target_price = args->target_price;
    order->twap_duration = args->twap_duration;
    order->twap_interval = args->twap_interval;
    sol_memcpy_(order->order_id, args->order_id, sizeof order->order_id);
    log_placed(args);
    return 0;
}
