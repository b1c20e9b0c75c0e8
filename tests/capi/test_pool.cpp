// Every job is done once, by a worker that does one at a time, however many rounds there are.
#include <atomic>
#include <vector>

#include "check.h"
#include "pool.h"

int main() {
  for (int size : {1, 2, 5}) {
    msloc::Pool pool(size);
    check(pool.size() == size, "its size");
    for (int jobs : {0, 1, 2, 3, 64}) {
      for (int round = 0; round < 500; ++round) {
        std::vector<std::atomic<int>> done(static_cast<std::size_t>(jobs));
        std::vector<std::atomic<int>> inside(static_cast<std::size_t>(size));
        std::atomic<bool> alone{true};
        auto work = [&](int worker, int job) noexcept {
          if (inside[static_cast<std::size_t>(worker)].fetch_add(1) != 0) alone = false;
          done[static_cast<std::size_t>(job)].fetch_add(1);
          inside[static_cast<std::size_t>(worker)].fetch_sub(1);
        };
        pool.run(jobs, work);
        bool once = true;
        for (const auto& count : done) once = once && count == 1;
        check(once && alone, std::to_string(jobs) + " jobs on " + std::to_string(size) + " threads");
      }
    }
  }
  return finish();
}
