/* chaos.c - the driver that hurts: partial and refused sends, late bytes in small pieces, resets, failing attempts.
 *
 *     core <-- connected, arrived, writable, closed -- chaos: bytes in between --- the driver below
 *
 * It is not a simulation: time, sockets and peers are the real ones of the driver below. With the same seed it makes
 * the same choices for the same events, but real events do not repeat exactly.
 *
 * Invariants:
 * - It keeps the contract of net.h, whatever it does: what the core sees could all have happened on a bad network.
 * - Bytes are never changed, and their order never is. Accepted ones were accepted by the driver below.
 * - A closed link moves to the list of the dead, and is freed by the next run, when nobody is on its stack. */
#include "chaos_private.h"

#include <stdio.h>
#include <string.h>

#include "../base/list.h"
#include "../base/mem.h"

#define BUFFER_BYTES 65536u /* arrived bytes that wait, per link; then reading stops below, too */
#define VECS_MAX 8          /* pieces of a send that are looked at; the rest counts as not accepted */
#define ALPN_MAX 256        /* RFC 7301 3.1: a protocol name has at most 255 bytes */
#define NEVER UINT64_MAX

struct chaos {
    struct iok_net base; /* first */
    struct iok_net_ops ops;
    struct iok_net *under;
    struct iok_chaos_options options;
    struct iok_chaos_counts counts;
    uint64_t random;
    struct iok_list links, queries; /* alive */
    struct iok_list dead;           /* links */
    bool told;                      /* an event was told in this run */
};

struct chaos_link {
    struct iok_node node; /* in the driver's links or dead */
    struct chaos *chaos;
    struct iok_link *under; /* NULL: none (any more) */
    struct iok_link_events events;
    void *owner;
    bool closed;             /* by either side: on the list of the dead */
    bool up;                 /* the core knows that it is connected */
    bool under_up;           /* it is */
    bool under_waits;        /* the driver below got no space */
    bool reading;            /* the core wants bytes */
    bool broken;             /* reset by us */
    bool ended;              /* err says how, and the core does not know yet */
    bool plain;              /* without TLS */
    bool half_ended;         /* the peer sends no more, and the core does not know yet */
    struct iok_error err;    /* of ended */
    uint64_t connect_at;     /* when to tell connected, or the failure of the attempt */
    uint64_t deliver_at;     /* when the arrived bytes may go on */
    uint64_t writable_at;    /* when to tell writable; NEVER: no need */
    uint64_t sent, received; /* bytes */
    uint64_t sent_max, received_max, both_max;
    struct iok_address address; /* of connected */
    char alpn[ALPN_MAX];
    size_t from, to; /* the bytes that wait: in[from] to in[to - 1] */
    uint8_t in[BUFFER_BYTES];
};

struct chaos_door {
    struct chaos *chaos;
    struct iok_door *under;
    struct iok_door_events events;
    void *owner;
};

struct chaos_query {
    struct iok_node node;
    struct chaos *chaos;
    struct iok_query *under; /* NULL: none (any more) */
    iok_resolved_fn *done;
    void *owner;
    uint64_t at; /* when to tell; NEVER: not known yet */
    struct iok_address addresses[IOK_ADDRESSES_MAX];
    uint32_t n;
    uint64_t ttl_ns;
    struct iok_error err;
};

/* ---- chance and time --------------------------------------------------------------------------------------------- */

/* SplitMix64, as the real driver's. */
static uint64_t draw(struct chaos *chaos)
{
    uint64_t z = chaos->random += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* From 1 to max. */
static uint64_t up_to(struct chaos *chaos, uint64_t max)
{
    return 1 + draw(chaos) % max;
}

static bool happens(struct chaos *chaos, uint64_t chance)
{
    return chance != 0 && draw(chaos) % CHANCE_ONE < chance;
}

static uint64_t now(const struct chaos *chaos)
{
    return chaos->under->ops->now(chaos->under);
}

/* A random time from now, at most max away. */
static uint64_t later(struct chaos *chaos, uint64_t max)
{
    return now(chaos) + (max == 0 ? 0 : up_to(chaos, max));
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* ---- ends -------------------------------------------------------------------------------------------------------- */

static struct chaos_link *link_of(struct iok_link *link)
{
    return (struct chaos_link *)(void *)link;
}

static struct chaos *chaos_of(struct iok_net *net)
{
    return (struct chaos *)(void *)net;
}

static void drop_under(struct chaos_link *link)
{
    if (link->under != NULL) {
        link->chaos->under->ops->close(link->under);
        link->under = NULL;
    }
}

static void bury(struct chaos_link *link)
{
    link->closed = true;
    iok_list_remove(&link->node);
    iok_list_push(&link->chaos->dead, &link->node);
}

static void reset(struct chaos_link *link)
{
    drop_under(link);
    link->chaos->counts.resets++;
    link->broken = link->ended = true;
    link->from = link->to = 0;
    iok_err(&link->err, IOK_ERESET, "chaos: reset after %llu bytes sent and %llu received",
            (unsigned long long)link->sent, (unsigned long long)link->received);
}

/* Bytes that may still pass in one direction. */
static uint64_t allowance(const struct chaos_link *link, uint64_t passed, uint64_t max)
{
    return least(max - passed, link->both_max - link->sent - link->received);
}

static bool is_over(const struct chaos_link *link)
{
    return link->sent >= link->sent_max || link->received >= link->received_max ||
           link->sent + link->received >= link->both_max;
}

/* ---- arrived bytes ----------------------------------------------------------------------------------------------- */

/* One piece to the core. False: no more now. */
static bool deliver_piece(struct chaos_link *link)
{
    struct chaos *chaos = link->chaos;
    uint64_t n = least(link->to - link->from, allowance(link, link->received, link->received_max));
    size_t space = 0;
    uint8_t *at = link->events.read_space(link->owner, &space);

    if (at == NULL || link->closed) {
        link->reading = false;
        return false;
    }
    n = least(n, space);
    if (chaos->options.pieces != 0) {
        uint64_t piece = up_to(chaos, chaos->options.pieces);

        chaos->counts.pieces += piece < n;
        n = least(n, piece);
    }
    memcpy(at, link->in + link->from, n);
    link->from += n;
    link->received += n;
    chaos->told = true;
    link->events.arrived(link->owner, n);
    if (!link->closed && !link->broken && is_over(link)) {
        reset(link);
    }
    return !link->closed && !link->broken;
}

static void deliver(struct chaos_link *link)
{
    struct chaos *chaos = link->chaos;

    while (link->reading && link->from < link->to && link->deliver_at <= now(chaos)) {
        if (!deliver_piece(link)) {
            break;
        }
        if (chaos->options.pieces != 0 && draw(chaos) % 2 == 0) {
            break; /* the rest in the next turn: the core does other things in between */
        }
    }
    if (link->from == link->to) {
        link->from = link->to = 0;
    }
    if (link->under_waits && link->under != NULL && link->to == 0) {
        link->under_waits = false;
        chaos->under->ops->want_read(link->under, true);
    }
}

/* ---- events of the driver below ---------------------------------------------------------------------------------- */

static void tell_connected(struct chaos_link *link)
{
    link->up = true;
    link->chaos->told = true;
    link->events.connected(link->owner, &link->address, link->plain ? NULL : link->alpn);
}

static void under_connected(void *owner, const struct iok_address *address, const char *alpn)
{
    struct chaos_link *link = owner;
    struct chaos *chaos = link->chaos;

    link->under_up = true;
    link->address = *address;
    link->plain = alpn == NULL;
    (void)snprintf(link->alpn, sizeof(link->alpn), "%s", alpn != NULL ? alpn : "");
    if (chaos->options.connect_delay != 0) {
        chaos->counts.connects++;
        link->connect_at = later(chaos, chaos->options.connect_delay);
    } else {
        tell_connected(link);
    }
}

static uint8_t *under_read_space(void *owner, size_t *n)
{
    struct chaos_link *link = owner;

    if (link->to == BUFFER_BYTES) {
        link->under_waits = true;
        return NULL;
    }
    *n = BUFFER_BYTES - link->to;
    return link->in + link->to;
}

static void under_arrived(void *owner, size_t n)
{
    struct chaos_link *link = owner;
    struct chaos *chaos = link->chaos;

    link->to += n;
    if (chaos->options.delay != 0 && link->to - link->from == n) { /* else the ones before it wait already */
        chaos->counts.delayed++;
        link->deliver_at = later(chaos, chaos->options.delay);
    }
    if (link->up) {
        deliver(link);
    }
}

static void under_writable(void *owner)
{
    struct chaos_link *link = owner;

    if (link->up && link->writable_at == NEVER) { /* else we tell it when the stall is over */
        link->chaos->told = true;
        link->events.writable(link->owner);
    }
}

static void under_ended(void *owner)
{
    ((struct chaos_link *)owner)->half_ended = true;
}

static size_t under_preface(void *owner, struct iok_span bytes)
{
    struct chaos_link *link = owner;

    link->chaos->told = true;
    return link->events.preface(link->owner, bytes);
}

static void under_closed(void *owner, const struct iok_error *err)
{
    struct chaos_link *link = owner;

    link->under = NULL;
    link->ended = true;
    link->err = *err;
    if (!link->under_up) {
        link->connect_at = now(link->chaos);
    }
}

static const struct iok_link_events under_events = {
    .connected = under_connected,
    .read_space = under_read_space,
    .arrived = under_arrived,
    .writable = under_writable,
    .closed = under_closed,
};

static const struct iok_link_events under_half_events = {
    .connected = under_connected,
    .read_space = under_read_space,
    .arrived = under_arrived,
    .writable = under_writable,
    .ended = under_ended,
    .closed = under_closed,
};

/* The driver below waits for a preface where there is this slot. */
static const struct iok_link_events under_preface_events = {
    .connected = under_connected,
    .read_space = under_read_space,
    .arrived = under_arrived,
    .writable = under_writable,
    .ended = under_ended,
    .preface = under_preface,
    .closed = under_closed,
};

/* ---- what the core asks for -------------------------------------------------------------------------------------- */

static struct chaos_link *make_link(struct chaos *chaos)
{
    const struct iok_chaos_options *options = &chaos->options;
    struct chaos_link *link = iok_calloc(sizeof(*link));

    if (link != NULL) {
        link->chaos = chaos;
        link->reading = true;
        link->connect_at = link->writable_at = NEVER;
        link->sent_max = options->reset_sent != 0 ? options->reset_sent : NEVER;
        link->received_max = options->reset_received != 0 ? options->reset_received : NEVER;
        link->both_max = options->reset_after != 0 ? up_to(chaos, options->reset_after) : NEVER;
    }
    return link;
}

static struct iok_link *chaos_open(struct iok_net *net, const struct iok_target *target,
                                   const struct iok_link_events *events, void *owner, struct iok_error *err)
{
    struct chaos *chaos = chaos_of(net);
    const struct iok_chaos_options *options = &chaos->options;
    struct chaos_link *link = make_link(chaos);

    if (link == NULL) {
        iok_err(err, IOK_ENOMEM, "out of memory for a connection");
        return NULL;
    }
    link->events = *events;
    link->owner = owner;
    if (happens(chaos, options->connect_fail)) {
        bool refused = draw(chaos) % 2 == 0;

        chaos->counts.connects++;
        link->ended = true;
        link->connect_at = later(chaos, options->connect_delay);
        iok_err(&link->err, refused ? IOK_EREFUSED : IOK_ECONNECT, "chaos: connection %s",
                refused ? "refused" : "timed out");
    } else {
        link->under = chaos->under->ops->open(chaos->under, target, &under_events, link, err);
        if (link->under == NULL) {
            iok_free(link);
            return NULL;
        }
    }
    iok_list_push(&chaos->links, &link->node);
    return (struct iok_link *)(void *)link;
}

/* Sends up to max bytes of vec below. */
static ptrdiff_t send_some(struct chaos_link *link, const struct iovec *vec, int n, uint64_t max)
{
    struct iovec some[VECS_MAX];
    int used = 0;

    for (; used < n && used < VECS_MAX && max > 0; used++) {
        some[used].iov_base = vec[used].iov_base;
        some[used].iov_len = (size_t)least(vec[used].iov_len, max);
        max -= some[used].iov_len;
    }
    return link->chaos->under->ops->send(link->under, some, used);
}

static ptrdiff_t chaos_send(struct iok_link *base, const struct iovec *vec, int n)
{
    struct chaos_link *link = link_of(base);
    struct chaos *chaos = link->chaos;
    uint64_t all = 0, part;
    ptrdiff_t sent;

    if (link->under == NULL) {
        return IOK_ERESET;
    }
    for (int i = 0; i < n; i++) {
        all += vec[i].iov_len;
    }
    if (happens(chaos, chaos->options.refuse)) {
        chaos->counts.refused++;
        link->writable_at = later(chaos, chaos->options.stall);
        return 0;
    }
    part = least(all, allowance(link, link->sent, link->sent_max));
    if (part > 1 && happens(chaos, chaos->options.partial)) {
        chaos->counts.partial++;
        part = up_to(chaos, part - 1);
    }
    sent = send_some(link, vec, n, part);
    if (sent < 0) {
        return sent;
    }
    link->sent += (uint64_t)sent;
    if (is_over(link)) {
        reset(link);
    } else if ((uint64_t)sent == part && part < all) { /* else the driver below tells */
        link->writable_at = later(chaos, chaos->options.stall);
    }
    return sent;
}

static void chaos_want_read(struct iok_link *base, bool on)
{
    link_of(base)->reading = on; /* what waits is delivered by the next run */
}

static size_t chaos_binding(struct iok_link *base, uint8_t at[IOK_BINDING_BYTES_MAX])
{
    struct chaos_link *link = link_of(base);

    return link->under != NULL ? link->chaos->under->ops->binding(link->under, at) : 0;
}

static void chaos_adopt(struct iok_link *base, const struct iok_link_events *events, void *owner)
{
    struct chaos_link *link = link_of(base);

    link->events = *events;
    link->owner = owner;
    if (link->under != NULL) {
        link->chaos->under->ops->adopt(link->under,
                                       events->preface != NULL ? &under_preface_events
                                       : events->ended != NULL ? &under_half_events
                                                               : &under_events,
                                       link);
    }
}

static void chaos_shut(struct iok_link *base)
{
    struct chaos_link *link = link_of(base);

    if (link->under != NULL) {
        link->chaos->under->ops->shut(link->under);
    }
}

static void chaos_close(struct iok_link *base)
{
    struct chaos_link *link = link_of(base);

    drop_under(link);
    bury(link);
}

/* ---- listening --------------------------------------------------------------------------------------------------- */

static void under_accepted(void *owner, struct iok_link *under, const struct iok_address *address)
{
    struct chaos_door *door = owner;
    struct chaos *chaos = door->chaos;
    struct chaos_link *link = make_link(chaos);

    if (link == NULL) {
        chaos->under->ops->close(under);
        return;
    }
    link->under = under;
    iok_list_push(&chaos->links, &link->node);
    door->events.accepted(door->owner, (struct iok_link *)(void *)link, address);
}

static void under_starved(void *owner, const struct iok_error *err)
{
    struct chaos_door *door = owner;

    door->events.starved(door->owner, err);
}

static struct iok_door *chaos_listen(struct iok_net *net, int fd, struct iok_tls *tls,
                                     const struct iok_door_events *events, void *owner, struct iok_error *err)
{
    static const struct iok_door_events under_door_events = {.accepted = under_accepted, .starved = under_starved};
    struct chaos *chaos = chaos_of(net);
    struct chaos_door *door = iok_calloc(sizeof(*door));

    if (door == NULL) {
        iok_err(err, IOK_ENOMEM, "out of memory for a listener");
        return NULL;
    }
    *door = (struct chaos_door){.chaos = chaos, .events = *events, .owner = owner};
    door->under = chaos->under->ops->listen(chaos->under, fd, tls, &under_door_events, door, err);
    if (door->under == NULL) {
        iok_free(door);
        return NULL;
    }
    return (struct iok_door *)(void *)door;
}

static struct chaos_door *door_of(struct iok_door *door)
{
    return (struct chaos_door *)(void *)door;
}

static void chaos_want_accept(struct iok_door *door, bool on)
{
    door_of(door)->chaos->under->ops->want_accept(door_of(door)->under, on);
}

static void chaos_secure(struct iok_door *door, struct iok_tls *tls)
{
    door_of(door)->chaos->under->ops->secure(door_of(door)->under, tls);
}

static void chaos_stop(struct iok_door *door)
{
    door_of(door)->chaos->under->ops->stop(door_of(door)->under);
    iok_free(door_of(door));
}

/* ---- look-ups ---------------------------------------------------------------------------------------------------- */

static void tell_resolved(struct chaos_query *query)
{
    query->chaos->told = true;
    iok_list_remove(&query->node);
    query->done(query->owner, query->addresses, query->n, query->ttl_ns, &query->err);
    iok_free(query);
}

static void under_resolved(void *owner, const struct iok_address *addresses, uint32_t n, uint64_t ttl_ns,
                           const struct iok_error *err)
{
    struct chaos_query *query = owner;
    struct chaos *chaos = query->chaos;

    query->under = NULL;
    query->n = n;
    query->ttl_ns = ttl_ns;
    query->err = *err;
    if (n > 0) {
        memcpy(query->addresses, addresses, n * sizeof(*addresses));
    }
    if (chaos->options.resolve_delay != 0) {
        chaos->counts.resolves++;
        query->at = later(chaos, chaos->options.resolve_delay);
    } else {
        tell_resolved(query);
    }
}

static struct iok_query *chaos_resolve(struct iok_net *net, const char *host, uint16_t port, iok_resolved_fn *done,
                                       void *owner, struct iok_error *err)
{
    struct chaos *chaos = chaos_of(net);
    struct chaos_query *query = iok_calloc(sizeof(*query));

    if (query == NULL) {
        iok_err(err, IOK_ENOMEM, "out of memory for a look-up");
        return NULL;
    }
    query->chaos = chaos;
    query->done = done;
    query->owner = owner;
    query->at = NEVER;
    if (happens(chaos, chaos->options.resolve_fail)) {
        chaos->counts.resolves++;
        query->at = later(chaos, chaos->options.resolve_delay);
        iok_err(&query->err, IOK_ERESOLVE, "%s: chaos: name does not resolve", host);
    } else {
        query->under = chaos->under->ops->resolve(chaos->under, host, port, under_resolved, query, err);
        if (query->under == NULL) {
            iok_free(query);
            return NULL;
        }
    }
    iok_list_push(&chaos->queries, &query->node);
    return (struct iok_query *)(void *)query;
}

static void chaos_cancel(struct iok_query *base)
{
    struct chaos_query *query = (struct chaos_query *)(void *)base;

    if (query->under != NULL) {
        query->chaos->under->ops->cancel(query->under);
    }
    iok_list_remove(&query->node);
    iok_free(query);
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

/* When the link has something to tell. The end comes after all bytes. */
static uint64_t link_due(const struct chaos_link *link)
{
    uint64_t due = NEVER;

    if (!link->up) {
        return link->connect_at;
    }
    if (link->from < link->to) {
        due = link->reading ? link->deliver_at : NEVER;
    } else if (link->ended || link->half_ended) {
        return 0;
    }
    return least(due, link->under != NULL ? link->writable_at : NEVER);
}

static void link_run(struct chaos_link *link, uint64_t time)
{
    if (!link->up && link->under_up) {
        tell_connected(link);
    }
    if (!link->closed && link->under != NULL && link->writable_at <= time) {
        link->writable_at = NEVER;
        link->events.writable(link->owner);
    }
    if (!link->closed && link->up) {
        deliver(link);
    }
    if (!link->closed && link->half_ended && link->from == link->to) {
        link->half_ended = false;
        link->chaos->told = true;
        link->events.ended(link->owner);
    }
    if (!link->closed && link->ended && link->from == link->to) {
        bury(link);
        link->events.closed(link->owner, &link->err);
    }
}

static void run_links(struct chaos *chaos, uint64_t time)
{
    struct iok_list batch;
    struct iok_node *node;

    iok_list_init(&batch); /* events open links and close others */
    while ((node = iok_list_pop(&chaos->links)) != NULL) {
        iok_list_push(&batch, node);
    }
    while ((node = iok_list_pop(&batch)) != NULL) {
        struct chaos_link *link = iok_container(node, struct chaos_link, node);

        iok_list_push(&chaos->links, node);
        if (link_due(link) <= time) {
            chaos->told = true;
            link_run(link, time);
        }
    }
}

static void run_queries(struct chaos *chaos, uint64_t time)
{
    struct iok_list batch;
    struct iok_node *node;

    iok_list_init(&batch);
    while ((node = iok_list_pop(&chaos->queries)) != NULL) {
        iok_list_push(&batch, node);
    }
    while ((node = iok_list_pop(&batch)) != NULL) {
        struct chaos_query *query = iok_container(node, struct chaos_query, node);

        iok_list_push(&chaos->queries, node);
        if (query->at <= time) {
            tell_resolved(query);
        }
    }
}

static void free_links(struct iok_list *list)
{
    struct iok_node *node;

    while ((node = iok_list_pop(list)) != NULL) {
        iok_free(iok_container(node, struct chaos_link, node));
    }
}

uint64_t iok_chaos_run(struct iok_net *net)
{
    struct chaos *chaos = chaos_of(net);
    uint64_t time = now(chaos), due = NEVER;

    free_links(&chaos->dead);
    chaos->told = false;
    run_links(chaos, time);
    run_queries(chaos, time);
    iok_list_each (&chaos->links, node, after) {
        due = least(due, link_due(iok_container(node, struct chaos_link, node)));
    }
    iok_list_each (&chaos->queries, query, next) {
        due = least(due, iok_container(query, struct chaos_query, node)->at);
    }
    return chaos->told ? 0 : due;
}

void iok_chaos_counts(const struct iok_net *net, struct iok_chaos_counts *out)
{
    *out = ((const struct chaos *)(const void *)net)->counts;
}

/* ---- beginning and end ------------------------------------------------------------------------------------------- */

static uint64_t chaos_now(struct iok_net *net)
{
    return now(chaos_of(net));
}

static int64_t chaos_wall(struct iok_net *net)
{
    return chaos_of(net)->under->ops->wall(chaos_of(net)->under);
}

static uint64_t chaos_random(struct iok_net *net)
{
    struct iok_net *under = chaos_of(net)->under;

    return under->ops->random(under);
}

struct iok_net *iok_chaos_new(struct iok_net *under, const char *options, struct iok_error *err)
{
    struct chaos *chaos = iok_calloc(sizeof(*chaos));

    if (chaos == NULL) {
        iok_err(err, IOK_ENOMEM, "out of memory for chaos");
        return NULL;
    }
    if (iok_chaos_parse(&chaos->options, options, err) != 0) {
        iok_free(chaos);
        return NULL;
    }
    chaos->ops = (struct iok_net_ops){
        .now = chaos_now,
        .random = chaos_random,
        .open = chaos_open,
        .send = chaos_send,
        .want_read = chaos_want_read,
        .binding = chaos_binding,
        .adopt = chaos_adopt,
        .shut = chaos_shut,
        .close = chaos_close,
        .resolve = chaos_resolve,
        .cancel = chaos_cancel,
        .bind = under->ops->bind,
        .unbind = under->ops->unbind,
        .listen = chaos_listen,
        .want_accept = chaos_want_accept,
        .secure = chaos_secure,
        .stop = chaos_stop,
        .wall = chaos_wall,
        .tls_new = under->ops->tls_new,
        .tls_serve = under->ops->tls_serve,
        .tls_free = under->ops->tls_free,
    };
    chaos->base.ops = &chaos->ops;
    chaos->under = under;
    chaos->random = chaos->options.seed != 0 ? chaos->options.seed : under->ops->random(under);
    iok_list_init(&chaos->links);
    iok_list_init(&chaos->queries);
    iok_list_init(&chaos->dead);
    return &chaos->base;
}

void iok_chaos_free(struct iok_net *net)
{
    struct chaos *chaos = chaos_of(net);
    struct iok_node *node;

    free_links(&chaos->links);
    free_links(&chaos->dead);
    while ((node = iok_list_pop(&chaos->queries)) != NULL) {
        iok_free(iok_container(node, struct chaos_query, node));
    }
    iok_free(chaos);
}
