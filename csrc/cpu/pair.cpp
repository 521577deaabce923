// Tabulated pair potentials: places atoms and images, runs the row loop on all threads, adds chunks in a fixed order.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "cells.hpp"
#include "common.hpp"
#include "isa.hpp"
#include "pair.hpp"

namespace rk {
namespace {

constexpr int64_t OK = 0, NON_FINITE = -1, TOO_CLOSE = -2, UNKNOWN_SPECIES = -3;
constexpr double ABSURD = 1e50;  // Å; squares of such lengths do not overflow
constexpr int64_t ROWS_PER_CHUNK = 32;  // fixed, so that sums do not depend on the number of threads

PairRowLoop pair_rows() {
    switch (active_isa()) {
#if defined(__x86_64__)
        case Isa::avx512: return avx512::pair_rows;
        case Isa::avx2: return avx2::pair_rows;
#endif
        default: return baseline::pair_rows;
    }
}

struct Chunk {
    int64_t begin, end, system;
};

}  // namespace
}  // namespace rk

// Energy, forces and virial of all systems in one pass.
//   forces (n_atoms, 3); per_atom_energy (n_atoms) or null; energies (n_systems) or null; virials (n_systems, 6) in the
//   order xx yy zz yz xz xy, or null; weights (n_atoms) or null: then everything is of Σ_i w_i E_i.
//   extended is scratch of 4 (n_extended + 1) doubles. closest receives the shortest distance met (at most the cutoff).
// Returns 0, -1 (a position or the cell is not finite, or absurdly large), -2 (a pair is closer than r_min) or -3 (a species is not in the
// table); outputs are then not meaningful.
RK_EXPORT int64_t rk_pair_evaluate(const double* positions, const double* cells, const int64_t* batch_ptr, int64_t n_systems,
                                   const int32_t* species, const double* weights, const double* coefficients,
                                   const double* blocks, const int32_t* pair_index, int64_t n_intervals, int64_t n_species, double r_min,
                                   double cutoff, const int64_t* row_ptr, const int32_t* columns,
                                   const int32_t* owners, const int32_t* shifts, int64_t n_extended, int64_t threads,
                                   double* extended, double* forces, double* per_atom_energy, double* energies, double* virials,
                                   double* closest) {
    using namespace rk;
    const PairTable table{coefficients, blocks, pair_index, n_intervals, n_species, r_min, cutoff};
    const PairRows rows{extended, row_ptr, columns, owners, weights, static_cast<int32_t>(n_extended)};
    const PairOutputs outputs{per_atom_energy, forces};
    const PairRowLoop loop = pair_rows();
    std::vector<Chunk> chunks;
    for (int64_t s = 0; s < n_systems; ++s)
        for (int64_t begin = batch_ptr[s]; begin < batch_ptr[s + 1]; begin += ROWS_PER_CHUNK)
            chunks.push_back({begin, std::min(batch_ptr[s + 1], begin + ROWS_PER_CHUNK), s});
    std::vector<int32_t> system_of;
    if (n_systems > 1) {
        system_of.resize(batch_ptr[n_systems]);
        for (int64_t s = 0; s < n_systems; ++s) std::fill(&system_of[0] + batch_ptr[s], &system_of[0] + batch_ptr[s + 1], static_cast<int32_t>(s));
    }
    std::vector<PairSums> sums(chunks.size());
    const int64_t n_chunks = static_cast<int64_t>(chunks.size());
    const bool want_energy = energies || per_atom_energy, want_virial = virials != nullptr;
    const double far[4] = {2 * ABSURD, 2 * ABSURD, 2 * ABSURD, 0.0};
    std::memcpy(extended + 4 * n_extended, far, sizeof far);
    bool finite = true, known = true;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static) reduction(&& : finite, known)
        for (int64_t e = 0; e < n_extended; ++e) {
            const int64_t atom = owners[e];
            const double* cell = cells + (n_systems > 1 ? 9 * system_of[atom] : 0);
            const double shift[3] = {double(shifts[3 * e]), double(shifts[3 * e + 1]), double(shifts[3 * e + 2])};
            double offset[3];
            row_times_matrix(shift, cell, offset);
            double* out = extended + 4 * e;
            for (int a = 0; a < 3; ++a) out[a] = positions[3 * atom + a] + offset[a];
            const int64_t number = species[atom];
            std::memcpy(out + 3, &number, sizeof number);
            known = known && number >= 0 && number < n_species;
            for (int a = 0; a < 3; ++a) finite = finite && std::fabs(out[a]) < ABSURD;  // false for NaN
        }
#pragma omp for schedule(dynamic)
        for (int64_t c = 0; c < n_chunks; ++c) {
            sums[c] = PairSums{{0, 0, 0, 0, 0, 0}, 0.0, cutoff * cutoff};
            if (finite && known) loop(table, rows, outputs, chunks[c].begin, chunks[c].end, want_energy, want_virial, sums[c]);
        }
    }
    if (!finite) return NON_FINITE;
    if (!known) return UNKNOWN_SPECIES;
    if (energies) std::fill(energies, energies + n_systems, 0.0);
    if (virials) std::fill(virials, virials + 6 * n_systems, 0.0);
    double closest_squared = cutoff * cutoff;
    for (int64_t c = 0; c < n_chunks; ++c) {
        closest_squared = std::min(closest_squared, sums[c].closest_squared);
        if (energies) energies[chunks[c].system] += sums[c].energy;
        for (int v = 0; virials && v < 6; ++v) virials[6 * chunks[c].system + v] += sums[c].virial[v];
    }
    *closest = std::sqrt(closest_squared);
    return *closest < r_min ? TOO_CLOSE : OK;
}
