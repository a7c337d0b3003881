/* span.h - text and octets by pointer and length; parsers pass these and never walk raw pointers. */
#ifndef IOK_BASE_SPAN_H
#define IOK_BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Borrowed memory. p may be NULL when n is 0. */
struct iok_span {
    const uint8_t *p;
    size_t n;
};

static inline struct iok_span iok_span(const void *p, size_t n)
{
    return (struct iok_span){p, n};
}

static inline struct iok_span iok_span_of(const char *text)
{
    return (struct iok_span){(const uint8_t *)text, strlen(text)};
}

static inline struct iok_span iok_span_skip(struct iok_span s, size_t n)
{
    return n == 0 ? s : (struct iok_span){s.p + n, s.n - n}; /* NULL + 0 is undefined */
}

static inline bool iok_span_eq(struct iok_span a, struct iok_span b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* ASCII letters compare without case. */
bool iok_span_eq_nocase(struct iok_span a, const char *text);
/* Index of the first CR LF, or -1. */
ptrdiff_t iok_span_find_crlf(struct iok_span s);
/* Strict decimal: optional '-', digits only, no blank, in range; false otherwise and *out untouched. */
bool iok_span_i64(struct iok_span s, int64_t *out);
/* A number of at most 64 bytes with or without point and exponent; "inf", "infinity", "nan". The same in every locale. */
bool iok_span_f64(struct iok_span s, double *out);
/* Decimal text of value into at (at least 20 bytes); returns its length. */
size_t iok_format_i64(char *at, int64_t value);
/* Shortest text that reads back as the same double, "inf", "-inf" or "nan", into at (at least 32 bytes). */
size_t iok_format_f64(char *at, double value);

#endif
