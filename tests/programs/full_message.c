/*
 * Messages with as many rights as there may be in one, and with one more: prints how many there may be. For C libraries that
 * no Python here is made with.
 */

#include <machrv/linux.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    mach_msg_header_t header;
    mach_msg_body_t body;
    mach_msg_port_descriptor_t rights[MACHRV_MAX_FDS + 1];
    char room[128]; /* for the trailer */
} message;

static void must(kern_return_t code, const char *call)
{
    if (code) {
        printf("%s: 0x%x\n", call, (unsigned)code);
        exit(1);
    }
}

static mach_msg_return_t send_rights(mach_port_t task, mach_port_name_t to, mach_port_name_t right, int count)
{
    memset(&message, 0, sizeof message);
    message.header.msgh_bits = MACH_MSGH_BITS_COMPLEX | MACH_MSG_TYPE_COPY_SEND;
    message.header.msgh_size =
        (mach_msg_size_t)(sizeof message.header + sizeof message.body + (size_t)count * sizeof message.rights[0]);
    message.header.msgh_remote_port = to;
    message.body.msgh_descriptor_count = (mach_msg_size_t)count;
    for (int i = 0; i < count; i++) {
        message.rights[i].name = right;
        message.rights[i].disposition = MACH_MSG_TYPE_MAKE_SEND_ONCE;
        message.rights[i].type = MACH_MSG_PORT_DESCRIPTOR;
    }
    return machrv_msg(task, &message.header, MACH_SEND_MSG | MACH_SEND_TIMEOUT, message.header.msgh_size, 0, 0, 0, 0);
}

int main(void)
{
    const int most = machrv_max_fds();
    mach_port_name_t inbox, way, right;
    mach_msg_return_t code;
    mach_port_t task, other; /* what stays in one task never comes into a socket */
    must(machrv_task_create(&task), "machrv_task_create");
    must(machrv_task_create(&other), "machrv_task_create");
    must(bootstrap_check_in(other, "org.machrv.full", &inbox), "bootstrap_check_in");
    must(machrv_bootstrap_look_up(task, "org.machrv.full", 10000, &way), "bootstrap_look_up");
    must(mach_port_allocate(task, MACH_PORT_RIGHT_RECEIVE, &right), "mach_port_allocate");
    must(send_rights(task, way, right, most), "sending as many as there may be");
    must(machrv_msg(other, &message.header, MACH_RCV_MSG | MACH_RCV_TIMEOUT, 0, sizeof message, inbox, 10000, 0), "mach_msg");
    if ((int)message.body.msgh_descriptor_count != most)
        must(-1, "not all have come");
    code = send_rights(task, way, right, most + 1);
    if (code != MACH_SEND_TOO_LARGE)
        must(code ? code : -1, "sending one more");
    printf("%d\n", most);
    machrv_task_deallocate(task);
    machrv_task_deallocate(other);
    return 0;
}
