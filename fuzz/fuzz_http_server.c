/* fuzz_http_server.c - a server's connection of HTTP, with bodies in parts both ways and what a 101 makes of it.
 *
 * What fuzz_codec.c leaves out: there a server's requests come whole, many at once, and are answered at once. Here the host
 * is as the kernel's (src/kernel/guest.c): one request at a time, what comes ahead waits, and a body of more than WHOLE_MAX
 * bytes comes in parts.
 *
 * Invariants: whatever the client sends and the program answers, the codec keeps the contract, a refused answer leaves no
 * byte behind, nothing stands amid an answer, what changes the protocol is a 101, and nothing stays alive, also when an
 * allocation fails. What it does does not depend on how the bytes were cut: whole, in random pieces and byte by byte give
 * the same logs.
 *
 * Input: [flags][seed of the cutting][failing allocation] then the client's bytes, in which 0xff makes the next byte an
 * action and the one behind it its argument; the program's bytes follow with a length before them. */
#include "../tests/kit/websocket.h"
#include "runs.h"

#define ESCAPE 0xffu
#define HEADER 3u
#define WHOLE_MAX 5u
#define MESSAGE_MAX 300u /* bytes, which inputs of that size can cross */

enum flags {
    FLAG_GO = 1,    /* each body in parts is asked for at once, as the kernel does */
    FLAG_SMALL = 2, /* requests are limited to MESSAGE_MAX */
    FLAG_HELD = 4,  /* there is never room for what need not be told */
    FLAG_DATE = 8,
};

enum action {
    ACTION_BYTE, /* 0xff from the client */
    ACTION_SAY,  /* the client sends one of requests[] */
    ACTION_FRAME,
    ACTION_EOF,
    ACTION_ANSWER, /* enum answer_bits */
    ACTION_ANSWER_PARTS,
    ACTION_PIECE,
    ACTION_FINISH,
    ACTION_GO,
    ACTION_UPGRADE,
    ACTION_MESSAGE,
    ACTION_END,
    ACTION_PING,
    ACTION_REFUSE,
    ACTIONS,
};

#define POST "POST / HTTP/1.1\r\nHost: h\r\n"
#define CHANGE "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: "
#define OPENING                                                                                                        \
    CHANGE "websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"                 \
           "Sec-WebSocket-Protocol: echo\r\n"

static const char *const requests[] = {
    "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    POST "Content-Length: 12\r\n\r\n",
    POST "Content-Length: 3\r\nExpect: 100-continue\r\n\r\n",
    POST "Content-Length: 12\r\nExpect: 100-continue\r\n\r\n",
    POST "Transfer-Encoding: chunked\r\n\r\n",
    POST "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
    "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n",
    CHANGE "echo\r\n\r\n",
    CHANGE "echo\r\nContent-Length: 7\r\n\r\n",
    OPENING "\r\n",
    OPENING "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n\r\n",
    "3\r\nabc\r\n",
    "0\r\n\r\n",
    "0\r\nX-Sum: 7\r\n\r\n",
};
#define N_REQUESTS (sizeof(requests) / sizeof(*requests))

/* ---- the host --------------------------------------------------------------------------------------------------- */

struct server {
    struct iok_io io; /* first, so that callbacks find the rest */
    const struct iok_proto_server *proto;
    void *state;
    struct iok_url url;
    struct iok_out out;
    struct iok_account account;
    struct iok_tape request, part;
    struct kit_text rest; /* what could not be fed yet */
    struct kit_text log, sent;
    size_t part_begin, part_end; /* of the log: a part of bytes, to which more may be joined; 0: none */
    bool is_held, goes;          /* FLAG_HELD, FLAG_GO */
    bool in_request, in_part;    /* a message is open */
    bool has_request;            /* one without an answer */
    bool streams, says;          /* its body comes in parts; that of its answer goes so */
    bool upgraded, is_websocket;
    bool closing, ended; /* by the codec; by the client */
    int failed;
};

#define STOP(...) (fprintf(stderr, "the codec broke the contract: " __VA_ARGS__), fputc('\n', stderr), abort())

static struct server *server_of(struct iok_io *io)
{
    return (struct server *)io;
}

static void say(struct server *server, const char *what)
{
    kit_text_print(&server->log, "%s\n", what);
}

static struct iok_tape *on_begin_push(struct iok_io *io)
{
    struct server *server = server_of(io);
    if (io->tape != NULL || server->has_request || server->streams || server->says || server->upgraded)
        STOP("a request amid another");
    iok_tape_reset(&server->request, NULL, 0);
    server->in_request = true;
    return io->tape = &server->request;
}

static struct iok_tape *on_begin_part(struct iok_io *io, uint64_t seq)
{
    struct server *server = server_of(io);
    if (io->tape != NULL || !server->streams)
        STOP("a part of no body");
    if (server->is_held && server->upgraded && seq != IOK_SEQ_HEAD)
        return NULL;
    iok_tape_reset(&server->part, NULL, 0);
    server->in_part = true;
    return io->tape = &server->part;
}

static void on_head(struct iok_io *io)
{
    if (!server_of(io)->in_request)
        STOP("a head of no request");
    say(server_of(io), "head");
}

/* How bytes arrived must not matter: parts of them that follow one another are one. */
static void log_part(struct server *server)
{
    const struct iok_tape *tape = &server->part;
    bool bytes = tape->n_tokens == 1 && tape->tokens[0].type == IOK_BYTES && !server->is_websocket;
    struct kit_text more = {0};
    if (bytes && server->part_end == server->log.n && server->part_end > 0) {
        kit_text_quote(&more, iok_token_span(&tape->tokens[0]));
        server->log.n -= 2; /* the quote and the end of the line */
        kit_text_put(&server->log, more.p + 1, more.n - 1);
        kit_text_free(&more);
    } else {
        server->part_begin = server->log.n;
        kit_text_put(&server->log, "part", 4);
        kit_text_tokens(&server->log, tape->tokens, tape->n_tokens);
    }
    kit_text_put(&server->log, "\n", 1);
    server->part_end = bytes ? server->log.n : 0;
}

static int on_end(struct iok_io *io, uint32_t flags)
{
    struct server *server = server_of(io);
    const struct iok_tape *tape = io->tape;
    bool part = server->in_part, last = (flags & IOK_MSG_LAST) != 0;
    if (tape == NULL)
        STOP("a message was ended that was not begun");
    io->tape = NULL;
    server->in_request = server->in_part = false;
    if ((flags & IOK_MSG_DROP) != 0)
        return 0;
    if (iok_tape_error(tape) != 0)
        return iok_io_fail(io, iok_tape_error(tape), "the message does not fit");
    if (tape->n_tokens == 0 || iok_tape_skip(tape->tokens, tape->n_tokens, 0) != tape->n_tokens)
        STOP("a message of %u tokens is not one value", tape->n_tokens);
    if (part) {
        log_part(server);
        server->streams = !last;
        return 0;
    }
    kit_text_put(&server->log, "request", 7);
    kit_text_tokens(&server->log, tape->tokens, tape->n_tokens);
    say(server, last ? "" : " ...");
    server->has_request = true;
    server->streams = (flags & IOK_MSG_HEAD) != 0;
    if (last == server->streams)
        STOP("a request that is neither whole nor a head");
    return 0;
}

static struct iok_flight *on_flight(struct iok_io *io, uint64_t seq)
{
    (void)io;
    (void)seq;
    return NULL;
}

/* How much of a body came before it was found to be broken depends on how it arrived: the part that is open is dropped. */
static void forget_part(struct server *server)
{
    if (server->part_end == server->log.n && server->part_end > 0)
        server->log.n = server->part_begin;
}

static void on_closing(struct iok_io *io)
{
    server_of(io)->closing = true;
    if (!server_of(io)->upgraded)
        forget_part(server_of(io));
    say(server_of(io), "closing");
}

static uint64_t on_random(struct iok_io *io)
{
    (void)io;
    return 1;
}

static const struct iok_host callbacks = {
    .begin_push = on_begin_push,
    .begin_part = on_begin_part,
    .head = on_head,
    .end = on_end,
    .flight = on_flight,
    .closing = on_closing,
    .random = on_random,
};

static void take_output(struct server *server)
{
    struct iovec vec[8];
    int n = iok_out_peek(&server->out, vec, 8);
    for (; n > 0; n = iok_out_peek(&server->out, vec, 8)) {
        for (int i = 0; i < n; i++) {
            kit_text_put(&server->sent, vec[i].iov_base, vec[i].iov_len);
            iok_out_take(&server->out, vec[i].iov_len);
        }
    }
    if (server->out.error != 0)
        server->failed = server->out.error;
}

static void fail(struct server *server, int rc)
{
    if (server->io.err.code != rc || server->io.err.text[0] == '\0')
        STOP("error %d without a text", rc);
    server->failed = rc;
    if (!server->upgraded)
        forget_part(server);
    kit_text_print(&server->log, "error %s\n", iok_errno_name(rc));
}

/* True: the codec did it. Errors that are the program's only leave nothing behind, others end the connection. */
static bool is_done(struct server *server, int rc, uint64_t before)
{
    bool soft = rc == IOK_ETYPE || rc == IOK_ELIMIT || rc == IOK_EINVAL || rc == IOK_EUNSAFE;
    if (soft && server->out.appended != before)
        STOP("what was refused left bytes behind");
    if (soft)
        kit_text_print(&server->log, "refused %s\n", iok_errno_name(rc));
    else if (rc != 0)
        fail(server, rc);
    take_output(server);
    return rc == 0 && server->failed == 0;
}

static bool may_feed(const struct server *server)
{
    return server->failed == 0 && !server->closing &&
           (server->streams || (!server->has_request && !server->says && !server->upgraded));
}

static void go(struct server *server)
{
    uint64_t before = server->out.appended;
    is_done(server, server->proto->go(server->state, &server->io), before);
}

/* A copy of exactly this size, so that the address sanitizer sees any reading beyond it. */
static void feed_rest(struct server *server)
{
    size_t n = server->rest.n, used = 1;
    while (n > 0 && used > 0 && may_feed(server)) {
        bool had_request = server->has_request;
        uint64_t before = server->out.appended;
        uint8_t *exact = malloc(n);
        memcpy(exact, server->rest.p, n);
        ptrdiff_t rc = server->proto->feed(server->state, &server->io, iok_span(exact, n));
        memset(exact, 0xee, n);
        free(exact);
        if (rc > (ptrdiff_t)n)
            STOP("feed used %zd of %zu bytes", rc, n);
        if (server->says && !server->upgraded && server->out.appended != before)
            STOP("something amid an answer");
        if (rc < 0)
            fail(server, (int)rc);
        take_output(server);
        used = rc < 0 ? 0 : (size_t)rc;
        n -= used;
        memmove(server->rest.p, server->rest.p + used, n);
        server->rest.n = n;
        if (server->streams && !had_request && !server->upgraded && !server->says && server->goes)
            go(server);
    }
    if (server->closing)
        server->has_request = server->streams = server->says = false;
}

static void receive(struct server *server, struct iok_span bytes)
{
    if (server->ended || server->failed != 0 || server->closing)
        return;
    kit_text_put(&server->rest, bytes.p, bytes.n);
    feed_rest(server);
}

/* An answer, or the end of one, is out. */
static void answered(struct server *server)
{
    server->says = server->has_request = false;
    if (server->closing)
        server->streams = false;
    else if (server->streams)
        STOP("the connection goes on, though the client still sends what is not wanted");
    feed_rest(server);
}

/* ---- what the program does -------------------------------------------------------------------------------------- */

enum answer_bits {
    ANSWER_STATUS = 7,
    ANSWER_FIELD = 56,
    ANSWER_LAST = 64,
    ANSWER_BODY = 128,
};

static struct iok_token text_token(const char *text)
{
    return (struct iok_token){.type = IOK_TEXT, .len = (uint32_t)strlen(text), .p = (const uint8_t *)text};
}

static size_t make_answer(struct iok_token answer[7], unsigned bits, int64_t status)
{
    static const char *const fields[][2] = {
        {NULL, NULL},     {"content-length", "3"}, {"transfer-encoding", "chunked"},   {"connection", "close"},
        {"a b", "wrong"}, {"x", "wrong\n"},        {"sec-websocket-protocol", "echo"}, {"upgrade", "echo"},
    };
    const char *const *field = fields[(bits & ANSWER_FIELD) >> 3];
    size_t n = 0;
    answer[n++] = (struct iok_token){.type = IOK_ARRAY, .len = 4};
    answer[n++] = (struct iok_token){.type = IOK_I64, .i = status};
    answer[n++] = (struct iok_token){.type = IOK_NULL};
    answer[n++] = (struct iok_token){.type = IOK_ARRAY, .len = field[0] != NULL ? 2 : 0};
    for (size_t i = 0; i < 2 && field[0] != NULL; i++)
        answer[n++] = text_token(field[i]);
    answer[n++] = (bits & ANSWER_BODY) != 0 ? text_token("abc") : (struct iok_token){.type = IOK_NULL};
    return n;
}

static void answer(struct server *server, unsigned bits, bool parts)
{
    static const int64_t statuses[] = {200, 204, 304, 404, 101, 100, 1000, 205};
    struct iok_token tokens[7];
    size_t n = make_answer(tokens, bits, statuses[bits & ANSWER_STATUS]);
    uint64_t before = server->out.appended;
    if (!server->has_request || server->says)
        return;
    server->io.parts = parts;
    server->io.last = (bits & ANSWER_LAST) != 0;
    if (!is_done(server, server->proto->answer(server->state, &server->io, tokens, n), before))
        return;
    server->has_request = false;
    server->says = parts;
    if (!parts)
        answered(server);
}

static void upgrade(struct server *server, unsigned bits)
{
    struct iok_upgrade how = {(bits & 1) != 0, (bits & 2) != 0, MESSAGE_MAX};
    struct iok_token tokens[7];
    size_t n = make_answer(tokens, bits & ANSWER_FIELD, (bits & 4) != 0 ? 200 : 101);
    uint64_t before = server->out.appended;
    size_t sent = server->sent.n;
    if (!server->has_request || server->says)
        return;
    server->io.parts = true;
    if (!is_done(server,
                 server->proto->upgrade(server->state, &server->io, &how, server->request.tokens,
                                        server->request.n_tokens, tokens, n),
                 before))
        return;
    if (strncmp(server->sent.p + sent, "HTTP/1.1 101 ", 13) != 0)
        STOP("the protocol changes by another answer");
    server->has_request = false;
    server->says = server->upgraded = server->streams = true;
    server->is_websocket = how.websocket;
    feed_rest(server);
}

static void piece(struct server *server, struct iok_span bytes, enum iok_body what)
{
    if (!server->says || server->upgraded)
        return;
    int rc = server->proto->body(server->state, &server->io, bytes, what);
    take_output(server);
    if (rc != 0) /* not as its head said: the kernel ends the connection */
        fail(server, rc);
    else if (server->failed == 0 && what == IOK_BODY_END)
        answered(server);
}

static void message(struct server *server, unsigned kind, struct iok_span bytes)
{
    static const char *const names[] = {"ping", "pong", "close", "other"};
    struct iok_token tokens[] = {{.type = IOK_PUSH, .len = 2},
                                 text_token(names[(kind >> 2) & 3]),
                                 {.type = IOK_BYTES, .len = (uint32_t)bytes.n, .p = bytes.p}};
    uint64_t before = server->out.appended;
    if (!server->says || !server->upgraded || server->closing)
        return;
    if ((kind & 3) == 3)
        tokens[2] = (struct iok_token){.type = IOK_I64, .i = 995 + (kind >> 4)};
    if ((kind & 3) == 0)
        tokens[2].type = IOK_TEXT;
    bool push = (kind & 3) >= 2;
    is_done(server, server->proto->message(server->state, &server->io, tokens + (push ? 0 : 2), push ? 3 : 1), before);
}

static void end(struct server *server)
{
    if (!server->says || !server->upgraded)
        return;
    int rc = server->proto->end(server->state, &server->io);
    take_output(server);
    server->closing = true; /* what the client still says is not heard */
    server->says = server->streams = false;
    if (rc != 0)
        fail(server, rc);
}

static void client_ends(struct server *server)
{
    if (server->ended)
        return;
    server->ended = true;
    if (!server->upgraded || !server->streams || server->closing)
        return;
    int rc = server->proto->eof(server->state, &server->io);
    take_output(server);
    if (rc != 0)
        fail(server, rc);
}

static void refuse(struct server *server, unsigned why)
{
    static const int reasons[] = {IOK_EOVERLOAD, IOK_ETIMEOUT, IOK_ECLOSED, IOK_ECANCELLED};
    if (server->says || server->closing)
        return;
    server->io.parts = false;
    server->io.last = why > 3;
    int rc = server->proto->refuse(server->state, &server->io, reasons[why & 3]);
    take_output(server);
    if (rc != 0)
        fail(server, rc);
    else if (server->failed == 0)
        answered(server);
}

static void ping(struct server *server)
{
    if (!server->upgraded || !server->streams || server->closing)
        return;
    int rc = server->proto->ping(server->state, &server->io);
    take_output(server);
    if (rc < 0)
        fail(server, rc);
}

/* ---- a run ------------------------------------------------------------------------------------------------------ */

static unsigned take_number(struct iok_span *in)
{
    struct iok_span taken = fuzz_take(in, 1);
    return taken.n > 0 ? taken.p[0] : 0;
}

static void receive_cut(struct server *server, struct iok_span bytes, uint32_t *cutting)
{
    while (bytes.n > 0)
        receive(server, fuzz_piece(&bytes, cutting));
}

static void client_frame(struct server *server, unsigned first, struct iok_span payload, uint32_t *cutting)
{
    struct kit_text frame = {0};
    ws_kit_frame(&frame, true, (uint8_t)first, payload);
    receive_cut(server, iok_span(frame.p, frame.n), cutting);
    kit_text_free(&frame);
}

static void act(struct server *server, enum action action, struct iok_span *in, uint32_t *cutting)
{
    unsigned argument = action == ACTION_BYTE ? 0 : take_number(in);
    struct iok_span bytes = {0};
    if (action > ACTION_FRAME)
        server->part_end = 0;
    if (action == ACTION_FRAME || action == ACTION_PIECE || action == ACTION_FINISH || action == ACTION_MESSAGE)
        bytes = fuzz_take(in, take_number(in));
    if (action == ACTION_BYTE)
        receive_cut(server, iok_span("\xff", 1), cutting);
    else if (action == ACTION_SAY)
        receive_cut(server, iok_span_of(requests[argument % N_REQUESTS]), cutting);
    else if (action == ACTION_FRAME)
        client_frame(server, argument, bytes, cutting);
    else if (server->failed != 0)
        return;
    else if (action == ACTION_EOF)
        client_ends(server);
    else if (action == ACTION_ANSWER || action == ACTION_ANSWER_PARTS)
        answer(server, argument, action == ACTION_ANSWER_PARTS);
    else if (action == ACTION_PIECE || action == ACTION_FINISH)
        piece(server, bytes, action == ACTION_PIECE ? IOK_BODY_PART : IOK_BODY_END);
    else if (action == ACTION_GO && server->streams && server->has_request)
        go(server);
    else if (action == ACTION_UPGRADE)
        upgrade(server, argument);
    else if (action == ACTION_MESSAGE)
        message(server, argument, bytes);
    else if (action == ACTION_END)
        end(server);
    else if (action == ACTION_PING)
        ping(server);
    else if (action == ACTION_REFUSE && !server->upgraded)
        refuse(server, argument);
}

static void start(struct server *server, unsigned flags)
{
    bool tls;
    size_t most = (flags & FLAG_SMALL) != 0 ? MESSAGE_MAX : 1u << 20;
    server->proto = iok_proto_find(iok_span_of("http"), &tls)->server;
    server->is_held = (flags & FLAG_HELD) != 0;
    server->goes = (flags & FLAG_GO) != 0;
    iok_out_init(&server->out, &server->account);
    iok_tape_init(&server->request, NULL, 0, NULL, 0, 1u << 20, &server->account);
    iok_tape_init(&server->part, NULL, 0, NULL, 0, 1u << 20, &server->account);
    server->io = (struct iok_io){.host = &callbacks,
                                 .out = &server->out,
                                 .url = &server->url,
                                 .max_reply = most,
                                 .single = true,
                                 .whole = WHOLE_MAX};
    if ((flags & FLAG_DATE) != 0)
        server->io.date = iok_span_of("Sun, 06 Nov 1994 08:49:37 GMT");
    server->state = calloc(1, server->proto->state_size);
    if (server->proto->open(server->state, &server->io) != 0)
        abort();
}

static void stop(struct server *server)
{
    server->proto->close(server->state);
    free(server->state);
    iok_tape_deinit(&server->request);
    iok_tape_deinit(&server->part);
    iok_out_deinit(&server->out);
    if (iok_count_get(&server->account.bytes) != 0 || iok_count_get(&server->account.buffers) != 0)
        abort();
    kit_text_free(&server->rest);
    kit_text_free(&server->log);
    kit_text_free(&server->sent);
}

static void run(const uint8_t *header, struct iok_span in, uint32_t cutting, struct kit_text *log)
{
    struct server server = {0};
    start(&server, header[0]);
    while (in.n > 0) {
        const uint8_t *escape = memchr(in.p, ESCAPE, in.n);
        receive_cut(&server, fuzz_take(&in, escape != NULL ? (size_t)(escape - in.p) : in.n), &cutting);
        fuzz_take(&in, 1);
        if (escape != NULL)
            act(&server, (enum action)(take_number(&in) % ACTIONS), &in, &cutting);
    }
    kit_text_put(log, server.log.p, server.log.n);
    kit_text_quote(log, iok_span(server.sent.p, server.sent.n));
    stop(&server);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEADER)
        return 0;
    return fuzz_runs(run, data, iok_span(data + HEADER, size - HEADER), data[1], data[2]);
}
