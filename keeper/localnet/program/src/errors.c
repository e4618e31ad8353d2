#include "errors.h"

#include "log.h"

#define DEFINE(NAME, NUMBER, MESSAGE) const struct error E_##NAME = {NUMBER, #NAME, MESSAGE};
ERRORS(DEFINE)
#undef DEFINE

static u64 report(struct line *line, const struct error *error) {
    line_text(line, ". Error Code: ");
    line_text(line, error->name);
    line_text(line, ". Error Number: ");
    line_u64(line, error->number);
    line_text(line, ". Error Message: ");
    line_text(line, error->message);
    line_text(line, ".");
    line_log(line);
    return error->number;
}

u64 report_thrown(const struct error *error, const char *file, u64 line_number) {
    struct line line;
    line_begin(&line, "AnchorError thrown in ");
    line_text(&line, file);
    line_text(&line, ":");
    line_u64(&line, line_number);
    return report(&line, error);
}

u64 report_occurred(const struct error *error) {
    struct line line;
    line_begin(&line, "AnchorError occurred");
    return report(&line, error);
}

u64 report_account(const struct error *error, const char *account, const struct pubkey *left,
                   const struct pubkey *right) {
    struct line line;
    line_begin(&line, "AnchorError caused by account: ");
    line_text(&line, account);
    const u64 number = report(&line, error);
    if (left && right) {
        log_text("Left:");
        sol_log_pubkey(left);
        log_text("Right:");
        sol_log_pubkey(right);
    }
    return number;
}
