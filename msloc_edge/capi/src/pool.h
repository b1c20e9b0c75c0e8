// A few threads that are made once and wait for work.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace msloc {

/// Runs jobs on `size` threads, of which the caller's is one; nothing is allocated after construction.
class Pool {
 public:
  explicit Pool(int size);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  Pool(Pool&&) = delete;
  Pool& operator=(Pool&&) = delete;

  [[nodiscard]] int size() const noexcept { return static_cast<int>(threads_.size()) + 1; }

  /// Calls work(worker, job) for each job in 0 .. jobs and returns when all are done; 0 <= worker < size. A worker does
  /// one job at a time, so what belongs to it needs no lock. `work` must not throw.
  template <class Work>
  void run(int jobs, Work& work) noexcept {
    start(
        jobs, [](void* context, int worker, int job) noexcept { (*static_cast<Work*>(context))(worker, job); }, &work);
  }

 private:
  using Call = void (*)(void*, int, int) noexcept;

  void start(int jobs, Call call, void* context) noexcept;
  void serve(int worker) noexcept;
  void take(int worker) noexcept;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::uint64_t round_ = 0;
  int working_ = 0;
  bool stop_ = false;
  int jobs_ = 0;
  Call call_ = nullptr;
  void* context_ = nullptr;
  std::atomic<int> next_{0};
  std::vector<std::thread> threads_;
};

}  // namespace msloc
