/* What Anchor puts before an instruction's arguments, an account's fields and an event's: the first
 * eight bytes of sha256("global:name"), sha256("account:Name") and sha256("event:Name"), here as the
 * little-endian numbers that they are read as. A test computes them again. */
#pragma once

#include "syscalls.h"

enum : u64 {
    IX_INITIALIZE_MARKET = 0xcbaa309bc1bd2323,
    IX_UPDATE_ORACLE_PRICE = 0x9a95744196a3230e,
    IX_CREATE_USER_ACCOUNT = 0xc7b62e3f45644492,
    IX_DEPOSIT_COLLATERAL = 0x78a2f792748e839c,
    IX_PLACE_ORDER = 0x6a60826daf9bc233,
    IX_CANCEL_ORDER = 0x84df3108f0ed815f,
    IX_CLOSE_ORDER = 0x04a83f071cd1675a,
    IX_EXECUTE_CONDITIONAL_ORDER = 0xfe8dcf1cf4906c29,
    IX_UPDATE_TRAILING_STOP = 0xe21b161115ac4009,
    ACCOUNT_MARKET = 0x9ac6e30037d5bedb,
    ACCOUNT_ORDER = 0x331c564db9dfad86,
    ACCOUNT_POSITION = 0xd0f7407ae48fbcaa,
    ACCOUNT_USER_ACCOUNT = 0x7ff26eba108821d3,
    EVENT_ORDER_FILLED = 0x1eae74f9426d7c78,
};
