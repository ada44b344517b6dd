/* What listeners and connections of the forward share. */
#ifndef RINGFENCE_FORWARD_H
#define RINGFENCE_FORWARD_H

#include "agent.h"

#include <sys/socket.h>

enum {
	OP_LISTEN = 0x30, OP_CONNECT, OP_CLOSE_LISTENER, OP_SEND, OP_RESET,
	ANSWER_ACCEPT = 0x70, ANSWER_RECEIVED, ANSWER_CLOSED,
	LINKS_MOST = 128,
	LISTENERS_MOST = 128, /* kept ones, too */
	LINK_WINDOW = 1024 * 1024,
};
#define GUEST_IDS 0x80000000u

struct address {
	struct sockaddr_storage storage;
	socklen_t size;
};
/* False unless it is a loopback address in numbers. */
bool parse_loopback(struct bytes text, u16 port, struct address *address);
/* There is room for connections again. */
void forward_room(void);

/* ---- link.c: one connection, bytes both ways, each direction with a window and an end of its own ------------------ */

struct link {
	struct op op;
	struct watch watch;
	bool connecting;
	bool eof_in, eof_out;  /* the process inside ended its side; the host did */
	bool shut;             /* the host's end was passed on */
	u64 acknowledged;
	u8 *pending;           /* what the host sent and the socket did not take yet */
	size_t start, end, room;
};

extern const struct op_class link_class;
struct link *link_find(u32 id);
void link_free(struct link *link);
/* With CLOSED; an error is a reset for the process inside too. */
void link_end(struct link *link, int error);
/* Likewise, where the process inside broke it. */
void link_broke(struct link *link, int error);
/* End it when both sides have ended. False when the link is over and freed, as below. */
bool link_still(struct link *link);
void link_choose_events(struct link *link);
void link_ready(struct watch *watch, u32 events);
op_handler op_link_reset;

/* ---- link_out.c ---------------------------------------------------------------------------------------------------- */

bool link_put_out(struct link *link);
op_handler op_link_frame;

/* ---- link_open.c --------------------------------------------------------------------------------------------------- */

bool link_room(void);
void link_freed(void);
bool link_connected(struct link *link);
/* Take over a connected socket and tell the host. */
void link_accepted(int fd, u32 listener, u16 peer_port);
op_handler op_connect;

#endif
