/* buf.c - refcounted buffers; see buf.h.
 *
 * One allocation per buffer: the bytes of an own buffer follow its head. */
#include "buf.h"

#include "mem.h"

static void charge(struct iok_account *account, uint64_t bytes)
{
    if (account) {
        iok_count_add(&account->bytes, bytes);
        iok_count_add(&account->buffers, 1);
    }
}

static struct iok_buf *make(size_t extra, size_t cap, struct iok_account *account)
{
    struct iok_buf *buf = extra <= SIZE_MAX - sizeof *buf ? iok_malloc(sizeof *buf + extra) : NULL;

    if (!buf)
        return NULL;
    *buf = (struct iok_buf){.p = (uint8_t *)(buf + 1), .cap = cap, .account = account};
    iok_count_set(&buf->refs, 1);
    charge(account, cap);
    return buf;
}

struct iok_buf *iok_buf_new(size_t cap, struct iok_account *account)
{
    return make(cap, cap, account);
}

struct iok_buf *iok_buf_wrap(const void *p, size_t len, void (*release)(void *arg), void *arg,
                             struct iok_account *account)
{
    struct iok_buf *buf = make(0, len, account);

    if (!buf)
        return NULL;
    buf->p = (uint8_t *)(uintptr_t)p; /* nobody writes into it */
    buf->release = release;
    buf->arg = arg;
    return buf;
}

struct iok_buf *iok_buf_grow(struct iok_buf *buf, size_t cap)
{
    struct iok_buf *grown = cap <= SIZE_MAX - sizeof *buf ? iok_realloc(buf, sizeof *buf + cap) : NULL;

    if (!grown)
        return NULL;
    if (grown->account)
        iok_count_add(&grown->account->bytes, cap - grown->cap);
    grown->p = (uint8_t *)(grown + 1);
    grown->cap = cap;
    return grown;
}

void iok_buf_ref(struct iok_buf *buf)
{
    iok_count_ref(&buf->refs);
}

void iok_buf_unref(struct iok_buf *buf)
{
    if (!iok_count_unref(&buf->refs))
        return;
    if (buf->account) {
        iok_count_sub(&buf->account->bytes, buf->cap);
        iok_count_sub(&buf->account->buffers, 1);
    }
    if (buf->release)
        buf->release(buf->arg);
    iok_free(buf);
}
