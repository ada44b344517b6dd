/* What the keeper's child does itself where no bubblewrap does: it is born with a copy of the host's mounts, takes what of
 * them is to be shown, and gives the sandbox an empty root, in which it puts that. In a user namespace, an ordinary user's, it
 * mounts /proc and /dev as well.
 *
 *   [PART]... -- PROGRAM [ARGUMENT]...
 *
 * Parts, made in this order; PATH is one inside:
 *   --dir PATH              a directory
 *   --link TARGET PATH      a symbolic link
 *   --shown FROM PATH       a directory or a file of the host's own system, read-only, with all that is mounted below it by
 *                           now
 *   --bind ro|rw FROM PATH  the same of anything else; directories above PATH that are missing are made
 *   --tmpfs OPTIONS:PATH    as in mounts.c
 *
 * What is mounted has nosuid and nodev.
 */
#include "core.h"
#include "graft.h"
#include "keep.h"
#include "opening.h"

#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PARTS_MOST = 1024 };

static int trees[PARTS_MOST];

static bool is(char **part, const char *kind)
{
	return !strcmp(part[0], kind);
}

static bool is_whole(char **part, int size)
{
	for (int i = 1; i < size; i++)
		if (!part[i])
			return false;
	return true;
}

/* How many arguments a part has, its name too; 0 when it is none, or not all of it is there. */
static int size_of(char **part)
{
	static const struct { const char *name; int size; } kinds[] = {
		{"--dir", 2}, {"--tmpfs", 2}, {"--shown", 3}, {"--link", 3}, {"--bind", 4}};

	for (size_t i = 0; *part && i < sizeof(kinds) / sizeof(*kinds); i++)
		if (is(part, kinds[i].name))
			return is_whole(part, kinds[i].size) ? kinds[i].size : 0;
	return 0;
}

static bool is_own(const char *path)
{
	size_t length = strlen(OWN_PLACE);
	return !strncmp(path, OWN_PLACE, length) && (!path[length] || path[length] == '/');
}

bool binds_of_others(char **part)
{
	for (int size; (size = size_of(part)); part += size)
		if (is(part, "--bind") && !is_own(part[3]))
			return true;
	return false;
}

/* Where the parts end, at "--". */
static char **look_through(char **part)
{
	int count = 0;

	errno = EINVAL;
	for (int size; (size = size_of(part)); part += size)
		if (++count > PARTS_MOST)
			give_up("part", "too many");
	if (!*part || !is(part, "--") || !part[1])
		give_up("part", *part ? *part : "--");
	return part;
}

/* The root of all mounts that this process has a copy of: a chroot shows but a part of them. */
static int top_of_all(void)
{
	int seen = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), mounts = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);

	if (seen < 0 || mounts < 0 || setns(mounts, CLONE_NEWNS) < 0)
		give_up("leave", "a chroot");
	int top = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	/* Nothing that is done here is done on the host. */
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		give_up("separate", "mounts");
	if (top < 0 || fchdir(seen) < 0 || chroot(".") < 0)
		give_up("enter", "a chroot");
	close(seen);
	close(mounts);
	return top;
}

/* What is to be mounted, while the host's mounts are seen. */
static void take(char **part)
{
	for (int i = 0, size; (size = size_of(part)); i++, part += size) {
		bool bound = is(part, "--bind");
		if (!bound && !is(part, "--shown"))
			continue;
		const char *source = part[size - 2];
		trees[i] = graft_take(source, !bound || strcmp(part[1], "rw"), RECURSIVE);
		if (trees[i] < 0)
			give_up(part[0] + 2, source);
	}
}

/* `name` in the directory `at`, which is closed; a directory that is missing is made, by us or another sandbox. */
static int enter_directory(int at, const char *name)
{
	int next = open_how(at, name, O_PATH | O_DIRECTORY | O_CLOEXEC, WITHOUT_LINKS | BENEATH);
	if (next < 0 && errno == ENOENT && (mkdirat(at, name, 0755) == 0 || errno == EEXIST))
		next = open_how(at, name, O_PATH | O_DIRECTORY | O_CLOEXEC, WITHOUT_LINKS | BENEATH);
	int error = errno;
	close(at);
	errno = error;
	return next;
}

/* The directory that `path` is in, and its last name. No link is followed: others may put one into what is bound. */
static int parent_of(const char *path, const char **last)
{
	static char name[PATH_MAX];
	int at = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (strlen(path) >= sizeof(name)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	for (const char *slash; at >= 0; path = slash) {
		slash = strchr(++path, '/');
		if (!slash) {
			*last = path;
			return at;
		}
		snprintf(name, sizeof(name), "%.*s", (int)(slash - path), path);
		at = enter_directory(at, name);
	}
	return -1;
}

/* Mount a tree where something may be: a directory, or a file, as it is one itself. */
static int put(int tree, const char *path)
{
	struct stat status;
	const char *name = "";
	int at = fstat(tree, &status) < 0 ? -1 : parent_of(path, &name);
	bool directory = S_ISDIR(status.st_mode);

	if (at < 0)
		return -1;
	int made = directory ? mkdirat(at, name, 0755) : mknodat(at, name, S_IFREG | 0644, 0);
	if (made < 0 && errno != EEXIST)
		return -1;
	int place = open_how(at, name, O_PATH | O_CLOEXEC, WITHOUT_LINKS | BENEATH);
	if (place < 0)
		return -1;
	if (graft_put(tree, place) < 0) {
		if (errno == EINVAL)
			errno = directory ? ENOTDIR : EISDIR;
		return -1;
	}
	close(at);
	return close(tree);
}

static int make(char **part, int tree)
{
	if (is(part, "--dir"))
		return mkdir(part[1], 0755) < 0 && errno != EEXIST ? -1 : 0;
	if (is(part, "--link"))
		return symlink(part[1], part[2]);
	if (is(part, "--tmpfs"))
		return mount_tmpfs(part[1]);
	return put(tree, part[size_of(part) - 1]);
}

/* With the working directory as it is. */
static int enter_all(int top)
{
	int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (here < 0 || fchdir(top) < 0 || chroot(".") < 0 || fchdir(here) < 0)
		return -1;
	close(top);
	return close(here);
}

/* An empty one, in which nothing of the host's can be reached. A user namespace may mount a /proc while it sees
 * one, and the devices of the host are taken meanwhile. */
static void change_root(int top)
{
	const char *place = keeping.directory;

	if (mount("tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755") < 0 || chdir(place) < 0)
		give_up("mount", place);
	if (keeping.user && (mount_proc("proc") < 0 || mount_devices("dev") < 0))
		give_up("mount", "/proc and /dev");
	if (top >= 0 && enter_all(top) < 0)
		give_up("leave", "a chroot");
	/* The old root comes to lie on the new one, and what lies on "/" is taken away then: pivot_root(2). */
	if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		give_up("change", "the root");
}

/* The loopback interface; the kernel gives it its addresses. */
static void raise_loopback(void)
{
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		give_up("raise", "lo");
	close(fd);
}

void begin(char **parts)
{
	char **program = look_through(parts) + 1;

	open_files_raise();
	if (keeping.user)
		user_outer();
	if (unshare(CLONE_NEWCGROUP) < 0)
		give_up("enter", "a cgroup namespace");
	/* The kernel makes no user namespace in a chroot, and there sees to it that nothing is done on the host. */
	int top = keeping.user ? -1 : top_of_all();
	take(parts);
	change_root(top);
	for (int i = 0, size; (size = size_of(parts)); i++, parts += size)
		if (make(parts, trees[i]) < 0)
			give_up(parts[0] + 2, parts[size - 1]);
	raise_loopback();
	open_files_restore();
	prctl(PR_SET_PDEATHSIG, 0); /* PROGRAM has the lifeline */
	if (sethostname(SANDBOX_NAME, strlen(SANDBOX_NAME)) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		give_up("name", SANDBOX_NAME);
	if (keeping.user)
		user_inner(keeping.user);
	execv(program[0], program);
	give_up("run", program[0]);
}
