/* line.c - newline-terminated echo: the template codec, to read first and to copy.
 *
 * What it is: a request is one text, sent as a line; the answer is one line, given as bytes without its newline. It
 * has no sign-in, no commands and no state besides the limits below, so each function shows one slot of proto.h and
 * nothing else. What it is not: a protocol that anybody needs, except in tests and examples.
 *
 * Invariants: answers come in the order of requests; feed leaves at most one unfinished line unused, shorter than
 * LINE_BYTES_MAX; encode appends a whole request or nothing. */
#include "proto.h"

/* Without its newline. As much as a pipe holds on Linux; an echo server may well read by lines into a fixed buffer. */
#define LINE_BYTES_MAX 65536u

/* This protocol needs no memory; a codec may not have a state of size 0. */
struct line {
    uint8_t unused;
};

static int line_open(void *state, struct iok_io *io)
{
    (void)state;
    (void)io;
    return 0;
}

static void line_close(void *state)
{
    (void)state;
}

/* Both roles write lines. */
static int line_write(struct iok_io *io, const struct iok_token *tokens, size_t n)
{
    /* Look at everything before the first byte is appended: these errors end the call, and not the connection. */
    if (n != 1)
        return iok_io_fail(io, IOK_EINVAL, "a line message takes one argument, the line; %zu were given", n);
    if (tokens->type != IOK_TEXT && tokens->type != IOK_BYTES)
        return iok_io_fail(io, IOK_ETYPE, "a line is text or bytes");
    struct iok_span line = iok_token_span(tokens);
    if (line.n > LINE_BYTES_MAX)
        return iok_io_fail(io, IOK_ELIMIT, "a line of %zu bytes; at most %u are allowed", line.n, LINE_BYTES_MAX);
    if (line.n > 0 && memchr(line.p, '\n', line.n) != NULL)
        return iok_io_fail(io, IOK_EINVAL, "a line cannot hold a newline");

    /* By reference: the tape lives until the bytes are sent. Short ones are copied by iok_out_refer itself. */
    iok_out_refer(io->out, line);
    iok_out_put(io->out, iok_span("\n", 1));
    return io->out->error != 0 ? iok_io_fail(io, IOK_ENOMEM, "out of memory for a line") : 0;
}

static int line_encode(void *state, struct iok_io *io, const struct iok_token *args, size_t n,
                       struct iok_flight *flight)
{
    (void)state;
    (void)flight;
    return line_write(io, args, n);
}

static int line_answer(void *state, struct iok_io *io, const struct iok_token *reply, size_t n)
{
    (void)state;
    return line_write(io, reply, n);
}

/* One whole line: in the client's role it answers the oldest flight, in the server's it is a request. */
static int line_message(struct iok_io *io, struct iok_span line, bool reply)
{
    struct iok_tape *tape = reply ? io->host->begin_reply(io, IOK_SEQ_HEAD) : io->host->begin_push(io);
    if (tape == NULL)
        return iok_io_fail(io, IOK_EPROTO, "a line that answers no request");
    if (line.n > io->max_reply)
        return iok_io_fail(io, IOK_ELIMIT, "a line of %zu bytes; at most %zu are allowed", line.n, io->max_reply);
    iok_tape_copy(tape, IOK_BYTES, 0, line);
    if (iok_tape_error(tape) != 0)
        return iok_io_fail(io, iok_tape_error(tape), "cannot keep a line of %zu bytes", line.n);
    return io->host->end(io, IOK_MSG_LAST);
}

static ptrdiff_t line_read(struct iok_io *io, struct iok_span in, bool reply)
{
    size_t used = 0;
    while (used < in.n) {
        struct iok_span rest = iok_span_skip(in, used);
        const uint8_t *newline = memchr(rest.p, '\n', rest.n);
        size_t length = newline != NULL ? (size_t)(newline - rest.p) : rest.n;
        if (length > LINE_BYTES_MAX)
            return iok_io_fail(io, IOK_ELIMIT, "a line of more than %u bytes", LINE_BYTES_MAX);
        if (newline == NULL)
            break; /* the host presents it again, with more behind it */
        int rc = line_message(io, iok_span(rest.p, length), reply);
        if (rc < 0)
            return rc;
        used += length + 1;
    }
    return (ptrdiff_t)used;
}

static ptrdiff_t line_feed(void *state, struct iok_io *io, struct iok_span in)
{
    (void)state;
    return line_read(io, in, true);
}

static ptrdiff_t line_serve(void *state, struct iok_io *io, struct iok_span in)
{
    (void)state;
    return line_read(io, in, false);
}

/* An empty line is answered by an empty line. */
static int line_ping(void *state, struct iok_io *io, struct iok_flight *flight)
{
    (void)state;
    (void)flight;
    iok_out_put(io->out, iok_span("\n", 1));
    return io->out->error != 0 ? iok_io_fail(io, IOK_ENOMEM, "out of memory for a ping") : 0;
}

/* Every request may be repeated: an echo changes nothing. */
static void line_classify(const struct iok_token *args, size_t n, struct iok_class *out)
{
    (void)args;
    (void)n;
    *out = (struct iok_class){.flags = IOK_CLASS_REPEATABLE};
}

/* A line is all value, so people see only what kind of request it was. */
static size_t line_describe(const struct iok_token *args, size_t n, char *at, size_t cap)
{
    (void)args;
    (void)n;
    size_t length = cap < 4 ? cap : 4;
    memcpy(at, "line", length);
    return length;
}

static const struct iok_proto_server line_server = {
    .state_size = sizeof(struct line),
    .open = line_open,
    .feed = line_serve,
    .answer = line_answer,
    .close = line_close,
};

static const char *const line_schemes[] = {"line", NULL};

const struct iok_proto iok_proto_line = {
    .name = "line",
    .schemes = line_schemes,
    .default_port = 0, /* nobody assigned one: the URL must say */
    .flags = IOK_PROTO_IN_ORDER | IOK_PROTO_WHOLE,
    .state_size = sizeof(struct line),
    .default_connections = 1,
    .server = &line_server,
    .open = line_open,
    .encode = line_encode,
    .feed = line_feed,
    .close = line_close,
    .ping = line_ping,
    .classify = line_classify,
    .describe = line_describe,
};
