/* postgres_cursor.c - the cursors of one connection: portals whose rows are asked for a number at a time.
 *
 * A portal lives on the server until its transaction ends, and its rows are read by the shape that it was bound with,
 * whatever becomes of the statement. So a cursor keeps a copy of that. It is found by its name until it is exhausted,
 * failed, closed, or its transaction is over, and its place is taken again when no request in flight needs it.
 * [PG] "Extended Query". */
#include "postgres.h"

#include "../base/mem.h"

uint32_t pg_cursor_find(const struct pg_cursors *cursors, struct iok_span name)
{
    for (uint32_t i = 0; cursors->all != NULL && i < PG_CURSORS_MAX; i++) {
        const struct pg_cursor *cursor = &cursors->all[i];
        if (cursor->state != PG_CURSOR_FREE && cursor->state != PG_CURSOR_GONE &&
            iok_span_eq(name, iok_span_of(cursor->name)))
            return i + 1;
    }
    return PG_NO_CURSOR;
}

struct pg_cursor *pg_cursor_at(struct pg_cursors *cursors, uint32_t id)
{
    return id == PG_NO_CURSOR ? NULL : &cursors->all[id - 1];
}

uint32_t pg_cursor_add(struct pg_cursors *cursors, struct iok_span name, int *error)
{
    if (cursors->all == NULL)
        cursors->all = iok_calloc(PG_CURSORS_MAX * sizeof(*cursors->all));
    *error = cursors->all == NULL ? IOK_ENOMEM : IOK_ELIMIT;
    for (uint32_t i = 0; cursors->all != NULL && i < PG_CURSORS_MAX; i++) {
        struct pg_cursor *cursor = &cursors->all[i];
        if (cursor->state != PG_CURSOR_FREE)
            continue;
        *error = 0;
        *cursor = (struct pg_cursor){.state = PG_CURSOR_OPENING};
        memcpy(cursor->name, name.p, name.n);
        return i + 1;
    }
    return PG_NO_CURSOR;
}

static void free_unused(struct pg_cursor *cursor)
{
    if (cursor->uses == 0 && cursor->state == PG_CURSOR_GONE) {
        pg_shape_clear(&cursor->shape);
        cursor->state = PG_CURSOR_FREE;
    }
}

void pg_cursor_gone(struct pg_cursor *cursor)
{
    cursor->state = PG_CURSOR_GONE;
    free_unused(cursor);
}

void pg_cursor_release(struct pg_cursor *cursor)
{
    cursor->uses--;
    free_unused(cursor);
}

bool pg_cursor_bind(struct pg_cursor *cursor, const struct pg_shape *shape, bool binary)
{
    size_t types = shape->n_columns * sizeof(*shape->types);
    struct iok_span description = iok_span(shape->description.p, shape->description.n);
    cursor->state = PG_CURSOR_OPEN;
    cursor->binary = binary;
    cursor->shape.types = iok_malloc(types + 1);
    if (cursor->shape.types == NULL || !pg_bytes_put(&cursor->shape.description, description))
        return false;
    if (types > 0)
        memcpy(cursor->shape.types, shape->types, types);
    cursor->shape.n_columns = shape->n_columns;
    return true;
}

void pg_cursors_transaction_over(struct pg_cursors *cursors)
{
    for (uint32_t i = 0; cursors->all != NULL && i < PG_CURSORS_MAX; i++)
        if (cursors->all[i].state == PG_CURSOR_OPEN)
            pg_cursor_gone(&cursors->all[i]);
}

void pg_cursors_close(struct pg_cursors *cursors)
{
    for (uint32_t i = 0; cursors->all != NULL && i < PG_CURSORS_MAX; i++)
        pg_shape_clear(&cursors->all[i].shape);
    iok_free(cursors->all);
    *cursors = (struct pg_cursors){0};
}
