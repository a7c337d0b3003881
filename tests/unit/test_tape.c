/* test_tape.c - tapes: what is written is what is read, wherever it had to be kept, and a failure sticks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/base/mem.h"
#include "../../src/base/tape.h"

struct fixture {
    struct iok_account account;
    struct iok_token tokens[4];
    uint8_t bytes[16];
    struct iok_tape tape;
};

static void begin(struct fixture *f, size_t max_bytes)
{
    memset(f, 0, sizeof(*f));
    iok_tape_init(&f->tape, f->tokens, 4, f->bytes, sizeof(f->bytes), max_bytes, &f->account);
}

static void finish(struct fixture *f)
{
    iok_tape_deinit(&f->tape);
    assert_int_equal(iok_count_get(&f->account.bytes), 0);
    assert_int_equal(iok_count_get(&f->account.buffers), 0);
}

static void test_small_needs_no_memory(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, SIZE_MAX);
    iok_mem_fail_at(1);
    iok_tape_head(&f.tape, IOK_ARRAY, 3);
    iok_tape_i64(&f.tape, -5);
    iok_tape_copy(&f.tape, IOK_TEXT, 9, iok_span_of("sixteen bytes ok"));
    iok_tape_null(&f.tape);
    assert_int_equal(iok_mem_count(), 0);
    iok_mem_fail_at(0);
    assert_int_equal(iok_tape_error(&f.tape), 0);
    assert_int_equal(f.tape.n_tokens, 4);
    assert_ptr_equal(f.tape.tokens, f.tokens);
    assert_int_equal(f.tokens[0].type, IOK_ARRAY);
    assert_int_equal(f.tokens[0].len, 3);
    assert_int_equal(f.tokens[1].i, -5);
    assert_int_equal(f.tokens[2].subtype, 9);
    assert_true(iok_span_eq(iok_token_span(&f.tokens[2]), iok_span_of("sixteen bytes ok")));
    finish(&f);
}

/* Every kind of value many times; addresses of payloads stay while the tape grows. */
static void write_all(struct iok_tape *tape, const uint8_t **first, unsigned rounds)
{
    char text[100];

    for (unsigned i = 0; i < rounds; i++) {
        memset(text, 'a' + (int)(i % 26), sizeof(text));
        iok_tape_bool(tape, i % 2 == 1);
        iok_tape_f64(tape, i / 4.0);
        iok_tape_copy(tape, IOK_BYTES, 0, iok_span(text, i % 100));
        iok_tape_static(tape, IOK_ERROR, iok_span_of("static"));
        iok_tape_open(tape, IOK_DECIMAL, 0, 3);
        assert_int_equal(iok_tape_fill(tape, iok_span_of("1")), 1);
        assert_int_equal(iok_tape_fill(tape, iok_span_of("2345")), 2);
        if (i == 1) {
            *first = tape->n_tokens > 7 ? tape->tokens[7].p : NULL;
        }
    }
}

static void test_growth(void **state)
{
    const uint8_t *first = NULL;
    struct fixture f;

    (void)state;
    begin(&f, SIZE_MAX);
    write_all(&f.tape, &first, 500);
    assert_int_equal(iok_tape_error(&f.tape), 0);
    assert_int_equal(f.tape.n_tokens, 2500);
    assert_ptr_equal(f.tape.tokens[7].p, first);
    for (unsigned i = 0; i < 500; i++) {
        const struct iok_token *at = f.tape.tokens + 5 * (size_t)i;

        assert_int_equal(at[0].i, i % 2);
        assert_true(at[1].f == i / 4.0);
        assert_int_equal(at[2].len, i % 100);
        assert_true(i % 100 == 0 || (at[2].p[0] == 'a' + (int)(i % 26) && at[2].p[i % 100 - 1] == at[2].p[0]));
        assert_true(iok_span_eq(iok_token_span(&at[4]), iok_span_of("123")));
    }
    assert_true(iok_count_get(&f.account.bytes) > 0);
    iok_tape_reset(&f.tape, f.tokens, 4);
    assert_int_equal(f.tape.n_tokens, 0);
    iok_tape_copy(&f.tape, IOK_TEXT, 0, iok_span_of("again"));
    /* In the owner's storage again, from its end. */
    assert_ptr_equal(f.tape.tokens[0].p, f.bytes + sizeof(f.bytes) - 5);
    finish(&f);
}

static void test_each_allocation_fails(void **state)
{
    const uint8_t *first;
    unsigned long n = 0;
    int error;

    (void)state;
    do {
        struct fixture f;

        begin(&f, SIZE_MAX);
        iok_mem_fail_at(++n);
        write_all(&f.tape, &first, 200);
        iok_tape_open(&f.tape, IOK_BYTES, 0, 300000);
        for (unsigned i = 0; i < 30; i++) {
            uint8_t piece[10000] = {(uint8_t)i};

            assert_int_equal(iok_tape_fill(&f.tape, iok_span(piece, sizeof(piece))), sizeof(piece));
        }
        iok_mem_fail_at(0);
        error = iok_tape_error(&f.tape);
        assert_true(error == 0 || error == IOK_ENOMEM);
        finish(&f);
    } while (error != 0);
    assert_true(n > 8 && n < 100);
}

/* The length that a peer claims costs nothing until the bytes come. */
static void test_large_payload(void **state)
{
    static const size_t sizes[] = {65535, 65536, 65537, 200000, 1000003};
    static const size_t pieces[] = {1, 4096, 65536, 70000, 2000000};

    (void)state;
    for (size_t i = 0; i < 25; i++) {
        size_t size = sizes[i / 5], piece = pieces[i % 5];
        uint8_t *whole = malloc(size);
        struct fixture f;

        assert_non_null(whole);
        for (size_t at = 0; at < size; at++) {
            whole[at] = (uint8_t)(at * 7 + at / 251);
        }
        begin(&f, SIZE_MAX);
        iok_tape_i64(&f.tape, 1);
        iok_tape_open(&f.tape, IOK_BYTES, 0, size);
        assert_true(iok_count_get(&f.account.bytes) <= 65536);
        for (size_t at = 0; at < size;) {
            at += iok_tape_fill(&f.tape, iok_span(whole + at, piece < size - at ? piece : size - at));
            assert_true(iok_count_get(&f.account.bytes) <= 65536 + 2 * at);
        }
        assert_int_equal(f.tape.fill_left, 0);
        assert_int_equal(iok_tape_error(&f.tape), 0);
        assert_true(iok_span_eq(iok_token_span(&f.tape.tokens[1]), iok_span(whole, size)));
        finish(&f);
        free(whole);
    }
}

static void test_limit_sticks(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, 64); /* payloads and 16 bytes a token */
    iok_tape_copy(&f.tape, IOK_BYTES, 0, iok_span_of("sixteen bytes ok"));
    iok_tape_i64(&f.tape, 1);
    iok_tape_i64(&f.tape, 2);
    assert_int_equal(iok_tape_error(&f.tape), 0);
    iok_tape_i64(&f.tape, 3);
    assert_int_equal(iok_tape_error(&f.tape), IOK_ELIMIT);
    assert_int_equal(f.tape.n_tokens, 3);
    iok_tape_open(&f.tape, IOK_BYTES, 0, 10); /* still taken in, so that the peer's bytes pass */
    assert_int_equal(iok_tape_fill(&f.tape, iok_span_of("0123456789+")), 10);
    assert_int_equal(f.tape.n_tokens, 3);
    finish(&f);
}

static void test_discard(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, 100);
    f.tape.discard = true;
    for (unsigned i = 0; i < 100; i++) {
        iok_tape_head(&f.tape, IOK_MAP, 1000);
        iok_tape_copy(&f.tape, IOK_TEXT, 0, iok_span_of("gone"));
        iok_tape_open(&f.tape, IOK_BYTES, 0, 1000000);
        assert_int_equal(iok_tape_fill(&f.tape, iok_span_of("abc")), 3);
        assert_int_equal(f.tape.fill_left, 999997);
    }
    assert_int_equal(iok_tape_error(&f.tape), 0);
    assert_int_equal(f.tape.n_tokens, 0);
    finish(&f);
}

static void count_release(void *arg)
{
    *(unsigned *)arg += 1;
}

static void test_hold(void **state)
{
    unsigned released = 0;
    struct iok_buf *buf;
    struct fixture f;

    (void)state;
    begin(&f, 1000);
    buf = iok_buf_wrap("borrowed", 8, count_release, &released, &f.account);
    assert_non_null(buf);
    iok_tape_hold(&f.tape, IOK_BYTES, iok_span(buf->p, 8), buf);
    assert_int_equal(iok_count_get(&f.account.bytes), 8);
    iok_buf_ref(buf);
    iok_tape_deinit(&f.tape);
    assert_int_equal(released, 0); /* somebody else holds it */
    iok_buf_unref(buf);
    assert_int_equal(released, 1);
    begin(&f, 10); /* over the limit: given back at once */
    buf = iok_buf_wrap("borrowed", 8, count_release, &released, &f.account);
    iok_tape_hold(&f.tape, IOK_BYTES, iok_span(buf->p, 8), buf);
    assert_int_equal(released, 2);
    assert_int_equal(iok_tape_error(&f.tape), IOK_ELIMIT);
    finish(&f);
}

static void test_skip(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, SIZE_MAX);
    iok_tape_head(&f.tape, IOK_ARRAY, 2); /* 0 */
    iok_tape_head(&f.tape, IOK_MAP, 1);   /* 1 */
    iok_tape_i64(&f.tape, 1);             /* 2 */
    iok_tape_head(&f.tape, IOK_SET, 0);   /* 3 */
    iok_tape_head(&f.tape, IOK_ATTR, 1);  /* 4 */
    iok_tape_null(&f.tape);               /* 5 */
    iok_tape_null(&f.tape);               /* 6 */
    iok_tape_bool(&f.tape, true);         /* 7, described by 4 */
    iok_tape_head(&f.tape, IOK_PUSH, 1);  /* 8 */
    iok_tape_null(&f.tape);               /* 9 */
    assert_int_equal(iok_tape_skip(f.tape.tokens, 10, 0), 8);
    assert_int_equal(iok_tape_skip(f.tape.tokens, 10, 1), 4);
    assert_int_equal(iok_tape_skip(f.tape.tokens, 10, 3), 4);
    assert_int_equal(iok_tape_skip(f.tape.tokens, 10, 4), 8);
    assert_int_equal(iok_tape_skip(f.tape.tokens, 10, 8), 10);
    assert_int_equal(iok_tape_skip(f.tape.tokens, 6, 0), 6); /* ends before */
    f.tape.tokens[0].len = UINT32_MAX;
    assert_int_equal(iok_tape_skip(f.tape.tokens, 10, 0), 10);
    finish(&f);
}

static void test_patch_and_rewind(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, 300);
    iok_tape_head(&f.tape, IOK_ARRAY, 0);
    iok_tape_timestamp(&f.tape, IOK_KIND_DATE, -86400000000);
    iok_tape_copy(&f.tape, IOK_TEXT, 0, iok_span_of("does not fit into the first storage, so a buffer holds it"));
    iok_tape_patch(&f.tape, 0, 2);
    assert_int_equal(f.tape.tokens[0].len, 2);
    assert_int_equal(f.tape.tokens[1].type, IOK_TIMESTAMP);
    assert_int_equal(f.tape.tokens[1].subtype, IOK_KIND_DATE);
    assert_int_equal(f.tape.tokens[1].i, -86400000000);
    iok_tape_open(&f.tape, IOK_BYTES, 0, 1000);
    assert_int_equal(iok_tape_error(&f.tape), IOK_ELIMIT);
    assert_int_equal(iok_tape_fill(&f.tape, iok_span(f.bytes, 16)), 16);
    f.tape.fill_left = 0;
    iok_tape_patch(&f.tape, 100, 1); /* of a token that was never kept */
    iok_tape_rewind(&f.tape);
    assert_int_equal(iok_tape_error(&f.tape), 0);
    assert_int_equal(iok_count_get(&f.account.buffers), 0);
    iok_tape_copy(&f.tape, IOK_ERROR, 0, iok_span_of("sixteen bytes ok"));
    assert_int_equal(f.tape.n_tokens, 1);
    assert_true(iok_span_eq(iok_token_span(&f.tape.tokens[0]), iok_span_of("sixteen bytes ok")));
    assert_ptr_equal(f.tape.tokens[0].p, f.bytes + sizeof(f.bytes) - 16);
    finish(&f);
}

static void test_open_ended(void **state)
{
    static uint8_t piece[3000];
    struct fixture f;

    (void)state;
    begin(&f, 10000);
    iok_tape_open_ended(&f.tape, IOK_BYTES);
    for (int i = 0; i < 3; i++) {
        memset(piece, 'a' + i, sizeof(piece));
        iok_tape_fill_all(&f.tape, iok_span(piece, sizeof(piece)));
    }
    iok_tape_shut(&f.tape);
    iok_tape_i64(&f.tape, 7); /* there is room again behind it */
    assert_int_equal(iok_tape_error(&f.tape), 0);
    assert_int_equal(f.tape.n_tokens, 2);
    assert_int_equal(f.tape.tokens[0].len, 9000);
    assert_int_equal(f.tape.held_bytes, 9000 + 2 * sizeof(struct iok_token));
    assert_int_equal(f.tape.tokens[0].p[2999], 'a');
    assert_int_equal(f.tape.tokens[0].p[3000], 'b');
    assert_int_equal(f.tape.tokens[0].p[8999], 'c');
    iok_tape_open_ended(&f.tape, IOK_BYTES);
    iok_tape_fill_all(&f.tape, iok_span(piece, 1000));
    assert_int_equal(iok_tape_error(&f.tape), IOK_ELIMIT);
    iok_tape_shut(&f.tape);
    finish(&f);

    begin(&f, 10000);
    f.tape.discard = true;
    iok_tape_open_ended(&f.tape, IOK_BYTES);
    iok_tape_fill_all(&f.tape, iok_span(piece, sizeof(piece)));
    iok_tape_shut(&f.tape);
    assert_int_equal(f.tape.n_tokens, 0);
    assert_int_equal(iok_tape_error(&f.tape), 0);
    finish(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_needs_no_memory),
        cmocka_unit_test(test_growth),
        cmocka_unit_test(test_each_allocation_fails),
        cmocka_unit_test(test_large_payload),
        cmocka_unit_test(test_limit_sticks),
        cmocka_unit_test(test_discard),
        cmocka_unit_test(test_hold),
        cmocka_unit_test(test_skip),
        cmocka_unit_test(test_patch_and_rewind),
        cmocka_unit_test(test_open_ended),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
