// Body of spreading and interpolation; the including file defines RK_ISA, the namespace it lands in.
//
// Two ways through a brick. *Wide*: the brick and its halo are a tile with a cache line of channels at every point; an atom
// does one multiply-add a point for all of them, and the tile is transposed to or from the mesh. *Narrow*: one channel, eight
// points along z at a time, on a tile or, where few atoms would not pay for one, on the mesh itself.
#include "grid_weights.hpp"

namespace rk {
namespace RK_ISA {
namespace {

// Weight of a row (x, y) of points along z: even · w_z + odd · w_z′.
template <typename T>
struct RowWeight {
    T even, odd;
};

template <bool TANGENT, typename T, int WIDTH>
inline RowWeight<T> row_weight(const Weights<T, WIDTH, TANGENT>& weights, int64_t x, int64_t y, const T* a) {
    const T wx = weights.w[0][0][x], wy = weights.w[1][0][y];
    if (!TANGENT) return {wx * wy, T(0)};
    const T dx = weights.w[0][TANGENT][x], dy = weights.w[1][TANGENT][y];
    return {a[0] * dx * wy + a[1] * wx * dy, a[2] * wx * wy};
}

template <typename T>
inline void read_direction(const double* direction, int64_t atom, T a[3]) {
    for (int k = 0; k < 3; ++k) a[k] = static_cast<T>(direction[3 * atom + k]);
}

// Adds points [z0, z0 + 8) of one mesh row, which may wrap.
template <typename T>
inline void add_eight(T* row, int64_t z, int64_t size, typename Vectors<T>::Eight v) {
    using Eight = typename Vectors<T>::Eight;
    if (z + 8 <= size) {
        store_as(row + z, load_as<Eight>(row + z) + v);
    } else {
        for (int64_t k = 0; k < 8; ++k) row[(z + k) % size] += v[k];
    }
}

template <typename T>
inline typename Vectors<T>::Eight read_eight(const T* row, int64_t z, int64_t size) {
    typename Vectors<T>::Eight v;
    if (z + 8 <= size) return load_as<typename Vectors<T>::Eight>(row + z);
    for (int64_t k = 0; k < 8; ++k) v[k] = row[(z + k) % size];
    return v;
}

template <typename T, int WIDTH, bool TANGENT>
void spread_wide(const GridShape& shape, const GridSites& sites, const GridSpread<T>& args, int64_t begin, int64_t end, int64_t c0,
                 int64_t c1) {
    using Line = typename Vectors<T>::Line;
    using Eight = typename Vectors<T>::Eight;
    constexpr int64_t L = sizeof(Line) / sizeof(T), TZ = GRID_BRICK + WIDTH;
    const int64_t p = shape.order, per_plane = shape.size[1] * shape.size[2], extent = GRID_BRICK + p - 1, depth = (extent + 7) / 8 * 8;
    const Tile<T> tile(extent * extent * TZ * L);
    const std::unique_ptr<Batch<T, WIDTH, TANGENT>> batch(new Batch<T, WIDTH, TANGENT>);
    const int64_t n_bricks = shape.bricks[0] * shape.bricks[1] * shape.bricks[2];
    for (int64_t index = 0; index < n_bricks; ++index) {
        const Brick brick(shape, sites, index);
        if (brick.begin == brick.end) continue;
        bool own[GRID_BRICK + GRID_LANES - 1], any = false;
        for (int64_t l = 0; l < extent; ++l) {
            own[l] = brick.plane[l] >= begin * per_plane && brick.plane[l] < end * per_plane;
            any |= own[l];
        }
        if (!any) continue;
        std::memset(tile.data, 0, extent * extent * TZ * L * sizeof(T));
        for (int64_t from = brick.begin; from < brick.end; from += batch->SIZE) {
            const int64_t to = std::min(brick.end, from + batch->SIZE);
            batch->fill(shape, sites, from, to);
            for (int64_t i = from; i < to; ++i) {
                const auto& weights = batch->weights[i - from];
                T values[L] = {}, a[3] = {};
                std::memcpy(values, args.x + sites.atom[i] * args.channels + c0, (c1 - c0) * sizeof(T));
                if (TANGENT) read_direction(args.direction, sites.atom[i], a);
                const Line x = load_as<Line>(values);
                const int64_t lx = sites.first[3 * i] - brick.x0, ly = sites.first[3 * i + 1] - brick.y0;
                T* const corner = tile.data + ((lx * extent + ly) * TZ + sites.first[3 * i + 2] - brick.z0) * L;
                for (int64_t px = 0; px < p; ++px) {
                    if (!own[lx + px]) continue;
                    T* point = corner + px * extent * TZ * L;
                    for (int64_t py = 0; py < p; ++py, point += TZ * L) {
                        const RowWeight<T> row = row_weight<TANGENT>(weights, px, py, a);
                        const Line even = x * row.even, odd = x * row.odd;
                        const T *wz = weights.w[2][0], *dz = weights.w[2][TANGENT];
                        for (int64_t pz = 0; pz < p; ++pz) {
                            Line v = load_as<Line>(point + pz * L) + even * wz[pz];
                            if (TANGENT) v += odd * dz[pz];
                            store_as(point + pz * L, v);
                        }
                    }
                }
            }
        }
        for (int64_t lx = 0; lx < extent; ++lx) {
            if (!own[lx]) continue;
            for (int64_t ly = 0; ly < extent; ++ly)
                for (int64_t z = 0; z < depth; z += 8)
                    for (int64_t c = c0; c < c1; c += 8) {
                        Eight v[8];
                        const T* const from = tile.data + ((lx * extent + ly) * TZ + z) * L + (c - c0);
                        for (int k = 0; k < 8; ++k) v[k] = load_as<Eight>(from + k * L);
                        transpose_8x8(v);
                        T* row = args.rho + c * shape.points() + brick.plane[lx] + brick.row[ly];
                        for (int64_t k = 0; k < 8 && c + k < c1; ++k, row += shape.points()) add_eight(row, (brick.z0 + z) % shape.size[2], shape.size[2], v[k]);
                    }
        }
    }
}

template <typename T, int WIDTH, bool TANGENT>
void spread_narrow(const GridShape& shape, const GridSites& sites, const GridSpread<T>& args, int64_t begin, int64_t end, int64_t c0,
                   int64_t c1) {
    using Eight = typename Vectors<T>::Eight;
    constexpr int64_t TZ = GRID_BRICK + WIDTH;
    const int64_t p = shape.order, per_plane = shape.size[1] * shape.size[2], extent = GRID_BRICK + p - 1;
    Tile<T> tile(extent * extent * TZ);
    int64_t tile_plane[GRID_BRICK + GRID_LANES - 1], tile_row[GRID_BRICK + GRID_LANES - 1];
    for (int64_t l = 0; l < extent; ++l) {
        tile_plane[l] = l * extent * TZ;
        tile_row[l] = l * TZ;
    }
    const std::unique_ptr<Batch<T, WIDTH, TANGENT>> batch(new Batch<T, WIDTH, TANGENT>);
    const int64_t n_bricks = shape.bricks[0] * shape.bricks[1] * shape.bricks[2];
    for (int64_t index = 0; index < n_bricks; ++index) {
        const Brick brick(shape, sites, index);
        if (brick.begin == brick.end) continue;
        bool own[GRID_BRICK + GRID_LANES - 1], any = false;
        for (int64_t l = 0; l < extent; ++l) {
            own[l] = brick.plane[l] >= begin * per_plane && brick.plane[l] < end * per_plane;
            any |= own[l];
        }
        if (!any) continue;
        const bool tiled = brick.z0 + TZ > shape.size[2] || (brick.end - brick.begin) * p * p > 4 * extent * extent;
        for (int64_t c = c0; c < c1; ++c) {
            T* const mesh = args.rho + c * shape.points();
            T* const target = tiled ? tile.data : mesh + brick.z0;
            const int64_t *const plane = tiled ? tile_plane : brick.plane, *const line = tiled ? tile_row : brick.row;
            if (tiled) std::memset(tile.data, 0, extent * extent * TZ * sizeof(T));
            for (int64_t from = brick.begin; from < brick.end; from += batch->SIZE) {
                const int64_t to = std::min(brick.end, from + batch->SIZE);
                batch->fill(shape, sites, from, to);
                for (int64_t i = from; i < to; ++i) {
                    const auto& weights = batch->weights[i - from];
                    const T x = args.x[sites.atom[i] * args.channels + c];
                    T a[3] = {};
                    if (TANGENT) read_direction(args.direction, sites.atom[i], a);
                    const int64_t lx = sites.first[3 * i] - brick.x0, ly = sites.first[3 * i + 1] - brick.y0;
                    T* const corner = target + sites.first[3 * i + 2] - brick.z0;
                    for (int64_t px = 0; px < p; ++px) {
                        if (!own[lx + px]) continue;
                        for (int64_t py = 0; py < p; ++py) {
                            const RowWeight<T> row = row_weight<TANGENT>(weights, px, py, a);
                            T* const point = corner + plane[lx + px] + line[ly + py];
                            for (int64_t l = 0; l < WIDTH; l += 8) {
                                Eight v = load_as<Eight>(point + l) + load_as<Eight>(&weights.w[2][0][l]) * (x * row.even);
                                if (TANGENT) v += load_as<Eight>(&weights.w[2][TANGENT][l]) * (x * row.odd);
                                store_as(point + l, v);
                            }
                        }
                    }
                }
            }
            if (!tiled) continue;
            for (int64_t lx = 0; lx < extent; ++lx) {
                if (!own[lx]) continue;
                for (int64_t ly = 0; ly < extent; ++ly)
                    for (int64_t z = 0; z < TZ; z += 8)
                        add_eight(mesh + brick.plane[lx] + brick.row[ly], (brick.z0 + z) % shape.size[2], shape.size[2],
                                  load_as<Eight>(tile.data + tile_plane[lx] + tile_row[ly] + z));
            }
        }
    }
}

// Sums of a field over an atom's points with derivatives of the weights: value; x, y, z; xx, yy, zz, yz, xz, xy.
enum Moment { VALUE, X, Y, Z, XX, YY, ZZ, YZ, XZ, XY };
constexpr int moments(int k) { return k == 0 ? 1 : k == 1 ? 4 : 10; }

template <typename T, int WIDTH, int K, typename Line>
inline void moments_wide(const Weights<T, WIDTH, K>& weights, const T* corner, int64_t p, int64_t plane, int64_t row, Line m[]) {
    constexpr int64_t L = sizeof(Line) / sizeof(T);
    const Line zero = {};
    const auto& w = weights.w;
    constexpr int D = K > 0, DD = K > 1 ? 2 : 0;
    for (int k = 0; k < moments(K); ++k) m[k] = zero;
    for (int64_t px = 0; px < p; ++px) {
        Line a0 = zero, a1 = zero, a2 = zero, b0 = zero, b1 = zero, c0 = zero;
        for (int64_t py = 0; py < p; ++py) {
            const T* const point = corner + px * plane + py * row;
            Line r0 = zero, r1 = zero, r2 = zero;
            for (int64_t pz = 0; pz < p; ++pz) {
                const Line v = load_as<Line>(point + pz * L);
                r0 += v * w[2][0][pz];
                if (K > 0) r1 += v * w[2][D][pz];
                if (K > 1) r2 += v * w[2][DD][pz];
            }
            a0 += r0 * w[1][0][py];
            if (K > 0) {
                a1 += r0 * w[1][D][py];
                b0 += r1 * w[1][0][py];
            }
            if (K > 1) {
                a2 += r0 * w[1][DD][py];
                b1 += r1 * w[1][D][py];
                c0 += r2 * w[1][0][py];
            }
        }
        const T wx = w[0][0][px], dx = w[0][D][px], ddx = w[0][DD][px];
        m[VALUE] += a0 * wx;
        if (K > 0) {
            m[X] += a0 * dx;
            m[Y] += a1 * wx;
            m[Z] += b0 * wx;
        }
        if (K > 1) {
            m[XX] += a0 * ddx;
            m[YY] += a2 * wx;
            m[ZZ] += c0 * wx;
            m[YZ] += b1 * wx;
            m[XZ] += b0 * dx;
            m[XY] += a1 * dx;
        }
    }
}

template <typename T, int WIDTH, int K>
inline void moments_narrow(const Weights<T, WIDTH, K>& weights, const T* corner, int64_t p, const int64_t* plane, const int64_t* row, T m[]) {
    using Eight = typename Vectors<T>::Eight;
    const Eight zero = {};
    const auto& w = weights.w;
    constexpr int D = K > 0, DD = K > 1 ? 2 : 0;
    for (int k = 0; k < moments(K); ++k) m[k] = T(0);
    for (int64_t l = 0; l < WIDTH; l += 8) {
        Eight t00 = zero, t10 = zero, t01 = zero, t20 = zero, t11 = zero, t02 = zero;
        for (int64_t px = 0; px < p; ++px) {
            Eight a0 = zero, a1 = zero, a2 = zero;
            for (int64_t py = 0; py < p; ++py) {
                const Eight v = load_as<Eight>(corner + plane[px] + row[py] + l);
                a0 += v * w[1][0][py];
                if (K > 0) a1 += v * w[1][D][py];
                if (K > 1) a2 += v * w[1][DD][py];
            }
            const T wx = w[0][0][px], dx = w[0][D][px], ddx = w[0][DD][px];
            t00 += a0 * wx;
            if (K > 0) {
                t10 += a0 * dx;
                t01 += a1 * wx;
            }
            if (K > 1) {
                t20 += a0 * ddx;
                t11 += a1 * dx;
                t02 += a2 * wx;
            }
        }
        const Eight wz = load_as<Eight>(&w[2][0][l]), dz = load_as<Eight>(&w[2][D][l]), ddz = load_as<Eight>(&w[2][DD][l]);
        m[VALUE] += sum_of(t00 * wz);
        if (K > 0) {
            m[X] += sum_of(t10 * wz);
            m[Y] += sum_of(t01 * wz);
            m[Z] += sum_of(t00 * dz);
        }
        if (K > 1) {
            m[XX] += sum_of(t20 * wz);
            m[YY] += sum_of(t02 * wz);
            m[ZZ] += sum_of(t00 * ddz);
            m[YZ] += sum_of(t01 * dz);
            m[XZ] += sum_of(t10 * dz);
            m[XY] += sum_of(t11 * wz);
        }
    }
}

// From moments of channels to y and pull; V is a number or a line of channels.
template <int K, typename V, typename T>
inline V outputs(const V m[], const T* a, V gradient[3]) {
    if (!a) {
        if (K > 0)
            for (int k = 0; k < 3; ++k) gradient[k] = m[X + k];
        return m[VALUE];
    }
    if (K > 1) {
        gradient[0] = m[XX] * a[0] + m[XY] * a[1] + m[XZ] * a[2];
        gradient[1] = m[XY] * a[0] + m[YY] * a[1] + m[YZ] * a[2];
        gradient[2] = m[XZ] * a[0] + m[YZ] * a[1] + m[ZZ] * a[2];
    }
    return m[X] * a[0] + m[Y] * a[1] + m[Z] * a[2];
}

template <typename T, int WIDTH, int K>
void interpolate_wide(const GridShape& shape, const GridSites& sites, const GridInterpolate<T>& args, const Brick& brick, int64_t c0,
                      int64_t c1, T* tile, Batch<T, WIDTH, K>& batch) {
    using Line = typename Vectors<T>::Line;
    using Eight = typename Vectors<T>::Eight;
    constexpr int64_t L = sizeof(Line) / sizeof(T), TZ = GRID_BRICK + WIDTH;
    const int64_t p = shape.order, extent = GRID_BRICK + p - 1, depth = (extent + 7) / 8 * 8;
    for (int64_t lx = 0; lx < extent; ++lx)
        for (int64_t ly = 0; ly < extent; ++ly)
            for (int64_t z = 0; z < depth; z += 8)
                for (int64_t c = c0; c < c0 + L; c += 8) {
                    Eight v[8] = {};
                    const T* row = args.phi + c * shape.points() + brick.plane[lx] + brick.row[ly];
                    for (int64_t k = 0; k < 8 && c + k < c1; ++k, row += shape.points()) v[k] = read_eight(row, (brick.z0 + z) % shape.size[2], shape.size[2]);
                    transpose_8x8(v);
                    T* const to = tile + ((lx * extent + ly) * TZ + z) * L + (c - c0);
                    for (int k = 0; k < 8; ++k) store_as(to + k * L, v[k]);
                }
    for (int64_t from = brick.begin; from < brick.end; from += batch.SIZE) {
        const int64_t to = std::min(brick.end, from + batch.SIZE);
        batch.fill(shape, sites, from, to);
        for (int64_t i = from; i < to; ++i) {
            const int64_t atom = sites.atom[i];
            const int64_t lx = sites.first[3 * i] - brick.x0, ly = sites.first[3 * i + 1] - brick.y0, lz = sites.first[3 * i + 2] - brick.z0;
            T a[3];
            if (args.direction) read_direction(args.direction, atom, a);
            Line m[moments(K)], gradient[3];
            moments_wide<T, WIDTH, K>(batch.weights[i - from], tile + ((lx * extent + ly) * TZ + lz) * L, p, extent * TZ * L, TZ * L, m);
            const Line y = outputs<K>(m, args.direction ? a : nullptr, gradient);
            std::memcpy(args.y + atom * args.channels + c0, &y, (c1 - c0) * sizeof(T));
            if (!args.x) continue;
            const T* const x = args.x + atom * args.channels + c0;
            for (int k = 0; k < 3; ++k) {
                double total = 0.0;
                for (int64_t c = 0; c < c1 - c0; ++c) total += static_cast<double>(x[c]) * static_cast<double>(gradient[k][c]);
                args.pull[3 * atom + k] += total;
            }
        }
    }
}

template <typename T, int WIDTH, int K>
void interpolate_narrow(const GridShape& shape, const GridSites& sites, const GridInterpolate<T>& args, const Brick& brick, int64_t c0,
                        int64_t c1, T* tile, Batch<T, WIDTH, K>& batch) {
    using Eight = typename Vectors<T>::Eight;
    constexpr int64_t TZ = GRID_BRICK + WIDTH;
    const int64_t p = shape.order, extent = GRID_BRICK + p - 1;
    int64_t tile_plane[GRID_BRICK + GRID_LANES - 1], tile_row[GRID_BRICK + GRID_LANES - 1];
    for (int64_t l = 0; l < extent; ++l) {
        tile_plane[l] = l * extent * TZ;
        tile_row[l] = l * TZ;
    }
    const bool tiled = brick.z0 + TZ > shape.size[2];
    for (int64_t c = c0; c < c1; ++c) {
        const T* const mesh = args.phi + c * shape.points();
        if (tiled)
            for (int64_t lx = 0; lx < extent; ++lx)
                for (int64_t ly = 0; ly < extent; ++ly)
                    for (int64_t z = 0; z < TZ; z += 8)
                        store_as<Eight>(tile + tile_plane[lx] + tile_row[ly] + z,
                                        read_eight(mesh + brick.plane[lx] + brick.row[ly], (brick.z0 + z) % shape.size[2], shape.size[2]));
        const T* const source = tiled ? tile : mesh + brick.z0;
        const int64_t *const plane = tiled ? tile_plane : brick.plane, *const row = tiled ? tile_row : brick.row;
        for (int64_t from = brick.begin; from < brick.end; from += batch.SIZE) {
            const int64_t to = std::min(brick.end, from + batch.SIZE);
            batch.fill(shape, sites, from, to);
            for (int64_t i = from; i < to; ++i) {
                const int64_t atom = sites.atom[i];
                T a[3], m[moments(K)], gradient[3];
                if (args.direction) read_direction(args.direction, atom, a);
                moments_narrow<T, WIDTH, K>(batch.weights[i - from], source + sites.first[3 * i + 2] - brick.z0, p,
                                            plane + sites.first[3 * i] - brick.x0, row + sites.first[3 * i + 1] - brick.y0, m);
                args.y[atom * args.channels + c] = outputs<K>(m, args.direction ? a : nullptr, gradient);
                if (!args.x) continue;
                const double x = static_cast<double>(args.x[atom * args.channels + c]);
                for (int k = 0; k < 3; ++k) args.pull[3 * atom + k] += x * static_cast<double>(gradient[k]);
            }
        }
    }
}

template <typename T>
void spread_planes(const GridShape& shape, const GridSites& sites, const GridSpread<T>& args, int64_t begin, int64_t end, int64_t c0, int64_t c1) {
    const int64_t per_plane = shape.size[1] * shape.size[2];
    for (int64_t c = c0; c < c1; ++c) std::memset(args.rho + c * shape.points() + begin * per_plane, 0, (end - begin) * per_plane * sizeof(T));
    const bool wide = c1 - c0 >= WIDE_FROM<T>, tangent = args.direction != nullptr;
    if (shape.order <= 8) {
        const auto loop = wide ? (tangent ? spread_wide<T, 8, true> : spread_wide<T, 8, false>)
                               : (tangent ? spread_narrow<T, 8, true> : spread_narrow<T, 8, false>);
        loop(shape, sites, args, begin, end, c0, c1);
    } else {
        const auto loop = wide ? (tangent ? spread_wide<T, 16, true> : spread_wide<T, 16, false>)
                               : (tangent ? spread_narrow<T, 16, true> : spread_narrow<T, 16, false>);
        loop(shape, sites, args, begin, end, c0, c1);
    }
}

template <typename T, int WIDTH, int K>
void interpolate_group(const GridShape& shape, const GridSites& sites, const GridInterpolate<T>& args, int64_t begin, int64_t end) {
    constexpr int64_t L = 64 / sizeof(T);
    const int64_t extent = GRID_BRICK + shape.order - 1;
    const Tile<T> tile(extent * extent * (GRID_BRICK + WIDTH) * L);
    const std::unique_ptr<Batch<T, WIDTH, K>> batch(new Batch<T, WIDTH, K>);
    for (int64_t index = begin; index < end; ++index) {
        const Brick brick(shape, sites, index);
        if (brick.begin == brick.end) continue;
        for (int64_t c = 0; c < args.channels; c += L) {
            const int64_t stop = std::min(args.channels, c + L);
            const auto loop = stop - c >= WIDE_FROM<T> ? interpolate_wide<T, WIDTH, K> : interpolate_narrow<T, WIDTH, K>;
            loop(shape, sites, args, brick, c, stop, tile.data, *batch);
        }
    }
}

template <typename T>
void interpolate_bricks(const GridShape& shape, const GridSites& sites, const GridInterpolate<T>& args, int64_t begin, int64_t end) {
    if (args.x)
        for (int64_t i = sites.brick_ptr[begin]; i < sites.brick_ptr[end]; ++i)
            for (int k = 0; k < 3; ++k) args.pull[3 * sites.atom[i] + k] = 0.0;
    const int k = (args.x ? 1 : 0) + (args.direction ? 1 : 0);
    const bool narrow = shape.order <= 8;
    const auto loop = k == 0 ? (narrow ? interpolate_group<T, 8, 0> : interpolate_group<T, 16, 0>)
                    : k == 1 ? (narrow ? interpolate_group<T, 8, 1> : interpolate_group<T, 16, 1>)
                             : (narrow ? interpolate_group<T, 8, 2> : interpolate_group<T, 16, 2>);
    loop(shape, sites, args, begin, end);
}

}  // namespace

#define RK_GRID_DEFINE(T)                                                                                                       \
    void spread(const GridShape& shape, const GridSites& sites, const GridSpread<T>& args, int64_t begin, int64_t end, int64_t c, \
                int64_t stop) {                                                                                                 \
        spread_planes<T>(shape, sites, args, begin, end, c, stop);                                                              \
    }                                                                                                                           \
    void interpolate(const GridShape& shape, const GridSites& sites, const GridInterpolate<T>& args, int64_t begin, int64_t end) {  \
        interpolate_bricks<T>(shape, sites, args, begin, end);                                                                  \
    }
RK_GRID_DEFINE(float)
RK_GRID_DEFINE(double)

}  // namespace RK_ISA
}  // namespace rk
