/* test_endpoints.c - services of several hosts: which of them is connected to, and when, as wishes and roles have it. The
 * hosts are PostgreSQL servers that the test plays, told apart by their ports. Time passes only when told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "simnet.h"

#define URL "postgresql://u@10.0.0.1:1,10.0.0.2:2,10.0.0.3:3/d?connections=2&ping=0&statements=0&sslmode=disable"

#define MANY "postgresql://u@10.0.0.1:1,10.0.0.2:2,10.0.0.3:3/d?connections=30&ping=0&statements=0&sslmode=disable"

#define ONE "postgresql://u@10.0.0.1:1/d?connections=1&ping=0&statements=0&sslmode=disable"

/* Messages of a server. */
#define OK "R\0\0\0\10\0\0\0\0"
#define STANDBY "S\0\0\0\26in_hot_standby\0on"
#define PRIMARY "S\0\0\0\27in_hot_standby\0off"
#define READ_ONLY "S\0\0\0\45default_transaction_read_only\0on"
#define READ_WRITE "S\0\0\0\46default_transaction_read_only\0off"
#define DONE "Z\0\0\0\5I"
#define ANSWER                                                                                                         \
    "1\0\0\0\4t\0\0\0\6\0\0n\0\0\0\4"                                                                                  \
    "2\0\0\0\4C\0\0\0\6X"
#define REFUSAL                                                                                                        \
    "1\0\0\0\4t\0\0\0\6\0\0n\0\0\0\4"                                                                                  \
    "2\0\0\0\4E\0\0\0\27VERROR\0C25006\0Mno\0"

#define arrive(link, bytes) sim_arrive_bytes((link), (bytes), sizeof(bytes)) /* with the final NUL */
#define arrive_done(link) sim_arrive_bytes((link), DONE, sizeof(DONE) - 1)

static unsigned port_of(const struct iok_link *link)
{
    return ntohs(link->address.v4.sin_port);
}

/* Links to a host that are alive: signed in, or all. */
static unsigned links_to(const struct world *w, unsigned port, bool connected)
{
    unsigned n = 0;

    for (unsigned i = 0; i < w->sim.n_links; i++) {
        const struct iok_link *link = &w->sim.links[i];

        n += !link->dead && port_of(link) == port && (link->connected || !connected);
    }
    return n;
}

/* A live link to a host: which is not connected yet, or one that is. */
static struct iok_link *find(struct world *w, unsigned port, bool connected)
{
    for (unsigned i = 0; i < w->sim.n_links; i++) {
        struct iok_link *link = &w->sim.links[i];

        if (!link->dead && port_of(link) == port && link->connected == connected) {
            return link;
        }
    }
    fail_msg("there is no link to port %u that is %sconnected", port, connected ? "" : "not ");
    return NULL;
}

static void says_primary(struct world *w, struct iok_link *link)
{
    sim_connect(link);
    sim_arrive_bytes(link, OK, sizeof(OK) - 1);
    arrive(link, PRIMARY);
    arrive_done(link);
    world_run(w);
    sim_clear(link);
}

static void says_standby(struct world *w, struct iok_link *link)
{
    sim_connect(link);
    sim_arrive_bytes(link, OK, sizeof(OK) - 1);
    arrive(link, STANDBY);
    arrive_done(link);
    world_run(w);
    sim_clear(link);
}

static void refuse(struct world *w, unsigned port)
{
    sim_fail(find(w, port, false), IOK_EREFUSED);
    world_run(w);
}

/* All connections to a host break. */
static void crash(struct world *w, unsigned port)
{
    for (unsigned i = 0; i < w->sim.n_links; i++) {
        if (!w->sim.links[i].dead && port_of(&w->sim.links[i]) == port) {
            sim_fail(&w->sim.links[i], IOK_ERESET);
        }
    }
    world_run(w);
}

static struct iok_call *submit(struct world *w, int64_t timeout_ms)
{
    struct iok_call *call = world_submit(w, "a", timeout_ms, NULL);

    world_run(w);
    return call;
}

static bool got_request(const struct iok_link *link)
{
    return link->n_got > 0;
}

static void answer(struct world *w, struct iok_link *link)
{
    arrive(link, ANSWER);
    arrive_done(link);
    sim_clear(link);
    world_run(w);
}

static void check_state(struct world *w, unsigned port, enum iok_endpoint_state state)
{
    assert_int_equal(w->service->endpoints[port - 1].state, state);
}

static void test_in_order(void **state)
{
    struct world *w = world_new(URL);

    (void)state;
    assert_int_equal(w->sim.n_links, 1); /* what comes of it decides about the rest */
    refuse(w, 1);
    assert_int_equal(w->sim.n_links, 2);
    says_standby(w, find(w, 2, false)); /* any will do */
    assert_int_equal(w->sim.n_links, 3);
    says_standby(w, find(w, 2, false));
    world_advance(w, 60 * SIM_S);
    assert_int_equal(w->sim.n_links, 3); /* nothing is lacking, so the first is left alone */
    check_state(w, 1, IOK_ENDPOINT_DOWN);
    check_state(w, 2, IOK_ENDPOINT_UP);
    check_state(w, 3, IOK_ENDPOINT_IDLE);
    sim_fail(find(w, 2, true), IOK_ERESET); /* the other one lives: the host does, too */
    world_run(w);
    assert_int_equal(w->sim.n_links, 3);
    world_advance(w, 11 * SIM_MS);
    assert_int_equal(links_to(w, 2, false), 2);
    crash(w, 2);
    assert_int_equal(links_to(w, 1, false), 1);
    refuse(w, 1);
    assert_int_equal(links_to(w, 3, false), 1); /* nobody waits for the backoff of another */
    says_primary(w, find(w, 3, false));
    assert_int_equal(links_to(w, 3, false), 2);
    world_free(w);
}

static void test_slow_host_holds_up_nobody(void **state)
{
    struct world *w = world_new(URL);
    struct iok_link *slow = find(w, 1, false);
    struct iok_call *call = submit(w, 0);

    (void)state;
    world_advance(w, 240 * SIM_MS);
    assert_int_equal(w->sim.n_links, 1);
    world_advance(w, 15 * SIM_MS);
    assert_int_equal(links_to(w, 2, false), 1);
    says_primary(w, find(w, 2, false));
    assert_true(got_request(find(w, 2, true)) || call->state == IOK_CALL_SENT);
    answer(w, find(w, 2, true));
    world_expect(w, call, IOK_DONE, 0, NULL);
    assert_false(slow->dead);
    says_primary(w, slow); /* comes late, and is as good */
    assert_int_equal(links_to(w, 1, true) + links_to(w, 2, true), 2);
    world_free(w);
}

static void test_finds_the_primary(void **state)
{
    struct world *w = world_new(URL "&target_session_attrs=primary");
    struct iok_call *call = submit(w, 0);
    struct iok_link *primary;

    (void)state;
    says_standby(w, find(w, 1, false));
    assert_int_equal(links_to(w, 1, false), 0); /* it is of no use, and closed */
    says_standby(w, find(w, 2, false));
    check_state(w, 1, IOK_ENDPOINT_UNFIT);
    primary = find(w, 3, false);
    sim_connect(primary);
    sim_arrive_bytes(primary, OK, sizeof(OK) - 1);
    arrive(primary, PRIMARY);
    assert_int_equal(call->state, IOK_CALL_QUEUED);
    arrive_done(primary);
    world_run(w);
    assert_int_equal(call->state, IOK_CALL_SENT);
    assert_int_equal(links_to(w, 3, false), 2); /* now that it is known */
    answer(w, primary);
    assert_string_equal(iok_call_endpoint(call), "10.0.0.3:3");
    world_expect(w, call, IOK_DONE, 0, NULL);
    world_advance(w, 60 * SIM_S);
    assert_int_equal(links_to(w, 1, false) + links_to(w, 2, false), 0); /* no look while all is well */
    crash(w, 3);
    says_standby(w, find(w, 1, false));
    says_standby(w, find(w, 2, false));
    world_advance(w, 11 * SIM_MS); /* but now at once, and often */
    assert_int_equal(links_to(w, 1, false), 1);
    world_free(w);
}

/* Its connections are lost, and another is promoted after a while. */
static void test_promotion(void **state)
{
    struct world *w = world_new(URL "&target_session_attrs=primary");
    struct iok_call *lost, *call;
    uint64_t start;

    (void)state;
    says_primary(w, find(w, 1, false));
    says_primary(w, find(w, 1, false));
    lost = submit(w, 0);
    assert_int_equal(lost->state, IOK_CALL_SENT);
    crash(w, 1);
    world_expect(w, lost, IOK_MAYBE_EXECUTED, IOK_ERESET, NULL);
    call = submit(w, 60000);
    start = w->sim.now;
    while (w->sim.now - start < 10 * SIM_S) {
        for (unsigned port = 1; port <= 3; port++) {
            if (links_to(w, port, false) != 0 && port == 1) {
                refuse(w, port);
            } else if (links_to(w, port, false) != 0) {
                says_standby(w, find(w, port, false));
            }
        }
        world_advance(w, SIM_MS);
    }
    world_pending(w, call);
    assert_in_range(w->sim.n_links, 15, 60); /* three hosts in 10 s, at growing distances */
    while (links_to(w, 2, false) == 0) {     /* now it is one */
        if (links_to(w, 1, false) != 0) {
            refuse(w, 1);
        }
        if (links_to(w, 3, false) != 0) {
            says_standby(w, find(w, 3, false));
        }
        world_advance(w, SIM_MS);
        assert_true(w->sim.now - start < 13 * SIM_S); /* the longest pause is 2 s */
    }
    says_primary(w, find(w, 2, false));
    assert_int_equal(call->state, IOK_CALL_SENT);
    answer(w, find(w, 2, true));
    assert_string_equal(iok_call_endpoint(call), "10.0.0.2:2");
    world_expect(w, call, IOK_DONE, 0, NULL);
    world_free(w);
}

static void test_all_in_vain(void **state)
{
    struct world *w = world_new(URL "&target_session_attrs=primary");
    struct iok_call *call = submit(w, 100);
    struct iok_error err = {.text = ""};

    (void)state;
    refuse(w, 1);
    says_standby(w, find(w, 2, false));
    sim_fail(find(w, 3, false), IOK_ERESET);
    world_run(w);
    world_advance(w, 110 * SIM_MS);
    world_take(w);
    assert_int_equal(iok_call_error(call, &err), IOK_EREFUSED);
    assert_string_equal(err.text, "no connection within 0.1 s: 10.0.0.1:1: connection refused by 10.0.0.1:7000; "
                                  "10.0.0.2:2: it is a standby, and the wish is a primary; "
                                  "10.0.0.3:3: connection reset");
    world_expect(w, call, IOK_NEVER_SENT, IOK_EREFUSED, NULL);
    world_free(w);
}

/* A wrong password at all hosts does not heal by waiting; at one of them it says nothing about the others. */
static void test_fails_fast_when_all_refuse(void **state)
{
    struct world *w = world_new(URL);
    struct iok_call *call = submit(w, 0);

    (void)state;
    for (unsigned port = 1; port <= 3; port++) {
        world_pending(w, call);
        sim_fail(find(w, port, false), IOK_EAUTH);
        world_run(w);
    }
    world_expect(w, call, IOK_NEVER_SENT, IOK_EAUTH, NULL);
    world_free(w);
}

static void test_prefers_a_standby(void **state)
{
    struct world *w = world_new(URL "&target_session_attrs=prefer-standby");
    struct iok_call *call = submit(w, 0);

    (void)state;
    says_primary(w, find(w, 1, false));
    world_pending(w, call);
    refuse(w, 2);
    assert_int_equal(call->state, IOK_CALL_QUEUED);
    refuse(w, 3); /* the second choice */
    while (links_to(w, 1, true) == 0) {
        while (links_to(w, 2, false) != 0) {
            refuse(w, 2);
        }
        while (links_to(w, 3, false) != 0) {
            refuse(w, 3);
        }
        if (links_to(w, 1, false) != 0) {
            says_primary(w, find(w, 1, false));
        } else {
            world_advance(w, SIM_MS);
        }
    }
    assert_int_equal(call->state, IOK_CALL_SENT);
    check_state(w, 1, IOK_ENDPOINT_UP);
    while (links_to(w, 3, false) == 0) { /* a better one is looked for */
        if (links_to(w, 2, false) != 0) {
            refuse(w, 2);
        }
        world_advance(w, SIM_MS);
    }
    says_standby(w, find(w, 3, false));
    check_state(w, 3, IOK_ENDPOINT_UP);
    check_state(w, 1, IOK_ENDPOINT_UNFIT);
    assert_int_equal(links_to(w, 1, true), 1); /* the one that has not answered yet */
    answer(w, find(w, 1, true));
    world_expect(w, call, IOK_DONE, 0, NULL);
    assert_int_equal(links_to(w, 1, true), 0);
    call = submit(w, 0);
    answer(w, find(w, 3, true));
    world_expect(w, call, IOK_DONE, 0, NULL);
    world_free(w);
}

/* It refuses a write: what it said is in doubt, and a new connection is asked. The call is asked for where it can run. */
static void test_doubt(void **state)
{
    struct world *w = world_new(URL "&target_session_attrs=read-write");
    struct iok_link *first = find(w, 1, false), *second;
    struct iok_call *refused, *before;

    (void)state;
    says_primary(w, first);
    second = find(w, 1, false);
    says_primary(w, second);
    refused = submit(w, 0);
    before = submit(w, 0);
    assert_true(got_request(first) && got_request(second));
    if (refused->conn->link != first) {
        struct iok_link *swap = first;
        first = second;
        second = swap;
    }
    sim_clear(first);
    arrive(first, REFUSAL);
    arrive_done(first);
    world_run(w);
    assert_true(first->dead);
    world_pending(w, refused);
    check_state(w, 1, IOK_ENDPOINT_TRYING);
    assert_int_equal(refused->state, IOK_CALL_QUEUED);
    says_standby(w, find(w, 1, false));
    check_state(w, 1, IOK_ENDPOINT_UNFIT);
    assert_false(second->dead); /* an answer is under way */
    says_primary(w, find(w, 2, false));
    answer(w, find(w, 2, true));
    assert_string_equal(iok_call_endpoint(refused), "10.0.0.2:2");
    world_expect(w, refused, IOK_DONE, 0, NULL);
    answer(w, second);
    assert_string_equal(iok_call_endpoint(before), "10.0.0.1:1");
    world_expect(w, before, IOK_DONE, 0, NULL);
    assert_true(second->dead);
    world_free(w);
}

/* The server insists that it writes, and refuses again: after some attempts that is the answer. */
static void test_doubt_ends(void **state)
{
    struct world *w = world_new(
        "postgresql://u@10.0.0.1:1/d?connections=1&ping=0&statements=0&sslmode=disable&target_session_attrs=primary");
    struct iok_call *call = submit(w, 60000);
    unsigned rounds = 0;

    (void)state;
    while (call->state != IOK_CALL_ENDED && rounds < 10) {
        struct iok_link *link;

        if (links_to(w, 1, true) == 0) {
            says_primary(w, find(w, 1, false));
        }
        link = find(w, 1, true);
        arrive(link, REFUSAL);
        arrive_done(link);
        world_run(w);
        rounds++;
    }
    assert_int_equal(rounds, 4);         /* one for the connection, two retries, and then it ends */
    assert_int_equal(w->sim.n_links, 2); /* the doubt was resolved once, not for each */
    world_expect(w, call, IOK_REJECTED, 0, NULL);
    world_free(w);
}

/* A standby that is promoted says so with its next answer: it is no standby any more. */
static void test_reported_promotion(void **state)
{
    struct world *w = world_new(URL "&target_session_attrs=standby");
    struct iok_link *link = find(w, 1, false);
    struct iok_call *call;

    (void)state;
    says_standby(w, link);
    says_standby(w, find(w, 1, false));
    call = submit(w, 0);
    if (call->conn->link != link) {
        link = find(w, 1, true) == link ? &w->sim.links[1] : link;
    }
    sim_clear(call->conn->link);
    link = call->conn->link;
    arrive(link, ANSWER);
    arrive(link, PRIMARY);
    arrive_done(link);
    world_run(w);
    world_expect(w, call, IOK_DONE, 0, NULL);
    check_state(w, 1, IOK_ENDPOINT_UNFIT);
    assert_int_equal(links_to(w, 1, false), 0);
    says_standby(w, find(w, 2, false));
    check_state(w, 2, IOK_ENDPOINT_UP);
    world_free(w);
}

/* A lease waits for a host that is wished for, and its own refusals are its own business. */
static void test_leases(void **state)
{
    struct world *w = world_new(URL "&target_session_attrs=primary");
    struct iok_lease *lease = iok_lease_new(w->port, w->service, NULL);
    struct iok_call *call = world_submit(w, "a", 0, lease);
    struct iok_link *link;

    (void)state;
    world_run(w);
    says_standby(w, find(w, 1, false));
    says_primary(w, find(w, 2, false));
    says_primary(w, find(w, 2, false));
    link = sim_last(&w->sim);
    assert_int_equal(port_of(link), 2);
    says_primary(w, link);
    assert_int_equal(call->state, IOK_CALL_SENT);
    arrive(link, REFUSAL);
    sim_arrive_bytes(link, "Z\0\0\0\5E", 6);
    world_run(w);
    world_expect(w, call, IOK_DONE, 0, NULL);
    check_state(w, 2, IOK_ENDPOINT_UP); /* the next lease will have another connection, and ask */
    assert_int_equal(links_to(w, 2, true), 3);
    iok_lease_free(lease);
    world_run(w);
    world_free(w);
}

/* Bytes for a lease's connection: the shared one is the first. */
static struct iok_link *link_of(struct iok_call *call)
{
    assert_int_equal(call->state, IOK_CALL_SENT);
    sim_clear(call->conn->link);
    return call->conn->link;
}

/* What a lease sets for itself says nothing about the server. */
static void test_settings_of_a_lease(void **state)
{
    struct world *w = world_new(ONE "&target_session_attrs=read-write");
    struct iok_lease *lease = iok_lease_new(w->port, w->service, NULL);
    struct iok_call *call = world_submit(w, "SET default_transaction_read_only TO on", 0, lease);
    struct iok_link *link;

    (void)state;
    world_run(w);
    says_primary(w, find(w, 1, false));
    says_primary(w, find(w, 1, false));
    link = link_of(call);
    arrive(link, ANSWER);
    arrive(link, READ_ONLY);
    arrive_done(link);
    world_run(w);
    world_expect(w, call, IOK_DONE, 0, NULL);
    check_state(w, 1, IOK_ENDPOINT_UP);
    iok_lease_free(lease);
    world_run(w);
    arrive(link, READ_WRITE); /* RESET ALL */
    arrive_done(link);
    world_run(w);
    check_state(w, 1, IOK_ENDPOINT_UP);
    assert_int_equal(links_to(w, 1, true), 2);
    world_free(w);
}

/* While a host is in doubt, no lease begins on a connection that is left of it. */
static void test_no_lease_in_doubt(void **state)
{
    struct world *w = world_new(ONE "&target_session_attrs=primary");
    struct iok_lease *lease = iok_lease_new(w->port, w->service, NULL);
    struct iok_call *leased = world_submit(w, "a", 0, lease), *call;
    struct iok_link *link;

    (void)state;
    world_run(w);
    says_primary(w, find(w, 1, false));
    says_primary(w, find(w, 1, false));
    link = link_of(leased);
    answer(w, link);
    world_expect(w, leased, IOK_DONE, 0, NULL);
    iok_lease_free(lease);
    world_run(w);
    arrive_done(link); /* it is clean, and idle */
    world_run(w);
    assert_int_equal(links_to(w, 1, true), 2);
    call = submit(w, 0);
    link = link_of(call);
    arrive(link, REFUSAL);
    arrive_done(link);
    lease = iok_lease_new(w->port, w->service, NULL);
    leased = world_submit(w, "a", 0, lease);
    world_run(w);
    assert_int_equal(leased->state, IOK_CALL_QUEUED);
    says_primary(w, find(w, 1, false)); /* it is one after all */
    assert_int_equal(leased->state, IOK_CALL_SENT);
    answer(w, link_of(leased));
    world_expect(w, leased, IOK_DONE, 0, NULL);
    answer(w, link_of(call));
    world_expect(w, call, IOK_DONE, 0, NULL);
    iok_lease_free(lease);
    world_run(w);
    world_free(w);
}

static void at_random(const char *wish)
{
    char url[200];
    struct world *w;

    (void)snprintf(url, sizeof(url), "%s&load_balance_hosts=random&target_session_attrs=%s", MANY, wish);
    w = world_new(url);
    for (unsigned i = 0; i < w->sim.n_links; i++) {
        says_primary(w, &w->sim.links[i]);
    }
    assert_int_equal(w->sim.n_links, 30);
    for (unsigned port = 1; port <= 3; port++) {
        assert_in_range(links_to(w, port, true), 3, 20);
    }
    crash(w, 2);
    for (unsigned i = 0; i < w->sim.n_links; i++) {
        if (!w->sim.links[i].dead && !w->sim.links[i].connected) {
            says_primary(w, &w->sim.links[i]);
        }
    }
    assert_int_equal(links_to(w, 1, true) + links_to(w, 3, true), 30);
    world_free(w);
}

static void test_at_random(void **state)
{
    (void)state;
    at_random("any");
    at_random("primary"); /* as a cluster that can be written to anywhere has it */
}

/* Each host has a name of its own to look up; one that does not resolve is like one that is down. */
static void test_names(void **state)
{
    struct world *w = world_new("postgresql://u@one,two/d?connections=1&ping=0&statements=0&sslmode=disable&port=1,2");

    (void)state;
    assert_int_equal(w->sim.n_queries, 1);
    sim_resolved(&w->sim, NULL, 0, 0);
    world_run(w);
    assert_int_equal(w->sim.n_queries, 2);
    sim_resolved(&w->sim, "10.0.0.2", 2, SIM_S);
    world_run(w);
    says_primary(w, find(w, 2, false));
    check_state(w, 1, IOK_ENDPOINT_DOWN);
    check_state(w, 2, IOK_ENDPOINT_UP);
    world_free(w);
}

static void check_url(const char *url, int code, const char *names)
{
    struct iok_error err = {.text = ""};
    struct iok_service *service = iok_service_make(url, &err);

    if (service != NULL) {
        iok_service_drop(service);
    }
    if (err.code != code || strstr(err.text, names) == NULL) {
        fail_msg("%s: %s %s", url, iok_errno_name(err.code), err.text);
    }
}

static void test_bad_urls(void **state)
{
    (void)state;
    check_url("redis://a,b", IOK_EURL, "several hosts in one URL are not possible with redis");
    check_url("redis://%2Frun", IOK_EURL, "a directory means nothing to redis");
    check_url("redis://a?host=b", IOK_EOPTION, "unknown option 'host'");
    check_url("postgresql://u@a/d?host=b", IOK_EOPTION, "given twice");
    check_url("postgresql://u@/d?host=a,,b", IOK_EURL, "no host");
    check_url("postgresql://u@/d?host=a,b&port=1,2,3", IOK_EOPTION, "3 ports for 2 hosts");
    check_url("postgresql://u@a:1,b/d?port=2,3", IOK_EOPTION, "given twice");
    check_url("postgresql://u@a,b/d?port=2,x", IOK_EOPTION, "bad port=");
    check_url("postgresql+unix://u@/s/x?dbname=d&host=a", IOK_EOPTION, "given twice");
    check_url("postgresql+unix://u@/s/x?dbname=d&port=1", IOK_EOPTION, "has no port");
    check_url("postgresql://u@a/d?target_session_attrs=master", IOK_EOPTION, "prefer-standby");
    check_url("postgresql://u@a/d?load_balance_hosts=yes", IOK_EOPTION, "disable or random");
}

static void test_replica(void **state)
{
    struct iok_error err = {.text = ""};
    struct iok_service *service = iok_service_make("postgresql://u:pw@a,b/d?target_session_attrs=primary", &err);
    struct iok_service *replica = iok_service_make_replica(service, &err), *redis;

    (void)state;
    assert_non_null(replica);
    assert_int_equal(replica->config.wish, IOK_WISH_PREFER_STANDBY);
    assert_string_equal(replica->name, "postgresql://u@a:5432,b:5432/d?target_session_attrs=prefer-standby");
    assert_memory_equal(replica->url.password.p, "pw", 3);
    iok_service_drop(replica);
    iok_service_drop(service);
    redis = iok_service_make("redis://a", &err);
    assert_null(iok_service_make_replica(redis, &err));
    assert_int_equal(err.code, IOK_ESTATE);
    iok_service_drop(redis);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_order),
        cmocka_unit_test(test_slow_host_holds_up_nobody),
        cmocka_unit_test(test_finds_the_primary),
        cmocka_unit_test(test_promotion),
        cmocka_unit_test(test_all_in_vain),
        cmocka_unit_test(test_fails_fast_when_all_refuse),
        cmocka_unit_test(test_prefers_a_standby),
        cmocka_unit_test(test_doubt),
        cmocka_unit_test(test_doubt_ends),
        cmocka_unit_test(test_reported_promotion),
        cmocka_unit_test(test_leases),
        cmocka_unit_test(test_settings_of_a_lease),
        cmocka_unit_test(test_no_lease_in_doubt),
        cmocka_unit_test(test_at_random),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_bad_urls),
        cmocka_unit_test(test_replica),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
