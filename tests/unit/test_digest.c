/* test_digest.c - digests against the examples of their specifications; base64 both ways. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/base/digest.h"

static void check_hex(const uint8_t *got, size_t n, const char *wanted)
{
    char hex[2 * IOK_SHA256_BYTES + 1];

    for (size_t i = 0; i < n; i++) {
        snprintf(hex + 2 * i, 3, "%02x", got[i]);
    }
    assert_string_equal(hex, wanted);
}

static void test_digests(void **state)
{
    uint8_t out[IOK_SHA256_BYTES], changed[IOK_SHA256_BYTES];

    (void)state;
    assert_true(iok_sha256(iok_span_of("abc"), out)); /* FIPS 180-4 */
    check_hex(out, sizeof(out), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_true(iok_md5(iok_span_of("abc"), out)); /* RFC 1321 */
    check_hex(out, IOK_MD5_BYTES, "900150983cd24fb0d6963f7d28e17f72");
    assert_true(iok_sha1(iok_span_of("abc"), out)); /* FIPS 180-4 */
    check_hex(out, IOK_SHA1_BYTES, "a9993e364706816aba3e25717850c26c9cd0d89d");
    assert_true(iok_hmac_sha256(iok_span_of("Jefe"), iok_span_of("what do ya want for nothing?"), out)); /* RFC 4231 */
    check_hex(out, sizeof(out), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    assert_true(iok_hmac_sha256(iok_span(NULL, 0), iok_span(NULL, 0), out));
    check_hex(out, sizeof(out), "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
    assert_true(iok_pbkdf2_sha256(iok_span_of("passwd"), iok_span_of("salt"), 1, out)); /* RFC 7914 */
    check_hex(out, sizeof(out), "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc");
    assert_false(iok_pbkdf2_sha256(iok_span_of("passwd"), iok_span_of("salt"), 0, out));
    memcpy(changed, out, sizeof(out));
    assert_true(iok_digest_eq(out, changed, sizeof(out)));
    changed[31] ^= 1;
    assert_false(iok_digest_eq(out, changed, sizeof(out)));
    iok_wipe(out, sizeof(out));
    assert_int_equal(out[0] | out[31], 0);
}

static void test_base64(void **state)
{
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"}};
    static const char *const bad[] = {"Z", "Zg", "Zg=", "Z===", "====", "Zh==", "Zm9=", "Zg==Zg==", "Zm 9", "Zm9v\n"};
    char text[16];
    uint8_t bytes[16];
    size_t n;

    (void)state;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) { /* RFC 4648, section 10 */
        struct iok_span plain = iok_span_of(pairs[i][0]);

        n = iok_base64(text, plain);
        assert_int_equal(n, IOK_BASE64_BYTES(plain.n));
        assert_true(iok_span_eq(iok_span(text, n), iok_span_of(pairs[i][1])));
        assert_true(iok_base64_decode(iok_span_of(pairs[i][1]), bytes, sizeof(bytes), &n));
        assert_true(iok_span_eq(iok_span(bytes, n), plain));
        assert_true(plain.n == 0 || !iok_base64_decode(iok_span_of(pairs[i][1]), bytes, plain.n - 1, &n));
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(iok_base64_decode(iok_span_of(bad[i]), bytes, sizeof(bytes), &n));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digests),
        cmocka_unit_test(test_base64),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
