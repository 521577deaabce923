// From a bond list to the net of its nodes, row by row: bonds of every atom, then links of every node. Host and device.
#pragma once
#include "rings.hpp"

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

// Sorts a row, makes one of equal entries, with the bridges of all, and returns how many are left.
RK_RINGS int64_t tidy_row(Link* row, int64_t count) {
    sort_row(row, count);
    int64_t kept = 0;
    for (int64_t i = 0; i < count; ++i) {
        if (i == 0 || before(row[kept - 1], row[i]))
            row[kept++] = row[i];
        else
            row[kept - 1].bridges += row[i].bridges;
    }
    return kept;
}

// Bonds of atom i: rows[i] ... rows[i] + lengths[i], each once, to every atom it is bonded to.
struct Bonds {
    const int64_t* rows;
    const int64_t* lengths;
    const Link* bonds;
    const int32_t* index;  // of an atom among the nodes, or -1
};

// Counts the links of a node atom, one for each bridge, and writes them where `links` is given.
RK_RINGS int64_t links_of(const Bonds& net, int64_t atom, Link* links) {
    int64_t count = 0;
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

// Place, in the tidy row of the node it leads to, of the link `link` of `node` seen from there.
RK_RINGS int64_t place_of_reverse(const Link* row, int64_t count, int32_t node, const Link& link) {
    const Link wanted = {node, -link.x, -link.y, -link.z, 0};
    int64_t low = 0, high = count;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (before(row[middle], wanted))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

}  // namespace rings
}  // namespace rk
