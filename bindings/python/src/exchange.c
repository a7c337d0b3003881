/* exchange.c - one request with an ASGI application: the coroutine that its task runs.
 *
 *     first step: app(scope, receive, send) ──> each step: the application's coroutine ──> its end: answer what is not
 *
 * It keeps the protocol of coroutines (send, throw, close), so that the task and asyncio take it for one. What the
 * application raises ends here, in the log and in a 500, or in a body that is broken off; what is meant for the loop
 * (CancelledError, KeyboardInterrupt, SystemExit) goes on. */
#include "serve.h"

#include "task.h"

#include <time.h> /* with the Python headers before it: they ask for POSIX */

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

static void exchange_link(struct exchange *self)
{
    struct asgi *asgi = self->asgi;
    self->next = asgi->exchanges;
    if (self->next != NULL) {
        self->next->link = &self->next;
    }
    self->link = &asgi->exchanges;
    asgi->exchanges = self;
    asgi->busy++;
    Py_INCREF(self);
}

struct exchange *exchange_new(struct asgi *asgi, struct iok_call *call, PyObject *scope)
{
    struct exchange *self = PyObject_GC_New(struct exchange, &exchange_type);
    if (self == NULL) {
        return NULL;
    }
    self->next = NULL;
    self->link = NULL;
    self->asgi = (struct asgi *)Py_NewRef((PyObject *)asgi);
    self->call = call;
    self->task = NULL;
    self->scope = Py_NewRef(scope);
    self->coro = NULL;
    self->headers = NULL;
    self->received = self->sent = (struct bell){0};
    self->began_ns = asgi->on_access != NULL ? now_ns() : 0;
    self->lent_bytes = 0;
    self->lent_parts = 0;
    self->held = self->held_error = NULL;
    self->file = -1;
    self->status = 0;
    self->answer = ANSWER_NONE;
    self->socket = SOCKET_NONE;
    self->close_code = 0;
    self->close_reason = NULL;
    self->body_given = self->told_gone = self->gone = false;
    PyObject_GC_Track((PyObject *)self);
    self->task = task_make((PyObject *)self, asgi->port->loop, asgi->task_options);
    if (UNLIKELY(self->task == NULL)) {
        Py_DECREF(self);
        return NULL;
    }
    exchange_link(self);
    return self;
}

void exchange_unlink(struct exchange *self)
{
    if (self->link == NULL) {
        return;
    }
    *self->link = self->next;
    if (self->next != NULL) {
        self->next->link = self->link;
    }
    self->link = NULL;
    self->next = NULL;
    self->asgi->busy--;
    Py_CLEAR(self->task);
    Py_DECREF(self);
}

static int exchange_traverse(PyObject *op, visitproc visit, void *arg)
{
    struct exchange *self = (struct exchange *)op;
    Py_VISIT(self->asgi);
    Py_VISIT(self->task);
    Py_VISIT(self->scope);
    Py_VISIT(self->coro);
    Py_VISIT(self->headers);
    Py_VISIT(self->close_reason);
    Py_VISIT(self->held);
    Py_VISIT(self->held_error);
    int rc = bell_traverse(&self->received, visit, arg);
    return rc != 0 ? rc : bell_traverse(&self->sent, visit, arg);
}

static int exchange_clear(PyObject *op)
{
    struct exchange *self = (struct exchange *)op;
    Py_CLEAR(self->task);
    Py_CLEAR(self->scope);
    Py_CLEAR(self->coro);
    Py_CLEAR(self->headers);
    pathsend_end(self);
    Py_CLEAR(self->close_reason);
    Py_CLEAR(self->held);
    Py_CLEAR(self->held_error);
    bell_clear(&self->received);
    bell_clear(&self->sent);
    return 0;
}

static void exchange_dealloc(PyObject *op)
{
    PyObject_GC_UnTrack(op);
    exchange_clear(op);
    Py_CLEAR(((struct exchange *)op)->asgi);
    PyObject_GC_Del(op);
}

int exchange_launch(struct exchange *self, struct py_port *drain)
{
    PyObject *task = Py_NewRef(self->task); /* which the end of the exchange drops */
    int done = task_launch(task, drain);
    Py_DECREF(task);
    return done;
}

void exchange_release(struct exchange *self)
{
    struct iok_call *call = self->call;
    self->call = NULL;
    if (asgi_give_back(self->asgi, call) < 0) {
        PyErr_WriteUnraisable((PyObject *)self->asgi);
        asgi_replace(self->asgi, call);
    }
}

/* ---- its end ------------------------------------------------------------------------------------------------- */

/* The client is gone, or without that having failed the application takes it for gone, and need not answer. */
static bool exchange_is_gone(const struct exchange *self, PyObject *error)
{
    return self->gone || (error == NULL && self->told_gone) ||
           (self->call != NULL && iok_serve_state(self->call) == IOK_SERVE_GONE);
}

/* Tells the log; error may be NULL. What goes wrong there is nobody's to handle. */
static void exchange_report(const struct exchange *self, PyObject *error)
{
    PyObject *done = PyObject_CallFunctionObjArgs(self->asgi->on_error, self->scope, error != NULL ? error : Py_None,
                                                  exchange_is_gone(self, error) ? Py_True : Py_False, NULL);
    if (done == NULL) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    Py_XDECREF(done);
}

void exchange_report_refused(const struct exchange *self, const struct iok_error *err)
{
    PyObject *error = PyObject_CallFunction(PyExc_ValueError, "s", err->text);
    if (error == NULL) {
        PyErr_Clear();
        return;
    }
    exchange_report(self, error);
    Py_DECREF(error);
}

static void exchange_log_access(const struct exchange *self)
{
    if (LIKELY(self->began_ns == 0)) {
        return;
    }
    double seconds = (double)(now_ns() - self->began_ns) / 1e9;
    PyObject *done = PyObject_CallFunction(self->asgi->on_access, "Oid", self->scope, self->status, seconds);
    if (done == NULL) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    Py_XDECREF(done);
}

/* Answers what the application has not; error is what it raised, or NULL. told: nobody needs to be told. */
static void exchange_complete(struct exchange *self, PyObject *error, bool told)
{
    bool open = self->answer != ANSWER_DONE && !self->gone;
    bool unsaid = open && self->socket < SOCKET_OPEN; /* a WebSocket may just end */
    if ((error != NULL || unsaid) && !told) {
        exchange_report(self, error);
    }
    if (self->gone && self->call != NULL) {
        exchange_release(self);
    } else if (open && self->socket >= SOCKET_OPEN) {
        websocket_finish(self, error != NULL || told);
    } else if (open && self->answer == ANSWER_BODY) {
        answer_break(self, error != NULL ? "the application failed" : "the application ended within the body");
    } else if (open && answer_error(self, 500, "Internal Server Error") < 0) {
        PyErr_WriteUnraisable((PyObject *)self);
        answer_cut(self); /* the kernel says 500 */
    }
    exchange_log_access(self);
}

/* The application's coroutine has given how: what the task sees instead. */
static PySendResult exchange_after(struct exchange *self, PySendResult how, PyObject **result)
{
    if (how == PYGEN_NEXT) {
        return how;
    }
    PyObject *error = NULL;
    bool passes = false, told = false;
    if (UNLIKELY(how == PYGEN_ERROR)) {
        passes = !PyErr_ExceptionMatches(PyExc_Exception); /* CancelledError and others are none */
        told = passes && !(PyErr_ExceptionMatches(core.cancelled_error) && self->task != NULL &&
                           task_of(self->task)->cancels == 0); /* else nobody has asked for that */
        error = fail_take();
    }
    Py_CLEAR(self->coro);
    Py_CLEAR(self->held);
    pathsend_end(self);
    if (UNLIKELY(error != NULL || self->answer != ANSWER_DONE || self->began_ns != 0)) {
        exchange_complete(self, error, told);
    }
    exchange_unlink(self); /* the task holds it */
    if (passes) {
        fail_raise(error);
        return PYGEN_ERROR;
    }
    Py_XDECREF(error);
    Py_XSETREF(*result, Py_NewRef(Py_None));
    return PYGEN_RETURN;
}

/* ---- steps --------------------------------------------------------------------------------------------------- */

/* What is awaited when the application's result is: a coroutine itself, or what __await__ gives. */
static PyObject *awaitable_iterator(PyObject *result)
{
    if (LIKELY(PyCoro_CheckExact(result))) {
        return Py_NewRef(result);
    }
    unaryfunc get = Py_TYPE(result)->tp_as_async == NULL ? NULL : Py_TYPE(result)->tp_as_async->am_await;
    if (get == NULL) {
        PyErr_Format(PyExc_TypeError,
                     "the application returned %.100s where ASGI has a coroutine; for WSGI use --interface wsgi",
                     Py_TYPE(result)->tp_name);
        return NULL;
    }
    return get(result);
}

static int exchange_start(struct exchange *self)
{
    PyObject *receive = channel_receive(self);
    PyObject *send = receive == NULL ? NULL : channel_send(self);
    PyObject *result = NULL;
    if (send != NULL) {
        PyObject *args[] = {NULL, self->scope, receive, send};
        result = PyObject_Vectorcall(self->asgi->app, args + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    Py_XDECREF(receive);
    Py_XDECREF(send);
    if (result == NULL) {
        return -1;
    }
    self->coro = awaitable_iterator(result);
    Py_DECREF(result);
    return self->coro == NULL ? -1 : 0;
}

static PySendResult exchange_step(PyObject *op, PyObject *value, PyObject **result)
{
    struct exchange *self = (struct exchange *)op;
    *result = NULL;
    if (self->link == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    }
    PySendResult how = PYGEN_ERROR;
    if (LIKELY(self->coro != NULL || exchange_start(self) == 0)) {
        PyObject *coro = Py_NewRef(self->coro);
        how = PyIter_Send(coro, value, result);
        Py_DECREF(coro);
    }
    return exchange_after(self, how, result);
}

static PyObject *exchange_send_method(PyObject *op, PyObject *value)
{
    PyObject *result;
    PySendResult how = exchange_step(op, value, &result);
    if (how == PYGEN_RETURN) {
        Py_DECREF(result);
        PyErr_SetNone(PyExc_StopIteration);
        return NULL;
    }
    return result;
}

static PyObject *exchange_next(PyObject *op)
{
    PyObject *result;
    PySendResult how = exchange_step(op, Py_None, &result);
    return reply_of_send(how, result);
}

/* Raises what throw(), in whichever of its forms, was given. */
static void raise_given(PyObject *args)
{
    PyObject *type = PyTuple_GET_ITEM(args, 0);
    PyObject *value = PyTuple_GET_SIZE(args) > 1 ? PyTuple_GET_ITEM(args, 1) : Py_None;
    if (PyExceptionInstance_Check(type)) {
        PyErr_SetObject((PyObject *)Py_TYPE(type), type);
    } else if (PyExceptionClass_Check(type)) {
        PyErr_SetObject(type, value);
    } else {
        PyErr_SetString(PyExc_TypeError, "throw() takes an exception");
    }
}

static PyObject *exchange_throw(PyObject *op, PyObject *args)
{
    struct exchange *self = (struct exchange *)op;
    PyObject *result = NULL;
    if (PyTuple_GET_SIZE(args) == 0) {
        PyErr_SetString(PyExc_TypeError, "throw() takes an exception");
        return NULL;
    }
    if (self->coro == NULL) {
        raise_given(args);
    } else {
        PyObject *method = PyObject_GetAttr(self->coro, from.str_throw);
        result = method == NULL ? NULL : PyObject_CallObject(method, args);
        Py_XDECREF(method);
    }
    PySendResult how = result != NULL ? PYGEN_NEXT : PYGEN_ERROR;
    if (how == PYGEN_ERROR && PyErr_ExceptionMatches(PyExc_StopIteration)) {
        PyErr_Clear();
        how = PYGEN_RETURN;
    }
    if (self->link == NULL) {
        return result;
    }
    if (exchange_after(self, how, &result) == PYGEN_RETURN) {
        Py_DECREF(result);
        PyErr_SetNone(PyExc_StopIteration);
        return NULL;
    }
    return result;
}

static PyObject *exchange_close(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct exchange *self = (struct exchange *)op;
    PyObject *coro = self->coro;
    self->coro = NULL;
    if (coro == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *done = PyObject_CallMethod(coro, "close", NULL);
    Py_DECREF(coro);
    return done;
}

/* ---- news of the kernel -------------------------------------------------------------------------------------- */

/* The client has gone, or the listener: whoever waits hears of it. */
static int exchange_lose_client(struct exchange *self, bool ended, struct py_port *drain)
{
    struct iok_call *call = self->call;
    self->gone = true;
    if (ended) {
        self->call = NULL;
        asgi_lose(self->asgi, call);
    } else if (self->socket != SOCKET_OPEN) { /* else there may be messages still */
        exchange_release(self);
    }
    int told = bell_ring(&self->received, drain);
    return told < 0 ? told : bell_ring(&self->sent, drain);
}

/* The kernel did not take the head of an answer whose body was to follow, and has said nothing to the client. */
static int exchange_refused(struct exchange *self, const struct iok_error *err, struct py_port *drain)
{
    if (drain != NULL) {
        task_settle(drain);
    }
    exchange_report_refused(self, err);
    self->status = 500;
    answer_append_empty(self->call, 500);
    return exchange_lose_client(self, false, drain);
}

int exchange_news(struct exchange *self, struct iok_call *call, struct py_port *drain)
{
    struct iok_error err = {0};
    Py_INCREF(self);
    int told = 0;
    if (iok_call_outcome(call) != IOK_PENDING) {
        told = exchange_lose_client(self, true, drain);
    } else if (iok_serve_state(call) == IOK_SERVE_GONE) {
        told = exchange_lose_client(self, false, drain);
    } else if (UNLIKELY(self->socket != SOCKET_NONE && websocket_is_refused(self))) {
        self->socket = SOCKET_CLOSED;
        told = exchange_lose_client(self, false, drain);
    } else if (UNLIKELY(self->answer == ANSWER_BODY && iok_call_error(call, &err) != 0)) {
        told = exchange_refused(self, &err, drain);
    } else {
        told = bell_ring(&self->received, drain);
    }
    Py_DECREF(self);
    return told;
}

/* ---- the type ------------------------------------------------------------------------------------------------ */

static PyMethodDef exchange_methods[] = {
    {"send", exchange_send_method, METH_O, NULL},
    {"throw", exchange_throw, METH_VARARGS, NULL},
    {"close", exchange_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyAsyncMethods exchange_async = {
    .am_await = PyObject_SelfIter,
    .am_send = exchange_step,
};

PyTypeObject exchange_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "iokernel._core.Exchange",
    .tp_doc = "A request with an ASGI application: the coroutine of its task.",
    .tp_basicsize = sizeof(struct exchange),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_traverse = exchange_traverse,
    .tp_clear = exchange_clear,
    .tp_dealloc = exchange_dealloc,
    .tp_as_async = &exchange_async,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = exchange_next,
    .tp_methods = exchange_methods,
};

int exchange_init_type(PyObject *module)
{
    return PyModule_AddType(module, &exchange_type);
}
