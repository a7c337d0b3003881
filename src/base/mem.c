/* mem.c - malloc behind a counter, so that a test can make each allocation of the core fail in turn.
 *
 * It is not an allocator. The switched-off cost is two increments and one comparison of thread-local words: the count
 * runs from 1 and so never meets a fail_at of 0. */
#include "mem.h"

#include <stdlib.h>
#include <string.h>

static _Thread_local unsigned long count, fail_at;
static _Thread_local long live;

static int fails(void)
{
    return ++count == fail_at;
}

static void *counted(void *p)
{
    live += p != NULL;
    return p;
}

/* A size of 0 gives memory too, so that NULL always means failure. */
static size_t at_least_one(size_t size)
{
    return size ? size : 1;
}

void *iok_malloc(size_t size)
{
    return fails() ? NULL : counted(malloc(at_least_one(size)));
}

void *iok_calloc(size_t size)
{
    return fails() ? NULL : counted(calloc(1, at_least_one(size)));
}

void *iok_calloc_line(size_t size)
{
    size_t whole = (size + 63) & ~(size_t)63; /* aligned_alloc wants a multiple of the alignment */
    void *p = fails() ? NULL : counted(aligned_alloc(64, whole));

    return p == NULL ? NULL : memset(p, 0, whole);
}

void *iok_realloc(void *old, size_t size)
{
    void *p = fails() ? NULL : realloc(old, at_least_one(size));

    return old == NULL ? counted(p) : p;
}

void iok_free(void *p)
{
    live -= p != NULL;
    free(p);
}

char *iok_strndup(const char *p, size_t len)
{
    size_t n = strnlen(p, len);
    char *copy = iok_malloc(n + 1);

    if (!copy)
        return NULL;
    memcpy(copy, p, n);
    copy[n] = '\0';
    return copy;
}

void iok_mem_fail_at(unsigned long n)
{
    count = 0;
    fail_at = n;
}

unsigned long iok_mem_count(void)
{
    return count;
}

long iok_mem_live(void)
{
    return live;
}
