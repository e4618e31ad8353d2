#include "system.h"

#include "math.h"

/* The system program's instructions, as bincode writes them: a u32 index, then the fields. */
enum { CREATE_ACCOUNT = 0, ASSIGN = 1, TRANSFER = 2, ALLOCATE = 8 };

struct [[gnu::packed]] create_account_data {
    u32 index;
    u64 lamports;
    u64 space;
    struct pubkey owner;
};
struct [[gnu::packed]] assign_data {
    u32 index;
    struct pubkey owner;
};
struct [[gnu::packed]] amount_data { /* Transfer's lamports, Allocate's space */
    u32 index;
    u64 amount;
};

/* One call of the system program: the payer and the account that is being made, or only the latter. */
struct call {
    const struct account *accounts[2];
    u64 account_count;
    struct slice signer; /* the seeds for which the program signs */
};

static void invoke(const struct call *call, const void *data, u64 data_len) {
    struct account_meta metas[2];
    struct account_info infos[2];
    for (u64 i = 0; i < call->account_count; i++) {
        const struct account *account = call->accounts[i];
        metas[i] = (struct account_meta){account->key, .writable = true, .signer = true};
        infos[i] = (struct account_info){
            .key = account->key,
            .lamports = account->lamports,
            .data_len = *account->data_len,
            .data = account->data,
            .owner = account->owner,
            .rent_epoch = account->rent_epoch,
            .signer = account->signer,
            .writable = account->writable,
            .executable = account->executable,
        };
    }
    const struct instruction instruction = {
        .program = &SYSTEM_PROGRAM,
        .accounts = metas,
        .account_count = call->account_count,
        .data = data,
        .data_len = data_len,
    };
    sol_invoke_signed_c(&instruction, infos, call->account_count, &call->signer, 1);
}

/* (128 + space) * lamports_per_byte_year * threshold, in integers: a double is a 53-bit number
 * times a power of two. 0 where the result fits no u64 or comes to nothing: neither is a rent. */
static u64 minimum_balance(u64 space) {
    enum { ACCOUNT_OVERHEAD = 128, FRACTION_BITS = 52, EXPONENT_BIAS = 1023 };
    struct rent rent;
    sol_get_rent_sysvar(&rent);
    const u64 one = 1ull << FRACTION_BITS;
    const u64 exponent = rent.exemption_threshold >> FRACTION_BITS & 0x7ff;
    const u64 significand = one | (rent.exemption_threshold & (one - 1));
    u64 yearly, high, low;
    if (!checked_mul(ACCOUNT_OVERHEAD + space, rent.lamports_per_byte_year, &yearly)) return 0;
    wide_mul(yearly, significand, &high, &low);
    /* The product stands 52 bits too far left for a threshold in [1, 2), fewer above, more below. */
    const u64 shift = FRACTION_BITS + EXPONENT_BIAS - exponent;
    if (shift == 0 || shift >= 64 || high >> shift) return 0;
    return high << (64 - shift) | low >> shift;
}

u64 create_account(const struct context *ctx, const struct account *payer, struct account *account,
                   const struct address *address, u64 space) {
    const u64 needed = minimum_balance(space);
    const u64 present = *account->lamports;
    REQUIRE(needed, MathOverflow);

    const struct slice signer = {address->seeds, address->count + 1};
    const struct call both = {{payer, account}, 2, signer};
    if (!present) {
        const struct create_account_data create = {CREATE_ACCOUNT, needed, space, *ctx->program};
        invoke(&both, &create, sizeof create);
        return 0;
    }
    /* CreateAccount refuses an address that holds lamports, and anyone can send one to an address
     * that they foresee. Its three parts together do not. */
    const struct call alone = {{account}, 1, signer};
    if (present < needed) {
        const struct amount_data transfer = {TRANSFER, needed - present};
        invoke(&both, &transfer, sizeof transfer);
    }
    const struct amount_data allocate = {ALLOCATE, space};
    invoke(&alone, &allocate, sizeof allocate);
    const struct assign_data assign = {ASSIGN, *ctx->program};
    invoke(&alone, &assign, sizeof assign);
    return 0;
}

u64 close_account(struct account *account, struct account *receiver) {
    u64 sum;
    REQUIRE(checked_add(*receiver->lamports, *account->lamports, &sum), MathOverflow);
    *receiver->lamports = sum;
    *account->lamports = 0;
    /* Emptied and handed back, so that an instruction later in the transaction that pays lamports in
     * again revives an empty account, not an order. */
    *account->data_len = 0;
    *account->owner = SYSTEM_PROGRAM;
    return 0;
}
