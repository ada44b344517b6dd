/* Between the agent and the supervisors: one process per exec, a child subreaper under the reserved uid, which starts the
 * command, waits for it and kills its family. Messages travel over a SOCK_SEQPACKET pair. A supervisor whose command left
 * nobody behind serves the next exec.
 */
#ifndef RINGFENCE_SUPERVISOR_H
#define RINGFENCE_SUPERVISOR_H

#include "agent.h"

#include <sys/resource.h>

/* How many cgroups a command begins in stands in its flags from this bit on. */
enum { CGROUPS_SHIFT = 6, CGROUPS_MOST = 7, FLAG_TELL_START = (CGROUPS_MOST + 1) << CGROUPS_SHIFT };
enum { FLAGS_END = FLAG_TELL_START << 1 };
static inline int cgroups_in(u32 flags) { return (int)(flags >> CGROUPS_SHIFT & CGROUPS_MOST); }
enum { LIMITS_CAP = 16, INLINE_STRINGS = 32 * 1024, JOB_FDS = 3 + CGROUPS_MOST + 1 };

enum { FLAG_STDIN_OPEN = 1, FLAG_PTY = 2, FLAG_JOIN = 4, FLAG_HOLD = 8, FLAG_KILL_ON_CAP = 16, FLAG_SEARCH_PATH = 32 };
enum { STAGE_LIMITS = 1, STAGE_USER, STAGE_CWD, STAGE_EXEC, STAGE_PTY, STAGE_CGROUP };
enum { PROOF_NONE, PROOF_ECHILD, PROOF_USER_KILLED, PROOF_LEFT_RUNNING };

enum { TELL_JOB = 1, TELL_SIGNAL, TELL_TIMEOUT, TELL_KILL, TELL_SIGNALLED, TELL_BEGUN, TELL_OVER };

struct limit {
	u32 resource;
	u64 soft, hard;
};

/* What to run. Strings: cwd, args, env, each NUL-terminated, behind it in the message or in a memfd when larger than
 * INLINE_STRINGS. Descriptors with it: 0, 1, 2 of the command (with a pty: its other side alone), the `tasks` files of
 * its cgroups, then the memfd. */
struct job {
	u32 kind, flags, limit_count, args_count, env_count;
	u64 strings;
	u16 rows, columns;
	struct cred cred;
	struct limit limits[LIMITS_CAP];
};

struct tell {
	u32 kind, number;
	bool group, ok;
};

enum { REPORT_STARTED = 1, REPORT_FAILED = 2, REPORT_EXITED = 4, REPORT_KILLED = 8, REPORT_NEEDS_SIGNAL = 16, REPORT_HEARD = 32 };

struct report {
	u32 kinds;
	u32 pid;
	int error, stage;
	int status;  /* of the main process, once it ended, in every report after that */
	bool ended, empty;
	bool free;       /* nobody is left, and the supervisor is as it was: it can have the next job */
	bool timed_out;  /* a TELL_TIMEOUT came before the main process was seen to have ended */
	struct rusage usage;
	u64 ended_us;
	u32 proof, killed, rounds;
	/* HEARD: a TELL_KILL was, at once. */
	int number;  /* NEEDS_SIGNAL: to all processes of the exec's user; answered with TELL_SIGNALLED */
};

/* What was reported so far, or is about to be. The agent clears it before each job, and reads it when the supervisor is
 * gone: `pid` and `ended` are set last. */
struct told {
	struct report report;
	bool begun; /* its command may be there from now on */
	bool start, exit;
	u32 next_pid;  /* of the command, where it is killed before it is there */
};

/* supervisor.c: the life of a supervisor; does not return. */
_Noreturn void supervise(int fd, struct told *told);
void told_ended(struct told *told, int status, const struct rusage *usage);
bool have_subreaper(void);
void report_send(int fd, struct told *what, u32 kinds);  /* with STARTED and EXITED when they are due */
struct pollfd;
/* Until one of `polls` has something (true), a child ended or `ns` passed; negative: no limit. */
bool wait_for_news(struct pollfd *polls, unsigned count, long ns);

/* command.c: start the job's command; its pid, or -errno with *stage. fds: its 0, 1 and 2. filtered: it inherits the
 * filter. */
struct command {
	const struct job *job;
	char *cwd, **args, **env, *mapped;
	int fds[3], received[JOB_FDS], count;
	const int *cgroups;
	int cgroups_count;
	bool filtered;
	int error, stage;
};
pid_t command_start(struct command *command);

/* job.c: wait for the next job; but for a kill, what was told to an earlier exec is dropped. */
enum next { JOB_TAKEN, JOB_KILL, JOB_NONE };  /* a job; kill what is there; the agent has no more */
enum next job_receive(int host, struct command *command);
void job_free(const struct command *command);

/* nest.c: go on as the first process of a new pid namespace, with `tells` from the supervisor that stays outside. That
 * listens to the agent from BEGUN to OVER. */
extern bool own_pid_namespace;
void nest(int host, int *tells, struct told *told);
void nest_begun(int outside, bool filtered);
bool nest_over(int outside, bool filtered);  /* nobody is left; whether the commands changed nothing */

/* used.c: what the first of the children of `pid` used, with those that it waited for; all 0 where there is none. */
struct rusage used_below(pid_t pid);

/* filter.c: install the filter that is present, where all that a supervisor and a command before its execve do is allowed
 * under it: commands inherit it then. */
bool seccomp_ahead(void) __attribute__((weak));
/* How often the filter was changed: what was made under another one is not used again. */
extern u32 filter_changes;

/* family.c: all descendants of the calling process. */
enum { WALK_FAILED = -1 };
/* How many there are, zombies included; each is sent the signal, except those that are `spared` (NULL: none) and theirs. */
int family_signal(int number, bool (*spared)(pid_t));

#endif
