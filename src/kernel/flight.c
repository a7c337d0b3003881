/* flight.c - what a codec asks of its connection: the requests under way, and where their answers go. */
#include <assert.h>

#include "../base/mem.h"
#include "kernel.h"

#define IOK_FLIGHTS_FIRST 64u /* slots of a new connection; doubled as needed up to max_inflight */

static struct iok_conn *conn_of(struct iok_io *io)
{
    return iok_container(io, struct iok_conn, io);
}

static int grow(struct iok_conn *conn)
{
    uint32_t n_slots = conn->n_slots == 0 ? IOK_FLIGHTS_FIRST : conn->n_slots * 2;
    struct iok_flight *flights = iok_malloc(n_slots * sizeof(*flights));

    if (flights == NULL) {
        return IOK_ENOMEM;
    }
    for (uint64_t seq = conn->head_seq; seq != conn->next_seq; seq++) {
        flights[seq & (n_slots - 1)] = conn->flights[seq & (conn->n_slots - 1)];
    }
    iok_free(conn->flights);
    conn->flights = flights;
    conn->n_slots = n_slots;
    return 0;
}

struct iok_flight *iok_flight_push(struct iok_conn *conn)
{
    struct iok_flight *flight;

    if (conn->next_seq - conn->head_seq == conn->n_slots && grow(conn) != 0) {
        return NULL;
    }
    flight = &conn->flights[conn->next_seq++ & (conn->n_slots - 1)];
    *flight = (struct iok_flight){0};
    conn->n_live++;
    return flight;
}

void iok_flight_drop_last(struct iok_conn *conn)
{
    conn->next_seq--;
    conn->n_live--;
}

struct iok_flight *iok_flight_at(struct iok_conn *conn, uint64_t seq)
{
    if (seq == IOK_SEQ_HEAD) {
        seq = conn->head_seq;
    }
    if (seq - conn->head_seq >= conn->next_seq - conn->head_seq) {
        return NULL;
    }
    return &conn->flights[seq & (conn->n_slots - 1)];
}

static struct iok_flight *host_flight(struct iok_io *io, uint64_t seq)
{
    return iok_flight_at(conn_of(io), seq);
}

static struct iok_tape *discarding(struct iok_conn *conn)
{
    iok_tape_deinit(&conn->scrap);
    iok_tape_init(&conn->scrap, NULL, 0, NULL, 0, conn->io.max_reply, NULL);
    conn->scrap.discard = true;
    return &conn->scrap;
}

static struct iok_tape *host_begin_reply(struct iok_io *io, uint64_t seq)
{
    struct iok_conn *conn = conn_of(io);
    struct iok_flight *flight = iok_flight_at(conn, seq);

    assert(io->tape == NULL);
    if (flight == NULL) {
        return NULL;
    }
    conn->open_seq = seq == IOK_SEQ_HEAD ? conn->head_seq : seq;
    if (flight->call == NULL || flight->call->state == IOK_CALL_STREAMING) {
        io->tape = discarding(conn);
    } else {
        flight->call->stamps.first_byte = conn->arrived_at;
        io->tape = &flight->call->reply;
    }
    return io->tape;
}

static bool takes_parts(const struct iok_call *call)
{
    return call != NULL && (call->flags & IOK_CALL_PARTS) != 0;
}

static struct iok_tape *host_begin_part(struct iok_io *io, uint64_t seq)
{
    struct iok_conn *conn = conn_of(io);
    struct iok_flight *flight = iok_flight_at(conn, seq);

    assert(io->tape == NULL && flight != NULL);
    conn->open_push = true;
    if (takes_parts(flight->call) && conn->stream == flight->call) {
        if (flight->call->stamps.first_byte == 0) {
            flight->call->stamps.first_byte = conn->arrived_at;
        }
        conn->push = iok_message_new(io->max_reply, &conn->service->core->replies);
        conn->push_lost = conn->push == NULL;
    }
    io->tape = conn->push != NULL ? &conn->push->tape : discarding(conn);
    return io->tape;
}

static struct iok_tape *host_begin_push(struct iok_io *io)
{
    struct iok_conn *conn = conn_of(io);

    assert(io->tape == NULL);
    conn->open_push = true;
    if (takes_parts(conn->stream)) {
        io->tape = discarding(conn); /* its parts only */
        return io->tape;
    }
    if (conn->stream != NULL && conn->notice != NULL) { /* counted now: at its end the notice may be out already */
        conn->dropped++;
        iok_count_own_add(&conn->service->dropped, 1);
    } else if (conn->stream != NULL) {
        conn->push = iok_message_new(io->max_reply, &conn->service->core->replies);
        conn->push_lost = conn->push == NULL;
    }
    io->tape = conn->push != NULL ? &conn->push->tape : discarding(conn);
    return io->tape;
}

static bool has_much(struct iok_stream *stream)
{
    return iok_ring_room(&stream->ring) <= IOK_STREAM_MESSAGES_MAX || iok_stream_bytes(stream) > stream->bytes_max;
}

/* Before the stream is full, either nothing more is read, or nothing more is kept, until the program has taken half
 * of it. Confirmations of the stream's own request are never dropped, and without memory for the notice nothing is. */
static void hold_back_if_full(struct iok_conn *conn)
{
    struct iok_stream *stream = conn->stream->stream;

    if (!has_much(stream) || conn->read_paused || conn->notice != NULL) {
        return;
    }
    (void)iok_count_exchange(&stream->stalled, 1); /* a fence: then look again, as the program may have taken all */
    if (!has_much(stream) && iok_count_exchange(&stream->stalled, 0) != 0) {
        return;
    }
    if (conn->service->config.drops && conn->stream->state == IOK_CALL_STREAMING) {
        conn->notice = iok_message_new(SIZE_MAX, &conn->service->core->replies);
    }
    if (conn->notice == NULL) {
        conn->read_paused = true;
        if (takes_parts(conn->stream)) { /* its deadline is the peer's, and this is our own time */
            iok_timer_stop(&conn->service->core->wheel, &conn->stream->deadline);
        }
        conn->service->core->net->ops->want_read(conn->link, false);
    }
}

void iok_flight_tell_dropped(struct iok_conn *conn)
{
    struct iok_message *notice = conn->notice;

    if (notice == NULL) {
        return;
    }
    conn->notice = NULL;
    if (conn->stream == NULL || conn->dropped == 0) {
        iok_message_free(notice);
    } else {
        iok_tape_dropped(&notice->tape, (int64_t)conn->dropped); /* fits into the message */
        iok_call_news(conn->service->core, conn->stream, notice);
    }
    conn->dropped = 0;
}

void iok_flight_end_stream(struct iok_conn *conn)
{
    conn->stream = NULL;
    iok_flight_tell_dropped(conn); /* nobody: frees it */
    iok_conn_resume(conn);
}

static int end_push(struct iok_conn *conn)
{
    struct iok_message *message = conn->push;
    int error;

    conn->open_push = false;
    conn->push = NULL;
    if (message == NULL) {
        return conn->push_lost ? iok_io_fail(&conn->io, IOK_ENOMEM, "out of memory for a pushed message") : 0;
    }
    error = iok_tape_error(&message->tape);
    if (error == 0 && conn->stream != NULL && iok_ring_room(&conn->stream->stream->ring) == 0) {
        iok_message_free(message); /* none may be missing without a word */
        return iok_io_fail(&conn->io, IOK_ELIMIT, "more messages at once than a stream holds (%u)",
                           2 * IOK_STREAM_MESSAGES_MAX);
    }
    if (conn->stream == NULL || error != 0) {
        iok_message_free(message);
        return error == 0 ? 0
                          : iok_io_fail(&conn->io, error,
                                        error == IOK_ENOMEM ? "out of memory for a pushed message (max_reply=%zu)"
                                                            : "a pushed message is larger than max_reply=%zu bytes",
                                        conn->io.max_reply);
    }
    iok_call_news(conn->service->core, conn->stream, message);
    if (takes_parts(conn->stream) && !conn->read_paused) { /* else the time is the program's, whatever came with it */
        iok_call_progress(conn->service->core, conn->stream);
    }
    hold_back_if_full(conn);
    return 0;
}

int iok_flight_stream(struct iok_conn *conn, struct iok_call *call)
{
    if (!call->streams && /* else of an attempt whose connection was lost before it had brought anything */
        iok_stream_open(call, 2 * IOK_STREAM_MESSAGES_MAX, conn->service->config.max_stream_bytes) != 0) {
        return IOK_ENOMEM;
    }
    conn->stream = call;
    return 0;
}

/* What the reply is, beyond attributes that say more about it. */
static bool is_error(const struct iok_tape *tape)
{
    size_t i = 0;

    while (i < tape->n_tokens && tape->tokens[i].type == IOK_ATTR) {
        uint64_t values = 2 * (uint64_t)tape->tokens[i++].len;

        for (; values > 0 && i < tape->n_tokens; values--) {
            i = iok_tape_skip(tape->tokens, tape->n_tokens, i);
        }
    }
    return i < tape->n_tokens && tape->tokens[i].type == IOK_ERROR;
}

/* The peer did not run it and would now. Each time it has learnt something, so this ends; a limit holds it to that. */
static bool asks_again(const struct iok_conn *conn, const struct iok_call *call, uint32_t flags)
{
    const struct iok_service_config *config = &conn->service->config;

    return (flags & IOK_MSG_AGAIN) != 0 && call->lease == NULL && !conn->service->closed && call->reply.error == 0 &&
           call->attempts <= config->connections + config->retries;
}

static void end_call(struct iok_conn *conn, struct iok_call *call, uint32_t flags)
{
    struct iok_core *core = conn->service->core;
    int error = iok_tape_error(&call->reply);
    bool refused = is_error(&call->reply);

    call->stamps.complete = conn->arrived_at;
    if (call->stream != NULL && conn->stream == call && !refused && error == 0 && !takes_parts(call)) {
        call->state = IOK_CALL_STREAMING;
        iok_service_dismiss(conn->service, call);
        iok_timer_stop(&core->wheel, &call->deadline);
        return;
    }
    if (conn->stream == call) {
        iok_flight_end_stream(conn);
    }
    call->conn = NULL;
    if (error != 0) {
        const char *remedy = conn->service->proto->too_large;

        iok_call_fail(core, call, IOK_DONE, error,
                      error == IOK_ELIMIT ? "the reply is larger than max_reply=%zu bytes%s%s"
                                          : "out of memory for a reply (max_reply=%zu)%s%s",
                      conn->io.max_reply, error == IOK_ELIMIT && remedy != NULL ? ": " : "",
                      error == IOK_ELIMIT && remedy != NULL ? remedy : "");
    } else if ((flags & IOK_MSG_REJECTED) != 0 && call->maybe_ran) {
        iok_call_fail(core, call, IOK_MAYBE_EXECUTED, IOK_ERESET, "connection lost, and the repeat was rejected: %.*s",
                      refused ? (int)call->reply.tokens[0].len : 0,
                      refused ? (const char *)call->reply.tokens[0].p : "");
    } else {
        iok_call_end(core, call, (flags & IOK_MSG_REJECTED) != 0 ? IOK_REJECTED : IOK_DONE, NULL);
    }
}

static int host_end(struct iok_io *io, uint32_t flags)
{
    struct iok_conn *conn = conn_of(io);
    struct iok_service *service = conn->service;
    struct iok_flight *flight;
    struct iok_call *call;
    int rc = 0;

    io->tape = NULL;
    if (conn->open_push && (flags & IOK_MSG_DROP) != 0 && conn->push != NULL) {
        iok_message_free(conn->push);
        conn->push = NULL;
    }
    if (conn->open_push) {
        return end_push(conn);
    }
    flight = iok_flight_at(conn, conn->open_seq);
    if ((flags & IOK_MSG_LAST) == 0) {
        return 0;
    }
    call = flight->call;
    flight->call = NULL;
    flight->host |= IOK_FLIGHT_ANSWERED;
    conn->n_live--;
    while (conn->head_seq != conn->next_seq &&
           (conn->flights[conn->head_seq & (conn->n_slots - 1)].host & IOK_FLIGHT_ANSWERED) != 0) {
        conn->head_seq++;
    }
    if (conn->sent_seq < conn->head_seq) {
        conn->sent_seq = conn->head_seq;
    }
    if ((flight->host & IOK_FLIGHT_PING) != 0) {
        iok_conn_answered(conn);
    }
    iok_service_want_pump(service); /* a tombstone took room, too */
    if (call == NULL) {
        conn->n_left -= (flight->host & IOK_FLIGHT_PING) == 0;
        return 0;
    }
    service->n_inflight--;
    /* An answer to what is not wholly sent: the arguments go away with the call, the stream of bytes stays whole. */
    if (flight->end > conn->out.taken && iok_out_own(&conn->out, conn->out.taken, flight->end) != 0) {
        call->reply.error = IOK_ENOMEM;
        rc = iok_io_fail(io, IOK_ENOMEM, "out of memory for the unsent rest of an answered call");
    }
    if (asks_again(conn, call, flags)) {
        iok_call_again(call);
    } else {
        end_call(conn, call, flags);
    }
    return rc;
}

static void host_ready(struct iok_io *io)
{
    struct iok_conn *conn = conn_of(io);

    if (conn->state == IOK_CONN_SIGNING_IN || conn->state == IOK_CONN_RESETTING) {
        iok_conn_set_state(conn, IOK_CONN_READY);
    }
}

/* A lease goes on with its own business on a connection in doubt. If it changed settings, what they say is nothing
 * about the server. */
static void host_role(struct iok_io *io, uint32_t role)
{
    struct iok_conn *conn = conn_of(io);

    if (role != 0 && (conn->lease == NULL || !conn->dirty_state)) {
        iok_endpoint_role(conn->endpoint, role);
    } else if (role == 0 && iok_endpoint_doubt(conn->endpoint, conn->lease == NULL)) {
        iok_conn_retire(conn);
    }
}

static int host_go(struct iok_io *io, uint64_t seq)
{
    struct iok_conn *conn = conn_of(io);

    return iok_body_go(conn, seq == IOK_SEQ_HEAD ? conn->head_seq : seq);
}

static void host_closing(struct iok_io *io)
{
    iok_conn_retire(conn_of(io));
}

static void host_raw(struct iok_io *io, uint64_t seq)
{
    struct iok_conn *conn = conn_of(io);

    iok_conn_raw(conn, iok_flight_at(conn, seq)->call);
}

static void host_shut(struct iok_io *io)
{
    struct iok_conn *conn = conn_of(io);

    conn->shuts = true;
    iok_conn_dirty(conn);
}

static uint64_t host_random(struct iok_io *io)
{
    struct iok_net *net = conn_of(io)->service->core->net;

    return net->ops->random(net);
}

const struct iok_host iok_conn_host = {
    .begin_reply = host_begin_reply,
    .begin_push = host_begin_push,
    .begin_part = host_begin_part,
    .go = host_go,
    .end = host_end,
    .flight = host_flight,
    .ready = host_ready,
    .role = host_role,
    .closing = host_closing,
    .raw = host_raw,
    .shut = host_shut,
    .random = host_random,
};
