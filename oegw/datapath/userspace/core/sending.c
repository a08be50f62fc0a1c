/* Outbound: runs of packets go out, by as few system calls as the kernel has.  outside.py and
   sending.py say the same in Python, and do what fails here. */

#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>

#include "parts.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103 /* <linux/udp.h> */
#endif

uint64_t monotonic(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* What is known of the socket; NULL: there are too many. */
static struct outer *outer_of(struct outers *outers, int descriptor)
{
    for (uint32_t i = 0; i < outers->count; i++)
        if (outers->of[i].descriptor == descriptor)
            return &outers->of[i];
    if (outers->count == OEGW_OUTER)
        return NULL;
    struct outer *outer = &outers->of[outers->count++];
    *outer = (struct outer){descriptor, -1, -1, -1};
    return outer;
}

static bool set(int descriptor, int level, int option, int value, int *known)
{
    if (*known == value)
        return true;
    *known = -1;
    int said = option == SO_NO_CHECK && level == SOL_SOCKET ? !value : value;
    if (setsockopt(descriptor, level, option, &said, sizeof said) < 0)
        return false;
    *known = value;
    return true;
}

/* Most packets have the options of the one before: no system call for them. */
static bool prepare(struct outer *outer, const struct oegw_way *way, const struct oegw_run *run, bool segmented)
{
    bool version_4 = way->version == 4;
    int level = version_4 ? IPPROTO_IP : IPPROTO_IPV6, descriptor = outer->descriptor;
    int discover = run->dont_fragment ? IP_PMTUDISC_DO : IP_PMTUDISC_DONT;
    return set(descriptor, level, version_4 ? IP_TOS : IPV6_TCLASS, run->traffic_class, &outer->traffic_class)
           && set(descriptor, level, version_4 ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER, discover, &outer->dont_fragment)
           /* RFC 3948 section 2.1; but the kernel segments nothing that has no checksum. */
           && (!version_4 || !way->encapsulated || set(descriptor, SOL_SOCKET, SO_NO_CHECK, segmented, &outer->summed));
}

static struct msghdr message_of(const struct oegw_way *way, struct iovec *part)
{
    return (struct msghdr){
        .msg_name = (void *)way->name, .msg_namelen = way->name_octets, .msg_iov = part, .msg_iovlen = 1,
        .msg_control = (void *)way->control, .msg_controllen = way->control_octets,
    };
}

/* One datagram, or what the kernel makes many of.  0, or an errno. */
static int send_whole(const struct oegw_way *way, const struct oegw_run *run, const uint8_t *packets, bool segmented)
{
    _Alignas(struct cmsghdr) uint8_t control[sizeof way->control + CMSG_SPACE(sizeof(uint16_t))] = {0};
    struct iovec part = {(void *)packets, run->length};
    struct msghdr message = message_of(way, &part);
    if (segmented) {
        uint16_t size = (uint16_t)run->size;
        struct cmsghdr item = {.cmsg_len = CMSG_LEN(sizeof size), .cmsg_level = IPPROTO_UDP, .cmsg_type = UDP_SEGMENT};
        memcpy(control, way->control, way->control_octets);
        memcpy(control + way->control_octets, &item, sizeof item);
        memcpy(control + way->control_octets + CMSG_LEN(0), &size, sizeof size);
        message.msg_control = control;
        message.msg_controllen = way->control_octets + CMSG_SPACE(sizeof size);
    }
    ssize_t sent;
    do
        sent = sendmsg(way->descriptor, &message, 0);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? errno : 0;
}

/* Each packet by itself.  0, or the errno of the first that did not go. */
static int send_each(const struct oegw_way *way, const struct oegw_run *run, const uint8_t *packets, uint32_t *sent)
{
    struct mmsghdr messages[OEGW_RUN_PACKETS];
    struct iovec parts[OEGW_RUN_PACKETS];
    for (uint32_t i = 0; i < run->count; i++) {
        uint32_t at = i * run->size, left = run->length - at;
        parts[i] = (struct iovec){(void *)(packets + at), left < run->size ? left : run->size};
        messages[i] = (struct mmsghdr){.msg_hdr = message_of(way, &parts[i])};
    }
    for (*sent = 0; *sent < run->count;) {
        int more = sendmmsg(way->descriptor, messages + *sent, run->count - *sent, 0);
        if (more > 0)
            *sent += (uint32_t)more;
        else if (more == 0 || errno != EINTR)
            return more ? errno : EIO;
    }
    return 0;
}

bool send_run(struct outers *outers, const struct oegw_way *way, struct oegw_run *run, const uint8_t *packets, const struct oegw_counters *counters)
{
    struct outer *outer = outer_of(outers, way->descriptor);
    bool single = run->count == 1, segmented = !single && way->segments;
    uint32_t sent = 0;
    int error;
    if (!outer || !prepare(outer, way, run, segmented))
        return false;
    count(counters->packets, run->count); /* before anybody can see them */
    count(counters->octets, run->octets);
    if (single || segmented) {
        error = send_whole(way, run, packets, segmented);
        sent = error ? 0 : run->count;
    } else {
        error = send_each(way, run, packets, &sent);
    }
    if (error == EAGAIN || error == ENOBUFS) { /* the queue is full; raw sockets say the latter */
        count(counters->lost, run->count - sent);
    } else if (error) {
        count(counters->packets, -(uint64_t)(run->count - sent));
        if (!sent)
            count(counters->octets, -run->octets);
        else
            run->octets = 0; /* they are counted with the packets that went */
        run->offset += (uint64_t)sent * run->size;
        run->length -= sent * run->size;
        run->count -= sent;
        return false;
    }
    return true;
}
