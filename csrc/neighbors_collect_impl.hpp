// Body of collect_within; the including file defines RK_ISA, the namespace it lands in.
#include "neighbors_collect.hpp"
#include "simd.hpp"

namespace rk {
namespace RK_ISA {

void collect_within(const double* x, const double* y, const double* z, int64_t begin, int64_t end, const double* centre,
                    double near_squared, double cutoff_squared, Collected& out) {
    const v8d cx = broadcast(centre[0]), cy = broadcast(centre[1]), cz = broadcast(centre[2]);
    const v8d limit = broadcast(cutoff_squared), near_limit = broadcast(near_squared);
    const v8i step = {0, 1, 2, 3, 4, 5, 6, 7};
    for (int64_t j = begin; j < end; j += LANES) {
        const v8d dx = load(x + j) - cx, dy = load(y + j) - cy, dz = load(z + j) - cz;
        const v8d r2 = dx * dx + dy * dy + dz * dz;
        unsigned inside = less_mask(r2, limit);
        if (end - j < LANES) inside &= (1u << (end - j)) - 1u;  // the arrays are padded, so the load itself is safe
        if (!inside) continue;
        const unsigned near = inside & less_mask(r2, near_limit);
        const v8i candidates = static_cast<int32_t>(j) + step;
        compress_store(out.near + out.n_near, near, candidates);
        out.n_near += __builtin_popcount(near);
        compress_store(out.shell + out.n_shell, inside & ~near, candidates);
        out.n_shell += __builtin_popcount(inside & ~near);
    }
}

}  // namespace RK_ISA
}  // namespace rk
