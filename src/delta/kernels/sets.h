// The kernel sets that this build contains; dispatch.cc chooses among them.
//
// The vector files are compiled with flags of their own, so they call nothing that a header defines
// as an ordinary inline function: the linker might keep their copy of it for everybody, and that
// copy would not run on a lesser CPU.
#pragma once

#include "delta/kernels/kernels.h"

namespace siltstone {

extern const Kernels kScalarKernels;
extern const Kernels::Classify kScalarClassify[4];
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels::Classify kAvx2Classify[4];
extern const Kernels::Classify kAvx512Classify[4];
#endif

}  // namespace siltstone
