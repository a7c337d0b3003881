/* conn.c - one connection: opened, signed in, carrying flights, kept alive, closed truthfully. */
#include <assert.h>
#include <string.h>

#include "../base/mem.h"
#include "kernel.h"

/* The smallest message that is pushed: PostgreSQL's NotificationResponse has a type (1), a length (4), a process (4), a
 * channel of a letter and its NUL (2), and the NUL of no payload (1). RESP3's least, ">3 $7 message $1 c $0", has 31 with
 * its line ends, MONITOR's 40. A peer that sends smaller ones, which no server does, loses its connection. */
#define IOK_PART_BYTES_MIN                                                                                             \
    2u /* of a message where a codec says IOK_FLIGHT_SMALL: a frame of WebSocket with nothing in it */
#define IOK_PUSH_BYTES_MIN 12u
#define IOK_SCRATCH_BYTES (256u * 1024)  /* one read: as much as a socket buffer usually holds */
#define IOK_OUT_HIGH_BYTES (256u * 1024) /* unsent bytes above which calls rather wait in the queue, still NEVER_SENT */
#define IOK_REST_MAX_BYTES (IOK_SCRATCH_BYTES / 2) /* what feed may leave: a line of 64 KiB and room */
#define IOK_VECS 16                                /* pieces handed over at once */
#define IOK_FLUSH_BYTES_MAX                                                                                            \
    (4 * IOK_SCRATCH_BYTES) /* sent in one turn, as much as a link reads in one: the others wait */

static const uint8_t allowed[] = {
    /* from: a bit for each state that may follow */
    [IOK_CONN_CONNECTING] = 1 << IOK_CONN_SIGNING_IN | 1 << IOK_CONN_CLOSED,
    [IOK_CONN_SIGNING_IN] = 1 << IOK_CONN_READY | 1 << IOK_CONN_CLOSED,
    [IOK_CONN_READY] = 1 << IOK_CONN_LEASED | 1 << IOK_CONN_CLOSED,
    [IOK_CONN_LEASED] = 1 << IOK_CONN_READY | 1 << IOK_CONN_RESETTING | 1 << IOK_CONN_CLOSED,
    [IOK_CONN_RESETTING] = 1 << IOK_CONN_READY | 1 << IOK_CONN_CLOSED,
    [IOK_CONN_CLOSED] = 0,
};

static bool usable(enum iok_conn_state state)
{
    return state == IOK_CONN_READY || state == IOK_CONN_LEASED;
}

static bool signed_in(enum iok_conn_state state)
{
    return usable(state) || state == IOK_CONN_RESETTING;
}

void iok_conn_look(struct iok_conn *conn)
{
    conn->serves = !conn->for_leases && !conn->retires && conn->endpoint->state == IOK_ENDPOINT_UP;
}

void iok_conn_retire(struct iok_conn *conn)
{
    if (!conn->retires) {
        conn->retires = true;
        conn->endpoint->n_shared -= !conn->for_leases;
        conn->service->settled = false;
        iok_conn_look(conn);
        iok_service_want_pump(conn->service);
    }
}

void iok_conn_set_state(struct iok_conn *conn, enum iok_conn_state state)
{
    struct iok_service *service = conn->service;
    struct iok_endpoint *endpoint = conn->endpoint;
    enum iok_conn_state old = conn->state;

    if ((allowed[old] & 1u << state) == 0) {
        assert(false);
        return;
    }
    conn->state = state;
    endpoint->n_opening -= !signed_in(old) && (signed_in(state) || state == IOK_CONN_CLOSED);
    endpoint->n_ready += (uint32_t)signed_in(state) - (uint32_t)signed_in(old);
    if (old == IOK_CONN_SIGNING_IN && state == IOK_CONN_READY) {
        iok_count_own_add(&service->connects, 1);
        iok_endpoint_ready(endpoint);
        iok_conn_look(conn);
    }
    if (usable(state) && !usable(old)) {
        iok_count_own_add(&service->ready_conns, 1);
    } else if (usable(old) && !usable(state)) {
        iok_count_own_sub(&service->ready_conns, 1);
    }
    if (state == IOK_CONN_LEASED) {
        iok_count_own_add(&service->leased_conns, 1);
    } else if (old == IOK_CONN_LEASED) {
        iok_count_own_sub(&service->leased_conns, 1);
    }
    if (state == IOK_CONN_READY) {
        conn->dirty_state = false;
        service->settled &= !conn->retires && endpoint->state == IOK_ENDPOINT_UP;
        iok_service_want_pump(service);
    }
    iok_conn_arm(conn);
}

void iok_conn_dirty(struct iok_conn *conn)
{
    if (!iok_node_linked(&conn->dirty_node) && conn->state != IOK_CONN_CLOSED) {
        iok_list_push(&conn->service->core->dirty, &conn->dirty_node);
    }
}

static void close_with_io(struct iok_conn *conn)
{
    struct iok_error err = conn->io.err;

    iok_conn_close(conn, &err);
}

/* ---- events of the link ---- */

static void on_connected(void *owner, const struct iok_address *address, const char *alpn)
{
    struct iok_conn *conn = owner;
    const struct iok_proto *proto = conn->service->proto;
    int rc;

    iok_core_look_at_clock(conn->service->core);
    conn->address = *address;
    conn->peer.family = address->any.sa_family;
    if (conn->peer.family == AF_INET) {
        conn->peer.port = ntohs(address->v4.sin_port);
        memcpy(conn->peer.ip, &address->v4.sin_addr, 4);
    } else if (conn->peer.family == AF_INET6) {
        conn->peer.port = ntohs(address->v6.sin6_port);
        conn->peer.scope = address->v6.sin6_scope_id;
        memcpy(conn->peer.ip, &address->v6.sin6_addr, 16);
    } else {
        conn->peer.port = (uint16_t)(conn->endpoint - conn->service->endpoints);
    }
    conn->arrived_at = conn->service->core->now;
    if (alpn != NULL && conn->service->core->net->ops->binding != NULL) {
        conn->io.binding = iok_span(conn->binding, conn->service->core->net->ops->binding(conn->link, conn->binding));
    }
    conn->io.encrypted = alpn != NULL || conn->peer.family == AF_UNIX;
    iok_conn_set_state(conn, IOK_CONN_SIGNING_IN);
    rc = proto->open == NULL ? 0 : proto->open(conn->codec, &conn->io);
    if (rc == 0 && proto->greet != NULL) {
        rc = proto->greet(conn->codec, &conn->io);
    } else if (rc == 0) {
        iok_conn_set_state(conn, IOK_CONN_READY);
    }
    if (rc != 0) {
        close_with_io(conn);
        return;
    }
    iok_conn_dirty(conn);
}

/* Of those that the stream takes; 0: it takes none, or large ones only. */
static size_t message_bytes_min(struct iok_conn *conn)
{
    struct iok_flight *head;

    if (conn->stream == NULL || conn->notice != NULL) {
        return 0;
    }
    if ((conn->stream->flags & IOK_CALL_PARTS) == 0) {
        return IOK_PUSH_BYTES_MIN;
    }
    head = iok_flight_at(conn, IOK_SEQ_HEAD);
    return head != NULL && (head->host & IOK_FLIGHT_SMALL) != 0 ? IOK_PART_BYTES_MIN : 0;
}

static uint8_t *on_read_space(void *owner, size_t *n)
{
    struct iok_conn *conn = owner;
    struct iok_core *core = conn->service->core;
    size_t least;

    if (conn->read_paused) {
        return NULL;
    }
    conn->n_front = conn->n_rest;
    if (conn->n_rest != 0) {
        memcpy(core->scratch, conn->rest, conn->n_rest);
    }
    *n = IOK_SCRATCH_BYTES - conn->n_front;
    least = message_bytes_min(conn);
    if (least != 0) { /* no more than its messages have room, however small */
        size_t fits = iok_ring_room(&conn->stream->stream->ring) * least;
        *n = *n < fits ? *n : fits;
    }
    return core->scratch + conn->n_front;
}

static int keep_rest(struct iok_conn *conn, struct iok_span rest)
{
    if (rest.n > IOK_REST_MAX_BYTES) {
        return iok_io_fail(&conn->io, IOK_ELIMIT, "the peer sent more than %u bytes without the end of a message head",
                           IOK_REST_MAX_BYTES);
    }
    if (rest.n > conn->cap_rest) {
        uint8_t *more = iok_realloc(conn->rest, rest.n * 2);

        if (more == NULL) {
            return iok_io_fail(&conn->io, IOK_ENOMEM, "out of memory for received bytes");
        }
        conn->rest = more;
        conn->cap_rest = rest.n * 2;
    }
    if (rest.n != 0) {
        memcpy(conn->rest, rest.p, rest.n);
    }
    conn->n_rest = rest.n;
    return 0;
}

static void on_arrived(void *owner, size_t n)
{
    struct iok_conn *conn = owner;
    struct iok_service *service = conn->service;
    struct iok_core *core = service->core;
    struct iok_span in = iok_span(core->scratch, conn->n_front + n);
    ptrdiff_t used;

    iok_core_look_at_clock(core);
    conn->arrived_at = core->now;
    iok_count_own_add(&core->bytes_in, n);
    iok_count_own_add(&service->bytes_in, n);
    if (conn->raw && conn->pinged) { /* whatever comes: the peer lives */
        iok_conn_answered(conn);
    }
    used = service->proto->feed(conn->codec, &conn->io, in);
    if (used < 0 || keep_rest(conn, iok_span_skip(in, (size_t)used)) != 0) {
        close_with_io(conn);
        return;
    }
    if (conn->n_left != 0 || conn->cancel.state != IOK_CANCEL_NONE) {
        iok_cancel_look(conn);
    }
    if (iok_out_pending(&conn->out) != 0) {
        iok_conn_dirty(conn);
    }
}

static void on_writable(void *owner)
{
    struct iok_conn *conn = owner;

    conn->blocked = false;
    iok_conn_dirty(conn);
    iok_service_want_pump(conn->service);
}

/* One request at a time, and there is none: whatever way the server ends it, nothing is lost. Some send no close_notify. */
static bool is_unused(const struct iok_conn *conn)
{
    return iok_conn_is_single(conn) && usable(conn->state) && conn->n_live == 0 && !conn->raw;
}

static void on_closed(void *owner, const struct iok_error *err)
{
    struct iok_conn *conn = owner;
    struct iok_error orderly;
    int rc;

    iok_core_look_at_clock(conn->service->core);
    conn->link = NULL;
    if (err->code == IOK_ERESET && is_unused(conn)) {
        iok_err(&orderly, 0, "%s", err->text);
        iok_conn_close(conn, &orderly);
        return;
    }
    if (err->code == 0 && usable(conn->state) && conn->service->proto->eof != NULL) {
        conn->arrived_at = conn->service->core->now;
        rc = conn->service->proto->eof(conn->codec, &conn->io);
        if (rc < 0) {
            close_with_io(conn);
        } else {
            iok_err(&orderly, rc > 0 ? IOK_ERESET : 0, "the server closed the connection");
            iok_conn_close(conn, &orderly);
        }
        return;
    }
    if (err->code == 0) {
        iok_err(&orderly, IOK_ERESET, "%s",
                conn->state == IOK_CONN_SIGNING_IN ? "the server closed the connection during sign-in"
                                                   : "the server closed the connection");
        err = &orderly;
    }
    iok_conn_lose(conn, err);
}

static const struct iok_link_events link_events = {
    .connected = on_connected,
    .read_space = on_read_space,
    .arrived = on_arrived,
    .writable = on_writable,
    .closed = on_closed,
};

/* Of one that is raw: the peer's side has ended, and perhaps ours. */
static void both_ended(struct iok_conn *conn)
{
    struct iok_error orderly;
    int rc;

    conn->arrived_at = conn->service->core->now;
    rc = conn->service->proto->eof(conn->codec, &conn->io);
    if (rc < 0) {
        close_with_io(conn);
    } else if (rc == 0) {
        iok_err(&orderly, 0, "both sides have ended");
        iok_conn_close(conn, &orderly);
    }
}

static void on_ended(void *owner)
{
    struct iok_conn *conn = owner;

    iok_core_look_at_clock(conn->service->core);
    conn->ended = true;
    if (!conn->shuts) { /* else when the last of ours is out */
        both_ended(conn);
    }
}

static const struct iok_link_events raw_events = {
    .connected = on_connected,
    .read_space = on_read_space,
    .arrived = on_arrived,
    .writable = on_writable,
    .ended = on_ended,
    .closed = on_closed,
};

void iok_conn_raw(struct iok_conn *conn, struct iok_call *call)
{
    struct iok_core *core = conn->service->core;

    if (call != NULL) { /* there may be silence for as long as the two like */
        iok_timer_stop(&core->wheel, &call->deadline);
        call->deadline_ns = 0;
    }
    conn->raw = true;
    conn->service->n_raw++;
    core->net->ops->adopt(conn->link, &raw_events, conn);
}

/* ---- opening, sending, closing ---- */

struct iok_target iok_conn_target(const struct iok_conn *conn, const struct iok_address *addresses, uint32_t n)
{
    const struct iok_starttls *starttls = &conn->service->starttls;

    return (struct iok_target){addresses, n, conn->plain ? NULL : conn->endpoint->tls,
                               starttls->ask.n > 0 && conn->endpoint->port != 0 && !conn->plain ? starttls : NULL};
}

/* first: why it failed in the other way, with or without TLS, taken over; NULL: it was not tried. */
static int open_way(struct iok_endpoint *endpoint, bool for_leases, struct iok_error *first, struct iok_error *err)
{
    struct iok_service *service = endpoint->service;
    struct iok_core *core = service->core;
    struct iok_target target;
    struct iok_conn *conn = iok_calloc(sizeof(*conn));

    if (conn == NULL || (conn->codec = iok_calloc(service->proto->state_size + 1)) == NULL) {
        iok_free(conn);
        iok_free(first);
        return iok_err(err, IOK_ENOMEM, "out of memory for a connection");
    }
    conn->service = service;
    conn->first = first;
    conn->plain = service->tls_ways == (first != NULL ? IOK_TLS_THEN_PLAIN : IOK_PLAIN_THEN_TLS);
    conn->endpoint = endpoint;
    iok_count_ref(&service->refs);
    conn->for_leases = for_leases;
    conn->opened_at = core->now;
    conn->arrived_at = core->now;
    iok_out_init(&conn->out, &core->output);
    iok_list_init(&conn->parts);
    conn->io = (struct iok_io){.host = &iok_conn_host,
                               .out = &conn->out,
                               .url = &service->url,
                               .wish = service->config.wish,
                               .max_reply = service->config.max_reply};
    target = iok_conn_target(conn, endpoint->addresses, endpoint->n_addresses);
    conn->link = core->net->ops->open(core->net, &target, &link_events, conn, err);
    if (conn->link == NULL) {
        iok_conn_free(conn);
        return err->code;
    }
    iok_list_push(&service->conns, &conn->node);
    endpoint->n_opening++;
    if (for_leases) {
        service->n_leased++;
    } else {
        service->n_shared++;
        endpoint->n_shared++;
    }
    iok_count_own_add(&core->objects, 1);
    iok_conn_arm(conn);
    return 0;
}

int iok_conn_open(struct iok_endpoint *endpoint, bool for_leases, struct iok_error *err)
{
    return open_way(endpoint, for_leases, NULL, err);
}

/* It failed, before it was usable: because it has TLS, or has none? Then one in the other way takes its place. Each
 * connection tries both, so what is wrong with TLS for a moment does not last. */
static bool try_other_way(struct iok_conn *conn, enum iok_conn_state was, const struct iok_error *err)
{
    const struct iok_service *service = conn->service;
    bool had_tls = err->code == IOK_ETLS || (was == IOK_CONN_SIGNING_IN && conn->io.encrypted && conn->io.refused);
    bool lacked_tls = was == IOK_CONN_SIGNING_IN && !conn->io.encrypted && conn->io.refused;
    struct iok_error *first, failure;

    if (conn->first != NULL || conn->endpoint->tls == NULL || service->closed || service->core->stopping ||
        !(service->tls_ways == IOK_TLS_THEN_PLAIN ? had_tls : service->tls_ways == IOK_PLAIN_THEN_TLS && lacked_tls)) {
        return false;
    }
    first = iok_malloc(sizeof(*first));
    if (first == NULL) {
        return false;
    }
    *first = *err;
    return open_way(conn->endpoint, conn->for_leases, first, &failure) == 0;
}

bool iok_conn_has_room(const struct iok_conn *conn)
{
    uint64_t max = iok_conn_is_single(conn) ? 1 : conn->service->config.max_inflight;

    return conn->cancel.state == IOK_CANCEL_NONE && conn->n_live < max &&
           iok_out_pending(&conn->out) < IOK_OUT_HIGH_BYTES;
}

/* The request could not be encoded: whose fault decides who ends. */
static void encode_failed(struct iok_conn *conn, struct iok_call *call, int rc)
{
    struct iok_error err = conn->io.err;

    iok_flight_drop_last(conn);
    if (conn->stream == call) {
        conn->stream = NULL;
    }
    iok_call_end(conn->service->core, call, IOK_NEVER_SENT, &err);
    if (rc != IOK_ETYPE && rc != IOK_ELIMIT && rc != IOK_EINVAL && rc != IOK_EUNSAFE) {
        iok_conn_close(conn, &err);
    }
}

void iok_conn_send(struct iok_conn *conn, struct iok_call *call)
{
    struct iok_service *service = conn->service;
    struct iok_flight *flight;
    bool parts = (call->flags & IOK_CALL_PARTS) != 0;
    int rc;

    call->peer = conn->peer;
    if ((call->flags & IOK_CALL_READY) != 0) {
        iok_call_end(service->core, call, IOK_DONE, NULL);
        return;
    }
    if (parts && conn->stream != NULL) {
        iok_call_fail(service->core, call, IOK_NEVER_SENT, IOK_EUNSAFE, "the lease has a stream already");
        return;
    }
    flight = iok_flight_push(conn);
    if (flight == NULL) {
        iok_call_fail(service->core, call, IOK_NEVER_SENT, IOK_ENOMEM, "out of memory for a request");
        return;
    }
    flight->host = (parts ? IOK_FLIGHT_PARTS : 0) | ((call->flags & IOK_CALL_BODY) != 0 ? IOK_FLIGHT_BODY : 0);
    rc = 0;
    if (((call->class_flags & IOK_CLASS_STREAM) != 0 || parts) && conn->stream == NULL) {
        rc = iok_flight_stream(conn, call);
    }
    if (rc == 0) {
        rc = service->proto->encode(conn->codec, &conn->io, call->args.tokens, call->args.n_tokens, flight);
    } else {
        iok_io_fail(&conn->io, rc, "out of memory for a stream");
    }
    if (rc == 0 && conn->out.error != 0) {
        rc = iok_io_fail(&conn->io, conn->out.error, "out of memory for bytes to send");
    }
    if (rc != 0) {
        encode_failed(conn, call, rc);
        return;
    }
    flight->call = call;
    flight->end = conn->out.appended;
    call->seq = conn->next_seq - 1;
    call->conn = conn;
    call->state = IOK_CALL_SENT;
    call->attempts++;
    conn->dirty_state |= (call->class_flags & (IOK_CLASS_DIRTY | IOK_CLASS_STREAM)) != 0;
    service->n_inflight++;
    iok_conn_dirty(conn);
    if (call->body != IOK_BODY_NONE && iok_body_begin(conn, call) != 0) {
        close_with_io(conn);
    }
}

/* Notes the time at every flight whose last byte is out now: the time before it was handed over, since a server on
 * the same CPU may run, and answer, before the hand-over returns. */
static void stamp_sent(struct iok_conn *conn, uint64_t now)
{
    for (; conn->sent_seq != conn->next_seq; conn->sent_seq++) {
        struct iok_flight *flight = &conn->flights[conn->sent_seq & (conn->n_slots - 1)];

        if (flight->end > conn->out.taken) {
            return;
        }
        if (flight->call != NULL) {
            flight->call->stamps.sent = now;
        }
    }
}

void iok_conn_flush(struct iok_conn *conn)
{
    struct iok_service *service = conn->service;
    struct iok_core *core = service->core;
    struct iovec vec[IOK_VECS];
    bool full = iok_out_pending(&conn->out) >= IOK_OUT_HIGH_BYTES;
    size_t left = IOK_FLUSH_BYTES_MAX;

    iok_core_look_at_clock(core);
    while (iok_out_pending(&conn->out) != 0 && !conn->blocked && conn->link != NULL &&
           conn->state != IOK_CONN_CONNECTING) {
        int n = iok_out_peek(&conn->out, vec, IOK_VECS);
        size_t size;
        ptrdiff_t sent;

        if (left == 0) {
            iok_conn_dirty(conn); /* goes on in the next turn */
            break;
        }
        n = iok_out_limit(vec, n, left, &size);
        left -= size;
        sent = core->net->ops->send(conn->link, vec, n);
        if (sent < 0) {
            return; /* closed follows */
        }
        iok_out_take(&conn->out, (size_t)sent);
        iok_count_own_add(&core->bytes_out, (uint64_t)sent);
        iok_count_own_add(&service->bytes_out, (uint64_t)sent);
        conn->blocked = (size_t)sent < size;
    }
    if (full && iok_out_pending(&conn->out) < IOK_OUT_HIGH_BYTES) {
        iok_service_want_pump(service); /* calls that waited for room here */
    }
    stamp_sent(conn, core->now);
    iok_body_sent(conn);
    if (conn->shuts && iok_out_pending(&conn->out) == 0 && conn->link != NULL) {
        conn->shuts = false;
        core->net->ops->shut(conn->link);
        if (conn->ended) {
            both_ended(conn);
        }
    }
}

/* Something of it was used up, or given to the program, that a repeat would lack or bring twice. */
static bool has_begun(const struct iok_call *call)
{
    return call->body > IOK_BODY_HELD || (call->stream != NULL && iok_count_get(&call->stream->put) != 0);
}

/* What came last was its answer. */
static bool has_answer(const struct iok_conn *conn, const struct iok_call *call)
{
    return call->seq == conn->head_seq && (iok_conn_is_single(conn) || call->stamps.first_byte != 0);
}

/* A flight's call after its connection is gone: again, where that is safe, else ended truthfully. */
static void orphan(struct iok_conn *conn, struct iok_flight *flight, const struct iok_error *err)
{
    struct iok_service *service = conn->service;
    struct iok_call *call = flight->call;
    bool whole = (service->proto->flags & IOK_PROTO_WHOLE) != 0;
    uint64_t start = call->seq == conn->head_seq ? 0 : conn->flights[(call->seq - 1) & (conn->n_slots - 1)].end;
    bool sent = whole ? flight->end <= conn->out.taken : conn->out.taken > start;
    bool again = call->lease == NULL && !service->closed && call->state == IOK_CALL_SENT && !has_begun(call);

    service->n_inflight--;
    call->conn = NULL;
    flight->call = NULL; /* whoever looks at the flights while the call ends */
    if (conn->stream == call) {
        conn->stream = NULL;
    }
    if (again && sent) { /* a reply that was too large would be so again, or could not be read */
        again = err->code != IOK_ELIMIT && !(err->code == IOK_EPROTO && has_answer(conn, call)) &&
                (call->class_flags & IOK_CLASS_REPEATABLE) != 0 && call->attempts <= service->config.retries &&
                iok_budget_spend(&service->retry_budget);
    }
    if (!again) {
        iok_call_end(service->core, call, sent ? IOK_MAYBE_EXECUTED : IOK_NEVER_SENT, err);
        return;
    }
    call->maybe_ran |= sent;
    iok_call_again(call);
}

void iok_conn_close(struct iok_conn *conn, const struct iok_error *why)
{
    struct iok_service *service = conn->service;
    struct iok_core *core = service->core;
    struct iok_error err = *why; /* why may be part of what ends here */
    enum iok_conn_state was = conn->state;
    bool was_usable = signed_in(was);

    if (conn->state == IOK_CONN_CLOSED) {
        return;
    }
    iok_conn_set_state(conn, IOK_CONN_CLOSED);
    service->n_raw -= conn->raw;
    if (iok_node_linked(&conn->dirty_node)) {
        iok_list_remove(&conn->dirty_node);
    }
    iok_cancel_stop(conn);
    if (conn->link != NULL) {
        core->net->ops->close(conn->link);
        conn->link = NULL;
    }
    if (conn->push != NULL) {
        iok_message_free(conn->push);
        conn->push = NULL;
    }
    if (conn->for_leases) {
        service->n_leased--;
    } else {
        service->n_shared--;
        conn->endpoint->n_shared -= !conn->retires;
    }
    iok_list_remove(&conn->node);
    iok_list_push(&core->dead, &conn->node);
    conn->io.tape = NULL;
    iok_body_lost(conn, &err);
    for (uint64_t seq = conn->next_seq; seq-- != conn->head_seq;) { /* newest first: queued again in their order */
        struct iok_flight *flight = &conn->flights[seq & (conn->n_slots - 1)];

        if (flight->call != NULL) {
            orphan(conn, flight, &err);
        }
    }
    iok_flight_tell_dropped(conn);
    if (conn->stream != NULL) { /* its flight was answered long ago */
        conn->stream->conn = NULL;
        iok_call_end(core, conn->stream, IOK_MAYBE_EXECUTED, &err);
        conn->stream = NULL;
    }
    if (conn->lease != NULL) {
        iok_lease_lost(conn->lease, &err);
    }
    if (!was_usable && try_other_way(conn, was, &err)) {
        return;
    }
    if (!was_usable && conn->first != NULL && err.code != 0) {
        struct iok_error second = err;

        iok_err(&err, err.code, "%.*s; %s TLS: %s", (int)(sizeof(err.text) / 2 - 16), conn->first->text,
                conn->plain ? "without" : "with", second.text);
    }
    iok_endpoint_lost(conn->endpoint, &err, was_usable);
    iok_service_want_pump(service);
}

void iok_conn_lose(struct iok_conn *conn, const struct iok_error *why)
{
    const struct iok_proto *proto = conn->service->proto;

    if (conn->raw && usable(conn->state) && proto->lost != NULL) {
        conn->arrived_at = conn->service->core->now;
        if (proto->lost(conn->codec, &conn->io, iok_span_of(why->text)) < 0) {
            close_with_io(conn);
            return;
        }
    }
    iok_conn_close(conn, why);
}

void iok_conn_free(struct iok_conn *conn)
{
    struct iok_service *service = conn->service;

    if (conn->service->proto->close != NULL) {
        conn->service->proto->close(conn->codec);
    }
    iok_out_deinit(&conn->out);
    iok_tape_deinit(&conn->scrap);
    iok_free(conn->first);
    iok_free(conn->flights);
    iok_free(conn->rest);
    iok_free(conn->codec);
    iok_free(conn);
    iok_service_drop(service);
}

/* Nothing else tells whether the server is alive, and other calls have other connections. */
static void close_given_up(struct iok_conn *conn, struct iok_call *call)
{
    struct iok_error err;

    iok_flight_at(conn, call->seq)->call = NULL;
    iok_err(&err, 0, "its request was given up");
    iok_conn_close(conn, &err);
}

void iok_conn_forget(struct iok_conn *conn, struct iok_call *call)
{
    struct iok_flight *flight;
    uint64_t start;

    call->conn = NULL;
    if (conn->stream == call) {
        iok_flight_end_stream(conn);
    }
    if (call->state == IOK_CALL_STREAMING) {
        return; /* the lease's end closes or resets the connection */
    }
    conn->n_left++;
    conn->service->n_inflight--;
    iok_service_want_pump(conn->service);
    if (iok_conn_is_single(conn)) {
        close_given_up(conn, call);
        return;
    }
    flight = iok_flight_at(conn, call->seq);
    flight->call = NULL;
    if (conn->io.tape == &call->reply) { /* in the middle of its reply: the rest is read and dropped */
        iok_tape_deinit(&conn->scrap);
        iok_tape_init(&conn->scrap, NULL, 0, NULL, 0, conn->io.max_reply, NULL);
        conn->scrap.discard = true;
        conn->scrap.fill_left = call->reply.fill_left;
        conn->io.tape = &conn->scrap;
    }
    if (iok_body_forget(conn, call) != 0) {
        close_with_io(conn);
        return;
    }
    start = call->seq == conn->head_seq ? conn->out.taken : conn->flights[(call->seq - 1) & (conn->n_slots - 1)].end;
    if (iok_out_own(&conn->out, start, flight->end) != 0) {
        struct iok_error err;

        iok_err(&err, IOK_ENOMEM, "out of memory for the unsent rest of a cancelled call");
        iok_conn_close(conn, &err);
    }
    iok_cancel_look(conn);
}

void iok_conn_resume(struct iok_conn *conn)
{
    if (conn->read_paused && conn->link != NULL) {
        conn->read_paused = false;
        conn->arrived_at = conn->service->core->now; /* the silence before was ours */
        if (conn->stream != NULL && (conn->stream->flags & IOK_CALL_PARTS) != 0) {
            iok_call_progress(conn->service->core, conn->stream);
        }
        conn->service->core->net->ops->want_read(conn->link, true);
    }
}

void iok_conn_clean(struct iok_conn *conn)
{
    const struct iok_proto *proto = conn->service->proto;
    struct iok_error err;

    iok_conn_arm(conn);
    if (!conn->dirty_state) {
        iok_conn_set_state(conn, IOK_CONN_READY);
    } else if (proto->reset == NULL || proto->reset(conn->codec, &conn->io) != 0) {
        iok_conn_flush(conn); /* a codec's last words, such as the close of a WebSocket, belong to no call any more */
        iok_err(&err, 0, "cannot be made clean");
        iok_conn_close(conn, &err);
    } else {
        iok_conn_dirty(conn);
    }
}

void iok_conn_reset(struct iok_conn *conn, bool behind)
{
    struct iok_error err;

    if (conn->n_live == 0 && !conn->dirty_state) {
        iok_conn_set_state(conn, IOK_CONN_READY);
    } else if (conn->n_live == 0 && !behind) {
        iok_conn_set_state(conn, IOK_CONN_RESETTING);
        iok_conn_clean(conn);
    } else if (conn->cancel.state != IOK_CANCEL_NONE && !behind) {
        iok_conn_set_state(conn, IOK_CONN_RESETTING); /* and clean when that is over */
    } else {
        iok_err(&err, 0, "given back with calls or messages under way");
        iok_conn_close(conn, &err);
    }
}
