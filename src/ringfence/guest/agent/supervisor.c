/* The life of a supervisor: take a job, start it, wait, report, kill its family, end when it has no children. */
#include "agent.h"
#include "core.h"
#include "supervisor.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	COALESCE_NS = 1000000,      /* how long STARTED waits for an EXITED that may follow at once */
	ROUND_NS = 1000000,
	GENTLE_ROUNDS = 3,          /* before the whole user is stopped meanwhile */
	USER_KILL_US = 100 * 1000,  /* before the whole user is killed */
};

static int host;  /* the agent's end */
static pid_t main_pid;
static struct report report;
static bool subreaper, told_start, told_exit;
static u32 reaped_killed;

bool have_subreaper(void)
{
	int set = 0;
	return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0 && prctl(PR_GET_CHILD_SUBREAPER, &set, 0, 0, 0) == 0 && set;
}

static void send_report(u32 kinds)
{
	report.kinds = kinds;
	if (!told_start && report.pid) {
		report.kinds |= REPORT_STARTED;
		told_start = true;
	}
	if (report.ended && !told_exit) {
		report.kinds |= REPORT_EXITED;
		told_exit = true;
	}
	while (send(host, &report, sizeof report, MSG_NOSIGNAL) < 0 && errno == EINTR)
		;
}

/* Reap all there is to reap. */
static void drain(void)
{
	struct rusage usage;
	int status;
	pid_t pid;
	while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
			reaped_killed++;
		if (pid != main_pid)
			continue;
		report.ended = true;
		report.status = status;
		report.usage = usage;
		report.ended_us = now_us();
	}
	report.empty = pid < 0 && errno == ECHILD;
}

/* Until a child ended or the agent says something; false after `ns` (negative: no limit). */
static bool wait_for_news(long ns)
{
	struct pollfd poll = {.fd = host, .events = POLLIN};
	struct timespec time = {ns / 1000000000, ns % 1000000000};
	sigset_t none;
	sigemptyset(&none);
	return ppoll(&poll, 1, ns < 0 ? NULL : &time, &none) > 0;
}

/* Have the agent signal every process of the command's user. */
static bool ask_for_signal(int number)
{
	struct tell tell;
	report.number = number;
	send_report(REPORT_NEEDS_SIGNAL);
	for (;;) {
		ssize_t got = recv(host, &tell, sizeof tell, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		if (got == sizeof tell && tell.kind == TELL_SIGNALLED)
			return tell.ok;
	}
}

static void kill_round(u32 round, u64 begun)
{
	bool user_killed = false;
	if (!subreaper || now_us() - begun > USER_KILL_US) {
		user_killed = ask_for_signal(SIGKILL);
	} else if (round > GENTLE_ROUNDS && ask_for_signal(SIGSTOP)) {
		family_signal(SIGKILL, NULL);
		ask_for_signal(SIGCONT);
	}
	if (!user_killed && family_signal(SIGKILL, NULL) == WALK_FAILED)
		ask_for_signal(SIGKILL);
}

/* Until wait4 says ECHILD: then no process of the family exists. Never forks. */
static void kill_family(void)
{
	u64 begun = now_us();
	struct timespec nap = {0, ROUND_NS / 10};
	reaped_killed = 0;
	report.rounds = 0;
	for (drain(); !report.empty; drain()) {
		report.rounds++;
		kill_round(report.rounds, begun);
		drain();
		for (u32 i = 0; !report.empty && i < 10; i++, drain())
			nanosleep(&nap, NULL);
	}
	report.killed = reaped_killed;
	report.proof = subreaper ? PROOF_ECHILD : PROOF_USER_KILLED;
}

static void take_tell(void)
{
	struct tell tell;
	ssize_t got = recv(host, &tell, sizeof tell, MSG_DONTWAIT);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		kill_family();
		_exit(0);
	}
	if (tell.kind == TELL_KILL) {
		send_report(REPORT_HEARD);
		kill_family();
		send_report(REPORT_KILLED);
		_exit(0);
	}
	if (tell.kind == TELL_SIGNAL && !report.ended)
		kill(tell.group ? -main_pid : main_pid, (int)tell.number);
}

static _Noreturn void watch_over(void)
{
	bool first = true;
	for (;;) {
		bool news = wait_for_news(first ? COALESCE_NS : -1);
		drain();
		if (report.ended && !told_exit)
			send_report(0);
		if (report.empty)
			_exit(0);
		if (!told_start)
			send_report(0);
		first = false;
		if (news)
			take_tell();
	}
}

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

struct inbox {
	struct job job;
	char strings[INLINE_STRINGS];
};

static size_t receive_job(struct inbox *inbox, int fds[JOB_FDS])
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
	size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(fds, CMSG_DATA(header), count * sizeof(int));
	return count;
}

static char *job_strings(struct inbox *inbox, const int *fds, size_t count)
{
	if (inbox->job.strings <= INLINE_STRINGS)
		return inbox->strings;
	char *mapped = mmap(NULL, inbox->job.strings, PROT_READ, MAP_PRIVATE, fds[count - 1], 0);
	if (mapped == MAP_FAILED)
		_exit(1);
	return mapped;
}

static void nothing(int number) { (void)number; }

_Noreturn void supervise(int fd)
{
	static struct inbox inbox;
	struct sigaction action = {.sa_handler = nothing};
	struct command command = {.job = &inbox.job};
	int fds[JOB_FDS];
	host = fd;
	close_all_but(fd);
	sigaction(SIGCHLD, &action, NULL);
	subreaper = have_subreaper();
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	size_t count = receive_job(&inbox, fds);
	char *strings = job_strings(&inbox, fds, count);
	command.cwd = next_string(&strings);
	command.args = take_strings(&strings, inbox.job.args_count);
	command.env = take_strings(&strings, inbox.job.env_count);
	bool pty = inbox.job.flags & FLAG_PTY;
	for (int i = 0; i < 3; i++)
		command.fds[i] = fds[pty ? 0 : i];
	main_pid = command_start(&command);
	for (size_t i = 0; i < count; i++)
		close(fds[i]);
	if (main_pid < 0) {
		report.error = -main_pid;
		report.stage = command.stage;
		send_report(REPORT_FAILED);
		_exit(0);
	}
	report.pid = (u32)main_pid;
	watch_over();
}
