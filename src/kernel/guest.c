/* guest.c - one accepted connection: what its client sends is read, one request at a time is served, answers go out.
 *
 *     bytes -> [rest][scratch] -> codec -> request -> call            answer -> codec -> out -> bytes
 *
 * What it is: reading, sending, deadlines, and what becomes of a request whose client goes away. What it is not: how a
 * request is read (the codec, and guest_host.c), and who serves it (listener.c, serve.c).
 *
 * Invariants: a request is fed to the codec only when the one before it is answered, so requests and answers need no
 * queue. What waits for that is bounded (IOK_AHEAD_BYTES_MAX and one read). The timer is set at or before the time at which
 * something is due, and that is looked at only when it fires: a request that is served at once sets none. */
#include <assert.h>
#include <string.h>

#include "../base/mem.h"
#include "serve.h"

#define IOK_READ_BYTES                                                                                                 \
    (32u * 1024) /* one read: a head and a small body; more would have to be kept if it was sent ahead */
#define IOK_BODY_BYTES (64u * 1024)    /* one read within a body */
#define IOK_AHEAD_BYTES_MAX 16384u     /* read ahead, behind the request that is served; then reading pauses */
#define IOK_REST_BYTES_MAX 65536u      /* what feed may leave: a line, and room */
#define IOK_REST_KEEP 4096u            /* an empty buffer above this is given back */
#define IOK_VECS 16                    /* pieces handed over at once */
#define IOK_FLUSH_BYTES_MAX (1u << 20) /* sent in one turn: the others wait */
#define IOK_OWN_BYTES_MAX 65536u /* of an answer that a slow client leaves unsent: copied, so that the call can go on */
/* For a client to read an answer, and stop sending, before the connection is reset: so long after its last bytes, and at
 * most so long in all. */
#define IOK_LINGER_NS (2 * IOK_NS_S)
#define IOK_LINGER_MAX_NS (30 * IOK_NS_S)

/* For the program to take what came before its client closed: a client waits for the answer to its close, and many give
 * up after ten seconds. */
#define IOK_PARTING_NS (5 * IOK_NS_S)

static const uint8_t allowed[] = {
    /* from: a bit for each state that may follow */
    [IOK_GUEST_OPENING] = 1 << IOK_GUEST_IDLE | 1 << IOK_GUEST_CLOSED,
    [IOK_GUEST_IDLE] = 1 << IOK_GUEST_READING | 1 << IOK_GUEST_CLOSED,
    [IOK_GUEST_READING] =
        1 << IOK_GUEST_QUEUED | 1 << IOK_GUEST_SERVED | 1 << IOK_GUEST_ANSWERING | 1 << IOK_GUEST_CLOSED,
    [IOK_GUEST_QUEUED] = 1 << IOK_GUEST_SERVED | 1 << IOK_GUEST_ANSWERING | 1 << IOK_GUEST_CLOSED,
    [IOK_GUEST_SERVED] =
        1 << IOK_GUEST_SERVED | 1 << IOK_GUEST_QUEUED | 1 << IOK_GUEST_ANSWERING | 1 << IOK_GUEST_CLOSED,
    [IOK_GUEST_ANSWERING] = 1 << IOK_GUEST_IDLE | 1 << IOK_GUEST_LEAVING | 1 << IOK_GUEST_CLOSED,
    [IOK_GUEST_LEAVING] = 1 << IOK_GUEST_CLOSED,
    [IOK_GUEST_CLOSED] = 0,
};

static void arm(struct iok_guest *guest);

void iok_guest_set_state(struct iok_guest *guest, enum iok_guest_state state)
{
    struct iok_listener *listener = guest->listener;

    if ((allowed[guest->state] & 1u << state) == 0) {
        assert(false);
        return;
    }
    if (guest->state == IOK_GUEST_QUEUED) {
        iok_list_remove(&guest->wait);
        iok_count_set(&listener->queued_now, --listener->n_queued);
    } else if (state == IOK_GUEST_QUEUED) {
        iok_list_push(&listener->queue, &guest->wait);
        iok_count_set(&listener->queued_now, ++listener->n_queued);
    }
    if (guest->state == IOK_GUEST_IDLE || state == IOK_GUEST_IDLE) {
        iok_listener_note_idle(listener, guest, state);
    }
    guest->state = state;
    guest->since = listener->core->now;
    if (state != IOK_GUEST_ANSWERING) { /* it is mostly over at once: flush arms it if not */
        arm(guest);
    }
}

/* ---- deadlines -------------------------------------------------------------------------------------------------- */

/* For a request to begin, or a handshake to end. A client whose connection is closed just as it asks cannot know whether
 * it was heard; so one that was busy a moment ago is given that moment, and its request is answered as the last. */
static uint64_t patience(const struct iok_guest *guest, uint64_t timeout)
{
    bool farewell = iok_listener_state(guest->listener) != IOK_LISTENER_OPEN && timeout > IOK_FAREWELL_NS;

    return guest->since + (farewell ? IOK_FAREWELL_NS : timeout);
}

/* Of a body under way. A second without body_rate bytes is a second less to wait for the next ones; more bytes than that win
 * back what was lost, and no more. Where arrived_at was moved on, the time before was ours. */
static uint64_t body_due(const struct iok_guest *guest)
{
    uint64_t timeout = guest->listener->config.body_timeout;

    return guest->arrived_at + (guest->lag < timeout ? timeout - guest->lag : 0);
}

static void note_pace(struct iok_guest *guest, size_t n)
{
    uint64_t rate = guest->listener->config.body_rate;
    uint64_t spent = guest->lag + guest->listener->core->now - guest->arrived_at;
    uint64_t paid = rate != 0 ? n * IOK_NS_S / rate : UINT64_MAX;

    guest->lag = spent > paid ? spent - paid : 0;
}

/* When its state is over; 0: never. */
static uint64_t due(const struct iok_guest *guest)
{
    const struct iok_listener_config *config = &guest->listener->config;
    uint64_t quiet;

    switch (guest->state) {
    case IOK_GUEST_OPENING:
        return patience(guest, config->handshake_timeout);
    case IOK_GUEST_IDLE:
        return patience(guest, guest->n_requests == 0 ? config->header_timeout : config->idle);
    case IOK_GUEST_READING:
        return guest->in_body ? body_due(guest) : guest->began_at + config->header_timeout;
    case IOK_GUEST_QUEUED:
        return guest->since + config->queue_timeout;
    case IOK_GUEST_ANSWERING:
        if (iok_out_pending(&guest->out) != 0) {
            return guest->since + config->write_timeout;
        }
        break;
    case IOK_GUEST_LEAVING:
        quiet = guest->arrived_at + IOK_LINGER_NS;
        quiet = quiet > guest->since + IOK_LINGER_NS ? quiet : guest->since + IOK_LINGER_NS;
        return quiet < guest->since + IOK_LINGER_MAX_NS ? quiet : guest->since + IOK_LINGER_MAX_NS;
    case IOK_GUEST_SERVED:
    case IOK_GUEST_CLOSED:
        break;
    }
    if (guest->parting) {
        return guest->parting_at + IOK_PARTING_NS;
    }
    if (guest->upgraded) {
        return !guest->pings || config->ws_ping == 0 || guest->held
                   ? 0
                   : guest->arrived_at + config->ws_ping * (guest->pinged ? 2 : 1);
    }
    return guest->streams && !guest->held ? body_due(guest) : 0;
}

static void arm(struct iok_guest *guest)
{
    uint64_t at = due(guest);

    if (at != 0 && (!iok_timer_is_set(&guest->timer) || guest->timer.tick << IOK_TICK_SHIFT > at)) {
        iok_timer_set(&guest->listener->core->wheel, &guest->timer, at);
    }
}

static void close_quietly(struct iok_guest *guest, const char *why)
{
    struct iok_error err;

    iok_err(&err, 0, "%s", why);
    iok_guest_close(guest, &err);
}

/* Nothing came from the client of another protocol: true if it is asked for a sign of life. */
static bool ping(struct iok_guest *guest)
{
    const struct iok_proto_server *server = guest->listener->proto->server;

    if (!guest->upgraded || guest->parting || guest->pinged || iok_out_pending(&guest->out) != 0) {
        return false;
    }
    guest->pinged = true;
    iok_out_lend(&guest->out, &guest->listener->core->spare_output);
    if (server->ping(guest->codec, &guest->io) != 0) {
        return false; /* it is over, and the client does not go */
    }
    guest->since = guest->listener->core->now;
    iok_guest_flush(guest);
    arm(guest);
    return true;
}

void iok_guest_part(struct iok_guest *guest)
{
    struct iok_core *core = guest->listener->core;

    guest->parting = false;
    guest->closing = true;
    guest->since = iok_out_pending(&guest->out) == 0 ? core->now : guest->since;
    iok_out_lend(&guest->out, &core->spare_output);
    if (guest->listener->proto->server->end(guest->codec, &guest->io) != 0 || guest->out.error != 0) {
        close_quietly(guest, "out of memory for the end");
        return;
    }
    iok_guest_flush(guest);
}

static void expire(struct iok_guest *guest)
{
    struct iok_listener *listener = guest->listener;

    if (guest->parting && iok_out_pending(&guest->out) == 0) {
        iok_guest_part(guest);
        return;
    }
    if (ping(guest)) {
        return;
    }
    iok_count_own_add(&listener->timeouts, guest->state != IOK_GUEST_IDLE && guest->state != IOK_GUEST_LEAVING);
    switch (guest->state) {
    case IOK_GUEST_READING:
    case IOK_GUEST_SERVED: /* its body comes too slowly; the program hears that the client is gone */
        iok_serve_release(guest);
        iok_guest_refuse(guest, IOK_ETIMEOUT);
        break;
    case IOK_GUEST_QUEUED:
        iok_count_own_add(&listener->shed, 1);
        iok_guest_refuse(guest, IOK_EOVERLOAD);
        break;
    default:
        close_quietly(guest, "its time is over");
        break;
    }
    iok_guest_go_on(guest);
}

void iok_guest_timer(struct iok_guest *guest)
{
    uint64_t at = due(guest);

    if (at != 0 && at <= guest->listener->core->now) {
        expire(guest);
    } else {
        arm(guest);
    }
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static bool may_feed(const struct iok_guest *guest)
{
    if (guest->streams) {
        return !guest->held && !guest->closing && guest->call != NULL && guest->call->serve->lent;
    }
    return (guest->state == IOK_GUEST_IDLE || guest->state == IOK_GUEST_READING) && !guest->closing;
}

static void close_with_io(struct iok_guest *guest)
{
    struct iok_error err = guest->io.err;

    iok_guest_close(guest, &err);
}

/* Feeds once: bytes used, or a negative value and the guest is closed. */
static ptrdiff_t feed(struct iok_guest *guest, struct iok_span in)
{
    struct iok_listener *listener = guest->listener;
    ptrdiff_t used;

    guest->began_at = guest->state == IOK_GUEST_IDLE ? listener->core->now : guest->began_at;
    if (iok_out_pending(&guest->out) == 0) { /* the client's time for what the codec has to say */
        guest->since = guest->upgraded ? listener->core->now : guest->since;
    }
    iok_out_lend(&guest->out, &listener->core->spare_output);
    guest->io.date = iok_core_date(listener->core);
    used = listener->proto->server->feed(guest->codec, &guest->io, in);
    if (used < 0 || guest->out.error != 0) {
        if (used >= 0) {
            iok_io_fail(&guest->io, guest->out.error, "out of memory for an answer");
        }
        close_with_io(guest);
        return -1;
    }
    /* An empty line between two requests is nothing of either. */
    if (guest->state == IOK_GUEST_IDLE &&
        (guest->request != NULL || guest->io.tape != NULL || guest->closing || (size_t)used < in.n)) {
        iok_guest_set_state(guest, IOK_GUEST_READING);
    }
    return used;
}

/* Keeps what cannot be fed yet, or what feed has left. */
static void keep_rest(struct iok_guest *guest, struct iok_span rest)
{
    bool ahead = !may_feed(guest);

    if (guest->closing || guest->state == IOK_GUEST_LEAVING) {
        guest->cut_short |= rest.n > 0;
        rest.n = 0;
    }
    if (rest.n > guest->cap_rest) {
        uint8_t *more = rest.n > IOK_REST_BYTES_MAX + IOK_AHEAD_BYTES_MAX ? NULL : iok_malloc(rest.n);

        if (more == NULL) {
            iok_io_fail(&guest->io, IOK_ENOMEM, "out of memory for received bytes");
            close_with_io(guest);
            return;
        }
        iok_free(guest->rest);
        guest->rest = more;
        guest->cap_rest = rest.n;
    }
    if (rest.n != 0) {
        memcpy(guest->rest, rest.p, rest.n);
    } else if (guest->cap_rest > IOK_REST_KEEP) {
        iok_free(guest->rest);
        guest->rest = NULL;
        guest->cap_rest = 0;
    }
    guest->n_rest = rest.n;
    if (((ahead && rest.n >= IOK_AHEAD_BYTES_MAX) || guest->held) && guest->link != NULL && !guest->paused) {
        guest->paused = true;
        guest->listener->core->net->ops->want_read(guest->link, false);
    }
}

/* When the client has ended: what was read of its request, or of its messages, is all. */
static void look_at_end(struct iok_guest *guest)
{
    bool feeds = guest->streams && may_feed(guest); /* else what it has sent waits to be read */

    if (!guest->ended || guest->state == IOK_GUEST_CLOSED) {
        return;
    }
    if (guest->upgraded && feeds) {
        if (guest->listener->proto->server->eof(guest->codec, &guest->io) != 0) {
            close_with_io(guest);
            return;
        }
        iok_guest_flush(guest);
    } else if (guest->state <= IOK_GUEST_READING || feeds) {
        close_quietly(guest, "the client closed the connection");
    } else if (!guest->streams && !guest->upgraded && guest->call != NULL && guest->call->serve->lent) {
        iok_serve_tell_left(guest->call);
    }
}

/* Requests are fed and dispatched one by one, as long as each is answered at once. */
static void take_in(struct iok_guest *guest, struct iok_span in)
{
    size_t at = 0;

    while (at < in.n && may_feed(guest)) {
        ptrdiff_t used = feed(guest, iok_span_skip(in, at));

        if (used < 0) {
            return;
        }
        at += (size_t)used;
        if (guest->upgraded) {
            guest->cut_short |= guest->closing; /* the client broke the protocol, and is told so */
            if (iok_out_pending(&guest->out) != 0 || guest->closing) { /* what the protocol itself has to say */
                iok_guest_flush(guest);
            }
            if (used == 0) {
                break;
            }
        } else if (guest->closing) { /* the codec could not read it, and has said so */
            guest->cut_short = true;
            guest->streams = false;
            iok_count_own_add(&guest->listener->refused, 1);
            iok_serve_release(guest);
            iok_guest_set_state(guest, IOK_GUEST_ANSWERING);
            iok_guest_flush(guest);
        } else if (guest->whole) {
            guest->whole = false;
            iok_listener_dispatch(guest->listener, guest);
        } else if (used == 0 || !guest->streams) {
            break;
        }
    }
    if (guest->state == IOK_GUEST_CLOSED) {
        return;
    }
    keep_rest(guest, iok_span_skip(in, at));
    if (guest->streams || guest->parting) {
        arm(guest);
    }
    if (guest->state == IOK_GUEST_READING) {
        if (iok_out_pending(&guest->out) != 0) { /* 100 Continue */
            iok_guest_flush(guest);
        }
        if (guest->state == IOK_GUEST_READING) {
            arm(guest);
        }
    }
    look_at_end(guest);
}

static void read_on(struct iok_guest *guest)
{
    if (guest->paused && guest->link != NULL) {
        guest->paused = false;
        guest->listener->core->net->ops->want_read(guest->link, true);
    }
}

void iok_guest_go_on(struct iok_guest *guest)
{
    struct iok_core *core = guest->listener->core;
    size_t n = guest->n_rest;

    if (!may_feed(guest)) {
        return;
    }
    if (guest->paused || n > 0) { /* the time before was ours */
        guest->arrived_at = core->now;
    }
    read_on(guest);
    if (n > 0) {
        memcpy(core->scratch, guest->rest, n);
        guest->n_rest = 0;
        take_in(guest, iok_span(core->scratch, n));
    } else {
        arm(guest);
        look_at_end(guest);
    }
}

/* ---- sending ---------------------------------------------------------------------------------------------------- */

/* All is said. A client that still sends would lose the answer by a reset, were the connection just closed. */
static void leave(struct iok_guest *guest)
{
    if (guest->ended || !guest->cut_short) {
        close_quietly(guest, "done");
        return;
    }
    iok_guest_set_state(guest, IOK_GUEST_LEAVING);
    guest->listener->core->net->ops->shut(guest->link);
    guest->says = false;
    iok_serve_release(guest); /* what the program still has to say can be heard by nobody */
}

/* Of a client that is not heard any more: it may read its answer only when it has sent all. */
static void drop_the_rest(struct iok_guest *guest)
{
    guest->cut_short |= guest->n_rest > 0 || guest->paused;
    guest->n_rest = 0;
    guest->held = false;
    read_on(guest);
}

static void answer_is_out(struct iok_guest *guest)
{
    guest->n_requests++;
    guest->cut_short |= guest->streams; /* and then the connection ends */
    guest->streams = guest->held = false;
    iok_out_unlend(&guest->out, &guest->listener->core->spare_output);
    iok_serve_release(guest);
    if (guest->closing) {
        leave(guest);
    } else {
        iok_guest_set_state(guest, IOK_GUEST_IDLE);
    }
}

/* Of what the listener keeps for it. */
static void set_unread(struct iok_guest *guest, size_t n)
{
    guest->listener->unread_bytes += n;
    guest->listener->unread_bytes -= guest->unread;
    guest->unread = n;
}

/* Whether the rest of its answer may be copied, so that the program need not wait for the client. Little of a whole one
 * always may; else by the listener's bounds. */
static bool may_keep(const struct iok_guest *guest)
{
    const struct iok_listener *listener = guest->listener;
    size_t n = iok_out_pending(&guest->out);

    if (n <= IOK_OWN_BYTES_MAX && !guest->says && iok_list_empty(&guest->parts)) {
        return true;
    }
    return guest->blocked && !guest->upgraded && n <= listener->config.max_unread &&
           listener->unread_bytes - guest->unread + n <= listener->config.max_unread_total;
}

/* Some of it is left to a slow client: the call goes on, and parts are over, where that was copied. */
static void release_early(struct iok_guest *guest)
{
    if (guest->call == NULL || !may_keep(guest) ||
        iok_out_own(&guest->out, guest->out.taken, guest->out.appended) != 0) {
        return;
    }
    set_unread(guest, iok_out_pending(&guest->out));
    iok_serve_parts_sent(guest, guest->out.appended);
    if (!guest->says) {
        iok_serve_release(guest);
    }
}

void iok_guest_want_flush(struct iok_guest *guest)
{
    if (!iok_node_linked(&guest->more)) {
        iok_list_push(&guest->listener->core->unsent, &guest->more);
    }
}

void iok_guest_flush(struct iok_guest *guest)
{
    struct iok_listener *listener = guest->listener;
    struct iok_core *core = listener->core;
    struct iovec vec[IOK_VECS];
    size_t left = IOK_FLUSH_BYTES_MAX;

    if (guest->closing) {
        drop_the_rest(guest);
    }
    while (iok_out_pending(&guest->out) != 0 && !guest->blocked && guest->link != NULL) {
        int n = iok_out_peek(&guest->out, vec, IOK_VECS);
        size_t size;
        ptrdiff_t sent;

        if (left == 0) {
            iok_guest_want_flush(guest); /* goes on in the next turn */
            break;
        }
        n = iok_out_limit(vec, n, left, &size);
        left -= size;
        sent = core->net->ops->send(guest->link, vec, n);
        if (sent < 0) {
            return; /* closed follows */
        }
        iok_out_take(&guest->out, (size_t)sent);
        iok_count_own_add(&core->bytes_out, (uint64_t)sent);
        iok_count_own_add(&listener->bytes_out, (uint64_t)sent);
        guest->since = sent > 0 && guest->state == IOK_GUEST_ANSWERING ? core->now : guest->since;
        guest->blocked = (size_t)sent < size;
    }
    if (guest->state != IOK_GUEST_ANSWERING) {
        return;
    }
    if (guest->unread > iok_out_pending(&guest->out)) {
        set_unread(guest, iok_out_pending(&guest->out));
    }
    iok_serve_parts_sent(guest, guest->out.taken);
    if (iok_out_pending(&guest->out) == 0 && guest->upgraded && guest->closing && guest->says) {
        leave(guest); /* its protocol ended it; the program hears of it */
    } else if (iok_out_pending(&guest->out) == 0 && !guest->says) {
        answer_is_out(guest);
    } else {
        if (iok_out_pending(&guest->out) != 0) {
            release_early(guest);
        }
        arm(guest);
    }
}

int iok_guest_answer(struct iok_guest *guest, const struct iok_token *answer, size_t n)
{
    struct iok_listener *listener = guest->listener;
    int rc;

    guest->io.last = iok_listener_state(listener) != IOK_LISTENER_OPEN ||
                     (listener->config.max_requests != 0 && guest->n_requests + 1 >= listener->config.max_requests);
    guest->io.date = iok_core_date(listener->core);
    iok_out_lend(&guest->out, &listener->core->spare_output);
    rc = listener->proto->server->answer(guest->codec, &guest->io, answer, n);
    if (rc == 0 && guest->out.error != 0) {
        rc = iok_io_fail(&guest->io, guest->out.error, "out of memory for an answer");
    }
    if (rc != 0 && rc != IOK_EINVAL && rc != IOK_ETYPE && rc != IOK_ELIMIT && rc != IOK_EUNSAFE) {
        close_with_io(guest);
    }
    return rc;
}

int iok_guest_upgrade(struct iok_guest *guest, const struct iok_call *call)
{
    struct iok_listener *listener = guest->listener;
    const struct iok_proto_server *server = listener->proto->server;
    const struct iok_tape *request = &call->serve->request->tape;
    struct iok_upgrade how = {.websocket = call->serve->upgrade == IOK_UPGRADE_WEBSOCKET,
                              .deflate = listener->config.ws_deflate,
                              .message_bytes_max = listener->config.ws_max_message};
    int rc;

    if (server->upgrade == NULL) {
        return iok_io_fail(&guest->io, IOK_EUNSAFE, "the protocol cannot be changed here");
    }
    if (guest->call->stream == NULL && iok_intake_open(guest, guest->call) != 0) {
        return iok_io_fail(&guest->io, IOK_EINVAL, "out of memory for messages");
    }
    iok_out_lend(&guest->out, &listener->core->spare_output);
    rc = server->upgrade(guest->codec, &guest->io, &how, request->tokens, request->n_tokens, call->args.tokens,
                         call->args.n_tokens);
    if (rc == 0) {
        guest->upgraded = guest->streams = true;
        guest->pings = how.websocket;
    } else if (rc != IOK_EINVAL && rc != IOK_ETYPE && rc != IOK_ELIMIT) {
        close_with_io(guest);
    }
    return rc;
}

void iok_guest_refuse(struct iok_guest *guest, int why)
{
    struct iok_listener *listener = guest->listener;
    int rc = -1;

    guest->io.last = iok_listener_state(listener) != IOK_LISTENER_OPEN;
    guest->io.parts = false;
    guest->io.date = iok_core_date(listener->core);
    guest->cut_short |= guest->state == IOK_GUEST_READING || guest->streams;
    iok_count_own_add(&listener->refused, 1);
    iok_out_lend(&guest->out, &listener->core->spare_output);
    if (listener->proto->server->refuse != NULL && !guest->says) {
        rc = listener->proto->server->refuse(guest->codec, &guest->io, why);
    }
    if (guest->request != NULL) {
        iok_request_recycle(listener->core, guest->request);
        guest->request = NULL;
    }
    if (rc != 0 || guest->out.error != 0) {
        close_quietly(guest, "a request was refused");
        return;
    }
    iok_guest_set_state(guest, IOK_GUEST_ANSWERING);
    iok_guest_flush(guest);
}

void iok_guest_drain(struct iok_guest *guest)
{
    if (guest->state != IOK_GUEST_OPENING && guest->state != IOK_GUEST_IDLE) {
        return;
    }
    if (due(guest) <= guest->listener->core->now) {
        close_quietly(guest, "the server ends");
    } else {
        arm(guest);
    }
}

/* ---- events of the link ----------------------------------------------------------------------------------------- */

/* Its protocol begins. */
static void begin(struct iok_guest *guest)
{
    iok_guest_set_state(guest, IOK_GUEST_IDLE);
    if (guest->listener->proto->server->open(guest->codec, &guest->io) != 0) {
        close_with_io(guest);
    }
}

/* A proxy says first who its client is. Bytes used; 0: more must come, or the guest is closed. */
static size_t read_proxy(struct iok_guest *guest, struct iok_span in)
{
    ptrdiff_t used = iok_proxy_read(in, &guest->peer, &guest->io.encrypted);

    if (used < 0) {
        iok_io_fail(&guest->io, IOK_EPROTO, "a connection that does not begin by the PROXY protocol");
        close_with_io(guest);
    } else if (used == 0) {
        keep_rest(guest, in);
    }
    return used > 0 ? (size_t)used : 0;
}

/* Without TLS, and so with what the client says behind it. */
static void take_proxy(struct iok_guest *guest, struct iok_span in)
{
    size_t used = read_proxy(guest, in);

    if (used > 0) {
        begin(guest);
        keep_rest(guest, iok_span_skip(in, used));
        if (guest->state != IOK_GUEST_CLOSED) {
            iok_guest_go_on(guest);
        }
    }
}

static size_t on_preface(void *owner, struct iok_span bytes)
{
    struct iok_guest *guest = owner;
    struct iok_core *core = guest->listener->core;
    size_t n_front = guest->n_rest, used;

    iok_core_look_at_clock(core);
    if (n_front > 0) {
        memcpy(core->scratch, guest->rest, n_front);
    }
    memcpy(core->scratch + n_front, bytes.p, bytes.n);
    guest->n_rest = 0;
    used = read_proxy(guest, iok_span(core->scratch, n_front + bytes.n));
    return used > 0 ? used - n_front : 0;
}

static void on_connected(void *owner, const struct iok_address *address, const char *alpn)
{
    struct iok_guest *guest = owner;

    (void)address;
    iok_core_look_at_clock(guest->listener->core);
    guest->io.encrypted = alpn != NULL;
    if (!guest->listener->config.proxy || guest->io.encrypted) {
        begin(guest);
    }
}

static uint8_t *on_read_space(void *owner, size_t *n)
{
    struct iok_guest *guest = owner;
    struct iok_core *core = guest->listener->core;
    size_t max = guest->in_body ? IOK_BODY_BYTES : IOK_READ_BYTES;

    if (guest->paused) {
        return NULL;
    }
    guest->n_front = guest->n_rest;
    if (guest->n_rest != 0) {
        memcpy(core->scratch, guest->rest, guest->n_rest);
    }
    *n = max;
    return core->scratch + guest->n_front;
}

static void on_arrived(void *owner, size_t n)
{
    struct iok_guest *guest = owner;
    struct iok_listener *listener = guest->listener;
    struct iok_core *core = listener->core;

    iok_core_look_at_clock(core);
    if (guest->in_body) {
        note_pace(guest, n);
    }
    guest->arrived_at = core->now;
    guest->pinged = false;
    iok_count_own_add(&core->bytes_in, n);
    iok_count_own_add(&listener->bytes_in, n);
    if (guest->state == IOK_GUEST_OPENING) {
        take_proxy(guest, iok_span(core->scratch, guest->n_front + n));
    } else if (guest->state != IOK_GUEST_LEAVING) {
        take_in(guest, iok_span(core->scratch, guest->n_front + n));
    }
}

static void on_writable(void *owner)
{
    struct iok_guest *guest = owner;

    iok_core_look_at_clock(guest->listener->core);
    guest->blocked = false;
    iok_guest_flush(guest);
    iok_guest_go_on(guest);
}

static void on_ended(void *owner)
{
    struct iok_guest *guest = owner;

    iok_core_look_at_clock(guest->listener->core);
    guest->ended = true;
    if (guest->state == IOK_GUEST_LEAVING) {
        close_quietly(guest, "done");
        return;
    }
    look_at_end(guest);
}

static void on_closed(void *owner, const struct iok_error *err)
{
    struct iok_guest *guest = owner;

    iok_core_look_at_clock(guest->listener->core);
    guest->link = NULL;
    iok_guest_close(guest, err);
}

static const struct iok_link_events link_events = {
    .connected = on_connected,
    .read_space = on_read_space,
    .arrived = on_arrived,
    .writable = on_writable,
    .ended = on_ended,
    .closed = on_closed,
};

static const struct iok_link_events preface_events = {
    .connected = on_connected,
    .read_space = on_read_space,
    .arrived = on_arrived,
    .writable = on_writable,
    .ended = on_ended,
    .preface = on_preface,
    .closed = on_closed,
};

/* ---- the beginning and the end ---------------------------------------------------------------------------------- */

static void note_peer(struct iok_peer *peer, const struct iok_address *address)
{
    peer->family = address->any.sa_family;
    if (peer->family == AF_INET) {
        peer->port = ntohs(address->v4.sin_port);
        memcpy(peer->ip, &address->v4.sin_addr, 4);
    } else if (peer->family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&address->v6.sin6_addr)) {
        peer->family = AF_INET;
        peer->port = ntohs(address->v6.sin6_port);
        memcpy(peer->ip, (const uint8_t *)&address->v6.sin6_addr + 12, 4);
    } else if (peer->family == AF_INET6) {
        peer->port = ntohs(address->v6.sin6_port);
        peer->scope = address->v6.sin6_scope_id;
        memcpy(peer->ip, &address->v6.sin6_addr, 16);
    }
}

void iok_guest_accept(struct iok_listener *listener, struct iok_link *link, const struct iok_address *address)
{
    struct iok_core *core = listener->core;
    struct iok_guest *guest = iok_calloc(sizeof(*guest));

    if (guest == NULL || (guest->codec = iok_calloc(listener->proto->server->state_size + 1)) == NULL) {
        iok_free(guest);
        core->net->ops->close(link);
        return;
    }
    guest->listener = listener;
    iok_count_ref(&listener->refs);
    guest->link = link;
    guest->timer.kind = IOK_TIMER_GUEST;
    guest->since = guest->arrived_at = core->now;
    note_peer(&guest->peer, address);
    iok_out_init(&guest->out, &core->output);
    iok_list_init(&guest->parts);
    guest->io = (struct iok_io){.host = &iok_guest_host,
                                .out = &guest->out,
                                .url = &listener->url,
                                .single = true,
                                .whole = listener->config.whole,
                                .max_reply = listener->config.max_request};
    iok_list_push(&listener->guests, &guest->node);
    listener->n_guests++;
    iok_count_own_add(&core->objects, 1);
    iok_count_own_add(&listener->connections, 1);
    iok_count_set(&listener->connections_now, listener->n_guests);
    core->net->ops->adopt(link, listener->config.proxy && listener->config.tls ? &preface_events : &link_events, guest);
    if (listener->config.proxy && !iok_proxy_is_believed(&listener->config, &guest->peer)) {
        close_quietly(guest, "a connection from elsewhere than proxy_from=");
        return;
    }
    arm(guest);
}

void iok_guest_close(struct iok_guest *guest, const struct iok_error *why)
{
    struct iok_listener *listener = guest->listener;
    struct iok_core *core = listener->core;

    if (guest->state == IOK_GUEST_CLOSED) {
        return;
    }
    if (why->code != 0) {
        iok_note_write(&listener->last_failure, why->text);
    }
    iok_guest_set_state(guest, IOK_GUEST_CLOSED);
    iok_timer_stop(&core->wheel, &guest->timer);
    iok_list_remove(&guest->more);
    iok_list_remove(&guest->node);
    iok_list_push(&core->dead_guests, &guest->node);
    if (guest->link != NULL) {
        core->net->ops->close(guest->link);
        guest->link = NULL;
    }
    listener->n_guests--;
    iok_count_set(&listener->connections_now, listener->n_guests);
    guest->io.tape = NULL;
    if (guest->request != NULL) {
        iok_request_recycle(core, guest->request);
        guest->request = NULL;
    }
    set_unread(guest, 0);
    iok_out_deinit(&guest->out); /* before the call goes on, whose memory it may refer to */
    iok_guest_drop_part(guest);
    iok_serve_parts_lost(guest, why);
    iok_serve_release(guest);
    iok_listener_look(listener);
}

void iok_guest_free(struct iok_guest *guest)
{
    struct iok_listener *listener = guest->listener;

    listener->proto->server->close(guest->codec);
    iok_out_deinit(&guest->out);
    iok_free(guest->rest);
    iok_free(guest->codec);
    iok_free(guest);
    iok_listener_drop(listener);
}
