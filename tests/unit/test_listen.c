/* test_listen.c - listeners on real sockets: addresses, unix sockets and what is left of them, inherited descriptors, want of
 * descriptors, fork. What is served is test_serve.c's business. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <iokernel.h>

#include "../../src/run.h"

/* ThreadSanitizer does not expect threads in the child of a process with threads; here they work. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}

#define WAIT_MS 20000 /* far more than any of it needs */

struct shop {
    struct iok_kernel *kernel;
    struct iok_port *port;
    struct iok_listener *listener;
};

static const char *chaos; /* for the next kernel */

static void shop_make(struct shop *shop)
{
    struct iok_options options = {.chaos = chaos};
    struct iok_error err = {.text = ""};

    shop->kernel = iok_kernel_new(&options, &err);
    assert_non_null(shop->kernel);
    shop->port = iok_port_new(shop->kernel, &err);
    assert_non_null(shop->port);
    shop->listener = NULL;
}

static void shop_listen(struct shop *shop, const char *url)
{
    struct iok_error err = {.text = ""};

    shop->listener = iok_listener_new(shop->port, url, &err);
    if (shop->listener == NULL) {
        fail_msg("%s: %s", url, err.text);
    }
}

static void shop_serve(struct shop *shop)
{
    struct iok_call *call = iok_serve_new(shop->port, shop->listener, NULL);

    assert_non_null(call);
    assert_int_equal(iok_submit(call), 0);
}

static void shop_open(struct shop *shop, const char *url)
{
    shop_make(shop);
    shop_listen(shop, url);
    shop_serve(shop);
}

/* The listener is gone when its calls have ended. */
static void shop_close_listener(struct shop *shop)
{
    iok_listener_close(shop->listener, shop->port, 0);
    while (iok_port_calls(shop->port) > 0) {
        struct iok_call *call;

        assert_int_equal(iok_wait(shop->port, WAIT_MS), 0);
        while ((call = iok_poll(shop->port)) != NULL) {
            iok_call_free(call);
        }
    }
    iok_listener_unref(shop->listener);
    shop->listener = NULL;
}

static void shop_close(struct shop *shop)
{
    if (shop->listener != NULL) {
        shop_close_listener(shop);
    }
    iok_port_free(shop->port);
    iok_kernel_free(shop->kernel);
}

/* -1: refused, or no descriptor is left. */
static int dial_tcp(const char *name)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = WAIT_MS / 1000};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return -1;
    }
    to.sin_port = htons((uint16_t)atoi(strrchr(name, ':') + 1));
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int dial_unix(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(to.sun_path, path);
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void ask(int fd)
{
    static const char text[] = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

    assert_int_equal(send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL), sizeof(text) - 1);
}

static void answer(struct iok_call *call)
{
    iok_call_array(call, 4);
    iok_call_i64(call, 200);
    iok_call_null(call);
    iok_call_array(call, 0);
    iok_call_bytes(call, "well", 4);
    assert_int_equal(iok_submit(call), 0);
}

static void serve_one(struct shop *shop)
{
    struct iok_call *call;

    do {
        assert_int_equal(iok_wait(shop->port, WAIT_MS), 0);
        call = iok_poll(shop->port);
    } while (call == NULL);
    assert_int_equal(iok_serve_state(call), IOK_SERVE_REQUEST);
    answer(call);
}

static void hear(int fd)
{
    char text[512] = "";
    size_t n = 0;

    while (n < 4 || memcmp(text + n - 4, "well", 4) != 0) {
        ssize_t got = recv(fd, text + n, sizeof(text) - 1 - n, 0);

        if (got <= 0) {
            fail_msg("no answer behind '%s'", text);
        }
        n += (size_t)got;
    }
    assert_memory_equal(text, "HTTP/1.1 200 OK\r\n", 17);
}

static void exchange(struct shop *shop, int fd)
{
    assert_true(fd >= 0);
    ask(fd);
    serve_one(shop);
    hear(fd);
}

static void test_tcp(void **state)
{
    struct shop shop;
    int a, b;

    (void)state;
    shop_open(&shop, "http://127.0.0.1:0");
    assert_memory_equal(iok_listener_name(shop.listener), "http://127.0.0.1:", 17);
    a = dial_tcp(iok_listener_name(shop.listener));
    b = dial_tcp(iok_listener_name(shop.listener));
    exchange(&shop, a);
    exchange(&shop, b);
    exchange(&shop, a);
    close(a);
    close(b);
    shop_close(&shop);
}

/* On a network that cuts bytes up, delays and refuses them. */
static void test_chaos(void **state)
{
    chaos = "seed=3,partial=0.5,refuse=0.2,pieces=7,delay=1ms";
    test_tcp(state);
    chaos = NULL;
}

/* The client has said all, and waits for the answer. */
static void test_half_close(void **state)
{
    struct iok_call *call;
    struct shop shop;
    char none;
    int fd;

    (void)state;
    shop_open(&shop, "http://127.0.0.1:0");
    fd = dial_tcp(iok_listener_name(shop.listener));
    ask(fd);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    do {
        assert_int_equal(iok_wait(shop.port, WAIT_MS), 0);
        call = iok_poll(shop.port);
    } while (call == NULL || iok_serve_state(call) != IOK_SERVE_LEFT);
    answer(call);
    hear(fd);
    assert_int_equal(recv(fd, &none, 1, 0), 0);
    close(fd);
    shop_close(&shop);
}

static void test_unix(void **state)
{
    char directory[] = "/tmp/iok-listen-XXXXXX", path[64], url[128];
    struct iok_error err;
    struct shop shop;
    struct stat file;
    int fd, stale;
    struct sockaddr_un dead = {.sun_family = AF_UNIX};

    (void)state;
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/s", directory);
    snprintf(url, sizeof(url), "http+unix://%s?mode=0600", path);
    strcpy(dead.sun_path, path);
    stale = socket(AF_UNIX, SOCK_STREAM, 0); /* left behind by a process that died */
    assert_int_equal(bind(stale, (struct sockaddr *)&dead, sizeof(dead)), 0);
    close(stale);
    shop_open(&shop, url);
    assert_int_equal(stat(path, &file), 0);
    assert_int_equal(file.st_mode & 0777, 0600);
    fd = dial_unix(path);
    exchange(&shop, fd);
    close(fd);
    assert_null(iok_listener_new(shop.port, url, &err)); /* somebody listens there */
    assert_int_equal(err.code, IOK_ECONNECT);
    assert_non_null(strstr(err.text, path));
    fd = dial_unix(path);
    exchange(&shop, fd);
    close(fd);
    shop_close(&shop);
    assert_int_equal(stat(path, &file), -1);   /* and is gone with the listener */
    fd = open(path, O_CREAT | O_WRONLY, 0600); /* what is no socket is nobody's to remove */
    assert_true(fd >= 0);
    close(fd);
    shop_make(&shop);
    assert_null(iok_listener_new(shop.port, url, &err));
    assert_int_equal(err.code, IOK_ECONNECT);
    assert_int_equal(stat(path, &file), 0);
    shop_close(&shop);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(directory), 0);
}

static void test_addresses_that_cannot_be(void **state)
{
    static const struct {
        const char *url;
        int code;
        const char *text;
    } cases[] = {
        {"redis://127.0.0.1:0", IOK_EURL, "cannot serve 'redis'"},
        {"http://example.com:80", IOK_EURL, "expected an IP address"},
        {"http://127.0.0.1:1/path", IOK_EURL, "one host and port"},
        {"http://u:p@127.0.0.1:0", IOK_EURL, "one host and port"},
        {"http://127.0.0.1:0?idl=3s", IOK_EOPTION, "did you mean 'idle'"},
        {"http://127.0.0.1:0?mode=0600", IOK_EOPTION, "unix socket"},
        {"http+unix:///tmp/x?mode=9", IOK_EOPTION, "octal"},
        {"http:?fd=0", IOK_ECONNECT, "fd=0 is no stream socket"},
        {"http://127.0.0.1:0?fd=3", IOK_EOPTION, "its own address"},
        {"http://192.0.2.1:8000", IOK_ECONNECT, "cannot listen on 192.0.2.1:8000"},
    };
    struct iok_error err;
    struct shop shop;

    (void)state;
    shop_make(&shop);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_null(iok_listener_new(shop.port, cases[i].url, &err));
        if (err.code != cases[i].code || strstr(err.text, cases[i].text) == NULL) {
            fail_msg("%s: %s: %s", cases[i].url, iok_errno_name(err.code), err.text);
        }
    }
    shop_close(&shop);
}

static void test_a_port_in_use(void **state)
{
    struct iok_error err;
    struct shop first, second;
    char url[128];
    int fd;

    (void)state;
    shop_open(&first, "http://127.0.0.1:0");
    shop_make(&second);
    assert_null(iok_listener_new(second.port, iok_listener_name(first.listener), &err));
    assert_int_equal(err.code, IOK_ECONNECT);
    assert_non_null(strstr(err.text, "in use"));
    shop_close_listener(&first);
    shop_listen(&first, "http://127.0.0.1:0?reuse_port=yes");
    shop_serve(&first);
    snprintf(url, sizeof(url), "%s?reuse_port=yes", iok_listener_name(first.listener));
    shop_listen(&second, url); /* each takes some */
    shop_close(&second);
    fd = dial_tcp(iok_listener_name(first.listener));
    exchange(&first, fd);
    close(fd);
    shop_close(&first);
}

static void test_an_inherited_descriptor(void **state)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), client;
    struct shop shop;
    char url[64];

    (void)state;
    assert_int_equal(bind(fd, (struct sockaddr *)&any, sizeof(any)), 0);
    snprintf(url, sizeof(url), "http:?fd=%d", fd);
    shop_open(&shop, url);
    client = dial_tcp(iok_listener_name(shop.listener));
    exchange(&shop, client);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC); /* what the program executes has no part of it */
    close(client);
    shop_close(&shop);
    assert_int_equal(fcntl(fd, F_GETFD), -1); /* it was the listener's */
}

static void test_no_descriptors_left(void **state)
{
    struct rlimit before, few;
    struct iok_listener_stats stats = {0};
    struct iok_kernel_stats first, second;
    struct shop shop;
    int fds[40], client, used;

    (void)state;
    shop_open(&shop, "http://127.0.0.1:0");
    client = dial_tcp(iok_listener_name(shop.listener));
    exchange(&shop, client);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    used = dup(0);
    close(used);
    few = before;
    few.rlim_cur = (rlim_t)used + 40;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    for (int i = 0; i < 40; i++) { /* each takes two, ours and the server's, until there is none */
        fds[i] = dial_tcp(iok_listener_name(shop.listener));
    }
    for (int i = 0; i < 2000 && stats.starved == 0; i++) {
        usleep(10000);
        iok_listener_stats(shop.listener, &stats);
    }
    assert_true(stats.starved > 0);
    exchange(&shop, client); /* those that are there are served */
    iok_kernel_stats(shop.kernel, &first);
    usleep(300000);
    iok_kernel_stats(shop.kernel, &second);
    assert_true(second.rounds - first.rounds < 100); /* no busy loop */
    for (int i = 0; i < 40; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    close(client);
    client = dial_tcp(iok_listener_name(shop.listener));
    exchange(&shop, client);
    close(client);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    shop_close(&shop);
}

/* In a child: 0, or what is wrong. */
static int serve_in_child(struct shop *shop)
{
    struct iok_error err;
    struct iok_call *call = iok_serve_new(shop->port, shop->listener, &err);

    if (call == NULL || iok_submit(call) != 0) {
        return call == NULL && err.code == IOK_EFORKED ? 1 : 2;
    }
    serve_one(shop);
    shop_close(shop);
    return 0;
}

static int status_of(pid_t child)
{
    int status = 0;

    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

static void test_children_serve_what_was_bound_before(void **state)
{
    struct shop shop;
    int fd;

    (void)state;
    shop_make(&shop);
    shop_listen(&shop, "http://127.0.0.1:0");
    for (int i = 0; i < 2; i++) { /* one after the other, as one might take the connections of both */
        pid_t child = fork();

        if (child == 0) {
            _exit(serve_in_child(&shop));
        }
        fd = dial_tcp(iok_listener_name(shop.listener));
        assert_true(fd >= 0);
        ask(fd);
        hear(fd);
        assert_int_equal(status_of(child), 0);
        close(fd);
    }
    shop_serve(&shop); /* and the parent may still do so itself */
    fd = dial_tcp(iok_listener_name(shop.listener));
    exchange(&shop, fd);
    close(fd);
    shop_close(&shop);
}

/* A child that was forked amid serving serves nothing, and does not keep the port. */
static void test_a_child_of_a_server(void **state)
{
    int go[2], there[2], fd;
    struct shop shop;
    char name[128], byte = 0;
    pid_t child;

    (void)state;
    shop_open(&shop, "http://127.0.0.1:0");
    snprintf(name, sizeof(name), "%s", iok_listener_name(shop.listener));
    fd = dial_tcp(name);
    exchange(&shop, fd);
    assert_int_equal(pipe(go) + pipe(there), 0);
    child = fork();
    if (child == 0) {
        close(go[1]);
        if (write(there[1], &byte, 1) != 1 || read(go[0], &byte, 1) != 0) { /* until the parent closes it */
            _exit(4);
        }
        _exit(serve_in_child(&shop) == 1 ? 0 : 3);
    }
    assert_int_equal(read(there[0], &byte, 1), 1);
    exchange(&shop, fd);
    close(fd);
    shop_close(&shop);
    assert_int_equal(dial_tcp(name), -1);
    close(go[1]);
    close(go[0]);
    close(there[0]);
    close(there[1]);
    assert_int_equal(status_of(child), 0);
}

/* ---- a fork amid a turn ---- */

static struct iok_kernel *led;
static struct iok_count
    found; /* 1 + the listening sockets that the child of a fork amid a turn has; 0: none forked yet */

/* Runs wherever the program is. */
static void fork_if_leading(int signal)
{
    int status = 0, before = errno;
    pid_t child;

    (void)signal;
    if (iok_count_get(&found) != 0 || !iok_is_leading(led)) {
        return;
    }
    child = fork();
    if (child == 0) {
        for (int fd = 0; fd < 256; fd++) {
            int listens = 0;
            socklen_t len = sizeof(listens);

            status += getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) == 0 && listens;
        }
        _exit(status);
    }
    iok_count_set(&found,
                  waitpid(child, &status, 0) == child && WIFEXITED(status) ? 1 + (uint64_t)WEXITSTATUS(status) : 99);
    errno = before;
}

static void *disturb(void *who)
{
    while (iok_count_get(&found) == 0) {
        (void)pthread_kill(*(pthread_t *)who, SIGUSR1);
        usleep(1000);
    }
    return NULL;
}

static void test_a_child_forked_amid_a_turn(void **state)
{
    struct sigaction act = {.sa_handler = fork_if_leading}, before;
    pthread_t self = pthread_self(), other;
    struct shop shop;
    int fd;

    (void)state;
    shop_open(&shop, "http://127.0.0.1:0");
    fd = dial_tcp(iok_listener_name(shop.listener));
    exchange(&shop, fd);
    led = shop.kernel;
    assert_int_equal(sigaction(SIGUSR1, &act, &before), 0);
    assert_int_equal(pthread_create(&other, NULL, disturb, &self), 0);
    for (unsigned i = 0; iok_count_get(&found) == 0;
         i++) { /* mostly short, as a port that waits long lets the kernel thread lead */
        (void)iok_wait(shop.port, i % 8 == 0);
    }
    assert_int_equal(pthread_join(other, NULL), 0);
    assert_int_equal(sigaction(SIGUSR1, &before, NULL), 0);
    assert_int_equal(iok_count_get(&found), 1);
    exchange(&shop, fd); /* the parent's goes on */
    close(fd);
    fd = dial_tcp(iok_listener_name(shop.listener));
    exchange(&shop, fd);
    close(fd);
    shop_close(&shop);
}

static struct iok_call *next_news(struct shop *shop)
{
    struct iok_call *call;

    while ((call = iok_poll(shop->port)) == NULL) {
        assert_int_equal(iok_wait(shop->port, WAIT_MS), 0);
    }
    return call;
}

/* The kernel deals with parts while the program has the call that they are of back: under TSan, whose memory is whose. */
static void test_parts_behind_a_head_that_is_refused(void **state)
{
    struct shop shop;
    int fd;

    (void)state;
    shop_open(&shop, "http://127.0.0.1:0");
    fd = dial_tcp(iok_listener_name(shop.listener));
    assert_true(fd >= 0);
    for (int i = 0; i < 50; i++) {
        struct iok_call *call, *news;
        unsigned parts = 20;
        bool refused = false;
        char answer[512];

        assert_int_equal(write(fd, "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 27), 27);
        call = next_news(&shop);
        iok_call_body(call);
        iok_call_array(call, 4);
        iok_call_i64(call, 200);
        iok_call_null(call);
        iok_call_array(call, 2);
        iok_call_static(call, "content-length", 14);
        iok_call_static(call, "five", 4);
        iok_call_null(call);
        assert_int_equal(iok_submit(call), 0);
        for (unsigned k = 0; k < parts; k++) {
            struct iok_call *part = iok_part_new(call, NULL);

            iok_call_static(part, "x", 1);
            assert_int_equal(iok_submit(part), 0);
        }
        while (parts > 0 || !refused) {
            news = next_news(&shop);
            if (news == call) {
                assert_int_equal(iok_call_error(call, NULL), IOK_EINVAL);
                refused = true;
            } else {
                assert_int_equal(iok_call_outcome(news), IOK_NEVER_SENT);
                iok_call_free(news);
                parts--;
            }
        }
        iok_call_array(call, 4);
        iok_call_i64(call, 204);
        iok_call_null(call);
        iok_call_array(call, 0);
        iok_call_null(call);
        assert_int_equal(iok_submit(call), 0);
        assert_true(read(fd, answer, sizeof(answer)) > 12);
        assert_memory_equal(answer, "HTTP/1.1 204", 12);
    }
    close(fd);
    shop_close(&shop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tcp),
        cmocka_unit_test(test_chaos),
        cmocka_unit_test(test_half_close),
        cmocka_unit_test(test_unix),
        cmocka_unit_test(test_addresses_that_cannot_be),
        cmocka_unit_test(test_a_port_in_use),
        cmocka_unit_test(test_an_inherited_descriptor),
        cmocka_unit_test(test_no_descriptors_left),
        cmocka_unit_test(test_children_serve_what_was_bound_before),
        cmocka_unit_test(test_a_child_of_a_server),
        cmocka_unit_test(test_a_child_forked_amid_a_turn),
        cmocka_unit_test(test_parts_behind_a_head_that_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
