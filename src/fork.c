/* fork.c - fork() is a non-event: the parent goes on, and in the child the same handles work on a thread and on
 * connections of its own.
 *
 *     before        every core is brought to a stop between two turns: the forking thread takes its baton
 *     parent        gives the batons back
 *     child, then   descriptors are closed, silently; nothing else, as most children only call exec
 *     child, later  at the first use of a handle the kernel is settled (what was under way ends as IOK_EFORKED), and then
 *                   revived (wake-ups, driver, thread); services connect at their next call
 *
 * Invariants: a child has no descriptor of a socket, an epoll set or a wake-up that its parent has. It writes nothing to
 * them before it closes them. Until a kernel is settled the core's memory is as it was, so that calls, leases and ports
 * that the child frees meanwhile stay where the core finds them. OpenSSL is not called before the first use of a handle:
 * a thread that is not here may have held one of its locks.
 *
 * A core that could not be brought to a stop leaves a child that cannot use the kernel (IOK_EFORKED): a signal handler forked
 * amid a turn, and is to exec. Its descriptors stay as they are until then, but for listening sockets: a child that stays
 * would hold the port.
 *
 * A port whose thread is not in the child is lost: its thread may have been amid changing its lists. Its rings are whole,
 * so that what it had submitted ends; its calls' memory is not given back. */
#include <pthread.h>
#include <sched.h>

#include "net/chaos.h"
#include "net/uv.h"
#include "run.h"

/* A turn takes microseconds and a leader gives the baton back within 2 ms; but the machine may be busy. */
#define IOK_PAUSE_MAX_NS (10 * IOK_NS_S)

struct iok_count iok_generation;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the list, and of who stops, revives or frees a kernel */
static struct iok_kernel *kernels;
static pthread_once_t once = PTHREAD_ONCE_INIT;

void iok_fork_hold(void)
{
    (void)pthread_mutex_lock(&lock);
}

void iok_fork_release(void)
{
    (void)pthread_mutex_unlock(&lock);
}

/* ---- around fork() ---- */

static bool pause_core(struct iok_kernel *kernel)
{
    uint64_t give_up = iok_now_ns() + IOK_PAUSE_MAX_NS;
    bool paused;

    if (iok_is_leading(kernel)) { /* a signal handler forks: the child may only call exec, as POSIX has it */
        return false;
    }
    iok_baton_want(&kernel->baton);
    while (!(paused = iok_baton_try_take(&kernel->baton)) && iok_now_ns() < give_up) {
        (void)iok_wake_ring(&kernel->core.wake);
        (void)sched_yield();
    }
    iok_baton_unwant(&kernel->baton);
    return paused;
}

static void before_fork(void)
{
    iok_fork_hold();
    for (struct iok_kernel *kernel = kernels; kernel != NULL; kernel = kernel->next) {
        kernel->paused = iok_kernel_is_here(kernel) && pause_core(kernel);
    }
}

static void after_fork_parent(void)
{
    for (struct iok_kernel *kernel = kernels; kernel != NULL; kernel = kernel->next) {
        if (kernel->paused) {
            iok_baton_give(&kernel->baton, true);
        }
    }
    iok_fork_release();
}

static void after_fork_child(void)
{
    for (struct iok_kernel *kernel = kernels; kernel != NULL; kernel = kernel->next) {
        struct iok_core *core = &kernel->core;

        if (iok_kernel_is_here(kernel)) { /* else it was left behind by an earlier fork already */
            kernel->torn = !kernel->paused;
            kernel->settled = false;
            iok_core_leave_listeners(core);
            if (!kernel->torn) {
                iok_uv_forget(kernel->net);
                iok_wake_deinit(&core->wake);
                (void)iok_wake_disarm(&core->wake);
            }
        }
        if (!kernel->torn) {
            iok_core_leave_ports(core);
            iok_list_each (&core->ports, node, after) {
                iok_parked_forked(iok_container(node, struct iok_port, node));
            }
        }
    }
    iok_count_set(&iok_generation, iok_count_get(&iok_generation) + 1);
    iok_fork_release();
}

static void register_handlers(void)
{
    (void)pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

void iok_fork_enlist(struct iok_kernel *kernel)
{
    (void)pthread_once(&once, register_handlers);
    iok_fork_hold();
    kernel->next = kernels;
    kernels = kernel;
    iok_fork_release();
}

void iok_fork_unlist(struct iok_kernel *kernel)
{
    struct iok_kernel **at = &kernels;

    while (*at != NULL && *at != kernel) {
        at = &(*at)->next;
    }
    if (*at != NULL) {
        *at = kernel->next;
    }
}

/* ---- in the child, later ---- */

void iok_kernel_settle(struct iok_kernel *kernel)
{
    struct iok_core *core = &kernel->core;

    if (kernel->settled) {
        return;
    }
    kernel->settled = true;
    iok_core_settle(core, iok_now_ns());
    iok_uv_free_forgotten(kernel->net);
    if (kernel->chaos != NULL) {
        iok_chaos_free(kernel->chaos);
    }
    kernel->net = kernel->chaos = core->net = NULL;
    iok_list_each (&core->ports, node, after) {
        struct iok_port *port = iok_container(node, struct iok_port, node);

        if (port->lost || port->left) {
            iok_core_detach_port(core, port);
        }
        if (port->left) {
            iok_list_push(&kernel->left, node);
        }
    }
}

/* Wake-ups that the core and the ports of this process have for themselves. */
static int renew_wakes(struct iok_core *core, struct iok_error *err)
{
    int rc = iok_wake_renew(&core->wake);

    iok_list_each (&core->ports, node, after) {
        struct iok_port *port = iok_container(node, struct iok_port, node);

        if (rc == 0 && port->link.wake.fd_read < 0) {
            rc = iok_wake_renew(&port->link.wake);
        }
    }
    return rc == 0 ? 0 : iok_err(err, rc, "no descriptor left for the kernel after fork()");
}

/* The program watches the port's descriptor, and is to see what has come with the settling. */
static void arm_port(struct iok_port *port)
{
    iok_wake_arm(&port->link.wake);
    if (!iok_ring_empty(&port->link.cq) || !iok_list_empty(&port->news)) {
        iok_wake_write(&port->link.wake);
        port->link.wake.owed = true;
    }
}

static int start_anew(struct iok_kernel *kernel, struct iok_error *err)
{
    uint64_t generation = iok_count_get(&iok_generation);
    int rc = renew_wakes(&kernel->core, err);

    if (rc == 0) {
        iok_list_each (&kernel->core.ports, node, after) {
            struct iok_port *port = iok_container(node, struct iok_port, node);

            if (port->link.armed) {
                arm_port(port);
            }
        }
        /* Siblings are not to do the same things at the same times. */
        rc = iok_kernel_start(kernel, kernel->seed == 0 ? 0 : kernel->seed + generation, err);
    }
    if (rc == 0) {
        iok_count_publish(&kernel->generation, generation);
    } else {
        iok_wake_deinit(&kernel->core.wake);
    }
    return rc;
}

int iok_kernel_revive(struct iok_kernel *kernel, struct iok_error *err)
{
    struct iok_error local;
    int rc = 0;

    if (kernel->torn) {
        return iok_err(err, IOK_EFORKED, "the kernel belongs to the parent process, which forked amid its work");
    }
    iok_fork_hold();
    if (iok_count_get(&kernel->stop) != 0) { /* by the parent, or here: there is nothing to revive */
        iok_count_publish(&kernel->generation, iok_count_get(&iok_generation));
    } else if (!iok_kernel_is_here(kernel)) {
        iok_kernel_settle(kernel);
        rc = start_anew(kernel, err == NULL ? &local : err);
    }
    iok_fork_release();
    iok_kernel_free_left(kernel);
    return rc;
}

bool iok_port_leave(struct iok_port *port)
{
    iok_fork_hold();
    port->left = !iok_kernel_is_here(port->owner) && iok_count_get(&port->owner->stop) == 0;
    if (port->left && port->owner->settled) { /* reviving has failed so far */
        iok_core_detach_port(&port->owner->core, port);
        iok_list_push(&port->owner->left, &port->node);
    }
    iok_fork_release();
    return port->left;
}

void iok_kernel_free_left(struct iok_kernel *kernel)
{
    struct iok_node *node;

    do { /* one at a time: freeing calls back into the program */
        iok_fork_hold();
        node = iok_list_pop(&kernel->left);
        iok_fork_release();
        if (node != NULL) {
            iok_port_free_now(iok_container(node, struct iok_port, node));
        }
    } while (node != NULL);
}
