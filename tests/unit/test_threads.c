/* The whole library under load: five threads that wait and three event loops, with a port each, share one connection to a
 * line-echo server; calls are waited for, cancelled and abandoned at random. Every reply belongs to its call, every call ends, nothing is left.
 * Run under TSan and ASan by make check. */
#include <arpa/inet.h>
#include <iokernel.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "../../src/base/count.h"

#define THREADS 5
#define LOOPS 3
#define CALLS 2000
#define BURST 50

static struct iok_kernel *kernel;
static struct iok_service *service;

/* Serves connections one after another, until the listener is shut down. */
static void *echo(void *arg)
{
    int listener = *(int *)arg;
    char buffer[65536];
    int fd;

    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        ssize_t n;

        while ((n = read(fd, buffer, sizeof(buffer))) > 0) {
            ssize_t done = 0;

            while (done < n) {
                ssize_t part = write(fd, buffer + done, (size_t)(n - done));

                if (part <= 0) {
                    break;
                }
                done += part;
            }
        }
        (void)close(fd);
    }
    return NULL;
}

static int listen_somewhere(char *url, size_t cap)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    (void)snprintf(url, cap, "line://127.0.0.1:%u?timeout=60s", ntohs(address.sin_port));
    return fd;
}

struct tally {
    unsigned seed, done, cut, wrong;
};

static struct iok_call *submit(struct iok_port *port, const char *text)
{
    struct iok_call *call = iok_call_new(port, service, NULL);

    iok_call_text(call, text, strlen(text));
    if (iok_submit(call) != 0) {
        abort();
    }
    return call;
}

static void *work(void *arg)
{
    struct tally *tally = arg;
    struct iok_port *port = iok_port_new(kernel, NULL);

    for (int i = 0; i < CALLS; i++) {
        char text[64];
        const struct iok_token *reply;
        struct iok_call *call;
        size_t n;

        (void)snprintf(text, sizeof(text), "thread %u call %d", tally->seed, i);
        call = submit(port, text);
        switch (rand_r(&tally->seed) % 8) {
        case 0:
            iok_abandon(call);
            tally->cut++;
            continue;
        case 1:
            iok_cancel(call);
            break;
        default:
            break;
        }
        while (iok_wait_call(call, -1) == IOK_EINTR) {
        }
        reply = iok_call_reply(call, &n);
        if (reply == NULL) {
            tally->cut += iok_call_error(call, NULL) == IOK_ECANCELLED;
        } else {
            tally->done++;
            tally->wrong += reply->len != strlen(text) || memcmp(reply->p, text, reply->len) != 0;
        }
        iok_call_free(call);
    }
    iok_port_free(port);
    return NULL;
}

/* Bursts of more calls than the port has room for; some are taken back, in flight or while they wait. */
static void *work_in_bursts(void *arg)
{
    struct tally *tally = arg;
    struct iok_port *port = iok_port_new(kernel, NULL);
    struct iok_call *calls[BURST];

    for (int round = 0; round < CALLS / BURST; round++) {
        for (int i = 0; i < BURST; i++) {
            char text[64];

            (void)snprintf(text, sizeof(text), "thread %u round %d call %d", tally->seed, round, i);
            calls[i] = submit(port, text);
        }
        for (int i = 0; i < BURST; i++) {
            if (rand_r(&tally->seed) % 8 == 0) {
                iok_abandon(calls[i]);
                calls[i] = NULL;
                tally->cut++;
            }
        }
        for (int i = 0; i < BURST; i++) {
            char text[64];
            const struct iok_token *reply;
            size_t n;

            if (calls[i] == NULL) {
                continue;
            }
            while (iok_wait_call(calls[i], -1) == IOK_EINTR) {
            }
            (void)snprintf(text, sizeof(text), " round %d call %d", round, i);
            reply = iok_call_reply(calls[i], &n);
            tally->done++;
            tally->wrong += reply == NULL || reply->len < strlen(text) ||
                            memcmp(reply->p + reply->len - strlen(text), text, strlen(text)) != 0;
            iok_call_free(calls[i]);
        }
    }
    iok_port_free(port);
    return NULL;
}

/* As many calls of a loop as it keeps under way; what was abandoned is not heard of again. */
static void fill(struct iok_port *port, struct tally *tally, uintptr_t *made)
{
    while (*made < CALLS && iok_port_calls(port) < BURST) {
        char text[64];
        struct iok_call *call;

        (void)snprintf(text, sizeof(text), "loop call %u", (unsigned)*made);
        call = submit(port, text);
        iok_call_set_user(call, (void *)(*made)++);
        if (rand_r(&tally->seed) % 8 == 0) {
            iok_abandon(call);
            tally->cut++;
        } else if (rand_r(&tally->seed) % 8 == 0) {
            iok_cancel(call);
        }
    }
}

static void take_in(struct iok_call *call, struct tally *tally)
{
    char text[64];
    const struct iok_token *reply;
    size_t n;

    (void)snprintf(text, sizeof(text), "loop call %u", (unsigned)(uintptr_t)iok_call_user(call));
    reply = iok_call_reply(call, &n);
    if (reply == NULL) {
        tally->cut += iok_call_error(call, NULL) == IOK_ECANCELLED;
    } else {
        tally->done++;
        tally->wrong += reply->len != strlen(text) || memcmp(reply->p, text, reply->len) != 0;
    }
    iok_call_free(call);
}

/* An event loop's way: it sleeps on the port's descriptor, and drains. */
static void *work_in_a_loop(void *arg)
{
    struct tally *tally = arg;
    struct iok_port *port = iok_port_new(kernel, NULL);
    struct pollfd fd = {.fd = iok_port_fd(port), .events = POLLIN};
    uintptr_t made = 0;

    fill(port, tally, &made);
    while (tally->done + tally->cut < CALLS) {
        struct iok_call *call;

        (void)poll(&fd, 1, -1);
        iok_drain_begin(port);
        while ((call = iok_poll(port)) != NULL) {
            take_in(call, tally);
            fill(port, tally, &made);
        }
        fill(port, tally, &made); /* what was abandoned has left room, too */
        iok_drain_end(port);
    }
    iok_port_free(port);
    return NULL;
}

static void run_load(const struct iok_options *options, const char *url_options, void *(*load)(void *), unsigned loops)
{
    struct iok_error err;
    struct iok_service_stats stats;
    struct iok_kernel_stats all;
    struct tally tallies[THREADS + LOOPS];
    pthread_t server, threads[THREADS + LOOPS];
    struct iok_port *port;
    char url[80];
    int listener = listen_somewhere(url, sizeof(url));

    (void)strncat(url, url_options, sizeof(url) - strlen(url) - 1);
    assert_int_equal(pthread_create(&server, NULL, echo, &listener), 0);
    kernel = iok_kernel_new(options, &err);
    assert_non_null(kernel);
    port = iok_port_new(kernel, &err);
    service = iok_service_new(port, url, &err);
    assert_non_null(service);
    for (unsigned i = 0; i < THREADS + loops; i++) {
        tallies[i] = (struct tally){.seed = i + 1};
        assert_int_equal(pthread_create(&threads[i], NULL, i < THREADS ? load : work_in_a_loop, &tallies[i]), 0);
    }
    for (unsigned i = 0; i < THREADS + loops; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(tallies[i].wrong, 0);
        assert_int_equal(tallies[i].done + tallies[i].cut, CALLS);
    }
    iok_service_stats(service, &stats);
    if (load == work) {
        assert_int_equal(stats.calls, (THREADS + loops) * CALLS);
    } else {
        assert_true(stats.calls < THREADS * CALLS); /* some were taken back before the kernel saw them */
    }
    assert_int_equal(stats.ended[IOK_DONE] + stats.ended[IOK_NEVER_SENT] + stats.ended[IOK_MAYBE_EXECUTED],
                     stats.calls);
    assert_int_equal(stats.overloaded, 0);
    assert_int_equal(stats.connects, 1); /* cancelled calls left tombstones, and cost no connection */
    iok_service_close(service, port);
    iok_service_unref(service);
    iok_port_free(port);
    iok_kernel_stats(kernel, &all);
    assert_int_equal(all.buffer_bytes, 0);
    iok_kernel_free(kernel);
    (void)shutdown(listener, SHUT_RDWR);
    assert_int_equal(pthread_join(server, NULL), 0);
    (void)close(listener);
}

static void test_mixed_load(void **state)
{
    (void)state;
    run_load(NULL, "", work, LOOPS);
}

static void test_load_that_waits(void **state)
{
    const struct iok_options options = {.port_calls_max = 8};

    (void)state;
    run_load(&options, "&overload=wait", work_in_bursts, 0);
}

static void test_stop_with_calls_in_flight(void **state)
{
    struct iok_error err;
    struct iok_port *port;
    struct iok_call *calls[100];
    char url[64];
    int listener = listen_somewhere(url, sizeof(url)); /* accepts by backlog, never answers */

    (void)state;
    kernel = iok_kernel_new(NULL, &err);
    port = iok_port_new(kernel, &err);
    service = iok_service_new(port, url, &err);
    for (unsigned i = 0; i < 100; i++) {
        calls[i] = submit(port, "into the void");
    }
    iok_kernel_free(kernel);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(iok_wait_call(calls[i], -1), 0);
        assert_int_equal(iok_call_error(calls[i], &err), IOK_ECLOSED);
        assert_true(iok_call_outcome(calls[i]) != IOK_DONE);
        iok_call_free(calls[i]);
    }
    assert_null(iok_service_new(port, "rediss://127.0.0.1", &err)); /* needs its driver for the certificates */
    assert_int_equal(err.code, IOK_ECLOSED);
    iok_service_unref(service);
    iok_port_free(port);
    (void)close(listener);
}

/* What a program lends is given back by a function of its own, which may wait for a lock: as long as it likes, since the
 * kernel goes on meanwhile. Here it waits for another thread's call. */
static struct iok_count given_back;

static void *call_meanwhile(void *arg)
{
    struct iok_port *port = iok_port_new(kernel, NULL);
    struct iok_call *call = submit(port, "meanwhile");

    (void)arg;
    while (iok_wait_call(call, -1) == IOK_EINTR) {
    }
    if (iok_call_outcome(call) != IOK_DONE) {
        struct iok_error err = {0};

        (void)iok_call_error(call, &err);
        (void)fprintf(stderr, "a call meanwhile: %s\n", err.text);
        abort();
    }
    iok_call_free(call);
    iok_port_free(port);
    return NULL;
}

static void give_back(void *arg)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, call_meanwhile, arg) != 0 || pthread_join(thread, NULL) != 0) {
        (void)fprintf(stderr, "no thread more\n");
        abort();
    }
    iok_count_add(&given_back, 1);
}

static void test_giving_back_may_take_long(void **state)
{
    struct iok_error err;
    struct iok_kernel_stats before, after;
    struct iok_port *port;
    pthread_t server;
    char url[64];
    int listener = listen_somewhere(url, sizeof(url)), led = 0, n_lent = 0;

    (void)state;
    iok_count_set(&given_back, 0);
    assert_int_equal(pthread_create(&server, NULL, echo, &listener), 0);
    kernel = iok_kernel_new(&(struct iok_options){.handoff = IOK_HANDOFF_LEAD}, &err);
    port = iok_port_new(kernel, &err);
    service = iok_service_new(port, url, &err);
    /* The waiter leads when calls come quickly one after the other, which a slow machine may not manage. */
    for (int i = 0; i < 2000 && led < 20; i++) {
        struct iok_call *lent = NULL, *next;

        iok_kernel_stats(kernel, &before);
        if (i % 10 == 9) {
            lent = iok_call_new(port, service, &err);
            iok_call_ref(lent, "lent", 4, give_back, NULL);
            assert_int_equal(iok_submit(lent), 0);
            iok_call_free(lent);
            n_lent++;
        }
        next = submit(port, "next"); /* whoever waits for this takes in the end of the other one */
        assert_int_equal(iok_wait_call(next, -1), 0);
        assert_int_equal(iok_call_outcome(next), IOK_DONE);
        iok_call_free(next);
        iok_kernel_stats(kernel, &after);
        led += lent != NULL && after.leads > before.leads;
    }
    iok_service_close(service, port);
    iok_service_unref(service);
    iok_port_free(port);
    assert_int_equal(iok_count_get(&given_back), n_lent);
    iok_kernel_free(kernel);
    (void)shutdown(listener, SHUT_RDWR);
    assert_int_equal(pthread_join(server, NULL), 0);
    (void)close(listener);
}

static void *use_anothers(void *arg)
{
    struct iok_error err = {0};

    return iok_call_new(arg, service, &err) == NULL && err.code == IOK_ETHREAD ? arg : NULL;
}

static void test_wrong_thread(void **state)
{
    struct iok_error err;
    struct iok_port *port;
    pthread_t thread;
    void *result = NULL;
    char url[64];
    int listener = listen_somewhere(url, sizeof(url));

    (void)state;
    kernel = iok_kernel_new(NULL, &err);
    port = iok_port_new(kernel, &err);
    service = iok_service_new(port, url, &err);
    assert_int_equal(pthread_create(&thread, NULL, use_anothers, port), 0);
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_ptr_equal(result, port);
    iok_service_close(service, port);
    iok_service_unref(service);
    iok_port_free(port);
    iok_kernel_free(kernel);
    (void)close(listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mixed_load),
        cmocka_unit_test(test_load_that_waits),
        cmocka_unit_test(test_stop_with_calls_in_flight),
        cmocka_unit_test(test_giving_back_may_take_long),
        cmocka_unit_test(test_wrong_thread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
