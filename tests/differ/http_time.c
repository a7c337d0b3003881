/* http_time.c - what reading costs, for bench/codec: requests of a line and ten fields, through the server's role of our codec, to a tape.
 *
 * Prints nanoseconds for one, the least of the rounds, and instructions, where the machine counts them; else -1. */
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../../src/proto/proto.h"

#define REQUESTS 200000u
#define ROUNDS 7

struct host {
    struct iok_io io;
    struct iok_tape tape;
    struct iok_token tokens[48]; /* as many as the request needs */
    uint8_t bytes[1024];
};

static struct iok_tape *begin_push(struct iok_io *io)
{
    struct host *host = (struct host *)io;
    iok_tape_init(&host->tape, host->tokens, 48, host->bytes, sizeof(host->bytes), 1u << 20, NULL);
    io->tape = &host->tape;
    return io->tape;
}

static int end(struct iok_io *io, uint32_t flags)
{
    (void)flags;
    if (io->tape->n_tokens < 26 || iok_tape_error(io->tape) != 0)
        abort();
    iok_tape_deinit(io->tape);
    io->tape = NULL;
    return 0;
}

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int open_counter(void)
{
    struct perf_event_attr attr = {
        .type = PERF_TYPE_HARDWARE, .size = sizeof(attr), .config = PERF_COUNT_HW_INSTRUCTIONS, .exclude_kernel = 1};
    return (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
}

static long long count(int counter)
{
    long long value = 0;
    return counter >= 0 && read(counter, &value, sizeof(value)) == sizeof(value) ? value : 0;
}

int main(int argc, char **argv)
{
    static const struct iok_host callbacks = {.begin_push = begin_push, .end = end};
    static uint8_t request[8192];
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
    if (file == NULL)
        return 1;
    size_t n = fread(request, 1, sizeof(request), file);
    fclose(file);
    bool tls;
    const struct iok_proto_server *server = iok_proto_find(iok_span_of("http"), &tls)->server;
    static struct host host;
    struct iok_out out;
    iok_out_init(&out, NULL);
    host.io = (struct iok_io){.host = &callbacks, .out = &out, .max_reply = 1u << 20};
    void *state = calloc(1, server->state_size);
    const struct iok_token answer[] = {{.type = IOK_ARRAY, .len = 4},
                                       {.type = IOK_I64, .i = 204},
                                       {.type = IOK_NULL},
                                       {.type = IOK_ARRAY},
                                       {.type = IOK_NULL}};
    int counter = open_counter();
    double best = 0, answering = 0;
    long long instructions = 0;
    if (state == NULL || server->open(state, &host.io) != 0)
        return 1;
    for (int round = 0; round < ROUNDS; round++) {
        double start = now_ns(), took = 0;
        for (unsigned i = 0; i < REQUESTS; i += 200) {
            long long before = count(counter);
            start = now_ns();
            for (unsigned k = 0; k < 200; k++)
                if (server->feed(state, &host.io, iok_span(request, n)) != (ptrdiff_t)n)
                    return 1;
            took += now_ns() - start;
            instructions += count(counter) - before;
            start = now_ns();
            for (unsigned k = 0; k < 200; k++)
                if (server->answer(state, &host.io, answer, 5) != 0)
                    return 1;
            answering += now_ns() - start;
            iok_out_take(&out, iok_out_pending(&out));
        }
        best = round == 0 || took < best ? took : best;
    }
    printf("%.1f %.0f %.1f\n", best / REQUESTS, counter >= 0 ? (double)instructions / REQUESTS / ROUNDS : -1.0,
           answering / REQUESTS / ROUNDS);
    free(state);
    iok_out_deinit(&out);
    return 0;
}
