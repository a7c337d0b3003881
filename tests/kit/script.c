/* script.c - transcripts: what is done to a codec, and what has to follow, line by line.
 *
 *     # a comment
 *     url redis://u:p@h/1           connects and signs in; once more: that was it, and now a new connection
 *     limit 1000                    before url: bytes of one reply
 *     sent "*1\r\n" "..."           these bytes, and no others, were written since the last such line
 *     oneway                        what follows on this connection is not what our own server would say
 *     skip                          what was written so far is looked at elsewhere
 *     recv "$1\r\n" "v"*70000       the peer sends; a string may be repeated
 *     ready                         the sign-in is done
 *     call "GET" b"k" 5 1.5 null true array/2 map/1     text, octets, integer, float, what is no argument
 *     parts "COPY" ...              the same; the answer is taken in parts
 *     body "COPY" ...               the same; the request has a body, of which follow, once there was a go:
 *     piece "bytes"  finish "bytes"  break "why"
 *     upgrade "GET" ...             the same; it has both
 *     server http://h               the same in the server's role
 *     request array 2 bytes "a" ... what a server has read: in its role, and in KIT_ROUND
 *     answer array 2 i64 200 ...    the server's program answers the oldest request; words as of reply
 *     closing                       the connection is to end, in order
 *     cancel                        the caller of the oldest request goes away
 *     ping  reset  eof              what the host may do besides
 *     reply bytes "v"               the oldest request was answered; the words are those of kit_text_tokens
 *     reject error "MOVED 1 h:1"    the same, and the peer says that it did not run it
 *     again error "..."             the same, and the host is to ask again
 *     push push 2 text "a" i64 1    a message that answers nothing
 *     role standby read-only        what the peer says it is: primary, standby; or: in doubt
 *     part bytes "v"                a part of the oldest request's answer; of bytes all that follow one another, where the
 *                                   protocol has one request at a time
 *     go                            the body of the oldest request is wanted
 *     raw  shut                     the connection has plain bytes from now on; none of ours any more
 *     swallowed  pong               an answer that nobody waits for any more; that to a ping
 *     refused IOK_ETYPE "argument"  the request is an error, whose text has this in it
 *     error IOK_EPROTO "not RESP"   the connection is closed for this
 *     class "BLPOP" "k" 0 : auto block -1                what classify says: see flag_names
 *     describe "CONFIG" "SET" "k" "v" : "CONFIG SET"
 *     check "redis://h/x" : IOK_EURL "database"          what check says of a URL; or : ok
 *
 * Events come in the order in which they happened; each has to be named, and none is left over at the end. */
#include "kit.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../src/base/mem.h"

#define ARGS_MAX 4096u /* of one call */

struct run {
    struct kit_host host;
    struct kit_host peer; /* KIT_ROUND: the server's role */
    bool as_server;       /* the connection that begins */
    size_t next_request;  /* KIT_ROUND: offset in peer.events */
    bool skipping;        /* KIT_ROUND: the rest of this connection cannot be played by a peer that does all right */
    enum kit_mode mode;
    uint64_t param, random;
    size_t max_reply;
    size_t next_event; /* offset in host.events */
    const char *at;    /* the rest of the line */
    int line;
    bool over;                         /* nothing of what follows is to be done */
    struct kit_text strings[ARGS_MAX]; /* payloads of arguments */
    size_t n_strings;
    struct kit_result *result;
};

static void problem(struct run *run, const char *format, ...)
{
    char *at = run->result->problem;
    if (at[0] != '\0')
        return;
    int n = snprintf(at, sizeof(run->result->problem), "line %d: ", run->line);
    va_list args;
    va_start(args, format);
    vsnprintf(at + n, sizeof(run->result->problem) - (size_t)n, format, args);
    va_end(args);
    run->over = true;
}

/* ---- words ------------------------------------------------------------------------------------------------------ */

static void skip_blanks(struct run *run)
{
    while (*run->at == ' ' || *run->at == '\t')
        run->at++;
}

static bool at_end(struct run *run)
{
    skip_blanks(run);
    return *run->at == '\0' || *run->at == '\n' || *run->at == '#';
}

static bool take_word(struct run *run, char *word, size_t cap)
{
    if (at_end(run))
        return false;
    size_t n = 0;
    while (*run->at != '\0' && !isspace((unsigned char)*run->at) && n + 1 < cap)
        word[n++] = *run->at++;
    word[n] = '\0';
    return true;
}

static char unescape(struct run *run)
{
    char c = *run->at++;
    if (c != '\\')
        return c;
    c = *run->at++;
    if (c == 'x') {
        char hex[3] = {run->at[0], run->at[0] != '\0' ? run->at[1] : '\0', '\0'};
        run->at += strlen(hex);
        return (char)strtol(hex, NULL, 16);
    }
    return (char)(c == 'r' ? '\r' : c == 'n' ? '\n' : c == 't' ? '\t' : c);
}

/* "..." or "..."*count */
static bool take_string(struct run *run, struct kit_text *out)
{
    struct kit_text once = {0};
    skip_blanks(run);
    if (*run->at != '"')
        return false;
    run->at++;
    kit_text_put(&once, "", 0);
    while (*run->at != '"' && *run->at != '\0' && *run->at != '\n') {
        char c = unescape(run);
        kit_text_put(&once, &c, 1);
    }
    if (*run->at++ != '"')
        problem(run, "a string without its end");
    unsigned long count = 1;
    if (*run->at == '*')
        count = strtoul(run->at + 1, (char **)&run->at, 10);
    for (unsigned long i = 0; i < count; i++)
        kit_text_put(out, once.p, once.n);
    kit_text_put(out, "", 0);
    kit_text_free(&once);
    return true;
}

static void take_strings(struct run *run, struct kit_text *out)
{
    while (!at_end(run) && !run->over)
        if (!take_string(run, out))
            problem(run, "a string was expected");
    kit_text_put(out, "", 0);
}

/* ---- arguments -------------------------------------------------------------------------------------------------- */

static bool take_payload(struct run *run, struct iok_token *token)
{
    bool octets = run->at[0] == 'b' && run->at[1] == '"';
    run->at += octets;
    struct kit_text *text = &run->strings[run->n_strings];
    if (!take_string(run, text))
        return false;
    run->n_strings++;
    *token = (struct iok_token){
        .type = octets ? IOK_BYTES : IOK_TEXT, .len = (uint32_t)text->n, .p = (const uint8_t *)text->p};
    return true;
}

static bool take_plain(struct run *run, struct iok_token *token)
{
    char word[64], *end;
    if (!take_word(run, word, sizeof(word)))
        return false;
    if (strcmp(word, "null") == 0)
        *token = (struct iok_token){.type = IOK_NULL};
    else if (strcmp(word, "true") == 0 || strcmp(word, "false") == 0)
        *token = (struct iok_token){.type = IOK_BOOL, .i = *word == 't'};
    else if (strncmp(word, "array/", 6) == 0)
        *token = (struct iok_token){.type = IOK_ARRAY, .len = (uint32_t)atoi(word + 6)};
    else if (strncmp(word, "map/", 4) == 0)
        *token = (struct iok_token){.type = IOK_MAP, .len = (uint32_t)atoi(word + 4)};
    else if (strpbrk(word, ".einf") != NULL)
        *token = (struct iok_token){.type = IOK_F64, .f = strtod(word, &end)};
    else
        *token = (struct iok_token){.type = IOK_I64, .i = strtoll(word, &end, 10)};
    return true;
}

/* Up to the end of the line or a colon, which is taken too. */
static size_t take_args(struct run *run, struct iok_token *args)
{
    size_t n = 0;
    while (!at_end(run) && n < ARGS_MAX) {
        if (*run->at == ':') {
            run->at++;
            break;
        }
        if (take_payload(run, &args[n]) || take_plain(run, &args[n]))
            n++;
    }
    return n;
}

/* ---- what is done ----------------------------------------------------------------------------------------------- */

static uint64_t next_random(struct run *run)
{
    run->random ^= run->random << 13; /* xorshift64: Marsaglia, "Xorshift RNGs", 2003 */
    run->random ^= run->random >> 7;
    run->random ^= run->random << 17;
    return run->random;
}

static size_t piece_size(struct run *run, size_t left)
{
    size_t n = left;
    if (run->mode == KIT_BYTES)
        n = 1;
    else if (run->mode == KIT_PIECES || run->mode == KIT_ROUND) /* small ones mostly: there the edges are */
        n = 1 + (size_t)(next_random(run) % (next_random(run) % 4 == 0 ? 4096 : 9));
    return n < left ? n : left;
}

static void do_recv(struct run *run)
{
    struct kit_text text = {0};
    take_strings(run, &text);
    size_t n = text.n, done = 0;
    bool cut = run->mode == KIT_CUT && run->host.received + n >= run->param;
    if (cut)
        n = run->param - run->host.received;
    while (done < n) {
        size_t piece = piece_size(run, n - done);
        kit_host_recv(&run->host, iok_span(text.p + done, piece));
        done += piece;
    }
    if (cut) {
        kit_host_eof(&run->host);
        run->over = true;
    }
    kit_text_free(&text);
}

/* The next event without its newline; n 0 if there is none. */
static struct iok_span next_event(struct run *run)
{
    const char *p = run->host.events.p != NULL ? run->host.events.p + run->next_event : "";
    const char *end = strchr(p, '\n');
    if (end == NULL)
        return iok_span(p, 0);
    run->next_event += (size_t)(end - p) + 1;
    run->host.events_seen = run->next_event;
    return iok_span(p, (size_t)(end - p));
}

static void compare(struct run *run, struct iok_span expected, struct iok_span got)
{
    const int shown = 500;
    if (iok_span_eq(expected, got))
        return;
    if (got.n == 0)
        got = iok_span_of("nothing");
    problem(run, "expected %.*s\n    but got %.*s", expected.n < 500 ? (int)expected.n : shown,
            (const char *)expected.p, got.n < 500 ? (int)got.n : shown, (const char *)got.p);
}

/* ---- against the server's role ----------------------------------------------------------------------------------- */

/* What one side has sent goes to the other, in pieces. */
static void carry(struct run *run, struct kit_host *from, struct kit_host *to)
{
    struct kit_text bytes = from->sent;
    from->sent = (struct kit_text){0};
    for (size_t done = 0; done < bytes.n;) {
        size_t piece = piece_size(run, bytes.n - done);
        kit_host_recv(to, iok_span(bytes.p + done, piece));
        done += piece;
    }
    kit_text_free(&bytes);
}

/* One token as kit_text_tokens writes it; a subtype is not looked at. */
static bool take_token(struct run *run, struct iok_token *token)
{
    static const struct {
        const char *name;
        enum iok_type type;
    } names[] = {
        {"null", IOK_NULL},   {"bool", IOK_BOOL}, {"i64", IOK_I64},         {"f64", IOK_F64},
        {"bytes", IOK_BYTES}, {"text", IOK_TEXT}, {"decimal", IOK_DECIMAL}, {"array", IOK_ARRAY},
        {"map", IOK_MAP},     {"set", IOK_SET},   {"error", IOK_ERROR},
    };
    char name[32], value[64] = "";
    if (!take_word(run, name, sizeof(name)))
        return false;
    name[strcspn(name, "/")] = '\0';
    *token = (struct iok_token){0};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strcmp(name, names[i].name) == 0)
            token->type = (uint8_t)names[i].type;
    skip_blanks(run);
    if (take_payload(run, token)) {
        token->type = strcmp(name, "bytes") == 0 ? (uint8_t)IOK_BYTES : token->type;
        return true;
    }
    if (token->type != IOK_NULL)
        take_word(run, value, sizeof(value));
    if (token->type == IOK_F64)
        token->f = strtod(value, NULL);
    else if (token->type == IOK_BOOL || token->type == IOK_I64)
        token->i = strcmp(value, "true") == 0 ? 1 : strtoll(value, NULL, 10);
    else
        token->len = (uint32_t)strtoul(value, NULL, 10);
    return true;
}

static void answer_by(struct run *run, struct kit_host *server)
{
    struct iok_token *tokens = calloc(ARGS_MAX, sizeof(*tokens));
    size_t n = 0;
    while (n < ARGS_MAX && take_token(run, &tokens[n]))
        n++;
    kit_host_answer(server, tokens, n);
    free(tokens);
}

/* The server says what the transcript's reply is. */
static void answer_with_reply(struct run *run)
{
    const char *line = run->at;
    answer_by(run, &run->peer);
    carry(run, &run->peer, &run->host);
    run->at = line;
}

static void do_answer(struct run *run)
{
    answer_by(run, &run->host);
}

/* True if the line is not for a peer that does everything right. */
static bool skip_in_round(struct run *run, const char *verb)
{
    static const char *const others[] = {"cancel", "ping", "reset", "eof",     "error", "swallowed",
                                         "pong",   "push", "ready", "closing", "oneway"};
    if (strcmp(verb, "url") == 0 || strcmp(verb, "server") == 0 || strcmp(verb, "limit") == 0)
        return false;
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
        run->skipping |= strcmp(verb, others[i]) == 0;
    if (strcmp(verb, "reply") == 0 && !run->skipping)
        answer_with_reply(run);
    return run->skipping || strcmp(verb, "recv") == 0 || strcmp(verb, "sent") == 0 || strcmp(verb, "skip") == 0;
}

/* ---- connections ------------------------------------------------------------------------------------------------- */

/* Nothing may be left over, and nothing alive. What was received counts on, for KIT_CUT. */
static void end_connection(struct run *run)
{
    bool unfinished = run->over || run->skipping || run->mode == KIT_CUT;
    struct iok_span left = unfinished ? iok_span(NULL, 0) : next_event(run);
    if (left.n > 0)
        problem(run, "not expected: %.*s", (int)left.n, left.p);
    if (!unfinished && run->host.sent.n > 0)
        problem(run, "%zu bytes were sent that no line names", run->host.sent.n);
    if (!kit_host_close(&run->host) || !kit_host_close(&run->peer))
        problem(run, "buffers are alive after close");
    run->peer = (struct kit_host){.server = true};
    run->host = (struct kit_host){.received = run->host.received, .abandon = run->host.abandon};
    run->next_event = run->next_request = 0;
}

/* The codec is that of the URL's scheme. */
static void do_url(struct run *run)
{
    char url[512], scheme[32];
    bool tls;
    end_connection(run);
    take_word(run, url, sizeof(url));
    size_t n = strcspn(url, ":+");
    snprintf(scheme, sizeof(scheme), "%.*s", (int)n, url);
    const struct iok_proto *proto = iok_proto_find(iok_span_of(scheme), &tls);
    run->host.server = run->as_server;
    if (proto == NULL || (run->as_server && proto->server == NULL))
        problem(run, "no codec has the scheme %s, or not this role of it", scheme);
    else
        kit_host_open(&run->host, proto, url, run->max_reply);
    if (proto == NULL || run->mode != KIT_ROUND)
        return;
    run->skipping = proto->server == NULL;
    if (proto->server != NULL)
        kit_host_open(&run->peer, proto, url, run->max_reply);
}

/* The same, in the server's role. */
static void do_server(struct run *run)
{
    run->as_server = true;
    do_url(run);
    run->as_server = false;
    run->skipping = run->mode == KIT_ROUND;
}

static void call_as(struct run *run, uint32_t announced)
{
    struct iok_token *args = calloc(ARGS_MAX, sizeof(*args));
    size_t n = take_args(run, args);
    kit_host_call(&run->host, args, n, announced);
    if (run->mode == KIT_ROUND)
        carry(run, &run->host, &run->peer);
    free(args);
}

static void do_call(struct run *run)
{
    call_as(run, 0);
}

static void do_parts(struct run *run)
{
    call_as(run, IOK_FLIGHT_PARTS);
}

static void do_body(struct run *run)
{
    call_as(run, IOK_FLIGHT_BODY);
}

static void do_upgrade(struct run *run)
{
    call_as(run, IOK_FLIGHT_BODY | IOK_FLIGHT_PARTS);
}

static void give_body(struct run *run, enum iok_body what)
{
    struct kit_text bytes = {0};
    take_strings(run, &bytes);
    kit_host_body(&run->host, iok_span(bytes.p, bytes.n), what);
    kit_text_free(&bytes);
}

static void do_piece(struct run *run)
{
    give_body(run, IOK_BODY_PART);
}

static void do_finish(struct run *run)
{
    give_body(run, IOK_BODY_END);
}

static void do_break(struct run *run)
{
    give_body(run, IOK_BODY_FAIL);
}

/* ---- what has to follow ----------------------------------------------------------------------------------------- */

/* The line as kit_text_tokens would print it: strings unfolded and quoted anew, single blanks. */
static void normalise(struct run *run, const char *verb, struct kit_text *out)
{
    char word[256];
    kit_text_put(out, verb, strlen(verb));
    while (!at_end(run)) {
        struct kit_text text = {0};
        kit_text_put(out, " ", 1);
        if (take_string(run, &text))
            kit_text_quote(out, iok_span(text.p, text.n));
        else if (take_word(run, word, sizeof(word)))
            kit_text_put(out, word, strlen(word));
        kit_text_free(&text);
    }
}

static void expect_event(struct run *run, const char *verb)
{
    struct kit_text expected = {0};
    if (run->mode == KIT_ABANDON && strcmp(verb, "part") == 0)
        return; /* nobody is there to take it */
    normalise(run, verb, &expected);
    if (run->mode == KIT_ABANDON &&
        (strcmp(verb, "reply") == 0 || strcmp(verb, "reject") == 0 || strcmp(verb, "again") == 0)) {
        expected.n = 0;
        kit_text_put(&expected, "swallowed", 9);
    }
    compare(run, iok_span(expected.p, expected.n), next_event(run));
    kit_text_free(&expected);
}

/* What a server has read: the host that is one, or the peer of KIT_ROUND. */
static void expect_request(struct run *run)
{
    if (run->mode == KIT_CUT)
        return;
    if (run->host.server) {
        expect_event(run, "request");
        return;
    }
    if (run->mode != KIT_ROUND)
        return;
    struct kit_text expected = {0};
    const char *p = run->peer.events.p != NULL ? run->peer.events.p + run->next_request : "";
    size_t n = strcspn(p, "\n");
    normalise(run, "request", &expected);
    compare(run, iok_span(expected.p, expected.n), iok_span(p, n));
    run->next_request += n + 1;
    kit_text_free(&expected);
}

/* An event with a text of which the line names a part. */
static void expect_error(struct run *run, const char *verb)
{
    char code[32] = "", start[80];
    struct kit_text part = {0};
    take_word(run, code, sizeof(code));
    snprintf(start, sizeof(start), "%s %s ", verb, code);
    struct iok_span event = next_event(run);
    if (event.n < strlen(start) || memcmp(event.p, start, strlen(start)) != 0)
        compare(run, iok_span_of(start), event);
    while (!run->over && take_string(run, &part)) {
        if (memmem(event.p, event.n, part.p, part.n) == NULL)
            problem(run, "no \"%s\" in %.*s", part.p, (int)event.n, event.p);
        kit_text_free(&part);
    }
    kit_text_free(&part);
}

static void expect_sent(struct run *run)
{
    struct kit_text bytes = {0}, expected = {0}, got = {0};
    take_strings(run, &bytes);
    kit_text_quote(&expected, iok_span(bytes.p, bytes.n));
    kit_text_quote(&got, iok_span(run->host.sent.p, run->host.sent.n));
    compare(run, iok_span(expected.p, expected.n), iok_span(got.p, got.n));
    kit_text_free(&bytes);
    kit_text_free(&expected);
    kit_text_free(&got);
    kit_text_free(&run->host.sent);
}

/* ---- slots without a connection --------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    uint32_t flag;
} flag_names[] = {
    {"plain", 0},
    {"repeatable", IOK_CLASS_REPEATABLE},
    {"lease", IOK_CLASS_NEEDS_LEASE},
    {"auto", IOK_CLASS_AUTO_LEASE},
    {"stream", IOK_CLASS_STREAM},
    {"forbidden", IOK_CLASS_FORBIDDEN},
    {"dirty", IOK_CLASS_DIRTY},
};

static void print_class(const struct iok_class *class, struct kit_text *out)
{
    if (class->flags == 0)
        kit_text_print(out, " plain");
    for (size_t i = 1; i < sizeof(flag_names) / sizeof(*flag_names); i++)
        if ((class->flags & flag_names[i].flag) != 0)
            kit_text_print(out, " %s", flag_names[i].name);
    if (class->block_ms != 0)
        kit_text_print(out, " block %lld", (long long)class->block_ms);
}

/* What is not plainly shareable has to say why and what to use instead. */
static void expect_class(struct run *run)
{
    struct iok_token *args = calloc(ARGS_MAX, sizeof(*args));
    struct iok_class class = {0};
    struct kit_text expected = {0}, got = {0};
    run->host.proto->classify(args, take_args(run, args), &class);
    normalise(run, "", &expected);
    print_class(&class, &got);
    compare(run, iok_span(expected.p, expected.n), iok_span(got.p, got.n));
    uint32_t restricted = IOK_CLASS_NEEDS_LEASE | IOK_CLASS_STREAM | IOK_CLASS_FORBIDDEN;
    if ((class.flags & restricted) != 0 && class.why == NULL)
        problem(run, "restricted without saying why");
    kit_text_free(&expected);
    kit_text_free(&got);
    free(args);
}

static void expect_describe(struct run *run)
{
    struct iok_token *args = calloc(ARGS_MAX, sizeof(*args));
    struct kit_text expected = {0};
    char text[64];
    size_t n = take_args(run, args);
    take_string(run, &expected);
    for (size_t cap = 0; cap <= sizeof(text); cap++) {
        size_t length = run->host.proto->describe(args, n, text, cap);
        if (length > cap || memcmp(text, expected.p, length < expected.n ? length : expected.n) != 0)
            problem(run, "a description of %zu bytes for room of %zu, or a wrong one", length, cap);
    }
    compare(run, iok_span(expected.p, expected.n),
            iok_span(text, run->host.proto->describe(args, n, text, sizeof(text))));
    kit_text_free(&expected);
    free(args);
}

static void expect_check(struct run *run)
{
    struct kit_text url = {0}, part = {0};
    struct iok_url parsed;
    struct iok_error err = {0};
    char colon[8] = "", code[32] = "";
    take_string(run, &url);
    take_word(run, colon, sizeof(colon));
    take_word(run, code, sizeof(code));
    int rc = iok_url_parse(&parsed, url.p, &err);
    if (rc == 0) {
        rc = run->host.proto->check(&parsed, &err);
        iok_url_deinit(&parsed);
    }
    if (rc == IOK_ENOMEM && run->mode == KIT_FAIL)
        run->over = true;
    else if (strcmp(code, rc == 0 ? "ok" : iok_errno_name(rc)) != 0)
        problem(run, "expected %s, got %d: %s", code, rc, err.text);
    else if (take_string(run, &part) && strstr(err.text, part.p) == NULL)
        problem(run, "no \"%s\" in \"%s\"", part.p, err.text);
    kit_text_free(&url);
    kit_text_free(&part);
}

/* ---- a run ------------------------------------------------------------------------------------------------------ */

static const struct {
    const char *verb;
    void (*run)(struct run *run);
} verbs[] = {
    {"url", do_url},         {"server", do_server},   {"recv", do_recv},
    {"call", do_call},       {"parts", do_parts},     {"body", do_body},
    {"upgrade", do_upgrade}, {"piece", do_piece},     {"finish", do_finish},
    {"break", do_break},     {"answer", do_answer},   {"request", expect_request},
    {"sent", expect_sent},   {"class", expect_class}, {"describe", expect_describe},
    {"check", expect_check},
};

static const char *const events[] = {"raw", "shut",      "reply", "reject", "again", "push",    "part",
                                     "go",  "swallowed", "pong",  "ready",  "role",  "closing", "not"};

static bool run_expectation(struct run *run, const char *verb)
{
    for (size_t i = 0; i < sizeof(events) / sizeof(*events); i++) {
        if (strcmp(verb, events[i]) == 0) {
            expect_event(run, verb);
            return true;
        }
    }
    if (strcmp(verb, "error") != 0 && strcmp(verb, "refused") != 0)
        return false;
    expect_error(run, verb);
    return true;
}

static bool run_action(struct run *run, const char *verb)
{
    char number[32];
    if (strcmp(verb, "limit") == 0)
        run->max_reply = take_word(run, number, sizeof(number)) ? strtoul(number, NULL, 10) : 0;
    else if (strcmp(verb, "ping") == 0)
        kit_host_ping(&run->host);
    else if (strcmp(verb, "reset") == 0)
        kit_host_reset(&run->host);
    else if (strcmp(verb, "cancel") == 0)
        kit_host_cancel(&run->host);
    else if (strcmp(verb, "eof") == 0)
        kit_host_eof(&run->host);
    else if (strcmp(verb, "skip") == 0)
        kit_text_free(&run->host.sent);
    else if (strcmp(verb, "oneway") == 0)
        return true;
    else
        return false;
    return true;
}

static void run_line(struct run *run)
{
    char verb[32];
    if (!take_word(run, verb, sizeof(verb)))
        return;
    bool done = run->mode == KIT_ROUND && skip_in_round(run, verb);
    for (size_t i = 0; i < sizeof(verbs) / sizeof(*verbs) && !done; i++) {
        done = strcmp(verb, verbs[i].verb) == 0;
        if (done && !(run->mode == KIT_CUT && verbs[i].run == expect_sent))
            verbs[i].run(run);
    }
    if (!done)
        done = run_action(run, verb);
    if (!done && run->mode == KIT_CUT && run->host.proto != NULL)
        done = true; /* what follows differs: that it ends well is enough */
    if (!done && !run_expectation(run, verb))
        problem(run, "unknown verb %s", verb);
    for (size_t i = 0; i < run->n_strings; i++)
        kit_text_free(&run->strings[i]);
    run->n_strings = 0;
    if (run->mode == KIT_FAIL && run->host.failed == IOK_ENOMEM)
        run->over = true;
}

bool kit_script_run(const char *script, enum kit_mode mode, uint64_t param, struct kit_result *result)
{
    struct run *run = calloc(1, sizeof(*run));
    *result = (struct kit_result){0};
    run->mode = mode;
    run->param = param;
    run->random = param * 0x9e3779b97f4a7c15u + 1; /* xorshift wants a state that is not 0 */
    run->max_reply = 64u << 20;
    run->result = result;
    run->host.abandon = mode == KIT_ABANDON;
    iok_mem_fail_at(mode == KIT_FAIL ? (unsigned long)param : 0);
    for (const char *line = script; line != NULL && *line != '\0' && !run->over;) {
        run->at = line;
        run->line++;
        run_line(run);
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    result->received = run->host.received;
    result->allocations = iok_mem_count();
    iok_mem_fail_at(0);
    end_connection(run);
    free(run);
    return result->problem[0] == '\0';
}

/* ---- transcripts as material -------------------------------------------------------------------------------------- */

/* A call that begins with an array: of a cursor, or describe. Its verb; *name: the cursor's. */
static const char *report_array(struct run *run, struct kit_text *name)
{
    struct kit_text kind = {0}, sql = {0};
    char array[32], number[32] = "";
    (void)take_word(run, array, sizeof(array));
    take_string(run, &kind);
    bool describes = kind.n == 8 && memcmp(kind.p, "describe", 8) == 0;
    bool statement =
        !describes && take_string(run, name) && take_word(run, number, sizeof(number)) && take_string(run, &sql);
    kit_text_free(&kind);
    kit_text_free(&sql);
    return describes ? "described" : statement ? "cursor" : strcmp(number, "0") == 0 ? "close" : "more";
}

static void report_line(struct run *run, kit_step_fn *step, void *owner)
{
    struct kit_text bytes = {0};
    char verb[32], url[512];
    if (!take_word(run, verb, sizeof(verb)))
        return;
    const char *what = verb;
    if (strcmp(verb, "recv") == 0)
        take_strings(run, &bytes);
    else if (strcmp(verb, "call") == 0 && !at_end(run) && strncmp(run->at, "array/", 6) == 0)
        what = report_array(run, &bytes);
    else if (strcmp(verb, "call") == 0)
        take_string(run, &bytes);
    else if ((strcmp(verb, "url") == 0 || strcmp(verb, "server") == 0) && take_word(run, url, sizeof(url)))
        kit_text_put(&bytes, url, strlen(url));
    step(owner, what, iok_span(bytes.p, bytes.n));
    kit_text_free(&bytes);
}

void kit_script_steps(const char *script, kit_step_fn *step, void *owner)
{
    struct run *run = calloc(1, sizeof(*run));
    struct kit_result result = {0};
    run->result = &result;
    for (const char *line = script; line != NULL && *line != '\0';) {
        run->at = line;
        report_line(run, step, owner);
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    free(run);
}
