/* A file system with faults, for tests: a library to put in LD_PRELOAD.
 *
 * FAULTY_FS holds rules, separated by semicolons: CALL:ERRNO:PATH[:AFTER[:TIMES]]
 *
 *   CALL   fsync, fdatasync, syncdir (fsync of a directory), flock, lock (fcntl locks), rename, write, open, create
 *          (an open that may make the file), opendir (an open of a directory), mkdir, unlink, link, fallocate,
 *          ftruncate, chmod
 *   ERRNO  a name, such as ENOSPC
 *   PATH   part of the path, empty for all, or with $ behind it the path's end; of a descriptor it is what
 *          /proc/self/fd says
 *   AFTER  for write, bytes that still go through; else calls that do (0)
 *   TIMES  how often the call fails then (without end)
 *
 * A write that meets the limit writes what still fits, as a full disk does. Only calls through the C library are met,
 * as those of Rust's std and of libtorch are.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST 16

struct rule {
    char call[16];
    int error;
    char path[256];
    atomic_llong after;
    atomic_llong times;
};

static struct rule rules[MOST];
static int count;

static const struct { const char *name; int number; } errors[] = {
    {"EPERM", EPERM}, {"ENOENT", ENOENT}, {"EIO", EIO}, {"EBADF", EBADF}, {"EACCES", EACCES}, {"EBUSY", EBUSY},
    {"EEXIST", EEXIST}, {"EXDEV", EXDEV}, {"EINVAL", EINVAL}, {"EMFILE", EMFILE}, {"ENFILE", ENFILE},
    {"EFBIG", EFBIG}, {"ENOSPC", ENOSPC}, {"EROFS", EROFS}, {"ENOLCK", ENOLCK}, {"ENOSYS", ENOSYS},
    {"EOPNOTSUPP", EOPNOTSUPP}, {"ESTALE", ESTALE}, {"EDQUOT", EDQUOT}, {"EISDIR", EISDIR}, {"ENOTTY", ENOTTY},
};

__attribute__((constructor)) static void read_rules(void)
{
    const char *given = getenv("FAULTY_FS");
    char *text = given ? strdup(given) : NULL, *rest = text, *one;
    while (text && (one = strsep(&rest, ";")) && count < MOST) {
        char *call = strsep(&one, ":"), *name = strsep(&one, ":"), *path = strsep(&one, ":");
        char *after = strsep(&one, ":"), *times = strsep(&one, ":");
        struct rule *rule = &rules[count];
        if (!call || !name || !path)
            continue;
        for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
            if (!strcmp(name, errors[i].name))
                rule->error = errors[i].number;
        if (!rule->error) {
            fprintf(stderr, "faulty_fs: unknown error %s\n", name);
            abort();
        }
        snprintf(rule->call, sizeof rule->call, "%s", call);
        snprintf(rule->path, sizeof rule->path, "%s", path);
        rule->after = after ? atoll(after) : 0;
        rule->times = times ? atoll(times) : -1;
        count++;
    }
    free(text);
}

/* Says whether a rule is about this path. */
static int matches(const char *path, const char *pattern)
{
    size_t part = strlen(pattern), whole = strlen(path);
    if (!part || pattern[part - 1] != '$')
        return strstr(path, pattern) != NULL;
    part--;
    return whole >= part && !strncmp(path + whole - part, pattern, part);
}

/* Says whether `call` on `path` fails, with errno set; `*length` bytes of a write may be cut to what fits. */
static int fails(const char *call, const char *path, size_t *length)
{
    for (int i = 0; path && i < count; i++) {
        struct rule *rule = &rules[i];
        if (strcmp(rule->call, call) || !matches(path, rule->path))
            continue;
        long long unit = length ? (long long)*length : 1;
        long long before = atomic_fetch_sub(&rule->after, unit);
        if (before >= unit)
            continue;
        if (length && before > 0) { /* the part that fits */
            *length = (size_t)before;
            continue;
        }
        if (atomic_load(&rule->times) == 0 || (atomic_load(&rule->times) > 0 && atomic_fetch_sub(&rule->times, 1) <= 0))
            continue;
        errno = rule->error;
        return 1;
    }
    return 0;
}

static const char *path_of(int fd, char *path, size_t size)
{
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, size - 1);
    if (length < 0)
        return NULL;
    path[length] = 0;
    return path;
}

static int fails_fd(const char *call, int fd, size_t *length)
{
    char path[4096];
    int saved = errno;
    const char *found = count ? path_of(fd, path, sizeof path) : NULL;
    errno = saved;
    return found && fails(call, found, length);
}

static int is_directory(int fd)
{
    struct stat found;
    return fstat(fd, &found) == 0 && S_ISDIR(found.st_mode);
}

#define NEXT(type, name, ...) \
    static type (*next)(__VA_ARGS__); \
    if (!next) \
        next = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

int fsync(int fd)
{
    NEXT(int, "fsync", int);
    if (fails_fd(is_directory(fd) ? "syncdir" : "fsync", fd, NULL))
        return -1;
    return next(fd);
}

int fdatasync(int fd)
{
    NEXT(int, "fdatasync", int);
    return fails_fd("fdatasync", fd, NULL) ? -1 : next(fd);
}

int flock(int fd, int operation)
{
    NEXT(int, "flock", int, int);
    return fails_fd("flock", fd, NULL) ? -1 : next(fd, operation);
}

static int fcntl_of(const char *name, int fd, int command, void *argument)
{
    int (*next)(int, int, ...) = (int (*)(int, int, ...))dlsym(RTLD_NEXT, name);
    int is_lock = command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK || command == F_OFD_SETLKW;
    if (is_lock && fails_fd("lock", fd, NULL))
        return -1;
    return next(fd, command, argument);
}

int fcntl(int fd, int command, ...)
{
    va_list more;
    va_start(more, command);
    void *argument = va_arg(more, void *);
    va_end(more);
    return fcntl_of("fcntl", fd, command, argument);
}

int fcntl64(int fd, int command, ...)
{
    va_list more;
    va_start(more, command);
    void *argument = va_arg(more, void *);
    va_end(more);
    return fcntl_of("fcntl64", fd, command, argument);
}

ssize_t write(int fd, const void *bytes, size_t length)
{
    NEXT(ssize_t, "write", int, const void *, size_t);
    return fails_fd("write", fd, &length) ? -1 : next(fd, bytes, length);
}

ssize_t writev(int fd, const struct iovec *parts, int number)
{
    NEXT(ssize_t, "writev", int, const struct iovec *, int);
    size_t whole = 0;
    for (int i = 0; i < number; i++)
        whole += parts[i].iov_len;
    size_t length = whole;
    if (fails_fd("write", fd, &length))
        return -1;
    if (length < whole && number > 0) { /* only the first part, as far as it fits */
        size_t first = parts[0].iov_len < length ? parts[0].iov_len : length;
        return write(fd, parts[0].iov_base, first);
    }
    return next(fd, parts, number);
}

static int fails_open(const char *path, int flags)
{
    struct stat found;
    if (fails("open", path, NULL) || ((flags & O_CREAT) && fails("create", path, NULL)))
        return 1;
    for (int i = 0; i < count; i++)
        if (!strcmp(rules[i].call, "opendir") && stat(path, &found) == 0 && S_ISDIR(found.st_mode))
            return fails("opendir", path, NULL);
    return 0;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        NEXT(int, #name, const char *, int, ...); \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = va_arg(more, mode_t); \
        va_end(more); \
        return fails_open(path, flags) ? -1 : next(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int fd, const char *path, int flags, ...) \
    { \
        NEXT(int, #name, int, const char *, int, ...); \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = va_arg(more, mode_t); \
        va_end(more); \
        return fails_open(path, flags) ? -1 : next(fd, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

int rename(const char *from, const char *to)
{
    NEXT(int, "rename", const char *, const char *);
    return fails("rename", from, NULL) || fails("rename", to, NULL) ? -1 : next(from, to);
}

int mkdir(const char *path, mode_t mode)
{
    NEXT(int, "mkdir", const char *, mode_t);
    return fails("mkdir", path, NULL) ? -1 : next(path, mode);
}

int unlink(const char *path)
{
    NEXT(int, "unlink", const char *);
    return fails("unlink", path, NULL) ? -1 : next(path);
}

int link(const char *from, const char *to)
{
    NEXT(int, "link", const char *, const char *);
    return fails("link", to, NULL) ? -1 : next(from, to);
}

int chmod(const char *path, mode_t mode)
{
    NEXT(int, "chmod", const char *, mode_t);
    return fails("chmod", path, NULL) ? -1 : next(path, mode);
}

int ftruncate64(int fd, off64_t length)
{
    NEXT(int, "ftruncate64", int, off64_t);
    return fails_fd("ftruncate", fd, NULL) ? -1 : next(fd, length);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
    NEXT(int, "fallocate64", int, int, off64_t, off64_t);
    return fails_fd("fallocate", fd, NULL) ? -1 : next(fd, mode, offset, length);
}
