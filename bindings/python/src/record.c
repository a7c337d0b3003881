/* record.c - Record: a row as a tuple whose values are also found by their columns' names.
 *
 *     [ob_item 0 | ... | ob_item n-1 | shape]      ob_size is n: to the tuple's own code the shape is not there
 *
 * The shape holds the names, and is shared by the records of a result, and by later results with the same columns: a
 * table keeps as many as it has places, each with the shape that was last made for it.
 *
 * A record is tracked by the garbage collector only if a value of it can be part of a cycle. */
#include "core.h"

#include <stddef.h>
#include <string.h>

/* A program's statements have some dozens of forms of rows; one that has more makes some of them anew. */
#define SHAPES_MAX 256

struct shape {
    PyObject_HEAD
    PyObject *names; /* tuple of str */
    PyObject *index; /* {name: column}; of columns with the same name the first */
    uint64_t hash;   /* of the names as the tape has them */
};

static PyTypeObject shape_type, record_type;
static struct shape *shapes[SHAPES_MAX];

/* ---- shapes ------------------------------------------------------------------------------------------------- */

static void shape_dealloc(PyObject *op)
{
    struct shape *self = (struct shape *)op;
    Py_XDECREF(self->names);
    Py_XDECREF(self->index);
    PyObject_Free(self);
}

static PyTypeObject shape_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "iokernel._core.Shape",
    .tp_basicsize = sizeof(struct shape),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = shape_dealloc,
};

/* Takes names over; NULL with an exception. */
static struct shape *shape_new(PyObject *names, uint64_t hash)
{
    struct shape *self = names == NULL ? NULL : PyObject_New(struct shape, &shape_type);
    if (self == NULL) {
        Py_XDECREF(names);
        return NULL;
    }
    self->names = names;
    self->hash = hash;
    self->index = PyDict_New();
    for (Py_ssize_t i = PyTuple_GET_SIZE(names); self->index != NULL && i-- > 0;) {
        PyObject *column = PyLong_FromSsize_t(i);
        if (column == NULL || PyDict_SetItem(self->index, PyTuple_GET_ITEM(names, i), column) < 0) {
            Py_CLEAR(self->index);
        }
        Py_XDECREF(column);
    }
    if (self->index == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return self;
}

/* FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv; a collision costs time only. */
static uint64_t hash_names(const struct iok_token *names, uint32_t n)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t at = 0; at < names[i].len; at++) {
            hash = (hash ^ names[i].p[at]) * UINT64_C(0x100000001b3);
        }
        hash = (hash ^ 0xff) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static bool shape_fits(const struct shape *self, const struct iok_token *names, uint32_t n, uint64_t hash)
{
    if (self == NULL || self->hash != hash || PyTuple_GET_SIZE(self->names) != (Py_ssize_t)n) {
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        Py_ssize_t len;
        const char *name = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(self->names, i), &len);
        if (name == NULL) {
            PyErr_Clear(); /* not UTF-8: made anew each time */
            return false;
        }
        if ((size_t)len != names[i].len || (len > 0 && memcmp(name, names[i].p, (size_t)len) != 0)) {
            return false;
        }
    }
    return true;
}

PyObject *record_shape(const struct iok_token *names, uint32_t n)
{
    uint64_t hash = hash_names(names, n);
    struct shape **place = &shapes[hash % SHAPES_MAX];
    if (LIKELY(shape_fits(*place, names, n, hash))) {
        return Py_NewRef((PyObject *)*place);
    }
    PyObject *tuple = PyTuple_New((Py_ssize_t)n);
    for (uint32_t i = 0; tuple != NULL && i < n; i++) {
        PyObject *name = PyUnicode_DecodeUTF8((const char *)names[i].p, (Py_ssize_t)names[i].len, "surrogateescape");
        if (name == NULL) {
            Py_CLEAR(tuple);
        } else {
            PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, name);
        }
    }
    struct shape *made = shape_new(tuple, hash);
    if (made != NULL) {
        Py_XSETREF(*place, (struct shape *)Py_NewRef((PyObject *)made));
    }
    return (PyObject *)made;
}

/* ---- records ------------------------------------------------------------------------------------------------ */

static PyObject **shape_place(PyObject *op)
{
    return &((PyTupleObject *)op)->ob_item[Py_SIZE(op)];
}

static struct shape *shape_of(PyObject *op)
{
    return (struct shape *)*shape_place(op);
}

PyObject *record_new(PyObject *shape, Py_ssize_t n)
{
    PyObject *self = (PyObject *)PyObject_GC_NewVar(PyTupleObject, &record_type, n);
    if (UNLIKELY(self == NULL)) {
        return NULL;
    }
#if PY_VERSION_HEX >= 0x030e0000
    ((PyTupleObject *)self)->ob_hash = -1;
#endif
    memset(((PyTupleObject *)self)->ob_item, 0, (size_t)n * sizeof(PyObject *));
    *shape_place(self) = Py_NewRef(shape);
    return self;
}

void record_done(PyObject *self)
{
    for (Py_ssize_t i = 0; i < Py_SIZE(self); i++) {
        if (PyObject_IS_GC(PyTuple_GET_ITEM(self, i))) {
            PyObject_GC_Track(self);
            return;
        }
    }
}

static int record_traverse(PyObject *op, visitproc visit, void *arg)
{
    for (Py_ssize_t i = Py_SIZE(op); i-- > 0;) {
        Py_VISIT(PyTuple_GET_ITEM(op, i));
    }
    return 0;
}

static void record_dealloc(PyObject *op)
{
    PyObject_GC_UnTrack(op);
    Py_TRASHCAN_BEGIN(op, record_dealloc) Py_ssize_t n = Py_SIZE(op);
    for (Py_ssize_t i = 0; i < n; i++) {
        Py_XDECREF(PyTuple_GET_ITEM(op, i));
    }
    Py_DECREF(*shape_place(op));
    PyObject_GC_Del(op);
    Py_TRASHCAN_END
}

/* The column of a name; -1 without an exception if there is none. */
static Py_ssize_t find_column(PyObject *op, PyObject *name)
{
    PyObject *column = PyDict_GetItemWithError(shape_of(op)->index, name);
    return column == NULL ? -1 : PyLong_AsSsize_t(column);
}

static PyObject *record_subscript(PyObject *op, PyObject *key)
{
    if (!PyUnicode_Check(key)) {
        return PyTuple_Type.tp_as_mapping->mp_subscript(op, key);
    }
    Py_ssize_t column = find_column(op, key);
    if (column < 0) {
        if (!PyErr_Occurred()) {
            PyErr_SetObject(PyExc_KeyError, key);
        }
        return NULL;
    }
    return Py_NewRef(PyTuple_GET_ITEM(op, column));
}

static PyObject *record_get(PyObject *op, PyObject *args)
{
    PyObject *name, *otherwise = Py_None;
    if (!PyArg_ParseTuple(args, "O|O:get", &name, &otherwise)) {
        return NULL;
    }
    Py_ssize_t column = find_column(op, name);
    if (column < 0) {
        return PyErr_Occurred() ? NULL : Py_NewRef(otherwise);
    }
    return Py_NewRef(PyTuple_GET_ITEM(op, column));
}

static PyObject *record_keys(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return Py_NewRef(shape_of(op)->names);
}

static PyObject *record_values(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return PyTuple_GetSlice(op, 0, Py_SIZE(op));
}

static PyObject *record_items(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return PyObject_CallFunctionObjArgs((PyObject *)&PyZip_Type, shape_of(op)->names, op, NULL);
}

static PyObject *record_repr(PyObject *op)
{
    PyObject *names = shape_of(op)->names;
    PyObject *parts = PyList_New(0), *space = PyUnicode_FromString(" "), *text = NULL;
    for (Py_ssize_t i = 0; parts != NULL && i < Py_SIZE(op); i++) {
        PyObject *part = PyUnicode_FromFormat("%U=%R", PyTuple_GET_ITEM(names, i), PyTuple_GET_ITEM(op, i));
        if (part == NULL || PyList_Append(parts, part) < 0) {
            Py_CLEAR(parts);
        }
        Py_XDECREF(part);
    }
    PyObject *joined = parts == NULL || space == NULL ? NULL : PyUnicode_Join(space, parts);
    if (joined != NULL) {
        text = PyUnicode_FromFormat("<Record%s%U>", Py_SIZE(op) > 0 ? " " : "", joined);
    }
    Py_XDECREF(parts);
    Py_XDECREF(space);
    Py_XDECREF(joined);
    return text;
}

static PyObject *record_reduce(PyObject *op, PyObject *Py_UNUSED(unused))
{
    PyObject *make = core_import("iokernel._core", "record");
    PyObject *values = make == NULL ? NULL : record_values(op, NULL);
    PyObject *result = values == NULL ? NULL : Py_BuildValue("O(OO)", make, shape_of(op)->names, values);
    Py_XDECREF(make);
    Py_XDECREF(values);
    return result;
}

static PyMethodDef record_methods[] = {
    {"get", record_get, METH_VARARGS,
     "get(name, default=None, /)\n--\n\nThe value of a column, or the default if there is no such column."},
    {"keys", record_keys, METH_NOARGS, "keys()\n--\n\nThe columns' names."},
    {"values", record_values, METH_NOARGS, "values()\n--\n\nThe values."},
    {"items", record_items, METH_NOARGS, "items()\n--\n\nThe pairs of names and values."},
    {"__reduce__", record_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMappingMethods record_mapping = {.mp_subscript = record_subscript};

static PyTypeObject record_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "iokernel._core.Record",
    .tp_doc = "A row: a tuple whose values are also found by their columns' names, as of a mapping.\n\n"
              "Of columns with the same name the first is found. Iterating gives the values.",
    .tp_itemsize = sizeof(PyObject *),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_traverse = record_traverse,
    .tp_dealloc = record_dealloc,
    .tp_free = PyObject_GC_Del,
    .tp_repr = record_repr,
    .tp_as_mapping = &record_mapping,
    .tp_methods = record_methods,
};

/* ---- the module --------------------------------------------------------------------------------------------- */

static PyObject *record_of_values(PyObject *shape, PyObject *values)
{
    PyObject *row = PySequence_Fast(values, "a record is made of a sequence of values");
    if (row == NULL) {
        return NULL;
    }
    Py_ssize_t n = PySequence_Fast_GET_SIZE(row);
    PyObject *self = NULL;
    if (n != PyTuple_GET_SIZE(((struct shape *)shape)->names)) {
        PyErr_SetString(PyExc_ValueError, "a record has as many values as names");
    } else {
        self = record_new(shape, n);
    }
    for (Py_ssize_t i = 0; self != NULL && i < n; i++) {
        PyTuple_SET_ITEM(self, i, Py_NewRef(PySequence_Fast_GET_ITEM(row, i)));
    }
    if (self != NULL) {
        record_done(self);
    }
    Py_DECREF(row);
    return self;
}

static PyObject *shape_of_names(PyObject *names)
{
    PyObject *tuple = PySequence_Tuple(names);
    for (Py_ssize_t i = 0; tuple != NULL && i < PyTuple_GET_SIZE(tuple); i++) {
        if (!PyUnicode_Check(PyTuple_GET_ITEM(tuple, i))) {
            PyErr_SetString(PyExc_TypeError, "names of columns are str");
            Py_CLEAR(tuple);
        }
    }
    return (PyObject *)shape_new(tuple, 0);
}

PyObject *record_make(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *names, *values;
    if (!PyArg_ParseTuple(args, "OO:record", &names, &values)) {
        return NULL;
    }
    PyObject *shape = shape_of_names(names);
    PyObject *self = shape == NULL ? NULL : record_of_values(shape, values);
    Py_XDECREF(shape);
    return self;
}

PyObject *record_make_list(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *names, *rows;
    if (!PyArg_ParseTuple(args, "OO:records", &names, &rows)) {
        return NULL;
    }
    PyObject *shape = shape_of_names(names);
    PyObject *from = shape == NULL ? NULL : PySequence_Fast(rows, "records are made of a sequence of rows");
    PyObject *list = from == NULL ? NULL : PyList_New(PySequence_Fast_GET_SIZE(from));
    for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(list); i++) {
        PyObject *record = record_of_values(shape, PySequence_Fast_GET_ITEM(from, i));
        if (record == NULL) {
            Py_CLEAR(list);
        } else {
            PyList_SET_ITEM(list, i, record);
        }
    }
    Py_XDECREF(shape);
    Py_XDECREF(from);
    return list;
}

int record_init_types(PyObject *module)
{
    record_type.tp_base = &PyTuple_Type;
    record_type.tp_basicsize = PyTuple_Type.tp_basicsize + (Py_ssize_t)sizeof(PyObject *);
    return PyType_Ready(&shape_type) < 0 ? -1 : PyModule_AddType(module, &record_type);
}
