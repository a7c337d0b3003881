/* asgi.c - Asgi: one listener's requests, given to one ASGI application on one event loop.
 *
 *     serving calls:  made ──> wait for a request ──> with an exchange ──> (answer sent) wait again ...
 *                                                └──> ended: the listener is closed
 *
 * A request arrives in the port's drain, and the application's first step runs there. So an application that never waits
 * costs no turn of the loop; current_task() is the request's task from that first step on, which asyncio knows of (in
 * all_tasks) from its first wait on, as it does with eager tasks of Python 3.12.
 *
 * There are always some calls that wait, until calls_max of them exist; then the kernel holds requests back. */
#include "serve.h"

#include "task.h"

#include <string.h>

#define CALLS_STEP 64        /* how many are made at a time: as many as one drain mostly brings */
#define CALLS_LOW 16         /* when fewer wait, more are made */
#define PORT_CALLS_MAX 16384 /* unless configure() says otherwise: see struct iok_options */

/* ---- serving calls ------------------------------------------------------------------------------------------- */

static int asgi_add_call(struct asgi *self)
{
    struct iok_error err = {0};
    struct iok_call *call = iok_serve_new(self->port->port, self->listener->listener, &err);
    if (call == NULL) {
        fail_set(&err, IOK_NEVER_SENT, NULL, "");
        return -1;
    }
    iok_call_set_user(call, self);
    if (iok_submit(call) < 0) {
        iok_call_error(call, &err);
        fail_set(&err, IOK_NEVER_SENT, NULL, "");
        iok_call_free(call);
        return -1;
    }
    self->calls[self->n_calls++] = call;
    self->waiting++;
    return 0;
}

static int asgi_add_calls(struct asgi *self)
{
    for (uint32_t i = 0; i < CALLS_STEP && self->n_calls < self->calls_max; i++) {
        if (asgi_add_call(self) < 0) {
            return -1;
        }
    }
    return 0;
}

int asgi_give_back(struct asgi *self, struct iok_call *call)
{
    if (UNLIKELY(iok_submit(call) < 0)) {
        struct iok_error err = {0};
        iok_call_error(call, &err);
        fail_set(&err, IOK_NEVER_SENT, NULL, "");
        return -1;
    }
    iok_call_set_user(call, self);
    self->waiting++;
    return 0;
}

PyTypeObject asgi_slow_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "iokernel._core.Slow",
    .tp_basicsize = sizeof(struct asgi_slow),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = (destructor)PyObject_Free,
};

void asgi_count_slow(struct asgi *self, struct iok_call *call)
{
    iok_call_set_user(call, self->slow);
    if (self->waiting < CALLS_LOW && self->n_calls < self->calls_max && !self->closing && asgi_add_calls(self) < 0) {
        PyErr_Clear(); /* then with fewer */
    }
}

int asgi_slow_news(struct asgi_slow *slow, struct iok_call *call, struct py_port *drain)
{
    iok_call_set_user(call, slow->asgi);
    slow->asgi->waiting++;
    return asgi_news(slow->asgi, call, drain);
}

void asgi_lose(struct asgi *self, struct iok_call *call)
{
    for (uint32_t i = 0; i < self->n_calls; i++) {
        if (self->calls[i] == call) {
            self->calls[i] = self->calls[--self->n_calls];
            break;
        }
    }
    iok_call_free(call);
}

void asgi_replace(struct asgi *self, struct iok_call *call)
{
    asgi_lose(self, call);
    if (!self->closing && asgi_add_call(self) < 0) {
        PyErr_Clear(); /* then with fewer */
    }
}

/* ---- requests ------------------------------------------------------------------------------------------------ */

/* The program has nothing to say to it, for want of memory or as its own answer was refused. */
static int asgi_turn_away(struct asgi *self, struct iok_call *call)
{
    answer_append_empty(call, 500);
    if (asgi_give_back(self, call) < 0) {
        PyErr_WriteUnraisable((PyObject *)self);
        asgi_replace(self, call);
    }
    return 0;
}

/* The kernel found that an answer cannot be sent as it is, and the application has gone on in the belief that it was. */
static int asgi_report_refused(struct asgi *self, PyObject *scope, const struct iok_error *err)
{
    PyObject *error = PyObject_CallFunction(PyExc_ValueError, "s", err->text);
    PyObject *done = error == NULL ? NULL : PyObject_CallFunctionObjArgs(self->on_error, scope, error, Py_False, NULL);
    Py_XDECREF(error);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static int asgi_take(struct asgi *self, struct iok_call *call, struct py_port *drain)
{
    struct request request;
    struct iok_error err = {0};
    self->waiting--;
    if (UNLIKELY(self->waiting < CALLS_LOW && self->n_calls < self->calls_max) && asgi_add_calls(self) < 0) {
        PyErr_Clear(); /* then with fewer */
    }
    PyObject *scope = NULL;
    bool socket = false;
    if (LIKELY(request_read(&request, call))) {
        scope = scope_of_request(&self->base, &request, call);
        socket = scope != NULL && UNLIKELY(websocket_is_asked(&request));
    }
    if (UNLIKELY(socket) && websocket_scope(scope, &request) < 0) {
        Py_CLEAR(scope);
    }
    struct exchange *exchange = NULL;
    bool refused = UNLIKELY(iok_call_error(call, &err) != 0);
    if (UNLIKELY(refused && scope != NULL)) {
        if (drain != NULL) {
            task_settle(drain);
        }
        (void)asgi_report_refused(self, scope, &err);
    } else if (LIKELY(scope != NULL)) {
        exchange = exchange_new(self, call, scope);
    }
    Py_XDECREF(scope);
    if (UNLIKELY(exchange == NULL)) {
        if (PyErr_Occurred()) {
            PyErr_WriteUnraisable((PyObject *)self);
        }
        return asgi_turn_away(self, call);
    }
    exchange->socket = socket ? SOCKET_ASKED : SOCKET_NONE;
    iok_call_set_user(call, exchange);
    int done = exchange_launch(exchange, drain);
    Py_DECREF(exchange);
    return done;
}

int asgi_news(struct asgi *self, struct iok_call *call, struct py_port *drain)
{
    if (UNLIKELY(iok_call_outcome(call) != IOK_PENDING)) {
        self->waiting--;
        asgi_lose(self, call);
        return 0;
    }
    switch (iok_serve_state(call)) {
    case IOK_SERVE_REQUEST:
    case IOK_SERVE_LEFT:
        return asgi_take(self, call, drain);
    case IOK_SERVE_GONE: /* while its answer was on the way */
        self->waiting--;
        return asgi_give_back(self, call);
    default:
        return 0;
    }
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

static PyObject *asgi_constant_scope(PyObject *server)
{
    return Py_BuildValue("{s:s,s:{s:s,s:s},s:s,s:O,s:O,s:s,s:s,s:s,s:O,s:s,s:O,s:O,s:{s:{}}}", "type", "http", "asgi",
                         "version", "3.0", "spec_version", "2.4", "http_version", "1.1", "server", server, "client",
                         Py_None, "scheme", "http", "method", "", "root_path", "", "path", Py_None, "raw_path", "",
                         "query_string", Py_None, "headers", Py_None, "extensions", "http.response.pathsend");
}

/* Keys and values as applications have them in their code, where they are interned: comparing these is comparing pointers. */
static PyObject *interned(PyObject *dict)
{
    PyObject *copy = dict == NULL ? NULL : PyDict_New();
    PyObject *key, *value;
    for (Py_ssize_t i = 0; copy != NULL && PyDict_Next(dict, &i, &key, &value);) {
        Py_INCREF(key);
        Py_INCREF(value);
        PyUnicode_InternInPlace(&key);
        if (PyDict_CheckExact(value)) {
            value = interned(value); /* which takes the reference over */
        } else if (PyUnicode_CheckExact(value)) {
            PyUnicode_InternInPlace(&value);
        }
        if (value == NULL || PyDict_SetItem(copy, key, value) < 0) {
            Py_CLEAR(copy);
        }
        Py_DECREF(key);
        Py_XDECREF(value);
    }
    Py_XDECREF(dict);
    return copy;
}

static int asgi_set_base(struct asgi *self, PyObject *server, PyObject *root_path, PyObject *state, PyObject *trust)
{
    self->base.constant = interned(asgi_constant_scope(server));
    if (self->base.constant == NULL) {
        return -1;
    }
    self->base.asgi = Py_NewRef(PyDict_GetItemString(self->base.constant, "asgi"));
    self->base.extensions = Py_NewRef(PyDict_GetItemString(self->base.constant, "extensions"));
    if (PyUnicode_GET_LENGTH(root_path) > 0) {
        self->base.root_path = Py_NewRef(root_path);
        self->base.raw_root = PyUnicode_AsUTF8String(root_path);
        if (self->base.raw_root == NULL || PyDict_SetItemString(self->base.constant, "root_path", root_path) < 0) {
            return -1;
        }
    }
    self->base.state = state == Py_None ? NULL : Py_NewRef(state);
    self->base.trust = trust == Py_None ? NULL : Py_NewRef(trust);
    return 0;
}

static PyObject *asgi_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *names[] = {"app",   "listener", "server",    "root_path", "state",
                                  "trust", "on_error", "on_access", "calls_max", NULL};
    PyObject *app, *listener, *server, *root_path, *on_error, *state = Py_None, *trust = Py_None, *on_access = Py_None;
    unsigned int calls_max = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO!$OUOOOOI:Asgi", (char **)names, &app, &listener_type, &listener,
                                     &server, &root_path, &state, &trust, &on_error, &on_access, &calls_max)) {
        return NULL;
    }
    struct py_port *port = port_of_loop();
    PyObject *task_type = port == NULL ? NULL : task_get_type(NULL, NULL);
    if (task_type == NULL) {
        return NULL;
    }
    Py_DECREF(task_type); /* it stays */
    struct asgi *self = (struct asgi *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->port = (struct py_port *)Py_NewRef((PyObject *)port);
    self->listener = (struct py_listener *)Py_NewRef(listener);
    self->app = Py_NewRef(app);
    self->on_error = Py_NewRef(on_error);
    self->on_access = on_access == Py_None ? NULL : Py_NewRef(on_access);
    /* Half of a port's calls are for requests, a quarter for parts of answers that wait for slow clients, if there is a
     * choice, and the rest for the application's own clients. */
    uint32_t port_calls = core.options.port_calls_max == 0 ? PORT_CALLS_MAX : core.options.port_calls_max;
    self->calls_max = calls_max != 0 ? calls_max : port_calls > 1 ? port_calls / 2 : 1;
    self->lent_parts_many = port_calls / 4;
    self->slow = PyObject_New(struct asgi_slow, &asgi_slow_type);
    if (self->slow == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    self->slow->asgi = self;
    self->task_options = Py_BuildValue("{s:O}", "loop", port->loop);
    self->calls = PyMem_Calloc(self->calls_max, sizeof(struct iok_call *));
    if (self->calls == NULL) {
        PyErr_NoMemory();
    }
    if (self->task_options == NULL || self->calls == NULL || asgi_set_base(self, server, root_path, state, trust) < 0 ||
        asgi_add_calls(self) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int asgi_traverse(PyObject *op, visitproc visit, void *arg)
{
    struct asgi *self = (struct asgi *)op;
    Py_VISIT(self->app);
    Py_VISIT(self->on_error);
    Py_VISIT(self->on_access);
    Py_VISIT(self->task_options);
    Py_VISIT(self->port);
    Py_VISIT(self->base.state);
    Py_VISIT(self->base.trust);
    Py_VISIT(self->base.constant);
    Py_VISIT(self->base.asgi);
    Py_VISIT(self->base.extensions);
    for (struct exchange *exchange = self->exchanges; exchange != NULL; exchange = exchange->next) {
        Py_VISIT(exchange);
    }
    return 0;
}

static int asgi_clear(PyObject *op)
{
    struct asgi *self = (struct asgi *)op;
    while (self->n_calls > 0) {
        struct iok_call *call = self->calls[--self->n_calls];
        if (self->port != NULL) {
            port_bury(self->port, NULL, call);
        }
    }
    while (self->exchanges != NULL) {
        self->exchanges->call = NULL;
        exchange_unlink(self->exchanges);
    }
    Py_CLEAR(self->app);
    Py_CLEAR(self->on_error);
    Py_CLEAR(self->on_access);
    Py_CLEAR(self->task_options);
    Py_CLEAR(self->base.state);
    Py_CLEAR(self->base.trust);
    Py_CLEAR(self->base.constant);
    Py_CLEAR(self->base.asgi);
    Py_CLEAR(self->base.extensions);
    Py_CLEAR(self->base.root_path);
    Py_CLEAR(self->base.raw_root);
    return 0;
}

static void asgi_dealloc(PyObject *op)
{
    struct asgi *self = (struct asgi *)op;
    PyObject_GC_UnTrack(op);
    asgi_clear(op);
    PyMem_Free(self->calls);
    Py_XDECREF(self->slow);
    Py_CLEAR(self->listener);
    Py_CLEAR(self->port);
    Py_TYPE(op)->tp_free(op);
}

/* ---- methods ------------------------------------------------------------------------------------------------- */

/* WebSockets do not end by themselves, so their clients are told to come again: RFC 6455's registry, 1012. */
static PyObject *asgi_close(PyObject *op, PyObject *args)
{
    struct asgi *self = (struct asgi *)op;
    self->closing = true;
    for (struct exchange *exchange = self->exchanges; exchange != NULL; exchange = exchange->next) {
        if (exchange->socket == SOCKET_OPEN && !exchange->gone) {
            websocket_restart(exchange);
        }
    }
    PyObject *close = PyObject_GetAttrString((PyObject *)self->listener, "close");
    PyObject *done = close == NULL ? NULL : PyObject_CallObject(close, args);
    Py_XDECREF(close);
    return done;
}

static PyObject *asgi_cancel(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct asgi *self = (struct asgi *)op;
    PyObject *tasks = PyList_New(0);
    for (struct exchange *exchange = self->exchanges; tasks != NULL && exchange != NULL; exchange = exchange->next) {
        if (exchange->task != NULL && PyList_Append(tasks, exchange->task) < 0) {
            Py_CLEAR(tasks);
        }
    }
    for (Py_ssize_t i = 0; tasks != NULL && i < PyList_GET_SIZE(tasks); i++) {
        PyObject *done = PyObject_CallMethodNoArgs(PyList_GET_ITEM(tasks, i), from.str_cancel);
        if (done == NULL) {
            Py_CLEAR(tasks);
        }
        Py_XDECREF(done);
    }
    if (tasks == NULL) {
        return NULL;
    }
    Py_DECREF(tasks);
    Py_RETURN_NONE;
}

static PyObject *asgi_get_listener(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef((PyObject *)((struct asgi *)op)->listener);
}

static PyObject *asgi_get_busy(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(((struct asgi *)op)->busy);
}

static PyObject *asgi_get_open(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((struct asgi *)op)->n_calls > 0);
}

static PyMethodDef asgi_methods[] = {
    {"close", asgi_close, METH_VARARGS,
     "close(grace=0)\n--\n\nTake no more requests; those under way have so many seconds."},
    {"cancel", asgi_cancel, METH_NOARGS, "cancel()\n--\n\nCancel the tasks of all requests."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef asgi_getset[] = {
    {"listener", asgi_get_listener, NULL, "Where the requests come from.", NULL},
    {"open", asgi_get_open, NULL, "Whether requests may still come, or answers are on their way.", NULL},
    {"busy", asgi_get_busy, NULL, "Requests whose application has not ended yet.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static const char asgi_doc[] =
    "Asgi(app, listener, *, server, root_path, state=None, trust=None, on_error, on_access=None, calls_max=0)\n--\n\n"
    "Gives a listener's requests to an ASGI application, on the running loop.";

PyTypeObject asgi_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "iokernel._core.Asgi",
    .tp_doc = asgi_doc,
    .tp_basicsize = sizeof(struct asgi),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = asgi_new,
    .tp_traverse = asgi_traverse,
    .tp_clear = asgi_clear,
    .tp_dealloc = asgi_dealloc,
    .tp_methods = asgi_methods,
    .tp_getset = asgi_getset,
};

int asgi_init_types(PyObject *module)
{
    if (PyModule_AddType(module, &asgi_type) < 0 || exchange_init_type(module) < 0) {
        return -1;
    }
    return channel_init_types(module);
}
