/* Load on a WebSocket server from one thread: many connections, masked binary frames of 200 bytes.

       lane_client PORT CONNECTIONS batch SECONDS      100 frames per send(), 4 batches in flight
       lane_client PORT CONNECTIONS lone FRAMES US     one frame per send(), one every US

   The server answers each connection with one short message per 100 frames. Prints "ready" when all
   connections are open and begins at a line on its input; prints the number of frames sent once
   the last answer is there and leaves at the end of its input. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PAYLOAD = 200, FRAME = 8 + PAYLOAD, BATCH = 100, IN_FLIGHT = 4, MOST = 1000, ANSWER = 3 };

static unsigned char batch[BATCH * FRAME];
static struct pollfd peers[MOST];
static long sent_bytes[MOST], answered_bytes[MOST];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static void fill_batch(void) {
    for (int n = 0; n < BATCH; n++) {
        unsigned char *frame = batch + n * FRAME;
        frame[0] = 0x82;
        frame[1] = 0x80 | 126;
        frame[2] = PAYLOAD >> 8;
        frame[3] = PAYLOAD & 255;
        for (int i = 4; i < FRAME; i++) frame[i] = (unsigned char)rand();
    }
}

static int upgrade(int port) {
    static const char request[] =
        "GET /ws HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    char head[4096];
    size_t used = 0;
    int one = 1, peer = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (peer < 0 || connect(peer, (struct sockaddr *)&address, sizeof address)) fail("connect");
    setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (send(peer, request, sizeof request - 1, 0) < 0) fail("send");
    do {
        ssize_t got = recv(peer, head + used, sizeof head - 1 - used, 0);
        if (got <= 0) fail("handshake");
        used += got;
        head[used] = 0;
    } while (!strstr(head, "\r\n\r\n"));
    if (strncmp(head, "HTTP/1.1 101", 12)) {
        fprintf(stderr, "no upgrade: %s", head);
        exit(1);
    }
    fcntl(peer, F_SETFL, O_NONBLOCK);
    return peer;
}

static void take_answers(int n) {
    char answers[4096];
    ssize_t got = recv(peers[n].fd, answers, sizeof answers, 0);
    if (got > 0) answered_bytes[n] += got;
    else if (got == 0 || errno != EAGAIN) fail("recv");
}

/* Whole batches that are sent and not answered. */
static long in_flight(int n) {
    return sent_bytes[n] / (BATCH * FRAME) - answered_bytes[n] / ANSWER;
}

static void send_some(int n) {
    long at = sent_bytes[n] % (BATCH * FRAME);
    ssize_t put = send(peers[n].fd, batch + at, BATCH * FRAME - at, MSG_NOSIGNAL);
    if (put > 0) sent_bytes[n] += put;
    else if (errno != EAGAIN) fail("send");
}

static void send_batches(int connections, double seconds) {
    double end = now() + seconds;
    int busy = 1;
    while (busy) {
        int more = now() < end;
        busy = 0;
        for (int n = 0; n < connections; n++) {
            int inside = sent_bytes[n] % (BATCH * FRAME) != 0;
            int may_send = inside || (more && in_flight(n) < IN_FLIGHT);
            peers[n].events = (may_send ? POLLOUT : 0) | (in_flight(n) ? POLLIN : 0);
            busy |= peers[n].events != 0;
        }
        if (!busy) break;
        if (poll(peers, connections, 5000) <= 0) fail("poll");
        for (int n = 0; n < connections; n++) {
            if (peers[n].revents & POLLIN) take_answers(n);
            if (peers[n].revents & POLLOUT) send_some(n);
        }
    }
}

static void send_lone(int connections, long frames, double spacing) {
    double due = now();
    for (long n = 0; n < frames; n++) {
        int peer = n % connections;
        while (now() < due) continue;
        due += spacing;
        if (now() > due + 100 * spacing) due = now();
        if (send(peers[peer].fd, batch, FRAME, MSG_NOSIGNAL) != FRAME) fail("send");
        sent_bytes[peer] += FRAME;
        if (sent_bytes[peer] % (BATCH * FRAME) == 0) take_answers(peer);
    }
    for (int n = 0; n < connections; n++)
        while (in_flight(n)) {
            peers[n].events = POLLIN;
            if (poll(peers + n, 1, 5000) <= 0) fail("poll");
            take_answers(n);
        }
}

int main(int count, char **words) {
    long total = 0;
    int connections;
    if (count < 5 || (connections = atoi(words[2])) < 1 || connections > MOST) return 2;
    fill_batch();
    for (int n = 0; n < connections; n++) peers[n].fd = upgrade(atoi(words[1]));
    puts("ready");
    fflush(stdout);
    if (getchar() == EOF) return 1;
    if (!strcmp(words[3], "batch")) send_batches(connections, atof(words[4]));
    else if (count == 6) send_lone(connections, atol(words[4]), atof(words[5]) * 1e-6);
    else return 2;
    for (int n = 0; n < connections; n++) total += sent_bytes[n] / FRAME;
    printf("%ld\n", total);
    fflush(stdout);
    while (getchar() != EOF) continue;
    return 0;
}
