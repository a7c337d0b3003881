/* http_read.c - what our HTTP/1.1 reader makes of octets, for differ.py, which compares it with other parsers.
 *
 * Standard input: cases of [role: 'q' requests, 's' replies to three GETs][length, 4 octets, little endian][octets].
 * Standard output, for each: its events as the kit writes them, then "failed " and why, if it was refused, then "end". */
#include <stdio.h>
#include <stdlib.h>

#include "../kit/kit.h"

static void read_case(bool server, struct iok_span bytes)
{
    static const struct iok_token get[] = {{.type = IOK_TEXT, .len = 3, .p = (const uint8_t *)"GET"},
                                           {.type = IOK_TEXT, .len = 1, .p = (const uint8_t *)"/"}};
    struct kit_host host = {.server = server};
    bool tls;
    kit_host_open(&host, iok_proto_find(iok_span_of("http"), &tls), "http://h", 1u << 20);
    for (int i = 0; i < 3 && !server; i++)
        kit_host_call(&host, get, 2, 0);
    kit_host_recv(&host, bytes);
    kit_host_eof(&host);
    if (host.events.n > 0)
        fwrite(host.events.p, 1, host.events.n, stdout);
    if (host.io.err.code != 0)
        printf("failed %s\n", host.io.err.text);
    printf("end\n");
    if (!kit_host_close(&host))
        abort();
}

int main(void)
{
    uint8_t head[5];
    while (fread(head, 1, sizeof(head), stdin) == sizeof(head)) {
        size_t n = head[1] | (size_t)head[2] << 8 | (size_t)head[3] << 16 | (size_t)head[4] << 24;
        uint8_t *bytes = malloc(n + 1);
        if (bytes == NULL || fread(bytes, 1, n, stdin) != n)
            return 1;
        read_case(head[0] == 'q', iok_span(bytes, n));
        free(bytes);
    }
    return 0;
}
