// What the trainer needs of libtorch and tch does not bind: operators over lists of tensors, a random generator of
// one's own, clearing gradients, and autocast with a choice of type.

#include "shim.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/normal.h>
#include <ATen/ops/stack.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cstdlib>

extern "C" {

void ijepa_free(char* message) { free(message); }

// One AdamW step over a list; `step` (float32, already incremented) is shared by all parameters.
char* ijepa_adamw(at::Tensor* const* parameters, at::Tensor* const* gradients, at::Tensor* const* exp_avg,
                  at::Tensor* const* exp_avg_sq, size_t count, at::Tensor* step, double lr, double beta1, double beta2,
                  double weight_decay, double eps) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    at::_fused_adamw_(list(parameters, count), list(gradients, count), list(exp_avg, count), list(exp_avg_sq, count),
                      /*max_exp_avg_sqs=*/{}, Tensors(count, *step), lr, beta1, beta2, weight_decay, eps,
                      /*amsgrad=*/false, /*maximize=*/false);
  });
}

// slow = slow * momentum + fast * (1 - momentum), each operation rounded by itself: three roundings, as two
// separate products and a sum have. A fused lerp would differ in the last bit.
char* ijepa_ema(at::Tensor* const* slow, at::Tensor* const* fast, size_t count, double momentum) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    // In pieces, because the products of a whole ViT-H would need a third copy of its weights.
    constexpr size_t piece = 32;
    for (size_t first = 0; first < count; first += piece) {
      const size_t length = std::min(piece, count - first);
      const Tensors target = list(slow + first, length);
      const Tensors share = at::_foreach_mul(list(fast + first, length), 1.0 - momentum);
      at::_foreach_mul_(target, momentum);
      at::_foreach_add_(target, share);
    }
  });
}

// Fills the tensors with normal values of one random stream, drawn on the CPU whatever their device.
char* ijepa_normal(at::Tensor* const* tensors, size_t count, double deviation, uint64_t seed) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    const at::Generator generator = at::detail::createCPUGenerator(seed);
    for (size_t i = 0; i < count; i++) {
      tensors[i]->copy_(at::empty(tensors[i]->sizes(), at::kFloat).normal_(0.0, deviation, generator));
    }
  });
}

// The Euclidean norm of all elements of all tensors together. Waits for the device.
char* ijepa_norm(at::Tensor* const* tensors, size_t count, double* norm) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    const Tensors norms = at::_foreach_norm(list(tensors, count), 2);
    *norm = at::linalg_vector_norm(at::stack(norms), 2).item<double>();
  });
}

// Drops the gradients, so that the next backward pass stores instead of adding.
char* ijepa_clear_gradients(at::Tensor* const* tensors, size_t count) {
  return guarded([&] {
    for (size_t i = 0; i < count; i++) tensors[i]->mutable_grad() = at::Tensor();
  });
}

// Enters autocast to bfloat16 on the type of device that `like` lives on.
char* ijepa_autocast_enter(at::Tensor* like, int* was_enabled, int* previous_type) {
  return guarded([&] {
    const auto device = like->device().type();
    *was_enabled = at::autocast::is_autocast_enabled(device);
    *previous_type = static_cast<int>(at::autocast::get_autocast_dtype(device));
    at::autocast::set_autocast_dtype(device, at::kBFloat16);
    at::autocast::set_autocast_enabled(device, true);
    at::autocast::increment_nesting();
  });
}

// Leaves it; the outermost exit drops the cached bfloat16 copies of the weights, which the next step makes stale.
char* ijepa_autocast_exit(at::Tensor* like, int was_enabled, int previous_type) {
  return guarded([&] {
    const auto device = like->device().type();
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device, was_enabled != 0);
    at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(previous_type));
  });
}

}  // extern "C"
