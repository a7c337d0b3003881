/* port.c - one iok_port per event loop and one per thread, found without a look-up in the common case.
 *
 * A thread's port belongs to the thread state's dictionary and dies with the thread. One that roams belongs to its lease. A loop's port belongs to the
 * loop's reader handle, and to leases and streams on it; it is freed when the loop was closed. A port's C side is used
 * by its owner thread only; what dies elsewhere is buried (port_bury) and reaped by the owner. */
#include "serve.h"

#define DRAIN_MAX 256 /* completions a wake-up: more starves the loop's other work and gains nothing */

/* What this thread used last. epoch: see below. */
static _Thread_local struct {
    struct py_port *thread_port;
    struct py_port *loop_port;
    PyObject *loop; /* of loop_port; borrowed from it */
    uint64_t thread_epoch, loop_epoch;
} last;

/* Grows whenever a port dies, and in the child of a fork: what threads remember of earlier epochs is looked up again. */
static uint64_t epoch = 1;
static uint32_t epoch_generation;
static struct py_port *loop_ports; /* all that are not deallocated */

static void port_check_fork(void)
{
    if (UNLIKELY(epoch_generation != core.generation)) {
        epoch_generation = core.generation;
        epoch++;
    }
}

static bool port_is_mine(const struct py_port *port)
{
    return port->thread == PyThread_get_thread_ident();
}

bool port_usable(const struct py_port *port)
{
    return port->port != NULL && port->generation == core.generation && port_is_mine(port);
}

void port_refuse(const struct py_port *port)
{
    if (port->generation != core.generation) {
        fail_code(IOK_EFORKED,
                  port->loop != NULL
                      ? "its event loop was in use before fork(), and its descriptors are the parent process's too; "
                        "run a new loop in the child, as asyncio.run() does"
                      : "it was made before fork() and belongs to the parent process",
                  NULL);
    } else if (port->port == NULL) {
        fail_code(IOK_ECLOSED, "its event loop or thread has ended", NULL);
    } else {
        fail_code(IOK_ETHREAD, "it belongs to another thread or event loop", NULL);
    }
}

/* ---- life --------------------------------------------------------------------------------------------------- */

static struct py_port *port_make(PyObject *loop)
{
    struct iok_kernel *kernel = core_kernel();
    if (kernel == NULL) {
        return NULL;
    }
    struct py_port *self = (struct py_port *)port_type.tp_alloc(&port_type, 0);
    if (self == NULL) {
        return NULL;
    }
    struct iok_error err = {0};
    self->port = iok_port_new(kernel, &err);
    self->generation = core.generation;
    self->thread = PyThread_get_thread_ident();
    if (self->port == NULL) {
        fail_set(&err, IOK_NEVER_SENT, NULL, "");
        Py_DECREF(self);
        return NULL;
    }
    if (loop != NULL) {
        self->loop = Py_NewRef(loop);
        self->link = &loop_ports;
        self->next = loop_ports;
        if (self->next != NULL) {
            self->next->link = &self->next;
        }
        loop_ports = self;
    }
    return self;
}

struct py_port *port_make_roaming(void)
{
    struct py_port *port = port_make(NULL);
    if (port != NULL) {
        port->roams = true;
    }
    return port;
}

/* Now this thread's, if it roams and no other waits on it. */
static bool port_take(struct py_port *port)
{
    if (!port->roams || port->busy || port->port == NULL || port->generation != core.generation) {
        return false;
    }
    iok_port_adopt(port->port);
    port->thread = PyThread_get_thread_ident();
    return true;
}

int port_roam(struct py_port *port)
{
    if (LIKELY(port_usable(port)) || port_take(port)) {
        return 0;
    }
    if (port->busy) {
        fail_code(IOK_ETHREAD, "another thread waits for an answer on this lease", NULL);
    } else {
        port_refuse(port);
    }
    return -1;
}

/* Ends what is pending, in memory only: nobody is left to be told. */
static void port_orphan_all(struct py_port *self)
{
    while (self->pending != NULL) {
        reply_orphan(self->pending);
    }
}

static void port_free_graves(struct py_port *self)
{
    while (self->graves != NULL) {
        struct port_grave *grave = self->graves;
        self->graves = grave->next;
        PyMem_RawFree(grave);
    }
}

static void port_close(struct py_port *self)
{
    struct iok_port *port = self->port;
    if (port == NULL) {
        return;
    }
    self->port = NULL;
    epoch++;
    if (self->generation != core.generation) {
        /* A loop's: its memory stays, as its descriptor's number, which the loop watches, may have another use by now. A
         * thread's: it is not here any more, and nothing is waited for. */
        if (self->loop == NULL) {
            iok_port_free(port);
        }
    } else {
        bool mine = port_is_mine(self);
        /* At exit a daemon thread may stand inside a wait on its port for ever: its memory stays. */
        if (mine || !core.ending) {
            if (!mine) {
                iok_port_adopt(port);
            }
            Py_BEGIN_ALLOW_THREADS iok_port_free(port);
            Py_END_ALLOW_THREADS
        }
    }
    port_free_graves(self);
    port_orphan_all(self);
}

static int port_traverse(PyObject *op, visitproc visit, void *arg)
{
    struct py_port *self = (struct py_port *)op;
    Py_VISIT(self->loop);
    Py_VISIT(self->starved);
    for (struct py_reply *reply = self->pending; reply != NULL; reply = reply->next) {
        Py_VISIT(reply);
    }
    return 0;
}

static int port_clear(PyObject *op)
{
    struct py_port *self = (struct py_port *)op;
    port_close(self);
    port_orphan_all(self);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->starved);
    return 0;
}

static void port_dealloc(PyObject *op)
{
    struct py_port *self = (struct py_port *)op;
    PyObject_GC_UnTrack(op);
    if (self->link != NULL) {
        *self->link = self->next;
        if (self->next != NULL) {
            self->next->link = self->link;
        }
    }
    port_clear(op);
    if (last.thread_port == self) {
        last.thread_port = NULL;
    }
    if (last.loop_port == self) {
        last.loop_port = NULL;
        last.loop = NULL;
    }
    Py_TYPE(op)->tp_free(op);
}

/* ---- burial ------------------------------------------------------------------------------------------------- */

void port_bury(struct py_port *port, struct iok_lease *lease, struct iok_call *call)
{
    if (port->port == NULL || port->generation != core.generation || core.ending) {
        return; /* goes with its port, or is the parent's */
    }
    if (port_is_mine(port) || port_take(port)) {
        if (call != NULL) {
            iok_abandon(call);
        }
        if (lease != NULL) {
            iok_lease_free(lease);
        }
        return;
    }
    struct port_grave *grave = PyMem_RawMalloc(sizeof(*grave));
    if (grave == NULL) {
        return; /* the port keeps it until it is freed */
    }
    *grave = (struct port_grave){.next = port->graves, .lease = lease, .call = call};
    port->graves = grave;
    if (port->loop != NULL) { /* a thread's port reaps at its next call */
        PyObject *drain = PyObject_GetAttr((PyObject *)port, core.str_drain);
        PyObject *done =
            drain == NULL ? NULL : PyObject_CallMethodOneArg(port->loop, core.str_call_soon_threadsafe, drain);
        Py_XDECREF(drain);
        Py_XDECREF(done);
        PyErr_Clear(); /* a closed loop: the port is freed soon anyway */
    }
}

void port_reap(struct py_port *port)
{
    while (port->graves != NULL) {
        struct port_grave *grave = port->graves;
        port->graves = grave->next;
        if (grave->call != NULL) {
            iok_abandon(grave->call);
        }
        if (grave->lease != NULL) {
            iok_lease_free(grave->lease);
        }
        PyMem_RawFree(grave);
    }
}

/* ---- finding the right one ---------------------------------------------------------------------------------- */

static struct py_port *port_of_thread_slow(void)
{
    port_check_fork();
    PyObject *dict = PyThreadState_GetDict(); /* borrowed */
    if (dict == NULL) {
        fail_code(IOK_ECLOSED, "the thread is ending", NULL);
        return NULL;
    }
    static const char key[] = "iokernel.port";
    struct py_port *port = (struct py_port *)PyDict_GetItemString(dict, key);
    if (port != NULL && port->generation != core.generation && port_is_mine(port)) {
        port->generation = core.generation; /* this thread has forked: its port goes on */
    }
    if (port == NULL || !port_usable(port)) {
        port = port_make(NULL);
        if (port == NULL) {
            return NULL;
        }
        int stored = PyDict_SetItemString(dict, key, (PyObject *)port);
        Py_DECREF(port); /* the dictionary keeps it */
        if (stored < 0) {
            return NULL;
        }
    }
    last.thread_port = port;
    last.thread_epoch = epoch;
    return port;
}

struct py_port *port_of_thread(void)
{
    struct py_port *port = last.thread_port;
    if (LIKELY(port != NULL && last.thread_epoch == epoch && epoch_generation == core.generation)) {
        return port;
    }
    return port_of_thread_slow();
}

/* A new reference, or NULL with RuntimeError. */
static PyObject *running_loop(void)
{
    if (LIKELY(core.running_loop != NULL)) {
        return core.running_loop(core.running_loop_self, NULL);
    }
    if (core_need_asyncio() < 0) {
        return NULL;
    }
    return PyObject_CallNoArgs(core.running_loop_object);
}

/* Frees the ports of loops that were closed. */
static int port_sweep(void)
{
    struct py_port *port = loop_ports;
    while (port != NULL) {
        PyObject *closed = PyObject_CallMethodNoArgs(port->loop, core.str_is_closed);
        if (closed == NULL) {
            return -1;
        }
        bool sweep = closed == Py_True && port->port != NULL;
        Py_DECREF(closed);
        if (sweep) {
            Py_INCREF(port);
            port_close(port);
            Py_DECREF(port);
            port = loop_ports; /* the lock was released: the list may have changed */
        } else {
            port = port->next;
        }
    }
    return 0;
}

static int port_watch(struct py_port *port)
{
    PyObject *fd = PyLong_FromLong(iok_port_fd(port->port));
    PyObject *drain = fd == NULL ? NULL : PyObject_GetAttr((PyObject *)port, core.str_drain);
    PyObject *done =
        drain == NULL ? NULL : PyObject_CallMethodObjArgs(port->loop, core.str_add_reader, fd, drain, NULL);
    Py_XDECREF(fd);
    Py_XDECREF(drain);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static struct py_port *port_find(PyObject *loop)
{
    for (struct py_port *port = loop_ports; port != NULL; port = port->next) {
        if (port->loop == loop && port->port != NULL) {
            return port;
        }
    }
    return NULL;
}

static struct py_port *port_of_loop_slow(PyObject *loop)
{
    port_check_fork();
    struct py_port *port = port_find(loop);
    if (port == NULL) {
        if (core_need_asyncio() < 0 || port_sweep() < 0) {
            return NULL;
        }
        port = port_make(loop);
        if (port == NULL) {
            return NULL;
        }
        int watched = port_watch(port);
        if (watched < 0) {
            Py_DECREF(port);
            return NULL;
        }
        Py_DECREF(port); /* the loop's reader keeps it */
    } else if (port->generation != core.generation) {
        port_refuse(port);
        return NULL;
    } else if (!port_is_mine(port)) {
        iok_port_adopt(port->port); /* the loop runs in another thread now */
        port->thread = PyThread_get_thread_ident();
        epoch++;
    }
    last.loop_port = port;
    last.loop = loop;
    last.loop_epoch = epoch;
    return port;
}

/* The port whose drain this thread is in: tasks that it resumes run on its loop, so nobody needs to be asked which. */
static _Thread_local struct py_port *in_drain;

struct py_port *port_of_loop(void)
{
    if (LIKELY(in_drain != NULL && in_drain->generation == core.generation && in_drain->port != NULL)) {
        return in_drain;
    }
    PyObject *loop = running_loop();
    if (loop == NULL) {
        return NULL;
    }
    struct py_port *port;
    if (LIKELY(last.loop == loop && last.loop_epoch == epoch && epoch_generation == core.generation)) {
        port = last.loop_port;
    } else {
        port = port_of_loop_slow(loop);
    }
    Py_DECREF(loop); /* the port holds it */
    return port;
}

struct py_port *port_of_anything(void)
{
    if (core_need_asyncio() < 0) {
        return NULL;
    }
    struct py_port *port = port_of_loop();
    if (port == NULL && PyErr_ExceptionMatches(PyExc_RuntimeError)) {
        PyErr_Clear();
        port = port_of_thread();
    }
    return port;
}

/* ---- the drain ---------------------------------------------------------------------------------------------- */

/* May a task be resumed from here? Not inside another task's step. */
static bool port_may_resume(const struct py_port *self)
{
    if (core.current_tasks == NULL || self->loop == NULL) {
        return true;
    }
    PyObject *task = PyDict_GetItemWithError(core.current_tasks, self->loop); /* borrowed */
    if (task == NULL) {
        PyErr_Clear();
        return true;
    }
    return task == Py_None;
}

static int port_deliver(struct iok_call *call, struct py_port *drain)
{
    PyObject *user = iok_call_user(call);
    if (LIKELY(Py_IS_TYPE(user, &reply_type))) {
        return reply_complete((struct py_reply *)user, call, drain);
    }
    if (Py_IS_TYPE(user, &stream_type)) {
        return stream_news(user, call, drain);
    }
    return serve_news(user, call, drain);
}

/* Not so once a task has closed the loop, or forked. */
static bool port_is_whole(const struct py_port *self)
{
    return self->port != NULL && self->generation == core.generation;
}

/* Takes in what is there. How many news there were; -1 with an exception. */
static int port_take_in(struct py_port *self, struct py_port *drain)
{
    for (int n = 0; n < DRAIN_MAX; n++) {
        struct iok_call *call = iok_poll(self->port);
        if (call == NULL) {
            return n;
        }
        int told = port_deliver(call, drain);
        if (UNLIKELY(told < 0 || !port_is_whole(self))) {
            return told < 0 ? -1 : DRAIN_MAX;
        }
    }
    return DRAIN_MAX;
}

/* What was taken in may have made room. 0, or -1 with an exception. */
static int port_feed_starved(struct py_port *self, struct py_port *drain)
{
    PyObject *starved = self->starved;
    int told = 0;
    self->starved = NULL;
    for (Py_ssize_t i = 0; told == 0 && port_is_whole(self) && i < PyList_GET_SIZE(starved); i++) {
        told = channel_retry((struct exchange *)PyList_GET_ITEM(starved, i), drain);
    }
    Py_DECREF(starved);
    return told;
}

static PyObject *port_drain(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct py_port *self = (struct py_port *)op;
    if (!port_usable(self) || core.ending) {
        Py_RETURN_NONE;
    }
    port_reap(self);
    bool nested = self->draining;
    struct py_port *drain = !nested && port_may_resume(self) ? self : NULL;
    int result = 0;
    Py_INCREF(self); /* a resumed task may close the loop */
    self->draining = true;
    struct py_port *outer = in_drain;
    in_drain = self;
    iok_drain_begin(self->port);
    result = port_take_in(self, drain);
    if (UNLIKELY(result >= 0 && self->starved != NULL)) {
        result = port_feed_starved(self, drain);
    }
    task_settle(self);
    if (port_is_whole(self)) {
        iok_drain_end(self->port);
    }
    in_drain = outer;
    self->draining = nested;
    Py_DECREF(self);
    if (result < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef port_methods[] = {
    {"drain", port_drain, METH_NOARGS, "Takes in what the kernel has finished; the loop's reader calls it."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject port_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "iokernel._core.Port",
    .tp_doc = "The way of one event loop or thread to the kernel. Made when needed.",
    .tp_basicsize = sizeof(struct py_port),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_traverse = port_traverse,
    .tp_clear = port_clear,
    .tp_dealloc = port_dealloc,
    .tp_methods = port_methods,
};

int port_init_type(PyObject *module)
{
    return PyModule_AddType(module, &port_type);
}
