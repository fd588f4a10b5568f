/*
 * A client in C: claims its rights from a server as a Python client does, with the Mach calls of machrv/native/linux.
 *
 *     child               claims one right from the server of its parent (MACHRV_SERVICE_NAME), and exits
 *     child nothing       only exits
 *     child claim NAME    for every number read from standard input, that many claims from the server NAME: prints
 *                         nanoseconds each
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "machrv/linux.h"
#include "machrv/rendezvous.h"

static struct {
    mach_msg_header_t header;
    char rest[8192];
} message;

static int claim(const char *service)
{
    mach_port_t task = mach_task_self(), server, reply = mach_reply_port();
    if (bootstrap_look_up(bootstrap_port, service, &server))
        return 3;
    message.header = (mach_msg_header_t){
        .msgh_bits = MACH_MSG_TYPE_MOVE_SEND | MACH_MSG_TYPE_MAKE_SEND_ONCE << 8,
        .msgh_size = sizeof message.header,
        .msgh_remote_port = server,
        .msgh_local_port = reply,
        .msgh_id = MACHRV_REQUEST_ID,
    };
    if (mach_msg(&message.header, MACH_SEND_MSG | MACH_RCV_MSG | MACH_RCV_TRAILER_ELEMENTS(MACH_RCV_TRAILER_AUDIT),
                 sizeof message.header, sizeof message, reply, 0, 0))
        return 4;
    mach_msg_body_t body;
    memcpy(&body, message.rest, sizeof body);
    int wrong = message.header.msgh_id != MACHRV_REPLY_ID || body.msgh_descriptor_count < 1;
    mach_msg_destroy(&message.header);
    mach_port_mod_refs(task, reply, MACH_PORT_RIGHT_RECEIVE, -1);
    return wrong ? 5 : 0;
}

int main(int argc, char **argv)
{
    if (argc == 2)
        return 0;
    if (argc == 1) {
        const char *service = getenv("MACHRV_SERVICE_NAME");
        return service ? claim(service) : 2;
    }
    long count;
    while (scanf("%ld", &count) == 1) {
        struct timespec began, ended;
        clock_gettime(CLOCK_MONOTONIC, &began);
        for (long i = 0; i < count; i++) {
            int failed = claim(argv[2]);
            if (failed)
                return failed;
        }
        clock_gettime(CLOCK_MONOTONIC, &ended);
        printf("%.1f\n", ((ended.tv_sec - began.tv_sec) * 1e9 + (ended.tv_nsec - began.tv_nsec)) / (double)count);
        fflush(stdout);
    }
    return 0;
}
