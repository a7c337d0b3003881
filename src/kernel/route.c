/* route.c - what the kernel thread answers itself, whatever the program does: fixed answers, and whether all is well.
 *
 * Health has three parts: this answer shows that the kernel thread lives; the pickup delay, that the program does, as each of
 * its ports has taken lately what was given to it (a probe is given where nothing else is under way); and services that the
 * program needs may be required to be up. */
#include <stdio.h>

#include "../base/mem.h"
#include "serve.h"

/* ---- pickup delay ----------------------------------------------------------------------------------------------- */

void iok_pickup_given(struct iok_core *core, struct iok_port *port)
{
    port->given++;
    if (iok_count_published(&port->picked) >= port->mark) { /* that which was watched was taken: now this one is */
        port->mark = port->given;
        port->mark_at = core->now;
    }
}

uint64_t iok_pickup_delay(const struct iok_core *core, struct iok_port *port)
{
    return iok_count_published(&port->picked) >= port->mark ? 0 : core->now - port->mark_at;
}

static void probe(struct iok_core *core, struct iok_port *port)
{
    if (iok_count_published(&port->picked) == port->given) {
        iok_pickup_given(core, port);
        iok_core_tell(core, port, iok_entry(port, IOK_CQ_PROBE));
    }
}

/* The longest of all ports that serve; false: none does. */
static bool longest_delay(struct iok_listener *listener, uint64_t *delay)
{
    bool any = false;

    *delay = 0;
    iok_list_each (&listener->stations, node, after) {
        struct iok_port *port = iok_container(node, struct iok_station, node)->port;
        uint64_t now = iok_pickup_delay(listener->core, port);

        any = true;
        *delay = now > *delay ? now : *delay;
        probe(listener->core, port);
    }
    return any;
}

/* ---- answers ---------------------------------------------------------------------------------------------------- */

static void answer(struct iok_guest *guest, const struct iok_token *tokens, size_t n)
{
    guest->io.parts = false;
    if (iok_guest_answer(guest, tokens, n) == 0) { /* else it is closed */
        iok_request_recycle(guest->listener->core, guest->request);
        guest->request = NULL;
        iok_guest_set_state(guest, IOK_GUEST_ANSWERING);
        iok_guest_flush(guest);
    } else if (guest->state != IOK_GUEST_CLOSED) {
        iok_guest_refuse(guest, IOK_EINVAL);
    }
}

static struct iok_token text_token(const char *text)
{
    return (struct iok_token){.type = IOK_TEXT, .len = (uint32_t)strlen(text), .p = (const uint8_t *)text};
}

static void answer_text(struct iok_guest *guest, int status, const char *type, const char *body, size_t length)
{
    const struct iok_token tokens[] = {
        {.type = IOK_ARRAY, .len = 4},
        {.type = IOK_I64, .i = status},
        {.type = IOK_NULL},
        {.type = IOK_ARRAY, .len = 4},
        text_token("content-type"),
        text_token(type),
        text_token("cache-control"),
        text_token(status == 200 && type[0] == 't' ? "max-age=60" : "no-store"),
        {.type = IOK_BYTES, .len = (uint32_t)length, .p = (const uint8_t *)body},
    };

    answer(guest, tokens, sizeof(tokens) / sizeof(tokens[0]));
}

static const struct iok_service *missing_service(const struct iok_listener *listener)
{
    for (uint32_t i = 0; i < listener->n_required; i++) {
        if (!iok_service_is_up(listener->required[i])) {
            return listener->required[i];
        }
    }
    return NULL;
}

static void answer_health(struct iok_guest *guest)
{
    struct iok_listener *listener = guest->listener;
    const struct iok_service *missing = missing_service(listener);
    char body[768];
    uint64_t delay;
    bool serves = longest_delay(listener, &delay);
    bool draining = iok_listener_state(listener) != IOK_LISTENER_OPEN;
    const char *status = draining                                 ? "draining"
                         : !serves                                ? "not serving"
                         : delay > listener->config.health_pickup ? "stalled"
                         : missing != NULL                        ? "service down"
                                                                  : "ok";
    int n = snprintf(
        body, sizeof(body),
        "{\"status\": \"%s\", \"pickup_ms\": %llu, \"inflight\": %llu, \"queued\": %u, \"connections\": %u%s%s%s}\n",
        status, (unsigned long long)(delay / IOK_NS_MS), (unsigned long long)iok_count_get(&listener->served_now),
        listener->n_queued, listener->n_guests, missing != NULL ? ", \"service\": \"" : "",
        missing != NULL ? missing->proto->name : "", missing != NULL ? "\"" : "");

    answer_text(guest, status[0] == 'o' ? 200 : 503, "application/json", body, (size_t)n);
}

/* ---- routes ----------------------------------------------------------------------------------------------------- */

static bool reads(struct iok_span method)
{
    return iok_span_eq(method, iok_span_of("GET")) || iok_span_eq(method, iok_span_of("HEAD"));
}

bool iok_route_answers(struct iok_listener *listener, struct iok_guest *guest)
{
    const struct iok_tape *tape = &guest->request->tape;
    struct iok_span target = iok_token_span(&tape->tokens[2]);
    const uint8_t *query = memchr(target.p, '?', target.n);

    if (guest->streams || !reads(iok_token_span(&tape->tokens[1]))) {
        return false;
    }
    target.n = query != NULL ? (size_t)(query - target.p) : target.n;
    if (listener->health.n != 0 && iok_span_eq(target, listener->health)) {
        answer_health(guest);
        return true;
    }
    for (struct iok_route *route = listener->routes; route != NULL; route = route->next) {
        if (iok_span_eq(target, iok_span_of(route->target))) {
            answer_text(guest, route->status, route->type, (const char *)route->body, route->n);
            return true;
        }
    }
    return false;
}

int iok_route_add(struct iok_listener *listener, const char *target, int status, const char *type, struct iok_span body,
                  struct iok_error *err)
{
    size_t n_target = strlen(target), n_type = strlen(type);
    struct iok_route *route = iok_calloc(sizeof(*route) + n_target + n_type + body.n + 2);
    char *at;

    if (route == NULL) {
        return iok_err(err, IOK_ENOMEM, "out of memory for an answer");
    }
    at = (char *)(route + 1);
    route->target = memcpy(at, target, n_target + 1);
    route->type = memcpy(at + n_target + 1, type, n_type + 1);
    route->body = (uint8_t *)at + n_target + n_type + 2;
    if (body.n != 0) {
        memcpy(at + n_target + n_type + 2, body.p, body.n);
    }
    route->n = body.n;
    route->status = status;
    route->next = listener->routes;
    listener->routes = route;
    return 0;
}

void iok_routes_free(struct iok_listener *listener)
{
    while (listener->routes != NULL) {
        struct iok_route *next = listener->routes->next;

        iok_free(listener->routes);
        listener->routes = next;
    }
}
