// Vectors of listed pairs, r_j + S·cell − r_i, and the transpose of that linear map, which is its derivative.
//
// Pairs are sorted by (i, j, S). Every sum is taken in the order of the pairs, or of blocks of atoms of a fixed size, so
// results do not depend on threads.
#include <algorithm>
#include <array>
#include <cstdint>
#include <exception>
#include <vector>

#include "common.hpp"

namespace rk {
namespace {

constexpr int64_t NO_MEMORY = -3;
constexpr int64_t SEVERAL = 16384;  // pairs for which threads are worth waking

struct Pairs {
    const int64_t *j, *row_ptr, *batch_ptr;
    const int32_t* shifts;
    int64_t n_atoms, n_systems;
    int threads;
    bool several() const { return threads > 1 && row_ptr[n_atoms] > SEVERAL; }
};

// Consecutive atoms of one system.
struct Block {
    int64_t system, first, last;
};

std::vector<Block> blocks_of(const Pairs& pairs) {
    constexpr int64_t SIZE = 1024;
    std::vector<Block> blocks;
    for (int64_t s = 0; s < pairs.n_systems; ++s)
        for (int64_t first = pairs.batch_ptr[s]; first < pairs.batch_ptr[s + 1]; first += SIZE)
            blocks.push_back({s, first, std::min(first + SIZE, pairs.batch_ptr[s + 1])});
    return blocks;
}

template <typename T>
void vectors(const Pairs& pairs, const std::vector<Block>& blocks, const T* positions, const T* cells, T* out) {
#pragma omp parallel for schedule(dynamic) num_threads(pairs.threads) if (pairs.several())
    for (size_t b = 0; b < blocks.size(); ++b) {
        const T* h = cells + 9 * blocks[b].system;
        for (int64_t i = blocks[b].first; i < blocks[b].last; ++i) {
            const T x = positions[3 * i], y = positions[3 * i + 1], z = positions[3 * i + 2];
            for (int64_t p = pairs.row_ptr[i]; p < pairs.row_ptr[i + 1]; ++p) {
                const T* r = positions + 3 * pairs.j[p];
                const int32_t* s = pairs.shifts + 3 * p;
                const T a = static_cast<T>(s[0]), b = static_cast<T>(s[1]), c = static_cast<T>(s[2]);
                out[3 * p] = (r[0] - x) + (a * h[0] + b * h[3] + c * h[6]);
                out[3 * p + 1] = (r[1] - y) + (a * h[1] + b * h[4] + c * h[7]);
                out[3 * p + 2] = (r[2] - z) + (a * h[2] + b * h[5] + c * h[8]);
            }
        }
    }
}

template <typename T>
void transposed(const Pairs& pairs, const std::vector<Block>& blocks, const T* gradient, T* of_positions, T* of_cells) {
    std::vector<std::array<T, 9>> of_block(blocks.size());
    const int parts = pairs.several() ? pairs.threads : 1;
#pragma omp parallel num_threads(parts) if (parts > 1)
    {
        // What arrives at j: every part of the atoms picks its own out of each row, where they stand together.
#pragma omp for schedule(static)
        for (int part = 0; part < parts; ++part) {
            const int64_t first = pairs.n_atoms * part / parts, last = pairs.n_atoms * (part + 1) / parts;
            std::fill(of_positions + 3 * first, of_positions + 3 * last, T(0));
            for (int64_t i = 0; i < pairs.n_atoms; ++i) {
                const int64_t *begin = pairs.j + pairs.row_ptr[i], *end = pairs.j + pairs.row_ptr[i + 1];
                if (parts > 1) {
                    begin = std::lower_bound(begin, end, first);
                    end = std::lower_bound(begin, end, last);
                }
                for (const int64_t* j = begin; j != end; ++j)
                    for (int a = 0; a < 3; ++a) of_positions[3 * *j + a] += gradient[3 * (j - pairs.j) + a];
            }
        }
        // What leaves from i, and what the cell does.
#pragma omp for schedule(dynamic)
        for (size_t b = 0; b < blocks.size(); ++b) {
            std::array<T, 9> cell{};
            for (int64_t i = blocks[b].first; i < blocks[b].last; ++i) {
                T sum[3] = {0, 0, 0};
                for (int64_t p = pairs.row_ptr[i]; p < pairs.row_ptr[i + 1]; ++p) {
                    const T* g = gradient + 3 * p;
                    const int32_t* s = pairs.shifts + 3 * p;
                    for (int a = 0; a < 3; ++a) sum[a] += g[a];
                    if ((s[0] | s[1] | s[2]) == 0) continue;
                    for (int row = 0; row < 3; ++row)
                        for (int a = 0; a < 3; ++a) cell[3 * row + a] += static_cast<T>(s[row]) * g[a];
                }
                for (int a = 0; a < 3; ++a) of_positions[3 * i + a] -= sum[a];
            }
            of_block[b] = cell;
        }
    }
    std::fill(of_cells, of_cells + 9 * pairs.n_systems, T(0));
    for (size_t b = 0; b < blocks.size(); ++b)
        for (int a = 0; a < 9; ++a) of_cells[9 * blocks[b].system + a] += of_block[b][a];
}

}  // namespace
}  // namespace rk

// Vectors of all pairs, (n_pairs, 3), from positions (n_atoms, 3) and cells (n_systems, 3, 3), floats of 32 or 64 bits. The
// pairs: j (n_pairs), lattice vectors (n_pairs, 3), offsets of the atoms' pairs row_ptr (n_atoms + 1), offsets of the systems'
// atoms batch_ptr (n_systems + 1). Returns 0 or -3 (not enough memory).
RK_EXPORT int64_t rk_neighbors_vectors(const int64_t* j, const int32_t* shifts, const int64_t* row_ptr, const int64_t* batch_ptr,
                                       int64_t n_systems, int64_t threads, int64_t bits, const void* positions, const void* cells,
                                       void* out) {
    const rk::Pairs pairs{j, row_ptr, batch_ptr, shifts, batch_ptr[n_systems], n_systems, static_cast<int>(threads)};
    try {
        const auto blocks = rk::blocks_of(pairs);
        if (bits == 64)
            rk::vectors(pairs, blocks, static_cast<const double*>(positions), static_cast<const double*>(cells), static_cast<double*>(out));
        else
            rk::vectors(pairs, blocks, static_cast<const float*>(positions), static_cast<const float*>(cells), static_cast<float*>(out));
    } catch (const std::exception&) {
        return rk::NO_MEMORY;
    }
    return 0;
}

// The transpose: from a gradient (n_pairs, 3) those of positions (n_atoms, 3) and cells (n_systems, 3, 3). Returns as above.
RK_EXPORT int64_t rk_neighbors_vectors_transposed(const int64_t* j, const int32_t* shifts, const int64_t* row_ptr,
                                                  const int64_t* batch_ptr, int64_t n_systems, int64_t threads, int64_t bits,
                                                  const void* gradient, void* of_positions, void* of_cells) {
    const rk::Pairs pairs{j, row_ptr, batch_ptr, shifts, batch_ptr[n_systems], n_systems, static_cast<int>(threads)};
    try {
        const auto blocks = rk::blocks_of(pairs);
        if (bits == 64)
            rk::transposed(pairs, blocks, static_cast<const double*>(gradient), static_cast<double*>(of_positions), static_cast<double*>(of_cells));
        else
            rk::transposed(pairs, blocks, static_cast<const float*>(gradient), static_cast<float*>(of_positions), static_cast<float*>(of_cells));
    } catch (const std::exception&) {
        return rk::NO_MEMORY;
    }
    return 0;
}
