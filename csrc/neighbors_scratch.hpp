// Memory of the neighbour search: lists that grow without being copied or zeroed, kept between calls up to a limit.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace rk {

// Ask for pages of 2 MB where a large array is about to be written for the first time: a page fault each 4 kB costs more
// than the search. Only advice; where it is not taken nothing changes.
inline void advise_huge_pages(void* pointer, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr uintptr_t page = 4096;
    constexpr int64_t least = 4 << 20;
    if (bytes < least) return;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(pointer) + page - 1) / page * page;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(pointer) + static_cast<uintptr_t>(bytes)) / page * page;
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
    (void)pointer, (void)bytes;
#endif
}

// Memory that a thread has given back and will want again at the next call. Returning it to the system would cost more than
// the search of a small system: unmapping interrupts the other processors, and every page faults anew.
class Pool {
  public:
    ~Pool() {
        for (int b = 0; b < n_blocks_; ++b) std::free(blocks_[b].pointer);
    }
    // A block of at least `bytes`, which is set to what it has; null where there is not enough memory.
    void* take(int64_t& bytes) {
        int best = -1;
        for (int b = 0; b < n_blocks_; ++b) {
            const int64_t has = blocks_[b].bytes;
            if (has >= bytes && has / 4 <= bytes && (best < 0 || has < blocks_[best].bytes)) best = b;
        }
        if (best < 0) {
            void* fresh = std::malloc(static_cast<size_t>(bytes));
            if (fresh) advise_huge_pages(fresh, bytes);
            return fresh;
        }
        const Block block = remove(best);
        bytes = block.bytes;
        return block.pointer;
    }
    void give(void* pointer, int64_t bytes) {
        if (bytes > LIMIT) return std::free(pointer);
        while (n_blocks_ == MAX_BLOCKS || held_ + bytes > LIMIT) std::free(remove(0).pointer);  // what was given first
        blocks_[n_blocks_++] = {pointer, bytes};
        held_ += bytes;
    }
    static Pool& mine() {
        static thread_local Pool pool;
        return pool;
    }

  private:
    struct Block {
        void* pointer;
        int64_t bytes;
    };
    Block remove(int b) {
        const Block block = blocks_[b];
        std::copy(blocks_ + b + 1, blocks_ + n_blocks_, blocks_ + b);
        --n_blocks_;
        held_ -= block.bytes;
        return block;
    }
    static constexpr int MAX_BLOCKS = 64;
    static constexpr int64_t LIMIT = int64_t(128) << 20;  // the pairs of 90,000 atoms of silica at 11 Å
    Block blocks_[MAX_BLOCKS];
    int n_blocks_ = 0;
    int64_t held_ = 0;
};

// Numbers with a capacity; contents are not initialised.
template <typename T>
class Scratch {
  public:
    Scratch() = default;
    explicit Scratch(int64_t size) {
        if (!reserve(size)) throw std::bad_alloc();
    }
    Scratch(Scratch&& other) noexcept : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    Scratch& operator=(Scratch&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~Scratch() { release(); }
    void release() {
        if (data_) Pool::mine().give(data_, bytes_);
        data_ = nullptr, bytes_ = 0;
    }
    // Room for `size` numbers, keeping what is there; false where there is not enough memory. Throws nothing: no exception
    // may leave a parallel region.
    bool reserve(int64_t size) {
        int64_t wanted = size * static_cast<int64_t>(sizeof(T));
        if (wanted <= bytes_) return true;
        if (!data_) {
            data_ = static_cast<T*>(Pool::mine().take(wanted));
            bytes_ = data_ ? wanted : 0;
            return data_ != nullptr;
        }
        wanted = std::max(wanted, 2 * bytes_);
        void* grown = std::realloc(data_, static_cast<size_t>(wanted));
        if (!grown) return false;
        data_ = static_cast<T*>(grown), bytes_ = wanted;
        advise_huge_pages(data_, bytes_);
        return true;
    }
    T* data() { return data_; }
    const T* data() const { return data_; }
    T& operator[](int64_t i) { return data_[i]; }
    const T& operator[](int64_t i) const { return data_[i]; }

  private:
    T* data_ = nullptr;
    int64_t bytes_ = 0;
};

// Rows of neighbours as several threads find them: rows [first, last), their entries one row behind the other, and the
// place of the first among those of all chunks.
struct Chunk {
    int64_t first = 0, last = 0, used = 0, base = 0;
    Scratch<int32_t> entries;
    bool enough_memory = true;
};

// [first, last) of part p of n.
inline int64_t part_begin(int64_t n, int64_t p, int64_t parts) { return n / parts * p + (n % parts) * p / parts; }

}  // namespace rk
