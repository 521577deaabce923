// Cell list for any cell, any periodic directions and any cutoff: builds rows of neighbours among atoms and images.
//
// Every atom is wrapped into the cell once; periodic images within one cutoff of the atoms' bounding box (in
// fractional coordinates) are made explicit, so the search itself knows no periodicity. Atoms and images are
// sorted by bin. Candidates are packed once for a block of atoms that are close to each other, then tested eight at a time.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <vector>

#include "cells.hpp"
#include "common.hpp"
#include "isa.hpp"
#include "neighbors_bins.hpp"
#include "neighbors_collect.hpp"
#include "neighbors_scratch.hpp"

namespace rk {

const NeighborLoops& neighbor_loops() {
    switch (active_isa()) {
#if defined(__x86_64__)
        case Isa::avx512: return avx512::neighbor_loops;
        case Isa::avx2: return avx2::neighbor_loops;
#endif
        default: return baseline::neighbor_loops;
    }
}

namespace {

constexpr int64_t OK = 0, NON_FINITE = -1, TOO_MANY = -2, NO_MEMORY = -3;
// Neighbours within this part of the reach stand first in their row. With a skin of a tenth of the cutoff the rest of
// a row is then nearly always beyond the cutoff, and a kernel passes over it eight at a time.
constexpr double NEAR = 0.93;
// A block is a run of atoms in at most so many bins along c, and ends where it has so many atoms.
constexpr int64_t BLOCK_BINS = 4, BLOCK_ATOMS = 8;

// Atoms and images of one system: entries [0, n_atoms) are the wrapped atoms in bin order, then the images.
struct System {
    int64_t n_atoms = 0, n_entries = 0, n_pairs = 0;
    Scratch<int32_t> owner, shift;
    Scratch<int64_t> row_end;  // within the chunk
    std::vector<Chunk> chunks;
    Scratch<double> xyz[3];
    Grid grid;
    double density = 0.0;  // entries a unit of volume
    Scratch<int32_t> atom_start, image_start;
};

// Coordinates of sorted entries, and where they come from.
void place(const Unsorted& entries, const Scratch<int32_t>& order, int64_t base, const double* positions, const double* cell,
           int threads, System& system) {
    const int parts = parts_for(entries.size, threads);
#pragma omp parallel for schedule(static) num_threads(parts) if (parts > 1)
    for (int64_t k = 0; k < entries.size; ++k) {
        const int64_t e = order[k], slot = base + k;
        const int32_t* s = &entries.shift[3 * e];
        const int32_t owner = base == 0 ? static_cast<int32_t>(e) : entries.owner[e];
        const double shift[3] = {double(s[0]), double(s[1]), double(s[2])};
        double offset[3];
        row_times_matrix(shift, cell, offset);
        system.owner[slot] = owner;
        for (int a = 0; a < 3; ++a) {
            system.shift[3 * slot + a] = s[a];
            system.xyz[a][slot] = positions[3 * owner + a] + offset[a];
        }
    }
}

int64_t sort_atoms_and_images(const double* positions, int64_t n_atoms, const double* cell, const uint8_t* pbc, double cutoff,
                              int threads, System& system) {
    double inverse_cell[9], height[3], low[3], high[3];
    const double determinant = inverse(cell, inverse_cell);
    Wrapped atoms = wrap(positions, n_atoms, inverse_cell, pbc, threads);
    if (!atoms.finite) return NON_FINITE;
    for (int a = 0; a < 3; ++a) {
        height[a] = 1.0 / std::sqrt(inverse_cell[a] * inverse_cell[a] + inverse_cell[3 + a] * inverse_cell[3 + a] +
                                    inverse_cell[6 + a] * inverse_cell[6 + a]);
        const double margin = pbc[a] ? cutoff / height[a] * (1.0 + HAIR) + HAIR : 0.0;
        low[a] = atoms.low[a] - margin, high[a] = atoms.high[a] + margin;
    }
    const int parts = parts_for(n_atoms, threads);
    int64_t begin[8];
    const int64_t n_images = count_images(atoms, n_atoms, pbc, low, high, parts, begin);
    if (n_images < 0) return TOO_MANY;
    system.n_entries = n_atoms + n_images;
    const Grid& grid = system.grid = make_grid(low, high, height, cutoff, system.n_entries);
    const double volume = std::fabs(determinant) * (high[0] - low[0]) * (high[1] - low[1]) * (high[2] - low[2]);
    system.density = double(system.n_entries) / std::max(volume, cutoff * cutoff * cutoff);
    const Unsorted images = make_images(atoms, n_atoms, pbc, low, high, grid, parts, begin, n_images);
    const Unsorted entries = as_entries(std::move(atoms), n_atoms, grid, parts);
    system.owner = Scratch<int32_t>(system.n_entries);
    system.shift = Scratch<int32_t>(3 * system.n_entries);
    for (auto& coordinate : system.xyz) {
        coordinate = Scratch<double>(system.n_entries + PAD);
        std::fill_n(coordinate.data() + system.n_entries, PAD, 0.0);
    }
    Scratch<int32_t> order;
    sort_by_bin(entries, grid.total(), threads, system.atom_start, order);
    place(entries, order, 0, positions, cell, threads, system);
    sort_by_bin(images, grid.total(), threads, system.image_start, order);
    place(images, order, n_atoms, positions, cell, threads, system);
    return OK;
}

// Candidates and shells of one thread, reused from block to block.
struct Workspace {
    Scratch<double> x, y, z;
    Scratch<int32_t> slot, shell;
    std::vector<Range> ranges;
    bool reserve(int64_t n) { return x.reserve(n) && y.reserve(n) && z.reserve(n) && slot.reserve(n) && shell.reserve(n); }
};

// Rows of the atoms [chunk.first, chunk.last).
void search(System& system, double cutoff, const NeighborLoops& loops, Chunk& chunk) {
    const Grid& grid = system.grid;
    const double cutoff_squared = cutoff * cutoff, near_squared = NEAR * NEAR * cutoff_squared;
    const double *x = system.xyz[0].data(), *y = system.xyz[1].data(), *z = system.xyz[2].data();
    const int32_t *atom_start = system.atom_start.data(), *image_start = system.image_start.data();
    const int64_t n_rows = (2 * grid.reach[0] + 1) * (2 * grid.reach[1] + 1), n_images = system.n_entries - system.n_atoms;
    Workspace work;
    try {
        work.ranges.resize(2 * n_rows + 2);
    } catch (const std::exception&) {
        chunk.enough_memory = false;
        return;
    }
    int64_t bin = std::upper_bound(atom_start, atom_start + grid.total(), static_cast<int32_t>(chunk.first)) - atom_start - 1;
    for (int64_t k = chunk.first; k < chunk.last;) {
        while (atom_start[bin + 1] <= k) ++bin;
        const int64_t at[3] = {bin / (grid.count[1] * grid.count[2]), bin / grid.count[2] % grid.count[1], bin % grid.count[2]};
        int64_t last_bin = bin, end = std::min<int64_t>(chunk.last, atom_start[bin + 1]);
        while (end - k < BLOCK_ATOMS && end < chunk.last && last_bin - bin < BLOCK_BINS - 1 && (last_bin + 1) % grid.count[2] != 0)
            end = std::min<int64_t>(chunk.last, atom_start[++last_bin + 1]);

        double low[3] = {x[k], y[k], z[k]}, high[3] = {x[k], y[k], z[k]};
        for (int64_t i = k + 1; i < end; ++i) {
            low[0] = std::min(low[0], x[i]), high[0] = std::max(high[0], x[i]);
            low[1] = std::min(low[1], y[i]), high[1] = std::max(high[1], y[i]);
            low[2] = std::min(low[2], z[i]), high[2] = std::max(high[2], z[i]);
        }
        int64_t from[3], to[3], n_ranges = 0, home = 0, room = 2 * PAD;
        for (int a = 0; a < 3; ++a) {
            from[a] = std::max<int64_t>(0, at[a] - grid.reach[a]);
            to[a] = std::min<int64_t>(grid.count[a] - 1, at[a] + grid.reach[a] + (a == 2 ? last_bin - bin : 0));
        }
        const auto add = [&](int64_t begin, int64_t stop) {
            if (begin == stop) return;
            work.ranges[n_ranges++] = {begin, stop};
            room += stop - begin;
        };
        for (int64_t ba = from[0]; ba <= to[0]; ++ba)
            for (int64_t bb = from[1]; bb <= to[1]; ++bb) {
                const int64_t row = (ba * grid.count[1] + bb) * grid.count[2];
                const int64_t begin = atom_start[row + from[2]], stop = atom_start[row + to[2] + 1];
                if (begin <= k && k < stop) {  // the block itself is a range of its own
                    add(begin, k);
                    home = n_ranges;
                    add(k, end);
                    add(end, stop);
                } else {
                    add(begin, stop);
                }
                if (n_images > 0)
                    add(system.n_atoms + image_start[row + from[2]], system.n_atoms + image_start[row + to[2] + 1]);
            }
        if (!work.reserve(room)) {
            chunk.enough_memory = false;
            return;
        }
        Candidates candidates{work.x.data(), work.y.data(), work.z.data(), work.slot.data(), 0};
        const int64_t self = loops.pack(x, y, z, work.ranges.data(), n_ranges, home, low, high, cutoff_squared, candidates);
        for (int64_t i = k; i < end; ++i) {
            if (!chunk.entries.reserve(chunk.used + candidates.size + PAD)) {
                chunk.enough_memory = false;
                return;
            }
            const double centre[3] = {x[i], y[i], z[i]};
            Collected out{chunk.entries.data() + chunk.used, work.shell.data(), 0, 0};
            double& own = candidates.x[self + i - k];
            own = std::numeric_limits<double>::quiet_NaN();  // leave the atom itself out
            loops.collect(candidates, centre, near_squared, cutoff_squared, out);
            own = centre[0];
            std::memcpy(out.near + out.n_near, out.shell, out.n_shell * sizeof(int32_t));
            chunk.used += out.n_near + out.n_shell;
            system.row_end[i] = chunk.used;
        }
        k = end;
    }
}

int64_t build_system(const double* positions, int64_t n_atoms, const double* cell, const uint8_t* pbc, double cutoff,
                     int threads, System& system) {
    system.n_atoms = n_atoms;
    if (n_atoms == 0) return OK;
    const int64_t status = sort_atoms_and_images(positions, n_atoms, cell, pbc, cutoff, threads, system);
    if (status != OK) return status;
    system.row_end = Scratch<int64_t>(n_atoms);
    const int64_t n_chunks = threads == 1 ? 1 : std::min<int64_t>(8 * threads, (n_atoms + 63) / 64);
    system.chunks.resize(n_chunks);
    for (int64_t c = 0; c < n_chunks; ++c) {
        system.chunks[c].first = part_begin(n_atoms, c, n_chunks);
        system.chunks[c].last = part_begin(n_atoms, c + 1, n_chunks);
    }
    // Room for as many pairs as an even density gives, so that few lists have to grow.
    const double per_atom = std::min(double(system.n_entries), system.density * 4.2 * cutoff * cutoff * cutoff);
    for (Chunk& chunk : system.chunks)
        if (!chunk.entries.reserve(static_cast<int64_t>(double(chunk.last - chunk.first) * per_atom * 1.05) + 64)) return NO_MEMORY;
    const NeighborLoops& loops = neighbor_loops();
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (n_chunks > 1)
    for (int64_t c = 0; c < n_chunks; ++c) search(system, cutoff, loops, system.chunks[c]);
    for (auto& coordinate : system.xyz) coordinate.release();
    system.atom_start.release(), system.image_start.release();
    for (const Chunk& chunk : system.chunks) {
        if (!chunk.enough_memory) return NO_MEMORY;
        system.n_pairs += chunk.used;
    }
    return OK;
}

// Copies one system to its place among all: atoms from `atom_base`, images from `image_base`, pairs from `pair_base`.
void export_system(System& system, int64_t atom_base, int64_t image_base, int64_t pair_base, int threads, int64_t* row_ptr,
                   int32_t* columns, int32_t* owners, int32_t* shifts) {
    const int64_t n = system.n_atoms, n_chunks = static_cast<int64_t>(system.chunks.size());
    for (Chunk& chunk : system.chunks) {
        chunk.base = pair_base;
        pair_base += chunk.used;
    }
    const bool several = threads > 1 && system.n_pairs > 65536;
#pragma omp parallel num_threads(threads) if (several)
    {
#pragma omp for schedule(dynamic) nowait
        for (int64_t c = 0; c < n_chunks; ++c) {
            const Chunk& chunk = system.chunks[c];
            for (int64_t k = chunk.first; k < chunk.last; ++k) row_ptr[atom_base + k + 1] = chunk.base + system.row_end[k];
            const int32_t* entries = chunk.entries.data();
            int32_t* to = columns + chunk.base;
            if (atom_base == 0 && image_base == n) {
                std::memcpy(to, entries, chunk.used * sizeof(int32_t));
                continue;
            }
            for (int64_t p = 0; p < chunk.used; ++p)
                to[p] = static_cast<int32_t>(entries[p] < n ? atom_base + entries[p] : image_base + entries[p] - n);
        }
#pragma omp for schedule(static)
        for (int64_t e = 0; e < system.n_entries; ++e) {
            const int64_t slot = e < n ? atom_base + e : image_base + e - n;
            owners[slot] = static_cast<int32_t>(atom_base + system.owner[e]);
            for (int a = 0; a < 3; ++a) shifts[3 * slot + a] = system.shift[3 * e + a];
        }
    }
}

// Many systems: one thread each. Few: one after the other, all threads on each. Two loops and not a clause
// `if`: inside a parallel region of one thread, others would be started anew every time.
template <typename Do>
void for_every_system(int64_t n_systems, int64_t threads, Do work) {
    if (threads > 1 && n_systems >= 2 * threads) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
        for (int64_t s = 0; s < n_systems; ++s) work(s, 1);
    } else {
        for (int64_t s = 0; s < n_systems; ++s) work(s, static_cast<int>(threads));
    }
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
    rk::for_every_system(n_systems, threads, [&](int64_t s, int threads_of_it) {
        int64_t result;
        try {
            result = rk::build_system(positions + 3 * batch_ptr[s], batch_ptr[s + 1] - batch_ptr[s], cells + 9 * s, pbc + 3 * s,
                                      cutoff, threads_of_it, (*systems)[s]);
        } catch (const std::exception&) {
            result = rk::NO_MEMORY;
        }
        if (result != rk::OK) {
#pragma omp atomic write
            status = result;
        }
    });
    if (status != rk::OK) return status;
    sizes[0] = sizes[1] = 0;
    for (const auto& system : *systems) {
        sizes[0] += system.n_pairs;
        sizes[1] += system.n_entries;
    }
    if (sizes[1] > rk::MAX_INDEX) return rk::TOO_MANY;
    *handle = systems.release();
    return rk::OK;
}

// Copies a result out: all atoms of all systems first, then all images. row_ptr (n_atoms + 1), columns (n_pairs),
// owners (n_extended), shifts (n_extended, 3).
RK_EXPORT int64_t rk_neighbors_export(void* handle, const int64_t* batch_ptr, int64_t n_systems, int64_t threads,
                                      int64_t* row_ptr, int32_t* columns, int32_t* owners, int32_t* shifts) {
    std::unique_ptr<std::vector<rk::System>> systems(static_cast<std::vector<rk::System>*>(handle));
    struct Base {
        int64_t image, pair;
    };
    std::vector<Base> base(n_systems + 1, {batch_ptr[n_systems], 0});
    for (int64_t s = 0; s < n_systems; ++s) {
        const rk::System& system = (*systems)[s];
        base[s + 1] = {base[s].image + system.n_entries - system.n_atoms, base[s].pair + system.n_pairs};
    }
    rk::advise_huge_pages(columns, base[n_systems].pair * static_cast<int64_t>(sizeof(int32_t)));
    row_ptr[0] = 0;
    rk::for_every_system(n_systems, threads, [&](int64_t s, int threads_of_it) {
        rk::export_system((*systems)[s], batch_ptr[s], base[s].image, base[s].pair, threads_of_it, row_ptr, columns, owners,
                          shifts);
    });
    return rk::OK;
}
