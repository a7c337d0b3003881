/* postgres_types.c - the types that the codec knows, by their OIDs, which are the same in each server: src/include/catalog/
 * pg_type.dat. Types that a database has of its own are not among them: their OIDs differ, so their values pass as text. */
#include "postgres.h"

static const struct type {
    uint32_t oid;
    uint32_t array; /* the OID of its arrays; 0: those come as text */
    uint16_t type;  /* how its values are decoded */
    const char *name;
} types[] = {
    {16, 1000, PG_BOOL, "boolean"},
    {17, 1001, PG_BYTEA, "bytea"},
    {18, 1002, PG_OTHER, "\"char\""},
    {19, 1003, PG_UNKNOWN, "name"},
    {20, 1016, PG_INT8, "bigint"},
    {21, 1005, PG_INT2, "smallint"},
    {23, 1007, PG_INT4, "integer"},
    {24, 1008, PG_OTHER, "regproc"},
    {25, 1009, PG_UNKNOWN, "text"},
    {26, 1028, PG_OID, "oid"},
    {27, 1010, PG_OTHER, "tid"},
    {28, 1011, PG_OTHER, "xid"},
    {29, 1012, PG_OTHER, "cid"},
    {114, 199, PG_UNKNOWN, "json"},
    {142, 143, PG_OTHER, "xml"},
    {600, 1017, PG_OTHER, "point"},
    {601, 1018, PG_OTHER, "lseg"},
    {602, 1019, PG_OTHER, "path"},
    {603, 0, PG_OTHER, "box"}, /* its arrays' elements are separated by semicolons */
    {604, 1027, PG_OTHER, "polygon"},
    {628, 629, PG_OTHER, "line"},
    {650, 651, PG_CIDR, "cidr"},
    {700, 1021, PG_FLOAT4, "real"},
    {701, 1022, PG_FLOAT8, "double precision"},
    {718, 719, PG_OTHER, "circle"},
    {774, 775, PG_MACADDR8, "macaddr8"},
    {790, 791, PG_OTHER, "money"},
    {829, 1040, PG_MACADDR, "macaddr"},
    {869, 1041, PG_INET, "inet"},
    {1033, 1034, PG_OTHER, "aclitem"},
    {1042, 1014, PG_UNKNOWN, "character"},
    {1043, 1015, PG_UNKNOWN, "character varying"},
    {1082, 1182, PG_DATE, "date"},
    {1083, 1183, PG_TIME, "time"},
    {1114, 1115, PG_TIMESTAMP, "timestamp"},
    {1184, 1185, PG_TIMESTAMPTZ, "timestamp with time zone"},
    {1186, 1187, PG_INTERVAL, "interval"},
    {1266, 1270, PG_TIMETZ, "time with time zone"},
    {1560, 1561, PG_BIT, "bit"},
    {1562, 1563, PG_BIT, "bit varying"},
    {1700, 1231, PG_NUMERIC, "numeric"},
    {1790, 2201, PG_OTHER, "refcursor"},
    {2202, 2207, PG_OTHER, "regprocedure"},
    {2203, 2208, PG_OTHER, "regoper"},
    {2204, 2209, PG_OTHER, "regoperator"},
    {2205, 2210, PG_OTHER, "regclass"},
    {2206, 2211, PG_OTHER, "regtype"},
    {2950, 2951, PG_UUID, "uuid"},
    {2970, 2949, PG_OTHER, "txid_snapshot"},
    {3220, 3221, PG_OTHER, "pg_lsn"},
    {3614, 3643, PG_OTHER, "tsvector"},
    {3615, 3645, PG_OTHER, "tsquery"},
    {3734, 3735, PG_OTHER, "regconfig"},
    {3769, 3770, PG_OTHER, "regdictionary"},
    {3802, 3807, PG_JSONB, "jsonb"},
    {3904, 3905, PG_RANGE | PG_INT4, "int4range"},
    {3906, 3907, PG_RANGE | PG_NUMERIC, "numrange"},
    {3908, 3909, PG_RANGE | PG_TIMESTAMP, "tsrange"},
    {3910, 3911, PG_RANGE | PG_TIMESTAMPTZ, "tstzrange"},
    {3912, 3913, PG_RANGE | PG_DATE, "daterange"},
    {3926, 3927, PG_RANGE | PG_INT8, "int8range"},
    {4072, 4073, PG_OTHER, "jsonpath"},
    {4089, 4090, PG_OTHER, "regnamespace"},
    {4096, 4097, PG_OTHER, "regrole"},
    {4191, 4192, PG_OTHER, "regcollation"},
    {4451, 6150, PG_MULTIRANGE | PG_INT4, "int4multirange"},
    {4532, 6151, PG_MULTIRANGE | PG_NUMERIC, "nummultirange"},
    {4533, 6152, PG_MULTIRANGE | PG_TIMESTAMP, "tsmultirange"},
    {4534, 6153, PG_MULTIRANGE | PG_TIMESTAMPTZ, "tstzmultirange"},
    {4535, 6155, PG_MULTIRANGE | PG_DATE, "datemultirange"},
    {4536, 6157, PG_MULTIRANGE | PG_INT8, "int8multirange"},
    {5038, 5039, PG_OTHER, "pg_snapshot"},
    {5069, 271, PG_OTHER, "xid8"},
};
#define TYPES (sizeof(types) / sizeof(*types))

/* Sorted by OID, and looked for once for each column and parameter of a new statement. */
static const struct type *find(uint32_t oid)
{
    size_t low = 0, high = TYPES;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (types[middle].oid == oid)
            return &types[middle];
        if (types[middle].oid < oid)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static const struct type *find_array(uint32_t oid)
{
    for (size_t i = 0; oid != 0 && i < TYPES; i++)
        if (types[i].array == oid)
            return &types[i];
    return NULL;
}

uint16_t pg_type_of(uint32_t oid)
{
    const struct type *type = find(oid), *element = type == NULL ? find_array(oid) : NULL;
    if (element != NULL)
        return PG_ARRAY | element->type;
    /* As a scalar jsonb is text in its text form, and that is the shorter way. */
    return type == NULL || type->type == PG_OTHER || type->type == PG_JSONB ? PG_UNKNOWN : type->type;
}

const char *pg_type_name(uint32_t oid, bool *array)
{
    const struct type *type = find(oid), *element = type == NULL ? find_array(oid) : NULL;
    *array = element != NULL;
    return type != NULL ? type->name : element != NULL ? element->name : NULL;
}

uint32_t pg_element_of(uint32_t oid)
{
    const struct type *element = find_array(oid);
    return element == NULL ? 0 : element->oid;
}

bool pg_type_binary(uint16_t type)
{
    return type != PG_UNKNOWN && type != (PG_ARRAY | PG_OTHER);
}

bool pg_type_raw(uint16_t type, bool binary)
{
    return type == PG_UNKNOWN || (type == PG_BYTEA && binary);
}
