/* out.h - bytes on their way out: small pieces are gathered by copying, large ones are referenced.
 *
 *     pieces  [copied 0..412][ref 1 MB][copied 412..430]
 *     copies  |....sent....|.......pending.......|  free  |
 *
 * Offsets count from the first byte ever appended, so a connection can tell which request is wholly out. Failure
 * sticks, as in tapes. */
#ifndef IOK_BASE_OUT_H
#define IOK_BASE_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "buf.h"
#include "span.h"

struct iok_out_piece;

struct iok_out {
    uint8_t *copies; /* copied bytes; head..tail are pending */
    size_t head, tail, cap;
    struct iok_out_piece *pieces; /* order of copies and references, used only while a reference is pending */
    uint32_t first_piece, n_pieces, cap_pieces;
    uint64_t appended, taken; /* stream offsets of the end, and of the first pending byte */
    int error;                /* 0 or IOK_ENOMEM */
    struct iok_account *account;
};

void iok_out_init(struct iok_out *out, struct iok_account *account);
void iok_out_deinit(struct iok_out *out);

/* Room for n contiguous bytes, or NULL (the error sticks). Write there, then commit what was used. */
uint8_t *iok_out_reserve(struct iok_out *out, size_t n);
void iok_out_commit(struct iok_out *out, size_t used);
void iok_out_put(struct iok_out *out, struct iok_span bytes);
/* By reference: bytes stay valid until they are taken or iok_out_own_all was called. Small ones are copied anyway. */
void iok_out_refer(struct iok_out *out, struct iok_span bytes);
/* Copies every referenced byte in stream range [from, to) that is still pending, because its owner goes away.
 * 0 or IOK_ENOMEM. */
int iok_out_own(struct iok_out *out, uint64_t from, uint64_t to);

static inline size_t iok_out_pending(const struct iok_out *out)
{
    return (size_t)(out->appended - out->taken);
}

/* Memory for copies that others may use: of many connections only few have something to send at a time. */
struct iok_out_spare {
    uint8_t *at[32];
    uint32_t n;
};
/* Gives memory to one that has none, and takes it away from one that is empty. */
void iok_out_lend(struct iok_out *out, struct iok_out_spare *spare);
void iok_out_unlend(struct iok_out *out, struct iok_out_spare *spare);
void iok_out_spare_deinit(struct iok_out_spare *spare);

/* The pending bytes, oldest first, as at most max vectors; returns how many. */
int iok_out_peek(const struct iok_out *out, struct iovec *vec, int max);
/* Cuts n vectors off after max bytes; returns how many are left, and *size, what they hold. */
int iok_out_limit(struct iovec *vec, int n, size_t max, size_t *size);
/* n bytes were handed over. */
void iok_out_take(struct iok_out *out, size_t n);

#endif
