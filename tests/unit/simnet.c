#include "simnet.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../kit/bare_kernel.h"

static struct sim *sim_of(struct iok_net *net)
{
    return (struct sim *)(void *)net;
}

static uint64_t sim_now(struct iok_net *net)
{
    return sim_of(net)->now;
}

static uint64_t sim_random(struct iok_net *net)
{
    struct sim *sim = sim_of(net);

    sim->random = sim->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407); /* Knuth's MMIX */
    return sim->random >> 33;
}

static struct iok_link *sim_open(struct iok_net *net, const struct iok_target *target,
                                 const struct iok_link_events *events, void *owner, struct iok_error *err)
{
    struct sim *sim = sim_of(net);
    struct iok_link *link = &sim->links[sim->n_links];

    assert_true(target->n_addresses > 0);
    if (sim->cannot_open) {
        iok_err(err, IOK_ECONNECT, "no descriptor left");
        return NULL;
    }
    assert_true(sim->n_links < SIM_LINKS_MAX);
    sim->n_links++;
    *link = (struct iok_link){.sim = sim, .events = events, .owner = owner, .reading = true, .window = SIZE_MAX};
    link->address = target->addresses[0];
    link->got = calloc(1, 1);
    return link;
}

static ptrdiff_t sim_send(struct iok_link *link, const struct iovec *vec, int n)
{
    size_t sent = 0;

    assert_false(link->dead || link->shut);
    for (int i = 0; i < n; i++) {
        size_t part = vec[i].iov_len < link->window ? vec[i].iov_len : link->window;

        link->got = realloc(link->got, link->n_got + part + 1);
        assert_non_null(link->got);
        memcpy(link->got + link->n_got, vec[i].iov_base, part);
        link->n_got += part;
        link->got[link->n_got] = '\0';
        link->window -= part;
        sent += part;
        link->starved |= part < vec[i].iov_len;
    }
    return (ptrdiff_t)sent;
}

static void sim_want_read(struct iok_link *link, bool on)
{
    assert_false(link->dead);
    link->reading = on;
}

static void sim_close(struct iok_link *link)
{
    assert_false(link->dead);
    link->dead = link->closed_by_us = true;
}

static int sim_bind(const struct iok_bind *what, struct iok_address *bound, struct iok_error *err)
{
    (void)err;
    *bound = *what->address;
    return SIM_FD;
}

static void sim_unbind(int fd, const char *path)
{
    (void)path;
    assert_int_equal(fd, SIM_FD);
}

static struct iok_door *sim_listen(struct iok_net *net, int fd, struct iok_tls *tls,
                                   const struct iok_door_events *events, void *owner, struct iok_error *err)
{
    struct sim *sim = sim_of(net);

    (void)err;
    assert_int_equal(fd, SIM_FD);
    assert_null(tls);
    assert_false(sim->door.open);
    sim->door = (struct iok_door){.events = events, .owner = owner, .open = true, .accepting = true};
    return &sim->door;
}

static void sim_want_accept(struct iok_door *door, bool on)
{
    assert_true(door->open);
    door->accepting = on;
}

static void sim_stop(struct iok_door *door)
{
    assert_true(door->open);
    door->open = false;
}

static void sim_adopt(struct iok_link *link, const struct iok_link_events *events, void *owner)
{
    link->events = events;
    link->owner = owner;
}

static void sim_shut(struct iok_link *link)
{
    assert_false(link->dead);
    link->shut = true;
}

static int64_t sim_wall(struct iok_net *net)
{
    return 784111777 - 1000 + (int64_t)(sim_of(net)->now / SIM_S); /* RFC 9110's example */
}

static struct iok_query *sim_resolve(struct iok_net *net, const char *host, uint16_t port, iok_resolved_fn *done,
                                     void *owner, struct iok_error *err)
{
    struct sim *sim = sim_of(net);

    (void)host;
    (void)port;
    (void)err;
    sim->query = (struct iok_query){.done = done, .owner = owner};
    sim->n_queries++;
    return &sim->query;
}

static void sim_cancel(struct iok_query *query)
{
    assert_false(query->dead);
    query->dead = true;
}

static const struct iok_net_ops sim_ops = {
    .now = sim_now,
    .random = sim_random,
    .open = sim_open,
    .send = sim_send,
    .want_read = sim_want_read,
    .close = sim_close,
    .bind = sim_bind,
    .unbind = sim_unbind,
    .listen = sim_listen,
    .want_accept = sim_want_accept,
    .stop = sim_stop,
    .adopt = sim_adopt,
    .shut = sim_shut,
    .wall = sim_wall,
    .resolve = sim_resolve,
    .cancel = sim_cancel,
};

void sim_init(struct sim *sim)
{
    *sim = (struct sim){.net = {&sim_ops}, .now = 1000 * SIM_S, .random = 1};
}

void sim_deinit(struct sim *sim)
{
    for (unsigned i = 0; i < sim->n_links; i++) {
        assert_true(sim->links[i].dead); /* the core closed what it opened */
        free(sim->links[i].got);
    }
}

struct iok_link *sim_last(struct sim *sim)
{
    assert_true(sim->n_links > 0);
    return &sim->links[sim->n_links - 1];
}

unsigned sim_live_links(const struct sim *sim)
{
    unsigned n = 0;

    for (unsigned i = 0; i < sim->n_links; i++) {
        n += !sim->links[i].dead;
    }
    return n;
}

void sim_connect(struct iok_link *link)
{
    assert_false(link->dead || link->connected);
    link->connected = true;
    link->events->connected(link->owner, &link->address, NULL);
}

struct iok_link *sim_client(struct sim *sim)
{
    struct iok_link *link = &sim->links[sim->n_links];

    assert_true(sim->door.open && sim->door.accepting && sim->n_links < SIM_LINKS_MAX);
    sim->n_links++;
    *link = (struct iok_link){.sim = sim, .reading = true, .window = SIZE_MAX, .accepted = true, .connected = true};
    assert_true(iok_address_literal("10.0.0.0", (uint16_t)(5000 + sim->n_links), &link->address));
    link->address.v4.sin_addr.s_addr += htonl(sim->n_links);
    link->got = calloc(1, 1);
    sim->door.events->accepted(sim->door.owner, link, &link->address);
    if (!link->dead) {
        link->events->connected(link->owner, &link->address, NULL);
    }
    return link;
}

void sim_end(struct iok_link *link)
{
    assert_false(link->dead);
    link->events->ended(link->owner);
}

void sim_fail(struct iok_link *link, int code)
{
    struct iok_error err = {.code = 0};

    assert_false(link->dead);
    link->dead = true;
    if (code != 0) {
        iok_err(&err, code, "%s", code == IOK_EREFUSED ? "connection refused by 10.0.0.1:7000" : "connection reset");
    }
    link->events->closed(link->owner, &err);
}

void sim_arrive(struct iok_link *link, const char *text)
{
    sim_arrive_bytes(link, text, strlen(text));
}

void sim_arrive_bytes(struct iok_link *link, const void *bytes, size_t left)
{
    const char *text = bytes;
    size_t n;

    while (left > 0 && !link->dead) {
        uint8_t *at;

        assert_true(link->reading);
        at = link->events->read_space(link->owner, &n);
        assert_non_null(at);
        n = n < left ? n : left;
        memcpy(at, text, n);
        text += n;
        left -= n;
        link->events->arrived(link->owner, n);
    }
}

void sim_accept(struct iok_link *link, size_t window)
{
    link->window = window;
    if (link->starved && !link->dead) {
        link->starved = false;
        link->events->writable(link->owner);
    }
}

void sim_clear(struct iok_link *link)
{
    link->n_got = 0;
    link->got[0] = '\0';
}

void sim_resolved(struct sim *sim, const char *ip, uint16_t port, uint64_t ttl_ns)
{
    struct iok_error err = {.code = 0};
    struct iok_address address;

    assert_false(sim->query.dead);
    sim->query.dead = true;
    if (ip == NULL) {
        iok_err(&err, IOK_ERESOLVE, "no such name");
        sim->query.done(sim->query.owner, NULL, 0, 0, &err);
        return;
    }
    assert_true(iok_address_literal(ip, port, &address));
    sim->query.done(sim->query.owner, &address, 1, ttl_ns, &err);
}

/* ---- the world ---- */

struct world *world_new(const char *url)
{
    struct world *w = calloc(1, sizeof(*w));
    struct iok_error err = {.text = ""};

    assert_non_null(w);
    sim_init(&w->sim);
    w->kernel = bare_kernel_new(&w->sim.net, 4096);
    assert_non_null(w->kernel);
    w->core = &w->kernel->core;
    w->port = iok_port_new(w->kernel, &err);
    assert_non_null(w->port);
    w->service = url == NULL ? NULL : iok_service_new(w->port, url, &err);
    if (w->service == NULL && url != NULL) {
        fail_msg("%s: %s", url, err.text);
    }
    world_run(w);
    return w;
}

static void let_go(struct world *w)
{
    struct iok_call *call;

    while ((call = iok_poll(w->port)) != NULL) {
        iok_call_free(call);
    }
}

void world_free(struct world *w)
{
    iok_list_each (&w->port->calls, at, after) {
        iok_abandon(iok_container(at, struct iok_call, all));
    }
    iok_list_each (&w->port->leases, lease, next) {
        iok_lease_free(iok_container(lease, struct iok_lease, app_node));
    }
    if (w->service != NULL) {
        iok_service_close(w->service, w->port);
        iok_service_unref(w->service);
    }
    world_run(w);
    let_go(w);
    assert_int_equal(iok_port_calls(w->port), 0);
    assert_int_equal(iok_count_get(&w->core->objects), 0);
    assert_int_equal(iok_count_get(&w->core->inflight), 0);
    assert_int_equal(iok_count_get(&w->core->arguments.bytes), 0);
    assert_int_equal(iok_count_get(&w->core->replies.bytes), 0);
    assert_int_equal(iok_count_get(&w->core->output.bytes), 0);
    assert_true(iok_list_empty(&w->core->services));
    assert_true(iok_core_deadline(w->core) == UINT64_MAX);
    iok_core_stop(w->core);
    assert_true(iok_port_is_detached(&w->port->link));
    iok_port_free(w->port);
    bare_kernel_free(w->kernel);
    sim_deinit(&w->sim);
    free(w);
}

void world_run(struct world *w)
{
    assert_true(bare_kernel_rest(w->kernel)); /* else it never comes to rest */
}

void world_advance(struct world *w, uint64_t ns)
{
    uint64_t end = w->sim.now + ns;
    uint64_t next;

    while ((next = iok_core_deadline(w->core)) <= end) {
        w->sim.now = next > w->sim.now ? next : w->sim.now + 1;
        world_run(w);
    }
    w->sim.now = end;
    world_run(w);
}

struct iok_link *world_connect(struct world *w)
{
    struct iok_link *link = sim_last(&w->sim);

    sim_connect(link);
    world_run(w);
    return link;
}

void world_hand_in(struct world *w, struct iok_call *call)
{
    assert_int_equal(iok_submit(call), 0);
    call->submitted = w->sim.now; /* nobody else looks at it yet */
}

struct iok_link *world_sign_in(struct world *w)
{
    struct iok_link *link = world_connect(w);

    for (const char *at = link->got; (at = strstr(at, "*")) != NULL; at++) {
        sim_arrive(link, "+OK\r\n");
    }
    world_run(w);
    sim_clear(link);
    return link;
}

struct iok_call *world_submit(struct world *w, const char *text, int64_t timeout_ms, struct iok_lease *lease)
{
    struct iok_call *call = iok_call_new(w->port, w->service, NULL);

    assert_non_null(call);
    iok_call_text(call, text, strlen(text));
    iok_call_timeout(call, timeout_ms);
    if (lease != NULL) {
        iok_call_lease(call, lease);
    }
    world_hand_in(w, call);
    return call;
}

struct iok_call *world_command(struct world *w, struct iok_lease *lease, const char *const *words)
{
    struct iok_call *call = iok_call_new(w->port, w->service, NULL);

    assert_non_null(call);
    for (; *words != NULL; words++) {
        iok_call_text(call, *words, strlen(*words));
    }
    if (lease != NULL) {
        iok_call_lease(call, lease);
    }
    world_hand_in(w, call);
    world_run(w);
    return call;
}

void world_take(struct world *w)
{
    struct iok_call *news;

    while (iok_port_take(w->port, &news)) {
    }
}

void world_expect(struct world *w, struct iok_call *call, enum iok_outcome outcome, int code, const char *reply)
{
    struct iok_error err = {.text = ""};
    const struct iok_token *tokens;
    size_t n;

    world_take(w);
    assert_string_equal(iok_outcome_name(iok_call_outcome(call)), iok_outcome_name(outcome));
    if (iok_call_error(call, &err) != code) {
        fail_msg("expected %s, but it is %s: %s", iok_errno_name(code), iok_errno_name(err.code), err.text);
    }
    tokens = iok_call_reply(call, &n);
    if (reply != NULL) {
        assert_int_equal(n, 1);
        assert_int_equal(tokens->len, strlen(reply));
        assert_memory_equal(tokens->p, reply, tokens->len);
    }
    iok_call_free(call);
    world_take(w);
}

void world_pending(struct world *w, struct iok_call *call)
{
    world_take(w);
    assert_int_equal(iok_call_outcome(call), IOK_PENDING);
}
