/* redis.c - the codec of Redis and Valkey: RESP2 and RESP3 complete.
 *
 * What it is: the slots of proto.h, replies as tapes, out-of-band messages, subscriptions and MONITOR. What it is
 * not: requests as bytes (redis_request.c), the sign-in (redis_signin.c), or knowledge of single commands
 * (redis_commands.c).
 *
 * A message is read token by token. A stack of counters says how many values each open container still lacks:
 *
 *     *2 $3 foo %1 $1 k :7        depth 0 --*2--> depth 1 --$3 foo, %1--> depth 2 --$1 k, :7--> 1 --> 0, complete
 *
 * Invariants: feed leaves at most one unfinished header unused, with the few bytes behind it that say what it begins
 * (a kind of push, a format); payloads go to the tape as they arrive. Each message is begun and ended exactly once.
 * What is delivered, and which error is raised, does not depend on how the bytes were cut.
 *
 * Specification: https://redis.io/docs/latest/develop/reference/protocol-spec (RESP2, RESP3), cited as [RESP]. */
#include "redis.h"

#define DEPTH_MAX 64u /* containers within each other; Redis's own answers stay below 10, scripts may nest 100s */
/* A status, an error or a big number is one line; Redis's own are below 1 KiB, as its reply buffers are 16 KiB. */
#define LINE_BYTES_MAX 65536u
/* Any other header: the longest is a double, as "%.17g" or Redis's own printer write it, at most 32 bytes. */
#define HEADER_BYTES_MAX 64u
#define LENGTH_DIGITS_MAX 18u /* fit into an int64_t */
/* The longest name of a push kind, "punsubscribe", has 12 bytes. */
#define PUSH_KIND_MAX 16u
/* So much of a blob error is needed to see its code, as in redis_error_rejects. */
#define ERROR_CODE_MAX 32u

enum message {
    MESSAGE_NONE, /* between two */
    MESSAGE_REPLY,
    MESSAGE_PUSH,
    MESSAGE_STEP, /* an answer to the sign-in; its tape is ours */
};

/* Bits of redis.subscribed. */
#define SUBSCRIBED_CHANNELS 1u /* and patterns */
#define SUBSCRIBED_SHARDS 2u

/* A flight's tag: its kind, and how many confirmations it gets. */
#define TAG_KIND_SHIFT 28
#define TAG_COUNT_MASK ((1u << TAG_KIND_SHIFT) - 1)

struct redis {
    /* the message that is being read */
    uint8_t message;          /* enum message */
    uint8_t kind;             /* enum redis_kind: of the request that it answers, or of the confirmation that it is */
    bool confirms;            /* it is a push that confirms a part of the oldest request */
    bool is_error;            /* its outermost value is an error */
    bool in_payload;          /* the bytes of a payload come next, and its CR LF */
    uint32_t depth;           /* open containers */
    uint32_t end_flags;       /* enum iok_msg_flags */
    size_t payload_left;      /* its bytes that did not come yet */
    uint64_t left[DEPTH_MAX]; /* values that each open container still lacks */
    uint64_t attributes;      /* bit d: container d is an attribute, so the value that it describes follows it */
    int64_t last_i64;         /* the last integer read: a confirmation ends with the number of subscriptions */
    /* the connection */
    uint8_t protocol;   /* 2 or 3, as the server speaks it now */
    uint8_t subscribed; /* SUBSCRIBED_ bits */
    bool monitoring;
    bool in_multi;      /* as of the last request that was encoded */
    bool unresettable;  /* a request changed what the server's RESET leaves as it is */
    uint32_t specials;  /* requests in flight that are of a kind other than plain */
    uint32_t confirmed; /* confirmations that the oldest request had so far */
    struct redis_signin signin;
    struct iok_tape scratch;             /* of an answer to the sign-in */
    struct iok_token scratch_tokens[40]; /* as HELLO has, without modules */
    uint8_t scratch_bytes[512];
};

/* ---- requests ------------------------------------------------------------------------------------------------- */

/* A request of a kind that is treated in a way of its own: 0 and its tag, or the error that ends it. */
static int prepare_special(struct redis *r, struct iok_io *io, unsigned kind, size_t n, uint32_t *tag)
{
    if (redis_is_subscription(kind) && n < 2)
        return iok_io_fail(io, IOK_EINVAL, "name the channels: without a name one cannot tell how many answers come");
    /* Their answers would come in the midst of EXEC's array. */
    if (r->in_multi && (redis_is_subscription(kind) || kind == REDIS_MONITOR))
        return iok_io_fail(io, IOK_EUNSAFE, "not within MULTI: subscribe before it or after EXEC");
    if (kind == REDIS_MULTI || kind == REDIS_EXEC || kind == REDIS_RESET)
        r->in_multi = kind == REDIS_MULTI;
    if (kind == REDIS_MULTI || kind == REDIS_EXEC)
        return 0;
    *tag = (uint32_t)kind << TAG_KIND_SHIFT | (uint32_t)(n - 1);
    r->specials++;
    return 0;
}

/* CLIENT NO-EVICT and NO-TOUCH: seen on 7.0 to survive RESET, whose page does not list them either. */
static bool outlives_reset(const struct iok_token *args, size_t n)
{
    return n >= 2 && iok_span_eq_nocase(iok_token_span(&args[0]), "CLIENT") &&
           (args[1].type == IOK_TEXT || args[1].type == IOK_BYTES) &&
           (iok_span_eq_nocase(iok_token_span(&args[1]), "NO-EVICT") ||
            iok_span_eq_nocase(iok_token_span(&args[1]), "NO-TOUCH"));
}

static int redis_encode(void *state, struct iok_io *io, const struct iok_token *args, size_t n,
                        struct iok_flight *flight)
{
    struct redis *r = state;
    size_t bytes = 0;
    int rc = redis_measure(io, args, n, &bytes);
    if (rc < 0)
        return rc;
    flight->tag = 0;
    const struct redis_command *command = redis_command_find(iok_token_span(args));
    if (command != NULL && command->kind != REDIS_PLAIN) {
        rc = prepare_special(r, io, command->kind, n, &flight->tag);
        if (rc < 0)
            return rc;
    }
    r->unresettable |= outlives_reset(args, n);
    redis_put_request(io->out, args, n, bytes);
    return io->out->error != 0 ? iok_io_fail(io, IOK_ENOMEM, "out of memory for a request") : 0;
}

static int redis_ping(void *state, struct iok_io *io, struct iok_flight *flight)
{
    struct redis *r = state;
    static const char ping[] = "*1\r\n$4\r\nPING\r\n";
    if (r->in_multi)
        return iok_io_fail(io, IOK_ESTATE, "within MULTI a PING would become a part of the transaction");
    flight->tag = 0;
    iok_out_put(io->out, iok_span(ping, sizeof(ping) - 1));
    return io->out->error != 0 ? iok_io_fail(io, IOK_ENOMEM, "out of memory for a ping") : 0;
}

/* ---- lines ---------------------------------------------------------------------------------------------------- */

static int garbled(struct iok_error *err, uint8_t type)
{
    return iok_err(err, IOK_EPROTO, "the line after '%c' is not what RESP has there", type);
}

/* The line in[1..], without CR LF. 1, 0 if its end did not come yet, or an error. */
static int read_line(struct iok_io *io, struct iok_span in, size_t max, struct iok_span *line)
{
    struct iok_span rest = iok_span_skip(in, 1);
    ptrdiff_t end = iok_span_find_crlf(rest.n > max + 2 ? iok_span(rest.p, max + 2) : rest);
    if (end < 0 && rest.n >= max + 2)
        return iok_io_fail(io, IOK_ELIMIT, "a line of more than %zu bytes after '%c'", max, in.p[0]);
    if (end < 0)
        return 0;
    *line = iok_span(rest.p, (size_t)end);
    return 1;
}

/* The length in a header such as $11 CR LF, by hand as it is in the way of every reply; -1 is nil where nil is allowed.
 * Returns the header's bytes, 0 if its end did not come yet, or an error. */
static ptrdiff_t read_length(struct iok_error *err, struct iok_span in, bool nil, int64_t *length)
{
    size_t i = 1;
    uint64_t value = 0;
    while (i < in.n && in.p[i] >= '0' && in.p[i] <= '9') {
        value = value * 10 + (uint64_t)(in.p[i++] - '0');
        if (i > LENGTH_DIGITS_MAX + 1)
            return iok_err(err, IOK_ELIMIT, "a length of more than %u digits after '%c'", LENGTH_DIGITS_MAX, in.p[0]);
    }
    if (i == in.n)
        return 0;
    if (i > 1 && in.p[i] == '\r') {
        if (i + 1 == in.n)
            return 0;
        if (in.p[i + 1] != '\n')
            return garbled(err, in.p[0]);
        *length = (int64_t)value;
        return (ptrdiff_t)i + 2;
    }
    if (i == 1 && in.p[1] == '?')
        return iok_err(err, IOK_EPROTO, "a streamed value after '%c', which no server sends", in.p[0]);
    if (i == 1 && nil && in.p[1] == '-') {
        static const char minus_one[] = "-1\r\n";
        size_t n = in.n - 1 < 4 ? in.n - 1 : 4;
        if (memcmp(in.p + 1, minus_one, n) != 0)
            return garbled(err, in.p[0]);
        *length = -1;
        return n < 4 ? 0 : 5;
    }
    return garbled(err, in.p[0]);
}

/* ---- values --------------------------------------------------------------------------------------------------- */

static struct iok_tape *tape_of(struct redis *r, struct iok_io *io)
{
    return r->message == MESSAGE_STEP ? &r->scratch : io->tape;
}

static int over_limit(struct iok_io *io)
{
    return iok_io_fail(io, IOK_ELIMIT, "a reply of more than %zu bytes", io->max_reply);
}

static int check_tape(struct iok_io *io, const struct iok_tape *tape)
{
    int rc = iok_tape_error(tape);
    if (rc == 0)
        return 0;
    return rc == IOK_ELIMIT ? over_limit(io) : iok_io_fail(io, rc, "out of memory for a reply");
}

static int message_end(struct redis *r, struct iok_io *io);

/* A value is complete, and with it perhaps the containers around it, and the message. */
static int value_end(struct redis *r, struct iok_io *io)
{
    while (r->depth > 0) {
        if (--r->left[r->depth - 1] > 0)
            return 0;
        r->depth--;
        if (r->attributes >> r->depth & 1)
            return 0;
    }
    return message_end(r, io);
}

static int open_container(struct redis *r, struct iok_io *io, enum iok_type type, uint64_t len)
{
    bool pairs = type == IOK_MAP || type == IOK_ATTR;
    struct iok_tape *tape = tape_of(r, io);
    if (r->depth == DEPTH_MAX)
        return iok_io_fail(io, IOK_ELIMIT, "values nested deeper than %u", DEPTH_MAX);
    uint64_t values = pairs ? 2 * len : len;
    if (values > io->max_reply / sizeof(struct iok_token) || values > UINT32_MAX)
        return over_limit(io);
    iok_tape_head(tape, type, (uint32_t)len);
    int rc = check_tape(io, tape);
    if (rc < 0)
        return rc;
    if (values == 0)
        return type == IOK_ATTR ? 0 : value_end(r, io);
    uint64_t bit = (uint64_t)1 << r->depth;
    r->attributes = type == IOK_ATTR ? r->attributes | bit : r->attributes & ~bit;
    r->left[r->depth++] = values;
    return 0;
}

static ptrdiff_t read_container(struct redis *r, struct iok_io *io, struct iok_span in, enum iok_type type)
{
    int64_t len;
    ptrdiff_t used = read_length(&io->err, in, type == IOK_ARRAY, &len);
    if (used <= 0)
        return used;
    int rc;
    if (len < 0) { /* [RESP] "Null arrays" */
        iok_tape_null(tape_of(r, io));
        rc = check_tape(io, tape_of(r, io));
        rc = rc < 0 ? rc : value_end(r, io);
    } else {
        rc = open_container(r, io, type, (uint64_t)len);
    }
    return rc < 0 ? rc : used;
}

/* An error that is the whole reply may be one that says that the command did not run. */
static void note_error(struct redis *r, struct iok_io *io, struct iok_span start)
{
    if (r->depth > 0)
        return;
    r->is_error = true;
    if (r->message != MESSAGE_REPLY)
        return;
    struct iok_flight *flight = io->host->flight(io, IOK_SEQ_HEAD);
    enum redis_kind kind = flight != NULL ? (enum redis_kind)(flight->tag >> TAG_KIND_SHIFT) : REDIS_PLAIN;
    if (redis_error_rejects(start, kind))
        r->end_flags |= IOK_MSG_REJECTED;
}

/* [RESP] "Verbatim strings": three letters, five bits each (a is 1), the first letter highest; 0 if they are no small
 * letters. */
static uint16_t format_of(const uint8_t *p)
{
    unsigned format = 0;
    for (int i = 0; i < 3; i++) {
        if (p[i] < 'a' || p[i] > 'z')
            return 0;
        format = format << 5 | (p[i] - 'a' + 1u);
    }
    return (uint16_t)format;
}

static int too_long(struct iok_io *io)
{
    return iok_io_fail(io, IOK_EPROTO, "a string is longer than its header says");
}

/* The end of a payload that came in pieces: 2, 0 if it did not come yet, or an error. */
static ptrdiff_t read_payload_end(struct redis *r, struct iok_io *io, struct iok_span in)
{
    if (in.p[0] != '\r' || (in.n > 1 && in.p[1] != '\n'))
        return too_long(io);
    if (in.n < 2)
        return 0;
    r->in_payload = false;
    int rc = value_end(r, io);
    return rc < 0 ? rc : 2;
}

static ptrdiff_t read_payload(struct redis *r, struct iok_io *io, struct iok_span in)
{
    if (r->payload_left == 0)
        return read_payload_end(r, io, in);
    size_t n = in.n < r->payload_left ? in.n : r->payload_left;
    struct iok_tape *tape = tape_of(r, io);
    if (!tape->discard) { /* the host's may discard since the last piece, and then knows of no open payload */
        iok_tape_fill(tape, iok_span(in.p, n));
        int rc = check_tape(io, tape);
        if (rc < 0)
            return rc;
    }
    r->payload_left -= n;
    return (ptrdiff_t)n;
}

/* A payload of len bytes at in: whole if it is all here, else opened for read_payload. Returns the bytes used. */
static ptrdiff_t put_payload(struct redis *r, struct iok_io *io, struct iok_span in, enum iok_type type,
                             uint16_t subtype, size_t len)
{
    struct iok_tape *tape = tape_of(r, io);
    bool whole = in.n >= len + 2;
    if (whole)
        iok_tape_copy(tape, type, subtype, iok_span(in.p, len));
    else
        iok_tape_open(tape, type, subtype, len);
    int rc = check_tape(io, tape);
    if (rc < 0)
        return rc;
    if (!whole) {
        r->in_payload = true;
        r->payload_left = len;
        return 0;
    }
    /* Only now, as a payload in pieces meets its limit before its end. */
    if (in.p[len] != '\r' || in.p[len + 1] != '\n')
        return too_long(io);
    rc = value_end(r, io);
    return rc < 0 ? rc : (ptrdiff_t)len + 2;
}

static ptrdiff_t read_bulk(struct redis *r, struct iok_io *io, struct iok_span in)
{
    int64_t len;
    ptrdiff_t used = read_length(&io->err, in, true, &len);
    if (used <= 0)
        return used;
    if (len < 0) { /* [RESP] "Null bulk strings" */
        iok_tape_null(tape_of(r, io));
        int rc = check_tape(io, tape_of(r, io));
        rc = rc < 0 ? rc : value_end(r, io);
        return rc < 0 ? rc : used;
    }
    if ((uint64_t)len > io->max_reply || len > UINT32_MAX)
        return over_limit(io);
    ptrdiff_t more = put_payload(r, io, iok_span_skip(in, (size_t)used), IOK_BYTES, 0, (size_t)len);
    return more < 0 ? more : used + more;
}

/* [RESP] "Bulk errors" and "Verbatim strings": both need the first bytes of the payload at hand. */
static ptrdiff_t read_marked(struct redis *r, struct iok_io *io, struct iok_span in)
{
    int64_t len;
    ptrdiff_t used = read_length(&io->err, in, false, &len);
    if (used <= 0)
        return used;
    if ((uint64_t)len > io->max_reply || len > UINT32_MAX)
        return over_limit(io);
    bool error = in.p[0] == '!';
    size_t need = !error ? 4 : (size_t)len < ERROR_CODE_MAX ? (size_t)len : ERROR_CODE_MAX;
    struct iok_span payload = iok_span_skip(in, (size_t)used);
    if (!error && len < 4)
        return garbled(&io->err, in.p[0]);
    if (payload.n < need)
        return 0;
    ptrdiff_t more;
    if (error) {
        note_error(r, io, iok_span(payload.p, need));
        more = put_payload(r, io, payload, IOK_ERROR, 0, (size_t)len);
    } else if (payload.p[3] != ':') {
        return garbled(&io->err, in.p[0]);
    } else {
        used += 4;
        more = put_payload(r, io, iok_span_skip(payload, 4), IOK_TEXT, format_of(payload.p), (size_t)len - 4);
    }
    return more < 0 ? more : used + more;
}

static bool is_big_number(struct iok_span text)
{
    if (text.n > 0 && (text.p[0] == '-' || text.p[0] == '+'))
        text = iok_span_skip(text, 1);
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] < '0' || text.p[i] > '9')
            return false;
    return text.n > 0;
}

/* [RESP] "Integers" may have a plus. */
static bool read_i64(struct iok_span line, int64_t *out)
{
    if (line.n > 1 && line.p[0] == '+' && line.p[1] != '-')
        line = iok_span_skip(line, 1);
    return iok_span_i64(line, out);
}

/* A value that is one line. */
static bool put_line(struct redis *r, struct iok_io *io, uint8_t type, struct iok_span line)
{
    struct iok_tape *tape = tape_of(r, io);
    double f64;
    switch (type) {
    case '+':
        iok_tape_copy(tape, IOK_TEXT, 0, line);
        return true;
    case '-':
        note_error(r, io, line);
        iok_tape_copy(tape, IOK_ERROR, 0, line);
        return true;
    case ':':
        if (!read_i64(line, &r->last_i64))
            return false;
        iok_tape_i64(tape, r->last_i64);
        return true;
    case ',':
        if (!iok_span_f64(line, &f64))
            return false;
        iok_tape_f64(tape, f64);
        return true;
    case '(':
        if (!is_big_number(line))
            return false;
        iok_tape_copy(tape, IOK_DECIMAL, 0, line);
        return true;
    case '#':
        if (line.n != 1 || (line.p[0] != 't' && line.p[0] != 'f'))
            return false;
        iok_tape_bool(tape, line.p[0] == 't');
        return true;
    default: /* '_' */
        iok_tape_null(tape);
        return line.n == 0;
    }
}

static ptrdiff_t read_line_value(struct redis *r, struct iok_io *io, struct iok_span in)
{
    uint8_t type = in.p[0];
    struct iok_span line = iok_span(NULL, 0);
    bool text = type == '+' || type == '-' || type == '(';
    int rc = read_line(io, in, text ? LINE_BYTES_MAX : HEADER_BYTES_MAX, &line);
    if (rc <= 0)
        return rc;
    if (!put_line(r, io, type, line))
        return garbled(&io->err, type);
    rc = check_tape(io, tape_of(r, io));
    if (rc == 0)
        rc = value_end(r, io);
    return rc < 0 ? rc : (ptrdiff_t)line.n + 3;
}

/* What the peer sent instead of RESP. Before the sign-in is done its words may be shown: they answer no request. */
static int not_resp(struct redis *r, struct iok_io *io, struct iok_span in)
{
    char words[17];
    size_t n = 0;
    uint8_t c = in.p[0];
    while (n < sizeof(words) - 1 && n < in.n && in.p[n] >= ' ' && in.p[n] <= '~') {
        words[n] = (char)in.p[n];
        n++;
    }
    words[n] = '\0';
    if (!redis_signin_waits(&r->signin) || n == 0)
        return iok_io_fail(io, IOK_EPROTO, "a value that begins with byte 0x%02x: this is not RESP%s", c,
                           c == 0x15 ? "; it looks like a TLS alert: use rediss://" : "");
    return iok_io_fail(io, IOK_EPROTO, "the peer does not speak RESP: its first byte is '%c' (0x%02x), in \"%s\"", c, c,
                       words);
}

/* One token, whole or the beginning of a payload. Returns the bytes used, 0 if more are needed, or an error. */
static ptrdiff_t read_value(struct redis *r, struct iok_io *io, struct iok_span in)
{
    switch (in.p[0]) {
    case '$':
        return read_bulk(r, io, in);
    case '*':
        return read_container(r, io, in, IOK_ARRAY);
    case '%':
        return read_container(r, io, in, IOK_MAP);
    case '~':
        return read_container(r, io, in, IOK_SET);
    case '|':
        return read_container(r, io, in, IOK_ATTR);
    case '=':
    case '!':
        return read_marked(r, io, in);
    case '+':
    case '-':
    case ':':
    case ',':
    case '(':
    case '#':
    case '_':
        return read_line_value(r, io, in);
    case '>':
        return iok_io_fail(io, IOK_EPROTO, "a push message inside another value");
    default:
        return not_resp(r, io, in);
    }
}

/* ---- messages ------------------------------------------------------------------------------------------------- */

/* The first element of an array or push at in, when it is a short bulk string: *name. 1, 0 if more bytes are needed to
 * tell; name is empty if it is something else. Errors are left to read_value, which meets them next. */
static int peek_name(struct iok_span in, struct iok_span *name)
{
    int64_t len;
    *name = iok_span(NULL, 0);
    ptrdiff_t used = read_length(NULL, in, false, &len);
    if (used <= 0)
        return used == 0 ? 0 : 1;
    struct iok_span rest = iok_span_skip(in, (size_t)used);
    if (len == 0)
        return 1;
    if (rest.n == 0)
        return 0;
    if (rest.p[0] != '$')
        return 1;
    used = read_length(NULL, rest, false, &len);
    if (used <= 0)
        return used == 0 ? 0 : 1;
    rest = iok_span_skip(rest, (size_t)used);
    if ((uint64_t)len > PUSH_KIND_MAX)
        return 1;
    if (rest.n < (size_t)len)
        return 0;
    *name = iok_span(rest.p, (size_t)len);
    return 1;
}

static unsigned head_kind(struct iok_io *io)
{
    struct iok_flight *flight = io->host->flight(io, IOK_SEQ_HEAD);
    return flight != NULL ? flight->tag >> TAG_KIND_SHIFT : REDIS_PLAIN;
}

static void begin_push(struct redis *r, struct iok_io *io)
{
    r->message = MESSAGE_PUSH;
    io->host->begin_push(io);
}

/* In RESP2 an array may be a push: once something is subscribed, or when confirmations are awaited. */
static bool may_be_push(struct redis *r, struct iok_io *io)
{
    return r->protocol == 2 && (r->subscribed != 0 || (r->specials > 0 && redis_is_subscription(head_kind(io))));
}

/* 1 when a push was begun, 0 if more bytes are needed, 2 if it is an ordinary reply. [RESP] "Pushes"; and for RESP2
 * https://redis.io/docs/latest/develop/pubsub, "Format of pushed messages". */
static int begin_if_push(struct redis *r, struct iok_io *io, struct iok_span in)
{
    struct iok_span name;
    if (peek_name(in, &name) == 0)
        return 0;
    enum redis_kind kind = redis_confirmation_kind(name);
    bool message = iok_span_eq(name, iok_span_of("message")) || iok_span_eq(name, iok_span_of("pmessage")) ||
                   iok_span_eq(name, iok_span_of("smessage"));
    if (in.p[0] == '*' && kind == REDIS_PLAIN && !message)
        return 2;
    r->kind = (uint8_t)kind;
    r->confirms = kind != REDIS_PLAIN && r->specials > 0 && kind == head_kind(io);
    begin_push(r, io);
    return 1;
}

/* A line of MONITOR begins with a time, which no status does: given as a push of two, "monitor" and the line. */
static int begin_monitor_line(struct redis *r, struct iok_io *io)
{
    begin_push(r, io);
    int rc = open_container(r, io, IOK_PUSH, 2);
    if (rc < 0)
        return rc;
    iok_tape_static(tape_of(r, io), IOK_TEXT, iok_span_of("monitor"));
    rc = check_tape(io, tape_of(r, io));
    return rc < 0 ? rc : value_end(r, io);
}

static int begin_reply(struct redis *r, struct iok_io *io, struct iok_span in)
{
    if (redis_signin_waits(&r->signin) && io->host->flight(io, IOK_SEQ_HEAD) == NULL) {
        iok_tape_reset(&r->scratch, r->scratch_tokens, sizeof(r->scratch_tokens) / sizeof(*r->scratch_tokens));
        r->message = MESSAGE_STEP;
        return 0;
    }
    if (io->host->begin_reply(io, IOK_SEQ_HEAD) != NULL) {
        r->message = MESSAGE_REPLY;
        return 0;
    }
    if (memchr("$*%~|=!+-:,(#_", in.p[0], 14) == NULL)
        return not_resp(r, io, in);
    return iok_io_fail(io, IOK_EPROTO,
                       in.p[0] == '-' ? "an error reply that answers no request" : "a reply that answers no request");
}

/* As after a new connection, before its sign-in. */
static void forget(struct redis *r)
{
    r->protocol = 2;
    r->subscribed = 0;
    r->monitoring = false;
}

static void request_is_answered(struct redis *r)
{
    r->specials--;
    r->confirmed = 0;
}

static int reply_end(struct redis *r, struct iok_io *io)
{
    uint32_t flags = r->end_flags | IOK_MSG_LAST;
    r->end_flags = 0;
    unsigned kind = r->specials > 0 ? head_kind(io) : REDIS_PLAIN;
    if (kind != REDIS_PLAIN)
        request_is_answered(r);
    if (kind == REDIS_MONITOR && !r->is_error)
        r->monitoring = true;
    if (kind == REDIS_RESET && !r->is_error)
        forget(r);
    return io->host->end(io, flags);
}

/* All channels are confirmed: the request is answered by their number. */
static int confirmations_end(struct redis *r, struct iok_io *io, uint32_t channels)
{
    struct iok_tape *tape = io->host->begin_reply(io, IOK_SEQ_HEAD);
    if (tape == NULL)
        return iok_io_fail(io, IOK_EPROTO, "a confirmation that answers no request");
    request_is_answered(r);
    iok_tape_i64(tape, channels);
    int rc = check_tape(io, tape);
    return rc < 0 ? rc : io->host->end(io, IOK_MSG_LAST);
}

static int push_end(struct redis *r, struct iok_io *io)
{
    unsigned kind = r->kind;
    bool confirms = r->confirms;
    r->kind = REDIS_PLAIN;
    r->confirms = false;
    int rc = io->host->end(io, IOK_MSG_LAST);
    if (rc < 0 || kind == REDIS_PLAIN)
        return rc;
    bool shard = kind == REDIS_SSUBSCRIBE || kind == REDIS_SUNSUBSCRIBE;
    unsigned bit = shard ? SUBSCRIBED_SHARDS : SUBSCRIBED_CHANNELS;
    r->subscribed = (uint8_t)(r->last_i64 > 0 ? r->subscribed | bit : r->subscribed & ~bit);
    struct iok_flight *flight = confirms ? io->host->flight(io, IOK_SEQ_HEAD) : NULL;
    if (flight == NULL)
        return 0;
    uint32_t channels = flight->tag & TAG_COUNT_MASK;
    return ++r->confirmed < channels ? 0 : confirmations_end(r, io, channels);
}

static int step_end(struct redis *r, struct iok_io *io)
{
    struct iok_span text = iok_span(NULL, 0);
    if (r->is_error)
        text = iok_token_span(&r->scratch.tokens[r->scratch.n_tokens - 1]);
    else if (redis_signin_step(&r->signin) == REDIS_STEP_RESET)
        forget(r);
    int rc = redis_signin_answer(&r->signin, io, r->is_error ? &text : NULL, &r->protocol);
    if (rc > 0)
        io->host->ready(io);
    return rc < 0 ? rc : 0;
}

static int message_end(struct redis *r, struct iok_io *io)
{
    enum message message = (enum message)r->message;
    r->message = MESSAGE_NONE;
    int rc = message == MESSAGE_REPLY ? reply_end(r, io) : message == MESSAGE_PUSH ? push_end(r, io) : step_end(r, io);
    r->is_error = false;
    return rc;
}

/* ---- the slots ------------------------------------------------------------------------------------------------ */

static ptrdiff_t feed_some(struct redis *r, struct iok_io *io, struct iok_span in)
{
    if (r->in_payload)
        return read_payload(r, io, in);
    if (r->message != MESSAGE_NONE)
        return read_value(r, io, in);
    int rc;
    uint8_t type = in.p[0];
    if (type == '>' || (type == '*' && may_be_push(r, io))) {
        rc = begin_if_push(r, io, in);
        if (rc < 2)
            return rc == 0 ? 0 : read_container(r, io, in, IOK_PUSH);
    }
    if (type == '+' && r->monitoring) {
        if (in.n < 2)
            return 0;
        if (in.p[1] >= '0' && in.p[1] <= '9') {
            rc = begin_monitor_line(r, io);
            return rc < 0 ? rc : read_value(r, io, in);
        }
    }
    rc = begin_reply(r, io, in);
    return rc < 0 ? rc : read_value(r, io, in);
}

static ptrdiff_t redis_feed(void *state, struct iok_io *io, struct iok_span in)
{
    struct redis *r = state;
    size_t used = 0;
    while (used < in.n) {
        ptrdiff_t n = feed_some(r, io, iok_span_skip(in, used));
        if (n < 0)
            return n;
        if (n == 0)
            break;
        used += (size_t)n;
    }
    return (ptrdiff_t)used;
}

static int redis_open(void *state, struct iok_io *io)
{
    struct redis *r = state;
    forget(r);
    iok_tape_init(&r->scratch, r->scratch_tokens, sizeof(r->scratch_tokens) / sizeof(*r->scratch_tokens),
                  r->scratch_bytes, sizeof(r->scratch_bytes), io->max_reply, NULL);
    return 0;
}

static int redis_greet(void *state, struct iok_io *io)
{
    struct redis *r = state;
    return redis_signin_start(&r->signin, io, false);
}

/* RESET signs out and goes back to RESP2, so all of the sign-in follows it. */
static int redis_reset(void *state, struct iok_io *io)
{
    struct redis *r = state;
    if (r->unresettable)
        return iok_io_fail(io, IOK_ESTATE, "RESET would not undo CLIENT NO-EVICT or NO-TOUCH");
    r->in_multi = false;
    return redis_signin_start(&r->signin, io, true);
}

static void redis_close(void *state)
{
    struct redis *r = state;
    iok_tape_deinit(&r->scratch);
}

static const char *const redis_schemes[] = {"redis", "valkey", "unix", NULL};
static const char *const redis_tls_schemes[] = {"rediss", "valkeys", NULL};

static const struct iok_proto_option redis_options[] = {
    {"protocol", "RESP version: 3 (default; falls back to 2 on old servers), or 2 (never sends HELLO)"},
    {"client_name", "name of the connections in the server's CLIENT LIST; default none"},
    {"db", "database number, where the path cannot name it because it is a socket's; default 0"},
    {NULL, NULL},
};

const struct iok_proto iok_proto_redis = {
    .name = "redis",
    .schemes = redis_schemes,
    .tls_schemes = redis_tls_schemes,
    .default_port = 6379,
    .flags = IOK_PROTO_IN_ORDER | IOK_PROTO_PUSH | IOK_PROTO_WHOLE,
    .state_size = sizeof(struct redis),
    .default_connections = 1,
    .options = redis_options,
    .check = redis_check,
    .open = redis_open,
    .greet = redis_greet,
    .encode = redis_encode,
    .feed = redis_feed,
    .close = redis_close,
    .ping = redis_ping,
    .classify = redis_classify,
    .reset = redis_reset,
    .describe = redis_describe,
};
