/* build.c - Python arguments become the tape of a call.
 *
 * Small payloads are copied; large ones are lent by reference, and given back when the call is freed. For protocols
 * whose arguments are flat (Redis) None, bool and containers are refused here, at once; for others they are passed on
 * and the codec decides. */
#include "core.h"

#include <math.h>

#define DEPTH_MAX 64 /* of arguments, as of replies */

static const char allowed[] = "bytes, bytearray, memoryview, str, int or float";

int build_refuse(PyObject *value, bool scalars, Py_ssize_t position)
{
    PyErr_Format(PyExc_TypeError, "argument %zd must be %s%s, not %.100s", position, allowed,
                 scalars ? "" : ", None, bool, list, tuple, dict, or a value with a text form (iokernel.values)",
                 Py_TYPE(value)->tp_name);
    return -1;
}

/* ---- memory lent to the kernel ------------------------------------------------------------------------------ */

/* Calls are freed on the port's thread, but also inside iok_port_free, which runs without the interpreter's lock. */
static void build_release_object(void *arg)
{
    PyGILState_STATE state = PyGILState_Ensure();
    Py_DECREF((PyObject *)arg);
    PyGILState_Release(state);
}

static void build_release_buffer(void *arg)
{
    PyGILState_STATE state = PyGILState_Ensure();
    PyBuffer_Release(arg);
    PyMem_Free(arg);
    PyGILState_Release(state);
}

/* ---- one argument ------------------------------------------------------------------------------------------- */

static void build_bytes(struct iok_call *call, PyObject *value)
{
    Py_ssize_t len = PyBytes_GET_SIZE(value);
    if (LIKELY(len < REFER_BYTES_MIN)) {
        iok_call_bytes(call, PyBytes_AS_STRING(value), (size_t)len);
    } else {
        iok_call_ref(call, PyBytes_AS_STRING(value), (size_t)len, build_release_object, Py_NewRef(value));
    }
}

static int build_text(struct iok_call *call, PyObject *value)
{
    Py_ssize_t len;
    const char *p = PyUnicode_AsUTF8AndSize(value, &len); /* lives as long as the str */
    if (UNLIKELY(p == NULL)) {
        return -1;
    }
    if (LIKELY(len < REFER_BYTES_MIN)) {
        iok_call_text(call, p, (size_t)len);
    } else {
        iok_call_text_ref(call, p, (size_t)len, build_release_object, Py_NewRef(value));
    }
    return 0;
}

static int build_int(struct iok_call *call, PyObject *value)
{
    int overflow;
    long long i = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (LIKELY(overflow == 0)) {
        if (i == -1 && PyErr_Occurred()) {
            return -1;
        }
        iok_call_i64(call, i);
        return 0;
    }
    PyObject *text = PyNumber_ToBase(value, 10); /* unlike str() also of a subclass with a text of its own */
    int result = text == NULL ? -1 : build_text(call, text);
    Py_XDECREF(text);
    return result;
}

static int build_buffer(struct iok_call *call, PyObject *value, Py_ssize_t position)
{
    Py_buffer view;
    if (PyObject_GetBuffer(value, &view, PyBUF_SIMPLE) < 0) {
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError, "argument %zd is a %.100s whose memory is not contiguous", position,
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    Py_buffer *held = view.len < REFER_BYTES_MIN ? NULL : PyMem_Malloc(sizeof(*held));
    if (held == NULL) {
        iok_call_bytes(call, view.buf, (size_t)view.len);
        PyBuffer_Release(&view);
    } else {
        *held = view;
        iok_call_ref(call, held->buf, (size_t)held->len, build_release_buffer, held);
    }
    return 0;
}

static int build_any(struct iok_call *call, PyObject *value, bool scalars, Py_ssize_t position, int depth);

static int build_sequence(struct iok_call *call, PyObject *value, Py_ssize_t position, int depth)
{
    Py_ssize_t n = PySequence_Fast_GET_SIZE(value);
    int result = 0;
    iok_call_array(call, (uint32_t)n);
    for (Py_ssize_t i = 0; i < n && result == 0; i++) {
        if (UNLIKELY(PySequence_Fast_GET_SIZE(value) != n)) { /* by the code that gave the form of an element */
            PyErr_Format(PyExc_RuntimeError, "argument %zd changed its size meanwhile", position);
            return -1;
        }
        PyObject *element = Py_NewRef(PySequence_Fast_GET_ITEM(value, i));
        result = build_any(call, element, false, position, depth + 1);
        Py_DECREF(element);
    }
    return result;
}

/* By iokernel.values.plain: 1 if it made something of the value, 0 if not. */
static int build_plain(struct iok_call *call, PyObject *value, Py_ssize_t position, int depth)
{
    static PyObject *plain;
    if (plain == NULL) {
        plain = core_import("iokernel.values", "plain");
    }
    PyObject *made = plain == NULL ? NULL : PyObject_CallOneArg(plain, value);
    int result = made == NULL ? -1 : made == Py_NotImplemented ? 0 : 1;
    if (result == 1 && build_any(call, made, false, position, depth + 1) < 0) {
        result = -1;
    }
    Py_XDECREF(made);
    return result;
}

static int build_rich(struct iok_call *call, PyObject *value, Py_ssize_t position, int depth)
{
    if (depth > DEPTH_MAX) {
        PyErr_Format(PyExc_ValueError, "argument %zd is nested more than %d deep", position, DEPTH_MAX);
        return -1;
    }
    if (value == Py_None) {
        iok_call_null(call);
        return 0;
    }
    if (PyBool_Check(value)) {
        iok_call_bool(call, value == Py_True);
        return 0;
    }
    if (PyList_CheckExact(value) || PyTuple_CheckExact(value)) {
        return build_sequence(call, value, position, depth);
    }
    int result = build_plain(call, value, position, depth);
    if (result != 0) {
        return result < 0 ? -1 : 0;
    }
    if (PyList_Check(value) || PyTuple_Check(value)) {
        return build_sequence(call, value, position, depth);
    }
    return build_refuse(value, false, position);
}

static int build_any(struct iok_call *call, PyObject *value, bool scalars, Py_ssize_t position, int depth)
{
    if (PyUnicode_Check(value)) {
        return build_text(call, value);
    }
    if (PyBytes_Check(value)) {
        build_bytes(call, value);
        return 0;
    }
    if (PyLong_Check(value) && !PyBool_Check(value)) {
        return build_int(call, value);
    }
    if (PyFloat_Check(value)) {
        iok_call_f64(call, PyFloat_AS_DOUBLE(value));
        return 0;
    }
    if (PyObject_CheckBuffer(value)) {
        return build_buffer(call, value, position);
    }
    return scalars ? build_refuse(value, true, position) : build_rich(call, value, position, depth);
}

int build_argument(struct iok_call *call, PyObject *value, bool scalars, Py_ssize_t position)
{
    return build_any(call, value, scalars, position, 0);
}

bool build_is_scalar(PyObject *value)
{
    return PyUnicode_Check(value) || PyBytes_Check(value) || (PyLong_Check(value) && !PyBool_Check(value)) ||
           PyFloat_Check(value) || PyObject_CheckBuffer(value);
}

/* ---- keywords ----------------------------------------------------------------------------------------------- */

int build_timeout(PyObject *value, int64_t *timeout_ms)
{
    *timeout_ms = 0;
    if (value == Py_None) {
        return 0;
    }
    double seconds = PyFloat_AsDouble(value);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (!(seconds > 0)) {
        PyErr_SetString(PyExc_ValueError, "timeout must be a positive number of seconds, None for the service's own, "
                                          "or math.inf for none");
        return -1;
    }
    double ms = ceil(seconds * 1000);
    *timeout_ms = ms >= 9.0e15 ? -1 : (int64_t)ms; /* beyond 285,000 years it is none */
    return 0;
}

static int build_option(struct call_options *options, PyObject *name, PyObject *value)
{
    if (PyUnicode_CompareWithASCIIString(name, "timeout") == 0) {
        return build_timeout(value, &options->timeout_ms);
    }
    if (PyUnicode_CompareWithASCIIString(name, "repeatable") == 0) {
        options->repeatable = value == Py_None ? -1 : PyObject_IsTrue(value);
        return options->repeatable == -1 && PyErr_Occurred() ? -1 : 0;
    }
    return 1;
}

int build_options(struct call_options *options, PyObject *const *values, PyObject *kwnames)
{
    *options = CALL_OPTIONS_NONE;
    Py_ssize_t n = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    int others = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        int result = build_option(options, PyTuple_GET_ITEM(kwnames, i), values[i]);
        if (result < 0) {
            return -1;
        }
        others |= result;
    }
    return others;
}

void build_apply(struct iok_call *call, const struct call_options *options)
{
    if (options->timeout_ms != 0) {
        iok_call_timeout(call, options->timeout_ms);
    }
    if (options->repeatable >= 0) {
        iok_call_repeatable(call, options->repeatable != 0);
    }
}
