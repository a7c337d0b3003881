/* truth.c - what must hold, whatever happens: docs/simulation.md lists it.
 *
 * Nothing here is asked of the kernel that it could answer to please: what ran is known from the servers, what was
 * asked for from the program, and bounds are counted from the lists themselves. */
#include <stdio.h>
#include <string.h>

#include "scene.h"

/* ---- what the servers see ---- */

void truth_arrived(struct iok_link *link, uint32_t id)
{
    struct record *record = &scene.records[id];
    struct session *session = &link->session;
    uint32_t holder = record->verb == VERB_BLPOP ? 1000 + id : record->lease < LEASES_MAX ? 1u + record->lease : 0;

    must(record->verb != VERB_READY && record->verb != VERB_BAD, "#%u cannot be sent, and was", id);
    must(!record->late, "#%u was sent after the kernel had stopped", id);
    if (holder == 0) {
        must(session->holder == 0, "#%u came on a connection of a lease", id);
        session->shared = true;
        if (scene.services[record->service].handle->config.connections == 1) {
            must(id > session->newest[record->port], "#%u came after #%u", id, session->newest[record->port]);
            session->newest[record->port] = id;
        }
        return;
    }
    must(!session->shared, "#%u, of a lease, came on a shared connection", id);
    if (session->holder != holder) {
        must(!session->multi && !session->watched && session->channel == 0,
             "#%u came on a connection that the lease before had not left clean", id);
        session->holder = holder;
    }
    if (record->lease < LEASES_MAX) {
        struct lease *lease = &scene.leases[record->lease];

        must(lease->link == 0 || lease->link == link->id + 1u, "lease %u went on, on another connection",
             record->lease);
        lease->link = (uint16_t)(link->id + 1u);
    }
}

void truth_executed(uint32_t id)
{
    struct record *record = &scene.records[id];
    uint32_t most = record->repeatable ? 1 + (uint32_t)scene.services[record->service].handle->config.retries : 1;

    say("server runs #%u %s", id, verb_name(record->verb));
    record->executed++;
    must(record->executed <= most, "#%u ran %u times", id, record->executed);
    must(!record->ended || record->outcome == IOK_MAYBE_EXECUTED || (record->outcome == IOK_DONE && record->repeatable),
         "#%u ran after it had ended as %s", id, iok_outcome_name(record->outcome));
}

/* ---- replies ---- */

static bool is_text(const struct iok_token *token, enum iok_type type, const char *prefix, uint32_t id)
{
    char text[24];
    size_t n = (size_t)snprintf(text, sizeof(text), "%s%u", prefix, id);

    if (token->type != type || token->len < n || memcmp(token->p, text, n) != 0) {
        return false;
    }
    for (size_t i = n; i < token->len; i++) {
        if (token->p[i] != '.') {
            return false;
        }
    }
    return true;
}

static bool is_error(const struct iok_token *token, uint32_t id)
{
    char text[24];
    size_t n = (size_t)snprintf(text, sizeof(text), " k%u", id);

    return token->type == IOK_ERROR && token->len > n && memcmp(token->p + token->len - n, text, n) == 0;
}

static bool is_exec(const struct record *record, const struct iok_token *reply, size_t n)
{
    if (reply->type == IOK_NULL) {
        return n == 1;
    }
    if (reply->type != IOK_ARRAY || reply->len + 1 != n || n < 2 || reply[1].i != record->id) {
        return false;
    }
    for (size_t i = 1; i < n; i++) {
        if (reply[i].type != IOK_I64) {
            return false;
        }
        if (i > 1) {
            const struct record *part = &scene.records[reply[i].i];

            if (part->lease != record->lease || part->exec != record->id) {
                return false;
            }
        }
    }
    return true;
}

/* The answer of web.c: the field x-call names the call, and so does the body, if it may have one. */
static bool is_http(const struct record *record, const struct iok_token *reply, size_t n)
{
    bool named = false;
    const struct iok_token *body;

    if (n < 5 || reply->type != IOK_ARRAY || reply->len != 5 || reply[1].type != IOK_I64 ||
        reply[3].type != IOK_ARRAY || n < 4 + (size_t)reply[3].len + 2) {
        return false;
    }
    for (uint32_t i = 0; i + 1 < reply[3].len; i += 2) {
        if (iok_span_eq(iok_token_span(&reply[4 + i]), iok_span_of("x-call"))) {
            struct iok_token value = reply[5 + i];

            value.type = IOK_TEXT;
            named = is_text(&value, IOK_TEXT, "k", record->id);
        }
    }
    body = &reply[4 + reply[3].len];
    if (record->verb == VERB_HEAD || reply[1].i == 204 || reply[1].i == 304) {
        return named && body->len == 0;
    }
    return named && is_text(body, IOK_BYTES, "v", record->id);
}

/* Whether this is an answer to this call, and to no other. */
static bool fits(const struct record *record, const struct iok_token *reply, size_t n)
{
    uint32_t id = record->id;

    if (record->verb == VERB_READY) {
        return n == 0;
    }
    if (n == 0) {
        return false;
    }
    if (reply->type == IOK_ERROR) {
        return n == 1 && is_error(reply, id);
    }
    if (n == 1 && record->lease < LEASES_MAX && is_text(reply, IOK_TEXT, "QUEUED k", id)) {
        return true;
    }
    switch (record->verb) {
    case VERB_INCR:
        return n == 1 && reply->type == IOK_I64 && reply->i == id;
    case VERB_GET:
    case VERB_EVAL:
    case VERB_LINE:
        return n == 1 && is_text(reply, IOK_BYTES, "v", id);
    case VERB_FETCH:
    case VERB_HEAD:
    case VERB_POST:
        return is_http(record, reply, n);
    case VERB_EXEC:
        return is_exec(record, reply, n);
    case VERB_BLPOP:
        return (n == 1 && reply->type == IOK_NULL) ||
               (n == 3 && reply->type == IOK_ARRAY && is_text(&reply[1], IOK_BYTES, "k", id));
    default:
        return n == 1 && is_text(reply, IOK_TEXT, "s", id);
    }
}

void truth_message(struct record *record, const struct iok_token *tokens, size_t n)
{
    if (n == 1 && tokens->type == IOK_DROPPED) {
        must(record->confirmed && tokens->i > 0, "#%u: a confirmation was dropped, or nothing", record->id);
        must(scene.services[record->service].handle->config.drops, "#%u: messages are dropped, unasked", record->id);
        say("call #%u: %lld messages were dropped", record->id, (long long)tokens->i);
        record->messages += (uint32_t)tokens->i;
        return;
    }
    must(n == 4 && tokens->type == IOK_PUSH && is_text(&tokens[2], IOK_BYTES, "k", record->id),
         "#%u has a message that is not its own", record->id);
    if (!record->confirmed) {
        must(iok_span_eq(iok_token_span(&tokens[1]), iok_span_of("subscribe")), "#%u: a message was lost", record->id);
        record->confirmed = true;
        return;
    }
    record->messages++;
    must(is_text(&tokens[3], IOK_BYTES, "", record->messages), "#%u: message %u is missing, or came twice", record->id,
         record->messages);
}

/* ---- how calls end ---- */

static void check_times(const struct record *record)
{
    struct iok_stamps at;

    iok_call_stamps(record->call, &at);
    must(record->code != IOK_ETIMEOUT || (record->deadline != 0 && at.complete >= record->deadline),
         "#%u timed out before its time", record->id);
    if (at.taken == 0) { /* the program was to look at its port before it could end */
        return;
    }
    must(at.submitted <= at.taken && at.taken <= at.complete, "#%u: its times are out of order", record->id);
    if (record->outcome == IOK_DONE && record->verb != VERB_READY && record->code == 0) {
        must(at.sent == 0 || (at.taken <= at.sent && at.sent <= at.first_byte), "#%u: was sent out of order",
             record->id);
        must(at.first_byte <= at.complete, "#%u: ended before its first byte", record->id);
    }
    if (record->deadline != 0 && record->verb != VERB_SUBSCRIBE) {
        uint64_t due = record->deadline > at.taken ? record->deadline : at.taken; /* it may come late to the kernel */

        must(at.complete <= due + SCENE_TICK, "#%u ended %.6g ms after its deadline", record->id,
             (double)(at.complete - due) / 1e6);
    }
}

static void check_end(const struct record *record, const struct iok_token *reply, size_t n)
{
    switch (record->outcome) {
    case IOK_DONE:
        must(record->code != 0 || fits(record, reply, n), "#%u was given another's reply", record->id);
        must(record->executed > 0 || record->verb == VERB_READY, "#%u is done, and was not run", record->id);
        must(record->verb != VERB_SUBSCRIBE && record->verb != VERB_FLY && record->verb != VERB_BAD,
             "#%u cannot be done", record->id);
        break;
    case IOK_REJECTED:
        must(record->code == 0 && n == 1 && is_error(reply, record->id), "#%u is rejected by another's error",
             record->id);
        must(record->told, "#%u is rejected, but no server said so", record->id);
        must(record->executed == 0, "#%u is rejected, and was run", record->id);
        break;
    case IOK_NEVER_SENT:
        must(record->code != 0, "#%u ended without a reason", record->id);
        must(record->executed == 0, "#%u is never sent, and was run", record->id);
        must(!record->late || record->code == IOK_ECLOSED || record->code == IOK_ECANCELLED,
             "#%u: wrong error of a stopped kernel", record->id);
        break;
    case IOK_MAYBE_EXECUTED:
        must(record->code != 0, "#%u ended without a reason", record->id);
        must(!record->late, "#%u: the kernel had stopped", record->id);
        break;
    default:
        violation("#%u has not ended", record->id);
    }
    must(record->code != IOK_ECANCELLED || record->cancelled || record->lease < LEASES_MAX, "#%u was not cancelled",
         record->id);
    must(!record->probe || record->outcome == IOK_DONE, "#%u should succeed, now that all is well", record->id);
}

void truth_ended(struct record *record)
{
    struct iok_error err = {.text = ""};
    const struct iok_token *reply;
    size_t n;

    must(!record->ended, "#%u ended twice", record->id);
    record->ended = true;
    record->outcome = iok_call_outcome(record->call);
    record->code = iok_call_error(record->call, &err);
    reply = iok_call_reply(record->call, &n);
    say("ended #%u %s%s%s", record->id, iok_outcome_name(record->outcome), record->code == 0 ? "" : ": ",
        record->code == 0 ? "" : err.text);
    check_times(record);
    check_end(record, reply, n);
}

/* ---- after every step ---- */

static uint32_t length(const struct iok_list *list)
{
    uint32_t n = 0;

    iok_list_each (list, node, after) {
        n++;
    }
    return n;
}

static uint32_t flights(const struct iok_conn *conn)
{
    uint32_t n = 0;

    for (uint64_t seq = conn->head_seq; seq != conn->next_seq; seq++) {
        n += conn->flights[seq & (conn->n_slots - 1)].call != NULL;
    }
    return n;
}

/* A server that says nothing is asked, and given up, and each timer may find that bytes have come since it was set: so
 * the times count twice. A lease may block on purpose. */
static void check_silence(const struct iok_conn *conn)
{
    const struct iok_service_config *config = &conn->service->config;
    uint64_t most = 2 * (config->ping + config->ping_timeout + 2 * SCENE_TICK);

    must(conn->state != IOK_CONN_READY || conn->for_leases || config->ping == 0 || conn->service->proto->ping == NULL ||
             iok_conn_is_single(conn) || scene.now - conn->arrived_at <= most,
         "a server is silent for %.6g ms, and not given up", (double)(scene.now - conn->arrived_at) / 1e6);
}

struct tally {
    uint32_t conns, for_leases, ready, leased, flights, shared_flights;
};

static struct tally count(const struct iok_service *service)
{
    struct tally t = {0};

    iok_list_each (&service->conns, node, after) {
        const struct iok_conn *conn = iok_container(node, struct iok_conn, node);
        uint32_t n = flights(conn);

        t.conns++;
        t.for_leases += conn->for_leases;
        t.ready += conn->state == IOK_CONN_READY || conn->state == IOK_CONN_LEASED;
        t.leased += conn->state == IOK_CONN_LEASED;
        t.flights += n;
        t.shared_flights += conn->for_leases ? 0 : n;
        check_silence(conn);
        must(conn->n_live <= conn->next_seq - conn->head_seq, "more answers are awaited than requests were sent");
        if (conn->stream != NULL) {
            must(iok_ring_room(&conn->stream->stream->ring) > 0 || conn->read_paused || conn->notice != NULL,
                 "a stream is full, and read on");
        }
        must(!conn->read_paused || conn->stream != NULL, "a connection is not read, and never will be");
    }
    return t;
}

static void check_bounds(const struct iok_service *service)
{
    const struct iok_service_config *config = &service->config;
    struct tally t = count(service);
    uint32_t queued = length(&service->queue), waiting = 0;

    iok_list_each (&service->lease_wait, node, after) {
        waiting += length(&iok_container(node, struct iok_lease, node)->queue);
    }
    must(service->n_pending == queued + waiting + t.flights, "%u calls wait, %u are in flight, and %u counted",
         queued + waiting, t.flights, service->n_pending);
    must(service->n_pending <= config->max_queued + config->max_inflight || config->overload_waits, "%u calls wait",
         service->n_pending);
    must(service->pending_bytes <= config->max_pending_bytes || config->overload_waits, "too many bytes wait");
    must(service->n_inflight == t.flights, "%u calls are in flight, and %u counted", t.flights, service->n_inflight);
    must(service->n_shared == t.conns - t.for_leases && service->n_leased == t.for_leases,
         "connections are counted wrongly");
    must(iok_count_get(&service->ready_conns) == t.ready && iok_count_get(&service->leased_conns) == t.leased,
         "ready or leased connections are counted wrongly");
    must(service->n_shared <= config->connections, "%u connections", service->n_shared);
    must(service->n_leased <= config->leases, "%u connections for leases", service->n_leased);
    must(t.shared_flights <= config->max_inflight, "%u calls in flight", t.shared_flights);
}

static void check_call(const struct record *record)
{
    const struct iok_call *call = record->call;

    if (call->state == IOK_CALL_ENDED || (call->app & (IOK_APP_PARKED | IOK_APP_ENDED)) != 0) {
        return;
    }
    must(call->state != IOK_CALL_NEW, "#%u was not taken", record->id);
    must(!record->cancelled, "#%u was cancelled, and goes on", record->id);
    if (call->state != IOK_CALL_STREAMING && record->deadline != 0) {
        must(scene.now <= record->deadline + SCENE_TICK, "#%u has missed its deadline", record->id);
    }
}

void truth_step(void)
{
    const struct iok_core *core = &scene.kernel->core;
    uint64_t calls = 0, over = 0, submitted = 0;

    for (uint32_t i = 0; i < scene.n_services; i++) {
        const struct iok_service *service = scene.services[i].handle;

        if (service->started && !service->closed) {
            check_bounds(service);
        }
        calls += iok_count_get(&service->calls);
        submitted += scene.services[i].submitted - scene.services[i].untaken;
        for (unsigned outcome = 0; outcome < 5; outcome++) {
            over += iok_count_get(&service->ended[outcome]);
        }
    }
    must(calls - over == iok_count_get(&core->inflight), "the calls do not add up");
    for (uint32_t i = 0; i < scene.n_live; i++) {
        submitted -= truth_untaken(scene.records[scene.live[i]].call);
    }
    must(calls == submitted, "%llu calls came to the kernel, and %llu were taken", (unsigned long long)submitted,
         (unsigned long long)calls);
    for (uint32_t i = 0; i < scene.n_live; i++) {
        check_call(&scene.records[scene.live[i]]);
    }
}

/* ---- at the end ---- */

static void check_figures(uint32_t which)
{
    const struct service *service = &scene.services[which];
    struct iok_service_stats stats;
    uint64_t ended = 0;

    iok_service_stats(service->handle, &stats);
    must(stats.calls == service->submitted - service->late - service->untaken, "service %u: its calls do not add up",
         which);
    must(stats.bytes_in == service->bytes_in && stats.bytes_out == service->bytes_out,
         "service %u: its bytes do not add up", which);
    for (unsigned outcome = 0; outcome < 5; outcome++) {
        must(service->ended[outcome] == stats.ended[outcome] ||
                 (service->ended[outcome] < stats.ended[outcome] && service->abandoned > 0),
             "service %u: its ends do not add up", which);
        ended += stats.ended[outcome];
    }
    must(ended == stats.calls && stats.ended[IOK_PENDING] == 0, "service %u: calls did not end", which);
    must(stats.connections == 0 && stats.leased == 0, "service %u: a connection is left", which);
    must(stats.disconnects <= stats.connects, "service %u: more connections lost than made", which);
}

void truth_final(void)
{
    const struct iok_core *core = &scene.kernel->core;

    must(scene.n_live == 0, "%u calls did not end", scene.n_live);
    for (uint32_t id = 1; id <= scene.n_records; id++) {
        const struct record *record = &scene.records[id];
        const struct record *exec = &scene.records[record->exec];

        must(record->ended || record->abandoned, "#%u did not end", id);
        if (record->exec != 0 && exec->ended) {
            must(exec->outcome == IOK_DONE || exec->outcome == IOK_MAYBE_EXECUTED, "#%u ran by #%u, which ended as %s",
                 id, exec->id, iok_outcome_name(exec->outcome));
            must(record->applied == 1, "#%u ran %u times in transactions", id, record->applied);
        }
    }
    for (uint32_t i = 0; i < scene.n_services; i++) {
        check_figures(i);
    }
    for (uint32_t i = 0; i < scene.n_links; i++) {
        must(scene.links[i].state == LINK_GONE, "link %u was not closed", i);
    }
    for (uint32_t i = 0; i < scene.n_queries; i++) {
        must(scene.queries[i].done == NULL, "look-up %u was not ended", i);
    }
    must(iok_list_empty(&core->services) && iok_list_empty(&core->ports) && iok_list_empty(&core->dead),
         "a service, port or connection is left");
    must(iok_core_deadline(core) == UINT64_MAX, "a timer is left");
    must(iok_count_get(&core->objects) == 0 && iok_count_get(&core->inflight) == 0, "objects are left");
    must(iok_count_get(&core->arguments.bytes) == 0 && iok_count_get(&core->replies.bytes) == 0 &&
             iok_count_get(&core->output.bytes) == 0,
         "bytes are left in buffers");
    must(scene.refs_made == scene.refs_released, "%u arguments were referenced, and %u released", scene.refs_made,
         scene.refs_released);
}
