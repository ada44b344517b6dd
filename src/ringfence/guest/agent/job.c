/* A job as it arrives at its supervisor. */
#include "agent.h"
#include "supervisor.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static struct inbox {
	struct job job;
	char strings[INLINE_STRINGS];
} inbox;

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

/* One message, with the descriptors of a job; its kind, 0 at the end. */
static u32 receive(int host, struct command *command)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(JOB_FDS * sizeof(int))];
	} control;
	struct iovec part = {&inbox, sizeof inbox};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	ssize_t got;
	do
		got = recvmsg(host, &message, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got <= 0 || message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		return 0;
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	if (inbox.job.kind == TELL_JOB && (!header || got < (ssize_t)sizeof inbox.job))
		return 0;
	if (inbox.job.kind == TELL_JOB) {
		command->count = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(command->received, CMSG_DATA(header), (size_t)command->count * sizeof(int));
	}
	return inbox.job.kind;
}

static char *strings_of(struct command *command)
{
	if (inbox.job.strings <= INLINE_STRINGS)
		return inbox.strings;
	command->mapped = mmap(NULL, inbox.job.strings, PROT_READ, MAP_PRIVATE, command->received[command->count - 1], 0);
	if (command->mapped == MAP_FAILED)
		_exit(1);
	return command->mapped;
}

enum next job_receive(int host, struct command *command)
{
	u32 kind;
	*command = (struct command){.job = &inbox.job};
	do
		kind = receive(host, command);
	while (kind && kind != TELL_JOB && kind != TELL_KILL);
	if (kind != TELL_JOB)
		return kind ? JOB_KILL : JOB_NONE;
	char *strings = strings_of(command);
	command->cwd = next_string(&strings);
	command->args = take_strings(&strings, inbox.job.args_count);
	command->env = take_strings(&strings, inbox.job.env_count);
	for (int i = 0; i < 3; i++)
		command->fds[i] = command->received[inbox.job.flags & FLAG_PTY ? 0 : i];
	command->cgroups = command->received + (inbox.job.flags & FLAG_PTY ? 1 : 3);
	command->cgroups_count = cgroups_in(inbox.job.flags);
	return JOB_TAKEN;
}

void job_free(const struct command *command)
{
	for (int i = 0; i < command->count; i++)
		close(command->received[i]);
	free(command->args);
	free(command->env);
	if (command->mapped)
		munmap(command->mapped, command->job->strings);
}
