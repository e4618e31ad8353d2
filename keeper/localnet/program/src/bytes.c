#include "bytes.h"

const void *read_bytes(struct reader *reader, u64 len) {
    if (reader->left < len) return nullptr;
    const u8 *bytes = reader->at;
    reader->at += len;
    reader->left -= len;
    return bytes;
}

/* A sequence is a lead byte and one to three continuations. The shortest form is the only valid one,
 * surrogates are not characters, and the last character is U+10FFFF: each narrows the range of the
 * first continuation. */
static u64 sequence_length(const u8 *at, u64 left) {
    const u8 lead = at[0];
    if (lead < 0x80) return 1;
    const u64 len = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || left < len) return 0;
    const u8 lowest = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const u8 highest = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (at[1] < lowest || at[1] > highest) return 0;
    for (u64 i = 2; i < len; i++)
        if (at[i] < 0x80 || at[i] > 0xbf) return 0;
    return len;
}

bool read_string(struct reader *reader, struct slice *text) {
    const void *len = read_bytes(reader, sizeof(u32));
    if (!len) return false;
    const u64 bytes = read_u32(len);
    const u8 *at = read_bytes(reader, bytes);
    if (!at) return false;
    for (u64 i = 0; i < bytes;) {
        const u64 step = sequence_length(at + i, bytes - i);
        if (!step) return false;
        i += step;
    }
    *text = (struct slice){at, bytes};
    return true;
}
