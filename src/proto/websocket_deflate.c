/* websocket_deflate.c - permessage-deflate (RFC 7692): messages through zlib's raw deflate.
 *
 * What it is: the two directions of one connection, each with the window that both sides agreed on. What it is not: a
 * judge of sizes: the caller takes what comes out in pieces, and stops when it is enough.
 *
 * A message is a run of deflate blocks that ends with an empty stored one, whose last four octets (TAIL) are not sent
 * (7.2.1). A reader appends them. A block may say that it is the last one of its stream (BFINAL, 7.2.3.4): another stream
 * begins behind it, with the same window. */
#include <assert.h>
#include <zlib.h>

#include "../base/mem.h"
#include "websocket_private.h"

static const uint8_t tail[4] = {0x00, 0x00, 0xff, 0xff};

#define LEVEL                                                                                                          \
    Z_BEST_SPEED   /* the thread has other work; the next levels gain a few percent at two to five times the time */
#define MEMORY 5   /* 16 KiB of hash and buffer, instead of 128 */
#define BITS_MIN 9 /* zlib cannot write for a window of 8 */

static void *give(void *owner, uInt n, uInt size)
{
    (void)owner;
    return iok_malloc((size_t)n * size);
}

static void take_back(void *owner, void *p)
{
    (void)owner;
    iok_free(p);
}

/* ---- in --------------------------------------------------------------------------------------------------------- */

struct ws_inflater {
    z_stream stream;
    bool no_context;
    bool at_start; /* nothing was read since a stream's end, or the message's beginning with a clean one */
};

struct ws_inflater *ws_inflater_new(uint8_t bits, bool no_context)
{
    struct ws_inflater *inflater = iok_calloc(sizeof(*inflater));
    if (inflater == NULL)
        return NULL;
    inflater->no_context = no_context;
    inflater->stream.zalloc = give;
    inflater->stream.zfree = take_back;
    if (inflateInit2(&inflater->stream, -(int)(bits < BITS_MIN ? BITS_MIN : bits)) != Z_OK) {
        iok_free(inflater);
        return NULL;
    }
    return inflater;
}

void ws_inflater_free(struct ws_inflater *inflater)
{
    if (inflater == NULL)
        return;
    inflateEnd(&inflater->stream);
    iok_free(inflater);
}

void ws_inflate_take(struct ws_inflater *inflater, struct iok_span piece)
{
    assert(inflater->stream.avail_in == 0 && piece.n <= UINT32_MAX);
    inflater->stream.next_in = (Bytef *)(uintptr_t)piece.p;
    inflater->stream.avail_in = (uInt)piece.n;
    inflater->at_start &= piece.n == 0;
}

bool ws_inflate_end(struct ws_inflater *inflater)
{
    if (inflater->at_start) /* a stream has ended with the message, and so there is no empty block to complete */
        return false;
    ws_inflate_take(inflater, iok_span(tail, sizeof(tail)));
    return true;
}

/* Behind the last block of a stream another one begins, which may refer to what came before. A peer can end a stream with
 * every two octets: so the window stays where it is, and is not copied out and in again, as inflateSetDictionary would
 * have it. inflateResetKeep is not in zlib's manual, but exported for this since 1.2.5.2, as zlib-ng does, too. */
static bool restart(struct ws_inflater *inflater)
{
    inflater->at_start = inflater->stream.avail_in == 0;
    return inflateResetKeep(&inflater->stream) == Z_OK;
}

enum ws_inflate ws_inflate_some(struct ws_inflater *inflater, uint8_t *to, size_t cap, size_t *n)
{
    z_stream *stream = &inflater->stream;
    stream->next_out = to;
    stream->avail_out = (uInt)cap;
    int rc = inflate(stream, Z_SYNC_FLUSH);
    *n = cap - stream->avail_out;
    switch (rc) {
    case Z_STREAM_END:
        if (!restart(inflater))
            return WS_INFLATE_NO_MEMORY;
        return stream->avail_in > 0 ? WS_INFLATE_MORE : WS_INFLATE_DONE;
    case Z_OK:
    case Z_BUF_ERROR: /* nothing to do: all of it came out before */
        return stream->avail_out == 0 ? WS_INFLATE_MORE : WS_INFLATE_DONE;
    case Z_MEM_ERROR:
        return WS_INFLATE_NO_MEMORY;
    default:
        return WS_INFLATE_BAD;
    }
}

bool ws_inflate_next(struct ws_inflater *inflater)
{
    /* 128: zlib stands between two blocks; the low bits: how many bits of the last octet are left over. */
    bool is_whole = inflater->at_start || (inflater->stream.data_type & (128 | 7)) == 128;
    if (inflater->no_context)
        inflateReset(&inflater->stream);
    inflater->at_start = false;
    return is_whole;
}

/* ---- out -------------------------------------------------------------------------------------------------------- */

struct ws_deflater {
    z_stream stream;
    bool no_context;
};

struct ws_deflater *ws_deflater_new(uint8_t bits, bool no_context)
{
    struct ws_deflater *deflater = iok_calloc(sizeof(*deflater));
    if (deflater == NULL)
        return NULL;
    deflater->no_context = no_context;
    deflater->stream.zalloc = give;
    deflater->stream.zfree = take_back;
    if (deflateInit2(&deflater->stream, LEVEL, Z_DEFLATED, -(int)bits, MEMORY, Z_DEFAULT_STRATEGY) != Z_OK) {
        iok_free(deflater);
        return NULL;
    }
    return deflater;
}

void ws_deflater_free(struct ws_deflater *deflater)
{
    if (deflater == NULL)
        return;
    deflateEnd(&deflater->stream);
    iok_free(deflater);
}

size_t ws_deflate_bound(size_t n)
{
    return n + n / 8 + n / 64 + 64; /* zlib's own for small windows and memory, and for what ends a piece */
}

size_t ws_deflate(struct ws_deflater *deflater, struct iok_span piece, bool last, uint8_t *to)
{
    z_stream *stream = &deflater->stream;
    size_t cap = ws_deflate_bound(piece.n), n = 0;
    if (piece.n > 0) {
        stream->next_in = (Bytef *)(uintptr_t)piece.p;
        stream->avail_in = (uInt)piece.n;
        stream->next_out = to;
        stream->avail_out = (uInt)cap;
        int rc = deflate(stream, Z_SYNC_FLUSH);
        assert(rc == Z_OK && stream->avail_in == 0 && stream->avail_out > 0);
        (void)rc;
        n = cap - stream->avail_out;
    }
    if (!last)
        return n;
    if (n == 0) /* 7.2.3.6: the pieces before ended with TAIL, and this is a block of nothing without it */
        to[n++] = 0;
    else
        n -= sizeof(tail);
    if (deflater->no_context)
        deflateReset(stream);
    return n;
}
