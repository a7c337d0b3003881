/* serve.c - Listener: an address that is listened on, and who takes its requests is Asgi's and Wsgi's affair. */
#include "serve.h"

PyObject *client_gone;

static PyObject *listener_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *names[] = {"url", NULL};
    const char *url;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s:Listener", (char **)names, &url)) {
        return NULL;
    }
    struct py_port *port = port_of_anything();
    if (port == NULL) {
        return NULL;
    }
    struct iok_error err = {0};
    struct iok_listener *listener = iok_listener_new(port->port, url, &err);
    if (listener == NULL) {
        fail_set(&err, IOK_NEVER_SENT, NULL, "");
        return NULL;
    }
    struct py_listener *self = (struct py_listener *)type->tp_alloc(type, 0);
    if (self == NULL) {
        iok_listener_close(listener, port->port, 0);
        iok_listener_unref(listener);
        return NULL;
    }
    self->listener = listener;
    self->port = (struct py_port *)Py_NewRef(port);
    return (PyObject *)self;
}

static void listener_end(struct py_listener *self, int64_t grace_ms)
{
    if (!self->closed && port_usable(self->port)) {
        iok_listener_close(self->listener, self->port->port, grace_ms);
        self->closed = true;
    }
}

static void listener_dealloc(PyObject *op)
{
    struct py_listener *self = (struct py_listener *)op;
    if (!core.ending) {
        listener_end(self, 0);
        iok_listener_unref(self->listener);
    }
    Py_DECREF(self->port);
    Py_TYPE(op)->tp_free(op);
}

static PyObject *listener_close(PyObject *op, PyObject *args)
{
    struct py_listener *self = (struct py_listener *)op;
    double grace_s = 0;
    if (!PyArg_ParseTuple(args, "|d:close", &grace_s)) {
        return NULL;
    }
    if (!port_usable(self->port)) {
        port_refuse(self->port);
        return NULL;
    }
    listener_end(self, (int64_t)(grace_s * 1000));
    Py_RETURN_NONE;
}

static PyObject *listener_name(PyObject *op, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(iok_listener_name(((struct py_listener *)op)->listener));
}

static PyObject *listener_stats(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct iok_listener_stats stats;
    iok_listener_stats(((struct py_listener *)op)->listener, &stats);
    uint64_t answered = 0;
    for (size_t i = 0; i < sizeof(stats.answers) / sizeof(stats.answers[0]); i++) {
        answered += stats.answers[i];
    }
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:K,s:K,s:I,s:I,s:I}", "accepted", stats.accepted, "requests",
                         stats.requests, "answered", answered, "native", stats.native, "refused", stats.refused, "gone",
                         stats.gone, "connections", stats.connections, "inflight", stats.inflight, "queued",
                         stats.queued);
}

static PyMethodDef listener_methods[] = {
    {"close", listener_close, METH_VARARGS,
     "close(grace=0)\n--\n\nAccept no more; what is under way has so many seconds to be answered."},
    {"stats", listener_stats, METH_NOARGS,
     "stats()\n--\n\nCounts since it was made, and how many connections and requests there are now."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef listener_getset[] = {
    {"name", listener_name, NULL, "Its URL, with the real port.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject listener_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "iokernel._core.Listener",
    .tp_doc = "Listener(url)\n--\n\nListens on an address of HTTP.",
    .tp_basicsize = sizeof(struct py_listener),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = listener_new,
    .tp_dealloc = listener_dealloc,
    .tp_methods = listener_methods,
    .tp_getset = listener_getset,
};

int serve_init_types(PyObject *module)
{
    if (client_gone == NULL) {
        client_gone = PyErr_NewExceptionWithDoc("iokernel._core.ClientGone",
                                                "The client of a request went away before the answer was complete.",
                                                PyExc_OSError, NULL);
    }
    if (client_gone == NULL || scope_init() < 0 || PyModule_AddType(module, &listener_type) < 0) {
        return -1;
    }
    return PyModule_AddObjectRef(module, "ClientGone", client_gone);
}
