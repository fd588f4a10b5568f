/*
 * Listeners and who connects to them.
 *
 * What must never happen here: waiting, but in machrv_connect; a descriptor that outlives a failed call.
 */

#include "native.h"

static int fill(struct sockaddr_un *name, const char *path)
{
    size_t length = strlen(path);
    memset(name, 0, sizeof *name);
    name->sun_family = AF_UNIX;
    if (length >= sizeof name->sun_path)
        return -ENAMETOOLONG;
    memcpy(name->sun_path, path, length);
    return 0;
}

int machrv_listen(const char *path, int passpidfd)
{
    struct sockaddr_un name;
    int error = fill(&name, path), fd;
    if (error)
        return error;
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    /* Before listen(): accepted sockets inherit, and a message sent before accept() is attested too. */
    error = machrv_attest(fd, passpidfd);
    if (error) {
        close(fd);
        return error;
    }
    if (bind(fd, (struct sockaddr *)&name, sizeof name))
        return machrv_fail_closing(fd);
    if (listen(fd, 4096)) {
        error = -errno;
        close(fd);
        unlink(path);
        return error;
    }
    return fd;
}

int machrv_accept(int fd)
{
    int one;
    do
        one = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    while (one < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (one < 0 && (errno == EMFILE || errno == ENFILE))
        machrv_scarce = 1;
    return one < 0 ? -errno : one;
}

int machrv_connect(const char *path, int milliseconds)
{
    struct sockaddr_un name;
    int error = fill(&name, path), fd;
    if (error)
        return error;
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | (milliseconds ? 0 : SOCK_NONBLOCK), 0);
    if (fd < 0)
        return -errno;
    if (milliseconds > 0) {
        struct timeval limit = {milliseconds / 1000, (milliseconds % 1000) * 1000};
        if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit))
            return machrv_fail_closing(fd);
    }
    if (connect(fd, (struct sockaddr *)&name, sizeof name))
        return machrv_fail_closing(fd);
    return fd;
}

int machrv_probe(const char *path)
{
    struct sockaddr_un name;
    int error = fill(&name, path), fd;
    if (error)
        return error;
    /* A datagram socket cannot connect to a seqpacket listener: the error tells whether one is there. */
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    error = connect(fd, (struct sockaddr *)&name, sizeof name) ? -errno : 0;
    close(fd);
    return error;
}
