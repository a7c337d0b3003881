/* hello.c - an HTTP server by the C API: every request is answered, with its own target in the body.
 *
 *     hello [url]      for example: hello 'http://127.0.0.1:8000/?idle=10s'
 *
 * Ends after Ctrl-C, when requests under way are answered; reads its certificates again after SIGHUP.
 *
 * Built by `make` as build/c/examples/hello. */
#include <iokernel.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define CALLS 256 /* requests in hand at a time */

static volatile sig_atomic_t stopped, reload;

static void on_signal(int signal)
{
    *(signal == SIGHUP ? &reload : &stopped) = 1;
}

/* An answer is an array: status, reason (null: the usual), fields, body. Its length and date need not be said. */
static void answer(struct iok_call *call)
{
    size_t n;
    const struct iok_token *request = iok_call_reply(call, &n);
    char body[256];
    int length = snprintf(body, sizeof(body), "Hello, %.*s\n", request[2].len < 200 ? (int)request[2].len : 200,
                          (const char *)request[2].p);

    iok_call_array(call, 4);
    iok_call_i64(call, 200);
    iok_call_null(call);
    iok_call_array(call, 2);
    iok_call_static(call, "content-type", 12);
    iok_call_static(call, "text/plain; charset=utf-8", 25);
    iok_call_bytes(call, body, (size_t)length);
}

/* A call came back: with a request, or as it has ended. Returns whether it goes on. */
static bool serve(struct iok_call *call)
{
    struct iok_error err;

    switch (iok_serve_state(call)) {
    case IOK_SERVE_REQUEST:
    case IOK_SERVE_LEFT:                       /* the client has said all, and may still read */
        if (iok_call_error(call, &err) != 0) { /* the answer before could not be sent; this one always can */
            fprintf(stderr, "%s\n", err.text);
        }
        answer(call);
        return iok_submit(call) == 0;
    case IOK_SERVE_GONE:
        return iok_submit(call) == 0;
    default:
        iok_call_free(call);
        return false;
    }
}

int main(int argc, char **argv)
{
    const char *url = argc > 1 ? argv[1] : "http://127.0.0.1:8000";
    struct iok_error err = {.text = ""};
    struct iok_kernel *kernel = iok_kernel_new(NULL, &err);
    struct iok_port *port = kernel != NULL ? iok_port_new(kernel, &err) : NULL;
    struct iok_listener *listener = port != NULL ? iok_listener_new(port, url, &err) : NULL;
    struct sigaction action = {.sa_handler = on_signal};
    struct iok_call *call;
    bool closing = false;

    if (listener == NULL) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    for (int i = 0; i < CALLS; i++) {
        call = iok_serve_new(port, listener, &err);
        if (call == NULL || iok_submit(call) != 0) {
            fprintf(stderr, "%s\n", err.text);
            return 1;
        }
    }
    printf("%s\n", iok_listener_name(listener));
    fflush(stdout);
    while (iok_port_calls(port) > 0) {
        (void)iok_wait(port, 200); /* not for ever: a signal may have come just before */
        if (stopped && !closing) {
            closing = true;
            iok_listener_close(listener, port, 5000);
        }
        if (reload) {
            reload = 0;
            if (iok_listener_reload(listener, port, &err) != 0) { /* all stays as it was */
                fprintf(stderr, "%s\n", err.text);
            }
        }
        iok_drain_begin(port);
        while ((call = iok_poll(port)) != NULL) {
            serve(call);
        }
        iok_drain_end(port);
    }
    iok_listener_unref(listener);
    iok_port_free(port);
    iok_kernel_free(kernel);
    return 0;
}
