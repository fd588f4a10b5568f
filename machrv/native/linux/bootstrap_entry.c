/*
 * What lies in the directory of bootstrap names: links, sockets, and what the killed have left behind.
 *
 * What must never happen here: the removal of anything but a link to a port's socket and that socket; a way out of the
 * directory.
 */

#include "bootstrap_directory.h"
#include "sha256.h"

#include <dirent.h>
#include <stdio.h>

void entry_of(const char *service, char file[FILE_NAME + 1])
{
    const size_t length = strlen(service);
    if (length > 0 && length <= FILE_NAME && service[0] != '.' && service[0] != '%' && !strchr(service, '/')) {
        memcpy(file, service, length + 1);
        return;
    }
    file[0] = '%';
    sha256_hex(service, length, file + 1);
}

bool entry_names_socket(const char *file)
{
    return strlen(file) == SOCKET_NAME && file[0] == '.' && strspn(file + 1, "0123456789abcdef") == PORT_ID;
}

bool entry_is_socket(const struct directory *directory, const char *file)
{
    struct stat found = {0};
    if (!entry_names_socket(file) || fstatat(directory->fd, file, &found, AT_SYMLINK_NOFOLLOW))
        return false;
    return S_ISSOCK(found.st_mode);
}

int entry_link(const struct directory *directory, const char *file, char target[SOCKET_NAME + 1])
{
    char text[SOCKET_NAME + 2]; /* room for one more shows what is too long */
    ssize_t length = readlinkat(directory->fd, file, text, sizeof text);
    target[0] = 0;
    if (length < 0)
        return -errno;
    if (length != SOCKET_NAME)
        return -EINVAL;
    text[length] = 0;
    if (!entry_names_socket(text))
        return -EINVAL;
    memcpy(target, text, SOCKET_NAME + 1);
    return 0;
}

int entry_address(const struct directory *directory, const char *target, struct sockaddr_un *address)
{
    const size_t room = sizeof address->sun_path, length = strlen(directory->path);
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    if (length + 1 + SOCKET_NAME < room) {
        memcpy(address->sun_path, directory->path, length);
        address->sun_path[length] = '/';
        memcpy(address->sun_path + length + 1, target, SOCKET_NAME);
        return 0;
    }
    return snprintf(address->sun_path, room, "/proc/self/fd/%d/%s", directory->fd, target) < (int)room ? 0 : -ENAMETOOLONG;
}

/* Whether nobody listens at a socket any more, for certain. */
static bool is_stale(const struct directory *directory, const char *target)
{
    struct sockaddr_un address;
    struct stat found;
    int fd, error = entry_address(directory, target, &address);
    if (error)
        return false;
    /* A datagram socket cannot connect to a seqpacket listener: the error tells whether one is there (net/unix/af_unix.c,
       unix_find_bsd: ECONNREFUSED if the file is no living socket's, EPROTOTYPE if it is one's of another type). */
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    error = connect(fd, (const struct sockaddr *)&address, sizeof address) ? errno : 0;
    close(fd);
    if (error == ENOENT) /* or there is no /proc, for a long path */
        return fstatat(directory->fd, target, &found, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
    return error == ECONNREFUSED;
}

static void remove_link(const struct directory *directory, const char *file, const char *target)
{
    char found[SOCKET_NAME + 1];
    if (entry_link(directory, file, found) == 0 && strcmp(found, target) == 0)
        unlinkat(directory->fd, file, 0);
}

/* Reads the directory's entries, "." and ".." not among them. It is the caller's to close. */
static DIR *entries(const struct directory *directory)
{
    DIR *all;
    int fd = openat(directory->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* with a position of its own */
    if (fd < 0)
        return NULL;
    all = fdopendir(fd);
    if (!all) {
        int error = errno;
        close(fd);
        errno = error;
    }
    return all;
}

static const char *next_entry(DIR *all)
{
    struct dirent *one;
    do
        one = readdir(all);
    while (one && (strcmp(one->d_name, ".") == 0 || strcmp(one->d_name, "..") == 0));
    return one ? one->d_name : NULL;
}

void entry_remove(const struct directory *directory, const char *file, const char *target)
{
    const char *one;
    if (!entry_names_socket(target))
        return;
    if (*file) {
        remove_link(directory, file, target);
    } else {
        DIR *all = entries(directory);
        while (all && (one = next_entry(all)))
            remove_link(directory, one, target);
        if (all)
            closedir(all);
    }
    if (entry_is_socket(directory, target))
        unlinkat(directory->fd, target, 0);
}

/* Removes a link to a socket of nobody's. */
static bool remove_stale(const struct directory *directory, const char *file, const char *target)
{
    if (!is_stale(directory, target))
        return false;
    entry_remove(directory, file, target);
    return true;
}

bool entry_make_free(const struct directory *directory, const char *file)
{
    char target[SOCKET_NAME + 1];
    int error = entry_link(directory, file, target);
    return error == -ENOENT || (error == 0 && remove_stale(directory, file, target));
}

int entry_sweep(const struct directory *directory, int most)
{
    char target[SOCKET_NAME + 1];
    const char *file;
    int removed = 0;
    DIR *all = entries(directory);
    if (!all)
        return -errno;
    while (most-- > 0 && (file = next_entry(all))) {
        if (entry_link(directory, file, target) == 0)
            removed += remove_stale(directory, file, target);
        else if (entry_is_socket(directory, file) && is_stale(directory, file)) /* a claim that was killed half way */
            removed += unlinkat(directory->fd, file, 0) == 0;
    }
    closedir(all);
    return removed;
}
