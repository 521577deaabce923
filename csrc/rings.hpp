// Rings of a periodic bond network: the net, a ball around one node of its lift, and distances inside the ball.
//
// A lifted node is (node, shift): a node of the cell and the cell it lies in, relative to the root's. Balls are
// grown by breadth-first search over lifted nodes, so that a path which goes around the cell does not close.
// Host and device; all memory is the caller's.
#pragma once
#include "common.hpp"

#define RK_RINGS HOST_DEVICE inline

namespace rk {
namespace rings {

// Where an end of a link leads: a node, and the cell of its image relative to the cell of the node it starts from.
struct alignas(16) End {
    int32_t node, x, y, z;
};

// Ends of node i: rows[i] ... rows[i + 1], sorted, no two equal, none to itself. `back` is the place of the same link
// in the row at the other end.
struct Net {
    int64_t n_nodes;
    const int64_t* rows;
    const End* ends;
    const int32_t* back;
    const int64_t* angle_rows;  // first angle of every node; d (d - 1) / 2 of them

    RK_RINGS int32_t degree(int32_t node) const { return static_cast<int32_t>(rows[node + 1] - rows[node]); }
    // Angle of the ends a and b, a != b, places in the row of the node.
    RK_RINGS int64_t angle(int32_t node, int32_t a, int32_t b) const {
        const int64_t low = a < b ? a : b, high = a < b ? b : a, d = degree(node);
        return angle_rows[node] + low * (2 * d - low - 1) / 2 + high - low - 1;
    }
};

// Room for one ball. `words` is the number of 64-bit words of all the masks of the ball.
struct Room {
    int64_t nodes, ends, words, max_size;
};

// What was too small, bit by bit.
enum Lack : int32_t { LACK_NOTHING = 0, LACK_NODES = 1, LACK_ENDS = 2, LACK_WORDS = 4 };

struct Scratch {
    Room room;
    int32_t buckets;  // of the hash table, a power of two
    int32_t count;    // nodes of the ball so far
    int32_t width;    // words of one mask
    int32_t lack;
    uint64_t* masks;    // (steps, nodes, width): sources that reach a node within so many steps
    End* image;         // (nodes) lifted nodes, in breadth-first order; 0 is the root
    int32_t* first;     // (nodes + 1) row of a node in `hop`
    int32_t* bit;       // (nodes) number as a source of masks, or -1
    int32_t* member;    // (nodes) level of what may be a member of a ring whose smallest node is the root, else -1
    int32_t* bucket;    // (nodes) place in the hash table, to empty it
    int32_t* table;     // (buckets) node of the ball, or -1
    int32_t* hop;       // (ends) node of the ball at the other end of a link, or -1: outside
    int32_t* start;     // (max_size + 3) first node of a level
    int32_t* extent;    // (max_size + 3) nodes for which the mask of a step is known; it is zero beyond
    int32_t* ring;      // (max_size + 1) members, nodes of the ball; the root is at 0 and at max_size
    int32_t* out;       // (max_size + 1) place of the end that leads to the next member
    int32_t* in;        // (max_size + 1) place of the end that leads to the previous member
    int32_t* cursor;    // (max_size + 1) where the walk stands
};

RK_RINGS int64_t buckets_of(const Room& room) {
    int64_t n = 16;
    while (n < 2 * room.nodes) n *= 2;
    return n;
}

// Bytes of scratch for one root, a multiple of 16.
RK_RINGS int64_t scratch_bytes(const Room& room) {
    const int64_t integers =
        4 * room.nodes + 1 + buckets_of(room) + room.ends + 2 * (room.max_size + 3) + 4 * (room.max_size + 1);
    return (8 * room.words + 16 * room.nodes + 4 * integers + 31) / 16 * 16;
}

// Lays the arrays out in a block of scratch_bytes(room), 16-byte aligned. The table must be emptied once (`empty`).
RK_RINGS Scratch lay_out(void* block, const Room& room) {
    Scratch s;
    s.room = room;
    s.buckets = static_cast<int32_t>(buckets_of(room));
    s.count = s.width = s.lack = 0;
    s.image = static_cast<End*>(block);
    s.masks = reinterpret_cast<uint64_t*>(s.image + room.nodes);
    int32_t* next = reinterpret_cast<int32_t*>(s.masks + room.words);
    s.first = next, next += room.nodes + 1;
    s.bit = next, next += room.nodes;
    s.member = next, next += room.nodes;
    s.bucket = next, next += room.nodes;
    s.table = next, next += s.buckets;
    s.hop = next, next += room.ends;
    s.start = next, next += room.max_size + 3;
    s.extent = next, next += room.max_size + 3;
    s.ring = next, next += room.max_size + 1;
    s.out = next, next += room.max_size + 1;
    s.in = next, next += room.max_size + 1;
    s.cursor = next;
    return s;
}

RK_RINGS void empty(Scratch& s) {
    for (int32_t i = 0; i < s.buckets; ++i) s.table[i] = -1;
}

// Takes the ball out of the hash table.
RK_RINGS void clear(Scratch& s) {
    for (int32_t i = 0; i < s.count; ++i) s.table[s.bucket[i]] = -1;
    s.count = 0;
}

RK_RINGS bool same(const End& a, const End& b) { return a.node == b.node && a.x == b.x && a.y == b.y && a.z == b.z; }

RK_RINGS uint32_t hashed(const End& a) {
    uint32_t h = static_cast<uint32_t>(a.node) * 0x9E3779B1u;
    h ^= (static_cast<uint32_t>(a.x) * 0x85EBCA77u) ^ (static_cast<uint32_t>(a.y) * 0xC2B2AE3Du) ^
         (static_cast<uint32_t>(a.z) * 0x27D4EB2Fu);
    h ^= h >> 15;
    h *= 0x2C1B3C6Du;
    return h ^ (h >> 13);
}

// Place of a lifted node in the ball; -1 where it is not in it and was not to be, or could not be, added.
RK_RINGS int32_t place(const Net& net, Scratch& s, const End& image, bool add) {
    const uint32_t mask = static_cast<uint32_t>(s.buckets - 1);
    uint32_t b = hashed(image) & mask;
    for (; s.table[b] >= 0; b = (b + 1) & mask)
        if (same(s.image[s.table[b]], image)) return s.table[b];
    if (!add) return -1;
    if (s.count == s.room.nodes) {
        s.lack |= LACK_NODES;
        return -1;
    }
    const int32_t node = s.count, from = s.first[node], degree = net.degree(image.node);
    if (from + static_cast<int64_t>(degree) > s.room.ends) {
        s.lack |= LACK_ENDS;
        return -1;
    }
    ++s.count;
    s.table[b] = node;
    s.bucket[node] = static_cast<int32_t>(b);
    s.image[node] = image;
    s.bit[node] = -1;
    s.first[node + 1] = from + degree;
    for (int32_t j = from; j < from + degree; ++j) s.hop[j] = -1;
    return node;
}

// Starts the ball of a root: level 0.
RK_RINGS bool begin(const Net& net, Scratch& s, int32_t root) {
    s.count = s.lack = 0;
    s.first[0] = 0;
    const End image = {root, 0, 0, 0};
    place(net, s, image, true);
    s.start[0] = 0;
    s.start[1] = s.count;
    return s.lack == 0;
}

// Which nodes of the next level join the ball.
enum class Joins { all, none, members };  // members: those not before the root that a member leads to

// Follows the links of one level. Every link is looked up once: it is noted at both its ends. Returns false where the
// room does not suffice.
RK_RINGS bool expand(const Net& net, Scratch& s, int32_t level, Joins joins) {
    const int32_t root = s.image[0].node;
    for (int32_t u = s.start[level]; u < s.start[level + 1]; ++u) {
        const End at = s.image[u];
        const int64_t row = net.rows[at.node];
        const int32_t from = s.first[u], degree = s.first[u + 1] - from;
        for (int32_t j = 0; j < degree; ++j) {
            if (s.hop[from + j] >= 0) continue;
            const End step = net.ends[row + j];
            const End to = {step.node, at.x + step.x, at.y + step.y, at.z + step.z};
            const bool add = joins == Joins::all || (joins == Joins::members && s.member[u] >= 0 && to.node >= root);
            const int32_t w = place(net, s, to, add);
            if (w < 0) {
                if (s.lack) return false;
                continue;
            }
            s.hop[from + j] = w;
            s.hop[s.first[w] + net.back[row + j]] = u;
        }
    }
    s.start[level + 2] = s.count;
    return true;
}

RK_RINGS uint64_t* mask_of(Scratch& s, int32_t step, int32_t node) {
    return s.masks + (step * s.room.nodes + node) * s.width;
}

// Whether source `bit` reaches a node within `step` steps.
RK_RINGS bool reaches(const Scratch& s, int32_t step, int32_t node, int32_t bit) {
    if (node >= s.extent[step]) return false;
    return s.masks[(step * s.room.nodes + node) * s.width + (bit >> 6)] >> (bit & 63) & 1;
}

// Room for `steps` masks of so many sources on every node.
RK_RINGS bool widen(Scratch& s, int32_t steps, int32_t sources) {
    s.width = (sources + 63) / 64;
    if (static_cast<int64_t>(steps) * s.room.nodes * s.width > s.room.words) {
        s.lack |= LACK_WORDS;
        return false;
    }
    return true;
}

// Masks of no step on the nodes below `extent`: every source reaches itself.
RK_RINGS void seed_masks(Scratch& s, int32_t extent) {
    for (int64_t i = 0; i < static_cast<int64_t>(extent) * s.width; ++i) s.masks[i] = 0;
    for (int32_t v = 0; v < extent; ++v)
        if (s.bit[v] >= 0) mask_of(s, 0, v)[s.bit[v] >> 6] |= uint64_t{1} << (s.bit[v] & 63);
    s.extent[0] = extent;
}

// Masks of one step more, on the nodes from `from` to `extent`; those below `from` are passed by no path.
RK_RINGS void sweep(Scratch& s, int32_t step, int32_t from, int32_t extent) {
    const int32_t known = s.extent[step - 1], width = s.width;
    const uint64_t* before = mask_of(s, step - 1, 0);
    uint64_t* now = mask_of(s, step, 0);
    for (int32_t w = 0; w < width; ++w) {
        for (int32_t v = 0; v < from; ++v) now[static_cast<int64_t>(v) * width + w] = 0;
        for (int32_t v = from; v < extent; ++v) {
            uint64_t mask = v < known ? before[static_cast<int64_t>(v) * width + w] : 0;
            for (int32_t j = s.first[v]; j < s.first[v + 1]; ++j) {
                // Without a branch: where nothing is known there, the node itself once more.
                const bool there = static_cast<uint32_t>(s.hop[j]) < static_cast<uint32_t>(known);
                const int32_t u = there ? s.hop[j] : v;
                mask |= u < known ? before[static_cast<int64_t>(u) * width + w] : 0;
            }
            now[static_cast<int64_t>(v) * width + w] = mask;
        }
    }
    s.extent[step] = extent;
}

}  // namespace rings
}  // namespace rk
