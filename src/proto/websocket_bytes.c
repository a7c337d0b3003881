/* websocket_bytes.c - masks and UTF-8: the two things that touch each octet of a message, so the only ones that are made
 * with an eye on speed. No state beyond what they are given. */
#include "websocket_private.h"

#define HIGH_BITS UINT64_C(0x8080808080808080)
#define BLOCK_BYTES 128u

static inline uint64_t word_at(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof(word));
    return word;
}

/* ---- UTF-8: RFC 3629 -------------------------------------------------------------------------------------------- */

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

static bool is_ascii(const uint8_t *p)
{
    uint64_t bits = 0;
    for (size_t i = 0; i < BLOCK_BYTES; i += sizeof(bits))
        bits |= word_at(p + i);
    return (bits & HIGH_BITS) == 0;
}

/* Each octet with the three before it, which are there and were looked at: no branches, so that compilers make vectors of
 * it. Whether the last character is whole is not seen. */
static bool is_block(const uint8_t *p)
{
    unsigned char wrong = 0;
    for (size_t i = 0; i < BLOCK_BYTES; i++) {
        uint8_t c = p[i], first = *(p + i - 1), second = *(p + i - 2), third = *(p + i - 3);
        unsigned char is_next = (c & 0xc0) == 0x80;
        unsigned char is_due = (first >= 0xc0) | (second >= 0xe0) | (third >= 0xf0);
        unsigned char is_out = ((first == 0xe0) & (c < 0xa0)) | ((first == 0xed) & (c >= 0xa0)) |
                               ((first == 0xf0) & (c < 0x90)) | ((first == 0xf4) & (c >= 0x90));
        wrong |= (is_next ^ is_due) | is_out | ((c & 0xfe) == 0xc0) | (c >= 0xf5);
    }
    return wrong == 0;
}

/* How many of the three octets before p belong to a character that is not whole there. */
static size_t unfinished(const uint8_t *p)
{
    if (*(p - 1) >= 0xc0)
        return 1;
    if (*(p - 2) >= 0xe0)
        return 2;
    return *(p - 3) >= 0xf0 ? 3 : 0;
}

/* As many blocks from p on as there are, up to a character's end; SIZE_MAX: they are not valid. */
static size_t skip_blocks(const uint8_t *p, size_t n)
{
    size_t i = 0;
    for (; n - i >= BLOCK_BYTES; i += BLOCK_BYTES)
        if (!(is_ascii(p + i) && unfinished(p + i) == 0) && !is_block(p + i))
            return SIZE_MAX;
    return i - unfinished(p + i);
}

bool ws_utf8_take(struct ws_utf8 *at, struct iok_span text)
{
    struct ws_utf8 now = *at;
    for (size_t i = 0; i < text.n; i++) {
        if (i >= 3 && now.missing == 0 && text.n - i >= BLOCK_BYTES) {
            size_t skipped = skip_blocks(text.p + i, text.n - i);
            if (skipped == SIZE_MAX)
                return false;
            i += skipped;
            if (i == text.n)
                break;
        }
        if (now.missing > 0 ? !go_on(&now, text.p[i]) : text.p[i] >= 0x80 && !begin_character(&now, text.p[i]))
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
