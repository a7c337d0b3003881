/* module.c - iokernel._core: the module, the process-wide kernel, fork and the interpreter's exit. */
#include "serve.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* For tests: whole programs can run under faults on purpose, see struct iok_options. */
#define CHAOS_ENVIRONMENT "IOK_CHAOS"

struct core core;

/* ---- what it needs from Python ------------------------------------------------------------------------------ */

PyObject *core_import(const char *module, const char *name)
{
    PyObject *m = PyImport_ImportModule(module);
    if (m == NULL) {
        return NULL;
    }
    PyObject *value = PyObject_GetAttrString(m, name);
    Py_DECREF(m);
    return value;
}

int core_need_asyncio(void)
{
    if (core.running_loop_object != NULL) {
        return 0;
    }
    PyObject *running = core_import("asyncio", "get_running_loop");
    PyObject *tasks = core_import("asyncio.tasks", "_current_tasks");
    if (tasks == NULL) { /* a private name: without it no task is taken for current, which the loop's own check bears */
        PyErr_Clear();
    }
    core.task_type = core_import("_asyncio", "Task");
    core.cancelled_error = core_import("asyncio", "CancelledError");
    core.invalid_state_error = core_import("asyncio", "InvalidStateError");
    if (running == NULL || core.task_type == NULL || core.cancelled_error == NULL || core.invalid_state_error == NULL) {
        Py_XDECREF(running);
        Py_XDECREF(tasks);
        return -1;
    }
    if (tasks != NULL && PyDict_CheckExact(tasks)) {
        core.current_tasks = tasks;
    } else {
        Py_XDECREF(tasks);
    }
    if (PyCFunction_CheckExact(running) && (PyCFunction_GET_FLAGS(running) & METH_NOARGS) != 0) {
        core.running_loop = PyCFunction_GET_FUNCTION(running);
        core.running_loop_self = PyCFunction_GET_SELF(running);
    }
    core.running_loop_object = running;
    return 0;
}

int core_need_errors(void)
{
    if (core.make_failure != NULL) {
        return 0;
    }
    PyObject *failure = core_import("iokernel.errors", "_failure");
    PyObject *reply = core_import("iokernel.errors", "_reply_error");
    PyObject *decode = core_import("iokernel.errors", "_decode_error");
    PyObject *error = core_import("iokernel.errors", "Error");
    if (failure == NULL || reply == NULL || decode == NULL || error == NULL) {
        Py_XDECREF(failure);
        Py_XDECREF(reply);
        Py_XDECREF(decode);
        Py_XDECREF(error);
        return -1;
    }
    core.make_failure = failure;
    core.make_reply_error = reply;
    core.make_decode_error = decode;
    core.error_type = error;
    return 0;
}

/* ---- the kernel --------------------------------------------------------------------------------------------- */

/* In the child: the kernel and the clients go on here; what was under way is the parent's, and notices by the generation. */
static void core_forked(void)
{
    core.generation++;
}

/* The thread that ends the interpreter: it may still make calls, from finalizers, which fail. */
static unsigned long ending_thread;

/* Called by atexit, while Python is whole: ends every call, so that threads that wait for one come back. */
static PyObject *core_end(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    struct iok_kernel *kernel = core.kernel;
    ending_thread = PyThread_get_thread_ident();
    core.ending = true;
    core.kernel = NULL;
    if (kernel != NULL) {
        Py_BEGIN_ALLOW_THREADS iok_kernel_free(kernel);
        Py_END_ALLOW_THREADS
    }
    Py_RETURN_NONE;
}

void core_park_at_exit(void)
{
    while (UNLIKELY(core.ending) && PyThread_get_thread_ident() != ending_thread) {
        pause();
    }
}

static PyMethodDef core_end_def = {"_end", core_end, METH_NOARGS, "Stops the kernel at exit."};

static int core_register_end(void)
{
    if (core.at_exit) {
        return 0;
    }
    PyObject *enrol = core_import("atexit", "register");
    PyObject *end = enrol == NULL ? NULL : PyCFunction_New(&core_end_def, NULL);
    PyObject *done = end == NULL ? NULL : PyObject_CallOneArg(enrol, end);
    Py_XDECREF(enrol);
    Py_XDECREF(end);
    Py_XDECREF(done);
    core.at_exit = done != NULL;
    return done == NULL ? -1 : 0;
}

struct iok_kernel *core_kernel(void)
{
    if (LIKELY(core.kernel != NULL)) {
        return core.kernel;
    }
    if (core.ending) {
        fail_code(IOK_ECLOSED, "the interpreter is exiting", NULL);
        return NULL;
    }
    if (core_register_end() < 0) {
        return NULL;
    }
    struct iok_error err = {0};
    core.options.chaos = getenv(CHAOS_ENVIRONMENT);
    core.kernel = iok_kernel_new(&core.options, &err);
    if (core.kernel == NULL) {
        fail_set(&err, IOK_NEVER_SENT, NULL, "");
    }
    return core.kernel;
}

/* ---- functions ---------------------------------------------------------------------------------------------- */

static const char *const handoff_names[] = {
    [IOK_HANDOFF_AUTO] = "auto",
    [IOK_HANDOFF_WAKE] = "wake",
    [IOK_HANDOFF_SPIN] = "spin",
    [IOK_HANDOFF_LEAD] = "lead",
};
#define N_HANDOFFS (sizeof(handoff_names) / sizeof(handoff_names[0]))

static int handoff_of(const char *name, enum iok_handoff *out)
{
    for (size_t i = 0; i < N_HANDOFFS; i++) {
        if (strcmp(name, handoff_names[i]) == 0) {
            *out = (enum iok_handoff)i;
            return 0;
        }
    }
    PyErr_SetString(PyExc_ValueError, "handoff must be 'auto', 'wake', 'spin' or 'lead'");
    return -1;
}

static PyObject *core_configure(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs)
{
    static const char *names[] = {"handoff", "port_calls_max", "port_bytes_max", NULL};
    const char *handoff = "auto";
    unsigned long calls = 0;
    unsigned long long bytes = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$skK:configure", (char **)names, &handoff, &calls, &bytes)) {
        return NULL;
    }
    if (core.kernel != NULL) {
        fail_code(IOK_ESTATE, "configure() must be called before the first connect()", NULL);
        return NULL;
    }
    struct iok_options options = core.options;
    if (handoff_of(handoff, &options.handoff) < 0) {
        return NULL;
    }
    if (calls > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "port_calls_max must be below 4294967296");
        return NULL;
    }
    options.port_calls_max = (uint32_t)calls;
    options.port_bytes_max = bytes;
    core.options = options;
    Py_RETURN_NONE;
}

static PyObject *core_stats(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    struct iok_kernel_stats s = {0};
    if (core.kernel != NULL) {
        iok_kernel_stats(core.kernel, &s);
    }
    return Py_BuildValue("{sKsKsKsKsKsKsKsKsKsK}", "rounds", s.rounds, "wakeups", s.wakeups, "polls_blocking",
                         s.polls_blocking, "leads", s.leads, "port_wakeups", s.port_wakeups, "calls", s.calls,
                         "bytes_in", s.bytes_in, "bytes_out", s.bytes_out, "objects", s.objects, "buffer_bytes",
                         s.buffer_bytes);
}

PyDoc_STRVAR(configure_doc, "configure(*, handoff='auto', port_calls_max=0, port_bytes_max=0)\n--\n\n"
                            "Set options of the process's kernel, before the first connect().");
PyDoc_STRVAR(stats_doc, "stats()\n--\n\nCounters of the process's kernel; all 0 before the first connect().");
PyDoc_STRVAR(command_doc, "command(*words, min=0, max=-1, form=None, doc=None)\n--\n\n"
                          "A method descriptor that calls a command of the server.");

static PyMethodDef core_functions[] = {
    {"configure", (PyCFunction)(void (*)(void))core_configure, METH_VARARGS | METH_KEYWORDS, configure_doc},
    {"stats", core_stats, METH_NOARGS, stats_doc},
    {"command", (PyCFunction)(void (*)(void))command_make, METH_VARARGS | METH_KEYWORDS, command_doc},
    {"record", record_make, METH_VARARGS, "record(names, values, /)\n--\n\nA record, made of its parts."},
    {"records", record_make_list, METH_VARARGS,
     "records(names, rows, /)\n--\n\nA list of records with the same columns."},
    {"task_type", task_get_type, METH_NOARGS,
     "task_type()\n--\n\nThe class iokernel.asyncio.Task, made at its first use."},
    {NULL, NULL, 0, NULL},
};

/* ---- the module --------------------------------------------------------------------------------------------- */

static int core_init_names(void)
{
    static const struct {
        PyObject **at;
        const char *text;
    } names[] = {
        {&core.str_add_reader, "add_reader"},
        {&core.str_call_soon, "call_soon"},
        {&core.str_call_soon_threadsafe, "call_soon_threadsafe"},
        {&core.str_call_exception_handler, "call_exception_handler"},
        {&core.str_context, "context"},
        {&core.str_is_closed, "is_closed"},
        {&core.str_drain, "drain"},
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        *names[i].at = PyUnicode_InternFromString(names[i].text);
        if (*names[i].at == NULL) {
            return -1;
        }
    }
    core.names_context = PyTuple_Pack(1, core.str_context);
    return core.names_context == NULL ? -1 : 0;
}

/* All state is static: types and caches are made once, and the module may be executed again after a reload. */
static int core_init_once(void)
{
    static bool done;
    if (done) {
        return 0;
    }
    if (pthread_atfork(NULL, NULL, core_forked) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    done = true;
    return core_init_names();
}

static int core_exec(PyObject *module)
{
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "iokernel supports the main interpreter only, not subinterpreters");
        return -1;
    }
    if (core_init_once() < 0 || value_init() < 0 || port_init_type(module) < 0 || reply_init_type(module) < 0 ||
        client_init_types(module) < 0 || lease_init_type(module) < 0 || queue_init_type(module) < 0 ||
        stream_init_type(module) < 0 || command_init(module) < 0 || record_init_types(module) < 0 ||
        query_init(module) < 0 || serve_init_types(module) < 0 || asgi_init_types(module) < 0 ||
        wsgi_init_type(module) < 0) {
        return -1;
    }
    return PyModule_AddStringConstant(module, "version", iok_version());
}

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, (void *)core_exec},
    {0, NULL},
};

static struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "iokernel._core",
    .m_doc = "The C part of iokernel: clients, replies and the way to the I/O thread.",
    .m_size = 0,
    .m_methods = core_functions,
    .m_slots = core_slots,
};

PyMODINIT_FUNC PyInit__core(void);
PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&core_module);
}
