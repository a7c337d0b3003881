/* postgres_sql.c - what kind of statement a text of SQL is, by its first words.
 *
 * What it is not: a parser. A statement that changes its session from within (set_config, pg_advisory_lock, SELECT ...
 * INTO TEMP) is not seen here; docs/protocols/postgresql.md says so.
 *
 * Words are found as the server's scanner (src/backend/parser/scan.l) finds them: blanks, comments and empty statements
 * before them do not count. */
#include "postgres.h"

#define WORD_BYTES_MAX 16u

struct statement {
    const char *word;
    uint8_t flags;  /* enum iok_class_flags */
    uint8_t effect; /* enum pg_effect */
    const char *why;
};

static const char transaction_why[] = "a transaction needs a connection of its own: use a lease, or transaction()";
static const char session_why[] = "it would change the connection for everybody who shares it: use a lease";
static const char copy_why[] = "COPY needs a connection of its own: use copy_in(), copy_out(), or a lease";
static const char cursor_why[] = "a cursor lives in a transaction: use cursor(), transaction(), or a lease";
static const char temp_why[] = "a temporary relation belongs to one connection: use a lease";

#define LEASE IOK_CLASS_NEEDS_LEASE

static const struct statement statements[] = {
    {"ABORT", LEASE, 0, transaction_why},
    {"ALTER", 0, 0, NULL},
    {"ANALYZE", 0, 0, NULL},
    {"BEGIN", LEASE, 0, transaction_why},
    {"CALL", 0, 0, NULL},
    {"CHECKPOINT", 0, 0, NULL},
    {"CLOSE", LEASE, 0, transaction_why},
    {"CLUSTER", 0, 0, NULL},
    {"COMMENT", 0, 0, NULL},
    {"COMMIT", LEASE, 0, transaction_why},
    {"COPY", LEASE, 0, copy_why},
    {"CREATE", 0, 0, NULL},
    {"DEALLOCATE", LEASE, PG_EFFECT_STATEMENTS, session_why},
    {"DECLARE", LEASE, 0, transaction_why},
    {"DELETE", 0, 0, NULL},
    {"DISCARD", LEASE, PG_EFFECT_STATEMENTS, session_why},
    {"DO", 0, 0, NULL},
    {"DROP", 0, 0, NULL},
    {"END", LEASE, 0, transaction_why},
    {"EXECUTE", LEASE, 0, session_why},
    {"EXPLAIN", 0, 0, NULL},
    {"FETCH", LEASE, 0, transaction_why},
    {"GRANT", 0, 0, NULL},
    {"IMPORT", 0, 0, NULL},
    {"INSERT", 0, 0, NULL},
    {"LISTEN", LEASE | IOK_CLASS_STREAM, 0, "its messages need a connection of their own: use a lease"},
    {"LOAD", LEASE, PG_EFFECT_SESSION, session_why},
    {"LOCK", LEASE, 0, transaction_why},
    {"MERGE", 0, 0, NULL},
    {"MOVE", LEASE, 0, transaction_why},
    {"NOTIFY", 0, 0, NULL},
    {"PREPARE", LEASE, PG_EFFECT_SESSION, session_why},
    {"REASSIGN", 0, 0, NULL},
    {"REFRESH", 0, 0, NULL},
    {"REINDEX", 0, 0, NULL},
    {"RELEASE", LEASE, 0, transaction_why},
    {"RESET", LEASE, 0, session_why},
    {"REVOKE", 0, 0, NULL},
    {"ROLLBACK", LEASE, 0, transaction_why},
    {"SAVEPOINT", LEASE, 0, transaction_why},
    {"SECURITY", 0, 0, NULL},
    {"SELECT", 0, 0, NULL},
    {"SET", LEASE, 0, session_why},
    {"SHOW", 0, 0, NULL},
    {"START", LEASE, 0, transaction_why},
    {"TABLE", 0, 0, NULL},
    {"TRUNCATE", 0, 0, NULL},
    {"UNLISTEN", LEASE, 0, session_why},
    {"UPDATE", 0, 0, NULL},
    {"VACUUM", 0, 0, NULL},
    {"VALUES", 0, 0, NULL},
    {"WITH", 0, 0, NULL},
};

/* ---- words ---------------------------------------------------------------------------------------------------- */

static bool is_blank(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool starts(struct iok_span sql, const char *two)
{
    return sql.n >= 2 && sql.p[0] == (uint8_t)two[0] && sql.p[1] == (uint8_t)two[1];
}

/* Comments of this kind nest. */
static struct iok_span skip_block_comment(struct iok_span sql)
{
    size_t depth = 0;
    do {
        size_t n = 1;
        if (starts(sql, "/*")) {
            depth++;
            n = 2;
        } else if (starts(sql, "*/")) {
            depth--;
            n = 2;
        }
        sql = iok_span_skip(sql, n);
    } while (depth > 0 && sql.n > 0);
    return sql;
}

static struct iok_span skip_blanks(struct iok_span sql)
{
    while (sql.n > 0) {
        if (is_blank(sql.p[0])) {
            sql = iok_span_skip(sql, 1);
        } else if (starts(sql, "--")) {
            while (sql.n > 0 && sql.p[0] != '\n' && sql.p[0] != '\r')
                sql = iok_span_skip(sql, 1);
        } else if (starts(sql, "/*")) {
            sql = skip_block_comment(sql);
        } else {
            break;
        }
    }
    return sql;
}

static bool is_letter(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* The next word of letters and underscores, which is taken; n 0 if none is next. */
static struct iok_span take_word(struct iok_span *sql)
{
    size_t n = 0;
    *sql = skip_blanks(*sql);
    while (n < sql->n && (is_letter(sql->p[n]) || sql->p[n] == '_'))
        n++;
    struct iok_span word = iok_span(sql->p, n);
    *sql = iok_span_skip(*sql, n);
    return word;
}

/* Its first word; *rest is what follows it. NULL if it is none of the list. */
static const struct statement *find(struct iok_span sql, struct iok_span *rest)
{
    sql = skip_blanks(sql);
    while (sql.n > 0 && (sql.p[0] == ';' || sql.p[0] == '('))
        sql = skip_blanks(iok_span_skip(sql, 1));
    struct iok_span word = take_word(&sql);
    *rest = sql;
    size_t low = 0, high = sizeof(statements) / sizeof(*statements);
    if (word.n == 0 || word.n > WORD_BYTES_MAX)
        return NULL;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const char *name = statements[middle].word;
        int order = 0;
        for (size_t i = 0; i <= word.n && order == 0; i++)
            order = (i < word.n ? word.p[i] & ~0x20 : 0) - name[i];
        if (order == 0)
            return &statements[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* After CREATE: [OR REPLACE] [GLOBAL | LOCAL] TEMP */
static bool is_temporary(struct iok_span rest)
{
    for (;;) {
        struct iok_span word = take_word(&rest);
        if (iok_span_eq_nocase(word, "TEMP") || iok_span_eq_nocase(word, "TEMPORARY"))
            return true;
        if (!iok_span_eq_nocase(word, "OR") && !iok_span_eq_nocase(word, "REPLACE") &&
            !iok_span_eq_nocase(word, "GLOBAL") && !iok_span_eq_nocase(word, "LOCAL"))
            return false;
    }
}

/* ---- the slots ------------------------------------------------------------------------------------------------ */

struct iok_span pg_sql_of(const struct iok_token *args, size_t n)
{
    size_t at = n > 0 && args->type == IOK_ARRAY ? iok_tape_skip(args, n, 0) : 0;
    bool text = at < n && (args[at].type == IOK_TEXT || args[at].type == IOK_BYTES);
    return text ? iok_token_span(&args[at]) : iok_span(NULL, 0);
}

bool pg_describes(const struct iok_token *args, size_t n)
{
    return n >= PG_DESCRIBE_TOKENS && args->type == IOK_ARRAY && args->len == 1 && args[1].type == IOK_TEXT &&
           iok_span_eq(iok_token_span(&args[1]), iok_span_of("describe"));
}

bool pg_sql_is_copy(struct iok_span sql)
{
    struct iok_span rest;
    const struct statement *statement = find(sql, &rest);
    return statement != NULL && strcmp(statement->word, "COPY") == 0;
}

unsigned pg_sql_effect(struct iok_span sql)
{
    struct iok_span rest;
    const struct statement *statement = find(sql, &rest);
    return statement == NULL ? PG_EFFECT_NONE : statement->effect;
}

void pg_classify(const struct iok_token *args, size_t n, struct iok_class *out)
{
    struct iok_span rest;
    const struct statement *statement = find(pg_sql_of(args, n), &rest);
    /* Any statement may call a function that leaves something behind in its session. */
    *out = (struct iok_class){.flags = IOK_CLASS_DIRTY};
    if (pg_describes(args, n))
        return; /* whatever it is, it does not run */
    if (n > 0 && args->type == IOK_ARRAY) {
        out->flags |= IOK_CLASS_NEEDS_LEASE;
        out->why = cursor_why;
        return;
    }
    if (statement == NULL)
        return;
    out->flags |= statement->flags;
    out->why = statement->why;
    if (strcmp(statement->word, "CREATE") == 0 && is_temporary(rest)) {
        out->flags |= IOK_CLASS_NEEDS_LEASE;
        out->why = temp_why;
    }
}

/* The first word, if it is one of SQL's: everything else may be a value. */
size_t pg_describe(const struct iok_token *args, size_t n, char *at, size_t cap)
{
    struct iok_span rest;
    const struct statement *statement = find(pg_sql_of(args, n), &rest);
    const char *word = statement == NULL ? "query" : statement->word;
    size_t length = strlen(word) < cap ? strlen(word) : cap;
    memcpy(at, word, length);
    return length;
}
