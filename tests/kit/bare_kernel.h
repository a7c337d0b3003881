/* bare_kernel.h - a kernel without a thread, on a network that the test gives: the test itself runs its turns. */
#ifndef IOK_TESTS_BARE_KERNEL_H
#define IOK_TESTS_BARE_KERNEL_H

#include "../../src/run.h"

/* NULL when out of memory or descriptors. */
struct iok_kernel *bare_kernel_new(struct iok_net *net, uint32_t port_calls_max);
/* Runs turns until the core would sleep; false when it does not come to rest. */
bool bare_kernel_rest(struct iok_kernel *kernel);
/* After iok_core_stop and the last port. */
void bare_kernel_free(struct iok_kernel *kernel);

#endif
