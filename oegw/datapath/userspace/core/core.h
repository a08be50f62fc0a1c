/* The compiled core's door.  core.c includes it, and compiled.py hands it to cffi as it is: so
   there are only declarations here, and constants that are numbers. */

#define OEGW_CORE_VERSION 1 /* of all that stands here: a core built for another one is not used */

uint32_t oegw_core_version(void);
