/* Descriptors that came on the socket with a frame: one set for each frame that brought some, until it is dispatched. */
#include "conn.h"
#include "exec.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The first bytes of a frame bring its set. One read may end a frame and begin the next, and ends with a set. */
enum { SETS_CAP = 2 };

static struct set {
	int fds[CGROUPS_MOST];
	int count;
} sets[SETS_CAP];
static int waiting;

static void close_set(const struct set *set)
{
	for (int i = 0; i < set->count; i++)
		close(set->fds[i]);
}

static bool add(const struct cmsghdr *header)
{
	struct set set = {0};
	if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
		set.count = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(set.fds, CMSG_DATA(header), (size_t)set.count * sizeof(int));
	}
	if (waiting == SETS_CAP) {
		close_set(&set);
		return false;
	}
	sets[waiting++] = set;
	return true;
}

ssize_t descriptors_receive(int fd, void *into, size_t size)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(CGROUPS_MOST * sizeof(int))];
	} control;
	struct iovec part = {into, size};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
				 .msg_controllen = CMSG_LEN(CGROUPS_MOST * sizeof(int))};
	ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
	if (got <= 0)
		return got;
	/* A set that was cut, even to nothing, is still the set of its frame. */
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	if ((header || message.msg_flags & MSG_CTRUNC) && !add(header)) {
		errno = EPROTO;
		return -1;
	}
	return got;
}

int descriptors_take(int *fds, int count)
{
	if (!waiting)
		return -EBADF;
	struct set set = sets[0];
	memmove(sets, sets + 1, (size_t)--waiting * sizeof *sets);
	if (set.count != count) {
		close_set(&set);
		return -EBADF;
	}
	memcpy(fds, set.fds, (size_t)count * sizeof *fds);
	return 0;
}

void descriptors_refuse(struct reader *r)
{
	int fds[CGROUPS_MOST], count = cgroups_in(read_u32(r));
	if (!count || descriptors_take(fds, count) < 0)
		return;
	for (int i = 0; i < count; i++)
		close(fds[i]);
}

void descriptors_drop(void)
{
	while (waiting)
		close_set(&sets[--waiting]);
}
