/* SPDX-License-Identifier: MIT
 * trellis_cuda.cu - products with IQ2_KT IQ3_KT IQ4_KT: gemv.cuh and gemm.cuh with the decoders of
 * decode_trellis.h. */
#include "cuda/gemm.cuh"

const struct mul_cell *mul_cell_trellis(enum qtype t) {
    static const struct mul_cell iq2_kt = MUL_QUANTISED(dec_iq2_kt);
    static const struct mul_cell iq3_kt = MUL_QUANTISED(dec_iq3_kt);
    static const struct mul_cell iq4_kt = MUL_QUANTISED(dec_iq4_kt);
    switch (t) {
    case QT_iq2_kt: return &iq2_kt;
    case QT_iq3_kt: return &iq3_kt;
    case QT_iq4_kt: return &iq4_kt;
    default: return NULL;
    }
}
