/* core.h - the parts of iokernel._core, the Python binding: what the files of this folder share.
 *
 *     Client, Lease, Queue  (all are Callers)    client.c, lease.c, queue.c
 *       |  Command: GET, SET ... as methods      command.c
 *       |  fetch() and its like                  query.c
 *       |  arguments -> call                     build.c
 *       v
 *     Port: one per event loop or thread         port.c
 *       |
 *       v  in a drain, or at the end of a wait
 *     tape -> Python value or exception          value.c, record.c, fail.c
 *     Reply: what asyncio awaits                 reply.c
 *     Task: what a Reply resumes at once         task.c
 *     Stream: messages without end               stream.c
 *     Listener, Asgi, Wsgi: the server's side    serve.h
 *
 * It uses include/iokernel.h only. Everything here runs with the interpreter's lock held, except the few lines between
 * Py_BEGIN_ALLOW_THREADS and Py_END_ALLOW_THREADS, which touch no Python object. The kernel thread runs none of it. */
#ifndef IOK_PYTHON_CORE_H
#define IOK_PYTHON_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <iokernel.h>

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Arguments and replies of at least this many bytes are passed by reference: see iok_call_ref. */
#define REFER_BYTES_MIN 16384

/* ---- the process-wide state (module.c) ---------------------------------------------------------------------- */

struct core {
    struct iok_kernel *kernel; /* NULL before the first use and at exit */
    struct iok_options options;
    bool ending;         /* the interpreter exits: no new kernel */
    bool at_exit;        /* core_end is registered with atexit */
    uint32_t generation; /* forks since the start, in this process and those before it */
    /* from asyncio */
    PyCFunction running_loop; /* asyncio.get_running_loop */
    PyObject *running_loop_self, *running_loop_object;
    PyObject *task_type;     /* the C asyncio.Task */
    PyObject *current_tasks; /* {loop: task} */
    PyObject *cancelled_error, *invalid_state_error;
    /* iokernel.errors */
    PyObject *make_failure, *make_reply_error, *make_decode_error, *error_type;
    /* names */
    PyObject *str_add_reader, *str_call_soon, *str_call_soon_threadsafe, *str_call_exception_handler, *str_context;
    PyObject *str_is_closed, *str_drain;
    PyObject *names_context; /* ("context",) */
};
extern struct core core;

/* module.name, or NULL with an exception. */
PyObject *core_import(const char *module, const char *name);
/* Loads what the binding needs from asyncio and iokernel.errors, once. */
int core_need_asyncio(void);
int core_need_errors(void);
/* At the interpreter's exit, after core_end, only daemon threads are left, and they are to see nothing of it: as the
 * interpreter does with those that ask for its lock, this lets them sleep for ever. Without the lock. */
void core_park_at_exit(void);
/* The kernel, made at its first use; NULL with an exception. */
struct iok_kernel *core_kernel(void);

/* ---- ports (port.c) ----------------------------------------------------------------------------------------- */

struct py_reply;

/* Something of this port that died on another thread and waits for the owner. */
struct port_grave {
    struct port_grave *next;
    struct iok_lease *lease; /* one of the two */
    struct iok_call *call;
};

struct py_port {
    PyObject_HEAD
    struct iok_port *port; /* NULL once closed */
    PyObject *loop;        /* NULL: the port of a thread */
    unsigned long thread;  /* the owner */
    uint32_t
        generation; /* another than the core's: the parent's; a thread's port goes on in the child at its next use */
    bool draining;
    bool lingers;             /* the task that was resumed last still counts as the loop's current one */
    bool roams;               /* of one lease alone, and whichever thread uses that owns it meanwhile */
    bool busy;                /* one that roams: its owner waits, without the interpreter's lock */
    struct py_reply *pending; /* references: replies whose calls are under way */
    struct port_grave *graves;
    struct py_port *next, **link; /* all ports of loops */
    PyObject *starved;            /* a list of exchanges that hold messages for want of room here; NULL: none */
    uint32_t lent_parts;          /* of answers, which the system has not taken yet */
};

extern PyTypeObject port_type;

/* Borrowed; NULL with an exception. */
struct py_port *port_of_thread(void);
struct py_port *port_of_loop(void);
/* The running loop's if there is one, else the thread's. */
struct py_port *port_of_anything(void);
/* A new one for a lease that threads use in turn. A new reference; NULL with an exception. */
struct py_port *port_make_roaming(void);
/* One that roams becomes this thread's. 0, or -1 with an exception if another thread waits on it. */
int port_roam(struct py_port *port);
/* Open, of this process and of this thread. */
bool port_usable(const struct py_port *port);
/* Sets the exception that says why it is not. */
void port_refuse(const struct py_port *port);
/* Frees a lease or abandons a call from whatever thread. */
void port_bury(struct py_port *port, struct iok_lease *lease, struct iok_call *call);
void port_reap(struct py_port *port);
int port_init_type(PyObject *module);

/* ---- callers: Client, Lease, Queue (client.c, lease.c, queue.c) --------------------------------------------- */

enum caller_mode {
    CALLER_SYNC,    /* a call blocks its thread and returns the value */
    CALLER_ASYNCIO, /* a call returns a Reply */
    CALLER_QUEUE,   /* a call is kept for later */
};

struct py_caller {
    PyObject_HEAD
    struct iok_service *service; /* a reference; NULL once given back, and in queues */
    struct iok_lease *lease;     /* of leases: NULL once closed */
    struct py_port *port;        /* of leases: a reference; NULL for others, whose port is found at each call */
    PyObject *
        client; /* of leases, and of clients that share another's service: a reference, as that one closes it when dropped */
    PyObject *queue; /* of queues: a list */
    PyObject
        *decoders; /* of clients, and shared with their leases: by a column's type (int) who makes its values; a dict */
    PyObject *weakrefs;
    uint32_t generation; /* of leases: made then, and the parent's in a child; of clients: last used then */
    uint8_t mode;        /* enum caller_mode */
    bool decode;         /* bytes of replies become str */
    bool scalars;        /* the protocol's arguments are bytes, text and numbers: refuse others at once */
    bool closed;
};

extern PyTypeObject caller_type, client_type, lease_type, queue_type;

/* What a call takes by keyword. */
struct call_options {
    int64_t timeout_ms; /* 0: the service's own */
    int repeatable;     /* -1: not given */
};
#define CALL_OPTIONS_NONE ((struct call_options){.timeout_ms = 0, .repeatable = -1})

/* What a call gives of its reply. */
enum value_form {
    VALUE_WHOLE, /* all of it; the others take it to be [names, types, rows, tag] */
    VALUE_ROWS,  /* a list of records */
    VALUE_ROW,   /* the first record, or None */
    VALUE_FIELD, /* a value of the first row, or None */
    VALUE_TAG,
};

struct value_want {
    uint8_t form;       /* enum value_form */
    bool decode;        /* bytes become str */
    Py_ssize_t column;  /* VALUE_FIELD: which */
    PyObject *decoders; /* borrowed from the caller, who outlives the call; NULL: there are none */
};

/* An empty call on the right port; *port is set. NULL with an exception. */
struct iok_call *caller_begin(struct py_caller *caller, struct py_port **port);
/* A call with all its arguments, not yet submitted; NULL with an exception. */
struct iok_call *caller_build(struct py_caller *caller, struct py_port **port, PyObject *const *args, Py_ssize_t nargs,
                              const struct call_options *options);
/* What a call gives where nothing else is asked for. */
static inline struct value_want caller_want(const struct py_caller *caller)
{
    return (struct value_want){.form = VALUE_WHOLE, .decode = caller->decode};
}
/* Submits and gives what the method returns: a value or a Reply. Takes the call over. want NULL: as caller_want says. */
PyObject *caller_finish(struct py_caller *caller, struct py_port *port, struct iok_call *call,
                        const struct value_want *want);
/* What the method returns when the call could not be made, with the exception set: NULL, or in asyncio a Reply that
 * failed, so that gather() and its like see failures of the kernel in their place. port NULL: raise it. */
PyObject *caller_failed(struct py_caller *caller, struct py_port *port);
/* 0, or -1 with an exception after the call was freed. */
int caller_submit(struct py_caller *caller, struct iok_call *call);
/* A waiting thread may run the kernel's loop for some milliseconds, and a signal that it handles then ends no wait. So
 * it looks for signals after this time, and then twice as late each time, up to once a second. */
#define LOOK_MS_MIN 4
#define LOOK_MS_MAX 1000
/* Waits for a submitted call. 0, or -1 with an exception after the call was abandoned. */
int caller_wait(struct py_caller *caller, struct iok_call *call);
/* 0, or -1 with the exception for a closed one, and for a lease of the parent's. */
int caller_check_open(struct py_caller *caller);
/* The same for the latter alone. A client is noted to be in use in this process. */
int caller_check_forked(struct py_caller *caller);
int client_init_types(PyObject *module);
int lease_init_type(PyObject *module);
int queue_init_type(PyObject *module);
/* Keeps words (a tuple, or NULL) and arguments for later; returns None. */
PyObject *queue_append(struct py_caller *caller, PyObject *words, PyObject *const *args, Py_ssize_t nargs);

/* ---- arguments (build.c) ------------------------------------------------------------------------------------ */

/* Appends one argument; position counts from 1, for the error text. 0 or -1 with an exception. */
int build_argument(struct iok_call *call, PyObject *value, bool scalars, Py_ssize_t position);
/* Sets the TypeError that names what is allowed; returns -1. */
int build_refuse(PyObject *value, bool scalars, Py_ssize_t position);
/* Is it of a type that Redis-like protocols can carry? */
bool build_is_scalar(PyObject *value);
/* Reads timeout= and repeatable= from a vectorcall's keywords. 1 if there are others, 0, or -1 with an exception. */
int build_options(struct call_options *options, PyObject *const *values, PyObject *kwnames);
int build_timeout(PyObject *seconds, int64_t *timeout_ms);
void build_apply(struct iok_call *call, const struct call_options *options);

/* ---- replies (value.c, fail.c, reply.c) --------------------------------------------------------------------- */

/* The value of a call that ended, or NULL with the exception that it stands for. */
PyObject *value_of_call(struct iok_call *call, struct value_want want);
PyObject *value_of_message(const struct iok_token *tokens, size_t n, struct iok_call *call, bool decode);
int value_init(void);

/* Values of a kind (kind.c): of a token of bytes with a subtype; of an array with one, whose list is taken over and may be
 * NULL. */
PyObject *kind_of_bytes(const struct iok_token *token);
PyObject *kind_of_list(PyObject *list, uint16_t kind);
int kind_init(void);

/* Set the exception for a failure of iokernel; service may be NULL. */
void fail_set(const struct iok_error *err, enum iok_outcome outcome, struct iok_service *service, const char *endpoint);
void fail_code(int code, const char *text, struct iok_service *service);
void fail_call(struct iok_call *call);
/* A new exception for an error that the server reports; call may be NULL for one nested in a reply. */
PyObject *fail_reply(const struct iok_token *token, struct iok_call *call, PyObject *fields);
void fail_undecodable(struct iok_call *call);
/* Takes the current exception, with its traceback set. A new reference. */
PyObject *fail_take(void);
/* Raises an exception instance; takes the reference over. */
void fail_raise(PyObject *exception);

enum reply_state {
    REPLY_PENDING,
    REPLY_RESULT,
    REPLY_EXCEPTION,
    REPLY_CANCELLED,
};

struct py_reply {
    PyObject_HEAD
    struct py_reply *next, **link; /* the port's pending replies */
    struct py_port *port;          /* borrowed; NULL unless pending on a port */
    struct iok_call *call;         /* under way; NULL otherwise */
    PyObject *task;                /* the Task that awaits it, to be resumed before all callbacks */
    PyObject *owner;               /* until the end: the client or lease; of a stream's next message the stream */
    PyObject *loop;
    PyObject *result;             /* the value, the exception, or the message of cancel() */
    PyObject *callback, *context; /* the first done callback: nearly always the only one */
    PyObject *callbacks;          /* list of (callback, context): further ones */
    PyObject *weakrefs;
    struct iok_stamps stamps;
    struct value_want want;
    uint8_t state; /* enum reply_state */
    char blocking; /* asyncio's _asyncio_future_blocking */
    bool unseen;   /* an exception that nobody has looked at */
};

extern PyTypeObject reply_type;

/* A pending reply of a call (not yet submitted) on a loop's port; it wants all of it, as bytes, unless told. owner: the client, lease or stream, kept until the
 * end, so that "await connect(url).get(key)" works. */
struct py_reply *reply_new(struct py_port *port, struct iok_call *call, PyObject *owner);
/* Puts it among the port's pending ones, which keeps it alive until it ends. */
void reply_start(struct py_reply *reply);
/* Ends it with a value, or if that is NULL with the current exception. drain: of the port in whose drain a waiting task may
 * be resumed at once; NULL: by the loop. 0, or -1 with KeyboardInterrupt or SystemExit raised by that task. */
int reply_end(struct py_reply *reply, PyObject *value, struct py_port *drain);
/* The call has ended: converts and frees it, then as reply_end. */
int reply_complete(struct py_reply *reply, struct iok_call *call, struct py_port *drain);
/* Keeps or schedules a callback; context is taken over. 0 or -1. */
int reply_add(struct py_reply *reply, PyObject *callback, PyObject *context);
/* What tp_iternext returns where am_send gave how and result: a value travels in StopIteration. */
PyObject *reply_of_send(PySendResult how, PyObject *result);
/* Its port goes away: ends without telling anybody, since the loop is closed. */
void reply_orphan(struct py_reply *reply);
int reply_init_type(PyObject *module);

/* ---- records and queries (record.c, query.c) ------------------------------------------------------------------ */

/* What the records of these columns share; the names are tokens of text. A new reference; NULL with an exception. */
PyObject *record_shape(const struct iok_token *names, uint32_t n);
/* An unfinished record: its n values are to be set by PyTuple_SET_ITEM, then it is to be given to record_done. */
PyObject *record_new(PyObject *shape, Py_ssize_t n);
void record_done(PyObject *record);
/* _core.record(names, values), _core.records(names, rows) */
PyObject *record_make(PyObject *module, PyObject *args);
PyObject *record_make_list(PyObject *module, PyObject *args);
int record_init_types(PyObject *module);

/* _core.fetch and its like: methods for subclasses of Caller. */
int query_init(PyObject *module);

/* ---- tasks (task.c) ------------------------------------------------------------------------------------------ */

/* The reply that the task awaits has ended: runs the task's next step, at once or by the loop. 0, or -1 with an
 * exception for the loop. */
int task_wake(PyObject *task, struct py_reply *reply, struct py_port *drain);
/* Between the tasks that a drain resumes the last stays the loop's current one, as the next soon takes its place. This
 * ends that, before anything else may look. Leaves the current exception as it is. */
void task_settle(struct py_port *drain);
/* A Task for coro, which keeps the protocol of coroutines, in a copy of the current context. options is {"loop": loop}.
 * task_get_type was called before. */
PyObject *task_make(PyObject *coro, PyObject *loop, PyObject *options);
/* Its first step: now, in that port's drain, or if that is NULL by the loop. One that has not ended by then is made known
 * to asyncio. 0, or -1 with an exception for the loop. */
int task_launch(PyObject *task, struct py_port *drain);
/* _core.task_type(): the class, made at its first use, as it is a subclass of asyncio's. */
PyObject *task_get_type(PyObject *module, PyObject *unused);

/* ---- commands and streams ----------------------------------------------------------------------------------- */

int command_init(PyObject *module);
PyObject *command_make(PyObject *module, PyObject *args, PyObject *kwargs);

extern PyTypeObject stream_type;
/* A call of a stream has news. 0 or -1 as reply_end. */
int stream_news(PyObject *stream, struct iok_call *call, struct py_port *drain);
/* The reply that waited for a message was cancelled or died. */
void stream_forget(PyObject *stream, const struct py_reply *reply);
int stream_init_type(PyObject *module);

#endif
