/* test_fork.c - what a child of fork() can do with the handles that it inherited, and that its parent notices nothing.
 *
 * The peer is a process of its own, so that the sockets of this one are the kernel's. It echoes lines; a line that begins
 * with "hold" it echoes when somebody has said "go"; to "count" it says how many connections it has met and how many of
 * these have ended. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <iokernel.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "../../src/base/count.h"
#include "../kit/net_kit.h"

/* ThreadSanitizer's way to let a child have threads. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}

#define PATIENCE_S 60 /* then a process that hangs is ended */
#define PEER_CONNS 256

/* ---- the peer ---------------------------------------------------------------------------------------------------- */

struct peer_conn {
    int fd;
    size_t n, n_held;
    char line[4096], held[4096];
};

static struct peer_conn conns[PEER_CONNS];
static unsigned n_conns, n_met, n_ended; /* n_conns: slots that were in use once */

static void say(int fd, const char *text, size_t n)
{
    (void)send(fd, text, n, MSG_NOSIGNAL);
}

static void answer(struct peer_conn *conn, const char *line, size_t n)
{
    char text[64];

    if (n > 4 && memcmp(line, "hold", 4) == 0) {
        memcpy(conn->held + conn->n_held, line, n);
        conn->n_held += n;
    } else if (n == 6 && memcmp(line, "count\n", 6) == 0) {
        say(conn->fd, text, (size_t)snprintf(text, sizeof(text), "%u met, %u ended\n", n_met, n_ended));
    } else {
        say(conn->fd, line, n);
        for (unsigned i = 0; n == 3 && memcmp(line, "go\n", 3) == 0 && i < n_conns; i++) {
            if (conns[i].fd < 0) {
                continue;
            }
            say(conns[i].fd, conns[i].held, conns[i].n_held);
            conns[i].n_held = 0;
        }
    }
}

static void hear(struct peer_conn *conn)
{
    ssize_t n = recv(conn->fd, conn->line + conn->n, sizeof(conn->line) - conn->n, 0);
    char *at = conn->line, *end;

    if (n <= 0) {
        (void)close(conn->fd);
        conn->fd = -1;
        n_ended++;
        return;
    }
    conn->n += (size_t)n;
    while ((end = memchr(at, '\n', (size_t)(conn->line + conn->n - at))) != NULL) {
        answer(conn, at, (size_t)(end + 1 - at));
        at = end + 1;
    }
    conn->n = (size_t)(conn->line + conn->n - at);
    memmove(conn->line, at, conn->n);
}

static void meet(int fd)
{
    unsigned i = 0;

    while (i < n_conns && conns[i].fd >= 0) {
        i++;
    }
    if (i == PEER_CONNS) {
        _exit(1);
    }
    n_conns += i == n_conns;
    n_met++;
    conns[i] = (struct peer_conn){.fd = fd};
}

static void peer_main(int listener)
{
    struct pollfd fds[PEER_CONNS + 1];

    (void)alarm(2 * PATIENCE_S);
    for (;;) {
        unsigned n = n_conns;

        fds[0] = (struct pollfd){.fd = listener, .events = POLLIN};
        for (unsigned i = 0; i < n; i++) {
            fds[i + 1] = (struct pollfd){.fd = conns[i].fd, .events = POLLIN};
        }
        (void)poll(fds, n + 1, -1);
        for (unsigned i = 0; i < n; i++) {
            if (fds[i + 1].revents != 0) {
                hear(&conns[i]);
            }
        }
        if (fds[0].revents != 0) {
            meet(accept(listener, NULL, NULL));
        }
    }
}

/* ---- the world of a test ----------------------------------------------------------------------------------------- */

static struct {
    pid_t peer;
    struct sockaddr_in address;
    char url[96];
    struct iok_kernel *kernel;
    struct iok_port *port;
    struct iok_service *service;
} w;

static void world_new(const struct iok_options *options)
{
    struct iok_error err;
    socklen_t len = sizeof(w.address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    w.address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(fd, (struct sockaddr *)&w.address, len), 0);
    assert_int_equal(listen(fd, PEER_CONNS), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&w.address, &len), 0);
    w.peer = fork();
    if (w.peer == 0) {
        peer_main(fd);
    }
    (void)close(fd);
    (void)snprintf(w.url, sizeof(w.url), "line://127.0.0.1:%u?timeout=50s", ntohs(w.address.sin_port));
    w.kernel = iok_kernel_new(options, &err);
    assert_non_null(w.kernel);
    w.port = iok_port_new(w.kernel, &err);
    w.service = iok_service_new(w.port, w.url, &err);
    assert_non_null(w.service);
}

/* The handles only: also in a child. */
static void handles_free(void)
{
    iok_service_close(w.service, w.port);
    iok_service_unref(w.service);
    iok_port_free(w.port);
    iok_kernel_free(w.kernel);
}

static void world_free(void)
{
    handles_free();
    (void)kill(w.peer, SIGKILL);
    (void)waitpid(w.peer, NULL, 0);
}

static struct iok_call *submit(struct iok_port *port, struct iok_lease *lease, const char *text)
{
    struct iok_call *call = iok_call_new(port, w.service, NULL);

    if (call == NULL) {
        return NULL;
    }
    iok_call_text(call, text, strlen(text));
    if (lease != NULL) {
        iok_call_lease(call, lease);
    }
    return iok_submit(call) == 0 ? call : NULL;
}

/* Whether the call ended so; frees it. reply NULL: it failed with the code. */
static bool ends(struct iok_call *call, enum iok_outcome outcome, int code, const char *reply)
{
    const struct iok_token *token;
    struct iok_error err = {0};
    size_t n;
    bool as_said;

    if (call == NULL) {
        return false;
    }
    while (iok_wait_call(call, -1) == IOK_EINTR) {
    }
    token = iok_call_reply(call, &n);
    (void)iok_call_error(call, &err);
    as_said = iok_call_outcome(call) == outcome && err.code == code &&
              (reply == NULL || (n == 1 && token->len == strlen(reply) && memcmp(token->p, reply, token->len) == 0));
    if (!as_said) {
        (void)fprintf(stderr, "ended as %s, %s: %s\n", iok_outcome_name(iok_call_outcome(call)),
                      iok_errno_name(err.code), err.text);
    }
    iok_call_free(call);
    return as_said;
}

static bool echoes(struct iok_port *port, const char *text)
{
    return ends(submit(port, NULL, text), IOK_DONE, 0, text);
}

/* What the peer says, asked on a connection of the test's own. */
static void ask_peer(const char *line, char *reply, size_t cap)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ssize_t n;

    assert_int_equal(connect(fd, (struct sockaddr *)&w.address, sizeof(w.address)), 0);
    say(fd, line, strlen(line));
    n = recv(fd, reply, cap - 1, 0);
    (void)close(fd);
    assert_true(n > 0);
    reply[n - 1] = '\0';
}

static void peer_goes_on(void)
{
    char reply[64];

    ask_peer("go\n", reply, sizeof(reply));
}

/* Connections that the peer has met, and how many of these have ended; those of ask_peer left out. */
static void expect_connections(unsigned asked, unsigned met, unsigned ended)
{
    char expected[64], reply[64];

    (void)snprintf(expected, sizeof(expected), "%u met, %u ended", met + asked + 1, ended + asked);
    for (int i = 0; i < PATIENCE_S * 100; i++) {
        ask_peer("count\n", reply, sizeof(reply));
        if (strcmp(expected, reply) == 0) {
            return;
        }
        asked++;
        (void)snprintf(expected, sizeof(expected), "%u met, %u ended", met + asked + 1, ended + asked);
        (void)usleep(10000);
    }
    assert_string_equal(reply, expected);
}

/* In the child the check is made, with a time limit; its result is its status. */
static pid_t fork_to(bool (*check)(void))
{
    pid_t child = fork();

    if (child == 0) {
        (void)alarm(PATIENCE_S);
        _exit(check() ? 0 : 1);
    }
    return child;
}

static bool is_well(pid_t child)
{
    int status = -1;

    while (waitpid(child, &status, 0) != child && errno == EINTR) {
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* The inode of each socket that this process has open. */
static unsigned open_sockets(ino_t *inodes, unsigned max)
{
    DIR *directory = opendir("/proc/self/fd");
    struct dirent *entry;
    unsigned n = 0;

    while ((entry = readdir(directory)) != NULL) {
        struct stat about;

        if (fstat(atoi(entry->d_name), &about) == 0 && S_ISSOCK(about.st_mode) && n < max) {
            inodes[n++] = about.st_ino;
        }
    }
    (void)closedir(directory);
    return n;
}

/* ---- the same handles -------------------------------------------------------------------------------------------- */

static ino_t parents[16];
static unsigned n_parents;

/* The parent has threads: what is theirs is lost memory in a child. */
static bool memory_of_threads;

static bool shares_no_socket(void)
{
    ino_t mine[16];
    unsigned n = open_sockets(mine, 16);

    for (unsigned i = 0; i < n; i++) {
        for (unsigned j = 0; j < n_parents; j++) {
            if (mine[i] == parents[j]) {
                return false;
            }
        }
    }
    return true;
}

static bool use_and_free(void)
{
    bool well = shares_no_socket() && echoes(w.port, "of the child") && echoes(w.port, "again") && shares_no_socket();
    struct iok_kernel_stats stats;

    iok_service_close(w.service, w.port);
    iok_service_unref(w.service);
    iok_port_free(w.port);
    do { /* the end of the kernel's turn frees the connections */
        iok_kernel_stats(w.kernel, &stats);
    } while (stats.objects != 0);
    iok_kernel_free(w.kernel);
    return well && stats.buffer_bytes == 0 && (memory_of_threads || leaks() == 0);
}

static void test_same_handles(void **state)
{
    (void)state;
    world_new(NULL);
    assert_true(echoes(w.port, "of the parent"));
    n_parents = open_sockets(parents, 16);
    assert_int_equal(n_parents, 1);
    for (int i = 0; i < 5; i++) {
        assert_true(is_well(fork_to(use_and_free)));
        assert_true(echoes(w.port, "of the parent"));
    }
    expect_connections(0, 6, 5);
    world_free();
}

static bool free_unused(void)
{
    handles_free();
    return shares_no_socket() && (memory_of_threads || leaks() == 0);
}

static bool do_nothing(void)
{
    return shares_no_socket();
}

static void test_unused(void **state)
{
    (void)state;
    world_new(NULL);
    assert_true(echoes(w.port, "of the parent"));
    n_parents = open_sockets(parents, 16);
    assert_true(is_well(fork_to(free_unused)));
    assert_true(is_well(fork_to(do_nothing)));
    assert_true(echoes(w.port, "of the parent"));
    expect_connections(0, 1, 0);
    world_free();
}

static bool fork_and_use(void)
{
    return is_well(fork_to(use_and_free)) && is_well(fork_to(free_unused)) && use_and_free();
}

static bool use_and_fork(void)
{
    return echoes(w.port, "of the child") && is_well(fork_to(use_and_free)) && is_well(fork_to(free_unused)) &&
           use_and_free();
}

static bool fork_and_fork_and_use(void)
{
    return is_well(fork_to(fork_and_use)) && use_and_free();
}

static void test_grandchildren(void **state)
{
    (void)state;
    world_new(NULL);
    assert_true(echoes(w.port, "of the parent"));
    n_parents = open_sockets(parents, 16);
    assert_true(is_well(fork_to(fork_and_use)));
    assert_true(is_well(fork_to(use_and_fork)));
    assert_true(is_well(fork_to(fork_and_fork_and_use)));
    assert_true(echoes(w.port, "of the parent"));
    world_free();
}

/* ---- calls under way --------------------------------------------------------------------------------------------- */

static struct iok_call *held[8];
static struct iok_lease *bound, *unbound, *given_back;

static bool ends_as_parents(struct iok_call *call)
{
    return ends(call, IOK_MAYBE_EXECUTED, IOK_EFORKED, NULL);
}

static bool calls_end_here(void)
{
    bool well = true;

    iok_abandon(held[0]);
    iok_cancel(held[1]);
    well &= iok_wait_call(held[1], -1) == 0 && iok_call_outcome(held[1]) == IOK_MAYBE_EXECUTED;
    iok_call_free(held[1]);
    for (unsigned i = 2; i < 8; i++) {
        well &= ends_as_parents(held[i]);
    }
    return well && use_and_free();
}

static bool calls_are_polled_here(void)
{
    unsigned n = 0;
    struct pollfd fd = {.fd = iok_port_fd(w.port), .events = POLLIN};

    if (poll(&fd, 1, -1) != 1) {
        return false;
    }
    iok_drain_begin(w.port);
    for (struct iok_call *call; (call = iok_poll(w.port)) != NULL; n++) {
        if (!ends_as_parents(call)) {
            return false;
        }
    }
    iok_drain_end(w.port);
    return n == 8 && poll(&fd, 1, 0) == 0 && use_and_free();
}

static bool calls_are_dropped_here(void)
{
    for (unsigned i = 0; i < 8; i++) {
        iok_call_free(held[i]);
    }
    return free_unused();
}

/* In flight: a few of each kind. In the ring: the kernel has not been told. */
static void test_calls_under_way(void **state)
{
    bool (*const checks[])(void) = {calls_end_here, calls_are_polled_here, calls_are_dropped_here, free_unused};

    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        world_new(NULL);
        assert_true(echoes(w.port, "first"));
        if ((i & 4) != 0) { /* a number that the program knows, and that stays */
            assert_true(iok_port_fd(w.port) >= 0);
        }
        for (unsigned n = 0; n < 4; n++) {
            held[n] = submit(w.port, NULL, "hold");
        }
        iok_drain_begin(w.port);
        for (unsigned n = 4; n < 8; n++) {
            held[n] = submit(w.port, NULL, "hold");
        }
        assert_true(is_well(fork_to(checks[i & 3])));
        iok_drain_end(w.port);
        (void)iok_wait(w.port, 50); /* for the eighth to be sent */
        assert_true(is_well(fork_to(checks[i & 3])));
        peer_goes_on();
        for (unsigned n = 0; n < 8; n++) {
            peer_goes_on();
            assert_true(ends(held[n], IOK_DONE, 0, "hold"));
        }
        world_free();
    }
}

static bool parked_end_here(void)
{
    bool well = true;

    for (unsigned i = 0; i < 6; i++) {
        well &= ends_as_parents(held[i]);
    }
    for (unsigned i = 0; i < 6; i++) { /* and here there is room for others */
        held[i] = submit(w.port, NULL, "in turn");
    }
    for (unsigned i = 0; i < 6; i++) {
        well &= ends(held[i], IOK_DONE, 0, "in turn");
    }
    return well && use_and_free();
}

/* Calls that wait for room on their port are the parent's, too: it hands them over, and nobody else. */
static void test_parked_calls(void **state)
{
    struct iok_options options = {.port_calls_max = 2};

    (void)state;
    world_new(&options);
    iok_service_close(w.service, w.port);
    iok_service_unref(w.service);
    (void)snprintf(w.url + strlen(w.url), sizeof(w.url) - strlen(w.url), "&overload=wait");
    w.service = iok_service_new(w.port, w.url, NULL);
    for (unsigned i = 0; i < 6; i++) {
        held[i] = submit(w.port, NULL, "hold");
        assert_non_null(held[i]);
    }
    assert_true(is_well(fork_to(parked_end_here)));
    assert_true(is_well(fork_to(free_unused)));
    for (unsigned i = 0; i < 6; i++) {
        while (iok_wait_call(held[i], 20) == IOK_ETIMEOUT) {
            peer_goes_on();
        }
        assert_true(ends(held[i], IOK_DONE, 0, "hold"));
    }
    world_free();
}

static bool leases_here(void)
{
    bool well = ends_as_parents(held[0]) && ends(submit(w.port, bound, "x"), IOK_NEVER_SENT, IOK_EFORKED, NULL) &&
                ends(submit(w.port, unbound, "x"), IOK_DONE, 0, "x");
    struct iok_lease *fresh = iok_lease_new(w.port, w.service, NULL);

    well &= ends(submit(w.port, fresh, "y"), IOK_DONE, 0, "y");
    iok_lease_free(fresh);
    iok_lease_free(bound);
    return well && use_and_free(); /* unbound goes with its port */
}

static void test_leases(void **state)
{
    (void)state;
    world_new(NULL);
    bound = iok_lease_new(w.port, w.service, NULL);
    unbound = iok_lease_new(w.port, w.service, NULL);
    given_back = iok_lease_new(w.port, w.service, NULL);
    assert_true(ends(submit(w.port, bound, "a"), IOK_DONE, 0, "a"));
    assert_true(ends(submit(w.port, given_back, "b"), IOK_DONE, 0, "b"));
    held[0] = submit(w.port, bound, "hold");
    iok_drain_begin(w.port);
    iok_lease_free(given_back); /* perhaps not heard by the kernel yet */
    assert_true(is_well(fork_to(leases_here)));
    iok_drain_end(w.port);
    peer_goes_on();
    while (iok_wait_call(held[0], 20) == IOK_ETIMEOUT) {
        peer_goes_on();
    }
    assert_true(ends(held[0], IOK_DONE, 0, "hold"));
    assert_true(ends(submit(w.port, bound, "c"), IOK_DONE, 0, "c"));
    iok_lease_free(bound);
    iok_lease_free(unbound);
    world_free();
}

/* ---- other threads ----------------------------------------------------------------------------------------------- */

static struct iok_port *others;
static struct iok_count ready, enough;

static void *wait_for_long(void *arg)
{
    struct iok_call *call, *also;

    others = iok_port_new(w.kernel, NULL);
    call = submit(others, NULL, "hold other");
    also = submit(others, NULL, "hold also");
    iok_count_publish(&ready, 1);
    *(bool *)arg = ends(call, IOK_DONE, 0, "hold other") && ends(also, IOK_DONE, 0, "hold also");
    iok_port_free(others);
    return NULL;
}

static bool others_port_is_lost(void)
{
    struct iok_error err = {0};
    bool well = iok_call_new(others, w.service, &err) == NULL && err.code == IOK_EFORKED;

    iok_port_adopt(others);
    well &= iok_call_new(others, w.service, &err) == NULL && err.code == IOK_EFORKED;
    well &= iok_poll(others) == NULL && iok_wait(others, 0) == IOK_EFORKED;
    iok_port_free(others); /* waits for nobody */
    return well && echoes(w.port, "of the child") && use_and_free();
}

static bool others_port_is_freed_late(void)
{
    bool well = echoes(w.port, "of the child");

    iok_port_free(others);
    return well && use_and_free();
}

static void test_port_of_another_thread(void **state)
{
    pthread_t thread;
    bool well = false;

    (void)state;
    world_new(NULL);
    memory_of_threads = true;
    iok_count_set(&ready, 0);
    assert_int_equal(pthread_create(&thread, NULL, wait_for_long, &well), 0);
    while (iok_count_published(&ready) == 0) {
        (void)usleep(1000);
    }
    assert_true(is_well(fork_to(others_port_is_lost)));
    assert_true(is_well(fork_to(others_port_is_freed_late)));
    for (int i = 0; i < 100; i++) {
        peer_goes_on();
        (void)usleep(1000);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    memory_of_threads = false;
    assert_true(well);
    world_free();
}

static void *call_on(void *arg)
{
    struct iok_port *port = iok_port_new(w.kernel, NULL);
    char text[64];
    unsigned n = 0;
    bool well = true;

    while (well && iok_count_published(&enough) == 0) {
        (void)snprintf(text, sizeof(text), "%p %u", arg, n++);
        well = echoes(port, text);
        if (n % 64 == 0) { /* services come and go meanwhile */
            struct iok_service *service = iok_service_new(port, w.url, NULL);

            iok_service_close(service, port);
            iok_service_unref(service);
        }
    }
    iok_port_free(port);
    return well ? arg : NULL;
}

static void *only_use(void *arg)
{
    struct iok_port *port = iok_port_new(w.kernel, NULL);
    bool well = port != NULL && echoes(port, arg);

    iok_port_free(port);
    return well ? arg : NULL;
}

/* The kernel is revived once, by whoever comes first. */
static bool use_from_threads(void)
{
    static char names[4][16] = {"one", "two", "three", "four"};
    pthread_t threads[4];
    bool well = true;
    void *result;

    for (unsigned i = 0; i < 4; i++) {
        well &= pthread_create(&threads[i], NULL, only_use, names[i]) == 0;
    }
    well &= echoes(w.port, "main");
    for (unsigned i = 0; i < 4; i++) {
        well &= pthread_join(threads[i], &result) == 0 && result == names[i];
    }
    return well && use_and_free();
}

static void fork_under_load(const struct iok_options *options, unsigned n_threads)
{
    bool (*const checks[])(void) = {use_and_free, use_from_threads, do_nothing, free_unused};
    static char names[4];
    pthread_t threads[4];
    void *result;

    world_new(options);
    assert_true(echoes(w.port, "first"));
    n_parents = 0; /* connections come and go */
    memory_of_threads = true;
    iok_count_set(&enough, 0);
    for (unsigned i = 0; i < n_threads; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, call_on, &names[i]), 0);
    }
    for (unsigned i = 0; i < 12; i++) {
        assert_true(is_well(fork_to(checks[i % 4])));
    }
    iok_count_publish(&enough, 1);
    for (unsigned i = 0; i < n_threads; i++) {
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_ptr_equal(result, &names[i]);
    }
    memory_of_threads = false;
    assert_true(echoes(w.port, "last"));
    world_free();
}

static void test_under_load(void **state)
{
    (void)state;
    for (int handoff = IOK_HANDOFF_AUTO; handoff <= IOK_HANDOFF_LEAD; handoff++) {
        struct iok_options options = {.handoff = (enum iok_handoff)handoff, .seed = 7};

#if defined(__SANITIZE_ADDRESS__) /* GCC 12's takes no care of its allocator's locks at fork: no other thread may run */
        fork_under_load(&options, 0);
#else
        fork_under_load(&options, 1); /* a single caller leads */
        fork_under_load(&options, 3);
#endif
    }
}

/* ---- odd ends ---------------------------------------------------------------------------------------------------- */

static bool stopped_stays_stopped(void)
{
    bool well = ends(held[0], IOK_MAYBE_EXECUTED, IOK_ECLOSED, NULL);
    struct iok_call *late = submit(w.port, NULL, "late");

    well &= ends(late, IOK_NEVER_SENT, IOK_ECLOSED, NULL);
    iok_service_unref(w.service);
    iok_port_free(w.port);
    return well && leaks() == 0;
}

static void test_stopped_kernel(void **state)
{
    (void)state;
    world_new(NULL);
    assert_true(echoes(w.port, "first"));
    held[0] = submit(w.port, NULL, "hold");
    (void)iok_wait(w.port, 50);
    iok_kernel_free(w.kernel);
    assert_true(is_well(fork_to(stopped_stays_stopped)));
    assert_true(stopped_stays_stopped());
    (void)kill(w.peer, SIGKILL);
    (void)waitpid(w.peer, NULL, 0);
}

static bool without_descriptors(void)
{
    struct rlimit limit, none;
    struct iok_error err = {0};
    bool well;

    (void)getrlimit(RLIMIT_NOFILE, &limit);
    none = (struct rlimit){.rlim_cur = 3, .rlim_max = limit.rlim_max};
    (void)setrlimit(RLIMIT_NOFILE, &none);
    well = iok_call_new(w.port, w.service, &err) == NULL && err.code == IOK_ESYSTEM && iok_port_fd(w.port) == -1;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    return well && ends_as_parents(held[0]) && use_and_free();
}

static bool freed_without_descriptors(void)
{
    struct rlimit limit, none;
    struct iok_error err = {0};
    bool well;

    (void)getrlimit(RLIMIT_NOFILE, &limit);
    none = (struct rlimit){.rlim_cur = 3, .rlim_max = limit.rlim_max};
    (void)setrlimit(RLIMIT_NOFILE, &none);
    well = iok_call_new(w.port, w.service, &err) == NULL && err.code == IOK_ESYSTEM;
    iok_abandon(held[0]);
    handles_free();
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    return well && leaks() == 0;
}

static void test_no_descriptor_left(void **state)
{
    (void)state;
    world_new(NULL);
    assert_true(echoes(w.port, "first"));
    n_parents = open_sockets(parents, 16);
    held[0] = submit(w.port, NULL, "hold");
    assert_true(is_well(fork_to(without_descriptors)));
    assert_true(is_well(fork_to(freed_without_descriptors)));
    peer_goes_on();
    iok_abandon(held[0]);
    world_free();
}

/* A daemon closes all numbers and has files of its own there, before it uses what it inherited. */
static bool as_daemon(void)
{
    char text[2] = "";
    int pair[2];
    bool well;

    for (int fd = 3; fd < 256; fd++) {
        (void)close(fd);
    }
    well = pipe(pair) == 0;
    for (int fd = dup(pair[0]); fd < 64; fd = dup(pair[0])) {
    }
    well &= use_and_free();
    return well && write(pair[1], "!", 1) == 1 && read(63, text, 1) == 1 && text[0] == '!';
}

static void test_daemon(void **state)
{
    (void)state;
    world_new(NULL);
    assert_true(echoes(w.port, "first"));
    n_parents = open_sockets(parents, 16);
    assert_true(is_well(fork_to(as_daemon)));
    assert_true(echoes(w.port, "last"));
    world_free();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_handles),
        cmocka_unit_test(test_unused),
        cmocka_unit_test(test_grandchildren),
        cmocka_unit_test(test_calls_under_way),
        cmocka_unit_test(test_parked_calls),
        cmocka_unit_test(test_leases),
        cmocka_unit_test(test_port_of_another_thread),
        cmocka_unit_test(test_under_load),
        cmocka_unit_test(test_stopped_kernel),
        cmocka_unit_test(test_no_descriptor_left),
        cmocka_unit_test(test_daemon),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
