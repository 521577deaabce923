// Cell list for any cell, any periodic directions and any cutoff: builds rows of neighbours among atoms and images.
//
// Every atom is wrapped into the cell once; periodic images within one cutoff of the atoms' bounding box (in
// fractional coordinates) are made explicit, so the search itself knows no periodicity. Atoms and images are
// sorted by bin; a row of bins along the last axis is one contiguous range, tested eight candidates at a time.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <vector>

#include "cells.hpp"
#include "common.hpp"
#include "isa.hpp"
#include "neighbors_collect.hpp"

namespace rk {
namespace {

constexpr int64_t OK = 0, NON_FINITE = -1, TOO_MANY = -2, NO_MEMORY = -3;
constexpr double HAIR = 1e-9;  // relative and in cells; more than the rounding of fractional coordinates
constexpr int64_t MAX_INDEX = std::numeric_limits<int32_t>::max() - 64;
constexpr int PAD = 8;
// Neighbours within this part of the reach stand first in their row. With a skin of a tenth of the cutoff the rest of
// a row is then nearly always beyond the cutoff, and a kernel passes over it eight at a time.
constexpr double NEAR = 0.93;
constexpr int64_t KEEP_UP_TO = 1 << 25;  // pairs whose scratch memory is kept between calls: 128 MB, 90,000 atoms at 11 Å

CollectWithin collect_within() {
    switch (active_isa()) {
#if defined(__x86_64__)
        case Isa::avx512: return avx512::collect_within;
        case Isa::avx2: return avx2::collect_within;
#endif
        default: return baseline::collect_within;
    }
}

// Atoms and images of one system: entries [0, n_atoms) are the wrapped atoms in bin order, then the images.
struct System {
    int64_t n_atoms = 0;
    std::vector<int32_t> owner;
    std::vector<int32_t> shift;
    std::vector<int64_t> row_ptr;
    std::unique_ptr<int32_t[]> columns;  // not a vector: it would be filled with zeros first
    int64_t n_pairs() const { return row_ptr[n_atoms]; }
    int64_t size() const { return static_cast<int64_t>(owner.size()); }
};

struct Grid {
    double low[3], bins_per_unit[3];
    int64_t count[3], reach[3];
    int64_t total() const { return count[0] * count[1] * count[2]; }
    void bin(const double* f, int64_t* out) const {
        for (int a = 0; a < 3; ++a) {
            const double b = std::floor((f[a] - low[a]) * bins_per_unit[a]);
            out[a] = std::min<int64_t>(count[a] - 1, std::max<int64_t>(0, static_cast<int64_t>(b)));
        }
    }
    int64_t flat(const int64_t* b) const { return (b[0] * count[1] + b[1]) * count[2] + b[2]; }
};

struct Unsorted {
    std::vector<int32_t> owner, shift;
    std::vector<double> fractional;
    int64_t size() const { return static_cast<int64_t>(owner.size()); }
    void push(int64_t atom, const int32_t s[3], const double f[3]) {
        owner.push_back(static_cast<int32_t>(atom));
        for (int a = 0; a < 3; ++a) shift.push_back(s[a]), fractional.push_back(f[a]);
    }
};

// Bins about half a cutoff wide, but never many more bins than entries. The widths are a hair more, and the reach is a hair
// longer, than they need be: rounding in f never loses a pair.
Grid make_grid(const double low[3], const double high[3], const double height[3], double cutoff, int64_t n_entries) {
    Grid grid;
    double edge = 0.5 * cutoff * (1.0 + 2.0 * HAIR);
    for (int attempt = 0;; ++attempt) {
        for (int a = 0; a < 3; ++a) {
            const double range = std::max(high[a] - low[a], 1e-12);
            const double bins = std::min(1e6, std::max(1.0, std::floor(range * height[a] / edge)));
            grid.count[a] = static_cast<int64_t>(bins);
            grid.low[a] = low[a];
            grid.bins_per_unit[a] = bins / range;
            const double bin_height = height[a] * range / bins;
            grid.reach[a] = static_cast<int64_t>(std::min(bins, std::ceil(cutoff * (1.0 + HAIR) / bin_height)));
        }
        if (grid.total() <= 4 * n_entries + 64) return grid;
        edge *= 1.3;
    }
}

// Counting sort by bin; appends to `system` and the coordinate arrays, returns the start of every bin.
std::vector<int64_t> sort_into_bins(const Unsorted& entries, const Grid& grid, const double* positions, const double* cell,
                                    int64_t base, System& system, std::vector<double> xyz[3]) {
    const int64_t n = entries.size();
    std::vector<int64_t> start(grid.total() + 1, 0);
    std::vector<int64_t> bin_of(n);
    for (int64_t e = 0; e < n; ++e) {
        int64_t b[3];
        grid.bin(&entries.fractional[3 * e], b);
        bin_of[e] = grid.flat(b);
        ++start[bin_of[e] + 1];
    }
    for (int64_t b = 0; b < grid.total(); ++b) start[b + 1] += start[b];
    std::vector<int64_t> cursor(start.begin(), start.end() - 1);
    system.owner.resize(base + n);
    system.shift.resize(3 * (base + n));
    for (int a = 0; a < 3; ++a) xyz[a].resize(base + n);
    for (int64_t e = 0; e < n; ++e) {
        const int64_t slot = base + cursor[bin_of[e]]++;
        system.owner[slot] = entries.owner[e];
        const int32_t* s = &entries.shift[3 * e];
        const double shift[3] = {double(s[0]), double(s[1]), double(s[2])};
        double offset[3];
        row_times_matrix(shift, cell, offset);
        for (int a = 0; a < 3; ++a) {
            system.shift[3 * slot + a] = s[a];
            xyz[a][slot] = positions[3 * entries.owner[e] + a] + offset[a];
        }
    }
    for (int64_t b = 0; b <= grid.total(); ++b) start[b] += base;
    return start;
}

// No exception may leave a parallel region, nor the C interface.
bool make_room(std::vector<int32_t>& list, int64_t size) {
    if (size <= static_cast<int64_t>(list.size())) return true;
    try {
        list.resize(std::max<int64_t>(size, 2 * list.size()));
    } catch (const std::exception&) {
        return false;
    }
    return true;
}

int64_t build_system(const double* positions, int64_t n_atoms, const double* cell, const uint8_t* pbc, double cutoff,
                     int threads, System& system) {
    system.n_atoms = n_atoms;
    system.row_ptr.assign(n_atoms + 1, 0);
    if (n_atoms == 0) return OK;
    double inverse_cell[9], height[3], margin[3];
    inverse(cell, inverse_cell);
    for (int a = 0; a < 3; ++a) {
        height[a] = 1.0 / std::sqrt(inverse_cell[a] * inverse_cell[a] + inverse_cell[3 + a] * inverse_cell[3 + a] +
                                    inverse_cell[6 + a] * inverse_cell[6 + a]);
        margin[a] = cutoff / height[a] * (1.0 + HAIR) + HAIR;
    }
    Unsorted atoms, images;
    double low[3], high[3];
    for (int a = 0; a < 3; ++a) low[a] = std::numeric_limits<double>::infinity(), high[a] = -low[a];
    for (int64_t i = 0; i < n_atoms; ++i) {
        double f[3];
        int32_t s[3] = {0, 0, 0};
        row_times_matrix(positions + 3 * i, inverse_cell, f);
        for (int a = 0; a < 3; ++a) {
            if (!std::isfinite(f[a]) || (pbc[a] && std::fabs(f[a]) > 1e9)) return NON_FINITE;
            if (pbc[a]) {
                const double turns = std::floor(f[a]);
                s[a] = -static_cast<int32_t>(turns);
                f[a] -= turns;
            }
            low[a] = std::min(low[a], f[a]);
            high[a] = std::max(high[a], f[a]);
        }
        atoms.push(i, s, f);
    }
    for (int a = 0; a < 3; ++a)
        if (pbc[a]) low[a] -= margin[a], high[a] += margin[a];
    for (int64_t i = 0; i < n_atoms; ++i) {
        const double* f = &atoms.fractional[3 * i];
        double first[3], last[3], count = 1.0;
        for (int a = 0; a < 3; ++a) {
            first[a] = pbc[a] ? std::ceil(low[a] - f[a]) : 0.0;
            last[a] = pbc[a] ? std::floor(high[a] - f[a]) : 0.0;
            count *= last[a] - first[a] + 1.0;
        }
        if (double(images.size()) + double(n_atoms) + count > double(MAX_INDEX)) return TOO_MANY;
        for (double sa = first[0]; sa <= last[0]; ++sa)
            for (double sb = first[1]; sb <= last[1]; ++sb)
                for (double sc = first[2]; sc <= last[2]; ++sc) {
                    if (sa == 0.0 && sb == 0.0 && sc == 0.0) continue;
                    const int32_t* w = &atoms.shift[3 * i];
                    const int32_t s[3] = {w[0] + int32_t(sa), w[1] + int32_t(sb), w[2] + int32_t(sc)};
                    const double g[3] = {f[0] + sa, f[1] + sb, f[2] + sc};
                    images.push(i, s, g);
                }
    }
    const Grid grid = make_grid(low, high, height, cutoff, atoms.size() + images.size());
    std::vector<double> xyz[3];
    const auto atom_start = sort_into_bins(atoms, grid, positions, cell, 0, system, xyz);
    const auto image_start = sort_into_bins(images, grid, positions, cell, n_atoms, system, xyz);
    for (auto& coordinate : xyz) coordinate.resize(coordinate.size() + PAD, 0.0);
    // Bins of the atoms in their sorted order; atoms of one bin are consecutive.
    std::vector<int64_t> atom_bin(n_atoms);
    for (int64_t b = 0; b < grid.total(); ++b)
        for (int64_t k = atom_start[b]; k < atom_start[b + 1]; ++k) atom_bin[k] = b;

    const CollectWithin collect = collect_within();
    const double cutoff_squared = cutoff * cutoff, near_squared = NEAR * NEAR * cutoff_squared;
    const double *x = xyz[0].data(), *y = xyz[1].data(), *z = xyz[2].data();
    const int64_t chunk = std::max<int64_t>(16, (n_atoms + 8 * threads - 1) / (8 * threads));
    const int64_t n_chunks = (n_atoms + chunk - 1) / chunk;
    // Kept from call to call, up to a limit: fresh memory would cost more than the search (a page fault each 4 kB).
    thread_local std::vector<std::vector<int32_t>> kept;
    std::vector<std::vector<int32_t>> found;
    found.swap(kept);
    found.resize(n_chunks);
    std::vector<int64_t> n_found(n_chunks, 0);
    bool enough_memory = true;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (n_chunks > 1)
    for (int64_t c = 0; c < n_chunks; ++c) {
        auto& list = found[c];
        std::vector<int32_t> shell;
        int64_t used = 0;
        for (int64_t k = c * chunk; k < std::min(n_atoms, (c + 1) * chunk); ++k) {
            const double centre[3] = {x[k], y[k], z[k]};
            const int64_t bin = atom_bin[k];
            const int64_t at[3] = {bin / (grid.count[1] * grid.count[2]), bin / grid.count[2] % grid.count[1], bin % grid.count[2]};
            int64_t from[3], to[3];
            for (int a = 0; a < 3; ++a) {
                from[a] = std::max<int64_t>(0, at[a] - grid.reach[a]);
                to[a] = std::min<int64_t>(grid.count[a] - 1, at[a] + grid.reach[a]);
            }
            const int64_t row_begin = used;
            int64_t n_shell = 0;
            for (int64_t ba = from[0]; ba <= to[0]; ++ba)
                for (int64_t bb = from[1]; bb <= to[1]; ++bb) {
                    const int64_t row = (ba * grid.count[1] + bb) * grid.count[2];
                    const int64_t a0 = atom_start[row + from[2]], a1 = atom_start[row + to[2] + 1];
                    const int64_t i0 = image_start[row + from[2]], i1 = image_start[row + to[2] + 1];
                    const int64_t room = (a1 - a0) + (i1 - i0) + 4 * PAD;
                    if (!make_room(list, used + n_shell + room) || !make_room(shell, n_shell + room)) {
#pragma omp atomic write
                        enough_memory = false;
                        break;
                    }
                    Collected out{list.data(), shell.data(), used, n_shell};
                    if (a0 <= k && k < a1) {  // leave the atom itself out
                        collect(x, y, z, a0, k, centre, near_squared, cutoff_squared, out);
                        collect(x, y, z, k + 1, a1, centre, near_squared, cutoff_squared, out);
                    } else {
                        collect(x, y, z, a0, a1, centre, near_squared, cutoff_squared, out);
                    }
                    collect(x, y, z, i0, i1, centre, near_squared, cutoff_squared, out);
                    used = out.n_near;
                    n_shell = out.n_shell;
                }
            std::copy(shell.begin(), shell.begin() + n_shell, list.begin() + used);
            used += n_shell;
            system.row_ptr[k + 1] = used - row_begin;
        }
        n_found[c] = used;
    }
    if (!enough_memory) return NO_MEMORY;
    for (int64_t k = 0; k < n_atoms; ++k) system.row_ptr[k + 1] += system.row_ptr[k];
    system.columns.reset(new int32_t[system.n_pairs()]);
#pragma omp parallel for schedule(static) num_threads(threads) if (n_chunks > 1)
    for (int64_t c = 0; c < n_chunks; ++c)
        std::copy(found[c].begin(), found[c].begin() + n_found[c], system.columns.get() + system.row_ptr[c * chunk]);
    if (system.n_pairs() <= KEEP_UP_TO) kept.swap(found);
    return OK;
}

}  // namespace
}  // namespace rk

// Builds the lists of all systems. `sizes` receives the numbers of pairs and of atoms with images; `handle` is
// handed to rk_neighbors_export, which copies the result out and frees it. Returns 0, -1 (a position is not finite),
// -2 (more images than 32-bit indices) or -3 (not enough memory for the images and pairs).
RK_EXPORT int64_t rk_neighbors_build(const double* positions, const int64_t* batch_ptr, int64_t n_systems, const double* cells,
                                     const uint8_t* pbc, double cutoff, int64_t threads, int64_t* sizes, void** handle) {
    auto systems = std::make_unique<std::vector<rk::System>>(n_systems);
    int64_t status = rk::OK;
    const bool across = n_systems >= 2 * threads;  // many systems: one thread each; few: all threads on one
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (across)
    for (int64_t s = 0; s < n_systems; ++s) {
        int64_t result;
        try {
            result = rk::build_system(positions + 3 * batch_ptr[s], batch_ptr[s + 1] - batch_ptr[s], cells + 9 * s, pbc + 3 * s,
                                      cutoff, across ? 1 : static_cast<int>(threads), (*systems)[s]);
        } catch (const std::exception&) {
            result = rk::NO_MEMORY;
        }
        if (result != rk::OK) {
#pragma omp atomic write
            status = result;
        }
    }
    if (status != rk::OK) return status;
    sizes[0] = sizes[1] = 0;
    for (const auto& system : *systems) {
        sizes[0] += system.n_pairs();
        sizes[1] += system.size();
    }
    if (sizes[1] > rk::MAX_INDEX) return rk::TOO_MANY;
    *handle = systems.release();
    return rk::OK;
}

// Copies a result out: all atoms of all systems first, then all images. row_ptr (n_atoms + 1), columns (n_pairs),
// owners (n_extended), shifts (n_extended, 3). With row_ptr null the result is only freed.
RK_EXPORT int64_t rk_neighbors_export(void* handle, const int64_t* batch_ptr, int64_t n_systems, int64_t* row_ptr,
                                      int32_t* columns, int32_t* owners, int32_t* shifts) {
    std::unique_ptr<std::vector<rk::System>> systems(static_cast<std::vector<rk::System>*>(handle));
    if (!row_ptr) return rk::OK;
    int64_t image_base = batch_ptr[n_systems], pair_base = 0;
    row_ptr[0] = 0;
    for (int64_t s = 0; s < n_systems; ++s) {
        const rk::System& system = (*systems)[s];
        const int64_t atom_base = batch_ptr[s], n = system.n_atoms;
        for (int64_t k = 0; k < n; ++k) row_ptr[atom_base + k + 1] = pair_base + system.row_ptr[k + 1];
        for (int64_t p = 0; p < system.n_pairs(); ++p) {
            const int64_t column = system.columns[p];
            columns[pair_base + p] = static_cast<int32_t>(column < n ? atom_base + column : image_base + column - n);
        }
        for (int64_t e = 0; e < system.size(); ++e) {
            const int64_t slot = e < n ? atom_base + e : image_base + e - n;
            owners[slot] = static_cast<int32_t>(atom_base + system.owner[e]);
            for (int a = 0; a < 3; ++a) shifts[3 * slot + a] = system.shift[3 * e + a];
        }
        image_base += system.size() - n;
        pair_base += system.n_pairs();
    }
    return rk::OK;
}

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
