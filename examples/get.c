/* get.c - SET and GET by the C API, and what to do about each way in which a call can fail.
 *
 *     get [url]        for example: get redis://localhost
 *
 * Built by `make` as build/c/examples/get. */
#include <inttypes.h>
#include <iokernel.h>
#include <stdio.h>
#include <string.h>

/* One command of words, waited for. Returns the call for its reply, to be freed; NULL after it said what went wrong. */
static struct iok_call *run(struct iok_port *port, struct iok_service *service, const char *const *words)
{
    struct iok_error err;
    struct iok_call *call = iok_call_new(port, service, &err);
    int rc;

    if (call == NULL) {
        fprintf(stderr, "%s: %s\n", iok_errno_name(err.code), err.text);
        return NULL;
    }
    for (size_t i = 0; words[i] != NULL; i++) {
        iok_call_text(call, words[i], strlen(words[i]));
    }
    iok_call_timeout(call, 2000);
    rc = iok_submit(call);
    if (rc != 0) { /* nothing was sent: a bad argument, a closed service, ... */
        fprintf(stderr, "%s: %s\n", words[0], iok_errno_text(rc));
        iok_call_free(call);
        return NULL;
    }
    while (iok_wait_call(call, -1) == IOK_EINTR) { /* a signal was handled; its deadline ends the call in any case */
    }
    if (iok_call_error(call, &err) == 0) {
        return call;
    }
    /* never-sent: repeat it as you like. maybe-executed: only if running it twice does no harm. */
    fprintf(stderr, "%s: %s, %s: %s\n", words[0], iok_outcome_name(iok_call_outcome(call)), iok_errno_name(err.code),
            err.text);
    iok_call_free(call);
    return NULL;
}

/* A reply is an array of tokens; a simple one is a single token. */
static int print_reply(struct iok_call *call)
{
    size_t n;
    const struct iok_token *reply = iok_call_reply(call, &n);
    int status = 0;

    if (n == 0) {
        return 1;
    }
    switch ((enum iok_type)reply->type) {
    case IOK_NULL:
        puts("(no such key)");
        break;
    case IOK_I64:
        printf("%" PRId64 "\n", reply->i);
        break;
    case IOK_BYTES:
    case IOK_TEXT:
        printf("%.*s\n", (int)reply->len, (const char *)reply->p);
        break;
    case IOK_ERROR: /* the call was done or rejected; this is what the server said */
        fprintf(stderr, "the server says: %.*s\n", (int)reply->len, (const char *)reply->p);
        status = 1;
        break;
    default:
        printf("a reply of %zu tokens\n", n);
        break;
    }
    return status;
}

static int set_and_get(struct iok_port *port, struct iok_service *service)
{
    const char *const commands[][4] = {{"SET", "greeting", "hello", NULL}, {"GET", "greeting", NULL}};
    int status = 0;

    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]) && status == 0; i++) {
        struct iok_call *call = run(port, service, commands[i]);

        status = call == NULL ? 1 : print_reply(call);
        if (call != NULL) {
            iok_call_free(call);
        }
    }
    return status;
}

int main(int argc, char **argv)
{
    struct iok_error err = {0};
    struct iok_kernel *kernel = iok_kernel_new(NULL, &err);
    struct iok_port *port = kernel == NULL ? NULL : iok_port_new(kernel, &err);
    struct iok_service *service = NULL;
    int status = 1;

    if (port != NULL) {
        service = iok_service_new(port, argc > 1 ? argv[1] : "redis://localhost", &err);
    }
    if (service == NULL) {
        fprintf(stderr, "%s: %s\n", iok_errno_name(err.code), err.text);
    } else {
        status = set_and_get(port, service);
        iok_service_close(service, port);
        iok_service_unref(service);
    }
    if (port != NULL) {
        iok_port_free(port);
    }
    if (kernel != NULL) {
        iok_kernel_free(kernel);
    }
    return status;
}
