/*
 * The threads that close what is given up.
 *
 * What belongs here: a queue of descriptors, and who closes them. One thread does. When it has been in one close for longer
 * than PATIENCE, another one takes over from it; so a close that hangs holds up the others for that long, once, and not for as
 * long as its peer likes. What must never happen here: a close with the lock held, or by the caller, unless nothing else is
 * left; a number closed twice, or one that is not in the queue.
 */

#include "system.h"
#include "closing.h"

#include <sys/ioctl.h>

#include <pthread.h>
#include <signal.h>

#define FIRST_ROOM 256     /* descriptors: room that needs no memory */
#define MOST_THREADS 1024  /* closes that hang at a time, before the rest waits for them */
#define STACK (128 * 1024) /* address space; what a thread here touches is a page or two, and the C library's storage */
#define PATIENCE 20000000  /* ns */
#define LESS_PATIENCE                                                                                                          \
    1000000 /* ns: once another close hangs already. What waits is in every process that is started meanwhile */
/* A close that takes no longer is waited for by whoever gave it up, in nanoseconds. */
#define PAUSE 1000000
#define IDLENESS 1000000000 /* ns: then a thread ends, for a program that wants to be of one thread, or to fork as one */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t something; /* is in the queue; or it is time to look */
static pthread_cond_t progress;  /* a close has ended */
static bool conditions;          /* the two above are made, for the monotonic clock */

static int first[FIRST_ROOM];
static int *queue = first; /* a ring */
static size_t room = FIRST_ROOM, head, count;

static int threads;    /* there are, or are being made */
static int starting;   /* of them, have not looked at the queue yet */
static int waiting;    /* of them, for `something` */
static int closing;    /* of them, in close() */
static uint64_t turn;  /* who took the last one out; 0: that close has ended */
static uint64_t turns; /* how many there have been */
static int64_t began;  /* that close, on the monotonic clock */

static void lock_queue(void)
{
    pthread_condattr_t clock;
    pthread_mutex_lock(&lock);
    if (conditions)
        return;
    /* None of these allocates, or can fail with these arguments, in glibc or musl. */
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&something, &clock);
    pthread_cond_init(&progress, &clock);
    pthread_condattr_destroy(&clock);
    conditions = true;
}

/* False once it is later than `until`. */
static bool wait_until(pthread_cond_t *condition, int64_t until)
{
    struct timespec time = {.tv_sec = (time_t)(until / 1000000000), .tv_nsec = (long)(until % 1000000000)};
    return pthread_cond_timedwait(condition, &lock, &time) != ETIMEDOUT;
}

/* Whether the queue has room for one more. */
static bool make_room(void)
{
    int *larger;
    if (count < room)
        return true;
    larger = malloc(2 * room * sizeof *larger); /* no overflow: there are as many numbers as this process has descriptors */
    if (!larger)
        return false;
    for (size_t i = 0; i < count; i++)
        larger[i] = queue[(head + i) % room];
    if (queue != first)
        free(queue);
    queue = larger;
    head = 0;
    room *= 2;
    return true;
}

static int take(void)
{
    int fd = queue[head];
    head = (head + 1) % room;
    if (--count == 0 && queue != first) {
        free(queue);
        queue = first;
        room = FIRST_ROOM;
        head = 0;
    }
    return fd;
}

/* What waits is closed by the caller: there is no thread, and none can be made. With the lock, which is let go meanwhile. */
static void close_here(void)
{
    while (count > 0 && threads == 0) {
        int fd = take();
        closing++;
        pthread_mutex_unlock(&lock);
        close(fd);
        pthread_mutex_lock(&lock);
        closing--;
        pthread_cond_broadcast(&progress);
    }
}

static void *closer(void *);

static int start_thread(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    int error = pthread_attr_init(&attributes);
    if (error)
        return error;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK);
    /* A signal is for the program's threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&thread, &attributes, closer, NULL);
    if (error == EINVAL) { /* glibc takes the thread-local storage of all libraries out of the stack: there is too much of it */
        pthread_attr_setstacksize(&attributes, 8 * 1024 * 1024);
        error = pthread_create(&thread, &attributes, closer, NULL);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}

/* Somebody looks after what is in the queue. With the lock, which is let go while a thread is made. */
static void see_to_it(void)
{
    if (count == 0)
        return;
    if (waiting > 0) {
        pthread_cond_signal(&something);
        return;
    }
    if (starting > 0 || threads >= MOST_THREADS)
        return;
    threads++;
    starting++;
    pthread_mutex_unlock(&lock);
    int error = start_thread();
    pthread_mutex_lock(&lock);
    if (error) {
        threads--;
        starting--;
        close_here(); /* unless others are there: each looks at the queue when its close has ended */
    }
}

static int64_t patience(void) { return closing > 1 ? LESS_PATIENCE : PATIENCE; }

/* Whether this thread may close the next one: nobody else is at it, or has been for too long. */
static bool may_take(void) { return count > 0 && (turn == 0 || now_monotonic() - began >= patience()); }

/* Closes the next one. With the lock, which is let go meanwhile. */
static void close_next(void)
{
    int fd = take();
    uint64_t mine = turn = ++turns;
    began = now_monotonic();
    closing++;
    see_to_it(); /* there is more: somebody watches how long this one takes */
    began = now_monotonic();
    pthread_mutex_unlock(&lock);
    close(fd); /* never again, whatever it says: the number is free (Linux 6.18, fs/open.c, close) */
    pthread_mutex_lock(&lock);
    closing--;
    if (turn == mine)
        turn = 0;
    pthread_cond_broadcast(&progress);
}

static void *closer(void *nothing)
{
    bool more = true;
    pthread_setname_np(pthread_self(), "machrv-close");
    lock_queue();
    starting--;
    while (more) {
        if (may_take()) {
            close_next();
            continue;
        }
        /* Something is there, and another thread at work: until that has taken too long. */
        int64_t until = count > 0 ? began + patience() : now_monotonic() + IDLENESS;
        waiting++;
        more = wait_until(&something, until) || count > 0;
        waiting--;
    }
    threads--;
    pthread_mutex_unlock(&lock);
    return nothing;
}

/* This thread has given something up since it last paused. */
static _Thread_local bool handed_over;

void close_all_later(const int *fds, int number)
{
    int left = number;
    while (left > 0 && fds[left - 1] < 0)
        left--;
    if (left == 0)
        return;
    handed_over = true;
    lock_queue();
    for (int i = 0; i < number; i++) {
        if (fds[i] < 0)
            continue;
        if (make_room()) {
            queue[(head + count++) % room] = fds[i];
            continue;
        }
        pthread_mutex_unlock(&lock);
        close(fds[i]);
        pthread_mutex_lock(&lock);
    }
    see_to_it();
    pthread_mutex_unlock(&lock);
}

void close_later(int fd) { close_all_later(&fd, 1); }

/*
 * Whether nothing waits in the queue of a socket to which nothing can come any more. A packet that has descriptors shows even with no
 * bytes: there is no room for them, and the kernel says MSG_CTRUNC (Linux 6.18, net/core/scm.c, scm_detach_fds). It installs
 * none of them. One without bytes and descriptors does not show, and does not matter.
 */
static bool is_empty(int fd)
{
    const int off = -1;
    struct msghdr message;
    /* A holder of a copy can have made the kernel look past what waits. */
    if (setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &off, sizeof off))
        return false;
    memset(&message, 0, sizeof message);
    /* Anything else, be it an error of its own (ENOTCONN for a listener, whose queue holds sockets), is looked at no closer. */
    return recvmsg(fd, &message, MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC) == 0 && !(message.msg_flags & MSG_CTRUNC);
}

void close_socket(int fd)
{
    if (fd < 0)
        return;
    /* Who sends looks at this under the lock that it queues with (net/unix/af_unix.c, unix_dgram_sendmsg). */
    if (shutdown(fd, SHUT_RDWR) == 0 && is_empty(fd))
        close(fd);
    else
        close_later(fd);
}

void close_right(int fd)
{
    struct pollfd waits = {.fd = fd, .events = POLLIN};
    int bytes = 0;
    /* Whoever has a copy can hide the queue from a peek, but not from these, which cost as much as the close itself. */
    if (fd >= 0 && poll(&waits, 1, 0) == 0 && shutdown(fd, SHUT_RD) == 0 && ioctl(fd, FIONREAD, &bytes) == 0 && bytes == 0 &&
        is_empty(fd))
        close(fd);
    else
        close_later(fd);
}

void closing_pause(void)
{
    if (!handed_over)
        return;
    int64_t until = now_monotonic() + 50 * PAUSE;
    handed_over = false;
    lock_queue();
    see_to_it();
    /* Not for a close that takes its time. */
    while ((count > 0 || turn != 0) && !(turn != 0 && now_monotonic() - began > PAUSE) && now_monotonic() < until)
        wait_until(&progress, now_monotonic() + PAUSE);
    pthread_mutex_unlock(&lock);
}

int machrv_settle(int milliseconds)
{
    int64_t until = now_monotonic() + (int64_t)milliseconds * 1000000;
    bool settled;
    lock_queue();
    see_to_it();
    while (!(settled = count == 0 && closing == 0) && wait_until(&progress, until))
        continue;
    pthread_mutex_unlock(&lock);
    return settled ? 0 : -ETIMEDOUT;
}

void closing_before_fork(void)
{
    lock_queue();
    /* What was taken out of the queue is still in the table of descriptors until close() has got there, a moment later: the
       child would inherit it, and nobody knew. A close that hangs has long been there (fs/open.c: the number is given back
       first, then the file is flushed). */
    while (turn != 0 && now_monotonic() - began < PATIENCE)
        wait_until(&progress, began + PATIENCE);
}

void closing_after_fork_in_parent(void) { pthread_mutex_unlock(&lock); }

void closing_after_fork_in_child(void)
{
    threads = starting = waiting = closing = 0;
    turn = 0;
    conditions = false; /* the threads that wait in them are the parent's: they are made anew */
    pthread_mutex_unlock(&lock);
}
