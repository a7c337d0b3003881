/* api_serve.c - the program's side of the public API: listeners and serving calls. */
#include <assert.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#include "base/mem.h"
#include "kernel/serve.h"
#include "run.h"

#define IOK_SMALL_ANSWER_BYTES 8192u /* a head and a page of text; of 16,384 calls 128 MiB */

#define IOK_BACKLOG 4096u /* the system allows as much, or less by net.core.somaxconn */

/* ---- binding ---------------------------------------------------------------------------------------------------- */

/* The address that the URL names. */
static int read_address(const struct iok_listener *listener, struct iok_address *address, struct iok_error *err)
{
    const struct iok_url *url = &listener->url;
    const char *host = url->n_hosts > 0 ? (const char *)url->hosts[0].name.p : "localhost";
    uint16_t port = listener->config.tls ? listener->proto->tls_port : listener->proto->default_port;

    if (url->unix_socket) {
        return iok_address_unix(url->path, address) ? 0 : iok_err(err, IOK_EURL, "the path of the socket is too long");
    }
    if (url->n_hosts > 0 && (url->hosts[0].port != 0 || url->hosts[0].any_port)) {
        port = url->hosts[0].port;
    }
    host = host[0] == '\0' || iok_span_eq(iok_span_of(host), iok_span_of("localhost")) ? "127.0.0.1" : host;
    return iok_address_literal(host, port, address)
               ? 0
               : iok_err(err, IOK_EURL,
                         "cannot listen on '%s': expected an IP address, such as 0.0.0.0 for all, or "
                         "localhost",
                         host);
}

/* "0660" */
static int read_mode(const struct iok_url *url, int *mode, struct iok_error *err)
{
    struct iok_span value;
    int bits = 0;

    if (!iok_url_option(url, "mode", &value)) {
        return 0;
    }
    for (size_t i = 0; i < value.n; i++) {
        if (value.p[i] < '0' || value.p[i] > '7' || value.n > 4) {
            return iok_err(err, IOK_EOPTION, "bad mode=%.*s: expected up to four octal digits, such as 0660",
                           (int)(value.n < 40 ? value.n : 40), (const char *)value.p);
        }
        bits = bits * 8 + (value.p[i] - '0');
    }
    *mode = bits;
    return url->unix_socket ? 0 : iok_err(err, IOK_EOPTION, "mode= is for a unix socket");
}

static int read_bind(const struct iok_listener *listener, struct iok_bind *what, struct iok_error *err)
{
    const struct iok_url *url = &listener->url;
    uint64_t backlog = IOK_BACKLOG, fd = 0;
    struct iok_span value;
    int rc;

    if ((rc = iok_url_option_u64(url, "backlog", 1, 65535, &backlog, err)) != 0 ||
        (rc = iok_url_option_bool(url, "reuse_port", &what->reuse_port, err)) != 0 ||
        (rc = read_mode(url, &what->mode, err)) != 0 ||
        (rc = iok_url_option_u64(url, "fd", 0, INT32_MAX, &fd, err)) != 0) {
        return rc;
    }
    what->backlog = (int)backlog;
    what->inherited = iok_url_option(url, "fd", &value) ? (int)fd : -1;
    if (what->inherited >= 0 && (url->n_hosts > 0 || url->unix_socket)) {
        return iok_err(err, IOK_EOPTION, "fd= brings its own address: write http:?fd=%d", what->inherited);
    }
    return 0;
}

/* "http://127.0.0.1:8000", with the real port, and no options. */
static void name_listener(struct iok_listener *listener)
{
    char text[IOK_ADDRESS_TEXT_MAX];
    bool local = listener->address.any.sa_family == AF_UNIX;

    (void)snprintf(listener->name, sizeof(listener->name), "%s%s%s", (const char *)listener->url.scheme.p,
                   local ? "+unix://" : "://", iok_address_text(&listener->address, text));
}

static int bind_listener(struct iok_listener *listener, struct iok_error *err)
{
    const struct iok_net *net = listener->owner->net;
    struct iok_bind what = {.mode = -1, .inherited = -1};
    struct iok_address address;
    int rc = read_bind(listener, &what, err);

    if (rc == 0 && what.inherited < 0) {
        rc = read_address(listener, &address, err);
        what.address = &address;
    }
    if (rc != 0) {
        return rc;
    }
    rc = net->ops->bind(&what, &listener->address, err);
    if (rc < 0) {
        return rc;
    }
    listener->fd = rc;
    listener->unbind = net->ops->unbind;
    listener->binder = (int)getpid();
    name_listener(listener);
    return 0;
}

struct iok_listener *iok_listener_new(struct iok_port *port, const char *url, struct iok_error *err)
{
    struct iok_error local;
    struct iok_listener *listener;

    err = err == NULL ? &local : err;
    if (iok_port_check(port, err) != 0 || (listener = iok_listener_make(url, err)) == NULL) {
        return NULL;
    }
    listener->owner = port->owner;
    if (port->owner->net == NULL) {
        iok_err(err, IOK_ECLOSED, "the kernel is stopped");
    } else {
        listener->tls_free = port->owner->net->ops->tls_free;
        if (iok_listener_load_tls(listener, &listener->tls, err) == 0 && bind_listener(listener, err) == 0) {
            return listener;
        }
    }
    iok_listener_drop(listener);
    return NULL;
}

const char *iok_listener_name(const struct iok_listener *listener)
{
    return listener->name;
}

void iok_listener_ref(struct iok_listener *listener)
{
    iok_count_ref(&listener->refs);
}

void iok_listener_unref(struct iok_listener *listener)
{
    iok_listener_drop(listener);
}

/* The kernel is to do something about the listener; nothing, if it has closed all. */
static void tell(struct iok_port *port, struct iok_listener *listener, enum iok_verb verb)
{
    iok_count_ref(&listener->refs); /* the message's */
    while (!iok_ring_push(&port->link.sq, iok_entry(listener, verb))) {
        if (iok_port_check(port, NULL) != 0 || iok_port_is_detached(&port->link)) { /* the kernel has closed all */
            iok_listener_drop(listener);
            return;
        }
        iok_kick(port);
        (void)sched_yield();
    }
    iok_kick(port);
}

void iok_listener_close(struct iok_listener *listener, struct iok_port *port, int64_t grace_ms)
{
    if (iok_port_check(port, NULL) == 0) {
        iok_count_set(&listener->grace_ms, grace_ms < 0 ? 0 : (uint64_t)grace_ms);
        tell(port, listener, IOK_SQ_DRAIN);
    }
}

int iok_listener_reload(struct iok_listener *listener, struct iok_port *port, struct iok_error *err)
{
    struct iok_error local;
    struct iok_tls *tls, *unused;
    int rc;

    err = err == NULL ? &local : err;
    rc = iok_port_check(port, err);
    if (rc == 0 && port->owner->net == NULL) {
        rc = iok_err(err, IOK_ECLOSED, "the kernel is stopped");
    }
    if (rc != 0 || (rc = iok_listener_load_tls(listener, &tls, err)) != 0 || tls == NULL) {
        return rc;
    }
    unused = (struct iok_tls *)(uintptr_t)iok_count_exchange(&listener->tls_next, (uint64_t)(uintptr_t)tls);
    if (unused != NULL) { /* of a reload that the kernel has not seen */
        listener->tls_free(unused);
    }
    tell(port, listener, IOK_SQ_SECURE);
    return 0;
}

static int check_bound(const struct iok_listener *listener, struct iok_error *err)
{
    return iok_listener_state(listener) == IOK_LISTENER_BOUND
               ? 0
               : iok_err(err, IOK_ESTATE, "%s is served already: say it before", listener->name);
}

int iok_listener_answer(struct iok_listener *listener, const char *path, int status, const char *type, const void *body,
                        size_t len, struct iok_error *err)
{
    int rc = check_bound(listener, err);

    if (rc == 0 && (path[0] != '/' || status < 200 || status > 599)) {
        rc = iok_err(err, IOK_EINVAL, "a path such as /robots.txt, and a status from 200 to 599");
    }
    return rc != 0 ? rc : iok_route_add(listener, path, status, type, iok_span(body, len), err);
}

int iok_listener_require(struct iok_listener *listener, struct iok_service *service, struct iok_error *err)
{
    int rc = check_bound(listener, err);

    if (rc == 0 && (listener->n_required == IOK_REQUIRED_MAX || service->owner != listener->owner)) {
        rc = iok_err(err, IOK_EINVAL, "at most %u services, of the listener's kernel", IOK_REQUIRED_MAX);
    }
    if (rc == 0) {
        iok_count_ref(&service->refs);
        listener->required[listener->n_required++] = service;
    }
    return rc;
}

void iok_listener_stats(struct iok_listener *listener, struct iok_listener_stats *out)
{
    *out = (struct iok_listener_stats){
        .accepted = iok_count_get(&listener->connections),
        .connections = (uint32_t)iok_count_get(&listener->connections_now),
        .requests = iok_count_get(&listener->requests),
        .inflight = (uint32_t)iok_count_get(&listener->served_now),
        .queued = (uint32_t)iok_count_get(&listener->queued_now),
        .native = iok_count_get(&listener->native),
        .shed = iok_count_get(&listener->shed),
        .refused = iok_count_get(&listener->refused),
        .gone = iok_count_get(&listener->gone),
        .timeouts = iok_count_get(&listener->timeouts),
        .starved = iok_count_get(&listener->starved),
        .bytes_in = iok_count_get(&listener->bytes_in),
        .bytes_out = iok_count_get(&listener->bytes_out),
    };
    for (unsigned i = 0; i < 5; i++) {
        out->answers[i] = iok_count_get(&listener->answers[i]);
    }
    iok_hist_read(&listener->hist_wait, &out->wait);
    iok_hist_shared_read(&listener->hist_pickup, &out->pickup);
    iok_hist_read(&listener->hist_answer, &out->answer);
    iok_note_read(&listener->last_failure, out->last_failure);
}

/* ---- serving calls ---------------------------------------------------------------------------------------------- */

struct iok_call *iok_serve_new(struct iok_port *port, struct iok_listener *listener, struct iok_error *err)
{
    struct iok_serve *serve;
    struct iok_call *call;

    if (iok_port_check(port, err) != 0) { /* in the child of a fork it tells what became of the listener */
        return NULL;
    }
    if (listener->owner != port->owner) {
        iok_err(err, IOK_EINVAL, "the listener and the port belong to different kernels");
        return NULL;
    }
    if (iok_listener_state(listener) == IOK_LISTENER_LEFT) {
        iok_err(err, IOK_EFORKED, "%s is served by the parent process: fork before it is", listener->name);
        return NULL;
    }
    call = iok_call_make(port, err);
    if (call == NULL) {
        return NULL;
    }
    serve = iok_calloc_line(sizeof(*serve));
    if (serve == NULL) {
        iok_err(err, IOK_ENOMEM, "out of memory for a serving call");
        iok_call_free(call);
        return NULL;
    }
    serve->listener = listener;
    iok_count_ref(&listener->refs);
    call->serve = serve;
    call->flags = IOK_CALL_SERVE;
    call->state = IOK_CALL_NEW;
    iok_tape_init(&call->args, serve->tokens, IOK_ANSWER_TOKENS, serve->bytes, IOK_ANSWER_BYTES, SIZE_MAX,
                  &port->owner->core.arguments);
    return call;
}

static void drop_answer(struct iok_call *call)
{
    iok_tape_reset(&call->args, call->serve->tokens, IOK_ANSWER_TOKENS);
}

void iok_serve_free(struct iok_call *call)
{
    struct iok_serve *serve = call->serve;

    if (serve->request != NULL) { /* the kernel has let go of the call, and left it */
        iok_tape_deinit(&serve->request->tape);
        iok_free(serve->request);
    }
    call->port->bytes_left += serve->charged;
    iok_listener_drop(serve->listener);
    iok_free(serve);
    call->serve = NULL;
    call->args = (struct iok_tape){0};
}

/* As iok_call_set_error; what came with its request stays. */
static void set_error(struct iok_call *call, const struct iok_error *err)
{
    struct iok_progress stamps = call->stamps;
    struct iok_peer peer = call->peer;

    iok_tape_deinit(&call->reply);
    iok_call_set_error(call, err);
    call->stamps = stamps;
    call->peer = peer;
}

static bool is_gone(const struct iok_serve *serve)
{
    return iok_count_published(&serve->gone) == serve->have;
}

/* Whether call->message is there. */
static bool next_message(struct iok_call *call)
{
    uintptr_t message;

    if (call->message == NULL && (call->app & IOK_APP_STREAM) != 0 && iok_count_published(&call->serve->opened) != 0 &&
        iok_ring_pop(&call->stream->ring, &message)) {
        call->message = (struct iok_message *)message;
    }
    return call->message != NULL;
}

/* What was not taken of a request's messages, and of those before it. */
static void drop_messages(struct iok_call *call, uint64_t serial)
{
    while (next_message(call) && call->message->serial <= serial) {
        iok_count_own_add(&call->stream->taken, call->message->memory);
        iok_message_free(call->message);
        call->message = NULL;
    }
}

void iok_serve_said_all(struct iok_call *call)
{
    call->app &= ~(uint32_t)(IOK_APP_HAND | IOK_APP_SAID);
    drop_messages(call, call->serve->have);
}

/* The rest of an answer whose client is gone will not be made. */
static int give_up(struct iok_call *call)
{
    if (!iok_ring_push(&call->port->link.sq, iok_entry(call, IOK_SQ_SUBMIT))) {
        return IOK_EOVERLOAD;
    }
    iok_serve_said_all(call);
    iok_submitted(call->port);
    return 0;
}

/* What counts against port_bytes_max. Small answers do not, so clients that read large ones slowly keep nobody else from
 * being answered; port_calls_max bounds them well enough. */
static uint64_t charge(const struct iok_call *call)
{
    return call->args.held_bytes > IOK_SMALL_ANSWER_BYTES ? call->args.held_bytes : 0;
}

/* The answer is dropped: another may be smaller. */
static int refuse(struct iok_call *call, const struct iok_error *err)
{
    set_error(call, err);
    drop_answer(call);
    call->flags &= ~(uint32_t)IOK_CALL_BODY;
    return err->code;
}

int iok_serve_submit(struct iok_call *call)
{
    struct iok_port *port = call->port;
    struct iok_serve *serve = call->serve;
    bool first = (call->app & IOK_APP_SUBMITTED) == 0, said = (call->app & IOK_APP_SAID) != 0;
    struct iok_error err;

    if ((!first && (call->app & IOK_APP_HAND) == 0) || (call->app & (IOK_APP_CANCEL | IOK_APP_ENDED)) != 0) {
        return IOK_EINVAL;
    }
    if (said) {
        return is_gone(serve) ? give_up(call) : IOK_EINVAL;
    }
    if (first ? call->args.n_tokens != 0 : call->args.n_tokens == 0 && !is_gone(serve)) {
        return IOK_EINVAL;
    }
    if (call->args.n_tokens == 0) { /* no head, so no body */
        call->flags &= ~(uint32_t)IOK_CALL_BODY;
    }
    if (charge(call) > port->bytes_max) { /* there will never be room */
        iok_err(&err, IOK_ELIMIT, "an answer of %zu bytes is more than port_bytes_max=%llu", call->args.held_bytes,
                (unsigned long long)port->bytes_max);
        return refuse(call, &err);
    }
    if ((first && port->n_counted >= port->calls_max) || charge(call) > port->bytes_left) {
        iok_err(&err, IOK_EOVERLOAD,
                first ? "%u calls are alive on this port (port_calls_max)"
                      : "the answers of this port have too many bytes (port_bytes_max), with %u calls",
                port->n_counted);
        return refuse(call, &err);
    }
    if ((call->app & IOK_APP_FAILED) != 0) {
        call->app &= ~(uint32_t)IOK_APP_FAILED;
        iok_tape_deinit(&call->reply);
    }
    if (!iok_ring_push(&port->link.sq, iok_entry(call, IOK_SQ_SUBMIT))) {
        return IOK_EOVERLOAD;
    }
    if ((call->flags & IOK_CALL_BODY) != 0) {
        call->app |= IOK_APP_SAID; /* it has its request until the last part */
    } else {
        iok_serve_said_all(call);
    }
    call->app |= IOK_APP_SUBMITTED | IOK_APP_COUNTED;
    port->n_counted += first;
    serve->charged = charge(call);
    port->bytes_left -= serve->charged;
    iok_submitted(port);
    return 0;
}

void iok_serve_picked_up(struct iok_call *call, uint64_t now)
{
    struct iok_serve *serve = call->serve;

    call->port->bytes_left += serve->charged;
    serve->charged = 0;
    drop_answer(call);
    call->app = (call->app & ~(uint32_t)IOK_APP_SAID) | IOK_APP_HAND;
    call->flags &= ~(uint32_t)IOK_CALL_BODY;
    serve->upgrade = 0;
    if (serve->error.code != 0) { /* the answer was refused: the request is the same */
        set_error(call, &serve->error);
        return;
    }
    serve->have = serve->serial;
    serve->hears = false;
    call->picked_up = now;
    serve->expects = serve->streams;
    drop_messages(call, serve->have - 1);
    if (serve->streams) {
        call->app |= IOK_APP_STREAM;
        iok_serve_taken(call); /* the kernel may wait for room since before those messages were dropped */
    }
    if (now > call->stamps.complete) {
        iok_hist_shared_add(&serve->listener->hist_pickup, call->port, now - call->stamps.complete);
    }
}

bool iok_serve_news(struct iok_call *call)
{
    struct iok_serve *serve = call->serve;

    (void)iok_count_exchange(&serve->news_posted, 0);
    call->app |= IOK_APP_STREAM; /* there may be messages */
    if ((call->app & IOK_APP_HAND) != 0) {
        return true;
    }
    if (iok_count_published(&serve->done) == serve->have && call->args.bufs != NULL) {
        call->port->bytes_left += serve->charged;
        serve->charged = 0;
        drop_answer(call);
    }
    drop_messages(call, serve->have);
    return false;
}

/* ---- bodies of requests in parts ---- */

const struct iok_token *iok_serve_message(struct iok_call *call, size_t *n)
{
    struct iok_serve *serve = call->serve;

    if ((call->app & IOK_APP_HAND) == 0 || !next_message(call)) {
        return NULL;
    }
    serve->expects &= call->message->tape.tokens[0].type != IOK_ARRAY;
    serve->hears = call->message->tape.tokens[0].type == IOK_PUSH && call->message->tape.tokens[0].len == 4;
    *n = call->message->tape.n_tokens;
    return call->message->tape.tokens;
}

static void tell_of(struct iok_call *call, enum iok_verb verb)
{
    bool pushed = iok_ring_push(&call->port->link.sq, iok_entry(call, verb));

    assert(pushed); /* see port.h */
    (void)pushed;
    iok_kick(call->port);
}

void iok_serve_taken(struct iok_call *call)
{
    struct iok_stream *stream = call->stream;

    if ((call->app & IOK_APP_HAND) != 0 && call->serve->hears) { /* behind all that was submitted before */
        tell_of(call, IOK_SQ_HEARD);
    }
    call->serve->hears = false;
    /* The exchange is a fence too: either it sees that the kernel has stopped, or the kernel sees the room. */
    if ((call->app & IOK_APP_HAND) != 0 && iok_stream_bytes(stream) <= stream->bytes_max / 2 &&
        iok_count_exchange(&stream->stalled, 0) != 0) {
        tell_of(call, IOK_SQ_TAKEN);
    }
}

bool iok_serve_is_over(const struct iok_call *call)
{
    return call->serve != NULL && ((call->app & IOK_APP_HAND) == 0 || is_gone(call->serve));
}

bool iok_serve_expects_body(const struct iok_call *call)
{
    return (call->app & IOK_APP_HAND) != 0 && call->serve->expects;
}

/* ---- what is known of a request ---- */

uint32_t iok_serve_others(const struct iok_call *call, uint64_t *begun)
{
    *begun = call->serve->begun;
    return call->serve->others;
}

enum iok_serve_state iok_serve_state(const struct iok_call *call)
{
    const struct iok_serve *serve = call->serve;

    if ((call->app & IOK_APP_ENDED) != 0) {
        return IOK_SERVE_CLOSED;
    }
    if ((call->app & IOK_APP_HAND) == 0) {
        return (call->app & IOK_APP_SUBMITTED) != 0 ? IOK_SERVE_WAITING : IOK_SERVE_NEW;
    }
    if (is_gone(serve)) {
        return IOK_SERVE_GONE;
    }
    return iok_count_published(&serve->left) == serve->have ? IOK_SERVE_LEFT : IOK_SERVE_REQUEST;
}

void iok_serve_upgrade(struct iok_call *call, enum iok_upgrade_to to)
{
    call->serve->upgrade = (uint8_t)to;
    call->flags |= IOK_CALL_BODY;
}

bool iok_serve_is_encrypted(const struct iok_call *call)
{
    return call->serve->encrypted;
}

struct iok_listener *iok_serve_listener(const struct iok_call *call)
{
    return call->serve->listener;
}
