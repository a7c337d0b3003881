/* http1_line.c - one line of HTTP/1.1 at a time: request line, status line, field, chunk header.
 *
 * What it is: pure functions of a line without its CR LF. What it is not: knowledge of what comes before or after, of
 * messages or limits. Each refusal cites its section; what a line cannot hold is found by tables and by eight octets at
 * a time. */
#include "http1.h"

/* The digits of a Content-Length, and of a chunk's size, that fit into 63 bits; leading zeros count. */
#define LENGTH_DIGITS_MAX 18u
#define SIZE_DIGITS_MAX 15u

#define T HTTP1_TOKEN
#define U HTTP1_TARGET
#define H HTTP1_HOST
#define ALL (T | U | H)
const uint8_t http1_chars[256] = {
    ['!'] = ALL,   ['"'] = U,     ['#'] = T,     ['$'] = ALL, ['%'] = ALL,   ['&'] = ALL,   ['\''] = ALL,
    ['('] = U | H, [')'] = U | H, ['*'] = ALL,   ['+'] = ALL, [','] = U | H, ['-'] = ALL,   ['.'] = ALL,
    ['/'] = U,     ['0'] = ALL,   ['1'] = ALL,   ['2'] = ALL, ['3'] = ALL,   ['4'] = ALL,   ['5'] = ALL,
    ['6'] = ALL,   ['7'] = ALL,   ['8'] = ALL,   ['9'] = ALL, [':'] = U | H, [';'] = U | H, ['<'] = U,
    ['='] = U | H, ['>'] = U,     ['?'] = U,     ['@'] = U,   ['A'] = ALL,   ['B'] = ALL,   ['C'] = ALL,
    ['D'] = ALL,   ['E'] = ALL,   ['F'] = ALL,   ['G'] = ALL, ['H'] = ALL,   ['I'] = ALL,   ['J'] = ALL,
    ['K'] = ALL,   ['L'] = ALL,   ['M'] = ALL,   ['N'] = ALL, ['O'] = ALL,   ['P'] = ALL,   ['Q'] = ALL,
    ['R'] = ALL,   ['S'] = ALL,   ['T'] = ALL,   ['U'] = ALL, ['V'] = ALL,   ['W'] = ALL,   ['X'] = ALL,
    ['Y'] = ALL,   ['Z'] = ALL,   ['['] = U | H, ['\\'] = U,  [']'] = U | H, ['^'] = T | U, ['_'] = ALL,
    ['`'] = T | U, ['a'] = ALL,   ['b'] = ALL,   ['c'] = ALL, ['d'] = ALL,   ['e'] = ALL,   ['f'] = ALL,
    ['g'] = ALL,   ['h'] = ALL,   ['i'] = ALL,   ['j'] = ALL, ['k'] = ALL,   ['l'] = ALL,   ['m'] = ALL,
    ['n'] = ALL,   ['o'] = ALL,   ['p'] = ALL,   ['q'] = ALL, ['r'] = ALL,   ['s'] = ALL,   ['t'] = ALL,
    ['u'] = ALL,   ['v'] = ALL,   ['w'] = ALL,   ['x'] = ALL, ['y'] = ALL,   ['z'] = ALL,   ['{'] = U,
    ['|'] = T | U, ['}'] = U,     ['~'] = ALL,
};
#undef T
#undef U
#undef H
#undef ALL

/* ---- octets ---------------------------------------------------------------------------------------------------- */

/* The high bit of each octet that is below 0x20 or is 0x7f. Octets of 0x80 and more are neither. */
static inline uint64_t controls_in(uint64_t word)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), high = ones << 7;
    uint64_t low = word & ~high;
    uint64_t below = ~(low + ones * (0x80 - 0x20)); /* its high bit: low < 0x20 */
    uint64_t del = low + ones;                      /* its high bit: low == 0x7f */
    return (below | del) & ~word & high;
}

bool http1_value_is_clean(struct iok_span value)
{
    size_t i = 0;
    for (; i + 8 <= value.n; i += 8) {
        uint64_t word;
        memcpy(&word, value.p + i, 8);
        if (controls_in(word) != 0)
            break; /* perhaps only a tab */
    }
    for (; i < value.n; i++)
        if ((value.p[i] < 0x20 && value.p[i] != '\t') || value.p[i] == 0x7f)
            return false;
    return true;
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

struct iok_span http1_trim(struct iok_span s)
{
    while (s.n > 0 && is_blank(s.p[0]))
        s = iok_span_skip(s, 1);
    while (s.n > 0 && is_blank(s.p[s.n - 1]))
        s.n--;
    return s;
}

void http1_lower(uint8_t *to, struct iok_span name)
{
    for (size_t i = 0; i < name.n; i++) {
        uint8_t c = name.p[i];
        to[i] = (uint8_t)(c | (uint8_t)((uint8_t)(c - 'A') < 26) << 5);
    }
}

bool http1_list_next(struct iok_span *list, struct iok_span *element)
{
    while (list->n > 0) {
        const uint8_t *comma = memchr(list->p, ',', list->n);
        size_t n = comma != NULL ? (size_t)(comma - list->p) : list->n;
        *element = http1_trim(iok_span(list->p, n));
        *list = iok_span_skip(*list, comma != NULL ? n + 1 : n);
        if (element->n > 0)
            return true;
    }
    return false;
}

static bool is_digit(uint8_t c)
{
    return (uint8_t)(c - '0') < 10;
}

bool http1_length(struct iok_span value, uint64_t *out)
{
    uint64_t length = 0;
    if (value.n == 0 || value.n > LENGTH_DIGITS_MAX)
        return false;
    for (size_t i = 0; i < value.n; i++) {
        if (!is_digit(value.p[i]))
            return false;
        length = length * 10 + (uint64_t)(value.p[i] - '0');
    }
    *out = length;
    return true;
}

/* ---- first lines ------------------------------------------------------------------------------------------------ */

/* RFC 9112, 2.3. -1: no HTTP version; -2: another major one. */
static int minor_of(const uint8_t *p)
{
    if (memcmp(p, "HTTP/", 5) != 0 || !is_digit(p[5]) || p[6] != '.' || !is_digit(p[7]))
        return -1;
    if (p[5] != '1')
        return -2;
    return p[7] == '0' ? 0 : 1; /* RFC 9110, 2.5: a higher minor version is read as the highest known */
}

/* RFC 9112, 3.2: which forms there are depends on the method. */
bool http1_target_fits(struct iok_span method, struct iok_span target)
{
    if (target.n == 0 || !http1_all(target, HTTP1_TARGET))
        return false;
    if (iok_span_eq(method, iok_span_of("CONNECT"))) {
        const uint8_t *colon = memrchr(target.p, ':', target.n);
        uint64_t port;
        return colon != NULL && colon > target.p && http1_all(target, HTTP1_HOST) &&
               http1_length(iok_span(colon + 1, target.n - (size_t)(colon + 1 - target.p)), &port) && port < 65536;
    }
    if (target.p[0] == '/')
        return true;
    if (target.n == 1 && target.p[0] == '*')
        return iok_span_eq(method, iok_span_of("OPTIONS"));
    size_t scheme = 0;
    while (scheme < target.n && (target.p[scheme] | 32) >= 'a' && (target.p[scheme] | 32) <= 'z')
        scheme++;
    return scheme > 0 && target.n > scheme + 3 && memcmp(target.p + scheme, "://", 3) == 0;
}

int http1_request_line(struct iok_error *err, struct iok_span line, struct http1_start *out, int *status)
{
    size_t n = 0;
    *status = 400;
    while (n < line.n && (http1_chars[line.p[n]] & HTTP1_TOKEN) != 0)
        n++;
    out->method = iok_span(line.p, n);
    if (n == 0 || n == line.n || line.p[n] != ' ')
        return iok_err(err, IOK_EPROTO, "the request line does not begin with a method and a blank");
    if (n > HTTP1_METHOD_BYTES_MAX) {
        *status = 501;
        return iok_err(err, IOK_EPROTO, "a method of more than %u letters", HTTP1_METHOD_BYTES_MAX);
    }
    struct iok_span rest = iok_span_skip(line, n + 1);
    const uint8_t *blank = rest.n > 0 ? memchr(rest.p, ' ', rest.n) : NULL;
    out->target = iok_span(rest.p, blank != NULL ? (size_t)(blank - rest.p) : rest.n);
    rest = iok_span_skip(rest, out->target.n);
    if (rest.n != 9 || rest.p[0] != ' ' || (out->minor = minor_of(rest.p + 1)) == -1)
        return iok_err(err, IOK_EPROTO, "the request line is not a method, a target and a version with single blanks");
    if (out->minor == -2) {
        *status = 505;
        return iok_err(err, IOK_EPROTO, "another version of HTTP than 1.0 and 1.1");
    }
    if (!http1_target_fits(out->method, out->target))
        return iok_err(err, IOK_EPROTO, "the request's target has not a form that its method allows");
    return 0;
}

int http1_status_line(struct iok_error *err, struct iok_span line, struct http1_start *out)
{
    if (line.n < 12 || line.p[8] != ' ' || (out->minor = minor_of(line.p)) == -1)
        return iok_err(err, IOK_EPROTO, "the reply does not begin with a version of HTTP and a status");
    if (out->minor == -2)
        return iok_err(err, IOK_EPROTO, "the reply has another version of HTTP than 1.0 and 1.1");
    const uint8_t *digits = line.p + 9;
    if (digits[0] < '1' || !is_digit(digits[0]) || !is_digit(digits[1]) || !is_digit(digits[2]))
        return iok_err(err, IOK_EPROTO, "the reply's status is not a number of three digits from 100 on");
    out->status = (digits[0] - '0') * 100 + (digits[1] - '0') * 10 + (digits[2] - '0');
    struct iok_span rest = iok_span_skip(line, 12);
    if (rest.n > 0 && rest.p[0] != ' ') /* without a reason some leave the blank out, too */
        return iok_err(err, IOK_EPROTO, "the reply's status is not a number of three digits and a blank");
    out->reason = iok_span_skip(rest, rest.n > 0);
    return http1_value_is_clean(out->reason) ? 0 : iok_err(err, IOK_EPROTO, "a control character in the reason");
}

/* ---- fields and chunks ------------------------------------------------------------------------------------------ */

int http1_field_line(struct iok_error *err, struct iok_span line, struct iok_span *name, struct iok_span *value)
{
    size_t n = 0;
    while (n < line.n && (http1_chars[line.p[n]] & HTTP1_TOKEN) != 0)
        n++;
    if (n == 0 || n == line.n || line.p[n] != ':') { /* RFC 9112, 5.1: no blank before the colon */
        if (n > 0 && n < line.n && is_blank(line.p[n]))
            return iok_err(err, IOK_EPROTO, "a blank before a field's colon");
        return iok_err(err, IOK_EPROTO, "a field without a name of letters, digits and the like before its colon");
    }
    *name = iok_span(line.p, n);
    *value = http1_trim(iok_span_skip(line, n + 1));
    return http1_value_is_clean(*value) ? 0 : iok_err(err, IOK_EPROTO, "a control character in a field's value");
}

static int hex_digit(uint8_t c)
{
    if (is_digit(c))
        return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* RFC 9112, 7.1. Of extensions only that they hold no control character is looked at; nobody uses them. */
int http1_chunk_line(struct iok_error *err, struct iok_span line, uint64_t *size, size_t *extension_bytes)
{
    size_t n = 0;
    uint64_t value = 0;
    for (; n < line.n && hex_digit(line.p[n]) >= 0; n++) {
        if (n == SIZE_DIGITS_MAX)
            return iok_err(err, IOK_ELIMIT, "a chunk's size of more than %u digits", SIZE_DIGITS_MAX);
        value = value << 4 | (uint64_t)hex_digit(line.p[n]);
    }
    struct iok_span rest = iok_span_skip(line, n);
    struct iok_span extension = http1_trim(rest);
    if (n == 0 || (rest.n > 0 && (extension.n == 0 || extension.p[0] != ';')) || !http1_value_is_clean(rest))
        return iok_err(err, IOK_EPROTO, "a chunk does not begin with a hexadecimal size and the end of its line");
    *size = value;
    *extension_bytes = rest.n;
    return 0;
}
