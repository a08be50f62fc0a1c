/* Whether packets come one by one, or in crowds: gathering.py says the same in Python, and what it is
   for. */

#include "parts.h"

enum { MANY = 64, LOOK = 64, OCTETS_OF_ONE = 2048 /* that are as good as another packet */ };
enum { PERIOD = 50000000, CALM = 250000000 }; /* nanoseconds */

EXPORTED int oegw_crowd_came(struct oegw_crowd *crowd, uint64_t packets, uint64_t octets, uint64_t now)
{
    uint64_t from = __atomic_load_n(crowd->from, __ATOMIC_RELAXED);
    packets += octets / OCTETS_OF_ONE;
    if (packets > 1) {
        if (now - crowd->since > PERIOD) {
            crowd->since = now;
            crowd->packets = 0;
        }
        crowd->packets += packets;
        if (crowd->packets >= MANY && now + CALM > from) {
            from = now + CALM;
            __atomic_store_n(crowd->from, from, __ATOMIC_RELAXED);
        }
    }
    bool gathered = now >= from;
    crowd->turns++;
    if (gathered == (crowd->gathered != 0) && (!gathered || crowd->turns < LOOK))
        return 0;
    crowd->gathered = gathered;
    crowd->turns = 0;
    return 1;
}
