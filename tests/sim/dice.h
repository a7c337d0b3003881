/* dice.h - random numbers of a seed: the same seed gives the same numbers on every machine. */
#ifndef IOK_TESTS_DICE_H
#define IOK_TESTS_DICE_H

#include <stdbool.h>
#include <stdint.h>

struct dice {
    uint64_t state;
};

/* splitmix64: a counter, and a finalizer that spreads it. */
static inline uint64_t dice_next(struct dice *dice)
{
    uint64_t z = dice->state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* 0 to n - 1; n up to 2^32. */
static inline uint64_t dice_below(struct dice *dice, uint64_t n)
{
    return ((dice_next(dice) >> 32) * n) >> 32;
}

static inline uint64_t dice_between(struct dice *dice, uint64_t least, uint64_t most)
{
    return least + dice_next(dice) % (most - least + 1);
}

static inline bool dice_chance(struct dice *dice, unsigned permille)
{
    return dice_below(dice, 1000) < permille;
}

/* Small values as often as large ones: first a power of two, then what lies between it and the next. least > 0. */
static inline uint64_t dice_spread(struct dice *dice, uint64_t least, uint64_t most)
{
    unsigned steps = 64u - (unsigned)__builtin_clzll(most / least);
    uint64_t low = least << dice_below(dice, steps);
    uint64_t high = low <= most / 2 ? 2 * low : most;

    return dice_between(dice, low, high);
}

#endif
