#include "buf.h"

#include "mem.h"

static struct iok_buf *make(void *p, size_t cap, struct iok_account *account)
{
    struct iok_buf *buf = iok_calloc(sizeof(*buf));

    if (buf == NULL) {
        return NULL;
    }
    buf->p = p;
    buf->cap = cap;
    buf->account = account;
    iok_count_set(&buf->refs, 1);
    if (account != NULL) {
        iok_count_add(&account->bytes, cap);
        iok_count_add(&account->buffers, 1);
    }
    return buf;
}

struct iok_buf *iok_buf_new(size_t cap, struct iok_account *account)
{
    void *p = iok_malloc(cap == 0 ? 1 : cap);
    struct iok_buf *buf = p == NULL ? NULL : make(p, cap, account);

    if (buf == NULL) {
        iok_free(p);
    }
    return buf;
}

struct iok_buf *iok_buf_wrap(const void *p, size_t len, void (*release)(void *arg), void *arg,
                             struct iok_account *account)
{
    struct iok_buf *buf = make((void *)(uintptr_t)p, len, account);

    if (buf != NULL) {
        buf->release = release;
        buf->arg = arg;
    }
    return buf;
}

void iok_buf_ref(struct iok_buf *buf)
{
    iok_count_ref(&buf->refs);
}

void iok_buf_unref(struct iok_buf *buf)
{
    if (!iok_count_unref(&buf->refs)) {
        return;
    }
    if (buf->account != NULL) {
        iok_count_sub(&buf->account->bytes, buf->cap);
        iok_count_sub(&buf->account->buffers, 1);
    }
    if (buf->release != NULL) {
        buf->release(buf->arg);
    } else {
        iok_free(buf->p);
    }
    iok_free(buf);
}
