/* spsc.h - a ring between one producer and one consumer thread, of tagged pointers.
 *
 *     slots   [ . . a b c . . . ]      power of two
 *                   ^     ^
 *                 head   tail         free-running counters; head == tail: empty
 *
 * Each side keeps a private copy of the other's counter and looks at the shared one only when that copy says full or
 * empty, so in steady state a push or pop touches no cache line that the other side writes. */
#ifndef IOK_RING_SPSC_H
#define IOK_RING_SPSC_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define IOK_CACHE_LINE 64 /* x86-64 and most arm64 */

struct iok_ring {
    alignas(IOK_CACHE_LINE) _Atomic uint32_t tail; /* the producer's line */
    uint32_t head_seen;
    alignas(IOK_CACHE_LINE) _Atomic uint32_t head; /* the consumer's line */
    uint32_t tail_seen;
    alignas(IOK_CACHE_LINE) uintptr_t *slots; /* read only after init */
    uint32_t mask;
};

/* capacity is rounded up to a power of two, at most 2^30. 0 or IOK_ENOMEM. */
int iok_ring_init(struct iok_ring *ring, uint32_t capacity);
void iok_ring_deinit(struct iok_ring *ring);

/* Producer. false: full. */
static inline bool iok_ring_push(struct iok_ring *ring, uintptr_t value)
{
    uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);

    if (tail - ring->head_seen > ring->mask) {
        ring->head_seen = atomic_load_explicit(&ring->head, memory_order_acquire);
        if (tail - ring->head_seen > ring->mask) {
            return false;
        }
    }
    ring->slots[tail & ring->mask] = value;
    atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
    return true;
}

/* Producer: how many pushes are certain to succeed. */
static inline uint32_t iok_ring_room(struct iok_ring *ring)
{
    uint32_t used = atomic_load_explicit(&ring->tail, memory_order_relaxed) -
                    atomic_load_explicit(&ring->head, memory_order_acquire);

    return ring->mask + 1 - used;
}

/* Consumer. false: empty. */
static inline bool iok_ring_pop(struct iok_ring *ring, uintptr_t *value)
{
    uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

    if (head == ring->tail_seen) {
        ring->tail_seen = atomic_load_explicit(&ring->tail, memory_order_acquire);
        if (head == ring->tail_seen) {
            return false;
        }
    }
    *value = ring->slots[head & ring->mask];
    atomic_store_explicit(&ring->head, head + 1, memory_order_release);
    return true;
}

/* Consumer: what a later pop gives, ahead of the next one; 0 if that is not known to be there. */
static inline uintptr_t iok_ring_ahead(const struct iok_ring *ring, uint32_t ahead)
{
    uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

    return ring->tail_seen - head > ahead ? ring->slots[(head + ahead) & ring->mask] : 0;
}

/* Consumer: how many pops are certain to succeed. */
static inline uint32_t iok_ring_used(struct iok_ring *ring)
{
    return atomic_load_explicit(&ring->tail, memory_order_acquire) -
           atomic_load_explicit(&ring->head, memory_order_relaxed);
}

/* Consumer: nothing to pop at this moment. */
static inline bool iok_ring_empty(struct iok_ring *ring)
{
    return atomic_load_explicit(&ring->head, memory_order_relaxed) ==
           atomic_load_explicit(&ring->tail, memory_order_acquire);
}

#endif
