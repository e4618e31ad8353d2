#include "state.h"

#include "bytes.h"
#include "discriminators.h"

enum { MAX_PRICE_AGE_S = 300 };

/* Anchor's checks of an account that must hold one of the program's types, in its order. */
static u64 check_type(const struct context *ctx, const struct account *account, u64 discriminator) {
    if (keys_equal(account->owner, &SYSTEM_PROGRAM) && !*account->lamports)
        return report_account(&E_AccountNotInitialized, account->name, nullptr, nullptr);
    if (!keys_equal(account->owner, ctx->program))
        return report_account(&E_AccountOwnedByWrongProgram, account->name, account->owner,
                              ctx->program);
    if (*account->data_len < sizeof discriminator)
        return report_account(&E_AccountDiscriminatorNotFound, account->name, nullptr, nullptr);
    if (read_u64(account->data) != discriminator)
        return report_account(&E_AccountDiscriminatorMismatch, account->name, nullptr, nullptr);
    return 0;
}

static u64 malformed(const struct account *account) {
    return report_account(&E_AccountDidNotDeserialize, account->name, nullptr, nullptr);
}

static bool parse_market(const struct account *account, struct market *market) {
    struct reader reader = {account->data + sizeof(u64), *account->data_len - sizeof(u64)};
    if (!read_string(&reader, &market->base_asset)) return false;
    if (!read_string(&reader, &market->quote_asset)) return false;
    market->account = account;
    market->fields = (struct market_fields *)read_bytes(&reader, sizeof *market->fields);
    return market->fields && market->fields->is_active <= 1;
}

u64 take_market(struct context *ctx, struct market *market, u32 demands) {
    struct account *account;
    struct address address;
    TRY(take_account(ctx, &account, "market", demands));
    TRY(check_type(ctx, account, ACCOUNT_MARKET));
    if (!parse_market(account, market)) return malformed(account);
    market_address(&address, market->base_asset, market->quote_asset);
    return check_address(ctx, &address, market->fields->bump, account);
}

u64 take_order(struct context *ctx, struct account **account) {
    struct address address;
    TRY(take_account(ctx, account, "order", WRITE));
    TRY(check_type(ctx, *account, ACCOUNT_ORDER));
    const struct order *order = as_order(*account);
    if (*(*account)->data_len < sizeof *order || order->order_type >= ORDER_TYPE_COUNT ||
        order->side >= SIDE_COUNT || order->status >= ORDER_STATUS_COUNT ||
        order->time_in_force >= TIME_IN_FORCE_COUNT || order->parent_order != 0)
        return malformed(*account);
    order_address(&address, &order->user, order->order_id);
    return check_address(ctx, &address, order->bump, *account);
}

u64 take_order_of_market(struct context *ctx, struct account **account,
                         const struct market *market) {
    TRY(take_order(ctx, account));
    const struct pubkey *own = &as_order(*account)->market;
    if (!keys_equal(own, market->account->key))
        return report_account(&E_ConstraintHasOne, (*account)->name, own, market->account->key);
    return 0;
}

u64 load_user_account(const struct context *ctx, const struct account *account) {
    TRY(check_type(ctx, account, ACCOUNT_USER_ACCOUNT));
    if (*account->data_len < sizeof(struct user_account) || as_user_account(account)->is_active > 1)
        return malformed(account);
    return 0;
}

static u8 *write_string(u8 *at, struct slice text) {
    ((struct unaligned_u32 *)at)->value = (u32)text.len;
    sol_memcpy_(at + sizeof(u32), text.ptr, text.len);
    return at + sizeof(u32) + text.len;
}

u64 lay_out_market(struct account *account, struct market *market) {
    const u64 size = sizeof(u64) + 2 * sizeof(u32) + market->base_asset.len +
                     market->quote_asset.len + sizeof *market->fields;
    if (size > *account->data_len)
        return report_account(&E_AccountDidNotSerialize, account->name, nullptr, nullptr);
    ((struct unaligned_u64 *)account->data)->value = ACCOUNT_MARKET;
    u8 *at = write_string(account->data + sizeof(u64), market->base_asset);
    market->account = account;
    market->fields = (struct market_fields *)write_string(at, market->quote_asset);
    return 0;
}

u64 require_fresh_price(const struct market *market, i64 time) {
    const i64 updated = market->fields->last_oracle_update;
    /* As unsigned numbers the difference cannot overflow, whatever the account says. */
    REQUIRE(time <= updated || (u64)time - (u64)updated <= MAX_PRICE_AGE_S, PriceStale);
    return 0;
}

u64 require_tradable(const struct market *market, i64 time) {
    REQUIRE(market->fields->is_active, MarketInactive);
    return require_fresh_price(market, time);
}
