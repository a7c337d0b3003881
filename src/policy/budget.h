/* budget.h - a retry budget: repeats may be at most a tenth of the calls, beyond a small reserve, so that a server in
 * trouble does not get more load because of its trouble. */
#ifndef IOK_POLICY_BUDGET_H
#define IOK_POLICY_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#define IOK_BUDGET_RESERVE 10000u /* tenths: 1,000 repeats, one full pipeline of calls that a lost connection cut off */

struct iok_budget {
    uint32_t tenths;
};

static inline void iok_budget_init(struct iok_budget *budget)
{
    budget->tenths = IOK_BUDGET_RESERVE;
}

static inline void iok_budget_earn(struct iok_budget *budget)
{
    if (budget->tenths < IOK_BUDGET_RESERVE) {
        budget->tenths++;
    }
}

static inline bool iok_budget_spend(struct iok_budget *budget)
{
    if (budget->tenths < 10) {
        return false;
    }
    budget->tenths -= 10;
    return true;
}

#endif
