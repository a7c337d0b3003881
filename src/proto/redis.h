/* redis.h - what the parts of the Redis codec share, private to them: redis.c (replies, and the slots of proto.h),
 * redis_request.c (requests), redis_signin.c, redis_commands.c (knowledge of single commands). */
#ifndef IOK_PROTO_REDIS_H
#define IOK_PROTO_REDIS_H

#include "proto.h"

/* Commands whose answers the codec treats in a way of their own. Kept in the top four bits of a flight's tag. */
enum redis_kind {
    REDIS_PLAIN = 0,
    REDIS_SUBSCRIBE, /* these six are confirmed once for each channel */
    REDIS_PSUBSCRIBE,
    REDIS_SSUBSCRIBE,
    REDIS_UNSUBSCRIBE,
    REDIS_PUNSUBSCRIBE,
    REDIS_SUNSUBSCRIBE,
    REDIS_MONITOR, /* after its OK, status lines come unasked */
    REDIS_RESET,   /* back to RESP2, without subscriptions */
    REDIS_SCRIPT,  /* its error may come from within, when half of it has run */
    REDIS_MULTI,   /* opens a transaction; noted when encoded, as commands between are only queued */
    REDIS_EXEC,    /* ends it, and so does DISCARD */
};

static inline bool redis_is_subscription(unsigned kind)
{
    return kind >= REDIS_SUBSCRIBE && kind <= REDIS_SUNSUBSCRIBE;
}

/* How the arguments of a blocking command give the time that it may block. */
enum redis_block {
    REDIS_BLOCK_NONE = 0,
    REDIS_BLOCK_LAST_S,  /* last argument, seconds, may have a fraction */
    REDIS_BLOCK_FIRST_S, /* first argument, likewise */
    REDIS_BLOCK_LAST_MS, /* last argument, milliseconds */
    REDIS_BLOCK_OPTION,  /* after the word BLOCK, milliseconds; without that word it does not block */
};

/* One command, or one subcommand of a container. */
struct redis_command {
    const char *name;                /* upper case; NULL ends a list */
    uint8_t length;                  /* of name */
    uint8_t flags;                   /* enum iok_class_flags */
    uint8_t kind;                    /* enum redis_kind */
    uint8_t block;                   /* enum redis_block */
    const struct redis_command *sub; /* of a container: the subcommands that are not plain; NULL if none are */
    bool container;                  /* its first argument is a subcommand */
    const char *why;                 /* of iok_class */
};

/* Those of no name that is listed are shareable and not repeatable. NULL then. */
const struct redis_command *redis_command_find(struct iok_span name);
/* REDIS_SUBSCRIBE for "subscribe" and so on: the first element of a confirmation. REDIS_PLAIN if it is none. */
enum redis_kind redis_confirmation_kind(struct iok_span name);
/* Whether an error text says that the command did not run. */
bool redis_error_rejects(struct iok_span text, enum redis_kind kind);

void redis_classify(const struct iok_token *args, size_t n, struct iok_class *out);
size_t redis_describe(const struct iok_token *args, size_t n, char *at, size_t cap);

/* ---- requests: redis_request.c ------------------------------------------------------------------------------- */

/* 0 with the bytes that the request needs at most, or the error that ends it. */
int redis_measure(struct iok_io *io, const struct iok_token *args, size_t n, size_t *bytes);
/* Appends a request that was measured. */
void redis_put_request(struct iok_out *out, const struct iok_token *args, size_t n, size_t bytes);
/* Appends one of short spans. */
void redis_put_command(struct iok_out *out, const struct iok_span *args, size_t n);

/* ---- sign-in: redis_signin.c --------------------------------------------------------------------------------- */

/* One command of the sign-in, whose answer is awaited. */
enum redis_step {
    REDIS_STEP_RESET,
    REDIS_STEP_HELLO,
    REDIS_STEP_AUTH,
    REDIS_STEP_SELECT,
    REDIS_STEP_OPTIONAL, /* names and versions for the server's lists: may fail */
};

/* RESET, HELLO, SELECT and three kinds of CLIENT are the most that one round holds. */
#define REDIS_STEPS_MAX 8u

struct redis_signin {
    uint8_t steps[REDIS_STEPS_MAX]; /* enum redis_step, of the round that is under way */
    uint8_t next, n;                /* steps[next] is answered next; none when next == n */
    bool without_hello;             /* this round turned out to be futile: sign in anew as before Redis 6 */
};

static inline bool redis_signin_waits(const struct redis_signin *signin)
{
    return signin->next < signin->n;
}

static inline enum redis_step redis_signin_step(const struct redis_signin *signin)
{
    return (enum redis_step)signin->steps[signin->next];
}

int redis_check(const struct iok_url *url, struct iok_error *err);
/* Writes the first round, after a RESET when reset is set. 0 or IOK_ENOMEM. */
int redis_signin_start(struct redis_signin *signin, struct iok_io *io, bool reset);
/* The answer to the next step; error is the text of an error reply, or NULL. 0 when more answers are awaited, 1 when
 * signed in; or a negative error. *protocol becomes 3 when HELLO made it so. */
int redis_signin_answer(struct redis_signin *signin, struct iok_io *io, const struct iok_span *error,
                        uint8_t *protocol);

#endif
