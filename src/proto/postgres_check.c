/* postgres_check.c - parameters against the types of a statement that is known, before anything is sent.
 *
 * Only what the server itself would surely refuse is refused, and earlier: what it would read as a literal in quotes
 * passes here, so that a statement takes the same when it is new. (But for arrays where it wants an interval: it makes
 * one of the literal {1}.) A number that is out of its type's range is the server's to refuse, with a SQLSTATE for it.
 * The errors never show a value. */
#include <math.h>

#include "postgres.h"

struct check {
    struct iok_io *io;
    const struct iok_token *tokens;
    size_t n;
    uint32_t param; /* its number, from 1 */
    uint32_t oid;   /* what the statement wants */
};

static int refuse(const struct check *check, const char *given, bool within)
{
    bool array;
    const char *name = pg_type_name(check->oid, &array);
    return iok_io_fail(check->io, IOK_ETYPE, "parameter $%u is %s%s; the statement wants %s%s", check->param,
                       within ? "an array with " : "", given, name != NULL ? name : "another type", array ? "[]" : "");
}

static bool is_integer(uint16_t type)
{
    return type == PG_INT2 || type == PG_INT4 || type == PG_INT8 || type == PG_OID;
}

/* Beyond 2^53 all of them are. */
static bool is_whole(double f)
{
    return isfinite(f) && (f < -0x1p53 || f > 0x1p53 || f == (double)(int64_t)f);
}

/* Of what no number is a literal. */
static bool is_no_number(uint16_t type)
{
    return type == PG_UUID || (type & (PG_ARRAY | PG_RANGE | PG_MULTIRANGE)) != 0;
}

/* What is wrong with it; NULL if nothing is. */
static const char *wrong(const struct iok_token *token, uint16_t type, uint32_t oid)
{
    switch (token->type) {
    case IOK_BOOL: /* texts, bytea, json and whatever is not built in read true and false */
        return type != PG_BOOL && type != PG_UNKNOWN && type != PG_BYTEA ? "a boolean" : NULL;
    case IOK_I64:
        return is_no_number(type) || (type == PG_BOOL && token->i != 0 && token->i != 1) ? "an integer" : NULL;
    case IOK_F64:
        if (is_no_number(type))
            return "a float";
        return is_integer(type) && !is_whole(token->f) ? "a float that is not a whole number" : NULL;
    case IOK_ARRAY:
        if (oid == 114 || oid == PG_JSONB)
            return "an array, which is not JSON";
        return type == PG_UNKNOWN || type == PG_BYTEA || (type & (PG_ARRAY | PG_MULTIRANGE)) != 0 ? NULL : "an array";
    default:
        return NULL;
    }
}

/* Returns the index behind the value at i, or a negative error. */
static ptrdiff_t check_value(const struct check *check, size_t i, uint32_t oid, bool within)
{
    const struct iok_token *token = &check->tokens[i];
    uint16_t type = oid == PG_JSONB ? PG_UNKNOWN : pg_type_of(oid);
    const char *given = wrong(token, type, oid);
    /* An array within an array is one more dimension. */
    if (given != NULL && !(within && token->type == IOK_ARRAY))
        return refuse(check, given, within);
    if (token->type != IOK_ARRAY)
        return (ptrdiff_t)i + 1;
    uint32_t element = within ? oid : pg_element_of(oid);
    if (element == 0)
        return (ptrdiff_t)iok_tape_skip(check->tokens, check->n, i);
    ptrdiff_t at = (ptrdiff_t)i + 1;
    for (uint32_t left = token->len; left > 0 && at >= 0; left--)
        at = check_value(check, (size_t)at, element, true);
    return at;
}

int pg_check_params(struct iok_io *io, const struct pg_shape *shape, const struct iok_token *tokens, size_t n)
{
    struct check check = {.io = io, .tokens = tokens, .n = n};
    ptrdiff_t at = 0;
    for (uint32_t i = 0; i < shape->n_params && at >= 0; i++) {
        const struct iok_token *token = &tokens[at];
        if (token->type == IOK_TEXT || token->type == IOK_BYTES || token->type == IOK_NULL ||
            (token->type == IOK_I64 &&
             (shape->params[i] == PG_INT4 || shape->params[i] == PG_INT8))) { /* as most are */
            at++;
            continue;
        }
        check.param = i + 1;
        check.oid = shape->params[i];
        at = check_value(&check, (size_t)at, check.oid, false);
    }
    return at < 0 ? (int)at : 0;
}
