// Particle mesh: sorts atoms by brick, and runs spreading and interpolation on all threads.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "common.hpp"
#include "grid.hpp"
#include "isa.hpp"

namespace rk {
namespace {

constexpr int64_t OK = 0, NON_FINITE = -1;

GridShape make_shape(const int64_t* size, int64_t order, const double* table, int64_t degree) {
    GridShape shape{};
    for (int a = 0; a < 3; ++a) {
        shape.size[a] = size[a];
        shape.bricks[a] = (size[a] + GRID_BRICK - 1) / GRID_BRICK;
    }
    shape.order = order;
    shape.degree = degree;
    shape.table = table;
    return shape;
}

template <typename Args>
using SpreadLoop = void (*)(const GridShape&, const GridSites&, const Args&, int64_t, int64_t, int64_t, int64_t);
template <typename Args>
using InterpolateLoop = void (*)(const GridShape&, const GridSites&, const Args&, int64_t, int64_t);

template <typename Args>
SpreadLoop<Args> spread_loop() {
    switch (active_isa()) {
#if defined(__x86_64__)
        case Isa::avx512: return avx512::spread;
        case Isa::avx2: return avx2::spread;
#endif
        default: return baseline::spread;
    }
}

template <typename Args>
InterpolateLoop<Args> interpolate_loop() {
    switch (active_isa()) {
#if defined(__x86_64__)
        case Isa::avx512: return avx512::interpolate;
        case Isa::avx2: return avx2::interpolate;
#endif
        default: return baseline::interpolate;
    }
}

// Every mesh point belongs to one task, which adds to it in the order of the sorted atoms: the result does not depend on
// how the mesh is cut. Atoms near a cut are visited by two tasks.
template <typename T>
void spread(const GridShape& shape, const GridSites& sites, const GridSpread<T>& args, int64_t threads) {
    const auto loop = spread_loop<GridSpread<T>>();
    constexpr int64_t GROUP = 64 / sizeof(T);  // channels that the loops take together
    const int64_t groups = (args.channels + GROUP - 1) / GROUP;
    // Whole channels where there are enough of them, else slabs of planes, some four tasks a thread.
    const int64_t slabs = groups >= 4 * threads || threads == 1 ? 1
                          : std::min<int64_t>((shape.size[0] + 15) / 16, (4 * threads + groups - 1) / groups);
#pragma omp parallel for num_threads(static_cast<int>(threads)) schedule(dynamic, 1) if (threads > 1)
    for (int64_t task = 0; task < groups * slabs; ++task) {
        const int64_t group = task / slabs, slab = task % slabs;
        loop(shape, sites, args, slab * shape.size[0] / slabs, (slab + 1) * shape.size[0] / slabs, group * GROUP,
             std::min(args.channels, (group + 1) * GROUP));
    }
}

template <typename T>
void interpolate(const GridShape& shape, const GridSites& sites, const GridInterpolate<T>& args, int64_t threads) {
    const auto loop = interpolate_loop<GridInterpolate<T>>();
    const int64_t n_bricks = shape.bricks[0] * shape.bricks[1] * shape.bricks[2];
    const int64_t tasks = std::min(n_bricks, 16 * threads);
    std::vector<int64_t> cuts(tasks + 1, n_bricks);  // bricks of about equal numbers of atoms
    for (int64_t task = 0; task < tasks; ++task)
        cuts[task] = std::lower_bound(sites.brick_ptr, sites.brick_ptr + n_bricks, task * sites.n / tasks) - sites.brick_ptr;
    cuts[0] = 0;
#pragma omp parallel for num_threads(static_cast<int>(threads)) schedule(dynamic, 1) if (threads > 1)
    for (int64_t task = 0; task < tasks; ++task) loop(shape, sites, args, cuts[task], cuts[task + 1]);
}

}  // namespace
}  // namespace rk

// Number of bricks of a mesh of `size` points: one less than the length of brick_ptr.
RK_EXPORT int64_t rk_grid_bricks(const int64_t* size) {
    const rk::GridShape shape = rk::make_shape(size, 1, nullptr, 0);
    return shape.bricks[0] * shape.bricks[1] * shape.bricks[2];
}

// Sorts n atoms at fractional coordinates f (n, 3) by brick, then by first mesh point, then by number.
// Returns 0, or -1 where a coordinate is not finite.
RK_EXPORT int64_t rk_grid_sort(const double* fractional, int64_t n, const int64_t* size, int64_t order, int64_t threads,
                               int64_t* atom, int32_t* first, double* place, int64_t* brick_ptr) {
    using namespace rk;
    const GridShape shape = make_shape(size, order, nullptr, 0);
    const int64_t n_bricks = rk_grid_bricks(size);
    constexpr int64_t CELLS = GRID_BRICK * GRID_BRICK * GRID_BRICK;
    std::vector<int64_t> brick(n), by_cell(n);
    std::vector<int16_t> cell(n);
    std::vector<int32_t> points(3 * n);
    std::vector<double> places(3 * n);
    bool finite = true;
#pragma omp parallel for num_threads(static_cast<int>(threads)) reduction(&& : finite) if (threads > 1 && n > 4096)
    for (int64_t j = 0; j < n; ++j) {
        int64_t b = 0, k = 0;
        for (int a = 0; a < 3; ++a) {
            double f = fractional[3 * j + a];
            f -= std::floor(f);
            if (!(f >= 0.0 && f <= 1.0)) {  // NaN or infinite
                finite = false;
                f = 0.0;
            }
            const double g = static_cast<double>(shape.size[a]), u = f * g + 0.5 * static_cast<double>(order);
            const double whole = std::floor(u);
            const int64_t start = static_cast<int64_t>(whole) - order + 1, turn = start % shape.size[a];
            const int64_t point = turn < 0 ? turn + shape.size[a] : turn;
            points[3 * j + a] = static_cast<int32_t>(point);
            places[3 * j + a] = u - whole - 0.5;
            b = b * shape.bricks[a] + point / GRID_BRICK;
            k = k * GRID_BRICK + point % GRID_BRICK;
        }
        brick[j] = b;
        cell[j] = static_cast<int16_t>(k);
    }
    if (!finite) return NON_FINITE;
    // Two stable counting sorts: by cell within the brick, then by brick.
    std::vector<int64_t> start(CELLS + 1, 0);
    for (int64_t j = 0; j < n; ++j) ++start[cell[j] + 1];
    for (int64_t k = 0; k < CELLS; ++k) start[k + 1] += start[k];
    for (int64_t j = 0; j < n; ++j) by_cell[start[cell[j]]++] = j;
    std::fill(brick_ptr, brick_ptr + n_bricks + 1, 0);
    for (int64_t j = 0; j < n; ++j) ++brick_ptr[brick[j] + 1];
    for (int64_t b = 0; b < n_bricks; ++b) brick_ptr[b + 1] += brick_ptr[b];
    std::vector<int64_t> cursor(brick_ptr, brick_ptr + n_bricks);
    for (int64_t i = 0; i < n; ++i) {
        const int64_t j = by_cell[i], to = cursor[brick[j]]++;
        atom[to] = j;
        std::memcpy(first + 3 * to, &points[3 * j], 3 * sizeof(int32_t));
        std::memcpy(place + 3 * to, &places[3 * j], 3 * sizeof(double));
    }
    return OK;
}

// Spreads x (n, channels) to rho (channels, size), whose channels are `stride` numbers apart, see GridSpread. `bits` is 32 or 64.
RK_EXPORT int64_t rk_grid_spread(int64_t bits, const int64_t* size, int64_t order, const double* table, int64_t degree, int64_t n,
                                 const int64_t* atom, const int32_t* first, const double* place, const int64_t* brick_ptr,
                                 const void* x, const double* direction, int64_t channels, int64_t stride, int64_t threads, void* rho) {
    using namespace rk;
    const GridShape shape = make_shape(size, order, table, degree);
    const GridSites sites{n, atom, first, place, brick_ptr};
    if (bits == 32)
        spread<float>(shape, sites, {static_cast<const float*>(x), direction, channels, stride, static_cast<float*>(rho)}, threads);
    else
        spread<double>(shape, sites, {static_cast<const double*>(x), direction, channels, stride, static_cast<double*>(rho)}, threads);
    return OK;
}

// Interpolates phi (channels, size) to y (n, channels) and, where x is given, to pull (n, 3), see GridInterpolate.
RK_EXPORT int64_t rk_grid_interpolate(int64_t bits, const int64_t* size, int64_t order, const double* table, int64_t degree, int64_t n,
                                      const int64_t* atom, const int32_t* first, const double* place, const int64_t* brick_ptr,
                                      const void* phi, const void* x, const double* direction, int64_t channels, int64_t stride, int64_t threads,
                                      void* y, double* pull) {
    using namespace rk;
    const GridShape shape = make_shape(size, order, table, degree);
    const GridSites sites{n, atom, first, place, brick_ptr};
    if (bits == 32)
        interpolate<float>(shape, sites, {static_cast<const float*>(phi), static_cast<const float*>(x), direction, channels, stride,
                                          static_cast<float*>(y), pull}, threads);
    else
        interpolate<double>(shape, sites, {static_cast<const double*>(phi), static_cast<const double*>(x), direction, channels, stride,
                                           static_cast<double*>(y), pull}, threads);
    return OK;
}

// Asks for large pages under a fresh buffer, which saves most of the page faults of its first use; advice only.
RK_EXPORT int64_t rk_large_pages(void* start, int64_t bytes) {
#if defined(__linux__)
    constexpr uintptr_t PAGE = uintptr_t(2) << 20;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(start) + PAGE - 1) & ~(PAGE - 1);
    const uintptr_t end = (reinterpret_cast<uintptr_t>(start) + static_cast<uintptr_t>(bytes)) & ~(PAGE - 1);
    if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
    return 0;
}
