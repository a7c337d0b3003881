/* query.c - the calls of databases that give a part of their reply: records, one of them, one value, the tag.
 *
 * They are of use only where replies are [names, types, rows, tag], so they are no methods of Caller: classes of such
 * protocols make them theirs (iokernel/asyncio/postgres.py). They take what call() takes, and need no Python frame. */
#include "core.h"

/* column= of fetchval(), taken out of the keywords: 0, or -1 with an exception. */
static int take_column(struct value_want *want, PyObject *const *values, PyObject *kwnames)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(kwnames); i++) {
        if (PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, i), "column") == 0) {
            want->column = PyNumber_AsSsize_t(values[i], PyExc_IndexError);
            return want->column == -1 && PyErr_Occurred() ? -1 : 1;
        }
    }
    return 0;
}

static PyObject *query(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, enum value_form form)
{
    static const char *const names[] = {
        [VALUE_ROWS] = "fetch", [VALUE_ROW] = "fetchrow", [VALUE_FIELD] = "fetchval", [VALUE_TAG] = "execute"};
    struct py_caller *caller = (struct py_caller *)op;
    struct value_want want = {.form = (uint8_t)form, .decode = caller->decode};
    if (UNLIKELY(caller->decoders != NULL && PyDict_GET_SIZE(caller->decoders) > 0)) {
        want.decoders = caller->decoders;
    }
    struct call_options options;
    int others = build_options(&options, args + nargs, kwnames);
    int column = form == VALUE_FIELD && others > 0 ? take_column(&want, args + nargs, kwnames) : 0;
    if (others < 0 || column < 0) {
        return NULL;
    }
    if (others > column) {
        PyErr_Format(PyExc_TypeError, "%s() takes only the keywords timeout and repeatable%s", names[form],
                     form == VALUE_FIELD ? ", and column" : "");
        return NULL;
    }
    if (nargs == 0 || caller->mode == CALLER_QUEUE) {
        PyErr_Format(PyExc_TypeError, "%s() needs %s", names[form],
                     nargs == 0 ? "at least one argument: the SQL text" : "a client or a lease");
        return NULL;
    }
    struct py_port *port;
    struct iok_call *call = caller_build(caller, &port, args, nargs, &options);
    return call == NULL ? caller_failed(caller, port) : caller_finish(caller, port, call, &want);
}

static PyObject *query_rows(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return query(op, args, nargs, kwnames, VALUE_ROWS);
}

static PyObject *query_row(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return query(op, args, nargs, kwnames, VALUE_ROW);
}

static PyObject *query_field(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return query(op, args, nargs, kwnames, VALUE_FIELD);
}

static PyObject *query_tag(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return query(op, args, nargs, kwnames, VALUE_TAG);
}

#define METHOD(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS

static PyMethodDef query_methods[] = {
    {"fetch", METHOD(query_rows), "fetch($self, /, *args, timeout=None, repeatable=None)\n--\n\nGive all rows."},
    {"fetchrow", METHOD(query_row),
     "fetchrow($self, /, *args, timeout=None, repeatable=None)\n--\n\nGive the first row; None if there is none."},
    {"fetchval", METHOD(query_field),
     "fetchval($self, /, *args, column=0, timeout=None, repeatable=None)\n--\n\n"
     "Give one value of the first row; None if there is no row."},
    {"execute", METHOD(query_tag),
     "execute($self, /, *args, timeout=None, repeatable=None)\n--\n\n"
     "Run a statement and give its command tag, such as 'INSERT 0 1'."},
};

int query_init(PyObject *module)
{
    for (size_t i = 0; i < sizeof(query_methods) / sizeof(*query_methods); i++) {
        PyObject *method = PyDescr_NewMethod(&caller_type, &query_methods[i]);
        int result = method == NULL ? -1 : PyModule_AddObjectRef(module, query_methods[i].ml_name, method);
        Py_XDECREF(method);
        if (result < 0) {
            return -1;
        }
    }
    return 0;
}
