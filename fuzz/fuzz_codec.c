/* fuzz_codec.c - one fuzzer for all codecs.
 *
 * Invariants: whatever the peer sends, a codec reads no byte that it was not given, keeps the contract of proto.h (the
 * kit's host stops at each breach), ends in success or in a clear error, and leaves nothing alive. What it does, to
 * the program and to the peer, does not depend on how the bytes were cut: each input is run whole and in pieces, and
 * both logs have to be the same.
 *
 * Input:  [codec][limits][seed of the cutting] then the peer's bytes, in which 0xff makes the next byte an action of
 * the program: a call from the list below, a cancelled caller, a ping, a reset, or the end of the connection. The
 * sign-in is answered by the fuzzer when bit 0 of limits is set, so that it gets beyond. */
#include <stdlib.h>

#include "../tests/kit/kit.c" /* by its source: no library of the fuzzers holds the kit */

#define ESCAPE 0xffu
#define PARTS_MAX 4u

static const struct {
    const char *url;
    const char *signed_in; /* what a server says to the sign-in */
} targets[] = {
    {"line://h:1", ""},
    {"redis://u:pw@h/3?client_name=n", "%0\r\n+OK\r\n+OK\r\n+OK\r\n"},
    {"redis://h?protocol=2", "+PONG\r\n+OK\r\n+OK\r\n"},
};

static const char *const calls[][PARTS_MAX] = {
    {"GET", "k"},
    {"SET", "k", "v"},
    {"SUBSCRIBE", "a", "b"},
    {"UNSUBSCRIBE", "a"},
    {"PSUBSCRIBE", "a"},
    {"SUNSUBSCRIBE", "a"},
    {"MONITOR"},
    {"MULTI"},
    {"EXEC"},
    {"RESET"},
    {"EVAL", "return", "0"},
    {"PING"},
    {"SUBSCRIBE"},
    {""},
    {"SSUBSCRIBE", "a"},
};

enum action {
    ACTION_CANCEL = sizeof(calls) / sizeof(*calls),
    ACTION_PING,
    ACTION_RESET,
    ACTION_EOF,
    ACTIONS,
};

static void call(struct kit_host *host, const char *const parts[PARTS_MAX])
{
    struct iok_token args[PARTS_MAX];
    size_t n = 0;
    for (; n < PARTS_MAX && parts[n] != NULL; n++)
        args[n] =
            (struct iok_token){.type = IOK_TEXT, .len = (uint32_t)strlen(parts[n]), .p = (const uint8_t *)parts[n]};
    kit_host_call(host, args, n);
}

static void act(struct kit_host *host, unsigned action)
{
    if (action < ACTION_CANCEL)
        call(host, calls[action]);
    else if (action == ACTION_CANCEL)
        kit_host_cancel(host);
    else if (action == ACTION_PING)
        kit_host_ping(host);
    else if (action == ACTION_RESET && host->proto->reset != NULL)
        kit_host_reset(host);
    else if (action == ACTION_EOF)
        kit_host_eof(host);
}

/* A generator of the pieces' sizes (xorshift32); 0 never occurs, and as a state means: uncut. */
static uint32_t next(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static void receive(struct kit_host *host, struct iok_span bytes, uint32_t *cutting)
{
    while (bytes.n > 0) {
        size_t n = *cutting == 0 ? bytes.n : 1 + next(cutting) % 7;
        n = n < bytes.n ? n : bytes.n;
        kit_host_recv(host, iok_span(bytes.p, n));
        bytes = iok_span_skip(bytes, n);
    }
}

/* Errors are compared by their code: the text may show what else had come. */
static void without_texts(struct kit_text *log, const struct kit_text *events)
{
    const char *line = events->n > 0 ? events->p : "";
    while (*line != '\0') {
        const char *end = strchr(line, '\n') + 1;
        bool error = strncmp(line, "error IOK_", 10) == 0 || strncmp(line, "refused IOK_", 12) == 0;
        const char *stop = error ? strchr(line, '"') : end;
        kit_text_put(log, line, (size_t)(stop - line));
        line = end;
    }
}

static void run(const uint8_t *data, size_t size, unsigned target, unsigned limits, uint32_t cutting,
                struct kit_text *log)
{
    struct kit_host host = {.abandon = (limits & 2) != 0};
    struct iok_span in = iok_span(data, size);
    bool tls;
    const char *url = targets[target].url;
    const struct iok_proto *proto = iok_proto_find(iok_span(url, strcspn(url, ":")), &tls);
    kit_host_open(&host, proto, url, (limits & 4) != 0 ? 300 : 1u << 20);
    if ((limits & 1) != 0)
        receive(&host, iok_span_of(targets[target].signed_in), &cutting);
    while (in.n > 0) {
        const uint8_t *escape = memchr(in.p, ESCAPE, in.n);
        size_t n = escape != NULL ? (size_t)(escape - in.p) : in.n;
        receive(&host, iok_span(in.p, n), &cutting);
        in = iok_span_skip(in, n);
        if (escape == NULL)
            break;
        if (in.n > 1)
            act(&host, in.p[1] % ACTIONS);
        in = iok_span_skip(in, in.n > 1 ? 2 : 1);
    }
    without_texts(log, &host.events);
    kit_text_quote(log, iok_span(host.sent.p, host.sent.n));
    if (!kit_host_close(&host))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kit_text whole = {0}, pieces = {0};
    if (size < 3)
        return 0;
    unsigned target = data[0] % (sizeof(targets) / sizeof(*targets));
    run(data + 3, size - 3, target, data[1], 0, &whole);
    run(data + 3, size - 3, target, data[1], data[2] + 1u, &pieces);
    if (whole.n != pieces.n || memcmp(whole.p, pieces.p, whole.n) != 0) {
        fprintf(stderr, "whole:\n%s\nin pieces:\n%s\n", whole.p, pieces.p);
        abort();
    }
    kit_text_free(&whole);
    kit_text_free(&pieces);
    return 0;
}
