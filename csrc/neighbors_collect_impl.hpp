// Body of the neighbour loops; the including file defines RK_ISA, the namespace it lands in.
#include <limits>

#include "neighbors_collect.hpp"
#include "simd.hpp"

namespace rk {
namespace RK_ISA {
namespace {

// The same operations in the same order wherever a distance is compared: a pair is in or out for all of them alike.
inline v8d squared(v8d dx, v8d dy, v8d dz) { return dx * dx + dy * dy + dz * dz; }

inline v8d outside(v8d x, double low, double high) {
    return larger(larger(broadcast(low) - x, x - broadcast(high)), broadcast(0.0));
}

int64_t pack(const double* x, const double* y, const double* z, const Range* ranges, int64_t n_ranges, int64_t home,
             const double* low, const double* high, double limit, Candidates& out) {
    const v8d limits = broadcast(limit);
    const v8i step = {0, 1, 2, 3, 4, 5, 6, 7};
    int64_t size = 0, before_home = 0;
    for (int64_t range = 0; range < n_ranges; ++range) {
        if (range == home) before_home = size;
        for (int64_t j = ranges[range].begin; j < ranges[range].end; j += LANES) {
            const v8d px = load(x + j), py = load(y + j), pz = load(z + j);  // the arrays are padded
            // Rounding is monotonic, so no atom in the box computes a smaller distance than this.
            const v8d r2 = squared(outside(px, low[0], high[0]), outside(py, low[1], high[1]), outside(pz, low[2], high[2]));
            unsigned inside = less_mask(r2, limits);
            const int64_t left = ranges[range].end - j;
            if (left < LANES) inside &= (1u << left) - 1u;
#if !defined(__AVX512F__)
            // Packing is slow without the instruction for it: take what stands before the last that is wanted.
            if (inside) inside = (2u << (31 - __builtin_clz(inside))) - 1u;
            store(out.x + size, px), store(out.y + size, py), store(out.z + size, pz);
            store(out.slot + size, static_cast<int32_t>(j) + step);
#else
            compress_store(out.x + size, inside, px);
            compress_store(out.y + size, inside, py);
            compress_store(out.z + size, inside, pz);
            compress_store(out.slot + size, inside, static_cast<int32_t>(j) + step);
#endif
            size += __builtin_popcount(inside);
        }
    }
    store(out.x + size, broadcast(std::numeric_limits<double>::quiet_NaN()));  // never inside
    out.size = size;
    return before_home;
}

void collect(const Candidates& from, const double* centre, double near_squared, double cutoff_squared, Collected& out) {
    const v8d cx = broadcast(centre[0]), cy = broadcast(centre[1]), cz = broadcast(centre[2]);
    const v8d limit = broadcast(cutoff_squared), near_limit = broadcast(near_squared);
    int32_t *near = out.near + out.n_near, *shell = out.shell + out.n_shell;
    for (int64_t j = 0; j < from.size; j += LANES) {
        const v8d r2 = squared(load(from.x + j) - cx, load(from.y + j) - cy, load(from.z + j) - cz);
        const unsigned inside = less_mask(r2, limit), close = less_mask(r2, near_limit);
#if !defined(__AVX512F__)
        if (!inside) continue;
#endif
        v8i slots;
        std::memcpy(&slots, from.slot + j, sizeof slots);
        compress_store(near, close, slots);
        compress_store(shell, inside & ~close, slots);
        near += __builtin_popcount(close);
        shell += __builtin_popcount(inside & ~close);
    }
    out.n_near = near - out.near;
    out.n_shell = shell - out.shell;
}

int64_t shorten(const Place* places, const int32_t* columns, int64_t n, const double* centre, double limit, int32_t* kept) {
    const v8d cx = broadcast(centre[0]), cy = broadcast(centre[1]), cz = broadcast(centre[2]), limits = broadcast(limit);
    int64_t size = 0;
    for (int64_t p = 0; p < n; p += LANES) {
        const double* at[LANES];
        v8i entries;
        for (int l = 0; l < LANES; ++l) {
            entries[l] = columns[p + l < n ? p + l : p];
            at[l] = places[entries[l]].r;
        }
        v8d x, y, z, unused;
        transpose_8x4(at, x, y, z, unused);
        unsigned inside = less_mask(squared(x - cx, y - cy, z - cz), limits);
        if (n - p < LANES) inside &= (1u << (n - p)) - 1u;
        compress_store(kept + size, inside, entries);
        size += __builtin_popcount(inside);
    }
    return size;
}

bool rank(const int32_t* keys, int64_t n, int32_t* ranks) {
    typedef int32_t v16i __attribute__((vector_size(64)));
    constexpr int64_t WIDTH = 16;
    v16i sums = {};
    for (int64_t p = 0; p < n; p += WIDTH) {
        v16i mine, count = {};
        std::memcpy(&mine, keys + p, sizeof mine);
        for (int64_t q = 0; q < n; ++q) count -= mine > keys[q];  // a comparison that holds is −1
        std::memcpy(ranks + p, &count, sizeof count);
        if (n - p >= WIDTH) sums += count;
        else for (int64_t l = 0; l < n - p; ++l) sums[l] += count[l];
    }
    int64_t sum = 0;
    for (int64_t l = 0; l < WIDTH; ++l) sum += sums[l];
    return sum == n * (n - 1) / 2;  // equal keys have equal ranks, and some are left out
}

}  // namespace

const NeighborLoops neighbor_loops = {pack, collect, shorten, rank};

}  // namespace RK_ISA
}  // namespace rk
