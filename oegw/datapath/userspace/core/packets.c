/* Reading packets, and their checksums: flows.py, and the arithmetic of cutting.py and joining.py. */

#include "parts.h"

/* The machine's best for the loops over payload, chosen when the library is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define FOR_MACHINES __attribute__((target_clones("avx2", "default")))
#else
#define FOR_MACHINES
#endif

/* Those of oegw.packet.ip: extension headers that are skipped, protocols with ports. */
enum { HOP_BY_HOP = 0, DCCP = 33, ROUTING = 43, FRAGMENT = 44, DESTINATION_OPTIONS = 60, SCTP = 132, UDP_LITE = 136 };

bool layout_of(const uint8_t *packet, size_t octets, struct layout *layout)
{
    if (octets < IPV4_HEADER)
        return false;
    uint8_t protocol;
    size_t offset, addresses;
    if (packet[0] == 0x45) {
        if (get16(packet + 2) != octets || packet[6] & 0xBF || packet[7])
            return false;
        protocol = packet[9];
        offset = IPV4_HEADER;
        addresses = 8;
        layout->version = 4;
        layout->traffic_class = packet[1];
        memcpy(layout->key + 2, packet + 12, 8);
    } else if (packet[0] >> 4 == 6) {
        if (octets < IPV6_HEADER || (size_t)get16(packet + 4) + IPV6_HEADER != octets)
            return false;
        protocol = packet[6];
        if (protocol == HOP_BY_HOP || protocol == ROUTING || protocol == FRAGMENT || protocol == DESTINATION_OPTIONS)
            return false;
        offset = IPV6_HEADER;
        addresses = 32;
        layout->version = 6;
        layout->traffic_class = (uint8_t)(packet[0] << 4 | packet[1] >> 4);
        memcpy(layout->key + 2, packet + 8, 32);
    } else {
        return false;
    }
    layout->key[0] = layout->version;
    layout->key[1] = layout->protocol = protocol;
    layout->offset = (uint8_t)offset;
    layout->payload = (uint8_t)offset;
    layout->key_octets = (uint8_t)(2 + addresses + 4);
    uint8_t *ports = layout->key + 2 + addresses;
    if (protocol == TCP) {
        if (octets < offset + TCP_HEADER || packet[offset + 13] & SYN)
            return false;
        size_t header = (size_t)(packet[offset + 12] >> 4) * 4;
        if (header < TCP_HEADER || offset + header > octets)
            return false;
        layout->payload = (uint8_t)(offset + header);
    } else if (protocol == UDP) {
        if (octets < offset + UDP_HEADER)
            return false;
        layout->payload = (uint8_t)(offset + UDP_HEADER);
    } else if (protocol == DCCP || protocol == SCTP || protocol == UDP_LITE) {
        if (octets < offset + 4)
            return false;
    } else {
        memset(ports, 0, 4);
        return true;
    }
    memcpy(ports, packet + offset, 4);
    return true;
}

static inline uint64_t sum_of_rest(const uint8_t *octets, size_t count)
{
    uint64_t sum = 0;
    for (; count >= 2; count -= 2, octets += 2) {
        uint16_t word;
        memcpy(&word, octets, 2);
        sum += word;
    }
    if (count) { /* padded with a zero */
        uint8_t last[2] = {*octets, 0};
        uint16_t word;
        memcpy(&word, last, 2);
        sum += word;
    }
    return sum;
}

FOR_MACHINES uint64_t sum_of(const uint8_t *octets, size_t count)
{
    uint64_t sum = 0;
    size_t words = count / 4;
    for (size_t i = 0; i < words; i++) {
        uint32_t word;
        memcpy(&word, octets + 4 * i, 4);
        sum += word;
    }
    return sum + sum_of_rest(octets + 4 * words, count % 4);
}

FOR_MACHINES uint64_t copy_and_sum(uint8_t *restrict to, const uint8_t *restrict from, size_t count)
{
    uint64_t sum = 0;
    size_t words = count / 4;
    for (size_t i = 0; i < words; i++) {
        uint32_t word;
        memcpy(&word, from + 4 * i, 4);
        memcpy(to + 4 * i, &word, 4);
        sum += word;
    }
    memcpy(to + 4 * words, from + 4 * words, count % 4);
    return sum + sum_of_rest(from + 4 * words, count % 4);
}

uint16_t folded(uint64_t sum)
{
    sum = (sum & 0xFFFFFFFF) + (sum >> 32);
    sum = (sum & 0xFFFFFFFF) + (sum >> 32);
    sum = (sum & 0xFFFF) + (sum >> 16);
    sum = (sum & 0xFFFF) + (sum >> 16);
    return (uint16_t)((sum & 0xFFFF) + (sum >> 16));
}

/* RFC 9293 section 3.1, RFC 8200 section 8.1; `upper`: the length of the upper layer. */
uint64_t pseudo_sum(const uint8_t *packet, const struct layout *layout, uint32_t upper)
{
    uint8_t rest[8];
    put32(rest, upper);
    put32(rest + 4, layout->protocol);
    uint64_t sum = sum_of_rest(rest, 8);
    return sum + (layout->version == 4 ? sum_of_rest(packet + 12, 8) : sum_of_rest(packet + 8, 32));
}
