#include "servenet.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

void house_open(struct house *h, const char *url)
{
    struct iok_error err = {.text = ""};

    h->w = world_new(NULL);
    h->listener = iok_listener_new(h->w->port, url, &err);
    if (h->listener == NULL) {
        fail_msg("%s: %s", url, err.text);
    }
}

void house_close(struct house *h)
{
    iok_listener_close(h->listener, h->w->port, 0);
    iok_listener_unref(h->listener);
    world_free(h->w);
}

struct iok_call *house_call_on(struct house *h, struct iok_port *port)
{
    struct iok_error err = {.text = ""};
    struct iok_call *call = iok_serve_new(port, h->listener, &err);

    if (call == NULL) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(iok_submit(call), 0);
    world_run(h->w);
    return call;
}

struct iok_call *house_call(struct house *h)
{
    return house_call_on(h, h->w->port);
}

struct iok_call *house_poll(struct house *h)
{
    world_run(h->w);
    return iok_poll(h->w->port);
}

void house_get(struct iok_link *link, const char *target)
{
    char text[256];

    snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", target);
    sim_arrive(link, text);
}

static char *put(char *at, const char *end, const struct iok_token *token, const char *after)
{
    return at + snprintf(at, (size_t)(end - at), "%.*s%s", (int)token->len, (const char *)token->p, after);
}

const char *house_request(struct iok_call *call)
{
    static char text[2048];
    const char *end = text + sizeof(text);
    size_t n;
    const struct iok_token *t = iok_call_reply(call, &n);
    char *at = put(put(text, end, &t[1], " "), end, &t[2], " ");
    uint32_t fields = t[4].len;

    assert_int_equal(t[0].len, 6);
    at += snprintf(at, (size_t)(end - at), "%d [", (int)t[3].i);
    for (uint32_t i = 0; i < fields; i += 2) {
        at = put(put(at, end, &t[5 + i], ": "), end, &t[6 + i], i + 2 < fields ? ", " : "");
    }
    at += snprintf(at, (size_t)(end - at), "] \"");
    put(at, end, &t[5 + fields], "\"");
    return text;
}

void house_answer(struct house *h, struct iok_call *call, int status, const char *body)
{
    iok_call_array(call, 4);
    iok_call_i64(call, status);
    iok_call_null(call);
    iok_call_array(call, 2);
    iok_call_text(call, "server", 6);
    iok_call_text(call, body != NULL ? "me" : "m\re", body != NULL ? 2 : 3);
    iok_call_bytes(call, body != NULL ? body : "", body != NULL ? strlen(body) : 0);
    assert_int_equal(iok_submit(call), 0);
    world_run(h->w);
}

void house_begin(struct iok_call *call, int status, const char *length)
{
    iok_call_body(call);
    iok_call_array(call, 4);
    iok_call_i64(call, status);
    iok_call_null(call);
    iok_call_array(call, length != NULL ? 2 : 0);
    if (length != NULL) {
        iok_call_text(call, "content-length", 14);
        iok_call_text(call, length, strlen(length));
    }
    iok_call_null(call);
    assert_int_equal(iok_submit(call), 0);
}

struct iok_call *house_part(struct iok_call *call, const char *text, bool end)
{
    struct iok_call *made = iok_part_new(call, NULL);

    assert_non_null(made);
    if (text != NULL) {
        iok_call_bytes(made, text, strlen(text));
    }
    if (end) {
        iok_part_end(made);
    }
    assert_int_equal(iok_submit(made), 0);
    return made;
}

void house_expect_part(struct house *h, struct iok_call *made, enum iok_outcome outcome)
{
    assert_ptr_equal(house_poll(h), made);
    assert_string_equal(iok_outcome_name(iok_call_outcome(made)), iok_outcome_name(outcome));
    iok_call_free(made);
}
