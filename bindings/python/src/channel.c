/* channel.c - receive() and send() of one request, as callables, and what they return.
 *
 * send() acts when it is called; what it returns is ready, unless too much of the answer is still to be taken by the
 * system. receive() looks when it is awaited. So neither suspends its task unless it has to, and what is ready costs no
 * future. Both results can be awaited, and made a task of, like coroutines.
 *
 * The answer goes out in one piece if its body comes in one message; else by parts (answer.c), and send() waits while more
 * than LENT_BYTES_MAX or LENT_PARTS_MAX of them are lent. If the port has no room for more, the message is held; each
 * drain, which is where room comes from, tries again. */
#include "serve.h"

#define HELD_MAX 64 /* messages of one answer: who awaits send() never has more than one */

static struct {
    PyObject *type, *status, *headers, *body, *more_body, *path;
    PyObject *http_request, *http_disconnect;
} word;

/* ---- bells --------------------------------------------------------------------------------------------------- */

/* A Reply that ends when it rings. A new reference. */
static PyObject *bell_wait(struct bell *bell, struct exchange *owner)
{
    struct py_reply *reply = reply_new(owner->asgi->port, NULL, (PyObject *)owner);
    if (reply == NULL) {
        return NULL;
    }
    if (bell->one == NULL || ((struct py_reply *)bell->one)->state != REPLY_PENDING) {
        Py_XSETREF(bell->one, Py_NewRef((PyObject *)reply));
    } else {
        if (bell->more == NULL) {
            bell->more = PyList_New(0);
        }
        if (bell->more == NULL || PyList_Append(bell->more, (PyObject *)reply) < 0) {
            Py_DECREF(reply);
            return NULL;
        }
    }
    reply_start(reply);
    return (PyObject *)reply;
}

static int bell_end(PyObject *op, struct py_port *drain)
{
    struct py_reply *reply = (struct py_reply *)op;
    if (reply->state != REPLY_PENDING) { /* cancelled */
        return 0;
    }
    return reply_end(reply, Py_NewRef(Py_None), drain);
}

int bell_ring(struct bell *bell, struct py_port *drain)
{
    PyObject *one = bell->one, *more = bell->more;
    bell->one = bell->more = NULL;
    int told = one == NULL ? 0 : bell_end(one, drain);
    for (Py_ssize_t i = 0; told == 0 && more != NULL && i < PyList_GET_SIZE(more); i++) {
        told = bell_end(PyList_GET_ITEM(more, i), drain);
    }
    Py_XDECREF(one);
    Py_XDECREF(more);
    return told;
}

int bell_traverse(const struct bell *bell, visitproc visit, void *arg)
{
    Py_VISIT(bell->one);
    Py_VISIT(bell->more);
    return 0;
}

void bell_clear(struct bell *bell)
{
    Py_CLEAR(bell->one);
    Py_CLEAR(bell->more);
}

/* ---- what is awaited ----------------------------------------------------------------------------------------- */

/* Gives the next message, or for send() that there is room. NULL without an exception: it has to wait. */
typedef PyObject *(*look_fn)(struct exchange *exchange);

struct waiting {
    PyObject_HEAD
    struct exchange *exchange; /* a reference; NULL once it has given its value */
    struct bell *bell;         /* the exchange's */
    look_fn look;
    PyObject *reply; /* what it waits for */
};

static PyTypeObject waiting_type;

/* Awaiting is nearly always over at once: a few of them are kept. */
#define FREE_MAX 64
static struct waiting *free_waiting[FREE_MAX];
static int n_free;

static PyObject *waiting_new(struct exchange *exchange, struct bell *bell, look_fn look)
{
    struct waiting *self;
    if (LIKELY(n_free > 0)) {
        self = free_waiting[--n_free];
        _Py_NewReference((PyObject *)self);
    } else {
        self = PyObject_GC_New(struct waiting, &waiting_type);
        if (self == NULL) {
            return NULL;
        }
    }
    self->exchange = (struct exchange *)Py_NewRef((PyObject *)exchange);
    self->bell = bell;
    self->look = look;
    self->reply = NULL;
    PyObject_GC_Track((PyObject *)self);
    return (PyObject *)self;
}

static int waiting_traverse(PyObject *op, visitproc visit, void *arg)
{
    struct waiting *self = (struct waiting *)op;
    Py_VISIT(self->exchange);
    Py_VISIT(self->reply);
    return 0;
}

static int waiting_clear(PyObject *op)
{
    struct waiting *self = (struct waiting *)op;
    Py_CLEAR(self->exchange);
    Py_CLEAR(self->reply);
    return 0;
}

static void waiting_dealloc(PyObject *op)
{
    PyObject_GC_UnTrack(op);
    waiting_clear(op);
    if (n_free < FREE_MAX) {
        free_waiting[n_free++] = (struct waiting *)op;
    } else {
        PyObject_GC_Del(op);
    }
}

static PySendResult waiting_send(PyObject *op, PyObject *Py_UNUSED(value), PyObject **result)
{
    struct waiting *self = (struct waiting *)op;
    *result = NULL;
    if (UNLIKELY(self->exchange == NULL)) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    }
    for (;;) {
        if (self->reply != NULL) {
            PySendResult how = PyIter_Send(self->reply, Py_None, result);
            if (how != PYGEN_RETURN) {
                return how;
            }
            Py_CLEAR(*result);
            Py_CLEAR(self->reply);
        }
        *result = self->look(self->exchange);
        if (*result != NULL || PyErr_Occurred()) {
            Py_CLEAR(self->exchange);
            return *result != NULL ? PYGEN_RETURN : PYGEN_ERROR;
        }
        self->reply = bell_wait(self->bell, self->exchange);
        if (self->reply == NULL) {
            return PYGEN_ERROR;
        }
    }
}

static PyObject *waiting_next(PyObject *op)
{
    PyObject *result;
    PySendResult how = waiting_send(op, NULL, &result);
    return reply_of_send(how, result);
}

static PyObject *waiting_send_method(PyObject *op, PyObject *Py_UNUSED(value))
{
    PyObject *result;
    PySendResult how = waiting_send(op, NULL, &result);
    if (how == PYGEN_RETURN && result == Py_None) {
        Py_DECREF(result);
        PyErr_SetNone(PyExc_StopIteration);
        return NULL;
    }
    return reply_of_send(how, result);
}

static PyObject *waiting_throw(PyObject *op, PyObject *args)
{
    waiting_clear(op);
    PyObject *type = NULL, *value = Py_None, *traceback = Py_None;
    if (!PyArg_UnpackTuple(args, "throw", 1, 3, &type, &value, &traceback)) {
        return NULL;
    }
    PyErr_SetObject(PyExceptionInstance_Check(type) ? (PyObject *)Py_TYPE(type) : type,
                    PyExceptionInstance_Check(type) ? type : value);
    return NULL;
}

static PyObject *waiting_close(PyObject *op, PyObject *Py_UNUSED(unused))
{
    waiting_clear(op);
    Py_RETURN_NONE;
}

static PyMethodDef waiting_methods[] = {
    {"send", waiting_send_method, METH_O, NULL},
    {"throw", waiting_throw, METH_VARARGS, NULL},
    {"close", waiting_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyAsyncMethods waiting_async = {.am_await = PyObject_SelfIter, .am_send = waiting_send};

static PyTypeObject waiting_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "iokernel._core.Waiting",
    .tp_basicsize = sizeof(struct waiting),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_traverse = waiting_traverse,
    .tp_clear = waiting_clear,
    .tp_dealloc = waiting_dealloc,
    .tp_as_async = &waiting_async,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = waiting_next,
    .tp_methods = waiting_methods,
};

/* ---- receive() ----------------------------------------------------------------------------------------------- */

/* Takes data over, which may be NULL with an exception. */
static PyObject *message_request(PyObject *data, bool more)
{
    PyObject *message = data == NULL ? NULL : PyDict_New();
    if (message != NULL &&
        (PyDict_SetItem(message, word.type, word.http_request) < 0 || PyDict_SetItem(message, word.body, data) < 0 ||
         PyDict_SetItem(message, word.more_body, more ? Py_True : Py_False) < 0)) {
        Py_CLEAR(message);
    }
    Py_XDECREF(data);
    return message;
}

static PyObject *message_disconnect(struct exchange *exchange)
{
    exchange->told_gone = true;
    PyObject *message = PyDict_New();
    if (message != NULL && PyDict_SetItem(message, word.type, word.http_disconnect) < 0) {
        Py_CLEAR(message);
    }
    return message;
}

/* The next part of a body that did not come whole; its last message is an array, and tells of the end only. */
static PyObject *receive_part(struct exchange *exchange)
{
    struct iok_call *call = exchange->call;
    size_t n;
    const struct iok_token *token = iok_call_message(call, &n);
    if (token == NULL && iok_serve_expects_body(call) && iok_serve_state(call) == IOK_SERVE_REQUEST) {
        return NULL;
    }
    if (token == NULL && iok_serve_expects_body(call)) {
        return message_disconnect(exchange); /* within the body */
    }
    PyObject *data = NULL;
    if (token != NULL) {
        bool last = token->type != IOK_BYTES;
        data = PyBytes_FromStringAndSize(last ? NULL : (const char *)token->p, last ? 0 : (Py_ssize_t)token->len);
        iok_call_next(call);
        if (!last && (token = iok_call_message(call, &n)) != NULL && token->type != IOK_BYTES) {
            iok_call_next(call);
        }
    }
    bool more = iok_serve_expects_body(call);
    exchange->body_given = !more;
    return message_request(data != NULL ? data : PyBytes_FromStringAndSize(NULL, 0), more);
}

static PyObject *receive_look(struct exchange *exchange)
{
    if (exchange->gone || exchange->answer == ANSWER_DONE || exchange->link == NULL) {
        return message_disconnect(exchange);
    }
    if (exchange->body_given) {
        enum iok_serve_state state = iok_serve_state(exchange->call);
        return state == IOK_SERVE_LEFT || state == IOK_SERVE_GONE ? message_disconnect(exchange) : NULL;
    }
    struct request request;
    if (!request_read(&request, exchange->call) || request.body.type == IOK_NULL) {
        return receive_part(exchange);
    }
    exchange->body_given = true;
    return message_request(PyBytes_FromStringAndSize((const char *)request.body.p, (Py_ssize_t)request.body.len),
                           false);
}

/* ---- messages of http ---------------------------------------------------------------------------------------- */

int channel_on_start(struct exchange *exchange, PyObject *message)
{
    if (UNLIKELY(exchange->answer != ANSWER_NONE)) {
        PyErr_SetString(PyExc_RuntimeError, "http.response.start came twice");
        return -1;
    }
    PyObject *status = PyDict_GetItemWithError(message, word.status);
    if (status == NULL || !PyLong_Check(status)) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "http.response.start: status must be an int");
        }
        return -1;
    }
    PyObject *headers = PyDict_GetItemWithError(message, word.headers);
    if (headers == NULL && PyErr_Occurred()) {
        return -1;
    }
    int overflow;
    long code = PyLong_AsLongAndOverflow(status, &overflow);
    if (overflow != 0 || code < 200 || code > 999) {
        PyErr_Format(PyExc_ValueError, "http.response.start: status must be from 200 to 999, not %S", status);
        return -1;
    }
    exchange->headers =
        headers == NULL ? PyTuple_New(0) : PySequence_Fast(headers, "http.response.start: headers must be pairs");
    if (exchange->headers == NULL) {
        return -1;
    }
    exchange->status = (int)code;
    exchange->answer = ANSWER_HEAD;
    return 0;
}

int channel_on_body(struct exchange *exchange, PyObject *message)
{
    if (UNLIKELY(exchange->answer == ANSWER_NONE || exchange->answer == ANSWER_DONE)) {
        PyErr_SetString(PyExc_RuntimeError, exchange->answer == ANSWER_NONE
                                                ? "http.response.body came before http.response.start"
                                                : "http.response.body came after the end of the body");
        return -1;
    }
    PyObject *more = PyDict_GetItemWithError(message, word.more_body);
    PyObject *body = more == NULL && PyErr_Occurred() ? NULL : PyDict_GetItemWithError(message, word.body);
    if (UNLIKELY(body == NULL && PyErr_Occurred())) {
        return -1;
    }
    if (UNLIKELY(body != NULL && !PyObject_CheckBuffer(body))) {
        PyErr_Format(PyExc_TypeError, "http.response.body: body must be bytes, not %.100s", Py_TYPE(body)->tp_name);
        return -1;
    }
    int goes_on = more == NULL ? 0 : PyObject_IsTrue(more);
    if (goes_on < 0) {
        return -1;
    }
    if (LIKELY(goes_on == 0 && exchange->answer == ANSWER_HEAD)) {
        return answer_whole(exchange, body);
    }
    if (exchange->answer == ANSWER_HEAD && answer_head(exchange) < 0) {
        return -1;
    }
    bool empty = body == NULL || PyObject_Length(body) == 0;
    if ((!empty || goes_on == 0) && answer_part(exchange, empty ? NULL : body, goes_on == 0, NULL) < 0) {
        return -1;
    }
    if (goes_on == 0) {
        answer_end(exchange);
    }
    return 0;
}

static int client_is_gone(void)
{
    PyErr_SetString(client_gone, "the client has gone");
    return -1;
}

static int on_message(struct exchange *exchange, PyObject *message)
{
    if (UNLIKELY(!PyDict_Check(message))) {
        PyErr_Format(PyExc_TypeError, "a message must be a dict, not %.100s", Py_TYPE(message)->tp_name);
        return -1;
    }
    PyObject *type = PyDict_GetItemWithError(message, word.type);
    if (UNLIKELY(type == NULL || !PyUnicode_Check(type))) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "a message must have a type, a str");
        }
        return -1;
    }
    if (UNLIKELY(exchange->gone)) {
        return client_is_gone();
    }
    if (UNLIKELY(exchange->file >= 0)) {
        PyErr_Format(PyExc_RuntimeError, "%R came before http.response.pathsend was through", type);
        return -1;
    }
    if (UNLIKELY(exchange->socket != SOCKET_NONE)) {
        return websocket_send(exchange, type, message);
    }
    if (LIKELY(TEXT_IS(type, "http.response.body"))) {
        return channel_on_body(exchange, message);
    }
    if (LIKELY(TEXT_IS(type, "http.response.start"))) {
        return channel_on_start(exchange, message);
    }
    if (TEXT_IS(type, "http.response.pathsend")) {
        PyObject *path = PyDict_GetItemWithError(message, word.path);
        return path == NULL && PyErr_Occurred() ? -1 : pathsend_start(exchange, path);
    }
    PyErr_Format(PyExc_RuntimeError, "%R is no message of http that an application can send here", type);
    return -1;
}

/* ---- a port without room ------------------------------------------------------------------------------------- */

/* The exception is that a port's bounds are reached; it is no more. */
static bool take_overloaded(void)
{
    static PyObject *overloaded;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (overloaded == NULL) {
        overloaded = core_import("iokernel.errors", "Overloaded");
        PyErr_Clear();
    }
    bool is = overloaded != NULL && PyErr_GivenExceptionMatches(type, overloaded);
    if (is) {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
    } else {
        PyErr_Restore(type, value, traceback);
    }
    return is;
}

static int starve(struct exchange *exchange)
{
    struct py_port *port = exchange->asgi->port;
    if (port->starved == NULL && (port->starved = PyList_New(0)) == NULL) {
        return -1;
    }
    return PyList_Append(port->starved, (PyObject *)exchange);
}

/* It is sent when there is room, whether or not somebody waits for that. */
static int hold(struct exchange *exchange, PyObject *message)
{
    if (exchange->held == NULL) {
        exchange->held = PyList_New(0);
        if (exchange->held == NULL || starve(exchange) < 0) {
            Py_CLEAR(exchange->held);
            return -1;
        }
    } else if (PyList_GET_SIZE(exchange->held) >= HELD_MAX) {
        fail_code(IOK_EOVERLOAD, "messages are sent without waiting for those before, and there is no room for them",
                  NULL);
        return -1;
    }
    return PyList_Append(exchange->held, message);
}

static int send_message(struct exchange *exchange, PyObject *message)
{
    if (LIKELY(exchange->held == NULL || exchange->gone)) {
        if (LIKELY(on_message(exchange, message) == 0)) {
            return 0;
        }
        if (!take_overloaded()) {
            return -1;
        }
    }
    return hold(exchange, message);
}

int channel_retry(struct exchange *exchange, struct py_port *drain)
{
    while (exchange->held != NULL && PyList_GET_SIZE(exchange->held) > 0 && !exchange->gone) {
        PyObject *message = Py_NewRef(PyList_GET_ITEM(exchange->held, 0));
        int done = on_message(exchange, message);
        Py_DECREF(message);
        if (done < 0 && take_overloaded() && starve(exchange) == 0) {
            return 0;
        }
        if (PyErr_Occurred()) {
            Py_XSETREF(exchange->held_error, fail_take());
            break;
        }
        if (PyList_SetSlice(exchange->held, 0, 1, NULL) < 0) {
            return -1;
        }
    }
    Py_CLEAR(exchange->held);
    return bell_ring(&exchange->sent, drain);
}

static PyObject *send_look(struct exchange *exchange)
{
    if (UNLIKELY(exchange->held_error != NULL)) {
        PyObject *error = exchange->held_error;
        exchange->held_error = NULL;
        fail_raise(error);
        return NULL;
    }
    if (exchange->gone) {
        (void)client_is_gone();
        return NULL;
    }
    if (UNLIKELY(exchange->file >= 0) && pathsend_go_on(exchange) < 0 && (!take_overloaded() || starve(exchange) < 0)) {
        return NULL;
    }
    bool ready = exchange->answer == ANSWER_DONE || (answer_has_room(exchange) && exchange->file < 0);
    return ready ? Py_NewRef(Py_None) : NULL;
}

/* ---- the callables ------------------------------------------------------------------------------------------- */

struct channel {
    PyObject_HEAD
    struct exchange *exchange; /* a reference */
    vectorcallfunc call;
};

static PyTypeObject receive_type, send_type;

/* The result of a send() that need not wait: one for all. */
struct ready {
    PyObject_HEAD
};

static PySendResult ready_send(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(value), PyObject **result)
{
    *result = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}

static PyObject *ready_next(PyObject *Py_UNUSED(op))
{
    return NULL;
}

static PyObject *ready_send_method(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(value))
{
    PyErr_SetNone(PyExc_StopIteration);
    return NULL;
}

static PyObject *ready_close(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(unused))
{
    Py_RETURN_NONE;
}

static PyObject *ready_throw(PyObject *Py_UNUSED(op), PyObject *args)
{
    PyObject *type = NULL, *value = Py_None, *traceback = Py_None;
    if (PyArg_UnpackTuple(args, "throw", 1, 3, &type, &value, &traceback)) {
        PyErr_SetObject(PyExceptionInstance_Check(type) ? (PyObject *)Py_TYPE(type) : type,
                        PyExceptionInstance_Check(type) ? type : value);
    }
    return NULL;
}

static PyMethodDef ready_methods[] = {
    {"send", ready_send_method, METH_O, NULL},
    {"throw", ready_throw, METH_VARARGS, NULL},
    {"close", ready_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyAsyncMethods ready_async = {.am_await = PyObject_SelfIter, .am_send = ready_send};

static PyTypeObject ready_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "iokernel._core.Ready",
    .tp_basicsize = sizeof(struct ready),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_as_async = &ready_async,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = ready_next,
    .tp_methods = ready_methods,
};
static PyObject *ready;

static PyObject *call_receive(PyObject *op, PyObject *const *Py_UNUSED(args), size_t nargs, PyObject *kwnames)
{
    if (UNLIKELY(PyVectorcall_NARGS(nargs) != 0 || (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0))) {
        PyErr_SetString(PyExc_TypeError, "receive() takes no arguments");
        return NULL;
    }
    struct exchange *exchange = ((struct channel *)op)->exchange;
    return waiting_new(exchange, &exchange->received, exchange->socket == SOCKET_NONE ? receive_look : websocket_look);
}

static PyObject *call_send(PyObject *op, PyObject *const *args, size_t nargs, PyObject *kwnames)
{
    Py_ssize_t n_names = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (UNLIKELY(PyVectorcall_NARGS(nargs) + n_names != 1)) {
        PyErr_SetString(PyExc_TypeError, "send() takes one message");
        return NULL;
    }
    struct exchange *exchange = ((struct channel *)op)->exchange;
    if (UNLIKELY(send_message(exchange, args[0]) < 0)) {
        return NULL;
    }
    if (LIKELY(exchange->answer == ANSWER_DONE || (answer_has_room(exchange) && exchange->file < 0))) {
        return Py_NewRef(ready);
    }
    return waiting_new(exchange, &exchange->sent, send_look);
}

static PyObject *channel_new(PyTypeObject *type, struct exchange *exchange, vectorcallfunc call)
{
    struct channel *self = PyObject_GC_New(struct channel, type);
    if (self == NULL) {
        return NULL;
    }
    self->exchange = (struct exchange *)Py_NewRef((PyObject *)exchange);
    self->call = call;
    PyObject_GC_Track((PyObject *)self);
    return (PyObject *)self;
}

static int channel_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(((struct channel *)op)->exchange);
    return 0;
}

static int channel_clear(PyObject *op)
{
    Py_CLEAR(((struct channel *)op)->exchange);
    return 0;
}

static void channel_dealloc(PyObject *op)
{
    PyObject_GC_UnTrack(op);
    channel_clear(op);
    PyObject_GC_Del(op);
}

PyObject *channel_receive(struct exchange *exchange)
{
    return channel_new(&receive_type, exchange, call_receive);
}

PyObject *channel_send(struct exchange *exchange)
{
    return channel_new(&send_type, exchange, call_send);
}

#define CHANNEL_TYPE(NAME, DOC)                                                                                        \
    {                                                                                                                  \
        PyVarObject_HEAD_INIT(NULL, 0).tp_name = "iokernel._core." NAME, .tp_doc = DOC,                                \
                                    .tp_basicsize = sizeof(struct channel),                                            \
                                    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | \
                                                Py_TPFLAGS_DISALLOW_INSTANTIATION,                                     \
                                    .tp_traverse = channel_traverse, .tp_clear = channel_clear,                        \
                                    .tp_dealloc = channel_dealloc,                                                     \
                                    .tp_vectorcall_offset = offsetof(struct channel, call),                            \
                                    .tp_call = PyVectorcall_Call                                                       \
    }

static PyTypeObject receive_type = CHANNEL_TYPE("Receive", "receive(): the next message of the client.");
static PyTypeObject send_type = CHANNEL_TYPE("Send", "send(message): a part of the answer.");

int serve_news(PyObject *user, struct iok_call *call, struct py_port *drain)
{
    if (LIKELY(Py_IS_TYPE(user, &asgi_type))) {
        return asgi_news((struct asgi *)user, call, drain);
    }
    if (Py_IS_TYPE(user, &asgi_slow_type)) {
        return asgi_slow_news((struct asgi_slow *)user, call, drain);
    }
    if (Py_IS_TYPE(user, &part_type)) {
        return part_news((struct part *)user, call, drain);
    }
    return exchange_news((struct exchange *)user, call, drain);
}

int channel_init_types(PyObject *module)
{
    static const struct {
        PyObject **at;
        const char *text;
    } words[] = {
        {&word.type, "type"},
        {&word.status, "status"},
        {&word.headers, "headers"},
        {&word.body, "body"},
        {&word.more_body, "more_body"},
        {&word.path, "path"},
        {&word.http_request, "http.request"},
        {&word.http_disconnect, "http.disconnect"},
    };
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        if (*words[i].at == NULL && (*words[i].at = PyUnicode_InternFromString(words[i].text)) == NULL) {
            return -1;
        }
    }
    if (websocket_init() < 0 || PyType_Ready(&waiting_type) < 0 || PyType_Ready(&asgi_slow_type) < 0 ||
        PyType_Ready(&part_type) < 0 || PyType_Ready(&ready_type) < 0) {
        return -1;
    }
    if (ready == NULL && (ready = (PyObject *)PyObject_New(struct ready, &ready_type)) == NULL) {
        return -1;
    }
    return PyModule_AddType(module, &receive_type) < 0 ? -1 : PyModule_AddType(module, &send_type);
}
