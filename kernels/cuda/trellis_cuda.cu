/* SPDX-License-Identifier: MIT
 * trellis_cuda.cu - products with IQ2_KT IQ3_KT IQ4_KT: gemv.cuh with the decoders of
 * decode_trellis.h and, many tokens, gemm_half.cuh with those of decode_half.h. */
#include "cuda/gemm_half.cuh"

const struct mul_cell *mul_cell_trellis(enum qtype t) {
    static const struct mul_cell iq2_kt = MUL_TRELLIS(dec_iq2_kt);
    static const struct mul_cell iq3_kt = MUL_TRELLIS(dec_iq3_kt);
    static const struct mul_cell iq4_kt = MUL_TRELLIS(dec_iq4_kt);
    switch (t) {
    case QT_iq2_kt: return &iq2_kt;
    case QT_iq3_kt: return &iq3_kt;
    case QT_iq4_kt: return &iq4_kt;
    default: return NULL;
    }
}
