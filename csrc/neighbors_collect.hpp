// The inner loop of the neighbour search, compiled once per instruction set.
#pragma once
#include <cstdint>

namespace rk {

// Where collect_within appends: candidates inside the near radius, and the others inside the cutoff. Each needs room
// for end − begin + 8 entries.
struct Collected {
    int32_t *near, *shell;
    int64_t n_near, n_shell;
};

// Candidates [begin, end) by |r − centre|², against two squared radii.
using CollectWithin = void (*)(const double* x, const double* y, const double* z, int64_t begin, int64_t end,
                               const double centre[3], double near_squared, double cutoff_squared, Collected& out);

namespace baseline { void collect_within(const double*, const double*, const double*, int64_t, int64_t, const double*, double, double, Collected&); }
namespace avx2 { void collect_within(const double*, const double*, const double*, int64_t, int64_t, const double*, double, double, Collected&); }
namespace avx512 { void collect_within(const double*, const double*, const double*, int64_t, int64_t, const double*, double, double, Collected&); }

}  // namespace rk
