/* create_user_account, deposit_collateral */
#include "discriminators.h"
#include "instructions.h"
#include "log.h"
#include "math.h"
#include "state.h"
#include "system.h"

/* What 0.1 gives a new account. */
enum { MAX_POSITIONS = 50, FULL_HEALTH_BPS = 10'000, LIQUIDATION_THRESHOLD_BPS = 2'000, MAX_LEVERAGE = 1'000 };

struct [[gnu::packed]] create_user_account_args {
    u8 account_index[2];
};

u64 create_user_account(struct context *ctx) {
    TAKE_ARGS(ctx, struct create_user_account_args, args);
    struct account *account, *authority, *system;
    TRY(take_account(ctx, &account, "user_account", WRITE));
    TRY(take_account(ctx, &authority, "authority", WRITE | SIGN));
    TRY(take_system_program(ctx, &system));
    struct address address;
    user_account_address(&address, authority->key, args->account_index);
    TRY(find_address(ctx, &address, account));
    TRY(create_account(ctx, authority, account, &address, sizeof(struct user_account)));

    const i64 time = now();
    struct user_account *user = as_user_account(account);
    user->discriminator = ACCOUNT_USER_ACCOUNT;
    user->authority = *authority->key;
    sol_memcpy_(user->account_index, args->account_index, sizeof user->account_index);
    user->max_positions = MAX_POSITIONS;
    user->account_health = FULL_HEALTH_BPS;
    user->liquidation_threshold = LIQUIDATION_THRESHOLD_BPS;
    user->max_leverage = MAX_LEVERAGE;
    user->created_at = time;
    user->last_activity = time;
    user->is_active = true;
    user->bump = address.bump;

    struct line line;
    line_begin(&line, "User account created: ");
    line_u64(&line, args->account_index[0] | (u64)args->account_index[1] << 8);
    line_text(&line, " for user ");
    line_key(&line, authority->key);
    line_log(&line);
    return 0;
}

struct [[gnu::packed]] deposit_collateral_args {
    u64 amount;
};

u64 deposit_collateral(struct context *ctx) {
    TAKE_ARGS(ctx, struct deposit_collateral_args, args);
    struct account *account, *authority, *system;
    TRY(take_account(ctx, &account, "user_account", WRITE));
    TRY(load_user_account(ctx, account));
    struct user_account *user = as_user_account(account);
    struct address address;
    user_account_address(&address, &user->authority, user->account_index);
    TRY(check_address(ctx, &address, user->bump, account));
    TRY(take_account(ctx, &authority, "authority", WRITE | SIGN));
    TRY(take_system_program(ctx, &system));
    if (!keys_equal(&user->authority, authority->key))
        return report_account(&E_ConstraintHasOne, account->name, &user->authority, authority->key);

    /* A credit in the books and no more: there is no vault behind this reference program. */
    u64 collateral, available;
    REQUIRE(args->amount, InvalidSize);
    REQUIRE(checked_add(user->total_collateral, args->amount, &collateral), MathOverflow);
    REQUIRE(checked_add(user->available_margin, args->amount, &available), MathOverflow);
    user->total_collateral = collateral;
    user->available_margin = available;
    user->last_activity = now();

    struct line line;
    line_begin(&line, "Collateral deposited: ");
    line_u64(&line, args->amount);
    line_text(&line, " for user ");
    line_key(&line, authority->key);
    line_log(&line);
    return 0;
}
