/* http1_websocket.c - a WebSocket that a request of the client's role opens, within the connection of HTTP/1.1.
 *
 * What it is: the seam between both codecs. Behind the 101 each message of the server is a part of the reply, and each part
 * of the request's body is a frame to send: its first octet (RFC 6455, 5.2: FIN and opcode) and its payload. The reply
 * proper, behind the last part, says how it was closed. What it is not: the protocol, which is in websocket.c. */
#include "../base/mem.h"
#include "http1.h"

#define FIELDS_MAX 16u /* of the five below, names and values */
#define FIELD_BYTES_MAX 1024u

struct http1_websocket {
    struct http1_websocket_request request;
    struct iok_ws_opening opening;
    struct iok_websocket *ws; /* NULL before the 101 */
    /* Of the 101, as the reply's tape may discard. */
    struct iok_token fields[FIELDS_MAX];
    uint8_t bytes[FIELD_BYTES_MAX];
    size_t n_fields, n_bytes;
};

struct http1_websocket *http1_websocket_new(const struct http1_websocket_request *request)
{
    struct http1_websocket *w = iok_calloc(sizeof(*w));
    if (w != NULL)
        w->request = *request;
    return w;
}

void http1_websocket_free(struct http1_websocket *w)
{
    if (w == NULL)
        return;
    iok_ws_free(w->ws);
    iok_free(w);
}

static struct iok_token keep(struct http1_websocket *w, struct iok_span text)
{
    uint8_t *at = w->bytes + w->n_bytes;
    if (text.n > 0)
        memcpy(at, text.p, text.n);
    w->n_bytes += text.n;
    return (struct iok_token){.type = IOK_BYTES, .len = (uint32_t)text.n, .p = at};
}

int http1_websocket_field(struct http1_websocket *w, struct iok_io *io, struct iok_span name, struct iok_span value)
{
    static const char *const names[] = {"upgrade", "connection", "sec-websocket-accept", "sec-websocket-protocol",
                                        "sec-websocket-extensions"};
    size_t i = 0;
    while (i < 5 && !iok_span_eq(name, iok_span_of(names[i])))
        i++;
    if (i == 5)
        return 0;
    if (w->n_fields == FIELDS_MAX || name.n + value.n > FIELD_BYTES_MAX - w->n_bytes)
        return iok_io_fail(io, IOK_ELIMIT,
                           "the server's answer to a WebSocket has more than %u fields, or %u bytes of them",
                           FIELDS_MAX / 2, FIELD_BYTES_MAX);
    w->fields[w->n_fields++] = keep(w, name);
    w->fields[w->n_fields++] = keep(w, value);
    return 0;
}

int http1_websocket_check(struct http1_websocket *w, struct iok_io *io)
{
    /* Which subprotocols were offered is the program's to know. */
    return iok_ws_read_reply(&io->err, w->fields, w->n_fields, w->request.key, iok_span(NULL, 0), &w->request.wish,
                             &w->opening);
}

static struct iok_tape *begin(struct iok_io *io, bool last)
{
    return last ? io->host->begin_reply(io, IOK_SEQ_HEAD) : io->host->begin_part(io, IOK_SEQ_HEAD);
}

int http1_websocket_begin(struct http1_websocket *w, struct iok_io *io)
{
    struct iok_ws_options options = {
        .client = true,
        .message_bytes_max = io->max_reply,
        .deflate = w->opening.deflate,
        .deflate_bytes_min = IOK_WS_DEFLATE_BYTES_MIN,
        .deflate_bytes_max = IOK_WS_DEFLATE_BYTES_MAX,
        .begin = begin,
    };
    w->ws = iok_ws_new(&options, io);
    return w->ws != NULL ? 0 : IOK_ENOMEM;
}

ptrdiff_t http1_websocket_feed(struct http1_websocket *w, struct iok_io *io, struct iok_span in)
{
    return iok_ws_feed(w->ws, io, in);
}

int http1_websocket_eof(struct http1_websocket *w, struct iok_io *io)
{
    return iok_ws_eof(w->ws, io);
}

int http1_websocket_lost(struct http1_websocket *w, struct iok_io *io, struct iok_span why)
{
    return iok_ws_lost(w->ws, io, why);
}

int http1_websocket_beat(struct http1_websocket *w, struct iok_io *io)
{
    return iok_ws_beat(w->ws, io);
}

static int send(struct http1_websocket *w, struct iok_io *io, uint8_t first, struct iok_span payload)
{
    uint32_t parts = ((first & 0x80) != 0 ? IOK_WS_LAST : 0u) | ((first & 15) != 0 ? IOK_WS_FIRST : 0u);
    switch (first & 0x7f) {
    case 0:
        return iok_ws_send_part(w->ws, io, payload, parts);
    case 1:
    case 2:
        return iok_ws_send(w->ws, io, (first & 15) == 1, payload, parts);
    case 8:
        return iok_ws_close(w->ws, io, payload.n >= 2 ? payload.p[0] << 8 | payload.p[1] : IOK_WS_NO_CODE,
                            payload.n >= 2 ? iok_span_skip(payload, 2) : iok_span(NULL, 0));
    case 9:
        return iok_ws_ping(w->ws, io, payload);
    case 10:
        return iok_ws_pong(w->ws, io, payload);
    default:
        return iok_io_fail(io, IOK_EINVAL, "no frame begins with such an octet");
    }
}

int http1_websocket_body(struct http1_websocket *w, struct iok_io *io, struct iok_span bytes, bool end)
{
    if (iok_ws_is_over(w->ws) || iok_ws_is_closing(w->ws)) /* both sides may close at the same time */
        return 0;
    int rc = bytes.n > 0 ? send(w, io, bytes.p[0], iok_span_skip(bytes, 1)) : 0;
    bool closes = rc == 0 && end && !iok_ws_is_closing(w->ws);
    return closes ? iok_ws_close(w->ws, io, IOK_WS_NORMAL, iok_span(NULL, 0)) : rc;
}
