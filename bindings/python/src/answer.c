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
    if (UNLIKELY(iok_call_error(call, &err) == IOK_EINVAL)) { /* the parts and Content-Length do not agree */
        if (drain != NULL) {
            task_settle(drain);
        }
        exchange_report_refused(exchange, &err);
    }
    iok_call_free(call);
    Py_DECREF(part);
    int told = exchange->lent_bytes <= LENT_BYTES_MAX ? bell_ring(&exchange->sent, drain) : 0;
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
    if (iok_submit(call) < 0) {
        (void)answer_refused(call, "a part of the body");
        iok_call_free(call);
        Py_DECREF(part);
        return -1;
    }
    exchange->lent_bytes += bytes;
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

static int append_field(struct iok_call *call, PyObject *field)
{
    PyObject *pair = PySequence_Fast(field, "each header must be a pair of bytes: name, value");
    if (pair == NULL) {
        return -1;
    }
    int done = -1;
    if (PySequence_Fast_GET_SIZE(pair) != 2 || !PyBytes_Check(PySequence_Fast_GET_ITEM(pair, 0)) ||
        !PyBytes_Check(PySequence_Fast_GET_ITEM(pair, 1))) {
        PyErr_Format(PyExc_TypeError, "each header must be a pair of bytes: name, value; not %R", field);
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
    if (iok_submit(call) < 0) {
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
    iok_call_set_user(exchange->call, exchange->asgi);
    exchange->asgi->waiting++;
    answer_done(exchange);
}

void answer_break(struct exchange *exchange, const char *why)
{
    if (answer_part(exchange, NULL, false, why) < 0) {
        PyErr_WriteUnraisable((PyObject *)exchange);
    }
    answer_end(exchange);
}
