/* A job on its way to a supervisor; and from one that ended without having read it to another. Who read it may have
 * started its command, so the question is only whether it still lies in the socket: the agent holds both ends.
 */
#include "exec.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { GIVEN_MOST = 8 /* supervisors for one job: where all end before they read it, something ends them */ };

union control {
	struct cmsghdr header;
	char room[CMSG_SPACE(JOB_FDS * sizeof(int))];
};

/* What lies unread in a supervisor's socket. */
struct letter {
	union {
		u32 kind;
		char data[sizeof(struct job) + INLINE_STRINGS];
	};
	union control control;
	struct iovec part;
	struct msghdr message;
};

/* To the first that takes it without delay: what is still unread of an earlier command may fill the socket of one that
 * does not go on. NULL with errno. */
static struct supervisor *give(const struct msghdr *message)
{
	for (;;) {
		struct supervisor *supervisor = supervisor_take();
		if (!supervisor)
			return NULL;
		*supervisor->told = (struct told){.next_pid = supervisor->told->next_pid};
		if (sendmsg(supervisor->watch.fd, message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
			return supervisor;
		int error = errno;
		supervisor_dismiss(supervisor);
		errno = error;
		if (error != EAGAIN)
			return NULL;
	}
}

static bool limits_processes(const struct job *job)
{
	for (u32 i = 0; i < job->limit_count; i++)
		if (job->limits[i].resource == RLIMIT_NPROC)
			return true;
	return false;
}

static struct supervisor *give_for(struct exec *exec, const struct job *job, const struct msghdr *message)
{
	struct supervisor *supervisor = give(message);
	if (!supervisor)
		return NULL;
	supervisor->grown |= job->strings > INLINE_STRINGS;
	supervisor->counted = own_pid_namespace && limits_processes(job);
	supervisor->exec = exec;
	exec->supervisor = supervisor;
	exec->given++;
	return supervisor;
}

static int strings_file(const struct job *job, const char *strings)
{
	int fd = memfd_create("job", MFD_CLOEXEC);
	u64 done = 0;
	while (fd >= 0 && done < job->strings) {
		ssize_t wrote = write(fd, strings + done, job->strings - done);
		if (wrote < 0) {
			close(fd);
			return -1;
		}
		done += (u64)wrote;
	}
	return fd;
}

int job_give(struct exec *exec, const struct job *job, const char *strings, const int *fds, int count)
{
	union control control = {0};
	bool inlined = job->strings <= INLINE_STRINGS;
	int file = inlined ? -1 : strings_file(job, strings);
	if (!inlined && file < 0)
		return -errno;
	int all[JOB_FDS];
	memcpy(all, fds, (size_t)count * sizeof *fds);
	if (file >= 0)
		all[count++] = file;
	struct iovec parts[2] = {{(void *)job, sizeof *job}, {(void *)strings, inlined ? job->strings : 0}};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2, .msg_control = &control,
				 .msg_controllen = CMSG_SPACE((size_t)count * sizeof(int))};
	control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN((size_t)count * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
	memcpy(CMSG_DATA(&control.header), all, (size_t)count * sizeof(int));
	int error = give_for(exec, job, &message) ? 0 : -errno;
	if (file >= 0)
		close(file);
	return error;
}

/* ---- to another ---- */

static void close_received(struct letter *letter)
{
	struct cmsghdr *header = CMSG_FIRSTHDR(&letter->message);
	int fd;
	for (size_t at = CMSG_LEN(0); header && at + sizeof fd <= header->cmsg_len; at += sizeof fd) {
		memcpy(&fd, (char *)header + at, sizeof fd);
		close(fd);
	}
}

/* The next one, whole. */
static bool take_letter(int from, struct letter *letter)
{
	ssize_t got;
	letter->part = (struct iovec){letter->data, sizeof letter->data};
	letter->message = (struct msghdr){.msg_iov = &letter->part, .msg_iovlen = 1, .msg_control = &letter->control,
					  .msg_controllen = sizeof letter->control};
	do
		got = recvmsg(from, &letter->message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got <= 0)
		return false;
	letter->part.iov_len = (size_t)got;
	if (!(letter->message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return true;
	close_received(letter);
	return false;
}

bool job_give_again(struct supervisor *ended)
{
	static struct letter letter;
	struct exec *exec = ended->exec;
	struct supervisor *other = NULL;
	if (exec->killing || exec->given >= GIVEN_MOST)
		return false;
	while (take_letter(ended->theirs, &letter)) {
		if (other) {
			sendmsg(other->watch.fd, &letter.message, MSG_NOSIGNAL | MSG_DONTWAIT);
		} else if (letter.kind == TELL_JOB) {
			other = give_for(exec, (struct job *)letter.data, &letter.message);
			close_received(&letter);
			if (!other)
				return false;
		}
	}
	return other;
}
