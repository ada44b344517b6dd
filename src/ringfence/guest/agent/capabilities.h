/* As in linux/capability.h, which not every C library's headers come with. */
#ifndef RINGFENCE_CAPABILITIES_H
#define RINGFENCE_CAPABILITIES_H

#include "agent.h"

enum { CAP_KILL = 5, CAP_SETGID = 6, CAP_SETUID = 7, CAP_SETPCAP = 8, CAP_SYS_ADMIN = 21, LAST_CAPABILITY = 63 };
enum { CAPABILITY_VERSION = 0x20080522, CAPABILITY_HALVES = 2 };

struct capability_header {
	u32 version;
	int pid;
};
struct capability_half {
	u32 effective, permitted, inheritable;
};

#endif
