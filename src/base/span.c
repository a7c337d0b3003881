/* span.c - the few text operations that parsers and writers share.
 *
 * No allocation, and the same result in every locale. */
#include "span.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

bool iok_span_eq_nocase(struct iok_span a, const char *text)
{
    for (size_t i = 0; i < a.n; i++) {
        /* A NUL inside a differs from the end of text by this check, too. */
        if (text[i] == '\0' || lower(a.p[i]) != lower((uint8_t)text[i]))
            return false;
    }
    return text[a.n] == '\0';
}

ptrdiff_t iok_span_find_crlf(struct iok_span s)
{
    size_t from = 0;

    /* A CR in the last byte cannot be followed by its LF yet, so the last byte is not looked at. */
    while (from + 1 < s.n) {
        const uint8_t *cr = memchr(s.p + from, '\r', s.n - from - 1);
        if (!cr)
            return -1;
        if (cr[1] == '\n')
            return cr - s.p;
        from = (size_t)(cr - s.p) + 1;
    }
    return -1;
}

bool iok_span_i64(struct iok_span s, int64_t *out)
{
    bool negative = s.n > 0 && s.p[0] == '-';
    size_t i = negative ? 1 : 0;
    int64_t value = 0; /* gathered below zero, where there is one number more */

    if (i == s.n)
        return false;
    for (; i < s.n; i++) {
        unsigned digit = (unsigned)s.p[i] - '0';
        if (digit > 9 || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_sub_overflow(value, (int64_t)digit, &value))
            return false;
    }
    if (!negative && value == INT64_MIN)
        return false;
    *out = negative ? value : -value;
    return true;
}

size_t iok_format_i64(char *at, int64_t value)
{
    char digits[20]; /* 19 digits of 2^63, at most */
    size_t first = sizeof digits, n = 0;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;

    do {
        digits[--first] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest > 0);
    if (value < 0)
        at[n++] = '-';
    memcpy(at + n, digits + first, sizeof digits - first);
    return n + sizeof digits - first;
}

/* The locale of the program may write a decimal comma (or a longer sign): copies text with a point instead. */
static size_t copy_with_point(char *at, const char *text)
{
    size_t n = 0;

    while (*text != '\0') {
        size_t sign = strcspn(text, "+-0123456789e");

        at[n++] = sign == 0 ? *text : '.';
        text += sign == 0 ? 1 : sign;
    }
    return n;
}

size_t iok_format_f64(char *at, double value)
{
    /* 15 digits always survive the way through a normal double, 17 always identify one (C11 5.2.4.2.2, DBL_DIG and
     * DBL_DECIMAL_DIG); a subnormal may need as little as one. */
    int digits = isnormal(value) ? 15 : 1;
    char text[40]; /* sign, 17 digits, "e-308" and the sign of the locale: 4 bytes at most in UTF-8 */

    if (isnan(value) || isinf(value)) {
        const char *name = isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
        memcpy(at, name, strlen(name));
        return strlen(name);
    }
    /* Whole numbers below 10^15, the usual case, without printf; not -0, whose sign would be lost. */
    if (fabs(value) < 1e15 && value == (double)(int64_t)value && !(value == 0 && signbit(value)))
        return iok_format_i64(at, (int64_t)value);
    do {
        (void)snprintf(text, sizeof(text), "%.*g", digits, value);
    } while (strtod(text, NULL) != value && ++digits <= 17);
    return copy_with_point(at, text);
}
