/* echo.c - a WebSocket peer of the bare codec over blocking sockets, which sends back each message: for cases.py, the
 * Autobahn test suite, and other implementations. It is no server of ours: no kernel, no HTTP codec.
 *
 *     websocket_echo server [OPTION...]                    prints its port, serves until its standard input ends
 *     websocket_echo client PORT TARGET [OPTION...]        one connection
 *
 * Options: max=BYTES of a message (16 MiB), plain (no compression), no_context, bits=N of both windows, min=BYTES that are
 * compressed, print (a client's messages go to standard output), greet (a client sends "hello" first). */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../src/proto/websocket.h"

#define HEAD_BYTES_MAX 16384u
#define FIELDS_MAX 256u
#define READ_BYTES (1u << 16)
#define PATIENCE_S 30

static struct {
    size_t max, min;
    struct iok_ws_deflate deflate;
    bool print, greet;
} wish = {.max = 16u << 20, .min = IOK_WS_DEFLATE_BYTES_MIN, .deflate = {.on = true}};

struct peer {
    struct iok_io io; /* first, so that callbacks find the rest */
    struct iok_out out;
    struct iok_tape tape;
    struct iok_token tokens[8];
    uint8_t bytes[512];
    struct iok_websocket *ws;
    int fd;
    char head[HEAD_BYTES_MAX]; /* of the opening, and what came with it */
    size_t n_head, n_read;
    struct iok_token fields[FIELDS_MAX];
    size_t n_fields;
};

/* ---- the host --------------------------------------------------------------------------------------------------- */

static struct iok_tape *begin(struct iok_io *io, bool last)
{
    struct peer *peer = (struct peer *)io;
    (void)last;
    iok_tape_deinit(&peer->tape);
    iok_tape_init(&peer->tape, peer->tokens, 8, peer->bytes, sizeof(peer->bytes), wish.max + 4096, NULL);
    io->tape = &peer->tape;
    return io->tape;
}

static int end(struct iok_io *io, uint32_t flags)
{
    struct peer *peer = (struct peer *)io;
    const struct iok_token *message = io->tape->tokens;
    io->tape = NULL;
    if (flags != 0 || message->type == IOK_PUSH)
        return 0;
    if (wish.print)
        printf("%.*s\n", (int)message->len, (const char *)message->p);
    int rc = iok_ws_write(peer->ws, io, message, 1);
    return rc != 0 ? rc : iok_out_own(io->out, io->out->taken, io->out->appended);
}

static void closing(struct iok_io *io)
{
    (void)io;
}

static uint64_t any(struct iok_io *io)
{
    (void)io;
    return (uint64_t)random() << 32 ^ (uint64_t)random();
}

static const struct iok_host callbacks = {.end = end, .closing = closing, .random = any};

/* ---- sockets ---------------------------------------------------------------------------------------------------- */

static bool send_all(int fd, const void *p, size_t n)
{
    for (const char *at = p; n > 0;) {
        ssize_t sent = send(fd, at, n, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        at += sent;
        n -= (size_t)sent;
    }
    return true;
}

static bool flush(struct peer *peer)
{
    struct iovec vec[16];
    for (int n; (n = iok_out_peek(&peer->out, vec, 16)) > 0;)
        for (int i = 0; i < n; i++) {
            if (!send_all(peer->fd, vec[i].iov_base, vec[i].iov_len))
                return false;
            iok_out_take(&peer->out, vec[i].iov_len);
        }
    return true;
}

/* The peer has the last word, so that what we sent is not lost by a reset. */
static void hang_up(struct peer *peer)
{
    char rest[4096];
    shutdown(peer->fd, SHUT_WR);
    while (recv(peer->fd, rest, sizeof(rest), 0) > 0)
        ;
    close(peer->fd);
}

static void converse(struct peer *peer, const struct iok_ws_opening *opening, bool client)
{
    static const struct iok_token hello = {.type = IOK_TEXT, .len = 5, .p = (const uint8_t *)"hello"};
    struct iok_ws_options options = {.client = client,
                                     .message_bytes_max = wish.max,
                                     .deflate = opening->deflate,
                                     .deflate_bytes_min = wish.min,
                                     .deflate_bytes_max = IOK_WS_DEFLATE_BYTES_MAX,
                                     .begin = begin};
    size_t n = peer->n_read - peer->n_head, cap = READ_BYTES + 1024;
    uint8_t *bytes = malloc(cap);
    peer->ws = iok_ws_new(&options, &peer->io);
    if (bytes == NULL || peer->ws == NULL)
        abort();
    memcpy(bytes, peer->head + peer->n_head, n);
    if (wish.greet)
        iok_ws_write(peer->ws, &peer->io, &hello, 1);
    for (;;) {
        ptrdiff_t used = iok_ws_feed(peer->ws, &peer->io, iok_span(bytes, n));
        if (used < 0 || !flush(peer) || iok_ws_is_over(peer->ws))
            break;
        n -= (size_t)used;
        memmove(bytes, bytes + used, n);
        ssize_t got = recv(peer->fd, bytes + n, cap - n, 0);
        if (got <= 0 && (iok_ws_eof(peer->ws, &peer->io), true))
            break;
        n += (size_t)got;
    }
    iok_ws_free(peer->ws);
    free(bytes);
}

/* ---- the opening ------------------------------------------------------------------------------------------------ */

static struct iok_token token(const char *p, const char *stop)
{
    return (struct iok_token){.type = IOK_BYTES, .len = (uint32_t)(stop - p), .p = (const uint8_t *)p};
}

/* Reads a head, and puts its fields into tokens; false when it is none. */
static bool read_head(struct peer *peer)
{
    char *stop = NULL;
    while (stop == NULL) {
        ssize_t n = recv(peer->fd, peer->head + peer->n_read, HEAD_BYTES_MAX - 1 - peer->n_read, 0);
        if (n <= 0)
            return false;
        peer->n_read += (size_t)n;
        peer->head[peer->n_read] = '\0';
        stop = strstr(peer->head, "\r\n\r\n");
    }
    peer->n_head = (size_t)(stop + 4 - peer->head);
    for (char *line = strstr(peer->head, "\r\n") + 2; line < stop + 2 && peer->n_fields + 2 <= FIELDS_MAX;) {
        char *line_end = strstr(line, "\r\n"), *colon = memchr(line, ':', (size_t)(line_end - line));
        if (colon == NULL)
            return false;
        for (char *c = line; c < colon; c++)
            *c |= *c >= 'A' && *c <= 'Z' ? 32 : 0;
        char *value = colon + 1, *value_end = line_end;
        while (value < value_end && *value == ' ')
            value++;
        while (value_end > value && value_end[-1] == ' ')
            value_end--;
        peer->fields[peer->n_fields++] = token(line, colon);
        peer->fields[peer->n_fields++] = token(value, value_end);
        line = line_end + 2;
    }
    return true;
}

static void serve(struct peer *peer)
{
    char answer[1024];
    int status, n;
    struct iok_ws_opening opening;
    struct iok_span protocol = {0};
    struct iok_ws_protocols at = {0};
    if (!read_head(peer))
        return;
    struct iok_ws_request request = {iok_span(peer->head, strcspn(peer->head, " ")),
                                     strstr(peer->head, " HTTP/1.1\r\n") != NULL, peer->fields, peer->n_fields};
    if (iok_ws_read_request(&peer->io.err, &request, &wish.deflate, &opening, &status) != 0) {
        n = snprintf(answer, sizeof(answer),
                     "HTTP/1.1 %d No\r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\nContent-Length: %zu\r\n"
                     "Connection: close\r\n\r\n%s",
                     status, strlen(peer->io.err.text), peer->io.err.text);
        send_all(peer->fd, answer, (size_t)n);
        return;
    }
    iok_ws_next_protocol(&request, &at, &protocol);
    n = snprintf(answer, sizeof(answer),
                 "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Accept: %.28s\r\n%s%.*s%s%s%.*s%s\r\n",
                 opening.accept, opening.n_extensions > 0 ? "Sec-WebSocket-Extensions: " : "",
                 (int)opening.n_extensions, opening.extensions, opening.n_extensions > 0 ? "\r\n" : "",
                 protocol.n > 0 ? "Sec-WebSocket-Protocol: " : "", (int)protocol.n,
                 protocol.n > 0 ? (const char *)protocol.p : "", protocol.n > 0 ? "\r\n" : "");
    if (send_all(peer->fd, answer, (size_t)n))
        converse(peer, &opening, false);
}

static int ask(struct peer *peer, const char *port, const char *target)
{
    char request[2048], key[IOK_WS_KEY_BYTES], offer[IOK_WS_EXTENSION_BYTES];
    struct iok_ws_opening opening;
    size_t n_offer = iok_ws_write_offer(&wish.deflate, offer);
    if (iok_ws_make_key(&peer->io, key) != 0)
        return 1;
    int n = snprintf(request, sizeof(request),
                     "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %.24s\r\n%s%.*s%s\r\n",
                     target, port, key, n_offer > 0 ? "Sec-WebSocket-Extensions: " : "", (int)n_offer, offer,
                     n_offer > 0 ? "\r\n" : "");
    if (!send_all(peer->fd, request, (size_t)n) || !read_head(peer) || strncmp(peer->head, "HTTP/1.1 101", 12) != 0 ||
        iok_ws_read_reply(&peer->io.err, peer->fields, peer->n_fields, key, iok_span(NULL, 0), &wish.deflate,
                          &opening)) {
        fprintf(stderr, "not opened: %s\n", peer->io.err.text);
        return 1;
    }
    converse(peer, &opening, true);
    return 0;
}

/* ---- the program ------------------------------------------------------------------------------------------------ */

static struct peer *new_peer(int fd)
{
    struct peer *peer = calloc(1, sizeof(*peer));
    if (peer == NULL)
        abort();
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){.tv_sec = PATIENCE_S}, sizeof(struct timeval));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){.tv_sec = PATIENCE_S}, sizeof(struct timeval));
    peer->fd = fd;
    iok_out_init(&peer->out, NULL);
    iok_tape_init(&peer->tape, peer->tokens, 8, peer->bytes, sizeof(peer->bytes), wish.max + 4096, NULL);
    peer->io = (struct iok_io){.host = &callbacks, .out = &peer->out, .max_reply = wish.max + 4096};
    return peer;
}

static void free_peer(struct peer *peer)
{
    hang_up(peer);
    iok_tape_deinit(&peer->tape);
    iok_out_deinit(&peer->out);
    free(peer);
}

static void *serve_one(void *arg)
{
    struct peer *peer = arg;
    serve(peer);
    free_peer(peer);
    return NULL;
}

static void *accept_all(void *arg)
{
    int listener = *(int *)arg;
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        pthread_t thread;
        if (fd < 0 || pthread_create(&thread, NULL, serve_one, new_peer(fd)) != 0)
            abort();
        pthread_detach(thread);
    }
}

static int run_server(int fd, struct sockaddr_in *address)
{
    socklen_t n = sizeof(*address);
    pthread_t thread;
    if (bind(fd, (struct sockaddr *)address, n) != 0 || listen(fd, 64) != 0 ||
        getsockname(fd, (struct sockaddr *)address, &n) != 0 || pthread_create(&thread, NULL, accept_all, &fd) != 0)
        return 1;
    printf("%d\n", ntohs(address->sin_port));
    fflush(stdout);
    while (getchar() != EOF)
        ;
    return 0;
}

static void read_option(const char *word)
{
    if (strncmp(word, "max=", 4) == 0)
        wish.max = strtoul(word + 4, NULL, 10);
    else if (strncmp(word, "min=", 4) == 0)
        wish.min = strtoul(word + 4, NULL, 10);
    else if (strncmp(word, "bits=", 5) == 0)
        wish.deflate.server_bits = wish.deflate.client_bits = (uint8_t)strtoul(word + 5, NULL, 10);
    else if (strcmp(word, "plain") == 0)
        wish.deflate.on = false;
    else if (strcmp(word, "no_context") == 0)
        wish.deflate.server_no_context = wish.deflate.client_no_context = true;
    else if (strcmp(word, "print") == 0)
        wish.print = true;
    else if (strcmp(word, "greet") == 0)
        wish.greet = true;
    else
        exit(2);
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool client = argc >= 4 && strcmp(argv[1], "client") == 0;
    if (fd < 0 || (!client && (argc < 2 || strcmp(argv[1], "server") != 0)))
        return 2;
    for (int i = client ? 4 : 2; i < argc; i++)
        read_option(argv[i]);
    if (!client)
        return run_server(fd, &address);
    address.sin_port = htons((uint16_t)strtoul(argv[2], NULL, 10));
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        return 1;
    struct peer *peer = new_peer(fd);
    int status = ask(peer, argv[2], argv[3]);
    free_peer(peer);
    return status;
}
