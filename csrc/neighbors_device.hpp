// Cell list for GPUs: the body of every kernel, run by one thread for one index, in fixed buffers and without the host.
//
// The algorithm is that of cpu/neighbors.cpp: wrap, make images explicit, sort by bin, search. csrc/cuda/neighbors.cu
// launches the bodies, csrc/cpu/neighbors_device.cpp loops over them, so that what the tests run on a processor is what a
// GPU runs. No thread waits for another inside a kernel. Atomics are used for sums of integers, maxima and flags only,
// and entries of one bin are put in order afterwards: the result does not depend on the order in which threads run.
//
// Nothing is written past the capacities in `Block`. What was needed stands in the status words, and a list that did
// not fit is poisoned: `*poison` is NaN and every row lists its own atom, at distance zero.
#pragma once
#include "common.hpp"
#include "neighbors_device_math.hpp"

namespace rk {
namespace device {

// Words of `status`. USED holds a double's bits. FLAGS are those of the last update, SEEN those of all since the host
// last cleared them.
enum Word { REBUILD, FLAGS, SEEN, IMAGES, LONGEST, REBUILDS, UPDATES, USED, VALID, N_WORDS = 16 };
enum Flag { NON_FINITE = 1, SINGULAR = 2, IMAGES_OVERFLOW = 4, NEIGHBORS_OVERFLOW = 8, RETIRED = 16 };

constexpr double HAIR = 1e-9;      // relative and in cells; more than the rounding of fractional coordinates
constexpr double TOO_FAR = 1e9;    // cells; beyond it a wrapped coordinate has no digits left
constexpr double MANY = 2147483583.0;  // 2^31 - 65, more entries than indices
constexpr int64_t BINS_PER_ATOM = 2, BINS_PER_SYSTEM = 256;

// What one system's cell is now, and its change since the list was built.
struct Frame {
    double cell[9], inverse[9], change[9], growth;  // growth bounds the norm of the inverse change
};

struct Grid {
    double low[3], high[3], bins_per_unit[3];
    int64_t count[3], reach[3], base;
};

struct alignas(32) Site {
    double x, y, z, unused;
};

// All buffers and sizes; every field is 8 bytes wide and Python fills them in this order (device_build.py).
#define RK_NEIGHBOR_BLOCK(FIELD)                                                                                       \
    FIELD(int64_t, alive) FIELD(int64_t, n_atoms) FIELD(int64_t, n_systems) FIELD(int64_t, image_capacity)             \
    FIELD(int64_t, neighbor_capacity) FIELD(int64_t, width) FIELD(int64_t, n_bins) FIELD(int64_t, lanes)               \
    FIELD(double, cutoff) FIELD(double, skin)                                                                          \
    FIELD(const double*, positions) FIELD(const double*, cells) FIELD(const uint8_t*, pbc)                             \
    FIELD(const int64_t*, batch_ptr) FIELD(const int32_t*, system)                                                     \
    FIELD(double*, reference) FIELD(double*, reference_cells) FIELD(Frame*, frames) FIELD(Grid*, grids)                \
    FIELD(int64_t*, bounds) FIELD(double*, fractional) FIELD(int64_t*, image_count) FIELD(int64_t*, image_start)       \
    FIELD(int32_t*, owner) FIELD(int32_t*, shift) FIELD(int32_t*, bin) FIELD(int32_t*, bin_count)                      \
    FIELD(int32_t*, bin_start) FIELD(int32_t*, bucket) FIELD(Site*, sites) FIELD(int32_t*, row_bin)                    \
    FIELD(int32_t*, owners) FIELD(int32_t*, image_shifts) FIELD(int32_t*, matrix) FIELD(int64_t*, counts)              \
    FIELD(int64_t*, rows) FIELD(int32_t*, columns) FIELD(int64_t*, status) FIELD(double*, poison)

struct Block {
#define RK_FIELD(type, name) type name;
    RK_NEIGHBOR_BLOCK(RK_FIELD)
#undef RK_FIELD
};

RK_BODY bool rebuilding(const Block& b) { return b.status[REBUILD] != 0; }
RK_BODY int64_t images_held(const Block& b) { return minimum(b.image_start[b.n_atoms], b.image_capacity); }

// --- is the list still good? -------------------------------------------------------------------------------------------

// One thread a system: complete and invert the cell, compare it with the list's, clear what the call will gather.
RK_BODY void compare_cells(int64_t s, const Block& b) {
    Frame& frame = b.frames[s];
    if (s == 0) b.status[USED] = 0;
    const bool sound = complete_cell(b.cells + 9 * s, b.pbc + 3 * s, frame.cell);
    invert(frame.cell, frame.inverse);
    frame.growth = 1.0;
    const double* before = b.reference_cells + 9 * s;
    bool same = true;
    for (int a = 0; a < 9; ++a) same = same && frame.cell[a] == before[a], frame.change[a] = a % 4 == 0;
    if (b.status[VALID] && !same) {
        double inverse_before[9], back[3], squares = 0.0;
        invert(before, inverse_before);
        for (int a = 0; a < 3; ++a) {
            times_matrix(inverse_before + 3 * a, frame.cell, frame.change + 3 * a);
            times_matrix(frame.inverse + 3 * a, before, back);
            for (int c = 0; c < 3; ++c) squares += product(back[c] - (a == c), back[c] - (a == c));
        }
        frame.growth = 1.0 + root(squares);
    }
    // Several systems may find a fault at once; the flags of the last call are cleared by `decide`.
    if (!sound) set_bits(b.status + FLAGS, all_finite(b.cells + 9 * s, 9) ? SINGULAR : NON_FINITE);
    for (int a = 0; a < 6; ++a) b.bounds[6 * s + a] = ordered(-infinite());
}

// Lanes in turn: the part of the skin that motion and the cell's change have used up, (c + 2d) growth - c.
RK_BODY void measure(int64_t lane, const Block& b) {
    if (!b.status[VALID]) return;
    const double cutoff = b.cutoff - b.skin;
    double most = 0.0;
    for (int64_t i = lane; i < b.n_atoms; i += b.lanes) {
        const Frame& frame = b.frames[b.system[i]];
        double then[3], squares = 0.0;
        times_matrix(b.reference + 3 * i, frame.change, then);
        for (int a = 0; a < 3; ++a) squares += product(b.positions[3 * i + a] - then[a], b.positions[3 * i + a] - then[a]);
        const double used = product(cutoff + 2.0 * root(squares), frame.growth) - cutoff;
        most = used <= most ? most : used == used ? used : infinite();
    }
    raise_to(b.status + USED, ordered(most));
}

// One thread: the predicate that all later kernels read.
RK_BODY void decide(int64_t, const Block& b) {
    int64_t* status = b.status;
    const double used = unordered(status[USED]);
    int64_t flags = status[FLAGS] | (b.alive ? 0 : RETIRED);
    if (flags == 0 && !is_finite(used)) flags = NON_FINITE;
    const bool stale = !status[VALID] || !(b.skin > 0.0) || used > b.skin;
    status[REBUILD] = flags == 0 && stale;
    status[SEEN] |= flags;
    status[UPDATES] += 1;
    if (!status[REBUILD]) *b.poison = flags == 0 && status[VALID] ? 0.0 : not_a_number();
    if (status[REBUILD]) status[LONGEST] = 0;
    // Flags of this call go on into a rebuild only as zeros; a fault found here is kept in SEEN.
    status[FLAGS] = 0;
}

// --- atoms and images --------------------------------------------------------------------------------------------------

RK_BODY void widen(const Block& b, int64_t s, const double* low, const double* high) {
    for (int a = 0; a < 3; ++a) {
        raise_to(b.bounds + 6 * s + a, ordered(-low[a]));
        raise_to(b.bounds + 6 * s + 3 + a, ordered(high[a]));
    }
}

// Lanes in turn: wrap every atom into its cell, remember by which lattice vector, bound what the atoms fill; and keep
// what the list is built from.
RK_BODY void wrap(int64_t lane, const Block& b) {
    if (!rebuilding(b)) return;
    double low[3], high[3];
    int64_t current = -1;
    for (int64_t i = lane; i < b.n_atoms; i += b.lanes) {
        const int64_t s = b.system[i];
        const Frame& frame = b.frames[s];
        double f[3];
        times_matrix(b.positions + 3 * i, frame.inverse, f);
        bool bad = false;
        for (int a = 0; a < 3; ++a) {
            int32_t turns = 0;
            bad = bad || !is_finite(f[a]) || (b.pbc[3 * s + a] && magnitude(f[a]) > TOO_FAR);
            if (bad) f[a] = 0.5;
            if (b.pbc[3 * s + a]) {
                const double whole = round_down(f[a]);
                turns = static_cast<int32_t>(whole);
                f[a] -= whole;
            }
            b.shift[3 * i + a] = -turns;
            b.fractional[3 * i + a] = f[a];
            b.reference[3 * i + a] = b.positions[3 * i + a];
        }
        b.owner[i] = static_cast<int32_t>(i);
        if (bad) set_bits(b.status + FLAGS, NON_FINITE);
        if (s != current) {
            if (current >= 0) widen(b, current, low, high);
            current = s;
            for (int a = 0; a < 3; ++a) low[a] = infinite(), high[a] = -infinite();
        }
        for (int a = 0; a < 3; ++a) {
            low[a] = f[a] < low[a] ? f[a] : low[a];
            high[a] = f[a] > high[a] ? f[a] : high[a];
        }
    }
    if (current >= 0) widen(b, current, low, high);
}

// One thread a system: what images must fill, and bins about half a cutoff wide, never more than there is room for. Widths
// are a hair more, and the reach is a hair longer, than they need be: rounding of f loses no pair.
RK_BODY void plan(int64_t s, const Block& b) {
    if (!rebuilding(b)) return;
    const Frame& frame = b.frames[s];
    Grid& grid = b.grids[s];
    for (int a = 0; a < 9; ++a) b.reference_cells[9 * s + a] = frame.cell[a];
    const int64_t n = b.batch_ptr[s + 1] - b.batch_ptr[s], room = BINS_PER_ATOM * n + BINS_PER_SYSTEM;
    grid.base = BINS_PER_ATOM * b.batch_ptr[s] + BINS_PER_SYSTEM * s;
    if (n == 0) return;
    double height[3];
    for (int a = 0; a < 3; ++a) {
        const double* column = frame.inverse + a;
        height[a] = 1.0 / root(product(column[0], column[0]) + product(column[3], column[3]) + product(column[6], column[6]));
        const double margin = b.pbc[3 * s + a] ? product(b.cutoff / height[a], 1.0 + HAIR) + HAIR : 0.0;
        grid.low[a] = -unordered(b.bounds[6 * s + a]) - margin;
        grid.high[a] = unordered(b.bounds[6 * s + 3 + a]) + margin;
    }
    for (double edge = 0.5 * b.cutoff * (1.0 + 2.0 * HAIR);; edge *= 1.3) {
        int64_t total = 1;
        for (int a = 0; a < 3; ++a) {
            const double width = grid.high[a] - grid.low[a], range = width > 1e-12 ? width : 1e-12;
            const double fitting = round_down(range * height[a] / edge);
            const double bins = fitting > 1e6 ? 1e6 : fitting > 1.0 ? fitting : 1.0;
            const double reach = round_up(b.cutoff * (1.0 + HAIR) / (height[a] * range / bins));
            grid.count[a] = static_cast<int64_t>(bins);
            grid.bins_per_unit[a] = bins / range;
            grid.reach[a] = static_cast<int64_t>(reach < bins ? reach : bins);
            total *= grid.count[a];
        }
        if (total <= room) return;
    }
}

RK_BODY int32_t bin_at(const Grid& grid, const double* f) {
    int64_t flat = 0;
    for (int a = 0; a < 3; ++a) {
        const double along = round_down(product(f[a] - grid.low[a], grid.bins_per_unit[a]));
        const double last = static_cast<double>(grid.count[a] - 1);
        flat = flat * grid.count[a] + static_cast<int64_t>(along < 0.0 ? 0.0 : along < last ? along : last);
    }
    return static_cast<int32_t>(grid.base + flat);
}

RK_BODY void clear_bins(int64_t bin, const Block& b) {
    if (rebuilding(b)) b.bin_count[bin] = 0;
}

RK_BODY void image_range(const Block& b, int64_t i, const Grid& grid, double* first, double* last) {
    const int64_t s = b.system[i];
    for (int a = 0; a < 3; ++a) {
        const double f = b.fractional[3 * i + a];
        first[a] = b.pbc[3 * s + a] ? round_up(grid.low[a] - f) : 0.0;
        last[a] = b.pbc[3 * s + a] ? round_down(grid.high[a] - f) : 0.0;
    }
}

// One thread an atom: how many images it has, without itself.
RK_BODY void count_images(int64_t i, const Block& b) {
    if (!rebuilding(b)) return;
    double first[3], last[3], count = 1.0;
    image_range(b, i, b.grids[b.system[i]], first, last);
    for (int a = 0; a < 3; ++a) count *= last[a] - first[a] + 1.0;
    b.image_count[i] = static_cast<int64_t>(count < MANY ? count : MANY) - 1;
}

// One thread an atom: its entry and those of its images, as far as there is room, and their bins. Bins of images follow
// those of atoms, so that one scan puts all atoms before all images.
RK_BODY void place(int64_t i, const Block& b) {
    if (!rebuilding(b)) return;
    const Grid& grid = b.grids[b.system[i]];
    const double* f = b.fractional + 3 * i;
    b.bin[i] = bin_at(grid, f);
    fetch_add(b.bin_count + b.bin[i], 1);
    double first[3], last[3];
    image_range(b, i, grid, first, last);
    int64_t image = b.image_start[i];
    for (double x = first[0]; x <= last[0]; ++x)
        for (double y = first[1]; y <= last[1]; ++y)
            for (double z = first[2]; z <= last[2]; ++z) {
                if (x == 0.0 && y == 0.0 && z == 0.0) continue;
                if (image >= b.image_capacity) return;
                const int64_t e = b.n_atoms + image++;
                const double by[3] = {x, y, z};
                double g[3];
                for (int a = 0; a < 3; ++a) {
                    b.shift[3 * e + a] = b.shift[3 * i + a] + static_cast<int32_t>(by[a]);
                    g[a] = f[a] + by[a];
                }
                b.owner[e] = static_cast<int32_t>(i);
                b.bin[e] = bin_at(grid, g) + static_cast<int32_t>(b.n_bins);
                fetch_add(b.bin_count + b.bin[e], 1);
            }
}

// --- sorted by bin -----------------------------------------------------------------------------------------------------

// One thread an entry: some place in its bin.
RK_BODY void scatter(int64_t e, const Block& b) {
    if (!rebuilding(b) || e >= b.n_atoms + images_held(b)) return;
    const int32_t bin = b.bin[e];
    b.bucket[b.bin_start[bin] + fetch_add(b.bin_count + bin, -1) - 1] = static_cast<int32_t>(e);
}

// One thread a place: the entry there moves to its own place in the bin, by number, whoever came first. Entries that are
// not there are copies of atom 0 that no row lists.
RK_BODY void sort_bins(int64_t slot, const Block& b) {
    if (!rebuilding(b)) return;
    if (slot >= b.n_atoms + images_held(b)) {
        b.owners[slot] = 0;
        for (int a = 0; a < 3; ++a) b.image_shifts[3 * slot + a] = 0;
        return;
    }
    const int64_t e = b.bucket[slot], owner = b.owner[e];
    const int32_t bin = b.bin[e];
    int64_t place = b.bin_start[bin];
    for (int64_t other = b.bin_start[bin]; other < b.bin_start[bin + 1]; ++other) place += b.bucket[other] < e;
    const int32_t* s = b.shift + 3 * e;
    const double shift[3] = {double(s[0]), double(s[1]), double(s[2])};
    double offset[3];
    times_matrix(shift, b.frames[b.system[owner]].cell, offset);
    const double* r = b.positions + 3 * owner;
    b.sites[place] = {r[0] + offset[0], r[1] + offset[1], r[2] + offset[2], 0.0};
    b.owners[place] = static_cast<int32_t>(owner);
    for (int a = 0; a < 3; ++a) b.image_shifts[3 * place + a] = s[a];
    if (place < b.n_atoms) b.row_bin[place] = bin;
}

// --- search ------------------------------------------------------------------------------------------------------------

// All entries closer than the cutoff to row k's atom, in the order of bins; returns how many. The first `capacity` go
// to out[0], out[stride], ...
RK_BODY int64_t find(int64_t k, const Block& b, int32_t* out, int64_t stride, int64_t capacity) {
    const Grid& grid = b.grids[b.system[k]];
    const Site* sites = b.sites;
    const int32_t* start = b.bin_start;
    const Site centre = sites[k];
    const double cutoff_squared = product(b.cutoff, b.cutoff);
    const int32_t count[3] = {int32_t(grid.count[0]), int32_t(grid.count[1]), int32_t(grid.count[2])};
    const int32_t reach[3] = {int32_t(grid.reach[0]), int32_t(grid.reach[1]), int32_t(grid.reach[2])};
    const int32_t base = static_cast<int32_t>(grid.base), n_bins = static_cast<int32_t>(b.n_bins);
    const int32_t flat = b.row_bin[k] - base;
    const int32_t at[3] = {flat / (count[1] * count[2]), flat / count[2] % count[1], flat % count[2]};
    int32_t from[3], to[3];
    for (int a = 0; a < 3; ++a) {
        from[a] = at[a] > reach[a] ? at[a] - reach[a] : 0;
        to[a] = count[a] - 1 - at[a] > reach[a] ? at[a] + reach[a] : count[a] - 1;
    }
    int64_t n = 0;
    for (int32_t x = from[0]; x <= to[0]; ++x)
        for (int32_t y = from[1]; y <= to[1]; ++y) {
            // A row of bins along the last axis is one range of atoms and one of images.
            const int32_t row = base + (x * count[1] + y) * count[2];
            for (int part = 0; part < 2; ++part) {
                const int32_t begin = start[part * n_bins + row + from[2]], end = start[part * n_bins + row + to[2] + 1];
                for (int32_t e = begin; e < end; ++e) {
                    const double dx = sites[e].x - centre.x, dy = sites[e].y - centre.y, dz = sites[e].z - centre.z;
                    if (product(dx, dx) + product(dy, dy) + product(dz, dz) < cutoff_squared && e != k) {
                        if (n < capacity) out[n * stride] = e;
                        ++n;
                    }
                }
            }
        }
    return n;
}

RK_BODY int32_t nowhere(const Block& b) { return static_cast<int32_t>(b.n_atoms + b.image_capacity); }

// One thread a row: its column of the matrix, filled up with an entry that is not there, and its number of neighbours.
RK_BODY void search(int64_t k, const Block& b) {
    if (!rebuilding(b)) return;
    // Without all images the rows would be wrong, and may be long: not even begun.
    const bool lost = b.image_start[b.n_atoms] > b.image_capacity;
    const int64_t found = lost ? 0 : find(k, b, b.matrix + k, b.width, b.neighbor_capacity);
    for (int64_t slot = found; slot < b.neighbor_capacity; ++slot) b.matrix[slot * b.width + k] = nowhere(b);
    b.counts[k] = found;
}

// Lanes in turn: the longest row.
RK_BODY void find_longest(int64_t lane, const Block& b) {
    if (!rebuilding(b)) return;
    int64_t most = 0;
    for (int64_t k = lane; k < b.n_atoms; k += b.lanes) most = maximum(most, b.counts[k]);
    raise_to(b.status + LONGEST, most);
}

// One thread: did everything fit?
RK_BODY void settle(int64_t, const Block& b) {
    if (!rebuilding(b)) return;
    int64_t* status = b.status;
    status[IMAGES] = b.image_start[b.n_atoms];
    int64_t flags = status[FLAGS];
    if (status[IMAGES] > b.image_capacity) flags |= IMAGES_OVERFLOW;
    if (status[LONGEST] > b.neighbor_capacity) flags |= NEIGHBORS_OVERFLOW;
    status[FLAGS] = 0;
    status[SEEN] |= flags;
    status[VALID] = flags == 0;
    status[REBUILDS] += flags == 0;
    *b.poison = flags == 0 ? 0.0 : not_a_number();
}

// One thread a row: a list that did not fit holds one pair a row, the atom with itself at distance zero.
RK_BODY void spoil(int64_t k, const Block& b) {
    if (!rebuilding(b) || b.status[VALID]) return;
    for (int64_t slot = 0; slot < b.neighbor_capacity; ++slot)
        b.matrix[slot * b.width + k] = slot == 0 ? static_cast<int32_t>(k) : nowhere(b);
    b.counts[k] = 1;
}

// One thread a row: its neighbours once more, one row after the other, where the exact number of all is known.
RK_BODY void fill_rows(int64_t k, const Block& b) {
    find(k, b, b.columns + b.rows[k], 1, b.rows[k + 1] - b.rows[k]);
}

// One thread a row: the same, out of the matrix.
RK_BODY void pack_rows(int64_t k, const Block& b) {
    for (int64_t slot = 0; slot < b.rows[k + 1] - b.rows[k]; ++slot)
        b.columns[b.rows[k] + slot] = b.matrix[slot * b.width + k];
}

#define RK_NEIGHBOR_KERNELS(KERNEL)                                                                                    \
    KERNEL(compare_cells) KERNEL(measure) KERNEL(decide) KERNEL(wrap) KERNEL(plan) KERNEL(clear_bins)                  \
    KERNEL(count_images) KERNEL(place) KERNEL(scatter) KERNEL(sort_bins) KERNEL(search) KERNEL(find_longest)           \
    KERNEL(settle) KERNEL(spoil) KERNEL(fill_rows) KERNEL(pack_rows)

}  // namespace device
}  // namespace rk
