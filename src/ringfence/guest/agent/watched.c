/* The directories that a WATCH watches, by what inotify calls them. */
#include "watched.h"

#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>

enum { IGNORED_KEPT = 64 };

static struct watched *all;  /* by wd, which rises as directories are added */
static size_t count, room, ignored;

struct watched *watched_find(int wd)
{
	size_t low = 0, high = count;

	while (low < high) {
		size_t middle = (low + high) / 2;
		if (all[middle].wd < wd)
			low = middle + 1;
		else
			high = middle;
	}
	return low < count && all[low].wd == wd ? &all[low] : NULL;
}

void watched_ignore(struct watched *watched)
{
	free(watched->path);
	watched->path = NULL;
	ignored++;
}

void watched_compact(void)
{
	size_t kept = 0;

	if (ignored < IGNORED_KEPT || ignored < count / 2)
		return;
	for (size_t i = 0; i < count; i++)
		if (all[i].path)
			all[kept++] = all[i];
	count = kept;
	ignored = 0;
}

int watched_remember(int wd, const char *path)
{
	struct watched *known = watched_find(wd);
	char *copy = strdup(path);

	if (!copy)
		return -ENOMEM;
	if (known) {
		ignored -= known->path ? 0 : 1;
		free(known->path);
		known->path = copy;
		return 0;
	}
	if (count == room) {
		size_t wanted = room * 2 + 64;
		struct watched *more = reallocarray(all, wanted, sizeof *more);
		if (!more) {
			free(copy);
			return -ENOMEM;
		}
		all = more;
		room = wanted;
	}
	size_t at = count++;
	for (; at > 0 && all[at - 1].wd > wd; at--)
		all[at] = all[at - 1];
	all[at] = (struct watched){wd, copy};
	return 0;
}

void watched_drop(int inotify, const char *path)
{
	size_t size = strlen(path);

	for (size_t i = 0; i < count; i++)
		if (all[i].path && strncmp(all[i].path, path, size) == 0 && (!all[i].path[size] || all[i].path[size] == '/')) {
			inotify_rm_watch(inotify, all[i].wd);
			watched_ignore(&all[i]);
		}
}
