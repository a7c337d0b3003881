/* answer.c - what an ASGI exchange sends: a whole answer, or its head and then parts, which are lent to the kernel until the
 * system has taken them. Who may send what when is channel.c's and websocket.c's affair. */
#include "serve.h"

/* ---- send() -------------------------------------------------------------------------------------------------- */

static void part_dealloc(PyObject *op)
{
    Py_DECREF(((struct part *)op)->exchange);
    PyObject_Free(op);
}

PyTypeObject part_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "iokernel._core.Part",
    .tp_basicsize = sizeof(struct part),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = part_dealloc,
};

int part_news(struct part *part, struct iok_call *call, struct py_port *drain)
{
    struct exchange *exchange = (struct exchange *)Py_NewRef((PyObject *)part->exchange);
    struct iok_error err = {0};
    exchange->lent_bytes -= part->bytes;
    exchange->lent_parts--;
    exchange->asgi->port->lent_parts--;
    if (UNLIKELY(iok_call_error(call, &err) == IOK_EINVAL)) { /* the parts and Content-Length do not agree */
        if (drain != NULL) {
            task_settle(drain);
        }
        exchange_report_refused(exchange, &err);
    }
    iok_call_free(call);
    Py_DECREF(part);
    /* Of many small parts half are taken before the next are asked for, so that they go in batches. */
    bool ring = exchange->lent_parts <= LENT_PARTS_MAX / 2 && answer_has_room(exchange);
    int told = ring ? bell_ring(&exchange->sent, drain) : 0;
    Py_DECREF(exchange);
    return told;
}

/* fail_set's exceptions name outcomes of calls; here the application is told what was wrong with its message. */
int answer_refused(struct iok_call *call, const char *what)
{
    struct iok_error err = {0};
    iok_call_error(call, &err);
    PyErr_Format(PyExc_ValueError, "%s cannot be sent: %s", what, err.text[0] != '\0' ? err.text : "it was refused");
    return -1;
}

/* Overloaded: channel.c waits then. */
static void answer_set_overloaded(struct iok_call *call)
{
    struct iok_error err = {0};
    iok_call_error(call, &err);
    err.code = IOK_EOVERLOAD;
    fail_set(&err, IOK_NEVER_SENT, NULL, "");
}

struct iok_call *answer_part_new(struct exchange *exchange)
{
    struct iok_error err = {0};
    struct iok_call *call = iok_part_new(exchange->call, &err);
    if (call == NULL) {
        fail_set(&err, IOK_NEVER_SENT, NULL, "");
    }
    return call;
}

int answer_part_submit(struct exchange *exchange, struct iok_call *call, size_t bytes)
{
    struct part *part = PyObject_New(struct part, &part_type);
    if (part == NULL) {
        iok_call_free(call);
        return -1;
    }
    part->exchange = (struct exchange *)Py_NewRef((PyObject *)exchange);
    part->bytes = bytes;
    iok_call_set_user(call, part);
    int rc = iok_submit(call);
    if (UNLIKELY(rc < 0)) {
        if (rc == IOK_EOVERLOAD) {
            answer_set_overloaded(call);
        } else {
            (void)answer_refused(call, "a part of the body");
        }
        iok_call_free(call);
        Py_DECREF(part);
        return -1;
    }
    exchange->lent_bytes += bytes;
    exchange->lent_parts++;
    exchange->asgi->port->lent_parts++;
    return 0;
}

int answer_part(struct exchange *exchange, PyObject *data, bool last, const char *broken)
{
    struct iok_call *call = answer_part_new(exchange);
    if (call == NULL) {
        return -1;
    }
    if (broken != NULL) {
        iok_part_fail(call, broken);
    } else if (data != NULL && build_argument(call, data, true, 1) < 0) {
        iok_call_free(call);
        return -1;
    }
    if (last) {
        iok_part_end(call);
    }
    return answer_part_submit(exchange, call, data == NULL ? 0 : (size_t)PyObject_Length(data));
}

/* Without the value, which may be a secret, and errors go to the log. */
static void refuse_field(PyObject *pair)
{
    if (PySequence_Fast_GET_SIZE(pair) != 2) {
        PyErr_Format(PyExc_TypeError, "each header must be a pair of bytes: name, value; not %zd things",
                     PySequence_Fast_GET_SIZE(pair));
        return;
    }
    PyObject *name = PySequence_Fast_GET_ITEM(pair, 0), *value = PySequence_Fast_GET_ITEM(pair, 1);
    bool shown = PyBytes_Check(name) || PyUnicode_Check(name);
    PyErr_Format(PyExc_TypeError, "each header must be a pair of bytes: name, value; not (%.100s, %.100s), as %R has",
                 Py_TYPE(name)->tp_name, Py_TYPE(value)->tp_name, shown ? name : Py_None);
}

static int append_field(struct iok_call *call, PyObject *field)
{
    PyObject *pair = PySequence_Fast(field, "each header must be a pair of bytes: name, value");
    if (pair == NULL) {
        return -1;
    }
    int done = -1;
    if (PySequence_Fast_GET_SIZE(pair) != 2 || !PyBytes_Check(PySequence_Fast_GET_ITEM(pair, 0)) ||
        !PyBytes_Check(PySequence_Fast_GET_ITEM(pair, 1))) {
        refuse_field(pair);
    } else {
        for (Py_ssize_t i = 0; i < 2; i++) {
            PyObject *text = PySequence_Fast_GET_ITEM(pair, i);
            iok_call_bytes(call, PyBytes_AS_STRING(text), (size_t)PyBytes_GET_SIZE(text));
        }
        done = 0;
    }
    Py_DECREF(pair);
    return done;
}

int answer_append_head(struct iok_call *call, int status, PyObject *headers)
{
    Py_ssize_t n = PySequence_Fast_GET_SIZE(headers);
    iok_call_array(call, 4);
    iok_call_i64(call, status);
    iok_call_null(call);
    iok_call_array(call, (uint32_t)n * 2);
    for (Py_ssize_t i = 0; i < n; i++) {
        if (append_field(call, PySequence_Fast_GET_ITEM(headers, i)) < 0) {
            return -1;
        }
    }
    return 0;
}

void answer_append_empty(struct iok_call *call, int status)
{
    iok_call_array(call, 4);
    iok_call_i64(call, status);
    iok_call_null(call);
    iok_call_array(call, 0);
    iok_call_static(call, "", 0);
}

/* The answer is complete: the call is free for another request. */
void answer_done(struct exchange *exchange)
{
    exchange->answer = ANSWER_DONE;
    exchange->call = NULL;
    Py_CLEAR(exchange->headers);
    if (UNLIKELY(exchange->received.one != NULL) && bell_ring(&exchange->received, NULL) < 0) {
        PyErr_WriteUnraisable((PyObject *)exchange);
    }
}

int answer_whole(struct exchange *exchange, PyObject *body)
{
    struct iok_call *call = exchange->call;
    if (answer_append_head(call, exchange->status, exchange->headers) < 0) {
        return -1;
    }
    if (body == NULL || PyObject_Length(body) == 0) {
        iok_call_static(call, "", 0);
    } else if (build_argument(call, body, true, 1) < 0) {
        return -1;
    }
    if (asgi_give_back(exchange->asgi, call) < 0) {
        return -1;
    }
    if (body != NULL && PyObject_Length(body) >= REFER_BYTES_MIN) {
        exchange->asgi->waiting--;
        asgi_count_slow(exchange->asgi, call);
    }
    answer_done(exchange);
    return 0;
}

int answer_head(struct exchange *exchange)
{
    struct iok_call *call = exchange->call;
    if (answer_append_head(call, exchange->status, exchange->headers) < 0) {
        return -1;
    }
    iok_call_null(call);
    iok_call_body(call);
    int rc = iok_submit(call);
    if (UNLIKELY(rc == IOK_EOVERLOAD)) {
        answer_set_overloaded(call);
        return -1;
    }
    if (UNLIKELY(rc < 0)) {
        return answer_refused(call, "the answer");
    }
    Py_CLEAR(exchange->headers);
    exchange->answer = ANSWER_BODY;
    return 0;
}

int answer_error(struct exchange *exchange, int status, const char *text)
{
    exchange->status = status;
    PyObject *headers = Py_BuildValue("[(yy)]", "content-type", "text/plain; charset=utf-8");
    PyObject *body = PyBytes_FromString(text);
    if (headers != NULL && body != NULL) {
        Py_XSETREF(exchange->headers, headers);
        exchange->answer = ANSWER_HEAD;
        int done = answer_whole(exchange, body);
        Py_DECREF(body);
        return done;
    }
    Py_XDECREF(headers);
    Py_XDECREF(body);
    return -1;
}

void answer_end(struct exchange *exchange)
{
    asgi_count_slow(exchange->asgi, exchange->call);
    answer_done(exchange);
}

void answer_cut(struct exchange *exchange)
{
    asgi_replace(exchange->asgi, exchange->call);
    answer_done(exchange);
}

void answer_break(struct exchange *exchange, const char *why)
{
    if (UNLIKELY(answer_part(exchange, NULL, false, why) < 0)) {
        PyErr_Clear(); /* the client sees the same */
        answer_cut(exchange);
        return;
    }
    answer_end(exchange);
}
