/* SPDX-License-Identifier: MIT
 * emu.cc - fibers and collectives of the emulated device; see emu.h. */
#include "emu.h"

#include <stdio.h>
#include <sys/mman.h>

#include "base/fp16.h"

#define MAX_THREADS 1024
#define STACK_BYTES ((size_t)128 << 10)
#define MAX_SHARED EMU_MAX_SHARED

emu_grid emu_now;

enum state { RUNNABLE, AT_WARP, AT_BLOCK, DONE };

struct fiber {
    void *sp;
    enum state state;
    dim3 thread;
    void *args; /* of the collective it waits for */
    struct copy *copies; /* in the background, [n_copies] */
    int n_copies, max_copies, group;
    bool awaited; /* the kernel before this one */
};

struct copy {
    void *to;
    const void *from;
    unsigned n;
    int group;
};

struct warp {
    int n_arrived, n_done;
    void (*fn)(void **lanes);
};

static struct {
    struct fiber fiber[MAX_THREADS];
    struct warp warp[MAX_THREADS / 32];
    char *stacks, *shared, *shared_end;
    int n, cur, step; /* threads of the block; the one that runs; 1, or -1 in reverse */
    int n_at_block, n_done;
    void *main_sp;
    emu_task *task;
} b;

#define MAX_BULK 16

/* Bulk copies under way. A barrier holds the number of rounds that are over. */
static struct bulk {
    uint64_t *barrier; /* NULL = none */
    void *to;
    const void *from;
    unsigned n;
} bulk[MAX_BULK];

[[noreturn]] void emu_stop(const char *what) {
    fprintf(stderr, "emulated device: %s (block %u %u %u, thread %d)\n", what, emu_now.block.x,
            emu_now.block.y, emu_now.block.z, b.cur);
    abort();
}

/* ---- fibers ------------------------------------------------------------------------------------
 */

extern "C" void emu_switch(void **save, void *load);
asm(R"(
.text
.type emu_switch, @function
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emu_switch, .-emu_switch
)");

static void go_to(int i) {
    struct fiber *from = &b.fiber[b.cur];
    if (i == b.cur) return;
    b.cur = i;
    emu_now.thread = b.fiber[i].thread;
    emu_switch(&from->sp, b.fiber[i].sp);
}

/* Let another thread run; returns when this one may go on. */
static void yield_fiber(void) {
    /* first the own warp, so that warps run apart from each other as far as they may */
    const int warp = b.cur / 32 * 32;
    for (int k = 1; k < 32; k++) {
        const int i = warp + (b.cur - warp + k * b.step + 32) % 32;
        if (b.fiber[i].state == RUNNABLE) {
            go_to(i);
            return;
        }
    }
    for (int k = 0, i = b.cur; k < b.n; k++) {
        i += b.step;
        if (i >= b.n) i = 0;
        if (i < 0) i = b.n - 1;
        if (b.fiber[i].state == RUNNABLE) {
            go_to(i);
            return;
        }
    }
    emu_stop("no thread can go on: a barrier or a collective that some never reach");
}

static void release_block(void) {
    if (b.n_at_block == 0 || b.n_at_block + b.n_done < b.n) return;
    for (int i = 0; i < b.n; i++)
        if (b.fiber[i].state == AT_BLOCK) b.fiber[i].state = RUNNABLE;
    b.n_at_block = 0;
}

static void fiber_main(void) {
    b.task->run();
    struct fiber *me = &b.fiber[b.cur];
    struct warp *w = &b.warp[b.cur / 32];
    if (me->n_copies) emu_stop("a thread ended before its copies");
    if (!me->awaited) emu_stop("a thread ended that never waited for the kernel before its own");
    me->state = DONE;
    b.n_done++;
    w->n_done++;
    if (w->n_arrived) emu_stop("a lane ended while others of its warp wait for it");
    release_block();
    for (int i = 0; i < MAX_BULK && b.n_done == b.n; i++)
        if (bulk[i].barrier) emu_stop("a block ended before its bulk copies");
    if (b.n_done == b.n) emu_switch(&me->sp, b.main_sp);
    yield_fiber();
    emu_stop("a thread that had ended went on");
}

static void setup(void) {
    if (b.stacks) return;
    const size_t page = 4096;
    b.stacks = (char *)mmap(NULL, MAX_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    char *s = (char *)mmap(NULL, MAX_SHARED + 4 * page, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b.stacks == MAP_FAILED || s == MAP_FAILED) emu_stop("out of memory");
    b.shared_end = s + (MAX_SHARED + 2 * page) / page * page;
    mprotect(b.shared_end, page, PROT_NONE);
}

static void run_block(size_t shared_bytes) {
    const dim3 d = emu_now.block_dim;
    memset(b.warp, 0, sizeof b.warp);
    b.n = (int)(d.x * d.y * d.z);
    b.n_at_block = b.n_done = 0;
    b.shared = b.shared_end - (shared_bytes + 15) / 16 * 16;
    memset(b.shared, 0xFF, (size_t)(b.shared_end - b.shared));
    for (int i = 0; i < b.n; i++) {
        const unsigned u = (unsigned)i;
        void **sp = (void **)(b.stacks + (size_t)(i + 1) * STACK_BYTES - 64);
        *--sp = NULL; /* where fiber_main would return to; leaves the stack as after a call */
        *--sp = (void *)fiber_main;
        for (int r = 0; r < 6; r++)
            *--sp = NULL;
        struct fiber *f = &b.fiber[i];
        f->sp = sp;
        f->state = RUNNABLE;
        f->thread = dim3(u % d.x, u / d.x % d.y, u / d.x / d.y);
        f->n_copies = f->group = 0;
        f->awaited = false;
    }
    b.cur = b.step > 0 ? 0 : b.n - 1;
    emu_now.thread = b.fiber[b.cur].thread;
    emu_switch(&b.main_sp, b.fiber[b.cur].sp);
}

void emu_await_previous(void) {
    b.fiber[b.cur].awaited = true;
}

unsigned char *emu_shared(void) {
    return (unsigned char *)b.shared;
}

void emu_cp_async(void *to, const void *from, unsigned n) {
    struct fiber *f = &b.fiber[b.cur];
    if (((uintptr_t)to | (uintptr_t)from) % n) emu_stop("a copy to shared memory that is not aligned");
    if (f->n_copies == f->max_copies) {
        f->max_copies = f->max_copies ? 2 * f->max_copies : 64;
        f->copies = (struct copy *)realloc(f->copies, (size_t)f->max_copies * sizeof *f->copies);
        if (!f->copies) emu_stop("out of memory");
    }
    memset(to, 0xFF, n); /* whoever does not wait reads this */
    f->copies[f->n_copies++] = { to, from, n, f->group };
}

void emu_cp_async_commit(void) {
    b.fiber[b.cur].group++;
}

void emu_cp_async_wait(int n_groups) {
    struct fiber *f = &b.fiber[b.cur];
    int kept = 0;
    for (int i = 0; i < f->n_copies; i++) {
        const struct copy *c = &f->copies[i];
        if (c->group < f->group - n_groups)
            memcpy(c->to, c->from, c->n);
        else
            f->copies[kept++] = *c;
    }
    f->n_copies = kept;
}

/* ---- bulk copies ---- */

void emu_bulk_init(uint64_t *barrier) {
    *barrier = 0;
}

void emu_bulk_copy(void *to, const void *from, unsigned n, uint64_t *barrier) {
    if (((uintptr_t)to | (uintptr_t)from | n) % 16) emu_stop("a bulk copy that is not aligned");
    struct bulk *free_one = NULL;
    for (int i = 0; i < MAX_BULK; i++) {
        if (bulk[i].barrier == barrier) emu_stop("a bulk copy before the last one of its barrier is over");
        if (!bulk[i].barrier) free_one = &bulk[i];
    }
    if (!free_one) emu_stop("more bulk copies than there is room for");
    memset(to, 0xFF, n); /* whoever does not wait reads this */
    *free_one = { barrier, to, from, n };
}

void emu_bulk_wait(uint64_t *barrier, unsigned round) {
    if ((*barrier & 1) != (round & 1)) return; /* it is over */
    for (int i = 0; i < MAX_BULK; i++)
        if (bulk[i].barrier == barrier) {
            memcpy(bulk[i].to, bulk[i].from, bulk[i].n);
            bulk[i].barrier = NULL;
            ++*barrier;
            return;
        }
    emu_stop("a wait for a bulk copy that nobody started");
}

void __syncthreads(void) {
    b.fiber[b.cur].state = AT_BLOCK;
    b.n_at_block++;
    release_block();
    if (b.fiber[b.cur].state != RUNNABLE) yield_fiber();
}

int __syncthreads_or(int pred) {
    static int any[2], turn; /* of this barrier and, not yet needed, of the next */
    any[turn] |= pred != 0;
    const int mine = turn;
    if (b.n_at_block + b.n_done + 1 == b.n) { /* the last to arrive */
        turn ^= 1;
        any[turn] = 0;
    }
    __syncthreads();
    return any[mine];
}

int emu_lane(void) {
    return b.cur % 32;
}

void emu_warp(void *args, void (*fn)(void **lanes)) {
    struct fiber *me = &b.fiber[b.cur];
    struct warp *w = &b.warp[b.cur / 32];
    const int first = b.cur / 32 * 32;
    if (w->n_done) emu_stop("a collective of a warp of which lanes have ended");
    if (w->n_arrived && w->fn != fn) emu_stop("lanes of a warp meet in different collectives");
    w->fn = fn;
    me->args = args;
    me->state = AT_WARP;
    if (++w->n_arrived < 32) {
        yield_fiber();
        return;
    }
    void *lanes[32];
    for (int i = 0; i < 32; i++) {
        lanes[i] = b.fiber[first + i].args;
        b.fiber[first + i].state = RUNNABLE;
    }
    w->n_arrived = 0;
    fn(lanes);
}

/* ---- collectives -------------------------------------------------------------------------------
 */

struct vote {
    int in, out;
};

int __any_sync(unsigned, int pred) {
    struct vote v = { pred != 0, 0 };
    emu_warp(&v, [](void **l) {
        int any = 0;
        for (int i = 0; i < 32; i++)
            any |= ((struct vote *)l[i])->in;
        for (int i = 0; i < 32; i++)
            ((struct vote *)l[i])->out = any;
    });
    return v.out;
}

struct matrices {
    const void *row;
    uint32_t *r;
    bool trans;
};

static void do_ldmatrix(void **l) {
    for (int m = 0; m < 4; m++) {
        uint16_t e[8][8];
        for (int r = 0; r < 8; r++)
            memcpy(e[r], ((struct matrices *)l[8 * m + r])->row, 16);
        for (int i = 0; i < 32; i++) {
            struct matrices *a = (struct matrices *)l[i];
            const int g = i / 4, t = 2 * (i % 4);
            a->r[m] = a->trans ? e[t][g] | (uint32_t)e[t + 1][g] << 16
                               : e[g][t] | (uint32_t)e[g][t + 1] << 16;
        }
    }
}

void emu_ldmatrix4(uint32_t r[4], const void *row, bool trans) {
    if ((uintptr_t)row % 16) emu_stop("a matrix that is not aligned");
    struct matrices a = { row, r, trans };
    emu_warp(&a, do_ldmatrix);
}

struct product_s8 {
    int *d;
    const uint32_t *a, *b;
    int c;
};

static void do_mma_s8(void **l) {
    int8_t A[16][32], B[8][32];
    int D[16][8], Bt[32][8]; /* columns side by side, for vector registers */
    for (int i = 0; i < 32; i++) {
        const struct product_s8 *p = (const struct product_s8 *)l[i];
        const int g = i / 4, t = 4 * (i % 4);
        for (int k = 0; k < 4; k++)
            memcpy(&A[g + 8 * (k % 2)][t + 16 * (k / 2)], &p->a[k], 4);
        for (int k = 0; k < 2; k++)
            memcpy(&B[g][t + 16 * k], &p->b[k], 4);
    }
    for (int i = 0; i < 32 * 8; i++)
        Bt[i / 8][i % 8] = B[i % 8][i / 8];
    memset(D, 0, sizeof D);
    for (int r = 0; r < 16; r++)
        for (int k = 0; k < 32; k++)
            for (int c = 0; c < 8; c++)
                D[r][c] += A[r][k] * Bt[k][c];
    for (int i = 0; i < 32; i++) {
        struct product_s8 *p = (struct product_s8 *)l[i];
        for (int k = 0; k < 4; k++)
            p->d[k] = p->c + D[i / 4 + 8 * (k / 2)][2 * (i % 4) + k % 2];
    }
}

void emu_mma_s8(int d[4], const uint32_t a[4], const uint32_t bb[2], int c) {
    struct product_s8 p = { d, a, bb, c };
    emu_warp(&p, do_mma_s8);
}

struct product_f16 {
    float *d;
    const uint32_t *a, *b;
};

static float f16_value(uint32_t h) {
    static float table[65536];
    if (table[0x3C00] != 1)
        for (uint32_t i = 0; i < 65536; i++)
            table[i] = f16_to_f32((f16_t)i);
    return table[h & 0xFFFFu];
}

/* d += a B as it comes: what overflows or is not finite, and what is too small to be aligned. */
static float add_plainly(float d, const float a[16], const float B[16][8], int c) {
    for (int k = 0; k < 16; k++)
        d += a[k] * B[k][c];
    return d;
}

/* sum * unit with the bits that binary32 has no room for cut off. */
static float cut_to_float(int sum, float unit) {
    const unsigned size = sum < 0 ? 0u - (unsigned)sum : (unsigned)sum;
    const int extra = 8 - __builtin_clz(size | 1);
    const float cut = (float)(extra > 0 ? size >> extra << extra : size) * unit;
    return sum < 0 ? -cut : cut;
}

/* d [8] += a [16] B [16, 8] as tensor cores of Hopper add: products are exact; they and d lose what
 * is below 2^-25 of the power of two of the largest of them; the sum loses what is below its own
 * last place. Nothing is rounded to the nearest. */
static void add_cut(float d[8], const float a[16], const float B[16][8]) {
    float big[8], scale[8];
    int sum[8];
    for (int c = 0; c < 8; c++)
        big[c] = fabsf(d[c]);
    for (int k = 0; k < 16; k++)
        for (int c = 0; c < 8; c++) {
            const float size = fabsf(a[k] * B[k][c]);
            big[c] = size <= big[c] || big[c] != big[c] ? big[c] : size; /* NaN stays */
        }
    for (int c = 0; c < 8; c++) {
        const uint32_t power = f32_bits(big[c]) & 0x7F800000u;
        scale[c] = big[c] >= 0x1p-100f && power < 0x7F000000u
                       ? f32_from_bits((254u << 23) - power) * 0x1p25f
                       : 0;
        sum[c] = (int)(scale[c] > 0 ? d[c] * scale[c] : 0);
    }
    for (int k = 0; k < 16; k++)
        for (int c = 0; c < 8; c++)
            sum[c] += scale[c] > 0 ? (int)(a[k] * B[k][c] * scale[c]) : 0;
    for (int c = 0; c < 8; c++)
        d[c] = scale[c] > 0 ? cut_to_float(sum[c], 1 / scale[c]) : add_plainly(d[c], a, B, c);
}

static void do_mma_f16(void **l) {
    float A[16][16], B[16][8], D[16][8];
    for (int i = 0; i < 32; i++) {
        const struct product_f16 *p = (const struct product_f16 *)l[i];
        const int g = i / 4, t = 2 * (i % 4);
        for (int k = 0; k < 8; k++)
            A[g + 8 * (k / 2 % 2)][t + k % 2 + 8 * (k / 4)] =
                f16_value(p->a[k / 2] >> 16 * (k % 2));
        for (int k = 0; k < 4; k++)
            B[t + k % 2 + 8 * (k / 2)][g] = f16_value(p->b[k / 2] >> 16 * (k % 2));
        for (int k = 0; k < 4; k++)
            D[g + 8 * (k / 2)][t + k % 2] = p->d[k];
    }
    for (int r = 0; r < 16; r++)
        add_cut(D[r], A[r], B);
    for (int i = 0; i < 32; i++) {
        struct product_f16 *p = (struct product_f16 *)l[i];
        for (int k = 0; k < 4; k++)
            p->d[k] = D[i / 4 + 8 * (k / 2)][2 * (i % 4) + k % 2];
    }
}

void emu_mma_f16(float d[4], const uint32_t a[4], const uint32_t bb[2]) {
    struct product_f16 p = { d, a, bb };
    emu_warp(&p, do_mma_f16);
}

/* ---- a launch -----------------------------------------------------------------------------------
 */

static long n_launches;

/* For tests: kernels that have run so far. */
extern "C" __attribute__((visibility("default"))) long emu_launches(void) {
    return n_launches;
}

void emu_run(const struct emu_kernel *k) {
    setup();
    n_launches++;
    if (k->block.x * k->block.y * k->block.z > MAX_THREADS || k->shared > MAX_SHARED ||
        k->block.x % 32)
        emu_stop("a launch beyond what a device can do");
    const char *order = getenv("GGAUGE_EMU_ORDER");
    b.step = order && !strcmp(order, "reverse") ? -1 : 1;
    b.task = k->task.get();
    emu_now.block_dim = k->block;
    emu_now.grid_dim = k->grid;
    for (unsigned z = 0; z < k->grid.z; z++)
        for (unsigned y = 0; y < k->grid.y; y++)
            for (unsigned x = 0; x < k->grid.x; x++) {
                emu_now.block = dim3(x, y, z);
                run_block(k->shared);
            }
}
