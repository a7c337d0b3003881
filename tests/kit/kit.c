/* kit.c - the host of kit.h: flights, one tape, and a log of events. It allocates by malloc itself and not by
 * src/base/mem.h, so that only the codec's allocations are counted and made to fail. */
#include "kit.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../src/base/mem.h"

/* The longest line that any codec leaves unused, and some bytes of the next. */
#define UNUSED_MAX (65536u + 128u)

/* ---- growing text ---------------------------------------------------------------------------------------------- */

static void *must(void *p)
{
    if (p == NULL)
        abort();
    return p;
}

void kit_text_put(struct kit_text *text, const void *p, size_t n)
{
    if (text->n + n + 1 > text->cap) {
        text->cap = 2 * text->cap + n + 64;
        text->p = must(realloc(text->p, text->cap));
    }
    if (n > 0)
        memcpy(text->p + text->n, p, n);
    text->n += n;
    text->p[text->n] = '\0';
}

void kit_text_print(struct kit_text *text, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    kit_text_put(text, line, (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1);
}

void kit_text_quote(struct kit_text *text, struct iok_span bytes)
{
    kit_text_put(text, "\"", 1);
    for (size_t i = 0; i < bytes.n; i++) {
        uint8_t c = bytes.p[i];
        const char *escape = c == '\r' ? "\\r" : c == '\n' ? "\\n" : c == '\t' ? "\\t" : c == '"' ? "\\\"" : "\\\\";
        if (c == '\r' || c == '\n' || c == '\t' || c == '"' || c == '\\')
            kit_text_put(text, escape, 2);
        else if (c < ' ' || c > '~')
            kit_text_print(text, "\\x%02x", c);
        else
            kit_text_put(text, &bytes.p[i], 1);
    }
    kit_text_put(text, "\"", 1);
}

static void print_token(struct kit_text *text, const struct iok_token *token)
{
    static const char *const names[] = {
        [IOK_NULL] = "null",           [IOK_BOOL] = "bool",   [IOK_I64] = "i64",         [IOK_F64] = "f64",
        [IOK_BYTES] = "bytes",         [IOK_TEXT] = "text",   [IOK_DECIMAL] = "decimal", [IOK_ARRAY] = "array",
        [IOK_TIMESTAMP] = "timestamp", [IOK_MAP] = "map",     [IOK_SET] = "set",         [IOK_PUSH] = "push",
        [IOK_ATTR] = "attr",           [IOK_ERROR] = "error", [IOK_DROPPED] = "dropped",
    };
    char number[32];
    if (token->type == 0 || token->type >= sizeof(names) / sizeof(*names))
        abort();
    kit_text_print(text, " %s", names[token->type]);
    if (token->subtype != 0)
        kit_text_print(text, "/%u", token->subtype);
    switch (token->type) {
    case IOK_NULL:
        break;
    case IOK_BOOL:
        kit_text_print(text, " %s", token->i ? "true" : "false");
        break;
    case IOK_I64:
    case IOK_TIMESTAMP:
        kit_text_print(text, " %lld", (long long)token->i);
        break;
    case IOK_F64:
        kit_text_print(text, " %.*s", (int)iok_format_f64(number, token->f), number);
        break;
    case IOK_ARRAY:
    case IOK_MAP:
    case IOK_SET:
    case IOK_PUSH:
    case IOK_ATTR:
        kit_text_print(text, " %u", (unsigned)token->len);
        break;
    default:
        kit_text_put(text, " ", 1);
        kit_text_quote(text, iok_token_span(token));
    }
}

void kit_text_tokens(struct kit_text *text, const struct iok_token *tokens, size_t n)
{
    for (size_t i = 0; i < n; i++)
        print_token(text, &tokens[i]);
}

void kit_text_free(struct kit_text *text)
{
    free(text->p);
    *text = (struct kit_text){0};
}

/* ---- what the host gives to the codec --------------------------------------------------------------------------- */

#define STOP(...) (fprintf(stderr, "the codec broke the contract: " __VA_ARGS__), fputc('\n', stderr), abort())

static struct kit_host *host_of(struct iok_io *io)
{
    return (struct kit_host *)io;
}

static void open_message(struct kit_host *host, bool push, bool discard)
{
    if (host->message_open)
        STOP("a message was begun before the last one had ended");
    host->message_open = true;
    host->message_is_push = push;
    host->message_is_part = false;
    iok_tape_reset(&host->tape, host->tokens, sizeof(host->tokens) / sizeof(*host->tokens));
    host->io.tape = discard ? &host->discarding : &host->tape;
}

static struct iok_flight *on_flight(struct iok_io *io, uint64_t seq)
{
    struct kit_host *host = host_of(io);
    return seq == IOK_SEQ_HEAD && host->n_flights > 0 ? &host->flights[0].flight : NULL;
}

static struct iok_tape *on_begin_reply(struct iok_io *io, uint64_t seq)
{
    struct iok_flight *flight = on_flight(io, seq);
    if (flight == NULL)
        return NULL;
    open_message(host_of(io), false, flight->call == NULL);
    return io->tape;
}

static struct iok_tape *on_begin_push(struct iok_io *io)
{
    if ((host_of(io)->proto->flags & IOK_PROTO_PUSH) == 0 && !host_of(io)->server)
        STOP("a push in a protocol that is not said to have any");
    open_message(host_of(io), true, false);
    return io->tape;
}

static struct iok_tape *on_begin_part(struct iok_io *io, uint64_t seq)
{
    struct iok_flight *flight = on_flight(io, seq);
    struct kit_host *host = host_of(io);
    if (flight == NULL)
        STOP("a part that answers no request");
    open_message(host, true, flight->call == NULL || (flight->host & IOK_FLIGHT_PARTS) == 0);
    host->message_is_part = true;
    return io->tape;
}

/* As the kernel does, a body whose caller is gone is broken off at once; but not where every caller is, as the transcript
 * goes on with it. */
static int on_go(struct iok_io *io, uint64_t seq)
{
    struct iok_flight *flight = on_flight(io, seq);
    struct kit_host *host = host_of(io);
    if (flight == NULL || (flight->host & IOK_FLIGHT_BODY) == 0 || host->message_open)
        STOP("a body was asked for that there is none of, or within a message");
    if (flight->call == NULL && !host->abandon && (host->proto->flags & IOK_PROTO_SINGLE) == 0)
        return host->proto->body(host->state, io, seq, iok_span_of("cancelled"), IOK_BODY_FAIL);
    host->flights[0].body_open = true;
    kit_text_print(&host->events, "go\n");
    return 0;
}

/* Whether the tokens are one whole value, as a tape has to be. */
static void check_shape(const struct iok_tape *tape)
{
    if (tape->n_tokens == 0 || iok_tape_skip(tape->tokens, tape->n_tokens, 0) != tape->n_tokens)
        STOP("a message of %u tokens is not one value", tape->n_tokens);
    for (uint32_t i = 0; i < tape->n_tokens; i++)
        if (tape->tokens[i].type == IOK_ATTR && i + 1 == tape->n_tokens)
            STOP("attributes without a value");
}

static const char *name_of_message(const struct kit_host *host, uint32_t flags)
{
    if (host->message_is_part)
        return "part";
    if (host->message_is_push)
        return host->server ? "request" : "push";
    if (host->flights[0].ping)
        return "pong";
    if (host->flights[0].flight.call == NULL)
        return "swallowed";
    if ((flags & IOK_MSG_AGAIN) != 0)
        return "again";
    return (flags & IOK_MSG_REJECTED) != 0 ? "reject" : "reply";
}

static void pop_flight(struct kit_host *host)
{
    host->n_flights--;
    memmove(host->flights, host->flights + 1, host->n_flights * sizeof(*host->flights));
}

/* Where a part may be cut anywhere, those of bytes that follow one another are one: how they arrived must not matter. */
static bool join_part(struct kit_host *host, const struct iok_tape *tape)
{
    struct kit_text *events = &host->events, more = {0};
    bool bytes = host->message_is_part && (host->proto->flags & IOK_PROTO_SINGLE) != 0 && tape->n_tokens == 1 &&
                 tape->tokens[0].type == IOK_BYTES;
    if (!bytes || host->part_end != events->n || host->part_end <= host->events_seen) {
        host->part_begins = bytes;
        return false;
    }
    kit_text_quote(&more, iok_token_span(&tape->tokens[0]));
    events->n -= 2; /* the quote and the end of the line */
    kit_text_put(events, more.p + 1, more.n - 1);
    kit_text_put(events, "\n", 1);
    host->part_end = events->n;
    kit_text_free(&more);
    return true;
}

static int on_end(struct iok_io *io, uint32_t flags)
{
    struct kit_host *host = host_of(io);
    struct iok_tape *tape = io->tape;
    if (!host->message_open)
        STOP("a message was ended that was not begun");
    host->message_open = false;
    io->tape = NULL;
    if ((flags & IOK_MSG_DROP) != 0)
        return 0;
    if (iok_tape_error(tape) != 0)
        return iok_io_fail(io, iok_tape_error(tape), "the message does not fit");
    if (host->message_is_part && (tape == &host->discarding || join_part(host, tape)))
        return 0;
    const char *what = name_of_message(host, flags);
    kit_text_print(&host->events, "%s", what);
    if (*what == 'r' || *what == 'a' || host->message_is_push) {
        check_shape(tape);
        kit_text_tokens(&host->events, tape->tokens, tape->n_tokens);
    }
    kit_text_put(&host->events, "\n", 1);
    if (host->part_begins)
        host->part_end = host->events.n;
    host->part_begins = false;
    host->n_requests += host->server;
    if (!host->message_is_push && (flags & IOK_MSG_LAST) != 0)
        pop_flight(host);
    return 0;
}

static void on_ready(struct iok_io *io)
{
    struct kit_host *host = host_of(io);
    if (!host->signing_in)
        STOP("ready without a greet or a reset");
    host->signing_in = false;
    host->is_ready = true;
    kit_text_print(&host->events, "ready\n");
}

static void on_role(struct iok_io *io, uint32_t role)
{
    kit_text_print(&host_of(io)->events, "role %s%s\n",
                   role == 0                        ? "in doubt"
                   : (role & IOK_ROLE_STANDBY) != 0 ? "standby"
                                                    : "primary",
                   (role & IOK_ROLE_READ_ONLY) != 0 ? " read-only" : "");
}

static void on_raw(struct iok_io *io, uint64_t seq)
{
    (void)seq;
    kit_text_print(&host_of(io)->events, "raw\n");
}

static void on_shut(struct iok_io *io)
{
    kit_text_print(&host_of(io)->events, "shut\n");
}

static void on_closing(struct iok_io *io)
{
    kit_text_print(&host_of(io)->events, "closing\n");
}

/* The same in every run, so that transcripts can hold what depends on it. */
static uint64_t on_random(struct iok_io *io)
{
    return UINT64_C(0x9e3779b97f4a7c15) * ++host_of(io)->randoms;
}

static const struct iok_host callbacks = {
    .begin_reply = on_begin_reply,
    .begin_push = on_begin_push,
    .begin_part = on_begin_part,
    .go = on_go,
    .end = on_end,
    .flight = on_flight,
    .ready = on_ready,
    .role = on_role,
    .closing = on_closing,
    .raw = on_raw,
    .shut = on_shut,
    .random = on_random,
};

/* ---- what is done to the codec ----------------------------------------------------------------------------------- */

/* A negative code closes the connection. The text is in the event, for transcripts that look at it. */
static void note(struct kit_host *host, const char *what, int code, const struct iok_error *err)
{
    if (err->code != code || err->text[0] == '\0')
        STOP("error %d without a text", code);
    kit_text_print(&host->events, "%s %s ", what, iok_errno_name(code));
    kit_text_quote(&host->events, iok_span_of(err->text));
    kit_text_put(&host->events, "\n", 1);
}

static void close_by(struct kit_host *host, int code)
{
    host->failed = code;
    host->is_ready = false;
    note(host, "error", code, &host->io.err);
}

static void take_output(struct kit_host *host)
{
    struct iovec vec[8];
    int n = iok_out_peek(&host->out, vec, 8);
    for (; n > 0; n = iok_out_peek(&host->out, vec, 8)) {
        for (int i = 0; i < n; i++) {
            kit_text_put(&host->sent, vec[i].iov_base, vec[i].iov_len);
            iok_out_take(&host->out, vec[i].iov_len);
        }
    }
}

static void sign_in(struct kit_host *host, int (*how)(void *state, struct iok_io *io))
{
    host->is_ready = false;
    host->signing_in = true;
    int rc = how(host->state, &host->io);
    if (rc < 0)
        close_by(host, rc);
    take_output(host);
}

void kit_host_open(struct kit_host *host, const struct iok_proto *proto, const char *url, size_t max_reply)
{
    host->proto = proto;
    iok_out_init(&host->out, &host->account);
    iok_tape_init(&host->tape, host->tokens, sizeof(host->tokens) / sizeof(*host->tokens), host->bytes,
                  sizeof(host->bytes), max_reply, &host->account);
    iok_tape_init(&host->discarding, NULL, 0, NULL, 0, max_reply, &host->account);
    host->discarding.discard = true;
    host->io =
        (struct iok_io){.host = &callbacks, .out = &host->out, .url = &host->url, .max_reply = max_reply, .err = {0}};
    int rc = iok_url_parse(&host->url, url, &host->io.err);
    host->has_url = rc == 0;
    if (rc == 0 && proto->hosts != NULL) {
        bool shuffle = false;
        rc = proto->hosts->wish(&host->url, &host->io.wish, &shuffle, &host->io.err);
    }
    if (rc == 0 && proto->check != NULL)
        rc = proto->check(&host->url, &host->io.err);
    host->state = must(calloc(1, host->server ? proto->server->state_size : proto->state_size));
    if (rc == 0)
        rc = host->server ? proto->server->open(host->state, &host->io) : proto->open(host->state, &host->io);
    if (rc < 0)
        close_by(host, rc);
    else if (proto->greet != NULL && !host->server)
        sign_in(host, proto->greet);
    else
        host->is_ready = true;
}

void kit_host_recv(struct kit_host *host, struct iok_span bytes)
{
    if (host->failed != 0)
        return;
    host->received += bytes.n;
    kit_text_put(&host->unused, bytes.p, bytes.n);
    size_t n = host->unused.n;
    /* A copy of exactly this size, so that the address sanitizer sees any reading beyond it. */
    uint8_t *exact = must(malloc(n + (n == 0)));
    memcpy(exact, host->unused.p, n);
    ptrdiff_t used = host->server ? host->proto->server->feed(host->state, &host->io, iok_span(exact, n))
                                  : host->proto->feed(host->state, &host->io, iok_span(exact, n));
    memset(exact, 0xee, n);
    free(exact);
    if (used < 0) {
        close_by(host, (int)used);
    } else if ((size_t)used > n || n - (size_t)used > UNUSED_MAX) {
        STOP("feed used %zd of %zu bytes", used, n);
    } else {
        memmove(host->unused.p, host->unused.p + used, n - (size_t)used);
        host->unused.n = n - (size_t)used;
    }
    take_output(host);
}

static struct kit_flight *push_flight(struct kit_host *host)
{
    if (host->n_flights == host->cap_flights) {
        host->cap_flights = 2 * host->cap_flights + 8;
        host->flights = must(realloc(host->flights, host->cap_flights * sizeof(*host->flights)));
    }
    struct kit_flight *flight = &host->flights[host->n_flights++];
    *flight = (struct kit_flight){.flight = {.call = (struct iok_call *)host}};
    return flight;
}

/* What encode and answer say: some errors end the message only, and leave nothing behind. Others close the connection. */
static bool was_refused(struct kit_host *host, int rc, uint64_t before)
{
    bool soft = rc == IOK_ETYPE || rc == IOK_ELIMIT || rc == IOK_EINVAL || rc == IOK_EUNSAFE;
    if (soft && host->out.appended != before)
        STOP("a refused message left bytes behind");
    if (soft)
        note(host, "refused", rc, &host->io.err);
    else if (rc < 0)
        close_by(host, rc);
    return soft;
}

void kit_host_call(struct kit_host *host, const struct iok_token *args, size_t n, uint32_t announced)
{
    if (host->failed != 0)
        return;
    if (!host->is_ready) {
        kit_text_print(&host->events, "not ready\n");
        return;
    }
    struct kit_flight *flight = push_flight(host);
    uint64_t before = host->out.appended;
    flight->flight.host = announced;
    int rc = host->proto->encode(host->state, &host->io, args, n, &flight->flight);
    flight->flight.end = host->out.appended;
    if (was_refused(host, rc, before))
        host->n_flights--;
    else if (rc == 0 && host->abandon)
        flight->flight.call = NULL;
    if (rc == 0 && (flight->flight.host & IOK_FLIGHT_GO) != 0) {
        flight->body_open = true;
        kit_text_print(&host->events, "go\n");
    }
    take_output(host);
}

void kit_host_body(struct kit_host *host, struct iok_span bytes, enum iok_body what)
{
    if (what == IOK_BODY_FAIL && (host->proto->flags & IOK_PROTO_SINGLE) != 0)
        return; /* the kernel closes the connection instead */
    for (size_t i = 0; i < host->n_flights && host->failed == 0; i++) {
        if (!host->flights[i].body_open)
            continue;
        host->flights[i].body_open = what == IOK_BODY_PART;
        int rc = host->proto->body(host->state, &host->io, i == 0 ? IOK_SEQ_HEAD : i, bytes, what);
        if (rc < 0)
            close_by(host, rc);
        take_output(host);
        return;
    }
}

void kit_host_answer(struct kit_host *host, const struct iok_token *reply, size_t n)
{
    if (host->failed != 0 || host->n_requests == 0)
        return;
    uint64_t before = host->out.appended;
    int rc = host->proto->server->answer(host->state, &host->io, reply, n);
    host->n_requests -= !was_refused(host, rc, before);
    take_output(host);
}

void kit_host_ping(struct kit_host *host)
{
    if (host->failed != 0 || !host->is_ready)
        return;
    bool raw = (host->proto->flags & IOK_PROTO_SINGLE) != 0; /* others are not pinged */
    struct kit_flight *flight = raw ? NULL : push_flight(host);
    if (flight != NULL)
        flight->ping = true;
    int rc = host->proto->ping(host->state, &host->io, raw ? NULL : &flight->flight);
    if (rc < 0)
        close_by(host, rc);
    take_output(host);
}

void kit_host_reset(struct kit_host *host)
{
    if (host->failed == 0 && host->is_ready)
        sign_in(host, host->proto->reset);
}

void kit_host_cancel(struct kit_host *host)
{
    for (size_t i = 0; i < host->n_flights; i++) {
        if (host->flights[i].flight.call == NULL || host->flights[i].ping)
            continue;
        host->flights[i].flight.call = NULL;
        if (i == 0 && host->message_open && (!host->message_is_push || host->message_is_part))
            host->io.tape = &host->discarding;
        if (host->flights[i].body_open && (host->proto->flags & IOK_PROTO_SINGLE) == 0)
            kit_host_body(host, iok_span_of("cancelled"), IOK_BODY_FAIL);
        return;
    }
}

void kit_host_eof(struct kit_host *host)
{
    if (host->failed != 0 || host->server)
        return;
    int rc = 0;
    if (host->proto->eof != NULL)
        rc = host->proto->eof(host->state, &host->io);
    else if (host->n_flights > 0)
        rc = iok_io_fail(&host->io, IOK_ERESET, "the peer closed the connection");
    if (rc < 0)
        close_by(host, rc);
}

bool kit_host_close(struct kit_host *host)
{
    if (host->state != NULL && host->server)
        host->proto->server->close(host->state);
    else if (host->state != NULL) /* also when it was not opened */
        host->proto->close(host->state);
    free(host->state);
    if (host->proto != NULL) {
        iok_tape_deinit(&host->tape);
        iok_tape_deinit(&host->discarding);
        iok_out_deinit(&host->out);
    }
    if (host->has_url)
        iok_url_deinit(&host->url);
    bool clean = iok_count_get(&host->account.bytes) == 0 && iok_count_get(&host->account.buffers) == 0;
    free(host->flights);
    kit_text_free(&host->unused);
    kit_text_free(&host->sent);
    kit_text_free(&host->events);
    return clean;
}
