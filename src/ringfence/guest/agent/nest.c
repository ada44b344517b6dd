/* A pid namespace of its own for each exec, where the agent may not change users: its commands could signal a supervisor
 * beside them. The supervisor stays outside; the namespace's first process does its work inside, and its death is the
 * family's.
 */
#include "agent.h"
#include "supervisor.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

bool own_pid_namespace;

/* The first process's and all below it. */
static void kill_namespace(struct told *told, pid_t first)
{
	struct report *report = &told->report;
	struct rusage usage;
	int status, found = family_signal(0, NULL);
	kill(first, SIGKILL);
	while (wait4(first, &status, 0, &usage) < 0 && errno == EINTR)
		;
	if (!report->pid)
		report->pid = 2; /* its command was not there yet; this is the id it would have had */
	report->killed = found > 1 ? (u32)found - 1 : 0;
	report->rounds = 1;
	report->proof = PROOF_ECHILD;
	report->empty = true;
	if (report->ended)
		return;
	report->ended = true;
	report->status = SIGKILL;
	report->usage = usage;
	report->ended_us = now_us();
}

static void take_tell(int host, int inside, struct told *told, pid_t first)
{
	struct tell tell;
	ssize_t got = recv(host, &tell, sizeof tell, MSG_DONTWAIT);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got > 0 && tell.kind != TELL_KILL) {
		send(inside, &tell, sizeof tell, MSG_NOSIGNAL | MSG_DONTWAIT);
		return;
	}
	if (got > 0)
		report_send(host, &(struct told){0}, REPORT_HEARD);
	kill_namespace(told, first);
	if (got > 0)
		report_send(host, told, REPORT_KILLED);
	_exit(0);
}

static _Noreturn void stay_outside(int host, int inside, struct told *told, pid_t first)
{
	int status;
	char begun;
	while (recv(inside, &begun, 1, 0) < 0 && errno == EINTR)
		;
	for (;;) {
		bool news = wait_for_news(host, -1);
		if (waitpid(first, &status, WNOHANG) == first)
			_exit(0);
		if (news)
			take_tell(host, inside, told, first);
	}
}

/* A /proc of the new namespace, where the place allows it: else the outer one stays, in which ids are others. */
static void go_inside(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) == 0 &&
	    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0 && cover_proc())
		_exit(1);
}

/* The agent hears of it when there is a job that it fails for. */
static _Noreturn void fail(int host, int error)
{
	struct told told = {.report = {.error = error, .stage = STAGE_LIMITS}};
	struct command command;
	if (job_receive(host, &command) == JOB_TAKEN)
		report_send(host, &told, REPORT_FAILED);
	_exit(0);
}

struct told *nest(int host, int *tells)
{
	int pair[2];
	struct told *told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (told == MAP_FAILED || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		_exit(1);
	pid_t first = (pid_t)syscall(SYS_clone, CLONE_NEWPID | CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0);
	if (first == 0) {
		close(pair[0]);
		*tells = pair[1];
		go_inside();
		return told;
	}
	if (first < 0)
		fail(host, errno);
	close(pair[1]);
	stay_outside(host, pair[0], told, first);
}
