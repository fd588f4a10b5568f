/*
 * Preloaded into a process, this puts SCM_CREDENTIALS of its choice on every message that it sends:
 * FORGED_CREDENTIALS=pid:uid:gid, 0 for its own pid. The kernel decides whether it may.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    ssize_t (*real)(int, const struct msghdr *, int) = (ssize_t (*)(int, const struct msghdr *, int))dlsym(RTLD_NEXT, "sendmsg");
    const char *forged = getenv("FORGED_CREDENTIALS");
    struct msghdr changed = *message;
    struct ucred who;
    char control[2048] __attribute__((aligned(8))) = {0};
    struct cmsghdr *c = (struct cmsghdr *)control;

    if (!forged || sscanf(forged, "%d:%u:%u", &who.pid, &who.uid, &who.gid) != 3)
        return real(fd, message, flags);
    if (who.pid == 0)
        who.pid = getpid();
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_CREDENTIALS;
    c->cmsg_len = CMSG_LEN(sizeof who);
    memcpy(CMSG_DATA(c), &who, sizeof who);
    if (message->msg_controllen)
        memcpy(control + CMSG_SPACE(sizeof who), message->msg_control, message->msg_controllen);
    changed.msg_control = control;
    changed.msg_controllen = CMSG_SPACE(sizeof who) + message->msg_controllen;
    return real(fd, &changed, flags);
}

ssize_t send(int fd, const void *bytes, size_t size, int flags)
{
    struct iovec vector = {(void *)bytes, size};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    return sendmsg(fd, &message, flags);
}
