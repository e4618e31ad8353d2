/* Reading numbers and names out of bytes at any alignment. */
#pragma once

#include "syscalls.h"

struct [[gnu::packed]] unaligned_u32 {
    u32 value;
};
struct [[gnu::packed]] unaligned_u64 {
    u64 value;
};

[[nodiscard]] static inline u32 read_u32(const void *at) {
    return ((const struct unaligned_u32 *)at)->value;
}
[[nodiscard]] static inline u64 read_u64(const void *at) {
    return ((const struct unaligned_u64 *)at)->value;
}

/* What is left to read. */
struct reader {
    const u8 *at;
    u64 left;
};

/* Borsh's string: a u32 length, then that many bytes of UTF-8. False where it is anything else. */
[[nodiscard]] bool read_string(struct reader *reader, struct slice *text);

/* `len` bytes in place, or null where fewer are left. */
[[nodiscard]] const void *read_bytes(struct reader *reader, u64 len);
