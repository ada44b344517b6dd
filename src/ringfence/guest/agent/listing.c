/* LIST_DIR: one page of a directory. A directory that has more pages stays open for a while, so that the next page goes
 * on where this one stopped even when entries come and go; after that its position is looked up anew. */
#include "files.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAGE_BYTES = 512 * 1024, NAMES_BYTES = 32 * 1024, OPEN_MOST = 4, OPEN_MS = 5000, CURSOR_BYTES = 16 };

struct page {
	u8 *data, *at;
	u32 count, limit;
	bool with_stat, more;
	u64 position;
};

/* A directory between two pages. Cursor: u64 token, u64 position. */
static struct kept {
	int fd;
	u32 uid;
	u64 token, position;
} kept[OPEN_MOST];
static u64 tokens;
static struct timer forget_timer;

static void forget(struct kept *slot)
{
	if (slot->token)
		close(slot->fd);
	slot->token = 0;
}

static void forget_all(struct timer *timer)
{
	(void)timer;
	for (int i = 0; i < OPEN_MOST; i++)
		forget(&kept[i]);
}

static u64 keep(int fd, u32 uid, u64 position)
{
	struct kept *slot = &kept[tokens % OPEN_MOST];

	forget(slot);
	*slot = (struct kept){fd, uid, ++tokens, position};
	timer_set(&forget_timer, OPEN_MS, forget_all);
	return slot->token;
}

/* The open directory of this cursor, which is the caller's now; -1 when it was forgotten. */
static int take_kept(u64 token, u32 uid, u64 position)
{
	for (int i = 0; i < OPEN_MOST; i++)
		if (token && kept[i].token == token && kept[i].uid == uid && kept[i].position == position) {
			kept[i].token = 0;
			return kept[i].fd;
		}
	return -1;
}

static int open_at(const char *path, struct bytes cursor, u32 uid)
{
	struct reader fields = {cursor.data, cursor.data + cursor.size, false};
	u64 token = 0, position = 0;

	if (cursor.size) {
		token = read_u64(&fields);
		position = read_u64(&fields);
		if (!read_end(&fields))
			return -EINVAL;
	}
	int fd = take_kept(token, uid, position);
	if (fd < 0)
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (lseek(fd, (off_t)position, SEEK_SET) < 0) {
		int error = -errno;
		close(fd);
		return error;
	}
	return fd;
}

/* False when the page is full; an entry that is gone meanwhile is left out. */
static bool add_entry(struct page *page, int fd, const struct dirent64 *entry)
{
	struct stat st = {0};
	const char *name = entry->d_name;

	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return true;
	if (page->count == page->limit || page->at + 4 + strlen(name) + STAT_BYTES > page->data + PAGE_BYTES)
		return false;
	if (page->with_stat && fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		if (errno == ENOENT)
			return true;
		st = (struct stat){.st_mode = (mode_t)DTTOIF(entry->d_type), .st_ino = entry->d_ino};
	}
	page->at = pack_str(page->at, name, strlen(name));
	page->at = pack_stat(page->at, &st);
	page->count++;
	return true;
}

static int fill(struct page *page, int fd)
{
	_Alignas(struct dirent64) static char names[NAMES_BYTES];
	long got;

	page->position = (u64)lseek(fd, 0, SEEK_CUR);
	while ((got = syscall(SYS_getdents64, fd, names, sizeof names)) > 0)
		for (long at = 0; at < got;) {
			const struct dirent64 *entry = (const void *)(names + at);
			if (!add_entry(page, fd, entry)) {
				page->more = true;
				return 0;
			}
			page->position = (u64)entry->d_off;
			at += entry->d_reclen;
		}
	return got < 0 ? -errno : 0;
}

static void answer(struct conn *conn, u32 id, const struct page *page, int fd, u32 uid)
{
	u8 cursor[CURSOR_BYTES] = {0};

	if (page->more)
		pack_u64(pack_u64(cursor, keep(fd, uid, page->position)), page->position);
	else
		close(fd);
	frame_begin(conn, ANSWER_DONE, id);
	put_u8(conn, page->more);
	put_str(conn, cursor, page->more ? sizeof cursor : 0);
	put_u32(conn, page->count);
	put_raw(conn, page->data, (size_t)(page->at - page->data));
	frame_end(conn);
}

static int list(struct conn *conn, u32 id, struct page *page, int fd, u32 uid)
{
	page->data = page->at = malloc(PAGE_BYTES);
	if (!page->data) {
		close(fd);
		return -ENOMEM;
	}
	int error = fill(page, fd);
	if (error < 0)
		close(fd);
	else
		answer(conn, id, page, fd, uid);
	free(page->data);
	return error;
}

int op_list_dir(struct conn *conn, u32 id, struct reader *r)
{
	static struct cred cred;
	static char path[PATH_MAX];

	read_cred(r, &cred);
	int error = read_path(r, path);
	struct bytes cursor = read_data(r);
	struct page page = {.limit = read_u32(r)};
	page.with_stat = read_u8(r);
	if (!read_end(r) || error < 0)
		return error;
	if (page.limit == 0)
		return -EINVAL;
	error = files_enter(&cred);
	if (error < 0)
		return error;
	int fd = open_at(path, cursor, cred.uid);
	error = fd < 0 ? fd : list(conn, id, &page, fd, cred.uid);
	files_leave();
	return error;
}
