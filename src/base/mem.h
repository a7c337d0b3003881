/* mem.h - the only door to malloc, so that each allocation of the core can be counted and made to fail. */
#ifndef IOK_BASE_MEM_H
#define IOK_BASE_MEM_H

#include <stddef.h>

void *iok_malloc(size_t size);
void *iok_calloc(size_t size);             /* one zeroed object */
void *iok_calloc_line(size_t size);        /* one zeroed object that starts on a cache line */
void *iok_realloc(void *old, size_t size); /* as realloc; NULL leaves old alone */
void iok_free(void *p);
char *iok_strndup(const char *p, size_t len);

/* For tests: the n-th allocation of this thread from now on fails, once (0: none). */
void iok_mem_fail_at(unsigned long n);
/* For tests: allocations of this thread since the last iok_mem_fail_at. */
unsigned long iok_mem_count(void);
/* For tests: allocations less frees by this thread. */
long iok_mem_live(void);

#endif
