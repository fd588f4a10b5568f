/*
 * A child in C: claims its rights from the server of its parent, as a Python child does, and exits.
 *
 *     child [nothing]     with an argument: only exits
 *
 * The server's name comes from the environment (MACHRV_SERVICE_NAME); the packets are those of include/machrv/linux.h.
 */

#define _GNU_SOURCE
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "machrv/linux.h"

static machrv_received received;

int main(int argc, char **argv)
{
    const char *directory = getenv("MACHRV_BOOTSTRAP_DIR"), *service = getenv("MACHRV_SERVICE_NAME");
    const char *address = "machrv/of-a-child";
    char link[512], path[512], name[64];
    char request[24] = {0};
    struct pollfd reply = {.events = POLLIN};
    int ends[2], server;
    ssize_t length;
    (void)argv;
    if (argc > 1)
        return 0;
    if (!directory || !service)
        return 2;
    snprintf(link, sizeof link, "%s/%s", directory, service);
    length = readlink(link, name, sizeof name - 1);
    if (length <= 0)
        return 3;
    name[length] = 0;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    server = machrv_connect(path, 1000);
    snprintf(name, sizeof name, "%c%s/%d", 0, address, (int)getpid());
    snprintf(name + 1, sizeof name - 1, "%s/%d", address, (int)getpid());
    if (server < 0 || machrv_pair(ends, name, (int)(1 + strlen(name + 1)), 1, 0) < 0)
        return 4;
    /* 17, 18: MACH_MSG_TYPE_PORT_SEND for the destination, _PORT_SEND_ONCE for the reply right in slot 1 */
    if (machrv_send(server, request, sizeof request, 17 | 18 << 8, 0x6d727a76, 0, 0, 1, NULL, 0, &ends[1], 1) < 0)
        return 5;
    close(ends[1]);
    reply.fd = ends[0];
    if (poll(&reply, 1, 30000) != 1 || machrv_receive(ends[0], &received) < 0)
        return 6;
    for (int i = 0; i < received.nfds; i++)
        close(received.fds[i]);
    return received.nfds == 1 ? 0 : 7;
}
