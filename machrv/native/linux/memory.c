/*
 * Memory that travels, and memory that it arrives in.
 *
 * What must never happen here: a mapping of memory that somebody else could still change or cut short.
 */

#include "native.h"

#include <sys/mman.h>
#include <sys/stat.h>

int machrv_memory(uint64_t address, uint64_t size)
{
    int fd = memfd_create("machrv-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    const char *from = (const char *)(uintptr_t)address;
    if (fd < 0)
        return -errno;
    while (size > 0) {
        /* write() reports memory that is not there as EFAULT, where a copy of our own would crash. */
        ssize_t wrote = write(fd, from, size > 0x7ffff000 ? 0x7ffff000 : (size_t)size);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return machrv_fail_closing(fd);
        from += wrote;
        size -= (uint64_t)wrote;
    }
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL))
        return machrv_fail_closing(fd);
    return fd;
}

int machrv_map(int fd, uint64_t size, uint64_t *address)
{
    struct stat file;
    void *where;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0)
        return -errno;
    if ((seals & (F_SEAL_SHRINK | F_SEAL_WRITE)) != (F_SEAL_SHRINK | F_SEAL_WRITE))
        return -EPERM; /* whoever holds it could change it, or cut it short and crash its reader */
    if (fstat(fd, &file))
        return -errno;
    if (size == 0 || (uint64_t)file.st_size != size)
        return -EINVAL;
    where = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (where == MAP_FAILED)
        return -errno;
    *address = (uint64_t)(uintptr_t)where;
    return 0;
}

int machrv_allocate(uint64_t size, uint64_t *address)
{
    void *where = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (where == MAP_FAILED)
        return -errno;
    *address = (uint64_t)(uintptr_t)where;
    return 0;
}

int machrv_unmap(uint64_t address, uint64_t size)
{
    return munmap((void *)(uintptr_t)address, (size_t)size) ? -errno : 0;
}
