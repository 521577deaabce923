// What is read out of finished rows of neighbours on a GPU: edges in order, and the rows of a shorter cutoff.
//
// One thread a row or a pair, host and device, as in neighbors_device.hpp. Outputs are counted first and written then.
#pragma once
#include "common.hpp"
#include "neighbors_device_math.hpp"

namespace rk {
namespace device {

// Every field is 8 bytes wide and Python fills them in this order (device_rows.py).
#define RK_NEIGHBOR_ROWS(FIELD)                                                                                        \
    FIELD(int64_t, n_atoms) FIELD(int64_t, half) FIELD(double, cutoff) FIELD(const int64_t*, rows)                     \
    FIELD(const int32_t*, columns) FIELD(const int32_t*, owners) FIELD(const int32_t*, image_shifts)                   \
    FIELD(const double*, positions) FIELD(const double*, cells) FIELD(const int64_t*, system)                          \
    FIELD(const int32_t*, ranks) FIELD(int32_t*, keys) FIELD(int64_t*, counts) FIELD(const int64_t*, starts)           \
    FIELD(int64_t*, edges) FIELD(int32_t*, shifts) FIELD(int32_t*, kept)

struct Rows {
#define RK_FIELD(type, name) type name;
    RK_NEIGHBOR_ROWS(RK_FIELD)
#undef RK_FIELD
};

constexpr int32_t LEFT_OUT = 2147483647;

RK_BODY void shift_of(const Rows& r, int64_t k, int64_t e, int32_t* out) {
    for (int a = 0; a < 3; ++a) out[a] = r.image_shifts[3 * e + a] - r.image_shifts[3 * k + a];
}

// Full lists keep every edge; half lists i < j, or i = j with the first non-zero of S positive.
RK_BODY bool wanted(const Rows& r, int64_t i, int64_t k, int64_t e) {
    const int64_t j = r.owners[e];
    if (!r.half || i < j) return true;
    if (i > j) return false;
    int32_t s[3];
    shift_of(r, k, e, s);
    return (s[0] != 0 ? s[0] : s[1] != 0 ? s[1] : s[2]) > 0;
}

// One thread a row. counts[i]: edges of the row's atom i. keys: in the order of (j, S), which within a row is that of the
// entries by (owner, lattice vector), `ranks`.
RK_BODY void count_edges(int64_t k, const Rows& r) {
    const int64_t i = r.owners[k];
    int64_t count = 0;
    for (int64_t place = r.rows[k]; place < r.rows[k + 1]; ++place) {
        const int64_t e = r.columns[place];
        const bool listed = wanted(r, i, k, e);
        r.keys[place] = listed ? r.ranks[e] : LEFT_OUT;
        count += listed;
    }
    r.counts[i] = count;
}

// One thread a pair. Edges of atom i stand from starts[i] on: this one goes where the number of smaller keys in its row
// says. Neighbouring threads share a row and read the same keys.
RK_BODY void write_edges(int64_t place, const Rows& r) {
    const int32_t key = r.keys[place];
    if (key == LEFT_OUT) return;
    int64_t k = 0, after = r.n_atoms;  // the last row that starts at or before the place, by bisection
    while (after - k > 1) {
        const int64_t middle = k + (after - k) / 2;
        if (r.rows[middle] <= place) k = middle;
        else after = middle;
    }
    const int64_t i = r.owners[k], e = r.columns[place], end = r.rows[k + 1];
    int32_t smaller = 0;
    for (int64_t other = r.rows[k]; other < end; ++other) smaller += r.keys[other] < key;
    const int64_t to = r.starts[i] + smaller;
    r.edges[to] = i;
    r.edges[r.starts[r.n_atoms] + to] = r.owners[e];
    int32_t s[3];
    shift_of(r, k, e, s);
    for (int a = 0; a < 3; ++a) r.shifts[3 * to + a] = s[a];
}

// Where entry e is: its owner's position, moved by its lattice vector.
RK_BODY void position_of(const Rows& r, int64_t e, double* out) {
    const int64_t owner = r.owners[e];
    const int32_t* s = r.image_shifts + 3 * e;
    const double shift[3] = {double(s[0]), double(s[1]), double(s[2])};
    times_matrix(shift, r.cells + 9 * r.system[owner], out);
    for (int a = 0; a < 3; ++a) out[a] = r.positions[3 * owner + a] + out[a];
}

RK_BODY int64_t select_within(int64_t k, const Rows& r, int32_t* out) {
    double centre[3], site[3];
    position_of(r, k, centre);
    const double cutoff_squared = product(r.cutoff, r.cutoff);
    int64_t count = 0;
    for (int64_t place = r.rows[k]; place < r.rows[k + 1]; ++place) {
        position_of(r, r.columns[place], site);
        const double d[3] = {site[0] - centre[0], site[1] - centre[1], site[2] - centre[2]};
        if (!(dot(d, d) < cutoff_squared)) continue;
        if (out) out[count] = r.columns[place];
        ++count;
    }
    return count;
}

// One thread a row. counts[k], and kept from starts[k] on: the neighbours of row k that are now closer than the cutoff.
RK_BODY void count_within(int64_t k, const Rows& r) { r.counts[k] = select_within(k, r, nullptr); }
RK_BODY void write_within(int64_t k, const Rows& r) { select_within(k, r, r.kept + r.starts[k]); }

#define RK_NEIGHBOR_ROW_KERNELS(KERNEL) \
    KERNEL(count_edges) KERNEL(write_edges) KERNEL(count_within) KERNEL(write_within)

}  // namespace device
}  // namespace rk
