#include "span.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c;
}

bool iok_span_eq_nocase(struct iok_span a, const char *text)
{
    size_t i = 0;

    for (; i < a.n && text[i] != '\0'; i++) {
        if (lower(a.p[i]) != lower((uint8_t)text[i])) {
            return false;
        }
    }
    return i == a.n && text[i] == '\0';
}

ptrdiff_t iok_span_find_crlf(struct iok_span s)
{
    size_t at = 0;

    while (at + 1 < s.n) {
        const uint8_t *cr = memchr(s.p + at, '\r', s.n - at - 1);

        if (cr == NULL) {
            return -1;
        }
        if (cr[1] == '\n') {
            return cr - s.p;
        }
        at = (size_t)(cr - s.p) + 1;
    }
    return -1;
}

bool iok_span_i64(struct iok_span s, int64_t *out)
{
    bool negative = s.n > 0 && s.p[0] == '-';
    uint64_t limit = negative ? UINT64_C(1) << 63 : INT64_MAX;
    uint64_t value = 0;
    size_t i = negative;

    if (i == s.n) {
        return false;
    }
    for (; i < s.n; i++) {
        unsigned digit = (unsigned)s.p[i] - '0';

        if (digit > 9 || value > (limit - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    *out = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

size_t iok_format_i64(char *at, int64_t value)
{
    char digits[20];
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    size_t n = 0, len = 0;

    do {
        digits[n++] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest != 0);
    if (value < 0) {
        at[len++] = '-';
    }
    while (n > 0) {
        at[len++] = digits[--n];
    }
    return len;
}

size_t iok_format_f64(char *at, double value)
{
    if (isnan(value) || isinf(value)) {
        const char *text = isnan(value) ? "nan" : value < 0 ? "-inf" : "inf";

        memcpy(at, text, strlen(text));
        return strlen(text);
    }
    for (int digits = 15; digits < 17; digits++) {
        int n = snprintf(at, 32, "%.*g", digits, value);

        if (strtod(at, NULL) == value) {
            return (size_t)n;
        }
    }
    return (size_t)snprintf(at, 32, "%.17g", value);
}
