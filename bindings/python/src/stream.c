/* stream.c - Stream: a command that is answered by messages without end, such as SUBSCRIBE; or one whose reply is taken in
 * parts, or whose request has a body. It needs a lease, except for the latter two where a connection has one request at a
 * time (HTTP): there a client will do.
 *
 * Messages wait in the kernel, a bounded number of them, until they are asked for one by one. One asker at a time. A
 * stream without end ends when its connection is lost (its error is raised then), or when it is dropped. Of the others
 * the reply follows the last part: next() gives None then, and result the reply. */
#include "core.h"

#include <stddef.h>
#include <time.h>

struct py_stream {
    PyObject_HEAD
    struct py_port *port;     /* a reference */
    struct py_caller *caller; /* a reference: the lease or client lives as long */
    struct iok_call *call;    /* NULL once freed */
    struct py_reply *waiter;  /* borrowed: it refers to us */
    PyObject *result;         /* the reply of one that has ended */
    PyObject *weakrefs;
    bool finite; /* parts or a body */
};

/* The oldest message, or NULL: without an exception if there is none yet, with one at the end. */
static PyObject *stream_take(struct py_stream *self)
{
    if (self->result != NULL) {
        Py_RETURN_NONE;
    }
    if (self->call == NULL) {
        fail_code(IOK_ECLOSED, "the stream has ended", self->caller->service);
        return NULL;
    }
    size_t n;
    const struct iok_token *tokens = iok_call_message(self->call, &n);
    if (tokens != NULL) {
        PyObject *value = value_of_message(tokens, n, self->call, self->caller->decode);
        iok_call_next(self->call);
        return value;
    }
    enum iok_outcome outcome = iok_call_outcome(self->call);
    if (outcome == IOK_PENDING) {
        return NULL;
    }
    PyObject *value = value_of_call(self->call, caller_want(self->caller));
    iok_call_free(self->call);
    self->call = NULL;
    if (value != NULL && self->finite) {
        self->result = value;
        Py_RETURN_NONE;
    }
    if (value != NULL) { /* an end without failure */
        Py_DECREF(value);
        fail_code(IOK_ECLOSED, "the stream has ended", self->caller->service);
    }
    return NULL;
}

void stream_forget(PyObject *op, const struct py_reply *reply)
{
    struct py_stream *self = (struct py_stream *)op;
    if (self->waiter == reply) {
        self->waiter = NULL;
    }
}

int stream_news(PyObject *op, struct iok_call *Py_UNUSED(call), struct py_port *drain)
{
    struct py_stream *self = (struct py_stream *)op;
    struct py_reply *waiter = self->waiter;
    if (waiter == NULL) {
        return 0; /* it looks for itself when it asks */
    }
    PyObject *value = stream_take(self);
    if (value == NULL && !PyErr_Occurred()) {
        return 0;
    }
    Py_INCREF(waiter);
    self->waiter = NULL;
    int result = reply_end(waiter, value, drain);
    Py_DECREF(waiter);
    return result;
}

static int stream_check(struct py_stream *self)
{
    if (caller_check_forked(self->caller) < 0) {
        return -1;
    }
    if (!port_usable(self->port)) {
        port_refuse(self->port);
        return -1;
    }
    if (self->waiter != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "another task already waits for the stream's next message");
        return -1;
    }
    return 0;
}

static PyObject *stream_next_asyncio(struct py_stream *self)
{
    struct py_reply *reply = reply_new(self->port, NULL, (PyObject *)self);
    if (reply == NULL) {
        return NULL;
    }
    PyObject *value = stream_take(self);
    if (value != NULL || PyErr_Occurred()) {
        reply_end(reply, value, NULL);
        return (PyObject *)reply;
    }
    self->waiter = reply;
    reply_start(reply);
    return (PyObject *)reply;
}

static int64_t stream_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static PyObject *stream_next_sync(struct py_stream *self, int64_t timeout_ms)
{
    int64_t start_ms = stream_now_ms();
    for (int64_t look_ms = LOOK_MS_MIN;; look_ms = look_ms * 2 < LOOK_MS_MAX ? look_ms * 2 : LOOK_MS_MAX) {
        PyObject *value = stream_take(self);
        if (value != NULL || PyErr_Occurred()) {
            return value;
        }
        int64_t left_ms = timeout_ms < 0 ? LOOK_MS_MAX : start_ms + timeout_ms - stream_now_ms();
        if (left_ms <= 0) {
            fail_code(IOK_ETIMEOUT, "no message came in time", self->caller->service);
            return NULL;
        }
        int rc;
        Py_BEGIN_ALLOW_THREADS rc = iok_wait_message(self->call, look_ms < left_ms ? look_ms : left_ms);
        core_park_at_exit();
        Py_END_ALLOW_THREADS if ((rc == IOK_EINTR || rc == IOK_ETIMEOUT) && PyErr_CheckSignals() < 0)
        {
            return NULL;
        }
        if (rc < 0 && rc != IOK_EINTR && rc != IOK_ETIMEOUT) {
            fail_code(rc, iok_errno_text(rc), self->caller->service);
            return NULL;
        }
    }
}

static PyObject *stream_next(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static const char *names[] = {"timeout", NULL};
    struct py_stream *self = (struct py_stream *)op;
    PyObject *timeout = Py_None;
    int64_t timeout_ms;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:next", (char **)names, &timeout) ||
        build_timeout(timeout, &timeout_ms) < 0 || stream_check(self) < 0) {
        return NULL;
    }
    if (self->caller->mode == CALLER_SYNC) {
        return stream_next_sync(self, timeout_ms == 0 ? -1 : timeout_ms);
    }
    if (timeout != Py_None) {
        PyErr_SetString(PyExc_TypeError,
                        "next() takes no timeout on an event loop: use asyncio.timeout() or wait_for()");
        return NULL;
    }
    return stream_next_asyncio(self);
}

/* ---- the body of a request ---------------------------------------------------------------------------------- */

static struct iok_call *stream_part(struct py_stream *self)
{
    struct iok_error err;
    if (caller_check_forked(self->caller) < 0) {
        return NULL;
    }
    if (!port_usable(self->port)) {
        port_refuse(self->port);
        return NULL;
    }
    if (self->call == NULL) {
        fail_code(IOK_ECLOSED, "the stream has ended", self->caller->service);
        return NULL;
    }
    struct iok_call *part = iok_part_new(self->call, &err);
    if (part == NULL) {
        fail_set(&err, IOK_NEVER_SENT, self->caller->service, "");
    }
    return part;
}

/* Takes the part over; gives what the method returns. */
static PyObject *stream_send_part(struct py_stream *self, struct iok_call *part)
{
    struct py_caller *caller = self->caller;
    if (caller->mode == CALLER_SYNC) {
        if (caller_submit(caller, part) < 0 || caller_wait(caller, part) < 0) {
            return NULL;
        }
        PyObject *value = value_of_call(part, caller_want(caller));
        iok_call_free(part);
        return value;
    }
    struct py_reply *reply = reply_new(self->port, part, (PyObject *)self);
    if (reply == NULL) {
        iok_call_free(part);
        return NULL;
    }
    iok_call_set_user(part, reply);
    if (caller_submit(caller, part) < 0) {
        reply->call = NULL;
        reply_end(reply, NULL, NULL);
        return (PyObject *)reply;
    }
    reply_start(reply);
    return (PyObject *)reply;
}

static PyObject *stream_send(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static const char *names[] = {"data", "end", NULL};
    struct py_stream *self = (struct py_stream *)op;
    PyObject *data;
    int end = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$p:send", (char **)names, &data, &end)) {
        return NULL;
    }
    if (!PyUnicode_Check(data) && !PyObject_CheckBuffer(data)) {
        PyErr_Format(PyExc_TypeError, "a part must be bytes, bytearray, memoryview or str, not %.100s",
                     Py_TYPE(data)->tp_name);
        return NULL;
    }
    struct iok_call *part = stream_part(self);
    if (part == NULL || build_argument(part, data, true, 1) < 0) {
        if (part != NULL) {
            iok_call_free(part);
        }
        return NULL;
    }
    if (end) {
        iok_part_end(part);
    }
    return stream_send_part(self, part);
}

static PyObject *stream_fail(PyObject *op, PyObject *args)
{
    struct py_stream *self = (struct py_stream *)op;
    const char *why;
    if (!PyArg_ParseTuple(args, "s:fail", &why)) {
        return NULL;
    }
    struct iok_call *part = stream_part(self);
    if (part == NULL) {
        return NULL;
    }
    iok_part_fail(part, why);
    return stream_send_part(self, part);
}

/* ---- the type ----------------------------------------------------------------------------------------------- */

struct stream_options {
    int parts, body;
    struct call_options call;
};

static int stream_read_options(struct stream_options *options, PyObject *kwargs)
{
    static const char *names[] = {"parts", "body", "timeout", NULL};
    PyObject *none = PyTuple_New(0), *timeout = Py_None;
    *options = (struct stream_options){.call = CALL_OPTIONS_NONE};
    int right = none != NULL &&
                PyArg_ParseTupleAndKeywords(none, kwargs, "|$ppO:Stream", (char **)names, &options->parts,
                                            &options->body, &timeout) &&
                build_timeout(timeout, &options->call.timeout_ms) == 0;
    Py_XDECREF(none);
    return right ? 0 : -1;
}

static PyObject *stream_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    struct stream_options options;
    if (stream_read_options(&options, kwargs) < 0) {
        return NULL;
    }
    PyObject *first = PyTuple_GET_SIZE(args) < 2 ? Py_None : PyTuple_GET_ITEM(args, 0);
    if (!PyObject_TypeCheck(first, &lease_type) && !PyObject_TypeCheck(first, &client_type)) {
        PyErr_SetString(PyExc_TypeError, "Stream() takes a lease or a client, and the words of a command");
        return NULL;
    }
    struct py_caller *caller = (struct py_caller *)first;
    struct py_port *port;
    struct iok_call *call = caller_begin(caller, &port);
    if (call == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 1; i < PyTuple_GET_SIZE(args); i++) {
        if (build_argument(call, PyTuple_GET_ITEM(args, i), caller->scalars, i) < 0) {
            iok_call_free(call);
            return NULL;
        }
    }
    struct py_stream *self = (struct py_stream *)type->tp_alloc(type, 0);
    if (self == NULL) {
        iok_call_free(call);
        return NULL;
    }
    build_apply(call, &options.call);
    self->finite = options.parts || options.body;
    if (options.parts) {
        iok_call_parts(call);
    }
    if (options.body) {
        iok_call_body(call);
    }
    self->port = (struct py_port *)Py_NewRef(port);
    self->caller = (struct py_caller *)Py_NewRef(caller);
    iok_call_set_user(call, self);
    if (caller_submit(caller, call) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->call = call;
    return (PyObject *)self;
}

static PyObject *stream_close(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct py_stream *self = (struct py_stream *)op;
    struct iok_call *call = self->call;
    self->call = NULL;
    if (call != NULL) {
        port_bury(self->port, NULL, call);
    }
    struct py_reply *waiter = self->waiter;
    if (waiter == NULL) {
        Py_RETURN_NONE;
    }
    self->waiter = NULL;
    Py_INCREF(waiter);
    fail_code(IOK_ECLOSED, "the stream was closed", self->caller->service);
    int told = reply_end(waiter, NULL, NULL);
    Py_DECREF(waiter);
    if (told < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static int stream_traverse(PyObject *op, visitproc visit, void *arg)
{
    struct py_stream *self = (struct py_stream *)op;
    Py_VISIT(self->port);
    Py_VISIT(self->caller);
    Py_VISIT(self->result);
    return 0;
}

static void stream_dealloc(PyObject *op)
{
    struct py_stream *self = (struct py_stream *)op;
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    if (self->call != NULL) {
        port_bury(self->port, NULL, self->call);
    }
    Py_CLEAR(self->port);
    Py_CLEAR(self->caller);
    Py_CLEAR(self->result);
    Py_TYPE(op)->tp_free(op);
}

static PyMethodDef stream_methods[] = {
    {"next", (PyCFunction)(void (*)(void))stream_next, METH_VARARGS | METH_KEYWORDS,
     "next(timeout=None)\n--\n\nThe next message as a list; on an event loop a Reply of it.\n\nAn int in its place "
     "says that so many messages were dropped here, which only slow_consumer=drop allows."},
    {"send", (PyCFunction)(void (*)(void))stream_send, METH_VARARGS | METH_KEYWORDS,
     "send(data, *, end=False)\n--\n\nA part of the request's body, and with end=True its last. It is done (on an event "
     "loop the Reply is) when the operating system has taken it."},
    {"fail", stream_fail, METH_VARARGS, "fail(why)\n--\n\nBreak the request's body off."},
    {"close", stream_close, METH_NOARGS, "close()\n--\n\nEnd it; again is harmless."},
    {NULL, NULL, 0, NULL},
};

static PyObject *stream_get_result(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *result = ((struct py_stream *)op)->result;
    return Py_NewRef(result == NULL ? Py_None : result);
}

static PyGetSetDef stream_getset[] = {
    {"result", stream_get_result, NULL, "The reply, once next() has given None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject stream_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "iokernel._core.Stream",
    .tp_doc = "Stream(caller, *words, parts=False, body=False, timeout=None)\n--\n\n"
              "A command that is answered by messages without end; or one whose reply is taken in parts, or whose "
              "request has a body.",
    .tp_basicsize = sizeof(struct py_stream),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_traverse = stream_traverse,
    .tp_dealloc = stream_dealloc,
    .tp_weaklistoffset = offsetof(struct py_stream, weakrefs),
    .tp_new = stream_new,
    .tp_methods = stream_methods,
    .tp_getset = stream_getset,
};

int stream_init_type(PyObject *module)
{
    return PyModule_AddType(module, &stream_type);
}
