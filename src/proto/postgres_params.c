/* postgres_params.c - a parameter as the server reads it: as text, which is to the server what a literal in quotes is, or
 * in binary, where the type is known and that means the same.
 *
 * Binary are octets, which are declared as bytea; and of a statement that is known booleans, integers and floats, and
 * arrays of all these: to write and to read the text of a thousand floats costs three times as much as all else of such a
 * query. What else goes as text, such as moments, UUIDs and arrays of texts, would gain nothing that can be measured, and
 * the server's own reader knows what is infinite, BC or beyond a type's range.
 *
 * Invariant: what binary would say in another way, or not at all (a number beyond its type, an array with a hole), goes as
 * text, so that the server judges it. Nothing here fails: room was measured before. */
#include "postgres.h"

#define EXACT_MAX (INT64_C(1) << 53) /* of the whole numbers that a double has */

/* ---- as text ---------------------------------------------------------------------------------------------------- */

static uint8_t *put_octet(uint8_t *at, char octet)
{
    *at = (uint8_t)octet;
    return at + 1;
}

static uint8_t *put_number(uint8_t *at, const struct iok_token *token)
{
    char text[PG_NUMBER_BYTES_MAX];
    size_t n;
    if (token->type == IOK_BOOL)
        return pg_put_span(at, iok_span_of(token->i != 0 ? "true" : "false"));
    n = token->type == IOK_I64 ? iok_format_i64(text, token->i) : iok_format_f64(text, token->f);
    return pg_put_span(at, iok_span(text, n));
}

static uint8_t *put_quoted(uint8_t *at, struct iok_span text)
{
    at = put_octet(at, '"');
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '"' || text.p[i] == '\\')
            at = put_octet(at, '\\');
        *at++ = text.p[i];
    }
    return put_octet(at, '"');
}

static uint8_t *put_hex(uint8_t *at, struct iok_span octets)
{
    static const char digits[] = "0123456789abcdef";
    at = pg_put_span(at, iok_span_of("\"\\\\x"));
    for (size_t i = 0; i < octets.n; i++) {
        at = put_octet(at, digits[octets.p[i] >> 4]);
        at = put_octet(at, digits[octets.p[i] & 15]);
    }
    return put_octet(at, '"');
}

/* An array's literal, {1,NULL,"a",{2}}; *token becomes what follows it. */
static uint8_t *put_element(uint8_t *at, const struct iok_token **token)
{
    const struct iok_token *this = (*token)++;
    switch (this->type) {
    case IOK_NULL:
        return pg_put_span(at, iok_span_of("NULL"));
    case IOK_TEXT:
    case IOK_DECIMAL:
        return put_quoted(at, iok_token_span(this));
    case IOK_BYTES:
        return put_hex(at, iok_token_span(this));
    case IOK_ARRAY:
        break;
    default:
        return put_number(at, this);
    }
    at = put_octet(at, '{');
    for (uint32_t i = 0; i < this->len; i++) {
        if (i > 0)
            at = put_octet(at, ',');
        at = put_element(at, token);
    }
    return put_octet(at, '}');
}

/* ---- in binary ------------------------------------------------------------------------------------------------- */

/* Whether this value in binary is what its text would be to the server. */
static bool scalar_suits(const struct iok_token *token, uint32_t oid)
{
    switch (token->type) {
    case IOK_BOOL:
        return oid == PG_BOOL;
    case IOK_F64:
        return oid == PG_FLOAT8;
    case IOK_I64:
        return oid == PG_INT8 || (oid == PG_INT4 && token->i == (int32_t)token->i) ||
               (oid == PG_INT2 && token->i == (int16_t)token->i) || (oid == PG_OID && token->i == (uint32_t)token->i);
    default:
        return false;
    }
}

static bool element_suits(const struct iok_token *token, uint32_t oid)
{
    switch (token->type) {
    case IOK_NULL:
        return true;
    case IOK_BYTES:
        return oid == PG_BYTEA;
    case IOK_I64: /* a whole number among floats, as far as they have all of them */
        return scalar_suits(token, oid) || (oid == PG_FLOAT8 && token->i >= -EXACT_MAX && token->i <= EXACT_MAX);
    default:
        return scalar_suits(token, oid);
    }
}

struct dimensions {
    uint32_t n, sizes[PG_DIMENSIONS_MAX];
    uint32_t element; /* its OID */
};

/* As the first elements have them. */
static bool read_dimensions(const struct iok_token *tokens, size_t n, struct dimensions *to)
{
    to->n = 0;
    for (size_t i = 0; i < n && tokens[i].type == IOK_ARRAY; i++) {
        if (to->n == PG_DIMENSIONS_MAX || tokens[i].len == 0)
            return to->n == 0; /* none at all are the empty array */
        to->sizes[to->n++] = tokens[i].len;
    }
    return true;
}

/* Whether the others are like the first, and all that is in it suits; *token becomes what follows. */
static bool array_suits(const struct dimensions *dimensions, uint32_t depth, const struct iok_token **token)
{
    const struct iok_token *this = (*token)++;
    if (depth == dimensions->n)
        return element_suits(this, dimensions->element);
    if (this->type != IOK_ARRAY || this->len != dimensions->sizes[depth])
        return false;
    for (uint32_t i = 0; i < this->len; i++)
        if (!array_suits(dimensions, depth + 1, token))
            return false;
    return true;
}

bool pg_param_binary(const struct iok_token *tokens, size_t n, uint32_t oid)
{
    if (tokens->type == IOK_BYTES)
        return true; /* declared as bytea */
    if (tokens->type != IOK_ARRAY)
        return scalar_suits(tokens, oid);
    struct dimensions dimensions = {.element = pg_element_of(oid)};
    if (dimensions.element == 0 || !read_dimensions(tokens, n, &dimensions))
        return false;
    return dimensions.n == 0 || array_suits(&dimensions, 0, &tokens);
}

static uint8_t *put_binary(uint8_t *at, const struct iok_token *token, uint32_t oid)
{
    uint64_t bits = (uint64_t)token->i;
    double number = token->type == IOK_F64 ? token->f : (double)token->i;
    switch (token->type) {
    case IOK_BYTES:
        return pg_put_span(at, iok_token_span(token));
    case IOK_BOOL:
        return put_octet(at, token->i != 0);
    default:
        if (oid == PG_INT2)
            return pg_put_u16(at, bits & 0xffff);
        if (oid == PG_FLOAT8)
            memcpy(&bits, &number, sizeof(bits));
        else if (oid != PG_INT8)
            return pg_put_u32(at, bits & 0xffffffff);
    }
    return pg_put_u32(pg_put_u32(at, bits >> 32), bits & 0xffffffff);
}

/* array_recv of the server: dimensions, whether there are NULLs, the elements' type; of each dimension its size and
 * where it begins; the elements with their lengths. */
static uint8_t *put_array(uint8_t *at, const struct iok_token *token, uint32_t element)
{
    struct dimensions dimensions;
    uint8_t *nulls = at + 4;
    size_t left = 1;
    (void)read_dimensions(token, PG_DIMENSIONS_MAX + 1, &dimensions);
    at = pg_put_u32(pg_put_u32(pg_put_u32(at, dimensions.n), 0), element);
    for (uint32_t i = 0; i < dimensions.n; i++) {
        at = pg_put_u32(pg_put_u32(at, dimensions.sizes[i]), 1);
        left *= dimensions.sizes[i];
    }
    for (left = dimensions.n > 0 ? left : 0; left > 0; token++) {
        uint8_t *length = at;
        if (token->type == IOK_ARRAY)
            continue;
        left--;
        at += 4;
        if (token->type == IOK_NULL) {
            pg_put_u32(nulls, 1);
            pg_put_u32(length, UINT32_MAX);
        } else {
            at = put_binary(at, token, element);
            pg_put_u32(length, (size_t)(at - length) - 4);
        }
    }
    return at;
}

uint8_t *pg_put_param(uint8_t *at, const struct iok_token *token, uint32_t oid, bool binary)
{
    if (binary)
        return token->type == IOK_ARRAY ? put_array(at, token, pg_element_of(oid)) : put_binary(at, token, oid);
    if (token->type == IOK_TEXT || token->type == IOK_DECIMAL)
        return pg_put_span(at, iok_token_span(token));
    return put_element(at, &token);
}
