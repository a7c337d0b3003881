#include "port.h"

#include "../base/err.h"

int iok_port_link_init(struct iok_port_link *link, uint32_t objects_max, struct iok_wake *kernel_wake)
{
    uint32_t entries = objects_max * IOK_PORT_VERBS;
    int rc;

    entries = entries < IOK_PORT_ENTRIES_MIN ? IOK_PORT_ENTRIES_MIN : entries;
    *link = (struct iok_port_link){.kernel_wake = kernel_wake, .owner = pthread_self()};
    rc = iok_wake_init(&link->wake);
    if (rc == 0) {
        rc = iok_ring_init(&link->sq, entries);
    }
    if (rc == 0) {
        rc = iok_ring_init(&link->cq, entries);
    }
    if (rc != 0) {
        iok_port_link_deinit(link);
    }
    return rc;
}

void iok_port_link_deinit(struct iok_port_link *link)
{
    iok_ring_deinit(&link->sq);
    iok_ring_deinit(&link->cq);
    iok_wake_deinit(&link->wake);
}

void iok_port_inbox_push(struct iok_port_inbox *inbox, struct iok_port_link *link)
{
    struct iok_port_link *first = atomic_load_explicit(&inbox->first, memory_order_relaxed);

    do {
        atomic_store_explicit(&link->next_new, first, memory_order_relaxed);
    } while (!atomic_compare_exchange_weak_explicit(&inbox->first, &first, link, memory_order_release,
                                                    memory_order_relaxed));
}

struct iok_port_link *iok_port_inbox_take(struct iok_port_inbox *inbox)
{
    return atomic_exchange_explicit(&inbox->first, NULL, memory_order_acquire);
}
