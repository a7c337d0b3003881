/* scope.c - a request as ASGI's scope and as WSGI's environ.
 *
 * Both are copies of a dictionary of what stays the same, with the rest filled in. Fields that come again and again, and
 * hold no secret (host, user-agent ...), are kept as the objects that they became: a table by a hash of name and value.
 * Names are found by a perfect table of the usual ones, so an unusual name is the only one that is made anew. */
#include "serve.h"

#include <string.h>

/* Names that are met every day. shared: values are worth keeping, and are no secret. */
static const struct known {
    const char *name;
    bool shared;
} known[] = {
    {"host", true},
    {"user-agent", true},
    {"accept", true},
    {"accept-encoding", true},
    {"accept-language", true},
    {"connection", true},
    {"content-type", true},
    {"content-length", false},
    {"transfer-encoding", true},
    {"cookie", false},
    {"authorization", false},
    {"referer", false},
    {"origin", true},
    {"cache-control", true},
    {"pragma", true},
    {"upgrade", true},
    {"upgrade-insecure-requests", true},
    {"dnt", true},
    {"te", true},
    {"range", false},
    {"expect", true},
    {"if-none-match", false},
    {"if-modified-since", false},
    {"x-forwarded-for", false},
    {"x-forwarded-proto", true},
    {"x-forwarded-host", true},
    {"x-real-ip", false},
    {"x-request-id", false},
    {"x-requested-with", true},
    {"traceparent", false},
    {"sec-fetch-dest", true},
    {"sec-fetch-mode", true},
    {"sec-fetch-site", true},
    {"sec-fetch-user", true},
    {"sec-ch-ua", true},
    {"sec-ch-ua-mobile", true},
    {"sec-ch-ua-platform", true},
    {"sec-websocket-key", false},
    {"sec-websocket-version", true},
    {"sec-websocket-extensions", true},
    {"sec-websocket-protocol", true},
};
#define N_KNOWN (sizeof(known) / sizeof(*known))
#define NAMES_SLOTS 256 /* six times as many as names: a look-up hardly ever needs a second step */

static struct name {
    const char *text;
    size_t len;
    PyObject *bytes; /* of ASGI */
    PyObject *env;   /* HTTP_..., of WSGI */
    bool shared;
} names[NAMES_SLOTS];

/* Fields as they were: (name, value) of ASGI, or the str of WSGI. A collision replaces, so the table is bounded. */
#define FIELD_SLOTS 512
#define FIELD_BYTES_MAX 256 /* of a value that is kept: 128 KiB at most in all */
static struct field {
    const struct name *name;
    PyObject *pair; /* (name, value), bytes */
    PyObject *text; /* the value, str */
} fields[FIELD_SLOTS];

/* Peers, likewise: (host, port). */
#define PEER_SLOTS 256
#define PEER_BYTES_MAX 64
static struct peer {
    char text[PEER_BYTES_MAX];
    PyObject *pair;
} peers[PEER_SLOTS];

#define KEYS(X)                                                                                                        \
    X(method)                                                                                                          \
    X(path)                                                                                                            \
    X(raw_path)                                                                                                        \
    X(query_string)                                                                                                    \
    X(headers)                                                                                                         \
    X(client)                                                                                                          \
    X(scheme)                                                                                                          \
    X(http_version)                                                                                                    \
    X(state)                                                                                                           \
    X(asgi)                                                                                                            \
    X(extensions)                                                                                                      \
    X(REQUEST_METHOD)                                                                                                  \
    X(PATH_INFO)                                                                                                       \
    X(QUERY_STRING)                                                                                                    \
    X(REQUEST_URI)                                                                                                     \
    X(SERVER_PROTOCOL)                                                                                                 \
    X(REMOTE_ADDR)                                                                                                     \
    X(REMOTE_PORT)                                                                                                     \
    X(CONTENT_TYPE)                                                                                                    \
    X(CONTENT_LENGTH)                                                                                                  \
    X(http)                                                                                                            \
    X(https)
static struct {
#define KEY(name) PyObject *name;
    KEYS(KEY)
#undef KEY
    PyObject *wsgi_input, *wsgi_url_scheme, *http_1_0, *http_1_1, *version_1_0, *empty, *pathsend;
} key;

/* ---- small things -------------------------------------------------------------------------------------------- */

static uint32_t hash_of(const void *text, size_t n, uint32_t seed)
{
    const uint8_t *p = text;
    uint32_t h = seed ^ (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ p[i]) * 16777619u; /* FNV-1a */
    }
    return h ^ (h >> 15);
}

static const struct name *name_find(const struct iok_token *token)
{
    uint32_t slot = hash_of(token->p, token->len, 2166136261u);
    for (;; slot++) {
        const struct name *name = &names[slot % NAMES_SLOTS];
        if (name->text == NULL) {
            return NULL;
        }
        if (name->len == token->len && memcmp(name->text, token->p, token->len) == 0) {
            return name;
        }
    }
}

static PyObject *bytes_of(const struct iok_token *token)
{
    return PyBytes_FromStringAndSize((const char *)token->p, (Py_ssize_t)token->len);
}

static PyObject *latin1_of(const struct iok_token *token)
{
    return PyUnicode_DecodeLatin1((const char *)token->p, (Py_ssize_t)token->len, NULL);
}

/* Sets and drops the reference; false if value is NULL or it could not be set. */
static bool put(PyObject *dict, PyObject *name, PyObject *value)
{
    bool done = value != NULL && PyDict_SetItem(dict, name, value) == 0;
    Py_XDECREF(value);
    return done;
}

static int digit_of(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The path with %XX decoded, as bytes; what is no such triple stays. */
static PyObject *unquoted(const struct request *request)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)request->path_len);
    if (bytes == NULL) {
        return NULL;
    }
    uint8_t *to = (uint8_t *)PyBytes_AS_STRING(bytes);
    const uint8_t *p = request->path, *end = p + request->path_len;
    Py_ssize_t n = 0;
    while (p < end) {
        int high = *p == '%' && end - p > 2 ? digit_of(p[1]) : -1;
        int low = high < 0 ? -1 : digit_of(p[2]);
        to[n++] = low < 0 ? *p : (uint8_t)(high << 4 | low);
        p += low < 0 ? 1 : 3;
    }
    (void)_PyBytes_Resize(&bytes, n);
    return bytes;
}

/* ASGI: text of UTF-8. WSGI: each byte a character. */
static PyObject *path_of(const struct request *request, bool utf8)
{
    if (LIKELY(memchr(request->path, '%', request->path_len) == NULL)) {
        return PyUnicode_DecodeLatin1((const char *)request->path, (Py_ssize_t)request->path_len, NULL);
    }
    PyObject *bytes = unquoted(request);
    if (bytes == NULL) {
        return NULL;
    }
    const char *p = PyBytes_AS_STRING(bytes);
    PyObject *path = utf8 ? PyUnicode_DecodeUTF8(p, PyBytes_GET_SIZE(bytes), "replace")
                          : PyUnicode_DecodeLatin1(p, PyBytes_GET_SIZE(bytes), NULL);
    Py_DECREF(bytes);
    return path;
}

/* ---- the tape ------------------------------------------------------------------------------------------------ */

/* Of "http://host/path" that is "/path"; of "*" and "host:port" it is empty or itself: RFC 9112, 3.2. */
static void request_split(struct request *request)
{
    const uint8_t *p = request->target.p, *end = p + request->target.len;
    if (p < end && *p != '/') {
        const uint8_t *scheme = memchr(p, ':', (size_t)(end - p));
        if (scheme != NULL && end - scheme > 3 && scheme[1] == '/' && scheme[2] == '/') {
            p = scheme + 3;
            while (p < end && *p != '/' && *p != '?') {
                p++;
            }
        }
    }
    const uint8_t *mark = memchr(p, '?', (size_t)(end - p));
    request->path = p;
    request->path_len = (size_t)((mark == NULL ? end : mark) - p);
    request->query = mark == NULL ? end : mark + 1;
    request->query_len = (size_t)(end - request->query);
    if (request->path_len == 0) {
        request->path = (const uint8_t *)"/";
        request->path_len = 1;
    }
}

bool request_read(struct request *request, struct iok_call *call)
{
    size_t n;
    const struct iok_token *t = iok_call_reply(call, &n);
    if (n < 7 || t[0].type != IOK_ARRAY || t[0].len < 6 || t[4].type != IOK_ARRAY || n < 6 + (size_t)t[4].len) {
        return false;
    }
    *request = (struct request){
        .method = t[1],
        .target = t[2],
        .minor = t[3].i,
        .fields = t + 5,
        .n_fields = t[4].len,
        .body = t[5 + t[4].len],
    };
    request_split(request);
    return true;
}

/* ---- fields -------------------------------------------------------------------------------------------------- */

static struct field *field_slot(const struct name *name, const struct iok_token *value)
{
    if (name == NULL || !name->shared || value->len > FIELD_BYTES_MAX) {
        return NULL;
    }
    uint32_t hash = hash_of(value->p, value->len, (uint32_t)(name - names) * 2654435761u);
    return &fields[hash % FIELD_SLOTS];
}

static bool field_is(const struct field *field, const struct name *name, const struct iok_token *value)
{
    if (field->pair == NULL || field->name != name) {
        return false;
    }
    PyObject *kept = PyTuple_GET_ITEM(field->pair, 1);
    return (size_t)PyBytes_GET_SIZE(kept) == value->len && memcmp(PyBytes_AS_STRING(kept), value->p, value->len) == 0;
}

static PyObject *field_pair(const struct iok_token *token)
{
    const struct name *name = name_find(token);
    struct field *field = field_slot(name, token + 1);
    if (LIKELY(field != NULL && field_is(field, name, token + 1))) {
        return Py_NewRef(field->pair);
    }
    PyObject *first = name != NULL ? Py_NewRef(name->bytes) : bytes_of(token);
    PyObject *second = first == NULL ? NULL : bytes_of(token + 1);
    PyObject *pair = second == NULL ? NULL : PyTuple_New(2);
    if (pair == NULL) {
        Py_XDECREF(first);
        Py_XDECREF(second);
        return NULL;
    }
    PyTuple_SET_ITEM(pair, 0, first);
    PyTuple_SET_ITEM(pair, 1, second);
    if (field != NULL) {
        field->name = name;
        Py_XSETREF(field->pair, Py_NewRef(pair));
        Py_CLEAR(field->text);
    }
    return pair;
}

static PyObject *headers_of(const struct request *request)
{
    PyObject *list = PyList_New((Py_ssize_t)(request->n_fields / 2));
    for (uint32_t i = 0; list != NULL && i + 1 < request->n_fields; i += 2) {
        PyObject *pair = field_pair(request->fields + i);
        if (pair == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)(i / 2), pair);
    }
    return list;
}

/* ---- who and how --------------------------------------------------------------------------------------------- */

/* "127.0.0.1:80", "[::1]:80"; of unix sockets there is no peer to name, and "unknown" is no name. */
static PyObject *peer_parse(const char *text)
{
    const char *colon = strrchr(text, ':');
    if (colon == NULL || text[0] == '/') {
        Py_RETURN_NONE;
    }
    long port = strtol(colon + 1, NULL, 10);
    bool bracketed = text[0] == '[' && colon > text + 1;
    Py_ssize_t len = colon - text - (bracketed ? 2 : 0);
    return Py_BuildValue("(s#l)", text + (bracketed ? 1 : 0), len, port);
}

/* (host, port), or None. */
static PyObject *peer_of(struct iok_call *call)
{
    const char *text = iok_call_endpoint(call);
    size_t n = strlen(text);
    if (n >= PEER_BYTES_MAX) {
        return peer_parse(text);
    }
    struct peer *peer = &peers[hash_of(text, n, 2166136261u) % PEER_SLOTS];
    if (UNLIKELY(peer->pair == NULL || strcmp(peer->text, text) != 0)) {
        PyObject *pair = peer_parse(text);
        if (pair == NULL) {
            return NULL;
        }
        memcpy(peer->text, text, n + 1);
        Py_XSETREF(peer->pair, pair);
    }
    return Py_NewRef(peer->pair);
}

/* ---- proxies ------------------------------------------------------------------------------------------------- */

/* The values of a field, joined by commas as RFC 9110, 5.3 has it; "" if it did not come. */
static PyObject *forwarded_field(const struct request *request, const char *name)
{
    size_t len = strlen(name);
    PyObject *joined = NULL;
    for (uint32_t i = 0; i + 1 < request->n_fields; i += 2) {
        const struct iok_token *token = request->fields + i;
        if (token->len != len || memcmp(token->p, name, len) != 0) {
            continue;
        }
        PyObject *value = latin1_of(token + 1);
        if (value != NULL && joined != NULL) {
            Py_SETREF(value, PyUnicode_FromFormat("%U,%U", joined, value));
        }
        Py_XSETREF(joined, value);
        if (value == NULL) {
            return NULL;
        }
    }
    return joined != NULL ? joined : Py_NewRef(key.empty);
}

static bool is_forwarded(const struct request *request)
{
    for (uint32_t i = 0; i + 1 < request->n_fields; i += 2) {
        const struct iok_token *token = request->fields + i;
        if ((token->len == 9 && memcmp(token->p, "forwarded", 9) == 0) ||
            (token->len > 12 && memcmp(token->p, "x-forwarded-", 12) == 0)) {
            return true;
        }
    }
    return false;
}

/* What a proxy says of the client and the scheme, or None each: a tuple. NULL without an exception: nothing was said. */
static PyObject *forwarded_ask(PyObject *trust, const struct request *request, PyObject *peer, const char *text)
{
    if (trust == NULL || LIKELY(!is_forwarded(request))) {
        return NULL;
    }
    /* A peer that nobody knows is not taken for one of a unix socket. */
    PyObject *host = peer != Py_None   ? Py_NewRef(PyTuple_GET_ITEM(peer, 0))
                     : text[0] != '\0' ? PyUnicode_FromString(text)
                                       : Py_NewRef(Py_None);
    PyObject *forwarded_for = forwarded_field(request, "x-forwarded-for");
    PyObject *proto = forwarded_field(request, "x-forwarded-proto");
    PyObject *forwarded = forwarded_field(request, "forwarded");
    PyObject *told = NULL;
    if (host != NULL && forwarded_for != NULL && proto != NULL && forwarded != NULL) {
        told = PyObject_CallFunctionObjArgs(trust, host, forwarded_for, proto, forwarded, NULL);
    }
    Py_XDECREF(host);
    Py_XDECREF(forwarded_for);
    Py_XDECREF(proto);
    Py_XDECREF(forwarded);
    return told;
}

/* The peer, or who a proxy says it to be; *scheme (borrowed) is set if one is told. NULL with an exception. */
static PyObject *client_of(PyObject *trust, const struct request *request, struct iok_call *call, PyObject **scheme)
{
    PyObject *peer = peer_of(call);
    PyObject *told = peer == NULL ? NULL : forwarded_ask(trust, request, peer, iok_call_endpoint(call));
    if (LIKELY(told == NULL)) {
        if (PyErr_Occurred()) {
            Py_CLEAR(peer);
        }
        return peer;
    }
    PyObject *client, *how;
    if (!PyArg_ParseTuple(told, "OO", &client, &how)) {
        Py_CLEAR(peer);
    } else {
        if (client != Py_None) {
            Py_SETREF(peer, Py_NewRef(client));
        }
        if (how != Py_None) {
            *scheme = PyUnicode_CompareWithASCIIString(how, "https") == 0 ? key.https : key.http;
        }
    }
    Py_DECREF(told);
    return peer;
}

/* The usual ones are made once. */
static PyObject *method_of(const struct iok_token *method)
{
    static PyObject *usual[8];
    static const char *const texts[8] = {"GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT"};
    for (size_t i = 0; i < 8; i++) {
        if (strlen(texts[i]) == method->len && memcmp(texts[i], method->p, method->len) == 0) {
            if (usual[i] == NULL) {
                usual[i] = PyUnicode_InternFromString(texts[i]);
            }
            return Py_XNewRef(usual[i]);
        }
    }
    return latin1_of(method);
}

/* ---- ASGI ---------------------------------------------------------------------------------------------------- */

/* With the root path before them, as ASGI has it since "path" includes it. */
static bool put_paths(PyObject *scope, const struct scope_base *base, const struct request *request)
{
    PyObject *path = path_of(request, true);
    PyObject *raw = PyBytes_FromStringAndSize((const char *)request->path, (Py_ssize_t)request->path_len);
    if (UNLIKELY(base->root_path != NULL) && path != NULL && raw != NULL) {
        Py_SETREF(path, PyUnicode_Concat(base->root_path, path));
        PyObject *whole = Py_NewRef(base->raw_root);
        PyBytes_ConcatAndDel(&whole, raw);
        raw = whole;
    }
    bool done = put(scope, key.path, path);
    return put(scope, key.raw_path, raw) && done;
}

static PyObject *extensions_of(const struct scope_base *base)
{
    PyObject *copy = PyDict_Copy(base->extensions);
    if (copy != NULL && !put(copy, key.pathsend, PyDict_New())) {
        Py_CLEAR(copy);
    }
    return copy;
}

PyObject *scope_of_request(const struct scope_base *base, const struct request *request, struct iok_call *call)
{
    PyObject *scope = PyDict_Copy(base->constant);
    if (scope == NULL) {
        return NULL;
    }
    PyObject *scheme = iok_serve_is_encrypted(call) ? key.https : key.http;
    PyObject *query = PyBytes_FromStringAndSize((const char *)request->query, (Py_ssize_t)request->query_len);
    if (!put(scope, key.method, method_of(&request->method)) || !put_paths(scope, base, request) ||
        !put(scope, key.headers, headers_of(request)) ||
        !put(scope, key.client, client_of(base->trust, request, call, &scheme)) || query == NULL ||
        PyDict_SetItem(scope, key.query_string, query) < 0 ||
        (UNLIKELY(request->minor == 0) && PyDict_SetItem(scope, key.http_version, key.version_1_0) < 0) ||
        (UNLIKELY(scheme != key.http) && PyDict_SetItem(scope, key.scheme, scheme) < 0) ||
        (base->state != NULL && !put(scope, key.state, PyDict_Copy(base->state))) ||
        !put(scope, key.asgi, PyDict_Copy(base->asgi)) || !put(scope, key.extensions, extensions_of(base))) {
        Py_CLEAR(scope);
    }
    Py_XDECREF(query);
    return scope;
}

/* ---- WSGI ---------------------------------------------------------------------------------------------------- */

/* HTTP_X_Y of x-y; NULL without an exception for a name with an underscore, which would pass for another. */
static PyObject *environ_name(const struct iok_token *token)
{
    char text[256 + 5] = "HTTP_";
    size_t n = token->len > 256 ? 256 : token->len; /* a codec's limit */
    for (size_t i = 0; i < n; i++) {
        uint8_t c = token->p[i];
        if (c == '_') {
            return NULL;
        }
        text[5 + i] = (char)(c == '-' ? '_' : c >= 'a' && c <= 'z' ? c - 32 : c);
    }
    if (n == 12 && memcmp(token->p, "content-type", 12) == 0) {
        return Py_NewRef(key.CONTENT_TYPE);
    }
    if (n == 14 && memcmp(token->p, "content-length", 14) == 0) {
        return Py_NewRef(key.CONTENT_LENGTH);
    }
    return PyUnicode_FromStringAndSize(text, (Py_ssize_t)n + 5);
}

static PyObject *environ_value(const struct name *name, const struct iok_token *token)
{
    struct field *field = field_slot(name, token + 1);
    if (field == NULL) {
        return latin1_of(token + 1);
    }
    if (LIKELY(field_is(field, name, token + 1) && field->text != NULL)) {
        return Py_NewRef(field->text);
    }
    PyObject *text = latin1_of(token + 1);
    PyObject *pair = text == NULL ? NULL : field_pair(token); /* takes the slot */
    if (pair != NULL) {
        Py_XSETREF(field->text, Py_NewRef(text));
        Py_DECREF(pair);
    }
    PyErr_Clear(); /* it is only not kept */
    return text;
}

/* A field that came before is continued: RFC 9110, 5.3; RFC 6265, 5.4 of cookies. */
static PyObject *environ_joined(PyObject *before, PyObject *value, PyObject *name)
{
    bool cookie = PyUnicode_CompareWithASCIIString(name, "HTTP_COOKIE") == 0;
    PyObject *joined = PyUnicode_FromFormat(cookie ? "%U; %U" : "%U,%U", before, value);
    Py_DECREF(value);
    return joined;
}

static bool put_fields(PyObject *env, const struct request *request)
{
    for (uint32_t i = 0; i + 1 < request->n_fields; i += 2) {
        const struct iok_token *token = request->fields + i;
        const struct name *known_name = name_find(token);
        PyObject *name = known_name != NULL ? Py_NewRef(known_name->env) : environ_name(token);
        if (name == NULL) {
            if (PyErr_Occurred()) {
                return false;
            }
            continue;
        }
        PyObject *value = environ_value(known_name, token);
        PyObject *before = value == NULL ? NULL : PyDict_GetItemWithError(env, name);
        if (UNLIKELY(before != NULL)) {
            value = environ_joined(before, value, name);
        }
        bool done = put(env, name, value);
        Py_DECREF(name);
        if (!done) {
            return false;
        }
    }
    return true;
}

static bool put_peer(PyObject *env, PyObject *peer)
{
    if (peer == NULL || peer == Py_None) {
        Py_XDECREF(peer);
        return peer != NULL && PyDict_SetItem(env, key.REMOTE_ADDR, key.empty) == 0;
    }
    bool done = PyDict_SetItem(env, key.REMOTE_ADDR, PyTuple_GET_ITEM(peer, 0)) == 0 &&
                put(env, key.REMOTE_PORT, PyObject_Str(PyTuple_GET_ITEM(peer, 1)));
    Py_DECREF(peer);
    return done;
}

PyObject *environ_of_request(PyObject *constant, PyObject *trust, const struct request *request, struct iok_call *call,
                             PyObject *body)
{
    PyObject *env = PyDict_Copy(constant);
    if (env == NULL) {
        return NULL;
    }
    PyObject *scheme = iok_serve_is_encrypted(call) ? key.https : key.http;
    PyObject *peer = client_of(trust, request, call, &scheme);
    PyObject *query = PyUnicode_DecodeLatin1((const char *)request->query, (Py_ssize_t)request->query_len, NULL);
    if (!put(env, key.REQUEST_METHOD, method_of(&request->method)) || !put(env, key.QUERY_STRING, query) ||
        !put(env, key.PATH_INFO, path_of(request, false)) || !put(env, key.REQUEST_URI, latin1_of(&request->target)) ||
        !put_peer(env, peer) ||
        PyDict_SetItem(env, key.SERVER_PROTOCOL, request->minor == 0 ? key.http_1_0 : key.http_1_1) < 0 ||
        PyDict_SetItem(env, key.wsgi_url_scheme, scheme) < 0 ||
        PyDict_SetItem(env, key.wsgi_input, body == NULL ? Py_None : body) < 0 || !put_fields(env, request)) {
        Py_CLEAR(env);
    }
    return env;
}

/* ---- the beginning ------------------------------------------------------------------------------------------- */

static int name_add(const struct known *entry)
{
    struct iok_token token = {.p = (const uint8_t *)entry->name, .len = (uint32_t)strlen(entry->name)};
    uint32_t slot = hash_of(token.p, token.len, 2166136261u);
    while (names[slot % NAMES_SLOTS].text != NULL) {
        slot++;
    }
    PyObject *bytes = bytes_of(&token);
    PyObject *env = environ_name(&token);
    if (bytes == NULL || env == NULL) {
        Py_XDECREF(bytes);
        Py_XDECREF(env);
        return -1;
    }
    PyUnicode_InternInPlace(&env);
    names[slot % NAMES_SLOTS] = (struct name){entry->name, token.len, bytes, env, entry->shared};
    return 0;
}

int scope_init(void)
{
    static const struct {
        PyObject **at;
        const char *text;
    } texts[] = {
#define KEY(name) {&key.name, #name},
        KEYS(KEY)
#undef KEY
            {&key.wsgi_input, "wsgi.input"},
        {&key.wsgi_url_scheme, "wsgi.url_scheme"},
        {&key.http_1_0, "HTTP/1.0"},
        {&key.http_1_1, "HTTP/1.1"},
        {&key.version_1_0, "1.0"},
        {&key.empty, ""},
        {&key.pathsend, "http.response.pathsend"},
    };
    static bool done;
    if (done) {
        return 0;
    }
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        if ((*texts[i].at = PyUnicode_InternFromString(texts[i].text)) == NULL) {
            return -1;
        }
    }
    for (size_t i = 0; i < N_KNOWN; i++) {
        if (name_add(&known[i]) < 0) {
            return -1;
        }
    }
    done = true;
    return 0;
}
