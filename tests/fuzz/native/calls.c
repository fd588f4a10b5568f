/* Sequences of calls over two tasks: any call, any name of either, right or wrong. Nothing may crash; when both tasks have ended,
   nothing is left. */

#include "target.h"

#define NAMES 12

static mach_port_t tasks[2];
static mach_port_name_t names[2][NAMES];
static int open_before = -1;

struct message {
    mach_msg_header_t header;
    mach_msg_body_t body;
    char rest[70000];
};

static const uint8_t DISPOSITIONS[] = {16, 17, 18, 19, 19, 20, 20, 21, 21, 0, 22};

static mach_port_name_t a_name(struct choices *choices, int which)
{
    unsigned kind = byte(choices);
    return kind < 240 ? names[which][kind % NAMES] : kind < 248 ? names[!which][kind % NAMES] : number(choices);
}

static void keep(struct choices *choices, int which, mach_port_name_t name)
{
    if (name)
        names[which][below(choices, NAMES)] = name;
}

static unsigned disposition(struct choices *choices) { return DISPOSITIONS[below(choices, sizeof DISPOSITIONS)]; }

/* The rest of a message: descriptors of every kind. How long it is. */
static size_t body_of(struct choices *choices, int which, struct message *message)
{
    static char memory[9000];
    static mach_port_name_t many[4];
    unsigned count = below(choices, 5);
    size_t at = 0;
    for (unsigned i = 0; i < count; i++) {
        mach_msg_port_descriptor_t port = {0};
        mach_msg_ool_descriptor_t ool = {0};
        mach_msg_ool_ports_descriptor_t ports = {0};
        mach_msg_guarded_port_descriptor_t guarded = {0};
        switch (below(choices, 8)) {
        case 0:
            ool.type = rarely(choices) ? MACH_MSG_OOL_VOLATILE_DESCRIPTOR : MACH_MSG_OOL_DESCRIPTOR;
            ool.copy = below(choices, 4);
            ool.size = rarely(choices) ? number(choices) : below(choices, 255) * 35;
            /* A sanitizer looks where the kernel would: what is not there is in the first page. */
            ool.address = ool.size > sizeof memory || rarely(choices) ? (void *)(uintptr_t)(number(choices) & 4095) : memory;
            memcpy(message->rest + at, &ool, sizeof ool);
            at += sizeof ool;
            break;
        case 1:
            for (int n = 0; n < 4; n++)
                many[n] = a_name(choices, which);
            ports.type = MACH_MSG_OOL_PORTS_DESCRIPTOR;
            ports.copy = below(choices, 3);
            ports.disposition = disposition(choices);
            ports.count = rarely(choices) ? number(choices) : below(choices, 5);
            ports.address = ports.count > 4 ? (void *)(uintptr_t)8 : many;
            memcpy(message->rest + at, &ports, sizeof ports);
            at += sizeof ports;
            break;
        case 2:
            guarded.type = MACH_MSG_GUARDED_PORT_DESCRIPTOR;
            guarded.flags = below(choices, 4);
            guarded.disposition = rarely(choices) ? disposition(choices) : MACH_MSG_TYPE_MOVE_RECEIVE;
            guarded.name = a_name(choices, which);
            guarded.context = below(choices, 2);
            memcpy(message->rest + at, &guarded, sizeof guarded);
            at += sizeof guarded;
            break;
        default:
            port.type = rarely(choices) ? below(choices, 8) : MACH_MSG_PORT_DESCRIPTOR;
            port.disposition = disposition(choices);
            port.name = a_name(choices, which);
            memcpy(message->rest + at, &port, sizeof port);
            at += sizeof port;
        }
    }
    message->body.msgh_descriptor_count = rarely(choices) ? number(choices) : count;
    return at;
}

static void send(struct choices *choices, int which)
{
    static struct message message;
    unsigned bits = disposition(choices) | disposition(choices) << 8;
    size_t size = sizeof message.header;
    mach_msg_option_t option = MACH_SEND_MSG | MACH_SEND_TIMEOUT | (rarely(choices) ? (mach_msg_option_t)word(choices) & ~2 : 0);
    memset(&message, 0, sizeof(mach_msg_base_t));
    message.header.msgh_remote_port = a_name(choices, which);
    message.header.msgh_local_port = below(choices, 3) ? MACH_PORT_NULL : a_name(choices, which);
    if (!message.header.msgh_local_port && !rarely(choices))
        bits &= 31;
    message.header.msgh_id = (mach_msg_id_t)number(choices);
    if (below(choices, 2)) {
        bits |= MACH_MSGH_BITS_COMPLEX;
        size = sizeof(mach_msg_base_t) + body_of(choices, which, &message);
    } else {
        size += rarely(choices) ? 66000 : below(choices, 64) * 4;
    }
    message.header.msgh_bits = rarely(choices) ? word(choices) : bits;
    if (rarely(choices))
        size = number(choices) % sizeof message;
    if (machrv_msg(tasks[which], &message.header, option, (mach_msg_size_t)size, 0, 0, 0, 0) && !rarely(choices))
        machrv_msg_destroy(tasks[which], &message.header);
}

static void receive(struct choices *choices, int which)
{
    static struct message message;
    mach_msg_size_t size = rarely(choices) ? number(choices) % sizeof message : sizeof message;
    mach_msg_option_t option = MACH_RCV_MSG | MACH_RCV_TIMEOUT | MACH_RCV_TRAILER_ELEMENTS(below(choices, 9));
    if (rarely(choices))
        option |= (mach_msg_option_t)word(choices) & ~1 & ~0xff000000;
    memset(&message.header, 0, sizeof message.header);
    if (machrv_msg(tasks[which], &message.header, option, 0, size, a_name(choices, which), 0, 0))
        return;
    must(message.header.msgh_size <= size, "a message is longer than what it was received into");
    if (below(choices, 4) == 0) {
        machrv_msg_destroy(tasks[which], &message.header);
        return;
    }
    keep(choices, which, message.header.msgh_remote_port);
    if (message.header.msgh_bits & MACH_MSGH_BITS_COMPLEX) {
        mach_msg_port_descriptor_t port;
        memcpy(&port, message.rest, sizeof port);
        if (message.body.msgh_descriptor_count == 1 && port.type == MACH_MSG_PORT_DESCRIPTOR)
            keep(choices, which, port.name);
        else
            message.header.msgh_remote_port = MACH_PORT_NULL, machrv_msg_destroy(tasks[which], &message.header);
    }
}

static void call(struct choices *choices)
{
    int which = byte(choices) & 1, fd;
    mach_port_t task = tasks[which], previous = MACH_PORT_NULL;
    mach_port_name_t name = MACH_PORT_NULL, *list = NULL;
    mach_port_type_t type, *types = NULL;
    mach_msg_type_name_t kind;
    mach_msg_type_number_t count = 0, more = 0;
    mach_port_urefs_t refs;
    mach_port_status_t status;
    mach_port_context_t context;
    mach_port_options_t options = {0};
    mach_port_limits_t limits;
    memory_object_size_t memory = 4096;
    static machrv_account_t account[32];
    uint64_t inodes[8];
    switch (below(choices, 32)) {
    case 0:
    case 1:
        if (mach_port_allocate(task, rarely(choices) ? number(choices) : MACH_PORT_RIGHT_RECEIVE, &name) == KERN_SUCCESS) {
            keep(choices, which, name);
            if (below(choices, 2))
                mach_port_insert_right(task, name, name, MACH_MSG_TYPE_MAKE_SEND);
        }
        break;
    case 2:
        if (mach_port_allocate(task, below(choices, 2) ? MACH_PORT_RIGHT_PORT_SET : MACH_PORT_RIGHT_DEAD_NAME, &name) == KERN_SUCCESS)
            keep(choices, which, name);
        break;
    case 3:
        mach_port_allocate_name(task, below(choices, 5), number(choices) << 8 | 3);
        break;
    case 4:
        options.flags = byte(choices) << (rarely(choices) ? 8 : 0);
        options.mpl.mpl_qlimit = number(choices);
        if (mach_port_construct(task, &options, below(choices, 3), &name) == KERN_SUCCESS)
            keep(choices, which, name);
        break;
    case 5:
        mach_port_destruct(task, a_name(choices, which), (int)below(choices, 3) - 1, below(choices, 3));
        break;
    case 6:
        mach_port_insert_right(task, rarely(choices) ? number(choices) : a_name(choices, which), a_name(choices, which), disposition(choices));
        break;
    case 7:
        if (mach_port_extract_right(task, a_name(choices, which), disposition(choices), &name, &kind) == KERN_SUCCESS)
            keep(choices, which, name);
        break;
    case 8:
        mach_port_deallocate(task, a_name(choices, which));
        break;
    case 9:
        mach_port_destroy(task, a_name(choices, which));
        break;
    case 10:
        mach_port_mod_refs(task, a_name(choices, which), below(choices, 6),
                           rarely(choices) ? (int)number(choices) : (int)below(choices, 4) - 2);
        break;
    case 11:
        mach_port_get_refs(task, a_name(choices, which), below(choices, 6), &refs);
        mach_port_type(task, a_name(choices, which), &type);
        break;
    case 12:
        if (mach_port_names(task, &list, &count, &types, &more) == KERN_SUCCESS) {
            vm_deallocate(task, (vm_address_t)list, count * sizeof *list);
            vm_deallocate(task, (vm_address_t)types, more * sizeof *types);
        }
        break;
    case 13:
        count = MACH_PORT_RECEIVE_STATUS_COUNT;
        mach_port_get_attributes(task, a_name(choices, which), (int)below(choices, 9), (integer_t *)&status, &count);
        break;
    case 14:
        limits.mpl_qlimit = number(choices);
        mach_port_set_attributes(task, a_name(choices, which), (int)below(choices, 9), (integer_t *)&limits, below(choices, 2));
        break;
    case 15:
        mach_port_set_context(task, a_name(choices, which), number(choices));
        mach_port_get_context(task, a_name(choices, which), &context);
        mach_port_set_mscount(task, a_name(choices, which), number(choices));
        mach_port_set_seqno(task, a_name(choices, which), number(choices));
        break;
    case 16:
        mach_port_guard(task, a_name(choices, which), below(choices, 3), below(choices, 2));
        break;
    case 17:
        mach_port_unguard(task, a_name(choices, which), below(choices, 3));
        break;
    case 18:
        mach_port_move_member(task, a_name(choices, which), a_name(choices, which));
        break;
    case 19:
        mach_port_insert_member(task, a_name(choices, which), a_name(choices, which));
        break;
    case 20:
        mach_port_extract_member(task, a_name(choices, which), a_name(choices, which));
        break;
    case 21:
        if (mach_port_request_notification(task, a_name(choices, which), (mach_msg_id_t)(below(choices, 10) + 64), below(choices, 3),
                                           a_name(choices, which), below(choices, 4) ? MACH_MSG_TYPE_MAKE_SEND_ONCE : disposition(choices),
                                           &previous) == KERN_SUCCESS)
            keep(choices, which, previous);
        break;
    case 22:
        if (machrv_port_readable(task, a_name(choices, which), &fd) == KERN_SUCCESS)
            close(fd);
        if (machrv_port_writable(task, a_name(choices, which), &fd) == KERN_SUCCESS)
            close(fd);
        break;
    case 23:
        if (bootstrap_check_in(task, "org.machrv.fuzz", &name) == KERN_SUCCESS)
            keep(choices, which, name);
        break;
    case 24:
        if (machrv_bootstrap_look_up(task, "org.machrv.fuzz", 0, &name) == KERN_SUCCESS)
            keep(choices, which, name);
        break;
    case 25:
        if (below(choices, 2) ? machrv_fileport_makeport(task, 0, &name) == 0
                              : mach_make_memory_entry_64(task, &memory, 0, 3 | 0x20000, &name, 0) == KERN_SUCCESS)
            keep(choices, which, name);
        if ((fd = machrv_fileport_makefd(task, a_name(choices, which))) >= 0)
            close(fd);
        break;
    case 26:
        machrv_account(task, (int)below(choices, 8), account, 32);
        machrv_account_ends(task, a_name(choices, which), inodes, 8);
        machrv_port_take_turns(task, a_name(choices, which));
        break;
    case 27:
    case 28:
    case 29:
        send(choices, which);
        break;
    default:
        receive(choices, which);
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    own_names();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct choices choices = {data, data + size};
    memset(names, 0, sizeof names);
    must(machrv_task_create(&tasks[0]) == KERN_SUCCESS && machrv_task_create(&tasks[1]) == KERN_SUCCESS, "no task");
    for (int i = 0; i < 100 && choices.at < choices.end; i++)
        call(&choices);
    machrv_task_deallocate(tasks[0]);
    machrv_task_deallocate(tasks[1]);
    must(machrv_settle(5000) == 0, "descriptors are still being closed");
    if (open_before < 0)
        open_before = descriptors();
    if (descriptors() != open_before) {
        /* Circles across tasks are the kernel's to find: they hold no descriptor of this process. */
        fprintf(stderr, "%d descriptors, %d before\n", descriptors(), open_before);
        tell_descriptors();
        abort();
    }
    return 0;
}
