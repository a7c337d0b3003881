/* tape.h - how a message crosses between threads: a flat array of tokens and the memory they point into.
 *
 *     tokens  [array 2][bytes |][i64 7]                 pre-order; 16 bytes each
 *     bytes   [h e l l o . . . . . . ]                  small payloads, copied; never moves
 *     bufs    -> [1 MB payload] -> [overflow chunk]     large ones, and what did not fit
 *
 * A tape starts in storage that its owner gives (inside the call) and goes to buffers only when that is full, so a
 * small command or reply costs no allocation. Payload addresses are stable from the moment that they are written.
 *
 * Failure sticks: after the first one (out of memory, over max_bytes) appending does nothing, iok_tape_error gives the
 * code, and the writer needs to look only once, at the end. In a discarding tape appending succeeds and keeps nothing:
 * so a tombstone's reply is parsed by the same code.
 *
 * Not thread-safe; ownership moves with the call. */
#ifndef IOK_BASE_TAPE_H
#define IOK_BASE_TAPE_H

#include <iokernel.h>

#include "buf.h"
#include "span.h"

/* A reader of a finished tape, and whoever frees it, looks at its head only. */
struct iok_tape {
    struct iok_token *tokens; /* n_tokens used of cap_tokens */
    size_t held_bytes;        /* payload and tokens so far; bounded by max_bytes */
    uint32_t n_tokens;
    uint32_t holds; /* bool: buffers or tokens of its own, to be freed */
    /* the writer's */
    int error;           /* 0 or enum iok_errno; read as one with the next two: they are of one size to write, too */
    uint16_t discard;    /* bool */
    uint16_t own_tokens; /* bool: tokens come from iok_malloc, not from the owner's storage */
    uint32_t cap_tokens;
    uint32_t bytes_left; /* small payloads end at bytes + bytes_left: what came before is behind them */
    uint8_t *bytes;
    struct iok_buf *bufs; /* buffers held, newest first */
    struct iok_account *account;
    size_t max_bytes;
    uint8_t *fill;        /* where the open payload continues; NULL when none is open, or discarding */
    size_t fill_left;     /* bytes that it still lacks */
    size_t fill_cap;      /* bytes at fill that have memory */
    struct iok_buf *open; /* the buffer of a large open payload; NULL if it is small */
    uint8_t *first_bytes; /* the owner's storage, for reset */
    uint32_t first_cap;
};
#define IOK_TAPE_HEAD_BYTES 24u

/* Storage stays the caller's and outlives the tape. */
void iok_tape_init(struct iok_tape *tape, struct iok_token *tokens, uint32_t cap_tokens, uint8_t *bytes,
                   uint32_t cap_bytes, size_t max_bytes, struct iok_account *account);
/* Frees what it holds and makes it empty, in the storage that it was given. */
void iok_tape_reset(struct iok_tape *tape, struct iok_token *tokens, uint32_t cap_tokens);
void iok_tape_free(struct iok_tape *tape);
static inline void iok_tape_deinit(struct iok_tape *tape)
{
    if (tape->holds) { /* most hold nothing */
        iok_tape_free(tape);
    }
}

void iok_tape_null(struct iok_tape *tape);
void iok_tape_bool(struct iok_tape *tape, bool value);
void iok_tape_i64(struct iok_tape *tape, int64_t value);
void iok_tape_f64(struct iok_tape *tape, double value);
void iok_tape_dropped(struct iok_tape *tape, int64_t messages);
void iok_tape_timestamp(struct iok_tape *tape, uint16_t subtype, int64_t us);
void iok_tape_head(struct iok_tape *tape, enum iok_type container, uint32_t len); /* ARRAY, MAP, SET, PUSH, ATTR */
void iok_tape_head_of(struct iok_tape *tape, enum iok_type container, uint16_t subtype, uint32_t len);
/* The length of a container whose head was written as token number at, once it is known. */
void iok_tape_patch(struct iok_tape *tape, uint32_t at, uint32_t len);
/* Forgets all that was written, errors too: something else is the answer. No payload may be open. */
void iok_tape_rewind(struct iok_tape *tape);
/* A payload that is all here: type is BYTES, TEXT, DECIMAL or ERROR. Copied. */
void iok_tape_copy(struct iok_tape *tape, enum iok_type type, uint16_t subtype, struct iok_span payload);
/* A payload that outlives the tape (static text). */
void iok_tape_static(struct iok_tape *tape, enum iok_type type, struct iok_span payload);
/* A payload inside buf; takes over one reference. */
void iok_tape_hold(struct iok_tape *tape, enum iok_type type, struct iok_span payload, struct iok_buf *buf);

/* A payload that arrives in pieces: open, fill until fill_left is 0. Memory grows with what has really arrived, so a
 * lying length costs nothing. len may be 0 (then it is complete at once). */
void iok_tape_open(struct iok_tape *tape, enum iok_type type, uint16_t subtype, size_t len);
/* Appends min(piece.n, fill_left) bytes and returns that number. */
size_t iok_tape_fill(struct iok_tape *tape, struct iok_span piece);
/* A payload whose length shows only at its end: as long as max_bytes leaves room for, filled as above, until shut ends
 * it where it is. What does not fit is not appended, and the tape's error is IOK_ELIMIT. */
void iok_tape_open_ended(struct iok_tape *tape, enum iok_type type);
void iok_tape_fill_all(struct iok_tape *tape, struct iok_span piece);
void iok_tape_shut(struct iok_tape *tape);

static inline int iok_tape_error(const struct iok_tape *tape)
{
    return tape->error;
}

/* Bytes allocated for it, beyond the storage that its owner gave. */
size_t iok_tape_memory(const struct iok_tape *tape);

/* Index just past the value that starts at i (its children included); n if the tape ends before. */
size_t iok_tape_skip(const struct iok_token *tokens, size_t n, size_t i);

static inline struct iok_span iok_token_span(const struct iok_token *token)
{
    return (struct iok_span){token->p, token->len};
}

#endif
