/* A payload from the host, read in order and never beyond its end. */
#include "agent.h"

#include <string.h>

static const u8 *take(struct reader *r, size_t size)
{
	if (r->bad || (size_t)(r->end - r->at) < size) {
		r->bad = true;
		return NULL;
	}
	const u8 *here = r->at;
	r->at += size;
	return here;
}

static u64 number(struct reader *r, size_t size)
{
	const u8 *from = take(r, size);
	u64 value = 0;
	for (size_t i = 0; from && i < size; i++)
		value |= (u64)from[i] << (8 * i);
	return value;
}

u8 read_u8(struct reader *r) { return (u8)number(r, 1); }
u16 read_u16(struct reader *r) { return (u16)number(r, 2); }
u32 read_u32(struct reader *r) { return (u32)number(r, 4); }
u64 read_u64(struct reader *r) { return number(r, 8); }

struct bytes read_raw(struct reader *r, u32 size)
{
	const u8 *from = take(r, size);
	return from ? (struct bytes){from, size} : (struct bytes){(const u8 *)"", 0};
}

struct bytes read_rest(struct reader *r)
{
	return read_raw(r, r->bad ? 0 : (u32)(r->end - r->at));
}

struct bytes read_data(struct reader *r)
{
	return read_raw(r, read_u32(r));
}

struct bytes read_str(struct reader *r)
{
	struct bytes text = read_data(r);
	if (memchr(text.data, 0, text.size)) {
		r->bad = true;
		text.size = 0;
	}
	return text;
}

u32 read_count(struct reader *r, u32 least)
{
	u32 count = read_u32(r);
	if (!r->bad && (u64)count * least > (u64)(r->end - r->at))
		r->bad = true;
	return r->bad ? 0 : count;
}

void read_cred(struct reader *r, struct cred *cred)
{
	cred->uid = read_u32(r);
	cred->gid = read_u32(r);
	cred->count = read_count(r, 4);
	if (cred->count > GROUPS_CAP) {
		r->bad = true;
		cred->count = 0;
	}
	for (u32 i = 0; i < cred->count; i++)
		cred->groups[i] = read_u32(r);
}

bool read_end(struct reader *r)
{
	if (r->at != r->end)
		r->bad = true;
	return !r->bad;
}

bool copy_str(struct bytes from, char *into, size_t room)
{
	if (from.size >= room)
		return false;
	memcpy(into, from.data, from.size);
	into[from.size] = 0;
	return true;
}
