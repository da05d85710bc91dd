/* SPDX-License-Identifier: MIT
 * copies.cuh - copies between host and device beside the kernels. A device has three lanes
 * (streams) that run beside each other: kernels, copies to it, copies from it. An image whose bytes
 * go back and forth (an exchange) knows when it was last pushed, used by kernels and pulled, and a
 * lane waits for just that. Other images are copied in the lane of the kernels.
 *
 * Nothing here is called while a graph is recorded: lanes wait for each other between runs. */
#ifndef GGAUGE_COPIES_CUH
#define GGAUGE_COPIES_CUH

#include "cuda/device.cuh"

enum lane { LANE_run, LANE_in, LANE_out, LANE_count };

/* What a lane had been given when the point was set. */
struct point {
    cudaEvent_t event;
    unsigned passed; /* bits of lanes whose next work comes after it */
};

struct exchange {
    const char *host; /* [n] */
    size_t n;
    bool locked;
    unsigned bit; /* a set of exchanges has it */
    struct point pushed, used, pulled;
    struct exchange *next;
};

int copies_open(struct cuda_device *d, struct err *e);
void copies_close(struct cuda_device *d); /* exchanges are released before */
/* Until every lane has done what it was given. */
int copies_finish(struct cuda_device *d, struct err *e);

/* Host memory [p, p + n), page-locked if that can be had. */
int exchange_new(struct cuda_device *d, const void *p, size_t n, struct exchange **out,
                 struct err *e);
void exchange_free(struct cuda_device *d, struct exchange *x); /* nothing is under way; or NULL */

/* x is NULL for other images. p has been read when copy_in returns. */
int copy_in(struct cuda_device *d, struct exchange *x, char *dev, const void *p, size_t n,
            struct err *e);
/* p is there after copy_out_end. */
int copy_out(struct cuda_device *d, struct exchange *x, void *p, const char *dev, size_t n,
             struct err *e);
int copy_out_end(struct cuda_device *d, struct exchange *x, struct err *e);

/* Around the start of a run of these nodes; a key other than 0 means the same nodes every time. */
int copies_before_run(struct cuda_device *d, const struct node *const *nodes, int n, uint64_t key,
                      struct err *e);
int copies_after_run(struct cuda_device *d, struct err *e);

#endif
