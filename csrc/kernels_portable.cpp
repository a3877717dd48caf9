// Any machine.
#include "kernels.h"

#include "philox.h"

namespace thinned {
namespace portable {

constexpr int GROUPS = 1;
constexpr int64_t STEP = 4;

template <int>
static inline void words_run(uint32_t* out, uint64_t block, const Lane& lane) {
  const Words c = {{uint32_t(block), uint32_t(lane.sample), uint32_t(lane.sample >> 32), lane.step}};
  const Words w = philox(c, lane.key[0], lane.key[1]);
  for (int i = 0; i < 4; ++i) out[i] = w.w[i];
}

template <int>
static inline void fell_run(uint8_t* out, uint64_t block, const Lane& lane, uint32_t threshold) {
  uint32_t drawn[STEP];
  words_run<1>(drawn, block, lane);
  for (int i = 0; i < STEP; ++i) out[i] = drawn[i] < threshold;
}

#include "kernels.inl"

}  // namespace portable

const Kernels PORTABLE = {"portable", portable::fell, portable::words, portable::scattered, portable::normal,
                          portable::select, portable::constant, portable::scale};

}  // namespace thinned
