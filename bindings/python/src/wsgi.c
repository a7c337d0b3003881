/* wsgi.c - Wsgi: the requests of one thread of a server, one after the other.
 *
 *     next() ──> environ ──> answer(...)                          ──> done() ──> next() ...
 *                        └─> start(...), write(...) ..., end()   ─┘
 *                        └─> fail()
 *
 * Waiting is done without the interpreter's lock; a thread that waits may run the kernel's loop, as in every wait. The
 * rules of PEP 3333 are in iokernel/serve/wsgi.py; here are the call and its tape. */
#include "serve.h"

struct wsgi {
    PyObject_HEAD
    struct py_port *port; /* references */
    struct py_listener *listener;
    PyObject *constant;    /* what every environ has */
    PyObject *trust;       /* of proxies; may be NULL */
    PyObject *bytes_io;    /* io.BytesIO */
    struct iok_call *call; /* NULL once the listener has ended */
    bool waiting;          /* the call is the kernel's: it waits for a request, or sends the last answer */
    bool begun;            /* the head of the answer has been sent, and the body has not ended */
    bool gone;             /* the client has */
};

static PyTypeObject wsgi_type;

/* ---- life ---------------------------------------------------------------------------------------------------- */

static PyObject *wsgi_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *names[] = {"listener", "constant", "trust", NULL};
    PyObject *listener, *constant, *trust = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!|O:Wsgi", (char **)names, &listener_type, &listener,
                                     &PyDict_Type, &constant, &trust)) {
        return NULL;
    }
    struct py_port *port = port_of_thread();
    struct wsgi *self = port == NULL ? NULL : (struct wsgi *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    struct iok_error err = {0};
    self->port = (struct py_port *)Py_NewRef((PyObject *)port);
    self->listener = (struct py_listener *)Py_NewRef(listener);
    self->constant = Py_NewRef(constant);
    self->trust = trust == Py_None ? NULL : Py_NewRef(trust);
    self->bytes_io = core_import("io", "BytesIO");
    self->call = iok_serve_new(port->port, self->listener->listener, &err);
    if (self->call == NULL) {
        fail_set(&err, IOK_NEVER_SENT, NULL, "");
    }
    if (self->call == NULL || self->bytes_io == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void wsgi_dealloc(PyObject *op)
{
    struct wsgi *self = (struct wsgi *)op;
    if (self->call != NULL) {
        port_bury(self->port, NULL, self->call);
    }
    Py_XDECREF(self->constant);
    Py_XDECREF(self->trust);
    Py_XDECREF(self->bytes_io);
    Py_XDECREF(self->listener);
    Py_XDECREF(self->port);
    Py_TYPE(op)->tp_free(op);
}

/* ---- waiting ------------------------------------------------------------------------------------------------- */

static int wsgi_fail_call(struct iok_call *call)
{
    struct iok_error err = {0};
    iok_call_error(call, &err);
    PyErr_Format(PyExc_ValueError, "the answer cannot be sent: %s", err.text[0] != '\0' ? err.text : "it was refused");
    return -1;
}

static int wsgi_check(const struct wsgi *self)
{
    if (!port_usable(self->port)) {
        port_refuse(self->port);
        return -1;
    }
    if (self->waiting || self->call == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "there is no request to answer");
        return -1;
    }
    if (self->gone || iok_serve_state(self->call) == IOK_SERVE_GONE) {
        PyErr_SetString(client_gone, "the client has gone");
        return -1;
    }
    return 0;
}

/* Waits for a request, or for a message of its body; looks for signals now and then. 0, or -1 with an exception. */
static int wsgi_wait(struct iok_call *call, bool message)
{
    int rc;
    Py_BEGIN_ALLOW_THREADS rc = message ? iok_wait_message(call, LOOK_MS_MAX) : iok_wait_call(call, LOOK_MS_MAX);
    core_park_at_exit();
    Py_END_ALLOW_THREADS if (PyErr_CheckSignals() < 0)
    {
        return -1;
    }
    if (rc < 0 && rc != IOK_EINTR && rc != IOK_ETIMEOUT) {
        fail_code(rc, iok_errno_text(rc), NULL);
        return -1;
    }
    return 0;
}

/* ---- parts of an answer --------------------------------------------------------------------------------------- */

/* Sends a part and waits until the system has taken it. */
static int wsgi_send_part(struct wsgi *self, PyObject *data, bool last, const char *broken)
{
    struct iok_error err = {0};
    struct iok_call *part = iok_part_new(self->call, &err);
    if (part == NULL) {
        fail_set(&err, IOK_NEVER_SENT, NULL, "");
        return -1;
    }
    if (broken != NULL) {
        iok_part_fail(part, broken);
    } else if (data != NULL && build_argument(part, data, true, 1) < 0) {
        iok_call_free(part);
        return -1;
    }
    if (last) {
        iok_part_end(part);
    }
    if (iok_submit(part) < 0) {
        iok_call_free(part);
        PyErr_SetString(client_gone, "the client has gone");
        return -1;
    }
    while (iok_call_outcome(part) == IOK_PENDING) {
        int rc;
        Py_BEGIN_ALLOW_THREADS rc = iok_wait_call(part, LOOK_MS_MAX);
        core_park_at_exit();
        Py_END_ALLOW_THREADS if (rc != 0 && PyErr_CheckSignals() < 0)
        {
            iok_abandon(part);
            return -1;
        }
    }
    struct iok_error why = {0};
    int code = iok_call_error(part, &why);
    iok_call_free(part);
    if (code == IOK_EINVAL) { /* of the program's doing */
        PyErr_SetString(PyExc_ValueError, why.text);
        return -1;
    }
    if (code != 0 && broken == NULL) {
        PyErr_SetString(client_gone, "the client has gone");
        return -1;
    }
    return 0;
}

/* Ends the body of an answer, or breaks it off. The call takes its next request. */
static int wsgi_end_body(struct wsgi *self, const char *broken)
{
    self->begun = false;
    int done = wsgi_send_part(self, NULL, broken == NULL, broken);
    self->waiting = true;
    return done;
}

/* ---- requests ------------------------------------------------------------------------------------------------ */

static int wsgi_submit(struct wsgi *self)
{
    if (iok_submit(self->call) < 0) {
        return wsgi_fail_call(self->call);
    }
    self->waiting = true;
    self->begun = false;
    return 0;
}

/* Waits until the call has a request. 1, 0 if there will be none any more, or -1 with an exception. */
static int wsgi_take(struct wsgi *self)
{
    for (;;) {
        if (iok_call_outcome(self->call) != IOK_PENDING) {
            iok_call_free(self->call);
            self->call = NULL;
            return 0;
        }
        enum iok_serve_state state = iok_serve_state(self->call);
        if (state == IOK_SERVE_REQUEST || state == IOK_SERVE_LEFT) {
            self->waiting = self->gone = false;
            return 1;
        }
        if ((state == IOK_SERVE_GONE && wsgi_submit(self) < 0) || wsgi_wait(self->call, false) < 0) {
            return -1;
        }
    }
}

static PyObject *wsgi_input(const struct wsgi *self, const struct request *request)
{
    if (request->body.type == IOK_NULL) {
        Py_RETURN_NONE; /* it comes in parts: read() */
    }
    if (request->body.len == 0) {
        return PyObject_CallNoArgs(self->bytes_io);
    }
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)request->body.p, (Py_ssize_t)request->body.len);
    PyObject *input = bytes == NULL ? NULL : PyObject_CallOneArg(self->bytes_io, bytes);
    Py_XDECREF(bytes);
    return input;
}

/* Answers what nobody else has, and takes the next request. */
static int wsgi_turn_away(struct wsgi *self)
{
    iok_call_array(self->call, 4);
    iok_call_i64(self->call, 500);
    iok_call_null(self->call);
    iok_call_array(self->call, 0);
    iok_call_static(self->call, "", 0);
    return wsgi_submit(self);
}

/* The call is the kernel's, once the request of before has come to an end. */
static int wsgi_settle(struct wsgi *self)
{
    enum iok_serve_state state = iok_serve_state(self->call);
    if (self->waiting) {
        return 0;
    }
    if (state == IOK_SERVE_NEW || state == IOK_SERVE_GONE) {
        return wsgi_submit(self);
    }
    return self->begun ? wsgi_end_body(self, "the application ended within the body") : wsgi_turn_away(self);
}

static PyObject *wsgi_next(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct wsgi *self = (struct wsgi *)op;
    if (!port_usable(self->port)) {
        port_refuse(self->port);
        return NULL;
    }
    if (self->call == NULL) {
        Py_RETURN_NONE;
    }
    if (wsgi_settle(self) < 0) {
        return NULL;
    }
    int taken = wsgi_take(self);
    if (taken < 0) {
        return NULL;
    }
    struct request request;
    if (taken == 0 || !request_read(&request, self->call)) {
        Py_RETURN_NONE;
    }
    struct iok_error err;
    if (UNLIKELY(iok_call_error(self->call, &err) != 0)) {
        /* The kernel found that the last answer cannot be sent as it is; the request is here once more. */
        if (wsgi_turn_away(self) == 0) {
            PyErr_SetString(PyExc_ValueError, err.text);
        }
        return NULL;
    }
    PyObject *input = wsgi_input(self, &request);
    PyObject *env = input == NULL ? NULL : environ_of_request(self->constant, self->trust, &request, self->call, input);
    Py_XDECREF(input);
    return env;
}

/* A part of the body that did not come whole; b"" at its end. The last message is an array, and tells of the end only. */
static PyObject *wsgi_read(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct wsgi *self = (struct wsgi *)op;
    for (;;) {
        if (wsgi_check(self) < 0) {
            return NULL;
        }
        size_t n;
        const struct iok_token *token = iok_call_message(self->call, &n);
        if (token != NULL && token->type == IOK_BYTES && token->len > 0) {
            PyObject *part = PyBytes_FromStringAndSize((const char *)token->p, (Py_ssize_t)token->len);
            iok_call_next(self->call);
            return part;
        }
        if (token != NULL) {
            iok_call_next(self->call);
        } else if (!iok_serve_expects_body(self->call)) {
            return PyBytes_FromStringAndSize(NULL, 0);
        } else if (iok_serve_state(self->call) == IOK_SERVE_LEFT) {
            PyErr_SetString(client_gone, "the client has gone within its request's body");
            return NULL;
        } else if (wsgi_wait(self->call, true) < 0) {
            return NULL;
        }
    }
}

/* ---- answers ------------------------------------------------------------------------------------------------- */

static int append_latin1(struct iok_call *call, PyObject *text, const char *what)
{
    if (LIKELY(PyUnicode_Check(text) && PyUnicode_KIND(text) == PyUnicode_1BYTE_KIND)) {
        iok_call_bytes(call, (const char *)PyUnicode_1BYTE_DATA(text), (size_t)PyUnicode_GET_LENGTH(text));
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "%s must be text of Latin-1", what); /* it may be a secret */
    return -1;
}

/* status, reason, headers: as iokernel/serve/wsgi.py has checked them. */
static int append_head(struct wsgi *self, int status, PyObject *reason, PyObject *headers)
{
    Py_ssize_t n = PyList_GET_SIZE(headers);
    iok_call_array(self->call, 4);
    iok_call_i64(self->call, status);
    if (append_latin1(self->call, reason, "the reason") < 0) {
        return -1;
    }
    iok_call_array(self->call, (uint32_t)n * 2);
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *pair = PyList_GET_ITEM(headers, i);
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
            PyErr_SetString(PyExc_TypeError, "each header must be a tuple (name, value)");
            return -1;
        }
        if (append_latin1(self->call, PyTuple_GET_ITEM(pair, 0), "a header's name") < 0 ||
            append_latin1(self->call, PyTuple_GET_ITEM(pair, 1), "a header's value") < 0) {
            return -1;
        }
    }
    return 0;
}

static PyObject *wsgi_answer(PyObject *op, PyObject *args)
{
    struct wsgi *self = (struct wsgi *)op;
    int status;
    PyObject *reason, *headers, *body;
    if (!PyArg_ParseTuple(args, "iUO!S:answer", &status, &reason, &PyList_Type, &headers, &body) ||
        wsgi_check(self) < 0 || append_head(self, status, reason, headers) < 0 ||
        build_argument(self->call, body, true, 1) < 0 || wsgi_submit(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *wsgi_start(PyObject *op, PyObject *args)
{
    struct wsgi *self = (struct wsgi *)op;
    int status;
    PyObject *reason, *headers;
    if (!PyArg_ParseTuple(args, "iUO!:start", &status, &reason, &PyList_Type, &headers) || wsgi_check(self) < 0 ||
        append_head(self, status, reason, headers) < 0) {
        return NULL;
    }
    iok_call_null(self->call);
    iok_call_body(self->call);
    if (iok_submit(self->call) < 0) {
        (void)wsgi_fail_call(self->call);
        return NULL;
    }
    self->begun = true;
    Py_RETURN_NONE;
}

static PyObject *wsgi_write(PyObject *op, PyObject *data)
{
    struct wsgi *self = (struct wsgi *)op;
    if (wsgi_check(self) < 0 || wsgi_send_part(self, data, false, NULL) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *wsgi_end(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct wsgi *self = (struct wsgi *)op;
    if (wsgi_check(self) < 0 || wsgi_end_body(self, NULL) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *wsgi_break(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct wsgi *self = (struct wsgi *)op;
    if (wsgi_check(self) < 0 || (self->begun && wsgi_end_body(self, "the application failed") < 0)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef wsgi_methods[] = {
    {"next", wsgi_next, METH_NOARGS, "next()\n--\n\nThe next request's environ; None: the listener has ended."},
    {"read", wsgi_read, METH_NOARGS, "read()\n--\n\nThe next part of the request's body; b'' at its end."},
    {"answer", wsgi_answer, METH_VARARGS, "answer(status, reason, headers, body)\n--\n\nAnswer in one piece."},
    {"start", wsgi_start, METH_VARARGS, "start(status, reason, headers)\n--\n\nBegin an answer whose body follows."},
    {"write", wsgi_write, METH_O, "write(data)\n--\n\nA part of that body."},
    {"end", wsgi_end, METH_NOARGS, "end()\n--\n\nThe body is complete."},
    {"fail", wsgi_break, METH_NOARGS, "fail()\n--\n\nBreak the body off."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject wsgi_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "iokernel._core.Wsgi",
    .tp_doc = "Wsgi(listener, constant, trust=None)\n--\n\nThe requests of one thread of a server.",
    .tp_basicsize = sizeof(struct wsgi),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = wsgi_new,
    .tp_dealloc = wsgi_dealloc,
    .tp_methods = wsgi_methods,
};

int wsgi_init_type(PyObject *module)
{
    return PyModule_AddType(module, &wsgi_type);
}
