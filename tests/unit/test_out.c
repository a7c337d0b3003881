/* test_out.c - bytes on their way out, against a model that copies everything: whatever is appended, however it is
 * taken, the stream is the same. A failure names its seed; IOK_SEED=n plays it again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "../../src/base/err.h"
#include "../../src/base/mem.h"
#include "../../src/base/out.h"

#define SOURCE_BYTES 20000u
#define STREAM_MAX (4u << 20)

static uint64_t seed, random_state;

static size_t any(size_t below)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407); /* Knuth's MMIX */
    return (size_t)(random_state >> 33) % below;
}

struct model {
    struct iok_account account;
    struct iok_out out;
    uint8_t *stream;   /* all that was ever appended */
    uint8_t *lent[64]; /* referenced memory, overwritten once the stream has its own copy */
    unsigned n_lent;
};

static void append(struct model *m)
{
    size_t n = any(3) == 0 ? any(SOURCE_BYTES) : any(60);
    uint8_t *bytes = malloc(n + 1), *at;

    assert_non_null(bytes);
    for (size_t i = 0; i < n; i++) {
        bytes[i] = (uint8_t)any(256);
    }
    memcpy(m->stream + m->out.appended, bytes, n);
    switch (m->n_lent < 64 ? any(3) : any(2)) {
    case 0:
        iok_out_put(&m->out, iok_span(bytes, n));
        break;
    case 1:
        at = iok_out_reserve(&m->out, n + any(100) + 1);
        if (at != NULL) {
            memcpy(at, bytes, n);
            iok_out_commit(&m->out, n);
        }
        break;
    default:
        iok_out_refer(&m->out, iok_span(bytes, n));
        m->lent[m->n_lent++] = bytes;
        return;
    }
    free(bytes);
}

/* What was lent goes away, as a call's arguments do. */
static void own_all(struct model *m)
{
    if (iok_out_own(&m->out, m->out.taken, m->out.appended) != 0) {
        return;
    }
    while (m->n_lent > 0) {
        free(m->lent[--m->n_lent]);
    }
}

static void look_and_take(struct model *m)
{
    size_t pending = iok_out_pending(&m->out), seen = 0;
    struct iovec vec[4];
    int n = iok_out_peek(&m->out, vec, 1 + (int)any(4));

    assert_true(pending == 0 ? n == 0 : n >= 1);
    for (int i = 0; i < n; i++) {
        if (memcmp(vec[i].iov_base, m->stream + m->out.taken + seen, vec[i].iov_len) != 0) {
            fail_msg("IOK_SEED=%llu: other bytes than were appended", (unsigned long long)seed);
        }
        seen += vec[i].iov_len;
    }
    assert_true(seen <= pending);
    iok_out_take(&m->out, any(3) == 0 ? seen : any(seen + 1));
}

static void play(unsigned long fail_at)
{
    struct model *m = calloc(1, sizeof(*m));

    assert_non_null(m);
    m->stream = malloc(STREAM_MAX);
    assert_non_null(m->stream);
    iok_out_init(&m->out, &m->account);
    iok_mem_fail_at(fail_at);
    while (m->out.appended < STREAM_MAX - SOURCE_BYTES && m->out.error == 0) {
        switch (any(12)) {
        case 0:
            own_all(m);
            break;
        case 1:
        case 2:
        case 3:
        case 4:
            append(m);
            break;
        default:
            look_and_take(m);
            break;
        }
    }
    iok_mem_fail_at(0);
    assert_true(m->out.error == 0 || (fail_at != 0 && m->out.error == IOK_ENOMEM));
    while (m->out.error == 0 && iok_out_pending(&m->out) != 0) {
        look_and_take(m);
    }
    iok_out_deinit(&m->out);
    while (m->n_lent > 0) {
        free(m->lent[--m->n_lent]);
    }
    assert_int_equal(iok_count_get(&m->account.bytes), 0);
    free(m->stream);
    free(m);
}

static void test_model(void **state)
{
    (void)state;
    for (unsigned run = 0; run < 10; run++, seed++) {
        random_state = seed;
        play(0);
    }
}

static void test_failing_allocations(void **state)
{
    (void)state;
    for (unsigned long n = 1; n < 20; n++, seed++) {
        random_state = seed;
        play(n);
    }
}

/* A connection that never comes to rest needs no more room for pieces than are pending at a time. */
static void test_pieces_are_bounded(void **state)
{
    struct iok_out out;
    char *big = calloc(1, 5000);

    (void)state;
    assert_non_null(big);
    iok_out_init(&out, NULL);
    iok_out_refer(&out, iok_span(big, 5000));
    for (unsigned i = 0; i < 10000; i++) {
        iok_out_put(&out, iok_span("x", 1));
        iok_out_refer(&out, iok_span(big, 5000));
        iok_out_take(&out, 5001);
    }
    assert_int_equal(iok_out_pending(&out), 5000);
    assert_true(out.cap_pieces <= 16);
    assert_true(out.cap <= 16384);
    iok_out_deinit(&out);
    free(big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_failing_allocations),
        cmocka_unit_test(test_pieces_are_bounded),
    };
    const char *given = getenv("IOK_SEED");

    seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
