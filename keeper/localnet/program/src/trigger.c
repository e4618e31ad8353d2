#include "trigger.h"

#include "math.h"

bool condition_met(const struct order *order, u64 price) {
    const bool is_long = order->side == LONG;
    switch (order->order_type) {
    case STOP_LOSS:
    case STOP_LIMIT: /* its limit price plays no part: only the stop triggers */
    case TRAILING_STOP:
        return is_long ? price <= order->stop_price : price >= order->stop_price;
    case TAKE_PROFIT:
        return is_long ? price >= order->stop_price : price <= order->stop_price;
    case LIMIT:
        return is_long ? price <= order->price : price >= order->price;
    default:
        return false;
    }
}

u64 trailing_stop(u8 side, u64 price, u64 distance, u64 *stop) {
    u64 offset;
    REQUIRE(mul_div_ceil(price, distance, TRAILING_DISTANCE_MAX, &offset), MathOverflow);
    const bool fits = side == LONG ? checked_sub(price, offset, stop) : checked_add(price, offset, stop);
    REQUIRE(fits, MathOverflow);
    return 0;
}
