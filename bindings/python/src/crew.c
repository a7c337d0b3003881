/* crew.c - Crew: the threads of a WSGI pool, who share one port and its serving calls.
 *
 *     the lookout: waits on the port       runners: have a request each        the others sleep
 *         '─ news ─> ready ─> it takes one and runs it; another becomes the lookout
 *
 * What it is: who waits, who is woken, who gets which request. What it is not: environ and answers (wsgi.c).
 *
 * All of a crew is guarded by the interpreter's lock, and its port is used under that lock only. One thread at most, the
 * lookout, waits without it: inside iok_wait while no other has a request (so none can touch the port), else on the
 * port's descriptor alone.
 *
 * To wake a thread for each request costs more than most requests. So a runner hands the lookout over only when it is
 * worth it. As long as handlers only compute, nobody else could run beside them, and the runner itself takes what has
 * come when it is done. A handler that waits for something else lets go of the interpreter's lock. To find that out, one
 * thread, the watcher, asks for the lock now and then: if it gets it at once while a request runs and nobody looks out, the
 * handler waits. (If it gets it after long, the handler computes for so long that others are to have their turn.) It looks out itself then, and for WARY
 * requests each runner wakes another thread before it runs. */
#include "serve.h"

#include <errno.h>
#include <poll.h>
#include <time.h>

#define CALLS_PER_THREAD 2 /* when a thread is done, the next request is there */
#define WARY 256           /* requests: half a millisecond's delay for one of them is lost in their time */
#define TICK_MIN_US 500    /* as long as a wake-up may take on a busy machine */
#define TICK_MAX_US 2000   /* while nothing is found: a hundredth of a processor at most */
#define FREE_NS 50000u     /* nobody held the lock: to be woken for it takes as long at least */
#define FORCED_NS 4000000u /* a thread that computes lets go of the lock after 5 ms, when another asks for it */

struct crew {
    PyObject_HEAD
    struct py_port *port; /* references; busy: the lookout waits alone */
    struct py_listener *listener;
    struct iok_call **ready; /* calls with requests that no thread has taken: a ring of n_places */
    uint32_t first_ready, n_ready, n_places;
    uint32_t n_calls;          /* that have not ended */
    struct crew_seat *idle;    /* sleep until there are requests; the one that slept last is first */
    struct crew_seat *waiting; /* sleep until there are news of the request that they have */
    struct crew_seat nobody;   /* whose the requests in ready are */
    struct crew_seat *watcher; /* NULL: nobody */
    uint32_t wary;             /* so many requests more */
    uint32_t running, taken;   /* requests that threads have; that threads have ever taken */
    bool lookout;              /* somebody is */
};

static uint64_t now_ns(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- sleeping ------------------------------------------------------------------------------------------------ */

static void seat_ring(struct crew_seat *seat)
{
    if (!seat->rung) {
        seat->rung = true;
        PyThread_release_lock(seat->bell);
    }
}

/* After a sleep: whether it was rung; then the bell is silent again. */
static bool seat_answer(struct crew_seat *seat, bool heard)
{
    bool rung = seat->rung;
    if (rung && !heard) { /* just when it gave up */
        (void)PyThread_acquire_lock(seat->bell, NOWAIT_LOCK);
    }
    seat->rung = false;
    return rung;
}

static void seat_sleep(struct crew_seat *seat)
{
    Py_BEGIN_ALLOW_THREADS(void) PyThread_acquire_lock(seat->bell, WAIT_LOCK);
    core_park_at_exit();
    Py_END_ALLOW_THREADS(void) seat_answer(seat, true);
}

static void seat_push(struct crew_seat **list, struct crew_seat *seat)
{
    seat->next = *list;
    *list = seat;
}

static void seat_remove(struct crew_seat **list, const struct crew_seat *seat)
{
    while (*list != NULL && *list != seat) {
        list = &(*list)->next;
    }
    if (*list != NULL) {
        *list = seat->next;
    }
}

/* ---- the watcher --------------------------------------------------------------------------------------------- */

enum watched {
    WATCH_RUNG,
    WATCH_QUIET, /* nothing was taken since the last tick */
    WATCH_AGAIN,
    WATCH_FOUND, /* a handler waits, or computes for long, and nobody looks out */
};

/* One tick. */
static enum watched watch(struct crew *crew, struct crew_seat *seat, int64_t tick_us)
{
    uint32_t taken = crew->taken;
    uint64_t asked;
    bool heard;

    Py_BEGIN_ALLOW_THREADS heard = PyThread_acquire_lock_timed(seat->bell, tick_us, 0) == PY_LOCK_ACQUIRED;
    core_park_at_exit();
    asked = now_ns();
    Py_END_ALLOW_THREADS uint64_t took = now_ns() - asked;
    if (seat_answer(seat, heard)) {
        return WATCH_RUNG;
    }
    if (crew->lookout || crew->running == 0) {
        return crew->taken == taken ? WATCH_QUIET : WATCH_AGAIN;
    }
    return took < FREE_NS || (took > FORCED_NS && crew->taken == taken) ? WATCH_FOUND : WATCH_AGAIN;
}

/* Until there is something to do for it, or nothing for anybody. */
static void keep_watch(struct crew *crew, struct crew_seat *seat)
{
    int64_t tick_us = TICK_MIN_US;
    enum watched seen;

    while ((seen = watch(crew, seat, tick_us)) == WATCH_AGAIN) {
        tick_us = tick_us * 2 < TICK_MAX_US ? tick_us * 2 : TICK_MAX_US;
    }
    if (seen == WATCH_FOUND) {
        crew->wary = WARY;
    }
}

/* ---- looking out --------------------------------------------------------------------------------------------- */

/* Takes in what is there. */
static void take_in(struct crew *crew)
{
    struct iok_call *call;

    while ((call = iok_poll(crew->port->port)) != NULL) {
        struct crew_seat *seat = iok_call_user(call);
        enum iok_serve_state state;

        if (seat != NULL) { /* the request is a thread's, or stands in ready; or it is a part of an answer */
            if (seat->held) {
                seat_ring(seat);
            }
            continue;
        }
        state = iok_serve_state(call);
        if (state == IOK_SERVE_CLOSED) {
            iok_call_free(call);
            crew->n_calls--;
        } else if (state == IOK_SERVE_GONE) {
            (void)iok_submit(call);
        } else if (state != IOK_SERVE_WAITING) {
            iok_call_set_user(call, &crew->nobody);
            crew->ready[(crew->first_ready + crew->n_ready++) % crew->n_places] = call;
        }
    }
}

static struct iok_call *next_ready(struct crew *crew)
{
    while (crew->n_ready > 0) {
        struct iok_call *call = crew->ready[crew->first_ready];
        crew->first_ready = (crew->first_ready + 1) % crew->n_places;
        crew->n_ready--;
        iok_call_set_user(call, NULL);
        if (iok_serve_state(call) != IOK_SERVE_GONE) {
            return call;
        }
        (void)iok_submit(call); /* its client has gone meanwhile */
    }
    return NULL;
}

/* On the descriptor: other threads use the port meanwhile, under the lock. */
static int look_at_fd(struct iok_port *port)
{
    struct pollfd fd = {.fd = iok_port_fd(port), .events = POLLIN};
    int rc = 0;

    Py_BEGIN_ALLOW_THREADS if (fd.fd < 0 || (poll(&fd, 1, LOOK_MS_MAX) < 0 && errno != EINTR))
    {
        rc = IOK_ESYSTEM;
    }
    core_park_at_exit();
    Py_END_ALLOW_THREADS return rc;
}

static int look_alone(struct py_port *port)
{
    int rc;

    port->busy = true;
    Py_BEGIN_ALLOW_THREADS rc = iok_wait(port->port, LOOK_MS_MAX);
    core_park_at_exit();
    Py_END_ALLOW_THREADS port->busy = false;
    return rc == IOK_ETIMEOUT || rc == IOK_EINTR ? 0 : rc;
}

/* Waits until something has come. others: how many have requests. 0, or -1 with an exception. */
static int look_out(struct crew *crew, uint32_t others)
{
    bool alone = others == 0 && crew->n_ready == 0;
    int rc;

    crew->lookout = true;
    rc = alone ? look_alone(crew->port) : look_at_fd(crew->port->port);
    crew->lookout = false;
    if (rc < 0) {
        fail_code(rc, iok_errno_text(rc), NULL);
        return -1;
    }
    if (crew_enter(crew) < 0) {
        return -1;
    }
    if (!alone) {
        iok_port_unwatch(crew->port->port);
    }
    return 0;
}

/* Wakes the thread that slept last; it sleeps again if somebody was quicker. */
static bool wake_idle(struct crew *crew, bool to_watch)
{
    struct crew_seat *seat = crew->idle;

    if (seat == NULL) {
        return false;
    }
    crew->idle = seat->next;
    seat->watches = to_watch;
    crew->watcher = to_watch ? seat : crew->watcher;
    seat_ring(seat);
    return true;
}

/* A thread that has no request looks for one. false: there is none. */
static bool wake_one(struct crew *crew)
{
    if (crew->watcher != NULL) {
        crew->watcher->watches = false;
        seat_ring(crew->watcher);
        return true;
    }
    return wake_idle(crew, false);
}

/* A thread goes to work on a request: who takes the others that are there, and looks out meanwhile? */
static void hand_over(struct crew *crew)
{
    if (crew->n_ready > 0 && crew->wary > 0 && wake_one(crew)) {
        return; /* it comes by here, too */
    }
    if (crew->lookout) {
        return;
    }
    if (crew->waiting != NULL) {
        seat_ring(crew->waiting);
    } else if (crew->wary > 0) {
        (void)wake_one(crew);
    } else if (crew->watcher == NULL) {
        (void)wake_idle(crew, true);
    }
}

/* Nothing will come any more. */
static void dismiss(struct crew *crew)
{
    while (wake_idle(crew, false)) {
    }
    if (crew->watcher != NULL) {
        seat_ring(crew->watcher);
    }
}

/* Until something may have come. */
static void rest(struct crew *crew, struct crew_seat *seat)
{
    seat->watches = false;
    seat_push(&crew->idle, seat);
    seat_sleep(seat);
    if (seat->watches) {
        keep_watch(crew, seat);
    }
    if (crew->watcher == seat) {
        crew->watcher = NULL;
    }
}

/* ---- for wsgi.c ---------------------------------------------------------------------------------------------- */

int crew_enter(struct crew *crew)
{
    return port_roam(crew->port);
}

int crew_take(struct crew *crew, struct crew_seat *seat, struct iok_call **call)
{
    for (;;) {
        if (crew->port->busy) { /* the lookout's alone */
            rest(crew, seat);
            continue;
        }
        if (crew_enter(crew) < 0) {
            return -1;
        }
        take_in(crew);
        *call = next_ready(crew);
        if (*call != NULL) {
            iok_call_set_user(*call, seat);
            crew->running++;
            crew->taken++;
            crew->wary -= crew->wary > 0;
            hand_over(crew);
            return 1;
        }
        if (crew->n_calls == 0) {
            dismiss(crew);
            return 0;
        }
        if (crew->lookout) {
            rest(crew, seat);
        } else if (look_out(crew, crew->running) < 0) {
            return -1;
        }
    }
}

void crew_drop(struct crew *crew, struct iok_call *call)
{
    port_bury(crew->port, NULL, call);
}

void crew_done(struct crew *crew)
{
    crew->running--;
}

int crew_wait(struct crew *crew, struct crew_seat *seat)
{
    if (crew->lookout) {
        seat->held = true;
        seat_push(&crew->waiting, seat);
        seat_sleep(seat);
        seat_remove(&crew->waiting, seat);
        seat->held = false;
    } else if (look_out(crew, crew->running - 1) < 0) {
        return -1;
    }
    if (crew_enter(crew) < 0) {
        return -1;
    }
    take_in(crew);
    if (crew->n_ready > 0) { /* this thread has one already */
        crew->wary = WARY;
    }
    hand_over(crew);
    return 0;
}

bool crew_seat_init(struct crew_seat *seat)
{
    *seat = (struct crew_seat){.bell = PyThread_allocate_lock()};
    if (seat->bell == NULL) {
        PyErr_NoMemory();
        return false;
    }
    (void)PyThread_acquire_lock(seat->bell, NOWAIT_LOCK); /* silent */
    return true;
}

void crew_seat_deinit(struct crew_seat *seat)
{
    if (seat->bell != NULL) {
        PyThread_free_lock(seat->bell);
    }
}

/* ---- the type ------------------------------------------------------------------------------------------------ */

/* One that waits. 0, or -1 with an exception. */
static int add_call(struct crew *crew)
{
    struct iok_error err = {0};
    struct iok_call *call = iok_serve_new(crew->port->port, crew->listener->listener, &err);
    int rc = call == NULL ? err.code : iok_submit(call);

    if (rc < 0) {
        if (call != NULL) {
            (void)iok_call_error(call, &err);
            iok_call_free(call);
        }
        fail_set(&err, IOK_NEVER_SENT, NULL, "");
        return -1;
    }
    crew->n_calls++;
    return 0;
}

static PyObject *crew_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *names[] = {"listener", "threads", NULL};
    PyObject *listener;
    unsigned threads;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!I:Crew", (char **)names, &listener_type, &listener, &threads)) {
        return NULL;
    }
    struct crew *self = (struct crew *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->listener = (struct py_listener *)Py_NewRef(listener);
    self->n_places = threads * CALLS_PER_THREAD;
    self->ready = PyMem_Calloc(self->n_places, sizeof(struct iok_call *));
    self->port = self->ready == NULL ? (struct py_port *)PyErr_NoMemory() : port_make_roaming();
    for (unsigned i = 0; i < self->n_places && self->port != NULL; i++) {
        if (add_call(self) < 0) {
            Py_CLEAR(self->port);
        }
    }
    if (self->port == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void crew_dealloc(PyObject *op)
{
    struct crew *self = (struct crew *)op;
    Py_XDECREF(self->port); /* and its calls */
    Py_XDECREF(self->listener);
    PyMem_Free(self->ready);
    Py_TYPE(op)->tp_free(op);
}

PyTypeObject crew_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "iokernel._core.Crew",
    .tp_doc = "Crew(listener, threads)\n--\n\nWhat so many threads share that take a listener's requests.",
    .tp_basicsize = sizeof(struct crew),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = crew_new,
    .tp_dealloc = crew_dealloc,
};
