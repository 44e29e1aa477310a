// SPDX-License-Identifier: BSD-3-Clause
#include "cuda/emulation/emulation.h"

#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <exception>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "cuda/emulation/jump.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulation {
namespace {

constexpr std::size_t kStackBytes = std::size_t{256} << 10;

// A stack that one thread after another runs on, and where it stands.
struct Fiber {
  ucontext_t context{};  // where it begins
  bool has_begun = false;
  Place place{};
  std::unique_ptr<std::byte[]> stack{new std::byte[kStackBytes]};
  unsigned thread = 0;
};

enum class State : std::uint8_t {
  ready,
  waits_for_warp,
  waits_for_block,
  finished
};

struct Thread {
  State state = State::ready;
  Fiber* fiber = nullptr;  // null before it has begun
  // What it passed to its warp last, and before that: while some still read the
  // one, others may write the other.
  std::array<std::array<std::byte, 8>, 2> passed{};
  std::size_t exchanges = 0;
};

Order chosen_order = Order::ascending;

std::vector<unsigned> in_order(unsigned count, std::mt19937& random) {
  std::vector<unsigned> order(count);
  std::iota(order.begin(), order.end(), 0U);
  if (chosen_order == Order::descending) {
    std::reverse(order.begin(), order.end());
  } else if (chosen_order == Order::shuffled) {
    std::shuffle(order.begin(), order.end(), random);
  }
  return order;
}

// One block at a time.
class Machine {
 public:
  void run_block(std::vector<unsigned> order,
                 const std::function<void(unsigned)>& enter,
                 const std::function<void()>& thread) {
    order_ = std::move(order);
    enter_ = &enter;
    body_ = &thread;
    begun_ = 0;
    threads_.assign(order_.size(), {});
    // A fiber takes threads until one of them waits: of a kernel in which none
    // does, all run on the same.
    while (begun_ < order_.size()) go_on(idle_fiber());
    while (release()) {
      for (const unsigned i : order_) {
        if (threads_[i].state == State::ready) go_on(threads_[i].fiber);
      }
    }
  }

  void wait(State reason) {
    const unsigned thread = current_->thread;
    threads_[thread].state = reason;
    leave();
    (*enter_)(thread);
  }

  [[nodiscard]] unsigned thread() const { return current_->thread; }

  void exchange(void* value, std::size_t bytes, unsigned lane) {
    Thread& own = threads_[current_->thread];
    const unsigned other = current_->thread / kWarp * kWarp + lane;
    const std::size_t place = own.exchanges++ % 2;
    std::memcpy(own.passed[place].data(), value, bytes);
    wait(State::waits_for_warp);
    std::memcpy(value, threads_[other].passed[place].data(), bytes);
  }

 private:
  static void entry();

  // On a fiber: threads that have not begun, one after another.
  void run_threads() {
    for (;;) {
      while (begun_ < order_.size()) {
        Fiber* own = current_;
        own->thread = order_[begun_++];
        threads_[own->thread].fiber = own;
        (*enter_)(own->thread);
        try {
          (*body_)();
        } catch (...) {
          error_ = std::current_exception();
        }
        threads_[own->thread].state = State::finished;
      }
      idle_.push_back(current_);
      leave();
    }
  }

  // Makes threads ready that have met all they wait for; false where all have
  // finished.
  bool release() {
    const auto count = threads_.size();
    const auto number_of = [&](State state, std::size_t begin,
                               std::size_t end) {
      return static_cast<std::size_t>(std::count_if(
          threads_.begin() + static_cast<std::ptrdiff_t>(begin),
          threads_.begin() + static_cast<std::ptrdiff_t>(end),
          [state](const Thread& thread) { return thread.state == state; }));
    };
    if (number_of(State::finished, 0, count) == count) return false;
    bool any = false;
    for (std::size_t begin = 0; begin < count; begin += kWarp) {
      const std::size_t end = std::min(count, begin + kWarp);
      if (number_of(State::waits_for_warp, begin, end) != kWarp) continue;
      for (std::size_t i = begin; i < end; ++i) {
        threads_[i].state = State::ready;
      }
      any = true;
    }
    if (any) return true;
    if (number_of(State::waits_for_block, 0, count) != count) {
      throw std::logic_error(
          "threads of a block wait for others that wait elsewhere or have "
          "finished");
    }
    for (Thread& thread : threads_) thread.state = State::ready;
    return true;
  }

  Fiber* idle_fiber() {
    if (idle_.empty()) idle_.push_back(new_fiber());
    Fiber* fiber = idle_.back();
    idle_.pop_back();
    return fiber;
  }

  Fiber* new_fiber() {
    fibers_.push_back(std::make_unique<Fiber>());
    Fiber& fiber = *fibers_.back();
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    makecontext(&fiber.context, &Machine::entry, 0);
    return fibers_.back().get();
  }

  // From the host to a fiber, until it leaves.
  void go_on(Fiber* fiber) {
    current_ = fiber;
    void* own_stack = nullptr;
    before_switch(&own_stack, fiber->stack.get(), kStackBytes);
    if (fiber->has_begun) {
      jump(host_, fiber->place);
    } else {
      fiber->has_begun = true;
      begin(host_, fiber->context);
    }
    after_switch(own_stack, nullptr, nullptr);
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

  // From the running fiber back to the host, until go_on(fiber).
  void leave() {
    void* own_stack = nullptr;
    before_switch(&own_stack, host_stack_, host_stack_bytes_);
    jump(current_->place, host_);
    after_switch(own_stack, &host_stack_, &host_stack_bytes_);
  }

  // AddressSanitizer has to be told of every change of stacks.
  static void before_switch([[maybe_unused]] void** own_stack,
                            [[maybe_unused]] const void* other,
                            [[maybe_unused]] std::size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(own_stack, other, bytes);
#endif
  }
  static void after_switch([[maybe_unused]] void* own_stack,
                           [[maybe_unused]] const void** other,
                           [[maybe_unused]] std::size_t* bytes) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(own_stack, other, bytes);
#endif
  }

  std::vector<unsigned> order_;
  const std::function<void(unsigned)>* enter_ = nullptr;
  const std::function<void()>* body_ = nullptr;
  std::size_t begun_ = 0;  // threads, in order_
  std::vector<Thread> threads_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_;
  Fiber* current_ = nullptr;
  std::exception_ptr error_;
  Place host_{};
  const void* host_stack_ = nullptr;
  std::size_t host_stack_bytes_ = 0;
};

std::unique_ptr<Machine> machine;

void Machine::entry() {
  after_switch(nullptr, &machine->host_stack_, &machine->host_stack_bytes_);
  machine->run_threads();
}

}  // namespace

void set_order(Order order) { chosen_order = order; }

void run_grid(unsigned blocks, unsigned threads,
              const std::function<void(unsigned, unsigned)>& enter,
              const std::function<void()>& thread) {
  if (blocks == 0 || threads == 0) {
    throw std::logic_error("a launch without blocks or without threads");
  }
  if (!machine) machine = std::make_unique<Machine>();
  std::mt19937 random(blocks);
  try {
    for (const unsigned block : in_order(blocks, random)) {
      machine->run_block(
          in_order(threads, random), [&](unsigned i) { enter(block, i); },
          thread);
    }
  } catch (...) {
    machine.reset();  // with threads in it that will never go on
    throw;
  }
}

void wait_for_block() { machine->wait(State::waits_for_block); }

unsigned lane() { return machine->thread() % kWarp; }

void exchange(void* value, std::size_t bytes, unsigned lane) {
  machine->exchange(value, bytes, lane);
}

}  // namespace emulation
