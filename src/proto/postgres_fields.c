/* postgres_fields.c - errors and notices: what their fields are, and how they stand in a tape. */
#include "postgres.h"

/* [PG] "Error and Notice Message Fields". The message itself is the error's text; V is S without a translation. */
static const struct {
    char code;
    const char *name;
} fields[] = {
    {'V', "severity"},       {'C', "sqlstate"}, {'D', "detail"},
    {'H', "hint"},           {'P', "position"}, {'p', "internal_position"},
    {'q', "internal_query"}, {'W', "context"},  {'s', "schema"},
    {'t', "table"},          {'c', "column"},   {'d', "data_type"},
    {'n', "constraint"},     {'F', "file"},     {'L', "line"},
    {'R', "routine"},
};

struct iok_span pg_field(struct iok_span body, char code)
{
    struct iok_span text;
    while (body.n > 0 && body.p[0] != '\0') {
        uint8_t this = body.p[0];
        body = iok_span_skip(body, 1);
        if (!pg_take_cstring(&body, &text))
            break;
        if (this == (uint8_t)code)
            return text;
    }
    return iok_span(NULL, 0);
}

void pg_put_fields(struct iok_tape *tape, enum iok_type container, struct iok_span body, bool with_text)
{
    uint32_t head = tape->n_tokens, n = 0;
    int64_t number;
    iok_tape_head(tape, container, 0);
    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
        struct iok_span value = pg_field(body, fields[i].code);
        if (value.n == 0)
            continue;
        iok_tape_static(tape, IOK_TEXT, iok_span_of(fields[i].name));
        if ((fields[i].code == 'P' || fields[i].code == 'p') && iok_span_i64(value, &number))
            iok_tape_i64(tape, number);
        else
            iok_tape_copy(tape, IOK_TEXT, 0, value);
        n++;
    }
    if (with_text) {
        iok_tape_static(tape, IOK_TEXT, iok_span_of("message"));
        iok_tape_copy(tape, IOK_TEXT, 0, pg_field(body, 'M'));
        n++;
    }
    iok_tape_patch(tape, head, n);
}

void pg_put_error(struct iok_tape *tape, const char *sqlstate, const char *text)
{
    iok_tape_head(tape, IOK_ATTR, 2);
    iok_tape_static(tape, IOK_TEXT, iok_span_of("severity"));
    iok_tape_static(tape, IOK_TEXT, iok_span_of("ERROR"));
    iok_tape_static(tape, IOK_TEXT, iok_span_of("sqlstate"));
    iok_tape_static(tape, IOK_TEXT, iok_span_of(sqlstate));
    iok_tape_static(tape, IOK_ERROR, iok_span_of(text));
}
