/* saslprep.h - a password as SCRAM hashes it: SASLprep (RFC 4013), with what PostgreSQL does where it does not apply. */
#ifndef IOK_PROTO_SASLPREP_H
#define IOK_PROTO_SASLPREP_H

#include "../base/span.h"

/* Prepares a password. It stays as it is when it is ASCII, when it is not UTF-8, when nothing would be left, and when
 * something is in it that SASLprep prohibits. *out is then the same bytes, else in *memory, which is for iok_free; wipe it
 * before. false: out of memory. */
bool iok_saslprep(struct iok_span password, struct iok_span *out, uint8_t **memory);

#endif
