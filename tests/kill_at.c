/* Preloaded into the server of commands (`stress.py`): kills a process at its N-th operation on files below a folder.

An operation is the making, opening to write, writing, renaming or removing of a file or folder, from Python or from
another language, in any thread. A write at which the process is killed writes half of what it was given. Without a call
of `kill_at` nothing is counted; processes that are started by the one that called it do not count either. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char inside[PATH_MAX];
static int last, done, log_to = -1;

int kill_at(const char *folder, int number, const char *log_path) {
    log_to = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    last = number;
    done = 0;
    strncpy(inside, folder, sizeof inside - 1);
    return log_to;
}

int operations_done(void) { return done; }

static void stop(void) { kill(getpid(), SIGKILL); pause(); }

/* Count an operation on a path; 1 where the process is to be killed at it. */
static int count(const char *kind, int folder, const char *path) {
    char whole[2 * PATH_MAX] = "", link[64];
    if (!inside[0] || !path) return 0;
    if (path[0] != '/') {
        snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
        ssize_t length = readlink(link, whole, PATH_MAX - 1);
        if (length < 0) return 0;
        whole[length] = 0;
        if (path[0]) strcat(whole, "/");
    }
    strncat(whole, path, PATH_MAX - 1);
    if (strncmp(whole, inside, strlen(inside))) return 0;
    int number = __sync_add_and_fetch(&done, 1);
    dprintf(log_to, "%d %s %s\n", number, kind, whole + strlen(inside));
    return number == last;
}

static int writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY; }

#define REAL(type, name, ...) ((type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = va_arg(rest, mode_t);                                                                            \
        va_end(rest);                                                                                                  \
        if (writes(flags) && count("open", AT_FDCWD, path)) stop();                                                    \
        return REAL(int, name, const char *, int, mode_t)(path, flags, mode);                                          \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                                                   \
    int name(int folder, const char *path, int flags, ...) {                                                           \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = va_arg(rest, mode_t);                                                                            \
        va_end(rest);                                                                                                  \
        if (writes(flags) && count("open", folder, path)) stop();                                                      \
        return REAL(int, name, int, const char *, int, mode_t)(folder, path, flags, mode);                             \
    }
OPENAT(openat)
OPENAT(openat64)

#define PATHS(name, kind, parameters, arguments, folder, path)                                                         \
    int name parameters {                                                                                              \
        if (count(kind, folder, path)) stop();                                                                         \
        return ((int(*) parameters)dlsym(RTLD_NEXT, #name)) arguments;                                                 \
    }
PATHS(mkdir, "mkdir", (const char *p, mode_t m), (p, m), AT_FDCWD, p)
PATHS(mkdirat, "mkdir", (int f, const char *p, mode_t m), (f, p, m), f, p)
PATHS(rmdir, "rmdir", (const char *p), (p), AT_FDCWD, p)
PATHS(unlink, "unlink", (const char *p), (p), AT_FDCWD, p)
PATHS(unlinkat, "unlink", (int f, const char *p, int flags), (f, p, flags), f, p)
PATHS(remove, "unlink", (const char *p), (p), AT_FDCWD, p)
PATHS(rename, "rename", (const char *p, const char *q), (p, q), AT_FDCWD, q)
PATHS(renameat, "rename", (int f, const char *p, int g, const char *q), (f, p, g, q), g, q)

ssize_t write(int file, const void *content, size_t size) {
    ssize_t (*real)(int, const void *, size_t) = REAL(ssize_t, write, int, const void *, size_t);
    if (inside[0] && file > 2 && file != log_to && count("write", file, "")) {
        if (size > 1) real(file, content, size / 2);
        stop();
    }
    return real(file, content, size);
}
