/* cancel.c - giving up, at the server, what a connection still runs although nobody waits for it any more: by a second
 * connection to the same address, as PostgreSQL has it.
 *
 *     all requests under way were abandoned        WAITING --a moment later--> CONNECTING --the codec's words--> SENT
 *                                                     ^---- not connected, or the server has closed it ---------'  |
 *     they were answered --> over, unless SENT: then when the server has closed the second connection, too <------'
 *     cancel_timeout is over, or the second connection broke after SENT --> the connection is closed
 *
 * The server acts on a cancel before it closes the second connection, and on whatever runs just then. So the invariant:
 * from the first moment until the end of this nothing new is sent, and a cancel hits none but abandoned requests. What
 * is sent meanwhile waits in the queue of the service, or of the lease. */
#include <assert.h>

#include "kernel.h"

/* What is nearly done needs no cancel, and a moment's waiting costs nothing: its answer stands before any other. */
#define IOK_CANCEL_AFTER_NS (10 * IOK_NS_MS)
/* A server that has not begun with a request yet takes no notice of the cancel. */
#define IOK_CANCEL_AGAIN_NS (250 * IOK_NS_MS)

static void wait_until(struct iok_conn *conn, uint64_t at)
{
    struct iok_cancel *cancel = &conn->cancel;

    cancel->state = IOK_CANCEL_WAITING;
    cancel->timer.kind = IOK_TIMER_CANCEL;
    iok_timer_set(&conn->service->core->wheel, &cancel->timer, at < cancel->give_up ? at : cancel->give_up);
}

static void close_link(struct iok_conn *conn)
{
    if (conn->cancel.link != NULL) {
        conn->service->core->net->ops->close(conn->cancel.link);
        conn->cancel.link = NULL;
    }
}

void iok_cancel_stop(struct iok_conn *conn)
{
    close_link(conn);
    iok_timer_stop(&conn->service->core->wheel, &conn->cancel.timer);
    conn->cancel.state = IOK_CANCEL_NONE;
}

static void give_up(struct iok_conn *conn, const char *why)
{
    struct iok_error err;

    iok_err(&err, IOK_ERESET, "a request that nobody waits for could not be cancelled at the server: %s", why);
    iok_conn_close(conn, &err);
}

/* Nothing abandoned is under way any more, nor a cancel. */
static void over(struct iok_conn *conn)
{
    iok_cancel_stop(conn);
    if (conn->state == IOK_CONN_RESETTING) {
        iok_conn_clean(conn);
        return;
    }
    iok_conn_arm(conn);
    if (conn->lease != NULL) {
        iok_lease_resume(conn->lease);
    }
    iok_service_want_pump(conn->service);
}

/* ---- the second connection ---- */

static void on_connected(void *owner, const struct iok_address *address, const char *alpn)
{
    struct iok_conn *conn = owner;
    struct iok_core *core = conn->service->core;
    uint8_t bytes[IOK_CANCEL_BYTES_MAX];
    struct iovec vec = {bytes, conn->service->proto->cancel(conn->codec, bytes, sizeof(bytes))};

    (void)address;
    (void)alpn;
    iok_core_look_at_clock(core);
    if (core->net->ops->send(conn->cancel.link, &vec, 1) == (ptrdiff_t)vec.iov_len) {
        conn->cancel.state = IOK_CANCEL_SENT;
        conn->cancel.told = conn->head_seq;
    } else { /* a part of it means nothing to the server */
        close_link(conn);
        wait_until(conn, core->now + IOK_CANCEL_AGAIN_NS);
    }
}

/* The server says nothing there; whatever it is, it is dropped. */
static uint8_t *on_read_space(void *owner, size_t *n)
{
    struct iok_conn *conn = owner;

    *n = IOK_CANCEL_BYTES_MAX;
    return conn->service->core->scratch;
}

static void on_arrived(void *owner, size_t n)
{
    (void)owner;
    (void)n;
}

static void on_closed(void *owner, const struct iok_error *err)
{
    struct iok_conn *conn = owner;
    struct iok_core *core = conn->service->core;

    iok_core_look_at_clock(core);
    conn->cancel.link = NULL;
    if (conn->cancel.state == IOK_CANCEL_SENT && err->code != 0) {
        give_up(conn, err->text); /* the server may still act on it, and nobody will tell when */
    } else if (conn->n_left == 0) {
        over(conn);
    } else { /* if it took effect, the next one of those that were abandoned runs by now */
        bool next = conn->cancel.state == IOK_CANCEL_SENT && conn->head_seq != conn->cancel.told;

        wait_until(conn, core->now + (next ? IOK_CANCEL_AFTER_NS : IOK_CANCEL_AGAIN_NS));
    }
}

static const struct iok_link_events link_events = {
    .connected = on_connected,
    .read_space = on_read_space,
    .arrived = on_arrived,
    .writable = NULL, /* it is for who was told that not all was accepted, and has not closed */
    .closed = on_closed,
};

/* ---- from outside ---- */

static bool can_begin(const struct iok_conn *conn)
{
    const struct iok_service *service = conn->service;
    uint8_t bytes[IOK_CANCEL_BYTES_MAX];

    return service->config.cancel_timeout != 0 && conn->n_left != 0 && conn->n_live == conn->n_left + conn->pinged &&
           (conn->state == IOK_CONN_READY || conn->state == IOK_CONN_LEASED) &&
           service->proto->cancel(conn->codec, bytes, sizeof(bytes)) != 0;
}

void iok_cancel_look(struct iok_conn *conn)
{
    struct iok_core *core = conn->service->core;
    struct iok_cancel *cancel = &conn->cancel;
    bool runs = cancel->state != IOK_CANCEL_NONE;

    if (runs && conn->n_left == 0) {
        if (cancel->state != IOK_CANCEL_SENT) {
            over(conn);
        }
        return;
    }
    if (runs ? cancel->seen == conn->head_seq : !can_begin(conn)) {
        return;
    }
    cancel->seen = conn->head_seq; /* each has the whole time */
    cancel->give_up = core->now + conn->service->config.cancel_timeout;
    if (cancel->link == NULL) {
        wait_until(conn, core->now + IOK_CANCEL_AFTER_NS);
    } else {
        iok_timer_set(&core->wheel, &cancel->timer, cancel->give_up);
    }
}

void iok_cancel_timer(struct iok_conn *conn)
{
    struct iok_core *core = conn->service->core;
    struct iok_cancel *cancel = &conn->cancel;
    struct iok_target target = iok_conn_target(conn, &conn->address, 1);
    struct iok_error err;

    if (core->now >= cancel->give_up) {
        give_up(conn, cancel->state == IOK_CANCEL_WAITING ? "it goes on after cancel_timeout="
                                                          : "no end within cancel_timeout=");
        return;
    }
    assert(cancel->state == IOK_CANCEL_WAITING && cancel->link == NULL);
    cancel->link = core->net->ops->open(core->net, &target, &link_events, conn, &err);
    if (cancel->link == NULL) {
        wait_until(conn, core->now + IOK_CANCEL_AGAIN_NS);
        return;
    }
    cancel->state = IOK_CANCEL_CONNECTING;
    iok_timer_set(&core->wheel, &cancel->timer, cancel->give_up);
}
