/* postgres_values.c - values in the binary format as tokens, and what all formats share.
 *
 * The formats are those of the server's send functions (src/backend/utils/adt/NAME.c, function NAME_send); the manual
 * names them only for the wire as a whole ([PG] "Overview, Formats and Format Codes").
 *
 * Invariant: whatever the bytes are, one whole value is appended, or an error is returned. */
#include "postgres.h"

#include <stdio.h>

#include "../base/mem.h"

#define DIMENSIONS_MAX 6u /* MAXDIM of the server */

/* ---- bytes ---------------------------------------------------------------------------------------------------- */

bool pg_bytes_put(struct pg_bytes *bytes, struct iok_span more)
{
    if (more.n > bytes->cap - bytes->n) {
        size_t cap = bytes->cap * 2 > bytes->n + more.n ? bytes->cap * 2 : bytes->n + more.n;
        uint8_t *p = iok_realloc(bytes->p, cap);
        if (p == NULL)
            return false;
        bytes->p = p;
        bytes->cap = cap;
    }
    if (more.n > 0)
        memcpy(bytes->p + bytes->n, more.p, more.n);
    bytes->n += more.n;
    return true;
}

void pg_bytes_free(struct pg_bytes *bytes)
{
    iok_free(bytes->p);
    *bytes = (struct pg_bytes){0};
}

bool pg_take_cstring(struct iok_span *from, struct iok_span *text)
{
    const uint8_t *end = from->n > 0 ? memchr(from->p, '\0', from->n) : NULL;
    if (end == NULL)
        return false;
    *text = iok_span(from->p, (size_t)(end - from->p));
    *from = iok_span_skip(*from, text->n + 1);
    return true;
}

/* ---- moments -------------------------------------------------------------------------------------------------- */

/* Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": days from and to a date, by eras of 400 years. */
int64_t pg_days_of(int64_t year, int64_t month, int64_t day)
{
    int64_t y = year - (month <= 2);
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t of_era = y - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t days = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    return era * 146097 + days - 719468 - 10957; /* 1970-01-01, then 2000-01-01 */
}

static void date_of(int64_t days, int64_t *year, int *month, int *day)
{
    days += 719468 + 10957;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t of_era = days - era * 146097;
    int64_t y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * y + y / 4 - y / 100);
    int64_t m = (5 * of_year + 2) / 153;
    *day = (int)(of_year - (153 * m + 2) / 5 + 1);
    *month = (int)(m < 10 ? m + 3 : m - 9);
    *year = y + era * 400 + (*month <= 2);
}

/* As with DateStyle ISO. */
size_t pg_format_moment(char *at, uint16_t kind, int64_t days, int64_t us)
{
    int64_t year;
    int month, day;
    date_of(days, &year, &month, &day);
    int n = snprintf(at, PG_MOMENT_BYTES, "%04lld-%02d-%02d", (long long)(year > 0 ? year : 1 - year), month, day);
    if (kind != IOK_KIND_DATE) {
        int seconds = (int)(us / 1000000), micros = (int)(us % 1000000);
        n += snprintf(at + n, PG_MOMENT_BYTES - (size_t)n, " %02d:%02d:%02d", seconds / 3600, seconds / 60 % 60,
                      seconds % 60);
        if (micros != 0)
            n += snprintf(at + n, PG_MOMENT_BYTES - (size_t)n, ".%06d", micros);
    }
    n += snprintf(at + n, PG_MOMENT_BYTES - (size_t)n, "%s%s", kind == 0 ? "+00" : "", year > 0 ? "" : " BC");
    return (size_t)n;
}

void pg_put_moment(struct iok_tape *tape, uint16_t kind, int64_t days, int64_t us)
{
    char text[PG_MOMENT_BYTES];
    days += us / PG_DAY_US;
    us %= PG_DAY_US;
    if (us < 0) {
        us += PG_DAY_US;
        days--;
    }
    if (days >= pg_days_of(1, 1, 1) && days < pg_days_of(10000, 1, 1))
        iok_tape_timestamp(tape, kind, days * PG_DAY_US + us + PG_EPOCH_US);
    else
        iok_tape_copy(tape, IOK_TEXT, 0, iok_span(text, pg_format_moment(text, kind, days, us)));
}

void pg_put_time(struct iok_tape *tape, int64_t us)
{
    if (us >= 0 && us < PG_DAY_US)
        iok_tape_timestamp(tape, IOK_KIND_TIME, us);
    else
        iok_tape_static(tape, IOK_TEXT, iok_span_of("24:00:00")); /* the only other one that the server has */
}

static void put_infinity(struct iok_tape *tape, bool negative)
{
    iok_tape_static(tape, IOK_TEXT, iok_span_of(negative ? "-infinity" : "infinity"));
}

static void put_date(struct iok_tape *tape, int32_t days)
{
    if (days == INT32_MAX || days == INT32_MIN)
        put_infinity(tape, days < 0);
    else
        pg_put_moment(tape, IOK_KIND_DATE, days, 0);
}

static void put_timestamp(struct iok_tape *tape, uint16_t kind, int64_t us)
{
    if (us == INT64_MAX || us == INT64_MIN)
        put_infinity(tape, us < 0);
    else
        pg_put_moment(tape, kind, 0, us);
}

/* ---- numeric -------------------------------------------------------------------------------------------------- */

/* numeric_send: digits of base 10000, the first of which has the weight 10000^weight. */
struct numeric {
    struct iok_span digits;
    int weight;
    unsigned sign, scale;
};

static unsigned numeric_digit(const struct numeric *number, int at)
{
    return at >= 0 && (size_t)at < number->digits.n / 2 ? pg_u16(number->digits.p + 2 * at) : 0;
}

static bool put_four(struct pg_bytes *text, unsigned digit, bool first, size_t cap)
{
    char four[8];
    int n = snprintf(four, sizeof(four), first ? "%u" : "%04u", digit);
    return pg_bytes_put(text, iok_span(four, (size_t)n < cap ? (size_t)n : cap));
}

static bool format_numeric(const struct numeric *number, struct pg_bytes *text)
{
    bool ok = number->sign == 0 || pg_bytes_put(text, iok_span_of("-"));
    if (number->weight < 0)
        ok = ok && pg_bytes_put(text, iok_span_of("0"));
    for (int i = 0; i <= number->weight && ok; i++)
        ok = put_four(text, numeric_digit(number, i), i == 0, 4);
    if (number->scale > 0)
        ok = ok && pg_bytes_put(text, iok_span_of("."));
    unsigned left = number->scale;
    for (int i = number->weight + 1; left > 0 && ok; i++) {
        ok = put_four(text, numeric_digit(number, i), false, left);
        left -= left < 4 ? left : 4;
    }
    return ok;
}

static int garbled(struct iok_io *io, const char *what)
{
    return iok_io_fail(io, IOK_EPROTO, "a value that is not a %s of the server's binary format", what);
}

static int no_memory(struct iok_io *io)
{
    return iok_io_fail(io, IOK_ENOMEM, "out of memory for a value");
}

static int put_numeric(struct iok_io *io, struct iok_span value, struct pg_bytes *scratch)
{
    if (value.n < 8 || value.n != 8 + 2 * (size_t)pg_u16(value.p))
        return garbled(io, "numeric");
    struct numeric number = {
        .digits = iok_span_skip(value, 8),
        .weight = (int16_t)pg_u16(value.p + 2),
        .sign = pg_u16(value.p + 4),
        .scale = pg_u16(value.p + 6),
    };
    for (int i = 0; i < (int)(number.digits.n / 2); i++)
        if (numeric_digit(&number, i) > 9999)
            return garbled(io, "numeric");
    scratch->n = 0;
    bool ok;
    switch (number.sign) {
    case 0x0000:
    case 0x4000:
        ok = format_numeric(&number, scratch);
        break;
    case 0xc000:
        ok = pg_bytes_put(scratch, iok_span_of("NaN"));
        break;
    case 0xd000:
        ok = pg_bytes_put(scratch, iok_span_of("Infinity"));
        break;
    case 0xf000:
        ok = pg_bytes_put(scratch, iok_span_of("-Infinity"));
        break;
    default:
        return garbled(io, "numeric");
    }
    if (!ok)
        return no_memory(io);
    iok_tape_copy(io->tape, IOK_DECIMAL, IOK_KIND_EXACT, iok_span(scratch->p, scratch->n));
    return 0;
}

/* ---- scalars -------------------------------------------------------------------------------------------------- */

static size_t size_of(uint16_t type)
{
    switch (type) {
    case PG_BOOL:
        return 1;
    case PG_INT2:
        return 2;
    case PG_INT4:
    case PG_OID:
    case PG_FLOAT4:
    case PG_DATE:
        return 4;
    case PG_UUID:
        return 16;
    default:
        return 8;
    }
}

static const char *name_of(uint16_t type)
{
    switch (type) {
    case PG_BOOL:
        return "boolean";
    case PG_FLOAT4:
    case PG_FLOAT8:
        return "float";
    case PG_DATE:
    case PG_TIME:
    case PG_TIMESTAMP:
    case PG_TIMESTAMPTZ:
    case PG_TIMETZ:
        return "date or time";
    case PG_INTERVAL:
        return "interval";
    case PG_INET:
    case PG_CIDR:
        return "network address";
    case PG_MACADDR:
    case PG_MACADDR8:
        return "MAC address";
    case PG_BIT:
        return "bit string";
    case PG_UUID:
        return "uuid";
    default:
        return "integer";
    }
}

static void put_float(struct iok_tape *tape, const uint8_t *p, bool four)
{
    double value;
    if (four) {
        uint32_t bits = pg_u32(p);
        float single;
        memcpy(&single, &bits, sizeof(single));
        value = (double)single;
    } else {
        uint64_t bits = pg_u64(p);
        memcpy(&value, &bits, sizeof(value));
    }
    iok_tape_f64(tape, value);
}

static void put_fixed(struct iok_tape *tape, uint16_t type, const uint8_t *p)
{
    switch (type) {
    case PG_BOOL:
        iok_tape_bool(tape, *p != 0);
        break;
    case PG_INT2:
        iok_tape_i64(tape, (int16_t)pg_u16(p));
        break;
    case PG_INT4:
        iok_tape_i64(tape, (int32_t)pg_u32(p));
        break;
    case PG_OID:
        iok_tape_i64(tape, pg_u32(p));
        break;
    case PG_FLOAT4:
    case PG_FLOAT8:
        put_float(tape, p, type == PG_FLOAT4);
        break;
    case PG_DATE:
        put_date(tape, (int32_t)pg_u32(p));
        break;
    case PG_TIME:
        pg_put_time(tape, (int64_t)pg_u64(p));
        break;
    case PG_TIMESTAMP:
    case PG_TIMESTAMPTZ:
        put_timestamp(tape, type == PG_TIMESTAMP ? IOK_KIND_LOCAL : 0, (int64_t)pg_u64(p));
        break;
    default:
        iok_tape_i64(tape, (int64_t)pg_u64(p));
    }
}

int pg_decode_scalar(struct iok_io *io, uint16_t type, struct iok_span value, struct pg_bytes *scratch)
{
    switch (type) {
    case PG_UNKNOWN:
        iok_tape_copy(io->tape, IOK_TEXT, 0, value);
        return 0;
    case PG_BYTEA:
        iok_tape_copy(io->tape, IOK_BYTES, 0, value);
        return 0;
    case PG_NUMERIC:
        return put_numeric(io, value, scratch);
    case PG_JSONB:
        if (value.n < 1 || value.p[0] != 1) /* its version */
            return garbled(io, "jsonb");
        iok_tape_copy(io->tape, IOK_TEXT, 0, iok_span_skip(value, 1));
        return 0;
    case PG_INTERVAL:
    case PG_TIMETZ:
        return pg_decode_moment(io->tape, type, value) ? 0 : garbled(io, name_of(type));
    case PG_INET:
    case PG_CIDR:
    case PG_MACADDR:
    case PG_MACADDR8:
    case PG_BIT:
        return pg_decode_net(io->tape, type, value) ? 0 : garbled(io, name_of(type));
    default:
        break;
    }
    if ((type & (PG_RANGE | PG_MULTIRANGE)) != 0)
        return pg_decode_range(io, type, value, scratch);
    if (value.n != size_of(type))
        return garbled(io, name_of(type));
    if (type == PG_UUID)
        iok_tape_copy(io->tape, IOK_BYTES, IOK_KIND_UUID, value);
    else
        put_fixed(io->tape, type, value.p);
    return 0;
}

/* ---- arrays --------------------------------------------------------------------------------------------------- */

struct array {
    struct iok_io *io;
    struct iok_span rest;
    struct pg_bytes *scratch;
    uint16_t element;
    uint32_t n_sizes;
    uint32_t sizes[DIMENSIONS_MAX];
};

static int put_element(struct array *array)
{
    if (array->rest.n < 4)
        return garbled(array->io, "array");
    uint32_t n = pg_u32(array->rest.p);
    array->rest = iok_span_skip(array->rest, 4);
    if (n == UINT32_MAX) {
        iok_tape_null(array->io->tape);
        return 0;
    }
    if (n > array->rest.n)
        return garbled(array->io, "array");
    struct iok_span value = iok_span(array->rest.p, n);
    array->rest = iok_span_skip(array->rest, n);
    return pg_decode_scalar(array->io, array->element, value, array->scratch);
}

static int put_dimension(struct array *array, uint32_t dimension)
{
    int rc = 0;
    iok_tape_head(array->io->tape, IOK_ARRAY, array->sizes[dimension]);
    for (uint32_t i = 0; i < array->sizes[dimension] && rc == 0; i++)
        rc = dimension + 1 < array->n_sizes ? put_dimension(array, dimension + 1) : put_element(array);
    return rc;
}

/* array_send: dimensions, whether NULLs are there, the element's OID; of each dimension its size and lower bound. */
static int put_array(struct iok_io *io, uint16_t element, struct iok_span value, struct pg_bytes *scratch)
{
    struct array array = {.io = io, .scratch = scratch, .element = element};
    if (value.n < 12)
        return garbled(io, "array");
    array.n_sizes = pg_u32(value.p);
    if (array.n_sizes > DIMENSIONS_MAX || value.n < 12 + 8 * (size_t)array.n_sizes)
        return garbled(io, "array");
    uint64_t elements = 1;
    for (uint32_t i = 0; i < array.n_sizes; i++) {
        array.sizes[i] = pg_u32(value.p + 12 + (size_t)8 * i);
        elements *= array.sizes[i];
        if (array.sizes[i] == 0 || elements > value.n / 4) /* each has a length, so there cannot be more */
            return garbled(io, "array");
    }
    array.rest = iok_span_skip(value, 12 + 8 * (size_t)array.n_sizes);
    if (array.n_sizes == 0)
        iok_tape_head(io->tape, IOK_ARRAY, 0);
    int rc = array.n_sizes == 0 ? 0 : put_dimension(&array, 0);
    return rc == 0 && array.rest.n > 0 ? garbled(io, "array") : rc;
}

int pg_decode(struct iok_io *io, uint16_t type, bool binary, struct iok_span value, struct pg_bytes *scratch)
{
    uint16_t element = type & (uint16_t)~PG_ARRAY;
    if ((type & PG_ARRAY) != 0)
        return binary ? put_array(io, element, value, scratch) : pg_decode_text_array(io, element, value, scratch);
    return binary ? pg_decode_scalar(io, type, value, scratch) : pg_decode_text(io, type, value, scratch);
}
