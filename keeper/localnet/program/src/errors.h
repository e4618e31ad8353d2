/* Every error that the program returns, and the two forms in which Anchor reports one.
 *
 * An instruction returns 0 or the number of an error; the VM undoes everything that a failed
 * instruction did. The log names the error, because a number alone says little in a transaction of
 * several programs. */
#pragma once

#include "syscalls.h"

struct error {
    u32 number;
    char name[32];
    char message[76]; /* arrays, not pointers: the linker has no relocations inside data */
};

/* Anchor's own, below 6000; the program's as deployed in revision 0.1, whose gaps are numbers that
 * nobody has seen; those that 0.2 adds, from 6100 so that they cannot meet an unseen one of 0.1. */
#define ERRORS(X)                                                                                  \
    X(InstructionFallbackNotFound, 101, "Fallback functions are not supported")                    \
    X(InstructionDidNotDeserialize, 102, "The program could not deserialize the given instruction") \
    X(ConstraintMut, 2000, "A mut constraint was violated")                                        \
    X(ConstraintHasOne, 2001, "A has one constraint was violated")                                 \
    X(ConstraintSeeds, 2006, "A seeds constraint was violated")                                    \
    X(AccountDiscriminatorNotFound, 3001, "No discriminator was found on the account")             \
    X(AccountDiscriminatorMismatch, 3002, "Account discriminator did not match what was expected") \
    X(AccountDidNotDeserialize, 3003, "Failed to deserialize the account")                         \
    X(AccountDidNotSerialize, 3004, "Failed to serialize the account")                             \
    X(AccountNotEnoughKeys, 3005, "Not enough account keys given to the instruction")              \
    X(AccountOwnedByWrongProgram, 3007,                                                            \
      "The given account is owned by a different program than expected")                           \
    X(InvalidProgramId, 3008, "Program ID was not as expected")                                    \
    X(AccountNotSigner, 3010, "The given account did not sign")                                    \
    X(AccountNotInitialized, 3012, "The program expected this account to be already initialized")  \
    X(InvalidLeverage, 6000, "Invalid leverage amount")                                            \
    X(InvalidSize, 6001, "Invalid position size")                                                  \
    X(InsufficientCollateral, 6002, "Insufficient collateral")                                     \
    X(MaxPositionsReached, 6003, "Maximum positions reached")                                      \
    X(InvalidPrice, 6007, "Invalid price")                                                         \
    X(InvalidStopPrice, 6008, "Invalid stop price")                                                \
    X(InvalidTrailingDistance, 6009, "Invalid trailing distance")                                  \
    X(OrderNotPending, 6010, "Order is not pending")                                               \
    X(UnauthorizedUser, 6011, "Unauthorized user")                                                 \
    X(ConditionNotMet, 6013, "Condition not met for execution")                                    \
    X(MarketInactive, 6016, "Market is inactive")                                                  \
    X(PositionTooLarge, 6017, "Position too large")                                                \
    X(PriceStale, 6018, "Price is stale")                                                          \
    X(PriceTooHigh, 6019, "Price too high")                                                        \
    X(PriceTooLow, 6020, "Price too low")                                                          \
    X(OrderExpired, 6022, "Order expired")                                                         \
    X(OrderExpirationTooLong, 6023, "Order expiration too long")                                   \
    X(InvalidOrderType, 6100, "Invalid order type for this instruction")                           \
    X(OrderStillPending, 6101, "Order is still pending")                                           \
    X(MathOverflow, 6102, "Arithmetic overflow")                                                   \
    X(UserAccountInactive, 6103, "User account is inactive")

#define DECLARE(NAME, NUMBER, MESSAGE) extern const struct error E_##NAME;
ERRORS(DECLARE)
#undef DECLARE

/* A built-in error of the runtime is its index in the upper half of the result. */
#define MAX_SEED_LENGTH_EXCEEDED (13ull << 32)

/* "AnchorError thrown in FILE:LINE." Only the file's name, so that the built bytes do not depend on
 * where the source lies. */
#define THROW(NAME) report_thrown(&E_##NAME, __FILE_NAME__, __LINE__)
#define REQUIRE(CONDITION, NAME)                                                                   \
    do {                                                                                           \
        if (!(CONDITION)) return THROW(NAME);                                                      \
    } while (0)
#define TRY(CALL)                                                                                  \
    do {                                                                                           \
        const u64 error_ = (CALL);                                                                 \
        if (error_) return error_;                                                                 \
    } while (0)

[[nodiscard]] u64 report_thrown(const struct error *error, const char *file, u64 line);

/* "AnchorError occurred." Before any account is known. */
[[nodiscard]] u64 report_occurred(const struct error *error);

/* "AnchorError caused by account: NAME." The two keys are those that should have been equal; both
 * null where the failed check compares none. */
[[nodiscard]] u64 report_account(const struct error *error, const char *account,
                                 const struct pubkey *left, const struct pubkey *right);
