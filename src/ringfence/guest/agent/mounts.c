/* What is mounted inside instead of by bubblewrap, where every bind reads the whole table of mounts. */
#include "agent.h"
#include "graft.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { PATH_ROOM = 128 };

static const struct node {
	const char *name;
	unsigned int major, minor;
} nodes[] = {{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};

static const struct link {
	const char *target, *name;
} links[] = {{"/proc/self/fd", "fd"},         {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
	     {"/proc/self/fd/2", "stderr"}, {"/proc/kcore", "core"},      {"pts/ptmx", "ptmx"}};

static int place(const char *path)
{
	return mkdir(path, 0755) < 0 && errno != EEXIST ? -1 : 0;
}

int mount_proc(const char *path)
{
	return place(path) < 0 ? -1 : mount("proc", path, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

/* The host's own, where none can be made: in a user namespace. */
static int take_node(const char *path, const struct node *node)
{
	char source[PATH_ROOM];

	snprintf(source, sizeof(source), "/dev/%s", node->name);
	int tree = mknod(path, S_IFREG | 0666, 0) < 0 ? -1 : graft_take_device(source);
	int there = tree < 0 ? -1 : open(path, O_PATH | O_CLOEXEC);
	if (there < 0 || graft_put(tree, there) < 0)
		return -1;
	return close(tree);
}

static int make_node(const char *directory, const struct node *node)
{
	char path[PATH_ROOM];

	snprintf(path, sizeof(path), "%s/%s", directory, node->name);
	if (mknod(path, S_IFCHR | 0666, makedev(node->major, node->minor)) < 0)
		return errno == EPERM ? take_node(path, node) : -1;
	return chmod(path, 0666); /* whatever the umask is */
}

static int mount_terminals(const char *directory)
{
	char path[PATH_ROOM];

	snprintf(path, sizeof(path), "%s/pts", directory);
	if (place(path) < 0)
		return -1;
	return mount("devpts", path, "devpts", MS_NOSUID | MS_NOEXEC, "newinstance," TERMINALS);
}

/* A /dev of its own, with the devices that everybody may use. */
int mount_devices(const char *path)
{
	char name[PATH_ROOM];

	if (place(path) < 0 || mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=64k") < 0)
		return -1;
	for (size_t i = 0; i < sizeof(nodes) / sizeof(*nodes); i++)
		if (make_node(path, &nodes[i]) < 0)
			return -1;
	for (size_t i = 0; i < sizeof(links) / sizeof(*links); i++) {
		snprintf(name, sizeof(name), "%s/%s", path, links[i].name);
		if (symlink(links[i].target, name) < 0)
			return -1;
	}
	return mount_terminals(path);
}

/* "OPTIONS:PATH", with "noexec," before the options that the file system itself knows. */
int mount_tmpfs(const char *value)
{
	static const char no_exec[] = "noexec,";
	unsigned long flags = MS_NOSUID | MS_NODEV;
	char options[PATH_ROOM];

	if (!strncmp(value, no_exec, strlen(no_exec))) {
		flags |= MS_NOEXEC;
		value += strlen(no_exec);
	}
	const char *path = strchr(value, ':');
	if (!path || path - value >= PATH_ROOM) {
		errno = EINVAL;
		return -1;
	}
	snprintf(options, sizeof(options), "%.*s", (int)(path - value), value);
	return place(path + 1) < 0 ? -1 : mount("tmpfs", path + 1, "tmpfs", flags, options);
}
