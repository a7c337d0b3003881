/* redis_request.c - requests as bytes: an array of bulk strings, *2 CR LF $3 CR LF GET CR LF $1 CR LF k CR LF.
 *
 * A request is looked at as a whole before its first byte is written, so that one with a bad argument leaves no trace.
 * A small one, which is nearly every one, is then written in one piece; of larger ones the large payloads go by
 * reference. [RESP] "Sending commands to a Redis server". */
#include "redis.h"

/* Up to here a request is written in one piece, which is fastest; it costs at most so much spare room. */
#define ENCODE_PIECE_MAX 16384u
/* The server's own limits: proto-max-bulk-len is 512 MiB, and 1024 * 1024 arguments before Redis 7. To break one ends
 * the connection with all its requests. */
#define ARGUMENT_BYTES_MAX (512u << 20)
#define ARGUMENTS_MAX (1u << 20)
/* Type byte, up to 20 digits with a sign, CR LF. */
#define NUMBER_BYTES_MAX 23u

static size_t put_header(uint8_t *at, char type, size_t value)
{
    size_t n = 1;
    at[0] = (uint8_t)type;
    if (value < 10)
        at[n++] = (uint8_t)('0' + value);
    else if (value < 100) {
        at[n++] = (uint8_t)('0' + value / 10);
        at[n++] = (uint8_t)('0' + value % 10);
    } else {
        n += iok_format_i64((char *)at + 1, (int64_t)value);
    }
    at[n++] = '\r';
    at[n++] = '\n';
    return n;
}

static size_t put_bulk(uint8_t *at, const void *p, size_t n)
{
    size_t used = put_header(at, '$', n);
    if (n > 0)
        memcpy(at + used, p, n);
    used += n;
    at[used++] = '\r';
    at[used++] = '\n';
    return used;
}

/* The text of a number; at has at least 32 bytes. */
static size_t format_number(const struct iok_token *arg, char *at)
{
    return arg->type == IOK_I64 ? iok_format_i64(at, arg->i) : iok_format_f64(at, arg->f);
}

static bool is_number(const struct iok_token *arg)
{
    return arg->type == IOK_I64 || arg->type == IOK_F64;
}

static int wrong_type(struct iok_io *io, const struct iok_token *arg, size_t at)
{
    static const char *const names[] = {
        [IOK_NULL] = "null",           [IOK_BOOL] = "a boolean",  [IOK_TIMESTAMP] = "a timestamp",
        [IOK_ARRAY] = "an array",      [IOK_MAP] = "a map",       [IOK_SET] = "a set",
        [IOK_PUSH] = "a push message", [IOK_ATTR] = "attributes", [IOK_ERROR] = "an error",
    };
    const char *name = arg->type < sizeof(names) / sizeof(*names) ? names[arg->type] : NULL;
    return iok_io_fail(io, IOK_ETYPE, "argument %zu is %s; a command takes text, bytes, integers and floats", at,
                       name != NULL ? name : "of an unknown type");
}

int redis_measure(struct iok_io *io, const struct iok_token *args, size_t n, size_t *bytes)
{
    if (n == 0)
        return iok_io_fail(io, IOK_EINVAL, "a call needs a command name");
    if (n > ARGUMENTS_MAX)
        return iok_io_fail(io, IOK_ELIMIT, "%zu arguments; a server takes at most %u", n, ARGUMENTS_MAX);
    if (args->type != IOK_TEXT && args->type != IOK_BYTES)
        return iok_io_fail(io, IOK_ETYPE, "the first argument is the command name: text or bytes");
    size_t sum = NUMBER_BYTES_MAX;
    for (size_t i = 0; i < n; i++) {
        switch (args[i].type) {
        case IOK_I64:
        case IOK_F64:
            sum += NUMBER_BYTES_MAX + 32 + 2;
            break;
        case IOK_BYTES:
        case IOK_TEXT:
        case IOK_DECIMAL:
            if (args[i].len > ARGUMENT_BYTES_MAX)
                return iok_io_fail(io, IOK_ELIMIT, "argument %zu has %u bytes; a server takes at most %u", i,
                                   (unsigned)args[i].len, ARGUMENT_BYTES_MAX);
            sum += NUMBER_BYTES_MAX + (size_t)args[i].len + 2;
            break;
        default:
            return wrong_type(io, &args[i], i);
        }
    }
    *bytes = sum;
    return 0;
}

static void put_whole(struct iok_out *out, const struct iok_token *args, size_t n, size_t bytes)
{
    uint8_t *at = iok_out_reserve(out, bytes);
    if (at == NULL)
        return;
    size_t used = put_header(at, '*', n);
    for (size_t i = 0; i < n; i++) {
        char number[32];
        if (is_number(&args[i]))
            used += put_bulk(at + used, number, format_number(&args[i], number));
        else
            used += put_bulk(at + used, args[i].p, args[i].len);
    }
    iok_out_commit(out, used);
}

static void put_large(struct iok_out *out, struct iok_span payload)
{
    uint8_t header[NUMBER_BYTES_MAX];
    iok_out_put(out, iok_span(header, put_header(header, '$', payload.n)));
    iok_out_refer(out, payload);
    iok_out_put(out, iok_span("\r\n", 2));
}

static void put_pieces(struct iok_out *out, const struct iok_token *args, size_t n)
{
    uint8_t header[NUMBER_BYTES_MAX];
    iok_out_put(out, iok_span(header, put_header(header, '*', n)));
    for (size_t i = 0; i < n && out->error == 0; i++) {
        char number[32];
        struct iok_span payload =
            is_number(&args[i]) ? iok_span(number, format_number(&args[i], number)) : iok_token_span(&args[i]);
        if (payload.n > ENCODE_PIECE_MAX) {
            put_large(out, payload);
            continue;
        }
        uint8_t *at = iok_out_reserve(out, NUMBER_BYTES_MAX + payload.n + 2);
        if (at != NULL)
            iok_out_commit(out, put_bulk(at, payload.p, payload.n));
    }
}

void redis_put_request(struct iok_out *out, const struct iok_token *args, size_t n, size_t bytes)
{
    if (bytes <= ENCODE_PIECE_MAX)
        put_whole(out, args, n, bytes);
    else
        put_pieces(out, args, n);
}

void redis_put_command(struct iok_out *out, const struct iok_span *args, size_t n)
{
    uint8_t header[NUMBER_BYTES_MAX];
    iok_out_put(out, iok_span(header, put_header(header, '*', n)));
    for (size_t i = 0; i < n; i++) {
        iok_out_put(out, iok_span(header, put_header(header, '$', args[i].n)));
        iok_out_put(out, args[i]);
        iok_out_put(out, iok_span("\r\n", 2));
    }
}
