/* tls.h - TLS as a filter: bytes from the peer go in, bytes for the peer come out, and plain bytes on the other side.
 *
 * It knows no socket, no loop and no time. OpenSSL's queue of errors belongs to the thread that happens to run the
 * loop, which may be a thread of the program: every function here leaves it empty. */
#ifndef IOK_NET_TLS_H
#define IOK_NET_TLS_H

#include "net.h"

/* Bytes encrypted and not yet taken, above which no more are accepted: four records, about what a socket's buffer
 * takes at once. One record more can be pending at most. */
#define IOK_TLS_PENDING_MAX 65536u

#define IOK_TLS_ALPN_MAX 256u /* a protocol name is at most 255 bytes (RFC 7301 3.1); NUL included */

/* The slots tls_new, tls_serve and tls_free of struct iok_net_ops. */
struct iok_tls *iok_tls_new(const struct iok_tls_config *config, struct iok_error *err);
struct iok_tls *iok_tls_serve(const struct iok_tls_serve_config *config, struct iok_error *err);
void iok_tls_free(struct iok_tls *tls);

struct iok_tls_stream; /* one connection */

struct iok_tls_stream *iok_tls_stream_new(struct iok_tls *tls, struct iok_error *err);
/* The server's side of a connection; NULL when out of memory. */
struct iok_tls_stream *iok_tls_stream_accept(struct iok_tls *tls);
/* Sends nothing by itself; without iok_tls_stream_shutdown before, the session cannot be resumed. */
void iok_tls_stream_free(struct iok_tls_stream *stream);

/* Bytes from the peer. false when out of memory. */
bool iok_tls_stream_feed(struct iok_tls_stream *stream, const uint8_t *bytes, size_t n);
/* One step: 1 done, 0 more bytes needed, or IOK_ETLS with *err. There may be output in every case (an alert). */
int iok_tls_stream_handshake(struct iok_tls_stream *stream, struct iok_error *err);
/* After the handshake: the protocol chosen by ALPN, or "". */
void iok_tls_stream_alpn(const struct iok_tls_stream *stream, char at[IOK_TLS_ALPN_MAX]);

/* The slot binding of struct iok_net_ops; after the handshake. */
size_t iok_tls_stream_binding(const struct iok_tls_stream *stream, uint8_t at[IOK_BINDING_BYTES_MAX]);

/* Is something fed that was not read yet? If not, reading would give nothing. */
bool iok_tls_stream_buffered(const struct iok_tls_stream *stream);
/* Plain bytes from the peer: how many (0: more must be fed first), IOK_ECLOSED when the peer said that it closes, or
 * IOK_ETLS with *err. */
ptrdiff_t iok_tls_stream_read(struct iok_tls_stream *stream, uint8_t *at, size_t n, struct iok_error *err);
/* Encrypts what follows the first skip bytes, until IOK_TLS_PENDING_MAX bytes are pending: how many were accepted, or
 * IOK_ETLS with *err. */
ptrdiff_t iok_tls_stream_write(struct iok_tls_stream *stream, const struct iovec *vec, int n, size_t skip,
                               struct iok_error *err);
/* Appends close_notify, if the connection is in a state for it. */
void iok_tls_stream_shutdown(struct iok_tls_stream *stream);

/* Bytes for the peer, borrowed until the next call; then how many of them were sent. */
struct iok_span iok_tls_stream_peek(struct iok_tls_stream *stream);
void iok_tls_stream_take(struct iok_tls_stream *stream, size_t n);

#endif
