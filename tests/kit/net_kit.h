/* net_kit.h - both ends for the tests of the real driver: a peer, which is a thread with blocking sockets, and a
 * client, which plays the core: it keeps what arrives and notes what happens.
 *
 * Nothing here depends on timing: one waits for conditions, and a test that hangs fails after KIT_PATIENCE_NS. */
#ifndef IOK_KIT_NET_KIT_H
#define IOK_KIT_NET_KIT_H

#include <openssl/ssl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>

#include "../../src/net/uv.h"

#define KIT_PATIENCE_NS 30000000000u

/* ---- peers ------------------------------------------------------------------------------------------------------- */

struct peer;
typedef void peer_fn(struct peer *peer, int fd);

struct peer {
    struct iok_address address; /* where it listens */
    int listener;
    pthread_t thread;
    peer_fn *serve;         /* one connection after the other, on the peer's thread; the connection closes afterwards */
    SSL_CTX *ctx;           /* for serve; NULL: plain */
    sem_t go;               /* for serve: wait until the test says so */
    sem_t said;             /* posted by serve: it has said "bye" */
    _Atomic int got;        /* connections accepted */
    _Atomic int clean_ends; /* TLS: connections that ended with close_notify */
};

/* Only listens, for a peer that is to be a process. */
void peer_listen(struct peer *peer, const char *path, SSL_CTX *ctx);
/* Listens on 127.0.0.1, or on path if that is not NULL, and serves. */
void peer_start(struct peer *peer, const char *path, peer_fn *serve, SSL_CTX *ctx);
void peer_stop(struct peer *peer);

peer_fn peer_echo;      /* until the end */
peer_fn peer_echo_late; /* as echo, once the test has posted go */
peer_fn peer_reset;     /* after the first byte */
peer_fn peer_bye;       /* says "bye" and closes */
peer_fn peer_bye_reset; /* says "bye", and resets when the test has posted go */
peer_fn peer_error;     /* "-ERR unknown command\r\n", as a server that speaks no TLS */
peer_fn peer_echo_tls;  /* handshake, then echo, then close_notify */
peer_fn peer_eof_tls;   /* handshake, then closes without close_notify */

/* sem_wait, whatever signals come. */
void sem_wait_for(sem_t *sem);

/* An address on 127.0.0.1 that refuses, for as long as *fd stays open. */
struct iok_address refusing_address(int *fd);

/* ---- the client -------------------------------------------------------------------------------------------------- */

struct client {
    struct iok_net *net;
    struct iok_link *link; /* NULL once it is closed */
    bool connected, closed, plain;
    const struct iok_starttls *starttls; /* NULL: none */
    struct iok_address address;          /* of connected */
    char alpn[64];
    struct iok_error err; /* of closed */
    uint8_t *in;          /* what has arrived */
    size_t n_in, cap_in;
    size_t space;       /* read_space gives at most so much; 0: no limit */
    bool paused;        /* read_space gives nothing */
    const uint8_t *out; /* what is sent, once it is connected */
    size_t n_out, n_sent;
    bool broken; /* send said IOK_ERESET */
    uint32_t reads, shortfalls, writables;
    /* Called within the events, if not NULL, after they were noted. */
    void (*on_connected)(struct client *client);
    void (*on_space)(struct client *client);
    void (*on_arrived)(struct client *client);
    void (*on_writable)(struct client *client);
    void (*on_closed)(struct client *client);
    void *arg;
};

/* A driver with a wake-up that nobody uses. */
struct iok_net *net_start(void);
/* Runs turns until the closed objects are gone, asserts that none is left, and frees it. */
void net_stop(struct iok_net *net);

void client_open(struct client *client, struct iok_net *net, const struct iok_address *addresses, uint32_t n,
                 struct iok_tls *tls);
/* Sends what is left of out, as far as it goes. */
void client_send(struct client *client);
void client_close(struct client *client);
/* Frees what has arrived; the link must be closed. */
void client_free(struct client *client);

/* Bytes that differ from place to place; to be freed. */
uint8_t *make_bytes(size_t n);

/* In a child after fork, which ends by _exit: does it hold memory that nothing points to? 0 or 1; needs the leak
 * sanitizer, else 0. */
int leaks(void);

/* Runs turns until the condition holds. A turn that sleeps through to the limit missed something, even if that helped. */
#define until(net, condition)                                                                                          \
    do {                                                                                                               \
        uint64_t until_ = (net)->ops->now(net) + KIT_PATIENCE_NS;                                                      \
                                                                                                                       \
        while (!(condition)) {                                                                                         \
            iok_uv_turn((net), until_);                                                                                \
            assert_true((net)->ops->now(net) < until_);                                                                \
        }                                                                                                              \
    } while (0)

#endif
