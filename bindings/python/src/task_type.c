/* task_type.c - the class Task: how it is made, its methods, how it is awaited, and its end. task.c drives it. */
#include "task.h"

#include <stdalign.h>

static PyTypeObject *task_base, *task_type;
static unsigned long task_numbers;

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
        done = task_run(op, NULL, NULL);
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

static int task_register(PyObject *op)
{
    PyObject *registered = PyObject_CallOneArg(from.register_task, op);
    Py_XDECREF(registered);
    return registered == NULL ? -1 : 0;
}

static int task_begin(PyObject *op, struct task *self, PyObject *eager)
{
    if (task_register(op) < 0) {
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

PyObject *task_make(PyObject *coro, PyObject *loop, PyObject *options)
{
    static PyObject *none;
    if (none == NULL && (none = PyTuple_New(0)) == NULL) {
        return NULL;
    }
    PyObject *op = task_type->tp_alloc(task_type, 0);
    if (op == NULL || task_base->tp_base->tp_init(op, none, options) < 0) {
        Py_XDECREF(op);
        return NULL;
    }
    struct task *self = task_of(op);
    self->loop = Py_NewRef(loop);
    self->coro = Py_NewRef(coro);
    self->context = PyContext_CopyCurrent();
    self->log_destroy = true;
    self->number = ++task_numbers;
    if (self->context == NULL) {
        self->log_destroy = false;
        Py_DECREF(op);
        return NULL;
    }
    return op;
}

int task_launch(PyObject *op, struct py_port *drain)
{
    struct task *self = task_of(op);
    if (drain == NULL) {
        return task_register(op) < 0 ? -1 : task_soon(self, NULL);
    }
    if (PyContext_Enter(self->context) < 0) {
        return -1;
    }
    int done = task_run(op, NULL, drain);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    (void)PyContext_Exit(self->context);
    if (UNLIKELY(!self->done) && task_register(op) < 0) {
        PyErr_Clear(); /* then all_tasks() does not have it */
    }
    PyErr_Restore(type, value, traceback);
    return done;
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

static const char task_doc[] = "Task(coro, *, loop=None, name=None, context=None, eager_start=False)\n--\n\n"
                               "An asyncio.Task that calls of iokernel resume without a detour.";

static PyType_Slot task_slots[] = {
    {Py_tp_doc, (void *)task_doc},
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
