/* count.h - an atomic counter. Here and src/ring are the only homes of atomics (a floors check keeps it so). */
#ifndef IOK_BASE_COUNT_H
#define IOK_BASE_COUNT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct iok_count {
    _Atomic uint64_t n;
};

/* Statistics: no ordering. */
static inline void iok_count_add(struct iok_count *c, uint64_t n)
{
    atomic_fetch_add_explicit(&c->n, n, memory_order_relaxed);
}

static inline void iok_count_sub(struct iok_count *c, uint64_t n)
{
    atomic_fetch_sub_explicit(&c->n, n, memory_order_relaxed);
}

static inline uint64_t iok_count_get(const struct iok_count *c)
{
    return atomic_load_explicit(&c->n, memory_order_relaxed);
}

/* A counter that one thread writes and others read: cheaper, as no bus lock is needed. */
static inline void iok_count_own_add(struct iok_count *c, uint64_t n)
{
    atomic_store_explicit(&c->n, atomic_load_explicit(&c->n, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline void iok_count_own_sub(struct iok_count *c, uint64_t n)
{
    iok_count_own_add(c, 0 - n);
}

static inline void iok_count_set(struct iok_count *c, uint64_t n)
{
    atomic_store_explicit(&c->n, n, memory_order_relaxed);
}

/* A number that says that something is ready: whoever reads it sees all that was written before it was published. */
static inline void iok_count_publish(struct iok_count *c, uint64_t n)
{
    atomic_store_explicit(&c->n, n, memory_order_release);
}

static inline uint64_t iok_count_published(const struct iok_count *c)
{
    return atomic_load_explicit(&c->n, memory_order_acquire);
}

static inline uint64_t iok_count_exchange(struct iok_count *c, uint64_t n)
{
    return atomic_exchange_explicit(&c->n, n, memory_order_seq_cst);
}

/* The first that comes with a number that is not 0 has it; true: that is who, now or before. */
static inline bool iok_count_claim(struct iok_count *c, uint64_t who)
{
    uint64_t has = iok_count_get(c);

    return has == who || (has == 0 && atomic_compare_exchange_strong_explicit(&c->n, &has, who, memory_order_relaxed,
                                                                              memory_order_relaxed));
}

/* References: the last drop sees all that was written under the others. */
static inline void iok_count_ref(struct iok_count *c)
{
    atomic_fetch_add_explicit(&c->n, 1, memory_order_relaxed);
}

static inline bool iok_count_unref(struct iok_count *c)
{
    return atomic_fetch_sub_explicit(&c->n, 1, memory_order_acq_rel) == 1;
}

#endif
