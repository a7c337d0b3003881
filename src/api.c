/* api.c - the program's side of the public API: ports and calls; what calls say is in api_args.c, services and leases in
 * api_service.c, serving in api_serve.c. What runs the core is in run.c. */
#include <assert.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "kernel/serve.h"
#include "run.h"

#define IOK_FREE_CALLS_MAX 2048u /* kept for reuse: 3 MB */

int iok_port_check_owner(const struct iok_port *port, struct iok_error *err)
{
    if (port->lost) {
        return iok_err(err, IOK_EFORKED, "this port belongs to a thread of the parent process: make one here");
    }
    if (!pthread_equal(port->link.owner, pthread_self())) {
        return iok_err(err, IOK_ETHREAD, "this port belongs to another thread: use one port for each thread");
    }
    return 0;
}

int iok_port_check(struct iok_port *port, struct iok_error *err)
{
    int rc = iok_port_check_owner(port, err);

    return rc != 0 || iok_kernel_is_here(port->owner) ? rc : iok_kernel_revive(port->owner, err);
}

/* ---- ports ---- */

struct iok_port *iok_port_new(struct iok_kernel *kernel, struct iok_error *err)
{
    struct iok_port *port;
    int rc;

    if (!iok_kernel_is_here(kernel) && iok_kernel_revive(kernel, err) != 0) {
        return NULL;
    }
    if (iok_count_get(&kernel->stop) != 0) {
        iok_err(err, IOK_ECLOSED, "the kernel is stopped");
        return NULL;
    }
    port = iok_calloc_line(sizeof(*port));
    if (port == NULL) {
        iok_err(err, IOK_ENOMEM, "out of memory for a port");
        return NULL;
    }
    rc = iok_port_link_init(&port->link, kernel->port_calls_max, &kernel->core.wake);
    if (rc != 0) {
        iok_err(err, rc, rc == IOK_ENOMEM ? "out of memory for a port" : "no descriptor left for a port");
        iok_free(port);
        return NULL;
    }
    iok_list_init(&port->free_calls);
    iok_list_init(&port->news);
    iok_list_init(&port->calls);
    iok_list_init(&port->leases);
    iok_list_init(&port->doomed);
    iok_list_init(&port->parked);
    port->owner = kernel;
    port->calls_max = kernel->port_calls_max;
    port->bytes_max = port->bytes_left = kernel->port_bytes_max;
    port->due_ns = UINT64_MAX;
    port->clock.trusted = kernel->clock_trusted;
    iok_count_ref(&kernel->refs);
    iok_port_inbox_push(&kernel->core.inbox, &port->link);
    iok_kick(port);
    return port;
}

void iok_port_adopt(struct iok_port *port)
{
    port->link.owner = pthread_self();
}

static void free_call_memory(struct iok_call *call)
{
    iok_tape_deinit(&call->args);
    iok_tape_deinit(&call->reply);
    iok_free(call);
}

static void detach(struct iok_port *port)
{
    while (port->n_calls != 0 || port->n_leases != 0) { /* the kernel needs nothing of the program for this */
        struct iok_call *news;

        iok_kick(port);
        if (!iok_port_take(port, &news)) {
            (void)iok_wait(port, 100);
        } else if (news != NULL) {
            iok_abandon(news);
        }
    }
    if (!iok_port_is_detached(&port->link)) {
        (void)iok_ring_push(&port->link.sq, iok_entry(port, IOK_SQ_DETACH));
        while (!iok_port_is_detached(&port->link)) {
            iok_kick(port);
            (void)sched_yield();
        }
    }
    for (struct iok_call *none; iok_port_take(port, &none);) { /* services that were opened or closed since */
    }
}

void iok_port_free(struct iok_port *port)
{
    port->link.owner = pthread_self();
    if (iok_kernel_is_here(port->owner) || !iok_port_leave(port)) {
        iok_port_free_now(port);
    }
}

void iok_port_free_now(struct iok_port *port)
{
    struct iok_node *node;

    if (!port->lost) {
        iok_list_each (&port->calls, at, after) {
            iok_abandon(iok_container(at, struct iok_call, all));
        }
        iok_list_each (&port->leases, at, after) {
            iok_lease_free(iok_container(at, struct iok_lease, app_node));
        }
        detach(port);
        while ((node = iok_list_pop(&port->free_calls)) != NULL) {
            free_call_memory(iok_container(node, struct iok_call, all));
        }
    }
    iok_port_link_deinit(&port->link);
    iok_kernel_drop(port->owner);
    iok_free(port);
}

int iok_port_fd(struct iok_port *port)
{
    if (!iok_kernel_is_here(port->owner) && iok_kernel_revive(port->owner, NULL) != 0) {
        return -1;
    }
    if (!port->link.armed) {
        port->link.armed = true;
        iok_wake_arm(&port->link.wake);
        if (!iok_ring_empty(&port->link.cq) || !iok_list_empty(&port->news)) {
            iok_port_owe(port);
        }
    }
    return port->link.wake.fd_read;
}

void iok_port_owe(struct iok_port *port)
{
    if (!iok_wake_disarm(&port->link.wake)) { /* else a producer writes, or has written */
        iok_wake_write(&port->link.wake);
        port->link.wake.owed = true;
    }
}

uint32_t iok_port_calls(const struct iok_port *port)
{
    return port->n_calls;
}

void iok_flush(struct iok_port *port)
{
    if (port->link.unkicked != 0) {
        iok_kick(port);
    }
}

void iok_drain_begin(struct iok_port *port)
{
    iok_port_set_bursting(&port->link, true);
    if (iok_port_check(port, NULL) != 0) {
        return;
    }
    if (port->link.armed && iok_wake_disarm(&port->link.wake)) {
        iok_wake_drain(&port->link.wake);
    }
}

void iok_drain_end(struct iok_port *port)
{
    bool submitted = port->link.unkicked != IOK_BURST_CALLS;

    iok_port_set_bursting(&port->link, false);
    if (submitted) { /* also those that it was told of: it may have left them alone */
        iok_kick(port);
    }
    if (!port->link.armed || iok_port_check(port, NULL) != 0) {
        return; /* nobody watches the descriptor */
    }
    iok_wake_arm(&port->link.wake);
    if (!iok_ring_empty(&port->link.cq) || !iok_list_empty(&port->news)) {
        iok_port_owe(port);
    }
}

void iok_call_set_error(struct iok_call *call, const struct iok_error *err)
{
    iok_call_begin(call, &call->port->owner->core.replies);
    call->app |= IOK_APP_FAILED;
    call->error_code = err->code;
    call->error_line = err->line;
    call->error_file = err->file;
    iok_tape_copy(&call->reply, IOK_ERROR, 0, iok_span_of(err->text));
}

static void set_reclaimed(struct iok_call *call, const struct iok_error *why)
{
    iok_call_set_error(call, why);
    call->outcome = IOK_NEVER_SENT;
    call->state = IOK_CALL_ENDED;
}

static void reclaim_call(struct iok_port *port, struct iok_call *call, const struct iok_error *why)
{
    set_reclaimed(call, why);
    (void)iok_ring_push(&port->link.cq, iok_entry(call, IOK_CQ_ENDED));
}

/* The kernel is gone, and with it the other side of the rings: what it did not take ends here. */
static bool reclaim(struct iok_port *port)
{
    uintptr_t entry;
    struct iok_error err;
    struct iok_call *call;

    iok_err(&err, IOK_ECLOSED, "the kernel was stopped");
    if (!iok_ring_pop(&port->link.sq, &entry)) {
        if (port->n_parked == 0) {
            return false;
        }
        iok_parked_end(iok_container(iok_list_first(&port->parked), struct iok_call, node), &err);
        return true;
    }
    switch (iok_entry_verb(entry)) {
    case IOK_SQ_SUBMIT:
        reclaim_call(port, iok_entry_object(entry), &err);
        break;
    case IOK_SQ_CANCEL:
        call = iok_entry_object(entry);
        if (call->serve != NULL && call->state != IOK_CALL_ENDED) { /* the program had it */
            set_reclaimed(call, &err);
        }
        (void)iok_ring_push(&port->link.cq, iok_entry(iok_entry_object(entry), IOK_CQ_CANCELLED));
        break;
    case IOK_SQ_RELEASE:
        (void)iok_ring_push(&port->link.cq, iok_entry(iok_entry_object(entry), IOK_CQ_RELEASED));
        break;
    case IOK_SQ_OPEN:
    case IOK_SQ_CLOSE:
    case IOK_SQ_CREDIT:
        iok_service_drop(iok_entry_object(entry));
        break;
    case IOK_SQ_DRAIN:
    case IOK_SQ_SECURE:
        iok_listener_drop(iok_entry_object(entry));
        break;
    case IOK_SQ_DETACH:
    case IOK_SQ_TAKEN:
    case IOK_SQ_HEARD:
    case IOK_SQ_DUE:
        break;
    }
    return true;
}

static void unrefer(struct iok_port *port, struct iok_call *call)
{
    if ((call->app & IOK_APP_PORT_REF) == 0) {
        iok_service_drop(call->service);
    } else if (--port->n_using == 0) {
        port->used = NULL;
        iok_service_drop(call->service);
    }
}

static void really_free(struct iok_call *call)
{
    struct iok_port *port = call->port;
    struct iok_call *whole = call->whole;
    uintptr_t message;

    if (call->n_parts != 0) {
        call->app |= IOK_APP_KEPT;
        return;
    }
    if (iok_node_linked(&call->pending)) {
        iok_list_remove(&call->pending);
    }
    if (call->message != NULL) {
        iok_message_free(call->message);
    }
    if (call->streams) {
        while (iok_ring_pop(&call->stream->ring, &message)) {
            iok_message_free((struct iok_message *)message);
        }
        iok_ring_deinit(&call->stream->ring);
        iok_free(call->stream);
        call->stream = NULL;
        call->streams = false;
    }
    iok_tape_deinit(&call->args);
    iok_tape_deinit(&call->reply);
    if (call->service != NULL) {
        unrefer(port, call);
    }
    iok_list_remove(&call->all);
    port->n_calls--;
    if (whole != NULL && --whole->n_parts == 0 && (whole->app & IOK_APP_KEPT) != 0) {
        really_free(whole);
    }
    if ((call->app & IOK_APP_COUNTED) != 0) {
        port->n_counted--;
        port->bytes_left += call->serve != NULL ? 0 : call->args.held_bytes;
    }
    if (call->serve != NULL) {
        iok_serve_free(call);
    }
    if (port->n_free < IOK_FREE_CALLS_MAX) {
        port->n_free++;
        iok_list_push_front(&port->free_calls, &call->all);
    } else {
        iok_free(call);
    }
    if (port->n_parked != 0) {
        iok_port_room(port);
    }
}

/* The kernel has let go of it, and so had the program. Whoever leads frees it later: what its arguments refer to is given
 * back by the program's own function, which may wait for a lock, and until it returned the core would stand still. */
static void free_abandoned(struct iok_call *call)
{
    if (call->port->leading) {
        iok_list_push(&call->port->doomed, &call->pending);
    } else {
        really_free(call);
    }
}

void iok_port_free_doomed(struct iok_port *port)
{
    struct iok_node *node;

    while ((node = iok_list_pop(&port->doomed)) != NULL) {
        really_free(iok_container(node, struct iok_call, pending));
    }
}

/* As iok_now_ns, and cheaper for a port that is busy. */
static uint64_t port_now(struct iok_port *port)
{
    uint64_t before = iok_clock_ticks();
    uint64_t now = iok_clock_at(&port->clock, before);

    if (now == 0) {
        now = iok_now_ns();
        iok_clock_looked(&port->clock, before, now, iok_clock_ticks());
    }
    return now;
}

static void picked_up(struct iok_call *call)
{
    struct iok_service *service = call->service;
    uint64_t now = port_now(call->port);

    call->app = (call->app & ~(uint32_t)IOK_APP_HAND) | IOK_APP_ENDED;
    call->picked_up = now;
    if (service != NULL && call->stamps.complete != 0 && now > call->stamps.complete) {
        iok_hist_shared_add(&service->hist_pickup, call->port, now - call->stamps.complete);
        iok_hist_shared_add(&service->hist_total, call->port, now - call->submitted);
    }
}

/* The lines of the next completions come from the kernel's processor while this one is dealt with. */
static inline void fetch_ahead(const struct iok_port *port)
{
    uintptr_t next = iok_ring_ahead(&port->link.cq, 0), entry = iok_ring_ahead(&port->link.cq, 1);
    const struct iok_call *call = iok_entry_object(entry), *nearer = iok_entry_object(next);

    if (nearer != NULL && (unsigned)iok_entry_verb(next) == IOK_CQ_REQUEST) {
        iok_serve_fetch(nearer);
    }
    if (call == NULL) {
        return;
    }
    switch ((unsigned)iok_entry_verb(entry)) {
    case IOK_CQ_ENDED:
        __builtin_prefetch(&call->stamps);
        __builtin_prefetch(&call->reply_tokens);
        __builtin_prefetch(&call->reply_bytes[IOK_CALL_REPLY_BYTES - IOK_CACHE_LINE]);
        __builtin_prefetch(&call->port, 1); /* to be written by the next request */
        __builtin_prefetch(&call->arg_tokens, 1);
        break;
    case IOK_CQ_REQUEST:
        __builtin_prefetch(&call->stamps);
        __builtin_prefetch(&call->serve->serial);
        __builtin_prefetch(&call->port, 1);
        break;
    default: /* rare, or no call */
        break;
    }
}

bool iok_port_take(struct iok_port *port, struct iok_call **news)
{
    uintptr_t entry;
    struct iok_call *call;

    *news = NULL;
    if (!iok_ring_pop(&port->link.cq, &entry)) {
        return iok_port_is_detached(&port->link) && reclaim(port);
    }
    call = iok_entry_object(entry);
    fetch_ahead(port);
    switch ((unsigned)iok_entry_verb(entry)) {
    case IOK_CQ_ENDED:
        picked_up(call);
        if ((call->app & IOK_APP_ABANDONED) == 0) {
            *news = (call->app & IOK_APP_WAITED) != 0 ? NULL : call;
        } else if ((call->app & IOK_APP_CANCEL) == 0) {
            free_abandoned(call);
        }
        break;
    case IOK_CQ_PROBE:
        iok_count_own_add(&port->picked, 1);
        break;
    case IOK_CQ_REQUEST:
        iok_count_own_add(&port->picked, 1);
        if ((call->app & IOK_APP_CANCEL) != 0) { /* it is the kernel's to decide what becomes of it */
            break;
        }
        iok_serve_picked_up(call, port_now(port));
        *news = (call->app & (IOK_APP_ABANDONED | IOK_APP_WAITED)) != 0 ? NULL : call;
        break;
    case IOK_CQ_NEWS:
        if (call->serve != NULL) {
            *news = iok_serve_news(call) && (call->app & (IOK_APP_ABANDONED | IOK_APP_WAITED)) == 0 ? call : NULL;
            break;
        }
        call->app |= IOK_APP_STREAM;
        (void)iok_count_exchange(&call->stream->news_posted, 0);
        *news = (call->app & (IOK_APP_ABANDONED | IOK_APP_WAITED)) != 0 ? NULL : call;
        break;
    case IOK_CQ_CANCELLED:
        call->app &= ~(uint32_t)IOK_APP_CANCEL;
        if (call->serve != NULL && (call->app & IOK_APP_ENDED) == 0) { /* it tells that, too */
            picked_up(call);
            *news = (call->app & (IOK_APP_ABANDONED | IOK_APP_WAITED)) != 0 ? NULL : call;
        }
        if ((call->app & IOK_APP_ABANDONED) != 0) {
            free_abandoned(call);
        }
        break;
    case IOK_CQ_RELEASED: {
        struct iok_lease *lease = iok_entry_object(entry);

        iok_list_remove(&lease->app_node);
        port->n_leases--;
        iok_service_drop(lease->service);
        iok_free(lease);
        break;
    }
    case IOK_CQ_DUE:
        iok_parked_due(port);
        break;
    default:
        assert(false);
    }
    return true;
}

struct iok_call *iok_poll(struct iok_port *port)
{
    struct iok_call *call = NULL;
    struct iok_node *node;

    do {
        node = iok_list_pop(&port->news); /* what a waiter took, and what ended without the kernel */
        if (node != NULL) {
            return iok_container(node, struct iok_call, pending);
        }
        if (!iok_kernel_is_here(port->owner) && iok_port_check(port, NULL) != 0) {
            return NULL;
        }
    } while (iok_port_take(port, &call) && call == NULL);
    return call;
}

/* ---- calls ---- */

struct iok_call *iok_call_make(struct iok_port *port, struct iok_error *err)
{
    struct iok_node *node;
    struct iok_call *call;

    if (iok_port_check(port, err) != 0) {
        return NULL;
    }
    node = iok_list_pop(&port->free_calls);
    if (node != NULL) {
        port->n_free--;
        call = iok_container(node, struct iok_call, all);
    } else if ((call = iok_calloc_line(sizeof(*call))) == NULL) {
        iok_err(err, IOK_ENOMEM, "out of memory for a call");
        return NULL;
    }
    call->port = port;
    call->service = NULL;
    call->serve = NULL;
    call->lease = NULL;
    call->user = NULL;
    call->timeout_ms = 0;
    call->message = NULL;
    call->whole = NULL;
    call->n_parts = call->n_parts_parked = 0;
    call->flags = 0;
    call->app = 0;
    iok_tape_init(&call->args, call->arg_tokens, IOK_CALL_ARG_TOKENS, call->arg_bytes, IOK_CALL_ARG_BYTES, SIZE_MAX,
                  &port->owner->core.arguments);
    iok_list_push(&port->calls, &call->all);
    port->n_calls++;
    return call;
}

/* Most calls of a port are for one service: it holds one reference for them all, as an atomic one for each would wait
 * for the other processor. */
static void refer(struct iok_port *port, struct iok_call *call, struct iok_service *service)
{
    call->service = service;
    if (port->used == service) {
        port->n_using++;
        call->app |= IOK_APP_PORT_REF;
        return;
    }
    iok_count_ref(&service->refs);
    if (port->used == NULL) {
        port->used = service;
        port->n_using = 1;
        call->app |= IOK_APP_PORT_REF;
    }
}

struct iok_call *iok_call_new(struct iok_port *port, struct iok_service *service, struct iok_error *err)
{
    struct iok_call *call = iok_call_make(port, err);

    if (call != NULL) {
        refer(port, call, service);
    }
    return call;
}

struct iok_call *iok_part_new(struct iok_call *whole, struct iok_error *err)
{
    struct iok_call *part;

    if ((whole->flags & IOK_CALL_BODY) == 0 || (whole->app & IOK_APP_SUBMITTED) == 0 ||
        (whole->serve != NULL && (whole->app & IOK_APP_SAID) == 0)) {
        iok_err(err, IOK_EINVAL, "a part needs a call that was submitted, and announced by iok_call_body");
        return NULL;
    }
    part = whole->serve != NULL ? iok_call_make(whole->port, err) : iok_call_new(whole->port, whole->service, err);
    if (part != NULL) {
        part->flags = IOK_CALL_PART;
        part->timeout_ms = whole->timeout_ms;
        part->whole = whole;
        whole->n_parts++;
    }
    return part;
}

void iok_part_end(struct iok_call *part)
{
    part->flags |= IOK_CALL_PART_END;
}

void iok_part_fail(struct iok_call *part, const char *why)
{
    part->flags |= IOK_CALL_PART_FAIL;
    iok_call_text(part, why, strlen(why));
}

void iok_call_timeout(struct iok_call *call, int64_t timeout_ms)
{
    if (timeout_ms < 0) {
        call->timeout_ms = -1;
    } else {
        call->timeout_ms = timeout_ms < INT32_MAX ? (int32_t)timeout_ms : INT32_MAX;
    }
}

void iok_call_repeatable(struct iok_call *call, bool repeatable)
{
    call->flags = repeatable ? call->flags | IOK_CALL_REPEATABLE : call->flags & ~(uint32_t)IOK_CALL_REPEATABLE;
}

void iok_call_ready(struct iok_call *call)
{
    call->flags |= IOK_CALL_READY;
}

void iok_call_parts(struct iok_call *call)
{
    call->flags |= IOK_CALL_PARTS;
}

void iok_call_body(struct iok_call *call)
{
    call->flags |= IOK_CALL_BODY;
}

void iok_call_lease(struct iok_call *call, struct iok_lease *lease)
{
    call->lease = lease;
}

void iok_call_set_user(struct iok_call *call, void *user)
{
    call->user = user;
}

void *iok_call_user(const struct iok_call *call)
{
    return call->user;
}

void iok_submitted(struct iok_port *port)
{
    if (++port->link.unkicked >= IOK_BURST_CALLS || !iok_port_is_bursting(&port->link)) {
        iok_kick(port);
    }
}

bool iok_hand_over(struct iok_call *call)
{
    struct iok_port *port = call->port;

    call->app |= IOK_APP_SUBMITTED | IOK_APP_COUNTED; /* what stands in the call is not touched once it is pushed */
    port->bytes_left -= call->args.held_bytes;
    port->n_counted++;
    if (!iok_ring_push(&port->link.sq, iok_entry(call, IOK_SQ_SUBMIT))) {
        call->app &= ~(uint32_t)(IOK_APP_SUBMITTED | IOK_APP_COUNTED);
        port->bytes_left += call->args.held_bytes;
        port->n_counted--;
        return false;
    }
    iok_submitted(port);
    return true;
}

int iok_submit(struct iok_call *call)
{
    struct iok_port *port = call->port;
    struct iok_error err;
    int rc = iok_port_check(port, NULL);

    if (rc != 0) {
        return rc;
    }
    if (iok_tape_error(&call->args) != 0) {
        return iok_tape_error(&call->args);
    }
    if (call->serve != NULL) {
        return iok_serve_submit(call);
    }
    if ((call->app & IOK_APP_SUBMITTED) != 0 || (call->lease != NULL && call->lease->released) ||
        (call->args.n_tokens == 0 && (call->flags & (IOK_CALL_READY | IOK_CALL_PART)) == 0)) {
        return IOK_EINVAL;
    }
    call->submitted = port_now(port);
    if ((call->app & IOK_APP_FAILED) != 0) { /* an earlier attempt */
        call->app &= ~(uint32_t)IOK_APP_FAILED;
        iok_tape_deinit(&call->reply);
    }
    if (port->n_counted >= port->calls_max || call->args.held_bytes > port->bytes_left || port->n_parked != 0) {
        rc = iok_port_at_bound(call, &err);
        if (rc != 0) {
            if (rc < 0) {
                iok_call_set_error(call, &err);
                return rc;
            }
            call->app |= IOK_APP_SUBMITTED;
            return 0;
        }
    }
    if (!iok_hand_over(call)) {
        iok_err(&err, IOK_EOVERLOAD, "the ring to the kernel is full");
        iok_call_set_error(call, &err);
        return IOK_EOVERLOAD;
    }
    if ((call->flags & (IOK_CALL_PART_END | IOK_CALL_PART_FAIL)) != 0 && call->whole->serve != NULL) {
        iok_serve_said_all(call->whole);
    }
    return 0;
}

void iok_cancel(struct iok_call *call)
{
    struct iok_port *port = call->port;
    struct iok_error err;
    bool pushed;

    if ((call->app & (IOK_APP_SUBMITTED | IOK_APP_CANCEL | IOK_APP_ENDED)) != IOK_APP_SUBMITTED ||
        iok_port_check_owner(port, NULL) != 0) {
        return;
    }
    if ((call->app & IOK_APP_PARKED) != 0) {
        iok_err(&err, IOK_ECANCELLED, "cancelled");
        iok_parked_cut(call, &err);
        iok_port_room(port);
        return;
    }
    call->app |= IOK_APP_CANCEL;
    if (call->serve != NULL) {
        call->serve->seen = call->serve->have;
    }
    pushed = iok_ring_push(&port->link.sq, iok_entry(call, IOK_SQ_CANCEL));
    assert(pushed); /* see port.h */
    (void)pushed;
    iok_kick(port);
}

void iok_abandon(struct iok_call *call)
{
    if ((call->app & IOK_APP_PARKED) == 0) {
        iok_cancel(call);
    }
    iok_call_free(call);
}

void iok_call_free(struct iok_call *call)
{
    bool held =
        (call->app & IOK_APP_COUNTED) != 0 && ((call->app & IOK_APP_ENDED) == 0 || (call->app & IOK_APP_CANCEL) != 0);

    if (call->port->lost) {
        return; /* see fork.c */
    }
    if (held) {                    /* the kernel still has it */
        if (call->serve != NULL) { /* which would not end by itself */
            iok_cancel(call);
        }
        call->app |= IOK_APP_ABANDONED;
        if (iok_node_linked(&call->pending)) {
            iok_list_remove(&call->pending);
        }
        return;
    }
    if ((call->app & IOK_APP_PARKED) != 0) {
        iok_unpark(call);
    }
    really_free(call);
}

enum iok_outcome iok_call_outcome(const struct iok_call *call)
{
    return (call->app & IOK_APP_ENDED) != 0 ? call->outcome : IOK_PENDING;
}

const struct iok_token *iok_call_reply(const struct iok_call *call, size_t *n)
{
    bool there = (call->app & IOK_APP_ENDED) != 0 && call->error_code == 0 && call->reply.n_tokens != 0;

    if ((call->app & IOK_APP_HAND) != 0) {
        *n = call->serve->request->tape.n_tokens;
        return call->serve->request->tape.tokens;
    }
    *n = there ? call->reply.n_tokens : 0;
    return there ? call->reply.tokens : NULL;
}

int iok_call_error(const struct iok_call *call, struct iok_error *err)
{
    const struct iok_token *text;

    if ((call->app & (IOK_APP_ENDED | IOK_APP_FAILED)) == 0 || call->error_code == 0) {
        return 0;
    }
    text = call->reply.n_tokens > 0 ? &call->reply.tokens[0] : NULL;
    return iok_err_set(err, call->error_file, call->error_line, call->error_code, "%.*s",
                       text != NULL ? (int)text->len : 0, text != NULL ? (const char *)text->p : "");
}

const char *iok_call_endpoint(const struct iok_call *call)
{
    struct iok_address address = {.any.sa_family = call->peer.family};
    char *text = ((struct iok_call *)(uintptr_t)call)->peer_text; /* a cache: made when first asked for */
    char whole[IOK_ADDRESS_TEXT_MAX];
    size_t n;

    switch (call->peer.family) {
    case AF_UNIX:
        return call->service != NULL ? call->service->endpoints[call->peer.port].host : "";
    case AF_INET:
        address.v4.sin_port = htons(call->peer.port);
        memcpy(&address.v4.sin_addr, call->peer.ip, 4);
        address.len = sizeof(address.v4);
        break;
    case AF_INET6:
        address.v6.sin6_port = htons(call->peer.port);
        address.v6.sin6_scope_id = call->peer.scope;
        memcpy(&address.v6.sin6_addr, call->peer.ip, 16);
        address.len = sizeof(address.v6);
        break;
    default:
        return (call->app & IOK_APP_HAND) != 0 ? "unknown" : "";
    }
    n = strnlen(iok_address_text(&address, whole), sizeof(call->peer_text) - 1);
    memcpy(text, whole, n);
    text[n] = '\0';
    return text;
}

struct iok_service *iok_call_service(const struct iok_call *call)
{
    return call->service;
}

void iok_call_stamps(const struct iok_call *call, struct iok_stamps *out)
{
    *out = (struct iok_stamps){
        .submitted = call->submitted,
        .taken = call->stamps.taken,
        .sent = call->stamps.sent,
        .first_byte = call->stamps.first_byte,
        .complete = call->stamps.complete,
        .picked_up = call->picked_up,
    };
}

const struct iok_token *iok_call_message(struct iok_call *call, size_t *n)
{
    uintptr_t message;

    *n = 0;
    if (call->serve != NULL) {
        return iok_serve_message(call, n);
    }
    if (call->message == NULL) {
        if ((call->app & IOK_APP_STREAM) == 0 || !iok_ring_pop(&call->stream->ring, &message)) {
            return NULL;
        }
        call->message = (struct iok_message *)message;
    }
    *n = call->message->tape.n_tokens;
    return call->message->tape.tokens;
}

void iok_call_next(struct iok_call *call)
{
    struct iok_stream *stream = call->stream;
    bool pushed;

    if (call->message == NULL || (call->serve != NULL && (call->app & IOK_APP_HAND) == 0)) {
        return;
    }
    iok_count_own_add(&stream->taken, call->message->memory);
    iok_message_free(call->message);
    call->message = NULL;
    if (call->serve != NULL) {
        iok_serve_taken(call);
        return;
    }
    /* The exchange is a fence too: either it sees the kernel's stall, or the kernel sees the room. */
    if (iok_ring_used(&stream->ring) <= IOK_STREAM_MESSAGES_MAX / 2 &&
        iok_stream_bytes(stream) <= stream->bytes_max / 2 && iok_count_exchange(&stream->stalled, 0) != 0) {
        iok_count_ref(&call->service->refs); /* the message's own */
        pushed = iok_ring_push(&call->port->link.sq, iok_entry(call->service, IOK_SQ_CREDIT));
        assert(pushed); /* see port.h */
        (void)pushed;
        iok_kick(call->port);
    }
}
