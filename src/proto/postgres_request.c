/* postgres_request.c - requests as messages of the extended query protocol, each in one piece that ends in its own Sync.
 *
 *     new      [Close S] Parse S  Describe S  Bind  Execute  Sync      S is kept for the next time
 *     known                                   Bind  Execute  Sync
 *     once               Parse "" Describe "" Bind  Execute  Sync      no room, or the same text is being parsed
 *     more                                          Execute  Sync      of a cursor; or it is closed: Close Sync
 *     describe           Parse "" Describe ""                Sync      what it takes and gives; it does not run
 *
 * So a request costs one round trip whether it is new or not, and one that fails touches no other: the server skips
 * up to the Sync. How a parameter goes is in postgres_params.c.
 *
 * Large parameters go by reference, from the program's memory to the socket.
 *
 * Invariant: a request is looked at as a whole before the first byte is appended. [PG] "Extended Query". */
#include "postgres.h"

#include <inttypes.h>
#include <stdio.h>

#define PARAMS_MAX 65535u             /* their number is an unsigned Int16 of Bind */
#define REQUEST_BYTES_MAX 0x3fffffffu /* MaxAllocSize of the server */
#define NAME_BYTES_MAX 16u            /* "iok_1023" */
/* Type octets, lengths, counts and names of all six messages. */
#define FRAME_BYTES_MAX 512u
/* A parameter from this size on goes by reference, as far as there are so many places to note where it stands. */
#define REFER_BYTES_MIN 16384u
#define REFERRED_MAX 16u

/* What stands in the request behind the first at bytes that were written. */
struct referred {
    size_t at;
    struct iok_span bytes;
};

struct request {
    struct iok_io *io;
    const struct iok_token *params;
    size_t n_tokens;
    uint32_t n_params;
    uint64_t octets; /* bit i: parameter i is IOK_BYTES */
    bool far_octets; /* one beyond bit 63 is */
    size_t bytes;    /* that all parameters need at most */
    size_t beside;   /* of these, those that go by reference */
    struct iok_span sql;
    bool has_sql;
    enum pg_kind kind;
    uint32_t slot;
    struct pg_statement *statement; /* NULL if once */
    char name[NAME_BYTES_MAX];
    bool has_cursor, describes;
    struct iok_span cursor; /* its name */
    uint32_t rows;          /* at most so many; 0: all, or of a cursor without SQL: close it */
    uint32_t cursor_id;
    uint8_t *start; /* where it is being written */
    struct referred referred[REFERRED_MAX];
    size_t n_large, n_referred;
};

/* ---- looking at it -------------------------------------------------------------------------------------------- */

static int wrong_type(struct iok_io *io, size_t param, bool element)
{
    return iok_io_fail(io, IOK_ETYPE, "parameter $%zu is %s of a type that PostgreSQL's codec does not take", param,
                       element ? "an array with an element" : "a value");
}

/* Adds what the value at i needs at most; returns the index behind it, or a negative error. */
static ptrdiff_t measure_value(struct request *r, size_t i, unsigned depth)
{
    const struct iok_token *token = &r->params[i];
    switch (token->type) {
    case IOK_NULL:
    case IOK_BOOL:
    case IOK_I64:
    case IOK_F64:
        r->bytes += PG_NUMBER_BYTES_MAX;
        return (ptrdiff_t)i + 1;
    case IOK_TEXT:
    case IOK_DECIMAL:
    case IOK_BYTES: /* within an array: quotes, and each octet escaped or as two digits */
        r->bytes += depth == 0 ? token->len : 2 * (size_t)token->len + PG_NUMBER_BYTES_MAX;
        return (ptrdiff_t)i + 1;
    case IOK_ARRAY:
        break;
    default:
        return wrong_type(r->io, r->n_params + 1, depth > 0);
    }
    if (depth == PG_DIMENSIONS_MAX)
        return iok_io_fail(r->io, IOK_ELIMIT, "parameter $%u is an array of more than %u dimensions", r->n_params + 1,
                           PG_DIMENSIONS_MAX);
    r->bytes += 2 + (size_t)token->len; /* braces and commas */
    ptrdiff_t at = (ptrdiff_t)i + 1;
    for (uint32_t left = token->len; left > 0 && at >= 0; left--) {
        if ((size_t)at >= r->n_tokens)
            return iok_io_fail(r->io, IOK_EINVAL, "parameter $%u is an array that is cut short", r->n_params + 1);
        at = measure_value(r, (size_t)at, depth + 1);
    }
    return at;
}

/* As it is in Bind, whatever the parameter's type. */
static bool is_large(const struct iok_token *token)
{
    return token->len >= REFER_BYTES_MIN &&
           (token->type == IOK_TEXT || token->type == IOK_DECIMAL || token->type == IOK_BYTES);
}

static int measure(struct request *r)
{
    for (size_t i = 0; i < r->n_tokens;) {
        if (r->params[i].type == IOK_BYTES) {
            r->far_octets |= r->n_params >= 64;
            if (r->n_params < 64)
                r->octets |= UINT64_C(1) << r->n_params;
        }
        if (is_large(&r->params[i]) && r->n_large < REFERRED_MAX) {
            r->beside += r->params[i].len;
            r->n_large++;
        }
        ptrdiff_t next = measure_value(r, i, 0);
        if (next < 0)
            return (int)next;
        r->bytes += 4 + 2 + 4; /* its length, its format, its type in Parse */
        r->bytes += r->params[i].type == IOK_ARRAY ? PG_ARRAY_HEAD_MAX : 0;
        i = (size_t)next;
        r->n_params++;
    }
    if (r->n_params > PARAMS_MAX)
        return iok_io_fail(r->io, IOK_ELIMIT, "%u parameters; a statement takes at most %u", r->n_params, PARAMS_MAX);
    if (r->bytes + r->sql.n > REQUEST_BYTES_MAX)
        return iok_io_fail(r->io, IOK_ELIMIT, "a request of about %zu bytes; the server takes at most %u",
                           r->bytes + r->sql.n, REQUEST_BYTES_MAX);
    return 0;
}

#define CURSOR_TOKENS 4u /* array 3, text "cursor", its name, the number of rows */

static int look_at_cursor(struct request *r, const struct iok_token *args, size_t n)
{
    bool right = args->len == 3 && n >= CURSOR_TOKENS && args[1].type == IOK_TEXT && args[2].type == IOK_TEXT &&
                 args[3].type == IOK_I64 && iok_span_eq(iok_token_span(&args[1]), iok_span_of("cursor"));
    if (!right)
        return iok_io_fail(r->io, IOK_ETYPE,
                           "an array before the SQL text is: \"cursor\", its name, a number of rows; or \"describe\"");
    r->has_cursor = true;
    r->cursor = iok_token_span(&args[2]);
    if (r->cursor.n == 0 || r->cursor.n > PG_CURSOR_NAME_MAX || memchr(r->cursor.p, '\0', r->cursor.n) != NULL)
        return iok_io_fail(r->io, IOK_EINVAL, "a cursor's name has 1 to %u bytes and no NUL", PG_CURSOR_NAME_MAX);
    if (args[3].i < (n > CURSOR_TOKENS ? 1 : 0) || args[3].i > INT32_MAX)
        return iok_io_fail(r->io, IOK_EINVAL, "a cursor gives 1 to %d rows at a time", INT32_MAX);
    r->rows = (uint32_t)args[3].i;
    return 0;
}

static int look(struct request *r, const struct iok_token *args, size_t n)
{
    r->describes = pg_describes(args, n);
    if (r->describes) {
        args += PG_DESCRIBE_TOKENS;
        n -= PG_DESCRIBE_TOKENS;
        if (n > 1)
            return iok_io_fail(r->io, IOK_EINVAL, "a statement is described without parameters");
    } else if (n > 0 && args->type == IOK_ARRAY) {
        int rc = look_at_cursor(r, args, n);
        if (rc < 0)
            return rc;
        args += CURSOR_TOKENS;
        n -= CURSOR_TOKENS;
        if (n == 0)
            return 0;
    }
    if (n == 0)
        return iok_io_fail(r->io, IOK_EINVAL, "a call needs an SQL text");
    if (args->type != IOK_TEXT && args->type != IOK_BYTES)
        return iok_io_fail(r->io, IOK_ETYPE, "the first argument is the SQL text: text or bytes");
    r->sql = iok_token_span(args);
    r->has_sql = true;
    if (r->sql.n > 0 && memchr(r->sql.p, '\0', r->sql.n) != NULL)
        return iok_io_fail(r->io, IOK_EINVAL, "an SQL text cannot hold a NUL");
    r->params = args + 1;
    r->n_tokens = n - 1;
    return measure(r);
}

static int choose_statement(struct request *r, struct pg_cache *cache)
{
    int error = 0;
    if (r->describes) {
        r->kind = PG_DESCRIBE;
        r->slot = PG_NO_SLOT;
        return 0;
    }
    r->kind = PG_ONCE;
    r->slot = r->far_octets ? PG_NO_SLOT : pg_cache_find(cache, r->sql, r->octets);
    if (r->slot != PG_NO_SLOT && cache->slots[r->slot].state == PG_PARSING) {
        r->slot = PG_NO_SLOT;
    } else if (r->slot != PG_NO_SLOT) {
        uint32_t takes = cache->slots[r->slot].shape.n_params;
        r->kind = PG_BOUND;
        if (takes != r->n_params)
            return iok_io_fail(r->io, IOK_EINVAL, "the statement takes %u parameters; %u were given", takes,
                               r->n_params);
        error = pg_check_params(r->io, &cache->slots[r->slot].shape, r->params, r->n_tokens);
        if (error != 0)
            return error;
    } else if (!r->far_octets) {
        r->slot = pg_cache_add(cache, r->sql, r->octets, &error);
        r->kind = r->slot != PG_NO_SLOT ? PG_FIRST : PG_ONCE;
    }
    if (error != 0)
        return iok_io_fail(r->io, error, "out of memory for a statement");
    if (r->slot != PG_NO_SLOT) {
        r->statement = &cache->slots[r->slot];
        snprintf(r->name, sizeof(r->name), "iok_%u", (unsigned)r->slot);
    }
    return 0;
}

/* ---- writing messages ----------------------------------------------------------------------------------------- */

static uint8_t *put_octet(uint8_t *at, char octet)
{
    *at = (uint8_t)octet;
    return at + 1;
}

static uint32_t oid_of(const struct request *r, uint32_t param)
{
    return r->kind == PG_BOUND ? r->statement->shape.params[param] : 0;
}

/* With its length. *beside counts the bytes that are elsewhere. */
static uint8_t *put_param(struct request *r, uint8_t *at, const struct iok_token *token, uint32_t oid, bool binary,
                          size_t *beside)
{
    uint8_t *length = at;
    if (token->type == IOK_NULL)
        return pg_put_u32(at, UINT32_MAX);
    at += 4;
    if (is_large(token) && r->n_referred < REFERRED_MAX) {
        pg_put_u32(length, token->len);
        r->referred[r->n_referred++] = (struct referred){(size_t)(at - r->start), iok_token_span(token)};
        *beside += token->len;
        return at;
    }
    at = pg_put_param(at, token, oid, binary);
    pg_put_u32(length, (size_t)(at - length) - 4);
    return at;
}

/* [PG] "Message Formats": a type, then a length that counts itself. */
static uint8_t *begin(uint8_t *at, char type, uint8_t **length)
{
    at = put_octet(at, type);
    *length = at;
    return at + 4;
}

static void finish(uint8_t *at, uint8_t *length)
{
    pg_put_u32(length, (size_t)(at - length));
}

static uint8_t *put_cstring(uint8_t *at, const char *text)
{
    return pg_put_span(at, iok_span(text, strlen(text) + 1));
}

static uint8_t *put_parse(uint8_t *at, const struct request *r)
{
    uint8_t *length;
    if (r->statement != NULL && r->statement->on_server) {
        at = put_octet(begin(at, 'C', &length), 'S');
        at = put_cstring(at, r->name);
        finish(at, length);
    }
    at = put_cstring(begin(at, 'P', &length), r->name);
    at = put_octet(pg_put_span(at, r->sql), '\0');
    bool typed = r->octets != 0 || r->far_octets;
    at = pg_put_u16(at, typed ? r->n_params : 0);
    for (size_t i = 0; typed && i < r->n_tokens; i = iok_tape_skip(r->params, r->n_tokens, i))
        at = pg_put_u32(at, r->params[i].type == IOK_BYTES ? PG_BYTEA : 0);
    finish(at, length);
    at = put_octet(begin(at, 'D', &length), 'S');
    at = put_cstring(at, r->name);
    finish(at, length);
    return at;
}

/* The columns' formats; those of a statement that is not known yet are text. */
static uint8_t *put_result_formats(uint8_t *at, const struct request *r)
{
    const struct pg_shape *shape = r->kind == PG_BOUND ? &r->statement->shape : NULL;
    bool any = false;
    for (uint32_t i = 0; shape != NULL && i < shape->n_columns; i++)
        any |= pg_type_binary(shape->types[i]);
    if (!any)
        return pg_put_u16(at, 0);
    at = pg_put_u16(at, shape->n_columns);
    for (uint32_t i = 0; i < shape->n_columns; i++)
        at = pg_put_u16(at, pg_type_binary(shape->types[i]));
    return at;
}

static uint8_t *put_bind(uint8_t *at, struct request *r)
{
    uint8_t *length;
    size_t beside = 0;
    at = put_octet(pg_put_span(begin(at, 'B', &length), r->cursor), '\0');
    at = put_cstring(at, r->name);
    at = pg_put_u16(at, r->n_params);
    uint32_t param = 0;
    const uint8_t *formats = at;
    for (size_t i = 0; i < r->n_tokens; i = iok_tape_skip(r->params, r->n_tokens, i))
        at = pg_put_u16(at, pg_param_binary(&r->params[i], r->n_tokens - i, oid_of(r, param++)));
    at = pg_put_u16(at, r->n_params);
    param = 0;
    for (size_t i = 0; i < r->n_tokens; i = iok_tape_skip(r->params, r->n_tokens, i), param++)
        at = put_param(r, at, &r->params[i], oid_of(r, param), formats[2 * param + 1] != 0, &beside);
    at = put_result_formats(at, r);
    pg_put_u32(length, (size_t)(at - length) + beside);
    return at;
}

static uint8_t *put_execute(uint8_t *at, const struct request *r)
{
    uint8_t *length;
    at = put_octet(pg_put_span(begin(at, 'E', &length), r->cursor), '\0'); /* without a name, the unnamed portal */
    at = pg_put_u32(at, r->rows);
    finish(at, length);
    return at;
}

static uint8_t *put_close(uint8_t *at, const struct request *r)
{
    uint8_t *length;
    at = put_octet(begin(at, 'C', &length), 'P');
    at = put_octet(pg_put_span(at, r->cursor), '\0');
    finish(at, length);
    return at;
}

/* What was written, and between it what stands in the program's memory. */
static void commit(const struct request *r, size_t n)
{
    struct iok_out *out = r->io->out;
    size_t done = 0;
    for (size_t i = 0; i < r->n_referred; i++) {
        iok_out_commit(out, r->referred[i].at - done);
        iok_out_refer(out, r->referred[i].bytes);
        done = r->referred[i].at;
    }
    iok_out_commit(out, n - done);
}

static int put_request(struct request *r)
{
    size_t columns = r->kind == PG_BOUND ? r->statement->shape.n_columns : 0;
    uint8_t *at, *length;
    r->start = at = iok_out_reserve(r->io->out, FRAME_BYTES_MAX + r->sql.n + r->bytes - r->beside + 2 * columns);
    if (at == NULL)
        return iok_io_fail(r->io, IOK_ENOMEM, "out of memory for a request");
    if (r->kind == PG_ONCE || r->kind == PG_FIRST || r->kind == PG_DESCRIBE)
        at = put_parse(at, r);
    if (r->kind == PG_ONCE || r->kind == PG_FIRST || r->kind == PG_BOUND)
        at = put_bind(at, r);
    if (r->kind != PG_DESCRIBE)
        at = r->kind == PG_CLOSE ? put_close(at, r) : put_execute(at, r);
    at = begin(at, 'S', &length);
    finish(at, length);
    commit(r, (size_t)(at - r->start));
    return r->io->out->error != 0 ? iok_io_fail(r->io, IOK_ENOMEM, "out of memory for a request") : 0;
}

static int choose_cursor(struct request *r, struct pg_cursors *cursors)
{
    int error;
    uint32_t id = pg_cursor_find(cursors, r->cursor);
    if (!r->has_sql) {
        r->kind = r->rows > 0 ? PG_MORE : PG_CLOSE;
        r->slot = PG_NO_SLOT;
        r->cursor_id = id;
        return id != PG_NO_CURSOR
                   ? 0
                   : iok_io_fail(r->io, IOK_EINVAL,
                                 "no cursor of this name is open: it is exhausted, or its transaction is over");
    }
    if (id != PG_NO_CURSOR)
        return iok_io_fail(r->io, IOK_EINVAL, "a cursor of this name is open already");
    r->cursor_id = pg_cursor_add(cursors, r->cursor, &error);
    if (r->cursor_id != PG_NO_CURSOR)
        return 0;
    return error == IOK_ELIMIT
               ? iok_io_fail(r->io, error, "%u cursors are open on this connection; no more can be", PG_CURSORS_MAX)
               : iok_io_fail(r->io, error, "out of memory for a cursor");
}

int pg_encode_request(struct pg_cache *cache, struct pg_cursors *cursors, struct iok_io *io,
                      const struct iok_token *args, size_t n, struct iok_flight *flight)
{
    struct request r = {.io = io};
    int rc = look(&r, args, n);
    if (rc == 0 && !r.describes && (pg_sql_effect(r.sql) & PG_EFFECT_STATEMENTS) != 0)
        pg_cache_retire_all(cache);
    if (rc == 0 && r.has_cursor)
        rc = choose_cursor(&r, cursors);
    if (rc == 0 && (r.has_sql || !r.has_cursor))
        rc = choose_statement(&r, cache);
    if (rc == 0)
        rc = put_request(&r);
    struct pg_cursor *cursor = pg_cursor_at(cursors, r.cursor_id);
    if (rc < 0) {
        if (cursor != NULL && r.has_sql)
            pg_cursor_gone(cursor);
        return rc;
    }
    if (cursor != NULL)
        cursor->uses++;
    if (r.statement != NULL) {
        r.statement->uses++;
        r.statement->on_server = true;
    }
    flight->tag = PG_TAG(r.kind, r.cursor_id, r.slot);
    return 0;
}
