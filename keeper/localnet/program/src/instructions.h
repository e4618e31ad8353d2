/* The program's instructions. Each returns 0, or the number of an error that it has logged. */
#pragma once

#include "context.h"

[[nodiscard]] u64 initialize_market(struct context *ctx);
[[nodiscard]] u64 update_oracle_price(struct context *ctx);

[[nodiscard]] u64 create_user_account(struct context *ctx);
[[nodiscard]] u64 deposit_collateral(struct context *ctx);

[[nodiscard]] u64 place_order(struct context *ctx);
[[nodiscard]] u64 cancel_order(struct context *ctx);
[[nodiscard]] u64 close_order(struct context *ctx);

[[nodiscard]] u64 execute_conditional_order(struct context *ctx);
[[nodiscard]] u64 update_trailing_stop(struct context *ctx);

/* The arguments as a packed structure over the instruction's data. As in Anchor, bytes that follow
 * them are not looked at. */
#define TAKE_ARGS(CTX, TYPE, NAME)                                                                 \
    if ((CTX)->args_len < sizeof(TYPE)) return report_occurred(&E_InstructionDidNotDeserialize);   \
    const TYPE *NAME = (const TYPE *)(CTX)->args
