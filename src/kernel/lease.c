/* lease.c - a connection that a sequence of calls holds alone.
 *
 *     new --first call--> waiting --bound--> held --released--> (reset, or closed)
 *                            \------------------ lost: every later call ends as NEVER_SENT */
#include "../base/mem.h"
#include "kernel.h"

void iok_lease_init(struct iok_lease *lease, struct iok_port *port, struct iok_service *service)
{
    *lease = (struct iok_lease){.port = port, .service = service};
    iok_list_init(&lease->queue);
}

static void end_lost(struct iok_core *core, const struct iok_lease *lease, struct iok_call *call)
{
    if (lease->forked) {
        iok_call_fail(core, call, IOK_NEVER_SENT, IOK_EFORKED,
                      "the lease was in use before fork(), and belongs to the parent process");
        return;
    }
    iok_call_fail(core, call, IOK_NEVER_SENT, IOK_ECLOSED, "the lease has %s",
                  lease->release_wanted ? "been given back" : "lost its connection");
}

void iok_lease_take(struct iok_core *core, struct iok_lease *lease, struct iok_call *call)
{
    if (lease->lost || lease->release_wanted) {
        end_lost(core, lease, call);
        return;
    }
    if (lease->conn != NULL && lease->conn->cancel.state == IOK_CANCEL_NONE) {
        iok_conn_send(lease->conn, call);
        return;
    }
    iok_list_push(&lease->queue, &call->node);
    if (lease->conn == NULL && !iok_node_linked(&lease->node)) {
        if (lease->service->config.leases == 0) {
            iok_call_fail(core, call, IOK_NEVER_SENT, IOK_EUNSAFE,
                          "needs a connection of its own, and leases=0 allows none");
            return;
        }
        iok_list_push(&lease->service->lease_wait, &lease->node);
        iok_service_want_pump(lease->service);
    }
}

void iok_lease_bind(struct iok_lease *lease, struct iok_conn *conn)
{
    lease->conn = conn;
    conn->lease = lease;
    iok_conn_set_state(conn, IOK_CONN_LEASED);
    iok_lease_resume(lease);
}

void iok_lease_resume(struct iok_lease *lease)
{
    struct iok_conn *conn = lease->conn;
    struct iok_node *node;

    while (conn->lease == lease && (node = iok_list_pop(&lease->queue)) != NULL) { /* an ended one may be freed */
        iok_conn_send(conn, iok_container(node, struct iok_call, node));
    }
}

/* The connection is gone, or will never come. */
void iok_lease_lost(struct iok_lease *lease, const struct iok_error *err)
{
    struct iok_core *core = lease->service->core;
    struct iok_call *auto_call = lease->auto_call;
    struct iok_node *node;

    lease->lost = true;
    lease->forked = core->forked != NULL;
    if (lease->conn != NULL) {
        lease->conn->lease = NULL;
        lease->conn = NULL;
    }
    if (auto_call != NULL) {
        if (iok_node_linked(&auto_call->node)) {
            iok_call_end(core, auto_call, IOK_NEVER_SENT, err); /* frees the lease */
        }
        return;
    }
    while ((node = iok_list_first(&lease->queue)) != NULL) {
        iok_call_end(core, iok_container(node, struct iok_call, node), IOK_NEVER_SENT, err);
    }
}

static void let_go(struct iok_core *core, struct iok_lease *lease)
{
    struct iok_conn *conn = lease->conn;
    bool behind = conn != NULL && conn->read_paused; /* much may stand before the answer to a reset */
    struct iok_error err;

    iok_err(&err, IOK_ECANCELLED, "the lease was given back before the reply came");
    lease->release_wanted = true;
    if (iok_node_linked(&lease->node)) {
        iok_list_remove(&lease->node);
    }
    while (!iok_list_empty(&lease->queue)) {
        iok_call_cut(core, iok_container(iok_list_first(&lease->queue), struct iok_call, node), &err);
    }
    if (conn == NULL) {
        return;
    }
    for (uint64_t seq = conn->head_seq; seq != conn->next_seq; seq++) {
        struct iok_flight *flight = iok_flight_at(conn, seq);

        if (flight->call != NULL) {
            iok_call_cut(core, flight->call, &err);
        }
    }
    if (conn->stream != NULL) {
        iok_call_cut(core, conn->stream, &err);
    }
    lease->conn = NULL;
    conn->lease = NULL;
    if (conn->state == IOK_CONN_LEASED) {
        iok_conn_reset(conn, behind);
    }
}

void iok_lease_release(struct iok_core *core, struct iok_lease *lease)
{
    let_go(core, lease);
}

struct iok_lease *iok_lease_auto(struct iok_core *core, struct iok_call *call)
{
    struct iok_lease *lease = iok_malloc(sizeof(*lease));

    if (lease != NULL) {
        iok_lease_init(lease, call->port, call->service);
        lease->auto_call = call;
        call->auto_lease = true;
        iok_count_own_add(&core->objects, 1);
    }
    return lease;
}

/* A call of a lease ended; if the lease was the kernel's own, for this call, it ends too. */
void iok_lease_call_ended(struct iok_core *core, struct iok_call *call)
{
    struct iok_lease *lease = call->lease;

    if (!call->auto_lease) {
        return;
    }
    call->lease = NULL;
    call->auto_lease = false;
    let_go(core, lease);
    iok_count_own_sub(&core->objects, 1);
    iok_free(lease);
}
