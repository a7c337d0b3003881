/* test_websocket_bytes.c - UTF-8 and masks of WebSocket against slow and simple ones, at all places of a text, however it
 * is cut. IOK_SEED=n repeats the random texts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "../../src/proto/websocket_private.h"

static uint64_t seed, random_state;

static size_t any(size_t below)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407); /* Knuth's MMIX */
    return (size_t)(random_state >> 33) % below;
}

/* ---- UTF-8 by its definition: a text is valid if it is what its code points are written as. ------------------------ */

static size_t write_character(uint32_t c, uint8_t out[4])
{
    if (c < 0x80)
        return out[0] = (uint8_t)c, 1;
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; c >>= 6)
        out[i] = (uint8_t)(0x80 | (c & 0x3f));
    out[0] = (uint8_t)((0xf00u >> n) | c);
    return n;
}

/* Whether some character, but a surrogate, begins with these octets; *whole: it is all of them. */
static bool begins_character(const uint8_t *p, size_t n, bool *whole)
{
    static bool known[2][1u << 16]; /* by the first octet, and by the first two */
    static bool made;
    uint8_t out[4];
    *whole = false;
    for (uint32_t c = 0; !made && c < 0x110000; c++) {
        if (c == 0xd800)
            c = 0xe000;
        write_character(c, out);
        known[0][out[0]] = true;
        known[1][out[0] << 8 | out[1]] |= c >= 0x80;
    }
    made = true;
    size_t length = p[0] < 0x80 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (!known[0][p[0]] || (n > 1 && length > 1 && !known[1][p[0] << 8 | p[1]]))
        return false;
    for (size_t i = 2; i < n && i < length; i++)
        if (p[i] < 0x80 || p[i] > 0xbf)
            return false;
    *whole = n >= length;
    return true;
}

/* Where the first octet is at which the text cannot become valid any more; n: nowhere. *whole: it ends with a character. */
static size_t first_wrong(const uint8_t *p, size_t n, bool *whole)
{
    size_t i = 0;
    *whole = true;
    while (i < n) {
        size_t length = 0;
        bool done = false;
        while (!done && i + length < n) {
            if (!begins_character(p + i, length + 1, &done))
                return i + length;
            length++;
        }
        *whole = done;
        i += length;
    }
    return n;
}

static void check_text(const uint8_t *text, size_t n)
{
    bool whole;
    size_t wrong = first_wrong(text, n, &whole);
    uint8_t *exact = malloc(n + 1); /* of exactly that size, so that sanitizers see each look beyond */
    assert_non_null(exact);
    memcpy(exact, text, n);
    assert_int_equal(ws_utf8_is_valid(iok_span(exact, n)), wrong == n && whole);
    for (unsigned round = 0; round < 3; round++) {
        struct ws_utf8 at = {0};
        bool valid = true;
        size_t i = 0;
        while (i < n && valid) {
            size_t some = round == 0 ? 1 : 1 + any(round == 1 ? 9 : n);
            some = some < n - i ? some : n - i;
            valid = ws_utf8_take(&at, iok_span(exact + i, some));
            i += some;
            if (valid != (wrong >= i))
                fail_msg("IOK_SEED=%llu: %s at octet %zu of %zu; the first wrong one is %zu", (unsigned long long)seed,
                         valid ? "valid" : "refused", i, n, wrong);
        }
        if (valid)
            assert_int_equal(at.missing == 0, whole);
    }
    free(exact);
}

/* Every character, and every two octets, alone. */
static void test_characters(void **state)
{
    uint8_t text[4];
    (void)state;
    for (uint32_t c = 0; c < 0x110000; c++) {
        size_t n = write_character(c, text);
        assert_int_equal(ws_utf8_is_valid(iok_span(text, n)), c < 0xd800 || c > 0xdfff);
        if (n > 1)
            assert_false(ws_utf8_is_valid(iok_span(text, n - 1)));
    }
    for (uint32_t i = 0; i < 65536; i++) {
        text[0] = (uint8_t)(i >> 8);
        text[1] = (uint8_t)i;
        check_text(text, 2);
    }
}

/* Long texts of all kinds of characters, most with one octet that is another, or not whole. */
static void test_texts(void **state)
{
    static uint8_t text[1200];
    (void)state;
    random_state = seed;
    for (unsigned run = 0; run < 4000; run++) {
        size_t n = 0, kind = any(5), most = 1 + any(sizeof(text) - 8);
        while (n < most) {
            size_t what = kind < 4 ? kind : any(4);
            uint32_t c = what == 0   ? (uint32_t)any(0x80)
                         : what == 1 ? 0x80 + (uint32_t)any(0x780)
                         : what == 2 ? 0x800 + (uint32_t)any(0xd000)
                                     : 0x10000 + (uint32_t)any(0x100000);
            n += write_character(any(8) == 0 ? (uint32_t)any(0x80) : c, text + n);
        }
        if (any(4) > 0)
            text[any(n)] = (uint8_t)any(256);
        size_t less = any(3) == 0 ? any(3) : 0;
        n -= less < n ? less : 0;
        check_text(text, n);
    }
}

/* A character that is not whole, at each place, and nothing but ASCII behind it. */
static void test_stumps(void **state)
{
    static const char *const stumps[] = {"\xc3", "\xe2", "\xe2\x82", "\xf0", "\xf0\x9f", "\xf0\x9f\x98"};
    static uint8_t text[700];
    (void)state;
    for (size_t i = 0; i < 6; i++)
        for (size_t at = 0; at < 300; at++) {
            memset(text, 'a', sizeof(text));
            memcpy(text + at, stumps[i], strlen(stumps[i]));
            check_text(text, sizeof(text));
        }
}

/* ---- masks ------------------------------------------------------------------------------------------------------- */

static void test_masks(void **state)
{
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    uint8_t from[80], to[80];
    (void)state;
    for (size_t i = 0; i < sizeof(from); i++)
        from[i] = (uint8_t)(i * 7);
    for (size_t n = 0; n <= 64; n++)
        for (size_t at = 0; at < 9; at++)
            for (uint64_t phase = 0; phase < 5; phase++) {
                memset(to, 0xee, sizeof(to));
                ws_mask(to, from + at, n, mask, phase);
                for (size_t i = 0; i < n; i++)
                    assert_int_equal(to[i], from[at + i] ^ mask[(i + phase) % 4]);
                assert_int_equal(to[n], 0xee);
                ws_mask(to, to, n, mask, phase);
                assert_memory_equal(to, from + at, n);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_characters),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_stumps),
        cmocka_unit_test(test_masks),
    };
    const char *given = getenv("IOK_SEED");

    seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
