/* SPDX-License-Identifier: MIT
 * legacy_cuda.cu - products with Q4_0 Q4_1 Q5_0 Q5_1 Q6_0 Q8_0: gemv.cuh and gemm.cuh with the
 * decoders of decode_legacy.h. */
#include "cuda/gemm.cuh"

const struct mul_cell *mul_cell_legacy(enum qtype t) {
    static const struct mul_cell q4_0 = MUL_QUANTISED(dec_q4_0);
    static const struct mul_cell q4_1 = MUL_QUANTISED(dec_q4_1);
    static const struct mul_cell q5_0 = MUL_QUANTISED(dec_q5_0);
    static const struct mul_cell q5_1 = MUL_QUANTISED(dec_q5_1);
    static const struct mul_cell q6_0 = MUL_QUANTISED(dec_q6_0);
    static const struct mul_cell q8_0 = MUL_QUANTISED(dec_q8_0);
    switch (t) {
    case QT_q4_0: return &q4_0;
    case QT_q4_1: return &q4_1;
    case QT_q5_0: return &q5_0;
    case QT_q5_1: return &q5_1;
    case QT_q6_0: return &q6_0;
    case QT_q8_0: return &q8_0;
    default: return NULL;
    }
}
