/* postgres_cache.c - the prepared statements of one connection: by their text, in a fixed number of slots.
 *
 * A slot's statement has the slot's number as its name on the server, so that no more than that can ever be there;
 * before another takes the name, the old one is closed. A slot is not given to another while a request that uses it
 * is under way, as its answer is read by the slot's shape.
 *
 * A pooler that gives each transaction another connection to the server breaks this: a name that was given on one means
 * something else on the next, or nothing. So behind one, nothing is kept (see postgres.c). */
#include "postgres.h"

#include "../base/mem.h"

void pg_shape_clear(struct pg_shape *shape)
{
    iok_free(shape->params);
    iok_free(shape->types);
    pg_bytes_free(&shape->description);
    *shape = (struct pg_shape){0};
}

static int garbled(struct iok_io *io, const char *what)
{
    return iok_io_fail(io, IOK_EPROTO, "a %s message that is not well formed", what);
}

/* [PG] "Message Formats": ParameterDescription */
int pg_shape_params(struct pg_shape *shape, struct iok_io *io, struct iok_span body)
{
    if (body.n < 2 || body.n != 2 + 4 * (size_t)pg_u16(body.p))
        return garbled(io, "ParameterDescription");
    uint32_t n = pg_u16(body.p);
    iok_free(shape->params);
    shape->n_params = 0;
    shape->params = iok_malloc(4 * (size_t)n + (n == 0));
    if (shape->params == NULL)
        return iok_io_fail(io, IOK_ENOMEM, "out of memory for a statement");
    for (uint32_t i = 0; i < n; i++)
        shape->params[i] = pg_u32(body.p + 2 + (size_t)4 * i);
    shape->n_params = n;
    return 0;
}

/* RowDescription: of each column its name, then 18 octets, of which those from 6 on are its type's OID. */
int pg_shape_columns(struct pg_shape *shape, struct iok_io *io, struct iok_span body)
{
    struct iok_span name, rest = body;
    if (body.n < 2)
        return garbled(io, "RowDescription");
    uint32_t n = pg_u16(body.p);
    iok_free(shape->types);
    shape->n_columns = 0;
    shape->description.n = 0;
    shape->types = iok_malloc(2 * (size_t)n + (n == 0));
    if (shape->types == NULL || !pg_bytes_put(&shape->description, body))
        return iok_io_fail(io, IOK_ENOMEM, "out of memory for a statement");
    rest = iok_span_skip(rest, 2);
    for (uint32_t i = 0; i < n; i++) {
        if (!pg_take_cstring(&rest, &name) || rest.n < 18)
            return garbled(io, "RowDescription");
        shape->types[i] = pg_type_of(pg_u32(rest.p + 6));
        rest = iok_span_skip(rest, 18);
    }
    shape->n_columns = n;
    return rest.n > 0 ? garbled(io, "RowDescription") : 0;
}

int pg_cache_open(struct pg_cache *cache, uint32_t capacity)
{
    cache->capacity = capacity;
    for (size_t i = 0; i < PG_BUCKETS; i++)
        cache->buckets[i] = PG_NO_SLOT;
    if (capacity == 0)
        return 0;
    cache->slots = iok_calloc(capacity * sizeof(*cache->slots));
    return cache->slots == NULL ? IOK_ENOMEM : 0;
}

void pg_cache_close(struct pg_cache *cache)
{
    for (uint32_t i = 0; cache->slots != NULL && i < cache->capacity; i++) {
        pg_bytes_free(&cache->slots[i].sql);
        pg_shape_clear(&cache->slots[i].shape);
    }
    iok_free(cache->slots);
    cache->slots = NULL;
    cache->capacity = 0;
}

/* FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv; the program's own texts, so nobody chooses collisions. */
static uint32_t hash_of(struct iok_span sql, uint64_t octets)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ octets;
    for (size_t i = 0; i < sql.n; i++)
        hash = (hash ^ sql.p[i]) * UINT64_C(0x100000001b3);
    return (uint32_t)(hash ^ hash >> 32);
}

uint32_t pg_cache_find(struct pg_cache *cache, struct iok_span sql, uint64_t octets)
{
    if (cache->capacity == 0 || cache->unnamed)
        return PG_NO_SLOT;
    uint32_t hash = hash_of(sql, octets);
    for (uint32_t slot = cache->buckets[hash % PG_BUCKETS]; slot != PG_NO_SLOT; slot = cache->slots[slot].next) {
        struct pg_statement *statement = &cache->slots[slot];
        if (statement->hash == hash && statement->octets == octets &&
            iok_span_eq(sql, iok_span(statement->sql.p, statement->sql.n))) {
            statement->used_at = ++cache->clock;
            return slot;
        }
    }
    return PG_NO_SLOT;
}

static void unlink_slot(struct pg_cache *cache, uint32_t slot)
{
    uint32_t *at = &cache->buckets[cache->slots[slot].hash % PG_BUCKETS];
    while (*at != PG_NO_SLOT && *at != slot)
        at = &cache->slots[*at].next;
    if (*at == slot)
        *at = cache->slots[slot].next;
}

static void empty(struct pg_statement *statement)
{
    pg_bytes_free(&statement->sql);
    pg_shape_clear(&statement->shape);
    statement->state = PG_FREE;
}

/* A free slot, or that of the statement whose last use is longest ago. */
static uint32_t choose(struct pg_cache *cache)
{
    uint32_t best = PG_NO_SLOT;
    for (uint32_t slot = 0; slot < cache->capacity; slot++) {
        const struct pg_statement *statement = &cache->slots[slot];
        if (statement->uses > 0)
            continue;
        if (statement->state == PG_FREE)
            return slot;
        if (best == PG_NO_SLOT || statement->used_at < cache->slots[best].used_at)
            best = slot;
    }
    return best;
}

uint32_t pg_cache_add(struct pg_cache *cache, struct iok_span sql, uint64_t octets, int *error)
{
    *error = 0;
    if (cache->capacity == 0 || cache->unnamed || sql.n > PG_SQL_CACHED_MAX)
        return PG_NO_SLOT;
    uint32_t slot = choose(cache);
    if (slot == PG_NO_SLOT)
        return PG_NO_SLOT;
    struct pg_statement *statement = &cache->slots[slot];
    if (statement->state == PG_KNOWN)
        pg_cache_retire(cache, slot);
    if (!pg_bytes_put(&statement->sql, sql)) {
        *error = IOK_ENOMEM;
        return PG_NO_SLOT;
    }
    statement->state = PG_PARSING;
    statement->octets = octets;
    statement->hash = hash_of(sql, octets);
    statement->used_at = ++cache->clock;
    statement->next = cache->buckets[statement->hash % PG_BUCKETS];
    cache->buckets[statement->hash % PG_BUCKETS] = slot;
    return slot;
}

void pg_cache_release(struct pg_cache *cache, uint32_t slot)
{
    struct pg_statement *statement = &cache->slots[slot];
    statement->uses--;
    if (statement->uses == 0 && statement->state == PG_STALE)
        empty(statement);
}

void pg_cache_retire(struct pg_cache *cache, uint32_t slot)
{
    struct pg_statement *statement = &cache->slots[slot];
    if (statement->state != PG_PARSING && statement->state != PG_KNOWN)
        return;
    unlink_slot(cache, slot);
    statement->state = PG_STALE;
    if (statement->uses == 0)
        empty(statement);
}

void pg_cache_retire_all(struct pg_cache *cache)
{
    for (uint32_t slot = 0; slot < cache->capacity; slot++)
        pg_cache_retire(cache, slot);
}

void pg_cache_end_names(struct pg_cache *cache)
{
    pg_cache_retire_all(cache);
    cache->unnamed = true;
}
