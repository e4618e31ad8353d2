/* initialize_market, update_oracle_price */
#include "bytes.h"
#include "instructions.h"
#include "log.h"
#include "math.h"
#include "state.h"
#include "system.h"

enum { INITIAL_BASE_RESERVE = 1'000'000, FUNDING_INTERVAL_S = 3600 };

struct [[gnu::packed]] market_args { /* after the two names */
    u64 initial_price;
    u8 max_leverage;
    u16 initial_margin_ratio;
    u16 maintenance_margin_ratio;
};

static void line_name(struct line *line, const struct market *market) {
    line_bytes(line, market->base_asset.ptr, market->base_asset.len);
    line_text(line, "/");
    line_bytes(line, market->quote_asset.ptr, market->quote_asset.len);
}

u64 initialize_market(struct context *ctx) {
    struct market market;
    struct reader reader = {ctx->args, ctx->args_len};
    const struct market_args *args;
    if (!read_string(&reader, &market.base_asset) || !read_string(&reader, &market.quote_asset) ||
        !(args = read_bytes(&reader, sizeof *args)))
        return report_occurred(&E_InstructionDidNotDeserialize);
    if (market.base_asset.len > ASSET_MAX || market.quote_asset.len > ASSET_MAX) {
        log_text("An asset's name is a seed of the market's address: at most 32 bytes");
        return MAX_SEED_LENGTH_EXCEEDED;
    }

    struct account *account, *authority, *system;
    TRY(take_account(ctx, &account, "market", WRITE));
    TRY(take_account(ctx, &authority, "authority", WRITE | SIGN));
    TRY(take_system_program(ctx, &system));
    struct address address;
    market_address(&address, market.base_asset, market.quote_asset);
    TRY(find_address(ctx, &address, account));
    TRY(create_account(ctx, authority, account, &address, MARKET_SPACE));

    u64 quote_reserve;
    REQUIRE(args->initial_price, InvalidPrice);
    REQUIRE(args->max_leverage, InvalidLeverage);
    REQUIRE(checked_mul(INITIAL_BASE_RESERVE, args->initial_price, &quote_reserve), MathOverflow);

    TRY(lay_out_market(account, &market));
    struct market_fields *fields = market.fields;
    fields->base_reserve = INITIAL_BASE_RESERVE;
    fields->quote_reserve = quote_reserve;
    fields->last_funding_time = now();
    fields->funding_interval = FUNDING_INTERVAL_S;
    fields->authority = *authority->key;
    fields->max_leverage = args->max_leverage;
    fields->initial_margin_ratio = args->initial_margin_ratio;
    fields->maintenance_margin_ratio = args->maintenance_margin_ratio;
    fields->is_active = true;
    /* The price and its time stay 0: a price comes from the oracle's authority alone, and one of the
     * year 1970 is stale to every check. */
    fields->bump = address.bump;

    struct line line;
    line_begin(&line, "Market initialized: ");
    line_name(&line, &market);
    line_text(&line, " with max leverage ");
    line_u64(&line, args->max_leverage);
    line_text(&line, "x");
    line_log(&line);
    return 0;
}

struct [[gnu::packed]] update_oracle_price_args {
    u64 new_price;
};

u64 update_oracle_price(struct context *ctx) {
    TAKE_ARGS(ctx, struct update_oracle_price_args, args);
    struct market market;
    struct account *price_feed, *authority;
    TRY(take_market(ctx, &market, WRITE));
    TRY(take_account(ctx, &price_feed, "price_feed", READ));
    TRY(take_account(ctx, &authority, "authority", SIGN));
    if (!keys_equal(&market.fields->authority, authority->key))
        return report_account(&E_ConstraintHasOne, market.account->name, &market.fields->authority,
                              authority->key);

    REQUIRE(args->new_price, InvalidPrice);
    market.fields->last_oracle_price = args->new_price;
    market.fields->last_oracle_update = now();

    struct line line;
    line_begin(&line, "Oracle price updated: ");
    line_u64(&line, args->new_price);
    line_text(&line, " for ");
    line_name(&line, &market);
    line_log(&line);
    return 0;
}
