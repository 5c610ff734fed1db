/*
 * Preloaded into a broker: records each of its file system calls below one directory, ends the
 * process before one of them as `kill -9` does, or makes a sync fail.
 *
 * STEPS_BELOW   the directory
 * STEPS_LOG     a line for each step is appended here: the kind of the step, and its relative path
 * STEPS_KILL    the number of the step before which the process ends
 * STEPS_FAIL    a file: while it exists, the sync with the number in it fails, and all later ones
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static atomic_int steps, syncs;

/* `path` relative to the directory; NULL elsewhere, and for the reserve, which holds no data. */
static const char *below(const char *path) {
    const char *root = getenv("STEPS_BELOW");
    size_t len = root ? strlen(root) : 0;
    if (!len || strncmp(path, root, len) || (path[len] && path[len] != '/')) return NULL;
    const char *rest = path[len] ? path + len + 1 : ".";
    const char *name = strrchr(rest, '/');
    return strcmp(name ? name + 1 : rest, "reserve") ? rest : NULL;
}

static void note(const char *what, const char *path) {
    char line[PATH_MAX + 64];
    const char *name = below(path), *log = getenv("STEPS_LOG"), *kill_at = getenv("STEPS_KILL");
    if (!name) return;
    int number = atomic_fetch_add(&steps, 1) + 1;
    if (kill_at && number == atoi(kill_at)) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
    int len = snprintf(line, sizeof line, "%s %s\n", what, name);
    int file = log ? (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND, 0) : -1;
    if (file >= 0) {
        syscall(SYS_write, file, line, len);
        syscall(SYS_close, file);
    }
}

static void note_file(const char *what, int file) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len <= 0) return;
    path[len] = 0;
    note(what, path);
}

/* Whether this sync is to fail. */
static int fails(int file) {
    char link[64], path[PATH_MAX], number[16] = {0};
    const char *when = getenv("STEPS_FAIL");
    int found = when ? (int)syscall(SYS_openat, AT_FDCWD, when, O_RDONLY, 0) : -1;
    if (found < 0) return 0;
    syscall(SYS_read, found, number, sizeof number - 1);
    syscall(SYS_close, found);
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t len = readlink(link, path, sizeof path - 1);
    path[len > 0 ? len : 0] = 0;
    if (!below(path)) return 0;
    if (atomic_fetch_add(&syncs, 1) + 1 < atoi(number)) return 0;
    note("fail", path);
    errno = EIO;
    return 1;
}

#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...) {                                                   \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                    \
        va_end(rest);                                                                              \
        if (flags & O_CREAT && access(path, F_OK)) note("create", path);                           \
        return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);                              \
    }
OPEN(open)
OPEN(open64)

int mkdir(const char *path, mode_t mode) {
    if (access(path, F_OK)) note("mkdir", path);
    return NEXT(mkdir)(path, mode);
}

int rename(const char *from, const char *to) {
    note("rename", to);
    return NEXT(rename)(from, to);
}

int unlink(const char *path) {
    note("unlink", path);
    return NEXT(unlink)(path);
}

int ftruncate64(int file, off64_t length) {
    note_file("truncate", file);
    return NEXT(ftruncate64)(file, length);
}

ssize_t write(int file, const void *bytes, size_t count) {
    note_file("write", file);
    return NEXT(write)(file, bytes, count);
}

int fsync(int file) {
    note_file("sync", file);
    return fails(file) ? -1 : NEXT(fsync)(file);
}

int fdatasync(int file) {
    note_file("sync", file);
    return fails(file) ? -1 : NEXT(fdatasync)(file);
}
