/*
 * A clock that a poll can wait for: Python has none before 3.13.
 *
 * What must never happen here: a decision about when.
 */

#include "native.h"

#include <sys/timerfd.h>

int machrv_timer(void)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int machrv_timer_set(int fd, int milliseconds)
{
    struct itimerspec when = {{0, 0}, {milliseconds / 1000, milliseconds % 1000 * 1000000L}};
    return timerfd_settime(fd, 0, &when, NULL) < 0 ? -errno : 0;
}
