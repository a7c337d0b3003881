/* call.c - the life of a call inside the kernel: taken, routed, cut short, ended. */
#include <assert.h>
#include <string.h>

#include "../base/mem.h"
#include "kernel.h"

static void record(struct iok_service *service, const struct iok_call *call)
{
    const struct iok_progress *at = &call->stamps;

    if ((call->flags & IOK_CALL_PART) != 0) {
        return;
    }
    iok_count_own_add(&service->ended[call->outcome], 1);
    iok_hist_add(&service->hist_submit, at->taken - call->submitted);
    if (at->sent != 0) {
        iok_hist_add(&service->hist_queue, at->sent - at->taken);
        if (call->outcome == IOK_DONE || call->outcome == IOK_REJECTED) {
            iok_hist_add(&service->hist_service, at->complete - at->sent);
        }
    }
}

void iok_call_end(struct iok_core *core, struct iok_call *call, enum iok_outcome outcome, const struct iok_error *err)
{
    struct iok_service *service = call->service;

    assert(call->state != IOK_CALL_ENDED);
    if (core->forked != NULL && outcome == IOK_NEVER_SENT) {
        outcome = IOK_MAYBE_EXECUTED; /* not by us; but the parent may send it */
    }
    if (iok_node_linked(&call->node)) {
        iok_list_remove(&call->node);
    }
    if (outcome == IOK_NEVER_SENT && call->maybe_ran) {
        outcome = IOK_MAYBE_EXECUTED; /* the repeat was not sent, but the first attempt was */
    }
    iok_service_dismiss(service, call);
    iok_timer_stop(&core->wheel, &call->deadline);
    call->state = IOK_CALL_ENDED;
    call->outcome = (uint8_t)outcome;
    if (call->body != IOK_BODY_NONE) {
        iok_body_end(core, call);
    }
    if (call->lease != NULL) {
        iok_lease_call_ended(core, call);
    }
    if (call->stamps.complete == 0) {
        call->stamps.complete = core->now;
    }
    if (err != NULL) {
        call->error_code = err->code;
        call->error_line = err->line;
        call->error_file = err->file;
        iok_tape_reset(&call->reply, call->reply_tokens, IOK_CALL_REPLY_TOKENS);
        iok_tape_copy(&call->reply, IOK_ERROR, 0, iok_span_of(err->text));
    }
    record(service, call);
    iok_count_own_sub(&core->inflight, 1);
    iok_core_tell(core, call->port, iok_entry(call, IOK_CQ_ENDED));
}

/* Whether the protocol has bodies; and whether a reader in parts can be slow without harm to others. */
static int check_parts(const struct iok_call *call, struct iok_error *err)
{
    const struct iok_proto *proto = call->service->proto;

    if ((call->flags & IOK_CALL_BODY) != 0 && proto->body == NULL) {
        return iok_err(err, IOK_EUNSAFE, "a request of %s has no body", proto->name);
    }
    if ((call->flags & (IOK_CALL_PARTS | IOK_CALL_BODY)) != 0 && call->lease == NULL &&
        (proto->flags & IOK_PROTO_SINGLE) == 0) {
        return iok_err(err, IOK_EUNSAFE, "a request with a body, or a reply in parts, needs a lease");
    }
    return 0;
}

/* What the codec, the program and the lease say of this call. 0, or the error with which it ends. */
static int classify(struct iok_call *call, struct iok_class *class, struct iok_error *err)
{
    const struct iok_proto *proto = call->service->proto;
    char name[64];
    size_t len;

    *class = (struct iok_class){0};
    if (proto->classify != NULL) {
        proto->classify(call->args.tokens, call->args.n_tokens, class);
    }
    if ((class->flags & IOK_CLASS_FORBIDDEN) == 0 &&
        ((class->flags & (IOK_CLASS_NEEDS_LEASE | IOK_CLASS_STREAM)) == 0 || call->lease != NULL)) {
        return check_parts(call, err);
    }
    len = proto->describe == NULL ? 0 : proto->describe(call->args.tokens, call->args.n_tokens, name, sizeof(name));
    return iok_err(err, IOK_EUNSAFE, "%.*s: %s", (int)len, name,
                   class->why != NULL ? class->why : "not possible on a shared connection; use a lease");
}

uint64_t iok_call_deadline_at(const struct iok_call *call, int64_t block_ms)
{
    uint64_t ns = call->service->config.timeout;

    if (call->timeout_ms > 0) {
        ns = (uint64_t)call->timeout_ms * IOK_NS_MS;
    } else if (call->timeout_ms < 0 || block_ms < 0) {
        return 0; /* without end, as the program or the command says */
    } else {
        ns += (uint64_t)block_ms * IOK_NS_MS;
    }
    return call->submitted + ns;
}

void iok_call_set_deadline(struct iok_core *core, struct iok_call *call, int64_t block_ms)
{
    call->deadline_ns = iok_call_deadline_at(call, block_ms);
    if (call->deadline_ns != 0) {
        call->deadline.kind = IOK_TIMER_CALL;
        iok_timer_set(&core->wheel, &call->deadline, call->deadline_ns);
    }
}

void iok_call_progress(struct iok_core *core, struct iok_call *call)
{
    if (call->deadline_ns != 0 && call->body != IOK_BODY_OPEN) { /* else it is the program's turn, whatever came */
        call->deadline_ns = core->now + (iok_call_deadline_at(call, 0) - call->submitted);
        iok_timer_set(&core->wheel, &call->deadline, call->deadline_ns);
    }
}

int iok_stream_open(struct iok_call *call, uint32_t slots, uint64_t bytes_max)
{
    struct iok_stream *stream = iok_calloc_line(sizeof(*stream));

    if (stream == NULL || iok_ring_init(&stream->ring, slots) != 0) {
        iok_free(stream);
        return IOK_ENOMEM;
    }
    stream->bytes_max = bytes_max;
    call->stream = stream;
    call->streams = true;
    return 0;
}

void iok_call_begin(struct iok_call *call, struct iok_account *replies)
{
    call->conn = NULL;
    call->deadline_ns = 0;
    call->attempts = 0;
    call->maybe_ran = call->admitted = call->auto_lease = false;
    call->class_flags = 0;
    call->body = IOK_BODY_NONE;
    call->error_code = 0;
    call->outcome = IOK_PENDING;
    call->peer.family = 0;
    call->stamps = (struct iok_progress){0};
    iok_tape_init(&call->reply, call->reply_tokens, IOK_CALL_REPLY_TOKENS, call->reply_bytes, IOK_CALL_REPLY_BYTES,
                  call->service != NULL ? call->service->config.max_reply : SIZE_MAX, replies);
}

void iok_call_take(struct iok_core *core, struct iok_call *call)
{
    struct iok_service *service = call->service;
    struct iok_class class = {0};
    struct iok_error err;

    if ((call->flags & IOK_CALL_PART) != 0) {
        iok_body_take(core, call);
        return;
    }
    iok_call_begin(call, &core->replies);
    if ((call->flags & IOK_CALL_BODY) != 0) {
        iok_list_init(&call->parts);
        call->body = IOK_BODY_HELD;
    }
    call->stamps.taken = core->now > call->submitted ? core->now : call->submitted;
    call->state = IOK_CALL_QUEUED;
    iok_count_own_add(&core->calls, 1);
    iok_count_own_add(&service->calls, 1);
    iok_count_own_add(&core->inflight, 1);
    iok_service_start(core, service);
    if (core->forked != NULL) {
        iok_call_end(core, call, IOK_NEVER_SENT, core->forked);
        return;
    }
    if (core->stopping || service->closed) {
        iok_call_fail(core, call, IOK_NEVER_SENT, IOK_ECLOSED, "%s is closed", service->name);
        return;
    }
    if ((call->flags & IOK_CALL_READY) == 0) {
        if (classify(call, &class, &err) != 0) {
            iok_call_end(core, call, IOK_NEVER_SENT, &err);
            return;
        }
        call->class_flags = class.flags;
        if ((call->flags & IOK_CALL_REPEATABLE) != 0) {
            call->class_flags |= IOK_CLASS_REPEATABLE;
        }
        iok_budget_earn(&service->retry_budget);
    }
    if (iok_service_admit(service, call, &err) != 0) {
        iok_call_end(core, call, IOK_NEVER_SENT, &err);
        return;
    }
    iok_call_set_deadline(core, call, class.block_ms);
    if (call->deadline_ns != 0 && call->deadline_ns <= core->now) { /* the timer would fire after it was sent */
        iok_call_deadline(core, call);
        return;
    }
    if (call->lease == NULL && (class.flags & IOK_CLASS_AUTO_LEASE) != 0) {
        call->lease = iok_lease_auto(core, call);
        if (call->lease == NULL) {
            iok_call_fail(core, call, IOK_NEVER_SENT, IOK_ENOMEM, "out of memory for a lease");
            return;
        }
    }
    if (call->lease != NULL) {
        iok_lease_take(core, call->lease, call);
    } else {
        iok_service_enqueue(service, call, false);
        iok_service_want_pump(service);
    }
}

void iok_call_cut(struct iok_core *core, struct iok_call *call, const struct iok_error *err)
{
    bool sent = call->state == IOK_CALL_SENT || call->state == IOK_CALL_STREAMING;
    struct iok_conn *conn = call->conn;

    if (call->state == IOK_CALL_ENDED) {
        return;
    }
    if ((call->flags & IOK_CALL_PART) != 0) {
        iok_body_cut(core, call, err);
        return;
    }
    if (sent) {
        iok_count_own_add(&call->service->cancelled, 1);
        iok_conn_forget(conn, call);
    }
    iok_call_end(core, call, sent ? IOK_MAYBE_EXECUTED : IOK_NEVER_SENT, err);
}

void iok_call_again(struct iok_call *call)
{
    iok_count_own_add(&call->service->retries, 1);
    iok_tape_reset(&call->reply, call->reply_tokens, IOK_CALL_REPLY_TOKENS);
    call->stamps.sent = call->stamps.first_byte = 0;
    call->state = IOK_CALL_QUEUED;
    call->conn = NULL;
    if (call->body == IOK_BODY_HELD) { /* the timer may have been for the peer's wish: iok_body_begin */
        if (call->deadline_ns != 0) {
            iok_timer_set(&call->service->core->wheel, &call->deadline, call->deadline_ns);
        } else {
            iok_timer_stop(&call->service->core->wheel, &call->deadline);
        }
    }
    iok_service_enqueue(call->service, call, true);
}

/* Its deadline has been moved since it was submitted: iok_call_progress. */
static bool has_moved(const struct iok_call *call)
{
    return call->body == IOK_BODY_OVER || (call->stream != NULL && iok_count_get(&call->stream->put) != 0);
}

void iok_call_deadline(struct iok_core *core, struct iok_call *call)
{
    struct iok_service *service = call->service;
    struct iok_error err;
    bool moved = has_moved(call);
    uint64_t at = moved ? iok_call_deadline_at(call, 0) : call->deadline_ns;
    double seconds = (double)(at - call->submitted) / 1e9;

    if (iok_body_waited(call)) {
        return;
    }
    if ((call->flags & IOK_CALL_PART) != 0) {
        iok_err(&err, IOK_ETIMEOUT, "a part of the body was not sent within %.3g s", seconds);
    } else if (call->state == IOK_CALL_QUEUED && !iok_service_is_up(service)) {
        struct iok_error why;

        iok_service_why(service, &why);
        iok_err(&err, why.code != 0 ? why.code : IOK_ETIMEOUT, "no connection within %.3g s: %s", seconds,
                why.code != 0 ? why.text : "still trying");
    } else {
        iok_err(&err, IOK_ETIMEOUT,
                call->state == IOK_CALL_QUEUED ? "not sent within %.3g s: too many calls ahead"
                : moved                        ? "nothing more of a reply within %.3g s"
                                               : "no reply within %.3g s",
                seconds);
    }
    iok_call_cut(core, call, &err);
}

void iok_call_news(struct iok_core *core, struct iok_call *call, struct iok_message *message)
{
    bool pushed;

    message->memory = sizeof(*message) + iok_tape_memory(&message->tape);
    iok_count_own_add(&call->stream->put, message->memory); /* before the program can take it */
    pushed = iok_ring_push(&call->stream->ring, (uintptr_t)message);
    assert(pushed); /* the kernel holds back before the ring is full */
    (void)pushed;
    if (iok_count_exchange(&call->stream->news_posted, 1) == 0) {
        iok_core_tell(core, call->port, iok_entry(call, IOK_CQ_NEWS));
    }
}

struct iok_message *iok_message_new(size_t max_bytes, struct iok_account *account)
{
    struct iok_message *message = iok_malloc(sizeof(*message));

    if (message != NULL) {
        message->serial = 0;
        iok_tape_init(&message->tape, message->tokens, IOK_CALL_REPLY_TOKENS, message->bytes, IOK_CALL_REPLY_BYTES,
                      max_bytes, account);
    }
    return message;
}

void iok_message_free(struct iok_message *message)
{
    iok_tape_deinit(&message->tape);
    iok_free(message);
}
