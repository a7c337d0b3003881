/* kit.h - the conformance kit of codecs: a host that writes down what a codec does, and transcripts that say what it
 * should do.
 *
 * The host keeps flights and one tape, as the kernel's connection does, and stops the test program at once when a
 * codec breaks the contract of proto.h (a message begun within another, bytes used that were not given, ...). A
 * transcript is a text of lines, described in script.c; each is run whole, cut into bytes and into random pieces, with
 * every request abandoned, with each allocation failing in turn, and with the connection lost after each byte. */
#ifndef IOK_TESTS_KIT_KIT_H
#define IOK_TESTS_KIT_KIT_H

#include "../../src/proto/proto.h"

/* ---- growing text ---------------------------------------------------------------------------------------------- */

struct kit_text {
    char *p; /* NUL-terminated once something was put */
    size_t n, cap;
};

void kit_text_put(struct kit_text *text, const void *p, size_t n);
void kit_text_print(struct kit_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* In quotes, with \r \n \t \\ \" and \xNN. */
void kit_text_quote(struct kit_text *text, struct iok_span bytes);
/* Tokens in words, as transcripts write them: array 2 bytes "a" i64 7 */
void kit_text_tokens(struct kit_text *text, const struct iok_token *tokens, size_t n);
void kit_text_free(struct kit_text *text);

/* ---- the host -------------------------------------------------------------------------------------------------- */

struct kit_flight {
    struct iok_flight flight;
    bool ping;
    bool body_open; /* the codec has asked for its body, and has not had its end */
};

struct kit_host {
    struct iok_io io; /* first, so that callbacks find the rest */
    const struct iok_proto *proto;
    struct iok_url url;
    struct iok_out out;
    struct iok_account account;
    void *state;
    struct kit_flight *flights; /* oldest first */
    size_t n_flights, cap_flights;
    struct iok_tape tape, discarding;
    struct iok_token tokens[4]; /* few, so that tapes must grow */
    uint8_t bytes[48];
    struct kit_text unused; /* what feed left */
    struct kit_text sent;   /* what the codec wrote since it was last looked at */
    struct kit_text events; /* one line each, such as: reply bytes "v" */
    size_t events_seen;     /* of them, by the test: what comes later is never joined to them */
    size_t part_end;        /* just behind a part of bytes, to which more may be joined; 0: none yet */
    bool part_begins;       /* such a one is being written */
    size_t received;
    uint64_t randoms; /* drawn so far */
    bool has_url, signing_in, is_ready;
    bool message_open, message_is_push, message_is_part;
    int failed;        /* the error that closed the connection; 0 if none did */
    bool abandon;      /* every request becomes a tombstone at once */
    bool server;       /* the codec's other role; set before kit_host_open. Messages are requests then */
    size_t n_requests; /* server: those without an answer */
};

/* Connects and signs in. Errors are events, as everything that happens. */
void kit_host_open(struct kit_host *host, const struct iok_proto *proto, const char *url, size_t max_reply);
void kit_host_recv(struct kit_host *host, struct iok_span bytes);
/* announced: IOK_FLIGHT_PARTS, IOK_FLIGHT_BODY, or 0. */
void kit_host_call(struct kit_host *host, const struct iok_token *args, size_t n, uint32_t announced);
/* A piece of the body that the codec has asked for; nothing if it has not. */
void kit_host_body(struct kit_host *host, struct iok_span bytes, enum iok_body what);
void kit_host_ping(struct kit_host *host);
void kit_host_reset(struct kit_host *host);
/* The caller of the oldest request that has one goes away. */
void kit_host_cancel(struct kit_host *host);
void kit_host_eof(struct kit_host *host);
/* Server: the answer to the oldest request that has none. */
void kit_host_answer(struct kit_host *host, const struct iok_token *reply, size_t n);
/* Frees everything. False if buffers are still alive. */
bool kit_host_close(struct kit_host *host);

/* ---- transcripts ----------------------------------------------------------------------------------------------- */

enum kit_mode {
    KIT_WHOLE,   /* as written */
    KIT_BYTES,   /* byte by byte */
    KIT_PIECES,  /* random pieces by the seed in param */
    KIT_ABANDON, /* every request becomes a tombstone at once */
    KIT_FAIL,    /* allocation number param fails */
    KIT_CUT,     /* the connection is lost after param bytes */
    KIT_ROUND, /* against the codec's own server role, in random pieces by the seed in param; nothing if it has none */
};

struct kit_result {
    size_t received;           /* bytes that the codec was given */
    unsigned long allocations; /* that the codec made */
    char problem[2048];        /* "" if all went well, else "line 7: ..." */
};

/* Runs one transcript. True if all went well. */
bool kit_script_run(const char *script, enum kit_mode mode, uint64_t param, struct kit_result *result);

/* One line of a transcript, for tools that do not run it. bytes: of url its text, of recv what the peer sends, of call
 * the request's name, of all others nothing. Calls that begin with an array are described, cursor, more and close, the
 * last three with the cursor's name. */
typedef void kit_step_fn(void *owner, const char *verb, struct iok_span bytes);
void kit_script_steps(const char *script, kit_step_fn *step, void *owner);

#endif
