/* test_codec.c - runs every transcript of tests/proto/NAME/ in every mode of the kit; see tests/kit/script.c for the
 * language. A new transcript needs no entry here.
 *
 * Invariant under test: what a codec does depends on the bytes, and not on how they were cut; and whatever fails, it
 * ends in a clear error, with nothing left alive. */
#include <glob.h>
#include <libgen.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../kit/kit.h"

#define PIECES_RUNS 30u         /* random cuttings of each transcript */
#define ROUND_RUNS 3u           /* of those, against the server role */
#define CUT_BYTES_MAX 16000000u /* fed in all cuts of one transcript: of a long one every n-th byte only */
#define FAILURES_MAX 2000u      /* no transcript makes so many allocations */

static uint64_t seed;

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long size = ftell(file);
    rewind(file);
    char *text = calloc(1, (size_t)size + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)size, file), (size_t)size);
    fclose(file);
    return text;
}

static void run(const char *path, const char *script, enum kit_mode mode, uint64_t param, struct kit_result *result)
{
    static const char *const names[] = {
        [KIT_WHOLE] = "whole",
        [KIT_BYTES] = "byte by byte",
        [KIT_PIECES] = "in random pieces, IOK_SEED=",
        [KIT_ABANDON] = "abandoned",
        [KIT_FAIL] = "failing allocation ",
        [KIT_CUT] = "cut after byte ",
        [KIT_ROUND] = "against its own server's role, IOK_SEED=",
    };
    if (!kit_script_run(script, mode, param, result))
        fail_msg("%s, %s%llu: %s", path, names[mode], (unsigned long long)param, result->problem);
}

static void test_script(void **state)
{
    const char *path = *state;
    char *script = read_file(path);
    struct kit_result whole, other;
    run(path, script, KIT_WHOLE, 0, &whole);
    run(path, script, KIT_BYTES, 0, &other);
    for (uint64_t i = 0; i < PIECES_RUNS; i++)
        run(path, script, KIT_PIECES, seed + i, &other);
    for (uint64_t i = 0; i < ROUND_RUNS; i++)
        run(path, script, KIT_ROUND, seed + i, &other);
    if (strstr(script, "\ncancel") == NULL)
        run(path, script, KIT_ABANDON, 0, &other);
    uint64_t failing = 1;
    do {
        assert_true(failing < FAILURES_MAX);
        run(path, script, KIT_FAIL, failing, &other);
    } while (other.allocations >= failing++);
    uint64_t step = 1 + whole.received * whole.received / CUT_BYTES_MAX;
    for (uint64_t byte = 0; byte < whole.received; byte += step)
        run(path, script, KIT_CUT, byte, &other);
    free(script);
}

/* Where the transcripts are: beside this source, or where the tests are started from. */
static void find_scripts(glob_t *found)
{
    char beside[4096];
    snprintf(beside, sizeof(beside), "%s", __FILE__);
    const char *const roots[] = {getenv("IOK_SCRIPTS"), dirname(beside), "tests/proto", "../tests/proto",
                                 "../../tests/proto"};
    for (size_t i = 0; i < sizeof(roots) / sizeof(*roots); i++) {
        char pattern[4200];
        if (roots[i] == NULL)
            continue;
        snprintf(pattern, sizeof(pattern), "%s/*/*.script", roots[i]);
        if (glob(pattern, 0, NULL, found) == 0)
            return;
    }
    fprintf(stderr, "no transcripts found; IOK_SCRIPTS names the folder tests/proto\n");
    exit(1);
}

int main(void)
{
    glob_t found;
    find_scripts(&found);
    seed = getenv("IOK_SEED") != NULL ? strtoull(getenv("IOK_SEED"), NULL, 10) : (uint64_t)time(NULL);
    printf("IOK_SEED=%llu\n", (unsigned long long)seed);
    struct CMUnitTest *tests = calloc(found.gl_pathc, sizeof(*tests));
    for (size_t i = 0; i < found.gl_pathc; i++)
        tests[i] = (struct CMUnitTest){
            .name = found.gl_pathv[i], .test_func = test_script, .initial_state = found.gl_pathv[i]};
    int failed = _cmocka_run_group_tests("codecs", tests, found.gl_pathc, NULL, NULL);
    free(tests);
    globfree(&found);
    return failed != 0;
}
