/* What is left to do in a sandbox that a keeper (keep_root.c) or bubblewrap has begun, by its first process before that
 * becomes the guest: what bubblewrap has no option for, and what costs less here.
 *
 *   ringfence-guest --enter [--noexec PATH | --seal PATH | --read-only PATH | --mask PATH | --terminals PATH]...
 *                   [--proc PATH | --dev PATH | --tmpfs OPTIONS:PATH]... [--inodes COUNT:PATH]...
 *                   [--counter DESCRIPTOR] [--lifeline DESCRIPTOR] [--oom-score NUMBER] [--capabilities HEX]
 *                   -- GUEST OPTIONS
 *
 * --proc, --dev and --tmpfs mount these (mounts.c), for root: an ordinary user's are there by now.
 * --counter: an open file that counts the OOM kills.
 * --lifeline: a pipe at whose end the guest ends with all that runs: the keeper was killed.
 * --oom-score: what the kernel's badness is raised to, for root. Whoever began the sandbox stays as it was, the keeper or a
 * bubblewrap, and is the last to be killed.
 * Mounts at these paths get noexec or (--seal) read-only, a tmpfs at most COUNT files, a devpts its limit of terminals;
 * --read-only makes a mount of the path first. Masked files read as empty, masked directories are empty. A path that is not
 * there is skipped. Then all capabilities but these are given up for good, in the bounding set too, and standard streams lead
 * nowhere. Whatever fails ends the process: no control is weakened.
 */
#include "agent.h"
#include "capabilities.h"
#include "core.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OF_PROC_CAP = 64 };

struct cover {
	int (*act)(const char *path);
	const char *path;
};

bool filter_follows;

static u64 kept;
static struct cover of_proc[OF_PROC_CAP];
static int of_proc_count;

static _Noreturn void give_up(const char *what, const char *name)
{
	dprintf(2, "%s %s: %s\n", what, name, strerror(errno));
	_exit(125);
}

/* In a user namespace nested in the one that made the mounts they are not ours: a copy of them is. */
static bool own_mounts(void)
{
	static bool copied;

	if (copied || errno != EPERM)
		return false;
	copied = true;
	return unshare(CLONE_NEWNS) == 0;
}

static int change(const char *path, unsigned long flags, const char *data)
{
	struct statvfs now;
	unsigned long old = 0;

	if (statvfs(path, &now) < 0)
		return -1;
	old |= now.f_flag & ST_RDONLY ? MS_RDONLY : 0;
	old |= now.f_flag & ST_NOSUID ? MS_NOSUID : 0;
	old |= now.f_flag & ST_NODEV ? MS_NODEV : 0;
	old |= now.f_flag & ST_NOEXEC ? MS_NOEXEC : 0;
	return mount(NULL, path, NULL, MS_REMOUNT | old | flags, data);
}

static int add_flags(const char *path, unsigned long flags)
{
	return change(path, MS_BIND | flags, NULL);
}

/* "COUNT:PATH" */
static int limit_inodes(const char *value)
{
	char data[64];
	char *path;
	unsigned long long count = strtoull(value, &path, 10);

	if (*path != ':') {
		errno = EINVAL;
		return -1;
	}
	snprintf(data, sizeof(data), "nr_inodes=%llu", count);
	return change(path + 1, 0, data);
}

static int cover(const char *path)
{
	struct stat status;

	if (stat(path, &status) < 0)
		return -1;
	if (S_ISDIR(status.st_mode))
		return mount("tmpfs", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0,mode=0555");
	return mount("/dev/null", path, NULL, MS_BIND, NULL);
}

static int read_only(const char *path)
{
	if (mount(path, path, NULL, MS_BIND | MS_REC, NULL) < 0)
		return -1;
	return add_flags(path, MS_RDONLY);
}

static int seal(const char *path)
{
	return add_flags(path, MS_RDONLY);
}

static int no_exec(const char *path)
{
	return add_flags(path, MS_NOEXEC);
}

static int limit_terminals(const char *path)
{
	return change(path, 0, TERMINALS);
}

static void raise_oom_score(const char *wanted)
{
	static const char path[] = "/proc/self/oom_score_adj";
	char text[16] = "";
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		give_up("open", path);
	if (strtol(text, NULL, 10) < strtol(wanted, NULL, 10) && pwrite(fd, wanted, strlen(wanted), 0) < 0)
		give_up("write", path);
	close(fd);
}

/* Whether the failure is that of changing a path that is not there. */
static bool may_be_absent(int (*act)(const char *))
{
	return errno == ENOENT && act != mount_proc && act != mount_devices && act != mount_tmpfs;
}

/* One option; how many arguments it took, 0 when it is none. */
static int take_option(const char *name, const char *value)
{
	int (*act)(const char *) = NULL;

	if (!strcmp(name, "--noexec"))
		act = no_exec;
	else if (!strcmp(name, "--seal"))
		act = seal;
	else if (!strcmp(name, "--mask"))
		act = cover;
	else if (!strcmp(name, "--inodes"))
		act = limit_inodes;
	else if (!strcmp(name, "--terminals"))
		act = limit_terminals;
	else if (!strcmp(name, "--read-only"))
		act = read_only;
	else if (!strcmp(name, "--proc"))
		act = mount_proc;
	else if (!strcmp(name, "--dev"))
		act = mount_devices;
	else if (!strcmp(name, "--tmpfs"))
		act = mount_tmpfs;
	else if (!strcmp(name, "--counter"))
		return oom_given((int)strtol(value, NULL, 10)), 2;
	else if (!strcmp(name, "--lifeline"))
		return lifeline_given((int)strtol(value, NULL, 10)), 2;
	else if (!strcmp(name, "--oom-score"))
		return raise_oom_score(value), 2;
	else if (!strcmp(name, "--capabilities"))
		return kept = strtoull(value, NULL, 16), 2;
	else
		return 0;
	if (!strncmp(value, "/proc/", strlen("/proc/"))) {
		errno = E2BIG;
		if (of_proc_count == OF_PROC_CAP)
			give_up(name + 2, value);
		of_proc[of_proc_count++] = (struct cover){act, value};
	}
	if (act(value) < 0 && !may_be_absent(act) && !(own_mounts() && act(value) == 0))
		give_up(name + 2, value);
	return 2;
}

static void drop_capabilities(void)
{
	struct capability_header header = {.version = CAPABILITY_VERSION};
	struct capability_half data[CAPABILITY_HALVES];

	for (int capability = 0; capability <= LAST_CAPABILITY; capability++) {
		if (kept >> capability & 1 || prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0)
			continue;
		if (errno == EINVAL) /* the kernel knows no more */
			break;
		give_up("drop", "capabilities");
	}
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	memset(data, 0, sizeof(data));
	for (int half = 0; half < 2; half++)
		data[half].effective = data[half].permitted = (u32)(kept >> (32 * half));
	if (syscall(SYS_capset, &header, data) < 0)
		give_up("set", "capabilities");
}

/* The same for a /proc that was mounted anew; -errno when one of them fails. */
int cover_proc(void)
{
	for (int i = 0; i < of_proc_count; i++)
		if (of_proc[i].act(of_proc[i].path) < 0 && errno != ENOENT)
			return -errno;
	return 0;
}

/* The arguments that are left for the guest, the "--" in the place of its name: their number is returned. */
int enter(int count, char ***args)
{
	char **all = *args;
	int at = 0, used = 0;

	while (at + 1 < count && (used = take_option(all[at], all[at + 1])) > 0)
		at += used;
	errno = EINVAL;
	if (at >= count || strcmp(all[at], "--"))
		give_up("enter", at < count ? all[at] : "--");
	drop_capabilities();
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd < 3; fd++)
		if (null < 0 || dup2(null, fd) < 0)
			give_up("open", "/dev/null");
	if (null > 2)
		close(null);
	filter_follows = true;
	*args = all + at;
	return count - at;
}
