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

#define NUMBER_BYTES_MAX 64u /* a double as "%.17g" or any shorter printer writes it has at most 32 */

/* The digits of a number without its point, and the power of ten that the point stood for. */
struct decimal {
    char digits[NUMBER_BYTES_MAX + 24]; /* and room for an exponent */
    size_t n;
    int64_t exponent;
};

static size_t take_digits(struct iok_span *text, struct decimal *out)
{
    size_t n = 0;
    while (n < text->n && text->p[n] >= '0' && text->p[n] <= '9') {
        out->digits[out->n++] = (char)text->p[n];
        n++;
    }
    *text = iok_span_skip(*text, n);
    return n;
}

static bool take_exponent(struct iok_span text, struct decimal *out)
{
    int64_t exponent;
    if (text.n == 0)
        return true;
    if (text.p[0] != 'e' && text.p[0] != 'E')
        return false;
    text = iok_span_skip(text, 1);
    if (text.n > 1 && text.p[0] == '+' && text.p[1] != '-')
        text = iok_span_skip(text, 1);
    if (!iok_span_i64(text, &exponent) || exponent > 99999 || exponent < -99999)
        return false;
    out->exponent += exponent;
    return true;
}

/* 15 digits and 10 to the power of 22 are exact in a double, so that one operation rounds once. */
static double small_decimal(const struct decimal *d)
{
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    int64_t value = 0;
    for (size_t i = 0; i < d->n; i++)
        value = value * 10 + (d->digits[i] - '0');
    return d->exponent < 0 ? (double)value / powers[-d->exponent] : (double)value * powers[d->exponent];
}

/* strtod reads the point that the program's locale wants, so it gets none: 1.25 becomes 125e-2. */
static bool parse_finite(struct iok_span text, double *out)
{
    struct decimal d = {.n = 0};
    size_t before = take_digits(&text, &d), after = 0;
    if (text.n > 0 && text.p[0] == '.') {
        text = iok_span_skip(text, 1);
        after = take_digits(&text, &d);
        d.exponent = -(int64_t)after;
    }
    if (before + after == 0 || !take_exponent(text, &d))
        return false;
    if (d.n <= 15 && d.exponent >= -22 && d.exponent <= 22) {
        *out = small_decimal(&d);
        return true;
    }
    d.digits[d.n++] = 'e';
    d.n += iok_format_i64(d.digits + d.n, d.exponent);
    d.digits[d.n] = '\0';
    *out = strtod(d.digits, NULL);
    return true;
}

bool iok_span_f64(struct iok_span text, double *out)
{
    if (text.n == 0 || text.n > NUMBER_BYTES_MAX)
        return false;
    bool negative = text.p[0] == '-';
    if (negative || text.p[0] == '+')
        text = iok_span_skip(text, 1);
    double value;
    if (iok_span_eq_nocase(text, "inf") || iok_span_eq_nocase(text, "infinity"))
        value = HUGE_VAL;
    else if (iok_span_eq_nocase(text, "nan"))
        value = NAN;
    else if (!parse_finite(text, &value))
        return false;
    *out = negative ? -value : value;
    return true;
}
