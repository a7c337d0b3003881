#include "tape.h"

#include <assert.h>

#include "mem.h"

#define IOK_CHUNK_BYTES 4096u /* overflow memory for payloads that are small but many */
#define IOK_ENDED_FIRST 4096u /* first memory of a payload of unknown length, which may well be small */
#define IOK_FILL_FIRST 65536u /* first memory of a large payload; doubled as its bytes really arrive */

void iok_tape_init(struct iok_tape *tape, struct iok_token *tokens, uint32_t cap_tokens, uint8_t *bytes,
                   uint32_t cap_bytes, size_t max_bytes, struct iok_account *account)
{
    /* Field by field: two of these are made for each call, and to clear all first would cost as much again. */
    tape->tokens = tokens;
    tape->n_tokens = 0;
    tape->cap_tokens = cap_tokens;
    tape->bufs = NULL;
    tape->holds = false;
    tape->held_bytes = 0;
    tape->error = 0;
    tape->discard = tape->own_tokens = false;
    tape->account = account;
    tape->max_bytes = max_bytes;
    tape->bytes = tape->first_bytes = bytes;
    tape->bytes_left = tape->first_cap = cap_bytes;
    tape->fill = NULL;
    tape->fill_left = tape->fill_cap = 0;
    tape->open = NULL;
}

static void drop_bufs(struct iok_tape *tape)
{
    while (tape->bufs != NULL) {
        struct iok_buf *buf = tape->bufs;

        tape->bufs = buf->next;
        iok_buf_unref(buf);
    }
}

void iok_tape_free(struct iok_tape *tape)
{
    drop_bufs(tape);
    if (tape->own_tokens) {
        iok_free(tape->tokens);
        tape->own_tokens = false;
    }
    tape->tokens = NULL;
    tape->n_tokens = tape->cap_tokens = 0;
    tape->holds = false;
    tape->open = NULL;
}

void iok_tape_reset(struct iok_tape *tape, struct iok_token *tokens, uint32_t cap_tokens)
{
    iok_tape_deinit(tape);
    iok_tape_init(tape, tokens, cap_tokens, tape->first_bytes, tape->first_cap, tape->max_bytes, tape->account);
}

static void fail(struct iok_tape *tape, int error)
{
    if (tape->error == 0) {
        tape->error = error;
    }
}

static bool grow_tokens(struct iok_tape *tape)
{
    uint32_t cap = tape->cap_tokens < 16 ? 32 : tape->cap_tokens * 2;
    struct iok_token *tokens;

    tokens = iok_realloc(tape->own_tokens ? tape->tokens : NULL, cap * sizeof(*tokens));
    if (tokens == NULL) {
        fail(tape, IOK_ENOMEM);
        return false;
    }
    if (!tape->own_tokens && tape->n_tokens != 0) {
        memcpy(tokens, tape->tokens, tape->n_tokens * sizeof(*tokens));
    }
    tape->tokens = tokens;
    tape->cap_tokens = cap;
    tape->own_tokens = true;
    tape->holds = true;
    return true;
}

/* A fresh token, charged with payload bytes; NULL when discarding or failed. */
static inline struct iok_token *add(struct iok_tape *tape, enum iok_type type, size_t payload)
{
    struct iok_token *token;

    if (tape->discard || tape->error != 0) {
        return NULL;
    }
    tape->held_bytes += sizeof(*token) + payload;
    if (tape->held_bytes > tape->max_bytes || payload > UINT32_MAX) {
        fail(tape, IOK_ELIMIT);
        return NULL;
    }
    if (tape->n_tokens == tape->cap_tokens && !grow_tokens(tape)) {
        return NULL;
    }
    token = &tape->tokens[tape->n_tokens++];
    *token = (struct iok_token){.type = (uint8_t)type, .len = (uint32_t)payload};
    return token;
}

void iok_tape_null(struct iok_tape *tape)
{
    (void)add(tape, IOK_NULL, 0);
}

void iok_tape_bool(struct iok_tape *tape, bool value)
{
    struct iok_token *token = add(tape, IOK_BOOL, 0);

    if (token != NULL) {
        token->i = value;
    }
}

void iok_tape_i64(struct iok_tape *tape, int64_t value)
{
    struct iok_token *token = add(tape, IOK_I64, 0);

    if (token != NULL) {
        token->i = value;
    }
}

void iok_tape_dropped(struct iok_tape *tape, int64_t messages)
{
    struct iok_token *token = add(tape, IOK_DROPPED, 0);

    if (token != NULL) {
        token->i = messages;
    }
}

void iok_tape_f64(struct iok_tape *tape, double value)
{
    struct iok_token *token = add(tape, IOK_F64, 0);

    if (token != NULL) {
        token->f = value;
    }
}

void iok_tape_head_of(struct iok_tape *tape, enum iok_type container, uint16_t subtype, uint32_t len)
{
    struct iok_token *token = add(tape, container, 0);

    if (token != NULL) {
        token->subtype = subtype;
        token->len = len;
    }
}

void iok_tape_head(struct iok_tape *tape, enum iok_type container, uint32_t len)
{
    iok_tape_head_of(tape, container, 0, len);
}

void iok_tape_timestamp(struct iok_tape *tape, uint16_t subtype, int64_t us)
{
    struct iok_token *token = add(tape, IOK_TIMESTAMP, 0);

    if (token != NULL) {
        token->subtype = subtype;
        token->i = us;
    }
}

void iok_tape_patch(struct iok_tape *tape, uint32_t at, uint32_t len)
{
    if (!tape->discard && tape->error == 0) {
        assert(at < tape->n_tokens);
        tape->tokens[at].len = len;
    }
}

void iok_tape_rewind(struct iok_tape *tape)
{
    assert(tape->fill_left == 0);
    drop_bufs(tape);
    tape->bytes = tape->first_bytes;
    tape->bytes_left = tape->first_cap;
    tape->n_tokens = 0;
    tape->held_bytes = 0;
    tape->holds = tape->own_tokens;
    tape->open = NULL;
    tape->error = 0;
}

/* A buffer of the tape's own, newest first; NULL: the error is set. */
static struct iok_buf *add_buf(struct iok_tape *tape, size_t cap)
{
    struct iok_buf *buf = iok_buf_new(cap, tape->account);

    if (buf == NULL) {
        fail(tape, IOK_ENOMEM);
        return NULL;
    }
    buf->next = tape->bufs;
    tape->bufs = buf;
    tape->holds = true;
    return buf;
}

/* Room for len bytes that stays where it is; NULL: the error is set. */
static inline uint8_t *room(struct iok_tape *tape, size_t len)
{
    struct iok_buf *buf;

    if (len == 0) { /* an address even without storage, since NULL means failure; nobody writes there */
        return (uint8_t *)(uintptr_t) "";
    }
    if (len > tape->bytes_left) {
        buf = add_buf(tape, len > IOK_CHUNK_BYTES / 2 ? len : IOK_CHUNK_BYTES);
        if (buf == NULL) {
            return NULL;
        }
        if (len > IOK_CHUNK_BYTES / 2) {
            return buf->p;
        }
        tape->bytes = buf->p;
        tape->bytes_left = IOK_CHUNK_BYTES;
    }
    tape->bytes_left -= (uint32_t)len;
    return tape->bytes + tape->bytes_left;
}

void iok_tape_copy(struct iok_tape *tape, enum iok_type type, uint16_t subtype, struct iok_span payload)
{
    struct iok_token *token = add(tape, type, payload.n);
    uint8_t *at;

    if (token == NULL) {
        return;
    }
    token->subtype = subtype;
    at = room(tape, payload.n);
    if (at == NULL) {
        tape->n_tokens--;
        return;
    }
    if (payload.n != 0) {
        memcpy(at, payload.p, payload.n);
    }
    token->p = at;
}

void iok_tape_static(struct iok_tape *tape, enum iok_type type, struct iok_span payload)
{
    struct iok_token *token = add(tape, type, payload.n);

    if (token != NULL) {
        token->p = payload.p;
    }
}

void iok_tape_hold(struct iok_tape *tape, enum iok_type type, struct iok_span payload, struct iok_buf *buf)
{
    struct iok_token *token = add(tape, type, payload.n);

    if (token == NULL) {
        iok_buf_unref(buf);
        return;
    }
    token->p = payload.p;
    buf->next = tape->bufs;
    tape->bufs = buf;
    tape->holds = true;
}

void iok_tape_open(struct iok_tape *tape, enum iok_type type, uint16_t subtype, size_t len)
{
    struct iok_token *token = add(tape, type, len);
    size_t first;

    tape->fill_left = len;
    tape->open = NULL;
    if (token == NULL) {
        return;
    }
    token->subtype = subtype;
    if (len <= IOK_FILL_FIRST) {
        tape->fill = room(tape, len);
        tape->fill_cap = len;
        token->p = tape->fill;
        if (tape->fill == NULL) {
            tape->n_tokens--;
        }
        return;
    }
    first = IOK_FILL_FIRST;
    tape->open = add_buf(tape, first);
    tape->fill = tape->open == NULL ? NULL : tape->open->p;
    tape->fill_cap = first;
    token->p = tape->fill;
    tape->n_tokens -= tape->open == NULL;
}

/* Makes room for need bytes more of the open payload: twice what it has, as the bytes prove to be coming. */
static bool grow_fill(struct iok_tape *tape, size_t need)
{
    struct iok_buf *buf = tape->open;
    struct iok_token *token = &tape->tokens[tape->n_tokens - 1];
    size_t done = token->len - tape->fill_left;
    size_t cap = buf->cap * 2 > done + need ? buf->cap * 2 : done + need;
    uint8_t *p;

    cap = cap < token->len ? cap : token->len;
    p = iok_realloc(buf->p, cap);
    if (p == NULL) {
        fail(tape, IOK_ENOMEM);
        return false;
    }
    if (buf->account != NULL) {
        iok_count_add(&buf->account->bytes, cap - buf->cap);
    }
    buf->p = p;
    buf->cap = cap;
    token->p = p;
    tape->fill = p + done;
    tape->fill_cap = cap - done;
    return true;
}

size_t iok_tape_fill(struct iok_tape *tape, struct iok_span piece)
{
    size_t n = piece.n < tape->fill_left ? piece.n : tape->fill_left;

    if (!tape->discard && tape->error == 0 && n != 0 && (n <= tape->fill_cap || grow_fill(tape, n))) {
        memcpy(tape->fill, piece.p, n);
        tape->fill += n;
        tape->fill_cap -= n;
    }
    tape->fill_left -= n;
    return n;
}

void iok_tape_open_ended(struct iok_tape *tape, enum iok_type type)
{
    size_t used = tape->held_bytes + sizeof(struct iok_token);
    size_t len = used < tape->max_bytes ? tape->max_bytes - used : 0;
    struct iok_token *token;

    len = len < UINT32_MAX ? len : UINT32_MAX;
    tape->open = NULL;
    tape->fill_left = 0;
    token = add(tape, type, len);
    if (token == NULL) {
        return;
    }
    tape->open = add_buf(tape, IOK_ENDED_FIRST);
    if (tape->open == NULL) {
        tape->n_tokens--;
        return;
    }
    tape->fill_left = len;
    tape->fill_cap = IOK_ENDED_FIRST < len ? IOK_ENDED_FIRST : len;
    tape->fill = tape->open->p;
    token->p = tape->fill;
}

void iok_tape_fill_all(struct iok_tape *tape, struct iok_span piece)
{
    if (!tape->discard && tape->error == 0 && iok_tape_fill(tape, piece) < piece.n) {
        fail(tape, IOK_ELIMIT);
    }
}

void iok_tape_shut(struct iok_tape *tape)
{
    if (!tape->discard && tape->error == 0) {
        tape->tokens[tape->n_tokens - 1].len -= (uint32_t)tape->fill_left;
        tape->held_bytes -= tape->fill_left;
    }
    tape->fill_left = 0;
    tape->open = NULL;
}

size_t iok_tape_memory(const struct iok_tape *tape)
{
    size_t n = tape->own_tokens ? tape->cap_tokens * sizeof(*tape->tokens) : 0;

    for (const struct iok_buf *buf = tape->bufs; buf != NULL; buf = buf->next) {
        n += buf->cap + sizeof(*buf);
    }
    return n;
}

size_t iok_tape_skip(const struct iok_token *tokens, size_t n, size_t i)
{
    uint64_t left = 1; /* values still to pass */

    while (left > 0 && i < n) {
        left--;
        switch (tokens[i].type) {
        case IOK_ARRAY:
        case IOK_SET:
        case IOK_PUSH:
            left += tokens[i].len;
            break;
        case IOK_MAP:
            left += 2 * (uint64_t)tokens[i].len;
            break;
        case IOK_ATTR: /* the pairs, and the value that they describe */
            left += 2 * (uint64_t)tokens[i].len + 1;
            break;
        default:
            break;
        }
        i++;
    }
    return i;
}
