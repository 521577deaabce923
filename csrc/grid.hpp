// Atoms on a periodic mesh through a window of finite support: the sites, the arguments and the loops' interface.
//
// An atom at mesh coordinate u touches, on each axis, the `order` points first, first + 1, ... (modulo the mesh), with weights
// that are polynomials in s = t − 1/2, t being the place of u + order/2 between two whole numbers. The product of the
// three weights spreads values to the mesh and interpolates them from it. Everything here is in units of mesh steps;
// derivatives by fractional coordinates take factors of the mesh sizes.
#pragma once
#include <cstdint>

namespace rk {

constexpr int GRID_BRICK = 8;   // mesh points along each edge of a brick, by which atoms are sorted
constexpr int GRID_LANES = 16;  // columns of the polynomial table; the largest order
constexpr int GRID_HALO = GRID_BRICK + GRID_LANES - 1;  // planes or rows of a brick with its halo, at most

struct GridShape {
    int64_t size[3];    // mesh points; z is contiguous
    int64_t bricks[3];  // number of bricks along each axis
    int64_t order, degree;
    const double* table;  // (degree + 1, GRID_LANES): polynomials of the weights

    int64_t points() const { return size[0] * size[1] * size[2]; }
};

// Atoms in the order of their bricks, and within a brick of their first mesh point.
struct GridSites {
    int64_t n;
    const int64_t* atom;       // (n) place among the caller's atoms
    const int32_t* first;      // (n, 3) first mesh point touched, in [0, size)
    const double* place;       // (n, 3) s
    const int64_t* brick_ptr;  // (n_bricks + 1)
};

// rho[c, points] = Σ_j x[j, c] S(f_j), or with `direction` a the rate Σ_j x[j, c] a_j·∇S(f_j), ∇ by fractional coordinates.
template <typename T>
struct GridSpread {
    const T* x;  // (n, channels)
    const double* direction;
    int64_t channels, stride;  // numbers from one channel of the mesh to the next
    T* rho;
};

// y[j, c] = Σ_points phi[c, point] S(f_j), pull[j] = Σ_c x[j, c] ∇y[j, c]; with `direction` the rates of both along it.
template <typename T>
struct GridInterpolate {
    const T* phi;
    const T* x;  // or null: no pull
    const double* direction;
    int64_t channels, stride;
    T* y;
    double* pull;
};

#define RK_GRID_LOOPS                                                                                                         \
    void spread(const GridShape&, const GridSites&, const GridSpread<float>&, int64_t begin, int64_t end, int64_t c, int64_t stop);  \
    void spread(const GridShape&, const GridSites&, const GridSpread<double>&, int64_t begin, int64_t end, int64_t c, int64_t stop); \
    void interpolate(const GridShape&, const GridSites&, const GridInterpolate<float>&, int64_t begin, int64_t end);         \
    void interpolate(const GridShape&, const GridSites&, const GridInterpolate<double>&, int64_t begin, int64_t end);

// spread: planes [begin, end) of channels [c, stop), zeroed first. interpolate: atoms of bricks [begin, end).
namespace baseline { RK_GRID_LOOPS }
namespace avx2 { RK_GRID_LOOPS }
namespace avx512 { RK_GRID_LOOPS }

}  // namespace rk
