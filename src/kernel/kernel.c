/* kernel.c - one turn of the core: messages of the ports in, timers, bytes out, ports told. */
#include <assert.h>
#include <stdio.h>
#include <time.h>

#include "../base/mem.h"
#include "serve.h"

#define IOK_SCRATCH_BYTES (256u * 1024) /* as in conn.c */
#define IOK_NAP_NS UINT64_C(1000000)    /* sleep at most, while a program is in the midst of a burst */
#define IOK_PORT_BATCH 256u             /* messages of one port before the others have their turn, and bytes go out */

int iok_core_init(struct iok_core *core)
{
    int rc;

    *core = (struct iok_core){0};
    iok_list_init(&core->ports);
    iok_list_init(&core->services);
    iok_list_init(&core->dirty);
    iok_list_init(&core->to_ring);
    iok_list_init(&core->dead);
    iok_list_init(&core->pumps);
    iok_list_init(&core->listeners);
    iok_list_init(&core->dead_guests);
    iok_list_init(&core->unsent);
    iok_list_init(&core->spare_requests);
    rc = iok_wake_init(&core->wake); /* first: iok_core_deinit closes what it names, and 0 is a descriptor */
    core->scratch = iok_malloc(IOK_SCRATCH_BYTES);
    return rc != 0 ? rc : core->scratch == NULL ? IOK_ENOMEM : 0;
}

void iok_core_start(struct iok_core *core, struct iok_net *net)
{
    core->net = net;
    core->now = net->ops->now(net);
    iok_wheel_init(&core->wheel, core->now);
}

void iok_core_deinit(struct iok_core *core)
{
    struct iok_node *node;

    iok_wake_deinit(&core->wake);
    iok_free(core->scratch);
    core->scratch = NULL;
    while ((node = iok_list_pop(&core->spare_requests)) != NULL) {
        iok_free(iok_container(node, struct iok_request, node));
    }
    iok_out_spare_deinit(&core->spare_output);
}

/* Completions before a sleeping port is woken early, to work in parallel. The slower the program, the more it gains by an
 * early start; a quick one catches up with the kernel, and sleeps and is woken more often (docs/performance.md). */
#define IOK_RING_EVERY 32u

void iok_core_tell(struct iok_core *core, struct iok_port *port, uintptr_t entry)
{
    bool pushed = iok_ring_push(&port->link.cq, entry);

    assert(pushed); /* the slot was reserved, see port.h */
    (void)pushed;
    if (!iok_node_linked(&port->ring_node)) {
        iok_list_push(&core->to_ring, &port->ring_node);
    }
    if (++core->unrung == IOK_RING_EVERY) {
        iok_core_ring_ports(core);
    }
}

struct iok_span iok_core_date(struct iok_core *core)
{
    static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    char text[64];
    time_t now;
    struct tm tm;

    if (core->now >= core->date_until) {
        now = (time_t)core->net->ops->wall(core->net);
        (void)gmtime_r(&now, &tm);
        (void)snprintf(text, sizeof(text), "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT", days + 3 * tm.tm_wday, tm.tm_mday,
                       months + 3 * tm.tm_mon, tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
        memcpy(core->date, text, IOK_DATE_BYTES);
        core->date_until = core->now + IOK_NS_S / 4;
    }
    return iok_span(core->date, IOK_DATE_BYTES);
}

void iok_core_ring_ports(struct iok_core *core)
{
    struct iok_node *node;

    core->unrung = 0;
    while ((node = iok_list_pop(&core->to_ring)) != NULL) {
        if (iok_wake_ring(&iok_container(node, struct iok_port, ring_node)->link.wake)) {
            iok_count_own_add(&core->port_wakeups, 1);
        }
    }
}

static void meet_ports(struct iok_core *core)
{
    struct iok_port_link *link = iok_port_inbox_empty(&core->inbox) ? NULL : iok_port_inbox_take(&core->inbox);

    while (link != NULL) {
        struct iok_port_link *next = iok_port_link_next(link);

        iok_list_push(&core->ports, &iok_container(link, struct iok_port, link)->node);
        link = next;
    }
}

static void cancel(struct iok_core *core, struct iok_port *port, struct iok_call *call)
{
    struct iok_error err;

    iok_err(&err, IOK_ECANCELLED, "cancelled");
    if ((call->flags & IOK_CALL_SERVE) != 0) {
        iok_serve_cut(core, call, &err);
    } else if (iok_serves(call)) {
        iok_serve_part_cut(call, &err);
    } else {
        iok_call_cut(core, call, &err);
    }
    iok_core_tell(core, port, iok_entry(call, IOK_CQ_CANCELLED));
}

static void release(struct iok_core *core, struct iok_port *port, struct iok_lease *lease)
{
    iok_lease_release(core, lease);
    iok_core_tell(core, port, iok_entry(lease, IOK_CQ_RELEASED));
}

void iok_core_detach_port(struct iok_core *core, struct iok_port *port)
{
    iok_timer_stop(&core->wheel, &port->due);
    iok_list_remove(&port->node);
    iok_list_each (&core->listeners, node, after) {
        iok_listener_forget_port(iok_container(node, struct iok_listener, node), port);
    }
    if (iok_node_linked(&port->ring_node)) {
        iok_list_remove(&port->ring_node);
    }
    iok_port_set_detached(&port->link);
}

/* The program wants to be woken at a time: calls are parked on the port, and it is their deadline. */
static void set_due(struct iok_core *core, struct iok_port *port)
{
    (void)iok_count_exchange(&port->due_posted, 0); /* before the time is read: a later one is posted again */
    port->due.kind = IOK_TIMER_PORT;
    iok_timer_set(&core->wheel, &port->due, iok_count_get(&port->due_at));
}

static void port_due(struct iok_core *core, struct iok_port *port)
{
    iok_core_tell(core, port, iok_entry(port, IOK_CQ_DUE));
}

static void close_service(struct iok_core *core, struct iok_service *service)
{
    struct iok_error err;

    iok_service_start(core, service);
    iok_err(&err, IOK_ECLOSED, "%s was closed", service->name);
    iok_service_stop(service, &err);
    if (iok_node_linked(&service->node)) {
        iok_list_remove(&service->node);
        iok_service_drop(service); /* the core's reference */
    }
    iok_service_drop(service); /* the message's own reference */
}

/* The lines of the next requests come from the program's processor while this one is dealt with: first a call's own, then
 * what they lead to. */
static inline void fetch_ahead(const struct iok_port *port)
{
    uintptr_t next = iok_ring_ahead(&port->link.sq, 0), entry = iok_ring_ahead(&port->link.sq, 1);
    const struct iok_call *call = iok_entry_object(entry), *nearer = iok_entry_object(next);

    if (nearer != NULL && iok_entry_verb(next) == IOK_SQ_SUBMIT) { /* else it may be a lease or a service */
        __builtin_prefetch(nearer->args.tokens);
        __builtin_prefetch(nearer->args.tokens + 4);
    }
    if (call != NULL && iok_entry_verb(entry) == IOK_SQ_SUBMIT) {
        __builtin_prefetch(&call->port);
        __builtin_prefetch(&call->node, 1);
        __builtin_prefetch(&call->stamps, 1);
    }
}

/* true: the port may have more, or is gone. */
static bool take_message(struct iok_core *core, struct iok_port *port)
{
    uintptr_t entry;
    void *object;

    if (!iok_ring_pop(&port->link.sq, &entry)) {
        return false;
    }
    object = iok_entry_object(entry);
    fetch_ahead(port);
    switch (iok_entry_verb(entry)) {
    case IOK_SQ_SUBMIT:
        if ((((struct iok_call *)object)->flags & IOK_CALL_SERVE) != 0) {
            iok_serve_take(core, object);
        } else if (iok_serves(object)) {
            iok_serve_part(core, object);
        } else {
            iok_call_take(core, object);
        }
        return true;
    case IOK_SQ_CANCEL:
        cancel(core, port, object);
        return true;
    case IOK_SQ_CREDIT:
        iok_service_credit(object);
        iok_service_drop(object); /* the message's own reference */
        return true;
    case IOK_SQ_RELEASE:
        release(core, port, object);
        return true;
    case IOK_SQ_OPEN:
        iok_service_start(core, object);
        iok_service_drop(object); /* the message's own reference */
        return true;
    case IOK_SQ_CLOSE:
        close_service(core, object);
        return true;
    case IOK_SQ_DRAIN:
        iok_listener_drain(core, object);
        iok_listener_drop(object); /* the message's own reference */
        return true;
    case IOK_SQ_SECURE:
        iok_listener_secure(object);
        iok_listener_drop(object); /* the message's own reference */
        return true;
    case IOK_SQ_TAKEN:
        iok_intake_resume(object);
        return true;
    case IOK_SQ_HEARD:
        iok_serve_heard(object);
        return true;
    case IOK_SQ_DUE:
        set_due(core, port);
        return true;
    case IOK_SQ_DETACH:
        iok_core_detach_port(core, port);
        return false;
    }
    return false;
}

static void fire_timers(struct iok_core *core)
{
    struct iok_timer *timer;

    while ((timer = iok_wheel_expire(&core->wheel, core->now)) != NULL) {
        switch ((enum iok_timer_kind)timer->kind) {
        case IOK_TIMER_CALL:
            iok_call_deadline(core, iok_container(timer, struct iok_call, deadline));
            break;
        case IOK_TIMER_CONN:
            iok_conn_timer(iok_container(timer, struct iok_conn, timer));
            break;
        case IOK_TIMER_ENDPOINT:
            iok_endpoint_timer(iok_container(timer, struct iok_endpoint, retry));
            break;
        case IOK_TIMER_CANCEL:
            iok_cancel_timer(iok_container(timer, struct iok_conn, cancel.timer));
            break;
        case IOK_TIMER_PORT:
            port_due(core, iok_container(timer, struct iok_port, due));
            break;
        case IOK_TIMER_LISTENER:
            iok_listener_timer(iok_container(timer, struct iok_listener, timer));
            break;
        case IOK_TIMER_GUEST:
            iok_guest_timer(iok_container(timer, struct iok_guest, timer));
            break;
        }
    }
}

static void pump_all(struct iok_core *core)
{
    struct iok_list round;
    struct iok_node *node;

    iok_list_init(&round); /* what pumping marks again waits for the next turn */
    while ((node = iok_list_pop(&core->pumps)) != NULL) {
        iok_list_push(&round, node);
    }
    while ((node = iok_list_pop(&round)) != NULL) {
        iok_service_pump(iok_container(node, struct iok_service, pump_node));
    }
}

static void flush_all(struct iok_core *core)
{
    struct iok_list round;
    struct iok_node *node;

    iok_list_init(&round); /* what has much to send goes on in the next turn */
    while ((node = iok_list_pop(&core->dirty)) != NULL) {
        iok_list_push(&round, node);
    }
    while ((node = iok_list_pop(&round)) != NULL) {
        iok_conn_flush(iok_container(node, struct iok_conn, dirty_node));
    }
    while ((node = iok_list_pop(&core->unsent)) != NULL) {
        iok_list_push(&round, node);
    }
    while ((node = iok_list_pop(&round)) != NULL) {
        struct iok_guest *guest = iok_container(node, struct iok_guest, more);

        iok_guest_flush(guest);
        iok_guest_go_on(guest);
    }
}

static void reap(struct iok_core *core)
{
    struct iok_node *node;

    while ((node = iok_list_pop(&core->dead)) != NULL) {
        iok_conn_free(iok_container(node, struct iok_conn, node));
        iok_count_own_sub(&core->objects, 1);
    }
    while ((node = iok_list_pop(&core->dead_guests)) != NULL) {
        iok_guest_free(iok_container(node, struct iok_guest, node));
        iok_count_own_sub(&core->objects, 1);
    }
}

void iok_core_round(struct iok_core *core)
{
    iok_count_own_add(&core->rounds, 1);
    core->now = core->net->ops->now(core->net);
    iok_core_ring_ports(core);
    meet_ports(core);
    iok_list_each (&core->ports, node, after) {
        struct iok_port *port = iok_container(node, struct iok_port, node);

        for (uint32_t i = 0; i < IOK_PORT_BATCH && take_message(core, port); i++) {
        }
    }
    fire_timers(core);
    pump_all(core);
    flush_all(core);
    iok_core_ring_ports(core);
    reap(core);
}

bool iok_core_may_sleep(struct iok_core *core)
{
    bool work = !iok_list_empty(&core->pumps) || !iok_list_empty(&core->dirty) || !iok_list_empty(&core->unsent);

    iok_wake_arm(&core->wake);
    work |= !iok_port_inbox_empty(&core->inbox);
    core->napping = false;
    iok_list_each (&core->ports, node, after) {
        struct iok_port_link *link = &iok_container(node, struct iok_port, node)->link;
        bool bursting = iok_port_is_bursting(link);

        work |= iok_ring_used(&link->sq) >= (bursting ? IOK_BURST_CALLS : 1);
        core->napping |= bursting;
    }
    if (work) {
        iok_core_awake(core);
    }
    return !work;
}

void iok_core_awake(struct iok_core *core)
{
    if (iok_wake_disarm(&core->wake)) {
        iok_wake_drain(&core->wake);
        iok_count_own_add(&core->wakeups, 1);
    }
}

uint64_t iok_core_deadline(const struct iok_core *core)
{
    uint64_t next = iok_wheel_next(&core->wheel);

    return core->napping && next > core->now + IOK_NAP_NS ? core->now + IOK_NAP_NS : next;
}

void iok_core_stop(struct iok_core *core)
{
    struct iok_error err;
    struct iok_node *node;

    iok_err(&err, IOK_ECLOSED, "the kernel was stopped");
    core->stopping = true;
    iok_core_round(core); /* what was submitted before ends here */
    while ((node = iok_list_pop(&core->services)) != NULL) {
        struct iok_service *service = iok_container(node, struct iok_service, node);

        iok_service_stop(service, &err);
        iok_service_drop(service);
    }
    while ((node = iok_list_first(&core->listeners)) != NULL) {
        iok_listener_stop(iok_container(node, struct iok_listener, node), &err);
    }
    reap(core);
    iok_core_ring_ports(core);
    iok_core_detach_ports(core);
}

void iok_core_detach_ports(struct iok_core *core)
{
    struct iok_node *node;

    while ((node = iok_list_first(&core->ports)) != NULL) {
        iok_core_detach_port(core, iok_container(node, struct iok_port, node));
    }
}

/* ---- the core in the child of a fork ---- */

void iok_core_leave_listeners(struct iok_core *core)
{
    if (iok_count_get(&core->relisting) != 0) {
        return;
    }
    iok_list_each (&core->listeners, node, after) {
        iok_listener_leave(iok_container(node, struct iok_listener, node));
    }
}

void iok_core_leave_ports(struct iok_core *core)
{
    meet_ports(core);
    iok_list_each (&core->ports, node, after) {
        struct iok_port *port = iok_container(node, struct iok_port, node);

        port->lost |= !pthread_equal(port->link.owner, pthread_self());
        /* The number stays only where the program may have noted it. Elsewhere there is none until it is needed: a
         * child that becomes a daemon may close all numbers, and use them for files of its own. */
        if (port->lost || !port->link.armed || iok_wake_renew(&port->link.wake) != 0) {
            iok_wake_deinit(&port->link.wake);
        }
        (void)iok_wake_disarm(&port->link.wake);
        port->link.wake.owed = false;
    }
}

void iok_core_settle(struct iok_core *core, uint64_t now)
{
    struct iok_error err;
    struct iok_node *node;

    iok_err(&err, IOK_EFORKED, "it was under way at fork(), and belongs to the parent process");
    core->now = now;
    core->stopping = true; /* nothing is opened, nothing is repeated */
    core->forked = &err;
    iok_list_each (&core->services, at, after) {
        iok_service_forget_links(iok_container(at, struct iok_service, node));
    }
    iok_list_each (&core->listeners, at, after) {
        iok_listener_forget_links(iok_container(at, struct iok_listener, node));
    }
    iok_list_each (&core->ports, at, after) {
        struct iok_port *port = iok_container(at, struct iok_port, node);

        while (take_message(core, port)) {
        }
        iok_timer_stop(&core->wheel, &port->due);
    }
    while ((node = iok_list_pop(&core->services)) != NULL) {
        struct iok_service *service = iok_container(node, struct iok_service, node);

        iok_service_forked(service, &err);
        iok_service_drop(service);
    }
    while ((node = iok_list_first(&core->listeners)) != NULL) {
        iok_listener_forked(iok_container(node, struct iok_listener, node), &err);
    }
    reap(core);
    iok_core_ring_ports(core); /* none is armed: only empties the list */
    core->stopping = false;
    core->forked = NULL;
}
