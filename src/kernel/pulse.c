/* pulse.c - whether a connection lives: when it is pinged, given up for its silence, or closed as nobody needs it.
 *
 * What it is: the one timer of a connection, whose meaning is its state's (iok_conn_arm), and what is done when it fires.
 * What it is not: deadlines of calls (call.c), or of a cancel (cancel.c).
 *
 * Invariant: one ping at a time; and none where it would become part of something, or wait behind something. */
#include "kernel.h"

/* Timers of many idle connections fire together, so that an idle process seldom wakes. */
static uint64_t on_grid(uint64_t at, uint64_t grid)
{
    return grid == 0 ? at : (at + grid - 1) / grid * grid;
}

void iok_conn_arm(struct iok_conn *conn)
{
    const struct iok_service_config *config = &conn->service->config;
    struct iok_core *core = conn->service->core;
    uint64_t at = 0;

    switch (conn->state) {
    case IOK_CONN_CONNECTING:
    case IOK_CONN_SIGNING_IN:
        at = core->now + config->connect_timeout;
        break;
    case IOK_CONN_RESETTING: /* before that it is the cancel's timer that counts */
        at = conn->cancel.state == IOK_CANCEL_NONE ? core->now + config->connect_timeout : 0;
        break;
    case IOK_CONN_READY:
    case IOK_CONN_LEASED:
        if (conn->pinged) {
            at = core->now + config->ping_timeout;
        } else if (conn->state == IOK_CONN_READY && (conn->for_leases || iok_conn_is_single(conn))) {
            at = on_grid(core->now + config->lease_idle, IOK_NS_S);
        } else if (config->ping != 0) {
            at = on_grid(core->now + config->ping, config->ping / 4);
        }
        break;
    case IOK_CONN_CLOSED:
        break;
    }
    conn->timer.kind = IOK_TIMER_CONN;
    if (at == 0) {
        iok_timer_stop(&core->wheel, &conn->timer);
    } else {
        iok_timer_set(&core->wheel, &conn->timer, at);
    }
}

static void send_ping(struct iok_conn *conn)
{
    const struct iok_proto *proto = conn->service->proto;
    struct iok_flight *flight = conn->raw ? NULL : iok_flight_push(conn);
    struct iok_error err;
    int rc;

    if (flight == NULL && !conn->raw) {
        return; /* next time */
    }
    if (flight != NULL) {
        flight->host = IOK_FLIGHT_PING;
    }
    rc = proto->ping(conn->codec, &conn->io, flight);
    if (rc < 0) {
        err = conn->io.err;
        iok_conn_close(conn, &err);
        return;
    }
    if (rc > 0) {
        return; /* what it has become has no such thing */
    }
    conn->pinged = true;
    iok_count_own_add(&conn->service->pings, 1);
    if (flight != NULL) {
        flight->end = conn->out.appended;
    }
    iok_conn_dirty(conn);
}

/* A lease may be inside a transaction, which a ping would become part of, or block on purpose, which a ping would wait
 * behind: TCP keepalive watches it, and the deadlines of its calls. While it streams without end, a ping is
 * safe and needed, but not amid a call, as that may have a body. Of a protocol with one request at a time only a raw
 * connection is pinged, unless the ping would wait behind what the peer has not taken yet. */
static bool may_ping(const struct iok_conn *conn)
{
    const struct iok_proto *proto = conn->service->proto;
    bool behind = (proto->flags & IOK_PROTO_LONG) != 0 && conn->n_live != 0;

    if (proto->ping == NULL || conn->cancel.state != IOK_CANCEL_NONE) {
        return false;
    }
    if (iok_conn_is_single(conn)) {
        return conn->raw && !conn->ended && iok_out_pending(&conn->out) == 0;
    }
    return !behind && (conn->lease == NULL || (conn->stream != NULL && conn->n_live == 0));
}

void iok_conn_answered(struct iok_conn *conn)
{
    conn->pinged = false;
    iok_conn_arm(conn); /* for the next ping; it was set to the answer's deadline */
}

/* Nothing was received for a while. */
static void quiet(struct iok_conn *conn)
{
    const struct iok_service_config *config = &conn->service->config;
    struct iok_core *core = conn->service->core;
    uint64_t silence = core->now - conn->arrived_at;
    struct iok_error err;

    if (conn->read_paused) { /* the silence is our own; TCP probes a peer whose window is closed */
        iok_conn_arm(conn);
        return;
    }
    if (conn->pinged && silence >= config->ping_timeout) {
        iok_err(&err, IOK_ERESET, "no answer to a ping for %.3g s", (double)config->ping_timeout / 1e9);
        iok_conn_lose(conn, &err);
        return;
    }
    if (!conn->pinged && silence >= config->ping - config->ping / 4 && may_ping(conn)) {
        send_ping(conn);
    }
    if (conn->state != IOK_CONN_CLOSED) {
        iok_conn_arm(conn);
    }
}

/* Made by need, and not needed for a while. */
static bool is_idle(const struct iok_conn *conn)
{
    const struct iok_service *service = conn->service;

    if (conn->state != IOK_CONN_READY || conn->pinged) {
        return false;
    }
    return conn->for_leases || (iok_conn_is_single(conn) && conn->n_live == 0 &&
                                service->core->now - conn->arrived_at >= service->config.lease_idle);
}

void iok_conn_timer(struct iok_conn *conn)
{
    struct iok_error err;
    double seconds = (double)conn->service->config.connect_timeout / 1e9;

    switch (conn->state) {
    case IOK_CONN_CONNECTING:
        iok_err(&err, IOK_ECONNECT, "not connected within connect_timeout=%.3g s", seconds);
        iok_conn_close(conn, &err);
        break;
    case IOK_CONN_SIGNING_IN:
    case IOK_CONN_RESETTING:
        iok_err(&err, IOK_ECONNECT, "connected, but no answer to the sign-in within connect_timeout=%.3g s", seconds);
        iok_conn_close(conn, &err);
        break;
    case IOK_CONN_READY:
    case IOK_CONN_LEASED:
        if (is_idle(conn)) {
            iok_err(&err, 0, "idle");
            iok_conn_close(conn, &err);
        } else {
            quiet(conn);
        }
        break;
    case IOK_CONN_CLOSED:
        break;
    }
}
