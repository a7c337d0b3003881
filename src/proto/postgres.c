/* postgres.c - the codec of PostgreSQL's protocol 3.0: messages, replies as tapes, and the slots of proto.h.
 *
 * What it is not: requests as bytes (postgres_request.c), prepared statements (postgres_cache.c), cursors
 * (postgres_cursor.c), COPY (postgres_copy.c), the sign-in (postgres_signin.c), values (postgres_values.c,
 * postgres_text.c), or knowledge of statements (postgres_sql.c).
 *
 * A reply is begun by the first message that answers a request, and ended by its ReadyForQuery, since an error may
 * come after everything else (a deferred constraint fails at the Sync):
 *
 *     ParseComplete ParameterDescription RowDescription  BindComplete DataRow... CommandComplete  ReadyForQuery
 *     |------------- not of a known statement ---------|
 *
 * As a tape: array 4 [names, types, rows, tag] (of a statement that is only described its parameters' types instead of
 * rows), or attributes with the fields of an error, and the error. The tag is null
 * if a cursor has more rows.
 *
 * Invariants: feed leaves at most a message's head or a value's length unused; a row's values go to the tape as they
 * arrive, other messages are gathered, up to MESSAGE_BYTES_MAX. What comes unasked in the midst of a reply is kept,
 * up to HELD_BYTES_MAX, and delivered behind it. */
#include "postgres.h"

#include "../base/mem.h"

/* Without rows the largest are RowDescription (1664 columns of 83 octets) and ParameterDescription (65535 of 4). */
#define MESSAGE_BYTES_MAX (1u << 20)
/* Notices and notifications of one reply: 30 notifications with the largest payload (8000), or thousands of usual ones */
#define HELD_BYTES_MAX 262144u

/* A server tells the number of its process, which Linux bounds (PID_MAX_LIMIT), as other systems do lower; poolers tell
 * 32 random bits instead. One in a thousand is small enough: what is_misnamed sees gives that one away. */
#define PROCESS_ID_MAX 4194304u
#define CANCEL_REQUEST 80877102u /* 1234 and 5678 */
/* The process's number and a secret of 4 octets, in protocol 3.2 of 4 to 256. */
#define PG_KEY_BYTES_MAX (4u + 256u)

enum stage {
    STAGE_SIGNIN,
    STAGE_ROLE, /* still signing in: the server is asked what it is */
    STAGE_RESET,
    STAGE_OPEN,
};

struct pg {
    /* the message that is being read */
    bool in_message;
    uint8_t type;
    uint32_t left;          /* octets of it that were not used yet */
    struct pg_bytes gather; /* a message or a value that came in pieces */
    /* the row that is being read */
    bool in_row, in_value;
    uint32_t column;
    uint32_t value_left; /* octets of the value that were not used yet */
    bool value_raw;      /* it goes to the tape's open payload */
    /* the reply that is being read */
    bool in_reply, described, bound, completed, failed;
    bool stale;     /* it failed since the server's statement is not what it was: nothing ran */
    bool refused;   /* it failed since the server does not write, though it should: nothing ran */
    bool suspended; /* the cursor has more rows */
    bool binary;    /* the rows are in the binary format, where their types have one */
    uint8_t kind;   /* enum pg_kind */
    uint32_t slot, cursor;
    uint32_t rows_at, n_rows; /* the token that heads the rows */
    struct pg_shape once;     /* of a statement without a slot */
    const struct pg_shape *shape;
    struct pg_bytes held; /* messages that came unasked, with their heads */
    /* the connection */
    uint8_t stage;       /* enum stage */
    uint8_t transaction; /* 'I' idle, 'T' in one, 'E' in a failed one: of the last ReadyForQuery */
    bool authenticated;
    uint8_t resets;  /* queries of the reset that are not answered yet */
    uint8_t effects; /* enum pg_effect, of all that was sent since the last reset */
    struct pg_scram scram;
    struct pg_role role;
    uint8_t key[PG_KEY_BYTES_MAX]; /* of BackendKeyData: the process, and the secret that cancels */
    uint16_t n_key;
    struct pg_cache cache;
    struct pg_cursors cursors;
    struct pg_copy copy;
    struct pg_bytes scratch;
};

/* ---- errors and notices --------------------------------------------------------------------------------------- */

static int unexpected(struct iok_io *io, uint8_t type)
{
    bool printable = type > ' ' && type <= '~';
    return iok_io_fail(io, IOK_EPROTO, "a message of type '%c' (%u) that is not expected here", printable ? type : '?',
                       type);
}

static int garbled(struct iok_io *io, const char *what)
{
    return iok_io_fail(io, IOK_EPROTO, "a %s message that is not well formed", what);
}

/* ---- what comes unasked --------------------------------------------------------------------------------------- */

/* push 4 "notification" channel payload pid, or push 2 "notice" map */
static int push(struct iok_io *io, uint8_t type, struct iok_span body)
{
    struct iok_span channel = iok_span(NULL, 0), payload = channel, rest = body;
    if (type == 'A') {
        if (body.n < 4)
            return garbled(io, "NotificationResponse");
        rest = iok_span_skip(body, 4);
        if (!pg_take_cstring(&rest, &channel) || !pg_take_cstring(&rest, &payload))
            return garbled(io, "NotificationResponse");
    }
    struct iok_tape *tape = io->host->begin_push(io);
    iok_tape_head(tape, IOK_PUSH, type == 'A' ? 4 : 2);
    iok_tape_static(tape, IOK_TEXT, iok_span_of(type == 'A' ? "notification" : "notice"));
    if (type == 'A') {
        iok_tape_copy(tape, IOK_TEXT, 0, channel);
        iok_tape_copy(tape, IOK_TEXT, 0, payload);
        iok_tape_i64(tape, pg_u32(body.p));
    } else {
        pg_put_fields(tape, IOK_MAP, body, true);
    }
    return io->host->end(io, IOK_MSG_LAST);
}

static int hold(struct pg *pg, struct iok_io *io, uint8_t type, struct iok_span body)
{
    uint8_t head[5] = {type};
    pg_put_u32(head + 1, body.n);
    if (pg->held.n + sizeof(head) + body.n > HELD_BYTES_MAX) {
        if (type == 'N')
            return 0; /* who waits for a reply wants no more notices than this */
        return iok_io_fail(io, IOK_ELIMIT, "more than %u bytes of notifications within one reply", HELD_BYTES_MAX);
    }
    if (!pg_bytes_put(&pg->held, iok_span(head, sizeof(head))) || !pg_bytes_put(&pg->held, body))
        return iok_io_fail(io, IOK_ENOMEM, "out of memory for a notification");
    return 0;
}

static int release_held(struct pg *pg, struct iok_io *io)
{
    struct iok_span rest = iok_span(pg->held.p, pg->held.n);
    int rc = 0;
    while (rest.n > 0 && rc == 0) {
        size_t n = pg_u32(rest.p + 1);
        rc = push(io, rest.p[0], iok_span(rest.p + 5, n));
        rest = iok_span_skip(rest, 5 + n);
    }
    pg_bytes_free(&pg->held);
    return rc;
}

static int unasked(struct pg *pg, struct iok_io *io, struct iok_span body)
{
    if (pg->type == 'S') { /* ParameterStatus */
        pg_role_status(&pg->role, io, body);
        return 0;
    }
    if (pg->stage != STAGE_OPEN)
        return 0; /* nobody listens */
    return io->tape != NULL ? hold(pg, io, pg->type, body) : push(io, pg->type, body);
}

/* ---- the reply ------------------------------------------------------------------------------------------------ */

static struct pg_statement *statement_of(struct pg *pg)
{
    return pg->slot == PG_NO_SLOT ? NULL : &pg->cache.slots[pg->slot];
}

/* Of the row description: names and types; and the head of the rows. */
static void put_head(struct pg *pg, struct iok_io *io)
{
    struct iok_tape *tape = io->tape;
    const struct pg_shape *shape = pg->shape;
    struct iok_span name, names = iok_span(shape->description.p, shape->description.n), types;
    names = iok_span_skip(names, names.n > 0 ? 2 : 0);
    types = names;
    iok_tape_head(tape, IOK_ARRAY, 4);
    iok_tape_head(tape, IOK_ARRAY, shape->n_columns);
    for (uint32_t i = 0; i < shape->n_columns && pg_take_cstring(&names, &name); i++) {
        iok_tape_copy(tape, IOK_TEXT, 0, name);
        names = iok_span_skip(names, 18);
    }
    iok_tape_head(tape, IOK_ARRAY, shape->n_columns);
    for (uint32_t i = 0; i < shape->n_columns && pg_take_cstring(&types, &name); i++) {
        iok_tape_i64(tape, pg_u32(types.p + 6));
        types = iok_span_skip(types, 18);
    }
    pg->rows_at = tape->n_tokens;
    pg->n_rows = 0;
    iok_tape_head(tape, IOK_ARRAY, 0);
}

/* The reply's tape. Of a COPY it begins when the parts have ended. */
static void open_reply(struct iok_io *io)
{
    if (io->tape == NULL)
        io->host->begin_reply(io, IOK_SEQ_HEAD);
}

static int begin_reply(struct pg *pg, struct iok_io *io)
{
    struct iok_flight *flight = io->host->flight(io, IOK_SEQ_HEAD);
    if (flight == NULL)
        return iok_io_fail(io, IOK_EPROTO, "a message of type '%c' that answers no request", pg->type);
    pg->kind = PG_TAG_KIND(flight->tag);
    pg->cursor = PG_TAG_CURSOR(flight->tag);
    pg->slot = pg->kind == PG_FIRST || pg->kind == PG_BOUND ? PG_TAG_SLOT(flight->tag) : PG_NO_SLOT;
    pg->described = pg->kind == PG_BOUND;
    pg->binary = pg->kind == PG_BOUND;
    pg->bound = pg->completed = pg->failed = pg->stale = pg->refused = pg->suspended = false;
    pg->in_reply = true;
    pg->shape = pg->slot != PG_NO_SLOT ? &pg->cache.slots[pg->slot].shape : &pg->once;
    if (pg->kind != PG_COPY)
        open_reply(io);
    if (pg->kind == PG_MORE || pg->kind == PG_CLOSE) {
        const struct pg_cursor *cursor = pg_cursor_at(&pg->cursors, pg->cursor);
        pg->shape = pg->kind == PG_MORE ? &cursor->shape : &pg->once;
        pg->binary = cursor->binary;
        pg->described = pg->bound = true;
        put_head(pg, io);
    }
    return 0;
}

/* Of a statement that is only described: its parameters' types stand where rows would. */
static void put_described(struct pg *pg, struct iok_io *io)
{
    put_head(pg, io);
    for (uint32_t i = 0; i < pg->shape->n_params; i++)
        iok_tape_i64(io->tape, pg->shape->params[i]);
    iok_tape_patch(io->tape, pg->rows_at, pg->shape->n_params);
    iok_tape_copy(io->tape, IOK_TEXT, 0, iok_span_of("DESCRIBE"));
    pg->bound = pg->completed = true;
}

static int on_description(struct pg *pg, struct iok_io *io, struct iok_span body)
{
    int rc = 0;
    struct pg_shape *shape = pg->slot != PG_NO_SLOT ? &statement_of(pg)->shape : &pg->once;
    if (pg->described || pg->kind == PG_PING)
        return unexpected(io, pg->type);
    if (pg->type == 't')
        return pg_shape_params(shape, io, body);
    if (pg->type == 'T') {
        rc = pg_shape_columns(shape, io, body);
    } else { /* NoData */
        shape->n_columns = 0;
        shape->description.n = 0;
    }
    pg->described = true;
    if (rc == 0 && pg->kind == PG_FIRST && statement_of(pg)->state == PG_PARSING)
        statement_of(pg)->state = PG_KNOWN;
    if (rc == 0 && pg->kind == PG_DESCRIBE)
        put_described(pg, io);
    return rc;
}

static int on_bound(struct pg *pg, struct iok_io *io)
{
    if (!pg->described || pg->bound)
        return unexpected(io, pg->type);
    pg->bound = true;
    put_head(pg, io);
    if (pg->cursor != PG_NO_CURSOR && !pg_cursor_bind(pg_cursor_at(&pg->cursors, pg->cursor), pg->shape, pg->binary))
        return iok_io_fail(io, IOK_ENOMEM, "out of memory for a cursor");
    return 0;
}

/* CommandComplete; or EmptyQueryResponse, PortalSuspended, and CloseComplete of a cursor. */
static int on_complete(struct pg *pg, struct iok_io *io, struct iok_span body)
{
    struct iok_span tag = iok_span(NULL, 0);
    bool closing = pg->kind == PG_CLOSE;
    if (!pg->bound || pg->completed || closing != (pg->type == '3'))
        return unexpected(io, pg->type);
    if (pg->type == 'C' && !pg_take_cstring(&body, &tag))
        return garbled(io, "CommandComplete");
    pg->completed = true;
    pg->suspended = pg->type == 's';
    iok_tape_patch(io->tape, pg->rows_at, pg->n_rows);
    if (pg->suspended)
        iok_tape_null(io->tape);
    else
        iok_tape_copy(io->tape, IOK_TEXT, 0, closing ? iok_span_of("CLOSE CURSOR") : tag);
    if (pg->cursor != PG_NO_CURSOR && !pg->suspended)
        pg_cursor_gone(pg_cursor_at(&pg->cursors, pg->cursor));
    return 0;
}

/* The statement that we named is not there (26000), or one that we did not name is (42P05): between us and the server is
 * a pooler, or something took it, such as DISCARD ALL in a function. Names are of no use then. */
static bool is_misnamed(const struct pg *pg, struct iok_span code)
{
    return !pg->bound && ((pg->kind == PG_BOUND && iok_span_eq(code, iok_span_of("26000"))) ||
                          (pg->kind == PG_FIRST && iok_span_eq(code, iok_span_of("42P05"))));
}

/* The server could not bind a statement that it had, since its result's type changed: 0A000, from RevalidateCachedQuery
 * of plancache.c. */
static bool is_changed(const struct pg *pg, struct iok_span body)
{
    return pg->kind == PG_BOUND && !pg->bound && iok_span_eq(pg_field(body, 'C'), iok_span_of("0A000")) &&
           iok_span_eq(pg_field(body, 'R'), iok_span_of("RevalidateCachedQuery"));
}

/* Neither has run. */
static bool note_stale(struct pg *pg, struct iok_span body)
{
    bool misnamed = is_misnamed(pg, pg_field(body, 'C')), changed = is_changed(pg, body);
    if (misnamed)
        pg_cache_end_names(&pg->cache);
    if (changed)
        pg_cache_retire(&pg->cache, pg->slot);
    return misnamed || changed;
}

/* Of a server that should write and says that it does not: a primary became a standby behind a name or a pooler. Not
 * where the session's own setting is the reason. */
static bool is_refused(const struct pg *pg, const struct iok_io *io, struct iok_span body)
{
    return iok_wish_writes(io->wish) && !pg->role.read_only && iok_span_eq(pg_field(body, 'C'), iok_span_of("25006"));
}

static int on_error(struct pg *pg, struct iok_io *io, struct iok_span body)
{
    struct iok_span severity = pg_field(body, 'V'), text = pg_field(body, 'M');
    if (pg->stage == STAGE_SIGNIN)
        return pg_refused(io, body);
    bool fatal = iok_span_eq(severity, iok_span_of("FATAL")) || iok_span_eq(severity, iok_span_of("PANIC"));
    if (fatal || pg->stage != STAGE_OPEN)
        return iok_io_fail(io, IOK_ERESET, "%s (%.*s): %.*s",
                           fatal                     ? "the server ended the connection"
                           : pg->stage == STAGE_ROLE ? "the server does not say what it is"
                                                     : "the connection cannot be made clean",
                           (int)(pg_field(body, 'C').n & 15), pg_field(body, 'C').p, text.n < 160 ? (int)text.n : 160,
                           text.p);
    if (pg->failed)
        return unexpected(io, pg->type);
    pg->failed = true;
    pg->stale = note_stale(pg, body);
    pg->refused = is_refused(pg, io, body);
    if (pg->cursor != PG_NO_CURSOR)
        pg_cursor_gone(pg_cursor_at(&pg->cursors, pg->cursor));
    int rc = pg->kind == PG_COPY ? pg_copy_end(&pg->copy, io, false) : 0;
    if (rc < 0)
        return rc;
    open_reply(io);
    iok_tape_rewind(io->tape);
    pg_put_fields(io->tape, IOK_ATTR, body, false);
    iok_tape_copy(io->tape, IOK_ERROR, 0, text);
    return 0;
}

static void fail_reply(struct pg *pg, struct iok_io *io, const char *sqlstate, const char *text)
{
    pg->failed = true;
    iok_tape_rewind(io->tape);
    pg_put_error(io->tape, sqlstate, text);
}

static int end_reply(struct pg *pg, struct iok_io *io)
{
    bool whole = pg->kind == PG_PING ? !pg->bound : pg->completed;
    if (!whole && !pg->failed)
        return unexpected(io, pg->type);
    if (pg->slot != PG_NO_SLOT) {
        if (pg->kind == PG_FIRST && statement_of(pg)->state == PG_PARSING)
            pg_cache_retire(&pg->cache, pg->slot); /* it was not understood */
        pg_cache_release(&pg->cache, pg->slot);
    }
    if (pg->suspended && pg->transaction == 'I')
        fail_reply(pg, io, "25P01", "a cursor lives in a transaction: it ended before all rows were taken");
    if (pg->cursor != PG_NO_CURSOR)
        pg_cursor_release(pg_cursor_at(&pg->cursors, pg->cursor));
    if (pg->transaction == 'I')
        pg_cursors_transaction_over(&pg->cursors);
    pg_shape_clear(&pg->once);
    pg->in_reply = false;
    /* Within a transaction the failure has undone what came before, so asking again would not be the same. */
    bool again = pg->transaction == 'I';
    uint32_t flags = pg->stale || (pg->refused && again) ? IOK_MSG_REJECTED | (again ? IOK_MSG_AGAIN : 0) : 0;
    if (pg->refused)
        io->host->role(io, 0);
    int rc = io->host->end(io, IOK_MSG_LAST | flags);
    return rc == 0 ? release_held(pg, io) : rc;
}

/* ---- messages ------------------------------------------------------------------------------------------------- */

static int put_query(struct iok_io *io, const char *sql)
{
    uint8_t at[5] = {'Q'};
    pg_put_u32(at + 1, 4 + strlen(sql) + 1);
    iok_out_put(io->out, iok_span(at, sizeof(at)));
    iok_out_put(io->out, iok_span(sql, strlen(sql) + 1));
    return io->out->error != 0 ? iok_io_fail(io, IOK_ENOMEM, "out of memory for a query") : 0;
}

static int on_ready(struct pg *pg, struct iok_io *io, struct iok_span body)
{
    if (body.n != 1 || (body.p[0] != 'I' && body.p[0] != 'T' && body.p[0] != 'E'))
        return garbled(io, "ReadyForQuery");
    pg->transaction = body.p[0];
    if (pg->stage == STAGE_OPEN)
        return end_reply(pg, io);
    if (!pg->authenticated)
        return unexpected(io, pg->type);
    if (pg->stage == STAGE_RESET && --pg->resets > 0)
        return 0;
    if (pg->transaction != 'I')
        return iok_io_fail(io, IOK_ESTATE, "a transaction is open where none can be");
    if (pg->stage == STAGE_SIGNIN && io->wish != IOK_WISH_ANY && !pg->role.reported) {
        pg->stage = STAGE_ROLE;
        return put_query(io, pg_role_query);
    }
    if (io->wish != IOK_WISH_ANY && (pg->stage != STAGE_RESET || pg->role.reported))
        pg_role_told(&pg->role, io);
    pg->stage = STAGE_OPEN;
    io->host->ready(io);
    return 0;
}

static int signin_message(struct pg *pg, struct iok_io *io, struct iok_span body)
{
    switch (pg->type) {
    case 'R':
        if (pg->authenticated)
            return unexpected(io, pg->type);
        pg->authenticated = body.n >= 4 && pg_u32(body.p) == 0;
        return pg_authenticate(&pg->scram, io, body);
    case 'v':
        return pg_negotiate(io, body);
    case 'K': /* BackendKeyData */
        if (body.n < 8 || body.n > sizeof(pg->key))
            return garbled(io, "BackendKeyData");
        if (pg_u32(body.p) > PROCESS_ID_MAX)
            pg_cache_end_names(&pg->cache);
        pg_put_span(pg->key, body);
        pg->n_key = (uint16_t)body.n;
        return 0;
    case 'Z':
        return on_ready(pg, io, body);
    default:
        return unexpected(io, pg->type);
    }
}

/* The answers to our own statements: what those of a reset give is of no interest. */
static int own_message(struct pg *pg, struct iok_io *io, struct iok_span body)
{
    switch (pg->type) {
    case 'C':
    case 'T':
        return 0;
    case 'D':
        return pg->stage == STAGE_ROLE ? pg_role_answer(&pg->role, io, body) : 0;
    case 'Z':
        return on_ready(pg, io, body);
    default:
        return unexpected(io, pg->type);
    }
}

static int copy_message(struct pg *pg, struct iok_io *io, struct iok_span body)
{
    int rc;
    switch (pg->type) {
    case '1':
    case '2':
        return pg->bound ? unexpected(io, pg->type) : 0;
    case 'G':
    case 'H':
        if (pg->completed)
            return unexpected(io, pg->type);
        return pg_copy_begin(&pg->copy, io, pg->type);
    case 'c': /* CopyDone */
        if (!pg->copy.out)
            return unexpected(io, pg->type);
        pg->copy.out = false;
        return 0;
    case 'C':
    case 'I':
        if (pg->copy.out || pg->completed)
            return unexpected(io, pg->type);
        rc = pg_copy_end(&pg->copy, io, true);
        if (rc < 0)
            return rc;
        open_reply(io);
        put_head(pg, io);
        pg->bound = true;
        rc = on_complete(pg, io, body);
        if (rc == 0 && pg->copy.refused)
            fail_reply(pg, io, "0A000", "the COPY gives data: use copy_out()");
        pg->copy.refused = false;
        return rc;
    case 'Z':
        return on_ready(pg, io, body);
    default:
        return unexpected(io, pg->type);
    }
}

static int reply_message(struct pg *pg, struct iok_io *io, struct iok_span body)
{
    if (pg->failed && pg->type != 'Z') /* the server skips all up to the Sync */
        return unexpected(io, pg->type);
    if (pg->kind == PG_COPY)
        return copy_message(pg, io, body);
    switch (pg->type) {
    case '1': /* ParseComplete */
        return pg->kind == PG_PING ? unexpected(io, pg->type) : 0;
    case '3': /* CloseComplete: of a cursor, or of the statement that had the slot's name before */
        return pg->kind == PG_PING ? unexpected(io, pg->type) : pg->kind == PG_CLOSE ? on_complete(pg, io, body) : 0;
    case 't':
    case 'T':
    case 'n':
        return on_description(pg, io, body);
    case '2':
        return on_bound(pg, io);
    case 's':
        if (pg->cursor == PG_NO_CURSOR)
            return unexpected(io, pg->type);
        return on_complete(pg, io, body);
    case 'C':
    case 'I':
        return on_complete(pg, io, body);
    case 'Z':
        return on_ready(pg, io, body);
    default:
        return unexpected(io, pg->type);
    }
}

/* A whole message that is not a row. */
static int message(struct pg *pg, struct iok_io *io, struct iok_span body)
{
    if (pg->type == 'N' || pg->type == 'A' || pg->type == 'S')
        return unasked(pg, io, body);
    if (pg->stage == STAGE_OPEN && !pg->in_reply) {
        struct iok_span severity = pg->type == 'E' ? pg_field(body, 'V') : iok_span(NULL, 0);
        bool fatal = iok_span_eq(severity, iok_span_of("FATAL")) || iok_span_eq(severity, iok_span_of("PANIC"));
        int rc = fatal ? 0 : begin_reply(pg, io);
        if (rc < 0)
            return rc;
    }
    if (pg->type == 'E')
        return on_error(pg, io, body);
    if (pg->stage == STAGE_SIGNIN)
        return signin_message(pg, io, body);
    return pg->stage == STAGE_OPEN ? reply_message(pg, io, body) : own_message(pg, io, body);
}

/* ---- rows ----------------------------------------------------------------------------------------------------- */

static bool column_binary(const struct pg *pg)
{
    return pg->binary && pg_type_binary(pg->shape->types[pg->column]);
}

static int value_done(struct pg *pg, struct iok_io *io, struct iok_span value)
{
    uint16_t type = pg->shape->types[pg->column];
    int rc = pg_decode(io, type, column_binary(pg), value, &pg->scratch);
    pg->in_value = false;
    pg->column++;
    pg->gather.n = 0;
    return rc;
}

/* A value's length came. */
static int value_begin(struct pg *pg, struct iok_io *io, uint32_t n)
{
    uint16_t type = pg->shape->types[pg->column];
    if (n == UINT32_MAX) {
        iok_tape_null(io->tape);
        pg->column++;
        return 0;
    }
    if (n > pg->left)
        return garbled(io, "DataRow");
    pg->in_value = true;
    pg->value_left = n;
    /* One over the limit goes the same way: the tape notes that, and the bytes are passed over. */
    pg->value_raw = pg_type_raw(type, column_binary(pg)) || n > io->max_reply;
    if (pg->value_raw)
        iok_tape_open(io->tape, type == PG_BYTEA ? IOK_BYTES : IOK_TEXT, 0, n);
    return 0;
}

/* Takes bytes of the value; 0 or an error. */
static int value_more(struct pg *pg, struct iok_io *io, struct iok_span *in)
{
    struct iok_span piece = iok_span(in->p, in->n < pg->value_left ? in->n : pg->value_left);
    *in = iok_span_skip(*in, piece.n);
    pg->left -= (uint32_t)piece.n;
    pg->value_left -= (uint32_t)piece.n;
    if (pg->value_raw) {
        iok_tape_fill(io->tape, piece);
        pg->in_value = pg->value_left > 0;
        pg->column += !pg->in_value;
        return 0;
    }
    if (pg->value_left == 0 && pg->gather.n == 0)
        return value_done(pg, io, piece);
    if (!pg_bytes_put(&pg->gather, piece))
        return iok_io_fail(io, IOK_ENOMEM, "out of memory for a value");
    return pg->value_left > 0 ? 0 : value_done(pg, io, iok_span(pg->gather.p, pg->gather.n));
}

static int row_begin(struct pg *pg, struct iok_io *io, struct iok_span in)
{
    uint32_t n = pg_u16(in.p);
    int rc = pg->in_reply ? 0 : begin_reply(pg, io); /* of a cursor, where rows come first */
    if (rc < 0)
        return rc;
    if (!pg->bound || pg->completed || pg->failed)
        return unexpected(io, pg->type);
    if (n != pg->shape->n_columns)
        return iok_io_fail(io, IOK_EPROTO, "a row of %u columns where %u were described", n, pg->shape->n_columns);
    pg->in_row = true;
    pg->column = 0;
    pg->n_rows++;
    iok_tape_head(io->tape, IOK_ARRAY, n);
    return 0;
}

/* DataRow: a number of columns, then of each its length and its bytes. How many bytes were used, or an error. */
static ptrdiff_t row_feed(struct pg *pg, struct iok_io *io, struct iok_span in)
{
    size_t before = in.n;
    int rc = 0;
    while (rc == 0) {
        if (pg->in_value && (in.n > 0 || pg->value_left == 0)) {
            rc = value_more(pg, io, &in);
            continue;
        }
        if (pg->in_row && !pg->in_value && pg->column == pg->shape->n_columns) {
            pg->in_row = pg->in_message = false;
            if (pg->left > 0)
                rc = garbled(io, "DataRow");
            break;
        }
        size_t need = pg->in_row ? 4 : 2;
        if (pg->left < need && !pg->in_value)
            return garbled(io, "DataRow");
        if (pg->in_value || in.n < need)
            break;
        rc = pg->in_row ? 0 : row_begin(pg, io, in);
        if (rc == 0) {
            pg->left -= (uint32_t)need;
            rc = need == 4 ? value_begin(pg, io, pg_u32(in.p)) : 0;
            in = iok_span_skip(in, need);
        }
    }
    return rc < 0 ? rc : (ptrdiff_t)(before - in.n);
}

/* ---- feeding -------------------------------------------------------------------------------------------------- */

/* CopyData, when it is due. */
static bool is_data(const struct pg *pg, uint8_t type)
{
    return type == 'd' && pg->copy.out;
}

static int head(struct pg *pg, struct iok_io *io, struct iok_span in)
{
    uint32_t n = pg_u32(in.p + 1);
    bool row = in.p[0] == 'D' && pg->stage == STAGE_OPEN;
    if (n < 4 || (n - 4 > MESSAGE_BYTES_MAX && !row && !is_data(pg, in.p[0])))
        return iok_io_fail(io, IOK_EPROTO, "a message of %u bytes", n);
    pg->type = in.p[0];
    pg->left = n - 4;
    pg->in_message = true;
    return is_data(pg, pg->type) ? pg_copy_data_begin(&pg->copy, io, pg->left) : 0;
}

static ptrdiff_t data_feed(struct pg *pg, struct iok_io *io, struct iok_span in)
{
    struct iok_span piece = iok_span(in.p, in.n < pg->left ? in.n : pg->left);
    pg->left -= (uint32_t)piece.n;
    pg->in_message = pg->left > 0;
    int rc = pg_copy_data(&pg->copy, io, piece, !pg->in_message);
    return rc < 0 ? rc : (ptrdiff_t)piece.n;
}

static ptrdiff_t message_feed(struct pg *pg, struct iok_io *io, struct iok_span in)
{
    struct iok_span piece = iok_span(in.p, in.n < pg->left ? in.n : pg->left);
    struct iok_span body = piece;
    if (piece.n < pg->left || pg->gather.n > 0) {
        if (!pg_bytes_put(&pg->gather, piece))
            return iok_io_fail(io, IOK_ENOMEM, "out of memory for a message");
        body = iok_span(pg->gather.p, pg->gather.n);
    }
    pg->left -= (uint32_t)piece.n;
    if (pg->left > 0)
        return (ptrdiff_t)piece.n;
    pg->in_message = false;
    int rc = message(pg, io, body);
    pg->gather.n = 0;
    return rc < 0 ? rc : (ptrdiff_t)piece.n;
}

static ptrdiff_t pg_feed(void *state, struct iok_io *io, struct iok_span in)
{
    struct pg *pg = state;
    size_t used = 0;
    for (;;) {
        struct iok_span rest = iok_span_skip(in, used);
        if (!pg->in_message) {
            if (rest.n < 5)
                return (ptrdiff_t)used;
            int rc = head(pg, io, rest);
            if (rc < 0)
                return rc;
            used += 5;
            continue;
        }
        bool row = pg->type == 'D' && pg->stage == STAGE_OPEN;
        ptrdiff_t n = row                     ? row_feed(pg, io, rest)
                      : is_data(pg, pg->type) ? data_feed(pg, io, rest)
                                              : message_feed(pg, io, rest);
        if (n < 0)
            return n;
        used += (size_t)n;
        if (pg->in_message)
            return (ptrdiff_t)used;
    }
}

/* ---- the other slots ------------------------------------------------------------------------------------------ */

static int pg_open(void *state, struct iok_io *io)
{
    struct pg *pg = state;
    struct pg_wishes wishes;
    int rc = pg_read_wishes(io->url, &wishes, &io->err);
    pg->stage = STAGE_SIGNIN;
    pg->transaction = 'I';
    if (rc == 0 && pg_cache_open(&pg->cache, (uint32_t)wishes.statements) != 0)
        rc = iok_io_fail(io, IOK_ENOMEM, "out of memory for prepared statements");
    return rc;
}

static int pg_greet(void *state, struct iok_io *io)
{
    (void)state;
    return pg_put_startup(io);
}

static int pg_encode(void *state, struct iok_io *io, const struct iok_token *args, size_t n, struct iok_flight *flight)
{
    struct pg *pg = state;
    struct iok_span sql = pg_sql_of(args, n);
    bool parts = (flight->host & (IOK_FLIGHT_PARTS | IOK_FLIGHT_BODY)) != 0;
    if (pg->copy.sync_owed)
        return iok_io_fail(io, IOK_EUNSAFE, "a COPY is under way on this connection");
    if (parts != pg_sql_is_copy(sql))
        return iok_io_fail(io, IOK_EUNSAFE,
                           parts ? "only COPY has a body, or an answer in parts" : "COPY: use copy_in() or copy_out()");
    if (parts && n > 1)
        return iok_io_fail(io, IOK_EINVAL, "COPY takes no parameters");
    if (parts && memchr(sql.p, '\0', sql.n) != NULL)
        return iok_io_fail(io, IOK_EINVAL, "an SQL text cannot hold a NUL");
    int rc =
        parts ? pg_copy_encode(&pg->copy, io, sql) : pg_encode_request(&pg->cache, &pg->cursors, io, args, n, flight);
    if (parts)
        flight->tag = PG_TAG(PG_COPY, PG_NO_CURSOR, PG_NO_SLOT);
    if (rc == 0 && !pg_describes(args, n))
        pg->effects |= (uint8_t)pg_sql_effect(sql);
    return rc;
}

static int pg_body(void *state, struct iok_io *io, uint64_t seq, struct iok_span bytes, enum iok_body what)
{
    struct pg *pg = state;
    (void)seq; /* there is one at most */
    return pg_copy_body(&pg->copy, io, bytes, what);
}

static int pg_ping(void *state, struct iok_io *io, struct iok_flight *flight)
{
    (void)state;
    flight->tag = PG_TAG(PG_PING, PG_NO_CURSOR, PG_NO_SLOT);
    iok_out_put(io->out, iok_span("S\0\0\0\4", 5));
    return io->out->error != 0 ? iok_io_fail(io, IOK_ENOMEM, "out of memory for a ping") : 0;
}

/* What DISCARD ALL does, but for the prepared statements, which are worth keeping; with them if the program has made
 * some of its own. Each Query has a ReadyForQuery of its own. */
static int pg_reset(void *state, struct iok_io *io)
{
    static const char keep[] = "SET SESSION AUTHORIZATION DEFAULT;RESET ALL;CLOSE ALL;UNLISTEN *;"
                               "SELECT pg_advisory_unlock_all();DISCARD TEMP;DISCARD SEQUENCES";
    struct pg *pg = state;
    bool all = (pg->effects & PG_EFFECT_SESSION) != 0;
    pg->stage = STAGE_RESET;
    pg->role.known = false; /* until its settings are the usual ones again */
    pg->resets = 1;
    if (pg->transaction != 'I') {
        pg->resets++;
        (void)put_query(io, "ROLLBACK");
    }
    if (all) {
        pg_cache_retire_all(&pg->cache);
        for (uint32_t i = 0; i < pg->cache.capacity; i++)
            pg->cache.slots[i].on_server = false;
    }
    pg->effects = 0;
    return put_query(io, all ? "DISCARD ALL" : keep);
}

/* [PG] "Canceling Requests in Progress" */
static size_t pg_cancel(const void *state, uint8_t *at, size_t cap)
{
    const struct pg *pg = state;
    size_t n = 8u + pg->n_key;
    if (pg->n_key == 0 || n > cap)
        return 0;
    pg_put_span(pg_put_u32(pg_put_u32(at, n), CANCEL_REQUEST), iok_span(pg->key, pg->n_key));
    return n;
}

static void pg_close(void *state)
{
    struct pg *pg = state;
    pg_cache_close(&pg->cache);
    pg_cursors_close(&pg->cursors);
    pg_bytes_free(&pg->copy.chunk);
    pg_shape_clear(&pg->once);
    pg_bytes_free(&pg->gather);
    pg_bytes_free(&pg->held);
    pg_bytes_free(&pg->scratch);
}

static const char *const pg_schemes[] = {"postgresql", "postgres", NULL};

static const struct iok_proto_option pg_options[] = {
    {"sslmode", "disable, allow, prefer, require, verify-ca or verify-full, as libpq has them; default prefer"},
    {"sslrootcert", "as tls_ca; system: the system's authorities, and sslmode=verify-full"},
    {"sslcrl", "as tls_crl"},
    {"sslcert", "as tls_cert"},
    {"sslkey", "as tls_key"},
    {"sslpassword", "as tls_key_password"},
    {"require_auth",
     "ways to sign in that will do: none, password, md5, scram-sha-256; or, with ! before each, that will not"},
    {"user", "where it does not stand before the host"},
    {"password", "where it does not stand before the host"},
    {"passfile", "the password file; default ~/.pgpass"},
    {"service", "the name of a service in a service file, which has what the URL leaves open"},
    {"host", "hosts, or directories of sockets, separated by commas, where the URL has none before its path"},
    {"port", "their ports: one for each, or one for all"},
    {"target_session_attrs", "any, primary, standby, prefer-standby, read-write or read-only; default any"},
    {"load_balance_hosts", "disable: the first host that will do; random: any; default disable"},
    {"dbname", "the database, where the path is that of a socket"},
    {"application_name", "the connections' name in pg_stat_activity; default iokernel"},
    {"options", "command-line options of the server's session, such as -c statement_timeout=5s"},
    {"statements", "prepared statements that each connection keeps; 0 to 1024, default 128"},
    {"cancel_timeout",
     "how long a request that nobody waits for may take to end at the server; default 5s, 0 never cancels"},
    {"min_protocol_version", "3.0, 3.2 or latest: the least that the server has to speak; default 3.0"},
    {"max_protocol_version", "3.0, 3.2 or latest: the most that is asked for; default 3.0"},
    {"channel_binding", "whether the sign-in is bound to TLS: disable, prefer or require; default prefer"},
    {"statement_timeout", "after which the server gives a statement up; default the server's own"},
    {"cleartext", "yes lets the password go out in clear text without TLS; default no"},
    {NULL, NULL},
};

const struct iok_proto iok_proto_postgres = {
    .name = "postgresql",
    .schemes = pg_schemes,
    .default_port = 5432,
    .flags = IOK_PROTO_IN_ORDER | IOK_PROTO_PUSH | IOK_PROTO_WHOLE | IOK_PROTO_LONG,
    .state_size = sizeof(struct pg),
    .default_connections = 4, /* a few suffice, since requests share them; each costs the server a process */
    .options = pg_options,
    .hosts = &pg_hosts,
    .complete = pg_complete,
    .check = pg_check,
    .tls = pg_check_ssl,
    .open = pg_open,
    .greet = pg_greet,
    .encode = pg_encode,
    .body = pg_body,
    .too_large = "a cursor gives a result in batches",
    .feed = pg_feed,
    .close = pg_close,
    .ping = pg_ping,
    .classify = pg_classify,
    .reset = pg_reset,
    .cancel = pg_cancel,
    .describe = pg_describe,
};
