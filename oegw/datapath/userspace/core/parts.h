/* What the C files know of each other.  Names in it are the library's own: it exports core.h alone. */

#ifndef OEGW_PARTS_H
#define OEGW_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <openssl/evp.h>

#include "core.h"

#define EXPORTED __attribute__((visibility("default")))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Specification values: IANA protocol numbers, header sizes, TCP's flags (RFC 9293). */
enum { TCP = 6, UDP = 17, IPV4 = 4, IPV6 = 41 };
enum { IPV4_HEADER = 20, IPV6_HEADER = 40, TCP_HEADER = 20, UDP_HEADER = 8, ESP_HEADER = 8 };
enum { FIN = 0x01, SYN = 0x02, RST = 0x04, PSH = 0x08, ACK = 0x10, URG = 0x20, ECE = 0x40, CWR = 0x80 };

/* <linux/virtio_net.h>, virtio 1.2 section 5.1.6. */
enum { VIRTIO_HEADER = 10, NEEDS_CSUM = 1, GSO_NONE = 0, GSO_TCPV4 = 1, GSO_TCPV6 = 4, GSO_UDP_L4 = 5, GSO_ECN = 0x80 };

static inline uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static inline uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline void put16(uint8_t *p, uint32_t value) { p[0] = (uint8_t)(value >> 8); p[1] = (uint8_t)value; }
static inline void put32(uint8_t *p, uint32_t value) { put16(p, value >> 16); put16(p + 2, value); }

/* packets.c: reading packets, and their checksums.  A sum is of 16-bit words in the machine's order,
   not folded; `store_sum` folds it, complements it and writes it. */

#define KEY_OCTETS 38
#define TABLE_KEY_OCTETS 42 /* a flow's, and an SA's number */

struct layout { /* of an ordinary packet */
    uint8_t key[KEY_OCTETS];
    uint8_t key_octets;
    uint8_t version;
    uint8_t protocol;
    uint8_t offset;  /* of the upper layer */
    uint8_t payload; /* of TCP and UDP: behind their header */
    uint8_t traffic_class;
};

bool layout_of(const uint8_t *packet, size_t octets, struct layout *layout); /* flows.key_of */
uint64_t sum_of(const uint8_t *octets, size_t count);
uint64_t copy_and_sum(uint8_t *to, const uint8_t *from, size_t count);
uint64_t pseudo_sum(const uint8_t *packet, const struct layout *layout, uint32_t upper);
uint16_t folded(uint64_t sum);
static inline void store_sum(uint8_t *at, uint64_t sum)
{
    uint16_t value = (uint16_t)~folded(sum);
    memcpy(at, &value, 2);
}

/* tables.c: from flows, and from SPIs, to SAs.  The hash has a seed of its own, so that nobody
   outside can choose flows that collide. */

struct entry {
    uint32_t sa;         /* 0: never used */
    uint32_t serial;     /* of the SA, when the entry was made */
    uint32_t generation; /* of the table, likewise */
    uint8_t octets;
    uint8_t key[TABLE_KEY_OCTETS];
};

struct table {
    struct entry *entries;
    uint32_t mask;     /* their number less one, which is a power of two */
    uint32_t occupied; /* dead ones too */
    uint32_t generation;
    uint64_t seed[2];
};

/* `serials[sa]`: the installation that has this number now. */
bool table_make(struct table *table);
void table_free(struct table *table);
void table_clear(struct table *table);
uint32_t table_find(const struct table *table, const uint32_t *serials, const uint8_t *key, uint32_t octets);
bool table_set(struct table *table, const uint32_t *serials, const uint8_t *key, uint32_t octets, uint32_t sa, uint32_t limit);

/* gcm.c: AES-GCM by `by`; `size`: 0, 1 or 2 for keys of 16, 24 or 32 octets. */

enum { GCM_SALT = 4, GCM_IV = 8, GCM_NONCE = GCM_SALT + GCM_IV, GCM_ICV = 16 }; /* RFC 4106 */

uint8_t *gcm_expand(const struct oegw_gcm *by, const uint8_t *key, uint32_t octets); /* NULL: no memory */
void gcm_free(const struct oegw_gcm *by, uint8_t *expanded);
/* In place.  If it is not authentic, the text is gone. */
void gcm_encrypt(const struct oegw_gcm *by, uint32_t size, const uint8_t *expanded, const uint8_t *nonce, const uint8_t *added, size_t added_octets, uint8_t *text, size_t octets, uint8_t *icv);
bool gcm_decrypt(const struct oegw_gcm *by, uint32_t size, const uint8_t *expanded, const uint8_t *nonce, const uint8_t *added, size_t added_octets, uint8_t *text, size_t octets, const uint8_t *icv);

/* esp.c: SAs, their records and what their algorithms do. */

struct algorithms {
    EVP_CIPHER *gcm[3], *cbc[3], *des;
    EVP_MAC *hmac;
    bool other; /* GCM is done by `by` */
    struct oegw_gcm by;
};

struct sa {
    uint8_t *record;
    EVP_CIPHER_CTX *cipher;
    EVP_MAC_CTX *mac; /* NULL: GCM */
    uint8_t *expanded; /* GCM by another library than libcrypto, and there is no `cipher` */
    const struct oegw_gcm *by;
    uint64_t last;    /* the greatest sequence number */
    uint32_t spi;
    uint32_t ring; /* bits */
    uint8_t salt[4];
    uint8_t extended, block, iv, icv;
    uint8_t key_size; /* with `expanded`: 0, 1 or 2 */
    struct oegw_sa_now now;
    bool moved, softened; /* stands in the list of those, at its number */
    uint32_t moved_port;
    uint8_t moved_address[16];
    struct oegw_way way; /* outbound */
};

struct sas {
    struct algorithms algorithms;
    struct sa **of; /* by number, from 1 on */
    uint32_t *serials; /* of each installation another, by number; 0: none has it */
    uint32_t count; /* numbers given out are below it */
    uint32_t room;
    uint32_t *unused; /* numbers given back */
    uint32_t unused_count;
    uint32_t serial;
    bool inbound;
};

bool sas_make(struct sas *sas, const struct oegw_gcm *gcm, bool inbound);
void sas_free(struct sas *sas);
uint32_t sas_install(struct sas *sas, const struct oegw_sa *sa, const struct oegw_sa_now *now);
void sas_remove(struct sas *sas, uint32_t number);
static inline struct sa *sas_find(const struct sas *sas, uint32_t number)
{
    return number && number < sas->count ? sas->of[number] : NULL; /* before the first SA `of` is NULL */
}

/* The record: record.py. */
enum { SEQUENCE = 0, PACKETS = 8, OCTETS = 16, LAST_USED = 24, SOFTENED = 32, EXPIRED = 33, RING_SIZE = 36, RING = 64 };

static inline uint64_t record_get(const struct sa *sa, size_t field)
{
    return __atomic_load_n((const uint64_t *)(sa->record + field), __ATOMIC_RELAXED);
}
static inline bool is_expired(const struct sa *sa)
{
    return __atomic_load_n(sa->record + EXPIRED, __ATOMIC_RELAXED) != 0;
}
static inline bool is_softened(const struct sa *sa)
{
    return __atomic_load_n(sa->record + SOFTENED, __ATOMIC_RELAXED) != 0;
}
static inline bool would_exceed(const struct sa *sa, uint64_t octets)
{
    uint64_t hard = sa->now.hard_octets;
    return hard != UINT64_MAX && (octets > hard || record_get(sa, OCTETS) > hard - octets);
}
void count_received(struct sa *sa, uint64_t octets, uint64_t now);

static inline size_t padding_of(const struct sa *sa, size_t octets) { return -(octets + 2) & (sa->block - 1u); }
static inline size_t sealed_size(const struct sa *sa, size_t octets)
{
    return ESP_HEADER + sa->iv + octets + padding_of(sa, octets) + 2 + sa->icv;
}

/* Seal what stands at packet + ESP_HEADER + iv, whose header, padding and trailer are not there yet;
   `random`: a block with CBC.  Returns false if libcrypto fails. */
bool seal_packet(struct sa *sa, uint8_t *packet, size_t octets, uint8_t next_header, uint64_t sequence, const uint8_t *random);

enum opened { OPENED, REPLAYED, INVALID, MALFORMED };
/* Open a packet in its place; the window moves once it is authentic, even if its padding is malformed. */
enum opened open_packet(struct sa *sa, uint8_t *packet, size_t octets, uint8_t **payload, size_t *payload_octets, uint8_t *next_header);

/* sending.c: runs, and what the loops share. */

struct outer { /* the options of a socket, as far as they are known: else -1 */
    int descriptor, traffic_class, dont_fragment, summed;
};

struct outers {
    struct outer of[OEGW_OUTER];
    uint32_t count;
};

/* Send it, and count it.  False: what is left of the run, and not counted, is the caller's to send. */
bool send_run(struct outers *outers, const struct oegw_way *way, struct oegw_run *run, const uint8_t *packets, const struct oegw_counters *counters);

static inline void count(uint64_t *counter, uint64_t more)
{
    __atomic_store_n(counter, *counter + more, __ATOMIC_RELAXED);
}
uint64_t monotonic(void); /* nanoseconds */

enum { READY_AT_ONCE = 16 }; /* descriptors: there are fewer */

#endif
