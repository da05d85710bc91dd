/* SPDX-License-Identifier: MIT
 * limits_table.h - written by `make limits` from results/limits.csv; not by hand. */
#ifndef GGAUGE_LIMITS_TABLE_H
#define GGAUGE_LIMITS_TABLE_H

/*    cell, max_rel, row_nmse */
#define LIMIT_LIST(X)                                                                              \
    X("add@ref", 1e-06, 1e-13)                                                                     \
    X("attn@ref", 1e-06, 1e-13)                                                                    \
    X("bf16@ref", 1e-06, 1e-13)                                                                    \
    X("f16@ref", 1e-06, 1e-13)                                                                     \
    X("f32@ref", 1e-06, 1e-13)                                                                     \
    X("get_rows@ref", 1e-06, 1e-13)                                                                \
    X("iq2_kt@ref", 1e-06, 1e-13)                                                                  \
    X("iq3_kt@ref", 1e-06, 1e-13)                                                                  \
    X("iq4_kt@ref", 1e-06, 1e-13)                                                                  \
    X("lse@ref", 1e-06, 1e-13)                                                                     \
    X("q4_0@ref", 1e-06, 1e-13)                                                                    \
    X("q4_1@ref", 1e-06, 1e-13)                                                                    \
    X("q5_0@ref", 1e-06, 1e-13)                                                                    \
    X("q5_1@ref", 1e-06, 1e-13)                                                                    \
    X("q6_0@ref", 1e-06, 1e-13)                                                                    \
    X("q8_0@ref", 1e-06, 1e-13)                                                                    \
    X("rms_norm@ref", 1e-06, 1e-13)                                                                \
    X("rope@ref", 1e-06, 1e-13)                                                                    \
    X("rope_table@ref", 1e-06, 1e-13)                                                              \
    X("set_rows@ref", 1e-06, 1e-13)                                                                \
    X("swiglu@ref", 1e-06, 1e-13)                                                                  \
    X("attn@avx2", 6.4e-05, 7.4e-11)                                                               \
    X("bf16@avx2", 1.3e-05, 5.9e-12)                                                               \
    X("f16@avx2", 2.5e-05, 7.8e-12)                                                                \
    X("f32@avx2", 1.9e-05, 7.8e-12)                                                                \
    X("iq2_kt@avx2", 2.1e-05, 2.1e-12)                                                             \
    X("iq3_kt@avx2", 2e-05, 2.2e-12)                                                               \
    X("iq4_kt@avx2", 1.7e-05, 1.5e-12)                                                             \
    X("lse@avx2", 1e-06, 1.1e-13)                                                                  \
    X("q4_0@avx2", 1.9e-05, 1.8e-12)                                                               \
    X("q4_1@avx2", 2.3e-05, 3.4e-12)                                                               \
    X("q5_0@avx2", 1.8e-05, 1.6e-12)                                                               \
    X("q5_1@avx2", 2.6e-05, 3.2e-12)                                                               \
    X("q6_0@avx2", 1.7e-05, 1.6e-12)                                                               \
    X("q8_0@avx2", 1.9e-05, 1.7e-12)                                                               \
    X("rms_norm@avx2", 1.5e-05, 1.4e-12)                                                           \
    X("swiglu@avx2", 3.5e-05, 1.7e-12)                                                             \
    X("add@avx512", 1e-06, 1e-13)                                                                  \
    X("attn@avx512", 6e-05, 1.5e-10)                                                               \
    X("bf16@avx512", 1.3e-05, 1.6e-12)                                                             \
    X("f16@avx512", 1.3e-05, 4.1e-12)                                                              \
    X("f32@avx512", 1.3e-05, 4.1e-12)                                                              \
    X("iq2_kt@avx512", 1.5e-05, 1.6e-12)                                                           \
    X("iq3_kt@avx512", 1.9e-05, 2.2e-12)                                                           \
    X("iq4_kt@avx512", 1.7e-05, 1.5e-12)                                                           \
    X("lse@avx512", 1e-06, 1.1e-13)                                                                \
    X("q4_0@avx512", 1.9e-05, 1.7e-12)                                                             \
    X("q4_1@avx512", 2.5e-05, 3.2e-12)                                                             \
    X("q5_0@avx512", 1.6e-05, 1.3e-12)                                                             \
    X("q5_1@avx512", 2.5e-05, 3.1e-12)                                                             \
    X("q6_0@avx512", 1.5e-05, 1.3e-12)                                                             \
    X("q8_0@avx512", 1.9e-05, 1.7e-12)                                                             \
    X("rms_norm@avx512", 1.5e-05, 1.4e-12)                                                         \
    X("rope@avx512", 6e-06, 3.4e-13)                                                               \
    X("set_rows@avx512", 1e-06, 1e-13)                                                             \
    X("swiglu@avx512", 3.5e-05, 1.7e-12)                                                           \
    X("attn@amx", 0.0026, 1.6e-07)                                                                 \
    X("bf16@amx", 0.0002, 4.1e-09)                                                                 \
    X("f16@amx", 0.00064, 9.9e-09)                                                                 \
    X("iq2_kt@amx", 2.3e-05, 2.9e-12)                                                              \
    X("iq3_kt@amx", 2e-05, 1.9e-12)                                                                \
    X("iq4_kt@amx", 2e-05, 1.9e-12)                                                                \
    X("q4_0@amx", 1.7e-05, 1.5e-12)                                                                \
    X("q4_1@amx", 1.9e-05, 2.2e-12)                                                                \
    X("q5_0@amx", 1.9e-05, 2e-12)                                                                  \
    X("q5_1@amx", 1.7e-05, 1.8e-12)                                                                \
    X("q6_0@amx", 1.3e-05, 1.4e-12)                                                                \
    X("q8_0@amx", 2.5e-05, 2.9e-12)                                                                \
    X("iq2_kt@amx_requant", 1.5e-05, 1.4e-12)                                                      \
    X("iq3_kt@amx_requant", 9.1e-06, 6.7e-13)                                                      \
    X("iq4_kt@amx_requant", 8.6e-06, 1.2e-12)                                                      \
    X("q4_0@amx_requant", 8.5e-06, 4.2e-13)                                                        \
    X("q4_1@amx_requant", 8.2e-06, 8.5e-13)                                                        \
    X("q5_0@amx_requant", 7.9e-06, 7.9e-13)                                                        \
    X("q5_1@amx_requant", 8.5e-06, 7.7e-13)                                                        \
    X("q6_0@amx_requant", 8.3e-06, 1.1e-12)                                                        \
    X("q8_0@amx_requant", 9.1e-06, 4.4e-13)                                                        \
    X("add@cuda", 1e-06, 1e-13)                                                                    \
    X("attn@cuda", 0.053, 9.1e-05)                                                                 \
    X("bf16@cuda", 0.00011, 5.6e-11)                                                               \
    X("f16@cuda", 9.6e-05, 4.5e-11)                                                                \
    X("f32@cuda", 9.3e-05, 4.4e-11)                                                                \
    X("get_rows@cuda", 1e-06, 1e-13)                                                               \
    X("iq2_kt@cuda", 0.021, 1.1e-05)                                                               \
    X("iq3_kt@cuda", 0.026, 8.6e-06)                                                               \
    X("iq4_kt@cuda", 0.021, 3.4e-05)                                                               \
    X("lse@cuda", 1e-06, 1e-13)                                                                    \
    X("q4_0@cuda", 1.9e-05, 1.8e-12)                                                               \
    X("q4_1@cuda", 1.7e-05, 2.3e-12)                                                               \
    X("q5_0@cuda", 1.6e-05, 1.3e-12)                                                               \
    X("q5_1@cuda", 2.3e-05, 3e-12)                                                                 \
    X("q6_0@cuda", 1.9e-05, 1.9e-12)                                                               \
    X("q8_0@cuda", 1.9e-05, 1.7e-12)                                                               \
    X("rms_norm@cuda", 1.6e-05, 2e-12)                                                             \
    X("rope@cuda", 1e-06, 1e-13)                                                                   \
    X("rope_table@cuda", 1e-06, 1e-13)                                                             \
    X("set_rows@cuda", 1e-06, 1e-13)                                                               \
    X("swiglu@cuda", 3.5e-05, 1.7e-12)

#endif
