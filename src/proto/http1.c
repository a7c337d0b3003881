/* http1.c - the codec of HTTP/1.1 in both roles: RFC 9110 and RFC 9112.
 *
 * What it is: the slots of proto.h; which request a reply answers, and what becomes of the connection after it. What it is
 * not: how messages are read (http1_read.c) or written (http1_write.c).
 *
 * A request is the tokens METHOD, TARGET, BODY, NAME, VALUE ..., and its reply is
 *
 *     array 5:  i64 status   bytes reason   array 2n: bytes name, bytes value ...   bytes body   array: its trailer
 *
 * In parts it is array 3: status, reason, fields; then any number of bytes; and the trailer's array as the reply proper.
 * A body that follows in parts goes in chunks, unless the fields have a Content-Length. Behind a 101 both are plain bytes,
 * of which an empty part is the end; or, if the request asked for a WebSocket and left its key to us, messages and frames
 * (http1_websocket.c).
 *
 * A server's request is array 6: method, target, i64 minor version, fields, body, trailer; its answer is as a reply.
 * Names of fields are in small letters.
 *
 * Invariants: a byte that answers no request is never read as a reply, and is the connection's last. In the server's
 * role whatever cannot be read gets an answer, after those to the requests before it, and nothing behind it is read. */
#include "http1.h"

/* ---- the client's role ------------------------------------------------------------------------------------------ */

struct http1_client {
    struct http1_reader reader;
    struct http1_body body; /* of the request that has no reply yet */
};

static int client_open(void *state, struct iok_io *io)
{
    (void)state;
    (void)io;
    return 0;
}

static void client_close(void *state)
{
    struct http1_client *c = state;
    http1_websocket_free(c->reader.websocket);
}

static int client_encode(void *state, struct iok_io *io, const struct iok_token *args, size_t n,
                         struct iok_flight *flight)
{
    struct http1_client *c = state;
    bool body = (flight->host & IOK_FLIGHT_BODY) != 0;
    if (c->reader.stage == HTTP1_DEAF) /* of a lease: no other call comes to such a connection */
        return iok_io_fail(io, IOK_ECLOSED, "the server takes no more requests on this connection");
    if (c->reader.stage == HTTP1_RAW)
        return iok_io_fail(io, IOK_EUNSAFE, "the connection has become another protocol's");
    struct http1_request_frame frame = {.body = body, .raw = body && (flight->host & IOK_FLIGHT_PARTS) != 0};
    int rc = http1_write_request(io, args, n, &frame);
    if (rc != 0)
        return rc;
    c->body = frame.follows;
    flight->tag = frame.tag;
    http1_websocket_free(c->reader.websocket); /* of a request that got another answer */
    c->reader.websocket = frame.websocket ? http1_websocket_new(&frame.opening) : NULL;
    if (frame.websocket && c->reader.websocket == NULL)
        return iok_io_fail(io, IOK_ENOMEM, "out of memory for a WebSocket");
    if (frame.websocket)
        flight->host |= IOK_FLIGHT_SMALL; /* messages may come in the same read as the 101 */
    if (body && (frame.tag & HTTP1_REQUEST_UPGRADE) == 0)
        flight->host |= frame.expects ? IOK_FLIGHT_SOON : IOK_FLIGHT_GO;
    return 0;
}

static int raw_body(struct http1_client *c, struct iok_io *io, struct iok_span bytes, bool end)
{
    iok_out_refer(io->out, bytes);
    c->body.open = !end;
    if (end)
        io->host->shut(io);
    return io->out->error != 0 ? iok_io_fail(io, IOK_ENOMEM, "out of memory for bytes to send") : 0;
}

static int client_body(void *state, struct iok_io *io, uint64_t seq, struct iok_span bytes, enum iok_body what)
{
    struct http1_client *c = state;
    (void)seq; /* there is but one */
    if (c->reader.stage == HTTP1_RAW && c->reader.websocket != NULL)
        return http1_websocket_body(c->reader.websocket, io, bytes, what == IOK_BODY_END);
    if (c->reader.stage == HTTP1_RAW)
        return raw_body(c, io, bytes, what == IOK_BODY_END);
    return http1_write_piece(io, &c->body, bytes, what == IOK_BODY_END);
}

/* A reply that came before the request was whole: the server may still wait for the rest, and takes what follows for it. */
static int end_reply(struct http1_client *c, struct iok_io *io)
{
    bool last = !http1_persists(&c->reader) || c->body.open;
    c->body.open = false;
    http1_next(&c->reader);
    if (last) {
        c->reader.stage = HTTP1_DEAF;
        io->host->closing(io);
    }
    return io->host->end(io, IOK_MSG_LAST);
}

/* RFC 9110, 7.8: from here on the connection is the program's, in both directions. */
static int begin_raw(struct http1_client *c, struct iok_io *io)
{
    int rc = c->reader.websocket != NULL ? http1_websocket_begin(c->reader.websocket, io) : 0;
    if (rc != 0)
        return rc;
    c->body.open = true;
    io->host->raw(io, IOK_SEQ_HEAD);
    return io->host->go(io, IOK_SEQ_HEAD);
}

/* The peer's side has ended: an empty part says so. With ours, the call ends. */
static int end_raw(struct http1_client *c, struct iok_io *io)
{
    if (c->body.open) {
        iok_tape_copy(io->host->begin_part(io, IOK_SEQ_HEAD), IOK_BYTES, 0, iok_span(NULL, 0));
        int rc = io->host->end(io, 0);
        return rc != 0 ? rc : 1;
    }
    iok_tape_head(io->host->begin_reply(io, IOK_SEQ_HEAD), IOK_ARRAY, 0);
    c->reader.stage = HTTP1_DEAF;
    io->host->closing(io);
    return io->host->end(io, IOK_MSG_LAST);
}

static ptrdiff_t client_feed(void *state, struct iok_io *io, struct iok_span in)
{
    struct http1_client *c = state;
    size_t used = 0;
    while (used < in.n) {
        enum http1_event event;
        if (c->reader.stage == HTTP1_START && io->host->flight(io, IOK_SEQ_HEAD) == NULL) {
            /* RFC 9112, 9.2: it answers nothing. Some servers say so that they close an idle connection. */
            c->reader.stage = HTTP1_DEAF;
            io->host->closing(io);
        }
        if (c->reader.stage == HTTP1_RAW && c->reader.websocket != NULL) {
            ptrdiff_t fed = http1_websocket_feed(c->reader.websocket, io, iok_span_skip(in, used));
            return fed < 0 ? fed : (ptrdiff_t)used + fed;
        }
        ptrdiff_t n = http1_read(&c->reader, io, iok_span_skip(in, used), &event);
        if (n < 0)
            return n;
        used += (size_t)n;
        int rc = event == HTTP1_COMPLETE ? end_reply(c, io) : event == HTTP1_SWITCH ? begin_raw(c, io) : 0;
        if (rc != 0)
            return rc;
        if (event == HTTP1_MORE)
            break;
    }
    return (ptrdiff_t)used;
}

static int client_eof(void *state, struct iok_io *io)
{
    struct http1_client *c = state;
    if (c->reader.stage == HTTP1_RAW && c->reader.websocket != NULL)
        return http1_websocket_eof(c->reader.websocket, io);
    if (c->reader.stage == HTTP1_RAW)
        return end_raw(c, io);
    if (http1_read_end(&c->reader, io)) {
        int rc = iok_tape_error(io->tape);
        if (rc != 0)
            return iok_io_fail(io, rc, "cannot keep the reply");
        rc = end_reply(c, io);
        if (rc != 0)
            return rc;
    }
    if (c->reader.stage != HTTP1_START && c->reader.stage != HTTP1_DEAF)
        return iok_io_fail(io, IOK_ERESET, "the server closed the connection in the midst of a reply");
    if (io->host->flight(io, IOK_SEQ_HEAD) != NULL)
        return iok_io_fail(io, IOK_ERESET, "the server closed the connection without a reply");
    return 0;
}

static struct http1_websocket *websocket_of(const struct http1_client *c)
{
    return c->reader.stage == HTTP1_RAW ? c->reader.websocket : NULL;
}

static int client_lost(void *state, struct iok_io *io, struct iok_span why)
{
    struct http1_websocket *w = websocket_of(state);
    return w != NULL ? http1_websocket_lost(w, io, why) : 0;
}

/* Only what a WebSocket has become has one. */
static int client_ping(void *state, struct iok_io *io, struct iok_flight *flight)
{
    struct http1_websocket *w = websocket_of(state);
    (void)flight;
    return w != NULL ? http1_websocket_beat(w, io) : 1;
}

/* A URL that would mean something else than its user thinks is an error. */
static int client_check(const struct iok_url *url, struct iok_error *err)
{
    if (!url->unix_socket && url->path.n > 0)
        return iok_err(err, IOK_EURL, "the URL of a service ends at its host; the path goes with each request");
    return 0;
}

/* RFC 9110, 9.2.2. */
static bool is_idempotent(struct iok_span method)
{
    static const char *const methods[] = {"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"};
    for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++)
        if (iok_span_eq(method, iok_span_of(methods[i])))
            return true;
    return false;
}

static struct iok_span method_of(const struct iok_token *args, size_t n)
{
    bool text = n > 0 && (args[0].type == IOK_TEXT || args[0].type == IOK_BYTES);
    return text ? iok_token_span(&args[0]) : iok_span(NULL, 0);
}

static void client_classify(const struct iok_token *args, size_t n, struct iok_class *out)
{
    struct iok_span method = method_of(args, n);
    *out = (struct iok_class){.flags = is_idempotent(method) ? IOK_CLASS_REPEATABLE : 0};
    for (size_t i = 3; i + 1 < n; i += 2)
        if (args[i].len == 7 && iok_span_eq_nocase(iok_token_span(&args[i]), "upgrade"))
            *out = (struct iok_class){.flags = IOK_CLASS_NEEDS_LEASE | IOK_CLASS_DIRTY,
                                      .why = "Upgrade makes the connection another protocol's, and needs a lease"};
    if (iok_span_eq(method, iok_span_of("CONNECT")))
        *out = (struct iok_class){.flags = IOK_CLASS_FORBIDDEN, .why = "CONNECT makes the connection a tunnel"};
}

/* The method alone: a target holds values. */
static size_t client_describe(const struct iok_token *args, size_t n, char *at, size_t cap)
{
    struct iok_span method = method_of(args, n);
    if (method.n > HTTP1_METHOD_BYTES_MAX || !http1_all(method, HTTP1_TOKEN))
        method = iok_span_of("?");
    size_t length = method.n < cap ? method.n : cap;
    if (length > 0)
        memcpy(at, method.p, length);
    return length;
}

/* ---- the server's role ------------------------------------------------------------------------------------------ */

enum pending { /* of a request without an answer */
               PENDING_HEAD = 1,
               PENDING_CONNECT = 2,
               PENDING_OLD = 4,  /* HTTP/1.0 */
               PENDING_LAST = 8, /* nothing is read behind it */
};

struct http1_server {
    struct http1_reader reader;
    uint8_t pending[HTTP1_PENDING_MAX]; /* enum pending; a ring */
    uint32_t first, n_pending;
    bool streams; /* the body of the request before comes in parts */
    bool answers; /* an answer's body is not complete yet: */
    bool closes;  /* the connection ends with that answer */
    struct http1_upgraded upgraded;
    struct http1_body body;
    bool continues;   /* a 100 is due once the requests before have their answers */
    uint16_t refuses; /* the status of the answer that ends the connection is due then; 0: none */
};

static int server_open(void *state, struct iok_io *io)
{
    struct http1_server *s = state;
    (void)io;
    s->reader.server = true;
    return 0;
}

/* What could not be written before the requests that came first had their answers. */
static int write_due(struct http1_server *s, struct iok_io *io)
{
    if (s->n_pending > 0 || s->answers)
        return 0;
    if (s->continues)
        iok_out_put(io->out, iok_span_of("HTTP/1.1 100 Continue\r\n\r\n"));
    s->continues = false;
    if (s->refuses != 0) {
        http1_write_refusal(io->out, s->refuses);
        s->refuses = 0;
        io->host->closing(io);
    }
    return io->out->error != 0 ? iok_io_fail(io, IOK_ENOMEM, "out of memory for an answer") : 0;
}

/* What cannot be read is answered, and nothing behind it is read: one could not tell where it begins. */
static int refuse(struct http1_server *s, struct iok_io *io, int rc)
{
    if (rc == IOK_ENOMEM)
        return rc;
    if (io->tape != NULL && (rc = io->host->end(io, IOK_MSG_LAST | IOK_MSG_DROP)) != 0)
        return rc;
    s->continues = false;
    s->reader.stage = HTTP1_DEAF;
    if (s->streams && s->answers) /* half of the program's answer is out */
        return iok_io_fail(io, IOK_EPROTO, "the rest of a request cannot be read");
    s->n_pending -= s->streams; /* this is its answer */
    s->streams = false;
    s->refuses = s->reader.status;
    return write_due(s, io);
}

/* Its answer is due. */
static int note_request(struct http1_server *s, struct iok_io *io)
{
    const struct http1_reader *r = &s->reader;
    bool last = !http1_persists(r) || r->connect;
    if (s->n_pending == HTTP1_PENDING_MAX) {
        s->reader.status = 503;
        return refuse(s, io, iok_io_fail(io, IOK_ELIMIT, "more than %u requests at once", HTTP1_PENDING_MAX));
    }
    s->pending[(s->first + s->n_pending++) % HTTP1_PENDING_MAX] =
        (uint8_t)((r->head ? PENDING_HEAD : 0) | (r->connect ? PENDING_CONNECT : 0) |
                  (r->minor == 0 ? PENDING_OLD : 0) | (last ? PENDING_LAST : 0));
    return 0;
}

static int end_request(struct http1_server *s, struct iok_io *io)
{
    struct http1_reader *r = &s->reader;
    int rc = s->streams ? 0 : note_request(s, io);
    if (rc != 0 || r->stage == HTTP1_DEAF)
        return rc;
    bool last = !http1_persists(r) || r->connect;
    s->continues = s->streams = false;
    http1_next(r);
    r->stage = last ? HTTP1_DEAF : HTTP1_START;
    return io->host->end(io, IOK_MSG_LAST);
}

/* A head was read, and a body follows: RFC 9110, 10.1.1. */
static int begin_body(struct http1_server *s, struct iok_io *io)
{
    if (io->host->head != NULL)
        io->host->head(io);
    s->continues = s->reader.expects && s->reader.minor > 0;
    if (!s->reader.parts)
        return s->continues ? write_due(s, io) : 0;
    s->streams = true;
    int rc = note_request(s, io);
    return rc != 0 || s->reader.stage == HTTP1_DEAF ? rc : io->host->end(io, IOK_MSG_HEAD);
}

static ptrdiff_t server_feed(void *state, struct iok_io *io, struct iok_span in)
{
    struct http1_server *s = state;
    size_t used = 0;
    if (http1_is_upgraded(&s->upgraded))
        return http1_upgraded_feed(&s->upgraded, io, in);
    while (used < in.n) {
        enum http1_event event;
        int rc = 0;
        ptrdiff_t n = http1_read(&s->reader, io, iok_span_skip(in, used), &event);
        if (n < 0) {
            rc = refuse(s, io, (int)n);
            return rc != 0 ? rc : (ptrdiff_t)in.n;
        }
        used += (size_t)n;
        if (event == HTTP1_COMPLETE)
            rc = end_request(s, io);
        if (event == HTTP1_HEAD)
            rc = begin_body(s, io);
        if (rc != 0)
            return rc;
        if (event == HTTP1_MORE || (io->single && (event == HTTP1_COMPLETE || s->streams)))
            break;
    }
    return (ptrdiff_t)used;
}

static int end_answer(struct http1_server *s, struct iok_io *io)
{
    s->answers = false;
    if (!s->closes)
        return write_due(s, io);
    /* RFC 9112, 9.6: no answer after that which says close */
    s->reader.stage = HTTP1_DEAF;
    s->n_pending = s->refuses = 0;
    s->continues = s->streams = false;
    int rc = io->tape != NULL ? io->host->end(io, IOK_MSG_LAST | IOK_MSG_DROP) : 0;
    io->host->closing(io);
    return rc;
}

static int server_answer(void *state, struct iok_io *io, const struct iok_token *reply, size_t n)
{
    struct http1_server *s = state;
    uint8_t pending = s->pending[s->first];
    struct http1_answer_frame frame = {.head = (pending & PENDING_HEAD) != 0,
                                       .connect = (pending & PENDING_CONNECT) != 0,
                                       .old = (pending & PENDING_OLD) != 0,
                                       .close = (pending & PENDING_LAST) != 0 || io->last || (s->streams && !io->parts),
                                       .parts = io->parts};
    if (s->n_pending == 0)
        return iok_io_fail(io, IOK_EINVAL, "there is no request to answer");
    int rc = http1_write_answer(io, reply, n, &frame);
    if (rc != 0)
        return rc;
    s->first = (s->first + 1) % HTTP1_PENDING_MAX;
    s->n_pending--;
    s->closes = frame.close;
    s->body = frame.follows;
    s->answers = io->parts;
    return s->answers ? 0 : end_answer(s, io);
}

static int server_body(void *state, struct iok_io *io, struct iok_span bytes, enum iok_body what)
{
    struct http1_server *s = state;
    int rc = http1_write_piece(io, &s->body, bytes, what == IOK_BODY_END);
    if (rc != 0 || what != IOK_BODY_END)
        return rc;
    s->closes |= s->streams; /* the client still sends what nobody wants */
    return end_answer(s, io);
}

static int server_upgrade(void *state, struct iok_io *io, const struct iok_upgrade *how,
                          const struct iok_token *request, size_t n_request, const struct iok_token *answer, size_t n)
{
    struct http1_server *s = state;
    if (s->n_pending == 0 || s->streams || (s->pending[s->first] & PENDING_LAST) != 0)
        return iok_io_fail(io, IOK_EINVAL,
                           "the protocol cannot change amid a request, or behind \"connection: close\"");
    return http1_upgrade(&s->upgraded, io, how, request, n_request, answer, n);
}

static int server_message(void *state, struct iok_io *io, const struct iok_token *message, size_t n)
{
    return http1_upgraded_write(&((struct http1_server *)state)->upgraded, io, message, n);
}

static int server_end(void *state, struct iok_io *io)
{
    return http1_upgraded_end(&((struct http1_server *)state)->upgraded, io);
}

static int server_eof(void *state, struct iok_io *io)
{
    return http1_upgraded_eof(&((struct http1_server *)state)->upgraded, io);
}

static int server_ping(void *state, struct iok_io *io)
{
    return http1_upgraded_ping(&((struct http1_server *)state)->upgraded, io);
}

static void server_close(void *state)
{
    http1_upgraded_free(&((struct http1_server *)state)->upgraded);
}

static int server_go(void *state, struct iok_io *io)
{
    struct http1_server *s = state;
    if (s->continues)
        iok_out_put(io->out, iok_span_of("HTTP/1.1 100 Continue\r\n\r\n"));
    s->continues = false;
    return 0;
}

/* RFC 9110, 15.5.9, 15.6.1 and 15.6.4. */
static int server_refuse(void *state, struct iok_io *io, int why)
{
    struct http1_server *s = state;
    int status = why == IOK_ETIMEOUT ? 408 : why == IOK_EOVERLOAD || why == IOK_ECLOSED ? 503 : 500;
    const struct iok_token answer[] = {
        {.type = IOK_ARRAY, .len = 4},
        {.type = IOK_I64, .i = status},
        {.type = IOK_NULL},
        {.type = IOK_ARRAY, .len = status == 503 ? 2 : 0},
        {.type = IOK_TEXT, .len = 11, .p = (const uint8_t *)"retry-after"},
        {.type = IOK_TEXT, .len = 1, .p = (const uint8_t *)"1"},
        {.type = IOK_NULL},
    };
    const struct iok_token plain[] = {answer[0], answer[1], answer[2], answer[3], answer[6]};
    if (s->n_pending > 0)
        return status == 503 ? server_answer(state, io, answer, 7) : server_answer(state, io, plain, 5);
    s->reader.status = (uint16_t)status;
    return refuse(s, io, IOK_EPROTO);
}

/* ---- the table -------------------------------------------------------------------------------------------------- */

static const struct iok_proto_server http1_server = {
    .state_size = sizeof(struct http1_server),
    .open = server_open,
    .feed = server_feed,
    .answer = server_answer,
    .body = server_body,
    .go = server_go,
    .upgrade = server_upgrade,
    .message = server_message,
    .end = server_end,
    .eof = server_eof,
    .ping = server_ping,
    .refuse = server_refuse,
    .close = server_close,
};

static const char *const http1_schemes[] = {"http", NULL};
static const char *const http1_tls_schemes[] = {"https", NULL};

const struct iok_proto iok_proto_http1 = {
    .name = "http",
    .schemes = http1_schemes,
    .tls_schemes = http1_tls_schemes,
    .default_port = 80,
    .tls_port = 443,
    .flags = IOK_PROTO_IN_ORDER | IOK_PROTO_SINGLE,
    .state_size = sizeof(struct http1_client),
    .default_connections = 64, /* at most, and made by need; aiohttp and httpx allow 100 */
    .server = &http1_server,
    .check = client_check,
    .open = client_open,
    .encode = client_encode,
    .body = client_body,
    .feed = client_feed,
    .eof = client_eof,
    .lost = client_lost,
    .ping = client_ping,
    .close = client_close,
    .classify = client_classify,
    .describe = client_describe,
};
