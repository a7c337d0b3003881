/* client.c - Caller, the base of all that has call(), and how it makes one; and Client, a service by URL. */
#include "core.h"

#include <stddef.h>
#include <string.h>
#include <structmember.h>

/* ---- Caller ------------------------------------------------------------------------------------------------- */

int caller_check_forked(struct py_caller *caller)
{
    if (caller->generation == core.generation) {
        return 0;
    }
    if (caller->port != NULL) {
        fail_code(IOK_EFORKED, "the lease was made before fork() and belongs to the parent process", caller->service);
        return -1;
    }
    caller->generation = core.generation;
    if (caller->client != NULL) {
        ((struct py_caller *)caller->client)->generation = core.generation;
    }
    return 0;
}

int caller_check_open(struct py_caller *caller)
{
    if (UNLIKELY(caller->closed)) {
        fail_code(IOK_ECLOSED,
                  caller->mode == CALLER_QUEUE ? "the transaction has ended"
                  : caller->port != NULL       ? "the lease was closed"
                                               : "the client was closed",
                  caller->service);
        return -1;
    }
    return caller_check_forked(caller);
}

static struct py_port *caller_port(struct py_caller *caller)
{
    if (caller->port != NULL && caller->port->roams) {
        return port_roam(caller->port) < 0 ? NULL : caller->port;
    }
    struct py_port *port = caller->mode == CALLER_ASYNCIO ? port_of_loop() : port_of_thread();
    if (LIKELY(caller->port == NULL) || port == NULL || port == caller->port) {
        return port;
    }
    port_refuse(caller->port); /* a lease, used from elsewhere */
    return NULL;
}

struct iok_call *caller_begin(struct py_caller *caller, struct py_port **port)
{
    *port = NULL;
    if (UNLIKELY(caller_check_open(caller) < 0)) {
        return NULL;
    }
    struct py_port *found = caller_port(caller);
    if (UNLIKELY(found == NULL)) {
        return NULL;
    }
    if (UNLIKELY(found->graves != NULL)) {
        port_reap(found);
    }
    *port = found;
    struct iok_error err; /* filled in on failure only */
    struct iok_call *call = iok_call_new(found->port, caller->service, &err);
    if (UNLIKELY(call == NULL)) {
        fail_set(&err, IOK_NEVER_SENT, caller->service, "");
        return NULL;
    }
    if (caller->lease != NULL) {
        iok_call_lease(call, caller->lease);
    }
    return call;
}

PyObject *caller_failed(struct py_caller *caller, struct py_port *port)
{
    if (caller->mode != CALLER_ASYNCIO || port == NULL || !PyErr_ExceptionMatches(core.error_type)) {
        return NULL;
    }
    PyObject *exception = fail_take();
    struct py_reply *reply = reply_new(port, NULL, (PyObject *)caller);
    if (reply == NULL) {
        Py_DECREF(exception);
        return NULL;
    }
    fail_raise(exception);
    reply_end(reply, NULL, NULL);
    return (PyObject *)reply;
}

int caller_submit(struct py_caller *caller, struct iok_call *call)
{
    int rc = iok_submit(call);
    if (UNLIKELY(rc < 0)) {
        struct iok_error err = {0};
        if (iok_call_error(call, &err) == 0) {
            err.code = rc;
        }
        fail_set(&err, IOK_NEVER_SENT, caller->service, "");
        iok_call_free(call);
        return -1;
    }
    return 0;
}

static int wait_for_call(struct iok_call *call)
{
    for (int64_t look_ms = LOOK_MS_MIN;; look_ms = look_ms * 2 < LOOK_MS_MAX ? look_ms * 2 : LOOK_MS_MAX) {
        int rc;
        Py_BEGIN_ALLOW_THREADS rc = iok_wait_call(call, look_ms);
        core_park_at_exit();
        Py_END_ALLOW_THREADS if (LIKELY(rc == 0))
        {
            return 0;
        }
        if ((rc == IOK_EINTR || rc == IOK_ETIMEOUT) && PyErr_CheckSignals() == 0) {
            continue;
        }
        if (rc != IOK_EINTR && rc != IOK_ETIMEOUT) {
            fail_code(rc, iok_errno_text(rc), iok_call_service(call));
        }
        iok_abandon(call);
        return -1;
    }
}

int caller_wait(struct py_caller *caller, struct iok_call *call)
{
    struct py_port *roaming = caller->port != NULL && caller->port->roams ? caller->port : NULL;
    if (roaming == NULL) {
        return wait_for_call(call);
    }
    roaming->busy = true;
    int result = wait_for_call(call);
    roaming->busy = false;
    return result;
}

static PyObject *caller_finish_sync(struct py_caller *caller, struct iok_call *call, const struct value_want *want)
{
    if (UNLIKELY(caller_submit(caller, call) < 0 || caller_wait(caller, call) < 0)) {
        return NULL;
    }
    PyObject *value = value_of_call(call, want == NULL ? caller_want(caller) : *want);
    iok_call_free(call);
    return value;
}

PyObject *caller_finish(struct py_caller *caller, struct py_port *port, struct iok_call *call,
                        const struct value_want *want)
{
    if (caller->mode == CALLER_SYNC) {
        return caller_finish_sync(caller, call, want);
    }
    struct py_reply *reply = reply_new(port, call, (PyObject *)caller);
    if (UNLIKELY(reply == NULL)) {
        iok_call_free(call);
        return NULL;
    }
    if (want == NULL) {
        reply->want.decode = caller->decode;
    } else {
        reply->want = *want;
    }
    iok_call_set_user(call, reply);
    if (UNLIKELY(caller_submit(caller, call) < 0)) {
        reply->call = NULL;
        reply_end(reply, NULL, NULL);
        return (PyObject *)reply;
    }
    reply_start(reply);
    return (PyObject *)reply;
}

struct iok_call *caller_build(struct py_caller *caller, struct py_port **port, PyObject *const *args, Py_ssize_t nargs,
                              const struct call_options *options)
{
    struct iok_call *call = caller_begin(caller, port);
    if (UNLIKELY(call == NULL)) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < nargs; i++) {
        if (UNLIKELY(build_argument(call, args[i], caller->scalars, i + 1) < 0)) {
            iok_call_free(call);
            *port = NULL;
            return NULL;
        }
    }
    build_apply(call, options);
    return call;
}

static PyObject *caller_call(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    struct py_caller *caller = (struct py_caller *)op;
    struct call_options options;
    int others = build_options(&options, args + nargs, kwnames);
    if (others != 0 || nargs == 0) {
        if (others >= 0) {
            PyErr_SetString(PyExc_TypeError, nargs == 0 ? "call() needs at least one argument: the command"
                                                        : "call() takes only the keywords timeout and repeatable");
        }
        return NULL;
    }
    if (caller->mode == CALLER_QUEUE) {
        return queue_append(caller, NULL, args, nargs);
    }
    struct py_port *port;
    struct iok_call *call = caller_build(caller, &port, args, nargs, &options);
    return call == NULL ? caller_failed(caller, port) : caller_finish(caller, port, call, NULL);
}

/* ---- many calls at once ------------------------------------------------------------------------------------- */

struct batch {
    struct iok_call **calls;
    Py_ssize_t n;
};

/* Builds all before any is submitted, so a bad argument of the last harms none. */
static int batch_build(struct batch *batch, struct py_caller *caller, struct py_port **port, PyObject *commands,
                       const struct call_options *options)
{
    Py_ssize_t n = PySequence_Fast_GET_SIZE(commands);
    for (; batch->n < n; batch->n++) {
        PyObject *command = PySequence_Fast_GET_ITEM(commands, batch->n);
        if (!PyTuple_Check(command) || PyTuple_GET_SIZE(command) == 0) {
            PyErr_SetString(PyExc_TypeError, "each command must be a non-empty tuple: its name and its arguments");
            return -1;
        }
        batch->calls[batch->n] =
            caller_build(caller, port, &PyTuple_GET_ITEM(command, 0), PyTuple_GET_SIZE(command), options);
        if (batch->calls[batch->n] == NULL) {
            return -1;
        }
    }
    return 0;
}

/* The value, or the exception in its place; NULL only for what must not be swallowed. */
static PyObject *batch_value(PyObject *value)
{
    if (value == NULL && PyErr_ExceptionMatches(core.error_type)) {
        return fail_take();
    }
    return value;
}

static PyObject *batch_run_sync(struct batch *batch, struct py_caller *caller, PyObject *list)
{
    for (Py_ssize_t i = 0; i < batch->n; i++) {
        if (caller_submit(caller, batch->calls[i]) < 0) {
            PyObject *exception = batch_value(NULL);
            batch->calls[i] = NULL;
            if (exception == NULL) {
                return NULL;
            }
            PyList_SET_ITEM(list, i, exception);
        }
    }
    for (Py_ssize_t i = 0; i < batch->n; i++) {
        struct iok_call *call = batch->calls[i];
        if (call == NULL) {
            continue;
        }
        batch->calls[i] = NULL;
        if (caller_wait(caller, call) < 0) {
            return NULL;
        }
        PyObject *value = batch_value(value_of_call(call, caller_want(caller)));
        iok_call_free(call);
        if (value == NULL) {
            return NULL;
        }
        PyList_SET_ITEM(list, i, value);
    }
    return list;
}

static PyObject *batch_run(struct batch *batch, struct py_caller *caller, struct py_port *port, PyObject *list)
{
    if (caller->mode == CALLER_SYNC) {
        return batch_run_sync(batch, caller, list);
    }
    for (Py_ssize_t i = 0; i < batch->n; i++) {
        struct iok_call *call = batch->calls[i];
        batch->calls[i] = NULL;
        PyObject *reply = caller_finish(caller, port, call, NULL);
        if (reply == NULL) {
            return NULL;
        }
        PyList_SET_ITEM(list, i, reply);
    }
    return list;
}

static PyObject *caller_call_many(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static const char *names[] = {"commands", "timeout", NULL};
    struct py_caller *caller = (struct py_caller *)op;
    PyObject *commands, *timeout = Py_None;
    struct call_options options = CALL_OPTIONS_NONE;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$O:call_many", (char **)names, &commands, &timeout) ||
        build_timeout(timeout, &options.timeout_ms) < 0) {
        return NULL;
    }
    if (caller->mode == CALLER_QUEUE) {
        PyErr_SetString(PyExc_TypeError, "call_many() has no use in a transaction: it is one already");
        return NULL;
    }
    commands = PySequence_Fast(commands, "commands must be a sequence of tuples");
    if (commands == NULL || core_need_errors() < 0) {
        Py_XDECREF(commands);
        return NULL;
    }
    Py_ssize_t n = PySequence_Fast_GET_SIZE(commands);
    struct batch batch = {.calls = PyMem_Calloc((size_t)n + 1, sizeof(struct iok_call *))};
    struct py_port *port = NULL;
    PyObject *list = batch.calls == NULL ? PyErr_NoMemory() : PyList_New(n);
    PyObject *result = NULL;
    if (list != NULL && batch_build(&batch, caller, &port, commands, &options) == 0) {
        result = batch_run(&batch, caller, port, list);
    }
    for (Py_ssize_t i = 0; i < batch.n; i++) {
        if (batch.calls[i] != NULL) { /* not submitted, or left behind by Ctrl-C */
            iok_abandon(batch.calls[i]);
        }
    }
    PyMem_Free(batch.calls);
    Py_DECREF(commands);
    if (result == NULL) {
        Py_XDECREF(list);
    }
    return result;
}

/* ---- attributes of callers ---------------------------------------------------------------------------------- */

static PyObject *caller_url(PyObject *op, void *Py_UNUSED(closure))
{
    const struct py_caller *caller = (const struct py_caller *)op;
    return PyUnicode_FromString(caller->service == NULL ? "" : iok_service_name(caller->service));
}

static PyObject *caller_protocol(PyObject *op, void *Py_UNUSED(closure))
{
    const struct py_caller *caller = (const struct py_caller *)op;
    return PyUnicode_FromString(caller->service == NULL ? "" : iok_service_protocol(caller->service));
}

static PyObject *caller_timeout(PyObject *op, void *Py_UNUSED(closure))
{
    struct py_caller *caller = (struct py_caller *)op;
    uint64_t ms = caller->service == NULL ? 0 : iok_service_timeout_ms(caller->service);
    return PyFloat_FromDouble((double)ms / 1000);
}

static PyObject *caller_max_reply(PyObject *op, void *Py_UNUSED(closure))
{
    const struct py_caller *caller = (const struct py_caller *)op;
    return PyLong_FromUnsignedLongLong(caller->service == NULL ? 0 : iok_service_max_reply(caller->service));
}

static PyObject *caller_repr(PyObject *op)
{
    const struct py_caller *caller = (const struct py_caller *)op;
    return PyUnicode_FromFormat("<%s %s%s>", Py_TYPE(op)->tp_name,
                                caller->service == NULL ? "" : iok_service_name(caller->service),
                                caller->closed ? " closed" : "");
}

static PyMethodDef caller_methods[] = {
    {"call", (PyCFunction)(void (*)(void))caller_call, METH_FASTCALL | METH_KEYWORDS,
     "call(*args, timeout=None, repeatable=None)\n--\n\n"
     "Send one command, given as its words, and give its reply.\n\ntimeout is in seconds: None means the service's "
     "own, math.inf none. repeatable=True allows the kernel to send it again when its connection is lost."},
    {"call_many", (PyCFunction)(void (*)(void))caller_call_many, METH_VARARGS | METH_KEYWORDS,
     "call_many(commands, *, timeout=None)\n--\n\n"
     "Send many commands at once, each a tuple; a list of replies. A failed one's exception stands in its place "
     "(sync), or is raised by awaiting it (asyncio)."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef caller_members[] = {
    {"closed", T_BOOL, offsetof(struct py_caller, closed), READONLY, "True after close()."},
    {"_decoders", T_OBJECT, offsetof(struct py_caller, decoders), READONLY, "By a column's type who makes its values."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef caller_getset[] = {
    {"url", caller_url, NULL, "The service's URL without password.", NULL},
    {"protocol", caller_protocol, NULL, "The protocol's name, such as 'redis'.", NULL},
    {"timeout", caller_timeout, NULL, "The service's timeout=, in seconds.", NULL},
    {"max_reply", caller_max_reply, NULL, "The service's max_reply=, in bytes.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static int caller_traverse(PyObject *op, visitproc visit, void *arg)
{
    struct py_caller *caller = (struct py_caller *)op;
    Py_VISIT(caller->port);
    Py_VISIT(caller->client);
    Py_VISIT(caller->queue);
    Py_VISIT(caller->decoders);
    return 0;
}

/* Closes a service whose client was dropped without close(). */
static void caller_close_dropped(struct py_caller *caller)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    struct py_port *port = port_of_thread();
    if (port != NULL) {
        iok_service_close(caller->service, port->port);
    }
    PyErr_Clear();
    PyErr_Restore(type, value, traceback);
}

/* Gives the service back. One that a child has not used is not open there. */
static void caller_drop_service(struct py_caller *caller)
{
    if (caller->service == NULL) {
        return;
    }
    if (!caller->closed && !core.ending && caller->client == NULL && caller->generation == core.generation &&
        PyObject_TypeCheck((PyObject *)caller, &client_type)) {
        caller_close_dropped(caller);
    }
    iok_service_unref(caller->service);
    caller->service = NULL;
}

static void caller_dealloc(PyObject *op)
{
    struct py_caller *caller = (struct py_caller *)op;
    PyObject_GC_UnTrack(op);
    if (caller->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    if (caller->lease != NULL) {
        port_bury(caller->port, caller->lease, NULL);
        caller->lease = NULL;
    }
    caller_drop_service(caller);
    Py_CLEAR(caller->port);
    Py_CLEAR(caller->client);
    Py_CLEAR(caller->queue);
    Py_CLEAR(caller->decoders);
    Py_TYPE(op)->tp_free(op);
}

PyTypeObject caller_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "iokernel._core.Caller",
    .tp_doc = "The base of all that has call().",
    .tp_basicsize = sizeof(struct py_caller),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_traverse = caller_traverse,
    .tp_dealloc = caller_dealloc,
    .tp_weaklistoffset = offsetof(struct py_caller, weakrefs),
    .tp_repr = caller_repr,
    .tp_methods = caller_methods,
    .tp_members = caller_members,
    .tp_getset = caller_getset,
};

/* ---- Client ------------------------------------------------------------------------------------------------- */

static int client_mode(const char *name, uint8_t *mode)
{
    if (strcmp(name, "sync") == 0) {
        *mode = CALLER_SYNC;
        return 0;
    }
    if (strcmp(name, "asyncio") == 0) {
        *mode = CALLER_ASYNCIO;
        return core_need_asyncio();
    }
    PyErr_SetString(PyExc_ValueError, "mode must be 'sync' or 'asyncio'");
    return -1;
}

/* False, True, or the name of the only encoding. */
static int client_decode(PyObject *value, bool *decode)
{
    if (PyUnicode_Check(value)) {
        if (PyUnicode_CompareWithASCIIString(value, "utf-8") != 0 &&
            PyUnicode_CompareWithASCIIString(value, "utf8") != 0) {
            PyErr_SetString(PyExc_ValueError, "decode must be False, True or 'utf-8'");
            return -1;
        }
        *decode = true;
        return 0;
    }
    int truth = PyObject_IsTrue(value);
    *decode = truth > 0;
    return truth < 0 ? -1 : 0;
}

/* A service of its own, with the URL of another client's, for reads. 0, or -1 with an exception. */
static int client_make_replica(struct py_caller *self, PyObject *from)
{
    struct py_caller *other = (struct py_caller *)from;
    if (!PyObject_TypeCheck(from, &client_type)) {
        PyErr_SetString(PyExc_TypeError, "a replica is made of a client");
        return -1;
    }
    struct py_port *port = caller_check_open(other) < 0 ? NULL : port_of_anything();
    if (port == NULL) {
        return -1;
    }
    struct iok_error err = {0};
    self->service = iok_service_replica(port->port, other->service, &err);
    if (self->service == NULL) {
        fail_set(&err, IOK_NEVER_SENT, NULL, "");
        return -1;
    }
    self->decode = other->decode;
    return 0;
}

/* The service of a new client: one of its own by URL, or that of another client, which then lives as long as this one
 * and is the one that closes it. 0, or -1 with an exception. */
static int client_take_service(struct py_caller *self, PyObject *from)
{
    if (PyObject_TypeCheck(from, &client_type)) {
        struct py_caller *other = (struct py_caller *)from;
        if (caller_check_open(other) < 0) {
            return -1;
        }
        iok_service_ref(other->service);
        self->service = other->service;
        self->client = Py_NewRef(other->client != NULL ? other->client : from);
        return 0;
    }
    if (!PyUnicode_Check(from)) {
        PyErr_Format(PyExc_TypeError, "a URL or a client is needed, not %s", Py_TYPE(from)->tp_name);
        return -1;
    }
    Py_ssize_t len;
    const char *url = PyUnicode_AsUTF8AndSize(from, &len);
    if (url != NULL && strlen(url) != (size_t)len) {
        PyErr_SetString(PyExc_ValueError, "embedded null character");
        return -1;
    }
    struct py_port *port = url != NULL ? port_of_anything() : NULL;
    if (port == NULL) {
        return -1;
    }
    struct iok_error err = {0};
    self->service = iok_service_new(port->port, url, &err);
    if (self->service == NULL) {
        fail_set(&err, IOK_NEVER_SENT, NULL, "");
        return -1;
    }
    return 0;
}

static PyObject *client_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *names[] = {"url", "mode", "decode", "replica", NULL};
    PyObject *from;
    int replica = 0;
    const char *mode_name = "sync";
    PyObject *decode_value = Py_False;
    uint8_t mode = CALLER_SYNC;
    bool decode = false;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$sOp:Client", (char **)names, &from, &mode_name, &decode_value,
                                     &replica) ||
        client_mode(mode_name, &mode) < 0 || client_decode(decode_value, &decode) < 0 || core_need_errors() < 0) {
        return NULL;
    }
    struct py_caller *self = (struct py_caller *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->mode = mode;
    self->decode = decode;
    self->generation = core.generation;
    if ((replica ? client_make_replica(self, from) : client_take_service(self, from)) < 0) {
        self->closed = true;
        Py_DECREF(self);
        return NULL;
    }
    self->scalars = strcmp(iok_service_protocol(self->service), "redis") == 0;
    self->decoders = self->scalars ? NULL : PyDict_New();
    if (!self->scalars && self->decoders == NULL) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static PyObject *client_close(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct py_caller *self = (struct py_caller *)op;
    if (self->closed || self->client != NULL || core.ending) {
        self->closed = true; /* only the client that made the service closes it */
        Py_RETURN_NONE;
    }
    struct py_port *port = port_of_anything();
    if (port == NULL) {
        return NULL;
    }
    self->closed = true;
    iok_service_close(self->service, port->port);
    Py_RETURN_NONE;
}

static PyObject *client_ready(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static const char *names[] = {"timeout", NULL};
    struct py_caller *self = (struct py_caller *)op;
    PyObject *timeout = Py_None;
    struct call_options options = CALL_OPTIONS_NONE;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:ready", (char **)names, &timeout) ||
        build_timeout(timeout, &options.timeout_ms) < 0) {
        return NULL;
    }
    struct py_port *port;
    struct iok_call *call = caller_begin(self, &port);
    if (call == NULL) {
        return caller_failed(self, port);
    }
    iok_call_ready(call);
    build_apply(call, &options);
    return caller_finish(self, port, call, NULL);
}

/* ---- statistics --------------------------------------------------------------------------------------------- */

/* Sets dict[name] and takes value over. */
static int stats_put(PyObject *dict, const char *name, PyObject *value)
{
    int result = value == NULL ? -1 : PyDict_SetItemString(dict, name, value);
    Py_XDECREF(value);
    return result;
}

static PyObject *stats_phase(const struct iok_phase *phase)
{
    return Py_BuildValue("{sKsdsdsd}", "count", phase->count, "p50", (double)phase->p50_ns * 1e-9, "p99",
                         (double)phase->p99_ns * 1e-9, "max", (double)phase->max_ns * 1e-9);
}

static PyObject *stats_ended(const struct iok_service_stats *s)
{
    PyObject *ended = PyDict_New();
    for (int i = IOK_DONE; ended != NULL && i <= IOK_REJECTED; i++) {
        if (stats_put(ended, iok_outcome_name((enum iok_outcome)i), PyLong_FromUnsignedLongLong(s->ended[i])) < 0) {
            Py_CLEAR(ended);
        }
    }
    return ended;
}

static PyObject *client_stats(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct py_caller *self = (struct py_caller *)op;
    if (core.ending) {
        fail_code(IOK_ECLOSED, "its kernel is gone", NULL);
        return NULL;
    }
    struct iok_service_stats s = {0};
    iok_service_stats(self->service, &s);
    PyObject *dict = Py_BuildValue(
        "{sKsKsKsKsKsKsKsKsKsKsKsIsIsIsI}", "calls", s.calls, "retries", s.retries, "cancelled", s.cancelled,
        "overloaded", s.overloaded, "dropped", s.dropped, "connects", s.connects, "connect_failures",
        s.connect_failures, "disconnects", s.disconnects, "pings", s.pings, "bytes_in", s.bytes_in, "bytes_out",
        s.bytes_out, "connections", s.connections, "leased", s.leased, "queued", s.queued, "inflight", s.inflight);
    if (dict == NULL) {
        return NULL;
    }
    PyObject *failure = PyUnicode_DecodeUTF8(s.last_failure, (Py_ssize_t)strlen(s.last_failure), "replace");
    if (stats_put(dict, "last_failure", failure) < 0 || stats_put(dict, "ended", stats_ended(&s)) < 0 ||
        stats_put(dict, "submit", stats_phase(&s.submit)) < 0 || stats_put(dict, "queue", stats_phase(&s.queue)) < 0 ||
        stats_put(dict, "service", stats_phase(&s.service)) < 0 ||
        stats_put(dict, "pickup", stats_phase(&s.pickup)) < 0 || stats_put(dict, "total", stats_phase(&s.total)) < 0) {
        Py_CLEAR(dict);
    }
    return dict;
}

static PyMethodDef client_methods[] = {
    {"close", client_close, METH_NOARGS,
     "close()\n--\n\nEnd its calls, close its connections. Any thread; again is harmless."},
    {"ready", (PyCFunction)(void (*)(void))client_ready, METH_VARARGS | METH_KEYWORDS,
     "ready(timeout=None)\n--\n\nWait until the service is usable; at the deadline raise why it is not."},
    {"stats", client_stats, METH_NOARGS,
     "stats()\n--\n\nCounters of the service, and latency by phase in seconds, as a dict."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject client_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "iokernel._core.Client",
    .tp_doc =
        "Client(url, *, mode='sync', decode=False, replica=False)\n--\n\n"
        "A service by URL, or another client's with its connections, or for reads from its standbys. Any thread and event loop of the process "
        "may use it.",
    .tp_basicsize = sizeof(struct py_caller),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, /* collected as its base is */
    .tp_base = &caller_type,
    .tp_new = client_new,
    .tp_methods = client_methods,
};

int client_init_types(PyObject *module)
{
    return PyModule_AddType(module, &caller_type) < 0 ? -1 : PyModule_AddType(module, &client_type);
}
