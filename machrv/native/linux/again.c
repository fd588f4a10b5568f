/*
 * What was done last, done again: a plain message to or from a port of the space, while nobody is at work in it.
 *
 * What belongs here: the calls that Python may make without the space's lock. What must never happen here: an answer that
 * sending.py or receiving.py would not have given, or a look at a port once the gate is closed.
 *
 * Python opens the gate for a port, under its lock, when it has sent to it or received from it in the usual way, and closes
 * it for all ports before it changes anything that counts here. While the gate's lock is held, it cannot be closed: no
 * descriptor is closed, or another one by then, that a call here is using.
 */

#include "native.h"

#include <pthread.h>

_Static_assert(sizeof(pthread_mutex_t) <= sizeof((machrv_gate *)0)->lock, "the lock of a gate");

/* Memory of zeros is a lock that nobody holds: PTHREAD_MUTEX_INITIALIZER, in every C library for Linux. */
static void enter(machrv_gate *gate) { pthread_mutex_lock((pthread_mutex_t *)(void *)gate->lock); }
static void leave(machrv_gate *gate) { pthread_mutex_unlock((pthread_mutex_t *)(void *)gate->lock); }

/* Names differ in their upper 24 bits: see entry.py. */
static machrv_port **place(machrv_gate *gate, uint32_t name) { return &gate->ports[name >> 8 & (MACHRV_AGAIN - 1)]; }

static machrv_port *open_for(machrv_gate *gate, uint32_t name, uint32_t what)
{
    machrv_port *port = *place(gate, name);
    return port && port->name == name && port->again & what ? port : NULL;
}

void machrv_open_gate(machrv_gate *gate, machrv_port *port, uint32_t what)
{
    machrv_port **here = place(gate, port->name);
    enter(gate);
    if (*here && *here != port)
        (*here)->again = 0;
    *here = port;
    port->again |= what;
    leave(gate);
}

void machrv_close_gate(machrv_gate *gate)
{
    enter(gate);
    for (int i = 0; i < MACHRV_AGAIN; i++)
        if (gate->ports[i]) {
            gate->ports[i]->again = 0;
            gate->ports[i] = NULL;
        }
    leave(gate);
}

int machrv_send_again(machrv_gate *gate, const char *message, size_t size)
{
    uint32_t header[6];
    machrv_port *port;
    int result = -EBUSY;
    if (size < sizeof header || size & 3 || size > MACHRV_SMALL)
        return -EINVAL;
    memcpy(header, message, sizeof header);
    if (header[0] != COPY_SEND || header[3])
        return -EINVAL;
    enter(gate);
    port = open_for(gate, header[2], MACHRV_AGAIN_SEND);
    if (port)
        result = machrv_send_plain(port->loop, message, size, gate->space);
    leave(gate);
    return result;
}

int machrv_send_bare_again(machrv_gate *gate, uint32_t name, int32_t id, const char *body, size_t size)
{
    machrv_port *port;
    int result = -EBUSY;
    if (size & 3 || size > MACHRV_SMALL)
        return -EINVAL;
    enter(gate);
    port = open_for(gate, name, MACHRV_AGAIN_SEND);
    if (port)
        result = machrv_send_bare(port->loop, id, body, size, gate->space);
    leave(gate);
    return result;
}

static int receive(machrv_exchange *what, machrv_port *port, uint32_t trailer_size, uint32_t limit)
{
    int result = machrv_receive_plain(port->fd, what->into, what->rights, what->own, port->kind, port->trusted, port->name,
                                      port->seqno, trailer_size, port->context, limit);
    if (result <= 0)
        return result;
    port->seqno++;
    return result + (what->into->nfds != 0);
}

int machrv_receive_next(machrv_exchange *what, machrv_port *port, int64_t option, uint32_t limit)
{
    static const uint32_t sizes[] = {8, 12, 20, AUDIT_TRAILER, 60}; /* REQUESTED_TRAILER_SIZE (osfmk/mach/message.h) */
    size_t elements = option >> 24 & 0xF;
    int result;
    enter(what->gate);
    result = receive(what, port, elements < sizeof sizes / sizeof *sizes ? sizes[elements] : 68, limit);
    leave(what->gate);
    return result;
}

int machrv_receive_again(machrv_exchange *what, uint32_t name)
{
    machrv_port *port;
    int result = -EBUSY;
    enter(what->gate);
    port = __atomic_load_n(&what->held, __ATOMIC_ACQUIRE) ? NULL : open_for(what->gate, name, MACHRV_AGAIN_RECEIVE);
    if (port)
        result = receive(what, port, AUDIT_TRAILER, UINT32_MAX);
    if (result >= 0)
        what->held = 1;
    leave(what->gate);
    return result;
}

void machrv_let_go(machrv_exchange *what) { __atomic_store_n(&what->held, 0, __ATOMIC_RELEASE); }
