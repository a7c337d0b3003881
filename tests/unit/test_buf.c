/* test_buf.c - buffers, their account, and the allocation that can be told to fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include "../../src/base/buf.h"
#include "../../src/base/mem.h"

static void count_release(void *arg)
{
    ++*(int *)arg;
}

static void test_account(void **state)
{
    struct iok_account account = {0};
    struct iok_buf *a = iok_buf_new(100, &account), *b = iok_buf_new(0, &account);

    (void)state;
    assert_non_null(a);
    assert_non_null(b);
    memset(a->p, 7, a->cap);
    assert_int_equal(iok_count_get(&account.bytes), 100);
    assert_int_equal(iok_count_get(&account.buffers), 2);
    iok_buf_ref(a);
    iok_buf_unref(a);
    assert_int_equal(iok_count_get(&account.bytes), 100);
    iok_buf_unref(a);
    iok_buf_unref(b);
    assert_int_equal(iok_count_get(&account.bytes), 0);
    assert_int_equal(iok_count_get(&account.buffers), 0);
    a = iok_buf_new(8, NULL);
    assert_non_null(a);
    iok_buf_unref(a);
}

static void test_wrap(void **state)
{
    struct iok_account account = {0};
    int released = 0;
    struct iok_buf *buf = iok_buf_wrap("text", 4, count_release, &released, &account);

    (void)state;
    assert_non_null(buf);
    assert_memory_equal(buf->p, "text", 4);
    assert_int_equal(iok_count_get(&account.bytes), 4);
    iok_buf_ref(buf);
    iok_buf_unref(buf);
    assert_int_equal(released, 0);
    iok_buf_unref(buf);
    assert_int_equal(released, 1);
    assert_int_equal(iok_count_get(&account.buffers), 0);
}

static void test_out_of_memory(void **state)
{
    struct iok_account account = {0};
    int released = 0;
    struct iok_buf *buf = NULL;
    unsigned long n = 1;

    (void)state;
    for (; buf == NULL; n++) {
        iok_mem_fail_at(n);
        buf = iok_buf_new(10, &account);
        assert_int_equal(iok_count_get(&account.bytes), buf == NULL ? 0 : 10);
    }
    assert_true(n > 2); /* it did fail */
    iok_buf_unref(buf);
    iok_mem_fail_at(1);
    assert_null(iok_buf_wrap("x", 1, count_release, &released, &account));
    iok_mem_fail_at(0);
    assert_int_equal(released, 0);
    assert_int_equal(iok_count_get(&account.buffers), 0);
}

static void test_mem(void **state)
{
    char *p, *q;

    (void)state;
    iok_mem_fail_at(2);
    p = iok_calloc(4);
    assert_non_null(p);
    assert_memory_equal(p, "\0\0\0\0", 4);
    assert_null(iok_realloc(p, 8)); /* p stays */
    q = iok_realloc(p, 8);
    assert_non_null(q);
    assert_int_equal(iok_mem_count(), 3);
    iok_free(q);
    p = iok_strndup("hello", 3);
    assert_string_equal(p, "hel");
    iok_free(p);
    p = iok_calloc_line(65);
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 64, 0);
    iok_free(p);
    iok_free(NULL);
    iok_mem_fail_at(0);
    p = iok_malloc(1);
    assert_non_null(p);
    iok_free(p);
}

static void *drop_refs(void *arg)
{
    for (int i = 0; i < 1000; i++) {
        iok_buf_unref(arg);
    }
    return NULL;
}

static void test_threads(void **state)
{
    pthread_t threads[2];
    int released = 0;
    struct iok_buf *buf = iok_buf_wrap("x", 1, count_release, &released, NULL);

    (void)state;
    assert_non_null(buf);
    for (int i = 0; i < 1999; i++) {
        iok_buf_ref(buf);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, drop_refs, buf), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(released, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_account), cmocka_unit_test(test_wrap),    cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_mem),     cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
