/* lease.c - Lease: a connection that a sequence of calls holds alone. It belongs to the port (so to the thread or the
 * event loop) that it was made on; its last calls may outlive it, since the port ends them. One that roams has a port of
 * its own, and threads use it in turn: what needs a lock between them has one in Python. */
#include "core.h"

/* That of the loop or thread: a new reference. */
static struct py_port *lease_port(const struct py_caller *client)
{
    return (struct py_port *)Py_XNewRef(client->mode == CALLER_ASYNCIO ? port_of_loop() : port_of_thread());
}

static PyObject *lease_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *names[] = {"client", "roams", NULL};
    struct py_caller *client;
    int roams = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|$p:Lease", (char **)names, &client_type, &client, &roams) ||
        caller_check_open(client) < 0) {
        return NULL;
    }
    if (roams && client->mode == CALLER_ASYNCIO) {
        PyErr_SetString(PyExc_ValueError, "a lease of asyncio belongs to its event loop: it cannot roam");
        return NULL;
    }
    struct py_port *port = roams ? port_make_roaming() : lease_port(client);
    if (port == NULL) {
        return NULL;
    }
    struct py_caller *self = (struct py_caller *)type->tp_alloc(type, 0);
    if (self == NULL) {
        Py_DECREF(port);
        return NULL;
    }
    self->port = port;
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
    .tp_doc =
        "Lease(client, *, roams=False)\n--\n\nA connection of one's own, for transactions, WATCH and SUBSCRIBE. With "
        "roams=True threads may use it in turn, though never two at once.",
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
