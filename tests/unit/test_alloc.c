/* test_alloc.c - every allocation of the core fails once, on each of the main paths.
 *
 * A path is played against a small Redis server, which the test itself is and which notes what it has executed: first
 * to count the allocations, then once for each with that one failing. Whatever fails, every call ends exactly once and
 * truthfully (an answer is its own; never sent means not executed; at most once unless it may be repeated) with a code
 * and a text that say why, the service works again afterwards, and nothing is left over. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/base/mem.h"
#include "simnet.h"

#define URL "redis://10.0.0.1:7000?protocol=2&timeout=5s"
#define REQUESTS_MAX 400u
#define FAILURES_MAX 2000u /* no path makes so many allocations */
#define LARGE 300000u      /* bytes: more than the memory that a payload gets at first, and than one read */
#define ITEMS 300u         /* of a list: more tokens than a call holds, and more bytes than the first overflow memory */

/* ---- what was asked for, and what became of it ---- */

struct request {
    struct iok_call *call;
    unsigned id;
    bool repeatable, cancelled;
    unsigned ended, executed, messages;
};

struct trial {
    struct world *w;
    struct request requests[REQUESTS_MAX];
    unsigned n;
    struct iok_lease *lease;
    size_t executed[SIM_LINKS_MAX], answered[SIM_LINKS_MAX]; /* how much of a link's bytes was */
    bool mute;                                               /* the server executes, and answers later */
};

/* ---- the server ---- */

struct command {
    char name[16];
    const char *last; /* its last argument */
    size_t n_last;
    unsigned id; /* the number that its last argument begins with */
};

/* One whole command at *at; false if it did not come yet. */
static bool read_command(const char **at, struct command *command)
{
    const char *p = *at;
    char *end;
    unsigned long n = strtoul(p + 1, &end, 10);

    if (*p != '*' || *end != '\r') {
        return false;
    }
    p = end + 2;
    for (unsigned long i = 0; i < n; i++) {
        size_t length = *p == '$' ? strtoul(p + 1, &end, 10) : 0;

        if (*p != '$' || *end != '\r' || strlen(end) < length + 4) {
            return false;
        }
        p = end + 2;
        if (i == 0) {
            (void)snprintf(command->name, sizeof(command->name), "%.*s", (int)length, p);
        }
        command->last = p;
        command->n_last = length;
        p += length + 2;
    }
    command->id = (unsigned)strtoul(command->last, NULL, 10);
    *at = p;
    return true;
}

/* In two pieces, so that the rest of a header has to be kept. */
static void say(struct iok_link *link, const char *text)
{
    char start[3] = {text[0], text[1], '\0'};

    sim_arrive(link, start);
    if (!link->dead) {
        sim_arrive(link, text + 2);
    }
}

static char *list_of(const struct command *command)
{
    size_t cap = 64 + LARGE + ITEMS * 64, n;
    char *text = malloc(cap);

    assert_non_null(text);
    n = (size_t)snprintf(text, cap, "*%u\r\n$%u\r\n%0*u\r\n", ITEMS + 1, LARGE, (int)LARGE, command->id);
    for (unsigned i = 0; i < ITEMS; i++) {
        n += (size_t)snprintf(text + n, cap - n, "$40\r\n%040u\r\n", command->id);
    }
    return text;
}

static void answer(struct iok_link *link, const struct command *command)
{
    const char *name = command->name;
    char text[600], *list;

    if (strcmp(name, "LRANGE") == 0) {
        list = list_of(command);
        say(link, list);
        free(list);
        return;
    }
    if (strcmp(name, "SUBSCRIBE") == 0) {
        say(link, "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
        for (unsigned i = 0; i < 3 && !link->dead; i++) {
            (void)snprintf(text, sizeof(text), "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$400\r\n%0400u\r\n", i);
            say(link, text);
        }
        return;
    }
    if (strcmp(name, "GET") == 0 || strcmp(name, "APPEND") == 0 || strcmp(name, "BLPOP") == 0) {
        (void)snprintf(text, sizeof(text), "$400\r\n%0400u\r\n", command->id);
    } else {
        (void)snprintf(text, sizeof(text), "+OK\r\n");
    }
    say(link, text);
}

static void serve_link(struct trial *t, unsigned which)
{
    struct iok_link *link = &t->w->sim.links[which];
    const char *at = link->got + t->answered[which];
    struct command command;
    bool mute = false;

    while (!link->dead && read_command(&at, &command)) {
        size_t end = (size_t)(at - link->got);

        for (unsigned i = 0; i < t->n && end > t->executed[which]; i++) {
            t->requests[i].executed += t->requests[i].id == command.id;
        }
        t->executed[which] = end > t->executed[which] ? end : t->executed[which];
        mute |= t->mute && command.id != 0;
        if (!mute) {
            t->answered[which] = end;
            answer(link, &command);
        }
    }
}

/* Lets everything happen that can happen without time. */
static void live(struct trial *t)
{
    bool progress;

    do {
        progress = false;
        world_run(t->w);
        for (unsigned i = 0; i < t->w->sim.n_links; i++) {
            struct iok_link *link = &t->w->sim.links[i];
            size_t before = t->answered[i];

            if (!link->dead && !link->connected) {
                sim_connect(link);
                progress = true;
            } else if (!link->dead) {
                serve_link(t, i);
            }
            progress |= t->answered[i] != before;
        }
    } while (progress);
    world_run(t->w);
}

static void live_for(struct trial *t, uint64_t ns)
{
    for (uint64_t step = 20 * SIM_MS, done = 0; done < ns; done += step) {
        world_advance(t->w, step);
        live(t);
    }
}

/* ---- the program ---- */

/* A request whose number stands at the beginning of its last argument, which has n bytes or as many as it needs. NULL
 * if there is no memory for it. */
static struct request *ask(struct trial *t, struct iok_lease *lease, const char *name, size_t n)
{
    struct iok_call *call;
    struct iok_error err = {.code = 0};
    char *text;
    int rc;

    assert_true(t->n < REQUESTS_MAX);
    call = iok_call_new(t->w->port, t->w->service, &err);
    if (call == NULL) {
        assert_int_equal(err.code, IOK_ENOMEM);
        return NULL;
    }
    text = malloc(n + 32);
    assert_non_null(text);
    rc = snprintf(text, 32, "%u", t->n + 1);
    memset(text + rc, 'x', n + 32 - (size_t)rc);
    iok_call_text(call, name, strlen(name));
    if (strcmp(name, "BLPOP") == 0 || strcmp(name, "APPEND") == 0) {
        iok_call_text(call, "key", 3);
    }
    iok_call_bytes(call, text, n < (size_t)rc ? (size_t)rc : n);
    free(text);
    if (lease != NULL) {
        iok_call_lease(call, lease);
    }
    rc = iok_submit(call);
    if (rc != 0) {
        assert_int_equal(rc, IOK_ENOMEM);
        iok_call_free(call);
        return NULL;
    }
    call->submitted = t->w->sim.now;
    t->requests[t->n] = (struct request){
        .call = call, .id = t->n + 1, .repeatable = strcmp(name, "GET") == 0 || strcmp(name, "LRANGE") == 0};
    iok_call_set_user(call, &t->requests[t->n]);
    return &t->requests[t->n++];
}

static struct iok_lease *borrow(struct trial *t)
{
    struct iok_error err = {.code = 0};

    t->lease = iok_lease_new(t->w->port, t->w->service, &err);
    assert_true(t->lease != NULL || err.code == IOK_ENOMEM);
    return t->lease;
}

static void give_back(struct trial *t)
{
    if (t->lease != NULL) {
        iok_lease_free(t->lease);
        t->lease = NULL;
    }
}

/* Of a text that is a number with zeros before it, or with more behind it. */
static unsigned number(const struct iok_token *token)
{
    unsigned value = 0;

    for (uint32_t i = 0; i < token->len && token->p[i] >= '0' && token->p[i] <= '9'; i++) {
        value = 10 * value + (unsigned)(token->p[i] - '0');
    }
    return value;
}

static void read_messages(struct request *request)
{
    const struct iok_token *tokens;
    size_t n;

    while ((tokens = iok_call_message(request->call, &n)) != NULL) {
        if (n == 4 && tokens[1].len == 7) {
            assert_int_equal(number(&tokens[3]), request->messages); /* none is missing */
            request->messages++;
        }
        iok_call_next(request->call);
    }
}

static void pick_up(struct trial *t)
{
    struct iok_call *call;

    while ((call = iok_poll(t->w->port)) != NULL) {
        struct request *request = iok_call_user(call);

        read_messages(request);
        request->ended += iok_call_outcome(call) != IOK_PENDING;
    }
}

/* ---- the truth ---- */

static void check_reply(const struct request *request)
{
    size_t n;
    const struct iok_token *tokens = iok_call_reply(request->call, &n);

    assert_true(n > 0);
    if (tokens[0].type == IOK_BYTES) {
        assert_int_equal(number(&tokens[0]), request->id);
    } else if (tokens[0].type == IOK_ARRAY) {
        assert_int_equal(n, ITEMS + 2);
        assert_int_equal(tokens[1].len, LARGE);
        for (size_t i = 2; i < n; i++) {
            assert_int_equal(number(&tokens[i]), request->id);
        }
    } else {
        assert_true(tokens[0].type == IOK_TEXT || tokens[0].type == IOK_I64);
    }
}

static void check(struct request *request)
{
    struct iok_error err = {.code = 0};
    int code = iok_call_error(request->call, &err);
    enum iok_outcome outcome = iok_call_outcome(request->call);

    if (request->ended != 1 || outcome == IOK_PENDING) {
        fail_msg("request %u ended %u times", request->id, request->ended);
    }
    assert_true(request->executed <= 1 || request->repeatable);
    assert_true(code == 0 || strlen(err.text) > 8);
    switch (outcome) {
    case IOK_DONE:
        assert_true(request->executed > 0);
        assert_true(code == 0 || code == IOK_ENOMEM);
        if (code == 0) {
            check_reply(request);
        }
        break;
    case IOK_NEVER_SENT:
        assert_int_equal(request->executed, 0);
        assert_true(code == IOK_ENOMEM || code == IOK_ECLOSED || code == IOK_ETIMEOUT || code == IOK_ECANCELLED ||
                    code == IOK_ERESET || code == IOK_EREFUSED);
        break;
    case IOK_MAYBE_EXECUTED:
        assert_true(code == IOK_ENOMEM || code == IOK_ERESET || code == IOK_ETIMEOUT || code == IOK_ECANCELLED ||
                    code == IOK_ECLOSED);
        break;
    default:
        fail_msg("request %u was %s", request->id, iok_outcome_name(outcome));
    }
}

/* ---- the paths ---- */

static void path_small(struct trial *t)
{
    live(t); /* connects and signs in */
    (void)ask(t, NULL, "APPEND", 0);
    (void)ask(t, NULL, "GET", 0);
    live(t);
}

static void path_large(struct trial *t)
{
    live(t);
    (void)ask(t, NULL, "APPEND", LARGE);
    (void)ask(t, NULL, "LRANGE", 0);
    (void)ask(t, NULL, "APPEND", 5000);
    live(t);
}

/* More than the first rings and buffers hold. */
static void path_many(struct trial *t)
{
    live(t);
    for (unsigned i = 0; i < 300; i++) {
        (void)ask(t, NULL, i % 3 == 0 ? "GET" : "APPEND", i % 50 == 0 ? 6000 : i);
    }
    live(t);
}

/* Executed, and the connection is lost before the answer: what may be repeated is. */
static void path_retry(struct trial *t)
{
    live(t);
    t->mute = true;
    (void)ask(t, NULL, "GET", 5000);
    (void)ask(t, NULL, "APPEND", 5000);
    live(t);
    for (unsigned i = 0; i < t->w->sim.n_links; i++) {
        if (!t->w->sim.links[i].dead) {
            sim_fail(&t->w->sim.links[i], IOK_ERESET);
        }
    }
    t->mute = false;
    (void)ask(t, NULL, "APPEND", 0);
    live_for(t, SIM_S);
}

/* In flight, partly sent, and queued: large arguments of cancelled calls have to be copied. */
static void path_cancel(struct trial *t)
{
    struct request *requests[4];

    live(t);
    t->mute = true;
    if (sim_live_links(&t->w->sim) > 0) {
        sim_last(&t->w->sim)->window = 30000;
    }
    for (unsigned i = 0; i < 4; i++) {
        requests[i] = ask(t, NULL, "APPEND", 20000);
    }
    world_run(t->w);
    for (unsigned i = 0; i < 4; i++) {
        if (requests[i] != NULL) {
            iok_cancel(requests[i]->call);
        }
    }
    world_run(t->w);
    for (unsigned i = 0; i < t->w->sim.n_links; i++) {
        sim_accept(&t->w->sim.links[i], SIZE_MAX);
    }
    t->mute = false;
    live(t);
}

static void path_deadline(struct trial *t)
{
    live(t);
    t->mute = true;
    (void)ask(t, NULL, "APPEND", 9000);
    (void)ask(t, NULL, "GET", 0);
    live_for(t, 6 * SIM_S);
    t->mute = false;
}

static void path_transaction(struct trial *t)
{
    live(t);
    if (borrow(t) != NULL) {
        (void)ask(t, t->lease, "WATCH", 0);
        (void)ask(t, t->lease, "MULTI", 0); /* an argument too many; this server does not mind */
        (void)ask(t, t->lease, "APPEND", 5000);
        (void)ask(t, t->lease, "EXEC", 0);
        live(t);
        give_back(t);
        live(t); /* made clean */
    }
}

/* Given back with large calls under way, of which a part is not sent. */
static void path_release(struct trial *t)
{
    live(t);
    if (borrow(t) == NULL) {
        return;
    }
    t->mute = true;
    (void)ask(t, t->lease, "WATCH", 0);
    live(t);
    sim_last(&t->w->sim)->window = 30000;
    for (unsigned i = 0; i < 4; i++) {
        (void)ask(t, t->lease, "APPEND", 20000);
    }
    world_run(t->w);
    give_back(t);
    world_run(t->w);
    t->mute = false;
    live(t);
}

static void path_blocking(struct trial *t)
{
    live(t);
    (void)ask(t, NULL, "BLPOP", 0);
    (void)ask(t, NULL, "BLPOP", 0);
    live(t);
}

static void path_stream(struct trial *t)
{
    struct request *request;

    live(t);
    if (borrow(t) == NULL) {
        return;
    }
    request = ask(t, t->lease, "SUBSCRIBE", 0);
    live_for(t, SIM_S);
    pick_up(t);
    if (request != NULL && request->ended == 0) { /* else its end says that something may be missing */
        assert_int_equal(request->messages, 3);
    }
    give_back(t);
    live(t);
}

/* Pings after some quiet. */
static void path_quiet(struct trial *t)
{
    live_for(t, SIM_S);
    world_advance(t->w, 40 * SIM_S);
    live(t);
    (void)ask(t, NULL, "GET", 0);
    live(t);
}

static void path_close(struct trial *t)
{
    live(t);
    t->mute = true;
    (void)ask(t, NULL, "APPEND", 5000);
    (void)ask(t, NULL, "BLPOP", 0);
    if (borrow(t) != NULL) {
        (void)ask(t, t->lease, "WATCH", 0);
    }
    live(t);
    iok_service_close(t->w->service, t->w->port);
    world_run(t->w);
    (void)ask(t, NULL, "GET", 0);
    world_run(t->w);
    give_back(t);
    t->mute = false;
}

/* ---- a trial ---- */

/* What is asked for later has its answer. */
static void check_recovery(struct trial *t)
{
    struct request *request;

    t->mute = false;
    live_for(t, 3 * SIM_S);
    request = ask(t, NULL, "APPEND", 0);
    assert_non_null(request);
    live_for(t, SIM_S);
    pick_up(t);
    assert_int_equal(iok_call_outcome(request->call), IOK_DONE);
    assert_int_equal(iok_call_error(request->call, NULL), 0);
}

/* Returns the allocations. */
static unsigned long try(void (*path)(struct trial *t), unsigned long fail_at)
{
    struct trial *t = calloc(1, sizeof(*t));
    unsigned long allocations;

    assert_non_null(t);
    t->w = world_new(URL);
    iok_mem_fail_at(fail_at);
    path(t);
    allocations = iok_mem_count();
    iok_mem_fail_at(0);
    if (path != path_close) {
        check_recovery(t);
    }
    live_for(t, 6 * SIM_S); /* beyond every deadline */
    pick_up(t);
    for (unsigned i = 0; i < t->n; i++) {
        check(&t->requests[i]);
        if (fail_at == 0 && path != path_close && path != path_cancel && path != path_deadline &&
            path != path_release && path != path_stream && !(path == path_retry && !t->requests[i].repeatable)) {
            assert_int_equal(iok_call_error(t->requests[i].call, NULL), 0);
        }
        iok_call_free(t->requests[i].call);
    }
    give_back(t);
    world_free(t->w);
    free(t);
    return allocations;
}

static void test_path(void **state)
{
    void (*path)(struct trial * t) = *(void (**)(struct trial *)) * state;
    unsigned long allocations = try(path, 0);

    assert_true(allocations > 3 && allocations < FAILURES_MAX);
    for (unsigned long n = 1; n <= allocations; n++) {
        (void)try(path, n);
    }
}

/* ---- what is made before there are calls ---- */

/* A kernel with its thread, on the real driver. What fails is what this thread allocates. */
static void test_kernel(void **state)
{
    struct iok_kernel *kernel = NULL;
    unsigned long n = 0;

    (void)state;
    while (kernel == NULL) {
        struct iok_error err = {.code = 0};

        iok_mem_fail_at(++n);
        kernel = iok_kernel_new(NULL, &err);
        iok_mem_fail_at(0);
        assert_true(kernel != NULL || (err.code == IOK_ENOMEM && strlen(err.text) > 8));
        assert_int_not_equal(fcntl(0, F_GETFD), -1); /* what failed closes nothing of the program's */
        assert_true(n < 20);
    }
    assert_true(n > 2);
    iok_kernel_free(kernel);
}

static void test_port(void **state)
{
    struct world *w = world_new(URL);
    struct iok_port *port = NULL;
    unsigned long n = 0;

    (void)state;
    while (port == NULL) {
        struct iok_error err = {.code = 0};

        iok_mem_fail_at(++n);
        port = iok_port_new(w->kernel, &err);
        iok_mem_fail_at(0);
        assert_true(port != NULL || (err.code == IOK_ENOMEM && strlen(err.text) > 8));
        assert_true(n < 20);
    }
    assert_true(n > 2);
    assert_true(iok_ring_push(&port->link.sq, iok_entry(port, IOK_SQ_DETACH)));
    world_run(w);
    assert_true(iok_port_is_detached(&port->link));
    iok_port_free(port);
    world_free(w);
}

static void test_service(void **state)
{
    struct world *w = world_new(URL);
    struct iok_service *service = NULL;
    unsigned long n = 0;

    (void)state;
    while (service == NULL) {
        struct iok_error err = {.code = 0};

        iok_mem_fail_at(++n);
        service = iok_service_new(w->port, URL, &err);
        iok_mem_fail_at(0);
        assert_true(service != NULL || (err.code == IOK_ENOMEM && strlen(err.text) > 8));
        assert_true(n < 20);
    }
    assert_true(n > 2);
    iok_service_close(service, w->port);
    iok_service_unref(service);
    world_run(w);
    world_free(w);
}

int main(void)
{
    static void (*paths[])(struct trial * t) = {
        path_small,       path_large,   path_many,     path_retry,  path_cancel, path_deadline,
        path_transaction, path_release, path_blocking, path_stream, path_quiet,  path_close,
    };
#define PATH(i, text)                                                                                                  \
    {                                                                                                                  \
        .name = "path " text, .test_func = test_path, .initial_state = &paths[i]                                       \
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernel),
        cmocka_unit_test(test_port),
        cmocka_unit_test(test_service),
        PATH(0, "small calls"),
        PATH(1, "large calls"),
        PATH(2, "many calls"),
        PATH(3, "retry after a lost connection"),
        PATH(4, "cancelled in flight"),
        PATH(5, "deadline"),
        PATH(6, "transaction on a lease"),
        PATH(7, "lease given back with calls under way"),
        PATH(8, "blocking calls"),
        PATH(9, "stream"),
        PATH(10, "pings"),
        PATH(11, "closed with calls under way"),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
