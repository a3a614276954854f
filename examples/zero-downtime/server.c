/* A static server that takes its socket by LISTEN_FDS (sd_listen_fds(3)), without a library:
 *
 *   cc -static -o server examples/zero-downtime/server.c
 *   GUARD_LISTEN=8080 guard -- ./server
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FIRST = 3 };

static const char answer[] = "HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";

int main(void) {
    const char *count = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
    if (!count || atoi(count) < 1 || !pid || atoi(pid) != getpid()) {
        fprintf(stderr, "server: nobody has handed a socket to it\n");
        return 1;
    }
    for (;;) {
        char request[4096];
        size_t length = 0;
        ssize_t more;
        int client = accept(FIRST, NULL, NULL);
        if (client < 0) continue;
        while (length < sizeof request - 1 && (more = read(client, request + length, sizeof request - 1 - length)) > 0) {
            request[length += (size_t)more] = 0;
            if (strstr(request, "\r\n\r\n")) break;
        }
        if (write(client, answer, sizeof answer - 1) < 0) perror("server");
        close(client);
    }
}
