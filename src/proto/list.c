/* list.c - the list of all codecs, and the look-up by URL scheme. A new codec is declared and listed here. */
#include "proto.h"

extern const struct iok_proto iok_proto_http1;
extern const struct iok_proto iok_proto_line;
extern const struct iok_proto iok_proto_postgres;
extern const struct iok_proto iok_proto_redis;

const struct iok_proto *const iok_protos[] = {
    &iok_proto_redis, &iok_proto_postgres, &iok_proto_http1, &iok_proto_line, NULL,
};

static bool names_hold(const char *const *names, struct iok_span scheme)
{
    for (; names != NULL && *names != NULL; names++)
        if (iok_span_eq(scheme, iok_span_of(*names)))
            return true;
    return false;
}

const struct iok_proto *iok_proto_find(struct iok_span scheme, bool *tls)
{
    for (const struct iok_proto *const *proto = iok_protos; *proto != NULL; proto++) {
        *tls = names_hold((*proto)->tls_schemes, scheme);
        if (*tls || names_hold((*proto)->schemes, scheme))
            return *proto;
    }
    return NULL;
}
