/* SPACE: how full the sandbox's tmpfs are. What is on none has no numbers here: it may be anybody's disk. */
#include "agent.h"
#include "core.h"

#include <limits.h>
#include <sys/vfs.h>

enum { TMPFS = 0x01021994, PLACES_CAP = 256 };

static void put_space(struct conn *conn, struct bytes place)
{
	char path[PATH_MAX];
	struct statfs found;
	if (!copy_str(place, path, sizeof path) || statfs(path, &found) < 0 || found.f_type != TMPFS)
		found = (struct statfs){0};
	put_u64(conn, (u64)found.f_blocks * (u64)found.f_bsize);
	put_u64(conn, (u64)found.f_bavail * (u64)found.f_bsize);
	put_u64(conn, (u64)found.f_files);
	put_u64(conn, (u64)found.f_ffree);
}

int op_space(struct conn *conn, u32 id, struct reader *r)
{
	struct bytes places[PLACES_CAP];
	u32 count = read_count(r, 4);
	if (count > PLACES_CAP)
		return -E2BIG;
	for (u32 i = 0; i < count; i++)
		places[i] = read_str(r);
	if (!read_end(r))
		return 0;
	frame_begin(conn, ANSWER_SPACE, id);
	put_u32(conn, count);
	for (u32 i = 0; i < count; i++)
		put_space(conn, places[i]);
	frame_end(conn);
	return 0;
}
