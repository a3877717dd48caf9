// The kernels in portable C++, for any machine.
#include <type_traits>

#include "kernels.h"

#include "philox.h"

namespace thinned {
namespace portable {

#include "halves.inl"

constexpr int GROUPS = 1;
constexpr int64_t STEP = 8;
constexpr int64_t EACH = 1;  // examples drawn at a time, where each needs few blocks
constexpr int WIDE = 4;  // floats in a register

static inline void halves_run(uint16_t* out, uint64_t block, const Lane& lane) {
  const Words c = {{uint32_t(block), uint32_t(lane.sample), uint32_t(lane.sample >> 32), lane.step}};
  const Words w = philox(c, lane.key[0], lane.key[1]);
  for (int i = 0; i < 8; ++i) out[i] = uint16_t(w.w[i / 2] >> 16 * (i % 2));
}

template <int>
static inline void is_dropped_run(uint8_t* out, uint64_t block, const Lane& lane, uint32_t threshold) {
  uint16_t drawn[STEP];
  halves_run(drawn, block, lane);
  for (int i = 0; i < STEP; ++i) out[i] = below(drawn[i], threshold, 8 * block + uint64_t(i), lane);
}

static inline void halves_each(uint16_t* out, uint64_t block, const Rows& of) {
  halves_run(out, block, {{of.key[0], of.key[1]}, *of.samples, *of.steps});
}

static inline void is_dropped_each(uint8_t* out, uint64_t block, const Rows& of, uint32_t threshold) {
  is_dropped_run<1>(out, block, {{of.key[0], of.key[1]}, *of.samples, *of.steps}, threshold);
}

// The same for one element of each example.
static inline void is_dropped_one(uint8_t* out, uint64_t element, const Rows& of, uint32_t threshold) {
  const Lane lane = {{of.key[0], of.key[1]}, *of.samples, *of.steps};
  *out = below(half(element >> 3, element, lane.sample, lane.step, lane.key), threshold, element, lane);
}

#include "kernels.inl"

}  // namespace portable

const Kernels PORTABLE = portable::table("portable");

}  // namespace thinned
