/* value.c - the tape walker: the reply's tokens become Python objects. It knows no protocol.
 *
 *     NULL None   BOOL bool   I64 int   F64 float   BYTES bytes (str if decoding)   TEXT str   DECIMAL int or Decimal
 *     DECIMAL/exact Decimal   TIMESTAMP datetime, by its kind naive, or date, or time   other kinds: kind.c
 *     ARRAY, PUSH list   MAP dict   SET set   ERROR ReplyError (raised at the top, else in place)
 *
 * A map with a key that cannot be hashed becomes a list of pairs, a set with such an element a list. Attributes are
 * skipped, but those of an error, which are its fields. The core bounds nesting; the walker has its own bound, so a broken tape cannot overrun the C stack. */
#include "core.h"

#include <datetime.h>
#include <string.h>

#define DEPTH_MAX 128 /* twice the core's bound on replies */

struct walk {
    const struct iok_token *token, *end;
    struct iok_call *call;
    bool decode;
    int depth;
    PyObject **decoders; /* of each column who makes its values, NULL: nobody; NULL: nobody of any */
    uint32_t n_decoders;
};

static PyObject *epoch, *epoch_local, *epoch_day; /* 1970-01-01 00:00 UTC; the same without a zone; its date */
static PyObject *decimal_type;

static PyObject *walk_value(struct walk *w);

static PyObject *walk_broken(void)
{
    PyErr_SetString(PyExc_SystemError, "iokernel: a reply's tape is cut short or nested too deeply");
    return NULL;
}

/* The class, imported at its first use: most programs need none of them. Borrowed. */
static PyObject *walk_class(PyObject **type, const char *module_name, const char *name)
{
    if (*type == NULL) {
        PyObject *module = PyImport_ImportModule(module_name);
        *type = module == NULL ? NULL : PyObject_GetAttrString(module, name);
        Py_XDECREF(module);
    }
    return *type;
}

static PyObject *walk_bytes(struct walk *w, const struct iok_token *t)
{
    if (UNLIKELY(t->subtype != 0)) {
        return kind_of_bytes(t);
    }
    if (LIKELY(!w->decode)) {
        return PyBytes_FromStringAndSize((const char *)t->p, (Py_ssize_t)t->len);
    }
    PyObject *text = PyUnicode_DecodeUTF8((const char *)t->p, (Py_ssize_t)t->len, NULL);
    if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        fail_undecodable(w->call);
    }
    return text;
}

static bool is_integral(const struct iok_token *t)
{
    uint32_t i = t->len > 1 && t->p[0] == '-' ? 1 : 0;
    for (; i < t->len; i++) {
        if (t->p[i] < '0' || t->p[i] > '9') {
            return false;
        }
    }
    return t->len > 0;
}

static PyObject *walk_decimal(const struct iok_token *t)
{
    PyObject *text = PyUnicode_DecodeASCII((const char *)t->p, (Py_ssize_t)t->len, NULL);
    if (text == NULL) {
        return NULL;
    }
    PyObject *value = NULL;
    if (t->subtype != IOK_KIND_EXACT && is_integral(t)) {
        value = PyLong_FromUnicodeObject(text, 10);
        if (value == NULL && PyErr_ExceptionMatches(PyExc_ValueError)) {
            PyErr_Clear(); /* more digits than sys.set_int_max_str_digits allows: a Decimal takes them */
        }
    }
    if (value == NULL && !PyErr_Occurred()) {
        PyObject *type = walk_class(&decimal_type, "decimal", "Decimal");
        value = type == NULL ? NULL : PyObject_CallOneArg(type, text);
    }
    Py_DECREF(text);
    return value;
}

static const int64_t day_us = INT64_C(86400000000);

static PyObject *walk_time(int64_t us)
{
    int seconds = (int)(us / 1000000);
    return PyTime_FromTime(seconds / 3600, seconds / 60 % 60, seconds % 60, (int)(us % 1000000));
}

/* kind: 0, IOK_KIND_LOCAL or IOK_KIND_DATE */
static PyObject *walk_timestamp(int64_t us, uint16_t kind)
{
    int64_t days = us / day_us;
    int64_t rest = us % day_us;
    if (rest < 0) {
        rest += day_us;
        days--;
    }
    PyObject *delta = PyDelta_FromDSU((int)days, (int)(rest / 1000000), (int)(rest % 1000000));
    PyObject *start = kind == 0 ? epoch : kind == IOK_KIND_DATE ? epoch_day : epoch_local;
    PyObject *value = delta == NULL ? NULL : PyNumber_Add(start, delta);
    Py_XDECREF(delta);
    return value;
}

/* A count from the tape, against what is left of it. */
static bool walk_fits(const struct walk *w, uint64_t values)
{
    return values <= (uint64_t)(w->end - w->token);
}

static PyObject *walk_list(struct walk *w, uint32_t len)
{
    if (!walk_fits(w, len)) {
        return walk_broken();
    }
    PyObject *list = PyList_New((Py_ssize_t)len);
    if (list == NULL) {
        return NULL;
    }
    for (uint32_t i = 0; i < len; i++) {
        PyObject *value = walk_value(w);
        if (value == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, value);
    }
    return list;
}

static PyObject *pairs_of_dict(PyObject *dict)
{
    PyObject *pairs = PyDict_Items(dict);
    Py_DECREF(dict);
    return pairs;
}

/* Puts a pair into the dict, or once that cannot be, into the list of pairs that replaces it. Takes both over. */
static int walk_put(PyObject **into, PyObject *key, PyObject *value)
{
    int result = -1;
    if (PyDict_CheckExact(*into)) {
        result = PyDict_SetItem(*into, key, value);
        if (result < 0 && PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Clear();
            *into = pairs_of_dict(*into);
        }
    }
    if (result < 0 && *into != NULL && PyList_CheckExact(*into)) {
        PyObject *pair = PyTuple_Pack(2, key, value);
        result = pair == NULL ? -1 : PyList_Append(*into, pair);
        Py_XDECREF(pair);
    }
    Py_DECREF(key);
    Py_DECREF(value);
    return result;
}

static PyObject *walk_map(struct walk *w, uint32_t len)
{
    if (!walk_fits(w, (uint64_t)len * 2)) {
        return walk_broken();
    }
    PyObject *map = PyDict_New();
    for (uint32_t i = 0; map != NULL && i < len; i++) {
        PyObject *key = walk_value(w);
        PyObject *value = key == NULL ? NULL : walk_value(w);
        if (value == NULL) {
            Py_XDECREF(key);
            Py_CLEAR(map);
        } else if (walk_put(&map, key, value) < 0) {
            Py_CLEAR(map);
        }
    }
    return map;
}

static PyObject *walk_set(struct walk *w, uint32_t len)
{
    PyObject *list = walk_list(w, len);
    if (list == NULL) {
        return NULL;
    }
    PyObject *set = PySet_New(list);
    if (set == NULL && PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Clear();
        return list;
    }
    Py_DECREF(list);
    return set;
}

static PyObject *walk_container(struct walk *w, const struct iok_token *t)
{
    if (++w->depth > DEPTH_MAX) {
        return walk_broken();
    }
    PyObject *value;
    switch (t->type) {
    case IOK_MAP:
        value = walk_map(w, t->len);
        break;
    case IOK_SET:
        value = walk_set(w, t->len);
        break;
    default:
        value = walk_list(w, t->len);
        if (UNLIKELY(t->subtype != 0)) {
            value = kind_of_list(value, t->subtype);
        }
        break;
    }
    w->depth--;
    return value;
}

/* Steps over one value. */
static bool walk_skip(struct walk *w)
{
    uint64_t left = 1;
    while (left > 0) {
        if (w->token == w->end) {
            return false;
        }
        const struct iok_token *t = w->token++;
        left--;
        switch (t->type) {
        case IOK_ARRAY:
        case IOK_SET:
        case IOK_PUSH:
            left += t->len;
            break;
        case IOK_MAP:
            left += (uint64_t)t->len * 2;
            break;
        case IOK_ATTR:
            left += (uint64_t)t->len * 2 + 1;
            break;
        default:
            break;
        }
    }
    return true;
}

/* Steps over attributes to the value that they describe; false at a broken tape. */
static bool walk_skip_attributes(struct walk *w)
{
    while (w->token < w->end && w->token->type == IOK_ATTR) {
        uint64_t values = (uint64_t)w->token++->len * 2;
        for (; values > 0; values--) {
            if (!walk_skip(w)) {
                return false;
            }
        }
    }
    return w->token < w->end;
}

static PyObject *walk_value(struct walk *w)
{
    if (UNLIKELY(!walk_skip_attributes(w))) {
        return walk_broken();
    }
    const struct iok_token *t = w->token++;
    switch (t->type) {
    case IOK_NULL:
        Py_RETURN_NONE;
    case IOK_BOOL:
        return PyBool_FromLong(t->i != 0);
    case IOK_I64:
    case IOK_DROPPED: /* in the place of a message, which is a list */
        return PyLong_FromLongLong(t->i);
    case IOK_F64:
        return PyFloat_FromDouble(t->f);
    case IOK_BYTES:
        return walk_bytes(w, t);
    case IOK_TEXT:
        return PyUnicode_DecodeUTF8((const char *)t->p, (Py_ssize_t)t->len, "surrogateescape");
    case IOK_DECIMAL:
        return walk_decimal(t);
    case IOK_TIMESTAMP:
        return t->subtype == IOK_KIND_TIME ? walk_time(t->i) : walk_timestamp(t->i, t->subtype);
    case IOK_ERROR:
        return fail_reply(t, w->depth == 0 ? w->call : NULL, NULL);
    case IOK_ARRAY:
    case IOK_MAP:
    case IOK_SET:
    case IOK_PUSH:
        return walk_container(w, t);
    default:
        return walk_broken();
    }
}

PyObject *value_of_message(const struct iok_token *tokens, size_t n, struct iok_call *call, bool decode)
{
    struct walk w = {.token = tokens, .end = tokens + n, .call = call, .decode = decode};
    return walk_value(&w);
}

/* The attributes before an error: one map of them all. */
static PyObject *walk_fields(struct walk *w)
{
    PyObject *fields = NULL;
    while (w->token < w->end && w->token->type == IOK_ATTR) {
        Py_XDECREF(fields);
        fields = walk_map(w, w->token++->len);
        if (fields == NULL) {
            return NULL;
        }
    }
    return fields != NULL ? fields : Py_NewRef(Py_None);
}

/* Raises the error that the reply is; its attributes begin at w. */
static void walk_error(struct walk *w)
{
    PyObject *fields = walk_fields(w);
    PyObject *error = fields == NULL || w->token == w->end ? NULL : fail_reply(w->token, w->call, fields);
    Py_XDECREF(fields);
    if (error != NULL) {
        fail_raise(error);
    }
}

/* ---- a part of [names, types, rows, tag] -------------------------------------------------------------------- */

/* The head of an array is next, with so many values: they are next now. */
static bool walk_enter(struct walk *w, uint32_t *len)
{
    if (w->token == w->end || w->token->type != IOK_ARRAY) {
        return false;
    }
    *len = w->token++->len;
    return walk_fits(w, *len);
}

/* What the column's decoder makes of the value, which is taken over and may be NULL. */
static PyObject *walk_decoded(const struct walk *w, size_t column, PyObject *value)
{
    if (value == NULL || value == Py_None || column >= w->n_decoders || w->decoders[column] == NULL) {
        return value;
    }
    PyObject *made = PyObject_CallOneArg(w->decoders[column], value);
    Py_DECREF(value);
    return made;
}

/* The types are next. 0, or -1 with an exception; w->decoders is to be given to walk_free_decoders. */
static int walk_find_decoders(struct walk *w, PyObject *by_type, uint32_t n)
{
    PyObject **found = PyMem_Calloc(n + 1, sizeof(PyObject *));
    bool any = false;
    if (found == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (uint32_t i = 0; i < n; i++) {
        PyObject *type = PyLong_FromLongLong(w->token[i].i);
        found[i] = type == NULL ? NULL : Py_XNewRef(PyDict_GetItemWithError(by_type, type));
        any |= found[i] != NULL;
        Py_XDECREF(type);
    }
    if (any) {
        w->decoders = found;
        w->n_decoders = n;
    } else {
        PyMem_Free(found);
    }
    return PyErr_Occurred() ? -1 : 0;
}

static void walk_free_decoders(struct walk *w)
{
    for (uint32_t i = 0; i < w->n_decoders; i++) {
        Py_XDECREF(w->decoders[i]);
    }
    PyMem_Free(w->decoders);
    w->decoders = NULL;
    w->n_decoders = 0;
}

static PyObject *walk_record(struct walk *w, PyObject *shape, uint32_t n)
{
    uint32_t len;
    if (UNLIKELY(!walk_enter(w, &len) || len != n)) {
        return walk_broken();
    }
    PyObject *record = record_new(shape, (Py_ssize_t)n);
    for (uint32_t i = 0; LIKELY(record != NULL) && i < n; i++) {
        PyObject *value = walk_value(w);
        if (UNLIKELY(w->decoders != NULL)) {
            value = walk_decoded(w, i, value);
        }
        if (UNLIKELY(value == NULL)) {
            Py_CLEAR(record);
        } else {
            PyTuple_SET_ITEM(record, (Py_ssize_t)i, value);
        }
    }
    if (LIKELY(record != NULL)) {
        record_done(record);
    }
    return record;
}

static PyObject *walk_records(struct walk *w, const struct iok_token *names, uint32_t n_names, uint32_t n_rows,
                              bool first_only)
{
    if (first_only && n_rows == 0) {
        Py_RETURN_NONE;
    }
    PyObject *shape = record_shape(names, n_names);
    PyObject *result = NULL;
    if (shape != NULL && first_only) {
        result = walk_record(w, shape, n_names);
    } else if (shape != NULL) {
        result = PyList_New((Py_ssize_t)n_rows);
    }
    for (uint32_t i = 0; !first_only && result != NULL && i < n_rows; i++) {
        PyObject *record = walk_record(w, shape, n_names);
        if (UNLIKELY(record == NULL)) {
            Py_CLEAR(result);
        } else {
            PyList_SET_ITEM(result, (Py_ssize_t)i, record);
        }
    }
    Py_XDECREF(shape);
    return result;
}

/* column counts from the end if it is negative, as in Python's sequences. */
static PyObject *walk_field(struct walk *w, uint32_t n_rows, Py_ssize_t column)
{
    uint32_t len;
    if (n_rows == 0) {
        Py_RETURN_NONE;
    }
    if (!walk_enter(w, &len)) {
        return walk_broken();
    }
    column += column < 0 ? (Py_ssize_t)len : 0;
    if (column < 0 || column >= (Py_ssize_t)len) {
        PyErr_SetString(PyExc_IndexError, "the row has no such column");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < column; i++) {
        if (!walk_skip(w)) {
            return walk_broken();
        }
    }
    PyObject *value = walk_value(w);
    return LIKELY(w->decoders == NULL) ? value : walk_decoded(w, (size_t)column, value);
}

static PyObject *walk_rows(struct walk *w, const struct value_want *want, const struct iok_token *names,
                           uint32_t n_columns)
{
    uint32_t n_rows;
    if (!walk_enter(w, &n_rows)) {
        return walk_broken();
    }
    switch (want->form) {
    case VALUE_ROWS:
    case VALUE_ROW:
        return walk_records(w, names, n_columns, n_rows, want->form == VALUE_ROW);
    case VALUE_FIELD:
        return walk_field(w, n_rows, want->column);
    default:
        w->token = w->end - 1;
        return walk_value(w);
    }
}

static PyObject *walk_part(struct walk *w, const struct value_want *want)
{
    uint32_t parts, n_names, n_types;
    if (!walk_enter(w, &parts) || parts != 4 || !walk_enter(w, &n_names)) {
        return walk_broken();
    }
    const struct iok_token *names = w->token;
    for (uint32_t i = 0; i < n_names; i++) {
        if (w->token++->type != IOK_TEXT) {
            return walk_broken();
        }
    }
    if (!walk_enter(w, &n_types) || n_types != n_names) {
        return walk_broken();
    }
    if (UNLIKELY(want->decoders != NULL) && walk_find_decoders(w, want->decoders, n_types) < 0) {
        walk_free_decoders(w);
        return NULL;
    }
    w->token += n_types;
    PyObject *result = walk_rows(w, want, names, n_names);
    if (UNLIKELY(w->decoders != NULL)) {
        walk_free_decoders(w);
    }
    return result;
}

PyObject *value_of_call(struct iok_call *call, struct value_want want)
{
    enum iok_outcome outcome = iok_call_outcome(call);
    if (UNLIKELY(outcome != IOK_DONE && outcome != IOK_REJECTED)) {
        fail_call(call);
        return NULL;
    }
    size_t n;
    const struct iok_token *tokens = iok_call_reply(call, &n);
    if (n == 0) { /* of ready(), or one that cannot be given, as it is over a limit */
        struct iok_error err;
        if (iok_call_error(call, &err) != 0) {
            fail_call(call);
            return NULL;
        }
        Py_RETURN_NONE;
    }
    struct walk w = {.token = tokens, .end = tokens + n, .call = call, .decode = want.decode};
    if (UNLIKELY(!walk_skip_attributes(&w))) {
        return walk_broken();
    }
    if (UNLIKELY(w.token->type == IOK_ERROR)) {
        w.token = tokens;
        walk_error(&w);
        return NULL;
    }
    return LIKELY(want.form == VALUE_WHOLE) ? walk_value(&w) : walk_part(&w, &want);
}

int value_init(void)
{
    PyDateTime_IMPORT;
    if (PyDateTimeAPI == NULL || kind_init() < 0) {
        return -1;
    }
    if (epoch == NULL) {
        epoch = PyDateTimeAPI->DateTime_FromDateAndTime(1970, 1, 1, 0, 0, 0, 0, PyDateTime_TimeZone_UTC,
                                                        PyDateTimeAPI->DateTimeType);
    }
    if (epoch_local == NULL) {
        epoch_local =
            PyDateTimeAPI->DateTime_FromDateAndTime(1970, 1, 1, 0, 0, 0, 0, Py_None, PyDateTimeAPI->DateTimeType);
    }
    if (epoch_day == NULL) {
        epoch_day = PyDate_FromDate(1970, 1, 1);
    }
    return epoch == NULL || epoch_local == NULL || epoch_day == NULL ? -1 : 0;
}
