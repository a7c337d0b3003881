/* wsgi.c - Wsgi: the requests of one thread of a server, one after the other.
 *
 *     next() ──> environ ──> answer(...)                          ──> done() ──> next() ...
 *                        └─> start(...), write(...) ..., end()   ─┘
 *                        └─> fail()
 *
 * Who waits for what is crew.c's affair. The rules of PEP 3333 are in iokernel/serve/wsgi.py; here are the call and its tape. */
#include "serve.h"

struct wsgi {
    PyObject_HEAD
    struct crew *crew;  /* a reference */
    PyObject *constant; /* what every environ has */
    PyObject *trust;    /* of proxies; may be NULL */
    PyObject *bytes_io; /* io.BytesIO */
    struct crew_seat seat;
    struct iok_call *call; /* of its request; NULL: it has none, or that was answered */
    bool busy;             /* the crew counts on its being back */
    bool begun;            /* the head of the answer has been sent, and the body has not ended */
};

static PyTypeObject wsgi_type;

/* ---- life ---------------------------------------------------------------------------------------------------- */

static PyObject *wsgi_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *names[] = {"crew", "constant", "trust", NULL};
    PyObject *crew, *constant, *trust = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!|O:Wsgi", (char **)names, &crew_type, &crew, &PyDict_Type,
                                     &constant, &trust)) {
        return NULL;
    }
    struct wsgi *self = (struct wsgi *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->crew = (struct crew *)Py_NewRef(crew);
    self->constant = Py_NewRef(constant);
    self->trust = trust == Py_None ? NULL : Py_NewRef(trust);
    self->bytes_io = core_import("io", "BytesIO");
    if (self->bytes_io == NULL || !crew_seat_init(&self->seat)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void wsgi_dealloc(PyObject *op)
{
    struct wsgi *self = (struct wsgi *)op;
    if (self->call != NULL) {
        crew_drop(self->crew, self->call);
    }
    crew_seat_deinit(&self->seat);
    Py_XDECREF(self->constant);
    Py_XDECREF(self->trust);
    Py_XDECREF(self->bytes_io);
    Py_XDECREF((PyObject *)self->crew);
    Py_TYPE(op)->tp_free(op);
}

static int wsgi_fail_call(struct iok_call *call)
{
    struct iok_error err = {0};
    iok_call_error(call, &err);
    PyErr_Format(PyExc_ValueError, "the answer cannot be sent: %s", err.text[0] != '\0' ? err.text : "it was refused");
    return -1;
}

/* Before all that is done to a request. */
static int wsgi_check(const struct wsgi *self)
{
    if (crew_enter(self->crew) < 0) {
        return -1;
    }
    if (self->call == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "there is no request to answer");
        return -1;
    }
    if (iok_serve_state(self->call) == IOK_SERVE_GONE) {
        PyErr_SetString(client_gone, "the client has gone");
        return -1;
    }
    return 0;
}

/* ---- parts of an answer --------------------------------------------------------------------------------------- */

/* What became of a part. 0, or -1 with an exception. */
static int wsgi_part_ended(struct wsgi *self, const struct iok_call *part)
{
    struct iok_error err = {0};
    if (iok_call_error(part, &err) == 0) {
        return 0;
    }
    if (err.code == IOK_EINVAL) { /* of the program's doing */
        PyErr_SetString(PyExc_ValueError, err.text);
    } else if (self->call != NULL && iok_call_error(self->call, &err) != 0) { /* so was the head: the request is back */
        self->begun = false;
        return wsgi_fail_call(self->call);
    } else {
        PyErr_SetString(client_gone, "the client has gone");
    }
    return -1;
}

/* The call takes its next request, which is any thread's. */
static void wsgi_let_go(struct wsgi *self)
{
    iok_call_set_user(self->call, NULL);
    self->call = NULL;
    self->begun = false;
}

/* Sends a part and waits until the system, or the listener, has taken it. last: it ends the body; broken: it breaks it off. */
static int wsgi_send_part(struct wsgi *self, PyObject *data, bool last, const char *broken)
{
    struct iok_error err = {0};
    struct iok_call *part = iok_part_new(self->call, &err);
    if (part == NULL) {
        fail_set(&err, IOK_NEVER_SENT, NULL, "");
        return -1;
    }
    iok_call_set_user(part, &self->seat);
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
    if (last || broken != NULL) {
        wsgi_let_go(self);
    }
    int done = 0;
    while (done == 0 && iok_call_outcome(part) == IOK_PENDING) {
        done = crew_wait(self->crew, &self->seat);
    }
    if (done == 0 && broken == NULL) {
        done = wsgi_part_ended(self, part);
    }
    iok_call_free(part);
    return done;
}

/* ---- requests ------------------------------------------------------------------------------------------------ */

static int wsgi_submit(struct wsgi *self)
{
    if (iok_submit(self->call) < 0) {
        return wsgi_fail_call(self->call);
    }
    wsgi_let_go(self);
    return 0;
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

/* The thread is done with the request: what is left of its answer comes to an end. */
static int wsgi_settle(struct wsgi *self)
{
    if (self->call == NULL) {
        return 0;
    }
    if (crew_enter(self->crew) < 0) {
        return -1;
    }
    if (iok_serve_state(self->call) == IOK_SERVE_GONE) {
        return wsgi_submit(self);
    }
    return self->begun ? wsgi_send_part(self, NULL, false, "the application ended within the body")
                       : wsgi_turn_away(self);
}

static PyObject *wsgi_next(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct wsgi *self = (struct wsgi *)op;
    if (self->busy) {
        if (wsgi_settle(self) < 0) {
            return NULL;
        }
        crew_done(self->crew);
        self->busy = false;
    }
    int taken = crew_take(self->crew, &self->seat, &self->call);
    if (taken < 0) {
        return NULL;
    }
    struct request request;
    self->busy = taken > 0;
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
        } else if (crew_wait(self->crew, &self->seat) < 0) {
            return NULL;
        }
    }
}

/* ---- answers ------------------------------------------------------------------------------------------------- */

static bool is_latin1(PyObject *text)
{
    return LIKELY(PyUnicode_Check(text) && PyUnicode_KIND(text) == PyUnicode_1BYTE_KIND);
}

static void append_latin1(struct iok_call *call, PyObject *text)
{
    iok_call_bytes(call, (const char *)PyUnicode_1BYTE_DATA(text), (size_t)PyUnicode_GET_LENGTH(text));
}

/* Nothing is appended of a head that cannot be sent, so that another may be. Values are not told: they may be secrets. */
static int check_head(PyObject *reason, PyObject *headers)
{
    if (!is_latin1(reason)) {
        PyErr_Format(PyExc_ValueError, "the reason must be text of Latin-1: %R", reason);
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(headers); i++) {
        PyObject *pair = PyList_GET_ITEM(headers, i);
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
            PyErr_SetString(PyExc_TypeError, "each header must be a tuple (name, value)");
            return -1;
        }
        if (!is_latin1(PyTuple_GET_ITEM(pair, 0)) || !is_latin1(PyTuple_GET_ITEM(pair, 1))) {
            PyErr_Format(PyExc_ValueError, "header %R: its name and its value must be text of Latin-1",
                         PyTuple_GET_ITEM(pair, 0));
            return -1;
        }
    }
    return 0;
}

/* status, reason, headers: their types were checked by iokernel/serve/wsgi.py. */
static int append_head(struct wsgi *self, int status, PyObject *reason, PyObject *headers)
{
    if (check_head(reason, headers) < 0) {
        return -1;
    }
    Py_ssize_t n = PyList_GET_SIZE(headers);
    iok_call_array(self->call, 4);
    iok_call_i64(self->call, status);
    append_latin1(self->call, reason);
    iok_call_array(self->call, (uint32_t)n * 2);
    for (Py_ssize_t i = 0; i < n; i++) {
        append_latin1(self->call, PyTuple_GET_ITEM(PyList_GET_ITEM(headers, i), 0));
        append_latin1(self->call, PyTuple_GET_ITEM(PyList_GET_ITEM(headers, i), 1));
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
    if (wsgi_check(self) < 0 || wsgi_send_part(self, NULL, true, NULL) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *wsgi_break(PyObject *op, PyObject *Py_UNUSED(unused))
{
    struct wsgi *self = (struct wsgi *)op;
    if (self->begun && (wsgi_check(self) < 0 || wsgi_send_part(self, NULL, false, "the application failed") < 0)) {
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
    {"fail", wsgi_break, METH_NOARGS, "fail()\n--\n\nBreak the body off, unless it has ended."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject wsgi_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "iokernel._core.Wsgi",
    .tp_doc = "Wsgi(crew, constant, trust=None)\n--\n\nThe requests of one thread of a server.",
    .tp_basicsize = sizeof(struct wsgi),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = wsgi_new,
    .tp_dealloc = wsgi_dealloc,
    .tp_methods = wsgi_methods,
};

int wsgi_init_type(PyObject *module)
{
    return PyModule_AddType(module, &crew_type) < 0 ? -1 : PyModule_AddType(module, &wsgi_type);
}
