#include "bare_kernel.h"

#include "../../src/base/mem.h"

#define BYTES_MAX (UINT64_C(1) << 30) /* of the arguments of a port: no test comes near by accident */
#define TURNS_MAX 1000u /* far more than work needs that a test hands in at once: a port has 256 messages a turn */

struct iok_kernel *bare_kernel_new(struct iok_net *net, uint32_t port_calls_max)
{
    struct iok_kernel *kernel = iok_calloc_line(sizeof(*kernel));

    if (kernel == NULL || iok_core_init(&kernel->core) != 0) {
        return NULL;
    }
    iok_count_set(&kernel->refs, 1);
    iok_count_set(&kernel->generation, iok_count_get(&iok_generation));
    kernel->port_calls_max = port_calls_max;
    kernel->port_bytes_max = BYTES_MAX;
    kernel->net = net;
    iok_baton_init(&kernel->baton);
    iok_core_start(&kernel->core, net);
    return kernel;
}

bool bare_kernel_rest(struct iok_kernel *kernel)
{
    unsigned turns = 0;

    do {
        iok_core_round(&kernel->core);
        if (++turns == TURNS_MAX) {
            return false;
        }
    } while (!iok_core_may_sleep(&kernel->core));
    iok_core_awake(&kernel->core);
    return true;
}

void bare_kernel_free(struct iok_kernel *kernel)
{
    iok_core_deinit(&kernel->core);
    iok_kernel_drop(kernel);
}
