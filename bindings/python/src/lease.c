/* lease.c - Lease: a connection that a sequence of calls holds alone. It belongs to the port (so to the thread or the
 * event loop) that it was made on; its last calls may outlive it, since the port ends them. */
#include "core.h"

static PyObject *lease_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *names[] = {"client", NULL};
    struct py_caller *client;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!:Lease", (char **)names, &client_type, &client) ||
        caller_check_open(client) < 0) {
        return NULL;
    }
    struct py_port *port = client->mode == CALLER_ASYNCIO ? port_of_loop() : port_of_thread();
    if (port == NULL) {
        return NULL;
    }
    struct py_caller *self = (struct py_caller *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    port_reap(port);
    self->generation = core.generation;
    self->mode = client->mode;
    self->decode = client->decode;
    self->scalars = client->scalars;
    struct iok_error err = {0};
    self->lease = iok_lease_new(port->port, client->service, &err);
    if (self->lease == NULL) {
        fail_set(&err, IOK_NEVER_SENT, client->service, "");
        Py_DECREF(self);
        return NULL;
    }
    self->port = (struct py_port *)Py_NewRef(port);
    self->client = Py_NewRef(client);
    self->decoders = Py_XNewRef(client->decoders);
    iok_service_ref(client->service);
    self->service = client->service;
    return (PyObject *)self;
}

static PyObject *lease_close(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct py_caller *self = (struct py_caller *)op;
    struct iok_lease *lease = self->lease;
    self->closed = true;
    self->lease = NULL;
    if (lease != NULL) {
        port_bury(self->port, lease, NULL);
    }
    Py_RETURN_NONE;
}

static PyMethodDef lease_methods[] = {
    {"close", lease_close, METH_NOARGS,
     "close()\n--\n\nGive the connection back; calls under way on it are cancelled. Again is harmless."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject lease_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "iokernel._core.Lease",
    .tp_doc = "Lease(client)\n--\n\nA connection of one's own, for transactions, WATCH and SUBSCRIBE.",
    .tp_basicsize = sizeof(struct py_caller),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, /* collected as its base is */
    .tp_base = &caller_type,
    .tp_new = lease_new,
    .tp_methods = lease_methods,
};

int lease_init_type(PyObject *module)
{
    return PyModule_AddType(module, &lease_type);
}
