/* buf.h - refcounted buffers, with an account of who holds the bytes.
 *
 * Only buffers are refcounted, because they cross threads; the count is atomic. Each buffer's bytes are charged to one
 * account at a time. */
#ifndef IOK_BASE_BUF_H
#define IOK_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

#include "count.h"

/* Bytes held for one purpose ("arguments", "replies", ...). Any thread. */
struct iok_account {
    struct iok_count bytes;
    struct iok_count buffers;
};

struct iok_buf {
    struct iok_buf *next; /* the holder's list */
    uint8_t *p;
    size_t cap; /* bytes at p, as charged */
    struct iok_count refs;
    struct iok_account *account;
    void (*release)(void *arg); /* external memory: called at the last unref, on that thread; NULL if p is ours */
    void *arg;
};

/* NULL when out of memory. account may be NULL. */
struct iok_buf *iok_buf_new(size_t cap, struct iok_account *account);
/* Memory of somebody else, given back by release(arg) at the last unref. On NULL release was not called. */
struct iok_buf *iok_buf_wrap(const void *p, size_t len, void (*release)(void *arg), void *arg,
                             struct iok_account *account);
void iok_buf_ref(struct iok_buf *buf);
void iok_buf_unref(struct iok_buf *buf);

#endif
