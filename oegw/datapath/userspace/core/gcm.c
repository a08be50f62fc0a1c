/* AES-GCM by functions of another library than OpenSSL's, which multibuffer.py finds: key expansion,
   encryption and decryption, each of one whole packet.  They need none of what libcrypto does around
   a packet, which takes it longer than AES-GCM itself. */

#include <stdlib.h>

#include <openssl/crypto.h>
#include <openssl/err.h>

#include "parts.h"

/* The expanded key begins where the library wants it, and has at most so many octets. */
enum { ALIGNMENT = 64, EXPANDED_MOST = 4096 };

static size_t aligned(size_t octets) { return (octets + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

uint8_t *gcm_expand(const struct oegw_gcm *by, const uint8_t *key, uint32_t octets)
{
    uint8_t *expanded = aligned_alloc(ALIGNMENT, by->expanded_octets);
    if (!expanded)
        return NULL;
    by->expand[octets / 8 - 2](key, expanded);
    return expanded;
}

void gcm_free(const struct oegw_gcm *by, uint8_t *expanded)
{
    if (!expanded)
        return;
    OPENSSL_cleanse(expanded, by->expanded_octets);
    free(expanded);
}

bool gcm_decrypt(const struct oegw_gcm *by, uint32_t size, const uint8_t *expanded, const uint8_t *nonce, const uint8_t *added, size_t added_octets, uint8_t *text, size_t octets, const uint8_t *icv)
{
    _Alignas(ALIGNMENT) uint8_t scratch[OEGW_GCM_SCRATCH], tag[GCM_ICV];
    by->decrypt[size](expanded, scratch, text, text, octets, nonce, added, added_octets, tag, GCM_ICV);
    if (!CRYPTO_memcmp(tag, icv, GCM_ICV))
        return true;
    memset(text, 0, octets); /* nobody wrote this */
    return false;
}

void gcm_encrypt(const struct oegw_gcm *by, uint32_t size, const uint8_t *expanded, const uint8_t *nonce, const uint8_t *added, size_t added_octets, uint8_t *text, size_t octets, uint8_t *icv)
{
    _Alignas(ALIGNMENT) uint8_t scratch[OEGW_GCM_SCRATCH];
    by->encrypt[size](expanded, scratch, text, text, octets, nonce, added, added_octets, icv, GCM_ICV);
}

/* ------------------------------------------------------------------------------ before its use */

/* How much of the memory an expansion writes, with whatever was there before; 0: none, or too much. */
static uint32_t expanded_octets(const struct oegw_gcm *by, const uint8_t *key)
{
    static const uint8_t fill[2] = {0x00, 0xFF};
    uint32_t largest = 0;
    uint8_t *room = aligned_alloc(ALIGNMENT, 2 * EXPANDED_MOST);
    for (int i = 0; room && i < 6; i++) {
        memset(room, fill[i & 1], 2 * EXPANDED_MOST);
        by->expand[i / 2](key, room);
        uint32_t written = 2 * EXPANDED_MOST;
        while (written && room[written - 1] == fill[i & 1])
            written--;
        largest = written > largest ? written : largest;
    }
    free(room);
    return largest <= EXPANDED_MOST ? (uint32_t)aligned(largest) : 0;
}

/* Test cases 4, 10 and 16 of "The Galois/Counter Mode of Operation" (McGrew, Viega): of all three the
   nonce, the plaintext and what is authenticated besides are the same.  The ICV is one of the
   ciphertext, so it tells of both. */
static bool known_answers(const struct oegw_gcm *by, const uint8_t *const expanded[3], uint8_t *text)
{
    static const uint8_t nonce[GCM_NONCE] = {0xCA, 0xFE, 0xBA, 0xBE, 0xFA, 0xCE, 0xDB, 0xAD, 0xDE, 0xCA, 0xF8, 0x88};
    static const uint8_t added[20] = {
        0xFE, 0xED, 0xFA, 0xCE, 0xDE, 0xAD, 0xBE, 0xEF, 0xFE, 0xED,
        0xFA, 0xCE, 0xDE, 0xAD, 0xBE, 0xEF, 0xAB, 0xAD, 0xDA, 0xD2,
    };
    static const uint8_t plain[60] = {
        0xD9, 0x31, 0x32, 0x25, 0xF8, 0x84, 0x06, 0xE5, 0xA5, 0x59, 0x09, 0xC5, 0xAF, 0xF5, 0x26, 0x9A,
        0x86, 0xA7, 0xA9, 0x53, 0x15, 0x34, 0xF7, 0xDA, 0x2E, 0x4C, 0x30, 0x3D, 0x8A, 0x31, 0x8A, 0x72,
        0x1C, 0x3C, 0x0C, 0x95, 0x95, 0x68, 0x09, 0x53, 0x2F, 0xCF, 0x0E, 0x24, 0x49, 0xA6, 0xB5, 0x25,
        0xB1, 0x6A, 0xED, 0xF5, 0xAA, 0x0D, 0xE6, 0x57, 0xBA, 0x63, 0x7B, 0x39,
    };
    static const uint8_t icvs[3][GCM_ICV] = {
        {0x5B, 0xC9, 0x4F, 0xBC, 0x32, 0x21, 0xA5, 0xDB, 0x94, 0xFA, 0xE9, 0x5A, 0xE7, 0x12, 0x1A, 0x47},
        {0x25, 0x19, 0x49, 0x8E, 0x80, 0xF1, 0x47, 0x8F, 0x37, 0xBA, 0x55, 0xBD, 0x6D, 0x27, 0x61, 0x8C},
        {0x76, 0xFC, 0x6E, 0xCE, 0x0F, 0x4E, 0x17, 0x68, 0xCD, 0xDF, 0x88, 0x53, 0xBB, 0x2D, 0x55, 0x1B},
    };
    bool right = true;
    for (uint32_t size = 0; size < 3; size++) {
        uint8_t icv[GCM_ICV];
        memcpy(text, plain, sizeof plain);
        gcm_encrypt(by, size, expanded[size], nonce, added, sizeof added, text, sizeof plain, icv);
        right &= !memcmp(icv, icvs[size], GCM_ICV)
                 && gcm_decrypt(by, size, expanded[size], nonce, added, sizeof added, text, sizeof plain, icvs[size])
                 && !memcmp(text, plain, sizeof plain);
    }
    return right;
}

/* One packet, both ways, beside libcrypto; nothing around it may have changed. */
static bool as_libcrypto(const struct oegw_gcm *by, uint32_t size, const uint8_t *expanded, EVP_CIPHER_CTX *cipher, const uint8_t *plain, size_t added_octets, uint8_t *text, uint8_t *other, size_t octets)
{
    enum { AROUND = 64, GUARD = 0xA5 };
    const uint8_t *nonce = plain + octets % 61, *added = plain + octets % 67;
    uint8_t icv[GCM_ICV];
    int done;
    if (EVP_CipherInit_ex2(cipher, NULL, NULL, nonce, 1, NULL) != 1
        || EVP_CipherUpdate(cipher, NULL, &done, added, (int)added_octets) != 1
        || EVP_CipherUpdate(cipher, other, &done, plain, (int)octets) != 1 || EVP_CipherFinal_ex(cipher, other + octets, &done) != 1
        || EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_GET_TAG, GCM_ICV, icv) != 1)
        return false;
    memset(text, GUARD, AROUND);
    memset(text + AROUND + octets, GUARD, GCM_ICV + AROUND);
    text += AROUND;
    memcpy(text, plain, octets);
    gcm_encrypt(by, size, expanded, nonce, added, added_octets, text, octets, text + octets);
    bool right = !memcmp(text, other, octets) && !memcmp(text + octets, icv, GCM_ICV)
                 && gcm_decrypt(by, size, expanded, nonce, added, added_octets, text, octets, icv) && !memcmp(text, plain, octets);
    for (int i = 1; i <= AROUND; i++)
        right &= text[-i] == GUARD && text[octets + GCM_ICV - 1 + (size_t)i] == GUARD;
    return right;
}

/* All lengths up to 288 octets; beyond, 13 apart, so that all remainders of a block come near each
   stride of the library's; and some of large packets. */
static uint32_t next_length(uint32_t octets)
{
    return octets < 288 ? octets + 1 : octets < 1600 ? octets + 13 : octets * 2 + 3;
}

EXPORTED int oegw_gcm_check(struct oegw_gcm *by)
{
    enum { LARGEST = 10000 };
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    uint8_t *expanded[3] = {NULL}, *room = malloc(3 * LARGEST + 512), key[32] = {
        0xFE, 0xFF, 0xE9, 0x92, 0x86, 0x65, 0x73, 0x1C, 0x6D, 0x6A, 0x8F, 0x94, 0x67, 0x30, 0x83, 0x08,
        0xFE, 0xFF, 0xE9, 0x92, 0x86, 0x65, 0x73, 0x1C, 0x6D, 0x6A, 0x8F, 0x94, 0x67, 0x30, 0x83, 0x08,
    };
    bool right = cipher && room && (by->expanded_octets = expanded_octets(by, key));
    for (uint32_t size = 0; right && size < 3; size++)
        right = (expanded[size] = gcm_expand(by, key, 16 + 8 * size)) != NULL;
    if (right) {
        uint8_t *plain = room, *other = room + LARGEST, *text = other + LARGEST;
        for (uint32_t i = 0, x = 1; i < LARGEST; i++, x = x * 1103515245 + 12345)
            plain[i] = (uint8_t)(x >> 16);
        right = known_answers(by, (const uint8_t *const *)expanded, text);
        for (uint32_t size = 0; right && size < 3; size++) {
            static const char *const names[] = {"AES-128-GCM", "AES-192-GCM", "AES-256-GCM"};
            EVP_CIPHER *reference = EVP_CIPHER_fetch(NULL, names[size], NULL);
            right = reference && EVP_CipherInit_ex2(cipher, reference, key, NULL, 1, NULL) == 1;
            for (uint32_t octets = 0; right && octets < LARGEST; octets = next_length(octets))
                right = as_libcrypto(by, size, expanded[size], cipher, plain, 8, text, other, octets)
                        && as_libcrypto(by, size, expanded[size], cipher, plain, 12, text, other, octets);
            EVP_CIPHER_free(reference);
        }
    }
    for (uint32_t size = 0; size < 3; size++)
        gcm_free(by, expanded[size]);
    EVP_CIPHER_CTX_free(cipher);
    free(room);
    ERR_clear_error();
    return right;
}
