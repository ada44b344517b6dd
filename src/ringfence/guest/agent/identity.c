/* Whom the agent acts as. It keeps the reserved uid and at most SETUID, SETGID and KILL. */
#include "agent.h"
#include "capabilities.h"
#include "core.h"
#include "supervisor.h"

#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CAPABILITY(number) (1u << (number))

enum { DESCRIPTORS_CAP = 65536, DESCRIPTORS_AT_ONCE = 1024 }; /* of those that may be open; asked for in one call */

u32 reserved_uid;
bool can_switch;

/* The C library's own calls act on all threads through signals; there is one thread. */
static int switch_to(u32 real, u32 effective, u32 saved)
{
	return syscall(SYS_setresuid, real, effective, saved) ? -errno : 0;
}

int set_capabilities(u32 effective, u32 permitted)
{
	struct capability_header header = {CAPABILITY_VERSION, 0};
	struct capability_half data[CAPABILITY_HALVES] = {{effective, permitted, 0}, {0, 0, 0}};
	return syscall(SYS_capset, &header, data) ? -errno : 0;
}

static const u32 own = CAPABILITY(CAP_SETUID) | CAPABILITY(CAP_SETGID) | CAPABILITY(CAP_KILL);

/* The agent holds what root's commands may have, and does not use it itself. */
u32 root_capabilities;
static u32 kept;

u32 capabilities_of(u32 uid) { return uid == 0 ? root_capabilities : 0; }

static void drop_bounding_set(void)
{
	for (int number = 0; number < 64; number++)
		if ((number >= 32 || !(root_capabilities & CAPABILITY(number))) && prctl(PR_CAPBSET_READ, number, 0, 0, 0) == 1)
			prctl(PR_CAPBSET_DROP, number, 0, 0, 0);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

void identity_start(u32 wanted_uid)
{
	reserved_uid = wanted_uid;
	kept = own | root_capabilities;
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	drop_bounding_set();
	prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
	can_switch = syscall(SYS_setgroups, 0, NULL) == 0 && syscall(SYS_setresgid, wanted_uid, wanted_uid, wanted_uid) == 0 &&
		     switch_to(wanted_uid, wanted_uid, wanted_uid) == 0;
	if (!can_switch || set_capabilities(own, kept)) {
		u32 needed = own_pid_namespace ? CAPABILITY(CAP_SYS_ADMIN) : 0;
		can_switch = false;
		if (set_capabilities(needed, needed))
			set_capabilities(0, 0);
	}
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* gVisor has no file system ids: there the effective ones take their place. The real and the saved uid stay reserved,
 * so the user can signal the agent no more than otherwise. */
static bool by_effective_ids;

static int take_effective(u32 uid, u32 gid)
{
	by_effective_ids = true;
	if (syscall(SYS_setresgid, -1, gid, -1) || switch_to(-1, uid, -1)) {
		as_self();
		return -EINVAL;
	}
	return 0;
}

int make_as(u32 uid, u32 gid)
{
	if (!can_switch)
		return uid == geteuid() ? 0 : -EPERM;
	if (uid == reserved_uid)
		return -EPERM;
	if (by_effective_ids || (syscall(SYS_setfsgid, -1) < 0 && errno == ENOSYS))
		return take_effective(uid, gid);
	syscall(SYS_setfsgid, gid);
	syscall(SYS_setfsuid, uid);
	if ((u32)syscall(SYS_setfsuid, -1) == uid && (u32)syscall(SYS_setfsgid, -1) == gid)
		return 0;
	as_self();
	return -EINVAL;
}

int as_user(const struct cred *cred)
{
	if (can_switch && syscall(SYS_setgroups, cred->count, cred->groups))
		return -errno;
	int error = make_as(cred->uid, cred->gid);
	if (error && can_switch)
		syscall(SYS_setgroups, 0, NULL);
	return error;
}

void as_self(void)
{
	if (!can_switch)
		return;
	if (by_effective_ids) {
		switch_to(-1, reserved_uid, -1);
		set_capabilities(own, kept);  /* the way back from uid 0 took the effective ones */
		syscall(SYS_setresgid, -1, reserved_uid, -1);
	} else {
		syscall(SYS_setfsuid, reserved_uid);
		syscall(SYS_setfsgid, reserved_uid);
	}
	syscall(SYS_setgroups, 0, NULL);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);  /* each change of ids sets it to the machine's suid_dumpable */
}

int become_worker(const struct cred *cred)
{
	if (!can_switch)
		return cred->uid == geteuid() ? 0 : -EPERM;
	if (cred->uid == reserved_uid)
		return -EPERM;
	if (syscall(SYS_setgroups, cred->count, cred->groups) || syscall(SYS_setresgid, cred->gid, cred->gid, cred->gid))
		return -errno;
	int error = switch_to(reserved_uid, cred->uid, reserved_uid);
	if (!error)
		error = set_capabilities(capabilities_of(cred->uid), capabilities_of(cred->uid));
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	return error;
}

/* One question for many: where a call takes 10 us (gVisor), to close each number there may be takes most of a second. */
static void close_open(int from, int count, int first, int last)
{
	struct pollfd some[DESCRIPTORS_AT_ONCE];
	for (int i = 0; i < count; i++)
		some[i] = (struct pollfd){.fd = from + i};
	bool told = poll(some, (nfds_t)count, 0) >= 0;
	for (int i = 0; i < count; i++)
		if ((some[i].fd < first || some[i].fd > last) && !(told && some[i].revents & POLLNVAL))
			close(some[i].fd);
}

void close_all_but(int first, int last)
{
	if ((first <= 3 || syscall(SYS_close_range, 3u, (unsigned)first - 1, 0u) == 0) &&
	    syscall(SYS_close_range, last < 3 ? 3u : (unsigned)last + 1, ~0u, 0u) == 0)
		return;
	long most = sysconf(_SC_OPEN_MAX);
	if (most < 0 || most > DESCRIPTORS_CAP)
		most = DESCRIPTORS_CAP;
	for (int from = 3; from < most; from += DESCRIPTORS_AT_ONCE) {
		int count = most - from < DESCRIPTORS_AT_ONCE ? (int)most - from : DESCRIPTORS_AT_ONCE;
		close_open(from, count, first, last);
	}
}

/* A second reserved uid is the real one meanwhile: `uid` cannot signal the agent, and the agent reaches nobody but
 * `uid`, since CAP_KILL is put aside. */
bool signal_uid(u32 uid, int number)
{
	if (getpid() != 1 || !can_switch || switch_to(reserved_uid + 1, uid, reserved_uid))
		return false;
	set_capabilities(own & ~CAPABILITY(CAP_KILL), kept);
	kill(-1, number);
	switch_to(reserved_uid, reserved_uid, reserved_uid);
	set_capabilities(own, kept);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	return true;
}
