/* SAs, their records, and what their algorithms do to a packet: esp.py, record.py, replay.py and
   transform.py. */

#include <stdlib.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/params.h>

#include "parts.h"

enum { BLOCK_LARGEST = 16, ICV_LARGEST = 64 };

EXPORTED uint32_t oegw_core_version(void)
{
    return OEGW_CORE_VERSION;
}

EXPORTED uint32_t oegw_core_layout(void)
{
    return (uint32_t)(sizeof(struct oegw_sa) + sizeof(struct oegw_sa_now) + sizeof(struct oegw_run)
                      + sizeof(struct oegw_frame) + sizeof(struct oegw_care) + sizeof(struct oegw_moved)
                      + sizeof(struct oegw_seen) + sizeof(struct oegw_made) + sizeof(struct oegw_way)
                      + sizeof(struct oegw_outer) + sizeof(struct oegw_counters) + sizeof(struct oegw_crowd)
                      + sizeof(struct oegw_gcm));
}

/* ------------------------------------------------------------------------------- the record */

static uint64_t *field(uint8_t *record, size_t at)
{
    return (uint64_t *)(record + at); /* records begin at multiples of 64 */
}

EXPORTED uint64_t oegw_take(uint8_t *record, uint64_t numbers, uint64_t octets, uint64_t last, uint64_t now)
{
    uint64_t sequence = __atomic_load_n(field(record, SEQUENCE), __ATOMIC_RELAXED);
    do {
        if (sequence > last || numbers > last - sequence)
            return 0;
    } while (!__atomic_compare_exchange_n(field(record, SEQUENCE), &sequence, sequence + numbers, true,
                                          __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    __atomic_fetch_add(field(record, PACKETS), numbers, __ATOMIC_RELAXED);
    __atomic_fetch_add(field(record, OCTETS), octets, __ATOMIC_RELAXED);
    __atomic_store_n(field(record, LAST_USED), now, __ATOMIC_RELAXED);
    return sequence + 1;
}

void count_received(struct sa *sa, uint64_t octets, uint64_t now)
{
    __atomic_store_n(field(sa->record, PACKETS), record_get(sa, PACKETS) + 1, __ATOMIC_RELAXED);
    __atomic_store_n(field(sa->record, OCTETS), record_get(sa, OCTETS) + octets, __ATOMIC_RELAXED);
    __atomic_store_n(field(sa->record, LAST_USED), now, __ATOMIC_RELAXED);
}

/* The full number of a packet that shows the 32 bits `low` (RFC 4303 appendix A2.2).  False if there
   is none: it would lie before the first subspace, or behind the last. */
static bool candidate(const struct sa *sa, uint64_t top, uint32_t low, uint64_t *sequence)
{
    *sequence = low;
    if (!sa->extended)
        return true;
    uint64_t high = top >> 32;
    int64_t bottom = (int64_t)(top & 0xFFFFFFFF) - (int64_t)sa->now.window + 1;
    if (bottom >= 0) { /* case A: the window lies within one subspace */
        if (low < bottom && ++high > 0xFFFFFFFF)
            return false;
    } else if (low >= bottom + 0x100000000) { /* case B: it spans two */
        if (!high--)
            return false;
    }
    *sequence |= high << 32;
    return true;
}

static bool fresh(const struct sa *sa, uint64_t top, uint64_t sequence)
{
    if (sequence > top)
        return true;
    if (!sequence || top - sequence >= sa->now.window)
        return false;
    uint32_t bit = (uint32_t)sequence & (sa->ring - 1);
    return !(sa->record[RING + bit / 8] >> (bit & 7) & 1);
}

/* In this order (record.py): the number, then the bits that it passed over, then its own.  Other
   processes only look on after this one died, so what matters is the order of the stores. */
static void accept(struct sa *sa, uint64_t top, uint64_t sequence)
{
    uint8_t *ring = sa->record + RING;
    uint32_t mask = sa->ring - 1, bit = (uint32_t)sequence & mask;
    if (sequence > top) {
        __atomic_store_n(field(sa->record, SEQUENCE), sequence, __ATOMIC_RELEASE);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        if (sequence - top > sa->ring) {
            memset(ring, 0, (sa->ring + 7) / 8);
        } else {
            for (uint64_t passed = top + 1; passed < sequence; passed++) {
                uint32_t other = (uint32_t)passed & mask;
                if (!(other & 7) && sequence - passed >= 8 && mask >= 7) {
                    ring[other / 8] = 0;
                    passed += 7;
                } else {
                    ring[other / 8] &= (uint8_t)~(1u << (other & 7));
                }
            }
        }
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    }
    __atomic_store_n(ring + bit / 8, (uint8_t)(ring[bit / 8] | 1u << (bit & 7)), __ATOMIC_RELEASE);
}

/* ---------------------------------------------------------------------------- installation */

bool sas_make(struct sas *sas, const struct oegw_gcm *gcm, bool inbound)
{
    memset(sas, 0, sizeof *sas);
    sas->inbound = inbound;
    sas->count = 1; /* there is no number 0 */
    struct algorithms *all = &sas->algorithms;
    if (gcm) {
        all->other = true;
        all->by = *gcm;
    }
    static const char *const aead[] = {"AES-128-GCM", "AES-192-GCM", "AES-256-GCM"};
    static const char *const cbc[] = {"AES-128-CBC", "AES-192-CBC", "AES-256-CBC"};
    bool there = true;
    for (int i = 0; i < 3; i++) {
        there &= (all->gcm[i] = EVP_CIPHER_fetch(NULL, aead[i], NULL)) != NULL;
        there &= (all->cbc[i] = EVP_CIPHER_fetch(NULL, cbc[i], NULL)) != NULL;
    }
    all->des = EVP_CIPHER_fetch(NULL, "DES-EDE3-CBC", NULL); /* without it such SAs are refused */
    all->hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    ERR_clear_error();
    return there && all->hmac;
}

static void sa_free(struct sa *sa)
{
    if (!sa)
        return;
    EVP_CIPHER_CTX_free(sa->cipher); /* which cleanses the key schedule, and so does the other */
    EVP_MAC_CTX_free(sa->mac);
    gcm_free(sa->by, sa->expanded);
    OPENSSL_cleanse(sa, sizeof *sa);
    free(sa);
}

void sas_free(struct sas *sas)
{
    for (uint32_t number = 1; number < sas->count; number++)
        sa_free(sas->of[number]);
    free(sas->of);
    free(sas->serials);
    free(sas->unused);
    for (int i = 0; i < 3; i++) {
        EVP_CIPHER_free(sas->algorithms.gcm[i]);
        EVP_CIPHER_free(sas->algorithms.cbc[i]);
    }
    EVP_CIPHER_free(sas->algorithms.des);
    EVP_MAC_free(sas->algorithms.hmac);
}

static bool set_cipher(struct sa *sa, const EVP_CIPHER *cipher, const uint8_t *key, bool inbound)
{
    sa->cipher = EVP_CIPHER_CTX_new();
    if (!cipher || !sa->cipher)
        return false;
    return EVP_CipherInit_ex2(sa->cipher, cipher, key, NULL, !inbound, NULL) == 1
           && EVP_CIPHER_CTX_set_padding(sa->cipher, 0) == 1;
}

static bool set_integrity(struct sa *sa, EVP_MAC *hmac, const struct oegw_sa *given)
{
    static const struct {
        const char *name;
        uint8_t key, icv;
    } rows[] = {{"SHA2-256", 32, 16}, {"SHA1", 20, 12}, {"MD5", 16, 12}}; /* RFC 4868, 2404, 2403 */
    if (given->integrity < 1 || given->integrity > 3 || given->integrity_key_octets != rows[given->integrity - 1].key)
        return false;
    sa->icv = rows[given->integrity - 1].icv;
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)rows[given->integrity - 1].name, 0),
        OSSL_PARAM_construct_end(),
    };
    sa->mac = EVP_MAC_CTX_new(hmac);
    return sa->mac && EVP_MAC_init(sa->mac, given->integrity_key, given->integrity_key_octets, parameters) == 1;
}

static bool set_algorithms(struct sa *sa, const struct algorithms *all, const struct oegw_sa *given, bool inbound)
{
    if (given->cipher == OEGW_GCM) { /* RFC 4106: 16, 24 or 32 octets, and the salt */
        uint32_t octets = given->key_octets - GCM_SALT;
        if ((octets != 16 && octets != 24 && octets != 32) || given->integrity)
            return false;
        sa->block = 4;
        sa->iv = GCM_IV;
        sa->icv = GCM_ICV;
        memcpy(sa->salt, given->key + octets, GCM_SALT);
        if (all->other) {
            sa->by = &all->by;
            sa->key_size = (uint8_t)(octets / 8 - 2);
            return (sa->expanded = gcm_expand(sa->by, given->key, octets)) != NULL;
        }
        return set_cipher(sa, all->gcm[octets / 8 - 2], given->key, inbound);
    }
    const EVP_CIPHER *cipher;
    if (given->cipher == OEGW_AES_CBC && (given->key_octets == 16 || given->key_octets == 24 || given->key_octets == 32)) {
        cipher = all->cbc[given->key_octets / 8 - 2];
        sa->block = 16;
    } else if (given->cipher == OEGW_3DES_CBC && given->key_octets == 24) {
        cipher = all->des;
        sa->block = 8;
    } else {
        return false;
    }
    sa->iv = sa->block;
    return set_integrity(sa, all->hmac, given) && set_cipher(sa, cipher, given->key, inbound);
}

static bool set_record(struct sa *sa, const struct oegw_sa *given, bool inbound)
{
    if ((uintptr_t)given->record % sizeof(uint64_t) || given->record_octets < RING)
        return false;
    sa->record = given->record;
    if (!inbound)
        return true;
    memcpy(&sa->ring, given->record + RING_SIZE, sizeof sa->ring);
    return sa->ring && !(sa->ring & (sa->ring - 1)) && sa->ring >= sa->now.window
           && ((uint64_t)sa->ring + 7) / 8 <= given->record_octets - RING;
}

static bool make_room(struct sas *sas)
{
    if (sas->unused_count || sas->count < sas->room)
        return true;
    uint32_t room = sas->room ? 2 * sas->room : 64;
    struct sa **of = realloc(sas->of, room * sizeof *of);
    if (of)
        sas->of = of;
    uint32_t *serials = realloc(sas->serials, room * sizeof *serials);
    if (serials)
        sas->serials = serials;
    uint32_t *unused = realloc(sas->unused, room * sizeof *unused);
    if (unused)
        sas->unused = unused;
    if (!of || !serials || !unused)
        return false;
    of[0] = NULL;
    serials[0] = 0;
    sas->room = room;
    return true;
}

uint32_t sas_install(struct sas *sas, const struct oegw_sa *given, const struct oegw_sa_now *now)
{
    struct sa *sa = calloc(1, sizeof *sa);
    if (!sa || !make_room(sas)) {
        free(sa);
        return 0;
    }
    sa->spi = given->spi;
    sa->extended = given->extended != 0;
    sa->last = sa->extended ? UINT64_MAX : UINT32_MAX;
    sa->now = *now;
    if (!set_record(sa, given, sas->inbound) || !set_algorithms(sa, &sas->algorithms, given, sas->inbound)) {
        sa_free(sa);
        ERR_clear_error();
        return 0;
    }
    uint32_t number = sas->unused_count ? sas->unused[--sas->unused_count] : sas->count++;
    sas->of[number] = sa;
    if (!++sas->serial)
        sas->serial = 1;
    sas->serials[number] = sas->serial;
    return number;
}

void sas_remove(struct sas *sas, uint32_t number)
{
    if (!sas_find(sas, number))
        return;
    sa_free(sas->of[number]);
    sas->of[number] = NULL;
    sas->serials[number] = 0;
    sas->unused[sas->unused_count++] = number;
}

/* ------------------------------------------------------------------------------ algorithms */

/* SPI, the high half with extended numbers, and the low one (RFC 4106 section 5). */
static int associated_data(const struct sa *sa, const uint8_t *packet, uint64_t sequence, uint8_t associated[12])
{
    memcpy(associated, packet, 4);
    if (!sa->extended) {
        memcpy(associated + 4, packet + 4, 4);
        return 8;
    }
    put32(associated + 4, (uint32_t)(sequence >> 32));
    memcpy(associated + 8, packet + 4, 4);
    return 12;
}

/* RFC 4303 section 2.8: the packet, then the high half of an extended number. */
static bool mac_of(struct sa *sa, const uint8_t *packet, size_t octets, uint64_t sequence, uint8_t mac[ICV_LARGEST])
{
    uint8_t high[4];
    size_t size;
    put32(high, (uint32_t)(sequence >> 32));
    return EVP_MAC_init(sa->mac, NULL, 0, NULL) == 1 && EVP_MAC_update(sa->mac, packet, octets) == 1
           && (!sa->extended || EVP_MAC_update(sa->mac, high, 4) == 1)
           && EVP_MAC_final(sa->mac, mac, &size, ICV_LARGEST) == 1;
}

bool seal_packet(struct sa *sa, uint8_t *packet, size_t octets, uint8_t next_header, uint64_t sequence, const uint8_t *random)
{
    uint8_t *plain = packet + ESP_HEADER + sa->iv;
    size_t padding = padding_of(sa, octets);
    for (size_t i = 0; i < padding; i++)
        plain[octets + i] = (uint8_t)(i + 1);
    plain[octets + padding] = (uint8_t)padding;
    plain[octets + padding + 1] = next_header;
    size_t all = octets + padding + 2;
    put32(packet, sa->spi);
    put32(packet + 4, (uint32_t)sequence);
    int done;
    if (sa->mac) {
        /* A random block is encrypted to be the IV: see interface.py. */
        static const uint8_t zeros[BLOCK_LARGEST];
        memcpy(packet + ESP_HEADER, random, sa->iv);
        uint8_t mac[ICV_LARGEST];
        if (EVP_CipherInit_ex2(sa->cipher, NULL, NULL, zeros, -1, NULL) != 1
            || EVP_CipherUpdate(sa->cipher, packet + ESP_HEADER, &done, packet + ESP_HEADER, (int)(sa->iv + all)) != 1
            || !mac_of(sa, packet, ESP_HEADER + sa->iv + all, sequence, mac))
            return false;
        memcpy(plain + all, mac, sa->icv);
        return true;
    }
    uint8_t nonce[GCM_NONCE], associated[12];
    uint64_t iv = sa->extended ? sequence : (uint32_t)sequence;
    put32(packet + ESP_HEADER, (uint32_t)(iv >> 32));
    put32(packet + ESP_HEADER + 4, (uint32_t)iv);
    memcpy(nonce, sa->salt, GCM_SALT);
    memcpy(nonce + GCM_SALT, packet + ESP_HEADER, GCM_IV);
    int size = associated_data(sa, packet, sequence, associated);
    if (sa->expanded) {
        gcm_encrypt(sa->by, sa->key_size, sa->expanded, nonce, associated, (size_t)size, plain, all, plain + all);
        return true;
    }
    return EVP_CipherInit_ex2(sa->cipher, NULL, NULL, nonce, -1, NULL) == 1
           && EVP_CipherUpdate(sa->cipher, NULL, &done, associated, size) == 1
           && EVP_CipherUpdate(sa->cipher, plain, &done, plain, (int)all) == 1
           && EVP_CipherFinal_ex(sa->cipher, plain + all, &done) == 1
           && EVP_CIPHER_CTX_ctrl(sa->cipher, EVP_CTRL_AEAD_GET_TAG, sa->icv, plain + all) == 1;
}

static bool open_gcm(struct sa *sa, uint8_t *packet, size_t octets, uint64_t sequence)
{
    uint8_t nonce[GCM_NONCE], associated[12];
    uint8_t *text = packet + ESP_HEADER + GCM_IV, *end = packet + octets - sa->icv;
    int done;
    memcpy(nonce, sa->salt, GCM_SALT);
    memcpy(nonce + GCM_SALT, packet + ESP_HEADER, GCM_IV);
    int size = associated_data(sa, packet, sequence, associated);
    if (sa->expanded)
        return gcm_decrypt(sa->by, sa->key_size, sa->expanded, nonce, associated, (size_t)size, text, (size_t)(end - text), end);
    return EVP_CipherInit_ex2(sa->cipher, NULL, NULL, nonce, -1, NULL) == 1
           && EVP_CIPHER_CTX_ctrl(sa->cipher, EVP_CTRL_AEAD_SET_TAG, sa->icv, end) == 1
           && EVP_CipherUpdate(sa->cipher, NULL, &done, associated, size) == 1
           && EVP_CipherUpdate(sa->cipher, text, &done, text, (int)(end - text)) == 1
           && EVP_CipherFinal_ex(sa->cipher, end, &done) == 1;
}

static bool open_cbc(struct sa *sa, uint8_t *packet, size_t octets, uint64_t sequence)
{
    uint8_t mac[ICV_LARGEST], iv[BLOCK_LARGEST];
    size_t end = octets - sa->icv;
    uint8_t *text = packet + ESP_HEADER + sa->iv;
    int done;
    if (!mac_of(sa, packet, end, sequence, mac) || CRYPTO_memcmp(mac, packet + end, sa->icv))
        return false;
    memcpy(iv, packet + ESP_HEADER, sa->iv);
    return EVP_CipherInit_ex2(sa->cipher, NULL, NULL, iv, -1, NULL) == 1
           && EVP_CipherUpdate(sa->cipher, text, &done, text, (int)(packet + end - text)) == 1;
}

enum opened open_packet(struct sa *sa, uint8_t *packet, size_t octets, uint8_t **payload, size_t *payload_octets, uint8_t *next_header)
{
    uint64_t top = record_get(sa, SEQUENCE), sequence;
    if (!candidate(sa, top, get32(packet + 4), &sequence) || !fresh(sa, top, sequence))
        return REPLAYED;
    size_t around = (size_t)ESP_HEADER + sa->iv + sa->icv;
    if (octets < around + sa->block)
        return INVALID;
    size_t all = octets - around;
    if (sa->mac ? all % sa->block || !open_cbc(sa, packet, octets, sequence) : !open_gcm(sa, packet, octets, sequence)) {
        ERR_clear_error();
        return INVALID;
    }
    accept(sa, top, sequence);
    uint8_t *plain = packet + ESP_HEADER + sa->iv;
    size_t padding = plain[all - 2];
    if (padding + 2 > all)
        return MALFORMED;
    size_t size = all - 2 - padding;
    /* A default scheme of padding must be checked (RFC 4303 section 2.4). */
    for (size_t i = 0; i < padding; i++)
        if (plain[size + i] != i + 1)
            return MALFORMED;
    *payload = plain;
    *payload_octets = size;
    *next_header = plain[all - 1];
    return OPENED;
}
