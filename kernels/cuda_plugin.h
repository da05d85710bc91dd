/* SPDX-License-Identifier: MIT
 * cuda_plugin.h - the one interface between the program and libggauge-cuda.so, which is opened when
 * somebody asks for the cuda column (cuda.c), so that one program serves machines with and without
 * a GPU. The plug-in exports the function CUDA_PLUGIN_SYMBOL and nothing else.
 *
 * Memory of the host is named everywhere; a range of it can have an image on the device. Nodes keep
 * their host pointers and the plug-in finds the images. So a graph, its weights and its cache are
 * the same for every column, and only who writes where has to be known: push makes the image what
 * the host has, pull the reverse, and a node that runs on the device changes images alone. A tensor
 * without an image gets one for the length of a run, filled before and read back after it: slow,
 * and what tests and single operations use.
 *
 * All calls of one device come from one thread at a time. Errors: ERR_DEVICE for what the driver
 * reports, ERR_NOMEM when the device's memory is short. */
#ifndef GGAUGE_CUDA_PLUGIN_H
#define GGAUGE_CUDA_PLUGIN_H

#include "base/fault.h"
#include "op.h"
#include "peak_cell.h"

#define CUDA_PLUGIN_ABI 4
#define CUDA_PLUGIN_SYMBOL "ggauge_cuda_api"
#define CUDA_PLUGIN_FILE "libggauge-cuda.so"

struct cuda_device;

struct cuda_info {
    char name[128], versions[64]; /* of the card; of driver and runtime */
    int major, minor, n_sm;
    size_t total_bytes, free_bytes;
    bool emulated; /* no card: the kernels run on the host */
};

struct cuda_api {
    int abi;
    size_t node_bytes, err_bytes; /* sizes of struct node and struct err: the same headers */
    int n_types, n_ops;           /* QT_count, OP_count */
    const bool *type_cell, *op_cell; /* [n_types], [n_ops]: what the plug-in has */
    const char *targets;          /* "sm_80 sm_90a ..." */
    int n_faults;                 /* FAULTS_BUILT: both have seeded faults, or neither has */
    struct fault_run *fault;      /* the one of what runs next; NULL in a build without faults */

    /* Devices that can be opened; 0 with *e saying why not is no error of the call. */
    int (*count)(struct err *e);
    /* PCI address of one that need not be open: "0000:17:00.0". */
    int (*bus_id)(int index, char *buf, size_t n_bytes, struct err *e);
    int (*open)(struct cuda_device **out, int index, struct err *e);
    void (*close)(struct cuda_device *d); /* images are released */
    int (*info)(struct cuda_device *d, struct cuda_info *info, struct err *e);

    /* Give host memory [p, p + n) an uninitialised image; ranges of images do not overlap. `what`
     * names it in messages: "blk.0.attn_q.weight". */
    int (*mirror)(struct cuda_device *d, const void *p, size_t n, const char *what, struct err *e);
    /* The same for memory that is copied again and again while nodes run: copies of it go on beside
     * nodes that do not use it. [p, p + n) is page-locked until unmirror where the system allows it
     * and both p and n are multiples of EXCHANGE_ALIGN; without, copies are slower. */
    int (*exchange)(struct cuda_device *d, const void *p, size_t n, const char *what,
                    struct err *e);
    void (*unmirror)(struct cuda_device *d, const void *p);

    /* Copy n bytes that lie in one image, in order with all other calls: nodes that were started
     * before a push see the old bytes, and nodes that are started behind a pull do not change what
     * it brings.
     *
     * push has read the host's bytes when it returns (it need not have written the image), so they
     * may be changed at once. pull returns when they are there; it waits for what wrote an image of
     * exchange, but not for nodes that were started later and do not use it; for other images it
     * waits for everything. pull_begin need not wait: nobody touches the bytes on the host, which
     * excludes pushing them, until pull_end(p), which returns when all is there that was begun from
     * the image of p. */
    int (*push)(struct cuda_device *d, const void *p, size_t n, struct err *e);
    int (*pull)(struct cuda_device *d, void *p, size_t n, struct err *e);
    int (*pull_begin)(struct cuda_device *d, void *p, size_t n, struct err *e);
    int (*pull_end)(struct cuda_device *d, const void *p, struct err *e);

    bool (*supports)(const struct node *n);
    /* Start n nodes in order. key != 0 promises that the same key always means the same nodes (with
     * other contents of their inputs): they are recorded once and replayed then. */
    int (*run)(struct cuda_device *d, const struct node *const *nodes, int n, uint64_t key,
               struct err *e);
    int (*synchronize)(struct cuda_device *d, struct err *e);

    /* The best of several loops that do nothing else: multiply-adds a second, or for PEAK_read
     * bytes read and written by a copy. */
    int (*peak)(struct cuda_device *d, enum peak p, double *per_second, struct err *e);

    /* Device time between two marks (0 and 1), in seconds; waits for the second. */
    int (*mark)(struct cuda_device *d, int which, struct err *e);
    int (*elapsed)(struct cuda_device *d, double *seconds, struct err *e);
};

const struct cuda_api *ggauge_cuda_api(void); /* inside the plug-in */
typedef const struct cuda_api *(*cuda_api_fn)(void);

#endif
