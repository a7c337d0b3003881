#include "baton.h"

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#endif

enum { IOK_BATON_KERNEL = 0, IOK_BATON_FREE, IOK_BATON_LED };

void iok_baton_init(struct iok_baton *baton)
{
    *baton = (struct iok_baton){0};
}

#ifdef __linux__

static void futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns)
{
    struct timespec ts = {.tv_sec = (time_t)(timeout_ns / 1000000000u), .tv_nsec = (long)(timeout_ns % 1000000000u)};

    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, &ts, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void iok_baton_lend(struct iok_baton *baton, uint64_t grace_ns)
{
    atomic_store_explicit(&baton->recall, 0, memory_order_relaxed);
    atomic_store_explicit(&baton->state, IOK_BATON_FREE, memory_order_release);
    for (;;) {
        uint32_t leads = atomic_load_explicit(&baton->leads, memory_order_relaxed);
        uint32_t expected = IOK_BATON_FREE;

        if (atomic_load_explicit(&baton->recall, memory_order_acquire) == 0) {
            futex_wait(&baton->recall, 0, grace_ns);
        }
        if (atomic_load_explicit(&baton->recall, memory_order_acquire) == 0 &&
            atomic_load_explicit(&baton->leads, memory_order_relaxed) != leads) {
            continue; /* waiters keep coming: leave it with them */
        }
        if (atomic_compare_exchange_strong_explicit(&baton->state, &expected, IOK_BATON_KERNEL, memory_order_acquire,
                                                    memory_order_relaxed)) {
            return;
        }
        /* A waiter holds it just now; it gives it back within its own bound. */
        atomic_store_explicit(&baton->recall, 0, memory_order_relaxed);
    }
}

bool iok_baton_try_take(struct iok_baton *baton)
{
    uint32_t expected = IOK_BATON_FREE;

    if (!atomic_compare_exchange_strong_explicit(&baton->state, &expected, IOK_BATON_LED, memory_order_acquire,
                                                 memory_order_relaxed)) {
        return false;
    }
    atomic_fetch_add_explicit(&baton->leads, 1, memory_order_relaxed);
    return true;
}

static void recall_kernel(struct iok_baton *baton)
{
    atomic_store_explicit(&baton->recall, 1, memory_order_release);
    futex_wake(&baton->recall);
}

void iok_baton_recall_if_free(struct iok_baton *baton)
{
    if (atomic_load_explicit(&baton->state, memory_order_acquire) == IOK_BATON_FREE) {
        recall_kernel(baton);
    }
}

void iok_baton_give(struct iok_baton *baton, bool recall)
{
    atomic_store_explicit(&baton->state, IOK_BATON_FREE, memory_order_release);
    if (recall) {
        recall_kernel(baton);
    }
}

#else

void iok_baton_lend(struct iok_baton *baton, uint64_t grace_ns)
{
    (void)baton;
    (void)grace_ns;
}

bool iok_baton_try_take(struct iok_baton *baton)
{
    (void)baton;
    return false;
}

void iok_baton_recall_if_free(struct iok_baton *baton)
{
    (void)baton;
}

void iok_baton_give(struct iok_baton *baton, bool recall)
{
    (void)baton;
    (void)recall;
}

#endif

void iok_baton_want(struct iok_baton *baton)
{
    atomic_fetch_add_explicit(&baton->wanted, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* before looking whether the kernel thread sleeps */
}

void iok_baton_unwant(struct iok_baton *baton)
{
    atomic_fetch_sub_explicit(&baton->wanted, 1, memory_order_relaxed);
}
