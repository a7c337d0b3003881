/* net.h - what the kernel core asks of the world, and what the world tells it.
 *
 * Two drivers implement it: uv.c (libuv, OpenSSL, c-ares) and the tests' simulated network. The core holds no
 * socket, no clock and no randomness of its own, so that given the same events it does the same things.
 *
 * All functions and events run on the thread that runs the loop (the kernel thread, or a waiter that leads it; never
 * two at once). A driver never calls an event from inside one of these functions. */
#ifndef IOK_NET_NET_H
#define IOK_NET_NET_H

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "../base/err.h"
#include "../base/span.h"

struct iok_net;   /* a driver */
struct iok_link;  /* one connection, or the attempt to make one; the driver's */
struct iok_query; /* one look-up of a name; the driver's */
struct iok_door;  /* a listening socket that is watched; the driver's */

#define IOK_ADDRESSES_MAX 16u     /* more A and AAAA records of one name than this are left out */
#define IOK_BINDING_BYTES_MAX 64u /* SHA-512 */
#define IOK_ADDRESS_TEXT_MAX 112u /* "[ipv6%scope]:port" or a unix path, NUL included (sun_path is 108) */

struct iok_address {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un local;
    };
    socklen_t len;
};

/* TLS of a service. Immutable; shared by its connections; outlives its links. */
struct iok_tls_config {
    const char *server_name; /* SNI and the name to verify: a DNS name or an IP literal */
    bool verify;             /* chain and name; true unless the program says otherwise */
    bool any_name;           /* of these only the chain: any certificate of the authorities will do */
    const char *ca_file;     /* PEM; NULL for the system's store */
    const char *crl_file;    /* PEM: what authorities have revoked; NULL: not looked at */
    const char *cert_file;   /* client certificate chain, PEM; NULL for none */
    const char *key_file;    /* PEM; NULL: in cert_file */
    const char *passphrase;  /* of the key; NULL: it has none. Secret, used while it is loaded only */
    const char *const *alpn; /* NULL-terminated protocol names; NULL for none */
};
struct iok_tls; /* a loaded configuration */

/* TLS of a listener. */
struct iok_tls_identity {
    const char *cert_file; /* chain, PEM */
    const char *key_file;  /* PEM; NULL: in cert_file */
};
struct iok_tls_serve_config {
    const struct iok_tls_identity
        *identities; /* the client's SNI chooses by the names in the certificates; else the first */
    uint32_t n_identities;
    const char *passphrase; /* of the keys that have one; NULL: none has. Secret, used while they are loaded only */
    const char *ca_file;    /* clients need a certificate of these authorities, PEM; NULL: they need none */
    const char *alpn;       /* the protocol that is chosen if the client offers it; NULL: none */
};

/* TLS that begins within the connection, once the server has said that it speaks it (PostgreSQL's SSLRequest). */
struct iok_starttls {
    struct iok_span ask; /* what to send first; static */
    uint8_t yes, no;     /* the server's answer, one byte */
    bool required;       /* no is a failure: IOK_ETLS. Otherwise the connection goes on in plain */
};

/* One attempt to connect. Everything is copied before open returns, except tls. */
struct iok_target {
    const struct iok_address *addresses; /* tried in turn: families alternate, the next starts when the last failed
                                            or after 250 ms (RFC 8305); the first to connect wins */
    uint32_t n_addresses;
    struct iok_tls *tls;                 /* NULL: plain */
    const struct iok_starttls *starttls; /* NULL: TLS from the first byte on */
};

/* Told to the core about a link. owner is what open was given. After closed, or after the core called close, no more
 * events come for that link. */
struct iok_link_events {
    /* Connected, and TLS done. address: the one that won. alpn: chosen protocol or ""; NULL: without TLS. */
    void (*connected)(void *owner, const struct iok_address *address, const char *alpn);
    /* Memory for the next bytes: returns where and *n (at least 1); the driver reads once into it, then calls arrived
     * with what came, 1 <= n. NULL: do not read now (the core will call want_read later). */
    uint8_t *(*read_space)(void *owner, size_t *n);
    void (*arrived)(void *owner, size_t n);
    /* send accepted less than all before, and may accept more now. */
    void (*writable)(void *owner);
    /* Optional: the peer sends no more, but may still read. Without it that is closed, with 0. */
    void (*ended)(void *owner);
    /* Optional, of an accepted link with TLS: before that begins the peer says something that is not encrypted. Called with
     * what came, from where it was not taken; returns how many bytes it took, and TLS begins behind them. 0: it took all, and
     * more must come; or the core has closed the link. */
    size_t (*preface)(void *owner, struct iok_span bytes);
    /* The end: err->code is IOK_EREFUSED, IOK_ECONNECT, IOK_ETLS, IOK_EPROTO (bytes that are not encrypted before TLS),
     * IOK_ERESET, or 0 when the peer closed in an orderly way. The link is dead; the core must not use it again, nor call close. */
    void (*closed)(void *owner, const struct iok_error *err);
};

/* Told to the core about a listening socket. */
struct iok_door_events {
    /* Somebody has connected: within this event the core calls adopt, or close. Once this returned, connected comes (at
     * once, or when TLS is done). address: the peer's. */
    void (*accepted)(void *owner, struct iok_link *link, const struct iok_address *address);
    /* No connection can be accepted for want of descriptors or memory. It is off until want_accept switches it on. */
    void (*starved)(void *owner, const struct iok_error *err);
};

/* What to listen on. */
struct iok_bind {
    const struct iok_address *address; /* port 0: any that is free */
    int inherited;                     /* a descriptor that is bound already, which becomes the caller's; -1: none */
    int backlog;
    bool reuse_port; /* others may bind to the same port, and the system spreads connections over all */
    int mode;        /* of a unix socket's file; -1: by umask */
};

/* A finished look-up. code 0: n addresses (port filled in) and for how long they are good. Else IOK_ERESOLVE with the
 * reason in err. The query is dead afterwards. */
typedef void iok_resolved_fn(void *owner, const struct iok_address *addresses, uint32_t n, uint64_t ttl_ns,
                             const struct iok_error *err);

struct iok_net_ops {
    /* Monotonic nanoseconds. Never 0. */
    uint64_t (*now)(struct iok_net *net);
    uint64_t (*random)(struct iok_net *net);
    /* NULL with *err when the attempt cannot even start. */
    struct iok_link *(*open)(struct iok_net *net, const struct iok_target *target, const struct iok_link_events *events,
                             void *owner, struct iok_error *err);
    /* Hands bytes over: how many were accepted (0: none now; writable will follow). IOK_ERESET: the link is broken;
     * closed follows in a later turn. Once accepted, bytes count as sent. */
    ptrdiff_t (*send)(struct iok_link *link, const struct iovec *vec, int n);
    /* Flow control: false stops reading. On at first. */
    void (*want_read)(struct iok_link *link, bool on);
    /* Optional: of a link with TLS, what binds a sign-in to it: "tls-server-end-point" of RFC 5929, a digest of the
     * server's certificate. How many bytes; 0: there is none. */
    size_t (*binding)(struct iok_link *link, uint8_t at[IOK_BINDING_BYTES_MAX]);
    /* Orderly where possible (TLS close_notify), never blocking. No events follow. */
    void (*close)(struct iok_link *link);
    /* NULL with *err when it cannot start. host is a DNS name (literals are the core's own business). */
    struct iok_query *(*resolve)(struct iok_net *net, const char *host, uint16_t port, iok_resolved_fn *done,
                                 void *owner, struct iok_error *err);
    void (*cancel)(struct iok_query *query); /* done will not be called */
    /* Binds and listens: a descriptor, or an error (IOK_ECONNECT, IOK_ESYSTEM) with *err. *bound: the address with its real
     * port. The program's thread. A unix socket that a dead process left behind is replaced. */
    int (*bind)(const struct iok_bind *bind, struct iok_address *bound, struct iok_error *err);
    /* Closes it. path: of the socket's file, which is removed; NULL: none, or somebody else's. Any thread, after fork, too. */
    void (*unbind)(int fd, const char *path);
    /* Accepts connections, until stop; the descriptor stays the caller's. tls NULL: plain. NULL with *err. */
    struct iok_door *(*listen)(struct iok_net *net, int fd, struct iok_tls *tls, const struct iok_door_events *events,
                               void *owner, struct iok_error *err);
    void (*want_accept)(struct iok_door *door, bool on); /* on at first */
    /* Connections from now on have this TLS. Those that are there keep what they have. */
    void (*secure)(struct iok_door *door, struct iok_tls *tls);
    void (*stop)(struct iok_door *door); /* no events follow */
    /* Within accepted: who is told about the link. Later: who is from now on, by the same owner or another. */
    void (*adopt)(struct iok_link *link, const struct iok_link_events *events, void *owner);
    /* Nothing more will be sent, and the peer is told so. Events go on. */
    void (*shut)(struct iok_link *link);
    /* Seconds since 1970-01-01 00:00 UTC. */
    int64_t (*wall)(struct iok_net *net);
    /* Loads certificates: NULL with *err (IOK_ETLS, naming the file and what is wrong). The program's thread. */
    struct iok_tls *(*tls_new)(const struct iok_tls_config *config, struct iok_error *err);
    struct iok_tls *(*tls_serve)(const struct iok_tls_serve_config *config, struct iok_error *err); /* of a listener */
    void (*tls_free)(struct iok_tls *tls); /* of a service: after all links that use it are closed */
};

/* Each driver's struct begins with this. */
struct iok_net {
    const struct iok_net_ops *ops;
};

/* "10.0.0.1:6379", "[::1]:6379", "/run/redis.sock". Returns at. */
const char *iok_address_text(const struct iok_address *address, char at[IOK_ADDRESS_TEXT_MAX]);
/* A literal IPv4 or IPv6 address (with %scope); false if text is none. */
bool iok_address_literal(const char *text, uint16_t port, struct iok_address *out);
/* false when the path does not fit. A path that starts with '@' is in Linux' abstract name space. */
bool iok_address_unix(struct iok_span path, struct iok_address *out);

#endif
