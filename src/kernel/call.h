/* call.h - one request and its reply, as it passes between an application thread and the kernel.
 *
 *     new --submit--> QUEUED --> SENT --> ENDED          (stream: SENT --> STREAMING --> ENDED)
 *
 * Owned by the application until iok_submit, by the kernel until it pushes IOK_CQ_ENDED, then by the application
 * again. Small commands and replies live in the storage at its end, so that a call costs no allocation. */
#ifndef IOK_KERNEL_CALL_H
#define IOK_KERNEL_CALL_H

#include <assert.h>
#include <stdalign.h>
#include <stddef.h>

#include <iokernel.h>

#include "../base/list.h"
#include "../base/tape.h"
#include "../ring/spsc.h"
#include "timer.h"

struct iok_conn;
struct iok_serve;

#define IOK_CALL_ARG_TOKENS 8u    /* a command with 7 arguments */
#define IOK_CALL_REPLY_TOKENS 6u  /* a scalar, or a short list */
#define IOK_CALL_ARG_BYTES 224u   /* a key and a small value */
#define IOK_CALL_REPLY_BYTES 240u /* a small value, or an error text */

enum iok_call_state { IOK_CALL_NEW = 0, IOK_CALL_QUEUED, IOK_CALL_SENT, IOK_CALL_STREAMING, IOK_CALL_ENDED };

enum iok_call_flags {
    IOK_CALL_READY = 1,       /* no request: ends when the service is usable */
    IOK_CALL_REPEATABLE = 2,  /* the program says so */
    IOK_CALL_PARTS = 16,      /* the program takes the reply in parts */
    IOK_CALL_BODY = 32,       /* the request has a body, which follows in parts */
    IOK_CALL_PART = 64,       /* it is no call but a part of a body */
    IOK_CALL_PART_END = 128,  /* the last */
    IOK_CALL_PART_FAIL = 256, /* the body is broken off: its bytes say why */
    IOK_CALL_SERVE = 512,     /* it serves requests: serve.h */
};

/* Of a call with a body. */
enum iok_body_state {
    IOK_BODY_NONE = 0,
    IOK_BODY_HELD,   /* the peer does not want it yet: parts wait */
    IOK_BODY_BROKEN, /* the same, and it has to be broken off */
    IOK_BODY_OPEN,   /* parts are sent as they come */
    IOK_BODY_OVER,   /* complete, or broken off */
};

/* The application's notes. */
enum iok_call_app {
    IOK_APP_SUBMITTED = 1,   /* with the kernel */
    IOK_APP_CANCEL = 2,      /* cancel was sent, and not acknowledged */
    IOK_APP_ENDED = 4,       /* the end was picked up */
    IOK_APP_ABANDONED = 8,   /* to be freed as soon as the kernel lets go */
    IOK_APP_WAITED = 16,     /* a thread waits for it: not for iok_poll */
    IOK_APP_STREAM = 32,     /* messages came: its stream is there */
    IOK_APP_COUNTED = 64,    /* takes up room on its port, from the hand-over to the kernel until it is freed */
    IOK_APP_FAILED = 256,    /* it holds an error although the kernel never had it */
    IOK_APP_PARKED = 128,    /* submitted, and waits for room on its port: the kernel does not know it yet (park.c) */
    IOK_APP_KEPT = 512,      /* to be freed with the last of its parts, as these refer to it */
    IOK_APP_HAND = 1024,     /* of a serving call: it was given a request, and is not answered yet */
    IOK_APP_PORT_REF = 4096, /* its port refers to its service for it */
    IOK_APP_SAID = 2048,     /* and the head of its answer was submitted: parts of the body follow */
};

/* Where a reply came from, small enough to copy into each call; made text only when somebody asks. */
struct iok_peer {
    uint16_t family; /* AF_INET, AF_INET6, AF_UNIX; 0: none */
    uint16_t port;   /* AF_UNIX: the index of its endpoint, which has the path */
    uint32_t scope;
    uint8_t ip[16];
};

/* One message of a stream. Made by the kernel, freed by the application. */
struct iok_message {
    struct iok_tape tape;
    size_t memory;   /* bytes that it takes, itself included; set when it is handed over */
    uint64_t serial; /* of the request whose body it is part of; 0: none */
    struct iok_token tokens[IOK_CALL_REPLY_TOKENS];
    uint8_t bytes[IOK_CALL_REPLY_BYTES];
};

/* Then the kernel holds back, by slow_consumer=, until the program has taken half of them; likewise with the bytes of
 * max_stream_bytes=. */
#define IOK_STREAM_MESSAGES_MAX 1024u

struct iok_stream {
    struct iok_ring ring;         /* of struct iok_message *, kernel to application */
    struct iok_count news_posted; /* an IOK_CQ_NEWS is under way */
    struct iok_count stalled;     /* the kernel waits for credit */
    struct iok_count put, taken;  /* bytes of all messages ever: what stands in between is the difference */
    uint64_t bytes_max;           /* max_stream_bytes= */
};

/* Bytes that stand in the stream: exact for either side's own doing, and never less than what it has seen. */
static inline uint64_t iok_stream_bytes(const struct iok_stream *stream)
{
    uint64_t taken = iok_count_get(&stream->taken);

    return iok_count_get(&stream->put) - taken;
}

/* How far the kernel got, monotonic ns; 0: not reached. */
struct iok_progress {
    uint64_t taken, sent, first_byte, complete;
};

/* Two threads on two processors work on it in turn, and each cache line that one writes and the other looks at costs a
 * trip between them. So the fields stand by writer; what a small command carries over is in two lines, what a small
 * reply brings back in two or three; and the kernel's part is made new by the kernel (iok_call_begin). */
struct iok_call {
    /* the application's, for the kernel to read */
    alignas(IOK_CACHE_LINE) struct iok_port *port;
    struct iok_service *service;
    struct iok_lease *lease;
    uint64_t submitted; /* monotonic ns */
    uint32_t flags;     /* enum iok_call_flags */
    int32_t timeout_ms;
    struct iok_tape args; /* of which the kernel looks at the head: it is in this line */
    /* the application's alone */
    uint32_t app;            /* enum iok_call_app */
    uint32_t n_parts;        /* alive, of its body */
    struct iok_call *whole;  /* of a part: whose; it is not freed before. The kernel reads it */
    struct iok_serve *serve; /* of a serving call, which has no service; else NULL. The kernel reads it */
    void *user;
    uint64_t picked_up;
    struct iok_node all;     /* in the port's list of calls, live or free */
    struct iok_node pending; /* in the port's list of news */
    struct iok_message *message;
    uint32_t n_parts_parked; /* of its parts, those that wait for room on the port */
    /* Bytes are filled in from their end, so that the first of them and the first tokens are in one line. */
    alignas(IOK_CACHE_LINE) uint8_t arg_bytes[IOK_CALL_ARG_BYTES];
    struct iok_token arg_tokens[IOK_CALL_ARG_TOKENS];

    /* the kernel's, from submission to the end */
    alignas(IOK_CACHE_LINE) struct iok_node node; /* in a queue, or in its lease's list of calls under way; before that,
                                                     among the parked */
    struct iok_timer deadline;
    struct iok_conn *conn; /* while SENT or STREAMING */
    uint64_t deadline_ns;  /* 0: none */
    uint64_t seq;          /* of its flight; of a part: the stream offset behind it */
    uint32_t attempts;
    uint32_t class_flags; /* enum iok_class_flags, and what the program said */
    enum iok_call_state state;
    uint8_t body;    /* enum iok_body_state */
    bool maybe_ran;  /* an earlier attempt was sent, and its connection lost */
    bool admitted;   /* counts among the calls that its service holds */
    bool auto_lease; /* its lease is the kernel's own, for this call only */
    struct iok_peer peer;
    struct iok_list parts;     /* of its body, that wait to be sent; only of a call with a body */
    struct iok_stream *stream; /* made by the kernel, freed with the call */
    const char *error_file;
    int error_line;

    /* how it ended, for the application to read */
    alignas(IOK_CACHE_LINE) struct iok_progress stamps;
    int error_code;
    uint8_t outcome;       /* enum iok_outcome */
    bool streams;          /* it has a stream */
    struct iok_tape reply; /* its head is in this line */
    alignas(IOK_CACHE_LINE) uint8_t reply_bytes[IOK_CALL_REPLY_BYTES];
    struct iok_token reply_tokens[IOK_CALL_REPLY_TOKENS];

    char peer_text[64]; /* the application's: "[ipv6%scope]:port", made when asked for */
};

static_assert(offsetof(struct iok_call, args) + IOK_TAPE_HEAD_BYTES == IOK_CACHE_LINE, "a command's first line");
static_assert(offsetof(struct iok_call, reply) + IOK_TAPE_HEAD_BYTES - offsetof(struct iok_call, stamps) ==
                  IOK_CACHE_LINE,
              "a reply's first line");

/* A call's stream, of at least so many messages; it is there until the call is freed. 0 or IOK_ENOMEM. */
int iok_stream_open(struct iok_call *call, uint32_t slots, uint64_t bytes_max);

/* Makes the kernel's part of a call new: when the kernel takes it, or where it fails without the kernel. */
void iok_call_begin(struct iok_call *call, struct iok_account *replies);

#endif
