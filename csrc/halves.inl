// The scalar halves of words, compiled once for each instruction set; included before the vector code.

// One half of a cell's word: 16 bits of block `block`, the (cell % 8)-th.
static inline uint32_t half(uint64_t block, uint64_t cell, uint64_t sample, uint32_t step, const uint32_t* key) {
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
  const uint32_t word = uint32_t(cell & 4 ? (cell & 2 ? c3 : c2) : (cell & 2 ? c1 : c0));
  return cell & 1 ? word >> 16 : word & 0xFFFFu;
}

// A word below the threshold in its high half, or equal there and below in the low half, which is drawn only then.
static inline bool below(uint32_t high, uint32_t threshold, uint64_t cell, const Lane& lane) {
  if (high != threshold >> 16) return high < threshold >> 16;
  return half((cell >> 3) | LOW, cell, lane.sample, lane.step, lane.key) < (threshold & 0xFFFFu);
}

// Decide 64 or fewer cells from `at` of a run whose high halves tie with the threshold's: one bit a cell.
static inline void settle(uint8_t* out, uint64_t ties, int at, uint64_t block, const Lane& lane, uint32_t threshold) {
  if (!(threshold & 0xFFFFu)) return;  // nothing is below 0, and a tie stays as it is: kept
  for (; ties; ties &= ties - 1) {
    const int i = at + __builtin_ctzll(ties);
    out[i] = below(threshold >> 16, threshold, 8 * block + uint64_t(i), lane);
  }
}
