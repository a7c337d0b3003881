/* http1.h - what the files of the HTTP/1.1 codec share.
 *
 *     http1.c         the slots of proto.h, in both roles
 *     http1_read.c    bytes to tapes: one reader for requests and replies
 *     http1_line.c    one line: request line, status line, field, chunk header
 *     http1_write.c   tapes to bytes: requests and answers
 *     http1_upgrade.c what becomes of a server's connection after a 101
 *     http1_websocket.c   what becomes of a client's, when it asked for a WebSocket
 *
 * Specifications: RFC 9110 (semantics) and RFC 9112 (HTTP/1.1), cited by section. docs/protocols/http.md lists every
 * decision that they leave open. */
#ifndef IOK_PROTO_HTTP1_H
#define IOK_PROTO_HTTP1_H

#include "proto.h"
#include "websocket.h"

/* A line with its CR LF. RFC 9112, 3: at least 8,000 octets for a request line; servers allow 8 to 16 KiB. */
#define HTTP1_LINE_BYTES_MAX 16384u
#define HTTP1_FIELDS_MAX 128u            /* of one head or trailer; servers allow 100 */
#define HTTP1_FIELD_BYTES_MAX 65536u     /* of all lines of one head or trailer: as nginx's four buffers, and more */
#define HTTP1_NAME_BYTES_MAX 256u        /* of a field; the longest registered has 32. Also of a host, by the DNS */
#define HTTP1_METHOD_BYTES_MAX 32u       /* the longest registered, UPDATEREDIRECTREF, has 17 */
#define HTTP1_CHUNK_LINE_BYTES_MAX 4096u /* one chunk header with its extensions, which nobody uses */
#define HTTP1_EXTENSION_BYTES_MAX 65536u /* of all chunk extensions of one body */
#define HTTP1_INTERIM_MAX 100u           /* 1xx replies before the final one */
#define HTTP1_PART_BYTES 65536u          /* of a body in parts: a few of them for each read of a connection */
#define HTTP1_PENDING_MAX 256u           /* requests of one connection without an answer */

/* What is known of a character. */
enum http1_char {
    HTTP1_TOKEN = 1,  /* RFC 9110, 5.6.2 */
    HTTP1_TARGET = 2, /* in a request target: visible ASCII but '#' */
    HTTP1_HOST = 4,   /* RFC 3986, 3.2.2 and 3.2.3: host and port */
};
extern const uint8_t http1_chars[256];

static inline bool http1_all(struct iok_span s, enum http1_char what)
{
    for (size_t i = 0; i < s.n; i++)
        if ((http1_chars[s.p[i]] & what) == 0)
            return false;
    return true;
}

/* No control characters other than a tab: RFC 9110, 5.5. */
bool http1_value_is_clean(struct iok_span value);
/* Without blanks and tabs around it. */
struct iok_span http1_trim(struct iok_span s);
/* The name in small letters; to has room for name.n. */
void http1_lower(uint8_t *to, struct iok_span name);
/* Takes the next element off a list such as "a, b"; false at its end. */
bool http1_list_next(struct iok_span *list, struct iok_span *element);

struct http1_start {
    struct iok_span method, target; /* of a request */
    struct iok_span reason;         /* of a reply */
    int status;
    int minor; /* of HTTP/1.minor; what is above 1 counts as 1 */
};

/* RFC 9112, 3.2: whether the method may have the target, and all its octets are allowed. */
bool http1_target_fits(struct iok_span method, struct iok_span target);
/* These take a line without its CR LF, and return 0 or an error whose text says what is wrong. *status is what a server
 * answers. */
int http1_request_line(struct iok_error *err, struct iok_span line, struct http1_start *out, int *status);
int http1_status_line(struct iok_error *err, struct iok_span line, struct http1_start *out);
int http1_field_line(struct iok_error *err, struct iok_span line, struct iok_span *name, struct iok_span *value);
int http1_chunk_line(struct iok_error *err, struct iok_span line, uint64_t *size, size_t *extension_bytes);
/* 1*DIGIT, in range. */
bool http1_length(struct iok_span value, uint64_t *out);

/* Where in a message the reader is. */
enum http1_stage {
    HTTP1_START, /* before or in its first line */
    HTTP1_FIELDS,
    HTTP1_LENGTH, /* in a body of known length */
    HTTP1_TO_END, /* in a body that ends with the connection */
    HTTP1_CHUNK,  /* before a chunk's header */
    HTTP1_CHUNK_DATA,
    HTTP1_CHUNK_END, /* before the CR LF behind its data */
    HTTP1_TRAILERS,
    HTTP1_RAW,  /* behind a 101: bytes of another protocol */
    HTTP1_DEAF, /* nothing more is read: all further bytes are dropped */
};

struct http1_websocket;

struct http1_reader {
    uint8_t stage; /* enum http1_stage */
    bool server;   /* reads requests */
    bool interim;  /* a 1xx reply: read, and not told */
    bool no_body;  /* RFC 9112, 6.3: whatever the fields say */
    bool has_length, chunked, close, keep_alive, expects, has_host;
    bool head, connect; /* the request's method; of a reply, that which it answers */
    bool blank_line;    /* one before the request line was passed over */
    bool parts; /* taken in parts: head, pieces of the body, and the trailer as the reply (request: last part) */
    uint8_t minor;
    uint16_t status; /* of the reply; of a request that cannot be read, what to answer */
    uint16_t n_interim;
    uint32_t n_fields, field_bytes, fields_at; /* of the head or trailer; its array's index on the tape */
    uint32_t extension_bytes;
    uint32_t scanned; /* of the unfinished line: bytes in which there is no end */
    uint32_t n_authority;
    uint32_t part_bytes;                     /* of the part of the body that is open; 0: none is */
    uint64_t left;                           /* of the body or chunk */
    uint64_t body_bytes;                     /* so far */
    uint8_t authority[HTTP1_NAME_BYTES_MAX]; /* of a target in absolute form, to compare with Host */
    struct http1_websocket *websocket;       /* of a client that asked for one: judges a 101. The client's; or NULL */
};

enum http1_event {
    HTTP1_MORE,     /* all bytes but those of an unfinished line were used, and more are needed */
    HTTP1_HEAD,     /* a head was read, and a body follows */
    HTTP1_COMPLETE, /* a message was read, and is to be ended by the caller, who then calls http1_next */
    HTTP1_SWITCH,   /* the head of a 101 was read, and given out: what follows are bytes, in parts */
};

/* Reads until there is an event; begins messages. Returns bytes used, or an error. */
ptrdiff_t http1_read(struct http1_reader *r, struct iok_io *io, struct iok_span in, enum http1_event *event);
/* The connection ended: true if that completes the message, which is to be ended by the caller. */
bool http1_read_end(struct http1_reader *r, struct iok_io *io);
/* Makes it ready for the next message. */
void http1_next(struct http1_reader *r);
/* Whether the connection can carry another message after this one: RFC 9112, 9.3. */
static inline bool http1_persists(const struct http1_reader *r)
{
    return !r->close && (r->minor > 0 || r->keep_alive);
}

/* A body that follows in pieces. */
struct http1_body {
    bool open;     /* there is more to come */
    bool chunked;  /* it goes in chunks */
    bool to_end;   /* it ends with the connection */
    bool mute;     /* of an answer that has none: what the program gives is dropped */
    uint64_t left; /* else: bytes of its length that have not come */
};

/* How an answer has to be framed. */
struct http1_answer_frame {
    bool head;    /* to HEAD */
    bool connect; /* to CONNECT */
    bool old;     /* to HTTP/1.0 */
    bool close;   /* the connection ends with it; set by the writer, too */
    bool parts;   /* its body follows in pieces: */
    struct http1_body follows;
};

#define HTTP1_REQUEST_HEAD 1u    /* tag of a flight: its reply has no body */
#define HTTP1_REQUEST_CLOSE 2u   /* the request says that it is the last */
#define HTTP1_REQUEST_UPGRADE 4u /* it asks for another protocol */

/* Of a request for a WebSocket. */
struct http1_websocket_request {
    char key[IOK_WS_KEY_BYTES];
    struct iok_ws_deflate wish;
};

/* What a request asks for. */
struct http1_request_frame {
    bool body;    /* given by the caller: a body follows */
    bool raw;     /* given by the caller: the reply comes in parts, too, so an Upgrade is possible */
    bool expects; /* 100-continue */
    struct http1_body follows;
    bool websocket; /* the connection is to become one of ours: */
    struct http1_websocket_request opening;
    uint32_t tag;
};

/* Append all or nothing; errors as of encode. */
int http1_write_request(struct iok_io *io, const struct iok_token *args, size_t n, struct http1_request_frame *frame);
/* A piece of the body, by reference. IOK_EINVAL: it has more or, at its end, less than its length says. */
int http1_write_piece(struct iok_io *io, struct http1_body *body, struct iok_span piece, bool end);
int http1_write_answer(struct iok_io *io, const struct iok_token *reply, size_t n, struct http1_answer_frame *frame);
/* The head of a 101; more: further fields, whole lines. */
int http1_write_switch(struct iok_io *io, const struct iok_token *answer, size_t n, struct iok_span more);

/* A server's connection after a 101. */
struct http1_upgraded {
    struct iok_websocket *ws;
    bool raw; /* or bytes as they are */
};

static inline bool http1_is_upgraded(const struct http1_upgraded *up)
{
    return up->ws != NULL || up->raw;
}

/* As the slots of the same names in struct iok_proto_server; ping: 1 if there is none. */
int http1_upgrade(struct http1_upgraded *up, struct iok_io *io, const struct iok_upgrade *how,
                  const struct iok_token *request, size_t n_request, const struct iok_token *answer, size_t n);
ptrdiff_t http1_upgraded_feed(struct http1_upgraded *up, struct iok_io *io, struct iok_span in);
int http1_upgraded_eof(struct http1_upgraded *up, struct iok_io *io);
int http1_upgraded_write(struct http1_upgraded *up, struct iok_io *io, const struct iok_token *message, size_t n);
int http1_upgraded_end(struct http1_upgraded *up, struct iok_io *io);
int http1_upgraded_ping(struct http1_upgraded *up, struct iok_io *io);
void http1_upgraded_free(struct http1_upgraded *up);

/* The answer to a request that could not be read. */
void http1_write_refusal(struct iok_out *out, int status);

/* ---- http1_websocket.c: slots of proto.h, from a 101 on ------------------------------------------------------- */

struct http1_websocket *http1_websocket_new(const struct http1_websocket_request *request); /* NULL: out of memory */
void http1_websocket_free(struct http1_websocket *w);                                       /* or NULL */
/* A field of the 101. */
int http1_websocket_field(struct http1_websocket *w, struct iok_io *io, struct iok_span name, struct iok_span value);
/* At the end of its head: whether it says what it has to. */
int http1_websocket_check(struct http1_websocket *w, struct iok_io *io);
int http1_websocket_begin(struct http1_websocket *w, struct iok_io *io);
ptrdiff_t http1_websocket_feed(struct http1_websocket *w, struct iok_io *io, struct iok_span in);
int http1_websocket_eof(struct http1_websocket *w, struct iok_io *io);
int http1_websocket_lost(struct http1_websocket *w, struct iok_io *io, struct iok_span why);
int http1_websocket_beat(struct http1_websocket *w, struct iok_io *io);
/* A frame to send, or none; end: and a close. */
int http1_websocket_body(struct http1_websocket *w, struct iok_io *io, struct iok_span bytes, bool end);

#endif
