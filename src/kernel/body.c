/* body.c - the body of a request, which the program hands over part by part.
 *
 *     part submitted --> whole->parts, until the peer wants the body --> conn->parts, until its bytes are out --> DONE
 *
 * A part is a call without a request of its own, so it has a slot in the rings, a deadline, and memory that is lent. That
 * it has ended is the credit for the next: the kernel holds no more of a body than the program has parts alive. Bytes
 * go out by reference; a part that is cut while they do is copied.
 *
 * A protocol with one request at a time on a connection (IOK_PROTO_SINGLE) has no word for "broken off": its connection
 * ends then, and with it the whole call.
 *
 * Invariant: a body has no hole. Where a part is lost (its deadline, a cancel), the codec breaks the body off, and every
 * later part ends as never sent. */
#include "kernel.h"

#define IOK_BODY_WAIT_NS IOK_NS_S /* for a word that need not come: as curl does */

static bool is_mute(const struct iok_call *call)
{
    return (call->service->proto->flags & IOK_PROTO_SINGLE) != 0;
}

static struct iok_call *call_at(struct iok_node *node)
{
    return iok_container(node, struct iok_call, node);
}

static void refuse_all(struct iok_core *core, struct iok_list *parts, const struct iok_error *why)
{
    struct iok_node *node;

    while ((node = iok_list_first(parts)) != NULL) {
        iok_call_end(core, call_at(node), IOK_NEVER_SENT, why);
    }
}

static int break_off(struct iok_conn *conn, uint64_t seq, const char *why)
{
    iok_conn_dirty(conn);
    return conn->service->proto->body(conn->codec, &conn->io, seq, iok_span_of(why), IOK_BODY_FAIL);
}

/* What the codec makes of a part. */
static int encode(struct iok_conn *conn, const struct iok_call *whole, const struct iok_call *part)
{
    const struct iok_proto *proto = conn->service->proto;
    bool end = (part->flags & IOK_CALL_PART_END) != 0;
    uint32_t n = part->args.n_tokens;
    int rc = 0;

    if ((part->flags & IOK_CALL_PART_FAIL) != 0) {
        struct iok_span why = n > 0 ? iok_token_span(&part->args.tokens[0]) : iok_span(NULL, 0);

        return proto->body(conn->codec, &conn->io, whole->seq, why, IOK_BODY_FAIL);
    }
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        enum iok_body what = end && i + 1 == n ? IOK_BODY_END : IOK_BODY_PART;

        rc = proto->body(conn->codec, &conn->io, whole->seq, iok_token_span(&part->args.tokens[i]), what);
    }
    if (n == 0 && end) {
        rc = proto->body(conn->codec, &conn->io, whole->seq, iok_span(NULL, 0), IOK_BODY_END);
    }
    return rc == 0 && conn->out.error != 0 ? iok_io_fail(&conn->io, conn->out.error, "out of memory for bytes to send")
                                           : rc;
}

static int send_waiting(struct iok_conn *conn, struct iok_call *whole)
{
    struct iok_core *core = conn->service->core;
    struct iok_node *node;
    int rc;

    while (whole->body == IOK_BODY_OPEN && (node = iok_list_first(&whole->parts)) != NULL) {
        struct iok_call *part = call_at(node);

        rc = encode(conn, whole, part);
        if (rc == IOK_EINVAL) { /* the program's fault, and not the peer's */
            struct iok_error err = conn->io.err;

            iok_call_cut(core, whole, &err);
        }
        if (rc != 0) {
            return rc;
        }
        iok_list_remove(node);
        iok_list_push(&conn->parts, node);
        part->seq = conn->out.appended;
        part->conn = conn;
        part->peer = conn->peer;
        part->state = IOK_CALL_SENT;
        if ((part->flags & (IOK_CALL_PART_END | IOK_CALL_PART_FAIL)) != 0) {
            whole->body = IOK_BODY_OVER;
            iok_call_progress(core, whole);
        }
    }
    iok_conn_dirty(conn);
    return 0;
}

static void close_by_error(struct iok_conn *conn)
{
    struct iok_error err = conn->io.err;

    iok_conn_close(conn, &err);
}

/* The program says that there will be no more of it. */
static void give_up(struct iok_core *core, struct iok_call *whole, struct iok_call *part)
{
    struct iok_span why = iok_token_span(&part->args.tokens[0]);
    struct iok_error err;

    iok_err(&err, IOK_ECANCELLED, "the body was broken off: %.*s", (int)why.n, (const char *)why.p);
    iok_call_cut(core, whole, &err);
    iok_call_end(core, part, IOK_DONE, NULL);
}

void iok_body_take(struct iok_core *core, struct iok_call *part)
{
    struct iok_call *whole = part->whole;
    struct iok_conn *conn = whole->conn;

    iok_call_begin(part, &core->replies);
    part->stamps.taken = core->now > part->submitted ? core->now : part->submitted;
    part->state = IOK_CALL_QUEUED;
    iok_count_own_add(&core->inflight, 1);
    if (core->forked != NULL) {
        iok_call_end(core, part, IOK_NEVER_SENT, core->forked);
        return;
    }
    if (whole->state == IOK_CALL_ENDED || whole->body < IOK_BODY_HELD || whole->body == IOK_BODY_OVER ||
        whole->body == IOK_BODY_BROKEN) {
        iok_call_fail(core, part, IOK_NEVER_SENT, IOK_ESTATE, "the %s",
                      whole->state == IOK_CALL_ENDED ? "call whose body it is part of has ended"
                                                     : "body is complete, or was broken off");
        return;
    }
    if ((part->flags & IOK_CALL_PART_FAIL) != 0 && is_mute(whole)) {
        give_up(core, whole, part);
        return;
    }
    iok_call_set_deadline(core, part, 0);
    iok_list_push(&whole->parts, &part->node);
    if (whole->body == IOK_BODY_OPEN && send_waiting(conn, whole) != 0) {
        close_by_error(conn);
    }
}

int iok_body_go(struct iok_conn *conn, uint64_t seq)
{
    struct iok_call *call = iok_flight_at(conn, seq)->call;

    if (call == NULL || call->body == IOK_BODY_BROKEN) {
        if (call != NULL) {
            call->body = IOK_BODY_OVER;
        }
        return break_off(conn, seq, "cancelled");
    }
    call->body = IOK_BODY_OPEN;
    iok_timer_stop(&conn->service->core->wheel, &call->deadline); /* it is the program's turn; parts have their own */
    return send_waiting(conn, call);
}

int iok_body_begin(struct iok_conn *conn, struct iok_call *call)
{
    struct iok_core *core = conn->service->core;
    uint32_t wanted = iok_flight_at(conn, call->seq)->host;

    if ((wanted & IOK_FLIGHT_GO) != 0) {
        return iok_body_go(conn, call->seq);
    }
    if ((wanted & IOK_FLIGHT_SOON) != 0) {
        uint64_t half = call->deadline_ns == 0 ? UINT64_MAX : (call->deadline_ns - core->now) / 2;

        call->deadline.kind = IOK_TIMER_CALL;
        iok_timer_set(&core->wheel, &call->deadline, core->now + (half < IOK_BODY_WAIT_NS ? half : IOK_BODY_WAIT_NS));
    }
    return 0;
}

bool iok_body_waited(struct iok_call *call)
{
    struct iok_conn *conn = call->conn;
    struct iok_flight *flight;

    if (call->body != IOK_BODY_HELD || call->state != IOK_CALL_SENT) {
        return false;
    }
    flight = iok_flight_at(conn, call->seq);
    if ((flight->host & IOK_FLIGHT_SOON) == 0) {
        return false;
    }
    flight->host &= ~(uint32_t)IOK_FLIGHT_SOON;
    if (iok_body_go(conn, call->seq) != 0) {
        close_by_error(conn);
    }
    return true;
}

void iok_body_sent(struct iok_conn *conn)
{
    struct iok_core *core = conn->service->core;
    struct iok_node *node;

    while ((node = iok_list_first(&conn->parts)) != NULL && call_at(node)->seq <= conn->out.taken) {
        call_at(node)->stamps.sent = core->now;
        iok_call_end(core, call_at(node), IOK_DONE, NULL);
    }
}

int iok_body_forget(struct iok_conn *conn, struct iok_call *call)
{
    if (call->body != IOK_BODY_OPEN) {
        return 0; /* one that is held back is broken off when the peer wants it */
    }
    call->body = IOK_BODY_OVER;
    return break_off(conn, call->seq, "cancelled");
}

void iok_body_lost(struct iok_conn *conn, const struct iok_error *err)
{
    struct iok_error over;
    struct iok_node *node;

    if (err->code == 0) { /* no failure: it is closed as the call went away, or was answered early */
        iok_err(&over, IOK_ESTATE, "the call whose body it is part of has ended");
        err = &over;
    }
    while ((node = iok_list_first(&conn->parts)) != NULL) {
        iok_call_end(conn->service->core, call_at(node), IOK_MAYBE_EXECUTED, err);
    }
}

void iok_body_end(struct iok_core *core, struct iok_call *call)
{
    struct iok_error err;

    call->body = IOK_BODY_OVER;
    iok_err(&err, IOK_ESTATE, "the call whose body it is part of has ended");
    refuse_all(core, &call->parts, &err);
}

void iok_body_cut(struct iok_core *core, struct iok_call *part, const struct iok_error *err)
{
    struct iok_call *whole = part->whole;
    struct iok_conn *conn = part->conn;
    struct iok_error why;
    bool sent = part->state == IOK_CALL_SENT;
    int rc = 0;

    if (sent) {
        rc = iok_out_own(&conn->out, conn->out.taken, part->seq);
        if (rc != 0) {
            iok_io_fail(&conn->io, rc, "out of memory for the unsent rest of a cancelled part");
        }
    }
    iok_call_end(core, part, sent ? IOK_MAYBE_EXECUTED : IOK_NEVER_SENT, err);
    if (is_mute(whole) && whole->state != IOK_CALL_ENDED && whole->body != IOK_BODY_OVER) {
        iok_call_cut(core, whole, err);
        return;
    }
    if (whole->state != IOK_CALL_ENDED && whole->body == IOK_BODY_HELD) {
        whole->body = IOK_BODY_BROKEN;
    } else if (rc == 0 && whole->state != IOK_CALL_ENDED && whole->body == IOK_BODY_OPEN) {
        conn = whole->conn;
        whole->body = IOK_BODY_OVER;
        iok_call_progress(core, whole);
        rc = break_off(conn, whole->seq, "a part of it was cancelled");
    }
    iok_err(&why, IOK_ESTATE, "an earlier part of the body was cancelled");
    if (whole->state != IOK_CALL_ENDED) {
        refuse_all(core, &whole->parts, &why);
    }
    if (rc != 0) {
        close_by_error(conn);
    }
}
