/* server.c - the servers of the simulation: RESP 2 and 3 as far as the program needs them, and line; web.c has HTTP.
 *
 * What they are for is the truth: each request of a call names it (its key is k and the call's number), and a server
 * tells truth.c of each that it runs. Each answer names the call, too. They are not Redis: nothing is stored, and MULTI
 * and EXEC take a key like all others.
 *
 * They read strictly: a byte that does not belong there is a violation, as the kernel has written it. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scene.h"

#define ARGS_MAX 12u

struct request {
    struct iok_span args[ARGS_MAX];
    unsigned n;
    uint32_t id; /* of the call; 0: the kernel's own */
};

/* ---- answers ---- */

static void answer(struct iok_link *link, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void answer(struct iok_link *link, const char *format, ...)
{
    char text[256];
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    must(n > 0 && (size_t)n < sizeof(text), "an answer is too long");
    wire_write(link, text, (size_t)n, link->server->slow);
}

static void answer_bulk(struct iok_link *link, const char *prefix, uint32_t id, size_t size)
{
    static char text[8200];
    char value[16];
    int len = snprintf(value, sizeof(value), "%s%u", prefix, id);
    int head;

    size = size > (size_t)len ? size : (size_t)len;
    head = snprintf(text, sizeof(text), "$%zu\r\n%s", size, value);
    memset(text + head, '.', size - (size_t)len);
    memcpy(text + head + (int)size - len, "\r\n", 2);
    wire_write(link, text, (size_t)(head + (int)size - len) + 2, link->server->slow);
}

static const char *nil(const struct iok_link *link)
{
    return link->session.protocol == 3 ? "_\r\n" : "*-1\r\n";
}

/* ---- the commands ---- */

static bool is(const struct request *request, const char *name)
{
    return iok_span_eq(request->args[0], iok_span_of(name));
}

static void hello(struct iok_link *link)
{
    if (link->server->old) {
        answer(link, "-ERR unknown command 'HELLO'\r\n");
    } else if (link->server->refuses) {
        answer(link, "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
    } else {
        link->session.protocol = 3;
        answer(link, "%%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n");
    }
}

/* Requests of the kernel's own: sign-in, ping, reset. */
static bool run_own(struct iok_link *link, const struct request *request)
{
    struct session *session = &link->session;

    if (is(request, "HELLO")) {
        hello(link);
    } else if (is(request, "PING")) {
        must(!session->multi, "a ping within MULTI");
        answer(link, link->server->refuses ? "-NOAUTH Authentication required.\r\n" : "+PONG\r\n");
    } else if (is(request, "AUTH")) {
        answer(link, link->server->refuses ? "-WRONGPASS invalid password\r\n" : "+OK\r\n");
    } else if (is(request, "CLIENT") || is(request, "SELECT")) {
        answer(link, "+OK\r\n");
    } else if (is(request, "RESET")) {
        session->multi = session->aborted = session->watched = false;
        session->channel = session->n_queued = 0;
        session->protocol = 2;
        answer(link, "+RESET\r\n");
    } else {
        return false;
    }
    return true;
}

static void exec(struct iok_link *link, uint32_t id)
{
    struct session *session = &link->session;
    bool lost = session->watched && dice_chance(&scene.wire, 200); /* somebody changed the key */

    if (!session->multi) { /* it was refused */
        truth_executed(id);
        answer(link, "-ERR EXEC without MULTI k%u\r\n", id);
        return;
    }
    session->multi = session->watched = false;
    if (session->aborted) {
        session->aborted = false;
        answer(link, "-EXECABORT Transaction discarded k%u\r\n", id);
        scene.records[id].told = true;
        return;
    }
    truth_executed(id);
    if (lost) {
        answer(link, "%s", nil(link));
        return;
    }
    answer(link, "*%u\r\n:%u\r\n", 1 + session->n_queued, id);
    for (uint32_t i = 0; i < session->n_queued; i++) {
        struct record *record = &scene.records[session->queued[i]];

        record->applied++;
        record->exec = id;
        answer(link, ":%u\r\n", session->queued[i]);
    }
}

/* The ends of a transaction, and what begins one. */
static bool run_transaction(struct iok_link *link, const struct request *request)
{
    struct session *session = &link->session;

    if (is(request, "WATCH")) {
        session->watched = true;
        truth_executed(request->id);
        answer(link, "+s%u\r\n", request->id);
    } else if (is(request, "MULTI")) {
        session->multi = true;
        session->n_queued = 0;
        truth_executed(request->id);
        answer(link, "+s%u\r\n", request->id);
    } else if (is(request, "DISCARD")) {
        session->multi = session->aborted = session->watched = false;
        truth_executed(request->id);
        answer(link, "+s%u\r\n", request->id);
    } else if (is(request, "EXEC")) {
        exec(link, request->id);
    } else {
        return false;
    }
    return true;
}

static void subscribe(struct iok_link *link, uint32_t id)
{
    struct session *session = &link->session;

    truth_executed(id);
    session->channel = id;
    session->published = 0;
    session->to_publish = dice_chance(&scene.wire, 300) ? (uint32_t)dice_spread(&scene.wire, 200, 2600)
                                                        : (uint32_t)dice_below(&scene.wire, 60);
    answer(link, "%c3\r\n$9\r\nsubscribe\r\n$%d\r\nk%u\r\n:1\r\n", session->protocol == 3 ? '>' : '*',
           snprintf(NULL, 0, "k%u", id), id);
    scene_at(scene.now + dice_spread(&scene.wire, SCENE_MS, SCENE_S), EVENT_SERVER, link->id, 0);
}

static void block(struct iok_link *link, const struct request *request)
{
    struct session *session = &link->session;
    double seconds = strtod((const char *)request->args[2].p, NULL);

    truth_executed(request->id);
    session->blocked = request->id;
    session->blocked_until = scene.now + (uint64_t)(seconds * 1e9);
    session->pops = seconds == 0 || dice_chance(&scene.wire, 500);
    if (session->pops) {
        session->blocked_until =
            scene.now + dice_spread(&scene.wire, SCENE_MS, seconds == 0 ? 20 * SCENE_S : (uint64_t)(seconds * 1e9));
    }
    scene_at(session->blocked_until, EVENT_SERVER, link->id, 0);
}

/* One that the server does not run, and says so. */
static bool refuse(struct iok_link *link, const struct request *request)
{
    const struct server *server = link->server;
    bool writes = !is(request, "GET") && !is(request, "SUBSCRIBE") && !is(request, "WATCH") && !is(request, "MULTI") &&
                  !is(request, "EXEC") && !is(request, "DISCARD") && !is(request, "EVAL");
    const char *why = NULL;

    if (is(request, "FLY")) {
        why = "ERR unknown command 'FLY', with args beginning with:";
    } else if (server->loading && !is(request, "DISCARD")) {
        why = "LOADING Redis is loading the dataset in memory";
    } else if (server->readonly && writes) {
        why = "READONLY You can't write against a read only replica.";
    }
    if (why == NULL) {
        return false;
    }
    link->session.aborted |= link->session.multi;
    scene.records[request->id].told = true;
    say("server %u: #%u refused", (unsigned)(server - scene.servers), request->id);
    answer(link, "-%s k%u\r\n", why, request->id);
    if (is(request, "EXEC")) {
        link->session.multi = link->session.aborted = link->session.watched = false;
    }
    return true;
}

static void run_plain(struct iok_link *link, const struct request *request)
{
    uint32_t id = request->id;

    truth_executed(id);
    if (is(request, "GET")) {
        bool large = !scene.well && dice_chance(&scene.wire, 40); /* a larger one than max_reply ends the connection */

        answer_bulk(link, "v", id, large ? dice_spread(&scene.wire, 200, 8000) : 0);
    } else if (is(request, "INCR")) {
        answer(link, ":%u\r\n", id);
    } else if (is(request, "SET")) {
        answer(link, "+s%u\r\n", id);
    } else if (dice_chance(&scene.wire, 300)) { /* EVAL: a command within it was refused, after others */
        answer(link, "-READONLY script k%u\r\n", id);
    } else {
        answer_bulk(link, "v", id, 0);
    }
}

static void run(struct iok_link *link, const struct request *request)
{
    struct session *session = &link->session;

    if (request->id == 0) {
        must(run_own(link, request), "server got a request that nobody made: %.*s", (int)request->args[0].n,
             request->args[0].p);
        return;
    }
    truth_arrived(link, request->id);
    if (refuse(link, request) || run_transaction(link, request)) {
        return;
    }
    if (session->multi) {
        must(session->n_queued < QUEUED_MAX, "too many requests in MULTI");
        session->queued[session->n_queued++] = request->id;
        truth_executed(request->id);
        answer(link, "+QUEUED k%u\r\n", request->id);
    } else if (is(request, "SUBSCRIBE")) {
        subscribe(link, request->id);
    } else if (is(request, "BLPOP")) {
        block(link, request);
    } else {
        run_plain(link, request);
    }
}

/* ---- requests ---- */

/* The value of a SET is "value", or that of a call with a large argument. */
static void check_value(const struct request *request)
{
    struct iok_span value = request->args[2];
    uint8_t filler = truth_filler(request->id);

    if (scene.records[request->id].verb == VERB_PUT) {
        must(value.n >= 10 && value.p[0] == filler && memcmp(value.p, value.p + 1, value.n - 1) == 0,
             "server got #%u with another value than was given", request->id);
    } else {
        must(iok_span_eq(value, iok_span_of("value")), "server got #%u with a strange value", request->id);
    }
}

static bool take_number(struct iok_span *in, uint8_t mark, uint32_t *value)
{
    size_t i = 1;

    if (in->n == 0) {
        return false;
    }
    must(in->p[0] == mark, "server got byte 0x%02x where '%c' belongs", in->p[0], mark);
    *value = 0;
    while (i < in->n && in->p[i] >= '0' && in->p[i] <= '9') {
        *value = *value * 10 + (in->p[i++] - '0');
    }
    if (i + 1 >= in->n) {
        return false;
    }
    must(in->p[i] == '\r' && in->p[i + 1] == '\n', "server got a broken line");
    *in = iok_span_skip(*in, i + 2);
    return true;
}

uint32_t server_call_of(struct iok_span key)
{
    uint32_t id = 0;

    if (key.n < 2 || key.p[0] != 'k') {
        return 0;
    }
    for (size_t i = 1; i < key.n; i++) {
        must(key.p[i] >= '0' && key.p[i] <= '9', "server got a strange key");
        id = id * 10 + (key.p[i] - '0');
    }
    must(id > 0 && id <= scene.n_records, "server got a key that nobody sent");
    return id;
}

/* A whole request: its size; 0 when more is to come. */
static size_t parse(struct iok_span in, struct request *request)
{
    struct iok_span rest = in;

    *request = (struct request){.n = 0};
    if (!take_number(&rest, '*', &request->n)) {
        return 0;
    }
    must(request->n > 0 && request->n <= ARGS_MAX, "server got a request of %u arguments", request->n);
    for (unsigned i = 0; i < request->n; i++) {
        uint32_t len;

        if (!take_number(&rest, '$', &len) || rest.n < (size_t)len + 2) {
            return 0;
        }
        must(rest.p[len] == '\r' && rest.p[len + 1] == '\n', "server got an argument without its end");
        request->args[i] = iok_span(rest.p, len);
        rest = iok_span_skip(rest, (size_t)len + 2);
    }
    if (request->n > 1) {
        request->id = server_call_of(request->args[is(request, "EVAL") ? 3 : 1]);
    }
    if (request->id != 0 && is(request, "SET")) {
        check_value(request);
    }
    return in.n - rest.n;
}

static size_t read_line(struct iok_link *link, struct iok_span in)
{
    const uint8_t *end = in.n == 0 ? NULL : memchr(in.p, '\n', in.n);
    uint32_t id;

    if (end == NULL) {
        return 0;
    }
    if (end == in.p) { /* a ping */
        answer(link, "\n");
        return 1;
    }
    id = server_call_of(iok_span(in.p, (size_t)(end - in.p)));
    must(id != 0, "server got a line that nobody sent");
    truth_arrived(link, id);
    truth_executed(id);
    answer(link, "v%u\n", id);
    return (size_t)(end - in.p) + 1;
}

void server_read(struct iok_link *link)
{
    struct pipe *up = &link->up;

    while (link->serving && !link->server->silent && link->session.blocked == 0) {
        struct iok_span in = iok_span(up->p + up->taken, up->arrived - up->taken);
        struct request request;
        size_t used;

        if (link->server->speaks == SPEAKS_LINE) {
            used = read_line(link, in);
        } else if (link->server->speaks == SPEAKS_HTTP) {
            used = web_read(link, in);
        } else {
            used = parse(in, &request);
            if (used > 0) {
                run(link, &request);
            }
        }
        if (used == 0) {
            return;
        }
        up->taken += used;
    }
}

void server_accept(struct iok_link *link)
{
    link->session = (struct session){.protocol = 2};
    if (link->server->full && link->server->speaks == SPEAKS_REDIS) {
        answer(link, "-ERR max number of clients reached\r\n");
        wire_end(link);
    }
}

static void publish(struct iok_link *link)
{
    struct session *session = &link->session;
    uint32_t n = session->to_publish > 60 ? 200 : 1 + (uint32_t)dice_below(&scene.wire, 4);
    char key[16], text[16];
    int key_len = snprintf(key, sizeof(key), "k%u", session->channel);

    while (n-- > 0 && session->to_publish > 0) {
        int len = snprintf(text, sizeof(text), "%u", ++session->published);

        session->to_publish--;
        answer(link, "%c3\r\n$7\r\nmessage\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", session->protocol == 3 ? '>' : '*', key_len,
               key, len, text);
    }
    if (session->to_publish > 0) {
        uint64_t most = session->to_publish > 60 ? 2 * SCENE_MS : SCENE_S;

        scene_at(scene.now + dice_spread(&scene.wire, 100000, most), EVENT_SERVER, link->id, 0);
    }
}

void server_time(struct iok_link *link)
{
    struct session *session = &link->session;

    if (!link->serving) {
        return;
    }
    if (link->server->silent) {
        scene_at(scene.now + 100 * SCENE_MS, EVENT_SERVER, link->id, 0);
        return;
    }
    if (link->server->speaks == SPEAKS_HTTP) {
        web_time(link);
    } else if (session->blocked != 0 && scene.now >= session->blocked_until) {
        uint32_t id = session->blocked;

        session->blocked = 0;
        if (session->pops) {
            answer(link, "*2\r\n$%d\r\nk%u\r\n$1\r\nx\r\n", snprintf(NULL, 0, "k%u", id), id);
        } else {
            answer(link, "%s", nil(link));
        }
        server_read(link);
    } else if (session->channel != 0 && session->to_publish > 0) {
        publish(link);
    }
}

/* ---- fate ---- */

static void restart(struct server *server)
{
    bool silently = dice_chance(&scene.wire, 300);

    say("server %u: restarts%s", (unsigned)(server - scene.servers), silently ? " without a word" : "");
    for (uint32_t i = 0; i < scene.n_links; i++) {
        struct iok_link *link = &scene.links[i];

        if (link->server == server && link->serving) {
            if (silently) {
                wire_vanish(link);
            } else {
                wire_reset(link);
            }
        }
    }
    server->up = !server->up || dice_chance(&scene.wire, 500);
    server->loading = dice_chance(&scene.wire, 300);
    server->silent = false;
}

static void resume(struct server *server)
{
    server->silent = false;
    for (uint32_t i = 0; i < scene.n_links; i++) {
        if (scene.links[i].server == server) {
            server_read(&scene.links[i]);
        }
    }
}

static void garbage(struct iok_link *link)
{
    if (link->server->speaks != SPEAKS_LINE &&
        !link->session.last) { /* there it would be an answer, or a part of one */
        say("link %u: the server sends nonsense", link->id);
        answer(link, "\x15\x03\x03%u", 1u);
    }
}

static void link_fate(struct iok_link *link)
{
    switch (dice_below(&scene.wire, 4)) {
    case 0:
        wire_end(link);
        break;
    case 1:
        wire_vanish(link);
        break;
    case 2:
        if (dice_chance(&scene.wire, 200)) {
            garbage(link);
        }
        break;
    default:
        wire_reset(link);
    }
}

static void mend(struct server *server)
{
    server->up = true;
    server->hangs = server->loading = server->readonly = server->refuses = server->full = false;
    server->slow = 0;
    resume(server);
}

static void server_changes(struct server *server)
{
    if (dice_chance(&scene.wire, 300)) {
        mend(server);
        return;
    }
    switch (dice_below(&scene.wire, 8)) {
    case 0:
        restart(server);
        break;
    case 1:
        server->hangs = !server->hangs;
        break;
    case 2:
        server->loading = !server->loading;
        break;
    case 3:
        server->readonly = !server->readonly;
        break;
    case 4:
        server->refuses = !server->refuses;
        break;
    case 5:
        server->full = !server->full;
        break;
    case 6:
        server->slow = dice_spread(&scene.wire, 1000, 500 * SCENE_MS);
        break;
    default:
        if (server->silent) {
            resume(server);
        } else {
            server->silent = true;
        }
    }
    say("server %u:%s%s%s%s%s%s%s slow %.3g ms", (unsigned)(server - scene.servers), server->up ? "" : " down",
        server->hangs ? " hangs" : "", server->silent ? " silent" : "", server->loading ? " loading" : "",
        server->readonly ? " readonly" : "", server->refuses ? " refuses" : "", server->full ? " full" : "",
        (double)server->slow / 1e6);
}

void server_fate(void)
{
    uint64_t which = dice_below(&scene.wire, 10);
    struct iok_link *link = wire_any();

    if (which < 3 && link != NULL) {
        link_fate(link);
    } else if (which < 5) {
        struct name *name = &scene.names[dice_below(&scene.wire, NAMES)];

        name->servers = 1 + (unsigned)dice_below(&scene.wire, 15);
        name->fails = dice_chance(&scene.wire, 300);
        name->hangs = dice_chance(&scene.wire, 100);
        say("name%u: servers 0x%x%s%s", (unsigned)(name - scene.names), name->servers, name->fails ? ", fails" : "",
            name->hangs ? ", hangs" : "");
    } else {
        server_changes(&scene.servers[dice_below(&scene.wire, SERVERS)]);
    }
}

void server_init(void)
{
    static const uint16_t ports[] = {[SPEAKS_REDIS] = 6379, [SPEAKS_LINE] = 7000, [SPEAKS_HTTP] = 80};
    char ip[16];

    for (unsigned i = 0; i < SERVERS; i++) {
        struct server *server = &scene.servers[i];

        *server = (struct server){.up = true,
                                  .speaks = i < REDIS_SERVERS    ? SPEAKS_REDIS
                                            : i == REDIS_SERVERS ? SPEAKS_LINE
                                                                 : SPEAKS_HTTP,
                                  .old = dice_chance(&scene.wire, 150)};
        (void)snprintf(ip, sizeof(ip), "10.0.0.%u", i + 1);
        must(iok_address_literal(ip, ports[server->speaks], &server->address), "no address");
        if (dice_chance(&scene.wire, 300)) {
            server->slow = dice_spread(&scene.wire, 1000, 20 * SCENE_MS);
        }
    }
}

void server_calm(void)
{
    for (unsigned i = 0; i < SERVERS; i++) {
        mend(&scene.servers[i]);
    }
    for (unsigned i = 0; i < NAMES; i++) {
        scene.names[i].fails = scene.names[i].hangs = false;
    }
}
