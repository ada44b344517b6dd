/* A pid namespace of its own for a supervisor's commands, where the agent may not change users: they could signal a
 * supervisor beside them.
 *
 * Two processes are the supervisor then. The outer one is the agent's child, and out of the commands' reach. The inner
 * one, the namespace's first, does the work and reports. One of them at a time takes what the agent tells:
 *   the inner one until it has a job. Then it says BEGUN;
 *   the outer one while there is a family. Signals and timeouts it hands in; a kill it carries out by the inner one's
 *   death, and reports. It does the same, unreported, when the agent is gone.
 * Where nobody is left the inner one says OVER and waits for the answer; what was handed in before that is dropped. Only
 * then it reports the end, so that the outer one is silent when a job follows, and answers a kill that crossed the report
 * itself. Whichever of the two ends takes the other along.
 *
 * The commands have the inner one's uid. That lets them change its limits (the outer one began with the same), give it a
 * session keyring and leave signals that wait for it. Where anything of this is not as it was the answer to OVER is no, and
 * the agent gives it no other job; afterwards nobody can change it, since the namespace is empty. Its capability, which
 * no command has, keeps its priorities and processors from them, and that it is not dumpable all else: not from the root
 * of its user namespace, who owns its files in /proc then (oom_score_adj, coredump_filter). With that uid it serves once.
 */
#include "agent.h"
#include "supervisor.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KEYRING_ID = 0, SESSION_KEYRING = -3 }; /* as in <linux/keyctl.h> */

bool own_pid_namespace;
static long keyring;
static bool files_are_theirs;

/* ---- the outer one ---- */

/* The first process's and all below it. */
static void kill_namespace(struct told *told, pid_t first)
{
	struct report *report = &told->report;
	struct rusage usage = used_below(first);
	int found = family_signal(0, NULL);
	kill(first, SIGKILL);
	while (waitpid(first, NULL, 0) < 0 && errno == EINTR)
		;
	if (!report->pid)
		report->pid = told->next_pid; /* its command was not there yet */
	report->killed = found > 1 ? (u32)found - 1 : 0;
	report->rounds = 1;
	report->proof = PROOF_ECHILD;
	report->empty = true;
	if (report->ended)
		return;
	told_ended(told, SIGKILL, &usage);
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

static bool same_limits(pid_t first)
{
	for (int resource = 0; resource < RLIM_NLIMITS; resource++) {
		u64 ours[2], its[2];
		if (syscall(SYS_prlimit64, 0, resource, NULL, ours) || syscall(SYS_prlimit64, first, resource, NULL, its) ||
		    memcmp(ours, its, sizeof ours))
			return false;
	}
	return true;
}

/* BEGUN, OVER, or the end of the inner one, after which *inside is -1: a job that comes then is for another supervisor.
 * Whether the agent is listened to from now on. */
static bool hear(int *inside, pid_t first, bool listening)
{
	struct tell tell;
	if (recv(*inside, &tell, sizeof tell, 0) <= 0) {
		*inside = -1;
		return listening;
	}
	if (tell.kind == TELL_BEGUN)
		return true;
	tell.ok = tell.ok && same_limits(first);
	send(*inside, &tell, sizeof tell, MSG_NOSIGNAL);
	return false;
}

static _Noreturn void stay_outside(int host, int inside, struct told *told, pid_t first)
{
	bool listening = false;
	int status;
	for (;;) {
		struct pollfd polls[] = {{.fd = inside, .events = POLLIN}, {.fd = listening ? host : -1, .events = POLLIN}};
		wait_for_news(polls, 2, -1);
		if (waitpid(first, &status, WNOHANG) == first)
			_exit(0);
		if (polls[1].revents)
			take_tell(host, inside, told, first);
		if (polls[0].revents)
			listening = hear(&inside, first, listening);
	}
}

/* ---- the inner one ---- */

/* A /proc of the new namespace, where the place allows it: else the outer one stays, in which ids are others. */
static void go_inside(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) == 0 &&
	    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0 && cover_proc())
		_exit(1);
}

/* The user namespace's root owns those in /proc of who is not dumpable; the commands may have that uid. */
static bool commands_own_files(void)
{
	struct stat file;
	return stat("/proc/self/oom_score_adj", &file) || file.st_uid == geteuid();
}

static long session_keyring(void)
{
	long id = syscall(SYS_keyctl, KEYRING_ID, SESSION_KEYRING, 0);
	return id < 0 ? -errno : id;
}

/* They take room in what the user may have in all. */
static bool no_signal_waits(void)
{
	u64 waiting = 0;
	return syscall(SYS_rt_sigpending, &waiting, sizeof waiting) == 0 && !(waiting & ~(1ull << (SIGCHLD - 1)));
}

void nest_begun(int outside, bool filtered)
{
	struct tell tell = {.kind = TELL_BEGUN};
	if (!filtered)
		keyring = session_keyring();
	send(outside, &tell, sizeof tell, MSG_NOSIGNAL);
}

bool nest_over(int outside, bool filtered)
{
	bool unchanged = !files_are_theirs && no_signal_waits() && (filtered || session_keyring() == keyring);
	struct tell tell = {.kind = TELL_OVER, .ok = unchanged};
	ssize_t got;
	send(outside, &tell, sizeof tell, MSG_NOSIGNAL);
	do
		got = recv(outside, &tell, sizeof tell, 0);
	while ((got < 0 && errno == EINTR) || (got > 0 && tell.kind != TELL_OVER));
	return got > 0 && tell.ok;
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

void nest(int host, int *tells, struct told *told)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		_exit(1);
	pid_t first = (pid_t)syscall(SYS_clone, CLONE_NEWPID | CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0);
	if (first == 0) {
		close(pair[0]);
		*tells = pair[1];
		go_inside();
		files_are_theirs = commands_own_files();
		return;
	}
	if (first < 0)
		fail(host, errno);
	close(pair[1]);
	stay_outside(host, pair[0], told, first);
}
