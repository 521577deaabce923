// Vectors, windows and bricks of the particle mesh, shared by spreading and interpolation; RK_ISA names the namespace.
#pragma once
#include <algorithm>
#include <cstring>
#include <memory>

#include "grid.hpp"
#include "simd.hpp"

namespace rk {
namespace RK_ISA {
namespace {

typedef float v8f __attribute__((vector_size(32)));
typedef float v16f __attribute__((vector_size(64)));

template <typename T> struct Vectors;
template <> struct Vectors<float> {
    using Eight = v8f;
    using Line = v16f;  // as many channels as fill a cache line
};
template <> struct Vectors<double> {
    using Eight = v8d;
    using Line = v8d;
};

template <typename V, typename T>
inline V load_as(const T* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <typename V, typename T>
inline void store_as(T* p, V v) { std::memcpy(p, &v, sizeof v); }

inline v8d to_eight(v8d v, double) { return v; }
inline v8f to_eight(v8d v, float) { return __builtin_convertvector(v, v8f); }

// Σ x y in float64; n ≤ the channels of a line.
template <typename T, typename Line>
inline double dot_of(const T* x, const Line& y, int64_t n) {
    constexpr int64_t L = sizeof(Line) / sizeof(T);
    double total[L] = {};
    if (n == L) for (int64_t c = 0; c < L; ++c) total[c] = static_cast<double>(x[c]) * static_cast<double>(y[c]);
    else for (int64_t c = 0; c < n; ++c) total[c] = static_cast<double>(x[c]) * static_cast<double>(y[c]);
    for (int64_t step = L / 2; step > 0; step /= 2)
        for (int64_t c = 0; c < step; ++c) total[c] += total[c + step];
    return total[0];
}

inline double sum_of(v8d v) { return sum(v); }
inline float sum_of(v8f v) { return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7])); }

// Weights of one atom and their derivatives up to K by the fractional coordinates; WIDTH is 8 or 16, zero beyond the order.
template <typename T, int WIDTH, int K>
struct Weights {
    T w[3][K + 1][WIDTH];

    void set(const GridShape& shape, const double* place) {
        for (int a = 0; a < 3; ++a) {
            const v8d s = broadcast(place[a]);
            const double g = static_cast<double>(shape.size[a]);
            for (int l = 0; l < WIDTH; l += 8) {
                v8d value = load(shape.table + shape.degree * GRID_LANES + l), slope = broadcast(0.0), half_curve = broadcast(0.0);
                for (int64_t d = shape.degree - 1; d >= 0; --d) {
                    if (K > 1) half_curve = half_curve * s + slope;
                    if (K > 0) slope = slope * s + value;
                    value = value * s + load(shape.table + d * GRID_LANES + l);
                }
                store_as(&w[a][0][l], to_eight(value, T()));
                if (K > 0) store_as(&w[a][K > 0][l], to_eight(slope * g, T()));
                if (K > 1) store_as(&w[a][K > 1 ? 2 : 0][l], to_eight(half_curve * (2 * g * g), T()));
            }
        }
    }
};

// Weights of the atoms of one brick, computed in batches; a batch asked for twice in a row is computed once.
template <typename T, int WIDTH, int K>
struct Batch {
    static constexpr int64_t SIZE = 128;
    Weights<T, WIDTH, K> weights[SIZE];
    int64_t begin = -1, end = -1;

    void fill(const GridShape& shape, const GridSites& sites, int64_t from, int64_t to) {
        if (from == begin && to == end) return;
        begin = from;
        end = to;
        for (int64_t i = from; i < to; ++i) weights[i - from].set(shape, sites.place + 3 * i);
    }
};

// A brick with its halo: where its planes, rows and points lie in the periodic mesh.
struct Brick {
    int64_t x0, y0, z0, begin, end;  // first point; its atoms
    int64_t plane[GRID_HALO], row[GRID_HALO];  // offsets in the mesh

    // Number bz of a column; beyond the column's end there is only the halo of its last brick.
    Brick(const GridShape& shape, const GridSites& sites, int64_t column, int64_t bz) : begin(0), end(0) {
        if (bz < shape.bricks[2]) {
            begin = sites.brick_ptr[column * shape.bricks[2] + bz];
            end = sites.brick_ptr[column * shape.bricks[2] + bz + 1];
        }
        z0 = bz * GRID_BRICK;
        y0 = column % shape.bricks[1] * GRID_BRICK;
        x0 = column / shape.bricks[1] * GRID_BRICK;
        for (int64_t l = 0; l < GRID_BRICK + shape.order - 1; ++l) {
            plane[l] = (x0 + l) % shape.size[0] * shape.size[1] * shape.size[2];
            row[l] = (y0 + l) % shape.size[1] * shape.size[2];
        }
    }
};

// Eight vectors of eight to their transpose.
template <typename V>
inline void transpose_8x8(V v[8]) {
    V a[8], b[8];
    for (int i = 0; i < 4; ++i) {
        a[2 * i] = __builtin_shuffle(v[2 * i], v[2 * i + 1], (decltype(v[0] < v[0])){0, 8, 2, 10, 4, 12, 6, 14});
        a[2 * i + 1] = __builtin_shuffle(v[2 * i], v[2 * i + 1], (decltype(v[0] < v[0])){1, 9, 3, 11, 5, 13, 7, 15});
    }
    for (int i = 0; i < 8; i += 4)
        for (int k = 0; k < 2; ++k) {
            b[i + k] = __builtin_shuffle(a[i + k], a[i + k + 2], (decltype(v[0] < v[0])){0, 1, 8, 9, 4, 5, 12, 13});
            b[i + k + 2] = __builtin_shuffle(a[i + k], a[i + k + 2], (decltype(v[0] < v[0])){2, 3, 10, 11, 6, 7, 14, 15});
        }
    for (int k = 0; k < 4; ++k) {
        v[k] = __builtin_shuffle(b[k], b[k + 4], (decltype(v[0] < v[0])){0, 1, 2, 3, 8, 9, 10, 11});
        v[k + 4] = __builtin_shuffle(b[k], b[k + 4], (decltype(v[0] < v[0])){4, 5, 6, 7, 12, 13, 14, 15});
    }
}

// Scratch of one task, aligned to cache lines.
template <typename T>
struct Tile {
    std::unique_ptr<char[]> storage;
    T* data;
    explicit Tile(int64_t numbers) : storage(new char[numbers * sizeof(T) + 64]) {
        data = reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(storage.get()) + 63) & ~uintptr_t(63));
    }
};

// Channels from which on a line of them is worth its unused lanes; fewer are taken one by one, eight points at a time.
template <typename T> constexpr int64_t WIDE_FROM = sizeof(T) == 4 ? 6 : 4;

}  // namespace
}  // namespace RK_ISA
}  // namespace rk
