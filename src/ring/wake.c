#include "wake.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/eventfd.h>
#endif

#include "../base/err.h"

int iok_wake_init(struct iok_wake *wake)
{
    *wake = (struct iok_wake){.fd_read = -1, .fd_write = -1};
#ifdef __linux__
    wake->fd_read = wake->fd_write = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return wake->fd_read < 0 ? IOK_ESYSTEM : 0;
#else
    int ends[2];

    if (pipe(ends) != 0) {
        return IOK_ESYSTEM;
    }
    for (int i = 0; i < 2; i++) {
        (void)fcntl(ends[i], F_SETFL, O_NONBLOCK);
        (void)fcntl(ends[i], F_SETFD, FD_CLOEXEC);
    }
    wake->fd_read = ends[0];
    wake->fd_write = ends[1];
    return 0;
#endif
}

void iok_wake_deinit(struct iok_wake *wake)
{
    if (wake->fd_write >= 0 && wake->fd_write != wake->fd_read) {
        (void)close(wake->fd_write);
    }
    if (wake->fd_read >= 0) {
        (void)close(wake->fd_read);
    }
    wake->fd_read = wake->fd_write = -1;
}

int iok_wake_renew(struct iok_wake *wake)
{
    int fd_read = wake->fd_read, fd_write = wake->fd_write;
    struct iok_wake fresh;
    int rc = iok_wake_init(&fresh);

    if (rc != 0) {
        iok_wake_deinit(wake);
    } else if (fd_read >= 0) {
        (void)dup3(fresh.fd_read, fd_read, O_CLOEXEC); /* cannot fail: both are open */
        if (fd_write != fd_read) {
            (void)dup3(fresh.fd_write, fd_write, O_CLOEXEC);
        }
        iok_wake_deinit(&fresh);
        fresh.fd_read = fd_read;
        fresh.fd_write = fd_write;
    }
    *wake = fresh;
    return rc;
}

void iok_wake_drain(struct iok_wake *wake)
{
    uint64_t buffer[8]; /* an eventfd gives 8 bytes; of a pipe the next drain reads what is left */
    ssize_t n;

    if (!wake->owed) {
        return;
    }
    do {
        n = read(wake->fd_read, buffer, sizeof(buffer));
    } while (n < 0 && errno == EINTR);
    /* Nothing there: the producer is between clearing sleeping and writing. Then the next drain reads it. */
    wake->owed = n <= 0;
}

void iok_wake_write(struct iok_wake *wake)
{
    uint64_t one = 1;
    ssize_t n;

    do {
        n = write(wake->fd_write, &one, sizeof(one));
    } while (n < 0 && errno == EINTR);
    /* A full pipe or counter is readable already. */
}
