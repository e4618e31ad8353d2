// Preloaded into a process, it writes down in which order bytes go to files, files are made durable, and transactions
// leave. Built and read by disk_log.py.
//
// DISK_LOG names the file that it appends to, DISK_LOG_UNDER the folder whose files are of interest. A record is its
// kind ('w'rite, 's'ync, 'x' for sent), the lengths of path and data as two native 32-bit numbers, path, data. What
// was written or synced is recorded when that is done, what is sent before it is.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int log_fd = -1;
static const char *under;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("DISK_LOG");
    under = getenv("DISK_LOG_UNDER");
    if (name != NULL && under != NULL) log_fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void record(char kind, const char *path, const struct iovec *parts, int count) {
    struct iovec all[64] = {{&kind, 1}};
    uint32_t lengths[2] = {(uint32_t)strlen(path), 0};
    all[1] = (struct iovec){lengths, sizeof lengths};
    all[2] = (struct iovec){(void *)path, lengths[0]};
    if (count > 61) count = 61;
    for (int i = 0; i < count; i++) {
        all[3 + i] = parts[i];
        lengths[1] += (uint32_t)parts[i].iov_len;
    }
    syscall(SYS_writev, log_fd, all, 3 + count); // one call, so that no other thread's record comes in between
}

// The path of an open file under the folder; NULL for every other.
static const char *of_interest(int fd, char *path, size_t room) {
    if (log_fd < 0) return NULL;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, room - 1);
    if (length <= 0) return NULL;
    path[length] = 0;
    return strncmp(path, under, strlen(under)) == 0 ? path : NULL;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void written(int fd, const void *data, ssize_t done) {
    char room[4096];
    const char *path = done > 0 ? of_interest(fd, room, sizeof room) : NULL;
    if (path != NULL) record('w', path, &(struct iovec){(void *)data, (size_t)done}, 1);
}

static int synced(int fd, int result) {
    char room[4096];
    const char *path = result == 0 ? of_interest(fd, room, sizeof room) : NULL;
    if (path != NULL) record('s', path, NULL, 0);
    return result;
}

static void leaves(const struct iovec *parts, int count) {
    for (int i = 0; i < count && log_fd >= 0; i++)
        if (memmem(parts[i].iov_base, parts[i].iov_len, "sendTransaction", 15) != NULL) {
            record('x', "", parts, count);
            return;
        }
}

ssize_t write(int fd, const void *data, size_t size) {
    ssize_t done = REAL(write)(fd, data, size);
    written(fd, data, done);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    ssize_t done = REAL(pwrite)(fd, data, size, offset);
    written(fd, data, done);
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    ssize_t done = REAL(pwrite64)(fd, data, size, offset);
    written(fd, data, done);
    return done;
}

int fsync(int fd) { return synced(fd, REAL(fsync)(fd)); }

int fdatasync(int fd) { return synced(fd, REAL(fdatasync)(fd)); }

ssize_t send(int fd, const void *data, size_t size, int flags) {
    leaves(&(struct iovec){(void *)data, size}, 1);
    return REAL(send)(fd, data, size, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    leaves(message->msg_iov, (int)message->msg_iovlen);
    return REAL(sendmsg)(fd, message, flags);
}
