/* test_serve_play.c - the server on thousands of random days: clients that send in pieces, in a row, read slowly, leave in
 * the midst; a program that answers when it likes, in parts, wrongly, or frees what it should answer. A failure names its seed, and
 * SERVE_PLAY_SEED=n plays that alone.
 *
 * Each request names itself (its target is /k and a number), and so does each answer of the program (field x-call).
 * Checked at each step: a request comes to the program once at most, wholly, and as it was sent; answers come in the
 * order of the requests, whole, framed rightly, each for its own. In the end all goes well: every request of a client
 * that waits is answered, and nothing is left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "servenet.h"

#define CLIENTS_MAX 24u
#define REQUESTS_MAX 200u
#define CALLS_MAX 24u
#define PORTS_MAX 3u
#define STEPS 150u
#define SEEDS 5000u
#define BODY_MAX 3000u

enum method { GET, HEAD, POST, CHUNKED };

struct request {
    enum method method;
    size_t body;
    bool came;  /* to the program */
    bool early; /* it was answered before its body had come, so some of that was dropped */
    size_t got; /* of its body, which followed */
};

struct client {
    struct iok_link *link;
    char *out; /* what it sends; from at on it has not arrived */
    size_t n_out, at;
    unsigned asked[REQUESTS_MAX]; /* requests, in their order */
    unsigned n_asked, n_answered;
    bool ended; /* it sends no more */
    bool last;  /* an answer said that no other follows */
};

struct play {
    struct house h;
    uint64_t seed, random;
    struct iok_port *ports[PORTS_MAX];
    unsigned n_ports;
    struct client clients[CLIENTS_MAX];
    unsigned n_clients;
    struct request requests[REQUESTS_MAX + 1]; /* from 1 */
    unsigned n_requests;
    struct iok_call *calls[CALLS_MAX]; /* NULL: none */
    struct hand {
        unsigned id; /* the request that it has; 0: none */
        bool follows;

        bool parts;  /* the head of the answer was submitted, and parts follow */
        size_t left; /* of the answer's body; if its length was given */
    } has[CALLS_MAX];
};

static unsigned any(struct play *p, unsigned n)
{
    p->random = p->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(p->random >> 33) % n;
}

static void must(const struct play *p, bool holds, const char *what, unsigned id)
{
    if (!holds) {
        fail_msg("seed %llu: %s (request %u)", (unsigned long long)p->seed, what, id);
    }
}

static char filler(unsigned id)
{
    return (char)('a' + id % 26);
}

/* ---- clients ---- */

static void put(struct client *c, const char *bytes, size_t n)
{
    c->out = realloc(c->out, c->n_out + n);
    assert_non_null(c->out);
    memcpy(c->out + c->n_out, bytes, n);
    c->n_out += n;
}

static void put_text(struct client *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void put_text(struct client *c, const char *format, ...)
{
    char text[200];
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    put(c, text, (size_t)n);
}

static void put_body(struct play *p, struct client *c, const struct request *request, unsigned id)
{
    char body[BODY_MAX];

    memset(body, filler(id), sizeof(body));
    if (request->method != CHUNKED) {
        put(c, body, request->body);
        return;
    }
    for (size_t left = request->body, n; left > 0; left -= n) {
        n = 1 + any(p, (unsigned)left);
        put_text(c, "%zx\r\n", n);
        put(c, body, n);
        put_text(c, "\r\n");
    }
    put_text(c, any(p, 4) == 0 ? "0\r\nx-sum: 1\r\n\r\n" : "0\r\n\r\n");
}

static void ask(struct play *p, struct client *c)
{
    static const char *const names[] = {"GET", "HEAD", "POST", "POST"};
    unsigned id = p->n_requests + 1;
    struct request *request = &p->requests[id];

    if (c->ended || p->n_requests == REQUESTS_MAX) {
        return;
    }
    p->n_requests++;
    *request = (struct request){.method = (enum method)any(p, 4)};
    put_text(c, "%s /k%u HTTP/1.1\r\nhost: h\r\n", names[request->method], id);
    if (request->method == POST || request->method == CHUNKED) {
        request->body = any(p, any(p, 3) == 0 ? BODY_MAX : 40);
        if (request->method == POST) {
            put_text(c, "Content-Length: %zu\r\n\r\n", request->body);
        } else {
            put_text(c, "Transfer-Encoding: chunked\r\n\r\n");
        }
        put_body(p, c, request, id);
    } else {
        put_text(c, "\r\n");
    }
    c->asked[c->n_asked++] = id;
}

/* A piece of what it sends arrives, as much as the server has room for. */
static void arrive(struct client *c, size_t most)
{
    size_t n, room = 0;
    uint8_t *at;

    if (c->link->dead || !c->link->reading || c->at == c->n_out) {
        return;
    }
    at = c->link->events->read_space(c->link->owner, &room);
    if (at == NULL) {
        return;
    }
    n = c->n_out - c->at;
    n = n < most ? n : most;
    n = n < room ? n : room;
    memcpy(at, c->out + c->at, n);
    c->at += n;
    c->link->events->arrived(c->link->owner, n);
}

static const char *field(const char *head, const char *end, const char *name)
{
    const char *at = strstr(head, name);

    return at == NULL || at > end ? NULL : at + strlen(name);
}

/* A body in chunks: its size with all that frames it; 0: it is not whole. */
static size_t take_chunks(struct play *p, const struct client *c, size_t from, unsigned id)
{
    const char *at = c->link->got + from, *end = c->link->got + c->link->n_got, *line;
    size_t n;

    do {
        line = memmem(at, (size_t)(end - at), "\r\n", 2);
        if (line == NULL) {
            return 0;
        }
        n = strtoul(at, NULL, 16);
        at = line + 2;
        if ((size_t)(end - at) < n + 2) {
            return 0;
        }
        for (size_t i = 0; i < n; i++) {
            must(p, at[i] == filler(id), "an answer with another body", id);
        }
        at += n;
        must(p, memcmp(at, "\r\n", 2) == 0, "a chunk without an end", id);
        at += 2;
    } while (n > 0);
    return (size_t)(at - c->link->got) - from;
}

/* The oldest answer of those that the client has: its size; 0: it is not whole. */
static size_t take_answer(struct play *p, struct client *c)
{
    const char *head = c->link->got, *end = strstr(head, "\r\n\r\n"), *length, *call;
    unsigned id = c->n_answered < c->n_asked ? c->asked[c->n_answered] : 0;
    size_t body = 0, n;
    bool chunked;
    int status;

    if (end == NULL) {
        return 0;
    }
    must(p, sscanf(head, "HTTP/1.1 %d ", &status) == 1, "an answer that is none", id);
    must(p, !c->last, "an answer behind the last", id);
    must(p, id != 0 || status == 408, "an answer to nothing", id); /* a request that did not come in time has no end */
    length = field(head, end, "content-length: ");
    chunked = field(head, end, "transfer-encoding: chunked") != NULL;
    call = field(head, end, "x-call: k");
    must(p, length != NULL || chunked || status == 204 || (id != 0 && p->requests[id].method == HEAD),
         "an answer without a length", id);
    must(p, call == NULL || strtoul(call, NULL, 10) == id, "an answer to another request", id);
    must(p, call != NULL || status == 500 || status == 503 || status == 408, "an answer that nobody gave", id);
    must(p, call == NULL || p->requests[id].came, "an answer to a request that did not come", id);
    n = (size_t)(end + 4 - head);
    if (chunked && p->requests[id].method != HEAD) {
        body = take_chunks(p, c, n, id);
        if (body == 0) {
            return 0;
        }
    } else if (length != NULL && (id == 0 || p->requests[id].method != HEAD)) {
        body = strtoul(length, NULL, 10);
        for (size_t i = 0; i < body && call != NULL && n + i < c->link->n_got; i++) {
            must(p, head[n + i] == filler(id), "an answer with another body", id);
        }
    }
    n += body;
    if (c->link->n_got < n) {
        return 0;
    }
    c->last = field(head, end, "connection: close") != NULL;
    c->n_answered += id != 0;
    return n;
}

static void take_answers(struct play *p, struct client *c)
{
    size_t n;

    while ((n = take_answer(p, c)) > 0) {
        c->link->n_got -= n;
        memmove(c->link->got, c->link->got + n, c->link->n_got + 1);
    }
}

static void new_client(struct play *p)
{
    struct sim *sim = &p->h.w->sim;

    if (p->n_clients < CLIENTS_MAX && sim->door.open && sim->door.accepting) {
        struct client *c = &p->clients[p->n_clients++];

        *c = (struct client){.link = sim_client(sim)};
        sim_accept(c->link, any(p, 2) == 0 ? SIZE_MAX : any(p, 500));
    }
}

static void client_acts(struct play *p, struct client *c)
{
    unsigned what = any(p, 20);

    if (c->link->dead) {
        return;
    }
    if (what < 8) {
        ask(p, c);
    } else if (what < 15) {
        arrive(c, 1 + any(p, 3) * any(p, 1000));
    } else if (what < 18) {
        sim_accept(c->link, any(p, 3) == 0 ? SIZE_MAX : any(p, 2000));
    } else if (what == 18 && !c->ended && c->at == c->n_out && any(p, 3) == 0) {
        c->ended = true;
        sim_end(c->link);
    } else if (what == 19 && any(p, 4) == 0) {
        sim_fail(c->link, any(p, 2) == 0 ? 0 : IOK_ERESET);
    }
}

/* ---- the program ---- */

static void new_call(struct play *p)
{
    for (unsigned i = 0; i < CALLS_MAX; i++) {
        if (p->calls[i] == NULL) {
            struct iok_error err = {.text = ""};

            p->calls[i] = iok_serve_new(p->ports[any(p, p->n_ports)], p->h.listener, &err);
            assert_non_null(p->calls[i]);
            p->has[i] = (struct hand){.id = 0};
            iok_call_set_user(p->calls[i], &p->calls[i]);
            assert_int_equal(iok_submit(p->calls[i]), 0);
            return;
        }
    }
}

static unsigned look(struct play *p, const struct iok_call *call)
{
    size_t n;
    const struct iok_token *t = iok_call_reply(call, &n);
    const struct iok_token *body = &t[5 + t[4].len];
    char target[16] = "";
    unsigned id;

    assert_true(t[0].len == 6 && t[2].len < sizeof(target));
    memcpy(target, t[2].p, t[2].len);
    id = (unsigned)strtoul(target + 2, NULL, 10);
    must(p, id >= 1 && id <= p->n_requests, "a request that nobody made", id);
    if (body->type == IOK_NULL && p->requests[id].body > 0) { /* it follows */
        return id;
    }
    must(p, body->len == p->requests[id].body, "a request with a body of another length", id);
    for (uint32_t i = 0; i < body->len; i++) {
        must(p, body->p[i] == (uint8_t)filler(id), "a request with another body", id);
    }
    return id;
}

/* Takes what is there of a body that follows its request. */
static void take_body(struct play *p, unsigned which)
{
    struct iok_call *call = p->calls[which];
    struct hand *has = &p->has[which];
    const struct iok_token *t;
    size_t n;

    while (has->follows && (t = iok_call_message(call, &n)) != NULL) {
        for (uint32_t i = 0; t->type == IOK_BYTES && i < t->len; i++) {
            must(p, t->p[i] == (uint8_t)filler(has->id), "a part of another body", has->id);
        }
        p->requests[has->id].got += t->type == IOK_BYTES ? t->len : 0;
        if (t->type != IOK_BYTES) {
            must(p, p->requests[has->id].got == p->requests[has->id].body, "a body of another length", has->id);
            has->follows = false;
        }
        iok_call_next(call);
    }
}

static void put_filler(struct play *p, struct iok_call *call, unsigned id, size_t n)
{
    char text[BODY_MAX];

    (void)p;
    memset(text, filler(id), sizeof(text));
    iok_call_bytes(call, text, n);
}

/* A part of the answer; the last one, if it is to be. */
static void answer_part(struct play *p, unsigned which, bool last)
{
    struct hand *has = &p->has[which];
    struct iok_error err = {.text = ""};
    struct iok_call *part = iok_part_new(p->calls[which], &err);
    size_t n = last ? has->left : any(p, (unsigned)has->left + 1);

    must(p, part != NULL, err.text, has->id);
    put_filler(p, part, has->id, n);
    has->left -= n;
    if (last) {
        iok_part_end(part);
    }
    must(p, iok_submit(part) == 0, "a part cannot be submitted", has->id);
    if (last) {
        *has = (struct hand){.id = 0};
    }
}

static void answer(struct play *p, unsigned which, bool right)
{
    static const int statuses[] = {200, 200, 200, 404, 204};
    struct iok_call *call = p->calls[which];
    struct hand *has = &p->has[which];
    unsigned id = has->id, length = any(p, any(p, 3) == 0 ? BODY_MAX : 40);
    bool parts = right && any(p, 3) == 0, sized = parts && any(p, 2) == 0;
    int status = parts ? 200 : statuses[any(p, 5)];
    char text[64];
    int n = snprintf(text, sizeof(text), right ? "k%u" : "k%u\r\nx: y", id);

    iok_call_array(call, 4);
    iok_call_i64(call, status);
    iok_call_null(call);
    iok_call_array(call, sized ? 4 : 2);
    iok_call_text(call, "x-call", 6);
    iok_call_text(call, text, (size_t)n);
    if (sized) {
        iok_call_text(call, "content-length", 14);
        iok_call_text(call, text, (size_t)snprintf(text, sizeof(text), "%u", length));
    }
    if (parts) {
        iok_call_null(call);
        iok_call_body(call);
    } else {
        put_filler(p, call, id, length); /* even where there may be none */
    }
    assert_int_equal(iok_submit(call), 0);
    p->requests[id].early |= has->follows;
    *has = parts ? (struct hand){.id = id, .parts = true, .left = length} : (struct hand){.id = 0};
}

/* Something to answer with: all, or a part. */
static void answer_more(struct play *p, unsigned which, bool right)
{
    if (p->has[which].parts) {
        answer_part(p, which, any(p, 3) == 0);
    } else {
        answer(p, which, right);
    }
}

static void news_of_request(struct play *p, unsigned which)
{
    struct iok_call *call = p->calls[which];
    struct hand *has = &p->has[which];
    unsigned id = look(p, call);
    struct iok_error err;

    must(p, has->id == 0 || has->id == id, "another request, unasked", id);
    if (has->id == 0 && iok_call_error(call, &err) == 0) {
        must(p, !p->requests[id].came, "a request came twice", id);
        p->requests[id].came = true;
    }
    if (has->id == 0) {
        *has = (struct hand){.id = id, .follows = iok_serve_expects_body(call) && !p->requests[id].early};
    }
    take_body(p, which);
}

/* A call has news. */
static void news(struct play *p, struct iok_call *call)
{
    unsigned which;

    if (iok_call_user(call) == NULL) { /* a part */
        iok_call_free(call);
        return;
    }
    which = (unsigned)((struct iok_call **)iok_call_user(call) - p->calls);
    must(p, p->calls[which] == call, "a call comes that was freed", p->has[which].id);
    switch (iok_serve_state(call)) {
    case IOK_SERVE_REQUEST:
    case IOK_SERVE_LEFT:
        news_of_request(p, which);
        break;
    case IOK_SERVE_GONE:
        p->has[which] = (struct hand){.id = 0};
        assert_int_equal(iok_submit(call), 0);
        break;
    case IOK_SERVE_CLOSED:
        p->calls[which] = NULL;
        iok_call_free(call);
        break;
    default:
        must(p, p->has[which].parts, "a call comes without news", p->has[which].id);
    }
}

static void poll_all(struct play *p)
{
    struct iok_call *call;

    world_run(p->h.w);
    for (unsigned i = 0; i < p->n_ports; i++) {
        while ((call = iok_poll(p->ports[i])) != NULL) {
            news(p, call);
        }
    }
}

static void program_acts(struct play *p)
{
    unsigned what = any(p, 20), which = any(p, CALLS_MAX);

    if (what < 4) {
        new_call(p);
    } else if (what < 14) {
        poll_all(p);
    } else if (what < 18) {
        for (unsigned i = 0; i < CALLS_MAX; i++) {
            if (p->calls[i] != NULL && p->has[i].id != 0 && any(p, 3) != 0) {
                answer_more(p, i, any(p, 15) != 0);
            }
        }
    } else if (p->calls[which] == NULL) {
        return;
    } else if (what == 18) {
        iok_abandon(p->calls[which]);
        p->calls[which] = NULL;
    } else if (p->has[which].id == 0) {
        iok_cancel(p->calls[which]);
    }
}

/* ---- a play ---- */

static void begin(struct play *p)
{
    static const char *const urls[] = {
        "http://127.0.0.1:8000/?queue=2&queue_timeout=500ms&idle=2s&header_timeout=1s&body_timeout=1s&write_timeout=1s",
        "http://127.0.0.1:8000/?max_connections=5&max_requests=3",
        "http://127.0.0.1:8000/?queue=100&queue_timeout=1h&idle=1h&header_timeout=1h&body_timeout=1h&write_timeout=1h",
    };
    struct iok_error err;

    house_open(&p->h, urls[any(p, 3)]);
    p->ports[p->n_ports++] = p->h.w->port;
    while (any(p, 2) == 0 && p->n_ports < PORTS_MAX) {
        p->ports[p->n_ports] = iok_port_new(p->h.w->kernel, &err);
        assert_non_null(p->ports[p->n_ports]);
        p->n_ports++;
    }
    for (unsigned n = any(p, 6); n > 0; n--) {
        new_call(p);
    }
    world_run(p->h.w);
}

/* Everything gets its way: what is sent arrives, what is asked is answered. */
static void settle(struct play *p)
{
    for (unsigned i = 0; i < 4; i++) {
        new_call(p);
    }
    for (unsigned round = 0; round < 400; round++) {
        for (unsigned i = 0; i < p->n_clients; i++) {
            struct client *c = &p->clients[i];

            if (!c->link->dead) {
                sim_accept(c->link, SIZE_MAX);
                arrive(c, SIZE_MAX);
            }
            take_answers(p, c);
        }
        poll_all(p);
        for (unsigned i = 0; i < CALLS_MAX; i++) {
            if (p->calls[i] != NULL && p->has[i].id != 0 && !p->has[i].follows) {
                answer_more(p, i, true);
            }
        }
        world_run(p->h.w);
    }
    for (unsigned i = 0; i < p->n_clients; i++) {
        const struct client *c = &p->clients[i];

        must(p, c->link->dead || c->link->shut || c->n_answered == c->n_asked, "a request is not answered",
             c->n_answered < c->n_asked ? c->asked[c->n_answered] : 0);
        must(p, c->link->dead || c->link->shut || !c->ended, "a connection of which both sides are done stays", 0);
    }
}

static void end(struct play *p)
{
    iok_listener_close(p->h.listener, p->h.w->port, any(p, 2) == 0 ? 0 : 1000);
    for (unsigned i = 0; i < 3; i++) {
        poll_all(p);
        world_advance(p->h.w, SIM_S);
    }
    poll_all(p);
    for (unsigned i = 0; i < CALLS_MAX; i++) {
        must(p, p->calls[i] == NULL, "a call does not end with its listener", p->has[i].id);
    }
    for (unsigned i = 0; i < p->n_clients; i++) {
        must(p, p->clients[i].link->dead, "a connection outlives its listener", 0);
        free(p->clients[i].out);
    }
    for (unsigned i = 1; i < p->n_ports; i++) {
        must(p, iok_port_calls(p->ports[i]) == 0, "a call is left", 0);
        assert_true(iok_ring_push(&p->ports[i]->link.sq, iok_entry(p->ports[i], IOK_SQ_DETACH)));
        world_run(p->h.w);
        iok_port_free(p->ports[i]);
    }
    house_close(&p->h);
}

static void play(uint64_t seed)
{
    struct play *p = calloc(1, sizeof(*p));

    assert_non_null(p);
    p->seed = seed;
    p->random = seed * UINT64_C(0x9e3779b97f4a7c15);
    begin(p);
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned what = any(p, 10);

        if (p->n_clients == 0 || what == 0) {
            new_client(p);
        } else if (what < 6) {
            client_acts(p, &p->clients[any(p, p->n_clients)]);
        } else if (what < 9) {
            program_acts(p);
        } else {
            world_advance(p->h.w, any(p, 20) == 0 ? any(p, 3000) * SIM_MS : any(p, 20) * SIM_MS);
        }
        world_run(p->h.w);
        for (unsigned i = 0; i < p->n_clients; i++) {
            take_answers(p, &p->clients[i]);
        }
    }
    settle(p);
    end(p);
    free(p);
}

static void test_plays(void **state)
{
    const char *only = getenv("SERVE_PLAY_SEED");

    (void)state;
    for (uint64_t seed = only != NULL ? strtoull(only, NULL, 10) : 1; seed <= SEEDS; seed++) {
        play(seed);
        if (only != NULL) {
            return;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_plays)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
