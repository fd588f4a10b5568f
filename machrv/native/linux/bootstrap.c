/*
 * Listeners and who connects to them.
 *
 * What must never happen here: waiting, but in machrv_connect and machrv_ask; a descriptor that outlives a failed call.
 */

#include "native.h"

#define ID 32           /* the digits of a port id */
#define LONGEST 2000000 /* seconds: nobody waits longer at a time */

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

/*
 * The socket behind a bootstrap name: the name is a link to "." and an id, in the same directory. The system follows it,
 * where the path is not too long for that.
 */
static int find_listener(const char *link, struct sockaddr_un *name)
{
    const char *slash = strrchr(link, '/');
    size_t directory = slash ? (size_t)(slash - link) + 1 : 0;
    char socket[ID + 3];
    ssize_t got;
    if (fill(name, link) == 0)
        return 0;
    got = readlink(link, socket, sizeof socket);
    if (got < 0)
        return -errno;
    if (got != ID + 1 || socket[0] != '.')
        return -EINVAL;
    for (int i = 1; i <= ID; i++)
        if (!strchr("0123456789abcdef", socket[i]))
            return -EINVAL;
    if (directory + ID + 2 > sizeof name->sun_path)
        return -ENAMETOOLONG;
    memcpy(name->sun_path, link, directory);
    memcpy(name->sun_path + directory, socket, ID + 1);
    return 0;
}

/* The pair that an answer comes through: ends[0] receives, and waits so long. */
static int answer_pair(int *ends, double timeout)
{
    struct timeval limit = {LONGEST, 0}; /* in seconds; what is not below that, in whatever way */
    int error;
    if (timeout < LONGEST) {
        limit.tv_sec = (time_t)timeout;
        limit.tv_usec = (suseconds_t)((timeout - (double)limit.tv_sec) * 1e6);
    }
    if (!limit.tv_sec && !limit.tv_usec)
        limit.tv_usec = 1; /* no time would be no limit */
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        return -errno;
    error = machrv_attest(ends[0], 1);
    if (!error && setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit))
        error = -errno;
    if (error)
        machrv_close_all(ends, 2);
    return error;
}

/*
 * Sends a listener a bare message with a right to answer it, so that nothing more can come of the connection. The socket
 * that the answer comes to, or a negative errno. *connection is the caller's to close: a close while descriptors are in
 * flight makes the kernel look for cycles among them (Linux 6.18, net/unix/af_unix.c, unix_release_sock), and until the
 * answer has come some are. (The other end of the pair is in flight itself, so that closing it ends no socket.)
 * The connection is first: it wakes the server, which takes its time, and the pair is made meanwhile.
 */
static int request(const struct sockaddr_un *name, int id, int space, double timeout, int *connection)
{
    static const char header[24];
    int ends[2], fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error;
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)name, sizeof *name))
        return machrv_fail_closing(fd);
    error = answer_pair(ends, timeout > 0 ? timeout : 0);
    if (error) {
        close(fd);
        return error;
    }
    error = machrv_send(fd, header, sizeof header, PORT_SEND | PORT_SEND_ONCE << 8, id, 0, space, 1, NULL, 0, &ends[1], 1);
    close(ends[1]);
    if (error) {
        close(ends[0]);
        close(fd);
        return error;
    }
    shutdown(fd, SHUT_RDWR);
    *connection = fd;
    return ends[0];
}

/* Seconds of a clock that nobody sets. */
static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int machrv_ask(machrv_exchange *what, const char *link, int id, int space, double timeout)
{
    struct sockaddr_un name;
    double began = seconds();
    int connection = -1, error = find_listener(link, &name);
    what->fd = -1;
    what->ports = UINT32_MAX;
    if (error)
        return error;
    error = request(&name, id, space, timeout, &connection);
    if (error < 0)
        return error;
    what->fd = error;
    error = machrv_receive_packet(what->fd, what->into, timeout > 0);
    if (!error)
        error = machrv_lay_out(what->into, what->rights, what->own, PORT_SEND_ONCE, 0, 0, 0, AUDIT_TRAILER, 0, UINT32_MAX);
    close(connection);
    if (error > 0) {
        machrv_read_usual(what, error);
        close(what->fd);
        what->fd = -1;
    } else {
        what->waited = seconds() - began;
    }
    return error;
}
