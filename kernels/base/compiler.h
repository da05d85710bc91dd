/* SPDX-License-Identifier: MIT
 * compiler.h - the only place where compiler extensions are named.
 *
 * Everything here has a plain meaning in C11; a compiler without the extension loses speed or a
 * warning, never correctness. */
#ifndef GGAUGE_COMPILER_H
#define GGAUGE_COMPILER_H

#if defined(__CUDACC__) || defined(__cplusplus)
#define RESTRICT __restrict__
#else
#define RESTRICT restrict
#endif

#if defined(__GNUC__) || defined(__clang__)
#define PRINTF_LIKE(fmt_arg, first_arg) __attribute__((format(printf, fmt_arg, first_arg)))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define NOINLINE __attribute__((noinline))
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define UNUSED __attribute__((unused))
#define PACKED __attribute__((packed))
#else
#define PRINTF_LIKE(fmt_arg, first_arg)
#define LIKELY(x) (x)
#define UNLIKELY(x) (x)
#define NOINLINE
#define ALWAYS_INLINE static inline
#define UNUSED
#define PACKED
#endif

/* In front of a loop of few constant turns: unroll it fully, so that arrays of vectors become
 * registers even at -O2. */
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 16")
#else
#define UNROLL
#endif

/* Let the compiler forget how the vector v was made: a sum built step by step stays in its register
 * instead of being regrouped into a tree of many. */
#if defined(__GNUC__) && defined(__x86_64__)
#define STEP_BY_STEP(v) __asm__("" : "+x"(v))
#else
#define STEP_BY_STEP(v) ((void)0)
#endif

/* The compiler keeps memory accesses on their side of this point. */
#if defined(__GNUC__)
#define COMPILER_BARRIER() __asm__ volatile("" ::: "memory")
#else
#define COMPILER_BARRIER() ((void)0)
#endif

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

#endif
