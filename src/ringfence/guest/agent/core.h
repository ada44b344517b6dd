/* What the core's own files share; the other parts use agent.h only. */
#ifndef RINGFENCE_CORE_H
#define RINGFENCE_CORE_H

#include "agent.h"

#include <sys/resource.h>

struct usage {
	struct rusage rusage;
};

struct options {
	const char *socket_directory;  /* NULL: the stream on descriptors 0 and 1 */
	u32 connected;                 /* a descriptor of a stream to speak on before the directory's socket is dialled, or 0 */
	u8 marker[MARKER_BYTES];
	bool has_marker;
	u32 lease_ms;
};

/* loop.c */
int loop_start(void);
void loop_turn(int milliseconds);  /* waits that long at most, -1: without end */
void children_reap(void);
bool child_known(pid_t pid);

/* conn.c */
void conn_start(const struct options *options);
void conn_flush(struct conn *conn);
void conn_turn(struct conn *conn);
void conn_greeted(struct conn *conn, const u8 *next_marker);
void conn_end_session(struct conn *conn);
void conn_refuse(struct conn *conn);

/* dispatch.c */
void dispatch(struct conn *conn, u8 op, u32 id, struct reader *r);
void dispatch_start(void);

/* ops.c */
void ops_lost(void);
void ops_resume(void);
void op_restore(struct op *op);  /* op_add, with its windows as they were */
void op_acked(struct op *op, u8 stream, u64 total);

/* life.c */
void lifeline_given(int descriptor);  /* open already; its end ends everything */
void life_start(const struct options *options);
void life_heard(void);
void life_stream_lost(bool for_good);
void life_shutdown(void);
u64 life_epoch(void);
op_handler op_hello, op_ping, op_lease, op_shutdown;
u64 features(void);

/* users.c */
op_handler op_user;

/* exec.c, exec_ops.c, kill_all.c */
op_handler op_exec, op_list, op_attach, op_forget, op_kill_all;
void kill_all_lost(void);
void exec_kill_ended(u32 id);
void exec_orphan_ended(pid_t pid, int status, const struct usage *usage);
extern bool filter_follows;  /* so supervisors are not forked before, that it be installed ahead in each */
void exec_start(void);

/* cpu_time.c */
op_handler op_cpu_time;
bool cpu_time_spent(void);  /* no command starts any more */

/* space.c */
op_handler op_space;

/* identity.c */
void identity_start(u32 wanted_uid);
int set_capabilities(u32 effective, u32 permitted);
extern u32 root_capabilities;  /* what commands of root have, of the first 32 */
u32 capabilities_of(u32 uid);  /* of a command of this user */
int make_as(u32 uid, u32 gid);  /* like as_user for pipes, ptys and memfds: no groups */
/* As PID 1: signal every process whose user is `uid`, no other. False where that is not possible. */
bool signal_uid(u32 uid, int number);

/* command.c */
void open_files_raise(void);  /* for the agent alone: commands start with what it was given */
int open_files_restore(void); /* to what was given; -1 with errno */

/* oom.c */
void oom_given(int descriptor);  /* its file, open already */
void oom_start(void);
u64 oom_kills(void);  /* UINT64_MAX: unknown */

#endif
