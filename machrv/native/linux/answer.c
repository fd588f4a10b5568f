/*
 * Answering at a rendezvous: the rights that a reply makes of its sender's ports, and the reply, in one call.
 *
 * What belongs here: the one case of machrv/kernel/linux/sending.py that every claim goes through. What must never happen
 * here: an answer that the general case would not have sent, or a descriptor that outlives a failed call.
 */

#include "native.h"

#include <sys/epoll.h>

#include "machrv/rendezvous.h"

#define EACH 16        /* a descriptor and a key */
#define MOST_DATA 2048 /* with larger data, the general case */

/* The reply, its rights by their numbers from 1 on: its size, or -EINVAL. */
static int write_reply(char *message, int n, const uint32_t *keys, const char *data, size_t size)
{
    uint32_t count = (uint32_t)n;
    uint64_t length = size;
    char *at = message + HEADER;
    if (n < 1 || n > MACHRV_MAX_FDS || size > MOST_DATA)
        return -EINVAL;
    memset(message, 0, HEADER);
    memcpy(at, &count, sizeof count);
    at += sizeof count;
    for (uint32_t slot = 1; slot <= count; slot++, at += 12) {
        const uint32_t descriptor[3] = {slot, 0, PORT_SEND << 16};
        memcpy(at, descriptor, sizeof descriptor);
    }
    memcpy(at, keys, sizeof *keys * count);
    at += sizeof *keys * count;
    memcpy(at, &length, sizeof length);
    at += sizeof length;
    if (size)
        memcpy(at, data, size);
    memset(at + size, 0, -size & 3);
    return (int)(at - message + (ptrdiff_t)(size + (-size & 3)));
}

/* "\0machrv/ID/sPREFIXSERIAL", the serial in hex: its length. (As snprintf would, which costs as much as a system call.) */
static int write_address(char *address, const char *id, const char *prefix, uint64_t serial)
{
    static const char scheme[8] = "\0machrv/";
    char digits[16], *at = address;
    int count = 0;
    memcpy(at, scheme, sizeof scheme);
    memcpy(at += sizeof scheme, id, 32);
    memcpy(at += 32, "/s", 2);
    memcpy(at += 2, prefix, 8);
    at += 8;
    do
        digits[count++] = "0123456789abcdef"[serial & 15];
    while (serial >>= 4);
    while (count)
        *at++ = digits[--count];
    return (int)(at - address);
}

/* One send right: ends[0] receives, and is watched by `epoll` if that is one. */
static int make(int *ends, const char *id, const char *prefix, uint64_t serial, int epoll)
{
    char address[MACHRV_ADDRESS_MAX];
    struct epoll_event events = {.events = EPOLLIN | EPOLLRDHUP};
    int error = machrv_pair(ends, address, write_address(address, id, prefix, serial), 1, 1);
    if (error || epoll < 0)
        return error;
    events.data.fd = ends[0];
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &events)) {
        error = -errno;
        machrv_close_all(ends, 2);
    }
    return error;
}

void machrv_settle(machrv_exchange *what)
{
    machrv_close_all(what->spent, what->nspent);
    what->nspent = 0;
}

int machrv_answer(machrv_exchange *what, int fd, int space, int n, const uint32_t *keys, const char *ids,
                  const char *prefix, uint64_t serial, const int *epolls, const char *data, size_t data_size, int *receiving)
{
    char message[HEADER + 4 + EACH * MACHRV_MAX_FDS + 8 + MOST_DATA + 4];
    int *sending = what->spent, made = 0, size = write_reply(message, n, keys, data, data_size);
    int error = size < 0 ? size : 0;
    machrv_settle(what);
    for (; !error && made < n; made++) {
        int ends[2];
        error = make(ends, ids + 32 * made, prefix, serial + (unsigned)made, epolls ? epolls[made] : -1);
        if (error)
            break;
        receiving[made] = ends[0];
        sending[made] = ends[1];
    }
    if (!error)
        error = machrv_send(fd, message, (size_t)size, COMPLEX | PORT_SEND_ONCE, MACHRV_REPLY_ID, 0, space, 0, NULL, 0,
                            sending, n);
    if (error) {
        machrv_close_all(sending, made);
        machrv_close_all(receiving, made);
        return error;
    }
    sending[made] = fd;
    what->nspent = made + 1;
    return 0;
}
