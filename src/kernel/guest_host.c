/* guest_host.c - what the codec of an accepted connection asks for: tapes for a request and for parts of its body, and what it
 * tells of the connection.
 *
 * What it is: struct iok_host in the server's role. It only notes, in struct iok_guest; what follows from that, guest.c does
 * when the codec has returned. */
#include <assert.h>

#include "serve.h"

#define IOK_HEAD_ROOM (256u * 1024) /* a head has bounds of its own in the codec, which are below that */

static struct iok_guest *guest_of(struct iok_io *io)
{
    return iok_container(io, struct iok_guest, io);
}

static struct iok_tape *host_begin_push(struct iok_io *io)
{
    struct iok_guest *guest = guest_of(io);
    struct iok_core *core = guest->listener->core;

    assert(io->tape == NULL && guest->request == NULL);
    guest->request = iok_request_new(core, io->max_reply + IOK_HEAD_ROOM);
    if (guest->request == NULL) {
        iok_tape_init(&core->discard, NULL, 0, NULL, 0, io->max_reply, NULL);
        core->discard.discard = true;
    }
    io->tape = guest->request != NULL ? &guest->request->tape : &core->discard;
    return io->tape;
}

static void host_head(struct iok_io *io)
{
    guest_of(io)->in_body = true;
    guest_of(io)->lag = 0;
}

static struct iok_tape *host_begin_part(struct iok_io *io, uint64_t seq)
{
    assert(io->tape == NULL);
    if (guest_of(io)->held && seq != IOK_SEQ_HEAD) {
        return NULL; /* of an upgraded connection */
    }
    io->tape = iok_intake_begin(guest_of(io));
    return io->tape;
}

void iok_guest_drop_part(struct iok_guest *guest)
{
    if (guest->part != NULL) {
        iok_message_free(guest->part);
        guest->part = NULL;
    }
}

static int host_end(struct iok_io *io, uint32_t flags)
{
    struct iok_guest *guest = guest_of(io);

    io->tape = NULL;
    guest->in_body &= (flags & IOK_MSG_HEAD) != 0 || flags == 0;
    if (guest->streams && (flags & IOK_MSG_DROP) != 0) {
        iok_guest_drop_part(guest);
        return 0;
    }
    if (guest->streams) {
        guest->streams = flags == 0;
        guest->parting = guest->pings && !guest->streams && !guest->closing;
        guest->parting_at = guest->listener->core->now;
        return iok_intake_end(guest);
    }
    guest->streams = (flags & IOK_MSG_HEAD) != 0;
    if (guest->request == NULL) {
        return iok_io_fail(io, IOK_ENOMEM, "out of memory for a request");
    }
    if ((flags & IOK_MSG_DROP) != 0) {
        iok_request_recycle(guest->listener->core, guest->request);
        guest->request = NULL;
        return 0;
    }
    guest->whole = true;
    return 0;
}

static struct iok_flight *host_flight(struct iok_io *io, uint64_t seq)
{
    (void)io;
    (void)seq;
    return NULL;
}

static void host_closing(struct iok_io *io)
{
    guest_of(io)->closing = true;
}

static uint64_t host_random(struct iok_io *io)
{
    struct iok_net *net = guest_of(io)->listener->core->net;

    return net->ops->random(net);
}

const struct iok_host iok_guest_host = {
    .begin_push = host_begin_push,
    .begin_part = host_begin_part,
    .head = host_head,
    .end = host_end,
    .flight = host_flight,
    .closing = host_closing,
    .random = host_random,
};
