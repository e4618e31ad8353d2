#include "address.h"

static void add_seed(struct address *address, const void *ptr, u64 len) {
    address->seeds[address->count++] = (struct slice){ptr, len};
}

#define BEGIN_WITH(ADDRESS, PREFIX)                                                                \
    do {                                                                                           \
        (ADDRESS)->count = 0;                                                                      \
        add_seed(ADDRESS, PREFIX, sizeof PREFIX - 1);                                              \
    } while (0)

void market_address(struct address *address, struct slice base_asset, struct slice quote_asset) {
    BEGIN_WITH(address, "market");
    add_seed(address, base_asset.ptr, base_asset.len);
    add_seed(address, quote_asset.ptr, quote_asset.len);
}

void user_account_address(struct address *address, const struct pubkey *authority, const u8 index[2]) {
    BEGIN_WITH(address, "user_account");
    add_seed(address, authority, sizeof *authority);
    add_seed(address, index, 2);
}

void order_address(struct address *address, const struct pubkey *user, const u8 order_id[8]) {
    BEGIN_WITH(address, "order");
    add_seed(address, user, sizeof *user);
    add_seed(address, order_id, 8);
}

void position_address(struct address *address, const struct pubkey *order) {
    BEGIN_WITH(address, "position");
    add_seed(address, order, sizeof *order);
}

static u64 compare(const struct account *account, const struct pubkey *expected) {
    if (keys_equal(account->key, expected)) return 0;
    return report_account(&E_ConstraintSeeds, account->name, account->key, expected);
}

u64 check_address(const struct context *ctx, struct address *address, u8 bump,
                  const struct account *account) {
    struct pubkey expected;
    address->bump = bump;
    address->seeds[address->count] = (struct slice){&address->bump, 1};
    if (sol_create_program_address(address->seeds, address->count + 1, ctx->program, &expected))
        return report_account(&E_ConstraintSeeds, account->name, nullptr, nullptr);
    return compare(account, &expected);
}

u64 find_address(const struct context *ctx, struct address *address, const struct account *account) {
    struct pubkey expected;
    if (sol_try_find_program_address(address->seeds, address->count, ctx->program, &expected,
                                     &address->bump))
        return report_account(&E_ConstraintSeeds, account->name, nullptr, nullptr);
    address->seeds[address->count] = (struct slice){&address->bump, 1};
    return compare(account, &expected);
}
