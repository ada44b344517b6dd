/* WATCH, in a worker: inotify on a file or directory, or on all directories of a tree as it changes. */
#include "files.h"
#include "watched.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

enum {
	OWN_EVENTS = IN_DELETE_SELF | IN_MOVE_SELF,
	EVENTS = IN_CREATE | IN_DELETE | IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO,
	BUFFER_BYTES = 64 * 1024,
};

static int inotify = -1;
static char place[PATH_MAX];  /* the root's path, and what is appended for the directory at hand */
static size_t root_size;
static bool recursive;

static void send_event(u32 mask, u32 cookie, const char *above, const char *name)
{
	u8 payload[12 + 2 * PATH_MAX];
	u8 *at = pack_u32(pack_u32(payload, mask), cookie);
	u8 *size_at = at;
	size_t size = strlen(above);
	size_t name_size = strlen(name);

	at += 4;
	memcpy(at, above, size);
	if (size && name_size)
		at[size++] = '/';
	memcpy(at + size, name, name_size);
	size += name_size;
	pack_u32(size_at, (u32)size);
	worker_send(ANSWER_EVENT, payload, (size_t)(at + size - payload));
}

/* `place` ends at `size`: append a name to it. The new size, 0 when it does not fit. */
static size_t append(size_t size, const char *name)
{
	size_t name_size = strlen(name);

	if (size + 1 + name_size >= sizeof place)
		return 0;
	if (size && place[size - 1] != '/')
		place[size++] = '/';
	memcpy(place + size, name, name_size + 1);
	return size + name_size;
}

static const char *relative(void)
{
	const char *from = place + root_size;

	return from + strspn(from, "/");
}

static int add_tree(size_t size, bool report);

/* Every directory in the one that `place` names. report: send what is there as created, since nobody saw that. */
static int add_below(DIR *directory, size_t size, bool report)
{
	const struct dirent *entry;
	struct stat st;
	int error = 0;

	while (error == 0 && (entry = readdir(directory))) {
		const char *name = entry->d_name;
		if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
			continue;
		if (fstatat(dirfd(directory), name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		place[size] = 0;
		if (report)
			send_event(IN_CREATE | (S_ISDIR(st.st_mode) ? (u32)IN_ISDIR : 0), 0, relative(), name);
		size_t below = S_ISDIR(st.st_mode) ? append(size, name) : 0;
		if (below)
			error = add_tree(below, report);
	}
	return error;
}

/* Watch the directory that `place` names, and what is below it. Only the lack of room is an error: what cannot be read
 * is not watched. */
static int add_tree(size_t size, bool report)
{
	int wd = inotify_add_watch(inotify, place, EVENTS | IN_ONLYDIR | IN_DONT_FOLLOW);

	if (wd < 0)
		return errno == ENOSPC || errno == ENOMEM ? -errno : 0;
	int error = watched_remember(wd, relative());
	int fd = error < 0 ? -1 : open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	if (!directory)
		return error;
	error = add_below(directory, size, report);
	closedir(directory);
	return error;
}

/* All below the root, without the root, which is watched in a way of its own. */
static int add_all(void)
{
	place[root_size] = 0;
	DIR *directory = recursive ? opendir(place) : NULL;

	if (!directory)
		return 0;
	int error = add_below(directory, root_size, false);
	closedir(directory);
	return error;
}

static int follow_tree(const struct inotify_event *event, const char *name)
{
	size_t size = recursive && event->mask & IN_ISDIR ? append(strlen(place), name) : 0;

	if (size && event->mask & IN_MOVED_FROM)
		watched_drop(inotify, relative());
	return size && event->mask & (IN_CREATE | IN_MOVED_TO) ? add_tree(size, true) : 0;
}

static int take_event(const struct inotify_event *event)
{
	if (event->mask & IN_Q_OVERFLOW) {
		send_event(IN_Q_OVERFLOW, 0, "", "");
		return add_all();
	}
	struct watched *watched = watched_find(event->wd);
	if (!watched || !watched->path)
		return 0;
	if (event->mask & IN_IGNORED) {
		watched_ignore(watched);
		return 0;
	}
	const char *name = event->len ? event->name : "";
	/* The parent's event for a subdirectory says the same as its own. */
	if (watched->path[0] && !*name)
		return 0;
	send_event(event->mask, event->cookie, watched->path, name);
	place[root_size] = 0;
	return append(root_size, watched->path) ? follow_tree(event, name) : 0;
}

static int take_events(void)
{
	_Alignas(struct inotify_event) static char buffer[BUFFER_BYTES];
	ssize_t got = read(inotify, buffer, sizeof buffer);
	int error = got < 0 && errno != EINTR ? -errno : 0;

	watched_compact();
	for (ssize_t at = 0; error == 0 && at < got;) {
		const struct inotify_event *event = (const void *)(buffer + at);
		error = take_event(event);
		at += (ssize_t)(sizeof *event + event->len);
	}
	return error;
}

static int run_watch(const struct job *job, u64 *done)
{
	(void)done;
	recursive = job->recursive;
	strcpy(place, job->path);
	root_size = strlen(place);
	open_many();
	inotify = inotify_init1(IN_CLOEXEC);
	if (inotify < 0)
		return -errno;
	int wd = inotify_add_watch(inotify, place, EVENTS | OWN_EVENTS);
	if (wd < 0)
		return -errno;
	int error = watched_remember(wd, "");
	if (error == 0)
		error = add_all();
	if (error == 0)
		send_event(0, 0, "", "");
	while (error == 0)
		error = take_events();
	return error;
}

u64 watch_features(void)
{
	int fd = inotify_init1(IN_CLOEXEC);

	if (fd < 0)
		return 0;
	close(fd);
	return FEATURE_WATCH;
}

int op_watch(struct conn *conn, u32 id, struct reader *r)
{
	static struct cred cred;
	static struct job job;

	(void)conn;
	job = (struct job){.run = run_watch};
	read_cred(r, &cred);
	job.recursive = read_u8(r);
	int error = read_path(r, job.path);
	if (!read_end(r) || error < 0)
		return error;
	return worker_start(id, &cred, &job);
}
