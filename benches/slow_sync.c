/* Runs a command whose file syncs take longer, as on a disk that is reached over a network.
 *
 * Usage: slow_sync MICROSECONDS COMMAND [ARGUMENT ...]
 *
 * The kernel hands each fsync and fdatasync of the command and its children to a supervisor (seccomp's user notification), which
 * lets it go on after so long. Several are held up at the same time. Other than a preloaded library this sees what a static binary
 * calls. The command keeps the process id that this program was started with. Needs Linux 5.5.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Syncs held up at one time; a caller has one a thread. */
#define HELD_MAX 65536

static void fail(const char *what) {
    perror(what);
    _exit(125);
}

static int64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void send_descriptor(int socket, int descriptor) {
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 0;
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
    if (sendmsg(socket, &message, 0) != 1) fail("slow_sync: sendmsg");
}

static int receive_descriptor(int socket) {
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte;
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (recvmsg(socket, &message, 0) != 1 || !CMSG_FIRSTHDR(&message)) fail("slow_sync: recvmsg");
    int descriptor;
    memcpy(&descriptor, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
    return descriptor;
}

/* From now on the kernel asks about the syncs of this process; returns where. */
static int intercept(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fdatasync, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fsync, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) fail("slow_sync: no_new_privs");
    int listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (listener < 0) fail("slow_sync: seccomp");
    return listener;
}

/* All are held up equally long, so they go on in the order in which they came. */
static void supervise(int listener, int64_t delay_ns) {
    static struct { uint64_t id; int64_t due_ns; } held[HELD_MAX];
    unsigned first = 0, count = 0;
    for (;;) {
        struct timespec wait = {0, 0};
        if (count) {
            int64_t left_ns = held[first].due_ns - now_ns();
            if (left_ns > 0) wait = (struct timespec){left_ns / 1000000000, left_ns % 1000000000};
        }
        struct pollfd event = {listener, POLLIN, 0};
        if (ppoll(&event, 1, count ? &wait : NULL, NULL) < 0 && errno != EINTR) fail("slow_sync: ppoll");
        if (event.revents & (POLLHUP | POLLERR | POLLNVAL)) _exit(0);
        if (event.revents & POLLIN && count < HELD_MAX) {
            struct seccomp_notif asked;
            memset(&asked, 0, sizeof asked);
            if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) == 0) {
                unsigned last = (first + count++) % HELD_MAX;
                held[last].id = asked.id;
                held[last].due_ns = now_ns() + delay_ns;
            }
        }
        while (count && held[first].due_ns <= now_ns()) {
            struct seccomp_notif_resp answer = {held[first].id, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE};
            /* It fails if the thread that asked is gone. */
            ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
            first = (first + 1) % HELD_MAX;
            count--;
        }
    }
}

int main(int count, char **words) {
    char *end;
    long microseconds = count > 2 ? strtol(words[1], &end, 10) : -1;
    if (count < 3 || *end || microseconds < 0) {
        fprintf(stderr, "usage: slow_sync MICROSECONDS COMMAND [ARGUMENT ...]\n");
        return 125;
    }
    int sockets[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets)) fail("slow_sync: socketpair");
    pid_t command = getpid(), supervisor = fork();
    if (supervisor < 0) fail("slow_sync: fork");
    if (supervisor == 0) {
        /* It ends with the command, also if that is killed. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != command) _exit(0);
        close(sockets[0]);
        supervise(receive_descriptor(sockets[1]), microseconds * 1000);
    }
    close(sockets[1]);
    int listener = intercept();
    send_descriptor(sockets[0], listener);
    close(listener);
    close(sockets[0]);
    execvp(words[2], words + 2);
    fail(words[2]);
}
