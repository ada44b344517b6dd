/* From an EXEC frame to a supervisor with a job: pipes or a terminal of the command's user, and what it shall run. */
#include "exec.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <termios.h>
#include <unistd.h>

enum { SHOWN_ARGS_BYTES = 4096, FILES_LEFT = 16 };

/* Both sides of an exec's descriptors; -1 where there is none. */
struct ends {
	int ours[3];
	int theirs[3];
};

struct request {
	struct job job;
	char *strings;
	struct bytes cwd, input;
	u64 timeout_ms;
	int cgroups[CGROUPS_MOST], cgroups_count;
};

static void add_string(struct request *request, struct bytes text)
{
	memcpy(request->strings + request->job.strings, text.data, text.size);
	request->strings[request->job.strings + text.size] = 0;
	request->job.strings += text.size + 1;
}

static u32 add_list(struct request *request, struct reader *r)
{
	u32 number = read_count(r, 4);
	for (u32 i = 0; i < number && !r->bad; i++)
		add_string(request, read_str(r));
	return number;
}

/* The first args, for LIST. */
static void keep_args(struct exec *exec, const u8 *from, const u8 *to)
{
	struct reader r = {from, to, false};
	u32 number = read_count(&r, 4), whole = 0;
	const u8 *end = r.at;
	while (whole < number && r.at - from <= SHOWN_ARGS_BYTES) {
		end = r.at;
		read_str(&r);
		if (r.at - from > SHOWN_ARGS_BYTES)
			break;
		end = r.at;
		whole++;
	}
	exec->args = malloc((size_t)(end - from));
	if (!exec->args)
		return;
	exec->args_size = (size_t)(end - from);
	memcpy(exec->args, from, exec->args_size);
	for (int i = 0; i < 4; i++)
		exec->args[i] = (u8)(whole >> (8 * i));
}

static void parse(struct exec *exec, struct request *request, struct reader *r)
{
	struct job *job = &request->job;
	job->kind = TELL_JOB;
	job->flags = exec->flags = read_u32(r);
	read_cred(r, &job->cred);
	request->timeout_ms = read_u64(r);
	exec->grace_ms = read_u32(r);
	exec->streams[OUT].cap = read_u64(r);
	exec->streams[ERR].cap = read_u64(r);
	job->rows = read_u16(r);
	job->columns = read_u16(r);
	job->limit_count = read_count(r, 20);
	if (job->limit_count > LIMITS_CAP)
		r->bad = true;
	for (u32 i = 0; i < job->limit_count && !r->bad; i++) {
		job->limits[i].resource = read_u32(r);
		job->limits[i].soft = read_u64(r);
		job->limits[i].hard = read_u64(r);
	}
	add_string(request, read_str(r));
	const u8 *args = r->at;
	job->args_count = add_list(request, r);
	const u8 *env = r->at;
	job->env_count = add_list(request, r);
	request->input = read_data(r);
	if (!job->args_count || job->flags >= FLAGS_END)
		r->bad = true;
	if (read_end(r))
		keep_args(exec, args, env);
}

static int make_pipe(int *read_end_, int *write_end, int *keep)
{
	int pair[2];
	if (pipe2(pair, O_CLOEXEC))
		return -errno;
	*read_end_ = pair[0];
	*write_end = pair[1];
	fcntl(*keep, F_SETFL, O_NONBLOCK);
	return 0;
}

/* All of stdin at once lies in a memory file: nothing waits for it to be read. */
static int make_input_file(struct bytes input)
{
	int fd = memfd_create("stdin", MFD_CLOEXEC);
	size_t done = 0;
	if (fd < 0)
		return -errno;
	while (done < input.size) {
		ssize_t wrote = write(fd, input.data + done, input.size - done);
		if (wrote <= 0) {
			int error = wrote ? -errno : -ENOSPC;
			close(fd);
			return error;
		}
		done += (size_t)wrote;
	}
	lseek(fd, 0, SEEK_SET);
	return fd;
}

static int make_input(const struct request *request, struct ends *ends)
{
	if (request->job.flags & FLAG_STDIN_OPEN)
		return make_pipe(&ends->theirs[0], &ends->ours[0], &ends->ours[0]);
	int fd = request->input.size ? make_input_file(request->input) : open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (fd == -EINVAL || (fd < 0 && !request->input.size))
		fd = make_input_file(request->input);
	ends->theirs[0] = fd;
	return fd < 0 ? (request->input.size ? fd : -errno) : 0;
}

static int make_pipes(const struct request *request, struct ends *ends)
{
	int error = make_input(request, ends);
	if (!error)
		error = make_pipe(&ends->ours[1], &ends->theirs[1], &ends->ours[1]);
	if (!error && request->job.flags & FLAG_JOIN)
		ends->theirs[2] = fcntl(ends->theirs[1], F_DUPFD_CLOEXEC, 3);
	else if (!error)
		error = make_pipe(&ends->ours[2], &ends->theirs[2], &ends->ours[2]);
	return error;
}

static int open_other_side(int master)
{
	int number;
	char name[32];
	int fd = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fd >= 0 || ioctl(master, TIOCGPTN, &number))
		return fd;
	snprintf(name, sizeof name, "/dev/pts/%d", number);
	return open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
}

static int make_terminal(const struct request *request, struct ends *ends)
{
	struct winsize size = {.ws_row = request->job.rows, .ws_col = request->job.columns};
	int unlocked = 0;
	int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (master < 0)
		return -errno;
	ends->ours[1] = master;
	if (ioctl(master, TIOCSPTLCK, &unlocked) || ioctl(master, TIOCSWINSZ, &size))
		return -errno;
	ends->ours[0] = fcntl(master, F_DUPFD_CLOEXEC, 3);
	ends->theirs[0] = open_other_side(master);
	return ends->theirs[0] < 0 ? -errno : 0;
}

static int make_ends(const struct request *request, struct ends *ends)
{
	const struct cred *cred = &request->job.cred;
	int error = make_as(cred->uid, cred->gid);
	if (error)
		return error;
	error = request->job.flags & FLAG_PTY ? make_terminal(request, ends) : make_pipes(request, ends);
	as_self();
	return error;
}

static void close_ends(int fds[3])
{
	for (int i = 0; i < 3; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

static int hold(struct exec *exec)
{
	for (int i = 0; exec->flags & FLAG_HOLD && i < 2; i++)
		if (!(exec->streams[i].ring = malloc(HELD_BYTES)))
			return -ENOMEM;
	return 0;
}

static int start(struct exec *exec, const struct request *request, struct ends *ends)
{
	int fds[JOB_FDS], count = request->job.flags & FLAG_PTY ? 1 : 3;
	int error = hold(exec);
	if (error)
		return error;
	memcpy(fds, ends->theirs, (size_t)count * sizeof *fds);
	memcpy(fds + count, request->cgroups, (size_t)request->cgroups_count * sizeof *fds);
	error = job_give(exec, &request->job, request->strings, fds, count + request->cgroups_count);
	if (error)
		return error;
	for (int i = 0; i < 2; i++)
		stream_begin(&exec->streams[i], exec, ends->ours[i + 1]);
	if (ends->ours[0] >= 0)
		input_begin(exec, ends->ours[0], request->job.flags & FLAG_PTY, request->input);
	return 0;
}

/* Execs leave some descriptors to all else that the agent does. */
static bool too_many(const struct ends *ends)
{
	struct rlimit files;
	return getrlimit(RLIMIT_NOFILE, &files) == 0 && (rlim_t)ends->ours[1] + FILES_LEFT >= files.rlim_cur;
}

static int make(struct exec *exec, const struct request *request, u8 *stage)
{
	struct ends ends = {{-1, -1, -1}, {-1, -1, -1}};
	*stage = request->job.flags & FLAG_PTY ? STAGE_PTY : STAGE_LIMITS;
	if (request->job.cred.uid == reserved_uid && can_switch) {
		*stage = STAGE_USER;
		return -EPERM;
	}
	int error = make_ends(request, &ends);
	if (!error) {
		*stage = STAGE_LIMITS;
		error = too_many(&ends) ? -EMFILE : start(exec, request, &ends);
	}
	if (!error && request->job.flags & FLAG_PTY) {
		exec->terminal = ends.theirs[0];
		ends.theirs[0] = -1;
	}
	close_ends(ends.theirs);
	if (error)
		close_ends(ends.ours);
	return error;
}

static int take_cgroups(struct request *request)
{
	int count = cgroups_in(request->job.flags);
	int error = count ? descriptors_take(request->cgroups, count) : 0;
	request->cgroups_count = error ? 0 : count;
	return error;
}

/* 0: it is being started. Else FAIL is sent, or r->bad is set, and the exec is the caller's to free. */
int exec_make(struct exec *exec, struct reader *r, u64 *timeout_ms)
{
	struct request request = {0};
	u8 stage = STAGE_LIMITS;
	int error;
	request.strings = malloc((size_t)(r->end - r->at) + 1);
	if (!request.strings) {
		descriptors_refuse(r);
		send_fail(the_conn, exec->id, ENOMEM, stage, "");
		return -ENOMEM;
	}
	parse(exec, &request, r);
	exec->uid = request.job.cred.uid;
	*timeout_ms = request.timeout_ms;
	error = take_cgroups(&request);
	if (error)
		stage = STAGE_CGROUP;
	else
		error = r->bad ? -EPROTO : make(exec, &request, &stage);
	for (int i = 0; i < request.cgroups_count; i++)
		close(request.cgroups[i]);
	free(request.strings);
	if (error && !r->bad)
		send_fail(the_conn, exec->id, -error, stage, "the command could not be prepared");
	return error;
}
