/* err.c - names and texts of the error codes, and how a failure is recorded.
 *
 * Everything here is pure: no allocation, no global state, any thread. */
#include "err.h"

#include <stdarg.h>
#include <stdio.h>

#define STRING_(x) #x
#define STRING(x) STRING_(x)

int iok_err_set(struct iok_error *err, const char *file, int line, int code, const char *format, ...)
{
    va_list args;

    if (!err)
        return code;
    err->code = code;
    err->file = file;
    err->line = line;
    va_start(args, format);
    if (vsnprintf(err->text, sizeof err->text, format, args) < 0)
        err->text[0] = '\0';
    va_end(args);
    /* It may quote what the program or a peer gave, and a line of a log is to stay one line. */
    for (char *at = err->text; *at != '\0'; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = '?';
    return code;
}

const char *iok_errno_name(int code)
{
    switch (code) {
#define NAME_(name, value, text)                                                                                       \
    case name:                                                                                                         \
        return #name;
        IOK_ERRORS(NAME_)
#undef NAME_
    default:
        return "unknown";
    }
}

const char *iok_errno_text(int code)
{
    switch (code) {
#define TEXT_(name, value, text)                                                                                       \
    case name:                                                                                                         \
        return text;
        IOK_ERRORS(TEXT_)
#undef TEXT_
    default:
        return "unknown";
    }
}

const char *iok_outcome_name(enum iok_outcome outcome)
{
    switch (outcome) {
    case IOK_PENDING:
        return "pending";
    case IOK_DONE:
        return "done";
    case IOK_NEVER_SENT:
        return "never-sent";
    case IOK_MAYBE_EXECUTED:
        return "maybe-executed";
    case IOK_REJECTED:
        return "rejected";
    }
    return "unknown";
}

const char *iok_version(void)
{
    return STRING(IOK_VERSION_MAJOR) "." STRING(IOK_VERSION_MINOR) "." STRING(IOK_VERSION_PATCH);
}
