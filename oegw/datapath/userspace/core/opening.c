/* Inbound: ESP packets in, frames for the tunnel device out.  pureopening.py says the same in
   Python. */

#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "joining.h"
#include "parts.h"

#ifndef UDP_GRO
#define UDP_GRO 104 /* <linux/udp.h> */
#endif

/* One slot for each datagram of a batch.  What is not used of them is never touched, so it is no
   memory; the odd lines keep them from sharing their place in the caches. */
enum {
    SLOT_OCTETS = 65536,
    SLOT = SLOT_OCTETS + 9 * 64,
    SLOTS_OCTETS = OEGW_BATCH_FRAMES * SLOT,
    CONTROL_OCTETS = 128,
    AT_ONCE = OEGW_BATCH_OCTETS / SLOT_OCTETS, /* so that no batch grows over BATCH_OCTETS by more than one */
};

struct datagram {
    uint8_t *octets;
    uint32_t length;
    uint32_t segment; /* of each ESP packet but the last */
    uint32_t port;
    uint32_t address_octets;
    uint8_t traffic_class;
    bool destined; /* the kernel said where it was sent to */
    uint8_t source[16], destination[16];
};

struct oegw_opening {
    struct sas sas;
    struct table flows, spis;
    struct joiner joiner;
    uint8_t *slots;
    bool encapsulated;
    bool singly; /* recvmmsg was refused */
    uint32_t count, next; /* datagrams; the next one, or the one under way */
    uint32_t at;          /* within it */
    uint64_t lost;        /* packets that there was no memory for */
    struct oegw_care care;
    struct oegw_seen seen;
    uint32_t *moved, *softened; /* numbers of SAs, room for all of them */
    uint32_t listed_room;
    uint8_t last_key[TABLE_KEY_OCTETS]; /* of the last flow that was looked up; 0 octets: none */
    uint32_t last_key_octets;
    bool last_learned;
    uint8_t last_name[21]; /* of the last SA that was looked up */
    uint32_t last_sa;
    struct datagram datagrams[OEGW_BATCH_FRAMES];
    /* The loop's. */
    uint32_t batch;  /* how many there were */
    bool under_way;  /* the last one */
    bool came;       /* and nobody thought about how large it is yet */
    uint64_t octets; /* received */
    uint32_t ready;  /* sockets that are readable, a bit for each */
    bool control;    /* somebody else's descriptor was ready */
    uint64_t now;
};

EXPORTED uint64_t oegw_opening_memory(void) { return SLOTS_OCTETS; }

EXPORTED oegw_opening *oegw_opening_new(int offloads, int joins_udp, const struct oegw_gcm *gcm, uint8_t *memory)
{
    oegw_opening *core = calloc(1, sizeof *core);
    if (!core)
        return NULL;
    core->joiner.offloads = offloads != 0;
    core->joiner.joins_udp = joins_udp != 0;
    core->slots = memory;
    if (!sas_make(&core->sas, gcm, true) || !table_make(&core->flows) || !table_make(&core->spis)) {
        oegw_opening_free(core);
        return NULL;
    }
    return core;
}

EXPORTED void oegw_opening_free(oegw_opening *core)
{
    if (!core)
        return;
    sas_free(&core->sas);
    table_free(&core->flows);
    table_free(&core->spis);
    joiner_free(&core->joiner);
    free(core->moved);
    free(core->softened);
    free(core);
}

/* What an SA is found by: SPI and destination, in the form of a table's key. */
static uint32_t name_of(uint8_t name[21], uint32_t spi, const uint8_t *destination, uint32_t octets)
{
    put32(name, spi);
    name[4] = (uint8_t)octets;
    memcpy(name + 5, destination, octets);
    return 5 + octets;
}

static uint32_t sa_of(oegw_opening *core, const uint8_t *name, uint32_t octets)
{
    if (core->last_sa && !memcmp(core->last_name, name, octets)) /* the length is part of it */
        return core->last_sa;
    memcpy(core->last_name, name, octets);
    core->last_sa = table_find(&core->spis, core->sas.serials, name, octets);
    return core->last_sa;
}

static bool known_address(const struct oegw_sa_now *now)
{
    return now->address_octets == 4 || now->address_octets == 16;
}

/* One place for each SA in the two lists. */
static bool make_lists(oegw_opening *core)
{
    if (core->listed_room >= core->sas.count)
        return true;
    uint32_t room = 2 * core->sas.count;
    uint32_t *moved = realloc(core->moved, room * sizeof *moved);
    if (moved)
        core->moved = moved;
    uint32_t *softened = realloc(core->softened, room * sizeof *softened);
    if (softened)
        core->softened = softened;
    if (!moved || !softened)
        return false;
    core->listed_room = room;
    return true;
}

EXPORTED uint32_t oegw_opening_install(oegw_opening *core, const struct oegw_sa *sa, const struct oegw_sa_now *now)
{
    uint8_t name[21];
    if (!known_address(now))
        return 0;
    uint32_t octets = name_of(name, sa->spi, now->destination, now->address_octets);
    core->last_sa = 0;
    core->last_key_octets = 0;
    if (core->sas.serials && table_find(&core->spis, core->sas.serials, name, octets))
        return 0;
    uint32_t number = sas_install(&core->sas, sa, now);
    if (number && (!make_lists(core) || !table_set(&core->spis, core->sas.serials, name, octets, number, 0))) {
        sas_remove(&core->sas, number);
        return 0;
    }
    return number;
}

EXPORTED void oegw_opening_refresh(oegw_opening *core, uint32_t number, const struct oegw_sa_now *now)
{
    struct sa *sa = sas_find(&core->sas, number);
    if (!sa)
        return;
    /* Its window and its name stay: `remove` and `install` change those. */
    sa->now.soft_octets = now->soft_octets;
    sa->now.hard_octets = now->hard_octets;
    sa->now.encapsulated = now->encapsulated;
    sa->now.peer_port = now->peer_port;
    memcpy(sa->now.peer, now->peer, sizeof sa->now.peer);
}

static void strike(uint32_t *list, uint32_t *count, uint32_t number)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < *count; i++)
        if (list[i] != number)
            list[kept++] = list[i];
    *count = kept;
}

EXPORTED void oegw_opening_remove(oegw_opening *core, uint32_t number)
{
    core->last_sa = 0;
    core->last_key_octets = 0;
    strike(core->moved, &core->seen.moved, number);
    strike(core->softened, &core->seen.softened, number);
    sas_remove(&core->sas, number);
}

/* A flow is learned for one SA: while a peer changes from one to another it may come by both. */
static uint32_t flow_of(uint8_t flow[TABLE_KEY_OCTETS], const uint8_t *key, uint32_t octets, uint32_t sa)
{
    memcpy(flow, key, octets);
    put32(flow + octets, sa);
    return octets + 4;
}

EXPORTED int oegw_opening_learn(oegw_opening *core, const uint8_t *key, uint32_t octets, uint32_t sa)
{
    uint8_t flow[TABLE_KEY_OCTETS];
    core->last_key_octets = 0;
    if (octets > KEY_OCTETS || !sas_find(&core->sas, sa))
        return 0;
    octets = flow_of(flow, key, octets, sa);
    return table_set(&core->flows, core->sas.serials, flow, octets, sa, OEGW_FLOWS);
}

static bool is_learned(oegw_opening *core, const struct layout *layout, uint32_t sa)
{
    uint8_t flow[TABLE_KEY_OCTETS];
    uint32_t octets = flow_of(flow, layout->key, layout->key_octets, sa);
    if (octets != core->last_key_octets || memcmp(flow, core->last_key, octets)) {
        memcpy(core->last_key, flow, octets);
        core->last_key_octets = octets;
        core->last_learned = table_find(&core->flows, core->sas.serials, flow, octets) == sa;
    }
    return core->last_learned;
}

/* --------------------------------------------------------------------------------- receiving */

static void read_control(struct msghdr *message, struct datagram *datagram)
{
    for (struct cmsghdr *item = CMSG_FIRSTHDR(message); item; item = CMSG_NXTHDR(message, item)) {
        const uint8_t *value = CMSG_DATA(item);
        size_t octets = item->cmsg_len - CMSG_LEN(0);
        if (item->cmsg_level == IPPROTO_IP && item->cmsg_type == IP_PKTINFO && octets >= sizeof(struct in_pktinfo)) {
            memcpy(datagram->destination, value + offsetof(struct in_pktinfo, ipi_addr), 4);
            datagram->destined = true;
        } else if (item->cmsg_level == IPPROTO_IP && item->cmsg_type == IP_TOS && octets >= 1) {
            datagram->traffic_class = value[0];
        } else if (item->cmsg_level == IPPROTO_IPV6 && item->cmsg_type == IPV6_PKTINFO && octets >= 16) {
            memcpy(datagram->destination, value, 16);
            datagram->destined = true;
        } else if (item->cmsg_level == IPPROTO_IPV6 && item->cmsg_type == IPV6_TCLASS && octets >= sizeof(int)) {
            int octet;
            memcpy(&octet, value, sizeof octet);
            datagram->traffic_class = (uint8_t)octet;
        } else if (item->cmsg_level == IPPROTO_UDP && item->cmsg_type == UDP_GRO && octets >= sizeof(int)) {
            int segment;
            memcpy(&segment, value, sizeof segment);
            if (segment > 0)
                datagram->segment = (uint32_t)segment;
        }
    }
}

static void read_message(struct mmsghdr *message, int version, bool encapsulated, uint8_t *octets, struct datagram *datagram)
{
    *datagram = (struct datagram){.octets = octets, .length = message->msg_len, .address_octets = version == 4 ? 4 : 16};
    if (version == 4 && !encapsulated) { /* a raw socket shows the IPv4 header */
        uint32_t header = datagram->length ? (octets[0] & 15u) * 4 : 0;
        if (header < IPV4_HEADER || header > datagram->length)
            header = datagram->length;
        if (datagram->length >= IPV4_HEADER) {
            datagram->traffic_class = octets[1];
            memcpy(datagram->source, octets + 12, 4);
            memcpy(datagram->destination, octets + 16, 4);
            datagram->destined = true;
        }
        datagram->octets += header;
        datagram->length -= header;
        datagram->segment = datagram->length;
        return;
    }
    datagram->segment = datagram->length;
    read_control(&message->msg_hdr, datagram);
    const struct sockaddr *from = message->msg_hdr.msg_name;
    if (version == 4 && message->msg_hdr.msg_namelen >= sizeof(struct sockaddr_in)) {
        const struct sockaddr_in *source = (const struct sockaddr_in *)from;
        memcpy(datagram->source, &source->sin_addr, 4);
        datagram->port = encapsulated ? ntohs(source->sin_port) : 0;
    } else if (version == 6 && message->msg_hdr.msg_namelen >= sizeof(struct sockaddr_in6)) {
        const struct sockaddr_in6 *source = (const struct sockaddr_in6 *)from;
        memcpy(datagram->source, &source->sin6_addr, 16);
        datagram->port = encapsulated ? ntohs(source->sin6_port) : 0;
    }
}

/* recvmmsg; message by message where the kernel has none, or what keeps watch over its system calls
   allows none. */
static int receive(oegw_opening *core, int outer, struct mmsghdr *messages, uint32_t wanted)
{
    if (!core->singly) {
        int got = recvmmsg(outer, messages, wanted, MSG_DONTWAIT, NULL);
        if (got >= 0 || (errno != ENOSYS && errno != EPERM))
            return got;
        core->singly = true;
    }
    for (uint32_t i = 0; i < wanted; i++) {
        ssize_t octets = recvmsg(outer, &messages[i].msg_hdr, MSG_DONTWAIT);
        if (octets < 0)
            return i ? (int)i : -1;
        messages[i].msg_len = (unsigned)octets;
    }
    return (int)wanted;
}

EXPORTED int oegw_opening_fill(oegw_opening *core, int outer, int version, int encapsulated)
{
    struct mmsghdr messages[AT_ONCE];
    struct iovec buffers[AT_ONCE];
    struct sockaddr_in6 sources[AT_ONCE];
    _Alignas(struct cmsghdr) uint8_t controls[AT_ONCE][CONTROL_OCTETS];
    uint64_t all = 0;
    core->count = core->next = core->at = 0;
    core->batch++;
    core->encapsulated = encapsulated != 0;
    joiner_clear(&core->joiner);
    while (core->count < OEGW_BATCH_FRAMES && all < OEGW_BATCH_OCTETS) {
        uint32_t wanted = (uint32_t)((OEGW_BATCH_OCTETS - all + SLOT_OCTETS - 1) / SLOT_OCTETS);
        if (wanted > OEGW_BATCH_FRAMES - core->count)
            wanted = OEGW_BATCH_FRAMES - core->count;
        uint8_t *slot = core->slots + (size_t)core->count * SLOT;
        for (uint32_t i = 0; i < wanted; i++) {
            buffers[i] = (struct iovec){slot + (size_t)i * SLOT, SLOT_OCTETS};
            messages[i] = (struct mmsghdr){.msg_hdr = {
                .msg_name = &sources[i], .msg_namelen = sizeof sources[i], .msg_iov = &buffers[i], .msg_iovlen = 1,
                .msg_control = controls[i], .msg_controllen = CONTROL_OCTETS,
            }};
        }
        int got = receive(core, outer, messages, wanted);
        if (got < 0) {
            if (errno == EINTR)
                continue;
            if (errno == EAGAIN || core->count)
                break; /* an error that stays is said by the next fill */
            return -errno;
        }
        for (int i = 0; i < got; i++) {
            all += messages[i].msg_len;
            read_message(&messages[i], version, core->encapsulated, slot + (size_t)i * SLOT, &core->datagrams[core->count++]);
        }
        if ((uint32_t)got < wanted)
            break; /* nothing waits */
    }
    core->octets = all;
    return (int)core->count;
}

/* ----------------------------------------------------------------------------------- opening */

static void unopened(oegw_opening *core, const struct datagram *datagram, const uint8_t *packet, uint32_t octets)
{
    core->care = (struct oegw_care){
        .offset = (uint64_t)(packet - core->slots), .length = octets, .port = datagram->port,
        .address_octets = datagram->address_octets, .destined = datagram->destined,
        .traffic_class = datagram->traffic_class, .encapsulated = core->encapsulated, .batch = core->batch,
    };
    memcpy(core->care.source, datagram->source, 16);
    memcpy(core->care.destination, datagram->destination, 16);
}

/* Whether RFC 6040 (section 4.2, figure 4) leaves the inner ECN field as it is. */
static bool keeps_ecn(uint8_t inner, uint8_t outer)
{
    enum { NOT_ECT, ECT_1, ECT_0, CE };
    inner &= 3, outer &= 3;
    if (inner == CE)
        return true;
    if (outer == CE)
        return false;
    return !(inner == ECT_0 && outer == ECT_1);
}

/* A packet with the low number `low` was authentic.  Only the newest says where its sender is. */
static void note_peer(oegw_opening *core, const struct datagram *datagram, uint32_t number, struct sa *sa, uint32_t low)
{
    if (!core->encapsulated || (uint32_t)record_get(sa, SEQUENCE) != low)
        return;
    if (datagram->port == sa->now.peer_port && !memcmp(datagram->source, sa->now.peer, datagram->address_octets)) {
        if (sa->moved)
            strike(core->moved, &core->seen.moved, number);
        sa->moved = false;
        return;
    }
    if (!sa->moved)
        core->moved[core->seen.moved++] = number;
    sa->moved = true;
    sa->moved_port = datagram->port;
    memcpy(sa->moved_address, datagram->source, 16);
}

static int open_one(oegw_opening *core, const struct datagram *datagram, uint8_t *packet, uint32_t octets, uint64_t now)
{
    uint8_t name[21], *payload, next_header;
    size_t size;
    uint32_t number = 0;
    if (octets >= ESP_HEADER && datagram->destined)
        number = sa_of(core, name, name_of(name, get32(packet), datagram->destination, datagram->address_octets));
    struct sa *sa = sas_find(&core->sas, number);
    if (!sa || (sa->now.encapsulated != 0) != core->encapsulated || is_expired(sa) || would_exceed(sa, octets)) {
        unopened(core, datagram, packet, octets);
        return OEGW_UNOPENED;
    }
    uint32_t low = get32(packet + 4);
    switch (open_packet(sa, packet, octets, &payload, &size, &next_header)) {
    case REPLAYED:
        core->seen.replay++;
        return OEGW_DONE;
    case INVALID:
        core->seen.invalid++;
        return OEGW_DONE;
    case MALFORMED:
        core->seen.invalid++;
        note_peer(core, datagram, number, sa, low);
        return OEGW_DONE;
    case OPENED:
        note_peer(core, datagram, number, sa, low);
    }
    count_received(sa, size, now);
    if (record_get(sa, OCTETS) >= sa->now.soft_octets && !is_softened(sa) && !sa->softened) {
        sa->softened = true; /* whoever tells of it sets the record's flag */
        core->softened[core->seen.softened++] = number;
    }
    struct layout layout;
    bool ordinary = layout_of(payload, size, &layout) && next_header == (layout.version == 4 ? IPV4 : IPV6)
                    && keeps_ecn(layout.traffic_class, datagram->traffic_class) && is_learned(core, &layout, number);
    if (!ordinary) {
        core->care = (struct oegw_care){
            .offset = (uint64_t)(payload - core->slots), .length = (uint32_t)size, .sa = number,
            .next_header = next_header, .traffic_class = datagram->traffic_class, .encapsulated = core->encapsulated, .batch = core->batch,
        };
        return OEGW_UNCHECKED;
    }
    core->seen.packets++;
    core->seen.octets += size;
    if (!joiner_add(&core->joiner, payload, size, &layout))
        core->lost++;
    return OEGW_DONE;
}

EXPORTED int oegw_opening_open(oegw_opening *core, uint64_t now)
{
    while (core->next < core->count) {
        const struct datagram *datagram = &core->datagrams[core->next];
        uint32_t left = datagram->length - core->at;
        uint32_t octets = left < datagram->segment ? left : datagram->segment;
        uint8_t *packet = datagram->octets + core->at;
        core->at += octets;
        if (core->at == datagram->length) {
            core->next++;
            core->at = 0;
        }
        int said = open_one(core, datagram, packet, octets, now);
        if (said != OEGW_DONE)
            return said;
    }
    return OEGW_DONE;
}

EXPORTED const struct oegw_care *oegw_opening_care(const oegw_opening *core) { return &core->care; }

/* -------------------------------------------------------------------------------- delivering */

EXPORTED int oegw_opening_append(oegw_opening *core, const uint8_t *packet, uint32_t octets)
{
    return joiner_append(&core->joiner, packet, octets);
}

EXPORTED uint32_t oegw_opening_deliver(oegw_opening *core, int device)
{
    struct joiner *joiner = &core->joiner;
    struct iovec parts[1 + OEGW_JOINED_PACKETS];
    uint64_t refused = core->lost;
    core->lost = 0;
    joiner_finish(joiner);
    for (uint32_t i = 0; i < joiner->frame_count; i++) {
        struct joined *frame = &joiner->frames[i];
        uint32_t header = joiner->offloads;
        parts[0] = (struct iovec){frame->header, VIRTIO_HEADER};
        memcpy(parts + header, joiner->parts + frame->first_part, frame->parts * sizeof *parts);
        ssize_t written;
        do
            written = writev(device, parts, (int)(frame->parts + header));
        while (written < 0 && errno == EINTR);
        if (written < 0)
            refused += frame->packets;
    }
    joiner_clear(joiner);
    return (uint32_t)refused;
}

EXPORTED struct oegw_seen *oegw_opening_seen(oegw_opening *core) { return &core->seen; }

EXPORTED uint32_t oegw_opening_moved(oegw_opening *core, struct oegw_moved *moved, uint32_t room)
{
    uint32_t said = core->seen.moved < room ? core->seen.moved : room;
    for (uint32_t i = 0; i < said; i++) {
        struct sa *sa = sas_find(&core->sas, core->moved[i]);
        moved[i] = (struct oegw_moved){.sa = core->moved[i], .port = sa->moved_port};
        memcpy(moved[i].address, sa->moved_address, 16);
        sa->moved = false;
    }
    core->seen.moved -= said;
    memmove(core->moved, core->moved + said, core->seen.moved * sizeof *core->moved);
    return said;
}

EXPORTED uint32_t oegw_opening_softened(oegw_opening *core, uint32_t *sas, uint32_t room)
{
    uint32_t said = core->seen.softened < room ? core->seen.softened : room;
    for (uint32_t i = 0; i < said; i++) {
        sas[i] = core->softened[i];
        sas_find(&core->sas, sas[i])->softened = false;
    }
    core->seen.softened -= said;
    memmove(core->softened, core->softened + said, core->seen.softened * sizeof *core->softened);
    return said;
}

/* -------------------------------------------------------------------------------------- loop */

enum { PATIENT = 32 }; /* vainreading.py has it, too */

/* Before anything is delivered: who asks on account of a packet finds it counted. */
static void count_seen(struct oegw_seen *seen, const struct oegw_counters *counters)
{
    count(counters->packets, seen->packets);
    count(counters->octets, seen->octets);
    count(counters->replay, seen->replay);
    count(counters->invalid, seen->invalid);
    seen->packets = seen->octets = seen->replay = seen->invalid = 0;
}

EXPORTED int oegw_opening_loop(oegw_opening *core, int polled, int device, const struct oegw_outer *outer, uint32_t outers, const struct oegw_counters *counters, struct oegw_crowd *crowd)
{
    if (outers > OEGW_OUTER)
        return -EINVAL;
    for (;;) {
        if (core->under_way) {
            int said = oegw_opening_open(core, core->now);
            if (said != OEGW_DONE)
                return said;
            core->under_way = false;
            count_seen(&core->seen, counters);
            count(counters->lost, oegw_opening_deliver(core, device));
            if (core->seen.moved || core->seen.softened)
                return OEGW_SEEN;
        }
        if (core->came) { /* behind what they wait for */
            core->came = false;
            if (oegw_crowd_came(crowd, core->count, core->octets, core->now))
                return OEGW_PLACE;
        }
        if (core->ready) {
            const struct oegw_outer *next = &outer[__builtin_ctz(core->ready)];
            core->ready &= core->ready - 1;
            int got = oegw_opening_fill(core, next->descriptor, (int)next->version, (int)next->encapsulated);
            core->seen.vain = got < 0 ? core->seen.vain + 1 : 0;
            core->under_way = core->came = got > 0;
            core->now = monotonic();
            if (got < 0) {
                count(counters->socket, 1); /* an ICMP error of something that we sent */
                if (core->seen.vain > PATIENT)
                    return got;
            }
            continue;
        }
        if (core->control) {
            core->control = false;
            return OEGW_CONTROL;
        }
        struct epoll_event events[READY_AT_ONCE];
        int ready = epoll_wait(polled, events, READY_AT_ONCE, -1);
        if (ready < 0)
            return OEGW_CONTROL; /* a signal: also the caller's */
        for (int i = 0; i < ready; i++) {
            uint32_t which = 0;
            while (which < outers && outer[which].descriptor != events[i].data.fd)
                which++;
            if (which < outers)
                core->ready |= 1u << which;
            else
                core->control = true;
        }
    }
}
