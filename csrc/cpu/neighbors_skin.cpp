// Whether motion has used up the skin of a neighbour list.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "cells.hpp"
#include "common.hpp"

// Is a list built for `reference` (cells with inverse `reference_inverse`) still complete for `positions`?
// With F = H0⁻¹ H and d the largest displacement beyond the cell's own change, |r_i − r_i0 F|, a pair now closer than
// `cutoff` was closer than (cutoff + 2d) ‖F⁻¹‖ at the time of building; the list holds pairs up to cutoff + skin.
// ‖F⁻¹‖ ≤ 1 + ‖F⁻¹ − 1‖_Frobenius. Displacements are not reduced by lattice vectors: an atom moved by one has lost its
// recorded image and makes the list stale. Writes the largest (cutoff + 2d)‖F⁻¹‖ − cutoff; returns 1 stale, 0 good, -1 not finite.
RK_EXPORT int64_t rk_neighbors_stale(const double* positions, const double* reference, const int64_t* batch_ptr, int64_t n_systems,
                                     const double* cells, const double* reference_cells, double cutoff, double skin,
                                     int64_t threads, double* used) {
    double worst = 0.0;
    for (int64_t s = 0; s < n_systems; ++s) {
        const double *cell = cells + 9 * s, *cell0 = reference_cells + 9 * s;
        double f[9], norm = 1.0;
        bool same = true;
        for (int a = 0; a < 9; ++a) same = same && cell[a] == cell0[a];
        if (!same) {
            double inverse0[9], inverse_cell[9], back[9], squares = 0.0;
            rk::inverse(cell0, inverse0);
            rk::inverse(cell, inverse_cell);
            for (int a = 0; a < 3; ++a) {
                rk::row_times_matrix(inverse0 + 3 * a, cell, f + 3 * a);
                rk::row_times_matrix(inverse_cell + 3 * a, cell0, back + 3 * a);
            }
            for (int a = 0; a < 9; ++a) squares += (back[a] - (a % 4 == 0)) * (back[a] - (a % 4 == 0));
            norm += std::sqrt(squares);
        }
        const int64_t begin = batch_ptr[s], end = batch_ptr[s + 1];
        double largest = 0.0;
        bool finite = true;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(max : largest) reduction(&& : finite) if (end - begin > 8192)
        for (int64_t i = begin; i < end; ++i) {
            const double *r = positions + 3 * i, *r0 = reference + 3 * i;
            double moved[3] = {r0[0], r0[1], r0[2]};
            if (!same) rk::row_times_matrix(r0, f, moved);
            const double dx = r[0] - moved[0], dy = r[1] - moved[1], dz = r[2] - moved[2];
            const double d2 = dx * dx + dy * dy + dz * dz;
            finite = finite && std::isfinite(d2);
            largest = std::max(largest, d2);
        }
        if (!finite || !std::isfinite(norm)) return -1;
        worst = std::max(worst, (cutoff + 2.0 * std::sqrt(largest)) * norm - cutoff);
    }
    *used = worst;
    return worst > skin ? 1 : 0;
}
