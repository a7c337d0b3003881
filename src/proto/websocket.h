/* websocket.h - WebSocket (RFC 6455) and its compression permessage-deflate (RFC 7692), in both roles: what becomes of a
 * connection of HTTP/1.1 after a 101.
 *
 *     websocket.c          one connection: frames to messages, the closing handshake
 *     websocket_write.c    messages to frames
 *     websocket_open.c     the opening: what request and reply have to say, and what both agree on
 *     websocket_deflate.c  messages through zlib
 *     websocket_bytes.c    masks and UTF-8: all that touches each octet
 *
 * What it is: a codec within a codec. The codec of HTTP, or whoever owns the connection, makes one when the opening is
 * done, and hands it what arrives and what is to be sent. Like every codec it has no socket, no clock and no thread.
 * What it is not: a codec of its own, as no URL begins with it on the wire; and no keeper of time: how long the peer may
 * take to answer a close or a ping is for the owner to say.
 *
 * A message is one value, the same in both directions:
 *
 *     text "..."   bytes "..."                  a message; text is UTF-8, always
 *     push 2: text "pong", bytes payload        an answer to a ping, or a sign of life
 *     push 2: text "ping", bytes payload        to send only: those of the peer are answered here, and not told
 *     push 4: text "close", i64 code, text reason, bool clean       told once, and the last; to send: push 1, 2 or 3
 *
 * docs/protocols/websocket.md has every decision that the RFCs leave open, and the codes of closing. */
#ifndef IOK_PROTO_WEBSOCKET_H
#define IOK_PROTO_WEBSOCKET_H

#include "proto.h"

#define IOK_WS_CONTROL_BYTES_MAX 125u /* RFC 6455, 5.5 */
#define IOK_WS_KEY_BYTES 24u          /* base64 of 16 octets */
#define IOK_WS_ACCEPT_BYTES 28u       /* base64 of a SHA-1 */
#define IOK_WS_EXTENSION_BYTES 160u   /* of permessage-deflate with its four parameters; they have 127 at most */

/* RFC 6455, 7.4, and IANA's list. */
enum iok_ws_code {
    IOK_WS_NORMAL = 1000,
    IOK_WS_GOING_AWAY = 1001,
    IOK_WS_PROTOCOL_ERROR = 1002,
    IOK_WS_UNSUPPORTED = 1003,
    IOK_WS_NO_CODE = 1005,  /* never on the wire: a close without a code */
    IOK_WS_ABNORMAL = 1006, /* never on the wire: the connection ended without a close */
    IOK_WS_BAD_DATA = 1007,
    IOK_WS_POLICY = 1008,
    IOK_WS_TOO_BIG = 1009,
    IOK_WS_NO_EXTENSION = 1010,
    IOK_WS_INTERNAL = 1011,
    IOK_WS_RESTART = 1012,
    IOK_WS_TRY_LATER = 1013,
    IOK_WS_BAD_GATEWAY = 1014,
};

/* Whether a close frame may have the code. */
bool iok_ws_code_is_valid(int64_t code);

/* ---- the opening ------------------------------------------------------------------------------------------------ */

/* What is wished for of permessage-deflate, or agreed on. */
struct iok_ws_deflate {
    bool on;
    bool server_no_context, client_no_context; /* each message of that side is compressed by itself */
    uint8_t server_bits, client_bits;          /* 8 to 15: that side's window is 2^bits; 0: nothing is wished, 15 */
};

/* What an opening request says; fields are names in small letters and values in turn, as the codec of HTTP has them. */
struct iok_ws_request {
    struct iok_span method;
    int64_t minor; /* of HTTP/1.minor */
    const struct iok_token *fields;
    size_t n;
};

/* What goes into the reply 101, or was in it. */
struct iok_ws_opening {
    char accept[IOK_WS_ACCEPT_BYTES];        /* Sec-WebSocket-Accept */
    char extensions[IOK_WS_EXTENSION_BYTES]; /* Sec-WebSocket-Extensions; n 0: no such field */
    size_t n_extensions;
    struct iok_span protocol; /* client: what the server chose, in its fields; n 0: none */
    struct iok_ws_deflate deflate;
};

/* false when SHA-1 is not to be had. */
bool iok_ws_accept_key(struct iok_span key, char accept[IOK_WS_ACCEPT_BYTES]);

/* Server: whether the request asks for WebSocket, rightly or not. */
bool iok_ws_is_asked_for(const struct iok_ws_request *request);
/* Server: 0, or what is wrong and the status to answer with. A 426 has to say "Sec-WebSocket-Version: 13" and "Upgrade:
 * websocket". wish: whether to compress, and the largest windows. */
int iok_ws_read_request(struct iok_error *err, const struct iok_ws_request *request, const struct iok_ws_deflate *wish,
                        struct iok_ws_opening *out, int *status);
/* Where in the list of a request's subprotocols one is; zeroed: before the first. */
struct iok_ws_protocols {
    size_t field;
    struct iok_span rest;
};

/* Server: the next subprotocol that the client offers, by its preference. false at their end. */
bool iok_ws_next_protocol(const struct iok_ws_request *request, struct iok_ws_protocols *at, struct iok_span *protocol);
/* Server: whether the client offers it: no other may be chosen. */
bool iok_ws_offers(const struct iok_ws_request *request, struct iok_span protocol);

/* Client: a new Sec-WebSocket-Key. 0, or an error. */
int iok_ws_make_key(struct iok_io *io, char key[IOK_WS_KEY_BYTES]);
/* Client: Sec-WebSocket-Extensions for the request; how many octets, 0: no such field. */
size_t iok_ws_write_offer(const struct iok_ws_deflate *wish, char at[IOK_WS_EXTENSION_BYTES]);
/* Client: what an offer, made by iok_ws_write_offer or anybody else, wishes for. false: not permessage-deflate alone, once. */
bool iok_ws_read_offer(struct iok_span offer, struct iok_ws_deflate *wish);
/* Client: whether a reply 101 accepts what the request asked for. protocols: the value of its Sec-WebSocket-Protocol; p is
 * NULL if the caller compares that itself. */
int iok_ws_read_reply(struct iok_error *err, const struct iok_token *fields, size_t n, const char key[IOK_WS_KEY_BYTES],
                      struct iok_span protocols, const struct iok_ws_deflate *wish, struct iok_ws_opening *out);

/* ---- the connection --------------------------------------------------------------------------------------------- */

struct iok_ws_options {
    bool client;
    size_t message_bytes_max;      /* of a message to the program, when it is inflated */
    struct iok_ws_deflate deflate; /* as agreed on */
    /* Messages to send of that size are compressed. Smaller ones gain nothing; larger ones would keep the thread from
     * other work for longer than a few milliseconds. */
    size_t deflate_bytes_min, deflate_bytes_max;
    bool close_later; /* the peer's close is answered by iok_ws_end, and until then the program may send on */
    /* Begins a message to the program, as begin_part of the host does; it is ended by io->host->end. NULL: there is no
     * room for it now; what was not used is fed again when there is. last: nothing comes behind it, ended by
     * IOK_MSG_LAST, and there is room for it always. */
    struct iok_tape *(*begin)(struct iok_io *io, bool last);
};

#define IOK_WS_DEFLATE_BYTES_MIN 256u       /* below that the headers of the network cost more than what is gained */
#define IOK_WS_DEFLATE_BYTES_MAX (1u << 20) /* about 10 ms at level 1 */

struct iok_websocket;

/* NULL: out of memory, and io->err says so. */
struct iok_websocket *iok_ws_new(const struct iok_ws_options *options, struct iok_io *io);
void iok_ws_free(struct iok_websocket *ws); /* or NULL */

/* Takes bytes in, ends messages, answers pings and closes; as feed of struct iok_proto. A peer that breaks the protocol
 * is no error here: it gets a close with the code, the program is told so, and nothing behind it is read. After the
 * last message io->host->closing was called, unless its owner has to answer a close yet. */
ptrdiff_t iok_ws_feed(struct iok_websocket *ws, struct iok_io *io, struct iok_span in);
/* The peer closed its side: the program is told, unless it was already. 0, or an error. */
int iok_ws_eof(struct iok_websocket *ws, struct iok_io *io);
/* The same of a connection that was lost; why: the reason that the program is told. */
int iok_ws_lost(struct iok_websocket *ws, struct iok_io *io, struct iok_span why);
/* The closing handshake is done, or the connection is given up. */
bool iok_ws_is_over(const struct iok_websocket *ws);
/* A close was sent, and the peer's has not come yet. */
bool iok_ws_is_closing(const struct iok_websocket *ws);

/* What of a message is sent: a whole one is both. */
enum iok_ws_part {
    IOK_WS_FIRST = 1,
    IOK_WS_LAST = 2,
};

/* These append to io->out. IOK_EINVAL, IOK_ETYPE, IOK_ELIMIT, IOK_ESTATE: nothing was appended, and the connection lives
 * on. Any other error ends it. Large payloads are referenced, as by iok_out_refer. */

/* A message as above. */
int iok_ws_write(struct iok_websocket *ws, struct iok_io *io, const struct iok_token *message, size_t n);
/* A message, or a part of one (text or binary as its first part said). parts: enum iok_ws_part. A character of a text may
 * be cut between parts. */
int iok_ws_send(struct iok_websocket *ws, struct iok_io *io, bool text, struct iok_span payload, uint32_t parts);
/* Another part, of the kind that the first had. */
int iok_ws_send_part(struct iok_websocket *ws, struct iok_io *io, struct iok_span payload, uint32_t parts);
int iok_ws_ping(struct iok_websocket *ws, struct iok_io *io, struct iok_span payload);
/* A ping whose answer is not told: for whoever keeps the connection alive. 1: it is closed, or about to be. */
int iok_ws_beat(struct iok_websocket *ws, struct iok_io *io);
int iok_ws_pong(struct iok_websocket *ws, struct iok_io *io, struct iok_span payload);
/* Begins the closing handshake. What still arrives of messages is dropped. IOK_WS_NO_CODE: without code and reason. */
int iok_ws_close(struct iok_websocket *ws, struct iok_io *io, int64_t code, struct iok_span reason);
/* Our close, unless it was sent: the answer to the peer's, or without that the first, by 1000. */
int iok_ws_end(struct iok_websocket *ws, struct iok_io *io);

#endif
