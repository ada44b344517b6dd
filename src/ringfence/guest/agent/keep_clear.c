/* How the keeper removes what was made for a sandbox. */
#include "keep.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { REMOVE_TRIES = 2000 };

static void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* Remove the names in a directory, which are ours alone and at most one level deep. */
static void empty(int directory, bool deeper)
{
	int copy = dup(directory);
	DIR *names = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *entry;

	while (names && (entry = readdir(names))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (unlinkat(directory, entry->d_name, 0) == 0 || !deeper)
			continue;
		int below = openat(directory, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (below < 0)
			continue;
		empty(below, false);
		close(below);
		unlinkat(directory, entry->d_name, AT_REMOVEDIR);
	}
	if (names)
		closedir(names);
}

/* Remove a directory on a tmpfs, and the files in it, unless a directory is there: each has a link to this one. */
static void leave(const char *directory)
{
	struct stat status;

	if (rmdir(directory) == 0 || errno != ENOTEMPTY)
		return;
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0 && fstat(fd, &status) == 0 && status.st_nlink == 2) {
		empty(fd, false);
		rmdir(directory);
	}
	if (fd >= 0)
		close(fd);
}

/* Those of single commands, below a sandbox's cgroup; whether there were any that nobody is in. */
static bool remove_below(const char *cgroup)
{
	DIR *names = opendir(cgroup);
	struct dirent *entry;
	bool any = false;

	while (names && (entry = readdir(names)))
		if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
			any |= unlinkat(dirfd(names), entry->d_name, AT_REMOVEDIR) == 0;
	if (names)
		closedir(names);
	return any;
}

void clear_away(const char *directory)
{
	for (int i = keeping.made.count - 1; i >= 0; i--)
		for (int tries = 0; tries < REMOVE_TRIES; tries++) {
			if (rmdir(keeping.made.list[i].path) == 0 || errno != EBUSY)
				break;
			if (!remove_below(keeping.made.list[i].path))
				nap();
		}
	if (keeping.home >= 0) {
		empty(keeping.home, true);
		rmdir(directory);
	}
	if (keeping.last)
		leave(keeping.last);
}
