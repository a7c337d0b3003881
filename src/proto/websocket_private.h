/* websocket_private.h - what the files of the WebSocket codec share, and nobody else sees. */
#ifndef IOK_PROTO_WEBSOCKET_PRIVATE_H
#define IOK_PROTO_WEBSOCKET_PRIVATE_H

#include "../base/digest.h"
#include "websocket.h"

/* RFC 6455, 5.2. */
enum ws_opcode {
    WS_CONTINUATION = 0,
    WS_TEXT = 1,
    WS_BINARY = 2,
    WS_CLOSE = 8, /* this and above: control frames */
    WS_PING = 9,
    WS_PONG = 10,
};

#define WS_FIN 0x80u
#define WS_RSV1 0x40u /* of a message's first frame: it is compressed (RFC 7692, 6) */
#define WS_RSV 0x70u
#define WS_OPCODE 0x0fu
#define WS_MASKED 0x80u
#define WS_HEAD_BYTES_MAX 14u        /* 2, a length of 8, a mask */
#define WS_SCRATCH_BYTES 4096u       /* masks are taken off in pieces of that size, which stay in the first cache */
#define WS_BEAT "iokernel"           /* in pings that the program did not ask for */
#define WS_PONG_BYTES_MAX (1u << 16) /* pongs that the peer has not taken; more, and only its latest ping is answered */

/* ---- websocket_bytes.c ------------------------------------------------------------------------------------------ */

/* Where in a character a text is; zeroed: between two. */
struct ws_utf8 {
    uint8_t missing;   /* octets of the character */
    uint8_t low, high; /* between which the next one is */
};

/* false as soon as the text cannot become valid, whatever follows. */
bool ws_utf8_take(struct ws_utf8 *at, struct iok_span text);
/* A whole text. */
bool ws_utf8_is_valid(struct iok_span text);
/* RFC 6455, 5.3. to may be from. Octet 0 is masked by mask[phase % 4]. */
void ws_mask(uint8_t *to, const uint8_t *from, size_t n, const uint8_t mask[4], uint64_t phase);

/* ---- websocket_deflate.c ---------------------------------------------------------------------------------------- */

struct ws_deflater;
struct ws_inflater;

enum ws_inflate {
    WS_INFLATE_MORE, /* there is more to come out */
    WS_INFLATE_DONE, /* all that went in came out */
    WS_INFLATE_BAD,  /* what came out is right, and then it cannot be read */
    WS_INFLATE_NO_MEMORY,
};

struct ws_inflater *ws_inflater_new(uint8_t bits, bool no_context); /* NULL: out of memory */
void ws_inflater_free(struct ws_inflater *inflater);                /* or NULL */
/* Takes a piece of a message in; ws_inflate_some has to be DONE with the last. */
void ws_inflate_take(struct ws_inflater *inflater, struct iok_span piece);
/* The message's end. False: it needs nothing to come out. */
bool ws_inflate_end(struct ws_inflater *inflater);
enum ws_inflate ws_inflate_some(struct ws_inflater *inflater, uint8_t *to, size_t cap, size_t *n);
/* Makes it ready for the next message, once the end's rest has come out. False: the message has no proper end. */
bool ws_inflate_next(struct ws_inflater *inflater);

struct ws_deflater *ws_deflater_new(uint8_t bits, bool no_context); /* NULL: out of memory */
void ws_deflater_free(struct ws_deflater *deflater);                /* or NULL */
/* What a piece of n octets may need. */
size_t ws_deflate_bound(size_t n);
/* A piece of a message, whole as far as it goes; to has ws_deflate_bound(piece.n). Returns the number of octets. */
size_t ws_deflate(struct ws_deflater *deflater, struct iok_span piece, bool last, uint8_t *to);

/* ---- websocket.c and websocket_write.c -------------------------------------------------------------------------- */

enum ws_state {
    WS_OPEN,
    WS_CLOSING, /* we sent a close */
    WS_PARTING, /* the peer did, and is answered later: nothing is read any more */
    WS_OVER,    /* both did, or the connection is given up: nothing is read or sent any more */
};

/* A control frame's payload that has to wait. */
struct ws_note {
    bool is_there;
    uint8_t n;
    uint8_t bytes[IOK_WS_CONTROL_BYTES_MAX];
};

struct iok_websocket {
    struct iok_ws_options options;
    uint8_t state; /* enum ws_state */
    bool beats;    /* a WS_BEAT is to be answered */
    uint16_t code; /* of the peer's close, while that is not answered */

    /* The frame that is being read, once its head was. */
    bool in_frame;
    bool is_final;
    uint8_t mask[4];
    uint64_t left, phase; /* octets of it that are to come, and that came */
    /* The message that is being read. */
    uint8_t opcode;   /* WS_TEXT or WS_BINARY; 0: none */
    bool is_deflated; /* it is compressed */
    bool is_ended;    /* its length is not known from its first frame: its token is open-ended */
    bool is_told;     /* it goes to io->tape; else it is dropped */
    uint64_t message_bytes;
    struct ws_utf8 utf8;
    struct ws_inflater *inflater; /* made when it is needed first, as many connections never do */

    struct ws_note told_pong; /* the latest, that could not be told yet */
    struct ws_note owed_pong; /* of the latest ping, that could not be answered yet */
    uint64_t pong_bytes;      /* of pongs in io->out since the peer last had taken all, and where they end */
    uint64_t pongs_end;

    /* The message that is being sent in parts. */
    bool is_sending, sends_text, sends_deflated;
    struct ws_utf8 sent_utf8;
    struct ws_deflater *deflater;

    /* Client: a generator of masks. RFC 6455, 10.3: nobody who does not know the seed can tell the next one. */
    uint8_t seed[IOK_SHA256_BYTES + 8]; /* and a counter */
    uint8_t masks[IOK_SHA256_BYTES];
    uint8_t n_masks; /* octets of them that were not used yet */
};

/* A control frame. 0, or IOK_ENOMEM with io->err. */
int ws_put_control(struct iok_websocket *ws, struct iok_io *io, enum ws_opcode opcode, struct iok_span payload);
/* The answer to a ping, now or when the peer has taken those before. */
int ws_put_pong(struct iok_websocket *ws, struct iok_io *io, struct iok_span payload);
int ws_put_owed_pong(struct iok_websocket *ws, struct iok_io *io);
/* A close frame with what the peer may be told; IOK_WS_NO_CODE: an empty one. */
int ws_put_close(struct iok_websocket *ws, struct iok_io *io, int64_t code, struct iok_span reason);
/* Drops the message that is being read. */
int ws_drop_message(struct iok_websocket *ws, struct iok_io *io);

#endif
