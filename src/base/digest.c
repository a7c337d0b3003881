/* digest.c - see digest.h. Nothing here holds on to what it was given. */
#include "digest.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

bool iok_sha256(struct iok_span data, uint8_t out[IOK_SHA256_BYTES])
{
    return EVP_Digest(data.p, data.n, out, NULL, EVP_sha256(), NULL) == 1;
}

bool iok_md5(struct iok_span data, uint8_t out[IOK_MD5_BYTES])
{
    return EVP_Digest(data.p, data.n, out, NULL, EVP_md5(), NULL) == 1;
}

bool iok_sha1(struct iok_span data, uint8_t out[IOK_SHA1_BYTES])
{
    return EVP_Digest(data.p, data.n, out, NULL, EVP_sha1(), NULL) == 1;
}

bool iok_hmac_sha256(struct iok_span key, struct iok_span data, uint8_t out[IOK_SHA256_BYTES])
{
    /* A NULL key means another thing to HMAC than an empty one. */
    const void *p = key.n > 0 ? (const void *)key.p : "";
    return key.n <= INT32_MAX && HMAC(EVP_sha256(), p, (int)key.n, data.p, data.n, out, NULL) != NULL;
}

bool iok_pbkdf2_sha256(struct iok_span password, struct iok_span salt, uint32_t iterations,
                       uint8_t out[IOK_SHA256_BYTES])
{
    if (password.n > INT32_MAX || salt.n > INT32_MAX || iterations == 0 || iterations > INT32_MAX)
        return false;
    return PKCS5_PBKDF2_HMAC((const char *)password.p, (int)password.n, salt.p, (int)salt.n, (int)iterations,
                             EVP_sha256(), IOK_SHA256_BYTES, out) == 1;
}

bool iok_digest_eq(const uint8_t *a, const uint8_t *b, size_t n)
{
    return CRYPTO_memcmp(a, b, n) == 0;
}

void iok_wipe(void *p, size_t n)
{
    OPENSSL_cleanse(p, n);
}

/* ---- base64: RFC 4648, section 4 ------------------------------------------------------------------------------- */

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t iok_base64(char *at, struct iok_span data)
{
    size_t n = 0;
    for (size_t i = 0; i < data.n; i += 3) {
        size_t left = data.n - i;
        uint32_t bits =
            (uint32_t)data.p[i] << 16 | (left > 1 ? (uint32_t)data.p[i + 1] << 8 : 0) | (left > 2 ? data.p[i + 2] : 0u);
        at[n++] = alphabet[bits >> 18];
        at[n++] = alphabet[bits >> 12 & 63];
        at[n++] = left > 1 ? alphabet[bits >> 6 & 63] : '=';
        at[n++] = left > 2 ? alphabet[bits & 63] : '=';
    }
    return n;
}

/* 64 when it is none. */
static uint32_t digit_of(uint8_t c)
{
    const char *at = c != '\0' ? strchr(alphabet, c) : NULL;
    return at != NULL ? (uint32_t)(at - alphabet) : 64;
}

bool iok_base64_decode(struct iok_span text, uint8_t *at, size_t cap, size_t *n)
{
    size_t done = 0;
    if (text.n % 4 != 0)
        return false;
    for (size_t i = 0; i < text.n; i += 4) {
        bool last = i + 4 == text.n;
        size_t padding = 0;
        if (last && text.p[i + 3] == '=')
            padding = text.p[i + 2] == '=' ? 2 : 1;
        uint32_t bits = 0;
        for (size_t k = 0; k < 4; k++) {
            uint32_t digit = k >= 4 - padding ? 0 : digit_of(text.p[i + k]);
            if (digit == 64)
                return false;
            bits = bits << 6 | digit;
        }
        if (3 - padding > cap - done || (bits & ((1u << (8 * padding)) - 1)) != 0)
            return false;
        for (size_t k = 0; k < 3 - padding; k++)
            at[done++] = (uint8_t)(bits >> (16 - 8 * k));
    }
    *n = done;
    return true;
}
