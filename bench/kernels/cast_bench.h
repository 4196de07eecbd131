// Casting fp32 words to bf16 while they are compared.
#pragma once

#include "kernels/report.h"

namespace siltstone::bench {

// Share of a plain read of the fp32 and the bf16 stream that each way of comparing them reaches.
void bench_cast(const Options& options, Report* report);

}  // namespace siltstone::bench
