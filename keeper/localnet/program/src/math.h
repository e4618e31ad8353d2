/* Checked arithmetic on u64. Nothing in this program wraps: a result that does not fit is refused. */
#pragma once

#include "syscalls.h"

[[nodiscard]] static inline bool checked_add(u64 a, u64 b, u64 *sum) {
    *sum = a + b;
    return *sum >= a;
}

[[nodiscard]] static inline bool checked_sub(u64 a, u64 b, u64 *difference) {
    *difference = a - b;
    return b <= a;
}

/* The 128 bits of a * b, from products of 32-bit halves: the VM's multiply keeps 64 bits. */
void wide_mul(u64 a, u64 b, u64 *high, u64 *low);

[[nodiscard]] bool checked_mul(u64 a, u64 b, u64 *product);

/* a * b / divisor, rounded down or up; the product itself may take 128 bits. */
[[nodiscard]] bool mul_div_floor(u64 a, u64 b, u32 divisor, u64 *quotient);
[[nodiscard]] bool mul_div_ceil(u64 a, u64 b, u32 divisor, u64 *quotient);
