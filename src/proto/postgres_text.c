/* postgres_text.c - values in the text format as tokens, the same tokens as of the binary format.
 *
 * A statement that is new to a connection is answered in text, since its columns' types are known too late to ask for
 * anything else. Times are read in DateStyle ISO, which the sign-in asks for; under another style, which only the
 * program itself can have set, they come as text. [PG] "Formats and Format Codes"; the manual's chapter "Data Types". */
#include "postgres.h"

#define DEPTH_MAX 6u /* MAXDIM of the server */

static int garbled(struct iok_io *io, const char *what)
{
    return iok_io_fail(io, IOK_EPROTO, "a text that is not a %s as the server writes them", what);
}

/* ---- moments -------------------------------------------------------------------------------------------------- */

/* A number of at least min digits; false if it is not there. */
static bool take_number(struct iok_span *text, size_t min, int64_t *number)
{
    size_t n = 0;
    *number = 0;
    for (; n < text->n && n < 9 && text->p[n] >= '0' && text->p[n] <= '9'; n++)
        *number = *number * 10 + (text->p[n] - '0');
    *text = iok_span_skip(*text, n);
    return n >= min;
}

bool pg_take_char(struct iok_span *text, char c)
{
    if (text->n == 0 || text->p[0] != (uint8_t)c)
        return false;
    *text = iok_span_skip(*text, 1);
    return true;
}

static bool take_days(struct iok_span *text, int64_t *year, int64_t *month, int64_t *day)
{
    return take_number(text, 4, year) && pg_take_char(text, '-') && take_number(text, 2, month) &&
           pg_take_char(text, '-') && take_number(text, 2, day) && *month >= 1 && *month <= 12 && *day >= 1 &&
           *day <= 31;
}

bool pg_take_time(struct iok_span *text, int64_t *us)
{
    int64_t hours, minutes, seconds, fraction = 0;
    if (!take_number(text, 2, &hours) || !pg_take_char(text, ':') || !take_number(text, 2, &minutes) ||
        !pg_take_char(text, ':') || !take_number(text, 2, &seconds) || hours > 24 || minutes > 59 || seconds > 60)
        return false;
    if (pg_take_char(text, '.')) {
        size_t before = text->n;
        if (!take_number(text, 1, &fraction) || before - text->n > 6)
            return false;
        for (size_t n = before - text->n; n < 6; n++)
            fraction *= 10;
    }
    *us = ((hours * 60 + minutes) * 60 + seconds) * 1000000 + fraction;
    return true;
}

bool pg_take_zone(struct iok_span *text, int64_t *us)
{
    int64_t hours, minutes = 0, seconds = 0;
    bool negative = pg_take_char(text, '-');
    if ((!negative && !pg_take_char(text, '+')) || !take_number(text, 2, &hours) ||
        (pg_take_char(text, ':') && !take_number(text, 2, &minutes)) ||
        (pg_take_char(text, ':') && !take_number(text, 2, &seconds)) || hours > 24 || minutes > 59 || seconds > 59)
        return false;
    *us = ((hours * 60 + minutes) * 60 + seconds) * 1000000 * (negative ? -1 : 1);
    return true;
}

/* false: not in the form of DateStyle ISO. */
static bool put_moment_text(struct iok_tape *tape, uint16_t kind, struct iok_span text)
{
    int64_t year, month, day, us = 0, zone = 0;
    if (!take_days(&text, &year, &month, &day))
        return false;
    if (kind != IOK_KIND_DATE && (!pg_take_char(&text, ' ') || !pg_take_time(&text, &us)))
        return false;
    if (kind == 0 && !pg_take_zone(&text, &zone))
        return false;
    if (iok_span_eq(text, iok_span_of(" BC")))
        year = 1 - year;
    else if (text.n > 0)
        return false;
    pg_put_moment(tape, kind, pg_days_of(year, month, day), us - zone);
    return true;
}

static bool put_time_text(struct iok_tape *tape, struct iok_span text)
{
    int64_t us;
    if (!pg_take_time(&text, &us) || text.n > 0)
        return false;
    pg_put_time(tape, us);
    return true;
}

static void put_moment_or_text(struct iok_tape *tape, uint16_t type, struct iok_span value)
{
    bool done = false;
    if (type == PG_INTERVAL)
        done = pg_decode_interval_text(tape, value);
    else if (type == PG_TIMETZ)
        done = pg_decode_timetz_text(tape, value);
    else if (type == PG_TIME)
        done = put_time_text(tape, value);
    else if (type == PG_DATE)
        done = put_moment_text(tape, IOK_KIND_DATE, value);
    else
        done = put_moment_text(tape, type == PG_TIMESTAMP ? IOK_KIND_LOCAL : 0, value);
    if (!done)
        iok_tape_copy(tape, IOK_TEXT, 0, value); /* infinity, too */
}

/* ---- octets --------------------------------------------------------------------------------------------------- */

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Pairs of hexadecimal digits; dashes between them are left out when they may be there. */
static int take_hex(struct iok_span text, bool dashes, struct pg_bytes *out)
{
    out->n = 0;
    while (text.n > 0) {
        if (dashes && pg_take_char(&text, '-'))
            continue;
        int high = hex_digit(text.p[0]), low = text.n > 1 ? hex_digit(text.p[1]) : -1;
        if (high < 0 || low < 0)
            return IOK_EPROTO;
        uint8_t octet = (uint8_t)(high << 4 | low);
        if (!pg_bytes_put(out, iok_span(&octet, 1)))
            return IOK_ENOMEM;
        text = iok_span_skip(text, 2);
    }
    return 0;
}

/* bytea_output = escape: \\ is a backslash, \ooo an octet. */
static int take_escaped(struct iok_span text, struct pg_bytes *out)
{
    out->n = 0;
    while (text.n > 0) {
        uint8_t octet = text.p[0];
        size_t used = 1;
        if (octet == '\\' && text.n >= 2 && text.p[1] == '\\') {
            used = 2;
        } else if (octet == '\\') {
            if (text.n < 4)
                return IOK_EPROTO;
            octet = (uint8_t)((text.p[1] & 3) << 6 | (text.p[2] & 7) << 3 | (text.p[3] & 7));
            used = 4;
        }
        if (!pg_bytes_put(out, iok_span(&octet, 1)))
            return IOK_ENOMEM;
        text = iok_span_skip(text, used);
    }
    return 0;
}

static int put_octets(struct iok_io *io, uint16_t type, struct iok_span value, struct pg_bytes *scratch)
{
    int rc;
    if (type == PG_UUID) {
        rc = take_hex(value, true, scratch);
        if (rc == 0 && scratch->n != 16)
            rc = IOK_EPROTO;
    } else if (value.n >= 2 && value.p[0] == '\\' && value.p[1] == 'x') {
        rc = take_hex(iok_span_skip(value, 2), false, scratch);
    } else {
        rc = take_escaped(value, scratch);
    }
    if (rc == IOK_ENOMEM)
        return iok_io_fail(io, IOK_ENOMEM, "out of memory for a value");
    if (rc != 0)
        return garbled(io, type == PG_UUID ? "uuid" : "bytea");
    iok_tape_copy(io->tape, IOK_BYTES, type == PG_UUID ? IOK_KIND_UUID : 0, iok_span(scratch->p, scratch->n));
    return 0;
}

/* ---- scalars -------------------------------------------------------------------------------------------------- */

static int put_number(struct iok_io *io, uint16_t type, struct iok_span value)
{
    int64_t i;
    double f;
    if (type == PG_FLOAT4 || type == PG_FLOAT8) {
        if (!iok_span_f64(value, &f))
            return garbled(io, "float");
        iok_tape_f64(io->tape, type == PG_FLOAT4 ? (double)(float)f : f);
        return 0;
    }
    if (!iok_span_i64(value, &i))
        return garbled(io, "integer");
    iok_tape_i64(io->tape, i);
    return 0;
}

int pg_decode_text(struct iok_io *io, uint16_t type, struct iok_span value, struct pg_bytes *scratch)
{
    switch (type) {
    case PG_UNKNOWN:
    case PG_OTHER:
    case PG_JSONB:
    case PG_MACADDR:
    case PG_MACADDR8:
    case PG_BIT:
        iok_tape_copy(io->tape, IOK_TEXT, 0, value);
        return 0;
    case PG_BOOL:
        if (value.n != 1 || (value.p[0] != 't' && value.p[0] != 'f'))
            return garbled(io, "boolean");
        iok_tape_bool(io->tape, value.p[0] == 't');
        return 0;
    case PG_NUMERIC:
        iok_tape_copy(io->tape, IOK_DECIMAL, IOK_KIND_EXACT, value);
        return 0;
    case PG_BYTEA:
    case PG_UUID:
        return put_octets(io, type, value, scratch);
    case PG_DATE:
    case PG_TIME:
    case PG_TIMESTAMP:
    case PG_TIMESTAMPTZ:
    case PG_TIMETZ:
    case PG_INTERVAL:
        put_moment_or_text(io->tape, type, value);
        return 0;
    case PG_INET:
    case PG_CIDR:
        return pg_decode_address_text(io->tape, type == PG_CIDR, value) ? 0 : garbled(io, "network address");
    default:
        break;
    }
    return (type & (PG_RANGE | PG_MULTIRANGE)) != 0 ? pg_decode_range_text(io, type, value, scratch)
                                                    : put_number(io, type, value);
}

/* ---- arrays --------------------------------------------------------------------------------------------------- */

struct array {
    struct iok_io *io;
    struct iok_span rest;
    uint16_t element;
    struct pg_bytes *scratch;
    struct pg_bytes plain; /* an element without its quotes */
};

static int plain_put(struct array *array, uint8_t c)
{
    return pg_bytes_put(&array->plain, iok_span(&c, 1)) ? 0 : iok_io_fail(array->io, IOK_ENOMEM, "out of memory");
}

/* "a\"b" without quotes and backslashes into plain */
static int take_quoted(struct array *array)
{
    int rc = 0;
    while (rc == 0 && array->rest.n > 0 && !pg_take_char(&array->rest, '"')) {
        if (pg_take_char(&array->rest, '\\') && array->rest.n == 0)
            break;
        rc = plain_put(array, array->rest.p[0]);
        array->rest = iok_span_skip(array->rest, 1);
        if (rc == 0 && array->rest.n == 0)
            return garbled(array->io, "array");
    }
    return rc;
}

static int take_element(struct array *array)
{
    array->plain.n = 0;
    bool quoted = pg_take_char(&array->rest, '"');
    int rc = quoted ? take_quoted(array) : 0;
    while (!quoted && rc == 0 && array->rest.n > 0 && array->rest.p[0] != ',' && array->rest.p[0] != '}') {
        rc = plain_put(array, array->rest.p[0]);
        array->rest = iok_span_skip(array->rest, 1);
    }
    if (rc < 0)
        return rc;
    struct iok_span value = iok_span(array->plain.p, array->plain.n);
    if (!quoted && iok_span_eq(value, iok_span_of("NULL"))) {
        iok_tape_null(array->io->tape);
        return 0;
    }
    return pg_decode_text(array->io, array->element, value, array->scratch);
}

static int take_array(struct array *array, unsigned depth)
{
    struct iok_tape *tape = array->io->tape;
    uint32_t head = tape->n_tokens, n = 0;
    if (depth > DEPTH_MAX || !pg_take_char(&array->rest, '{'))
        return garbled(array->io, "array");
    iok_tape_head(tape, IOK_ARRAY, 0);
    if (pg_take_char(&array->rest, '}'))
        return 0;
    do {
        bool inner = array->rest.n > 0 && array->rest.p[0] == '{';
        int rc = inner ? take_array(array, depth + 1) : take_element(array);
        if (rc < 0)
            return rc;
        n++;
    } while (pg_take_char(&array->rest, ','));
    if (!pg_take_char(&array->rest, '}'))
        return garbled(array->io, "array");
    iok_tape_patch(tape, head, n);
    return 0;
}

int pg_decode_text_array(struct iok_io *io, uint16_t element, struct iok_span value, struct pg_bytes *scratch)
{
    struct array array = {.io = io, .rest = value, .element = element, .scratch = scratch};
    /* [0:2]={...}: lower bounds other than 1 */
    if (value.n > 0 && value.p[0] == '[') {
        const uint8_t *equals = memchr(value.p, '=', value.n);
        array.rest = equals == NULL ? iok_span(NULL, 0) : iok_span_skip(value, (size_t)(equals - value.p) + 1);
    }
    int rc = take_array(&array, 1);
    pg_bytes_free(&array.plain);
    return rc == 0 && array.rest.n > 0 ? garbled(io, "array") : rc;
}
