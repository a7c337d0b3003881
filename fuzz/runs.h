/* runs.h - one input in several runs: whole, in random pieces, byte by byte, and with an allocation that fails.
 *
 * Invariants: what is logged does not depend on how the input was cut, and nothing stays alive when an allocation fails. */
#ifndef IOK_FUZZ_RUNS_H
#define IOK_FUZZ_RUNS_H

#include <stdio.h>
#include <stdlib.h>

#include "../src/base/mem.h"
#include "../tests/kit/kit.h"

/* How a run cuts what arrives; others are the state of the generator, never 0. */
#define CUT_WHOLE UINT32_MAX
#define CUT_BYTES 0u

/* Plays an input once. header: its first bytes, which are the fuzzer's own. */
typedef void fuzz_run_fn(const uint8_t *header, struct iok_span in, uint32_t cutting, struct kit_text *log);

static inline struct iok_span fuzz_take(struct iok_span *in, size_t n)
{
    struct iok_span taken = iok_span(in->p, n < in->n ? n : in->n);
    *in = iok_span_skip(*in, taken.n);
    return taken;
}

/* What arrives next, of bytes that are not empty. The sizes of pieces are those of xorshift32. */
static inline struct iok_span fuzz_piece(struct iok_span *bytes, uint32_t *cutting)
{
    if (*cutting == CUT_WHOLE || *cutting == CUT_BYTES)
        return fuzz_take(bytes, *cutting == CUT_BYTES ? 1 : bytes->n);
    *cutting ^= *cutting << 13;
    *cutting ^= *cutting >> 17;
    *cutting ^= *cutting << 5;
    return fuzz_take(bytes, 1 + *cutting % 9);
}

static inline void fuzz_compare(const char *how, const struct kit_text *whole, const struct kit_text *other)
{
    if (whole->n == other->n && memcmp(whole->p, other->p, whole->n) == 0)
        return;
    fprintf(stderr, "whole:\n%s\n%s:\n%s\n", whole->p, how, other->p);
    abort();
}

/* failing: which allocation of the last run, 0: there is no such run. */
static inline int fuzz_runs(fuzz_run_fn *run, const uint8_t *header, struct iok_span in, uint8_t seed, uint8_t failing)
{
    struct kit_text whole = {0}, pieces = {0}, bytes = {0}, fails = {0};
    run(header, in, CUT_WHOLE, &whole);
    run(header, in, seed + 1u, &pieces);
    fuzz_compare("in pieces", &whole, &pieces);
    run(header, in, CUT_BYTES, &bytes);
    fuzz_compare("byte by byte", &whole, &bytes);
    if (failing != 0) {
        long live = iok_mem_live();
        iok_mem_fail_at(failing);
        run(header, in, seed + 1u, &fails);
        iok_mem_fail_at(0);
        if (iok_mem_live() != live)
            abort();
    }
    kit_text_free(&whole);
    kit_text_free(&pieces);
    kit_text_free(&bytes);
    kit_text_free(&fails);
    return 0;
}

#endif
