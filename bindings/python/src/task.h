/* task.h - what the two files of Task share: task.c drives the coroutine, task_type.c is the class around it. */
#ifndef IOK_PYTHON_TASK_H
#define IOK_PYTHON_TASK_H

#include "core.h"

/* The fields that stand behind those of asyncio.Task. */
struct task {
    PyObject *coro, *context, *loop;
    PyObject *waiter; /* what it awaits: a Reply or any future; NULL when a step is scheduled or running */
    PyObject *step;   /* its bound method _step, made when first needed; NULL after the end, as it refers back */
    PyObject *name;   /* NULL: made from number when asked for */
    PyObject *cancel_message; /* of the last cancel() */
    PyObject *cancelled;      /* the CancelledError that ended the coroutine, until it is raised to somebody */
    unsigned long number;
    long cancels; /* cancel() without uncancel() */
    bool must_cancel, done, log_destroy;
};

/* From asyncio and for it; filled in by task_get_type. */
struct task_names {
    PyObject *future_cancel, *future_set_result, *future_set_exception, *future_result, *future_exception;
    PyObject *register_task, *enter_task, *leave_task, *iscoroutine;
    PyObject *str_blocking, *str_result, *str_throw, *str_cancel, *str_add_done_callback, *str_get_loop;
    PyObject *names_msg; /* ("msg",) */
};
extern struct task_names from;

extern Py_ssize_t task_offset; /* of struct task, behind the base's fields */

static inline struct task *task_of(PyObject *op)
{
    return (struct task *)((char *)op + task_offset);
}

/* Has the loop call _step(argument), or _step(). 0 or -1. */
int task_soon(struct task *self, PyObject *argument);
/* Runs the coroutine, in its context, to where it waits or ends. error is thrown in; NULL: none; taken over. 0, or -1
 * with an exception for the loop. drain: as of task_wake. */
int task_run(PyObject *op, PyObject *error, struct py_port *drain);
/* _step(), _step(future that it waited for), _step(exception to throw). The loop calls it in the task's context. */
PyObject *task_step(PyObject *op, PyObject *const *args, Py_ssize_t nargs);
/* A new CancelledError, or the one that ended the coroutine. */
PyObject *task_make_cancelled(struct task *self);

#endif
