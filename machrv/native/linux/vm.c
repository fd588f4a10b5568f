/*
 * Memory: what travels, what it arrives in, and Mach's calls for a task's own.
 *
 * What must never happen here: a mapping of memory that somebody else could still change or cut short; a crash for an address
 * that is not there: the kernel copies, and says EFAULT.
 */

#include "system.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>

#define HUGETLBFS_SUPER_MAGIC 0x958458f6 /* <linux/magic.h> */
#define MOST_AT_ONCE 0x7ffff000u         /* bytes of one read or write: MAX_RW_COUNT, Linux, include/linux/fs.h */
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000 /* Linux 4.17 */
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* -- what travels ---------------------------------------------------------------------------------------------------- */

int memory_file(const char *name)
{
    int fd = -1;
    errno = EINVAL;
    /* Nobody is to run a program out of it; where vm.memfd_noexec is 2, there is no other kind. */
    if (HAVE(NOEXEC_SEAL))
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    return fd < 0 ? -errno : fd;
}

/* write(), all of it: memory that is not there is reported as EFAULT, where a copy of our own would crash, and so would what
   sanitizers put in front of the C library's. */
static int write_all(int fd, vm_address_t from, size_t size)
{
    while (size > 0) {
        ssize_t wrote = (ssize_t)syscall(SYS_write, fd, (const void *)from, size > MOST_AT_ONCE ? MOST_AT_ONCE : size);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return wrote < 0 ? -errno : -EIO;
        from += (size_t)wrote;
        size -= (size_t)wrote;
    }
    return 0;
}

int memory_copy(vm_address_t address, size_t size)
{
    int fd = memory_file("machrv-memory"), error;
    if (fd < 0)
        return fd;
    error = write_all(fd, address, size);
    if (!error && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL))
        error = -errno;
    if (!error)
        return fd;
    close(fd);
    return error;
}

int64_t memory_sealed_size(int fd)
{
    const int needed = F_SEAL_SHRINK | F_SEAL_WRITE;
    struct statfs system;
    struct stat file;
    /* First: nothing but a memfd has seals (mm/memfd.c, memfd_fcntl), and nothing that is asked of one can wait. */
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0)
        return -errno;
    if ((seals & needed) != needed)
        return -EPERM; /* whoever holds it could change it, or cut it short and crash its reader */
    if (fstatfs(fd, &system) || fstat(fd, &file))
        return -errno;
    /* A hole in huge pages is filled when it is read, if there is a page left: else that is SIGBUS, too. */
    return (unsigned long)system.f_type == HUGETLBFS_SUPER_MAGIC ? -EPERM : (int64_t)file.st_size;
}

int memory_map(int fd, size_t size, vm_address_t *address)
{
    void *where = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0); /* -EINVAL for no bytes */
    if (where == MAP_FAILED)
        return -errno;
    *address = (vm_address_t)where;
    return 0;
}

/* -- copies of what may not be there --------------------------------------------------------------------------------- */

/* Through a pipe, a page at a time, which always fits into it: for where process_vm_readv is forbidden (seccomp). */
static int copy_through_pipe(vm_address_t into, vm_address_t from, size_t size)
{
    int ends[2], error = 0;
    if (pipe2(ends, O_CLOEXEC))
        return -errno;
    while (!error && size > 0) {
        size_t piece = size < 4096 ? size : 4096;
        error = write_all(ends[1], from, piece);
        for (size_t done = 0; !error && done < piece;) {
            ssize_t got = read(ends[0], (void *)(into + done), piece - done);
            if (got > 0)
                done += (size_t)got;
            else if (got == 0 || errno != EINTR)
                error = got < 0 ? -errno : -EIO;
        }
        from += piece;
        into += piece;
        size -= piece;
    }
    close(ends[0]);
    close(ends[1]);
    return error;
}

/* Copies within this process, where either side may not be there: 0, -EFAULT, or what a pipe says. */
static int copy(vm_address_t into, vm_address_t from, size_t size, bool reading)
{
    const pid_t self = getpid();
    while (size > 0) {
        size_t piece = size > MOST_AT_ONCE ? MOST_AT_ONCE : size;
        struct iovec to = {.iov_base = (void *)into, .iov_len = piece};
        struct iovec of = {.iov_base = (void *)from, .iov_len = piece};
        /* What is called "remote" is the side whose protection is asked for first. */
        ssize_t done = reading ? process_vm_readv(self, &to, 1, &of, 1, 0) : process_vm_writev(self, &of, 1, &to, 1, 0);
        if (done < 0 && (errno == ENOSYS || errno == EPERM || errno == EACCES || errno == ESRCH))
            return copy_through_pipe(into, from, size);
        if (done <= 0)
            return done < 0 ? -errno : -EFAULT;
        into += (size_t)done;
        from += (size_t)done;
        size -= (size_t)done;
    }
    return 0;
}

int memory_read(void *into, vm_address_t address, size_t size) { return copy((vm_address_t)into, address, size, true); }

/* -- the calls ------------------------------------------------------------------------------------------------------- */

/* What XNU lets a caller say (osfmk/mach/vm_statistics.h, VM_FLAGS_USER_ALLOCATE), as far as it does not ask for something
   that is not here. Purgeable (2), at a random address (8), uncached (0x10) and a tag (the upper byte) change nothing. */
#define ALLOCATE_FLAGS (VM_FLAGS_ANYWHERE | VM_FLAGS_OVERWRITE | 0xFF00001A)

static vm_address_t page_mask(void) { return (vm_address_t)sysconf(_SC_PAGESIZE) - 1; }

/* The pages that a range lies in; false if it goes over the end of what can be addressed. */
static bool pages_of(vm_address_t address, vm_size_t size, vm_address_t *start, vm_size_t *length)
{
    const vm_address_t mask = page_mask();
    vm_address_t end;
    if (__builtin_add_overflow(address, size, &end) || __builtin_add_overflow(end, mask, &end))
        return false;
    *start = address & ~mask;
    *length = (end & ~mask) - *start;
    return true;
}

static kern_return_t allocate_fixed(vm_address_t address, vm_size_t size, bool overwrite)
{
    void *where = mmap((void *)address, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | (overwrite ? MAP_FIXED : MAP_FIXED_NOREPLACE), -1, 0);
    if (where == (void *)address && where != MAP_FAILED)
        return KERN_SUCCESS;
    if (where != MAP_FAILED) {
        munmap(where, size); /* a kernel that took the flag for a hint */
        return KERN_NO_SPACE;
    }
    /* Below vm.mmap_min_addr it is EPERM, above the last address ENOMEM, as it is for want of memory. */
    return errno == EPERM || errno == EINVAL ? KERN_INVALID_ADDRESS : KERN_NO_SPACE;
}

kern_return_t vm_allocate(mach_port_t task, vm_address_t *address, vm_size_t size, int flags)
{
    vm_address_t start;
    vm_size_t length;
    void *where;
    if (!task_is_valid(task) || !address || (unsigned)flags & ~ALLOCATE_FLAGS)
        return KERN_INVALID_ARGUMENT;
    if (size == 0) { /* XNU, osfmk/vm/vm_user.c, vm_allocate */
        *address = 0;
        return KERN_SUCCESS;
    }
    /* Where it is to be is rounded down, how much up, each by itself. */
    if (!pages_of(0, size, &start, &length))
        return KERN_INVALID_ARGUMENT;
    if (!(flags & VM_FLAGS_ANYWHERE)) {
        start = *address & ~page_mask();
        kern_return_t result = allocate_fixed(start, length, flags & VM_FLAGS_OVERWRITE);
        if (result == KERN_SUCCESS)
            *address = start;
        return result;
    }
    where = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (where == MAP_FAILED)
        return KERN_NO_SPACE;
    *address = (vm_address_t)where;
    return KERN_SUCCESS;
}

kern_return_t vm_deallocate(mach_port_t task, vm_address_t address, vm_size_t size)
{
    vm_address_t start;
    vm_size_t length;
    if (!task_is_valid(task))
        return KERN_INVALID_ARGUMENT;
    if (size == 0)
        return KERN_SUCCESS;
    if (!pages_of(address, size, &start, &length))
        return KERN_INVALID_ARGUMENT;
    if (munmap((void *)start, length) == 0)
        return KERN_SUCCESS;
    return errno == ENOMEM ? KERN_RESOURCE_SHORTAGE : KERN_INVALID_ADDRESS; /* a hole was to be cut, and maps are scarce */
}

/* Why a copy failed. msync() looks at the map and does nothing else (Linux 6.18, mm/msync.c, MS_ASYNC). */
static kern_return_t why(int error, vm_address_t address, vm_size_t size)
{
    vm_address_t start;
    vm_size_t length;
    if (error != -EFAULT)
        return KERN_RESOURCE_SHORTAGE;
    if (!pages_of(address, size, &start, &length) || msync((void *)start, length, MS_ASYNC))
        return KERN_INVALID_ADDRESS;
    return KERN_PROTECTION_FAILURE;
}

kern_return_t vm_read(mach_port_t task, vm_address_t address, vm_size_t size, vm_offset_t *data,
                      mach_msg_type_number_t *dataCnt)
{
    vm_address_t copied = 0;
    kern_return_t result;
    int error;
    if (!task_is_valid(task) || !data || !dataCnt || size > UINT32_MAX)
        return KERN_INVALID_ARGUMENT;
    if (address + size < address)
        return KERN_INVALID_ADDRESS;
    result = vm_allocate(task, &copied, size, VM_FLAGS_ANYWHERE);
    if (result != KERN_SUCCESS)
        return result;
    /* Where the new memory is now, there was none. */
    error = address < copied + size && copied < address + size ? -EFAULT : copy(copied, address, size, true);
    if (error) {
        vm_deallocate(task, copied, size); /* first, for the same reason */
        return why(error, address, size);
    }
    *data = copied;
    *dataCnt = (mach_msg_type_number_t)size;
    return KERN_SUCCESS;
}

/*
 * Whether all of a range can be written to, before any of it is: KERN_SUCCESS where the kernel cannot say (before Linux 5.14,
 * mm/madvise.c, madvise_populate). It says EINVAL both for what is protected and if it does not know the question.
 */
static kern_return_t can_write(vm_address_t address, vm_size_t size)
{
    vm_address_t start, own, here = (vm_address_t)&own;
    vm_size_t length;
    if (!pages_of(address, size, &start, &length) || msync((void *)start, length, MS_ASYNC))
        return KERN_INVALID_ADDRESS;
    if (madvise((void *)start, length, MADV_POPULATE_WRITE) == 0)
        return KERN_SUCCESS;
    if (errno == ENOMEM || errno == EFAULT)
        return why(-EFAULT, address, size);
    own = here & ~page_mask();
    return madvise((void *)own, page_mask() + 1, MADV_POPULATE_WRITE) ? KERN_SUCCESS : KERN_PROTECTION_FAILURE;
}

kern_return_t vm_write(mach_port_t task, vm_address_t address, vm_offset_t data, mach_msg_type_number_t dataCnt)
{
    kern_return_t result;
    int error;
    if (!task_is_valid(task))
        return KERN_INVALID_ARGUMENT;
    if (dataCnt == 0)
        return KERN_SUCCESS;
    result = can_write(address, dataCnt);
    if (result != KERN_SUCCESS)
        return result;
    error = copy(address, data, dataCnt, false);
    return error ? why(error, data, dataCnt) : KERN_SUCCESS;
}
