/* task.c - Task: an asyncio.Task that a Reply resumes without a detour.
 *
 *     call_soon ──> step ──> runs its coroutine ──> awaits a Reply: its completion, in a drain, runs the next step at once
 *                    ^                          └─> awaits another future, or None: step comes by the loop
 *                    └──────────────────────────────┘
 *
 * It is a subclass of the C asyncio.Task of which only the part that it shares with Future is used: result, callbacks,
 * tracebacks. What drives the coroutine is here, as asyncio.Task's own steps cannot be called from outside, and goes
 * through a bound method, two attributes and three look-ups for each await of a foreign future. Tasks of both kinds
 * live side by side. The base's fields of its own stay empty, so whatever reads them is overridden.
 *
 * Invariants: while a Reply is its waiter and pending, that Reply refers back to it (reply->task), or has its step among
 * its callbacks. One step at a time: the loop's current task is entered and left in task_run only. */
#include "core.h"

#include <stdalign.h>
#include <string.h>

struct task {
    PyObject *coro, *context, *loop;
    PyObject *waiter;         /* what it awaits: a Reply or any future; NULL when a step is scheduled or running */
    PyObject *step;           /* its bound method _step, made once; NULL after the end, as it refers back */
    PyObject *name;           /* NULL: made from number when asked for */
    PyObject *cancel_message; /* of the last cancel() */
    PyObject *cancelled;      /* the CancelledError that ended the coroutine, until it is raised to somebody */
    unsigned long number;
    long cancels; /* cancel() without uncancel() */
    bool must_cancel, done, log_destroy;
};

static PyTypeObject *task_base, *task_type;
static Py_ssize_t task_offset; /* of struct task, behind the base's fields */
static unsigned long task_numbers;

/* From asyncio. */
static struct {
    PyObject *future_cancel, *future_set_result, *future_set_exception, *future_result, *future_exception;
    PyObject *register_task, *enter_task, *leave_task, *iscoroutine;
    PyObject *str_blocking, *str_result, *str_throw, *str_cancel, *str_add_done_callback, *str_get_loop;
    PyObject *names_msg; /* ("msg",) */
} from;

static struct task *task_of(PyObject *op)
{
    return (struct task *)((char *)op + task_offset);
}

/* ---- scheduling --------------------------------------------------------------------------------------------- */

/* Has the loop call _step(argument), or _step(). 0 or -1. */
static int task_soon(const struct task *self, PyObject *argument)
{
    PyObject *args[] = {self->loop, self->step, argument, NULL};
    args[argument == NULL ? 2 : 3] = self->context;
    PyObject *handle =
        PyObject_VectorcallMethod(core.str_call_soon, args, argument == NULL ? 2 : 3, core.names_context);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}

/* Has the error thrown into the coroutine by the next step. */
static int task_error_soon(const struct task *self, PyObject *type, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    PyErr_FormatV(type, format, args);
    va_end(args);
    PyObject *error = fail_take();
    int done = task_soon(self, error);
    Py_XDECREF(error);
    return done;
}

static int task_enter(PyObject *op, const struct task *self)
{
    if (UNLIKELY(core.current_tasks == NULL)) {
        PyObject *done = PyObject_CallFunctionObjArgs(from.enter_task, self->loop, op, NULL);
        Py_XDECREF(done);
        return done == NULL ? -1 : 0;
    }
    PyObject *current = PyDict_SetDefault(core.current_tasks, self->loop, op); /* borrowed */
    if (LIKELY(current == op)) {
        return 0;
    }
    if (current == Py_None) {
        return PyDict_SetItem(core.current_tasks, self->loop, op);
    }
    if (current != NULL) {
        PyErr_Format(PyExc_RuntimeError, "Cannot enter into task %R while another task %R is being executed.", op,
                     current);
    }
    return -1;
}

/* Undoes task_enter; leaves the current exception as it is. */
static void task_leave(PyObject *op, const struct task *self)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (UNLIKELY(core.current_tasks == NULL)) {
        PyObject *done = PyObject_CallFunctionObjArgs(from.leave_task, self->loop, op, NULL);
        Py_XDECREF(done);
    } else {
        (void)PyDict_DelItem(core.current_tasks, self->loop);
    }
    PyErr_Clear(); /* the coroutine ended a task that was not its own: there is nobody to tell */
    PyErr_Restore(type, value, traceback);
}

/* ---- the end ------------------------------------------------------------------------------------------------ */

static PyObject *task_make_cancelled(struct task *self)
{
    PyObject *error = self->cancelled;
    if (error != NULL) {
        self->cancelled = NULL;
        return error;
    }
    return self->cancel_message == NULL ? PyObject_CallNoArgs(core.cancelled_error)
                                        : PyObject_CallOneArg(core.cancelled_error, self->cancel_message);
}

/* Calls a function of Future on the task; argument may be NULL. */
static int task_as_future(PyObject *op, PyObject *function, PyObject *argument)
{
    PyObject *args[] = {op, argument};
    PyObject *done = PyObject_Vectorcall(function, args, argument == NULL ? 1 : 2, NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static int task_end_cancelled(PyObject *op, struct task *self)
{
    self->done = true;
    Py_CLEAR(self->step);
    return task_as_future(op, from.future_cancel, self->cancel_message);
}

static int task_end_value(PyObject *op, struct task *self, PyObject *value)
{
    if (UNLIKELY(self->must_cancel)) {
        self->must_cancel = false;
        return task_end_cancelled(op, self);
    }
    self->done = true;
    Py_CLEAR(self->step);
    return task_as_future(op, from.future_set_result, value);
}

/* With the current exception. KeyboardInterrupt and SystemExit go on to the loop. */
static int task_end_error(PyObject *op, struct task *self)
{
    bool passes = PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit);
    bool cancelled = PyErr_ExceptionMatches(core.cancelled_error);
    PyObject *error = fail_take();
    int result;
    if (cancelled) {
        Py_XSETREF(self->cancelled, Py_NewRef(error));
        result = task_end_cancelled(op, self);
    } else {
        self->done = true;
        Py_CLEAR(self->step);
        result = task_as_future(op, from.future_set_exception, error);
    }
    if (passes && result == 0) {
        fail_raise(error);
        return -1;
    }
    Py_DECREF(error);
    return result;
}

/* ---- what the coroutine awaits ------------------------------------------------------------------------------ */

/* It waits for something now; a cancel() that came before goes there. */
static int task_waits(struct task *self)
{
    if (LIKELY(!self->must_cancel)) {
        return 0;
    }
    PyObject *args[] = {self->waiter, self->cancel_message};
    PyObject *done =
        PyObject_VectorcallMethod(from.str_cancel, args, 1, self->cancel_message == NULL ? NULL : from.names_msg);
    int yes = done == NULL ? -1 : PyObject_IsTrue(done);
    Py_XDECREF(done);
    self->must_cancel = yes == 0;
    return yes < 0 ? -1 : 0;
}

static int task_await_reply(PyObject *op, struct task *self, struct py_reply *reply)
{
    if (UNLIKELY(reply->loop != self->loop)) {
        return task_error_soon(self, PyExc_RuntimeError, "Task %R got Future %R attached to a different loop", op,
                               reply);
    }
    if (UNLIKELY(!reply->blocking)) {
        return task_error_soon(self, PyExc_RuntimeError, "yield was used instead of yield from in task %R with %R", op,
                               reply);
    }
    reply->blocking = 0;
    if (LIKELY(reply->state == REPLY_PENDING && reply->task == NULL)) {
        reply->task = Py_NewRef(op);
    } else if (reply_add(reply, self->step, Py_NewRef(self->context)) < 0) {
        return -1;
    }
    Py_XSETREF(self->waiter, Py_NewRef((PyObject *)reply));
    return task_waits(self);
}

/* The future's loop by its methods, as asyncio finds it: 1 the task's own, 0 another, -1. */
static int task_is_of_loop(const struct task *self, PyObject *future)
{
    PyObject *loop = PyObject_CallMethodNoArgs(future, from.str_get_loop);
    if (loop == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        loop = PyObject_GetAttrString(future, "_loop");
    }
    if (loop == NULL) {
        return -1;
    }
    Py_DECREF(loop);
    return loop == self->loop;
}

static int task_await_future(PyObject *op, struct task *self, PyObject *future, int blocking)
{
    int mine = task_is_of_loop(self, future);
    if (mine < 0) {
        return -1;
    }
    if (mine == 0) {
        return task_error_soon(self, PyExc_RuntimeError, "Task %R got Future %R attached to a different loop", op,
                               future);
    }
    if (blocking == 0) {
        return task_error_soon(self, PyExc_RuntimeError, "yield was used instead of yield from in task %R with %R", op,
                               future);
    }
    if (PyObject_SetAttr(future, from.str_blocking, Py_False) < 0) {
        return -1;
    }
    PyObject *args[] = {future, self->step, self->context};
    PyObject *done = PyObject_VectorcallMethod(from.str_add_done_callback, args, 2, core.names_context);
    if (done == NULL) {
        return -1;
    }
    Py_DECREF(done);
    Py_XSETREF(self->waiter, Py_NewRef(future));
    return task_waits(self);
}

static int task_await(PyObject *op, struct task *self, PyObject *what)
{
    if (LIKELY(Py_IS_TYPE(what, &reply_type))) {
        return task_await_reply(op, self, (struct py_reply *)what);
    }
    if (what == Py_None) { /* sleep(0) */
        return task_soon(self, NULL);
    }
    if (what == op) {
        return task_error_soon(self, PyExc_RuntimeError, "Task cannot await on itself: %R", op);
    }
    PyObject *blocking = PyObject_GetAttr(what, from.str_blocking);
    if (blocking == NULL && !PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return -1;
    }
    PyErr_Clear();
    if (blocking != NULL && blocking != Py_None) {
        int yes = PyObject_IsTrue(blocking);
        Py_DECREF(blocking);
        return yes < 0 ? -1 : task_await_future(op, self, what, yes);
    }
    Py_XDECREF(blocking);
    if (PyGen_CheckExact(what)) {
        return task_error_soon(self, PyExc_RuntimeError,
                               "yield was used instead of yield from for generator in task %R with %R", op, what);
    }
    return task_error_soon(self, PyExc_RuntimeError, "Task got bad yield: %R", what);
}

/* ---- steps -------------------------------------------------------------------------------------------------- */

/* As PyIter_Send, but throws. */
static PySendResult task_throw(const struct task *self, PyObject *error, PyObject **result)
{
    *result = PyObject_CallMethodOneArg(self->coro, from.str_throw, error);
    if (*result != NULL) {
        return PYGEN_NEXT;
    }
    if (!PyErr_ExceptionMatches(PyExc_StopIteration)) {
        return PYGEN_ERROR;
    }
    PyObject *stop = fail_take();
    *result = PyObject_GetAttrString(stop, "value");
    Py_DECREF(stop);
    return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
}

/* Runs the coroutine, in its context, to where it waits or ends. error is thrown in; NULL: none; taken over. 0, or -1
 * with an exception for the loop. */
static int task_run(PyObject *op, PyObject *error)
{
    struct task *self = task_of(op);
    PyObject *result = NULL;
    if (UNLIKELY(self->done)) {
        PyErr_Format(core.invalid_state_error, "__step(): already done: %R %R", op, error == NULL ? Py_None : error);
        Py_XDECREF(error);
        return -1;
    }
    if (UNLIKELY(self->must_cancel)) {
        self->must_cancel = false;
        if (error == NULL || !PyErr_GivenExceptionMatches(error, core.cancelled_error)) {
            Py_XSETREF(error, task_make_cancelled(self));
            if (error == NULL) {
                return -1;
            }
        }
    }
    Py_CLEAR(self->waiter);
    if (UNLIKELY(task_enter(op, self) < 0)) {
        Py_XDECREF(error);
        return -1;
    }
    PySendResult how =
        LIKELY(error == NULL) ? PyIter_Send(self->coro, Py_None, &result) : task_throw(self, error, &result);
    task_leave(op, self);
    Py_XDECREF(error);
    int done = how == PYGEN_NEXT     ? task_await(op, self, result)
               : how == PYGEN_RETURN ? task_end_value(op, self, result)
                                     : task_end_error(op, self);
    Py_XDECREF(result);
    return done;
}

/* _step(), _step(future that it waited for), _step(exception to throw). The loop calls it in the task's context. */
static PyObject *task_step(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *error = NULL;
    if (nargs > 0 && PyExceptionInstance_Check(args[0])) {
        error = Py_NewRef(args[0]);
    } else if (nargs > 0 && !Py_IS_TYPE(args[0], &reply_type)) { /* a Reply raises by itself when it is sent to */
        PyObject *value = PyObject_CallMethodNoArgs(args[0], from.str_result);
        error = value == NULL ? fail_take() : NULL;
        Py_XDECREF(value);
    }
    Py_INCREF(op);
    int done = task_run(op, error);
    Py_DECREF(op);
    if (done < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

int task_wake(PyObject *op, struct py_reply *reply, bool inline_task)
{
    struct task *self = task_of(op);
    if (UNLIKELY(self->done)) {
        return 0;
    }
    if (UNLIKELY(!inline_task)) {
        return task_soon(self, (PyObject *)reply);
    }
    if (UNLIKELY(PyContext_Enter(self->context) < 0)) { /* entered already, further down the stack */
        PyErr_Clear();
        return task_soon(self, (PyObject *)reply);
    }
    int done = task_run(op, NULL);
    PyObject *type, *value, *traceback;
    if (LIKELY(done == 0)) {
        return PyContext_Exit(self->context);
    }
    PyErr_Fetch(&type, &value, &traceback);
    (void)PyContext_Exit(self->context);
    PyErr_Restore(type, value, traceback);
    return -1;
}

/* ---- making one --------------------------------------------------------------------------------------------- */

/* The first step now, within the task that makes this one. */
static int task_start_eagerly(PyObject *op, struct task *self)
{
    PyObject *outer = NULL;
    if (core.current_tasks == NULL) {
        return task_soon(self, NULL);
    }
    outer = PyDict_GetItemWithError(core.current_tasks, self->loop);
    if (PyErr_Occurred()) {
        return -1;
    }
    Py_XINCREF(outer);
    if (outer != NULL && PyDict_DelItem(core.current_tasks, self->loop) < 0) {
        Py_DECREF(outer);
        return -1;
    }
    int done = PyContext_Enter(self->context);
    if (done == 0) {
        done = task_run(op, NULL);
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        (void)PyContext_Exit(self->context);
        if (outer != NULL) {
            (void)PyDict_SetItem(core.current_tasks, self->loop, outer);
        }
        PyErr_Restore(type, value, traceback);
    }
    Py_XDECREF(outer);
    return done;
}

static int task_begin(PyObject *op, struct task *self, PyObject *eager)
{
    static PyMethodDef step_def = {"task_step", (PyCFunction)(void (*)(void))task_step, METH_FASTCALL, NULL};
    PyObject *registered = PyObject_CallOneArg(from.register_task, op);
    Py_XDECREF(registered);
    self->step = registered == NULL ? NULL : PyCFunction_New(&step_def, op);
    if (self->step == NULL) {
        return -1;
    }
    int now = PyObject_IsTrue(eager);
    if (now > 0) {
        PyObject *running = PyObject_CallNoArgs(core.running_loop_object);
        now = running == self->loop;
        Py_XDECREF(running);
        PyErr_Clear();
    }
    return now < 0 ? -1 : now > 0 ? task_start_eagerly(op, self) : task_soon(self, NULL);
}

static int task_is_coroutine(PyObject *coro)
{
    if (LIKELY(PyCoro_CheckExact(coro))) {
        return 1;
    }
    PyObject *yes = PyObject_CallOneArg(from.iscoroutine, coro);
    int result = yes == NULL ? -1 : PyObject_IsTrue(yes);
    Py_XDECREF(yes);
    return result;
}

/* Future.__init__(loop=loop) */
static int task_init_future(PyObject *op, PyObject *loop)
{
    PyTypeObject *future = task_base->tp_base;
    PyObject *none = PyTuple_New(0);
    PyObject *kwargs = none == NULL ? NULL : Py_BuildValue("{s:O}", "loop", loop);
    int done = kwargs == NULL ? -1 : future->tp_init(op, none, kwargs);
    Py_XDECREF(none);
    Py_XDECREF(kwargs);
    return done;
}

static int task_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static const char *names[] = {"coro", "loop", "name", "context", "eager_start", NULL};
    struct task *self = task_of(op);
    PyObject *coro, *loop = Py_None, *name = Py_None, *context = Py_None, *eager = Py_False;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OOOO:Task", (char **)names, &coro, &loop, &name, &context,
                                     &eager) ||
        task_init_future(op, loop) < 0) {
        return -1;
    }
    int yes = task_is_coroutine(coro);
    if (yes <= 0) {
        self->log_destroy = false;
        if (yes == 0) {
            PyErr_Format(PyExc_TypeError, "a coroutine was expected, got %R", coro);
        }
        return -1;
    }
    PyObject *own = PyObject_CallMethodNoArgs(op, from.str_get_loop);
    if (own == NULL) {
        return -1;
    }
    Py_XSETREF(self->loop, own);
    Py_XSETREF(self->coro, Py_NewRef(coro));
    Py_XSETREF(self->context, context == Py_None ? PyContext_CopyCurrent() : Py_NewRef(context));
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->cancel_message);
    Py_CLEAR(self->cancelled);
    self->must_cancel = self->done = false;
    self->cancels = 0;
    self->log_destroy = true;
    self->number = ++task_numbers;
    Py_XSETREF(self->name, name == Py_None ? NULL : PyObject_Str(name));
    if (self->context == NULL || (name != Py_None && self->name == NULL)) {
        return -1;
    }
    return task_begin(op, self, eager);
}

static int task_traverse(PyObject *op, visitproc visit, void *arg)
{
    struct task *self = task_of(op);
    if (!PyType_HasFeature(task_base, Py_TPFLAGS_HEAPTYPE)) { /* else the base's visits it */
        Py_VISIT(Py_TYPE(op));
    }
    Py_VISIT(self->coro);
    Py_VISIT(self->context);
    Py_VISIT(self->loop);
    Py_VISIT(self->waiter);
    Py_VISIT(self->step);
    Py_VISIT(self->name);
    Py_VISIT(self->cancel_message);
    Py_VISIT(self->cancelled);
    return task_base->tp_traverse(op, visit, arg);
}

static void task_clear_own(PyObject *op)
{
    struct task *self = task_of(op);
    Py_CLEAR(self->coro);
    Py_CLEAR(self->context);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->step);
    Py_CLEAR(self->name);
    Py_CLEAR(self->cancel_message);
    Py_CLEAR(self->cancelled);
}

static int task_clear(PyObject *op)
{
    task_clear_own(op);
    return task_base->tp_clear(op);
}

static void task_finalize(PyObject *op)
{
    struct task *self = task_of(op);
    PyObject *type, *value, *traceback;
    if (self->loop != NULL && !self->done && self->log_destroy) {
        PyErr_Fetch(&type, &value, &traceback);
        PyObject *context = Py_BuildValue("{s:O,s:s}", "task", op, "message", "Task was destroyed but it is pending!");
        PyObject *source = PyObject_GetAttrString(op, "_source_traceback");
        if (context != NULL && source != NULL && source != Py_None) {
            (void)PyDict_SetItemString(context, "source_traceback", source);
        }
        Py_XDECREF(source);
        PyErr_Clear();
        PyObject *done =
            context == NULL ? NULL : PyObject_CallMethodOneArg(self->loop, core.str_call_exception_handler, context);
        if (done == NULL) {
            PyErr_WriteUnraisable(op);
        }
        Py_XDECREF(context);
        Py_XDECREF(done);
        PyErr_Restore(type, value, traceback);
    }
    task_base->tp_finalize(op);
}

static void task_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    if (PyObject_CallFinalizerFromDealloc(op) < 0) {
        return; /* somebody has it again */
    }
    PyObject_GC_UnTrack(op);
    task_clear_own(op);
    task_base->tp_dealloc(op);
    if (!PyType_HasFeature(task_base, Py_TPFLAGS_HEAPTYPE)) { /* else the base's does it */
        Py_DECREF(type);
    }
}

/* ---- methods ------------------------------------------------------------------------------------------------ */

static PyObject *task_cancel(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static const char *names[] = {"msg", NULL};
    struct task *self = task_of(op);
    PyObject *message = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:cancel", (char **)names, &message) ||
        PyObject_SetAttrString(op, "_log_traceback", Py_False) < 0) {
        return NULL;
    }
    if (self->done) {
        Py_RETURN_FALSE;
    }
    self->cancels++;
    if (self->waiter != NULL) {
        PyObject *waiter = Py_NewRef(self->waiter);
        PyObject *words[] = {waiter, message};
        PyObject *done = PyObject_VectorcallMethod(from.str_cancel, words, 1, from.names_msg);
        int yes = done == NULL ? -1 : PyObject_IsTrue(done);
        Py_XDECREF(done);
        Py_DECREF(waiter);
        if (yes < 0) {
            return NULL;
        }
        if (yes > 0) {
            Py_RETURN_TRUE;
        }
    }
    self->must_cancel = true;
    Py_XSETREF(self->cancel_message, message == Py_None ? NULL : Py_NewRef(message));
    Py_RETURN_TRUE;
}

static PyObject *task_cancelling(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return PyLong_FromLong(task_of(op)->cancels);
}

static PyObject *task_uncancel(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct task *self = task_of(op);
    if (self->cancels > 0) {
        self->cancels--;
        if (self->cancels == 0) {
            self->must_cancel = false;
        }
    }
    return PyLong_FromLong(self->cancels);
}

static PyObject *task_get_coro(PyObject *op, PyObject *Py_UNUSED(unused))
{
    PyObject *coro = task_of(op)->coro;
    return Py_NewRef(coro == NULL ? Py_None : coro);
}

static PyObject *task_get_context(PyObject *op, PyObject *Py_UNUSED(unused))
{
    PyObject *context = task_of(op)->context;
    return Py_NewRef(context == NULL ? Py_None : context);
}

static PyObject *task_get_name(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct task *self = task_of(op);
    if (self->name == NULL) {
        self->name = PyUnicode_FromFormat("Task-%lu", self->number);
    }
    return Py_XNewRef(self->name);
}

static PyObject *task_set_name(PyObject *op, PyObject *value)
{
    PyObject *name = PyObject_Str(value);
    if (name == NULL) {
        return NULL;
    }
    Py_XSETREF(task_of(op)->name, name);
    Py_RETURN_NONE;
}

static PyObject *task_make_cancelled_error(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return task_make_cancelled(task_of(op));
}

/* As Future's, but a cancelled one raises what its coroutine raised. */
static PyObject *task_ask(PyObject *op, PyObject *function)
{
    struct task *self = task_of(op);
    if (UNLIKELY(self->cancelled != NULL)) {
        fail_raise(task_make_cancelled(self));
        return NULL;
    }
    return PyObject_CallOneArg(function, op);
}

static PyObject *task_result(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return task_ask(op, from.future_result);
}

static PyObject *task_exception(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return task_ask(op, from.future_exception);
}

static PyObject *task_get_must_cancel(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(task_of(op)->must_cancel);
}

static PyObject *task_get_waiter(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *waiter = task_of(op)->waiter;
    return Py_NewRef(waiter == NULL ? Py_None : waiter);
}

static PyObject *task_get_cancel_message(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *message = task_of(op)->cancel_message;
    return Py_NewRef(message == NULL ? Py_None : message);
}

static int task_set_cancel_message(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    struct task *self = task_of(op);
    Py_XSETREF(self->cancel_message, value == NULL || value == Py_None ? NULL : Py_NewRef(value));
    return 0;
}

static PyObject *task_get_coro_attribute(PyObject *op, void *Py_UNUSED(closure))
{
    return task_get_coro(op, NULL);
}

static PyObject *task_get_log_destroy(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(task_of(op)->log_destroy);
}

static int task_set_log_destroy(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "cannot delete attribute");
        return -1;
    }
    int yes = PyObject_IsTrue(value);
    task_of(op)->log_destroy = yes > 0;
    return yes < 0 ? -1 : 0;
}

/* ---- awaiting a task ---------------------------------------------------------------------------------------- */

/* Future's own iterator would make a new CancelledError, without the traceback of what the coroutine raised. */
struct task_iterator {
    PyObject_HEAD
    PyObject *task;
    bool yielded;
};

static PyTypeObject task_iterator_type;

static PyObject *task_iter(PyObject *op)
{
    struct task_iterator *iterator = PyObject_New(struct task_iterator, &task_iterator_type);
    if (iterator != NULL) {
        iterator->task = Py_NewRef(op);
        iterator->yielded = false;
    }
    return (PyObject *)iterator;
}

static PySendResult task_iterator_send(PyObject *op, PyObject *Py_UNUSED(value), PyObject **result)
{
    struct task_iterator *self = (struct task_iterator *)op;
    if (task_of(self->task)->done) {
        *result = task_result(self->task, NULL);
        return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
    }
    *result = NULL;
    if (self->yielded) {
        PyErr_SetString(PyExc_RuntimeError, "await wasn't used with future");
        return PYGEN_ERROR;
    }
    self->yielded = true;
    if (PyObject_SetAttr(self->task, from.str_blocking, Py_True) < 0) {
        return PYGEN_ERROR;
    }
    *result = Py_NewRef(self->task);
    return PYGEN_NEXT;
}

static PyObject *task_iterator_next(PyObject *op)
{
    PyObject *result;
    PySendResult how = task_iterator_send(op, NULL, &result);
    return reply_of_send(how, result);
}

static void task_iterator_dealloc(PyObject *op)
{
    Py_DECREF(((struct task_iterator *)op)->task);
    PyObject_Free(op);
}

static PyAsyncMethods task_iterator_async = {.am_send = task_iterator_send};

static PyTypeObject task_iterator_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "iokernel._core.TaskIterator",
    .tp_basicsize = sizeof(struct task_iterator),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = task_iterator_dealloc,
    .tp_as_async = &task_iterator_async,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = task_iterator_next,
};

/* ---- the type ----------------------------------------------------------------------------------------------- */

static PyMethodDef task_methods[] = {
    {"cancel", (PyCFunction)(void (*)(void))task_cancel, METH_VARARGS | METH_KEYWORDS,
     "cancel(msg=None)\n--\n\nHave CancelledError raised in the coroutine where it waits."},
    {"cancelling", task_cancelling, METH_NOARGS, "cancelling()\n--\n\ncancel() calls less uncancel() calls."},
    {"uncancel", task_uncancel, METH_NOARGS,
     "uncancel()\n--\n\nTake one cancel() as handled; returns how many are left."},
    {"get_coro", task_get_coro, METH_NOARGS, "get_coro()\n--\n\nThe coroutine."},
    {"get_context", task_get_context, METH_NOARGS, "get_context()\n--\n\nThe context that it runs in."},
    {"get_name", task_get_name, METH_NOARGS, "get_name()\n--\n\nThe task's name."},
    {"set_name", task_set_name, METH_O, "set_name(value, /)\n--\n\nName it str(value)."},
    {"result", task_result, METH_NOARGS, "result()\n--\n\nWhat the coroutine returned, or raises what it raised."},
    {"exception", task_exception, METH_NOARGS, "exception()\n--\n\nWhat the coroutine raised, or None."},
    {"_make_cancelled_error", task_make_cancelled_error, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef task_getset[] = {
    {"_must_cancel", task_get_must_cancel, NULL, NULL, NULL},
    {"_cancel_message", task_get_cancel_message, task_set_cancel_message, NULL, NULL},
    {"_fut_waiter", task_get_waiter, NULL, NULL, NULL},
    {"_coro", task_get_coro_attribute, NULL, NULL, NULL},
    {"_log_destroy_pending", task_get_log_destroy, task_set_log_destroy, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot task_slots[] = {
    {Py_tp_doc, "Task(coro, *, loop=None, name=None, context=None, eager_start=False)\n--\n\n"
                "An asyncio.Task that calls of iokernel resume without a detour."},
    {Py_tp_init, task_init},
    {Py_tp_traverse, task_traverse},
    {Py_tp_clear, task_clear},
    {Py_tp_finalize, task_finalize},
    {Py_tp_dealloc, task_dealloc},
    {Py_tp_iter, task_iter},
    {Py_am_await, task_iter},
    {Py_tp_methods, task_methods},
    {Py_tp_getset, task_getset},
    {0, NULL},
};

static int task_need(void)
{
    static const struct {
        PyObject **to;
        const char *module, *name;
    } needs[] = {
        {&from.register_task, "asyncio.tasks", "_register_task"},
        {&from.enter_task, "asyncio.tasks", "_enter_task"},
        {&from.leave_task, "asyncio.tasks", "_leave_task"},
        {&from.iscoroutine, "asyncio", "iscoroutine"},
    };
    static const struct {
        PyObject **to;
        const char *name;
    } methods[] = {
        {&from.future_cancel, "cancel"},
        {&from.future_set_result, "set_result"},
        {&from.future_set_exception, "set_exception"},
        {&from.future_result, "result"},
        {&from.future_exception, "exception"},
    };
    static const struct {
        PyObject **to;
        const char *text;
    } texts[] = {
        {&from.str_blocking, "_asyncio_future_blocking"},
        {&from.str_result, "result"},
        {&from.str_throw, "throw"},
        {&from.str_cancel, "cancel"},
        {&from.str_get_loop, "get_loop"},
        {&from.str_add_done_callback, "add_done_callback"},
    };
    for (size_t i = 0; i < sizeof(needs) / sizeof(*needs); i++) {
        if ((*needs[i].to = core_import(needs[i].module, needs[i].name)) == NULL) {
            return -1;
        }
    }
    for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++) {
        if ((*methods[i].to = PyObject_GetAttrString((PyObject *)task_base->tp_base, methods[i].name)) == NULL) {
            return -1;
        }
    }
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        if ((*texts[i].to = PyUnicode_InternFromString(texts[i].text)) == NULL) {
            return -1;
        }
    }
    return (from.names_msg = Py_BuildValue("(s)", "msg")) == NULL ? -1 : 0;
}

PyObject *task_get_type(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    if (task_type != NULL) {
        return Py_NewRef((PyObject *)task_type);
    }
    if (core_need_asyncio() < 0) {
        return NULL;
    }
    task_base = (PyTypeObject *)core.task_type;
    if (task_need() < 0 || PyType_Ready(&task_iterator_type) < 0) {
        return NULL;
    }
    Py_ssize_t align = alignof(struct task);
    task_offset = (task_base->tp_basicsize + align - 1) / align * align;
    PyType_Spec spec = {
        .name = "iokernel._core.Task",
        .basicsize = (int)(task_offset + (Py_ssize_t)sizeof(struct task)),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
        .slots = task_slots,
    };
    PyObject *bases = PyTuple_Pack(1, core.task_type);
    PyObject *type = bases == NULL ? NULL : PyType_FromSpecWithBases(&spec, bases);
    Py_XDECREF(bases);
    task_type = (PyTypeObject *)type;
    return Py_XNewRef(type);
}
