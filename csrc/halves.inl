// Halves of words in scalar code, compiled once for each instruction set; included before the vector code.

// Half of the word of a mask element: the (element % 8)-th 16 bits of Philox block `block`.
static inline uint32_t half(uint64_t block, uint64_t element, uint64_t sample, uint32_t step, const uint32_t* key) {
  uint64_t c0 = uint32_t(block), c1 = uint32_t(sample), c2 = sample >> 32, c3 = step;
  uint32_t k0 = key[0], k1 = key[1];
  for (int round = 0; round < ROUNDS; ++round) {
    const uint64_t a = uint64_t(MULTIPLIER_0) * uint32_t(c0), b = uint64_t(MULTIPLIER_1) * uint32_t(c2);
    c0 = (b >> 32) ^ c1 ^ k0;
    c1 = uint32_t(b);
    c2 = (a >> 32) ^ c3 ^ k1;
    c3 = uint32_t(a);
    k0 += WEYL_0;
    k1 += WEYL_1;
  }
  const uint32_t word = uint32_t(element & 4 ? (element & 2 ? c3 : c2) : (element & 2 ? c1 : c0));
  return element & 1 ? word >> 16 : word & 0xFFFFu;
}

// Whether a word is below the threshold, from its high half. Where that equals the high half of the threshold, the low half
// decides, and only then it is drawn.
static inline bool below(uint32_t high, uint32_t threshold, uint64_t element, const Lane& lane) {
  if (high != threshold >> 16) return high < threshold >> 16;
  return half((element >> 3) | LOW, element, lane.sample, lane.step, lane.key) < (threshold & 0xFFFFu);
}

// Decides up to 64 elements, from `at` on, with a high half that equals that of the threshold: one bit of `ties` each.
static inline void settle(uint8_t* out, uint64_t ties, int at, uint64_t block, const Lane& lane, uint32_t threshold) {
  if (!(threshold & 0xFFFFu)) return;  // no low half is below 0, so a tie is kept, as `out` has it
  for (; ties; ties &= ties - 1) {
    const int i = at + __builtin_ctzll(ties);
    out[i] = below(threshold >> 16, threshold, 8 * block + uint64_t(i), lane);
  }
}

// The same where `out` holds `each` consecutive elements, from `first` on, of one example after the other.
static inline void settle_each(uint8_t* out, uint64_t ties, int at, uint64_t first, int each, const Rows& of,
                               uint32_t threshold) {
  if (!(threshold & 0xFFFFu)) return;
  for (; ties; ties &= ties - 1) {
    const int i = at + __builtin_ctzll(ties);
    const Lane lane = {{of.key[0], of.key[1]}, of.samples[i / each], of.steps[i / each]};
    out[i] = below(threshold >> 16, threshold, first + uint64_t(i % each), lane);
  }
}
