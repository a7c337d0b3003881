/* reply.c - Reply: what a call on an event loop gives, and what a task awaits.
 *
 *     PENDING --value--> RESULT        PENDING --exception--> EXCEPTION        PENDING --cancel()--> CANCELLED
 *
 * It keeps asyncio's protocol for futures (see asyncio.isfuture): gather, wait, wait_for, shield and timeouts take it.
 * While its call is under way the port's list holds a reference; so a call whose Reply was dropped still runs.
 * It is its own iterator. It has no context or loop machinery of its own: the loop is used through its methods. */
#include "core.h"

#include <stddef.h>
#include <string.h>
#include <structmember.h> /* T_BOOL, whose name without this header is younger than Python 3.11 */

/* ---- allocation --------------------------------------------------------------------------------------------- */

/* Replies are as many as calls in flight and live as short: a stack of free ones saves an allocation for each. */
#define FREE_MAX 1024
static struct py_reply *free_replies;
static int n_free;

static struct py_reply *reply_alloc(void)
{
    struct py_reply *self = free_replies;
    if (LIKELY(self != NULL)) {
        free_replies = self->next;
        n_free--;
        _Py_NewReference((PyObject *)self);
    } else {
        self = PyObject_GC_New(struct py_reply, &reply_type);
        if (self == NULL) {
            return NULL;
        }
    }
    return self;
}

struct py_reply *reply_new(struct py_port *port, struct iok_call *call, PyObject *owner)
{
    struct py_reply *self = reply_alloc();
    if (UNLIKELY(self == NULL)) {
        return NULL;
    }
    self->next = NULL;
    self->link = NULL;
    self->port = port;
    self->call = call;
    self->task = NULL;
    self->owner = Py_NewRef(owner);
    self->loop = Py_NewRef(port->loop);
    self->result = NULL;
    self->callback = NULL;
    self->context = NULL;
    self->callbacks = NULL;
    self->weakrefs = NULL;
    self->stamps.submitted = 0;
    self->state = REPLY_PENDING;
    self->want = (struct value_want){.form = VALUE_WHOLE};
    self->blocking = 0;
    self->unseen = false;
    PyObject_GC_Track((PyObject *)self);
    return self;
}

void reply_start(struct py_reply *self)
{
    struct py_port *port = self->port;
    self->next = port->pending;
    if (self->next != NULL) {
        self->next->link = &self->next;
    }
    self->link = &port->pending;
    port->pending = self;
    Py_INCREF(self);
}

/* Out of the port's list. True: the list's reference is the caller's now. */
static bool reply_unlink(struct py_reply *self)
{
    self->call = NULL;
    self->port = NULL;
    if (self->link == NULL) {
        return false;
    }
    *self->link = self->next;
    if (self->next != NULL) {
        self->next->link = self->link;
    }
    self->link = NULL;
    self->next = NULL;
    return true;
}

static int reply_traverse(PyObject *op, visitproc visit, void *arg)
{
    struct py_reply *self = (struct py_reply *)op;
    Py_VISIT(self->task);
    Py_VISIT(self->owner);
    Py_VISIT(self->loop);
    Py_VISIT(self->result);
    Py_VISIT(self->callback);
    Py_VISIT(self->context);
    Py_VISIT(self->callbacks);
    return 0;
}

/* It needs its owner no more. */
static void reply_leave(struct py_reply *self)
{
    PyObject *owner = self->owner;
    self->owner = NULL;
    if (owner != NULL) {
        if (UNLIKELY(Py_IS_TYPE(owner, &stream_type))) {
            stream_forget(owner, self);
        }
        Py_DECREF(owner);
    }
}

static int reply_clear(PyObject *op)
{
    struct py_reply *self = (struct py_reply *)op;
    reply_leave(self);
    Py_CLEAR(self->task);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->result);
    Py_CLEAR(self->callback);
    Py_CLEAR(self->context);
    Py_CLEAR(self->callbacks);
    return 0;
}

/* The loop's exception handler hears of an exception that nobody looked at, as of a Future's. */
static void reply_finalize(PyObject *op)
{
    struct py_reply *self = (struct py_reply *)op;
    if (!self->unseen || self->loop == NULL) {
        return;
    }
    self->unseen = false;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *context = Py_BuildValue("{s:s,s:O,s:O}", "message", "Reply exception was never retrieved", "exception",
                                      self->result, "future", op);
    PyObject *done =
        context == NULL ? NULL : PyObject_CallMethodOneArg(self->loop, core.str_call_exception_handler, context);
    if (done == NULL) {
        PyErr_WriteUnraisable(op);
    }
    Py_XDECREF(context);
    Py_XDECREF(done);
    PyErr_Restore(type, value, traceback);
}

static void reply_dealloc(PyObject *op)
{
    struct py_reply *self = (struct py_reply *)op;
    if (UNLIKELY(self->unseen) && PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    PyObject_GC_UnTrack(op);
    if (UNLIKELY(self->weakrefs != NULL)) {
        PyObject_ClearWeakRefs(op);
    }
    reply_clear(op);
    if (n_free < FREE_MAX && !PyObject_GC_IsFinalized(op)) { /* that mark would stay, and the next life lack its end */
        self->next = free_replies;
        free_replies = self;
        n_free++;
    } else {
        PyObject_GC_Del(op);
    }
}

/* ---- ending ------------------------------------------------------------------------------------------------- */

static int reply_call_soon(struct py_reply *self, PyObject *callback, PyObject *context)
{
    PyObject *args[4] = {self->loop, callback, (PyObject *)self, context};
    PyObject *handle = PyObject_VectorcallMethod(core.str_call_soon, args, 3, core.names_context);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}

/* Says that a callback could not be called or scheduled; swallows all but KeyboardInterrupt and SystemExit. */
static int reply_trouble(struct py_reply *self)
{
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit)) {
        return -1;
    }
    PyObject *exception = fail_take();
    PyObject *context = Py_BuildValue("{s:s,s:O,s:O}", "message", "Exception in a callback of a Reply", "exception",
                                      exception, "future", self);
    PyObject *done =
        context == NULL ? NULL : PyObject_CallMethodOneArg(self->loop, core.str_call_exception_handler, context);
    if (done == NULL) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    Py_XDECREF(done);
    Py_XDECREF(context);
    Py_XDECREF(exception);
    return 0;
}

/* The callback by which the C Task has itself woken: a builtin method of the task. */
static bool is_task_wakeup(PyObject *callback)
{
    static const PyMethodDef *wakeup;
    if (!PyCFunction_CheckExact(callback)) {
        return false;
    }
    const PyMethodDef *def = ((PyCFunctionObject *)callback)->m_ml;
    if (UNLIKELY(def != wakeup)) {
        if (strcmp(def->ml_name, "task_wakeup") != 0) {
            return false;
        }
        wakeup = def;
    }
    return PyObject_TypeCheck(PyCFunction_GET_SELF(callback), (PyTypeObject *)core.task_type);
}

/* Resumes the task here and now, in its own context: 1, or 0 if that is not possible, or -1 as reply_end. */
static int reply_resume(struct py_reply *self, PyObject *callback, PyObject *context)
{
    if (!is_task_wakeup(callback)) {
        return 0;
    }
    if (UNLIKELY(PyContext_Enter(context) < 0)) { /* entered already, further down the stack */
        PyErr_Clear();
        return 0;
    }
    PyObject *done = PyObject_CallOneArg(callback, (PyObject *)self);
    if (LIKELY(done != NULL)) {
        Py_DECREF(done);
        return PyContext_Exit(context) < 0 ? -1 : 1;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    int left = PyContext_Exit(context);
    if (left < 0) {
        PyErr_Clear();
    }
    PyErr_Restore(type, value, traceback);
    return reply_trouble(self) < 0 ? -1 : 1;
}

static int reply_tell_rest(struct py_reply *self)
{
    PyObject *rest = self->callbacks;
    self->callbacks = NULL;
    int result = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(rest); i++) {
        PyObject *pair = PyList_GET_ITEM(rest, i);
        if (reply_call_soon(self, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1)) < 0 &&
            reply_trouble(self) < 0) {
            result = -1;
            break;
        }
    }
    Py_DECREF(rest);
    return result;
}

static int reply_tell(struct py_reply *self, struct py_port *drain)
{
    PyObject *task = self->task;
    if (LIKELY(task != NULL)) {
        self->task = NULL;
        int woken = task_wake(task, self, drain) < 0 ? reply_trouble(self) : 0;
        Py_DECREF(task);
        if (UNLIKELY(woken < 0)) {
            return -1;
        }
    }
    PyObject *callback = self->callback;
    PyObject *context = self->context;
    if (callback == NULL) {
        return 0; /* then there are no further ones either */
    }
    self->callback = NULL;
    self->context = NULL;
    int result = 0;
    if (drain != NULL && self->callbacks == NULL) {
        task_settle(drain);
        result = reply_resume(self, callback, context);
    }
    if (result == 0 && reply_call_soon(self, callback, context) < 0) {
        result = reply_trouble(self);
    }
    Py_DECREF(callback);
    Py_DECREF(context);
    if (self->callbacks != NULL && result >= 0) {
        result = reply_tell_rest(self);
    }
    return result < 0 ? -1 : 0;
}

int reply_end(struct py_reply *self, PyObject *value, struct py_port *drain)
{
    if (LIKELY(value != NULL)) {
        self->state = REPLY_RESULT;
        self->result = value;
    } else {
        self->state = REPLY_EXCEPTION;
        self->result = fail_take();
        self->unseen = true;
    }
    bool held = reply_unlink(self);
    reply_leave(self);
    int result = reply_tell(self, drain);
    if (held) {
        Py_DECREF(self);
    }
    return result;
}

int reply_complete(struct py_reply *self, struct iok_call *call, struct py_port *drain)
{
    if (UNLIKELY(self->want.decoders != NULL && drain != NULL)) {
        task_settle(drain);
    }
    PyObject *value = value_of_call(call, self->want);
    iok_call_stamps(call, &self->stamps);
    iok_call_free(call);
    return reply_end(self, value, drain);
}

void reply_orphan(struct py_reply *self)
{
    self->state = REPLY_CANCELLED;
    if (reply_unlink(self)) {
        Py_DECREF(self);
    }
}

/* ---- asyncio's protocol for futures ------------------------------------------------------------------------- */

static PyObject *reply_make_cancelled_error(PyObject *op, PyObject *Py_UNUSED(unused))
{
    const struct py_reply *self = (const struct py_reply *)op;
    if (self->result == NULL || self->result == Py_None) {
        return PyObject_CallNoArgs(core.cancelled_error);
    }
    return PyObject_CallOneArg(core.cancelled_error, self->result);
}

static void reply_raise_cancelled(struct py_reply *self)
{
    PyObject *exception = reply_make_cancelled_error((PyObject *)self, NULL);
    if (exception != NULL) {
        fail_raise(exception);
    }
}

/* The value, or NULL with the exception; for what is not pending. */
static PyObject *reply_take(struct py_reply *self)
{
    if (LIKELY(self->state == REPLY_RESULT)) {
        return Py_NewRef(self->result);
    }
    if (self->state == REPLY_EXCEPTION) {
        self->unseen = false;
        fail_raise(Py_NewRef(self->result));
    } else {
        reply_raise_cancelled(self);
    }
    return NULL;
}

static PyObject *reply_result(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct py_reply *self = (struct py_reply *)op;
    if (UNLIKELY(self->state == REPLY_PENDING)) {
        PyErr_SetString(core.invalid_state_error, "Result is not ready.");
        return NULL;
    }
    return reply_take(self);
}

static PyObject *reply_exception(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct py_reply *self = (struct py_reply *)op;
    switch (self->state) {
    case REPLY_PENDING:
        PyErr_SetString(core.invalid_state_error, "Exception is not set.");
        return NULL;
    case REPLY_CANCELLED:
        reply_raise_cancelled(self);
        return NULL;
    case REPLY_EXCEPTION:
        self->unseen = false;
        return Py_NewRef(self->result);
    default:
        Py_RETURN_NONE;
    }
}

static PyObject *reply_done(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(((struct py_reply *)op)->state != REPLY_PENDING);
}

static PyObject *reply_cancelled(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(((struct py_reply *)op)->state == REPLY_CANCELLED);
}

static PyObject *reply_get_loop(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return Py_NewRef(((struct py_reply *)op)->loop);
}

static PyObject *reply_cancel(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static const char *names[] = {"msg", NULL};
    struct py_reply *self = (struct py_reply *)op;
    PyObject *message = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:cancel", (char **)names, &message)) {
        return NULL;
    }
    self->unseen = false;
    if (self->state != REPLY_PENDING) {
        Py_RETURN_FALSE;
    }
    struct iok_call *call = self->call;
    if (self->port != NULL && self->port->generation != core.generation) {
        call = NULL; /* the parent's: it ends here alone, as when a task of the inherited loop is cancelled */
    } else if (self->port != NULL && !port_usable(self->port)) {
        port_refuse(self->port);
        return NULL;
    }
    self->state = REPLY_CANCELLED;
    self->result = Py_NewRef(message);
    bool held = reply_unlink(self);
    if (call != NULL) {
        iok_abandon(call);
    }
    reply_leave(self);
    int told = reply_tell(self, false);
    if (held) {
        Py_DECREF(self);
    }
    if (told < 0) {
        return NULL;
    }
    Py_RETURN_TRUE;
}

int reply_add(struct py_reply *self, PyObject *callback, PyObject *context)
{
    int result = 0;
    if (self->state != REPLY_PENDING) {
        result = reply_call_soon(self, callback, context);
        Py_DECREF(context);
    } else if (LIKELY(self->callback == NULL)) {
        self->callback = Py_NewRef(callback);
        self->context = context;
    } else {
        PyObject *pair = PyTuple_Pack(2, callback, context);
        Py_DECREF(context);
        if (self->callbacks == NULL) {
            self->callbacks = PyList_New(0);
        }
        result = pair == NULL || self->callbacks == NULL ? -1 : PyList_Append(self->callbacks, pair);
        Py_XDECREF(pair);
    }
    return result;
}

static PyObject *reply_add_done_callback(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    Py_ssize_t n_names = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (nargs != 1 || n_names > 1) {
        PyErr_SetString(PyExc_TypeError, "add_done_callback() takes a callable and optionally context=");
        return NULL;
    }
    PyObject *context = NULL;
    if (n_names == 1) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, 0);
        if (name != core.str_context && PyUnicode_CompareWithASCIIString(name, "context") != 0) {
            PyErr_Format(PyExc_TypeError, "add_done_callback() got an unexpected keyword argument '%U'", name);
            return NULL;
        }
        context = args[1];
    }
    if (context == NULL || context == Py_None) {
        context = PyContext_CopyCurrent();
    } else {
        Py_INCREF(context);
    }
    if (context == NULL || reply_add((struct py_reply *)op, args[0], context) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* All callbacks as a list of pairs, taken out of the reply. */
static PyObject *reply_take_callbacks(struct py_reply *self)
{
    PyObject *all = PyList_New(0);
    if (all == NULL || self->callback == NULL) {
        return all;
    }
    PyObject *first = PyTuple_Pack(2, self->callback, self->context);
    int failed = first == NULL ? -1 : PyList_Append(all, first);
    Py_XDECREF(first);
    if (failed == 0 && self->callbacks != NULL) {
        failed = PyList_SetSlice(all, 1, 1, self->callbacks);
    }
    if (failed < 0) {
        Py_DECREF(all);
        return NULL;
    }
    Py_CLEAR(self->callback);
    Py_CLEAR(self->context);
    Py_CLEAR(self->callbacks);
    return all;
}

static PyObject *reply_remove_done_callback(PyObject *op, PyObject *callback)
{
    struct py_reply *self = (struct py_reply *)op;
    PyObject *all = reply_take_callbacks(self);
    if (all == NULL) {
        return NULL;
    }
    long removed = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(all); i++) {
        PyObject *pair = PyList_GET_ITEM(all, i);
        int equal = PyObject_RichCompareBool(PyTuple_GET_ITEM(pair, 0), callback, Py_EQ);
        if (equal > 0) {
            removed++;
        } else if (equal < 0 || reply_add(self, PyTuple_GET_ITEM(pair, 0), Py_NewRef(PyTuple_GET_ITEM(pair, 1))) < 0) {
            Py_DECREF(all);
            return NULL;
        }
    }
    Py_DECREF(all);
    return PyLong_FromLong(removed);
}

/* ---- awaiting ----------------------------------------------------------------------------------------------- */

static PySendResult reply_send(PyObject *op, PyObject *Py_UNUSED(value), PyObject **result)
{
    struct py_reply *self = (struct py_reply *)op;
    if (self->state == REPLY_PENDING) {
        self->blocking = 1;
        *result = Py_NewRef(op);
        return PYGEN_NEXT;
    }
    *result = reply_take(self);
    return LIKELY(*result != NULL) ? PYGEN_RETURN : PYGEN_ERROR;
}

PyObject *reply_of_send(PySendResult how, PyObject *result)
{
    switch (how) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN:
        if (result != Py_None) { /* None: ending without an exception says it */
            PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
            if (stop != NULL) {
                fail_raise(stop);
            }
        }
        Py_DECREF(result);
        return NULL;
    default:
        return NULL;
    }
}

static PyObject *reply_next(PyObject *op)
{
    PyObject *result;
    PySendResult how = reply_send(op, NULL, &result);
    return reply_of_send(how, result);
}

static PyObject *reply_self(PyObject *op)
{
    return Py_NewRef(op);
}

/* ---- attributes --------------------------------------------------------------------------------------------- */

static PyObject *reply_stamps(PyObject *op, void *Py_UNUSED(closure))
{
    const struct iok_stamps *s = &((struct py_reply *)op)->stamps;
    if (s->submitted == 0) {
        Py_RETURN_NONE;
    }
    return Py_BuildValue("{sKsKsKsKsKsK}", "submitted", s->submitted, "taken", s->taken, "sent", s->sent, "first_byte",
                         s->first_byte, "complete", s->complete, "picked_up", s->picked_up);
}

static PyObject *reply_loop(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(((struct py_reply *)op)->loop);
}

static PyObject *reply_log_traceback(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((struct py_reply *)op)->unseen);
}

static int reply_set_log_traceback(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    if (value != Py_False) {
        PyErr_SetString(PyExc_ValueError, "_log_traceback can only be set to False");
        return -1;
    }
    ((struct py_reply *)op)->unseen = false;
    return 0;
}

static PyObject *reply_cancel_message(PyObject *op, void *Py_UNUSED(closure))
{
    const struct py_reply *self = (const struct py_reply *)op;
    return Py_NewRef(self->state == REPLY_CANCELLED && self->result != NULL ? self->result : Py_None);
}

static PyObject *reply_repr(PyObject *op)
{
    static const char *const names[] = {
        [REPLY_PENDING] = "pending",
        [REPLY_RESULT] = "finished",
        [REPLY_EXCEPTION] = "failed",
        [REPLY_CANCELLED] = "cancelled",
    };
    const struct py_reply *self = (const struct py_reply *)op;
    if (self->state == REPLY_EXCEPTION) {
        return PyUnicode_FromFormat("<iokernel Reply failed: %s>", Py_TYPE(self->result)->tp_name);
    }
    return PyUnicode_FromFormat("<iokernel Reply %s>", names[self->state]);
}

static PyMethodDef reply_methods[] = {
    {"result", reply_result, METH_NOARGS, "result()\n--\n\nThe value, or raises the call's exception."},
    {"exception", reply_exception, METH_NOARGS, "exception()\n--\n\nThe call's exception, or None."},
    {"done", reply_done, METH_NOARGS, "done()\n--\n\nTrue once it has ended or was cancelled."},
    {"cancelled", reply_cancelled, METH_NOARGS, "cancelled()\n--\n\nTrue if it was cancelled."},
    {"cancel", (PyCFunction)(void (*)(void))reply_cancel, METH_VARARGS | METH_KEYWORDS,
     "cancel(msg=None)\n--\n\nEnd it now; its call is taken back, or its reply swallowed."},
    {"get_loop", reply_get_loop, METH_NOARGS, "get_loop()\n--\n\nThe event loop that it belongs to."},
    {"add_done_callback", (PyCFunction)(void (*)(void))reply_add_done_callback, METH_FASTCALL | METH_KEYWORDS,
     "add_done_callback(fn, /, *, context=None)\n--\n\nHave the loop call fn(self) once it has ended."},
    {"remove_done_callback", reply_remove_done_callback, METH_O,
     "remove_done_callback(fn, /)\n--\n\nRemove fn; returns how often it was there."},
    {"_make_cancelled_error", reply_make_cancelled_error, METH_NOARGS, NULL},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef reply_members[] = {
    {"_asyncio_future_blocking", T_BOOL, offsetof(struct py_reply, blocking), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef reply_getset[] = {
    {"stamps", reply_stamps, NULL,
     "When it was submitted, taken, sent, first answered, complete and picked up: monotonic nanoseconds, 0 for a stage "
     "that was not reached; None while pending.",
     NULL},
    {"_loop", reply_loop, NULL, NULL, NULL},
    {"_log_traceback", reply_log_traceback, reply_set_log_traceback, NULL, NULL},
    {"_cancel_message", reply_cancel_message, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyAsyncMethods reply_async = {
    .am_await = reply_self,
    .am_send = reply_send,
};

PyTypeObject reply_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "iokernel._core.Reply",
    .tp_doc = "The reply of a call that was made on an event loop: await it.",
    .tp_basicsize = sizeof(struct py_reply),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_traverse = reply_traverse,
    .tp_clear = reply_clear,
    .tp_dealloc = reply_dealloc,
    .tp_finalize = reply_finalize,
    .tp_weaklistoffset = offsetof(struct py_reply, weakrefs),
    .tp_as_async = &reply_async,
    .tp_iter = reply_self,
    .tp_iternext = reply_next,
    .tp_repr = reply_repr,
    .tp_methods = reply_methods,
    .tp_members = reply_members,
    .tp_getset = reply_getset,
};

int reply_init_type(PyObject *module)
{
    return PyModule_AddType(module, &reply_type);
}
