/* Whether packets come one by one, or in crowds: gathering.py says the same in Python, and what it is
   for. */

#include "parts.h"

enum { MANY = 64, OCTETS_OF_ONE = 2048 };
#define PERIOD 50000000u /* nanoseconds */
#define CALM 250000000

EXPORTED int oegw_crowd_came(struct oegw_crowd *crowd, uint64_t packets, uint64_t octets, uint64_t now)
{
    packets += octets / OCTETS_OF_ONE;
    if (packets > 1) {
        if (now - crowd->since > PERIOD) {
            crowd->since = now;
            crowd->packets = 0;
        }
        crowd->packets += packets;
        if (crowd->packets >= MANY)
            __atomic_store_n(crowd->last, now, __ATOMIC_RELAXED);
    }
    /* Another worker's moment may be a little later than ours. */
    bool gathered = (int64_t)(now - __atomic_load_n(crowd->last, __ATOMIC_RELAXED)) >= CALM;
    if (gathered == (crowd->gathered != 0))
        return 0;
    crowd->gathered = gathered;
    return 1;
}
