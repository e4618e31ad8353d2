/* Creating and closing the program's accounts. */
#pragma once

#include "address.h"

/* Makes `account`, at `address`, a zeroed account of this program with `space` bytes, rent-exempt at
 * the payer's expense. An address that somebody has sent lamports to is topped up and taken all the
 * same; one that is in use fails in the system program with its error 0. */
[[nodiscard]] u64 create_account(const struct context *ctx, const struct account *payer,
                                 struct account *account, const struct address *address, u64 space);

/* Gives all lamports to `receiver`; the runtime then forgets the account. */
[[nodiscard]] u64 close_account(struct account *account, struct account *receiver);
