/* http1_write.c - tapes to bytes: requests and answers of HTTP/1.1, whatever a program hands out made correct.
 *
 * A request is METHOD, TARGET, and then may follow BODY (or null), and pairs of NAME, VALUE. An answer is what a reply is
 * read as: [STATUS, REASON or null, [NAME, VALUE ...], BODY or null], and may have [NAME, VALUE ...] for a trailer.
 *
 * What it is: the only place that writes fields, so names and values hold no CR, LF or NUL, lengths are those of the
 * bodies, and there is one way to frame each. All is looked at before the first byte is appended. What it is not: a
 * judge of what fields mean beyond that. */
#include "../base/digest.h"
#include "http1.h"

#define NUMBER_BYTES_MAX 20u /* of an i64 */
#define CHUNK_BYTES_MAX 32u  /* a chunk header with its CR LF, the CR LF behind the data, and "0 CR LF" */

/* Fields that a program gave, as they are written: which of ours are not needed, and what they ask for. */
struct given {
    const struct iok_token *fields; /* names and values in turn */
    size_t n;
    size_t bytes; /* on the wire */
    bool host, authorization, length, chunked, close, date;
    bool upgrade, says_upgrade; /* the field, and the option of Connection that belongs to it */
    bool websocket, has_key;    /* the field says so; and the program makes the opening itself */
    struct iok_span extensions; /* of a WebSocket */
    uint64_t length_value;
};

/* ---- looking at it ---------------------------------------------------------------------------------------------- */

static bool is_text(const struct iok_token *token)
{
    return token->type == IOK_TEXT || token->type == IOK_BYTES;
}

/* What cannot be written is not shown: it may be a secret. */
static int check_field(struct iok_io *io, const struct iok_token *name, const struct iok_token *value)
{
    if (!is_text(name) || (!is_text(value) && value->type != IOK_I64))
        return iok_io_fail(io, IOK_ETYPE, "a field is a name and a value, of text, bytes or an integer");
    if (name->len == 0 || name->len > HTTP1_NAME_BYTES_MAX || !http1_all(iok_token_span(name), HTTP1_TOKEN))
        return iok_io_fail(io, IOK_EINVAL, "a field's name has at most %u letters, digits and the like",
                           HTTP1_NAME_BYTES_MAX);
    if (value->type != IOK_I64 && !http1_value_is_clean(iok_token_span(value)))
        return iok_io_fail(io, IOK_EINVAL, "the value of field %.*s has a line break or another control character",
                           (int)name->len, (const char *)name->p);
    return 0;
}

static struct iok_span value_of(const struct iok_token *token, char number[NUMBER_BYTES_MAX])
{
    if (token->type == IOK_I64)
        return iok_span(number, iok_format_i64(number, token->i));
    return http1_trim(iok_token_span(token));
}

static int take_length(struct iok_io *io, struct given *given, struct iok_span value)
{
    if (given->length || !http1_length(value, &given->length_value))
        return iok_io_fail(io, IOK_EINVAL, "Content-Length twice, or not a number: leave it out");
    given->length = true;
    return 0;
}

static int take_connection(struct given *given, struct iok_span value)
{
    struct iok_span option;
    while (http1_list_next(&value, &option)) {
        given->close |= iok_span_eq_nocase(option, "close");
        given->says_upgrade |= iok_span_eq_nocase(option, "upgrade");
    }
    return 0;
}

/* A field that has to do with the framing or the connection, by its length and name. */
static int note_given(struct iok_io *io, struct given *given, struct iok_span name, struct iok_span value)
{
    if (iok_span_eq_nocase(name, "content-length"))
        return take_length(io, given, value);
    if (iok_span_eq_nocase(name, "connection"))
        return take_connection(given, value);
    if (iok_span_eq_nocase(name, "transfer-encoding")) {
        if (given->chunked || !iok_span_eq_nocase(value, "chunked"))
            return iok_io_fail(io, IOK_EINVAL, "no Transfer-Encoding but chunked can be written");
        given->chunked = true;
    }
    given->authorization |= iok_span_eq_nocase(name, "authorization");
    given->websocket |= iok_span_eq_nocase(name, "upgrade") && iok_span_eq_nocase(value, "websocket");
    given->has_key |= iok_span_eq_nocase(name, "sec-websocket-key");
    if (iok_span_eq_nocase(name, "sec-websocket-extensions"))
        given->extensions = value;
    given->upgrade |= iok_span_eq_nocase(name, "upgrade");
    given->date |= iok_span_eq_nocase(name, "date");
    return 0;
}

static int look(struct iok_io *io, struct given *given, const struct iok_token *fields, size_t n)
{
    char number[NUMBER_BYTES_MAX];
    given->fields = fields;
    given->n = n;
    if (n % 2 != 0 || n / 2 > HTTP1_FIELDS_MAX)
        return iok_io_fail(io, IOK_EINVAL, "fields are pairs of a name and a value, at most %u", HTTP1_FIELDS_MAX);
    for (size_t i = 0; i < n; i += 2) {
        int rc = check_field(io, &fields[i], &fields[i + 1]);
        if (rc != 0)
            return rc;
        struct iok_span name = iok_token_span(&fields[i]), value = value_of(&fields[i + 1], number);
        if ((rc = note_given(io, given, name, value)) != 0)
            return rc;
        given->bytes += name.n + value.n + 4;
    }
    return 0;
}

static int take_body(struct iok_io *io, const struct iok_token *token, struct iok_span *body)
{
    if (token->type != IOK_NULL && !is_text(token))
        return iok_io_fail(io, IOK_ETYPE, "a body is bytes, text or null");
    *body = token->type == IOK_NULL ? iok_span(NULL, 0) : iok_token_span(token);
    return 0;
}

/* ---- writing it ------------------------------------------------------------------------------------------------- */

static uint8_t *put(uint8_t *at, struct iok_span bytes)
{
    if (bytes.n > 0)
        memcpy(at, bytes.p, bytes.n);
    return at + bytes.n;
}

static uint8_t *put_text(uint8_t *at, const char *text)
{
    return put(at, iok_span_of(text));
}

static uint8_t *put_number(uint8_t *at, uint64_t value)
{
    return at + iok_format_i64((char *)at, (int64_t)value);
}

static uint8_t *put_field(uint8_t *at, struct iok_span name, struct iok_span value)
{
    at = put(at, name);
    at = put_text(at, ": ");
    at = put(at, value);
    return put_text(at, "\r\n");
}

/* All, but none of the first n_without of these, which an answer's frame decides. */
static uint8_t *put_fields(uint8_t *at, const struct iok_token *fields, size_t n, size_t n_without)
{
    static const char *const without[] = {"connection", "transfer-encoding", "content-length"};
    char number[NUMBER_BYTES_MAX];
    for (size_t i = 0; i < n; i += 2) {
        struct iok_span name = iok_token_span(&fields[i]);
        size_t k = 0;
        while (k < n_without && !iok_span_eq_nocase(name, without[k]))
            k++;
        if (k == n_without)
            at = put_field(at, name, value_of(&fields[i + 1], number));
    }
    return at;
}

/* ---- requests --------------------------------------------------------------------------------------------------- */

static int no_memory(struct iok_io *io)
{
    return iok_io_fail(io, IOK_ENOMEM, "out of memory for a message");
}

/* What our own reader refuses is not sent. */
static int check_start(struct iok_io *io, const struct iok_token *args, size_t n)
{
    if (n < 2 || !is_text(&args[0]) || !is_text(&args[1]))
        return iok_io_fail(io, IOK_EINVAL, "a request is a method, a target, and then perhaps a body and fields");
    struct iok_span method = iok_token_span(&args[0]), target = iok_token_span(&args[1]);
    if (method.n > HTTP1_METHOD_BYTES_MAX || target.n > HTTP1_LINE_BYTES_MAX - 64)
        return iok_io_fail(io, IOK_ELIMIT, "a method of more than %u bytes, or a target of more than %u",
                           HTTP1_METHOD_BYTES_MAX, HTTP1_LINE_BYTES_MAX - 64);
    if (method.n == 0 || !http1_all(method, HTTP1_TOKEN))
        return iok_io_fail(io, IOK_EINVAL, "a method is a word such as GET");
    if (iok_span_eq(method, iok_span_of("CONNECT")))
        return iok_io_fail(io, IOK_EUNSAFE, "a tunnel (CONNECT) is not possible here");
    if (!http1_target_fits(method, target))
        return iok_io_fail(io, IOK_EINVAL,
                           "a target is a path such as /path?query, without blanks, line breaks, '#' or letters beyond "
                           "ASCII (escape those by %%XX)");
    return 0;
}

static int take_expect(struct iok_io *io, struct http1_request_frame *frame, const struct iok_token *value)
{
    if (!frame->body)
        return iok_io_fail(io, IOK_EUNSAFE, "no Expect: the body is sent at once");
    if (!is_text(value) || !iok_span_eq_nocase(http1_trim(iok_token_span(value)), "100-continue"))
        return iok_io_fail(io, IOK_EINVAL, "an Expect other than 100-continue");
    frame->expects = true;
    return 0;
}

/* RFC 9110, 7.8. What would follow the request is not its body. */
static int check_upgrade(struct iok_io *io, const struct given *given, struct http1_request_frame *frame)
{
    if (!frame->raw)
        return iok_io_fail(io, IOK_EUNSAFE, "a change of the protocol (Upgrade) needs body and reply in parts");
    if (!given->upgrade || given->length || frame->expects)
        return iok_io_fail(io, IOK_EINVAL, "a request with an Upgrade has no body, and Connection does not replace it");
    frame->tag |= HTTP1_REQUEST_UPGRADE;
    frame->body = false;
    frame->websocket = given->websocket && !given->has_key;
    if (!frame->websocket)
        return 0;
    if (given->extensions.n > 0 && !iok_ws_read_offer(given->extensions, &frame->opening.wish))
        return iok_io_fail(io, IOK_EINVAL, "no extension of WebSocket but permessage-deflate can be asked for");
    return iok_ws_make_key(io, frame->opening.key);
}

static int check_request_fields(struct iok_io *io, struct given *given, struct iok_span body,
                                struct http1_request_frame *frame)
{
    int rc = 0;

    for (size_t i = 0; i < given->n; i += 2) {
        struct iok_span name = iok_token_span(&given->fields[i]);
        if (iok_span_eq_nocase(name, "expect") && (rc = take_expect(io, frame, &given->fields[i + 1])) != 0)
            return rc;
        if (!iok_span_eq_nocase(name, "host"))
            continue;
        if (given->host || !is_text(&given->fields[i + 1]) ||
            !http1_all(http1_trim(iok_token_span(&given->fields[i + 1])), HTTP1_HOST))
            return iok_io_fail(io, IOK_EINVAL, "Host twice, or not a host");
        given->host = true;
    }
    if (given->chunked)
        return iok_io_fail(io, IOK_EINVAL, "no Transfer-Encoding: the body has a Content-Length");
    if (given->length && !frame->body && given->length_value != body.n)
        return iok_io_fail(io, IOK_EINVAL, "a Content-Length other than the body's: leave it out");
    if ((given->upgrade || given->says_upgrade) && (rc = check_upgrade(io, given, frame)) != 0)
        return rc;
    if (frame->body)
        frame->follows = (struct http1_body){
            .open = !given->length || given->length_value > 0, .chunked = !given->length, .left = given->length_value};
    return 0;
}

/* RFC 9110, 7.2; with the port if it is not the scheme's. */
static uint8_t *put_host(uint8_t *at, const struct iok_url *url)
{
    if (url->unix_socket || url->n_hosts == 0)
        return put_text(at, "host: localhost\r\n");
    struct iok_span name = url->hosts[0].name;
    bool v6 = memchr(name.p, ':', name.n) != NULL;
    const uint8_t *zone = v6 ? memchr(name.p, '%', name.n) : NULL; /* of meaning on this machine only: RFC 6874, 3 */
    at = put_text(at, v6 ? "host: [" : "host: ");
    at = put(at, iok_span(name.p, zone != NULL ? (size_t)(zone - name.p) : name.n));
    at = put_text(at, v6 ? "]" : "");
    uint16_t usual = iok_span_eq(url->scheme, iok_span_of("https")) ? 443 : 80;
    if (url->hosts[0].port != 0 && url->hosts[0].port != usual)
        at = put_number(put_text(at, ":"), url->hosts[0].port);
    return put_text(at, "\r\n");
}

/* RFC 7617: the URL's user and password. */
static uint8_t *put_authorization(uint8_t *at, const struct iok_url *url)
{
    uint8_t pair[IOK_URL_BYTES_MAX + 1];
    uint8_t *end = put(put_text(put(pair, url->user), ":"), url->password);
    at = put_text(at, "authorization: Basic ");
    at += iok_base64((char *)at, iok_span(pair, (size_t)(end - pair)));
    iok_wipe(pair, (size_t)(end - pair));
    return put_text(at, "\r\n");
}

/* RFC 9110, 8.6: these say a length even without a body. */
static bool wants_length(struct iok_span method)
{
    return iok_span_eq(method, iok_span_of("POST")) || iok_span_eq(method, iok_span_of("PUT")) ||
           iok_span_eq(method, iok_span_of("PATCH"));
}

static int take_request_body(struct iok_io *io, const struct iok_token *args, size_t n, struct iok_span *body,
                             bool follows)
{
    static const struct iok_token none = {.type = IOK_NULL};
    const struct iok_token *token = n > 2 ? &args[2] : &none;
    if (follows && token->type != IOK_NULL)
        return iok_io_fail(io, IOK_EINVAL, "a body that follows is not in the request: null stands there");
    return take_body(io, token, body);
}

/* The field that says how long the body is. */
static uint8_t *put_framing(uint8_t *at, const struct http1_request_frame *frame, struct iok_span body)
{
    return frame->body ? put_text(at, "transfer-encoding: chunked\r\n")
                       : put_text(put_number(put_text(at, "content-length: "), body.n), "\r\n");
}

static uint8_t *put_websocket(uint8_t *at, const struct http1_websocket_request *opening)
{
    at = put(put_text(at, "sec-websocket-key: "), iok_span(opening->key, sizeof(opening->key)));
    return put_text(at, "\r\nsec-websocket-version: 13\r\n");
}

int http1_write_request(struct iok_io *io, const struct iok_token *args, size_t n, struct http1_request_frame *frame)
{
    struct given given = {0};
    struct iok_span body;
    int rc = check_start(io, args, n);
    if (rc != 0 || (rc = take_request_body(io, args, n, &body, frame->body)) != 0 ||
        (rc = look(io, &given, n > 3 ? args + 3 : NULL, n > 3 ? n - 3 : 0)) != 0 ||
        (rc = check_request_fields(io, &given, body, frame)) != 0)
        return rc;
    struct iok_span method = iok_token_span(&args[0]), target = iok_token_span(&args[1]);
    const struct iok_url *url = io->url;
    bool signs = url->has_user && !given.authorization;
    bool has_body = frame->body || (n > 2 && args[2].type != IOK_NULL);
    size_t host = url->n_hosts > 0 ? url->hosts[0].name.n : 0;
    size_t most = method.n + target.n + given.bytes + host + 192;
    most += signs ? IOK_BASE64_BYTES(url->user.n + url->password.n + 1) : 0;
    uint8_t *start = iok_out_reserve(io->out, most);
    if (start == NULL)
        return no_memory(io);
    uint8_t *at = put(put_text(put(start, method), " "), target);
    at = put_text(at, " HTTP/1.1\r\n");
    at = given.host ? at : put_host(at, url);
    at = signs ? put_authorization(at, url) : at;
    at = put_fields(at, given.fields, given.n, 0);
    if (!given.length && (has_body || wants_length(method)))
        at = put_framing(at, frame, body);
    if (given.upgrade && !given.says_upgrade)
        at = put_text(at, "connection: upgrade\r\n");
    if (frame->websocket)
        at = put_websocket(at, &frame->opening);
    at = put_text(at, "\r\n");
    iok_out_commit(io->out, (size_t)(at - start));
    iok_out_refer(io->out, body);
    frame->tag |=
        (iok_span_eq(method, iok_span_of("HEAD")) ? HTTP1_REQUEST_HEAD : 0) | (given.close ? HTTP1_REQUEST_CLOSE : 0);
    return io->out->error != 0 ? no_memory(io) : 0;
}

/* ---- bodies in pieces ------------------------------------------------------------------------------------------- */

static void put_chunk_header(struct iok_out *out, size_t n)
{
    char digits[CHUNK_BYTES_MAX];
    size_t i = sizeof(digits);
    digits[--i] = '\n';
    digits[--i] = '\r';
    for (; n > 0; n >>= 4)
        digits[--i] = "0123456789abcdef"[n & 15];
    iok_out_put(out, iok_span(digits + i, sizeof(digits) - i));
}

int http1_write_piece(struct iok_io *io, struct http1_body *body, struct iok_span piece, bool end)
{
    if (body->mute || body->to_end) {
        iok_out_refer(io->out, body->mute ? iok_span(NULL, 0) : piece);
        body->open = !end;
    } else if (!body->chunked) {
        if (piece.n > body->left || (end && piece.n < body->left))
            return iok_io_fail(io, IOK_EINVAL, "the body has %s bytes than its Content-Length says",
                               end && piece.n < body->left ? "fewer" : "more");
        body->left -= piece.n;
        iok_out_refer(io->out, piece);
    } else if (piece.n > 0) { /* an empty chunk is the end */
        put_chunk_header(io->out, piece.n);
        iok_out_refer(io->out, piece);
        iok_out_put(io->out, iok_span_of("\r\n"));
    }
    if (body->chunked && end)
        iok_out_put(io->out, iok_span_of("0\r\n\r\n"));
    if (!body->mute && !body->to_end)
        body->open = body->chunked ? !end : body->left > 0;
    return io->out->error != 0 ? no_memory(io) : 0;
}

/* ---- answers ---------------------------------------------------------------------------------------------------- */

/* RFC 9110, 15, and RFC 6585. */
static const char *reason_of(int64_t status)
{
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {205, "Reset Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof(reasons) / sizeof(*reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "";
}

struct answer {
    int64_t status;
    struct iok_span reason;
    struct given given;
    struct iok_span body;
    bool has_body;                   /* not null */
    const struct iok_token *trailer; /* names and values in turn */
    size_t n_trailer, trailer_bytes;
};

/* The array of fields at reply[*at], whose tokens must all be there. */
static bool take_array(const struct iok_token *reply, size_t n, size_t *at, const struct iok_token **fields,
                       size_t *count)
{
    if (*at >= n || reply[*at].type != IOK_ARRAY || reply[*at].len > n - *at - 1)
        return false;
    *fields = reply + *at + 1;
    *count = reply[*at].len;
    *at += 1 + *count;
    return true;
}

static int take_trailer(struct iok_io *io, struct answer *a)
{
    struct given trailer = {0};
    int rc = look(io, &trailer, a->trailer, a->n_trailer);
    if (rc == 0 && (trailer.length || trailer.chunked || trailer.upgrade)) /* RFC 9110, 6.5.1 */
        return iok_io_fail(io, IOK_EINVAL, "a trailer cannot say how the body is framed, or what follows it");
    a->trailer_bytes = trailer.bytes;
    return rc;
}

static int take_answer(struct iok_io *io, const struct iok_token *reply, size_t n, struct answer *a)
{
    const struct iok_token *fields = NULL;
    size_t n_fields = 0, at = 3;
    if (n < 5 || reply[0].type != IOK_ARRAY || reply[0].len < 4 || reply[0].len > 5 || reply[1].type != IOK_I64 ||
        (reply[2].type != IOK_NULL && !is_text(&reply[2])) || !take_array(reply, n, &at, &fields, &n_fields) || at >= n)
        return iok_io_fail(io, IOK_EINVAL, "an answer is [status, reason, [name, value ...], body, [name, value ...]]");
    a->status = reply[1].i;
    a->reason = reply[2].type == IOK_NULL ? iok_span_of(reason_of(a->status)) : iok_token_span(&reply[2]);
    a->has_body = reply[at].type != IOK_NULL;
    int rc = take_body(io, &reply[at++], &a->body);
    if (rc != 0 || (rc = look(io, &a->given, fields, n_fields)) != 0)
        return rc;
    if (a->given.upgrade || a->given.says_upgrade)
        return iok_io_fail(io, IOK_EUNSAFE, "a change of the protocol (Upgrade) is not possible here");
    if ((reply[0].len == 5 && !take_array(reply, n, &at, &a->trailer, &a->n_trailer)) || at != n)
        return iok_io_fail(io, IOK_EINVAL, "an answer's last part is its trailer: [name, value ...]");
    if (a->status < 200 || a->status > 999)
        return iok_io_fail(io, IOK_EINVAL, "an answer's status is from 200 to 999");
    if (!http1_value_is_clean(a->reason) || a->reason.n > HTTP1_NAME_BYTES_MAX)
        return iok_io_fail(io, IOK_EINVAL, "a reason with a line break, or of more than %u bytes",
                           HTTP1_NAME_BYTES_MAX);
    return take_trailer(io, a);
}

/* No body, whatever the program gave: RFC 9110, 15.3.5 and 15.3.6. Of the two a 205 says that its length is 0. */
static bool is_empty(int64_t status)
{
    return status == 204 || status == 205;
}

/* RFC 9110, 8.6 and 15.4.5: to HEAD and in a 304 the length is that which a GET would have got. */
static int check_length(struct iok_io *io, const struct answer *a, bool describes, bool parts)
{
    if (parts && (a->has_body || a->n_trailer > 0))
        return iok_io_fail(io, IOK_EINVAL, "an answer whose body follows has null there, and no trailer");
    if (parts && a->given.length)
        return 0; /* its pieces are counted */
    if (a->given.length && a->given.chunked)
        return iok_io_fail(io, IOK_EINVAL, "both Content-Length and Transfer-Encoding: leave them out");
    if (a->given.length && !describes && !is_empty(a->status) && a->given.length_value != a->body.n)
        return iok_io_fail(io, IOK_EINVAL, "a Content-Length other than the body's: leave it out");
    return 0;
}

static void put_body(struct iok_out *out, const struct answer *a, bool chunked)
{
    uint8_t *at, *start;
    if (!chunked) {
        iok_out_refer(out, a->body);
        return;
    }
    if (a->body.n > 0) {
        put_chunk_header(out, a->body.n);
        iok_out_refer(out, a->body);
    }
    start = iok_out_reserve(out, a->trailer_bytes + CHUNK_BYTES_MAX);
    if (start == NULL)
        return;
    at = put_text(start, a->body.n > 0 ? "\r\n0\r\n" : "0\r\n");
    at = put_text(put_fields(at, a->trailer, a->n_trailer, 0), "\r\n");
    iok_out_commit(out, (size_t)(at - start));
}

/* How the body that follows is framed: RFC 9112, 6.3. */
static void frame_parts(struct http1_answer_frame *frame, const struct answer *a, bool bare)
{
    frame->follows = (struct http1_body){
        .open = true,
        .mute = bare,
        .chunked = !bare && !a->given.length && !frame->old,
        .to_end = !bare && !a->given.length && frame->old,
        .left = a->given.length_value,
    };
    frame->close |= frame->follows.to_end;
}

int http1_write_answer(struct iok_io *io, const struct iok_token *reply, size_t n, struct http1_answer_frame *frame)
{
    struct answer a = {0};
    int rc = take_answer(io, reply, n, &a);
    bool describes = frame->head || a.status == 304;
    if (rc != 0 || (rc = check_length(io, &a, describes, frame->parts)) != 0)
        return rc;
    if (frame->connect && a.status < 300)
        return iok_io_fail(io, IOK_EUNSAFE, "a tunnel (CONNECT) is not possible here: answer with an error");
    bool empty = is_empty(a.status), bare = describes || empty; /* RFC 9112, 6.3 */
    bool chunked = !frame->old && !empty && (a.given.chunked || (a.n_trailer > 0 && !a.given.length));
    bool says_length =
        !chunked && !frame->parts && !empty && !a.given.length && (!describes || (a.has_body && a.status != 304));
    frame->close |= a.given.close;
    if (frame->parts) {
        frame_parts(frame, &a, bare);
        chunked = frame->follows.chunked;
    }
    uint8_t *start = iok_out_reserve(io->out, a.given.bytes + a.reason.n + io->date.n + 176);
    if (start == NULL)
        return no_memory(io);
    uint8_t *at = put_text(put_number(put_text(start, "HTTP/1.1 "), (uint64_t)a.status), " ");
    at = put_text(put(at, a.reason), "\r\n");
    at = put_fields(at, a.given.fields, a.given.n, empty ? 3 : 2);
    if (io->date.n > 0 && !a.given.date) /* RFC 9110, 6.6.1 */
        at = put_field(at, iok_span_of("date"), io->date);
    if (says_length || a.status == 205)
        at = put_text(put_number(put_text(at, "content-length: "), empty ? 0 : a.body.n), "\r\n");
    at = chunked ? put_text(at, "transfer-encoding: chunked\r\n") : at;
    at = frame->close ? put_text(at, "connection: close\r\n") : at;
    at = frame->old && !frame->close ? put_text(at, "connection: keep-alive\r\n") : at;
    at = put_text(at, "\r\n");
    iok_out_commit(io->out, (size_t)(at - start));
    if (!bare && !frame->parts)
        put_body(io->out, &a, chunked);
    return io->out->error != 0 ? no_memory(io) : 0;
}

int http1_write_switch(struct iok_io *io, const struct iok_token *answer, size_t n, struct iok_span more)
{
    struct given given = {0};
    const struct iok_token *fields = NULL;
    size_t n_fields = 0, at = 3;
    if (!take_array(answer, n, &at, &fields, &n_fields) || at + 1 != n || answer[at].type != IOK_NULL)
        return iok_io_fail(io, IOK_EINVAL, "a change of the protocol is [101, reason, [name, value ...], null]");
    int rc = look(io, &given, fields, n_fields);
    if (rc != 0)
        return rc;
    if (given.length || given.chunked || (!given.upgrade && more.n == 0))
        return iok_io_fail(io, IOK_EINVAL, "a change of the protocol says which (Upgrade), and no length");
    uint8_t *start = iok_out_reserve(io->out, given.bytes + more.n + 96);
    if (start == NULL)
        return no_memory(io);
    uint8_t *to = put_text(start, "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n");
    to = put(put_fields(to, fields, n_fields, 3), more);
    to = put_text(to, "\r\n");
    iok_out_commit(io->out, (size_t)(to - start));
    return 0;
}

void http1_write_refusal(struct iok_out *out, int status)
{
    uint8_t *start = iok_out_reserve(out, 160);
    if (start == NULL)
        return;
    uint8_t *at = put_text(put_number(put_text(start, "HTTP/1.1 "), (uint64_t)status), " ");
    at = put_text(put_text(at, reason_of(status)), "\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    iok_out_commit(out, (size_t)(at - start));
}
