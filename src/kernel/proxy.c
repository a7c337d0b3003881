/* proxy.c - the PROXY protocol (haproxy's doc/proxy-protocol.txt, versions 1 and 2): who the client is, as a proxy tells it
 * in front of what the client sends; and which proxies are believed.
 *
 * Pure: bytes and addresses in, an address out. */
#include "../base/mem.h"
#include "serve.h"

#define IOK_V1_BYTES_MAX 108u /* 2.1: 107 with CR LF */
#define IOK_V2_HEAD_BYTES 16u
#define IOK_V2_BYTES_MAX 4096u /* what follows is addresses of at most 216 bytes, and a proxy's notes */
#define IOK_V2_TLS 0x20u       /* 2.2.6: PP2_TYPE_SSL; its first byte has bit 0 if the client came by TLS */

/* ---- who is believed -------------------------------------------------------------------------------------------- */

static bool read_net(struct iok_span text, struct iok_net_range *net)
{
    char host[64];
    const uint8_t *slash = memchr(text.p, '/', text.n);
    size_t n = slash != NULL ? (size_t)(slash - text.p) : text.n;
    struct iok_address address;
    int64_t bits, most;

    if (n == 0 || n >= sizeof(host)) {
        return false;
    }
    memcpy(host, text.p, n);
    host[n] = '\0';
    if (!iok_address_literal(host, 0, &address)) {
        return false;
    }
    net->family = address.any.sa_family;
    most = net->family == AF_INET ? 32 : 128;
    bits = most;
    if (slash != NULL && (!iok_span_i64(iok_span_skip(text, n + 1), &bits) || bits < 0 || bits > most)) {
        return false;
    }
    net->bits = (uint8_t)bits;
    if (net->family == AF_INET) {
        memcpy(net->ip, &address.v4.sin_addr, 4);
    } else {
        memcpy(net->ip, &address.v6.sin6_addr, 16);
    }
    return true;
}

int iok_proxy_read_nets(struct iok_listener_config *config, struct iok_span list, struct iok_error *err)
{
    while (list.n > 0) {
        const uint8_t *comma = memchr(list.p, ',', list.n);
        struct iok_span one = iok_span(list.p, comma != NULL ? (size_t)(comma - list.p) : list.n);

        if (config->n_proxies == IOK_PROXIES_MAX || !read_net(one, &config->proxies[config->n_proxies])) {
            return iok_err(
                err, IOK_EOPTION,
                "bad proxy_from=: expected at most %u addresses or networks such as 10.0.0.0/8, separated by "
                "commas",
                IOK_PROXIES_MAX);
        }
        config->n_proxies++;
        list = iok_span_skip(list, one.n + (comma != NULL));
    }
    return 0;
}

static bool in_net(const struct iok_peer *peer, const struct iok_net_range *net)
{
    uint32_t whole = net->bits / 8u, rest = net->bits % 8u;

    return peer->family == net->family && memcmp(peer->ip, net->ip, whole) == 0 &&
           (rest == 0 || (peer->ip[whole] ^ net->ip[whole]) >> (8u - rest) == 0);
}

bool iok_proxy_is_believed(const struct iok_listener_config *config, const struct iok_peer *peer)
{
    if (peer->family == AF_UNIX) {
        return true; /* whoever may open the socket's file */
    }
    for (uint32_t i = 0; i < config->n_proxies; i++) {
        if (in_net(peer, &config->proxies[i])) {
            return true;
        }
    }
    return false;
}

/* ---- what it says ----------------------------------------------------------------------------------------------- */

/* A proxy that forwards, and does not say for whom (UNKNOWN, AF_UNSPEC, AF_UNIX), leaves no client: were it the proxy, what
 * that client says of itself in X-Forwarded-For would be believed. */

static struct iok_span word(struct iok_span *rest)
{
    const uint8_t *blank = memchr(rest->p, ' ', rest->n);
    struct iok_span one = iok_span(rest->p, blank != NULL ? (size_t)(blank - rest->p) : rest->n);

    *rest = iok_span_skip(*rest, one.n + (blank != NULL));
    return one;
}

static bool set_address(struct iok_peer *peer, struct iok_span text, uint16_t family, int64_t port)
{
    char host[64];
    struct iok_address address;

    if (text.n == 0 || text.n >= sizeof(host)) {
        return false;
    }
    memcpy(host, text.p, text.n);
    host[text.n] = '\0';
    if (!iok_address_literal(host, 0, &address) || address.any.sa_family != family) {
        return false;
    }
    *peer = (struct iok_peer){.family = family, .port = (uint16_t)port};
    memcpy(peer->ip, family == AF_INET ? (const void *)&address.v4.sin_addr : &address.v6.sin6_addr,
           family == AF_INET ? 4 : 16);
    return true;
}

/* "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443" */
static bool read_line(struct iok_span line, struct iok_peer *peer)
{
    struct iok_span kind, from;
    int64_t port = 0, to = 0;

    (void)word(&line);
    kind = word(&line);
    if (iok_span_eq(kind, iok_span_of("UNKNOWN"))) {
        *peer = (struct iok_peer){0};
        return true;
    }
    from = word(&line);
    (void)word(&line);
    if (!iok_span_i64(word(&line), &port) || port < 0 || port > 65535 || !iok_span_i64(line, &to)) {
        return false;
    }
    return iok_span_eq(kind, iok_span_of("TCP4"))   ? set_address(peer, from, AF_INET, port)
           : iok_span_eq(kind, iok_span_of("TCP6")) ? set_address(peer, from, AF_INET6, port)
                                                    : false;
}

static ptrdiff_t read_v1(struct iok_span in, struct iok_peer *peer)
{
    ptrdiff_t end = iok_span_find_crlf(iok_span(in.p, in.n < IOK_V1_BYTES_MAX ? in.n : IOK_V1_BYTES_MAX));

    if (end < 0) {
        return in.n < IOK_V1_BYTES_MAX ? 0 : IOK_EPROTO;
    }
    return read_line(iok_span(in.p, (size_t)end), peer) ? end + 2 : IOK_EPROTO;
}

static uint16_t two(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static void read_notes(struct iok_span notes, bool *encrypted)
{
    while (notes.n >= 3) {
        size_t n = two(notes.p + 1);

        if (n > notes.n - 3) {
            return;
        }
        if (notes.p[0] == IOK_V2_TLS && n > 0) {
            *encrypted |= (notes.p[3] & 1) != 0;
        }
        notes = iok_span_skip(notes, n + 3);
    }
}

/* What stands behind the head: addresses, then notes. */
static ptrdiff_t read_v2(struct iok_span in, struct iok_peer *peer, bool *encrypted)
{
    size_t n, addresses;
    const uint8_t *at = in.p + IOK_V2_HEAD_BYTES;

    if (in.n < IOK_V2_HEAD_BYTES) {
        return 0;
    }
    n = two(in.p + 14);
    if (n > IOK_V2_BYTES_MAX || in.p[12] >> 4 != 2 || (in.p[12] & 15) > 1) {
        return IOK_EPROTO;
    }
    if (in.n - IOK_V2_HEAD_BYTES < n) {
        return 0;
    }
    addresses = in.p[13] == 0x11 ? 12 : in.p[13] == 0x21 ? 36 : in.p[13] == 0x31 ? 216 : 0;
    if ((in.p[12] & 15) == 0) { /* LOCAL: the proxy's own, such as its health checks */
        return (ptrdiff_t)(IOK_V2_HEAD_BYTES + n);
    }
    if (addresses > n) {
        return IOK_EPROTO;
    }
    *peer = (struct iok_peer){0};
    if (in.p[13] == 0x11) {
        *peer = (struct iok_peer){.family = AF_INET, .port = two(at + 8)};
        memcpy(peer->ip, at, 4);
    } else if (in.p[13] == 0x21) {
        *peer = (struct iok_peer){.family = AF_INET6, .port = two(at + 32)};
        memcpy(peer->ip, at, 16);
    }
    read_notes(iok_span(at + addresses, n - addresses), encrypted);
    return (ptrdiff_t)(IOK_V2_HEAD_BYTES + n);
}

ptrdiff_t iok_proxy_read(struct iok_span in, struct iok_peer *peer, bool *encrypted)
{
    static const uint8_t v2[] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};
    static const uint8_t v1[] = {'P', 'R', 'O', 'X', 'Y', ' '};

    if (in.n > 0 && memcmp(in.p, v2, in.n < sizeof(v2) ? in.n : sizeof(v2)) == 0) {
        return in.n < sizeof(v2) ? 0 : read_v2(in, peer, encrypted);
    }
    if (in.n > 0 && memcmp(in.p, v1, in.n < sizeof(v1) ? in.n : sizeof(v1)) == 0) {
        return in.n < sizeof(v1) ? 0 : read_v1(in, peer);
    }
    return in.n == 0 ? 0 : IOK_EPROTO;
}
