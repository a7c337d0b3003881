/* pathsend.c - http.response.pathsend of ASGI: the body is a file, named by its path.
 *
 * A small file goes with its head, in one piece. Of a larger one send() reads a part whenever there is room for it, so what
 * is awaited is the whole file; a client that does not read costs one part. Nothing is mapped, as a file that is cut while
 * the kernel thread reads it would end the process. */
#include "serve.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define SMALL_FILE_BYTES 65536 /* as LENT_BYTES_MAX: it fits without waiting */
#define PART_BYTES 262144      /* what one read and one turn of the loop bring; half a million turns for 128 GB */

static int refuse(PyObject *path, const char *why)
{
    /* No OSError: for ASGI that is a client that has gone. */
    PyErr_Format(PyExc_RuntimeError, "http.response.pathsend: %R: %s", path, why);
    return -1;
}

/* The file's descriptor, and its size; -1 with an exception. The specification wants an absolute path; Starlette hands on
 * what its user gave. */
static int file_open(PyObject *path, uint64_t *size)
{
    PyObject *name = NULL;
    if (path == NULL || !PyUnicode_FSConverter(path, &name)) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "http.response.pathsend: there must be a path");
        }
        return -1;
    }
    struct stat status;
    char text[128]; /* what the system says is shorter */
    int fd = -1;
    if ((fd = open(PyBytes_AS_STRING(name), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) < 0 || fstat(fd, &status) < 0) {
        (void)refuse(path, strerror_r(errno, text, sizeof(text)));
    } else if (!S_ISREG(status.st_mode)) {
        (void)refuse(path, "it is not a file");
    } else {
        *size = (uint64_t)status.st_size;
        Py_DECREF(name);
        return fd;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    Py_DECREF(name);
    return -1;
}

static ssize_t read_unlocked(int fd, char *at, size_t n)
{
    PyThreadState *state = PyEval_SaveThread();
    ssize_t got = read(fd, at, n);
    PyEval_RestoreThread(state); /* leaves errno as it is */
    return got;
}

/* As bytes; NULL with an exception, which a file is, too, that became shorter meanwhile. */
static PyObject *file_read(int fd, uint64_t size)
{
    PyObject *data = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    char text[128];
    size_t n = 0;
    ssize_t got = 1;
    while (data != NULL && n < size && got != 0) {
        char *at = PyBytes_AS_STRING(data) + n;
        got = read_unlocked(fd, at, (size_t)size - n);
        if (got >= 0) {
            n += (size_t)got;
        } else if (errno != EINTR) {
            PyErr_Format(PyExc_RuntimeError, "http.response.pathsend: a file cannot be read: %s",
                         strerror_r(errno, text, sizeof(text)));
            Py_CLEAR(data);
        }
    }
    if (data != NULL && n < size) {
        PyErr_SetString(PyExc_RuntimeError, "http.response.pathsend: a file became shorter while it was sent");
        Py_CLEAR(data);
    }
    return data;
}

static bool is_head(const struct exchange *exchange)
{
    PyObject *method = PyDict_GetItemString(exchange->scope, "method");
    return method != NULL && PyUnicode_Check(method) && TEXT_IS(method, "HEAD");
}

static bool says_length(PyObject *field)
{
    PyObject *name = PySequence_Check(field) ? PySequence_GetItem(field, 0) : NULL;
    bool yes = name != NULL && PyBytes_Check(name) &&
               (PyOS_stricmp(PyBytes_AS_STRING(name), "content-length") == 0 ||
                PyOS_stricmp(PyBytes_AS_STRING(name), "transfer-encoding") == 0);
    Py_XDECREF(name);
    PyErr_Clear(); /* what is wrong with it is said when it is sent */
    return yes;
}

/* Its length is known, so the client hears it. */
static int add_length(struct exchange *exchange, uint64_t size)
{
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(exchange->headers); i++) {
        if (says_length(PySequence_Fast_GET_ITEM(exchange->headers, i))) {
            return 0;
        }
    }
    PyObject *headers = PySequence_List(exchange->headers);
    PyObject *length = PyBytes_FromFormat("%zu", (size_t)size);
    PyObject *field = length == NULL ? NULL : Py_BuildValue("(yO)", "content-length", length);
    int done = headers == NULL || field == NULL ? -1 : PyList_Append(headers, field);
    if (done == 0) {
        Py_SETREF(exchange->headers, Py_NewRef(headers));
    }
    Py_XDECREF(headers);
    Py_XDECREF(length);
    Py_XDECREF(field);
    return done;
}

static int send_small(struct exchange *exchange, int fd, uint64_t size)
{
    PyObject *data = file_read(fd, size);
    int done = data == NULL ? -1 : answer_whole(exchange, data);
    Py_XDECREF(data);
    return done;
}

int pathsend_start(struct exchange *exchange, PyObject *path)
{
    if (exchange->answer != ANSWER_HEAD) {
        PyErr_SetString(PyExc_RuntimeError, "http.response.pathsend is possible once, behind http.response.start");
        return -1;
    }
    uint64_t size = 0;
    int fd = file_open(path, &size);
    if (fd < 0) {
        return -1;
    }
    int done = is_head(exchange) || size > SMALL_FILE_BYTES ? add_length(exchange, size) : 0;
    if (done == 0 && is_head(exchange)) {
        done = answer_whole(exchange, NULL);
    } else if (done == 0 && size <= SMALL_FILE_BYTES) {
        done = send_small(exchange, fd, size);
    } else if (done == 0 && (done = answer_head(exchange)) == 0) {
        exchange->file = fd;
        exchange->file_left = size;
        return 0;
    }
    (void)close(fd);
    return done;
}

void pathsend_end(struct exchange *exchange)
{
    if (exchange->file >= 0) {
        (void)close(exchange->file);
        exchange->file = -1;
    }
}

int pathsend_go_on(struct exchange *exchange)
{
    while (exchange->file >= 0 && answer_has_room(exchange)) {
        uint64_t n = exchange->file_left < PART_BYTES ? exchange->file_left : PART_BYTES;
        PyObject *data = file_read(exchange->file, n);
        if (data == NULL) {
            return -1;
        }
        int done = answer_part(exchange, data, n == exchange->file_left, NULL);
        Py_DECREF(data);
        if (done < 0) {
            (void)lseek(exchange->file, -(off_t)n, SEEK_CUR); /* it is read again, if there is room later */
            return -1;
        }
        exchange->file_left -= n;
        if (exchange->file_left == 0) {
            pathsend_end(exchange);
            answer_end(exchange);
        }
    }
    return 0;
}
