/* websocket.c - see websocket.h. As kit.c, it allocates by malloc, so that only the codec's allocations are counted. */
#include "websocket.h"

#include <stdio.h>
#include <stdlib.h>

#define STOP(...) (fprintf(stderr, "the codec broke the contract: " __VA_ARGS__), fputc('\n', stderr), abort())

/* A head without its last octet, or a control frame without. */
#define LEFT_MAX (14u + 125u)

static struct ws_peer *peer_of(struct iok_io *io)
{
    return (struct ws_peer *)io;
}

/* ---- what the host gives ---------------------------------------------------------------------------------------- */

static struct iok_tape *on_begin(struct iok_io *io, bool last)
{
    struct ws_peer *peer = peer_of(io);
    if (peer->is_open)
        STOP("a message was begun within another");
    if (peer->is_full && !last)
        return NULL;
    peer->is_open = true;
    iok_tape_reset(&peer->tape, peer->tokens, sizeof(peer->tokens) / sizeof(*peer->tokens));
    io->tape = &peer->tape;
    return io->tape;
}

static int on_end(struct iok_io *io, uint32_t flags)
{
    struct ws_peer *peer = peer_of(io);
    struct iok_tape *tape = io->tape;
    if (!peer->is_open)
        STOP("a message was ended that was not begun");
    peer->is_open = false;
    io->tape = NULL;
    if ((flags & IOK_MSG_DROP) != 0) {
        kit_text_print(&peer->log, "dropped\n");
        return 0;
    }
    if (tape == &peer->discarding)
        return 0;
    if (iok_tape_error(tape) != 0)
        return iok_io_fail(io, iok_tape_error(tape), "the message does not fit");
    if (tape->n_tokens == 0 || iok_tape_skip(tape->tokens, tape->n_tokens, 0) != tape->n_tokens)
        STOP("a message of %u tokens is not one value", tape->n_tokens);
    if ((flags & IOK_MSG_LAST) != 0)
        kit_text_print(&peer->log, "last");
    kit_text_tokens(&peer->log, tape->tokens, tape->n_tokens);
    kit_text_put(&peer->log, "\n", 1);
    return 0;
}

static void on_closing(struct iok_io *io)
{
    kit_text_print(&peer_of(io)->log, "closing\n");
}

static uint64_t on_random(struct iok_io *io)
{
    return UINT64_C(0x9e3779b97f4a7c15) * ++peer_of(io)->randoms;
}

static const struct iok_host callbacks = {.end = on_end, .closing = on_closing, .random = on_random};

/* ---- what is done to it ----------------------------------------------------------------------------------------- */

/* The peer takes all that was sent. */
static void take_output(struct ws_peer *peer)
{
    struct iovec vec[8];
    for (int n; (n = iok_out_peek(&peer->out, vec, 8)) > 0;) {
        size_t taken = 0;
        for (int i = 0; i < n; taken += vec[i++].iov_len)
            kit_text_put(&peer->sent, vec[i].iov_base, vec[i].iov_len);
        iok_out_take(&peer->out, taken);
    }
}

void ws_peer_note(struct ws_peer *peer, int rc)
{
    if (rc < 0) {
        if (peer->io.err.code != rc || peer->io.err.text[0] == '\0')
            STOP("%s without a text", iok_errno_name(rc));
        kit_text_print(&peer->log, "error %s\n", iok_errno_name(rc));
        bool soft = rc == IOK_EINVAL || rc == IOK_ETYPE || rc == IOK_ELIMIT || rc == IOK_ESTATE;
        peer->failed = soft ? 0 : rc;
    }
    if (peer->out.error != 0 && peer->failed == 0)
        STOP("output was lost without a word");
}

void ws_peer_open(struct ws_peer *peer, const struct iok_ws_options *options, size_t max_reply)
{
    *peer = (struct ws_peer){.options = *options};
    iok_out_init(&peer->out, &peer->account);
    iok_tape_init(&peer->tape, peer->tokens, 2, peer->bytes, sizeof(peer->bytes), max_reply, &peer->account);
    iok_tape_init(&peer->discarding, NULL, 0, NULL, 0, max_reply, NULL);
    peer->discarding.discard = true;
    peer->io = (struct iok_io){.host = &callbacks, .out = &peer->out, .max_reply = max_reply};
    peer->options.begin = on_begin;
    peer->ws = iok_ws_new(&peer->options, &peer->io);
    ws_peer_note(peer, peer->ws == NULL ? IOK_ENOMEM : 0);
}

static void feed(struct ws_peer *peer)
{
    /* In memory of exactly that size, so that sanitizers see each look beyond. */
    uint8_t *exact = malloc(peer->left.n > 0 ? peer->left.n : 1);
    if (exact == NULL)
        abort();
    if (peer->left.n > 0)
        memcpy(exact, peer->left.p, peer->left.n);
    ptrdiff_t used = iok_ws_feed(peer->ws, &peer->io, iok_span(exact, peer->left.n));
    free(exact);
    ws_peer_note(peer, used < 0 ? (int)used : 0);
    if (used < 0)
        return;
    if ((size_t)used > peer->left.n)
        STOP("more octets used than there are");
    peer->left.n -= (size_t)used;
    if (peer->left.n > 0)
        memmove(peer->left.p, peer->left.p + used, peer->left.n);
    if (peer->left.n >= LEFT_MAX && !peer->is_full)
        STOP("%zu octets were left", peer->left.n);
    if (peer->is_hasty && peer->is_open)
        peer->io.tape = &peer->discarding;
}

void ws_peer_recv(struct ws_peer *peer, struct iok_span bytes)
{
    if (peer->failed != 0)
        return;
    kit_text_put(&peer->left, bytes.p, bytes.n);
    feed(peer);
}

void ws_peer_eof(struct ws_peer *peer)
{
    if (peer->failed == 0)
        ws_peer_note(peer, iok_ws_eof(peer->ws, &peer->io));
}

bool ws_peer_close(struct ws_peer *peer)
{
    if (peer->ws != NULL && peer->failed == 0 && iok_ws_is_over(peer->ws) && peer->is_open)
        STOP("it is over, and a message is open");
    iok_ws_free(peer->ws);
    iok_tape_deinit(&peer->tape);
    iok_tape_deinit(&peer->discarding);
    iok_out_deinit(&peer->out);
    kit_text_free(&peer->left);
    kit_text_free(&peer->log);
    kit_text_free(&peer->sent);
    return iok_count_get(&peer->account.bytes) == 0 && iok_count_get(&peer->account.buffers) == 0;
}

/* ---- frames ----------------------------------------------------------------------------------------------------- */

void ws_kit_frame(struct kit_text *to, bool masked, uint8_t first, struct iok_span payload)
{
    size_t n = payload.n < 126 ? 0 : payload.n < 65536 ? 2 : 8;
    uint8_t mask[4] = {(uint8_t)(0x37 + payload.n), 0xfa, 0x21, 0x3d};
    uint8_t head[10] = {first, (uint8_t)((masked ? 0x80 : 0) | (n == 0 ? payload.n : n == 2 ? 126 : 127))};
    for (size_t i = 0; i < n; i++)
        head[2 + i] = (uint8_t)(payload.n >> 8 * (n - 1 - i));
    kit_text_put(to, head, 2 + n);
    if (masked)
        kit_text_put(to, mask, 4);
    for (size_t i = 0; i < payload.n; i++)
        kit_text_put(to, &(uint8_t){(uint8_t)(payload.p[i] ^ (masked ? mask[i % 4] : 0))}, 1);
}

static void put_payload(struct kit_text *to, const uint8_t *p, size_t n)
{
    if (n < 100) {
        struct kit_text quoted = {0};
        kit_text_quote(&quoted, iok_span(p, n));
        kit_text_put(to, quoted.p + 1, quoted.n - 2);
        kit_text_free(&quoted);
        return;
    }
    for (size_t i = 1; i < n; i++)
        if (p[i] != p[0]) {
            kit_text_print(to, "%zu octets", n);
            return;
        }
    kit_text_print(to, "*%zu %c", n, p[0]);
}

void ws_kit_lines(struct kit_text *to, bool from_client, struct iok_span frames)
{
    while (frames.n > 0) {
        const uint8_t *p = frames.p;
        size_t extended = (p[1] & 127) == 126 ? 2 : (p[1] & 127) == 127 ? 8 : 0, length = p[1] & 127;
        size_t head = 2 + extended + (from_client ? 4 : 0);
        if (((p[1] & 128) != 0) != from_client || frames.n < head)
            STOP("a frame without or with a mask, or not whole");
        for (size_t i = length = extended > 0 ? 0 : length; i < extended; i++)
            length = length << 8 | p[2 + i];
        if (frames.n - head < length || (extended == 2 && length < 126) || (extended == 8 && length < 65536))
            STOP("a frame that is not whole, or whose length has too many octets");
        uint8_t *payload = malloc(length + 1);
        if (payload == NULL)
            abort();
        for (size_t i = 0; i < length; i++)
            payload[i] = (uint8_t)(p[head + i] ^ (from_client ? p[head - 4 + i % 4] : 0));
        kit_text_print(to, "%02x", p[0]);
        kit_text_put(to, " ", length > 0);
        put_payload(to, payload, length);
        kit_text_put(to, "\n", 1);
        free(payload);
        frames = iok_span_skip(frames, head + length);
    }
}

/* ---- plays ------------------------------------------------------------------------------------------------------ */

/* With \xNN for octets, and *N c for N times c. */
static void read_payload(struct kit_text *to, const char *text, size_t n)
{
    if (n > 1 && text[0] == '*') {
        char *end;
        size_t count = strtoul(text + 1, &end, 10);
        while (count-- > 0)
            kit_text_put(to, end + 1, 1);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        char hex[3] = {0};
        if (i + 3 < n && text[i] == '\\' && text[i + 1] == 'x') {
            memcpy(hex, text + i + 2, 2);
            kit_text_put(to, &(uint8_t){(uint8_t)strtoul(hex, NULL, 16)}, 1);
            i += 3;
        } else {
            kit_text_put(to, text + i, 1);
        }
    }
}

struct playing {
    struct ws_peer *peer;
    enum ws_cut cut;
    uint64_t random;
    size_t received, end;
};

static void receive(struct playing *p, struct iok_span bytes)
{
    while (bytes.n > 0 && p->received < p->end) {
        size_t n = bytes.n;
        if (p->cut == WS_CUT_BYTES)
            n = 1;
        if (p->cut == WS_CUT_PIECES) {
            p->random = p->random * UINT64_C(6364136223846793005) + 1; /* Knuth's MMIX */
            n = 1 + (p->random >> 33) % (bytes.n < 30 ? 7 : bytes.n / 3);
        }
        n = n < bytes.n ? n : bytes.n;
        n = n < p->end - p->received ? n : p->end - p->received;
        ws_peer_recv(p->peer, iok_span(bytes.p, n));
        p->received += n;
        bytes = iok_span_skip(bytes, n);
    }
}

static bool is_word(const char *line, size_t n, const char *word, struct iok_span *rest)
{
    size_t length = strlen(word);
    if (n < length || memcmp(line, word, length) != 0 || (n > length && line[length] != ' '))
        return false;
    *rest = iok_span(line + length + (n > length), n - length - (n > length));
    return true;
}

static void send(struct ws_peer *peer, const char *line, size_t n)
{
    static const struct {
        const char *word;
        bool text;
        uint32_t parts;
    } parts[] = {{"text", true, 3}, {"bytes", false, 3},  {"first", true, 1},  {"next", true, 0},
                 {"last", true, 2}, {"bfirst", false, 1}, {"bnext", false, 0}, {"blast", false, 2}};
    struct kit_text bytes = {0};
    struct iok_span rest = iok_span(NULL, 0);
    struct iok_token message[4] = {{.type = IOK_PUSH, .len = 1}, {.type = IOK_TEXT}};
    int rc = 1;
    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts) && rc == 1; i++)
        if (is_word(line, n, parts[i].word, &rest)) {
            read_payload(&bytes, (const char *)rest.p, rest.n);
            rc = iok_ws_send(peer->ws, &peer->io, parts[i].text, iok_span(bytes.p, bytes.n), parts[i].parts);
        }
    if (rc == 1 && line[0] == '*') {
        read_payload(&bytes, line, n);
        message[0] = (struct iok_token){.type = IOK_TEXT, .len = (uint32_t)bytes.n, .p = (const uint8_t *)bytes.p};
        rc = iok_ws_write(peer->ws, &peer->io, message, 1);
    } else if (rc == 1 && is_word(line, n, "close", &rest)) {
        char *reason = NULL;
        message[1] = (struct iok_token){.type = IOK_TEXT, .len = 5, .p = (const uint8_t *)"close"};
        message[2] = (struct iok_token){.type = IOK_I64};
        message[3] = (struct iok_token){.type = IOK_TEXT};
        if (rest.n > 0)
            message[2].i = strtol((const char *)rest.p, &reason, 10);
        if (reason != NULL && *reason == ' ')
            read_payload(&bytes, reason + 1, (size_t)(line + n - reason - 1));
        message[3].p = (const uint8_t *)bytes.p;
        message[3].len = (uint32_t)bytes.n;
        message[0].len = rest.n == 0 ? 1 : bytes.n == 0 ? 2 : 3;
        rc = iok_ws_write(peer->ws, &peer->io, message, 1 + message[0].len);
    } else if (rc == 1 && (is_word(line, n, "ping", &rest) || is_word(line, n, "pong", &rest))) {
        read_payload(&bytes, (const char *)rest.p, rest.n);
        message[0].len = 2;
        message[1] = (struct iok_token){.type = IOK_TEXT, .len = 4, .p = (const uint8_t *)line};
        message[2] = (struct iok_token){.type = IOK_BYTES, .len = (uint32_t)bytes.n, .p = (const uint8_t *)bytes.p};
        rc = iok_ws_write(peer->ws, &peer->io, message, 3);
    }
    if (rc == 1)
        STOP("what is \"%.*s\" in a play?", (int)n, line);
    ws_peer_note(peer, rc);
    if (iok_out_own(&peer->out, peer->out.taken, peer->out.appended) != 0) /* what was lent goes away */
        peer->failed = IOK_ENOMEM;
    kit_text_free(&bytes);
}

static void act(struct playing *p, const char *line, size_t n)
{
    struct ws_peer *peer = p->peer;
    struct iok_span rest;
    if (peer->failed != 0 || p->received == p->end)
        return;
    if (is_word(line, n, "eof", &rest)) {
        ws_peer_eof(peer);
    } else if (is_word(line, n, "taken", &rest)) {
        take_output(peer);
    } else if (is_word(line, n, "full", &rest) || is_word(line, n, "room", &rest)) {
        peer->is_full = line[0] == 'f';
        feed(peer);
    } else {
        send(peer, line, n);
    }
}

size_t ws_kit_play(struct ws_peer *peer, const char *play, enum ws_cut cut, uint64_t param)
{
    struct playing p = {.peer = peer, .cut = cut, .random = param, .end = cut == WS_CUT_END ? param : SIZE_MAX};
    while (*play != '\0') {
        size_t n = strcspn(play, "\n");
        struct kit_text bytes = {0}, payload = {0};
        if (play[0] == '>') {
            act(&p, play + 2, n - 2);
        } else if (play[0] == '=') {
            for (size_t i = 2; i + 1 < n; i += 2)
                kit_text_put(&bytes, &(uint8_t){(uint8_t)strtoul((char[]){play[i], play[i + 1], 0}, NULL, 16)}, 1);
        } else {
            if (n > 3)
                read_payload(&payload, play + 3, n - 3);
            ws_kit_frame(&bytes, !peer->options.client, (uint8_t)strtoul((char[]){play[0], play[1], 0}, NULL, 16),
                         iok_span(payload.p, payload.n));
        }
        receive(&p, iok_span(bytes.p, bytes.n));
        kit_text_free(&bytes);
        kit_text_free(&payload);
        play += n + (play[n] == '\n');
    }
    if (cut == WS_CUT_END)
        ws_peer_eof(peer);
    if (peer->failed == 0)
        take_output(peer);
    return p.received;
}
