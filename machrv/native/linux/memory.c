/*
 * Memory that travels, and memory that it arrives in.
 *
 * What must never happen here: a mapping of memory that somebody else could still change or cut short.
 */

#include "native.h"

#include <sys/mman.h>
#include <sys/stat.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U /* <linux/memfd.h>, Linux 6.3 */
#endif

int machrv_memfd(const char *name)
{
    int fd = -1;
    errno = EINVAL;
    /* Nobody is to run a program out of it; where vm.memfd_noexec is 2, there is no other kind. */
    if (!(machrv_missing & MACHRV_WITHOUT_NOEXEC_SEAL))
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    return fd < 0 ? -errno : fd;
}

int machrv_memory_object(uint64_t size)
{
    int fd = machrv_memfd("machrv-memory-object");
    if (fd < 0)
        return fd;
    if (ftruncate(fd, (off_t)size) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW))
        return machrv_fail_closing(fd);
    return fd;
}

int machrv_memory(uint64_t address, uint64_t size)
{
    int fd = machrv_memfd("machrv-memory");
    const char *from = (const char *)(uintptr_t)address;
    if (fd < 0)
        return fd;
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
