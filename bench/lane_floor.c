/* The least that a server can spend on the load of lane_client: wait, read, now and then answer.

   Serves /ws and /spent like bench/lane_server.py, but looks at no frame: a message is 208 bytes.
   Prints its port. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FRAME = 208, BATCH = 100 * FRAME, MOST = 4096 };

static const char switching[] = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
static long bytes_of[MOST], bytes, open_count, reads;
static char upgraded[MOST], data[262144];

static void answer_request(int peer, ssize_t got) {
    char body[100], answer[300];
    struct timespec spent;
    if (got > 7 && !memcmp(data, "GET /ws", 7)) {
        upgraded[peer] = 1;
        open_count++;
        send(peer, switching, sizeof switching - 1, MSG_NOSIGNAL);
        return;
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
    int size = snprintf(body, sizeof body, "%lld %ld %ld %ld 0",
                        spent.tv_sec * 1000000000LL + spent.tv_nsec, bytes / FRAME, reads,
                        open_count);
    size = snprintf(answer, sizeof answer,
                    "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", size,
                    body);
    send(peer, answer, size, MSG_NOSIGNAL);
}

static void take(int peer) {
    ssize_t got = read(peer, data, sizeof data);
    reads++;
    if (got <= 0) {
        open_count -= upgraded[peer];
        upgraded[peer] = 0;
        close(peer);
    } else if (!upgraded[peer]) {
        answer_request(peer, got);
    } else {
        long before = bytes_of[peer] / BATCH;
        bytes += got;
        bytes_of[peer] += got;
        for (; before < bytes_of[peer] / BATCH; before++)
            send(peer, "\x81\x01k", 3, MSG_NOSIGNAL);
    }
}

int main(void) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    static struct epoll_event ready[1024];
    int listener = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0), one = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 1024)) return 1;
    getsockname(listener, (struct sockaddr *)&address, &size);
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(poll, ready, 1024, -1);
        for (int i = 0; i < count; i++) {
            if (ready[i].data.fd != listener) {
                take(ready[i].data.fd);
                continue;
            }
            int peer = accept(listener, 0, 0);
            if (peer < 0 || peer >= MOST) return 1;
            setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            event.data.fd = peer;
            bytes_of[peer] = 0;
            epoll_ctl(poll, EPOLL_CTL_ADD, peer, &event);
        }
    }
}
