#include "pool.h"

namespace msloc {

Pool::Pool(int size) {
  threads_.reserve(static_cast<std::size_t>(size));
  for (int worker = 1; worker < size; ++worker) threads_.emplace_back([this, worker] { serve(worker); });
}

Pool::~Pool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Pool::start(int jobs, Call call, void* context) noexcept {
  const bool shared = jobs > 1 && !threads_.empty();
  {
    const std::lock_guard lock(mutex_);
    jobs_ = jobs, call_ = call, context_ = context;
    next_.store(0, std::memory_order_relaxed);
    working_ = shared ? static_cast<int>(threads_.size()) : 0;
    round_ += shared ? 1 : 0;
  }
  if (shared) wake_.notify_all();
  take(0);
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return working_ == 0; });
}

void Pool::serve(int worker) noexcept {
  std::uint64_t seen = 0;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stop_ || round_ != seen; });
      if (stop_) return;
      seen = round_;
    }
    take(worker);
    const std::lock_guard lock(mutex_);
    if (--working_ == 0) done_.notify_one();
  }
}

void Pool::take(int worker) noexcept {
  for (int job = next_.fetch_add(1); job < jobs_; job = next_.fetch_add(1)) call_(context_, worker, job);
}

}  // namespace msloc
