/* The guest agent's parts and what each offers to the others. One process, one epoll loop, no threads.
 *
 * Integers on the wire are little-endian; the protocol is docs/guest-protocol.md and its names are used here.
 * Functions return 0 or a positive value when well, -errno when not, unless they say otherwise.
 */
#ifndef RINGFENCE_AGENT_H
#define RINGFENCE_AGENT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t i32;

enum {
	PROTOCOL_VERSION = 1,
	MARKER_BYTES = 16,
	HOST_FRAME_CAP = 4 * 1024 * 1024 + 5,  /* `length` of a frame from the host, at most */
	GUEST_FRAME_CAP = 1024 * 1024 + 5,     /* `length` of a frame to the host, at most */
	OUTPUT_WINDOW = 1024 * 1024,           /* bytes sent beyond the last ACK, at most */
	INPUT_WINDOW = 256 * 1024,             /* bytes received beyond the last STDIN_ACK, at most */
	FILE_DATA_CAP = 1024 * 1024,           /* bytes of a written file in one frame, at most */
	CHUNK_BYTES = 64 * 1024,               /* a good size for one read and one frame of data */
	GROUPS_CAP = 256,                      /* supplementary groups of a cred */
};
#define NO_CAP UINT64_MAX

enum {
	OP_HELLO = 0x01, OP_PING, OP_LEASE, OP_SHUTDOWN, OP_KILL_ALL, OP_USER, OP_LIST, OP_CPU_TIME = 0x09, OP_SPACE,
	OP_EXEC = 0x10, OP_STDIN, OP_ACK, OP_SIGNAL, OP_KILL, OP_RESIZE, OP_ATTACH, OP_FORGET,
	OP_STAT = 0x20, OP_LIST_DIR, OP_READ, OP_WRITE, OP_FILE_DATA, OP_FILE_END, OP_MKDIR, OP_REMOVE,
	OP_RENAME, OP_CHMOD, OP_COPY, OP_SYMLINK, OP_READLINK, OP_WATCH, OP_CANCEL, OP_WALK,
	ANSWER_HELLO = 0x41, ANSWER_PONG, ANSWER_DONE, ANSWER_FAIL, ANSWER_USER, ANSWER_LIST, ANSWER_SPACE,
	ANSWER_STARTED = 0x50, ANSWER_OUT, ANSWER_ERR, ANSWER_STDIN_ACK, ANSWER_EXIT,
	ANSWER_DATA = 0x60, ANSWER_ENTRIES, ANSWER_EVENT, ANSWER_SIZE,
};

enum {
	FEATURE_SUBREAPER = 1, FEATURE_PTY = 2, FEATURE_SETFSUID = 4, FEATURE_OOM_COUNTER = 8,
	FEATURE_PIDFD = 16, FEATURE_WATCH = 32, FEATURE_FORWARD = 64, FEATURE_FILTER = 128, FEATURE_DESCRIPTORS = 256,
	FEATURE_ATTACH_STDIN = 512, FEATURE_TELL_START = 1024, FEATURE_SPACE = 2048,
};

/* ---- reader.c: a payload from the host, read in order and never beyond its end ------------------------------ */

struct reader {
	const u8 *at, *end;
	bool bad;  /* something did not fit; every later read gives 0 or an empty string */
};
struct bytes {  /* points into the payload, not NUL-terminated; gone when the handler returns */
	const u8 *data;
	u32 size;
};
struct cred {
	u32 uid, gid, count;
	u32 groups[GROUPS_CAP];
};

u8 read_u8(struct reader *r);
u16 read_u16(struct reader *r);
u32 read_u32(struct reader *r);
u64 read_u64(struct reader *r);
struct bytes read_raw(struct reader *r, u32 size);
struct bytes read_rest(struct reader *r);
struct bytes read_str(struct reader *r);              /* bad when it holds a NUL */
struct bytes read_data(struct reader *r);             /* a `str` of data, where a NUL is fine */
u32 read_count(struct reader *r, u32 least);          /* a u32 count of items of at least `least` bytes each */
void read_cred(struct reader *r, struct cred *cred);  /* bad when it has more than GROUPS_CAP groups */
bool read_end(struct reader *r);                      /* whether all was read and nothing was bad */
/* A NUL-terminated copy into `into`; false when it does not fit, which is ENAMETOOLONG. */
bool copy_str(struct bytes from, char *into, size_t room);

/* ---- loop.c: file descriptors, timers, children --------------------------------------------------------------- */

/* Embed one per descriptor. `ready` may remove and free any watch, its own too. Level-triggered. */
struct watch {
	int fd;
	u32 events;
	void (*ready)(struct watch *watch, u32 events);
	bool added;
};
int watch_add(struct watch *watch, int fd, u32 events, void (*ready)(struct watch *, u32));
void watch_events(struct watch *watch, u32 events);  /* 0: stays known, asks for nothing */
void watch_remove(struct watch *watch);              /* does not close; idempotent */

/* Embed one per deadline; zero-filled is unset. */
struct timer {
	u64 at;
	void (*fire)(struct timer *timer);
	struct timer *next;
	bool set;
};
u64 now_ms(void);  /* CLOCK_BOOTTIME */
u64 now_us(void);
void timer_set(struct timer *timer, u64 milliseconds, void (*fire)(struct timer *));  /* from now; replaces */
void timer_clear(struct timer *timer);  /* idempotent */

/* A process of the agent's own (a supervisor, a worker). `ended` is called from the loop when it was reaped. A child
 * that is not registered is an orphan of a lost supervisor and is killed. */
struct child {
	pid_t pid;
	void (*ended)(struct child *child, int status);
	struct child *next;
};
void child_add(struct child *child, pid_t pid, void (*ended)(struct child *, int));
void child_remove(struct child *child);  /* it is reaped silently later; idempotent */
/* Work done once nothing else is ready, e.g. what follows an answer but need not delay it. */
void when_idle(void (*work)(void));
int loop_run(void);  /* until loop_stop; the exit status of the agent */
void loop_stop(int status);

#define container_of(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))

/* ---- conn.c: the one connection: frames out, frames in ---------------------------------------------------------- */

struct conn;
extern struct conn *const the_conn;

/* One frame: begin, put..., end. All frames of one turn of the loop leave in one write. While no session exists frames
 * are dropped. Between begin and end call nothing but put_*. */
void frame_begin(struct conn *conn, u8 op, u32 id);
void put_u8(struct conn *conn, u8 value);
void put_u16(struct conn *conn, u16 value);
void put_u32(struct conn *conn, u32 value);
void put_u64(struct conn *conn, u64 value);
void put_raw(struct conn *conn, const void *data, size_t size);
void put_str(struct conn *conn, const void *data, size_t size);  /* with its u32 length */
/* Room for up to `size` bytes at the frame's end, to read(2) into; then put_used() says how many there are. Valid until
 * the next put. */
u8 *put_room(struct conn *conn, size_t size);
void put_used(struct conn *conn, size_t size);
size_t frame_size(struct conn *conn);  /* payload bytes so far */
void frame_end(struct conn *conn);
void frame_drop(struct conn *conn);    /* instead of frame_end: as if it had not been begun */
void send_done(struct conn *conn, u32 id);  /* DONE without fields */
void send_fail(struct conn *conn, u32 id, int error, u8 stage, const char *detail);  /* error: positive errno */
void send_stdin_ack(struct conn *conn, u32 id, u64 total);
/* Whether more bulk data may be queued now; when not, wait for your operation's `resume`. */
bool conn_room(struct conn *conn);
bool conn_in_session(struct conn *conn);
/* Whether all of what is pending leaves at the end of this turn, as each frame_end has it. Set back to what it was before
 * some frames, these wait a moment for what follows them: each write wakes the host. */
bool conn_hurries(struct conn *conn);
void conn_set_hurry(struct conn *conn, bool hurry);

/* ---- life.c ------------------------------------------------------------------------------------------------------ */

bool life_detached(void);  /* whether the guest goes on after this session */

/* ---- ops.c: operations that live longer than their first frame -------------------------------------------------- */

/* Embed one in each such operation. Its class gets all later frames of its id. */
struct op {
	u32 id;
	const struct op_class *class;
	struct op *next;
	u64 sent, acked;      /* output window of one stream: bytes sent, bytes the host consumed (set by ACK) */
	u64 received, taken, told;  /* input window: bytes the host sent, consumed, consumed as the host knows */
	bool stalled;         /* set it when you stop for want of room: `resume` is called when there may be some again */
};
struct op_class {
	/* STDIN, SIGNAL, KILL, RESIZE, FILE_DATA, FILE_END, CANCEL of this id. As op_handler below. */
	int (*frame)(struct op *op, u8 code, struct reader *r);
	/* ACK of stream 1 came, or the connection has room again, and `stalled` was set (it is cleared before). */
	void (*resume)(struct op *op);
	/* ACK of another stream than 1; NULL when there is only one. */
	void (*ack)(struct op *op, u8 stream, u64 total);
	/* The session ended: free everything (the op was removed already), unless it is a held exec. */
	void (*lost)(struct op *op);
};
int op_add(struct op *op, u32 id, const struct op_class *class);  /* -EEXIST when the id is in use or 0 */
void op_remove(struct op *op);                                    /* idempotent */
struct op *op_find(u32 id);
u64 op_room(const struct op *op);  /* bytes that may be sent now: the window's rest */
/* Count input; false when it is over the window (answer -EPROTO and end the operation). */
bool op_take_input(struct op *op, u64 size);
/* Consumed that many more: sends STDIN_ACK when it is worth it. */
void op_input_done(struct op *op, u64 size);

/* ---- dispatch.c ------------------------------------------------------------------------------------------------- */

/* The first frame of an operation. 0: it answers by itself, now or later. -errno: FAIL is sent for it, with stage 0 and
 * no detail. When r->bad is set after it, FAIL(EPROTO) is sent instead (so return before any effect when !read_end). */
typedef int op_handler(struct conn *conn, u32 id, struct reader *r);
void dispatch_set(u8 op, op_handler *handler);

/* Defined where they are there; an op whose function is missing is answered with FAIL(ENOSYS). FILE_DATA, FILE_END and
 * CANCEL go to the op_class of their id. */
extern op_handler op_stat __attribute__((weak)), op_list_dir __attribute__((weak)), op_read __attribute__((weak)),
	op_write __attribute__((weak)), op_mkdir __attribute__((weak)), op_remove_path __attribute__((weak)),
	op_rename __attribute__((weak)), op_chmod __attribute__((weak)), op_copy __attribute__((weak)),
	op_symlink __attribute__((weak)), op_readlink __attribute__((weak)), op_watch __attribute__((weak)),
	op_walk __attribute__((weak));

/* Parts that are initialised at the start, before the identity is dropped, when they are there. A part may claim command
 * line options: `option` gets each "--name" with the following argument (or NULL) and returns how many arguments it
 * used (0: not its own; -errno: refused). forward_start: bind ports, register ops 0x30-0x3f with dispatch_set. */
extern int forward_option(const char *name, const char *value) __attribute__((weak));
extern int forward_start(void) __attribute__((weak));
/* After dispatch_start and before the first supervisor is forked: registers FILTER (0x08) with dispatch_set. */
extern int filter_start(void) __attribute__((weak));
extern u64 watch_features(void) __attribute__((weak));  /* FEATURE_WATCH or 0 */
/* In a command's process, last thing before execve (no_new_privs is set, identity dropped, memory shared with its
 * supervisor: change no global state, allocate nothing). */
extern int seccomp_apply(void) __attribute__((weak));

/* ---- keep.c, enter.c: the same program on the host, and before it becomes the guest; what they do is told there ---- */

int keep_main(int count, char **args);
int enter(int count, char ***args);
int mount_proc(const char *path);
int mount_devices(const char *path);
int mount_tmpfs(const char *value);
int cover_proc(void);
/* Options of /dev/pts. max: the kernel counts terminals for the whole host, and one sandbox could hold all of them. */
#define TERMINALS "ptmxmode=0666,mode=620,max=256"

/* show.c: what a command sees of its own confinement; an exit status. */
int show_main(int count, char **args);
/* list.c: what stands in the directories of a repository, on the host; an exit status. */
int list_main(int count, char **args);
/* hold.c: a root that many sandboxes begin with, held for as long as somebody asks for it; an exit status. */
/* bind.c: what is the host's, mounted in a sandbox that runs already, on the host; an exit status. */
int bind_main(int count, char **args);

/* ---- identity.c: whom the agent acts as -------------------------------------------------------------------------- */

extern u32 reserved_uid;
extern bool can_switch;  /* whether it may act as other users at all */
/* Path operations between the two run with the permissions of `cred`. -EPERM for the reserved uid, or where the agent
 * cannot switch and `cred` is not itself. Never return to the loop in between. */
int as_user(const struct cred *cred);
void as_self(void);
/* For good, in a worker process: setresuid(R, U, R), no capability; it cannot be signalled or traced by U. */
int become_worker(const struct cred *cred);
/* Close every descriptor but 0-2 and `first` to `last`. */
void close_all_but(int first, int last);

/* ---- text.c ------------------------------------------------------------------------------------------------------ */

/* The beginning of a file, NUL-terminated: its size; -1, and an empty text, when it cannot be read. */
ssize_t read_text(int directory, const char *path, char *text, size_t room);

#endif
