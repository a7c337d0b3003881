/* websocket_bytes.c - masks and UTF-8: the two things that touch each octet of a message, so the only ones that are made
 * with an eye on speed. No state beyond what they are given. */
#include "websocket_private.h"

#define HIGH_BITS UINT64_C(0x8080808080808080)

static inline uint64_t word_at(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof(word));
    return word;
}

/* ---- UTF-8: RFC 3629 -------------------------------------------------------------------------------------------- */

/* How many octets from p on are ASCII, in steps of 32, at most n. */
static size_t skip_ascii(const uint8_t *p, size_t n)
{
    size_t i = 0;
    while (n - i >= 32 &&
           ((word_at(p + i) | word_at(p + i + 8) | word_at(p + i + 16) | word_at(p + i + 24)) & HIGH_BITS) == 0)
        i += 32;
    return i;
}

/* What has to follow a character's first octet: section 4. false: none begins with it. */
static inline bool begin_character(struct ws_utf8 *at, uint8_t c)
{
    if (c < 0xc2 || c > 0xf4)
        return false;
    at->missing = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
    at->low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;  /* no longer than needed */
    at->high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf; /* no surrogates, nothing above U+10FFFF */
    return true;
}

static inline bool go_on(struct ws_utf8 *at, uint8_t c)
{
    if (c < at->low || c > at->high)
        return false;
    at->low = 0x80;
    at->high = 0xbf;
    at->missing--;
    return true;
}

bool ws_utf8_take(struct ws_utf8 *at, struct iok_span text)
{
    struct ws_utf8 now = *at;
    const uint8_t *p = text.p;
    size_t i = 0;
    for (; i < text.n && now.missing > 0; i++)
        if (!go_on(&now, p[i]))
            return false;
    while (i < text.n) {
        if (p[i] < 0x80) {
            i += skip_ascii(p + i, text.n - i);
            for (; i < text.n && p[i] < 0x80; i++)
                ;
            continue;
        }
        if (!begin_character(&now, p[i]))
            return false;
        for (i++; i < text.n && now.missing > 0; i++)
            if (!go_on(&now, p[i]))
                return false;
    }
    *at = now;
    return true;
}

bool ws_utf8_is_valid(struct iok_span text)
{
    struct ws_utf8 at = {0};
    return ws_utf8_take(&at, text) && at.missing == 0;
}

/* ---- masks ------------------------------------------------------------------------------------------------------ */

void ws_mask(uint8_t *to, const uint8_t *from, size_t n, const uint8_t mask[4], uint64_t phase)
{
    uint8_t turned[8];
    size_t i = 0;
    for (size_t k = 0; k < sizeof(turned); k++)
        turned[k] = mask[(phase + k) & 3];
    uint64_t word = word_at(turned);
    for (; n - i >= sizeof(word); i += sizeof(word)) {
        uint64_t masked = word_at(from + i) ^ word;
        memcpy(to + i, &masked, sizeof(masked));
    }
    for (size_t k = 0; i < n; i++, k++)
        to[i] = from[i] ^ turned[k];
}
