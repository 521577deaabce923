// The inner loop of the neighbour search, compiled once per instruction set.
#pragma once
#include <cstdint>

namespace rk {

// Candidates [begin, end) with |r − centre|² < cutoff², appended to `out`; returns how many. `out` needs room for
// end − begin + 8 entries.
using CollectWithin = int64_t (*)(const double* x, const double* y, const double* z, int64_t begin, int64_t end,
                                  const double centre[3], double cutoff_squared, int32_t* out);

namespace baseline { int64_t collect_within(const double*, const double*, const double*, int64_t, int64_t, const double*, double, int32_t*); }
namespace avx2 { int64_t collect_within(const double*, const double*, const double*, int64_t, int64_t, const double*, double, int32_t*); }
namespace avx512 { int64_t collect_within(const double*, const double*, const double*, int64_t, int64_t, const double*, double, int32_t*); }

}  // namespace rk
