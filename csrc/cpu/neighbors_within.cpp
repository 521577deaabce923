// A shorter cutoff taken out of compact rows of neighbours.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <vector>

#include "cells.hpp"
#include "common.hpp"
#include "neighbors_collect.hpp"
#include "neighbors_scratch.hpp"

namespace rk {
namespace {

constexpr int64_t NO_MEMORY = -3;

struct Shortened {
    std::vector<Chunk> chunks;
};

}  // namespace
}  // namespace rk

// Pairs of compact rows closer than `cutoff` at `positions` and `cells`, each row in its order. system_of_entry finds the
// cell by batch_ptr. `row_ptr` (n_atoms + 1) is written, `n_pairs` and `handle` are set; rk_neighbors_within_export copies
// the entries out and frees them. Returns 0 or -3 (not enough memory).
RK_EXPORT int64_t rk_neighbors_within(const double* positions, const double* cells, const int64_t* batch_ptr, int64_t n_systems,
                                      const int64_t* ptr, const int32_t* columns, const int32_t* owners, const int32_t* shifts,
                                      int64_t n_entries, double cutoff, int64_t threads, int64_t* row_ptr, int64_t* n_pairs,
                                      void** handle) {
    const int64_t n_atoms = batch_ptr[n_systems];
    const bool several = threads > 1 && ptr[n_atoms] > 65536;
    const int64_t n_chunks = several ? std::min<int64_t>(8 * threads, n_atoms) : 1;
    rk::Scratch<rk::Place> places;
    auto result = std::make_unique<rk::Shortened>();
    try {
        places = rk::Scratch<rk::Place>(n_entries);
        result->chunks.resize(n_chunks);
    } catch (const std::exception&) {
        return rk::NO_MEMORY;
    }
    const rk::NeighborLoops& loops = rk::neighbor_loops();
#pragma omp parallel num_threads(threads) if (several)
    {
#pragma omp for schedule(static)
        for (int64_t e = 0; e < n_entries; ++e) {
            const int64_t owner = owners[e];
            const int64_t system = n_systems == 1 ? 0 : std::upper_bound(batch_ptr + 1, batch_ptr + n_systems, owner) - batch_ptr - 1;
            const double shift[3] = {double(shifts[3 * e]), double(shifts[3 * e + 1]), double(shifts[3 * e + 2])};
            double offset[3];
            rk::row_times_matrix(shift, cells + 9 * system, offset);
            for (int a = 0; a < 3; ++a) places[e].r[a] = positions[3 * owner + a] + offset[a];
            places[e].r[3] = 0.0;
        }
#pragma omp for schedule(dynamic)
        for (int64_t c = 0; c < n_chunks; ++c) {
            rk::Chunk& chunk = result->chunks[c];
            chunk.first = rk::part_begin(n_atoms, c, n_chunks), chunk.last = rk::part_begin(n_atoms, c + 1, n_chunks);
            for (int64_t k = chunk.first; k < chunk.last && chunk.enough_memory; ++k) {
                const int64_t n = ptr[k + 1] - ptr[k];
                chunk.enough_memory = chunk.entries.reserve(chunk.used + n + 8);
                if (!chunk.enough_memory) break;
                chunk.used += loops.shorten(places.data(), columns + ptr[k], n, places[k].r, cutoff * cutoff,
                                            chunk.entries.data() + chunk.used);
                row_ptr[k + 1] = chunk.used;
            }
        }
    }
    *n_pairs = row_ptr[0] = 0;
    for (rk::Chunk& chunk : result->chunks) {
        if (!chunk.enough_memory) return rk::NO_MEMORY;
        chunk.base = *n_pairs;
        *n_pairs += chunk.used;
        for (int64_t k = chunk.first; k < chunk.last; ++k) row_ptr[k + 1] += chunk.base;
    }
    *handle = result.release();
    return 0;
}

// Copies what rk_neighbors_within found to `columns` (n_pairs).
RK_EXPORT int64_t rk_neighbors_within_export(void* handle, int64_t threads, int32_t* columns) {
    std::unique_ptr<rk::Shortened> result(static_cast<rk::Shortened*>(handle));
    const int64_t n_chunks = static_cast<int64_t>(result->chunks.size());
    if (n_chunks > 0) {
        const rk::Chunk& last = result->chunks.back();
        rk::advise_huge_pages(columns, 4 * (last.base + last.used));
    }
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (n_chunks > 1)
    for (int64_t c = 0; c < n_chunks; ++c) {
        const rk::Chunk& chunk = result->chunks[c];
        if (chunk.used > 0) std::memcpy(columns + chunk.base, chunk.entries.data(), chunk.used * sizeof(int32_t));
    }
    return 0;
}
