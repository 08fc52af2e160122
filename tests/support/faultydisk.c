/* Preloaded into a program: calls that change files below FAULTY_DIRECTORY fail or hang while a file in FAULTY_CONTROL
 * says so. Named after an error number (30 is EROFS, 122 is EDQUOT): they fail with it. Named "hang": they never return. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int asked(const char *name)
{
    const char *control = getenv("FAULTY_CONTROL");
    char path[4096];
    if (!control) return 0;
    snprintf(path, sizeof path, "%s/%s", control, name);
    return access(path, F_OK) == 0;
}

static int fails(const char *path)
{
    const char *directory = getenv("FAULTY_DIRECTORY");
    int kept = errno;
    if (!directory || strncmp(path, directory, strlen(directory))) return 0;
    while (asked("hang")) usleep(100000);
    for (const char *const *each = (const char *const[]){"30", "122", 0}; *each; each++)
        if (asked(*each)) { errno = atoi(*each); return 1; }
    errno = kept;
    return 0;
}

static int fails_at(int fd)
{
    char link[64], path[4096];
    int kept = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    errno = kept;
    if (size < 0) return 0;
    path[size] = 0;
    return fails(path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t size) { return fails_at(fd) ? -1 : REAL(write)(fd, data, size); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return fails_at(fd) ? -1 : REAL(pwrite)(fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { return fails_at(fd) ? -1 : REAL(pwrite64)(fd, data, size, at); }
int posix_fallocate(int fd, off_t at, off_t size) { return fails_at(fd) ? errno : REAL(posix_fallocate)(fd, at, size); }
int posix_fallocate64(int fd, off64_t at, off64_t size) { return fails_at(fd) ? errno : REAL(posix_fallocate64)(fd, at, size); }
int fallocate64(int fd, int mode, off64_t at, off64_t size) { return fails_at(fd) ? -1 : REAL(fallocate64)(fd, mode, at, size); }
int fsync(int fd) { return fails_at(fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails_at(fd) ? -1 : REAL(fdatasync)(fd); }
int unlink(const char *path) { return asked("30") && fails(path) ? -1 : REAL(unlink)(path); }
int open64(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if ((flags & O_CREAT) && access(path, F_OK) && fails(path)) return -1;
    return REAL(open64)(path, flags, mode);
}
