/* The connection as conn.c (the stream) and frames.c (what is sent on it) share it. */
#ifndef RINGFENCE_CONN_H
#define RINGFENCE_CONN_H

#include "agent.h"
#include "core.h"

enum { HEADER_BYTES = 9 };

struct buffer {
	u8 *data;
	size_t start, end, room;
};

struct conn {
	struct watch in, out;
	int out_fd;
	bool connected, in_session, seeking, may_seek, congested, dropping;
	bool hurry;  /* not all that is pending may wait */
	struct buffer received, pending;
	size_t frame;  /* where the open frame begins, from pending.start */
	u8 marker[MARKER_BYTES];
	const char *directory;
	u64 back_off;
	struct timer dial, patience;
};

void buffer_room(struct buffer *buffer, size_t size);  /* so that `size` bytes fit behind its end */
void buffer_empty(struct buffer *buffer);

/* descriptors.c: read(2) from a socket that may bring descriptors, close-on-exec. */
ssize_t descriptors_receive(int fd, void *into, size_t size);
void descriptors_drop(void);

#endif
