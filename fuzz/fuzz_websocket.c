/* fuzz_websocket.c - WebSocket connections in both roles, and their opening.
 *
 * Invariants: whatever the peer sends and the program does, the codec keeps the contract (the host of the kit stops at each
 * breach), what it sends is what its role has to send, and nothing stays alive, also when an allocation fails. What it does
 * does not depend on how the octets were cut: whole, in random pieces and byte by byte give the same logs. Fields of an
 * opening are taken, or refused with a text.
 *
 * Input:  [flags][seed of the cutting][failing allocation] then pieces: 0 an octet of a program's action and 8 of its
 * payload, 1 a frame [first octet, length, payload], made with the mask that it needs, 2 the same with many of its first
 * octet, else octets as they are [length, octets]. Or, by a flag: the fields of an opening as text. */
#include "../tests/kit/websocket.h"
#include "runs.h"

#define HEADER 3u
#define MAX 600u /* octets of a message, which inputs of that size can cross */
#define FIELDS_MAX 64u

enum flags {
    FLAG_CLIENT = 1,
    FLAG_DEFLATE = 2,
    FLAG_NO_CONTEXT = 4,
    FLAG_HASTY = 8,
    FLAG_NARROW = 16, /* windows of 2^9 */
    FLAG_OPENING = 32,
};

static void receive(struct ws_peer *peer, struct iok_span bytes, uint32_t *cutting)
{
    while (bytes.n > 0 && peer->failed == 0)
        ws_peer_recv(peer, fuzz_piece(&bytes, cutting));
}

/* What was lent goes away at once. */
static void act(struct ws_peer *peer, uint8_t action, struct iok_span payload)
{
    int rc;
    if (peer->failed != 0)
        return;
    if ((action & 7) < 4)
        rc = iok_ws_send(peer->ws, &peer->io, (action & 8) != 0, payload, action & 3);
    else if ((action & 7) == 4)
        rc = iok_ws_close(peer->ws, &peer->io, 995 + (action >> 3), payload);
    else if ((action & 7) == 5)
        rc = iok_ws_ping(peer->ws, &peer->io, payload);
    else
        rc = iok_ws_eof(peer->ws, &peer->io);
    ws_peer_note(peer, rc);
    if (peer->failed == 0 && iok_out_own(&peer->out, peer->out.taken, peer->out.appended) != 0)
        peer->failed = IOK_ENOMEM;
}

static void take_frame(struct ws_peer *peer, struct iok_span *in, bool many, uint32_t *cutting)
{
    struct kit_text bytes = {0};
    struct iok_span head = fuzz_take(in, 2);
    if (head.n < 2)
        return;
    size_t length = head.p[1];
    uint8_t *repeated = many ? malloc(8 * length + 1) : NULL;
    struct iok_span payload = many ? iok_span(repeated, 8 * length) : fuzz_take(in, length);
    if (many)
        memset(repeated, in->n > 0 ? in->p[0] : 'a', 8 * length);
    ws_kit_frame(&bytes, !peer->options.client, head.p[0], payload);
    receive(peer, iok_span(bytes.p, bytes.n), cutting);
    kit_text_free(&bytes);
    free(repeated);
}

static void run(const uint8_t *header, struct iok_span in, uint32_t cutting, struct kit_text *log)
{
    struct ws_peer peer;
    unsigned flags = header[0];
    bool no_context = (flags & FLAG_NO_CONTEXT) != 0;
    uint8_t bits = (flags & FLAG_NARROW) != 0 ? 9 : 15;
    struct iok_ws_options options = {
        .client = (flags & FLAG_CLIENT) != 0,
        .message_bytes_max = MAX,
        .deflate = {(flags & FLAG_DEFLATE) != 0, no_context, no_context, bits, bits},
        .deflate_bytes_min = 4,
        .deflate_bytes_max = MAX,
    };
    ws_peer_open(&peer, &options, 2 * MAX);
    peer.is_hasty = (flags & FLAG_HASTY) != 0;
    while (in.n > 0 && peer.failed == 0) {
        uint8_t what = fuzz_take(&in, 1).p[0];
        if (what == 0 && in.n > 0) {
            uint8_t action = fuzz_take(&in, 1).p[0];
            act(&peer, action, fuzz_take(&in, 8));
        } else if (what == 1 || what == 2) {
            take_frame(&peer, &in, what == 2, &cutting);
        } else {
            receive(&peer, fuzz_take(&in, what), &cutting);
        }
    }
    if (!peer.is_hasty) /* what is discarded depends on when it came */
        kit_text_put(log, peer.log.p, peer.log.n);
    kit_text_put(log, "--\n", 3);
    if (peer.failed == 0) {
        ws_kit_play(&peer, "", WS_CUT_NOT, 0);
        ws_kit_lines(log, options.client, iok_span(peer.sent.p, peer.sent.n));
    }
    if (!ws_peer_close(&peer))
        abort();
}

/* ---- openings --------------------------------------------------------------------------------------------------- */

static size_t read_fields(struct iok_span in, struct iok_token fields[FIELDS_MAX])
{
    size_t n = 0;
    while (in.n > 0 && n < FIELDS_MAX) {
        const uint8_t *newline = memchr(in.p, '\n', in.n);
        struct iok_span word = fuzz_take(&in, newline != NULL ? (size_t)(newline - in.p) : in.n);
        fuzz_take(&in, 1);
        fields[n++] = (struct iok_token){.type = IOK_BYTES, .len = (uint32_t)word.n, .p = word.p};
    }
    return n - n % 2;
}

static void check_deflate(const struct iok_ws_opening *opening)
{
    const struct iok_ws_deflate *agreed = &opening->deflate;
    if (agreed->on != (opening->n_extensions > 0) || opening->n_extensions > sizeof(opening->extensions))
        abort();
    if (agreed->on &&
        (agreed->server_bits < 8 || agreed->server_bits > 15 || agreed->client_bits < 8 || agreed->client_bits > 15))
        abort();
}

static void open_both(unsigned flags, struct iok_span in)
{
    struct iok_token fields[FIELDS_MAX];
    uint8_t bits = (flags & FLAG_NARROW) != 0 ? 9 : 0;
    bool no_context = (flags & FLAG_NO_CONTEXT) != 0;
    struct iok_ws_deflate wish = {(flags & FLAG_DEFLATE) != 0, no_context, no_context, bits, bits};
    struct iok_ws_request request = {iok_span_of("GET"), 1, fields, read_fields(in, fields)};
    struct iok_ws_opening opening;
    struct iok_error err = {0};
    int status = 0;
    int rc = iok_ws_read_request(&err, &request, &wish, &opening, &status);
    if (rc == 0)
        check_deflate(&opening);
    else if (err.code != rc || strlen(err.text) < 10 || (status != 400 && status != 426))
        abort();
    iok_ws_offers(&request, iok_span_of("chat"));
    err = (struct iok_error){0};
    rc = iok_ws_read_reply(&err, fields, request.n, "dGhlIHNhbXBsZSBub25jZQ==", iok_span_of("chat, v2"), &wish,
                           &opening);
    if (rc == 0)
        check_deflate(&opening);
    else if (err.code != rc || strlen(err.text) < 10)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEADER)
        return 0;
    struct iok_span in = iok_span(data + HEADER, size - HEADER);
    if ((data[0] & FLAG_OPENING) != 0) {
        open_both(data[0], in);
        return 0;
    }
    return fuzz_runs(run, data, in, data[1], data[2]);
}
