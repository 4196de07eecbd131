// The kernel sets that this build contains; dispatch.cc chooses among them.
//
// The vector files are compiled with flags of their own, so they call nothing that a header defines
// as an ordinary inline function: the linker might keep their copy of it for everybody, and that
// copy would not run on a lesser CPU.
#pragma once

#include "delta/kernels/kernels.h"

namespace siltstone {

extern const Kernels kScalarKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

}  // namespace siltstone
