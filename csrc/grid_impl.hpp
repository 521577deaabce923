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

// Adds one plane of a tile, points [z0, z0 + 8) of every row, to the mesh of channels [c0, c1).
template <typename T>
inline void add_plane(const GridShape& shape, const T* plane, int64_t depth, const int64_t* rows, int64_t n_rows, int64_t z0, T* mesh,
                      int64_t stride, int64_t n_channels) {
    using Eight = typename Vectors<T>::Eight;
    constexpr int64_t L = sizeof(typename Vectors<T>::Line) / sizeof(T);
    const int64_t size = shape.size[2];
    z0 %= size;
    for (int64_t ly = 0; ly < n_rows; ++ly)
        for (int64_t c = 0; c < n_channels; c += 8) {
            Eight v[8];
            for (int k = 0; k < 8; ++k) v[k] = load_as<Eight>(plane + (ly * depth + k) * L + c);
            transpose_8x8(v);
            T* const row = mesh + c * stride + rows[ly];
            const int64_t stop = std::min<int64_t>(8, n_channels - c);
            for (int64_t k = 0; k < stop; ++k) add_eight(row + k * stride, z0, size, v[k]);
        }
}

// The tile rolls along z: when a brick is done its first eight points of every row are complete, go to the mesh, and the rest
// becomes the beginning of the next brick. Atoms are added plane by plane, for planes fit the first cache.
template <typename T, int WIDTH, bool TANGENT>
void spread_wide(const GridShape& shape, const GridSites& sites, const GridSpread<T>& args, int64_t begin, int64_t end, int64_t c0,
                 int64_t c1) {
    using Line = typename Vectors<T>::Line;
    using Pack = Batch<T, WIDTH, TANGENT>;
    constexpr int64_t L = sizeof(Line) / sizeof(T);
    const int64_t p = shape.order, per_plane = shape.size[1] * shape.size[2], extent = GRID_BRICK + p - 1;
    const int64_t depth = (extent + 7) / 8 * 8, blocks = depth / 8, plane_size = extent * depth * L;
    const Tile<T> tile(extent * plane_size), lines(Pack::SIZE * L);
    const std::unique_ptr<Pack> batch(new Pack);
    T direction[Pack::SIZE][3];
    for (int64_t column = 0; column < shape.bricks[0] * shape.bricks[1]; ++column) {
        int64_t live = 0;  // blocks of eight points along z that hold sums
        for (int64_t bz = 0; bz < shape.bricks[2] || live > 0; ++bz) {
            const Brick brick(shape, sites, column, bz);
            bool own[GRID_HALO], any = false;
            for (int64_t l = 0; l < extent; ++l) {
                own[l] = brick.plane[l] >= begin * per_plane && brick.plane[l] < end * per_plane;
                any |= own[l];
            }
            if (!any) break;  // nor any other brick of this column
            if (brick.begin == brick.end && live == 0) continue;
            if (brick.begin < brick.end) {
                for (int64_t lx = 0; lx < extent; ++lx)
                    for (int64_t ly = 0; ly < extent && own[lx]; ++ly)
                        std::memset(tile.data + lx * plane_size + (ly * depth + 8 * live) * L, 0, 8 * (blocks - live) * L * sizeof(T));
                live = blocks;
            }
            --live;
            int64_t from = brick.begin;
            bool done;
            do {  // once at least: an empty brick still has the halo of the one before
                const int64_t n = std::min(brick.end - from, Pack::SIZE);
                done = from + n == brick.end;
                batch->fill(shape, sites, from, from + n);
                for (int64_t i = 0; i < n; ++i) {
                    const T* const x = args.x + sites.atom[from + i] * args.channels;
                    T* const line = lines.data + i * L;
                    if (c1 - c0 == L) store_as(line, load_as<Line>(x + c0));
                    else for (int64_t c = 0; c < L; ++c) line[c] = c0 + c < c1 ? x[c0 + c] : T(0);
                    if (TANGENT) read_direction(args.direction, sites.atom[from + i], direction[i]);
                }
                int64_t first = 0, last = 0;  // atoms that touch the plane: sorted by their first one
                for (int64_t lx = 0; lx < extent; ++lx) {
                    const int32_t* const x = sites.first + 3 * from;
                    while (last < n && x[3 * last] - brick.x0 <= lx) ++last;
                    while (first < last && x[3 * first] - brick.x0 + p <= lx) ++first;
                    if (!own[lx]) continue;
                    T* const plane = tile.data + lx * plane_size;
                    T* const mesh = args.rho + c0 * args.stride + brick.plane[lx];
                    if (done)  // the mesh is on its way while the atoms are added
                        for (int64_t ly = 0; ly < extent; ++ly)
                            for (int64_t c = 0; c < c1 - c0; ++c)
                                __builtin_prefetch(mesh + c * args.stride + brick.row[ly] + brick.z0 % shape.size[2], 1, 2);
                    for (int64_t i = first; i < last; ++i) {
                        const auto& weights = batch->weights[i];
                        const int32_t* const site = sites.first + 3 * (from + i);
                        T* point = plane + ((site[1] - brick.y0) * depth + site[2] - brick.z0) * L;
                        const Line x_line = load_as<Line>(lines.data + i * L);
                        const T *const wz = weights.w[2][0], *const dz = weights.w[2][TANGENT];
                        for (int64_t py = 0; py < p; ++py, point += depth * L) {
                            const RowWeight<T> row = row_weight<TANGENT>(weights, lx - (site[0] - brick.x0), py, direction[i]);
                            const Line even = x_line * row.even, odd = x_line * row.odd;
                            for (int64_t pz = 0; pz < p; ++pz) {
                                Line v = load_as<Line>(point + pz * L) + even * wz[pz];
                                if (TANGENT) v += odd * dz[pz];
                                store_as(point + pz * L, v);
                            }
                        }
                    }
                    if (!done) continue;
                    add_plane(shape, plane, depth, brick.row, extent, brick.z0, mesh, args.stride, c1 - c0);
                    for (int64_t ly = 0; ly < extent && live > 0; ++ly)
                        for (int64_t z = 8; z < depth; z += 8)
                            std::memcpy(plane + (ly * depth + z - 8) * L, plane + (ly * depth + z) * L, 8 * L * sizeof(T));
                }
                from += n;
            } while (!done);
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
    int64_t tile_plane[GRID_HALO], tile_row[GRID_HALO];
    for (int64_t l = 0; l < extent; ++l) {
        tile_plane[l] = l * extent * TZ;
        tile_row[l] = l * TZ;
    }
    const std::unique_ptr<Batch<T, WIDTH, TANGENT>> batch(new Batch<T, WIDTH, TANGENT>);
    const int64_t n_bricks = shape.bricks[0] * shape.bricks[1] * shape.bricks[2];
    for (int64_t index = 0; index < n_bricks; ++index) {
        const Brick brick(shape, sites, index / shape.bricks[2], index % shape.bricks[2]);
        if (brick.begin == brick.end) continue;
        bool own[GRID_HALO], any = false;
        for (int64_t l = 0; l < extent; ++l) {
            own[l] = brick.plane[l] >= begin * per_plane && brick.plane[l] < end * per_plane;
            any |= own[l];
        }
        if (!any) continue;
        const bool tiled = brick.z0 + TZ > shape.size[2] || (brick.end - brick.begin) * p * p > 4 * extent * extent;
        for (int64_t c = c0; c < c1; ++c) {
            T* const mesh = args.rho + c * args.stride;
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

// One plane's share, weighted along x by wx and its derivatives.
template <typename T, int WIDTH, int K, typename Line>
inline void moments_wide(const Weights<T, WIDTH, K>& weights, const T* corner, int64_t p, int64_t px, int64_t row, Line m[]) {
    constexpr int64_t L = sizeof(Line) / sizeof(T);
    const Line zero = {};
    const auto& w = weights.w;
    constexpr int D = K > 0, DD = K > 1 ? 2 : 0;
    Line a0 = zero, a1 = zero, a2 = zero, b0 = zero, b1 = zero, c0 = zero;
    for (int64_t py = 0; py < p; ++py) {
        const T* const point = corner + py * row;
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
    if constexpr (K == 0) {
        return m[VALUE];
    } else {
        if (!a) {
            for (int k = 0; k < 3; ++k) gradient[k] = m[X + k];
            return m[VALUE];
        }
        if constexpr (K > 1) {
            gradient[0] = m[XX] * a[0] + m[XY] * a[1] + m[XZ] * a[2];
            gradient[1] = m[XY] * a[0] + m[YY] * a[1] + m[YZ] * a[2];
            gradient[2] = m[XZ] * a[0] + m[YZ] * a[1] + m[ZZ] * a[2];
        }
        return m[X] * a[0] + m[Y] * a[1] + m[Z] * a[2];
    }
}

// Reads points [z0, z0 + 8) of every row of one plane of a tile from the mesh of channels [c0, c1).
template <typename T>
inline void read_plane(const GridShape& shape, T* plane, int64_t depth, const int64_t* rows, int64_t n_rows, int64_t z0, const T* mesh,
                       int64_t stride, int64_t n_channels) {
    using Eight = typename Vectors<T>::Eight;
    constexpr int64_t L = sizeof(typename Vectors<T>::Line) / sizeof(T);
    const int64_t size = shape.size[2];
    z0 %= size;
    for (int64_t ly = 0; ly < n_rows; ++ly)
        for (int64_t c = 0; c < L; c += 8) {
            Eight v[8] = {};
            const T* const row = mesh + c * stride + rows[ly];
            const int64_t stop = std::min<int64_t>(8, n_channels - c);
            for (int64_t k = 0; k < stop; ++k) v[k] = read_eight(row + k * stride, z0, size);
            transpose_8x8(v);
            for (int k = 0; k < 8; ++k) store_as(plane + (ly * depth + k) * L + c, v[k]);
        }
}

// The tile rolls along z as in spreading: where the brick before was read, all but its first eight points are kept.
template <typename T, int WIDTH, int K>
void interpolate_wide(const GridShape& shape, const GridSites& sites, const GridInterpolate<T>& args, const Brick& brick, int64_t c0,
                      int64_t c1, T* tile, bool rolls, Batch<T, WIDTH, K>& batch) {
    using Line = typename Vectors<T>::Line;
    constexpr int64_t L = sizeof(Line) / sizeof(T), BATCH = Batch<T, WIDTH, K>::SIZE;
    const int64_t p = shape.order, extent = GRID_BRICK + p - 1, depth = (extent + 7) / 8 * 8, plane_size = extent * depth * L;
    for (int64_t lx = 0; lx < extent; ++lx) {
        T* const plane = tile + lx * plane_size;
        if (rolls && lx + 1 < extent)
            for (int64_t ly = 0; ly < extent; ++ly)
                for (int64_t c = c0; c < c1; ++c)
                    __builtin_prefetch(args.phi + c * args.stride + brick.plane[lx + 1] + brick.row[ly] + (brick.z0 + depth - 8) % shape.size[2], 0, 2);
        if (rolls)
            for (int64_t ly = 0; ly < extent; ++ly)
                for (int64_t z = 8; z < depth; z += 8)
                    std::memcpy(plane + (ly * depth + z - 8) * L, plane + (ly * depth + z) * L, 8 * L * sizeof(T));
        for (int64_t z = rolls ? depth - 8 : 0; z < depth; z += 8)
            read_plane(shape, plane + z * L, depth, brick.row, extent, brick.z0 + z, args.phi + c0 * args.stride + brick.plane[lx], args.stride, c1 - c0);
    }
    alignas(64) Line m[BATCH][moments(K)];
    for (int64_t from = brick.begin; from < brick.end; from += BATCH) {
        const int64_t n = std::min(brick.end - from, BATCH);
        batch.fill(shape, sites, from, from + n);
        std::memset(m, 0, n * sizeof m[0]);
        int64_t first = 0, last = 0;  // atoms that touch the plane: sorted by their first one
        for (int64_t lx = 0; lx < extent; ++lx) {
            const int32_t* const x = sites.first + 3 * from;
            while (last < n && x[3 * last] - brick.x0 <= lx) ++last;
            while (first < last && x[3 * first] - brick.x0 + p <= lx) ++first;
            for (int64_t i = first; i < last; ++i) {
                const int32_t* const site = sites.first + 3 * (from + i);
                const T* const corner = tile + lx * plane_size + ((site[1] - brick.y0) * depth + site[2] - brick.z0) * L;
                moments_wide<T, WIDTH, K>(batch.weights[i], corner, p, lx - (site[0] - brick.x0), depth * L, m[i]);
            }
        }
        for (int64_t i = 0; i < n; ++i) {
            const int64_t atom = sites.atom[from + i];
            T a[3];
            if (args.direction) read_direction(args.direction, atom, a);
            Line gradient[3] = {};
            const Line y = outputs<K>(m[i], args.direction ? a : nullptr, gradient);
            T* const to = args.y + atom * args.channels + c0;
            if (c1 - c0 == L) store_as(to, y);
            else std::memcpy(to, &y, (c1 - c0) * sizeof(T));
            if (!args.x) continue;
            const T* const x = args.x + atom * args.channels + c0;
            for (int k = 0; k < 3; ++k) args.pull[3 * atom + k] += dot_of(x, gradient[k], c1 - c0);
        }
    }
}

template <typename T, int WIDTH, int K>
void interpolate_narrow(const GridShape& shape, const GridSites& sites, const GridInterpolate<T>& args, const Brick& brick, int64_t c0,
                        int64_t c1, T* tile, bool, Batch<T, WIDTH, K>& batch) {
    using Eight = typename Vectors<T>::Eight;
    constexpr int64_t TZ = GRID_BRICK + WIDTH;
    const int64_t p = shape.order, extent = GRID_BRICK + p - 1;
    int64_t tile_plane[GRID_HALO], tile_row[GRID_HALO];
    for (int64_t l = 0; l < extent; ++l) {
        tile_plane[l] = l * extent * TZ;
        tile_row[l] = l * TZ;
    }
    const bool tiled = brick.z0 + TZ > shape.size[2];
    for (int64_t c = c0; c < c1; ++c) {
        const T* const mesh = args.phi + c * args.stride;
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
                T a[3], m[moments(K)], gradient[3] = {};
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
    for (int64_t c = c0; c < c1; ++c) std::memset(args.rho + c * args.stride + begin * per_plane, 0, (end - begin) * per_plane * sizeof(T));
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
    for (int64_t c = 0; c < args.channels; c += L) {
        const int64_t stop = std::min(args.channels, c + L);
        const auto loop = stop - c >= WIDE_FROM<T> ? interpolate_wide<T, WIDTH, K> : interpolate_narrow<T, WIDTH, K>;
        int64_t before = -1;
        for (int64_t index = begin; index < end; ++index) {
            const int64_t column = index / shape.bricks[2], bz = index % shape.bricks[2];
            const Brick brick(shape, sites, column, bz);
            if (brick.begin == brick.end) continue;
            loop(shape, sites, args, brick, c, stop, tile.data, bz > 0 && before == index - 1, *batch);
            before = index;
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
