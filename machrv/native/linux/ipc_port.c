/*
 * Ports: what this process knows of each, which task receives from it, and how it dies (osfmk/ipc/ipc_port.c).
 *
 * What must never happen here: waiting; recursion over what a peer sent (a port may wait in another one's queue, and that in
 * a third's: see ipc_kmsg_doom). All of it: locked, but for the table of ports, which has a lock of its own.
 */

#include "ipc.h"

/* -- the ports of all tasks, and where receive rights are on their way to -------------------------------------------------- */

pthread_mutex_t ipc_ports_lock = PTHREAD_MUTEX_INITIALIZER;
static struct ipc_port *ports[ID_BUCKETS];
static size_t nrandom; /* bytes that no id was made of yet */

/* A receive right is in a message: a right sent to itself, or to a port whose own right waits in its queue, could never be
   received again. */
struct journey {
    struct journey *next;
    char port[PORT_ID], destination[PORT_ID];
};
static struct journey *journeys[ID_BUCKETS];
static unsigned njourneys;
#define MOST_JOURNEYS 10000

struct ipc_port *ipc_port_find(struct ipc_task *task, const char id[PORT_ID])
{
    struct ipc_port *port;
    pthread_mutex_lock(&ipc_ports_lock);
    port = ports[id_hash(id)];
    while (port && !(port->home == task && memcmp(port->id, id, PORT_ID) == 0))
        port = port->same_hash;
    pthread_mutex_unlock(&ipc_ports_lock);
    return port;
}

static bool is_here(const char id[PORT_ID])
{
    struct ipc_port *port = ports[id_hash(id)];
    while (port && memcmp(port->id, id, PORT_ID) != 0)
        port = port->same_hash;
    return port != NULL;
}

static struct journey **journey_of(const char id[PORT_ID])
{
    struct journey **place = &journeys[id_hash(id)];
    while (*place && memcmp((*place)->port, id, PORT_ID) != 0)
        place = &(*place)->next;
    return place;
}

static void end_journey(struct journey **place)
{
    struct journey *gone = *place;
    if (gone) {
        *place = gone->next;
        free(gone);
        njourneys--;
    }
}

/* All of them, or those to one port. */
static void end_journeys(const char *destination)
{
    for (int i = 0; i < ID_BUCKETS && njourneys > 0; i++)
        for (struct journey **place = &journeys[i]; *place;) {
            if (!destination || memcmp((*place)->destination, destination, PORT_ID) == 0)
                end_journey(place);
            else
                place = &(*place)->next;
        }
}

bool ipc_port_is_circular(const char port[PORT_ID], const char destination[PORT_ID])
{
    bool circular = true;
    pthread_mutex_lock(&ipc_ports_lock);
    for (int steps = 0; memcmp(destination, port, PORT_ID) != 0; steps++) {
        struct journey *journey = *journey_of(destination);
        if (!journey || steps > 1000000) {
            circular = false;
            break;
        }
        destination = journey->destination;
    }
    pthread_mutex_unlock(&ipc_ports_lock);
    return circular;
}

void ipc_port_arrived(const char port[PORT_ID])
{
    pthread_mutex_lock(&ipc_ports_lock);
    end_journey(journey_of(port));
    pthread_mutex_unlock(&ipc_ports_lock);
}

void ipc_port_gone(const char port[PORT_ID])
{
    pthread_mutex_lock(&ipc_ports_lock);
    end_journeys(port);
    pthread_mutex_unlock(&ipc_ports_lock);
}

bool ipc_port_departed(const char port[PORT_ID], const char destination[PORT_ID])
{
    struct journey *journey = NULL;
    bool here;
    pthread_mutex_lock(&ipc_ports_lock);
    end_journey(journey_of(port));
    here = *journey_of(destination) || is_here(destination);
    if (njourneys >= MOST_JOURNEYS) /* rights that were destroyed unread: a circle is found by the system's own search */
        end_journeys(NULL);
    if (here && (journey = malloc(sizeof *journey))) { /* without memory a circle is found in that way too */
        struct journey **bucket = &journeys[id_hash(port)];
        memcpy(journey->port, port, PORT_ID);
        memcpy(journey->destination, destination, PORT_ID);
        journey->next = *bucket;
        *bucket = journey;
        njourneys++;
    }
    pthread_mutex_unlock(&ipc_ports_lock);
    return here;
}

void ipc_port_unlist(struct ipc_port *port)
{
    struct ipc_port **place = &ports[id_hash(port->id)];
    if (!port->home)
        return;
    pthread_mutex_lock(&ipc_ports_lock);
    while (*place && *place != port)
        place = &(*place)->same_hash;
    if (*place)
        *place = port->same_hash;
    pthread_mutex_unlock(&ipc_ports_lock);
    port->home = NULL;
}

void ipc_ports_forget(void)
{
    memset(ports, 0, sizeof ports);
    nrandom = 0; /* those are the parent's */
    end_journeys(NULL);
}

/* -- one port --------------------------------------------------------------------------------------------------------------- */

/* Random bytes for an id: those of some are asked for at a time. */
static int take_random(unsigned char into[PORT_ID / 2])
{
    static unsigned char some[16 * PORT_ID / 2];
    int error = 0;
    pthread_mutex_lock(&ipc_ports_lock);
    if (nrandom == 0 && (error = random_bytes(some, sizeof some)) == 0)
        nrandom = sizeof some;
    if (!error) {
        nrandom -= PORT_ID / 2;
        memcpy(into, some + nrandom, PORT_ID / 2);
    }
    pthread_mutex_unlock(&ipc_ports_lock);
    return error;
}

struct ipc_port *ipc_port_new(const char *id)
{
    struct ipc_port *port = calloc(1, sizeof *port);
    unsigned char bytes[PORT_ID / 2];
    if (!port)
        return NULL;
    port->refs = 1;
    port->alive = true;
    port->qlimit = MACH_PORT_QLIMIT_DEFAULT;
    port->crowded = 16;
    if (id) {
        memcpy(port->id, id, PORT_ID);
        return port;
    }
    if (take_random(bytes)) {
        free(port);
        return NULL;
    }
    for (int i = 0; i < PORT_ID; i++)
        port->id[i] = "0123456789abcdef"[bytes[i / 2] >> (i % 2 ? 0 : 4) & 15];
    return port;
}

struct ipc_port *ipc_port_hold(struct ipc_port *port)
{
    port->refs++;
    return port;
}

/* What a port leaves behind with its name. */
struct ipc_left {
    mach_port_mscount_t mscount;
    mach_port_seqno_t seqno;
    uint64_t context;
    bool guarded, strict;
    unsigned nsets;
    struct ipc_pset *sets[];
};

static void forget_left(struct ipc_port *port)
{
    if (!port->left)
        return;
    for (unsigned i = 0; i < port->left->nsets; i++)
        ipc_pset_release(port->left->sets[i]);
    free(port->left);
    port->left = NULL;
}

void ipc_port_release(struct ipc_port *port)
{
    if (--port->refs > 0)
        return;
    ipc_port_close(port);
    forget_left(port);
    free(port->sets);
    free(port->heap);
    free(port->events);
    free(port);
}

void ipc_port_enter(struct ipc_port *port, struct ipc_task *task, mach_port_name_t name)
{
    port->task = task;
    port->name = name;
    if (!port->home) {
        pthread_mutex_lock(&ipc_ports_lock);
        port->home = task;
        port->same_hash = ports[id_hash(port->id)];
        ports[id_hash(port->id)] = port;
        pthread_mutex_unlock(&ipc_ports_lock);
    }
    if (!port->nsrequest.kind)
        return;
    for (struct ipc_end *end = port->ends; end; end = end->next)
        ipc_watch_end(end);         /* where there is no room for that, the next call looks */
    ipc_notify_check_senders(port); /* who sends may have gone while it was on its way */
}

static void remember_left(struct ipc_port *port)
{
    struct ipc_left *left = malloc(sizeof *left + port->nsets * sizeof *left->sets);
    forget_left(port);
    if (!left)
        return; /* then it comes back as it comes back on Mach */
    *left = (struct ipc_left){port->mscount, port->seqno, port->context, port->guarded, port->strict, port->nsets};
    for (unsigned i = 0; i < port->nsets; i++) {
        left->sets[i] = port->sets[i];
        left->sets[i]->refs++;
    }
    port->left = left;
}

void ipc_port_restore(struct ipc_port *port)
{
    struct ipc_left *left = port->left;
    if (!left || !port->task)
        return;
    port->mscount = left->mscount;
    port->seqno = left->seqno;
    port->context = left->context;
    port->guarded = left->guarded;
    port->strict = left->strict;
    for (unsigned i = 0; i < left->nsets; i++) {
        struct ipc_entry *entry = ipc_entry_lookup(port->task, left->sets[i]->name);
        if (entry && entry->pset == left->sets[i])
            ipc_pset_insert(left->sets[i], port); /* where there is no room for that, it is out of the set */
    }
    forget_left(port);
}

void ipc_port_detach(struct ipc_port *port)
{
    struct ipc_task *task = port->task;
    if (!task)
        return;
    ipc_kick(task);
    remember_left(port);
    while (port->nsets > 0)
        ipc_pset_remove(port->sets[port->nsets - 1], port);
    for (struct ipc_end *end = port->ends; end; end = end->next) {
        ipc_unwatch_end(end);
        if (port->epoll)
            epoll_ctl(port->epoll->fd, EPOLL_CTL_DEL, end->fd, NULL);
    }
    if (port->epoll) {
        ipc_epoll_end(port->epoll);
        ipc_socket_release(port->epoll);
        port->epoll = NULL;
    }
    if (port->out_of_room) {
        port->out_of_room = false;
        task->starving--;
    }
    port->task = NULL;
    port->mscount = port->seqno = 0;
    port->context = 0;
    port->guarded = port->strict = false;
}

/* -- rights of this task to a port that leaves, or dies ----------------------------------------------------------------------- */

/* A right of this task gets a socket. */
static int externalize(struct ipc_port *port, struct ipc_right *right)
{
    struct ipc_end *end;
    int fd, error = ipc_port_make_end(port, right->kind, false, &fd, &end);
    struct ipc_socket *socket;
    if (error)
        return error;
    if (!port->alive) /* it died while the right was on its way: so does this one */
        ipc_end_drop(end);
    socket = ipc_socket_new(fd, false);
    if (!socket) {
        close(fd); /* the new end is at its end, and will be found so */
        return -ENOMEM;
    }
    socket->ours = socket->named = true;
    memcpy(socket->id, port->id, PORT_ID);
    socket->maker_known = false;
    right->socket = socket;
    right->port = NULL;
    if (right->kind == KIND_ONCE)
        port->onces--;
    port->refs--; /* not the last one: the caller has another */
    return 0;
}

int ipc_right_externalize(struct ipc_right *right)
{
    struct ipc_port *port = right->port;
    int error;
    if (!right->kind || !port)
        return 0;
    ipc_port_hold(port);
    error = externalize(port, right);
    if (!error && right->kind == KIND_SEND)
        port->carried--;
    port->spread = true;
    ipc_port_release(port);
    return error;
}

/* The port's receive right leaves: whoever gets its ends can put what he likes into the queue of the socket. */
static void disown(const struct ipc_port *port, struct ipc_socket *socket)
{
    if (socket && socket->ours && socket->named && memcmp(socket->id, port->id, PORT_ID) == 0)
        socket->ours = false;
}

static int externalize_request(struct ipc_port *port, struct ipc_right *right)
{
    int error = right->kind && right->port == port ? externalize(port, right) : 0;
    disown(port, right->socket);
    return error;
}

static int externalize_requests(struct ipc_port *port, struct ipc_port *other)
{
    int error = externalize_request(port, &other->nsrequest);
    return error ? error : externalize_request(port, &other->pdrequest);
}

static int externalize_held(struct ipc_port *port, const struct ipc_held *held)
{
    int error = 0;
    for (size_t i = 0; i < held->count && !error; i++) {
        struct ipc_right *right = &held->rights[i];
        if (right->kind == KIND_RECEIVE && right->port)
            error = externalize_requests(port, right->port);
        else if (right->port == port)
            error = ipc_right_externalize(right);
    }
    return error;
}

int ipc_port_externalize(struct ipc_task *task, struct ipc_port *port)
{
    int error = 0;
    if (port->refs < 2 && !port->spread)
        return 0;
    for (uint32_t index = 0; index < task->table_size && !error; index++) {
        struct ipc_entry *entry = task->table[index];
        struct ipc_port *other = entry && entry->type & MACH_PORT_TYPE_RECEIVE ? entry->port : NULL;
        if (!entry || !entry->type)
            continue;
        if (entry->port == port && entry->type & (MACH_PORT_TYPE_SEND | MACH_PORT_TYPE_SEND_ONCE)) {
            struct ipc_right right = {entry->type & MACH_PORT_TYPE_SEND ? KIND_SEND : KIND_ONCE, port, NULL};
            if (!(error = externalize(port, &right))) {
                entry->port = NULL;
                entry->socket = right.socket;
                ipc_entry_remember(task, entry);
                if (entry->request.notify.kind)
                    ipc_watch_entry(task, entry);
            }
        }
        disown(port, entry->socket);
        if (!error)
            error = externalize_request(port, &entry->request.notify);
        if (!error && other)
            error = externalize_requests(port, other);
    }
    for (struct ipc_held *held = task->held; held && !error; held = held->next)
        error = externalize_held(port, held);
    return error ? error : externalize_requests(port, port);
}

static void bury_holders(struct ipc_task *task, struct ipc_port *port)
{
    for (uint32_t index = 0; index < task->table_size && port->refs > 1; index++) {
        struct ipc_entry *entry = task->table[index];
        if (entry && entry->type && entry->port == port)
            ipc_right_bury(task, entry);
    }
}

void ipc_port_destroy(struct ipc_task *task, struct ipc_port *port)
{
    struct ipc_right to = port->pdrequest;
    ipc_port_detach(port);
    port->pdrequest = NO_RIGHT;
    if (to.kind) {
        if (ipc_notify_port_destroyed(task, &to, port))
            return;
        ipc_right_release(task, &to);
    }
    port->alive = false;
    ipc_port_arrived(port->id);
    ipc_port_gone(port->id);
    for (int some = 0; some < 64 && ipc_port_accept(port); some++)
        ; /* who has just connected is to see it too */
    if (port->nsrequest.kind)
        ipc_right_release(task, &port->nsrequest);
    ipc_kmsg_collect(task, port);
    ipc_kmsg_reap(task);
    bootstrap_name_remove(port->bootstrap);
    port->bootstrap = NULL;
    ipc_port_close(port);
    bury_holders(task, port);
    ipc_port_release(port);
}
