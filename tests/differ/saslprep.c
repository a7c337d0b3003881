/* saslprep.c - prepares passwords for tests/unit/test_saslprep.py: lines of hexadecimal digits in, and the same out. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/base/mem.h"
#include "../../src/proto/saslprep.h"

int main(void)
{
    static char line[4096];
    static uint8_t bytes[sizeof(line) / 2];

    while (fgets(line, sizeof(line), stdin) != NULL) {
        struct iok_span out;
        uint8_t *memory;
        size_t n = strcspn(line, "\n") / 2;

        for (size_t i = 0; i < n; i++) {
            char hex[3] = {line[2 * i], line[2 * i + 1], '\0'};

            bytes[i] = (uint8_t)strtoul(hex, NULL, 16);
        }
        if (!iok_saslprep(iok_span(bytes, n), &out, &memory)) {
            abort();
        }
        for (size_t i = 0; i < out.n; i++) {
            printf("%02x", out.p[i]);
        }
        putchar('\n');
        iok_free(memory);
    }
    return 0;
}
