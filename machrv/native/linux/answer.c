/*
 * Answering at a rendezvous: the rights that a message makes of its sender's ports, and the message, in one call.
 *
 * What belongs here: the one case of machrv/kernel/linux/sending.py that every claim goes through. What must never happen
 * here: an answer that the general case would not have sent, or a descriptor that outlives a failed call.
 */

#include "native.h"

#include <stdio.h>
#include <sys/epoll.h>

#define DESCRIPTORS 28 /* a header and the count of descriptors */

/* Whether the message begins with n port descriptors that each make a send right; a slot in place of each name. */
static int plan(char *message, size_t size, int n)
{
    uint32_t word[3];
    if (n > MACHRV_MAX_FDS || size < DESCRIPTORS + sizeof word * (size_t)n)
        return -EINVAL;
    for (int i = 0; i < n; i++) {
        char *descriptor = message + DESCRIPTORS + sizeof word * (size_t)i;
        memcpy(word, descriptor, sizeof word);
        if (word[1] || word[2] != MAKE_SEND << 16)
            return -EINVAL;
        word[0] = (uint32_t)i + 1;
        word[2] = PORT_SEND << 16;
        memcpy(descriptor, word, sizeof word);
    }
    return 0;
}

/* One send right: ends[0] receives, and is watched by `epoll` if that is one. */
static int make(int *ends, const char *id, const char *prefix, unsigned long long serial, int epoll)
{
    char address[MACHRV_ADDRESS_MAX];
    int length = snprintf(address + 1, sizeof address - 1, "machrv/%.32s/s%.8s%llx", id, prefix, serial), error;
    struct epoll_event events = {.events = EPOLLIN | EPOLLRDHUP};
    address[0] = 0;
    error = machrv_pair(ends, address, length + 1, 1, 1);
    if (error || epoll < 0)
        return error;
    events.data.fd = ends[0];
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &events)) {
        error = -errno;
        machrv_close_all(ends, 2);
    }
    return error;
}

int machrv_answer(int fd, const char *message, size_t size, int space, int n, const char *ids, const char *prefix,
                  uint64_t serial, const int *epolls, int *receiving)
{
    char copy[DESCRIPTORS + 12 * MACHRV_MAX_FDS + 2048];
    int sending[MACHRV_MAX_FDS], made = 0, error;
    int32_t id;
    if (size > sizeof copy)
        return -EINVAL;
    memcpy(copy, message, size);
    memcpy(&id, message + 20, sizeof id);
    error = plan(copy, size, n);
    for (; !error && made < n; made++) {
        int ends[2];
        error = make(ends, ids + 32 * made, prefix, serial + (unsigned)made, epolls ? epolls[made] : -1);
        if (error)
            break;
        receiving[made] = ends[0];
        sending[made] = ends[1];
    }
    if (!error)
        error = machrv_send(fd, copy, size, COMPLEX | PORT_SEND_ONCE, id, 0, space, 0, NULL, 0, sending, n);
    machrv_close_all(sending, made);
    if (error)
        machrv_close_all(receiving, made);
    else
        close(fd);
    return error;
}
