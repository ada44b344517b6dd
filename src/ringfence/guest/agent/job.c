/* A job as it arrives at its supervisor. */
#include "agent.h"
#include "supervisor.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

struct inbox {
	struct job job;
	char strings[INLINE_STRINGS];
};

static char *next_string(char **at)
{
	char *here = *at;
	*at += strlen(here) + 1;
	return here;
}

static char **take_strings(char **at, u32 number)
{
	char **list = malloc((number + 1) * sizeof *list);
	if (!list)
		abort();
	for (u32 i = 0; i < number; i++)
		list[i] = next_string(at);
	list[number] = NULL;
	return list;
}

static void receive(int host, struct inbox *inbox, struct received *received)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(JOB_FDS * sizeof(int))];
	} control;
	struct iovec part = {inbox, sizeof *inbox};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	ssize_t got;
	do
		got = recvmsg(host, &message, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	struct cmsghdr *header = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	if (!header || got < (ssize_t)sizeof inbox->job)
		_exit(0);
	received->count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(received->fds, CMSG_DATA(header), received->count * sizeof(int));
}

static char *strings_of(struct inbox *inbox, const struct received *received)
{
	if (inbox->job.strings <= INLINE_STRINGS)
		return inbox->strings;
	char *mapped = mmap(NULL, inbox->job.strings, PROT_READ, MAP_PRIVATE, received->fds[received->count - 1], 0);
	if (mapped == MAP_FAILED)
		_exit(1);
	return mapped;
}

void job_receive(int host, struct received *received, struct command *command)
{
	static struct inbox inbox;
	receive(host, &inbox, received);
	char *strings = strings_of(&inbox, received);
	*command = (struct command){.job = &inbox.job};
	command->cwd = next_string(&strings);
	command->args = take_strings(&strings, inbox.job.args_count);
	command->env = take_strings(&strings, inbox.job.env_count);
	for (int i = 0; i < 3; i++)
		command->fds[i] = received->fds[inbox.job.flags & FLAG_PTY ? 0 : i];
}

void job_close(const struct received *received)
{
	for (size_t i = 0; i < received->count; i++)
		close(received->fds[i]);
}
