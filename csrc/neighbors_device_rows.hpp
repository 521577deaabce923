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
    FIELD(int64_t*, counts) FIELD(const int64_t*, starts) FIELD(int64_t*, edges) FIELD(int32_t*, shifts)               \
    FIELD(int32_t*, kept)

struct Rows {
#define RK_FIELD(type, name) type name;
    RK_NEIGHBOR_ROWS(RK_FIELD)
#undef RK_FIELD
};

struct Edge {
    int64_t j;
    int32_t shift[3];
};

RK_BODY Edge edge_of(const Rows& r, int64_t k, int64_t place) {
    const int64_t e = r.columns[place];
    Edge edge;
    edge.j = r.owners[e];
    for (int a = 0; a < 3; ++a) edge.shift[a] = r.image_shifts[3 * e + a] - r.image_shifts[3 * k + a];
    return edge;
}

// Full lists keep every edge; half lists i < j, or i = j with the first non-zero of S positive.
RK_BODY bool wanted(const Rows& r, int64_t i, const Edge& edge) {
    if (!r.half || i < edge.j) return true;
    if (i > edge.j) return false;
    const int32_t* s = edge.shift;
    return (s[0] != 0 ? s[0] : s[1] != 0 ? s[1] : s[2]) > 0;
}

RK_BODY bool before(const Edge& one, const Edge& other) {
    if (one.j != other.j) return one.j < other.j;
    for (int a = 0; a < 3; ++a)
        if (one.shift[a] != other.shift[a]) return one.shift[a] < other.shift[a];
    return false;
}

// One thread a row. counts[i]: edges of the row's atom i.
RK_BODY void count_edges(int64_t k, const Rows& r) {
    const int64_t i = r.owners[k];
    int64_t count = r.half ? 0 : r.rows[k + 1] - r.rows[k];
    for (int64_t place = r.rows[k]; r.half && place < r.rows[k + 1]; ++place) count += wanted(r, i, edge_of(r, k, place));
    r.counts[i] = count;
}

// One thread a pair. Edges of atom i stand from starts[i] on, by (j, S): this one goes where the number of smaller ones
// in its row says. Neighbouring threads share a row and read the same rivals.
RK_BODY void write_edges(int64_t place, const Rows& r) {
    int64_t k = 0, end = r.n_atoms;  // the last row that starts at or before the place, by bisection
    while (end - k > 1) {
        const int64_t middle = k + (end - k) / 2;
        if (r.rows[middle] <= place) k = middle;
        else end = middle;
    }
    const int64_t i = r.owners[k];
    const Edge edge = edge_of(r, k, place);
    if (!wanted(r, i, edge)) return;
    int64_t to = r.starts[i];
    for (int64_t other = r.rows[k]; other < r.rows[k + 1]; ++other) {
        const Edge rival = edge_of(r, k, other);
        to += wanted(r, i, rival) && before(rival, edge);
    }
    r.edges[to] = i;
    r.edges[r.starts[r.n_atoms] + to] = edge.j;
    for (int a = 0; a < 3; ++a) r.shifts[3 * to + a] = edge.shift[a];
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
