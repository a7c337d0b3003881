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
 * The class around this, with its other methods, is in task_type.c.
 *
 * Invariants: while a Reply is its waiter and pending, that Reply refers back to it (reply->task), or has its step among
 * its callbacks. One step at a time: the loop's current task is entered and left in task_run only. */
#include "task.h"

struct task_names from;
Py_ssize_t task_offset;

/* ---- scheduling --------------------------------------------------------------------------------------------- */

/* Borrowed; NULL with an exception. Most tasks of requests end within their first step, and need none. */
static PyObject *task_step_method(struct task *self)
{
    static PyMethodDef step_def = {"task_step", (PyCFunction)(void (*)(void))task_step, METH_FASTCALL, NULL};
    if (self->step == NULL) {
        self->step = PyCFunction_New(&step_def, (PyObject *)((char *)self - task_offset));
    }
    return self->step;
}

int task_soon(struct task *self, PyObject *argument)
{
    PyObject *step = task_step_method(self);
    if (UNLIKELY(step == NULL)) {
        return -1;
    }
    PyObject *args[] = {self->loop, step, argument, NULL};
    args[argument == NULL ? 2 : 3] = self->context;
    PyObject *handle =
        PyObject_VectorcallMethod(core.str_call_soon, args, argument == NULL ? 2 : 3, core.names_context);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}

/* Has the error thrown into the coroutine by the next step. */
static int task_error_soon(struct task *self, PyObject *type, const char *format, ...)
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

static int task_enter(PyObject *op, const struct task *self, struct py_port *drain)
{
    if (LIKELY(drain != NULL && drain->lingers)) {
        drain->lingers = false;
        return PyDict_SetItem(core.current_tasks, self->loop, op);
    }
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
static void task_leave(PyObject *op, const struct task *self, struct py_port *drain)
{
    if (LIKELY(drain != NULL && core.current_tasks != NULL)) {
        drain->lingers = true;
        return;
    }
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

void task_settle(struct py_port *drain)
{
    if (!drain->lingers) {
        return;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    drain->lingers = false;
    (void)PyDict_DelItem(core.current_tasks, drain->loop);
    PyErr_Clear(); /* as in task_leave */
    PyErr_Restore(type, value, traceback);
}

/* ---- the end ------------------------------------------------------------------------------------------------ */

PyObject *task_make_cancelled(struct task *self)
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
    } else if (task_step_method(self) == NULL || reply_add(reply, self->step, Py_NewRef(self->context)) < 0) {
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
    if (task_step_method(self) == NULL) {
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

int task_run(PyObject *op, PyObject *error, struct py_port *drain)
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
    if (UNLIKELY(task_enter(op, self, drain) < 0)) {
        Py_XDECREF(error);
        return -1;
    }
    PySendResult how =
        LIKELY(error == NULL) ? PyIter_Send(self->coro, Py_None, &result) : task_throw(self, error, &result);
    task_leave(op, self, drain);
    Py_XDECREF(error);
    int done = how == PYGEN_NEXT     ? task_await(op, self, result)
               : how == PYGEN_RETURN ? task_end_value(op, self, result)
                                     : task_end_error(op, self);
    Py_XDECREF(result);
    return done;
}

PyObject *task_step(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
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
    int done = task_run(op, error, NULL);
    Py_DECREF(op);
    if (done < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

int task_wake(PyObject *op, struct py_reply *reply, struct py_port *drain)
{
    struct task *self = task_of(op);
    if (UNLIKELY(self->done)) {
        return 0;
    }
    if (UNLIKELY(drain == NULL)) {
        return task_soon(self, (PyObject *)reply);
    }
    if (UNLIKELY(PyContext_Enter(self->context) < 0)) { /* entered already, further down the stack */
        PyErr_Clear();
        return task_soon(self, (PyObject *)reply);
    }
    int done = task_run(op, NULL, drain);
    PyObject *type, *value, *traceback;
    if (LIKELY(done == 0)) {
        return PyContext_Exit(self->context);
    }
    PyErr_Fetch(&type, &value, &traceback);
    (void)PyContext_Exit(self->context);
    PyErr_Restore(type, value, traceback);
    return -1;
}
