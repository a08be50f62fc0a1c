/* The hot loop of the user-space datapath: see interface.py for what it does, and core.h. */

#include <stdint.h>

#include <openssl/evp.h>

#include "core.h"

#define EXPORTED __attribute__((visibility("default")))

EXPORTED uint32_t oegw_core_version(void)
{
    return OEGW_CORE_VERSION;
}
