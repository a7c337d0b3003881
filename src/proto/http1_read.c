/* http1_read.c - bytes to tapes: one strict reader of HTTP/1.1 messages, requests and replies.
 *
 * What it is: first lines, fields, and how the body is framed (RFC 9112, 6.3). What it is not: what becomes of a
 * connection, or which request a reply answers, beyond that it belongs to the oldest.
 *
 *     START -> FIELDS -+-> (complete)                          no body
 *                      +-> LENGTH -> (complete)
 *                      +-> TO_END -> (complete by the connection's end)
 *                      +-> CHUNK -> CHUNK_DATA -> CHUNK_END -> CHUNK ... -> TRAILERS -> (complete)
 *                      +-> RAW                                   behind a 101
 *
 * A line is used up once its end is there; so what is left unused is at most one line (of a reply, a field with its
 * continuations and one octet, which tells whether there are more). A line that cannot be read is refused when its end
 * is there, or the limit reached, however the bytes were cut. */
#include <strings.h>

#include "http1.h"

static int too_long(struct http1_reader *r, struct iok_io *io)
{
    r->status = r->stage == HTTP1_START ? 414 : 431;
    return iok_io_fail(io, IOK_ELIMIT, "a line of more than %u bytes", HTTP1_LINE_BYTES_MAX);
}

/* in up to its first CR LF, which is not in *line. Its bytes with the CR LF, 0 if that did not come yet, or an error. */
static ptrdiff_t read_line(struct http1_reader *r, struct iok_io *io, struct iok_span in, size_t max,
                           struct iok_span *line)
{
    const uint8_t *newline = memchr(in.p + r->scanned, '\n', in.n - r->scanned);
    size_t n = newline != NULL ? (size_t)(newline - in.p) : in.n;
    if (n >= max)
        return too_long(r, io);
    if (newline == NULL) {
        r->scanned = (uint32_t)n;
        return 0;
    }
    r->scanned = 0;
    if (n == 0 || newline[-1] != '\r') { /* RFC 9112, 2.2 allows to take it, and that is how messages get smuggled */
        r->status = 400;
        return iok_io_fail(io, IOK_EPROTO, "a line that ends without a CR before its LF");
    }
    *line = iok_span(in.p, n - 1);
    return (ptrdiff_t)n + 1;
}

/* What the tape could not keep. */
static int check_tape(struct http1_reader *r, struct iok_io *io)
{
    int rc = iok_tape_error(io->tape);
    if (rc == 0)
        return 0;
    r->status = rc == IOK_ELIMIT ? 413 : 503;
    return rc == IOK_ELIMIT ? iok_io_fail(io, rc, "a message of more than %zu bytes", io->max_reply)
                            : iok_io_fail(io, rc, "out of memory for a message");
}

static int bad(struct http1_reader *r, struct iok_io *io, int status, const char *what)
{
    r->status = (uint16_t)status;
    return iok_io_fail(io, IOK_EPROTO, "%s", what);
}

static int too_large(struct http1_reader *r, struct iok_io *io)
{
    r->status = r->server ? 413 : r->status;
    return iok_io_fail(io, IOK_ELIMIT, "a body of more than %zu bytes", io->max_reply);
}

/* ---- parts ------------------------------------------------------------------------------------------------------ */

/* Of a body: below max_reply, with its token and some room. */
static size_t part_bytes_max(const struct iok_io *io)
{
    return io->max_reply < 2 * HTTP1_PART_BYTES ? io->max_reply / 2 : HTTP1_PART_BYTES;
}

static int end_part(struct http1_reader *r, struct iok_io *io)
{
    int rc = 0;
    if (r->part_bytes > 0) {
        iok_tape_shut(io->tape);
        r->part_bytes = 0;
        rc = check_tape(r, io);
    }
    return rc != 0 || io->tape == NULL ? rc : io->host->end(io, 0);
}

/* A piece of the body. All that one read brings is one, but for chunks, which are gathered. */
static int put_part(struct http1_reader *r, struct iok_io *io, struct iok_span piece)
{
    size_t max = part_bytes_max(io);
    int rc = 0;
    r->body_bytes += piece.n;
    if (r->server && r->body_bytes > io->max_reply)
        return too_large(r, io);
    while (piece.n > 0 && rc == 0) {
        size_t n = piece.n < max - r->part_bytes ? piece.n : max - r->part_bytes;
        if (r->part_bytes == 0 && (r->stage != HTTP1_CHUNK_DATA || n >= max / 2)) {
            iok_tape_copy(io->host->begin_part(io, IOK_SEQ_HEAD), IOK_BYTES, 0, iok_span(piece.p, n));
            rc = io->host->end(io, 0);
        } else {
            if (r->part_bytes == 0)
                iok_tape_open_ended(io->host->begin_part(io, IOK_SEQ_HEAD), IOK_BYTES);
            iok_tape_fill_all(io->tape, iok_span(piece.p, n));
            r->part_bytes += (uint32_t)n;
            rc = r->part_bytes == max ? end_part(r, io) : 0;
        }
        piece = iok_span_skip(piece, n);
    }
    return rc;
}

/* What follows the body is the reply proper, or the request's last part. */
static int begin_end(struct http1_reader *r, struct iok_io *io)
{
    int rc = r->parts ? end_part(r, io) : 0;
    if (r->parts && rc == 0 && r->server)
        io->host->begin_part(io, IOK_SEQ_HEAD);
    else if (r->parts && rc == 0)
        io->host->begin_reply(io, IOK_SEQ_HEAD);
    return rc;
}

/* ---- first lines ------------------------------------------------------------------------------------------------ */

static void begin_fields(struct http1_reader *r, struct iok_io *io)
{
    r->n_fields = r->field_bytes = 0;
    if (r->interim)
        return;
    r->fields_at = io->tape->n_tokens;
    iok_tape_head(io->tape, IOK_ARRAY, 0);
}

/* The authority of a target in absolute form. */
static int note_authority(struct http1_reader *r, struct iok_io *io, struct iok_span target)
{
    r->n_authority = 0;
    if (target.p[0] == '/' || target.p[0] == '*' || r->connect)
        return 0;
    const uint8_t *start = (const uint8_t *)memchr(target.p, ':', target.n) + 3;
    struct iok_span rest = iok_span_skip(target, (size_t)(start - target.p));
    size_t n = 0;
    while (n < rest.n && (http1_chars[rest.p[n]] & HTTP1_HOST) != 0)
        n++;
    /* RFC 9110, 4.2.4: no user and password. */
    if (n == 0 || n > sizeof(r->authority) || (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?'))
        return bad(r, io, 400, "a target in absolute form without a host that can be one");
    memcpy(r->authority, rest.p, n);
    r->n_authority = (uint32_t)n;
    return 0;
}

static int start_request(struct http1_reader *r, struct iok_io *io, struct iok_span line)
{
    struct http1_start start = {0};
    int status;
    int rc = http1_request_line(&io->err, line, &start, &status);
    if (rc != 0) {
        r->status = (uint16_t)status;
        return rc;
    }
    r->minor = (uint8_t)start.minor;
    r->head = iok_span_eq(start.method, iok_span_of("HEAD"));
    r->connect = iok_span_eq(start.method, iok_span_of("CONNECT"));
    if ((rc = note_authority(r, io, start.target)) != 0)
        return rc;
    struct iok_tape *tape = io->host->begin_push(io);
    iok_tape_head(tape, IOK_ARRAY, 6);
    iok_tape_copy(tape, IOK_BYTES, 0, start.method);
    iok_tape_copy(tape, IOK_BYTES, 0, start.target);
    iok_tape_i64(tape, start.minor);
    return 0;
}

static int start_reply(struct http1_reader *r, struct iok_io *io, struct iok_span line)
{
    struct http1_start start = {0};
    int rc = http1_status_line(&io->err, line, &start);
    if (rc != 0)
        return rc;
    r->minor = (uint8_t)start.minor;
    r->status = (uint16_t)start.status;
    r->interim = start.status < 200;
    const struct iok_flight *flight = io->host->flight(io, IOK_SEQ_HEAD);
    if (start.status == 101) { /* RFC 9110, 15.2.2: only if asked for */
        if ((flight->tag & HTTP1_REQUEST_UPGRADE) == 0 || start.minor == 0)
            return bad(r, io, 101, "the server changes the protocol (101), which nobody asked for");
        r->interim = false;
    }
    if (r->interim && ++r->n_interim > HTTP1_INTERIM_MAX)
        return iok_io_fail(io, IOK_ELIMIT, "more than %u interim replies", HTTP1_INTERIM_MAX);
    if (r->interim)
        return 0;
    r->head = (flight->tag & HTTP1_REQUEST_HEAD) != 0;
    r->close |= (flight->tag & HTTP1_REQUEST_CLOSE) != 0;
    r->no_body = r->head || start.status == 204 || start.status == 304; /* RFC 9112, 6.3, 1 */
    r->parts = (flight->host & IOK_FLIGHT_PARTS) != 0;
    struct iok_tape *tape = r->parts ? io->host->begin_part(io, IOK_SEQ_HEAD) : io->host->begin_reply(io, IOK_SEQ_HEAD);
    iok_tape_head(tape, IOK_ARRAY, r->parts ? 3 : 5);
    iok_tape_i64(tape, start.status);
    iok_tape_copy(tape, IOK_BYTES, 0, start.reason);
    return 0;
}

static ptrdiff_t read_start(struct http1_reader *r, struct iok_io *io, struct iok_span in)
{
    struct iok_span line;
    ptrdiff_t used = read_line(r, io, in, HTTP1_LINE_BYTES_MAX, &line);
    if (used <= 0)
        return used;
    if (line.n == 0 && r->server && !r->blank_line) { /* RFC 9112, 2.2: at least one is passed over */
        r->blank_line = true;
        return used;
    }
    int rc = r->server ? start_request(r, io, line) : start_reply(r, io, line);
    if (rc != 0)
        return rc;
    r->stage = HTTP1_FIELDS;
    begin_fields(r, io);
    return used;
}

/* ---- fields ----------------------------------------------------------------------------------------------------- */

static int take_connection(struct http1_reader *r, struct iok_span value)
{
    struct iok_span option;
    while (http1_list_next(&value, &option)) {
        r->close |= iok_span_eq_nocase(option, "close");
        r->keep_alive |= iok_span_eq_nocase(option, "keep-alive");
    }
    return 0;
}

/* RFC 9112, 6.3, 5: a list of equal lengths may be refused as well, and is. */
static int take_length(struct http1_reader *r, struct iok_io *io, struct iok_span value)
{
    if (r->has_length)
        return bad(r, io, 400, "more than one Content-Length");
    if (!http1_length(value, &r->left))
        return bad(r, io, 400, "a Content-Length that is not one number of at most 18 digits");
    r->has_length = true;
    return 0;
}

/* RFC 9112, 6.1: we know no other coding, and chunked has to be the last and only once. */
static int take_coding(struct http1_reader *r, struct iok_io *io, struct iok_span value)
{
    if (r->chunked)
        return bad(r, io, 400, "more than one Transfer-Encoding");
    if (!iok_span_eq_nocase(value, "chunked"))
        return bad(r, io, 501, "a Transfer-Encoding other than chunked");
    r->chunked = true;
    return 0;
}

static int take_host(struct http1_reader *r, struct iok_io *io, struct iok_span value)
{
    if (!r->server)
        return 0;
    if (r->has_host)
        return bad(r, io, 400, "more than one Host");
    if (!http1_all(value, HTTP1_HOST))
        return bad(r, io, 400, "a Host that cannot be one");
    /* RFC 9112, 3.2.2: the target's is the right one; a client that says two hosts wants to deceive somebody. */
    if (r->n_authority > 0 &&
        (value.n != r->n_authority || strncasecmp((const char *)value.p, (const char *)r->authority, value.n) != 0))
        return bad(r, io, 400, "a Host that is not the target's");
    r->has_host = true;
    return 0;
}

/* Those that say how the message is framed. In a trailer they say nothing. */
static int note_field(struct http1_reader *r, struct iok_io *io, struct iok_span name, struct iok_span value)
{
    switch (name.n) {
    case 4:
        return memcmp(name.p, "host", 4) == 0 ? take_host(r, io, value) : 0;
    case 6:
        if (memcmp(name.p, "expect", 6) == 0) { /* RFC 9110, 10.1.1 */
            if (r->server && !iok_span_eq_nocase(value, "100-continue"))
                return bad(r, io, 417, "an Expect other than 100-continue");
            r->expects = true;
        }
        return 0;
    case 10:
        return memcmp(name.p, "connection", 10) == 0 ? take_connection(r, value) : 0;
    case 14:
        return memcmp(name.p, "content-length", 14) == 0 ? take_length(r, io, value) : 0;
    case 17:
        return memcmp(name.p, "transfer-encoding", 17) == 0 ? take_coding(r, io, value) : 0;
    default:
        return 0;
    }
}

static int take_field(struct http1_reader *r, struct iok_io *io, struct iok_span line)
{
    struct iok_span name, value;
    uint8_t lower[HTTP1_NAME_BYTES_MAX];
    r->status = r->server ? 400 : r->status;
    int rc = http1_field_line(&io->err, line, &name, &value);
    if (rc != 0)
        return rc;
    r->field_bytes += (uint32_t)line.n + 2;
    if (++r->n_fields > HTTP1_FIELDS_MAX || r->field_bytes > HTTP1_FIELD_BYTES_MAX || name.n > sizeof(lower)) {
        r->status = r->server ? 431 : r->status;
        return iok_io_fail(io, IOK_ELIMIT, "more than %u fields, or %u bytes of them, or a name of more than %u",
                           HTTP1_FIELDS_MAX, HTTP1_FIELD_BYTES_MAX, HTTP1_NAME_BYTES_MAX);
    }
    http1_lower(lower, name);
    name.p = lower;
    if (r->stage == HTTP1_FIELDS && (rc = note_field(r, io, name, value)) != 0)
        return rc;
    if (r->websocket != NULL && r->status == 101 && (rc = http1_websocket_field(r->websocket, io, name, value)) != 0)
        return rc;
    if (r->interim)
        return 0;
    iok_tape_copy(io->tape, IOK_BYTES, 0, name);
    iok_tape_copy(io->tape, IOK_BYTES, 0, value);
    return 0;
}

/* RFC 9112, 5.2: in a reply, lines that begin with a blank continue the one before. Returns as read_line. */
static ptrdiff_t read_folded(struct http1_reader *r, struct iok_io *io, struct iok_span in, struct iok_span line)
{
    uint8_t unfolded[HTTP1_LINE_BYTES_MAX];
    size_t n = 0, used = 0;
    for (;;) {
        struct iok_span part = used == 0 ? line : http1_trim(line);
        if (n > 0)
            unfolded[n++] = ' ';
        memcpy(unfolded + n, part.p, part.n);
        n += part.n;
        used = (size_t)(line.p + line.n - in.p) + 2;
        if (used == in.n)
            return 0;
        if (in.p[used] != ' ' && in.p[used] != '\t')
            break;
        ptrdiff_t more = read_line(r, io, iok_span_skip(in, used), HTTP1_LINE_BYTES_MAX - used, &line);
        r->scanned = 0; /* the field is read again from its start; its lines are few and short */
        if (more <= 0)
            return more;
    }
    int rc = take_field(r, io, iok_span(unfolded, n));
    return rc != 0 ? rc : (ptrdiff_t)used;
}

static int end_head(struct http1_reader *r, struct iok_io *io, enum http1_event *event);
static int end_trailers(struct http1_reader *r, struct iok_io *io, enum http1_event *event);

static ptrdiff_t read_field(struct http1_reader *r, struct iok_io *io, struct iok_span in, enum http1_event *event)
{
    struct iok_span line;
    ptrdiff_t used = read_line(r, io, in, HTTP1_LINE_BYTES_MAX, &line);
    if (used <= 0)
        return used;
    if (line.n == 0) {
        int rc = r->stage == HTTP1_FIELDS ? end_head(r, io, event) : end_trailers(r, io, event);
        return rc != 0 ? rc : used;
    }
    if (!r->server) {
        if ((size_t)used == in.n) {
            r->scanned = (uint32_t)used - 1;
            return 0;
        }
        if (in.p[used] == ' ' || in.p[used] == '\t')
            return read_folded(r, io, in, line);
    }
    int rc = take_field(r, io, line);
    return rc != 0 ? rc : used;
}

/* ---- bodies ----------------------------------------------------------------------------------------------------- */

static int complete(struct http1_reader *r, struct iok_io *io, bool trailers, enum http1_event *event)
{
    int rc = trailers ? 0 : begin_end(r, io);
    if (rc != 0)
        return rc;
    if (!trailers)
        iok_tape_head(io->tape, IOK_ARRAY, 0);
    *event = HTTP1_COMPLETE;
    return check_tape(r, io);
}

/* RFC 9112, 6.3: the rest of its rules, for a request. */
static int check_request(struct http1_reader *r, struct iok_io *io)
{
    if (r->minor > 0 && !r->has_host)
        return bad(r, io, 400, "no Host");
    if (r->connect && (r->has_length || r->chunked))
        return bad(r, io, 400, "a CONNECT with a body");
    return 0;
}

/* The body of a message that is taken whole. */
static int open_body(struct http1_reader *r, struct iok_io *io)
{
    if (r->stage != HTTP1_LENGTH)
        iok_tape_open_ended(io->tape, IOK_BYTES);
    else if (r->left > io->max_reply)
        return too_large(r, io);
    else
        iok_tape_open(io->tape, IOK_BYTES, 0, r->left);
    return check_tape(r, io);
}

/* The head of a request whose body comes in parts is a request with null for the body. */
static int end_request_head(struct http1_reader *r, struct iok_io *io)
{
    if (r->left > io->max_reply)
        return too_large(r, io);
    r->parts = true;
    iok_tape_null(io->tape);
    iok_tape_head(io->tape, IOK_ARRAY, 0);
    return check_tape(r, io);
}

/* RFC 9110, 10.1.1 */
static int end_interim(struct http1_reader *r, struct iok_io *io)
{
    struct iok_flight *flight = io->host->flight(io, IOK_SEQ_HEAD);
    uint16_t n_interim = r->n_interim;
    bool wanted = r->status == 100 && (flight->host & IOK_FLIGHT_SOON) != 0;
    http1_next(r);
    r->n_interim = n_interim;
    flight->host &= wanted ? ~(uint32_t)IOK_FLIGHT_SOON : ~0u;
    return wanted ? io->host->go(io, IOK_SEQ_HEAD) : 0;
}

/* RFC 9112, 6.3, in its order. */
static int end_head(struct http1_reader *r, struct iok_io *io, enum http1_event *event)
{
    if (r->interim)
        return end_interim(r, io);
    iok_tape_patch(io->tape, r->fields_at, 2 * r->n_fields);
    if (!r->server && r->status == 101) {
        int kept = check_tape(r, io);
        if (kept == 0 && r->websocket != NULL)
            kept = http1_websocket_check(r->websocket, io);
        r->stage = HTTP1_RAW;
        *event = HTTP1_SWITCH;
        return kept != 0 ? kept : end_part(r, io);
    }
    if (r->chunked && (r->has_length || r->minor == 0))
        return bad(r, io, 400,
                   r->has_length ? "both Content-Length and Transfer-Encoding"
                                 : "Transfer-Encoding in HTTP/1.0, which has none");
    int rc = r->server ? check_request(r, io) : 0;
    if (rc != 0)
        return rc;
    bool to_end = !r->server && !r->chunked && !r->has_length;
    if (r->no_body || (!r->chunked && !to_end && r->left == 0)) {
        if (!r->parts)
            iok_tape_copy(io->tape, IOK_BYTES, 0, iok_span(NULL, 0));
        return complete(r, io, false, event);
    }
    r->stage = r->chunked ? HTTP1_CHUNK : to_end ? HTTP1_TO_END : HTTP1_LENGTH;
    r->close |= to_end;
    *event = HTTP1_HEAD;
    if ((rc = check_tape(r, io)) != 0)
        return rc;
    if (r->server && io->whole != 0 && (r->chunked || r->left > io->whole))
        return end_request_head(r, io);
    return r->parts ? end_part(r, io) : open_body(r, io);
}

/* A piece of a body whose whole length is not known. */
static int put_piece(struct http1_reader *r, struct iok_io *io, struct iok_span piece)
{
    if (r->parts)
        return put_part(r, io, piece);
    r->body_bytes += piece.n;
    if (r->body_bytes > io->max_reply)
        return too_large(r, io);
    iok_tape_fill_all(io->tape, piece);
    return check_tape(r, io);
}

static ptrdiff_t read_length(struct http1_reader *r, struct iok_io *io, struct iok_span in, enum http1_event *event)
{
    size_t n = in.n < r->left ? in.n : (size_t)r->left;
    int rc = r->parts ? put_part(r, io, iok_span(in.p, n)) : 0;
    if (!r->parts && !io->tape->discard) /* the host's may since the last piece, and then knows of no open payload */
        iok_tape_fill(io->tape, iok_span(in.p, n));
    r->left -= n;
    if (rc == 0 && r->left == 0)
        rc = complete(r, io, false, event);
    else if (rc == 0 && !r->parts)
        rc = check_tape(r, io);
    return rc != 0 ? rc : (ptrdiff_t)n;
}

static ptrdiff_t read_chunk(struct http1_reader *r, struct iok_io *io, struct iok_span in)
{
    struct iok_span line;
    size_t extension = 0;
    ptrdiff_t used = read_line(r, io, in, HTTP1_CHUNK_LINE_BYTES_MAX, &line);
    if (used <= 0)
        return used;
    r->status = r->server ? 400 : r->status;
    int rc = http1_chunk_line(&io->err, line, &r->left, &extension);
    if (rc != 0)
        return rc;
    r->extension_bytes += (uint32_t)extension;
    if (r->extension_bytes > HTTP1_EXTENSION_BYTES_MAX)
        return iok_io_fail(io, IOK_ELIMIT, "more than %u bytes of chunk extensions", HTTP1_EXTENSION_BYTES_MAX);
    if (r->left > io->max_reply &&
        (r->server || !r->parts)) /* before its first byte came, and before sums can overflow */
        return too_large(r, io);
    r->stage = r->left > 0 ? HTTP1_CHUNK_DATA : HTTP1_TRAILERS;
    if (r->left == 0) {
        if (!r->parts)
            iok_tape_shut(io->tape);
        if ((rc = begin_end(r, io)) != 0)
            return rc;
        begin_fields(r, io);
    }
    return used;
}

static ptrdiff_t read_chunk_data(struct http1_reader *r, struct iok_io *io, struct iok_span in)
{
    size_t n = in.n < r->left ? in.n : (size_t)r->left;
    int rc = put_piece(r, io, iok_span(in.p, n));
    r->left -= n;
    r->stage = r->left > 0 ? HTTP1_CHUNK_DATA : HTTP1_CHUNK_END;
    return rc != 0 ? rc : (ptrdiff_t)n;
}

static ptrdiff_t read_chunk_end(struct http1_reader *r, struct iok_io *io, struct iok_span in)
{
    if (in.p[0] != '\r' || (in.n > 1 && in.p[1] != '\n'))
        return bad(r, io, 400, "a chunk is longer than its size says");
    if (in.n < 2)
        return 0;
    r->stage = HTTP1_CHUNK;
    return 2;
}

static int end_trailers(struct http1_reader *r, struct iok_io *io, enum http1_event *event)
{
    iok_tape_patch(io->tape, r->fields_at, 2 * r->n_fields);
    return complete(r, io, true, event);
}

static ptrdiff_t read_to_end(struct http1_reader *r, struct iok_io *io, struct iok_span in)
{
    int rc = put_piece(r, io, in);
    return rc != 0 ? rc : (ptrdiff_t)in.n;
}

/* ---- the reader ------------------------------------------------------------------------------------------------- */

static ptrdiff_t step(struct http1_reader *r, struct iok_io *io, struct iok_span in, enum http1_event *event)
{
    switch (r->stage) {
    case HTTP1_START:
        return read_start(r, io, in);
    case HTTP1_FIELDS:
    case HTTP1_TRAILERS:
        return read_field(r, io, in, event);
    case HTTP1_LENGTH:
        return read_length(r, io, in, event);
    case HTTP1_TO_END:
    case HTTP1_RAW:
        return read_to_end(r, io, in);
    case HTTP1_CHUNK:
        return read_chunk(r, io, in);
    case HTTP1_CHUNK_DATA:
        return read_chunk_data(r, io, in);
    case HTTP1_CHUNK_END:
        return read_chunk_end(r, io, in);
    default:
        return (ptrdiff_t)in.n;
    }
}

ptrdiff_t http1_read(struct http1_reader *r, struct iok_io *io, struct iok_span in, enum http1_event *event)
{
    size_t used = 0;
    *event = HTTP1_MORE;
    while (used < in.n && *event == HTTP1_MORE) {
        ptrdiff_t n = step(r, io, iok_span_skip(in, used), event);
        if (n < 0) { /* what came before the error is handed on, however it was cut */
            int kept = r->part_bytes > 0 ? end_part(r, io) : 0;
            return kept != 0 ? kept : n;
        }
        if (n == 0)
            break;
        used += (size_t)n;
    }
    int rc = r->part_bytes > 0 ? end_part(r, io) : 0;
    return rc != 0 ? rc : (ptrdiff_t)used;
}

bool http1_read_end(struct http1_reader *r, struct iok_io *io)
{
    if (r->stage != HTTP1_TO_END)
        return false;
    if (r->parts)
        io->host->begin_reply(io, IOK_SEQ_HEAD);
    else
        iok_tape_shut(io->tape);
    iok_tape_head(io->tape, IOK_ARRAY, 0);
    return true;
}

void http1_next(struct http1_reader *r)
{
    bool server = r->server;
    /* Without the buffer at its end, which n_authority guards, and what belongs to the client. */
    memset(r, 0, offsetof(struct http1_reader, authority));
    r->server = server;
}
