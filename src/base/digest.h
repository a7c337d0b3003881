/* digest.h - the few cryptographic functions that sign-ins and openings need, by OpenSSL; and base64. Not TLS, which is net/tls.c.
 *
 * No state, no I/O: the same result for the same input on any thread. */
#ifndef IOK_BASE_DIGEST_H
#define IOK_BASE_DIGEST_H

#include "span.h"

#define IOK_SHA256_BYTES 32u
#define IOK_SHA512_BYTES 64u
#define IOK_MD5_BYTES 16u
#define IOK_SHA1_BYTES 20u

/* false when the library refuses or is out of memory, as it does MD5 in FIPS mode. */
bool iok_sha256(struct iok_span data, uint8_t out[IOK_SHA256_BYTES]);
bool iok_md5(struct iok_span data, uint8_t out[IOK_MD5_BYTES]);
bool iok_sha1(struct iok_span data, uint8_t out[IOK_SHA1_BYTES]);
bool iok_hmac_sha256(struct iok_span key, struct iok_span data, uint8_t out[IOK_SHA256_BYTES]);
/* Takes about 0.3 microseconds for each iteration: bound them. */
bool iok_pbkdf2_sha256(struct iok_span password, struct iok_span salt, uint32_t iterations,
                       uint8_t out[IOK_SHA256_BYTES]);
/* In a time that does not depend on where they differ. */
bool iok_digest_eq(const uint8_t *a, const uint8_t *b, size_t n);
void iok_wipe(void *p, size_t n);

#define IOK_BASE64_BYTES(n) (((n) + 2) / 3 * 4)
/* Writes IOK_BASE64_BYTES(data.n) octets without a NUL; returns their number. */
size_t iok_base64(char *at, struct iok_span data);
/* Strict: false for anything but whole, padded groups of the standard alphabet, or if the result needs more than cap. */
bool iok_base64_decode(struct iok_span text, uint8_t *at, size_t cap, size_t *n);

#endif
