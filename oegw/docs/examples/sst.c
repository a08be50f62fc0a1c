/*
 * Asks for port encryption (SST) from C:  cc -o sst sst.c && ./sst [-u] HOST PORT
 *
 * Sends what it reads to HOST by TCP, by UDP with -u, and prints what comes back.  On the gateway
 * itself, or on a host that runs oegw, it asks by the socket option that "oegw sst enable" brings.
 * On any other host behind a gateway it asks by a code point that travels with the packets.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SST 200             /* level IPPROTO_IP, or IPPROTO_IPV6 for AF_INET6; an int, 0 or 1 */
#define SST_REQUEST_DSCP 7  /* as [sst] request_dscp of the gateway */

/* Before connect(), sendto() or listen(). */
static int ask(int sock, int family)
{
    int on = 1;
    int dscp = SST_REQUEST_DSCP << 2;
    int six = family == AF_INET6;

    if (setsockopt(sock, six ? IPPROTO_IPV6 : IPPROTO_IP, SST, &on, sizeof on) == 0)
        return 0;
    if (errno != ENOPROTOOPT && errno != EOPNOTSUPP) /* the latter where Linux routes multicast */
        return -1;
    fprintf(stderr, "no socket option here, asking by code point\n");
    return six ? setsockopt(sock, IPPROTO_IPV6, IPV6_TCLASS, &dscp, sizeof dscp)
               : setsockopt(sock, IPPROTO_IP, IP_TOS, &dscp, sizeof dscp);
}

static int connected(const char *host, const char *port, int type)
{
    struct addrinfo hints = {.ai_socktype = type}, *found, *each;
    int error = getaddrinfo(host, port, &hints, &found), sock = -1;

    if (error) {
        fprintf(stderr, "%s: %s\n", host, gai_strerror(error));
        exit(1);
    }
    for (each = found; each; each = each->ai_next) {
        sock = socket(each->ai_family, each->ai_socktype, each->ai_protocol);
        if (sock < 0)
            continue;
        if (ask(sock, each->ai_family) < 0)
            perror("asking for port encryption");
        else if (connect(sock, each->ai_addr, each->ai_addrlen) < 0)
            perror(host);
        else
            break;
        close(sock);
        sock = -1;
    }
    freeaddrinfo(found);
    return sock;
}

int main(int argc, char **argv)
{
    int udp = argc > 1 && strcmp(argv[1], "-u") == 0;
    char octets[4096];

    if (argc != 3 + udp) {
        fprintf(stderr, "usage: %s [-u] HOST PORT\n", argv[0]);
        return 2;
    }
    int sock = connected(argv[1 + udp], argv[2 + udp], udp ? SOCK_DGRAM : SOCK_STREAM);
    if (sock < 0)
        return 1;
    struct pollfd ends[2] = {{.fd = 0, .events = POLLIN}, {.fd = sock, .events = POLLIN}};
    while (poll(ends, 2, -1) > 0) {
        for (int i = 0; i < 2; i++) {
            if (!ends[i].revents)
                continue;
            ssize_t length = read(ends[i].fd, octets, sizeof octets);
            if (length < 0) {
                perror("read");
                return 1;
            }
            if (length == 0 && i == 1)
                return 0;
            if (length == 0) { /* no more to send: wait for the answer */
                ends[0].fd = -1;
                if (!udp)
                    shutdown(sock, SHUT_WR);
            } else if (write(i ? 1 : sock, octets, (size_t)length) < 0) {
                perror("write");
                return 1;
            } else if (udp && i == 1) {
                return 0; /* one answer */
            }
        }
    }
    return 1;
}
