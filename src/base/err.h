/* err.h - failures that remember their birthplace. */
#ifndef IOK_BASE_ERR_H
#define IOK_BASE_ERR_H

#include <iokernel.h>

/* Fills *err (which may be NULL) and returns code. The text is a whole fragment that names what was wrong and what is
 * allowed; it never holds secrets or argument values. Longer texts are cut, control characters become '?'. */
int iok_err_set(struct iok_error *err, const char *file, int line, int code, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

#define iok_err(err, code, ...) iok_err_set((err), __FILE__, __LINE__, (code), __VA_ARGS__)

#endif
