/* A file system that hangs: while the file $HANG_WHILE is there, whoever asks something about a path below
 * $HANG_BELOW waits. Loaded before the C library (LD_PRELOAD), whose functions it stands in for. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void wait_for(const char *path) {
    const char *below = getenv("HANG_BELOW"), *while_there = getenv("HANG_WHILE");
    if (!path || !below || !while_there || strncmp(path, below, strlen(below)) != 0)
        return;
    while (syscall(SYS_faccessat, AT_FDCWD, while_there, F_OK) == 0) {
        struct timespec pause = {0, 20000000};
        nanosleep(&pause, NULL);
    }
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define LOOK(name, type)                           \
    int name(const char *path, type *found) {      \
        wait_for(path);                            \
        return NEXT(name)(path, found);            \
    }
LOOK(stat, struct stat)
LOOK(lstat, struct stat)
LOOK(stat64, struct stat64)
LOOK(lstat64, struct stat64)

int fstatat(int at, const char *path, struct stat *found, int flags) {
    wait_for(path);
    return NEXT(fstatat)(at, path, found, flags);
}

int fstatat64(int at, const char *path, struct stat64 *found, int flags) {
    wait_for(path);
    return NEXT(fstatat64)(at, path, found, flags);
}

#define OPEN(name)                                 \
    int name(const char *path, int flags, ...) {   \
        va_list more;                              \
        va_start(more, flags);                     \
        mode_t mode = va_arg(more, mode_t);        \
        va_end(more);                              \
        wait_for(path);                            \
        return NEXT(name)(path, flags, mode);      \
    }
OPEN(open)
OPEN(open64)
