/* link.c - one connection of the core: an attempt, then plain bytes or TLS, then the end.
 *
 *     CONNECTING --won--> [ASKING] --yes--> HANDSHAKE --done--> OPEN
 *         |  '------ no TLS, or ASKING --no---------------------^ |
 *         '---- any failure, any end -----> FAILED: no watching, no sending; an event says so in a later turn
 *     close, from anywhere, and that event ------> CLOSED: on the list of the dead
 *
 * An accepted one begins in HANDSHAKE, or OPEN; in PREFACE, and then HANDSHAKE, if bytes stand in front of TLS. When its peer ends its side it may stay OPEN, and is only not read any more.
 *
 * Plain: the core's memory and the socket, nothing between. TLS: what was read is fed at once, and delivered as the
 * core gives space; when it gives none, the rest stays inside the stream and becomes work when reading goes on. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "tls.h"
#include "uv_private.h"

/* Reads for one readiness, as long as each fills its space: a fast peer costs fewer turns, and cannot hold up the
 * others for long. */
#define READS_MAX 4

enum link_state {
    LINK_CONNECTING,
    LINK_ASKING,  /* whether the server speaks TLS */
    LINK_PREFACE, /* the peer says something before TLS begins */
    LINK_HANDSHAKE,
    LINK_OPEN,
    LINK_FAILED,
    LINK_CLOSED,
};

struct iok_link {
    struct iok_node node; /* in the driver's links or dead */
    struct iok_work work;
    struct iok_uv *net;
    struct iok_link_events events;
    void *owner;
    enum link_state state;
    bool reading;                 /* the core wants bytes */
    bool send_fell_short;         /* the core waits for writable */
    bool opened;                  /* was OPEN once */
    bool ended;                   /* the peer sends no more, and that is no failure */
    bool send_failed;             /* what the peer sent before may still be there to read */
    bool draining;                /* FAILED, and delivering just that */
    struct iok_race *race;        /* until it is won */
    struct iok_sock *sock;        /* from then on */
    struct iok_tls_stream *tls;   /* NULL: plain */
    struct iok_starttls starttls; /* ask.n 0: not to be asked */
    struct iok_address address;   /* the winner */
    struct iok_error err;         /* FAILED: why */
};

/* ---- failing and dying ------------------------------------------------------------------------------------------- */

/* The first failure counts. Only what the peer itself says in TLS, found afterwards, is better than a broken pipe. */
static void link_fail(struct iok_link *link, const struct iok_error *err)
{
    if (link->state == LINK_FAILED) {
        if (link->draining && err->code == IOK_ETLS) {
            link->err = *err;
        }
        return;
    }
    link->state = LINK_FAILED;
    link->err = *err;
    if (link->sock != NULL) {
        iok_sock_watch(link->sock, 0);
    }
    iok_work_add(link->net, &link->work);
}

/* A system call failed with -errno. */
static void link_fail_system(struct iok_link *link, ptrdiff_t error)
{
    struct iok_error err;
    char reason[IOK_REASON_MAX];

    if (link->opened) {
        iok_err(&err, IOK_ERESET, "connection lost: %s", iok_sock_reason((int)error, reason));
    } else {
        iok_err(&err, IOK_ETLS, "connection lost during the TLS handshake: %s", iok_sock_reason((int)error, reason));
    }
    link_fail(link, &err);
}

static void link_fail_memory(struct iok_link *link)
{
    struct iok_error err;

    iok_err(&err, IOK_ENOMEM, "out of memory for TLS");
    link_fail(link, &err);
}

/* The peer sends no more: true if the core can do with that. */
static bool link_end(struct iok_link *link)
{
    if (link->events.ended == NULL || link->state != LINK_OPEN) {
        return false;
    }
    link->ended = true;
    link->events.ended(link->owner);
    return true;
}

/* The peer's stream of bytes ended. */
static void link_fail_eof(struct iok_link *link)
{
    struct iok_error err;

    if (link->tls == NULL && link_end(link)) {
        return;
    }
    if (link->tls == NULL) {
        iok_err(&err, 0, "closed by the peer");
    } else if (link->opened) {
        /* RFC 8446 6.1: without close_notify somebody may have cut the stream. */
        iok_err(&err, IOK_ERESET, "closed without close_notify");
    } else {
        iok_err(&err, IOK_ETLS, "closed by the peer during the TLS handshake");
    }
    link_fail(link, &err);
}

static void link_bury(struct iok_link *link)
{
    link->state = LINK_CLOSED;
    if (link->race != NULL) {
        iok_race_close(link->race);
        link->race = NULL;
    }
    if (link->sock != NULL) {
        iok_sock_close(link->sock);
        link->sock = NULL;
    }
    if (link->tls != NULL && !link->net->forgotten) {
        iok_tls_stream_free(link->tls);
        link->tls = NULL;
    }
    iok_list_remove(&link->work.node);
    iok_list_remove(&link->node);
    iok_list_push(&link->net->dead, &link->node);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* Sends what TLS has ready. true when nothing is left. */
static bool link_flush(struct iok_link *link)
{
    struct iok_span bytes;

    while (bytes = iok_tls_stream_peek(link->tls), bytes.n > 0) {
        struct iovec vec = {.iov_base = (void *)(uintptr_t)bytes.p, .iov_len = bytes.n};
        ptrdiff_t sent = iok_sock_send(link->sock, &vec, 1);

        if (sent < 0) {
            link->send_failed = true;
            link_fail_system(link, sent);
        }
        if (sent <= 0) {
            return false;
        }
        iok_tls_stream_take(link->tls, (size_t)sent);
    }
    return true;
}

static void link_watch(struct iok_link *link)
{
    int events = 0;

    if (link->state == LINK_ASKING || link->state == LINK_PREFACE || link->state == LINK_HANDSHAKE ||
        (link->state == LINK_OPEN && link->reading && !link->ended)) {
        events |= UV_READABLE;
    }
    if (link->send_fell_short || (link->tls != NULL && iok_tls_stream_peek(link->tls).n > 0)) {
        events |= UV_WRITABLE;
    }
    iok_sock_watch(link->sock, events);
}

static ptrdiff_t send_plain(struct iok_link *link, const struct iovec *vec, int n)
{
    ptrdiff_t sent = iok_sock_send(link->sock, vec, n);

    if (sent < 0) {
        link->send_failed = true;
        link_fail_system(link, sent);
    }
    return sent;
}

static ptrdiff_t send_tls(struct iok_link *link, const struct iovec *vec, int n, size_t total)
{
    size_t accepted = 0;
    ptrdiff_t got;

    do {
        struct iok_error err;

        got = iok_tls_stream_write(link->tls, vec, n, accepted, &err);
        if (got < 0) {
            link_fail(link, &err);
            break;
        }
        accepted += (size_t)got;
    } while (link_flush(link) && got > 0 && accepted < total);
    return (ptrdiff_t)accepted;
}

ptrdiff_t iok_link_send(struct iok_link *link, const struct iovec *vec, int n)
{
    size_t total = 0;
    ptrdiff_t accepted;

    assert(link->state == LINK_OPEN || link->state == LINK_FAILED);
    if (link->state == LINK_FAILED) {
        return IOK_ERESET;
    }
    for (int i = 0; i < n; i++) {
        total += vec[i].iov_len;
    }
    accepted = link->tls != NULL ? send_tls(link, vec, n, total) : send_plain(link, vec, n);
    if (link->state == LINK_FAILED) {
        return IOK_ERESET;
    }
    if ((size_t)accepted < total) {
        link->send_fell_short = true;
    }
    link_watch(link);
    return accepted;
}

/* The socket takes bytes again. */
static void link_on_writable(struct iok_link *link)
{
    if (link->tls != NULL && !link_flush(link)) {
        return;
    }
    if (link->send_fell_short) {
        link->send_fell_short = false;
        link->events.writable(link->owner);
    }
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static bool may_deliver(const struct iok_link *link)
{
    return link->reading && !link->ended &&
           (link->state == LINK_OPEN || (link->state == LINK_FAILED && link->draining));
}

/* The core's memory for the next bytes, or NULL when they cannot be delivered now. */
static uint8_t *link_space(struct iok_link *link, size_t *n)
{
    uint8_t *at = link->events.read_space(link->owner, n);

    if (at == NULL) {
        link->reading = false;
    }
    return may_deliver(link) ? at : NULL;
}

/* Hands over what TLS holds, as far as the core takes it. */
static void link_deliver(struct iok_link *link)
{
    while (may_deliver(link) && iok_tls_stream_buffered(link->tls)) {
        struct iok_error err;
        size_t n = 0;
        uint8_t *at = link_space(link, &n);
        ptrdiff_t got;

        if (at == NULL) {
            return;
        }
        got = iok_tls_stream_read(link->tls, at, n, &err);
        if (got == IOK_ECLOSED) {
            if (link_end(link)) {
                return;
            }
            iok_err(&err, 0, "closed by the peer");
        }
        if (got < 0) {
            link_fail(link, &err);
            return;
        }
        if (got > 0) {
            link->events.arrived(link->owner, (size_t)got);
        }
    }
}

/* Reads once into at. How much came, or 0 if there was nothing, or no more will be. */
static size_t link_recv(struct iok_link *link, uint8_t *at, size_t n)
{
    ptrdiff_t got = iok_sock_recv(link->sock, at, n);

    if (got > 0) {
        return (size_t)got;
    }
    if (got == 0) {
        link_fail_eof(link);
    } else if (got != -EAGAIN) {
        link_fail_system(link, got);
    }
    return 0;
}

enum read_result {
    READ_STOP, /* nothing there, or nothing can be delivered any more */
    READ_PART, /* all that was there, probably */
    READ_FULL, /* it filled the space: there may be more */
};

static enum read_result link_read_once(struct iok_link *link)
{
    size_t space = sizeof(link->net->scratch), got;

    if (link->tls == NULL) {
        uint8_t *at = link_space(link, &space);

        got = at != NULL ? link_recv(link, at, space) : 0;
        if (got == 0) {
            return READ_STOP;
        }
        link->events.arrived(link->owner, got);
    } else {
        got = link_recv(link, link->net->scratch, space);
        if (got == 0) {
            return READ_STOP;
        }
        if (!iok_tls_stream_feed(link->tls, link->net->scratch, got)) {
            link_fail_memory(link);
        }
        link_deliver(link);
    }
    if (!may_deliver(link)) {
        return READ_STOP;
    }
    return got == space ? READ_FULL : READ_PART;
}

static void link_on_readable(struct iok_link *link)
{
    for (int i = 0; i < READS_MAX && link_read_once(link) == READ_FULL; i++) {
    }
}

/* ---- TLS handshake ----------------------------------------------------------------------------------------------- */

static void link_up(struct iok_link *link)
{
    char alpn[IOK_TLS_ALPN_MAX];

    link->state = LINK_OPEN;
    link->opened = true;
    if (link->tls != NULL) {
        iok_tls_stream_alpn(link->tls, alpn);
    }
    link->events.connected(link->owner, &link->address, link->tls != NULL ? alpn : NULL);
    /* The peer's first bytes may have come along with the end of the handshake. */
    if (link->tls != NULL && link->state == LINK_OPEN) {
        link_deliver(link);
    }
}

static void handshake_step(struct iok_link *link)
{
    struct iok_error err;
    int rc = iok_tls_stream_handshake(link->tls, &err);

    if (rc < 0) {
        link_fail(link, &err);
    }
    link_flush(link); /* an alert tells the peer why */
    if (rc == 1 && link->state == LINK_HANDSHAKE) {
        link_up(link);
    }
}

static void handshake_on_readable(struct iok_link *link)
{
    size_t got = link_recv(link, link->net->scratch, sizeof(link->net->scratch));

    if (got > 0) {
        if (iok_tls_stream_feed(link->tls, link->net->scratch, got)) {
            handshake_step(link);
        } else {
            link_fail_memory(link);
        }
    }
}

/* What the core does not take stands behind the preface, and is TLS. */
static void preface_on_readable(struct iok_link *link)
{
    uint8_t *at = link->net->scratch;
    size_t got = link_recv(link, at, sizeof(link->net->scratch)), taken;

    if (got == 0) {
        return;
    }
    taken = link->events.preface(link->owner, iok_span(at, got));
    if (taken == 0 || link->state != LINK_PREFACE) {
        return;
    }
    link->state = LINK_HANDSHAKE;
    if (!iok_tls_stream_feed(link->tls, at + taken, got - taken)) {
        link_fail_memory(link);
        return;
    }
    handshake_step(link);
}

/* ---- whether there is TLS ----------------------------------------------------------------------------------------- */

static void ask_for_tls(struct iok_link *link)
{
    struct iovec vec = {.iov_base = (void *)(uintptr_t)link->starttls.ask.p, .iov_len = link->starttls.ask.n};
    ptrdiff_t sent = iok_sock_send(link->sock, &vec, 1);

    link->state = LINK_ASKING;
    if (sent != (ptrdiff_t)vec.iov_len) { /* a few bytes into an empty buffer */
        link_fail_system(link, sent < 0 ? sent : -ENOBUFS);
    }
}

/* The answer is one byte. Whatever stands behind it was not encrypted, and would be taken for the peer's words under
 * TLS, or (were it a refusal) before a word of ours: somebody in between put it there. */
static void asking_on_readable(struct iok_link *link)
{
    uint8_t answer[2];
    size_t got = link_recv(link, answer, sizeof(answer));
    struct iok_error err;

    if (got == 0) {
        return;
    }
    if (got > 1 && (answer[0] == link->starttls.yes || answer[0] == link->starttls.no)) {
        iok_err(&err, IOK_EPROTO, "bytes that are not encrypted came before TLS: somebody may be in between");
        link_fail(link, &err);
    } else if (answer[0] == link->starttls.yes) {
        link->state = LINK_HANDSHAKE;
        handshake_step(link);
    } else if (answer[0] == link->starttls.no && !link->starttls.required) {
        iok_tls_stream_free(link->tls);
        link->tls = NULL;
        link_up(link);
    } else {
        iok_err(&err, IOK_ETLS, "%s",
                answer[0] == link->starttls.no ? "the server does not speak TLS"
                                               : "the server did not answer the question whether it speaks TLS");
        link_fail(link, &err);
    }
}

/* ---- what happens ------------------------------------------------------------------------------------------------ */

static bool is_up(const struct iok_link *link)
{
    return link->state == LINK_ASKING || link->state == LINK_PREFACE || link->state == LINK_HANDSHAKE ||
           link->state == LINK_OPEN;
}

static void on_ready(void *owner, int events, bool failed)
{
    struct iok_link *link = owner;

    if ((events & UV_READABLE) != 0) {
        if (link->state == LINK_ASKING) {
            asking_on_readable(link);
        } else if (link->state == LINK_PREFACE) {
            preface_on_readable(link);
        } else if (link->state == LINK_HANDSHAKE) {
            handshake_on_readable(link);
        } else if (link->reading) {
            link_on_readable(link);
        }
    }
    if ((events & UV_WRITABLE) != 0 && is_up(link)) {
        link_on_writable(link);
    }
    if (failed && is_up(link)) {
        int error = iok_sock_error(link->sock);

        if (error != 0) {
            link_fail_system(link, error);
        }
    }
    if (is_up(link)) {
        link_watch(link);
    }
}

/* A send failed: what the peer said before that ("-ERR max number of clients reached", an alert) still counts. */
static void link_drain(struct iok_link *link)
{
    link->draining = true;
    if (!link->opened) {
        handshake_on_readable(link);
    } else {
        if (link->tls != NULL) {
            link_deliver(link);
        }
        while (may_deliver(link) && link_read_once(link) != READ_STOP) {
        }
    }
}

static void on_work(struct iok_work *work)
{
    struct iok_link *link = iok_container(work, struct iok_link, work);

    if (link->state == LINK_OPEN) {
        link_deliver(link);
        if (link->state == LINK_OPEN) {
            link_watch(link);
        }
        return;
    }
    if (link->send_failed) {
        link_drain(link);
    }
    if (link->state == LINK_FAILED) {
        link_bury(link);
        link->events.closed(link->owner, &link->err);
    }
}

void iok_link_won(struct iok_link *link, struct iok_sock *sock, const struct iok_address *address)
{
    link->sock = sock;
    link->address = *address;
    iok_race_close(link->race);
    link->race = NULL;
    iok_sock_pass(sock, on_ready, link);
    if (link->tls != NULL && link->starttls.ask.n > 0) {
        ask_for_tls(link);
    } else if (link->tls != NULL) {
        link->state = LINK_HANDSHAKE;
        handshake_step(link);
    } else {
        link_up(link);
    }
    if (is_up(link)) {
        link_watch(link);
    }
}

void iok_link_lost(struct iok_link *link, const struct iok_error *err)
{
    link_fail(link, err);
}

/* ---- accepted links ---------------------------------------------------------------------------------------------- */

struct iok_link *iok_link_accepted(struct iok_uv *net, int fd, const struct iok_address *address, struct iok_tls *tls)
{
    struct iok_link *link = iok_calloc(sizeof(*link));

    if (link == NULL) {
        return NULL;
    }
    if ((tls != NULL && (link->tls = iok_tls_stream_accept(tls)) == NULL) ||
        iok_sock_open(net, fd, false, on_ready, link, &link->sock) != 0) {
        if (link->tls != NULL) {
            iok_tls_stream_free(link->tls);
        }
        iok_free(link);
        return NULL;
    }
    link->net = net;
    link->work.run = on_work;
    link->reading = true;
    link->address = *address;
    link->state = tls != NULL ? LINK_HANDSHAKE : LINK_OPEN;
    iok_list_push(&net->links, &link->node);
    net->objects++;
    return link;
}

void iok_link_adopt(struct iok_link *link, const struct iok_link_events *events, void *owner)
{
    link->events = *events;
    link->owner = owner;
    if (events->preface != NULL && link->state == LINK_HANDSHAKE) {
        link->state = LINK_PREFACE;
    }
}

/* Its first bytes have come in most cases, so they are looked for at once. */
void iok_link_begin(struct iok_link *link)
{
    if (link->state == LINK_CLOSED) {
        return;
    }
    if (link->state == LINK_OPEN) {
        link_up(link);
    }
    if (link->state == LINK_PREFACE || link->state == LINK_HANDSHAKE || (link->state == LINK_OPEN && link->reading)) {
        on_ready(link, UV_READABLE, false);
    } else if (is_up(link)) {
        link_watch(link);
    }
}

void iok_link_shut(struct iok_link *link)
{
    if (link->state != LINK_OPEN) {
        return;
    }
    if (link->tls != NULL) {
        iok_tls_stream_shutdown(link->tls);
        if (!link_flush(link)) {
            return; /* full, or broken: the end comes by close */
        }
    }
    iok_sock_shut(link->sock);
}

/* ---- what the core asks for -------------------------------------------------------------------------------------- */

struct iok_link *iok_link_open(struct iok_net *base, const struct iok_target *target,
                               const struct iok_link_events *events, void *owner, struct iok_error *err)
{
    struct iok_uv *net = (struct iok_uv *)base;
    struct iok_link *link;

    if (target->n_addresses == 0) {
        iok_err(err, IOK_EINVAL, "no address to connect to");
        return NULL;
    }
    link = iok_calloc(sizeof(*link));
    if (link == NULL) {
        iok_err(err, IOK_ENOMEM, "out of memory for a connection");
        return NULL;
    }
    link->net = net;
    link->work.run = on_work;
    link->events = *events;
    link->owner = owner;
    link->reading = true;
    if (target->starttls != NULL) {
        link->starttls = *target->starttls;
    }
    if (target->tls != NULL) {
        link->tls = iok_tls_stream_new(target->tls, err);
        if (link->tls == NULL) {
            iok_free(link);
            return NULL;
        }
    }
    iok_list_push(&net->links, &link->node);
    net->objects++;
    link->race = iok_race_new(net, link, target);
    if (link->race == NULL) {
        iok_err(err, IOK_ENOMEM, "out of memory for a connection");
        link_bury(link);
        return NULL;
    }
    iok_race_start(link->race);
    return link;
}

void iok_link_want_read(struct iok_link *link, bool on)
{
    link->reading = on;
    if (link->state == LINK_OPEN) {
        if (on && link->tls != NULL && iok_tls_stream_buffered(link->tls)) {
            iok_work_add(link->net, &link->work);
        }
        link_watch(link);
    }
}

size_t iok_link_binding(struct iok_link *link, uint8_t at[IOK_BINDING_BYTES_MAX])
{
    return link->tls != NULL ? iok_tls_stream_binding(link->tls, at) : 0;
}

void iok_link_close(struct iok_link *link)
{
    assert(link->state != LINK_CLOSED);
    if (link->tls != NULL && link->state == LINK_OPEN && !link->net->forgotten) {
        iok_tls_stream_shutdown(link->tls);
        link_flush(link);
    }
    link_bury(link);
}

void iok_links_reap(struct iok_uv *net)
{
    struct iok_node *node;

    while (node = iok_list_pop(&net->dead), node != NULL) {
        struct iok_link *link = iok_container(node, struct iok_link, node);

        if (link->tls != NULL) {
            iok_tls_stream_free(link->tls);
        }
        iok_free(link);
        net->objects--;
    }
}

void iok_links_close(struct iok_uv *net)
{
    struct iok_node *node;

    while (node = iok_list_first(&net->links), node != NULL) {
        iok_link_close(iok_container(node, struct iok_link, node));
    }
}
