/* queue.c - Queue: keeps commands as tuples instead of sending them; what a transaction collects until it is run. */
#include "core.h"

static PyObject *queue_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":Queue", (char **)names)) {
        return NULL;
    }
    struct py_caller *self = (struct py_caller *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->mode = CALLER_QUEUE;
    self->generation = core.generation;
    self->scalars = true;
    self->queue = PyList_New(0);
    if (self->queue == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

PyObject *queue_append(struct py_caller *self, PyObject *words, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t n_words = words == NULL ? 0 : PyTuple_GET_SIZE(words);
    if (caller_check_open(self) < 0) {
        return NULL;
    }
    if (self->closed) {
        fail_code(IOK_ECLOSED, "the transaction has ended", NULL);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < nargs; i++) {
        if (!build_is_scalar(args[i])) {
            build_refuse(args[i], true, i + 1);
            return NULL;
        }
    }
    PyObject *command = PyTuple_New(n_words + nargs);
    if (command == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < n_words; i++) {
        PyTuple_SET_ITEM(command, i, Py_NewRef(PyTuple_GET_ITEM(words, i)));
    }
    for (Py_ssize_t i = 0; i < nargs; i++) {
        PyTuple_SET_ITEM(command, n_words + i, Py_NewRef(args[i]));
    }
    int appended = PyList_Append(self->queue, command);
    Py_DECREF(command);
    if (appended < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *queue_commands(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(((struct py_caller *)op)->queue);
}

static PyObject *queue_close(PyObject *op, PyObject *Py_UNUSED(unused))
{
    ((struct py_caller *)op)->closed = true;
    Py_RETURN_NONE;
}

static PyMethodDef queue_methods[] = {
    {"close", queue_close, METH_NOARGS, "close()\n--\n\nRefuse further commands."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef queue_getset[] = {
    {"commands", queue_commands, NULL, "The commands so far: a list of tuples.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject queue_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "iokernel._core.Queue",
    .tp_doc = "Queue()\n--\n\nKeeps commands instead of sending them.",
    .tp_basicsize = sizeof(struct py_caller),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, /* collected as its base is */
    .tp_base = &caller_type,
    .tp_new = queue_new,
    .tp_methods = queue_methods,
    .tp_getset = queue_getset,
};

int queue_init_type(PyObject *module)
{
    return PyModule_AddType(module, &queue_type);
}
