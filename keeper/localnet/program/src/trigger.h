/* When a conditional order may be filled, and where a trailing stop belongs. Pure. */
#pragma once

#include "state.h"

/* Equality counts. A type that has no condition is never met. */
[[nodiscard]] bool condition_met(const struct order *order, u64 price);

enum { TRAILING_DISTANCE_MAX = 1'000'000 }; /* parts per million: the whole price */

/* The stop that trails `price`: below it for a long, above it for a short. The distance is rounded
 * up, against an early trigger, so that even the smallest is at least one unit. */
[[nodiscard]] u64 trailing_stop(u8 side, u64 price, u64 distance, u64 *stop);
