#include "err.h"

#include <stdarg.h>
#include <stdio.h>

#define IOK_STRING_(x) #x
#define IOK_STRING(x) IOK_STRING_(x)

int iok_err_set(struct iok_error *err, const char *file, int line, int code, const char *format, ...)
{
    va_list args;

    if (err == NULL) {
        return code;
    }
    err->code = code;
    err->file = file;
    err->line = line;
    va_start(args, format);
    (void)vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    return code;
}

const char *iok_errno_name(int code)
{
    switch (code) {
#define IOK_CASE_(name, value, text)                                                                                   \
    case name:                                                                                                         \
        return #name;
        IOK_ERRORS(IOK_CASE_)
#undef IOK_CASE_
    default:
        return "unknown";
    }
}

const char *iok_errno_text(int code)
{
    switch (code) {
#define IOK_CASE_(name, value, text)                                                                                   \
    case name:                                                                                                         \
        return text;
        IOK_ERRORS(IOK_CASE_)
#undef IOK_CASE_
    default:
        return "unknown";
    }
}

const char *iok_version(void)
{
    return IOK_STRING(IOK_VERSION_MAJOR) "." IOK_STRING(IOK_VERSION_MINOR) "." IOK_STRING(IOK_VERSION_PATCH);
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
