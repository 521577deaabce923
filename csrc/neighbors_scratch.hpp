// Memory of the neighbour search: lists that grow without being copied or zeroed, kept between calls up to a limit.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>
#include <vector>

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

// Numbers with a capacity; contents are not initialised.
template <typename T>
class Scratch {
  public:
    Scratch() = default;
    explicit Scratch(int64_t size) {
        if (!reserve(size)) throw std::bad_alloc();
    }
    Scratch(Scratch&& other) noexcept : data_(std::exchange(other.data_, nullptr)), capacity_(std::exchange(other.capacity_, 0)) {}
    Scratch& operator=(Scratch&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(capacity_, other.capacity_);
        return *this;
    }
    ~Scratch() { std::free(data_); }
    // Room for `size` numbers, keeping what is there; false where there is not enough memory. Throws nothing: no exception
    // may leave a parallel region.
    bool reserve(int64_t size) {
        if (size <= capacity_) return true;
        const int64_t wanted = size > 2 * capacity_ ? size : 2 * capacity_;
        void* grown = std::realloc(data_, static_cast<size_t>(wanted) * sizeof(T));
        if (!grown) return false;
        data_ = static_cast<T*>(grown);
        capacity_ = wanted;
        advise_huge_pages(data_, wanted * static_cast<int64_t>(sizeof(T)));
        return true;
    }
    T* data() { return data_; }
    const T* data() const { return data_; }
    T& operator[](int64_t i) { return data_[i]; }
    const T& operator[](int64_t i) const { return data_[i]; }
    int64_t capacity() const { return capacity_; }

  private:
    T* data_ = nullptr;
    int64_t capacity_ = 0;
};

// Rows of neighbours as several threads find them: rows [first, last), their entries one row behind the other, and the
// place of the first among those of all chunks.
struct Chunk {
    int64_t first = 0, last = 0, used = 0, base = 0;
    Scratch<int32_t> entries;
    bool enough_memory = true;
};

// Entries kept from call to call by the thread that calls.
class Pool {
  public:
    Scratch<int32_t> take() {
        if (kept_.empty()) return {};
        Scratch<int32_t> last = std::move(kept_.back());
        kept_.pop_back();
        held_ -= last.capacity();
        return last;
    }
    void give(Scratch<int32_t>&& entries) {
        if (held_ + entries.capacity() > LIMIT) return;
        held_ += entries.capacity();
        kept_.push_back(std::move(entries));
    }
    static Pool& mine() {
        static thread_local Pool pool;
        return pool;
    }

  private:
    static constexpr int64_t LIMIT = 1 << 25;  // 128 MB: the pairs of 90,000 atoms of silica at 11 Å
    std::vector<Scratch<int32_t>> kept_;
    int64_t held_ = 0;
};

// [first, last) of part p of n.
inline int64_t part_begin(int64_t n, int64_t p, int64_t parts) { return n / parts * p + (n % parts) * p / parts; }

}  // namespace rk
