/* Program-derived addresses: the seeds of each kind of account, and the check that an account lies
 * where its seeds say. */
#pragma once

#include "context.h"

enum { MAX_SEEDS = 4 }; /* with the bump, which is always the last */

struct address {
    struct slice seeds[MAX_SEEDS];
    u64 count; /* without the bump */
    u8 bump;
};

/* What the seeds point at must outlive the address. */
void market_address(struct address *address, struct slice base_asset, struct slice quote_asset);
void user_account_address(struct address *address, const struct pubkey *authority, const u8 index[2]);
void order_address(struct address *address, const struct pubkey *user, const u8 order_id[8]);
void position_address(struct address *address, const struct pubkey *order);

/* For an account that this program created: its bump is known, which saves the search. */
[[nodiscard]] u64 check_address(const struct context *ctx, struct address *address, u8 bump,
                                const struct account *account);

/* For an account that may not exist yet: finds the bump and keeps it in the address. */
[[nodiscard]] u64 find_address(const struct context *ctx, struct address *address,
                               const struct account *account);
