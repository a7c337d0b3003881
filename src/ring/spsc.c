#include "spsc.h"

#include "../base/err.h"
#include "../base/mem.h"

int iok_ring_init(struct iok_ring *ring, uint32_t capacity)
{
    uint32_t size = 2;

    while (size < capacity && size < (1u << 30)) {
        size *= 2;
    }
    *ring = (struct iok_ring){.slots = iok_calloc(size * sizeof(*ring->slots)), .mask = size - 1};
    return ring->slots == NULL ? IOK_ENOMEM : 0;
}

void iok_ring_deinit(struct iok_ring *ring)
{
    iok_free(ring->slots);
    ring->slots = NULL;
}
