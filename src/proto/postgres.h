/* postgres.h - what the parts of the PostgreSQL codec share, private to them: postgres.c (messages, replies and the
 * slots of proto.h), postgres_request.c (requests), postgres_params.c (their parameters), postgres_check.c (parameters
 * against types), postgres_cache.c (prepared statements), postgres_cursor.c (results in batches), postgres_copy.c,
 * postgres_signin.c, postgres_env.c (what a URL leaves open), postgres_role.c (hosts and their roles), postgres_sql.c
 * (what a statement is); values as tokens: postgres_types.c (which there are), postgres_values.c (binary),
 * postgres_text.c, postgres_moments.c, postgres_nets.c, postgres_ranges.c.
 *
 * Specification: https://www.postgresql.org/docs/current/protocol.html, cited as [PG] with the section. */
#ifndef IOK_PROTO_POSTGRES_H
#define IOK_PROTO_POSTGRES_H

#include "proto.h"

/* ---- bytes: postgres_values.c -------------------------------------------------------------------------------- */

/* Memory of one's own that grows. */
struct pg_bytes {
    uint8_t *p;
    size_t n, cap;
};

/* false: out of memory, and nothing was appended. */
bool pg_bytes_put(struct pg_bytes *bytes, struct iok_span more);
void pg_bytes_free(struct pg_bytes *bytes);

static inline uint16_t pg_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t pg_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint64_t pg_u64(const uint8_t *p)
{
    return (uint64_t)pg_u32(p) << 32 | pg_u32(p + 4);
}

static inline uint8_t *pg_put_u16(uint8_t *at, size_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
    return at + 2;
}

static inline uint8_t *pg_put_u32(uint8_t *at, size_t value)
{
    return pg_put_u16(pg_put_u16(at, value >> 16 & 0xffff), value & 0xffff);
}

static inline uint8_t *pg_put_span(uint8_t *at, struct iok_span bytes)
{
    if (bytes.n > 0)
        memcpy(at, bytes.p, bytes.n);
    return at + bytes.n;
}

/* Up to the next NUL, which is taken too; false if there is none. */
bool pg_take_cstring(struct iok_span *from, struct iok_span *text);

/* ---- values: postgres_types.c, postgres_values.c, postgres_text.c and others --------------------------------------------------------------- */

enum pg_type {
    PG_UNKNOWN = 0, /* text, as the server writes it */
    PG_BOOL = 16,
    PG_BYTEA = 17,
    PG_INT8 = 20,
    PG_INT2 = 21,
    PG_INT4 = 23,
    PG_OID = 26,
    PG_FLOAT4 = 700,
    PG_FLOAT8 = 701,
    PG_DATE = 1082,
    PG_TIME = 1083,
    PG_TIMESTAMP = 1114,
    PG_TIMESTAMPTZ = 1184,
    PG_NUMERIC = 1700,
    PG_UUID = 2950,
    PG_JSONB = 3802, /* as an array's element only: else it is asked for as text */
    PG_OTHER = 1,    /* as an array's element only: text, for which the array is asked for as text */
    PG_CIDR = 650,
    PG_MACADDR8 = 774,
    PG_MACADDR = 829,
    PG_INET = 869,
    PG_INTERVAL = 1186,
    PG_TIMETZ = 1266,
    PG_BIT = 1560, /* and bit varying */
};

#define PG_ARRAY 0x8000u      /* with the type of its elements */
#define PG_RANGE 0x4000u      /* with that of its bounds */
#define PG_MULTIRANGE 0x2000u /* the same */
#define PG_SCALAR(type) ((uint16_t)((type)&0x1fffu))

/* How values of a type with this OID are decoded: enum pg_type, PG_ARRAY, PG_RANGE, PG_MULTIRANGE. */
uint16_t pg_type_of(uint32_t oid);
/* Its name, or that of its elements with *array; NULL if it is not built into the server. */
const char *pg_type_name(uint32_t oid, bool *array);
/* The OID of an array's elements; 0 if it is no array, or not built in. */
uint32_t pg_element_of(uint32_t oid);
/* Whether the binary format is asked for. */
bool pg_type_binary(uint16_t type);
/* Whether the bytes go to the tape as they are, in this format, as IOK_TEXT or IOK_BYTES. */
bool pg_type_raw(uint16_t type, bool binary);
/* Appends one value that is not raw. scratch is for texts. 0, or IOK_EPROTO, IOK_ENOMEM with io->err. */
int pg_decode(struct iok_io *io, uint16_t type, bool binary, struct iok_span value, struct pg_bytes *scratch);
/* One scalar in text form. */
int pg_decode_text(struct iok_io *io, uint16_t type, struct iok_span value, struct pg_bytes *scratch);
int pg_decode_text_array(struct iok_io *io, uint16_t element, struct iok_span value, struct pg_bytes *scratch);
int pg_decode_scalar(struct iok_io *io, uint16_t type, struct iok_span value, struct pg_bytes *scratch);
/* Ranges and multiranges: postgres_ranges.c */
int pg_decode_range(struct iok_io *io, uint16_t type, struct iok_span value, struct pg_bytes *scratch);
int pg_decode_range_text(struct iok_io *io, uint16_t type, struct iok_span value, struct pg_bytes *scratch);
/* PG_INTERVAL, PG_TIMETZ: postgres_moments.c. false: it is none, and nothing was appended. */
bool pg_decode_moment(struct iok_tape *tape, uint16_t type, struct iok_span value);
bool pg_decode_interval_text(struct iok_tape *tape, struct iok_span text);
bool pg_decode_timetz_text(struct iok_tape *tape, struct iok_span text);
/* PG_INET, PG_CIDR, PG_MACADDR, PG_MACADDR8, PG_BIT: postgres_nets.c. The same. */
bool pg_decode_net(struct iok_tape *tape, uint16_t type, struct iok_span value);
bool pg_decode_address_text(struct iok_tape *tape, bool network, struct iok_span text);
/* c, 12:34:56.789 and +01:30 in microseconds: taken from the text if they are next. postgres_text.c */
bool pg_take_char(struct iok_span *text, char c);
bool pg_take_time(struct iok_span *text, int64_t *us);
bool pg_take_zone(struct iok_span *text, int64_t *us);

#define PG_MOMENT_BYTES 64u /* "294276-12-31 23:59:59.999999+00 BC" and room for any int64_t as the year */
/* 2000-01-01 in microseconds since 1970. */
#define PG_EPOCH_US INT64_C(946684800000000)
#define PG_DAY_US INT64_C(86400000000)
/* Appends a moment, given in days and microseconds since 2000: as a timestamp in the years 1 to 9999, else as text, as
 * the server writes it. kind: 0, IOK_KIND_LOCAL or IOK_KIND_DATE. */
void pg_put_moment(struct iok_tape *tape, uint16_t kind, int64_t days, int64_t us);
/* A time of day. */
void pg_put_time(struct iok_tape *tape, int64_t us);
/* The text of a moment; 0 <= us < PG_DAY_US; at has PG_MOMENT_BYTES. */
size_t pg_format_moment(char *at, uint16_t kind, int64_t days, int64_t us);
/* Days since 2000-01-01 of a day of the proleptic Gregorian calendar; year 0 is 1 BC. */
int64_t pg_days_of(int64_t year, int64_t month, int64_t day);

/* ---- statements: postgres_cache.c ----------------------------------------------------------------------------- */

#define PG_STATEMENTS_MAX 1024u /* of one connection */
#define PG_BUCKETS 256u
#define PG_NO_SLOT UINT32_MAX
#define PG_SQL_CACHED_MAX 16384u /* a longer text is parsed each time */

/* What a statement takes and gives. */
struct pg_shape {
    uint32_t *params; /* OIDs */
    uint16_t *types;  /* of the columns: pg_type_of */
    uint32_t n_params, n_columns;
    struct pg_bytes description; /* the body of RowDescription; n 0: no rows */
};

void pg_shape_clear(struct pg_shape *shape);
/* From ParameterDescription and RowDescription. 0, IOK_EPROTO or IOK_ENOMEM with io->err. */
int pg_shape_params(struct pg_shape *shape, struct iok_io *io, struct iok_span body);
int pg_shape_columns(struct pg_shape *shape, struct iok_io *io, struct iok_span body);

enum pg_statement_state {
    PG_FREE = 0,
    PG_PARSING, /* its first use is under way */
    PG_KNOWN,   /* the server has it, and its shape is known */
    PG_STALE,   /* not to be used again; free when nothing in flight uses it */
};

struct pg_statement {
    uint8_t state;    /* enum pg_statement_state */
    bool on_server;   /* a statement of this slot's name may be there */
    uint32_t hash;    /* of sql and octets */
    uint32_t next;    /* in its bucket; PG_NO_SLOT ends */
    uint32_t uses;    /* in flight */
    uint64_t used_at; /* a count of look-ups */
    uint64_t octets;  /* bit i: parameter i is IOK_BYTES, so declared as bytea */
    struct pg_bytes sql;
    struct pg_shape shape;
};

struct pg_cache {
    struct pg_statement *slots; /* capacity of them */
    uint32_t capacity;
    bool unnamed; /* nothing is kept from now on: a statement's name may mean another one, or none, to the server */
    uint32_t buckets[PG_BUCKETS];
    uint64_t clock;
};

/* 0 or IOK_ENOMEM. */
int pg_cache_open(struct pg_cache *cache, uint32_t capacity);
void pg_cache_close(struct pg_cache *cache);
/* The slot of this statement, PG_NO_SLOT if there is none. */
uint32_t pg_cache_find(struct pg_cache *cache, struct iok_span sql, uint64_t octets);
/* A slot for it, in state PG_PARSING, at the expense of the one that was not used for longest. PG_NO_SLOT: all are in
 * use, or (with *error set) out of memory. */
uint32_t pg_cache_add(struct pg_cache *cache, struct iok_span sql, uint64_t octets, int *error);
/* One use less. */
void pg_cache_release(struct pg_cache *cache, uint32_t slot);
/* Never to be found again. */
void pg_cache_retire(struct pg_cache *cache, uint32_t slot);
void pg_cache_retire_all(struct pg_cache *cache);
/* Never to be asked for a name again. */
void pg_cache_end_names(struct pg_cache *cache);

/* ---- cursors: postgres_cursor.c ------------------------------------------------------------------------------- */

#define PG_CURSORS_MAX 64u     /* open at once on one connection; each is a portal of the server's, with its snapshot */
#define PG_CURSOR_NAME_MAX 63u /* NAMEDATALEN of the server, without the NUL */
#define PG_NO_CURSOR 0u

enum pg_cursor_state {
    PG_CURSOR_FREE = 0,
    PG_CURSOR_OPENING, /* its first request is under way */
    PG_CURSOR_OPEN,    /* the server has bound it */
    PG_CURSOR_GONE,    /* not to be used again; free when nothing in flight uses it */
};

struct pg_cursor {
    char name[PG_CURSOR_NAME_MAX + 1];
    uint8_t state; /* enum pg_cursor_state */
    bool binary;   /* its rows come in the binary format, where the type has one */
    uint32_t uses; /* in flight */
    struct pg_shape shape;
};

struct pg_cursors {
    struct pg_cursor *all; /* PG_CURSORS_MAX of them, made with the first; ids count from 1 */
};

/* The id of the cursor of this name, PG_NO_CURSOR if there is none. */
uint32_t pg_cursor_find(const struct pg_cursors *cursors, struct iok_span name);
/* A new one; PG_NO_CURSOR with *error IOK_ENOMEM, or IOK_ELIMIT. The name is no longer than PG_CURSOR_NAME_MAX. */
uint32_t pg_cursor_add(struct pg_cursors *cursors, struct iok_span name, int *error);
struct pg_cursor *pg_cursor_at(struct pg_cursors *cursors, uint32_t id);
/* The server has it, with this shape. false: out of memory. */
bool pg_cursor_bind(struct pg_cursor *cursor, const struct pg_shape *shape, bool binary);
/* Never to be found again. */
void pg_cursor_gone(struct pg_cursor *cursor);
/* One use less. */
void pg_cursor_release(struct pg_cursor *cursor);
/* No transaction is open: all that were bound are gone. */
void pg_cursors_transaction_over(struct pg_cursors *cursors);
void pg_cursors_close(struct pg_cursors *cursors);

/* ---- COPY: postgres_copy.c ------------------------------------------------------------------------------------ */

struct pg_copy {
    bool sync_owed; /* its Sync is not sent yet: nothing else may be */
    bool begun;     /* the server has said in which direction */
    bool in;        /* the server takes data */
    bool out;       /* the server gives data */
    bool refused;   /* data that the program did not ask for */
    bool large;     /* a part is open for the row that is being read */
    struct pg_bytes chunk;
};

int pg_copy_encode(struct pg_copy *copy, struct iok_io *io, struct iok_span sql);
/* CopyInResponse or CopyOutResponse. */
int pg_copy_begin(struct pg_copy *copy, struct iok_io *io, uint8_t type);
int pg_copy_body(struct pg_copy *copy, struct iok_io *io, struct iok_span bytes, enum iok_body what);
/* A CopyData of n bytes begins; then its bytes, in pieces. */
int pg_copy_data_begin(struct pg_copy *copy, struct iok_io *io, uint32_t n);
int pg_copy_data(struct pg_copy *copy, struct iok_io *io, struct iok_span piece, bool last);
/* It is complete, or (not whole) failed. */
int pg_copy_end(struct pg_copy *copy, struct iok_io *io, bool whole);
/* What is owed of its Sync. */
int pg_copy_sync(struct pg_copy *copy, struct iok_io *io);

/* ---- what a statement is: postgres_sql.c ---------------------------------------------------------------------- */

enum pg_effect {
    PG_EFFECT_NONE = 0,
    PG_EFFECT_STATEMENTS = 1, /* may drop prepared statements */
    PG_EFFECT_SESSION = 2,    /* leaves what only DISCARD ALL takes away */
};

/* The SQL text: the first argument, or what follows an array that says more about the request. n 0 if there is none. */
struct iok_span pg_sql_of(const struct iok_token *args, size_t n);
/* Whether the request only asks what a statement takes and gives: an array of the text "describe" is before its SQL. */
bool pg_describes(const struct iok_token *args, size_t n);
#define PG_DESCRIBE_TOKENS 2u /* that array and that text */
/* enum pg_effect bits. */
unsigned pg_sql_effect(struct iok_span sql);
bool pg_sql_is_copy(struct iok_span sql);
void pg_classify(const struct iok_token *args, size_t n, struct iok_class *out);
size_t pg_describe(const struct iok_token *args, size_t n, char *at, size_t cap);

/* ---- the environment: postgres_env.c -------------------------------------------------------------------------- */

/* The slot complete. */
int pg_complete(const struct iok_url *url, char **whole, struct iok_error *err);

/* ---- sign-in: postgres_signin.c ------------------------------------------------------------------------------- */

struct pg_scram {
    char nonce[25]; /* the client's, base64 of 18 octets */
    uint8_t server_signature[32];
    bool asked; /* the server wanted a password, in one way or another */
    bool proof_sent, verified;
    const char *gs2; /* RFC 5802, section 7: whether the sign-in is bound to TLS */
};

/* channel_binding= */
enum pg_binding { PG_BINDING_PREFER = 0, PG_BINDING_DISABLE, PG_BINDING_REQUIRE };

/* require_auth=: a bit for each way to sign in. What a server may ask for and is not known here has none. */
enum pg_auth { PG_AUTH_NONE = 1, PG_AUTH_PASSWORD = 2, PG_AUTH_MD5 = 4, PG_AUTH_SCRAM = 8, PG_AUTH_ANY = 15 };

struct pg_wishes {
    struct iok_span user, database, application_name, options;
    uint64_t statements, statement_timeout; /* ns; 0: the server's own */
    uint32_t oldest, newest;                /* of the protocol */
    bool cleartext;
    enum pg_binding binding;
    unsigned auths; /* enum pg_auth: what is allowed */
};

int pg_read_wishes(const struct iok_url *url, struct pg_wishes *wishes, struct iok_error *err);
/* By the URL's authority or by an option; n 0: none. */
struct iok_span pg_user(const struct iok_url *url);
struct iok_span pg_password(const struct iok_url *url);
int pg_check(const struct iok_url *url, struct iok_error *err);
int pg_check_ssl(const struct iok_url *url, struct iok_proto_tls *tls, struct iok_error *err);
int pg_put_startup(struct iok_io *io);
/* The server's message of type 'R'. 0, or an error. */
int pg_authenticate(struct pg_scram *scram, struct iok_io *io, struct iok_span body);
/* The server's message of type 'v'. */
int pg_negotiate(struct iok_io *io, struct iok_span body);
/* An ErrorResponse during sign-in: the error that it means. */
int pg_refused(struct iok_io *io, struct iok_span body);

/* ---- roles: postgres_role.c ----------------------------------------------------------------------------------- */

struct pg_role {
    bool reported; /* by ParameterStatus, when it changes */
    bool known;    /* the host was told */
    bool standby, read_only;
};

extern const struct iok_proto_hosts pg_hosts;
/* Its one row is given to pg_role_answer: 0, or IOK_EPROTO with io->err. */
extern const char pg_role_query[];
int pg_role_answer(struct pg_role *role, struct iok_io *io, struct iok_span body);
/* A ParameterStatus, of whatever. */
void pg_role_status(struct pg_role *role, struct iok_io *io, struct iok_span body);
/* The sign-in is over, and all is known: tells the host, now and whenever it changes. */
void pg_role_told(struct pg_role *role, struct iok_io *io);

/* ---- requests: postgres_request.c ----------------------------------------------------------------------------- */

/* A flight's tag: its kind, its cursor, and the slot of its statement. */
enum pg_kind {
    PG_PING = 0,
    PG_ONCE,  /* parsed for this use only, without a name */
    PG_FIRST, /* parsed, and kept in a slot */
    PG_BOUND, /* known: bound and executed only */
    PG_MORE,  /* further rows of a cursor */
    PG_CLOSE, /* a cursor is closed */
    PG_COPY,
    PG_DESCRIBE, /* parsed only, to tell what it takes and gives */
};
#define PG_TAG(kind, cursor, slot) ((uint32_t)(kind) << 28 | (uint32_t)(cursor) << 16 | ((slot)&0xffffu))
#define PG_TAG_KIND(tag) ((uint8_t)((tag) >> 28))
#define PG_TAG_CURSOR(tag) ((tag) >> 16 & 0xfffu)
#define PG_TAG_SLOT(tag) ((tag)&0xffffu)

#define PG_DIMENSIONS_MAX 6u    /* MAXDIM of the server */
#define PG_NUMBER_BYTES_MAX 32u /* of a number's text */
#define PG_ARRAY_HEAD_MAX (12u + 8u * PG_DIMENSIONS_MAX)

/* Whether a parameter of this type (0: not known) goes in binary; n tokens begin with it. postgres_params.c */
bool pg_param_binary(const struct iok_token *tokens, size_t n, uint32_t oid);
/* Its bytes, at most what postgres_request.c has measured. */
uint8_t *pg_put_param(uint8_t *at, const struct iok_token *token, uint32_t oid, bool binary);
/* Parameters, as many as the shape has. 0, or IOK_ETYPE with io->err. postgres_check.c */
int pg_check_params(struct iok_io *io, const struct pg_shape *shape, const struct iok_token *tokens, size_t n);

int pg_encode_request(struct pg_cache *cache, struct pg_cursors *cursors, struct iok_io *io,
                      const struct iok_token *args, size_t n, struct iok_flight *flight);

/* ---- errors: postgres_fields.c --------------------------------------------------------------------------------- */

/* The field of an ErrorResponse; n 0 if it is not there. */
struct iok_span pg_field(struct iok_span body, char code);
/* Those that are there, as a map or as attributes; with_text: the message, too. */
void pg_put_fields(struct iok_tape *tape, enum iok_type container, struct iok_span body, bool with_text);
/* An error that is not the server's but ours, in its form. */
void pg_put_error(struct iok_tape *tape, const char *sqlstate, const char *text);

#endif
