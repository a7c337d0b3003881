/* park.c - calls that wait for room on their port, and the port's bounds.
 *
 *     submit --room--> handed over          submit --no room, overload=wait--> parked --room, in turn--> handed over
 *
 * A port bounds the calls that were handed over and are not freed yet, and the bytes of their arguments; so its rings
 * have a slot for whatever these can send. Parked calls wait in a list of the application's side: the kernel does not
 * know them, and they are as many as the program has made. They keep their order, and nothing overtakes them that
 * would wait as well. Their deadlines stay the kernel's business: it is asked to wake the port at the earliest.
 *
 * A part of a body waits only behind its call, or behind a part before it. One that is lost then would be a hole, which no
 * body may have: the call goes with it. */
#include <assert.h>

#include "run.h"

/* How late the deadline of a parked call may be seen, so that looking through many of them is rare. */
#define IOK_PARK_GRAIN_NS (8 * IOK_NS_MS)

static bool has_room(const struct iok_port *port, const struct iok_call *call)
{
    return port->n_counted < port->calls_max && call->args.held_bytes <= port->bytes_left;
}

/* ---- deadlines ---- */

static void ask(struct iok_port *port, uint64_t at)
{
    bool pushed;

    if (at >= port->due_ns) {
        return;
    }
    port->due_ns = at;
    iok_count_set(&port->due_at, at);
    if (iok_count_exchange(&port->due_posted, 1) == 0) {
        pushed = iok_ring_push(&port->link.sq, iok_entry(port, IOK_SQ_DUE));
        assert(pushed); /* see port.h */
        (void)pushed;
        iok_kick(port);
    }
}

static uint64_t deadline_of(const struct iok_call *call)
{
    const struct iok_proto *proto = call->service->proto;
    struct iok_class class = {0};
    uint64_t at;

    if (proto->classify != NULL && (call->flags & (IOK_CALL_READY | IOK_CALL_PART)) == 0) {
        proto->classify(call->args.tokens, call->args.n_tokens, &class);
    }
    at = iok_call_deadline_at(call, class.block_ms);
    return at == 0 ? UINT64_MAX : at;
}

/* ---- in and out ---- */

static void take_out(struct iok_call *call)
{
    iok_list_remove(&call->node);
    call->port->n_parked--;
    call->app &= ~(uint32_t)IOK_APP_PARKED;
    if (call->whole != NULL) {
        call->whole->n_parts_parked--;
    }
}

static void park(struct iok_call *call)
{
    struct iok_port *port = call->port;

    iok_list_push(&port->parked, &call->node);
    port->n_parked++;
    call->app |= IOK_APP_PARKED;
    if (call->whole != NULL) {
        call->whole->n_parts_parked++;
    }
    call->deadline_ns = deadline_of(call);
    ask(port, call->deadline_ns);
}

static bool is_held_up(const struct iok_call *part)
{
    return (part->whole->app & IOK_APP_PARKED) != 0 || part->whole->n_parts_parked != 0;
}

/* A part that waited will never be sent. */
static void break_off(const struct iok_call *part, const struct iok_error *err)
{
    if ((part->whole->app & IOK_APP_PARKED) != 0) {
        iok_parked_end(part->whole, err);
    } else {
        iok_cancel(part->whole);
    }
}

int iok_port_at_bound(struct iok_call *call, struct iok_error *err)
{
    struct iok_port *port = call->port;
    size_t bytes = call->args.held_bytes;
    bool part = (call->flags & IOK_CALL_PART) != 0, held_up = part && is_held_up(call);

    if (part && !held_up && has_room(port, call)) { /* of a call that is under way: it waits behind none that is not */
        return 0;
    }
    if (bytes > port->bytes_max) {
        return iok_err(err, IOK_ELIMIT, "arguments of %zu bytes are more than port_bytes_max=%llu", bytes,
                       (unsigned long long)port->bytes_max);
    }
    if (call->service != NULL && call->service->config.overload_waits && (!part || held_up)) {
        park(call);
        return 1;
    }
    if (has_room(port, call)) { /* but for those that are parked */
        return 0;
    }
    if (call->service != NULL) { /* else it is a part of an answer */
        iok_count_add(&call->service->overloaded, 1);
    }
    if (port->n_counted >= port->calls_max) {
        return iok_err(err, IOK_EOVERLOAD, "%u calls are alive on this port (port_calls_max=%u, overload=fail)",
                       port->n_counted, port->calls_max);
    }
    return iok_err(err, IOK_EOVERLOAD,
                   "the calls alive on this port have arguments of %llu bytes, and %zu more are too many "
                   "(port_bytes_max=%llu, overload=fail)",
                   (unsigned long long)(port->bytes_max - port->bytes_left), bytes,
                   (unsigned long long)port->bytes_max);
}

void iok_port_room(struct iok_port *port)
{
    while (port->n_parked != 0 && iok_kernel_is_here(port->owner)) {
        struct iok_call *call = iok_container(iok_list_first(&port->parked), struct iok_call, node);

        if (!has_room(port, call)) {
            return;
        }
        take_out(call);
        if (!iok_hand_over(call)) {
            iok_list_push_front(&port->parked, &call->node);
            port->n_parked++;
            call->app |= IOK_APP_PARKED;
            if (call->whole != NULL) {
                call->whole->n_parts_parked++;
            }
            return;
        }
    }
}

void iok_unpark(struct iok_call *call)
{
    struct iok_error err;

    take_out(call);
    call->state = IOK_CALL_ENDED; /* for parts of its body */
    call->app |= IOK_APP_ENDED;
    if (call->whole != NULL) {
        iok_err(&err, IOK_ECANCELLED, "a part of its body was given up while it waited for room");
        break_off(call, &err);
    }
}

void iok_parked_cut(struct iok_call *call, const struct iok_error *err)
{
    iok_parked_end(call, err);
    if (call->whole != NULL) {
        break_off(call, err);
    }
}

void iok_parked_end(struct iok_call *call, const struct iok_error *err)
{
    struct iok_port *port = call->port;

    take_out(call);
    iok_call_set_error(call, err);
    call->app |= IOK_APP_ENDED;
    call->state = IOK_CALL_ENDED; /* for parts of its body */
    call->outcome = IOK_NEVER_SENT;
    call->stamps.complete = call->picked_up = iok_now_ns();
    if ((call->app & IOK_APP_WAITED) == 0) {
        iok_list_push(&port->news, &call->pending);
        if (port->link.armed && !iok_port_is_bursting(&port->link)) {
            iok_port_owe(port);
        }
    }
}

void iok_parked_due(struct iok_port *port)
{
    uint64_t now = iok_now_ns(), next = UINT64_MAX;
    struct iok_error err;

    port->due_ns = UINT64_MAX;
    iok_list_each (&port->parked, node, after) {
        struct iok_call *call = iok_container(node, struct iok_call, node);

        if (call->deadline_ns <= now) {
            iok_err(&err, IOK_ETIMEOUT, "no room on its port within %.3g s (port_calls_max=%u, port_bytes_max=%llu)",
                    (double)(call->deadline_ns - call->submitted) / 1e9, port->calls_max,
                    (unsigned long long)port->bytes_max);
            iok_parked_cut(call, &err);
        } else if (call->deadline_ns < next) {
            next = call->deadline_ns;
        }
    }
    iok_port_room(port); /* those in front may have been the large ones */
    if (next != UINT64_MAX) {
        ask(port, next > now + IOK_PARK_GRAIN_NS ? next : now + IOK_PARK_GRAIN_NS);
    }
}

void iok_parked_forked(struct iok_port *port)
{
    struct iok_error err;

    port->due_ns = UINT64_MAX;
    iok_err(&err, IOK_EFORKED, "it waited for room at fork(), and belongs to the parent process");
    while (!port->lost && port->n_parked != 0) {
        struct iok_call *call = iok_container(iok_list_first(&port->parked), struct iok_call, node);

        iok_parked_end(call, &err);
        call->outcome = IOK_MAYBE_EXECUTED; /* not by us; but the parent may send it */
    }
}

void iok_parked_release(struct iok_lease *lease)
{
    struct iok_port *port = lease->port;
    struct iok_error err;

    iok_err(&err, IOK_ECANCELLED, "the lease was given back before the call was sent");
    iok_list_each (&port->parked, node, after) {
        struct iok_call *call = iok_container(node, struct iok_call, node);

        if (call->lease == lease) {
            iok_parked_end(call, &err);
        }
    }
    iok_port_room(port);
}
