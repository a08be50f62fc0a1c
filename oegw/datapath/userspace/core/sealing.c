/* Outbound: frames of the tunnel device in, runs of ESP packets out.  puresealing.py says the same in
   Python. */

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <unistd.h>

#include "parts.h"

/* What a batch makes at most.  A frame has at most LARGEST_FRAME octets, and is read while there are
   fewer than BATCH_OCTETS; a packet cut from it carries at least SMALLEST_SEGMENT octets, or is the
   frame's last. */
enum {
    READ_OCTETS = OEGW_BATCH_OCTETS + OEGW_LARGEST_FRAME,
    PACKETS_MOST = READ_OCTETS / OEGW_SMALLEST_SEGMENT + 2 * OEGW_BATCH_FRAMES,
    HEADERS_MOST = IPV6_HEADER + 60,   /* that are in each packet again */
    AROUND_MOST = ESP_HEADER + 16 + 15 + 2 + 16, /* IV, padding, trailer, ICV */
    SEALED_OCTETS = (READ_OCTETS + PACKETS_MOST * (HEADERS_MOST + AROUND_MOST)) / 64 * 64 + 64,
    FRAME_PACKETS = OEGW_LARGEST_FRAME / OEGW_SMALLEST_SEGMENT + 1,
    BLOCK_MOST = 16,
    SEQUENCE_MARGIN = 16, /* as esp.py has it: 1/16 of the numbers is left when more are asked for */
};

struct oegw_sealing {
    struct sas sas;
    struct table flows;
    bool offloads;
    uint32_t frame_count, next; /* the next frame to seal, or the one under way */
    bool pending;               /* `first` was taken for it, and its random blocks were asked for */
    uint64_t first;
    struct oegw_made made;
    bool extending;   /* the last run may grow */
    uint64_t end;     /* of the packets made */
    uint8_t *sealed, *read; /* the memory, in this order */
    struct layout last_layout; /* of the last packet whose flow was looked up, and its SA */
    uint32_t last_sa;
    struct oegw_frame frames[OEGW_BATCH_FRAMES];
    struct oegw_run runs[PACKETS_MOST];
    uint8_t random[FRAME_PACKETS * BLOCK_MOST];
    /* The loop's. */
    uint32_t sent; /* runs */
    int said;      /* by seal: what comes when all its runs are sent */
    bool control;  /* somebody else's descriptor was ready */
    bool came;     /* a batch, and nobody thought about how large it is yet */
    uint64_t octets; /* read */
    uint64_t now;
};

/* How a frame is to be cut. */
struct cutting {
    uint32_t headers; /* octets of IP, and of TCP or UDP; 0: it is not cut */
    uint32_t segment;
    uint32_t packets;
    uint32_t octets;  /* of all packets together */
    uint32_t largest;
    bool partial; /* only the pseudo-header's sum stands at `complete_at` */
    uint32_t complete_from, complete_at;
};

EXPORTED uint64_t oegw_sealing_memory(void) { return SEALED_OCTETS + READ_OCTETS; }

EXPORTED oegw_sealing *oegw_sealing_new(int offloads, const struct oegw_gcm *gcm, uint8_t *memory)
{
    oegw_sealing *core = calloc(1, sizeof *core);
    if (!core)
        return NULL;
    core->offloads = offloads != 0;
    core->sealed = memory;
    core->read = memory + SEALED_OCTETS;
    if (!sas_make(&core->sas, gcm, false) || !table_make(&core->flows)) {
        oegw_sealing_free(core);
        return NULL;
    }
    return core;
}

EXPORTED void oegw_sealing_free(oegw_sealing *core)
{
    if (!core)
        return;
    sas_free(&core->sas);
    table_free(&core->flows);
    free(core);
}

EXPORTED uint32_t oegw_sealing_install(oegw_sealing *core, const struct oegw_sa *sa, const struct oegw_sa_now *now)
{
    return sas_install(&core->sas, sa, now);
}

EXPORTED void oegw_sealing_refresh(oegw_sealing *core, uint32_t number, const struct oegw_sa_now *now)
{
    struct sa *sa = sas_find(&core->sas, number);
    if (!sa)
        return;
    sa->now = *now;
    sa->way.until = 0;
}

EXPORTED void oegw_sealing_remove(oegw_sealing *core, uint32_t number)
{
    core->last_sa = 0;
    core->pending = false;
    for (uint32_t i = core->sent; i < core->made.runs; i++)
        if (core->runs[i].sa == number)
            core->runs[i].count = 0; /* the number may be another SA's before the loop goes on */
    sas_remove(&core->sas, number);
}

EXPORTED int oegw_sealing_learn(oegw_sealing *core, const uint8_t *key, uint32_t octets, uint32_t sa)
{
    core->last_sa = 0;
    return sas_find(&core->sas, sa) && table_set(&core->flows, core->sas.serials, key, octets, sa, OEGW_FLOWS);
}

EXPORTED void oegw_sealing_forget(oegw_sealing *core)
{
    core->last_sa = 0;
    table_clear(&core->flows);
}

EXPORTED int oegw_sealing_fill(oegw_sealing *core, int device)
{
    uint64_t end = 0;
    core->frame_count = core->next = core->made.runs = 0;
    core->pending = core->extending = false;
    core->end = 0;
    core->sent = 0;
    core->said = OEGW_DONE;
    core->came = false;
    while (core->frame_count < OEGW_BATCH_FRAMES && end < OEGW_BATCH_OCTETS) {
        ssize_t size = read(device, core->read + end, OEGW_LARGEST_FRAME);
        if (size < 0) {
            if (errno == EINTR)
                continue;
            if (errno == EAGAIN || core->frame_count)
                break; /* an error that stays is said by the next fill */
            return -errno;
        }
        if (!size)
            break;
        struct oegw_frame *frame = &core->frames[core->frame_count++];
        uint32_t header = core->offloads ? VIRTIO_HEADER : 0;
        frame->offset = SEALED_OCTETS + end;
        frame->header = header < (size_t)size ? header : (uint32_t)size;
        frame->packet = (uint32_t)size - frame->header;
        end += (size_t)size;
    }
    core->octets = end;
    return (int)core->frame_count;
}

static uint32_t sa_of(oegw_sealing *core, const struct layout *layout)
{
    struct layout *last = &core->last_layout;
    if (core->last_sa && last->key_octets == layout->key_octets && !memcmp(last->key, layout->key, layout->key_octets))
        return core->last_sa;
    *last = *layout;
    core->last_sa = table_find(&core->flows, core->sas.serials, layout->key, layout->key_octets);
    return core->last_sa;
}

/* Whether the header fits the packet, and how it is cut then. */
static bool cutting_of(const uint8_t *header, uint32_t octets, const struct layout *layout, struct cutting *cutting)
{
    uint16_t field[4]; /* header length, segment size, start and place of the checksum */
    *cutting = (struct cutting){.packets = 1, .octets = octets, .largest = octets};
    if (!header)
        return true;
    memcpy(field, header + 2, sizeof field);
    uint32_t gso = header[1], segment = field[1], start = field[2], place = field[3];
    if (gso == GSO_NONE) {
        if (!(header[0] & NEEDS_CSUM))
            return true;
        cutting->partial = true;
        cutting->complete_from = start;
        cutting->complete_at = start + place;
        /* Not the addresses or ports, which decided its way. */
        return start >= layout->offset && start + place >= layout->offset + 4u && start + place + 2 <= octets;
    }
    if (!(header[0] & NEEDS_CSUM) || segment < OEGW_SMALLEST_SEGMENT || start != layout->offset)
        return false;
    if (layout->protocol == TCP) {
        if ((gso & ~(uint32_t)GSO_ECN) != (layout->version == 4 ? GSO_TCPV4 : GSO_TCPV6) || place != 16)
            return false;
    } else if (layout->protocol != UDP || gso != GSO_UDP_L4 || place != 6) {
        return false;
    }
    uint32_t payload = octets - layout->payload;
    if (!payload)
        return false;
    cutting->headers = layout->payload;
    cutting->segment = segment;
    cutting->packets = (payload + segment - 1) / segment;
    cutting->octets = payload + cutting->packets * cutting->headers;
    cutting->largest = cutting->headers + (payload < segment ? payload : segment);
    return true;
}

/* One packet of a super-packet: headers set anew, and the sums. */
static uint32_t cut(uint8_t *to, const uint8_t *packet, uint32_t octets, const struct layout *layout, const struct cutting *cutting, uint32_t index)
{
    uint32_t headers = cutting->headers, offset = layout->offset, at = headers + index * cutting->segment;
    uint32_t payload = octets - at;
    bool last = payload <= cutting->segment;
    if (!last)
        payload = cutting->segment;
    uint32_t size = headers + payload, upper = size - offset;
    memcpy(to, packet, headers);
    uint64_t sum = copy_and_sum(to + headers, packet + at, payload) + pseudo_sum(packet, layout, upper);
    if (layout->version == 4) {
        put16(to + 2, size);
        put16(to + 4, get16(packet + 4) + index);
        memset(to + 10, 0, 2);
        store_sum(to + 10, sum_of(to, IPV4_HEADER));
    } else {
        put16(to + 4, size - IPV6_HEADER);
    }
    uint8_t *transport = to + offset;
    if (layout->protocol == TCP) {
        put32(transport + 4, get32(packet + offset + 4) + index * cutting->segment);
        if (index)
            transport[13] &= (uint8_t)~CWR;
        if (!last)
            transport[13] &= (uint8_t)~(FIN | PSH);
        memset(transport + 16, 0, 2);
        store_sum(transport + 16, sum + sum_of(transport, headers - offset));
    } else {
        put16(transport + 4, upper);
        memset(transport + 6, 0, 2);
        store_sum(transport + 6, sum + sum_of(transport, UDP_HEADER));
        if (!transport[6] && !transport[7])
            memset(transport + 6, 0xFF, 2); /* RFC 768: 0 says that there is none */
    }
    return size;
}

static void whole(uint8_t *to, const uint8_t *packet, uint32_t octets, const struct cutting *cutting)
{
    memcpy(to, packet, octets);
    if (cutting->partial) {
        uint8_t *check = to + cutting->complete_at;
        store_sum(check, sum_of(packet + cutting->complete_from, octets - cutting->complete_from));
        if (!check[0] && !check[1])
            memset(check, 0xFF, 2); /* as the kernel does, for all protocols */
    }
}

static void add_to_run(oegw_sealing *core, uint32_t number, uint32_t size, uint32_t octets, const struct layout *layout, bool dont_fragment)
{
    struct oegw_run *run = core->made.runs ? &core->runs[core->made.runs - 1] : NULL;
    if (!core->extending || run->sa != number || run->traffic_class != layout->traffic_class
        || run->dont_fragment != dont_fragment || size > run->size || run->count == OEGW_RUN_PACKETS
        || run->length + size > OEGW_RUN_OCTETS) {
        run = &core->runs[core->made.runs++];
        *run = (struct oegw_run){
            .offset = core->end, .size = size, .sa = number, .first = core->next,
            .traffic_class = layout->traffic_class, .dont_fragment = dont_fragment,
        };
    }
    run->length += size;
    run->count++;
    run->octets += octets;
    run->last = core->next;
    core->extending = size == run->size;
    core->end += size;
}

/* OEGW_DONE, or why this frame is not done. */
static int seal_frame(oegw_sealing *core, uint64_t now)
{
    const struct oegw_frame *frame = &core->frames[core->next];
    const uint8_t *header = core->offloads ? core->sealed + frame->offset : NULL;
    const uint8_t *packet = core->sealed + frame->offset + frame->header;
    struct layout layout;
    struct cutting cutting;
    if (!layout_of(packet, frame->packet, &layout) || (header && frame->header < VIRTIO_HEADER))
        return OEGW_CARE;
    uint32_t number = sa_of(core, &layout);
    struct sa *sa = sas_find(&core->sas, number);
    if (!sa || !cutting_of(header, frame->packet, &layout, &cutting) || cutting.largest > sa->now.mtu)
        return OEGW_CARE;
    uint64_t room = cutting.octets + (uint64_t)cutting.packets * AROUND_MOST;
    if (core->end + room > SEALED_OCTETS || core->made.runs + cutting.packets > PACKETS_MOST)
        return OEGW_CARE; /* never: see above */
    if (!core->pending) {
        if (is_expired(sa) || would_exceed(sa, cutting.octets))
            return OEGW_CARE;
        core->first = oegw_take(sa->record, cutting.packets, cutting.octets, sa->last, now);
        if (!core->first)
            return OEGW_CARE;
        if (sa->mac) {
            core->made.wanted = cutting.packets * sa->iv;
            core->pending = true;
            return OEGW_RANDOM;
        }
    }
    core->pending = false;
    bool forbids = layout.version == 6 || packet[6] & 0x40;
    bool dont_fragment = sa->now.dont_fragment[forbids] != 0;
    uint8_t next_header = layout.version == 4 ? IPV4 : IPV6;
    for (uint32_t index = 0; index < cutting.packets; index++) {
        uint8_t *to = core->sealed + core->end, *plain = to + ESP_HEADER + sa->iv;
        uint32_t octets = frame->packet;
        if (cutting.headers)
            octets = cut(plain, packet, frame->packet, &layout, &cutting, index);
        else
            whole(plain, packet, octets, &cutting);
        if (!seal_packet(sa, to, octets, next_header, core->first + index, core->random + (size_t)index * sa->iv))
            return OEGW_BROKEN;
        add_to_run(core, number, (uint32_t)sealed_size(sa, octets), octets, &layout, dont_fragment);
    }
    return OEGW_DONE;
}

EXPORTED int oegw_sealing_seal(oegw_sealing *core, uint64_t now)
{
    if (!core->pending) {
        core->made.runs = 0;
        core->extending = false;
    }
    for (; core->next < core->frame_count; core->next++) {
        int said = seal_frame(core, now);
        if (said == OEGW_DONE)
            continue;
        if (said == OEGW_CARE) {
            core->made.care = core->next++;
        } else if (said == OEGW_BROKEN) {
            core->frame_count = core->made.runs = 0;
        }
        return said;
    }
    return OEGW_DONE;
}

EXPORTED void oegw_sealing_give(oegw_sealing *core, const uint8_t *random)
{
    if (core->pending)
        memcpy(core->random, random, core->made.wanted);
}

EXPORTED const struct oegw_made *oegw_sealing_made(const oegw_sealing *core) { return &core->made; }
EXPORTED const struct oegw_run *oegw_sealing_runs(const oegw_sealing *core) { return core->runs; }

EXPORTED const struct oegw_frame *oegw_sealing_frame(const oegw_sealing *core, uint32_t index)
{
    return index < core->frame_count ? &core->frames[index] : NULL;
}

/* -------------------------------------------------------------------------------------- loop */

EXPORTED void oegw_sealing_way(oegw_sealing *core, uint32_t number, const struct oegw_way *way)
{
    struct sa *sa = sas_find(&core->sas, number);
    if (sa && way->name_octets <= sizeof way->name && way->control_octets <= sizeof way->control)
        sa->way = *way;
}

/* Whether the run needs none of the rules of outbound.py: its SA's path is known, and its soft limits
   are not reached, or were told of. */
static bool may_send(const struct sa *sa, uint64_t now)
{
    if (!sa || now >= sa->way.until)
        return false;
    bool soft = record_get(sa, SEQUENCE) >= sa->last - sa->last / SEQUENCE_MARGIN || record_get(sa, OCTETS) >= sa->now.soft_octets;
    return !soft || is_softened(sa);
}

static bool draw(uint8_t *random, size_t wanted)
{
    for (size_t drawn = 0; drawn < wanted;) {
        ssize_t got = getrandom(random + drawn, wanted - drawn, 0);
        if (got < 0 && errno != EINTR)
            return false;
        if (got > 0)
            drawn += (size_t)got;
    }
    return true;
}

/* As oegw_sealing_seal, which the kernel gives its random octets. */
static int seal_all(oegw_sealing *core)
{
    int said;
    core->sent = 0;
    while ((said = oegw_sealing_seal(core, core->now)) == OEGW_RANDOM)
        if (!draw(core->random, core->made.wanted))
            return OEGW_BROKEN;
    return said;
}

EXPORTED int oegw_sealing_loop(oegw_sealing *core, int polled, int device, const struct oegw_counters *counters, struct oegw_crowd *crowd)
{
    struct outers outers = {.count = 0};
    for (;;) {
        while (core->sent < core->made.runs) {
            struct oegw_run *run = &core->runs[core->sent++];
            if (!run->count)
                continue;
            const struct sa *sa = sas_find(&core->sas, run->sa);
            if (!may_send(sa, core->now) || !send_run(&outers, &sa->way, run, core->sealed + run->offset, counters)) {
                core->made.left = core->sent - 1;
                return OEGW_LEFT;
            }
        }
        int said = core->said;
        core->said = OEGW_DONE;
        if (said != OEGW_DONE)
            return said;
        if (core->next < core->frame_count) {
            core->said = seal_all(core);
            continue;
        }
        if (core->came) { /* behind what they wait for */
            core->came = false;
            if (oegw_crowd_came(crowd, core->frame_count, core->octets, core->now))
                return OEGW_PLACE;
        }
        if (core->control) {
            core->control = false;
            return OEGW_CONTROL;
        }
        struct epoll_event events[READY_AT_ONCE];
        int ready = epoll_wait(polled, events, READY_AT_ONCE, -1);
        if (ready < 0)
            return OEGW_CONTROL; /* a signal: also the caller's */
        bool readable = false;
        for (int i = 0; i < ready; i++)
            *(events[i].data.fd == device ? &readable : &core->control) = true;
        if (!readable)
            continue;
        int got = oegw_sealing_fill(core, device);
        if (got < 0)
            return got;
        core->came = got > 0;
        core->now = monotonic();
    }
}
