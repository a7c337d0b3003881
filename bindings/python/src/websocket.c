/* websocket.c - WebSocket for ASGI: what receive() gives and send() takes once a request asks for one.
 *
 *     ASKED ──connect is received──> TOLD ──websocket.accept──> OPEN ──either side closes──> CLOSED
 *                                      └──websocket.close, or an answer of http──> CLOSED (403, or that)
 *
 * The kernel does the opening, frames, pings and compression; here are whole messages. Whether the request asks rightly
 * is the kernel's to say: it gives a wrong one back when it is accepted, and then it is answered by 400 or 426. */
#include "serve.h"

#define CODE_NORMAL 1000  /* RFC 6455, 7.4.1 */
#define CODE_NO_CODE 1005 /* told when a close had none */
#define CODE_LOST 1006    /* told when there was no close */
#define CODE_FAILED 1011
#define CODE_RESTART 1012

static struct {
    PyObject *type, *text, *bytes, *code, *reason, *subprotocol, *subprotocols, *headers, *scheme, *method, *extensions;
    PyObject *websocket, *ws, *wss, *connect, *receive, *disconnect, *denial;
} word;

/* ---- the request --------------------------------------------------------------------------------------------- */

static bool field_is(const struct iok_token *token, const char *name, const char *value)
{
    size_t n = strlen(name), m = strlen(value);
    if (token->len != n || memcmp(token->p, name, n) != 0 || token[1].len != m) {
        return false;
    }
    for (size_t i = 0; i < m; i++) {
        if ((token[1].p[i] | 0x20) != value[i]) {
            return false;
        }
    }
    return true;
}

bool websocket_is_asked(const struct request *request)
{
    for (uint32_t i = 0; i + 1 < request->n_fields; i += 2) {
        if (field_is(request->fields + i, "upgrade", "websocket")) {
            return request->method.len == 3 && memcmp(request->method.p, "GET", 3) == 0;
        }
    }
    return false;
}

/* Appends the elements of "a, b". */
static int append_list(PyObject *list, const struct iok_token *value)
{
    const char *p = (const char *)value->p, *end = p + value->len;
    while (p < end) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        const char *stop = comma == NULL ? end : comma;
        const char *next = comma == NULL ? end : comma + 1;
        while (p < stop && (*p == ' ' || *p == '\t')) {
            p++;
        }
        while (stop > p && (stop[-1] == ' ' || stop[-1] == '\t')) {
            stop--;
        }
        PyObject *text = stop == p ? NULL : PyUnicode_DecodeLatin1(p, stop - p, NULL);
        int done = stop == p ? 0 : text == NULL ? -1 : PyList_Append(list, text);
        Py_XDECREF(text);
        if (done < 0) {
            return -1;
        }
        p = next;
    }
    return 0;
}

int websocket_scope(PyObject *scope, const struct request *request)
{
    PyObject *subprotocols = PyList_New(0);
    int done = subprotocols == NULL ? -1 : 0;
    for (uint32_t i = 0; done == 0 && i + 1 < request->n_fields; i += 2) {
        const struct iok_token *token = request->fields + i;
        if (token->len == 22 && memcmp(token->p, "sec-websocket-protocol", 22) == 0) {
            done = append_list(subprotocols, token + 1);
        }
    }
    PyObject *scheme = PyDict_GetItemWithError(scope, word.scheme);
    bool secure = scheme != NULL && PyUnicode_CompareWithASCIIString(scheme, "https") == 0;
    PyObject *extensions = Py_BuildValue("{O:{}}", word.denial);
    if (done < 0 || extensions == NULL || PyDict_SetItem(scope, word.type, word.websocket) < 0 ||
        PyDict_SetItem(scope, word.scheme, secure ? word.wss : word.ws) < 0 ||
        PyDict_SetItem(scope, word.subprotocols, subprotocols) < 0 ||
        PyDict_SetItem(scope, word.extensions, extensions) < 0 || PyDict_DelItem(scope, word.method) < 0) {
        done = -1;
    }
    Py_XDECREF(subprotocols);
    Py_XDECREF(extensions);
    return done;
}

/* ---- receive() ----------------------------------------------------------------------------------------------- */

static PyObject *message_of_type(PyObject *type)
{
    PyObject *message = PyDict_New();
    if (message != NULL && PyDict_SetItem(message, word.type, type) < 0) {
        Py_CLEAR(message);
    }
    return message;
}

static PyObject *message_disconnect(const struct exchange *exchange)
{
    PyObject *message = message_of_type(word.disconnect);
    PyObject *code = PyLong_FromLong(exchange->close_code != 0 ? exchange->close_code : CODE_LOST);
    PyObject *reason =
        exchange->close_reason != NULL ? Py_NewRef(exchange->close_reason) : PyUnicode_FromStringAndSize(NULL, 0);
    if (message != NULL && (code == NULL || reason == NULL || PyDict_SetItem(message, word.code, code) < 0 ||
                            PyDict_SetItem(message, word.reason, reason) < 0)) {
        Py_CLEAR(message);
    }
    Py_XDECREF(code);
    Py_XDECREF(reason);
    return message;
}

/* "close", code, reason, clean */
static void note_close(struct exchange *exchange, const struct iok_token *token, size_t n)
{
    exchange->socket = SOCKET_CLOSED;
    exchange->close_code = n > 2 && token[2].type == IOK_I64 ? (int)token[2].i : CODE_NO_CODE;
    if (n > 3 && (token[3].type == IOK_TEXT || token[3].type == IOK_BYTES)) {
        Py_XSETREF(exchange->close_reason,
                   PyUnicode_DecodeUTF8((const char *)token[3].p, (Py_ssize_t)token[3].len, "replace"));
        PyErr_Clear(); /* then without */
    }
}

/* The next message as the application sees it; NULL without an exception if it sees none of it. */
static PyObject *take_message(struct exchange *exchange, const struct iok_token *token, size_t n)
{
    if (token->type == IOK_PUSH) {
        if (token->len > 2) { /* else a pong */
            note_close(exchange, token, n);
        }
        return NULL;
    }
    bool text = token->type == IOK_TEXT;
    PyObject *data = text ? PyUnicode_DecodeUTF8((const char *)token->p, (Py_ssize_t)token->len, NULL)
                          : PyBytes_FromStringAndSize((const char *)token->p, (Py_ssize_t)token->len);
    PyObject *message = data == NULL ? NULL : message_of_type(word.receive);
    if (message != NULL && PyDict_SetItem(message, text ? word.text : word.bytes, data) < 0) {
        Py_CLEAR(message);
    }
    Py_XDECREF(data);
    return message;
}

PyObject *websocket_look(struct exchange *exchange)
{
    if (exchange->socket == SOCKET_ASKED) {
        exchange->socket = SOCKET_TOLD;
        return message_of_type(word.connect);
    }
    while (exchange->socket == SOCKET_OPEN && exchange->call != NULL) {
        size_t n;
        const struct iok_token *token = iok_call_message(exchange->call, &n);
        if (token == NULL) {
            break;
        }
        PyObject *message = take_message(exchange, token, n);
        iok_call_next(exchange->call);
        if (message != NULL || PyErr_Occurred()) {
            return message;
        }
    }
    bool over = exchange->gone || exchange->call == NULL || exchange->socket == SOCKET_CLOSED;
    if (!over && exchange->socket == SOCKET_TOLD) {
        over = iok_serve_state(exchange->call) == IOK_SERVE_LEFT;
    }
    return over ? message_disconnect(exchange) : NULL;
}

/* ---- send() -------------------------------------------------------------------------------------------------- */

static int wrong_moment(PyObject *type)
{
    PyErr_Format(PyExc_RuntimeError, "%R is not possible at this moment of a WebSocket", type);
    return -1;
}

/* The fields of the opening: what the application adds, and the subprotocol. */
static PyObject *opening_fields(PyObject *message)
{
    PyObject *headers = PyDict_GetItemWithError(message, word.headers);
    PyObject *fields = headers == NULL ? (PyErr_Occurred() ? NULL : PyList_New(0)) : PySequence_List(headers);
    PyObject *subprotocol = fields == NULL ? NULL : PyDict_GetItemWithError(message, word.subprotocol);
    if (subprotocol != NULL && subprotocol != Py_None) {
        PyObject *value = PyUnicode_Check(subprotocol) ? PyUnicode_AsLatin1String(subprotocol) : NULL;
        PyObject *field = value == NULL ? NULL : Py_BuildValue("(yO)", "sec-websocket-protocol", value);
        if (value == NULL && !PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "websocket.accept: subprotocol must be a str");
        }
        if (field == NULL || PyList_Append(fields, field) < 0) {
            Py_CLEAR(fields);
        }
        Py_XDECREF(value);
        Py_XDECREF(field);
    }
    return fields;
}

static int on_accept(struct exchange *exchange, PyObject *message)
{
    PyObject *fields = opening_fields(message);
    if (fields == NULL) {
        return -1;
    }
    struct iok_call *call = exchange->call;
    int done = answer_append_head(call, 101, fields);
    Py_DECREF(fields);
    if (done < 0) {
        return -1;
    }
    iok_call_null(call);
    iok_serve_upgrade(call, IOK_UPGRADE_WEBSOCKET);
    if (iok_submit(call) < 0) {
        return answer_refused(call, "the answer to a WebSocket's opening");
    }
    exchange->status = 101;
    exchange->answer = ANSWER_BODY;
    exchange->socket = SOCKET_OPEN;
    if (UNLIKELY(exchange->asgi->closing)) { /* it came before that */
        websocket_restart(exchange);
    }
    return 0;
}

/* text or bytes, whichever is there and not None. */
static PyObject *data_of(PyObject *message)
{
    PyObject *text = PyDict_GetItemWithError(message, word.text);
    PyObject *bytes = PyErr_Occurred() ? NULL : PyDict_GetItemWithError(message, word.bytes);
    bool has_text = text != NULL && text != Py_None, has_bytes = bytes != NULL && bytes != Py_None;
    if (has_text != has_bytes && (has_text ? PyUnicode_Check(text) : PyObject_CheckBuffer(bytes))) {
        return has_text ? text : bytes;
    }
    if (!PyErr_Occurred()) {
        PyErr_SetString(PyExc_TypeError, "websocket.send: must have either text, a str, or bytes");
    }
    return NULL;
}

static int on_data(struct exchange *exchange, PyObject *message)
{
    PyObject *data = data_of(message);
    return data == NULL ? -1 : answer_part(exchange, data, false, NULL);
}

static int send_close(struct exchange *exchange, long code, PyObject *reason)
{
    struct iok_call *part = answer_part_new(exchange);
    if (part == NULL) {
        return -1;
    }
    bool said = reason != NULL && PyUnicode_Check(reason) && PyUnicode_GET_LENGTH(reason) > 0;
    iok_call_push(part, said ? 3 : 2);
    iok_call_static(part, "close", 5);
    iok_call_i64(part, code);
    if (said && build_argument(part, reason, true, 1) < 0) {
        iok_call_free(part);
        return -1;
    }
    iok_part_end(part);
    if (answer_part_submit(exchange, part, 0) < 0) {
        return -1;
    }
    exchange->socket = SOCKET_CLOSED;
    exchange->close_code = (int)code;
    Py_XSETREF(exchange->close_reason, said ? Py_NewRef(reason) : NULL);
    answer_end(exchange);
    return 0;
}

static int on_close(struct exchange *exchange, PyObject *message)
{
    if (exchange->socket != SOCKET_OPEN) {
        exchange->socket = SOCKET_CLOSED;
        return answer_error(exchange, 403, "");
    }
    PyObject *given = PyDict_GetItemWithError(message, word.code);
    PyObject *reason = PyErr_Occurred() ? NULL : PyDict_GetItemWithError(message, word.reason);
    if (PyErr_Occurred()) {
        return -1;
    }
    long code = given == NULL || given == Py_None ? CODE_NORMAL : PyLong_AsLong(given);
    if (code == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (code < 1000 || code > 4999) {
        PyErr_Format(PyExc_ValueError, "websocket.close: code must be from 1000 to 4999, not %ld", code);
        return -1;
    }
    return send_close(exchange, code, reason);
}

/* The client has closed, and the application says something all the same. */
static int after_close(struct exchange *exchange, PyObject *type)
{
    if (exchange->answer == ANSWER_DONE) {
        return wrong_moment(type);
    }
    PyErr_SetString(client_gone, "the WebSocket's client has closed it");
    return -1;
}

int websocket_send(struct exchange *exchange, PyObject *type, PyObject *message)
{
    bool unanswered = exchange->socket == SOCKET_ASKED || exchange->socket == SOCKET_TOLD;
    bool answering = unanswered && exchange->answer == ANSWER_NONE;
    if (TEXT_IS(type, "websocket.send") && exchange->socket == SOCKET_OPEN) {
        return on_data(exchange, message);
    }
    if (TEXT_IS(type, "websocket.accept") && answering) {
        return on_accept(exchange, message);
    }
    if (TEXT_IS(type, "websocket.close") && (answering || exchange->socket == SOCKET_OPEN)) {
        return on_close(exchange, message);
    }
    if (TEXT_IS(type, "websocket.http.response.start") && unanswered) {
        return channel_on_start(exchange, message);
    }
    if (TEXT_IS(type, "websocket.http.response.body") && unanswered) {
        return channel_on_body(exchange, message);
    }
    if (exchange->socket == SOCKET_CLOSED && (TEXT_IS(type, "websocket.send") || TEXT_IS(type, "websocket.close"))) {
        return after_close(exchange, type);
    }
    return wrong_moment(type);
}

void websocket_finish(struct exchange *exchange, bool failed)
{
    if (exchange->socket == SOCKET_CLOSED) { /* by the client */
        if (answer_part(exchange, NULL, true, NULL) < 0) {
            PyErr_Clear(); /* gone meanwhile */
            answer_cut(exchange);
            return;
        }
        answer_end(exchange);
    } else if (send_close(exchange, failed ? CODE_FAILED : CODE_NORMAL, NULL) < 0) {
        PyErr_WriteUnraisable((PyObject *)exchange);
        answer_break(exchange, "the application ended");
    }
}

void websocket_restart(struct exchange *exchange)
{
    if (send_close(exchange, CODE_RESTART, NULL) < 0) {
        PyErr_WriteUnraisable((PyObject *)exchange);
        return;
    }
    exchange->gone = true; /* for the application it is as if the client had closed it */
    if (bell_ring(&exchange->sent, NULL) < 0) {
        PyErr_WriteUnraisable((PyObject *)exchange);
    }
}

bool websocket_is_refused(struct exchange *exchange)
{
    struct iok_error err = {0};
    struct iok_call *call = exchange->call;
    if (exchange->socket != SOCKET_OPEN || iok_call_error(call, &err) == 0) {
        return false;
    }
    struct request request;
    bool version = false;
    for (uint32_t i = 0; request_read(&request, call) && i + 1 < request.n_fields; i += 2) {
        version |= field_is(request.fields + i, "sec-websocket-version", "13");
    }
    exchange_report_refused(exchange, &err);
    if (version) {
        answer_append_empty(call, 400);
        return true;
    }
    iok_call_array(call, 4);
    iok_call_i64(call, 426);
    iok_call_null(call);
    iok_call_array(call, 2);
    iok_call_static(call, "sec-websocket-version", 21);
    iok_call_static(call, "13", 2);
    iok_call_static(call, "", 0);
    return true;
}

int websocket_init(void)
{
    static const struct {
        PyObject **at;
        const char *text;
    } words[] = {
        {&word.type, "type"},
        {&word.text, "text"},
        {&word.bytes, "bytes"},
        {&word.code, "code"},
        {&word.reason, "reason"},
        {&word.subprotocol, "subprotocol"},
        {&word.subprotocols, "subprotocols"},
        {&word.headers, "headers"},
        {&word.scheme, "scheme"},
        {&word.method, "method"},
        {&word.extensions, "extensions"},
        {&word.websocket, "websocket"},
        {&word.ws, "ws"},
        {&word.wss, "wss"},
        {&word.connect, "websocket.connect"},
        {&word.receive, "websocket.receive"},
        {&word.disconnect, "websocket.disconnect"},
        {&word.denial, "websocket.http.response"},
    };
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        if (*words[i].at == NULL && (*words[i].at = PyUnicode_InternFromString(words[i].text)) == NULL) {
            return -1;
        }
    }
    return 0;
}
