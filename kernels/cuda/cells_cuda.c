/* SPDX-License-Identifier: MIT
 * cells_cuda.c - what this program knows of the cells of the cuda column. What they do is in the
 * plug-in, whose own table has to be the same (cuda.c).
 *
 * Quantised weights meet activations rounded as the avx2 column rounds them, with an exact scale
 * for every 32; but many tokens meet weights of a trellis as binary16, both of them
 * (gemm_half.cuh). Floats meet activations as they are. */
#include "backend.h"

/* Sums of n products in binary32, in the order of the kernels. */
#define TOL_NMSE 1e-11
#define TOL_NMSE_HALF                                                                              \
    1e-6 /* weights and activations as binary16: 2^-12 of each, squared, is 6e-8 */
#define TOL_NMSE_FLOAT 1e-10 /* one product after the other, not 32 at a time in int32 */

#define X(name)                                                                                    \
    const struct qkernel name##_cuda = { .act = QT_q8_2_x4,                                        \
                                         .tol_nmse = TOL_NMSE,                                     \
                                         .on_device = true };
X(q4_0)
X(q4_1)
X(q5_0)
X(q5_1)
X(q6_0)
X(q8_0)
#undef X

#define X(name)                                                                                    \
    const struct qkernel name##_cuda = {                                                           \
        .act = QT_q8_2_x4, .tol_nmse = TOL_NMSE, .tol_nmse_many = TOL_NMSE_HALF, .on_device = true \
    };
X(iq2_kt)
X(iq3_kt)
X(iq4_kt)
#undef X

#define X(name)                                                                                    \
    const struct qkernel name##_cuda = { .act = QT_f32,                                            \
                                         .tol_nmse = TOL_NMSE_FLOAT,                               \
                                         .on_device = true };
X(f32)
X(f16)
X(bf16)
#undef X

#define X(name, ...) const struct op_cell op_##name##_cuda = { .run = NULL };
OP_LIST(X)
#undef X
