/* test_websocket.c - plays of WebSocket connections, in both roles: what arrives, what the program is told, what is sent.
 *
 * Each play is run whole, byte by byte, in random pieces, with the messages discarded in their midst, with each allocation
 * failing in turn, and with the connection ended after each octet. IOK_SEED= repeats the pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <zlib.h>

#include "../../src/base/mem.h"
#include "../kit/websocket.h"

#define MAX 1000u /* octets of a message, unless a play says so */
#define RANDOM_RUNS 20u
#define CUTS_MAX 700u /* octets of a play that are cut at each; longer ones are about large frames */

enum play_flags {
    CLIENT = 1,
    DEFLATE = 2,
    NO_CONTEXT = 4, /* on both sides */
    BITS_8 = 8,
    LARGE = 16, /* messages may have a MiB */
};

static const struct play {
    const char *name;
    unsigned flags;
    const char *play, *log, *sent;
} plays[] = {
    {"messages", 0, "81 Hello\n82 \\x00\\xff\n81\n82\n81 \xce\xba\xe2\x82\xac\xf0\x9f\x98\x80\n",
     " text \"Hello\"\n bytes \"\\x00\\xff\"\n text \"\"\n bytes \"\"\n"
     " text \"\\xce\\xba\\xe2\\x82\\xac\\xf0\\x9f\\x98\\x80\"\n",
     ""},
    {"messages of a server", CLIENT, "81 Hello\n82 \\x00\\xff\n81\n",
     " text \"Hello\"\n bytes \"\\x00\\xff\"\n text \"\"\n", ""},
    {"lengths", LARGE, "82 *125 a\n82 *126 a\n82 *65535 b\n82 *65536 b\n", NULL, ""},
    {"lengths of a server", LARGE | CLIENT, "82 *125 a\n82 *126 a\n82 *65535 b\n82 *65536 b\n", NULL, ""},
    {"lengths to send", LARGE, "> *125 a\n> *126 b\n> *65535 c\n> *65536 d\n", "",
     "81 *125 a\n81 *126 b\n81 *65535 c\n81 *65536 d\n"},
    {"lengths to send by a client", LARGE | CLIENT, "> *125 a\n> *126 b\n> *65535 c\n> *65536 d\n", "",
     "81 *125 a\n81 *126 b\n81 *65535 c\n81 *65536 d\n"},
    {"parts", 0, "01 Hel\n00\n00 lo\n80 !\n02\n80\n", " text \"Hello!\"\n bytes \"\"\n", ""},
    {"a character over parts", 0, "01 \\xe2\n00 \\x82\n80 \\xac\n", " text \"\\xe2\\x82\\xac\"\n", ""},
    {"pings", 0, "89 x\n89\n01 a\n89 between\n80 b\n", " text \"ab\"\n", "8a x\n8a\n8a between\n"},
    {"pings of a server", CLIENT, "89 x\n89 *125 y\n", "", "8a x\n8a *125 y\n"},
    {"pongs", 0, "8a x\n01 a\n8a one\n8a two\n80 b\n8a\n",
     " push 2 text \"pong\" bytes \"x\"\n text \"ab\"\n push 2 text \"pong\" bytes \"two\"\n"
     " push 2 text \"pong\" bytes \"\"\n",
     ""},
    {"what is sent", 0,
     "> text Hello\n> bytes \\x00\n> ping p\n> pong\n> first a\n> ping\n> next b\n> last\n> bfirst x\n> blast y\n", "",
     "81 Hello\n82 \\x00\n89 p\n8a\n01 a\n89\n00 b\n80\n02 x\n80 y\n"},
    {"a character over parts that are sent", 0, "> first \\xe2\\x82\n> last \\xac\n", "", "01 \\xe2\\x82\n80 \\xac\n"},
    {"what is not sent", 0,
     "> text \\xff\n> text \\xe2\\x82\n> first \\xe2\n> last \\x41\n> text x\n> bnext x\n> last \\x82\\xac\n> last x\n> ping *126 a\n"
     "> close 1004\n> close 1005 x\n> close 1006\n> close 1015\n> close 999\n> close 2999\n> close 5000\n> close 1000 \\xff\n",
     "error IOK_EINVAL\nerror IOK_EINVAL\nerror IOK_EINVAL\nerror IOK_ESTATE\nerror IOK_ESTATE\nerror IOK_ESTATE\n"
     "error IOK_ELIMIT\n"
     "error IOK_EINVAL\nerror IOK_EINVAL\nerror IOK_EINVAL\nerror IOK_EINVAL\nerror IOK_EINVAL\nerror IOK_EINVAL\n"
     "error IOK_EINVAL\nerror IOK_EINVAL\n",
     "01 \\xe2\n80 \\x82\\xac\n"},

    /* the closing */
    {"the peer closes", 0, "88 \\x03\\xe8bye\n81 behind\n",
     "closing\nlast push 4 text \"close\" i64 1000 text \"bye\" bool true\n", "88 \\x03\\xe8\n"},
    {"the server closes", CLIENT, "88 \\x0b\\xb8\n",
     "closing\nlast push 4 text \"close\" i64 3000 text \"\" bool true\n", "88 \\x0b\\xb8\n"},
    {"a close without a code", 0, "88\n", "closing\nlast push 4 text \"close\" i64 1005 text \"\" bool true\n", "88\n"},
    {"a close within a message", 0, "01 a\n88 \\x03\\xe9\n80 b\n",
     "dropped\nclosing\nlast push 4 text \"close\" i64 1001 text \"\" bool true\n", "88 \\x03\\xe9\n"},
    {"the program closes", 0,
     "> close 1000 done\n81 late\n89 late\n8a late\n01 a\n88 \\x03\\xe8ok\n> text x\n> ping\n> close\n",
     "closing\nlast push 4 text \"close\" i64 1000 text \"ok\" bool true\nerror IOK_ESTATE\nerror IOK_ESTATE\nerror IOK_ESTATE\n",
     "88 \\x03\\xe8done\n"},
    {"the program closes without a code", CLIENT, "> close\n> close 1000\n88\n",
     "error IOK_ESTATE\nclosing\nlast push 4 text \"close\" i64 1005 text \"\" bool true\n", "88\n"},
    {"the program closes within a message to it", 0,
     "01 a\n> close 1001\n80 \\xff\n81 \\xff\n82 *2000 a\n88 \\x03\\xe8\n",
     "dropped\nclosing\nlast push 4 text \"close\" i64 1000 text \"\" bool true\n", "88 \\x03\\xe9\n"},
    {"the program closes within its message", 0, "> first a\n> close 1011\n> last b\n", "error IOK_ESTATE\n",
     "01 a\n88 \\x03\\xf3\n"},
    {"broken off within the closing", 0, "> close 1000\nc1 x\n",
     "closing\nlast push 4 text \"close\" i64 1002 text \"a reserved bit is set\" bool false\n", "88 \\x03\\xe8\n"},
    {"the end without a close", 0, "81 a\n01 b\n> eof\n> eof\n",
     " text \"a\"\ndropped\nclosing\nlast push 4 text \"close\" i64 1006 text \"\" bool false\n", ""},
    {"the end within the closing", 0, "> close 1000\n> eof\n",
     "closing\nlast push 4 text \"close\" i64 1006 text \"\" bool false\n", "88 \\x03\\xe8\n"},
    {"a close of one octet", 0, "88 a\n",
     "closing\nlast push 4 text \"close\" i64 1002 text \"a close with a code that cannot be one\" bool false\n",
     "88 \\x03\\xeaa close with a code that cannot be one\n"},
    {"a reason that is no text", 0, "88 \\x03\\xe8\\xff\n",
     "closing\nlast push 4 text \"close\" i64 1007 text \"a close with a reason that is not UTF-8\" bool false\n",
     "88 \\x03\\xefa close with a reason that is not UTF-8\n"},

    /* what the protocol does not allow */
    {"a reserved bit", 0, "c1 x\n81 behind\n",
     "closing\nlast push 4 text \"close\" i64 1002 text \"a reserved bit is set\" bool false\n",
     "88 \\x03\\xeaa reserved bit is set\n"},
    {"another", 0, "a1\n", "closing\nlast push 4 text \"close\" i64 1002 text \"a reserved bit is set\" bool false\n",
     "88 \\x03\\xeaa reserved bit is set\n"},
    {"the third", 0, "99 x\n",
     "closing\nlast push 4 text \"close\" i64 1002 text \"a reserved bit is set\" bool false\n",
     "88 \\x03\\xeaa reserved bit is set\n"},
    {"opcode 3", 0, "83 x\n",
     "closing\nlast push 4 text \"close\" i64 1002 text \"an opcode that means nothing\" bool false\n",
     "88 \\x03\\xeaan opcode that means nothing\n"},
    {"opcode 11", CLIENT, "8b x\n",
     "closing\nlast push 4 text \"close\" i64 1002 text \"an opcode that means nothing\" bool false\n",
     "88 \\x03\\xeaan opcode that means nothing\n"},
    {"no mask", 0, "= 810178\n",
     "closing\nlast push 4 text \"close\" i64 1002 text \"a frame of a client without a mask\" bool false\n",
     "88 \\x03\\xeaa frame of a client without a mask\n"},
    {"a mask", CLIENT, "= 81810000000078\n",
     "closing\nlast push 4 text \"close\" i64 1002 text \"a frame of a server with a mask\" bool false\n",
     "88 \\x03\\xeaa frame of a server with a mask\n"},
    {"a ping in parts", 0, "09 x\n",
     "closing\nlast push 4 text \"close\" i64 1002 text \"a control frame in parts, or of more than 125 octets\" bool false\n",
     "88 \\x03\\xeaa control frame in parts, or of more than 125 octets\n"},
    {"a large ping", 0, "89 *126 a\n",
     "closing\nlast push 4 text \"close\" i64 1002 text \"a control frame in parts, or of more than 125 octets\" bool false\n",
     "88 \\x03\\xeaa control frame in parts, or of more than 125 octets\n"},
    {"a part of nothing", 0, "81 a\n80 b\n",
     " text \"a\"\nclosing\nlast push 4 text \"close\" i64 1002 text \"a part of no message\" bool false\n",
     "88 \\x03\\xeaa part of no message\n"},
    {"a message within another", 0, "01 a\n81 b\n",
     "dropped\nclosing\nlast push 4 text \"close\" i64 1002 text \"a message within another\" bool false\n",
     "88 \\x03\\xeaa message within another\n"},
    {"a length of two octets that needs one", CLIENT, "= 827e007d\n",
     "closing\nlast push 4 text \"close\" i64 1002 text \"a length in more octets than it needs, or of 64 bits\" bool false\n",
     "88 \\x03\\xeaa length in more octets than it needs, or of 64 bits\n"},
    {"a length of eight octets that needs two", CLIENT, "= 827f000000000000ffff\n",
     "closing\nlast push 4 text \"close\" i64 1002 text \"a length in more octets than it needs, or of 64 bits\" bool false\n",
     "88 \\x03\\xeaa length in more octets than it needs, or of 64 bits\n"},
    {"a length of 64 bits", CLIENT, "= 827f8000000000000000\n",
     "closing\nlast push 4 text \"close\" i64 1002 text \"a length in more octets than it needs, or of 64 bits\" bool false\n",
     "88 \\x03\\xeaa length in more octets than it needs, or of 64 bits\n"},

    /* text */
    {"not UTF-8, at once", 0, "01 \\xce\\xba\\xed\\xa0\n80 never\n",
     "dropped\nclosing\nlast push 4 text \"close\" i64 1007 text \"the text is not UTF-8\" bool false\n",
     "88 \\x03\\xefthe text is not UTF-8\n"},
    {"a text that ends within a character", 0, "81 a\\xe2\\x82\n",
     "dropped\nclosing\nlast push 4 text \"close\" i64 1007 text \"the text ends within a character\" bool false\n",
     "88 \\x03\\xefthe text ends within a character\n"},
    {"octets need not be text", 0, "02 \\xed\\xa0\n80 \\x80\n", " bytes \"\\xed\\xa0\\x80\"\n", ""},

    /* sizes */
    {"as large as can be", 0, "82 *1000 a\n02 *999 b\n80 b\n", NULL, ""},
    {"too large", 0, "82 *1001 a\n",
     "closing\nlast push 4 text \"close\" i64 1009 text \"the message is too large\" bool false\n",
     "88 \\x03\\xf1the message is too large\n"},
    {"too large, by what it says", CLIENT, "= 827f7fffffffffffffff\n",
     "closing\nlast push 4 text \"close\" i64 1009 text \"the message is too large\" bool false\n",
     "88 \\x03\\xf1the message is too large\n"},
    {"too large with its last part", 0, "02 *999 a\n= 8082\n",
     "dropped\nclosing\nlast push 4 text \"close\" i64 1009 text \"the message is too large\" bool false\n",
     "88 \\x03\\xf1the message is too large\n"},

    /* compression: the examples of RFC 7692, 7.2.3 */
    {"compressed", DEFLATE, "c1 \\xf2\\x48\\xcd\\xc9\\xc9\\x07\\x00\nc1 \\xf2\\x00\\x11\\x00\\x00\n81 plain\n",
     " text \"Hello\"\n text \"Hello\"\n text \"plain\"\n", ""},
    {"compressed in parts", DEFLATE, "41 \\xf2\\x48\\xcd\n89 p\n80 \\xc9\\xc9\\x07\\x00\n", " text \"Hello\"\n",
     "8a p\n"},
    {"compressed without context", DEFLATE | NO_CONTEXT,
     "c1 \\xf2\\x48\\xcd\\xc9\\xc9\\x07\\x00\nc1 \\xf2\\x48\\xcd\\xc9\\xc9\\x07\\x00\n",
     " text \"Hello\"\n text \"Hello\"\n", ""},
    {"a context that is not there", DEFLATE | NO_CONTEXT | CLIENT,
     "c1 \\xf2\\x48\\xcd\\xc9\\xc9\\x07\\x00\nc1 \\xf2\\x00\\x11\\x00\\x00\n",
     " text \"Hello\"\ndropped\nclosing\nlast push 4 text \"close\" i64 1007 text \"the message cannot be inflated\" bool false\n",
     "88 \\x03\\xefthe message cannot be inflated\n"},
    {"stored", DEFLATE, "c1 \\x00\\x05\\x00\\xfa\\xffHello\\x00\n", " text \"Hello\"\n", ""},
    {"the last block of a stream", DEFLATE,
     "c1 \\xf3\\x48\\xcd\\xc9\\xc9\\x07\\x00\\x00\nc1 \\xf2\\x00\\x11\\x00\\x00\nc1 \\xf3\\x48\\xcd\\xc9\\xc9\\x07\\x00\nc1 \\xf2\\x48\\xcd\\xc9\\xc9\\x07\\x00\n",
     " text \"Hello\"\n text \"Hello\"\n text \"Hello\"\n text \"Hello\"\n", ""},
    {"two blocks", DEFLATE, "c1 \\xf2\\x48\\x05\\x00\\x00\\x00\\xff\\xff\\xca\\xc9\\xc9\\x07\\x00\n",
     " text \"Hello\"\n", ""},
    {"compressed, and as large as can be", DEFLATE, "c2 \\x4a\\x4c\\x1c\\x05\\xa3\\x60\\x14\\x0c\\x77\\x00\\x00\n",
     NULL, ""},
    {"compressed, and too large", DEFLATE, "c1 \\x4a\\x4c\\x1c\\x05\\xa3\\x60\\x14\\x0c\\x7b\\x00\\x00\n",
     "dropped\nclosing\nlast push 4 text \"close\" i64 1009 text \"the message is too large\" bool false\n",
     "88 \\x03\\xf1the message is too large\n"},
    {"too large behind one that was compressed", DEFLATE, "c1 \\xf2\\x48\\xcd\\xc9\\xc9\\x07\\x00\n82 *1001 a\n",
     " text \"Hello\"\nclosing\nlast push 4 text \"close\" i64 1009 text \"the message is too large\" bool false\n",
     "88 \\x03\\xf1the message is too large\n"},
    {"compressed nothing", DEFLATE, "c2 \\x00\nc1 \\x02\\x00\n", " bytes \"\"\n text \"\"\n", ""},
    {"compressed, and no octet", DEFLATE, "c2\n",
     "dropped\nclosing\nlast push 4 text \"close\" i64 1007 text \"the message cannot be inflated\" bool false\n",
     "88 \\x03\\xefthe message cannot be inflated\n"},
    {"compressed, without its end", DEFLATE, "c1 \\xf2\\x48\\xcd\n",
     "dropped\nclosing\nlast push 4 text \"close\" i64 1007 text \"the message cannot be inflated\" bool false\n",
     "88 \\x03\\xefthe message cannot be inflated\n"},
    {"not compressed, in truth", DEFLATE, "c1 Hello\n",
     "dropped\nclosing\nlast push 4 text \"close\" i64 1007 text \"the message cannot be inflated\" bool false\n",
     "88 \\x03\\xefthe message cannot be inflated\n"},
    {"a compressed part", DEFLATE, "01 a\nc0 b\n",
     "dropped\nclosing\nlast push 4 text \"close\" i64 1002 text \"a reserved bit is set\" bool false\n",
     "88 \\x03\\xeaa reserved bit is set\n"},
    {"a compressed ping", DEFLATE, "c9\n",
     "closing\nlast push 4 text \"close\" i64 1002 text \"a reserved bit is set\" bool false\n",
     "88 \\x03\\xeaa reserved bit is set\n"},
    {"compressed, and not UTF-8", DEFLATE, "c1 \\x00\\x02\\x00\\xfd\\xff\\xed\\xa0\n",
     "dropped\nclosing\nlast push 4 text \"close\" i64 1007 text \"the text is not UTF-8\" bool false\n",
     "88 \\x03\\xefthe text is not UTF-8\n"},
    {"not for a window of 8", DEFLATE | BITS_8, "> *400 a\nc1 \\xf2\\x48\\xcd\\xc9\\xc9\\x07\\x00\n",
     " text \"Hello\"\n", "81 *400 a\n"},

    /* what is not read or taken */
    {"no room", 0, "81 a\n> full\n89 x\n8a y\n81 b\n82 c\n> room\n81 d\n",
     " text \"a\"\n push 2 text \"pong\" bytes \"y\"\n text \"b\"\n bytes \"c\"\n text \"d\"\n", "8a x\n"},
    {"no room, and the end of all", 0, "81 a\n> full\n01 b\n> eof\n",
     " text \"a\"\nclosing\nlast push 4 text \"close\" i64 1006 text \"\" bool false\n", ""},
};
#define PLAYS (sizeof(plays) / sizeof(*plays))

static uint64_t seed;

static void open_peer(struct ws_peer *peer, unsigned flags)
{
    bool no_context = (flags & NO_CONTEXT) != 0;
    uint8_t bits = (flags & BITS_8) != 0 ? 8 : 15;
    struct iok_ws_options options = {
        .client = (flags & CLIENT) != 0,
        .message_bytes_max = (flags & LARGE) != 0 ? 1u << 20 : MAX,
        .deflate = {(flags & DEFLATE) != 0, no_context, no_context, bits, bits},
        .deflate_bytes_min = 300,
        .deflate_bytes_max = 1u << 20,
    };
    ws_peer_open(peer, &options, 2u << 20);
}

/* Runs it; the text of what came of it, and whether memory ran out. */
static bool run(const struct play *play, enum ws_cut cut, uint64_t param, bool hasty, struct kit_text *what,
                size_t *received)
{
    struct ws_peer peer;
    open_peer(&peer, play->flags);
    peer.is_hasty = hasty;
    size_t n = ws_kit_play(&peer, play->play, cut, param);
    if (received != NULL)
        *received = n;
    kit_text_put(what, peer.log.p, peer.log.n);
    kit_text_put(what, "--\n", 3);
    if (peer.failed == 0)
        ws_kit_lines(what, peer.options.client, iok_span(peer.sent.p, peer.sent.n));
    bool failed = peer.failed == IOK_ENOMEM;
    assert_true(peer.failed == 0 || failed);
    assert_true(ws_peer_close(&peer));
    return failed;
}

static void expect(const struct play *play, const char *how, const struct kit_text *wanted, const struct kit_text *got)
{
    if (wanted->n != got->n || memcmp(wanted->p, got->p, got->n) != 0)
        fail_msg("\"%s\", %s, seed %llu:\n%s\nwanted:\n%s", play->name, how, (unsigned long long)seed, got->p,
                 wanted->p);
}

static void check_cuts(const struct play *play, const struct kit_text *wanted)
{
    struct kit_text got = {0};
    run(play, WS_CUT_BYTES, 0, false, &got, NULL);
    expect(play, "byte by byte", wanted, &got);
    kit_text_free(&got);
    for (unsigned i = 0; i < RANDOM_RUNS; i++) {
        run(play, WS_CUT_PIECES, seed + i, false, &got, NULL);
        expect(play, "in pieces", wanted, &got);
        kit_text_free(&got);
    }
}

static void test_plays(void **state)
{
    (void)state;
    for (size_t i = 0; i < PLAYS; i++) {
        struct kit_text wanted = {0}, got = {0};
        run(&plays[i], WS_CUT_NOT, 0, false, &got, NULL);
        if (plays[i].log == NULL) /* too long to write down */
            kit_text_put(&wanted, got.p, (size_t)(strstr(got.p, "--\n") - got.p));
        else
            kit_text_print(&wanted, "%s", plays[i].log);
        kit_text_put(&wanted, "--\n", 3);
        kit_text_put(&wanted, plays[i].sent, strlen(plays[i].sent));
        expect(&plays[i], "whole", &wanted, &got);
        check_cuts(&plays[i], &wanted);
        kit_text_free(&wanted);
        kit_text_free(&got);
    }
}

/* The connection ends anywhere: the program is told, once, and last. */
static void test_ends(void **state)
{
    (void)state;
    for (size_t i = 0; i < PLAYS; i++) {
        struct kit_text got = {0};
        size_t whole;
        run(&plays[i], WS_CUT_NOT, 0, false, &got, &whole);
        kit_text_free(&got);
        for (size_t end = 0; end < whole && whole < CUTS_MAX; end++) {
            run(&plays[i], WS_CUT_END, end, false, &got, NULL);
            const char *last = strstr(got.p, "last push 4 text \"close\" i64 1");
            if (last == NULL || strstr(last + 1, "last ") != NULL || strstr(got.p, "closing\nlast ") == NULL)
                fail_msg("\"%s\", ended after %zu octets:\n%s", plays[i].name, end, got.p);
            kit_text_free(&got);
        }
    }
}

/* Each allocation fails: either the connection does, or what happens is the same. Nothing stays alive. */
static void test_failing_allocations(void **state)
{
    (void)state;
    for (size_t i = 0; i < PLAYS; i++) {
        struct kit_text wanted = {0}, got = {0};
        long live = iok_mem_live();
        run(&plays[i], WS_CUT_NOT, 0, false, &wanted, NULL);
        for (unsigned long n = 1; n < 100; n++) {
            iok_mem_fail_at(n);
            bool failed = run(&plays[i], n % 2 ? WS_CUT_NOT : WS_CUT_PIECES, seed, false, &got, NULL);
            bool done = iok_mem_count() < n;
            iok_mem_fail_at(0);
            if (!failed)
                expect(&plays[i], "without an allocation", &wanted, &got);
            assert_int_equal(iok_mem_live(), live);
            kit_text_free(&got);
            if (done)
                break;
            assert_true(n < 99);
        }
        kit_text_free(&wanted);
    }
}

/* Nobody waits for messages: what is sent is the same. */
static void test_discarded(void **state)
{
    (void)state;
    for (size_t i = 0; i < PLAYS; i++) {
        struct kit_text wanted = {0}, got = {0};
        run(&plays[i], WS_CUT_NOT, 0, false, &wanted, NULL);
        run(&plays[i], WS_CUT_PIECES, seed, true, &got, NULL);
        if (strcmp(strstr(wanted.p, "--\n"), strstr(got.p, "--\n")) != 0)
            fail_msg("\"%s\", discarded: %s", plays[i].name, got.p);
        kit_text_free(&wanted);
        kit_text_free(&got);
    }
}

/* RFC 6455, 7.4: each code that a close may have, and each that it may not. */
static void test_codes(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 65536; code++) {
        struct ws_peer peer;
        char play[40], wanted[60];
        bool valid = (code >= 1000 && code < 1015 && code != 1004 && code != 1005 && code != 1006) ||
                     (code >= 3000 && code < 5000);
        open_peer(&peer, code % 2 ? CLIENT : 0);
        snprintf(play, sizeof(play), "88 \\x%02x\\x%02x\n", code >> 8, code & 255);
        snprintf(wanted, sizeof(wanted), "closing\nlast push 4 text \"close\" i64 %u ", valid ? code : 1002);
        ws_kit_play(&peer, play, WS_CUT_NOT, 0);
        assert_memory_equal(peer.log.p, wanted, strlen(wanted));
        assert_int_equal(iok_ws_code_is_valid(code), valid);
        assert_true(iok_ws_is_over(peer.ws));
        assert_true(ws_peer_close(&peer));
    }
}

/* Pings of a peer that takes nothing: memory is bounded, and the latest is answered when it does. */
static void test_ping_flood(void **state)
{
    struct ws_peer peer;
    struct kit_text ping = {0}, lines = {0};
    (void)state;
    open_peer(&peer, 0);
    for (unsigned i = 0; i < 20000; i++) {
        char payload[20];
        ping.n = 0;
        ws_kit_frame(&ping, true, 0x89, iok_span(payload, (size_t)snprintf(payload, sizeof(payload), "number %u", i)));
        ws_peer_recv(&peer, iok_span(ping.p, ping.n));
        assert_true(iok_out_pending(&peer.out) < (1u << 16) + 200);
    }
    ws_kit_play(&peer, "> taken\n81 x\n", WS_CUT_NOT, 0);
    ws_kit_lines(&lines, false, iok_span(peer.sent.p, peer.sent.n));
    assert_string_equal(lines.p + lines.n - strlen("8a number 19999\n"), "8a number 19999\n");
    assert_string_equal(peer.log.p, " text \"x\"\n");
    kit_text_free(&ping);
    kit_text_free(&lines);
    assert_true(ws_peer_close(&peer));
}

/* A few octets that become many: refused at the bound, and not after. */
static void test_bomb(void **state)
{
    struct ws_peer peer;
    struct kit_text frames = {0};
    struct iok_ws_options options = {
        .client = true, .message_bytes_max = 64u << 20, .deflate = {.on = true}, .deflate_bytes_max = 64u << 20};
    uint8_t *zeros = calloc(1, 32u << 20);
    (void)state;
    assert_non_null(zeros);
    ws_peer_open(&peer, &options, 128u << 20);
    peer.options.client = true;
    assert_int_equal(iok_ws_send(peer.ws, &peer.io, false, iok_span(zeros, 32u << 20), IOK_WS_FIRST | IOK_WS_LAST), 0);
    ws_kit_play(&peer, "", WS_CUT_NOT, 0);
    kit_text_put(&frames, peer.sent.p, peer.sent.n);
    assert_true(frames.n < 1u << 20);
    assert_true(ws_peer_close(&peer));
    open_peer(&peer, DEFLATE | LARGE);
    ws_peer_recv(&peer, iok_span(frames.p, frames.n));
    assert_string_equal(
        peer.log.p,
        "dropped\nclosing\nlast push 4 text \"close\" i64 1009 text \"the message is too large\" bool false\n");
    assert_true(iok_count_get(&peer.account.bytes) < 4u << 20);
    assert_true(ws_peer_close(&peer));
    kit_text_free(&frames);
    free(zeros);
}

/* A peer may end a stream of blocks with every two octets. Each such end costs what its octets do: the window, of 32 KiB, is
 * not copied, and what comes next may still refer to it. */
static unsigned copied_windows;

int inflateGetDictionary(z_stream *stream, Bytef *to, uInt *n)
{
    (void)stream;
    (void)to;
    *n = 0;
    copied_windows++;
    return Z_OK;
}

int inflateSetDictionary(z_stream *stream, const Bytef *from, uInt n)
{
    (void)stream;
    (void)from;
    (void)n;
    copied_windows++;
    return Z_OK;
}

static void test_ends_of_streams(void **state)
{
    enum { ENDS = 100000 };
    struct ws_peer peer;
    struct kit_text frames = {0}, ends = {0};
    (void)state;
    ws_kit_frame(&frames, true, 0xc1, iok_span("\xf2\x48\xcd\xc9\xc9\x07\x00", 7));
    for (unsigned i = 0; i < ENDS; i++)
        kit_text_put(&ends, "\x03\x00", 2);
    ws_kit_frame(&frames, true, 0x41, iok_span(ends.p, ends.n));
    ws_kit_frame(&frames, true, 0x80, iok_span("\xf2\x00\x11\x00\x00", 5));
    open_peer(&peer, DEFLATE | LARGE);
    ws_peer_recv(&peer, iok_span(frames.p, frames.n));
    assert_string_equal(peer.log.p, " text \"Hello\"\n text \"Hello\"\n");
    assert_int_equal(copied_windows, 0);
    assert_true(ws_peer_close(&peer));
    kit_text_free(&frames);
    kit_text_free(&ends);
}

/* ---- against its own other role ----------------------------------------------------------------------------------- */

static uint64_t random_state;

static size_t any(size_t below)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407); /* Knuth's MMIX */
    return (size_t)(random_state >> 33) % below;
}

static void fill_text(uint8_t *at, size_t n)
{
    static const char *const words[] = {"a", "the same words ", "\xce\xba\xe1\xbd\xb9", "\xf0\x9f\x98\x80", "\n"};
    size_t i = 0;
    while (i < n) {
        const char *word = words[any(5)];
        size_t length = strlen(word);
        word = i + length > n ? "." : word;
        length = i + length > n ? 1 : length;
        memcpy(at + i, word, length);
        i += length;
    }
}

/* Hands over what one peer has written, in random pieces. */
static void carry(struct ws_peer *from, struct ws_peer *to)
{
    size_t before = from->sent.n;
    ws_kit_play(from, "", WS_CUT_NOT, 0);
    struct iok_span bytes = iok_span(from->sent.p + before, from->sent.n - before);
    while (bytes.n > 0) {
        size_t n = 1 + any(any(2) ? 20 : 3000);
        n = n < bytes.n ? n : bytes.n;
        ws_peer_recv(to, iok_span(bytes.p, n));
        bytes = iok_span_skip(bytes, n);
    }
}

static void converse(struct iok_ws_deflate deflate)
{
    enum { BIG = 100000 };
    struct iok_ws_options options = {
        .message_bytes_max = BIG, .deflate = deflate, .deflate_bytes_min = 10, .deflate_bytes_max = 60000};
    struct ws_peer peers[2];
    uint8_t *bytes = malloc(BIG);
    assert_non_null(bytes);
    for (int i = 0; i < 2; i++) {
        options.client = i == 1;
        ws_peer_open(&peers[i], &options, 2u * BIG);
    }
    for (unsigned i = 0; i < 60; i++) {
        struct ws_peer *from = &peers[any(2)], *to = &peers[from == &peers[0]];
        size_t n = any(3) ? any(300) : any(BIG), parts = 1 + any(3) * any(3), done = 0;
        bool text = any(2);
        struct kit_text wanted = {0};
        fill_text(bytes, n);
        struct iok_token token = {.type = text ? IOK_TEXT : IOK_BYTES, .len = (uint32_t)n, .p = bytes};
        kit_text_tokens(&wanted, &token, 1);
        kit_text_put(&wanted, "\n", 1);
        to->log.n = 0;
        for (size_t part = 0; part < parts; part++) {
            size_t some = part + 1 == parts ? n - done : any(n - done + 1);
            assert_int_equal(iok_ws_send(from->ws, &from->io, text, iok_span(bytes + done, some),
                                         (part == 0 ? IOK_WS_FIRST : 0u) | (part + 1 == parts ? IOK_WS_LAST : 0u)),
                             0);
            done += some;
            carry(from, to);
        }
        if (to->log.n != wanted.n || memcmp(to->log.p, wanted.p, wanted.n) != 0)
            fail_msg("seed %llu: message %u of %zu octets in %zu parts is another", (unsigned long long)seed, i, n,
                     parts);
        kit_text_free(&wanted);
    }
    assert_int_equal(iok_ws_close(peers[1].ws, &peers[1].io, IOK_WS_NORMAL, iok_span_of("bye")), 0);
    carry(&peers[1], &peers[0]);
    carry(&peers[0], &peers[1]);
    assert_true(iok_ws_is_over(peers[0].ws) && iok_ws_is_over(peers[1].ws));
    assert_true(ws_peer_close(&peers[0]) && ws_peer_close(&peers[1]));
    free(bytes);
}

static void test_roles(void **state)
{
    (void)state;
    random_state = seed;
    converse((struct iok_ws_deflate){0});
    for (unsigned i = 0; i < 16; i++)
        converse((struct iok_ws_deflate){true, i & 1, (i & 2) != 0, (uint8_t)(8 + any(8)), (uint8_t)(8 + any(8))});
}

/* No two frames have the same mask, and two connections do not either. */
static void test_masks(void **state)
{
    struct ws_peer peer;
    (void)state;
    open_peer(&peer, CLIENT);
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(iok_ws_ping(peer.ws, &peer.io, iok_span(NULL, 0)), 0);
    ws_kit_play(&peer, "", WS_CUT_NOT, 0);
    assert_int_equal(peer.sent.n, 40 * 6);
    for (unsigned i = 0; i < 40; i++)
        for (unsigned k = 0; k < i; k++)
            assert_memory_not_equal(peer.sent.p + 6 * i + 2, peer.sent.p + 6 * k + 2, 4);
    assert_true(ws_peer_close(&peer));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plays),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_failing_allocations),
        cmocka_unit_test(test_discarded),
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_ping_flood),
        cmocka_unit_test(test_bomb),
        cmocka_unit_test(test_ends_of_streams),
        cmocka_unit_test(test_roles),
        cmocka_unit_test(test_masks),
    };
    const char *given = getenv("IOK_SEED");

    seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    printf("IOK_SEED=%llu\n", (unsigned long long)seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
