/* The compiled core's door.  The C files include it, and compiled.py hands it to cffi as it is: so
   there are only declarations here, and constants that are numbers. */

#define OEGW_CORE_VERSION 5 /* of all that stands here: a core built for another one is not used */

/* Those of interface.py; compiled.py compares them. */
#define OEGW_RUN_PACKETS 64
#define OEGW_RUN_OCTETS 65000
#define OEGW_SMALLEST_SEGMENT 256
#define OEGW_BATCH_FRAMES 128
#define OEGW_BATCH_OCTETS 262144
#define OEGW_JOINED_PACKETS 64
#define OEGW_LARGEST_FRAME 65545

#define OEGW_FLOWS 65536 /* of one core; when there are so many, all are forgotten */

#define OEGW_GCM 1
#define OEGW_AES_CBC 2
#define OEGW_3DES_CBC 3
#define OEGW_HMAC_SHA256_128 1
#define OEGW_HMAC_SHA1_96 2
#define OEGW_HMAC_MD5_96 3

/* What seal and open say: go on with what they ask for, or all is done. */
#define OEGW_DONE 0
#define OEGW_CARE 1
#define OEGW_RANDOM 2    /* so many random octets are wanted, then seal goes on */
#define OEGW_UNOPENED 3
#define OEGW_UNCHECKED 4
#define OEGW_BROKEN 5    /* libcrypto failed: what was under way must not be sent */

/* What only the loops say. */
#define OEGW_CONTROL 6 /* somebody else's descriptor is ready */
#define OEGW_LEFT 7    /* a run is left to the caller to send */
#define OEGW_SEEN 8    /* there is something in oegw_seen to tell of */
#define OEGW_PLACE 9   /* oegw_crowd.gathered is to be told of */

#define OEGW_OUTER 8 /* sockets of one loop at most */

#define OEGW_GCM_SCRATCH 512 /* octets */

/* AES-GCM by another library: functions for keys of 16, 24 and 32 octets, as multibuffer.py has them.
   An expansion writes the expanded key; the others take it, OEGW_GCM_SCRATCH octets for themselves, to
   and from where and how many octets, a nonce of 12, what is authenticated besides, and the ICV, which
   they write both. */
typedef void (*oegw_gcm_expand)(const void *key, void *expanded);
typedef void (*oegw_gcm_crypt)(const void *expanded, void *scratch, uint8_t *to, const uint8_t *from, uint64_t octets, const uint8_t *nonce, const uint8_t *added, uint64_t added_octets, uint8_t *icv, uint64_t icv_octets);

struct oegw_gcm {
    oegw_gcm_expand expand[3];
    oegw_gcm_crypt encrypt[3];
    oegw_gcm_crypt decrypt[3];
    uint64_t expanded_octets; /* oegw_gcm_check says */
};

/* One SA, as it is installed.  The pointers are followed during the call only, but for record. */
struct oegw_sa {
    uint8_t *record; /* see record.py; stays mapped until the SA is removed */
    uint64_t record_octets;
    const uint8_t *key;
    const uint8_t *integrity_key;
    uint32_t key_octets;
    uint32_t integrity_key_octets;
    uint32_t cipher;
    uint32_t integrity; /* 0 with OEGW_GCM */
    uint32_t spi;
    uint32_t extended;
};

/* What may change later. */
struct oegw_sa_now {
    uint64_t soft_octets; /* no limit: all ones */
    uint64_t hard_octets;
    uint32_t mtu;           /* outbound: of the inner packet */
    uint8_t dont_fragment[2];
    uint32_t window;        /* inbound: in packets */
    uint32_t encapsulated;  /* inbound, and so is what follows */
    uint32_t address_octets; /* 4 or 16 */
    uint32_t peer_port;
    uint8_t destination[16];
    uint8_t peer[16];
};

struct oegw_run {
    uint64_t offset; /* in the core's memory */
    uint64_t octets; /* of inner packets */
    uint32_t length; /* of all packets */
    uint32_t size;
    uint32_t count;
    uint32_t sa;
    uint32_t first;
    uint32_t last;
    uint8_t traffic_class;
    uint8_t dont_fragment;
};

struct oegw_frame {
    uint64_t offset; /* in the core's memory */
    uint32_t header;
    uint32_t packet;
};

struct oegw_care {
    uint64_t offset; /* in the core's memory */
    uint32_t length;
    uint32_t sa;          /* unchecked */
    uint32_t next_header; /* unchecked */
    uint32_t port;        /* unopened, and so is what follows but for the traffic class */
    uint32_t address_octets;
    uint32_t destined; /* whether the kernel said where to */
    uint32_t traffic_class;
    uint32_t encapsulated; /* the socket that it came by */
    uint32_t batch;        /* another one for each fill */
    uint8_t source[16];
    uint8_t destination[16];
};

struct oegw_moved {
    uint32_t sa;
    uint32_t port;
    uint8_t address[16];
};

/* What open has seen; whoever has read the first four sets them to 0. */
struct oegw_seen {
    uint64_t packets;
    uint64_t octets;
    uint64_t replay;
    uint64_t invalid;
    uint32_t moved; /* how many SAs wait to be told of */
    uint32_t softened;
    uint32_t vain; /* errors of sockets one after the other, with nothing read in between: the loop's */
    uint32_t unused;
};

/* What seal has made. */
struct oegw_made {
    uint32_t runs;
    uint32_t care;   /* after OEGW_CARE: which frame */
    uint32_t wanted; /* after OEGW_RANDOM: octets */
    uint32_t left;   /* after OEGW_LEFT: which run */
};

/* How the packets of an SA go: the socket, and to and from where as sendmsg takes it. */
struct oegw_way {
    uint64_t until; /* monotonic nanoseconds, then it is to be told again; 0: it is not known */
    int32_t descriptor;
    uint8_t version;
    uint8_t encapsulated;
    uint8_t segments; /* UDP_SEGMENT may be used */
    uint8_t name_octets;
    uint8_t control_octets;
    uint8_t name[28];
    uint8_t control[40];
};

/* A socket to receive from. */
struct oegw_outer {
    int32_t descriptor;
    uint32_t version;
    uint32_t encapsulated;
};

/* Where a loop counts, in memory that stays: packets and octets that it carried, those that were lost
   for want of room (in a socket, or in the device), replays, invalid ones, errors of sockets. */
struct oegw_counters {
    uint64_t *packets;
    uint64_t *octets;
    uint64_t *lost;
    uint64_t *replay;
    uint64_t *invalid;
    uint64_t *socket;
};

/* Whether packets come one by one, or in crowds: gathering.py. */
struct oegw_crowd {
    uint64_t *from; /* monotonic nanoseconds, of all workers: when they gather */
    uint64_t since;
    uint64_t packets; /* that came in crowds since then */
    uint64_t turns;   /* since this was last told of */
    uint64_t gathered;
};

typedef struct oegw_sealing oegw_sealing;
typedef struct oegw_opening oegw_opening;

uint32_t oegw_core_version(void);
uint32_t oegw_core_layout(void); /* the sizes of the structures above, added up */

/* So much was found waiting; whether to tell of `gathered`, which changed, or after many turns. */
int oegw_crowd_came(struct oegw_crowd *crowd, uint64_t packets, uint64_t octets, uint64_t now);

/* Of an SA's record, for what is done with care beside a core: the first of so many numbers, or 0.
   One step for all who take. */
uint64_t oegw_take(uint8_t *record, uint64_t numbers, uint64_t octets, uint64_t last, uint64_t now);

/* Whether these functions do as libcrypto does: known answers, and packets of many lengths.  Nobody
   may use them before. */
int oegw_gcm_check(struct oegw_gcm *by);

/* A core reads into memory that it is handed, and leaves there what it made: so many octets, at a
   multiple of 64, which stay as long as the core. */
uint64_t oegw_sealing_memory(void);
uint64_t oegw_opening_memory(void);

/* Null if there is no memory for the rest, or libcrypto lacks something.  `gcm` was checked, and is
   copied; null: libcrypto does it. */
oegw_sealing *oegw_sealing_new(int offloads, const struct oegw_gcm *gcm, uint8_t *memory);
void oegw_sealing_free(oegw_sealing *core);
/* The SA's number, which is greater than 0; 0 if libcrypto refuses, or there is no memory. */
uint32_t oegw_sealing_install(oegw_sealing *core, const struct oegw_sa *sa, const struct oegw_sa_now *now);
void oegw_sealing_refresh(oegw_sealing *core, uint32_t sa, const struct oegw_sa_now *now);
void oegw_sealing_remove(oegw_sealing *core, uint32_t sa);
int oegw_sealing_learn(oegw_sealing *core, const uint8_t *key, uint32_t octets, uint32_t sa);
void oegw_sealing_forget(oegw_sealing *core);
/* The number of frames, or -errno. */
int oegw_sealing_fill(oegw_sealing *core, int device);
int oegw_sealing_seal(oegw_sealing *core, uint64_t now);
void oegw_sealing_give(oegw_sealing *core, const uint8_t *random);
const struct oegw_made *oegw_sealing_made(const oegw_sealing *core);
const struct oegw_run *oegw_sealing_runs(const oegw_sealing *core);
const struct oegw_frame *oegw_sealing_frame(const oegw_sealing *core, uint32_t index);
/* Until the SA's next refresh. */
void oegw_sealing_way(oegw_sealing *core, uint32_t sa, const struct oegw_way *way);
/* Wait, fill, seal, send, and again.  `polled` is an epoll descriptor, which names each of its
   descriptors by its number: the loop's own, and the caller's.  Until something is the caller's: OEGW_CONTROL, OEGW_CARE,
   OEGW_LEFT, OEGW_PLACE, OEGW_BROKEN, or -errno of a fill.  The next call goes on there.  The options of the
   sockets (traffic class, DF, checksum) are the loop's own while it runs. */
int oegw_sealing_loop(oegw_sealing *core, int polled, int device, const struct oegw_counters *counters, struct oegw_crowd *crowd);

oegw_opening *oegw_opening_new(int offloads, int joins_udp, const struct oegw_gcm *gcm, uint8_t *memory);
void oegw_opening_free(oegw_opening *core);
/* As above; also 0 if there is an SA of this SPI and destination. */
uint32_t oegw_opening_install(oegw_opening *core, const struct oegw_sa *sa, const struct oegw_sa_now *now);
void oegw_opening_refresh(oegw_opening *core, uint32_t sa, const struct oegw_sa_now *now);
void oegw_opening_remove(oegw_opening *core, uint32_t sa);
int oegw_opening_learn(oegw_opening *core, const uint8_t *key, uint32_t octets, uint32_t sa);
/* The number of datagrams, or -errno. */
int oegw_opening_fill(oegw_opening *core, int outer, int version, int encapsulated);
int oegw_opening_open(oegw_opening *core, uint64_t now);
const struct oegw_care *oegw_opening_care(const oegw_opening *core);
/* packet stays where it is, and as it is, until it is delivered. */
int oegw_opening_append(oegw_opening *core, const uint8_t *packet, uint32_t octets);
uint32_t oegw_opening_deliver(oegw_opening *core, int device);
struct oegw_seen *oegw_opening_seen(oegw_opening *core);
/* Each forgets what it says: at most so many as there is room for; their number. */
uint32_t oegw_opening_moved(oegw_opening *core, struct oegw_moved *moved, uint32_t room);
uint32_t oegw_opening_softened(oegw_opening *core, uint32_t *sas, uint32_t room);
/* As oegw_sealing_loop, with what open says, OEGW_SEEN, and a negative errno for each vain error beyond 32. */
int oegw_opening_loop(oegw_opening *core, int polled, int device, const struct oegw_outer *outer, uint32_t count, const struct oegw_counters *counters, struct oegw_crowd *crowd);
