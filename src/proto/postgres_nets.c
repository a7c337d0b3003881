/* postgres_nets.c - addresses of networks and of their cards, and strings of bits, in both formats.
 *
 * An address is bytes of IOK_KIND_INET or IOK_KIND_NETWORK; what has no kind of its own is the text that the server writes. */
#include "postgres.h"

#include <arpa/inet.h>
#include <stdio.h>

#define ADDRESS_BYTES_MAX 16u

/* cidr is a network, which always has the length of its prefix; inet has one if it is not that of a whole address. */
static void put_address(struct iok_tape *tape, bool network, struct iok_span address, unsigned prefix)
{
    uint8_t bytes[ADDRESS_BYTES_MAX + 1];
    bool whole = !network && prefix == 8 * address.n;
    *pg_put_span(bytes, address) = (uint8_t)prefix;
    iok_tape_copy(tape, IOK_BYTES, network ? IOK_KIND_NETWORK : IOK_KIND_INET,
                  iok_span(bytes, address.n + (whole ? 0 : 1)));
}

/* ---- binary --------------------------------------------------------------------------------------------------- */

/* network_send: family (2 or 3), length of the prefix, whether it is a cidr, number of octets, octets. */
static bool decode_address(struct iok_tape *tape, bool network, struct iok_span value)
{
    if (value.n < 4 || (value.p[0] != 2 && value.p[0] != 3))
        return false;
    size_t n = value.p[0] == 2 ? 4 : 16;
    if (value.n != 4 + n || value.p[3] != n || value.p[1] > 8 * n)
        return false;
    put_address(tape, network, iok_span_skip(value, 4), value.p[1]);
    return true;
}

static bool decode_card(struct iok_tape *tape, struct iok_span value, size_t n)
{
    char text[3 * 8 + 1];
    if (value.n != n)
        return false;
    for (size_t i = 0; i < n; i++)
        snprintf(text + 3 * i, 4, "%02x:", value.p[i]);
    iok_tape_copy(tape, IOK_TEXT, 0, iok_span(text, 3 * n - 1));
    return true;
}

/* varbit_send: how many bits, and these, from the highest of the first octet on. As text: a digit for each. */
static bool decode_bits(struct iok_tape *tape, struct iok_span value)
{
    char digits[64];
    if (value.n < 4 || value.n - 4 != ((size_t)pg_u32(value.p) + 7) / 8)
        return false;
    uint32_t n = pg_u32(value.p);
    iok_tape_open(tape, IOK_TEXT, 0, n);
    for (uint32_t i = 0, used = 0; i < n && iok_tape_error(tape) == 0; i++) {
        digits[used++] = (value.p[4 + i / 8] >> (7 - i % 8) & 1) != 0 ? '1' : '0';
        if (used == sizeof(digits) || i + 1 == n) {
            iok_tape_fill(tape, iok_span(digits, used));
            used = 0;
        }
    }
    return true;
}

bool pg_decode_net(struct iok_tape *tape, uint16_t type, struct iok_span value)
{
    switch (type) {
    case PG_INET:
    case PG_CIDR:
        return decode_address(tape, type == PG_CIDR, value);
    case PG_MACADDR:
        return decode_card(tape, value, 6);
    case PG_MACADDR8:
        return decode_card(tape, value, 8);
    default:
        return decode_bits(tape, value);
    }
}

/* ---- text ----------------------------------------------------------------------------------------------------- */

/* 10.0.0.1, 10.0.0.0/8, ::1/64; a cidr is written with its prefix, an inet if it is not that of a whole address. */
bool pg_decode_address_text(struct iok_tape *tape, bool network, struct iok_span text)
{
    char copy[INET6_ADDRSTRLEN];
    uint8_t address[ADDRESS_BYTES_MAX];
    const uint8_t *slash = text.n > 0 ? memchr(text.p, '/', text.n) : NULL;
    size_t n = slash == NULL ? text.n : (size_t)(slash - text.p);
    if (n >= sizeof(copy))
        return false;
    *pg_put_span((uint8_t *)copy, iok_span(text.p, n)) = '\0';
    bool six = strchr(copy, ':') != NULL;
    size_t octets = six ? 16 : 4;
    int64_t prefix = (int64_t)octets * 8;
    if (inet_pton(six ? AF_INET6 : AF_INET, copy, address) != 1 ||
        (slash != NULL && !iok_span_i64(iok_span_skip(text, n + 1), &prefix)) || prefix < 0 ||
        prefix > (int64_t)octets * 8)
        return false;
    put_address(tape, network, iok_span(address, octets), (unsigned)prefix);
    return true;
}
