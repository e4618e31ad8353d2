/* Log lines, put together on the stack and logged whole: the VM logs one line a call. */
#pragma once

#include "syscalls.h"

struct line {
    u64 len;
    char text[376];
};

void line_begin(struct line *line, const char *text);
void line_text(struct line *line, const char *text);
void line_bytes(struct line *line, const void *bytes, u64 len);
void line_u64(struct line *line, u64 value);
void line_key(struct line *line, const struct pubkey *key); /* in base58 */
void line_log(const struct line *line);

void log_text(const char *text);
