/* chaos_options.c - what hurts, as a text says it: "seed=7,partial=0.3,reset_after=1000". */
#include <string.h>

#include "../base/url.h"
#include "chaos_private.h"

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

enum kind { SEED, COUNT, CHANCE, TIME };

static const struct {
    const char *name;
    enum kind kind;
    size_t at; /* a uint64_t of struct iok_chaos_options */
} known[] = {
    {"seed", SEED, offsetof(struct iok_chaos_options, seed)},
    {"partial", CHANCE, offsetof(struct iok_chaos_options, partial)},
    {"refuse", CHANCE, offsetof(struct iok_chaos_options, refuse)},
    {"stall", TIME, offsetof(struct iok_chaos_options, stall)},
    {"pieces", COUNT, offsetof(struct iok_chaos_options, pieces)},
    {"delay", TIME, offsetof(struct iok_chaos_options, delay)},
    {"reset_after", COUNT, offsetof(struct iok_chaos_options, reset_after)},
    {"reset_sent", COUNT, offsetof(struct iok_chaos_options, reset_sent)},
    {"reset_received", COUNT, offsetof(struct iok_chaos_options, reset_received)},
    {"connect_fail", CHANCE, offsetof(struct iok_chaos_options, connect_fail)},
    {"connect_delay", TIME, offsetof(struct iok_chaos_options, connect_delay)},
    {"resolve_fail", CHANCE, offsetof(struct iok_chaos_options, resolve_fail)},
    {"resolve_delay", TIME, offsetof(struct iok_chaos_options, resolve_delay)},
};
#define N_KNOWN (sizeof(known) / sizeof(known[0]))

/* "0.3", "1": at most six places. */
static bool parse_chance(struct iok_span text, uint64_t *out)
{
    uint64_t unit = CHANCE_ONE, value = 0;

    if (text.n == 0 || (text.p[0] != '0' && text.p[0] != '1') || (text.n > 1 && (text.n == 2 || text.p[1] != '.'))) {
        return false;
    }
    for (size_t i = 0; i < text.n; i++) {
        if (i != 1) {
            if (text.p[i] < '0' || text.p[i] > '9' || unit == 0) {
                return false;
            }
            value += (uint64_t)(text.p[i] - '0') * unit;
            unit /= 10;
        }
    }
    *out = value;
    return value <= CHANCE_ONE;
}

static int unknown(struct iok_span key, struct iok_error *err)
{
    const char *names[N_KNOWN + 1] = {NULL};
    const char *nearest;

    for (size_t i = 0; i < N_KNOWN; i++) {
        names[i] = known[i].name;
    }
    nearest = iok_nearest(key, names);
    return iok_err(err, IOK_EOPTION, "unknown option '%.*s'%s%s%s", (int)least(key.n, 40), key.p,
                   nearest != NULL ? ": did you mean '" : " (src/net/chaos.h lists them)",
                   nearest != NULL ? nearest : "", nearest != NULL ? "'?" : "");
}

/* One `name=value`, as the only option of url, whose look-ups know numbers and times. */
static int parse_one(struct iok_chaos_options *options, struct iok_url *url, struct iok_error *err)
{
    struct iok_span key = url->options[0].key, value = url->options[0].value;

    for (size_t i = 0; i < N_KNOWN; i++) {
        uint64_t *at = (uint64_t *)(void *)((char *)options + known[i].at);

        if (!iok_span_eq(key, iok_span_of(known[i].name))) {
            continue;
        }
        switch (known[i].kind) {
        case SEED:
            return iok_url_option_u64(url, known[i].name, 0, INT64_MAX, at, err);
        case COUNT:
            return iok_url_option_u64(url, known[i].name, 1, INT64_MAX, at, err);
        case TIME:
            return iok_url_option_duration(url, known[i].name, 0, HOUR_NS, at, err);
        case CHANCE:
            return parse_chance(value, at) ? 0
                                           : iok_err(err, IOK_EOPTION, "bad %s=%.*s: expected a number from 0 to 1",
                                                     known[i].name, (int)least(value.n, 40), value.p);
        }
    }
    return unknown(key, err);
}

/* Up to the next stop, which is passed over. */
static struct iok_span cut(struct iok_span *rest, char stop)
{
    const uint8_t *at = rest->n == 0 ? NULL : memchr(rest->p, stop, rest->n);
    struct iok_span head = at == NULL ? *rest : iok_span(rest->p, (size_t)(at - rest->p));

    *rest = iok_span_skip(*rest, head.n + (at != NULL));
    return head;
}

int iok_chaos_parse(struct iok_chaos_options *options, const char *text, struct iok_error *err)
{
    struct iok_span rest = iok_span_of(text);
    struct iok_error why = {0};

    options->stall = NS_PER_MS;
    do {
        struct iok_url url = {.n_options = 1};
        struct iok_span value = cut(&rest, ',');
        int rc;

        url.options[0].key = cut(&value, '=');
        url.options[0].value = value;
        rc = parse_one(options, &url, &why);
        if (rc != 0) {
            return iok_err(err, rc, "chaos: %s", why.text);
        }
    } while (rest.n != 0);
    return 0;
}
