/* net.c - addresses: texts, literals, paths. No look-ups, no sockets. */
#include "net.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

/* Where the path begins in a sockaddr_un; its length is counted from there. */
#define PATH_OFFSET ((socklen_t)offsetof(struct sockaddr_un, sun_path))

static void local_text(const struct iok_address *address, char at[IOK_ADDRESS_TEXT_MAX])
{
    const char *path = address->local.sun_path;
    size_t n = address->len > PATH_OFFSET ? address->len - PATH_OFFSET : 0;

    if (n > 0 && path[0] == '\0') {
        /* unix(7): abstract names may hold any byte; people see the usual '@' and the rest as it is. */
        snprintf(at, IOK_ADDRESS_TEXT_MAX, "@%.*s", (int)(n - 1), path + 1);
    } else {
        snprintf(at, IOK_ADDRESS_TEXT_MAX, "%.*s", (int)n, path);
    }
}

static char *put_number(char *at, unsigned value)
{
    char digits[10];
    size_t n = 0;

    do {
        digits[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    while (n != 0) {
        *at++ = digits[--n];
    }
    return at;
}

/* By hand: a server says it of each request. */
static void v4_text(const struct sockaddr_in *v4, char *at)
{
    uint8_t ip[4];

    memcpy(ip, &v4->sin_addr, sizeof(ip));
    for (size_t i = 0; i < sizeof(ip); i++) {
        at = put_number(at, ip[i]);
        *at++ = i + 1 < sizeof(ip) ? '.' : ':';
    }
    *put_number(at, ntohs(v4->sin_port)) = '\0';
}

static void v6_text(const struct sockaddr_in6 *v6, char at[IOK_ADDRESS_TEXT_MAX])
{
    char host[INET6_ADDRSTRLEN];
    char scope[IF_NAMESIZE + 1] = "";

    inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
    if (v6->sin6_scope_id != 0) {
        scope[0] = '%';
        if (if_indextoname(v6->sin6_scope_id, scope + 1) == NULL) {
            snprintf(scope + 1, sizeof(scope) - 1, "%u", v6->sin6_scope_id);
        }
    }
    snprintf(at, IOK_ADDRESS_TEXT_MAX, "[%s%s]:%u", host, scope, ntohs(v6->sin6_port));
}

const char *iok_address_text(const struct iok_address *address, char at[IOK_ADDRESS_TEXT_MAX])
{
    switch (address->any.sa_family) {
    case AF_INET:
        v4_text(&address->v4, at);
        break;
    case AF_INET6:
        v6_text(&address->v6, at);
        break;
    case AF_UNIX:
        local_text(address, at);
        break;
    default:
        snprintf(at, IOK_ADDRESS_TEXT_MAX, "address family %u", address->any.sa_family);
        break;
    }
    return at;
}

/* RFC 4007 11.2: an interface's name or its number. 0 if it is neither. */
static uint32_t scope_id(const char *text)
{
    uint32_t id = if_nametoindex(text);
    int64_t number = 0;

    if (id == 0 && iok_span_i64(iok_span_of(text), &number) && number > 0 && number <= UINT32_MAX) {
        id = (uint32_t)number;
    }
    return id;
}

static bool v6_literal(const char *text, struct sockaddr_in6 *v6)
{
    char host[INET6_ADDRSTRLEN];
    const char *percent = strchr(text, '%');
    size_t n = percent != NULL ? (size_t)(percent - text) : strlen(text);

    if (n >= sizeof(host)) {
        return false;
    }
    memcpy(host, text, n);
    host[n] = '\0';
    if (inet_pton(AF_INET6, host, &v6->sin6_addr) != 1) {
        return false;
    }
    v6->sin6_scope_id = percent != NULL ? scope_id(percent + 1) : 0;
    return percent == NULL || v6->sin6_scope_id != 0;
}

bool iok_address_literal(const char *text, uint16_t port, struct iok_address *out)
{
    struct iok_address address;

    memset(&address, 0, sizeof(address));
    if (inet_pton(AF_INET, text, &address.v4.sin_addr) == 1) {
        address.v4.sin_family = AF_INET;
        address.v4.sin_port = htons(port);
        address.len = sizeof(address.v4);
    } else if (v6_literal(text, &address.v6)) {
        address.v6.sin6_family = AF_INET6;
        address.v6.sin6_port = htons(port);
        address.len = sizeof(address.v6);
    } else {
        return false;
    }
    *out = address;
    return true;
}

bool iok_address_unix(struct iok_span path, struct iok_address *out)
{
    bool abstract = path.n > 0 && path.p[0] == '@';
    /* A path ends with a NUL, which an abstract name does not need. */
    size_t max = sizeof(out->local.sun_path) - (abstract ? 0 : 1);

    if (path.n == 0 || path.n > max || memchr(path.p, '\0', path.n) != NULL) {
        return false;
    }
    memset(out, 0, sizeof(*out));
    out->local.sun_family = AF_UNIX;
    memcpy(out->local.sun_path, path.p, path.n);
    if (abstract) {
        out->local.sun_path[0] = '\0';
    }
    out->len = PATH_OFFSET + (socklen_t)(path.n + (abstract ? 0 : 1));
    return true;
}
