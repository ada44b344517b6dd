/* What listeners and connections of the forward share. */
#ifndef RINGFENCE_FORWARD_H
#define RINGFENCE_FORWARD_H

#include "agent.h"

#include <sys/socket.h>

enum {
	OP_LISTEN = 0x30, OP_CONNECT, OP_CLOSE_LISTENER, OP_SEND, OP_RESET,
	ANSWER_ACCEPT = 0x70, ANSWER_RECEIVED, ANSWER_CLOSED,
	LINKS_MOST = 512,
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

/* ---- link.c: one connection ---------------------------------------------------------------------------------------- */

bool link_room(void);
/* Take over a connected socket and tell the host. */
void link_accepted(int fd, u32 listener, u16 peer_port);
op_handler op_connect, op_link_frame, op_link_reset;

#endif
