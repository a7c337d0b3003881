#include "mem.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local unsigned long allocations, fail_at;

static bool must_fail(void)
{
    return ++allocations == fail_at;
}

void *iok_malloc(size_t size)
{
    return must_fail() ? NULL : malloc(size);
}

void *iok_calloc(size_t size)
{
    return must_fail() ? NULL : calloc(1, size);
}

void *iok_calloc_line(size_t size)
{
    size_t whole = (size + 63) & ~(size_t)63; /* aligned_alloc wants a multiple of the alignment */
    void *p = must_fail() ? NULL : aligned_alloc(64, whole);

    return p == NULL ? NULL : memset(p, 0, whole);
}

void *iok_realloc(void *old, size_t size)
{
    return must_fail() ? NULL : realloc(old, size);
}

void iok_free(void *p)
{
    free(p);
}

char *iok_strndup(const char *p, size_t len)
{
    char *copy = iok_malloc(len + 1);

    if (copy != NULL) {
        memcpy(copy, p, len);
        copy[len] = '\0';
    }
    return copy;
}

void iok_mem_fail_at(unsigned long n)
{
    allocations = 0;
    fail_at = n;
}

unsigned long iok_mem_count(void)
{
    return allocations;
}
