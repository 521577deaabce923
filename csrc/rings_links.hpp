// From a bond list to the net of its nodes: bonds of every atom, then links of every node. Each function is the share
// of one bond, atom or node in one pass; between passes the caller turns lengths into rows. Host and device.
#pragma once
#include "rings.hpp"
#include "rings_shared.hpp"

namespace rk {
namespace rings {

// Where a bond or link leads, and by how many atoms the link is bridged (0: the nodes are bonded to each other).
struct Link {
    int32_t node, x, y, z, bridges;
};

RK_RINGS bool before(const Link& a, const Link& b) {
    if (a.node != b.node) return a.node < b.node;
    if (a.x != b.x) return a.x < b.x;
    if (a.y != b.y) return a.y < b.y;
    return a.z < b.z;
}

RK_RINGS void sift(Link* heap, int64_t hole, int64_t count) {
    const Link item = heap[hole];
    for (;;) {
        int64_t child = 2 * hole + 1;
        if (child >= count) break;
        if (child + 1 < count && before(heap[child], heap[child + 1])) ++child;
        if (!before(item, heap[child])) break;
        heap[hole] = heap[child];
        hole = child;
    }
    heap[hole] = item;
}

// In place; insertion for the short rows of a network, a heap for long ones.
RK_RINGS void sort_row(Link* row, int64_t count) {
    if (count <= 32) {
        for (int64_t i = 1; i < count; ++i) {
            const Link item = row[i];
            int64_t j = i;
            for (; j > 0 && before(item, row[j - 1]); --j) row[j] = row[j - 1];
            row[j] = item;
        }
        return;
    }
    for (int64_t i = count / 2 - 1; i >= 0; --i) sift(row, i, count);
    for (int64_t last = count - 1; last > 0; --last) {
        const Link largest = row[0];
        row[0] = row[last];
        row[last] = largest;
        sift(row, 0, last);
    }
}

// A bond list: edges (2, n_bonds), shifts (n_bonds, 3); every bond in one direction or both.
struct BondList {
    const int64_t* edges;
    const int32_t* shifts;
    int64_t n_bonds;
};

// Adds bond b to the degrees of its atoms. first_bad[0] becomes the first bond that names an absent atom, first_bad[1]
// the first that leads from an atom to itself; both were n_bonds.
RK_RINGS void count_bond(const BondList& list, int64_t b, int64_t n_atoms, int32_t* degrees, int64_t* first_bad) {
    const int64_t i = list.edges[b], j = list.edges[list.n_bonds + b];
    const int32_t* s = list.shifts + 3 * b;
    if (i < 0 || j < 0 || i >= n_atoms || j >= n_atoms) {
        lower_shared(first_bad, b);
    } else if (i == j && !s[0] && !s[1] && !s[2]) {
        lower_shared(first_bad + 1, b);
    } else {
        add_shared(degrees + i, 1);
        add_shared(degrees + j, 1);
    }
}

// Writes bond b into the rows of both its atoms, in no particular order; `written` starts at zero.
RK_RINGS void fill_bond(const BondList& list, int64_t b, const int64_t* rows, int32_t* written, Link* bonds) {
    const int64_t i = list.edges[b], j = list.edges[list.n_bonds + b];
    const int32_t *s = list.shifts + 3 * b;
    bonds[rows[i] + add_shared(written + i, 1)] = {static_cast<int32_t>(j), s[0], s[1], s[2], 0};
    bonds[rows[j] + add_shared(written + j, 1)] = {static_cast<int32_t>(i), -s[0], -s[1], -s[2], 0};
}

// Sorts a row, makes one of equal entries, with the bridges of all, and notes how many are left.
RK_RINGS void tidy_row(const int64_t* rows, int64_t i, Link* links, int32_t* lengths) {
    Link* row = links + rows[i];
    const int64_t count = rows[i + 1] - rows[i];
    sort_row(row, count);
    int32_t kept = 0;
    for (int64_t k = 0; k < count; ++k) {
        if (k == 0 || before(row[kept - 1], row[k]))
            row[kept++] = row[k];
        else
            row[kept - 1].bridges += row[k].bridges;
    }
    lengths[i] = kept;
}

// Bonds of atom i: rows[i] ... rows[i] + lengths[i], each once, to every atom it is bonded to.
struct Bonds {
    const int64_t* rows;
    const int32_t* lengths;
    const Link* bonds;
    const int32_t* index;  // of an atom among the nodes, or -1
};

// Counts the links of a node atom, one for each bridge, and writes them where `links` is given.
RK_RINGS int32_t links_of(const Bonds& net, int64_t atom, Link* links) {
    int32_t count = 0;
    for (int64_t b = net.rows[atom]; b < net.rows[atom] + net.lengths[atom]; ++b) {
        const Link bond = net.bonds[b];
        if (net.index[bond.node] >= 0) {
            if (links) links[count] = {net.index[bond.node], bond.x, bond.y, bond.z, 0};
            ++count;
            continue;
        }
        for (int64_t c = net.rows[bond.node]; c < net.rows[bond.node] + net.lengths[bond.node]; ++c) {
            const Link on = net.bonds[c];
            const Link to = {net.index[on.node], bond.x + on.x, bond.y + on.y, bond.z + on.z, 1};
            if (to.node < 0 || (on.node == atom && to.x == 0 && to.y == 0 && to.z == 0)) continue;
            if (links) links[count] = to;
            ++count;
        }
    }
    return count;
}

// Copies the tidy row of node k from its place to the rows of the net, and finds every link in the row of its other
// node.
RK_RINGS void pack_row(const int64_t* places, const int64_t* rows, const Link* links, int64_t k, End* ends,
                       int32_t* back, int32_t* bridges) {
    for (int64_t e = rows[k], from = places[k]; e < rows[k + 1]; ++e, ++from) {
        const Link link = links[from];
        ends[e] = {link.node, link.x, link.y, link.z};
        bridges[e] = link.bridges;
        const Link wanted = {static_cast<int32_t>(k), -link.x, -link.y, -link.z, 0};
        const Link* other = links + places[link.node];
        int64_t low = 0, high = rows[link.node + 1] - rows[link.node];
        while (low < high) {
            const int64_t middle = (low + high) / 2;
            if (before(other[middle], wanted))
                low = middle + 1;
            else
                high = middle;
        }
        back[e] = static_cast<int32_t>(low);
    }
}

}  // namespace rings
}  // namespace rk
