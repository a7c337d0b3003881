/* websocket_write.c - messages to frames (RFC 6455, 5): masks in the client's role, compression, and what may not be
 * sent at all.
 *
 * What it is: the only place that writes frames. All is looked at before the first octet is appended. Lengths are in as
 * few octets as they need. */
#include "websocket_private.h"

static int no_memory(struct iok_io *io)
{
    return iok_io_fail(io, IOK_ENOMEM, "out of memory for a WebSocket frame");
}

/* ---- frames ----------------------------------------------------------------------------------------------------- */

/* 10.3: a mask that nobody can foresee. SHA-256 over seed and counter gives eight at a time. */
static bool next_mask(struct iok_websocket *ws, uint8_t mask[4])
{
    if (ws->n_masks == 0) {
        uint64_t counter;
        memcpy(&counter, ws->seed + IOK_SHA256_BYTES, sizeof(counter));
        counter++;
        memcpy(ws->seed + IOK_SHA256_BYTES, &counter, sizeof(counter));
        if (!iok_sha256(iok_span(ws->seed, sizeof(ws->seed)), ws->masks))
            return false;
        ws->n_masks = sizeof(ws->masks);
    }
    ws->n_masks = (uint8_t)(ws->n_masks - 4);
    memcpy(mask, ws->masks + ws->n_masks, 4);
    return true;
}

/* Octets of the head at at; mask is NULL for a server. */
static size_t put_head(uint8_t *at, uint8_t first, size_t length, const uint8_t *mask)
{
    uint8_t masked = mask != NULL ? WS_MASKED : 0;
    size_t extended = length < 126 ? 0 : length < 65536 ? 2 : 8;
    at[0] = first;
    at[1] = (uint8_t)(masked | (extended == 0 ? length : extended == 2 ? 126 : 127));
    for (size_t i = 0; i < extended; i++)
        at[2 + i] = (uint8_t)((uint64_t)length >> 8 * (extended - 1 - i));
    if (mask != NULL)
        memcpy(at + 2 + extended, mask, 4);
    return 2 + extended + (mask != NULL ? 4 : 0);
}

static int put_frame(struct iok_websocket *ws, struct iok_io *io, uint8_t first, struct iok_span payload)
{
    uint8_t mask[4];
    bool client = ws->options.client;
    if (client && !next_mask(ws, mask))
        return no_memory(io);
    uint8_t *at = iok_out_reserve(io->out, WS_HEAD_BYTES_MAX + (client ? payload.n : 0));
    if (at == NULL)
        return no_memory(io);
    size_t n = put_head(at, first, payload.n, client ? mask : NULL);
    if (client)
        ws_mask(at + n, payload.p, payload.n, mask, 0);
    iok_out_commit(io->out, n + (client ? payload.n : 0));
    if (!client)
        iok_out_refer(io->out, payload);
    return io->out->error != 0 ? no_memory(io) : 0;
}

/* The length stands before the payload, and is not known before it is compressed: so it is moved to its head. */
static int put_deflated(struct iok_websocket *ws, struct iok_io *io, uint8_t first, struct iok_span payload, bool last)
{
    uint8_t mask[4];
    bool client = ws->options.client;
    if (client && !next_mask(ws, mask))
        return no_memory(io);
    uint8_t *at = iok_out_reserve(io->out, WS_HEAD_BYTES_MAX + ws_deflate_bound(payload.n));
    if (at == NULL)
        return no_memory(io);
    uint8_t *deflated = at + WS_HEAD_BYTES_MAX;
    size_t n = ws_deflate(ws->deflater, payload, last, deflated);
    size_t head = put_head(at, first, n, client ? mask : NULL);
    if (client)
        ws_mask(deflated, deflated, n, mask, 0);
    memmove(at + head, deflated, n);
    iok_out_commit(io->out, head + n);
    return io->out->error != 0 ? no_memory(io) : 0;
}

int ws_put_control(struct iok_websocket *ws, struct iok_io *io, enum ws_opcode opcode, struct iok_span payload)
{
    return put_frame(ws, io, (uint8_t)(WS_FIN | opcode), payload);
}

int ws_put_close(struct iok_websocket *ws, struct iok_io *io, int64_t code, struct iok_span reason)
{
    uint8_t payload[IOK_WS_CONTROL_BYTES_MAX] = {(uint8_t)(code >> 8), (uint8_t)code};
    if (code == IOK_WS_NO_CODE)
        return ws_put_control(ws, io, WS_CLOSE, iok_span(NULL, 0));
    if (reason.n > 0)
        memcpy(payload + 2, reason.p, reason.n);
    return ws_put_control(ws, io, WS_CLOSE, iok_span(payload, 2 + reason.n));
}

/* ---- pongs ------------------------------------------------------------------------------------------------------ */

static bool has_room_for_pong(struct iok_websocket *ws, const struct iok_out *out)
{
    if (out->taken >= ws->pongs_end)
        ws->pong_bytes = 0;
    return ws->pong_bytes < WS_PONG_BYTES_MAX;
}

/* 5.5.3: of several pings the latest alone may be answered. So is a peer that sends them and does not take the answers. */
int ws_put_pong(struct iok_websocket *ws, struct iok_io *io, struct iok_span payload)
{
    struct ws_note *owed = &ws->owed_pong;
    owed->is_there = !has_room_for_pong(ws, io->out);
    if (owed->is_there) {
        owed->n = (uint8_t)payload.n;
        if (payload.n > 0)
            memcpy(owed->bytes, payload.p, payload.n);
        return 0;
    }
    uint64_t before = io->out->appended;
    int rc = ws_put_control(ws, io, WS_PONG, payload);
    ws->pongs_end = io->out->appended;
    ws->pong_bytes += ws->pongs_end - before;
    return rc;
}

int ws_put_owed_pong(struct iok_websocket *ws, struct iok_io *io)
{
    struct ws_note *owed = &ws->owed_pong;
    if (!owed->is_there || ws->state != WS_OPEN || !has_room_for_pong(ws, io->out))
        return 0;
    return ws_put_pong(ws, io, iok_span(owed->bytes, owed->n));
}

/* ---- what the program sends ------------------------------------------------------------------------------------- */

static int check_open(const struct iok_websocket *ws, struct iok_io *io)
{
    return ws->state == WS_OPEN || ws->state == WS_PARTING
               ? 0
               : iok_io_fail(io, IOK_ESTATE, "the WebSocket is closed, or about to be");
}

static int check_part(const struct iok_websocket *ws, struct iok_io *io, bool text, struct iok_span payload,
                      uint32_t parts, struct ws_utf8 *utf8)
{
    bool first = (parts & IOK_WS_FIRST) != 0, last = (parts & IOK_WS_LAST) != 0;
    int rc = check_open(ws, io);
    if (rc != 0)
        return rc;
    if (first == ws->is_sending || (!first && text != ws->sends_text))
        return iok_io_fail(io, IOK_ESTATE,
                           ws->is_sending ? "a message is being sent in parts: end it first, in the kind that it has"
                                          : "a part of a message that was not begun");
    *utf8 = first ? (struct ws_utf8){0} : ws->sent_utf8;
    if (text && (!ws_utf8_take(utf8, payload) || (last && utf8->missing > 0)))
        return iok_io_fail(io, IOK_EINVAL, "a text that is not UTF-8: send it as binary");
    return 0;
}

/* Whether a message is to be compressed, by its first part. What comes behind that is unknown, so it is not looked at. */
static int choose_deflate(struct iok_websocket *ws, struct iok_io *io, size_t n)
{
    const struct iok_ws_options *options = &ws->options;
    const struct iok_ws_deflate *agreed = &options->deflate;
    uint8_t bits = options->client ? agreed->client_bits : agreed->server_bits;
    bool no_context = options->client ? agreed->client_no_context : agreed->server_no_context;
    /* zlib cannot write for a window of 8; a message may always go out as it is (RFC 7692, 6). */
    ws->sends_deflated = agreed->on && bits != 8 && n >= options->deflate_bytes_min && n <= options->deflate_bytes_max;
    if (!ws->sends_deflated || ws->deflater != NULL)
        return 0;
    ws->deflater = ws_deflater_new(bits != 0 ? bits : 15, no_context);
    return ws->deflater != NULL ? 0 : no_memory(io);
}

/* Compressed, a part goes out in frames of a bounded size, each for itself. */
static int put_deflated_part(struct iok_websocket *ws, struct iok_io *io, uint8_t opcode, struct iok_span payload,
                             bool last)
{
    uint8_t first = (uint8_t)(opcode | (opcode != WS_CONTINUATION ? WS_RSV1 : 0));
    for (;;) {
        size_t n = payload.n < IOK_WS_DEFLATE_BYTES_MAX ? payload.n : IOK_WS_DEFLATE_BYTES_MAX;
        bool ends = last && n == payload.n;
        int rc = put_deflated(ws, io, first | (ends ? WS_FIN : 0), iok_span(payload.p, n), ends);
        payload = iok_span_skip(payload, n);
        if (rc != 0 || payload.n == 0)
            return rc;
        first = WS_CONTINUATION;
    }
}

int iok_ws_send(struct iok_websocket *ws, struct iok_io *io, bool text, struct iok_span payload, uint32_t parts)
{
    struct ws_utf8 utf8;
    bool first = (parts & IOK_WS_FIRST) != 0, last = (parts & IOK_WS_LAST) != 0;
    uint8_t opcode = first ? (text ? WS_TEXT : WS_BINARY) : WS_CONTINUATION;
    int rc = check_part(ws, io, text, payload, parts, &utf8);
    if (rc != 0 || (first && (rc = choose_deflate(ws, io, payload.n)) != 0))
        return rc;
    rc = ws->sends_deflated ? put_deflated_part(ws, io, opcode, payload, last)
                            : put_frame(ws, io, (uint8_t)(opcode | (last ? WS_FIN : 0)), payload);
    ws->is_sending = !last;
    ws->sends_text = text;
    ws->sent_utf8 = utf8;
    return rc;
}

int iok_ws_send_part(struct iok_websocket *ws, struct iok_io *io, struct iok_span payload, uint32_t parts)
{
    return iok_ws_send(ws, io, ws->sends_text, payload, parts);
}

static int send_control(struct iok_websocket *ws, struct iok_io *io, enum ws_opcode opcode, struct iok_span payload)
{
    int rc = check_open(ws, io);
    if (rc != 0)
        return rc;
    if (payload.n > IOK_WS_CONTROL_BYTES_MAX)
        return iok_io_fail(io, IOK_ELIMIT, "a ping or pong of more than %u bytes", IOK_WS_CONTROL_BYTES_MAX);
    return ws_put_control(ws, io, opcode, payload);
}

int iok_ws_ping(struct iok_websocket *ws, struct iok_io *io, struct iok_span payload)
{
    return send_control(ws, io, WS_PING, payload);
}

int iok_ws_beat(struct iok_websocket *ws, struct iok_io *io)
{
    if (ws->state != WS_OPEN)
        return 1;
    ws->beats = true;
    return ws_put_control(ws, io, WS_PING, iok_span_of(WS_BEAT));
}

int iok_ws_pong(struct iok_websocket *ws, struct iok_io *io, struct iok_span payload)
{
    return send_control(ws, io, WS_PONG, payload);
}

int iok_ws_close(struct iok_websocket *ws, struct iok_io *io, int64_t code, struct iok_span reason)
{
    int rc = check_open(ws, io);
    if (rc != 0)
        return rc;
    if (code == IOK_WS_NO_CODE ? reason.n > 0 : !iok_ws_code_is_valid(code))
        return iok_io_fail(
            io, IOK_EINVAL,
            "a code of closing is one of 1000 to 1003, 1007 to 1014, 3000 to 4999; and there is no reason "
            "without one");
    if (reason.n > IOK_WS_CONTROL_BYTES_MAX - 2)
        return iok_io_fail(io, IOK_ELIMIT, "a reason of more than %u bytes", IOK_WS_CONTROL_BYTES_MAX - 2);
    if (!ws_utf8_is_valid(reason))
        return iok_io_fail(io, IOK_EINVAL, "a reason that is not UTF-8");
    rc = ws_put_close(ws, io, code, reason);
    ws->state = ws->state == WS_PARTING ? WS_OVER : WS_CLOSING;
    return rc != 0 ? rc : ws_drop_message(ws, io);
}

int iok_ws_end(struct iok_websocket *ws, struct iok_io *io)
{
    if (ws->state == WS_PARTING)
        return iok_ws_close(ws, io, ws->code, iok_span(NULL, 0));
    return ws->state == WS_OPEN ? iok_ws_close(ws, io, IOK_WS_NORMAL, iok_span(NULL, 0)) : 0;
}

/* ---- by tokens -------------------------------------------------------------------------------------------------- */

static bool is_text(const struct iok_token *token)
{
    return token->type == IOK_TEXT || token->type == IOK_BYTES;
}

static int write_push(struct iok_websocket *ws, struct iok_io *io, const struct iok_token *message, size_t n)
{
    struct iok_span name = iok_token_span(&message[1]);
    struct iok_span payload = n > 2 && is_text(&message[2]) ? iok_token_span(&message[2]) : iok_span(NULL, 0);
    struct iok_span reason = n > 3 ? iok_token_span(&message[3]) : iok_span(NULL, 0);
    if (iok_span_eq(name, iok_span_of("ping")) && n <= 3 && (n == 2 || is_text(&message[2])))
        return iok_ws_ping(ws, io, payload);
    if (iok_span_eq(name, iok_span_of("pong")) && n <= 3 && (n == 2 || is_text(&message[2])))
        return iok_ws_pong(ws, io, payload);
    if (iok_span_eq(name, iok_span_of("close")) && n <= 4 && (n == 2 || message[2].type == IOK_I64) &&
        (n < 4 || is_text(&message[3])))
        return iok_ws_close(ws, io, n > 2 ? message[2].i : IOK_WS_NO_CODE, reason);
    return iok_io_fail(io, IOK_ETYPE, "it is [\"ping\", payload], [\"pong\", payload] or [\"close\", code, reason]");
}

int iok_ws_write(struct iok_websocket *ws, struct iok_io *io, const struct iok_token *message, size_t n)
{
    if (n == 1 && is_text(&message[0]))
        return iok_ws_send(ws, io, message[0].type == IOK_TEXT, iok_token_span(&message[0]),
                           IOK_WS_FIRST | IOK_WS_LAST);
    if (n >= 2 && message[0].type == IOK_PUSH && message[0].len == n - 1 && is_text(&message[1]))
        return write_push(ws, io, message, n);
    return iok_io_fail(io, IOK_ETYPE, "a WebSocket message is text, bytes, or a list for ping, pong and close");
}
