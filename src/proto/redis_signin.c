/* redis_signin.c - how a connection to Redis becomes ready: HELLO, AUTH, SELECT, and names for the server's lists.
 *
 * All steps of a round are written at once, so signing in costs one round trip:
 *
 *     [RESET] HELLO 3 [AUTH user password] [SETNAME name]   [SELECT n]  CLIENT SETINFO LIB-NAME, LIB-VER
 *     [RESET] AUTH [user] password, or PING  [CLIENT SETNAME name]  [SELECT n]  CLIENT SETINFO ...    with protocol=2
 *
 * Servers before Redis 6 do not know HELLO, and some proxies speak RESP2 only; then the rest of the round was futile,
 * and a round of the second kind follows.
 *
 * Invariants: steps are answered in their order; a connection is never called ready with another user or another
 * database than the URL's; no error text repeats the password, whatever the server says. */
#include "redis.h"

/* The server keeps a database number in an int. */
#define DATABASE_MAX INT32_MAX
/* Far more than a person types, and less than what a server without a signed-in user accepts (16 KiB, networking.c). */
#define CLIENT_NAME_MAX 256u
/* Of the server's error text in ours. */
#define SHOWN_MAX 120u

/* ---- options -------------------------------------------------------------------------------------------------- */

struct redis_wishes {
    uint64_t protocol;
    uint64_t database;
    struct iok_span name; /* n 0 if none */
};

static int read_path(const struct iok_url *url, uint64_t *database, struct iok_error *err)
{
    int64_t number;
    if (url->unix_socket || url->path.n == 0)
        return 0;
    if (!iok_span_i64(url->path, &number) || number < 0 || number > DATABASE_MAX)
        return iok_err(err, IOK_EURL, "the path of a redis URL is a database number, as in redis://host/0");
    *database = (uint64_t)number;
    return 0;
}

/* As validateClientName of networking.c: printable and without blanks. */
static bool is_client_name(struct iok_span name)
{
    if (name.n == 0 || name.n > CLIENT_NAME_MAX)
        return false;
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] < '!' || name.p[i] > '~')
            return false;
    return true;
}

static int read_wishes(const struct iok_url *url, struct redis_wishes *wishes, struct iok_error *err)
{
    struct iok_span ignored;
    *wishes = (struct redis_wishes){.protocol = 3};
    int rc = read_path(url, &wishes->database, err);
    if (rc == 0 && iok_url_option(url, "db", &ignored)) {
        if (!url->unix_socket && url->path.n > 0)
            return iok_err(err, IOK_EOPTION, "the database is given twice, by the path and by db=");
        rc = iok_url_option_u64(url, "db", 0, DATABASE_MAX, &wishes->database, err);
    }
    if (rc == 0)
        rc = iok_url_option_u64(url, "protocol", 2, 3, &wishes->protocol, err);
    if (rc == 0 && iok_url_option(url, "client_name", &wishes->name) && !is_client_name(wishes->name))
        return iok_err(err, IOK_EOPTION, "client_name= takes 1 to %u printable ASCII characters without blanks",
                       CLIENT_NAME_MAX);
    return rc;
}

int redis_check(const struct iok_url *url, struct iok_error *err)
{
    struct redis_wishes wishes;
    return read_wishes(url, &wishes, err);
}

/* ---- writing a round ------------------------------------------------------------------------------------------ */

static void put_step(struct redis_signin *signin, struct iok_io *io, enum redis_step step, const struct iok_span *args,
                     size_t n)
{
    redis_put_command(io->out, args, n);
    signin->steps[signin->n++] = (uint8_t)step;
}

static bool has_credentials(const struct iok_url *url)
{
    return url->password.n > 0 || url->user.n > 0;
}

/* The user that AUTH without a name means, since Redis 6. */
static struct iok_span user_of(const struct iok_url *url)
{
    return url->user.n > 0 ? url->user : iok_span_of("default");
}

/* https://redis.io/docs/latest/commands/hello */
static void put_hello(struct redis_signin *signin, struct iok_io *io, const struct redis_wishes *wishes)
{
    struct iok_span args[7] = {iok_span_of("HELLO"), iok_span_of("3")};
    size_t n = 2;
    if (has_credentials(io->url)) {
        args[n++] = iok_span_of("AUTH");
        args[n++] = user_of(io->url);
        args[n++] = io->url->password;
    }
    if (wishes->name.n > 0) {
        args[n++] = iok_span_of("SETNAME");
        args[n++] = wishes->name;
    }
    put_step(signin, io, REDIS_STEP_HELLO, args, n);
}

/* Servers before Redis 6 take the password only, and it means the default user ever since. */
static void put_auth(struct redis_signin *signin, struct iok_io *io, const struct redis_wishes *wishes)
{
    if (has_credentials(io->url)) {
        struct iok_span args[3] = {iok_span_of("AUTH")};
        size_t n = 1;
        if (!iok_span_eq(user_of(io->url), iok_span_of("default")))
            args[n++] = io->url->user;
        args[n++] = io->url->password;
        put_step(signin, io, REDIS_STEP_AUTH, args, n);
    } else {
        /* Shows whether the server wants a password: before 7.2 none of the other steps may do so. */
        put_step(signin, io, REDIS_STEP_OPTIONAL, &(struct iok_span){(const uint8_t *)"PING", 4}, 1);
    }
    if (wishes->name.n > 0) {
        struct iok_span args[3] = {iok_span_of("CLIENT"), iok_span_of("SETNAME"), wishes->name};
        put_step(signin, io, REDIS_STEP_OPTIONAL, args, 3);
    }
}

static void put_library(struct redis_signin *signin, struct iok_io *io, const char *key, const char *value)
{
    struct iok_span args[4] = {iok_span_of("CLIENT"), iok_span_of("SETINFO"), iok_span_of(key), iok_span_of(value)};
    put_step(signin, io, REDIS_STEP_OPTIONAL, args, 4);
}

/* A new connection is on database 0 already, and so is one after RESET. */
static void put_select(struct redis_signin *signin, struct iok_io *io, const struct redis_wishes *wishes)
{
    char number[24];
    if (wishes->database == 0)
        return;
    size_t n = iok_format_i64(number, (int64_t)wishes->database);
    struct iok_span args[2] = {iok_span_of("SELECT"), iok_span(number, n)};
    put_step(signin, io, REDIS_STEP_SELECT, args, 2);
}

static int write_round(struct redis_signin *signin, struct iok_io *io, bool reset, bool hello)
{
    struct redis_wishes wishes;
    int rc = read_wishes(io->url, &wishes, &io->err);
    if (rc < 0)
        return rc;
    *signin = (struct redis_signin){0};
    if (reset)
        put_step(signin, io, REDIS_STEP_RESET, &(struct iok_span){(const uint8_t *)"RESET", 5}, 1);
    if (hello && wishes.protocol == 3)
        put_hello(signin, io, &wishes);
    else
        put_auth(signin, io, &wishes);
    put_select(signin, io, &wishes);
    put_library(signin, io, "LIB-NAME", "iokernel");
    put_library(signin, io, "LIB-VER", iok_version());
    return io->out->error != 0 ? iok_io_fail(io, IOK_ENOMEM, "out of memory for the sign-in") : 0;
}

int redis_signin_start(struct redis_signin *signin, struct iok_io *io, bool reset)
{
    return write_round(signin, io, reset, true);
}

/* ---- reading its answers -------------------------------------------------------------------------------------- */

static bool starts_with(struct iok_span text, const char *start)
{
    size_t n = strlen(start);
    return text.n >= n && memcmp(text.p, start, n) == 0;
}

/* The server's own words, for our error text: printable, cut, and withheld if they repeat the password (servers before
 * Redis 7 quote the arguments of a command that they do not know). */
static const char *shown(const struct iok_url *url, struct iok_span text, char *at)
{
    if (url->password.n > 0 && text.n > 0 && memmem(text.p, text.n, url->password.p, url->password.n) != NULL)
        return "(its text is withheld, as it repeats the password)";
    size_t n = text.n < SHOWN_MAX ? text.n : SHOWN_MAX;
    for (size_t i = 0; i < n; i++)
        at[i] = text.p[i] >= ' ' && text.p[i] <= '~' ? (char)text.p[i] : '?';
    at[n] = '\0';
    return at;
}

static int refused(struct iok_io *io, enum redis_step step, struct iok_span text)
{
    char at[SHOWN_MAX + 1];
    const char *words = shown(io->url, text, at);
    if (starts_with(text, "ERR max number of clients"))
        return iok_io_fail(io, IOK_ECONNECT, "the server has no room for another connection: %s", words);
    /* Every server accepts all steps in these states (command flags "loading", "stale"); some proxies do not. */
    if (starts_with(text, "LOADING ") || starts_with(text, "MASTERDOWN "))
        return iok_io_fail(io, IOK_ECONNECT, "the server is not ready: %s", words);
    if (step == REDIS_STEP_SELECT && starts_with(text, "ERR "))
        return iok_io_fail(io, IOK_EOPTION, "the URL's database was refused: %s", words);
    if (step == REDIS_STEP_RESET)
        return iok_io_fail(io, IOK_ESTATE, "the connection cannot be made clean again (RESET needs Redis 6.2): %s",
                           words);
    return iok_io_fail(io, IOK_EAUTH, "sign-in refused: %s", words);
}

/* Both answers to HELLO come before the server has looked at the rest of it. */
static bool lacks_hello(struct iok_span text)
{
    return starts_with(text, "ERR unknown command") || starts_with(text, "NOPROTO");
}

static int step_failed(struct redis_signin *signin, struct iok_io *io, enum redis_step step, struct iok_span text)
{
    if (signin->without_hello)
        return 0; /* follows from the failed HELLO */
    if (step == REDIS_STEP_HELLO && lacks_hello(text)) {
        signin->without_hello = true;
        return 0;
    }
    /* Without a needed password even these say so, and then nothing else would work. */
    if (step == REDIS_STEP_OPTIONAL && !starts_with(text, "NOAUTH") && !starts_with(text, "ERR max number of clients"))
        return 0;
    return refused(io, step, text);
}

int redis_signin_answer(struct redis_signin *signin, struct iok_io *io, const struct iok_span *error, uint8_t *protocol)
{
    enum redis_step step = redis_signin_step(signin);
    signin->next++;
    if (error != NULL) {
        int rc = step_failed(signin, io, step, *error);
        if (rc < 0)
            return rc;
    } else if (step == REDIS_STEP_HELLO) {
        *protocol = 3;
    }
    if (redis_signin_waits(signin))
        return 0;
    return signin->without_hello ? write_round(signin, io, false, false) : 1;
}
