/* fail.c - failures as Python exceptions. The classes and their wording are in iokernel/errors.py; this file only hands
 * the facts over. Nothing here is on the path of a call that goes well. */
#include "core.h"

#include <string.h>

PyObject *fail_take(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(value, traceback);
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

void fail_raise(PyObject *exception)
{
    PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_DECREF(exception);
}

/* Text of the core, which may quote a peer's bytes. */
static PyObject *fail_text(const char *text)
{
    return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
}

void fail_set(const struct iok_error *err, enum iok_outcome outcome, struct iok_service *service, const char *endpoint)
{
    if (err->code == IOK_ENOMEM) {
        PyErr_NoMemory();
        return;
    }
    if (core_need_errors() < 0) {
        return;
    }
    PyObject *text = fail_text(err->text[0] != '\0' ? err->text : iok_errno_text(err->code));
    PyObject *name = fail_text(service == NULL ? "" : iok_service_name(service));
    if (text != NULL && name != NULL) {
        PyObject *exception = PyObject_CallFunction(core.make_failure, "ssOOs", iok_errno_name(err->code),
                                                    iok_outcome_name(outcome), text, name, endpoint);
        if (exception != NULL) {
            fail_raise(exception);
        }
    }
    Py_XDECREF(text);
    Py_XDECREF(name);
}

void fail_code(int code, const char *text, struct iok_service *service)
{
    struct iok_error err = {.code = code};
    snprintf(err.text, sizeof(err.text), "%s", text);
    fail_set(&err, IOK_NEVER_SENT, service, "");
}

void fail_call(struct iok_call *call)
{
    struct iok_error err = {0};
    iok_call_error(call, &err);
    fail_set(&err, iok_call_outcome(call), iok_call_service(call), iok_call_endpoint(call));
}

PyObject *fail_reply(const struct iok_token *token, struct iok_call *call, PyObject *fields)
{
    if (core_need_errors() < 0) {
        return NULL;
    }
    PyObject *text = PyUnicode_DecodeUTF8((const char *)token->p, (Py_ssize_t)token->len, "surrogateescape");
    if (text == NULL) {
        return NULL;
    }
    const char *outcome = iok_outcome_name(call == NULL ? IOK_DONE : iok_call_outcome(call));
    PyObject *name = fail_text(call == NULL ? "" : iok_service_name(iok_call_service(call)));
    const char *endpoint = call == NULL ? "" : iok_call_endpoint(call);
    PyObject *exception = name == NULL ? NULL
                                       : PyObject_CallFunction(core.make_reply_error, "sOOsO", outcome, text, name,
                                                               endpoint, fields != NULL ? fields : Py_None);
    Py_DECREF(text);
    Py_XDECREF(name);
    return exception;
}

void fail_undecodable(struct iok_call *call)
{
    PyErr_Clear();
    if (core_need_errors() < 0) {
        return;
    }
    PyObject *name = fail_text(iok_service_name(iok_call_service(call)));
    PyObject *exception =
        name == NULL ? NULL : PyObject_CallFunction(core.make_decode_error, "Os", name, iok_call_endpoint(call));
    if (exception != NULL) {
        fail_raise(exception);
    }
    Py_XDECREF(name);
}
