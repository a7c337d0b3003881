/* run.c - who runs the core, and when: the kernel thread, and waiters that lead it for a moment. fork.c has what fork does.
 *
 * A waiting thread has three ways to learn that its call has ended, tried in this order (docs/performance.md has the
 * figures): it leads (runs the loop itself, when no other thread's call is under way), it spins on its completion
 * ring (when one call is under way and a second CPU is there), it sleeps on its descriptor. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "net/chaos.h"
#include "net/uv.h"
#include "run.h"

#define IOK_PORT_CALLS 16384u              /* calls alive per port: 4 rings' worth is 1 MB of slots */
#define IOK_PORT_BYTES (UINT64_C(1) << 30) /* arguments of these: two of the largest values that Redis holds */
#define IOK_SPIN_NS 100000u                /* a wake-up across CPUs costs 20 to 160 us: spinning longer does not pay */
#define IOK_SPIN_QUICK_NS 200000u          /* waits longer than this on average are not worth spinning */
#define IOK_THREAD_SPIN_NS 50000u          /* the kernel thread, which nobody waits for at that moment */
#define IOK_SPIN_INFLIGHT 1u       /* with more calls under way the hand-off is shared, and the CPU wanted by others */
#define IOK_LEAD_CALLS 256u        /* with more of its own under way a waiter and the kernel thread work side by side */
#define IOK_GRACE_NS 300000u       /* how long the kernel thread leaves the baton to waiters that come and go */
#define IOK_LEAD_MAX_NS 2000000u   /* a slower reply is waited for asleep; also how late a signal is seen at most */
#define IOK_LEAD_QUICK_NS 1000000u /* waits longer than this on average are not worth leading */
#define IOK_PAUSES 16u             /* between two looks: under a microsecond (a pause takes 10 to 50 ns) */
#define IOK_WANT_SPINS 32u         /* looks at the baton while the kernel thread lets go: about 20 us */

static _Thread_local const struct iok_kernel *led; /* by this thread, just now */

uint64_t iok_now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * IOK_NS_S + (uint64_t)ts.tv_nsec;
}

/* ---- the kernel thread ---- */

/* The driver's turn; with chaos on top of it, that decides how long it may sleep. */
static void net_turn(struct iok_kernel *kernel, uint64_t deadline)
{
    if (kernel->chaos != NULL) {
        uint64_t due = iok_chaos_run(kernel->chaos);

        deadline = due < deadline ? due : deadline;
    }
    iok_uv_turn(kernel->net, deadline);
}

/* One turn of the loop by whoever holds the baton; sleeps at most until limit. */
static void turn(struct iok_kernel *kernel, uint64_t limit)
{
    struct iok_core *core = &kernel->core;
    uint64_t deadline = 0;

    iok_core_round(core);
    if (limit != 0 && iok_core_may_sleep(core)) {
        if (iok_baton_wanted(&kernel->baton) || iok_count_get(&kernel->stop) != 0) {
            iok_core_awake(core);
            return;
        }
        deadline = iok_core_deadline(core);
        deadline = deadline < limit ? deadline : limit;
        iok_count_own_add(&core->polls_blocking, 1);
        net_turn(kernel, deadline);
        iok_core_awake(core);
    } else {
        net_turn(kernel, 0);
    }
    iok_core_ring_ports(core);
}

static bool spins(const struct iok_kernel *kernel)
{
    return kernel->may_spin && (kernel->handoff == IOK_HANDOFF_AUTO || kernel->handoff == IOK_HANDOFF_SPIN);
}

static bool leads(const struct iok_kernel *kernel)
{
    return kernel->handoff == IOK_HANDOFF_AUTO || kernel->handoff == IOK_HANDOFF_LEAD;
}

/* Whether something happened lately, and little enough is under way, that not sleeping yet is worth it. */
static bool worth_spinning(struct iok_kernel *kernel, uint64_t *seen, uint64_t *since)
{
    struct iok_core *core = &kernel->core;
    uint64_t events = iok_count_get(&core->calls) + iok_count_get(&core->bytes_in);

    if (!spins(kernel) || iok_count_get(&core->inflight) > IOK_SPIN_INFLIGHT) {
        *seen = events;
        return false;
    }
    if (events != *seen) {
        *seen = events;
        *since = core->now;
    }
    return core->now - *since < IOK_THREAD_SPIN_NS;
}

static void woken(void *arg)
{
    (void)arg; /* the turn's end drains the descriptor */
}

static void *thread_main(void *arg)
{
    struct iok_kernel *kernel = arg;
    uint64_t seen = 0, since = 0;

    while (iok_count_get(&kernel->stop) == 0) {
        if (iok_baton_wanted(&kernel->baton)) {
            iok_baton_lend(&kernel->baton, IOK_GRACE_NS);
        }
        turn(kernel, worth_spinning(kernel, &seen, &since) ? 0 : UINT64_MAX);
    }
    iok_core_stop(&kernel->core);
    return NULL;
}

void iok_kick(struct iok_port *port)
{
    struct iok_kernel *kernel = port->owner;

    port->link.unkicked = 0;
    if (!iok_wake_ring(port->link.kernel_wake) && port->link.armed) {
        iok_baton_recall_if_free(&kernel->baton);
    }
}

/* ---- making and ending a kernel ---- */

static unsigned usable_cpus(void)
{
    unsigned n = 1;
#ifdef __linux__
    long quota = 0, period = 0;
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "re");
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        n = (unsigned)CPU_COUNT(&set);
    }
    if (file != NULL) {
        if (fscanf(file, "%ld %ld", &quota, &period) == 2 && period > 0 && quota / period < (long)n) {
            n = (unsigned)(quota / period);
        }
        (void)fclose(file);
    }
#endif
    return n;
}

static int start_thread(struct iok_kernel *kernel)
{
    sigset_t all, old;
    int rc;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(&kernel->thread, NULL, thread_main, kernel);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc == 0) {
#ifdef __linux__
        (void)pthread_setname_np(kernel->thread, kernel->name);
#endif
    }
    return rc;
}

/* The driver, and chaos on top of it where that is asked for. Else < 0 with *err, and nothing is made. */
static int start_net(struct iok_kernel *kernel, uint64_t seed, struct iok_error *err)
{
    kernel->net = iok_uv_new(kernel->core.wake.fd_read, woken, kernel, seed, err);
    if (kernel->net == NULL) {
        return err->code;
    }
    if (kernel->chaos_options != NULL) {
        kernel->chaos = iok_chaos_new(kernel->net, kernel->chaos_options, err);
        if (kernel->chaos == NULL) {
            iok_uv_free(kernel->net);
            kernel->net = NULL;
            return err->code;
        }
    }
    return 0;
}

static void stop_net(struct iok_kernel *kernel)
{
    iok_uv_free(kernel->net);
    kernel->net = kernel->core.net = NULL;
    if (kernel->chaos != NULL) {
        iok_chaos_free(kernel->chaos);
        kernel->chaos = NULL;
    }
}

int iok_kernel_start(struct iok_kernel *kernel, uint64_t seed, struct iok_error *err)
{
    struct iok_core *core = &kernel->core;

    iok_baton_init(&kernel->baton);
    if (start_net(kernel, seed, err) != 0) {
        return err->code;
    }
    iok_core_start(core, kernel->chaos != NULL ? kernel->chaos : kernel->net);
    if (start_thread(kernel) != 0) {
        stop_net(kernel);
        return iok_err(err, IOK_ESYSTEM, "the system refuses a thread more");
    }
    return 0;
}

struct iok_kernel *iok_kernel_new(const struct iok_options *options, struct iok_error *err)
{
    struct iok_options chosen = options != NULL ? *options : (struct iok_options){0};
    struct iok_kernel *kernel = iok_calloc_line(sizeof(*kernel));
    struct iok_error local;
    int rc = kernel == NULL ? IOK_ENOMEM : iok_core_init(&kernel->core);

    err = err == NULL ? &local : err;
    if (rc != 0) {
        iok_err(err, rc, rc == IOK_ENOMEM ? "out of memory for a kernel" : "no descriptor left for a kernel");
        if (kernel != NULL) {
            iok_core_deinit(&kernel->core);
        }
        iok_free(kernel);
        return NULL;
    }
    iok_count_set(&kernel->refs, 1);
    iok_count_set(&kernel->generation, iok_count_get(&iok_generation));
    iok_list_init(&kernel->left);
    kernel->seed = chosen.seed;
    kernel->port_calls_max = chosen.port_calls_max == 0 ? IOK_PORT_CALLS : chosen.port_calls_max;
    kernel->port_bytes_max = chosen.port_bytes_max == 0 ? IOK_PORT_BYTES : chosen.port_bytes_max;
    kernel->handoff = chosen.handoff;
    kernel->may_spin = usable_cpus() > 1;
    kernel->clock_trusted = iok_clock_is_trusted();
    (void)snprintf(kernel->name, sizeof(kernel->name), "%s", chosen.name != NULL ? chosen.name : "iokernel");
    if (chosen.chaos != NULL && chosen.chaos[0] != '\0') {
        kernel->chaos_options = iok_strndup(chosen.chaos, strlen(chosen.chaos));
        rc = kernel->chaos_options == NULL ? iok_err(err, IOK_ENOMEM, "out of memory for a kernel") : 0;
    }
    if (rc != 0 || iok_kernel_start(kernel, kernel->seed, err) != 0) {
        iok_free(kernel->chaos_options);
        iok_core_deinit(&kernel->core);
        iok_free(kernel);
        return NULL;
    }
    iok_fork_enlist(kernel);
    return kernel;
}

void iok_kernel_drop(struct iok_kernel *kernel)
{
    if (iok_count_unref(&kernel->refs)) {
        iok_free(kernel->chaos_options);
        iok_free(kernel);
    }
}

static void stop_thread(struct iok_kernel *kernel)
{
    iok_count_set(&kernel->stop, 1);
    (void)iok_wake_ring(&kernel->core.wake);
    iok_baton_recall_if_free(&kernel->baton);
    (void)pthread_join(kernel->thread, NULL);
    stop_net(kernel);
}

void iok_kernel_free(struct iok_kernel *kernel)
{
    iok_fork_hold(); /* no child gets a kernel that is half stopped */
    iok_fork_unlist(kernel);
    if (!kernel->torn) {
        if (iok_kernel_is_here(kernel)) {
            stop_thread(kernel);
        } else {
            iok_kernel_settle(kernel);
            iok_count_set(&kernel->stop, 1);
            iok_core_detach_ports(&kernel->core);
        }
        iok_core_deinit(&kernel->core);
    }
    iok_fork_release();
    iok_kernel_free_left(kernel);
    iok_kernel_drop(kernel);
}

void iok_kernel_stats(struct iok_kernel *kernel, struct iok_kernel_stats *out)
{
    const struct iok_core *core = &kernel->core;

    *out = (struct iok_kernel_stats){
        .rounds = iok_count_get(&core->rounds),
        .wakeups = iok_count_get(&core->wakeups),
        .polls_blocking = iok_count_get(&core->polls_blocking),
        .leads = iok_count_get(&core->leads),
        .port_wakeups = iok_count_get(&core->port_wakeups),
        .calls = iok_count_get(&core->calls),
        .bytes_in = iok_count_get(&core->bytes_in),
        .bytes_out = iok_count_get(&core->bytes_out),
        .objects = iok_count_get(&core->objects),
        .buffer_bytes = iok_count_get(&core->replies.bytes) + iok_count_get(&core->arguments.bytes) +
                        iok_count_get(&core->output.bytes),
    };
}

/* ---- waiting ---- */

/* What a thread waits for. */
struct goal {
    struct iok_port *port;
    struct iok_call *call; /* NULL: anything for iok_poll */
    bool message;          /* a message of its stream will do */
};

/* Takes what has come; true when the goal is reached. */
static bool reached(struct goal *goal)
{
    struct iok_port *port = goal->port;
    struct iok_call *news;
    size_t n;

    do {
        if (goal->call == NULL
                ? !iok_list_empty(&port->news)
                : (goal->call->app & (goal->message ? IOK_APP_ENDED : IOK_APP_ENDED | IOK_APP_HAND)) != 0 ||
                      (goal->message && iok_serve_is_over(goal->call)) ||
                      (goal->message && iok_call_message(goal->call, &n) != NULL)) {
            return true;
        }
        if (!iok_port_take(port, &news)) {
            return false;
        }
        if (news != NULL && !iok_node_linked(&news->pending)) {
            iok_list_push(&port->news, &news->pending);
        }
    } while (true);
}

/* Runs the loop until the goal is reached, or for as long as a quick reply may take. The baton is held. */
static bool lead(struct goal *goal, uint64_t deadline)
{
    struct iok_kernel *kernel = goal->port->owner;
    uint64_t start = iok_now_ns();
    uint64_t end = start + IOK_LEAD_MAX_NS < deadline ? start + IOK_LEAD_MAX_NS : deadline;
    bool quick = goal->port->quick_ns <= IOK_SPIN_QUICK_NS;
    uint64_t spin_end = start + (spins(kernel) && quick ? IOK_SPIN_NS : 0);
    bool done;

    iok_count_add(&kernel->core.leads, 1);
    led = kernel;
    kernel->core.leader = goal->port;
    goal->port->leading = true;
    for (;;) {
        turn(kernel, kernel->core.now < spin_end ? 0 : end);
        done = reached(goal);
        if (done || kernel->core.now >= end || iok_count_get(&kernel->stop) != 0) {
            break;
        }
    }
    led = NULL;
    kernel->core.leader = NULL;
    iok_baton_give(&kernel->baton, !done || iok_count_get(&kernel->core.inflight) > iok_count_get(&kernel->core.lent));
    goal->port->leading = false;
    iok_port_free_doomed(goal->port);
    return done;
}

bool iok_is_leading(const struct iok_kernel *kernel)
{
    return led == kernel;
}

static inline void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

/* Asks the kernel thread for the baton, and leads once it has it; true when the goal is reached. */
static bool try_lead(struct goal *goal, uint64_t deadline)
{
    struct iok_port *port = goal->port;
    struct iok_baton *baton = &port->owner->baton;
    bool done = false;

    /* Only with no call of other threads under way: they would wait for this one to be scheduled. */
    if (!leads(port->owner) || iok_count_get(&port->owner->core.inflight) > port->n_counted ||
        port->n_counted > IOK_LEAD_CALLS || port->quick_ns > IOK_LEAD_QUICK_NS) {
        return false;
    }
    if (iok_baton_try_take(baton)) {
        return lead(goal, deadline);
    }
    /* While it is asked for, the kernel thread does nothing but let go of it: nothing may hold this thread up here. */
    port->leading = true;
    iok_baton_want(baton);
    for (unsigned i = 0; i < IOK_WANT_SPINS && !done; i++) {
        if (iok_baton_try_take(baton)) {
            iok_baton_unwant(baton);
            return lead(goal, deadline);
        }
        for (unsigned j = 0; j < IOK_PAUSES; j++) {
            pause_cpu();
        }
        done = reached(goal);
    }
    iok_baton_unwant(baton);
    iok_baton_recall_if_free(baton); /* it may have let go just now */
    port->leading = false;
    iok_port_free_doomed(port);
    return done;
}

static bool spin(struct goal *goal)
{
    struct iok_kernel *kernel = goal->port->owner;
    uint64_t end;

    if (!spins(kernel) || iok_count_get(&kernel->core.inflight) > IOK_SPIN_INFLIGHT ||
        goal->port->quick_ns > IOK_SPIN_QUICK_NS) {
        return false;
    }
    end = iok_now_ns() + IOK_SPIN_NS;
    do {
        for (unsigned j = 0; j < IOK_PAUSES; j++) {
            pause_cpu();
        }
        if (reached(goal)) {
            return true;
        }
    } while (iok_now_ns() < end);
    return false;
}

/* Sleeps on the descriptor. 0, IOK_ETIMEOUT or IOK_EINTR. */
static int sleep_until(struct goal *goal, uint64_t deadline)
{
    struct iok_wake *wake = &goal->port->link.wake;
    struct pollfd fd = {.fd = wake->fd_read, .events = POLLIN};
    int rc = 0;

    while (rc == 0) {
        uint64_t now = iok_now_ns();
        uint64_t left = deadline > now ? deadline - now : 0;
        struct timespec ts = {.tv_sec = (time_t)(left / IOK_NS_S), .tv_nsec = (long)(left % IOK_NS_S)};
        int n;

        iok_wake_arm(wake);
        if (reached(goal)) {
            break;
        }
        n = left == 0 ? 0 : ppoll(&fd, 1, deadline == UINT64_MAX ? NULL : &ts, NULL);
        if (n < 0 && errno == EINTR) {
            rc = IOK_EINTR;
        } else if (n == 0) {
            rc = IOK_ETIMEOUT;
        }
        if (iok_wake_disarm(wake)) {
            iok_wake_drain(wake);
        }
        if (reached(goal)) {
            rc = 0;
            break;
        }
    }
    if (iok_wake_disarm(wake)) {
        iok_wake_drain(wake);
    }
    return rc;
}

static int wait_for(struct goal *goal, int64_t timeout_ms)
{
    struct iok_port *port = goal->port;
    uint64_t start = iok_now_ns();
    uint64_t deadline = timeout_ms < 0 ? UINT64_MAX : start + (uint64_t)timeout_ms * IOK_NS_MS;
    int rc = iok_port_check(port, NULL);

    if (rc != 0) {
        return rc;
    }
    if (port->link.armed && iok_wake_disarm(&port->link.wake)) { /* while awake, no descriptor needs writing */
        iok_wake_drain(&port->link.wake);
    }
    if (!reached(goal)) {
        if (!try_lead(goal, deadline)) {
            iok_kick(port);
            if (!spin(goal)) {
                rc = sleep_until(goal, deadline);
            }
        }
    }
    port->quick_ns += (iok_now_ns() - start) / 8 - port->quick_ns / 8;
    if (port->link.armed) { /* the program watches the descriptor, too */
        iok_wake_arm(&port->link.wake);
        if (!iok_ring_empty(&port->link.cq) || !iok_list_empty(&port->news)) {
            iok_port_owe(port);
        }
    }
    return rc;
}

void iok_port_unwatch(struct iok_port *port)
{
    if (iok_port_check(port, NULL) == 0 && port->link.armed) {
        port->link.armed = false;
        if (iok_wake_disarm(&port->link.wake)) {
            iok_wake_drain(&port->link.wake);
        }
    }
}

int iok_wait(struct iok_port *port, int64_t timeout_ms)
{
    struct goal goal = {.port = port};

    return wait_for(&goal, timeout_ms);
}

static int wait_call(struct iok_call *call, int64_t timeout_ms, bool message)
{
    struct goal goal = {.port = call->port, .call = call, .message = message};
    int rc;

    if ((call->app & IOK_APP_SUBMITTED) == 0) {
        return IOK_ESTATE;
    }
    call->app |= IOK_APP_WAITED;
    rc = wait_for(&goal, timeout_ms);
    call->app &= ~(uint32_t)IOK_APP_WAITED;
    if (iok_node_linked(&call->pending)) {
        iok_list_remove(&call->pending);
    }
    return rc;
}

int iok_wait_call(struct iok_call *call, int64_t timeout_ms)
{
    return wait_call(call, timeout_ms, false);
}

int iok_wait_message(struct iok_call *call, int64_t timeout_ms)
{
    return wait_call(call, timeout_ms, true);
}
