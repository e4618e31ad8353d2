/* What one instruction was called with: its accounts, its arguments, the program's own address. */
#pragma once

#include "errors.h"

struct account {
    const char *name; /* as errors call it; set when an instruction takes the account */
    const struct pubkey *key;
    struct pubkey *owner;
    u64 *lamports;
    u64 *data_len; /* in place: the VM updates it when a callee allocates */
    u8 *data;
    u64 rent_epoch;
    bool signer;
    bool writable;
    bool executable;
};

enum { MAX_ACCOUNTS = 8 }; /* more than any instruction takes; the rest of a call's are skipped */

struct context {
    const struct pubkey *program;
    const u8 *args;
    u64 args_len;
    u64 account_count;
    u64 next_account;
    struct account accounts[MAX_ACCOUNTS];
};

extern const struct pubkey SYSTEM_PROGRAM;

/* Reads the VM's serialized input. The arguments are then all of the instruction's data; the entry
 * point takes the discriminator off. */
void parse_input(struct context *ctx, u8 *input);

enum { READ = 0, WRITE = 1, SIGN = 2 };

/* Takes the next account and checks what the instruction demands of it. */
[[nodiscard]] u64 take_account(struct context *ctx, struct account **account, const char *name,
                               u32 demands);
[[nodiscard]] u64 take_system_program(struct context *ctx, struct account **account);

[[nodiscard]] bool keys_equal(const struct pubkey *left, const struct pubkey *right);

/* The cluster's time, in unix seconds. */
[[nodiscard]] i64 now(void);
