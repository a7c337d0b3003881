/* websocket.h - a host for the WebSocket codec that writes down what it does, and plays of what is done to it.
 *
 * A play is lines, what the peer sends and what the program does:
 *
 *     81 Hello           a frame whose first octet is 0x81; with a mask if it comes from a client. \xNN is an octet
 *     82 *70000 a        a frame with so many times the letter
 *     = 8180             octets as they are
 *     > text Hello       the program sends; also bytes, ping, pong, "close", "close 1000 reason", and the parts of a
 *                        message "first ...", "next ...", "last ..." (binary: "bfirst", "bnext", "blast")
 *     > *70000 a         a text of so many letters
 *     > full, > room     the program takes no more messages, and takes them again
 *     > taken            the peer has taken all that was sent
 *     > eof              the peer closes its side
 *
 * What comes of it are two texts: the log of what the program got, and the frames that were sent, as in a play. */
#ifndef IOK_TESTS_KIT_WEBSOCKET_H
#define IOK_TESTS_KIT_WEBSOCKET_H

#include "../../src/proto/websocket.h"
#include "kit.h"

struct ws_peer {
    struct iok_io io; /* first, so that callbacks find the rest */
    struct iok_ws_options options;
    struct iok_websocket *ws;
    struct iok_out out;
    struct iok_account account;
    struct iok_tape tape, discarding;
    struct iok_token tokens[2]; /* few, so that tapes must grow */
    uint8_t bytes[16];
    struct kit_text left; /* what feed left */
    struct kit_text log;  /* one line for each message, error and so on */
    struct kit_text sent; /* all octets */
    uint64_t randoms;
    bool is_open;  /* a message */
    bool is_full;  /* begin gives none */
    bool is_hasty; /* nobody waits for messages: they are discarded in their midst */
    int failed;
};

void ws_peer_open(struct ws_peer *peer, const struct iok_ws_options *options, size_t max_reply);
void ws_peer_recv(struct ws_peer *peer, struct iok_span bytes);
void ws_peer_eof(struct ws_peer *peer);
/* Writes down what a sending function returned, and takes what it wrote. */
void ws_peer_note(struct ws_peer *peer, int rc);
/* Frees all. False if something is still alive. */
bool ws_peer_close(struct ws_peer *peer);

/* A frame as a peer of that role would send it. Its mask depends on its length only. */
void ws_kit_frame(struct kit_text *to, bool masked, uint8_t first, struct iok_span payload);
/* The frames, as lines of a play; stops the program where they are not what that role has to send. */
void ws_kit_lines(struct kit_text *to, bool from_client, struct iok_span frames);

enum ws_cut {
    WS_CUT_NOT,
    WS_CUT_BYTES,  /* byte by byte */
    WS_CUT_PIECES, /* random pieces by the seed in param */
    WS_CUT_END,    /* the connection ends after param octets */
};

/* Plays it; how many octets were received. */
size_t ws_kit_play(struct ws_peer *peer, const char *play, enum ws_cut cut, uint64_t param);

#endif
