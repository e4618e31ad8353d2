/* The accounts, byte for byte as Borsh writes them, and how they are loaded.
 *
 * A structure here lies over an account's data: it is packed, and the VM is little-endian. Only the
 * market needs more, because its two strings come before everything else. */
#pragma once

#include "address.h"
#include "enums.h"

enum {
    MARKET_SPACE = 175, /* as 0.1 allocates it: room for 56 bytes of names */
    ASSET_MAX = 32,     /* an asset's name is a seed, and a seed has at most 32 bytes */
};

struct [[gnu::packed]] market_fields {
    u64 base_reserve;
    u64 quote_reserve;
    u64 k; /* 0, as in 0.1: the product of the reserves fits no u64 */
    i64 funding_rate;
    i64 last_funding_time;
    i64 funding_interval;
    struct pubkey authority;
    u8 max_leverage;
    u16 initial_margin_ratio;     /* basis points, as is the next */
    u16 maintenance_margin_ratio;
    u8 is_active;
    u64 last_oracle_price; /* 0 until the first update */
    i64 last_oracle_update;
    u8 bump;
};

struct market {
    const struct account *account;
    struct slice base_asset;
    struct slice quote_asset;
    struct market_fields *fields;
};

struct [[gnu::packed]] order {
    u64 discriminator;
    struct pubkey user;
    struct pubkey market;
    u8 order_type;
    u8 side;
    u64 size;
    u64 price;
    u64 stop_price;
    u64 trailing_distance;
    u8 leverage;
    u8 status;
    i64 created_at;
    i64 expires_at; /* 0: never */
    u64 filled_size;
    u8 bump;
    u64 hidden_size;
    u64 display_size;
    u8 time_in_force;
    u64 target_price;
    u8 parent_order; /* an option's tag: always 0, None, so nothing follows it */
    u64 twap_duration;
    u64 twap_interval;
    u8 order_id[8]; /* bytes: the program uses it as a seed and never as a number */
};
static_assert(offsetof(struct order, order_id) == 175 && sizeof(struct order) == 183);

struct [[gnu::packed]] user_account {
    u64 discriminator;
    struct pubkey authority;
    u8 account_index[2]; /* bytes, like order_id */
    u64 total_collateral;
    u16 total_positions;
    u16 total_orders; /* 0, as in 0.1: place_order does not take the user account */
    u16 max_positions;
    u64 initial_margin_requirement;
    u64 maintenance_margin_requirement;
    u64 available_margin;
    u16 account_health;
    u64 liquidation_price;
    u16 liquidation_threshold;
    u16 max_leverage;
    i64 total_funding_paid;
    i64 total_funding_received;
    u64 total_fees_paid;
    u64 total_rebates_earned;
    i64 created_at;
    i64 last_activity;
    u8 is_active;
    u8 bump;
};
static_assert(sizeof(struct user_account) == 144);

struct [[gnu::packed]] position {
    u64 discriminator;
    struct pubkey user_account;
    struct pubkey user;
    struct pubkey market;
    u16 position_index; /* how many positions the user account had before this one */
    u8 side;
    u8 status;
    u64 size;
    u64 entry_price;
    u64 current_price;
    u64 liquidation_price;
    i64 unrealized_pnl;
    i64 realized_pnl;
    i64 funding_rate;
    i64 last_funding_update;
    i64 total_funding_paid;
    u64 initial_margin;
    u64 maintenance_margin;
    u16 leverage;
    u64 margin;
    u64 total_collateral_value;
    struct pubkey collateral_accounts[5];
    i64 opened_at;
    i64 closed_at;
    i64 last_updated;
    i64 created_at;
    u8 bump;
};
static_assert(sizeof(struct position) == 407);

/* Each takes the next account and checks its owner, discriminator, form and address. An order is
 * always taken to be written. */
[[nodiscard]] u64 take_market(struct context *ctx, struct market *market, u32 demands);
[[nodiscard]] u64 take_order(struct context *ctx, struct account **account);
[[nodiscard]] u64 take_order_of_market(struct context *ctx, struct account **account,
                                       const struct market *market);

/* For an account that was taken already. Does not check the address. */
[[nodiscard]] u64 load_user_account(const struct context *ctx, const struct account *account);

/* Lays the fields behind the names in fresh data. The names are at most ASSET_MAX bytes each. */
[[nodiscard]] u64 lay_out_market(struct account *account, struct market *market);

static inline struct order *as_order(const struct account *account) {
    return (struct order *)account->data;
}
static inline struct user_account *as_user_account(const struct account *account) {
    return (struct user_account *)account->data;
}
static inline struct position *as_position(const struct account *account) {
    return (struct position *)account->data;
}

/* One rule for every instruction: the second that `expires_at` names still belongs to the order. */
[[nodiscard]] static inline bool is_expired(i64 expires_at, i64 time) {
    return expires_at != 0 && time > expires_at;
}

/* Refuses a market that is not active, or whose price is older than 300 seconds. */
[[nodiscard]] u64 require_tradable(const struct market *market, i64 time);
[[nodiscard]] u64 require_fresh_price(const struct market *market, i64 time);
