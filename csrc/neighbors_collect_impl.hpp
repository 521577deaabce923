// Body of collect_within; the including file defines RK_ISA, the namespace it lands in.
#include "neighbors_collect.hpp"
#include "simd.hpp"

namespace rk {
namespace RK_ISA {

int64_t collect_within(const double* x, const double* y, const double* z, int64_t begin, int64_t end,
                       const double* centre, double cutoff_squared, int32_t* out) {
    const v8d cx = broadcast(centre[0]), cy = broadcast(centre[1]), cz = broadcast(centre[2]);
    const v8d limit = broadcast(cutoff_squared);
    const v8i step = {0, 1, 2, 3, 4, 5, 6, 7};
    int64_t found = 0;
    for (int64_t j = begin; j < end; j += LANES) {
        const v8d dx = load(x + j) - cx, dy = load(y + j) - cy, dz = load(z + j) - cz;
        unsigned mask = less_mask(dx * dx + dy * dy + dz * dz, limit);
        if (end - j < LANES) mask &= (1u << (end - j)) - 1u;  // the arrays are padded, so the load itself is safe
        compress_store(out + found, mask, static_cast<int32_t>(j) + step);
        found += __builtin_popcount(mask);
    }
    return found;
}

}  // namespace RK_ISA
}  // namespace rk
