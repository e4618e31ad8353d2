#include "log.h"

void line_bytes(struct line *line, const void *bytes, u64 len) {
    /* The longest line by far is that of a market with long names, at under 200 bytes; a line that
     * would not fit is cut, which a log can bear. */
    const u64 room = sizeof line->text - line->len;
    if (len > room) len = room;
    sol_memcpy_(line->text + line->len, bytes, len);
    line->len += len;
}

static u64 length(const char *text) {
    u64 len = 0;
    while (text[len]) len++;
    return len;
}

void line_text(struct line *line, const char *text) { line_bytes(line, text, length(text)); }

void line_begin(struct line *line, const char *text) {
    line->len = 0;
    line_text(line, text);
}

void line_u64(struct line *line, u64 value) {
    char digits[20];
    u64 at = sizeof digits;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    line_bytes(line, digits + at, sizeof digits - at);
}

void line_key(struct line *line, const struct pubkey *key) {
    static const char alphabet[] = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    enum { LIMBS = 8, DIGITS_PER_DIVISION = 5, MAX_DIGITS = 45 };
    const u64 divisor = 58ull * 58 * 58 * 58 * 58; /* the largest power of 58 below 2^32 */

    u32 limbs[LIMBS]; /* most significant first */
    for (u64 i = 0; i < LIMBS; i++) {
        const u8 *b = key->bytes + 4 * i;
        limbs[i] = (u32)b[0] << 24 | (u32)b[1] << 16 | (u32)b[2] << 8 | b[3];
    }
    char digits[MAX_DIGITS];
    u64 at = MAX_DIGITS;
    while (at) {
        u64 remainder = 0;
        for (u64 i = 0; i < LIMBS; i++) {
            const u64 part = remainder << 32 | limbs[i];
            limbs[i] = (u32)(part / divisor);
            remainder = part % divisor;
        }
        for (u64 i = 0; i < DIGITS_PER_DIVISION; i++) {
            digits[--at] = alphabet[remainder % 58];
            remainder /= 58;
        }
    }
    /* Base58 writes a leading zero byte as one '1', and the number without leading zeroes. Together
     * that is at most 44 digits: a byte is worth more than one. */
    while (at < MAX_DIGITS && digits[at] == alphabet[0]) at++;
    for (u64 i = 0; i < sizeof key->bytes && !key->bytes[i]; i++) digits[--at] = alphabet[0];
    line_bytes(line, digits + at, MAX_DIGITS - at);
}

void line_log(const struct line *line) { sol_log_(line->text, line->len); }

void log_text(const char *text) { sol_log_(text, length(text)); }
