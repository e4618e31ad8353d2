/* What the virtual machine offers: the C ABI of the syscalls that this program calls.
 *
 * A function declared here and defined nowhere becomes a syscall at link time, by its name. All of
 * them abort the transaction on a bad pointer, so only the results that a program can act on are
 * looked at. */
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t i64;

struct pubkey {
    u8 bytes[32];
};

/* A pointer and a length, as the VM reads it: a seed, a list of seeds, a piece of an event. */
struct slice {
    const void *ptr;
    u64 len;
};

struct clock {
    u64 slot;
    i64 epoch_start_timestamp;
    u64 epoch;
    u64 leader_schedule_epoch;
    i64 unix_timestamp;
};

struct rent {
    u64 lamports_per_byte_year;
    u64 exemption_threshold; /* the bits of an IEEE 754 double, in years: the VM has no floats */
    u8 burn_percent;
};

struct account_meta {
    const struct pubkey *key;
    bool writable;
    bool signer;
};

struct instruction {
    const struct pubkey *program;
    const struct account_meta *accounts;
    u64 account_count;
    const void *data;
    u64 data_len;
};

struct account_info {
    const struct pubkey *key;
    u64 *lamports;
    u64 data_len;
    u8 *data;
    const struct pubkey *owner;
    u64 rent_epoch;
    bool signer;
    bool writable;
    bool executable;
};

u64 sol_log_(const char *text, u64 len);
u64 sol_log_pubkey(const struct pubkey *key);
u64 sol_log_data(const struct slice *pieces, u64 count);

u64 sol_memcpy_(void *to, const void *from, u64 len);
u64 sol_memcmp_(const void *left, const void *right, u64 len, int *result);

u64 sol_get_clock_sysvar(struct clock *clock);
u64 sol_get_rent_sysvar(struct rent *rent);

/* The bump is the last of the seeds. Not 0: the seeds give no address. */
u64 sol_create_program_address(const struct slice *seeds, u64 count, const struct pubkey *program,
                               struct pubkey *address);
u64 sol_try_find_program_address(const struct slice *seeds, u64 count, const struct pubkey *program,
                                 struct pubkey *address, u8 *bump);

/* `signers` is a list of seed lists. A failing callee aborts the caller: this returns 0 or never. */
u64 sol_invoke_signed_c(const struct instruction *instruction, const struct account_info *accounts,
                        u64 account_count, const struct slice *signers, u64 signer_count);
