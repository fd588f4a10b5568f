/* What the two targets share: bytes as decisions, and the count of what is left behind. */

#ifndef MACHRV_FUZZ_TARGET_H
#define MACHRV_FUZZ_TARGET_H

#define _GNU_SOURCE
#include <machrv/linux.h>

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* libFuzzer's: one input. `prepare` is called before the first one. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* Decisions read off the front of some bytes; zeros when they are used up. The same bytes are the same attack. */
struct choices {
    const uint8_t *at, *end;
};

static inline unsigned byte(struct choices *choices) { return choices->at < choices->end ? *choices->at++ : 0; }
static inline unsigned below(struct choices *choices, unsigned limit) { return byte(choices) % limit; }
static inline bool rarely(struct choices *choices) { return byte(choices) > 223; }
static inline uint32_t word(struct choices *choices)
{
    uint32_t value = byte(choices);
    value |= byte(choices) << 8;
    value |= byte(choices) << 16;
    return value | (uint32_t)byte(choices) << 24;
}
/* Mostly small, now and then at an edge or anything. */
static inline uint32_t number(struct choices *choices)
{
    static const uint32_t edges[] = {0xffffffff, 0x7fffffff, 0x80000000, 0x40000001, 0x3fffffff, 0xffff, 252, 253, 254};
    unsigned kind = below(choices, 8);
    return kind < 5 ? below(choices, 8) : kind == 5 ? edges[below(choices, 9)] : word(choices);
}

static inline void must(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

/* How many of the first 512 descriptors are open. */
static inline int descriptors(void)
{
    struct pollfd all[512];
    int open = 0;
    for (int i = 0; i < 512; i++)
        all[i] = (struct pollfd){.fd = i};
    must(poll(all, 512, 0) >= 0, "poll");
    for (int i = 0; i < 512; i++)
        open += !(all[i].revents & POLLNVAL);
    return open;
}

static inline void tell_descriptors(void)
{
    for (int i = 0; i < 512; i++) {
        char path[32], where[128];
        ssize_t length;
        snprintf(path, sizeof path, "/proc/self/fd/%d", i);
        if ((length = readlink(path, where, sizeof where)) > 0)
            fprintf(stderr, "%d: %.*s\n", i, (int)length, where);
    }
}

/* What the library keeps once it was needed is made before anything is counted. */
static inline void own_names(void)
{
    mach_port_t task, name = MACH_PORT_NULL;
    int fd;
    char folder[256];
    snprintf(folder, sizeof folder, "%s/machrv-fuzz-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    must(mkdtemp(folder) && setenv("MACHRV_BOOTSTRAP_DIR", folder, 1) == 0, "no directory for names");
    must(machrv_task_create(&task) == KERN_SUCCESS && bootstrap_check_in(task, "org.machrv.warm", &name) == KERN_SUCCESS, "no task");
    must(machrv_port_readable(task, name, &fd) == KERN_SUCCESS, "not readable");
    machrv_task_deallocate(task);
    close(fd);
    machrv_settle(5000);
}

#endif
