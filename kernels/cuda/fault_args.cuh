/* SPDX-License-Identifier: MIT
 * fault_args.cuh - seeded faults (base/fault.h) inside of kernels, which do not see fault_now: the
 * arguments of a kernel take it along. In a build without faults they have no such member and
 * FAULT_IN is the constant 0, as FAULT is. On the host's side of a launch FAULT serves as
 * everywhere. */
#ifndef GGAUGE_FAULT_ARGS_CUH
#define GGAUGE_FAULT_ARGS_CUH

#include "cuda/platform.cuh"

#ifdef GGAUGE_FAULTS

/* Last member of the arguments: the fault of the arm for which they are filled in. */
#define FAULT_FIELD enum fault fault = fault_now.fault;
#define FAULT_IN(args, name) ((args).fault == FAULT_##name)
/* Take it back where `cond` does not hold. */
#define FAULT_ONLY_IF(args, cond) (void)((cond) || ((args).fault = FAULT_none, 0))

#else

#define FAULT_FIELD
#define FAULT_IN(args, name) ((void)(args), (int)FAULT_##name < 0)
#define FAULT_ONLY_IF(args, cond) (void)0

#endif

/* Faults bias and residual: whether row t of n_rows loses what should be added to it. */
template <class A> DEV bool loses_sum(const A &a, bool is_bias, int64_t t, int64_t n_rows) {
    return is_bias ? FAULT_IN(a, bias) : FAULT_IN(a, residual) && t == n_rows * 3 / 4;
}

#endif
