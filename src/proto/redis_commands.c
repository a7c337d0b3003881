/* redis_commands.c - what the codec knows of single Redis and Valkey commands: which may be repeated, which block or
 * change their connection, and which error codes say that a command did not run.
 *
 * It is no list of all commands: one that is not named here is plain, which means shareable and not repeatable. It
 * looks at no reply but errors, and keeps no state, so it may be used on any thread.
 *
 * Invariants: a command is repeatable only if it changes nothing on any server version and its answer does not hang on
 * chance; anything that changes the connection's state, or how its answers are counted, needs a lease or is forbidden.
 *
 * Sources: the commands.json metadata of Redis 7.0 to 8.2 and Valkey 8.1 (flags "readonly", "blocking"), the modules
 * that are part of Redis 8, and redis.io/docs/latest/develop/reference/protocol-spec. */
#include "redis.h"

#define NAME_MAX_BYTES 32u /* the longest name below has 20; a longer one is not listed */

#define ENTRY(name, ...)                                                                                               \
    {                                                                                                                  \
        name, sizeof(name) - 1, __VA_ARGS__                                                                            \
    }
#define PLAIN(name) ENTRY(name, 0, 0, 0, NULL, false, NULL)
#define READ(name) ENTRY(name, IOK_CLASS_REPEATABLE, 0, 0, NULL, false, NULL)
#define SCRIPT(name) ENTRY(name, 0, REDIS_SCRIPT, 0, NULL, false, NULL)
#define CONTAINER(name, sub) ENTRY(name, 0, 0, 0, sub, true, NULL)
#define READ_CONTAINER(name) ENTRY(name, IOK_CLASS_REPEATABLE, 0, 0, NULL, true, NULL)
#define BLOCKING(name, block) ENTRY(name, IOK_CLASS_AUTO_LEASE, 0, block, NULL, false, NULL)
#define LEASE(name, kind, why) ENTRY(name, IOK_CLASS_NEEDS_LEASE | IOK_CLASS_DIRTY, kind, 0, NULL, false, why)
#define STREAM(name, kind, why)                                                                                        \
    ENTRY(name, IOK_CLASS_NEEDS_LEASE | IOK_CLASS_STREAM | IOK_CLASS_DIRTY, kind, 0, NULL, false, why)
#define FORBIDDEN(name, why) ENTRY(name, IOK_CLASS_FORBIDDEN, 0, 0, NULL, false, why)
#define END                                                                                                            \
    {                                                                                                                  \
        NULL, 0, 0, 0, 0, NULL, false, NULL                                                                            \
    }

#define WHY_TRANSACTION "a transaction belongs to one connection: send it on a lease"
#define WHY_STATE "changes the state of its connection, which others share: send it on a lease"
#define WHY_SELECT                                                                                                     \
    "changes the database of a connection that others share: name it in the URL (redis://host/1), or use a lease"
#define WHY_AUTH "changes the user of a connection that others share: name the user in the URL, or use a lease"
#define WHY_SUBSCRIBE "is answered by messages without end: subscribe on a lease"
#define WHY_WAIT "waits for the earlier writes of its own connection: send it and them on one lease"
#define WHY_REPLICATION "turns the connection into a replication stream, which has no replies"

/* ---- subcommands; those that are not listed are as their container ------------------------------------------- */

static const struct redis_command acl_sub[] = {
    READ("CAT"), READ("DRYRUN"), READ("GETUSER"), READ("HELP"), READ("LIST"), READ("USERS"), READ("WHOAMI"), END,
};

/* "CLIENT REPLY ON" is the one that leaves the counting of answers alone. */
static const struct redis_command client_reply_sub[] = {
    FORBIDDEN("OFF", "CLIENT REPLY OFF suppresses answers, so that no later one could be told apart; use pipelining"),
    FORBIDDEN("SKIP", "CLIENT REPLY SKIP suppresses an answer, so that no later one could be told apart"),
    END,
};

static const struct redis_command client_sub[] = {
    READ("GETNAME"),
    READ("GETREDIR"),
    READ("HELP"),
    READ("ID"),
    READ("INFO"),
    READ("LIST"),
    READ("TRACKINGINFO"),
    LEASE("CACHING", 0, WHY_STATE),
    LEASE("CAPA", 0, WHY_STATE),
    LEASE("IMPORT-SOURCE", 0, WHY_STATE),
    LEASE("NO-EVICT", 0, WHY_STATE),
    LEASE("NO-TOUCH", 0, WHY_STATE),
    ENTRY("REPLY", IOK_CLASS_NEEDS_LEASE | IOK_CLASS_DIRTY, 0, 0, client_reply_sub, true, WHY_STATE),
    LEASE("SETINFO", 0, WHY_STATE),
    LEASE("SETNAME", 0, "changes the name of a connection that others share: use client_name= in the URL, or a lease"),
    LEASE("TRACKING", 0, "its invalidation messages go to this connection: send it on a lease"),
    END,
};

static const struct redis_command cluster_sub[] = {
    READ("COUNT-FAILURE-REPORTS"),
    READ("COUNTKEYSINSLOT"),
    READ("GETKEYSINSLOT"),
    READ("HELP"),
    READ("INFO"),
    READ("KEYSLOT"),
    READ("LINKS"),
    READ("MYID"),
    READ("MYSHARDID"),
    READ("NODES"),
    READ("REPLICAS"),
    READ("SHARDS"),
    READ("SLAVES"),
    READ("SLOTS"),
    READ("SLOT-STATS"),
    END,
};

static const struct redis_command config_sub[] = {READ("GET"), READ("HELP"), END};
static const struct redis_command function_sub[] = {READ("DUMP"), READ("HELP"), READ("LIST"), READ("STATS"), END};
static const struct redis_command latency_sub[] = {
    READ("DOCTOR"), READ("GRAPH"), READ("HELP"), READ("HISTOGRAM"), READ("HISTORY"), READ("LATEST"), END,
};
static const struct redis_command memory_sub[] = {
    READ("DOCTOR"), READ("HELP"), READ("MALLOC-STATS"), READ("STATS"), READ("USAGE"), END,
};
static const struct redis_command module_sub[] = {READ("HELP"), READ("LIST"), END};
static const struct redis_command script_sub[] = {
    READ("EXISTS"),
    READ("HELP"),
    READ("SHOW"),
    LEASE("DEBUG", 0, "its session takes over the connection: send it on a lease"),
    END,
};
static const struct redis_command sentinel_sub[] = {
    READ("CKQUORUM"),
    READ("GET-MASTER-ADDR-BY-NAME"),
    READ("GET-PRIMARY-ADDR-BY-NAME"),
    READ("HELP"),
    READ("INFO-CACHE"),
    READ("MASTER"),
    READ("MASTERS"),
    READ("MYID"),
    READ("PRIMARIES"),
    READ("PRIMARY"),
    READ("REPLICAS"),
    READ("SENTINELS"),
    READ("SLAVES"),
    END,
};
static const struct redis_command slowlog_sub[] = {READ("GET"), READ("HELP"), READ("LEN"), END};

/* ---- commands by first letter; the commonest first, as a list is searched from its head ----------------------- */

static const struct redis_command with_a[] = {
    PLAIN("APPEND"), CONTAINER("ACL", acl_sub), LEASE("ASKING", 0, WHY_STATE), LEASE("AUTH", 0, WHY_AUTH), END,
};

static const struct redis_command with_b[] = {
    READ("BITCOUNT"),
    READ("BITFIELD_RO"),
    READ("BITPOS"),
    BLOCKING("BLPOP", REDIS_BLOCK_LAST_S),
    BLOCKING("BRPOP", REDIS_BLOCK_LAST_S),
    BLOCKING("BLMOVE", REDIS_BLOCK_LAST_S),
    BLOCKING("BRPOPLPUSH", REDIS_BLOCK_LAST_S),
    BLOCKING("BZPOPMIN", REDIS_BLOCK_LAST_S),
    BLOCKING("BZPOPMAX", REDIS_BLOCK_LAST_S),
    BLOCKING("BLMPOP", REDIS_BLOCK_FIRST_S),
    BLOCKING("BZMPOP", REDIS_BLOCK_FIRST_S),
    READ("BF.CARD"),
    READ("BF.EXISTS"),
    READ("BF.INFO"),
    READ("BF.MEXISTS"),
    READ("BF.SCANDUMP"),
    END,
};

static const struct redis_command with_c[] = {
    CONTAINER("CLIENT", client_sub),
    CONTAINER("CLUSTER", cluster_sub),
    CONTAINER("CONFIG", config_sub),
    READ_CONTAINER("COMMAND"),
    READ("CF.COUNT"),
    READ("CF.EXISTS"),
    READ("CF.INFO"),
    READ("CF.MEXISTS"),
    READ("CF.SCANDUMP"),
    READ("CMS.INFO"),
    READ("CMS.QUERY"),
    END,
};

static const struct redis_command with_d[] = {
    PLAIN("DEL"),
    PLAIN("DECR"),
    READ("DBSIZE"),
    READ("DUMP"),
    READ("DIGEST"),
    CONTAINER("DEBUG", NULL),
    LEASE("DISCARD", REDIS_EXEC, WHY_TRANSACTION),
    END,
};

static const struct redis_command with_e[] = {
    READ("EXISTS"),
    PLAIN("EXPIRE"),
    SCRIPT("EVAL"),
    SCRIPT("EVALSHA"),
    LEASE("EXEC", REDIS_EXEC, WHY_TRANSACTION),
    READ("ECHO"),
    READ("EXPIRETIME"),
    ENTRY("EVAL_RO", IOK_CLASS_REPEATABLE, REDIS_SCRIPT, 0, NULL, false, NULL),
    ENTRY("EVALSHA_RO", IOK_CLASS_REPEATABLE, REDIS_SCRIPT, 0, NULL, false, NULL),
    END,
};

static const struct redis_command with_f[] = {
    SCRIPT("FCALL"),
    ENTRY("FCALL_RO", IOK_CLASS_REPEATABLE, REDIS_SCRIPT, 0, NULL, false, NULL),
    CONTAINER("FUNCTION", function_sub),
    READ("FT.SEARCH"),
    READ("FT.AGGREGATE"),
    READ("FT.DICTDUMP"),
    READ("FT.EXPLAIN"),
    READ("FT.EXPLAINCLI"),
    READ("FT.HYBRID"),
    READ("FT.INFO"),
    READ("FT.SPELLCHECK"),
    READ("FT.SUGGET"),
    READ("FT.SUGLEN"),
    READ("FT.SYNDUMP"),
    READ("FT.TAGVALS"),
    READ("FT._LIST"),
    END,
};

static const struct redis_command with_g[] = {
    READ("GET"),
    READ("GETRANGE"),
    READ("GETBIT"),
    READ("GEODIST"),
    READ("GEOHASH"),
    READ("GEOPOS"),
    READ("GEOSEARCH"),
    READ("GEORADIUS_RO"),
    READ("GEORADIUSBYMEMBER_RO"),
    END,
};

static const struct redis_command with_h[] = {
    READ("HGET"),
    PLAIN("HSET"),
    READ("HMGET"),
    READ("HGETALL"),
    READ("HEXISTS"),
    READ("HKEYS"),
    READ("HLEN"),
    READ("HSCAN"),
    READ("HSTRLEN"),
    READ("HVALS"),
    READ("HTTL"),
    READ("HPTTL"),
    READ("HEXPIRETIME"),
    READ("HPEXPIRETIME"),
    FORBIDDEN("HELLO", "signing in is the kernel's: put user, password and protocol= into the URL"),
    END,
};

static const struct redis_command with_i[] = {PLAIN("INCR"), READ("INFO"), END};

static const struct redis_command with_j[] = {
    READ("JSON.GET"),    READ("JSON.MGET"), READ("JSON.ARRINDEX"), READ("JSON.ARRLEN"), READ("JSON.OBJKEYS"),
    READ("JSON.OBJLEN"), READ("JSON.RESP"), READ("JSON.STRLEN"),   READ("JSON.TYPE"),   END,
};

static const struct redis_command with_k[] = {READ("KEYS"), END};

static const struct redis_command with_l[] = {
    PLAIN("LPUSH"),
    READ("LRANGE"),
    READ("LLEN"),
    READ("LINDEX"),
    READ("LPOS"),
    READ("LCS"),
    READ("LASTSAVE"),
    READ("LOLWUT"),
    CONTAINER("LATENCY", latency_sub),
    END,
};

static const struct redis_command with_m[] = {
    READ("MGET"),
    PLAIN("MSET"),
    LEASE("MULTI", REDIS_MULTI, WHY_TRANSACTION),
    STREAM("MONITOR", REDIS_MONITOR, "is answered by lines without end: send it on a lease"),
    CONTAINER("MEMORY", memory_sub),
    CONTAINER("MODULE", module_sub),
    END,
};

static const struct redis_command with_o[] = {READ_CONTAINER("OBJECT"), END};

/* PFCOUNT may write its cached cardinality, so it is not repeatable here. */
static const struct redis_command with_p[] = {
    PLAIN("PUBLISH"),
    READ("PING"),
    READ("PTTL"),
    READ("PEXPIRETIME"),
    READ_CONTAINER("PUBSUB"),
    STREAM("PSUBSCRIBE", REDIS_PSUBSCRIBE, WHY_SUBSCRIBE),
    LEASE("PUNSUBSCRIBE", REDIS_PUNSUBSCRIBE, WHY_SUBSCRIBE),
    FORBIDDEN("PSYNC", WHY_REPLICATION),
    END,
};

static const struct redis_command with_q[] = {
    FORBIDDEN("QUIT", "ends a connection that is the kernel's: close the service or give the lease back instead"),
    END,
};

/* RANDOMKEY and the other random picks (SRANDMEMBER, HRANDFIELD, ...) answer differently each time: not repeatable. */
static const struct redis_command with_r[] = {
    PLAIN("RPUSH"),
    READ("ROLE"),
    LEASE("READONLY", 0, WHY_STATE),
    LEASE("READWRITE", 0, WHY_STATE),
    LEASE("RESET", REDIS_RESET, "signs the connection out and forgets its state: send it on a lease"),
    FORBIDDEN("REPLCONF", WHY_REPLICATION),
    END,
};

static const struct redis_command with_s[] = {
    PLAIN("SET"),
    PLAIN("SADD"),
    READ("SISMEMBER"),
    READ("SMEMBERS"),
    READ("SCAN"),
    READ("SCARD"),
    READ("STRLEN"),
    READ("SDIFF"),
    READ("SINTER"),
    READ("SINTERCARD"),
    READ("SMISMEMBER"),
    READ("SORT_RO"),
    READ("SSCAN"),
    READ("SUBSTR"),
    READ("SUNION"),
    CONTAINER("SCRIPT", script_sub),
    CONTAINER("SENTINEL", sentinel_sub),
    CONTAINER("SLOWLOG", slowlog_sub),
    LEASE("SELECT", 0, WHY_SELECT),
    STREAM("SUBSCRIBE", REDIS_SUBSCRIBE, WHY_SUBSCRIBE),
    STREAM("SSUBSCRIBE", REDIS_SSUBSCRIBE, WHY_SUBSCRIBE),
    LEASE("SUNSUBSCRIBE", REDIS_SUNSUBSCRIBE, WHY_SUBSCRIBE),
    FORBIDDEN("SYNC", WHY_REPLICATION),
    END,
};

static const struct redis_command with_t[] = {
    READ("TTL"),
    READ("TYPE"),
    READ("TIME"),
    READ("TOUCH"),
    READ("TDIGEST.BYRANK"),
    READ("TDIGEST.BYREVRANK"),
    READ("TDIGEST.CDF"),
    READ("TDIGEST.INFO"),
    READ("TDIGEST.MAX"),
    READ("TDIGEST.MIN"),
    READ("TDIGEST.QUANTILE"),
    READ("TDIGEST.RANK"),
    READ("TDIGEST.REVRANK"),
    READ("TDIGEST.TRIMMED_MEAN"),
    READ("TOPK.COUNT"),
    READ("TOPK.INFO"),
    READ("TOPK.LIST"),
    READ("TOPK.QUERY"),
    READ("TS.GET"),
    READ("TS.INFO"),
    READ("TS.MGET"),
    READ("TS.MRANGE"),
    READ("TS.MREVRANGE"),
    READ("TS.QUERYINDEX"),
    READ("TS.RANGE"),
    READ("TS.REVRANGE"),
    END,
};

static const struct redis_command with_u[] = {
    LEASE("UNSUBSCRIBE", REDIS_UNSUBSCRIBE, WHY_SUBSCRIBE),
    LEASE("UNWATCH", 0, WHY_TRANSACTION),
    END,
};

static const struct redis_command with_v[] = {
    READ("VSIM"),  READ("VCARD"),     READ("VDIM"),   READ("VEMB"),   READ("VGETATTR"),
    READ("VINFO"), READ("VISMEMBER"), READ("VLINKS"), READ("VRANGE"), END,
};

static const struct redis_command with_w[] = {
    LEASE("WATCH", 0, WHY_TRANSACTION),
    ENTRY("WAIT", IOK_CLASS_NEEDS_LEASE, 0, REDIS_BLOCK_LAST_MS, NULL, false, WHY_WAIT),
    ENTRY("WAITAOF", IOK_CLASS_NEEDS_LEASE, 0, REDIS_BLOCK_LAST_MS, NULL, false, WHY_WAIT),
    END,
};

static const struct redis_command with_x[] = {
    PLAIN("XADD"),
    READ("XRANGE"),
    READ("XREVRANGE"),
    READ("XLEN"),
    READ("XPENDING"),
    READ_CONTAINER("XINFO"),
    CONTAINER("XGROUP", NULL),
    ENTRY("XREAD", IOK_CLASS_REPEATABLE, 0, REDIS_BLOCK_OPTION, NULL, false, NULL),
    ENTRY("XREADGROUP", 0, 0, REDIS_BLOCK_OPTION, NULL, false, NULL),
    END,
};

static const struct redis_command with_z[] = {
    PLAIN("ZADD"),          READ("ZRANGE"),           READ("ZSCORE"),        READ("ZCARD"),     READ("ZCOUNT"),
    READ("ZRANK"),          READ("ZREVRANGE"),        READ("ZRANGEBYSCORE"), READ("ZREVRANK"),  READ("ZMSCORE"),
    READ("ZDIFF"),          READ("ZINTER"),           READ("ZINTERCARD"),    READ("ZLEXCOUNT"), READ("ZRANGEBYLEX"),
    READ("ZREVRANGEBYLEX"), READ("ZREVRANGEBYSCORE"), READ("ZSCAN"),         READ("ZUNION"),    END,
};

static const struct redis_command with_none[] = {END};

static const struct redis_command *const by_letter[26] = {
    with_a,    with_b, with_c, with_d, with_e, with_f, with_g, with_h, with_i, with_j, with_k, with_l,    with_m,
    with_none, with_o, with_p, with_q, with_r, with_s, with_t, with_u, with_v, with_w, with_x, with_none, with_z,
};

/* ---- look-up -------------------------------------------------------------------------------------------------- */

static uint8_t upper(uint8_t c)
{
    return c >= 'a' && c <= 'z' ? (uint8_t)(c - 'a' + 'A') : c;
}

static const struct redis_command *find_in(const struct redis_command *list, struct iok_span name)
{
    for (; list->name != NULL; list++) {
        if (list->length != name.n)
            continue;
        size_t i = 0;
        while (i < name.n && upper(name.p[i]) == (uint8_t)list->name[i])
            i++;
        if (i == name.n)
            return list;
    }
    return NULL;
}

const struct redis_command *redis_command_find(struct iok_span name)
{
    if (name.n == 0 || name.n > NAME_MAX_BYTES)
        return NULL;
    unsigned letter = upper(name.p[0]) - (unsigned)'A';
    return letter < 26 ? find_in(by_letter[letter], name) : NULL;
}

static bool is_name(const struct iok_token *arg)
{
    return arg->type == IOK_TEXT || arg->type == IOK_BYTES;
}

/* ---- classify ------------------------------------------------------------------------------------------------- */

/* A time argument in units of unit_ms. The server answers 0 never, and a bad or negative one at once by an error. */
static int64_t time_ms(const struct iok_token *arg, double unit_ms)
{
    double value;
    if (arg->type == IOK_I64)
        value = (double)arg->i;
    else if (arg->type == IOK_F64)
        value = arg->f;
    else if (!is_name(arg) || !iok_span_f64(iok_token_span(arg), &value))
        return 0;
    if (value == 0)
        return -1;
    value *= unit_ms;
    /* 1e15 ms are 30,000 years, and far below INT64_MAX; the comparison is also false for not-a-number. */
    if (!(value > 0 && value < 1e15))
        return 0;
    int64_t whole = (int64_t)value;
    return (double)whole < value ? whole + 1 : whole;
}

/* XREAD and XREADGROUP: options in any order up to STREAMS; the two words after GROUP are names. */
static const struct iok_token *block_option(const struct iok_token *args, size_t n)
{
    for (size_t i = 1; i + 1 < n; i++) {
        if (!is_name(&args[i]))
            continue;
        struct iok_span word = iok_token_span(&args[i]);
        if (iok_span_eq_nocase(word, "STREAMS"))
            return NULL;
        if (iok_span_eq_nocase(word, "BLOCK"))
            return &args[i + 1];
        if (iok_span_eq_nocase(word, "GROUP"))
            i += 2;
    }
    return NULL;
}

static void classify_blocking(const struct redis_command *command, const struct iok_token *args, size_t n,
                              struct iok_class *out)
{
    if (command->block == REDIS_BLOCK_OPTION) {
        const struct iok_token *time = block_option(args, n);
        if (time == NULL)
            return;
        out->flags = IOK_CLASS_AUTO_LEASE; /* not repeatable: with the id $ what came between would be lost */
        out->block_ms = time_ms(time, 1);
    } else if (n > 1) {
        const struct iok_token *time = command->block == REDIS_BLOCK_FIRST_S ? &args[1] : &args[n - 1];
        out->block_ms = time_ms(time, command->block == REDIS_BLOCK_LAST_MS ? 1 : 1000);
    }
}

void redis_classify(const struct iok_token *args, size_t n, struct iok_class *out)
{
    *out = (struct iok_class){0};
    if (n == 0 || !is_name(args))
        return;
    const struct redis_command *command = redis_command_find(iok_token_span(args));
    for (size_t i = 1; command != NULL && command->sub != NULL && i < n && is_name(&args[i]); i++) {
        const struct redis_command *sub = find_in(command->sub, iok_token_span(&args[i]));
        if (sub == NULL)
            break;
        command = sub;
    }
    if (command == NULL)
        return;
    out->flags = command->flags;
    out->why = command->why;
    if (command->block != REDIS_BLOCK_NONE)
        classify_blocking(command, args, n, out);
}

/* ---- describe ------------------------------------------------------------------------------------------------- */

/* Appends a command's name in upper case, or '?' for what does not look like one: it may be a misplaced value. */
static size_t put_name(struct iok_span name, char *at, size_t cap)
{
    bool good = name.n > 0 && name.n <= NAME_MAX_BYTES;
    for (size_t i = 0; good && i < name.n; i++) {
        uint8_t c = upper(name.p[i]);
        good = (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
    }
    if (!good)
        name = iok_span("?", 1);
    size_t n = name.n < cap ? name.n : cap;
    for (size_t i = 0; i < n; i++)
        at[i] = (char)upper(name.p[i]);
    return n;
}

size_t redis_describe(const struct iok_token *args, size_t n, char *at, size_t cap)
{
    if (n == 0 || cap == 0)
        return 0;
    if (!is_name(args))
        return put_name(iok_span(NULL, 0), at, cap);
    struct iok_span name = iok_token_span(args);
    size_t length = put_name(name, at, cap);
    const struct redis_command *command = redis_command_find(name);
    if (command == NULL || !command->container || n < 2 || !is_name(&args[1]) || length + 1 >= cap)
        return length;
    at[length++] = ' ';
    return length + put_name(iok_token_span(&args[1]), at + length, cap - length);
}

/* ---- answers -------------------------------------------------------------------------------------------------- */

enum redis_kind redis_confirmation_kind(struct iok_span name)
{
    static const char *const names[] = {"subscribe",   "psubscribe",   "ssubscribe",
                                        "unsubscribe", "punsubscribe", "sunsubscribe"};
    for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (iok_span_eq(name, iok_span_of(names[i])))
            return (enum redis_kind)(REDIS_SUBSCRIBE + i);
    return REDIS_PLAIN;
}

static bool starts_with(struct iok_span text, const char *start)
{
    size_t n = strlen(start);
    return text.n >= n && memcmp(text.p, start, n) == 0;
}

/* What the server says before it runs a command: first words, and starts of texts whose first word is only ERR. A
 * script's error may be that of a command within it, after others have run; so for scripts only those count that no
 * command within a script can have. */
bool redis_error_rejects(struct iok_span text, enum redis_kind kind)
{
    static const char *const always[] = {"LOADING", "MOVED", "ASK", "TRYAGAIN", "NOAUTH", "NOSCRIPT"};
    static const char *const unless_script[] = {
        "READONLY",   "CLUSTERDOWN", "CROSSSLOT", "NOPERM",  "OOM",       "BUSY",
        "MASTERDOWN", "NOREPLICAS",  "EXECABORT", "MISCONF", "WRONGPASS", "NOPROTO",
    };
    static const char *const texts[] = {"ERR unknown command", "ERR unknown subcommand",
                                        "ERR wrong number of arguments"};
    const uint8_t *blank = text.n > 0 ? memchr(text.p, ' ', text.n) : NULL;
    struct iok_span code = iok_span(text.p, blank != NULL ? (size_t)(blank - text.p) : text.n);
    for (size_t i = 0; i < sizeof(always) / sizeof(*always); i++)
        if (iok_span_eq(code, iok_span_of(always[i])))
            return true;
    if (kind == REDIS_SCRIPT)
        return false;
    for (size_t i = 0; i < sizeof(unless_script) / sizeof(*unless_script); i++)
        if (iok_span_eq(code, iok_span_of(unless_script[i])))
            return true;
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
        if (starts_with(text, texts[i]))
            return true;
    return false;
}
