/* What is sent to a running exec: input with its queue, signals, sizes. */
#include "exec.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static void input_shut(struct input *input)
{
	if (!input->open)
		return;
	input->open = false;
	watch_remove(&input->watch);
	close(input->watch.fd);
	free(input->data);
	input->data = NULL;
	input->start = input->end = input->room = 0;
}

/* What nobody is told now, the next who attaches is. */
static void taken(struct exec *exec, u64 size)
{
	if (exec->attached)
		op_input_done(&exec->op, size);
	else
		exec->op.taken += size;
}

static void consumed(struct exec *exec, size_t size)
{
	struct input *input = &exec->input;
	size_t own = size < input->uncounted ? size : input->uncounted;
	input->uncounted -= own;
	taken(exec, size - own);
}

static void pump(struct exec *exec)
{
	struct input *input = &exec->input;
	while (input->open && input->start < input->end) {
		ssize_t wrote = write(input->watch.fd, input->data + input->start, input->end - input->start);
		if (wrote < 0 && errno == EINTR)
			continue;
		if (wrote < 0 && errno == EAGAIN) {
			watch_events(&input->watch, EPOLLOUT);
			return;
		}
		if (wrote < 0) {
			input_end(exec);
			return;
		}
		input->start += (size_t)wrote;
		consumed(exec, (size_t)wrote);
	}
	if (!input->open)
		return;
	input->start = input->end = 0;
	watch_events(&input->watch, 0);
	if (input->closing)
		input_shut(input);
}

static void input_ready(struct watch *watch, u32 events)
{
	struct exec *exec = container_of(watch, struct exec, input.watch);
	if (events & (EPOLLERR | EPOLLHUP))
		input_end(exec);
	else
		pump(exec);
}

static bool takes_input(const struct exec *exec)
{
	return exec->flags & FLAG_STDIN_OPEN && exec->input.open && !exec->input.closing;
}

u8 input_told(const struct exec *exec)
{
	u8 stdin_ = !(exec->flags & FLAG_STDIN_OPEN) ? TOLD_GIVEN : takes_input(exec) ? TOLD_OPEN : 0;
	return exec->flags & FLAG_PTY ? stdin_ | TOLD_TERMINAL : stdin_;
}

/* Nobody reads it any more: what is queued and what still comes counts as consumed. */
void input_end(struct exec *exec)
{
	struct input *input = &exec->input;
	size_t queued = input->end - input->start;
	if (!input->open)
		return;
	input_shut(input);
	consumed(exec, queued);
}

bool input_put(struct input *input, const u8 *data, size_t size)
{
	if (input->room - input->end < size) {
		size_t used = input->end - input->start, room = used + size;
		u8 *more = malloc(room);
		if (!more)
			return false;
		if (used)
			memcpy(more, input->data + input->start, used);
		free(input->data);
		input->data = more;
		input->start = 0;
		input->end = used;
		input->room = room;
	}
	memcpy(input->data + input->end, data, size);
	input->end += size;
	return true;
}

void input_begin(struct exec *exec, int fd, bool pty, struct bytes first)
{
	struct input *input = &exec->input;
	input->open = true;
	input->pty = pty;
	watch_add(&input->watch, fd, 0, input_ready);
	if (first.size && input_put(input, first.data, first.size)) {
		input->uncounted = first.size;
		pump(exec);
	}
}

void input_close(struct input *input)
{
	struct exec *exec = container_of(input, struct exec, input);
	if (!input->open || input->closing)
		return;
	if (input->pty) {
		static const u8 end_of_file = 4;
		input_put(input, &end_of_file, 1);
		input->uncounted += 1;
	} else {
		input->closing = true;
	}
	pump(exec);
}

/* ---- frames of a running exec ---- */

static int take_stdin(struct exec *exec, struct reader *r)
{
	struct bytes data = read_rest(r);
	if (!(exec->flags & FLAG_STDIN_OPEN))
		return 0;
	if (!op_take_input(&exec->op, data.size)) {
		exec_kill(exec, REASON_KILL);
		r->bad = true;
		return 0;
	}
	if (!data.size) {
		input_close(&exec->input);
	} else if (!takes_input(exec) || !input_put(&exec->input, data.data, data.size)) {
		taken(exec, data.size);
	} else {
		pump(exec);
	}
	return 0;
}

static int take_size(struct exec *exec, struct reader *r)
{
	struct winsize size = {0};
	size.ws_row = read_u16(r);
	size.ws_col = read_u16(r);
	if (read_end(r) && exec->flags & FLAG_PTY && exec->streams[OUT].open)
		ioctl(exec->streams[OUT].watch.fd, TIOCSWINSZ, &size);
	return 0;
}

static int take_signal(struct exec *exec, struct reader *r)
{
	u32 number = read_u32(r);
	u8 group = read_u8(r);
	if (read_end(r) && number > 0 && number <= 64 && group <= 1 && exec->supervisor && !exec->main_ended && !exec->killing)
		supervisor_tell(exec->supervisor, TELL_SIGNAL, number, group);
	return 0;
}

int exec_frame(struct op *op, u8 code, struct reader *r)
{
	struct exec *exec = container_of(op, struct exec, op);
	switch (code) {
	case OP_STDIN:
		return take_stdin(exec, r);
	case OP_RESIZE:
		return take_size(exec, r);
	case OP_SIGNAL:
		return take_signal(exec, r);
	case OP_KILL:
		if (read_end(r))
			exec_kill(exec, REASON_KILL);
		return 0;
	default:
		return 0;
	}
}
