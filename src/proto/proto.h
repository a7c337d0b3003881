/* proto.h - the codec contract: one protocol as a pure state machine.
 *
 * A codec turns argument tapes into bytes and bytes into reply tapes. It has no socket, no clock and no thread: the
 * host (the kernel's connection, or the test kit) calls it, always from one thread, and it never blocks. All its
 * memory is the state_size bytes that the host gives, plus what open allocates and close frees.
 *
 * The host keeps a flight for every request that was encoded and has not had its whole answer. An IN_ORDER protocol
 * answers the oldest flight; a BY_ID protocol names one by its seq. A flight whose caller went away stays as a
 * tombstone: its tape discards, and the codec neither sees nor cares.
 *
 *     open -> greet -> feed... -> iok_io_ready -> (encode | feed | ping)* -> close
 *
 * To add a protocol: its file, its name in list.c, tests/proto/NAME/, docs/protocols/NAME.md. */
#ifndef IOK_PROTO_PROTO_H
#define IOK_PROTO_PROTO_H

#include <iokernel.h>

#include "../base/err.h"
#include "../base/out.h"
#include "../base/role.h"
#include "../base/span.h"
#include "../base/tape.h"
#include "../base/url.h"

enum iok_proto_flags {
    IOK_PROTO_IN_ORDER = 1, /* answers come in the order of requests */
    IOK_PROTO_BY_ID = 2,    /* answers name their request */
    IOK_PROTO_PUSH = 4,     /* the peer may send messages that answer nothing */
    IOK_PROTO_LONG = 16, /* a request may take its time, and a ping behind it is answered after it: none is sent then */
    IOK_PROTO_WHOLE = 8, /* the peer acts on whole requests only: one whose last byte was not sent never ran */
    IOK_PROTO_SINGLE = 32, /* one request at a time on a connection: they are made by need, up to connections= */
};

/* What classify says of a request. */
enum iok_class_flags {
    IOK_CLASS_REPEATABLE = 1,  /* running it twice is as good as once */
    IOK_CLASS_NEEDS_LEASE = 2, /* changes the connection's state: an error unless the program holds a lease */
    IOK_CLASS_AUTO_LEASE = 4,  /* blocks its connection: the kernel gives it one of its own for this call */
    IOK_CLASS_STREAM = 8,      /* answered by messages until the lease ends; needs a lease */
    IOK_CLASS_FORBIDDEN = 16,  /* never, not even on a lease */
    IOK_CLASS_DIRTY = 32,      /* after it the leased connection must be reset before another uses it */
};

struct iok_class {
    uint32_t flags;   /* enum iok_class_flags */
    int64_t block_ms; /* how long the server may hold the answer on purpose; -1 for ever, 0 not at all */
    const char *why;  /* static text for the error, when not plainly shareable: what is wrong and what to use instead */
};

/* What the program announces of a request, for encode to see. */
enum iok_flight_flags {
    IOK_FLIGHT_PING = 1,     /* the host's own */
    IOK_FLIGHT_ANSWERED = 2, /* the host's own */
    IOK_FLIGHT_PARTS = 4,    /* it takes the answer in parts: begin_part */
    IOK_FLIGHT_BODY = 8,     /* the request has a body, which follows by the slot body */
    IOK_FLIGHT_GO = 16,      /* set by encode: and the peer wants it at once, without a go */
    IOK_FLIGHT_SOON = 32,    /* set by encode: the same, in a second; cleared by whoever comes first, host or codec */
    IOK_FLIGHT_SMALL = 64,   /* set by the codec: its parts may be of two bytes each, and the host reads no more at a
                                time than it has room for */
};

/* What a call of the slot body brings. */
enum iok_body {
    IOK_BODY_PART, /* bytes of it */
    IOK_BODY_END,  /* bytes of it, perhaps none, and then it is complete */
    IOK_BODY_FAIL, /* it is broken off: bytes are a text that says why */
};

/* One request that awaits its answer. */
struct iok_flight {
    struct iok_call *call; /* the host's; NULL for a tombstone */
    uint64_t end;          /* stream offset just past its last byte */
    uint32_t tag;          /* the codec's own note, set by encode: what kind of answer to expect */
    uint32_t host;         /* enum iok_flight_flags */
};

enum iok_msg_flags {
    IOK_MSG_LAST = 1,     /* the flight is answered: always set, except for a part */
    IOK_MSG_REJECTED = 2, /* the answer is an error by which the peer says that it did not run the request */
    IOK_MSG_AGAIN =
        8, /* with REJECTED: and it will do so now, if asked again; the host does, if no lease holds the order */
    IOK_MSG_HEAD = 16, /* of a server: a request whose body comes by begin_part, and ends by a part with LAST */
    IOK_MSG_DROP = 4,  /* begun but not to be delivered: a server's part that could not read it to its end */
};

#define IOK_CANCEL_BYTES_MAX 512u
#define IOK_SEQ_HEAD UINT64_MAX /* the oldest flight */

struct iok_io;

/* What the host gives to a codec. */
struct iok_host {
    /* Starts a message that answers flight seq; NULL when there is no such flight (a protocol error by the peer). The
     * tape is also io->tape, until end. One message at a time. A codec that returns from feed inside a message reads
     * io->tape again in the next feed: the host puts a discarding tape there when the caller went away meanwhile. */
    struct iok_tape *(*begin_reply)(struct iok_io *io, uint64_t seq);
    /* Starts a message that answers nothing: it goes to the stream of the connection's lease, or is counted and
     * dropped. Never NULL. */
    struct iok_tape *(*begin_push)(struct iok_io *io);
    /* Starts a part of the answer to flight seq, which has IOK_FLIGHT_PARTS: it goes to the program at its end, and the
     * answer itself follows behind the last. Never NULL. A reader that is slow pauses the connection only then: make
     * parts large, at least some hundred bytes each on average, or the stream runs over, which ends the connection. */
    struct iok_tape *(*begin_part)(struct iok_io *io, uint64_t seq);
    /* The peer wants the body of flight seq, which has IOK_FLIGHT_BODY. The slot body may be called before this
     * returns. Once for a flight, outside a message. 0, or an error that feed returns. */
    int (*go)(struct iok_io *io, uint64_t seq);
    /* The message is complete. flags: enum iok_msg_flags, 0 for a part. 0, or an error that feed returns. */
    int (*end)(struct iok_io *io, uint32_t flags);
    /* The flight, to read its tag; NULL if there is none. Borrowed until the next call of the host. */
    struct iok_flight *(*flight)(struct iok_io *io, uint64_t seq);
    /* Sign-in is done. Called once per greet. */
    void (*ready)(struct iok_io *io);
    /* What the server is: enum iok_role. At sign-in, before ready, and whenever it changes; 0: it is not what it said
     * it was, and a new connection will be asked. Of interest only where io->wish is not IOK_WISH_ANY. */
    void (*role)(struct iok_io *io, uint32_t role);
    /* The connection ends, in order, once its flights are answered, or its output is sent: no request goes out on it
     * after those that have. */
    void (*closing)(struct iok_io *io);
    /* The answer to flight seq, in parts, and its body are plain bytes from now on, with an end of its own each, until the
     * connection's end. The call has no deadline any more, and eof is called when the peer has ended its side; should it
     * return 1, again when ours is ended, too. */
    void (*raw)(struct iok_io *io, uint64_t seq);
    /* Then: nothing more will be sent, and the peer is told so once all is out. */
    void (*shut)(struct iok_io *io);
    /* Optional, of servers: the head of the request that is open was read, and its body follows. */
    void (*head)(struct iok_io *io);
    /* For nonces. It may be the generator of the host's jitter: do not show its values to a peer as they are. */
    uint64_t (*random)(struct iok_io *io);
};

struct iok_io {
    const struct iok_host *host;
    struct iok_out *out;       /* bytes for the peer; the host flushes them */
    struct iok_tape *tape;     /* of the message that is open; NULL if none */
    const struct iok_url *url; /* the service's URL with user, password and the codec's own options */
    size_t max_reply;          /* bytes of one reply, its tokens included */
    bool encrypted;            /* TLS, or a unix socket */
    bool refused;              /* set at sign-in: not on such a connection, but perhaps with TLS, or without */
    struct iok_span binding;   /* of TLS: "tls-server-end-point" (RFC 5929), to bind a sign-in to it; n 0: none */
    bool single;               /* server: feed returns behind each request, and the rest comes when that is answered */
    uint64_t whole;            /* server: a body of more bytes, or of unknown length, comes in parts; 0: none does */
    bool parts;                /* server: the body of the next answer follows by the slot body */
    bool last;                 /* server: the connection ends behind the next answer */
    struct iok_span date;      /* server: the time of day as HTTP has it; n 0: it is not known */
    enum iok_wish wish;        /* which servers the service wants; ANY: it need not know their roles */
    struct iok_error err;      /* filled by whoever returns a negative code */
};

/* return iok_io_fail(io, IOK_EPROTO, "..."); */
#define iok_io_fail(io, code, ...) iok_err(&(io)->err, (code), __VA_ARGS__)

/* An option of the URL's query that belongs to the codec. */
struct iok_proto_option {
    const char *name;
    const char *help; /* one line: meaning, unit, default */
};

/* Whether a connection that failed because it has TLS, or has none, is tried in the other way at once. */
enum iok_tls_ways { IOK_TLS_ONE_WAY = 0, IOK_TLS_THEN_PLAIN, IOK_PLAIN_THEN_TLS };

/* TLS that begins within a plain connection, for protocols in which the URL's scheme does not decide it. */
struct iok_proto_tls {
    struct iok_span ask; /* bytes that ask the server whether it speaks TLS; static */
    uint8_t yes, no;     /* its whole answer */
    bool wanted;         /* ask at all */
    enum iok_tls_ways ways;
    bool required; /* no is a failure, and not a plain connection */
    bool verify_chain, verify_name;
    const char *ca_file, *crl_file, *cert_file, *key_file, *passphrase; /* of the URL; NULL: none */
};

/* How a URL of the protocol names several hosts, and which of them are wished for. */
struct iok_proto_hosts {
    const char *hosts_key, *ports_key;     /* options that name hosts and ports, too */
    const char *socket;                    /* the sockets' name in a directory, to which the port is appended */
    const char *wish_key, *prefer_standby; /* the option that says the wish, and its value for PREFER_STANDBY */
    /* The program's thread. *wish and *shuffle are ANY and false before. */
    int (*wish)(const struct iok_url *url, enum iok_wish *wish, bool *shuffle, struct iok_error *err);
};

/* Into what a server's connection changes by an answer. */
struct iok_upgrade {
    bool websocket; /* else into what only the program knows: bytes */
    bool deflate;   /* of WebSocket: permessage-deflate, if the client wishes for it */
    size_t message_bytes_max;
};

/* The server's part in the same protocol. A request is a message that begins by host->begin_push; the answers are given
 * by the host in the order of the requests. The rules of struct iok_proto hold here, too. */
struct iok_proto_server {
    size_t state_size; /* zeroed by the host before open */
    /* A connection was accepted. */
    int (*open)(void *state, struct iok_io *io);
    /* Takes bytes in, begins and ends requests; returns as feed of struct iok_proto. */
    ptrdiff_t (*feed)(void *state, struct iok_io *io, struct iok_span in);
    /* Appends the answer to the oldest request that has none. */
    int (*answer)(void *state, struct iok_io *io, const struct iok_token *reply, size_t n);
    /* Optional: appends a piece of the body of the answer that was given with io->parts, up to END. Errors as of answer. */
    int (*body)(void *state, struct iok_io *io, struct iok_span bytes, enum iok_body what);
    /* Optional: the same by an answer that changes the protocol; request is what it answers. From then on feed brings messages
     * by begin_part (seq IOK_SEQ_HEAD for the last, NULL for others that there is no room for), and what follows is
     * written by message, up to end. */
    int (*upgrade)(void *state, struct iok_io *io, const struct iok_upgrade *how, const struct iok_token *request,
                   size_t n_request, const struct iok_token *answer, size_t n);
    int (*message)(void *state, struct iok_io *io, const struct iok_token *message, size_t n);
    int (*end)(void *state, struct iok_io *io);
    /* The client sends no more. */
    int (*eof)(void *state, struct iok_io *io);
    /* Nothing came for a while: asks for a sign of life. 1: that is not possible. */
    int (*ping)(void *state, struct iok_io *io);
    /* Optional: the request whose body follows is in good hands: the client may send it. */
    int (*go)(void *state, struct iok_io *io);
    /* Optional: the same by the host, with an error: why is IOK_EOVERLOAD, IOK_ETIMEOUT, IOK_ECLOSED, or another (the
     * program failed). If all are answered: gives up the request that is being read, and ends behind that. Without this
     * slot the connection is closed. */
    int (*refuse)(void *state, struct iok_io *io, int why);
    void (*close)(void *state);
};

/* Slots without comment to the contrary run on the kernel thread (or on a waiter that leads it), may not block, and
 * return 0 or a negative enum iok_errno with io->err filled in, after which the host closes the connection. Optional
 * slots are NULL. */
struct iok_proto {
    const char *name;               /* "redis" */
    const char *const *schemes;     /* NULL-terminated: "redis", "valkey" */
    const char *const *tls_schemes; /* the same over TLS: "rediss"; NULL if none */
    uint16_t default_port;          /* 0: the URL must name one */
    uint16_t tls_port;              /* of the TLS schemes, if it is another; 0: the same */
    uint32_t flags;                 /* enum iok_proto_flags */
    size_t state_size;              /* zeroed by the host before open */
    uint32_t default_connections;
    const struct iok_proto_option *options; /* ends with name NULL; NULL if none */
    const struct iok_proto_server *server;  /* NULL: client only */
    const char *too_large; /* what to do about a reply over max_reply, for its error; NULL: nothing is known */

    /* Optional: several hosts are possible. */
    const struct iok_proto_hosts *hosts;
    /* Optional; the program's thread, and it may read files: what the URL leaves open comes from elsewhere. *whole becomes
     * the URL as it is to be read, by iok_malloc: the host wipes and frees it. */
    int (*complete)(const struct iok_url *url, char **whole, struct iok_error *err);
    /* Optional; the program's thread: looks at the URL before a service is made. */
    int (*check)(const struct iok_url *url, struct iok_error *err);
    /* Optional; the program's thread, after check: whether and how TLS begins within the connection. */
    int (*tls)(const struct iok_url *url, struct iok_proto_tls *out, struct iok_error *err);
    /* A connection was made. */
    int (*open)(void *state, struct iok_io *io);
    /* Optional: writes the sign-in; later answers come through feed, and the codec calls host->ready once it is done.
     * Without this slot the connection is ready at once. */
    int (*greet)(void *state, struct iok_io *io);
    /* Appends the request to io->out, and sets flight->tag. IOK_ETYPE, IOK_ELIMIT, IOK_EINVAL, IOK_EUNSAFE: nothing
     * was appended, the call ends with that error, the connection lives on. Any other error closes it. */
    int (*encode)(void *state, struct iok_io *io, const struct iok_token *args, size_t n, struct iok_flight *flight);
    /* Optional: appends a piece of the body of flight seq, from host->go on, in order, up to END or FAIL. By reference it
     * may stand in io->out until it is sent. A peer that has answered already wants no more: then it is dropped. Any
     * error closes the connection; IOK_EINVAL says that the body is not as the request announced it. FAIL never comes
     * to a protocol that is SINGLE: the host closes the connection instead. */
    int (*body)(void *state, struct iok_io *io, uint64_t seq, struct iok_span bytes, enum iok_body what);
    /* Takes bytes in, begins and ends messages. Returns how many bytes were used, at most in.n: the host presents the
     * rest again with more behind it, so only what is short and bounded may be left. Negative: error. */
    ptrdiff_t (*feed)(void *state, struct iok_io *io, struct iok_span in);
    /* The peer closed its side after all bytes were fed, in good order. 0: its end is no failure, and completes the
     * message that it ends. 1: nor is it, and what is still to be sent goes out all the same (host->raw). Optional: by
     * default it is a failure. */
    int (*eof)(void *state, struct iok_io *io);
    /* Frees what open allocated. The connection is gone. Called also when open was not, with the state as zeroed. */
    void (*close)(void *state);
    /* Optional: a raw connection (host->raw) was lost, and why: the codec may end the answer by a word of its own. 0: done,
     * or there is none. */
    int (*lost)(void *state, struct iok_io *io, struct iok_span why);
    /* Optional: appends the cheapest request that shows life; the host keeps a flight for it, and drops the answer. flight
     * NULL: the connection is raw, and whatever arrives is the answer. 1: then there is no such request. */
    int (*ping)(void *state, struct iok_io *io, struct iok_flight *flight);
    /* Optional: what kind of request this is. Without it all requests are shareable and none repeatable. Any thread. */
    void (*classify)(const struct iok_token *args, size_t n, struct iok_class *out);
    /* Optional: makes a leased connection clean again; done when the codec calls host->ready. Without it, or on an
     * error, the connection is closed. */
    int (*reset)(void *state, struct iok_io *io);
    /* Optional: writes what makes the peer give up the request that this connection runs, when it comes by another
     * connection, which the peer closes once it has acted on it. At most IOK_CANCEL_BYTES_MAX; how many, 0: not
     * possible. With it the option cancel_timeout= is read, which the codec has to list among its own. */
    size_t (*cancel)(const void *state, uint8_t *at, size_t cap);
    /* Optional: a short safe text for people: the request's name, never its values. Returns the length, at most cap. */
    size_t (*describe)(const struct iok_token *args, size_t n, char *at, size_t cap);
};

/* All codecs; ends with NULL. */
extern const struct iok_proto *const iok_protos[];
/* By URL scheme; *tls says whether it was one of the TLS schemes. NULL if none. */
const struct iok_proto *iok_proto_find(struct iok_span scheme, bool *tls);

#endif
