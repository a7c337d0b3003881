/* serve.c - the life of a serving call in the core: it waits, is given a request, comes back with the answer, waits again.
 *
 *     NEW --taken--> QUEUED --given--> SENT (lent to the program) --taken--> SENT (its memory goes out) --> QUEUED ...
 *                      '--------------------- ended: closed, cancelled, fork ---------------> ENDED
 *
 * These are enum iok_call_state in other words: QUEUED, it waits for a request; SENT, it has one. */
#include <assert.h>

#include "../base/mem.h"
#include "serve.h"

#define IOK_SPARE_REQUESTS_MAX 256u /* kept for reuse: 900 KiB */

/* ---- requests --------------------------------------------------------------------------------------------------- */

struct iok_request *iok_request_new(struct iok_core *core, size_t max_bytes)
{
    struct iok_node *node = iok_list_pop(&core->spare_requests);
    struct iok_request *request;

    if (node != NULL) {
        core->n_spare_requests--;
        request = iok_container(node, struct iok_request, node);
    } else if ((request = iok_malloc(sizeof(*request))) == NULL) {
        return NULL;
    }
    request->node = (struct iok_node){0};
    iok_tape_init(&request->tape, request->tokens, IOK_REQUEST_TOKENS, request->bytes, IOK_REQUEST_BYTES, max_bytes,
                  &core->replies);
    return request;
}

void iok_request_recycle(struct iok_core *core, struct iok_request *request)
{
    iok_tape_deinit(&request->tape);
    if (core->n_spare_requests == IOK_SPARE_REQUESTS_MAX) {
        iok_free(request);
        return;
    }
    core->n_spare_requests++;
    iok_list_push_front(&core->spare_requests, &request->node);
}

/* ---- to the program --------------------------------------------------------------------------------------------- */

static void lend(struct iok_core *core, struct iok_call *call)
{
    struct iok_serve *serve = call->serve;

    iok_pickup_given(core, call->port);
    serve->lent = true;
    serve->station->n_lent++;
    iok_count_own_add(&core->inflight, 1);
    iok_count_own_add(&core->lent, 1);
    iok_count_own_add(&serve->listener->served_now, 1);
    iok_core_tell(core, call->port, iok_entry(call, IOK_CQ_REQUEST));
}

static void unlend(struct iok_core *core, struct iok_call *call)
{
    struct iok_serve *serve = call->serve;

    serve->lent = false;
    serve->station->n_lent--;
    iok_count_own_sub(&core->inflight, 1);
    iok_count_own_sub(&core->lent, 1);
    iok_count_own_sub(&serve->listener->served_now, 1);
}

void iok_serve_post_news(struct iok_call *call)
{
    if (iok_count_exchange(&call->serve->news_posted, 1) == 0) {
        iok_core_tell(call->serve->listener->core, call->port, iok_entry(call, IOK_CQ_NEWS));
    }
}

void iok_serve_tell_left(struct iok_call *call)
{
    if (iok_count_published(&call->serve->left) != call->serve->serial) {
        iok_count_publish(&call->serve->left, call->serve->serial);
        iok_serve_post_news(call);
    }
}

void iok_serve_heard(struct iok_call *call)
{
    struct iok_guest *guest = call->serve->guest;

    if (guest != NULL && guest->parting) {
        iok_guest_part(guest);
    }
}

static void stop_waiting(struct iok_call *call)
{
    if (iok_node_linked(&call->node)) {
        iok_list_remove(&call->node);
        call->serve->station->n_waiting--;
    }
}

void iok_serve_give(struct iok_guest *guest, struct iok_call *call)
{
    struct iok_listener *listener = guest->listener;
    struct iok_core *core = listener->core;
    struct iok_serve *serve = call->serve;

    if (guest->streams && iok_intake_open(guest, call) != 0) {
        iok_guest_refuse(guest, IOK_ENOMEM);
        return;
    }
    stop_waiting(call);
    serve->others = serve->station->n_waiting;
    serve->begun = serve->station->n_begun;
    call->state = IOK_CALL_SENT;
    call->peer = guest->peer;
    call->stamps =
        (struct iok_progress){.taken = guest->began_at, .first_byte = guest->arrived_at, .complete = core->now};
    serve->guest = guest;
    serve->request = guest->request;
    serve->encrypted = guest->io.encrypted;
    serve->streams = guest->streams;
    serve->says = false;
    serve->error.code = 0;
    serve->serial++;
    guest->request = NULL;
    guest->call = call;
    guest->parted = false;
    iok_hist_add(&listener->hist_wait, core->now - guest->arrived_at);
    if (guest->streams) {
        guest->arrived_at = core->now; /* the client's time for its body begins */
        iok_intake_look(guest);
    }
    iok_guest_set_state(guest, IOK_GUEST_SERVED);
    lend(core, call);
    if (guest->streams && guest->listener->proto->server->go != NULL) {
        (void)guest->listener->proto->server->go(guest->codec, &guest->io);
        iok_guest_want_flush(guest); /* and then it is fed on */
    }
    if (guest->ended && !guest->streams) {
        iok_serve_tell_left(call);
    }
}

/* ---- ends ------------------------------------------------------------------------------------------------------- */

static void end_quietly(struct iok_core *core, struct iok_call *call, const struct iok_error *err)
{
    assert(call->state != IOK_CALL_ENDED && !call->serve->lent);
    stop_waiting(call);
    call->state = IOK_CALL_ENDED;
    call->outcome = IOK_NEVER_SENT;
    call->stamps.complete = core->now;
    call->error_code = err->code;
    call->error_line = err->line;
    call->error_file = err->file;
    iok_tape_reset(&call->reply, call->reply_tokens, IOK_CALL_REPLY_TOKENS);
    iok_tape_copy(&call->reply, IOK_ERROR, 0, iok_span_of(err->text));
}

void iok_serve_end(struct iok_core *core, struct iok_call *call, const struct iok_error *err)
{
    end_quietly(core, call, err);
    iok_core_tell(core, call->port, iok_entry(call, IOK_CQ_ENDED));
}

static void end_closed(struct iok_core *core, struct iok_call *call)
{
    const struct iok_listener *listener = call->serve->listener;
    struct iok_error err;

    if (iok_listener_state(listener) == IOK_LISTENER_LEFT) {
        iok_err(&err, IOK_EFORKED, "%s is served by the parent process", listener->name);
    } else {
        iok_err(&err, IOK_ECLOSED, "%s is closed", listener->name);
    }
    iok_serve_end(core, call, core->forked != NULL ? core->forked : &err);
}

static bool may_wait(const struct iok_core *core, const struct iok_listener *listener)
{
    enum iok_listener_state state = iok_listener_state(listener);

    return !core->stopping &&
           (state == IOK_LISTENER_OPEN || (state == IOK_LISTENER_DRAINING && listener->n_guests > 0));
}

/* It waits for the next request, or ends with its listener. */
static void rest(struct iok_core *core, struct iok_call *call)
{
    struct iok_serve *serve = call->serve;

    if (!may_wait(core, serve->listener)) {
        end_closed(core, call);
        return;
    }
    call->state = IOK_CALL_QUEUED;
    if (call->args.bufs != NULL) { /* what the answer refers to can be given back now, and not with the next request */
        iok_count_publish(&serve->done, serve->serial);
        iok_serve_post_news(call);
    }
    iok_list_push_front(&serve->station->waiting, &call->node); /* the one whose memory is warm comes first */
    serve->station->n_waiting++;
    iok_listener_serve(serve->listener, call);
}

void iok_serve_release(struct iok_guest *guest)
{
    struct iok_call *call = guest->call;

    if (call == NULL) {
        return;
    }
    guest->call = NULL;
    call->serve->guest = NULL;
    if (call->serve->lent) {
        iok_count_publish(&call->serve->gone, call->serve->serial);
        iok_count_own_add(&guest->listener->gone, 1);
        iok_serve_post_news(call);
    } else {
        rest(guest->listener->core, call);
    }
}

/* ---- from the program ------------------------------------------------------------------------------------------- */

/* The first time. false: it ended. */
static bool begin(struct iok_core *core, struct iok_call *call)
{
    struct iok_listener *listener = call->serve->listener;
    struct iok_error err;

    iok_call_begin(call, &core->replies);
    iok_listener_start(core, listener);
    if (core->forked == NULL && may_wait(core, listener)) {
        call->serve->station = iok_listener_station(listener, call->port);
        if (call->serve->station == NULL) {
            iok_err(&err, IOK_ENOMEM, "out of memory for a serving call");
            iok_serve_end(core, call, &err);
            return false;
        }
        call->serve->station->n_begun++;
    }
    return true;
}

/* The answer cannot be sent: the program hears why, and answers once more. */
static void give_again(struct iok_core *core, struct iok_call *call)
{
    call->serve->error = call->serve->guest->io.err;
    lend(core, call);
}

void iok_serve_answered(struct iok_core *core, struct iok_call *call)
{
    unlend(core, call);
    iok_hist_add(&call->serve->listener->hist_answer, core->now - call->stamps.complete);
    iok_request_recycle(core, call->serve->request);
    call->serve->request = NULL;
}

void iok_serve_give_up(struct iok_core *core, struct iok_call *call)
{
    unlend(core, call);
    iok_request_recycle(core, call->serve->request);
    call->serve->request = NULL;
    rest(core, call);
}

static void count_status(struct iok_listener *listener, const struct iok_call *call)
{
    int64_t status = call->args.n_tokens > 1 && call->args.tokens[1].type == IOK_I64 ? call->args.tokens[1].i : 0;

    if (status >= 100 && status < 600) {
        iok_count_own_add(&listener->answers[status / 100 - 1], 1);
    }
}

/* An answer, or its head. */
static void take_answer(struct iok_core *core, struct iok_call *call)
{
    struct iok_serve *serve = call->serve;
    struct iok_guest *guest = serve->guest;
    bool parts = (call->flags & IOK_CALL_BODY) != 0;
    int rc;

    guest->io.parts = parts;
    rc = serve->upgrade != 0 ? iok_guest_upgrade(guest, call)
                             : iok_guest_answer(guest, call->args.tokens, call->args.n_tokens);
    if (rc == IOK_EINVAL || rc == IOK_ETYPE || rc == IOK_ELIMIT || rc == IOK_EUNSAFE) {
        unlend(core, call);
        give_again(core, call);
        return;
    }
    if (rc != 0) { /* the guest is closed, and has released the call */
        if (!parts) {
            iok_serve_give_up(core, call);
        }
        serve->says = parts;
        return;
    }
    count_status(serve->listener, call);
    iok_guest_set_state(guest, IOK_GUEST_ANSWERING);
    guest->says = serve->says = parts;
    if (parts) {
        iok_guest_want_flush(guest);
    } else {
        iok_serve_answered(core, call);
        iok_guest_flush(guest);
        iok_guest_go_on(guest);
    }
}

void iok_serve_take(struct iok_core *core, struct iok_call *call)
{
    struct iok_serve *serve = call->serve;

    if (call->state == IOK_CALL_NEW) {
        if (begin(core, call)) {
            rest(core, call);
        }
    } else if (serve->guest != NULL && !serve->says) {
        take_answer(core, call);
    } else if (serve->guest == NULL && (call->flags & IOK_CALL_BODY) != 0 && !serve->says) {
        serve->says = true; /* its parts are on their way, and will be refused */
    } else if (serve->guest == NULL) {
        iok_serve_give_up(core, call);
    }
}

/* What becomes of the guest whose request, or answer, the call had. */
static void take_from(struct iok_call *call, struct iok_guest *guest)
{
    struct iok_serve *serve = call->serve;
    struct iok_error why;

    guest->call = NULL;
    if (guest->state == IOK_GUEST_SERVED && serve->serial != serve->seen && !guest->parted) {
        guest->request = serve->request;
        serve->request = NULL;
        iok_listener_dispatch_again(guest->listener, guest);
    } else if (guest->state == IOK_GUEST_SERVED) {
        iok_guest_refuse(guest, IOK_ECANCELLED);
    } else if (guest->says) {
        iok_err(&why, 0, "the program gave up its answer");
        iok_guest_close(guest, &why);
    } else if (iok_out_own(&guest->out, guest->out.taken, guest->out.appended) != 0) {
        iok_err(&why, IOK_ENOMEM, "out of memory for the unsent rest of an answer");
        iok_guest_close(guest, &why);
    } else {
        iok_serve_parts_sent(guest, guest->out.appended);
    }
    iok_guest_go_on(guest);
}

void iok_serve_cut(struct iok_core *core, struct iok_call *call, const struct iok_error *err)
{
    struct iok_serve *serve = call->serve;
    struct iok_guest *guest = serve->guest;

    if (call->state == IOK_CALL_ENDED) {
        return;
    }
    if (serve->lent) {
        unlend(core, call);
    }
    serve->guest = NULL;
    stop_waiting(call); /* no more requests for it */
    if (guest != NULL) {
        take_from(call, guest);
    }
    end_quietly(core, call, err); /* IOK_CQ_CANCELLED tells */
}
