#include "math.h"

static const u64 LOW_HALF = 0xffffffff;

void wide_mul(u64 a, u64 b, u64 *high, u64 *low) {
    const u64 a0 = a & LOW_HALF, a1 = a >> 32;
    const u64 b0 = b & LOW_HALF, b1 = b >> 32;
    const u64 p00 = a0 * b0, p01 = a0 * b1, p10 = a1 * b0, p11 = a1 * b1;
    const u64 middle = (p00 >> 32) + (p01 & LOW_HALF) + (p10 & LOW_HALF);
    *low = middle << 32 | (p00 & LOW_HALF);
    *high = p11 + (p01 >> 32) + (p10 >> 32) + (middle >> 32);
}

bool checked_mul(u64 a, u64 b, u64 *product) {
    u64 high;
    wide_mul(a, b, &high, product);
    return !high;
}

/* Long division, 32 bits at a time: a remainder is below the divisor, so each part of the dividend
 * fits 64 bits and each digit of the quotient 32. */
static bool divide(u64 high, u64 low, u32 divisor, u64 *quotient, u64 *remainder) {
    if (high >= divisor) return false; /* also refuses a divisor of 0 */
    const u64 upper = high << 32 | low >> 32;
    const u64 lower = upper % divisor << 32 | (low & LOW_HALF);
    *quotient = upper / divisor << 32 | lower / divisor;
    *remainder = lower % divisor;
    return true;
}

bool mul_div_floor(u64 a, u64 b, u32 divisor, u64 *quotient) {
    u64 high, low, remainder;
    wide_mul(a, b, &high, &low);
    return divide(high, low, divisor, quotient, &remainder);
}

bool mul_div_ceil(u64 a, u64 b, u32 divisor, u64 *quotient) {
    u64 high, low, remainder;
    wide_mul(a, b, &high, &low);
    return divide(high, low, divisor, quotient, &remainder) &&
           checked_add(*quotient, remainder != 0, quotient);
}
