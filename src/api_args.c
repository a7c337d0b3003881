/* api_args.c - the program's side of the public API: what a call says, token by token. */
#include "run.h"

void iok_call_null(struct iok_call *call)
{
    iok_tape_null(&call->args);
}

void iok_call_bool(struct iok_call *call, bool value)
{
    iok_tape_bool(&call->args, value);
}

void iok_call_i64(struct iok_call *call, int64_t value)
{
    iok_tape_i64(&call->args, value);
}

void iok_call_f64(struct iok_call *call, double value)
{
    iok_tape_f64(&call->args, value);
}

void iok_call_bytes(struct iok_call *call, const void *p, size_t len)
{
    iok_tape_copy(&call->args, IOK_BYTES, 0, iok_span(p, len));
}

void iok_call_text(struct iok_call *call, const char *p, size_t len)
{
    iok_tape_copy(&call->args, IOK_TEXT, 0, iok_span(p, len));
}

void iok_call_static(struct iok_call *call, const char *text, size_t len)
{
    iok_tape_static(&call->args, IOK_TEXT, iok_span(text, len));
}

static void lend(struct iok_call *call, enum iok_type type, struct iok_span bytes, void (*release)(void *arg),
                 void *arg)
{
    struct iok_buf *buf = iok_buf_wrap(bytes.p, bytes.n, release, arg, &call->port->owner->core.arguments);

    if (buf == NULL) {
        call->args.error = IOK_ENOMEM;
        release(arg);
        return;
    }
    iok_tape_hold(&call->args, type, bytes, buf);
}

void iok_call_ref(struct iok_call *call, const void *p, size_t len, void (*release)(void *arg), void *arg)
{
    lend(call, IOK_BYTES, iok_span(p, len), release, arg);
}

void iok_call_text_ref(struct iok_call *call, const char *p, size_t len, void (*release)(void *arg), void *arg)
{
    lend(call, IOK_TEXT, iok_span(p, len), release, arg);
}

void iok_call_array(struct iok_call *call, uint32_t elements)
{
    iok_tape_head(&call->args, IOK_ARRAY, elements);
}

void iok_call_push(struct iok_call *call, uint32_t elements)
{
    iok_tape_head(&call->args, IOK_PUSH, elements);
}

void iok_call_map(struct iok_call *call, uint32_t pairs)
{
    iok_tape_head(&call->args, IOK_MAP, pairs);
}
