/* saslprep.c - SASLprep (RFC 4013): mapping, normal form NFKC, what is prohibited, and both directions of writing.
 *
 * What it is not: a library of Unicode. Its tables are made when it is built, by tools/saslprep_tables.py.
 *
 * Invariant: two ways to type the same password give the same bytes; and a password that cannot be prepared goes as it
 * is, as the server has it then, too (PostgreSQL's pg_saslprep). */
#include "saslprep.h"

#include "../base/digest.h"
#include "../base/mem.h"

struct range {
    uint32_t first, last;
};
/* Its full decomposition: n units of UTF-16. */
struct expansion {
    uint32_t code : 24, n : 8;
    uint16_t at; /* in units */
};
struct pair {
    uint32_t first, second, composed;
};
/* The canonical combining class, if it is not 0. */
struct rank {
    uint32_t code : 24, rank : 8;
};

#include "saslprep_tables.h"

#define COUNT(table) (sizeof(table) / sizeof(*(table)))

/* Unicode, section 3.12: Hangul syllables are composed by arithmetic. */
enum { S_BASE = 0xac00, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11a7, L_COUNT = 19, V_COUNT = 21, T_COUNT = 28 };
#define S_COUNT (L_COUNT * V_COUNT * T_COUNT)

#define EXPANSION_MAX 18u /* U+FDFA; checked where it is expanded */

/* ---- tables --------------------------------------------------------------------------------------------------- */

static bool is_in(const struct range *ranges, size_t n, uint32_t code)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (ranges[middle].last < code)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && ranges[low].first <= code;
}
#define IS_IN(table, code) is_in(table, COUNT(table), code)

static uint32_t rank_of(uint32_t code)
{
    size_t low = 0, high = COUNT(ranks);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (ranks[middle].code < code)
            low = middle + 1;
        else
            high = middle;
    }
    return low < COUNT(ranks) && ranks[low].code == code ? ranks[low].rank : 0;
}

static const struct expansion *expansion_of(uint32_t code)
{
    size_t low = 0, high = COUNT(expansions);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (expansions[middle].code < code)
            low = middle + 1;
        else
            high = middle;
    }
    return low < COUNT(expansions) && expansions[low].code == code ? &expansions[low] : NULL;
}

/* 0: they do not compose. */
static uint32_t composed(uint32_t first, uint32_t second)
{
    size_t low = 0, high = COUNT(pairs);
    if (first - L_BASE < L_COUNT && second - V_BASE < V_COUNT)
        return S_BASE + ((first - L_BASE) * V_COUNT + (second - V_BASE)) * T_COUNT;
    if (first - S_BASE < S_COUNT && (first - S_BASE) % T_COUNT == 0 && second - T_BASE - 1 < T_COUNT - 1)
        return first + (second - T_BASE);
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct pair *pair = &pairs[middle];
        if (pair->first < first || (pair->first == first && pair->second < second))
            low = middle + 1;
        else
            high = middle;
    }
    return low < COUNT(pairs) && pairs[low].first == first && pairs[low].second == second ? pairs[low].composed : 0;
}

/* ---- UTF-8 ---------------------------------------------------------------------------------------------------- */

/* RFC 3629: the next character, strictly; false if it is none. */
static bool take_code(struct iok_span *text, uint32_t *code)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint8_t head = text->p[0];
    size_t n = head < 0x80 ? 1 : head >= 0xf0 ? 4 : head >= 0xe0 ? 3 : 2;
    if ((head >= 0x80 && head < 0xc2) || head > 0xf4 || text->n < n)
        return false;
    *code = n == 1 ? head : head & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((text->p[i] & 0xc0) != 0x80)
            return false;
        *code = *code << 6 | (text->p[i] & 0x3f);
    }
    *text = iok_span_skip(*text, n);
    return *code >= least[n] && *code <= 0x10ffff && (*code < 0xd800 || *code > 0xdfff);
}

static size_t put_code(uint8_t *at, uint32_t code)
{
    size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const uint8_t heads[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n; i-- > 1; code >>= 6)
        at[i] = (uint8_t)(0x80 | (code & 0x3f));
    at[0] = (uint8_t)(heads[n] | code);
    return n;
}

/* ---- the steps of RFC 4013, section 2 -------------------------------------------------------------------------- */

/* Appends a character's full decomposition; how much that is. */
static size_t expand(uint32_t *at, uint32_t code)
{
    size_t n = 0;
    if (code - S_BASE < S_COUNT) {
        at[n++] = L_BASE + (code - S_BASE) / (V_COUNT * T_COUNT);
        at[n++] = V_BASE + (code - S_BASE) % (V_COUNT * T_COUNT) / T_COUNT;
        if ((code - S_BASE) % T_COUNT != 0)
            at[n++] = T_BASE + (code - S_BASE) % T_COUNT;
        return n;
    }
    const struct expansion *expansion = expansion_of(code);
    if (expansion == NULL) {
        at[0] = code;
        return 1;
    }
    const uint16_t *unit = &units[expansion->at], *end = unit + expansion->n;
    for (; unit < end; n++, unit++) {
        at[n] = *unit;
        if (at[n] >= 0xd800 && at[n] <= 0xdbff) {
            unit++;
            at[n] = 0x10000 + ((at[n] - 0xd800) << 10) + (*unit - 0xdc00u);
        }
    }
    return n;
}

/* 2.1 and the first half of 2.2: SIZE_MAX if it is not UTF-8. */
static size_t map(struct iok_span text, uint32_t *codes)
{
    size_t n = 0;
    while (text.n > 0) {
        uint32_t code;
        if (!take_code(&text, &code))
            return SIZE_MAX;
        if (IS_IN(spaces, code))
            codes[n++] = ' ';
        else if (!IS_IN(nothing, code))
            n += expand(codes + n, code);
    }
    return n;
}

/* Marks of one character in the order of their classes, as a stable sort. */
static void arrange(uint32_t *codes, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        uint32_t code = codes[i], rank = rank_of(code);
        size_t k = i;
        for (; rank > 0 && k > 0 && rank_of(codes[k - 1]) > rank; k--)
            codes[k] = codes[k - 1];
        codes[k] = code;
    }
}

/* How many are left. A mark joins the last character before it that is none, unless one of the same or a higher class
 * stands between. */
static size_t compose(uint32_t *codes, size_t n)
{
    size_t kept = 0, base = SIZE_MAX;
    uint32_t before = 0; /* the class of the last that was kept */
    for (size_t i = 0; i < n; i++) {
        uint32_t rank = rank_of(codes[i]), whole = 0;
        if (base != SIZE_MAX && (kept - 1 == base || before < rank))
            whole = composed(codes[base], codes[i]);
        if (whole != 0) {
            codes[base] = whole;
            continue;
        }
        base = rank == 0 ? kept : base;
        before = rank;
        codes[kept++] = codes[i];
    }
    return kept;
}

/* 2.3, 2.4 and 2.5. */
static bool is_allowed(const uint32_t *codes, size_t n)
{
    bool left = false, right = false;
    for (size_t i = 0; i < n; i++) {
        if (IS_IN(prohibited, codes[i]) || IS_IN(unassigned, codes[i]))
            return false;
        left |= IS_IN(leftward, codes[i]);
        right |= IS_IN(rightward, codes[i]);
    }
    return n > 0 && (!left || (!right && IS_IN(leftward, codes[0]) && IS_IN(leftward, codes[n - 1])));
}

static bool is_ascii(struct iok_span text)
{
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] >= 0x80)
            return false;
    return true;
}

bool iok_saslprep(struct iok_span password, struct iok_span *out, uint8_t **memory)
{
    *out = password;
    *memory = NULL;
    if (is_ascii(password))
        return true;
    /* A character has two octets at least if it is not one of ASCII, which expand to themselves. */
    size_t room = (password.n + 1) / 2 * EXPANSION_MAX;
    uint32_t *codes = iok_malloc(room * sizeof(*codes));
    if (codes == NULL)
        return false;
    size_t n = map(password, codes);
    if (n != SIZE_MAX) {
        arrange(codes, n);
        n = compose(codes, n);
    }
    if (n != SIZE_MAX && is_allowed(codes, n)) {
        *memory = iok_malloc(n * 4);
        if (*memory != NULL) {
            size_t bytes = 0;
            for (size_t i = 0; i < n; i++)
                bytes += put_code(*memory + bytes, codes[i]);
            *out = iok_span(*memory, bytes);
        }
    } else {
        n = 0;
    }
    iok_wipe(codes, room * sizeof(*codes));
    iok_free(codes);
    return n == 0 || *memory != NULL;
}
