/* Packets become super-packets: joining.py. */

#ifndef OEGW_JOINING_H
#define OEGW_JOINING_H

#include <sys/uio.h>

#include "parts.h"

struct joined { /* a frame for the device */
    uint32_t first_part, parts; /* of `parts`, without the virtio header */
    uint32_t packets;
    uint8_t header[VIRTIO_HEADER];
};

struct joiner {
    bool offloads, joins_udp;
    struct joined *frames;
    uint32_t frame_count, frame_room;
    struct iovec *parts;
    uint32_t part_count, part_room;
    /* The last frame, while it may grow. */
    bool open, verified;
    struct layout layout;
    uint8_t *first;
    size_t first_octets;
    uint32_t segment, octets; /* of payload per packet, and of the super-packet */
    uint32_t next_sequence;
    uint16_t next_identification;
    uint8_t push;
};

void joiner_free(struct joiner *joiner);
void joiner_clear(struct joiner *joiner);
/* The next packet; its octets stay until `clear`, and `add` may change them.  False if there is no
   memory: then it is lost. */
bool joiner_add(struct joiner *joiner, uint8_t *packet, size_t octets, const struct layout *layout);
bool joiner_append(struct joiner *joiner, const uint8_t *packet, size_t octets);
/* No packet comes any more. */
void joiner_finish(struct joiner *joiner);

#endif
