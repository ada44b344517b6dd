/* An exec as the agent sees it. exec.c: its life; exec_output.c and
 * exec_input.c: its streams; pool.c: its supervisor. */
#ifndef RINGFENCE_EXEC_H
#define RINGFENCE_EXEC_H

#include "agent.h"
#include "core.h"
#include "supervisor.h"

enum { REASON_ITSELF, REASON_TIMEOUT, REASON_KILL, REASON_CAP, REASON_COLLATERAL, REASON_LOST, REASON_CPU_TIME };
enum { OUT, ERR, HELD_BYTES = 1024 * 1024 };
enum { TOLD_OPEN = 1, TOLD_GIVEN = 2, TOLD_TERMINAL = 4 };

struct exec;

/* Output. Offsets count all bytes the command wrote; those from `cap` on are dropped. */
struct stream {
	struct watch watch;
	struct exec *exec;
	u64 total, sent, cap;
	u64 acked;     /* of stderr; stdout's is the operation's */
	u64 quota;     /* bytes still read after the wait for children is over */
	bool open, stalled, drained, widened;
	u8 *ring;      /* of a held exec: byte n of the output at n % HELD_BYTES */
};

struct input {
	struct watch watch;
	u8 *data;
	size_t start, end, room;
	size_t uncounted;  /* bytes of EXEC itself at the front, not acknowledged */
	bool open, closing, pty;
};

struct supervisor {
	struct watch watch;
	struct child child;
	int theirs;         /* its own end of the socket; -1: closed */
	struct told *told;  /* shared with it */
	struct exec *exec;
	struct supervisor *next;
	u32 filter_changes;  /* when it was taken */
	bool stopped_others; /* the others of its command's user, for a while */
	bool counted;        /* among the processes that its command's user may have, and these are limited */
	bool grown;          /* by a large job: its peak of memory would be every later command's, which begins in it */
};

struct exec {
	struct op op;
	u32 id;
	struct exec *next;
	struct supervisor *supervisor;
	struct stream streams[2];
	struct input input;
	int terminal;  /* the other side of its terminal, so that the command may close it and open it again; -1: none */
	u32 flags, uid, pid, grace_ms;
	u8 reason, given; /* given: to how many supervisors, one after the other */
	bool started, main_ended, killing, killed, late, dropping, over, lost, attached, forgotten, removed;
	bool counted, ran; /* KILL_ALL waits for it; its command ran when that came */
	bool answering;  /* FORGET waits for its end */
	bool begun;      /* of a lost one: its supervisor was about to start it, or did */
	bool tells;      /* its STARTED says what becomes of input */
	u32 proof, killed_count, rounds;
	u32 hunted;      /* rounds after its orphans */
	int status;
	struct rusage usage;
	u64 begun_us, wall_us, oom_before, oom_after;
	struct timer timeout, drain, stuck;
	u8 *args;      /* a `list` as on the wire */
	size_t args_size;
};

/* exec.c, exec_lost.c */
extern struct exec *execs;
bool exec_settle(struct exec *exec);
void exec_kill(struct exec *exec, u8 reason);
/* A command that ended before anything of its timeout reached it ended by itself. Its status is known. */
void exec_judge(struct exec *exec, bool reached);
void exec_limit(struct exec *exec, u64 milliseconds);  /* its timeout, from now */
void exec_free(struct exec *exec);
void exec_reported(struct exec *exec, const struct report *report);
void exec_recover(struct exec *exec, const struct report *last); /* what its supervisor did not come to report */
void exec_finish(struct exec *exec);  /* send what ends it; may free it */
/* last: what it knew, reported or not. */
void exec_supervisor_ended(struct exec *exec, const struct told *last, bool well);
void exec_hunt(void);  /* kill the agent's own children that nobody registered, until there are none */
void exec_collateral(u32 uid, const struct exec *cause);

/* exec_ops.c */
void exec_send_started(const struct exec *exec);

/* kill_all.c */
void kill_all_reported(struct exec *exec, u32 killed);

/* exec_make.c: from the EXEC frame to a command that is being started. */
int exec_make(struct exec *exec, struct reader *r, u64 *timeout_ms);

/* exec_output.c, exec_input.c */
void stream_begin(struct stream *stream, struct exec *exec, int fd);
void stream_read(struct stream *stream);
void stream_end(struct stream *stream);
void stream_set_quota(struct stream *stream);
bool stream_delivered(const struct stream *stream);
void stream_attach(struct stream *stream, u64 offset);
void streams_watch(struct exec *exec);
void streams_resume(struct exec *exec);
bool input_put(struct input *input, const u8 *data, size_t size);
void input_close(struct input *input);
void input_begin(struct exec *exec, int fd, bool pty, struct bytes first);
void input_end(struct exec *exec);
u8 input_told(const struct exec *exec);  /* for STARTED */
int exec_frame(struct op *op, u8 code, struct reader *r);

/* descriptors.c: those that came with the frame at hand; -EBADF when they are not `count`. They are the caller's to close. */
int descriptors_take(int *fds, int count);
/* Close those that came with an EXEC of which nothing was read yet. */
void descriptors_refuse(struct reader *r);

/* pool.c */
struct supervisor *supervisor_take(void);  /* NULL with errno */
void supervisor_tell(struct supervisor *supervisor, u32 kind, u32 number, bool flag);
void supervisor_has_read(struct supervisor *supervisor); /* its job */
void supervisor_free(struct supervisor *supervisor);     /* it has nobody left: for the next exec */
void supervisor_dismiss(struct supervisor *supervisor);  /* the agent has no more jobs for it */
void supervisors_renew(void);  /* those that wait are replaced */
void pool_fill(void);          /* once there is time */
void pool_refill(void);        /* the same, after a while where most commands end sooner */

/* job_give.c */
int job_give(struct exec *exec, const struct job *job, const char *strings, const int *fds, int count);
/* Whether another has what the one that ended did not read. */
bool job_give_again(struct supervisor *ended);

#endif
