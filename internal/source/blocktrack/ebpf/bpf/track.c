// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// Marks what is written to the watched disks, in a bitmap per disk. Nothing is
// streamed to the agent, so nothing can be dropped on the way.
//
// A write is marked twice: when its bio is queued, and when the request that it
// became completes. The mark at completion is what makes reading safe: who clears
// a bit and reads while the write is on its way finds the bit set again once the
// data has landed. The mark at queueing shows at once that the disk is at work.
//
// A request names one range only, and discards merged into it lie elsewhere: their
// bios are walked.
//
// No kernel headers are needed: the structures below name the fields that are
// used, and the loader finds them in the running kernel by its BTF.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define VERIFIED_ALONE __attribute__((noinline)) // and not again at every call

#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#define __array(name, val) typeof(val) *name[]

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;

#define BPF_MAP_TYPE_HASH 1
#define BPF_MAP_TYPE_ARRAY 2
#define BPF_MAP_TYPE_PERCPU_ARRAY 6
#define BPF_MAP_TYPE_ARRAY_OF_MAPS 12
#define BPF_F_MMAPABLE (1U << 10)
#define BPF_F_INNER_MAP (1U << 12)
#define BPF_NOEXIST 1

// Fields of the kernel's structures, wherever they lie in the running one.
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct gendisk {
	int major;
	int first_minor;
};

struct block_device {
	struct gendisk *bd_disk;
};

struct bvec_iter {
	u64 bi_sector;
	u32 bi_size;
};

struct bio {
	struct bio *bi_next;
	struct block_device *bi_bdev;
	u32 bi_opf;
	struct bvec_iter bi_iter;
};

struct request_queue {
	struct gendisk *disk; // since Linux 5.15
};

struct request {
	struct request_queue *q;
	u32 cmd_flags;
	u32 __data_len;
	u64 __sector;
	struct bio *bio;
};

struct request___before_5_17 {
	struct gendisk *rq_disk;
};

#pragma clang attribute pop

#define field_exists(field) __builtin_preserve_field_info(field, 2)

enum {
	OP_MASK = 0xff,
	OP_READ = 0,
	OP_FLUSH = 2,
	OP_DISCARD = 3,
	OP_ZONE_FIRST = 10, // zoned disks are refused; who gets here all the same
	OP_ZONE_LAST = 17,
	OP_PASS_FIRST = 32, // up to 35; what sends data to the device is odd
	OP_PASS_LAST = 35,
};

// Set by the loader: log2 of the bytes that one bit stands for.
const volatile u32 grain_shift = 12;

// A range of more than FINE_GRAINS is marked in the coarse bitmap behind the fine
// one, a bit for 1 << COARSE_SHIFT grains, so that a large discard costs no more
// than a write.
#define COARSE_SHIFT 12
#define FINE_GRAINS (2 << COARSE_SHIFT)

// Why a disk's bits are no longer all there is. The order is the loader's too.
enum {
	VOID_PASSTHROUGH = 1 << 0,
	VOID_BEYOND_END = 1 << 1,
	VOID_UNKNOWN = 1 << 2,
};

#define MAX_DISKS 64
#define MAX_RANGES 256 // of one discard, as NVMe has it

struct disk {
	u32 slot;
	u32 flags;
	u64 grains;    // covered by the bitmap
	u64 coarse_at; // word where the coarse bitmap begins
};

enum {
	DISK_NVME = 1 << 0, // a pass-through command without data may write
	DISK_HEAD = 1 << 1, // of several paths, which serve its requests
};

struct state {
	u32 dirty[2]; // by buffer: a bit may be set
	u32 void_reasons;
	u32 unused;
	u64 queued; // writes ever seen when they were queued
	u64 padding[5];
};

struct control {
	u32 active; // the buffer that bits are set in, 0 or 1
	u32 full;   // all copies of a program were at work at once on a processor
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4 * MAX_DISKS); // paths of disks come on top
	__type(key, u32);                   // number of the whole disk, as the kernel encodes it
	__type(value, struct disk);
} disks SEC(".maps");

// The same by slot.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_DISKS);
	__type(key, u32);
	__type(value, struct disk);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32);
	__type(value, struct control);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_DISKS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32);
	__type(value, struct state);
} states SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} depth SEC(".maps");

struct bitmap {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	__type(key, u32);
	__type(value, u64);
};

// Two bitmaps for each disk: slot*2 and slot*2+1.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2 * MAX_DISKS);
	__type(key, u32);
	__type(value, u32);
	__array(values, struct bitmap);
} bitmaps SEC(".maps");

// No program reads this one: an update of a map of maps returns when all programs
// that were running have ended, which is what a swap waits for.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
	__array(values, struct bitmap);
} barrier SEC(".maps");

INLINE u32 number_of(struct gendisk *g)
{
	return (u32)g->major << 20 | (u32)g->first_minor;
}

INLINE struct disk *disk_of(struct gendisk *g)
{
	u32 dev = number_of(g);

	return bpf_map_lookup_elem(&disks, &dev);
}

INLINE void set_void(struct state *st, u32 reason)
{
	__sync_fetch_and_or(&st->void_reasons, reason);
	st->dirty[0] = st->dirty[1] = 1;
}

// writes tells whether an operation may change the disk. What is not known to
// leave it alone may.
INLINE int writes(u32 opf)
{
	u32 op = opf & OP_MASK;

	return op != OP_READ && op != OP_FLUSH;
}

INLINE int set_bits(void *bitmap, struct state *st, u32 word, u64 mask)
{
	u64 *p = bpf_map_lookup_elem(bitmap, &word);

	if (!p)
		set_void(st, VOID_UNKNOWN);
	else if ((*(volatile u64 *)p & mask) != mask)
		__sync_fetch_and_or(p, mask);
	return 0;
}

// mark sets the bits of a range of the disk in the active buffer.
VERIFIED_ALONE int mark(u32 slot, u64 sector, u64 bytes)
{
	u32 zero = 0, shift = grain_shift, active, at, begin, end;
	struct state *st = bpf_map_lookup_elem(&states, &slot);
	struct disk *d = bpf_map_lookup_elem(&slots, &slot);
	struct control *c = bpf_map_lookup_elem(&control, &zero);
	u64 first, last, base = 0, head, tail;
	void *bitmap;
	int i;

	if (!st || !d || !c || !bytes)
		return 0;
	active = *(volatile u32 *)&c->active & 1;
	at = slot * 2 + active;
	bitmap = bpf_map_lookup_elem(&bitmaps, &at);
	if (!bitmap) {
		set_void(st, VOID_UNKNOWN);
		return 0;
	}
	if (!*(volatile u32 *)&st->dirty[active])
		st->dirty[active] = 1;
	first = sector << 9 >> shift;
	last = ((sector << 9) + bytes - 1) >> shift;
	if (last >= d->grains) {
		set_void(st, VOID_BEYOND_END);
		if (first >= d->grains || !d->grains)
			return 0;
		last = d->grains - 1;
	}
	if (last - first >= FINE_GRAINS) {
		first >>= COARSE_SHIFT;
		last >>= COARSE_SHIFT;
		base = d->coarse_at;
	}
	head = ~0ULL << (first & 63);
	tail = ~0ULL >> (63 - (last & 63));
	begin = base + (first >> 6);
	end = base + (last >> 6);
	if (begin == end)
		return set_bits(bitmap, st, begin, head & tail);
	set_bits(bitmap, st, begin, head);
	set_bits(bitmap, st, end, tail);
	for (i = 0; i < FINE_GRAINS / 64; i++) {
		u64 *p;

		if (++begin >= end)
			return 0;
		p = bpf_map_lookup_elem(bitmap, &begin);
		if (!p)
			break;
		*(volatile u64 *)p = ~0ULL;
	}
	set_void(st, VOID_UNKNOWN); // cannot be: longer than a bio may be
	return 0;
}

SEC("tp_btf/block_bio_queue")
int bio_queue(u64 *ctx)
{
	struct bio *bio = (struct bio *)ctx[0];
	u32 op = bio->bi_opf & OP_MASK;
	struct state *st;
	struct disk *d;

	if (!writes(op))
		return 0;
	d = disk_of(bio->bi_bdev->bd_disk);
	if (!d)
		return 0;
	st = bpf_map_lookup_elem(&states, &d->slot);
	if (!st)
		return 0;
	__sync_fetch_and_add(&st->queued, 1);
	if (op >= OP_ZONE_FIRST && op <= OP_ZONE_LAST)
		set_void(st, VOID_UNKNOWN);
	mark(d->slot, bio->bi_iter.bi_sector, bio->bi_iter.bi_size);
	return 0;
}

// A disk that is reached by several paths sends its bios on to one of them, a disk
// of its own that cannot be seen from outside. This is where its number is learnt;
// requests that complete there are then the disk's.
SEC("tp_btf/block_bio_remap")
int bio_remap(u64 *ctx)
{
	struct bio *bio = (struct bio *)ctx[0];
	u32 from = ctx[1], to;
	struct disk *d = bpf_map_lookup_elem(&disks, &from);

	if (!d || !(d->flags & DISK_HEAD))
		return 0;
	to = number_of(bio->bi_bdev->bd_disk);
	if (!bpf_map_lookup_elem(&disks, &to))
		bpf_map_update_elem(&disks, &to, d, BPF_NOEXIST);
	return 0;
}

// Of the writes of a request that completed, what may have landed.
INLINE int completed(struct request *rq)
{
	u32 op = rq->cmd_flags & OP_MASK;
	u32 bytes = rq->__data_len;
	struct gendisk *g;
	struct state *st;
	struct disk *d;
	struct bio *bio;
	int i;

	if (field_exists(rq->q->disk))
		g = rq->q->disk;
	else
		g = ((struct request___before_5_17 *)rq)->rq_disk;
	if (!g) // a command to the controller
		return 0;
	d = disk_of(g);
	if (!d)
		return 0;
	st = bpf_map_lookup_elem(&states, &d->slot);
	if (!st)
		return 0;
	if (op >= OP_PASS_FIRST && op <= OP_PASS_LAST) {
		if (op & 1 || (!bytes && d->flags & DISK_NVME))
			set_void(st, VOID_PASSTHROUGH);
		return 0;
	}
	if (op != OP_DISCARD) {
		mark(d->slot, rq->__sector, bytes);
		return 0;
	}
	bio = rq->bio;
	for (i = 0; i < MAX_RANGES; i++) {
		if (!bio)
			return 0;
		mark(d->slot, bio->bi_iter.bi_sector, bio->bi_iter.bi_size);
		bio = bio->bi_next;
	}
	if (bio)
		set_void(st, VOID_UNKNOWN);
	return 0;
}

// The kernel passes over a program that is interrupted in its work by another call
// of itself on the same processor. Completions come in interrupts, on top of others
// that come in softirqs, on top of others that come in threads: of three copies of
// the program one is always free. Should all three ever be at work at once, this is
// noted: only then can one more call have been lost.
#define COPIES 3

INLINE int follow(struct request *rq)
{
	u32 zero = 0;
	struct control *c;
	u64 *level;

	if (!writes(rq->cmd_flags))
		return 0;
	level = bpf_map_lookup_elem(&depth, &zero);
	if (!level)
		return 0;
	if (++*(volatile u64 *)level >= COPIES) {
		c = bpf_map_lookup_elem(&control, &zero);
		if (c)
			c->full = 1;
	}
	completed(rq);
	--*(volatile u64 *)level;
	return 0;
}

SEC("tp_btf/block_rq_complete")
int rq_complete_1(u64 *ctx) { return follow((struct request *)ctx[0]); }

SEC("tp_btf/block_rq_complete")
int rq_complete_2(u64 *ctx) { return follow((struct request *)ctx[0]); }

SEC("tp_btf/block_rq_complete")
int rq_complete_3(u64 *ctx) { return follow((struct request *)ctx[0]); }

// The kernel lends its structures to such programs only.
char terms[] SEC("license") = "GPL";
