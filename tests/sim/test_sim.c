/* test_sim.c - the kernel core and its codecs on a simulated network, thousands of lives of it, each from one seed.
 *
 *     test_sim                      a few thousand seeds, as a test
 *     test_sim replay SEED          one seed with its transcript
 *     test_sim play FIRST COUNT     seeds in a row; a dot for each thousand
 *
 * The first seed that violates what must hold prints its transcript. tools/sim builds this and runs it. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "scene.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLOW 1
#endif
#endif
#ifdef SLOW
#define SEEDS 1000u
#else
#define SEEDS 4000u
#endif
#define TWICE 40u
#define SEED_SECONDS 60u /* one takes less than a millisecond: it goes on for ever */

/* An assertion of the core, or worse: the seed again, with its transcript. */
static void crashed(int number)
{
    (void)signal(number, SIG_DFL);
    if (!scene.prints) {
        violation("signal %d", number);
    }
    (void)printf("seed %llu died of signal %d\n", (unsigned long long)scene.seed, number);
    (void)fflush(NULL);
    (void)raise(number);
}

static void catch_crashes(void)
{
    static const int numbers[] = {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGALRM};
    struct sigaction action = {.sa_handler = crashed, .sa_flags = SA_NODEFER};

    for (unsigned i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        (void)sigaction(numbers[i], &action, NULL);
    }
}

static void play(uint64_t first, uint64_t count, bool dots)
{
    for (uint64_t i = 0; i < count; i++) {
        (void)alarm(SEED_SECONDS);
        (void)scene_play(first + i, false, false);
        if (dots && (i + 1) % 1000 == 0) {
            (void)putchar('.');
            (void)fflush(stdout);
        }
    }
    (void)alarm(0);
}

static void test_seeds(void **state)
{
    (void)state;
    play(1, SEEDS, false);
}

/* The core is deterministic, and so is all around it here. */
static void test_same_again(void **state)
{
    uint64_t different = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= TWICE; seed++) {
        uint64_t hash = scene_play(seed, true, false);

        if (hash != scene_play(seed, true, false)) {
            fail_msg("seed %llu has two transcripts", (unsigned long long)seed);
        }
        different += hash != scene_play(seed + 1, true, false);
    }
    assert_int_equal(different, TWICE); /* and it is no constant */
}

static int run(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_seeds), cmocka_unit_test(test_same_again)};

    catch_crashes();
    if (argc == 1) {
        return cmocka_run_group_tests(tests, NULL, NULL);
    }
    if (argc == 3 && strcmp(argv[1], "replay") == 0) {
        setlinebuf(stdout);
        (void)alarm(SEED_SECONDS);
        (void)scene_play(strtoull(argv[2], NULL, 0), true, true);
        (void)printf("nothing is wrong with this seed\n");
        return 0;
    }
    if (argc == 4 && strcmp(argv[1], "play") == 0) {
        play(strtoull(argv[2], NULL, 0), strtoull(argv[3], NULL, 0), true);
        return 0;
    }
    (void)fprintf(stderr, "usage: test_sim [replay SEED | play FIRST COUNT]\n");
    return 2;
}

int main(int argc, char **argv)
{
    int rc = run(argc, argv);

    scene_free();
    return rc;
}
