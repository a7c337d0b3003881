/* http1_upgrade.c - a server's connection after a 101: WebSocket, or bytes of a protocol that only the program knows.
 *
 *     answer 101 -> [websocket: key, extensions, protocol] -> head -> messages both ways -> the last part
 *
 * What it is: the opening in the server's role, and the hand-over of what comes and goes. What it is not: frames
 * (websocket.c), or time. */
#include <stdio.h>

#include "http1.h"
#include "websocket.h"

/* The fields of a message as the tape has them: after the tokens before. */
static bool fields_at(const struct iok_token *tokens, size_t n, size_t at, const struct iok_token **fields,
                      size_t *count)
{
    if (at >= n || tokens[at].type != IOK_ARRAY || tokens[at].len > n - at - 1)
        return false;
    *fields = tokens + at + 1;
    *count = tokens[at].len;
    return true;
}

static struct iok_tape *begin_message(struct iok_io *io, bool last)
{
    return io->host->begin_part(io, last ? IOK_SEQ_HEAD : 0);
}

/* RFC 6455, 4.2.2: a subprotocol is one that was offered. */
static int check_protocol(struct iok_io *io, const struct iok_ws_request *request, const struct iok_token *fields,
                          size_t n)
{
    for (size_t i = 0; i + 1 < n; i += 2) {
        struct iok_span name = iok_token_span(&fields[i]);
        if (iok_span_eq_nocase(name, "sec-websocket-accept") || iok_span_eq_nocase(name, "sec-websocket-extensions") ||
            iok_span_eq_nocase(name, "upgrade"))
            return iok_io_fail(io, IOK_EINVAL, "what opens a WebSocket is written here: leave out %.*s", (int)name.n,
                               (const char *)name.p);
        if (iok_span_eq_nocase(name, "sec-websocket-protocol") &&
            !iok_ws_offers(request, iok_token_span(&fields[i + 1])))
            return iok_io_fail(io, IOK_EINVAL, "a Sec-WebSocket-Protocol that the client does not offer");
    }
    return 0;
}

static int open_websocket(struct http1_upgraded *up, struct iok_io *io, const struct iok_upgrade *how,
                          const struct iok_ws_request *request, const struct iok_token *answer, size_t n,
                          const struct iok_token *fields, size_t n_fields)
{
    struct iok_ws_deflate wish = {.on = how->deflate};
    struct iok_ws_opening opening;
    char more[256];
    int status, rc = iok_ws_read_request(&io->err, request, &wish, &opening, &status);
    if (rc != 0) {
        io->err.code = IOK_EINVAL; /* the program answers otherwise */
        return IOK_EINVAL;
    }
    if ((rc = check_protocol(io, request, fields, n_fields)) != 0)
        return rc;
    size_t length = (size_t)snprintf(
        more, sizeof(more), "upgrade: websocket\r\nsec-websocket-accept: %.*s\r\n%s%.*s%s", (int)IOK_WS_ACCEPT_BYTES,
        opening.accept, opening.n_extensions > 0 ? "sec-websocket-extensions: " : "", (int)opening.n_extensions,
        opening.extensions, opening.n_extensions > 0 ? "\r\n" : "");
    struct iok_ws_options options = {
        .message_bytes_max = how->message_bytes_max,
        .deflate = opening.deflate,
        .deflate_bytes_min = IOK_WS_DEFLATE_BYTES_MIN,
        .deflate_bytes_max = IOK_WS_DEFLATE_BYTES_MAX,
        .close_later = true,
        .begin = begin_message,
    };
    up->ws = iok_ws_new(&options, io);
    if (up->ws == NULL)
        return IOK_ENOMEM;
    rc = http1_write_switch(io, answer, n, iok_span(more, length));
    if (rc != 0) {
        iok_ws_free(up->ws);
        up->ws = NULL;
    }
    return rc;
}

int http1_upgrade(struct http1_upgraded *up, struct iok_io *io, const struct iok_upgrade *how,
                  const struct iok_token *request, size_t n_request, const struct iok_token *answer, size_t n)
{
    const struct iok_token *asked = NULL, *fields = NULL;
    size_t n_asked = 0, n_fields = 0;
    if (n < 4 || answer[0].type != IOK_ARRAY || answer[1].type != IOK_I64 || answer[1].i != 101 ||
        !fields_at(answer, n, 3, &fields, &n_fields) || !fields_at(request, n_request, 4, &asked, &n_asked))
        return iok_io_fail(io, IOK_EINVAL, "a change of the protocol is [101, reason, [name, value ...], null]");
    struct iok_ws_request opening = {iok_token_span(&request[1]), request[3].i, asked, n_asked};
    if (how->websocket)
        return open_websocket(up, io, how, &opening, answer, n, fields, n_fields);
    if (request[3].i < 1)
        return iok_io_fail(io, IOK_EINVAL, "HTTP/1.0 cannot change the protocol");
    int rc = http1_write_switch(io, answer, n, iok_span(NULL, 0));
    up->raw = rc == 0;
    return rc;
}

ptrdiff_t http1_upgraded_feed(struct http1_upgraded *up, struct iok_io *io, struct iok_span in)
{
    if (up->ws != NULL)
        return iok_ws_feed(up->ws, io, in);
    struct iok_tape *tape = in.n > 0 ? io->host->begin_part(io, 0) : NULL;
    if (tape == NULL)
        return 0;
    iok_tape_copy(tape, IOK_BYTES, 0, in);
    int rc = io->host->end(io, 0);
    return rc != 0 ? rc : (ptrdiff_t)in.n;
}

int http1_upgraded_eof(struct http1_upgraded *up, struct iok_io *io)
{
    if (up->ws != NULL)
        return iok_ws_eof(up->ws, io);
    struct iok_tape *tape = io->host->begin_part(io, IOK_SEQ_HEAD);
    iok_tape_head(tape, IOK_ARRAY, 0);
    return io->host->end(io, IOK_MSG_LAST);
}

int http1_upgraded_write(struct http1_upgraded *up, struct iok_io *io, const struct iok_token *message, size_t n)
{
    if (up->ws != NULL)
        return n == 0 ? 0 : iok_ws_write(up->ws, io, message, n);
    for (size_t i = 0; i < n; i++) {
        if (message[i].type != IOK_BYTES && message[i].type != IOK_TEXT)
            return iok_io_fail(io, IOK_ETYPE, "of another protocol only bytes can be sent");
        iok_out_refer(io->out, iok_token_span(&message[i]));
    }
    return 0;
}

int http1_upgraded_end(struct http1_upgraded *up, struct iok_io *io)
{
    return up->ws == NULL ? 0 : iok_ws_end(up->ws, io);
}

int http1_upgraded_ping(struct http1_upgraded *up, struct iok_io *io)
{
    return up->ws == NULL || iok_ws_is_over(up->ws) ? 1 : iok_ws_ping(up->ws, io, iok_span(NULL, 0));
}

void http1_upgraded_free(struct http1_upgraded *up)
{
    iok_ws_free(up->ws);
}
