/* The line codec's two roles against each other: what the client's encodes, the server's reads as the same request, and
 * what the server's answers, the client's reads as the same reply, however the bytes are cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../src/base/mem.h"
#include "../../src/proto/proto.h"

/* A host of either role that keeps the last message. */
struct end {
    struct iok_io io;
    struct iok_out out;
    struct iok_tape tape;
    struct iok_token tokens[4];
    uint8_t bytes[128];
    unsigned messages;
    unsigned flights; /* client: requests without an answer */
};

static struct end *end_of(struct iok_io *io)
{
    return (struct end *)(void *)io; /* io is first */
}

static struct iok_tape *begin(struct iok_io *io)
{
    struct end *end = end_of(io);

    iok_tape_deinit(&end->tape);
    iok_tape_init(&end->tape, end->tokens, 4, end->bytes, sizeof(end->bytes), io->max_reply, NULL);
    return &end->tape;
}

static struct iok_tape *begin_reply(struct iok_io *io, uint64_t seq)
{
    (void)seq;
    return end_of(io)->flights == 0 ? NULL : begin(io);
}

static int finish(struct iok_io *io, uint32_t flags)
{
    assert_int_equal(flags, IOK_MSG_LAST);
    end_of(io)->messages++;
    end_of(io)->flights -= end_of(io)->flights > 0;
    return 0;
}

static const struct iok_host host = {.begin_reply = begin_reply, .begin_push = begin, .end = finish};

static void end_init(struct end *end)
{
    *end = (struct end){.io = {.host = &host, .max_reply = 1 << 20}};
    iok_out_init(&end->out, NULL);
    end->io.out = &end->out;
}

static void end_deinit(struct end *end)
{
    iok_tape_deinit(&end->tape);
    iok_out_deinit(&end->out);
}

typedef ptrdiff_t feed_fn(void *state, struct iok_io *io, struct iok_span in);

/* All pending bytes of from go to the other side, step at a time, with what feed leaves presented again. */
static ptrdiff_t carry(struct end *from, struct end *to, feed_fn *feed, size_t step)
{
    struct iovec vec[4];
    uint8_t waiting[256];
    size_t n = 0;

    while (iok_out_peek(&from->out, vec, 4) > 0) {
        size_t piece = vec[0].iov_len < step ? vec[0].iov_len : step;
        ptrdiff_t used;

        assert_true(n + piece <= sizeof(waiting));
        memcpy(waiting + n, vec[0].iov_base, piece);
        n += piece;
        iok_out_take(&from->out, piece);
        used = feed(NULL, &to->io, iok_span(waiting, n));
        if (used < 0) {
            return used;
        }
        n -= (size_t)used;
        memmove(waiting, waiting + used, n);
    }
    return 0;
}

static void test_round_trip(void **state)
{
    const struct iok_proto *proto = iok_proto_find(iok_span_of("line"), &(bool){false});
    static const char *const lines[] = {"", "x", "a line with blanks", "\xff\x01 octets \r"};

    (void)state;
    for (size_t step = 1; step < 40; step++) {
        struct end client, server;

        end_init(&client);
        end_init(&server);
        for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
            struct iok_span line = iok_span_of(lines[i]);
            struct iok_token token = {.type = IOK_BYTES, .len = (uint32_t)line.n, .p = line.p};

            assert_int_equal(proto->encode(NULL, &client.io, &token, 1, &(struct iok_flight){0}), 0);
            client.flights++;
            assert_int_equal(carry(&client, &server, proto->server->feed, step), 0);
            assert_int_equal(server.messages, i + 1);
            assert_true(iok_span_eq(iok_token_span(&server.tape.tokens[0]), line));
            assert_int_equal(proto->server->answer(NULL, &server.io, server.tape.tokens, 1), 0);
            assert_int_equal(carry(&server, &client, proto->feed, step), 0);
            assert_int_equal(client.messages, i + 1);
            assert_true(iok_span_eq(iok_token_span(&client.tape.tokens[0]), line));
        }
        end_deinit(&client);
        end_deinit(&server);
    }
}

static void test_bad_answers(void **state)
{
    const struct iok_proto *proto = iok_proto_find(iok_span_of("line"), &(bool){false});
    struct iok_token token = {.type = IOK_TEXT, .len = 3, .p = (const uint8_t *)"a\nb"};
    struct end server;

    (void)state;
    end_init(&server);
    assert_int_equal(proto->server->answer(NULL, &server.io, &token, 1), IOK_EINVAL);
    assert_int_equal(proto->server->answer(NULL, &server.io, &token, 0), IOK_EINVAL);
    token.type = IOK_NULL;
    assert_int_equal(proto->server->answer(NULL, &server.io, &token, 1), IOK_ETYPE);
    assert_int_equal(iok_out_pending(&server.out), 0);
    end_deinit(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_bad_answers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
