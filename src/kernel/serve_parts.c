/* serve_parts.c - bodies in parts, of requests and of answers.
 *
 *     client -> guest->part -> the call's stream -> program          held back: max_stream_bytes= stand in the stream
 *     program -> part submitted -> guest->parts, in out -> DONE      the credit: a part's end; max_unread= is kept behind it
 *
 * What is held of a body is bounded by the stream in one direction, and in the other by the parts that the program has
 * alive. What stands in a stream of a request that was answered is dropped by the program, when it next comes by.
 * Invariants: a body has no hole. A part of an answer that is lost ends the connection. A part that was taken and has not
 * ended is in guest->parts, and its whole call has that guest. */
#include "../base/mem.h"
#include "serve.h"

#define IOK_INTAKE_SLOTS 64u /* messages of a body that stand at most: a read brings a few */
#define IOK_INTAKE_ROOM                                                                                                \
    16u /* free ones, below which reading stops: what one read can bring at most, see http1_read.c */

/* ---- of requests ------------------------------------------------------------------------------------------------ */

int iok_intake_open(struct iok_guest *guest, struct iok_call *call)
{
    if (!call->streams) {
        if (iok_stream_open(call, IOK_INTAKE_SLOTS, guest->listener->config.max_stream_bytes) != 0) {
            return IOK_ENOMEM;
        }
        iok_count_publish(&call->serve->opened, 1);
    }
    return 0;
}

struct iok_tape *iok_intake_begin(struct iok_guest *guest)
{
    struct iok_core *core = guest->listener->core;

    guest->part = iok_message_new(SIZE_MAX, &core->replies);
    if (guest->part != NULL) {
        return &guest->part->tape;
    }
    iok_tape_init(&core->discard, NULL, 0, NULL, 0, SIZE_MAX, NULL);
    core->discard.discard = true;
    return &core->discard;
}

static bool has_much(struct iok_stream *stream)
{
    return iok_ring_room(&stream->ring) <= IOK_INTAKE_ROOM || iok_stream_bytes(stream) > stream->bytes_max;
}

void iok_intake_look(struct iok_guest *guest)
{
    struct iok_stream *stream = guest->call->stream;

    guest->held = false;
    if (!has_much(stream)) {
        return;
    }
    (void)iok_count_exchange(&stream->stalled, 1); /* a fence: then look again, as the program may have taken all */
    guest->held = has_much(stream) || iok_count_exchange(&stream->stalled, 0) == 0;
}

int iok_intake_end(struct iok_guest *guest)
{
    struct iok_message *message = guest->part;
    struct iok_call *call = guest->call;

    guest->part = NULL;
    if (message == NULL || iok_tape_error(&message->tape) != 0 || iok_ring_room(&call->stream->ring) == 0) {
        if (message != NULL) {
            iok_message_free(message);
        }
        return iok_io_fail(&guest->io, IOK_ENOMEM, "out of memory for a part of a body");
    }
    message->memory = sizeof(*message) + iok_tape_memory(&message->tape);
    message->serial = call->serve->serial;
    iok_count_own_add(&call->stream->put, message->memory); /* before the program can take it */
    (void)iok_ring_push(&call->stream->ring, (uintptr_t)message);
    guest->parted = true;
    iok_serve_post_news(call);
    iok_intake_look(guest);
    return 0;
}

void iok_intake_resume(struct iok_call *call)
{
    struct iok_guest *guest = call->serve->guest;

    if (guest != NULL && guest->held) {
        iok_intake_look(guest); /* what was taken may not be enough: then the next that is taken tells again */
        if (!guest->held) {
            iok_guest_go_on(guest);
        }
    }
}

/* ---- of answers ------------------------------------------------------------------------------------------------- */

static struct iok_call *call_at(struct iok_node *node)
{
    return iok_container(node, struct iok_call, node);
}

static void end_part(struct iok_core *core, struct iok_call *part, enum iok_outcome outcome,
                     const struct iok_error *err)
{
    if (iok_node_linked(&part->node)) {
        iok_list_remove(&part->node);
    }
    part->state = IOK_CALL_ENDED;
    part->outcome = (uint8_t)outcome;
    part->stamps.complete = core->now;
    if (err != NULL) {
        part->error_code = err->code;
        part->error_line = err->line;
        part->error_file = err->file;
        iok_tape_copy(&part->reply, IOK_ERROR, 0, iok_span_of(err->text));
    }
    iok_core_tell(core, part->port, iok_entry(part, IOK_CQ_ENDED));
}

static bool is_last(const struct iok_call *part)
{
    return (part->flags & (IOK_CALL_PART_END | IOK_CALL_PART_FAIL)) != 0;
}

/* There is nobody to send it to, or nothing that it is part of. */
static void refuse_part(struct iok_core *core, struct iok_call *part)
{
    struct iok_serve *serve = part->whole->serve;
    bool says = serve->lent && serve->says;
    struct iok_error err;

    iok_err(&err, says ? IOK_ERESET : IOK_ESTATE, "%s",
            says ? "the client is gone" : "the answer whose body it is part of was refused, or is over");
    end_part(core, part, IOK_NEVER_SENT, core->forked != NULL ? core->forked : &err);
    if (says && is_last(part)) {
        iok_serve_give_up(core, part->whole);
    }
}

/* Of a connection that is another protocol's. */
static int encode_message(struct iok_guest *guest, const struct iok_call *part)
{
    const struct iok_proto_server *server = guest->listener->proto->server;
    int rc = server->message(guest->codec, &guest->io, part->args.tokens, part->args.n_tokens);

    if (rc == 0 && (part->flags & IOK_CALL_PART_END) != 0) {
        rc = server->end(guest->codec, &guest->io);
        guest->closing = true;
        guest->cut_short |= !guest->parting; /* what the client still says is not heard */
        guest->parting = false;
    }
    return rc == 0 && guest->out.error != 0 ? iok_io_fail(&guest->io, guest->out.error, "out of memory for a message")
                                            : rc;
}

static bool is_harmless(int rc)
{
    return rc == IOK_EINVAL || rc == IOK_ETYPE || rc == IOK_ELIMIT || rc == IOK_ESTATE;
}

/* What the codec makes of it. */
static int encode(struct iok_guest *guest, const struct iok_call *part)
{
    const struct iok_proto_server *server = guest->listener->proto->server;
    bool end = (part->flags & IOK_CALL_PART_END) != 0;
    uint32_t n = part->args.n_tokens;
    int rc = 0;

    if (server->body == NULL) {
        return iok_io_fail(&guest->io, IOK_EUNSAFE, "an answer in parts is not possible here");
    }
    iok_out_lend(&guest->out, &guest->listener->core->spare_output);
    if (guest->upgraded) {
        return encode_message(guest, part);
    }
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        rc = server->body(guest->codec, &guest->io, iok_token_span(&part->args.tokens[i]),
                          end && i + 1 == n ? IOK_BODY_END : IOK_BODY_PART);
    }
    if (n == 0 && end) {
        rc = server->body(guest->codec, &guest->io, iok_span(NULL, 0), IOK_BODY_END);
    }
    return rc == 0 && guest->out.error != 0 ? iok_io_fail(&guest->io, guest->out.error, "out of memory for an answer")
                                            : rc;
}

static void break_off(struct iok_core *core, struct iok_call *part, struct iok_guest *guest)
{
    struct iok_call *whole = part->whole;
    struct iok_error err;

    iok_err(&err, 0, "the program broke its answer off");
    iok_guest_close(guest, &err);
    end_part(core, part, IOK_DONE, NULL);
    iok_serve_give_up(core, whole);
}

void iok_serve_part(struct iok_core *core, struct iok_call *part)
{
    struct iok_call *whole = part->whole;
    struct iok_guest *guest = whole->serve->guest;
    struct iok_error err;
    int rc;

    iok_call_begin(part, &core->replies);
    part->stamps.taken = core->now > part->submitted ? core->now : part->submitted;
    if (core->forked != NULL || guest == NULL || !guest->says || whole->state != IOK_CALL_SENT) {
        refuse_part(core, part);
        return;
    }
    if (iok_out_pending(&guest->out) == 0) { /* the client's time begins */
        guest->since = core->now;
    }
    if ((part->flags & IOK_CALL_PART_FAIL) != 0) {
        break_off(core, part, guest);
        return;
    }
    rc = encode(guest, part);
    if (rc != 0 && guest->upgraded && is_harmless(rc) && !is_last(part)) { /* a message that cannot be sent */
        err = guest->io.err;
        end_part(core, part, IOK_NEVER_SENT, &err);
        return;
    }
    if (rc != 0) { /* not as its head said: the client is not to take it for whole */
        err = guest->io.err;
        iok_guest_close(guest, &err);
        end_part(core, part, IOK_NEVER_SENT, &err);
        if (is_last(part)) {
            iok_serve_give_up(core, whole);
        }
        return;
    }
    part->state = IOK_CALL_SENT;
    part->seq = guest->out.appended;
    part->peer = guest->peer;
    iok_list_push(&guest->parts, &part->node);
    if (is_last(part)) {
        guest->says = whole->serve->says = false;
        iok_serve_answered(core, whole);
    }
    iok_guest_want_flush(guest);
}

void iok_serve_part_cut(struct iok_call *part, const struct iok_error *err)
{
    if (part->state != IOK_CALL_ENDED) {
        iok_guest_close(part->whole->serve->guest, err); /* which ends the part, too */
    }
}

void iok_serve_parts_sent(struct iok_guest *guest, uint64_t end)
{
    struct iok_core *core = guest->listener->core;
    struct iok_node *node;

    while ((node = iok_list_first(&guest->parts)) != NULL && call_at(node)->seq <= end) {
        call_at(node)->stamps.sent = core->now;
        end_part(core, call_at(node), IOK_DONE, NULL);
    }
}

void iok_serve_parts_lost(struct iok_guest *guest, const struct iok_error *err)
{
    struct iok_error gone;
    struct iok_node *node;

    if (err->code == 0) {
        iok_err(&gone, IOK_ERESET, "%s", err->text);
        err = &gone;
    }
    while ((node = iok_list_first(&guest->parts)) != NULL) {
        end_part(guest->listener->core, call_at(node), IOK_MAYBE_EXECUTED, err);
    }
}
