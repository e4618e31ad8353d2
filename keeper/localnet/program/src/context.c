#include "context.h"

/* The serialized input, version 1: u64 count of accounts; the accounts; u64 length of the instruction
 * data; the data; the program's address. An account is either eight bytes that repeat an earlier one,
 * or a head, its data with room to grow, padding to eight bytes, and a u64 rent epoch. */
struct account_head {
    u8 repeats; /* NOT_REPEATED, or the index of the account that this one is again */
    u8 signer;
    u8 writable;
    u8 executable;
    u8 padding[4];
    struct pubkey key;
    struct pubkey owner;
    u64 lamports;
    u64 data_len;
};
static_assert(sizeof(struct account_head) == 88);

enum { NOT_REPEATED = 0xff, REPEATED_SIZE = 8, GROWTH = 10240 };

const struct pubkey SYSTEM_PROGRAM = {{0}};

static u8 *parse_account(struct account *account, struct account_head *head) {
    u8 *data = (u8 *)(head + 1);
    u8 *end = data + ((head->data_len + GROWTH + 7) & ~7ull);
    *account = (struct account){
        .key = &head->key,
        .owner = &head->owner,
        .lamports = &head->lamports,
        .data_len = &head->data_len,
        .data = data,
        .rent_epoch = *(const u64 *)end,
        .signer = head->signer,
        .writable = head->writable,
        .executable = head->executable,
    };
    return end + sizeof(u64);
}

void parse_input(struct context *ctx, u8 *input) {
    const u64 count = *(const u64 *)input;
    u8 *at = input + sizeof(u64);
    ctx->next_account = 0;
    ctx->account_count = count < MAX_ACCOUNTS ? count : MAX_ACCOUNTS;
    for (u64 i = 0; i < count; i++) {
        struct account_head *head = (struct account_head *)at;
        const bool kept = i < MAX_ACCOUNTS;
        if (head->repeats != NOT_REPEATED) {
            /* What a kept account repeats came before it, so it is kept too. */
            if (kept) ctx->accounts[i] = ctx->accounts[head->repeats];
            at += REPEATED_SIZE;
        } else {
            struct account skipped;
            at = parse_account(kept ? &ctx->accounts[i] : &skipped, head);
        }
    }
    ctx->args_len = *(const u64 *)at;
    ctx->args = at + sizeof(u64);
    ctx->program = (const struct pubkey *)(ctx->args + ctx->args_len);
}

u64 take_account(struct context *ctx, struct account **account, const char *name, u32 demands) {
    if (ctx->next_account == ctx->account_count)
        return report_account(&E_AccountNotEnoughKeys, name, nullptr, nullptr);
    struct account *taken = &ctx->accounts[ctx->next_account++];
    taken->name = name;
    if (demands & SIGN && !taken->signer)
        return report_account(&E_AccountNotSigner, name, nullptr, nullptr);
    if (demands & WRITE && !taken->writable)
        return report_account(&E_ConstraintMut, name, nullptr, nullptr);
    *account = taken;
    return 0;
}

u64 take_system_program(struct context *ctx, struct account **account) {
    TRY(take_account(ctx, account, "system_program", READ));
    if (!keys_equal((*account)->key, &SYSTEM_PROGRAM))
        return report_account(&E_InvalidProgramId, (*account)->name, (*account)->key,
                              &SYSTEM_PROGRAM);
    return 0;
}

bool keys_equal(const struct pubkey *left, const struct pubkey *right) {
    int difference;
    sol_memcmp_(left, right, sizeof *left, &difference);
    return difference == 0;
}

i64 now(void) {
    struct clock clock;
    sol_get_clock_sysvar(&clock);
    return clock.unix_timestamp;
}
