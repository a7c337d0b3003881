/* command.c - Command: a method descriptor that calls one command of the server.
 *
 *     class RedisCommands:
 *         get = command("GET", min=1, max=1)
 *
 * It behaves as a function in a class does, but goes from the call to the tape without a Python frame. What does not
 * fit the plain form (other keywords, containers, other counts) goes to form, a Python function, if there is one. */
#include "core.h"

#include <stddef.h>
#include <string.h>
#include <structmember.h>

#define WORDS_MAX 3 /* "CLIENT NO-EVICT ON" */

/* Words are kept once and for ever, as calls refer to them: there are as many as commands in the program's classes. */
struct word {
    struct word *next;
    size_t len;
    char text[];
};
static struct word *words_known;

struct py_command {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    const struct word *word[WORDS_MAX];
    Py_ssize_t n_words, min, max; /* arguments after the words; max -1: any */
    PyObject *words;              /* the same as a tuple of str */
    PyObject *name, *qualname, *form, *doc;
};

static PyTypeObject command_type;

/* ---- calling ------------------------------------------------------------------------------------------------ */

static void command_refuse_count(const struct py_command *self, Py_ssize_t n)
{
    if (self->min == self->max) {
        PyErr_Format(PyExc_TypeError, "%U() takes exactly %zd argument%s (%zd given)", self->name, self->min,
                     self->min == 1 ? "" : "s", n);
    } else if (n < self->min) {
        PyErr_Format(PyExc_TypeError, "%U() takes at least %zd argument%s (%zd given)", self->name, self->min,
                     self->min == 1 ? "" : "s", n);
    } else {
        PyErr_Format(PyExc_TypeError, "%U() takes at most %zd argument%s (%zd given)", self->name, self->max,
                     self->max == 1 ? "" : "s", n);
    }
}

static bool command_counts(const struct py_command *self, Py_ssize_t n)
{
    return n >= self->min && (self->max < 0 || n <= self->max);
}

/* May the plain form take these arguments? */
static bool command_plain(const struct py_command *self, PyObject *const *args, Py_ssize_t n)
{
    if (!command_counts(self, n)) {
        return false;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        if (UNLIKELY(!build_is_scalar(args[i]))) {
            return false;
        }
    }
    return true;
}

static PyObject *command_run(const struct py_command *self, struct py_caller *caller, PyObject *const *args,
                             Py_ssize_t n, const struct call_options *options)
{
    struct py_port *port;
    struct iok_call *call = caller_begin(caller, &port);
    if (UNLIKELY(call == NULL)) {
        return caller_failed(caller, port);
    }
    for (Py_ssize_t i = 0; i < self->n_words; i++) {
        iok_call_static(call, self->word[i]->text, self->word[i]->len);
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        if (UNLIKELY(build_argument(call, args[i], caller->scalars, i + 1) < 0)) {
            iok_call_free(call);
            return NULL;
        }
    }
    build_apply(call, options);
    return caller_finish(caller, port, call, NULL);
}

static PyObject *command_vectorcall(PyObject *op, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    const struct py_command *self = (const struct py_command *)op;
    Py_ssize_t n = PyVectorcall_NARGS(nargsf) - 1;
    if (UNLIKELY(n < 0 || !PyObject_TypeCheck(args[0], &caller_type))) {
        PyErr_Format(PyExc_TypeError, "%U() must be called on a client, a lease or a transaction", self->name);
        return NULL;
    }
    struct py_caller *caller = (struct py_caller *)args[0];
    struct call_options options = CALL_OPTIONS_NONE;
    int others = kwnames == NULL ? 0 : build_options(&options, args + n + 1, kwnames);
    if (UNLIKELY(others < 0)) {
        return NULL;
    }
    if (self->form != NULL && (others > 0 || !command_plain(self, args + 1, n))) {
        return PyObject_Vectorcall(self->form, args, (size_t)n + 1, kwnames);
    }
    if (UNLIKELY(others > 0)) {
        PyErr_Format(PyExc_TypeError, "%U() takes only the keywords timeout and repeatable", self->name);
        return NULL;
    }
    if (UNLIKELY(!command_counts(self, n))) {
        command_refuse_count(self, n);
        return NULL;
    }
    if (UNLIKELY(caller->mode == CALLER_QUEUE)) {
        return queue_append(caller, self->words, args + 1, n);
    }
    return command_run(self, caller, args + 1, n, &options);
}

static PyObject *command_bind(PyObject *op, PyObject *instance, PyObject *Py_UNUSED(owner))
{
    return instance == NULL || instance == Py_None ? Py_NewRef(op) : PyMethod_New(op, instance);
}

/* ---- making ------------------------------------------------------------------------------------------------- */

/* NULL with an exception. */
static const struct word *command_intern(PyObject *text)
{
    Py_ssize_t n;
    const char *p = PyUnicode_AsUTF8AndSize(text, &n);
    if (p == NULL) {
        return NULL;
    }
    size_t len = (size_t)n;
    for (struct word *word = words_known; word != NULL; word = word->next) {
        if (word->len == len && memcmp(word->text, p, len) == 0) {
            return word;
        }
    }
    struct word *word = PyMem_RawMalloc(sizeof(*word) + len);
    if (word == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    word->next = words_known;
    word->len = len;
    memcpy(word->text, p, len);
    words_known = word;
    return word;
}

static int command_take_words(struct py_command *self, PyObject *words)
{
    self->n_words = PyTuple_GET_SIZE(words);
    if (self->n_words < 1 || self->n_words > WORDS_MAX) {
        PyErr_Format(PyExc_TypeError, "command() takes 1 to %d words", WORDS_MAX);
        return -1;
    }
    for (Py_ssize_t i = 0; i < self->n_words; i++) {
        const struct word *word = command_intern(PyTuple_GET_ITEM(words, i));
        if (word == NULL) {
            return -1;
        }
        self->word[i] = word;
    }
    self->words = Py_NewRef(words);
    return 0;
}

/* "CONFIG GET" is config_get until __set_name__ says better. */
static PyObject *command_default_name(PyObject *words)
{
    PyObject *separator = PyUnicode_FromString("_");
    PyObject *joined = separator == NULL ? NULL : PyUnicode_Join(separator, words);
    PyObject *name = joined == NULL ? NULL : PyObject_CallMethod(joined, "lower", NULL);
    Py_XDECREF(separator);
    Py_XDECREF(joined);
    return name;
}

PyObject *command_make(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs)
{
    static const char *names[] = {"min", "max", "form", "doc", NULL};
    Py_ssize_t min = 0, max = -1;
    PyObject *form = Py_None, *doc = Py_None;
    PyObject *none = PyTuple_New(0);
    if (none == NULL) {
        return NULL;
    }
    int parsed = PyArg_ParseTupleAndKeywords(none, kwargs, "|$nnOO:command", (char **)names, &min, &max, &form, &doc);
    Py_DECREF(none);
    if (!parsed) {
        return NULL;
    }
    struct py_command *self = (struct py_command *)command_type.tp_alloc(&command_type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->vectorcall = command_vectorcall;
    self->min = min;
    self->max = max;
    self->form = form == Py_None ? NULL : Py_NewRef(form);
    self->doc = Py_NewRef(doc);
    if (command_take_words(self, args) < 0 || (self->name = command_default_name(args)) == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    self->qualname = Py_NewRef(self->name);
    return (PyObject *)self;
}

static PyObject *command_set_name(PyObject *op, PyObject *args)
{
    struct py_command *self = (struct py_command *)op;
    PyObject *owner, *name;
    if (!PyArg_ParseTuple(args, "OU:__set_name__", &owner, &name)) {
        return NULL;
    }
    PyObject *of = PyObject_GetAttrString(owner, "__qualname__");
    PyObject *qualname = of == NULL ? NULL : PyUnicode_FromFormat("%S.%U", of, name);
    Py_XDECREF(of);
    if (qualname == NULL) {
        return NULL;
    }
    Py_SETREF(self->name, Py_NewRef(name));
    Py_SETREF(self->qualname, qualname);
    Py_RETURN_NONE;
}

static PyObject *command_doc(PyObject *op, void *Py_UNUSED(closure))
{
    const struct py_command *self = (const struct py_command *)op;
    if (self->doc != Py_None) {
        return Py_NewRef(self->doc);
    }
    PyObject *separator = PyUnicode_FromString(" ");
    PyObject *joined = separator == NULL ? NULL : PyUnicode_Join(separator, self->words);
    PyObject *doc =
        joined == NULL ? NULL : PyUnicode_FromFormat("%U: its arguments in the server's own order.", joined);
    Py_XDECREF(separator);
    Py_XDECREF(joined);
    return doc;
}

static PyObject *command_signature(PyObject *Py_UNUSED(op), void *Py_UNUSED(closure))
{
    return PyUnicode_FromString("($self, /, *args, timeout=None, repeatable=None)");
}

static PyObject *command_repr(PyObject *op)
{
    return PyUnicode_FromFormat("<command %U>", ((struct py_command *)op)->qualname);
}

static int command_traverse(PyObject *op, visitproc visit, void *arg)
{
    struct py_command *self = (struct py_command *)op;
    Py_VISIT(self->form);
    Py_VISIT(self->doc);
    return 0;
}

static int command_clear(PyObject *op)
{
    struct py_command *self = (struct py_command *)op;
    Py_CLEAR(self->form);
    return 0;
}

static void command_dealloc(PyObject *op)
{
    struct py_command *self = (struct py_command *)op;
    PyObject_GC_UnTrack(op);
    command_clear(op);
    Py_CLEAR(self->words);
    Py_CLEAR(self->name);
    Py_CLEAR(self->qualname);
    Py_CLEAR(self->doc);
    Py_TYPE(op)->tp_free(op);
}

static PyMethodDef command_methods[] = {
    {"__set_name__", command_set_name, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef command_members[] = {
    {"__name__", T_OBJECT, offsetof(struct py_command, name), READONLY, NULL},
    {"__qualname__", T_OBJECT, offsetof(struct py_command, qualname), READONLY, NULL},
    {"words", T_OBJECT, offsetof(struct py_command, words), READONLY, "The command's fixed words."},
    {"form", T_OBJECT, offsetof(struct py_command, form), READONLY, "The function for other than plain arguments."},
    {"min", T_PYSSIZET, offsetof(struct py_command, min), READONLY, "The fewest arguments."},
    {"max", T_PYSSIZET, offsetof(struct py_command, max), READONLY, "The most arguments; -1: any number."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef command_getset[] = {
    {"__doc__", command_doc, NULL, NULL, NULL},
    {"__text_signature__", command_signature, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject command_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "iokernel._core.Command",
    .tp_basicsize = sizeof(struct py_command),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR |
                Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_vectorcall_offset = offsetof(struct py_command, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_descr_get = command_bind,
    .tp_traverse = command_traverse,
    .tp_clear = command_clear,
    .tp_dealloc = command_dealloc,
    .tp_repr = command_repr,
    .tp_methods = command_methods,
    .tp_members = command_members,
    .tp_getset = command_getset,
};

int command_init(PyObject *module)
{
    return PyModule_AddType(module, &command_type);
}
