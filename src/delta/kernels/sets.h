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
extern const Kernels::FindTables kScalarFindTables[4];
extern const Kernels::TakeSteps kScalarTakeSteps[4];
extern const Kernels::MakeSteps kScalarMakeSteps[4];
void scalar_locate(const uint64_t* members, const uint16_t* before, const uint32_t* ranks,
                   size_t count, uint64_t first_rank, uint16_t* positions);
size_t scalar_decode_symbols(const RansInput& input, uint32_t* states, uint8_t* symbols);
uint16_t* scalar_encode_symbols(const RansSymbols& input, uint32_t* states, uint16_t* end);
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx512AheadKernels;  // the same for CPUs that gain from prefetches
extern const Kernels::Classify kAvx2Classify[4];
extern const Kernels::Classify kAvx512Classify[4];
extern const Kernels::FindTables kAvx512FindTables[4];
extern const Kernels::TakeSteps kAvx512TakeSteps[4];
extern const Kernels::MakeSteps kAvx512MakeSteps[4];
void avx2_locate(const uint64_t* members, const uint16_t* before, const uint32_t* ranks,
                 size_t count, uint64_t first_rank, uint16_t* positions);
void avx512_locate(const uint64_t* members, const uint16_t* before, const uint32_t* ranks,
                   size_t count, uint64_t first_rank, uint16_t* positions);
size_t avx2_decode_symbols(const RansInput& input, uint32_t* states, uint8_t* symbols);
size_t avx512_decode_symbols(const RansInput& input, uint32_t* states, uint8_t* symbols);
uint16_t* avx512_encode_symbols(const RansSymbols& input, uint32_t* states, uint16_t* end);
#endif

}  // namespace siltstone
