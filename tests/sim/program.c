/* program.c - the program of the simulation: makes calls of all kinds, cancels, holds leases, subscribes, is lazy.
 *
 * It uses the public functions only, but where a thread of the kernel's own would be waited for: a port is detached in
 * two steps. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scene.h"

#define PUT_BYTES_MAX 20000u
#define PROBE_MS 30000

static const char *const names[VERBS] = {"READY",   "GET",       "INCR",  "SET",   "PUT",   "EVAL",
                                         "FLY",     "BAD",       "BLPOP", "WATCH", "MULTI", "EXEC",
                                         "DISCARD", "SUBSCRIBE", "LINE",  "FETCH", "HEAD",  "POST"};

const char *verb_name(enum verb verb)
{
    return names[verb];
}

static uint64_t any(uint64_t n)
{
    return dice_below(&scene.plot, n);
}

static bool chance(unsigned permille)
{
    return dice_chance(&scene.plot, permille);
}

/* ---- services ---- */

static void add(struct service *service, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* An option more of the URL. */
static void add(struct service *service, const char *format, ...)
{
    size_t n = strlen(service->url);
    va_list args;

    service->url[n] = strchr(service->url, '?') == NULL ? '?' : '&';
    va_start(args, format);
    (void)vsnprintf(service->url + n + 1, sizeof(service->url) - n - 1, format, args);
    va_end(args);
}

static void add_options(struct service *service)
{
    struct dice *dice = &scene.plot;

    if (chance(400)) {
        add(service, "connections=%u", 1 + (unsigned)any(3));
    }
    if (chance(400)) {
        add(service, "max_inflight=%u", (unsigned)dice_spread(dice, 1, 64));
    }
    if (chance(300)) {
        add(service, "max_queued=%u", (unsigned)any(40));
    }
    if (chance(300)) {
        add(service, "max_pending_bytes=64k");
    }
    if (chance(300)) {
        add(service, "overload=wait");
    }
    if (chance(400)) {
        add(service, "max_stream_bytes=%uk", (unsigned)dice_spread(dice, 64, 1000));
    }
    if (chance(400)) {
        add(service, "slow_consumer=drop");
    }
    if (chance(500)) {
        add(service, "retries=%u", (unsigned)any(5));
    }
    if (chance(700)) {
        add(service, "timeout=%ums", (unsigned)dice_spread(dice, chance(200) ? 5 : 100, 5000));
    }
    if (chance(700)) {
        add(service, "connect_timeout=%ums", (unsigned)dice_spread(dice, 20, 3000));
    }
    if (chance(700)) {
        add(service, "ping=%ums", chance(200) ? 0 : (unsigned)dice_spread(dice, 20, 5000));
    }
    if (chance(700)) {
        add(service, "ping_timeout=%ums", (unsigned)dice_spread(dice, 20, 2000));
    }
    if (chance(500)) {
        add(service, "leases=%u", chance(100) ? 0 : 1 + (unsigned)any(4));
    }
    if (chance(500)) {
        add(service, "lease_idle=%ums", (unsigned)dice_spread(dice, 10, 5000));
    }
    if (chance(150)) {
        add(service, "max_reply=%u", 1024 + (unsigned)any(4000));
    }
    if (service->speaks == SPEAKS_REDIS && chance(300)) {
        add(service, "protocol=%u", 2 + (unsigned)any(2));
    }
}

static void open_service(void)
{
    struct service *service = &scene.services[scene.n_services];
    struct port *port = &scene.ports[scene.n_ports - 1];
    struct iok_error err = {.text = ""};
    char host[24];

    *service = (struct service){.speaks = chance(150) ? SPEAKS_LINE : chance(200) ? SPEAKS_HTTP : SPEAKS_REDIS};
    service->named = service->speaks == SPEAKS_REDIS && chance(400);
    if (service->speaks != SPEAKS_REDIS) {
        (void)snprintf(service->url, sizeof(service->url), "%s://10.0.0.%u%s",
                       service->speaks == SPEAKS_LINE ? "line" : "http", REDIS_SERVERS + (unsigned)service->speaks,
                       service->speaks == SPEAKS_LINE ? ":7000" : "");
    } else {
        (void)snprintf(host, sizeof(host), service->named ? "name%u" : "10.0.0.%u",
                       service->named ? (unsigned)any(NAMES) : 1 + (unsigned)any(REDIS_SERVERS));
        (void)snprintf(service->url, sizeof(service->url), "redis://%s%s", chance(200) ? "user:secret@" : "", host);
    }
    add_options(service);
    service->handle = iok_service_new(port->handle, service->url, &err);
    must(service->handle != NULL, "%s: %s", service->url, err.text);
    say("service %u: opened: %s", scene.n_services, service->url);
    scene.n_services++;
}

static void close_service(unsigned which)
{
    struct service *service = &scene.services[which];

    if (!service->closed) {
        say("service %u: closed", which);
        service->closed = true;
        iok_service_close(service->handle, scene.ports[scene.n_ports - 1].handle);
    }
}

/* ---- ports ---- */

static void open_port(void)
{
    struct port *port = &scene.ports[scene.n_ports];
    struct iok_error err = {.text = ""};

    *port = (struct port){.laziness = chance(500) ? 0 : (unsigned)any(950)};
    port->handle = iok_port_new(scene.kernel, &err);
    must(port->handle != NULL, "no port: %s", err.text);
    say("port %u: made", scene.n_ports);
    scene.n_ports++;
}

/* One that is in use. */
static unsigned any_port(void)
{
    unsigned which = (unsigned)any(scene.n_ports);

    while (scene.ports[which].handle == NULL || scene.ports[which].retiring) {
        which = (which + 1) % scene.n_ports;
    }
    return which;
}

static void detach(unsigned which)
{
    struct port *port = &scene.ports[which];

    if (!iok_port_is_detached(&port->handle->link)) { /* as iok_port_free does, but it waits for the kernel's thread */
        must(iok_ring_push(&port->handle->link.sq, iok_entry(port->handle, IOK_SQ_DETACH)), "a port is full");
        scene_rest();
        must(iok_port_is_detached(&port->handle->link), "the kernel keeps a port");
    }
    say("port %u: freed", which);
    iok_port_free(port->handle);
    port->handle = NULL;
}

/* ---- calls ---- */

static void unlist(const struct record *record)
{
    for (uint32_t i = 0; i < scene.n_live; i++) {
        if (scene.live[i] == record->id) {
            scene.live[i] = scene.live[--scene.n_live];
            return;
        }
    }
}

static void put_text(struct iok_call *call, const char *text)
{
    iok_call_text(call, text, strlen(text));
}

/* A large argument, by reference; each call's has a content of its own. */
struct blob {
    size_t n;
    uint8_t bytes[];
};

static void released(void *arg)
{
    struct blob *blob = arg;

    memset(blob->bytes, 0xdd, blob->n); /* whoever still sends it is found out */
    free(blob);
    scene.refs_released++;
}

static void put_blob(struct record *record)
{
    size_t n = dice_spread(&scene.plot, 10, PUT_BYTES_MAX);
    struct blob *blob = malloc(sizeof(*blob) + n);

    must(blob != NULL, "out of memory");
    blob->n = n;
    memset(blob->bytes, truth_filler(record->id), n);
    scene.refs_made++;
    iok_call_ref(record->call, blob->bytes, n, released, blob);
}

static void put_http(struct record *record)
{
    char target[16];

    (void)snprintf(target, sizeof(target), "/k%u", record->id);
    put_text(record->call, record->verb == VERB_HEAD ? "HEAD" : record->verb == VERB_POST ? "POST" : "GET");
    put_text(record->call, target);
    if (record->verb == VERB_POST) {
        put_blob(record);
    } else if (record->verb == VERB_BAD) {
        iok_call_array(record->call, 0);
    }
}

/* The arguments. Returns how long the server may block, in ms; -1: for ever. */
static int64_t put_arguments(struct record *record)
{
    static const char *const seconds[] = {"0", "0.05", "0.5"};
    static const int64_t blocks[] = {-1, 50, 500};
    struct iok_call *call = record->call;
    char key[16];
    unsigned which;

    (void)snprintf(key, sizeof(key), "k%u", record->id);
    if (record->verb == VERB_READY) {
        iok_call_ready(call);
        return 0;
    }
    if (record->verb == VERB_LINE) {
        put_text(call, key);
        return 0;
    }
    if (record->verb >= VERB_FETCH || scene.services[record->service].speaks == SPEAKS_HTTP) {
        put_http(record);
        return 0;
    }
    put_text(call, record->verb == VERB_PUT ? "SET" : record->verb == VERB_BAD ? "GET" : names[record->verb]);
    if (record->verb == VERB_EVAL) {
        put_text(call, "script");
        put_text(call, "1");
    }
    put_text(call, key);
    if (record->verb == VERB_SET) {
        put_text(call, "value");
    } else if (record->verb == VERB_PUT) {
        put_blob(record);
    } else if (record->verb == VERB_BAD) {
        iok_call_array(call, 0);
    } else if (record->verb == VERB_BLPOP) {
        which = (unsigned)any(3);
        put_text(call, seconds[which]);
        return blocks[which];
    }
    return 0;
}

static void set_deadline(struct record *record, int64_t block_ms)
{
    uint64_t ns = iok_call_service(record->call)->config.timeout;
    int64_t timeout_ms = chance(600) ? 0 : chance(400) ? -1 : (int64_t)dice_spread(&scene.plot, 1, 4000);

    timeout_ms = record->probe ? PROBE_MS : timeout_ms;
    iok_call_timeout(record->call, timeout_ms);
    if (timeout_ms > 0) {
        ns = (uint64_t)timeout_ms * SCENE_MS;
    } else {
        ns += (uint64_t)block_ms * SCENE_MS;
    }
    record->deadline = timeout_ms < 0 || (timeout_ms == 0 && block_ms < 0) ? 0 : scene.now + ns;
}

/* A call, or NULL when the port has no room, or the scene is long enough. */
static struct record *submit(enum verb verb, unsigned port, unsigned which, unsigned lease)
{
    struct service *service = &scene.services[which];
    struct record *record = &scene.records[scene.n_records + 1];
    struct iok_error err = {.text = ""};
    struct iok_call *call;
    int rc;

    if (scene.n_records == CALLS_MAX) {
        return NULL;
    }
    call = iok_call_new(scene.ports[port].handle, service->handle, &err);
    must(call != NULL, "no call: %s", err.text);
    *record = (struct record){.call = call,
                              .verb = verb,
                              .id = ++scene.n_records,
                              .service = (uint8_t)which,
                              .port = (uint8_t)port,
                              .lease = (uint8_t)lease,
                              .late = scene.kernel->core.stopping,
                              .probe = scene.well && !scene.kernel->core.stopping,
                              .submitted = scene.now};
    record->repeatable =
        verb == VERB_GET || verb == VERB_SET || verb == VERB_LINE || verb == VERB_FETCH || verb == VERB_HEAD;
    iok_call_repeatable(call, verb == VERB_SET);
    iok_call_set_user(call, record);
    set_deadline(record, put_arguments(record));
    if (lease < LEASES_MAX) {
        iok_call_lease(call, scene.leases[lease].handle);
    }
    say("call #%u %s k%u service %u port %u%s%s, deadline %.6g ms", record->id, names[verb], record->id, which, port,
        record->repeatable ? " repeatable" : "", lease < LEASES_MAX ? " on a lease" : "",
        record->deadline == 0 ? -1.0 : (double)(record->deadline - scene.now) / 1e6);
    rc = iok_submit(call);
    if (rc != 0) {
        must(rc == IOK_EOVERLOAD || rc == IOK_ELIMIT, "call #%u cannot be submitted", record->id);
        say("call #%u: no room on its port", record->id);
        iok_call_free(call);
        scene.n_records--;
        return NULL;
    }
    scene.live[scene.n_live++] = record->id;
    service->submitted++;
    service->late += record->late;
    return record;
}

static enum verb any_verb(const struct service *service)
{
    static const struct {
        enum verb verb;
        unsigned permille;
    } shares[] = {{VERB_GET, 470},  {VERB_INCR, 250}, {VERB_SET, 80},   {VERB_PUT, 30}, {VERB_EVAL, 40},
                  {VERB_BLPOP, 40}, {VERB_FLY, 30},   {VERB_READY, 30}, {VERB_BAD, 20}, {VERB_WATCH, 10}};
    unsigned at = (unsigned)any(1000);

    if (service->speaks == SPEAKS_LINE) {
        return at < 40 ? VERB_READY : at < 60 ? VERB_BAD : VERB_LINE;
    }
    if (service->speaks == SPEAKS_HTTP) {
        return at < 30 ? VERB_READY : at < 50 ? VERB_BAD : at < 150 ? VERB_HEAD : at < 500 ? VERB_POST : VERB_FETCH;
    }
    for (unsigned i = 0;; i++) {
        if (at < shares[i].permille) {
            return shares[i].verb;
        }
        at -= shares[i].permille;
    }
}

/* Mostly one that is open. */
static unsigned any_service(void)
{
    unsigned which = (unsigned)any(scene.n_services);

    for (unsigned tries = 0; scene.services[which].closed && tries < 6; tries++) {
        which = (unsigned)any(scene.n_services);
    }
    return which;
}

static void burst(uint64_t n)
{
    unsigned service = any_service(), port = any_port();

    while (n-- > 0 && scene.n_records < scene.calls_max) {
        (void)submit(any_verb(&scene.services[service]), port, service, LEASES_MAX);
    }
}

static void cancel(struct record *record, bool abandon)
{
    struct iok_call *call = record->call;

    say("call #%u: %s", record->id, abandon ? "abandoned" : "cancelled");
    record->cancelled = true;
    if (abandon) {
        record->abandoned = true;
        record->call = NULL;
        scene.services[record->service].abandoned++;
        scene.services[record->service].untaken += !record->late && (record->left || truth_untaken(call));
        unlist(record);
        iok_abandon(call);
    } else {
        iok_cancel(call);
    }
}

static void cancel_some(void)
{
    for (uint64_t n = dice_spread(&scene.plot, 1, 8); n > 0 && scene.n_live > 0; n--) {
        cancel(&scene.records[scene.live[any(scene.n_live)]], chance(300));
    }
}

/* ---- leases ---- */

static void release(unsigned which)
{
    struct lease *lease = &scene.leases[which];

    say("lease %u: given back", which);
    lease->released = true;
    iok_lease_free(lease->handle);
    lease->handle = NULL;
}

static void lease_step(unsigned which)
{
    struct lease *lease = &scene.leases[which];
    enum verb verb = chance(500) ? VERB_GET : VERB_INCR;

    if (!lease->streams && lease->multi == 0 && chance(500)) {
        verb = chance(300) ? VERB_WATCH : VERB_MULTI;
    } else if (lease->multi > 0 && (lease->multi == QUEUED_MAX || chance(300))) {
        verb = chance(800) ? VERB_EXEC : VERB_DISCARD;
    }
    lease->multi = verb == VERB_MULTI                          ? 1
                   : verb == VERB_EXEC || verb == VERB_DISCARD ? 0
                                                               : lease->multi + (lease->multi > 0);
    (void)submit(verb, lease->port, lease->service, which);
}

/* Most of what is done with a lease comes at once. */
static void new_lease(bool streams)
{
    unsigned which = scene.n_leases, port = any_port(), service = any_service();
    struct lease *lease = &scene.leases[which];
    struct iok_error err;

    if (which == LEASES_MAX || scene.services[service].speaks != SPEAKS_REDIS || scene.n_records >= scene.calls_max) {
        return;
    }
    *lease = (struct lease){.service = (uint8_t)service, .port = (uint8_t)port, .streams = streams};
    lease->handle = iok_lease_new(scene.ports[port].handle, scene.services[service].handle, &err);
    if (lease->handle == NULL) {
        must(err.code == IOK_EOVERLOAD, "no lease: %s", err.text);
        return;
    }
    scene.n_leases++;
    say("lease %u: made, service %u port %u", which, service, port);
    if (streams) {
        (void)submit(VERB_SUBSCRIBE, port, service, which);
        return;
    }
    for (uint64_t n = any(8); n > 0; n--) {
        lease_step(which);
    }
}

static void use_lease(void)
{
    unsigned which = scene.n_leases == 0 ? 0 : (unsigned)any(scene.n_leases);

    if (scene.n_leases == 0 || scene.leases[which].handle == NULL) {
        new_lease(false);
    } else if (chance(400)) {
        release(which);
    } else if (scene.n_records < scene.calls_max) {
        for (uint64_t n = 1 + any(4); n > 0; n--) {
            lease_step(which);
        }
    }
}

static void retire_port(void)
{
    unsigned which = any_port();

    if (scene.n_ports == PORTS_MAX) {
        return;
    }
    open_port();
    say("port %u: retires", which);
    scene.ports[which].retiring = true;
    for (uint32_t i = scene.n_live; i-- > 0;) {
        struct record *record = &scene.records[scene.live[i]];

        if (record->port == which) {
            cancel(record, true);
        }
    }
    for (unsigned i = 0; i < scene.n_leases; i++) {
        if (scene.leases[i].handle != NULL && scene.leases[i].port == which) {
            release(i);
        }
    }
}

/* ---- what the program does in time ---- */

void program_act(void)
{
    uint64_t what = any(100);

    if (what < 45) {
        burst(dice_spread(&scene.plot, 1, 32));
    } else if (what < 57) {
        cancel_some();
    } else if (what < 67) {
        new_lease(false);
    } else if (what < 80) {
        use_lease();
    } else if (what < 87) {
        new_lease(true);
    } else if (what < 90) {
        if (scene.n_services < SERVICES_MAX) {
            close_service((unsigned)any(scene.n_services));
            open_service();
        }
    } else if (what < 92) {
        retire_port();
    } /* else it does something else */
    program_poll(false);
    if (--scene.acts_left > 0) {
        scene_at(scene.now + dice_spread(&scene.plot, 1000, scene.pace), EVENT_PROGRAM, 0, 0);
    }
}

static void pick_up_messages(struct record *record, uint64_t n)
{
    const struct iok_token *tokens;
    uint32_t before = record->messages;
    size_t n_tokens;

    while (n-- > 0 && (tokens = iok_call_message(record->call, &n_tokens)) != NULL) {
        truth_message(record, tokens, n_tokens);
        iok_call_next(record->call);
    }
    if (record->messages != before) {
        say("call #%u: picked up messages %u to %u", record->id, before + 1, record->messages);
    }
}

static void ended(struct record *record)
{
    struct iok_call *call = record->call;

    if (record->verb == VERB_SUBSCRIBE) {
        pick_up_messages(record, UINT64_MAX);
    }
    truth_ended(record);
    if (call->stamps.taken != 0) {
        scene.services[record->service].ended[record->outcome]++;
    } else {
        scene.services[record->service].untaken += !record->late;
    }
    record->call = NULL;
    unlist(record);
    iok_call_free(call);
}

static void poll_port(unsigned which, bool all)
{
    struct port *port = &scene.ports[which];
    struct iok_call *call;

    while ((call = iok_poll(port->handle)) != NULL) {
        struct record *record = iok_call_user(call);

        must(record->call == call, "call #%u comes again", record->id);
        if (iok_call_outcome(call) != IOK_PENDING) {
            ended(record);
        }
    }
    for (uint32_t i = 0; i < scene.n_live; i++) {
        struct record *record = &scene.records[scene.live[i]];

        if (record->port == which && record->verb == VERB_SUBSCRIBE) {
            pick_up_messages(record, all ? UINT64_MAX : dice_spread(&scene.plot, 1, record->id % 2 == 0 ? 30 : 1500));
        }
    }
    if (port->retiring && iok_port_calls(port->handle) == 0 && port->handle->n_leases == 0) {
        detach(which);
    }
}

void program_poll(bool all)
{
    for (unsigned i = 0; i < scene.n_ports; i++) {
        if (scene.ports[i].handle != NULL && (all || !chance(scene.ports[i].laziness))) {
            poll_port(i, all);
        }
    }
}

void program_init(void)
{
    scene.n_services = scene.n_ports = scene.n_leases = scene.n_records = scene.n_live = 0;
    scene.refs_made = scene.refs_released = 0;
    scene.calls_max = (uint32_t)dice_spread(&scene.plot, 20, 200);
    scene.acts_left = (uint32_t)dice_between(&scene.plot, 10, 60);
    scene.pace = dice_spread(&scene.plot, SCENE_MS, SCENE_S);
    for (uint64_t n = dice_spread(&scene.plot, 1, 3); n > 0; n--) {
        open_port();
    }
    for (uint64_t n = dice_spread(&scene.plot, 1, 3); n > 0; n--) {
        open_service();
    }
    scene_at(scene.now + dice_spread(&scene.plot, 1000, scene.pace), EVENT_PROGRAM, 0, 0);
}

/* ---- the end ---- */

void program_give_up(void)
{
    for (unsigned i = 0; i < scene.n_leases; i++) {
        if (scene.leases[i].handle != NULL) {
            release(i);
        }
    }
    for (uint32_t i = scene.n_live; i-- > 0;) {
        struct record *record = &scene.records[scene.live[i]];

        if (record->verb == VERB_BLPOP) {
            cancel(record, false);
        }
    }
}

/* A call to each service, which must succeed, as all is well. */
void program_probe(void)
{
    static const enum verb probes[] = {
        [SPEAKS_REDIS] = VERB_INCR, [SPEAKS_LINE] = VERB_LINE, [SPEAKS_HTTP] = VERB_FETCH};
    unsigned port = any_port();

    for (unsigned i = 0; i < scene.n_services; i++) {
        const struct service *service = &scene.services[i];

        if (service->closed) {
            continue;
        }
        (void)submit(probes[service->speaks], port, i, LEASES_MAX);
    }
}

void program_close(void)
{
    program_give_up();
    for (uint32_t i = scene.n_live; i-- > 0;) {
        if (chance(500)) {
            cancel(&scene.records[scene.live[i]], chance(500));
        }
    }
    for (unsigned i = 0; i < scene.n_services; i++) {
        close_service(i);
    }
}

void program_late(void)
{
    if (chance(500)) {
        scene.calls_max = CALLS_MAX;
        new_lease(false);
        burst(any(10));
        if (scene.n_services < SERVICES_MAX) {
            open_service();
        }
        cancel_some();
    }
    program_give_up();
}

void program_free(void)
{
    for (unsigned i = 0; i < scene.n_ports; i++) {
        struct iok_port *handle = scene.ports[i].handle;

        if (handle != NULL) {
            must(iok_port_calls(handle) == 0 && handle->n_leases == 0, "port %u: %u calls and %u leases did not end", i,
                 iok_port_calls(handle), handle->n_leases);
            detach(i);
        }
    }
    for (unsigned i = 0; i < scene.n_services; i++) {
        iok_service_unref(scene.services[i].handle);
        scene.services[i].handle = NULL;
    }
}
