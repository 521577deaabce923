// D3(BJ) dispersion: places atoms and images, runs the three passes on all threads, adds chunks in a fixed order.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "cells.hpp"
#include "common.hpp"
#include "dispersion.hpp"
#include "isa.hpp"

namespace rk {
namespace {

constexpr int64_t OK = 0, NON_FINITE = -1;
constexpr double ABSURD = 1e50;         // Å; squares of such lengths do not overflow
constexpr int64_t ROWS_PER_CHUNK = 16;  // fixed, so that sums do not depend on the number of threads

struct Passes {
    decltype(&baseline::dispersion_count) count;
    decltype(&baseline::dispersion_pairs) pairs;
    decltype(&baseline::dispersion_chain) chain;
};

Passes passes() {
    switch (active_isa()) {
#if defined(__x86_64__)
        case Isa::avx512: return {avx512::dispersion_count, avx512::dispersion_pairs, avx512::dispersion_chain};
        case Isa::avx2: return {avx2::dispersion_count, avx2::dispersion_pairs, avx2::dispersion_chain};
#endif
        default: return {baseline::dispersion_count, baseline::dispersion_pairs, baseline::dispersion_chain};
    }
}

struct Chunk {
    int64_t begin, end, system;
    double virial[6];
};

}  // namespace
}  // namespace rk

// Energies, forces, virials and coordination numbers of all systems.
//   species (n_atoms), each below n_species; tables as in DispersionTable; extended is scratch of 4 (n_extended + 1)
//   doubles, scratch of (2 REFERENCES + 1) n_atoms. virials (n_systems, 6) in the order xx yy zz yz xz xy.
// Returns 0, or -1 (a position or the cell is not finite, or absurdly large); outputs are then not meaningful.
RK_EXPORT int64_t rk_dispersion_evaluate(const double* positions, const double* cells, const int64_t* batch_ptr, int64_t n_systems,
                                         const int32_t* species, const double* pairs, const double* c6, const double* reference_cn,
                                         int64_t n_species, int64_t stride, int64_t n_references, double s6, double cutoff,
                                         double width, const int64_t* row_ptr, const int32_t* columns, const int32_t* owners,
                                         const int32_t* shifts, int64_t n_extended, int64_t threads, double* extended,
                                         double* scratch, double* energy, double* forces, double* virials, double* coordination) {
    using namespace rk;
    const int64_t n_atoms = batch_ptr[n_systems];
    const DispersionTable table{pairs, c6, reference_cn, n_species, stride, n_references, s6, cutoff, width};
    const DispersionRows rows{extended, row_ptr, columns, owners, static_cast<int32_t>(n_extended)};
    double* const slopes = scratch + REFERENCES * n_atoms;
    const DispersionAtoms atoms{coordination, scratch, slopes, slopes + REFERENCES * n_atoms, energy, forces};
    const Passes pass = passes();
    std::vector<Chunk> chunks;
    for (int64_t s = 0; s < n_systems; ++s)
        for (int64_t begin = batch_ptr[s]; begin < batch_ptr[s + 1]; begin += ROWS_PER_CHUNK)
            chunks.push_back({begin, std::min(batch_ptr[s + 1], begin + ROWS_PER_CHUNK), s, {}});
    std::vector<int32_t> system_of;
    if (n_systems > 1) {
        system_of.resize(n_atoms + 1);
        for (int64_t s = 0; s < n_systems; ++s)
            std::fill(&system_of[0] + batch_ptr[s], &system_of[0] + batch_ptr[s + 1], static_cast<int32_t>(s));
    }
    const int64_t n_chunks = static_cast<int64_t>(chunks.size());
    // The filler belongs to atom 0, of whatever species: it is outside every cutoff and its tables can be read.
    const double far[4] = {2 * ABSURD, 2 * ABSURD, 2 * ABSURD, 0.0};
    std::memcpy(extended + 4 * n_extended, far, sizeof far);
    bool finite = true;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static) reduction(&& : finite)
        for (int64_t e = 0; e < n_extended; ++e) {
            const int64_t atom = owners[e];
            const double* cell = cells + (n_systems > 1 ? 9 * system_of[atom] : 0);
            const double shift[3] = {double(shifts[3 * e]), double(shifts[3 * e + 1]), double(shifts[3 * e + 2])};
            double offset[3];
            row_times_matrix(shift, cell, offset);
            double* out = extended + 4 * e;
            for (int a = 0; a < 3; ++a) out[a] = positions[3 * atom + a] + offset[a];
            const int64_t bits = atom << 32 | species[atom];
            std::memcpy(out + 3, &bits, sizeof bits);
            for (int a = 0; a < 3; ++a) finite = finite && std::fabs(out[a]) < ABSURD;  // false for NaN
        }
        if (finite) {
#pragma omp for schedule(dynamic)
            for (int64_t c = 0; c < n_chunks; ++c) pass.count(table, rows, atoms, chunks[c].begin, chunks[c].end);
#pragma omp for schedule(dynamic)
            for (int64_t c = 0; c < n_chunks; ++c) pass.pairs(table, rows, atoms, chunks[c].begin, chunks[c].end, chunks[c].virial);
#pragma omp for schedule(dynamic)
            for (int64_t c = 0; c < n_chunks; ++c) pass.chain(table, rows, atoms, chunks[c].begin, chunks[c].end, chunks[c].virial);
        }
    }
    if (!finite) return NON_FINITE;
    std::fill(virials, virials + 6 * n_systems, 0.0);
    for (const Chunk& chunk : chunks)
        for (int v = 0; v < 6; ++v) virials[6 * chunk.system + v] += chunk.virial[v];
    return OK;
}
