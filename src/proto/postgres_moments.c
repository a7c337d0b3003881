/* postgres_moments.c - intervals, and times of day with a zone, in both formats; dates and timestamps are in
 * postgres_values.c and postgres_text.c. Both give the same tokens: IOK_KIND_INTERVAL, IOK_KIND_TIMETZ.
 *
 * The text of an interval depends on IntervalStyle: postgres, postgres_verbose, iso_8601 and sql_standard are read. What
 * has more than its token can hold (infinity, from PostgreSQL 17 on) comes as text. */
#include "postgres.h"

#include <stdio.h>

#define INTERVAL_BYTES 16u
#define TIMETZ_BYTES 12u
#define ZONE_END_S 86400 /* beyond all that the server takes, and what Python's does not reach */
#define HOUR_US INT64_C(3600000000)

static uint8_t *put_i64(uint8_t *at, int64_t value)
{
    uint64_t bits = (uint64_t)value;
    return pg_put_u32(pg_put_u32(at, bits >> 32), bits & 0xffffffff);
}

static bool put_interval(struct iok_tape *tape, int64_t us, int64_t days, int64_t months)
{
    uint8_t bytes[INTERVAL_BYTES];
    if (days < INT32_MIN || days > INT32_MAX || months < INT32_MIN || months > INT32_MAX)
        return false;
    pg_put_u32(pg_put_u32(put_i64(bytes, us), (uint32_t)days), (uint32_t)months);
    iok_tape_copy(tape, IOK_BYTES, IOK_KIND_INTERVAL, iok_span(bytes, sizeof(bytes)));
    return true;
}

/* 24:00+01 comes as text, as 24:00 without a zone does. */
static bool put_timetz(struct iok_tape *tape, int64_t us, int64_t east)
{
    uint8_t bytes[TIMETZ_BYTES];
    char text[32];
    if (us < 0 || us > PG_DAY_US || east <= -ZONE_END_S || east >= ZONE_END_S)
        return false;
    if (us < PG_DAY_US) {
        pg_put_u32(put_i64(bytes, us), (uint32_t)east);
        iok_tape_copy(tape, IOK_BYTES, IOK_KIND_TIMETZ, iok_span(bytes, sizeof(bytes)));
        return true;
    }
    int s = (int)(east < 0 ? -east : east);
    int n = snprintf(text, sizeof(text), "24:00:00%c%02d", east < 0 ? '-' : '+', s / 3600);
    if (s % 3600 != 0)
        n += snprintf(text + n, sizeof(text) - (size_t)n, ":%02d", s / 60 % 60);
    if (s % 60 != 0)
        n += snprintf(text + n, sizeof(text) - (size_t)n, ":%02d", s % 60);
    iok_tape_copy(tape, IOK_TEXT, 0, iok_span(text, (size_t)n));
    return true;
}

/* ---- binary --------------------------------------------------------------------------------------------------- */

/* interval_send: microseconds, days, months. All at their ends are infinity. */
static void decode_interval(struct iok_tape *tape, const uint8_t *p)
{
    int64_t us = (int64_t)pg_u64(p);
    int32_t days = (int32_t)pg_u32(p + 8), months = (int32_t)pg_u32(p + 12);
    if (us == INT64_MAX && days == INT32_MAX && months == INT32_MAX)
        iok_tape_static(tape, IOK_TEXT, iok_span_of("infinity"));
    else if (us == INT64_MIN && days == INT32_MIN && months == INT32_MIN)
        iok_tape_static(tape, IOK_TEXT, iok_span_of("-infinity"));
    else
        (void)put_interval(tape, us, days, months);
}

bool pg_decode_moment(struct iok_tape *tape, uint16_t type, struct iok_span value)
{
    if (type == PG_INTERVAL && value.n == INTERVAL_BYTES) {
        decode_interval(tape, value.p);
        return true;
    }
    if (type == PG_TIMETZ && value.n == TIMETZ_BYTES) /* timetz_send: microseconds, seconds west */
        return put_timetz(tape, (int64_t)pg_u64(value.p), -(int64_t)(int32_t)pg_u32(value.p + 8));
    return false;
}

/* ---- text of an interval -------------------------------------------------------------------------------------- */

struct interval {
    struct iok_span rest;
    int64_t us, days, months;
};

static bool at_digit(struct iok_span text)
{
    return text.n > 0 && text.p[0] >= '0' && text.p[0] <= '9';
}

/* Digits; as many as a number of hours has in 2^63 microseconds, and no more than the longest of others. */
static bool take_digits(struct iok_span *text, int64_t *number)
{
    size_t n = 0;
    *number = 0;
    for (; at_digit(*text) && n < 12; n++) {
        *number = *number * 10 + (text->p[0] - '0');
        *text = iok_span_skip(*text, 1);
    }
    return n > 0 && !at_digit(*text);
}

/* .789 in microseconds; nothing is 0. */
static bool take_fraction(struct iok_span *text, int64_t *us)
{
    size_t n = 0;
    *us = 0;
    if (!pg_take_char(text, '.'))
        return true;
    for (; n < 6; n++) {
        *us *= 10;
        if (at_digit(*text)) {
            *us += text->p[0] - '0';
            *text = iok_span_skip(*text, 1);
        }
    }
    return !at_digit(*text);
}

/* +-(number * unit + extra) to *sum. */
static bool add(int64_t *sum, bool negative, int64_t number, int64_t unit, int64_t extra)
{
    int64_t product;
    if (__builtin_mul_overflow(negative ? -number : number, unit, &product) ||
        __builtin_add_overflow(product, negative ? -extra : extra, &product))
        return false;
    return !__builtin_add_overflow(*sum, product, sum);
}

/* After the hours of 04:05:06.789 */
static bool take_clock(struct interval *interval, bool negative, int64_t hours)
{
    int64_t minutes, seconds = 0, fraction = 0;
    if (!pg_take_char(&interval->rest, ':') || !take_digits(&interval->rest, &minutes) || minutes > 59)
        return false;
    if (pg_take_char(&interval->rest, ':') && (!take_digits(&interval->rest, &seconds) || seconds > 59))
        return false;
    if (!take_fraction(&interval->rest, &fraction))
        return false;
    return add(&interval->us, negative, hours, HOUR_US, (minutes * 60 + seconds) * 1000000 + fraction);
}

static bool add_unit(struct interval *interval, struct iok_span unit, bool negative, int64_t number, int64_t fraction)
{
    static const struct unit {
        const char *names[3]; /* one, many, and that of ISO 8601 before the T */
        int64_t us, days, months;
    } units[] = {
        {{"year", "years", "Y"}, 0, 0, 12},      {{"mon", "mons", "M"}, 0, 0, 1},
        {{"day", "days", "D"}, 0, 1, 0},         {{"hour", "hours", "TH"}, HOUR_US, 0, 0},
        {{"min", "mins", "TM"}, 60000000, 0, 0}, {{"sec", "secs", "TS"}, 1000000, 0, 0},
    };
    for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++)
        for (size_t name = 0; name < 3; name++)
            if (iok_span_eq(unit, iok_span_of(units[i].names[name])))
                return (fraction == 0 || units[i].us == 1000000) &&
                       add(&interval->us, negative, number, units[i].us, fraction) &&
                       add(&interval->days, negative, number, units[i].days, 0) &&
                       add(&interval->months, negative, number, units[i].months, 0);
    return false;
}

static struct iok_span take_unit(struct iok_span *text)
{
    size_t n = 0;
    while (n < text->n && text->p[n] >= 'a' && text->p[n] <= 'z')
        n++;
    struct iok_span unit = iok_span(text->p, n);
    *text = iok_span_skip(*text, n);
    return unit;
}

/* One of: 04:05:06.7   1 year   0.5 secs   1-2 (years and months)   3 (days) */
static bool take_part(struct interval *interval, bool *negative)
{
    int64_t number, more;
    if (pg_take_char(&interval->rest, '-'))
        *negative = true;
    else if (pg_take_char(&interval->rest, '+'))
        *negative = false;
    if (!take_digits(&interval->rest, &number))
        return false;
    if (interval->rest.n > 0 && interval->rest.p[0] == ':')
        return take_clock(interval, *negative, number);
    if (pg_take_char(&interval->rest, '-'))
        return take_digits(&interval->rest, &more) && add(&interval->months, *negative, number, 12, more);
    if (!take_fraction(&interval->rest, &more))
        return false;
    struct iok_span before = interval->rest;
    (void)pg_take_char(&interval->rest, ' ');
    struct iok_span unit = take_unit(&interval->rest);
    if (unit.n > 0 && !iok_span_eq(unit, iok_span_of("ago"))) {
        bool this = *negative;
        *negative = false;
        return add_unit(interval, unit, this, number, more);
    }
    interval->rest = before;
    return more == 0 && add(&interval->days, *negative, number, 1, 0);
}

/* P1Y2M3DT4H5M6.7S */
static bool take_iso(struct interval *interval)
{
    bool time = false;
    char name[2] = {'T'};
    while (interval->rest.n > 0) {
        int64_t number, fraction;
        time |= pg_take_char(&interval->rest, 'T');
        bool negative = pg_take_char(&interval->rest, '-');
        if (!take_digits(&interval->rest, &number) || !take_fraction(&interval->rest, &fraction) ||
            interval->rest.n == 0)
            return false;
        name[1] = (char)interval->rest.p[0];
        interval->rest = iok_span_skip(interval->rest, 1);
        struct iok_span unit = time ? iok_span(name, 2) : iok_span(name + 1, 1);
        if (!add_unit(interval, unit, negative, number, fraction))
            return false;
    }
    return true;
}

/* The sign of a part with a unit is its own; that of one without, as sql_standard writes them, holds for those that
 * follow without a sign: -3 0:00:01. */
static bool take_parts(struct interval *interval)
{
    bool negative = false, ago = false;
    if (pg_take_char(&interval->rest, '@'))
        (void)pg_take_char(&interval->rest, ' ');
    while (interval->rest.n > 0 && !ago) {
        if (!take_part(interval, &negative))
            return false;
        if (interval->rest.n > 0 && !pg_take_char(&interval->rest, ' '))
            return false;
        ago = iok_span_eq(interval->rest, iok_span_of("ago"));
    }
    if (!ago)
        return true;
    interval->rest = iok_span(NULL, 0);
    interval->months = -interval->months;
    interval->days = -interval->days;
    return !__builtin_sub_overflow(0, interval->us, &interval->us);
}

bool pg_decode_interval_text(struct iok_tape *tape, struct iok_span text)
{
    struct interval interval = {.rest = text};
    bool ok = text.n > 0 && (pg_take_char(&interval.rest, 'P') ? take_iso(&interval) : take_parts(&interval));
    return ok && put_interval(tape, interval.us, interval.days, interval.months);
}

bool pg_decode_timetz_text(struct iok_tape *tape, struct iok_span text)
{
    int64_t us, east;
    if (!pg_take_time(&text, &us) || !pg_take_zone(&text, &east) || text.n > 0)
        return false;
    return put_timetz(tape, us, east / 1000000);
}
