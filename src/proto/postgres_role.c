/* postgres_role.c - which hosts a URL wishes for, and what a server is: a primary, a standby, read-only.
 *
 * PostgreSQL 14 and later report in_hot_standby and default_transaction_read_only ([PG] "Asynchronous Operations"): at
 * sign-in, and before the next ReadyForQuery when they change, as at a promotion. Others, and poolers that do not pass
 * this on, are asked by a query at sign-in. The host asks no further: a connection in doubt is replaced by a new one.
 *
 * https://www.postgresql.org/docs/current/libpq-connect.html, "target_session_attrs", "load_balance_hosts" */
#include "postgres.h"

const char pg_role_query[] = "SELECT pg_catalog.pg_is_in_recovery()::pg_catalog.text,"
                             "pg_catalog.current_setting('default_transaction_read_only')";

static uint32_t role_of(const struct pg_role *role)
{
    return IOK_ROLE_KNOWN | (role->standby ? IOK_ROLE_STANDBY : 0u) | (role->read_only ? IOK_ROLE_READ_ONLY : 0u);
}

void pg_role_status(struct pg_role *role, struct iok_io *io, struct iok_span body)
{
    struct iok_span name, value;
    if (!pg_take_cstring(&body, &name) || !pg_take_cstring(&body, &value))
        return;
    bool on = iok_span_eq(value, iok_span_of("on"));
    if (iok_span_eq(name, iok_span_of("in_hot_standby"))) {
        role->reported = true;
        role->standby = on;
    } else if (iok_span_eq(name, iok_span_of("default_transaction_read_only"))) {
        role->read_only = on;
    } else {
        return;
    }
    if (role->reported && role->known)
        io->host->role(io, role_of(role));
}

void pg_role_told(struct pg_role *role, struct iok_io *io)
{
    role->known = true;
    io->host->role(io, role_of(role));
}

static bool take_value(struct iok_span *from, struct iok_span *value)
{
    if (from->n < 4 || pg_u32(from->p) > from->n - 4)
        return false;
    *value = iok_span(from->p + 4, pg_u32(from->p));
    *from = iok_span_skip(*from, 4 + value->n);
    return true;
}

int pg_role_answer(struct pg_role *role, struct iok_io *io, struct iok_span body)
{
    struct iok_span standby, read_only, rest = iok_span_skip(body, body.n >= 2 ? 2 : 0);
    if (body.n < 2 || pg_u16(body.p) != 2 || !take_value(&rest, &standby) || !take_value(&rest, &read_only))
        return iok_io_fail(io, IOK_EPROTO, "an answer to the question for the server's role that is not well formed");
    role->standby = iok_span_eq(standby, iok_span_of("true"));
    role->read_only = iok_span_eq(read_only, iok_span_of("on"));
    return 0;
}

static int read_wish(const struct iok_url *url, enum iok_wish *wish, bool *shuffle, struct iok_error *err)
{
    static const char *const words[] = {"any", "primary", "standby", "prefer-standby", "read-write", "read-only"};
    struct iok_span value;
    size_t i = 0, n = sizeof(words) / sizeof(*words);
    if (iok_url_option(url, "target_session_attrs", &value)) {
        while (i < n && !iok_span_eq(value, iok_span_of(words[i])))
            i++;
        if (i == n)
            return iok_err(
                err, IOK_EOPTION,
                "target_session_attrs= takes any, primary, standby, prefer-standby, read-write or read-only");
        *wish = (enum iok_wish)i;
    }
    if (!iok_url_option(url, "load_balance_hosts", &value))
        return 0;
    *shuffle = iok_span_eq(value, iok_span_of("random"));
    return *shuffle || iok_span_eq(value, iok_span_of("disable"))
               ? 0
               : iok_err(err, IOK_EOPTION, "load_balance_hosts= takes disable or random");
}

const struct iok_proto_hosts pg_hosts = {
    .hosts_key = "host",
    .ports_key = "port",
    .socket = ".s.PGSQL.",
    .wish_key = "target_session_attrs",
    .prefer_standby = "prefer-standby",
    .wish = read_wish,
};
