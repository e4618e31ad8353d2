#include "bytes.h"
#include "discriminators.h"
#include "instructions.h"
#include "log.h"

static u64 dispatch(struct context *ctx) {
    u64 discriminator;
    if (ctx->args_len < sizeof discriminator)
        return report_occurred(&E_InstructionFallbackNotFound);
    discriminator = read_u64(ctx->args);
    ctx->args += sizeof discriminator;
    ctx->args_len -= sizeof discriminator;

    switch (discriminator) {
    case IX_INITIALIZE_MARKET:
        log_text("Instruction: InitializeMarket");
        return initialize_market(ctx);
    case IX_UPDATE_ORACLE_PRICE:
        log_text("Instruction: UpdateOraclePrice");
        return update_oracle_price(ctx);
    case IX_CREATE_USER_ACCOUNT:
        log_text("Instruction: CreateUserAccount");
        return create_user_account(ctx);
    case IX_DEPOSIT_COLLATERAL:
        log_text("Instruction: DepositCollateral");
        return deposit_collateral(ctx);
    case IX_PLACE_ORDER:
        log_text("Instruction: PlaceOrder");
        return place_order(ctx);
    case IX_CANCEL_ORDER:
        log_text("Instruction: CancelOrder");
        return cancel_order(ctx);
    case IX_CLOSE_ORDER:
        log_text("Instruction: CloseOrder");
        return close_order(ctx);
    case IX_EXECUTE_CONDITIONAL_ORDER:
        log_text("Instruction: ExecuteConditionalOrder");
        return execute_conditional_order(ctx);
    case IX_UPDATE_TRAILING_STOP:
        log_text("Instruction: UpdateTrailingStop");
        return update_trailing_stop(ctx);
    default:
        return report_occurred(&E_InstructionFallbackNotFound);
    }
}

u64 entrypoint(u8 *input) {
    struct context ctx;
    parse_input(&ctx, input);
    return dispatch(&ctx);
}
