/* serve.h - what the files of the server's side share.
 *
 *     Listener                 serve.c
 *     requests as dicts        scope.c      tape -> scope (ASGI), environ (WSGI)
 *     Asgi: one listener with one application on one event loop
 *                              asgi.c       takes requests, and the application's coroutines
 *                              exchange.c   one request, as the coroutine of its task
 *                              channel.c    its receive() and send()
 *                              answer.c     what those send
 *                              pathsend.c   a file as the body
 *                              websocket.c  the same of WebSocket
 *     Crew: the threads of a pool, who take requests in turns
 *                              crew.c
 *     Wsgi: one thread's requests
 *                              wsgi.c
 *
 * A serving call is a credit for one request: it is submitted empty, comes back filled, and submitting it again sends the
 * answer and waits for the next request. */
#ifndef IOK_PYTHON_SERVE_H
#define IOK_PYTHON_SERVE_H

#include "core.h"

#include <string.h>

/* ---- listener (serve.c) ------------------------------------------------------------------------------------- */

struct py_listener {
    PyObject_HEAD
    struct iok_listener *listener; /* a reference */
    struct py_port *port;          /* a reference: of the thread that made it */
    bool closed;
};

extern PyTypeObject listener_type;

/* ---- requests as Python sees them (scope.c) ------------------------------------------------------------------ */

/* A request's tape, taken apart; borrowed from the call. */
struct request {
    struct iok_token method, target, body;
    int64_t minor;                  /* of the version 1.x */
    const struct iok_token *fields; /* name, value in turn */
    uint32_t n_fields;              /* tokens: twice as many as fields */
    const uint8_t *path, *query;    /* within the target; query: behind the '?' */
    size_t path_len, query_len;
};

/* Fills it in; false if the tape is not a request's (which would be a bug). */
bool request_read(struct request *request, struct iok_call *call);

/* What stays the same from request to request of one ASGI listener. */
struct scope_base {
    PyObject *constant; /* the dict that each scope is a copy of */
    PyObject *asgi;     /* dicts in it, copied for each: applications may write to them */
    PyObject *extensions;
    PyObject *state;     /* of lifespan, copied for each; NULL: none */
    PyObject *trust;     /* what a proxy says, or NULL: a callable, iokernel.serve.forwarded.Trust */
    PyObject *root_path; /* str, and as bytes; NULL: none */
    PyObject *raw_root;
};

PyObject *scope_of_request(const struct scope_base *base, const struct request *request, struct iok_call *call);
/* environ: a copy of constant, filled in; wsgi.input is body. trust as above. */
PyObject *environ_of_request(PyObject *constant, PyObject *trust, const struct request *request, struct iok_call *call,
                             PyObject *body);
int scope_init(void);

/* ---- ASGI (asgi.c, exchange.c, channel.c) -------------------------------------------------------------------- */

/* Replies that wait for the same event; each looks again for itself when it rings. */
struct bell {
    PyObject *one;  /* a Reply: nearly always the only one */
    PyObject *more; /* a list of further ones */
};

enum answer_state {
    ANSWER_NONE,
    ANSWER_HEAD, /* http.response.start came, and waits for the first part of the body */
    ANSWER_BODY, /* the head has been sent, and the body goes in parts */
    ANSWER_DONE,
};

enum socket_state {
    SOCKET_NONE,  /* it is no WebSocket */
    SOCKET_ASKED, /* receive() has to give websocket.connect */
    SOCKET_TOLD,  /* it has */
    SOCKET_OPEN,  /* accepted */
    SOCKET_CLOSED,
};

struct asgi;

/* One request with the application. It is the coroutine that the request's task runs: it calls the application, runs
 * what that returns, and ends the answer. It outlives its answer as long as the application works on behind it. */
struct exchange {
    PyObject_HEAD
    struct exchange *next, **link; /* of the Asgi's list, which keeps it alive while it runs; NULL: it has ended */
    struct asgi *asgi;             /* a reference */
    struct iok_call *call;         /* NULL once the answer is complete, or the client has gone */
    PyObject *task;                /* a reference while it runs */
    PyObject *scope;
    PyObject *coro;             /* the application's; NULL before its first step and after its last */
    PyObject *headers;          /* of an ANSWER_HEAD: a list or tuple */
    struct bell received, sent; /* who waits in receive(), in send() */
    uint64_t began_ns;          /* of the access log; 0: there is none */
    size_t lent_bytes;          /* in parts that the system has not taken yet */
    uint32_t lent_parts;        /* these parts */
    PyObject *held;             /* a list of messages of send(), in turn, for which the port has no room; NULL: none */
    uint64_t file_left;         /* of a file that is sent: bytes */
    int file;                   /* its descriptor, or -1 */
    PyObject *held_error;       /* why one of these could not be sent after all */
    PyObject *close_reason;     /* of a WebSocket, with its code; NULL: "" */
    int status, close_code;
    uint8_t answer;  /* enum answer_state */
    uint8_t socket;  /* enum socket_state */
    bool body_given; /* receive() has given all of the request's body */
    bool told_gone;  /* receive() has given http.disconnect */
    bool gone;       /* the client, or the server, which has ended a WebSocket */
};

struct asgi {
    PyObject_HEAD
    struct py_port *port; /* references */
    struct py_listener *listener;
    PyObject *app, *on_error, *on_access; /* on_access may be NULL */
    PyObject *task_options;               /* {"loop": loop} */
    struct scope_base base;
    struct exchange *exchanges; /* references */
    uint32_t busy;              /* of these */
    struct iok_call **calls;    /* all serving calls */
    uint32_t n_calls, waiting;  /* of these; how many wait for a request */
    uint32_t calls_max;
    uint32_t lent_parts_many; /* of the port: beyond that each exchange may lend one only */
    struct asgi_slow *slow;
    bool closing;
};

/* The user of calls whose answer may take its time, as it is large or was sent in parts: until they come with the next
 * request they do not count as waiting. */
struct asgi_slow {
    PyObject_HEAD
    struct asgi *asgi; /* borrowed: it owns this */
};

extern PyTypeObject asgi_type, asgi_slow_type, exchange_type;

/* News of a call whose user is an Asgi, an exchange, or a part of an answer. 0 or -1 as reply_end. */
int serve_news(PyObject *user, struct iok_call *call, struct py_port *drain);
int asgi_news(struct asgi *asgi, struct iok_call *call, struct py_port *drain);
int exchange_news(struct exchange *exchange, struct iok_call *call, struct py_port *drain);
/* An exchange needs its call no more: submits it, with the answer if that is in it, for the next request. 0, or -1 with
 * an exception; then the call is still the exchange's. */
int asgi_give_back(struct asgi *asgi, struct iok_call *call);
/* The same for a call that was submitted, with an answer that may take its time. */
void asgi_count_slow(struct asgi *asgi, struct iok_call *call);
int asgi_slow_news(struct asgi_slow *slow, struct iok_call *call, struct py_port *drain);
/* The call has ended, as the listener was closed: frees it. */
void asgi_lose(struct asgi *asgi, struct iok_call *call);
/* The call cannot be used: frees it, upon which the kernel answers by 500 or breaks the answer off, and makes another. */
void asgi_replace(struct asgi *asgi, struct iok_call *call);

/* With its task. */
struct exchange *exchange_new(struct asgi *asgi, struct iok_call *call, PyObject *scope);
/* Has its task run: at once, or by the loop. 0 or -1 as reply_end. */
int exchange_launch(struct exchange *exchange, struct py_port *drain);
/* Its call is free for another request, with what is in it for this one. */
void exchange_release(struct exchange *exchange);
/* Tells the log that the kernel could not send what the application said. */
void exchange_report_refused(const struct exchange *exchange, const struct iok_error *err);
/* Out of the Asgi's list, which gives its reference back. */
void exchange_unlink(struct exchange *exchange);
int exchange_init_type(PyObject *module);

/* receive() and send(), as callables. */
PyObject *channel_receive(struct exchange *exchange);
PyObject *channel_send(struct exchange *exchange);
/* Messages of http. 0, or -1 with an exception. */
int channel_on_start(struct exchange *exchange, PyObject *message);
int channel_on_body(struct exchange *exchange, PyObject *message);
/* The port may have room for what is held. 0 or -1 as reply_end. */
int channel_retry(struct exchange *exchange, struct py_port *drain);
int bell_ring(struct bell *bell, struct py_port *drain);
int bell_traverse(const struct bell *bell, visitproc visit, void *arg);
void bell_clear(struct bell *bell);
int channel_init_types(PyObject *module);

static inline bool text_is(PyObject *text, const char *wanted, Py_ssize_t n)
{
    return PyUnicode_IS_COMPACT_ASCII(text) && PyUnicode_GET_LENGTH(text) == n &&
           memcmp(PyUnicode_1BYTE_DATA(text), wanted, (size_t)n) == 0;
}
#define TEXT_IS(text, wanted) text_is(text, wanted, (Py_ssize_t)sizeof(wanted) - 1)

/* ---- answers (answer.c) -------------------------------------------------------------------------------------- */

#define LENT_BYTES_MAX 65536 /* as the high-water mark of asyncio's transports */
#define LENT_PARTS_MAX 64    /* each is a call of the port: small parts are not to use these up */

/* Whether send() need not wait. */
static inline bool answer_has_room(const struct exchange *exchange)
{
    bool many = exchange->asgi->port->lent_parts > exchange->asgi->lent_parts_many;
    return exchange->held == NULL && exchange->lent_bytes <= LENT_BYTES_MAX &&
           exchange->lent_parts < (many ? 1 : LENT_PARTS_MAX);
}

/* A part of an answer that is lent to the kernel: the user of its call. */
struct part {
    PyObject_HEAD
    struct exchange *exchange; /* a reference */
    size_t bytes;
};

extern PyTypeObject part_type;
int part_news(struct part *part, struct iok_call *call, struct py_port *drain);

/* All give 0, or -1 with an exception. */
/* With exchange->status and headers: the whole answer, or its head. */
int answer_whole(struct exchange *exchange, PyObject *body);
int answer_head(struct exchange *exchange);
/* A part of the body: data may be NULL; broken: instead of it, why the body is broken off. */
int answer_part(struct exchange *exchange, PyObject *data, bool last, const char *broken);
/* The same by hand: a call to append to, NULL with an exception; and taking it over. */
struct iok_call *answer_part_new(struct exchange *exchange);
int answer_part_submit(struct exchange *exchange, struct iok_call *call, size_t bytes);
int answer_append_head(struct iok_call *call, int status, PyObject *headers);
/* A whole answer without fields or a body. */
void answer_append_empty(struct iok_call *call, int status);
/* Answers in the application's place, which had not begun to. */
int answer_error(struct exchange *exchange, int status, const char *text);
/* ValueError: the application is told what was wrong. -1. */
int answer_refused(struct iok_call *call, const char *what);
/* The last part was submitted, or all; the call is the Asgi's. */
void answer_end(struct exchange *exchange);
void answer_done(struct exchange *exchange);
/* Breaks off a body that has begun. */
void answer_break(struct exchange *exchange, const char *why);
/* The same without saying why; it cannot fail. */
void answer_cut(struct exchange *exchange);

/* ---- files (pathsend.c) -------------------------------------------------------------------------------------- */

/* 0, or -1 with an exception. path may be NULL. */
int pathsend_start(struct exchange *exchange, PyObject *path);
/* Sends as much as there is room for. 0, or -1 with an exception, which may be that the port has no room. */
int pathsend_go_on(struct exchange *exchange);
/* Closes the file. */
void pathsend_end(struct exchange *exchange);

/* ---- WebSocket (websocket.c) --------------------------------------------------------------------------------- */

/* Does the request ask for it? */
bool websocket_is_asked(const struct request *request);
/* Makes a scope of http one of websocket. */
int websocket_scope(PyObject *scope, const struct request *request);
/* As receive_look and on_message of channel.c. */
PyObject *websocket_look(struct exchange *exchange);
int websocket_send(struct exchange *exchange, PyObject *type, PyObject *message);
/* The application has ended. */
void websocket_finish(struct exchange *exchange, bool failed);
/* The server ends: so does the connection. */
void websocket_restart(struct exchange *exchange);
/* The kernel did not take the opening: then this has answered in its place, but not submitted. */
bool websocket_is_refused(struct exchange *exchange);
int websocket_init(void);

/* ---- WSGI (crew.c, wsgi.c) ----------------------------------------------------------------------------------- */

struct crew;
extern PyTypeObject crew_type;

/* A thread of a crew: the user of its request's call, and of parts of the answer. */
struct crew_seat {
    struct crew_seat *next;
    PyThread_type_lock bell; /* locked while it is silent */
    bool rung;
    bool held;    /* it sleeps until there are news of its request */
    bool watches; /* it was woken to watch the others */
};

bool crew_seat_init(struct crew_seat *seat); /* false: with an exception */
void crew_seat_deinit(struct crew_seat *seat);
/* The crew's port is this thread's, until it lets go of the interpreter's lock. Before all use of calls. 0, or -1 with an
 * exception. */
int crew_enter(struct crew *crew);
/* Waits for a request. 1, 0 if there will be none any more, or -1 with an exception. */
int crew_take(struct crew *crew, struct crew_seat *seat, struct iok_call **call);
/* What the thread took last is over for it. */
void crew_done(struct crew *crew);
/* The thread is gone, and with it the request's call. */
void crew_drop(struct crew *crew, struct iok_call *call);
/* Waits for news of the request that the thread has, or of a part; maybe there are none. 0, or -1 with an exception. */
int crew_wait(struct crew *crew, struct crew_seat *seat);

int serve_init_types(PyObject *module);
int asgi_init_types(PyObject *module);
int wsgi_init_type(PyObject *module);

/* Raised by send() when the client has gone; an OSError, as ASGI has it. */
extern PyObject *client_gone;

#endif
