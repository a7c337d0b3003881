/* web.c - the simulation's server of HTTP/1.1: answers in every framing that there is, closes when it likes.
 *
 * A request's target names its call ("/k17"), and so does each answer, in the field x-call and in the body. It reads
 * strictly, and one request at a time: another behind one that is not answered yet, or behind one that was answered with
 * the connection's end, is a violation. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "scene.h"

#define HEAD_BYTES_MAX 512u

static bool chance(unsigned permille)
{
    return dice_chance(&scene.wire, permille);
}

/* ---- requests ---- */

/* The value of a field of the head, without the blank before it; NULL if it is not there. */
static const char *field(const char *head, const char *name)
{
    const char *at = strstr(head, name);

    return at == NULL ? NULL : at + strlen(name);
}

static enum verb verb_of(const char *head)
{
    return strncmp(head, "GET /k", 6) == 0 ? VERB_FETCH : strncmp(head, "HEAD /k", 7) == 0 ? VERB_HEAD : VERB_POST;
}

/* The call that the request line names. */
static uint32_t read_line(const char *head)
{
    const char *target = strchr(head, ' '), *end = target == NULL ? NULL : strchr(target + 1, ' ');
    uint32_t id;

    must(end != NULL && strncmp(end, " HTTP/1.1\r\n", 11) == 0 && target[1] == '/',
         "server got a strange request line");
    id = server_call_of(iok_span(target + 2, (size_t)(end - target - 2)));
    must(id != 0 && scene.records[id].verb == verb_of(head), "server got a request that nobody sent");
    return id;
}

static size_t read_length(const char *head, uint32_t id)
{
    const char *length = field(head, "\r\ncontent-length: ");
    size_t n = 0;

    must((length != NULL) == (scene.records[id].verb == VERB_POST), "#%u: a length is there, or is not", id);
    must(field(head, "\r\nhost: 10.0.0.") != NULL, "#%u has no Host", id);
    for (const char *p = length; p != NULL && *p != '\r'; p++) {
        must(*p >= '0' && *p <= '9', "#%u has a strange length", id);
        n = 10 * n + (size_t)(*p - '0');
    }
    return n;
}

size_t web_read(struct iok_link *link, struct iok_span in)
{
    struct session *session = &link->session;
    const uint8_t *end = in.n < 4 ? NULL : memmem(in.p, in.n, "\r\n\r\n", 4);
    size_t n = end == NULL ? 0 : (size_t)(end - in.p) + 4, length;
    char head[HEAD_BYTES_MAX];
    uint32_t id;

    must(in.n == 0 || !session->last, "a request came behind an answer that said it was the last");
    if (link->ended) {
        return in.n; /* it was on its way when the server closed, and is not run */
    }
    if (end == NULL) {
        must(in.n < HEAD_BYTES_MAX, "server got a head without an end");
        return 0;
    }
    must(n < sizeof(head), "server got a long head");
    memcpy(head, in.p, n);
    head[n] = '\0';
    id = read_line(head);
    must(session->asked == 0, "#%u came behind #%u, which was not answered", id, session->asked);
    length = read_length(head, id);
    if (in.n - n < length) {
        return 0;
    }
    if (length > 0) {
        must(in.p[n] == truth_filler(id) && memcmp(in.p + n, in.p + n + 1, length - 1) == 0,
             "server got #%u with another body than was given", id);
    }
    truth_arrived(link, id);
    truth_executed(id);
    session->asked = id;
    session->answer_at = scene.now + dice_spread(&scene.wire, 1000, scene.well ? SCENE_MS : 300 * SCENE_MS);
    scene_at(session->answer_at, EVENT_SERVER, link->id, 0);
    return n + length;
}

/* ---- answers ---- */

struct answer {
    char bytes[9000];
    size_t n;
};

static void put(struct answer *answer, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void put(struct answer *answer, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(answer->bytes + answer->n, sizeof(answer->bytes) - answer->n, format, args);
    va_end(args);
    must(n >= 0 && (size_t)n < sizeof(answer->bytes) - answer->n, "an answer is too long");
    answer->n += (size_t)n;
}

static void put_chunks(struct answer *answer, const char *body, size_t n)
{
    for (size_t at = 0, size; at < n; at += size) {
        size = 1 + dice_below(&scene.wire, n - at);
        put(answer, chance(100) ? "%zx;x=\"y\"\r\n" : "%zX\r\n", size);
        put(answer, "%.*s\r\n", (int)size, body + at);
    }
    put(answer, "0\r\n%s\r\n", chance(200) ? "x-sum: 1\r\n" : "");
}

/* Head and body; true: the connection ends behind it. */
static bool put_all(const struct iok_link *link, struct answer *answer, uint32_t id)
{
    static const int statuses[] = {200, 404, 503, 204, 304};
    int status = chance(700) ? 200 : statuses[dice_below(&scene.wire, 5)];
    bool bare = scene.records[id].verb == VERB_HEAD || status == 204 || status == 304;
    bool whole = link->end_at_down == SIZE_MAX; /* else a body up to the end may be cut short, and nobody could know */
    bool old = whole && chance(50), to_end = !bare && (old || (whole && chance(50))),
         chunked = !to_end && !old && chance(300);
    bool last = to_end || old || chance(100);
    char body[8200];
    size_t n = (size_t)snprintf(body, sizeof(body), "v%u", id);

    if (!scene.well && chance(40)) { /* more than max_reply ends the connection */
        size_t more = dice_spread(&scene.wire, 200, 8000) - 100;

        memset(body + n, '.', more);
        n += more;
    }
    if (!old && chance(50)) {
        put(answer, "HTTP/1.1 103 Early Hints\r\nx-call: k0\r\n\r\n");
    }
    put(answer, "HTTP/1.%d %d Whatever\r\nX-Call: k%u\r\n", !old, status, id);
    if (chunked) {
        put(answer, "transfer-encoding: chunked\r\n");
    } else if (!to_end && (!bare || status == 304 || chance(500))) {
        put(answer, "content-length: %zu\r\n", n);
    }
    put(answer, "%s\r\n", last && !old ? "connection: close\r\n" : "");
    if (!bare && chunked) {
        put_chunks(answer, body, n);
    } else if (!bare) {
        put(answer, "%.*s", (int)n, body);
    }
    return last;
}

void web_time(struct iok_link *link)
{
    struct session *session = &link->session;
    struct answer answer = {.n = 0};
    if (link->ended) {
        return;
    }
    if (session->asked == 0 || scene.now < session->answer_at) {
        if (session->asked == 0 && session->answer_at != 0 && scene.now >= session->answer_at) {
            wire_end(link);
        }
        return;
    }
    session->last = put_all(link, &answer, session->asked);
    session->asked = 0;
    session->answer_at = 0;
    wire_write(link, answer.bytes, answer.n, link->server->slow);
    if (session->last || (!scene.well && chance(300))) { /* soon, or as it is idle */
        session->answer_at = scene.now + dice_spread(&scene.wire, 1000, session->last ? 5 * SCENE_MS : SCENE_S);
        scene_at(session->answer_at, EVENT_SERVER, link->id, 0);
    }
}
