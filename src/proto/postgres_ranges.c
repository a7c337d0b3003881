/* postgres_ranges.c - ranges and multiranges, in both formats: an array of IOK_KIND_RANGE, an array of them of
 * IOK_KIND_MULTIRANGE. Their bounds are values as any. */
#include "postgres.h"

/* range_send, utils/rangetypes.h */
enum flags {
    EMPTY = 0x01,
    LOWER_INCLUSIVE = 0x02,
    UPPER_INCLUSIVE = 0x04,
    LOWER_INFINITE = 0x08,
    UPPER_INFINITE = 0x10,
};

static int garbled(struct iok_io *io)
{
    return iok_io_fail(io, IOK_EPROTO, "a value that is not a range as the server sends them");
}

static void put_kind(struct iok_tape *tape, unsigned flags)
{
    static const char *const kinds[] = {"()", "[)", "(]", "[]"};
    unsigned inclusive = flags / LOWER_INCLUSIVE & 3u;
    iok_tape_static(tape, IOK_TEXT, iok_span_of((flags & EMPTY) != 0 ? "empty" : kinds[inclusive]));
}

static void put_empty(struct iok_tape *tape)
{
    iok_tape_null(tape);
    iok_tape_null(tape);
    put_kind(tape, EMPTY);
}

/* ---- binary --------------------------------------------------------------------------------------------------- */

/* A length and so many octets. */
static bool take_sized(struct iok_span *from, struct iok_span *value)
{
    if (from->n < 4 || pg_u32(from->p) > from->n - 4)
        return false;
    *value = iok_span(from->p + 4, pg_u32(from->p));
    *from = iok_span_skip(*from, 4 + value->n);
    return true;
}

static int decode_bound(struct iok_io *io, uint16_t type, bool there, struct iok_span *rest, struct pg_bytes *scratch)
{
    struct iok_span value;
    if (!there) {
        iok_tape_null(io->tape);
        return 0;
    }
    return take_sized(rest, &value) ? pg_decode_scalar(io, type, value, scratch) : garbled(io);
}

/* Flags, then the bounds that are there. */
static int decode_range(struct iok_io *io, uint16_t type, struct iok_span value, struct pg_bytes *scratch)
{
    if (value.n == 0)
        return garbled(io);
    unsigned flags = value.p[0];
    struct iok_span rest = iok_span_skip(value, 1);
    iok_tape_head_of(io->tape, IOK_ARRAY, IOK_KIND_RANGE, 3);
    if ((flags & EMPTY) != 0) {
        put_empty(io->tape);
    } else {
        int rc = decode_bound(io, type, (flags & LOWER_INFINITE) == 0, &rest, scratch);
        if (rc == 0)
            rc = decode_bound(io, type, (flags & UPPER_INFINITE) == 0, &rest, scratch);
        if (rc < 0)
            return rc;
        put_kind(io->tape, flags);
    }
    return rest.n > 0 ? garbled(io) : 0;
}

/* multirange_send: how many, then of each its length and itself. */
static int decode_multirange(struct iok_io *io, uint16_t type, struct iok_span value, struct pg_bytes *scratch)
{
    struct iok_span one, rest = iok_span_skip(value, 4);
    if (value.n < 4 || pg_u32(value.p) > rest.n / 4)
        return garbled(io);
    uint32_t n = pg_u32(value.p);
    iok_tape_head_of(io->tape, IOK_ARRAY, IOK_KIND_MULTIRANGE, n);
    for (uint32_t i = 0; i < n; i++) {
        int rc = take_sized(&rest, &one) ? decode_range(io, type, one, scratch) : garbled(io);
        if (rc < 0)
            return rc;
    }
    return rest.n > 0 ? garbled(io) : 0;
}

int pg_decode_range(struct iok_io *io, uint16_t type, struct iok_span value, struct pg_bytes *scratch)
{
    return (type & PG_MULTIRANGE) != 0 ? decode_multirange(io, PG_SCALAR(type), value, scratch)
                                       : decode_range(io, PG_SCALAR(type), value, scratch);
}

/* ---- text ----------------------------------------------------------------------------------------------------- */

struct reader {
    struct iok_io *io;
    struct iok_span rest;
    uint16_t type;
    struct pg_bytes *scratch;
    struct pg_bytes plain; /* a bound without its quotes */
};

static bool take(struct reader *reader, char c)
{
    if (reader->rest.n == 0 || reader->rest.p[0] != (uint8_t)c)
        return false;
    reader->rest = iok_span_skip(reader->rest, 1);
    return true;
}

static bool at_end_of_bound(const struct reader *reader)
{
    return reader->rest.p[0] == ',' || reader->rest.p[0] == ')' || reader->rest.p[0] == ']';
}

/* Up to the comma or the bracket: "a""b" and a\"b are a"b. Nothing at all: no bound. */
static int read_bound(struct reader *reader)
{
    bool quoted = false, any = false;
    reader->plain.n = 0;
    while (reader->rest.n > 0 && (quoted || !at_end_of_bound(reader))) {
        any = true;
        if (take(reader, '"')) {
            bool doubled = quoted && reader->rest.n > 0 && reader->rest.p[0] == '"';
            quoted = !quoted || doubled;
            if (!doubled)
                continue;
        } else if (take(reader, '\\') && reader->rest.n == 0) {
            break;
        }
        if (!pg_bytes_put(&reader->plain, iok_span(reader->rest.p, 1)))
            return iok_io_fail(reader->io, IOK_ENOMEM, "out of memory for a range");
        reader->rest = iok_span_skip(reader->rest, 1);
    }
    if (reader->rest.n == 0)
        return garbled(reader->io);
    if (any)
        return pg_decode_text(reader->io, reader->type, iok_span(reader->plain.p, reader->plain.n), reader->scratch);
    iok_tape_null(reader->io->tape);
    return 0;
}

/* empty, [1,5), (,"2024-01-01 00:00:00"] */
static int read_range(struct reader *reader)
{
    struct iok_tape *tape = reader->io->tape;
    unsigned flags = 0;
    iok_tape_head_of(tape, IOK_ARRAY, IOK_KIND_RANGE, 3);
    if (reader->rest.n >= 5 && memcmp(reader->rest.p, "empty", 5) == 0) {
        reader->rest = iok_span_skip(reader->rest, 5);
        put_empty(tape);
        return 0;
    }
    if (take(reader, '['))
        flags |= LOWER_INCLUSIVE;
    else if (!take(reader, '('))
        return garbled(reader->io);
    int rc = read_bound(reader);
    if (rc == 0)
        rc = take(reader, ',') ? read_bound(reader) : garbled(reader->io);
    if (rc < 0)
        return rc;
    if (take(reader, ']'))
        flags |= UPPER_INCLUSIVE;
    else if (!take(reader, ')'))
        return garbled(reader->io);
    put_kind(tape, flags);
    return 0;
}

/* {[1,5),[7,9)} */
static int read_multirange(struct reader *reader)
{
    struct iok_tape *tape = reader->io->tape;
    uint32_t head = tape->n_tokens, n = 0;
    if (!take(reader, '{'))
        return garbled(reader->io);
    iok_tape_head_of(tape, IOK_ARRAY, IOK_KIND_MULTIRANGE, 0);
    if (take(reader, '}'))
        return 0;
    do {
        int rc = read_range(reader);
        if (rc < 0)
            return rc;
        n++;
    } while (take(reader, ','));
    if (!take(reader, '}'))
        return garbled(reader->io);
    iok_tape_patch(tape, head, n);
    return 0;
}

int pg_decode_range_text(struct iok_io *io, uint16_t type, struct iok_span value, struct pg_bytes *scratch)
{
    struct reader reader = {.io = io, .rest = value, .type = PG_SCALAR(type), .scratch = scratch};
    int rc = (type & PG_MULTIRANGE) != 0 ? read_multirange(&reader) : read_range(&reader);
    pg_bytes_free(&reader.plain);
    return rc == 0 && reader.rest.n > 0 ? garbled(io) : rc;
}
