/* Packets become super-packets (GRO): joining.py says the same in Python. */

#include <stdlib.h>

#include "joining.h"

enum { PARTS_MOST = OEGW_JOINED_PACKETS, IP_LARGEST = 65535 };

void joiner_free(struct joiner *joiner)
{
    free(joiner->frames);
    free(joiner->parts);
}

void joiner_clear(struct joiner *joiner)
{
    joiner->frame_count = joiner->part_count = 0;
    joiner->open = false;
}

static bool grown(void **array, uint32_t *room, uint32_t count, size_t size)
{
    if (count < *room)
        return true;
    uint32_t wanted = *room ? 2 * *room : 256;
    void *larger = realloc(*array, wanted * size);
    if (!larger)
        return false;
    *array = larger;
    *room = wanted;
    return true;
}

static bool add_part(struct joiner *joiner, const uint8_t *octets, size_t count)
{
    if (!grown((void **)&joiner->parts, &joiner->part_room, joiner->part_count, sizeof *joiner->parts))
        return false;
    joiner->parts[joiner->part_count++] = (struct iovec){(void *)octets, count};
    return true;
}

static bool add_frame(struct joiner *joiner, const uint8_t *packet, size_t octets)
{
    if (!grown((void **)&joiner->frames, &joiner->frame_room, joiner->frame_count, sizeof *joiner->frames)
        || !add_part(joiner, packet, octets))
        return false;
    joiner->frames[joiner->frame_count++] = (struct joined){.first_part = joiner->part_count - 1, .parts = 1, .packets = 1};
    return true;
}

/* The super-packet gets the headers of one: what the kernel makes when it receives such packets. */
static void close_frame(struct joiner *joiner)
{
    if (!joiner->open)
        return;
    joiner->open = false;
    struct joined *frame = &joiner->frames[joiner->frame_count - 1];
    if (frame->packets < 2)
        return;
    const struct layout *layout = &joiner->layout;
    uint8_t *packet = joiner->first, *transport = packet + layout->offset;
    uint32_t upper = joiner->octets - layout->offset;
    bool tcp = layout->protocol == TCP;
    if (layout->version == 4) {
        put16(packet + 2, joiner->octets);
        memset(packet + 10, 0, 2);
        store_sum(packet + 10, sum_of(packet, IPV4_HEADER));
    } else {
        put16(packet + 4, joiner->octets - IPV6_HEADER);
    }
    if (tcp)
        transport[13] |= joiner->push;
    else
        put16(transport + 4, upper);
    uint16_t partial = folded(pseudo_sum(packet, layout, upper));
    uint16_t place = tcp ? 16 : 6;
    memcpy(transport + place, &partial, 2);
    uint16_t fields[4] = {layout->payload, (uint16_t)joiner->segment, layout->offset, place};
    frame->header[0] = NEEDS_CSUM;
    frame->header[1] = !tcp ? GSO_UDP_L4 : layout->version == 4 ? GSO_TCPV4 : GSO_TCPV6;
    memcpy(frame->header + 2, fields, sizeof fields);
}

/* Whether packets like this one are joined at all. */
static bool is_joined(const struct joiner *joiner, const uint8_t *packet, size_t octets, const struct layout *layout)
{
    if (!joiner->offloads || octets == layout->payload)
        return false;
    const uint8_t *transport = packet + layout->offset;
    if (layout->protocol == TCP)
        return (transport[13] & ~(PSH | ECE)) == ACK;
    return layout->protocol == UDP && joiner->joins_udp && (transport[6] || transport[7])
           && get16(transport + 4) == octets - layout->offset;
}

/* Whether all checksums are right: the joined packet's are made anew. */
static bool is_right(const uint8_t *packet, size_t octets, const struct layout *layout)
{
    if (layout->version == 4 && folded(sum_of(packet, IPV4_HEADER)) != 0xFFFF)
        return false;
    uint32_t upper = (uint32_t)octets - layout->offset;
    return folded(sum_of(packet + layout->offset, upper) + pseudo_sum(packet, layout, upper)) == 0xFFFF;
}

static bool same(const uint8_t *one, const uint8_t *other, size_t from, size_t to)
{
    return !memcmp(one + from, other + from, to - from);
}

/* Whether it is exactly the next one of the frame that may grow. */
static bool is_next(struct joiner *joiner, const uint8_t *packet, size_t octets, const struct layout *layout)
{
    const struct layout *before = &joiner->layout;
    const uint8_t *first = joiner->first;
    size_t payload = octets - layout->payload, offset = layout->offset;
    if (layout->version != before->version || layout->protocol != before->protocol || layout->payload != before->payload
        || payload > joiner->segment || joiner->octets + payload > IP_LARGEST)
        return false;
    if (layout->version == 4) {
        uint16_t identification = get16(packet + 4);
        bool fixed = packet[6] & 0x40 && identification == (uint16_t)(joiner->next_identification - 1);
        if (!same(packet, first, 0, 2) || !same(packet, first, 6, 10) || !same(packet, first, 12, 24)
            || (identification != joiner->next_identification && !fixed))
            return false;
    } else if (!same(packet, first, 0, 4) || !same(packet, first, 6, 44)) {
        return false;
    }
    if (layout->protocol == UDP)
        return true;
    const uint8_t *transport = packet + offset, *there = first + offset;
    return get32(transport + 4) == joiner->next_sequence && same(transport, there, 8, 13)
           && !((transport[13] ^ there[13]) & ~PSH) && same(transport, there, 14, 16)
           && same(transport, there, 18, layout->payload - offset);
}

bool joiner_add(struct joiner *joiner, uint8_t *packet, size_t octets, const struct layout *layout)
{
    if (!is_joined(joiner, packet, octets, layout))
        return joiner_append(joiner, packet, octets);
    uint32_t payload = (uint32_t)(octets - layout->payload);
    bool tcp = layout->protocol == TCP;
    if (joiner->open && is_next(joiner, packet, octets, layout)) {
        /* Checked where it matters only: what stays alone goes on as it is. */
        if (!joiner->verified && !is_right(joiner->first, joiner->first_octets, &joiner->layout)) {
            joiner->open = false;
        } else if (!is_right(packet, octets, layout)) {
            return joiner_append(joiner, packet, octets);
        } else {
            struct joined *frame = &joiner->frames[joiner->frame_count - 1];
            joiner->verified = true;
            if (!add_part(joiner, packet + layout->payload, payload))
                return false;
            frame->parts++;
            frame->packets++;
            joiner->octets += payload;
            joiner->next_sequence += payload;
            joiner->next_identification = (uint16_t)(get16(packet + 4) + 1);
            joiner->push = tcp ? packet[layout->offset + 13] & PSH : 0;
            if (joiner->push || payload < joiner->segment || frame->packets == PARTS_MOST)
                close_frame(joiner);
            return true;
        }
    }
    close_frame(joiner);
    if (!add_frame(joiner, packet, octets))
        return false;
    if (tcp && packet[layout->offset + 13] & PSH)
        return true;
    joiner->open = true;
    joiner->verified = false;
    joiner->layout = *layout;
    joiner->first = packet;
    joiner->first_octets = octets;
    joiner->segment = payload;
    joiner->octets = (uint32_t)octets;
    joiner->push = 0;
    joiner->next_identification = (uint16_t)(get16(packet + 4) + 1);
    joiner->next_sequence = tcp ? get32(packet + layout->offset + 4) + payload : 0;
    return true;
}

bool joiner_append(struct joiner *joiner, const uint8_t *packet, size_t octets)
{
    close_frame(joiner);
    return add_frame(joiner, packet, octets);
}

void joiner_finish(struct joiner *joiner)
{
    close_frame(joiner);
}
