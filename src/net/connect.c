/* connect.c - a race of connection attempts, "happy eyeballs" (RFC 8305).
 *
 *     addresses  v6a v6b v4a v4b  ->  order  v6a v4a v6b v4b        the first one's family begins, then they take turns
 *     time       |v6a ........ 250 ms |v4a .. failed|v6b .. connected: v6a and v6b's other rivals are closed
 *
 * A single address, and a unix socket, is a race of one. The race ends once: won or lost; it is not about TLS. */
#include "uv_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define ATTEMPT_DELAY_MS 250u /* RFC 8305 8, "Connection Attempt Delay" */

/* All that an error's text can hold of it. */
#define FAILURES_TEXT_MAX sizeof(((struct iok_error *)NULL)->text)

struct attempt {
    struct iok_race *race;
    struct iok_sock *sock; /* NULL: not started, or over */
    struct iok_address address;
};

struct iok_race {
    uv_timer_t delay; /* until the next attempt starts */
    struct iok_uv *net;
    struct iok_link *link;
    uint32_t n, started, running;
    bool refused;                               /* one of the failures was a refusal, which says more than any other */
    char failures[FAILURES_TEXT_MAX];           /* "address: reason, address: reason" */
    struct attempt attempts[IOK_ADDRESSES_MAX]; /* n, in the order of their turns */
};

static void start_next(struct iok_race *race);

/* The next index from i on whose address is (or is not) of the family; n if there is none. */
static uint32_t find_family(const struct iok_target *target, uint32_t n, uint32_t i, sa_family_t family, bool same)
{
    while (i < n && (target->addresses[i].any.sa_family == family) != same) {
        i++;
    }
    return i;
}

static void put_in_order(struct iok_race *race, const struct iok_target *target)
{
    uint32_t n = target->n_addresses < IOK_ADDRESSES_MAX ? target->n_addresses : IOK_ADDRESSES_MAX;
    sa_family_t family = target->addresses[0].any.sa_family;
    uint32_t at[2] = {find_family(target, n, 0, family, false), 0}; /* next of the others, next of the first family */
    bool same = true;

    while (race->n < n) {
        if (at[same] < n) {
            race->attempts[race->n].race = race;
            race->attempts[race->n].address = target->addresses[at[same]];
            race->n++;
            at[same] = find_family(target, n, at[same] + 1, family, same);
        }
        same = !same;
    }
}

static void note_failure(struct iok_race *race, const struct attempt *attempt, int error)
{
    char address[IOK_ADDRESS_TEXT_MAX], reason[IOK_REASON_MAX];
    size_t n = strlen(race->failures);

    race->refused |= error == -ECONNREFUSED;
    snprintf(race->failures + n, sizeof(race->failures) - n, "%s%s: %s", n > 0 ? ", " : "",
             iok_address_text(&attempt->address, address), iok_sock_reason(error, reason));
}

static void win(struct iok_race *race, struct attempt *attempt)
{
    struct iok_sock *sock = attempt->sock;

    attempt->sock = NULL;
    iok_link_won(race->link, sock, &attempt->address);
}

static void on_ready(void *owner, int events, bool failed)
{
    struct attempt *attempt = owner;
    struct iok_race *race = attempt->race;
    int rc = iok_sock_connected(attempt->sock, &attempt->address);

    (void)events;
    if (rc == 0) {
        win(race, attempt);
        return;
    }
    if (rc == -EINPROGRESS && !failed) {
        return;
    }
    note_failure(race, attempt, rc);
    iok_sock_close(attempt->sock);
    attempt->sock = NULL;
    race->running--;
    start_next(race);
}

static void on_delay(uv_timer_t *timer)
{
    start_next(timer->data);
}

/* Starts attempts until one does not fail at once. */
static void start_next(struct iok_race *race)
{
    struct iok_error err;

    uv_timer_stop(&race->delay);
    while (race->started < race->n) {
        struct attempt *attempt = &race->attempts[race->started++];
        int rc = iok_sock_connect(race->net, &attempt->address, on_ready, attempt, &attempt->sock);

        if (rc == 0) {
            race->running++;
            if (race->started < race->n) {
                uv_update_time(&race->net->loop);
                uv_timer_start(&race->delay, on_delay, ATTEMPT_DELAY_MS, 0);
            }
            return;
        }
        note_failure(race, attempt, rc);
    }
    if (race->running == 0) {
        iok_err(&err, race->refused ? IOK_EREFUSED : IOK_ECONNECT, "%s", race->failures);
        iok_link_lost(race->link, &err);
    }
}

struct iok_race *iok_race_new(struct iok_uv *net, struct iok_link *link, const struct iok_target *target)
{
    struct iok_race *race = iok_calloc(sizeof(*race));

    if (race == NULL) {
        return NULL;
    }
    race->net = net;
    race->link = link;
    put_in_order(race, target);
    uv_timer_init(&net->loop, &race->delay);
    race->delay.data = race;
    return race;
}

void iok_race_start(struct iok_race *race)
{
    start_next(race);
}

static void on_closed(uv_handle_t *handle)
{
    iok_free(handle->data);
}

void iok_race_close(struct iok_race *race)
{
    for (uint32_t i = 0; i < race->n; i++) {
        if (race->attempts[i].sock != NULL) {
            iok_sock_close(race->attempts[i].sock);
            race->attempts[i].sock = NULL;
        }
    }
    uv_close((uv_handle_t *)&race->delay, on_closed);
}
