/* servenet.h - a kernel on the simulated network that serves HTTP: simnet.h from the other side. */
#ifndef IOK_TESTS_SERVENET_H
#define IOK_TESTS_SERVENET_H

#include "../../src/base/mem.h"
#include "../../src/kernel/serve.h"
#include "../kit/bare_kernel.h"
#include "simnet.h"

struct house {
    struct world *w; /* without a service */
    struct iok_listener *listener;
};

void house_open(struct house *h, const char *url);
/* Ends everything, and checks that nothing is left. */
void house_close(struct house *h);
/* A serving call that waits. */
struct iok_call *house_call(struct house *h);
struct iok_call *house_call_on(struct house *h, struct iok_port *port);
/* After turns of the core: what iok_poll gives. */
struct iok_call *house_poll(struct house *h);
/* The client asks for it. */
void house_get(struct iok_link *link, const char *target);
/* `GET / 1 [name: value, ...] "body"`: valid until the next call of this function. */
const char *house_request(struct iok_call *call);
/* Answers, with the field `server: me`, and runs turns of the core. body NULL: an answer that cannot be sent. */
void house_answer(struct house *h, struct iok_call *call, int status, const char *body);
/* The head of an answer in parts; length NULL: it is not told. */
void house_begin(struct iok_call *call, int status, const char *length);
/* A part, submitted; text NULL: without bytes. */
struct iok_call *house_part(struct iok_call *call, const char *text, bool end);
/* What iok_poll gives next is the end of this part. Frees it. */
void house_expect_part(struct house *h, struct iok_call *made, enum iok_outcome outcome);

#endif
