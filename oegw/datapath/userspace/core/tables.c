/* From flows, and from SPIs, to SAs: open addressing, with entries that die with their SA. */

#include <stdlib.h>

#include <openssl/rand.h>

#include "parts.h"

enum { SMALLEST = 1024 };

#define ROTATED(x, bits) ((x) << (bits) | (x) >> (64 - (bits)))

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1], v[1] = ROTATED(v[1], 13), v[1] ^= v[0], v[0] = ROTATED(v[0], 32);
    v[2] += v[3], v[3] = ROTATED(v[3], 16), v[3] ^= v[2];
    v[0] += v[3], v[3] = ROTATED(v[3], 21), v[3] ^= v[0];
    v[2] += v[1], v[1] = ROTATED(v[1], 17), v[1] ^= v[2], v[2] = ROTATED(v[2], 32);
}

/* SipHash-1-3 (Aumasson, Bernstein 2012), which Python and Rust have for their dictionaries too.
   The words are read in the machine's order: nobody else sees the result. */
static uint32_t hash_of(const struct table *table, const uint8_t *key, uint32_t octets)
{
    uint64_t v[4] = {
        table->seed[0] ^ 0x736f6d6570736575, table->seed[1] ^ 0x646f72616e646f6d,
        table->seed[0] ^ 0x6c7967656e657261, table->seed[1] ^ 0x7465646279746573,
    };
    uint64_t word, last = (uint64_t)octets << 56;
    for (; octets >= 8; octets -= 8, key += 8) {
        memcpy(&word, key, 8);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    word = 0;
    memcpy(&word, key, octets);
    word |= last;
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
    v[2] ^= 0xFF;
    sip_round(v), sip_round(v), sip_round(v);
    word = v[0] ^ v[1] ^ v[2] ^ v[3];
    return (uint32_t)(word ^ word >> 32);
}

bool table_make(struct table *table)
{
    memset(table, 0, sizeof *table);
    if (RAND_bytes((unsigned char *)table->seed, sizeof table->seed) != 1)
        return false;
    table->entries = calloc(SMALLEST, sizeof *table->entries);
    table->mask = SMALLEST - 1;
    return table->entries != NULL;
}

void table_free(struct table *table)
{
    free(table->entries);
    table->entries = NULL;
}

void table_clear(struct table *table)
{
    if (table->occupied && ++table->generation == 0) {
        memset(table->entries, 0, ((size_t)table->mask + 1) * sizeof *table->entries);
        table->occupied = 0;
    }
}

/* Whether an entry counts: it was made since the table was cleared, and of an SA that is still there. */
static inline bool lives(const struct table *table, const uint32_t *serials, const struct entry *entry)
{
    return entry->generation == table->generation && serials[entry->sa] == entry->serial;
}

/* The entry of a key, or the unused one where it would stand: a quarter of them is. */
static struct entry *place_of(const struct table *table, const uint8_t *key, uint32_t octets)
{
    for (uint32_t i = hash_of(table, key, octets);; i++) {
        struct entry *entry = table->entries + (i & table->mask);
        if (!entry->sa || (entry->octets == octets && !memcmp(entry->key, key, octets)))
            return entry;
    }
}

uint32_t table_find(const struct table *table, const uint32_t *serials, const uint8_t *key, uint32_t octets)
{
    const struct entry *entry = place_of(table, key, octets);
    return entry->sa && lives(table, serials, entry) ? entry->sa : 0;
}

/* Leave the dead behind, and have room for as many again as live. */
static bool rebuild(struct table *table, const uint32_t *serials)
{
    struct entry *before = table->entries, *end = before + table->mask + 1;
    uint32_t live = 0, size = SMALLEST;
    for (struct entry *entry = before; entry < end; entry++)
        live += entry->sa && lives(table, serials, entry);
    while (size < 4 * (live + 1))
        size *= 2;
    struct entry *entries = calloc(size, sizeof *entries);
    if (!entries)
        return false;
    table->entries = entries;
    table->mask = size - 1;
    table->occupied = live;
    for (struct entry *entry = before; entry < end; entry++)
        if (entry->sa && lives(table, serials, entry))
            *place_of(table, entry->key, entry->octets) = *entry;
    free(before);
    return true;
}

/* False if there is no memory; then nothing has changed.  Where `limit` entries live already all are
   forgotten first; 0: no limit. */
bool table_set(struct table *table, const uint32_t *serials, const uint8_t *key, uint32_t octets, uint32_t sa, uint32_t limit)
{
    if (octets > TABLE_KEY_OCTETS)
        return false;
    struct entry *entry = place_of(table, key, octets);
    if (!entry->sa) {
        if ((limit && table->occupied >= limit) || (table->occupied + 1) * 4 > (table->mask + 1) * 3) {
            if (!rebuild(table, serials))
                return false;
            if (limit && table->occupied >= limit) {
                table_clear(table);
                if (!rebuild(table, serials))
                    return false;
            }
            entry = place_of(table, key, octets);
        }
        table->occupied++;
    }
    memcpy(entry->key, key, octets);
    entry->octets = (uint8_t)octets;
    entry->sa = sa;
    entry->serial = serials[sa];
    entry->generation = table->generation;
    return true;
}
