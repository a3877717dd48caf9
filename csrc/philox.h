// Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011) and the keys of the mask contract (docs/masks.md).
#pragma once
#include <cstdint>

namespace thinned {

constexpr uint32_t MULTIPLIER_0 = 0xD2511F53u, MULTIPLIER_1 = 0xCD9E8D57u;
constexpr uint32_t WEYL_0 = 0x9E3779B9u, WEYL_1 = 0xBB67AE85u;
constexpr uint32_t TAG = 0x7468696Eu;  // "thin"
constexpr uint32_t LOW = 0x80000000u;   // added to the first word of the counter: the block of low halves
constexpr int ROUNDS = 10;

struct Words {
  uint32_t w[4];
};

static inline Words philox(Words c, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < ROUNDS; ++round) {
    const uint64_t a = uint64_t(MULTIPLIER_0) * c.w[0], b = uint64_t(MULTIPLIER_1) * c.w[2];
    c = {{uint32_t(b >> 32) ^ c.w[1] ^ k0, uint32_t(b), uint32_t(a >> 32) ^ c.w[3] ^ k1, uint32_t(a)}};
    k0 += WEYL_0;
    k1 += WEYL_1;
  }
  return c;
}

// The Philox key of one call of one layer: f(seed, stream, call) of docs/masks.md.
static inline void derive(uint64_t seed, uint64_t stream, uint32_t call, uint32_t key[2]) {
  const Words c = {{uint32_t(stream), uint32_t(stream >> 32), call, TAG}};
  const Words w = philox(c, uint32_t(seed), uint32_t(seed >> 32));
  key[0] = w.w[0];
  key[1] = w.w[1];
}

}  // namespace thinned
