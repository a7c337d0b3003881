/* delay.c - a proxy that delays what it forwards by a fixed time each way, and does nothing else to it.
 *
 *     delay LISTEN_PORT TARGET_PORT DELAY_US          both on 127.0.0.1; ends when its standard input does
 *
 * It is a long wire, not a narrow one: each piece that arrives has a time of its own at which it leaves, however many
 * are under way. All delays being equal, pieces leave in the order in which they came: one queue for all connections.
 *
 * Bounds: a direction with HELD_BYTES_MAX under way is not read from. One thread; out of memory ends it. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES 65536u
#define HELD_BYTES_MAX (8u << 20)
#define EVENTS_MAX 256

struct piece {
    struct piece *next;
    struct flow *flow;
    uint64_t due_ns;
    size_t n, done; /* n 0: the end */
    uint8_t bytes[];
};

/* One direction of a connection. */
struct flow {
    struct end *from, *to;
    struct piece *first, **last; /* due, but the receiver did not take them yet */
    size_t held;                 /* bytes of all its pieces */
    bool ended;                  /* the end was read */
    bool passed;                 /* and passed on */
};

/* A socket. */
struct end {
    int fd;
    uint32_t watched; /* epoll events */
    struct link *link;
    struct flow *in, *out; /* what is read from it, and what is written to it */
};

struct link {
    struct end ends[2];
    struct flow flows[2];
    struct link *next_dead;
    bool dead;
};

static int poller, clock_fd, listener;
static uint16_t target_port;
static uint64_t delay_ns;
static struct piece *queue, **queue_end = &queue; /* not due yet */
static struct link *dead;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static struct sockaddr_in address(uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return to;
}

/* ---- connections ---------------------------------------------------------------------------------------------- */

static void watch(struct end *end)
{
    uint32_t events = 0;
    if (!end->in->ended && end->in->held < HELD_BYTES_MAX)
        events |= EPOLLIN;
    if (end->out->first != NULL)
        events |= EPOLLOUT;
    if (events == end->watched)
        return;
    struct epoll_event event = {.events = events, .data.ptr = end};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, end->fd, &event) != 0)
        die("epoll_ctl");
    end->watched = events;
}

static void end_open(struct link *link, size_t i, int fd)
{
    struct end *end = &link->ends[i];
    int one = 1;
    *end = (struct end){.fd = fd, .link = link, .in = &link->flows[i], .out = &link->flows[1 - i]};
    link->flows[i] = (struct flow){.from = end, .to = &link->ends[1 - i], .last = &link->flows[i].first};
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    struct epoll_event event = {.data.ptr = end};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) != 0)
        die("epoll_ctl");
}

static void link_open(void)
{
    struct sockaddr_in to = address(target_port);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    int target = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (target < 0 || connect(target, (struct sockaddr *)&to, sizeof(to)) != 0) {
        close(fd);
        close(target);
        return;
    }
    struct link *link = calloc(1, sizeof(*link));
    if (link == NULL)
        die("calloc");
    end_open(link, 0, fd);
    end_open(link, 1, target);
    watch(&link->ends[0]);
    watch(&link->ends[1]);
}

static void piece_free(struct piece *piece)
{
    piece->flow->held -= piece->n + 1;
    free(piece);
}

/* Closes both sockets; the memory goes at the end of a round, when no event and no piece refers to it. */
static void link_drop(struct link *link)
{
    if (link->dead)
        return;
    link->dead = true;
    link->next_dead = dead;
    dead = link;
    for (size_t i = 0; i < 2; i++) {
        close(link->ends[i].fd);
        while (link->flows[i].first != NULL) {
            struct piece *piece = link->flows[i].first;
            link->flows[i].first = piece->next;
            piece_free(piece);
        }
    }
}

static void bury(void)
{
    struct link **at = &dead;
    while (*at != NULL) {
        struct link *link = *at;
        if (link->flows[0].held + link->flows[1].held > 0) { /* the queue has pieces of it */
            at = &link->next_dead;
            continue;
        }
        *at = link->next_dead;
        free(link);
    }
}

/* ---- pieces --------------------------------------------------------------------------------------------------- */

static void take(struct end *end)
{
    static uint8_t bytes[READ_BYTES];
    struct flow *flow = end->in;
    ssize_t n = recv(end->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    flow->ended = n <= 0;
    n = n < 0 ? 0 : n;
    struct piece *piece = malloc(sizeof(*piece) + (size_t)n);
    if (piece == NULL)
        die("malloc");
    *piece = (struct piece){.flow = flow, .due_ns = now_ns() + delay_ns, .n = (size_t)n};
    memcpy(piece->bytes, bytes, (size_t)n);
    flow->held += piece->n + 1; /* so an end counts, too */
    *queue_end = piece;
    queue_end = &piece->next;
    watch(end);
}

/* Writes what is due, as far as the receiver takes it. */
static void give(struct flow *flow)
{
    struct link *link = flow->to->link;
    while (flow->first != NULL && !link->dead) {
        struct piece *piece = flow->first;
        if (piece->n == 0) {
            shutdown(flow->to->fd, SHUT_WR);
            flow->passed = true;
        } else {
            ssize_t n =
                send(flow->to->fd, piece->bytes + piece->done, piece->n - piece->done, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n < 0 && errno != EAGAIN)
                break;
            piece->done += n < 0 ? 0 : (size_t)n;
            if (piece->done < piece->n) {
                watch(flow->to);
                return;
            }
        }
        flow->first = piece->next;
        if (flow->first == NULL)
            flow->last = &flow->first;
        piece_free(piece);
    }
    if (flow->first != NULL || (link->flows[0].passed && link->flows[1].passed)) {
        link_drop(link);
        return;
    }
    watch(flow->from);
    watch(flow->to);
}

static void give_due(void)
{
    uint64_t now = now_ns();
    while (queue != NULL && queue->due_ns <= now) {
        struct piece *piece = queue;
        struct flow *flow = piece->flow;
        queue = piece->next;
        if (queue == NULL)
            queue_end = &queue;
        piece->next = NULL;
        if (flow->to->link->dead) {
            piece_free(piece);
            continue;
        }
        *flow->last = piece;
        flow->last = &piece->next;
        if (flow->first == piece) /* else it waits behind others for the socket */
            give(flow);
    }
    struct itimerspec at = {0};
    if (queue != NULL) {
        at.it_value.tv_sec = (time_t)(queue->due_ns / 1000000000);
        at.it_value.tv_nsec = (long)(queue->due_ns % 1000000000);
    }
    timerfd_settime(clock_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

/* ---- the loop ------------------------------------------------------------------------------------------------- */

static void add(int fd, void *token)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = token};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) != 0)
        die("epoll_ctl");
}

static void serve(const struct epoll_event *event)
{
    if (event->data.ptr == &listener) {
        link_open();
        return;
    }
    struct end *end = event->data.ptr;
    if (event->data.ptr == &clock_fd || end->link->dead)
        return; /* what is due goes out after each round */
    if ((event->events & EPOLLOUT) != 0)
        give(end->out);
    if (!end->link->dead && (event->events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && !end->in->ended)
        take(end);
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS_MAX];
    static int input = STDIN_FILENO;
    if (argc != 4) {
        fprintf(stderr, "usage: %s LISTEN_PORT TARGET_PORT DELAY_US\n", argv[0]);
        return 2;
    }
    struct sockaddr_in here = address((uint16_t)atoi(argv[1]));
    target_port = (uint16_t)atoi(argv[2]);
    delay_ns = (uint64_t)atoll(argv[3]) * 1000;
    prctl(PR_SET_TIMERSLACK, 1); /* nanosecond: else the kernel may be 50 microseconds late */
    poller = epoll_create1(EPOLL_CLOEXEC);
    clock_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(listener, (struct sockaddr *)&here, sizeof(here)) != 0 || listen(listener, 1024) != 0)
        die("listen");
    add(listener, &listener);
    add(clock_fd, &clock_fd);
    add(input, &input);
    for (;;) {
        int n = epoll_wait(poller, events, EVENTS_MAX, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == &input)
                return 0; /* whoever started it has ended */
            serve(&events[i]);
        }
        give_due();
        bury();
    }
}
