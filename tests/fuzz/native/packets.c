/* The in-flight form: packets with real descriptors, as a hostile sender would write them, into a port that anybody can look up.
   A process of its own sends them, so that the system attests somebody else; or this one does, and is believed more. */

#include "target.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#define MAGIC 0x6d727678u
#define SLOT_FILE 0x40000000u
#define MOST 253

struct packet {
    struct {
        uint32_t bits, size;
        uint16_t flags, space;
        uint32_t reply;
        int32_t id;
        uint32_t magic;
        int64_t sent;
    } header;
    char rest[4096];
    size_t length;
    int fds[MOST];
    int count;
};

static mach_port_t task;
static mach_port_name_t service;
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static int orders, open_before = -1;
static pid_t hostile;

static void put(struct packet *packet, const void *what, size_t size)
{
    if (packet->length + size <= sizeof packet->rest) {
        memcpy(packet->rest + packet->length, what, size);
        packet->length += size;
    }
}

static void give(struct packet *packet, int fd)
{
    if (fd >= 0 && packet->count < MOST)
        packet->fds[packet->count++] = fd;
    else if (fd >= 0)
        close(fd);
}

/* Sends bytes with descriptors, which are closed, whatever becomes of it. */
static void send_with(int to, const void *bytes, size_t size, const void *more, size_t rest, int *fds, int count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(MOST * sizeof(int))];
    } control;
    struct iovec parts[2] = {{(void *)(uintptr_t)bytes, size}, {(void *)(uintptr_t)more, rest}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    if (count > 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
        control.align.cmsg_level = SOL_SOCKET;
        control.align.cmsg_type = SCM_RIGHTS;
        control.align.cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
        memcpy(CMSG_DATA(&control.align), fds, (size_t)count * sizeof(int));
    }
    (void)!sendmsg(to, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    for (int i = 0; i < count; i++)
        close(fds[i]);
}

static void make_packet(struct choices *choices, struct packet *packet, unsigned kind, int depth);

static int memory(size_t size, bool sealed)
{
    int fd = memfd_create("hostile", MFD_ALLOW_SEALING | MFD_CLOEXEC);
    if (fd >= 0 && ftruncate(fd, (off_t)size) == 0 && sealed)
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
    return fd;
}

static void name_it(struct choices *choices, int fd)
{
    static unsigned serial;
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    unsigned what = below(choices, 4);
    int length;
    if (what == 0)
        return;
    serial++;
    length = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "machrv/%032x/%c%x", what == 3 ? below(choices, 4) : serial,
                      "so"[below(choices, 2)], serial);
    (void)!bind(fd, (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length));
}

/* One end of a pair; the other has a name, perhaps, and packets in it, perhaps, and goes. */
static int one_of_a_pair(struct choices *choices, unsigned kind, bool receiving, int depth)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return -1;
    name_it(choices, pair[receiving ? 1 : 0]);
    if (receiving) {
        int on = (int)below(choices, 2), offset = (int)below(choices, 3) - 1;
        setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
        setsockopt(pair[1], SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset);
        for (unsigned i = below(choices, 3); i > 0 && depth < 3; i--) {
            struct packet *packet = malloc(sizeof *packet);
            if (packet) {
                make_packet(choices, packet, kind, depth + 1);
                send_with(pair[0], &packet->header, sizeof packet->header, packet->rest, packet->length, packet->fds, packet->count);
            }
            free(packet);
        }
    }
    close(pair[0]);
    return pair[1];
}

static int anything(struct choices *choices)
{
    int pair[2];
    unsigned what = below(choices, 12);
    if (what < 4 && socketpair(AF_UNIX, what == 0 ? SOCK_STREAM : what == 1 ? SOCK_DGRAM : SOCK_SEQPACKET, 0, pair) == 0) {
        if (what == 3) { /* a socket in whose own queue its other end waits */
            int both[2] = {dup(pair[0]), dup(pair[1])};
            send_with(pair[0], "cycle", 5, "", 0, both, 2);
        }
        close(pair[0]);
        return pair[1];
    }
    if (what == 4 && pipe(pair) == 0) {
        close(pair[below(choices, 2)]);
        return fcntl(pair[0], F_GETFD) >= 0 ? pair[0] : pair[1];
    }
    switch (what) {
    case 5:
        return open("/dev/null", O_RDWR | O_CLOEXEC);
    case 6:
        return open("/", O_PATH | O_CLOEXEC);
    case 7:
        return memory(number(choices) & 0xfffff, below(choices, 2));
    case 8:
        return eventfd(0, EFD_CLOEXEC);
    case 9:
        return epoll_create1(EPOLL_CLOEXEC);
    case 10:
        return socket(AF_INET, below(choices, 2) ? SOCK_STREAM : SOCK_DGRAM, 0);
    default:
        return socket(AF_UNIX, SOCK_SEQPACKET, 0);
    }
}

/* A moved receive right: a socket in which its ends wait. */
static int bundle(struct choices *choices, int depth)
{
    static const unsigned kinds[] = {17, 17, 18, 0, 3};
    struct {
        char magic[4];
        uint32_t flags, qlimit, ends, spare[2];
        char id[32], kinds[16];
    } head = {.magic = {'m', 'r', 'v', 'b'}, .qlimit = 5};
    int pair[2], fds[16], count = 0, requests;
    unsigned ends = below(choices, 5);
    size_t size;
    char id[33];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return -1;
    head.flags = rarely(choices) ? number(choices) : below(choices, 8);
    for (unsigned flag = 1; flag <= 2; flag++)
        if (head.flags & flag && !rarely(choices))
            fds[count++] = one_of_a_pair(choices, 18, false, depth);
    requests = count;
    for (unsigned i = 0; i < ends; i++) {
        head.kinds[i] = (char)(rarely(choices) ? byte(choices) : kinds[below(choices, 5)]);
        fds[count++] = rarely(choices) ? anything(choices) : one_of_a_pair(choices, (unsigned char)head.kinds[i], true, depth);
    }
    head.ends = rarely(choices) ? number(choices) : ends;
    snprintf(id, sizeof id, "%032x", rarely(choices) ? below(choices, 4) : word(choices) | 16);
    memcpy(head.id, id, sizeof head.id);
    size = sizeof head - sizeof head.kinds + ends;
    if (rarely(choices))
        size = below(choices, (unsigned)size + 1);
    if (rarely(choices) && count > requests)
        close(fds[--count]);
    for (int i = 0; i < count; i++)
        if (fds[i] < 0)
            fds[i] = dup(STDERR_FILENO);
    send_with(pair[0], &head, size, "", 0, fds, count);
    close(pair[0]);
    return pair[1];
}

static uint32_t slot(struct choices *choices, struct packet *packet, unsigned kind, uint32_t size, int depth)
{
    if (rarely(choices)) {
        unsigned what = below(choices, 3);
        return what == 0 ? 0 : what == 1 ? 0xffffffff : number(choices);
    }
    give(packet, rarely(choices)  ? anything(choices)
                 : kind == 16     ? bundle(choices, depth + 1)
                 : kind == 0      ? memory(size, true)
                 : one_of_a_pair(choices, kind, false, depth));
    return (uint32_t)packet->count | (rarely(choices) ? SLOT_FILE : 0);
}

static void descriptor(struct choices *choices, struct packet *packet, uint32_t *tail, unsigned *ntail, int depth)
{
    static const uint8_t types[] = {0, 0, 0, 1, 2, 3, 4, 0}, dispositions[] = {16, 17, 17, 18};
    unsigned type = rarely(choices) ? byte(choices) : types[below(choices, 8)];
    unsigned disposition = rarely(choices) ? byte(choices) : dispositions[below(choices, 4)];
    union {
        mach_msg_port_descriptor_t port;
        mach_msg_ool_descriptor_t ool;
        mach_msg_ool_ports_descriptor_t ports;
        mach_msg_guarded_port_descriptor_t guarded;
    } d;
    memset(&d, 0, sizeof d);
    if (type == MACH_MSG_OOL_DESCRIPTOR || type == MACH_MSG_OOL_VOLATILE_DESCRIPTOR) {
        static const uint32_t sizes[] = {0, 1, 4096, 5000};
        uint32_t size = sizes[below(choices, 4)];
        d.ool.address = (void *)(uintptr_t)(size ? slot(choices, packet, 0, size, depth) : 0);
        d.ool.size = rarely(choices) ? number(choices) : size;
        d.ool.type = type;
    } else if (type == MACH_MSG_OOL_PORTS_DESCRIPTOR) {
        unsigned count = below(choices, 4);
        for (unsigned i = 0; i < count; i++)
            tail[(*ntail)++] = slot(choices, packet, disposition, 0, depth);
        d.ports.count = rarely(choices) ? number(choices) : count;
        d.ports.disposition = disposition;
        d.ports.type = type;
    } else if (type == MACH_MSG_GUARDED_PORT_DESCRIPTOR) {
        d.guarded.flags = below(choices, 4);
        d.guarded.disposition = disposition;
        d.guarded.type = type;
        d.guarded.name = slot(choices, packet, disposition, 0, depth);
    } else {
        d.port.name = slot(choices, packet, disposition, 0, depth);
        d.port.disposition = disposition;
        d.port.type = type;
        put(packet, &d, sizeof d.port);
        return;
    }
    put(packet, &d, sizeof d.ool);
}

static void make_packet(struct choices *choices, struct packet *packet, unsigned kind, int depth)
{
    static const int32_t ids[] = {0, 0x6d727a76, 0x4d525a56, 69, 70, 71, 72, -1};
    uint32_t tail[32] = {0}, count = below(choices, 5);
    unsigned ntail = 0;
    memset(packet, 0, sizeof *packet);
    packet->header.bits = kind;
    packet->header.magic = MAGIC;
    packet->header.id = ids[below(choices, 8)];
    if (count || rarely(choices)) {
        uint32_t said = rarely(choices) ? number(choices) : count;
        packet->header.bits |= MACH_MSGH_BITS_COMPLEX;
        put(packet, &said, sizeof said);
        for (uint32_t i = 0; i < count; i++)
            descriptor(choices, packet, tail, &ntail, depth);
    }
    for (unsigned i = below(choices, 10) * 4; i > 0; i--) {
        char value = (char)i;
        put(packet, &value, 1);
    }
    packet->header.size = 24 + (uint32_t)packet->length;
    if (below(choices, 2)) {
        static const uint8_t kinds[] = {18, 18, 17, 16, 0};
        unsigned reply = kinds[below(choices, 5)];
        packet->header.reply = slot(choices, packet, reply ? reply : 17, 0, depth);
        packet->header.bits |= reply << 8;
    }
    put(packet, tail, ntail * sizeof *tail);
    if (rarely(choices)) {
        packet->header.flags = (uint16_t)(rarely(choices) ? word(choices) : below(choices, 8));
        if (packet->header.flags & 2 && below(choices, 4)) {
            int fd = memory(packet->length, false);
            (void)!pwrite(fd, packet->rest, packet->length, 0);
            fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
            packet->length = 0;
            give(packet, fd);
        }
    }
    packet->header.space = (uint16_t)below(choices, 3);
    packet->header.sent = word(choices);
    if (rarely(choices))
        switch (below(choices, 6)) {
        case 0:
            packet->header.size = number(choices);
            break;
        case 1:
            packet->header.magic = number(choices);
            break;
        case 2:
            packet->header.bits = word(choices);
            break;
        case 3:
            packet->length = below(choices, (unsigned)packet->length + 1);
            break;
        case 4:
            if (packet->count)
                close(packet->fds[--packet->count]);
            break;
        default:
            while (packet->count < MOST)
                give(packet, dup(STDERR_FILENO));
        }
}

/* Up to four packets over one connection. */
static void attack(struct choices choices)
{
    static struct packet packet;
    int connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (connection >= 0 && connect(connection, (struct sockaddr *)&address, sizeof address) == 0)
        for (int i = 0; i < 4 && (i == 0 || choices.at < choices.end); i++) {
            make_packet(&choices, &packet, MACH_MSG_TYPE_PORT_SEND, 0);
            send_with(connection, &packet.header, sizeof packet.header, packet.rest, packet.length, packet.fds, packet.count);
        }
    close(connection);
}

static void serve_orders(int from)
{
    static uint8_t data[1 << 16];
    ssize_t size;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while ((size = recv(from, data, sizeof data, 0)) > 0) {
        attack((struct choices){data + 1, data + size});
        if (send(from, "", 1, MSG_NOSIGNAL) != 1)
            break;
    }
    _exit(0);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char path[256], link[128];
    int pair[2];
    ssize_t length;
    (void)argc, (void)argv;
    own_names();
    must(bootstrap_check_in(mach_task_self(), "org.machrv.fuzz.path", &service) == KERN_SUCCESS, "no name");
    mach_port_mod_refs(mach_task_self(), service, MACH_PORT_RIGHT_RECEIVE, -1);
    must(machrv_task_create(&task) == KERN_SUCCESS && bootstrap_check_in(task, "org.machrv.fuzz", &service) == KERN_SUCCESS, "no name");
    snprintf(path, sizeof path, "%s/org.machrv.fuzz", getenv("MACHRV_BOOTSTRAP_DIR"));
    length = readlink(path, link, sizeof link - 1);
    must(length > 0, "no link");
    link[length] = 0;
    snprintf(address.sun_path, sizeof address.sun_path, "%s/%.40s", getenv("MACHRV_BOOTSTRAP_DIR"), link);
    must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0, "no sockets");
    hostile = fork();
    must(hostile >= 0, "no process");
    if (hostile == 0) {
        close(pair[0]);
        serve_orders(pair[1]);
    }
    close(pair[1]);
    orders = pair[0];
    return 0;
}

/* Does with what came what a program would do. */
static void use(mach_msg_header_t *header)
{
    static struct {
        mach_msg_header_t header;
        char rest[70000];
    } inner;
    mach_port_name_t names[64];
    machrv_account_t all[64];
    int count = machrv_account(task, 0, all, 64);
    for (int i = 0; i < count && i < 64; i++)
        names[i] = all[i].name;
    for (int i = 0; i < count && i < 64; i++) {
        mach_msg_header_t empty = {.msgh_bits = MACH_MSG_TYPE_COPY_SEND, .msgh_remote_port = names[i]};
        int fd;
        if (names[i] == service)
            continue;
        for (int n = 0; n < 4 && all[i].type & MACH_PORT_TYPE_RECEIVE; n++)
            if (machrv_msg(task, &inner.header, MACH_RCV_MSG | MACH_RCV_TIMEOUT, 0, sizeof inner, names[i], 0, 0) == MACH_MSG_SUCCESS)
                machrv_msg_destroy(task, &inner.header);
        if (machrv_msg(task, &empty, MACH_SEND_MSG | MACH_SEND_TIMEOUT, sizeof empty, 0, 0, 0, 0) != MACH_MSG_SUCCESS)
            machrv_msg_destroy(task, &empty);
        if ((fd = machrv_fileport_makefd(task, names[i])) >= 0)
            close(fd);
    }
    machrv_msg_destroy(task, header);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct {
        mach_msg_header_t header;
        char rest[70000];
    } in;
    bool stranger = size > 0 && data[0] & 1;
    char done;
    if (size == 0)
        return 0;
    if (stranger) {
        ssize_t got;
        must(send(orders, data, size, 0) == (ssize_t)size, "the hostile process has ended");
        while ((got = recv(orders, &done, 1, 0)) < 0 && errno == EINTR) /* libFuzzer has an alarm */
            continue;
        must(got == 1, "the hostile process has ended");
    }
    else
        attack((struct choices){data + 1, data + size});
    for (int i = 0; i < 16; i++) {
        mach_msg_audit_trailer_t trailer;
        mach_msg_return_t code = machrv_msg(task, &in.header, MACH_RCV_MSG | MACH_RCV_TIMEOUT | MACH_RCV_TRAILER_ELEMENTS(3), 0,
                                            sizeof in, service, 0, 0);
        if (code == MACH_RCV_TIMED_OUT)
            break;
        if (code != MACH_MSG_SUCCESS)
            continue;
        must(in.header.msgh_size <= sizeof in - sizeof trailer, "longer than what it was received into");
        memcpy(&trailer, (char *)&in + ((in.header.msgh_size + 3) & ~3u), sizeof trailer);
        if (stranger)
            must(trailer.msgh_audit.val[5] == (uint32_t)hostile && trailer.msgh_audit.val[0] != 0, "not from who sent it");
        use(&in.header);
    }
    for (;;) { /* what nobody destroyed: rights that came with notifications and the like */
        machrv_account_t all[64];
        int count = machrv_account(task, 0, all, 64), left = 0;
        for (int i = 0; i < count && i < 64; i++)
            if (all[i].name != service)
                left++, mach_port_destroy(task, all[i].name);
        if (!left)
            break;
    }
    must(machrv_settle(5000) == 0, "descriptors are still being closed");
    if (open_before < 0)
        open_before = descriptors();
    if (descriptors() != open_before) {
        fprintf(stderr, "%d descriptors, %d before\n", descriptors(), open_before);
        tell_descriptors();
        abort();
    }
    return 0;
}
