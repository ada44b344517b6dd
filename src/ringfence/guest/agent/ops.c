/* Operations that live longer than their first frame, by id, and their windows. */
#include "agent.h"
#include "core.h"

enum { BUCKETS = 256, INPUT_ACK_BYTES = INPUT_WINDOW / 4 };

static struct op *table[BUCKETS];

struct op *op_find(u32 id)
{
	struct op *op = table[id % BUCKETS];
	while (op && op->id != id)
		op = op->next;
	return op;
}

int op_add(struct op *op, u32 id, const struct op_class *class)
{
	if (!id || op_find(id))
		return -EEXIST;
	*op = (struct op){.id = id, .class = class};
	op_restore(op);
	return 0;
}

void op_restore(struct op *op)
{
	op->next = table[op->id % BUCKETS];
	table[op->id % BUCKETS] = op;
}

void op_remove(struct op *op)
{
	for (struct op **at = &table[op->id % BUCKETS]; *at; at = &(*at)->next)
		if (*at == op) {
			*at = op->next;
			return;
		}
}

u64 op_room(const struct op *op)
{
	u64 beyond = op->sent - op->acked;
	return beyond < OUTPUT_WINDOW ? OUTPUT_WINDOW - beyond : 0;
}

static void resume(struct op *op)
{
	if (op->stalled && op->class->resume) {
		op->stalled = false;
		op->class->resume(op);
	}
}

void op_acked(struct op *op, u8 stream, u64 total)
{
	if (stream != 1) {
		if (op->class->ack)
			op->class->ack(op, stream, total);
	} else if (total > op->acked && total <= op->sent) {
		op->acked = total;
		resume(op);
	}
}

/* A resumed operation may end and free itself, but no other. */
void ops_resume(void)
{
	for (int i = 0; i < BUCKETS; i++) {
		struct op *op = table[i];
		while (op && conn_room(the_conn)) {
			struct op *next = op->next;
			resume(op);
			op = next;
		}
	}
}

void ops_lost(void)
{
	kill_all_lost();
	for (int i = 0; i < BUCKETS; i++) {
		struct op *op = table[i];
		table[i] = NULL;
		while (op) {
			struct op *next = op->next;
			op->class->lost(op);
			op = next;
		}
	}
}

bool op_take_input(struct op *op, u64 size)
{
	if (size > INPUT_WINDOW - (op->received - op->taken))
		return false;
	op->received += size;
	return true;
}

void op_input_done(struct op *op, u64 size)
{
	op->taken += size;
	if (op->taken != op->told && (op->taken == op->received || op->taken - op->told >= INPUT_ACK_BYTES)) {
		op->told = op->taken;
		send_stdin_ack(the_conn, op->id, op->taken);
	}
}
