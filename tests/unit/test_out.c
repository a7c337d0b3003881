/* test_out.c - outgoing bytes: order of copies and references, partial takes, ownership, bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/base/err.h"
#include "../../src/base/mem.h"
#include "../../src/base/out.h"

#define LARGE 10000u

/* What should have come out, byte for byte. */
struct model {
    uint8_t bytes[400000];
    size_t n, taken;
};

static struct model model;

static void append(struct iok_out *out, const uint8_t *p, size_t n, bool refer)
{
    memcpy(model.bytes + model.n, p, n);
    model.n += n;
    if (refer) {
        iok_out_refer(out, iok_span(p, n));
    } else {
        iok_out_put(out, iok_span(p, n));
    }
}

/* Compares all pending bytes with the model; returns the number of vectors. */
static int check_pending(const struct iok_out *out)
{
    struct iovec vec[64];
    int n = iok_out_peek(out, vec, 64);
    size_t at = model.taken;

    assert_int_equal(iok_out_pending(out), model.n - model.taken);
    for (int i = 0; i < n; i++) {
        assert_true(vec[i].iov_len > 0);
        assert_true(at + vec[i].iov_len <= model.n);
        assert_memory_equal(vec[i].iov_base, model.bytes + at, vec[i].iov_len);
        at += vec[i].iov_len;
    }
    if (n < 64) {
        assert_int_equal(at, model.n);
    }
    return n;
}

static void take(struct iok_out *out, size_t n)
{
    iok_out_take(out, n);
    model.taken += n;
}

static uint8_t *make_payload(size_t n)
{
    uint8_t *p = malloc(n);

    assert_non_null(p);
    for (size_t i = 0; i < n; i++) {
        p[i] = (uint8_t)(i * 7 + (i >> 7));
    }
    return p;
}

static int setup(void **state)
{
    *state = make_payload(100000);
    model.n = model.taken = 0;
    return 0;
}

static int teardown(void **state)
{
    iok_mem_fail_at(0);
    free(*state);
    return 0;
}

static void test_copies(void **state)
{
    const uint8_t *data = *state;
    struct iok_out out;
    struct iovec vec[2];
    uint8_t *at;

    iok_out_init(&out, NULL);
    assert_int_equal(iok_out_peek(&out, vec, 2), 0);
    append(&out, data, 100, false);
    append(&out, data + 50, 4095, true); /* small: copied */
    append(&out, data, 0, false);
    append(&out, data, 0, true);
    assert_int_equal(check_pending(&out), 1);
    take(&out, 60);
    assert_int_equal(check_pending(&out), 1);
    at = iok_out_reserve(&out, 50);
    assert_non_null(at);
    memcpy(at, "abc", 3);
    iok_out_commit(&out, 3);
    memcpy(model.bytes + model.n, "abc", 3);
    model.n += 3;
    check_pending(&out);
    assert_int_equal(out.appended, 4198);
    assert_int_equal(out.taken, 60);
    take(&out, iok_out_pending(&out));
    assert_int_equal(check_pending(&out), 0);
    assert_int_equal(out.taken, 4198); /* offsets never go back */
    iok_out_deinit(&out);
}

static void test_references(void **state)
{
    const uint8_t *data = *state;
    struct iok_out out;
    struct iovec vec[3];

    iok_out_init(&out, NULL);
    append(&out, data, 10, false);
    append(&out, data + 100, LARGE, true);
    append(&out, data + 20, 10, false);
    append(&out, data + 30, 10, false);
    append(&out, data + 200, LARGE, true);
    append(&out, data + 300, LARGE, true);
    assert_int_equal(check_pending(&out), 5);
    assert_int_equal(iok_out_peek(&out, vec, 3), 3);
    assert_ptr_equal(vec[1].iov_base, data + 100); /* by reference indeed */
    take(&out, 5);
    check_pending(&out);
    take(&out, 5 + 1);
    assert_int_equal(check_pending(&out), 4);
    take(&out, LARGE - 1 + 20 + LARGE);
    assert_int_equal(check_pending(&out), 1);
    append(&out, data, 10, false);
    assert_int_equal(check_pending(&out), 2);
    take(&out, LARGE);
    append(&out, data + 7, 10, false);
    assert_int_equal(check_pending(&out), 1);
    take(&out, 20);
    assert_int_equal(check_pending(&out), 0);
    iok_out_deinit(&out);
}

static void test_own(void **state)
{
    const uint8_t *data = *state;
    struct iok_account account = {0};
    struct iok_out out;
    uint8_t *mine = make_payload(LARGE), *other = make_payload(LARGE);
    uint64_t from, to;

    iok_out_init(&out, &account);
    append(&out, data, 10, false);
    from = out.appended;
    append(&out, mine, LARGE, true);
    append(&out, data, 5, false);
    to = out.appended;
    append(&out, other, LARGE, true);
    take(&out, 10 + 1000); /* the first part is gone already */
    assert_int_equal(iok_out_own(&out, from, to), 0);
    memset(mine, 0, LARGE);
    free(mine);
    check_pending(&out);
    assert_int_equal(iok_out_own(&out, from, to), 0); /* again: nothing to do */
    take(&out, 3000);
    check_pending(&out);
    /* A range that begins and ends inside the reference. */
    assert_int_equal(iok_out_own(&out, to + 10, to + 11), 0);
    memset(other, 0, LARGE);
    free(other);
    check_pending(&out);
    take(&out, iok_out_pending(&out));
    assert_int_equal(iok_count_get(&account.bytes), 0);
    assert_int_equal(iok_out_own(&out, 0, out.appended), 0);
    iok_out_deinit(&out);
}

static void test_deinit_while_pending(void **state)
{
    struct iok_account account = {0};
    struct iok_out out;

    iok_out_init(&out, &account);
    append(&out, *state, LARGE, true);
    append(&out, *state, 10, false);
    assert_int_equal(iok_out_own(&out, 0, LARGE), 0);
    iok_out_deinit(&out);
    assert_int_equal(iok_count_get(&account.bytes), 0);
    assert_int_equal(iok_count_get(&account.buffers), 0);
}

static void test_shrinks(void **state)
{
    struct iok_out out;

    iok_out_init(&out, NULL);
    for (int i = 0; i < 3; i++) {
        append(&out, *state, 100000, false);
    }
    assert_true(out.cap >= 300000);
    take(&out, 299999);
    check_pending(&out);
    take(&out, 1);
    assert_int_equal(out.cap, 0);
    append(&out, *state, 10, false);
    check_pending(&out);
    iok_out_deinit(&out);
}

/* A connection that is never quite empty must not grow without end. */
static void test_bounded(void **state)
{
    const uint8_t *data = *state;
    struct iok_out out;

    iok_out_init(&out, NULL);
    iok_out_put(&out, iok_span(data, 10));
    iok_out_refer(&out, iok_span(data, LARGE));
    for (int i = 0; i < 10000; i++) {
        iok_out_put(&out, iok_span(data, 10));
        iok_out_refer(&out, iok_span(data, LARGE));
        iok_out_take(&out, LARGE + 10);
    }
    assert_int_equal(out.error, 0);
    assert_int_equal(iok_out_pending(&out), LARGE + 10);
    assert_in_range(out.cap, 1, 8192);
    assert_in_range(out.cap_pieces, 1, 64);
    iok_out_deinit(&out);
}

/* After a failure nothing more is appended: else the stream would have a hole. */
static void test_error_sticks(void **state)
{
    const uint8_t *data = *state;
    struct iok_out out;

    iok_out_init(&out, NULL);
    append(&out, data, 10, false);
    iok_mem_fail_at(1);
    iok_out_put(&out, iok_span(data, 50000));
    assert_int_equal(out.error, IOK_ENOMEM);
    assert_null(iok_out_reserve(&out, 1));
    iok_out_put(&out, iok_span(data, 1));
    iok_out_refer(&out, iok_span(data, LARGE));
    check_pending(&out);
    assert_int_equal(out.appended, 10);
    iok_out_deinit(&out);
}

static void test_every_allocation_fails(void **state)
{
    const uint8_t *data = *state;
    unsigned long failures = 0;

    for (bool failed = true; failed; failures++) {
        struct iok_account account = {0};
        struct iok_out out;
        int rc;

        iok_out_init(&out, &account);
        iok_mem_fail_at(failures + 1);
        for (int i = 0; i < 12; i++) {
            iok_out_put(&out, iok_span(data, 700));
            iok_out_refer(&out, iok_span(data, LARGE));
        }
        rc = iok_out_own(&out, 0, out.appended);
        failed = iok_mem_count() > failures;
        assert_true(failed ? out.error == IOK_ENOMEM || rc == IOK_ENOMEM : out.error == 0 && rc == 0);
        iok_out_take(&out, iok_out_pending(&out) / 2);
        iok_mem_fail_at(0);
        iok_out_deinit(&out);
        assert_int_equal(iok_count_get(&account.bytes), 0);
    }
    assert_true(failures > 5);
}

static void test_random(void **state)
{
    const uint8_t *data = *state;
    uint64_t random = 3;
    struct iok_out out;

    iok_out_init(&out, NULL);
    for (int i = 0; i < 20000; i++) {
        size_t n;

        random = random * 6364136223846793005u + 1442695040888963407u;
        n = (size_t)(random >> 40) % 6000;
        if (model.n + n > sizeof(model.bytes)) { /* restart the model, keep the object */
            memmove(model.bytes, model.bytes + model.taken, model.n - model.taken);
            model.n -= model.taken;
            model.taken = 0;
        }
        switch ((random >> 33) % 4) {
        case 0:
            append(&out, data + n, n, false);
            break;
        case 1:
            append(&out, data + n, n, true);
            break;
        default:
            n = n * 2 < iok_out_pending(&out) ? n * 2 : iok_out_pending(&out);
            take(&out, n);
            break;
        }
        check_pending(&out);
    }
    iok_out_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_copies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_references, setup, teardown),
        cmocka_unit_test_setup_teardown(test_own, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deinit_while_pending, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shrinks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_error_sticks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_allocation_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random, setup, teardown),
    };

    return cmocka_run_group_tests_name("out", tests, NULL, NULL);
}
