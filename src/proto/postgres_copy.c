/* postgres_copy.c - COPY: a statement whose request has a body, or whose answer comes in parts.
 *
 *     program      COPY ...                 part, part ... end (or fail)
 *     sent         Parse Bind Execute Flush CopyData CopyData ... CopyDone (or CopyFail)  Sync
 *     received     ParseComplete BindComplete CopyInResponse      CommandComplete ReadyForQuery
 *                                             CopyOutResponse CopyData ... CopyDone CommandComplete ReadyForQuery
 *
 * While the server takes a body it passes over each Sync, and after an error over all but a Sync. So exactly one is
 * sent, and only when it is known how the statement goes on: at the end of the body, when data comes from the server,
 * when it is complete, or when it failed. Until then nothing else may be sent.
 *
 * Rows come as a CopyData each. They go to the program in parts of up to CHUNK_BYTES, made up of whole rows, and a
 * larger row alone. Chunks depend on the rows only, not on how they arrived. [PG] "COPY Operations". */
#include "postgres.h"

/* As a few turns of the server's own buffer of 8 KiB; what stands in a stream is bounded by 256 of them (16 MiB). */
#define CHUNK_BYTES 65536u
/* Of one CopyData: far below PQ_LARGE_MESSAGE_LIMIT of the server, a gigabyte. */
#define DATA_BYTES_MAX (64u << 20)

static void put_message(struct iok_io *io, char type, size_t n)
{
    uint8_t at[5] = {(uint8_t)type};
    pg_put_u32(at + 1, 4 + n);
    iok_out_put(io->out, iok_span(at, sizeof(at)));
}

static int was_put(struct iok_io *io)
{
    return io->out->error != 0 ? iok_io_fail(io, IOK_ENOMEM, "out of memory for bytes to send") : 0;
}

int pg_copy_encode(struct pg_copy *copy, struct iok_io *io, struct iok_span sql)
{
    static const uint8_t bind[] = {0, 0, 0, 0, 0, 0, 0, 0}, execute[] = {0, 0, 0, 0, 0};
    put_message(io, 'P', 1 + sql.n + 1 + 2);
    iok_out_put(io->out, iok_span("", 1));
    iok_out_put(io->out, sql);
    iok_out_put(io->out, iok_span("\0\0", 3));
    put_message(io, 'B', sizeof(bind));
    iok_out_put(io->out, iok_span(bind, sizeof(bind)));
    put_message(io, 'E', sizeof(execute));
    iok_out_put(io->out, iok_span(execute, sizeof(execute)));
    put_message(io, 'H', 0);
    copy->sync_owed = true;
    return was_put(io);
}

int pg_copy_sync(struct pg_copy *copy, struct iok_io *io)
{
    if (copy->sync_owed)
        put_message(io, 'S', 0);
    copy->sync_owed = false;
    return was_put(io);
}

static int put_fail(struct pg_copy *copy, struct iok_io *io, struct iok_span why)
{
    put_message(io, 'f', why.n + 1);
    iok_out_put(io->out, why);
    iok_out_put(io->out, iok_span("", 1));
    copy->in = false;
    return pg_copy_sync(copy, io);
}

int pg_copy_begin(struct pg_copy *copy, struct iok_io *io, uint8_t type)
{
    if (copy->in || copy->out || copy->begun)
        return iok_io_fail(io, IOK_EPROTO, "a second COPY within one statement");
    const struct iok_flight *flight = io->host->flight(io, IOK_SEQ_HEAD);
    bool body = (flight->host & IOK_FLIGHT_BODY) != 0;
    copy->begun = true;
    copy->out = type == 'H';
    copy->in = !copy->out;
    copy->refused = copy->out && (flight->host & IOK_FLIGHT_PARTS) == 0;
    if (copy->out)
        return pg_copy_sync(copy, io);
    return body ? io->host->go(io, IOK_SEQ_HEAD) : put_fail(copy, io, iok_span_of("the request has no body"));
}

int pg_copy_body(struct pg_copy *copy, struct iok_io *io, struct iok_span bytes, enum iok_body what)
{
    if (!copy->in)
        return 0; /* the server has ended it already */
    if (what == IOK_BODY_FAIL)
        return put_fail(copy, io, bytes);
    while (bytes.n > 0) {
        struct iok_span piece = iok_span(bytes.p, bytes.n < DATA_BYTES_MAX ? bytes.n : DATA_BYTES_MAX);
        put_message(io, 'd', piece.n);
        iok_out_refer(io->out, piece);
        bytes = iok_span_skip(bytes, piece.n);
    }
    if (what == IOK_BODY_PART)
        return was_put(io);
    put_message(io, 'c', 0);
    copy->in = false;
    return pg_copy_sync(copy, io);
}

/* ---- data from the server ------------------------------------------------------------------------------------- */

static int put_chunk(struct pg_copy *copy, struct iok_io *io)
{
    if (copy->chunk.n == 0)
        return 0;
    io->host->begin_part(io, IOK_SEQ_HEAD);
    iok_tape_copy(io->tape, IOK_BYTES, 0, iok_span(copy->chunk.p, copy->chunk.n));
    copy->chunk.n = 0;
    return io->host->end(io, 0);
}

int pg_copy_data_begin(struct pg_copy *copy, struct iok_io *io, uint32_t n)
{
    int rc = copy->chunk.n + n > CHUNK_BYTES ? put_chunk(copy, io) : 0;
    copy->large = n > CHUNK_BYTES;
    if (rc == 0 && copy->large) {
        io->host->begin_part(io, IOK_SEQ_HEAD);
        iok_tape_open(io->tape, IOK_BYTES, 0, n);
    }
    return rc;
}

int pg_copy_data(struct pg_copy *copy, struct iok_io *io, struct iok_span piece, bool last)
{
    if (!copy->large)
        return pg_bytes_put(&copy->chunk, piece) ? 0 : iok_io_fail(io, IOK_ENOMEM, "out of memory for copied rows");
    iok_tape_fill(io->tape, piece);
    return last ? io->host->end(io, 0) : 0;
}

int pg_copy_end(struct pg_copy *copy, struct iok_io *io, bool whole)
{
    int rc = whole ? put_chunk(copy, io) : 0;
    copy->chunk.n = 0;
    copy->in = copy->out = copy->begun = false;
    copy->refused = copy->refused && whole;
    return rc < 0 ? rc : pg_copy_sync(copy, io);
}
