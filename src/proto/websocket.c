/* websocket.c - one WebSocket connection, and what arrives on it: frames to messages, pings answered, the closing
 * handshake (RFC 6455, 5 and 7).
 *
 * What it is: the only place that changes the connection's state. What it is not: the opening, or the writing of frames.
 *
 *     OPEN --- a close was sent ---> CLOSING
 *       | |                             |
 *       | +-- a close arrived, the peer +--> OVER
 *       |     broke the protocol, or its side ended
 *       +-- a close arrived, and is to be answered later --> PARTING -- ours was sent --> OVER
 *
 * Invariants: what happens depends on the octets and not on how they were cut: a frame's head is looked at from left to
 * right, each part as soon as it is whole, and a text or a compressed message is refused at its first wrong octet. A
 * message to the program is whole and within its bound, which is looked at before the octets are kept. In PARTING and OVER
 * nothing is read any more, and the program was told how it ended. */
#include "../base/mem.h"
#include "websocket_private.h"

#define STOPPED 1 /* the connection is over: an outcome, not an error */

bool iok_ws_code_is_valid(int64_t code)
{
    /* 7.4.1, and IANA's list up to 1014; 7.4.2: 1016 to 2999 are for later versions, 3000 to 4999 are free. */
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
}

struct iok_websocket *iok_ws_new(const struct iok_ws_options *options, struct iok_io *io)
{
    struct iok_websocket *ws = iok_calloc(sizeof(*ws));
    if (ws == NULL) {
        iok_io_fail(io, IOK_ENOMEM, "out of memory for a WebSocket");
        return NULL;
    }
    ws->options = *options;
    for (size_t i = 0; i < IOK_SHA256_BYTES && options->client; i += sizeof(uint64_t)) {
        uint64_t random = io->host->random(io);
        memcpy(ws->seed + i, &random, sizeof(random));
    }
    return ws;
}

void iok_ws_free(struct iok_websocket *ws)
{
    if (ws == NULL)
        return;
    ws_inflater_free(ws->inflater);
    ws_deflater_free(ws->deflater);
    iok_wipe(ws->seed, sizeof(ws->seed));
    iok_free(ws);
}

bool iok_ws_is_over(const struct iok_websocket *ws)
{
    return ws->state == WS_OVER;
}

bool iok_ws_is_closing(const struct iok_websocket *ws)
{
    return ws->state == WS_CLOSING;
}

/* ---- what the program is told ----------------------------------------------------------------------------------- */

static int no_memory(struct iok_io *io)
{
    return iok_io_fail(io, IOK_ENOMEM, "out of memory for a WebSocket message");
}

int ws_drop_message(struct iok_websocket *ws, struct iok_io *io)
{
    bool is_told = ws->is_told;
    ws->is_told = false;
    return is_told ? io->host->end(io, IOK_MSG_DROP) : 0;
}

/* The last message, and the connection's end; in PARTING it comes later. */
static int tell_close(struct iok_websocket *ws, struct iok_io *io, enum ws_state state, int64_t code,
                      struct iok_span reason, bool clean)
{
    int rc = ws_drop_message(ws, io);
    if (rc != 0)
        return rc;
    ws->state = (uint8_t)state;
    struct iok_tape *tape = ws->options.begin(io, true);
    iok_tape_head(tape, IOK_PUSH, 4);
    iok_tape_static(tape, IOK_TEXT, iok_span_of("close"));
    iok_tape_i64(tape, code);
    iok_tape_copy(tape, IOK_TEXT, 0, reason);
    iok_tape_bool(tape, clean);
    if (state == WS_OVER)
        io->host->closing(io);
    return io->host->end(io, IOK_MSG_LAST);
}

/* 7.1.7: the peer gets the code and the reason, and the connection is given up. STOPPED, or an error. */
static int give_up(struct iok_websocket *ws, struct iok_io *io, enum iok_ws_code code, const char *reason)
{
    int rc = ws->state == WS_OPEN ? ws_put_close(ws, io, code, iok_span_of(reason)) : 0;
    if (rc == 0)
        rc = tell_close(ws, io, WS_OVER, code, iok_span_of(reason), false);
    return rc != 0 ? rc : STOPPED;
}

/* 5.5.3: an answer to the latest ping says as much as answers to those before it. */
static int tell_pong(struct iok_websocket *ws, struct iok_io *io)
{
    if (!ws->told_pong.is_there || ws->is_told || ws->state != WS_OPEN)
        return 0;
    struct iok_tape *tape = ws->options.begin(io, false);
    if (tape == NULL)
        return 0;
    ws->told_pong.is_there = false;
    iok_tape_head(tape, IOK_PUSH, 2);
    iok_tape_static(tape, IOK_TEXT, iok_span_of("pong"));
    iok_tape_copy(tape, IOK_BYTES, 0, iok_span(ws->told_pong.bytes, ws->told_pong.n));
    return io->host->end(io, 0);
}

/* ---- control frames: 5.5 ---------------------------------------------------------------------------------------- */

static int take_close(struct iok_websocket *ws, struct iok_io *io, struct iok_span payload)
{
    int64_t code = payload.n >= 2 ? payload.p[0] << 8 | payload.p[1] : IOK_WS_NO_CODE;
    struct iok_span reason = payload.n >= 2 ? iok_span_skip(payload, 2) : iok_span(NULL, 0);
    if (payload.n == 1 || (payload.n >= 2 && !iok_ws_code_is_valid(code)))
        return give_up(ws, io, IOK_WS_PROTOCOL_ERROR, "a close with a code that cannot be one");
    if (!ws_utf8_is_valid(reason))
        return give_up(ws, io, IOK_WS_BAD_DATA, "a close with a reason that is not UTF-8");
    /* 5.5.1: what the program has to say of what came before may go out before our close. */
    bool later = ws->state == WS_OPEN && ws->options.close_later;
    ws->code = (uint16_t)code;
    int rc = ws->state == WS_OPEN && !later ? ws_put_close(ws, io, code, iok_span(NULL, 0)) : 0;
    if (rc == 0)
        rc = tell_close(ws, io, later ? WS_PARTING : WS_OVER, code, reason, true);
    return rc != 0 ? rc : STOPPED;
}

static int take_control(struct iok_websocket *ws, struct iok_io *io, uint8_t opcode, struct iok_span payload)
{
    switch (opcode) {
    case WS_CLOSE:
        return take_close(ws, io, payload);
    case WS_PING:
        return ws->state == WS_OPEN ? ws_put_pong(ws, io, payload) : 0;
    default:
        if (ws->beats && iok_span_eq(payload, iok_span_of(WS_BEAT))) {
            ws->beats = false;
            return 0;
        }
        ws->told_pong.is_there = true;
        ws->told_pong.n = (uint8_t)payload.n;
        if (payload.n > 0)
            memcpy(ws->told_pong.bytes, payload.p, payload.n);
        return tell_pong(ws, io);
    }
}

/* ---- messages --------------------------------------------------------------------------------------------------- */

static int too_big(struct iok_websocket *ws, struct iok_io *io)
{
    return give_up(ws, io, IOK_WS_TOO_BIG, "the message is too large");
}

/* The tape may be more narrow than the bound, by what its token takes. */
static int check_tape(struct iok_websocket *ws, struct iok_io *io)
{
    int rc = iok_tape_error(io->tape);
    if (rc == 0)
        return 0;
    return rc == IOK_ELIMIT ? too_big(ws, io) : no_memory(io);
}

static int check_text(struct iok_websocket *ws, struct iok_io *io, struct iok_span text)
{
    return ws_utf8_take(&ws->utf8, text) ? 0 : give_up(ws, io, IOK_WS_BAD_DATA, "the text is not UTF-8");
}

/* Octets of the message as the program gets them. */
static int take_octets(struct iok_websocket *ws, struct iok_io *io, struct iok_span octets)
{
    uint64_t room = ws->options.message_bytes_max - ws->message_bytes;
    struct iok_span fits = iok_span(octets.p, octets.n <= room ? octets.n : (size_t)room);
    int rc = ws->opcode == WS_TEXT ? check_text(ws, io, fits) : 0;
    if (rc != 0)
        return rc;
    if (fits.n < octets.n)
        return too_big(ws, io);
    ws->message_bytes += octets.n;
    if (ws->is_ended)
        iok_tape_fill_all(io->tape, octets);
    else
        iok_tape_fill(io->tape, octets);
    return check_tape(ws, io);
}

/* Whatever the inflater has to give. */
static int take_inflated(struct iok_websocket *ws, struct iok_io *io)
{
    uint8_t octets[2 * WS_SCRATCH_BYTES];
    for (;;) {
        size_t n;
        enum ws_inflate what = ws_inflate_some(ws->inflater, octets, sizeof(octets), &n);
        int rc = n > 0 ? take_octets(ws, io, iok_span(octets, n)) : 0;
        if (rc != 0)
            return rc;
        if (what == WS_INFLATE_DONE)
            return 0;
        if (what == WS_INFLATE_BAD)
            return give_up(ws, io, IOK_WS_BAD_DATA, "the message cannot be inflated");
        if (what == WS_INFLATE_NO_MEMORY)
            return no_memory(io);
    }
}

static int take_piece(struct iok_websocket *ws, struct iok_io *io, struct iok_span piece)
{
    if (!ws->is_told)
        return 0;
    if (!ws->is_deflated)
        return take_octets(ws, io, piece);
    ws_inflate_take(ws->inflater, piece);
    return take_inflated(ws, io);
}

static int end_inflated(struct iok_websocket *ws, struct iok_io *io)
{
    int rc = ws_inflate_end(ws->inflater) ? take_inflated(ws, io) : 0;
    if (rc == 0 && !ws_inflate_next(ws->inflater))
        return give_up(ws, io, IOK_WS_BAD_DATA, "the message cannot be inflated");
    return rc;
}

static int end_message(struct iok_websocket *ws, struct iok_io *io)
{
    int rc = ws->is_told && ws->is_deflated ? end_inflated(ws, io) : 0;
    if (rc != 0)
        return rc;
    if (ws->is_told && ws->opcode == WS_TEXT && ws->utf8.missing > 0)
        return give_up(ws, io, IOK_WS_BAD_DATA, "the text ends within a character");
    ws->opcode = 0;
    ws->is_deflated = false;
    ws->message_bytes = 0;
    if (!ws->is_told)
        return 0;
    if (ws->is_ended)
        iok_tape_shut(io->tape);
    ws->is_told = false;
    rc = io->host->end(io, 0);
    return rc != 0 ? rc : tell_pong(ws, io);
}

/* ---- frames: 5.2 ------------------------------------------------------------------------------------------------ */

struct head {
    uint8_t first, opcode;
    bool is_final, is_control, is_masked;
    uint64_t length;
    size_t bytes;
};

/* The first two octets. NULL: they can begin a frame here. */
static const char *check_start(const struct iok_websocket *ws, const struct head *head, uint8_t length)
{
    bool is_known = head->opcode <= WS_BINARY || (head->opcode >= WS_CLOSE && head->opcode <= WS_PONG);
    bool may_be_deflated = ws->options.deflate.on && (head->opcode == WS_TEXT || head->opcode == WS_BINARY);
    if ((head->first & WS_RSV & ~(may_be_deflated ? WS_RSV1 : 0)) != 0)
        return "a reserved bit is set";
    if (!is_known)
        return "an opcode that means nothing";
    if (head->is_masked == ws->options.client) /* 5.1 */
        return head->is_masked ? "a frame of a server with a mask" : "a frame of a client without a mask";
    if (head->is_control && (!head->is_final || length > IOK_WS_CONTROL_BYTES_MAX)) /* 5.5 */
        return "a control frame in parts, or of more than 125 octets";
    if (!head->is_control && (head->opcode == WS_CONTINUATION) != (ws->opcode != 0)) /* 5.4 */
        return ws->opcode != 0 ? "a message within another" : "a part of no message";
    return NULL;
}

static uint64_t big_endian(const uint8_t *p, size_t n)
{
    uint64_t value = 0;
    for (size_t i = 0; i < n; i++)
        value = value << 8 | p[i];
    return value;
}

/* 0: more octets are needed. STOPPED: there is none. */
static int read_head(struct iok_websocket *ws, struct iok_io *io, struct iok_span in, struct head *head)
{
    if (in.n < 2)
        return 0;
    uint8_t length = in.p[1] & (uint8_t)~WS_MASKED;
    *head = (struct head){.first = in.p[0], .opcode = in.p[0] & WS_OPCODE, .length = length};
    head->is_final = (in.p[0] & WS_FIN) != 0;
    head->is_control = head->opcode >= WS_CLOSE;
    head->is_masked = (in.p[1] & WS_MASKED) != 0;
    const char *wrong = check_start(ws, head, length);
    if (wrong != NULL)
        return give_up(ws, io, IOK_WS_PROTOCOL_ERROR, wrong);
    size_t extended = length == 126 ? 2 : length == 127 ? 8 : 0;
    if (in.n < 2 + extended)
        return 0;
    if (extended > 0)
        head->length = big_endian(in.p + 2, extended);
    if ((length == 126 && head->length < 126) || (length == 127 && head->length < 65536) || head->length > INT64_MAX)
        return give_up(ws, io, IOK_WS_PROTOCOL_ERROR, "a length in more octets than it needs, or of 64 bits");
    if (ws->state == WS_OPEN && !head->is_control && !ws->is_deflated && (head->first & WS_RSV1) == 0 &&
        head->length > ws->options.message_bytes_max - ws->message_bytes)
        return too_big(ws, io);
    head->bytes = 2 + extended + (head->is_masked ? 4 : 0);
    return 0;
}

static ptrdiff_t take_control_frame(struct iok_websocket *ws, struct iok_io *io, struct iok_span in,
                                    const struct head *head)
{
    uint8_t payload[IOK_WS_CONTROL_BYTES_MAX];
    size_t n = (size_t)head->length;
    if (in.n < head->bytes + n)
        return 0;
    if (head->is_masked)
        ws_mask(payload, in.p + head->bytes, n, in.p + head->bytes - 4, 0);
    else if (n > 0)
        memcpy(payload, in.p + head->bytes, n);
    int rc = take_control(ws, io, head->opcode, iok_span(payload, n));
    return rc < 0 ? rc : (ptrdiff_t)(head->bytes + n);
}

/* 0, or an error; STOPPED when there is no room for the message yet, which leaves all as it was. */
static int begin_message(struct iok_websocket *ws, struct iok_io *io, const struct head *head)
{
    bool is_deflated = (head->first & WS_RSV1) != 0;
    bool is_told = ws->state == WS_OPEN;
    if (is_told && is_deflated && ws->inflater == NULL) {
        const struct iok_ws_deflate *agreed = &ws->options.deflate;
        bool no_context = ws->options.client ? agreed->server_no_context : agreed->client_no_context;
        uint8_t bits = ws->options.client ? agreed->server_bits : agreed->client_bits;
        ws->inflater = ws_inflater_new(bits != 0 ? bits : 15, no_context);
        if (ws->inflater == NULL)
            return no_memory(io);
    }
    struct iok_tape *tape = is_told ? ws->options.begin(io, false) : NULL;
    if (is_told && tape == NULL)
        return STOPPED;
    ws->is_told = is_told;
    ws->opcode = head->opcode;
    ws->is_deflated = is_deflated;
    ws->is_ended = is_deflated || !head->is_final;
    if (!is_told)
        return 0;
    enum iok_type type = head->opcode == WS_TEXT ? IOK_TEXT : IOK_BYTES;
    if (ws->is_ended)
        iok_tape_open_ended(tape, type);
    else
        iok_tape_open(tape, type, 0, (size_t)head->length);
    return check_tape(ws, io);
}

static int end_frame(struct iok_websocket *ws, struct iok_io *io)
{
    ws->in_frame = false;
    return ws->is_final ? end_message(ws, io) : 0;
}

/* A frame's head, or a whole control frame. Octets used; 0: none now. */
static ptrdiff_t read_frame(struct iok_websocket *ws, struct iok_io *io, struct iok_span in)
{
    struct head head = {0};
    int rc = read_head(ws, io, in, &head);
    if (rc != 0)
        return rc < 0 ? rc : (ptrdiff_t)in.n;
    if (head.bytes == 0 || in.n < head.bytes)
        return 0;
    if (head.is_control)
        return take_control_frame(ws, io, in, &head);
    if (head.opcode != WS_CONTINUATION && (rc = begin_message(ws, io, &head)) != 0)
        return rc < 0 ? rc : ws->state == WS_OVER ? (ptrdiff_t)in.n : 0;
    ws->in_frame = true;
    ws->is_final = head.is_final;
    ws->left = head.length;
    ws->phase = 0;
    if (head.is_masked)
        memcpy(ws->mask, in.p + head.bytes - 4, 4);
    if (head.length == 0 && (rc = end_frame(ws, io)) < 0)
        return rc;
    return (ptrdiff_t)head.bytes;
}

static ptrdiff_t read_payload(struct iok_websocket *ws, struct iok_io *io, struct iok_span in)
{
    uint8_t scratch[WS_SCRATCH_BYTES];
    size_t used = 0, whole = in.n < ws->left ? in.n : (size_t)ws->left;
    int rc = 0;
    while (used < whole && rc == 0) {
        struct iok_span piece = iok_span(in.p + used, whole - used);
        if (!ws->options.client) {
            piece.n = piece.n < sizeof(scratch) ? piece.n : sizeof(scratch);
            ws_mask(scratch, piece.p, piece.n, ws->mask, ws->phase);
            piece.p = scratch;
        }
        rc = take_piece(ws, io, piece);
        used += piece.n;
        ws->phase += piece.n;
    }
    ws->left -= used;
    if (rc == 0 && ws->left == 0)
        rc = end_frame(ws, io);
    return rc < 0 ? rc : rc == STOPPED ? (ptrdiff_t)in.n : (ptrdiff_t)used;
}

ptrdiff_t iok_ws_feed(struct iok_websocket *ws, struct iok_io *io, struct iok_span in)
{
    size_t used = 0;
    int rc = tell_pong(ws, io);
    while (rc == 0 && used < in.n && ws->state < WS_PARTING) {
        struct iok_span rest = iok_span_skip(in, used);
        ptrdiff_t n = ws->in_frame ? read_payload(ws, io, rest) : read_frame(ws, io, rest);
        if (n < 0)
            return n;
        if (n == 0)
            break;
        used += (size_t)n;
    }
    if (rc == 0)
        rc = ws_put_owed_pong(ws, io);
    if (rc != 0)
        return rc;
    return ws->state >= WS_PARTING ? (ptrdiff_t)in.n : (ptrdiff_t)used;
}

int iok_ws_eof(struct iok_websocket *ws, struct iok_io *io)
{
    return iok_ws_lost(ws, io, iok_span(NULL, 0));
}

int iok_ws_lost(struct iok_websocket *ws, struct iok_io *io, struct iok_span why)
{
    return ws->state >= WS_PARTING ? 0 : tell_close(ws, io, WS_OVER, IOK_WS_ABNORMAL, why, false);
}
