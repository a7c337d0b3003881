/* wire.c - the simulated network: links with latency and windows, which may break at any byte, and names.
 *
 * It keeps to net.h: no event from inside one of the core's calls, none after close or closed. What was accepted for
 * sending may still arrive after the core has closed the link, or heard of its end; all of it, a part, or nothing. */
#include <stdlib.h>
#include <string.h>

#include "scene.h"

#define FAULT_BYTES_MAX 4000u /* a fault at a certain byte is near the start: links carry some kilobytes */

static uint64_t net_now(struct iok_net *net)
{
    (void)net;
    return scene.now;
}

static uint64_t net_random(struct iok_net *net)
{
    (void)net;
    return dice_next(&scene.own);
}

static uint64_t one_way(const struct pipe *pipe)
{
    uint64_t ns = pipe->latency / 2 + dice_next(&scene.wire) % pipe->latency;

    return !scene.calm && dice_chance(&scene.wire, 10) ? 20 * ns : ns;
}

static void pipe_put(struct pipe *pipe, const void *p, size_t n)
{
    if (pipe->n + n > pipe->cap) {
        pipe->cap = 2 * (pipe->n + n) + 1000;
        pipe->p = realloc(pipe->p, pipe->cap);
        must(pipe->p != NULL, "out of memory");
    }
    memcpy(pipe->p + pipe->n, p, n);
    pipe->n += n;
}

/* What was put arrives, after all that was put before. */
static void pipe_post(struct iok_link *link, struct pipe *pipe, uint64_t delay)
{
    uint64_t at = scene.now + delay + one_way(pipe);

    pipe->last = at > pipe->last ? at : pipe->last;
    scene_at(pipe->last, pipe == &link->up ? EVENT_UP : EVENT_DOWN, link->id, pipe->n);
}

static void pipe_init(struct pipe *pipe, uint64_t latency)
{
    *pipe = (struct pipe){.p = pipe->p, .cap = pipe->cap, .limit = SIZE_MAX, .latency = latency};
}

/* ---- opening ---- */

static struct server *server_at(const struct iok_address *address)
{
    for (unsigned i = 0; i < SERVERS; i++) {
        if (scene.servers[i].address.v4.sin_addr.s_addr == address->v4.sin_addr.s_addr &&
            scene.servers[i].address.v4.sin_port == address->v4.sin_port) {
            return &scene.servers[i];
        }
    }
    violation("an address was tried that was never given");
}

/* The addresses in turn, as net.h says; what comes of it happens later. */
static void try_addresses(struct iok_link *link, const struct iok_target *target)
{
    uint64_t delay = 0;
    bool hangs = false;

    for (uint32_t i = 0; i < target->n_addresses; i++) {
        struct server *server = server_at(&target->addresses[i]);

        if (server->hangs) {
            hangs = true;
            delay += 250 * SCENE_MS;
        } else {
            delay += one_way(&link->up) + one_way(&link->down);
            if (server->up) {
                link->server = server;
                scene_at(scene.now + delay, EVENT_CONNECT, link->id, 0);
                return;
            }
        }
    }
    if (!hangs) {
        scene_at(scene.now + delay, EVENT_FAIL, link->id, -IOK_EREFUSED);
    }
}

static size_t fault(unsigned permille)
{
    return !scene.calm && dice_chance(&scene.wire, permille) ? dice_spread(&scene.wire, 1, FAULT_BYTES_MAX) : SIZE_MAX;
}

static struct iok_link *net_open(struct iok_net *net, const struct iok_target *target,
                                 const struct iok_link_events *events, void *owner, struct iok_error *err)
{
    uint16_t id = (uint16_t)scene.n_links;
    struct iok_link *link = &scene.links[id];
    struct pipe up = link->up, down = link->down;
    uint64_t latency_max = scene.well ? 2 * SCENE_MS : 40 * SCENE_MS; /* ping_timeout may be 20 ms */

    (void)net;
    if (!scene.calm && dice_chance(&scene.wire, 10)) {
        say("no descriptor is left for a connection");
        iok_err(err, IOK_ECONNECT, "no descriptor left");
        return NULL;
    }
    must(id < LINKS_MAX - 1, "connections are made again without a pause");
    must(target->n_addresses > 0, "a connection to nowhere");
    scene.n_links++;
    *link = (struct iok_link){.id = id, .state = LINK_TRYING, .reading = true, .events = events, .owner = owner};
    link->up = up;
    link->down = down;
    pipe_init(&link->up, dice_spread(&scene.wire, 10000, latency_max));
    pipe_init(&link->down,
              dice_chance(&scene.wire, 500) ? link->up.latency : dice_spread(&scene.wire, 10000, latency_max));
    link->window = dice_chance(&scene.wire, 300) ? dice_spread(&scene.wire, 1, 2000) : SIZE_MAX;
    link->gulp = dice_chance(&scene.wire, 300) ? dice_spread(&scene.wire, 1, 500) : SIZE_MAX;
    link->reset_at_up = fault(70);
    link->reset_at_down = fault(70);
    link->end_at_down = fault(70);
    say("link %u: connects", id);
    try_addresses(link, target);
    return link;
}

static void fail(struct iok_link *link, int code)
{
    struct iok_error err = {.code = 0};

    if (link->state == LINK_GONE) {
        return;
    }
    link->state = LINK_GONE;
    if (code != 0) {
        iok_err(&err, code, "%s", code == IOK_EREFUSED ? "connection refused" : "connection reset");
    }
    say("link %u: %s", link->id, code == 0 ? "closed by the server" : err.text);
    link->events->closed(link->owner, &err);
}

static void connect_now(struct iok_link *link)
{
    if (link->state != LINK_TRYING) {
        return;
    }
    if (!link->server->up || link->server->hangs) {
        fail(link, IOK_EREFUSED);
        return;
    }
    say("link %u: connected to server %u", link->id, (unsigned)(link->server - scene.servers));
    link->state = LINK_OPEN;
    link->serving = true;
    link->events->connected(link->owner, &link->server->address, "");
    server_accept(link);
}

/* ---- to the server ---- */

static size_t acceptable(const struct iok_link *link, size_t wanted)
{
    size_t under_way = link->up.n - link->up.arrived;
    size_t n = wanted;

    n = under_way >= link->window ? 0 : n < link->window - under_way ? n : link->window - under_way;
    if (n > link->reset_at_up - link->up.n) {
        n = link->reset_at_up - link->up.n;
    }
    if (n > 0 && !scene.calm && dice_chance(&scene.wire, 30)) {
        n = dice_below(&scene.wire, n);
    }
    return n;
}

static void count_out(const struct iok_link *link, size_t n)
{
    struct iok_service *handle = ((struct iok_conn *)link->owner)->service;

    for (uint32_t i = 0; i < scene.n_services; i++) {
        scene.services[i].bytes_out += scene.services[i].handle == handle ? n : 0;
    }
}

static void count_in(const struct iok_link *link, size_t n)
{
    struct iok_service *handle = ((struct iok_conn *)link->owner)->service;

    for (uint32_t i = 0; i < scene.n_services; i++) {
        scene.services[i].bytes_in += scene.services[i].handle == handle ? n : 0;
    }
}

static ptrdiff_t net_send(struct iok_link *link, const struct iovec *vec, int n)
{
    size_t wanted = 0, left, accepted;

    must(link->state == LINK_OPEN || link->state == LINK_BROKEN, "bytes for link %u, which is not connected", link->id);
    if (link->state == LINK_BROKEN) {
        return IOK_ERESET;
    }
    for (int i = 0; i < n; i++) {
        wanted += vec[i].iov_len;
    }
    accepted = left = acceptable(link, wanted);
    for (int i = 0; i < n && left > 0; i++) {
        size_t part = vec[i].iov_len < left ? vec[i].iov_len : left;

        pipe_put(&link->up, vec[i].iov_base, part);
        left -= part;
    }
    say("link %u: sent %zu of %zu bytes", link->id, accepted, wanted);
    count_out(link, accepted);
    link->starved = accepted < wanted;
    if (accepted > 0) {
        pipe_post(link, &link->up, 0);
    } else {
        scene_at(scene.now + SCENE_MS, EVENT_WRITABLE, link->id, 0);
    }
    if (link->starved) {
        scene_at(link->up.last, EVENT_WRITABLE, link->id, 0);
    }
    if (link->up.n >= link->reset_at_up) {
        wire_reset(link);
    }
    return (ptrdiff_t)accepted;
}

static void arrived_up(struct iok_link *link, size_t offset)
{
    if (!link->serving) {
        return;
    }
    offset = offset < link->up.limit ? offset : link->up.limit;
    link->up.arrived = offset > link->up.arrived ? offset : link->up.arrived;
    server_read(link);
}

static void writable(struct iok_link *link)
{
    if (link->state != LINK_OPEN || !link->starved) {
        return;
    }
    if (link->up.n - link->up.arrived >= link->window) {
        if (link->serving) {
            scene_at(scene.now + link->up.latency, EVENT_WRITABLE, link->id, 0);
        }
        return;
    }
    link->starved = false;
    link->events->writable(link->owner);
}

/* ---- from the server ---- */

void wire_write(struct iok_link *link, const void *p, size_t n, uint64_t delay)
{
    if (!link->serving || link->ended) {
        return;
    }
    if (n >= link->end_at_down - link->down.n) {
        n = link->end_at_down - link->down.n;
        link->ended = true;
        say("link %u: the server closes its half", link->id);
    }
    pipe_put(&link->down, p, n);
    pipe_post(link, &link->down, delay);
}

void wire_end(struct iok_link *link)
{
    if (link->serving && !link->ended) {
        link->ended = true;
        say("link %u: the server closes its half", link->id);
        pipe_post(link, &link->down, 0);
    }
}

/* One read into the memory that the core gives. */
static bool read_once(struct iok_link *link)
{
    size_t room = 0, n = link->down.arrived - link->down.taken;
    uint8_t *at = link->events->read_space(link->owner, &room);

    if (at == NULL) {
        return false;
    }
    must(room > 0, "no room to read into");
    n = n < room ? n : room;
    n = n < link->gulp ? n : link->gulp;
    n = n < link->reset_at_down - link->down.taken ? n : link->reset_at_down - link->down.taken;
    if (n == 0) {
        return false;
    }
    memcpy(at, link->down.p + link->down.taken, n);
    link->down.taken += n;
    count_in(link, n);
    say("link %u: received %zu bytes", link->id, n);
    link->events->arrived(link->owner, n);
    return true;
}

static void arrived_down(struct iok_link *link, size_t offset)
{
    offset = offset < link->down.limit ? offset : link->down.limit;
    link->down.arrived = offset > link->down.arrived ? offset : link->down.arrived;
    if (link->state != LINK_OPEN) {
        return;
    }
    if (link->reading && link->down.arrived > link->down.taken && read_once(link) && link->state == LINK_OPEN) {
        if (link->down.taken >= link->reset_at_down) {
            wire_reset(link);
        } else if (link->down.arrived > link->down.taken) {
            scene_at(scene.now + 1000, EVENT_DOWN, link->id, link->down.arrived);
        }
    }
    if (link->state == LINK_OPEN && link->reading && link->ended && link->down.taken == link->down.n) {
        fail(link, 0);
    }
}

static void net_want_read(struct iok_link *link, bool on)
{
    must(link->state != LINK_GONE, "want_read for link %u, which is gone", link->id);
    say("link %u: %s", link->id, on ? "read again" : "not read for now");
    link->reading = on;
    if (on) {
        scene_at(scene.now, EVENT_DOWN, link->id, link->down.arrived);
    }
}

/* ---- the end ---- */

/* The server will see the end; what is under way comes before it, or not. */
static void part(struct iok_link *link)
{
    if (!link->serving) {
        return;
    }
    if (!scene.calm && dice_chance(&scene.wire, 500)) {
        link->up.limit = dice_between(&scene.wire, link->up.arrived, link->up.n);
    }
    scene_at((link->up.last > scene.now ? link->up.last : scene.now) + one_way(&link->up), EVENT_GONE, link->id, 0);
}

static void net_close(struct iok_link *link)
{
    must(link->state != LINK_GONE, "link %u is closed twice", link->id);
    say("link %u: closed by us", link->id);
    link->state = LINK_GONE;
    part(link);
}

void wire_reset(struct iok_link *link)
{
    if (link->state != LINK_OPEN) {
        return;
    }
    say("link %u: reset", link->id);
    link->state = LINK_BROKEN;
    part(link);
    scene_at(scene.now + dice_next(&scene.wire) % link->down.latency, EVENT_FAIL, link->id, -IOK_ERESET);
}

void wire_vanish(struct iok_link *link)
{
    if (link->serving) {
        say("link %u: its server is gone without a word", link->id);
    }
    link->serving = false;
    link->down.limit = link->down.taken;
}

struct iok_link *wire_any(void)
{
    struct iok_link *link;

    for (unsigned tries = 0; scene.n_links > 0 && tries < 4; tries++) { /* the latest are the likeliest */
        uint64_t back = dice_below(&scene.wire, scene.n_links < 6 ? scene.n_links : 6);

        link = &scene.links[scene.n_links - 1 - back];
        if (link->state == LINK_OPEN) {
            return link;
        }
    }
    return NULL;
}

void wire_calm(void)
{
    for (uint32_t i = 0; i < scene.n_links; i++) {
        if (scene.links[i].state == LINK_TRYING) {
            scene_at(scene.now, EVENT_FAIL, i, -IOK_EREFUSED);
        }
        wire_reset(&scene.links[i]);
    }
    for (uint32_t i = 0; i < scene.n_queries; i++) {
        scene_at(scene.now + SCENE_MS, EVENT_RESOLVED, i, 0);
    }
}

/* ---- names ---- */

static struct iok_query *net_resolve(struct iok_net *net, const char *host, uint16_t port, iok_resolved_fn *done,
                                     void *owner, struct iok_error *err)
{
    struct iok_query *query = &scene.queries[scene.n_queries];
    const struct name *name;
    uint8_t which = (uint8_t)(host[4] - '0'); /* "name0" */

    (void)net;
    must(strncmp(host, "name", 4) == 0 && which < NAMES, "a look-up of %s, which nobody asked for", host);
    must(scene.n_queries < QUERIES_MAX, "names are looked up again without a pause");
    name = &scene.names[which];
    if (!scene.calm && dice_chance(&scene.wire, 10)) {
        iok_err(err, IOK_ERESOLVE, "the look-up cannot start");
        return NULL;
    }
    *query =
        (struct iok_query){.done = done, .owner = owner, .id = (uint16_t)scene.n_queries, .port = port, .name = which};
    scene.n_queries++;
    say("look-up %u of %s", query->id, host);
    scene_at(scene.now + (name->hangs ? 10 * SCENE_S : dice_spread(&scene.wire, 100000, 200 * SCENE_MS)),
             EVENT_RESOLVED, query->id, 0);
    return query;
}

static void net_cancel(struct iok_query *query)
{
    must(query->done != NULL, "a look-up is cancelled that is over");
    query->done = NULL;
}

static void resolved(struct iok_query *query)
{
    const struct name *name = &scene.names[query->name];
    struct iok_address addresses[SERVERS];
    iok_resolved_fn *done = query->done;
    struct iok_error err = {.code = 0};
    uint32_t n = 0;

    if (done == NULL) {
        return;
    }
    query->done = NULL;
    if (name->fails || name->hangs) {
        iok_err(&err, IOK_ERESOLVE, "no such name");
    }
    for (unsigned i = 0; i < SERVERS && err.code == 0; i++) {
        if ((name->servers & 1u << i) != 0) {
            addresses[n++] = scene.servers[i].address;
        }
    }
    say("look-up %u: %s, %u addresses", query->id, err.code == 0 ? "done" : err.text, n);
    done(query->owner, n == 0 ? NULL : addresses, n, name->ttl, &err);
}

/* ---- the driver ---- */

static const struct iok_net_ops ops = {
    .now = net_now,
    .random = net_random,
    .open = net_open,
    .send = net_send,
    .want_read = net_want_read,
    .close = net_close,
    .resolve = net_resolve,
    .cancel = net_cancel,
};

void wire_init(void)
{
    scene.net.ops = &ops;
    scene.n_links = scene.n_queries = 0;
    for (unsigned i = 0; i < NAMES; i++) {
        scene.names[i] = (struct name){.servers = 1 + (unsigned)dice_below(&scene.wire, 15),
                                       .ttl = dice_spread(&scene.wire, SCENE_MS, 60 * SCENE_S)};
    }
}

void wire_event(const struct event *event)
{
    struct iok_link *link = &scene.links[event->subject];

    switch ((enum what)event->what) {
    case EVENT_CONNECT:
        connect_now(link);
        break;
    case EVENT_FAIL:
        fail(link, -(int)event->arg);
        break;
    case EVENT_UP:
        arrived_up(link, event->arg);
        break;
    case EVENT_DOWN:
        arrived_down(link, event->arg);
        break;
    case EVENT_WRITABLE:
        writable(link);
        break;
    case EVENT_GONE:
        link->serving = false;
        break;
    case EVENT_SERVER:
        server_time(link);
        break;
    case EVENT_RESOLVED:
        resolved(&scene.queries[event->subject]);
        break;
    case EVENT_PROGRAM:
    case EVENT_CHAOS:
        break;
    }
}
