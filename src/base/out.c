#include "out.h"

#include "err.h"
#include "mem.h"

#define IOK_OUT_FIRST 4096u        /* copies of a new connection */
#define IOK_OUT_KEEP (256u * 1024) /* an empty buffer above this is given back */
#define IOK_REFER_MIN 4096u        /* below this a copy costs less than a vector more */

struct iok_out_piece {
    const uint8_t *p; /* NULL: len bytes of copies */
    size_t len;
    struct iok_buf *own; /* what was referenced and had to be copied */
};

void iok_out_init(struct iok_out *out, struct iok_account *account)
{
    *out = (struct iok_out){.account = account};
}

void iok_out_deinit(struct iok_out *out)
{
    for (uint32_t i = 0; i < out->n_pieces; i++) {
        if (out->pieces[out->first_piece + i].own != NULL) {
            iok_buf_unref(out->pieces[out->first_piece + i].own);
        }
    }
    iok_free(out->pieces);
    iok_free(out->copies);
    *out = (struct iok_out){.account = out->account};
}

uint8_t *iok_out_reserve(struct iok_out *out, size_t n)
{
    size_t used = out->tail - out->head;
    size_t cap = out->cap < IOK_OUT_FIRST ? IOK_OUT_FIRST : out->cap;
    uint8_t *copies;

    if (out->error != 0) { /* also where there is room: else the stream would have a hole */
        return NULL;
    }
    if (n <= out->cap - out->tail) {
        return out->copies + out->tail;
    }
    if (used + n <= out->cap && used <= out->head) { /* moving is cheap: no more than what is gone already */
        memcpy(out->copies, out->copies + out->head, used);
        out->head = 0;
        out->tail = used;
        return out->copies + out->tail;
    }
    while (cap < used + n) {
        cap *= 2;
    }
    copies = iok_malloc(cap);
    if (copies == NULL) {
        out->error = IOK_ENOMEM;
        return NULL;
    }
    if (used != 0) {
        memcpy(copies, out->copies + out->head, used);
    }
    iok_free(out->copies);
    out->copies = copies;
    out->cap = cap;
    out->head = 0;
    out->tail = used;
    return out->copies + out->tail;
}

/* The last piece when it is one of copies, or a new one; NULL: out of memory. */
static struct iok_out_piece *add_piece(struct iok_out *out, const uint8_t *p)
{
    struct iok_out_piece *piece;

    if (p == NULL && out->n_pieces != 0) {
        piece = &out->pieces[out->first_piece + out->n_pieces - 1];
        if (piece->p == NULL) {
            return piece;
        }
    }
    if (out->first_piece + out->n_pieces == out->cap_pieces && out->n_pieces <= out->cap_pieces / 2 &&
        out->cap_pieces != 0) { /* half of them are gone already */
        memmove(out->pieces, out->pieces + out->first_piece, out->n_pieces * sizeof(*out->pieces));
        out->first_piece = 0;
    }
    if (out->first_piece + out->n_pieces == out->cap_pieces) {
        uint32_t cap = out->cap_pieces == 0 ? 8 : out->cap_pieces * 2;
        struct iok_out_piece *pieces = iok_malloc(cap * sizeof(*pieces));

        if (pieces == NULL) {
            out->error = IOK_ENOMEM;
            return NULL;
        }
        if (out->n_pieces != 0) {
            memcpy(pieces, out->pieces + out->first_piece, out->n_pieces * sizeof(*pieces));
        }
        iok_free(out->pieces);
        out->pieces = pieces;
        out->cap_pieces = cap;
        out->first_piece = 0;
    }
    piece = &out->pieces[out->first_piece + out->n_pieces++];
    *piece = (struct iok_out_piece){.p = p};
    return piece;
}

void iok_out_commit(struct iok_out *out, size_t used)
{
    if (out->n_pieces != 0 && used != 0) {
        struct iok_out_piece *piece = add_piece(out, NULL);

        if (piece == NULL) {
            return;
        }
        piece->len += used;
    }
    out->tail += used;
    out->appended += used;
}

void iok_out_put(struct iok_out *out, struct iok_span bytes)
{
    uint8_t *at = bytes.n == 0 ? NULL : iok_out_reserve(out, bytes.n);

    if (at != NULL) {
        memcpy(at, bytes.p, bytes.n);
        iok_out_commit(out, bytes.n);
    }
}

void iok_out_refer(struct iok_out *out, struct iok_span bytes)
{
    struct iok_out_piece *piece;

    if (bytes.n < IOK_REFER_MIN) {
        iok_out_put(out, bytes);
        return;
    }
    if (out->error != 0) {
        return;
    }
    if (out->n_pieces == 0 && out->tail != out->head) { /* what was copied before it comes first */
        piece = add_piece(out, NULL);
        if (piece == NULL) {
            return;
        }
        piece->len = out->tail - out->head;
    }
    piece = add_piece(out, bytes.p);
    if (piece != NULL) {
        piece->len = bytes.n;
        out->appended += bytes.n;
    }
}

int iok_out_own(struct iok_out *out, uint64_t from, uint64_t to)
{
    uint64_t at = out->taken;

    for (uint32_t i = 0; i < out->n_pieces && at < to; i++) {
        struct iok_out_piece *piece = &out->pieces[out->first_piece + i];

        if (piece->p != NULL && piece->own == NULL && at + piece->len > from) {
            struct iok_buf *own = iok_buf_new(piece->len, out->account);

            if (own == NULL) {
                return IOK_ENOMEM;
            }
            memcpy(own->p, piece->p, piece->len);
            piece->own = own;
            piece->p = own->p;
        }
        at += piece->len;
    }
    return 0;
}

int iok_out_peek(const struct iok_out *out, struct iovec *vec, int max)
{
    size_t head = out->head;
    int n = 0;

    if (out->n_pieces == 0) {
        if (out->tail == out->head || max < 1) {
            return 0;
        }
        vec[0] = (struct iovec){out->copies + out->head, out->tail - out->head};
        return 1;
    }
    for (uint32_t i = 0; i < out->n_pieces && n < max; i++) {
        const struct iok_out_piece *piece = &out->pieces[out->first_piece + i];

        vec[n].iov_base = piece->p != NULL ? (void *)(uintptr_t)piece->p : out->copies + head;
        vec[n++].iov_len = piece->len;
        head += piece->p != NULL ? 0 : piece->len;
    }
    return n;
}

int iok_out_limit(struct iovec *vec, int n, size_t max, size_t *size)
{
    *size = 0;
    for (int i = 0; i < n; i++) {
        if (vec[i].iov_len >= max - *size) {
            vec[i].iov_len = max - *size;
            *size = max;
            return i + 1;
        }
        *size += vec[i].iov_len;
    }
    return n;
}

void iok_out_lend(struct iok_out *out, struct iok_out_spare *spare)
{
    if (out->copies == NULL && spare->n > 0) {
        out->copies = spare->at[--spare->n];
        out->cap = IOK_OUT_FIRST;
    }
}

void iok_out_unlend(struct iok_out *out, struct iok_out_spare *spare)
{
    if (out->copies == NULL || iok_out_pending(out) != 0) {
        return;
    }
    if (out->cap == IOK_OUT_FIRST && spare->n < sizeof(spare->at) / sizeof(spare->at[0])) {
        spare->at[spare->n++] = out->copies;
    } else {
        iok_free(out->copies);
    }
    out->copies = NULL;
    out->cap = 0;
}

void iok_out_spare_deinit(struct iok_out_spare *spare)
{
    while (spare->n > 0) {
        iok_free(spare->at[--spare->n]);
    }
}

static void empty(struct iok_out *out)
{
    out->head = out->tail = 0;
    out->first_piece = 0;
    if (out->cap > IOK_OUT_KEEP) {
        iok_free(out->copies);
        out->copies = NULL;
        out->cap = 0;
    }
}

void iok_out_take(struct iok_out *out, size_t n)
{
    out->taken += n;
    if (out->n_pieces == 0) {
        out->head += n;
    }
    while (n > 0 && out->n_pieces != 0) {
        struct iok_out_piece *piece = &out->pieces[out->first_piece];
        size_t part = n < piece->len ? n : piece->len;

        if (piece->p != NULL) {
            piece->p += part;
        } else {
            out->head += part;
        }
        piece->len -= part;
        n -= part;
        if (piece->len == 0) {
            if (piece->own != NULL) {
                iok_buf_unref(piece->own);
            }
            out->first_piece++;
            out->n_pieces--;
        }
    }
    if (iok_out_pending(out) == 0) {
        empty(out);
    }
}
