/* test_tape.c - tapes: values, storage and growth, payloads in pieces, limits, discarding, skipping. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../src/base/mem.h"
#include "../../src/base/tape.h"

#define TOKENS 4
#define BYTES 32

struct fixture {
    struct iok_tape tape;
    struct iok_token tokens[TOKENS];
    uint8_t bytes[BYTES];
    struct iok_account account;
};

static void begin(struct fixture *f, size_t max_bytes)
{
    memset(f, 0, sizeof(*f));
    iok_tape_init(&f->tape, f->tokens, TOKENS, f->bytes, BYTES, max_bytes, &f->account);
}

static void finish(struct fixture *f)
{
    iok_tape_deinit(&f->tape);
    assert_int_equal(iok_count_get(&f->account.bytes), 0);
    assert_int_equal(iok_count_get(&f->account.buffers), 0);
}

static void check_text(const struct iok_token *token, enum iok_type type, const char *text)
{
    assert_int_equal(token->type, type);
    assert_true(iok_span_eq(iok_token_span(token), iok_span_of(text)));
}

static uint8_t pattern(size_t i)
{
    return (uint8_t)(i * 31 + (i >> 8));
}

static uint8_t *make_payload(size_t n)
{
    uint8_t *p = malloc(n);

    assert_non_null(p);
    for (size_t i = 0; i < n; i++) {
        p[i] = pattern(i);
    }
    return p;
}

static void count_release(void *arg)
{
    ++*(int *)arg;
}

static void test_values(void **state)
{
    struct fixture f;
    const struct iok_token *t = f.tokens;

    (void)state;
    begin(&f, SIZE_MAX);
    iok_mem_fail_at(0);
    iok_tape_bool(&f.tape, true);
    iok_tape_i64(&f.tape, -7);
    iok_tape_f64(&f.tape, 0.5);
    iok_tape_copy(&f.tape, IOK_TEXT, 9, iok_span_of("hello"));
    assert_int_equal(iok_tape_error(&f.tape), 0);
    assert_int_equal(iok_mem_count(), 0); /* all in the owner's storage */
    assert_ptr_equal(f.tape.tokens, f.tokens);
    assert_int_equal(t[0].type, IOK_BOOL);
    assert_int_equal(t[0].i, 1);
    assert_int_equal(t[1].i, -7);
    assert_true(t[2].f == 0.5);
    check_text(&t[3], IOK_TEXT, "hello");
    assert_int_equal(t[3].subtype, 9);
    assert_in_range((uintptr_t)t[3].p, (uintptr_t)f.bytes, (uintptr_t)f.bytes + BYTES);
    assert_int_equal(f.tape.held_bytes, 4 * 16 + 5);
    iok_tape_reset(&f.tape, f.tokens, TOKENS);
    iok_tape_null(&f.tape);
    iok_tape_head(&f.tape, IOK_MAP, 3);
    iok_tape_static(&f.tape, IOK_ERROR, iok_span_of("ERR no"));
    assert_int_equal(f.tape.n_tokens, 3);
    assert_int_equal(t[0].type, IOK_NULL);
    assert_int_equal(t[1].len, 3);
    check_text(&t[2], IOK_ERROR, "ERR no");
    finish(&f);
}

/* Addresses never change, whatever follows; and reset gives the first storage back. */
static void test_growth(void **state)
{
    struct fixture f;
    const uint8_t *at[1000];
    char text[32];

    (void)state;
    begin(&f, SIZE_MAX);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 1000; i++) {
            snprintf(text, sizeof(text), "payload %d", i);
            iok_tape_copy(&f.tape, IOK_BYTES, 0, iok_span_of(text));
            at[i] = f.tape.tokens[i].p;
        }
        assert_int_equal(iok_tape_error(&f.tape), 0);
        assert_int_equal(f.tape.n_tokens, 1000);
        for (int i = 0; i < 1000; i++) {
            snprintf(text, sizeof(text), "payload %d", i);
            assert_ptr_equal(f.tape.tokens[i].p, at[i]);
            check_text(&f.tape.tokens[i], IOK_BYTES, text);
        }
        /* 11 KB of payload in chunks, not a buffer for each. */
        assert_in_range(iok_count_get(&f.account.buffers), 1, 6);
        iok_tape_reset(&f.tape, f.tokens, TOKENS);
        assert_int_equal(iok_count_get(&f.account.buffers), 0);
        assert_ptr_equal(f.tape.tokens, f.tokens);
        assert_ptr_equal(f.tape.bytes, f.bytes);
    }
    finish(&f);
}

/* A tape without any storage takes everything too, empty payloads included. */
static void test_no_storage(void **state)
{
    struct iok_tape tape;

    (void)state;
    iok_tape_init(&tape, NULL, 0, NULL, 0, SIZE_MAX, NULL);
    iok_tape_copy(&tape, IOK_TEXT, 0, iok_span(NULL, 0));
    iok_tape_open(&tape, IOK_BYTES, 0, 0);
    iok_tape_copy(&tape, IOK_TEXT, 0, iok_span_of("x"));
    assert_int_equal(iok_tape_error(&tape), 0);
    assert_int_equal(tape.n_tokens, 3);
    check_text(&tape.tokens[0], IOK_TEXT, "");
    check_text(&tape.tokens[1], IOK_BYTES, "");
    check_text(&tape.tokens[2], IOK_TEXT, "x");
    iok_tape_deinit(&tape);
}

static void test_hold(void **state)
{
    struct fixture f;
    int released = 0;
    struct iok_buf *buf;

    (void)state;
    begin(&f, 200);
    buf = iok_buf_wrap("0123456789", 10, count_release, &released, NULL);
    assert_non_null(buf);
    iok_tape_hold(&f.tape, IOK_BYTES, iok_span(buf->p + 2, 3), buf);
    check_text(&f.tokens[0], IOK_BYTES, "234");
    assert_int_equal(released, 0);
    iok_tape_reset(&f.tape, f.tokens, TOKENS);
    assert_int_equal(released, 1);
    /* Over the limit, and after a failure: the reference is taken over all the same. */
    for (int i = 2; i <= 3; i++) {
        buf = iok_buf_wrap(f.bytes, 500, count_release, &released, NULL);
        assert_non_null(buf);
        iok_tape_hold(&f.tape, IOK_BYTES, iok_span(f.bytes, 500), buf);
        assert_int_equal(released, i);
        assert_int_equal(iok_tape_error(&f.tape), IOK_ELIMIT);
    }
    iok_tape_reset(&f.tape, f.tokens, TOKENS);
    f.tape.discard = true;
    buf = iok_buf_wrap("x", 1, count_release, &released, NULL);
    assert_non_null(buf);
    iok_tape_hold(&f.tape, IOK_BYTES, iok_span(buf->p, 1), buf);
    assert_int_equal(released, 4);
    finish(&f);
}

static void test_limit(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, 16 + 5 + 16);
    iok_tape_copy(&f.tape, IOK_TEXT, 0, iok_span_of("hello"));
    iok_tape_i64(&f.tape, 1);
    assert_int_equal(iok_tape_error(&f.tape), 0);
    iok_tape_null(&f.tape);
    assert_int_equal(iok_tape_error(&f.tape), IOK_ELIMIT);
    iok_tape_null(&f.tape);
    assert_int_equal(f.tape.n_tokens, 2);
    iok_tape_reset(&f.tape, f.tokens, TOKENS);
    assert_int_equal(iok_tape_error(&f.tape), 0);
    /* A length that lies is refused by its word, and one near SIZE_MAX does not wrap around. */
    iok_tape_open(&f.tape, IOK_BYTES, 0, SIZE_MAX - 8);
    assert_int_equal(iok_tape_error(&f.tape), IOK_ELIMIT);
    assert_int_equal(f.tape.n_tokens, 0);
    iok_tape_reset(&f.tape, f.tokens, TOKENS);
    f.tape.max_bytes = SIZE_MAX;
    iok_tape_open(&f.tape, IOK_BYTES, 0, (size_t)UINT32_MAX + 1); /* len has 32 bits */
    assert_int_equal(iok_tape_error(&f.tape), IOK_ELIMIT);
    finish(&f);
}

static void fill_all(struct iok_tape *tape, const uint8_t *payload, size_t n, size_t step)
{
    for (size_t done = 0; done < n;) {
        size_t part = n - done < step ? n - done : step;

        assert_int_equal(tape->fill_left, n - done);
        assert_int_equal(iok_tape_fill(tape, iok_span(payload + done, part)), part);
        done += part;
    }
    assert_int_equal(tape->fill_left, 0);
}

static void test_fill(void **state)
{
    static const size_t sizes[] = {0, 1, BYTES, BYTES + 1, 2048, 4097, 65536, 65537, 300000};
    static const size_t steps[] = {1, 7, 4096, 100000, 1000000};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        uint8_t *payload = make_payload(sizes[i] + 1);

        for (size_t j = 0; j < sizeof(steps) / sizeof(*steps); j++) {
            struct fixture f;

            begin(&f, SIZE_MAX);
            iok_tape_open(&f.tape, IOK_BYTES, 3, sizes[i]);
            fill_all(&f.tape, payload, sizes[i], steps[j]);
            /* What follows the payload is not taken. */
            assert_int_equal(iok_tape_fill(&f.tape, iok_span(payload, 1)), 0);
            iok_tape_copy(&f.tape, IOK_TEXT, 0, iok_span_of("next"));
            assert_int_equal(iok_tape_error(&f.tape), 0);
            assert_int_equal(f.tape.n_tokens, 2);
            assert_int_equal(f.tokens[0].subtype, 3);
            assert_true(iok_span_eq(iok_token_span(&f.tokens[0]), iok_span(payload, sizes[i])));
            check_text(&f.tokens[1], IOK_TEXT, "next");
            finish(&f);
        }
        free(payload);
    }
}

static void test_lying_length(void **state)
{
    struct fixture f;
    uint8_t *piece = make_payload(100000);

    (void)state;
    begin(&f, SIZE_MAX);
    iok_tape_open(&f.tape, IOK_BYTES, 0, UINT32_MAX);
    assert_in_range(iok_count_get(&f.account.bytes), 0, 65536);
    iok_tape_fill(&f.tape, iok_span(piece, 100000));
    assert_in_range(iok_count_get(&f.account.bytes), 100000, 200000);
    assert_int_equal(iok_tape_error(&f.tape), 0);
    assert_int_equal(f.tape.fill_left, UINT32_MAX - 100000u);
    finish(&f);
    free(piece);
}

static void test_discard(void **state)
{
    struct fixture f;
    uint8_t piece[100] = {0};

    (void)state;
    begin(&f, 50);
    f.tape.discard = true;
    iok_mem_fail_at(1);
    iok_tape_head(&f.tape, IOK_ARRAY, UINT32_MAX);
    iok_tape_copy(&f.tape, IOK_TEXT, 0, iok_span(piece, sizeof(piece)));
    iok_tape_open(&f.tape, IOK_BYTES, 0, 150);
    assert_int_equal(iok_tape_fill(&f.tape, iok_span(piece, 100)), 100);
    assert_int_equal(iok_tape_fill(&f.tape, iok_span(piece, 100)), 50);
    assert_int_equal(f.tape.fill_left, 0);
    assert_int_equal(iok_tape_error(&f.tape), 0);
    assert_int_equal(f.tape.n_tokens, 0);
    assert_int_equal(f.tape.held_bytes, 0);
    assert_int_equal(iok_mem_count(), 0);
    iok_mem_fail_at(0);
    finish(&f);
}

/* A failed tape still counts an open payload down, so the parser stays in step. */
static void test_fill_after_error(void **state)
{
    struct fixture f;
    uint8_t piece[100] = {0};

    (void)state;
    begin(&f, 20);
    iok_tape_open(&f.tape, IOK_BYTES, 0, 150);
    assert_int_equal(iok_tape_error(&f.tape), IOK_ELIMIT);
    assert_int_equal(iok_tape_fill(&f.tape, iok_span(piece, 100)), 100);
    assert_int_equal(iok_tape_fill(&f.tape, iok_span(piece, 100)), 50);
    assert_int_equal(f.tape.fill_left, 0);
    finish(&f);
}

static void build(struct iok_tape *tape, const uint8_t *large)
{
    struct iok_buf *held = iok_buf_new(4, NULL);

    iok_tape_head(tape, IOK_ARRAY, 60);
    for (int i = 0; i < 50; i++) {
        iok_tape_copy(tape, IOK_TEXT, 0, iok_span(large, 10));
    }
    iok_tape_copy(tape, IOK_BYTES, 0, iok_span(large, 5000));
    iok_tape_open(tape, IOK_BYTES, 0, 200000);
    for (size_t done = 0; tape->fill_left > 0; done += 20000) {
        assert_int_equal(iok_tape_fill(tape, iok_span(large + done, 20000)), 20000);
    }
    if (held != NULL) {
        iok_tape_hold(tape, IOK_BYTES, iok_span(held->p, 0), held);
    }
}

static void test_every_allocation_fails(void **state)
{
    uint8_t *large = make_payload(200000);
    unsigned long failures = 0;

    (void)state;
    for (bool failed = true; failed; failures++) {
        struct fixture f;

        begin(&f, SIZE_MAX);
        iok_mem_fail_at(failures + 1);
        build(&f.tape, large);
        failed = iok_mem_count() > failures;
        assert_true(iok_tape_error(&f.tape) == 0 || iok_tape_error(&f.tape) == IOK_ENOMEM);
        for (uint32_t i = 1; i < f.tape.n_tokens && iok_tape_error(&f.tape) == 0 && i < 53; i++) {
            assert_memory_equal(f.tape.tokens[i].p, large, f.tape.tokens[i].len);
        }
        iok_mem_fail_at(0);
        finish(&f);
    }
    assert_true(failures > 5);
    free(large);
}

static struct iok_token head(enum iok_type type, uint32_t len)
{
    return (struct iok_token){.type = (uint8_t)type, .len = len};
}

static void test_skip(void **state)
{
    /* [1, {k: [v, v]}, attr{a: b} value, set{}] x */
    const struct iok_token tokens[] = {
        head(IOK_ARRAY, 4), head(IOK_I64, 0),  head(IOK_MAP, 1),   head(IOK_TEXT, 5), head(IOK_ARRAY, 2),
        head(IOK_NULL, 0),  head(IOK_NULL, 0), head(IOK_ATTR, 1),  head(IOK_TEXT, 1), head(IOK_TEXT, 1),
        head(IOK_F64, 0),   head(IOK_SET, 0),  head(IOK_BYTES, 9),
    };
    static const size_t ends[] = {12, 2, 7, 4, 7, 6, 7, 11, 9, 10, 11, 12, 13};
    size_t n = sizeof(tokens) / sizeof(*tokens);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(iok_tape_skip(tokens, n, i), ends[i]);
        for (size_t cut = i; cut < n; cut++) {
            assert_int_equal(iok_tape_skip(tokens, cut, i), ends[i] < cut ? ends[i] : cut);
        }
    }
}

static void test_skip_deep(void **state)
{
    size_t n = 1000000;
    struct iok_token *tokens = malloc(n * sizeof(*tokens));

    (void)state;
    assert_non_null(tokens);
    for (size_t i = 0; i < n; i++) {
        tokens[i] = head(IOK_ARRAY, 1);
    }
    assert_int_equal(iok_tape_skip(tokens, n, 0), n);
    for (size_t i = 0; i < n; i++) {
        tokens[i] = head(IOK_MAP, UINT32_MAX);
    }
    assert_int_equal(iok_tape_skip(tokens, n, 0), n);
    free(tokens);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_growth),
        cmocka_unit_test(test_no_storage),
        cmocka_unit_test(test_hold),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_fill),
        cmocka_unit_test(test_lying_length),
        cmocka_unit_test(test_discard),
        cmocka_unit_test(test_fill_after_error),
        cmocka_unit_test(test_every_allocation_fails),
        cmocka_unit_test(test_skip),
        cmocka_unit_test(test_skip_deep),
    };

    return cmocka_run_group_tests_name("tape", tests, NULL, NULL);
}
