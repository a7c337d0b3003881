/* websocket_time.c - what reading WebSocket messages costs, for bench/codec: masked texts, through the server's role of our
 * codec, to tapes. A copy of the same size tells what this machine's memory allows.
 *
 * Prints nanoseconds for one, the least of the rounds: a text of 32 octets, one of 64 KiB in ASCII, one of 64 KiB in Greek,
 * one of 1 KiB to send, compressed, and read again, and a copy of 64 KiB. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../../src/proto/websocket.h"

#define LARGE 65536u
#define SMALL 32u
#define ROUNDS 9

struct host {
    struct iok_io io;
    struct iok_tape tape;
    struct iok_token tokens[4];
    uint8_t bytes[2048];
    unsigned messages;
};

static struct iok_tape *begin(struct iok_io *io, bool last)
{
    struct host *host = (struct host *)io;
    (void)last;
    iok_tape_init(&host->tape, host->tokens, 4, host->bytes, sizeof(host->bytes), 1u << 20, NULL);
    io->tape = &host->tape;
    return io->tape;
}

static int end(struct iok_io *io, uint32_t flags)
{
    (void)flags;
    ((struct host *)io)->messages++;
    iok_tape_deinit(io->tape);
    io->tape = NULL;
    return 0;
}

static void closing(struct iok_io *io)
{
    (void)io;
}

static uint64_t any(struct iok_io *io)
{
    (void)io;
    return 4; /* by a fair die */
}

static const struct iok_host callbacks = {.end = end, .closing = closing, .random = any};

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static struct iok_websocket *open_one(struct host *host, struct iok_out *out, bool client)
{
    struct iok_ws_options options = {.client = client,
                                     .message_bytes_max = 1u << 20,
                                     .deflate = {.on = true, .server_bits = 12, .client_bits = 12},
                                     .deflate_bytes_min = 1024,
                                     .deflate_bytes_max = 1024,
                                     .begin = begin};
    iok_out_init(out, NULL);
    host->io = (struct iok_io){.host = &callbacks, .out = out, .max_reply = 1u << 20};
    struct iok_websocket *ws = iok_ws_new(&options, &host->io);
    if (ws == NULL)
        abort();
    return ws;
}

/* What a client of ours sends, to a server of ours: the time of the reading, or of both if it is compressed. */
static double measure(struct iok_span text, unsigned n, bool both)
{
    static struct host clients, servers;
    struct iok_out to_server, to_client;
    struct iok_websocket *client = open_one(&clients, &to_server, true),
                         *server = open_one(&servers, &to_client, false);
    double best = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        double took = 0;
        for (unsigned i = 0; i < n; i++) {
            struct iovec frame;
            double start = now_ns(), sent;
            if (iok_ws_send(client, &clients.io, true, text, IOK_WS_FIRST | IOK_WS_LAST) != 0)
                abort();
            sent = now_ns();
            iok_out_peek(&to_server, &frame, 1);
            if (iok_ws_feed(server, &servers.io, iok_span(frame.iov_base, frame.iov_len)) != (ptrdiff_t)frame.iov_len)
                abort();
            took += now_ns() - (both ? start : sent);
            iok_out_take(&to_server, frame.iov_len);
        }
        best = round == 0 || took < best ? took : best;
    }
    if (servers.messages != ROUNDS * n)
        abort();
    servers.messages = 0;
    iok_ws_free(client);
    iok_ws_free(server);
    iok_out_deinit(&to_server);
    iok_out_deinit(&to_client);
    return best / n;
}

static double measure_copy(const uint8_t *from, uint8_t *to, unsigned n)
{
    double best = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        double start = now_ns();
        for (unsigned i = 0; i < n; i++) {
            memcpy(to, from, LARGE);
            __asm__ volatile("" : : "r"(to) : "memory"); /* the copy is wanted */
        }
        double took = now_ns() - start;
        best = round == 0 || took < best ? took : best;
    }
    return best / n;
}

int main(void)
{
    static uint8_t ascii[LARGE], greek[LARGE], copy[LARGE];
    static const char record[] = "{\"name\": \"value\", \"number\": 0000, \"list\": [1, 2, 3]}, ";
    memset(ascii, 'a', LARGE);
    for (size_t i = 0; i < LARGE; i += 2)
        memcpy(greek + i, i % 16 == 14 ? ", " : "\xce\xba", 2);
    double small = measure(iok_span(ascii, SMALL), 20000, false);
    double large = measure(iok_span(ascii, LARGE), 500, false);
    double other = measure(iok_span(greek, LARGE), 500, false);
    for (size_t i = 0; i < 1024; i++)
        ascii[i] = (uint8_t)(record[i % (sizeof(record) - 1)] +
                             (record[i % (sizeof(record) - 1)] == '0' ? (int)(i * 7 % 10) : 0));
    double deflated = measure(iok_span(ascii, 1024), 2000, true);
    printf("%.1f %.0f %.0f %.0f %.0f\n", small, large, other, deflated, measure_copy(greek, copy, 2000));
    return 0;
}
