/* test_hosts_play.c - services of several hosts on thousands of random bad days: servers die, come back, are promoted,
 * are cut off from us with what is under way, and refuse to write without having said so. Each seed is a play of its own; a
 * failure names it.
 *
 * Checked at each step: a request goes only to a server that said that it is what the service wishes for. At the end of
 * the play the servers are well again: every call ends, the next one is answered by a host that is wished for, and there
 * are as many connections as asked for, and none elsewhere. And the outcomes are true: each request names its call, so it is
 * known which were run: what is done was; what was never sent, or rejected, was not, by any server, nor later; and
 * nothing was run twice, but for calls that may be repeated, and these no more often than retries= says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "simnet.h"

#define SERVERS 3u
#define CALLS_MAX 40u
#define STEPS 120u
#define IDS_MAX (STEPS + 2u) /* of calls, from 1; at most one a step, and the last */
#define RETRIES 2u           /* the default */
#define QUEUE_MAX 256u       /* requests that a link has brought; far more than CALLS_MAX and some pings */
#define SEEDS 4000u

#define OK "R\0\0\0\10\0\0\0\0"
#define STANDBY "S\0\0\0\26in_hot_standby\0on"
#define PRIMARY "S\0\0\0\27in_hot_standby\0off"
#define DONE "Z\0\0\0\5I"
#define ANSWER                                                                                                         \
    "1\0\0\0\4t\0\0\0\6\0\0n\0\0\0\4"                                                                                  \
    "2\0\0\0\4C\0\0\0\6X"
#define REFUSAL                                                                                                        \
    "1\0\0\0\4t\0\0\0\6\0\0n\0\0\0\4"                                                                                  \
    "2\0\0\0\4E\0\0\0\27VERROR\0C25006\0Mno\0"

static const char *const wishes[] = {"any", "primary", "standby", "prefer-standby", "read-write", "read-only"};

struct play {
    struct world *w;
    uint64_t seed, random;
    enum iok_wish wish;
    bool alive[SERVERS], standby[SERVERS];
    bool cut[SERVERS];                        /* nothing passes, either way */
    bool said_standby[SIM_LINKS_MAX];         /* of each link */
    unsigned requests[SIM_LINKS_MAX];         /* that came and are not answered */
    unsigned queue[SIM_LINKS_MAX][QUEUE_MAX]; /* whose calls these are, the oldest first; 0: a ping */
    unsigned resets[SIM_LINKS_MAX];           /* the same of what makes a connection clean after a lease */
    struct iok_call *calls[CALLS_MAX];
    unsigned ids[CALLS_MAX];
    struct iok_lease *lease;
    unsigned n_answers, n_ids;
    unsigned executed[IDS_MAX];
    bool refused[IDS_MAX];
    enum iok_outcome outcomes[IDS_MAX];
};

static unsigned any(struct play *p, unsigned n)
{
    p->random = p->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(p->random >> 33) % n;
}

static void fail_play(const struct play *p, const char *what)
{
    fail_msg("seed %llu, wish %s: %s", (unsigned long long)p->seed, wishes[p->wish], what);
}

static unsigned server_of(const struct iok_link *link)
{
    return ntohs(link->address.v4.sin_port) - 1u;
}

/* Requests that came on a link: each ends in a Sync, which alone is a ping. */
static void read_requests(struct play *p, unsigned i)
{
    struct iok_link *link = &p->w->sim.links[i];
    uint32_t role = IOK_ROLE_KNOWN | (p->said_standby[i] ? IOK_ROLE_STANDBY : 0u);
    const uint8_t *at = (const uint8_t *)link->got, *end = at + link->n_got;
    bool leased = !link->dead && ((struct iok_conn *)link->owner)->lease != NULL; /* goes on where it is */
    unsigned id = 0;

    while (at < end) {
        if (*at == 'P') { /* its type and length, no name, and the text: q and the call's number */
            id = (unsigned)strtoul((const char *)at + 7, NULL, 10);
        }
        if (*at == 'S' && p->requests[i] < QUEUE_MAX) {
            p->queue[i][p->requests[i]++] = id;
            id = 0;
        }
        p->resets[i] += *at == 'Q';
        if (!link->dead && !leased && *at == 'P' && !iok_role_fits(role, p->wish) &&
            p->wish != IOK_WISH_PREFER_STANDBY) {
            fail_play(p, "a request to a server that is not wished for");
        }
        at += 1 + ((size_t)at[1] << 24 | (size_t)at[2] << 16 | (size_t)at[3] << 8 | at[4]);
    }
    sim_clear(link);
}

static void take_requests(struct play *p)
{
    for (unsigned i = 0; i < p->w->sim.n_links; i++) {
        struct iok_link *link = &p->w->sim.links[i];

        if (!link->dead && link->connected && !p->cut[server_of(link)]) {
            read_requests(p, i);
        }
    }
}

static bool is_repeatable(unsigned id)
{
    return id % 3 == 0;
}

static void execute(struct play *p, unsigned id)
{
    p->executed[id]++;
    if (id != 0 && p->executed[id] > (is_repeatable(id) ? 1 + RETRIES : 1)) {
        fail_play(p, "a call was run too often");
    }
}

static unsigned take_oldest(struct play *p, unsigned i)
{
    unsigned id = p->queue[i][0];

    p->requests[i]--;
    memmove(p->queue[i], p->queue[i] + 1, p->requests[i] * sizeof(*p->queue[i]));
    return id;
}

/* The link is over. What was sent on it may have come all the same, in part, and nobody hears of it. */
static void run_late(struct play *p, unsigned i)
{
    if (p->w->sim.links[i].connected) {
        read_requests(p, i);
    }
    for (unsigned n = any(p, p->requests[i] + 1); n > 0; n--) {
        execute(p, take_oldest(p, i));
    }
    p->requests[i] = p->resets[i] = 0;
}

static void put_role(struct iok_link *link, bool standby)
{
    if (standby) {
        sim_arrive_bytes(link, STANDBY, sizeof(STANDBY));
    } else {
        sim_arrive_bytes(link, PRIMARY, sizeof(PRIMARY));
    }
}

static void meet(struct play *p, unsigned i)
{
    struct iok_link *link = &p->w->sim.links[i];
    unsigned server = server_of(link);

    if (p->cut[server]) {
        return;
    }
    if (!p->alive[server]) {
        sim_fail(link, IOK_EREFUSED);
        return;
    }
    sim_connect(link);
    world_run(p->w);
    if (link->dead) {
        return;
    }
    sim_clear(link); /* its start-up message */
    sim_arrive_bytes(link, OK, sizeof(OK) - 1);
    put_role(link, p->standby[server]);
    p->said_standby[i] = p->standby[server];
    sim_arrive_bytes(link, DONE, sizeof(DONE) - 1);
}

/* A standby refuses half of what comes, if writes are what is wished for; it is one that was a primary before. */
static void answer(struct play *p, unsigned i)
{
    struct iok_link *link = &p->w->sim.links[i];
    bool standby = p->standby[server_of(link)];
    unsigned id = take_oldest(p, i);

    p->n_answers++;
    if (id == 0) {
        ; /* a ping is answered by its end only */
    } else if (standby && iok_wish_writes(p->wish)) {
        p->refused[id] = true;
        sim_arrive_bytes(link, REFUSAL, sizeof(REFUSAL));
    } else {
        execute(p, id);
        sim_arrive_bytes(link, ANSWER, sizeof(ANSWER));
    }
    if (!link->dead && !standby && p->said_standby[i]) { /* promoted */
        p->said_standby[i] = false;
        put_role(link, false);
    }
    if (!link->dead) {
        sim_arrive_bytes(link, DONE, sizeof(DONE) - 1);
    }
}

/* Lets every link have what it waits for, with a chance of one in n. */
static void serve(struct play *p, unsigned n)
{
    struct world *w = p->w;

    for (unsigned i = 0; i < w->sim.n_links; i++) {
        struct iok_link *link = &w->sim.links[i];

        take_requests(p);
        if (link->dead || p->cut[server_of(link)] || any(p, n) != 0) {
            continue;
        }
        if (!link->connected) {
            meet(p, i);
        } else if (p->requests[i] > 0) {
            answer(p, i);
        } else if (p->resets[i] > 0) {
            p->resets[i]--;
            sim_arrive_bytes(link, DONE, sizeof(DONE) - 1);
        }
        world_run(w);
    }
    take_requests(p);
}

static void crash(struct play *p, unsigned server)
{
    for (unsigned i = 0; i < p->w->sim.n_links; i++) {
        if (!p->w->sim.links[i].dead && server_of(&p->w->sim.links[i]) == server) {
            sim_fail(&p->w->sim.links[i], IOK_ERESET);
        }
    }
    p->alive[server] = false;
}

static void pick_up(struct play *p)
{
    world_take(p->w);
    for (unsigned i = 0; i < CALLS_MAX; i++) {
        if (p->calls[i] != NULL && iok_call_outcome(p->calls[i]) != IOK_PENDING) {
            p->outcomes[p->ids[i]] = iok_call_outcome(p->calls[i]);
            iok_call_free(p->calls[i]);
            p->calls[i] = NULL;
        }
    }
}

static struct iok_call *make_call(struct play *p, int64_t timeout_ms, struct iok_lease *lease)
{
    struct iok_call *call = iok_call_new(p->w->port, p->w->service, NULL);
    char text[16];
    int n = snprintf(text, sizeof(text), "q%u", ++p->n_ids);

    assert_non_null(call);
    iok_call_text(call, text, (size_t)n);
    iok_call_timeout(call, timeout_ms);
    iok_call_repeatable(call, is_repeatable(p->n_ids));
    if (lease != NULL) {
        iok_call_lease(call, lease);
    }
    world_hand_in(p->w, call);
    return call;
}

static void submit(struct play *p)
{
    unsigned i = any(p, CALLS_MAX);
    bool leased = any(p, 8) == 0;

    if (p->calls[i] == NULL) {
        p->calls[i] = make_call(p, any(p, 2) == 0 ? 300 : 20000, leased ? p->lease : NULL);
        p->ids[i] = p->n_ids;
    }
}

static void step(struct play *p)
{
    unsigned server = any(p, SERVERS);

    switch (any(p, 14)) {
    case 0:
        crash(p, server);
        break;
    case 1:
        p->alive[server] = true;
        p->standby[server] = any(p, 2) != 0;
        break;
    case 2:
        p->standby[server] = false; /* promoted, or its name moved */
        break;
    case 3:
        p->standby[server] = any(p, 4) == 0; /* a connection is at another server now, as behind a pooler */
        break;
    case 4:
        iok_lease_free(p->lease);
        p->lease = iok_lease_new(p->w->port, p->w->service, NULL);
        break;
    case 5:
    case 6:
        world_advance(p->w, (uint64_t)any(p, 400) * SIM_MS);
        break;
    case 7:
        p->cut[server] = !p->cut[server];
        break;
    default:
        submit(p);
        break;
    }
    world_run(p->w);
    serve(p, 2);
    pick_up(p);
}

/* Links that are over make room for others: a play has more than the network holds. */
static void forget_dead(struct play *p)
{
    struct sim *sim = &p->w->sim;

    if (sim->n_links > 0 && sim->links[sim->n_links - 1].dead) {
        run_late(p, sim->n_links - 1);
        sim->n_links--;
        free(sim->links[sim->n_links].got);
    }
}

static void check_outcomes(struct play *p)
{
    for (unsigned id = 1; id <= p->n_ids; id++) {
        if (p->outcomes[id] == IOK_DONE && p->executed[id] == 0 && !p->refused[id]) {
            fail_play(p, "a call is done, and was not run");
        }
        if ((p->outcomes[id] == IOK_NEVER_SENT || p->outcomes[id] == IOK_REJECTED) && p->executed[id] != 0) {
            fail_play(p, "a call was run, and is said not to be");
        }
    }
}

static void check_peace(struct play *p)
{
    struct world *w = p->w;
    struct iok_call *call;
    unsigned links = 0;

    iok_lease_free(p->lease);
    for (unsigned server = 0; server < SERVERS; server++) {
        if (p->wish == IOK_WISH_PREFER_STANDBY ||
            any(p, 2) == 0) { /* as a demotion is; it would stay with what is up */
            crash(p, server);
        }
        p->alive[server] = true;
        p->cut[server] = false;
        p->standby[server] = server != 1;
    }
    for (unsigned i = 0; i < 400; i++) {
        serve(p, 1);
        world_advance(w, 100 * SIM_MS); /* 40 s in all: more than any deadline and pause */
        pick_up(p);
        while (w->sim.n_links > 0 && sim_last(&w->sim)->dead) {
            forget_dead(p);
        }
    }
    for (unsigned i = 0; i < CALLS_MAX; i++) {
        if (p->calls[i] != NULL) {
            fail_play(p, "a call that does not end");
        }
    }
    call = make_call(p, 0, NULL);
    for (unsigned i = 0; i < 20; i++) {
        world_run(w);
        serve(p, 1);
    }
    world_take(w);
    if (iok_call_outcome(call) != IOK_DONE) {
        fail_play(p, "the last call is not answered");
    }
    p->outcomes[p->n_ids] = IOK_DONE;
    world_expect(w, call, IOK_DONE, 0, NULL);
    for (unsigned i = 0; i < w->sim.n_links; i++) {
        struct iok_link *link = &w->sim.links[i];
        uint32_t role = IOK_ROLE_KNOWN | (p->said_standby[i] ? IOK_ROLE_STANDBY : 0u); /* an idle one says no more */

        links += !link->dead;
        if (!link->dead && !iok_role_fits(role, p->wish)) {
            fail_play(p, "a connection to a server that is not wished for");
        }
    }
    /* Several that fit may have been tried at the same time, and keep one each. */
    if (links < w->service->config.connections ||
        links > w->service->config.connections + (iok_wish_writes(p->wish) ? 0 : SERVERS - 1)) {
        fail_play(p, "not as many connections as asked for");
    }
    for (unsigned i = 0; i < w->sim.n_links; i++) {
        if (w->sim.links[i].dead) {
            run_late(p, i);
        }
    }
    check_outcomes(p);
}

static void play(uint64_t seed)
{
    struct play p = {.seed = seed, .random = seed * 2 + 1};
    char url[300];

    p.wish = (enum iok_wish)any(&p, 6);
    (void)snprintf(
        url, sizeof(url),
        "postgresql://u@10.0.0.1:1,10.0.0.2:2,10.0.0.3:3/d?connections=%u&ping=%s&statements=0&sslmode=disable"
        "&connect_timeout=3s&lease_idle=1s&target_session_attrs=%s&load_balance_hosts=%s",
        1 + any(&p, 3), any(&p, 2) == 0 ? "0" : "1s&ping_timeout=700ms", wishes[p.wish],
        any(&p, 2) == 0 ? "disable" : "random");
    for (unsigned server = 0; server < SERVERS; server++) {
        p.alive[server] = any(&p, 3) != 0;
        p.standby[server] = any(&p, 2) == 0;
    }
    p.w = world_new(url);
    p.lease = iok_lease_new(p.w->port, p.w->service, NULL);
    for (unsigned i = 0; i < STEPS; i++) {
        step(&p);
        while (p.w->sim.n_links > 0 && sim_last(&p.w->sim)->dead) {
            forget_dead(&p);
        }
    }
    check_peace(&p);
    world_free(p.w);
}

static void test_plays(void **state)
{
    const char *seed = getenv("IOK_SEED");

    (void)state;
    for (uint64_t i = seed != NULL ? strtoull(seed, NULL, 10) : 1; i <= SEEDS; i++) {
        play(i);
        if (seed != NULL) {
            return;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_plays)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
